"""The tables of integers that the driver reads, calls through addresses, memory.

All buffers are known by their addresses, which are integers, rows of the tables below; the formulas are C functions
compiled on their own and called through their addresses too, so that only those are ever compiled that are used.
workspace.py fills the tables by the names of their entries.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastmlp.kernels.numba_cpu.template.math import *

# --- network ---

LANES = VECTOR_BYTES // ITEM
TILE_VECTORS = 3

# Sizes at which one way gives way to another; see cython/tiers.h
SMALL_B_BYTES = 256 * 1024
L1_BYTES = 16 * 1024
BLOCK_ROWS = 192
DEPTH = 384
CLASS_ROWS = 64

# The columns of a layer's row are kernels/layer_table.py's: codegen puts their numbers in front

# The entries of the network's table
(
    N_LAYERS, MAX_ROWS, PARAMS, GRAD, STATES, STATE_BYTES, N_STATES, N_WEIGHTS, N_TRAINED, SEGMENTS, N_SEGMENTS, INPUT,
    IN_THRESHOLD, IN_RATE, TARGETS, CLASSES, WEIGHT, ROW_LOSS, SCRATCH, ZEROS, LOSS, LINK, LOSS_PARAMETERS,
    SCRATCH_BYTES, SHARES, SHARE_ENTRIES, PARTS, N_PARTS, LOSS_KIND, NET_ENTRIES,
) = range(30)  # fmt: skip

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
    DONE, UNPACKED, X_ROWS, N_CLASSES, STORED, CALL_ENTRIES,
) = range(32)  # fmt: skip

SOFTMAX = 1  # in LINK; anything else is a function's address
# in LOSS_KIND: terms of a row of softmax, not of a logit; y holds labels; outputs whose y is 0 have terms, too; a term
# reads p or q
OF_SOFTMAX, BY_LABEL, EVERY_OUTPUT, READS_P = 1, 2, 4, 8

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
def call_terms(typingctx, function, n, n_outputs, y, log_p, p, q, values, slopes, parameters):
    return _call(9, 0)(typingctx, function)


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
