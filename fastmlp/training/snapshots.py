"""Snapshots: everything that the next epoch of a training needs, to go on from it bit for bit.

A snapshot is a dict of arrays, plain numbers, and dicts of these; fastmlp/training/checkpoint.py keeps it in a
file.  Callbacks take it at the end of an epoch, so a restored training has done a whole number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.model import choices, weights
from fastmlp.model.stages import PREDICTS
from fastmlp.training.attributes import ATTRIBUTES, HISTORY
from fastmlp.training.stopping import Stopping

#: Attributes of an estimator that a snapshot holds under "attributes".
KEPT = {name: row.kind for name, row in ATTRIBUTES.items() if row.trained and row.kind is not HISTORY}


def take(run: Any) -> dict[str, Any]:
    """Return the snapshot of a :class:`fastmlp.training.run.Run` between two epochs."""
    estimator = run.estimator
    rows = None if run.validation is None else run.validation.rows
    state = run.state.get_state(run.network)
    seed = state["dropout_seed"]
    return {
        "of": identity(run),
        "params": weights.flat_params(estimator, run.network).copy(),  # also those that a callback has assigned
        **state,
        "dropout_seed": None if seed is None else str(seed),  # 64 bits: more than readers of JSON are sure to keep
        "order": run.order.copy(),
        "validation_rows": None if rows is None else rows.copy(),
        "attributes": {name: kind.kept(getattr(estimator, name, None)) for name, kind in KEPT.items()},
        "history": HISTORY.kept(estimator.history_),
        "finished": run.finished,
    }


def restore(run: Any, snapshot: Mapping[str, Any]) -> None:
    """Bring a new run to the state of a snapshot.

    Raises
    ------
    ValueError
        If the snapshot is of another network, solver or number of rows, or no snapshot at all.
    """
    try:
        absent = {name: option.saved(option.off) for name, option in PREDICTS.items()}  # from files older than it
        for what, here in identity(run).items():
            there = (absent | snapshot["of"])[what]
            if there != here:
                raise ValueError(f"resume_from: the saved training has {what} {there!r}, this one has {here!r}")
        _restore_attributes(run.estimator, snapshot)
        run.params[...] = snapshot["params"]
        run.order[...] = snapshot["order"]
        run.state.set_state(_state_in(snapshot), run.network)
        if snapshot["validation_rows"] is not None:
            run.validation.select(np.asarray(snapshot["validation_rows"], dtype=np.intp))
        run.finished = bool(snapshot["finished"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"resume_from: this is not the snapshot of a training: {error!r}") from error
    if run.guard is not None:
        run.guard.keep()


def identity(run: Any) -> dict[str, Any]:
    """Return what a training must have in common with the one that it goes on with."""
    estimator, network = run.estimator, run.network
    return {
        "estimator": type(estimator).__name__,
        "layers": list(network.widths),
        "activation": [choices.name_of(entry) for entry in network.activations],
        "loss": choices.name_of(network.loss),
        "dtype": network.dtype.name,
        **{name: option.saved(getattr(network, name)) for name, option in PREDICTS.items()},
        "solver": choices.name_of(estimator.solver),
        "training rows": len(run.order),
        "validation rows": 0 if run.validation is None else len(run.validation),
        "batch size": run.batch_size,
        "best weights kept": bool(run.keeps_best),
    }


def _state_in(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a snapshot holds for :meth:`fastmlp.training.state.TrainingState.set_state`."""
    # files of the first kind have the counters among the attributes
    state = {"stopping": snapshot.get("stopping", snapshot["attributes"])}
    state |= {name: snapshot[name] for name in ("optimizer", "best_params", "random_state")}
    if snapshot["dropout_seed"] is not None:
        state["dropout_seed"] = int(snapshot["dropout_seed"])
    return state


def _restore_attributes(estimator: Any, snapshot: Mapping[str, Any]) -> None:
    for name, value in snapshot["attributes"].items():
        if name not in Stopping.SAVED:
            setattr(estimator, name, KEPT[name].restored(value))
    if estimator.validation_loss_curve_ is None:
        del estimator.validation_loss_curve_
    estimator.history_ = HISTORY.restored(snapshot["history"])
