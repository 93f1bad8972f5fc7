"""An order of rows for tables on a disk: an epoch reads it block by block, not row by row at random."""

from __future__ import annotations

import numpy as np

#: Blocks whose rows are mixed with each other: as many are in memory at a time.
MIXED = 16


def shuffle_blocks(order: np.ndarray, random_state: np.random.RandomState, block_rows: int) -> None:
    """Shuffle row indices in place, so that consecutive ones are of a few blocks of the table.

    The table is cut into blocks of `block_rows` rows. Blocks come in random order, and the rows of each ``MIXED`` that
    follow one another are shuffled together. What comes out depends on the random state and on which rows there are,
    not on their order before.

    Parameters
    ----------
    order : ndarray of intp of shape (n,) (IN, OUT)
        Rows of the table, each at most once.
    random_state : numpy.random.RandomState (IN, OUT)
    block_rows : int

    Examples
    --------
    >>> order = np.arange(100_000)
    >>> shuffle_blocks(order, np.random.RandomState(0), 100)
    >>> len(np.unique(order)), len(np.unique(order[:1600] // 100))
    (100000, 16)
    """
    rows = np.sort(order)
    numbers = rows // min(block_rows, int(rows.max(initial=0)) + 1)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    blocks = np.split(rows, starts[1:])
    turns, at = random_state.permutation(len(blocks)), 0
    for first in range(0, len(blocks), MIXED):
        mixed = np.concatenate([blocks[i] for i in turns[first : first + MIXED]])
        random_state.shuffle(mixed)
        order[at : at + len(mixed)] = mixed
        at += len(mixed)
