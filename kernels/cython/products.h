/* Who computes a product: the register tile of gemm.h, the BLAS, or matrix units; a template over REAL.
 *
 * An fm_route says it for one right-hand matrix.  Only kernels of float32 have matrix units.
 */

/* 1 if all of x (n,) is finite: x * 0 is 0 just then. */
static int FN(all_finite)(idx n, const REAL *x)
{
    for (idx i = 0; i < n; i += 4096) {
        const idx end = n - i < 4096 ? n : i + 4096;
        int finite = 1;
        IVDEP
        for (idx j = i; j < end; j++)
            finite &= x[j] * (REAL)0 == (REAL)0;
        if (!finite)
            return 0;
    }
    return 1;
}

/* What computes the products of thread t with a matrix of which `halves` are kept; NULL: of which none are. */
static fm_route FN(route)(const fm_workspace *ws, int t, void *halves, idx rows, idx columns)
{
    fm_route by = {.blas = ws->blas, .columns = columns};
    if (ws->units && halves) {
        by.units = ws->units;
        by.b = (fm_halves){halves, fm_blocks(rows, FM_TILE_DEPTH), ws->halves};
        by.scratch = (char *)ws->units_scratch + t * ws->units_room;
    }
    return by;
}

/* C (M, N) = start + A B by matrix units; arguments as in gemm.
 *
 * Halves of an infinity, or of a number near the largest one, are infinite, and their products NaN where the product of
 * the numbers is not.  So rows of C that are not finite are computed again by the register tile. */
static void FN(gemm_units)(const fm_route *by, idx M, idx N, idx K, const REAL *A, idx rs, idx cs, FN(right) B, REAL *C,
                           idx ldc, FN(start) start)
{
    char *before = (char *)by->scratch + fm_units_scratch(M, K, by->b.halves);
    const int accumulates = start.values == C;
    if (accumulates)
        for (idx m = 0; m < M; m++)
            memcpy(before + m * N * (idx)sizeof(REAL), C + m * ldc, (size_t)N * sizeof(REAL));
    const fm_units_product product = {.M = M, .N = N, .K = K, .columns = by->columns, .A = (const void *)A, .rs = rs,
                                      .cs = cs, .b = by->b, .init = (const void *)start.values,
                                      .init_stride = start.stride, .C = (void *)C, .ldc = ldc,
                                      .scratch = by->scratch};
    by->units->multiply(&product);
    if (accumulates)
        start = (FN(start)){(const REAL *)(const void *)before, N};
    for (idx m = 0; m < M; m++) {
        const FN(start) of_row = {start.values ? start.values + m * start.stride : NULL, 0};
        if (!FN(all_finite)(N, C + m * ldc))
            FN(gemm)(1, N, K, A + m * rs, rs, cs, B, C + m * ldc, ldc, of_row, 1, (FN(room)){NULL, 0});
    }
}
