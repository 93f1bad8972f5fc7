/* All kernels of one dtype, in reading order; a template over REAL (see kernels.h). */

typedef struct {
    const char *name;
    void (*evaluate)(idx n, const REAL *x, REAL *out);
} FN(function);

typedef struct {
    const char *name;
    void (*value)(idx n, const REAL *z, REAL *a);
    void (*backward)(idx n, const REAL *z, const REAL *a, REAL *delta); /* delta *= f'(z) */
    int needs_z;
} FN(activation);

typedef struct {
    const char *name;
    void (*value)(idx n, const REAL *y, const REAL *z, REAL *out); /* NULL: softmax and classes */
    int link;
    int mean_over_outputs;
} FN(loss_row);

typedef struct {
    const char *name;
    void (*rule)(idx n, REAL *p, const REAL *g, void *const *states, const double *scalars, REAL alpha, REAL scale);
    int n_states, n_scalars;
} FN(optimizer);

#include "vmath.h"
#include "generated/formulas.h"
#include "gemm.h"
#include "layers.h"
#include "network.h"

#undef VEC
#undef LOAD
#undef STORE
