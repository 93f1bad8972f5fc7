"""Gradients, penalties, the optimizer's step: a member works on a share of the parameters."""

import numpy as np
from numba import njit

from fastmlp.kernels.numba_cpu.template.losses import *
from fastmlp.kernels.numba_cpu.template.math import *
from fastmlp.kernels.numba_cpu.template.products import *
from fastmlp.kernels.numba_cpu.template.rows import *
from fastmlp.kernels.numba_cpu.template.stages import *
from fastmlp.kernels.numba_cpu.template.tables import *
from fastmlp.kernels.numba_cpu.template.teams import *

# --- network ---

SUMS = {**OPTIONS, "fastmath": {"nsz", "contract", "reassoc"}}  # in whichever order vectors like


@njit(**INLINE)
def share_at(net, member, team):
    """A member's share of the parameters; see LAYER_SHARES."""
    entries = net[SHARE_ENTRIES]
    return longs(net[SHARES] + 8 * entries * (member + 1 if team else 0), entries)


@njit(**OPTIONS)
def slice_gradients(net, layers, call, step, share, first, at, n):
    """Sums over the rows of the chunk, added to those of the chunks before it in the batch; a member's parameters.

    A formula of z may be infinite or NaN at the padding's 0, and sums over the padded vector must not see that.
    """
    to_grad, accumulate = net[GRAD] - net[PARAMS], at > 0
    for k in range(net[N_LAYERS]):
        layer = layers[k]
        begin, end = share[LAYER_SHARES + 3 * k], share[LAYER_SHARES + 3 * k + 1]
        rows, ld_in, ld = end - begin, layer[LD_IN], layer[LD_OUT]
        grad_w = layer[W] + begin * ld * ITEM + to_grad
        x = (layers[k - 1, OUT] if k else net[INPUT]) + begin * ITEM
        if rows == 0:
            pass
        elif k == 0 and call[INDPTR]:
            if not accumulate:
                clear(grad_w, rows * ld)
            sparse_weight_gradient(net, layers, call, step, first, at, n, layer[W] + to_grad, begin, end)
        else:
            init, stride = net[ZEROS], 0
            if accumulate:
                init, stride = grad_w, ld
            gemm(rows, ld, n, x, 1, ld_in, layer[DELTA], ld, grad_w, ld, init, stride, BLOCK_ROWS)
        if layer[FORWARD]:
            clear_padding(layer, grad_w, rows)
        if share[LAYER_SHARES + 3 * k + 2] == 0:
            continue
        vector_gradients(net, layer, n, accumulate)


@njit(**SUMS)
def part_of_squares(p):
    total = REAL(0.0)
    for k in range(len(p)):
        total += p[k] * p[k]
    return np.float64(total)


@njit(**SUMS)
def part_of_magnitudes(p):
    total = 0.0
    for k in range(len(p)):
        total += np.float64(abs(p[k]))
    return total


@njit(**OPTIONS)
def sum_parts(team, member, squares, address, n, to):
    """A member's parts of a sum of n squares or magnitudes: parts[i] is that of numbers i * PART .. (i + 1) * PART."""
    begin, end = share_of((n + PART - 1) // PART, member, team)
    parts = doubles(to, end)
    for i in range(begin, end):
        p = reals(address + i * PART * ITEM, min(PART, n - i * PART))
        parts[i] = part_of_squares(p) if squares else part_of_magnitudes(p)


@njit(**OPTIONS)
def sum_of_parts(n, address):
    """The sum of n numbers whose parts are known."""
    total, parts = 0.0, doubles(address, (n + PART - 1) // PART)
    for i in range(len(parts)):
        total += parts[i]
    return total


@njit(**OPTIONS)
def scale_gradient(net, begin, end, scale):
    g, s = reals(net[GRAD] + begin * ITEM, end - begin), REAL(scale)
    for i in range(end - begin):
        g[i] *= s


@njit(**OPTIONS)
def finish_gradient(net, share, alpha, l1, scale):
    """A member's part of the gradient as the caller of loss_and_grad sees it, penalty and scale included."""
    begin, n = share[WEIGHTS_FROM], share[WEIGHTS_TO] - share[WEIGHTS_FROM]
    p, g = reals(net[PARAMS] + begin * ITEM, n), reals(net[GRAD] + begin * ITEM, n)
    a, b, s = REAL(alpha), REAL(l1), REAL(scale)
    for i in range(n):
        sign = select(p[i] > REAL(0.0), REAL(1.0), select(p[i] < REAL(0.0), REAL(-1.0), REAL(0.0)))
        g[i] = (g[i] + a * p[i] + b * sign) * s
    scale_gradient(net, share[BIASES_FROM], share[BIASES_TO], scale)
    scale_gradient(net, share[UNITS_FROM], share[UNITS_TO], scale)


@njit(**OPTIONS)
def update_range(net, call, step, begin, end, alpha, l1, scale, keep):
    if begin < end:
        at = begin * ITEM
        call_rule(
            call[RULE], end - begin, net[PARAMS] + at, net[GRAD] + at, net[STATES] + at, net[STATE_BYTES],
            call[SCALARS] + 8 * step * call[N_SCALARS], alpha, l1, scale, keep,
        )  # fmt: skip


@njit(**OPTIONS)
def update(net, call, step, team, member, share, alpha, l1, scale, max_norm):
    """From the sums over the batch's rows to a member's new parameters."""
    keep = 1.0 - doubles(call[DECAYS] + 8 * step, 1)[0] if call[DECAYS] else 1.0
    if max_norm > 0.0:
        finish_gradient(net, share, alpha, l1, scale)
        n, parts = net[N_TRAINED], net[PARTS] + 16 * net[N_PARTS]
        barrier(team)
        sum_parts(team, member, True, net[GRAD], n, parts)
        barrier(team)
        factor = max_norm / (np.sqrt(sum_of_parts(n, parts)) + 1e-6)
        scale = 1.0 if factor >= 1.0 else factor  # lets NaN through
        alpha, l1 = 0.0, 0.0
    update_range(net, call, step, share[WEIGHTS_FROM], share[WEIGHTS_TO], alpha, l1, scale, keep)
    update_range(net, call, step, share[BIASES_FROM], share[BIASES_TO], 0.0, 0.0, scale, keep)
    update_range(net, call, step, share[UNITS_FROM], share[UNITS_TO], 0.0, 0.0, scale, keep)
