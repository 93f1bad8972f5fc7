/* The one product behind everything: C[m, n] = init + sum_k A[m*rs + k*cs] * B[k*ldb + n]; a template over REAL.
 *
 *   forward          Z = X W + b         A = X (rows), B = W,     init = b
 *   weight gradient  G (+)= X^T delta    A = X^T (strides swapped), B = delta, init = 0 or G
 *   input delta      D = delta W^T       A = delta,    B = W^T (transposed once per step)
 *
 * A tile of MR x (NV vectors) stays in registers over the whole k loop: per k, NV loads of B and MR broadcasts of A
 * feed MR * NV fused multiply-adds.  N is a multiple of LANES (padding), rows of B and C are vector-aligned.
 */

typedef REAL FN(vec) VECTOR_OF_REALS;

#define VEC FN(vec)
#define LOAD(p) (*(const VEC *)(p))
#define STORE(p, v) (*(VEC *)(p) = (v))

static const REAL FN(zeros)[NV_MAX * LANES] ALIGNED = {0};

/* out (n,) = x: rows are too short for a call. */
static ALWAYS_INLINE void FN(copy_row)(idx n, const REAL *x, REAL *out)
{
    const REAL *end = x + n / LANES * LANES;
    for (; x < end; x += LANES, out += LANES)
        memcpy(out, x, LANES * sizeof(REAL));
    for (int part = LANES / 2; part > 0; part /= 2)
        if (n & part) {
            memcpy(out, x, (size_t)part * sizeof(REAL));
            x += part;
            out += part;
        }
}

/* row (ld,) = x (n,), and zeros in the padding. */
static ALWAYS_INLINE void FN(pad_row)(idx n, idx ld, const REAL *x, REAL *row)
{
    for (idx j = n / LANES * LANES; j < ld; j += LANES)
        STORE(row + j, LOAD(FN(zeros)));
    FN(copy_row)(n, x, row);
}

/* The same of every `stride`-th number of x. */
static ALWAYS_INLINE void FN(store_row)(idx n, idx ld, const REAL *x, idx stride, REAL *row)
{
    STORE(row, LOAD(FN(zeros)));
    for (idx j = LANES; j < ld; j += LANES)
        STORE(row + j, LOAD(FN(zeros)));
    for (idx j = 0; j < n; j++)
        row[j] = x[j * stride];
}

/* MRC and NVC are compile-time constants: the loops over them unroll and acc lives in registers. */
static ALWAYS_INLINE void FN(tile)(const int MRC, const int NVC, idx K, const REAL *A, idx rs, idx cs, const REAL *B,
                                   idx ldb, REAL *C, idx ldc, const REAL *init, idx init_stride)
{
    VEC acc[MR][NV_MAX];
    UNROLL for (int i = 0; i < MRC; i++)
        UNROLL for (int j = 0; j < NVC; j++)
            acc[i][j] = LOAD(init + i * init_stride + j * LANES);
    for (idx k = 0; k < K; k++) {
        VEC b[NV_MAX];
        UNROLL for (int j = 0; j < NVC; j++)
            b[j] = LOAD(B + j * LANES);
        UNROLL for (int i = 0; i < MRC; i++) {
            const REAL x = A[i * rs];
            UNROLL for (int j = 0; j < NVC; j++)
                acc[i][j] += x * b[j];
        }
        A += cs;
        B += ldb;
    }
    UNROLL for (int i = 0; i < MRC; i++)
        UNROLL for (int j = 0; j < NVC; j++)
            STORE(C + i * ldc + j * LANES, acc[i][j]);
}

typedef void (*FN(tile_function))(idx, const REAL *, idx, idx, const REAL *, idx, REAL *, idx, const REAL *, idx);

#define TILE(m, n)                                                                                                  \
    static void FN(tile_##m##x##n)(idx K, const REAL *A, idx rs, idx cs, const REAL *B, idx ldb, REAL *C, idx ldc,  \
                                   const REAL *init, idx init_stride)                                              \
    {                                                                                                               \
        FN(tile)(m, n, K, A, rs, cs, B, ldb, C, ldc, init, init_stride);                                            \
    }
#define TILE_ROW(m) TILE(m, 1) TILE(m, 2) TILE(m, 3)
TILE_ROW(1)
TILE_ROW(2)
TILE_ROW(3)
TILE_ROW(4)
#if MR == 8
TILE_ROW(5)
TILE_ROW(6)
TILE_ROW(7)
TILE_ROW(8)
#endif

#define ENTRIES(m) {FN(tile_##m##x1), FN(tile_##m##x2), FN(tile_##m##x3)}
static const FN(tile_function) FN(TILES)[MR][NV_MAX] = {
    ENTRIES(1), ENTRIES(2), ENTRIES(3), ENTRIES(4),
#if MR == 8
    ENTRIES(5), ENTRIES(6), ENTRIES(7), ENTRIES(8),
#endif
};
#undef TILE
#undef TILE_ROW
#undef ENTRIES

/* What a product starts from: NULL zero; else init[m*stride + n], which may be C itself (stride ldc) or a bias
 * (stride 0). */
typedef struct {
    const REAL *values;
    idx stride;
} FN(start);

/* Vectors of the next panel when so many are left: NV_MAX, but two and two instead of three and one, since a tile one
 * vector wide loads nearly as often as it multiplies. */
static inline idx FN(panel_vectors)(idx left)
{
    return left == 4 ? 2 : left < NV_MAX ? left : NV_MAX;
}

/* A right-hand matrix B (K, N): rows of `ld` numbers; or, where `depth` is not 0, panels, whose numbers lie in the order
 * in which the tiles use them and so share pages and lines.  A panel has `depth` rows, of which K are read, and each of
 * these the vectors of panel_vectors; the panel of column n begins at n * depth. */
typedef struct {
    const REAL *values;
    idx ld, depth;
} FN(right);

/* Where a thread packs rows of A: room for n numbers; n 0: they are read where they are. */
typedef struct {
    REAL *rows;
    idx n;
} FN(room);

/* M rows of A, `depth` numbers each: tile by tile, MR rows side by side. */
static void FN(pack_rows)(idx M, idx depth, const REAL *A, idx rs, idx cs, REAL *packed)
{
    for (idx m = 0; m < M; m += MR, packed += depth * MR) {
        const REAL *a = A + m * rs;
        if (rs == 1 && M - m >= MR) {
            for (idx k = 0; k < depth; k++)
                memcpy(packed + k * MR, a + k * cs, MR * sizeof(REAL));
            continue;
        }
        const idx mr = M - m < MR ? M - m : MR;
        for (idx i = 0; i < mr; i++)
            for (idx k = 0; k < depth; k++)
                packed[k * MR + i] = a[i * rs + k * cs];
    }
}

/* Rows from .. to of a matrix (depth, N) with rows of ld numbers -> its panels. */
static void FN(pack_panels)(idx from, idx to, idx N, idx depth, const REAL *values, idx ld, REAL *panels)
{
    for (idx n = 0, nv = 0; n < N; n += nv * LANES) {
        nv = FN(panel_vectors)((N - n) / LANES);
        const REAL *row = values + from * ld + n;
        REAL *packed = panels + n * depth + from * nv * LANES;
        for (idx k = from; k < to; k++, row += ld)
            for (idx j = 0; j < nv; j++, packed += LANES)
                STORE(packed, LOAD(row + j * LANES));
    }
}

/* Whether to pack rows of A, which many panels read: if their numbers lie far apart, or beside panels of a wide B. */
static inline int FN(packs_rows)(idx N, idx cs, int in_panels)
{
    if (cs > 1)
        return cs * (idx)sizeof(REAL) >= PACK_STRIDE_BYTES && N >= NV_MAX * LANES;
    return in_panels && N * (idx)sizeof(REAL) >= PACK_WIDTH_BYTES;
}

/* Lines of the next panel that no tile has asked for yet, and how many of them each tile asks for. */
typedef struct {
    const REAL *from, *end;
    idx numbers;
} FN(ahead);

/* Column n of B, rows k .. k + depth, for so many tiles; nothing if there is no such column, or if B is in no panels. */
static inline FN(ahead) FN(next_panel)(const FN(right) *B, idx N, idx n, idx k, idx depth, idx tiles)
{
    if (!B->depth || n >= N)
        return (FN(ahead)){NULL, NULL, 0};
    const idx width = FN(panel_vectors)((N - n) / LANES) * LANES;
    const REAL *from = B->values + n * B->depth + k * width;
    return (FN(ahead)){from, from + depth * width, (depth * width / tiles / LANES + 1) * LANES};
}

/* Ask for a tile's share of the next panel, and for the part of C that the next tile begins with: `rows` or NULL. */
static inline void FN(ask_ahead)(FN(ahead) *next, const REAL *rows, idx ldc, idx nv)
{
    for (idx i = 0; i < next->numbers && next->from < next->end; i += LANES, next->from += LANES)
        PREFETCH_TO_L2(next->from);
    for (int i = 0; i < MR && rows; i++, rows += ldc)
        for (idx j = 0; j < nv; j++)
            PREFETCH(rows + j * LANES);
}

/* --- products whose right-hand matrix stays in the caches ---------------------------------------------------------- */

/* A tile of twice the rows and one vector: MR accumulators of one vector would wait for each other. */
static ALWAYS_INLINE void FN(tall_tile)(idx K, const REAL *A, idx rs, idx cs, const REAL *B, idx ldb, REAL *C, idx ldc,
                                        const REAL *init, idx init_stride)
{
    VEC upper[MR], lower[MR];
    UNROLL for (int i = 0; i < MR; i++) {
        upper[i] = LOAD(init + i * init_stride);
        lower[i] = LOAD(init + (MR + i) * init_stride);
    }
    const REAL *A_lower = A + MR * rs;
    for (idx k = 0; k < K; k++, A += cs, A_lower += cs, B += ldb) {
        const VEC b = LOAD(B);
        UNROLL for (int i = 0; i < MR; i++)
            upper[i] += A[i * rs] * b;
        UNROLL for (int i = 0; i < MR; i++)
            lower[i] += A_lower[i * rs] * b;
    }
    UNROLL for (int i = 0; i < MR; i++) {
        STORE(C + i * ldc, upper[i]);
        STORE(C + (MR + i) * ldc, lower[i]);
    }
}

/* All M rows of a panel of n vectors: the loop over tiles stands within, because calls would cost as much as shallow
 * tiles. */
#define PANEL(n)                                                                                                     \
    static void FN(panel_##n)(idx M, idx K, const REAL *A, idx rs, idx cs, const REAL *B, idx ldb, REAL *C, idx ldc, \
                              const REAL *init, idx init_stride)                                                     \
    {                                                                                                                \
        idx m = 0;                                                                                                   \
        for (; n == 1 && m + 2 * MR <= M; m += 2 * MR)                                                               \
            FN(tall_tile)(K, A + m * rs, rs, cs, B, ldb, C + m * ldc, ldc, init + m * init_stride, init_stride);     \
        for (; m + MR <= M; m += MR)                                                                                 \
            FN(tile)(MR, n, K, A + m * rs, rs, cs, B, ldb, C + m * ldc, ldc, init + m * init_stride, init_stride);   \
        if (m < M)                                                                                                   \
            FN(TILES)[M - m - 1][n - 1](K, A + m * rs, rs, cs, B, ldb, C + m * ldc, ldc, init + m * init_stride,     \
                                        init_stride);                                                                \
    }
PANEL(1)
PANEL(2)
PANEL(3)
#undef PANEL

/* Whether B stays in the caches as a whole, and A is read where it is. */
static inline int FN(gemm_is_small)(idx N, idx K, idx cs)
{
    return K <= KC && N * K * (idx)sizeof(REAL) <= SMALL_B_BYTES && !FN(packs_rows)(N, cs, 0);
}

/* The product below where gemm_is_small.  The depth is cut so that a panel stays in L1 while the rows pass over it. */
static void FN(gemm_small)(idx M, idx N, idx K, const REAL *A, idx rs, idx cs, const REAL *B, idx ldb, REAL *C, idx ldc,
                           FN(start) start)
{
    for (idx n = 0, nv = 0; n < N; n += nv * LANES) {
        nv = FN(panel_vectors)((N - n) / LANES);
        const idx pieces = K * nv * LANES * (idx)sizeof(REAL) / PANEL_BYTES + 1;
        const idx depth = pieces == 1 ? K : (K + pieces - 1) / pieces; /* a division takes as long as a shallow tile */
        const REAL *init = start.values ? start.values + n : FN(zeros);
        idx init_stride = start.values ? start.stride : 0;
        for (idx k = 0; k == 0 || k < K; k += depth) {
            const idx d = K - k < depth ? K - k : depth;
            const REAL *a = A + k * cs, *b = B + k * ldb + n;
            if (nv == 1)
                FN(panel_1)(M, d, a, rs, cs, b, ldb, C + n, ldc, init, init_stride);
            else if (nv == 2)
                FN(panel_2)(M, d, a, rs, cs, b, ldb, C + n, ldc, init, init_stride);
            else
                FN(panel_3)(M, d, a, rs, cs, b, ldb, C + n, ldc, init, init_stride);
            init = C + n;
            init_stride = ldc;
        }
    }
}

/* --- products of few columns ---------------------------------------------------------------------------------------
 *
 * Padding makes whole vectors of few columns.  So these are computed transposed, a vector along what is long: the order
 * of each sum stays. */

#ifdef ZIP_LOW
typedef REAL FN(loose_vec) __attribute__((vector_size(VBYTES), aligned(sizeof(REAL)), may_alias));

/* A square of LANES rows in registers: zipping each row with the one half the square below, log2 LANES times over,
 * turns rows into columns. */
static ALWAYS_INLINE void FN(transpose_square)(const REAL *const *row, REAL *wt, idx ld_t)
{
    VEC rows[LANES], zipped[LANES];
    UNROLL_LANES for (int i = 0; i < LANES; i++)
        rows[i] = *(const FN(loose_vec) *)row[i];
    UNROLL_LANES for (int half = 1; half < LANES; half *= 2) {
        UNROLL_LANES for (int i = 0; i < LANES / 2; i++) {
            zipped[2 * i] = ZIP_LOW(rows[i], rows[i + LANES / 2]);
            zipped[2 * i + 1] = ZIP_HIGH(rows[i], rows[i + LANES / 2]);
        }
        UNROLL_LANES for (int i = 0; i < LANES; i++)
            rows[i] = zipped[i];
    }
    UNROLL_LANES for (int i = 0; i < LANES; i++)
        *(FN(loose_vec) *)(wt + i * ld_t) = rows[i];
}
#endif

/* Rows, and numbers of the depth, that narrow_product transposes at a time. */
#define NARROW_ROWS (NV_MAX * LANES)
#define NARROW_DEPTH 64
/* Columns of a narrow matrix: of a product, and of a gradient. */
#define NARROW_PRODUCT (LANES / 3)
#define NARROW_GRADIENT (2 * LANES)

/* out (depth, NARROW_ROWS) = x (rows, depth) transposed, for up to NARROW_ROWS rows; the last one fills the vectors. */
static void FN(transpose_rows)(idx rows, idx depth, const REAL *x, idx ld, REAL *out)
{
    idx k = 0;
#ifdef ZIP_LOW
    for (; k + LANES <= depth; k += LANES)
        for (idx r = 0; r < rows; r += LANES) {
            const REAL *row[LANES];
            for (int i = 0; i < LANES; i++)
                row[i] = x + (r + i < rows ? r + i : rows - 1) * ld + k;
            FN(transpose_square)(row, out + k * NARROW_ROWS + r, NARROW_ROWS);
        }
#endif
    for (; k < depth; k++)
        for (idx r = 0; r < (rows + LANES - 1) / LANES * LANES; r++)
            out[k * NARROW_ROWS + r] = x[(r < rows ? r : rows - 1) * ld + k];
}

/* z (rows, ld_z) = x W + b, where only n <= NARROW_PRODUCT columns of w (K, ld_w) are no padding. */
static void FN(narrow_product)(idx rows, idx n, idx K, const REAL *x, idx ld_x, const REAL *w, idx ld_w, const REAL *b,
                               REAL *z, idx ld_z)
{
    REAL columns[NARROW_DEPTH * NARROW_ROWS] ALIGNED, sums[NARROW_PRODUCT * NARROW_ROWS + LANES] ALIGNED;
    for (idx r0 = 0; r0 < rows; r0 += NARROW_ROWS, x += NARROW_ROWS * ld_x) {
        const idx m = rows - r0 < NARROW_ROWS ? rows - r0 : NARROW_ROWS, nv = (m + LANES - 1) / LANES;
        for (idx j = 0; j < n; j++)
            for (idx r = 0; r < nv * LANES; r++)
                sums[j * NARROW_ROWS + r] = b[j];
        for (idx k = 0; k < K; k += NARROW_DEPTH) {
            const idx depth = K - k < NARROW_DEPTH ? K - k : NARROW_DEPTH;
            FN(transpose_rows)(m, depth, x + k, ld_x, columns);
            FN(TILES)[n - 1][nv - 1](depth, w + k * ld_w, 1, ld_w, columns, NARROW_ROWS, sums, NARROW_ROWS, sums,
                                     NARROW_ROWS);
        }
        for (idx r = 0; r < m; r++, z += ld_z)
            FN(store_row)(n, ld_z, sums + r, NARROW_ROWS, z);
    }
}

/* Whether the product of the rows with n columns is shorter transposed. */
static inline int FN(product_is_narrow)(idx rows, idx n, idx K)
{
    return n <= NARROW_PRODUCT && rows >= LANES && K >= 3 * LANES;
}

/* Whether the gradient of n of ld columns by n_rows rows, a sum over K rows, has fewer vectors transposed. */
static inline int FN(gradient_is_narrow)(idx K, idx n_rows, idx n, idx ld, idx ld_x)
{
    if (K < 4 * LANES)
        return 0; /* copies of the result would cost as much */
    const idx padded = (n_rows + LANES - 1) / LANES * LANES;
    return n <= NARROW_GRADIENT && n * padded < n_rows * ld && ld_x * (idx)sizeof(REAL) <= 2 * PACK_STRIDE_BYTES;
}

/* Rows m .. m + n_rows of g (+)= x^T delta, where only n columns of delta (K, ld) are no padding: as delta^T x.
 * x (K, ld_x) has whole vectors. */
static void FN(narrow_gradient)(idx K, idx m, idx n_rows, idx n, const REAL *x, idx ld_x, const REAL *delta, idx ld,
                                REAL *g, idx ld_g, int accumulate)
{
    REAL sums[NARROW_GRADIENT * NV_MAX * LANES] ALIGNED;
    const idx first = m / LANES * LANES, end = m + n_rows;
    idx nv;
    for (idx i0 = first; i0 < end; i0 += nv * LANES) {
        nv = FN(panel_vectors)((end - i0 + LANES - 1) / LANES);
        const idx ld_sums = nv * LANES, from = i0 > m ? i0 : m, to = i0 + ld_sums < end ? i0 + ld_sums : end;
        if (accumulate)
            memset(sums, 0, (size_t)(n * ld_sums) * sizeof(REAL));
        if (accumulate)
            for (idx j = 0; j < n; j++)
                for (idx i = from; i < to; i++)
                    sums[j * ld_sums + i - i0] = g[(i - m) * ld_g + j];
        const FN(start) start = {accumulate ? sums : NULL, ld_sums};
        FN(gemm_small)(n, ld_sums, K, delta, 1, ld, x + i0, ld_x, sums, ld_sums, start);
        for (idx i = from; i < to; i++)
            FN(store_row)(n, ld_g, sums + i - i0, ld_sums, g + (i - m) * ld_g);
    }
}

/* The length of pieces of n, all but the last: even ones of about `piece`, multiples of `unit`. */
static inline idx FN(even_piece)(idx n, idx piece, idx unit)
{
    if (n <= piece)
        return piece;
    const idx pieces = (n + LONGEST(piece) - 1) / LONGEST(piece), length = (n + pieces - 1) / pieces;
    return (length + unit - 1) / unit * unit;
}

/* C (M, N) = start + A B, N a multiple of LANES.
 *
 * Loops, outermost first: k in slices of about KC, m in blocks of `block` rows, n in panels of NV_MAX vectors, m in tiles.
 * A panel's rows of B stay in L1 or L2 while the block's tiles pass over them; the block's A stays in L2 while the
 * panels pass over it. */
static void FN(gemm)(idx M, idx N, idx K, const REAL *A, idx rs, idx cs, FN(right) B, REAL *C, idx ldc, FN(start) start,
                     idx block, FN(room) room)
{
    if (!B.depth && FN(gemm_is_small)(N, K, cs)) {
        FN(gemm_small)(M, N, K, A, rs, cs, B.values, B.ld, C, ldc, start);
        return;
    }
    const idx tiles = ((M < block ? M : block) + MR - 1) / MR;
    const idx slice = FN(even_piece)(K, KC, 1);
    const int packs_rows = tiles * MR * (K < slice ? K : slice) <= room.n && FN(packs_rows)(N, cs, B.depth > 0);
    for (idx k = 0; k == 0 || k < K; k += slice) {
        const idx depth = K - k < slice ? K - k : slice;
        for (idx m0 = 0; m0 < M; m0 += block) {
            const idx m1 = M - m0 < block ? M : m0 + block;
            const REAL *a = A + m0 * rs + k * cs;
            if (packs_rows)
                FN(pack_rows)(m1 - m0, depth, a, rs, cs, room.rows);
            for (idx n = 0, nv = 0; n < N; n += nv * LANES) {
                nv = FN(panel_vectors)((N - n) / LANES);
                const idx ldb = B.depth ? nv * LANES : B.ld;
                const REAL *b = B.values + k * ldb + (B.depth ? n * B.depth : n);
                FN(ahead) next = FN(next_panel)(&B, N, n + nv * LANES, k, depth, (m1 - m0 + MR - 1) / MR);
                for (idx m = m0; m < m1; m += MR) {
                    const int mr = m1 - m < MR ? (int)(m1 - m) : MR;
                    const REAL *init = FN(zeros);
                    idx init_stride = 0;
                    if (k > 0) {
                        init = C + m * ldc + n;
                        init_stride = ldc;
                    } else if (start.values) {
                        init = start.values + m * start.stride + n;
                        init_stride = start.stride;
                    }
                    if (B.depth)
                        FN(ask_ahead)(&next, m1 - m > MR ? C + (m + MR) * ldc + n : NULL, ldc, nv);
                    FN(TILES)[mr - 1][nv - 1](depth, packs_rows ? room.rows + (m - m0) * depth : a + (m - m0) * rs,
                                              packs_rows ? 1 : rs, packs_rows ? MR : cs, b, ldb, C + m * ldc + n, ldc,
                                              init, init_stride);
                }
            }
        }
    }
}

/* Rows of M per block: few while B stays in the caches as a whole (then a finished row block is still in L1 for the
 * activation), else enough to use each panel of B many times. */
static inline idx FN(block_rows)(idx M, idx N, idx K)
{
    if (M <= MR)
        return MR;
    const idx few = STAGE_BYTES / (N * (idx)sizeof(REAL)) / MR * MR;
    return N * K * (idx)sizeof(REAL) > SMALL_B_BYTES ? FN(even_piece)(M, BLOCK_ROWS, MR) : few > MR ? few : MR;
}

/* The same product by the Fortran BLAS: row-major C = A B is column-major C^T = B^T A^T.
 * `transposed`: A is read with swapped strides (rs == 1).  C already holds init when beta is 1. */
static void FN(gemm_blas)(fm_blas_gemm blas, idx M, idx N, idx K, const REAL *A, idx lda, int transposed, const REAL *B,
                          idx ldb, REAL *C, idx ldc, REAL beta)
{
    int64_t n = N, m = M, k = K, ldb_ = ldb, lda_ = lda, ldc_ = ldc;
    REAL one = 1;
    blas((char *)"N", (char *)(transposed ? "T" : "N"), &n, &m, &k, &one, (void *)B, &ldb_, (void *)A, &lda_, &beta, C,
         &ldc_);
}

/* Whether a product goes to the BLAS, if the workspace has one (tiers.h): large B, and tall and deep enough to repay
 * the packing. */
static inline int FN(gemm_is_large)(idx M, idx N, idx K)
{
    return K * N * (idx)sizeof(REAL) > BLAS_B_BYTES && M >= BLAS_MIN_ROWS && K >= BLAS_MIN_ROWS;
}
