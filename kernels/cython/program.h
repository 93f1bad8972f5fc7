/* Users' formulas: a program of vector operations, run block by block on registers in L1; a template over REAL.
 *
 * kernels/program.py compiles a formula into fm_instructions and numbers the operations; engine.pyx checks every
 * instruction.  An operand below zero is a constant.  As everywhere, a comparison with NaN is false.
 */

enum {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_NEG,
    OP_FUNCTIONS, /* the functions of the language, in their order */
    OP_SELECT_LT = OP_FUNCTIONS + sizeof(FN(FUNCTIONS)) / sizeof(FN(FUNCTIONS)[0]), /* a if c < d else b */
    OP_SELECT_LE,
    OP_SELECT_EQ,
    OP_SELECT_NE
};

#define PROGRAM_BLOCK 256 /* numbers per register */

#define BINARY(NAME, OP)                                                                                              \
    static void FN(NAME)(idx n, const REAL *a, REAL ca, const REAL *b, REAL cb, REAL *out)                           \
    {                                                                                                                 \
        if (a && b) {                                                                                                 \
            IVDEP                                                                                                     \
            for (idx i = 0; i < n; i++)                                                                               \
                out[i] = a[i] OP b[i];                                                                                \
        } else if (a) {                                                                                               \
            IVDEP                                                                                                     \
            for (idx i = 0; i < n; i++)                                                                               \
                out[i] = a[i] OP cb;                                                                                  \
        } else if (b) {                                                                                               \
            IVDEP                                                                                                     \
            for (idx i = 0; i < n; i++)                                                                               \
                out[i] = ca OP b[i];                                                                                  \
        } else {                                                                                                      \
            for (idx i = 0; i < n; i++)                                                                               \
                out[i] = ca OP cb;                                                                                    \
        }                                                                                                             \
    }
BINARY(program_add, +)
BINARY(program_sub, -)
BINARY(program_mul, *)
BINARY(program_div, /)
#undef BINARY

#define SELECT(NAME, OP)                                                                                              \
    static void FN(NAME)(idx n, const REAL *c, const REAL *d, const REAL *a, const REAL *b, REAL *out)               \
    {                                                                                                                 \
        IVDEP                                                                                                         \
        for (idx i = 0; i < n; i++)                                                                                   \
            out[i] = c[i] OP d[i] ? a[i] : b[i];                                                                      \
    }
SELECT(program_select_lt, <)
SELECT(program_select_le, <=)
SELECT(program_select_eq, ==)
SELECT(program_select_ne, !=)
#undef SELECT

typedef REAL FN(registers)[FM_MAX_REGISTERS + 4][PROGRAM_BLOCK]; /* four more to spread constants */

/* The operand as an array: an input, a register, or a constant spread over the spare register `spare`. */
static const REAL *FN(spread)(const fm_program *p, int operand, const REAL *const inputs[2], FN(registers) r, int spare,
                              idx n)
{
    if (operand >= 0)
        return operand < 2 ? inputs[operand] : r[operand];
    REAL *filled = r[FM_MAX_REGISTERS + spare];
    const REAL value = (REAL)p->constants[-1 - operand];
    for (idx i = 0; i < n; i++)
        filled[i] = value;
    return filled;
}

/* out = program(x, y) for n <= PROGRAM_BLOCK numbers; y may be NULL, out may be x or y. */
static void FN(run_block)(const fm_program *p, idx n, const REAL *x, const REAL *y, REAL *out)
{
    FN(registers) r ALIGNED;
    const REAL *const inputs[2] = {x, y ? y : x};
    for (idx k = 0; k < p->n_instructions; k++) {
        const fm_instruction *i = &p->instructions[k];
        REAL *dst = r[i->dst];
        const REAL *a = i->a < 0 ? NULL : i->a < 2 ? inputs[i->a] : r[i->a];
        const REAL *b = i->b < 0 ? NULL : i->b < 2 ? inputs[i->b] : r[i->b];
        const REAL ca = i->a < 0 ? (REAL)p->constants[-1 - i->a] : 0, cb = i->b < 0 ? (REAL)p->constants[-1 - i->b] : 0;
        switch (i->op) {
        case OP_ADD:
            FN(program_add)(n, a, ca, b, cb, dst);
            break;
        case OP_SUB:
            FN(program_sub)(n, a, ca, b, cb, dst);
            break;
        case OP_MUL:
            FN(program_mul)(n, a, ca, b, cb, dst);
            break;
        case OP_DIV:
            FN(program_div)(n, a, ca, b, cb, dst);
            break;
        case OP_NEG:
            a = FN(spread)(p, i->a, inputs, r, 0, n);
            IVDEP
            for (idx j = 0; j < n; j++)
                dst[j] = -a[j];
            break;
        case OP_SELECT_LT:
        case OP_SELECT_LE:
        case OP_SELECT_EQ:
        case OP_SELECT_NE: {
            static void (*const selects[])(idx, const REAL *, const REAL *, const REAL *, const REAL *, REAL *) = {
                FN(program_select_lt), FN(program_select_le), FN(program_select_eq), FN(program_select_ne)};
            selects[i->op - OP_SELECT_LT](n, FN(spread)(p, i->c, inputs, r, 2, n), FN(spread)(p, i->d, inputs, r, 3, n),
                                          FN(spread)(p, i->a, inputs, r, 0, n), FN(spread)(p, i->b, inputs, r, 1, n), dst);
            break;
        }
        default:
            FN(FUNCTIONS)[i->op - OP_FUNCTIONS].evaluate(n, FN(spread)(p, i->a, inputs, r, 0, n), dst, NULL);
        }
    }
    memcpy(out, FN(spread)(p, p->output, inputs, r, 0, n), (size_t)n * sizeof(REAL));
}

/* out (n,) = program(x, y). */
static void FN(run)(const fm_program *p, idx n, const REAL *x, const REAL *y, REAL *out)
{
    for (idx i = 0; i < n; i += PROGRAM_BLOCK)
        FN(run_block)(p, n - i < PROGRAM_BLOCK ? n - i : PROGRAM_BLOCK, x + i, y ? y + i : NULL, out + i);
}

/* --- activations, whichever way they are given: value and slope ------------------------------------------------------ */

/* a (rows, ld) = f(z); a may be z. */
static void FN(apply)(const fm_activation *f, idx rows, idx ld, const REAL *z, REAL *a)
{
    if (f->value.instructions) {
        FN(run)(&f->value, rows * ld, z, NULL, a);
    } else if (f->slopes) {
        const REAL *slope = f->slopes;
        for (idx r = 0; r < rows; r++, z += ld, a += ld) {
            IVDEP
            for (idx j = 0; j < ld; j++)
                a[j] = z[j] < (REAL)0 ? slope[j] * z[j] : z[j];
        }
    } else {
        FN(ACTIVATIONS)[f->row].value(rows * ld, z, a, f->parameters);
    }
}

/* a (rows, ld) = f(z) on the way to a backward pass: where the slope reads z, it is left in z, so that what value and
 * slope share is computed once. */
static void FN(apply_keeping_slope)(const fm_activation *f, idx rows, idx ld, REAL *z, REAL *a)
{
    if (f->value.instructions) {
        FN(run)(&f->value, rows * ld, z, NULL, a);
        FN(run)(&f->slope, rows * ld, z, a, z);
    } else if (!f->slopes && FN(ACTIVATIONS)[f->row].forward) {
        FN(ACTIVATIONS)[f->row].forward(rows * ld, z, a, f->parameters);
    } else {
        FN(apply)(f, rows, ld, z, a);
    }
}

/* a (rows, ld) = z + (f(z) - z) mix, where mix (ld,) is learned per neuron.  product: (rows, ld) on the way to a backward
 * pass, then it becomes f(z) - z, and z the slope 1 + (f'(z) - 1) mix; NULL otherwise, z may then be a. */
static void FN(apply_mixed)(const fm_activation *f, idx rows, idx ld, const REAL *mix, REAL *z, REAL *a, REAL *product)
{
    REAL copy[PROGRAM_BLOCK] ALIGNED, slope[PROGRAM_BLOCK] ALIGNED;
    for (idx r = 0; r < rows; r++)
        for (idx j = 0; j < ld; j += PROGRAM_BLOCK) {
            const idx n = ld - j < PROGRAM_BLOCK ? ld - j : PROGRAM_BLOCK;
            REAL *zj = z + r * ld + j, *aj = a + r * ld + j;
            if (!product) {
                memcpy(copy, zj, (size_t)n * sizeof(REAL));
                FN(apply)(f, 1, n, copy, aj);
                IVDEP
                for (idx i = 0; i < n; i++)
                    aj[i] = copy[i] + (aj[i] - copy[i]) * mix[j + i];
                continue;
            }
            REAL *pj = product + r * ld + j;
            if (!f->value.instructions) {
                FN(ACTIVATIONS)[f->row].mixed(n, zj, aj, pj, mix + j, f->parameters);
                continue;
            }
            FN(run_block)(&f->value, n, zj, NULL, aj);
            FN(run_block)(&f->slope, n, zj, aj, slope);
            for (idx i = 0; i < n; i++) {
                pj[i] = aj[i] - zj[i];
                aj[i] = zj[i] + pj[i] * mix[j + i];
                zj[i] = (REAL)1 + (slope[i] - (REAL)1) * mix[j + i];
            }
        }
}

/* Whether apply_keeping_slope leaves the slope in z. */
static inline int FN(keeps_slope)(const fm_activation *f)
{
    return f->value.instructions || (!f->slopes && FN(ACTIVATIONS)[f->row].forward);
}

/* delta (rows, ld) *= f'(z) where a = f(z).  With learned slopes also product (rows, ld) = d loss / d slope of each row. */
static void FN(apply_slope)(const fm_activation *f, idx rows, idx ld, const REAL *z, const REAL *a, REAL *delta,
                            REAL *product)
{
    if (f->slope.instructions) {
        REAL factor[PROGRAM_BLOCK];
        for (idx i = 0; i < rows * ld; i += PROGRAM_BLOCK) {
            const idx n = rows * ld - i < PROGRAM_BLOCK ? rows * ld - i : PROGRAM_BLOCK;
            FN(run_block)(&f->slope, n, z + i, a + i, factor);
            for (idx j = 0; j < n; j++)
                delta[i + j] *= factor[j];
        }
    } else if (f->slopes) {
        const REAL *slope = f->slopes;
        for (idx r = 0; r < rows; r++, z += ld, delta += ld, product += ld) {
            IVDEP
            for (idx j = 0; j < ld; j++) {
                product[j] = z[j] > (REAL)0 ? (REAL)0 : delta[j] * z[j];
                delta[j] = z[j] > (REAL)0 ? delta[j] : delta[j] * slope[j];
            }
        }
    } else {
        FN(ACTIVATIONS)[f->row].backward(rows * ld, z, a, delta, f->parameters);
    }
}

#undef PROGRAM_BLOCK
