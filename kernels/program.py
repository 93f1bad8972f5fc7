"""Register programs: what a formula is compiled to, and how NumPy runs it.

Where it sits: language.py compiles users' formulas here once, in a moment; every engine runs the :class:`Program` block
by block over arrays (cython/program.h in C, :func:`run` in the reference engine).  No machine code is made, so that a
formula can travel as its source text.

Sources: order by register need, Sethi & Ullman 1970; registers by linear scan, Poletto & Sarkar 1999.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastmlp.kernels.graph import EVALUATE, FUNCTIONS, OPS, SELECTS, Graph, TooLong

#: Registers that an engine holds, the two inputs among them.
MAX_REGISTERS = 16
#: Most operations of a program: Numba compiles so many in a minute or two.
MAX_OPERATIONS = 2000


class Program(NamedTuple):
    """A formula as vector operations on registers, one array block to each.

    Registers 0 and 1 hold the inputs and are never written.  An operand below zero is a constant: operand ``-1 - k``
    is ``constants[k]``.  ``dst`` may be one of the operands.  Columns that an operation does not use are 0.

    * add, sub, mul, div: ``dst = a OP b``
    * neg and functions: ``dst = OP(a)``
    * selects: ``dst = a if c OP d else b``
    """

    instructions: np.ndarray  # int32 (n, 6): operation, dst, a, b, c, d; n may be 0
    constants: np.ndarray  # float64 (m,)
    n_registers: int  # the inputs among them
    output: int  # an operand: a register, maybe that of an input, or a constant


def compile_node(graph: Graph, output: int, n_inputs: int = 2) -> Program:
    """The program that computes a node.

    Raises
    ------
    TooLong
        If it has more than MAX_OPERATIONS operations, or needs more than MAX_REGISTERS registers.
    """
    order = graph.order(output)
    if len(order) > MAX_OPERATIONS:
        raise TooLong(f"it has {len(order)} operations, at most {MAX_OPERATIONS} are allowed")
    last_use = {operand: i for i, node in enumerate(order) for operand in graph.nodes[node][1:]}
    last_use[output] = len(order)
    operand_of: dict[int, int] = {}
    constants: list[float] = []
    free: list[int] = []
    n_registers = max(2, n_inputs)
    instructions = np.zeros((len(order), 6), dtype=np.int32)

    def operand(node: int) -> int:
        op, *x = graph.nodes[node]
        if op == "input":
            return x[0]
        if op == "constant" and node not in operand_of:
            constants.append(x[0])
            operand_of[node] = -len(constants)
        return operand_of[node]

    for i, node in enumerate(order):
        op, *x = graph.nodes[node]
        columns = [operand(child) for child in x]
        for child in set(x):
            if last_use[child] == i and graph.nodes[child][0] not in ("input", "constant"):
                heapq.heappush(free, operand_of[child])
        if not free:
            heapq.heappush(free, n_registers)
            n_registers += 1
        operand_of[node] = heapq.heappop(free)
        instructions[i, : 2 + len(x)] = [OPS[op], operand_of[node], *columns]
    if n_registers > MAX_REGISTERS:
        raise TooLong(f"it needs {n_registers} registers of {MAX_REGISTERS}")
    result = operand(output)  # maybe one more constant
    program = Program(instructions, np.array(constants, dtype=np.float64), n_registers, result)
    for array in (program.instructions, program.constants):
        array.flags.writeable = False
    return program


def run(program: Program, *inputs: Any, dtype: Any = None) -> np.ndarray:
    """Run a program on arrays, operation by operation.

    Parameters
    ----------
    program : Program
    *inputs : array_like
        What registers 0 and 1 hold; they broadcast against each other.
    dtype : dtype, optional
        Of the computation and the result; by default that of the inputs, float64 for integers.

    Returns
    -------
    ndarray
        A new array with the shape of the inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.kernels.graph import Graph
    >>> from fastmlp.kernels.program import compile_node, run
    >>> graph = Graph()
    >>> z = graph.input(0)
    >>> run(compile_node(graph, graph.apply("mul", z, z)), np.array([1.0, 2.0, 3.0]))
    array([1., 4., 9.])
    """
    # Python's own numbers have no say in the dtype
    inputs = tuple(x if isinstance(x, int | float) else np.asarray(x) for x in inputs)
    dtype = np.dtype(dtype or np.result_type(*inputs))
    if dtype.kind != "f":
        dtype = np.dtype(np.float64)
    registers: list[Any] = [np.asarray(x, dtype=dtype) for x in inputs]
    shape = np.broadcast_shapes(*(x.shape for x in registers))
    registers += [None] * (program.n_registers - len(registers))
    names = list(OPS)
    with np.errstate(all="ignore"):
        constants = program.constants.astype(dtype)

        def value(operand: int) -> Any:
            return registers[operand] if operand >= 0 else constants[-1 - operand]

        for op, dst, *columns in program.instructions.tolist():
            registers[dst] = EVALUATE[names[op]](*(value(x) for x in columns[: arity(names[op])]))
        return np.array(np.broadcast_to(value(program.output), shape), dtype=dtype)


def reads(program: Program, register: int) -> bool:
    """Whether a program's result depends on a register that it does not write itself, an input."""
    names = list(OPS)
    operands = [x for op, _, *columns in program.instructions.tolist() for x in columns[: arity(names[op])]]
    return register in (*operands, program.output)


def arity(op: str) -> int:
    """Number of operands of an operation."""
    return 4 if op in SELECTS else 1 if op in ("neg", *FUNCTIONS) else 2


def source_of(program: Program, name: str, arguments: Sequence[str]) -> str:
    """The program as a function in the formula language, to read and for engines that compile source text."""
    infix = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
    text: dict[int, str] = dict(enumerate(arguments))
    text |= {-1 - k: _literal(value) for k, value in enumerate(program.constants.tolist())}
    lines = [f"def {name}({', '.join(arguments)}):"]
    names = list(OPS)
    for i, (number, dst, *columns) in enumerate(program.instructions.tolist()):
        op = names[number]
        a, b, c, d = (text.get(x, "") for x in columns)
        if op in SELECTS:
            value = f"{a} if {c} {SELECTS[op]} {d} else {b}"
        else:
            value = f"{a} {infix[op]} {b}" if op in infix else f"-{a}" if op == "neg" else f"{op}({a})"
        text[dst] = f"t{i}"
        lines.append(f"    t{i} = {value}")
    return "\n".join([*lines, f"    return {text[program.output]}\n"])


def _literal(value: float) -> str:
    """A constant as the language can read it, which has no names for infinity and NaN."""
    if math.isnan(value):
        return "(1e999 - 1e999)"
    text = "1e999" if math.isinf(value) else repr(abs(value))
    return f"(-{text})" if math.copysign(1.0, value) < 0 else text
