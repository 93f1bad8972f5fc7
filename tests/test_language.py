"""Users' formulas: values, derived slopes, what is refused and where it points, programs, and how formulas travel."""

import math
import types

import numpy as np
import pytest
from hypothesis import assume, given

import fastmlp
from fastmlp.kernels import codegen, derivative, formulas, graph, language, program
from fastmlp.kernels.language import Formula, FormulaError, program_of, run
from fastmlp.kernels.syntax import Reader, Text

from helpers import NUMPY, plain
from random_formulas import EXPRESSIONS, POINTS, random_formula

EXTREME = np.array([-np.inf, -1e4, -100.0, -3.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 3.0, 100.0, 1e4, np.inf, np.nan])


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
    "def smooth_elu(z): return z if z > 0 else expm1(z)",
    "def bernoulli(z): return (z + 0.1) / expm1(z + 0.1)",
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
    if n_inputs > 2:  # a loss of softmax: too many for a grid
        inputs = tuple(np.random.default_rng(0).choice(points, (n_inputs, 3000)))
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
    derived = program.compile_node(made, derivative.Derivative(made, z)(value))
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
    names = ["add", "sub", "mul", "div", "neg", "exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt", "abs"]
    names += ["select_lt", "select_le", "select_eq", "select_ne"]
    assert dict(zip(names, range(17), strict=True)) == graph.OPS
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
