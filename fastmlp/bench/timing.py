"""Clocks of the workers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

MOST_EPOCHS = 1000  # of one fit


def timed(call: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """Return the seconds that a call takes, and its answer."""
    start = time.perf_counter()
    answer = call(*arguments)
    return time.perf_counter() - start, answer


def clock(call: Callable[..., object], *arguments: Any) -> float:
    """Return the seconds that a call takes."""
    return timed(call, *arguments)[0]


def repeat(clock: Callable[[], float], seconds: float) -> list[float]:
    """Return the times that a clock gives: as many as fit into `seconds`, at least one."""
    found = [clock()]
    while sum(found) + found[-1] < seconds:
        found.append(clock())
    return found


def epochs_within(seconds: float, epochs: int, elapsed: float) -> int:
    """Return the number of epochs that take about `seconds`, if a fit of `epochs` took `elapsed`; at least `epochs`."""
    return max(epochs, min(MOST_EPOCHS, round(seconds * epochs / elapsed)))


def fit(estimator: Any, X: Any, y: Any) -> float:
    """Fit an estimator in place and return the seconds that it took.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, of which the estimators' `fit` makes a warning and a half-trained model.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # all rivals train all epochs, whether or not that is enough to converge
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("error", message="Training interrupted by user")
        try:
            return clock(estimator.fit, X, y)
        except UserWarning as warning:
            if "interrupted" in str(warning):
                raise KeyboardInterrupt from None
            raise
