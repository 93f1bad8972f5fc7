"""What a formula is: its text, equality, copies, and how it travels to other processes and out of notebooks."""

import copy
import linecache
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone

import fastmlp
from fastmlp.kernels import language
from fastmlp.kernels.language import Formula, FormulaError

module_number = 1.25
CAUCHY = "def cauchy(y, p): return log1p((y - p) * (y - p))"
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
    [scaled, make(3), fastmlp.activation("def f(z): return z", slope="def g(z, a): return a"), fastmlp.loss(CAUCHY)],
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
    assert b"test_formula_objects" not in pickle.dumps(scaled)


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
