"""Users' formulas: values, derived slopes, what is refused and where it points, programs, and how formulas travel."""

import ast
import copy
import linecache
import math
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import erf as scipy_erf
from sklearn.base import BaseEstimator, clone

import fastmlp
from fastmlp.kernels import codegen, formulas, graph, language, program
from fastmlp.kernels.language import Formula, FormulaError, program_of, run
from fastmlp.kernels.syntax import Reader, Text

NUMPY = {name: getattr(np, name) for name in ("exp", "log", "log1p", "tanh", "sqrt", "abs", "minimum", "maximum")}
NUMPY["erf"] = scipy_erf
EXTREME = np.array([-np.inf, -1e4, -100.0, -3.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 3.0, 100.0, 1e4, np.inf, np.nan])


def plain(source, **constants):
    """The function that a formula's text defines, on NumPy scalars, so that 1 / 0 is inf and not an error."""
    namespace = {**NUMPY, **constants}
    exec(source, namespace)
    function = namespace[ast.parse(source).body[0].name]
    return np.vectorize(lambda *x: function(*map(np.float64, x)), otypes=[float])


def central_difference(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / (2 * h)


# --- values and slopes ----------------------------------------------------------------------------------------------

ACTIVATIONS = [
    "def identity(z): return z",
    "def constant(z): return 2.5",
    "def line(z): return 3.0 - 2 * z / 7",
    "def swish(z): return z / (1 + exp(-z))",
    "def scaled_swish(z):\n    s = 1 / (1 + exp(-1.702 * z))\n    return z * s",
    "def logistic(z): return 1 / (1 + exp(-z))",
    "def hyperbolic(z): return tanh(z)",
    "def lecun(z): return 1.7159 * tanh(2 / 3 * z) + 0.01 * z",
    "def gelu(z): return z * (0.5 + 0.5 * erf(z * 0.7071067811865476))",
    "def mish(z): return z * tanh(log1p(exp(z)))",
    "def soft_plus(z): return log(1 + exp(z))",
    "def stable_soft_plus(z): return maximum(z, 0) + log1p(exp(-abs(z)))",
    "def soft_sign(z): return z / (1 + abs(z))",
    "def inverse_root(z): return z / sqrt(1 + z * z)",
    "def smooth_abs(z): return sqrt(z * z + 0.01) - 0.1",
    "def bent(z): return (sqrt(z * z + 1) - 1) / 2 + z",
    "def gaussian(z): return exp(-z * z)",
    "def leaky(z): return z if z > 0 else 0.1 * z",
    "def elu(z): return z if z >= 0 else exp(z) - 1",
    "def squared_relu(z):\n    r = maximum(z, 0)\n    return r * r",
    "def capped(z): return minimum(maximum(0, z), 6)",
    "def larger(z): return maximum(z * z, z)",
    "def hat(z): return 0.0 if z < -1 else (1 + z if z < 0 else (1 - z if z <= 1 else 0.0))",
    "def snake(z): return z + tanh(z) * tanh(z)",
    "def gompertz(z): return exp(-exp(-z))",
    "def rational(z): return (z * z * z - z) / (z * z + 2)",
    "def cosh_ratio(z): return (exp(z) - exp(-z)) / (exp(z) + exp(-z) + 1)",
    "def cosh_log(z): return log(exp(z) + exp(-z))",
    "def powers(z): return 1 / ((1 + exp(-z)) * (1 + exp(-z)))",
    "def weighted(z): return log(1 - 0.5 / (1 + exp(z)) + 2 * exp(-(z * z)))",
    "def logit_free(z): return 1 - 1 / (1 + exp(-2 * z))",
    "def nested(z): return log1p(z * z) * erf(tanh(z)) / (2 + tanh(exp(-abs(z))))",
    "def root_of_exp(z): return 1 / sqrt(1 + exp(z))",
    "def piecewise_exp(z): return 1 / ((exp(z) if z > 0 else 1 + z * z) + 1)",
]

LOSSES = [
    "def squares(y, p): return (y - p) * (y - p)",
    "def cauchy(y, p): return log1p((y - p) * (y - p))",
    "def absolute(y, p): return abs(y - p)",
    "def welsch(y, p): return 1 - exp(-0.5 * (y - p) * (y - p))",
    "def huber(y, p):\n    d = abs(y - p)\n    return 0.5 * d * d if d < 1 else d - 0.5",
    "def pinball(y, p): return 0.9 * (y - p) if y > p else 0.1 * (p - y)",
    "def log_likelihood(y, p): return y * log(1 + exp(-p)) + (1 - y) * log(1 + exp(p))",
    "def poisson(y, p): return p - y * log(abs(p) + 1)",
    "def gamma(y, p): return y / (0.1 + p * p) - log(y / (0.1 + p * p))",
    "def relative(y, p): return (y - p) * (y - p) / (abs(y) + abs(p) + 1)",
]


@pytest.mark.parametrize("source", ACTIVATIONS + LOSSES, ids=lambda source: source[4 : source.index("(")])
def test_value_is_that_of_the_function(source):
    formula = Formula.from_source(source)
    z = np.linspace(-6, 6, 101)
    inputs = (z,) if len(formula.kinds) == 2 else (0.3 + 0.5 * np.abs(z[::-1]), z)
    np.testing.assert_allclose(formula(*inputs), plain(source)(*inputs), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("source", ACTIVATIONS, ids=lambda source: source[4 : source.index("(")])
def test_slope_is_the_finite_difference(source):
    formula = Formula.from_source(source)
    z = np.linspace(-5.003, 4.997, 60)  # no kinks among them
    slope = formula.numpy_slope(z, formula.numpy_value(z))
    np.testing.assert_allclose(slope, central_difference(formula.numpy_value, z), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("link", language.LINKS)
@pytest.mark.parametrize("source", LOSSES, ids=lambda source: source[4 : source.index("(")])
def test_delta_is_the_finite_difference_by_the_logit(source, link):
    formula = language.loss(source, link=link)
    z, y = (x.ravel() for x in np.meshgrid(np.linspace(-3.003, 2.497, 40), [0.2, 0.71, 1.3]))
    prediction = {"identity": lambda z: z, "exp": np.exp, "logistic": lambda z: 1 / (1 + np.exp(-z))}[link]
    np.testing.assert_allclose(formula.numpy_value(y, z), formula(y, prediction(z)), rtol=1e-12, atol=1e-14)
    expected = central_difference(lambda z: formula(y, prediction(z)), z)
    np.testing.assert_allclose(formula.numpy_delta(y, z), expected, rtol=1e-7, atol=1e-9)


def test_given_slope_is_taken():
    def straight_through(z, a):
        return 1.0 if abs(z) < 1.0 else a

    step = fastmlp.activation("def step(z): return 1.0 if z > 0 else 0.0", slope=straight_through)
    z = np.array([-2.0, -0.5, 0.5, 2.0])
    np.testing.assert_array_equal(step.numpy_slope(z, np.array([5.0, 6.0, 7.0, 8.0])), [5.0, 1.0, 1.0, 8.0])
    assert repr(step) == "<activation step(z), slope=straight_through(z, a)>"


def test_needs_z():
    assert not fastmlp.activation("def f(z): return tanh(z)").needs_z
    assert not fastmlp.activation("def f(z): return exp(z)").needs_z
    assert not fastmlp.activation("def f(z): return 3 * z").needs_z
    assert fastmlp.activation("def f(z): return z * z").needs_z
    assert not fastmlp.activation("def f(z): return tanh(z)", slope="def g(z, a): return 1 - a * a").needs_z
    assert fastmlp.activation("def f(z): return tanh(z)", slope="def g(z, a): return z").needs_z


def test_results_have_the_dtype_of_the_inputs():
    swish = fastmlp.activation("def swish(z): return z / (1 + exp(-z))")
    constant = fastmlp.activation("def constant(z): return 1.5")
    cauchy = fastmlp.loss("def cauchy(y, p): return log1p((y - p) * (y - p)) + 0.1")
    for dtype in (np.float32, np.float64):
        z = np.linspace(-2, 2, 5, dtype=dtype)
        for out in (
            swish(z),
            swish.numpy_value(z),
            swish.numpy_slope(z, z),
            cauchy.numpy_value(z, z),
            cauchy.numpy_delta(z, z),
            constant(z),
            constant.numpy_slope(z, z),
        ):
            assert out.dtype == dtype and out.shape == z.shape and out.flags.writeable
        assert swish(z[0]).dtype == dtype
    assert swish(np.arange(3)).dtype == np.float64
    assert type(swish(1)) is type(swish(1.0)) is float
    assert cauchy(np.ones((3, 1)), np.ones(4)).shape == (3, 4)
    assert fastmlp.activation("def f(z): return z")(z) is not z
    with pytest.raises(TypeError, match="takes 2 arguments, got 1"):
        cauchy(z)


# --- where numbers end ----------------------------------------------------------------------------------------------

LIMITS = [  # text, slope at -1e4 and at 1e4
    ("def swish(z): return z / (1 + exp(-z))", 0, 1),
    ("def swish(z):\n    s = 1 / (1 + exp(-z))\n    return z * s", 0, 1),
    ("def logistic(z): return 1 / (1 + exp(-z))", 0, 0),
    ("def falling(z): return 1 / (1 + exp(z))", 0, 0),
    ("def complement(z): return 1 - 1 / (1 + exp(-z))", 0, 0),
    ("def mish(z): return z * tanh(log1p(exp(z)))", 0, 1),
    ("def soft_plus(z): return log(1 + exp(z))", 0, 1),
    ("def soft_plus(z): return log1p(exp(z))", 0, 1),
    ("def soft_minus(z): return -log1p(exp(-z))", 1, 0),
    ("def cosh_log(z): return log(exp(z) + exp(-z))", -1, 1),
    ("def gaussian(z): return exp(-z * z)", 0, 0),
    ("def gompertz(z): return exp(-exp(-z))", 0, 0),
    ("def saturated(z): return tanh(exp(z))", 0, 0),
    ("def saturated(z): return erf(exp(z) + z)", 0, 0),
    ("def squared(z): return 1 / ((1 + exp(-z)) * (1 + exp(-z)))", 0, 0),
    ("def root(z): return 1 / sqrt(1 + exp(z))", 0, 0),
    ("def shifted(z): return log(3 - 2 / (1 + exp(z)))", 0, 0),
    ("def log_exp(z): return log(exp(z))", 1, 1),
    ("def negative(z): return log(-(-1 - 2 * exp(z)))", 0, 1),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("source", "low", "high"), LIMITS)
def test_slopes_have_their_limit_where_exp_overflows(source, low, high, dtype):
    formula = Formula.from_source(source)
    z = np.array([-1e4, -800, -89, 89, 800, 1e4], dtype=dtype)
    slope = formula.numpy_slope(z, formula.numpy_value(z))
    np.testing.assert_allclose(slope, [low] * 3 + [high] * 3, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_has_its_slope_however_sure_it_is(dtype):
    log_loss = fastmlp.loss("def f(y, p): return -(y * log(p) + (1 - y) * log(1 - p))", link="logistic")
    z = np.array([-1e4, -50, -1, 0, 1, 50, 1e4], dtype=dtype)
    p = np.array([0, np.exp(-50), 1 / (1 + np.e), 0.5, 1 / (1 + 1 / np.e), 1, 1])
    for y in (0.0, 0.3, 1.0):
        delta = log_loss.numpy_delta(np.full_like(z, y), z)
        np.testing.assert_allclose(delta, p - y, rtol=1e-6, atol=1e-7)


def test_comparison_with_nan_is_false():
    for op, else_branch in [("<", 2), ("<=", 2), (">", 2), (">=", 2), ("==", 2), ("!=", 1)]:
        f = fastmlp.activation(f"def f(z): return 1 if z {op} 0 else 2")
        assert f(math.nan) == else_branch
        assert f(0.0) == (1 if eval(f"0 {op} 0") else 2)
        assert f(-1.0) == (1 if eval(f"-1 {op} 0") else 2)


def test_minimum_and_maximum():
    x, y = (v.ravel() for v in np.meshgrid(EXTREME, EXTREME))
    for name in ("minimum", "maximum"):
        numpy = getattr(np, name)
        np.testing.assert_array_equal(fastmlp.loss(f"def f(y, p): return {name}(y, p)")(x, y), numpy(x, y))
        for call in (f"{name}(z, 2)", f"{name}(2, z)"):
            f = fastmlp.activation(f"def f(z): return {call}")
            np.testing.assert_array_equal(f(x), numpy(x, 2))
            assert f.numpy_slope(np.array([2.0]), np.array([2.0])) == 0
    assert fastmlp.activation("def f(z): return z * minimum(2, 3) - maximum(2, 3)")(1.0) == -1.0


def test_slope_of_abs_is_zero_at_zero():
    f = fastmlp.activation("def f(z): return 3 * abs(-2 * z)")
    np.testing.assert_array_equal(f.numpy_slope(np.array([-1.0, 0.0, 1.0]), np.zeros(3)), [-6, 0, 6])


def test_complement_of_a_probability_keeps_its_digits():
    f = fastmlp.loss("def f(y, p): return 1 - p", link="logistic")
    z = np.array([-50.0, 0.0, 5.0, 50.0, 700.0])
    np.testing.assert_allclose(f.numpy_value(z, z), np.exp(-np.logaddexp(0, z)), rtol=1e-13)
    assert fastmlp.activation("def f(z): return log(exp(z))")(1000.0) == 1000.0


def test_infinity_and_nan_pass_as_in_numpy():
    source = "def f(y, p): return (y * p + 0 * y) / (p - p) + 0 * exp(y) + (p + 0) - 1 / (0 * p)"
    x, y = (v.ravel() for v in np.meshgrid(EXTREME, EXTREME))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(Formula.from_source(source)(x, y), plain(source)(x, y))


def test_constants_are_folded_in_double_precision():
    f = fastmlp.activation("def f(z): return z * (1 / 3 + exp(-1)) + log(0) * 0 - 1e999 / -1")
    expected = [1 / 3 + math.exp(-1), math.nan, -math.inf]
    np.testing.assert_allclose(f.program("value").constants, expected, rtol=1e-15)
    assert len(f.program("value").instructions) == 3


# --- the formulas of the tables -------------------------------------------------------------------------------------


def on_numpy(function):
    """A formula of formulas.py and the helpers that it calls, on NumPy scalars."""
    namespace = {**vars(formulas), **NUMPY}
    for helper in formulas.HELPERS:
        namespace[helper.__name__] = types.FunctionType(helper.__code__, namespace)
    made = types.FunctionType(function.__code__, namespace)
    return np.vectorize(lambda *x: made(*map(np.float64, x)), otypes=[float])


def table_formulas():
    for name, row in formulas.ACTIVATIONS.items():
        for function in filter(None, (row.value, row.slope)):
            yield pytest.param(function, row, id=f"{name}-{function.__name__}")
    for name, row in formulas.LOSSES.items():
        for function in filter(None, (row.value, getattr(row, "delta", None))):
            yield pytest.param(function, row, id=f"{name}-{function.__name__}")


@pytest.mark.parametrize(("function", "row"), [*table_formulas()])
def test_built_in_formulas_are_read_too(function, row):
    parameters = dict(getattr(row, "parameters", {}))
    made = program_of(function, parameters=parameters, helpers=formulas.HELPERS)
    n_inputs = function.__code__.co_argcount - len(parameters)
    points = np.concatenate([EXTREME, np.linspace(-4, 4, 33)])
    inputs = (points,) if n_inputs == 1 else tuple(x.ravel() for x in np.meshgrid(points, points))
    with np.errstate(all="ignore"):
        expected = on_numpy(function)(*inputs, *parameters.values())
    np.testing.assert_allclose(run(made, *inputs), expected, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name, row in formulas.ACTIVATIONS.items() if row.slope and name != "step"])
def test_built_in_slopes_are_the_derivatives(name):
    row = formulas.ACTIVATIONS[name]
    made = graph.Graph()
    z = made.input(0)
    helpers = {helper.__name__: Text.of(helper) for helper in formulas.HELPERS}
    parameters = dict(getattr(row, "parameters", {}))
    scalars = {name: made.constant(value) for name, value in parameters.items()}
    text = Text.of(row.value)
    value = Reader(text, made, helpers).read(**{text.arguments[0]: z}, **scalars)
    derived = program.compile_node(made, graph.Derivative(made, z)(value))
    points = np.linspace(-8.01, 7.99, 97)
    a = run(program_of(row.value, parameters=parameters, helpers=formulas.HELPERS), points)
    stated = run(program_of(row.slope, parameters=parameters, helpers=formulas.HELPERS), points, a)
    np.testing.assert_allclose(run(derived, points), stated, rtol=1e-9, atol=1e-12)


def test_program_of_names_its_registers():
    made = program_of(formulas.huber, ["z", "y"], {"delta": 2.0})
    np.testing.assert_array_equal(run(made, [3.0, 1.0], [0.0, 0.0]), [4.0, 0.5])
    assert run(program_of(formulas.relu_slope, ["a"], {"z": 0.0}), 3.0) == 1.0
    with pytest.raises(FormulaError, match=r"formulas.py:\d+: arguments without a value: delta"):
        program_of(formulas.huber, ["y", "z"])
    with pytest.raises(FormulaError, match="unknown function 'clip'"):
        program_of(formulas.relu6)


# --- random formulas ------------------------------------------------------------------------------------------------

VARIABLES = st.sampled_from(["y", "p"])
LITERALS = st.sampled_from(["0.0", "1.0", "1", "2", "0.5", "3.25", "0.001", "40.0"])


def larger(expressions):
    pair = st.tuples(expressions, expressions)
    binary = st.builds(lambda op, x: f"({x[0]} {op} {x[1]})", st.sampled_from("+-*/"), pair)
    function = st.builds(lambda name, x: f"{name}({x})", st.sampled_from(graph.FUNCTIONS), expressions)
    smooth = st.builds(lambda x: f"1 / (1 + exp({x}))", expressions)
    extreme = st.builds(lambda name, x: f"{name}({x[0]}, {x[1]})", st.sampled_from(["minimum", "maximum"]), pair)
    conditional = st.builds(
        lambda op, x, c: f"({x[0]} if {c[0]} {op} {c[1]} else {x[1]})",
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        pair,
        pair,
    )
    return st.one_of(binary, function, smooth, extreme, conditional, expressions.map(lambda x: f"-{x}"))


EXPRESSIONS = st.recursive(VARIABLES | LITERALS, larger, max_leaves=12)
POINTS = st.lists(st.tuples(st.floats(-6, 6), st.floats(-6, 6)), min_size=1, max_size=8)


def random_formula(first, second):
    """Two random expressions, the first one used again in the second; None if that is too long."""
    source = f"def f(y, p):\n    t = {first}\n    return {second.replace('y', 't')}"
    try:
        return source, Formula.from_source(source)
    except FormulaError as error:
        assert "too long" in str(error)
        return assume(False)


@given(EXPRESSIONS, EXPRESSIONS, POINTS)
def test_random_formulas_have_the_function_s_value(first, second, points):
    assume("log" not in first + second or "exp" not in first + second)  # log(exp(u)) is u, for the better
    source, formula = random_formula(first, second)
    y, p = np.array(points).T
    try:
        with np.errstate(all="ignore"):
            expected = plain(source)(y, p)
    except ZeroDivisionError:  # between literals, which are Python's
        assume(False)
    np.testing.assert_allclose(formula(y, p), expected, rtol=1e-9, atol=1e-9)


@given(EXPRESSIONS, EXPRESSIONS, POINTS)
def test_random_formulas_have_the_finite_difference_as_slope(first, second, points):
    _, formula = random_formula(first, second)
    y, p = np.array(points).T
    h = 1e-5
    with np.errstate(all="ignore"):
        wide, narrow = (central_difference(lambda p: formula(y, p), p, step) for step in (h, h / 3))
        one_sided = (formula(y, p + h) - formula(y, p)) / h
        scale = 1 + np.abs(formula(y, p)) + np.abs(narrow)
        # no kink, no pole, no rounding that drowns the difference
        smooth = (np.abs(wide - narrow) <= 1e-7 * scale) & (np.abs(one_sided - narrow) <= 1e-3 * scale)
        assume(smooth.any())
        error = np.abs(formula.numpy_delta(y, p) - narrow)
        assert (error[smooth] <= 1e-5 * scale[smooth]).all(), formula.source


@given(EXPRESSIONS, EXPRESSIONS, POINTS)
def test_random_programs_are_sound(first, second, points):
    _, formula = random_formula(first, second)
    y, p = np.array(points).T
    for kind in formula.kinds:
        check_program(formula.program(kind))
        with np.errstate(all="ignore"):
            expected = plain(formula.program_source(kind))(y, p)
        np.testing.assert_allclose(run(formula.program(kind), y, p), expected, rtol=1e-9, atol=1e-9)


# --- programs -------------------------------------------------------------------------------------------------------


def check_program(made):
    """What engines rely on."""
    assert made.instructions.dtype == np.int32 and made.instructions.shape[1:] == (6,)
    assert made.constants.dtype == np.float64 and made.constants.ndim == 1
    assert made.instructions.flags.c_contiguous and 2 <= made.n_registers <= program.MAX_REGISTERS
    written = {0, 1}
    for op, dst, *columns in made.instructions.tolist():
        used = columns[: program.arity(list(graph.OPS)[op])]
        assert all(x in written if x >= 0 else -1 - x < len(made.constants) for x in used)
        assert not any(columns[len(used) :]) and 2 <= dst < made.n_registers
        written.add(dst)
    assert made.output in written if made.output >= 0 else -1 - made.output < len(made.constants)


def test_operations_have_these_numbers():
    names = ["add", "sub", "mul", "div", "neg", "exp", "log", "log1p", "tanh", "erf", "sqrt", "abs"]
    names += ["select_lt", "select_le", "select_eq", "select_ne"]
    assert dict(zip(names, range(16), strict=True)) == graph.OPS
    assert tuple(codegen.FUNCTIONS)[: len(graph.FUNCTIONS)] == graph.FUNCTIONS


def test_layout_of_a_program():
    made = fastmlp.loss("def f(y, p): return 2 * y if exp(p) > 3 else y").program("value")
    ops = graph.OPS
    assert made.constants.tolist() in ([3.0, 2.0], [2.0, 3.0])
    two, three = (-1 - made.constants.tolist().index(value) for value in (2.0, 3.0))
    by_op = {row[0]: row for row in made.instructions.tolist()}
    assert by_op[ops["exp"]][2:] == [1, 0, 0, 0]
    assert sorted(by_op[ops["mul"]][2:4]) == [two, 0]
    select = by_op[ops["select_lt"]]
    assert select[2:] == [by_op[ops["mul"]][1], 0, three, by_op[ops["exp"]][1]]
    assert made.output == select[1]
    check_program(made)


def test_programs_without_instructions():
    identity = fastmlp.activation("def identity(z): return z")
    assert identity.program("value").output == 0 and len(identity.program("value").instructions) == 0
    slope = identity.program("slope")
    assert slope.output == -1 and slope.constants.tolist() == [1.0] and len(slope.instructions) == 0
    for made in (slope, identity.program("value")):
        check_program(made)


def test_programs_cannot_be_changed():
    made = fastmlp.activation("def f(z): return 2 * z").program("value")
    with pytest.raises(ValueError, match="read-only"):
        made.instructions[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        made.constants[0] = 1


def test_common_parts_are_computed_once():
    f = fastmlp.loss("def f(y, p): return exp(y * p) + 1 / exp(p * y)")
    ops = f.program("value").instructions[:, 0].tolist()
    assert ops.count(graph.OPS["exp"]) == ops.count(graph.OPS["mul"]) == 1
    assert fastmlp.activation("def f(z): return tanh(z)").program("slope").instructions.shape == (2, 6)


def test_long_formulas_share_registers():
    f = fastmlp.activation("def f(z): return " + " + ".join(f"exp({k} * z)" for k in range(2, 200)))
    assert f.program("value").n_registers <= 4
    assert f(0.0) == 198


def test_unknown_kind():
    with pytest.raises(ValueError, match=r"kind='delta' is unknown; valid are \['value', 'slope'\]"):
        fastmlp.activation("def f(z): return z").program("delta")


# --- what is refused ------------------------------------------------------------------------------------------------

text_constant, truth, nothing = "2", True, math.nan


def module_attribute(z):
    return np.exp(z)


def module_constant(z):
    return z * math.pi


def unknown_name(z):
    return z + w  # noqa: F821


def text_from_outside(z):
    return z * text_constant


def truth_from_outside(z):
    return z * truth


def nan_from_outside(z):
    return z * nothing


def module_from_outside(z):
    return z * np


def unknown_function(z):
    return sin(z)  # noqa: F821


def other_function(z):
    return plain(z)


def method(z):
    return z.sum()


def keywords(z):
    return exp(x=z)  # noqa: F821


def too_many(z):
    return exp(z, 2)  # noqa: F821


def too_few(z):
    return maximum(z)  # noqa: F821


def starred(z):
    return exp(*z)  # noqa: F821


def for_loop(z):
    for _ in range(3):
        z = z * z
    return z


def while_loop(z):
    while z > 1:
        z = z / 2
    return z


def if_statement(z):
    if z > 0:
        return z
    return 0.1 * z


def augmented(z):
    z += 1
    return z


def import_inside(z):
    from math import exp

    return exp(z)


def power(z):
    t = z + 1

    return t**2


def modulo(z):
    return z % 2


def both(z):
    return 1 if z > 0 and z < 1 else 0


def inverted(z):
    return 1 if not z > 0 else 0


def chained(z):
    return 1 if 0 < z < 1 else 0


def truthy(z):
    return 1 if z else 0


def membership(z):
    return 1 if z in (1, 2) else 0


def same(z):
    return 1 if z is None else 0


def bare_comparison(z):
    return z * (z > 0)


def both_bare(z):
    return z > 0 or z


def text(z):
    return "z"


def boolean(z):
    return True


def imaginary(z):
    return 2j * z


def plus(z):
    return +z


def subscript(z):
    return z[0]


def nested_lambda(z):
    return (lambda x: x)(z)


def walrus(z):
    return (t := z) * t


def pair(z):
    return z, z


def two_targets(z):
    a = b = z
    return a + b


def unpacking(z):
    a, b = z, z
    return a + b


def no_return(z):
    z = z + 1


def no_value(z):
    return


def function_as_variable(z):
    exp = z
    return exp


def function_as_value(z):
    return z * exp  # noqa: F821


def before_assignment(z):
    y = y + z  # noqa: F821
    return y


def two_arguments(z, w):
    return z * w


def default(z, beta=1.0):
    return z * beta


def keyword_only(z, *, beta):
    return z * beta


def any_number(*z):
    return 1


def no_argument():
    return 1.0


async def waits(z):
    return z


REFUSED = [  # function, line of the offence after def, what the message says
    (module_attribute, 1, "attribute access is not part of the formula language; use the plain name.*: np.exp"),
    (module_constant, 1, "attribute access.*: math.pi"),
    (unknown_name, 1, "unknown name 'w': w"),
    (text_from_outside, 1, "text_constant is no number but str"),
    (truth_from_outside, 1, "truth is no number but bool"),
    (nan_from_outside, 1, "nothing is no number"),
    (module_from_outside, 1, "np is no number but module"),
    (unknown_function, 1, r"unknown function 'sin'; known are exp, log, .*minimum, maximum: sin\(z\)"),
    (other_function, 1, "unknown function 'plain'"),
    (method, 1, "attribute access"),
    (keywords, 1, "keyword arguments"),
    (too_many, 1, r"exp takes 1 argument, not 2: exp\(z, 2\)"),
    (too_few, 1, "maximum takes 2 arguments, not 1"),
    (starred, 1, r"not part of the formula language: \*z"),
    (for_loop, 1, r"loops are not part of the formula language: for _ in range\(3\):"),
    (while_loop, 1, "loops are not part"),
    (if_statement, 1, "if statements are not part.*write `x = a if condition else b`: if z > 0:"),
    (augmented, 1, r"write the assignment out.*: z \+= 1"),
    (import_inside, 1, "need no import"),
    (power, 3, r"powers are not part of the formula language; .*: t\*\*2"),
    (modulo, 1, "not part of the formula language: z % 2"),
    (both, 1, "`and` and `or` are not part.*nest conditional expressions: z > 0 and z < 1"),
    (inverted, 1, "`not` is not part"),
    (chained, 1, "chained comparisons are not part.*: 0 < z < 1"),
    (truthy, 1, "a condition is one comparison: z"),
    (membership, 1, "a comparison is one of < <= > >= == !="),
    (same, 1, "a comparison is one of"),
    (bare_comparison, 1, "a comparison belongs into a conditional expression.*: z > 0"),
    (both_bare, 1, "`and` and `or`"),
    (text, 1, "only numbers, str is not part"),
    (boolean, 1, "only numbers, bool"),
    (imaginary, 1, "only numbers, complex"),
    (plus, 1, r"not part of the formula language: \+z"),
    (subscript, 1, r"not part of the formula language: z\[0\]"),
    (nested_lambda, 1, "lambda is not part"),
    (walrus, 1, "not part of the formula language: t := z"),
    (pair, 1, "a formula has one value: z, z"),
    (two_targets, 1, "an assignment is to one plain name"),
    (unpacking, 1, "an assignment is to one plain name"),
    (no_return, 1, r"a formula must end with return: z = z \+ 1"),
    (no_value, 1, "only assignments and one return"),
    (function_as_variable, 1, "exp is a function of the formula language and cannot be assigned"),
    (function_as_value, 1, "unknown name 'exp'"),
    (before_assignment, 1, "unknown name 'y'"),
    (two_arguments, 0, r"an activation takes 1 argument and no others: def two_arguments\(z, w\):"),
    (default, 0, "an activation takes 1 argument and no others"),
    (keyword_only, 0, "an activation takes 1 argument and no others"),
    (any_number, 0, "an activation takes 1 argument and no others"),
    (no_argument, 0, "an activation takes 1 argument and no others"),
    (waits, 0, "not a plain function, write the formula with def: async def waits"),
    (lambda z: z, 0, "not a plain function, write the formula with def"),
]


@pytest.mark.parametrize(("function", "offset", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_outside_the_language(function, offset, message):
    line = function.__code__.co_firstlineno + offset
    where = rf"formula '{function.__name__}', .*test_language.py:{line}: "
    with pytest.raises(FormulaError, match=where + ".*" + message):
        fastmlp.activation(function)


def test_errors_in_a_decorated_function_have_its_line():
    with pytest.raises(FormulaError) as caught:

        @fastmlp.loss(
            link="exp",
        )
        # a comment
        def decorated(y, p):
            """With a docstring.

            Of several lines.
            """
            d = y - p
            return d @ d

    line = test_errors_in_a_decorated_function_have_its_line.__code__.co_firstlineno + 13
    assert linecache.getline(__file__, line).strip() == "return d @ d"
    assert str(caught.value).endswith(f"test_language.py:{line}: not part of the formula language: d @ d")


def test_errors_in_slopes_and_losses_say_so():
    with pytest.raises(FormulaError, match="formula 'g', <formula>:1: a slope takes 2 arguments and no others"):
        fastmlp.activation("def f(z): return z", slope="def g(z): return z")
    with pytest.raises(FormulaError, match="formula 'f', <formula>:1: a loss takes 2 arguments and no others"):
        fastmlp.loss("def f(z): return z")
    with pytest.raises(ValueError, match=r"link='softmax' is unknown; valid are \['identity', 'exp', 'logistic'\]"):
        fastmlp.loss("def f(y, p): return y - p", link="softmax")
    with pytest.raises(ValueError, match="a loss takes no slope"):
        Formula.from_source("def f(y, p): return y - p", slope="def g(z, a): return z")


@pytest.mark.parametrize(
    "value",
    [3, None.__class__, np.exp, math.exp, print, np.vectorize(math.exp), fastmlp.activation("def f(z): return z")],
)
def test_only_functions_and_text(value):
    with pytest.raises(FormulaError, match="is not a plain Python function: write the formula with def"):
        fastmlp.activation(value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(z) return z", r"formula, <formula>:1: .*: def f\(z\) return z"),
        ("", "its text must be one plain function"),
        ("z * z", "its text must be one plain function, .*: z"),
        ("import math\ndef f(z): return z", "its text must be one plain function"),
        ("@fastmlp.activation\ndef f(z): return z", "its text must be one plain function"),
        ("def f(z):\n    t = z\n    return t + c", "formula 'f', <formula>:3: unknown name 'c': c"),
        (f"def f(z): return z + {10**400}", "formula 'f', <formula>:1: this number is too large: 1000"),
    ],
)
def test_text_that_is_no_formula(source, message):
    with pytest.raises(FormulaError, match=message):
        fastmlp.activation(source)


def test_constants_of_text_are_numbers():
    with pytest.raises(FormulaError, match="formula 'f': the constant c is not a number: '1'"):
        Formula.from_source("def f(z): return c * z", constants={"c": "1"})


def test_too_long():
    terms = [f"exp({k} * z)" for k in range(2, 22)]
    lines = [f"t{k} = {term}" for k, term in enumerate(terms)]
    names = [f"t{k}" for k in range(len(terms))]
    value = " + ".join(names) + " + " + " * ".join(reversed(names))
    source = "def f(z):\n" + "".join(f"    {line}\n" for line in lines) + f"    return {value}"
    with pytest.raises(FormulaError, match=r"formula 'f', <formula>:1: this activation is too long, .* of 16: def f"):
        fastmlp.activation(source)


def test_too_deep():
    with pytest.raises(FormulaError, match="too deeply nested"):
        fastmlp.activation("def f(z): return " + " + ".join(["z"] * 3000))


def test_other_functions_of_these_names_are_not_taken():
    def exp(z):
        return 2**z

    def f(z):
        return exp(z)

    with pytest.raises(FormulaError, match="exp is not the mathematical function here but <function"):
        fastmlp.activation(f)


def test_functions_may_be_imported():
    from math import log1p, tanh

    from numpy import abs, exp, sqrt
    from scipy.special import erf

    @fastmlp.activation
    def f(z):
        return tanh(z) + log1p(exp(z)) + sqrt(abs(z)) + erf(z)

    assert f(1.0) == pytest.approx(math.tanh(1) + math.log1p(math.e) + 1 + math.erf(1))


# --- what a formula is ----------------------------------------------------------------------------------------------

module_number = 1.25
MODULE = "def scaled(z):\n    # scaled\n    return z * module_number\n"


@fastmlp.activation
def scaled(z):
    # scaled
    return z * module_number


def make(beta):
    @fastmlp.activation
    def swish(z):
        return z / (1 + exp(-beta * z))  # noqa: F821

    return swish


def test_decorated():
    assert isinstance(scaled, language.ActivationFormula) and isinstance(scaled, Formula)
    assert (scaled.name, scaled.source, scaled.constants) == ("scaled", MODULE, {"module_number": 1.25})
    assert repr(scaled) == "<activation scaled(z), module_number=1.25>"
    assert scaled(2.0) == 2.5
    assert repr(fastmlp.loss("def f(t, q): return t - q", link="exp")) == "<loss f(t, q), link='exp'>"


def test_closures_are_captured_by_value():
    one, two = make(1), make(np.float32(2))
    assert one != two and one == make(1.0) and hash(one) == hash(make(1.0))
    assert one.source == two.source and two.constants == {"beta": 2.0}
    z = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(two(z), z / (1 + np.exp(-2 * z)))


def test_equal_by_text_kind_and_link():
    f, g = "def f(z): return z", "def g(z, a): return 1"
    assert fastmlp.activation(f) == Formula.from_source(f) == fastmlp.activation("\n    " + f + "   \n\n")
    assert fastmlp.activation(f) != fastmlp.activation(f, slope=g)
    assert fastmlp.activation(f) != fastmlp.activation("def f(z): return z + 0")
    loss = "def f(y, p): return y - p"
    made = {fastmlp.loss(loss), fastmlp.loss(loss, link="exp"), Formula.from_source(loss), Formula.from_source(f)}
    assert len(made) == 3
    assert fastmlp.activation(f) != f


def test_immutable():
    with pytest.raises(AttributeError, match="immutable"):
        scaled.name = "other"
    with pytest.raises(AttributeError, match="immutable"):
        del scaled._state
    scaled.constants["module_number"] = 3.0
    assert scaled.constants == {"module_number": 1.25}


class Holder(BaseEstimator):
    def __init__(self, activation="relu"):
        self.activation = activation


@pytest.mark.parametrize(
    "formula",
    [scaled, make(3), fastmlp.activation("def f(z): return z", slope="def g(z, a): return a"), fastmlp.loss(LOSSES[1])],
    ids=lambda formula: formula.name,
)
def test_copies_are_equal(formula):
    z = np.linspace(-2, 2, 5)
    inputs = [z] * len(next(iter(formula.kinds.values())))
    held = clone(Holder(formula)).activation
    copies = [copy.copy(formula), copy.deepcopy(formula), held, copy.deepcopy({"a": [formula]})["a"][0]]
    copies += [pickle.loads(pickle.dumps(formula, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        assert other == formula and hash(other) == hash(formula) and repr(other) == repr(formula)
        for kind in formula.kinds:
            for mine, its in zip(formula.program(kind), other.program(kind), strict=True):
                np.testing.assert_array_equal(mine, its)
        np.testing.assert_array_equal(other(*inputs), formula(*inputs))
    assert repr(Holder(formula)) == f"Holder(activation={formula!r})"


def test_pickle_holds_no_paths():
    assert b"test_language" not in pickle.dumps(scaled)


SCRIPT = """
import pickle, sys
import fastmlp
beta = 1.5

@fastmlp.activation
def swish(z):
    return z / (1 + exp(-beta * z))

if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(swish))
"""
WORKER = """
import pickle, sys
swish = pickle.loads(sys.stdin.buffer.read())
print(repr(swish), repr(swish(2.0)), pickle.loads(pickle.dumps(swish)) == swish)
"""


def test_formulas_of_main_travel_to_other_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    pickled = subprocess.run([sys.executable, script], capture_output=True, check=True).stdout
    done = subprocess.run([sys.executable, "-c", WORKER], input=pickled, capture_output=True, check=True)
    value = 2 / (1 + math.exp(-3))
    assert done.stdout.decode().strip() == f"<activation swish(z), beta=1.5> {value!r} True"
    assert pickle.loads(pickled)(2.0) == value


def test_without_source_the_error_says_what_to_do():
    command = "import fastmlp\n@fastmlp.activation\ndef swish(z): return z / (1 + exp(-z))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    if done.returncode:  # newer Pythons keep the text of -c
        assert "formula 'swish', <string>:2: Python has kept no source text of it: give the text" in done.stderr


def test_notebook_cell():
    cell = "beta = 2.0\n@fastmlp.activation\ndef swish(z):\n    return z / (1 + exp(-beta * z))\n"
    name = "<ipython-input-1-cell>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    namespace = {"__name__": "__main__", "fastmlp": fastmlp}
    exec(compile(cell, name, "exec"), namespace)
    assert namespace["swish"] == Formula.from_source(
        "def swish(z):\n    return z / (1 + exp(-beta * z))", constants={"beta": 2.0}
    )


def test_file_changed_meanwhile(tmp_path):
    file = tmp_path / "changed.py"
    file.write_text("def f(z):\n    return z\n")
    namespace = {}
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    file.write_text("def g(z):\n    return z\n")
    with pytest.raises(FormulaError, match="not a plain function, write the formula with def"):
        fastmlp.activation(namespace["f"])


def test_importing_fastmlp_does_not_load_the_language():
    command = (
        "import sys, fastmlp; print([m for m in sys.modules if m.startswith(('numpy', 'fastmlp.'))]); fastmlp.loss"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert {"activation", "loss"} <= set(dir(fastmlp))
