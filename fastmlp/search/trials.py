"""Trials: an estimator with one choice of parameters, fitted on each split and judged by its validation rows.

:func:`fastmlp.training.many.fit_many` runs them side by side, as it runs the networks of an ensemble. A trial depends
on its parameters and seeds alone, so the results are the same for any number of threads, unless time runs out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.utils.validation import has_fit_parameter

from fastmlp.engines import backends
from fastmlp.estimator.base import BaseNetwork
from fastmlp.kernels import interrupts, threads
from fastmlp.model import choices
from fastmlp.search.rows import Rows, Split
from fastmlp.training import many
from fastmlp.training.callbacks import TimeLimit

#: Trials whose estimators are kept for the ensemble: the best ones. A network takes megabytes.
KEPT = 50

#: The shortest time that a fit gets; it ends after its first epoch.
_SHORTEST = 1e-9


class Deadline:
    """The end of a search; None: there is none."""

    def __init__(self, seconds: float | None) -> None:
        self.begin = time.monotonic()
        self.seconds = np.inf if seconds is None else float(seconds)

    @property
    def left(self) -> float:
        """Return the seconds that are left, negative after the end."""
        return self.seconds - (time.monotonic() - self.begin)


class _Known(BaseEstimator):
    """An estimator that predicts what is known already, for scikit-learn's scorers."""

    def __init__(self, outputs: np.ndarray) -> None:
        self.outputs = outputs

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> np.ndarray:
        return self.outputs


class _KnownValues(RegressorMixin, _Known):
    pass


class _KnownProbabilities(ClassifierMixin, _Known):
    def __init__(self, outputs: np.ndarray, classes: np.ndarray) -> None:
        super().__init__(outputs)
        self.classes_ = classes

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[self.outputs.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.outputs


def probabilities(estimator: Any, X: Any, classes: np.ndarray) -> np.ndarray:
    """Return probabilities (n_rows, n_classes), 0 for classes that the estimator has not seen."""
    found = np.asarray(estimator.predict_proba(X))
    if len(estimator.classes_) == 1:  # a network has two columns even then
        found = np.ones((len(found), 1), found.dtype)
    if len(estimator.classes_) == len(classes):
        return found
    outputs = np.zeros((len(found), len(classes)), found.dtype)
    outputs[:, np.searchsorted(classes, estimator.classes_)] = found
    return outputs


@dataclass(frozen=True)
class Plan:
    """What all trials of a search have in common."""

    estimator: Any
    splits: Sequence[Split]
    scorer: Callable[..., float]
    classes: np.ndarray | None  # of classifiers
    deadline: Deadline
    one_thread_each: bool
    validations: list[Rows] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "validations", [split.validation for split in self.splits])

    def outputs_of(self, estimator: Any, X: Any) -> np.ndarray:
        """Return probabilities (n_rows, n_classes), a column per class of the search, or values."""
        if self.classes is None:
            return np.asarray(estimator.predict(X))
        return probabilities(estimator, X, self.classes)

    def scores(self, outputs: Sequence[np.ndarray]) -> list[float]:
        """Return the score of each split for predictions of its validation rows."""
        return [self._score(*pair) for pair in zip(outputs, self.validations, strict=True)]

    def key(self, outputs: Sequence[np.ndarray]) -> tuple[float, float]:
        """Return the mean score of the splits, and what decides among equals: for classes, minus the log loss."""
        mean = float(np.mean(self.scores(outputs)))
        if self.classes is None:
            return mean, 0.0
        pairs = zip(outputs, self.validations, strict=True)
        return mean, -float(np.mean([_log_loss(part, rows, self.classes) for part, rows in pairs]))

    def _score(self, outputs: np.ndarray, rows: Rows) -> float:
        known = _KnownValues(outputs) if self.classes is None else _KnownProbabilities(outputs, self.classes)
        weight = {} if rows.weight is None else {"sample_weight": rows.weight}
        return float(self.scorer(known, rows.X, rows.y, **weight))


def _log_loss(outputs: np.ndarray, rows: Rows, classes: np.ndarray) -> float:
    """Return the log loss of probabilities (n_rows, n_classes); scikit-learn's costs more, and is asked often."""
    of_label = outputs[np.arange(len(outputs)), np.searchsorted(classes, rows.y)].astype(np.float64)
    return float(np.average(-np.log(np.maximum(of_label, 1e-300)), weights=rows.weight))


@dataclass(eq=False)
class Trial:
    """One choice of parameters, before and after its fits; fit_many asks it for `group` and `train`."""

    group: ClassVar[None] = None  # no other trial goes in step with it

    plan: Plan
    number: int
    params: Mapping[str, Any]
    seeds: Sequence[int]  # one per split
    estimators: list[Any] = field(default_factory=list)  # fitted, one per split
    outputs: list[np.ndarray] = field(default_factory=list)  # for the validation rows of each split
    scores: list[float] = field(default_factory=list)  # of each split
    key: tuple[float, float] = (-np.inf, -np.inf)  # of Plan.key, once the trial is finished
    seconds: list[float] = field(default_factory=list)  # of each fit
    status: str = "not begun"
    error: Exception | None = None

    @property
    def score(self) -> float:
        """Return the mean score of the splits; NaN unless the trial is finished."""
        return float(np.mean(self.scores)) if self.is_finished else np.nan

    @property
    def is_finished(self) -> bool:
        """Return whether all fits ended, and their scores are finite numbers."""
        return self.status in ("finished", "out of time")

    def train(self) -> None:
        """Fit and judge; an error of the first trial, which has the parameters as given, is raised."""
        if self.number and self.plan.deadline.left <= 0:
            return
        try:
            self._fit_all()
            self._judge()
        except KeyboardInterrupt:
            self.status = "interrupted"
        except Exception as error:
            self.status, self.error = "failed", error
            if not self.number:
                raise
        if not self.is_finished:
            self.forget()

    def forget(self) -> None:
        """Let the fitted estimators and their predictions go."""
        self.estimators, self.outputs = [], []

    def _fit_all(self) -> None:
        n_splits = len(self.plan.splits)
        for place in range(n_splits):
            limit = max(self.plan.deadline.left / (n_splits - place), _SHORTEST)
            begin = time.monotonic()
            self.estimators.append(self._fitted(place, limit))
            self.seconds.append(time.monotonic() - begin)
            interrupts.check()  # a fit that was stopped returns

    def _judge(self) -> None:
        plan = self.plan
        self.outputs = [
            plan.outputs_of(estimator, rows.X)
            for estimator, rows in zip(self.estimators, plan.validations, strict=True)
        ]
        if not all(np.isfinite(part).all() for part in self.outputs):
            raise ValueError("the predictions for the validation rows are not finite")
        self.scores = plan.scores(self.outputs)
        if not np.isfinite(self.scores).all():
            raise ValueError(f"the scores are not finite: {self.scores}")
        self.key = plan.key(self.outputs)
        self.status = "out of time" if plan.deadline.left <= 0 else "finished"

    def _fitted(self, place: int, limit: float) -> Any:
        """Return the estimator, fitted on the training rows of a split within a time limit."""
        plan, rows = self.plan, self.plan.splits[place].trained
        estimator = clone(plan.estimator).set_params(**clone(dict(self.params), safe=False))
        estimator.set_params(**_seeds(estimator, self.seeds[place]))
        more: dict[str, Any] = {} if rows.weight is None else {"sample_weight": rows.weight}
        if has_fit_parameter(estimator, "X_val") and not _is_lbfgs(estimator):
            more |= self._validation(place, rows)
        own = _callbacks(estimator, limit) | (_one_thread(estimator) if plan.one_thread_each else {})
        before = {name: estimator.get_params()[name] for name in own}
        estimator.set_params(**own).fit(rows.X, rows.y, **more)
        return estimator.set_params(**before)

    def _validation(self, place: int, training: Rows) -> dict[str, Any]:
        """Return the validation rows as arguments of fit, which knows the classes of its training rows alone."""
        rows = self.plan.validations[place]
        if self.plan.classes is not None and not (known := np.isin(rows.y, training.y)).all():
            if not known.any():
                return {}
            rows = rows.at(np.flatnonzero(known))
        return {"X_val": rows.X, "y_val": rows.y, "sample_weight_val": rows.weight}


def n_side_by_side(estimator: Any, n_trials: int, n_jobs: int | None) -> int:
    """Return how many trials run at the same time: as many as there may be threads, 1 if an engine takes them all."""
    return min(n_trials, threads.allowed(n_jobs)) if trains_side_by_side(estimator) else 1


def trains_side_by_side(estimator: Any) -> bool:
    """Return whether fits of this estimator may run on several threads: not if an engine takes the whole machine."""
    return all(backends.row_of(engine).side_by_side for engine in _engines(estimator))


def trains_at_once(estimator: Any) -> int:
    """Return how many fits of this estimator the engine trains in one call; 1 if it has no such call."""
    return min((many.n_at_once(engine, sys.maxsize) for engine in _engines(estimator)), default=1)


def _engines(estimator: Any) -> list[ModuleType]:
    """Return the engines that the networks of an estimator name."""
    return [backends.get(network.backend) for network in _networks(estimator).values()]


def _parameters(estimator: Any, name: str) -> dict[str, Any]:
    """Return the parameters with this name, of the estimator and of those within it."""
    return {path: value for path, value in estimator.get_params().items() if path.rpartition("__")[2] == name}


def _seeds(estimator: Any, seed: int) -> dict[str, int]:
    """Return the random states to set: those that nobody has set."""
    return {path: seed for path, value in _parameters(estimator, "random_state").items() if value is None}


def _one_thread(estimator: Any) -> dict[str, int]:
    return dict.fromkeys(_parameters(estimator, "n_jobs"), 1)


def _networks(estimator: Any) -> dict[str, Any]:
    """Return fastmlp's estimators by their paths with `__`; the estimator itself has the path ""."""
    found = {"": estimator, **estimator.get_params()}
    return {path: value for path, value in found.items() if isinstance(value, BaseNetwork)}


def _callbacks(estimator: Any, limit: float) -> dict[str, list[Any]]:
    """Return the callbacks of all networks with those of a search added; L-BFGS takes none."""
    ours: list[Any] = [TimeLimit(limit)] if np.isfinite(limit) else []
    return {
        f"{path}__callbacks".removeprefix("__"): [*(network.callbacks or ()), *ours]
        for path, network in _networks(estimator).items()
        if not _is_lbfgs(network)
    }


def _is_lbfgs(estimator: Any) -> bool:
    return isinstance(estimator, BaseNetwork) and choices.name_of(estimator.solver) == "lbfgs"
