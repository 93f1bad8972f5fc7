"""fastmlp's estimators as scikit-learn's: parameters, weights, and what training goes on with.

Both keep the same fitted attributes under the same names.  Three things differ: the place of the weights (here views of
one flat vector), the optimizer's state (here vectors with the same layout) and the parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from sklearn import config_context, neural_network
from sklearn.base import is_classifier
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import Bunch

from fastmlp.data.warned import warn
from fastmlp.estimator import ensemble
from fastmlp.estimator.base import ESTIMATORS
from fastmlp.estimator.parameters import activations_of
from fastmlp.estimator.tabular import refuse_tables
from fastmlp.model import choices, weights
from fastmlp.model.network import Network
from fastmlp.model.stages import OPTIONS, PREDICTS
from fastmlp.saving import nested
from fastmlp.sklearn_compat import AdamOptimizer, SGDOptimizer
from fastmlp.training.attributes import ATTRIBUTES
from fastmlp.training.optimizers import Optimizer
from fastmlp.training.schedules import Adaptive, InverseScaling, Schedule
from fastmlp.training.state import TrainingState

if TYPE_CHECKING:
    from fastmlp.estimators import MLPClassifier, MLPRegressor

#: Fitted attributes that mean the same in both.
SHARED = (*(name for name, row in ATTRIBUTES.items() if row.shared), "_label_binarizer")


def _zero_or_none(value: Any) -> bool:
    return value is None or not np.any(value)


def _is_constant(value: Any) -> bool:
    return choices.name_of(value) == "constant"


#: Parameters that scikit-learn lacks and that only training reads -> whether a value asks for nothing.
INERT: dict[str, Callable[[Any], bool]] = {
    "weight_decay": _zero_or_none,
    "weight_decay_schedule": _is_constant,
    "max_grad_norm": lambda value: value is None,
    "drop_last": lambda value: not value,
    "l1_ratio": _zero_or_none,
    "init": lambda value: isinstance(value, str) and value == "auto",
    "fit_intercept": bool,
    "frozen_layers": lambda value: value is None or np.size(value) == 0,
    "monitor": lambda value: isinstance(value, str) and value == "score",
    "restore_best": lambda value: value is None,
    "patience_growth": _zero_or_none,
    "dropout_schedule": _is_constant,
    "callbacks": lambda value: not value,
    "class_weight": lambda value: value is None,
    "standardize_y": lambda value: not value,
    "n_ens": lambda value: value == 1,
    "n_cv": lambda value: value == 1,
    "ens_stopping": lambda value: value == "member",
    "matmul_precision": lambda value: value == "highest",
}

ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
#: What scikit-learn has of losses and output activations, by the name of the estimator.
LOSSES = {"MLPClassifier": ("log_loss",), "MLPRegressor": ("squared_error", "poisson")}
LINKS = {"MLPClassifier": ("softmax", "logistic"), "MLPRegressor": ("identity", "exp")}
SCHEDULES = ("constant", "invscaling", "adaptive")
#: Solver -> (scikit-learn's name, what its parameter nesterovs_momentum must be; None: as it is).
SOLVERS: dict[str, tuple[str, bool | None]] = {
    "lbfgs": ("lbfgs", None),
    "sgd": ("sgd", None),
    "adam": ("adam", None),
    "momentum": ("sgd", False),
    "nesterov": ("sgd", True),
}


@overload
def to_sklearn(estimator: MLPClassifier) -> neural_network.MLPClassifier: ...
@overload
def to_sklearn(estimator: MLPRegressor) -> neural_network.MLPRegressor: ...
def to_sklearn(estimator: Any) -> Any:
    """Convert to scikit-learn's MLPClassifier or MLPRegressor, fitted or not, alone or inside another estimator.

    A fitted ensemble (`n_ens`, `n_cv`) becomes a VotingClassifier with ``voting="soft"``, or a VotingRegressor.

    A fitted network needs one of scikit-learn's activations and losses and no batch normalisation.  Options that only
    training reads (the solver adamw, dropout, ...) do not matter to its predictions: they are left at scikit-learn's
    defaults, with a warning that names them.  An estimator that is not fitted is nothing but its parameters, so there
    they are refused.

    ``backend``, ``n_jobs`` and ``train_score``, which change no result, and ``history_``, ``evals_result_``,
    ``stopped_by_`` and ``validation_loss_curve_`` are dropped. The state of the optimizers that scikit-learn has is
    kept.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor, or an estimator that holds them
        No subclass.  Or a pipeline, search, ensemble or another estimator around such networks.  It is left as it is.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or MLPRegressor, or an estimator that holds them

    Raises
    ------
    TypeError
        If it is of another class, and holds no network of these.
    ValueError
        If scikit-learn cannot represent it; the message names the parameter.

    Examples
    --------
    >>> import fastmlp
    >>> fastmlp.MLPRegressor(activation="tanh", alpha=0.1).to_sklearn()
    MLPRegressor(activation='tanh', alpha=0.1)
    >>> fastmlp.MLPRegressor(activation="gelu").to_sklearn()
    Traceback (most recent call last):
    ...
    ValueError: to_sklearn: activation='gelu' is not in scikit-learn, which has ['identity', 'logistic', 'tanh', 'relu']
    """
    return converted(estimator, _theirs(), "to_sklearn", _to_sklearn)


def _theirs() -> dict[type, type]:
    return {ours: getattr(neural_network, name) for name, ours in ESTIMATORS.items() if hasattr(neural_network, name)}


def _to_sklearn(estimator: Any) -> Any:
    cls = counterpart(estimator, _theirs(), "to_sklearn")
    if ensemble.is_ensemble(estimator):
        return _vote(estimator)
    fitted = hasattr(estimator, "coefs_")
    parameters, strange = _parameters_for_sklearn(estimator, cls)
    if strange:
        text = ", ".join(f"{name}={getattr(estimator, name)!r}" for name in strange)
        if not fitted:
            raise ValueError(f"to_sklearn: scikit-learn has no {text}")
        warn(
            f"scikit-learn has no {text}: the converted estimator predicts the same, but would train with its defaults"
        )
    made = cls(**parameters)
    copy_requests(estimator, made)
    if fitted:
        _copy_fit(estimator, made)
    return made


def _vote(estimator: Any) -> Any:
    """Return scikit-learn's ensemble that takes the mean over the same networks; a ValueError says why it cannot."""
    if estimator.n_outputs_ > 1 and (
        not is_classifier(estimator) or estimator._label_binarizer.y_type_ != "multiclass"
    ):
        raise ValueError(
            "to_sklearn: scikit-learn's voting ensembles have no multilabel or multi-output predictions; convert each"
            " of estimators_"
        )
    members = [(f"network_{i}", _to_sklearn(member)) for i, member in enumerate(estimator.estimators_)]
    if is_classifier(estimator):
        made: Any = VotingClassifier(members, voting="soft")
        made.le_ = LabelEncoder().fit(estimator.classes_)
        made.classes_ = made.le_.classes_
    else:
        made = VotingRegressor(members)
    made.estimators_ = [member for _, member in members]
    made.named_estimators_ = Bunch(**dict(members))
    if hasattr(estimator, "feature_names_in_"):
        made.feature_names_in_ = estimator.feature_names_in_
    return made


def _copy_fit(estimator: Any, made: Any) -> None:
    """Give scikit-learn's estimator weights, attributes and state of a fitted one of ours."""
    network = estimator._fitted_network()
    for name in PREDICTS:
        if getattr(network, name):
            raise ValueError(f"to_sklearn: the fitted network has {name}, which is not in scikit-learn")
    if estimator.out_activation_ not in LINKS[type(estimator).__name__]:
        raise ValueError(f"to_sklearn: the fitted network has out_activation_={estimator.out_activation_!r}")
    copy_attributes(estimator, made)
    params = weights.flat_params(estimator, network)
    made.coefs_, made.intercepts_ = _separate(network, params)
    made.n_layers_, made.n_outputs_ = len(network.widths), network.widths[-1]
    made._best_coefs, made._best_intercepts = made.coefs_, made.intercepts_
    if "_training" in vars(estimator):
        _copy_training(estimator._training, made, network)


def _copy_training(training: TrainingState, made: Any, network: Network) -> None:
    """Give scikit-learn's estimator the state of ours, as far as it can go on with it."""
    if hasattr(made, "loss_curve_"):  # lbfgs counts nothing
        made._no_improvement_count = training.stopping.count
    best = training.best_for(network)
    if best is not None:
        made._best_coefs, made._best_intercepts = _separate(network, best)
    kept = training.optimizer_for(network) if training.standardized is None else None  # of other units than sklearn's
    optimizer = _optimizer_for_sklearn(kept, made, network)
    if optimizer is not None:
        made._optimizer = optimizer


def _parameters_for_sklearn(estimator: Any, cls: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters of scikit-learn's estimator, and the names of ours that it cannot follow in training."""
    ours = estimator.get_params(deep=False)
    parameters = {name: copy.deepcopy(ours[name]) for name in cls().get_params(deep=False) if name in ours}
    parameters["activation"] = _activation_for_sklearn(estimator)
    loss = choices.name_of(ours["loss"])
    if choices.is_formula(ours["loss"]) or loss not in LOSSES[type(estimator).__name__]:
        known = list(LOSSES[type(estimator).__name__])
        raise ValueError(f"to_sklearn: loss={ours['loss']!r} is not in scikit-learn, which has {known}")
    if "loss" in parameters:
        parameters["loss"] = loss
    strange = [name for name, is_inert in INERT.items() if name in ours and not is_inert(ours[name])]
    asked = [name for name, option in OPTIONS.items() if option.asks(ours[name])]
    for name in asked:
        if name in PREDICTS:
            raise ValueError(f"to_sklearn: {name}={ours[name]!r} is not in scikit-learn")
    strange += asked
    if not isinstance(ours["shuffle"], bool | np.bool_):  # blocks of so many rows
        parameters["shuffle"] = True
        strange.append("shuffle")
    if any(choices.given_parameters(ours["loss"]).values()):  # label smoothing
        strange.append("loss")
    if choices.name_of(ours["solver"]) in SOLVERS:
        parameters["solver"], nesterov = SOLVERS[choices.name_of(ours["solver"])]
        given = choices.given_parameters(ours["solver"])
        parameters |= {name: value for name, value in given.items() if value is not None}
        if nesterov is not None:
            parameters["nesterovs_momentum"] = nesterov
    else:
        strange.insert(0, "solver")
        del parameters["solver"]
    schedule = _alone(ours["learning_rate"])
    if isinstance(schedule, str) and schedule in SCHEDULES:
        parameters["learning_rate"] = schedule
    else:
        strange.append("learning_rate")
        del parameters["learning_rate"]
    return parameters, strange


def _alone(choice: Any) -> Any:
    """Return the name of a choice that comes with an empty dict of parameters; others as they are."""
    return choice[0] if isinstance(choice, tuple | list) and len(choice) == 2 and choice[1] == {} else choice


def _activation_for_sklearn(estimator: Any) -> str:
    """Return the one name that scikit-learn has for the activations of all hidden layers."""
    given = estimator.activation
    n_hidden = len(estimator.coefs_) - 1 if hasattr(estimator, "coefs_") else len(estimator._hidden_sizes())
    if n_hidden == 0 and isinstance(given, str):
        entries: tuple[Any, ...] = (given,)
    else:
        entries = activations_of(given, n_hidden) or ("relu",)
    name = entries[0]
    if not isinstance(name, str) or name not in ACTIVATIONS or any(entry != name for entry in entries):
        raise ValueError(
            f"to_sklearn: activation={given!r} is not in scikit-learn, which has {list(ACTIVATIONS)}"
            f"{', one for all hidden layers' if len(set(map(str, entries))) > 1 else ''}"
        )
    return name


def _optimizer_for_sklearn(ours: Optimizer | None, made: Any, network: Network) -> Any:
    """Return scikit-learn's optimizer in the state of ours, or None if it has no such."""
    kinds = (Schedule, InverseScaling, Adaptive)
    if ours is None or ours.rule not in SOLVERS or type(ours.schedule) not in kinds:
        return None
    if ours.weight_decay or ours.max_grad_norm is not None or ours.factors is not None:
        return None
    params, schedule = made.coefs_ + made.intercepts_, ours.schedule
    vectors = [list(chain(*_separate(network, state))) for state in ours.states]
    if ours.rule == "adam":
        hyper = {name: ours.hyper[name] for name in ("beta_1", "beta_2", "epsilon")}
        theirs: Any = AdamOptimizer(params, schedule.initial, **hyper)
        theirs.ms, theirs.vs = vectors
        theirs.t, theirs.learning_rate = ours.t, ours.learning_rate
        return theirs
    name = SCHEDULES[kinds.index(type(schedule))]
    momentum = 0.0 if ours.rule == "sgd" else ours.hyper["momentum"]
    power_t = schedule.values.get("power_t", made.power_t)
    theirs = SGDOptimizer(params, schedule.initial, name, momentum, ours.rule == "nesterov", power_t)
    if vectors:
        theirs.velocities = vectors[0]
    theirs.learning_rate = ours.scheduled_rate
    return theirs


# --- both ways -------------------------------------------------------------------------------------------------------


def converted(estimator: Any, table: dict[type, type], function: str, convert: Callable[[Any], Any]) -> Any:
    """Return what `convert` makes of an estimator, or a copy of an estimator around some in which it did so."""
    kinds = tuple(table)
    if not nested.is_nest(estimator, kinds):
        return convert(estimator)
    copied = nested.with_converted(estimator, kinds, convert)
    return convert(estimator) if copied is None else copied  # which refuses what is of another class


def copy_requests(source: Any, target: Any) -> None:
    """Give an estimator the metadata that a user has requested for the methods of another, as far as it knows them."""
    if "_metadata_request" not in vars(source):
        return
    with config_context(enable_metadata_routing=True):
        for method in ("fit", "partial_fit", "score"):
            theirs, ours = (getattr(e.get_metadata_routing(), method).requests for e in (source, target))
            asked = {name: value for name, value in theirs.items() if name in ours and value is not None}
            if asked:
                getattr(target, f"set_{method}_request")(**asked)


def counterpart(estimator: Any, table: dict[type, type], function: str) -> Any:
    if type(estimator) in table:
        return table[type(estimator)]
    refuse_tables(estimator, function)
    known = " and ".join(f"{cls.__module__.split('.')[0]}'s {cls.__name__}" for cls in table)
    kind = type(estimator)
    what = "a subclass, which may fit or predict otherwise" if isinstance(estimator, tuple(table)) else "another class"
    if nested.is_nest(estimator, tuple(table)):
        what += ", which holds none of them"
    raise TypeError(f"{function} converts {known}, got {kind.__module__}.{kind.__qualname__}, {what}")


def copy_attributes(source: Any, target: Any) -> None:
    for name in SHARED:
        if name in vars(source):
            setattr(target, name, copy.deepcopy(vars(source)[name]))


def _separate(network: Network, params: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return copies of the matrices and of the biases in a flat vector, each an array of its own."""
    return [W.copy() for W in network.coefs(params)], [b.copy() for b in network.intercepts(params)]
