/* A whole network over one chunk of rows, and the training step; a template over REAL.
 *
 * A team of threads works a chunk in two phases:
 *   rows   every member takes some rows of the chunk through gather, forward, loss and deltas;
 *          (an option that needs the whole batch has two more barriers per layer and direction)
 *   slices  the gradients of slices of the parameters over all rows of the chunk and, with the batch's last chunk, their
 *          update.  Either every member takes some slices, with a barrier before and after; or every slice goes from
 *          member to member, and each adds its own rows (the relay); a step begins when the last one has updated all.
 * Every sum takes the rows in their order, so the bits do not depend on the number of members.
 */

/* --- flat vector [W0 .. Wn | b0 .. bn | ...] <-> padded vector of the same order ------------------------------------- */

static void FN(pack)(const fm_workspace *ws, const void *flat, void *padded)
{
    for (const fm_segment *s = ws->segments; s < ws->segments + ws->n_segments; s++)
        for (idx i = 0; i < s->rows; i++) {
            REAL *row = (REAL *)padded + s->padded + i * s->ld;
            memcpy(row, (const REAL *)flat + s->flat + i * s->width, (size_t)s->width * sizeof(REAL));
            /* the padding too: NaN times its zeros may have spoilt it */
            memset(row + s->width, 0, (size_t)(s->ld - s->width) * sizeof(REAL));
        }
}

static void FN(unpack)(const fm_workspace *ws, const void *padded, void *flat)
{
    for (const fm_segment *s = ws->segments; s < ws->segments + ws->n_segments; s++)
        for (idx i = 0; i < s->rows; i++)
            memcpy((REAL *)flat + s->flat + i * s->width, (const REAL *)padded + s->padded + i * s->ld,
                   (size_t)s->width * sizeof(REAL));
}

/* Columns i0 .. i1 and rows j0 .. j1 of wt (fan_out, ld) = W (fan_in, ld_out), transposed. */
static void FN(transpose_part)(const fm_layer *layer, idx i0, idx i1, idx j0, idx j1, const REAL *w, REAL *wt, idx ld)
{
    for (idx j = j0; j < j1; j++)
        for (idx i = i0; i < i1; i++)
            wt[j * ld + i] = w[i * layer->ld_out + j];
}

/* Columns m .. m + n_rows of wt (fan_out, ld) = rows m .. m + n_rows of W (fan_in, ld_out), transposed. */
static void FN(transpose)(const fm_layer *layer, idx m, idx n_rows, const REAL *w, REAL *wt, idx ld)
{
    const idx block = 16; /* about one cache line of each matrix at a time */
    for (idx i0 = m, i1; i0 < m + n_rows; i0 = i1) {
        i1 = i0 + block < m + n_rows ? i0 + block : m + n_rows;
        for (idx j0 = 0; j0 < layer->fan_out; j0 += block) {
            const idx j1 = j0 + block < layer->fan_out ? j0 + block : layer->fan_out;
            idx i = i0, j = j0; /* where the squares end */
#ifdef ZIP_LOW
            for (; i + LANES <= i1; i += LANES)
                for (j = j0; j + LANES <= j1; j += LANES) {
                    const REAL *row[LANES];
                    for (int k = 0; k < LANES; k++)
                        row[k] = w + (i + k) * layer->ld_out + j;
                    FN(transpose_square)(row, wt + j * ld + i, ld);
                }
#endif
            FN(transpose_part)(layer, i0, i, j, j1, w, wt, ld);
            FN(transpose_part)(layer, i, i1, j0, j1, w, wt, ld);
        }
    }
}

/* Rows m .. m + n_rows of a layer's W -> its panels, and those of its transpose. */
static void FN(weights_to_panels)(const fm_workspace *ws, const fm_layer *layer, idx m, idx n_rows)
{
    const REAL *w = (const REAL *)ws->params + layer->w;
    FN(pack_panels)(m, m + n_rows, layer->ld_out, layer->fan_in, w, layer->ld_out, layer->w_panels);
    for (idx n = 0, nv = 0; n < layer->ld_in && layer->returns; n += nv * LANES) {
        nv = FN(panel_vectors)((layer->ld_in - n) / LANES);
        const idx from = n < m ? m : n, end = n + nv * LANES, to = end < m + n_rows ? end : m + n_rows;
        if (from < to) /* column n of wt stands where its panel begins */
            FN(transpose)(layer, from, to - from, w, (REAL *)layer->wt + n * layer->fan_out - n, nv * LANES);
    }
}

/* Rows from .. to of the delta of a layer's product -> its panels, for the gradient of W. */
static void FN(delta_to_panels)(const fm_workspace *ws, const fm_layer *layer, idx from, idx to)
{
    if (layer->deltas)
        FN(pack_panels)(from, to, layer->ld_out, ws->max_rows * ws->members, layer->product_delta, layer->ld_out,
                        layer->delta_panels);
}

/* --- halves of right-hand matrices, for matrix units ------------------------------------------------------------------- */

/* Rows m .. m + n_rows of a layer's W -> its halves. */
static void FN(split_weights)(const fm_workspace *ws, const fm_layer *layer, idx m, idx n_rows)
{
    if (!ws->units || !layer->units)
        return;
    const fm_route by = FN(route)(ws, 0, layer->w_halves, layer->fan_in, layer->fan_out);
    const REAL *w = (const REAL *)ws->params + layer->w;
    ws->units->split(&by.b, m, m + n_rows, 0, layer->fan_out, (const void *)w, layer->ld_out, 0);
}

/* Columns m .. m + n_rows of wt -> its halves. */
static void FN(split_transposed)(const fm_workspace *ws, const fm_layer *layer, idx m, idx n_rows)
{
    if (!ws->units || !layer->units)
        return;
    const fm_route by = FN(route)(ws, 0, layer->wt_halves, layer->fan_out, layer->fan_in);
    ws->units->split(&by.b, 0, layer->fan_out, m, m + n_rows, layer->wt, layer->ld_in, 0);
}

/* Rows from .. to of the delta of a layer's product, of n in the chunk -> its halves. */
static void FN(split_delta)(const fm_workspace *ws, const fm_layer *layer, idx from, idx to, idx n)
{
    if (!ws->units || !layer->units || from == to)
        return;
    const fm_route by = FN(route)(ws, 0, layer->delta_halves, ws->max_rows * ws->members, layer->fan_out);
    ws->units->split(&by.b, from, to, 0, layer->fan_out, layer->product_delta, layer->ld_out, to == n);
}

/* --- rows of the caller -> buffers of the chunk ----------------------------------------------------------------------- */

/* Rows of the order, from row `at` of the chunk on, that a gather of n of them may ask for ahead: its own, and where no other
 * thread has the next ones, or a batch has few, those of the batches that follow. */
static idx FN(rows_to_come)(const FN(chunk) *c, idx at, idx n)
{
    if (!c->rows)
        return 0;
    if (!c->epoch || c->epoch->starts || (c->ws->n_threads > 1 && n >= PREFETCH_ROWS))
        return n;
    return c->epoch->n_order - c->first - at;
}

/* A shuffled row is a miss of cache and page table: ask for it early (its first lines; the rest streams). */
static ALWAYS_INLINE void FN(ask_for_row)(const char *row, idx bytes)
{
    for (idx line = 0; line < bytes && line < 256; line += 64)
        PREFETCH(row + line);
}

/* out (n, ld) = rows at .. at + n of the chunk, `width` numbers of the matrix x each; its rows lie `stride` apart. */
static ALWAYS_INLINE void FN(gather_rows)(const FN(chunk) *c, idx at, idx n, const REAL *x, idx stride, idx width, REAL *out,
                                          idx ld)
{
    const idx first = c->first + at, known = FN(rows_to_come)(c, at, n);
    const idx *rows = c->rows ? c->rows + first : NULL;
    for (idx r = 0; r < n; r++, out += ld) {
        if (r + PREFETCH_ROWS < known)
            FN(ask_for_row)((const char *)(x + rows[r + PREFETCH_ROWS] * stride), width * (idx)sizeof(REAL));
        FN(copy_row)(width, x + (rows ? rows[r] : first + r) * stride, out);
    }
}

/* The same of X with any strides, in the network's dtype. */
static void FN(gather)(const FN(chunk) *c, idx at, idx n, idx width, idx ld, REAL *out)
{
    const fm_data *data = c->data;
    const idx step = data->col_stride, item = data->X_is_double ? sizeof(double) : sizeof(float);
    if (step == 1 && item == sizeof(REAL)) {
        FN(gather_rows)(c, at, n, data->X, data->row_stride, width, out, ld);
        return;
    }
    const idx first = c->first + at, known = FN(rows_to_come)(c, at, n);
    for (idx r = 0; r < n; r++, out += ld) {
        if (r + PREFETCH_ROWS < known)
            FN(ask_for_row)((const char *)data->X + c->rows[first + r + PREFETCH_ROWS] * data->row_stride * item,
                            width * item);
        const idx start = FN(row_at)(c->rows, first + r) * data->row_stride;
        if (data->X_is_double)
            for (idx j = 0; j < width; j++)
                out[j] = (REAL)((const double *)data->X)[start + j * step];
        else
            for (idx j = 0; j < width; j++)
                out[j] = (REAL)((const float *)data->X)[start + j * step];
    }
}

/* As gather_targets, where each row is one of each member: its targets are those of all, its weight their share. */
static void FN(gather_shares)(const fm_workspace *ws, const fm_data *data, const idx *rows, idx first, idx at, idx n)
{
    const idx n_outputs = ws->layers[ws->n_layers - 1].fan_out, members = ws->members;
    for (idx r = 0; r < n; r++) {
        const idx row = FN(row_at)(rows, first + r), to = (at + r) * members;
        const REAL weight = data->sample_weight ? ((const REAL *)data->sample_weight)[row] : (REAL)1;
        ((REAL *)ws->weight)[at + r] = weight;
        for (idx i = to; i < to + members; i++) {
            ((REAL *)ws->member_weight)[i] = weight / (REAL)members;
            if (data->y_class)
                ws->y_class[i] = data->y_class[row];
            else
                memcpy((REAL *)ws->y + i * n_outputs, (const REAL *)data->y + row * n_outputs,
                       (size_t)n_outputs * sizeof(REAL));
        }
    }
}

/* Targets and sample weights of the chunk's rows at .. at + n -> its buffers. */
static void FN(gather_targets)(const FN(chunk) *c, idx at, idx n)
{
    const fm_workspace *ws = c->ws;
    const fm_data *data = c->data;
    const idx n_outputs = ws->layers[ws->n_layers - 1].fan_out, first = c->first + at;
    if (ws->members > 1) {
        FN(gather_shares)(ws, data, c->rows, first, at, n);
        return;
    }
    if (data->y_class) {
        const idx known = FN(rows_to_come)(c, at, n), *classes = data->y_class;
        idx *out = ws->y_class + at;
        for (idx r = 0; r < n; r++) {
            if (r + PREFETCH_ROWS < known)
                PREFETCH(classes + c->rows[first + r + PREFETCH_ROWS]);
            out[r] = classes[FN(row_at)(c->rows, first + r)];
        }
    } else {
        FN(gather_rows)(c, at, n, data->y, n_outputs, n_outputs, ROW(ws->y, at, n_outputs), n_outputs);
    }
    for (idx r = 0; data->sample_weight && r < n; r++)
        ((REAL *)ws->weight)[at + r] = ((const REAL *)data->sample_weight)[FN(row_at)(c->rows, first + r)];
}

/* --- phase "rows": forward, loss, deltas ------------------------------------------------------------------------------- */

/* The first layer's input for rows[first ..): X itself or the chunk's buffer from row `at` on; *ld its row stride. */
static const REAL *FN(input)(const fm_workspace *ws, const fm_data *data, const idx *rows, idx first, idx at, idx *ld)
{
    if (!ws->front)
        return FN(rows_of_x)(ws, data, rows, first, at, ld);
    *ld = ws->layers[0].ld_in;
    return (const REAL *)ws->input + at * ws->members * *ld;
}

/* The member's rows at .. at + n of the chunk -> the input of the first layer; *mask: dropout of the input, or NULL. */
static void FN(read_rows)(const FN(chunk) *c, idx at, idx n, const FN(mask) *mask)
{
    fm_workspace *ws = c->ws;
    const fm_data *data = c->data;
    if (data->indptr)
        return;
    idx ld;
    const REAL *x = FN(rows_of_x)(ws, data, c->rows, c->first + at, at, &ld);
    if (!FN(reads_in_place)(data, c->rows)) {
        REAL *gathered = (REAL *)(ws->columns ? ws->columns : ws->features ? ws->features : ws->input) + at * ld;
        FN(gather)(c, at, n, ws->n_columns, ld, gathered);
        if (mask)
            FN(apply_mask)(mask, c->batch_at + at, n, ld, gathered, gathered);
    }
    if (ws->front)
        FN(inputs_forward)(c, at, n, x, ld);
}

/* Where member t packs what its products read. */
static FN(room) FN(room_of)(const fm_workspace *ws, int t)
{
    return (FN(room)){ROW(ws->packed_rows, t, ws->n_packed_rows), ws->n_packed_rows};
}

/* The member's rows at .. at + n of the chunk through all layers: a[1] .. a[L] (logits).  In the layers' buffers each row is
 * one of each member of the network. */
static void FN(forward)(const FN(chunk) *c, idx at, idx n)
{
    fm_workspace *ws = c->ws;
    const idx k = ws->members;
    const REAL *params = ws->params;
    const fm_data *data = c->data;
    idx ld_x;
    const REAL *x = FN(input)(ws, data, c->rows, c->first + at, at, &ld_x);
    FN(mask) drawn;
    const FN(mask) *mask = FN(mask_of)(c, 0, &drawn);
    const FN(room) room = FN(room_of)(ws, c->member);
    FN(read_rows)(c, at, n, mask);
    for (int l = 0; l < ws->n_layers; l++) {
        const fm_layer *layer = &ws->layers[l];
        FN(stages) s;
        FN(stages_of)(c, l, at * k, &s);
        const REAL *read = l ? ROW(layer[-1].out, at * k, layer->ld_in) : x;
        const fm_route by = FN(route)(ws, c->member, layer->w_halves, layer->fan_in, layer->fan_out);
        const FN(right) w = layer->panels && ws->in_panels ? (FN(right)){layer->w_panels, 0, layer->fan_in}
                                                           : (FN(right)){params + layer->w, layer->ld_out, 0};
        if (layer->heads > 1)
            FN(heads_product)(n, k, layer->fan_in, layer->ld_in, read, params + layer->w, params + layer->b, &s.before);
        else if (layer->ensemble)
            FN(ensemble_product)(n * k, layer->fan_in, layer->ld_in, read, w, params + layer->member_out,
                                 params + layer->b, k, ROW(layer->raw, at * k, layer->ld_out), &s.before, &by, room);
        else if (l == 0 && data->indptr)
            FN(sparse_forward)(data, c->rows, c->first + at, n, layer->fan_in, params + layer->w, params + layer->b, mask,
                               &s.before);
        else
            FN(forward_product)(n * k, layer->fan_in, l ? layer->ld_in : ld_x, read, w, params + layer->b, &s.before, &by,
                                room);
        if (layer->whole_batch)
            FN(batch_forward)(c, l, at, n, &s);
    }
}

/* Member t's scratch. */
static REAL *FN(scratch)(const fm_workspace *ws, int t)
{
    const idx most = ws->max_rows * ws->members, rows = most > CLASS_ROWS ? most : CLASS_ROWS;
    return (REAL *)ws->scratch + t * 3 * rows * ws->layers[ws->n_layers - 1].fan_out;
}

/* below = d loss / d(what layer l reads), rows at .. at + n of the chunk, then back through the stage s below it. */
static void FN(layer_delta)(const FN(chunk) *c, const fm_layer *layer, idx at, idx n, const FN(stage) *s, REAL *below)
{
    const idx k = c->ws->members, rows = n * k;
    REAL *delta = ROW(layer->product_delta, at * k, layer->ld_out);
    if (layer->ensemble)
        FN(times_factors)(0, rows, layer->ld_out, k, (const REAL *)c->ws->params + layer->member_out,
                          ROW(layer->delta, at * k, layer->ld_out), delta);
    FN(split_delta)(c->ws, layer, at * k, at * k + rows, c->n * k);
    FN(delta_to_panels)(c->ws, layer, at * k, at * k + rows);
    const fm_route by = FN(route)(c->ws, c->member, layer->wt_halves, layer->fan_out, layer->fan_in);
    if (layer->heads > 1)
        FN(heads_delta)(n, k, layer->fan_out, layer->ld_out, layer->wt, delta, s, below);
    else
        FN(input_delta)(rows, layer->fan_out, layer->ld_out,
                        layer->panels ? (FN(right)){layer->wt, 0, layer->fan_out} : (FN(right)){layer->wt, layer->ld_in, 0},
                        delta, s, below, &by, FN(room_of)(c->ws, c->member));
}

/* Logits and targets of the member's rows at .. at + n -> row_loss and the deltas of every layer. */
static void FN(loss_and_deltas)(const FN(chunk) *c, idx at, idx n)
{
    fm_workspace *ws = c->ws;
    const int last = ws->n_layers - 1;
    const fm_layer *top = &ws->layers[last];
    const idx first = at * ws->members;
    const REAL *weight = c->data->sample_weight ? ROW(ws->weight, at, 1) : NULL;
    if (ws->members > 1)
        weight = ROW(ws->member_weight, first, 1);
    FN(loss)(&ws->loss, n * ws->members, top->fan_out, top->ld_out, ROW(top->a, first, top->ld_out),
             ROW(ws->y, first, top->fan_out), ws->y_class + first, weight, ROW(top->delta, first, top->ld_out),
             ws->row_loss + first, FN(scratch)(ws, c->member));
    for (int l = last; l > 0; l--) {
        const fm_layer *layer = &ws->layers[l], *below = layer - 1;
        FN(stages) s;
        FN(stages_of)(c, l - 1, first, &s);
        FN(layer_delta)(c, layer, at, n, below->whole_batch ? &s.after : &s.before, ROW(below->delta, first, layer->ld_in));
        if (below->whole_batch)
            FN(batch_backward)(c, l - 1, at, n, &s);
    }
    const fm_layer *bottom = &ws->layers[0];
    if (!ws->input_delta) {
        if (!c->data->indptr) {
            FN(split_delta)(ws, bottom, first, first + n * ws->members, c->n * ws->members);
            FN(delta_to_panels)(ws, bottom, first, first + n * ws->members);
        }
        return;
    }
    const FN(stage) none = {.ld = bottom->ld_in};
    FN(layer_delta)(c, bottom, at, n, &none, ROW(ws->input_delta, first, bottom->ld_in));
    FN(inputs_backward)(c, at, n);
}

/* --- phase "slices": gradient and update of a slice of the parameters --------------------------------------------------- */

/* Zeros in the padding of g, rows of ld numbers. */
static void FN(clear_padding)(idx length, idx width, idx ld, REAL *g)
{
    for (idx i = width; i < length; i += ld)
        memset(g + i, 0, (size_t)(ld - width) * sizeof(REAL));
}

/* The slice's gradient: sums over the member's rows of the chunk. */
static void FN(slice_gradient)(const FN(chunk) *c, const fm_slice *slice, int accumulate)
{
    fm_workspace *ws = c->ws;
    const fm_data *data = c->data;
    REAL *g = (REAL *)ws->grad + slice->offset;
    const idx own = c->to - c->from, first = c->from * ws->members;
    if (slice->kind == FM_OF_BLOCK) {
        FN(block_gradient)(c, slice, accumulate);
        return;
    }
    const fm_layer *layer = &ws->layers[slice->layer];
    if (slice->kind == FM_INPUT_SCALE) {
        FN(scale_gradient)(c, g, accumulate);
        return;
    }
    if (slice->kind != FM_W) {
        FN(vector_gradient)(c, layer, slice, accumulate);
    } else if (slice->layer == 0 && data->indptr) {
        FN(mask) drawn;
        if (!accumulate)
            memset(g, 0, (size_t)slice->length * sizeof(REAL));
        FN(sparse_weight_gradient)(data, c->rows, c->first + c->from, own, c->batch_at + c->from, slice->m, slice->n_rows,
                                   layer->ld_out, FN(mask_of)(c, 0, &drawn), ROW(layer->delta, c->from, layer->ld_out), g);
    } else {
        idx ld_x = layer->ld_in;
        const REAL *x = slice->layer ? ROW(layer[-1].out, first, ld_x)
                                     : FN(input)(ws, data, c->rows, c->first + c->from, c->from, &ld_x);
        const REAL *delta = ROW(layer->product_delta, first, layer->ld_out);
        const FN(room) room = FN(room_of)(ws, c->member);
        const fm_route by =
            FN(route)(ws, c->member, layer->delta_halves, ws->max_rows * ws->members, layer->fan_out);
        const int whole_vectors = slice->layer > 0 || ws->front || !FN(reads_in_place)(data, c->rows);
        if (layer->heads > 1) /* every so many rows are the member's */
            FN(weight_gradient)(own, slice->m, slice->n_rows, ld_x * ws->members, layer->ld_out, x + slice->head * ld_x,
                                (FN(right)){delta + slice->head * layer->ld_out, layer->ld_out * ws->members, 0}, g,
                                accumulate, whole_vectors, &by, room);
        else
            FN(weight_gradient)(own * ws->members, slice->m, slice->n_rows, ld_x, layer->ld_out, x,
                                layer->deltas ? (FN(right)){layer->delta_panels, 0, ws->max_rows * ws->members}
                                              : (FN(right)){delta, layer->ld_out, 0},
                                g, accumulate, whole_vectors, &by, room);
    }
    if (slice->kind == FM_MEMBER_IN) {
        FN(clear_padding)(slice->length, layer->fan_in, layer->ld_in, g);
        return;
    }
    /* a user's formula may be infinite or NaN at the padding's 0; sums over the padded vector must not see that */
    if (layer->activation && layer->activation->slope.instructions)
        FN(clear_padding)(slice->length, layer->fan_out, layer->ld_out, g);
}

/* Squares of p[0 .. n), n a multiple of LANES, summed in lanes. */
static ALWAYS_INLINE VEC FN(lanes_of_squares)(idx n, const REAL *p)
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
    return (s0 + s1) + (s2 + s3);
}

static ALWAYS_INLINE double FN(wide_sum)(VEC v)
{
    REAL lanes[LANES] ALIGNED;
    STORE(lanes, v);
    double sum = 0;
    for (int j = 0; j < LANES; j++)
        sum += (double)lanes[j];
    return sum;
}

/* sum of squares of p[0 .. n), n a multiple of LANES. */
static ALWAYS_INLINE double FN(sum_of_squares)(idx n, const REAL *p)
{
    return FN(wide_sum)(FN(lanes_of_squares)(n, p));
}

/* sum of |p[0 .. n)|. */
static double FN(sum_of_magnitudes)(idx n, const REAL *p)
{
    double sum = 0;
    for (idx i = 0; i < n; i++)
        sum += (double)FN(abs)(p[i]);
    return sum;
}

/* Rows of a W per tile; other vectors are one tile. */
static inline idx FN(tile_length)(const fm_workspace *ws, const fm_slice *slice)
{
    return slice->kind == FM_W ? FM_TILE_ROWS * ws->layers[slice->layer].ld_out : slice->length;
}

/* Penalty of the slice's tiles with the parameters as they are. */
static ALWAYS_INLINE void FN(slice_penalty)(fm_workspace *ws, const fm_epoch *epoch, const fm_slice *slice)
{
    if (slice->kind != FM_W)
        return; /* tile_penalty stays 0 */
    const idx tile = FN(tile_length)(ws, slice);
    const REAL *p = (REAL *)ws->params + slice->offset;
    VEC none = LOAD(FN(zeros)); /* 0, or NaN where a sum of squares is not finite */
    for (idx i = 0, k = slice->tile; i < slice->length; i += tile, k++) {
        const idx n = slice->length - i < tile ? slice->length - i : tile;
        if (epoch->alpha == 0 && epoch->l1 == 0) {
            none += FN(lanes_of_squares)(n, p + i) * (REAL)0;
            ws->tile_penalty[k] = 0;
            continue;
        }
        ws->tile_penalty[k] = 0.5 * epoch->alpha * FN(sum_of_squares)(n, p + i);
        if (epoch->l1 != 0)
            ws->tile_penalty[k] += epoch->l1 * FN(sum_of_magnitudes)(n, p + i);
    }
    if (epoch->alpha == 0 && epoch->l1 == 0)
        ws->tile_penalty[slice->tile] = FN(wide_sum)(none);
}

/* Whether the steps leave the slice's segment as it is: then the first of its scalars, a learning rate, has the factor 0. */
static ALWAYS_INLINE int FN(frozen)(const fm_epoch *epoch, const fm_slice *slice)
{
    return epoch->factors && epoch->factors[slice->segment * FN(OPTIMIZERS)[epoch->rule].n_scalars] == 0;
}

/* The slice's gradient as the caller of loss_and_grad sees it, penalty and scale included, and its squares by tiles. */
static void FN(finish_gradient)(fm_workspace *ws, const fm_epoch *epoch, const fm_slice *slice, double scale)
{
    const int penalised = slice->kind == FM_W;
    const REAL a = penalised ? (REAL)epoch->alpha : 0, l1 = penalised ? (REAL)epoch->l1 : 0, s = (REAL)scale;
    const REAL *p = (REAL *)ws->params + slice->offset;
    REAL *g = (REAL *)ws->grad + slice->offset;
    for (idx i = 0; i < slice->length; i++) {
        const REAL sign = p[i] > (REAL)0 ? (REAL)1 : p[i] < (REAL)0 ? (REAL)-1 : (REAL)0;
        g[i] = penalised ? (g[i] + a * p[i] + l1 * sign) * s : g[i] * s;
    }
    const idx tile = FN(tile_length)(ws, slice);
    for (idx i = 0, k = slice->tile; i < slice->length; i += tile, k++)
        ws->tile_norm[k] = FN(sum_of_squares)(slice->length - i < tile ? slice->length - i : tile, g + i);
    if (FN(frozen)(epoch, slice)) /* the norm is that of what is trained */
        for (idx i = 0, k = slice->tile; i < slice->length; i += tile, k++)
            ws->tile_norm[k] = 0;
}

/* The slice's part of wt and of the halves, where its layer has them. */
static void FN(transpose_slice)(const fm_workspace *ws, const fm_data *data, const fm_slice *slice)
{
    const fm_layer *layer = &ws->layers[slice->layer];
    if (layer->panels && (slice->layer > 0 || !data->indptr)) {
        FN(weights_to_panels)(ws, layer, slice->m, slice->n_rows);
        return;
    }
    if (layer->returns) {
        FN(transpose)(layer, slice->m, slice->n_rows,
                      (REAL *)ws->params + layer->w + slice->head * layer->fan_in * layer->ld_out,
                      (REAL *)layer->wt + slice->head * layer->fan_out * layer->ld_in, layer->ld_in);
        FN(split_transposed)(ws, layer, slice->m, slice->n_rows);
    }
    if (slice->layer > 0 || !data->indptr)
        FN(split_weights)(ws, layer, slice->m, slice->n_rows);
}

/* What is made of a slice's parameters once they are new: its part of wt, running statistics, prefix sums. */
static ALWAYS_INLINE void FN(slice_updated)(const FN(chunk) *c, const fm_slice *slice)
{
    if (slice->kind == FM_OF_BLOCK)
        FN(block_updated)(c->ws, slice);
    else if (slice->kind == FM_W)
        FN(transpose_slice)(c->ws, c->data, slice);
    else
        FN(vector_updated)(c, &c->ws->layers[slice->layer], slice);
}

/* The slice's update by the gradient (g + alpha p + l1 sign p) * scale, then its part of wt. */
static ALWAYS_INLINE void FN(slice_update)(const FN(chunk) *c, const fm_slice *slice, double alpha, double l1,
                                           double scale)
{
    fm_workspace *ws = c->ws;
    const fm_epoch *epoch = c->epoch;
    const FN(optimizer) *optimizer = &FN(OPTIMIZERS)[epoch->rule];
    const int penalised = slice->kind == FM_W;
    REAL *p = (REAL *)ws->params + slice->offset, *g = (REAL *)ws->grad + slice->offset;
    void *states[FM_MAX_STATES];
    for (int k = 0; k < optimizer->n_states; k++)
        states[k] = (REAL *)ws->states[k] + slice->offset;
    const double *scalars = epoch->scalars + c->step * optimizer->n_scalars;
    double of_segment[FM_MAX_SCALARS], keep = epoch->decays ? 1.0 - epoch->decays[c->step] : 1.0;
    if (epoch->decays && epoch->decay_factors)
        keep = 1.0 - epoch->decays[c->step] * epoch->decay_factors[slice->segment];
    if (epoch->factors) {
        for (int k = 0; k < optimizer->n_scalars; k++)
            of_segment[k] = scalars[k] * epoch->factors[slice->segment * optimizer->n_scalars + k];
        scalars = of_segment;
    }
    if (!FN(frozen)(epoch, slice))
        optimizer->rule(slice->length, p, g, states, scalars, (REAL)(penalised ? alpha : 0), (REAL)(penalised ? l1 : 0),
                        (REAL)scale, (REAL)keep);
    FN(slice_updated)(c, slice);
}

/* What the gradient as a whole is scaled by so that its norm stays within max_norm (Pascanu et al. 2013). */
static double FN(clip_factor)(const fm_workspace *ws, double max_norm)
{
    double squares = 0;
    for (idx k = 0; k < ws->n_tiles; k++)
        squares += ws->tile_norm[k];
    const double factor = max_norm / (sqrt(squares) + 1e-6);
    return factor < 1.0 ? factor : factor >= 1.0 ? 1.0 : factor; /* lets NaN through */
}

/* Whether slices are updated one by one, as soon as their gradients are there. */
static inline int FN(updates_at_once)(const fm_epoch *epoch)
{
    return epoch->rule >= 0 && epoch->max_norm == 0;
}

/* The member's slices, all of the batch's rows being summed: penalty, then update, or with rule -1 the finished gradient. */
static void FN(update_slices)(const FN(chunk) *c, double scale)
{
    fm_workspace *ws = c->ws;
    const fm_epoch *epoch = c->epoch;
    const int at_once = FN(updates_at_once)(epoch);
    const fm_slice *begin = ws->slices + ws->slice_start[c->member], *end = ws->slices + ws->slice_start[c->member + 1];
    for (const fm_slice *slice = begin; slice < end; slice++) {
        FN(slice_penalty)(ws, epoch, slice);
        if (at_once)
            FN(slice_update)(c, slice, epoch->alpha, epoch->l1, scale);
        else
            FN(finish_gradient)(ws, epoch, slice, scale);
    }
    if (at_once || epoch->rule < 0)
        return;
    fm_team_barrier(ws->team);
    const double factor = epoch->max_norm > 0 ? FN(clip_factor)(ws, epoch->max_norm) : 1.0;
    for (const fm_slice *slice = begin; slice < end; slice++)
        FN(slice_update)(c, slice, 0, 0, factor);
}

/* --- the epoch ----------------------------------------------------------------------------------------------------------- */

/* Rows that members of the team take together: a whole register tile, of which a row fills some where the network has many
 * members; an even number in the layers' buffers, whose halves are kept in pairs of rows. */
static idx FN(unit)(const fm_workspace *ws)
{
    return ws->members < MR ? MR : 1 + ws->members % 2;
}

/* Rows lo .. hi of a chunk of n that member t of the team takes. */
static void FN(share)(const fm_workspace *ws, idx n, int t, idx *lo, idx *hi)
{
    const idx unit = FN(unit)(ws), tiles = (n + unit - 1) / unit, T = ws->n_threads;
    *lo = (tiles * t + T - 1) / T * unit; /* the last member has least, and other work */
    *hi = (tiles * (t + 1) + T - 1) / T * unit;
    *lo = *lo < n ? *lo : n;
    *hi = *hi < n ? *hi : n;
}

/* Member 0 counts the work of n rows (`passes`: 1 forward, 3 with backward) and looks for Ctrl-C now and then. */
static void FN(look_for_interrupt)(fm_workspace *ws, idx n, int passes)
{
    ws->work += 2.0 * (double)n * ws->row_work * passes;
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

/* The chunk's gradients of the member's slices; with the last chunk their update, while they are in L1. */
static void FN(slices_phase)(const FN(chunk) *c, int last, double weight)
{
    fm_workspace *ws = c->ws;
    const fm_epoch *epoch = c->epoch;
    const int at_once = FN(updates_at_once)(epoch);
    for (idx u = ws->slice_start[c->member]; u < ws->slice_start[c->member + 1]; u++) {
        const fm_slice *slice = &ws->slices[u];
        FN(slice_gradient)(c, slice, c->batch_at > 0);
        if (last && at_once) {
            FN(slice_penalty)(ws, epoch, slice);
            FN(slice_update)(c, slice, epoch->alpha, epoch->l1, 1.0 / weight);
        }
    }
    if (last && !at_once)
        FN(update_slices)(c, 1.0 / weight);
}

/* Add the loss and the weights of the member's rows to those of the rows before.  Returns the weight so far; it is that
 * of the chunk's end where the member is the last. */
static double FN(relay_sums)(const FN(chunk) *c)
{
    const fm_workspace *ws = c->ws;
    fm_relay *relay = ws->relay;
    double *loss = &relay->loss[c->step % 2], *weight = &relay->weight[c->step % 2];
    if (c->member == 0) {
        relay->weight_of_chunk = 0;
        if (c->batch_at == 0)
            *loss = *weight = 0;
    }
    double sum = *loss, weights = relay->weight_of_chunk; /* not in memory: the others wait */
    for (idx r = c->from; r < c->to; r++)
        sum += ws->row_loss[r];
    for (idx r = c->from; r < c->to && c->data->sample_weight; r++)
        weights += (double)((const REAL *)ws->weight)[r];
    *loss = sum;
    relay->weight_of_chunk = c->data->sample_weight ? weights : weights + (double)(c->to - c->from);
    if (c->member == ws->n_threads - 1)
        *weight += relay->weight_of_chunk;
    return *weight;
}

/* The member's rows in the gradients of a group of slices; the last member of the batch's end updates them. */
static void FN(relay_group)(const FN(chunk) *c, idx begin, idx end, int updates, double weight)
{
    fm_workspace *ws = c->ws;
    for (const fm_slice *slice = ws->slices + begin; slice < ws->slices + end; slice++) {
        if (c->from < c->to || slice->kind != FM_W)
            FN(slice_gradient)(c, slice, c->batch_at + c->from > 0);
        if (updates) {
            FN(slice_penalty)(ws, c->epoch, slice);
            FN(slice_update)(c, slice, c->epoch->alpha, c->epoch->l1, 1.0 / weight);
        }
    }
}

/* The member's rows in the gradients of all slices, group by group after the member before.  `turn` counts the parts of
 * chunks.  Returns 0 if somebody said stop. */
static int FN(relay_slices)(const FN(chunk) *c, long turn, int last)
{
    fm_workspace *ws = c->ws;
    fm_relay *relay = ws->relay;
    if (c->member == 0 && ws->interrupted) /* without its rows nobody goes on, so nothing of the step is updated */
        return 0;
    if (!fm_turn_wait(&relay->turns[0], turn, &relay->stop))
        return 0;
    const double weight = FN(relay_sums)(c);
    fm_turn_pass(&relay->turns[0], turn + 1);
    const int updates = last && c->member == ws->n_threads - 1 && weight != 0 && FN(updates_at_once)(c->epoch);
    for (idx k = 0; k < relay->n_groups; k++) {
        const fm_slice *begin = &ws->slices[relay->starts[k]], *end = &ws->slices[relay->starts[k + 1]];
        if (!fm_turn_wait(&relay->turns[k + 1], turn, &relay->stop))
            return 0;
        for (const fm_slice *slice = begin; slice < end && turn > 0; slice++) /* they come from another's cache */
            for (idx i = 0; i < slice->length; i += 64 / (idx)sizeof(REAL))
                PREFETCH_TO_WRITE((REAL *)ws->grad + slice->offset + i);
        FN(relay_group)(c, relay->starts[k], relay->starts[k + 1], updates, weight);
        fm_turn_pass(&relay->turns[k + 1], turn + 1);
    }
    return 1;
}

/* Wait until the last member has updated all groups, up to `turn`, and ask for their parameters. */
static int FN(wait_for_updates)(const fm_workspace *ws, long turn)
{
    fm_relay *relay = ws->relay;
    for (idx k = 0; k < relay->n_groups; k++) {
        if (!fm_turn_wait(&relay->turns[k + 1], turn, &relay->stop))
            return 0;
        const fm_slice *begin = &ws->slices[relay->starts[k]], *end = &ws->slices[relay->starts[k + 1]];
        for (const fm_slice *slice = begin; slice < end; slice++)
            for (idx i = 0; i < slice->length; i += 64 / (idx)sizeof(REAL))
                PREFETCH((REAL *)ws->params + slice->offset + i);
    }
    return 1;
}

/* The sums of all ranks in place of this rank's: the gradient, *loss (which only member 0 knows) and *weight.  They are
 * reduced where they lie, padding and all: a copy would cost as much as the update.  Every member calls it.  Returns 0 if it
 * failed. */
static int FN(reduce_sums)(fm_workspace *ws, const fm_epoch *epoch, int t, double *loss, double *weight)
{
    REAL *totals = (REAL *)ws->grad + ws->n_padded;
    if (t == 0) {
        totals[0] = (REAL)*loss;
        totals[1] = (REAL)*weight;
        if (epoch->reduce(epoch->context))
            ws->interrupted = 1;
    }
    fm_team_barrier(ws->team);
    *loss = (double)totals[0];
    *weight = (double)totals[1];
    return !ws->interrupted;
}

/* What ends a step that several ranks take together, after the gradients of the `rows` that this rank has of the batch.
 * Returns 0 if the step was not done. */
static int FN(shared_update)(const FN(chunk) *c, idx rows, double *loss, double *weight)
{
    fm_workspace *ws = c->ws;
    if (rows == 0) {
        for (idx u = ws->slice_start[c->member]; u < ws->slice_start[c->member + 1]; u++)
            memset((REAL *)ws->grad + ws->slices[u].offset, 0, (size_t)ws->slices[u].length * sizeof(REAL));
        fm_team_barrier(ws->team);
    }
    if (!FN(reduce_sums)(ws, c->epoch, c->member, loss, weight) || *weight == 0)
        return 0;
    FN(update_slices)(c, 1.0 / *weight);
    fm_team_barrier(ws->team);
    return 1;
}

/* The member's rows of the chunk: forward, loss, deltas. */
static void FN(rows_phase)(const FN(chunk) *c)
{
    fm_workspace *ws = c->ws;
    FN(gather_targets)(c, c->from, c->to - c->from);
    FN(forward)(c, c->from, c->to - c->from);
    FN(loss_and_deltas)(c, c->from, c->to - c->from);
    if (c->member > 0)
        return;
    FN(look_for_interrupt)(ws, c->n, 3);
    if (ws->interrupted && ws->relay)
        fm_turn_pass(&ws->relay->stop, 1);
}

/* The slices of a chunk whose rows the members have done.  Returns 0 if the step is not done; all members return the same. */
static int FN(shared_slices)(FN(chunk) *c, int last, double *loss, double *weight)
{
    fm_workspace *ws = c->ws;
    c->from = 0;
    c->to = c->n;
    fm_team_barrier(ws->team);
    *weight += FN(sum_of_weights)(ws, c->data, c->n);
    if (ws->interrupted || (last && *weight == 0))
        return 0;
    if (c->member == 0)
        for (idx i = 0; i < c->n * ws->members; i++)
            *loss += ws->row_loss[i];
    FN(slices_phase)(c, last, *weight);
    fm_team_barrier(ws->team);
    return 1;
}

/* What follows the last chunk of a relay: the sums of all, and the update if it was not done at once.  Returns 0 if there is
 * no step. */
static int FN(end_of_relay)(const FN(chunk) *c, long turn, int updates, double *loss, double *weight)
{
    fm_workspace *ws = c->ws;
    if (!FN(wait_for_updates)(ws, turn))
        return 0;
    *loss = ws->relay->loss[c->step % 2];
    *weight = ws->relay->weight[c->step % 2];
    if (!updates)
        return 1;
    if (*weight == 0)
        return 0;
    if (!FN(updates_at_once)(c->epoch)) {
        FN(update_slices)(c, 1.0 / *weight);
        fm_team_barrier(ws->team);
    }
    return 1;
}

/* One step as member t does it.  Returns 0 if the step was not done; all members return the same. */
static int FN(train_step)(const FN(training) *job, int t, idx step, long *turn)
{
    fm_workspace *ws = job->ws;
    fm_epoch *epoch = job->epoch;
    const int shared = epoch->reduce != NULL;
    const idx left = epoch->n_order - step * epoch->batch_size;
    const idx of_batch = left < epoch->batch_size ? left : epoch->batch_size;
    const idx start = shared ? epoch->starts[step] : step * epoch->batch_size;
    const idx rows = shared ? epoch->starts[step + 1] - start : of_batch;
    double weight = 0, loss = 0;
    for (idx r = 0; r < rows; r += ws->max_rows) {
        const idx n = rows - r < ws->max_rows ? rows - r : ws->max_rows;
        const int last = r + n == rows && !shared;
        FN(chunk) c = {ws, job->data, epoch->order, epoch, step, start + r, r, n, t, 0, 0};
        FN(share)(ws, n, t, &c.from, &c.to);
        FN(rows_phase)(&c);
        if (!ws->relay) {
            if (!FN(shared_slices)(&c, last, &loss, &weight))
                return 0;
            continue;
        }
        if (!FN(relay_slices)(&c, *turn, last))
            return 0;
        *turn += ws->n_threads;
        if (r + n == rows && !FN(end_of_relay)(&c, *turn - t, last, &loss, &weight))
            return 0;
    }
    if (shared) {
        const FN(chunk) c = {ws, job->data, epoch->order, epoch, step, start, 0, rows, t};
        if (!FN(shared_update)(&c, rows, &loss, &weight))
            return 0;
    }
    if (t == 0) {
        double penalty = 0;
        for (idx k = 0; k < ws->n_tiles; k++)
            penalty += ws->tile_penalty[k];
        epoch->loss += (loss + penalty) / weight * (double)of_batch;
        epoch->done = step + 1;
    }
    return 1;
}

static void FN(train_member)(void *job_, int t)
{
    const FN(training) *job = job_;
    fm_workspace *ws = job->ws;
    if (ws->units)
        ws->units->begin();
    for (idx u = ws->slice_start[t]; u < ws->slice_start[t + 1] && !job->epoch->goes_on; u++) {
        const fm_slice *slice = &ws->slices[u];
        if (slice->kind == FM_W)
            FN(transpose_slice)(ws, job->data, slice);
        else if (slice->kind == FM_OF_BLOCK)
            FN(block_updated)(ws, slice);
    }
    fm_team_barrier(ws->team);
    long turn = t;
    for (idx s = 0; s < job->epoch->n_steps; s++)
        if (!FN(train_step)(job, t, s, &turn))
            break;
    if (ws->units)
        ws->units->end();
}

/* All steps of an epoch; see fm_epoch for what comes back. */
static void FN(train)(fm_workspace *ws, const fm_data *data, fm_epoch *epoch)
{
    FN(training) job = {ws, data, epoch};
    epoch->done = 0;
    epoch->loss = 0;
    ws->in_panels = 1;
    if (ws->relay) {
        memset(&ws->relay->stop, 0, sizeof ws->relay->stop);
        memset(ws->relay->turns, 0, (size_t)(1 + ws->relay->n_groups) * sizeof *ws->relay->turns);
    }
    fm_team_run(ws->team, FN(train_member), &job);
}

/* Whether the rows that forward() has just read are finite: they are still in cache. */
static int FN(finite_input)(const fm_workspace *ws, const fm_data *data, const idx *rows, idx first, idx at, idx n)
{
    if (data->indptr) {
        for (idx r = 0; r < n; r++) {
            idx k, end;
            FN(row_entries)(data, FN(row_at)(rows, first + r), &k, &end);
            for (; k < end; k++)
                if (!isfinite(FN(value_at)(data, k)))
                    return 0;
        }
        return 1;
    }
    const idx width = ws->n_columns;
    idx ld;
    const REAL *x = FN(rows_of_x)(ws, data, rows, first, at, &ld);
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
    idx n, piece; /* rows in all, and at a time */
    REAL *out;
    fm_counter *taken;
} FN(prediction);

/* Predictions of n rows from the logits of all members, which they overwrite: the means of link(logits), or the logits. */
static void FN(predict_members)(const fm_workspace *ws, idx n, REAL *logits, REAL *out, REAL *scratch)
{
    const fm_layer *top = &ws->layers[ws->n_layers - 1];
    const idx k = ws->members, n_outputs = top->fan_out, ld = top->ld_out;
    if (!ws->averages) {
        for (idx i = 0; i < n * k; i++)
            memcpy(out + i * n_outputs, logits + i * ld, (size_t)n_outputs * sizeof(REAL));
        return;
    }
    if (ws->loss.link < 0)
        FN(softmax)(n * k, n_outputs, ld, logits, ld, logits, scratch);
    else
        FN(link)(&ws->loss, n * k * ld, logits, logits);
    for (idx r = 0; r < n; r++, logits += k * ld, out += n_outputs)
        for (idx j = 0; j < n_outputs; j++) {
            REAL sum = 0;
            for (idx i = 0; i < k; i++)
                sum += logits[i * ld + j];
            out[j] = sum / (REAL)k;
        }
}

/* Rows that a member takes at a time: they fit each member's share of the chunk's buffers, and each may take some four times. */
static idx FN(piece_of)(const fm_workspace *ws, idx n)
{
    const idx unit = FN(unit)(ws), T = ws->n_threads;
    idx piece = T > 1 ? (n / (4 * T) + unit) / unit * unit : ws->max_rows;
    for (int t = 0; t < T; t++) {
        idx lo, hi;
        FN(share)(ws, ws->max_rows, t, &lo, &hi);
        if (lo < hi && hi - lo < piece)
            piece = hi - lo;
    }
    return piece;
}

/* Rows of the prediction, piece by piece, in member t's share of the chunk's buffers.  A helper that sleeps when the call
 * comes takes what the others have left. */
static void FN(predict_member)(void *job_, int t)
{
    const FN(prediction) *job = job_;
    fm_workspace *ws = job->ws;
    const fm_layer *top = &ws->layers[ws->n_layers - 1];
    const idx n_outputs = top->fan_out;
    idx at, at_end;
    FN(share)(ws, ws->max_rows, t, &at, &at_end);
    REAL *logits = ROW(top->a, at * ws->members, top->ld_out);
    if (ws->units)
        ws->units->begin();
    for (idx r; at < at_end && (r = fm_counter_next(job->taken) * job->piece) < job->n && !ws->interrupted;) {
        const idx n = job->n - r < job->piece ? job->n - r : job->piece;
        REAL *out = job->out + r * n_outputs * (ws->averages ? 1 : ws->members);
        const FN(chunk) c = {.ws = ws, .data = job->data, .rows = job->rows, .first = r - at, .n = n, .member = t};
        FN(forward)(&c, at, n);
        if (!FN(finite_input)(ws, job->data, job->rows, r, at, n))
            ws->saw_non_finite = 1;
        if (!ws->averages || ws->members > 1) {
            FN(predict_members)(ws, n, logits, out, FN(scratch)(ws, t));
        } else if (ws->loss.link < 0) {
            FN(softmax)(n, n_outputs, top->ld_out, logits, n_outputs, out, FN(scratch)(ws, t));
        } else {
            for (idx i = 0; i < n; i++)
                memcpy(out + i * n_outputs, logits + i * top->ld_out, (size_t)n_outputs * sizeof(REAL));
            FN(link)(&ws->loss, n * n_outputs, out, out);
        }
        if (t == 0)
            FN(look_for_interrupt)(ws, n, 1);
    }
    if (ws->units)
        ws->units->end();
}

/* out (n, n_outputs) = link(logits) of rows[0 .. n); rows NULL: of the first n rows themselves.
 * Sets ws->saw_non_finite if X holds NaN or infinities there. */
static void FN(predict)(fm_workspace *ws, const fm_data *data, const idx *rows, idx n, void *out)
{
    fm_counter taken = {0};
    FN(prediction) job = {ws, data, rows, n, FN(piece_of)(ws, n), out, &taken};
    FN(blocks_updated)(ws);
    ws->in_panels = n * ws->members >= PANEL_ROWS_PREDICT;
    for (int l = data->indptr ? 1 : 0; l < ws->n_layers; l++) {
        const fm_layer *layer = &ws->layers[l];
        FN(split_weights)(ws, layer, 0, layer->fan_in);
        if (layer->panels && ws->in_panels)
            FN(pack_panels)(0, layer->fan_in, layer->ld_out, layer->fan_in, (REAL *)ws->params + layer->w, layer->ld_out,
                            layer->w_panels);
    }
    fm_team_run(ws->team, FN(predict_member), &job);
}

static const fm_kernels FN(KERNELS) = {
    .isa = ISA_NAME,
    .lanes = LANES,
    .pack = FN(pack),
    .unpack = FN(unpack),
    .predict = FN(predict),
    .train = FN(train),
};

#undef ROW
