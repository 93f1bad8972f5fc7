/* What remains of L-BFGS-B 3.0 (Byrd, Lu, Nocedal & Zhu 1995; Morales & Nocedal 2011) without bounds, with the line
 * search of Moré & Thuente (1994), in the order of operations of SciPy's C; LICENSE names their authors.
 *
 * With pairs s = x' - x and y = g' - g in the columns of S and Y, the matrix is B = theta I - W M W', W = [Y theta S],
 * and the direction is
 *
 *     d = -B^-1 g = (r + W K^-1 W' r / theta) / theta,   r = -g,   K = [ -D - Y'Y/theta   -R' ]
 *                                                                      [ -R                 0 ]
 *
 * where D and R are the diagonal and the upper triangle of S'Y.  Loops over n numbers never split a sum: SciPy adds from
 * the first number to the last, so several sums are added side by side here. */
#include "lbfgs.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define M FM_LBFGS_PAIRS
#define M2 (2 * FM_LBFGS_PAIRS)
#define MAX_TRIALS 20 /* points of a line search */
#define MAX_STEP 1e10
#define SAME_POINT -1
#define BLOCK 64 /* numbers that a loop over the columns works at a time, in L1 */

static double *column(const fm_lbfgs *s, int k) { return s->vectors + k * s->n; }
static double *step_of(const fm_lbfgs *s, int pair) { return column(s, (s->oldest + pair) % M); }
static double *change_of(const fm_lbfgs *s, int pair) { return column(s, M + (s->oldest + pair) % M); }
static double *direction(const fm_lbfgs *s) { return column(s, M2); }
static double *gradient_before(const fm_lbfgs *s) { return column(s, M2 + 1); }
static double *point_before(const fm_lbfgs *s) { return column(s, M2 + 2); }
static double *full_step(const fm_lbfgs *s) { return column(s, M2 + 3); } /* x + d as it was rounded first */

/* An integer whose first four bytes, or all eight, are n. */
static int64_t blas_int(ptrdiff_t n)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (int64_t)n << 32;
#else
    return n;
#endif
}

static double dot(const fm_lbfgs *s, ptrdiff_t n, const double *a, const double *b)
{
    const int64_t size = blas_int(n), one = blas_int(1);
    return s->blas.dot(&size, a, &one, b, &one);
}

static double norm(const fm_lbfgs *s, const double *a)
{
    const int64_t size = blas_int(s->n), one = blas_int(1);
    return s->blas.norm(&size, a, &one);
}

/* Return whether a (n, n), of which the upper triangle is given, is positive definite; it becomes its factor U. */
static int cholesky(const fm_lbfgs *s, int n, double *a, int lda)
{
    const int64_t size = blas_int(n), ld = blas_int(lda);
    int64_t info = 0;
    s->blas.cholesky("U", &size, a, &ld, &info);
    return info == 0;
}

/* Solve U x = b or, with trans "T", U'x = b for n_rhs columns b (n, n_rhs); return whether that is possible. */
static int solve(const fm_lbfgs *s, const char *trans, int n, int n_rhs, const double *u, double *b)
{
    const int64_t size = blas_int(n), columns = blas_int(n_rhs), ld = blas_int(M2);
    int64_t info = 0;
    s->blas.solve("U", trans, "N", &size, &columns, u, &ld, b, &ld, &info);
    return info == 0;
}

#define SIDE_BY_SIDE 8 /* columns */

/* by_r[j] = columns[j]'r and by_g[j] = columns[j]'(-g), for numbers from..n on top of what is there. */
static void add_products(ptrdiff_t from, ptrdiff_t n, const double *const *columns, const double *r, const double *g,
                         double *by_r, double *by_g)
{
    for (ptrdiff_t i = from; i < n; i++)
        for (int j = 0; j < SIDE_BY_SIDE; j++) {
            by_r[j] += columns[j][i] * r[i];
            by_g[j] -= columns[j][i] * g[i];
        }
}

#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline))
typedef double pair __attribute__((vector_size(16)));
typedef double unaligned_pair __attribute__((vector_size(16), aligned(8)));
#define PAIR(p) (*(const unaligned_pair *)(p))

/* The same from 0 to the largest even number up to n, which is returned: two numbers at a time, the sums of two columns
 * in a vector.  A processor waits for each addition of a sum, so there must be several. */
static ptrdiff_t add_products_by_two(ptrdiff_t n, const double *const *columns, const double *r, const double *g,
                                     double *by_r, double *by_g)
{
    const double *c[SIDE_BY_SIDE];
    pair sum_r[SIDE_BY_SIDE / 2] = {{0}}, sum_g[SIDE_BY_SIDE / 2] = {{0}};
    memcpy(c, columns, sizeof c);
    for (ptrdiff_t i = 0; i + 1 < n; i += 2)
        for (int j = 0; j < SIDE_BY_SIDE / 2; j++) {
            const pair a = PAIR(c[2 * j] + i), b = PAIR(c[2 * j + 1] + i);
            const pair rows[2] = {{a[0], b[0]}, {a[1], b[1]}};
            for (int k = 0; k < 2; k++) {
                sum_r[j] += rows[k] * r[i + k];
                sum_g[j] -= rows[k] * g[i + k];
            }
        }
    memcpy(by_r, sum_r, sizeof sum_r);
    memcpy(by_g, sum_g, sizeof sum_g);
    return n - n % 2;
}
#else
#define INLINE static
static ptrdiff_t add_products_by_two(ptrdiff_t n, const double *const *columns, const double *r, const double *g,
                                     double *by_r, double *by_g)
{
    return 0;
}
#endif

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define AVX2 __attribute__((target("avx2"))) /* and not "fma", which would join products and sums */
typedef double quad __attribute__((vector_size(32)));
typedef double unaligned_quad __attribute__((vector_size(32), aligned(8)));
#define QUAD(p) (*(const unaligned_quad *)(p))
#ifdef __clang__
#define CHOOSE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int64_t places __attribute__((vector_size(32)));
#define CHOOSE(a, b, i, j, k, l) __builtin_shuffle(a, b, (places){i, j, k, l})
#endif

/* The same for multiples of four: four numbers at a time, the sums of four columns in a vector. */
AVX2 static ptrdiff_t add_products_by_four(ptrdiff_t n, const double *const *columns, const double *r, const double *g,
                                           double *by_r, double *by_g)
{
    const double *c[SIDE_BY_SIDE];
    quad sum_r[SIDE_BY_SIDE / 4] = {{0}}, sum_g[SIDE_BY_SIDE / 4] = {{0}};
    memcpy(c, columns, sizeof c);
    for (ptrdiff_t i = 0; i + 3 < n; i += 4)
        for (int j = 0; j < SIDE_BY_SIDE / 4; j++) {
            const quad a = QUAD(c[4 * j] + i), b = QUAD(c[4 * j + 1] + i);
            const quad d = QUAD(c[4 * j + 2] + i), e = QUAD(c[4 * j + 3] + i);
            const quad ab02 = CHOOSE(a, b, 0, 4, 2, 6), ab13 = CHOOSE(a, b, 1, 5, 3, 7);
            const quad de02 = CHOOSE(d, e, 0, 4, 2, 6), de13 = CHOOSE(d, e, 1, 5, 3, 7);
            const quad rows[4] = {CHOOSE(ab02, de02, 0, 1, 4, 5), CHOOSE(ab13, de13, 0, 1, 4, 5),
                                  CHOOSE(ab02, de02, 2, 3, 6, 7), CHOOSE(ab13, de13, 2, 3, 6, 7)};
            for (int k = 0; k < 4; k++) {
                sum_r[j] += rows[k] * r[i + k];
                sum_g[j] -= rows[k] * g[i + k];
            }
        }
    memcpy(by_r, sum_r, sizeof sum_r);
    memcpy(by_g, sum_g, sizeof sum_g);
    return n - n % 4;
}
#endif

/* The products of all pairs, Y first, with r and with -g, into s->by_gradient; and, where by_step is given, with the
 * step d.  Each column comes from memory once: SIDE_BY_SIDE columns stay in cache for their products. */
static void products(fm_lbfgs *s, const double *r, double *by_r, const double *d, double *by_step)
{
    const double *columns[M2 + SIDE_BY_SIDE];
    double of_r[M2 + SIDE_BY_SIDE] = {0}, of_g[M2 + SIDE_BY_SIDE] = {0};
    const int n = s->n_pairs;
    for (int j = 0; j < n; j++)
        columns[j] = change_of(s, j), columns[n + j] = step_of(s, j);
    for (int j = 2 * n; j < 2 * n + SIDE_BY_SIDE - 1; j++)
        columns[j] = r; /* the last group may be incomplete */
    for (int j = 0; j < 2 * n; j += SIDE_BY_SIDE) {
        for (int k = j; by_step && k < j + SIDE_BY_SIDE && k < 2 * n; k++)
            by_step[k] = dot(s, s->n, d, columns[k]);
        const ptrdiff_t done = s->loops->add_products(s->n, columns + j, r, s->g, of_r + j, of_g + j);
        add_products(done, s->n, columns + j, r, s->g, of_r + j, of_g + j);
    }
    memcpy(by_r, of_r, 2 * n * sizeof(double));
    memcpy(s->by_gradient, of_g, 2 * n * sizeof(double));
}

/* The largest |g_i|, or NaN. */
static double largest(const double *g, ptrdiff_t n)
{
    double most = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        if (!(fabs(g[i]) <= most)) {
            if (g[i] != g[i])
                return g[i];
            most = fabs(g[i]);
        }
    return most;
}

/* --- the matrix --------------------------------------------------------------------------------------------------- */

static void forget(fm_lbfgs *s)
{
    s->n_pairs = s->oldest = s->n_updates = 0;
    s->theta = 1;
}

/* a[i, j] = a[i + 1, j + 1] */
static void move_up(double *a)
{
    memmove(a, a + M + 1, (M * M - M - 1) * sizeof(double));
}

/* Take the latest step and change of the gradient as a pair, in place of the oldest if there are too many. */
static void keep_pair(fm_lbfgs *s, double rr, double dr, double dd)
{
    const double *d = direction(s), *r = gradient_before(s);
    if (++s->n_updates <= M) {
        s->n_pairs = s->n_updates;
    } else {
        s->oldest = (s->oldest + 1) % M;
        move_up(s->ss), move_up(s->sy), move_up(s->upper_sy), move_up(s->yy);
    }
    const int last = s->n_pairs - 1;
    memcpy(step_of(s, last), d, s->n * sizeof(double));
    memcpy(change_of(s, last), r, s->n * sizeof(double));
    s->theta = rr / dr;
    double by_change[M2], by_step[M2];
    products(s, r, by_change, d, by_step);
    const double *y_y = by_change, *s_y = by_change + s->n_pairs, *y_s = by_step, *s_s = by_step + s->n_pairs;
    for (int j = 0; j <= last; j++) {
        s->sy[last + M * j] = j < last ? y_s[j] : dr;
        s->ss[j + M * last] = j < last ? s_s[j] : dd;
        s->yy[last + M * j] = y_y[j];
        s->upper_sy[j + M * last] = s_y[j];
    }
}

/* Return whether T = theta S'S + L D^-1 L' is positive definite, L being the strict lower triangle of S'Y. */
static int is_definite(const fm_lbfgs *s)
{
    double t[M * M];
    const int n = s->n_pairs;
    for (int j = 0; j < n; j++)
        t[M * j] = s->theta * s->ss[M * j];
    for (int i = 1; i < n; i++)
        for (int j = i; j < n; j++) {
            double sum = 0;
            for (int k = 0; k < i; k++)
                sum += s->sy[i + M * k] * s->sy[j + M * k] / s->sy[k + M * k];
            t[i + M * j] = sum + s->theta * s->ss[i + M * j];
        }
    return cholesky(s, n, t, M);
}

/* Factor K = L E L', E = diag(-I, I); return whether that is possible. */
static int factor(fm_lbfgs *s)
{
    const int n = s->n_pairs;
    double *k = s->k;
    for (int j = 0; j < n; j++) {
        for (int i = 0; i <= j; i++) {
            k[i + M2 * j] = s->yy[j + M * i] / s->theta;
            k[n + i + M2 * (n + j)] = 0.0 * s->theta; /* NaN if it is not finite */
        }
        for (int i = 0; i < j; i++)
            k[i + M2 * (n + j)] = -0.0;
        for (int i = j; i < n; i++)
            k[i + M2 * (n + j)] = s->upper_sy[j + M * i];
        k[j + M2 * j] += s->sy[j + M * j];
    }
    if (!cholesky(s, n, k, M2) || !solve(s, "T", n, n, k, k + M2 * n))
        return 0;
    for (int i = n; i < 2 * n; i++)
        for (int j = i; j < 2 * n; j++)
            k[i + M2 * j] += dot(s, n, k + M2 * i, k + M2 * j);
    return cholesky(s, n, k + n + M2 * n, M2);
}

/* Update the matrix by the step that the line search took; return whether it is usable. */
static int update(fm_lbfgs *s, double slope)
{
    double *d = direction(s), *r = gradient_before(s);
    const double step = s->search.step;
    for (ptrdiff_t i = 0; i < s->n; i++)
        r[i] = s->g[i] - r[i];
    const double length = norm(s, r);
    double dr = slope - s->slope, least = -s->slope, dd = s->length * s->length;
    if (step != 1) {
        dr *= step;
        least *= step;
        dd *= step * step;
        for (ptrdiff_t i = 0; i < s->n; i++)
            d[i] *= step;
    }
    if (dr <= DBL_EPSILON * least) { /* no curvature to learn from */
        double by_change[M2];
        products(s, r, by_change, NULL, NULL);
        return 1;
    }
    keep_pair(s, length * length, dr, dd);
    return is_definite(s) && factor(s);
}

/* --- the direction ------------------------------------------------------------------------------------------------- */

/* z = x - g, d = z - x */
static void descend(const fm_lbfgs *s)
{
    double *d = direction(s), *z = full_step(s);
    double slope = 0;
    for (ptrdiff_t i = 0; i < s->n; i++)
        slope -= s->g[i] * s->g[i];
    const double step = -slope / -slope; /* 1, or NaN if the gradient is too large or too small to be squared */
    for (ptrdiff_t i = 0; i < s->n; i++) {
        z[i] = s->x[i] + step * -s->g[i];
        d[i] = z[i] - s->x[i];
    }
}

/* z = x + (-g + Y v / theta + S v') / theta, d = z - x; columns are those of Y, then S, and v holds v, then v'. */
INLINE void step_along_pairs(const fm_lbfgs *s, const double *const *columns, const double *v)
{
    double *d = direction(s), *z = full_step(s), rows[BLOCK];
    const int n = s->n_pairs;
    const double theta = s->theta, inv_theta = 1 / theta;
    for (ptrdiff_t from = 0; from < s->n; from += BLOCK) {
        const ptrdiff_t size = s->n - from < BLOCK ? s->n - from : BLOCK;
        for (ptrdiff_t i = 0; i < size; i++)
            rows[i] = -s->g[from + i];
        for (int j = 0; j < n; j++) {
            const double *change = columns[j] + from, *step = columns[n + j] + from;
            const double by_change = v[j], by_step = v[n + j];
            for (ptrdiff_t i = 0; i < size; i++)
                rows[i] = rows[i] + change[i] * by_change / theta + step[i] * by_step;
        }
        for (ptrdiff_t i = 0; i < size; i++) {
            z[from + i] = s->x[from + i] + rows[i] * inv_theta;
            d[from + i] = z[from + i] - s->x[from + i];
        }
    }
}

static void step_along_pairs_by_two(const fm_lbfgs *s, const double *const *columns, const double *v)
{
    step_along_pairs(s, columns, v);
}

static const fm_lbfgs_loops BY_TWO = {add_products_by_two, step_along_pairs_by_two};

#ifdef AVX2
AVX2 static void step_along_pairs_by_four(const fm_lbfgs *s, const double *const *columns, const double *v)
{
    step_along_pairs(s, columns, v);
}

static const fm_lbfgs_loops BY_FOUR = {add_products_by_four, step_along_pairs_by_four};
#else
#define BY_FOUR BY_TWO
#endif

/* z = x - B^-1 g, d = z - x; return whether K can be solved for. */
static int descend_by_pairs(const fm_lbfgs *s)
{
    const int n = s->n_pairs;
    double v[M2];
    for (int j = 0; j < n; j++) {
        v[j] = s->by_gradient[j];
        v[n + j] = s->theta * s->by_gradient[n + j];
    }
    if (!solve(s, "T", 2 * n, 1, s->k, v))
        return 0;
    for (int j = 0; j < n; j++)
        v[j] = -v[j];
    if (!solve(s, "N", 2 * n, 1, s->k, v))
        return 0;
    const double *columns[M2];
    for (int j = 0; j < n; j++)
        columns[j] = change_of(s, j), columns[n + j] = step_of(s, j);
    s->loops->step_along_pairs(s, columns, v);
    return 1;
}

/* --- the line search ------------------------------------------------------------------------------------------------ */

/* Set q->step by interpolation between the points that are known, and the interval; f and g are those at q->step
 * (dcstep of MINPACK-2). */
static void interpolate(fm_search *q, double *fx, double *gx, double *fy, double *gy, double f, double g)
{
    const double step = q->step, sign = g * (*gx / fabs(*gx));
    double next;
    if (f > *fx) { /* a higher value: the minimum is bracketed */
        const double theta = 3.0 * (*fx - f) / (step - q->x) + *gx + g;
        const double s = fmax(fabs(theta), fmax(fabs(*gx), fabs(g)));
        double gamma = s * sqrt((theta / s) * (theta / s) - (*gx / s) * (g / s));
        if (step < q->x)
            gamma = -gamma;
        const double r = ((gamma - *gx) + theta) / (((gamma - *gx) + gamma) + g);
        const double cubic = q->x + r * (step - q->x);
        const double quadratic = q->x + ((*gx / ((*fx - f) / (step - q->x) + *gx)) / 2.0) * (step - q->x);
        next = fabs(cubic - q->x) < fabs(quadratic - q->x) ? cubic : cubic + (quadratic - cubic) / 2.0;
        q->bracketed = 1;
    } else if (sign < 0) { /* a slope of the other sign: bracketed, too */
        const double theta = 3.0 * (*fx - f) / (step - q->x) + *gx + g;
        const double s = fmax(fabs(theta), fmax(fabs(*gx), fabs(g)));
        double gamma = s * sqrt((theta / s) * (theta / s) - (*gx / s) * (g / s));
        if (step > q->x)
            gamma = -gamma;
        const double r = ((gamma - g) + theta) / (((gamma - g) + gamma) + *gx);
        const double cubic = step + r * (q->x - step);
        const double quadratic = step + (g / (g - *gx)) * (q->x - step);
        next = fabs(cubic - step) > fabs(quadratic - step) ? cubic : quadratic;
        q->bracketed = 1;
    } else if (fabs(g) < fabs(*gx)) { /* a smaller slope: the cubic may have no minimum beyond the step */
        const double theta = 3.0 * (*fx - f) / (step - q->x) + *gx + g;
        const double s = fmax(fabs(theta), fmax(fabs(*gx), fabs(g)));
        double gamma = s * sqrt(fmax(0.0, (theta / s) * (theta / s) - (*gx / s) * (g / s)));
        if (step > q->x)
            gamma = -gamma;
        const double r = ((gamma - g) + theta) / ((gamma + (*gx - g)) + gamma);
        const double cubic = r < 0 && gamma != 0 ? step + r * (q->x - step) : step > q->x ? q->max : q->min;
        const double quadratic = step + (g / (g - *gx)) * (q->x - step);
        if (q->bracketed) {
            next = fabs(cubic - step) < fabs(quadratic - step) ? cubic : quadratic;
            const double most = step + 0.66 * (q->y - step);
            next = step > q->x ? fmin(most, next) : fmax(most, next);
        } else {
            next = fabs(cubic - step) > fabs(quadratic - step) ? cubic : quadratic;
            next = fmax(q->min, fmin(q->max, next));
        }
    } else if (q->bracketed) {
        const double theta = 3.0 * (f - *fy) / (q->y - step) + *gy + g;
        const double s = fmax(fabs(theta), fmax(fabs(*gy), fabs(g)));
        double gamma = s * sqrt((theta / s) * (theta / s) - (*gy / s) * (g / s));
        if (step > q->y)
            gamma = -gamma;
        const double r = ((gamma - g) + theta) / (((gamma - g) + gamma) + *gy);
        next = step + r * (q->y - step);
    } else {
        next = step > q->x ? q->max : q->min;
    }
    if (f > *fx) {
        q->y = step, *fy = f, *gy = g;
    } else {
        if (sign < 0)
            q->y = q->x, *fy = *fx, *gy = *gx;
        q->x = step, *fx = f, *gx = g;
    }
    q->step = next;
}

static void begin_search(fm_search *q, double step, double f, double g)
{
    *q = (fm_search){.step = step, .max = step + 4 * step, .f = f, .g = g, .fy = f, .gy = g, .f0 = f, .g0 = g,
                     .width = MAX_STEP, .width_before = MAX_STEP / 0.5, .stage = 1};
}

/* Return whether q->step, where value and slope are f and g, ends the search; else set another step (dcsrch). */
static int search(fm_search *q, double f, double g)
{
    const double enough = 1e-3, curvature = 0.9, narrow = 0.1; /* ftol, gtol, xtol */
    const double slope = enough * q->g0, limit = q->f0 + q->step * slope;
    if (q->stage == 1 && f <= limit && g >= 0)
        q->stage = 2;
    if ((q->bracketed && (q->step <= q->min || q->step >= q->max)) || /* rounding errors */
        (q->bracketed && q->max - q->min <= narrow * q->max) ||
        (q->step == MAX_STEP && f <= limit && g <= slope) || (q->step == 0 && (f > limit || g >= slope)) ||
        (f <= limit && fabs(g) <= curvature * -q->g0))
        return 1;
    if (q->stage == 1 && f <= q->f && f > limit) { /* on the function less its line of decrease */
        double fx = q->f - q->x * slope, fy = q->fy - q->y * slope, gx = q->g - slope, gy = q->gy - slope;
        interpolate(q, &fx, &gx, &fy, &gy, f - q->step * slope, g - slope);
        q->f = fx + q->x * slope, q->fy = fy + q->y * slope, q->g = gx + slope, q->gy = gy + slope;
    } else {
        interpolate(q, &q->f, &q->g, &q->fy, &q->gy, f, g);
    }
    if (q->bracketed) {
        if (fabs(q->y - q->x) >= 0.66 * q->width_before)
            q->step = q->x + 0.5 * (q->y - q->x);
        q->width_before = q->width;
        q->width = fabs(q->y - q->x);
        q->min = fmin(q->x, q->y);
        q->max = fmax(q->x, q->y);
    } else {
        q->min = q->step + 1.1 * (q->step - q->x);
        q->max = q->step + 4.0 * (q->step - q->x);
    }
    q->step = fmin(fmax(q->step, 0), MAX_STEP);
    if (q->bracketed && (q->step <= q->min || q->step >= q->max || q->max - q->min <= narrow * q->max))
        q->step = q->x;
    return 0;
}

/* --- iterations ----------------------------------------------------------------------------------------------------- */

/* Set x to the point of the next trial; return whether to evaluate there. */
static int next_point(fm_lbfgs *s)
{
    const double *d = direction(s), *before = point_before(s), *full = full_step(s);
    const double step = s->search.step;
    int moves = !s->is_evaluated;
    s->n_trials++;
    for (ptrdiff_t i = 0; i < s->n; i++) {
        const double x = step == 1 ? full[i] : step * d[i] + before[i];
        moves |= x != s->x[i];
        s->x[i] = x;
    }
    s->is_evaluated = 1;
    return moves ? FM_LBFGS_EVALUATE : SAME_POINT;
}

/* Begin an iteration at x, where the value is f: find a direction, and the first point to try. */
static int begin_iteration(fm_lbfgs *s, double f)
{
    for (;;) {
        if (s->n_pairs == 0)
            descend(s);
        else if (!descend_by_pairs(s)) {
            forget(s);
            continue;
        }
        s->length = norm(s, direction(s));
        s->f = f;
        memcpy(point_before(s), s->x, s->n * sizeof(double));
        memcpy(gradient_before(s), s->g, s->n * sizeof(double));
        s->slope = dot(s, s->n, s->g, direction(s));
        if (!(s->slope >= 0)) {
            begin_search(&s->search, s->n_iter == 0 ? fmin(1 / s->length, MAX_STEP) : 1, f, s->slope);
            s->n_trials = 0;
            return next_point(s);
        }
        if (s->n_pairs == 0)
            return FM_LBFGS_ABNORMAL;
        forget(s);
    }
}

/* Go back to where the line search began; begin it again without pairs, if there were any. */
static int give_up_search(fm_lbfgs *s)
{
    s->is_evaluated = memcmp(s->x, point_before(s), s->n * sizeof(double)) == 0;
    memcpy(s->x, point_before(s), s->n * sizeof(double));
    memcpy(s->g, gradient_before(s), s->n * sizeof(double));
    if (s->n_pairs == 0)
        return FM_LBFGS_ABNORMAL;
    forget(s);
    return begin_iteration(s, s->f);
}

/* The value at x is f. Go on with the line search, or end it and begin the next iteration. */
static int go_on(fm_lbfgs *s, double f)
{
    const double slope = dot(s, s->n, s->g, direction(s));
    if (!search(&s->search, f, slope))
        return s->n_trials == MAX_TRIALS ? give_up_search(s) : next_point(s);
    if (++s->n_iter >= s->max_iter)
        return FM_LBFGS_ITERATIONS;
    if (s->n_evaluations > s->max_evaluations)
        return FM_LBFGS_EVALUATIONS;
    if (largest(s->g, s->n) <= s->tol)
        return FM_LBFGS_GRADIENT;
    if (s->f - f <= s->tol_value * fmax(fmax(fabs(s->f), fabs(f)), 1))
        return FM_LBFGS_VALUE;
    if (!update(s, slope))
        forget(s);
    return begin_iteration(s, f);
}

int fm_lbfgs_advance(fm_lbfgs *s, double f)
{
    int next = SAME_POINT;
    if (++s->n_evaluations == 1) {
        s->loops = s->has_avx2 ? &BY_FOUR : &BY_TWO;
        forget(s);
        s->is_evaluated = 1;
        next = largest(s->g, s->n) <= s->tol ? FM_LBFGS_GRADIENT : begin_iteration(s, f);
    }
    while (next == SAME_POINT) /* a step too short to change x: SciPy evaluates no point twice in a row */
        next = go_on(s, f);
    return next;
}
