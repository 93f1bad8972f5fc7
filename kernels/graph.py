"""Formulas as graphs of operations, simplified.

Where it sits: syntax.py reads a formula into a :class:`Graph`, derivative.py adds its slope, program.py compiles a node
of it into what engines run.  Every walk visits a node once, however often it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# --- operations ---------------------------------------------------------------------------------------------------

#: Functions of the formula language, each of one argument.
FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt", "abs")
#: Selects: ``a if c OP d else b``; a comparison with NaN is false.  Greater-than is less-than with c and d swapped.
SELECTS = {"select_lt": "<", "select_le": "<=", "select_eq": "==", "select_ne": "!="}
#: Operation -> its number in a program; functions and selects are consecutive and in this order.
OPS: dict[str, int] = {
    name: number for number, name in enumerate(("add", "sub", "mul", "div", "neg", *FUNCTIONS, *SELECTS))
}


def _erf(x: Any) -> Any:
    from scipy.special import erf  # only formulas with erf pay for this import

    return erf(x)


#: Operation -> the same in NumPy; operands in the order of a program's columns.
EVALUATE: dict[str, Callable] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    **{name: _erf if name == "erf" else getattr(np, name) for name in FUNCTIONS},
    "select_lt": lambda a, b, c, d: np.where(c < d, a, b),
    "select_le": lambda a, b, c, d: np.where(c <= d, a, b),
    "select_eq": lambda a, b, c, d: np.where(c == d, a, b),
    "select_ne": lambda a, b, c, d: np.where(c != d, a, b),
}


# --- the graph ----------------------------------------------------------------------------------------------------

#: Most nodes of a graph: a formula, its slope, and what both pass on the way.
MAX_NODES = 10_000


class TooLong(Exception):
    """A formula is longer than a limit; language.py adds which formula."""


class Graph:
    """Expressions as nodes in the order of evaluation, equal ones once.

    A node is ``("input", number)``, ``("constant", value)`` or ``(operation, *operands)``, its operands in the order
    of a program's columns: a select is ``(operation, a, b, c, d)``.  Simplifications keep every bit of the result,
    except for two rewritings that are more accurate than what they replace (:meth:`_simplify`).
    """

    def __init__(self) -> None:
        self.nodes: list[tuple] = []
        self._ids: dict[tuple, int] = {}
        self._inside: list[frozenset[str]] = []  # operations on the way to each node
        self.zero, self.one = self.constant(0.0), self.constant(1.0)

    def _node(self, key: tuple, node: tuple, inside: frozenset[str]) -> int:
        if key not in self._ids:
            if len(self.nodes) >= MAX_NODES:
                raise TooLong(f"it takes more than {MAX_NODES} different terms")
            self._ids[key] = len(self.nodes)
            self.nodes.append(node)
            self._inside.append(inside)
        return self._ids[key]

    def input(self, number: int) -> int:
        """An input; it lies in the register of this number."""
        return self._node(("input", number), ("input", number), frozenset())

    def constant(self, value: float) -> int:
        """A constant, in double precision."""
        return self._node(("constant", float(value).hex()), ("constant", float(value)), frozenset())

    def value(self, node: int) -> float | None:
        """Value of a constant; None for any other node."""
        return self.nodes[node][1] if self.nodes[node][0] == "constant" else None

    def contains(self, node: int, *ops: str) -> bool:
        """Whether one of these operations has a part in the node."""
        return not self._inside[node].isdisjoint(ops)

    def apply(self, op: str, *x: int) -> int:
        """An operation on nodes, or the simpler node that it comes down to."""
        constants = [self.value(operand) for operand in x]
        if None not in constants:
            with np.errstate(all="ignore"):
                return self.constant(float(EVALUATE[op](*map(np.float64, constants))))
        simpler = self._simplify(op, *x)
        if simpler is not None:
            return simpler
        if op in ("add", "mul"):
            x = tuple(sorted(x))
        return self._node((op, *x), (op, *x), frozenset((op,)).union(*(self._inside[operand] for operand in x)))

    def _simplify(self, op: str, *x: int) -> int | None:
        """The simpler node that an operation comes down to, if there is one."""
        if op in SELECTS:
            return self._simplify_select(op, *x)
        if op in ("add", "sub"):
            return self._simplify_sum(op, *x)
        if op in ("mul", "div"):
            return self._simplify_product(op, *x)
        (a,) = x
        minus_a = self._negated(a)
        if op == "neg":
            return self._negated_product(a) if minus_a is None else minus_a
        if op == "abs":
            return a if self.nodes[a][0] in ("exp", "abs") else None if minus_a is None else self.apply("abs", minus_a)
        if op == "log" and self.nodes[a][0] == "exp":  # log(exp(u)) = u, also where exp(u) overflows
            return self.nodes[a][1]
        return None

    def _simplify_select(self, op: str, a: int, b: int, c: int, d: int) -> int | None:
        if a == b:
            return a
        constants = self.value(c), self.value(d)
        if None in constants:
            return None
        return a if bool(EVALUATE[op](True, False, *constants)) else b

    def _simplify_sum(self, op: str, a: int, b: int) -> int | None:
        minus_a, minus_b = self._negated(a), self._negated(b)
        if minus_b is not None:
            return self.apply("sub" if op == "add" else "add", a, minus_b)
        if op == "sub":
            return a if b == self.zero else self._complement(a, b)
        return None if minus_a is None else self.apply("sub", b, minus_a)

    def _simplify_product(self, op: str, a: int, b: int) -> int | None:
        if b == self.one:
            return a
        if op == "mul" and a == self.one:
            return b
        minus_a, minus_b = self._negated(a), self._negated(b)  # signs move outwards, where a sum takes them up
        if minus_a is not None:
            return self.apply("neg", self.apply(op, minus_a, b))
        if minus_b is not None:
            return self.apply("neg", self.apply(op, a, minus_b))
        if op == "mul" and self.value(a) == -1.0:
            return self.apply("neg", b)
        return self.apply("neg", a) if self.value(b) == -1.0 else None

    def _negated(self, node: int) -> int | None:
        """x where the node is -x."""
        return self.nodes[node][1] if self.nodes[node][0] == "neg" else None

    def _negated_product(self, node: int) -> int | None:
        """-(c * x) as (-c) * x; likewise for quotients with a constant."""
        op, *x = self.nodes[node]
        if op in ("mul", "div"):
            for side in (0, 1):
                if self.value(x[side]) is not None:
                    x[side] = self.apply("neg", x[side])
                    return self.apply(op, *x)
        return None

    def _complement(self, a: int, b: int) -> int | None:
        """1 - 1 / (1 + exp(u)) is 1 / (1 + exp(-u)), which keeps its digits where the difference loses them."""
        if a != self.one or self.nodes[b][0] != "div" or self.nodes[b][1] != self.one:
            return None
        op, *x = self.nodes[self.nodes[b][2]]
        if op != "add" or self.one not in x:
            return None
        other = x[1] if x[0] == self.one else x[0]
        if self.nodes[other][0] != "exp":
            return None
        e = self.apply("exp", self.apply("neg", self.nodes[other][1]))
        return self.apply("div", self.one, self.apply("add", self.one, e))

    def order(self, output: int) -> list[int]:
        """The operations that a node needs, in an order that keeps few results waiting."""
        need: dict[int, int] = {}  # registers that a node's evaluation takes
        for node in range(output + 1):
            op, *x = self.nodes[node]
            if op in ("input", "constant"):
                need[node] = 0
            else:
                needs = sorted((need[operand] for operand in set(x) if need[operand]), reverse=True)
                need[node] = max([1, *(n + waiting for waiting, n in enumerate(needs))])
        found: dict[int, None] = {}
        stack = [(output, False)]
        while stack:
            node, operands_done = stack.pop()
            if operands_done:
                found[node] = None
            elif node not in found and need[node]:
                stack.append((node, True))
                stack += [(operand, False) for operand in sorted(set(self.nodes[node][1:]), key=need.__getitem__)]
        return list(found)

    def replace(self, output: int, old: int, new: int) -> int:
        """The node ``output`` with ``new`` wherever it has ``old``."""
        become = {old: new}
        for node in self.order(output):
            if node not in become:
                op, *x = self.nodes[node]
                become[node] = self.apply(op, *(become.get(operand, operand) for operand in x))
        return become.get(output, output)
