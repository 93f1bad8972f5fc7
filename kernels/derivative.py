"""Derivatives of formulas.

Where it sits: language.py asks a :class:`Derivative` for the slope of a node of a graph (graph.py) and compiles it
(program.py).  :class:`Facts` say which slopes may be infinite, so that only these pay for being guarded.

Source: forward-mode differentiation, Griewank & Walther 2008, chapter 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fastmlp.kernels.graph import SELECTS, Graph

# --- what the form of a node tells ----------------------------------------------------------------------------------


class Fact(NamedTuple):
    """What holds for a node, whatever finite numbers of moderate size its inputs are."""

    not_negative: bool = False
    not_positive: bool = False
    apart: bool = False  # its magnitude has a lower bound above 0
    never_zero: bool = False  # but it may underflow, as exp does
    finite: bool = False
    rough: bool = False  # it has a part with an infinite slope at a finite value: a square root at 0


class Facts:
    """Facts of a graph's nodes, from those of their operands."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: list[Fact] = []

    def __getitem__(self, node: int) -> Fact:
        for earlier in range(len(self._known), node + 1):  # operands come first: no recursion
            self._known.append(self._fact(*self.graph.nodes[earlier]))
        return self._known[node]

    def set_finite(self, node: int) -> None:
        """Note that a node is finite, for a reason that its form does not show."""
        self._known[node] = self[node]._replace(finite=True)

    def _fact(self, op: str, *x: int | float) -> Fact:
        if op == "input":
            return Fact(finite=True)
        if op == "constant":
            (value,) = x
            return Fact(value >= 0, value <= 0, value != 0, value != 0, math.isfinite(value))
        operands = [self._known[int(operand)] for operand in x[: 2 if op in SELECTS else None]]
        fact = getattr(self, f"_{'select' if op in SELECTS else op}")(*operands, *(x if len(x) > 1 else ()))
        return fact._replace(rough=fact.rough or any(operand.rough for operand in operands))

    def _add(self, a: Fact, b: Fact, *nodes: int) -> Fact:
        up, down = a.not_negative and b.not_negative, a.not_positive and b.not_positive
        apart, never_zero = ((up or down) and (x or y) for x, y in ((a.apart, b.apart), (a.never_zero, b.never_zero)))
        return Fact(up, down, apart, never_zero, a.finite and b.finite)

    def _sub(self, a: Fact, b: Fact, *nodes: int) -> Fact:
        return self._add(a, self._neg(b))

    def _mul(self, a: Fact, b: Fact, *nodes: int) -> Fact:
        up = (a.not_negative and b.not_negative) or (a.not_positive and b.not_positive)
        down = (a.not_negative and b.not_positive) or (a.not_positive and b.not_negative)
        (sign, one), (other_sign, other) = (self._without_constants(node) for node in nodes)
        if one == other:  # c * x * x
            up, down = up or sign == other_sign, down or sign != other_sign
        return Fact(up, down, a.apart and b.apart, a.never_zero and b.never_zero, a.finite and b.finite)

    def _without_constants(self, node: int) -> tuple[bool, int]:
        """Return (has the other sign, node) without constant factors and signs."""
        negative = False
        while True:
            op, *x = self.graph.nodes[node]
            values = [self.graph.value(operand) for operand in x] if op == "mul" else []
            if op == "neg":
                negative, node = not negative, x[0]
            elif values and values[0] is not None:
                negative, node = negative ^ (values[0] < 0), x[1]
            elif values and values[1] is not None:
                negative, node = negative ^ (values[1] < 0), x[0]
            else:
                return negative, node

    def _div(self, a: Fact, b: Fact, *nodes: int) -> Fact:
        product = self._mul(a, b, *nodes)
        return Fact(product.not_negative, product.not_positive, False, a.never_zero, a.finite and b.apart)

    def _neg(self, a: Fact) -> Fact:
        return a._replace(not_negative=a.not_positive, not_positive=a.not_negative)

    def _abs(self, a: Fact) -> Fact:
        return a._replace(not_negative=True, not_positive=False)

    def _sqrt(self, a: Fact) -> Fact:
        return Fact(True, False, a.apart, a.never_zero, a.finite, rough=not a.apart)

    def _exp(self, a: Fact) -> Fact:
        return Fact(True, False, a.not_negative, True, a.not_positive)

    def _expm1(self, a: Fact) -> Fact:
        return Fact(a.not_negative, a.not_positive, a.apart, a.never_zero, a.not_positive)

    def _log(self, a: Fact) -> Fact:
        return Fact(finite=a.finite and a.apart)

    def _log1p(self, a: Fact) -> Fact:
        return Fact(a.not_negative, a.not_positive, False, a.never_zero, a.finite and a.not_negative)

    def _tanh(self, a: Fact) -> Fact:
        return Fact(a.not_negative, a.not_positive, a.apart, a.never_zero, finite=True)

    _erf = _tanh

    def _select(self, a: Fact, b: Fact, *nodes: int) -> Fact:
        both = Fact(*(x and y for x, y in zip(a, b, strict=True)))
        if nodes[:2] == nodes[3:1:-1]:  # the larger of two
            return both._replace(not_negative=a.not_negative or b.not_negative)
        if nodes[:2] == nodes[2:]:  # the smaller
            return both._replace(not_positive=a.not_positive or b.not_positive)
        return both


#: Functions that are infinite where their argument is of moderate size.
_OVERFLOWING = ("exp", "expm1")


# --- derivatives ----------------------------------------------------------------------------------------------------


class Derivative:
    """Derivatives of a graph's nodes by one of its inputs, by the chain rule, node after node.

    Conditional expressions are differentiated branch by branch and the condition stays; abs has slope 0 at 0, and so
    has the square root of what has slope 0 where it is 0.

    A slope is finite where the true one is, though its parts may not be:

    * A quotient or a logarithm of something with exp or expm1 in it goes by relative derivatives ``x' / x``, whose
      limit is known where these overflow: so ``z / (1 + exp(-z))`` has slope 0 at z = -1000, and not inf / inf.
    * In a sum, a term that may be 0 goes by its own derivative where it is small, for its relative one may be infinite:
      so ``1 / (2 + z * exp(z))`` has slope -1/4 at 0, and not 0 * inf.
    * A factor of 0 wins over a slope that may be infinite: so ``z * sqrt(abs(z))`` has slope 0 at 0.
    """

    def __init__(self, graph: Graph, variable: int) -> None:
        self.graph, self.facts = graph, Facts(graph)
        self._of: dict[int, int] = {variable: graph.one}
        self._relative: dict[int, int] = {}

    def __call__(self, node: int) -> int:
        """d node / d variable."""
        for earlier in range(node):  # in order, so that no recursion gets deep
            self._derivative(earlier)
        return self._derivative(node)

    def _derivative(self, node: int) -> int:
        if node not in self._of:
            op, *x = self.graph.nodes[node]
            if op in ("input", "constant") or all(self._derivative(operand) == self.graph.zero for operand in x[:2]):
                self._of[node] = self.graph.zero
            else:
                self._of[node] = getattr(self, f"_{'select' if op in SELECTS else op}")(node, *x)
        return self._of[node]

    # sums and products that drop zeros: what does not depend on the variable has the derivative 0, exactly

    def _plus(self, a: int, b: int) -> int:
        return b if a == self.graph.zero else a if b == self.graph.zero else self.graph.apply("add", a, b)

    def _minus(self, a: int, b: int) -> int:
        if a == self.graph.zero:
            return self.graph.zero if b == a else self.graph.apply("neg", b)
        return a if b == self.graph.zero else self.graph.apply("sub", a, b)

    def _times(self, a: int, b: int) -> int:
        return self.graph.zero if self.graph.zero in (a, b) else self.graph.apply("mul", a, b)

    def _over(self, a: int, b: int) -> int:
        return a if a == self.graph.zero else self.graph.apply("div", a, b)

    def _damped(self, factor: int, slope: int) -> int:
        """factor * slope, and 0 where the factor is 0 while the slope may be infinite."""
        product = self._times(factor, slope)
        if self.facts[slope].finite:
            return product
        return self._unless_zero(factor, product)

    def _unless_zero(self, node: int, value: int) -> int:
        """The value, and 0 where the node is 0."""
        return self.graph.apply("select_eq", self.graph.zero, value, node, self.graph.zero)

    def _factor(self, factor: int, x: int) -> int:
        """factor * x', where a factor of 0 wins over the infinite slope of a root: its zero is of a higher order."""
        slope = self._derivative(x)
        if self.facts[x].rough and not self.facts[factor].rough:
            return self._damped(factor, slope)
        return self._times(factor, slope)

    # one rule per operation: (node, its operands) -> derivative

    def _add(self, node: int, a: int, b: int) -> int:
        return self._plus(self._derivative(a), self._derivative(b))

    def _sub(self, node: int, a: int, b: int) -> int:
        return self._minus(self._derivative(a), self._derivative(b))

    def _mul(self, node: int, a: int, b: int) -> int:
        if a == b:
            return self._times(self.graph.constant(2.0), self._times(a, self._derivative(a)))
        return self._plus(self._factor(b, a), self._factor(a, b))

    def _div(self, node: int, a: int, b: int) -> int:  # (a / b)' = a' / b - (a / b) b' / b
        if self.graph.contains(b, *_OVERFLOWING):
            return self._minus(self._over(self._derivative(a), b), self._damped(node, self._relative_to(b)))
        return self._over(self._minus(self._derivative(a), self._factor(node, b)), b)

    def _neg(self, node: int, a: int) -> int:
        return self._minus(self.graph.zero, self._derivative(a))

    def _exp(self, node: int, a: int) -> int:
        return self._damped(node, self._derivative(a))

    def _expm1(self, node: int, a: int) -> int:
        return self._damped(self.graph.apply("exp", a), self._derivative(a))

    def _log(self, node: int, a: int) -> int:
        return self._relative_to(a)

    def _log1p(self, node: int, a: int) -> int:
        return self._relative_to(self.graph.apply("add", self.graph.one, a))

    def _tanh(self, node: int, a: int) -> int:
        square = self.graph.apply("mul", node, node)
        return self._damped(self.graph.apply("sub", self.graph.one, square), self._derivative(a))

    def _erf(self, node: int, a: int) -> int:
        square = self.graph.apply("mul", a, a)
        density = self.graph.apply("exp", self.graph.apply("neg", square))
        scaled = self._times(self.graph.constant(2.0 / math.sqrt(math.pi)), density)
        return self._damped(scaled, self._derivative(a))

    def _sqrt(self, node: int, a: int) -> int:
        slope = self._derivative(a)
        quotient = self._over(self._times(self.graph.constant(0.5), slope), node)
        return quotient if self.facts[a].apart else self._unless_zero(slope, quotient)

    def _abs(self, node: int, a: int) -> int:
        slope = self._derivative(a)
        not_negative = self.graph.apply("select_eq", self.graph.zero, slope, a, self.graph.zero)
        return self.graph.apply("select_lt", self.graph.apply("neg", slope), not_negative, a, self.graph.zero)

    def _select(self, node: int, a: int, b: int, c: int, d: int) -> int:
        return self.graph.apply(self.graph.nodes[node][0], self._derivative(a), self._derivative(b), c, d)

    # relative derivatives

    def _relative_to(self, node: int) -> int:
        """Derivative of a node divided by the node."""
        stack = [node]
        while stack:  # those of its parts come first: no recursion
            missing = [part for part in self._relative_parts(stack[-1]) if part not in self._relative]
            if missing:
                stack += missing
            else:
                last = stack.pop()
                if last not in self._relative:
                    self._relative[last] = self._relative_rule(last)
        return self._relative[node]

    def _by_relatives(self, node: int) -> bool:
        return self.graph.contains(node, *_OVERFLOWING) and self._derivative(node) != self.graph.zero

    def _relative_parts(self, node: int) -> list[int]:
        """Nodes whose relative derivatives the rule of a node takes."""
        op, *x = self.graph.nodes[node]
        if not self._by_relatives(node):
            return []
        if op in ("neg", "abs", "mul", "div", "sqrt") or op in SELECTS:
            return x[:2]
        return [term for _, term in self._terms(node) if self._by_relatives(term)] if op in ("add", "sub") else []

    def _relative_rule(self, node: int) -> int:
        op, *x = self.graph.nodes[node]
        parts = [self._relative[part] for part in self._relative_parts(node)]
        if op in ("add", "sub") and parts:
            return self._relative_sum(node)
        if op == "exp":
            return self._derivative(x[0])
        if op == "expm1":  # exp(u) u' / (exp(u) - 1) = u' / (1 - exp(-u))
            negative = self.graph.apply("expm1", self.graph.apply("neg", x[0]))
            return self._over(self._derivative(x[0]), self.graph.apply("neg", negative))
        if not parts:
            return self._over(self._derivative(node), node)
        if op in ("neg", "abs"):
            return parts[0]
        if op == "sqrt":
            return self._times(self.graph.constant(0.5), parts[0])
        if op == "mul":
            return self._plus(*parts)
        return self._minus(*parts) if op == "div" else self.graph.apply(op, *parts, *x[2:])

    def _relative_sum(self, node: int) -> int:
        """Sum over the terms t of (t / sum) (t' / t), where an infinite t is all of the sum."""
        graph = self.graph
        plain, total = graph.zero, graph.zero
        for count, term in self._terms(node):
            signed = term if count == 1 else graph.apply("neg", term) if count == -1 else self._multiple(count, term)
            if self._by_relatives(term):
                total = self._plus(total, self._part_of_sum(node, signed, term))
            else:
                plain = self._plus(plain, self._derivative(signed))
        return self._plus(self._over(plain, node), total)

    def _part_of_sum(self, node: int, signed: int, term: int) -> int:
        """What a term adds to the relative derivative of a sum."""
        graph, size = self.graph, self.graph.apply("abs", signed)
        share = graph.apply("div", signed, node)
        share = graph.apply("select_eq", graph.one, share, size, graph.constant(math.inf))
        if self.facts[node].apart:  # elsewhere all terms may underflow, and 0 / 0 be left
            self.facts.set_finite(share)
        part = self._damped(share, self._relative[term])
        if self.facts[term].never_zero:
            return part
        return graph.apply("select_lt", self._over(self._derivative(signed), node), part, size, graph.one)

    def _multiple(self, count: int, term: int) -> int:
        try:
            factor = float(count)
        except OverflowError:
            factor = math.inf if count > 0 else -math.inf
        return self.graph.apply("mul", self.graph.constant(factor), term)

    def _terms(self, node: int) -> list[tuple[int, int]]:
        """(how often, term) of a sum; a term that is subtracted more often has a negative count."""
        counts, found = {node: 1}, []
        while counts:
            last = max(counts)  # before its operands, which have lower numbers
            count = counts.pop(last)
            op, *x = self.graph.nodes[last]
            if op in ("add", "sub", "neg"):
                for operand, sign in zip(x, (-1 if op == "neg" else 1, -1 if op == "sub" else 1), strict=False):
                    counts[operand] = counts.get(operand, 0) + sign * count
            else:
                found.append((count, last))
        return [(count, term) for count, term in reversed(found) if count]
