"""Losses, from logits: terms of rows of softmax, or formulas of single logits."""

import numpy as np
from numba import njit

from fastmlp.kernels.numba_cpu.template.math import *
from fastmlp.kernels.numba_cpu.template.tables import *

# --- network ---


@njit(**OPTIONS)
def shifted_exponentials(rows, n, ld, z_, t_, top_, sum_):
    """t (n, rows) = exp(z^T - top); top and sum (rows,) the maximum and the sum of exponentials of each row."""
    z, t, top, total = reals(z_, rows * ld), reals(t_, n * rows), reals(top_, rows), reals(sum_, rows)
    for r in range(rows):
        for j in range(n):
            t[j * rows + r] = z[r * ld + j]
        top[r], total[r] = t[r], REAL(0.0)
    for j in range(1, n):
        for r in range(rows):
            top[r] = select(t[j * rows + r] > top[r], t[j * rows + r], top[r])
    for j in range(n):
        for r in range(rows):
            e = exp_(t[j * rows + r] - top[r])
            t[j * rows + r] = e
            total[r] += e


@njit(**OPTIONS)
def scaled_transpose(rows, n, ld, t_, factor_, out_):
    """out (rows, ld) = t^T * factor, row by row; padding columns become 0."""
    t, factor, out = reals(t_, n * rows), reals(factor_, rows), reals(out_, rows * ld)
    for r in range(rows):
        for j in range(n):
            out[r * ld + j] = t[j * rows + r] * factor[r]
        for j in range(n, ld):
            out[r * ld + j] = REAL(0.0)


@njit(**OPTIONS)
def softmax_rows(rows, n, ld, z, out, scratch):
    """out (rows, n), compact.  scratch: CLASS_ROWS * (n + 2)"""
    top, total = scratch, scratch + CLASS_ROWS * ITEM
    t = total + CLASS_ROWS * ITEM
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z + r * ld * ITEM, t, top, total)
        factor = reals(total, m)
        for i in range(m):
            factor[i] = REAL(1.0) / factor[i]
        scaled_transpose(m, n, n, t, total, out + r * n * ITEM)


@njit(**OPTIONS)
def sum_of_others(rows, n, t_, rest_):
    """rest (rows,) = the sums of the exponentials t (n, rows), each without one of the largest, which are 1."""
    t, rest = reals(t_, n * rows), reals(rest_, rows)
    for r in range(rows):
        others, tops = REAL(0.0), REAL(-1.0)
        for j in range(n):
            e = t[j * rows + r]
            others += select(e == REAL(1.0), REAL(0.0), e)
            tops += select(e == REAL(1.0), REAL(1.0), REAL(0.0))
        rest[r] = others + tops


@njit(**OPTIONS)
def softmax_loss(kind, terms, rows, n, ld, z_, y_, classes_, weight_, delta_, row_loss_, scratch, parameters):
    """sum_k f(y_k, log p_k), delta_k = s_k - p_k sum_j s_j with the slopes s_k = df / d log p_k.

    Where only the label's output has a term, nothing else is computed.
    """
    every, by_label, block = kind & EVERY_OUTPUT, kind & BY_LABEL, CLASS_ROWS * ITEM
    top_, sum_, log_sum_, rest_, total_, target_ = [scratch + k * block for k in range(6)]
    log_p_, p_, q_, value_, slope_ = [scratch + k * block for k in range(6, 11)]
    t_, count = slope_ + n * block, n if every else 1
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z_ + r * ld * ITEM, t_, top_, sum_)
        if kind & READS_P:
            sum_of_others(m, n, t_, rest_)
        top, sums, log_sum, rest = reals(top_, m), reals(sum_, m), reals(log_sum_, m), reals(rest_, m)
        total, target, log_p, p, q = reals(total_, m), reals(target_, m), reals(log_p_, m), reals(p_, m), reals(q_, m)
        value, slope, t = reals(value_, m), reals(slope_, count * CLASS_ROWS), reals(t_, n * m)
        z, y, classes = reals(z_ + r * ld * ITEM, m * ld), reals(y_ + r * n * ITEM, m * n), longs(classes_ + 8 * r, m)
        delta, row_loss = reals(delta_ + r * ld * ITEM, m * ld), doubles(row_loss_ + 8 * r, m)
        for i in range(m):
            log_sum[i], total[i], row_loss[i] = log_(sums[i]), REAL(0.0), 0.0
        for k in range(count):
            for i in range(m):
                j = k if every else classes[i]
                if by_label:
                    target[i] = REAL(1.0) if j == classes[i] else REAL(0.0)
                else:
                    target[i] = y[i * n + j]
                log_p[i], p[i] = z[i * ld + j] - top[i] - log_sum[i], t[j * m + i]
            if kind & READS_P:
                for i in range(m):  # no digits lost near p = 1
                    q[i] = select(p[i] == REAL(1.0), rest[i] / sums[i], REAL(1.0) - p[i] / sums[i])
                    p[i] /= sums[i]
            call_terms(terms, m, n, target_, log_p_, p_, q_, value_, slope_ + k * block, parameters)
            for i in range(m):
                row_loss[i] += np.float64(value[i])
                total[i] += slope[k * CLASS_ROWS + i]
        for i in range(m):
            w = reals(weight_ + (r + i) * ITEM, 1)[0] if weight_ else REAL(1.0)
            row_loss[i] *= np.float64(w)
            sums[i] = -total[i] * w / sums[i]
        scaled_transpose(m, n, ld, t_, sum_, delta_ + r * ld * ITEM)
        for k in range(count):
            for i in range(m):
                w = reals(weight_ + (r + i) * ITEM, 1)[0] if weight_ else REAL(1.0)
                delta[i * ld + (k if every else classes[i])] += slope[k * CLASS_ROWS + i] * w


@njit(**OPTIONS)
def loss_rows(kind, function, rows, n, ld, z, y, classes, weight, delta, row_loss, scratch, parameters):
    """Any loss: row_loss (rows,) = weight * loss, and delta = d loss / d z * weight.

    scratch: max(rows, CLASS_ROWS) * (3 * n + 11)
    """
    if kind:
        softmax_loss(kind, function, rows, n, ld, z, y, classes, weight, delta, row_loss, scratch, parameters)
    else:
        call_loss(function, rows, n, ld, z, y, weight, delta, row_loss, scratch, parameters)
