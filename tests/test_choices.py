"""Names with parameters: what is taken, and what every refusal says."""

import numpy as np
import pytest

from fastmlp.kernels import formulas
from fastmlp.model import choices
from fastmlp.training.optimizers import SOLVERS
from fastmlp.training.schedules import SCHEDULES

TABLES = {
    "activation": formulas.ACTIVATIONS,
    "loss": formulas.LOSSES,
    "solver": SOLVERS,
    "learning_rate": SCHEDULES,
}
ROWS = [(argument, name) for argument, table in TABLES.items() for name in table]
PARAMETERS = [(argument, name, parameter) for argument, name in ROWS for parameter in TABLES[argument][name].parameters]


def activation(value):
    return choices.entry(formulas.ACTIVATIONS, value, "activation")


@pytest.mark.parametrize("argument, name", ROWS)
def test_a_name_stands_for_itself(argument, name):
    assert choices.entry(TABLES[argument], name, argument) == name
    assert choices.entry(TABLES[argument], (name, {}), argument) == name
    assert choices.name_of(name) == name
    assert choices.parameters_of(TABLES[argument], name) == dict(TABLES[argument][name].parameters)


@pytest.mark.parametrize("argument, name, parameter", PARAMETERS)
def test_the_default_is_in_range(argument, name, parameter):
    default = TABLES[argument][name].parameters[parameter]
    assert choices.entry(TABLES[argument], (name, {parameter: default}), argument) == (name, {parameter: default})


def outside(interval):
    """What is no number in this interval."""
    numbers = [number for number in (-1e30, 1e30, np.inf, -np.inf, np.nan) if not choices.within(number, interval)]
    return [*numbers, "1", True, (1,)]


@pytest.mark.parametrize("argument, name, parameter", PARAMETERS)
def test_what_is_out_of_range_is_named(argument, name, parameter):
    interval = choices.range_of(TABLES[argument][name], parameter)
    for value in outside(interval):
        with pytest.raises(ValueError) as refusal:
            choices.entry(TABLES[argument], (name, {parameter: value}), argument)
        assert str(refusal.value).startswith(f"{argument}=({name!r}, ")
        assert str(refusal.value).endswith(f"{parameter} must be in {interval}, got {value!r}")


@pytest.mark.parametrize(
    "value", ["rellu", "", None, 3, 0.5, True, ("rellu", {}), ("relu",), ("relu", 1), np.tanh, dict]
)
def test_an_unknown_name_lists_the_valid_ones(value):
    with pytest.raises(ValueError, match=r"^activation=.* is unknown; valid are ") as refusal:
        activation(value)
    assert all(repr(name) in str(refusal.value) for name in formulas.ACTIVATIONS)


def test_only_what_makes_sense_is_valid():
    with pytest.raises(ValueError, match=r"loss='poisson' is unknown; valid are \['focal', 'log_loss'\]"):
        choices.entry(formulas.LOSSES, "poisson", "loss", names=("focal", "log_loss"))
    assert choices.entry(formulas.LOSSES, "focal", "loss", names={"focal": 0, "log_loss": 1}) == "focal"


def test_an_unknown_parameter_lists_the_valid_ones():
    with pytest.raises(
        ValueError, match=r"activation=\('elu', .*: 'elu' has no parameter 'a'; its parameters are \['al"
    ):
        activation(("elu", {"a": 1}))
    with pytest.raises(ValueError, match="'relu' has no parameter 'alpha'; it takes none"):
        activation(("relu", {"alpha": 1}))


@pytest.mark.parametrize("bounds", [{"min_val": 2}, {"max_val": -1}, {"min_val": 3, "max_val": -3}])
def test_bounds_in_the_wrong_order(bounds):
    with pytest.raises(ValueError, match="min_val must be less than max_val, got"):
        activation(("hardtanh", bounds))


@pytest.mark.parametrize("value", [2, np.float32(2), np.int64(2), 2.0])
def test_parameters_become_floats(value):
    name, parameters = activation(("elu", {"alpha": value}))
    assert (name, parameters) == ("elu", {"alpha": 2.0})
    assert type(parameters["alpha"]) is float


def test_the_result_does_not_change_with_the_argument():
    given = {"alpha": 2}
    chosen = activation(("elu", given))
    given["alpha"] = -1
    assert chosen == ("elu", {"alpha": 2.0})
    assert choices.parameters_of(formulas.ACTIVATIONS, chosen) == {"alpha": 2.0}
    choices.given_parameters(chosen)["alpha"] = -1
    assert chosen == ("elu", {"alpha": 2.0})


def test_none_where_it_is_the_default():
    assert choices.entry(SCHEDULES, ("one_cycle", {"max_lr": None}), "learning_rate") == ("one_cycle", {"max_lr": None})
    with pytest.raises(ValueError, match="pct_start must be in"):
        choices.entry(SCHEDULES, ("one_cycle", {"pct_start": None}), "learning_rate")


# --- one per layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, expected",
    [
        ("relu", ("relu", "relu")),
        (("elu", {"alpha": 2}), (("elu", {"alpha": 2.0}),) * 2),
        (["elu", {"alpha": 2}], (("elu", {"alpha": 2.0}),) * 2),
        (("relu", "tanh"), ("relu", "tanh")),
        (["relu", ["elu", {"alpha": 2}]], ("relu", ("elu", {"alpha": 2.0}))),
        (np.array(["relu", "tanh"]), ("relu", "tanh")),
    ],
)
def test_entries(value, expected):
    assert choices.entries(formulas.ACTIVATIONS, value, "activation", 2) == expected


def test_entries_of_no_layer():
    assert choices.entries(formulas.ACTIVATIONS, "relu", "activation", 0) == ()
    with pytest.raises(ValueError, match="'rellu' is unknown"):
        choices.entries(formulas.ACTIVATIONS, "rellu", "activation", 0)


def test_the_wrong_number_of_entries():
    with pytest.raises(ValueError, match="activation must be one entry, or one per hidden layer, 3, got 2: "):
        choices.entries(formulas.ACTIVATIONS, ["relu", "tanh"], "activation", 3)


def test_the_wrong_entry_is_named():
    with pytest.raises(ValueError, match=r"^activation\[1\]='rellu' is unknown"):
        choices.entries(formulas.ACTIVATIONS, ["relu", "rellu"], "activation", 2)


# --- formulas of the user's own ---------------------------------------------------------------------------------------

SWISH = "def swish(z): return z / (1 + exp(-z))"
CAUCHY = "def cauchy(y, p): return log1p((y - p) * (y - p))"


@pytest.fixture(scope="module")
def language():
    from fastmlp.kernels import language

    return language


def test_a_formula_stands_for_itself(language):
    swish, cauchy = language.Formula.from_source(SWISH), language.Formula.from_source(CAUCHY)
    assert activation(swish) is swish
    assert choices.entry(formulas.LOSSES, cauchy, "loss") is cauchy
    assert choices.entries(formulas.ACTIVATIONS, ["relu", swish], "activation", 2) == ("relu", swish)
    assert choices.name_of(swish) == "swish"
    assert choices.parameters_of(formulas.ACTIVATIONS, swish) == choices.given_parameters(swish) == {}
    assert choices.learned(swish) == ()


def test_a_formula_of_another_kind(language):
    with pytest.raises(ValueError, match=r"^activation=.*cauchy.* is no activation: make one with fastmlp.activation"):
        activation(language.Formula.from_source(CAUCHY))
    with pytest.raises(ValueError, match=r"^loss=.*swish.* is no loss"):
        choices.entry(formulas.LOSSES, language.Formula.from_source(SWISH), "loss")
    with pytest.raises(ValueError, match=r"^learning_rate=.*swish.* is unknown; valid are"):
        choices.entry(SCHEDULES, language.Formula.from_source(SWISH), "learning_rate")


# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interval, inside, outside",
    [
        ("[0, 1)", (0, 0.5), (1, -1e-9, np.nan)),
        ("(0, 1]", (1, 0.5), (0, 1 + 1e-9, np.nan)),
        ("(0, inf)", (1e-300, 1e300), (0, np.inf, np.nan)),
        ("(-inf, inf)", (0, -1e300), (np.inf, -np.inf, np.nan)),
    ],
)
def test_within(interval, inside, outside):
    assert all(choices.within(value, interval) for value in inside)
    assert not any(choices.within(value, interval) for value in outside)
