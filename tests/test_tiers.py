"""The selections of the tiers: nothing that they promise is left out, and they are small."""

import itertools

import pytest

from tiers import ISA, covering, covering_rows, exhaustive, nightly, pairs

FACTORS = {"loss": range(7), "activation": "abcdefghij", "engine": ("c", "numba"), "dtype": (32, 64)}
ROWS = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]


def seen(rows, *names):
    return {tuple(row[name] for name in names) for row in rows}


def test_all_pairs_occur_in_few_rows():
    selected = [ROWS[i] for i in covering_rows(ROWS)]
    for pair in itertools.combinations(FACTORS, 2):
        assert seen(selected, *pair) == seen(ROWS, *pair), pair
    assert len(selected) < 1.3 * 70  # each loss with each activation is 70


def test_groups_and_single_values_occur():
    selected = [ROWS[i] for i in covering_rows(ROWS, ("engine dtype loss",))]
    assert len(selected) == 7 * 2 * 2
    assert seen(selected, "engine", "dtype", "loss") == seen(ROWS, "engine", "dtype", "loss")
    assert seen(selected, "activation") == seen(ROWS, "activation")


def test_what_does_not_meet_in_the_rows_is_not_asked_for():
    rows = [row for row in ROWS if row["loss"] or row["activation"] == "a"]
    selected = [rows[i] for i in covering_rows(rows)]
    assert seen(selected, "loss", "activation") == seen(rows, "loss", "activation")
    assert covering_rows([{"a": 1}, {"b": 2}]) == {0, 1}


def test_instruction_sets_meet_dtypes_only():
    assert pairs(["loss", "engine", "dtype"]) == ["dtype engine", "dtype loss", "engine loss"]
    assert pairs(["loss", ISA, "dtype"]) == [f"dtype {ISA}", "dtype loss"]


def test_a_selection_is_the_same_every_time():
    assert covering_rows(ROWS) == covering_rows([dict(row) for row in ROWS])


def test_a_selection_goes_on_from_another_one():
    start = covering_rows(ROWS, ("engine dtype",))
    selected = covering_rows(ROWS, ("loss activation",), start)
    assert start < selected and len(selected) < len(start) + 70
    assert len(seen([ROWS[i] for i in selected], "loss", "activation")) == 70


def marks_of(made):
    """Return how often each set of marks occurs among parameters."""
    names = [() if isinstance(param, dict) else tuple(mark.name for mark in param.marks) for param in made]
    return {each: names.count(each) for each in set(names)}


def test_tables_keep_all_rows_and_mark_those_left_out():
    n_quick, n_gate = len(covering_rows(ROWS, ("loss",))), len(covering_rows(ROWS, (), covering_rows(ROWS, ("loss",))))
    left = len(ROWS) - n_quick
    assert marks_of(covering(ROWS, dict, ("loss",))) == {(): n_quick, ("exhaustive",): left}
    marks = marks_of(covering(ROWS, dict, ("loss",), gate=()))
    both = ("exhaustive", "nightly")
    assert marks == {(): n_quick, ("exhaustive",): n_gate - n_quick, both: len(ROWS) - n_gate}


def ran(request):
    """Return the collected combinations of a test's parameters."""
    collected = [item for item in request.session.items if item.function is request.function]
    return {tuple(item.callspec.indices.values()) for item in collected}


@pytest.mark.parametrize("third", [0, 1])
@pytest.mark.parametrize("second", [True, 1, 1.0])
@pytest.mark.parametrize("first", ["a", ["no hash"]], ids=str)
def test_collected_tests_are_thinned(request, first, second, third):
    """These very ones: of 12, six show all pairs; True, 1 and 1.0 are three values."""
    assert len(ran(request)) in (1, 6, 12)  # one by its name, plain `pytest` and the gate, all


@pytest.mark.parametrize("third", [0, 1, *nightly(2)])
@pytest.mark.parametrize("second", [0, *exhaustive(1)])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.covers("first")
def test_the_gate_has_all_pairs_and_what_takes_long(request, first, second, third):
    """Of 12 combinations, plain `pytest` takes two, the gate shows all pairs of 8 in about half of them."""
    found = ran(request)
    assert len(found) in (1, 2, 12) or (4 <= len(found) <= 6 and len({pair[:2] for pair in found}) == 4)
