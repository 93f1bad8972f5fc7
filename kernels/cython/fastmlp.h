/* Types shared by the Python border (engine.pyx) and the kernels of every instruction set.
 *
 * Data flow of one training step, all on buffers of the workspace:
 *   rows --gather--> a[0] --forward--> a[L] = logits --loss--> delta[L] --backward--> grad --rule--> params
 *
 * "Padded" means: every matrix row is widened with zeros to a whole number of vectors (`lanes`), so that no loop
 * has a remainder.  Padding columns of weights, deltas and gradients stay zero through every pass; padding columns
 * of activations may hold f(0) and are never read.
 *
 * The structs hold void pointers: the same types serve float and double, and kernels cast to REAL.
 */
#ifndef FASTMLP_H
#define FASTMLP_H

#include <stddef.h>
#include <stdint.h>

typedef ptrdiff_t idx;

#define FM_MAX_STATES 4

/* gemm of the Fortran BLAS, as scipy.linalg.cython_blas exports it.  Integers are handed over as int64_t: on a
 * little-endian machine a library built with 32-bit integers reads the same (small, non-negative) numbers. */
typedef void (*fm_blas_gemm)(char *, char *, int64_t *, int64_t *, int64_t *, void *, void *, int64_t *, void *,
                             int64_t *, void *, void *, int64_t *);

typedef struct {
    idx fan_in, fan_out;   /* true widths */
    idx ld_in, ld_out;     /* padded widths: row strides of a[l], and of W, delta and a[l + 1] */
    idx w, b;              /* offsets of W (fan_in, ld_out) and b (ld_out) in the padded vector */
    idx w_flat, b_flat;    /* offsets of W (fan_in, fan_out) and b (fan_out) in the caller's flat vector */
    int activation;        /* row of ACTIVATIONS; -1 in the output layer: the loss works on logits */
} fm_layer;

/* Everything one thread needs for one chunk of rows; owned by engine.pyx, allocated once per fit. */
typedef struct {
    int n_layers;
    const fm_layer *layers;  /* (n_layers,) */
    int loss;                /* row of LOSSES */
    idx n_padded, w_padded;  /* length of the padded vector; of its prefix of weights */
    idx max_rows;            /* rows per chunk */
    fm_blas_gemm blas;       /* or NULL */
    int (*poll)(void);       /* looks for Ctrl-C; non-zero: stop */
    double work;             /* floating-point operations since the last poll */
    int interrupted;         /* set when poll said stop; results of the call are then incomplete */

    void *params;                  /* (n_padded,) weights as the kernels read them */
    void *grad;                    /* (n_padded,) destroyed by every step */
    void *states[FM_MAX_STATES];   /* (n_padded,) each */
    void **wt;                     /* per layer > 0: W transposed (fan_out, ld_in), refreshed once per step */
    void **a;                      /* n_layers + 1: (max_rows, ld); a[0] the gathered rows, a[L] the logits */
    void **z;                      /* per layer: pre-activation (max_rows, ld_out), or NULL if no slope reads it */
    void **delta;                  /* per layer: (max_rows, ld_out) */
    void *y;                       /* (max_rows, n_outputs) targets of the chunk */
    idx *y_class;                  /* (max_rows,) class indices of the chunk */
    void *weight;                  /* (max_rows,) sample weights of the chunk */
    void *scratch;                 /* (3, max_rows, n_outputs) */
} fm_workspace;

/* The caller's rows.  Checked at the border: shapes, dtypes, bounds of every index. */
typedef struct {
    const void *X;            /* dense values, or the values of the CSR matrix */
    int X_is_double;
    idx row_stride, col_stride; /* in elements, dense only */
    const void *indices, *indptr; /* CSR: int32 or int64; NULL when dense */
    int index_is_64;
    const void *y;            /* (n, n_outputs) REAL, or NULL */
    const idx *y_class;       /* (n,) class indices, or NULL */
    const void *sample_weight; /* (n,) REAL, or NULL */
} fm_data;

/* One run of training steps over an order of rows. */
typedef struct {
    const idx *order;       /* (n_order,) row indices */
    idx n_order, batch_size;
    double alpha;
    int rule;               /* row of OPTIMIZERS */
    const double *scalars;  /* (n_steps, n_scalars) */
    double loss;            /* OUT: accumulated batch loss * rows */
} fm_epoch;

/* What one instruction set offers for one dtype. */
typedef struct {
    const char *isa;
    int lanes;
    /* coarse */
    void (*pack)(const fm_workspace *, const void *flat, void *padded);
    void (*unpack)(const fm_workspace *, const void *padded, void *flat);
    void (*predict)(fm_workspace *, const fm_data *, const idx *rows, idx n, void *out);
    idx (*steps)(fm_workspace *, const fm_data *, fm_epoch *, idx n_steps);
    double (*accumulate)(fm_workspace *, const fm_data *, const idx *rows, idx n, double *weight);
    double (*finish_gradient)(fm_workspace *, double alpha, double weight);
    void (*transpose)(fm_workspace *);
    /* by name */
    void (*activate)(int activation, idx n, const void *z, void *a);
    void (*slope)(int activation, idx n, const void *z, const void *a, void *delta);
    void (*linear_forward)(idx rows, idx fan_in, idx ld_in, idx ld_out, const void *x, const void *w, const void *b,
                           int activation, void *z, void *a, fm_blas_gemm blas);
    void (*linear_backward)(idx rows, idx fan_in, idx fan_out, idx ld_in, idx ld_out, const void *x, const void *wt,
                            const void *delta, void *grad_w, void *grad_b, int accumulate, fm_blas_gemm blas,
                            int activation, const void *z, void *delta_below);
    void (*softmax)(idx rows, idx n, idx ld, const void *z, void *out);
    double (*loss)(int loss, idx rows, idx n, idx ld, const void *z, const void *y, const idx *y_class,
                   const void *weight, void *delta, void *scratch);
    void (*update)(int rule, idx n, void *p, const void *g, void *const *states, const double *scalars, double alpha,
                   double scale);
} fm_kernels;

/* What is known of the tables of formulas.py inside the binary (the order of rows is the generated header's). */
typedef struct {
    const char *name;
    int needs_z, has_slope;   /* activations */
    int link, class_targets;  /* losses */
    int n_states, n_scalars;  /* optimizers */
} fm_row;

idx fm_activations(fm_row *rows, idx capacity);
idx fm_losses(fm_row *rows, idx capacity);
idx fm_optimizers(fm_row *rows, idx capacity);

/* Instruction sets compiled into this binary, slowest first; fm_find returns 0 and fills both tables if `isa` is
 * compiled in and the processor has it. */
idx fm_isas(const char **names, idx capacity);
int fm_find(const char *isa, const fm_kernels **f32, const fm_kernels **f64);

#endif
