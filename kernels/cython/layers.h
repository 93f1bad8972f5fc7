/* Linear layers and losses, forward and backward next to each other; a template over REAL. */

/* --- linear layer ------------------------------------------------------------------------------------------------ */

/* z = x W + b, then the stage, while the row block is in L1.
 * x (rows, ld_in), w (fan_in, ld_out), b (ld_out,); ld_out is the stage's ld. */
static void FN(forward_product)(idx rows, idx fan_in, idx ld_in, const REAL *x, FN(right) w, const REAL *b,
                                const FN(stage) *s, const fm_route *by, FN(room) room)
{
    const idx ld_out = s->ld;
    if (by->blas && FN(gemm_is_large)(rows, ld_out, fan_in)) {
        for (idx r = 0; r < rows; r++)
            memcpy(s->z + r * ld_out, b, (size_t)ld_out * sizeof(REAL));
        FN(gemm_blas)(by->blas, rows, ld_out, fan_in, x, ld_in, 0, w.values, ld_out, s->z, ld_out, 1);
        FN(stage_forward)(s, 0, rows);
        return;
    }
    const int narrow = !by->units && !w.depth && FN(product_is_narrow)(rows, by->columns, fan_in);
    const idx block = by->units ? UNITS_ROWS : narrow ? 2 * NARROW_ROWS : FN(block_rows)(rows, ld_out, fan_in);
    const FN(start) bias = {b, 0};
    for (idx r = 0; r < rows; r += block) {
        const idx n = rows - r < block ? rows - r : block;
        if (by->units)
            FN(gemm_units)(by, n, ld_out, fan_in, x + r * ld_in, ld_in, 1, w, s->z + r * ld_out, ld_out, bias);
        else if (narrow)
            FN(narrow_product)(n, by->columns, fan_in, x + r * ld_in, ld_in, w.values, w.ld, b, s->z + r * ld_out,
                               ld_out);
        else
            FN(gemm)(n, ld_out, fan_in, x + r * ld_in, ld_in, 1, w, s->z + r * ld_out, ld_out, bias, block, room);
        FN(stage_forward)(s, r, n);
    }
}

/* The same for a layer of the members: z = u * factors + b, members in turn, where u = x W is kept in raw (rows, ld_out);
 * factors and b (members, ld_out). */
static void FN(ensemble_product)(idx rows, idx fan_in, idx ld_in, const REAL *x, FN(right) w, const REAL *factors,
                                 const REAL *b, idx members, REAL *raw, const FN(stage) *s, const fm_route *by, FN(room) room)
{
    const int by_blas = by->blas && FN(gemm_is_large)(rows, s->ld, fan_in);
    const idx ld = s->ld, block = by_blas ? rows : by->units ? UNITS_ROWS : FN(block_rows)(rows, ld, fan_in);
    const FN(start) zero = {NULL, 0};
    if (by_blas)
        FN(gemm_blas)(by->blas, rows, ld, fan_in, x, ld_in, 0, w.values, ld, raw, ld, 0);
    for (idx r = 0; r < rows; r += block) {
        const idx n = rows - r < block ? rows - r : block;
        if (by->units)
            FN(gemm_units)(by, n, ld, fan_in, x + r * ld_in, ld_in, 1, w, raw + r * ld, ld, zero);
        else if (!by_blas)
            FN(gemm)(n, ld, fan_in, x + r * ld_in, ld_in, 1, w, raw + r * ld, ld, zero, block, room);
        for (idx i = r; i < r + n; i++) {
            const REAL *u = raw + i * ld, *f = factors + i % members * ld, *bias = b + i % members * ld;
            REAL *z = s->z + i * ld;
            IVDEP
            for (idx j = 0; j < ld; j++)
                z[j] = u[j] * f[j] + bias[j];
        }
        FN(stage_forward)(s, r, n);
    }
}

/* The same for heads: rows are those of members in turn, of which each has a W and a b of its own; n rows of each member,
 * w (members, fan_in, ld_out), b (members, ld_out). */
static void FN(heads_product)(idx n, idx members, idx fan_in, idx ld_in, const REAL *x, const REAL *w, const REAL *b,
                              const FN(stage) *s)
{
    const idx ld = s->ld;
    for (idx i = 0; i < members; i++) {
        const FN(start) bias = {b + i * ld, 0};
        const FN(right) own = {w + i * fan_in * ld, ld, 0};
        FN(gemm)(n, ld, fan_in, x + i * ld_in, members * ld_in, 1, own, s->z + i * ld, members * ld, bias, BLOCK_ROWS,
                 (FN(room)){NULL, 0});
    }
    FN(stage_forward)(s, 0, n * members);
}

/* grad_w (+)= x^T delta: rows m .. m + n_rows of (fan_in, ld_out), over all rows of x (rows, ld_in) and of delta;
 * whole_vectors: rows of x may be read up to a multiple of LANES. */
static void FN(weight_gradient)(idx rows, idx m, idx n_rows, idx ld_in, idx ld_out, const REAL *x, FN(right) delta,
                                REAL *grad_w, int accumulate, int whole_vectors, const fm_route *by, FN(room) room)
{
    if (by->blas && FN(gemm_is_large)(n_rows, ld_out, rows)) {
        FN(gemm_blas)(by->blas, n_rows, ld_out, rows, x + m, ld_in, 1, delta.values, delta.ld, grad_w, ld_out,
                      (REAL)accumulate);
        return;
    }
    const FN(start) start = {accumulate ? grad_w : NULL, ld_out};
    if (by->units)
        FN(gemm_units)(by, n_rows, ld_out, rows, x + m, 1, ld_in, delta, grad_w, ld_out, start);
    else if (whole_vectors && !delta.depth && FN(gradient_is_narrow)(rows, n_rows, by->columns, ld_out, ld_in))
        FN(narrow_gradient)(rows, m, n_rows, by->columns, x, ld_in, delta.values, delta.ld, grad_w, ld_out, accumulate);
    else
        FN(gemm)(n_rows, ld_out, rows, x + m, 1, ld_in, delta, grad_w, ld_out, start, BLOCK_ROWS, room);
}

/* below = delta W^T, then backward through the stage of the layer below.  rows of delta (rows, ld_out);
 * wt: W transposed (fan_out, ld_in); below (rows, ld_in). */
static void FN(input_delta)(idx rows, idx fan_out, idx ld_out, FN(right) wt, const REAL *delta, const FN(stage) *s,
                            REAL *below, const fm_route *by, FN(room) room)
{
    const idx ld_in = s->ld;
    if (by->blas && FN(gemm_is_large)(rows, ld_in, fan_out)) {
        FN(gemm_blas)(by->blas, rows, ld_in, fan_out, delta, ld_out, 0, wt.values, ld_in, below, ld_in, 0);
        FN(stage_backward)(s, 0, rows, below);
        return;
    }
    const idx block = by->units ? UNITS_ROWS : FN(block_rows)(rows, ld_in, fan_out);
    const FN(start) zero = {NULL, 0};
    for (idx r = 0; r < rows; r += block) {
        const idx n = rows - r < block ? rows - r : block;
        REAL *d = below + r * ld_in;
        if (by->units)
            FN(gemm_units)(by, n, ld_in, fan_out, delta + r * ld_out, ld_out, 1, wt, d, ld_in, zero);
        else
            FN(gemm)(n, ld_in, fan_out, delta + r * ld_out, ld_out, 1, wt, d, ld_in, zero, block, room);
        FN(stage_backward)(s, r, n, below);
    }
}

/* The same for heads, n rows of each member; wt (members, fan_out, ld_in). */
static void FN(heads_delta)(idx n, idx members, idx fan_out, idx ld_out, const REAL *wt, const REAL *delta,
                            const FN(stage) *s, REAL *below)
{
    const idx ld = s->ld;
    const FN(start) zero = {NULL, 0};
    for (idx i = 0; i < members; i++)
        FN(gemm)(n, ld, fan_out, delta + i * ld_out, members * ld_out, 1, (FN(right)){wt + i * fan_out * ld, ld, 0},
                 below + i * ld, members * ld, zero, BLOCK_ROWS, (FN(room)){NULL, 0});
    FN(stage_backward)(s, 0, n * members, below);
}

/* --- first layer on sparse rows (CSR): no densified copy -------------------------------------------------------- */

/* The caller's other threads may write to these arrays at any time, so an index is read once (volatile) and compared
 * with its bound where it is used.  What such a fit comes to is undefined, but no access leaves the arrays. */
static inline idx FN(index_at)(const void *p, int is_64, idx k)
{
    return is_64 ? (idx)((const volatile int64_t *)p)[k] : (idx)((const volatile int32_t *)p)[k];
}

/* The stored entries *begin .. *end of a row; none if indptr has become nonsense. */
static inline void FN(row_entries)(const fm_data *data, idx row, idx *begin, idx *end)
{
    *begin = FN(index_at)(data->indptr, data->index_is_64, row);
    *end = FN(index_at)(data->indptr, data->index_is_64, row + 1);
    if (*begin < 0 || *end > data->stored)
        *end = *begin;
}

static inline REAL FN(value_at)(const fm_data *data, idx k)
{
    return data->X_is_double ? (REAL)((const double *)data->X)[k] : (REAL)((const float *)data->X)[k];
}

static inline idx FN(row_at)(const idx *rows, idx i)
{
    return rows ? rows[i] : i;
}

/* z = x W + b for the sparse rows[first .. first + n), then the stage; mask: dropout of x, or NULL.
 * w (fan_in, ld_out), b (ld_out,); ld_out is the stage's ld. */
static void FN(sparse_forward)(const fm_data *data, const idx *rows, idx first, idx n, idx fan_in, const REAL *w,
                               const REAL *b, const FN(mask) *mask, const FN(stage) *s)
{
    const idx ld_out = s->ld;
    for (idx r = 0; r < n; r++) {
        idx k, end;
        FN(row_entries)(data, FN(row_at)(rows, first + r), &k, &end);
        REAL *out = s->z + r * ld_out;
        memcpy(out, b, (size_t)ld_out * sizeof(REAL));
        for (; k < end; k++) {
            const idx column = FN(index_at)(data->indices, data->index_is_64, k);
            if ((uint64_t)column >= (uint64_t)fan_in)
                continue;
            const REAL x = FN(value_at)(data, k) *
                           (mask ? FN(mask_at)(mask, FN(mask_row)(mask, s->first + r), (uint32_t)column) : (REAL)1);
            const REAL *w_row = w + column * ld_out;
            for (idx j = 0; j < ld_out; j += LANES)
                STORE(out + j, LOAD(out + j) + x * LOAD(w_row + j));
        }
    }
    FN(stage_forward)(s, 0, n);
}

/* grad_w += x^T delta: rows m .. m + n_rows of W's gradient, over the sparse rows[first .. first + n), which are rows
 * at .. at + n of the batch; mask: dropout of x, or NULL. */
static void FN(sparse_weight_gradient)(const fm_data *data, const idx *rows, idx first, idx n, idx at, idx m,
                                       idx n_rows, idx ld_out, const FN(mask) *mask, const REAL *delta, REAL *grad_w)
{
    for (idx r = 0; r < n; r++) {
        idx k, end;
        FN(row_entries)(data, FN(row_at)(rows, first + r), &k, &end);
        const REAL *d = delta + r * ld_out;
        for (; k < end; k++) {
            const idx column = FN(index_at)(data->indices, data->index_is_64, k) - m;
            if ((uint64_t)column >= (uint64_t)n_rows)
                continue;
            const REAL x = FN(value_at)(data, k) *
                           (mask ? FN(mask_at)(mask, FN(mask_row)(mask, at + r), (uint32_t)(column + m)) : (REAL)1);
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

/* out (rows, ld) = t^T * factor, row by row; padding columns become 0, if rows have whole vectors; else ld is n. */
static void FN(scaled_transpose)(idx rows, idx n, idx ld, const REAL *t, const REAL *factor, REAL *out)
{
    for (idx r = 0; r < rows; r++) {
        for (idx j = n / LANES * LANES; n < ld && j < ld; j += LANES)
            STORE(out + r * ld + j, LOAD(FN(zeros)));
        for (idx j = 0; j < n; j++)
            out[r * ld + j] = t[j * rows + r] * factor[r];
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

/* rest (rows,) = the sums of the exponentials t (n, rows), each without one of the largest, which are 1. */
static void FN(sum_of_others)(idx rows, idx n, const REAL *t, REAL *rest)
{
    REAL tops[CLASS_ROWS];
    for (idx r = 0; r < rows; r++)
        rest[r] = 0, tops[r] = -1;
    for (idx j = 0; j < n; j++)
        for (idx r = 0; r < rows; r++) {
            const REAL e = t[j * rows + r];
            rest[r] += e == 1 ? 0 : e;
            tops[r] += e == 1 ? 1 : 0;
        }
    for (idx r = 0; r < rows; r++)
        rest[r] += tops[r];
}

/* A loss of rows of softmax: sum_k f(y_k, log p_k), delta_k = s_k - p_k sum_j s_j with the slopes s_k = df / d log p_k.
 * Where only the label's output has a term, nothing else is computed; y holds targets, y_class labels. */
static void FN(softmax_loss)(const fm_loss *loss, idx rows, idx n, idx ld, const REAL *z, const REAL *y,
                             const idx *y_class, const REAL *weight, REAL *delta, double *row_loss, REAL *scratch)
{
    const FN(loss_row) *row = &FN(LOSSES)[loss->row];
    const idx terms = loss->every_output ? n : 1;
    REAL top[CLASS_ROWS], sum[CLASS_ROWS], log_sum[CLASS_ROWS], rest[CLASS_ROWS], total[CLASS_ROWS];
    REAL target[CLASS_ROWS], log_p[CLASS_ROWS], p[CLASS_ROWS], q[CLASS_ROWS], value[CLASS_ROWS];
    REAL *t = scratch, *slope = t + CLASS_ROWS * n;
    for (idx r = 0; r < rows; r += CLASS_ROWS) {
        const idx m = rows - r < CLASS_ROWS ? rows - r : CLASS_ROWS;
        const idx *label = row->class_targets ? y_class + r : NULL;
        FN(shifted_exponentials)(m, n, ld, z + r * ld, t, top, sum);
        if (row->reads_p)
            FN(sum_of_others)(m, n, t, rest);
        IVDEP
        for (idx i = 0; i < m; i++)
            log_sum[i] = FN(log)(sum[i]);
        for (idx i = 0; i < m; i++)
            row_loss[r + i] = 0, total[i] = 0;
        for (idx k = 0; k < terms; k++) {
            for (idx i = 0; i < m; i++) {
                const idx j = loss->every_output ? k : label[i];
                target[i] = label ? (REAL)(j == label[i]) : y[(r + i) * n + j];
                log_p[i] = z[(r + i) * ld + j] - top[i] - log_sum[i];
                p[i] = t[j * m + i];
            }
            if (row->reads_p) {
                IVDEP
                for (idx i = 0; i < m; i++) {
                    q[i] = p[i] == 1 ? rest[i] / sum[i] : 1 - p[i] / sum[i]; /* no digits lost near p = 1 */
                    p[i] /= sum[i];
                }
            }
            row->term_value(m, n, target, log_p, p, q, value, loss->parameters);
            row->term_slope(m, n, target, log_p, p, q, slope + k * m, loss->parameters);
            for (idx i = 0; i < m; i++) {
                row_loss[r + i] += (double)value[i];
                total[i] += slope[k * m + i];
            }
        }
        for (idx i = 0; i < m; i++) {
            const REAL w = weight ? weight[r + i] : (REAL)1;
            row_loss[r + i] *= (double)w;
            sum[i] = -total[i] * w / sum[i];
        }
        FN(scaled_transpose)(m, n, ld, t, sum, delta + r * ld);
        for (idx k = 0; k < terms; k++)
            for (idx i = 0; i < m; i++)
                delta[(r + i) * ld + (loss->every_output ? k : label[i])] +=
                    slope[k * m + i] * (weight ? weight[r + i] : (REAL)1);
    }
}

/* p (n,) = link(z), elementwise links only; p may be z. */
static void FN(link)(const fm_loss *loss, idx n, const REAL *z, REAL *p)
{
    FN(ACTIVATIONS)[loss->link].value(n, z, p, NULL);
}

/* Any loss: row_loss (rows,) = weight * sum (or mean) over outputs, and delta = d loss / d z * weight.
 * Elementwise losses work on compact copies.  scratch: 3 * max(rows, CLASS_ROWS) * n. */
static void FN(loss)(const fm_loss *loss, idx rows, idx n, idx ld, const void *z_, const void *y_, const idx *y_class,
                     const void *weight_, void *delta_, double *row_loss, void *scratch)
{
    const REAL *z = z_, *y = y_, *weight = weight_;
    REAL *delta = delta_;
    const FN(loss_row) *row = loss->value.instructions ? NULL : &FN(LOSSES)[loss->row];
    if (loss->link < 0) {
        FN(softmax_loss)(loss, rows, n, ld, z, y, y_class, weight, delta, row_loss, scratch);
        return;
    }
    REAL *logit = scratch, *value = logit + rows * n, *slope = value + rows * n;
    for (idx r = 0; r < rows; r++)
        FN(copy_row)(n, z + r * ld, logit + r * n);
    if (!row) {
        FN(run)(&loss->value, rows * n, y, logit, value);
        FN(run)(&loss->delta, rows * n, y, logit, slope);
    } else {
        row->value(rows * n, y, logit, value, loss->parameters);
        if (row->delta) {
            row->delta(rows * n, y, logit, slope, loss->parameters);
        } else {
            FN(link)(loss, rows * n, logit, slope);
            for (idx i = 0; i < rows * n; i++)
                slope[i] -= y[i];
        }
    }
    const double share = row && row->mean_over_outputs ? (double)n : 1.0;
    if (n == 1) {
        IVDEP
        for (idx r = 0; r < rows; r++)
            row_loss[r] = 0.0 + (double)value[r];
    } else {
        for (idx r = 0; r < rows; r++) {
            double sum = 0;
            for (idx j = 0; j < n; j++)
                sum += (double)value[r * n + j];
            row_loss[r] = sum;
        }
    }
    for (idx r = 0; r < rows && weight; r++) {
        row_loss[r] *= (double)weight[r];
        for (idx j = 0; j < n; j++)
            slope[r * n + j] *= weight[r];
    }
    for (idx r = 0; r < rows; r++)
        FN(pad_row)(n, ld, slope + r * n, delta + r * ld);
    if (share == 1.0)
        return;
    IVDEP
    for (idx r = 0; r < rows; r++) /* in vectors: one by one, divisions would take as long as the rest */
        row_loss[r] /= share;
}
