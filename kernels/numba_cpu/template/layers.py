"""What lies between two products: batch normalisation, activation, dropout; a layer forward and backward."""

import numpy as np
from numba import njit

from fastmlp.kernels.numba_cpu.template.math import *
from fastmlp.kernels.numba_cpu.template.products import *
from fastmlp.kernels.numba_cpu.template.rows import *
from fastmlp.kernels.numba_cpu.template.tables import *
from fastmlp.kernels.numba_cpu.template.teams import *

# --- network ---


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


@njit(**OPTIONS)
def stage_forward(layer, training, r, n):
    """Rows r .. r + n: a = f(z)."""
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


@njit(**OPTIONS)
def stage_backward(layer, r, n):
    """Rows r .. r + n: delta = d loss / da -> d loss / dz."""
    ld, at = layer[LD_OUT], r * layer[LD_OUT] * ITEM
    z, a, delta = layer[Z] + at, layer[A] + at, layer[DELTA] + at
    if layer[SLOPE]:
        prelu_backward(n, ld, z, delta, layer[SLOPE], layer[PRODUCT] + at)
    elif layer[FORWARD]:
        multiply(n * ld, z, delta)
    elif layer[BACKWARD]:
        call_backward(layer[BACKWARD], n * ld, z, a, delta, layer[PARAMETERS])


@njit(**OPTIONS)
def forward(net, layers, call, step, team, member, first, at, lo, n, all_rows):
    """Rows lo .. lo + n of a chunk of all_rows, a member's, through all layers; whether X is finite there.

    first, at: the chunk's first row in the order, and in the batch.
    """
    finite, training = True, call[TRAINING] != 0
    bottom = layers[0]
    if not call[INDPTR]:
        to = net[INPUT] + lo * bottom[LD_IN] * ITEM
        finite = gather(call, first + lo, n, bottom[FAN_IN], bottom[LD_IN], to)
        if training and net[IN_THRESHOLD]:
            factor = REAL(1.0 / (1.0 - doubles(net[IN_RATE], 1)[0]))
            key = mask_key(call[SEED], call[T] + step, 0)
            apply_mask(key, net[IN_THRESHOLD], factor, at + lo, n, bottom[FAN_IN], bottom[LD_IN], to)
    for k in range(net[N_LAYERS]):
        layer = layers[k]
        fan_in, ld_in, ld = layer[FAN_IN], layer[LD_IN], layer[LD_OUT]
        x = (layers[k - 1, OUT] if k else net[INPUT]) + lo * ld_in * ITEM
        hidden, norm = k + 1 < net[N_LAYERS], layer[BATCH_NORM]
        staged = hidden and norm != NORM_BEFORE  # the activation follows the product
        to = (layer[ZHAT] if norm == NORM_BEFORE else layer[Z]) + lo * ld * ITEM
        if k == 0 and call[INDPTR]:
            finite = sparse_forward(net, layers, call, step, first + lo, at + lo, n, to)
            if staged:
                stage_forward(layer, training, lo, n)
        else:
            block = block_rows(ld, fan_in)
            for r in range(0, n, block):
                m = min(block, n - r)
                source, target = x + r * ld_in * ITEM, to + r * ld * ITEM
                gemm(m, ld, fan_in, source, ld_in, 1, layer[W], ld, target, ld, layer[B], 0, block)
                if staged:
                    stage_forward(layer, training, lo + r, m)
        if norm:
            normalize_forward(layer, team, member, lo, n, all_rows)
        if norm == NORM_BEFORE:
            stage_forward(layer, training, lo, n)
        if training and hidden and layer[THRESHOLD]:
            out = lo * ld * ITEM
            if norm != NORM_AFTER:
                copy(layer[OUT] + out, layer[A] + out, n * ld * ITEM)
            drop(layers, call, step, k, at + lo, n, layer[OUT] + out)
    return finite


@njit(**OPTIONS)
def input_delta(net, layers, call, step, team, member, k, at, lo, n, all_rows):
    """delta of layer k - 1 = delta W^T of layer k, back through dropout, activation, normalisation; a member's rows."""
    layer, below = layers[k], layers[k - 1]
    ld, ld_in = layer[LD_OUT], layer[LD_IN]
    source, to = layer[DELTA] + lo * ld * ITEM, below[DELTA] + lo * ld_in * ITEM
    drops, norm = below[THRESHOLD] != 0, below[BATCH_NORM]
    block = block_rows(ld_in, layer[FAN_OUT])
    for r in range(0, n, block):
        m = min(block, n - r)
        target = to + r * ld_in * ITEM
        gemm(
            m, ld_in, layer[FAN_OUT], source + r * ld * ITEM, ld, 1, layer[WT], ld_in, target, ld_in,
            net[ZEROS], 0, block,
        )  # fmt: skip
        if drops:
            drop(layers, call, step, k - 1, at + lo + r, m, target)
        if norm != NORM_AFTER:
            stage_backward(below, lo + r, m)
    if norm:
        normalize_backward(net, below, team, member, lo, n, all_rows)
    if norm == NORM_AFTER:
        stage_backward(below, lo, n)
