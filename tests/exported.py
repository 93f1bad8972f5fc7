"""Fitted networks for the tests of the exports: every task, and what its predictions should be."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastmlp import MLPClassifier, MLPRegressor

N_FEATURES = 5


def rows(dtype, n=40, seed=0):
    return np.random.default_rng(seed).normal(size=(n, N_FEATURES)).astype(dtype)


def _distributions(rng, n):
    y = rng.uniform(0.1, 1, (n, 3))
    return y / y.sum(axis=1, keepdims=True)


def _classes(*labels):
    return lambda rng, n: np.array(labels)[np.arange(n) % len(labels)]


#: Task -> (class, loss, targets of n rows).
TASKS = {
    "binary": (MLPClassifier, "log_loss", _classes(-4, 9)),
    "binary text": (MLPClassifier, ("focal", {"gamma": 1.0}), _classes("no", "ja")),
    "multiclass": (MLPClassifier, "log_loss", _classes(7, -1, 3, 20)),
    "multiclass text": (MLPClassifier, "focal", _classes("a", 'quote " \\ ??/', "Zürich")),
    "multilabel": (MLPClassifier, "log_loss", lambda rng, n: rng.integers(0, 2, (n, 3))),
    "two labels": (MLPClassifier, "log_loss", lambda rng, n: rng.integers(0, 2, (n, 2))),
    "hinge": (MLPClassifier, "hinge", _classes(0, 1)),
    "hinge of three": (MLPClassifier, "squared_hinge", _classes(0, 1, 2)),
    "regression": (MLPRegressor, "squared_error", lambda rng, n: rng.normal(size=n)),
    "two outputs": (MLPRegressor, "huber", lambda rng, n: rng.normal(size=(n, 2))),
    "poisson": (MLPRegressor, "poisson", lambda rng, n: rng.poisson(2.0, n)),
    "gamma": (MLPRegressor, "gamma", lambda rng, n: rng.gamma(2.0, 1.0, (n, 2)) + 0.01),
    "kl_divergence": (MLPRegressor, "kl_divergence", _distributions),
}


def fitted(task="multiclass", dtype=np.float64, activation="tanh", hidden=(6, 4), X=None, **parameters):
    """An estimator after two epochs: its weights are like no others."""
    make, loss, targets = TASKS[task]
    parameters = {"max_iter": 2, "random_state": 0, "learning_rate_init": 0.05, "loss": loss} | parameters
    estimator = make(hidden_layer_sizes=hidden, activation=activation, **parameters)
    X = rows(dtype) if X is None else X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, targets(np.random.default_rng(1), X.shape[0]))


def outputs(estimator, X):
    """What predict_proba, decision_function or predict say: (n, columns)."""
    for method in ("predict_proba", "decision_function", "predict"):
        if hasattr(estimator, method):
            return np.atleast_2d(getattr(estimator, method)(X).T).T
    raise AssertionError


def one_unit(activation, dtype):
    """A regressor whose prediction is the activation of its one feature."""
    X, ones, zeros = np.linspace(0.1, 1, 10, dtype=dtype)[:, None], [[[1]], [[1]]], [[0], [0]]
    estimator = MLPRegressor(hidden_layer_sizes=(1,), activation=activation, solver="sgd", max_iter=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X, X[:, 0], coef_init=ones, intercept_init=zeros)
    for W, b in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        W[...], b[...] = 1, 0
    return estimator
