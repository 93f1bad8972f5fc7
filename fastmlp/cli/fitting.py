"""One fit of a command: the estimator's fit with a progress bar, its metrics, and how it ended; and K fits of folds."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastmlp.cli import output
from fastmlp.cli.cluster import Cluster
from fastmlp.tabular.errors import DataError
from fastmlp.tabular.staging import Codes, stage
from fastmlp.tabular.target import Target

NAMES = {"accuracy": "accuracy", "log_loss": "log loss", "r2": "R2", "rmse": "RMSE"}


class Rows(NamedTuple):
    """Features and target of some rows, and their weights, if they have any."""

    X: np.ndarray  # (n_rows, n_features)
    y: np.ndarray  # (n_rows,)
    weight: np.ndarray | None = None  # (n_rows,)

    def selected(self, mask: np.ndarray) -> Rows:
        """Return the rows of a mask (n_rows,)."""
        return Rows(*(None if part is None else part[mask] for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Result:
    """How a fit ended."""

    epochs: int  # iterations of lbfgs
    unit: str  # "epochs" or "iterations"
    kept: int  # the epoch whose weights are those of the model
    loss: float  # the training loss of that epoch
    ended: str  # why it was the last one
    notes: tuple[str, ...]  # the warnings
    networks: int = 1  # of an ensemble: the epochs are the most of them, the loss is their mean

    def report(self) -> dict[str, Any]:
        """Return what the model file says about it."""
        found = {"epochs": self.epochs, "weights_of_epoch": self.kept, "ended": self.ended, "loss": self.loss}
        return found | ({"networks": self.networks} if self.networks > 1 else {})


def fit(
    estimator: Any,
    training: Rows,
    validation: Rows | None,
    *,
    scaled: bool,
    bar: bool,
    cluster: Cluster | None = None,
) -> Result:
    """Fit, with validation rows after each epoch if there are any; if `scaled`, on a standardised target.

    `scaled` is only for an output layer without an activation. `bar` asks for a progress bar, which a fit on a cluster
    does not have. Raises a FloatingPointError if training diverged, and a KeyboardInterrupt on Ctrl-C.
    """
    from fastmlp.model import choices
    from fastmlp.training.callbacks import ProgressBar

    more = {}
    if scaled:
        estimator.set_params(standardize_y=True)
    stochastic = choices.name_of(estimator.solver) != "lbfgs"
    if validation is not None and stochastic:
        more = {"X_val": validation.X, "y_val": validation.y, "sample_weight_val": validation.weight}
    if stochastic and bar and cluster is None:
        estimator.set_params(callbacks=[ProgressBar()])
    train = estimator.fit if cluster is None else partial(cluster.fit, estimator)
    caught = _watched(lambda: train(training.X, training.y, training.weight, **more))
    estimator.set_params(callbacks=None)
    return _result(estimator, stochastic, bool(more), caught)


def _watched(call: Callable[[], Any]) -> list[warnings.WarningMessage]:
    """Make a call of fit; return its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # fit turns Ctrl-C into a warning and a half-trained model; here Ctrl-C means stop
        warnings.filterwarnings("error", message="Training interrupted by user")
        try:
            call()
        except UserWarning:
            raise KeyboardInterrupt from None
        except ValueError as error:
            if any(word in str(error) for word in ("finite", "diverged")):  # with and without validation rows
                raise FloatingPointError(f"training diverged: {error}") from None
            raise
    return caught


def _result(estimator: Any, stochastic: bool, validates: bool, caught: list[warnings.WarningMessage]) -> Result:
    """Return how a fit ended, by the fitted attributes."""
    from sklearn.exceptions import ConvergenceWarning

    from fastmlp.estimator import ensemble
    from fastmlp.training import stopping

    notes = tuple(dict.fromkeys(" ".join(str(entry.message).split()) for entry in caught))
    epochs = int(estimator.n_iter_)
    if ensemble.is_ensemble(estimator):
        unit, members = "epochs" if stochastic else "iterations", estimator.estimators_
        loss = sum(float(member.loss_) for member in members) / len(members)
        return Result(epochs, unit, epochs, loss, "each network's own rule", notes, len(members))
    limit = f"the limit of {estimator.max_iter} {'epochs' if stochastic else 'iterations'} (--max-iter)"
    if not stochastic:
        gave_up = any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
        ended = "convergence" if not gave_up else limit if epochs >= estimator.max_iter else "lbfgs, which gave up"
        return Result(epochs, "iterations", epochs, float(estimator.loss_), ended, notes)
    by_loss = stopping.monitors_loss(estimator)
    ended = limit
    if estimator._no_improvement_count > estimator._training.stopping.patience(estimator):
        watched = "training loss, which no longer fell"
        if stopping.watches_validation(estimator, validates):
            watched = "validation loss, which no longer fell" if by_loss else "validation score, which no longer rose"
        ended = f"the {watched} by {estimator.tol:g} (--tol, --n-iter-no-change)"
    kept = epochs
    if stopping.keeps_best(estimator, validates):
        monitored = (-1 if by_loss else 1) * np.array(estimator.history_["validation_loss" if by_loss else "score"])
        best = np.flatnonzero(monitored == np.nanmax(monitored))
        kept = 1 + int(best[-1 if estimator.restore_best == "last" else 0])  # of equals
    return Result(epochs, "epochs", kept, float(estimator.loss_curve_[kept - 1]), ended, notes)


def judged(estimator: Any, rows: Rows) -> dict[str, float]:
    """Return accuracy and log loss, or R2 and the root of the mean squared error."""
    from sklearn.metrics import accuracy_score, log_loss, r2_score, root_mean_squared_error

    X, y, weight = rows
    if not hasattr(estimator, "classes_"):
        predicted = estimator.predict(X).astype(np.float64)
        scores = {"rmse": float(root_mean_squared_error(y, predicted, sample_weight=weight))}
        return {"r2": float(r2_score(y, predicted, sample_weight=weight)), **scores} if len(y) > 1 else scores
    if not hasattr(estimator, "predict_proba"):  # hinge losses
        return {"accuracy": float(accuracy_score(y, estimator.predict(X), sample_weight=weight))}
    probabilities = estimator.predict_proba(X)
    accuracy = accuracy_score(y, estimator.classes_[probabilities.argmax(axis=1)], sample_weight=weight)
    loss = log_loss(y, probabilities, labels=estimator.classes_, sample_weight=weight)
    return {"accuracy": float(accuracy), "log_loss": float(loss)}


# --- cross-validation -------------------------------------------------------------------------------------------------


def folds_of(codes: Codes, held_out: np.ndarray, task: str, n_folds: int, seed: int) -> list[np.ndarray]:
    """Return a mask (n_rows,) of each fold's rows, drawn by scikit-learn from the rows that are not held out.

    Classes keep their shares. The only row of a class is in no fold, so that every fit knows all classes.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    rows = np.flatnonzero(~held_out)
    if n_folds > len(rows):
        raise DataError(f"--cv {n_folds} is more than the {len(rows)} training rows")
    y = codes.target[rows]
    cut = (StratifiedKFold if task == "classification" else KFold)(n_folds, shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class of fewer rows than folds
            parts = [rows[part] for _, part in cut.split(rows, y)]
    except ValueError:
        raise DataError(f"--cv {n_folds} is more than the rows of every class") from None
    masks = [np.isin(np.arange(len(held_out)), part) for part in parts]
    if task == "classification":
        values, counts = np.unique(y, return_counts=True)
        single = np.isin(codes.target, values[counts == 1])
        masks = [mask & ~single for mask in masks]
    if not all(mask.any() for mask in masks):
        raise DataError(f"--cv {n_folds} leaves a fold without a row")
    return masks


def cross_validated(
    made: Callable[[], Any],
    codes: Codes,
    target: Target,
    held_out: np.ndarray,
    *,
    folds: list[np.ndarray],
    dtype: str,
    scaled: bool,
    folder: Path,
    cluster: Cluster | None = None,
) -> dict[str, Any]:
    """Return the metrics of each fold, of an estimator that was fitted on the other training rows; mean and deviation.

    Medians, means, scales and categories are learned anew without the fold. Validation rows, which are in no fold,
    serve every fit as they serve the final one.
    """
    found: list[Mapping[str, float]] = []
    for number, fold in enumerate(folds, start=1):
        inner = folder / f"fold {number}"
        inner.mkdir()
        apart = fold | held_out
        try:
            staged = stage(codes, apart, dtype, inner, keep_codes=True)
        except DataError as error:
            raise DataError(f"without fold {number} of --cv {len(folds)}, {error}") from None
        assert staged.X_val is not None  # no fold is empty
        training, others = (_rows(X, target, codes, m) for X, m in ((staged.X, ~apart), (staged.X_val, apart)))
        tested = others.selected(fold[apart]) if held_out.any() else others
        check_weights(training, f"training rows without fold {number}")
        check_weights(tested, f"rows of fold {number}")
        estimator = made()
        validation = others.selected(held_out[apart]) if held_out.any() else None
        fit(estimator, training, validation, scaled=scaled, bar=False, cluster=cluster)
        found.append(judged(estimator, tested))
        del staged, training, others, tested, validation  # a mapped file cannot be removed everywhere
        shutil.rmtree(inner)
    names = [name for name in found[0] if all(name in scores for scores in found)]
    columns = {name: np.array([scores[name] for scores in found]) for name in names}
    return {
        "folds": len(folds),
        "mean": {name: float(column.mean()) for name, column in columns.items()},
        "std": {name: float(column.std()) for name, column in columns.items()},
        "of_each": {name: column.tolist() for name, column in columns.items()},
    }


def _rows(X: np.ndarray, target: Target, codes: Codes, mask: np.ndarray) -> Rows:
    return Rows(X, target.y[mask], None if codes.weight is None else codes.weight[mask])


def check_weights(rows: Rows, which: str) -> None:
    """Refuse rows whose weights are all 0."""
    if rows.weight is not None and not rows.weight.any():
        raise DataError(f"--weight: the weights of all {len(rows.y):,} {which} are 0")


def tell(notes: tuple[str, ...]) -> None:
    """Print the warnings of a fit."""
    for note in notes:
        output.note(note)
