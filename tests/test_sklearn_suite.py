"""scikit-learn's own tests of its MLPs, run on ours.

Their source is read from the installed scikit-learn, and the one import of the estimators is turned
round to fastmlp; everything else is as it stands there. What they assert is scikit-learn's
business: this file lists only what cannot apply.
"""

import ast
import importlib.util
import types
from pathlib import Path

import pytest

import fastmlp

SUITE = "sklearn.neural_network.tests.test_mlp"
ESTIMATORS = {"MLPClassifier", "MLPRegressor"}

# name: why it is left out
LEFT_OUT = {
    "test_gradient": (
        "calls the private _loss_grad_lbfgs with the lists of arrays of scikit-learn's own numerics; "
        "test_kernel_networks.py checks our gradients against finite differences"
    ),
}


class _Redirect(ast.NodeTransformer):
    """`from sklearn.neural_network import MLPClassifier, ...` -> `from fastmlp import ...`."""

    def __init__(self):
        self.redirected = set()

    def visit_ImportFrom(self, node):
        names = {alias.name for alias in node.names}
        if node.module and node.module.startswith("sklearn.neural_network") and names & ESTIMATORS:
            assert names <= ESTIMATORS, f"imports more than the estimators: {names}"
            self.redirected |= names
            node.module = fastmlp.__name__
        return node


def load_suite():
    """Run the test module of the installed scikit-learn with our estimators. -> the module"""
    spec = importlib.util.find_spec(SUITE)
    if spec is None:
        pytest.skip("this scikit-learn comes without its tests", allow_module_level=True)
    redirect = _Redirect()
    tree = redirect.visit(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    assert redirect.redirected == ESTIMATORS
    module = types.ModuleType("sklearn_suite")
    exec(compile(tree, spec.origin, "exec"), vars(module))
    return module


pytestmark = pytest.mark.usefixtures("one_blas_thread")

suite = load_suite()
their_tests = {name: obj for name, obj in vars(suite).items() if name.startswith("test_")}
globals().update({name: test for name, test in their_tests.items() if name not in LEFT_OUT})
for name in ("test_n_iter_no_change_inf",):  # 3000 epochs
    if name in their_tests:
        pytest.mark.exhaustive(their_tests[name])


@pytest.fixture
def global_random_seed():
    """scikit-learn's conftest.py draws it from an environment variable; 42 is its default."""
    return 42


def test_suite_runs_on_our_estimators():
    """The tests above see our classes, and all of scikit-learn's tests but the listed ones are here."""
    assert suite.MLPClassifier is fastmlp.MLPClassifier
    assert suite.MLPRegressor is fastmlp.MLPRegressor
    assert LEFT_OUT.keys() <= their_tests.keys(), "listed, but not in this scikit-learn"
    collected = {name for name, obj in globals().items() if their_tests.get(name) is obj and name in their_tests}
    assert collected == their_tests.keys() - LEFT_OUT.keys()
    assert len(collected) > 30
