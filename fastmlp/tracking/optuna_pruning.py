"""Pruning of Optuna's trials."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from fastmlp.data.optional import needed
from fastmlp.training.callbacks import EpochInfo, watched_by

_EXTRA = '"fastmlp[optuna]"'

#: Optuna's direction of a study that fits a monitored number.
_DIRECTIONS = {"score": "MAXIMIZE", "loss": "MINIMIZE", "validation_loss": "MINIMIZE"}


@dataclass(eq=False, repr=False)
class OptunaPruning:
    """Report each epoch to an Optuna trial; end a fit without prospects by ``optuna.TrialPruned``.

    Optuna counts steps from 0, so epoch 1 is reported as step 0. Copies, such as those of ``clone``, report to the same
    trial. A trial ignores a second value for a step, so give it one fit, with rows to validate on. In
    ``cross_val_score`` pass ``error_score="raise"``: otherwise scikit-learn takes a pruned fit for a failed one.

    Parameters
    ----------
    trial : optuna.trial.Trial
        What the study gives to the objective.
    monitor : str, default=None
        What to report: "score", "validation_loss" or "loss". None is the number by which the estimator judges its
        validation rows, or the training loss if there are none.

    Raises
    ------
    ImportError
        If Optuna is not installed.
    ValueError
        In a fit: if there are no validation rows to monitor, or if the study's direction does not fit, as with a loss
        in a study that maximizes.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> def objective(trial):
    ...     alpha = trial.suggest_float("alpha", 1e-6, 1.0, log=True)
    ...     clf = MLPClassifier(alpha=alpha, callbacks=[OptunaPruning(trial)])
    ...     return clf.fit(X, y, X_val=X_val, y_val=y_val).score(X_val, y_val)
    """

    reads_weights: ClassVar[bool] = False
    after_others: ClassVar[bool] = True  # so that loggers get the last epoch too

    trial: Any
    monitor: str | None = None

    def __post_init__(self) -> None:
        methods = [getattr(self.trial, name, None) for name in ("report", "should_prune")]
        if isinstance(self.trial, type) or not all(map(callable, methods)):
            raise TypeError(f"trial must be a trial of Optuna, got {self.trial!r:.100}")

    def on_fit_begin(self, estimator: Any) -> None:
        if self.trial is None:
            raise RuntimeError(
                "this OptunaPruning was unpickled, and its study is in the memory of the process that pickled it: make"
                " a new one, or create the study with storage=..."
            )

    def __call__(self, info: EpochInfo) -> None:
        name = watched_by(info) if self.monitor is None else self.monitor
        value = getattr(info, name, None) if name in _DIRECTIONS else info.estimator.history_.get(name, [None])[-1]
        if value is None:
            raise ValueError(
                f"OptunaPruning(monitor={name!r}) has nothing to report: monitor must be one of"
                f" {list(info.estimator.history_)}; score and validation_loss need X_val and y_val, or early_stopping"
            )
        self._check_direction(name)
        self.trial.report(value, step=info.epoch - 1)
        if self.trial.should_prune():
            optuna = needed("optuna", "OptunaPruning", _EXTRA)
            raise optuna.TrialPruned(f"pruned after epoch {info.epoch} with {name} {value:.6g}")

    def _check_direction(self, name: str) -> None:
        study = getattr(self.trial, "study", None)  # a FixedTrial has none
        if study is None or name not in _DIRECTIONS or len(study.directions) > 1:
            return  # Optuna itself refuses several objectives
        direction = study.direction.name
        if direction in _DIRECTIONS.values() and direction != _DIRECTIONS[name]:
            raise ValueError(
                f"OptunaPruning(monitor={name!r}) is for studies with direction={_DIRECTIONS[name].lower()!r}, this one"
                f" has {direction.lower()!r}: change the monitor or the direction"
            )

    def __deepcopy__(self, memo: dict) -> Self:
        return replace(self)  # a copy of the trial would report to a study that nobody reads

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if type(getattr(self.trial, "storage", None)).__name__ == "InMemoryStorage":
            state["trial"] = None
        return state

    def __repr__(self) -> str:
        number = getattr(self.trial, "number", None)
        return f"OptunaPruning(<trial {number}>{'' if self.monitor is None else f', monitor={self.monitor!r}'})"
