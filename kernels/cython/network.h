/* A whole network over one chunk of rows, and the training step; a template over REAL.
 *
 * A team of threads works a chunk in two phases, a barrier after each:
 *   rows   every member takes some rows of the chunk through gather, forward, loss and deltas;
 *   units  every member takes some slices of the parameters: their gradient over all rows of the chunk and, with the
 *          batch's last chunk, their update.
 * No sum is ever split between members, so the bits do not depend on their number.
 */

/* --- flat vector [W0 .. Wn | b0 .. bn] <-> padded vector of the same order ------------------------------------------- */

static void FN(pack)(const fm_workspace *ws, const void *flat_, void *padded_)
{
    const REAL *flat = flat_;
    REAL *padded = padded_;
    for (int l = 0; l < ws->n_layers; l++) {
        const fm_layer *layer = &ws->layers[l];
        const size_t row = (size_t)layer->fan_out * sizeof(REAL);
        for (idx i = 0; i < layer->fan_in; i++)
            memcpy(padded + layer->w + i * layer->ld_out, flat + layer->w_flat + i * layer->fan_out, row);
        memcpy(padded + layer->b, flat + layer->b_flat, row);
    }
}

static void FN(unpack)(const fm_workspace *ws, const void *padded_, void *flat_)
{
    const REAL *padded = padded_;
    REAL *flat = flat_;
    for (int l = 0; l < ws->n_layers; l++) {
        const fm_layer *layer = &ws->layers[l];
        const size_t row = (size_t)layer->fan_out * sizeof(REAL);
        for (idx i = 0; i < layer->fan_in; i++)
            memcpy(flat + layer->w_flat + i * layer->fan_out, padded + layer->w + i * layer->ld_out, row);
        memcpy(flat + layer->b_flat, padded + layer->b, row);
    }
}

/* Columns m .. m + n_rows of wt (fan_out, ld_in) = rows m .. m + n_rows of W (fan_in, ld_out), transposed. */
static void FN(transpose)(const fm_layer *layer, idx m, idx n_rows, const REAL *w, REAL *wt)
{
    const idx block = 16; /* about one cache line of each matrix at a time */
    for (idx i0 = m; i0 < m + n_rows; i0 += block)
        for (idx j0 = 0; j0 < layer->fan_out; j0 += block) {
            const idx i1 = i0 + block < m + n_rows ? i0 + block : m + n_rows;
            const idx j1 = j0 + block < layer->fan_out ? j0 + block : layer->fan_out;
            for (idx j = j0; j < j1; j++)
                for (idx i = i0; i < i1; i++)
                    wt[j * layer->ld_in + i] = w[i * layer->ld_out + j];
        }
}

/* --- rows of the caller -> buffers of the chunk ----------------------------------------------------------------------- */

/* out (n, ld) = X[rows[first .. first + n)] in the network's dtype; X dense with any strides. */
static void FN(gather)(const fm_data *data, const idx *rows, idx first, idx n, idx width, idx ld, REAL *out)
{
    const idx step = data->col_stride, item = data->X_is_double ? sizeof(double) : sizeof(float);
    /* a shuffled row is a miss of cache and page table: ask for it early (its first lines; the rest streams) */
    const idx lines = width * item < 256 ? width * item : 256;
    for (idx r = 0; r < n; r++, out += ld) {
        if (rows && r + PREFETCH_ROWS < n) {
            const char *ahead = (const char *)data->X + rows[first + r + PREFETCH_ROWS] * data->row_stride * item;
            for (idx line = 0; line < lines; line += 64)
                PREFETCH(ahead + line);
        }
        const idx start = FN(row_at)(rows, first + r) * data->row_stride;
        if (data->X_is_double) {
            const double *x = (const double *)data->X + start;
            if (step == 1)
                for (idx j = 0; j < width; j++)
                    out[j] = (REAL)x[j];
            else
                for (idx j = 0; j < width; j++)
                    out[j] = (REAL)x[j * step];
        } else {
            const float *x = (const float *)data->X + start;
            if (step == 1)
                for (idx j = 0; j < width; j++)
                    out[j] = (REAL)x[j];
            else
                for (idx j = 0; j < width; j++)
                    out[j] = (REAL)x[j * step];
        }
    }
}

/* Targets and sample weights of rows[first .. first + n) -> rows at .. at + n of the chunk's buffers. */
static void FN(gather_targets)(const fm_workspace *ws, const fm_data *data, const idx *rows, idx first, idx at, idx n)
{
    const idx n_outputs = ws->layers[ws->n_layers - 1].fan_out;
    for (idx r = 0; r < n; r++) {
        const idx row = FN(row_at)(rows, first + r);
        if (data->y_class && rows && r + PREFETCH_ROWS < n)
            PREFETCH(data->y_class + rows[first + r + PREFETCH_ROWS]);
        if (data->y_class)
            ws->y_class[at + r] = data->y_class[row];
        else
            for (idx j = 0; j < n_outputs; j++)
                ((REAL *)ws->y)[(at + r) * n_outputs + j] = ((const REAL *)data->y)[row * n_outputs + j];
        if (data->sample_weight)
            ((REAL *)ws->weight)[at + r] = ((const REAL *)data->sample_weight)[row];
    }
}

/* --- phase "rows": forward, loss, deltas ------------------------------------------------------------------------------- */

#define ROW(buffer, at, ld) ((buffer) ? (REAL *)(buffer) + (at) * (ld) : NULL)

/* Rows in sequence, dense, in the network's dtype: the first layer reads them where they are. */
static inline int FN(reads_in_place)(const fm_data *data, const idx *rows)
{
    return !rows && !data->indptr && data->col_stride == 1 && data->X_is_double == (sizeof(REAL) == sizeof(double));
}

/* The first layer's input for rows[first ..): X itself or the chunk's buffer from row `at` on; *ld its row stride. */
static const REAL *FN(input)(const fm_workspace *ws, const fm_data *data, const idx *rows, idx first, idx at, idx *ld)
{
    if (FN(reads_in_place)(data, rows)) {
        *ld = data->row_stride;
        return (const REAL *)data->X + first * data->row_stride;
    }
    *ld = ws->layers[0].ld_in;
    return (const REAL *)ws->a[0] + at * *ld;
}

/* rows[first .. first + n) of X -> rows at .. at + n of a[1] .. a[L] (logits). */
static void FN(forward)(fm_workspace *ws, const fm_data *data, const idx *rows, idx first, idx at, idx n)
{
    const REAL *params = ws->params;
    const fm_layer *bottom = &ws->layers[0];
    idx ld_x;
    const REAL *x = FN(input)(ws, data, rows, first, at, &ld_x);
    if (data->indptr)
        FN(sparse_forward)(data, rows, first, n, bottom->ld_out, params + bottom->w, params + bottom->b,
                           bottom->activation, ROW(ws->z[0], at, bottom->ld_out), ROW(ws->a[1], at, bottom->ld_out));
    else if (!FN(reads_in_place)(data, rows))
        FN(gather)(data, rows, first, n, bottom->fan_in, bottom->ld_in, ROW(ws->a[0], at, bottom->ld_in));
    for (int l = data->indptr ? 1 : 0; l < ws->n_layers; l++) {
        const fm_layer *layer = &ws->layers[l];
        FN(linear_forward)(n, layer->fan_in, l ? layer->ld_in : ld_x, layer->ld_out,
                           l ? ROW(ws->a[l], at, layer->ld_in) : x, params + layer->w, params + layer->b,
                           layer->activation, ROW(ws->z[l], at, layer->ld_out), ROW(ws->a[l + 1], at, layer->ld_out),
                           ws->blas);
    }
}

/* Member t's scratch. */
static REAL *FN(scratch)(const fm_workspace *ws, int t)
{
    const idx rows = ws->max_rows > CLASS_ROWS ? ws->max_rows : CLASS_ROWS;
    return (REAL *)ws->scratch + t * 3 * rows * ws->layers[ws->n_layers - 1].fan_out;
}

/* Logits and targets of rows at .. at + n -> row_loss and the deltas of every layer. */
static void FN(loss_and_deltas)(fm_workspace *ws, const fm_data *data, int t, idx at, idx n)
{
    const int last = ws->n_layers - 1;
    const fm_layer *top = &ws->layers[last];
    FN(loss)(ws->loss, n, top->fan_out, top->ld_out, ROW(ws->a[last + 1], at, top->ld_out),
             ROW(ws->y, at, top->fan_out), ws->y_class + at, data->sample_weight ? ROW(ws->weight, at, 1) : NULL,
             ROW(ws->delta[last], at, top->ld_out), ws->row_loss + at, FN(scratch)(ws, t));
    for (int l = last; l > 0; l--) {
        const fm_layer *layer = &ws->layers[l];
        FN(input_delta)(n, layer->fan_out, layer->ld_in, layer->ld_out, ROW(ws->a[l], at, layer->ld_in), ws->wt[l],
                        ROW(ws->delta[l], at, layer->ld_out), ws->layers[l - 1].activation,
                        ROW(ws->z[l - 1], at, layer->ld_in), ROW(ws->delta[l - 1], at, layer->ld_in), ws->blas);
    }
}

/* --- phase "units": gradient and update of a slice of the parameters --------------------------------------------------- */

/* The unit's gradient sums over rows 0 .. n of the chunk (rows[first .. first + n) of X). */
static void FN(unit_gradient)(fm_workspace *ws, const fm_data *data, const fm_unit *unit, const idx *rows, idx first,
                              idx n, int accumulate)
{
    const fm_layer *layer = &ws->layers[unit->layer];
    const REAL *delta = ws->delta[unit->layer];
    REAL *g = (REAL *)ws->grad + unit->offset;
    if (unit->is_bias) {
        FN(bias_gradient)(n, layer->ld_out, delta, g, accumulate);
    } else if (unit->layer == 0 && data->indptr) {
        if (!accumulate)
            memset(g, 0, (size_t)unit->length * sizeof(REAL));
        FN(sparse_weight_gradient)(data, rows, first, n, unit->m, unit->n_rows, layer->ld_out, delta, g);
    } else {
        idx ld_x = layer->ld_in;
        const REAL *x = unit->layer ? ws->a[unit->layer] : FN(input)(ws, data, rows, first, 0, &ld_x);
        FN(weight_gradient)(n, unit->m, unit->n_rows, ld_x, layer->ld_out, x, delta, g, accumulate, ws->blas);
    }
}

/* sum of squares of p[0 .. n), n a multiple of LANES. */
static double FN(sum_of_squares)(idx n, const REAL *p)
{
    VEC s0 = LOAD(FN(zeros)), s1 = s0, s2 = s0, s3 = s0;
    idx i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        s0 += LOAD(p + i) * LOAD(p + i);
        s1 += LOAD(p + i + LANES) * LOAD(p + i + LANES);
        s2 += LOAD(p + i + 2 * LANES) * LOAD(p + i + 2 * LANES);
        s3 += LOAD(p + i + 3 * LANES) * LOAD(p + i + 3 * LANES);
    }
    for (; i < n; i += LANES)
        s0 += LOAD(p + i) * LOAD(p + i);
    REAL lanes[LANES] ALIGNED;
    STORE(lanes, (s0 + s1) + (s2 + s3));
    double sum = 0;
    for (int j = 0; j < LANES; j++)
        sum += (double)lanes[j];
    return sum;
}

/* One optimizer pass over n entries: gradient (g + alpha * p) * scale. */
static void FN(update)(int rule, idx n, void *p, const void *g, void *const *states, const double *scalars,
                       double alpha, double scale)
{
    FN(OPTIMIZERS)[rule].rule(n, p, g, states, scalars, (REAL)alpha, (REAL)scale);
}

/* Penalty of the unit's tiles as they are, then its update (or with rule -1 its finished gradient), then its part of wt. */
static void FN(unit_update)(fm_workspace *ws, const fm_epoch *epoch, idx u, idx step, double scale)
{
    const fm_unit *unit = &ws->units[u];
    const double alpha = unit->is_bias ? 0 : epoch->alpha;
    REAL *p = (REAL *)ws->params + unit->offset, *g = (REAL *)ws->grad + unit->offset;
    if (!unit->is_bias) {
        const idx tile = FM_TILE_ROWS * ws->layers[unit->layer].ld_out;
        for (idx i = 0, k = unit->tile; i < unit->length; i += tile, k++)
            ws->tile_penalty[k] = FN(sum_of_squares)(unit->length - i < tile ? unit->length - i : tile, p + i);
    }
    if (epoch->rule < 0) {
        const REAL a = (REAL)alpha, s = (REAL)scale;
        for (idx i = 0; i < unit->length; i++)
            g[i] = unit->is_bias ? g[i] * s : (g[i] + a * p[i]) * s;
        return;
    }
    const FN(optimizer) *optimizer = &FN(OPTIMIZERS)[epoch->rule];
    void *states[FM_MAX_STATES];
    for (int k = 0; k < optimizer->n_states; k++)
        states[k] = (REAL *)ws->states[k] + unit->offset;
    FN(update)(epoch->rule, unit->length, p, g, states, epoch->scalars + step * optimizer->n_scalars, alpha, scale);
    const fm_layer *layer = &ws->layers[unit->layer];
    if (unit->layer > 0 && !unit->is_bias)
        FN(transpose)(layer, unit->m, unit->n_rows, (REAL *)ws->params + layer->w, ws->wt[unit->layer]);
}

/* --- the epoch ----------------------------------------------------------------------------------------------------------- */

/* Rows lo .. hi of a chunk of n that member t of T takes: whole register tiles. */
static void FN(share)(idx n, int t, int T, idx *lo, idx *hi)
{
    const idx tiles = (n + MR - 1) / MR;
    *lo = tiles * t / T * MR;
    *hi = tiles * (t + 1) / T * MR;
    *lo = *lo < n ? *lo : n;
    *hi = *hi < n ? *hi : n;
}

/* Member 0 counts the work of n rows (`passes`: 1 forward, 3 with backward) and looks for Ctrl-C now and then. */
static void FN(look_for_interrupt)(fm_workspace *ws, idx n, int passes)
{
    ws->work += 2.0 * (double)n * (double)ws->w_padded * passes;
    if (ws->work > WORK_PER_POLL) {
        ws->work = 0;
        if (ws->poll())
            ws->interrupted = 1;
    }
}

/* Sum of the chunk's sample weights. */
static double FN(sum_of_weights)(const fm_workspace *ws, const fm_data *data, idx n)
{
    if (!data->sample_weight)
        return (double)n;
    double sum = 0;
    for (idx r = 0; r < n; r++)
        sum += (double)((const REAL *)ws->weight)[r];
    return sum;
}

typedef struct {
    fm_workspace *ws;
    const fm_data *data;
    fm_epoch *epoch;
} FN(training);

/* One step as member t does it.  Returns 0 if the step was not done; all members return the same. */
static int FN(step)(const FN(training) *job, int t, idx step)
{
    fm_workspace *ws = job->ws;
    const fm_data *data = job->data;
    fm_epoch *epoch = job->epoch;
    const idx start = step * epoch->batch_size, left = epoch->n_order - start;
    const idx rows = left < epoch->batch_size ? left : epoch->batch_size;
    double weight = 0, loss = 0;
    for (idx r = 0; r < rows; r += ws->max_rows) {
        const idx n = rows - r < ws->max_rows ? rows - r : ws->max_rows;
        const int last = r + n == rows;
        idx lo, hi;
        FN(share)(n, t, ws->n_threads, &lo, &hi);
        if (lo < hi) {
            FN(gather_targets)(ws, data, epoch->order, start + r + lo, lo, hi - lo);
            FN(forward)(ws, data, epoch->order, start + r + lo, lo, hi - lo);
            FN(loss_and_deltas)(ws, data, t, lo, hi - lo);
        }
        if (t == 0)
            FN(look_for_interrupt)(ws, n, 3);
        fm_team_barrier(ws->team);

        weight += FN(sum_of_weights)(ws, data, n);
        if (ws->interrupted || (last && weight == 0))
            return 0;
        if (t == 0)
            for (idx i = 0; i < n; i++)
                loss += ws->row_loss[i];
        for (idx u = ws->unit_start[t]; u < ws->unit_start[t + 1]; u++) {
            FN(unit_gradient)(ws, data, &ws->units[u], epoch->order, start + r, n, r > 0);
            if (last)
                FN(unit_update)(ws, epoch, u, step, 1.0 / weight);
        }
        fm_team_barrier(ws->team);
    }
    if (t == 0) {
        double penalty = 0;
        for (idx k = 0; k < ws->n_tiles; k++)
            penalty += ws->tile_penalty[k];
        epoch->loss += (loss + 0.5 * epoch->alpha * penalty) / weight * (double)rows;
        epoch->done = step + 1;
    }
    return 1;
}

static void FN(train_member)(void *job_, int t)
{
    const FN(training) *job = job_;
    fm_workspace *ws = job->ws;
    for (idx u = ws->unit_start[t]; u < ws->unit_start[t + 1]; u++) {
        const fm_layer *layer = &ws->layers[ws->units[u].layer];
        if (ws->units[u].layer > 0 && !ws->units[u].is_bias)
            FN(transpose)(layer, ws->units[u].m, ws->units[u].n_rows, (REAL *)ws->params + layer->w,
                          ws->wt[ws->units[u].layer]);
    }
    fm_team_barrier(ws->team);
    for (idx s = 0; s < job->epoch->n_steps; s++)
        if (!FN(step)(job, t, s))
            break;
}

/* All steps of an epoch; see fm_epoch for what comes back. */
static void FN(train)(fm_workspace *ws, const fm_data *data, fm_epoch *epoch)
{
    FN(training) job = {ws, data, epoch};
    epoch->done = 0;
    epoch->loss = 0;
    fm_team_run(ws->team, FN(train_member), &job);
}

/* Whether the rows that forward() has just read are finite: they are still in cache. */
static int FN(finite_input)(const fm_workspace *ws, const fm_data *data, const idx *rows, idx first, idx at, idx n)
{
    if (data->indptr) {
        for (idx r = 0; r < n; r++) {
            const idx row = FN(row_at)(rows, first + r);
            const idx end = FN(index_at)(data->indptr, data->index_is_64, row + 1);
            for (idx k = FN(index_at)(data->indptr, data->index_is_64, row); k < end; k++)
                if (!isfinite(FN(value_at)(data, k)))
                    return 0;
        }
        return 1;
    }
    const idx width = ws->layers[0].fan_in;
    idx ld;
    const REAL *x = FN(input)(ws, data, rows, first, at, &ld);
    if (ld == width)
        return FN(all_finite)(n * width, x);
    for (idx r = 0; r < n; r++)
        if (!FN(all_finite)(width, x + r * ld))
            return 0;
    return 1;
}

/* --- prediction ----------------------------------------------------------------------------------------------------------- */

typedef struct {
    fm_workspace *ws;
    const fm_data *data;
    const idx *rows;
    idx n;
    REAL *out;
} FN(prediction);

/* Member t's rows, in pieces that fit its share of the chunk's buffers. */
static void FN(predict_member)(void *job_, int t)
{
    const FN(prediction) *job = job_;
    fm_workspace *ws = job->ws;
    const fm_layer *top = &ws->layers[ws->n_layers - 1];
    const FN(loss_row) *loss = &FN(LOSSES)[ws->loss];
    const idx n_outputs = top->fan_out;
    idx at, at_end, lo, hi;
    FN(share)(ws->max_rows, t, ws->n_threads, &at, &at_end);
    FN(share)(job->n, t, ws->n_threads, &lo, &hi);
    REAL *logits = ROW(ws->a[ws->n_layers], at, top->ld_out);
    for (idx r = lo; r < hi && !ws->interrupted; r += at_end - at) {
        const idx n = hi - r < at_end - at ? hi - r : at_end - at;
        REAL *out = job->out + r * n_outputs;
        FN(forward)(ws, job->data, job->rows, r, at, n);
        if (!FN(finite_input)(ws, job->data, job->rows, r, at, n))
            ws->saw_non_finite = 1;
        if (!loss->value) {
            FN(softmax)(n, n_outputs, top->ld_out, logits, n_outputs, out, FN(scratch)(ws, t));
        } else {
            for (idx i = 0; i < n; i++)
                memcpy(out + i * n_outputs, logits + i * top->ld_out, (size_t)n_outputs * sizeof(REAL));
            FN(ACTIVATIONS)[loss->link].value(n * n_outputs, out, out);
        }
        if (t == 0)
            FN(look_for_interrupt)(ws, n, 1);
    }
}

/* out (n, n_outputs) = link(logits) of rows[0 .. n); rows NULL: of the first n rows themselves.
 * Sets ws->saw_non_finite if X holds NaN or infinities there. */
static void FN(predict)(fm_workspace *ws, const fm_data *data, const idx *rows, idx n, void *out)
{
    FN(prediction) job = {ws, data, rows, n, out};
    fm_team_run(ws->team, FN(predict_member), &job);
}

/* --- kernels by name, on whole vectors of any length ------------------------------------------------------------------- */

static void FN(activate)(int activation, idx n, const void *z, void *a)
{
    FN(ACTIVATIONS)[activation].value(n, z, a);
}

static void FN(slope)(int activation, idx n, const void *z, const void *a, void *delta)
{
    FN(ACTIVATIONS)[activation].backward(n, z, a, delta);
}

static void FN(evaluate)(int function, idx n, const void *x, void *out)
{
    FN(FUNCTIONS)[function].evaluate(n, x, out);
}

static const fm_kernels FN(KERNELS) = {
    .isa = ISA_NAME,
    .lanes = LANES,
    .pack = FN(pack),
    .unpack = FN(unpack),
    .predict = FN(predict),
    .train = FN(train),
    .evaluate = FN(evaluate),
    .activate = FN(activate),
    .slope = FN(slope),
    .linear_forward = FN(linear_forward),
    .linear_backward = FN(linear_backward),
    .softmax = FN(softmax),
    .loss = FN(loss),
    .update = FN(update),
};

#undef ROW
