"""Formulas of users that are refused: what the error says and where it points."""

import linecache
import math

import numpy as np
import pytest

import fastmlp
from fastmlp.kernels.language import Formula, FormulaError

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
