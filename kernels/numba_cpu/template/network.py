"""The training epoch and prediction: what is called from Python.

The flow is that of cython/network.h, where the same steps stand in C.  Several threads may work on one training: each
calls `train` with the same tables and a number of its own, its member number.  A chunk has two phases, with a barrier
after each: by rows (forward, loss, deltas) and by parameters (gradient and update).  No sum is split between members,
so the bits do not depend on their number.
"""

import numpy as np
from numba import njit

from fastmlp.kernels.numba_cpu.template.losses import *
from fastmlp.kernels.numba_cpu.template.math import *
from fastmlp.kernels.numba_cpu.template.products import *
from fastmlp.kernels.numba_cpu.template.rows import *
from fastmlp.kernels.numba_cpu.template.stages import *
from fastmlp.kernels.numba_cpu.template.tables import *
from fastmlp.kernels.numba_cpu.template.teams import *
from fastmlp.kernels.numba_cpu.template.updates import *

# --- network ---


@njit(**INLINE)
def tables(net_, layers_, call_):
    """The three tables at their addresses: unlike arrays from Python, nobody counts references to these."""
    net = longs(net_, NET_ENTRIES)
    layers = longs(layers_, net[N_LAYERS] * LAYER_COLUMNS).reshape(net[N_LAYERS], LAYER_COLUMNS)
    return net, layers, longs(call_, CALL_ENTRIES)


@njit(**OPTIONS)
def pack(net, team, member, flat, padded):
    """A member's rows of a vector as the caller sees it -> the padded vector."""
    segments = longs(net[SEGMENTS], 5 * net[N_SEGMENTS])
    for s in range(net[N_SEGMENTS]):
        at, to = segments[5 * s], segments[5 * s + 1]
        width, ld = segments[5 * s + 3], segments[5 * s + 4]
        begin, end = share_of(segments[5 * s + 2], member, team)
        for i in range(begin, end):
            row = reals(padded + (to + i * ld) * ITEM, ld)
            copy(padded + (to + i * ld) * ITEM, flat + (at + i * width) * ITEM, width * ITEM)
            for j in range(width, ld):  # NaN times its zeros may have spoilt the padding
                row[j] = REAL(0.0)


@njit(**OPTIONS)
def unpack(net, team, member, padded, flat):
    """And back."""
    segments = longs(net[SEGMENTS], 5 * net[N_SEGMENTS])
    for s in range(net[N_SEGMENTS]):
        at, to = segments[5 * s], segments[5 * s + 1]
        width, ld = segments[5 * s + 3], segments[5 * s + 4]
        begin, end = share_of(segments[5 * s + 2], member, team)
        for i in range(begin, end):
            copy(flat + (at + i * width) * ITEM, padded + (to + i * ld) * ITEM, width * ITEM)


@njit(**OPTIONS)
def outside(address, n, limit):
    """Whether one of n indices is not in [0, limit)."""
    wrong, indices = 0, longs(address, n)
    for i in range(n):
        wrong |= np.int64(indices[i] < 0) | np.int64(indices[i] >= limit)
    return wrong != 0


@njit(**OPTIONS)
def points_outside(call):
    """Whether a row or a class of an epoch does not exist; they may have been edited since the epoch before."""
    if not call[X_ROWS]:
        return False
    if outside(call[ROWS], call[N_ROWS], call[X_ROWS]):
        return True
    return call[N_CLASSES] > 0 and outside(call[Y], call[X_ROWS], call[N_CLASSES])


@njit(**OPTIONS)
def transpose_weights(net, layers, share):
    for k in range(1, net[N_LAYERS]):
        layer, begin, end = layers[k], share[LAYER_SHARES + 3 * k], share[LAYER_SHARES + 3 * k + 1]
        transpose(begin, end, layer[FAN_OUT], layer[LD_OUT], layer[W], layer[LD_IN], layer[WT])


@njit(**OPTIONS)
def forward(net, layers, call, step, team, member, first, at, lo, n, all_rows):
    """Rows lo .. lo + n of a chunk of all_rows, a member's, through all layers; whether X is finite there.

    first, at: the chunk's first row in the order, and in the batch.
    """
    finite, bottom = True, layers[0]
    if not call[INDPTR]:
        to = net[INPUT] + lo * bottom[LD_IN] * ITEM
        finite = gather(call, first + lo, n, bottom[FAN_IN], bottom[LD_IN], to)
        if call[TRAINING] and net[IN_THRESHOLD]:
            factor = REAL(1.0 / (1.0 - net.view(np.float64)[IN_RATE]))
            key = mask_key(call[SEED], call[T] + step, 0)
            apply_mask(key, net[IN_THRESHOLD], factor, at + lo, n, bottom[FAN_IN], bottom[LD_IN], to)
    for k in range(net[N_LAYERS]):
        layer = layers[k]
        fan_in, ld_in, ld = layer[FAN_IN], layer[LD_IN], layer[LD_OUT]
        x = (layers[k - 1, OUT] if k else net[INPUT]) + lo * ld_in * ITEM
        to = product_place(layer) + lo * ld * ITEM
        if k == 0 and call[INDPTR]:
            finite = sparse_forward(net, layers, call, step, first + lo, at + lo, n, to)
            stage_forward(layers, call, step, k, at, lo, n)
        else:
            block = block_rows(ld, fan_in)
            for r in range(0, n, block):
                m = min(block, n - r)
                source, target = x + r * ld_in * ITEM, to + r * ld * ITEM
                gemm(m, ld, fan_in, source, ld_in, 1, layer[W], ld, target, ld, layer[B], 0, block)
                stage_forward(layers, call, step, k, at, lo + r, m)
        if layer[WHOLE_BATCH]:
            batch_forward(layers, call, step, k, team, member, at, lo, n, all_rows)
    return finite


@njit(**OPTIONS)
def input_delta(net, layers, call, step, team, member, k, at, lo, n, all_rows):
    """delta of layer k - 1 = delta W^T of layer k, back through the stages between; a member's rows."""
    layer, below = layers[k], layers[k - 1]
    ld, ld_in = layer[LD_OUT], layer[LD_IN]
    source, to = layer[DELTA] + lo * ld * ITEM, below[DELTA] + lo * ld_in * ITEM
    block = block_rows(ld_in, layer[FAN_OUT])
    for r in range(0, n, block):
        m = min(block, n - r)
        gemm(
            m, ld_in, layer[FAN_OUT], source + r * ld * ITEM, ld, 1, layer[WT], ld_in, to + r * ld_in * ITEM, ld_in,
            net[ZEROS], 0, block,
        )  # fmt: skip
        stage_backward(layers, call, step, k - 1, at, lo + r, m)
    if below[WHOLE_BATCH]:
        batch_backward(net, layers, call, step, k - 1, team, member, at, lo, n, all_rows)


@njit(**INLINE)
def add_rows(net, weights, member, n, loss, weight):
    """loss plus the losses of n rows, for member 0 only; weight plus the weights of these rows."""
    if member == 0:
        row_loss = doubles(net[ROW_LOSS], n)
        for i in range(n):
            loss += row_loss[i]
    if weights == 0:
        return loss, weight + n
    w = reals(weights, n)
    for i in range(n):
        weight += np.float64(w[i])
    return loss, weight


@njit(**OPTIONS)
def train_step(net, layers, call, step, team, member, alpha, l1, max_norm):
    """-> sum of the rows' losses with the penalty, for member 0 only; sum of weights; weight 0: nothing was done.

    All members take the same way through the barriers: what they decide by is the same for all.
    """
    start = step * call[BATCH_SIZE]
    rows = min(call[BATCH_SIZE], call[N_ROWS] - start)
    loss, weight, last = 0.0, 0.0, net[N_LAYERS] - 1
    top, share = layers[last], share_at(net, member, team)
    scratch = net[SCRATCH] + member * net[SCRATCH_BYTES]
    squares, magnitudes = net[PARTS], net[PARTS] + 8 * net[N_PARTS]
    weights = net[WEIGHT] if call[SAMPLE_WEIGHT] else 0
    if alpha != 0.0:  # summed here, where a barrier follows anyway
        sum_parts(team, member, True, net[PARAMS], net[N_WEIGHTS], squares)
    if l1 != 0.0:
        sum_parts(team, member, False, net[PARAMS], net[N_WEIGHTS], magnitudes)
    for r in range(0, rows, net[MAX_ROWS]):
        n = min(net[MAX_ROWS], rows - r)
        lo, hi = rows_of(n, member, team)
        gather_targets(net, layers, call, start + r + lo, lo, hi - lo)
        forward(net, layers, call, step, team, member, start + r, r, lo, hi - lo, n)
        z, top_weights = lo * top[LD_OUT] * ITEM, weights + lo * ITEM if weights else 0
        loss_rows(
            net[LOSS_KIND], net[LOSS], hi - lo, top[FAN_OUT], top[LD_OUT], top[Z] + z,
            net[TARGETS] + lo * top[FAN_OUT] * ITEM, net[CLASSES] + 8 * lo, top_weights, top[DELTA] + z,
            net[ROW_LOSS] + 8 * lo, scratch, net[LOSS_PARAMETERS],
        )  # fmt: skip
        for k in range(last, 0, -1):
            input_delta(net, layers, call, step, team, member, k, r, lo, hi - lo, n)
        barrier(team)
        loss, weight = add_rows(net, weights, member, n, loss, weight)
        slice_gradients(net, layers, call, step, share, start + r, r, n)
        if r + n < rows:
            barrier(team)  # the next chunk takes the place of this one
    if weight == 0.0:
        barrier(team)
        return 0.0, 0.0
    if member == 0:
        if alpha != 0.0:
            loss += 0.5 * alpha * sum_of_parts(net[N_WEIGHTS], squares)
        if l1 != 0.0:
            loss += l1 * sum_of_parts(net[N_WEIGHTS], magnitudes)
    if call[RULE]:
        update(net, call, step, team, member, share, alpha, l1, 1.0 / weight, max_norm)
        transpose_weights(net, layers, share)
        if member == 0:
            for k in range(last):
                vectors_updated(layers[k], rows)
    else:
        finish_gradient(net, share, alpha, l1, 1.0 / weight)
    barrier(team)
    return loss, weight


@njit(**KERNEL)
def train(net_, layers_, call_, team, member, alpha, l1, max_norm):
    """Steps FIRST .. LAST of an epoch; -> sum of the batches' losses times their rows, for member 0.

    DONE counts the steps: fewer than LAST where a batch's weights sum to zero, -1 where an index points outside.
    team: the address of its cells, 0 for one that works alone; where a member gives up before all are here, the others
    do nothing.  A member other than 0 looks at no table after the last barrier: its caller may be gone.
    """
    if team and not meet(team, True):
        if member == 0:
            longs(team, TEAM_CELLS)[GAVE_UP] = 1
        return 0.0
    net, layers, call = tables(net_, layers_, call_)
    step, last, unpacks = call[FIRST], call[LAST], call[UNPACK] != 0
    if call[PACK]:
        if member == 0 and points_outside(call):
            call[DONE] = -1
        pack(net, team, member, call[FLAT], net[PARAMS])
        for k in range(net[N_STATES]):
            pack(net, team, member, long_at(call[FLAT_STATES] + 8 * k), net[STATES] + k * net[STATE_BYTES])
        barrier(team)
        wrong = call[DONE] < 0
        if not wrong:
            transpose_weights(net, layers, share_at(net, member, team))
        barrier(team)
        if wrong:
            return 0.0
    total = 0.0
    while step < last:
        loss, weight = train_step(net, layers, call, step, team, member, alpha, l1, max_norm)
        if weight == 0.0:
            break
        if member == 0:
            rows = min(call[BATCH_SIZE], call[N_ROWS] - step * call[BATCH_SIZE])
            total += loss / weight * rows
            call[DONE] = step + 1
        step += 1
    if unpacks or step < last:
        if call[RULE]:
            unpack(net, team, member, net[PARAMS], call[FLAT])
            for k in range(net[N_STATES]):
                states = net[STATES] + k * net[STATE_BYTES]
                unpack(net, team, member, states, long_at(call[FLAT_STATES] + 8 * k))
        else:
            unpack(net, team, member, net[GRAD], call[OUTPUT])
        barrier(team)
        if member == 0:
            call[UNPACKED] = 1
    return total


@njit(**KERNEL)
def predict(net_, layers_, call_):
    """OUTPUT = link(logits) of rows FIRST .. LAST; whether they were finite."""
    net, layers, call = tables(net_, layers_, call_)
    if call[PACK]:
        pack(net, 0, 0, call[FLAT], net[PARAMS])
    top = layers[net[N_LAYERS] - 1]
    n_outputs, finite, first = top[FAN_OUT], True, call[FIRST]
    while first < call[LAST]:
        n = min(net[MAX_ROWS], call[LAST] - first)
        finite = forward(net, layers, call, 0, 0, 0, first, 0, 0, n, n) and finite
        out = call[OUTPUT] + first * n_outputs * ITEM
        if net[LINK] == SOFTMAX:
            softmax_rows(n, n_outputs, top[LD_OUT], top[Z], out, net[SCRATCH])
        else:
            for r in range(n):
                copy(out + r * n_outputs * ITEM, top[Z] + r * top[LD_OUT] * ITEM, n_outputs * ITEM)
            if net[LINK]:
                call_value(net[LINK], n * n_outputs, out, 0)
        first += n
    return finite


@njit(**KERNEL)
def out_of_range(address, n, limit):
    """See outside."""
    return outside(address, n, limit)
