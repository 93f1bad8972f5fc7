/* What lies between two products, forward and backward beside each other; a template over REAL.
 *
 * x W + b --[batch normalisation]--> z --activation--> a --[batch normalisation]--> --dropout--> out
 *
 * The drivers (layers.h, network.h) know no option by name.  They call stages_of for a layer, stage_forward and
 * stage_backward for a block of rows while it is in L1, batch_forward and batch_backward where an option needs the whole
 * batch, and vector_gradient and vector_updated for the layer's arrays.  What an option needs of a layer is declared in
 * kernels/layer_table.py.
 */

/* Row `at` of a buffer of the workspace; NULL where there is none. */
#define ROW(buffer, at, ld) ((buffer) ? (REAL *)(buffer) + (at) * (ld) : NULL)

/* What one member knows of the batch it works on: rows[first + at ..) of the order are rows at .. of the chunk and rows
 * batch_at + at .. of the batch. */
typedef struct {
    fm_workspace *ws;
    const fm_data *data;
    const idx *rows;
    const fm_epoch *epoch; /* NULL when predicting: no dropout */
    idx step;
    idx first, batch_at, n; /* of the chunk: its first row in the order, and in the batch; its rows */
    int member;
    idx from, to;           /* rows of the chunk whose gradients the member sums */
} FN(chunk);

/* --- activation and dropout ------------------------------------------------------------------------------------------ */

/* Fill *mask for the output of layer l - 1 (l = 0: the input); NULL where nothing is dropped. */
static const FN(mask) *FN(mask_of)(const FN(chunk) *c, int l, FN(mask) *mask)
{
    const fm_workspace *ws = c->ws;
    const fm_layer *below = &ws->layers[l ? l - 1 : 0];
    idx threshold = l ? below->threshold : ws->input_threshold;
    double rate = l ? below->rate : ws->input_rate;
    if (!c->epoch || !threshold)
        return NULL;
    if (c->epoch->dropouts) {
        rate *= c->epoch->dropouts[c->step];
        threshold = (idx)rint(rate * 16777216.0);
        if (!threshold)
            return NULL;
    }
    *mask = FN(new_mask)(threshold, rate, l ? below->fan_out : ws->n_columns, c->epoch->seed,
                         c->epoch->t + (uint64_t)c->step, l);
    if (c->epoch->places) {
        mask->places = c->epoch->places + c->epoch->starts[c->step];
        mask->members = l ? ws->members : 1;
    }
    return mask;
}

/* Fill *slopes for the negative z of layer l; NULL where a step draws none.  A gradient alone is that of the means. */
static const FN(mask) *FN(slopes_of)(const FN(chunk) *c, int l, FN(mask) *slopes)
{
    const fm_workspace *ws = c->ws;
    const fm_layer *layer = &ws->layers[l];
    if (layer->slope_spread == 0 || !c->epoch || c->epoch->rule < 0)
        return NULL;
    *slopes = FN(new_mask)(0, 0.0, layer->fan_out, c->epoch->seed, c->epoch->t + (uint64_t)c->step, l + SLOPES);
    slopes->scale = (REAL)layer->slope_spread;
    if (c->epoch->places) {
        slopes->places = c->epoch->places + c->epoch->starts[c->step];
        slopes->members = ws->members;
    }
    return slopes;
}

/* Stages that some rows of the batch take without the others: z --activation--> a --dropout--> out.
 * z may be a, and without dropout out is a. */
typedef struct {
    const fm_activation *f; /* NULL: nothing, a is z */
    const FN(mask) *mask;   /* NULL: no dropout */
    const FN(mask) *slopes; /* of negative z, which a step draws; NULL: they are those of f */
    int training;           /* stage_backward will follow: z may hold the slope from then on */
    idx ld, first;          /* row stride of all; index of the first row in the batch */
    REAL *z, *a, *out;      /* (rows, ld) */
    REAL *product;          /* (rows, ld) for learned slopes and mixes, else NULL */
    const REAL *mix;        /* (ld,) of a parametric activation, else NULL */
    idx members;            /* of which the rows are in turn */
    const REAL *factors;    /* (members, ld) of what the next layer reads of out, else NULL */
    REAL *read, *fed;       /* (rows, ld) out * factors; d loss / d factor of each row */
} FN(stage);

/* y (rows, ld) = x * factors (members, ld), rows first .. first + rows of members in turn; y may be x. */
static void FN(times_factors)(idx first, idx rows, idx ld, idx members, const REAL *factors, const REAL *x, REAL *y)
{
    for (idx r = first; r < first + rows; r++, x += ld, y += ld) {
        const REAL *f = factors + r % members * ld;
        IVDEP
        for (idx j = 0; j < ld; j++)
            y[j] = x[j] * f[j];
    }
}

/* Rows r .. r + n of a parametric activation: out = (z + (f(z) - z) mix) * mask.  What the way back multiplies by, the
 * slope in z and the product, takes the mask too, so that it is drawn once. */
static void FN(mixed_forward)(const FN(stage) *s, idx r, idx n)
{
    const idx at = r * s->ld;
    REAL *slope = s->z + at, *a = s->a + at, *out = s->out + at, *product = s->training ? s->product + at : NULL;
    FN(apply_mixed)(s->f, n, s->ld, s->mix, slope, a, product);
    if (!s->mask) {
        if (out != a)
            memcpy(out, a, (size_t)(n * s->ld) * sizeof(REAL));
        return;
    }
    const FN(mask) m = *s->mask;
    for (idx i = 0; i < n; i++, slope += s->ld, a += s->ld, out += s->ld, product += s->ld) {
        const uint32_t row = FN(mask_row)(&m, s->first + r + i);
        IVDEP
        for (uint32_t j = 0; j < (uint32_t)s->ld; j++) {
            const REAL factor = FN(mask_at)(&m, row, j);
            out[j] = a[j] * factor;
            slope[j] *= factor;
            product[j] *= factor;
        }
    }
}

/* Rows r .. r + n: a = f(z), out = a * mask. */
static inline void FN(stage_forward)(const FN(stage) *s, idx r, idx n)
{
    const idx at = r * s->ld;
    if (s->mix)
        FN(mixed_forward)(s, r, n);
    else if (s->f && s->training)
        FN(apply_keeping_slope)(s->f, n, s->ld, s->z + at, s->a + at);
    else if (s->f)
        FN(apply)(s->f, n, s->ld, s->z + at, s->a + at);
    if (s->slopes)
        FN(apply_slopes)(s->slopes, s->first + r, n, s->ld, s->a + at, s->a + at);
    if (s->mix)
        ; /* has taken the mask */
    else if (s->mask)
        FN(apply_mask)(s->mask, s->first + r, n, s->ld, s->a + at, s->out + at);
    else if (s->out != s->a) /* a step, or a prediction, that drops nothing */
        memcpy(s->out + at, s->a + at, (size_t)(n * s->ld) * sizeof(REAL));
    if (s->factors)
        FN(times_factors)(r, n, s->ld, s->members, s->factors, s->out + at, s->read + at);
}

/* Rows r .. r + n: delta = d loss / d out -> d loss / d z. */
static void FN(stage_backward)(const FN(stage) *s, idx r, idx n, REAL *delta)
{
    const idx at = r * s->ld;
    if (s->factors) {
        IVDEP
        for (idx i = at; i < at + n * s->ld; i++)
            s->fed[i] = delta[i] * s->out[i];
        FN(times_factors)(r, n, s->ld, s->members, s->factors, delta + at, delta + at);
    }
    if (s->mix) {
        const REAL *slope = s->z + at;
        REAL *d = delta + at, *product = s->product + at;
        IVDEP
        for (idx i = 0; i < n * s->ld; i++) {
            product[i] *= d[i];
            d[i] *= slope[i];
        }
        return;
    }
    if (s->mask)
        FN(apply_mask)(s->mask, s->first + r, n, s->ld, delta + at, delta + at);
    if (s->slopes)
        FN(apply_slopes)(s->slopes, s->first + r, n, s->ld, s->a + at, delta + at);
    if (!s->f)
        return;
    if (s->training && FN(keeps_slope)(s->f)) {
        const REAL *slope = s->z + at;
        REAL *d = delta + at;
        IVDEP
        for (idx i = 0; i < n * s->ld; i++)
            d[i] *= slope[i];
        return;
    }
    FN(apply_slope)(s->f, n, s->ld, s->z + at, s->a + at, delta + at, s->product ? s->product + at : NULL);
}

/* Where the rows of a sum stand in the chunk: others may have left its four chains behind, or others may go on. */
typedef struct {
    int begins, ends;
    REAL *chains; /* (4, ld); NULL if it begins and ends */
} FN(part);

/* grad_b (+)= column sums of delta (rows, ld_out); a multiple of four rows where others follow. */
static void FN(bias_gradient)(idx rows, idx ld_out, const REAL *delta, REAL *grad_b, int accumulate, FN(part) part)
{
    for (idx n = 0; n < ld_out; n += LANES) {
        /* four chains hide the latency of the adds */
        VEC s0 = accumulate ? LOAD(grad_b + n) : LOAD(FN(zeros));
        VEC s1 = LOAD(FN(zeros)), s2 = s1, s3 = s1;
        if (!part.begins) {
            s0 = LOAD(part.chains + n);
            s1 = LOAD(part.chains + n + ld_out);
            s2 = LOAD(part.chains + n + 2 * ld_out);
            s3 = LOAD(part.chains + n + 3 * ld_out);
        }
        idx r = 0;
        for (; r + 4 <= rows; r += 4) {
            const REAL *d = delta + r * ld_out + n;
            s0 += LOAD(d);
            s1 += LOAD(d + ld_out);
            s2 += LOAD(d + 2 * ld_out);
            s3 += LOAD(d + 3 * ld_out);
        }
        for (; r < rows; r++)
            s0 += LOAD(delta + r * ld_out + n);
        if (part.ends) {
            STORE(grad_b + n, (s0 + s1) + (s2 + s3));
            continue;
        }
        STORE(part.chains + n, s0);
        STORE(part.chains + n + ld_out, s1);
        STORE(part.chains + n + 2 * ld_out, s2);
        STORE(part.chains + n + 3 * ld_out, s3);
    }
}

/* --- batch normalisation (Ioffe and Szegedy 2015), of what an activation reads or of what it makes --------------------- */

#define BATCH_NORM_EPSILON 1e-5

/* mean and 1 / std of columns from .. to of x (rows, ld) over the rows; whole vectors. */
static void FN(normalize_moments)(idx rows, idx ld, idx from, idx to, const REAL *x, REAL *mean, REAL *inv_std)
{
    for (idx n = from; n < to; n += LANES) {
        VEC sum = LOAD(FN(zeros)), squares = sum;
        for (idx r = 0; r < rows; r++)
            sum += LOAD(x + r * ld + n);
        const VEC m = sum / (REAL)rows;
        for (idx r = 0; r < rows; r++) {
            const VEC d = LOAD(x + r * ld + n) - m;
            squares += d * d;
        }
        STORE(mean + n, m);
        STORE(inv_std + n, squares / (REAL)rows);
        for (int j = 0; j < LANES; j++)
            inv_std[n + j] = (REAL)1 / FN(sqrt)(inv_std[n + j] + (REAL)BATCH_NORM_EPSILON);
    }
}

/* y (rows, ld) = zhat * scale + shift, where zhat = (x - mean) * inv_std; x may be zhat. */
static void FN(normalize_rows)(idx rows, idx ld, const REAL *mean, const REAL *inv_std, const REAL *scale,
                               const REAL *shift, const REAL *x, REAL *zhat, REAL *y)
{
    for (idx r = 0; r < rows; r++, x += ld, zhat += ld, y += ld) {
        IVDEP
        for (idx j = 0; j < ld; j++) {
            const REAL normal = (x[j] - mean[j]) * inv_std[j];
            zhat[j] = normal;
            y[j] = normal * scale[j] + shift[j];
        }
    }
}

/* Columns from .. to: grad_shift = column sums of delta, grad_scale = column sums of delta * zhat. */
static void FN(normalize_sums)(idx rows, idx ld, idx from, idx to, const REAL *delta, const REAL *zhat,
                               REAL *grad_scale, REAL *grad_shift)
{
    for (idx n = from; n < to; n += LANES) {
        VEC sum = LOAD(FN(zeros)), product = sum;
        for (idx r = 0; r < rows; r++) {
            const VEC d = LOAD(delta + r * ld + n);
            sum += d;
            product += d * LOAD(zhat + r * ld + n);
        }
        STORE(grad_shift + n, sum);
        STORE(grad_scale + n, product);
    }
}

/* delta (rows, ld) = d loss / d y -> d loss / d x, where y = scale * zhat + shift, in a batch of n rows. */
static void FN(normalize_delta)(idx rows, idx n, idx ld, const REAL *inv_std, const REAL *scale,
                                const REAL *grad_scale, const REAL *grad_shift, const REAL *zhat, REAL *delta)
{
    const REAL share = (REAL)1 / (REAL)n;
    for (idx r = 0; r < rows; r++, zhat += ld, delta += ld) {
        IVDEP
        for (idx j = 0; j < ld; j++)
            delta[j] = scale[j] * inv_std[j] * (delta[j] - share * (grad_shift[j] + zhat[j] * grad_scale[j]));
    }
}

/* running = (1 - momentum) running + momentum batch, with the unbiased variance, as PyTorch counts. */
static void FN(update_running)(idx rows, idx ld, const REAL *mean, const REAL *inv_std, REAL *running_mean,
                               REAL *running_var)
{
    const double momentum = 0.1, unbiased = rows > 1 ? (double)rows / (double)(rows - 1) : 1.0;
    for (idx j = 0; j < ld; j++) {
        const double inv = (double)inv_std[j], var = 1.0 / (inv * inv) - BATCH_NORM_EPSILON;
        running_mean[j] = (REAL)((1.0 - momentum) * (double)running_mean[j] + momentum * (double)mean[j]);
        running_var[j] = (REAL)((1.0 - momentum) * (double)running_var[j] + momentum * var * unbiased);
    }
}

/* --- all stages of a layer ------------------------------------------------------------------------------------------- */

/* The stages of a layer from row `at` of its buffers on, in two parts: `before` and `after` what needs the
 * whole batch.  The first goes with the product; where no option needs the whole batch, it is all. */
typedef struct {
    FN(mask) drawn, slopes;
    FN(stage) before, after;
} FN(stages);

static void FN(stages_of)(const FN(chunk) *c, int l, idx at, FN(stages) *s)
{
    const fm_layer *layer = &c->ws->layers[l];
    const idx ld = layer->ld_out;
    s->before = (FN(stage)){.f = layer->activation,
                          .mask = layer->hidden ? FN(mask_of)(c, l + 1, &s->drawn) : NULL,
                          .slopes = FN(slopes_of)(c, l, &s->slopes),
                          .training = c->epoch != NULL,
                          .ld = ld,
                          .first = c->batch_at * c->ws->members + at,
                          .z = ROW(layer->z, at, ld),
                          .a = ROW(layer->a, at, ld),
                          .out = ROW(layer->dropped, at, ld),
                          .product = ROW(layer->product, at, ld),
                          .mix = layer->mixed ? (const REAL *)c->ws->params + layer->mix : NULL};
    if (layer->feeds) {
        s->before.members = c->ws->members;
        s->before.factors = (const REAL *)c->ws->params + layer[1].member_in;
        s->before.read = ROW(layer->out, at, ld);
        s->before.fed = ROW(layer->fed, at, ld);
    }
    if (!layer->whole_batch)
        return;
    s->after = s->before;
    s->before.mask = NULL;
    if (layer->batch_norm == FM_NORM_BEFORE) {
        s->before.f = NULL;
        s->before.slopes = NULL;
        s->before.mix = NULL;
        s->before.z = s->before.a = ROW(layer->zhat, at, ld);
    } else {
        s->after.f = NULL;
        s->after.slopes = NULL;
        s->after.mix = NULL;
        s->after.z = s->after.a = s->after.out;
    }
    s->before.out = s->before.a;
}

/* Columns of an ld-wide matrix that the member sums: whole vectors. */
static void FN(columns)(const FN(chunk) *c, idx ld, idx *from, idx *to)
{
    const idx vectors = ld / LANES;
    *from = vectors * c->member / c->ws->n_threads * LANES;
    *to = vectors * (c->member + 1) / c->ws->n_threads * LANES;
}

/* The member's rows at .. at + n of layer l: y = zhat * scale + shift by the moments of all rows of the chunk, which is
 * the whole batch; then the stages that follow. */
static void FN(batch_forward)(const FN(chunk) *c, int l, idx at, idx n, const FN(stages) *s)
{
    const fm_layer *layer = &c->ws->layers[l];
    const idx ld = layer->ld_out;
    const REAL *x = layer->batch_norm == FM_NORM_AFTER ? layer->a : layer->zhat, *params = c->ws->params;
    REAL *mean = layer->moments, *inv_std = mean + ld;
    idx from, to;
    fm_team_barrier(c->ws->team);
    FN(columns)(c, ld, &from, &to);
    FN(normalize_moments)(c->n, ld, from, to, x, mean, inv_std);
    fm_team_barrier(c->ws->team);
    FN(normalize_rows)(n, ld, mean, inv_std, params + layer->scale, params + layer->shift, x + at * ld,
                       ROW(layer->zhat, at, ld), s->after.z);
    FN(stage_forward)(&s->after, 0, n);
}

/* The member's rows at .. at + n of layer l: delta = d loss / d y -> d loss / d x, the gradients of scale and shift on
 * the way; then back through the stages that come before. */
static void FN(batch_backward)(const FN(chunk) *c, int l, idx at, idx n, const FN(stages) *s)
{
    const fm_layer *layer = &c->ws->layers[l];
    const idx ld = layer->ld_out;
    REAL *inv_std = (REAL *)layer->moments + ld, *grad = c->ws->grad, *delta = ROW(layer->delta, at, ld);
    idx from, to;
    fm_team_barrier(c->ws->team);
    FN(columns)(c, ld, &from, &to);
    FN(normalize_sums)(c->n, ld, from, to, layer->delta, layer->zhat, grad + layer->scale, grad + layer->shift);
    fm_team_barrier(c->ws->team);
    FN(normalize_delta)(n, c->n, ld, inv_std, (REAL *)c->ws->params + layer->scale, grad + layer->scale,
                        grad + layer->shift, ROW(layer->zhat, at, ld), delta);
    FN(stage_backward)(&s->before, 0, n, delta);
}

/* g (ld,) (+)= column sums of x * y, both (rows, ld). */
static void FN(product_gradient)(idx rows, idx ld, const REAL *x, const REAL *y, REAL *g, int accumulate)
{
    for (idx n = 0; n < ld; n += LANES) {
        VEC s0 = accumulate ? LOAD(g + n) : LOAD(FN(zeros)), s1 = LOAD(FN(zeros));
        idx at = n, r = 0;
        for (; r + 2 <= rows; r += 2, at += 2 * ld) {
            s0 += LOAD(x + at) * LOAD(y + at);
            s1 += LOAD(x + at + ld) * LOAD(y + at + ld);
        }
        if (r < rows)
            s0 += LOAD(x + at) * LOAD(y + at);
        STORE(g + n, s0 + s1);
    }
}

/* The member's part of the sums over the chunk of a slice that is no W. */
static FN(part) FN(part_of)(const FN(chunk) *c, const fm_slice *slice)
{
    const fm_workspace *ws = c->ws;
    if (!ws->relay)
        return (FN(part)){1, 1, NULL};
    REAL *chains = (REAL *)ws->relay->lanes + 4 * (slice->offset - ws->w_padded);
    return (FN(part)){c->member == 0, c->member == ws->n_threads - 1, chains};
}

/* Gradient of an array of the layer other than W: sums over the rows of the chunk.  Those of scale and shift are there
 * already.  Where each member has a row of its own, the rows of the buffers, members in turn, are read as one row of all
 * members. */
static void FN(vector_gradient)(const FN(chunk) *c, const fm_layer *layer, const fm_slice *slice, int accumulate)
{
    REAL *g = (REAL *)c->ws->grad + slice->offset;
    const idx own = c->to - c->from, rows = slice->n_rows > 1 ? own : own * c->ws->members, ld = slice->length;
    const FN(part) part = FN(part_of)(c, slice);
    if (slice->kind == FM_B && layer->batch_norm == FM_NORM_BEFORE)
        memset(g, 0, (size_t)slice->length * sizeof(REAL)); /* the mean removes it; its sum is only rounding */
    else if (slice->kind == FM_B)
        FN(bias_gradient)(rows, ld, ROW(layer->delta, c->from, ld), g, accumulate, part);
    else if (slice->kind == FM_SLOPE || slice->kind == FM_MIX)
        FN(bias_gradient)(rows, ld, ROW(layer->product, c->from, ld), g, accumulate, part);
    else if (slice->kind == FM_MEMBER_IN)
        FN(bias_gradient)(rows, ld, layer[-1].fed, g, accumulate, part);
    else if (slice->kind == FM_MEMBER_OUT)
        FN(product_gradient)(rows, ld, layer->delta, layer->raw, g, accumulate);
}

/* What follows the update of an array other than W: with shift, the running statistics of its layer. */
static void FN(vector_updated)(const FN(chunk) *c, const fm_layer *layer, const fm_slice *slice)
{
    if (slice->kind == FM_SHIFT) {
        REAL *mean = layer->moments, *params = c->ws->params;
        FN(update_running)(c->n, layer->ld_out, mean, mean + layer->ld_out, params + layer->mean, params + layer->var);
    }
}
