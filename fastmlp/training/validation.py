"""Which rows are evaluated after each epoch, and which of these sets decides.

Rows of ``fit`` or a share of the training rows -> ``Rows``, a set each -> one forward pass per set and epoch -> its
loss and scores.  What is measured of a set is said in metrics.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.model_selection import train_test_split

from fastmlp.data import inputs
from fastmlp.data.targets import Objective
from fastmlp.data.warned import warn
from fastmlp.engines.backends import Data
from fastmlp.model import choices
from fastmlp.model.network import Network
from fastmlp.training import history, metrics
from fastmlp.training.given_sets import VALIDATION, warn_of_other_scale
from fastmlp.training.head import Head
from fastmlp.training.standardized import Scale

#: Name of the training rows as a set.
TRAIN = "train"

# --- sets of rows -----------------------------------------------------------------------------------------------------


class Rows:
    """A set of rows: its loss and its scores for given logits.

    `data` has rows and targets as the network has them, `y` the targets as the user has them; `rows` are those of both
    that belong to the set, all if left out.  `where` says in errors which rows these are.
    """

    def __init__(self, evaluation: Evaluation, name: str, data: Data, y: np.ndarray, rows: Any, where: str) -> None:
        self._evaluation, self.name, self._where = evaluation, name, where
        self._all, self._all_y = data, y
        self._head = Head(evaluation.engine, evaluation.network)
        self._undefined: set[str] = set()  # metrics of which a warning has said that they are NaN
        self.select(rows)

    def select(self, rows: np.ndarray | None) -> None:
        """Take these rows from now on."""
        X, y, weight = self._all
        self.rows, self.X = rows, X
        self.y = self._all_y if rows is None else self._all_y[rows]
        self.weight = None if weight is None else weight if rows is None else weight[rows]
        self._targets = targets = y if rows is None else y[rows]
        self.shape = len(targets), self._evaluation.network.widths[-1]  # of the logits
        self.standardize()
        estimator, names = self._evaluation.estimator, self._evaluation.metrics
        data = Data(X, targets, self.weight)
        self._scores = metrics.scores_on(estimator, names, data, self.y, rows, self._described())

    def standardize(self) -> None:
        """Take the units of the training for the loss, which is the training's; scores are in the units of y."""
        targets, network, scale = self._targets, self._evaluation.network, self._evaluation.scale
        if scale is not None:
            targets = scale.targets(targets, network.dtype)
        elif targets.dtype.kind == "f":
            targets = targets.astype(network.dtype, copy=False)
        self._head.select(targets, self.weight)

    def __len__(self) -> int:
        return self.shape[0]

    def outputs(self, logits: np.ndarray) -> np.ndarray:
        """Return the predictions (n, n_outputs) of logits, in the units of the training."""
        return self._head.outputs(logits)

    def __call__(self, logits: np.ndarray, outputs: np.ndarray | None = None) -> dict[str, float]:
        """Return "loss" (without penalty) and the scores by name; of these outputs, if they are known."""
        head = self._head
        if outputs is None:
            outputs = head.outputs(logits)
        measured = {"loss": head.loss(logits)}
        if self._evaluation.scale is not None:
            outputs = self._evaluation.scale.outputs(outputs)
        for name, score in self._scores.items():
            measured[name] = score(outputs)
        if math.isnan(sum(measured.values())) and _are_moderate(logits) and _are_moderate(outputs):
            self._judge(measured)
        return measured

    def check(self) -> None:
        """Raise or warn before training if a metric is NaN for these targets, whatever the outputs are."""
        evaluation, targets = self._evaluation, self._all.y if self.rows is None else self._all.y[self.rows]
        logits = np.zeros(self.shape, evaluation.network.dtype)
        with np.errstate(over="ignore"):
            if not evaluation.estimator._numeric_targets:  # predictions without a fault: no class is missing in them
                logits += targets * 2 - 1 if targets.ndim == 2 else targets[:, None] == np.arange(logits.shape[1])
            elif evaluation.link == "identity":
                logits += targets.mean(axis=0)
        outputs = self._head.outputs(logits)
        loss_is_formula = choices.is_formula(evaluation.network.loss)  # which may be NaN for these outputs only
        measured = {"loss": 0.0 if loss_is_formula else self._head.loss(logits)}
        fitted = {"n_outputs_": logits.shape[1], "out_activation_": evaluation.link}
        for name, score in self._scores.items():
            measured[name] = metrics.score_before_training(score, outputs, **fitted)
        self._judge(measured)
        for name in self._undefined - {"loss"}:
            self._scores[name] = metrics.undefined

    def _judge(self, measured: Mapping[str, float]) -> None:
        """Raise an error if the metric that decides is NaN; warn once if another one is."""
        evaluation = self._evaluation
        decides = evaluation.metric_that_decides(self)
        for name in (name for name, value in measured.items() if value != value and name not in self._undefined):
            why = metrics.why_undefined(name, self.y, self.weight, evaluation.network.loss)
            text = f"{'the loss' if name == 'loss' else f'the metric {name!r}'} is NaN for {self._described()}"
            text += f": {why}" if why else ""
            if name == decides:
                raise ValueError(
                    f"{text}. So no epoch is the best: give rows for which it is defined (X_val, y_val), or choose"
                    " another monitor"
                )
            self._undefined.add(name)
            warn(text, UndefinedMetricWarning)

    def _described(self) -> str:
        return f"the {len(self)} row{'s' * (len(self) != 1)} {self._where}"


def _are_moderate(numbers: np.ndarray) -> bool:
    """Return whether numbers are finite, and their squares too.

    Otherwise training diverges, so a metric may be NaN for any targets.  It goes on then, as in scikit-learn.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.square(numbers).sum()))


def _log(outputs: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(outputs, np.finfo(outputs.dtype).tiny, out=outputs), out=outputs)


#: Link -> the logits of predictions, which are overwritten.
UNLINKED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": _log,
    "exp": _log,
    "logistic": lambda outputs: _log(outputs.copy()) - _log(1 - outputs),
    "identity": lambda outputs: outputs,
}


class Split(NamedTuple):
    """Rows to train on, rows to validate on, and what the latter are called in errors."""

    rows: np.ndarray
    held_out: np.ndarray
    where: str


class Evaluation:
    """All sets that are evaluated after each epoch.

    One forward pass of a set, to the logits, serves its loss and all its scores.  Batch normalisation is folded,
    dropout is off.  The estimator in training is read for ``monitor`` and its way to score.
    """

    def __init__(self, estimator: Any, engine: ModuleType, network: Network, link: str) -> None:
        self.estimator, self.engine, self.network, self.link = estimator, engine, network, link
        self.metrics = metrics.metrics_of(estimator.monitor)
        self.first_score = next(iter(metrics.scores_of(self.metrics)))
        self.sets: dict[str, Rows] = {}
        #: The set that decides which epoch is best, and when to stop; None: there are no validation rows.
        self.deciding: Rows | None = None
        #: Units of the training; None: those of y.
        self.scale: Scale | None = None
        #: Makes what all networks in step come to of this network's outputs by set (in_step.py); None: it is alone.
        self.together: Callable[[dict[str, np.ndarray]], dict[str, dict[str, float]]] | None = None
        #: Columns of the history besides those that each history has, since it was written last.
        self.columns: dict[str, list[float]] = {}
        # squared_error has the identity as its link: "predictions" of this network are logits, but members agree on
        # the mean of their predictions, not of their logits
        self._unlinked = UNLINKED[link] if network.members > 1 else None
        self._to_logits = network.plain if self._unlinked else replace(network.plain, loss="squared_error")
        self._workspace: Any = None

    # --- which sets there are -------------------------------------------------------------------------------------

    def add(
        self, name: str, data: Data, y: np.ndarray, rows: np.ndarray | None, where: str, decides: bool = False
    ) -> None:
        """Add a set, and refuse metrics that it cannot have."""
        self.sets[name] = added = Rows(self, name, data, y, rows, where)
        if decides:
            self.deciding = added
        added.check()
        self._workspace = None
        self._name_columns()

    def copy_for(self, estimator: Any) -> Evaluation:
        """Return the evaluation of another estimator on the same sets."""
        made = Evaluation(estimator, self.engine, self.network, self.link)
        for name, rows in self.sets.items():
            made.add(name, rows._all, rows._all_y, rows.rows, rows._where, decides=rows is self.deciding)
        return made

    def _name_columns(self) -> None:
        """Give further sets and metrics their columns of the history; a ValueError refuses two of one name."""
        self._further: dict[tuple[str, str], str] = {}
        for name, rows in self.sets.items():
            for metric in ("loss", *metrics.scores_of(self.metrics)):
                decides, is_first = rows is self.deciding, metric == self.first_score
                column = history.column_of(name, metric, is_first, decides)
                if decides and (is_first or metric == "loss"):
                    continue  # columns of each history
                if column in history.COLUMNS or column in self._further.values():
                    raise ValueError(
                        f"history_ would have two columns {column!r}: give the sets of eval_set other names"
                    )
                self._further[name, metric] = column

    def metric_that_decides(self, rows: Rows) -> str | None:
        """Return the metric on this set whose values decide something; None if they are only recorded."""
        estimator = self.estimator
        by_schedule = choices.name_of(estimator.learning_rate) == "plateau"
        if rows is not self.deciding or not (estimator.early_stopping or estimator.restore_best or by_schedule):
            return None
        return "loss" if metrics.decisive(estimator.monitor) == "loss" else self.first_score

    def split(self, data: Data, y: np.ndarray, random_state: np.random.RandomState) -> Split | None:
        """Return the split of early stopping without rows of its own; None if there is none."""
        estimator = self.estimator
        if self.deciding is not None or not estimator.early_stopping:
            return None
        stratify = estimator._stratify(y)
        rows, held_out = validation_split(data.X.shape[0], estimator.validation_fraction, random_state, stratify)
        return Split(rows, held_out, "held out by early stopping")

    def train_and_held_out(self, data: Data, y: np.ndarray, split: Split | None) -> np.ndarray | None:
        """Return the rows to train on (None: all), after those that a split holds out are a set that decides."""
        estimator, rows = self.estimator, None
        if split is not None:
            rows, held_out, where = split
            if data.sample_weight is not None and data.sample_weight[held_out].sum() == 0:
                error = ValueError("Sample weights must contain at least one non-zero number.")  # scikit-learn's words
                error.add_note(f"The {len(held_out)} rows {where} have weights that add up to 0.")
                raise error
            self.add(VALIDATION, data, y, held_out, where, decides=True)
        if estimator.train_score:
            if TRAIN in self.sets:
                raise ValueError(f"{TRAIN!r} is the name of train_score's rows: give the set of eval_set another name")
            self.add(TRAIN, data, y, None if rows is None else np.sort(rows), "to train on")
        return rows

    def select(self, order: np.ndarray, held_out: np.ndarray) -> None:
        """Take over the split of a training that goes on."""
        if self.deciding is not None:
            self.deciding.select(held_out)
        if TRAIN in self.sets:
            self.sets[TRAIN].select(np.sort(order))

    def standardize(self, scale: Scale) -> None:
        """Evaluate a network in training whose targets are in these units."""
        self.scale = scale
        for rows in self.sets.values():
            rows.standardize()

    # --- after an epoch -------------------------------------------------------------------------------------------

    def __call__(self, params: np.ndarray) -> tuple[float, float] | None:
        """Evaluate all sets and record what they came to.

        Returns the loss (without penalty) and the first score of the set that decides, if there is one.
        """
        if self._workspace is None:
            n = max(map(len, self.sets.values()))
            self._workspace = self.engine.workspace(self._to_logits, n, self.estimator.n_jobs)
        weights = self.network.folded(params)[1] if self.network.folds else params
        if self.together is None:
            measured = {name: rows(self._logits(rows, weights)) for name, rows in self.sets.items()}
        else:
            sets = self.sets.items()
            measured = self.together({name: rows.outputs(self._logits(rows, weights)) for name, rows in sets})
        self._record(measured)
        if self.deciding is None:
            return None
        deciding = measured[self.deciding.name]
        return deciding["loss"], deciding[self.first_score]

    def _record(self, measured: Mapping[str, Mapping[str, float]]) -> None:
        results, further = self.estimator.__dict__.setdefault("evals_result_", {}), self._further
        for name, values in measured.items():
            curves = results.setdefault(name, {})
            for metric, value in values.items():
                curves.setdefault(metric, []).append(value)
                if further and (column := further.get((name, metric))) is not None:
                    self.columns.setdefault(column, []).append(value)

    def _logits(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        # new in each epoch: an engine may know arrays that come again by their identity
        logits = np.empty(rows.shape, self.network.dtype)
        self.engine.predict(self._workspace, weights, rows.X, logits, rows.rows)
        return logits if self._unlinked is None else self._unlinked(logits)


def evaluation_of(
    estimator: Any,
    engine: ModuleType,
    network: Network,
    objective: Objective,
    y: np.ndarray,
    given: Mapping[str, tuple[Any, Any, Any]],
) -> Evaluation | None:
    """Return what is evaluated after each epoch, with the sets that were `given` to fit; None if there is nothing."""
    if not (given or estimator.early_stopping or estimator.train_score):
        return None
    evaluation = Evaluation(estimator, engine, network, objective.link)
    for i, (name, entry) in enumerate(given.items(), 1):
        label = "validation data" if name == VALIDATION else f"validation data {name!r}"
        data, y_val = inputs.validation_rows(estimator, entry, y, network, objective, label)
        if estimator._numeric_targets:
            warn_of_other_scale(y, y_val, label)
        where = "of X_val" if name == VALIDATION else f"of eval_set's {name!r}"
        evaluation.add(name, data, y_val, None, where, decides=i == len(given))
    return evaluation


def validation_split(
    n_samples: int, fraction: float, rng: np.random.RandomState, stratify: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (train, validation) row indices, at least two of the latter: scikit-learn's split, without copies."""
    train, validation = train_test_split(
        np.arange(n_samples, dtype=np.intp), random_state=rng, test_size=fraction, stratify=stratify
    )
    if len(validation) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return train, validation
