"""Rows in this process, in memory or mapped from its disk -> Dask arrays whose blocks lie on the workers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
from dask import delayed
from distributed import Client

#: Most bytes of a block; what lies between client and worker holds one of them at a time.
BLOCK_BYTES = 1 << 28


def scattered(client: Client, *arrays: Any) -> tuple[Any, ...]:
    """Send rows to the workers, as many to each, block by block; one block each if that is not too large.

    Parameters
    ----------
    client : distributed.Client
        A synchronous one; its workers get rows in the order of their addresses.
    *arrays : ndarray of shape (n_rows, ...) or None
        X and what belongs to its rows.

    Returns
    -------
    tuple of Dask array or None
        In the same row blocks.
    """
    n_rows, n_bytes = len(arrays[0]), sum(array.nbytes for array in arrays if array is not None)
    workers = sorted(client.scheduler_info(-1)["workers"])
    n_blocks = len(workers) * max(1, -(-n_bytes // (len(workers) * BLOCK_BYTES)))
    n_blocks = min(n_blocks, n_rows)
    ends = np.linspace(0, n_rows, n_blocks + 1).astype(int)
    blocks: list[list[Any]] = [[] for _ in arrays]
    for i, (start, stop) in enumerate(pairwise(ends)):
        owner = workers[i * len(workers) // n_blocks]
        for array, parts in zip(arrays, blocks, strict=True):
            if array is not None:
                future = client.scatter(array[start:stop], workers=[owner], hash=False)
                shape = (stop - start, *array.shape[1:])
                parts.append(da.from_delayed(delayed(future), shape, array.dtype))
    return tuple(da.concatenate(parts) if parts else None for parts in blocks)
