"""The formula language: what it takes, what it refuses and where it points, and what C comes out."""

import types
from pathlib import Path

import pytest

from fastmlp.kernels import codegen, formulas


def test_header_is_deterministic_and_typed():
    header = codegen.c_header(formulas)
    assert header == codegen.c_header(formulas)
    for table in (formulas.ACTIVATIONS, formulas.LOSSES, formulas.OPTIMIZERS):
        for name in table:
            assert f'{{"{name}",' in header


def test_literals_are_typed():
    def half(z):
        return 0.5 * z + 1

    assert codegen.translate(half).results == ["(((REAL)0.5 * z) + (REAL)1.0)"]


def test_scalar_parts_are_evaluated_once_in_double():
    def rule(p, g, lr, decay):
        return p * (1.0 - lr * decay) - lr * g

    translated = codegen.translate(rule, scalars=("lr", "decay"))
    assert translated.uniform == [("uniform0", "(1.0 - (lr * decay))"), ("uniform1", "lr")]
    assert translated.results == ["((p * uniform0) - (uniform1 * g))"]


def loop(z):
    for _ in range(3):
        z = z * z
    return z


def unknown_function(z):
    return sin(z)  # noqa: F821


def unknown_name(z):
    return z + w  # noqa: F821


def power(z):
    return z**2


def chained(z):
    return 1.0 if 0.0 < z < 1.0 else z


def no_return(z):
    z = z + 1.0


def text(z):
    return "z"


@pytest.mark.parametrize("formula", [loop, unknown_function, unknown_name, power, chained, no_return, text])
def test_outside_the_language(formula):
    with pytest.raises(codegen.FormulaError, match=rf"formula '{formula.__name__}', .*test_codegen.py:\d+: "):
        codegen.translate(formula)


def test_error_points_at_the_line():
    line = power.__code__.co_firstlineno + 1
    with pytest.raises(codegen.FormulaError, match=rf"test_codegen.py:{line}: .*z \*\* 2"):
        codegen.translate(power)


def test_scalars_are_constants():
    def rule(p, g, lr):
        lr = lr * 2.0
        return p - lr * g

    with pytest.raises(codegen.FormulaError, match="scalar argument cannot be assigned"):
        codegen.translate(rule, scalars=("lr",))


def forgetful(p, g, m, lr):
    return p - lr * g * m


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (formulas.Optimizer(formulas.sgd, ("m",), ("lr",)), "are not p, g, states, scalars"),
        (formulas.Optimizer(formulas.momentum, ("velocity", "m"), ("lr",)), "are not p, g, states, scalars"),
        (formulas.Optimizer(forgetful, ("m",), ("lr",)), "must return p and its 1 states"),
        (formulas.Optimizer(lambda p, g, lr: p, (), ("lr",)), "write it with def"),
    ],
)
def test_optimizer_rows_must_fit_their_rule(optimizer, message):
    tables = types.SimpleNamespace(HELPERS=(), ACTIVATIONS={}, LOSSES={}, OPTIMIZERS={"broken": optimizer})
    with pytest.raises(codegen.FormulaError, match=message):
        codegen.c_header(tables)


def five_parameters(z, a, b, c, d, e):
    return z * a + b + c + d + e


def five_states(p, g, a, b, c, d, e):
    return p, a, b, c, d, e


@pytest.mark.parametrize("table", ["ACTIVATIONS", "OPTIMIZERS"])
def test_rows_beyond_the_engines_arrays_are_refused(table):
    row = {
        "ACTIVATIONS": formulas.Activation(five_parameters, parameters=dict.fromkeys("abcde", 1.0)),
        "OPTIMIZERS": formulas.Optimizer(five_states, tuple("abcde"), ()),
    }[table]
    tables = {"HELPERS": (), "ACTIVATIONS": {}, "LOSSES": {}, "OPTIMIZERS": {}, table: {"long": row}}
    with pytest.raises(codegen.FormulaError, match="more than 4"):
        codegen.c_header(types.SimpleNamespace(**tables))


def test_the_engines_arrays_are_as_long_as_codegen_says():
    header = (Path(codegen.__file__).parent.parent / "cython" / "fastmlp.h").read_text()
    assert f"#define FM_MAX_PARAMETERS {codegen.MOST_PARAMETERS}\n" in header
    assert f"#define FM_MAX_STATES {codegen.MOST_STATES}\n" in header
