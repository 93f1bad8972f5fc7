"""Snapshots: everything that the next epoch of a training needs, to go on from it bit for bit.

A snapshot is a dict of arrays, plain numbers, and dicts of these; fastmlp/training/checkpoint.py keeps it in a
file.  Callbacks take it at the end of an epoch, so a restored training has done a whole number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.model import choices
from fastmlp.model.stages import PREDICTS
from fastmlp.training import attributes
from fastmlp.training.attributes import ATTRIBUTES, HISTORY
from fastmlp.training.history import COLUMNS
from fastmlp.training.stopping import Stopping, watches_validation

#: Attributes of an estimator that a snapshot holds under "attributes".
KEPT = {name: row.kind for name, row in ATTRIBUTES.items() if row.trained and row.kind is not HISTORY}


def take(run: Any) -> dict[str, Any]:
    """Return the snapshot of a :class:`fastmlp.training.run.Run` between two epochs."""
    run.fetch()
    estimator = run.estimator
    rows = run.evaluation.deciding.rows if run.has_validation else None
    state = run.state.get_state(run.network)
    seed = state["dropout_seed"]
    return {
        "of": identity(run),
        "params": run.present_params(),  # also those that a callback has assigned
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
        If the snapshot is of another network, solver or number of rows, or no snapshot at all, or contradicts itself.
    """
    try:
        absent = {name: option.saved(option.off) for name, option in PREDICTS.items()}  # from files older than it
        for what, here in identity(run).items():
            there = (absent | snapshot["of"])[what]
            if there != here:
                raise ValueError(
                    f"resume_from: the saved training has {what} {there!r:.500}, this one has {here!r:.500}"
                )
        _restore_attributes(run, snapshot)
        run.params[...] = attributes.vector(snapshot["params"], run.network)
        _restore_rows(run, snapshot)
        run.renew_units()
        run.state.set_state(_state_in(snapshot), run.network)
        _check_counters(run)
        run.finished = bool(snapshot["finished"])
    except MemoryError:
        raise
    except Exception as error:
        if str(error).startswith("resume_from: "):
            raise
        # a file may hold any values, so checks and conversions may raise anything
        reason = f"{error!r:.500}" if isinstance(error, KeyError) else f"{error!s:.500}"
        raise ValueError(f"resume_from: this is not the snapshot of a training: {reason}") from error
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
        "validation rows": len(run.evaluation.deciding) if run.has_validation else 0,
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


def _restore_attributes(run: Any, snapshot: Mapping[str, Any]) -> None:
    """Give the estimator its fitted attributes; each must be of its kind, and there if training goes on with it."""
    estimator = run.estimator
    for name, value in snapshot["attributes"].items():
        if name not in Stopping.SAVED:
            setattr(estimator, name, KEPT[name].restored(value))
    for name in ("validation_loss_curve_", "evals_result_"):
        if getattr(estimator, name, None) is None:
            estimator.__dict__.pop(name, None)
    estimator.history_ = HISTORY.restored(snapshot["history"])
    lacking = [name for name in COLUMNS if name not in estimator.history_]
    if lacking:
        raise ValueError(f"history must have the columns {list(COLUMNS)}, it lacks {lacking}")
    needed = ["loss_curve_", "loss_"]
    needed += ["validation_loss_curve_", "validation_scores_", "best_validation_score_"] if run.has_validation else []
    needed += [] if watches_validation(estimator, run.has_validation) else ["best_loss_"]
    for name in needed:
        if getattr(estimator, name, None) is None:
            raise ValueError(f"it has no {name}")


def _restore_rows(run: Any, snapshot: Mapping[str, Any]) -> None:
    """Give a run its order of rows, and the rows to validate on: each row of the data once."""
    order, rows = snapshot["order"], snapshot["validation_rows"]
    here = run.evaluation.deciding.rows if run.has_validation else None
    for name, there, ours in (("order", order, run.order), ("validation_rows", rows, here)):
        if (there is None) != (ours is None) or (there is not None and _kind(there) != _kind(ours)):
            raise ValueError(f"{name} must be row indices as in this training")
    every = order if rows is None else np.concatenate([order, rows])
    if not np.array_equal(np.sort(every), np.arange(len(every))):
        raise ValueError("order and validation_rows must hold each row once")
    run.order[...] = order
    if rows is not None:
        run.evaluation.select(run.order, rows.astype(np.intp, copy=False))


def _kind(rows: Any) -> tuple[str, tuple[int, ...]]:
    return (rows.dtype.kind, rows.shape) if isinstance(rows, np.ndarray) else ("", ())


def _check_counters(run: Any) -> None:
    """Refuse counters of which nothing can go on."""
    stopping = run.state.stopping
    if run.has_validation and (stopping.best_monitored is None or stopping.monitored is None):
        raise ValueError("it does not say what was monitored")
