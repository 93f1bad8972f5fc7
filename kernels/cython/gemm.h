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

/* One row block m .. m + mr of C over all columns. */
static inline void FN(gemm_row_block)(int mr, idx N, idx K, const REAL *A, idx rs, idx cs, const REAL *B, idx ldb,
                                      REAL *C, idx ldc, const REAL *init, idx init_stride, idx init_step)
{
    for (idx n = 0; n < N; n += NV_MAX * LANES) {
        const idx vectors = (N - n) / LANES;
        const int nv = vectors < NV_MAX ? (int)vectors : NV_MAX;
        FN(TILES)[mr - 1][nv - 1](K, A, rs, cs, B + n, ldb, C + n, ldc, init + n * init_step, init_stride);
    }
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

/* Which tier a product belongs to: when B (K x N) no longer fits the second-level cache, every row block would stream
 * it from the third; the BLAS packs and blocks for that.  Few rows do not repay its packing. */
static inline int FN(gemm_is_large)(idx M, idx N, idx K)
{
    return K * N * (idx)sizeof(REAL) > LARGE_B_BYTES && M >= LARGE_MIN_ROWS && K >= LARGE_MIN_ROWS;
}
