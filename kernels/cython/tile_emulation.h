/* The tile instructions of AMX in plain C, for tests on any machine: Intel's Software Developer's Manual, volume 2.
 *
 * TDPBF16PS adds the products of even and of odd numbers apart, each sum from 0 in the order of k; then the two sums,
 * then the result to C.  All additions round to nearest even.  Denormal numbers count as 0, as operands and as results.
 * A product of two bfloat16 is exact in double, and so is rounding its sum with a float32 first to double, then to
 * float32 (Figueroa 1995: double has more than 2 * 24 + 1 bits).  Bits of NaN are not modelled.
 */
#include <stdlib.h>

#include "bfloat16.h"

#if defined(_MSC_VER)
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

/* The tiles of a thread. */
typedef struct {
    int configured;
    union {
        float f[FM_TILE][FM_TILE];
        uint16_t half[FM_TILE][FM_TILE_DEPTH];
    } tile[8];
} fm_emulated;

static THREAD_LOCAL fm_emulated emulated;

/* The processor raises an exception where tiles are not configured. */
static fm_emulated *configured(void)
{
    if (!emulated.configured)
        abort();
    return &emulated;
}

static void emulated_config(void)
{
    if (emulated.configured)
        abort(); /* an earlier call has not released them */
    memset(&emulated, 0, sizeof emulated);
    emulated.configured = 1;
}

static void emulated_release(void)
{
    memset(configured(), 0, sizeof emulated);
}

static void emulated_load(int t, const void *from)
{
    memcpy(configured()->tile[t].f, from, FM_TILE_BYTES);
}

static void emulated_store(int t, void *to)
{
    memcpy(to, configured()->tile[t].f, FM_TILE_BYTES);
}

static void emulated_zero(int t)
{
    memset(configured()->tile[t].f, 0, FM_TILE_BYTES);
}

/* Exponents, with their bias, of a tile's numbers that are not 0: the least and the greatest; 256 and 0 if there are none. */
static void exponents(const uint16_t *half, int *least, int *greatest)
{
    int low = 256, high = 0;
    for (int i = 0; i < FM_TILE * FM_TILE_DEPTH; i++) {
        const int e = half[i] >> 7 & 255, as_least = e ? e : 256;
        low = as_least < low ? as_least : low;
        high = e > high ? e : high;
    }
    *least = low;
    *greatest = high;
}

/* Whether all products of two tiles are 0 or lie in 2^-90 .. 2^90: then they are exact in float32, and none of their sums
 * is denormal or overflows, since all are multiples of 2^-105. */
static int is_ordinary(const uint16_t *a, const uint16_t *b)
{
    int least[2], greatest[2];
    exponents(a, &least[0], &greatest[0]);
    exponents(b, &least[1], &greatest[1]);
    return greatest[0] < 255 && greatest[1] < 255 && least[0] + least[1] >= 2 * 127 - 90 &&
           greatest[0] + greatest[1] < 2 * 127 + 88;
}

static void emulated_dot(int c, int a, int b)
{
    fm_emulated *e = configured();
    const uint16_t(*A)[FM_TILE_DEPTH] = e->tile[a].half, (*B)[FM_TILE_DEPTH] = e->tile[b].half;
    const int ordinary = is_ordinary(A[0], B[0]);
    float even[FM_TILE][FM_TILE], odd[FM_TILE][FM_TILE];
    for (int k = 0; k < FM_TILE; k++)
        for (int n = 0; n < FM_TILE; n++) {
            even[k][n] = of_bf16(B[k][2 * n]);
            odd[k][n] = of_bf16(B[k][2 * n + 1]);
        }
    for (int m = 0; m < FM_TILE; m++) {
        float of_even[FM_TILE] = {0}, of_odd[FM_TILE] = {0};
        for (int k = 0; k < FM_TILE; k++) {
            const float first = of_bf16(A[m][2 * k]), second = of_bf16(A[m][2 * k + 1]);
            if (ordinary)
                for (int n = 0; n < FM_TILE; n++) {
                    of_even[n] += first * even[k][n];
                    of_odd[n] += second * odd[k][n];
                }
            else
                for (int n = 0; n < FM_TILE; n++) {
                    of_even[n] = flushed((double)first * (double)even[k][n] + (double)of_even[n]);
                    of_odd[n] = flushed((double)second * (double)odd[k][n] + (double)of_odd[n]);
                }
        }
        for (int n = 0; n < FM_TILE; n++) {
            const float sum = flushed((double)of_even[n] + (double)of_odd[n]);
            e->tile[c].f[m][n] = flushed((double)flushed((double)e->tile[c].f[m][n]) + (double)sum);
        }
    }
}

#define TILE_CONFIG() emulated_config()
#define TILE_RELEASE() emulated_release()
#define TILE_LOAD(t, p) emulated_load(t, p)
#define TILE_STORE(t, p) emulated_store(t, p)
#define TILE_ZERO(t) emulated_zero(t)
#define TILE_DOT(c, a, b) emulated_dot(c, a, b)
