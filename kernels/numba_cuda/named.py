"""Kernels by name: for cross-checks, benches and teaching; whole networks do not pass through here.

Where it sits: engine.py offers these functions as part of the contract.  Each uploads its arrays, launches one kernel
and downloads the result.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fastmlp.kernels import formulas
from fastmlp.kernels.arguments import check_array, check_states, check_weights, float_dtype, no_overlap, row_of
from fastmlp.kernels.numba_cuda import driver, settings
from fastmlp.kernels.numba_cuda.code import activation_code, loss_code, module_of, pieces
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


def activate(activation, z, out):
    """out = f(z), elementwise; out may be z."""
    dtype = float_dtype("z", z)
    f = activation_code(activation, hidden=False)
    check_array("z", z, dtype)
    check_array("out", out, dtype, z.shape, out=True)
    if z.size:
        code, to = _named_code(dtype, activations=(f.entry,)), driver.allocate(z.size, dtype, "out")
        arrays = vector(z.reshape(-1), dtype, "z"), to
        _launch(code.activate_array, code, z.size, *arrays, dtype.type(f.initial), z.size)
        _back(to, out)


def slope(activation, z, a, out):
    """out = da/dz, elementwise, for a = f(z); z may be None where the slope is a function of a alone."""
    dtype = float_dtype("a", a)
    f = activation_code(activation)
    if z is None and f.needs_z:
        raise ValueError(f"z must be given: the slope of activation {activation!r} needs it")
    check_array("a", a, dtype)
    if z is not None:
        check_array("z", z, dtype, a.shape)
    check_array("out", out, dtype, a.shape, out=True)
    no_overlap(out, z=z, a=a)
    out[...] = 1
    _times_slope(f, a if z is None else z, a, out)


def _times_slope(f, z, a, out):
    """out *= f'(z)"""
    if out.size:
        code = _named_code(out.dtype, activations=(f.entry,))
        arrays = [vector(array.reshape(-1), out.dtype, "an array") for array in (z, a, out)]
        _launch(code.slope_array, code, out.size, *arrays, out.dtype.type(f.initial), out.size)
        _back(arrays[2], out)


def _product(A, B, shape, depth, *, turned=0, bias=None):
    """(rows, columns) = A B, or A^T B (turned: 1), or A B^T (turned: 2), plus a bias; C-contiguous A and B."""
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


def linear_forward(X, W, b, activation, out, z=None):
    """out = f(X W + b), and z = X W + b where a buffer for it is given.

    Parameters
    ----------
    X : ndarray of shape (n, fan_in)
    W : ndarray of shape (fan_in, fan_out)
    b : ndarray of shape (fan_out,)
    activation : str, (str, dict) or formula
    out : ndarray of shape (n, fan_out)
    z : ndarray of shape (n, fan_out), optional
    """
    dtype = float_dtype("X", X)
    activation_code(activation, hidden=False)
    check_array("X", X, dtype, (None, None))
    check_array("W", W, dtype, (X.shape[1], None))
    check_array("b", b, dtype, W.shape[1:])
    check_array("out", out, dtype, (X.shape[0], W.shape[1]), out=True)
    if z is not None:
        check_array("z", z, dtype, out.shape, out=True)
    product = _product(X, W, out.shape, X.shape[1], bias=b)
    if z is not None:
        z[...] = product
    activate(activation, product, out)


def linear_backward(X, W, delta, activation, grad_W, grad_b, delta_below=None, z=None):
    """Gradients of one linear layer, and the delta of the layer below.

    grad_W = X^T delta;  grad_b = column sums of delta;  delta_below = (delta W^T) * f'(z, X).
    See :func:`fastmlp.kernels.reference.linear_backward` for the arguments.
    """
    dtype = float_dtype("X", X)
    f = activation_code(activation)
    check_array("X", X, dtype, (None, None))
    check_array("W", W, dtype, (X.shape[1], None))
    check_array("delta", delta, dtype, (X.shape[0], W.shape[1]))
    check_array("grad_W", grad_W, dtype, W.shape, out=True)
    check_array("grad_b", grad_b, dtype, W.shape[1:], out=True)
    if z is not None:
        check_array("z", z, dtype, X.shape)
    below = None
    if delta_below is not None:
        check_array("delta_below", delta_below, dtype, X.shape, out=True)
        if z is None and f.needs_z:
            raise ValueError(f"z must be given: the slope of activation {activation!r} needs it")
        below = _product(delta, W, X.shape, W.shape[1], turned=2)
        _times_slope(f, X if z is None else z, X, below)
    gradient = _product(X, delta, W.shape, X.shape[0], turned=1)
    ones = np.ones((1, X.shape[0]), dtype)
    sums = _product(ones, delta, (1, W.shape[1]), X.shape[0])[0]
    if below is not None:
        delta_below[...] = below
    grad_W[...], grad_b[...] = gradient, sums


def softmax(logits, out):
    """out = exp(z - max z) / sum_j exp(z_j - max z), row by row; out may be logits."""
    dtype = float_dtype("logits", logits)
    check_array("logits", logits, dtype, (None, None))
    check_array("out", out, dtype, logits.shape, out=True)
    n, width = logits.shape
    if width == 0:
        raise ValueError("logits must have at least one column")
    if out is not logits:
        no_overlap(out, logits=logits)
    if n:
        code, to = _named_code(dtype), driver.allocate(out.size, dtype, "out")
        _launch(code.softmax_array, code, n * code.SIDE, vector(logits, dtype, "logits"), to, n, width)
        _back(to, out)


def loss(name, logits, y, sample_weight, delta):
    """Mean loss over the rows, and delta = d loss / d logits * sample_weight.

    See :func:`fastmlp.kernels.reference.loss` for the arguments and what is raised.
    """
    dtype = float_dtype("logits", logits)
    f = loss_code(name, "name")
    check_array("logits", logits, dtype, (None, None))
    if logits.size == 0:
        raise ValueError("logits must have at least one row and one column")
    n, width = logits.shape
    check_targets(y, f.by_class, logits.shape, dtype)
    check_weights(sample_weight, n, dtype)
    check_array("delta", delta, dtype, logits.shape, out=True)
    no_overlap(delta, logits=logits)
    total = float(n) if sample_weight is None else float(np.sum(sample_weight, dtype=np.float64))
    if total == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    code, to = _named_code(dtype, loss=f.entry), driver.allocate(delta.size, dtype, "delta")
    row_loss = driver.allocate(n, dtype, "the loss of each row")
    targets = driver.allocate(1, dtype, "y") if f.by_class else vector(y, dtype, "y")
    classes = vector(y, np.int32, "y") if f.by_class else driver.allocate(1, np.int32, "y")
    weight = (
        driver.allocate(1, dtype, "sample_weight")
        if sample_weight is None
        else vector(sample_weight, dtype, "sample_weight")
    )
    _launch(
        code.loss_array, code, n * code.SIDE, vector(logits, dtype, "logits"), targets, classes, weight,
        int(sample_weight is not None), to, row_loss, n, width,
    )  # fmt: skip
    _back(to, delta)
    return float(row_loss[:n].copy_to_host().sum(dtype=np.float64) / total)


def softmax_cross_entropy(logits, y, sample_weight, delta):
    """The loss ``log_loss``: softmax and cross-entropy in one pass, safe for any finite logits; see :func:`loss`."""
    return loss("log_loss", logits, y, sample_weight, delta)


def update(rule, params, grad, states, scalars):
    """One optimizer step in place: params, *states = step(params, grad, *states, *scalars).

    See :func:`fastmlp.kernels.reference.update` for the arguments.
    """
    row = row_of("rule", formulas.OPTIMIZERS, rule)
    dtype = float_dtype("params", params)
    check_array("params", params, dtype, (None,), out=True)
    check_array("grad", grad, dtype, params.shape)
    check_states(row, states, params=params, grad=grad)
    if len(scalars) != len(row.scalars):
        raise ValueError(f"scalars must be {row.scalars}, got {len(scalars)} numbers")
    n = len(params)
    if n == 0:
        return
    code = _named_code(dtype, rule=rule)
    own = np.array([1.0, 1.0, *code.rule_scalars(*map(float, scalars))]).astype(dtype)
    block = np.concatenate(states) if states else np.zeros(1, dtype)
    arrays = [vector(array, dtype, "an array") for array in (params, grad, block, own)]
    _launch(code.rule_array, code, n, *arrays, n)
    _back(arrays[0], params)
    for k, state in enumerate(states):
        state[...] = arrays[2][k * n : (k + 1) * n].copy_to_host()


def sgd_update(params, grad, lr):
    """p -= lr * g, in place."""
    update("sgd", params, grad, [], [lr])


def momentum_update(params, grad, velocity, lr, momentum, nesterov=False):
    """v = momentum * v - lr * g;  p += v, or with Nesterov p += momentum * v - lr * g; in place."""
    update("nesterov" if nesterov else "momentum", params, grad, [velocity], [lr, momentum])


def adam_update(params, grad, m, v, lr, beta_1, beta_2, epsilon):
    """Adam (Kingma and Ba 2015), in place; lr already holds the bias correction of its step."""
    update("adam", params, grad, [m, v], [lr, beta_1, beta_2, epsilon])


def all_finite(X):
    """Whether an array on the device has neither NaN nor infinity, in one pass over it; not part of the contract.

    Parameters
    ----------
    X : C-contiguous array of float32 or float64 with ``__cuda_array_interface__``
    """
    dtype = np.dtype(X.dtype)
    numbers, flags = device_view("X", X, dtype, tuple(X.shape)), driver.api().to_device(np.zeros(1, np.int32))
    code = _named_code(dtype)
    _launch(code.finite_array, code, numbers.size, numbers, flags, numbers.size)
    return not flags.copy_to_host()[0]
