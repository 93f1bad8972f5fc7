/* What stands between a row of X and the first layer, forward and backward beside each other; a template over REAL.
 *
 * row of X --blocks--> features --scale, one per member--> input of the first layer
 *
 * kernels/feature_table.py declares the kinds of blocks.  Each member of the team takes its rows forward and back;
 * gradients are sums over all rows of the chunk, in the phase "slices".  The drivers (network.h) call inputs_forward,
 * inputs_backward, and block_gradient and scale_gradient for the arrays.
 */

/* Rows that periodic features work on together: a vector then holds one wave of many rows. */
#define WAVE_ROWS 32
/* Outputs of a feature that are summed at a time. */
#define WAVE_OUTPUTS 8
#define TWO_PI 6.28318530717958647693

/* --- rows of X as the blocks and the scale read them -------------------------------------------------------------- */

/* Rows in sequence, dense, in the network's dtype: they are read where they are. */
static inline int FN(reads_in_place)(const fm_data *data, const idx *rows)
{
    return !rows && !data->indptr && data->col_stride == 1 && data->X_is_double == (sizeof(REAL) == sizeof(double));
}

/* rows[first ..) of X: X itself or the chunk's buffer from row `at` on; *ld its row stride. */
static const REAL *FN(rows_of_x)(const fm_workspace *ws, const fm_data *data, const idx *rows, idx first, idx at, idx *ld)
{
    if (FN(reads_in_place)(data, rows)) {
        *ld = data->row_stride;
        return (const REAL *)data->X + first * data->row_stride;
    }
    *ld = ws->columns ? ws->ld_columns : ws->layers[0].ld_in;
    return (const REAL *)(ws->columns ? ws->columns : ws->features ? ws->features : ws->input) + at * *ld;
}

/* What the scale multiplies from row `at` of the chunk on. */
static const REAL *FN(features)(const FN(chunk) *c, idx at, idx *ld)
{
    if (!c->ws->n_blocks)
        return FN(rows_of_x)(c->ws, c->data, c->rows, c->first + at, at, ld);
    *ld = c->ws->layers[0].ld_in;
    return (const REAL *)c->ws->features + at * *ld;
}

/* --- periodic features: sum_q cos(2 pi x frequency_q + phase_q) weight_q + bias ----------------------------------------
 *
 * Kept for the way back, one column after the other, so that sums over rows read memory in sequence:
 * cosines and sines (n_features, frequencies, R), 2 pi x (n_features, R), deltas (n_features, size, R), R the padded max_rows. */

static inline idx FN(kept_rows)(const fm_workspace *ws)
{
    return (ws->max_rows + LANES - 1) / LANES * LANES;
}

static inline REAL *FN(cosines)(const fm_workspace *ws, const fm_block *b, idx f)
{
    return (REAL *)b->kept + f * b->frequencies * FN(kept_rows)(ws);
}

static inline REAL *FN(sines)(const fm_workspace *ws, const fm_block *b, idx f)
{
    return (REAL *)b->kept + (b->n_features + f) * b->frequencies * FN(kept_rows)(ws);
}

static inline REAL *FN(turns)(const fm_workspace *ws, const fm_block *b, idx f)
{
    return (REAL *)b->kept + (2 * b->n_features * b->frequencies + f) * FN(kept_rows)(ws);
}

static inline REAL *FN(wave_deltas)(const fm_workspace *ws, const fm_block *b, idx f)
{
    return (REAL *)b->kept + (b->n_features * (2 * b->frequencies + 1) + f * b->size) * FN(kept_rows)(ws);
}

/* Outputs k .. k + n_outputs of feature f for n <= WAVE_ROWS rows, at .. of the chunk, whose 2 pi x are turns:
 * out[r * ld + i].  kept: whether sines and cosines are kept. */
static void FN(wave)(const fm_workspace *ws, const fm_block *b, idx f, idx k, idx n_outputs, idx at, idx n,
                     const REAL *turns, REAL *out, idx ld, int kept)
{
    const REAL *params = ws->params, *frequency = params + b->arrays[0] + f * b->ld[0];
    const REAL *phase = params + b->arrays[1] + f * b->ld[1];
    const REAL *weight = params + b->arrays[2] + f * b->ld[2] + k * b->frequencies;
    const REAL *bias = params + b->arrays[3] + f * b->ld[3] + k;
    REAL sine[WAVE_ROWS] ALIGNED, cosine[WAVE_ROWS] ALIGNED, sums[WAVE_OUTPUTS][WAVE_ROWS] ALIGNED;
    const idx R = FN(kept_rows)(ws);
    for (idx i = 0; i < n_outputs; i++)
        for (idx r = 0; r < WAVE_ROWS; r++)
            sums[i][r] = bias[i];
    for (idx q = 0; q < b->frequencies; q++) {
        const REAL w = frequency[q], p = phase[q];
        if (kept) {
            IVDEP
            for (idx r = 0; r < WAVE_ROWS; r++)
                FN(sincos)(turns[r] * w + p, &sine[r], &cosine[r]);
            memcpy(FN(cosines)(ws, b, f) + q * R + at, cosine, (size_t)n * sizeof(REAL));
            memcpy(FN(sines)(ws, b, f) + q * R + at, sine, (size_t)n * sizeof(REAL));
        } else {
            IVDEP
            for (idx r = 0; r < WAVE_ROWS; r++)
                cosine[r] = FN(cos)(turns[r] * w + p);
        }
        for (idx i = 0; i < n_outputs; i++) {
            const REAL v = weight[i * b->frequencies + q];
            for (idx r = 0; r < WAVE_ROWS; r++)
                sums[i][r] += v * cosine[r];
        }
    }
    for (idx r = 0; r < n; r++)
        for (idx i = 0; i < n_outputs; i++)
            out[r * ld + i] = sums[i][r];
}

/* Rows at .. at + n of the chunk: x (n, ld_x) -> out (n, ld). */
static void FN(periodic_forward)(const FN(chunk) *c, const fm_block *b, idx at, idx n, const REAL *x, idx ld_x, REAL *out,
                                 idx ld)
{
    const int kept = c->epoch != NULL;
    REAL turns[WAVE_ROWS] ALIGNED;
    for (idx r0 = 0; r0 < n; r0 += WAVE_ROWS) {
        const idx rows = n - r0 < WAVE_ROWS ? n - r0 : WAVE_ROWS;
        for (idx f = 0; f < b->n_features; f++) {
            for (idx r = 0; r < WAVE_ROWS; r++)
                turns[r] = r < rows ? (REAL)TWO_PI * x[(r0 + r) * ld_x + b->columns[f]] : 0;
            if (kept)
                memcpy(FN(turns)(c->ws, b, f) + at + r0, turns, (size_t)rows * sizeof(REAL));
            for (idx k = 0; k < b->size; k += WAVE_OUTPUTS)
                FN(wave)(c->ws, b, f, k, b->size - k < WAVE_OUTPUTS ? b->size - k : WAVE_OUTPUTS, at + r0, rows, turns,
                         out + r0 * ld + b->at + f * b->size + k, ld, kept && k == 0);
        }
    }
}

/* Keep the deltas of rows at .. at + n, delta (n, ld), column by column. */
static void FN(periodic_backward)(const FN(chunk) *c, const fm_block *b, idx at, idx n, const REAL *delta, idx ld)
{
    const idx R = FN(kept_rows)(c->ws);
    REAL *kept = FN(wave_deltas)(c->ws, b, 0) + at;
    for (idx r = 0; r < n; r++)
        for (idx i = 0; i < b->n_features * b->size; i++)
            kept[i * R + r] = delta[r * ld + b->at + i];
}

/* The vector at p, of which only n numbers count; the others become 0. */
static ALWAYS_INLINE VEC FN(first_of)(const REAL *p, idx n)
{
    if (n >= LANES)
        return LOAD(p);
    REAL lanes[LANES] ALIGNED = {0};
    memcpy(lanes, p, (size_t)n * sizeof(REAL));
    return LOAD(lanes);
}

static ALWAYS_INLINE REAL FN(sum_of_lanes)(VEC v)
{
    REAL lanes[LANES] ALIGNED, sum = 0;
    STORE(lanes, v);
    for (int i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}

/* sum_r x[r] y[r]; y NULL: of 1. */
static REAL FN(dot)(idx n, const REAL *x, const REAL *y)
{
    VEC sum = LOAD(FN(zeros)), other = sum;
    idx r = 0;
    for (; y && r + 2 * LANES <= n; r += 2 * LANES) {
        sum += LOAD(x + r) * LOAD(y + r);
        other += LOAD(x + r + LANES) * LOAD(y + r + LANES);
    }
    for (; r < n; r += LANES) {
        if (y)
            sum += FN(first_of)(x + r, n - r) * FN(first_of)(y + r, n - r);
        else
            sum += FN(first_of)(x + r, n - r);
    }
    return FN(sum_of_lanes)(sum + other);
}

/* Gradients of all four arrays, for features m .. m + n_features, over the n rows of the chunk. */
static void FN(periodic_gradient)(const FN(chunk) *c, const fm_block *b, idx m, idx n_features, int accumulate)
{
    const fm_workspace *ws = c->ws;
    const REAL *params = ws->params;
    REAL *grad = ws->grad;
    const idx R = FN(kept_rows)(ws), n = c->n, waves = b->frequencies;
    for (idx f = m; f < m + n_features; f++) {
        const REAL *turns = FN(turns)(ws, b, f), *deltas = FN(wave_deltas)(ws, b, f);
        const REAL *weight = params + b->arrays[2] + f * b->ld[2];
        REAL *g_frequency = grad + b->arrays[0] + f * b->ld[0], *g_phase = grad + b->arrays[1] + f * b->ld[1];
        REAL *g_weight = grad + b->arrays[2] + f * b->ld[2], *g_bias = grad + b->arrays[3] + f * b->ld[3];
        if (!accumulate) {
            memset(g_frequency, 0, (size_t)b->ld[0] * sizeof(REAL));
            memset(g_phase, 0, (size_t)b->ld[1] * sizeof(REAL));
            memset(g_weight, 0, (size_t)b->ld[2] * sizeof(REAL));
            memset(g_bias, 0, (size_t)b->ld[3] * sizeof(REAL));
        }
        for (idx i = 0; i < b->size; i++)
            g_bias[i] += FN(dot)(n, deltas + i * R, NULL);
        for (idx q = 0; q < waves; q++) {
            const REAL *cosines = FN(cosines)(ws, b, f) + q * R, *sines = FN(sines)(ws, b, f) + q * R;
            VEC s0 = LOAD(FN(zeros)), s1 = s0;
            for (idx r = 0; r < n; r += LANES) {
                VEC delta = LOAD(FN(zeros));
                for (idx i = 0; i < b->size; i++)
                    delta += FN(first_of)(deltas + i * R + r, n - r) * weight[i * waves + q];
                delta *= FN(first_of)(sines + r, n - r);
                s0 += delta;
                s1 += delta * FN(first_of)(turns + r, n - r);
            }
            for (idx i = 0; i < b->size; i++)
                g_weight[i * waves + q] += FN(dot)(n, deltas + i * R, cosines);
            g_phase[q] -= FN(sum_of_lanes)(s0);
            g_frequency[q] -= FN(sum_of_lanes)(s1);
        }
    }
}

/* --- embeddings: the row of a table that a code names -------------------------------------------------------------------- */

/* The row of feature f's code in the table.  The border has checked the codes; another thread may have written to X since
 * then, so the code is read once and compared here: no access leaves the table. */
static inline idx FN(row_of_code)(const fm_block *b, idx f, const REAL *x)
{
    const REAL code = *(const volatile REAL *)(x + b->columns[f]);
    return b->starts[f] + (code >= 0 && code < (REAL)b->counts[f] ? (idx)code : 0);
}

static void FN(embedding_forward)(const FN(chunk) *c, const fm_block *b, idx n, const REAL *x, idx ld_x, REAL *out, idx ld)
{
    const REAL *table = (const REAL *)c->ws->params + b->arrays[0];
    for (idx r = 0; r < n; r++)
        for (idx f = 0; f < b->n_features; f++)
            memcpy(out + r * ld + b->at + f * b->size, table + FN(row_of_code)(b, f, x + r * ld_x) * b->size,
                   (size_t)b->size * sizeof(REAL));
}

/* Gradient of rows m .. m + n_rows of the table: the sum of the deltas (n, ld) of the rows of X that name them. */
static void FN(embedding_gradient)(const FN(chunk) *c, const fm_block *b, idx m, idx n_rows, const REAL *delta, idx ld,
                                   REAL *g)
{
    idx ld_x;
    const REAL *x = FN(rows_of_x)(c->ws, c->data, c->rows, c->first, 0, &ld_x);
    for (idx f = 0; f < b->n_features; f++) {
        if (b->starts[f] >= m + n_rows || b->starts[f] + b->counts[f] <= m)
            continue;
        for (idx r = 0; r < c->n; r++) {
            const idx row = FN(row_of_code)(b, f, x + r * ld_x) - m;
            if ((uint64_t)row >= (uint64_t)n_rows)
                continue;
            const REAL *d = delta + r * ld + b->at + f * b->size;
            for (idx j = 0; j < b->size; j++)
                g[row * b->size + j] += d[j];
        }
    }
}

/* --- piecewise-linear features: weight x + bias + sum_{j < k} bins_j + (t - k) bins_k, k = floor(t) within the bins -------
 *
 * The sums over j < k are kept (sums, as bins) and renewed with the bins, so a row reads two rows of the table.  Likewise
 * on the way back a row adds its delta in one place, of `kept` (as bins), and sums over j > k follow once for all rows. */

/* The bin of feature f, and *rest = t - k. */
static inline idx FN(bin_of)(const fm_block *b, idx f, const REAL *x, REAL *rest)
{
    const REAL t = *(const volatile REAL *)(x + b->columns[b->n_features + f]);
    const idx k = !(t >= 1) ? 0 : t < (REAL)b->counts[f] ? (idx)t : b->counts[f] - 1;
    *rest = t - (REAL)k;
    return k;
}

static void FN(piecewise_forward)(const FN(chunk) *c, const fm_block *b, idx n, const REAL *x, idx ld_x, REAL *out, idx ld)
{
    const REAL *params = c->ws->params;
    for (idx f = 0; f < b->n_features; f++) {
        const REAL *weight = params + b->arrays[0] + f * b->ld[0], *bias = params + b->arrays[1] + f * b->ld[1];
        for (idx r = 0; r < n; r++) {
            REAL rest, value = x[r * ld_x + b->columns[f]], *e = out + r * ld + b->at + f * b->size;
            const idx row = (b->starts[f] + FN(bin_of)(b, f, x + r * ld_x, &rest)) * b->ld[2];
            const REAL *bin = params + b->arrays[2] + row, *sum = (const REAL *)b->sums + row;
            IVDEP
            for (idx j = 0; j < b->size; j++)
                e[j] = value * weight[j] + bias[j] + sum[j] + rest * bin[j];
        }
    }
}

/* Gradients of all three arrays, for features m .. m + n_features, over the n rows of the chunk. */
static void FN(piecewise_gradient)(const FN(chunk) *c, const fm_block *b, idx m, idx n_features, const REAL *delta, idx ld,
                                   int accumulate)
{
    REAL *grad = c->ws->grad;
    const size_t row_bytes = (size_t)b->ld[2] * sizeof(REAL);
    idx ld_x;
    const REAL *x = FN(rows_of_x)(c->ws, c->data, c->rows, c->first, 0, &ld_x);
    for (idx f = m; f < m + n_features; f++) {
        REAL *g_weight = grad + b->arrays[0] + f * b->ld[0], *g_bias = grad + b->arrays[1] + f * b->ld[1];
        REAL *g_bins = grad + b->arrays[2] + b->starts[f] * b->ld[2], *whole = (REAL *)b->kept + b->starts[f] * b->ld[2];
        memset(whole, 0, (size_t)b->counts[f] * row_bytes);
        if (!accumulate) {
            memset(g_weight, 0, (size_t)b->ld[0] * sizeof(REAL));
            memset(g_bias, 0, (size_t)b->ld[1] * sizeof(REAL));
            memset(g_bins, 0, (size_t)b->counts[f] * row_bytes);
        }
        for (idx r = 0; r < c->n; r++) {
            const REAL *d = delta + r * ld + b->at + f * b->size, value = x[r * ld_x + b->columns[f]];
            REAL rest;
            const idx row = FN(bin_of)(b, f, x + r * ld_x, &rest) * b->ld[2];
            REAL *g_bin = g_bins + row, *all = whole + row;
            IVDEP
            for (idx j = 0; j < b->size; j++) {
                g_weight[j] += value * d[j];
                g_bias[j] += d[j];
                g_bin[j] += rest * d[j];
                all[j] += d[j];
            }
        }
        for (idx k = b->counts[f] - 2; k >= 0; k--) { /* bins below a row's own count in full */
            REAL *below = whole + k * b->ld[2], *above = below + b->ld[2];
            for (idx j = 0; j < b->size; j++) {
                g_bins[k * b->ld[2] + j] += above[j];
                below[j] += above[j];
            }
        }
    }
}

/* sums = of the bins below each, of features m .. m + n_features. */
static void FN(sum_bins)(const fm_workspace *ws, const fm_block *b, idx m, idx n_features)
{
    for (idx f = m; f < m + n_features; f++) {
        const REAL *bins = (const REAL *)ws->params + b->arrays[2] + b->starts[f] * b->ld[2];
        REAL *sums = (REAL *)b->sums + b->starts[f] * b->ld[2];
        memset(sums, 0, (size_t)b->ld[2] * sizeof(REAL));
        for (idx i = 0; i < (b->counts[f] - 1) * b->ld[2]; i++)
            sums[b->ld[2] + i] = sums[i] + bins[i];
    }
}

/* --- all blocks ------------------------------------------------------------------------------------------------------------ */

static void FN(plain_forward)(const fm_block *b, idx n, const REAL *x, idx ld_x, REAL *out, idx ld)
{
    for (idx r = 0; r < n; r++)
        for (idx f = 0; f < b->n_features; f++)
            out[r * ld + b->at + f] = x[r * ld_x + b->columns[f]];
}

/* Rows at .. at + n of the chunk: x (n, ld_x) -> what each block makes of them, side by side, out (n, ld). */
static void FN(blocks_forward)(const FN(chunk) *c, idx at, idx n, const REAL *x, idx ld_x, REAL *out, idx ld)
{
    for (const fm_block *b = c->ws->blocks; b < c->ws->blocks + c->ws->n_blocks; b++) {
        if (b->kind == FM_PERIODIC)
            FN(periodic_forward)(c, b, at, n, x, ld_x, out, ld);
        else if (b->kind == FM_PIECEWISE)
            FN(piecewise_forward)(c, b, n, x, ld_x, out, ld);
        else if (b->kind == FM_EMBEDDING)
            FN(embedding_forward)(c, b, n, x, ld_x, out, ld);
        else
            FN(plain_forward)(b, n, x, ld_x, out, ld);
    }
}

/* Gradient of a slice of a block's array, over the rows of the chunk.  One slice computes the gradients of all arrays of
 * its features; the others, which follow it, find theirs there. */
static void FN(block_gradient)(const FN(chunk) *c, const fm_slice *slice, int accumulate)
{
    const fm_workspace *ws = c->ws;
    const fm_block *b = &ws->blocks[slice->layer];
    REAL *g = (REAL *)ws->grad + slice->offset;
    if (slice->array > 0)
        return;
    if (b->kind == FM_PERIODIC)
        FN(periodic_gradient)(c, b, slice->m, slice->n_rows, accumulate);
    if (b->kind == FM_PIECEWISE)
        FN(piecewise_gradient)(c, b, slice->m, slice->n_rows, ws->features_delta, ws->layers[0].ld_in, accumulate);
    if (b->kind == FM_EMBEDDING) {
        if (!accumulate)
            memset(g, 0, (size_t)slice->length * sizeof(REAL));
        FN(embedding_gradient)(c, b, slice->m, slice->n_rows, ws->features_delta, ws->layers[0].ld_in, g);
    }
}

/* What is made of a slice of a block's array once it is new. */
static void FN(block_updated)(const fm_workspace *ws, const fm_slice *slice)
{
    const fm_block *b = &ws->blocks[slice->layer];
    if (b->kind == FM_PIECEWISE && slice->array == 2)
        FN(sum_bins)(ws, b, slice->m, slice->n_rows);
}

/* The same for whole blocks, in front of a prediction. */
static void FN(blocks_updated)(const fm_workspace *ws)
{
    for (const fm_block *b = ws->blocks; b < ws->blocks + ws->n_blocks; b++)
        if (b->kind == FM_PIECEWISE)
            FN(sum_bins)(ws, b, 0, b->n_features);
}

/* --- the scale: a factor for each feature and member ---------------------------------------------------------------------- */

/* input (n * members, ld) = x (n, ld_x) * scale (members, ld). */
static void FN(scale_forward)(const fm_layer *bottom, idx members, idx n, const REAL *x, idx ld_x, const REAL *scale,
                              REAL *input)
{
    const idx ld = bottom->ld_in, width = bottom->fan_in;
    for (idx r = 0; r < n; r++, x += ld_x)
        for (idx i = 0; i < members; i++, input += ld) {
            const REAL *s = scale + i * ld;
            IVDEP
            for (idx j = 0; j < width; j++)
                input[j] = x[j] * s[j];
        }
}

/* features_delta (n, ld) = sum over the members of input_delta (n * members, ld) * scale. */
static void FN(scale_backward)(idx ld, idx members, idx n, const REAL *input_delta, const REAL *scale, REAL *features_delta)
{
    for (idx r = 0; r < n; r++, features_delta += ld) {
        IVDEP
        for (idx j = 0; j < ld; j++)
            features_delta[j] = input_delta[j] * scale[j];
        input_delta += ld;
        for (idx i = 1; i < members; i++, input_delta += ld) {
            const REAL *s = scale + i * ld;
            IVDEP
            for (idx j = 0; j < ld; j++)
                features_delta[j] += input_delta[j] * s[j];
        }
    }
}

/* Gradient (members, ld) of the scale: sums over the rows of the chunk of input_delta * features. */
static void FN(scale_gradient)(const FN(chunk) *c, REAL *g, int accumulate)
{
    const fm_workspace *ws = c->ws;
    const fm_layer *bottom = &ws->layers[0];
    const idx ld = bottom->ld_in, width = bottom->fan_in, members = ws->members;
    const REAL *delta = ws->input_delta;
    idx ld_x;
    const REAL *x = FN(features)(c, 0, &ld_x);
    if (!accumulate)
        memset(g, 0, (size_t)(members * ld) * sizeof(REAL));
    for (idx r = 0; r < c->n; r++, x += ld_x)
        for (idx i = 0; i < members; i++, delta += ld) {
            REAL *sum = g + i * ld;
            IVDEP
            for (idx j = 0; j < width; j++)
                sum[j] += delta[j] * x[j];
        }
}

/* --- all of it ------------------------------------------------------------------------------------------------------------- */

/* Rows at .. at + n of the chunk, x (n, ld_x) -> the input of the first layer. */
static void FN(inputs_forward)(const FN(chunk) *c, idx at, idx n, const REAL *x, idx ld_x)
{
    const fm_workspace *ws = c->ws;
    const fm_layer *bottom = &ws->layers[0];
    const idx ld = bottom->ld_in;
    if (ws->n_blocks) {
        REAL *features = ROW(ws->features, at, ld);
        FN(blocks_forward)(c, at, n, x, ld_x, features, ld);
        x = features;
        ld_x = ld;
    }
    if (bottom->input_scale >= 0)
        FN(scale_forward)(bottom, ws->members, n, x, ld_x, (const REAL *)ws->params + bottom->input_scale,
                          ROW(ws->input, at * ws->members, ld));
}

/* Rows at .. at + n of the chunk: d loss / d input -> what the gradients of the arrays in front are made of. */
static void FN(inputs_backward)(const FN(chunk) *c, idx at, idx n)
{
    const fm_workspace *ws = c->ws;
    const fm_layer *bottom = &ws->layers[0];
    const idx ld = bottom->ld_in;
    const REAL *delta = ROW(ws->input_delta, at * ws->members, ld);
    if (!ws->features_delta)
        return;
    REAL *features_delta = ROW(ws->features_delta, at, ld);
    if (bottom->input_scale >= 0)
        FN(scale_backward)(ld, ws->members, n, delta, (const REAL *)ws->params + bottom->input_scale, features_delta);
    for (const fm_block *b = ws->blocks; b < ws->blocks + ws->n_blocks; b++)
        if (b->kind == FM_PERIODIC)
            FN(periodic_backward)(c, b, at, n, features_delta, ld);
}

#undef WAVE_ROWS
#undef WAVE_OUTPUTS
#undef TWO_PI
