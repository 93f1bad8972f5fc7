"""Instructions of PTX that numba-cuda has no function for, as functions of device code.

Where it sits: modules for tensor cores (codegen/tensor_cores.py) import it and hand over the text of each instruction,
so that the name of the module's machine code on disk changes with it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

FLOAT, BITS = ir.FloatType(), ir.IntType(32)


def _call(builder: Any, text: str, constraints: str, result: ir.Type, operands: list[Any]) -> Any:
    """Write an instruction; all lanes of a warp come to it together, so it must not move into a branch."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(ir.InlineAsm(kind, text, constraints), operands, attrs=("convergent", "nounwind", "readnone"))


def rounding(text: str) -> Any:
    """Return tf32(x): an instruction from a number to its TF32 number."""

    @intrinsic
    def tf32(context: Any, x: Any) -> Any:
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(_call(builder, text, "=r,f", BITS, args), FLOAT)

        return types.float32(types.float32), write

    return tf32


def multiplication(text: str) -> Any:
    """Return mma(a0 .. a3, b0, b1, c0 .. c3) -> (d0 .. d3): an instruction of a warp, parts of A B + C."""

    @intrinsic
    def mma(
        context: Any, a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any, c0: Any, c1: Any, c2: Any, c3: Any
    ) -> Any:  # fmt: skip
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            factors = [builder.bitcast(x, BITS) for x in args[:6]]
            found = _call(
                builder,
                text,
                "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
                ir.LiteralStructType([FLOAT] * 4),
                [*factors, *args[6:]],
            )
            results = [builder.extract_value(found, n) for n in range(4)]
            return context.make_tuple(builder, signature.return_type, results)

        return types.UniTuple(types.float32, 4)(*[types.float32] * 10), write

    return mma
