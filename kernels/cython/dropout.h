/* Dropout masks from a counter: neuron j of row i of a layer is kept or not by a hash of (seed, step, layer, i, j), so
 * every engine and any number of threads draw the same; random slopes likewise; a template over REAL.
 *
 * The hash is two rounds of a 32-bit mixing function (Wellons' "lowbias32") keyed by splitmix64 (Steele et al. 2014).
 */

typedef struct {
    uint32_t k0, k1, threshold, width;
    REAL scale;
    const idx *places; /* of the rows in the batch, if some of its rows are elsewhere; or NULL */
    idx members;       /* rows of the layer for each of `places` */
} FN(mask);

static inline uint64_t FN(splitmix)(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static inline uint32_t FN(mix)(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

/* The mask of layer l (0: the input) of `width` neurons at step t. */
static FN(mask) FN(new_mask)(idx threshold, double rate, idx width, uint64_t seed, uint64_t t, int l)
{
    const uint64_t key = FN(splitmix)(FN(splitmix)(seed) ^ ((t << 16) + (uint64_t)l));
    return (FN(mask)){(uint32_t)key, (uint32_t)(key >> 32), (uint32_t)threshold, (uint32_t)width,
                      (REAL)(1 / (1 - rate)), NULL, 1};
}

/* The number of row i of those at hand in the whole batch. */
static inline uint32_t FN(mask_row)(const FN(mask) *m, idx i)
{
    return (uint32_t)(m->places ? m->places[i / m->members] * m->members + i % m->members : i);
}

/* Factor of neuron j of row i: 0 or scale. */
static inline REAL FN(mask_at)(const FN(mask) *m, uint32_t i, uint32_t j)
{
    const uint32_t h = FN(mix)(FN(mix)((i * m->width + j) ^ m->k0) + m->k1);
    return (h >> 8) >= m->threshold ? m->scale : (REAL)0;
}

/* y (rows, ld) = x * mask for the rows first .. first + rows of the batch; y may be x. */
static void FN(apply_mask)(const FN(mask) *mask, idx first, idx rows, idx ld, const REAL *x, REAL *y)
{
    const FN(mask) m = *mask;
    for (idx r = 0; r < rows; r++, x += ld, y += ld) {
        const uint32_t i = FN(mask_row)(&m, first + r);
        IVDEP
        for (uint32_t j = 0; j < (uint32_t)ld; j++)
            y[j] = x[j] * FN(mask_at)(&m, i, j);
    }
}

/* --- random slopes (Xu et al. 2015) ---------------------------------------------------------------------------------- */

#define SLOPES 32768 /* added to the layer in the key: slopes and masks are independent */

/* y (rows, ld) *= what the drawn slope is of the mean slope, where f(z) is not positive, for rows first ..
 * first + rows of the batch: of [1 - s, 1 + s] with s = slopes->scale the middle of one of 2^24 parts.  a is f(z) with
 * either slope; y may be a. */
static void FN(apply_slopes)(const FN(mask) *slopes, idx first, idx rows, idx ld, const REAL *a, REAL *y)
{
    const FN(mask) m = *slopes;
    const REAL part = (REAL)((double)m.scale / 8388608.0);
    const REAL low = (REAL)(1.0 - (double)m.scale + (double)m.scale / 16777216.0);
    for (idx r = 0; r < rows; r++, a += ld, y += ld) {
        const uint32_t start = FN(mask_row)(&m, first + r) * m.width;
        IVDEP
        for (uint32_t j = 0; j < (uint32_t)ld; j++) {
            const uint32_t h = FN(mix)(FN(mix)((start + j) ^ m.k0) + m.k1);
            const REAL factor = low + part * (REAL)(int32_t)(h >> 8);
            y[j] *= a[j] > 0 ? (REAL)1 : factor;
        }
    }
}
