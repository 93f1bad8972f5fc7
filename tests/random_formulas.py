"""Random formulas from the grammar of the formula language, for Hypothesis."""

from hypothesis import assume
from hypothesis import strategies as st

from fastmlp.kernels import graph
from fastmlp.kernels.language import Formula, FormulaError

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
