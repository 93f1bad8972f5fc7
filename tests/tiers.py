"""Two tiers of tests: plain `pytest` runs a selection of the combinations, `pytest -m ""` runs all of them.

Many tests run on a product: loss x activation x engine x dtype ...  Plain `pytest` selects a few of the combinations
such that every pair of values of two parameters occurs in one of them: most mistakes show with one value, or with two
that meet.  The other combinations get the mark ``exhaustive``, which plain `pytest` leaves out.  Nothing is thinned
where a test has one or two parameters.  The selection depends on the combinations alone: it is the same on every run.

The instruction sets of an engine are one source, compiled several times: unless a test says otherwise, each one meets
each dtype, and what else there is meets each engine.

``@pytest.mark.covers("engine dtype", "engine loss")`` names the groups of parameters whose values must meet, where
other pairs add nothing: two stages of a network, for instance, that know nothing of one another.  ``factors=function``
says what is in a parameter that is made of several: a function from a dict of the parameters to a dict of hashable
values.  ``@each_value_once`` asks for no pairs.  ``covering`` selects from a table whose rows are the combinations.
"""

import heapq
import itertools
import random
import re
from collections import defaultdict

import pytest

#: Of the test's parameters each value is to occur, in no pair in particular.
each_value_once = pytest.mark.covers("")

ISA = "engine_on_every_isa"  # the fixture that goes through engines and their instruction sets


def label(value):
    """Return a value as part of a test's name: no address of an object, which differs from process to process."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", str(value))[:60]


def covering_rows(rows, groups=()):
    """Return the indices of a few of ``rows``, in which all values meet that meet in ``rows``.

    ``rows`` are dicts from the name of a parameter to its value.  ``groups`` are strings of names: each combination of
    values of a group that occurs in ``rows`` occurs in the selection, and so does each value of the other parameters.
    Without ``groups``, they are the pairs of parameters.  Greedy: the next row is the one that shows most that is new,
    of several such rows any one, lest the first values of all parameters be together most often.
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
    seen, selected = set(), set()
    while queue:
        gain, turn, i = heapq.heappop(queue)
        new = shown[i] - seen
        if len(new) == -gain and new:
            selected.add(i)
            seen |= new
        elif new:  # rows selected since it was put there show a part of it
            heapq.heappush(queue, (-len(new), turn, i))
    return selected


def covering(table, factors, groups=()):
    """Return the rows of a table as parameters of a test; those outside a covering selection are exhaustive.

    ``factors`` is a function from a row to a dict from names to hashable values.
    """
    selected = covering_rows([factors(row) for row in table], groups)
    return [row if i in selected else pytest.param(row, marks=pytest.mark.exhaustive) for i, row in enumerate(table)]


def exhaustive(*values):
    """Return values of a parameter that plain `pytest` leaves out."""
    return [pytest.param(value, marks=pytest.mark.exhaustive) for value in values]


def mark_exhaustive(items):
    """Give the mark ``exhaustive`` to the collected tests outside the covering selection of their function."""
    functions = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec") and not item.get_closest_marker("exhaustive"):
            functions[item.nodeid.partition("[")[0]].append(item)
    for combinations in functions.values():
        mark = combinations[0].get_closest_marker("covers")
        factors = mark.kwargs.get("factors") if mark else None
        rows = [factors(item.callspec.params) if factors else _values(item.callspec) for item in combinations]
        if not mark and len(rows[0]) < 3:
            continue
        selected = covering_rows(rows, mark.args if mark else pairs(rows[0]))
        for i, item in enumerate(combinations):
            if i not in selected:
                item.add_marker(pytest.mark.exhaustive)


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
