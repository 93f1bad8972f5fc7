"""What is measured on rows that are evaluated after each epoch: the scores that ``monitor`` names.

``monitor`` -> names and scorers -> for one set of rows, functions of their outputs.  Accuracy and R2 are
scikit-learn's, number for number, in a few calls of NumPy.  Which rows are evaluated is said in validation.py.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.metrics import get_scorer, get_scorer_names

from fastmlp.data.targets import REGRESSOR_LOSSES
from fastmlp.engines.backends import Data
from fastmlp.model import choices
from fastmlp.model.spelling import hint

#: A score as a function of outputs (n, n_outputs).
Score = Callable[[np.ndarray], float]

# --- which metrics there are ------------------------------------------------------------------------------------------


def metrics_of(monitor: Any) -> dict[str, Any]:
    """Return what `monitor` names, in its order: name -> "score", "loss", scikit-learn's name or a callable.

    A ValueError says that a name is unknown, that a name comes twice, or what else is wrong with `monitor`.
    """
    if isinstance(monitor, Mapping):
        found = dict(monitor)
    elif isinstance(monitor, list | tuple):
        if not all(isinstance(name, str) for name in monitor):
            raise ValueError(f"monitor={monitor!r} must be a list of names; give functions as a dict, name -> scorer")
        found = {name: name for name in monitor}
        if len(found) < len(monitor):
            raise ValueError(f"monitor={monitor!r} has a name twice")
    elif isinstance(monitor, str):
        found = {monitor: monitor}
    else:
        found = {name_of(monitor): monitor}
    if not found:
        raise ValueError(f"monitor={monitor!r} names no metric")
    for name, metric in found.items():
        _check_metric(monitor, name, metric)
    if "score" in list(scores_of(found))[1:]:
        raise ValueError(
            f"monitor={monitor!r}: of several scores only the first may be named 'score', as its column of history_ is;"
            " name it otherwise, for instance monitor={'f1': 'f1_macro', 'default': 'score'}"
        )
    return found


def _check_metric(monitor: Any, name: Any, metric: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"monitor={monitor!r}: names of metrics must be texts, got {name!r}")
    if isinstance(metric, str):
        if metric not in ("score", "loss", *get_scorer_names()):
            raise ValueError(
                f"monitor={metric!r} is unknown; valid are 'score', 'loss' and scikit-learn's scorers"
                f" {get_scorer_names()}{hint(metric, ('score', 'loss', *get_scorer_names()))}"
            )
    elif inspect.isfunction(metric) and metric.__module__.startswith("sklearn.metrics."):
        raise ValueError(
            f"monitor: {metric.__name__} compares targets and predictions; a scorer takes (estimator, X, y): write"
            f" make_scorer({metric.__name__}), or the name of scikit-learn's scorer"
        )
    elif not callable(metric):
        raise ValueError(f"monitor={monitor!r}: {name!r} must be a scorer's name or a function, got {metric!r}")
    if name == "loss" and metric != "loss":
        raise ValueError(f"monitor={monitor!r}: 'loss' is the name of the loss; give {metric!r} another name")


def name_of(metric: Any) -> str:
    """Return the name of a metric that has none in `monitor`; "score" for functions without a name of their own."""
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "__name__", "")
    return name if name.isidentifier() and name != "loss" else "score"


def scores_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that are scores; "score" if there is only the loss, which is measured anyway."""
    return {name: metric for name, metric in metrics.items() if metric != "loss"} or {"score": "score"}


def decisive(monitor: Any) -> Any:
    """Return the first metric of `monitor`, which decides which epoch is best."""
    if isinstance(monitor, str):
        return monitor
    if isinstance(monitor, Mapping):
        return next(iter(monitor.values()))
    return next(iter(monitor)) if isinstance(monitor, list | tuple) else monitor


# --- scikit-learn's accuracy and R2 -----------------------------------------------------------------------------------


def undefined(outputs: np.ndarray) -> float:
    """Return NaN."""
    return np.nan


def accuracy(correct: Callable[[np.ndarray], np.ndarray], weight: np.ndarray | None) -> Score:
    """Return the (weighted) share of rows that are `correct`, a function of outputs: accuracy_score."""
    if weight is None:
        return lambda outputs: float(np.count_nonzero(correct(outputs)) / len(outputs))
    weight = weight.astype(np.float64)
    total = weight.sum()
    if total == 0:
        return undefined
    return lambda outputs: float(np.multiply(correct(outputs), weight).sum() / total)


def r2(y: np.ndarray, weight: np.ndarray | None, dtype: np.dtype) -> Score:
    """Return R2 for targets (n,) or (n, n_outputs) and outputs of the dtype, a mean over outputs: r2_score.

    Of outputs that are not finite, and of fewer than two rows, it is NaN. An output whose targets are constant has 1 if
    it is perfect, else 0.
    """
    if len(y) < 2 or (weight is not None and weight.sum() == 0):
        return undefined
    given = [array.dtype for array in (y, weight) if array is not None and array.dtype.kind == "f"]
    dtype = np.result_type(dtype, *given)
    y = y.reshape(len(y), -1).astype(dtype, copy=False)
    weight = None if weight is None else weight.astype(dtype, copy=False)

    def summed(errors: np.ndarray) -> np.ndarray:  # which are overwritten
        squares = np.square(errors, out=errors)
        return np.add.reduce(squares if weight is None else weight[:, None] * squares, axis=0)

    with np.errstate(over="ignore", invalid="ignore"):
        spread = summed(y - np.average(y, axis=0, weights=weight))
    is_constant = spread == 0
    any_constant = is_constant.any()
    divisor = np.where(is_constant, 1, spread)
    is_usual = len(spread) == 1 and not any_constant

    def score(outputs: np.ndarray) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            error = summed(y - outputs)
            if is_usual and math.isfinite(error[0]):  # in fewer calls
                return float(1 - error[0] / divisor[0])
            if not math.isfinite(error.sum()) and not np.isfinite(outputs).all():
                return np.nan
            scores = 1 - error / divisor
            if any_constant:
                scores[is_constant] = error[is_constant] == 0
            return float(scores.mean())

    return score


# --- scikit-learn's scorers, and users' functions ---------------------------------------------------------------------


class _Asked:
    """The score of one set by a scorer, which sees an estimator that knows the outputs of its rows already."""

    def __init__(self, name: str, metric: Any, estimator: Any, X: Any, y: Any, weight: Any, where: str) -> None:
        self.name, self.by_name, self._where = name, isinstance(metric, str), where
        self._scorer = scorer = get_scorer(metric) if self.by_name else metric
        self._estimator, self._X, self._y = estimator, X, y
        self._weight = {} if weight is None else {"sample_weight": weight}
        if self._weight and not _takes_weight(scorer):
            raise ValueError(
                f"monitor: {name!r} must take the argument sample_weight: the rows that it judges have weights, from"
                " sample_weight, sample_weight_val or class_weight"
            )

    def __call__(self, outputs: np.ndarray, **attributes: Any) -> float:
        """Return the score; NaN, as for scikit-learn's own, if outputs are not finite.

        `attributes` are those that the estimator does not have yet, before its first fit.  A ValueError says why one of
        scikit-learn's own scorers cannot serve; what a function of the user's raises is left as it is.
        """
        if not np.isfinite(outputs).all():
            return np.nan
        X = self._X
        twin = object.__new__(type(self._estimator))
        known = {"_outputs_of": lambda rows, *_: _known(twin, X, outputs, rows)}
        twin.__dict__ = self._estimator.__dict__ | attributes | known
        try:
            return _number(self._scorer(twin, X, self._y, **self._weight), self.name)
        except Exception as error:
            if not self.by_name:
                raise
            raise ValueError(f"monitor={self.name!r} cannot judge {self._where}: {error}") from error


def _known(twin: Any, X: Any, outputs: np.ndarray, rows: Any) -> np.ndarray:
    """Return outputs of `rows`: those at hand if the rows are X itself, as they are for scikit-learn's own scorers."""
    return outputs.copy() if rows is X else type(twin)._outputs_of(twin, rows)


def _takes_weight(scorer: Any) -> bool:
    try:
        parameters = inspect.signature(scorer).parameters.values()
    except (TypeError, ValueError):  # some built-in functions do not tell
        return True
    return any(parameter.name == "sample_weight" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _number(value: Any, name: str) -> float:
    plain = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
    if not isinstance(plain, Real):
        raise TypeError(f"monitor: {name!r} must return a number, got {value!r:.100}")
    return float(plain)


# --- for one set of rows ----------------------------------------------------------------------------------------------


def scores_on(
    estimator: Any, metrics: Mapping[str, Any], data: Data, y: np.ndarray, rows: np.ndarray | None, where: str
) -> dict[str, Score]:
    """Return the score of each metric for one set of rows, which `data` has encoded and `y` as users see it.

    `rows` are those of ``data.X``; the other arrays have these rows only. `where` says in errors which rows these are.
    """
    scores: dict[str, Score] = {}
    X: Any = None
    for name, metric in scores_of(metrics).items():
        if isinstance(metric, str) and metric == "score":
            scores[name] = estimator._score(y, data.y, data.sample_weight)
            continue
        if X is None:
            X = estimator._shown_rows(data.X, rows)  # once in a fit: scorers of the user's may look at the rows
        scores[name] = _Asked(name, metric, estimator, X, y, data.sample_weight, where)
    return scores


def score_before_training(score: Score, outputs: np.ndarray, **attributes: Any) -> float:
    """Return the score of made-up outputs, to learn whether there is one for these targets; 0 for users' functions."""
    if not isinstance(score, _Asked):
        return score(outputs)
    return score(outputs, **attributes) if score.by_name else 0.0  # users' functions are called after epochs only


def why_undefined(name: str, y: Any, weight: np.ndarray | None, loss: Any) -> str:
    """Return what is wrong with targets for which a metric, or the loss, is NaN; empty if there is nothing to see."""
    columns = y.toarray() if issparse(y) else y
    columns = columns.reshape(y.shape[0], -1)
    if weight is not None and weight.sum() == 0:
        return "their weights add up to 0"
    if choices.is_formula(loss) or choices.name_of(loss) in REGRESSOR_LOSSES:
        with np.errstate(over="ignore"):
            if not np.isfinite(np.square(columns, dtype=np.float64).sum()):
                return f"the squares of their targets, up to {np.abs(columns).max():g}, overflow; scale y"
        if name == "loss":
            negative = choices.name_of(loss) == "poisson" and columns.min() < 0
            return f"loss='poisson' needs targets of at least 0, got {columns.min():g}" if negative else ""
        return "it needs two rows" if len(columns) < 2 else ""
    constant = np.flatnonzero((columns == columns[0]).all(axis=0))
    if name == "loss" or not len(constant):
        return ""
    value = columns[0, constant[0]]
    return f"all of them have the class {value}" if y.ndim == 1 else f"label {constant[0]} is {value} in all of them"
