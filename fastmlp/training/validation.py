"""Which rows are evaluated after each epoch, and which of these sets decides.

Rows of ``fit`` or a share of the training rows -> ``Rows``, a set each -> one forward pass per set and epoch -> its loss
and scores.  What is measured of a set is said in metrics.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.model_selection import train_test_split

from fastmlp.data import inputs
from fastmlp.data.targets import Objective
from fastmlp.engines.backends import Data
from fastmlp.model import choices
from fastmlp.model.network import Network
from fastmlp.training import history, metrics
from fastmlp.training.head import Head

#: Name of the training rows as a set, and of validation rows that are given as X_val or held out.
TRAIN, VALIDATION = "train", "validation"

# --- rows as users give them ------------------------------------------------------------------------------------------


def given_validation(
    X_val: Any, y_val: Any, sample_weight_val: Any, eval_set: Any
) -> dict[str, tuple[Any, Any, Any]]:
    """Return the sets of a call of fit: name -> (X, y, sample_weight); the last one decides.

    A ValueError says what is missing or given twice.
    """
    sets = {} if eval_set is None else _sets_of(eval_set)
    if X_val is None and y_val is None:
        if sample_weight_val is None:
            return sets
        if len(sets) != 1:
            raise ValueError(
                "sample_weight_val is given without X_val and y_val; with several sets give weights as the third entry"
                " of each: eval_set=[(X, y, weight), ...]"
            )
        ((name, (X, y, weight)),) = sets.items()
        if weight is not None:
            raise ValueError("weights are given twice, as sample_weight_val and in eval_set: give one of them")
        return {name: (X, y, sample_weight_val)}
    if X_val is None or y_val is None:
        given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
        raise ValueError(f"{given} is given without {missing}")
    if VALIDATION in sets:
        raise ValueError(f"{VALIDATION!r} is the name of X_val and y_val; give the set of eval_set another name")
    return sets | {VALIDATION: (X_val, y_val, sample_weight_val)}


def _sets_of(eval_set: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Return the sets of `eval_set` by name."""
    if isinstance(eval_set, Mapping):
        named = dict(eval_set)
    elif _is_pair(eval_set):
        named = {"validation_0": eval_set}
    elif isinstance(eval_set, list | tuple):
        named = {f"validation_{i}": pair for i, pair in enumerate(eval_set)}
    else:
        named = {}
    if not named or not all(isinstance(name, str) and name and _is_pair(pair) for name, pair in named.items()):
        raise ValueError(
            "eval_set must be one pair (X, y), a list of pairs, [(X, y), ...], or a dict of name to pair; a third entry"
            f" of a pair is its sample weights; got {type(eval_set).__name__}"
        )
    return {name: (*pair, None)[:3] for name, pair in named.items()}


def _is_pair(value: Any) -> bool:
    """Return whether a value is (X, y) or (X, y, sample_weight): a sequence that begins with rows."""
    return isinstance(value, list | tuple) and len(value) in (2, 3) and _n_dims(value[0]) == 2


def _n_dims(value: Any) -> int:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return len(shape)
    return 1 + _n_dims(value[0]) if isinstance(value, list | tuple) and len(value) else 0


def warn_of_other_scale(y: np.ndarray, y_val: np.ndarray, name: str) -> None:
    """Warn if targets of regression lie so far from those of training that they must be on another scale.

    So far are ten ranges of y, or three standard deviations if y was standardised: mean 0 and variance 1 up to
    rounding.  A meta-estimator that transforms y leaves y_val as it is.
    """
    y, y_val = (values.reshape(len(values), -1).astype(np.float64) for values in (y, y_val))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = y.mean(axis=0), y.std(axis=0)
        is_standard = (np.abs(mean) < 1e-6) & (np.abs(deviation - 1) < 1e-6)
        far = np.where(is_standard, 3 * deviation, 10 * np.ptp(y, axis=0))
        middle = np.median(y_val, axis=0)
        wrong = (far > 0) & (np.abs(middle - mean) > far)
    if wrong.any():
        column = int(np.argmax(wrong))
        warnings.warn(
            f"the targets of {name} seem to be on another scale than y: their median is {middle[column]:g}, y has the"
            f" mean {mean[column]:g} and standard deviation {deviation[column]:g}. Meta-estimators such as"
            " TransformedTargetRegressor transform y alone: give the validation targets transformed, too",
            stacklevel=4,
        )


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
        targets = y if rows is None else y[rows]
        self._n = len(targets)
        self._head.select(targets, self.weight)
        estimator, names = self._evaluation.estimator, self._evaluation.metrics
        self._scores = metrics.scores_on(estimator, names, Data(X, targets, self.weight), self.y, rows)

    def __len__(self) -> int:
        return self._n

    def __call__(self, logits: np.ndarray) -> dict[str, float]:
        """Return "loss" (without penalty) and the scores by name."""
        outputs = self._head.outputs(logits)
        measured = {"loss": self._head.loss(logits)}
        for name, score in self._scores.items():
            measured[name] = score(outputs)
        if any(value != value for value in measured.values()) and _are_moderate(logits) and _are_moderate(outputs):
            self._judge(measured)
        return measured

    def check(self) -> None:
        """Raise or warn before training if a metric is NaN for these targets, whatever the outputs are."""
        evaluation, targets = self._evaluation, self._all.y if self.rows is None else self._all.y[self.rows]
        logits = np.zeros((len(self), evaluation.network.widths[-1]), evaluation.network.dtype)
        if evaluation.link == "identity" and evaluation.estimator._numeric_targets:
            with np.errstate(over="ignore"):
                logits += targets.mean(axis=0)
        outputs = self._head.outputs(logits)
        loss_is_formula = choices.is_formula(evaluation.network.loss)  # which may be NaN for these outputs only
        measured = {"loss": 0.0 if loss_is_formula else self._head.loss(logits)}
        fitted = {"n_outputs_": logits.shape[1], "out_activation_": evaluation.link}
        for name, score in self._scores.items():
            measured[name] = metrics.score_before_training(score, outputs, self._described(), **fitted)
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
            warnings.warn(text, UndefinedMetricWarning, stacklevel=2)

    def _described(self) -> str:
        return f"the {len(self)} row{'s' * (len(self) != 1)} {self._where}"


def _are_moderate(numbers: np.ndarray) -> bool:
    """Return whether numbers are finite, and their squares too.

    Otherwise training diverges, so a metric may be NaN for any targets.  It goes on then, as in scikit-learn.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.square(numbers).sum()))


class Evaluation:
    """All sets that are evaluated after each epoch.

    One forward pass of a set, to the logits, serves its loss and all its scores.  Batch normalisation is folded, dropout
    is off.  The estimator in training is read for ``monitor`` and its way to score.
    """

    def __init__(self, estimator: Any, engine: ModuleType, network: Network, objective: Objective) -> None:
        self.estimator, self.engine, self.network, self.link = estimator, engine, network, objective.link
        self.metrics = metrics.metrics_of(estimator.monitor)
        self.first_score = next(iter(metrics.scores_of(self.metrics)))
        self.sets: dict[str, Rows] = {}
        #: The set that decides which epoch is best, and when to stop; None: there are no validation rows.
        self.deciding: Rows | None = None
        #: Columns of the history besides those that each history has, since it was written last.
        self.columns: dict[str, list[float]] = {}
        # squared_error has the identity as its link: "predictions" of this network are logits
        self._to_logits = replace(network.plain, loss="squared_error")
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
        names = [self._column(s, metric) for s in self.sets.values() for metric in ("loss", *self._score_names)]
        twice = {name for name in names if names.count(name) > 1 or name in set(history.COLUMNS) - self._main}
        if twice:
            raise ValueError(f"history_ would have two columns {min(twice)!r}: give the sets of eval_set other names")

    @property
    def _score_names(self) -> list[str]:
        return list(metrics.scores_of(self.metrics))

    @property
    def _main(self) -> set[str]:
        """Return the columns of each history that the deciding set fills."""
        return set() if self.deciding is None else {"validation_loss", "score"}

    def _column(self, rows: Rows, metric: str) -> str:
        return history.column_of(rows.name, metric, metric == self.first_score, rows is self.deciding)

    def metric_that_decides(self, rows: Rows) -> str | None:
        """Return the metric on this set whose values decide something; None if they are only recorded."""
        estimator = self.estimator
        by_schedule = choices.name_of(estimator.learning_rate) == "plateau"
        if rows is not self.deciding or not (estimator.early_stopping or estimator.restore_best or by_schedule):
            return None
        return "loss" if metrics.decisive(estimator.monitor) == "loss" else self.first_score

    def train_and_held_out(
        self, data: Data, y: np.ndarray, random_state: np.random.RandomState
    ) -> np.ndarray | None:
        """Return the rows to train on (None: all), after early stopping without rows of its own has held out some."""
        estimator, rows = self.estimator, None
        if self.deciding is None and estimator.early_stopping:
            n_samples, stratify = data.X.shape[0], estimator._stratify(y)
            rows, held_out = validation_split(n_samples, estimator.validation_fraction, random_state, stratify)
            if data.sample_weight is not None and data.sample_weight[held_out].sum() == 0:
                raise ValueError(f"the {len(held_out)} rows held out by early stopping have weights that add up to 0")
            self.add(VALIDATION, data, y, held_out, "held out by early stopping", decides=True)
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

    # --- after an epoch -------------------------------------------------------------------------------------------

    def __call__(self, params: np.ndarray) -> tuple[float, float] | None:
        """Evaluate all sets and record what they came to.

        Returns the loss (without penalty) and the first score of the set that decides, if there is one.
        """
        if self._workspace is None:
            n = max(map(len, self.sets.values()))
            self._workspace = self.engine.workspace(self._to_logits, n, self.estimator.n_jobs)
        weights = self.network.folded(params)[1]
        measured = {name: rows(self._logits(rows, weights)) for name, rows in self.sets.items()}
        for name, values in measured.items():
            curves = self.estimator.__dict__.setdefault("evals_result_", {}).setdefault(name, {})
            for metric, value in values.items():
                curves.setdefault(metric, []).append(value)
                column = self._column(self.sets[name], metric)
                if column not in history.COLUMNS:
                    self.columns.setdefault(column, []).append(value)
        if self.deciding is None:
            return None
        deciding = measured[self.deciding.name]
        return deciding["loss"], deciding[self.first_score]

    def _logits(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        # new in each epoch: an engine may know arrays that come again by their identity
        logits = np.empty((len(rows), self.network.widths[-1]), self.network.dtype)
        self.engine.predict(self._workspace, weights, rows.X, logits, rows.rows)
        return logits


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
    evaluation = Evaluation(estimator, engine, network, objective)
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
