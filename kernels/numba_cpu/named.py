"""Kernels by name: for monitoring, displays, cross-checks and benches; whole networks do not pass through here.

See contract.py for the arguments and what is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    float_dtype,
)
from fastmlp.kernels.contract import sum_of_weights
from fastmlp.kernels.numba_cpu.cache import code_of
from fastmlp.kernels.numba_cpu.entries import Activation, Loss
from fastmlp.kernels.numba_cpu.epoch import check_targets
from fastmlp.kernels.numba_cpu.memory import address_of, aligned, padded


def activate(activation: Any, z: np.ndarray, out: np.ndarray) -> None:
    """Apply an activation: out = f(z), elementwise; out may be z."""
    code = code_of(float_dtype("z", z))
    f = Activation(code, activation, hidden=False)
    check_activate(z, out)
    f.resolve("value")
    if out is not z:
        out[...] = z
    if f.value:
        code.run("apply_value", f.value, out.size, address_of(out), address_of(f.parameters))


def slope(activation: Any, z: np.ndarray | None, a: np.ndarray, out: np.ndarray) -> None:
    """Apply the slope of an activation: out = da/dz, elementwise, for a = f(z)."""
    f = Activation(code_of(float_dtype("a", a)), activation)
    check_needed(z, f.needs_z, activation)
    check_slope(z, a, out)
    out[...] = 1
    _times_slope(f, a if z is None else z, a, out)


def _times_slope(f: Activation, z: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out *= f'(z)"""
    f.resolve("backward")
    if f.backward:
        arrays = map(address_of, (z, a, out, f.parameters))
        code_of(a.dtype).run("apply_backward", f.backward, out.size, *arrays)


def _product(A: np.ndarray, B: np.ndarray, init: np.ndarray | None = None) -> np.ndarray:
    """Return init + A B for any strides of A."""
    code = code_of(A.dtype)
    wide = padded(B, code.names["LANES"])
    ld = wide.shape[1]
    start = aligned(ld, A.dtype)
    if init is not None:
        start[: len(init)] = init
    out = aligned(len(A) * ld, A.dtype).reshape(len(A), ld)
    rs, cs = (stride // A.itemsize for stride in A.strides)
    addresses = map(address_of, (A, wide, out, start))
    a, b, c, begin = addresses
    code.run("product", len(A), ld, A.shape[1], a, rs, cs, b, ld, c, begin, 0)
    return out[:, : B.shape[1]]


def linear_forward(
    X: np.ndarray, W: np.ndarray, b: np.ndarray, activation: Any, out: np.ndarray, z: np.ndarray | None = None
) -> None:
    """Compute one layer forward: out = f(X W + b), and z = X W + b if a buffer for it is given."""
    Activation(code_of(float_dtype("X", X)), activation, hidden=False)  # refuses what is none
    check_linear_forward(X, W, b, out, z)
    product = _product(X, W, b)
    if z is not None:
        z[...] = product
    out[...] = product
    activate(activation, out, out)


def linear_backward(
    X: np.ndarray, W: np.ndarray, delta: np.ndarray, activation: Any, grad_W: np.ndarray, grad_b: np.ndarray,
    delta_below: np.ndarray | None = None, z: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Compute one layer backward.

    grad_W = X^T delta;  grad_b = column sums of delta;  delta_below = (delta W^T) * f'(z, X).
    """
    f = Activation(code_of(float_dtype("X", X)), activation)
    check_linear_backward(X, W, delta, grad_W, grad_b, delta_below, z)
    if delta_below is not None:
        check_needed(z, f.needs_z, activation)
    below = None if delta_below is None else _product(delta, W.T)
    gradient, sums = _product(X.T, delta), _product(np.ones((1, len(X)), X.dtype), delta)[0]
    if delta_below is not None:
        delta_below[...] = below
        _times_slope(f, X if z is None else z, X, delta_below)
    grad_W[...], grad_b[...] = gradient, sums


def softmax(logits: np.ndarray, out: np.ndarray) -> None:
    """Compute exp(z - max z) / sum_j exp(z_j - max z), row by row; out may be logits."""
    check_softmax(logits, out)
    code, (n, width) = code_of(logits.dtype), logits.shape
    z = padded(logits, code.names["LANES"])
    ld = z.shape[1]
    scratch = aligned(code.names["CLASS_ROWS"] * (ld + 2), logits.dtype)
    code.run("softmax", n, width, ld, address_of(z), address_of(out), address_of(scratch))


def loss(name: Any, logits: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None, delta: np.ndarray) -> float:
    """Compute the mean loss over the rows, and delta = d loss / d logits * sample_weight."""
    dtype = float_dtype("logits", logits)
    code = code_of(dtype)
    f = Loss(code, name, "name")
    check_loss(logits, sample_weight, delta)
    n, width = logits.shape
    check_targets(code, y, f.by_class, (n, width), dtype)
    total = sum_of_weights(sample_weight, n)
    z = padded(logits, code.names["LANES"])
    ld, wide = z.shape[1], aligned(z.size, dtype).reshape(z.shape)
    row_loss = np.empty(n)
    scratch = aligned(max(n, code.names["CLASS_ROWS"]) * (3 * width + 11), dtype)
    targets = (0, address_of(y)) if f.by_class else (address_of(y), 0)
    others = map(address_of, (sample_weight, wide, row_loss, scratch, f.parameters))
    code.run("loss", f.kind, f.find(), n, width, ld, address_of(z), *targets, *others)
    delta[...] = wide[:, :width]
    return float(row_loss.sum() / total)


def update(rule: str, params: np.ndarray, grad: np.ndarray, states: list[np.ndarray], scalars: Sequence[float]) -> None:
    """Take one optimizer step in place: params, *states = step(params, grad, *states, *scalars)."""
    _, numbers = check_update(formulas.OPTIMIZERS, rule, params, grad, states, scalars)
    values = np.array([*numbers, 0.0])
    # one block for all states, as the compiled rule wants them
    n, block = len(params), np.array([*states]) if states else np.empty((1, len(params)), params.dtype)
    code = code_of(params.dtype)
    code.run(
        "apply_rule", code.named(rule)("rule"), n, *map(address_of, (params, grad, block)), n * params.itemsize,
        address_of(values),
    )  # fmt: skip
    for state, new in zip(states, block, strict=False):
        state[...] = new
