/* Blocks of a product by dot products of pairs of bfloat16: AVX512-BF16 (AMD since Zen 4), or its emulation in C.
 *
 * DOT(c, a, b) adds to each of 16 numbers of C the products of a pair of A, the same for all of them, and of a pair of B:
 * a row of a tile.  A block of 8 x 3 vectors of C stays in registers over the whole depth.
 */
#define UNITS_NAME "avx512bf16"
#define UNITS_TABLE fm_units_avx512bf16
#define UNITS_EMULATED fm_emulated_dots
#define HALVES 1
#define MIN_ROWS DOTS_MIN_ROWS
#define MIN_SIZE DOTS_MIN_SIZE
#define DEPTH DOTS_DEPTH

#ifdef FASTMLP_EMULATED
#include "dot_emulation.h"
#else
#define DOT(c, a, b) (*(c) = (f32x16)_mm512_dpbf16_ps((__m512)*(c), (__m512bh)*(b), (__m512bh)*(a)))
#endif

#define BLOCK_HEIGHT 8 /* rows of a block; half a tile's */
#define BLOCK_VECTORS 3

/* The block of C at m and column block j, of so many vectors.  a: its rows of A in their first tile. */
static ALWAYS_INLINE void block(const int nv, const common *c, idx m, idx j, const char *a)
{
    const f32x16 zero = {0};
    const char *b[BLOCK_VECTORS];
    f32x16 sums[BLOCK_VECTORS][BLOCK_HEIGHT];
    UNROLL for (int v = 0; v < nv; v++) {
        b[v] = tile_at(&c->p->b, j + v, c->k_block);
        UNROLL for (int i = 0; i < BLOCK_HEIGHT; i++)
            sums[v][i] = zero;
    }
    for (idx left = (c->depth + 1) / 2; left > 0; left -= FM_TILE, a += FM_TILE_BYTES) {
        const idx pairs = left < FM_TILE ? left : FM_TILE;
        for (idx p = 0; p < pairs; p++) {
            u32x16 of_b[BLOCK_VECTORS];
            UNROLL for (int v = 0; v < nv; v++)
                of_b[v] = *(const u32x16 *)(b[v] + p * 64);
            UNROLL for (int i = 0; i < BLOCK_HEIGHT; i++) {
                const u32x16 of_a = *(const uint32_t *)(a + i * 64 + p * 4) + (u32x16){0};
                UNROLL for (int v = 0; v < nv; v++)
                    DOT(&sums[v][i], &of_a, &of_b[v]);
            }
        }
        UNROLL for (int v = 0; v < nv; v++)
            b[v] += FM_TILE_BYTES;
    }
    UNROLL for (int v = 0; v < nv; v++)
        UNROLL for (int i = 0; i < BLOCK_HEIGHT; i++)
            finish_row(c, m + i, (j + v) * FM_TILE, &sums[v][i]);
}

/* Rows m0 .. m1 of C and all its columns: a panel of three vectors of B at a time, which stays in L1. */
static void multiply_rows(const common *c, idx m0, idx m1)
{
    const fm_units_product *p = c->p;
    const idx vectors = fm_blocks(p->columns, FM_TILE);
    for (idx j = 0, nv = 0; j < vectors; j += nv) {
        nv = vectors - j == 4 ? 2 : vectors - j < BLOCK_VECTORS ? vectors - j : BLOCK_VECTORS;
        for (idx m = m0; m < m1; m += BLOCK_HEIGHT) {
            const idx tile = (m - m0) / FM_TILE * c->n_blocks, row = (m - m0) % FM_TILE;
            const char *a = (const char *)p->scratch + tile * FM_TILE_BYTES + row * 64;
            if (nv == 3)
                block(3, c, m, j, a);
            else if (nv == 2)
                block(2, c, m, j, a);
            else
                block(1, c, m, j, a);
        }
    }
}

static void begin(void)
{
}

static void end(void)
{
}
