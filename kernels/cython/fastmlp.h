/* Types shared by the Python side (engine.pyx) and the kernels of every instruction set.
 *
 * Data flow of one training step, all on buffers of the workspace:
 *   rows --gather--> input --forward--> logits --loss--> delta of the top layer --backward--> grad --rule--> params
 * With feature blocks, a scale or members: rows --gather--> columns --blocks--> features --scale--> input (inputs.h).
 *
 * "Padded" means: every matrix row is widened with zeros to a whole number of vectors (`lanes`), so that no loop
 * has a remainder.  Padding columns of weights and gradients stay zero through every pass; padding columns of
 * activations may hold f(0) and are never read; those of deltas are 0 unless a user's formula is not finite at 0.
 *
 * The structs hold void pointers: the same types serve float and double, and kernels cast to REAL.
 */
#ifndef FASTMLP_H
#define FASTMLP_H

#include <stddef.h>
#include <stdint.h>

#include "matrix_units.h"
#include "threads.h"

#define FM_MAX_STATES 4
#define FM_MAX_PARAMETERS 4
#define FM_MAX_SCALARS 8

/* A user's formula: a program of vector operations on registers (kernels/language.py compiles it, program.h runs it).
 * Registers 0 and 1 are the inputs, which no instruction writes to.  An operand below zero is a constant: constants[-1 - operand]. */
#define FM_MAX_REGISTERS 16
typedef struct {
    int32_t op, dst, a, b, c, d;
} fm_instruction;
typedef struct {
    const fm_instruction *instructions; /* NULL: no program */
    idx n_instructions;
    const double *constants;
    int output; /* register or constant */
} fm_program;

/* An activation and its parameters: a row of ACTIVATIONS or two programs. */
typedef struct {
    int row;
    double parameters[FM_MAX_PARAMETERS];
    fm_program value, slope;
    const void *slopes; /* (ld,) learned per neuron (prelu), or NULL */
} fm_activation;

/* A loss and its parameters: a row of LOSSES or two programs with a link. */
typedef struct {
    int row;
    double parameters[FM_MAX_PARAMETERS];
    fm_program value, delta;
    int link;         /* row of ACTIVATIONS; -1: softmax */
    int every_output; /* of softmax: 0 where only the label's term is not 0 */
} fm_loss;

/* Slices are cut between tiles of so many rows of a W; sums over weights are taken tile by tile. */
#define FM_TILE_ROWS 8

/* gemm of the Fortran BLAS, as scipy.linalg.cython_blas exports it.  Integers are handed over as int64_t: on a
 * little-endian machine a library built with 32-bit integers reads the same (small, non-negative) numbers. */
typedef void (*fm_blas_gemm)(char *, char *, int64_t *, int64_t *, int64_t *, void *, void *, int64_t *, void *,
                             int64_t *, void *, void *, int64_t *);

/* What computes the products with one right-hand matrix, if not the register tile. */
typedef struct {
    fm_blas_gemm blas;       /* or NULL */
    const fm_units *units;   /* or NULL */
    fm_halves b;             /* of the matrix */
    idx columns;             /* of the matrix, without padding */
    void *scratch;           /* the thread's */
} fm_route;

/* fm_layer, a layer's row, and the numbers of its arrays.  Places of arrays are offsets in the padded vector, -1 where the
 * layer has none; ld_in and ld_out are padded widths: row strides of what the layer reads, and of W and all its buffers. */
#include "generated/layer.h"

/* Kinds of feature blocks, in the order of kernels/feature_table.py. */
enum { FM_PLAIN, FM_PERIODIC, FM_PIECEWISE, FM_EMBEDDING, FM_KINDS };
#define FM_MAX_BLOCK_ARRAYS 4

/* A feature block: n_features features, of which each makes `size` of the first layer's inputs. */
typedef struct {
    int kind;
    idx n_features, size, frequencies;
    const idx *columns;      /* of X, (n_features,); of FM_PIECEWISE (2, n_features) */
    const idx *counts, *starts; /* (n_features,) rows of each feature in an array that has many, and the first of them */
    idx at;                  /* the first input that it makes */
    idx arrays[FM_MAX_BLOCK_ARRAYS]; /* their places in the padded vector, in the order of feature_table.py */
    idx ld[FM_MAX_BLOCK_ARRAYS];     /* their row strides */
    void *kept;              /* what its backward pass reads again, see inputs.h; NULL: nothing, or only predictions */
    void *sums;              /* FM_PIECEWISE: prefix sums of its bins */
} fm_block;

/* A piece of the parameters in both layouts: rows of `width` numbers, padded to `ld`. */
typedef struct {
    idx flat, padded, rows, width, ld;
} fm_segment;

/* A slice of the parameters whose gradient and update one member of the team does in one go:
 * rows m .. m + n_rows of a layer's W (kept small enough for L1), a whole vector of the layer, or rows of an array of a
 * feature block. */
typedef struct {
    int layer, kind;         /* kind: the number of the array, FM_W, FM_B .. or FM_OF_BLOCK */
    int segment;             /* its array's number among the segments */
    int array;               /* of a block: number of the array in the block, whose number is `layer` */
    idx head;                /* number of its W in a layer that has several */
    idx m, n_rows;
    idx offset, length;      /* in the padded vector */
    idx tile;                /* number of the slice's first tile among all; a tile: FM_TILE_ROWS rows of W, or a slice */
} fm_slice;
#define FM_OF_BLOCK (-1)

/* What goes from member to member where gradients do: each adds the sums of its rows to those of the rows before. */
typedef struct {
    const idx *starts;       /* (n_groups + 1,) the first slice of each group, which goes from member to member in one go */
    idx n_groups;
    fm_counter *turns;       /* (1 + n_groups,) whose rows come next: in loss and weight, in the gradients of each group */
    fm_counter stop;         /* 1: poll said stop, nobody waits any more */
    double loss[2], weight[2]; /* of the batch, by steps in turn: one is read while the next one's begins */
    double weight_of_chunk;
    void *lanes;             /* (n_padded - w_padded, 4): unfinished sums of a chunk's rows, see bias_gradient */
} fm_relay;

/* Everything one fit needs; owned by engine.pyx, allocated once. */
typedef struct {
    int n_layers;
    const fm_layer *layers;  /* (n_layers,) */
    fm_loss loss;
    idx input_threshold;     /* dropout of the input: of 2^24, neurons whose number falls below are dropped; 0: none */
    double input_rate;
    const fm_block *blocks;  /* (n_blocks,) between X and the first layer */
    idx n_blocks;
    idx n_columns, ld_columns; /* of X, and of `columns` */
    idx members;             /* rows of the layers' buffers for each row of X */
    int front;               /* whether there is anything between X and the first layer: blocks or a scale */
    int averages;            /* whether predictions are means over the members */
    idx n_padded, w_padded;  /* length of the padded vector; of its prefix of weights */
    double row_work;         /* multiplications of a row's forward pass */
    const fm_segment *segments; /* (n_segments,) all of the padded vector */
    idx n_segments;
    idx max_rows;            /* rows per chunk */

    int n_threads;
    fm_team *team;           /* NULL: one thread */
    const fm_slice *slices;  /* (n_slices,) in the order of the padded vector */
    idx n_slices;
    const idx *slice_start;  /* (n_threads + 1,) member t owns slices slice_start[t] .. slice_start[t + 1] */
    fm_relay *relay;         /* NULL: a member sums the gradients of its slices over the rows of all */

    fm_blas_gemm blas;       /* or NULL */
    const fm_units *units;   /* NULL: no product of this call goes to matrix units */
    int halves;              /* 2, or 1: of each number */
    void *units_scratch;     /* (n_threads, units_room) bytes */
    idx units_room;
    int (*poll)(void);       /* looks for Ctrl-C; non-zero: stop */
    int interrupted;         /* set when poll said stop; results of the call are then incomplete */
    int saw_non_finite;      /* set by predict */

    void *params;                  /* (n_padded,) weights as the kernels read them */
    void *grad;                    /* (n_padded + 2,) destroyed by every step; then loss and weight for fm_epoch.reduce */
    void *states[FM_MAX_STATES];   /* (n_padded,) each */
    double *tile_penalty;          /* (n_tiles,) penalty of the weights of each tile */
    double *tile_norm;             /* (n_tiles,) sum of squares of the gradient of each tile */
    idx n_tiles;
    void *columns;                 /* (max_rows, ld_columns) the gathered rows; NULL: without blocks they go to features */
    void *features;                /* (max_rows, ld_in) what the blocks make, or rows; NULL: they go to input */
    void *input;                   /* (max_rows * members, ld_in) what the first layer reads */
    void *input_delta;             /* (max_rows * members, ld_in) d loss / d input; NULL: nothing in front learns */
    void *features_delta;          /* (max_rows, ld_in) d loss / d features; NULL: no block learns */
    void *y;                       /* (max_rows * members, n_outputs) targets of the chunk */
    idx *y_class;                  /* (max_rows * members,) class indices of the chunk */
    void *weight;                  /* (max_rows,) sample weights of the chunk */
    void *member_weight;           /* (max_rows * members,) the shares of members in them; NULL: one member */
    double *row_loss;              /* (max_rows * members,) weighted loss of each row of the chunk */
    void *packed_rows;             /* (n_threads, n_packed_rows) what products pack of their left-hand matrix, or NULL */
    idx n_packed_rows;
    int in_panels;                 /* whether the weights of layers that have panels lie there, in the present call */
    void *scratch;                 /* (n_threads, 3, max(max_rows * members, CLASS_ROWS), n_outputs) */
    char apart[64];                /* what member 0 writes for each chunk: no line that all read */
    double work;                   /* floating-point operations since the last poll */
} fm_workspace;

/* The caller's rows.  Checked in engine.pyx: shapes, dtypes, bounds of every index.
 * Indices of a CSR matrix are checked again where they are used. */
typedef struct {
    const void *X;            /* dense values, or the values of the CSR matrix */
    int X_is_double;
    idx row_stride, col_stride; /* in elements, dense only */
    const void *indices, *indptr; /* CSR: int32 or int64; NULL when dense */
    int index_is_64;
    idx n, stored;            /* rows; CSR: entries that data and indices have room for */
    const void *y;            /* (n, n_outputs) REAL, or NULL */
    const idx *y_class;       /* (n,) class indices, or NULL */
    const void *sample_weight; /* (n,) REAL, or NULL */
} fm_data;

/* One run of training steps over an order of rows; with rule -1 a single gradient.
 * With `reduce` several processes, the ranks, take each step together: `order` then holds this rank's rows of each batch. */
typedef struct {
    const idx *order;       /* (n_order,) row indices; NULL: 0 .. n_order */
    idx n_order, batch_size, n_steps; /* n_order: rows of all ranks */
    const idx *starts;      /* (n_steps + 1,) where each batch's rows of this rank begin in `order`; NULL: all rows are here */
    const idx *places;      /* the place of each row of `order` in its batch; NULL: one after the other */
    int (*reduce)(void *context); /* replaces workspace.grad by its sums over all ranks; not 0: it failed.  NULL: one process */
    void *context;
    double alpha, l1;       /* penalties alpha / 2 ||W||^2 + l1 ||W||_1 */
    uint64_t seed, t;       /* key of the dropout masks; steps done before this epoch */
    int rule;               /* row of OPTIMIZERS; -1: leave the gradient in workspace.grad, update nothing */
    const double *scalars;  /* (n_steps, n_scalars) */
    const double *decays;   /* (n_steps,) p *= 1 - decay before the rule; or NULL */
    const double *factors;  /* (n_segments, n_scalars) of the scalars in each segment; or NULL */
    const double *decay_factors; /* (n_segments,) of the decays in each segment; or NULL */
    const double *dropouts; /* (n_steps,) of the rates of dropout; or NULL */
    double max_norm;        /* of the gradient as a whole; 0: any */
    int goes_on;            /* whether what is made of the parameters is there already, from the epoch before */
    char apart[64];         /* what member 0 writes at each step: no line that all read */
    double loss;            /* OUT: sum over steps of batch loss * rows */
    idx done;               /* OUT: steps done; fewer if interrupted or a batch's sample weights sum to zero */
} fm_epoch;

/* What one instruction set offers for one dtype. */
typedef struct {
    const char *isa;
    int lanes;
    void (*pack)(const fm_workspace *, const void *flat, void *padded);
    void (*unpack)(const fm_workspace *, const void *padded, void *flat);
    void (*predict)(fm_workspace *, const fm_data *, const idx *rows, idx n, void *out);
    void (*train)(fm_workspace *, const fm_data *, fm_epoch *);
} fm_kernels;

/* What is known of the tables of formulas.py inside the binary (the order of rows is the generated header's). */
typedef struct {
    const char *name;
    int needs_z, has_slope;   /* activations */
    int link, class_targets;  /* losses; link -1: softmax */
    int n_parameters;         /* activations, losses */
    int n_states, n_scalars;  /* optimizers */
} fm_row;

idx fm_functions(fm_row *rows, idx capacity);
idx fm_activations(fm_row *rows, idx capacity);
idx fm_losses(fm_row *rows, idx capacity);
idx fm_optimizers(fm_row *rows, idx capacity);

/* Instruction sets compiled into this binary, slowest first; fm_find returns 0 and fills both tables and the matrix units
 * (or NULL) if `isa` is compiled in and the processor has it. */
idx fm_isas(const char **names, idx capacity);
int fm_find(const char *isa, const fm_kernels **f32, const fm_kernels **f64, const fm_units **units);

/* Why this binary has no matrix units on this processor; NULL: it has some. */
const char *fm_why_no_units(void);

#endif
