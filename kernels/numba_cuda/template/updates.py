"""Gradients, penalties and the optimizer's step, tile by tile of the parameters."""

# ruff: noqa: F821

# --- network ---


@device
def finish(d, s, at, p, g, of):
    """From the sum over the chunk's rows to the gradient, and then to the new parameter -> square of the gradient."""
    u = of.uniforms
    if of.store:
        if s.at > 0:
            g += d.grad[U(at)]
        if s.last:
            sign = ONE if p > ZERO else (-ONE if p < ZERO else ZERO)
            g = (g + of.alpha * p + of.l1 * sign) * u[INVERSE]
        d.grad[U(at)] = g
        return g * g
    sign = ONE if p > ZERO else (-ONE if p < ZERO else ZERO)
    g = (g + of.alpha * p + of.l1 * sign) * u[INVERSE]
    d.params[U(at)] = rule(d.states, at, of.states_apart, p * u[KEEP], g, u)
    return ZERO


@device
def update_of(d, s, alpha, l1):
    """What :func:`finish` reads besides."""
    return Update(d.net[STORE], d.net[N_PARAMS], alpha, l1, uniforms(d.scalars, s.number))


@device
def weight_task(d, s, shared, t, k, i0, j0, alpha, l1):
    """A tile of W: gradient = A^T delta, penalty, update."""
    fan_in, fan_out, columns, ld = entry(d, k, FAN_IN), entry(d, k, FAN_OUT), TILE, LD
    source, at, gathered = d.work, d.net[INPUT], 0
    if k > 0:
        at = entry(d, k - 1, OUT)
    elif d.net[USE_INPUT] == 0:
        source, at, gathered = d.X, 0 * fan_in, s.gathered
    if HAS_NARROW and k == d.net[NARROW_LAYER]:
        columns, ld = COLUMNS, NARROW_LD
        narrow_tn(
            shared, d.work, at, fan_in, d.order, s.first, 0, d.work, entry(d, k, DELTA), fan_out,
            fan_in, fan_out, s.rows, i0, j0,
        )  # fmt: skip
    else:
        product_tn(
            shared, source, at, fan_in, d.order, s.first, gathered, d.work, entry(d, k, DELTA), fan_out,
            fan_in, fan_out, s.rows, i0, j0,
        )  # fmt: skip
    squares, magnitudes, slopes, of = ZERO, ZERO, ZERO, update_of(d, s, alpha, l1)
    i, j = cuda.threadIdx.x // columns, cuda.threadIdx.x % columns
    place, end = entry(d, k, W) + (i0 + i) * fan_out + j0 + j, min(TILE, fan_in - i0) if j0 + j < fan_out else 0 * at
    while i < end:
        p = d.params[U(place)]
        squares += p * p
        magnitudes += abs(p)
        slopes += finish(d, s, place, p, shared[U(i * ld + j)], of)
        i += THREADS // columns
        place += THREADS // columns * fan_out
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
def vector_task(d, s, shared, t, kind, k, j0):
    """COLUMNS entries of an array of layer k other than W: gradient, update."""
    width, tid = entry(d, k, FAN_OUT), cuda.threadIdx.x
    j, place = j0 + tid % COLUMNS, entry(d, k, W + kind)
    g = vector_gradient(d, s, shared, kind, k, j, width)
    square = ZERO
    if tid < COLUMNS and j < width:
        square = finish(d, s, place + j, d.params[U(place + j)], g, update_of(d, s, ZERO, ZERO))
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
def slices_phase(d, s, shared, alpha, l1):
    t = s.block
    while t < d.net[N_TASKS]:
        at = t * TASK_COLUMNS
        kind, k = d.tasks[U(at)], d.tasks[U(at + 1)]
        if kind == ARRAY_W:
            weight_task(d, s, shared, t, k, d.tasks[U(at + 2)], d.tasks[U(at + 3)], alpha, l1)
        elif kind == TASK_LOSS:
            loss_task(d, s, shared, t)
        else:
            vector_task(d, s, shared, t, kind, k, d.tasks[U(at + 3)])
        t += s.blocks


@device
def update_slices(d, s, shared, max_norm):
    """New parameters from a stored gradient, shortened to max_norm (0: as it is)."""
    factor, u = ONE, uniforms(d.scalars, s.number)
    if d.net[CLIPPED]:
        total, t = ZERO, cuda.threadIdx.x
        while t < d.net[N_TASKS]:
            total += d.partials[U((s.number * d.net[N_TASKS] + t) * PARTIALS + 2)]
            t += THREADS
        factor = max_norm / (sqrt_(block_sum(shared, total)) + REAL(1e-6))
        factor = ONE if factor > ONE else factor  # lets NaN through
    i = s.block * THREADS + cuda.threadIdx.x
    while i < d.net[N_TRAINED]:
        p = d.params[U(i)] * u[KEEP]
        d.params[U(i)] = rule(d.states, i, d.net[N_PARAMS], p, d.grad[U(i)] * factor, u)
        i += s.blocks * THREADS
