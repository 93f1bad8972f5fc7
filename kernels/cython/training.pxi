# Training: order of the rows, gradient, epochs, optimizer steps.


def shuffle(order, random_state):
    """``random_state.shuffle(order)``: the same draws, the same swaps, with memory asked for ahead of each swap.

    Parameters
    ----------
    order : ndarray of intp of shape (n,) or (n_epochs, n)
        Shuffled in place; of several rows the first, and each other one becomes the shuffle of the row before.
    random_state : numpy.random.RandomState
    """
    cdef bint several = isinstance(order, np.ndarray) and order.ndim == 2
    cdef idx *p = <idx *>pointer(order, "order", cnp.NPY_INTP, (None, None) if several else (None,), True)
    cdef idx n = cnp.PyArray_DIM(order, several), n_rows = cnp.PyArray_DIM(order, 0) if several else 1, r
    if not isinstance(random_state, np.random.RandomState):
        raise ValueError(f"random_state must be a RandomState, got {type(random_state).__name__}")
    generator = random_state._bit_generator
    capsule = generator.capsule
    cdef bitgen_t *bits = <bitgen_t *>PyCapsule_GetPointer(capsule, "BitGenerator")
    with generator.lock, nogil:
        for r in range(n_rows):
            if r > 0:
                memcpy(p + n, p, n * sizeof(idx))
                p += n
            fm_shuffle(bits, n, p)


cdef class Reduction:
    """The sums of a step on their way through all ranks: what the kernels call by a plain function."""

    cdef object reduce, memory, error
    cdef Workspace workspace

    def __init__(self, shared, Workspace workspace):
        if not callable(shared.reduce):
            raise ValueError(f"shared.reduce must be a function, got {type(shared.reduce).__name__}")
        if not (shared.memory is None or callable(shared.memory)):
            raise ValueError(f"shared.memory must be a function or None, got {type(shared.memory).__name__}")
        self.reduce, self.memory, self.workspace = shared.reduce, shared.memory, workspace

    cdef int join(self, fm_epoch *epoch) except -1:
        """Let the steps of an epoch call it."""
        if self.workspace.whole_batch:
            raise ValueError("shared must be None for a network with batch_norm, which needs all rows of a batch at once")
        epoch.reduce, epoch.context = reduce_sums, <void *>self
        return 0

    cdef object place(self):
        """Return where the sums of the call lie, if not in the workspace, which is prepared for training."""
        own = self.workspace.own_sums
        return None if self.memory is None else self.memory(len(own), own.dtype)

    cdef int raise_error(self) except -1:
        """Raise what `reduce` has raised."""
        error, self.error = self.error, None
        if error is not None:
            raise error
        return 0


cdef int reduce_sums(void *context) noexcept nogil:
    with gil:
        reduction = <Reduction>context
        try:
            reduction.reduce(reduction.workspace.sums)
            return 0
        except BaseException as error:  # it would be lost: kernels know no exceptions
            reduction.error = error
            return 1


cdef int read_shares(shared, fm_epoch *epoch, order) except -1:
    """Fill what `epoch` has of the batches of all ranks; epoch.batch_size and the order of this rank are known."""
    cdef idx n_rows = shared.n_rows, i
    if n_rows < 1:
        raise ValueError(f"shared.n_rows must be at least 1, got {n_rows}")
    epoch.n_order, epoch.n_steps = n_rows, (n_rows + epoch.batch_size - 1) // epoch.batch_size
    epoch.starts = <const idx *>pointer(shared.starts, "shared.starts", cnp.NPY_INTP, (epoch.n_steps + 1,))
    epoch.places = <const idx *>pointer(shared.places, "shared.places", cnp.NPY_INTP, (len(order),))
    cdef bint sound = epoch.starts[0] == 0 and epoch.starts[epoch.n_steps] == len(order)
    for i in range(epoch.n_steps):
        sound = sound and epoch.starts[i] <= epoch.starts[i + 1]
    if not sound:
        raise ValueError(f"shared.starts must not decrease, and lead from 0 to the {len(order)} rows of order")
    return 0


def loss_and_grad(Workspace workspace not None, params, data, alpha, grad, l1=0.0, shared=None):
    """Mean loss with penalty and its gradient over all rows, in chunks.

    loss = (sum_i w_i l_i + alpha/2 ||W||^2 + l1 ||W||_1) / sum_i w_i;
    grad_W = (A^T delta + alpha W + l1 sign W) / sum_i w_i.

    Parameters
    ----------
    workspace : Workspace
    params : ndarray of shape (n_params,)
    data : Data
        X, y, sample_weight.
    alpha : float
        Strength of the L2 penalty.
    grad : ndarray of shape (n_params,)
        Overwritten.
    l1 : float
        Strength of the L1 penalty.
    shared : Shared or None
        How several processes that have rows each come to the sums of all.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For a network with batch_norm or dropout, whose loss depends on the batch or on chance.
    ZeroDivisionError
        If the sample weights sum to zero.
    """
    cdef fm_data samples
    if workspace.whole_batch or workspace.has_dropout:
        raise ValueError("loss_and_grad takes networks without batch_norm and dropout")
    kept_rows = rows_for(data.X, &samples, workspace)
    targets_of(data, &samples, workspace)
    check_codes(&samples, NULL, samples.n, workspace)
    cdef void *p_params = workspace.flat(params, "params")
    cdef void *p_grad = workspace.flat(grad, "grad", True)
    if samples.n == 0 and shared is None:
        raise ValueError("X must have at least one row, got none")
    cdef fm_epoch epoch
    memset(&epoch, 0, sizeof(fm_epoch))
    epoch.n_order, epoch.batch_size, epoch.n_steps = samples.n, samples.n, 1
    epoch.alpha, epoch.l1, epoch.rule = alpha, l1, -1
    cdef idx starts[2]
    cdef Reduction reduction = None
    if shared is not None:
        reduction = Reduction(shared, workspace)
        reduction.join(&epoch)
        # the number of all rows, which this process does not know, does not matter to a mean
        starts[0], starts[1], epoch.n_order, epoch.batch_size, epoch.starts = 0, samples.n, 1, 1, starts
    cdef const fm_kernels *k = workspace.kernels
    workspace.begin()
    try:
        workspace.prepare_training(0)
        workspace.place_sums(None if reduction is None else reduction.place())
        workspace.use_units(samples.n)
        workspace.ws.interrupted = 0
        with nogil:
            k.pack(&workspace.ws, p_params, workspace.ws.params)
            k.train(&workspace.ws, &samples, &epoch)
            k.unpack(&workspace.ws, workspace.ws.grad, p_grad)
        if workspace.ws.interrupted:
            raise_pending()
    finally:
        workspace.end()
    if reduction is not None:
        reduction.raise_error()
    if epoch.done == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return epoch.loss / epoch.n_order


cdef const double *plan(values, str name, tuple shape) except? NULL:
    """The data of an array of an optimizer; NULL for None."""
    if values is None:
        return NULL
    return <const double *>pointer(values, name, cnp.NPY_FLOAT64, shape)


cdef tuple read_steps(optimizer, fm_epoch *epoch, idx n_segments, int *n_states):
    """Fill what `epoch` has of the optimizer, and the rule's number of states; return the arrays to keep."""
    number, row = row_of(OPTIMIZER_ROWS, optimizer.rule, "optimizer.rule")
    cdef idx n = epoch.n_steps
    epoch.rule, n_states[0] = number, row["n_states"]
    scalars = optimizer.scalars(n)
    epoch.scalars = <const double *>pointer(scalars, "optimizer.scalars", cnp.NPY_FLOAT64, (n, row["n_scalars"]))
    decays = optimizer.decays(n) if hasattr(optimizer, "decays") else None
    epoch.decays = plan(decays, "optimizer.decays", (n,))
    factors, decay_factors = getattr(optimizer, "factors", None), getattr(optimizer, "decay_factors", None)
    epoch.factors = plan(factors, "optimizer.factors", (n_segments, row["n_scalars"]))
    epoch.decay_factors = plan(decay_factors, "optimizer.decay_factors", (n_segments,))
    dropouts = optimizer.dropouts(n) if hasattr(optimizer, "dropouts") else None
    epoch.dropouts = plan(dropouts, "optimizer.dropouts", (n,))
    if dropouts is not None and not ((dropouts >= 0) & (dropouts <= 1)).all():
        raise ValueError(f"optimizer.dropouts must lie in [0, 1], got {dropouts.min()} .. {dropouts.max()}")
    max_norm = getattr(optimizer, "max_grad_norm", None)
    if max_norm is not None:
        epoch.max_norm = max_norm
        if not epoch.max_norm > 0:
            raise ValueError(f"optimizer.max_grad_norm must be above 0 or None, got {max_norm}")
    return scalars, decays, factors, decay_factors, dropouts


cdef void next_epoch(fm_epoch *epoch, idx stride, idx n_scalars) noexcept nogil:
    """Go on to the rows and the plans of the next epoch."""
    epoch.order += stride
    epoch.t += epoch.n_steps
    epoch.scalars += epoch.n_steps * n_scalars
    if epoch.decays != NULL:
        epoch.decays += epoch.n_steps
    if epoch.dropouts != NULL:
        epoch.dropouts += epoch.n_steps
    epoch.goes_on = 1


def train_epoch(
    Workspace workspace not None, params, data, order, batch_size, alpha, optimizer, l1=0.0, seed=0, losses=None,
    shared=None,
):
    """Passes of mini-batch steps over the rows in `order`; params and optimizer.states are updated in place.

    Parameters
    ----------
    workspace : Workspace
    params : ndarray of shape (n_params,)
    data : Data
        X, y, sample_weight.
    order : ndarray of intp of shape (n,), or with losses (n_epochs, n)
        Row indices; consecutive runs of `batch_size` form the batches.
    batch_size : int
    alpha : float
        Strength of the L2 penalty.
    optimizer : object
        ``rule``, ``states``, ``scalars(n_steps)`` and the step count ``t``, which grows by the steps done; and, where
        it has them, ``decays(n_steps)``, the shares of the parameters that decay before each step (or None),
        ``max_grad_norm``, the largest norm of the gradient (or None), and the factors of segments and steps
        (see ``contract.Optimizer``).
    l1 : float
        Strength of the L1 penalty.
    seed : int in [0, 2**64)
        Key of the dropout masks, together with ``optimizer.t``.
    losses : ndarray of float64 of shape (n_epochs,), optional
        Overwritten by the loss of each epoch that is done.
    shared : Shared or None
        How several processes that have rows of each batch take its step together; `order` then holds this one's rows.

    Returns
    -------
    float
        Mean over rows of the batches' losses, each taken before its update; of the last epoch.

    Raises
    ------
    ZeroDivisionError
        If the sample weights of a batch sum to zero; the steps before it have been done.
    KeyboardInterrupt
        Between two steps; the steps done are kept.
    """
    cdef fm_data samples
    cdef fm_epoch epoch
    memset(&epoch, 0, sizeof(fm_epoch))
    cdef idx n_steps, n_epochs, stride, e, done = 0, size = batch_size
    cdef int n_states
    cdef double loss
    cdef double *p_losses = &loss
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    kept_rows = rows_for(data.X, &samples, workspace)
    targets_of(data, &samples, workspace)
    if losses is not None:
        p_losses = <double *>pointer(losses, "losses", cnp.NPY_FLOAT64, (None,), True)
    epoch.order = orders_of(order, losses, samples.n, &n_epochs, &epoch.n_order, &stride)
    epoch.batch_size, epoch.alpha, epoch.l1 = size, alpha, l1
    cdef idx n_own = epoch.n_order
    if n_own == 0 and shared is None or n_epochs == 0:
        raise ValueError("order must hold at least one row index, got none")
    for e in range(n_epochs if stride != 0 else 1):
        check_codes(&samples, epoch.order + e * stride, epoch.n_order, workspace)
    if workspace.whole_batch and size > workspace.ws.max_rows:
        raise ValueError(f"batch_size must be at most the workspace's {workspace.ws.max_rows}, got {batch_size}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in [0, 2**64), got {seed}")
    epoch.seed, epoch.t = seed, optimizer.t
    cdef Reduction reduction = None
    if shared is not None:
        if losses is not None:
            raise ValueError("losses must be None with shared: a call holds one epoch then")
        reduction = Reduction(shared, workspace)
        reduction.join(&epoch)
        read_shares(shared, &epoch, order)
    n_steps = (epoch.n_order + size - 1) // size
    epoch.n_steps = n_steps * n_epochs
    kept = read_steps(optimizer, &epoch, workspace.ws.n_segments, &n_states)  # epoch points into what is kept
    epoch.n_steps = n_steps
    cdef idx n_scalars = kept[0].shape[1]
    cdef void *p_params = workspace.flat(params, "params", True)
    cdef void *p_states[FM_MAX_STATES]
    states = optimizer.states
    if len(states) != n_states:
        raise ValueError(f"optimizer.states must hold {n_states} vectors, got {len(states)}")
    for i in range(n_states):
        p_states[i] = workspace.flat(states[i], "optimizer.states", True)
    written, names = (params, *states), ("params",) + ("optimizer.states",) * n_states
    refuse_overlap(written if losses is None else (*written, losses), (*names, "losses"))
    cdef const fm_kernels *k = workspace.kernels
    cdef int s
    workspace.begin()
    try:
        workspace.prepare_training(n_states)
        workspace.place_sums(None if reduction is None else reduction.place())
        workspace.use_units(min(n_own, size))
        workspace.ws.interrupted = 0
        with nogil:
            k.pack(&workspace.ws, p_params, workspace.ws.params)
            for s in range(n_states):
                k.pack(&workspace.ws, p_states[s], workspace.ws.states[s])
            for e in range(n_epochs):
                k.train(&workspace.ws, &samples, &epoch)
                done += epoch.done
                if epoch.done < n_steps:
                    break
                p_losses[e] = epoch.loss / epoch.n_order
                next_epoch(&epoch, stride, n_scalars)
            k.unpack(&workspace.ws, workspace.ws.params, p_params)
            for s in range(n_states):
                k.unpack(&workspace.ws, workspace.ws.states[s], p_states[s])
        if workspace.ws.interrupted:
            raise_pending()
    finally:
        workspace.end()
        optimizer.t += done
    if reduction is not None:
        reduction.raise_error()
    if done < n_steps * n_epochs:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return p_losses[n_epochs - 1]
