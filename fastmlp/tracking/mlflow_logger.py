"""Runs of MLflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from fastmlp.data.optional import needed
from fastmlp.tracking.epoch import numbers_of, parameters_of
from fastmlp.training.callbacks import EpochInfo, check_every, is_due


@dataclass(eq=False)
class MlflowLogger:
    """Log a fit to MLflow: parameters and tags as its autologging for scikit-learn does, and each epoch's numbers.

    A fit goes to the active run. If there is none, it gets a run of its own, which ends with the fit.

    Parameters
    ----------
    log_params : bool, default=True
        Whether to log the estimator's parameters.
    nested : bool, default=False
        Whether each fit gets a run of its own below the active one. Searches need this: MLflow refuses two values of a
        parameter in one run.
    every : int, default=1
        Number of epochs between two that are logged; epoch ``max_iter`` is always logged.

    Attributes
    ----------
    run_id_ : str
        The run of the latest fit.

    Raises
    ------
    ValueError
        If `every` is less than 1.
    ImportError
        In a fit: if MLflow is not installed.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> clf = MLPClassifier(callbacks=[MlflowLogger()])
    """

    reads_weights: ClassVar[bool] = False

    log_params: bool = True
    nested: bool = False
    every: int = 1
    _own: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        check_every(self.every)

    def on_fit_begin(self, estimator: Any) -> None:
        mlflow = _mlflow()
        run = None if self.nested else mlflow.active_run()
        self._own = run is None
        self.run_id_ = (run or mlflow.start_run(nested=self.nested)).info.run_id
        kind = type(estimator)
        tags = {"estimator_name": kind.__name__, "estimator_class": f"{kind.__module__}.{kind.__name__}"}
        client = mlflow.MlflowClient()
        for name, value in tags.items():
            client.set_tag(self.run_id_, name, value)
        if not self.log_params:
            return
        try:
            mlflow.log_params(parameters_of(estimator), run_id=self.run_id_)
        except mlflow.MlflowException as error:
            error.add_note("MlflowLogger(nested=True) gives each fit a run of its own; log_params=False logs none")
            raise

    def __call__(self, info: EpochInfo) -> None:
        if is_due(info, self.every):
            _mlflow().log_metrics(numbers_of(info), step=info.epoch, run_id=self.run_id_)

    def on_fit_end(self, estimator: Any) -> None:
        if self._own:
            self._own = False
            _mlflow().end_run()


def _mlflow() -> Any:
    return needed("mlflow", "MlflowLogger", '"fastmlp[mlflow]"')
