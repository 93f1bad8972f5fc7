"""Losses, row by row."""

# ruff: noqa: F821

# --- network ---


@device
def shifted_exponentials(z, z_at, out, out_at, width, shared, inside):
    """out = exp(z - max z) of the row that LANES threads share -> (max z, sum of out)."""
    lane, best = cuda.threadIdx.x % LANES, LOWEST
    j = lane
    while j < width and inside:
        if z[U(z_at + j)] > best:
            best = z[U(z_at + j)]
        j += LANES
    best = lanes_max(shared, best)
    total, j = ZERO, lane
    while j < width and inside:
        e = exp_(z[U(z_at + j)] - best)
        out[U(out_at + j)] = e
        total += e
        j += LANES
    return best, lanes_sum(shared, total)


@device
def others_of(t, at, width, shared, inside):
    """The sum of a row's exponentials without one of the largest, which are 1; LANES threads share the row."""
    rest, tops, j = ZERO, ZERO, cuda.threadIdx.x % LANES
    while j < width and inside:
        if t[U(at + j)] == ONE:
            tops += ONE
        else:
            rest += t[U(at + j)]
        j += LANES
    rest = lanes_sum(shared, rest)
    return rest + (lanes_sum(shared, tops) - ONE)


@device
def loss_row(z, z_at, y, y_at, c, w, delta, at, width, shared, inside):
    """Loss of a row times its weight, and delta = d loss / d z times the weight; ``inside``: there is such a row.

    A sum of terms f(y_k, z_k), or of softmax f(y_k, log p_k): then delta_k = s_k - p_k sum_j s_j with the slopes
    s_k = df / d log p_k.  Where only the label's output has a term, nothing else is computed.
    """
    best, total, log_sum, others, first, last = ZERO, ONE, ZERO, ZERO, c, c + 1
    if SOFTMAX_LINK:
        best, total = shifted_exponentials(z, z_at, delta, at, width, shared, inside)
        log_sum = log_(total)
    if READS_P:
        others = others_of(delta, at, width, shared, inside)
    if EVERY_OUTPUT:
        first, last = cuda.threadIdx.x % LANES, width
    value, slopes, n, j = ZERO, ZERO, REAL(width), first
    while j < last and inside:
        target, x, p, q = term_of(z, z_at, y, y_at, c, delta, at, j, best, total, log_sum, others)
        value += term_value(target, x, p, q, n)
        slopes += term_slope(target, x, p, q, n)
        j += LANES
    if EVERY_OUTPUT:
        value = lanes_sum(shared, value)
    if EVERY_OUTPUT and SOFTMAX_LINK:
        slopes = lanes_sum(shared, slopes)
    elif READS_P:
        cuda.syncthreads()  # all have read the label's exponential
    factor, j = -slopes * w / total, cuda.threadIdx.x % LANES
    while j < width and inside:
        slope = slopes if j == c else ZERO
        if EVERY_OUTPUT:
            target, x, p, q = term_of(z, z_at, y, y_at, c, delta, at, j, best, total, log_sum, others)
            slope = term_slope(target, x, p, q, n)
        delta[U(at + j)] = delta[U(at + j)] * factor + slope * w if SOFTMAX_LINK else slope * w
        j += LANES
    return value * w / n if MEAN_OVER_OUTPUTS else value * w


@device
def term_of(z, z_at, y, y_at, c, t, at, j, best, total, log_sum, others):
    """Target, logit or log p, p and q = 1 - p of an output of a row; t: its exponentials."""
    p, q = ZERO, ZERO
    if READS_P:
        e = t[U(at + j)]
        p = e / total
        q = others / total if e == ONE else ONE - p  # no digits lost near p = 1
    target = (ONE if j == c else ZERO) if BY_CLASS else y[U(y_at + j)]
    return target, z[U(z_at + j)] - best - log_sum, p, q


@device
def loss_rows(d, s, shared, i0, end):
    """Loss and delta of rows i0 .. end of the chunk; LANES threads share a row."""
    last = d.net[N_LAYERS] - 1
    width, lane = entry(d, last, FAN_OUT), cuda.threadIdx.x % LANES
    while i0 < end:
        i = i0 + cuda.threadIdx.x // LANES
        inside = i < end
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
        i0 += THREADS // LANES
