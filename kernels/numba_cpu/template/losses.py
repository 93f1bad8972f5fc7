"""Losses by rows; the others are formulas."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastmlp.kernels.numba_cpu.template.math import *
from fastmlp.kernels.numba_cpu.template.tables import *

# --- network ---

SUMS = {**OPTIONS, "fastmath": {"nsz", "contract", "reassoc"}}  # in whichever order vectors like

_VECTOR = ir.VectorType(_REAL, LANES)


def _vector_at(builder, address, k):
    """A pointer to vector k from an address on."""
    return builder.gep(builder.inttoptr(address, _VECTOR.as_pointer()), [k])


def _spread(builder, value):
    """A vector of one value, of whichever type."""
    vector, index = ir.VectorType(value.type, LANES), ir.IntType(32)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(index, 0))
    return builder.shuffle_vector(
        first, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(index, LANES), None)
    )


def _reduce(builder, vector, combine):
    """All lanes combined, half with half."""
    width = LANES
    while width > 1:
        width //= 2
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [*range(width, 2 * width), *range(LANES - width)])
        vector = combine(vector, builder.shuffle_vector(vector, vector, order))
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


@intrinsic
def shift_row(typingctx, z, t, n, ld):
    """t = z - max z of a row of n; the padding up to ld becomes what exp makes 0 of.  -> max z; NaN is no maximum."""

    def codegen(context, builder, signature, args):
        z, t, n, ld = args
        lowest, n = ir.Constant(_VECTOR, [-np.inf] * LANES), _spread(builder, n)
        best = cgutils.alloca_once_value(builder, lowest)
        count = builder.udiv(ld, ir.Constant(_LONG, LANES))
        lanes = ir.Constant(ir.VectorType(_LONG, LANES), list(range(LANES)))

        def row_vector(k):
            first = _spread(builder, builder.mul(k, ir.Constant(_LONG, LANES)))
            inside = builder.icmp_signed("<", builder.add(first, lanes), n)
            return builder.load(_vector_at(builder, z, k), align=ITEM), inside

        def greater(x, y):
            return builder.select(builder.fcmp_ordered(">", x, y), x, y)

        with cgutils.for_range(builder, count) as loop:
            values, inside = row_vector(loop.index)
            builder.store(greater(builder.select(inside, values, lowest), builder.load(best)), best)
        top = _reduce(builder, builder.load(best), greater)
        spread, far = _spread(builder, top), ir.Constant(_VECTOR, [float(EXP_LOW)] * LANES)
        with cgutils.for_range(builder, count) as loop:
            values, inside = row_vector(loop.index)
            shifted = builder.select(inside, builder.fsub(values, spread), far)
            builder.store(shifted, _vector_at(builder, t, loop.index), align=ITEM)
        return top

    return (types.float64 if DOUBLE else types.float32)(*[types.int64] * 4), codegen


@intrinsic
def sum_row(typingctx, t, ld):
    """The sum of a padded row."""

    def codegen(context, builder, signature, args):
        t, ld = args
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * LANES))
        with cgutils.for_range(builder, builder.udiv(ld, ir.Constant(_LONG, LANES))) as loop:
            values = builder.load(_vector_at(builder, t, loop.index), align=ITEM)
            builder.store(builder.fadd(builder.load(total), values), total)
        return _reduce(builder, builder.load(total), builder.fadd)

    return (types.float64 if DOUBLE else types.float32)(types.int64, types.int64), codegen


@intrinsic
def scale_row(typingctx, t, factor, out, ld):
    """out = t * factor, a padded row."""

    def codegen(context, builder, signature, args):
        t, factor, out, ld = args
        spread = _spread(builder, factor)
        with cgutils.for_range(builder, builder.udiv(ld, ir.Constant(_LONG, LANES))) as loop:
            values = builder.load(_vector_at(builder, t, loop.index), align=ITEM)
            builder.store(builder.fmul(values, spread), _vector_at(builder, out, loop.index), align=ITEM)
        return context.get_dummy_value()

    real = types.float64 if DOUBLE else types.float32
    return types.void(types.int64, real, types.int64, types.int64), codegen


@njit(**OPTIONS)
def shifted_exponentials(rows, n, ld, z, t, top_, sum_):
    """t (rows, ld) = exp(z - top); top and sum (rows,) the maximum and the sum of exponentials of each row."""
    top, total, e = reals(top_, rows), reals(sum_, rows), reals(t, rows * ld)
    for r in range(rows):
        top[r] = shift_row(z + r * ld * ITEM, t + r * ld * ITEM, n, ld)
    for i in range(rows * ld):
        e[i] = exp_(e[i])
    for r in range(rows):
        total[r] = sum_row(t + r * ld * ITEM, ld)


@njit(**OPTIONS)
def scaled(rows, ld, t, factor_, out):
    """out (rows, ld) = t * factor, row by row; the padding is 0 in both."""
    factor = reals(factor_, rows)
    for r in range(rows):
        scale_row(t + r * ld * ITEM, factor[r], out + r * ld * ITEM, ld)


@njit(**OPTIONS)
def softmax_rows(rows, n, ld, z, out, scratch):
    """out (rows, n), compact.  scratch: CLASS_ROWS * (ld + 2)"""
    top, total = scratch, scratch + CLASS_ROWS * ITEM
    t = total + CLASS_ROWS * ITEM
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z + r * ld * ITEM, t, top, total)
        factor = reals(total, m)
        for i in range(m):
            scale_row(t + i * ld * ITEM, REAL(1.0) / factor[i], t + i * ld * ITEM, ld)
            copy(out + (r + i) * n * ITEM, t + i * ld * ITEM, n * ITEM)


@njit(**OPTIONS)
def log_loss_rows(rows, n, ld, z_, classes_, weight_, delta_, row_loss_, scratch, parameters):
    """Label smoothing e: -sum_k t_k log p_k, t = (1 - e) onehot + e / n; delta = p - t.  e = 0: clipped log loss."""
    low, high = REAL(-np.log1p(-EPSILON)), REAL(-np.log(EPSILON))
    smoothing = doubles(parameters, 1)[0]
    on, off = REAL(1.0 - smoothing), REAL(smoothing / n)
    top_, sum_ = scratch, scratch + CLASS_ROWS * ITEM
    t = sum_ + CLASS_ROWS * ITEM
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z_ + r * ld * ITEM, t, top_, sum_)
        top, total, classes = reals(top_, m), reals(sum_, m), longs(classes_ + 8 * r, m)
        z, delta = reals(z_ + r * ld * ITEM, m * ld), reals(delta_ + r * ld * ITEM, m * ld)
        row_loss = doubles(row_loss_ + 8 * r, m)
        if smoothing > 0.0:
            for i in range(m):
                everything = REAL(0.0)
                for j in range(n):
                    everything += z[i * ld + j] - top[i]
                own = on * (z[i * ld + classes[i]] - top[i]) + off * everything
                row_loss[i] = np.float64(log_(total[i]) - own)
        else:
            for i in range(m):
                top[i] = z[i * ld + classes[i]] - top[i]
            for i in range(m):
                value = log_(total[i]) - top[i]
                value = select(value < low, low, value)
                row_loss[i] = np.float64(select(value > high, high, value))
        if weight_:
            weight = reals(weight_ + r * ITEM, m)
            for i in range(m):
                row_loss[i] *= np.float64(weight[i])
                total[i] = weight[i] / total[i]
        else:
            for i in range(m):
                total[i] = REAL(1.0) / total[i]
        scaled(m, ld, t, sum_, delta_ + r * ld * ITEM)
        for i in range(m):
            one = reals(weight_ + (r + i) * ITEM, 1)[0] if weight_ else REAL(1.0)
            if smoothing > 0.0:
                for j in range(n):
                    delta[i * ld + j] -= off * one
            delta[i * ld + classes[i]] -= on * one


@njit(**OPTIONS)
def focal_rows(rows, n, ld, z_, classes_, weight_, delta_, row_loss_, scratch, parameters):
    """-(1 - p)^g log p with p = p_c; delta = (p - onehot(c)) ((1 - p)^g - g (1 - p)^(g - 1) p log p)."""
    gamma = doubles(parameters, 1)[0]
    top_, sum_ = scratch, scratch + CLASS_ROWS * ITEM
    t_ = sum_ + CLASS_ROWS * ITEM
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z_ + r * ld * ITEM, t_, top_, sum_)
        top, total, classes = reals(top_, m), reals(sum_, m), longs(classes_ + 8 * r, m)
        t, z, row_loss = reals(t_, m * ld), reals(z_ + r * ld * ITEM, m * ld), doubles(row_loss_ + 8 * r, m)
        for i in range(m):
            others = 0.0  # the other classes' exponentials: 1 - p without cancellation
            for j in range(n):
                if j != classes[i]:
                    others += np.float64(t[i * ld + j])
            p, q = np.float64(t[i * ld + classes[i]]) / np.float64(total[i]), others / np.float64(total[i])
            w = np.float64(reals(weight_ + (r + i) * ITEM, 1)[0]) if weight_ else 1.0
            log_p = np.float64(z[i * ld + classes[i]] - top[i]) - np.log(np.float64(total[i]))
            if q < 0.5:
                log_p = np.log1p(-q)
            power = q**gamma
            slope = gamma * power / q * p * log_p if q > 0.0 else 0.0
            row_loss[i] = -power * log_p * w
            factor = (power - slope) * w
            top[i] = REAL(-q * factor)  # p_c - 1 without cancellation
            total[i] = REAL(factor / np.float64(total[i]))
        scaled(m, ld, t_, sum_, delta_ + r * ld * ITEM)
        delta = reals(delta_ + r * ld * ITEM, m * ld)
        for i in range(m):
            delta[i * ld + classes[i]] = top[i]


@njit(**OPTIONS)
def kl_rows(rows, n, ld, z_, y_, weight_, delta_, row_loss_, scratch):
    """sum_k y_k (log y_k - log p_k); delta = p sum(y) - y."""
    top_, sum_ = scratch, scratch + CLASS_ROWS * ITEM
    t_ = sum_ + CLASS_ROWS * ITEM
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z_ + r * ld * ITEM, t_, top_, sum_)
        top, total, y = reals(top_, m), reals(sum_, m), reals(y_ + r * n * ITEM, m * n)
        z, row_loss = reals(z_ + r * ld * ITEM, m * ld), doubles(row_loss_ + 8 * r, m)
        for i in range(m):
            w = reals(weight_ + (r + i) * ITEM, 1)[0] if weight_ else REAL(1.0)
            log_sum, value, everything = np.log(np.float64(total[i])), 0.0, 0.0
            for j in range(n):
                target = np.float64(y[i * n + j])
                everything += target
                entropy = target * np.log(target) if target > 0.0 else 0.0 * target
                value += entropy - target * (np.float64(z[i * ld + j] - top[i]) - log_sum)
            row_loss[i] = value * np.float64(w)
            total[i] = REAL(everything) * w / total[i]
        scaled(m, ld, t_, sum_, delta_ + r * ld * ITEM)
        delta = reals(delta_ + r * ld * ITEM, m * ld)
        for i in range(m):
            w = reals(weight_ + (r + i) * ITEM, 1)[0] if weight_ else REAL(1.0)
            for j in range(n):
                delta[i * ld + j] -= y[i * n + j] * w


@njit(**OPTIONS)
def loss_rows(kind, rows, n, ld, z, y, classes, weight, delta, row_loss, scratch, parameters):
    """Any loss: row_loss (rows,) = weight * loss, and delta = d loss / d z * weight.

    scratch: max(rows, CLASS_ROWS) * (3 * n + ld + 2); ld a multiple of LANES
    """
    if kind == SOFTMAX_LOSS:
        log_loss_rows(rows, n, ld, z, classes, weight, delta, row_loss, scratch, parameters)
    elif kind == FOCAL_LOSS:
        focal_rows(rows, n, ld, z, classes, weight, delta, row_loss, scratch, parameters)
    elif kind == KL_LOSS:
        kl_rows(rows, n, ld, z, y, weight, delta, row_loss, scratch)
    else:
        call_loss(kind, rows, n, ld, z, y, weight, delta, row_loss, scratch, parameters)
