/* Matrix units: products of float32 matrices by instructions that multiply bfloat16 and add in float32, whole tiles (AMX) or
 * pairs (AVX512-BF16).
 *
 * A number x is split into its halves hi = bf16(x) and lo = bf16(x - hi).  A B is then Ah Bl + Ah Bh + Al Bh ("bf16x3"),
 * whose error is below 2^-15 of |A| |B|; with one half it is Ah Bh, with an error below 2^-7.
 *
 *   a tile of A   16 rows of 32 numbers, 64 bytes each
 *   a tile of B   16 rows of 16 pairs: row p holds rows 2p and 2p + 1 of B, column by column
 *   a tile of C   16 rows of 16 float32
 *
 * Tiles are contiguous, 1 KiB each.  Halves of a right-hand matrix lie in its buffer as [column / 16][row / 32][half];
 * those of the left-hand matrix are made block by block in a scratch.  matrix_units.c has the code, for each kind of
 * instructions and for its emulation in C; products.h calls it.
 */
#ifndef FASTMLP_MATRIX_UNITS_H
#define FASTMLP_MATRIX_UNITS_H

#include <stddef.h>

#include "tiers.h"

typedef ptrdiff_t idx;

#define FM_TILE 16        /* rows of a tile; columns of a tile of C */
#define FM_TILE_DEPTH 32  /* rows of B that a tile of it holds */
#define FM_TILE_BYTES 1024

/* Halves of a right-hand matrix. */
typedef struct {
    void *tiles;
    idx depth;  /* tiles that one block of 16 columns has room for */
    int halves; /* 1 or 2 */
} fm_halves;

/* C (M, N) = init + A B.  Columns of C from `columns` on are padding, where B is 0. */
typedef struct {
    idx M, N, K, columns;
    const float *A;    /* A[m * rs + k * cs]; one of the strides is 1 */
    idx rs, cs;
    fm_halves b;
    const float *init; /* init[m * init_stride + n], may be C; NULL: 0 */
    idx init_stride;
    float *C;
    idx ldc;
    void *scratch;     /* fm_units_scratch(M, K, halves) bytes */
} fm_units_product;

/* One kind of matrix units. */
typedef struct {
    const char *name;
    int halves;   /* of a number, at most: 2, or 1 where three products would be slower than float32 */
    idx min_rows; /* of a batch, from which they pay */
    idx min_size; /* of a layer: fan_in fan_out / (fan_in + fan_out) */
    void (*begin)(void); /* before the calling thread uses the others; then end, in the same thread */
    void (*end)(void);
    /* Rows k0 .. k1 and columns c0 .. c1 of B -> its halves.  k0 is even, and k1 too, unless it is the end of B; `last`:
     * it is, and what lies behind it in its tiles becomes 0. */
    void (*split)(const fm_halves *to, idx k0, idx k1, idx c0, idx c1, const float *B, idx ldb, int last);
    void (*multiply)(const fm_units_product *p);
} fm_units;

const fm_units *fm_units_amx(void), *fm_units_avx512bf16(void);
/* NULL: there are none of this name, or not with this compiler */
const fm_units *fm_emulated_tiles(const char *name), *fm_emulated_dots(const char *name);

/* How many blocks of `size` hold n. */
static inline idx fm_blocks(idx n, idx size)
{
    return (n + size - 1) / size;
}

/* Bytes of the halves of a matrix (rows, columns). */
static inline idx fm_halves_bytes(idx rows, idx columns, int halves)
{
    return fm_blocks(rows, FM_TILE_DEPTH) * fm_blocks(columns, FM_TILE) * halves * FM_TILE_BYTES;
}

/* Bytes of the tiles of A that a product (M, K) makes at a time. */
static inline idx fm_units_scratch(idx M, idx K, int halves)
{
    const idx m = M < UNITS_ROWS ? M : UNITS_ROWS, k = K < UNITS_DEPTH ? K : UNITS_DEPTH;
    return fm_halves_bytes(k, m, halves);
}

#endif
