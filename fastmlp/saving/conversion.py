"""scikit-learn's multi-layer perceptrons as fastmlp's, and back (to_sklearn.py)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar, overload

import numpy as np
from sklearn import neural_network
from sklearn.base import BaseEstimator

from fastmlp.estimators import MLPClassifier, MLPRegressor
from fastmlp.model.network import Network
from fastmlp.saving.to_sklearn import converted, copy_attributes, copy_requests, counterpart, to_sklearn
from fastmlp.sklearn_compat import AdamOptimizer, SGDOptimizer
from fastmlp.training.attributes import plain
from fastmlp.training.history import COLUMNS
from fastmlp.training.optimizers import Optimizer
from fastmlp.training.schedules import Adaptive, InverseScaling, Schedule
from fastmlp.training.state import TrainingState

__all__ = ["from_sklearn", "to_sklearn"]

#: scikit-learn's class -> ours.
OURS: dict[type, type] = {
    neural_network.MLPClassifier: MLPClassifier,
    neural_network.MLPRegressor: MLPRegressor,
}

#: A pipeline, a search, ...: of the same class with other networks inside.
Holder = TypeVar("Holder", bound=BaseEstimator)


@overload
def from_sklearn(estimator: neural_network.MLPClassifier) -> MLPClassifier: ...
@overload
def from_sklearn(  # type: ignore[overload-cannot-match] # to mypy, which reads no scikit-learn, the two are the same
    estimator: neural_network.MLPRegressor,
) -> MLPRegressor: ...
@overload
def from_sklearn(estimator: Holder) -> Holder: ...  # type: ignore[overload-cannot-match]
def from_sklearn(estimator: Any) -> Any:
    """Convert scikit-learn's MLPClassifier or MLPRegressor, fitted or not, alone or inside another estimator.

    Weights, curves and counters are copied, and so is the state of the optimizer: ``partial_fit`` and warm starts go on
    as scikit-learn's would, up to rounding.  ``history_`` gets the losses and scores; rates and seconds are NaN, since
    scikit-learn does not note them.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor, or an estimator that holds them
        No subclass, which may fit or predict otherwise.  Or a pipeline, search, ensemble or another estimator around
        such networks, fitted or not.  It is left as it is.

    Returns
    -------
    MLPClassifier or MLPRegressor, or an estimator that holds them
        Of a pipeline or another estimator, a deep copy whose networks are converted.

    Raises
    ------
    TypeError
        If it is of another class, and holds no network of these.
    ValueError
        If it has a parameter that fastmlp does not know, with another value than its default.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> import fastmlp
    >>> X, y = load_iris(return_X_y=True)
    >>> theirs = MLPClassifier((8,), solver="lbfgs", max_iter=1000, random_state=0).fit(X, y)
    >>> ours = fastmlp.from_sklearn(theirs)
    >>> bool((ours.predict(X) == theirs.predict(X)).all())
    True
    """
    return converted(estimator, OURS, "from_sklearn", _from_sklearn)


def _from_sklearn(estimator: Any) -> Any:
    cls = counterpart(estimator, OURS, "from_sklearn")
    made = cls(**_parameters_from_sklearn(estimator, cls))
    copy_requests(estimator, made)
    if not hasattr(estimator, "coefs_"):
        return made
    copy_attributes(estimator, made)
    made.coefs_, made.intercepts_ = list(estimator.coefs_), list(estimator.intercepts_)
    network = made._fitted_network()
    made._expose(network, _flattened(network, [*estimator.coefs_, *estimator.intercepts_]))
    if hasattr(made, "loss_curve_"):
        made.history_ = _history(made)
    if getattr(made, "best_validation_score_", None) is not None:
        made.validation_loss_curve_ = [np.nan] * len(made.validation_scores_)
    made._training = _training_from_sklearn(estimator, network)
    return made


def _training_from_sklearn(estimator: Any, network: Network) -> TrainingState:
    """Return the state that scikit-learn's estimator would go on with."""
    training = TrainingState(optimizer=_optimizer_from_sklearn(estimator, network))
    training.stopping.count = getattr(estimator, "_no_improvement_count", 0)
    best = getattr(estimator, "best_validation_score_", None)
    if best is not None:
        training.stopping.set_state({"_best_monitored": plain(best), "_monitored": "score"})
        training.best_params = _best_from_sklearn(estimator, network)
    return training


def _parameters_from_sklearn(estimator: Any, cls: Any) -> dict[str, Any]:
    parameters, known = estimator.get_params(deep=False), cls().get_params(deep=False)
    defaults = type(estimator)().get_params(deep=False)
    for name in parameters.keys() - known.keys():
        if parameters[name] != defaults[name]:
            raise ValueError(f"from_sklearn: fastmlp has no parameter {name}, which is {parameters[name]!r}")
    return {name: copy.deepcopy(value) for name, value in parameters.items() if name in known}


def _best_from_sklearn(estimator: Any, network: Network) -> np.ndarray | None:
    """Return the best weights so far; None if they are the very arrays of the present ones, as they mostly are."""
    best = [*estimator._best_coefs, *estimator._best_intercepts]
    present = [*estimator.coefs_, *estimator.intercepts_]
    if all(theirs is now for theirs, now in zip(best, present, strict=True)):
        return None
    return _flattened(network, best)


def _history(made: Any) -> dict[str, list[float]]:
    """Return a row per epoch from the curves that scikit-learn keeps."""
    n = len(made.loss_curve_)
    history = {name: [np.nan] * n for name in COLUMNS} | {"loss": list(made.loss_curve_)}
    scores = made.validation_scores_ or []
    history["score"] = ([np.nan] * n + list(scores))[-n:] if n else []
    return history


def _optimizer_from_sklearn(estimator: Any, network: Network) -> Optimizer | None:
    theirs = getattr(estimator, "_optimizer", None)
    if isinstance(theirs, AdamOptimizer):
        hyper = {"beta_1": theirs.beta_1, "beta_2": theirs.beta_2, "epsilon": theirs.epsilon}
        ours = Optimizer("adam", network, Schedule(theirs.learning_rate_init), hyper)
        ours.t, vectors = int(theirs.t), [theirs.ms, theirs.vs]
    elif isinstance(theirs, SGDOptimizer):
        rule = ("nesterov" if theirs.nesterov else "momentum") if theirs.momentum else "sgd"
        ours = Optimizer(rule, network, _schedule_from_sklearn(theirs), {"momentum": theirs.momentum})
        vectors = [theirs.velocities]
    else:
        return None  # lbfgs has none
    for state, arrays in zip(ours.states, vectors, strict=False):  # plain sgd keeps no velocities
        state[...] = _flattened(network, arrays)
    return ours


def _schedule_from_sklearn(theirs: SGDOptimizer) -> Schedule:
    if theirs.lr_schedule == "constant":
        return Schedule(theirs.learning_rate_init)
    if theirs.lr_schedule == "invscaling":
        schedule: Any = InverseScaling(theirs.learning_rate_init, power_t=theirs.power_t)
    else:
        schedule = Adaptive(theirs.learning_rate_init)
    schedule.rate = float(theirs.learning_rate)
    return schedule


def _flattened(network: Network, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return a new flat vector (n_params,) with these matrices, then biases."""
    return np.concatenate([np.ravel(array) for array in arrays]).astype(network.dtype, copy=False)
