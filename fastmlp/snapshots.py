"""Snapshots: all that the next epoch of a training depends on, and how to go on from there, bit for bit.

A snapshot is a dict of arrays, plain numbers, and dicts of these; fastmlp/checkpoint.py keeps it in a file.  Callbacks
take it at the very end of an epoch, so that what is restored from it is a whole number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp import choices

# Attributes of an estimator that are kept as they are, and those that are lists of numbers, or None.
COUNTERS = (
    "n_iter_",
    "t_",
    "loss_",
    "best_loss_",
    "best_validation_score_",
    "_best_monitored",
    "_no_improvement_count",
)
CURVES = ("loss_curve_", "validation_scores_", "validation_loss_curve_")


def take(run: Any) -> dict[str, Any]:
    """The snapshot of a :class:`fastmlp.training.Run` between two epochs."""
    record = run.record
    rows = None if run.validation is None else run.validation.rows
    seed = record._dropout_seed
    attributes: dict[str, Any] = {name: _plain(getattr(record, name)) for name in COUNTERS if hasattr(record, name)}
    for name in CURVES:
        curve = getattr(record, name, None)
        attributes[name] = None if curve is None else np.array(curve, dtype=np.float64)
    return {
        "of": identity(run),
        "params": run.params.copy(),
        "best_params": record._best_params.copy() if run.keeps_best else None,
        "optimizer": run.optimizer.get_state(),
        "order": run.order.copy(),
        "validation_rows": None if rows is None else rows.copy(),
        "random_state": _state_of(record._random_state),
        "dropout_seed": None if seed is None else str(seed),  # 64 bits: more than readers of JSON are sure to keep
        "attributes": attributes,
        "history": {name: np.array(column, dtype=np.float64) for name, column in record.history_.items()},
        "finished": run.finished,
    }


def restore(run: Any, snapshot: Mapping[str, Any]) -> None:
    """Put a run, just made, where a snapshot was taken.

    Raises
    ------
    ValueError
        If the snapshot is of another network, solver or number of rows, or no snapshot at all.
    """
    try:
        for what, here in identity(run).items():
            there = snapshot["of"][what]
            if there != here:
                raise ValueError(f"resume_from: the saved training has {what} {there!r}, this one has {here!r}")
        _restore_record(run, snapshot)
        run.params[...] = snapshot["params"]
        run.order[...] = snapshot["order"]
        run.optimizer.set_state(snapshot["optimizer"])
        if snapshot["validation_rows"] is not None:
            run.validation.select(np.asarray(snapshot["validation_rows"], dtype=np.intp))
        run.finished = bool(snapshot["finished"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"resume_from: this is not the snapshot of a training: {error!r}") from error
    if run.guard is not None:
        run.guard.keep()


def identity(run: Any) -> dict[str, Any]:
    """What a training must have in common with the one that it goes on with."""
    record, network = run.record, run.network
    return {
        "estimator": type(record).__name__,
        "layers": list(network.widths),
        "activation": [choices.name_of(entry) for entry in network.activations],
        "loss": choices.name_of(network.loss),
        "dtype": network.dtype.name,
        "batch_norm": bool(network.batch_norm),
        "solver": record.solver,
        "training rows": len(run.order),
        "validation rows": 0 if run.validation is None else len(run.validation),
        "batch size": run.batch_size,
        "best weights kept": bool(run.keeps_best),
    }


def _restore_record(run: Any, snapshot: Mapping[str, Any]) -> None:
    record = run.record
    for name, value in snapshot["attributes"].items():
        if name not in COUNTERS + CURVES:
            raise KeyError(name)
        setattr(record, name, value.tolist() if isinstance(value, np.ndarray) else value)
    if record.validation_loss_curve_ is None:
        del record.validation_loss_curve_
    record.history_ = {name: column.tolist() for name, column in snapshot["history"].items()}
    if run.keeps_best:
        record._best_params = snapshot["best_params"].copy()
    if not isinstance(record.random_state, np.random.RandomState):
        record._random_state = np.random.RandomState()  # the one of a fit without a seed is everybody's
    record._random_state.set_state(snapshot["random_state"])
    if snapshot["dropout_seed"] is not None:
        record._dropout_seed = run.options["seed"] = int(snapshot["dropout_seed"])


def _state_of(random_state: np.random.RandomState) -> dict[str, Any]:
    """Its state as ``set_state`` takes it."""
    state: Any = random_state.get_state(legacy=False)
    return {
        "bit_generator": state["bit_generator"],
        "state": {"key": state["state"]["key"].copy(), "pos": int(state["state"]["pos"])},
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
