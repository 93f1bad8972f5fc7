"""Many nets at once: a launch in which each block trains a net of its own, and waits for no other block.

The weights of a net lie in the block's shared memory from its first step of the launch to its last one; the optimizer's
states lie behind them if there is room, else they stay where they are.  The phases of a step are those of a net that
has all blocks (network.py), with a barrier of the block after each.  So each sum has the same order.

The nets of a launch may differ in widths, rows, batches, rates, penalties, dropout and seeds: whatever is in tables.
They have activations, loss and rule in common, which are code.
"""

# ruff: noqa: F821

# --- network ---

#: Columns of ``places``, which has a row for each block: where the net's part of each vector begins; how many phases a
#: step has; whether the states lie in shared memory; rows of a batch, rows and steps of an epoch, steps of the call.
PLACES = (
    "net", "layers", "phases", "tasks", "X", "indptr", "indices", "y", "classes", "weight", "order", "params", "states",
    "work", "scalars", "factors", "masks", "partials", "n_phases", "states_inside", "batch", "rows", "steps", "n_steps",
)  # fmt: skip
(
    AT_NET, AT_LAYERS, AT_PHASES, AT_TASKS, AT_X, AT_INDPTR, AT_INDICES, AT_Y, AT_CLASSES, AT_WEIGHT, AT_ORDER,
    AT_PARAMS, AT_STATES, AT_WORK, AT_SCALARS, AT_FACTORS, AT_MASKS, AT_PARTIALS, N_PHASES, STATES_INSIDE, BATCH,
    EPOCH_ROWS, EPOCH_STEPS, N_STEPS,
) = range(24)  # fmt: skip
PLACE_COLUMNS = 24
# columns of ``strengths``: alpha, l1, the most that the norm of a gradient may be
STRENGTHS = 3


@device
def copied(to, to_at, source, source_at, n):
    """Copy n numbers; the caller lets the block wait."""
    i = cuda.threadIdx.x
    while i < n:
        to[U(to_at + i)] = source[U(source_at + i)]
        i += THREADS


@device
def own_step(d, shared, number, first, batch_rows, n_phases, alpha, l1, max_norm):
    """A step of a net that one block has: its chunks one after the other, its phases one after the other."""
    at, zero = 0 * first, 0 * first
    while at < batch_rows:
        rows = min(d.net[MAX_ROWS], batch_rows - at)
        last = 1 if at + rows == batch_rows else 0
        s = Step(number, first + at, at, rows, batch_rows, last, 1, 1, zero, zero + 1)
        phase = zero
        while phase < n_phases:
            run_phase(d, s, shared, phase, alpha, l1, max_norm)
            cuda.syncthreads()
            phase += 1
        at += rows


@kernel
def train_many(
    places, strengths, net, layers, phases, tasks, X, indptr, indices, y, classes, weight, order, params, states, grad,
    work, scalars, factors, masks, partials, first_step, last_step, offset,
):  # fmt: skip
    """Steps first_step .. last_step of each net; ``offset``: the step whose row is the first in the tables.

    A net with fewer steps ends with its last one.
    """
    quiet()
    own = places[cuda.blockIdx.x * PLACE_COLUMNS :]
    step, last = first_step, min(last_step, own[N_STEPS])
    if step >= last:
        return
    shared = cuda.shared.array(SHARED, REAL, alignment=16)
    inside = cuda.shared.array(0, REAL)
    table = net[own[AT_NET] :]
    n, at = table[N_PARAMS], own[AT_STATES]
    copied(inside, 0, params, own[AT_PARAMS], n)
    kept = states[at:]
    if own[STATES_INSIDE] > 0:
        kept = inside[n:]
        copied(kept, 0, states, at, own[STATES_INSIDE])
    cuda.syncthreads()
    d = Data(
        table, layers[own[AT_LAYERS] :], phases[own[AT_PHASES] :], tasks[own[AT_TASKS] :], X[own[AT_X] :],
        indptr[own[AT_INDPTR] :], indices[own[AT_INDICES] :], y[own[AT_Y] :], classes[own[AT_CLASSES] :],
        weight[own[AT_WEIGHT] :], order[own[AT_ORDER] :], inside, kept, grad[own[AT_PARAMS] :], work[own[AT_WORK] :],
        scalars[own[AT_SCALARS] :], factors[own[AT_FACTORS] :], masks[own[AT_MASKS] :], partials[own[AT_PARTIALS] :],
    )  # fmt: skip
    place = cuda.blockIdx.x * STRENGTHS
    alpha, l1, max_norm = strengths[U(place)], strengths[U(place + 1)], strengths[U(place + 2)]
    while step < last:
        epoch, k = step // own[EPOCH_STEPS], step % own[EPOCH_STEPS]
        at = k * own[BATCH]
        batch_rows, first = min(own[BATCH], own[EPOCH_ROWS] - at), epoch * own[EPOCH_ROWS] + at
        own_step(d, shared, step - offset, first, batch_rows, own[N_PHASES], alpha, l1, max_norm)
        step += 1
    copied(params, own[AT_PARAMS], inside, 0, n)
    if own[STATES_INSIDE] > 0:
        copied(states, own[AT_STATES], kept, 0, own[STATES_INSIDE])
