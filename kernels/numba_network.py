"""A whole network over rows, and the training epoch: the driver of the Numba engine.

Where it sits: a template like numba_math.py, which codegen.py puts in front of it (in place of the import below) for
each dtype.  numba_cpu.py fills the tables and calls the functions at the end.  The flow is that of cython/network.h,
where the same steps stand in C.  Layout: every matrix is padded to whole vectors of zeros, so that nothing has a
remainder loop.  All buffers are known by their addresses, which are integers, rows of the tables below; the formulas
are C functions compiled on their own and called through their addresses too, so that only those are ever compiled that
are used.

Several threads may work on one training: each calls `train` with the same tables and a number of its own, its member
number.  A chunk has two phases, with a barrier after each: by rows (forward, loss, deltas) and by parameters (gradient
and update).  No sum is split between members, so the bits do not depend on their number.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastmlp.kernels.numba_math import (
    DOUBLE,
    EPSILON,
    EXP_LOW,
    INLINE,
    ITEM,
    KERNEL,
    OPTIONS,
    REAL,
    TILE_ROWS,
    VECTOR_BYTES,
    double_at,
    doubles,
    exp_,
    float_at,
    int_at,
    log_,
    long_at,
    longs,
    reals,
    select,
    sqrt_,
)  # fmt: skip

# --- network ---

LANES = VECTOR_BYTES // ITEM
TILE_VECTORS = 3

# Sizes at which one way gives way to another; see cython/tiers.h
SMALL_B_BYTES = 256 * 1024
L1_BYTES = 16 * 1024
BLOCK_ROWS = 192
DEPTH = 384
CLASS_ROWS = 64
BLAS_MIN_ROWS = 32

# The columns of a layer's row: sizes, addresses in the padded parameters, of buffers, of functions
(
    FAN_IN, FAN_OUT, LD_IN, LD_OUT, W, B, SCALE, SHIFT, SLOPE, MEAN, VAR, WT, Z, A, OUT, PRODUCT, ZHAT, MOMENTS, DELTA,
    VALUE, FORWARD, BACKWARD, PARAMETERS, THRESHOLD, RATE, LAYER_COLUMNS,
) = range(26)  # fmt: skip

# The entries of the network's table
(
    N_LAYERS, MAX_ROWS, PARAMS, GRAD, STATES, STATE_BYTES, N_STATES, N_WEIGHTS, N_TRAINED, SEGMENTS, N_SEGMENTS, INPUT,
    IN_THRESHOLD, IN_RATE, TARGETS, CLASSES, WEIGHT, ROW_LOSS, SCRATCH, ZEROS, LOSS, LINK, LOSS_PARAMETERS, BATCH_NORM,
    BLAS_BYTES, SCRATCH_BYTES, SHARES, SHARE_ENTRIES, PARTS, N_PARTS, NET_ENTRIES,
) = range(31)  # fmt: skip

# A member's share of the parameters: ranges of the padded vector (weights, biases, units' parameters), then for each
# layer (first row of its W, row after the last, whether the layer's other parameters belong to the share).  SHARES has
# one row for who works alone, then one for each member of the team.
WEIGHTS_FROM, WEIGHTS_TO, BIASES_FROM, BIASES_TO, UNITS_FROM, UNITS_TO, LAYER_SHARES = range(7)
PART = 4096  # numbers whose squares or magnitudes one member sums

# The cells of a team, numbers of 8 bytes, those that are written to on cache lines of their own
ARRIVED, ABORT, MEMBERS, GIVE_WAY, GAVE_UP, TEAM_CELLS = 0, 8, 16, 17, 18, 24
SPINS = 4000  # looks before giving way to other threads: on a busy machine the member waited for needs the processor

# The entries of a call's table; 0 where there is no such array
(
    X, ROW_BYTES, COLUMN_BYTES, X_IS_DOUBLE, INDPTR, INDICES, INDEX_IS_64, Y, SAMPLE_WEIGHT, ROWS, N_ROWS, BATCH_SIZE,
    FIRST, LAST, PACK, UNPACK, RULE, SCALARS, N_SCALARS, DECAYS, FLAT, FLAT_STATES, SEED, T, TRAINING, OUTPUT,
    DONE, UNPACKED, X_ROWS, N_CLASSES, CALL_ENTRIES,
) = range(31)  # fmt: skip

NO_LOSS, SOFTMAX_LOSS, FOCAL_LOSS, KL_LOSS = 0, 1, 2, 3  # in LOSS; anything else is a function's address

_REAL = ir.DoubleType() if DOUBLE else ir.FloatType()
_LONG = ir.IntType(64)


# --- calls through addresses, memory ------------------------------------------------------------------------------


def _call(n_longs, n_doubles):
    """A call of a C function of so many integers and then so many doubles, known by its address."""

    def typed(typingctx, function, *args):
        signature = types.void(*[types.int64] * (1 + n_longs), *[types.float64] * n_doubles)

        def codegen(context, builder, signature, args):
            parameters = [_LONG] * n_longs + [ir.DoubleType()] * n_doubles
            callee = ir.FunctionType(ir.VoidType(), parameters).as_pointer()
            builder.call(builder.inttoptr(args[0], callee), args[1:])
            return context.get_dummy_value()

        return signature, codegen

    return typed


@intrinsic
def call_value(typingctx, function, n, a, parameters):
    return _call(3, 0)(typingctx, function)


@intrinsic
def call_forward(typingctx, function, n, z, a, parameters):
    return _call(4, 0)(typingctx, function)


@intrinsic
def call_backward(typingctx, function, n, z, a, delta, parameters):
    return _call(5, 0)(typingctx, function)


@intrinsic
def call_loss(typingctx, function, rows, n, ld, z, y, weight, delta, row_loss, scratch, parameters):
    return _call(10, 0)(typingctx, function)


@intrinsic
def call_rule(typingctx, function, n, p, g, states, stride, scalars, alpha, l1, scale, keep):
    return _call(6, 4)(typingctx, function)


@intrinsic
def copy(typingctx, to, source, n_bytes):
    """memcpy"""

    def codegen(context, builder, signature, args):
        to, source = (builder.inttoptr(a, cgutils.voidptr_t) for a in args[:2])
        cgutils.raw_memcpy(builder, to, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@njit(**OPTIONS)
def clear(address, n):
    reals(address, n)[:] = REAL(0.0)


# --- teams: threads that work on one training -----------------------------------------------------------------------


@intrinsic
def atomic_add(typingctx, address, value):
    """Add to the integer at an address; -> what was there."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _LONG.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_load(typingctx, address):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(builder.inttoptr(args[0], _LONG.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def relax(typingctx):
    """Tell the processor that this is a loop that waits."""

    def codegen(context, builder, signature, args):
        processor, hint = builder.module.triple.partition("-")[0], ir.IntType(32)
        if processor in ("x86_64", "i686"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        elif processor in ("aarch64", "arm64"):
            kind = ir.FunctionType(ir.VoidType(), [hint])
            pause = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.hint")
            builder.call(pause, [ir.Constant(hint, 1)])  # "yield"
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call_plain(typingctx, function):
    """A call of a C function without arguments."""
    return _call(0, 0)(typingctx, function)


@njit(**OPTIONS)
def meet(team, may_leave):
    """Wait for all members or, at the first meeting of a call, until somebody gives up; -> whether all are here.

    ARRIVED only ever grows: each meeting is over when it reaches the next multiple of the number of members.
    """
    members = long_at(team + 8 * MEMBERS)
    goal = (atomic_add(team + 8 * ARRIVED, 1) // members + 1) * members
    spins = 0
    while atomic_load(team + 8 * ARRIVED) < goal:
        if may_leave and atomic_load(team + 8 * ABORT) != 0:
            # all may have come in the meantime: then the others went on
            return atomic_load(team + 8 * ARRIVED) >= goal
        spins += 1
        if spins < SPINS or long_at(team + 8 * GIVE_WAY) == 0:
            relax()
        else:
            call_plain(long_at(team + 8 * GIVE_WAY))
    return True


@njit(**OPTIONS)
def barrier(team):
    """What any member wrote before is seen by all after.  No team: nothing."""
    if team:
        meet(team, False)


@njit(**INLINE)
def share_of(n, member, team):
    """(from, to) of n things that a member takes."""
    if team == 0:
        return 0, n
    members = long_at(team + 8 * MEMBERS)
    return n * member // members, n * (member + 1) // members


@njit(**INLINE)
def rows_of(n, member, team):
    """(from, to) of n rows that a member takes: whole register tiles."""
    lo, hi = share_of((n + TILE_ROWS - 1) // TILE_ROWS, member, team)
    return min(lo * TILE_ROWS, n), min(hi * TILE_ROWS, n)


@njit(**INLINE)
def columns_of(ld, member, team):
    """(from, to) of the columns that a member sums: whole vectors."""
    lo, hi = share_of(ld // LANES, member, team)
    return lo * LANES, hi * LANES


# --- the one product behind everything: C = init + A B; see cython/gemm.h ------------------------------------------


def _tile_function(module, mr, nv):
    """C (mr, nv vectors) = init + sum_k A[m * rs + k * cs] * B[k * ldb + n]; the tile stays in registers over all k."""
    pointer, vector = _REAL.as_pointer(), ir.VectorType(_REAL, LANES)
    arguments = [_LONG, pointer, _LONG, _LONG, pointer, _LONG, pointer, _LONG, pointer, _LONG]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), f"fastmlp_tile_{mr}x{nv}")
    function.linkage = "internal"
    if VECTOR_BYTES == 64:  # processors that are slow to enter their widest mode: LLVM would halve the vectors
        set.add(function.attributes, '"min-legal-vector-width"="512" "prefer-vector-width"="512"')
    depth, a, rs, cs, b, ldb, c, ldc, init, init_stride = function.args
    entry, loop, done = (function.append_basic_block(name) for name in ("entry", "loop", "done"))
    builder = ir.IRBuilder(entry)

    def vector_at(base, offset):
        where = builder.gep(base, [offset])
        return builder.bitcast(where, vector.as_pointer())

    def long(value):
        return ir.Constant(_LONG, value)

    def tile():
        return [(i, j) for i in range(mr) for j in range(nv)]

    # rows as offsets from one pointer; hidden from LLVM, which would make a chain of additions of their common stride
    hide = ir.InlineAsm(ir.FunctionType(_LONG, [_LONG]), "", "=r,0", side_effect=False)
    rows = [long(0), *(builder.call(hide, [builder.mul(rs, long(i))]) for i in range(1, mr))]
    start = {}
    for i, j in tile():
        offset = builder.add(builder.mul(init_stride, long(i)), long(j * LANES))
        start[i, j] = builder.load(vector_at(init, offset), align=ITEM)
    builder.cbranch(builder.icmp_signed(">", depth, long(0)), loop, done)
    builder.position_at_end(loop)
    k, a_k, b_k = builder.phi(_LONG), builder.phi(pointer), builder.phi(pointer)
    sums = {at: builder.phi(vector) for at in tile()}
    right = [builder.load(vector_at(b_k, long(j * LANES)), align=ITEM) for j in range(nv)]
    undefined, lanes = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    new = {}
    for i in range(mr):
        x = builder.load(builder.gep(a_k, [rows[i]]), align=ITEM)
        first = builder.insert_element(undefined, x, ir.Constant(ir.IntType(32), 0))
        spread = builder.shuffle_vector(first, undefined, lanes)
        for j in range(nv):
            times = builder.fmul(spread, right[j], flags=("contract",))  # fused where the processor can
            new[i, j] = builder.fadd(sums[i, j], times, flags=("contract",))
    following = [builder.add(k, long(1)), builder.gep(a_k, [cs]), builder.gep(b_k, [ldb])]
    for phi, initial, later in zip((k, a_k, b_k), (long(0), a, b), following, strict=True):
        phi.add_incoming(initial, entry)
        phi.add_incoming(later, loop)
    for at in tile():
        sums[at].add_incoming(start[at], entry)
        sums[at].add_incoming(new[at], loop)
    builder.cbranch(builder.icmp_signed("<", following[0], depth), loop, done)
    builder.position_at_end(done)
    for i, j in tile():
        result = builder.phi(vector)
        result.add_incoming(start[i, j], entry)
        result.add_incoming(new[i, j], loop)
        start[i, j] = result
    for i, j in tile():
        offset = builder.add(builder.mul(ldc, long(i)), long(j * LANES))
        builder.store(start[i, j], vector_at(c, offset), align=ITEM)
    builder.ret_void()
    return function


@intrinsic
def tile(typingctx, mr, nv, depth, a, rs, cs, b, ldb, c, ldc, init, init_stride):
    """The register tile of mr rows and nv vectors, out of a table of all sizes; strides count numbers."""

    def codegen(context, builder, signature, args):
        module = builder.module
        if "fastmlp_tiles" not in module.globals:
            sizes = [(m, v) for m in range(1, TILE_ROWS + 1) for v in range(1, TILE_VECTORS + 1)]
            functions = [_tile_function(module, *size) for size in sizes]
            array = ir.ArrayType(functions[0].type, len(functions))
            table = ir.GlobalVariable(module, array, "fastmlp_tiles")
            table.linkage, table.global_constant, table.initializer = "internal", True, ir.Constant(array, functions)
        table = module.globals["fastmlp_tiles"]
        one = ir.Constant(_LONG, 1)
        row = builder.mul(builder.sub(args[0], one), ir.Constant(_LONG, TILE_VECTORS))
        number = builder.add(row, builder.sub(args[1], one))
        function = builder.load(builder.gep(table, [ir.Constant(_LONG, 0), number]))
        pointer = _REAL.as_pointer()
        values = [builder.inttoptr(v, pointer) if i in (3, 6, 8, 10) else v for i, v in enumerate(args)]
        builder.call(function, values[2:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 12), codegen


@intrinsic
def blas_product(typingctx, m, n, k, a, lda, a_transposed, b, ldb, b_transposed, c, ldc, beta):
    """C (m, n) = beta C + A B of row-major matrices, by the BLAS that NumPy code under Numba calls."""

    def codegen(context, builder, signature, args):
        m, n, k, a, lda, a_transposed, b, ldb, b_transposed, c, ldc, beta = args
        char, void = ir.IntType(8), cgutils.voidptr_t
        kinds = [char] * 3 + [_LONG] * 3 + [void, void, _LONG, void, _LONG, void, void, _LONG]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.IntType(32), kinds), "numba_xxgemm"
        )

        def letter(transposed):
            return builder.select(transposed, ir.Constant(char, ord("T")), ir.Constant(char, ord("N")))

        def pointer(address):
            return builder.inttoptr(address, void)

        def stored(value):
            return builder.bitcast(cgutils.alloca_once_value(builder, value), void)

        one = stored(ir.Constant(_REAL, 1.0))
        # row-major C = A B is column-major C^T = B^T A^T
        builder.call(
            function,
            [ir.Constant(char, ord("d" if DOUBLE else "s")), letter(b_transposed), letter(a_transposed), n, m, k, one,
             pointer(b), ldb, pointer(a), lda, stored(beta), pointer(c), ldc],
        )  # fmt: skip
        return context.get_dummy_value()

    real = types.float64 if DOUBLE else types.float32
    long, flag = types.int64, types.boolean
    return types.void(long, long, long, long, long, flag, long, long, flag, long, long, real), codegen


@njit(**OPTIONS)
def gemm(m_end, n_end, k_end, a, rs, cs, b, ldb, c, ldc, init, init_stride, block):
    for k in range(0, max(k_end, 1), DEPTH):
        depth = min(k_end - k, DEPTH)
        for m0 in range(0, m_end, block):
            m1 = min(m0 + block, m_end)
            n = 0
            while n < n_end:
                left = (n_end - n) // LANES
                nv = 2 if left == 4 else min(left, TILE_VECTORS)
                for m in range(m0, m1, TILE_ROWS):
                    to = c + (m * ldc + n) * ITEM
                    start, stride = to, ldc
                    if k == 0:
                        start, stride = init + (m * init_stride + n) * ITEM, init_stride
                    tile(
                        min(m1 - m, TILE_ROWS), nv, depth, a + (m * rs + k * cs) * ITEM, rs, cs,
                        b + (k * ldb + n) * ITEM, ldb, to, ldc, start, stride,
                    )  # fmt: skip
                n += nv * LANES


@njit(**INLINE)
def block_rows(n, k):
    """Rows of C at a time: what is done to them next finds them in the L1 cache."""
    if n * k * ITEM > SMALL_B_BYTES:
        return BLOCK_ROWS
    return min(max(L1_BYTES // (n * ITEM * TILE_ROWS), 1) * TILE_ROWS, BLOCK_ROWS)


@njit(**INLINE)
def is_large(net, m, n, k):
    return k * n * ITEM > net[BLAS_BYTES] and m >= BLAS_MIN_ROWS and k >= BLAS_MIN_ROWS


@njit(**OPTIONS)
def transpose(first, end, n_columns, ld, w, ld_t, wt):
    """Columns first .. end of wt (n_columns, ld_t) = these rows of w (.., ld), a block of cache lines at a time."""
    source, to = reals(w, end * ld), reals(wt, n_columns * ld_t)
    for i0 in range(first, end, 16):
        for j0 in range(0, n_columns, 16):
            for j in range(j0, min(j0 + 16, n_columns)):
                for i in range(i0, min(i0 + 16, end)):
                    to[j * ld_t + i] = source[i * ld + j]


# --- dropout: see reference.py for the definition --------------------------------------------------------------------


@njit(**INLINE)
def splitmix(x):
    x = np.uint64(x + np.uint64(0x9E3779B97F4A7C15))
    x = np.uint64((x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    x = np.uint64((x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    return np.uint64(x ^ (x >> np.uint64(31)))


@njit(**INLINE)
def mix(x):
    x = np.uint32(x ^ np.uint32(x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ np.uint32(x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@njit(**INLINE)
def mask_key(seed, t, layer):
    return splitmix(np.uint64(splitmix(np.uint64(seed)) ^ np.uint64((t << 16) + layer)))


@njit(**INLINE)
def mask_at(index, k0, k1, threshold, factor):
    h = mix(np.uint32(mix(np.uint32(index ^ k0)) + k1))
    return select(np.uint32(h >> np.uint32(8)) >= threshold, factor, REAL(0.0))


@njit(**OPTIONS)
def apply_mask(key, threshold, factor, first, n, width, ld, address):
    """Drop units of rows first .. first + n of the batch, in place."""
    k0, k1, least = np.uint32(key), np.uint32(key >> np.uint64(32)), np.uint32(threshold)
    for r in range(n):
        row = reals(address + r * ld * ITEM, width)
        start = np.uint32((first + r) * width)
        for j in range(width):
            row[j] *= mask_at(np.uint32(start + np.uint32(j)), k0, k1, least, factor)


@njit(**INLINE)
def drop(layers, call, step, k, first, n, address):
    """Drop units of hidden layer k."""
    layer = layers[k]
    key = mask_key(call[SEED], call[T] + step, k + 1)
    factor = REAL(1.0 / (1.0 - doubles(layer[RATE], 1)[0]))
    apply_mask(key, layer[THRESHOLD], factor, first, n, layer[FAN_OUT], layer[LD_OUT], address)


# --- rows of the caller -> buffers of the chunk ----------------------------------------------------------------------


@njit(**INLINE)
def row_at(call, i):
    return long_at(call[ROWS] + 8 * i) if call[ROWS] else i


@njit(**INLINE)
def index_at(call, address, k):
    return long_at(address + 8 * k) if call[INDEX_IS_64] else np.int64(int_at(address + 4 * k))


@njit(**INLINE)
def entry_at(call, k):
    """Stored entry k of a sparse X."""
    return REAL(double_at(call[X] + 8 * k)) if call[X_IS_DOUBLE] else REAL(float_at(call[X] + 4 * k))


@njit(**OPTIONS)
def gather(call, first, n, width, ld, address):
    """out (n, ld) = rows first .. first + n of a dense X; whether they are finite."""
    step, finite = call[COLUMN_BYTES], True
    for r in range(n):
        out = reals(address + r * ld * ITEM, width)
        x = call[X] + row_at(call, first + r) * call[ROW_BYTES]
        if call[X_IS_DOUBLE]:
            if step == 8:
                for j in range(width):
                    out[j] = REAL(double_at(x + 8 * j))
            else:
                for j in range(width):
                    out[j] = REAL(double_at(x + step * j))
        elif step == 4:
            for j in range(width):
                out[j] = REAL(float_at(x + 4 * j))
        else:
            for j in range(width):
                out[j] = REAL(float_at(x + step * j))
        if not call[TRAINING]:
            wrong = 0
            for j in range(width):
                wrong += np.int64(out[j] * REAL(0.0) != REAL(0.0))
            finite = finite and wrong == 0
    return finite


@njit(**OPTIONS)
def sparse_forward(net, layers, call, step, first, at, n, z):
    """z = X W + b of sparse rows, without a dense copy; whether their entries are finite."""
    layer = layers[0]
    ld, finite = layer[LD_OUT], True
    key = mask_key(call[SEED], call[T] + step, 0)
    k0, k1, least = np.uint32(key), np.uint32(key >> np.uint64(32)), np.uint32(net[IN_THRESHOLD])
    drops = call[TRAINING] and net[IN_THRESHOLD] > 0
    factor = REAL(1.0)
    if drops:
        factor = REAL(1.0 / (1.0 - doubles(net[IN_RATE], 1)[0]))
    for r in range(n):
        row = row_at(call, first + r)
        copy(z + r * ld * ITEM, layer[B], ld * ITEM)
        out = reals(z + r * ld * ITEM, ld)
        for k in range(index_at(call, call[INDPTR], row), index_at(call, call[INDPTR], row + 1)):
            column, x = index_at(call, call[INDICES], k), entry_at(call, k)
            finite = finite and x * REAL(0.0) == REAL(0.0)
            if drops:
                x *= mask_at(np.uint32((at + r) * layer[FAN_IN] + column), k0, k1, least, factor)
            w = reals(layer[W] + column * ld * ITEM, ld)
            for j in range(ld):
                out[j] += x * w[j]
    return finite


@njit(**OPTIONS)
def sparse_weight_gradient(net, layers, call, step, first, at, n, grad, begin, end):
    """grad += X^T delta of sparse rows, for columns begin .. end of X."""
    layer = layers[0]
    ld = layer[LD_OUT]
    key = mask_key(call[SEED], call[T] + step, 0)
    k0, k1, least = np.uint32(key), np.uint32(key >> np.uint64(32)), np.uint32(net[IN_THRESHOLD])
    drops, factor = net[IN_THRESHOLD] > 0, REAL(1.0)
    if drops:
        factor = REAL(1.0 / (1.0 - doubles(net[IN_RATE], 1)[0]))
    for r in range(n):
        row = row_at(call, first + r)
        d = reals(layer[DELTA] + r * ld * ITEM, ld)
        for k in range(index_at(call, call[INDPTR], row), index_at(call, call[INDPTR], row + 1)):
            column, x = index_at(call, call[INDICES], k), entry_at(call, k)
            if column < begin or column >= end:
                continue
            if drops:
                x *= mask_at(np.uint32((at + r) * layer[FAN_IN] + column), k0, k1, least, factor)
            g = reals(grad + column * ld * ITEM, ld)
            for j in range(ld):
                g[j] += x * d[j]


@njit(**OPTIONS)
def gather_targets(net, layers, call, first, lo, n):
    """Targets and sample weights of n rows -> rows lo .. lo + n of the chunk's buffers."""
    width = layers[net[N_LAYERS] - 1, FAN_OUT]
    to = reals(net[TARGETS] + lo * width * ITEM, n * width)
    weight, classes = reals(net[WEIGHT] + lo * ITEM, n), longs(net[CLASSES] + 8 * lo, n)
    by_class = net[LOSS] == SOFTMAX_LOSS or net[LOSS] == FOCAL_LOSS
    for r in range(n):
        row = row_at(call, first + r)
        if by_class:
            classes[r] = long_at(call[Y] + 8 * row)
        else:
            y = reals(call[Y] + row * width * ITEM, width)
            for j in range(width):
                to[r * width + j] = y[j]
        if call[SAMPLE_WEIGHT]:
            weight[r] = reals(call[SAMPLE_WEIGHT] + row * ITEM, 1)[0]


# --- what lies between a product and the next: batch normalisation, activation, dropout ----------------------------


@njit(**OPTIONS)
def normalize(layer, team, member, lo, n, all_rows):
    """zhat = (product - mean) / std over all rows of the chunk; z = zhat * scale + shift; rows lo .. lo + n."""
    ld = layer[LD_OUT]
    begin, end = columns_of(ld, member, team)
    width, offset = end - begin, begin * ITEM
    mean, inverse = reals(layer[MOMENTS] + offset, width), reals(layer[MOMENTS] + ld * ITEM + offset, width)
    mean[:] = REAL(0.0)
    inverse[:] = REAL(0.0)
    barrier(team)
    for r in range(all_rows):
        zhat = reals(layer[ZHAT] + r * ld * ITEM + offset, width)
        for j in range(width):
            mean[j] += zhat[j]
    for j in range(width):
        mean[j] /= REAL(all_rows)
    for r in range(all_rows):
        zhat = reals(layer[ZHAT] + r * ld * ITEM + offset, width)
        for j in range(width):
            d = zhat[j] - mean[j]
            inverse[j] += d * d
    for j in range(width):
        inverse[j] = REAL(1.0) / sqrt_(inverse[j] / REAL(all_rows) + REAL(1e-5))
    barrier(team)
    mean, inverse = reals(layer[MOMENTS], ld), reals(layer[MOMENTS] + ld * ITEM, ld)
    scale, shift = reals(layer[SCALE], ld), reals(layer[SHIFT], ld)
    for r in range(lo, lo + n):
        zhat, z = reals(layer[ZHAT] + r * ld * ITEM, ld), reals(layer[Z] + r * ld * ITEM, ld)
        for j in range(ld):
            normal = (zhat[j] - mean[j]) * inverse[j]
            zhat[j] = normal
            z[j] = normal * scale[j] + shift[j]


@njit(**OPTIONS)
def denormalize(net, layer, team, member, lo, n, all_rows):
    """delta of z -> of the product, rows lo .. lo + n; the gradients of scale and shift, over all rows, on the way."""
    ld = layer[LD_OUT]
    begin, end = columns_of(ld, member, team)
    width, offset = end - begin, begin * ITEM
    to_grad = net[GRAD] - net[PARAMS]
    grad_scale = reals(layer[SCALE] + to_grad + offset, width)
    grad_shift = reals(layer[SHIFT] + to_grad + offset, width)
    grad_scale[:] = REAL(0.0)
    grad_shift[:] = REAL(0.0)
    barrier(team)
    for r in range(all_rows):
        at = r * ld * ITEM + offset
        delta, zhat = reals(layer[DELTA] + at, width), reals(layer[ZHAT] + at, width)
        for j in range(width):
            grad_shift[j] += delta[j]
            grad_scale[j] += delta[j] * zhat[j]
    barrier(team)
    grad_scale, grad_shift = reals(layer[SCALE] + to_grad, ld), reals(layer[SHIFT] + to_grad, ld)
    scale, inverse = reals(layer[SCALE], ld), reals(layer[MOMENTS] + ld * ITEM, ld)
    share = REAL(1.0) / REAL(all_rows)
    for r in range(lo, lo + n):
        delta, zhat = reals(layer[DELTA] + r * ld * ITEM, ld), reals(layer[ZHAT] + r * ld * ITEM, ld)
        for j in range(ld):
            delta[j] = scale[j] * inverse[j] * (delta[j] - share * (grad_shift[j] + zhat[j] * grad_scale[j]))


@njit(**OPTIONS)
def update_running(layer, n):
    """A tenth of the way to the batch's moments, with the unbiased variance, as PyTorch counts."""
    ld, unbiased = layer[LD_OUT], n / max(n - 1, 1)
    mean, inverse = reals(layer[MOMENTS], ld), reals(layer[MOMENTS] + ld * ITEM, ld)
    running_mean, running_var = reals(layer[MEAN], ld), reals(layer[VAR], ld)
    for j in range(ld):
        inv = np.float64(inverse[j])
        var = 1.0 / (inv * inv) - 1e-5
        running_mean[j] = REAL(0.9 * np.float64(running_mean[j]) + 0.1 * np.float64(mean[j]))
        running_var[j] = REAL(0.9 * np.float64(running_var[j]) + 0.1 * var * unbiased)


@njit(**OPTIONS)
def prelu_forward(n, ld, z, a, slopes):
    slope = reals(slopes, ld)
    for r in range(n):
        source, to = reals(z + r * ld * ITEM, ld), reals(a + r * ld * ITEM, ld)
        for j in range(ld):
            to[j] = select(source[j] > REAL(0.0), source[j], slope[j] * source[j])


@njit(**OPTIONS)
def prelu_backward(n, ld, z, delta, slopes, product):
    """delta *= slope; product = delta * z where z <= 0, whose sum is the gradient of the slope."""
    slope = reals(slopes, ld)
    for r in range(n):
        at = r * ld * ITEM
        source, d, to = reals(z + at, ld), reals(delta + at, ld), reals(product + at, ld)
        for j in range(ld):
            positive = source[j] > REAL(0.0)
            to[j] = select(positive, REAL(0.0), d[j] * source[j])
            d[j] = select(positive, d[j], d[j] * slope[j])


@njit(**OPTIONS)
def multiply(n, x, y):
    """y *= x"""
    factor, to = reals(x, n), reals(y, n)
    for i in range(n):
        to[i] *= factor[i]


@njit(**OPTIONS)
def stage_forward(layer, training, r, n):
    """Rows r .. r + n: a = f(z)."""
    ld, at = layer[LD_OUT], r * layer[LD_OUT] * ITEM
    z, a = layer[Z] + at, layer[A] + at
    if layer[SLOPE]:
        prelu_forward(n, ld, z, a, layer[SLOPE])
    elif training and layer[FORWARD]:
        call_forward(layer[FORWARD], n * ld, z, a, layer[PARAMETERS])
    elif layer[VALUE]:
        if z != a:
            copy(a, z, n * ld * ITEM)
        call_value(layer[VALUE], n * ld, a, layer[PARAMETERS])
    elif z != a:
        copy(a, z, n * ld * ITEM)


@njit(**OPTIONS)
def stage_backward(layer, r, n):
    """Rows r .. r + n: delta = d loss / da -> d loss / dz."""
    ld, at = layer[LD_OUT], r * layer[LD_OUT] * ITEM
    z, a, delta = layer[Z] + at, layer[A] + at, layer[DELTA] + at
    if layer[SLOPE]:
        prelu_backward(n, ld, z, delta, layer[SLOPE], layer[PRODUCT] + at)
    elif layer[FORWARD]:
        multiply(n * ld, z, delta)
    elif layer[BACKWARD]:
        call_backward(layer[BACKWARD], n * ld, z, a, delta, layer[PARAMETERS])


@njit(**OPTIONS)
def forward(net, layers, call, step, team, member, first, at, lo, n, all_rows):
    """Rows lo .. lo + n of a chunk of all_rows, a member's, through all layers; whether X is finite there.

    first, at: the chunk's first row in the order, and in the batch.
    """
    finite, training = True, call[TRAINING] != 0
    bottom = layers[0]
    if not call[INDPTR]:
        to = net[INPUT] + lo * bottom[LD_IN] * ITEM
        finite = gather(call, first + lo, n, bottom[FAN_IN], bottom[LD_IN], to)
        if training and net[IN_THRESHOLD]:
            factor = REAL(1.0 / (1.0 - doubles(net[IN_RATE], 1)[0]))
            key = mask_key(call[SEED], call[T] + step, 0)
            apply_mask(key, net[IN_THRESHOLD], factor, at + lo, n, bottom[FAN_IN], bottom[LD_IN], to)
    for k in range(net[N_LAYERS]):
        layer = layers[k]
        fan_in, ld_in, ld = layer[FAN_IN], layer[LD_IN], layer[LD_OUT]
        x = (layers[k - 1, OUT] if k else net[INPUT]) + lo * ld_in * ITEM
        hidden, norm = k + 1 < net[N_LAYERS], net[BATCH_NORM] != 0 and k + 1 < net[N_LAYERS]
        to, done = (layer[ZHAT] if norm else layer[Z]) + lo * ld * ITEM, False
        if k == 0 and call[INDPTR]:
            finite = sparse_forward(net, layers, call, step, first + lo, at + lo, n, to)
        elif is_large(net, n, ld, fan_in):
            for r in range(n):
                copy(to + r * ld * ITEM, layer[B], ld * ITEM)
            blas_product(n, ld, fan_in, x, ld_in, False, layer[W], ld, False, to, ld, REAL(1.0))
        else:
            block = block_rows(ld, fan_in)
            done = not norm and hidden
            for r in range(0, n, block):
                m = min(block, n - r)
                source, target = x + r * ld_in * ITEM, to + r * ld * ITEM
                gemm(m, ld, fan_in, source, ld_in, 1, layer[W], ld, target, ld, layer[B], 0, block)
                if done:
                    stage_forward(layer, training, lo + r, m)
        if norm:
            normalize(layer, team, member, lo, n, all_rows)
        if hidden and not done:
            stage_forward(layer, training, lo, n)
        if training and hidden and layer[THRESHOLD]:
            out = lo * ld * ITEM
            copy(layer[OUT] + out, layer[A] + out, n * ld * ITEM)
            drop(layers, call, step, k, at + lo, n, layer[OUT] + out)
    return finite


# --- losses by rows; the others are formulas -------------------------------------------------------------------------


SUMS = {**OPTIONS, "fastmath": {"nsz", "contract", "reassoc"}}  # in whichever order vectors like

_VECTOR = ir.VectorType(_REAL, LANES)


def _vector_at(builder, address, k):
    """A pointer to vector k from an address on."""
    return builder.gep(builder.inttoptr(address, _VECTOR.as_pointer()), [k])


def _spread(builder, value):
    """A vector of one value, of whichever type."""
    vector, index = ir.VectorType(value.type, LANES), ir.IntType(32)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(index, 0))
    return builder.shuffle_vector(
        first, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(index, LANES), None)
    )


def _reduce(builder, vector, combine):
    """All lanes combined, half with half."""
    width = LANES
    while width > 1:
        width //= 2
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [*range(width, 2 * width), *range(LANES - width)])
        vector = combine(vector, builder.shuffle_vector(vector, vector, order))
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


@intrinsic
def shift_row(typingctx, z, t, n, ld):
    """t = z - max z of a row of n; the padding up to ld becomes what exp makes 0 of.  -> max z; NaN is no maximum."""

    def codegen(context, builder, signature, args):
        z, t, n, ld = args
        lowest, n = ir.Constant(_VECTOR, [-np.inf] * LANES), _spread(builder, n)
        best = cgutils.alloca_once_value(builder, lowest)
        count = builder.udiv(ld, ir.Constant(_LONG, LANES))
        lanes = ir.Constant(ir.VectorType(_LONG, LANES), list(range(LANES)))

        def row_vector(k):
            first = _spread(builder, builder.mul(k, ir.Constant(_LONG, LANES)))
            inside = builder.icmp_signed("<", builder.add(first, lanes), n)
            return builder.load(_vector_at(builder, z, k), align=ITEM), inside

        def greater(x, y):
            return builder.select(builder.fcmp_ordered(">", x, y), x, y)

        with cgutils.for_range(builder, count) as loop:
            values, inside = row_vector(loop.index)
            builder.store(greater(builder.select(inside, values, lowest), builder.load(best)), best)
        top = _reduce(builder, builder.load(best), greater)
        spread, far = _spread(builder, top), ir.Constant(_VECTOR, [float(EXP_LOW)] * LANES)
        with cgutils.for_range(builder, count) as loop:
            values, inside = row_vector(loop.index)
            shifted = builder.select(inside, builder.fsub(values, spread), far)
            builder.store(shifted, _vector_at(builder, t, loop.index), align=ITEM)
        return top

    return (types.float64 if DOUBLE else types.float32)(*[types.int64] * 4), codegen


@intrinsic
def sum_row(typingctx, t, ld):
    """The sum of a padded row."""

    def codegen(context, builder, signature, args):
        t, ld = args
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * LANES))
        with cgutils.for_range(builder, builder.udiv(ld, ir.Constant(_LONG, LANES))) as loop:
            values = builder.load(_vector_at(builder, t, loop.index), align=ITEM)
            builder.store(builder.fadd(builder.load(total), values), total)
        return _reduce(builder, builder.load(total), builder.fadd)

    return (types.float64 if DOUBLE else types.float32)(types.int64, types.int64), codegen


@intrinsic
def scale_row(typingctx, t, factor, out, ld):
    """out = t * factor, a padded row."""

    def codegen(context, builder, signature, args):
        t, factor, out, ld = args
        spread = _spread(builder, factor)
        with cgutils.for_range(builder, builder.udiv(ld, ir.Constant(_LONG, LANES))) as loop:
            values = builder.load(_vector_at(builder, t, loop.index), align=ITEM)
            builder.store(builder.fmul(values, spread), _vector_at(builder, out, loop.index), align=ITEM)
        return context.get_dummy_value()

    real = types.float64 if DOUBLE else types.float32
    return types.void(types.int64, real, types.int64, types.int64), codegen


@njit(**OPTIONS)
def shifted_exponentials(rows, n, ld, z, t, top_, sum_):
    """t (rows, ld) = exp(z - top); top and sum (rows,) the maximum and the sum of exponentials of each row."""
    top, total, e = reals(top_, rows), reals(sum_, rows), reals(t, rows * ld)
    for r in range(rows):
        top[r] = shift_row(z + r * ld * ITEM, t + r * ld * ITEM, n, ld)
    for i in range(rows * ld):
        e[i] = exp_(e[i])
    for r in range(rows):
        total[r] = sum_row(t + r * ld * ITEM, ld)


@njit(**OPTIONS)
def scaled(rows, ld, t, factor_, out):
    """out (rows, ld) = t * factor, row by row; the padding is 0 in both."""
    factor = reals(factor_, rows)
    for r in range(rows):
        scale_row(t + r * ld * ITEM, factor[r], out + r * ld * ITEM, ld)


@njit(**OPTIONS)
def softmax_rows(rows, n, ld, z, out, scratch):
    """out (rows, n), compact.  scratch: CLASS_ROWS * (ld + 2)"""
    top, total = scratch, scratch + CLASS_ROWS * ITEM
    t = total + CLASS_ROWS * ITEM
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z + r * ld * ITEM, t, top, total)
        factor = reals(total, m)
        for i in range(m):
            scale_row(t + i * ld * ITEM, REAL(1.0) / factor[i], t + i * ld * ITEM, ld)
            copy(out + (r + i) * n * ITEM, t + i * ld * ITEM, n * ITEM)


@njit(**OPTIONS)
def log_loss_rows(rows, n, ld, z_, classes_, weight_, delta_, row_loss_, scratch, parameters):
    """Label smoothing e: -sum_k t_k log p_k, t = (1 - e) onehot + e / n; delta = p - t.  e = 0: clipped log loss."""
    low, high = REAL(-np.log1p(-EPSILON)), REAL(-np.log(EPSILON))
    smoothing = doubles(parameters, 1)[0]
    on, off = REAL(1.0 - smoothing), REAL(smoothing / n)
    top_, sum_ = scratch, scratch + CLASS_ROWS * ITEM
    t = sum_ + CLASS_ROWS * ITEM
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z_ + r * ld * ITEM, t, top_, sum_)
        top, total, classes = reals(top_, m), reals(sum_, m), longs(classes_ + 8 * r, m)
        z, delta = reals(z_ + r * ld * ITEM, m * ld), reals(delta_ + r * ld * ITEM, m * ld)
        row_loss = doubles(row_loss_ + 8 * r, m)
        if smoothing > 0.0:
            for i in range(m):
                everything = REAL(0.0)
                for j in range(n):
                    everything += z[i * ld + j] - top[i]
                own = on * (z[i * ld + classes[i]] - top[i]) + off * everything
                row_loss[i] = np.float64(log_(total[i]) - own)
        else:
            for i in range(m):
                top[i] = z[i * ld + classes[i]] - top[i]
            for i in range(m):
                value = log_(total[i]) - top[i]
                value = select(value < low, low, value)
                row_loss[i] = np.float64(select(value > high, high, value))
        if weight_:
            weight = reals(weight_ + r * ITEM, m)
            for i in range(m):
                row_loss[i] *= np.float64(weight[i])
                total[i] = weight[i] / total[i]
        else:
            for i in range(m):
                total[i] = REAL(1.0) / total[i]
        scaled(m, ld, t, sum_, delta_ + r * ld * ITEM)
        for i in range(m):
            one = reals(weight_ + (r + i) * ITEM, 1)[0] if weight_ else REAL(1.0)
            if smoothing > 0.0:
                for j in range(n):
                    delta[i * ld + j] -= off * one
            delta[i * ld + classes[i]] -= on * one


@njit(**OPTIONS)
def focal_rows(rows, n, ld, z_, classes_, weight_, delta_, row_loss_, scratch, parameters):
    """-(1 - p)^g log p with p = p_c; delta = (p - onehot(c)) ((1 - p)^g - g (1 - p)^(g - 1) p log p)."""
    gamma = doubles(parameters, 1)[0]
    top_, sum_ = scratch, scratch + CLASS_ROWS * ITEM
    t_ = sum_ + CLASS_ROWS * ITEM
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z_ + r * ld * ITEM, t_, top_, sum_)
        top, total, classes = reals(top_, m), reals(sum_, m), longs(classes_ + 8 * r, m)
        t, z, row_loss = reals(t_, m * ld), reals(z_ + r * ld * ITEM, m * ld), doubles(row_loss_ + 8 * r, m)
        for i in range(m):
            others = 0.0  # the other classes' exponentials: 1 - p without cancellation
            for j in range(n):
                if j != classes[i]:
                    others += np.float64(t[i * ld + j])
            p, q = np.float64(t[i * ld + classes[i]]) / np.float64(total[i]), others / np.float64(total[i])
            w = np.float64(reals(weight_ + (r + i) * ITEM, 1)[0]) if weight_ else 1.0
            log_p = np.float64(z[i * ld + classes[i]] - top[i]) - np.log(np.float64(total[i]))
            if q < 0.5:
                log_p = np.log1p(-q)
            power = q**gamma
            slope = gamma * power / q * p * log_p if q > 0.0 else 0.0
            row_loss[i] = -power * log_p * w
            factor = (power - slope) * w
            top[i] = REAL(-q * factor)  # p_c - 1 without cancellation
            total[i] = REAL(factor / np.float64(total[i]))
        scaled(m, ld, t_, sum_, delta_ + r * ld * ITEM)
        delta = reals(delta_ + r * ld * ITEM, m * ld)
        for i in range(m):
            delta[i * ld + classes[i]] = top[i]


@njit(**OPTIONS)
def kl_rows(rows, n, ld, z_, y_, weight_, delta_, row_loss_, scratch):
    """sum_k y_k (log y_k - log p_k); delta = p sum(y) - y."""
    top_, sum_ = scratch, scratch + CLASS_ROWS * ITEM
    t_ = sum_ + CLASS_ROWS * ITEM
    for r in range(0, rows, CLASS_ROWS):
        m = min(CLASS_ROWS, rows - r)
        shifted_exponentials(m, n, ld, z_ + r * ld * ITEM, t_, top_, sum_)
        top, total, y = reals(top_, m), reals(sum_, m), reals(y_ + r * n * ITEM, m * n)
        z, row_loss = reals(z_ + r * ld * ITEM, m * ld), doubles(row_loss_ + 8 * r, m)
        for i in range(m):
            w = reals(weight_ + (r + i) * ITEM, 1)[0] if weight_ else REAL(1.0)
            log_sum, value, everything = np.log(np.float64(total[i])), 0.0, 0.0
            for j in range(n):
                target = np.float64(y[i * n + j])
                everything += target
                entropy = target * np.log(target) if target > 0.0 else 0.0 * target
                value += entropy - target * (np.float64(z[i * ld + j] - top[i]) - log_sum)
            row_loss[i] = value * np.float64(w)
            total[i] = REAL(everything) * w / total[i]
        scaled(m, ld, t_, sum_, delta_ + r * ld * ITEM)
        delta = reals(delta_ + r * ld * ITEM, m * ld)
        for i in range(m):
            w = reals(weight_ + (r + i) * ITEM, 1)[0] if weight_ else REAL(1.0)
            for j in range(n):
                delta[i * ld + j] -= y[i * n + j] * w


@njit(**OPTIONS)
def loss_rows(kind, rows, n, ld, z, y, classes, weight, delta, row_loss, scratch, parameters):
    """Any loss: row_loss (rows,) = weight * loss, and delta = d loss / d z * weight.

    scratch: max(rows, CLASS_ROWS) * (3 * n + ld + 2); ld a multiple of LANES
    """
    if kind == SOFTMAX_LOSS:
        log_loss_rows(rows, n, ld, z, classes, weight, delta, row_loss, scratch, parameters)
    elif kind == FOCAL_LOSS:
        focal_rows(rows, n, ld, z, classes, weight, delta, row_loss, scratch, parameters)
    elif kind == KL_LOSS:
        kl_rows(rows, n, ld, z, y, weight, delta, row_loss, scratch)
    else:
        call_loss(kind, rows, n, ld, z, y, weight, delta, row_loss, scratch, parameters)


# --- backward --------------------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def input_delta(net, layers, call, step, team, member, k, at, lo, n, all_rows):
    """delta of layer k - 1 = delta W^T of layer k, back through dropout, activation, normalisation; a member's rows."""
    layer, below = layers[k], layers[k - 1]
    ld, ld_in = layer[LD_OUT], layer[LD_IN]
    source, to = layer[DELTA] + lo * ld * ITEM, below[DELTA] + lo * ld_in * ITEM
    drops = below[THRESHOLD] != 0
    if is_large(net, n, ld_in, layer[FAN_OUT]):
        blas_product(n, ld_in, layer[FAN_OUT], source, ld, False, layer[WT], ld_in, False, to, ld_in, REAL(0.0))
        if drops:
            drop(layers, call, step, k - 1, at + lo, n, to)
        stage_backward(below, lo, n)
    else:
        block = block_rows(ld_in, layer[FAN_OUT])
        for r in range(0, n, block):
            m = min(block, n - r)
            target = to + r * ld_in * ITEM
            gemm(
                m, ld_in, layer[FAN_OUT], source + r * ld * ITEM, ld, 1, layer[WT], ld_in, target, ld_in,
                net[ZEROS], 0, block,
            )  # fmt: skip
            if drops:
                drop(layers, call, step, k - 1, at + lo + r, m, target)
            stage_backward(below, lo + r, m)
    if net[BATCH_NORM]:
        denormalize(net, below, team, member, lo, n, all_rows)


@njit(**OPTIONS)
def column_sums(n, ld, source, to, accumulate):
    total = reals(to, ld)
    if not accumulate:
        total[:] = REAL(0.0)
    for r in range(n):
        row = reals(source + r * ld * ITEM, ld)
        for j in range(ld):
            total[j] += row[j]


@njit(**INLINE)
def share_at(net, member, team):
    """A member's share of the parameters; see LAYER_SHARES."""
    entries = net[SHARE_ENTRIES]
    return longs(net[SHARES] + 8 * entries * (member + 1 if team else 0), entries)


@njit(**OPTIONS)
def gradients(net, layers, call, step, share, first, at, n):
    """Sums over the rows of the chunk, added to those of the chunks before it in the batch; a member's parameters."""
    to_grad, accumulate = net[GRAD] - net[PARAMS], at > 0
    for k in range(net[N_LAYERS]):
        layer = layers[k]
        begin, end = share[LAYER_SHARES + 3 * k], share[LAYER_SHARES + 3 * k + 1]
        rows, ld_in, ld = end - begin, layer[LD_IN], layer[LD_OUT]
        grad_w, grad_b = layer[W] + begin * ld * ITEM + to_grad, layer[B] + to_grad
        x = (layers[k - 1, OUT] if k else net[INPUT]) + begin * ITEM
        if rows == 0:
            pass
        elif k == 0 and call[INDPTR]:
            if not accumulate:
                clear(grad_w, rows * ld)
            sparse_weight_gradient(net, layers, call, step, first, at, n, layer[W] + to_grad, begin, end)
        elif is_large(net, rows, ld, n):
            blas_product(rows, ld, n, x, ld_in, True, layer[DELTA], ld, False, grad_w, ld, REAL(accumulate))
        else:
            init, stride = net[ZEROS], 0
            if accumulate:
                init, stride = grad_w, ld
            gemm(rows, ld, n, x, 1, ld_in, layer[DELTA], ld, grad_w, ld, init, stride, BLOCK_ROWS)
        if share[LAYER_SHARES + 3 * k + 2] == 0:
            continue
        if layer[SCALE]:
            clear(grad_b, ld)  # the mean takes the bias away; its gradient is nothing but rounding
        else:
            column_sums(n, ld, layer[DELTA], grad_b, accumulate)
        if layer[SLOPE]:
            column_sums(n, ld, layer[PRODUCT], layer[SLOPE] + to_grad, accumulate)


@njit(**SUMS)
def part_of_squares(p):
    total = REAL(0.0)
    for k in range(len(p)):
        total += p[k] * p[k]
    return np.float64(total)


@njit(**SUMS)
def part_of_magnitudes(p):
    total = 0.0
    for k in range(len(p)):
        total += np.float64(abs(p[k]))
    return total


@njit(**OPTIONS)
def sum_parts(team, member, squares, address, n, to):
    """A member's parts of a sum of n squares or magnitudes: parts[i] is that of numbers i * PART .. (i + 1) * PART."""
    begin, end = share_of((n + PART - 1) // PART, member, team)
    parts = doubles(to, end)
    for i in range(begin, end):
        p = reals(address + i * PART * ITEM, min(PART, n - i * PART))
        parts[i] = part_of_squares(p) if squares else part_of_magnitudes(p)


@njit(**OPTIONS)
def sum_of_parts(n, address):
    """The sum of n numbers whose parts are known."""
    total, parts = 0.0, doubles(address, (n + PART - 1) // PART)
    for i in range(len(parts)):
        total += parts[i]
    return total


@njit(**OPTIONS)
def scale_gradient(net, begin, end, scale):
    g, s = reals(net[GRAD] + begin * ITEM, end - begin), REAL(scale)
    for i in range(end - begin):
        g[i] *= s


@njit(**OPTIONS)
def finish_gradient(net, share, alpha, l1, scale):
    """A member's part of the gradient as the caller of loss_and_grad sees it, penalty and scale included."""
    begin, n = share[WEIGHTS_FROM], share[WEIGHTS_TO] - share[WEIGHTS_FROM]
    p, g = reals(net[PARAMS] + begin * ITEM, n), reals(net[GRAD] + begin * ITEM, n)
    a, b, s = REAL(alpha), REAL(l1), REAL(scale)
    for i in range(n):
        sign = select(p[i] > REAL(0.0), REAL(1.0), select(p[i] < REAL(0.0), REAL(-1.0), REAL(0.0)))
        g[i] = (g[i] + a * p[i] + b * sign) * s
    scale_gradient(net, share[BIASES_FROM], share[BIASES_TO], scale)
    scale_gradient(net, share[UNITS_FROM], share[UNITS_TO], scale)


@njit(**OPTIONS)
def update_range(net, call, step, begin, end, alpha, l1, scale, keep):
    if begin < end:
        at = begin * ITEM
        call_rule(
            call[RULE], end - begin, net[PARAMS] + at, net[GRAD] + at, net[STATES] + at, net[STATE_BYTES],
            call[SCALARS] + 8 * step * call[N_SCALARS], alpha, l1, scale, keep,
        )  # fmt: skip


@njit(**OPTIONS)
def update(net, call, step, team, member, share, alpha, l1, scale, max_norm):
    """From the sums over the batch's rows to a member's new parameters."""
    keep = 1.0 - doubles(call[DECAYS] + 8 * step, 1)[0] if call[DECAYS] else 1.0
    if max_norm > 0.0:
        finish_gradient(net, share, alpha, l1, scale)
        n, parts = net[N_TRAINED], net[PARTS] + 16 * net[N_PARTS]
        barrier(team)
        sum_parts(team, member, True, net[GRAD], n, parts)
        barrier(team)
        factor = max_norm / (np.sqrt(sum_of_parts(n, parts)) + 1e-6)
        scale = 1.0 if factor >= 1.0 else factor  # lets NaN through
        alpha, l1 = 0.0, 0.0
    update_range(net, call, step, share[WEIGHTS_FROM], share[WEIGHTS_TO], alpha, l1, scale, keep)
    update_range(net, call, step, share[BIASES_FROM], share[BIASES_TO], 0.0, 0.0, scale, keep)
    update_range(net, call, step, share[UNITS_FROM], share[UNITS_TO], 0.0, 0.0, scale, keep)


# --- what is called from Python --------------------------------------------------------------------------------------


@njit(**INLINE)
def tables(net_, layers_, call_):
    """The three tables at their addresses: unlike arrays from Python, nobody counts references to these."""
    net = longs(net_, NET_ENTRIES)
    layers = longs(layers_, net[N_LAYERS] * LAYER_COLUMNS).reshape(net[N_LAYERS], LAYER_COLUMNS)
    return net, layers, longs(call_, CALL_ENTRIES)


@njit(**OPTIONS)
def pack(net, team, member, flat, padded):
    """A member's rows of a vector as the caller sees it -> the padded vector."""
    segments = longs(net[SEGMENTS], 5 * net[N_SEGMENTS])
    for s in range(net[N_SEGMENTS]):
        at, to = segments[5 * s], segments[5 * s + 1]
        width, ld = segments[5 * s + 3], segments[5 * s + 4]
        begin, end = share_of(segments[5 * s + 2], member, team)
        for i in range(begin, end):
            row = reals(padded + (to + i * ld) * ITEM, ld)
            copy(padded + (to + i * ld) * ITEM, flat + (at + i * width) * ITEM, width * ITEM)
            for j in range(width, ld):  # NaN times its zeros may have spoilt the padding
                row[j] = REAL(0.0)


@njit(**OPTIONS)
def unpack(net, team, member, padded, flat):
    """And back."""
    segments = longs(net[SEGMENTS], 5 * net[N_SEGMENTS])
    for s in range(net[N_SEGMENTS]):
        at, to = segments[5 * s], segments[5 * s + 1]
        width, ld = segments[5 * s + 3], segments[5 * s + 4]
        begin, end = share_of(segments[5 * s + 2], member, team)
        for i in range(begin, end):
            copy(flat + (at + i * width) * ITEM, padded + (to + i * ld) * ITEM, width * ITEM)


@njit(**OPTIONS)
def outside(address, n, limit):
    """Whether one of n indices is not in [0, limit)."""
    wrong, indices = 0, longs(address, n)
    for i in range(n):
        wrong |= np.int64(indices[i] < 0) | np.int64(indices[i] >= limit)
    return wrong != 0


@njit(**OPTIONS)
def points_outside(call):
    """Whether a row or a class of an epoch does not exist; they may have been edited since the epoch before."""
    if not call[X_ROWS]:
        return False
    if outside(call[ROWS], call[N_ROWS], call[X_ROWS]):
        return True
    return call[N_CLASSES] > 0 and outside(call[Y], call[X_ROWS], call[N_CLASSES])


@njit(**OPTIONS)
def transpose_weights(net, layers, share):
    for k in range(1, net[N_LAYERS]):
        layer, begin, end = layers[k], share[LAYER_SHARES + 3 * k], share[LAYER_SHARES + 3 * k + 1]
        transpose(begin, end, layer[FAN_OUT], layer[LD_OUT], layer[W], layer[LD_IN], layer[WT])


@njit(**OPTIONS)
def train_step(net, layers, call, step, team, member, alpha, l1, max_norm):
    """-> sum of the rows' losses with the penalty, for member 0 only; sum of weights; weight 0: nothing was done.

    All members take the same way through the barriers: what they decide by is the same for all.
    """
    start = step * call[BATCH_SIZE]
    rows = min(call[BATCH_SIZE], call[N_ROWS] - start)
    loss, weight, last = 0.0, 0.0, net[N_LAYERS] - 1
    top, share = layers[last], share_at(net, member, team)
    scratch = net[SCRATCH] + member * net[SCRATCH_BYTES]
    squares, magnitudes = net[PARTS], net[PARTS] + 8 * net[N_PARTS]
    weights = net[WEIGHT] if call[SAMPLE_WEIGHT] else 0
    if alpha != 0.0:  # summed here, where a barrier follows anyway
        sum_parts(team, member, True, net[PARAMS], net[N_WEIGHTS], squares)
    if l1 != 0.0:
        sum_parts(team, member, False, net[PARAMS], net[N_WEIGHTS], magnitudes)
    for r in range(0, rows, net[MAX_ROWS]):
        n = min(net[MAX_ROWS], rows - r)
        lo, hi = rows_of(n, member, team)
        gather_targets(net, layers, call, start + r + lo, lo, hi - lo)
        forward(net, layers, call, step, team, member, start + r, r, lo, hi - lo, n)
        z, top_weights = lo * top[LD_OUT] * ITEM, weights + lo * ITEM if weights else 0
        loss_rows(
            net[LOSS], hi - lo, top[FAN_OUT], top[LD_OUT], top[Z] + z, net[TARGETS] + lo * top[FAN_OUT] * ITEM,
            net[CLASSES] + 8 * lo, top_weights, top[DELTA] + z, net[ROW_LOSS] + 8 * lo, scratch, net[LOSS_PARAMETERS],
        )  # fmt: skip
        for k in range(last, 0, -1):
            input_delta(net, layers, call, step, team, member, k, r, lo, hi - lo, n)
        barrier(team)
        if member == 0:
            row_loss = doubles(net[ROW_LOSS], n)
            for i in range(n):
                loss += row_loss[i]
        if weights:
            w = reals(weights, n)
            for i in range(n):
                weight += np.float64(w[i])
        else:
            weight += n
        gradients(net, layers, call, step, share, start + r, r, n)
        if r + n < rows:
            barrier(team)  # the next chunk takes the place of this one
    if weight == 0.0:
        barrier(team)
        return 0.0, 0.0
    if member == 0:
        if alpha != 0.0:
            loss += 0.5 * alpha * sum_of_parts(net[N_WEIGHTS], squares)
        if l1 != 0.0:
            loss += l1 * sum_of_parts(net[N_WEIGHTS], magnitudes)
    if call[RULE]:
        update(net, call, step, team, member, share, alpha, l1, 1.0 / weight, max_norm)
        transpose_weights(net, layers, share)
        if net[BATCH_NORM] and member == 0:
            for k in range(last):
                update_running(layers[k], rows)
    else:
        finish_gradient(net, share, alpha, l1, 1.0 / weight)
    barrier(team)
    return loss, weight


@njit(**KERNEL)
def train(net_, layers_, call_, team, member, alpha, l1, max_norm):
    """Steps FIRST .. LAST of an epoch; -> sum of the batches' losses times their rows, for member 0.

    DONE counts the steps: fewer than LAST where a batch's weights sum to zero, -1 where an index points outside.
    team: the address of its cells, 0 for one that works alone; where a member gives up before all are here, the others
    do nothing.  A member other than 0 looks at no table after the last barrier: its caller may be gone.
    """
    if team and not meet(team, True):
        if member == 0:
            longs(team, TEAM_CELLS)[GAVE_UP] = 1
        return 0.0
    net, layers, call = tables(net_, layers_, call_)
    step, last, unpacks = call[FIRST], call[LAST], call[UNPACK] != 0
    if call[PACK]:
        if member == 0 and points_outside(call):
            call[DONE] = -1
        pack(net, team, member, call[FLAT], net[PARAMS])
        for k in range(net[N_STATES]):
            pack(net, team, member, long_at(call[FLAT_STATES] + 8 * k), net[STATES] + k * net[STATE_BYTES])
        barrier(team)
        wrong = call[DONE] < 0
        if not wrong:
            transpose_weights(net, layers, share_at(net, member, team))
        barrier(team)
        if wrong:
            return 0.0
    total = 0.0
    while step < last:
        loss, weight = train_step(net, layers, call, step, team, member, alpha, l1, max_norm)
        if weight == 0.0:
            break
        if member == 0:
            rows = min(call[BATCH_SIZE], call[N_ROWS] - step * call[BATCH_SIZE])
            total += loss / weight * rows
            call[DONE] = step + 1
        step += 1
    if unpacks or step < last:
        if call[RULE]:
            unpack(net, team, member, net[PARAMS], call[FLAT])
            for k in range(net[N_STATES]):
                states = net[STATES] + k * net[STATE_BYTES]
                unpack(net, team, member, states, long_at(call[FLAT_STATES] + 8 * k))
        else:
            unpack(net, team, member, net[GRAD], call[OUTPUT])
        barrier(team)
        if member == 0:
            call[UNPACKED] = 1
    return total


@njit(**KERNEL)
def predict(net_, layers_, call_):
    """OUTPUT = link(logits) of rows FIRST .. LAST; whether they were finite."""
    net, layers, call = tables(net_, layers_, call_)
    if call[PACK]:
        pack(net, 0, 0, call[FLAT], net[PARAMS])
    top = layers[net[N_LAYERS] - 1]
    n_outputs, finite, first = top[FAN_OUT], True, call[FIRST]
    while first < call[LAST]:
        n = min(net[MAX_ROWS], call[LAST] - first)
        finite = forward(net, layers, call, 0, 0, 0, first, 0, 0, n, n) and finite
        out = call[OUTPUT] + first * n_outputs * ITEM
        if net[LINK] == SOFTMAX_LOSS:
            softmax_rows(n, n_outputs, top[LD_OUT], top[Z], out, net[SCRATCH])
        else:
            for r in range(n):
                copy(out + r * n_outputs * ITEM, top[Z] + r * top[LD_OUT] * ITEM, n_outputs * ITEM)
            if net[LINK]:
                call_value(net[LINK], n * n_outputs, out, 0)
        first += n
    return finite


@njit(**KERNEL)
def product(m, n, k, a, rs, cs, b, ldb, c, init, init_stride):
    """C (m, n) = init + A B for callers by name; n a multiple of LANES, and the row stride of C."""
    gemm(m, n, k, a, rs, cs, b, ldb, c, n, init, init_stride, BLOCK_ROWS)


@njit(**KERNEL)
def softmax(rows, n, ld, z, out, scratch):
    softmax_rows(rows, n, ld, z, out, scratch)


@njit(**KERNEL)
def loss(kind, rows, n, ld, z, y, classes, weight, delta, row_loss, scratch, parameters):
    loss_rows(kind, rows, n, ld, z, y, classes, weight, delta, row_loss, scratch, parameters)


@njit(**KERNEL)
def apply_value(function, n, a, parameters):
    call_value(function, n, a, parameters)


@njit(**KERNEL)
def apply_backward(function, n, z, a, delta, parameters):
    call_backward(function, n, z, a, delta, parameters)


@njit(**KERNEL)
def apply_rule(function, n, p, g, states, stride, scalars):
    call_rule(function, n, p, g, states, stride, scalars, 0.0, 0.0, 1.0, 1.0)


@njit(**KERNEL)
def out_of_range(address, n, limit):
    """See outside."""
    return outside(address, n, limit)
