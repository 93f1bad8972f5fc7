/* Where one way of computing gives way to another: every size threshold of the engine, in one place.
 * Measured on two cores with AVX-512, 48 KiB L1, 1 MiB L2 per core; see docs/performance.md. */
#ifndef FASTMLP_TIERS_H
#define FASTMLP_TIERS_H

/* A product's right-hand matrix up to this size stays in L2 while the left-hand rows pass over it, one register tile
 * at a time; above, rows go in blocks of BLOCK_ROWS and the depth in slices of KC (gemm.h). */
#define SMALL_B_BYTES (256 * 1024)
#define BLOCK_ROWS 256
#define KC 512
/* ... all of about the same length, and up to an eighth longer: a short one would pass over as much memory as the others,
 * for less. */
#define LONGEST(n) ((n) + (n) / 8)
/* ... and then a panel of so many bytes stays in L1 while rows pass over it, and an activation follows after so many
 * bytes of the product. */
#define PANEL_BYTES (16 * 1024)
#define STAGE_BYTES (8 * 1024)
#define NV_MAX 3 /* vectors of a panel, and of a tile's rows */

/* Rows so many bytes apart share few sets of the caches (128 lines of an 8 KiB stride: all of a panel's rows in three of
 * L1's sets); matrices whose width is a multiple of it get one more vector of padding. */
#define ALIASED_BYTES 1024

/* The baseline instruction set gives products with a right-hand matrix above this size to the BLAS, which may know
 * newer instructions than this build; they must be tall and deep enough to repay its packing. */
#define BLAS_B_BYTES (64 * 1024)
#define BLAS_MIN_ROWS 32

/* Weights above this size come from beyond L2. */
#define LARGE_WEIGHT_BYTES (1024 * 1024)

/* Right-hand matrices of chunks of so many rows lie in panels (gemm.h): weights larger than SMALL_B_BYTES, which their
 * updates write there, and deltas larger than LARGE_WEIGHT_BYTES.  A prediction writes them first, which so many rows
 * repay. */
#define PANEL_ROWS 64
#define PANEL_ROWS_PREDICT 512

/* A product packs rows of the left-hand matrix if the numbers that a tile takes in turn lie so many bytes apart, or,
 * beside panels, if the right-hand matrix has rows of so many bytes (gemm.h). */
#define PACK_STRIDE_BYTES 1024
#define PACK_WIDTH_BYTES 4096

/* Rows per chunk: all layers of a chunk stay in L2 ... */
#define CHUNK_ROWS 256
/* ... but where weights do not, more rows per pass over them pay. */
#define CHUNK_ROWS_LARGE 1024

/* Bytes of parameters whose gradient and update a thread does in one go: gradient, weights and two states fit L1. */
#define SLICE_BYTES (12 * 1024)
/* ... but rows per slice where a chunk's deltas are larger than SMALL_B_BYTES, since every slice reads all of them;
 * BLOCK_ROWS where they are larger than LARGE_WEIGHT_BYTES. */
#define LARGE_SLICE_ROWS 48

/* Gradients go from thread to thread, each of which adds its rows, where a chunk's activations and deltas are so many
 * times as many numbers as the parameters: what a thread reads of another is the slowest of all memory.  Groups of slices
 * with at least so many weights go on in one go: the next thread begins after the first. */
#define RELAY_NUMBERS 3
#define RELAY_SLICE 1024

/* Rows that softmax works on together, transposed: a vector then holds one class of many rows. */
#define CLASS_ROWS 64

/* Floating-point operations of a training step, and of a prediction, from which more threads than one pay
 * (between predictions the threads sleep and have to be woken). */
#define THREADS_MIN_STEP 4e6
#define THREADS_MIN_PREDICT 1e7

/* Matrix units work on so many rows of A at a time, whose halves stay in half of L2 (2 MiB), over so much of the depth:
 * tiles (AMX), then below pairs (AVX512-BF16). */
#define UNITS_ROWS 128
#define UNITS_DEPTH 1024

/* Batches of fewer rows, and layers with fan_in fan_out / (fan_in + fan_out) below this, stay with the register tiles.
 * No matrix units were at hand: the instructions' published rates (16 cycles for 8192 multiplications, two vectors of
 * float32 a cycle) say that a row of the batch saves 0.077 cycles of each weight.  Measured with AVX-512, splitting a
 * weight into both its layouts takes 1.5 cycles, and so does splitting an activation or a delta into its two: they are
 * saved from 20 rows, and from a size of 20, on. */
#define UNITS_MIN_ROWS 64
#define UNITS_MIN_SIZE 32

/* Dot products of pairs: a panel of three vectors over so much of the depth stays in L1 (24 KiB). */
#define DOTS_DEPTH 256

/* Measured on Zen 4: steps of nets at this border take as long as with float32, or up to a tenth less. */
#define DOTS_MIN_ROWS 64
#define DOTS_MIN_SIZE 42

/* Rows of a slice of weights whose gradient matrix units compute: two tiles ... */
#define UNITS_SLICE_ROWS 32
/* ... but more where the halves of a chunk's deltas are larger than this and come from beyond L2 for every slice. */
#define UNITS_SLICE_ROWS_LARGE 128
#define UNITS_LARGE_BYTES (1024 * 1024)

/* Rows ahead of the one being gathered that are asked for from memory. */
#define PREFETCH_ROWS 32

/* Floating-point operations between two looks for Ctrl-C: some ten milliseconds. */
#define WORK_PER_POLL 5e8

#endif
