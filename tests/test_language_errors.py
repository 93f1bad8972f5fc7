"""Formulas of users that are refused: what the error says and where it points."""

import linecache
import math
from collections import Counter

import numpy as np
import pytest

import fastmlp
from fastmlp.kernels import graph, language
from fastmlp.kernels.language import Formula, FormulaError
from fastmlp.kernels.syntax import Text

from helpers import plain

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
    (unknown_function, 1, r"unknown function 'sin'; known are exp, expm1, log, .*minimum, maximum: sin\(z\)"),
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
    where = rf"formula '{function.__name__}', .*test_language_errors.py:{line}: "
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
    assert str(caught.value).endswith(f"test_language_errors.py:{line}: not part of the formula language: d @ d")


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
        (f"def f(z): return z + {'9' * 5000}", "formula, <formula>:1: .*Exceeds the limit"),
        ("def f(z, z): return z", r"formula 'f', <formula>:1: an activation takes 1 argument .*: def f\(z, z\)"),
        ("def f(exp): return exp(exp)", "formula 'f', <formula>:1: exp is a function .* cannot be an argument: def f"),
        ("def f(z): return z\x00", "formula, <formula>:1: source code .*null bytes"),
        ("def f(z): return '\ud800'", r"formula, <formula>:1: .*surrogates not allowed: \"def f\(z\)"),
        ("def f(z): return " + "(" * 5000 + "z" + ")" * 5000, "formula, <formula>:1: too many nested parentheses"),
        ("def f(z): return " + "-" * 50_000 + "z", "formula, <formula>:1: too deeply nested: def f"),
        (
            "# " + "x" * 3_000_000,
            "formula, <formula>:1: its text has 3000002 characters, at most 100000",
        ),
    ],
)
def test_text_that_is_no_formula(source, message):
    with pytest.raises(FormulaError, match=message):
        fastmlp.activation(source)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"c": "1"}, "formula 'f': the constant c is not a number: '1'"),
        ({"c": 10**400}, "formula 'f': the constant c is not a number: 1000"),
        ({"c": math.nan}, "formula 'f': the constant c is not a number: nan"),
        ({5: 1.0, "c": 1.0}, "formula 'f': the name of a constant must be text, got 5"),
        ([("c", 1.0)], r"formula 'f': constants must be a dict of numbers, got \[\('c', 1.0\)\]"),
    ],
)
def test_constants_of_text_are_numbers(constants, message):
    with pytest.raises(FormulaError, match=message):
        Formula.from_source("def f(z): return c * z", constants=constants)


@pytest.mark.parametrize("make", [fastmlp.loss, Formula.from_source], ids=["loss", "from_source"])
def test_arguments_have_names_of_their_own(make):
    with pytest.raises(FormulaError, match=r"formula 'f', <formula>:1: two arguments have the name y: def f\(y, y\)"):
        make("def f(y, y): return y * y")


def test_arguments_of_a_slope_have_names_of_their_own():
    with pytest.raises(FormulaError, match="formula 'g', <formula>:1: two arguments have the name a"):
        fastmlp.activation("def f(z): return z", slope="def g(a, a): return a")


@pytest.mark.parametrize("source", [5, None, "def f(z) return z", "import os", "  def f(z): return z"])
def test_text_that_was_forged(source):
    with pytest.raises(FormulaError, match="formula, <formula>:1: "):
        language.ActivationFormula(Text(source))


too_large_for_a_float = 10**400


def test_numbers_from_outside_that_no_float_holds():
    def f(z):
        return z * too_large_for_a_float

    with pytest.raises(FormulaError, match="too_large_for_a_float is too large for a floating-point number"):
        fastmlp.activation(f)


def test_too_long():
    terms = [f"exp({k} * z)" for k in range(2, 22)]
    lines = [f"t{k} = {term}" for k, term in enumerate(terms)]
    names = [f"t{k}" for k in range(len(terms))]
    value = " + ".join(names) + " + " + " * ".join(reversed(names))
    source = "def f(z):\n" + "".join(f"    {line}\n" for line in lines) + f"    return {value}"
    with pytest.raises(FormulaError, match=r"formula 'f', <formula>:1: this activation is too long, .* of 16: def f"):
        fastmlp.activation(source)


def shared(n):
    """A formula whose subterms are shared: written out, z alone stands there 2^n times."""
    return "def f(z):\n" + "    z = z + z\n" * n + "    return log(exp(z) + z)"


def count_nodes(monkeypatch, source):
    """Nodes that a formula's graph has, and operations asked for on the way, for value and slope."""
    graphs, applied = [], Counter()
    init, apply = graph.Graph.__init__, graph.Graph.apply

    def counted_init(self):
        graphs.append(self)
        init(self)

    def counted_apply(self, *arguments):
        applied["apply"] += 1
        return apply(self, *arguments)

    monkeypatch.setattr(graph.Graph, "__init__", counted_init)
    monkeypatch.setattr(graph.Graph, "apply", counted_apply)
    try:
        Formula.from_source(source)
    except FormulaError as error:
        assert "registers of 16" in str(error)  # found out at the end
    monkeypatch.undo()
    return len(graphs[0].nodes), applied["apply"]


@pytest.mark.parametrize(
    "line",
    [
        "z = z + z",
        "z = z - (z + z)",
        "z = z * z",
        "z = z + exp(z) * z",
        "z = z * exp(z) + z",
        "z = 1 / (1 + exp(z) + z)",
        "z = sqrt(z + exp(z)) * z",
        "z = z if z > 1 else -z",
        "z = maximum(z, z * 2)",
        "z = log(exp(z) + z)",
        "z = tanh(z) + erf(z)",
    ],
)
def test_shared_terms_are_walked_once(monkeypatch, line):
    """Twice as many lines make at most four times as many nodes: a sum may be flattened once for each of its parts."""

    def source(n):
        return "def f(z):\n" + f"    {line}\n" * n + "    return log(exp(z) + z)"

    (nodes, applied), (more, more_applied) = (count_nodes(monkeypatch, source(n)) for n in (8, 16))
    assert more < 4.5 * nodes and more_applied < 4.5 * applied
    assert more < 2000 and more_applied < 10_000


def test_shared_terms_are_right():
    f = fastmlp.activation(shared(10))
    z = np.array([-1e-3, 0.0, 1e-3, 0.5])
    e = np.exp(1024 * z)
    np.testing.assert_allclose(f.numpy_slope(z, f(z))[1:], (1024 * (e + 1) / (e + 1024 * z))[1:], rtol=1e-12)


def test_formulas_have_a_limited_number_of_operations():
    assert len(fastmlp.activation(shared(1900)).program("value").instructions) == 1903
    with pytest.raises(FormulaError, match=r"formula 'f', <formula>:1: this activation is too long, it has 2103 opera"):
        fastmlp.activation(shared(2100))


def test_what_a_slope_takes_is_limited(monkeypatch):
    """Sums of sums in the denominators of sums: the walk grows as a square, and ends at its limit."""
    lines = "".join(f"    s = s + exp({k} * z)\n    t = t + 1 / s\n" for k in range(1, 120))
    with pytest.raises(FormulaError, match=r"the slope derived from this .* is too long, it takes more than 10000"):
        fastmlp.activation(f"def f(z):\n    s = 1\n    t = z\n{lines}    return t")


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


# --- what others raise ----------------------------------------------------------------------------------------------


class Stopped(Exception):
    """What a caller's signal handler raises."""


@pytest.mark.parametrize("error", [TimeoutError("time is up"), KeyboardInterrupt(), Stopped(), MemoryError()])
@pytest.mark.parametrize(
    "at", ["inspect.getsource", "fastmlp.kernels.graph.Graph.apply", "fastmlp.kernels.language.compile_node"]
)
def test_what_a_signal_handler_raises_stays_what_it_is(monkeypatch, error, at):
    """Python runs handlers between any two of its instructions, as if each call could raise this."""

    def f(z):
        return z * exp(z)  # noqa: F821

    def interrupted(*arguments, **keywords):
        raise error

    monkeypatch.setattr(at, interrupted)
    with pytest.raises(type(error)) as caught:
        fastmlp.activation(f)
    assert caught.value is error
