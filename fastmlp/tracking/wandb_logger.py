"""Runs of Weights & Biases."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from fastmlp.data.optional import needed
from fastmlp.tracking.epoch import numbers_of, parameters_of
from fastmlp.training.callbacks import EpochInfo, check_every, is_due


@dataclass(eq=False)
class WandbLogger:
    """Log a fit to a run of Weights & Biases: parameters as its config, and each epoch's numbers over ``epoch``.

    Parameters
    ----------
    run : wandb.Run, default=None
        The run; None is the one that ``wandb.init`` has begun in this process. Copies, such as those of ``clone``, log
        to the same run. Pickles leave it out, since a run belongs to one process.
    every : int, default=1
        Number of epochs between two that are logged; epoch ``max_iter`` is always logged.

    Raises
    ------
    ValueError
        If `every` is less than 1.
    TypeError
        If `run` is no run.
    ImportError
        In a fit: if wandb is not installed.
    RuntimeError
        In a fit: if there is no run.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> clf = MLPClassifier(callbacks=[WandbLogger()])
    """

    reads_weights: ClassVar[bool] = False

    run: Any = None
    every: int = 1
    _present: Any = field(default=None, init=False, repr=False)  # the run of the fit that goes on

    def __post_init__(self) -> None:
        check_every(self.every)
        if self.run is not None and not hasattr(self.run, "define_metric"):
            raise TypeError(f"run must be a run of Weights & Biases, as wandb.init returns it, got {self.run!r:.100}")

    def on_fit_begin(self, estimator: Any) -> None:
        run = self.run if self.run is not None else needed("wandb", "WandbLogger", '"fastmlp[wandb]"').run
        if run is None:
            raise RuntimeError("WandbLogger needs a run in this process: call wandb.init(...) before fit")
        run.config.update({n: _plain(v) for n, v in parameters_of(estimator).items()}, allow_val_change=True)
        run.define_metric("epoch")
        for name in estimator.history_:
            run.define_metric(name, step_metric="epoch")
        self._present = run

    def __call__(self, info: EpochInfo) -> None:
        if is_due(info, self.every):
            # a run's own step never goes back, as the epochs of a second fit do
            self._present.log({"epoch": info.epoch, **numbers_of(info)})

    def on_fit_end(self, estimator: Any) -> None:
        self._present = None

    def __deepcopy__(self, memo: dict) -> Self:
        return replace(self)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"run": None, "_present": None}


def _plain(value: Any) -> Any:
    """Return a parameter as JSON can hold it: functions and other objects as text."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
