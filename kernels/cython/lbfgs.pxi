# L-BFGS: SciPy's iterates, without the time that SciPy's Python takes between two of them.

# Why a search has ended, in SciPy's words.
cdef dict ENDS = {
    FM_LBFGS_GRADIENT: "CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL",
    FM_LBFGS_VALUE: "CONVERGENCE: RELATIVE REDUCTION OF F <= FACTR*EPSMCH",
    FM_LBFGS_ITERATIONS: "STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT",
    FM_LBFGS_EVALUATIONS: "STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT",
    FM_LBFGS_ABNORMAL: "ABNORMAL: ",
}


def minimize(evaluate, x, grad, tol, max_iter, max_evaluations):
    """Minimise a function by L-BFGS: ``scipy.optimize.minimize(method="L-BFGS-B")`` without bounds, to the last bit.

    Parameters
    ----------
    evaluate : callable
        Takes nothing; returns the value at the present `x`, and writes the gradient there into `grad`.
    x : ndarray of float64 of shape (n,)
        Where to begin; changed before each evaluation, and the solution in the end. If `evaluate` raises, it is the
        point that was evaluated.
    grad : ndarray of float64 of shape (n,)
        In the end, the gradient at `x`.
    tol : float
        No component of the gradient is larger at a minimum.
    max_iter, max_evaluations : int
        Evaluations are counted after each iteration.

    Returns
    -------
    tuple
        The latest value, the number of iterations, that of evaluations, and why there are no more, in SciPy's words.
    """
    from scipy.linalg import cython_blas, cython_lapack

    cdef fm_lbfgs s
    memset(&s, 0, sizeof(fm_lbfgs))
    s.x = <double *>pointer(x, "x", cnp.NPY_FLOAT64, (None,), True)
    s.n = cnp.PyArray_DIM(x, 0)
    s.g = <double *>pointer(grad, "grad", cnp.NPY_FLOAT64, (s.n,), True)
    refuse_overlap((x, grad), ("x", "grad"))
    if s.n == 0:
        raise ValueError("x must hold at least one number, got none")
    vectors = np.empty((FM_LBFGS_VECTORS, s.n))
    s.vectors = <double *>cnp.PyArray_DATA(vectors)
    eps = np.finfo(float).eps
    s.tol, s.tol_value = tol, 2.2204460492503131e-09 / eps * eps  # SciPy's ftol, by the way of its factr
    s.max_iter, s.max_evaluations = min(max_iter, sys.maxsize), min(max_evaluations, sys.maxsize)
    s.has_avx2 = KERNELS[1].isa in (b"avx2", b"avx512")
    s.blas.dot = <fm_blas_dot>function_of(cython_blas, "ddot")
    s.blas.norm = <fm_blas_norm>function_of(cython_blas, "dnrm2")
    s.blas.cholesky = <fm_lapack_cholesky>function_of(cython_lapack, "dpotrf")
    s.blas.solve = <fm_lapack_solve>function_of(cython_lapack, "dtrtrs")
    cdef double value
    cdef int end = FM_LBFGS_EVALUATE
    while end == FM_LBFGS_EVALUATE:
        value = evaluate()
        with nogil:
            end = fm_lbfgs_advance(&s, value)
    return value, s.n_iter, s.n_evaluations, ENDS[end]
