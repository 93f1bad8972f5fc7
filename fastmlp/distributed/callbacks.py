"""Callbacks of a fit that several ranks take part in: those of rank 0 are called, there alone.

So a checkpoint is written once, and an epoch is logged once. What they ask for or change, all ranks do: stop, the
learning rate of the epochs to come, the weights, parameters of the estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastmlp.distributed.communicator import Communicator
from fastmlp.model import weights
from fastmlp.model.network import Network
from fastmlp.training.callbacks import EpochInfo, asks_to_stop, check_callbacks, name_of


@dataclass
class _Told:
    """What all ranks are told after the callbacks of an epoch."""

    stopping: list[str]  # names of those that ask to stop
    rates: list[float]
    parameters: dict[str, Any]  # that have changed
    params: np.ndarray | None  # the weights as users see them, if they have changed


@dataclass(eq=False)
class FirstRanksCallbacks:
    """One callback in place of those of rank 0, on every rank.

    Parameters
    ----------
    communicator : Communicator
    network : function without arguments
        Returns the network in training.
    callbacks : sequence of callable
        Those of this rank; only those of rank 0 count.
    reads_weights : bool
        Whether one of rank 0's may edit the weights.
    """

    communicator: Communicator
    network: Callable[[], Network]
    callbacks: Sequence[Callable[[EpochInfo], Any]]
    reads_weights: bool
    _ends: ExitStack = field(default_factory=ExitStack)
    _stopping: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return " and ".join(self._stopping)  # what `stopped_by_` says

    def on_fit_begin(self, estimator: Any) -> None:
        """Begin the callbacks of rank 0."""
        if self.communicator.rank > 0:
            self.callbacks = ()
        check_callbacks(self.callbacks)
        self.callbacks = sorted(self.callbacks, key=lambda callback: getattr(callback, "after_others", False))
        for callback in self.callbacks:
            if hasattr(callback, "on_run_begin"):  # of this rank, which has some of the rows
                raise ValueError(f"{name_of(callback)} looks into a training of one process, not with communicator")
            if hasattr(callback, "on_fit_end"):
                self._ends.callback(callback.on_fit_end, estimator)
            if hasattr(callback, "on_fit_begin"):
                callback.on_fit_begin(estimator)

    def on_fit_end(self, estimator: Any) -> None:
        """End those that were begun."""
        self._ends.close()

    def __call__(self, info: EpochInfo) -> bool:
        """Call those of rank 0, and do on each rank what they have come to."""
        told = self.communicator.broadcast(self._call(info) if self.communicator.rank == 0 else None, "callbacks")
        self._stopping = told.stopping
        if self.communicator.rank > 0:
            self._follow(info, told)
        return bool(told.stopping)

    def _call(self, info: EpochInfo) -> _Told:
        estimator, rates = info.estimator, list[float]()

        def set_rate(value: float) -> None:
            info.set_learning_rate(value)
            rates.append(float(value))

        before = _parameters(estimator)
        kept = self._present(estimator).copy() if self.reads_weights else None
        watched = replace(info, _set_rate=set_rate)
        stopping = [name_of(callback) for callback in self.callbacks if asks_to_stop(callback, watched)]
        changed = {name: value for name, value in _parameters(estimator).items() if value is not before[name]}
        now = None if kept is None else self._present(estimator)
        is_same = kept is None or np.array_equal(kept, now, equal_nan=True)  # type: ignore[arg-type]
        return _Told(stopping, rates, changed, None if is_same else now)

    def _follow(self, info: EpochInfo, told: _Told) -> None:
        for rate in told.rates:
            info.set_learning_rate(rate)
        vars(info.estimator).update(told.parameters)
        if told.params is not None:
            self._present(info.estimator)[...] = told.params

    def _present(self, estimator: Any) -> np.ndarray:
        """Return the weights that users see; the vector itself, unless they were replaced."""
        return weights.flat_params(estimator, self.network())


def _parameters(estimator: Any) -> dict[str, Any]:
    """Return what callbacks may change for all ranks: not what each rank has of its own."""
    return {name: getattr(estimator, name) for name in estimator._get_param_names() if name not in OF_A_RANK}


#: Parameters that may differ from rank to rank.
OF_A_RANK = ("callbacks", "n_jobs", "random_state", "verbose")
