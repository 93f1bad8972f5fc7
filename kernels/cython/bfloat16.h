/* Arithmetic of the instructions for bfloat16 that the emulations share: denormal numbers count as 0, as operands and as
 * results. */
#include <math.h>

/* A bfloat16 as a number; 0 where it is denormal. */
static inline float of_bf16(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16, normal = bits & 0x7f800000u ? bits : bits & 0x80000000u;
    float x;
    memcpy(&x, &normal, sizeof x);
    return x;
}

/* s rounded to float32; 0 if that is denormal, which is judged after rounding to 24 bits. */
static inline float flushed(double s)
{
    return (float)(fabs(s) < 0x1p-126 - 0x1p-151 ? s * 0.0 : s);
}
