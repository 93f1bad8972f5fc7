"""Rows of the caller -> buffers of the chunk, dense or CSR; the hash of dropout, which reference.py defines."""

import numpy as np
from numba import njit

from fastmlp.kernels.numba_cpu.template.math import *
from fastmlp.kernels.numba_cpu.template.tables import *

# --- network ---


@njit(**INLINE)
def splitmix(x):
    x = np.uint64(x + np.uint64(0x9E3779B97F4A7C15))
    x = np.uint64((x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    x = np.uint64((x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    return np.uint64(x ^ (x >> np.uint64(31)))


@njit(**INLINE)
def mix(x):
    x = np.uint32(x ^ np.uint32(x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ np.uint32(x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@njit(**INLINE)
def mask_key(seed, t, layer):
    return splitmix(np.uint64(splitmix(np.uint64(seed)) ^ np.uint64((t << 16) + layer)))


@njit(**INLINE)
def mask_at(index, k0, k1, threshold, factor):
    h = mix(np.uint32(mix(np.uint32(index ^ k0)) + k1))
    return select(np.uint32(h >> np.uint32(8)) >= threshold, factor, REAL(0.0))


@njit(**OPTIONS)
def apply_slopes(key, spread, first, n, width, ld, source, address):
    """Times what the drawn slope is of the mean slope, where the source is not positive; rows first .. first + n."""
    k0, k1 = np.uint32(key), np.uint32(key >> np.uint64(32))
    part, low = REAL(spread / 8388608.0), REAL(1.0 - spread + spread / 16777216.0)
    for r in range(n):
        a, row = reals(source + r * ld * ITEM, width), reals(address + r * ld * ITEM, width)
        start = np.uint32((first + r) * width)
        for j in range(width):
            h = mix(np.uint32(mix(np.uint32(np.uint32(start + np.uint32(j)) ^ k0)) + k1))
            factor = low + part * REAL(np.int32(np.uint32(h >> np.uint32(8))))
            row[j] *= select(a[j] > REAL(0.0), REAL(1.0), factor)


@njit(**OPTIONS)
def apply_mask(key, threshold, factor, first, n, width, ld, address):
    """Drop neurons of rows first .. first + n of the batch, in place."""
    k0, k1, least = np.uint32(key), np.uint32(key >> np.uint64(32)), np.uint32(threshold)
    for r in range(n):
        row = reals(address + r * ld * ITEM, width)
        start = np.uint32((first + r) * width)
        for j in range(width):
            row[j] *= mask_at(np.uint32(start + np.uint32(j)), k0, k1, least, factor)


# --- rows of the caller -> buffers of the chunk ----------------------------------------------------------------------


@njit(**INLINE)
def row_at(call, i):
    return long_at(call[ROWS] + 8 * i) if call[ROWS] else i


@njit(**INLINE)
def index_at(call, address, k):
    return long_at(address + 8 * k) if call[INDEX_IS_64] else np.int64(int_at(address + 4 * k))


@njit(**INLINE)
def entry_at(call, k):
    """Stored entry k of a sparse X."""
    return REAL(double_at(call[X] + 8 * k)) if call[X_IS_DOUBLE] else REAL(float_at(call[X] + 4 * k))


@njit(**INLINE)
def entries_at(call, row):
    """First and last + 1 of the stored entries of a sparse row; none if another thread has made nonsense of indptr."""
    begin, end = index_at(call, call[INDPTR], row), index_at(call, call[INDPTR], row + 1)
    if begin < 0 or end > call[STORED]:
        end = begin
    return begin, end


@njit(**OPTIONS)
def gather(call, first, n, width, ld, address):
    """out (n, ld) = rows first .. first + n of a dense X; whether they are finite."""
    step, finite = call[COLUMN_BYTES], True
    for r in range(n):
        out = reals(address + r * ld * ITEM, width)
        x = call[X] + row_at(call, first + r) * call[ROW_BYTES]
        if call[X_IS_DOUBLE]:
            if step == 8:
                for j in range(width):
                    out[j] = REAL(double_at(x + 8 * j))
            else:
                for j in range(width):
                    out[j] = REAL(double_at(x + step * j))
        elif step == 4:
            for j in range(width):
                out[j] = REAL(float_at(x + 4 * j))
        else:
            for j in range(width):
                out[j] = REAL(float_at(x + step * j))
        if not call[TRAINING]:
            wrong = 0
            for j in range(width):
                wrong += np.int64(out[j] * REAL(0.0) != REAL(0.0))
            finite = finite and wrong == 0
    return finite


@njit(**OPTIONS)
def sparse_forward(net, layers, call, step, first, at, n, z):
    """z = X W + b of sparse rows, without a dense copy; whether their entries are finite."""
    layer = layers[0]
    ld, finite = layer[LD_OUT], True
    key = mask_key(call[SEED], call[T] + step, 0)
    k0, k1, least = np.uint32(key), np.uint32(key >> np.uint64(32)), np.uint32(net[IN_THRESHOLD])
    drops = call[TRAINING] and net[IN_THRESHOLD] > 0
    factor = REAL(1.0)
    if drops:
        factor = REAL(1.0 / (1.0 - net.view(np.float64)[IN_RATE]))
    for r in range(n):
        row = row_at(call, first + r)
        copy(z + r * ld * ITEM, layer[B], ld * ITEM)
        out = reals(z + r * ld * ITEM, ld)
        begin_row, end_row = entries_at(call, row)
        for k in range(begin_row, end_row):
            column, x = index_at(call, call[INDICES], k), entry_at(call, k)
            if column < 0 or column >= layer[FAN_IN]:  # written to by another thread after the check
                continue
            finite = finite and x * REAL(0.0) == REAL(0.0)
            if drops:
                x *= mask_at(np.uint32((at + r) * layer[FAN_IN] + column), k0, k1, least, factor)
            w = reals(layer[W] + column * ld * ITEM, ld)
            for j in range(ld):
                out[j] += x * w[j]
    return finite


@njit(**OPTIONS)
def sparse_weight_gradient(net, layers, call, step, first, at, n, grad, begin, end):
    """grad += X^T delta of sparse rows, for columns begin .. end of X."""
    layer = layers[0]
    ld = layer[LD_OUT]
    key = mask_key(call[SEED], call[T] + step, 0)
    k0, k1, least = np.uint32(key), np.uint32(key >> np.uint64(32)), np.uint32(net[IN_THRESHOLD])
    drops, factor = net[IN_THRESHOLD] > 0, REAL(1.0)
    if drops:
        factor = REAL(1.0 / (1.0 - net.view(np.float64)[IN_RATE]))
    for r in range(n):
        row = row_at(call, first + r)
        d = reals(layer[DELTA] + r * ld * ITEM, ld)
        begin_row, end_row = entries_at(call, row)
        for k in range(begin_row, end_row):
            column, x = index_at(call, call[INDICES], k), entry_at(call, k)
            if column < begin or column >= end:
                continue
            if drops:
                x *= mask_at(np.uint32((at + r) * layer[FAN_IN] + column), k0, k1, least, factor)
            g = reals(grad + column * ld * ITEM, ld)
            for j in range(ld):
                g[j] += x * d[j]


@njit(**OPTIONS)
def gather_targets(net, layers, call, first, lo, n):
    """Targets and sample weights of n rows -> rows lo .. lo + n of the chunk's buffers."""
    width = layers[net[N_LAYERS] - 1, FAN_OUT]
    to = reals(net[TARGETS] + lo * width * ITEM, n * width)
    weight, classes = reals(net[WEIGHT] + lo * ITEM, n), longs(net[CLASSES] + 8 * lo, n)
    by_label = net[LOSS_KIND] & BY_LABEL
    for r in range(n):
        row = row_at(call, first + r)
        if by_label:
            classes[r] = long_at(call[Y] + 8 * row)
        else:
            y = reals(call[Y] + row * width * ITEM, width)
            for j in range(width):
                to[r * width + j] = y[j]
        if call[SAMPLE_WEIGHT]:
            weight[r] = reals(call[SAMPLE_WEIGHT] + row * ITEM, 1)[0]
