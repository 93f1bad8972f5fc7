"""Render the formulas of formulas.py as a C header.

Second station of the data flow: setup.py calls :func:`c_header` and compiles the result into every instruction
set's object.  The header is a template over ``REAL`` (float or double): C code includes it once per dtype, with
``REAL``, ``FN(name)`` (decorates a name with the dtype) and ``EPSILON`` defined, so every literal is typed and no
float expression is ever promoted to double.

For each row of the tables the header holds array loops that a C compiler vectorises:

* function of the language: ``evaluate(n, x, out)``, for measuring its error
* activation: ``value(n, z, a, parameters)`` and ``backward(n, z, a, delta, parameters)`` with ``delta *= slope``; where
  the slope reads z, also ``forward(n, z, a, parameters)``, which leaves the slope in z and shares what both compute
* loss: ``value(n, y, z, out, parameters)``, and ``delta`` likewise where the link is not the canonical one; a loss
  without a formula is a row operation ``rows_<name>``, written by hand (layers.h) and declared here
* optimizer: ``rule(n, p, g, states, scalars, alpha, l1, scale, keep)``: a step from ``p * keep`` along the gradient
  ``(g + alpha p + l1 sign p) scale``
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType

#: Functions of the formula language -> their C names (decorated with the dtype by FN).
FUNCTIONS = {name: f"FN({name})" for name in ("exp", "log", "log1p", "tanh", "erf", "sqrt", "abs")}
#: Names of constants -> C expressions.
CONSTANTS = {"EPS": "EPSILON"}

#: What one row of a table may have: the engine keeps them in arrays of this length.
MOST_PARAMETERS = MOST_STATES = 4

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


class _Translator:
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

        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
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


def translate(function: Callable, scalars: Iterable[str] = (), helpers: Iterable[str] = ()) -> CFormula:
    """Translate one formula function into C statements and result expressions.

    Raises
    ------
    FormulaError
        If the function uses a construct outside the formula language; the message names file and line.
    """
    return _Translator(function, scalars, helpers).translate()


# --- C text of whole functions ------------------------------------------------------------------------------------


def _uniform_lines(formula: CFormula) -> list[str]:
    return [f"const REAL {name} = (REAL)({text});" for name, text in formula.uniform]


def _helper(function: Callable, helpers: list[str]) -> str:
    """A formula other formulas may call, as an inline function of scalars."""
    f = translate(function, helpers=helpers)
    arguments = ", ".join(f"REAL {a}" for a in f.arguments)
    body = "\n    ".join([*_uniform_lines(f), *f.statements, f"return {f.results[0]};"])
    return f"static inline REAL FN({f.name})({arguments})\n{{\n    {body}\n}}\n"


def _map(symbol: str, f: CFormula, inputs: list[str], output: str, store: str, parameters: Iterable[str] = ()) -> str:
    """``output[i] store f(inputs[i], *parameters)``: the array loop of an elementwise formula."""
    arguments = ", ".join(f"const REAL *{name}_" for name in inputs)
    used = [(k, name) for k, name in enumerate(parameters) if name in f.names_used]
    lines = [f"const double {name} = parameters[{k}];" for k, name in used]
    lines += ["(void)parameters;"] if not used else []
    lines += [*_uniform_lines(f), "IVDEP", "for (idx i = 0; i < n; i++) {"]
    lines += [f"    const REAL {name} = {name}_[i];" for name in inputs if name in f.names_used]
    lines += [f"    {s}" for s in f.statements]
    lines += [f"    {output}[i] {store} {f.results[0]};", "}"]
    lines += [f"(void){name}_;" for name in inputs if name not in f.names_used]
    body = "\n    ".join(lines)
    arguments += f", REAL *{output}, const double *parameters"
    return f"static void FN({symbol})(idx n, {arguments})\n{{\n    {body}\n}}\n"


def _forward(symbol: str, value: CFormula, slope: CFormula, parameters: list[str]) -> str:
    """``a[i] = f(z[i])``, then ``z[i] = f'(z[i])``, in one loop: the compiler shares what the two have in common."""
    used = [(k, name) for k, name in enumerate(parameters) if name in value.names_used | slope.names_used]
    lines = [f"const double {name} = parameters[{k}];" for k, name in used]
    lines += ["(void)parameters;"] if not used else []
    both = [(formula, {name: f"{prefix}_{name}" for name, _ in formula.uniform}) for prefix, formula in
            (("value", value), ("slope", slope))]  # fmt: skip
    for formula, names in both:
        lines += [f"const REAL {names[name]} = (REAL)({text});" for name, text in formula.uniform]
    lines += ["IVDEP", "for (idx i = 0; i < n; i++) {", "    const REAL z = z_[i];", "    REAL a, d;"]
    for (formula, names), result in zip(both, ("a", "d"), strict=True):
        body = [*formula.statements, f"{result} = {formula.results[0]};"]
        for name in sorted(names, key=len, reverse=True):
            body = [re.sub(rf"\b{name}\b", names[name], line) for line in body]
        lines += ["    {", *(f"        {line}" for line in body), "    }"]
    lines += ["    a_[i] = a;", "    z_[i] = d;", "}"]
    body_text = "\n    ".join(lines)
    return f"static void FN({symbol})(idx n, REAL *z_, REAL *a_, const double *parameters)\n{{\n    {body_text}\n}}\n"


def _rule(name: str, function: Callable, states: tuple[str, ...], scalars: tuple[str, ...], helpers: list[str]) -> str:
    """An optimizer step as one pass over memory, with penalties, the batch's scale and weight decay fused in."""
    f = translate(function, scalars, helpers)
    if f.arguments != ["p", "g", *states, *scalars]:
        raise FormulaError(f"optimizer {name!r}: arguments {f.arguments} are not p, g, states, scalars")
    if len(f.results) != 1 + len(states):
        raise FormulaError(f"optimizer {name!r} must return p and its {len(states)} states")
    loop = ["IVDEP", "for (idx i = 0; i < n; i++) {", "    REAL p = p_[i];"]
    loop += ["    REAL g = GRADIENT;", "    p = p * keep;"]
    loop += [f"    REAL {s} = {s}_[i];" for s in states]
    loop += [f"    {s}" for s in f.statements]
    # new values first, then stores: a result may read an old value
    loop += [f"    const REAL new{k} = {r};" for k, r in enumerate(f.results)]
    loop += ["    p_[i] = new0;"]
    loop += [f"    {s}_[i] = new{k};" for k, s in enumerate(states, 1)]
    loop += ["}"]
    lines = [f"REAL *{s}_ = (REAL *)states[{k}];" for k, s in enumerate(states)]
    lines += [f"const double {s} = scalars[{k}];" for k, s in enumerate(scalars)]
    lines += _uniform_lines(f)
    sign = "(p > (REAL)0 ? (REAL)1 : p < (REAL)0 ? (REAL)-1 : (REAL)0)"
    lines += ["if (alpha == (REAL)0 && l1 == (REAL)0) {"]
    lines += [f"    {line}".replace("GRADIENT", "g_[i] * scale") for line in loop]
    lines += ["} else if (l1 == (REAL)0) {"]
    lines += [f"    {line}".replace("GRADIENT", "(g_[i] + alpha * p) * scale") for line in loop]
    lines += ["} else {"]
    lines += [f"    {line}".replace("GRADIENT", f"(g_[i] + alpha * p + l1 * {sign}) * scale") for line in loop]
    lines += ["}"]
    lines += ["(void)states;"] if not states else []
    body = "\n    ".join(lines)
    return (
        f"static void FN(rule_{name})(idx n, REAL *p_, const REAL *g_, void *const *states,"
        f" const double *scalars, REAL alpha, REAL l1, REAL scale, REAL keep)\n{{\n    {body}\n}}\n"
    )


def _check_sizes(formulas: ModuleType) -> None:
    """Refuse rows that the engine's fixed arrays cannot hold (FM_MAX_PARAMETERS and FM_MAX_STATES of fastmlp.h)."""
    for name, row in [*formulas.ACTIVATIONS.items(), *formulas.LOSSES.items()]:
        if len(row.parameters) > MOST_PARAMETERS:
            raise FormulaError(f"{name!r} has {len(row.parameters)} parameters, more than {MOST_PARAMETERS}")
    for name, optimizer in formulas.OPTIMIZERS.items():
        if len(optimizer.states) > MOST_STATES:
            raise FormulaError(f"optimizer {name!r} has {len(optimizer.states)} states, more than {MOST_STATES}")


def c_header(formulas: ModuleType) -> str:
    """The formulas and their tables as a C header, a template over REAL.

    Parameters
    ----------
    formulas : module
        kernels/formulas.py, or a module with the same tables.

    Returns
    -------
    str
        C source; the same text for the same formulas.
    """
    _check_sizes(formulas)
    helpers = [h.__name__ for h in formulas.HELPERS]
    parts = ["/* Generated by kernels/codegen.py from kernels/formulas.py: do not edit. */\n"]
    parts += [_helper(h, helpers) for h in formulas.HELPERS]

    for name, c_name in FUNCTIONS.items():
        call = CFormula(name, ["x"], results=[f"{c_name}(x)"], names_used={"x"})
        parts.append(_map(f"function_{name}", call, ["x"], "out", "="))
    rows = [f'    {{"{name}", FN(function_{name})}},' for name in FUNCTIONS]
    parts.append("static const FN(function) FN(FUNCTIONS)[] = {\n" + "\n".join(rows) + "\n};\n")

    rows = []
    for name, activation in formulas.ACTIVATIONS.items():
        parameters = list(activation.parameters)
        value = translate(activation.value, parameters, helpers)
        parts.append(_map(f"{name}_value", value, ["z"], "a", "=", parameters))
        backward, forward, needs_z = "0", "0", 0
        if activation.slope is not None:
            slope = translate(activation.slope, parameters, helpers)
            parts.append(_map(f"{name}_backward", slope, ["z", "a"], "delta", "*=", parameters))
            backward, needs_z = f"FN({name}_backward)", int("z" in slope.names_used)
            if needs_z and not activation.learned:
                parts.append(_forward(f"{name}_forward", value, slope, parameters))
                forward = f"FN({name}_forward)"
        rows.append(f'    {{"{name}", FN({name}_value), {backward}, {forward}, {needs_z}, {len(parameters)}}},')
    parts.append("static const FN(activation) FN(ACTIVATIONS)[] = {\n" + "\n".join(rows) + "\n};\n")

    rows = []
    links = [*formulas.ACTIVATIONS]
    for name, loss in formulas.LOSSES.items():
        parameters = list(loss.parameters)
        value = delta = by_rows = "0"
        if loss.value is None:
            by_rows = f"FN(rows_{name})"
            parts.append(f"static void {by_rows}(LOSS_ROWS_ARGUMENTS);\n")
        else:
            value = f"FN(loss_{name})"
            formula = translate(loss.value, parameters, helpers)
            parts.append(_map(f"loss_{name}", formula, ["y", "z"], "out", "=", parameters))
        if loss.delta is not None:
            delta = f"FN(delta_{name})"
            formula = translate(loss.delta, parameters, helpers)
            parts.append(_map(f"delta_{name}", formula, ["y", "z"], "out", "=", parameters))
        link = -1 if loss.link == "softmax" else links.index(loss.link)
        fields = [f'"{name}"', value, delta, by_rows, link, int(loss.mean_over_outputs), int(loss.class_targets)]
        rows.append(f"    {{{', '.join(map(str, fields))}, {len(parameters)}}},")
    parts.append("static const FN(loss_row) FN(LOSSES)[] = {\n" + "\n".join(rows) + "\n};\n")

    rows = []
    for name, optimizer in formulas.OPTIMIZERS.items():
        parts.append(_rule(name, optimizer.rule, optimizer.states, optimizer.scalars, helpers))
        rows.append(f'    {{"{name}", FN(rule_{name}), {len(optimizer.states)}, {len(optimizer.scalars)}}},')
    parts.append("static const FN(optimizer) FN(OPTIMIZERS)[] = {\n" + "\n".join(rows) + "\n};\n")
    return "\n".join(parts)
