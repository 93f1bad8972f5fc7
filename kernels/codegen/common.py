"""The formula language: one formula as a syntax tree, and the walk that writes its expressions.

A formula is a plain function of scalars: assignments, one return, arithmetic, conditional expressions, and the calls of
``FUNCTIONS``.  The translator writes C; the other targets override what they write differently.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType

#: Functions of the formula language -> their C names (decorated with the dtype by FN).
FUNCTIONS = {name: f"FN({name})" for name in ("exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt", "abs")}
#: Names of constants -> C expressions.
CONSTANTS = {"EPS": "EPSILON"}

_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


class FormulaError(SyntaxError):
    """A construct outside the formula language; points at its line."""


@dataclass
class CFormula:
    """One formula function translated to C.

    ``uniform`` lists (name, double-precision expression) of the parts that depend on scalars and constants alone:
    they are evaluated once, outside the array loop.
    """

    name: str
    arguments: list[str]
    statements: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    uniform: list[tuple[str, str]] = field(default_factory=list)
    names_used: set[str] = field(default_factory=set)


class Translator:
    """Walks the syntax tree of one formula and writes C expressions."""

    def __init__(self, function: Callable, scalars: Iterable[str], helpers: Iterable[str]) -> None:
        self.function = function
        self.scalars = set(scalars)
        self.functions = FUNCTIONS | {name: f"FN({name})" for name in helpers}
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        except SyntaxError:  # a lambda inside a larger expression
            tree = None
        if not isinstance(tree, ast.FunctionDef):
            raise FormulaError(f"formula {function.__name__!r} is not a plain function: write it with def")
        self.body = tree.body
        self.out = CFormula(function.__name__, [a.arg for a in tree.args.args])
        self.known = set(self.out.arguments)

    def error(self, node: ast.AST, what: str) -> FormulaError:
        line = self.function.__code__.co_firstlineno + getattr(node, "lineno", 1) - 1
        source = ast.unparse(node)
        return FormulaError(
            f"formula {self.function.__name__!r}, {self.function.__code__.co_filename}:{line}: {what}: {source}"
        )

    def translate(self) -> CFormula:
        for node in self.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                self.assign(node)
            elif isinstance(node, ast.Return) and node.value is not None:
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                self.out.results = [self.expression(v) for v in values]
                return self.out
            else:
                raise self.error(node, "only assignments and one return are part of the formula language")
        raise self.error(self.body[-1], "a formula must return a value")

    def assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if not isinstance(target, ast.Name):
            raise self.error(node, "only plain names can be assigned")
        value = self.expression(node.value)
        declare = "" if target.id in self.known else "REAL "
        if target.id in self.scalars:
            raise self.error(node, "a scalar argument cannot be assigned")
        self.known.add(target.id)
        self.out.statements.append(f"{declare}{target.id} = {value};")

    def is_uniform(self, node: ast.expr) -> bool:
        """True if the value depends on scalars and constants only, and on at least one of them."""
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id not in self.functions}
        return bool(names) and names <= (self.scalars | set(CONSTANTS))

    def expression(self, node: ast.expr) -> str:
        if self.is_uniform(node):
            text = self.render(node, double=True)
            for name, known in self.out.uniform:
                if known == text:
                    return name
            name = f"uniform{len(self.out.uniform)}"
            self.out.uniform.append((name, text))
            return name
        return self.render(node, double=False)

    def render(self, node: ast.expr, *, double: bool) -> str:
        def sub(child: ast.expr) -> str:
            return self.render(child, double=True) if double else self.expression(child)

        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and type(node.value) is not bool:
            literal = repr(float(node.value))
            return literal if double else f"(REAL){literal}"
        if isinstance(node, ast.Name):
            if node.id in CONSTANTS:
                return CONSTANTS[node.id]
            if node.id not in self.known:
                raise self.error(node, "unknown name")
            self.out.names_used.add(node.id)
            return node.id
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return f"({sub(node.left)} {_BINARY[type(node.op)]} {sub(node.right)})"
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return f"(-{sub(node.operand)})"
        if isinstance(node, ast.IfExp):
            return f"({self.condition(node.test, sub)} ? {sub(node.body)} : {sub(node.orelse)})"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            if node.func.id not in self.functions:
                raise self.error(node, f"unknown function {node.func.id!r}; known: {sorted(self.functions)}")
            name = node.func.id if double else self.functions[node.func.id]
            name = "fabs" if name == "abs" else name
            return f"{name}({', '.join(sub(a) for a in node.args)})"
        raise self.error(node, "not part of the formula language")

    def condition(self, node: ast.expr, sub: Callable[[ast.expr], str]) -> str:
        if not (isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE):
            raise self.error(node, "a condition is one comparison")
        return f"{sub(node.left)} {_COMPARE[type(node.ops[0])]} {sub(node.comparators[0])}"


def reads_p(formulas: ModuleType, name: str) -> bool:
    """Return whether the formulas of a softmax loss read the probability p, or q = 1 - p."""
    row, helpers = formulas.LOSSES[name], [helper.__name__ for helper in formulas.HELPERS]
    scalars = ["n_outputs", *row.parameters]
    return any({"p", "q"} & translate(f, scalars, helpers).names_used for f in (row.value, row.delta))


def translate(function: Callable, scalars: Iterable[str] = (), helpers: Iterable[str] = ()) -> CFormula:
    """Translate one formula function into C statements and result expressions.

    Raises
    ------
    FormulaError
        If the function uses a construct outside the formula language; the message names file and line.
    """
    return Translator(function, scalars, helpers).translate()
