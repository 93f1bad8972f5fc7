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
    if tid < LANES:
        part = ZERO
        for i in range(THREADS // LANES):
            part += shared[U(tid * (THREADS // LANES) + i)]
        shared[U(THREADS + tid)] = part
    cuda.syncthreads()
    total = ZERO
    for i in range(LANES):
        total += shared[U(THREADS + i)]
    return total


@device
def lanes_sum(shared, value):
    """The sum over the LANES threads that share a row."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = value
    cuda.syncthreads()
    first, total = tid - tid % LANES, ZERO
    for i in range(LANES):
        total += shared[U(first + i)]
    return total


@device
def lanes_max(shared, value):
    """The largest value of the LANES threads that share a row; NaN is no maximum."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = value
    cuda.syncthreads()
    first, best = tid - tid % LANES, LOWEST
    for i in range(LANES):
        if shared[U(first + i)] > best:
            best = shared[U(first + i)]
    return best


@device
def column_total(shared, part):
    """For the thread of each of COLUMNS columns: the sum of what the column's threads have; others get nonsense."""
    tid = cuda.threadIdx.x
    cuda.syncthreads()
    shared[U(tid)] = part
    cuda.syncthreads()
    total, i = ZERO, tid % COLUMNS
    while i < THREADS:
        total += shared[U(i)]
        i += COLUMNS
    return total


@device
def column_sum(d, shared, at, width, j, rows):
    """:func:`column_total` of column j of a matrix (rows, width) in ``work``."""
    total, i = ZERO, cuda.threadIdx.x // COLUMNS
    while i < rows and j < width:
        total += d.work[U(at + i * width + j)]
        i += THREADS // COLUMNS
    return column_total(shared, total)
