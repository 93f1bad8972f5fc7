"""Derived slopes against an exact judge: differences in 80 digits, wherever the true slope is finite.

The judge runs the formula's own program in mpmath, whose exponents have no limit, and takes differences on both sides.
A point counts if the function is smooth there and if float64 computes its value, every part up to rounding or overflow.
"""

import math
import operator

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import fastmlp
from fastmlp.kernels import graph, program
from fastmlp.kernels.language import Formula, FormulaError

from random_formulas import EXPRESSIONS

mp = mpmath.mp.clone()
mp.dps = 80
LARGEST = mp.mpf(10) ** 7  # the exponent of exp from which on the judge gives up


class Undefined(Exception):
    """The function has no real value there."""


def _exp(x):
    if x > LARGEST:
        raise Undefined
    return mp.exp(x) if x > -LARGEST else mp.mpf(0)


def _real(function, lowest):
    def checked(x):
        if x < lowest:
            raise Undefined
        return function(x)

    return checked


def _select(holds):
    def selected(a, b, c, d):
        if c == d and c is not d:  # a kink, or a point that a condition picks out: the slope is that of its branch
            raise Undefined
        return a if holds(c, d) else b

    return selected


EXACT = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "exp": _exp,
    "expm1": lambda x: mp.expm1(x) if abs(x) < 1 else _exp(x) - 1,
    "log": _real(mp.log, mp.mpf(10) ** -100_000_000),
    "log1p": _real(mp.log1p, -1 + mp.mpf(10) ** -70),
    "sqrt": _real(mp.sqrt, 0),
    "abs": abs,
    "tanh": lambda x: mp.tanh(x) if abs(x) < 10_000 else mp.sign(x),
    "erf": lambda x: mp.erf(x) if abs(x) < 100 else mp.sign(x),
    "select_lt": _select(operator.lt),
    "select_le": _select(operator.le),
    "select_eq": _select(operator.eq),
    "select_ne": _select(operator.ne),
}


def steps(made, evaluate, number, *inputs):
    """Return what each instruction of a program computes, and its result at the end."""
    names, registers, found = list(graph.OPS), dict(enumerate(map(number, inputs))), []
    constants = [number(value) for value in made.constants.tolist()]
    of = lambda operand: registers[operand] if operand >= 0 else constants[-1 - operand]  # noqa: E731
    for op, dst, *columns in made.instructions.tolist():
        registers[dst] = evaluate[names[op]](*(of(x) for x in columns[: program.arity(names[op])]))
        found.append(registers[dst])
    return [*found, of(made.output)]


def exact(made, *inputs):
    try:
        return steps(made, EXACT, mp.mpf, *inputs)
    except (ZeroDivisionError, OverflowError, ValueError):
        raise Undefined from None


def is_rounded(x, true):
    """Whether float64 has this part of a value, up to rounding, overflow and underflow."""
    if abs(true) > 1e308:
        return math.isinf(x) and (x > 0) == (true > 0)
    return abs(x - true) <= 1e-9 * abs(true) or (abs(true) < 1e-300 and abs(x) < 1e-300)


def true_slope(made, y, p):
    """The slope by the second input; Undefined where the function is not smooth, or float64 does not have its value."""
    with np.errstate(all="ignore"):
        rounded = steps(made, graph.EVALUATE, np.float64, y, p)
    middle = exact(made, y, p)
    if not all(map(is_rounded, map(float, rounded), middle)) or not np.isfinite(rounded[-1]):
        raise Undefined
    h, slopes = mp.mpf(10) ** -25, []
    for step in (h, -h, h / 1000, -h / 1000):
        slopes.append((exact(made, y, p + step)[-1] - middle[-1]) / step)
    if max(slopes) - min(slopes) > 1e-9 * (1 + abs(slopes[0])) or abs(slopes[0]) > 1e300:
        raise Undefined
    return slopes[0]


def slope_parts(made, y, p):
    with np.errstate(all="ignore"):
        return steps(made, graph.EVALUATE, np.float64, y, p)


def check(formula, y, p):
    """Return whether the point counts; fail if the derived slope is wrong there."""
    try:
        expected = float(true_slope(formula.program("value"), y, p))
    except Undefined:
        return False
    *parts, slope = slope_parts(formula.program("delta"), y, p)
    assert math.isfinite(slope), f"{formula.source}\nat {(y, p)}: {slope} instead of {expected}"
    cancelled = max((abs(x) for x in parts if math.isfinite(x)), default=0.0)
    tolerance = 1e-6 * (1 + abs(expected)) + 1e-12 * cancelled
    assert abs(slope - expected) <= tolerance, f"{formula.source}\nat {(y, p)}: {slope} instead of {expected}"
    return True


#: Text of a function of z -> what its slope is at 0.
AT_ZERO = {
    "z / (1 + z * exp(-z))": 1,
    "1 / (2 + z * exp(z))": -0.25,
    "log(1 + z * exp(z))": 1,
    "log(2 + z * z * exp(z))": 0,
    "log1p(z * exp(-z))": 1,
    "log1p(z * z * exp(1 + z))": 0,
    "1 / (1 + tanh(z) * exp(z))": -1,
    "1 / (1 + exp(z) * (exp(z) - 1))": -1,
    "1 / (1 + 3 * z * exp(z) + z * exp(z))": -4,
    "1 / sqrt(1 + z * exp(z))": -0.5,
    "1 / (1 + abs(z) * z * exp(z))": 0,
    "1 / (2 + erf(z) / (1 + exp(z)))": -1 / math.sqrt(math.pi) / 4,
    "1 / (1 + (z * exp(z) if z > -1 else 2.0))": -1,
    "z / (2 + sqrt(abs(z)) * exp(z))": 0.5,
    "z * sqrt(abs(z))": 0,
    "z / (1 + sqrt(abs(z)))": 1,
    "z * exp(sqrt(abs(z)))": 1,
    "sqrt(z * z * z * z)": 0,
    "exp(-1 / (z * z))": 0,
    "log(1 + exp(-1 / (z * z)))": 0,
    "1 / (1 + exp(-1 / (z * z)))": 0,
    "expm1(z)": 1,
    "z / (1 + z * expm1(-z))": 1,
    "1 / (2 + expm1(z))": -0.25,
    "1 / (1 + expm1(z * z))": 0,
    "log(1 + z * expm1(z))": 0,
    "z * expm1(sqrt(abs(z)))": 0,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text", AT_ZERO)
def test_slope_at_zero_is_finite(text, dtype):
    f = fastmlp.activation(f"def f(z): return {text}")
    z = np.array([0.0, -0.0], dtype)
    np.testing.assert_allclose(f.numpy_slope(z, f(z)), AT_ZERO[text], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slope_of_a_loss_that_is_zero(dtype):
    f = fastmlp.loss("def f(y, p): return log1p((y - p) * (y - p) * exp(-y))")
    y = np.array([-3, 0, 0.5, 2], dtype)
    np.testing.assert_array_equal(f.numpy_delta(y, y), 0)


@pytest.mark.parametrize("z", [1e-320, -1e-320, 1e-300, 1e-160, 1e-17])
def test_slope_of_small_numbers(z):
    for text in ("z / (1 + z * exp(-z))", "1 / (2 + z * exp(z))", "log1p(z * exp(z))"):
        f = fastmlp.activation(f"def f(z): return {text}")
        at = np.array([0.0, z])
        zero, small = f.numpy_slope(at, f(at))
        assert small == pytest.approx(zero)


ENDS = [0.0, -0.0, 1.0, -1.0, 2.0, -0.5, 40.0, -40.0, 800.0, -800.0, 1e4, -1e4]
NUMBERS = st.floats(-6, 6).filter(lambda x: abs(x) > 1e-30) | st.sampled_from(ENDS)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6)


def mixed(shape, inner):
    """A shape with expressions put in, as people write slopes that go wrong: a quotient or logarithm of a sum."""
    return shape.replace("A", inner[0]).replace("B", inner[1]).replace("C", inner[2])


SHAPES = [
    "A",
    "A / (1 + B * exp(C))",
    "A / (1 + B * expm1(C))",
    "1 / (2 + A * exp(B) - C)",
    "log(1 + A * exp(B))",
    "log1p(A * A * exp(-B))",
    "A * sqrt(abs(B)) + C",
    "A / (1 + sqrt(abs(B)))",
    "tanh(A) / (exp(B) + exp(-C))",
]
SMALL = st.recursive(
    st.sampled_from(["y", "p", "p", "p"]) | st.sampled_from(["1.0", "2.0", "0.5"]),
    lambda x: (
        st.builds(lambda op, a, b: f"({a} {op} {b})", st.sampled_from("+-*/"), x, x)
        | st.builds(lambda name, a: f"{name}({a})", st.sampled_from(graph.FUNCTIONS), x)
        | x.map(lambda a: f"(-{a})")
    ),
    max_leaves=4,
)
FORMULAS = EXPRESSIONS | st.builds(mixed, st.sampled_from(SHAPES), st.tuples(SMALL, SMALL, SMALL))


@settings(max_examples=12 * settings.default.max_examples)  # 72 in the quick tier, 300 in all
@given(FORMULAS, POINTS)
@example("p / (1 + p * exp(-p))", [(0.0, 0.0)])
@example("1 / (2 + p * exp(p))", [(0.0, 0.0)])
@example("log1p((y - p) * (y - p) * exp(-y))", [(1.0, 1.0)])
def test_random_formulas_have_the_true_slope(text, points):
    try:
        formula = Formula.from_source(f"def f(y, p): return {text}")
    except FormulaError as error:
        assert "too long" in str(error)
        assume(False)
    for y, p in points:
        check(formula, y, p)
