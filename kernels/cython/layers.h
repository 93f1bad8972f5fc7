/* Layers and losses, forward and backward next to each other; a template over REAL. */

/* 1 if all of x (n,) is finite: x * 0 is 0 just then. */
static int FN(all_finite)(idx n, const REAL *x)
{
    for (idx i = 0; i < n; i += 4096) {
        const idx end = n - i < 4096 ? n : i + 4096;
        int finite = 1;
        IVDEP
        for (idx j = i; j < end; j++)
            finite &= x[j] * (REAL)0 == (REAL)0;
        if (!finite)
            return 0;
    }
    return 1;
}

/* --- linear layer ------------------------------------------------------------------------------------------------ */

/* a = f(z), z = x W + b.  x (rows, ld_in), w (fan_in, ld_out), b (ld_out,), z and a (rows, ld_out).
 * activation -1: a = z.  z may be NULL or a; the activation is applied while the row block is in L1. */
static void FN(linear_forward)(idx rows, idx fan_in, idx ld_in, idx ld_out, const void *x_, const void *w_,
                               const void *b_, int activation, void *z_, void *a_, fm_blas_gemm blas)
{
    const REAL *x = x_, *w = w_, *b = b_;
    REAL *a = a_, *z = z_ ? z_ : a_;
    if (blas && FN(gemm_is_large)(rows, ld_out, fan_in)) {
        for (idx r = 0; r < rows; r++)
            memcpy(z + r * ld_out, b, (size_t)ld_out * sizeof(REAL));
        FN(gemm_blas)(blas, rows, ld_out, fan_in, x, ld_in, 0, w, ld_out, z, ld_out, 1);
        if (activation >= 0)
            FN(ACTIVATIONS)[activation].value(rows * ld_out, z, a);
        return;
    }
    const idx block = FN(block_rows)(ld_out, fan_in);
    const FN(start) bias = {b, 0};
    for (idx r = 0; r < rows; r += block) {
        const idx n = rows - r < block ? rows - r : block;
        FN(gemm)(n, ld_out, fan_in, x + r * ld_in, ld_in, 1, w, ld_out, z + r * ld_out, ld_out, bias, block);
        if (activation >= 0)
            FN(ACTIVATIONS)[activation].value(n * ld_out, z + r * ld_out, a + r * ld_out);
    }
}

/* grad_b (+)= column sums of delta (rows, ld_out). */
static void FN(bias_gradient)(idx rows, idx ld_out, const REAL *delta, REAL *grad_b, int accumulate)
{
    for (idx n = 0; n < ld_out; n += LANES) {
        /* four chains hide the latency of the adds */
        VEC s0 = accumulate ? LOAD(grad_b + n) : LOAD(FN(zeros));
        VEC s1 = LOAD(FN(zeros)), s2 = s1, s3 = s1;
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
        STORE(grad_b + n, (s0 + s1) + (s2 + s3));
    }
}

/* grad_w (+)= x^T delta: rows m .. m + n_rows of (fan_in, ld_out), over all rows of x (rows, ld_in). */
static void FN(weight_gradient)(idx rows, idx m, idx n_rows, idx ld_in, idx ld_out, const REAL *x, const REAL *delta,
                                REAL *grad_w, int accumulate, fm_blas_gemm blas)
{
    if (blas && FN(gemm_is_large)(n_rows, ld_out, rows)) {
        FN(gemm_blas)(blas, n_rows, ld_out, rows, x + m, ld_in, 1, delta, ld_out, grad_w, ld_out, (REAL)accumulate);
        return;
    }
    const FN(start) start = {accumulate ? grad_w : NULL, ld_out};
    FN(gemm)(n_rows, ld_out, rows, x + m, 1, ld_in, delta, ld_out, grad_w, ld_out, start, BLOCK_ROWS);
}

/* delta_below = (delta W^T) * f'(z, x) (rows, ld_in), where x = f(z) is the output of the layer below.
 * wt: W transposed (fan_out, ld_in). */
static void FN(input_delta)(idx rows, idx fan_out, idx ld_in, idx ld_out, const REAL *x, const REAL *wt,
                            const REAL *delta, int activation, const REAL *z, REAL *below, fm_blas_gemm blas)
{
    if (blas && FN(gemm_is_large)(rows, ld_in, fan_out)) {
        FN(gemm_blas)(blas, rows, ld_in, fan_out, delta, ld_out, 0, wt, ld_in, below, ld_in, 0);
        FN(ACTIVATIONS)[activation].backward(rows * ld_in, z, x, below);
        return;
    }
    const idx block = FN(block_rows)(ld_in, fan_out);
    const FN(start) zero = {NULL, 0};
    for (idx r = 0; r < rows; r += block) {
        const idx n = rows - r < block ? rows - r : block;
        FN(gemm)(n, ld_in, fan_out, delta + r * ld_out, ld_out, 1, wt, ld_in, below + r * ld_in, ld_in, zero, block);
        FN(ACTIVATIONS)[activation].backward(n * ld_in, z ? z + r * ld_in : NULL, x + r * ld_in, below + r * ld_in);
    }
}

/* All three of one layer, for callers by name; delta_below may be NULL. */
static void FN(linear_backward)(idx rows, idx fan_in, idx fan_out, idx ld_in, idx ld_out, const void *x,
                                const void *wt, const void *delta, void *grad_w, void *grad_b, fm_blas_gemm blas,
                                int activation, const void *z, void *delta_below)
{
    FN(bias_gradient)(rows, ld_out, delta, grad_b, 0);
    FN(weight_gradient)(rows, 0, fan_in, ld_in, ld_out, x, delta, grad_w, 0, blas);
    if (delta_below)
        FN(input_delta)(rows, fan_out, ld_in, ld_out, x, wt, delta, activation, z, delta_below, blas);
}

/* --- first layer on sparse rows (CSR): no densified copy -------------------------------------------------------- */

static inline idx FN(index_at)(const void *p, int is_64, idx k)
{
    return is_64 ? (idx)((const int64_t *)p)[k] : (idx)((const int32_t *)p)[k];
}

static inline REAL FN(value_at)(const fm_data *data, idx k)
{
    return data->X_is_double ? (REAL)((const double *)data->X)[k] : (REAL)((const float *)data->X)[k];
}

static inline idx FN(row_at)(const idx *rows, idx i)
{
    return rows ? rows[i] : i;
}

/* z = x W + b for the sparse rows[first .. first + n), then a = f(z). */
static void FN(sparse_forward)(const fm_data *data, const idx *rows, idx first, idx n, idx ld_out, const REAL *w, const REAL *b,
                               int activation, REAL *z, REAL *a)
{
    z = z ? z : a;
    for (idx r = 0; r < n; r++) {
        const idx row = FN(row_at)(rows, first + r);
        const idx end = FN(index_at)(data->indptr, data->index_is_64, row + 1);
        REAL *out = z + r * ld_out;
        memcpy(out, b, (size_t)ld_out * sizeof(REAL));
        for (idx k = FN(index_at)(data->indptr, data->index_is_64, row); k < end; k++) {
            const REAL x = FN(value_at)(data, k);
            const REAL *w_row = w + FN(index_at)(data->indices, data->index_is_64, k) * ld_out;
            for (idx j = 0; j < ld_out; j += LANES)
                STORE(out + j, LOAD(out + j) + x * LOAD(w_row + j));
        }
        if (activation >= 0)
            FN(ACTIVATIONS)[activation].value(ld_out, out, a + r * ld_out);
    }
}

/* grad_w += x^T delta: rows m .. m + n_rows of W's gradient, over the sparse rows[first .. first + n). */
static void FN(sparse_weight_gradient)(const fm_data *data, const idx *rows, idx first, idx n, idx m, idx n_rows,
                                       idx ld_out, const REAL *delta, REAL *grad_w)
{
    for (idx r = 0; r < n; r++) {
        const idx row = FN(row_at)(rows, first + r);
        const idx end = FN(index_at)(data->indptr, data->index_is_64, row + 1);
        const REAL *d = delta + r * ld_out;
        for (idx k = FN(index_at)(data->indptr, data->index_is_64, row); k < end; k++) {
            const idx column = FN(index_at)(data->indices, data->index_is_64, k) - m;
            if (column < 0 || column >= n_rows)
                continue;
            const REAL x = FN(value_at)(data, k);
            REAL *g_row = grad_w + column * ld_out;
            for (idx j = 0; j < ld_out; j += LANES)
                STORE(g_row + j, LOAD(g_row + j) + x * LOAD(d + j));
        }
    }
}

/* --- losses: value and delta in one call, from logits -------------------------------------------------------------- */

/* t (n, rows) = exp(z^T - top), top and sum (rows,) the maximum and the sum of exponentials of each of up to
 * CLASS_ROWS rows of z (rows, ld). */
static void FN(shifted_exponentials)(idx rows, idx n, idx ld, const REAL *z, REAL *t, REAL *top, REAL *sum)
{
    for (idx r = 0; r < rows; r++)
        for (idx j = 0; j < n; j++)
            t[j * rows + r] = z[r * ld + j];
    memcpy(top, t, (size_t)rows * sizeof(REAL));
    for (idx j = 1; j < n; j++)
        for (idx r = 0; r < rows; r++)
            top[r] = t[j * rows + r] > top[r] ? t[j * rows + r] : top[r];
    for (idx r = 0; r < rows; r++)
        sum[r] = 0;
    for (idx j = 0; j < n; j++) {
        IVDEP
        for (idx r = 0; r < rows; r++)
            t[j * rows + r] = FN(exp)(t[j * rows + r] - top[r]);
        IVDEP
        for (idx r = 0; r < rows; r++)
            sum[r] += t[j * rows + r];
    }
}

/* out (rows, ld) = t^T * factor, row by row; padding columns become 0. */
static void FN(scaled_transpose)(idx rows, idx n, idx ld, const REAL *t, const REAL *factor, REAL *out)
{
    for (idx r = 0; r < rows; r++) {
        for (idx j = 0; j < n; j++)
            out[r * ld + j] = t[j * rows + r] * factor[r];
        for (idx j = n; j < ld; j++)
            out[r * ld + j] = 0;
    }
}

/* out (rows, ld_out) = exp(z - max z) / sum, row by row over n true columns of z (rows, ld); scratch (CLASS_ROWS, n). */
static void FN(softmax)(idx rows, idx n, idx ld, const void *z_, idx ld_out, void *out_, void *scratch)
{
    const REAL *z = z_;
    REAL *out = out_, *t = scratch, top[CLASS_ROWS], sum[CLASS_ROWS];
    for (idx r = 0; r < rows; r += CLASS_ROWS) {
        const idx m = rows - r < CLASS_ROWS ? rows - r : CLASS_ROWS;
        FN(shifted_exponentials)(m, n, ld, z + r * ld, t, top, sum);
        for (idx i = 0; i < m; i++)
            sum[i] = (REAL)1 / sum[i];
        FN(scaled_transpose)(m, n, ld_out, t, sum, out + r * ld_out);
    }
}

/* loss of row i = log sum_j exp(z_j - top) - (z_c - top), clipped as if p were in [eps, 1 - eps];
 * delta = (softmax(z) - onehot(c)) * weight.  scratch (CLASS_ROWS, n). */
static void FN(softmax_cross_entropy)(idx rows, idx n, idx ld, const REAL *z, const idx *y_class, const REAL *weight,
                                      REAL *delta, double *row_loss, REAL *scratch)
{
    const REAL low = (REAL)-log1p(-EPSILON), high = (REAL)-log(EPSILON);
    REAL top[CLASS_ROWS], sum[CLASS_ROWS], loss[CLASS_ROWS];
    for (idx r = 0; r < rows; r += CLASS_ROWS) {
        const idx m = rows - r < CLASS_ROWS ? rows - r : CLASS_ROWS;
        const idx *c = y_class + r;
        const REAL *w = weight ? weight + r : NULL;
        FN(shifted_exponentials)(m, n, ld, z + r * ld, scratch, top, sum);
        for (idx i = 0; i < m; i++)
            top[i] = z[(r + i) * ld + c[i]] - top[i];
        IVDEP
        for (idx i = 0; i < m; i++)
            loss[i] = FN(clip)(FN(log)(sum[i]) - top[i], low, high);
        for (idx i = 0; i < m; i++) {
            row_loss[r + i] = (double)loss[i] * (w ? (double)w[i] : 1.0);
            sum[i] = (w ? w[i] : (REAL)1) / sum[i];
        }
        FN(scaled_transpose)(m, n, ld, scratch, sum, delta + r * ld);
        for (idx i = 0; i < m; i++)
            delta[(r + i) * ld + c[i]] -= w ? w[i] : (REAL)1;
    }
}

/* Any loss of the table: row_loss (rows,) = weight * sum (or mean) over outputs, and
 * delta = (prediction - target) * weight.  Elementwise losses work on compact copies.
 * scratch: 3 * max(rows, CLASS_ROWS) * n. */
static void FN(loss)(int loss, idx rows, idx n, idx ld, const void *z_, const void *y_, const idx *y_class,
                     const void *weight_, void *delta_, double *row_loss, void *scratch)
{
    const REAL *z = z_, *y = y_, *weight = weight_;
    REAL *delta = delta_;
    const FN(loss_row) *row = &FN(LOSSES)[loss];
    if (!row->value) {
        FN(softmax_cross_entropy)(rows, n, ld, z, y_class, weight, delta, row_loss, scratch);
        return;
    }
    REAL *logit = scratch, *value = logit + rows * n, *p = value + rows * n;
    for (idx r = 0; r < rows; r++)
        for (idx j = 0; j < n; j++)
            logit[r * n + j] = z[r * ld + j];
    row->value(rows * n, y, logit, value);
    FN(ACTIVATIONS)[row->link].value(rows * n, logit, p);
    for (idx r = 0; r < rows; r++) {
        const REAL w = weight ? weight[r] : (REAL)1;
        double sum = 0;
        for (idx j = 0; j < n; j++) {
            sum += (double)value[r * n + j];
            delta[r * ld + j] = (p[r * n + j] - y[r * n + j]) * w;
        }
        for (idx j = n; j < ld; j++)
            delta[r * ld + j] = 0;
        row_loss[r] = sum * (double)w / (row->mean_over_outputs ? (double)n : 1.0);
    }
}
