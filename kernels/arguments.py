"""Argument checks of the engines written in Python: each ends in a ValueError that names the argument.

Where it sits: the functions of reference.py and of the Numba and CUDA engines begin with one of these checks.  First
come single arguments, then the arguments of each call of the contract, in the order of contract.py.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

_DOUBLE = np.dtype(np.float64)

# --- single arguments -------------------------------------------------------------------------------------------------


def row_of(name: str, table: Mapping[str, Any], key: Any) -> Any:
    """Return the row of a table."""
    if key not in table:
        raise ValueError(f"{name} must be one of {sorted(table)}, got {key!r}")
    return table[key]


def entry_of(name: str, table: Mapping[str, Any], entry: Any) -> tuple[Any, dict[str, float]]:
    """Return (row, given parameters) of an entry: a name, or (name, parameters)."""
    key, given = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, {})
    return row_of(name, table, key), {parameter: float(value) for parameter, value in given.items()}


def named_entry(argument: str, table: Mapping[str, Any], entry: Any) -> tuple[str, Any, dict[str, float]]:
    """Return (name, row, all parameters of the row) of an entry."""
    row, given = entry_of(argument, table, entry)
    for name in given:
        if name not in row.parameters:
            raise ValueError(f"{argument} must have no parameters but {list(row.parameters)}, got {name!r}")
    return entry[0] if isinstance(entry, tuple) else entry, row, {**row.parameters, **given}


def float_dtype(name: str, array: Any) -> np.dtype:
    """Return the dtype of an array that must be float32 or float64."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name} must have dtype float32 or float64, got {array.dtype}")
    return array.dtype


def check_array(
    name: str, array: Any, dtype: Any, shape: Any = None, *, out: bool = False, strided: bool = False
) -> None:
    """Check one array; None in ``shape`` stands for any length, ``shape=None`` for any shape."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype is not dtype and array.dtype != dtype:
        raise ValueError(f"{name} must have dtype {dtype}, got {array.dtype}")
    if shape is not None and array.shape != shape and not _fits(array.shape, shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {array.shape}")
    if strided:
        if not array.flags.aligned:
            raise ValueError(f"{name} must be aligned, got strides {array.strides}")
    elif not (array.flags.carray or (array.flags.c_contiguous and array.flags.aligned)):
        raise ValueError(f"{name} must be C-contiguous and aligned, got strides {array.strides}")
    if out and not array.flags.writeable:
        raise ValueError(f"{name} must be writable")


def _fits(shape: tuple[int, ...], wanted: Any) -> bool:
    return len(shape) == len(wanted) and all(n in (None, m) for n, m in zip(wanted, shape, strict=True))


def check_states(row: Any, states: Any, **others: np.ndarray) -> None:
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


def batch_size_of(batch_size: Any) -> int:
    """Return a number of rows as an integer."""
    try:
        number = operator.index(batch_size)
    except TypeError:
        raise ValueError(f"batch_size must be an integer, got {batch_size!r}") from None
    if number < 1:
        raise ValueError(f"batch_size must be at least 1, got {number}")
    return number


def seed_of(seed: Any) -> int:
    """Return a seed as an integer."""
    number = operator.index(seed)
    if not 0 <= number < 2**64:
        raise ValueError(f"seed must lie in [0, 2^64), got {number}")
    return number


def check_indices(name: str, indices: Any, n: int) -> np.ndarray:
    """Check row indices into n rows, and return them."""
    check_array(name, indices, np.dtype(np.intp), (None,))
    if indices.size and not (indices.min() >= 0 and indices.max() < n):
        raise ValueError(f"{name} must lie in [0, {n}), got {indices.min()} .. {indices.max()}")
    return indices


def check_csr(X: Any) -> None:
    """Check what SciPy does not, once the arrays of a CSR matrix are edited after construction."""
    if X.format != "csr":
        raise ValueError(f"X must be an array or a CSR matrix, got {X.format}")
    check_array("X.data", X.data, float_dtype("X.data", X.data), (None,))
    index = getattr(X.indices, "dtype", None)
    if index not in (np.int32, np.int64):
        raise ValueError(f"X.indices must be an array of dtype int32 or int64, got {index}")
    for name in ("indptr", "indices"):
        check_array(f"X.{name}", getattr(X, name), index, (None,))
    n, n_features = X.shape
    indptr, room = X.indptr, min(len(X.data), len(X.indices))
    if len(indptr) != n + 1 or indptr[0] != 0 or indptr[-1] > room:
        raise ValueError(f"X.indptr must hold {n + 1} numbers from 0 to at most {room}")
    if (indptr[1:] < indptr[:-1]).any():
        raise ValueError("X.indptr must not decrease")
    used = X.indices[: indptr[-1]]
    if used.size and not (used.min() >= 0 and used.max() < n_features):
        raise ValueError(f"X.indices must lie in [0, {n_features})")


def check_samples(X: Any, n_features: int) -> None:
    """Check X, dense of any strides or CSR."""
    if sparse.issparse(X):
        check_csr(X)
    else:
        check_array("X", X, float_dtype("X", X), (None, None), strided=True)
    if X.shape[1] != n_features:
        raise ValueError(f"X must have {n_features} columns, got {X.shape[1]}")


def check_dense(X: Any, network: Any) -> None:
    """Refuse a sparse X for a network that computes something of its columns before the first product."""
    if sparse.issparse(X) and (network.inputs or network.input_scale or network.members > 1):
        raise ValueError("X must be dense for a network with inputs, input_scale or members, got a CSR matrix")


def check_codes(X: Any, blocks: Any, rows: np.ndarray | None = None) -> None:
    """Check that the columns of embeddings hold codes, in ``rows`` of X or in all; X has the network's dtype."""
    for block in blocks:
        if block.kind != "embedding":
            continue
        for column, count in zip(block.columns, block.counts, strict=True):
            codes = X[:, column] if rows is None else X[rows, column]
            wrong = ~((codes >= 0) & (codes < count) & (codes == np.floor(codes)))
            if wrong.any():
                raise ValueError(
                    f"X[:, {column}] must hold whole numbers in [0, {count}), codes of an embedding, "
                    f"got {codes[wrong][0]}"
                )


def check_weights(sample_weight: Any, n: int, dtype: Any) -> np.ndarray | None:
    """Check the weights of n rows, and return them."""
    if sample_weight is not None:
        check_array("sample_weight", sample_weight, dtype, (n,))
    return sample_weight


# --- the arguments of each call ---------------------------------------------------------------------------------------


def check_network(network: Any) -> np.dtype:
    """Check what a workspace is made for, and return its dtype."""
    if network.dtype not in (np.float32, np.float64):
        raise ValueError(f"network.dtype must be float32 or float64, got {network.dtype}")
    if len(network.widths) < 2 or any(operator.index(width) < 1 for width in network.widths):
        raise ValueError(f"network.widths must be two or more layer sizes, got {network.widths}")
    if len(network.activations) != len(network.widths) - 2:
        raise ValueError(f"network.activations must hold one name for each hidden layer, got {network}")
    return np.dtype(network.dtype)


def check_workspace(workspace: Any, kind: type) -> None:
    """Refuse a workspace that is not this engine's."""
    if not isinstance(workspace, kind):
        raise ValueError(f"workspace must come from workspace(), got {type(workspace).__name__}")


def check_predict(network: Any) -> None:
    """Refuse a network whose batch normalisation is not folded into its weights."""
    if network.needs_whole_batch:
        raise ValueError("network must not have batch_norm in predict: fold it into the weights with network.folded()")


def check_loss_and_grad(network: Any, params: np.ndarray, grad: Any, *, drops: bool) -> None:
    """Check what :meth:`contract.Engine.loss_and_grad` writes; ``drops``: whether the network has dropout."""
    if network.needs_whole_batch or drops:
        raise ValueError("network must have neither dropout nor batch_norm in loss_and_grad: train it with train_epoch")
    check_array("grad", grad, params.dtype, params.shape, out=True)
    if np.may_share_memory(params, grad):
        raise ValueError("grad must not share memory with params")


def check_order(order: Any, may_be_empty: bool = False) -> None:
    """Check the form of row indices; their bounds are another matter."""
    check_array("order", order, np.dtype(np.intp), (None,))
    if len(order) == 0 and not may_be_empty:
        raise ValueError("order must hold at least one row")


def check_orders(order: Any, losses: Any, n: int) -> None:
    """Check the orders of several epochs, of rows below n, and the array that their losses are written to."""
    check_array("losses", losses, _DOUBLE, (None,), out=True)
    if not isinstance(order, np.ndarray) or order.ndim != 2 or len(order) != len(losses) or not order.size:
        shape = getattr(order, "shape", type(order).__name__)
        raise ValueError(f"order must have a row for each of the {len(losses)} epochs that losses has, got {shape}")
    for row in order:
        check_indices("order", row, n)


def check_schedule(optimizer: Any, row: Any, n_steps: int) -> tuple[np.ndarray, np.ndarray | None, float | None]:
    """Return (scalars, decays or None, max_grad_norm or None) of the coming steps, checked.

    Parameters
    ----------
    optimizer : contract.Optimizer
    row : row of ``OPTIMIZERS``
    n_steps : int
    """
    scalars = optimizer.scalars(n_steps)
    check_array("optimizer.scalars", scalars, _DOUBLE, (n_steps, len(row.scalars)))
    decays = optimizer.decays(n_steps) if hasattr(optimizer, "decays") else None
    if decays is not None:
        check_array("optimizer.decays", decays, _DOUBLE, (n_steps,))
    max_norm = getattr(optimizer, "max_grad_norm", None)
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"optimizer.max_grad_norm must be above 0 or None, got {max_norm}")
    return scalars, decays, max_norm


def check_plans(
    optimizer: Any, row: Any, n_segments: int, n_steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return (factors, decay_factors, dropouts or None) of the coming steps, checked.

    Factors are 1 where the optimizer has none.
    """
    factors = getattr(optimizer, "factors", None)
    decay_factors = getattr(optimizer, "decay_factors", None)
    dropouts = optimizer.dropouts(n_steps) if hasattr(optimizer, "dropouts") else None
    if factors is None:
        factors = np.ones((n_segments, len(row.scalars)))
    if decay_factors is None:
        decay_factors = np.ones(n_segments)
    check_array("optimizer.factors", factors, _DOUBLE, (n_segments, len(row.scalars)))
    check_array("optimizer.decay_factors", decay_factors, _DOUBLE, (n_segments,))
    if dropouts is not None:
        check_array("optimizer.dropouts", dropouts, _DOUBLE, (n_steps,))
        if not ((dropouts >= 0) & (dropouts <= 1)).all():
            raise ValueError(f"optimizer.dropouts must lie in [0, 1], got {dropouts.min()} .. {dropouts.max()}")
    return factors, decay_factors, dropouts


def check_one_epoch(shared: Any) -> None:
    """Refuse several epochs in a call that several processes make together."""
    if shared is not None:
        raise ValueError("losses must be None with shared: a call holds one epoch then")


def check_shared(shared: Any, network: Any) -> None:
    """Check what every call reads of :class:`contract.Shared`."""
    if not callable(shared.reduce):
        raise ValueError(f"shared.reduce must be a function, got {type(shared.reduce).__name__}")
    if not (shared.memory is None or callable(shared.memory)):
        raise ValueError(f"shared.memory must be a function or None, got {type(shared.memory).__name__}")
    if network.needs_whole_batch:
        raise ValueError("shared must be None for a network with batch_norm, which needs all rows of a batch at once")


def memory_of_sums(shared: Any, n: int, dtype: np.dtype) -> np.ndarray:
    """Return the vector (n,) that `reduce` gets."""
    found = None if shared.memory is None else shared.memory(n, dtype)
    if found is None:
        return np.empty(n, dtype)
    check_array("shared.memory", found, dtype, (n,), out=True)
    if found.ctypes.data % 64:
        raise ValueError("shared.memory must return memory that is 64-byte aligned")
    return found


def check_shares(shared: Any, order: np.ndarray, batch_size: int) -> None:
    """Check which rows of each batch this process has."""
    if shared.n_rows < 1:
        raise ValueError(f"shared.n_rows must be at least 1, got {shared.n_rows}")
    index, n_steps = np.dtype(np.intp), -(-shared.n_rows // batch_size)
    check_array("shared.starts", shared.starts, index, (n_steps + 1,))
    check_array("shared.places", shared.places, index, order.shape)
    if shared.starts[0] != 0 or shared.starts[-1] != len(order) or (np.diff(shared.starts) < 0).any():
        raise ValueError(f"shared.starts must not decrease, and lead from 0 to the {len(order)} rows of order")


def check_shuffle(order: Any, random_state: Any) -> None:
    """Check the arguments of :meth:`contract.Engine.shuffle`."""
    several = isinstance(order, np.ndarray) and order.ndim == 2
    check_array("order", order, np.dtype(np.intp), (None, None) if several else (None,), out=True)
    if not isinstance(random_state, np.random.RandomState):
        raise ValueError(f"random_state must be a RandomState, got {type(random_state).__name__}")
