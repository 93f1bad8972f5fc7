/* Blocks of a product by instructions on tiles: AMX (Intel, server processors since 2023), or their emulation in C.
 *
 * A block of 2 x 2 tiles of C stays in tiles 0 .. 3 over the whole depth; per 32 of the depth and with two halves, 8 loads
 * feed 12 multiplications of tiles:
 *
 *   load Ah (4, 5) and Bl (6, 7)   C += Ah Bl
 *   load Bh (6, 7)                 C += Ah Bh
 *   load Al (4, 5)                 C += Al Bh
 */
#define UNITS_NAME "amx"
#define UNITS_TABLE fm_units_amx
#define UNITS_EMULATED fm_emulated_tiles
#define HALVES 2
#define MIN_ROWS UNITS_MIN_ROWS
#define MIN_SIZE UNITS_MIN_SIZE
#define DEPTH UNITS_DEPTH

/* --- tile instructions: TILE_LOAD(t, p) and the others, for tiles 0 .. 7 ------------------------------------------------ */

#ifdef FASTMLP_EMULATED
#include "tile_emulation.h"
#else

/* All eight tiles: 16 rows of 64 bytes. */
static const struct {
    uint8_t palette, start_row, unused[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} CONFIG __attribute__((aligned(64))) = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* "memory": the compiler must have written what a tile is loaded from (GCC's own intrinsics do not say so). */
#define TILE_CONFIG() __asm__ volatile("ldtilecfg %0" : : "m"(CONFIG) : "memory")
#define TILE_RELEASE() __asm__ volatile("tilerelease" : : : "memory")
#define TILE_LOAD(t, p) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(p), "r"((long)64) : "memory")
#define TILE_STORE(t, p) __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(p), "r"((long)64) : "memory")
#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : : : "memory")
#define TILE_DOT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")
#endif

/* A tile of C at m and n = init + sums. */
static void finish(const common *c, idx m, idx n, float (*sums)[FM_TILE])
{
    for (idx i = 0; i < FM_TILE; i++)
        finish_row(c, m + i, n, (const f32x16 *)sums[i]);
}

/* The block of C at m and n; two_rows, two_columns: 32 of them, else 16.  a: its tiles of A. */
static ALWAYS_INLINE void block(const int two_rows, const int two_columns, const common *c, idx m, idx n, const char *a)
{
    const int halves = c->p->b.halves;
    const idx step = (idx)halves * FM_TILE_BYTES;
    const char *a1 = a + c->n_blocks * step;
    const char *b = tile_at(&c->p->b, n / FM_TILE, c->k_block), *b1 = b + c->p->b.depth * step;
    float sums[4][FM_TILE][FM_TILE] __attribute__((aligned(64)));
#define DOTS                                                                                                          \
    do {                                                                                                              \
        TILE_DOT(0, 4, 6);                                                                                            \
        if (two_columns)                                                                                              \
            TILE_DOT(1, 4, 7);                                                                                        \
        if (two_rows)                                                                                                 \
            TILE_DOT(2, 5, 6);                                                                                        \
        if (two_rows && two_columns)                                                                                  \
            TILE_DOT(3, 5, 7);                                                                                        \
    } while (0)
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (idx k = 0; k < c->n_blocks; k++, a += step, a1 += step, b += step, b1 += step) {
        TILE_LOAD(4, a);
        if (two_rows)
            TILE_LOAD(5, a1);
        if (halves == 2) {
            TILE_LOAD(6, b + FM_TILE_BYTES);
            if (two_columns)
                TILE_LOAD(7, b1 + FM_TILE_BYTES);
            DOTS;
        }
        TILE_LOAD(6, b);
        if (two_columns)
            TILE_LOAD(7, b1);
        DOTS;
        if (halves == 2) {
            TILE_LOAD(4, a + FM_TILE_BYTES);
            if (two_rows)
                TILE_LOAD(5, a1 + FM_TILE_BYTES);
            DOTS;
        }
    }
#undef DOTS
    TILE_STORE(0, sums[0]);
    finish(c, m, n, sums[0]);
    if (two_columns) {
        TILE_STORE(1, sums[1]);
        finish(c, m, n + FM_TILE, sums[1]);
    }
    if (two_rows) {
        TILE_STORE(2, sums[2]);
        finish(c, m + FM_TILE, n, sums[2]);
    }
    if (two_rows && two_columns) {
        TILE_STORE(3, sums[3]);
        finish(c, m + FM_TILE, n + FM_TILE, sums[3]);
    }
}

/* Rows m0 .. m1 of C and all its columns: a panel of 32 columns of B at a time, which stays in L2. */
static void multiply_rows(const common *c, idx m0, idx m1)
{
    const fm_units_product *p = c->p;
    for (idx n = 0; n < p->columns; n += 2 * FM_TILE)
        for (idx m = m0; m < m1; m += 2 * FM_TILE) {
            const idx tile = (m - m0) / FM_TILE * c->n_blocks * p->b.halves;
            const char *a = (const char *)p->scratch + tile * FM_TILE_BYTES;
            const int two_rows = m + FM_TILE < m1, two_columns = n + FM_TILE < p->columns;
            if (two_rows && two_columns)
                block(1, 1, c, m, n, a);
            else if (two_rows)
                block(1, 0, c, m, n, a);
            else if (two_columns)
                block(0, 1, c, m, n, a);
            else
                block(0, 0, c, m, n, a);
        }
}

static void begin(void)
{
    TILE_CONFIG();
}

static void end(void)
{
    TILE_RELEASE();
}
