"""Losses, row by row: log loss, focal, KL and those by formula."""

# ruff: noqa: F821

# --- network ---


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
