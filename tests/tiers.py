"""Three tiers of tests: plain `pytest` is quick, `pytest -m "not nightly"` is the gate, `pytest -m ""` runs all.

Many tests run on a product: loss x activation x engine x dtype ...  Most mistakes show with one value, or with two that
meet.  So the gate runs some of the combinations, such that every pair of values of two parameters occurs in one of
them.  The other combinations get the mark ``nightly``.  A test of one or two parameters runs with all of them.

Plain `pytest` takes fewer pairs, and leaves out what takes long; all that it leaves out has the mark ``exhaustive``.
The instruction sets of an engine are one source, compiled several times: unless a test says otherwise, each one meets
each dtype, and what else there is meets each engine.  Each selection depends on the combinations alone: it is the same
on every run.

``@pytest.mark.covers("engine dtype", "engine loss")`` names the groups of parameters whose values must meet in plain
`pytest`, where other pairs add nothing: two stages of a network, for instance, that know nothing of one another.
``gate=("engine loss",)`` does so for the gate, and ``apart="engine"`` leaves out of its pairs those with a parameter
that the others know nothing of.  ``factors=function`` says what is in a parameter that is made of
several: a function from a dict of the parameters to a dict of hashable values.  ``@each_value_once`` asks for no pairs.
``covering`` selects from a table whose rows are the combinations.
"""

import heapq
import itertools
import random
import re
from collections import defaultdict

import pytest

#: Of the test's parameters each value is to occur, in no pair in particular.
each_value_once = pytest.mark.covers("")

EXHAUSTIVE, NIGHTLY = pytest.mark.exhaustive, pytest.mark.nightly
ISA = "engine_on_every_isa"  # the fixture that goes through engines and their instruction sets


def label(value):
    """Return a value as part of a test's name: no address of an object, which differs from process to process."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", str(value))[:60]


def covering_rows(rows, groups=(), start=()):
    """Return the indices of a few of ``rows``, in which all values meet that meet in ``rows``.

    ``rows`` are dicts from the name of a parameter to its value.  ``groups`` are strings of names: each combination of
    values of a group that occurs in ``rows`` occurs in the selection, and so does each value of the other parameters.
    Without ``groups``, they are the pairs of parameters.  ``start`` are indices that are selected already.  Greedy: the
    next row is the one that shows most that is new, of several such rows any one, lest the first values of all
    parameters be together most often.
    """
    names = sorted({name for row in rows for name in row})
    groups = [tuple(group.split()) for group in groups] or list(itertools.combinations(names, 2))
    groups += [(name,) for name in names]
    shown = [
        {(group, tuple(row[name] for name in group)) for group in groups if set(group) <= set(row)} for row in rows
    ]
    draw = random.Random(0).random
    queue = [(-len(combinations), draw(), i) for i, combinations in enumerate(shown)]
    heapq.heapify(queue)
    selected = set(start)
    seen = set().union(*(shown[i] for i in selected))
    while queue:
        gain, turn, i = heapq.heappop(queue)
        new = shown[i] - seen
        if len(new) == -gain and new:
            selected.add(i)
            seen |= new
        elif new:  # rows selected since it was put there show a part of it
            heapq.heappush(queue, (-len(new), turn, i))
    return selected


def covering(table, factors, groups=(), gate=None):
    """Return the rows of a table as parameters of a test; those outside a covering selection are exhaustive.

    ``factors`` is a function from a row to a dict from names to hashable values.  ``gate`` are the groups of the gate's
    selection, () for all pairs; without it the gate has all rows.
    """
    rows = [factors(row) for row in table]
    quick = covering_rows(rows, groups)
    kept = set(range(len(rows))) if gate is None else covering_rows(rows, gate, quick)
    marks = [() if i in quick else (EXHAUSTIVE,) if i in kept else (EXHAUSTIVE, NIGHTLY) for i in range(len(rows))]
    return [pytest.param(row, marks=of) if of else row for row, of in zip(table, marks, strict=True)]


def exhaustive(*values):
    """Return values of a parameter that plain `pytest` leaves out."""
    return [pytest.param(value, marks=EXHAUSTIVE) for value in values]


def nightly(*values):
    """Return values of a parameter that the gate leaves out."""
    return [pytest.param(value, marks=NIGHTLY) for value in values]


def mark_tiers(items):
    """Mark the collected tests outside the selections of their function: ``exhaustive``, and ``nightly`` as well."""
    functions = defaultdict(list)
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(EXHAUSTIVE)
        elif hasattr(item, "callspec"):
            functions[item.nodeid.partition("[")[0]].append(item)
    for combinations in functions.values():
        _mark(combinations)


def _mark(combinations):
    """Mark the tests of one function."""
    mark = combinations[0].get_closest_marker("covers")
    options = mark.kwargs if mark else {}
    factors = options.get("factors")
    rows = [factors(item.callspec.params) if factors else _values(item.callspec) for item in combinations]
    if not mark and len(rows[0]) < 3:
        return
    quick = [i for i, item in enumerate(combinations) if not item.get_closest_marker("exhaustive")]
    groups = mark.args if mark else pairs(rows[0])
    selected = {quick[k] for k in covering_rows([rows[i] for i in quick], groups)}
    meeting = [name for name in rows[0] if name != options.get("apart")]
    gate = options.get("gate") or [" ".join(pair) for pair in itertools.combinations(sorted(meeting), 2)]
    kept = covering_rows(rows, gate or [""], selected)
    for i, item in enumerate(combinations):
        if i not in selected:
            item.add_marker(EXHAUSTIVE)
        if i not in kept:
            item.add_marker(NIGHTLY)


def pairs(names):
    """Return the pairs of parameters whose values are to meet where a test does not say which."""
    found = itertools.combinations(sorted(names), 2)
    return [" ".join(pair) for pair in found if ISA not in pair or "dtype" in pair]


def _values(callspec):
    """Return a dict from each parameter of a test to what tells its value from others: True is not 1, nor 1.0.

    A list or a dict, which has no hash, is told by its identity: the combinations share it.  The engine of an
    instruction set is a parameter, too.
    """
    values, params = {}, dict(callspec.params)
    if ISA in params:
        params["engine"] = params[ISA][0]
    for name, value in params.items():
        try:
            hash(value)
        except TypeError:
            value = id(value)
        values[name] = (type(value), repr(value) if isinstance(value, float) else value)
    return values
