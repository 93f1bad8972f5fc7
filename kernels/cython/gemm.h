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

/* C (M, N) = start + A B, N a multiple of LANES.
 *
 * Loops, outermost first: k in blocks of KC, m in blocks of `block` rows, n in panels of NV_MAX vectors, m in tiles.
 * A panel's KC rows of B stay in L1 or L2 while the block's tiles pass over them; the block's A stays in L2 while the
 * panels pass over it. */
static void FN(gemm)(idx M, idx N, idx K, const REAL *A, idx rs, idx cs, FN(right) B, REAL *C, idx ldc, FN(start) start,
                     idx block, FN(room) room)
{
    const idx tiles = ((M < block ? M : block) + MR - 1) / MR;
    const int packs_rows = tiles * MR * (K < KC ? K : KC) <= room.n && FN(packs_rows)(N, cs, B.depth > 0);
    for (idx k = 0; k == 0 || k < K; k += KC) {
        const idx depth = K - k < KC ? K - k : KC;
        for (idx m0 = 0; m0 < M; m0 += block) {
            const idx m1 = M - m0 < block ? M : m0 + block;
            const REAL *a = A + m0 * rs + k * cs;
            if (packs_rows)
                FN(pack_rows)(m1 - m0, depth, a, rs, cs, room.rows);
            for (idx n = 0, nv = 0; n < N; n += nv * LANES) {
                nv = FN(panel_vectors)((N - n) / LANES);
                const idx ldb = B.depth ? nv * LANES : B.ld;
                const REAL *b = B.values + k * ldb + (B.depth ? n * B.depth : n);
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
                    FN(TILES)[mr - 1][nv - 1](depth, packs_rows ? room.rows + (m - m0) * depth : a + (m - m0) * rs,
                                              packs_rows ? 1 : rs, packs_rows ? MR : cs, b, ldb, C + m * ldc + n, ldc,
                                              init, init_stride);
                }
            }
        }
    }
}

/* Rows per block: one tile while B stays in the caches as a whole (then a finished row block is still in L1 for the
 * activation), else enough to use each panel of B many times. */
static inline idx FN(block_rows)(idx N, idx K)
{
    return N * K * (idx)sizeof(REAL) <= SMALL_B_BYTES ? MR : BLOCK_ROWS;
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
