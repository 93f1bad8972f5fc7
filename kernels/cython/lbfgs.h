/* L-BFGS-B without bounds: the iterates of SciPy's, to the last bit. */
#ifndef FASTMLP_LBFGS_H
#define FASTMLP_LBFGS_H

#include <stddef.h>
#include <stdint.h>

#define FM_LBFGS_PAIRS 10                          /* of steps and differences of gradients that are kept */
#define FM_LBFGS_VECTORS (2 * FM_LBFGS_PAIRS + 4)  /* of n numbers that the optimizer works in */

/* Four functions of SciPy's BLAS and LAPACK. The integers are handed over as int64, see fastmlp.h. */
typedef double (*fm_blas_dot)(const int64_t *n, const double *x, const int64_t *, const double *y, const int64_t *);
typedef double (*fm_blas_norm)(const int64_t *n, const double *x, const int64_t *);
typedef void (*fm_lapack_cholesky)(const char *uplo, const int64_t *n, double *a, const int64_t *lda, int64_t *info);
typedef void (*fm_lapack_solve)(const char *uplo, const char *trans, const char *diag, const int64_t *n,
                                const int64_t *n_rhs, const double *a, const int64_t *lda, double *b,
                                const int64_t *ldb, int64_t *info);
typedef struct {
    fm_blas_dot dot;
    fm_blas_norm norm;
    fm_lapack_cholesky cholesky; /* dpotrf */
    fm_lapack_solve solve;       /* dtrtrs */
} fm_lbfgs_blas;

/* The interval of a line search, and what its points were like. */
typedef struct {
    double step, min, max;       /* the step to try, and between which it must lie */
    double x, f, g;              /* the best point so far: its step, value and slope */
    double y, fy, gy;            /* the interval's other end */
    double f0, g0;               /* value and slope where the search began */
    double width, width_before;
    int bracketed, stage;
} fm_search;

typedef struct fm_lbfgs fm_lbfgs;

/* The loops in which most of the time goes. */
typedef struct {
    ptrdiff_t (*add_products)(ptrdiff_t n, const double *const *columns, const double *r, const double *g,
                              double *by_r, double *by_g);
    void (*step_along_pairs)(const fm_lbfgs *, const double *const *columns, const double *v);
} fm_lbfgs_loops;

/* The caller sets the first group, and everything else to 0. All matrices are stored by columns. */
struct fm_lbfgs {
    ptrdiff_t n;
    double *x, *g;         /* (n,) the point, and the gradient there */
    double *vectors;       /* (FM_LBFGS_VECTORS, n) */
    double tol;            /* enough of a largest gradient */
    double tol_value;      /* enough of a relative decrease */
    ptrdiff_t max_iter, max_evaluations;
    fm_lbfgs_blas blas;
    int has_avx2;          /* whether the processor has it, and the caller allows it */

    const fm_lbfgs_loops *loops;
    ptrdiff_t n_iter, n_evaluations;
    int n_pairs, oldest;   /* pairs in use; the column of the first of them */
    int n_updates;         /* since the pairs were last forgotten */
    int n_trials;          /* points of this line search */
    int is_evaluated;      /* whether x is the point that was evaluated last */
    double theta;          /* the matrix is theta I without pairs */
    double f, slope;       /* value and slope where the line search began */
    double length;         /* of the direction */
    fm_search search;
    double ss[FM_LBFGS_PAIRS * FM_LBFGS_PAIRS];         /* S'S, upper triangle */
    double sy[FM_LBFGS_PAIRS * FM_LBFGS_PAIRS];         /* S'Y, lower triangle */
    double upper_sy[FM_LBFGS_PAIRS * FM_LBFGS_PAIRS];   /* S'Y, upper triangle, summed in another order */
    double yy[FM_LBFGS_PAIRS * FM_LBFGS_PAIRS];         /* Y'Y, lower triangle */
    double by_gradient[2 * FM_LBFGS_PAIRS];             /* Y'(-g), then S'(-g), where an iteration begins */
    double k[4 * FM_LBFGS_PAIRS * FM_LBFGS_PAIRS];      /* factor of the matrix of the direction */
};

enum {
    FM_LBFGS_EVALUATE, /* the caller is to evaluate f and g at x */
    FM_LBFGS_GRADIENT, /* ended: no component of the gradient is larger than tol */
    FM_LBFGS_VALUE,    /* ended: the value has hardly decreased */
    FM_LBFGS_ITERATIONS,
    FM_LBFGS_EVALUATIONS,
    FM_LBFGS_ABNORMAL, /* ended: not even the steepest descent decreases the value */
};

/* Take the value at x, whose gradient is in g; return whether to evaluate at another x, or why the search has ended. */
int fm_lbfgs_advance(fm_lbfgs *s, double f);

#endif
