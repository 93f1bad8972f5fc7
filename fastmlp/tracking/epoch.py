"""What the trackers log: the numbers of an epoch, and the parameters of a fit."""

from __future__ import annotations

from typing import Any

from fastmlp.training.callbacks import EpochInfo


def numbers_of(info: EpochInfo) -> dict[str, float]:
    """Return the numbers of an epoch by name, as ``history_`` has them; none of validation without validation rows."""
    latest = {name: column[-1] for name, column in info.estimator.history_.items()}
    return {name: float(value) for name, value in latest.items() if getattr(info, name, value) is not None}


def parameters_of(estimator: Any) -> dict[str, Any]:
    """Return the parameters of an estimator, those of its choices included, but for the callbacks."""
    return {name: value for name, value in estimator.get_params(deep=True).items() if name != "callbacks"}
