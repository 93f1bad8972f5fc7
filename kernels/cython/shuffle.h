/* numpy.random.RandomState.shuffle of a vector of indices, several times faster. */
#ifndef FASTMLP_SHUFFLE_H
#define FASTMLP_SHUFFLE_H

#include <stddef.h>

#include <numpy/random/bitgen.h>

/* Fisher-Yates from the top, with NumPy's draws: masked to the bits of the bound, rejected above it. */
void fm_shuffle(bitgen_t *bits, ptrdiff_t n, ptrdiff_t *order);

#endif
