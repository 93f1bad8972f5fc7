"""Device code of the CUDA engine: the steps of an epoch, a prediction, and the kernels by name.

Where it sits: a template.  codegen.py copies its text behind the settings and the formulas of one combination of
activations, loss and rule (:func:`codegen.cuda_module`); driver.py imports the result.  Names that are not
defined here come from that head: REAL and the other constants, ``device``, ``kernel``, ``record``, exp_, log_ ...,
``product`` and the formulas.

An epoch is one cooperative launch.  A step is a list of phases, made on the host, with a barrier of the whole grid
after each: either one in which every block takes its rows through all layers and back, or one per layer and
direction, whose tiles are spread over all blocks; then UNITS, in which every block takes tiles of W through gradient,
penalty and update.  No number is summed by more than one block, and within a block in a fixed order: the result
does not depend on timing.  Between barriers no block reads what another writes.

Shapes: all matrices are C-contiguous within one vector, ``work``, but for X, and for the parameters and gradients,
which are laid out as on the host.  ``shared`` has SHARED numbers; every function that writes it begins with a barrier
of the block, so that whoever reads it need not end with one.  ``U`` makes an index unsigned: Numba then need not look
for negative ones.
"""

# ruff: noqa: F821

# --- network ---

Data = record(
    namedtuple(
        "Data",
        # tables of integers (see the constants below), then the rows of the fit
        "net layers phases tasks X indptr indices y classes weight order "
        # flat vectors; activations and deltas; and for each step its scalars, keys of its masks, sums of its tasks
        "params states grad work scalars factors masks partials",
    )
)
#: A chunk of a batch: the step's row in the tables, its first row in ``order``, its first row in the batch, its rows,
#: those of the batch, whether it is the last chunk, whether rows are found through ``order``, whether it is training.
Step = record(namedtuple("Step", "number first at rows batch_rows last gathered training"))

# entries of ``net``
N_LAYERS, N_PARAMS, N_TRAINED, N_TASKS, MAX_ROWS, USE_INPUT, INPUT = 0, 1, 2, 3, 4, 5, 6
SPARSE, WEIGHTED, STORE, ROW_LOSS, DELTA_OUT, CLIPPED = 7, 8, 9, 10, 11, 12
NET_ENTRIES = 13
# columns of ``layers``: places in ``params`` (-1: has none), places in ``work``, sizes
FAN_IN, FAN_OUT, W, B, SLOPE, SCALE, SHIFT, MEAN, VAR, KIND = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
Z, OUT, DELTA, PRODUCT, ROOT, THRESHOLD = 10, 11, 12, 13, 14, 15  # THRESHOLD: of dropout behind the layer
IN_THRESHOLD = 16  # of the features, in the bottom layer's row
BATCH_NORM, DELTA_Y = 17, 18  # DELTA_Y: of d loss / d(normalised activation); DELTA where that is not normalised
LAYER_COLUMNS = 19
NO_NORM, NORM_BEFORE, NORM_AFTER = 0, 1, 2  # in BATCH_NORM: what is normalised, of the activation's input and output
# kinds of phases
GATHER, TILES, NORMALIZE_FORWARD, NORMALIZE_BACKWARD, UNITS, UPDATE = 0, 1, 2, 3, 4, 5
# columns of ``phases``: kind; layer, or of TILES the first operation and the one behind the last, and whether the
# columns, too, are spread over the blocks.  Operations on a tile of rows: 0 .. N_LAYERS - 1 forward, N_LAYERS the loss,
# then backward from the top layer to the second
PHASE, FIRST, LAST, SPREAD = 0, 1, 2, 3
PHASE_COLUMNS = 4
# kinds of tasks of UNITS: (kind, layer, first row, first column)
TASK_W, TASK_B, TASK_SLOPE, TASK_SCALE, TASK_SHIFT, TASK_LOSS = 0, 1, 2, 3, 4, 5
TASK_COLUMNS = 4
# columns of ``partials``: of W the sums of squares and of magnitudes (of TASK_LOSS: the loss), of the gradient squares
PARTIALS = 3
# columns of ``scalars`` before the rule's own: 1 / (sum of sample weights), 1 - decay
INVERSE, KEEP = 0, 1
# losses by rows
BY_FORMULA, LOG_LOSS, FOCAL, KL_DIVERGENCE = 0, 1, 2, 3

ZERO, ONE = REAL(0.0), REAL(1.0)
LOWEST = REAL(-math.inf)
BATCH_NORM_EPS = REAL(1e-5)
OLD_SHARE, NEW_SHARE = REAL(0.9), REAL(0.1)


@device
def entry(d, k, column):
    """An entry of a layer's row."""
    return d.layers[U(k * LAYER_COLUMNS + column)]


# --- sums within a block ----------------------------------------------------------------------------------------------


@device
def block_sum(shared, value):
    """The sum of all threads' values, for all of them."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = value
    cuda.syncthreads()
    if tid < SIDE:
        part = ZERO
        for i in range(SIDE):
            part += shared[U(tid * SIDE + i)]
        shared[U(THREADS + tid)] = part
    cuda.syncthreads()
    total = ZERO
    for i in range(SIDE):
        total += shared[U(THREADS + i)]
    return total


@device
def lanes_sum(shared, value):
    """The sum over the SIDE threads that share a row."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = value
    cuda.syncthreads()
    first, total = tid - tid % SIDE, ZERO
    for i in range(SIDE):
        total += shared[U(first + i)]
    return total


@device
def lanes_max(shared, value):
    """The largest value of the SIDE threads that share a row; NaN is no maximum."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = value
    cuda.syncthreads()
    first, best = tid - tid % SIDE, LOWEST
    for i in range(SIDE):
        if shared[U(first + i)] > best:
            best = shared[U(first + i)]
    return best


@device
def column_total(shared, part):
    """For the thread of each of TILE columns: the sum of what the threads of its column have; others get nonsense."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = part
    cuda.syncthreads()
    total, i = ZERO, tid % TILE
    while i < THREADS:
        total += shared[U(i)]
        i += TILE
    return total


@device
def column_sum(d, shared, at, width, j, rows):
    """:func:`column_total` of column j of a matrix (rows, width) in ``work``."""
    total, i = ZERO, cuda.threadIdx.x // TILE
    while i < rows and j < width:
        total += d.work[U(at + i * width + j)]
        i += THREADS // TILE
    return column_total(shared, total)


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
            d.work[U(to + column)] = d.X[U(e)] * mask_at(d, s, 0, threshold, i, width, column)
            e += THREADS
    else:
        while j < width:
            d.work[U(to + j)] = d.X[U(row * width + j)] * mask_at(d, s, 0, threshold, i, width, j)
            j += THREADS


@device
def stage_forward(d, s, k, i, j, width, z):
    """a = f(z) of unit j in row i of hidden layer k; in training also what the way back multiplies by.

    Where a is normalised yet, it goes to Z, and is dropped after that.
    """
    kind, slope_at, at = entry(d, k, KIND), entry(d, k, SLOPE), i * width + j
    learned = ZERO
    if slope_at >= 0:
        learned = d.params[U(slope_at + j)]
    a = activation_value(kind, z, learned)
    if s.training == 0:
        d.work[U(entry(d, k, OUT) + at)] = a
        return
    to, factor = entry(d, k, OUT), ONE
    if entry(d, k, BATCH_NORM) == NORM_AFTER:
        to = entry(d, k, Z)
    else:
        factor = mask_at(d, s, k + 1, entry(d, k, THRESHOLD), i, width, j)
    d.work[U(to + at)] = a * factor
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
    staged = k + 1 < d.net[N_LAYERS] and entry(d, k, BATCH_NORM) != NORM_BEFORE
    e = cuda.threadIdx.x
    while e < TILE * TILE:
        i, j = e // TILE, e % TILE
        if i0 + i < s.rows and j0 + j < fan_out:
            z = shared[U(i * LD + j)] + d.params[U(entry(d, k, B) + j0 + j)]
            if staged:
                stage_forward(d, s, k, i0 + i, j0 + j, fan_out, z)
            else:
                d.work[U(entry(d, k, Z) + (i0 + i) * fan_out + j0 + j)] = z
        e += THREADS


# --- batch normalisation ----------------------------------------------------------------------------------------------


@device
def normalize_forward(d, s, shared, k, j0):
    """y = scale zhat + shift of units j0 .. j0 + TILE of layer k, over all rows; then the stage that follows."""
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
        y = scale * normalised + shift
        if entry(d, k, BATCH_NORM) == NORM_BEFORE:
            stage_forward(d, s, k, i, j, width, y)
        else:
            factor = mask_at(d, s, k + 1, entry(d, k, THRESHOLD), i, width, j)
            d.work[U(entry(d, k, OUT) + i * width + j)] = y * factor
            d.work[U(entry(d, k, DELTA_Y) + i * width + j)] = factor
        i += THREADS // TILE
    if first == 0:
        d.work[U(entry(d, k, ROOT) + j)] = root
        unbiased = var * (n / REAL(max(s.rows - 1, 1)))
        to_mean, to_var = U(entry(d, k, MEAN) + j), U(entry(d, k, VAR) + j)
        d.params[to_mean] = OLD_SHARE * d.params[to_mean] + NEW_SHARE * mean
        d.params[to_var] = OLD_SHARE * d.params[to_var] + NEW_SHARE * unbiased


@device
def normalize_backward(d, s, shared, k, j0):
    """From d loss / dy to d loss / dx of units j0 .. of layer k, y = scale zhat + shift; sums for scale and shift.

    Where x is the activation, the way back goes on through its slope, which lies in DELTA.
    """
    tid, width = cuda.threadIdx.x, entry(d, k, FAN_OUT)
    j, at, zhat, n = j0 + tid % TILE, entry(d, k, DELTA_Y), entry(d, k, Z), REAL(s.rows)
    to, product_at, after = entry(d, k, DELTA), entry(d, k, PRODUCT), entry(d, k, BATCH_NORM) == NORM_AFTER
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
        e = i * width + j
        x = factor * (d.work[U(at + e)] - plain / n - d.work[U(zhat + e)] * (along / n))
        if after and product_at >= 0:
            d.work[U(product_at + e)] = x * d.work[U(product_at + e)]
        d.work[U(to + e)] = x * d.work[U(to + e)] if after else x
        i += THREADS // TILE
    if tid < TILE:
        d.grad[U(entry(d, k, SCALE) + j)] = along
        d.grad[U(entry(d, k, SHIFT) + j)] = plain


# --- losses -----------------------------------------------------------------------------------------------------------


@device
def shifted_exponentials(z, z_at, out, out_at, width, shared, inside):
    """out = exp(z - max z) of the row that SIDE threads share -> (max z, sum of out)."""
    lane, best = cuda.threadIdx.x % SIDE, LOWEST
    j = lane
    while j < width and inside:
        if z[U(z_at + j)] > best:
            best = z[U(z_at + j)]
        j += SIDE
    best = lanes_max(shared, best)
    total, j = ZERO, lane
    while j < width and inside:
        e = exp_(z[U(z_at + j)] - best)
        out[U(out_at + j)] = e
        total += e
        j += SIDE
    return best, lanes_sum(shared, total)


@device
def log_loss_row(z, z_at, c, w, delta, at, width, shared, inside):
    """-sum_k t_k log p_k with t = (1 - e) onehot + e / width; clipped where e, the label smoothing, is 0."""
    best, total = shifted_exponentials(z, z_at, delta, at, width, shared, inside)
    lane, own, value = cuda.threadIdx.x % SIDE, ZERO, ZERO
    if inside:
        own = z[U(z_at + c)] - best
    if SMOOTHING > ZERO:
        off, everything, j = SMOOTHING / REAL(width), ZERO, lane
        while j < width and inside:
            everything += z[U(z_at + j)] - best
            j += SIDE
        everything = lanes_sum(shared, everything)
        value = log_(total) - ((ONE - SMOOTHING) * own + off * everything)
    else:
        off = ZERO
        value = log_(total) - own
        value = LOG_LOSS_LOW if value < LOG_LOSS_LOW else value
        value = LOG_LOSS_HIGH if value > LOG_LOSS_HIGH else value
    factor, j = w / total, lane
    while j < width and inside:
        target = off + (ONE - SMOOTHING) if j == c else off
        delta[U(at + j)] = delta[U(at + j)] * factor - target * w
        j += SIDE
    return value * w


@device
def focal_row(z, z_at, c, w, delta, at, width, shared, inside):
    """(1 - p)^g * -log p of the class that it is; delta = (1 - p)^g (g p * -log p + 1 - p) (r - onehot)."""
    best, total = shifted_exponentials(z, z_at, delta, at, width, shared, inside)
    lane, others, own, minus_log_p = cuda.threadIdx.x % SIDE, ZERO, ZERO, ZERO
    j = lane
    while j < width and inside:  # the others' exponentials: 1 - p without cancellation
        if j != c:
            others += delta[U(at + j)]
        j += SIDE
    others = lanes_sum(shared, others)  # its barriers also stand between the reading above and the writing below
    q = others / total
    if inside:
        minus_log_p = log_(total) - (z[U(z_at + c)] - best)
        own = exp_(z[U(z_at + c)] - best)
    if q < REAL(0.5):
        minus_log_p = -log1p_(-q)
    p, power = own / total, pow_(q, GAMMA)
    gate = ZERO if p == ZERO else p * minus_log_p
    factor, j = power * (GAMMA * gate + q) * w, lane
    while j < width and inside:
        share = delta[U(at + j)] / others if others > ZERO else (others if others != others else ZERO)
        delta[U(at + j)] = -factor if j == c else factor * share
        j += SIDE
    return power * minus_log_p * w


@device
def kl_row(z, z_at, y, y_at, w, delta, at, width, shared, inside):
    """sum_k y_k (log y_k - log p_k); delta = p sum(y) - y."""
    best, total = shifted_exponentials(z, z_at, delta, at, width, shared, inside)
    lane, value, everything, log_sum = cuda.threadIdx.x % SIDE, ZERO, ZERO, log_(total)
    j = lane
    while j < width and inside:
        target = y[U(y_at + j)]
        everything += target
        if target != ZERO:
            value += target * log_(target) - target * ((z[U(z_at + j)] - best) - log_sum)
        j += SIDE
    everything = lanes_sum(shared, everything)
    factor, j = everything / total, lane
    while j < width and inside:
        delta[U(at + j)] = (delta[U(at + j)] * factor - y[U(y_at + j)]) * w
        j += SIDE
    return lanes_sum(shared, value) * w


@device
def formula_row(z, z_at, y, y_at, w, delta, at, width, shared, inside):
    """A sum, or a mean, over the outputs of values of one target and one logit."""
    value, j = ZERO, cuda.threadIdx.x % SIDE
    while j < width and inside:
        value += loss_value(y[U(y_at + j)], z[U(z_at + j)])
        delta[U(at + j)] = loss_delta(y[U(y_at + j)], z[U(z_at + j)]) * w
        j += SIDE
    value = lanes_sum(shared, value) * w
    return value / REAL(width) if MEAN_OVER_OUTPUTS else value


@device
def loss_row(z, z_at, y, y_at, c, w, delta, at, width, shared, inside):
    """Loss of a row times its weight, and delta = d loss / d z times the weight; ``inside``: there is such a row."""
    if LOSS_KIND == LOG_LOSS:
        return log_loss_row(z, z_at, c, w, delta, at, width, shared, inside)
    if LOSS_KIND == FOCAL:
        return focal_row(z, z_at, c, w, delta, at, width, shared, inside)
    if LOSS_KIND == KL_DIVERGENCE:
        return kl_row(z, z_at, y, y_at, w, delta, at, width, shared, inside)
    return formula_row(z, z_at, y, y_at, w, delta, at, width, shared, inside)


@device
def loss_tile(d, s, shared, i0):
    """Loss and delta of rows i0 .. i0 + TILE of the chunk; SIDE threads share a row."""
    last = d.net[N_LAYERS] - 1
    width, lane = entry(d, last, FAN_OUT), cuda.threadIdx.x % SIDE
    for r in range(MICRO):
        i = i0 + r * SIDE + cuda.threadIdx.x // SIDE
        inside = i < s.rows
        row, c, w = i * 0, i * 0, ONE
        if inside:
            row = row + (d.order[U(s.first + i)] if s.gathered else s.first + i)
            if BY_CLASS:
                c = c + d.classes[U(row)]
            if d.net[WEIGHTED]:
                w = d.weight[U(row)]
        value = loss_row(
            d.work, entry(d, last, Z) + i * width, d.y, row * width, c, w,
            d.work, d.net[DELTA_OUT] + i * width, width, shared, inside,
        )  # fmt: skip
        if inside and lane == 0:
            d.work[U(d.net[ROW_LOSS] + i)] = value


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
    to, e = entry(d, k - 1, DELTA_Y), cuda.threadIdx.x
    learned = entry(d, k - 1, SLOPE) >= 0 and entry(d, k - 1, BATCH_NORM) != NORM_AFTER
    while e < TILE * TILE:
        i, j = e // TILE, e % TILE
        if i0 + i < s.rows and j0 + j < fan_in:
            at, x = (i0 + i) * fan_in + j0 + j, shared[U(i * LD + j)]
            d.work[U(to + at)] = x * d.work[U(to + at)]
            if learned:
                place = U(entry(d, k - 1, PRODUCT) + at)
                d.work[place] = x * d.work[place]
        e += THREADS


# --- the parameters ---------------------------------------------------------------------------------------------------


@device
def finish(d, s, at, p, g, alpha, l1, u):
    """From the sum over the chunk's rows to the gradient, and then to the new parameter -> square of the gradient."""
    if d.net[STORE]:
        if s.at > 0:
            g += d.grad[U(at)]
        if s.last:
            sign = ONE if p > ZERO else (-ONE if p < ZERO else ZERO)
            g = (g + alpha * p + l1 * sign) * u[INVERSE]
        d.grad[U(at)] = g
        return g * g
    sign = ONE if p > ZERO else (-ONE if p < ZERO else ZERO)
    g = (g + alpha * p + l1 * sign) * u[INVERSE]
    d.params[U(at)] = rule(d.states, at, d.net[N_PARAMS], p * u[KEEP], g, u)
    return ZERO


@device
def weight_task(d, s, shared, t, k, i0, j0, alpha, l1):
    """A tile of W: gradient = A^T delta, penalty, update."""
    fan_in, fan_out = entry(d, k, FAN_IN), entry(d, k, FAN_OUT)
    source, at, gathered = d.work, d.net[INPUT], 0
    if k > 0:
        at = entry(d, k - 1, OUT)
    elif d.net[USE_INPUT] == 0:
        source, at, gathered = d.X, 0 * fan_in, s.gathered
    product_of_turned(
        shared, source, at, fan_in, d.order, s.first, gathered, d.work, delta_at(d, k), fan_out,
        fan_in, fan_out, s.rows, i0, j0,
    )  # fmt: skip
    squares, magnitudes, slopes = ZERO, ZERO, ZERO
    u, e = uniforms(d.scalars, s.number), cuda.threadIdx.x
    while e < TILE * TILE:
        i, j = e // TILE, e % TILE
        if i0 + i < fan_in and j0 + j < fan_out:
            place = entry(d, k, W) + (i0 + i) * fan_out + j0 + j
            p = d.params[U(place)]
            squares += p * p
            magnitudes += abs(p)
            slopes += finish(d, s, place, p, shared[U(i * LD + j)], alpha, l1, u)
        e += THREADS
    to = (s.number * d.net[N_TASKS] + t) * PARTIALS
    if alpha != ZERO or l1 != ZERO:
        squares, magnitudes = block_sum(shared, squares), block_sum(shared, magnitudes)
        if cuda.threadIdx.x == 0:
            d.partials[U(to)], d.partials[U(to + 1)] = squares, magnitudes
    if d.net[CLIPPED]:
        slopes = block_sum(shared, slopes)
        if cuda.threadIdx.x == 0:
            d.partials[U(to + 2)] = slopes


@device
def unit_task(d, s, shared, t, kind, k, j0):
    """TILE entries of a bias, a learned slope, a scale or a shift: sums over the rows, update."""
    width, tid = entry(d, k, FAN_OUT), cuda.threadIdx.x
    j, place, g = j0 + tid % TILE, entry(d, k, B), ZERO
    if kind == TASK_SLOPE:
        place = entry(d, k, SLOPE)
        g = column_sum(d, shared, entry(d, k, PRODUCT), width, j, s.rows)
    elif kind == TASK_B:
        if (
            entry(d, k, BATCH_NORM) != NORM_BEFORE
        ):  # or the mean takes the bias away, and the sum is nothing but rounding
            g = column_sum(d, shared, delta_at(d, k), width, j, s.rows)
    else:
        place = entry(d, k, SCALE) if kind == TASK_SCALE else entry(d, k, SHIFT)
        if j < width:
            g = d.grad[U(place + j)]
    square = ZERO
    if tid < TILE and j < width:
        u = uniforms(d.scalars, s.number)
        square = finish(d, s, place + j, d.params[U(place + j)], g, ZERO, ZERO, u)
    if d.net[CLIPPED]:
        square = block_sum(shared, square)
        if tid == 0:
            d.partials[U((s.number * d.net[N_TASKS] + t) * PARTIALS + 2)] = square


@device
def loss_task(d, s, shared, t):
    """The sum of the rows' losses, added to that of the chunks before."""
    value, i = ZERO, cuda.threadIdx.x
    while i < s.rows:
        value += d.work[U(d.net[ROW_LOSS] + i)]
        i += THREADS
    value = block_sum(shared, value)
    if cuda.threadIdx.x == 0:
        to = U((s.number * d.net[N_TASKS] + t) * PARTIALS)
        d.partials[to] = value if s.at == 0 else d.partials[to] + value


@device
def units_phase(d, s, shared, alpha, l1):
    t = cuda.blockIdx.x
    while t < d.net[N_TASKS]:
        at = t * TASK_COLUMNS
        kind, k = d.tasks[U(at)], d.tasks[U(at + 1)]
        if kind == TASK_W:
            weight_task(d, s, shared, t, k, d.tasks[U(at + 2)], d.tasks[U(at + 3)], alpha, l1)
        elif kind == TASK_LOSS:
            loss_task(d, s, shared, t)
        else:
            unit_task(d, s, shared, t, kind, k, d.tasks[U(at + 3)])
        t += cuda.gridDim.x


@device
def update_units(d, s, shared, max_norm):
    """New parameters from a stored gradient, shortened to max_norm (0: as it is)."""
    factor, u = ONE, uniforms(d.scalars, s.number)
    if d.net[CLIPPED]:
        total, t = ZERO, cuda.threadIdx.x
        while t < d.net[N_TASKS]:
            total += d.partials[U((s.number * d.net[N_TASKS] + t) * PARTIALS + 2)]
            t += THREADS
        factor = max_norm / (sqrt_(block_sum(shared, total)) + REAL(1e-6))
        factor = ONE if factor > ONE else factor  # lets NaN through
    i = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    while i < d.net[N_TRAINED]:
        p = d.params[U(i)] * u[KEEP]
        d.params[U(i)] = rule(d.states, i, d.net[N_PARAMS], p, d.grad[U(i)] * factor, u)
        i += cuda.gridDim.x * THREADS


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
        loss_tile(d, s, shared, i0)
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
    t = cuda.blockIdx.x
    while t < across * ((s.rows + TILE - 1) // TILE):
        i0, j0 = t // across * TILE, t % across * TILE
        if first == 0 and spread == 0 and d.net[USE_INPUT]:
            for i in range(i0, min(i0 + TILE, s.rows)):
                gather_row(d, s, i)
        operation = first
        while operation < last:
            tile_operation(d, s, shared, operation, i0, j0, spread)
            operation += 1
        t += cuda.gridDim.x


@device
def columns_phase(d, s, shared, kind, k):
    j0 = cuda.blockIdx.x * TILE
    while j0 < entry(d, k, FAN_OUT):
        if kind == NORMALIZE_FORWARD:
            normalize_forward(d, s, shared, k, j0)
        else:
            normalize_backward(d, s, shared, k, j0)
        j0 += cuda.gridDim.x * TILE


@device
def run_phase(d, s, shared, phase, alpha, l1, max_norm):
    at = phase * PHASE_COLUMNS
    kind, first = d.phases[U(at + PHASE)], d.phases[U(at + FIRST)]
    if kind == TILES:
        tiles_phase(d, s, shared, first, d.phases[U(at + LAST)], d.phases[U(at + SPREAD)])
    elif kind in (NORMALIZE_FORWARD, NORMALIZE_BACKWARD):
        columns_phase(d, s, shared, kind, first)
    elif kind == UNITS:
        units_phase(d, s, shared, alpha, l1)
    elif kind == UPDATE:
        if s.last:
            update_units(d, s, shared, max_norm)
    else:
        i = cuda.blockIdx.x
        while i < s.rows:
            gather_row(d, s, i)
            i += cuda.gridDim.x


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
    shared = cuda.shared.array(SHARED, REAL)
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
            s = Step(step - offset, step * batch_size + at, at, rows, batch_rows, last, 1, 1)
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
    s = Step(first * 0, first, first * 0, rows, rows, 1, gathered, 0)
    shared = cuda.shared.array(SHARED, REAL)
    k = net[N_LAYERS] - 1
    width, tid, lane = entry(d, k, FAN_OUT), cuda.threadIdx.x, cuda.threadIdx.x % SIDE
    i0 = cuda.blockIdx.x * TILE
    while i0 < rows:
        check_finite(d, s, flags, i0)
        rows_forward(d, s, shared, i0)
        cuda.syncthreads()
        for r in range(MICRO):
            i = i0 + r * SIDE + tid // SIDE
            inside, z_at, at = i < rows, entry(d, k, Z) + i * width, i * width
            total = ONE
            if SOFTMAX_LINK:
                _, total = shifted_exponentials(work, z_at, out, at, width, shared, inside)
            j = lane
            while j < width and inside:
                out[U(at + j)] = out[U(at + j)] / total if SOFTMAX_LINK else link(work[U(z_at + j)])
                j += SIDE
        i0 += cuda.gridDim.x * TILE


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


@kernel
def activate_array(z, out, learned, n):
    quiet()
    i = cuda.grid(1)
    while i < n:
        out[U(i)] = activation_value(0, z[U(i)], learned)
        i += cuda.gridsize(1)


@kernel
def slope_array(z, a, out, learned, n):
    """out = out * slope"""
    quiet()
    i = cuda.grid(1)
    while i < n:
        out[U(i)] = out[U(i)] * activation_slope(0, z[U(i)], a[U(i)], learned)
        i += cuda.gridsize(1)


@kernel
def matrix_product(a, a_ld, b, b_ld, turned, bias, biased, order, out, rows, columns, depth):
    """out (rows, columns) = A B, or A^T B (turned: 1), or A B^T (turned: 2), plus bias (columns,)."""
    quiet()
    shared = cuda.shared.array(SHARED, REAL)
    across, t = (columns + TILE - 1) // TILE, cuda.blockIdx.x
    while t < across * ((rows + TILE - 1) // TILE):
        i0, j0, e = t // across * TILE, t % across * TILE, cuda.threadIdx.x
        if turned == 0:
            product(shared, a, 0, a_ld, order, 0, 0, b, 0, b_ld, rows, columns, depth, i0, j0)
        elif turned == 1:
            product_of_turned(shared, a, 0, a_ld, order, 0, 0, b, 0, b_ld, rows, columns, depth, i0, j0)
        else:
            product_with_turned(shared, a, 0, a_ld, order, 0, 0, b, 0, b_ld, rows, columns, depth, i0, j0)
        while e < TILE * TILE:
            i, j = e // TILE, e % TILE
            if i0 + i < rows and j0 + j < columns:
                value = shared[U(i * LD + j)]
                if biased:
                    value += bias[U(j0 + j)]
                out[U((i0 + i) * columns + j0 + j)] = value
            e += THREADS
        t += cuda.gridDim.x


@kernel
def softmax_array(z, out, rows, width):
    quiet()
    shared = cuda.shared.array(SHARED, REAL)
    r = cuda.blockIdx.x * SIDE
    while r < rows:
        i = r + cuda.threadIdx.x // SIDE
        inside, j = i < rows, cuda.threadIdx.x % SIDE
        _, total = shifted_exponentials(z, i * width, out, i * width, width, shared, inside)
        while j < width and inside:
            out[U(i * width + j)] = out[U(i * width + j)] / total
            j += SIDE
        r += cuda.gridDim.x * SIDE


@kernel
def loss_array(z, y, classes, weight, weighted, delta, row_loss, rows, width):
    quiet()
    shared = cuda.shared.array(SHARED, REAL)
    r = cuda.blockIdx.x * SIDE
    while r < rows:
        i = r + cuda.threadIdx.x // SIDE
        inside, c, w = i < rows, i * 0, ONE
        if inside:
            if BY_CLASS:
                c = c + classes[U(i)]
            if weighted:
                w = weight[U(i)]
        value = loss_row(z, i * width, y, i * width, c, w, delta, i * width, width, shared, inside)
        if inside and cuda.threadIdx.x % SIDE == 0:
            row_loss[U(i)] = value
        r += cuda.gridDim.x * SIDE


@kernel
def rule_array(params, grad, states, scalars, n):
    quiet()
    u = uniforms(scalars, 0)
    i = cuda.grid(1)
    while i < n:
        params[U(i)] = rule(states, i, n, params[U(i)], grad[U(i)], u)
        i += cuda.gridsize(1)
