"""Formulas as text: where they come from, what the language takes, and what it says to everything else.

Where it sits: language.py hands over a function or its source; :class:`Text` is what is kept of it, :class:`Reader`
puts its value into a graph (graph.py).
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from fastmlp.kernels.codegen import FormulaError
from fastmlp.kernels.graph import FUNCTIONS, Graph

# --- source text ----------------------------------------------------------------------------------------------------

#: Functions of two arguments that users may call; they are conditional expressions in disguise.
_EXTREMES = ("minimum", "maximum")
_KNOWN = (*FUNCTIONS, *_EXTREMES)
#: Most characters of a formula's text.
MAX_CHARACTERS = 100_000


@dataclass(frozen=True)
class Text:
    """Source of one formula, dedented and without decorators, and the numbers it captured."""

    source: str
    constants: tuple[tuple[str, float], ...] = ()  # by name
    # for messages only: where it was written, and why names that it uses are not what they seem
    file: str = field(default="<formula>", compare=False)
    line: int = field(default=1, compare=False)
    strange: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __reduce__(self) -> tuple:
        return Text, (self.source, self.constants)

    @cached_property
    def tree(self) -> ast.FunctionDef:
        if not isinstance(self.source, str):
            raise FormulaError(f"formula, <formula>:1: its text must be a string, got {self.source!r:.80}")
        if len(self.source) > MAX_CHARACTERS:
            what = f"its text has {len(self.source)} characters, at most {MAX_CHARACTERS} are allowed"
            raise FormulaError(f"formula, <formula>:1: {what}: {self.source[:80].strip()}")
        body = _parsed(self.source)
        if len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or body[0].decorator_list:
            line = (self.source.splitlines() or [""])[0]
            raise FormulaError(f"formula, <formula>:1: its text must be one plain function, def name(...): {line:.80}")
        return body[0]

    @property
    def name(self) -> str:
        return self.tree.name

    @property
    def arguments(self) -> list[str]:
        return [a.arg for a in (*self.tree.args.posonlyargs, *self.tree.args.args)]

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})"

    def error(self, node: ast.AST, what: str) -> FormulaError:
        """The error to raise about a node: names the file and the line, shows the line."""
        line = self.line + getattr(node, "lineno", 1) - 1
        shown = (ast.get_source_segment(self.source, node) or self.source).splitlines()[0]
        return FormulaError(f"formula {self.name!r}, {self.file}:{line}: {what}: {shown}")

    @classmethod
    def of(cls, formula: Callable | str, constants: Mapping[str, float] | None = None) -> Text:
        """The text of a function, or of a string that holds one."""
        if isinstance(formula, str):
            return cls._of_string(formula, constants or {})
        if not isinstance(formula, types.FunctionType) or hasattr(formula, "__wrapped__"):
            raise FormulaError(f"{formula!r} is not a plain Python function: write the formula with def")
        return cls._of_function(formula)

    @classmethod
    def _of_string(cls, source: str, constants: Mapping[str, float]) -> Text:
        if len(source) <= MAX_CHARACTERS:  # else it is refused below, unread
            source = textwrap.dedent(source).strip() + "\n"
        formula = cls(source).tree.name
        if not isinstance(constants, Mapping):
            raise FormulaError(f"formula {formula!r}: constants must be a dict of numbers, got {constants!r:.80}")
        for name, value in constants.items():
            if not isinstance(name, str):
                raise FormulaError(f"formula {formula!r}: the name of a constant must be text, got {name!r:.80}")
            if not _is_number(value):
                raise FormulaError(f"formula {formula!r}: the constant {name} is not a number: {value!r:.80}")
        return cls(source, tuple(sorted((name, float(value)) for name, value in constants.items())))

    @classmethod
    def _of_function(cls, function: types.FunctionType) -> Text:
        code = function.__code__
        where = f"formula {function.__name__!r}, {code.co_filename}:{code.co_firstlineno}"
        try:
            lines = inspect.getsource(function).splitlines()
        except (OSError, TypeError) as error:
            if isinstance(error, OSError) and type(error) is not OSError:
                raise  # of a signal's handler, such as TimeoutError: inspect raises the plain one
            raise FormulaError(
                f"{where}: Python has kept no source text of it: give the text itself, activation('def ...')"
            ) from None
        indented = lines[0][:1].isspace()
        try:
            tree = ast.parse("\n".join(["if 1:", *lines] if indented else lines)).body[0]
        except SyntaxError:  # a lambda inside a larger expression
            tree = None
        node = tree.body[0] if indented and isinstance(tree, ast.If) else tree
        if not isinstance(node, ast.FunctionDef) or node.name != function.__name__:
            raise FormulaError(f"{where}: not a plain function, write the formula with def: {lines[0].strip()}")
        first = node.lineno - 1 - indented
        lines = [_unindent(line, node.col_offset) for line in lines[first : (node.end_lineno or 0) - indented]]
        text = cls("\n".join(lines) + "\n", (), code.co_filename, code.co_firstlineno + first)
        constants, strange = _captured(function, text.tree)
        return cls(text.source, constants, text.file, text.line, strange)


def _parsed(source: str) -> list[ast.stmt]:
    """Return the statements of a text; a FormulaError where Python cannot read it."""
    line = source.splitlines()[0][:80] if source.strip() else ""
    try:
        return ast.parse(source).body
    except (RecursionError, MemoryError):  # the parser's own stack
        raise FormulaError(f"formula, <formula>:1: too deeply nested: {line}") from None
    except SyntaxError as error:
        line = (error.text or line).strip()
        raise FormulaError(f"formula, <formula>:{error.lineno or 1}: {error.msg}: {line}") from None
    except ValueError as error:  # a NUL, or half of a surrogate pair
        raise FormulaError(f"formula, <formula>:1: {error}: {line!a}") from None


def _unindent(line: str, width: int) -> str:
    """The line without so much white space; comments may have less of it than the code."""
    return line[width:] if not line[:width].strip() else line.lstrip()


def _is_number(value: Any) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:  # an integer that no float holds
        return False


def _assigned(tree: ast.FunctionDef) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _captured(function: types.FunctionType, tree: ast.FunctionDef) -> tuple[tuple[tuple[str, float], ...], dict]:
    """Numbers that a function takes from outside, and what is wrong with other names that it takes from there."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    local = _assigned(tree) | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    constants, strange = {}, {}
    for name in sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - local):
        try:
            value = cells[name].cell_contents if name in cells else function.__globals__[name]
        except (KeyError, ValueError):  # unknown, or a closure's variable that has no value yet
            continue
        if name in _KNOWN:
            if not _is_library_function(value, name):
                strange[name] = f"{name} is not the mathematical function here but {value!r}"
        elif _is_number(value):
            constants[name] = float(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            strange[name] = f"{name} is too large for a floating-point number"
        else:
            strange[name] = f"{name} is no number but {type(value).__name__}"
    return tuple(constants.items()), strange


def _is_library_function(value: Any, name: str) -> bool:
    """Whether this is the function of that name from math, NumPy, SciPy or the like."""
    names = {name, "absolute", "fabs"} if name == "abs" else {name}
    return isinstance(value, types.BuiltinFunctionType | np.ufunc) and value.__name__ in names


def check_names(text: Text) -> None:
    """Raise FormulaError for arguments that share a name, or that are called as a function of the language is."""
    for i, name in enumerate(text.arguments):
        if name in text.arguments[:i]:
            raise text.error(text.tree, f"two arguments have the name {name}")
        if name in _KNOWN:
            raise text.error(text.tree, f"{name} is a function of the formula language and cannot be an argument")


# --- reading --------------------------------------------------------------------------------------------------------

_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
#: Comparison -> (select, operands swapped).
_COMPARE = {
    ast.Lt: ("select_lt", False),
    ast.LtE: ("select_le", False),
    ast.Gt: ("select_lt", True),
    ast.GtE: ("select_le", True),
    ast.Eq: ("select_eq", False),
    ast.NotEq: ("select_ne", False),
}
_OUTSIDE = "not part of the formula language"
_ADVICE: dict[type, str] = {
    ast.For: f"loops are {_OUTSIDE}",
    ast.While: f"loops are {_OUTSIDE}",
    ast.If: f"if statements are {_OUTSIDE}; write `x = a if condition else b`",
    ast.AugAssign: f"{_OUTSIDE}; write the assignment out, `x = x + ...`",
    ast.Import: f"{_OUTSIDE}; exp and the like need no import",
    ast.ImportFrom: f"{_OUTSIDE}; exp and the like need no import",
    ast.Attribute: f"attribute access is {_OUTSIDE}; use the plain name, `exp(z)` for `np.exp(z)`",
    ast.BoolOp: f"`and` and `or` are {_OUTSIDE}; nest conditional expressions",
    ast.Not: f"`not` is {_OUTSIDE}; swap the branches",
    ast.Compare: "a comparison belongs into a conditional expression, `a if x < y else b`",
    ast.Lambda: f"lambda is {_OUTSIDE}; write the formula with def",
    ast.Pow: f"powers are {_OUTSIDE}; multiply, or use sqrt or exp and log",
    ast.Tuple: "a formula has one value",
}


class Reader:
    """Puts the value of a formula into a graph by walking its syntax tree."""

    def __init__(self, text: Text, graph: Graph, helpers: Mapping[str, Text]) -> None:
        self.text, self.graph, self.helpers = text, graph, helpers
        self.names: dict[str, int] = {}

    def error(self, node: ast.AST, otherwise: str, kind: ast.AST | None = None) -> FormulaError:
        """The error about a node: the advice for this kind of node if there is one."""
        return self.text.error(node, _ADVICE.get(type(kind or node), otherwise))

    def read(self, **operands: int) -> int:
        """The value, given the nodes of the arguments (and of scalars that were not captured)."""
        self.names = {name: self.graph.constant(value) for name, value in self.text.constants} | operands
        tree = self.text.tree
        for node in tree.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            if isinstance(node, ast.Assign):
                self.assign(node)
            elif isinstance(node, ast.Return) and node.value is not None:
                return self.expression(node.value)
            else:
                raise self.error(node, "only assignments and one return are part of the formula language")
        raise self.text.error(tree.body[-1], "a formula must end with return")

    def assign(self, node: ast.Assign) -> None:
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            raise self.text.error(node, "an assignment is to one plain name")
        name = node.targets[0].id
        if name in _KNOWN or name in self.helpers:
            raise self.text.error(node, f"{name} is a function of the formula language and cannot be assigned")
        self.names[name] = self.expression(node.value)

    def expression(self, node: ast.expr) -> int:
        if isinstance(node, ast.Constant):
            return self.number(node)
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.BinOp):
            if type(node.op) not in _BINARY:
                raise self.error(node, _OUTSIDE, node.op)
            return self.graph.apply(_BINARY[type(node.op)], self.expression(node.left), self.expression(node.right))
        if isinstance(node, ast.UnaryOp):
            if not isinstance(node.op, ast.USub):
                raise self.error(node, _OUTSIDE, node.op)
            return self.graph.apply("neg", self.expression(node.operand))
        if isinstance(node, ast.IfExp):
            return self.conditional(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        raise self.error(node, _OUTSIDE)

    def number(self, node: ast.Constant) -> int:
        if not isinstance(node.value, int | float) or isinstance(node.value, bool):
            raise self.text.error(node, f"only numbers, {type(node.value).__name__} is {_OUTSIDE}")
        try:
            return self.graph.constant(float(node.value))
        except OverflowError:
            raise self.text.error(node, "this number is too large") from None

    def name(self, node: ast.Name) -> int:
        if node.id not in self.names:
            raise self.text.error(node, self.text.strange.get(node.id, f"unknown name {node.id!r}"))
        return self.names[node.id]

    def conditional(self, node: ast.IfExp) -> int:
        test = node.test
        if not isinstance(test, ast.Compare):
            kind = test.op if isinstance(test, ast.UnaryOp) else test
            raise self.error(test, "a condition is one comparison", kind)
        if len(test.ops) != 1:
            raise self.text.error(test, f"chained comparisons are {_OUTSIDE}; nest conditional expressions")
        if type(test.ops[0]) not in _COMPARE:
            raise self.text.error(test, "a comparison is one of < <= > >= == !=")
        select, swapped = _COMPARE[type(test.ops[0])]
        c, d = self.expression(test.left), self.expression(test.comparators[0])
        a, b = self.expression(node.body), self.expression(node.orelse)
        return self.graph.apply(select, a, b, *((d, c) if swapped else (c, d)))

    def call(self, node: ast.Call) -> int:
        if not isinstance(node.func, ast.Name):
            raise self.error(node, _OUTSIDE, node.func)
        if node.keywords:
            raise self.text.error(node, f"keyword arguments are {_OUTSIDE}")
        name = node.func.id
        known = (*_KNOWN, *self.helpers)
        if name not in known:
            raise self.text.error(node, f"unknown function {name!r}; known are {', '.join(known)}")
        if name in _KNOWN and name in self.text.strange:
            raise self.text.error(node, self.text.strange[name])
        wanted = len(self.helpers[name].arguments) if name in self.helpers else 2 if name in _EXTREMES else 1
        if len(node.args) != wanted:
            raise self.text.error(node, f"{name} takes {wanted} argument{'s' * (wanted > 1)}, not {len(node.args)}")
        x = [self.expression(argument) for argument in node.args]
        if name in self.helpers:
            helper = self.helpers[name]
            others = {other: text for other, text in self.helpers.items() if other != name}  # no recursion
            return Reader(helper, self.graph, others).read(**dict(zip(helper.arguments, x, strict=True)))
        return self.extreme(name, *x) if name in _EXTREMES else self.graph.apply(name, *x)

    def extreme(self, name: str, x: int, y: int) -> int:
        """minimum or maximum, flat at the kink with a constant; NaN if one of the two is NaN."""
        if self.graph.value(y) is not None:
            x, y = y, x
        smaller_and_larger = (x, y) if name == "minimum" else (y, x)
        chosen = self.graph.apply("select_le", x, y, *smaller_and_larger)  # y where one is NaN
        constant = self.graph.value(x)
        if constant is not None and not math.isnan(constant):
            return chosen
        return self.graph.apply("select_ne", x, chosen, x, x)
