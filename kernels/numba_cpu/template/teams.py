"""Teams: threads that work on one training, and the barriers at which they meet."""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastmlp.kernels.numba_cpu.template.math import *
from fastmlp.kernels.numba_cpu.template.tables import *

# --- network ---


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
