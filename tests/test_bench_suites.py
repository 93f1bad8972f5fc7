"""The bench's suites, measured in this process: what they do with the answers, and what a worker computes.

In fresh processes, as users run them, they are tested in test_bench.py; that takes a minute, and plain `pytest` leaves
most of it out.
"""

import importlib
import json

import pytest

from fastmlp.bench import engines, processes, suites, worker
from fastmlp.bench.settings import Settings
from fastmlp.engines import backends


def ask_here(rival, action, request, threads=1, variables=None):
    """Answer as a fresh process would, through JSON; the libraries keep the thread counts that they have."""
    request = json.loads(json.dumps({"action": action, "rival": rival, "threads": threads, **request}))
    module, _, function = worker.ACTIONS[action].partition(":")
    return json.loads(json.dumps(getattr(importlib.import_module(module), function)(request)))


def assert_tables(suite, result):
    for table in suites.module(suite).tables(result):
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.parametrize("suite", ["cold", "grid", "predict", "scaling"])
def test_suite_runs_in_this_process(suite, monkeypatch):
    monkeypatch.setattr(processes, "ask", ask_here)
    monkeypatch.setattr(engines, "usable", lambda: ("reference",))  # nothing is compiled
    settings = Settings(rivals=("scikit-learn",), seconds=0.01, quick_check=True)
    document = suites.run((suite,), {suite: settings}, lambda text: None)
    assert suites.problems(document) == []
    result = document["suites"][suite]
    assert result["figures"] and all(name.startswith(f"{suite}: ") for name in document["figures"])
    assert_tables(suite, result)


@pytest.mark.parametrize("suite", ["train", "quick"])
def test_engines_run_side_by_side_in_this_process(suite, monkeypatch):
    monkeypatch.setattr(processes, "ask", ask_here)
    pair = (backends.available()[0], "reference")
    settings = {"backend": pair[0], "engines": pair, "data": ("iris",), "solvers": ("lbfgs",), "quick_check": True}
    document = suites.run((suite,), {suite: Settings(workloads=("iris",), rivals=(), **settings)}, lambda text: None)
    assert suites.problems(document) == []
    result = document["suites"][suite]
    assert result["engines"] == list(pair)
    (entry,) = result["workloads"]
    assert entry["rivals"]["fastmlp"]["array_diff"] == 0
    assert entry["speed"]["1"]["reference"] > 0
    assert_tables(suite, result)
