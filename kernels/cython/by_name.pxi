# Kernels by name: for cross-checks, benchmarks and teaching.  Whole networks do not pass through here.


cdef object widened(array, idx ld):
    """A cache-line aligned copy (rows, ld) of a matrix, widened with zeros."""
    matrix = zeros(array.shape[0] * ld * array.itemsize).view(array.dtype).reshape(array.shape[0], ld)
    matrix[:, :array.shape[1]] = array
    return matrix


def evaluate(function, x, out):
    """out = function(x), elementwise, for a function of the formula language (exp, log, ...); to measure its error."""
    cdef int row = row_of(FUNCTION_ROWS, function, "function")[0]
    cdef bint is_double = is_double_of(x, "x")
    cdef const void *p_x = pointer(x, "x", REALS[is_double], x.shape)
    cdef void *p_out = pointer(out, "out", REALS[is_double], x.shape, True)
    cdef idx n = x.size
    if np.may_share_memory(x, out):
        raise ValueError("out must not overlap x in memory")
    with nogil:
        KERNELS[is_double].evaluate(row, n, p_x, p_out)


def activate(activation, z, out):
    """out = f(z), elementwise; out may be z."""
    cdef fm_activation f
    keep = []
    read_activation(activation, &f, keep, False)
    cdef bint is_double = is_double_of(z, "z")
    cdef const void *p_z = pointer(z, "z", REALS[is_double], z.shape)
    cdef void *p_out = pointer(out, "out", REALS[is_double], z.shape, True)
    cdef idx n = z.size
    if p_out != p_z and np.may_share_memory(z, out):
        raise ValueError("out must be z or not overlap it in memory")
    with nogil:
        KERNELS[is_double].activate(&f, n, p_z, p_out)


def slope(activation, z, a, out):
    """out = da/dz, elementwise, for a = f(z)."""
    cdef fm_activation f
    keep = []
    read_activation(activation, &f, keep)
    cdef bint is_double = is_double_of(z, "z")
    cdef const void *p_z = pointer(z, "z", REALS[is_double], z.shape)
    cdef const void *p_a = pointer(a, "a", REALS[is_double], z.shape)
    cdef void *p_out = pointer(out, "out", REALS[is_double], z.shape, True)
    cdef idx n = z.size
    if np.may_share_memory(out, z) or np.may_share_memory(out, a):
        raise ValueError("out must not overlap z or a in memory")
    out[...] = 1
    with nogil:
        KERNELS[is_double].slope(&f, n, p_z, p_a, p_out)


def linear_forward(X, W, b, activation, out, z=None):
    """out = f(X W + b), and z = X W + b where a buffer for it is given.

    Parameters
    ----------
    X : ndarray of shape (n, fan_in)
    W : ndarray of shape (fan_in, fan_out)
    b : ndarray of shape (fan_out,)
    activation : str
    out : ndarray of shape (n, fan_out)
    z : ndarray of shape (n, fan_out), optional
    """
    cdef fm_activation f
    keep = []
    read_activation(activation, &f, keep, False)
    cdef bint is_double = is_double_of(X, "X")
    cdef int real = REALS[is_double]
    cdef const fm_kernels *k = KERNELS[is_double]
    pointer(X, "X", real, (None, None))
    cdef idx n = X.shape[0], fan_in = X.shape[1]
    pointer(W, "W", real, (fan_in, None))
    cdef idx fan_out = W.shape[1], ld_in = padded(fan_in, k.lanes), ld_out = padded(fan_out, k.lanes)
    pointer(b, "b", real, (fan_out,))
    pointer(out, "out", real, (n, fan_out), True)
    if z is not None:
        pointer(z, "z", real, (n, fan_out), True)
    wide_X, wide_W, wide_b = widened(X, ld_in), widened(W, ld_out), widened(b[None], ld_out)
    wide_z, wide_out = zeros(n * ld_out * X.itemsize), zeros(n * ld_out * X.itemsize)
    cdef const void *p_X = cnp.PyArray_DATA(wide_X)
    cdef const void *p_W = cnp.PyArray_DATA(wide_W)
    cdef const void *p_b = cnp.PyArray_DATA(wide_b)
    cdef void *p_z = cnp.PyArray_DATA(wide_z)
    cdef void *p_out = cnp.PyArray_DATA(wide_out)
    cdef fm_blas_gemm blas = blas_for(is_double, fan_in * ld_out)
    with nogil:
        k.linear_forward(n, fan_in, ld_in, ld_out, p_X, p_W, p_b, &f, p_z, p_out, blas)
    out[...] = wide_out.view(X.dtype).reshape(n, ld_out)[:, :fan_out]
    if z is not None:
        z[...] = wide_z.view(X.dtype).reshape(n, ld_out)[:, :fan_out]


def linear_backward(X, W, delta, activation, grad_W, grad_b, delta_below=None, z=None):
    """Gradients of one linear layer, and the delta of the layer below.

    grad_W = X^T delta;  grad_b = column sums of delta;  delta_below = (delta W^T) * f'(z, X).

    Parameters
    ----------
    X : ndarray of shape (n, fan_in)
        Output of the layer below, X = f(z).
    W : ndarray of shape (fan_in, fan_out)
    delta : ndarray of shape (n, fan_out)
    activation : str
        f, the activation of the layer below.
    grad_W : ndarray of shape (fan_in, fan_out)
    grad_b : ndarray of shape (fan_out,)
    delta_below : ndarray of shape (n, fan_in), optional
        Left out: not computed.
    z : ndarray of shape (n, fan_in), optional
        Needed only by activations whose slope reads it.
    """
    cdef fm_activation f
    keep = []
    cdef bint needs_z = read_activation(activation, &f, keep)
    cdef bint is_double = is_double_of(X, "X")
    cdef int real = REALS[is_double]
    cdef const fm_kernels *k = KERNELS[is_double]
    pointer(X, "X", real, (None, None))
    cdef idx n = X.shape[0], fan_in = X.shape[1]
    pointer(W, "W", real, (fan_in, None))
    cdef idx fan_out = W.shape[1], ld_in = padded(fan_in, k.lanes), ld_out = padded(fan_out, k.lanes)
    pointer(delta, "delta", real, (n, fan_out))
    pointer(grad_W, "grad_W", real, (fan_in, fan_out), True)
    pointer(grad_b, "grad_b", real, (fan_out,), True)
    if delta_below is not None:
        pointer(delta_below, "delta_below", real, (n, fan_in), True)
    if z is not None:
        pointer(z, "z", real, (n, fan_in))
    elif delta_below is not None and needs_z:
        raise ValueError(f"z must be given: the slope of activation={activation!r} reads it")
    wide_X, wide_W, wide_delta = widened(X, ld_in), widened(W.T, ld_in), widened(delta, ld_out)
    wide_z = widened(X if z is None else z, ld_in)
    wide_grad_W, wide_grad_b = zeros(fan_in * ld_out * X.itemsize), zeros(ld_out * X.itemsize)
    wide_below = zeros(n * ld_in * X.itemsize)
    cdef const void *p_X = cnp.PyArray_DATA(wide_X)
    cdef const void *p_W = cnp.PyArray_DATA(wide_W)
    cdef const void *p_delta = cnp.PyArray_DATA(wide_delta)
    cdef const void *p_z = cnp.PyArray_DATA(wide_z)
    cdef void *p_grad_W = cnp.PyArray_DATA(wide_grad_W)
    cdef void *p_grad_b = cnp.PyArray_DATA(wide_grad_b)
    cdef void *p_below = NULL if delta_below is None else cnp.PyArray_DATA(wide_below)
    cdef fm_blas_gemm blas = blas_for(is_double, max(n * ld_out, fan_out * ld_in))
    with nogil:
        k.linear_backward(n, fan_in, fan_out, ld_in, ld_out, p_X, p_W, p_delta, p_grad_W, p_grad_b, blas, &f, p_z,
                          p_below)
    grad_W[...] = wide_grad_W.view(X.dtype).reshape(fan_in, ld_out)[:, :fan_out]
    grad_b[...] = wide_grad_b.view(X.dtype)[:fan_out]
    if delta_below is not None:
        delta_below[...] = wide_below.view(X.dtype).reshape(n, ld_in)[:, :fan_in]


cdef int check_logits(logits, out, str name) except -1:
    cdef int is_double = is_double_of(logits, "logits")
    pointer(logits, "logits", REALS[is_double], (None, None))
    pointer(out, name, REALS[is_double], logits.shape, True)
    if logits.shape[1] == 0:
        raise ValueError(f"logits must have at least one column, got shape {logits.shape}")
    if logits is not out and np.may_share_memory(logits, out):
        raise ValueError(f"{name} must not overlap logits in memory")
    return is_double


def softmax(logits, out):
    """out = exp(z - max z) / sum_j exp(z_j - max z), row by row; out may be logits.

    Parameters
    ----------
    logits, out : ndarray of shape (n, k)
    """
    cdef bint is_double = check_logits(logits, out, "out")
    cdef idx n = logits.shape[0], width = logits.shape[1]
    cdef const void *p = cnp.PyArray_DATA(logits)
    cdef void *p_out = cnp.PyArray_DATA(out)
    scratch = zeros(CLASS_ROWS * width * logits.itemsize)
    cdef void *p_scratch = cnp.PyArray_DATA(scratch)
    with nogil:
        KERNELS[is_double].softmax(n, width, width, p, width, p_out, p_scratch)


def loss(name, logits, y, sample_weight, delta):
    """Weighted mean loss from logits, and delta = (link(logits) - y) * sample_weight.

    Parameters
    ----------
    name : str
        A key of LOSSES.
    logits : ndarray of shape (n, k)
    y : ndarray
        intp class indices (n,) for log_loss and focal, else targets (n, k) of the logits' dtype.
    sample_weight : ndarray of shape (n,) or None
    delta : ndarray of shape (n, k)
        Overwritten; not divided by n.

    Returns
    -------
    float
        sum_i w_i l_i / sum_i w_i.
    """
    cdef fm_loss f
    keep = []
    cdef bint class_targets = read_loss(name, &f, keep, "name")
    if delta is logits:
        raise ValueError("delta must not be logits")
    cdef bint is_double = check_logits(logits, delta, "delta")
    cdef int real = REALS[is_double]
    cdef idx n = logits.shape[0], width = logits.shape[1]
    cdef const idx *classes = NULL
    cdef const void *p_y = NULL
    cdef const void *p_weight = NULL
    if class_targets:
        pointer(y, "y", cnp.NPY_INTP, (n,))
        classes = indices(y, "y", width)
    else:
        p_y = pointer(y, "y", real, (n, width))
    if n == 0:
        raise ValueError(f"logits must have at least one row, got shape {logits.shape}")
    total_weight = float(n)
    if sample_weight is not None:
        p_weight = pointer(sample_weight, "sample_weight", real, (n,))
        total_weight = math.fsum(sample_weight)
    if total_weight == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    scratch = zeros(3 * max(n, CLASS_ROWS) * width * logits.itemsize)
    cdef const void *p = cnp.PyArray_DATA(logits)
    cdef void *p_delta = cnp.PyArray_DATA(delta)
    cdef void *p_scratch = cnp.PyArray_DATA(scratch)
    row_loss = np.empty(n)
    cdef double *p_row_loss = <double *>cnp.PyArray_DATA(row_loss)
    with nogil:
        KERNELS[is_double].loss(&f, n, width, width, p, p_y, classes, p_weight, p_delta, p_row_loss, p_scratch)
    return float(row_loss.sum() / total_weight)
