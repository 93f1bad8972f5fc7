"""The one product behind everything: C = init + A B; see cython/gemm.h."""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastmlp.kernels.numba_cpu.template.math import *
from fastmlp.kernels.numba_cpu.template.tables import *

# --- network ---


def _tile_declaration(module, mr, nv):
    """The function of a tile: (depth, a, rs, cs, b, ldb, c, ldc, init, init_stride)."""
    pointer = _REAL.as_pointer()
    arguments = [_LONG, pointer, _LONG, _LONG, pointer, _LONG, pointer, _LONG, pointer, _LONG]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), f"fastmlp_tile_{mr}x{nv}")
    function.linkage = "internal"
    if VECTOR_BYTES == 64:  # processors that are slow to enter their widest mode: LLVM would halve the vectors
        set.add(function.attributes, '"min-legal-vector-width"="512" "prefer-vector-width"="512"')
    return function


def _tile_function(module, mr, nv):
    """C (mr, nv vectors) = init + sum_k A[m * rs + k * cs] * B[k * ldb + n]; the tile stays in registers over all k."""
    pointer, vector, function = _REAL.as_pointer(), ir.VectorType(_REAL, LANES), _tile_declaration(module, mr, nv)
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


@njit(**OPTIONS)
def transpose(first, end, n_columns, ld, w, ld_t, wt):
    """Columns first .. end of wt (n_columns, ld_t) = these rows of w (.., ld), a block of cache lines at a time."""
    source, to = reals(w, end * ld), reals(wt, n_columns * ld_t)
    for i0 in range(first, end, 16):
        for j0 in range(0, n_columns, 16):
            for j in range(j0, min(j0 + 16, n_columns)):
                for i in range(i0, min(i0 + 16, end)):
                    to[j * ld_t + i] = source[i * ld + j]
