"""What lies between two products, forward and backward beside each other: batch normalisation, activation, dropout.

The drivers (network.py, updates.py) know no option by name: they call stage_forward and stage_backward on the tile of a
product, batch_forward and batch_backward where an option needs the whole batch, and vector_gradient for a layer's
arrays.  What an option needs of a layer is declared in kernels/layer_table.py.
"""

# ruff: noqa: F821

# --- network ---

# --- dropout ----------------------------------------------------------------------------------------------------------

LOW_32 = np.uint64(0xFFFFFFFF)
MIX_1, MIX_2 = np.uint64(0x7FEB352D), np.uint64(0x846CA68B)
SHIFT_8, SHIFT_15, SHIFT_16 = np.uint64(8), np.uint64(15), np.uint64(16)


@device
def mix(x):
    x = x ^ (x >> SHIFT_16)
    x = (x * MIX_1) & LOW_32
    x = x ^ (x >> SHIFT_15)
    x = (x * MIX_2) & LOW_32
    return x ^ (x >> SHIFT_16)


@device
def mask_at(d, s, n, threshold, row, width, j):
    """What neuron j in row ``row`` of the chunk is multiplied by; n: 0 for the features, k + 1 for layer k."""
    if threshold == 0 or s.training == 0:
        return ONE
    at = (s.number * d.net[N_LAYERS] + n) * 2
    index = np.uint64((s.at + row) * width + j) & LOW_32
    bits = mix((mix(index ^ d.masks[U(at)]) + d.masks[U(at + 1)]) & LOW_32) >> SHIFT_8
    return d.factors[U(n)] if bits >= np.uint64(threshold) else ZERO


# --- activation -------------------------------------------------------------------------------------------------------


@device
def stage_of(d, s, k):
    """What :func:`activation_forward` reads of hidden layer k.

    Where a is normalised yet, it goes to Z, and is dropped after that.
    """
    to, threshold = entry(d, k, OUT), entry(d, k, THRESHOLD)
    if s.training and entry(d, k, BATCH_NORM) == NORM_AFTER:
        to, threshold = entry(d, k, Z), 0 * threshold
    return Stage(
        entry(d, k, FAN_OUT), entry(d, k, KIND), entry(d, k, SLOPE), to, entry(d, k, DELTA), entry(d, k, PRODUCT),
        threshold,
    )  # fmt: skip


@device
def activation_forward(d, s, k, stage, i, j, z):
    """a = f(z) of neuron j in row i of hidden layer k; in training also what the way back multiplies by."""
    learned, at = ZERO, i * stage.width + j
    if stage.learned_at >= 0:
        learned = d.params[U(stage.learned_at + j)]
    a = activation_value(stage.kind, z, learned)
    if s.training == 0:
        d.work[U(stage.to + at)] = a
        return
    factor = mask_at(d, s, k + 1, stage.threshold, i, stage.width, j)
    d.work[U(stage.to + at)] = a * factor
    d.work[U(stage.slope_at + at)] = activation_slope(stage.kind, z, a, learned) * factor
    if stage.learned_at >= 0:
        d.work[U(stage.product_at + at)] = (ZERO if z > ZERO else z) * factor


# --- batch normalisation ----------------------------------------------------------------------------------------------


@device
def batch_forward(d, s, shared, k, j0):
    """y = scale zhat + shift of neurons j0 .. j0 + COLUMNS of layer k, over all rows; then the stage that follows."""
    tid, width = cuda.threadIdx.x, entry(d, k, FAN_OUT)
    j, at, first, n = j0 + tid % COLUMNS, entry(d, k, Z), tid // COLUMNS, REAL(s.rows)
    mean = column_sum(d, shared, at, width, j, s.rows) / n
    total, i = ZERO, first
    while i < s.rows and j < width:
        apart = d.work[U(at + i * width + j)] - mean
        total += apart * apart
        i += THREADS // COLUMNS
    var = column_total(shared, total) / n
    if j >= width:
        return
    root, i = sqrt_(var + BATCH_NORM_EPS), first
    scale, shift = d.params[U(entry(d, k, SCALE) + j)], d.params[U(entry(d, k, SHIFT) + j)]
    stage, before = stage_of(d, s, k), entry(d, k, BATCH_NORM) == NORM_BEFORE
    while i < s.rows:
        normalised = (d.work[U(at + i * width + j)] - mean) / root
        d.work[U(at + i * width + j)] = normalised
        y = scale * normalised + shift
        if before:
            activation_forward(d, s, k, stage, i, j, y)
        else:
            factor = mask_at(d, s, k + 1, entry(d, k, THRESHOLD), i, width, j)
            d.work[U(entry(d, k, OUT) + i * width + j)] = y * factor
            d.work[U(entry(d, k, DELTA_Y) + i * width + j)] = factor
        i += THREADS // COLUMNS
    if first == 0:
        d.work[U(entry(d, k, MOMENTS) + j)] = root
        unbiased = var * (n / REAL(max(s.rows - 1, 1)))
        to_mean, to_var = U(entry(d, k, MEAN) + j), U(entry(d, k, VAR) + j)
        d.params[to_mean] = OLD_SHARE * d.params[to_mean] + NEW_SHARE * mean
        d.params[to_var] = OLD_SHARE * d.params[to_var] + NEW_SHARE * unbiased


@device
def batch_backward(d, s, shared, k, j0):
    """From d loss / dy to d loss / dx of neurons j0 .. of layer k, y = scale zhat + shift; sums for scale and shift.

    Where x is the activation, the way back goes on through its slope, which lies in DELTA.
    """
    tid, width = cuda.threadIdx.x, entry(d, k, FAN_OUT)
    j, at, zhat, n = j0 + tid % COLUMNS, entry(d, k, DELTA_Y), entry(d, k, Z), REAL(s.rows)
    to, product_at, learned = entry(d, k, DELTA), entry(d, k, PRODUCT), entry(d, k, SLOPE) >= 0
    after = entry(d, k, BATCH_NORM) == NORM_AFTER
    plain = column_sum(d, shared, at, width, j, s.rows)
    total, i = ZERO, tid // COLUMNS
    while i < s.rows and j < width:
        total += d.work[U(at + i * width + j)] * d.work[U(zhat + i * width + j)]
        i += THREADS // COLUMNS
    along = column_total(shared, total)
    if j >= width:
        return
    factor, i = d.params[U(entry(d, k, SCALE) + j)] / d.work[U(entry(d, k, MOMENTS) + j)], tid // COLUMNS
    while i < s.rows:
        e = i * width + j
        x = factor * (d.work[U(at + e)] - plain / n - d.work[U(zhat + e)] * (along / n))
        if after and learned:
            d.work[U(product_at + e)] = x * d.work[U(product_at + e)]
        d.work[U(to + e)] = x * d.work[U(to + e)] if after else x
        i += THREADS // COLUMNS
    if tid < COLUMNS:
        d.grad[U(entry(d, k, SCALE) + j)] = along
        d.grad[U(entry(d, k, SHIFT) + j)] = plain


# --- all stages -------------------------------------------------------------------------------------------------------


@device
def stage_forward(d, s, shared, k, i0, j0, columns, ld):
    """What goes with the product of layer k, rows i0 .. and neurons j0 .. in ``shared``: bias, then the stages.

    ``shared`` holds ``columns`` neurons, and ``ld`` numbers from one row to the next.
    """
    stage, z_at = stage_of(d, s, k), entry(d, k, Z)
    staged = entry(d, k, HIDDEN) != 0 and entry(d, k, BATCH_NORM) != NORM_BEFORE
    i, j = cuda.threadIdx.x // columns, cuda.threadIdx.x % columns
    if j0 + j < stage.width:
        bias, end = d.params[U(entry(d, k, B) + j0 + j)], min(TILE, s.rows - i0)
        while i < end:
            z = shared[U(i * ld + j)] + bias
            if staged:
                activation_forward(d, s, k, stage, i0 + i, j0 + j, z)
            else:
                d.work[U(z_at + (i0 + i) * stage.width + j0 + j)] = z
            i += THREADS // columns


@device
def stage_backward(d, s, shared, k, i0, j0):
    """From d loss / d(what layer k hands on), a tile in ``shared``, back through what goes with its product."""
    width, to, product_at = entry(d, k, FAN_OUT), entry(d, k, DELTA_Y), entry(d, k, PRODUCT)
    learned = entry(d, k, SLOPE) >= 0 and entry(d, k, BATCH_NORM) != NORM_AFTER
    i, j = cuda.threadIdx.x // TILE, cuda.threadIdx.x % TILE
    slopes = cuda.local.array(AHEAD, REAL)
    end = min(TILE, s.rows - i0) if j0 + j < width else 0 * width
    while i < end:
        at = (i0 + i) * width + j0 + j
        for r in range(AHEAD):
            if i + r * (THREADS // TILE) < end:
                slopes[r] = d.work[U(to + at + r * (THREADS // TILE) * width)]
        for r in range(AHEAD):
            if i + r * (THREADS // TILE) < end:
                x, place = shared[U((i + r * (THREADS // TILE)) * LD + j)], at + r * (THREADS // TILE) * width
                d.work[U(to + place)] = x * slopes[r]
                if learned:
                    d.work[U(product_at + place)] = x * d.work[U(product_at + place)]
        i += AHEAD * (THREADS // TILE)


@device
def vector_gradient(d, s, shared, kind, k, j, width):
    """Gradient of entry j of an array of layer k other than W; those of scale and shift are there already."""
    g = ZERO
    if kind == ARRAY_SLOPE:
        g = column_sum(d, shared, entry(d, k, PRODUCT), width, j, s.rows)
    elif kind != ARRAY_B:
        if j < width:
            g = d.grad[U(entry(d, k, W + kind) + j)]
    elif entry(d, k, BATCH_NORM) != NORM_BEFORE:  # or the mean takes the bias away; the sum is nothing but rounding
        g = column_sum(d, shared, entry(d, k, DELTA), width, j, s.rows)
    return g
