/* Where one way of computing gives way to another: every size threshold of the engine, in one place.
 * Measured on two cores with AVX-512, 48 KiB L1, 1 MiB L2 per core; see docs/performance.md. */
#ifndef FASTMLP_TIERS_H
#define FASTMLP_TIERS_H

/* A right-hand matrix larger than this is streamed from beyond L2 for every row block: leave it to the BLAS,
 * if the product is also deep and tall enough to repay the packing. */
#define LARGE_B_BYTES (1024 * 1024)
#define LARGE_MIN_ROWS 32

/* Rows per chunk: all layers of a chunk stay in L2 ... */
#define CHUNK_ROWS 256
/* ... but where weights come from beyond L2, more rows per pass over them pay. */
#define CHUNK_ROWS_LARGE 1024

/* Bytes of parameters whose gradient and update a thread does in one go: gradient, weights and two states fit L1. */
#define UNIT_BYTES (12 * 1024)

/* Floating-point operations of a training step, and of a prediction, from which more threads than one pay
 * (a prediction has to start its threads first). */
#define THREADS_MIN_STEP 4e6
#define THREADS_MIN_PREDICT 5e7

/* Floating-point operations between two looks for Ctrl-C: some ten milliseconds. */
#define WORK_PER_POLL 5e8

#endif
