/* The kernel of matrix_units.h, compiled once for each kind of instructions: tiles (tile_blocks.h), or with FASTMLP_DOTS
 * pairs (dot_blocks.h); and with FASTMLP_EMULATED once more over their emulation in C.  GCC and Clang alone compile it, for
 * little-endian machines.
 *
 * The order of the sums of an element of C depends on the depth alone, not on the place of its tile or on the block.
 */
#include <stdint.h>
#include <string.h>

#include "matrix_units.h"

#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

#define ALWAYS_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* --- halves ---------------------------------------------------------------------------------------------------------- */

typedef float f32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t u32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t u16x16 __attribute__((vector_size(32), aligned(2), may_alias));

/* n of 16 numbers from p on, the others 0. */
static ALWAYS_INLINE void load(f32x16 *x, const float *p, idx n)
{
    if (n >= FM_TILE) {
        *x = *(const f32x16 *)p;
        return;
    }
    float some[FM_TILE] = {0};
    for (idx i = 0; i < n; i++)
        some[i] = p[i];
    *x = *(const f32x16 *)some;
}

#ifdef FASTMLP_DOTS
#define HALVES_OF(p) 1 /* of the numbers of a matrix; known here */
#else
#define HALVES_OF(p) (p)->halves
#endif

#if defined(FASTMLP_DOTS) && !defined(FASTMLP_EMULATED)
#include <immintrin.h>

/* Words of pairs: `first` in the lower halves, `second` in the upper ones. */
static ALWAYS_INLINE void pairs_of(u32x16 *hi, u32x16 *lo, const f32x16 *first, const f32x16 *second)
{
    const u32x16 step = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, order = step | (step + 16) << 16;
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)*second, (__m512)*first);
    *hi = (u32x16)_mm512_permutexvar_epi16((__m512i)order, halves);
    *lo = *hi; /* never read */
}

/* The halves of 32 numbers, one after the other. */
static ALWAYS_INLINE void row_of(u32x16 *hi, u32x16 *lo, const f32x16 *first, const f32x16 *second)
{
    *hi = (u32x16)_mm512_cvtne2ps_pbh((__m512)*second, (__m512)*first);
    *lo = *hi; /* never read */
}
#else

/* Words whose upper halves are the halves of x; the lower halves of `lo` hold what rounding left.
 *
 * hi is x rounded to nearest even, as VCVTNE2PS2BF16 does.  That takes denormal numbers as 0; with tiles they stay, and the
 * products take them as 0.  It keeps NaN.  lo is x - hi rounded to nearest, halves away from 0; where hi is not finite, it
 * may be anything. */
static ALWAYS_INLINE void halves_of(u32x16 *hi, u32x16 *lo, const f32x16 *x)
{
    u32x16 bits = (u32x16)*x;
#ifdef FASTMLP_DOTS
    bits &= (u32x16)((bits & 0x7f800000u) != 0) | 0x80000000u;
#endif
    const u32x16 sum = bits + 0x7fffu + ((bits >> 16) & 1u), is_nan = (u32x16)(*x != *x);
    *hi = ((sum & ~is_nan) | (is_nan & 0x7fc00000u)) & 0xffff0000u;
    *lo = (u32x16)(*x - (f32x16)*hi) + 0x8000u;
}

/* Words of pairs: `first` in the lower halves, `second` in the upper ones. */
static ALWAYS_INLINE void pairs_of(u32x16 *hi, u32x16 *lo, const f32x16 *first, const f32x16 *second)
{
    u32x16 hi_of_second, lo_of_second;
    halves_of(hi, lo, first);
    halves_of(&hi_of_second, &lo_of_second, second);
    *hi = (*hi >> 16) | hi_of_second;
    *lo = (*lo >> 16) | (lo_of_second & 0xffff0000u);
}

/* The upper halves of 32 words, one after the other. */
static ALWAYS_INLINE void upper_halves(u32x16 *to, const u32x16 *first, const u32x16 *second)
{
    const u16x16 parts[2] = {__builtin_convertvector(*first >> 16, u16x16), __builtin_convertvector(*second >> 16, u16x16)};
    memcpy(to, parts, sizeof *to);
}

/* The halves of 32 numbers, one after the other. */
static ALWAYS_INLINE void row_of(u32x16 *hi, u32x16 *lo, const f32x16 *first, const f32x16 *second)
{
    u32x16 hi_of_first, lo_of_first, hi_of_second, lo_of_second;
    halves_of(&hi_of_first, &lo_of_first, first);
    halves_of(&hi_of_second, &lo_of_second, second);
    upper_halves(hi, &hi_of_first, &hi_of_second);
    upper_halves(lo, &lo_of_first, &lo_of_second);
}
#endif

static inline char *tile_at(const fm_halves *b, idx column_block, idx k_block)
{
    return (char *)b->tiles + (column_block * b->depth + k_block) * HALVES_OF(b) * FM_TILE_BYTES;
}

/* Rows k0 .. k1 of B, and zeros up to row `end`, of columns `from` .. `from` + n of a block -> its halves. */
static ALWAYS_INLINE void split_block(const fm_halves *to, idx k0, idx k1, idx end, idx from, idx n, const float *B, idx ldb)
{
    const f32x16 zero = {0};
    const size_t bytes = (size_t)n * sizeof(uint32_t), skip = (size_t)(from % FM_TILE) * sizeof(uint32_t);
    for (idx k = k0; k < end; k += 2) {
        f32x16 first = zero, second = zero;
        u32x16 hi, lo;
        if (k < k1)
            load(&first, B + k * ldb + from, n);
        if (k + 1 < k1)
            load(&second, B + (k + 1) * ldb + from, n);
        pairs_of(&hi, &lo, &first, &second);
        char *row = tile_at(to, from / FM_TILE, k / FM_TILE_DEPTH) + k % FM_TILE_DEPTH / 2 * 64 + skip;
        memcpy(row, &hi, bytes);
        if (HALVES_OF(to) == 2)
            memcpy(row + FM_TILE_BYTES, &lo, bytes);
    }
}

static void split(const fm_halves *to, idx k0, idx k1, idx c0, idx c1, const float *B, idx ldb, int last)
{
    const idx end = last ? fm_blocks(k1, FM_TILE_DEPTH) * FM_TILE_DEPTH : k1;
    for (idx from = c0, next; from < c1; from = next) {
        next = (from / FM_TILE + 1) * FM_TILE;
        if (next - from == FM_TILE && next <= c1) /* a call of memcpy would cost more than the splitting */
            split_block(to, k0, k1, end, from, FM_TILE, B, ldb);
        else
            split_block(to, k0, k1, end, from, (next < c1 ? next : c1) - from, B, ldb);
    }
}

/* --- tiles of A -------------------------------------------------------------------------------------------------------- */

/* n rows of up to 32 contiguous numbers -> a tile of each half. */
static void tile_of_rows(char *tile, int halves, idx n, idx depth, const float *A, idx rs)
{
    if (n < FM_TILE)
        memset(tile, 0, (size_t)(halves * FM_TILE_BYTES));
    for (idx m = 0; m < n; m++, A += rs, tile += 64) {
        f32x16 first, second = {0};
        u32x16 hi, lo;
        load(&first, A, depth);
        if (depth > FM_TILE)
            load(&second, A + FM_TILE, depth - FM_TILE);
        row_of(&hi, &lo, &first, &second);
        *(u32x16 *)tile = hi;
        if (halves == 2)
            *(u32x16 *)(tile + FM_TILE_BYTES) = lo;
    }
}

#if defined(__clang__)
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#else
#define ZIP_LOW(a, b) __builtin_shuffle(a, b, (u32x16){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23})
#define ZIP_HIGH(a, b) __builtin_shuffle(a, b, (u32x16){8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31})
#endif

/* A square of 16 rows of words, transposed in registers: zipping each row with the one half the square below, four times
 * over, turns rows into columns. */
static ALWAYS_INLINE void transposed(u32x16 *rows, char *tile)
{
    u32x16 zipped[FM_TILE];
    UNROLL for (int half = 1; half < FM_TILE; half *= 2) {
        UNROLL for (int i = 0; i < FM_TILE / 2; i++) {
            zipped[2 * i] = ZIP_LOW(rows[i], rows[i + FM_TILE / 2]);
            zipped[2 * i + 1] = ZIP_HIGH(rows[i], rows[i + FM_TILE / 2]);
        }
        UNROLL for (int i = 0; i < FM_TILE; i++)
            rows[i] = zipped[i];
    }
    UNROLL for (int i = 0; i < FM_TILE; i++)
        *(u32x16 *)(tile + i * 64) = rows[i];
}

/* The same for n contiguous columns of up to 32 numbers. */
static void tile_of_columns(char *tile, int halves, idx n, idx depth, const float *A, idx cs)
{
    const f32x16 zero = {0};
    u32x16 hi[FM_TILE], lo[FM_TILE];
    for (idx p = 0; p < FM_TILE; p++) {
        f32x16 first = zero, second = zero;
        if (2 * p < depth)
            load(&first, A + 2 * p * cs, n);
        if (2 * p + 1 < depth)
            load(&second, A + (2 * p + 1) * cs, n);
        pairs_of(&hi[p], &lo[p], &first, &second);
    }
    transposed(hi, tile);
    if (halves == 2)
        transposed(lo, tile + FM_TILE_BYTES);
}

/* Rows m0 .. m1 and columns k0 .. k1 of A -> tiles [row / 16][k / 32][half]. */
static void pack(const fm_units_product *p, idx m0, idx m1, idx k0, idx k1)
{
    char *tile = p->scratch;
    for (idx m = m0; m < m1; m += FM_TILE)
        for (idx k = k0; k < k1; k += FM_TILE_DEPTH, tile += HALVES_OF(&p->b) * FM_TILE_BYTES) {
            const idx n = m1 - m < FM_TILE ? m1 - m : FM_TILE, depth = k1 - k < FM_TILE_DEPTH ? k1 - k : FM_TILE_DEPTH;
            const float *A = p->A + m * p->rs + k * p->cs;
            if (p->cs == 1)
                tile_of_rows(tile, HALVES_OF(&p->b), n, depth, A, p->rs);
            else
                tile_of_columns(tile, HALVES_OF(&p->b), n, depth, A, p->cs);
        }
}

/* --- products ---------------------------------------------------------------------------------------------------------- */

/* What all blocks of C have in common that are made of the same tiles of A. */
typedef struct {
    const fm_units_product *p;
    idx k_block, n_blocks; /* the first tile of the depth, and how many */
    idx depth;             /* of these tiles; what lies behind it is 0 */
    const float *init;
    idx init_stride;
} common;

/* Row m of C, up to 16 columns from n on, = init + sum; nothing if there is no such row. */
static ALWAYS_INLINE void finish_row(const common *c, idx m, idx n, const f32x16 *sum)
{
    const fm_units_product *p = c->p;
    if (m >= p->M)
        return;
    float *to = p->C + m * p->ldc + n;
    const float *init = c->init ? c->init + m * c->init_stride + n : NULL;
    if (p->N - n >= FM_TILE) {
        const f32x16 zero = {0};
        *(f32x16 *)to = *sum + (init ? *(const f32x16 *)init : zero);
        return;
    }
    for (idx j = 0; j < p->N - n; j++)
        to[j] = init ? init[j] + (*sum)[j] : (*sum)[j];
}

#ifdef FASTMLP_DOTS
#include "dot_blocks.h"
#else
#include "tile_blocks.h"
#endif

/* Padding columns that no tile reaches = init. */
static void finish_padding(const fm_units_product *p)
{
    const idx from = fm_blocks(p->columns, FM_TILE) * FM_TILE;
    for (idx m = 0; m < p->M && from < p->N; m++)
        for (idx n = from; n < p->N; n++)
            p->C[m * p->ldc + n] = p->init ? p->init[m * p->init_stride + n] : 0;
}

static void multiply(const fm_units_product *p)
{
    for (idx k = 0; k == 0 || k < p->K; k += DEPTH) {
        const idx k1 = p->K - k < DEPTH ? p->K : k + DEPTH;
        common c = {p, k / FM_TILE_DEPTH, fm_blocks(k1 - k, FM_TILE_DEPTH), k1 - k, p->init, p->init_stride};
        if (k > 0) {
            c.init = p->C;
            c.init_stride = p->ldc;
        }
        for (idx m = 0; m < p->M; m += UNITS_ROWS) {
            const idx m1 = p->M - m < UNITS_ROWS ? p->M : m + UNITS_ROWS;
            pack(p, m, m1, k, k1);
            multiply_rows(&c, m, m1);
        }
    }
    finish_padding(p);
}

#ifdef FASTMLP_EMULATED
static const fm_units UNITS[] = {
    /* used where the real ones would be; and for all shapes, so that small ones test as much as large ones */
    {UNITS_NAME "-emulated", HALVES, MIN_ROWS, MIN_SIZE, begin, end, split, multiply},
    {UNITS_NAME "-emulated-always", HALVES, 1, 0, begin, end, split, multiply},
};

const fm_units *UNITS_EMULATED(const char *name)
{
    for (size_t i = 0; i < sizeof UNITS / sizeof UNITS[0]; i++)
        if (!strcmp(UNITS[i].name, name))
            return &UNITS[i];
    return NULL;
}
#else
static const fm_units UNITS = {UNITS_NAME, HALVES, MIN_ROWS, MIN_SIZE, begin, end, split, multiply};
const fm_units *UNITS_TABLE(void)
{
    return &UNITS;
}
#endif

#elif defined(FASTMLP_EMULATED)
#ifdef FASTMLP_DOTS
const fm_units *fm_emulated_dots(const char *name)
#else
const fm_units *fm_emulated_tiles(const char *name)
#endif
{
    (void)name;
    return NULL;
}
#endif
