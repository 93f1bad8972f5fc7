"""What lies between two products: gathered rows, dropout, activations, batch normalisation; forward and backward."""

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
def mask(d, s, n, threshold, row, width, j):
    """What unit j in row ``row`` of the chunk is multiplied by; n: 0 for the features, k + 1 for layer k."""
    if threshold == 0 or s.training == 0:
        return ONE
    at = (s.number * d.net[N_LAYERS] + n) * 2
    index = np.uint64((s.at + row) * width + j) & LOW_32
    bits = mix((mix(index ^ d.masks[U(at)]) + d.masks[U(at + 1)]) & LOW_32) >> SHIFT_8
    return d.factors[U(n)] if bits >= np.uint64(threshold) else ZERO


# --- forward ----------------------------------------------------------------------------------------------------------


@device
def gather_row(d, s, i):
    """Row i of the chunk, dense and with its features dropped out, into INPUT."""
    width, threshold = entry(d, 0, FAN_IN), entry(d, 0, IN_THRESHOLD)
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
            d.work[U(to + column)] = d.X[U(e)] * mask(d, s, 0, threshold, i, width, column)
            e += THREADS
    else:
        while j < width:
            d.work[U(to + j)] = d.X[U(row * width + j)] * mask(d, s, 0, threshold, i, width, j)
            j += THREADS


@device
def stage(d, s, k, i, j, width, z):
    """a = f(z) of unit j in row i behind hidden layer k; in training also what the way back multiplies by."""
    kind, slope_at, at = entry(d, k, KIND), entry(d, k, SLOPE), i * width + j
    learned = ZERO
    if slope_at >= 0:
        learned = d.params[U(slope_at + j)]
    a = activation_value(kind, z, learned)
    if s.training == 0:
        d.work[U(entry(d, k, OUT) + at)] = a
        return
    factor = mask(d, s, k + 1, entry(d, k, THRESHOLD), i, width, j)
    d.work[U(entry(d, k, OUT) + at)] = a * factor
    d.work[U(entry(d, k, DELTA) + at)] = activation_slope(kind, z, a, learned) * factor
    if slope_at >= 0:
        d.work[U(entry(d, k, PRODUCT) + at)] = (ZERO if z > ZERO else z) * factor


@device
def forward_tile(d, s, shared, k, i0, j0):
    """Rows i0 .. and units j0 .. of layer k: z = A W + b, and a = f(z) where nothing comes between."""
    fan_in, fan_out = entry(d, k, FAN_IN), entry(d, k, FAN_OUT)
    source, at, gathered = d.work, d.net[INPUT], 0
    if k > 0:
        at = entry(d, k - 1, OUT)
    elif d.net[USE_INPUT] == 0:
        source, at, gathered = d.X, s.first * fan_in, s.gathered
        if gathered:
            at = 0
    product(
        shared, source, at, fan_in, d.order, s.first, gathered, d.params, entry(d, k, W), fan_out,
        s.rows, fan_out, fan_in, i0, j0,
    )  # fmt: skip
    plain = k + 1 < d.net[N_LAYERS] and d.net[BATCH_NORM] == 0
    e = cuda.threadIdx.x
    while e < TILE * TILE:
        i, j = e // TILE, e % TILE
        if i0 + i < s.rows and j0 + j < fan_out:
            z = shared[U(i * LD + j)] + d.params[U(entry(d, k, B) + j0 + j)]
            if plain:
                stage(d, s, k, i0 + i, j0 + j, fan_out, z)
            else:
                d.work[U(entry(d, k, Z) + (i0 + i) * fan_out + j0 + j)] = z
        e += THREADS


@device
def normalize_columns(d, s, shared, k, j0):
    """Batch normalisation of units j0 .. j0 + TILE of layer k, over all rows; then their activation."""
    tid, width = cuda.threadIdx.x, entry(d, k, FAN_OUT)
    j, at, first, n = j0 + tid % TILE, entry(d, k, Z), tid // TILE, REAL(s.rows)
    mean = column_sum(d, shared, at, width, j, s.rows) / n
    total, i = ZERO, first
    while i < s.rows and j < width:
        apart = d.work[U(at + i * width + j)] - mean
        total += apart * apart
        i += THREADS // TILE
    var = column_total(shared, total) / n
    if j >= width:
        return
    root, i = sqrt_(var + BATCH_NORM_EPS), first
    scale, shift = d.params[U(entry(d, k, SCALE) + j)], d.params[U(entry(d, k, SHIFT) + j)]
    while i < s.rows:
        normalised = (d.work[U(at + i * width + j)] - mean) / root
        d.work[U(at + i * width + j)] = normalised
        stage(d, s, k, i, j, width, scale * normalised + shift)
        i += THREADS // TILE
    if first == 0:
        d.work[U(entry(d, k, ROOT) + j)] = root
        unbiased = var * (n / REAL(max(s.rows - 1, 1)))
        to_mean, to_var = U(entry(d, k, MEAN) + j), U(entry(d, k, VAR) + j)
        d.params[to_mean] = OLD_SHARE * d.params[to_mean] + NEW_SHARE * mean
        d.params[to_var] = OLD_SHARE * d.params[to_var] + NEW_SHARE * unbiased


# --- backward ---------------------------------------------------------------------------------------------------------


@device
def delta_at(d, k):
    """Where the delta of layer k is in ``work``."""
    return d.net[DELTA_OUT] if k + 1 == d.net[N_LAYERS] else entry(d, k, DELTA)


@device
def backward_tile(d, s, shared, k, i0, j0):
    """Rows i0 .. and units j0 .. of the layer below k: delta = (delta_k W^T) * slope, where the slope lies."""
    fan_in, fan_out = entry(d, k, FAN_IN), entry(d, k, FAN_OUT)
    product_with_turned(
        shared, d.work, delta_at(d, k), fan_out, d.order, 0, 0, d.params, entry(d, k, W), fan_out,
        s.rows, fan_in, fan_out, i0, j0,
    )  # fmt: skip
    to, learned, e = entry(d, k - 1, DELTA), entry(d, k - 1, SLOPE) >= 0, cuda.threadIdx.x
    while e < TILE * TILE:
        i, j = e // TILE, e % TILE
        if i0 + i < s.rows and j0 + j < fan_in:
            at, x = (i0 + i) * fan_in + j0 + j, shared[U(i * LD + j)]
            d.work[U(to + at)] = x * d.work[U(to + at)]
            if learned:
                place = U(entry(d, k - 1, PRODUCT) + at)
                d.work[place] = x * d.work[place]
        e += THREADS


@device
def denormalize_columns(d, s, shared, k, j0):
    """From d loss / dy to d loss / dz of units j0 .. of layer k, y = scale zhat + shift; sums for scale and shift."""
    tid, width = cuda.threadIdx.x, entry(d, k, FAN_OUT)
    j, at, zhat, n = j0 + tid % TILE, entry(d, k, DELTA), entry(d, k, Z), REAL(s.rows)
    plain = column_sum(d, shared, at, width, j, s.rows)
    total, i = ZERO, tid // TILE
    while i < s.rows and j < width:
        total += d.work[U(at + i * width + j)] * d.work[U(zhat + i * width + j)]
        i += THREADS // TILE
    along = column_total(shared, total)
    if j >= width:
        return
    factor, i = d.params[U(entry(d, k, SCALE) + j)] / d.work[U(entry(d, k, ROOT) + j)], tid // TILE
    while i < s.rows:
        place = U(at + i * width + j)
        d.work[place] = factor * (d.work[place] - plain / n - d.work[U(zhat + i * width + j)] * (along / n))
        i += THREADS // TILE
    if tid < TILE:
        d.grad[U(entry(d, k, SCALE) + j)] = along
        d.grad[U(entry(d, k, SHIFT) + j)] = plain
