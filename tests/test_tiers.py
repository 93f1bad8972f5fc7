"""The selection that plain `pytest` runs: nothing that it promises is left out, and it is small."""

import itertools

import pytest

from tiers import ISA, covering, covering_rows, pairs

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


def test_tables_keep_all_rows_and_mark_those_left_out():
    made = covering(ROWS, dict)
    marked = [param for param in made if not isinstance(param, dict)]
    assert len(made) == len(ROWS) and len(made) - len(marked) == len(covering_rows(ROWS))
    assert all(param.marks[0].name == "exhaustive" for param in marked)


@pytest.mark.parametrize("third", [0, 1])
@pytest.mark.parametrize("second", [True, 1, 1.0])
@pytest.mark.parametrize("first", ["a", ["no hash"]], ids=str)
def test_collected_tests_are_thinned(request, first, second, third):
    """These very ones: of 12, six show all pairs; True, 1 and 1.0 are three values."""
    collected = [item for item in request.session.items if item.function is request.function]
    ran = {tuple(item.callspec.indices.values()) for item in collected}
    assert len(ran) in (1, 6, 12)  # one by its name, plain `pytest`, all
