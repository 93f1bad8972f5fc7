# Prediction.


def predict(Workspace workspace not None, params, X, out, rows=None):
    """out = link(logits) for all rows of X, or for ``X[rows]``.

    Parameters
    ----------
    workspace : Workspace
    params : ndarray of shape (n_params,)
    X : ndarray (any strides) or CSR matrix of shape (n, n_features), float32 or float64
    out : ndarray of shape (n or len(rows), n_outputs)
        Overwritten.
    rows : ndarray of intp, optional

    Returns
    -------
    bool
        Whether the rows of X held neither NaN nor infinities.
    """
    cdef fm_data data
    cdef const idx *p_rows = NULL
    cdef idx n
    if workspace.whole_batch:
        raise ValueError("predict takes networks without batch_norm: fold it into the weights first (Network.folded)")
    kept = rows_for(X, &data, workspace)
    n = data.n
    if rows is not None:
        p_rows = indices(rows, "rows", n)
        n = len(rows)
    check_codes(&data, p_rows, n, workspace)
    width = workspace.n_outputs * (1 if workspace.network.average else workspace.ws.members)
    cdef void *p_params = workspace.flat(params, "params")
    cdef void *p_out = pointer(out, "out", REALS[workspace.is_double], (n, width), True)
    cdef const fm_kernels *k = workspace.kernels
    cdef fm_workspace ws
    workspace.begin()
    try:
        workspace.use_units(n)
        if 2.0 * n * workspace.ws.row_work > THREADS_MIN_PREDICT:
            workspace.prepare_team()
        ws = workspace.ws  # the buffers are shared, the choice of threads is not
        if 2.0 * n * ws.row_work <= THREADS_MIN_PREDICT:
            ws.n_threads, ws.team = 1, NULL
        ws.interrupted = ws.saw_non_finite = 0
        with nogil:
            k.pack(&ws, p_params, ws.params)
            k.predict(&ws, &data, p_rows, n, p_out)
        if ws.interrupted:
            raise_pending()
    finally:
        workspace.end()
    return ws.saw_non_finite == 0
