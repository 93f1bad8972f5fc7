"""Runs of the bench's suites for the tests: in this process, or in fresh ones as users run them.

Plain `pytest` runs each suite here, where no library is imported again.  The gate runs `train` in fresh processes, too,
and the nightly run all suites.
"""

import json

import pytest

from fastmlp.bench import cold, many, options, peak, processes, suites, worker
from fastmlp.engines import backends

from tiers import exhaustive, nightly

#: Two engines to run side by side.
PAIR = ("cython", "reference") if "cython" in backends.available() else ("reference", "reference")
needs_two = pytest.mark.skipif(len(set(PAIR)) < 2, reason="needs the Cython engine")

#: Parameters of a fixture that runs a suite.
PLACES = ["in this process", *exhaustive("in fresh processes")]
SELDOM = ["in this process", *nightly("in fresh processes")]


def ask_here(rival, action, request, threads=1, variables=None):
    """Answer as a fresh process would, through JSON; the libraries keep the thread counts that they have."""
    request = json.loads(json.dumps({"action": action, "rival": rival, "threads": threads, **request}))
    return json.loads(json.dumps(worker.answer(request)))


def run_here(patch):
    """Have suites run in this process, at sizes that make a test short, until ``patch``, a MonkeyPatch, is undone."""
    patch.setattr(processes, "ask", ask_here)
    patch.setattr(peak, "SIZES", (64,))
    patch.setattr(cold, "NET", "iris")
    patch.setattr(many, "JOBS", 1)
    patch.setattr(options, "NETS", ("iris",))


def silent(text):
    """Ignore what a suite tells about its progress."""


def assert_tables(suite, result):
    """Check that every table of a suite has rows, and a cell in every column."""
    for table in suites.module(suite).tables(result):
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)


def cells(table, column):
    """Return the cells of a column by the first cell of their row."""
    return {row[0]: row[list(table.columns).index(column)] for row in table.rows}
