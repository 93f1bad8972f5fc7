"""What lies between two products, forward and backward beside each other: batch normalisation, activation, dropout.

The drivers (network.py, updates.py) know no option by name: they call the functions behind the line "all stages".  What
an option needs of a layer is declared in kernels/layer_table.py.
"""

import numpy as np
from numba import njit

from fastmlp.kernels.numba_cpu.template.math import *
from fastmlp.kernels.numba_cpu.template.products import *
from fastmlp.kernels.numba_cpu.template.rows import *
from fastmlp.kernels.numba_cpu.template.tables import *
from fastmlp.kernels.numba_cpu.template.teams import *

# --- network ---


# --- batch normalisation ---------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def normalize_forward(layer, team, member, lo, n, all_rows):
    """y = zhat * scale + shift, zhat = (x - mean) / std over all rows of the chunk; a member's rows lo .. lo + n."""
    ld, source, to = layer[LD_OUT], layer[ZHAT], layer[Z]
    if layer[BATCH_NORM] == NORM_AFTER:
        source, to = layer[A], layer[OUT]
    begin, end = columns_of(ld, member, team)
    width, offset = end - begin, begin * ITEM
    mean, inverse = reals(layer[MOMENTS] + offset, width), reals(layer[MOMENTS] + ld * ITEM + offset, width)
    mean[:] = REAL(0.0)
    inverse[:] = REAL(0.0)
    barrier(team)
    for r in range(all_rows):
        x = reals(source + r * ld * ITEM + offset, width)
        for j in range(width):
            mean[j] += x[j]
    for j in range(width):
        mean[j] /= REAL(all_rows)
    for r in range(all_rows):
        x = reals(source + r * ld * ITEM + offset, width)
        for j in range(width):
            d = x[j] - mean[j]
            inverse[j] += d * d
    for j in range(width):
        inverse[j] = REAL(1.0) / sqrt_(inverse[j] / REAL(all_rows) + REAL(1e-5))
    barrier(team)
    mean, inverse = reals(layer[MOMENTS], ld), reals(layer[MOMENTS] + ld * ITEM, ld)
    scale, shift = reals(layer[SCALE], ld), reals(layer[SHIFT], ld)
    for r in range(lo, lo + n):
        at = r * ld * ITEM
        x, zhat, y = reals(source + at, ld), reals(layer[ZHAT] + at, ld), reals(to + at, ld)
        for j in range(ld):
            normal = (x[j] - mean[j]) * inverse[j]
            zhat[j] = normal
            y[j] = normal * scale[j] + shift[j]


@njit(**OPTIONS)
def normalize_backward(net, layer, team, member, lo, n, all_rows):
    """delta = d loss / dy -> d loss / dx, rows lo .. lo + n; the gradients of scale and shift, over all rows."""
    ld = layer[LD_OUT]
    begin, end = columns_of(ld, member, team)
    width, offset = end - begin, begin * ITEM
    to_grad = net[GRAD] - net[PARAMS]
    grad_scale = reals(layer[SCALE] + to_grad + offset, width)
    grad_shift = reals(layer[SHIFT] + to_grad + offset, width)
    grad_scale[:] = REAL(0.0)
    grad_shift[:] = REAL(0.0)
    barrier(team)
    for r in range(all_rows):
        at = r * ld * ITEM + offset
        delta, zhat = reals(layer[DELTA] + at, width), reals(layer[ZHAT] + at, width)
        for j in range(width):
            grad_shift[j] += delta[j]
            grad_scale[j] += delta[j] * zhat[j]
    barrier(team)
    grad_scale, grad_shift = reals(layer[SCALE] + to_grad, ld), reals(layer[SHIFT] + to_grad, ld)
    scale, inverse = reals(layer[SCALE], ld), reals(layer[MOMENTS] + ld * ITEM, ld)
    share = REAL(1.0) / REAL(all_rows)
    for r in range(lo, lo + n):
        delta, zhat = reals(layer[DELTA] + r * ld * ITEM, ld), reals(layer[ZHAT] + r * ld * ITEM, ld)
        for j in range(ld):
            delta[j] = scale[j] * inverse[j] * (delta[j] - share * (grad_shift[j] + zhat[j] * grad_scale[j]))


@njit(**OPTIONS)
def update_running(layer, n):
    """A tenth of the way to the batch's moments, with the unbiased variance, as PyTorch counts."""
    ld, unbiased = layer[LD_OUT], n / max(n - 1, 1)
    mean, inverse = reals(layer[MOMENTS], ld), reals(layer[MOMENTS] + ld * ITEM, ld)
    running_mean, running_var = reals(layer[MEAN], ld), reals(layer[VAR], ld)
    for j in range(ld):
        inv = np.float64(inverse[j])
        var = 1.0 / (inv * inv) - 1e-5
        running_mean[j] = REAL(0.9 * np.float64(running_mean[j]) + 0.1 * np.float64(mean[j]))
        running_var[j] = REAL(0.9 * np.float64(running_var[j]) + 0.1 * var * unbiased)


# --- activation ------------------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def prelu_forward(n, ld, z, a, slopes):
    slope = reals(slopes, ld)
    for r in range(n):
        source, to = reals(z + r * ld * ITEM, ld), reals(a + r * ld * ITEM, ld)
        for j in range(ld):
            to[j] = select(source[j] > REAL(0.0), source[j], slope[j] * source[j])


@njit(**OPTIONS)
def prelu_backward(n, ld, z, delta, slopes, product):
    """delta *= slope; product = delta * z where z <= 0, whose sum is the gradient of the slope."""
    slope = reals(slopes, ld)
    for r in range(n):
        at = r * ld * ITEM
        source, d, to = reals(z + at, ld), reals(delta + at, ld), reals(product + at, ld)
        for j in range(ld):
            positive = source[j] > REAL(0.0)
            to[j] = select(positive, REAL(0.0), d[j] * source[j])
            d[j] = select(positive, d[j], d[j] * slope[j])


@njit(**OPTIONS)
def multiply(n, x, y):
    """y *= x"""
    factor, to = reals(x, n), reals(y, n)
    for i in range(n):
        to[i] *= factor[i]


@njit(**INLINE)
def draw_slopes(layer, call, step, k, first, n, source, address):
    """Random slopes of negative z in hidden layer k (Xu et al. 2015); a gradient alone is that of the mean slopes."""
    if call[RULE] and layer.view(np.float64)[SLOPE_SPREAD] > 0.0:
        key = mask_key(call[SEED], call[T] + step, k + 32768)  # so far from the layers of masks
        apply_slopes(
            key, layer.view(np.float64)[SLOPE_SPREAD], first, n, layer[FAN_OUT], layer[LD_OUT], source, address
        )


@njit(**OPTIONS)
def activation_forward(layers, call, step, k, at, r, n):
    """Rows r .. r + n of the chunk, which begins at row `at` of the batch: a = f(z)."""
    layer, training = layers[k], call[TRAINING] != 0
    first = at + r
    ld, at = layer[LD_OUT], r * layer[LD_OUT] * ITEM
    z, a = layer[Z] + at, layer[A] + at
    if layer[SLOPE]:
        prelu_forward(n, ld, z, a, layer[SLOPE])
    elif training and layer[FORWARD]:
        call_forward(layer[FORWARD], n * ld, z, a, layer[PARAMETERS])
    elif layer[VALUE]:
        if z != a:
            copy(a, z, n * ld * ITEM)
        call_value(layer[VALUE], n * ld, a, layer[PARAMETERS])
    elif z != a:
        copy(a, z, n * ld * ITEM)
    draw_slopes(layer, call, step, k, first, n, a, a)


@njit(**OPTIONS)
def activation_backward(layers, call, step, k, at, r, n):
    """Rows r .. r + n: delta = d loss / da -> d loss / dz."""
    layer, first = layers[k], at + r
    ld, at = layer[LD_OUT], r * layer[LD_OUT] * ITEM
    z, a, delta = layer[Z] + at, layer[A] + at, layer[DELTA] + at
    if layer[SLOPE]:
        prelu_backward(n, ld, z, delta, layer[SLOPE], layer[PRODUCT] + at)
    elif layer[FORWARD]:
        multiply(n * ld, z, delta)
    elif layer[BACKWARD]:
        call_backward(layer[BACKWARD], n * ld, z, a, delta, layer[PARAMETERS])
    draw_slopes(layer, call, step, k, first, n, a, delta)


# --- dropout ---------------------------------------------------------------------------------------------------------


@njit(**INLINE)
def drop(layers, call, step, k, first, n, address):
    """Drop neurons of hidden layer k."""
    layer = layers[k]
    key = mask_key(call[SEED], call[T] + step, k + 1)
    factor = REAL(1.0 / (1.0 - layer.view(np.float64)[RATE]))
    apply_mask(key, layer[THRESHOLD], factor, first, n, layer[FAN_OUT], layer[LD_OUT], address)


# --- all stages ------------------------------------------------------------------------------------------------------


@njit(**INLINE)
def product_place(layer):
    """Where the product of a layer goes."""
    return layer[ZHAT] if layer[BATCH_NORM] == NORM_BEFORE else layer[Z]


@njit(**OPTIONS)
def drop_forward(layers, call, step, k, at, r, n):
    """out = what comes before, with some neurons dropped; rows r .. r + n of the chunk, which begins at row `at`."""
    layer = layers[k]
    if call[TRAINING] and layer[THRESHOLD]:
        ld, offset = layer[LD_OUT], r * layer[LD_OUT] * ITEM
        if layer[BATCH_NORM] != NORM_AFTER:
            copy(layer[OUT] + offset, layer[A] + offset, n * ld * ITEM)
        drop(layers, call, step, k, at + r, n, layer[OUT] + offset)


@njit(**OPTIONS)
def stage_forward(layers, call, step, k, at, r, n):
    """What goes with the product of layer k: rows r .. r + n of the chunk, which begins at row `at` of the batch."""
    layer = layers[k]
    if layer[HIDDEN] and layer[BATCH_NORM] != NORM_BEFORE:
        activation_forward(layers, call, step, k, at, r, n)
        if not layer[WHOLE_BATCH]:
            drop_forward(layers, call, step, k, at, r, n)


@njit(**OPTIONS)
def batch_forward(layers, call, step, k, team, member, at, lo, n, all_rows):
    """What needs the whole batch, a chunk of all_rows, and what follows it; a member's rows lo .. lo + n."""
    layer = layers[k]
    normalize_forward(layer, team, member, lo, n, all_rows)
    if layer[BATCH_NORM] == NORM_BEFORE:
        activation_forward(layers, call, step, k, at, lo, n)
    drop_forward(layers, call, step, k, at, lo, n)


@njit(**OPTIONS)
def stage_backward(layers, call, step, k, at, r, n):
    """delta = d loss / d out of layer k -> what goes with the product that made it; rows r .. r + n of the chunk."""
    layer = layers[k]
    if layer[THRESHOLD]:
        drop(layers, call, step, k, at + r, n, layer[DELTA] + r * layer[LD_OUT] * ITEM)
    if layer[BATCH_NORM] != NORM_AFTER:
        activation_backward(layers, call, step, k, at, r, n)


@njit(**OPTIONS)
def batch_backward(net, layers, call, step, k, team, member, at, lo, n, all_rows):
    """Back through what needs the whole batch, and what comes before it; a member's rows lo .. lo + n."""
    layer = layers[k]
    normalize_backward(net, layer, team, member, lo, n, all_rows)
    if layer[BATCH_NORM] == NORM_AFTER:
        activation_backward(layers, call, step, k, at, lo, n)


@njit(**OPTIONS)
def bias_gradient(n, ld, source, to, accumulate):
    total = reals(to, ld)
    if not accumulate:
        total[:] = REAL(0.0)
    for r in range(n):
        row = reals(source + r * ld * ITEM, ld)
        for j in range(ld):
            total[j] += row[j]


@njit(**OPTIONS)
def clear_padding(layer, address, rows):
    """Zeros behind the true columns of rows of a gradient."""
    width, ld = layer[FAN_OUT], layer[LD_OUT]
    for r in range(rows):
        clear(address + (r * ld + width) * ITEM, ld - width)


@njit(**OPTIONS)
def vector_gradients(net, layer, n, accumulate):
    """Sums over n rows for a layer's arrays other than W; those of scale and shift are there already."""
    to_grad, ld = net[GRAD] - net[PARAMS], layer[LD_OUT]
    if layer[BATCH_NORM] == NORM_BEFORE:
        clear(layer[B] + to_grad, ld)  # the mean takes the bias away; its gradient is nothing but rounding
    else:
        bias_gradient(n, ld, layer[DELTA], layer[B] + to_grad, accumulate)
    if layer[SLOPE]:
        bias_gradient(n, ld, layer[PRODUCT], layer[SLOPE] + to_grad, accumulate)
    if layer[FORWARD]:
        clear_padding(layer, layer[B] + to_grad, 1)
        if layer[BATCH_NORM]:
            clear_padding(layer, layer[SCALE] + to_grad, 1)
            clear_padding(layer, layer[SHIFT] + to_grad, 1)


@njit(**OPTIONS)
def vectors_updated(layer, n):
    """What follows the update of a layer's arrays by a batch of n rows."""
    if layer[BATCH_NORM]:
        update_running(layer, n)
