"""Batches without weight: an epoch leaves out the batches whose rows all have the weight zero.

Where it sits: a :class:`fastmlp.training.run.Run` asks :func:`batches_of` once.  If there is a weight that is not
positive, each epoch asks which rows to give to the engine, after the shuffle.  Batches are cut before any is left out,
so the others are what they would be without this.
"""

from __future__ import annotations

import numpy as np

CANCEL = "sample_weight has negative weights that cancel: those of {} sum to zero, so there is no mean over these rows"


class Batches:
    """The batches of an epoch over weighted rows.

    Parameters
    ----------
    weight : ndarray of shape (n,)
        Sample weights, some of them zero or negative.
    batch_size : int
    """

    def __init__(self, weight: np.ndarray, batch_size: int) -> None:
        self.weight, self.batch_size = weight, batch_size

    def with_weight(self, rows: np.ndarray) -> np.ndarray:
        """Return `rows` (m,) without those of batches in which all weights are zero.

        A ValueError says that negative weights of a batch cancel.
        """
        starts = np.arange(0, len(rows), self.batch_size)
        weight = self.weight[rows]
        has_weight = np.logical_or.reduceat(weight != 0, starts)
        if (has_weight & (np.add.reduceat(weight, starts, dtype=np.float64) == 0)).any():
            raise ValueError(CANCEL.format("a batch"))
        return rows if has_weight.all() else rows[np.repeat(has_weight, self.batch_size)[: len(rows)]]

    def count(self, rows: np.ndarray) -> int:
        """Return the number of batches of `rows`."""
        return -(-len(rows) // self.batch_size)


def batches_of(weight: np.ndarray | None, batch_size: int) -> Batches | None:
    """Return the batches of an epoch; None if all weights are positive, so that no batch is left out."""
    return None if weight is None or weight.min() > 0 else Batches(weight, batch_size)


def check_weight(weight: np.ndarray | None, what: str = "the {} rows") -> None:
    """Refuse weights (n,) that are all zero with a ValueError."""
    if weight is not None and not weight.any():
        raise ValueError(
            f"no row has a weight: sample_weight, times class_weight if given, is zero for {what.format(len(weight))}"
        )
