/* The dot products of AVX512-BF16 in plain C, for tests on any machine.
 *
 * VDPBF16PS adds to a number of C first the product of the second numbers of a pair, then that of the first ones, as two
 * fused multiply-adds.  Each rounds to nearest even.  Denormal numbers count as 0, as operands and as results, that between
 * the two among them; a result is judged after rounding to 24 bits.  So Intel documents it, and so AMD's Zen 4 computes.
 * Why double suffices: see tile_emulation.h.  Bits of NaN are not modelled.
 */
#include "bfloat16.h"

static inline float emulated_multiply_add(float c, uint32_t a, uint32_t b)
{
    return flushed((double)of_bf16((uint16_t)a) * (double)of_bf16((uint16_t)b) + (double)c);
}

/* *c (16,) += a pair times 16 pairs. */
static void emulated_dot(f32x16 *c, const u32x16 *a, const u32x16 *b)
{
    for (int n = 0; n < FM_TILE; n++)
        (*c)[n] = emulated_multiply_add(emulated_multiply_add((*c)[n], (*a)[n] >> 16, (*b)[n] >> 16), (*a)[n], (*b)[n]);
}

#define DOT(c, a, b) emulated_dot(c, a, b)
