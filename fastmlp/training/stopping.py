"""When training ends by itself: what is an improvement, how long to wait for one, and the best so far.

These are scikit-learn's rules, comparison by comparison, so fits end at the same epoch.  Training asks
:class:`Stopping` after each epoch; files keep what ``get_state`` returns.  A rule, a counter or a text is changed here
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastmlp.training.attributes import COUNT, NUMBER, TEXT, Kind
from fastmlp.training.metrics import decisive, name_of


class Stopping:
    """The rule and its counters, which live on from one ``partial_fit`` or warm start to the next.

    Parameters of the estimator (``tol``, ``n_iter_no_change``, ``monitor``, ...) are read when they are needed, since
    callbacks and users may change them.  The public ``best_loss_`` and ``best_validation_score_`` are written here.
    """

    #: Name in files and snapshots -> attribute, and how it is kept there.
    SAVED: ClassVar[dict[str, tuple[str, Kind]]] = {
        "_no_improvement_count": ("count", COUNT),
        "_best_monitored": ("best_monitored", NUMBER),
        "_monitored": ("monitored", TEXT),
    }

    def __init__(self) -> None:
        self.count = 0  # epochs in a row without improvement
        #: Best on the validation rows: a score, or minus a loss; None before the first validation.
        self.best_monitored: float | None = None
        self.monitored: str | None = None  # which of the two: "loss", "score", or the name of another score

    # --- before the first epoch --------------------------------------------------------------------------------------

    @staticmethod
    def reset(estimator: Any) -> None:
        """Give an estimator the best values of a fit before its first epoch."""
        early = estimator.early_stopping
        estimator.best_validation_score_ = -np.inf if early else None
        estimator.best_loss_ = None if early else np.inf

    def begin(self, estimator: Any, has_validation: bool) -> None:
        """Prepare for more epochs, if an earlier fit watched something else or a user assigned the weights."""
        attributes = vars(estimator)
        if not watches_validation(estimator, has_validation) and attributes.get("best_loss_", np.inf) is None:
            estimator.best_loss_ = np.inf
        if not has_validation:
            return
        if attributes.get("best_validation_score_") is None:
            estimator.best_validation_score_ = -np.inf
        monitored = name_of(decisive(estimator.monitor))
        if self.best_monitored is None or self.monitored not in (None, monitored):
            self.best_monitored = -np.inf  # two different metrics cannot be compared
        self.monitored = monitored

    # --- after an epoch ----------------------------------------------------------------------------------------------

    def watch_losses(self, estimator: Any, losses: Iterable[float]) -> None:
        """Count the epochs in which the training loss did not fall by more than ``tol``."""
        best = np.inf if estimator.best_loss_ is None else estimator.best_loss_  # a callback ended early stopping
        count, tol = self.count, estimator.tol
        for loss in losses:
            count = count + 1 if loss > best - tol else 0
            if loss < best:
                best = estimator.best_loss_ = loss
        self.count = count

    def watch_validation(self, estimator: Any, loss: float, score: float) -> bool:
        """Judge an epoch by the validation rows; return whether its weights are the best so far."""
        value, best = -loss if monitors_loss(estimator) else score, self.best_monitored
        is_best = value >= best if estimator.restore_best == "last" else value > best  # type: ignore[operator]
        if is_best:
            self.best_monitored, estimator.best_validation_score_ = value, score
        if estimator.early_stopping:
            # scikit-learn's comparison as it stands: a NaN score neither counts nor becomes the best
            self.count = self.count + 1 if value < best + estimator.tol else 0
        else:
            self.watch_losses(estimator, [estimator.loss_])
        return is_best

    def patience(self, estimator: Any) -> float:
        """Return how many epochs without improvement there may be after the latest one that had some."""
        improved = max(estimator.n_iter_ - self.count, 0)
        return estimator.n_iter_no_change + (estimator.patience_growth * improved if estimator.patience_growth else 0)

    def least_epochs(self, estimator: Any) -> float:
        """Return how many epochs must come before :meth:`ends` may be true, rounded down; at least 1."""
        patience = max(estimator.n_iter_no_change, self.patience(estimator))
        return max(1.0, patience - self.count + 1)

    def ends(self, estimator: Any, has_validation: bool, optimizer: Any) -> bool:
        """Return whether training ends now; the optimizer's schedule may reduce the learning rate instead."""
        if not self.count > estimator.n_iter_no_change or not self.count > self.patience(estimator):
            return False
        stops, text = optimizer.on_plateau()
        if estimator.verbose:
            what = "Training loss"
            if watches_validation(estimator, has_validation):
                what = "Validation loss" if monitors_loss(estimator) else "Validation score"
            print(
                f"{what} did not improve more than tol={estimator.tol:f} for "
                f"{int(self.patience(estimator)):d} consecutive epochs.{text}"
            )
        if not stops:
            self.count = 0
        return stops

    # --- in files ----------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Return the counters as plain numbers and texts, without None."""
        values = {name: (kind, getattr(self, attribute)) for name, (attribute, kind) in self.SAVED.items()}
        return {name: kind.kept(value) for name, (kind, value) in values.items() if value is not None}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take the counters that `state` holds, if their values make sense; other entries are ignored."""
        for name, (attribute, kind) in self.SAVED.items():
            if name in state:
                setattr(self, attribute, kind.restored(state[name]))


def monitors_loss(estimator: Any) -> bool:
    """Return whether the best weights are those of the lowest validation loss, not of the highest score."""
    return decisive(estimator.monitor) == "loss"


def watches_validation(estimator: Any, has_validation: bool) -> bool:
    """Return whether the validation rows, not the training loss, decide when to stop."""
    return has_validation and estimator.early_stopping


def keeps_best(estimator: Any, has_validation: bool) -> bool:
    """Return whether training ends with the best weights on the validation rows, not with the last ones."""
    wanted = estimator.restore_best
    return watches_validation(estimator, has_validation) if wanted is None else has_validation and bool(wanted)
