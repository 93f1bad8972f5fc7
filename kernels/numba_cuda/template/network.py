"""Phases of a step; the kernels that are launched: an epoch, a prediction, a look for NaN and infinity."""

# ruff: noqa: F821

# --- network ---

# --- tiles of layers ------------------------------------------------------------------------------------------------


@device
def gather_row(d, s, i):
    """Row i of the chunk, dense and with its features dropped out, into INPUT."""
    width, threshold = entry(d, 0, FAN_IN), d.net[IN_THRESHOLD]
    tid, to = cuda.threadIdx.x, d.net[INPUT] + i * width
    row = d.order[U(s.first + i)] if s.gathered else s.first + i
    j = tid
    if d.net[SPARSE]:
        while j < width:
            d.work[U(to + j)] = ZERO
            j += THREADS
        cuda.syncthreads()
        e = d.indptr[U(row)] + tid
        while e < d.indptr[U(row + 1)]:
            column = d.indices[U(e)]
            d.work[U(to + column)] = d.X[U(e)] * mask_at(d, s, 0, threshold, i, width, column)
            e += THREADS
    else:
        while j < width:
            d.work[U(to + j)] = d.X[U(row * width + j)] * mask_at(d, s, 0, threshold, i, width, j)
            j += THREADS


@device
def forward_tile(d, s, shared, k, i0, j0):
    """Rows i0 .. and neurons j0 .. of layer k: the product, and what goes with it."""
    fan_in, fan_out, columns, ld = entry(d, k, FAN_IN), entry(d, k, FAN_OUT), TILE, LD
    source, at, gathered = d.work, d.net[INPUT], 0
    if k > 0:
        at = entry(d, k - 1, OUT)
    elif d.net[USE_INPUT] == 0:
        source, at, gathered = d.X, s.first * fan_in, s.gathered
        if gathered:
            at = 0
    if HAS_NARROW and k == d.net[NARROW_LAYER]:
        narrow(
            shared, d.work, at, fan_in, d.order, s.first, 0, d.params, entry(d, k, W), fan_out,
            s.rows, fan_out, fan_in, i0, j0,
        )  # fmt: skip
        columns, ld = COLUMNS, NARROW_LD
    else:
        product(
            shared, source, at, fan_in, d.order, s.first, gathered, d.params, entry(d, k, W), fan_out,
            s.rows, fan_out, fan_in, i0, j0,
        )  # fmt: skip
    stage_forward(d, s, shared, k, i0, j0, columns, ld)


@device
def backward_tile(d, s, shared, k, i0, j0):
    """Rows i0 .. and neurons j0 .. of the layer below k: delta_k W^T, and the way back of what goes with it."""
    fan_in, fan_out = entry(d, k, FAN_IN), entry(d, k, FAN_OUT)
    delta, weights = entry(d, k, DELTA), entry(d, k, W)
    if k == d.net[NARROW_LAYER]:
        narrow_nt(shared, d.work, delta, fan_out, d.params, weights, fan_out, s.rows, fan_in, fan_out, i0, j0)
    else:
        product_nt(
            shared, d.work, delta, fan_out, d.order, 0, 0, d.params, weights, fan_out, s.rows, fan_in, fan_out, i0, j0
        )  # fmt: skip
    stage_backward(d, s, shared, k - 1, i0, j0)


# --- phases -----------------------------------------------------------------------------------------------------------


@device
def rows_forward(d, s, shared, i0):
    """Rows i0 .. i0 + TILE through all layers."""
    if d.net[USE_INPUT]:
        for i in range(i0, min(i0 + TILE, s.rows)):
            gather_row(d, s, i)
    for k in range(d.net[N_LAYERS]):
        j0 = 0
        while j0 < entry(d, k, FAN_OUT):
            forward_tile(d, s, shared, k, i0, j0)
            j0 += TILE


@device
def tile_operation(d, s, shared, operation, i0, j0, spread):
    """One operation on rows i0 .. i0 + TILE: on all columns, or on columns j0 .. j0 + TILE."""
    n = d.net[N_LAYERS]
    if operation == n:
        cuda.syncthreads()
        loss_rows(d, s, shared, i0, min(i0 + TILE, s.rows))
        return
    k = operation if operation < n else 2 * n - operation
    width = entry(d, k, FAN_OUT) if operation < n else entry(d, k, FAN_IN)
    end = min(width, j0 + TILE) if spread else width
    while j0 < end:
        if operation < n:
            forward_tile(d, s, shared, k, i0, j0)
        else:
            backward_tile(d, s, shared, k, i0, j0)
        j0 += TILE


@device
def tiles_phase(d, s, shared, first, last, spread):
    """Operations one after the other on tiles of rows, or one operation on tiles of rows and columns."""
    n, across = d.net[N_LAYERS], 1
    if spread:
        width = entry(d, first, FAN_OUT) if first < n else entry(d, 2 * n - first, FAN_IN)
        across = (width + TILE - 1) // TILE
    t = s.block
    while t < across * ((s.rows + TILE - 1) // TILE):
        i0, j0 = t // across * TILE, t % across * TILE
        if first == 0 and spread == 0 and d.net[USE_INPUT]:
            for i in range(i0, min(i0 + TILE, s.rows)):
                gather_row(d, s, i)
        operation = first
        while operation < last:
            tile_operation(d, s, shared, operation, i0, j0, spread)
            operation += 1
        t += s.blocks


@device
def narrow_rows(d, s, shared, k, i0):
    """Z of rows i0 .. i0 + NARROW of layer k, which has at most COLUMNS neurons; the order of sums is that of tiles.

    A thread has one result of one group.  So few rows to a block let many blocks work.
    """
    fan_in, width, tid = entry(d, k, FAN_IN), entry(d, k, FAN_OUT), cuda.threadIdx.x
    group, i, j = tid // (NARROW * COLUMNS), tid // COLUMNS % NARROW, tid % COLUMNS
    at, weights, total, p0 = entry(d, k - 1, OUT) + i0 * fan_in, entry(d, k, W), ZERO, 0 * fan_in
    while p0 < fan_in:
        cuda.syncthreads()
        n, e = min(NARROW_DEPTH, fan_in - p0), tid
        while e < NARROW * NARROW_DEPTH:
            row, p, a = e // NARROW_DEPTH, e % NARROW_DEPTH, ZERO
            if i0 + row < s.rows and p < n:
                a = d.work[U(at + row * fan_in + p0 + p)]
            shared[U(e)] = a
            e += THREADS
        e = tid
        while e < NARROW_DEPTH * width:
            shared[U(NARROW * NARROW_DEPTH + e)] = d.params[U(weights + p0 * width + e)] if e < n * width else ZERO
            e += THREADS
        cuda.syncthreads()
        q = group * QUAD
        while q < NARROW_DEPTH and j < width:
            x_at, y_at = i * NARROW_DEPTH + q, NARROW * NARROW_DEPTH + q * width + j
            for p in range(QUAD):
                total += shared[U(x_at + p)] * shared[U(y_at + p * width)]
            q += GROUPS * QUAD
        p0 += NARROW_DEPTH
    half = 1
    while half < GROUPS:
        cuda.syncthreads()
        shared[U(tid)] = total
        cuda.syncthreads()
        if group % (2 * half) == 0:
            total += shared[U(tid + half * NARROW * COLUMNS)]
        half *= 2
    if group == 0 and j < width and i0 + i < s.rows:
        d.work[U(entry(d, k, Z) + (i0 + i) * width + j)] = total + d.params[U(entry(d, k, B) + j)]


@device
def narrow_phase(d, s, shared):
    """The output layer and the loss, NARROW rows at a time."""
    i0 = s.block * NARROW
    while i0 < s.rows:
        narrow_rows(d, s, shared, d.net[N_LAYERS] - 1, i0)
        cuda.syncthreads()
        loss_rows(d, s, shared, i0, min(i0 + NARROW, s.rows))
        i0 += s.blocks * NARROW


@device
def columns_phase(d, s, shared, kind, k):
    j0 = s.block * COLUMNS
    while j0 < entry(d, k, FAN_OUT):
        if kind == BATCH_FORWARD:
            batch_forward(d, s, shared, k, j0)
        else:
            batch_backward(d, s, shared, k, j0)
        j0 += s.blocks * COLUMNS


@device
def run_phase(d, s, shared, phase, alpha, l1, max_norm):
    at = phase * PHASE_COLUMNS
    kind, first = d.phases[U(at + PHASE)], d.phases[U(at + FIRST)]
    if kind == TILES:
        tiles_phase(d, s, shared, first, d.phases[U(at + LAST)], d.phases[U(at + SPREAD)])
    elif kind == NARROW_OUTPUT:
        narrow_phase(d, s, shared)
    elif kind in (BATCH_FORWARD, BATCH_BACKWARD):
        columns_phase(d, s, shared, kind, first)
    elif kind == SLICES:
        slices_phase(d, s, shared, alpha, l1)
    elif kind == UPDATE:
        if s.last:
            update_slices(d, s, shared, max_norm)
    else:
        i = s.block
        while i < s.rows:
            gather_row(d, s, i)
            i += s.blocks


# --- what is launched -------------------------------------------------------------------------------------------------


@kernel
def train(
    net, layers, phases, tasks, X, indptr, indices, y, classes, weight, order, params, states, grad, work, scalars,
    factors, masks, partials, first_step, last_step, first_chunk, last_chunk, first_phase, last_phase, offset,
    batch_size, n_rows, alpha, l1, max_norm,
):  # fmt: skip
    """Steps first_step .. last_step of an epoch; ``offset``: the step whose row is the first in the tables.

    Limits of chunks and phases are those of a whole step, but where each phase is a launch of its own.
    """
    quiet()
    d = Data(
        net, layers, phases, tasks, X, indptr, indices, y, classes, weight, order, params, states, grad, work, scalars,
        factors, masks, partials,
    )  # fmt: skip
    shared = cuda.shared.array(SHARED, REAL, alignment=16)
    grid = cuda.cg.this_grid()
    step = first_step
    while step < last_step:
        batch_rows = min(batch_size, n_rows - step * batch_size)
        n_chunks = (batch_rows + net[MAX_ROWS] - 1) // net[MAX_ROWS]
        chunk, end = first_chunk, min(last_chunk, n_chunks)
        while chunk < end:
            at = chunk * net[MAX_ROWS]
            rows = min(net[MAX_ROWS], batch_rows - at)
            last = 1 if chunk + 1 == n_chunks else 0
            first = step * batch_size + at
            s = Step(step - offset, first, at, rows, batch_rows, last, 1, 1, cuda.blockIdx.x, cuda.gridDim.x)
            phase = first_phase
            while phase < last_phase:
                run_phase(d, s, shared, phase, alpha, l1, max_norm)
                phase += 1
                if phase < last_phase or chunk + 1 < end or step + 1 < last_step:
                    grid.sync()
            chunk += 1
        step += 1


@kernel
def predict(net, layers, X, indptr, indices, order, params, work, masks, out, flags, first, rows, gathered):
    """out (rows, n_outputs) = link(logits) of rows first .. of X, or of the order; flags[0] = 1: one is not finite."""
    quiet()
    d = Data(
        net, layers, layers, layers, X, indptr, indices, X, indices, X, order, params, X, X, work, X, X, masks, X
    )  # fmt: skip
    s = Step(first * 0, first, first * 0, rows, rows, 1, gathered, 0, cuda.blockIdx.x, cuda.gridDim.x)
    shared = cuda.shared.array(SHARED, REAL, alignment=16)
    k = net[N_LAYERS] - 1
    width, tid, lane = entry(d, k, FAN_OUT), cuda.threadIdx.x, cuda.threadIdx.x % LANES
    i0 = s.block * TILE
    while i0 < rows:
        check_finite(d, s, flags, i0)
        rows_forward(d, s, shared, i0)
        cuda.syncthreads()
        for r in range(TILE * LANES // THREADS):
            i = i0 + r * (THREADS // LANES) + tid // LANES
            inside, z_at, at = i < rows, entry(d, k, Z) + i * width, i * width
            total = ONE
            if SOFTMAX_LINK:
                _, total = shifted_exponentials(work, z_at, out, at, width, shared, inside)
            j = lane
            while j < width and inside:
                out[U(at + j)] = out[U(at + j)] / total if SOFTMAX_LINK else link(work[U(z_at + j)])
                j += LANES
        i0 += s.blocks * TILE


@device
def check_finite(d, s, flags, i0):
    """Raise the flag if one of rows i0 .. i0 + TILE holds NaN or infinity."""
    width = entry(d, 0, FAN_IN)
    for i in range(i0, min(i0 + TILE, s.rows)):
        row = d.order[U(s.first + i)] if s.gathered else s.first + i
        e, end = row * width, row * width + width
        if d.net[SPARSE]:
            e, end = d.indptr[U(row)], d.indptr[U(row + 1)]
        e += cuda.threadIdx.x
        while e < end:
            x = d.X[U(e)]
            if x - x != ZERO:
                flags[0] = 1
            e += THREADS


@kernel
def finite_array(x, flags, n):
    """flags[0] = 1: one of n numbers is not finite."""
    quiet()
    i = cuda.grid(1)
    while i < n:
        if x[U(i)] - x[U(i)] != ZERO:
            flags[0] = 1
        i += cuda.gridsize(1)
