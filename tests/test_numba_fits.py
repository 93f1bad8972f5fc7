"""Whole fits by the Numba engine and by the Cython engine: the same weights, whatever is asked for.

test_trajectory.py compares either with scikit-learn's; here is also what scikit-learn does not have.
"""

import numpy as np
import pytest

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.data.targets import CLASSIFIER_LOSSES, DECISION_LOSSES, REGRESSOR_LOSSES
from fastmlp.engines import backends
from fastmlp.estimator.parameters import HIDDEN_ACTIVATIONS
from fastmlp.training.optimizers import STOCHASTIC_SOLVERS
from fastmlp.training.schedules import SCHEDULES

import parity
from parity import fit, fit_in_parts, fit_then_parts, fit_twice, fit_weighted

pytestmark = [
    pytest.mark.covers("how"),  # each value once: test_kernel_networks.py and test_trajectory.py have other judges
    pytest.mark.skipif(not {"numba", "cython"} <= {*backends.available()}, reason="needs both engines"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

COMMON = {"hidden_layer_sizes": (9, 7), "max_iter": 8, "batch_size": 24, "random_state": 0, "learning_rate_init": 0.01}
PROTOCOLS = (fit, fit_weighted, fit_twice, fit_in_parts, fit_then_parts)
LOSSES = {
    **{(loss, task): {} for loss in CLASSIFIER_LOSSES for task in ("multiclass", "binary")},
    **{(loss, "multilabel"): {} for loss in CLASSIFIER_LOSSES if loss not in DECISION_LOSSES},
    **{(loss, "positive" if loss in ("poisson", "gamma") else "multioutput"): {} for loss in REGRESSOR_LOSSES},
}
LOSSES.pop(("kl_divergence", "multioutput"))
LOSSES["kl_divergence", "shares"] = {}
OPTIONS = {
    "early stopping": {"early_stopping": True, "validation_fraction": 0.25},
    "one row at a time": {"batch_size": 1},
    "one batch": {"batch_size": 80},
    "no shuffle": {"shuffle": False},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "wide and narrow": {"hidden_layer_sizes": (67, 1, 33)},
    "batch_norm": {"batch_norm": True},
    "dropout": {"dropout": (0.3, 0.0), "input_dropout": 0.2},
    "all regularizers": {"batch_norm": True, "dropout": 0.2, "l1_ratio": 0.5, "alpha": 0.1, "activation": "prelu"},
    "clipped": {"max_grad_norm": 0.1, "solver": "adamw", "weight_decay": 0.1},
    "without momentum": {"solver": "sgd", "momentum": 0.0},
    "label smoothing": {"loss": ("log_loss", {"label_smoothing": 0.1})},
    "class weights": {"class_weight": "balanced"},
    "drop last": {"drop_last": True},
}


def problem(task):
    if task == "positive":
        X, y, weight = parity.make_problem("poisson")
        return X, y + 0.5, weight
    if task == "shares":
        X, _, weight = parity.make_problem("regression")
        shares = np.exp(X[:, :3])
        return X, shares / shares.sum(axis=1, keepdims=True), weight
    return parity.make_problem(task)


def assert_same(task, how=fit, container="dense", rtol=1e-6, **params):
    X, y, weight = problem(task)
    X = parity.as_container(X, container)
    estimator = MLPClassifier if task in parity.CLASSIFIER_TASKS else MLPRegressor
    ours, theirs = (how(estimator(**COMMON | params, backend=backend), X, y, weight) for backend in ("numba", "cython"))
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(parity.weights(ours), parity.weights(theirs), rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=rtol)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=10 * rtol)


@pytest.mark.parametrize("how", PROTOCOLS, ids=lambda how: how.__name__)
@pytest.mark.parametrize("task", parity.TASKS)
@pytest.mark.parametrize("container", ["dense", "csr"])
def test_protocols(task, how, container):
    assert_same(task, how, container, dropout=0.2)


@pytest.mark.parametrize(("loss", "task"), LOSSES)
@pytest.mark.parametrize("how", [fit, fit_weighted], ids=lambda how: how.__name__)
def test_losses(loss, task, how):
    assert_same(task, how, loss=loss)


@pytest.mark.parametrize("activation", HIDDEN_ACTIVATIONS)
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_activations(activation, task):
    assert_same(task, activation=activation)


@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_solvers(solver, task):
    assert_same(task, solver=solver)


@pytest.mark.parametrize("task", parity.TASKS)
def test_lbfgs(task):
    """Few iterations: later ones amplify the last bit."""
    assert_same(task, solver="lbfgs", max_iter=6, alpha=1.0, rtol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule):
    assert_same("multiclass", learning_rate=schedule, solver="nesterov")


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("container", ["dense", "csr"])
def test_options(name, container):
    assert_same("multiclass", container=container, **OPTIONS[name])
