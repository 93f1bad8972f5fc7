"""Several networks as one estimator: ``n_ens`` on the same rows, ``n_cv`` folds of cross-validation, or both.

base.py prepares data, network and engine once.  Then::

    seeds, splits -> members -> fit_many: an estimator and a Task each, on threads -> out-of-fold predictions

A member is what ``fit`` of the same class with ``n_ens=1`` would have left, so every tool works on it.  All members
share X and y; a split is a list of row numbers.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import KFold, StratifiedKFold

from fastmlp.data import warned
from fastmlp.data.targets import Objective
from fastmlp.engines.backends import Data
from fastmlp.estimator.prediction import Prediction
from fastmlp.model import choices
from fastmlp.model.network import Network
from fastmlp.model.stages import UNIT_ATTRIBUTES
from fastmlp.training.attributes import ATTRIBUTES
from fastmlp.training.callbacks import Checkpoint, EpochInfo, watching
from fastmlp.training.in_step import Group
from fastmlp.training.many import Task, fit_many, n_at_once, n_side_by_side
from fastmlp.training.validation import Evaluation, Split

#: Attributes of one training or one network: an ensemble has none of them, its members do.
OF_MEMBERS = frozenset(
    {
        *("coefs_", "intercepts_", "stopped_by_", *UNIT_ATTRIBUTES.values()),
        *(name for name, row in ATTRIBUTES.items() if row.trained and name != "n_iter_"),
    }
)

#: Attributes of a training that the networks of a group have in common, but for their losses.
OF_GROUPS = (
    "history_",
    "validation_scores_",
    "validation_loss_curve_",
    "best_validation_score_",
    "evals_result_",
    "stopped_by_",
)

#: Attributes of ensembles alone.
OF_ENSEMBLES = ("estimators_", "oof_predict_proba_", "oof_decision_function_", "oof_prediction_", "oof_score_")

#: What the members share with the ensemble: it follows from the data.
_SHARED = ("n_features_in_", "feature_names_in_", "classes_", "_label_binarizer")


@dataclass(frozen=True)
class Prepared:
    """What ``fit`` has found out before the first weights are drawn."""

    engine: ModuleType
    network: Network
    objective: Objective
    data: Data
    y: np.ndarray  # as users see it
    evaluation: Evaluation | None
    callbacks: Sequence[Callable[[Any], Any]]


def size(estimator: Any) -> int:
    """Return how many networks a fit trains; 1 also for values that no fit takes."""
    factors = estimator.n_ens, estimator.n_cv
    return math.prod(map(int, factors)) if all(isinstance(factor, Integral) for factor in factors) else 1


def is_ensemble(estimator: Any) -> bool:
    """Return whether an estimator was fitted as an ensemble."""
    return "estimators_" in vars(estimator)


def no_such_attribute(estimator: Any, name: str) -> str:
    """Return the text of the error for an attribute that only members have."""
    n = len(estimator.estimators_)
    return f"an ensemble has no {name}; each of its {n} networks has: estimators_[i].{name}"


def forget(estimator: Any, names: Any = OF_ENSEMBLES) -> None:
    """Remove the attributes of a fit of the other kind."""
    for name in names:
        vars(estimator).pop(name, None)


def check(estimator: Any, has_validation: bool, start: Any, resume_from: Any, communicator: Any = None) -> None:
    """Refuse what makes no sense with several networks; the ValueError names the parameter and the reason."""
    name = "n_cv" if estimator.n_cv > 1 else "n_ens"
    asked = f"{name}={getattr(estimator, name)}"
    refused = {
        "warm_start=True": (estimator.warm_start, "each fit draws new networks; fit one of estimators_ further"),
        "coef_init or intercept_init": (bool(start), "all networks would start from the same weights"),
        "resume_from": (resume_from is not None, "a checkpoint holds one training"),
        "communicator": (communicator is not None, "several networks train side by side, not over several processes"),
        "a Checkpoint": (_has_checkpoint(estimator), "its file holds one training"),
        "validation data (X_val or eval_set)": (
            has_validation and estimator.n_cv > 1,
            "the rows of each fold are its validation data",
        ),
    }
    for what, (is_given, why) in refused.items():
        if is_given:
            raise ValueError(f"{what} makes no sense with {asked}: {why}")
    if estimator.n_ens > 1 and estimator.ens_stopping == "ensemble" and not estimator.early_stopping:
        raise ValueError(
            "ens_stopping='ensemble' needs early_stopping=True: the mean of the networks is judged on validation rows"
        )


def trains_in_step(estimator: Any) -> bool:
    """Return whether the networks of a split are to stop, and to have their best epoch, together."""
    return bool(estimator.n_ens > 1 and estimator.ens_stopping == "ensemble" and estimator.early_stopping)


def _has_checkpoint(estimator: Any) -> bool:
    return any(isinstance(callback, Checkpoint) for callback in estimator.callbacks or ())


# --- fit --------------------------------------------------------------------------------------------------------------


def fit(estimator: Any, prepared: Prepared, random_state: np.random.RandomState) -> None:
    """Train all networks side by side and give the estimator what an ensemble has."""
    forget(estimator, (*OF_ENSEMBLES, *OF_MEMBERS, "n_iter_", "_training"))
    network = prepared.network
    estimator.out_activation_, estimator.n_layers_ = prepared.objective.link, network.n_layers + 1
    estimator.n_outputs_ = network.widths[-1]
    seeds = draw_seeds(estimator, random_state)
    heard: list[warned.Warned] = []
    try:
        with warned.kept(heard):  # what is wrong with the data is so for every member
            splits = _splits(estimator, prepared, random_state)
            of_member = [split for split in splits for _ in range(estimator.n_ens)]
            members = [
                Member(partial(_task, estimator, prepared, *args)) for args in zip(seeds, of_member, strict=True)
            ]
            if callable(estimator.init):  # a user's function need not be one for several threads
                for member in members:
                    member.made()
            train(estimator, members, prepared.y, splits, prepared.callbacks)
    finally:
        warned.warn_once_each(heard)


@dataclass(eq=False)
class Member:
    """One of the networks, for fit_many.

    Its first weights are drawn in its thread, beside the training of others: they depend on its own seed alone.
    """

    make: Callable[[], Task] | None = None
    task: Task | None = None
    settle: Callable[[Task], None] = lambda task: None  # what is to be done with the task before it trains

    @property
    def group(self) -> Group | None:
        """Return the networks in step, whose tasks are made before the first one begins."""
        return None if self.task is None else self.task.group

    @property
    def is_trained(self) -> bool:
        """Return whether there was an epoch."""
        return self.task is not None and self.task.estimator.n_iter_ > 0

    def made(self) -> Task:
        """Return the task."""
        if self.task is None:
            assert self.make is not None
            self.task = self.make()
        return self.task

    def train(self) -> None:
        """Train the network."""
        task = self.made()
        self.settle(task)
        task.train()


def draw_seeds(estimator: Any, random_state: np.random.RandomState) -> list[int]:
    """Return the seed of each network."""
    seeds: list[int] = random_state.randint(np.iinfo(np.int32).max, size=size(estimator)).tolist()
    return seeds


def train(
    estimator: Any,
    members: Sequence[Member],
    y: np.ndarray,
    splits: Sequence[Split | None],
    callbacks: Sequence[Callable[[Any], Any]],
) -> None:
    """Train networks that are ready to begin, `n_ens` for each split, and give the estimator what they come to.

    `y` are the targets of all rows, as users see them.
    """
    first = members[0].made()
    n_threads = n_side_by_side(first.engine, first.network, len(members), estimator.n_jobs)
    while_training = {"verbose": False, "n_jobs": 1 if n_threads > 1 else estimator.n_jobs}
    in_step = trains_in_step(estimator) and first.evaluation is not None and first.evaluation.deciding is not None
    if in_step:
        _put_in_step([member.made() for member in members], estimator.n_ens)
    with _sharing(callbacks, estimator) as callbacks_of:

        def settle(task: Task, number: int) -> None:
            task.callbacks, task.number = callbacks_of(task), number
            vars(task.estimator).update(while_training)

        for i, member in enumerate(members):
            member.settle = partial(settle, number=i)
        on_end = _reporter(members) if estimator.verbose else None
        fit_many(members, n_threads, on_end, n_at_once(first.engine, len(members)))
    _keep(estimator, members, {name: getattr(estimator, name) for name in while_training})
    if first.group is not None and estimator.n_cv == 1:
        _take_history(estimator)
    if estimator.n_cv > 1:
        n_ens = estimator.n_ens
        folds = [members[i : i + n_ens] for i in range(0, len(members), n_ens)]
        trained = [[member.made() for member in fold if member.is_trained] for fold in folds]
        _keep_out_of_fold(estimator, y, splits, trained)


def _keep(estimator: Any, members: Sequence[Member], settings: Mapping[str, Any]) -> None:
    """Give an ensemble its trained networks, with the `settings` that a user gave."""
    # Ctrl-C may have come before a network was trained at all
    trained = [member for member in members if member.is_trained] or members[:1]
    if len(trained) < len(members):
        warned.warn(f"{len(trained)} of {len(members)} networks were trained, the ensemble leaves out the others")
    estimator.estimators_ = [member.made().estimator for member in trained]
    for network in estimator.estimators_:
        vars(network).update(settings)
    estimator.n_iter_ = max(network.n_iter_ for network in estimator.estimators_)
    estimator._idle_predictions = []


def _put_in_step(tasks: Sequence[Task], n_ens: int) -> None:
    """Make a group of the networks of each split."""
    for i in range(0, len(tasks), n_ens):
        members = tasks[i : i + n_ens]
        group = Group([task.evaluation for task in members if task.evaluation is not None])
        for task in members:
            task.group = group


def _take_history(estimator: Any) -> None:
    """Give an ensemble in step the history of its networks' mean, which each of them has; losses are the mean."""
    first, losses = estimator.estimators_[0], [member.history_["loss"] for member in estimator.estimators_]
    for name in OF_GROUPS:
        if hasattr(first, name):
            setattr(estimator, name, copy.deepcopy(getattr(first, name)))
    estimator.history_["loss"] = [math.fsum(epoch) / len(epoch) for epoch in zip(*losses, strict=True)]


def _splits(estimator: Any, prepared: Prepared, random_state: np.random.RandomState) -> list[Split | None]:
    """Return the split of each fold; without folds the one of early stopping, None if there is none."""
    if estimator.n_cv > 1:
        return list(folds_of(estimator, prepared.y, random_state))
    evaluation = prepared.evaluation
    return [None if evaluation is None else evaluation.split(prepared.data, prepared.y, random_state)]


def folds_of(estimator: Any, y: np.ndarray, random_state: np.random.RandomState) -> list[Split]:
    """Return the splits of cross-validation, stratified by class; a ValueError says that there are too few rows."""
    n_folds, n = estimator.n_cv, len(y)
    if n_folds > n:
        raise ValueError(f"n_cv={n_folds} must be at most the number of rows, n_samples={n}")
    stratified = is_classifier(estimator) and y.ndim == 1
    seed = random_state.randint(np.iinfo(np.int32).max)
    kind = StratifiedKFold if stratified else KFold
    folding = kind(n_folds, shuffle=True, random_state=seed)
    folds: list[Any] = warned.of_library(list, folding.split(np.empty((n, 0)), y if stratified else None))
    return [Split(rows, held_out, f"of fold {i} of {n_folds}") for i, (rows, held_out) in enumerate(folds, 1)]


def _task(estimator: Any, prepared: Prepared, seed: int, split: Split | None) -> Task:
    """Return the training of a new member, which has its first weights."""
    own = {"n_ens": 1, "n_cv": 1, "random_state": seed, "callbacks": None}
    member = type(estimator)(**estimator.get_params(deep=False) | own)
    vars(member).update({name: vars(estimator)[name] for name in _SHARED if name in vars(estimator)})
    random_state = np.random.RandomState(seed)
    member._begin(prepared.network, prepared.objective, random_state)
    task: Task = member._ready(prepared.engine, prepared.network, prepared.data, random_state)
    if choices.name_of(estimator.solver) == "lbfgs":
        task.rows = None if split is None else split.rows
        return task
    evaluation = prepared.evaluation
    if evaluation is not None:
        task.evaluation = evaluation.copy_for(member)
    elif split is not None:
        task.evaluation = Evaluation(member, prepared.engine, prepared.network, prepared.objective.link)
    if task.evaluation is not None:
        task.rows = task.evaluation.train_and_held_out(prepared.data, prepared.y, split)
    return task


def _reporter(members: Sequence[Member]) -> Callable[[Member], None]:
    """Return what prints a line for each network that has ended."""

    def report(member: Member) -> None:
        number, network = members.index(member) + 1, member.made().estimator
        if member.is_trained:  # not, if a user interrupted the first epoch
            print(f"Network {number} of {len(members)}: {network.n_iter_} iterations, loss = {network.loss_:.8f}")

    return report


# --- callbacks --------------------------------------------------------------------------------------------------------


class _Shared:
    """A callback that several trainings call, one at a time; `stopped` says which one has stopped which network."""

    def __init__(self, callback: Callable[[EpochInfo], Any], lock: Any, stopped: dict[int, Any]) -> None:
        self.func, self._lock, self._stopped = callback, lock, stopped  # func: callbacks.name_of looks there
        self.reads_weights = getattr(callback, "reads_weights", True)
        self.after_others = getattr(callback, "after_others", False)
        self.every_steps = getattr(callback, "every_steps", 0)

    def on_run_begin(self, run: Any) -> None:
        if hasattr(self.func, "on_run_begin"):
            with self._lock:
                self.func.on_run_begin(run)

    def on_step(self, run: Any, loss: float) -> None:
        with self._lock:
            self.func.on_step(run, loss)  # type: ignore[attr-defined] # which asks for steps

    def __call__(self, info: EpochInfo) -> Any:
        with self._lock:
            wish = self.func(info)
            if isinstance(wish, bool | np.bool_) and wish:
                self._stopped.setdefault(id(info.estimator), self.func)
            return wish


class _OfOthers:
    """The last callback of a network in step: stop it with the others, if a callback has stopped one of them."""

    reads_weights, after_others = False, True

    def __init__(self, task: Task, stopped: Mapping[int, Any]) -> None:
        self._task, self._stopped = task, stopped

    def __call__(self, info: EpochInfo) -> bool:
        group, evaluation, own = self._task.group, self._task.evaluation, self._stopped.get(id(info.estimator))
        assert group is not None and evaluation is not None
        self.func = group.meet(evaluation, own, _first_of)  # callbacks.name_of looks there
        return own is None and self.func is not None


def _first_of(callbacks: Sequence[Any]) -> Any:
    return next((callback for callback in callbacks if callback is not None), None)


@contextmanager
def _sharing(
    callbacks: Sequence[Callable[[Any], Any]], estimator: Any
) -> Iterator[Callable[[Task], list[Callable[[EpochInfo], Any]]]]:
    """Begin the callbacks with the ensemble, yield what says those of each member, end them with the ensemble."""
    lock, stopped = threading.Lock(), dict[int, Any]()
    shared = [_Shared(callback, lock, stopped) for callback in callbacks]
    with watching(callbacks, estimator):
        yield lambda task: [*shared, _OfOthers(task, stopped)] if shared and task.group is not None else [*shared]


# --- out of fold ------------------------------------------------------------------------------------------------------


def _keep_out_of_fold(
    estimator: Any, y: np.ndarray, splits: Sequence[Split | None], folds: Sequence[Sequence[Task]]
) -> None:
    """Give the estimator its out-of-fold predictions and their score; NaN for folds without a trained network."""
    data, member = next((task.data, task.estimator) for fold in folds for task in fold)
    outputs = np.full((len(y), member.n_outputs_), np.nan, member.coefs_[0].dtype)
    for split, tasks in zip(splits, folds, strict=True):
        if split is not None and tasks:
            found = [_of_rows(task.estimator, task.data.X, split.held_out) for task in tasks]
            outputs[split.held_out] = sum(found) / len(found)
    estimator._keep_out_of_fold(outputs)
    known = ~np.isnan(outputs).any(axis=1)
    weight = None if data.sample_weight is None else data.sample_weight[known]
    estimator.oof_score_ = estimator._score(y[known], data.y[known], weight)(outputs[known])


def _of_rows(member: Any, X: Any, rows: np.ndarray) -> np.ndarray:
    """Return the outputs (n_rows, n_outputs) of a network for some rows of X, which are not copied."""
    prediction = Prediction(member)
    out = np.empty((len(rows), prediction.n_outputs), prediction.dtype)
    workspace = prediction.engine.workspace(prediction.network, len(rows), member.n_jobs)
    prediction.engine.predict(workspace, prediction.params(member), X, out, rows)
    return out
