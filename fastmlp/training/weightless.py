"""Batches without weight: an epoch leaves out the batches whose rows all have the weight zero.

Where it sits: a :class:`fastmlp.training.run.Run` asks :func:`needs_a_look` once.  If there is a weight that is not
positive, each epoch asks :func:`with_weight` which rows to give to the engine, after the shuffle.  Batches are cut
before any is left out, so the others are what they would be without this.
"""

from __future__ import annotations

import numpy as np

CANCEL = "sample_weight has negative weights that cancel: those of {} sum to zero, so there is no mean over these rows"


def needs_a_look(weight: np.ndarray | None) -> bool:
    """Return whether some batch may be without weight, because not all weights (n,) are positive."""
    return weight is not None and not weight.min() > 0


def with_weight(rows: np.ndarray, weight: np.ndarray, batch_size: int) -> np.ndarray:
    """Return `rows` (m,) without those of batches in which all weights are zero.

    A ValueError says that negative weights of a batch cancel.
    """
    starts = np.arange(0, len(rows), batch_size)
    weight = weight[rows]
    has_weight = np.logical_or.reduceat(weight != 0, starts)
    if (has_weight & (np.add.reduceat(weight, starts, dtype=np.float64) == 0)).any():
        raise ValueError(CANCEL.format("a batch"))
    return rows if has_weight.all() else rows[np.repeat(has_weight, batch_size)[: len(rows)]]


def check_weight(weight: np.ndarray | None, what: str = "the {} rows") -> None:
    """Refuse weights (n,) that are all zero with a ValueError."""
    if weight is not None and not weight.any():
        raise ValueError(
            f"no row has a weight: sample_weight, times class_weight if given, is zero for {what.format(len(weight))}"
        )
