"""Kernels by name: for cross-checks, benches and teaching; whole networks do not pass through here.

Where it sits: engine.py offers these functions as part of the contract.  Each uploads its arrays, launches one kernel
and downloads the result.  See contract.py for the arguments and what is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fastmlp.kernels import formulas
from fastmlp.kernels.arguments import (
    check_activate,
    check_linear_backward,
    check_linear_forward,
    check_loss,
    check_needed,
    check_slope,
    check_softmax,
    check_update,
)
from fastmlp.kernels.contract import sum_of_weights
from fastmlp.kernels.numba_cuda import driver, settings
from fastmlp.kernels.numba_cuda.code import ActivationCode, activation_code, loss_code, module_of, pieces
from fastmlp.kernels.numba_cuda.memory import check_targets, device_view, vector
from fastmlp.kernels.numba_cuda.plan import table


def _launch(kernel: Any, code: ModuleType, items: int, *arguments: Any) -> None:
    """Launch a kernel with a thread for each item, or with as many as the blocks have."""
    most = settings.SIMULATED_BLOCKS if driver.simulated() else settings.BLOCKS_WITHOUT_BARRIER
    driver.Launch(kernel, max(1, min(most, pieces(items, code.THREADS))), code.THREADS)(*arguments)


def _named_code(dtype: Any, **choices: Any) -> ModuleType:
    tile = settings.SIMULATED if driver.simulated() else settings.SMALL
    return module_of(np.dtype(dtype) == np.float64, tile, **choices)


def _back(device: Any, out: np.ndarray) -> None:
    """Copy numbers of the device into a host array of any shape."""
    out[...] = device[: out.size].copy_to_host().reshape(out.shape)


def activate(activation: Any, z: np.ndarray, out: np.ndarray) -> None:
    """Apply an activation: out = f(z), elementwise; out may be z."""
    f = activation_code(activation, hidden=False)
    check_activate(z, out)
    if z.size:
        code, to = _named_code(z.dtype, activations=(f.entry,)), driver.allocate(z.size, z.dtype, "out")
        from_ = vector(z.reshape(-1), z.dtype, "z")
        _launch(code.activate_array, code, z.size, from_, to, z.dtype.type(f.initial), z.size)
        _back(to, out)


def slope(activation: Any, z: np.ndarray | None, a: np.ndarray, out: np.ndarray) -> None:
    """Apply the slope of an activation: out = da/dz, elementwise, for a = f(z)."""
    f = activation_code(activation)
    check_needed(z, f.needs_z, activation)
    check_slope(z, a, out)
    out[...] = 1
    _times_slope(f, a if z is None else z, a, out)


def _times_slope(f: ActivationCode, z: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out *= f'(z)"""
    if out.size:
        code = _named_code(out.dtype, activations=(f.entry,))
        arrays = [vector(array.reshape(-1), out.dtype, "an array") for array in (z, a, out)]
        _launch(code.slope_array, code, out.size, *arrays, out.dtype.type(f.initial), out.size)
        _back(arrays[2], out)


def _product(
    A: np.ndarray, B: np.ndarray, shape: tuple[int, int], depth: int, *, turned: int = 0, bias: np.ndarray | None = None
) -> np.ndarray:
    """Return (rows, columns) = A B, or A^T B (turned: 1), or A B^T (turned: 2), plus a bias; C-contiguous A and B."""
    out = np.zeros(shape, A.dtype)
    if out.size == 0:
        return out
    code, to = _named_code(A.dtype), driver.allocate(out.size, A.dtype, "a product")
    a, b = (vector(matrix.reshape(-1), A.dtype, "a matrix") for matrix in (A, B))
    added = vector(np.zeros(1, A.dtype) if bias is None else bias, A.dtype, "a bias")
    order = table([0], np.int32)
    tiles = pieces(shape[0], code.TILE) * pieces(shape[1], code.TILE) * code.THREADS
    _launch(
        code.matrix_product, code, tiles, a, A.shape[1], b, B.shape[1], turned, added, int(bias is not None), order,
        to, *shape, depth,
    )  # fmt: skip
    _back(to, out)
    return out


def linear_forward(
    X: np.ndarray, W: np.ndarray, b: np.ndarray, activation: Any, out: np.ndarray, z: np.ndarray | None = None
) -> None:
    """Compute one layer forward: out = f(X W + b), and z = X W + b if a buffer for it is given."""
    activation_code(activation, hidden=False)  # refuses what is none
    check_linear_forward(X, W, b, out, z)
    product = _product(X, W, out.shape, X.shape[1], bias=b)
    if z is not None:
        z[...] = product
    activate(activation, product, out)


def linear_backward(
    X: np.ndarray,
    W: np.ndarray,
    delta: np.ndarray,
    activation: Any,
    grad_W: np.ndarray,
    grad_b: np.ndarray,
    delta_below: np.ndarray | None = None,
    z: np.ndarray | None = None,
) -> None:
    """Compute one layer backward.

    grad_W = X^T delta;  grad_b = column sums of delta;  delta_below = (delta W^T) * f'(z, X).
    """
    f = activation_code(activation)
    check_linear_backward(X, W, delta, grad_W, grad_b, delta_below, z)
    below = None
    if delta_below is not None:
        check_needed(z, f.needs_z, activation)
        below = _product(delta, W, X.shape, W.shape[1], turned=2)
        _times_slope(f, X if z is None else z, X, below)
    gradient = _product(X, delta, W.shape, X.shape[0], turned=1)
    ones = np.ones((1, X.shape[0]), X.dtype)
    sums = _product(ones, delta, (1, W.shape[1]), X.shape[0])[0]
    if delta_below is not None:
        delta_below[...] = below
    grad_W[...], grad_b[...] = gradient, sums


def softmax(logits: np.ndarray, out: np.ndarray) -> None:
    """Compute exp(z - max z) / sum_j exp(z_j - max z), row by row; out may be logits."""
    check_softmax(logits, out)
    (n, width), dtype = logits.shape, logits.dtype
    if n:
        code, to = _named_code(dtype), driver.allocate(out.size, dtype, "out")
        _launch(code.softmax_array, code, n * code.SIDE, vector(logits, dtype, "logits"), to, n, width)
        _back(to, out)


def loss(name: Any, logits: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None, delta: np.ndarray) -> float:
    """Compute the mean loss over the rows, and delta = d loss / d logits * sample_weight."""
    f = loss_code(name, "name")
    check_loss(logits, sample_weight, delta)
    (n, width), dtype = logits.shape, logits.dtype
    check_targets(y, f.by_class, (n, width), dtype)
    total = sum_of_weights(sample_weight, n)
    code, to = _named_code(dtype, loss=f.entry), driver.allocate(delta.size, dtype, "delta")
    row_loss = driver.allocate(n, dtype, "the loss of each row")
    targets = driver.allocate(1, dtype, "y") if f.by_class else vector(y, dtype, "y")
    classes = vector(y, np.int32, "y") if f.by_class else driver.allocate(1, np.int32, "y")
    weight = vector(np.ones(1, dtype) if sample_weight is None else sample_weight, dtype, "sample_weight")
    _launch(
        code.loss_array, code, n * code.SIDE, vector(logits, dtype, "logits"), targets, classes, weight,
        int(sample_weight is not None), to, row_loss, n, width,
    )  # fmt: skip
    _back(to, delta)
    return float(row_loss[:n].copy_to_host().sum(dtype=np.float64) / total)


def update(rule: str, params: np.ndarray, grad: np.ndarray, states: list[np.ndarray], scalars: Sequence[float]) -> None:
    """Make one optimizer step in place: params, *states = step(params, grad, *states, *scalars)."""
    _, given = check_update(formulas.OPTIMIZERS, rule, params, grad, states, scalars)
    n, dtype = len(params), params.dtype
    if n == 0:
        return
    code = _named_code(dtype, rule=rule)
    own = np.array([1.0, 1.0, *code.rule_scalars(*given)]).astype(dtype)
    block = np.concatenate(states) if states else np.zeros(1, dtype)
    arrays = [vector(array, dtype, "an array") for array in (params, grad, block, own)]
    _launch(code.rule_array, code, n, *arrays, n)
    _back(arrays[0], params)
    for k, state in enumerate(states):
        state[...] = arrays[2][k * n : (k + 1) * n].copy_to_host()


def all_finite(X: Any) -> bool:
    """Return whether an array on the device has neither NaN nor infinity; not part of the contract.

    Parameters
    ----------
    X : C-contiguous array of float32 or float64 with ``__cuda_array_interface__``
    """
    dtype = np.dtype(X.dtype)
    numbers, flags = device_view("X", X, dtype, tuple(X.shape)), driver.api().to_device(np.zeros(1, np.int32))
    code = _named_code(dtype)
    _launch(code.finite_array, code, numbers.size, numbers, flags, numbers.size)
    return not flags.copy_to_host()[0]
