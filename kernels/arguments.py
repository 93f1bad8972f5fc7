"""What callers may do wrong, whichever engine they call: checks that end in a ValueError naming the argument.

Used by the engines that are written in Python: reference.py, numba_cpu.py and numba_cuda/.  The last two also share
the lock that keeps a workspace to one call at a time.
"""

from __future__ import annotations

import operator

import numpy as np


def row_of(name, table, key):
    if key not in table:
        raise ValueError(f"{name} must be one of {sorted(table)}, got {key!r}")
    return table[key]


def entry_of(name, table, entry):
    """(row, parameters) of an entry: a name, or (name, parameters)."""
    key, given = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, {})
    return row_of(name, table, key), {parameter: float(value) for parameter, value in given.items()}


def float_dtype(name, array):
    """The dtype of an array that must be float32 or float64."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name} must have dtype float32 or float64, got {array.dtype}")
    return array.dtype


def check_array(name, array, dtype, shape=None, *, out=False, strided=False):
    """Check one array; None in ``shape`` stands for any length, ``shape=None`` for any shape."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype != dtype:
        raise ValueError(f"{name} must have dtype {dtype}, got {array.dtype}")
    if shape is not None and (
        array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True))
    ):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {array.shape}")
    if not (strided or (array.flags.c_contiguous and array.flags.aligned)):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    if out and not array.flags.writeable:
        raise ValueError(f"{name} must be writable")


def check_states(row, states, **others):
    """Check the state arrays: as many as the rule has, shaped as params, no memory shared."""
    if len(states) != len(row.states):
        raise ValueError(f"states must be {row.states}, got {len(states)} arrays")
    named = dict(zip(row.states, states, strict=True))
    for name, state in named.items():
        check_array(name, state, others["params"].dtype, others["params"].shape, out=True)
    arrays = list({**others, **named}.items())
    for i, (name, array) in enumerate(arrays):
        for other_name, other in arrays[:i]:
            if np.may_share_memory(array, other):
                raise ValueError(f"{name} must not share memory with {other_name}")


def batch_size_of(batch_size):
    try:
        batch_size = operator.index(batch_size)
    except TypeError:
        raise ValueError(f"batch_size must be an integer, got {batch_size!r}") from None
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return batch_size


def seed_of(seed):
    seed = operator.index(seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in [0, 2^64), got {seed}")
    return seed


def check_indices(name, indices, n):
    """Row indices into n rows."""
    check_array(name, indices, np.dtype(np.intp), (None,))
    if indices.size and not (indices.min() >= 0 and indices.max() < n):
        raise ValueError(f"{name} must lie in [0, {n}), got {indices.min()} .. {indices.max()}")
    return indices


def check_csr(X):
    """Check what SciPy does not, once the arrays of a CSR matrix are edited after construction."""
    if X.format != "csr":
        raise ValueError(f"X must be an array or a CSR matrix, got {X.format}")
    check_array("X.data", X.data, float_dtype("X.data", X.data), (None,), strided=True)
    for name in ("indptr", "indices"):
        if getattr(X, name).dtype not in (np.int32, np.int64) or getattr(X, name).ndim != 1:
            raise ValueError(f"X.{name} must be one-dimensional, of dtype int32 or int64")
    n, n_features = X.shape
    indptr, room = X.indptr, min(len(X.data), len(X.indices))
    if len(indptr) != n + 1 or indptr[0] != 0 or indptr[-1] > room:
        raise ValueError(f"X.indptr must hold {n + 1} numbers from 0 to at most {room}")
    if (indptr[1:] < indptr[:-1]).any():
        raise ValueError("X.indptr must not decrease")
    used = X.indices[: indptr[-1]]
    if used.size and not (used.min() >= 0 and used.max() < n_features):
        raise ValueError(f"X.indices must lie in [0, {n_features})")


def check_weights(sample_weight, n, dtype):
    if sample_weight is not None:
        check_array("sample_weight", sample_weight, dtype, (n,))
    return sample_weight


def no_overlap(out, **others):
    for name, other in others.items():
        if other is not None and np.may_share_memory(out, other):
            raise ValueError(f"out must not share memory with {name}")


BUSY = "this workspace is at work for another caller: give each thread one of its own"


class busy:
    """A workspace belongs to one call at a time."""

    def __init__(self, workspace):
        self.lock = workspace.lock

    def __enter__(self):
        if not self.lock.acquire(blocking=False):
            raise RuntimeError(BUSY)

    def __exit__(self, *error):
        self.lock.release()
