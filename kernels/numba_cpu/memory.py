"""Memory as the compiled code sees it: addresses of arrays, aligned buffers, lengths of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

ALIASED_BYTES = 1024  # rows this many bytes apart share few sets of the caches


def address_of(array: np.ndarray | None) -> int:
    """Return the address of an array's first number; 0 for None."""
    return 0 if array is None else array.__array_interface__["data"][0]


def aligned(n: int, dtype: Any) -> np.ndarray:
    """Return n zeros that begin with a cache line."""
    dtype = np.dtype(dtype)
    memory = np.zeros(n * dtype.itemsize + 64, np.uint8)
    start = -memory.__array_interface__["data"][0] % 64
    return memory[start : start + n * dtype.itemsize].view(dtype)


def row_length(width: int, dtype: np.dtype, lanes: int) -> int:
    """Return the length of a row of this width, padded to whole vectors of ``lanes`` numbers."""
    ld = -(-width // lanes) * lanes
    return ld + lanes if ld * dtype.itemsize % ALIASED_BYTES == 0 else ld
