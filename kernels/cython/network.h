/* A whole network over one chunk of rows, and the training step; a template over REAL. */

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

/* wt[l] (fan_out, ld_in) = W[l]^T for every layer above the first, once per step. */
static void FN(transpose)(fm_workspace *ws)
{
    for (int l = 1; l < ws->n_layers; l++) {
        const fm_layer *layer = &ws->layers[l];
        const REAL *w = (const REAL *)ws->params + layer->w;
        REAL *wt = ws->wt[l];
        const idx block = 16; /* one cache line of each matrix at a time */
        for (idx i0 = 0; i0 < layer->fan_in; i0 += block)
            for (idx j0 = 0; j0 < layer->fan_out; j0 += block) {
                const idx i1 = i0 + block < layer->fan_in ? i0 + block : layer->fan_in;
                const idx j1 = j0 + block < layer->fan_out ? j0 + block : layer->fan_out;
                for (idx i = i0; i < i1; i++)
                    for (idx j = j0; j < j1; j++)
                        wt[j * layer->ld_in + i] = w[i * layer->ld_out + j];
            }
    }
}

/* --- rows of the caller -> buffers of the chunk ----------------------------------------------------------------------- */

/* a[0][r] = X[rows[r]] in the network's dtype; X dense with any strides. */
static void FN(gather)(const fm_workspace *ws, const fm_data *data, const idx *rows, idx n)
{
    const idx width = ws->layers[0].fan_in, ld = ws->layers[0].ld_in, step = data->col_stride;
    REAL *out = ws->a[0];
    for (idx r = 0; r < n; r++, out += ld) {
        const idx start = rows[r] * data->row_stride;
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

/* y and sample weights of the chunk; returns the sum of weights. */
static double FN(gather_targets)(const fm_workspace *ws, const fm_data *data, const idx *rows, idx n)
{
    const idx n_outputs = ws->layers[ws->n_layers - 1].fan_out;
    if (data->y_class)
        for (idx r = 0; r < n; r++)
            ws->y_class[r] = data->y_class[rows[r]];
    else
        for (idx r = 0; r < n; r++)
            for (idx j = 0; j < n_outputs; j++)
                ((REAL *)ws->y)[r * n_outputs + j] = ((const REAL *)data->y)[rows[r] * n_outputs + j];
    if (!data->sample_weight)
        return (double)n;
    double sum = 0;
    for (idx r = 0; r < n; r++) {
        const REAL w = ((const REAL *)data->sample_weight)[rows[r]];
        ((REAL *)ws->weight)[r] = w;
        sum += (double)w;
    }
    return sum;
}

/* Count the work of n rows (`passes`: 1 forward, 3 with backward) and look for Ctrl-C now and then. */
static int FN(interrupted)(fm_workspace *ws, idx n, int passes)
{
    ws->work += 2.0 * (double)n * (double)ws->w_padded * passes;
    if (ws->work > WORK_PER_POLL) {
        ws->work = 0;
        if (ws->poll())
            ws->interrupted = 1;
    }
    return ws->interrupted;
}

/* --- one chunk forward and backward ------------------------------------------------------------------------------------- */

/* rows of X -> a[1] .. a[L] (logits). */
static void FN(forward)(fm_workspace *ws, const fm_data *data, const idx *rows, idx n)
{
    const REAL *params = ws->params;
    int l = 0;
    if (data->indptr) {
        const fm_layer *first = &ws->layers[0];
        FN(sparse_forward)(data, rows, n, first->ld_out, params + first->w, params + first->b, first->activation,
                           ws->z[0], ws->a[1]);
        l = 1;
    } else {
        FN(gather)(ws, data, rows, n);
    }
    for (; l < ws->n_layers; l++) {
        const fm_layer *layer = &ws->layers[l];
        FN(linear_forward)(n, layer->fan_in, layer->ld_in, layer->ld_out, ws->a[l], params + layer->w,
                           params + layer->b, layer->activation, ws->z[l], ws->a[l + 1], ws->blas);
    }
}

/* delta[L - 1] and the activations -> grad (+)=, destroying the deltas below. */
static void FN(backward)(fm_workspace *ws, const fm_data *data, const idx *rows, idx n, int accumulate)
{
    REAL *grad = ws->grad;
    for (int l = ws->n_layers - 1; l > 0; l--) {
        const fm_layer *layer = &ws->layers[l];
        FN(linear_backward)(n, layer->fan_in, layer->fan_out, layer->ld_in, layer->ld_out, ws->a[l], ws->wt[l],
                            ws->delta[l], grad + layer->w, grad + layer->b, accumulate, ws->blas,
                            ws->layers[l - 1].activation, ws->z[l - 1], ws->delta[l - 1]);
    }
    const fm_layer *first = &ws->layers[0];
    if (data->indptr) {
        if (!accumulate)
            memset(grad + first->w, 0, (size_t)(first->fan_in * first->ld_out) * sizeof(REAL));
        FN(bias_gradient)(n, first->ld_out, ws->delta[0], grad + first->b, accumulate);
        FN(sparse_backward)(data, rows, n, first->ld_out, ws->delta[0], grad + first->w);
    } else {
        FN(linear_backward)(n, first->fan_in, first->fan_out, first->ld_in, first->ld_out, ws->a[0], NULL,
                            ws->delta[0], grad + first->w, grad + first->b, accumulate, ws->blas, -1, NULL, NULL);
    }
}

/* Gradient sums over rows[0 .. n), chunk by chunk; wt must be current.
 * *weight: the sum of sample weights; returns the weighted sum of losses. */
static double FN(accumulate)(fm_workspace *ws, const fm_data *data, const idx *rows, idx n, double *weight)
{
    const int last = ws->n_layers - 1;
    const fm_layer *top = &ws->layers[last];
    double total = 0;
    *weight = 0;
    for (idx r = 0; r < n; r += ws->max_rows) {
        const idx chunk = n - r < ws->max_rows ? n - r : ws->max_rows;
        const idx *chunk_rows = rows + r;
        *weight += FN(gather_targets)(ws, data, chunk_rows, chunk);
        FN(forward)(ws, data, chunk_rows, chunk);
        total += FN(loss)(ws->loss, chunk, top->fan_out, top->ld_out, ws->a[last + 1], ws->y, ws->y_class,
                          data->sample_weight ? ws->weight : NULL, ws->delta[last], ws->scratch);
        FN(backward)(ws, data, chunk_rows, chunk, r > 0);
        if (FN(interrupted)(ws, chunk, 3))
            break;
    }
    return total;
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

/* grad = (sums + alpha * W) / weight; returns the penalty 0.5 * alpha * ||W||^2 / weight.  For solvers outside. */
static double FN(finish_gradient)(fm_workspace *ws, double alpha, double weight)
{
    REAL *g = ws->grad;
    const REAL *p = ws->params, a = (REAL)alpha, scale = (REAL)(1.0 / weight);
    for (idx i = 0; i < ws->w_padded; i++)
        g[i] = (g[i] + a * p[i]) * scale;
    for (idx i = ws->w_padded; i < ws->n_padded; i++)
        g[i] *= scale;
    return 0.5 * alpha * FN(sum_of_squares)(ws->w_padded, p) / weight;
}

/* One optimizer pass over n entries: gradient (g + alpha * p) * scale. */
static void FN(update)(int rule, idx n, void *p, const void *g, void *const *states, const double *scalars,
                       double alpha, double scale)
{
    FN(OPTIMIZERS)[rule].rule(n, p, g, states, scalars, (REAL)alpha, (REAL)scale);
}

/* All training steps of an epoch.  Returns the number of steps done: fewer than n_steps if interrupted, or if the
 * next batch's sample weights sum to zero. */
static idx FN(steps)(fm_workspace *ws, const fm_data *data, fm_epoch *epoch, idx n_steps)
{
    const FN(optimizer) *rule = &FN(OPTIMIZERS)[epoch->rule];
    REAL *params = ws->params, *grad = ws->grad;
    const idx nw = ws->w_padded;
    for (idx s = 0; s < n_steps; s++) {
        const idx start = s * epoch->batch_size, left = epoch->n_order - start;
        const idx rows = left < epoch->batch_size ? left : epoch->batch_size;
        double weight;
        FN(transpose)(ws);
        const double loss = FN(accumulate)(ws, data, epoch->order + start, rows, &weight);
        if (ws->interrupted || weight == 0)
            return s;
        const double penalty = 0.5 * epoch->alpha * FN(sum_of_squares)(nw, params);
        epoch->loss += (loss + penalty) / weight * (double)rows;

        const double *scalars = epoch->scalars + s * rule->n_scalars;
        const REAL scale = (REAL)(1.0 / weight);
        void *tail[FM_MAX_STATES];
        for (int k = 0; k < rule->n_states; k++)
            tail[k] = (REAL *)ws->states[k] + nw;
        rule->rule(nw, params, grad, ws->states, scalars, (REAL)epoch->alpha, scale);
        rule->rule(ws->n_padded - nw, params + nw, grad + nw, tail, scalars, 0, scale);
    }
    return n_steps;
}

/* out (n, n_outputs) = link(logits) of rows[0 .. n); rows NULL: of the first n rows themselves. */
static void FN(predict)(fm_workspace *ws, const fm_data *data, const idx *rows, idx n, void *out_)
{
    const fm_layer *top = &ws->layers[ws->n_layers - 1];
    const idx n_outputs = top->fan_out;
    REAL *out = out_, *logits = ws->a[ws->n_layers];
    for (idx r = 0; r < n; r += ws->max_rows) {
        const idx chunk = n - r < ws->max_rows ? n - r : ws->max_rows;
        const idx *chunk_rows = ws->y_class; /* not needed for targets here */
        if (rows)
            chunk_rows = rows + r;
        else
            for (idx i = 0; i < chunk; i++)
                ws->y_class[i] = r + i;
        FN(forward)(ws, data, chunk_rows, chunk);
        if (!FN(LOSSES)[ws->loss].value)
            FN(softmax)(chunk, n_outputs, top->ld_out, logits, logits);
        REAL *target = out + r * n_outputs;
        for (idx i = 0; i < chunk; i++)
            memcpy(target + i * n_outputs, logits + i * top->ld_out, (size_t)n_outputs * sizeof(REAL));
        if (FN(LOSSES)[ws->loss].value)
            FN(ACTIVATIONS)[FN(LOSSES)[ws->loss].link].value(chunk * n_outputs, target, target);
        if (FN(interrupted)(ws, chunk, 1))
            return;
    }
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

static const fm_kernels FN(KERNELS) = {
    ISA_NAME,
    LANES,
    FN(pack),
    FN(unpack),
    FN(predict),
    FN(steps),
    FN(accumulate),
    FN(finish_gradient),
    FN(transpose),
    FN(activate),
    FN(slope),
    FN(linear_forward),
    FN(linear_backward),
    FN(softmax),
    FN(loss),
    FN(update),
};
