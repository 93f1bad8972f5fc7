"""Sums and maxima within a block, in a fixed order."""

# ruff: noqa: F821

# --- network ---


@device
def block_sum(shared, value):
    """The sum of all threads' values, for all of them."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = value
    cuda.syncthreads()
    if tid < SIDE:
        part = ZERO
        for i in range(SIDE):
            part += shared[U(tid * SIDE + i)]
        shared[U(THREADS + tid)] = part
    cuda.syncthreads()
    total = ZERO
    for i in range(SIDE):
        total += shared[U(THREADS + i)]
    return total


@device
def lanes_sum(shared, value):
    """The sum over the SIDE threads that share a row."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = value
    cuda.syncthreads()
    first, total = tid - tid % SIDE, ZERO
    for i in range(SIDE):
        total += shared[U(first + i)]
    return total


@device
def lanes_max(shared, value):
    """The largest value of the SIDE threads that share a row; NaN is no maximum."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = value
    cuda.syncthreads()
    first, best = tid - tid % SIDE, LOWEST
    for i in range(SIDE):
        if shared[U(first + i)] > best:
            best = shared[U(first + i)]
    return best


@device
def column_total(shared, part):
    """For the thread of each of TILE columns: the sum of what the threads of its column have; others get nonsense."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = part
    cuda.syncthreads()
    total, i = ZERO, tid % TILE
    while i < THREADS:
        total += shared[U(i)]
        i += TILE
    return total


@device
def column_sum(d, shared, at, width, j, rows):
    """:func:`column_total` of column j of a matrix (rows, width) in ``work``."""
    total, i = ZERO, cuda.threadIdx.x // TILE
    while i < rows and j < width:
        total += d.work[U(at + i * width + j)]
        i += THREADS // TILE
    return column_total(shared, total)
