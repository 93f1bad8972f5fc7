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
    int needs_z, n_parameters;
} FN(activation);

/* What a loss that is no formula is given: see FN(loss) in layers.h. */
#define LOSS_ROWS_ARGUMENTS                                                                                           \
    idx rows, idx n, idx ld, const REAL *z, const REAL *y, const idx *y_class, const REAL *weight, REAL *delta,      \
        double *row_loss, REAL *scratch, const double *parameters


typedef struct {
    const char *name;
    void (*value)(idx n, const REAL *y, const REAL *z, REAL *out, const double *parameters);
    void (*delta)(idx n, const REAL *y, const REAL *z, REAL *out, const double *parameters); /* NULL: link(z) - y */
    void (*by_rows)(LOSS_ROWS_ARGUMENTS); /* instead of value and delta */
    int link;
    int mean_over_outputs, class_targets, n_parameters;
} FN(loss_row);

typedef struct {
    const char *name;
    void (*rule)(idx n, REAL *p, const REAL *g, void *const *states, const double *scalars, REAL alpha, REAL l1,
                 REAL scale, REAL keep);
    int n_states, n_scalars;
} FN(optimizer);

#include "vmath.h"
#include "generated/formulas.h"
#include "program.h"
#include "dropout.h"
#include "gemm.h"
#include "layers.h"
#include "network.h"

#undef LOSS_ROWS_ARGUMENTS
#undef VEC
#undef LOAD
#undef STORE
