/* All kernels of one dtype, in reading order; a template over REAL (see kernels.h). */

typedef struct {
    const char *name;
    void (*evaluate)(idx n, const REAL *x, REAL *out, const double *unused);
} FN(function);

typedef struct {
    const char *name;
    void (*value)(idx n, const REAL *z, REAL *a, const double *parameters);
    void (*backward)(idx n, const REAL *z, const REAL *a, REAL *delta, const double *parameters); /* delta *= f'(z) */
    void (*forward)(idx n, REAL *z, REAL *a, const double *parameters); /* a = f(z), then z = f'(z); NULL: a suffices */
    /* a = z + (f(z) - z) mix, then product = f(z) - z and z = 1 + (f'(z) - 1) mix */
    void (*mixed)(idx n, REAL *z, REAL *a, REAL *product, const REAL *mix, const double *parameters);
    int needs_z, n_parameters;
} FN(activation);

/* The terms of n outputs of softmax rows: y their targets, p their probabilities, q = 1 - p. */
typedef void FN(terms)(idx n, idx n_outputs, const REAL *y, const REAL *log_p, const REAL *p, const REAL *q, REAL *out,
                       const double *parameters);

typedef struct {
    const char *name;
    void (*value)(idx n, const REAL *y, const REAL *z, REAL *out, const double *parameters);
    void (*delta)(idx n, const REAL *y, const REAL *z, REAL *out, const double *parameters); /* NULL: link(z) - y */
    FN(terms) *term_value, *term_slope; /* instead of value and delta; the slope in log p */
    int link;
    int mean_over_outputs, class_targets, reads_p, n_parameters; /* reads_p: a term reads p or q */
} FN(loss_row);

typedef struct {
    const char *name;
    void (*rule)(idx n, REAL *p, const REAL *g, void *const *states, const double *scalars, REAL alpha, REAL l1,
                 REAL scale, REAL keep);
    int n_states, n_scalars;
} FN(optimizer);

/* Two vectors interleaved: the lower halves, and the upper halves. */
#ifdef HAS_SHUFFLE
#ifdef REAL_IS_DOUBLE
#define LANE_COUNT (VBYTES / 8)
#else
#define LANE_COUNT (VBYTES / 4)
#endif
#if LANE_COUNT == 16
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif LANE_COUNT == 8
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif LANE_COUNT == 4
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#elif LANE_COUNT == 2
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 2)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#endif
#endif

#include "vmath.h"
#include "generated/formulas.h"
#include "program.h"
#include "dropout.h"
#include "gemm.h"
#include "products.h"
#include "stages.h"
#include "layers.h"
#include "inputs.h"
#include "network.h"
