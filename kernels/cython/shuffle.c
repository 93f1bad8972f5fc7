/* The swaps of a shuffle are known before they are done: a block of draws first, then their swaps, whose entries have
 * arrived in cache by then.  Rejected draws are overwritten, not branched around: a third of them is unforeseeable. */
#include "shuffle.h"

#include <stdint.h>

#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH_TO_WRITE(p) __builtin_prefetch(p, 1)
#else
#define PREFETCH_TO_WRITE(p) ((void)(p))
#endif

#define BLOCK 64

void fm_shuffle(bitgen_t *bits, ptrdiff_t n, ptrdiff_t *order)
{
    uint64_t draws[BLOCK + 1];
    uint64_t mask = 1;
    while (mask < (uint64_t)n)
        mask = mask << 1 | 1;
    for (uint64_t i = n > 0 ? (uint64_t)n - 1 : 0; i > 0;) {
        while (mask >> 1 >= i)
            mask >>= 1;
        /* entries that are drawn below the same mask: i, i - 1, ..., but not beyond the power of two below */
        const uint64_t left = i - (mask >> 1), block = left < BLOCK ? left : BLOCK;
        if (mask <= UINT32_MAX)
            for (uint64_t k = 0; k < block;) {
                draws[k] = bits->next_uint32(bits->state) & mask;
                k += draws[k] <= i - k;
            }
        else
            for (uint64_t k = 0; k < block;) {
                draws[k] = bits->next_uint64(bits->state) & mask;
                k += draws[k] <= i - k;
            }
        for (uint64_t k = 0; k < block; k++)
            PREFETCH_TO_WRITE(order + draws[k]);
        for (uint64_t k = 0; k < block; k++, i--) {
            const ptrdiff_t swapped = order[i];
            order[i] = order[draws[k]];
            order[draws[k]] = swapped;
        }
    }
}
