"""Render the formulas of formulas.py as a C header, and as the Numba engine's module.

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
import math
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


# --- Python text of whole functions, for Numba ------------------------------------------------------------------------

#: Imports and definitions in front of this line of a Numba template give way to those of numba_math.py.
NETWORK_MARK = "# --- network ---\n"
_SETTINGS = re.compile(r"# --- settings ---\n.*?# --- end of settings ---\n", re.DOTALL)


class _NumbaTranslator(_Translator):
    """The same walk, writing Python in which every number has a type and no conditional is a branch."""

    def __init__(
        self, function: Callable, scalars: Iterable[str], helpers: Iterable[str], tree: ast.FunctionDef | None = None
    ) -> None:
        if tree is None:
            super().__init__(function, scalars, helpers)
        else:  # text without a function
            self.function, self.scalars, self.body = function, set(scalars), tree.body
            self.out = CFormula(tree.name, [a.arg for a in tree.args.args])
            self.known = set(self.out.arguments)
        self.functions = {name: f"{name}_" for name in (*FUNCTIONS, *helpers)}

    def assign(self, node: ast.Assign) -> None:
        self.known.add(node.targets[0].id if isinstance(node.targets[0], ast.Name) else "")
        super().assign(node)
        self.out.statements[-1] = self.out.statements[-1].removesuffix(";")

    def render(self, node: ast.expr, *, double: bool) -> str:
        def sub(child: ast.expr) -> str:
            return self.render(child, double=True) if double else self.expression(child)

        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            literal = repr(float(node.value)).replace("inf", "math.inf")
            return literal if double else f"REAL({literal})"
        if isinstance(node, ast.IfExp) and not double:
            return f"select({self.condition(node.test, sub)}, {sub(node.body)}, {sub(node.orelse)})"
        if isinstance(node, ast.IfExp):
            return f"({sub(node.body)} if {self.condition(node.test, sub)} else {sub(node.orelse)})"
        if double and isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
            name = "abs" if node.func.id == "abs" else f"math.{node.func.id}"
            return f"{name}({', '.join(sub(a) for a in node.args)})"
        return super().render(node, double=double)


def _numba(function: Callable, scalars: Iterable[str] = (), helpers: Iterable[str] = ()) -> CFormula:
    return _NumbaTranslator(function, scalars, helpers).translate()


def _numba_uniform(f: CFormula, parameters: Iterable[str], address: str) -> list[str]:
    """Scalars and what depends on them alone, evaluated once, in double precision."""
    parameters = list(parameters)
    lines = [f"{name} = doubles({address}, {len(parameters)})[{k}]" for k, name in enumerate(parameters)]
    return [*lines, *(f"{name} = REAL({text})" for name, text in f.uniform)]


def _numba_function(name: str, arguments: str, lines: Iterable[str], decorator: str = "") -> str:
    body = "\n    ".join(lines)
    return f"{decorator}def {name}({arguments}):\n    {body}\n"


def _numba_helper(function: Callable, helpers: list[str]) -> str:
    f = _numba(function, helpers=helpers)
    lines = [*_numba_uniform(f, [], ""), *f.statements, f"return {f.results[0]}"]
    return _numba_function(f"{f.name}_", ", ".join(f.arguments), lines, "@njit(**INLINE)\n")


def _numba_loop(body: Iterable[str]) -> list[str]:
    return ["for index in range(count):", *(f"    {line}" for line in body)]


def _numba_activation(name: str, value: CFormula, slope: CFormula | None, parameters: list[str]) -> list[str]:
    """value_, in place; backward_; and where the slope reads z, forward_, which leaves the slope in z."""
    load = [f"{x}_values = reals({x}_, count)" for x in ("z", "a", "delta")]
    inplace = ["z = a_values[index]", *value.statements, f"a_values[index] = {value.results[0]}"]
    head = [load[1], *_numba_uniform(value, parameters, "parameters")]
    texts = [_numba_function(f"value_{name}", "count, a_, parameters", [*head, *_numba_loop(inplace)])]
    if slope is None:
        return texts
    body = [f"{x} = {x}_values[index]" for x in ("z", "a") if x in slope.names_used]
    body += [*slope.statements, f"delta_values[index] *= {slope.results[0]}"]
    head = [*load, *_numba_uniform(slope, parameters, "parameters")]
    texts.append(_numba_function(f"backward_{name}", "count, z_, a_, delta_, parameters", [*head, *_numba_loop(body)]))
    if "z" in slope.names_used:
        # two formulas in one loop: the names of the second are kept apart
        shift = {u: f"slope_{u}" for u, _ in slope.uniform}
        local = ({s.split(" = ")[0] for s in slope.statements} | set(shift)) - {"z", "a"}

        def apart(text: str) -> str:
            return re.sub(r"\b[A-Za-z_]\w*\b", lambda m: f"slope_{m[0]}" if m[0] in local else m[0], text)

        body = ["z = z_values[index]", "kept_z = z", *value.statements, f"kept_a = {value.results[0]}"]
        body += ["z = kept_z", "a = kept_a", *map(apart, slope.statements), "a_values[index] = kept_a"]
        body += [f"z_values[index] = {apart(slope.results[0])}"]
        head = [*load[:2], *_numba_uniform(value, parameters, "parameters")]
        head += [f"{shift[u]} = REAL({text})" for u, text in slope.uniform]
        texts.append(_numba_function(f"forward_{name}", "count, z_, a_, parameters", [*head, *_numba_loop(body)]))
    return texts


def _numba_loss(name: str, value: CFormula, delta: CFormula, parameters: list[str], mean: bool, canonical: bool) -> str:
    """row_loss = weight * sum (or mean) over the outputs of the value; delta = slope * weight."""
    lines = ["size = rows * width", "y_values, logits = reals(y_, size), reals(scratch, size)"]
    lines += ["values, slopes = reals(scratch + size * ITEM, size), reals(scratch + 2 * size * ITEM, size)"]
    lines += ["source, to, row_losses = reals(z_, rows * ld), reals(delta_, rows * ld), doubles(row_loss, rows)"]
    lines += ["for row in range(rows):", "    for column in range(width):"]
    lines += ["        logits[row * width + column] = source[row * ld + column]"]
    for formula, out in ((value, "values"), (delta, "slopes")):
        less_y = canonical and out == "slopes"
        lines += _numba_uniform(formula, parameters, "parameters")
        body = ["y = y_values[index]", "z = logits[index]", *(["kept_y = y"] if less_y else []), *formula.statements]
        body += [f"{out}[index] = {formula.results[0]}{' - kept_y' if less_y else ''}"]
        lines += ["for index in range(size):", *(f"    {line}" for line in body)]
    lines += ["for row in range(rows):", "    row_weight = reals(weight_ + row * ITEM, 1)[0] if weight_ else REAL(1.0)"]
    lines += ["    row_total = 0.0", "    for column in range(width):"]
    lines += ["        row_total += np.float64(values[row * width + column])"]
    lines += ["        to[row * ld + column] = slopes[row * width + column] * row_weight"]
    lines += ["    for column in range(width, ld):", "        to[row * ld + column] = REAL(0.0)"]
    lines += ["    row_losses[row] = row_total * np.float64(row_weight)" + (" / width" if mean else "")]
    arguments = "rows, width, ld, z_, y_, weight_, delta_, row_loss, scratch, parameters"
    return _numba_function(f"loss_{name}", arguments, lines)


def _numba_rule(
    name: str, function: Callable, states: tuple[str, ...], scalars: tuple[str, ...], helpers: list[str]
) -> str:
    """An optimizer step as one pass over memory, with penalties, the batch's scale and weight decay fused in."""
    f = _numba(function, scalars, helpers)
    head = ["p_values, g_values = reals(p_, count), reals(g_, count)"]
    head += [f"{s}_values = reals(states + {k} * stride, count)" for k, s in enumerate(states)]
    head += _numba_uniform(f, scalars, "scalars_")
    head += ["alpha, l1, scale, keep = REAL(alpha), REAL(l1), REAL(scale), REAL(keep)"]
    loop = ["p = p_values[index]", "g = GRADIENT", "p = p * keep", *(f"{s} = {s}_values[index]" for s in states)]
    loop += [*f.statements, *(f"new{k} = {result}" for k, result in enumerate(f.results)), "p_values[index] = new0"]
    loop = _numba_loop([*loop, *(f"{s}_values[index] = new{k}" for k, s in enumerate(states, 1))])
    sign = "select(p > REAL(0.0), REAL(1.0), select(p < REAL(0.0), REAL(-1.0), REAL(0.0)))"
    lines = [*head, "if alpha == REAL(0.0) and l1 == REAL(0.0):"]
    lines += [f"    {line}".replace("GRADIENT", "g_values[index] * scale") for line in loop]
    lines += ["else:"]
    penalised = f"(g_values[index] + alpha * p + l1 * {sign}) * scale"
    lines += [f"    {line}".replace("GRADIENT", penalised) for line in loop]
    return _numba_function(f"rule_{name}", "count, p_, g_, states, stride, scalars_, alpha, l1, scale, keep", lines)


def numba_head(template: str, *, double: bool, vector_bytes: int, tile_rows: int) -> str:
    """The text of numba_math.py with the settings of a dtype and a machine."""
    settings = f"DOUBLE = {double}\nVECTOR_BYTES = {vector_bytes}\nTILE_ROWS = {tile_rows}\n"
    return "# Generated by fastmlp/kernels/codegen.py: do not edit.\n" + _SETTINGS.sub(settings, template)


def numba_network(head: str, template: str) -> str:
    """The module of the driver: the head, then numba_network.py behind its imports."""
    imports = "from llvmlite import ir\nfrom numba.core import cgutils\n"
    return f"{head}\n\n{imports}\n\n{template.split(NETWORK_MARK, 1)[1]}"


def numba_module(formulas: ModuleType, head: str) -> str:
    """The formulas and their tables as a self-contained module for Numba.

    Its functions are plain: numba_cache.py compiles each as a C function when it is first needed.  Arguments are
    integers, the addresses of arrays among them, but for the last four of a rule, which are doubles:

    * ``value_NAME(n, a, parameters)``: in place, a = f(a)
    * ``backward_NAME(n, z, a, delta, parameters)``: delta *= f'(z)
    * ``forward_NAME(n, z, a, parameters)``: a = f(z), then z = f'(z); where the slope reads z
    * ``loss_NAME(rows, n, ld, z, y, weight, delta, row_loss, scratch, parameters)``
    * ``rule_NAME(n, p, g, states, stride, scalars, alpha, l1, scale, keep)``
    """
    helpers = [h.__name__ for h in formulas.HELPERS]
    parts = [head, *(_numba_helper(h, helpers) for h in formulas.HELPERS)]
    for name, row in formulas.ACTIVATIONS.items():
        parameters = list(row.parameters)
        value = _numba(row.value, parameters, helpers)
        slope = _numba(row.slope, parameters, helpers) if row.slope is not None else None
        parts += _numba_activation(name, value, slope, parameters)
    for name, row in formulas.LOSSES.items():
        if row.value is not None:
            parameters, canonical = list(row.parameters), row.delta is None
            value = _numba(row.value, parameters, helpers)
            slope = _numba(formulas.ACTIVATIONS[row.link].value if canonical else row.delta, parameters, helpers)
            parts.append(_numba_loss(name, value, slope, parameters, row.mean_over_outputs, canonical))
    for name, row in formulas.OPTIMIZERS.items():
        parts.append(_numba_rule(name, row.rule, row.states, row.scalars, helpers))
    return "\n\n".join(parts)


def numba_formula(head: str, sources: dict[str, str]) -> str:
    """A module for a user's formula out of the texts of its programs: "value" and "slope", or "value" and "delta"."""

    def translated(kind: str) -> CFormula:
        tree = ast.parse(sources[kind]).body[0]
        assert isinstance(tree, ast.FunctionDef)
        return _NumbaTranslator(numba_formula, (), (), tree).translate()

    if "slope" in sources:
        return "\n\n".join([head, *_numba_activation("own", translated("value"), translated("slope"), [])])
    return "\n\n".join([head, _numba_loss("own", translated("value"), translated("delta"), [], False, False)])


# --- Python text of a whole module, for CUDA --------------------------------------------------------------------------

#: Functions of the formula language on the device, and where NumPy plays the device (the simulator).
_CUDA_FUNCTIONS = {
    False: {name: f"math.{name}" for name in ("exp", "log", "log1p", "tanh", "erf", "sqrt", "pow")} | {"abs": "abs"},
    True: {name: f"np.{name}" for name in ("exp", "log", "log1p", "tanh", "sqrt")}
    | {"erf": "special.erf", "pow": "np.power", "abs": "abs"},
}
#: So few that a multiprocessor holds two blocks: what waits for memory in one is worked on in the other.
CUDA_REGISTERS = 128
_CUDA_KERNEL = f"kernel = cuda.jit(cache=True, max_registers={CUDA_REGISTERS})"
_CUDA_HEAD = {
    False: [
        "device = cuda.jit(device=True, forceinline=True)",
        _CUDA_KERNEL,
        "U = np.uint64",
        "quiet = device(lambda: None)",
    ],
    True: [
        "from scipy import special",
        "device, kernel, U = (lambda function: function), cuda.jit, int",
        'quiet = lambda: np.seterr(all="ignore")',  # in each of the threads
    ],
}
#: Losses by rows -> names of their number and of their parameter in numba_cuda/network.py.
_CUDA_ROW_LOSSES = {"log_loss": "LOG_LOSS", "focal": "FOCAL", "kl_divergence": "KL_DIVERGENCE"}


@dataclass(frozen=True)
class CudaTile:
    """Sizes of a block: ``side * side`` threads make a tile of ``size * size`` results, ``depth`` terms at a time."""

    size: int
    side: int
    depth: int


class _CudaTranslator(_NumbaTranslator):
    """The same walk, with conditional expressions as they are."""

    def render(self, node: ast.expr, *, double: bool) -> str:
        if isinstance(node, ast.IfExp) and not double:
            sub = self.expression
            return f"({sub(node.body)} if {self.condition(node.test, sub)} else {sub(node.orelse)})"
        return super().render(node, double=double)


class _CudaFormulas:
    """Formulas as device functions; numbers that do not change become literals, so that none is computed twice."""

    def __init__(self, formulas: ModuleType, *, double: bool) -> None:
        self.formulas, self.helpers = formulas, [helper.__name__ for helper in formulas.HELPERS]
        self.epsilon = 2.0**-52 if double else 2.0**-23

    def translate(self, function: Callable, scalars: Iterable[str] = ()) -> CFormula:
        return _CudaTranslator(function, scalars, self.helpers).translate()

    def function(self, name: str, arguments: str, f: CFormula, values: dict[str, float], *before: str) -> str:
        known = {"math": math, "EPSILON": self.epsilon, **values}
        constants = [f"{uniform} = REAL({eval(text, known)!r})" for uniform, text in f.uniform]
        lines = [*before, *constants, *f.statements, f"return {f.results[0]}"]
        return _numba_function(name, arguments, lines, "@device\n").replace("REAL(inf)", "REAL(math.inf)")

    def of(
        self, name: str, arguments: str, function: Callable, values: dict[str, float], learned: Iterable[str]
    ) -> str:
        scalars = [parameter for parameter in values if parameter not in learned]
        before = [f"{parameter} = learned" for parameter in learned]
        return self.function(name, arguments, self.translate(function, scalars), values, *before)

    def helper(self, function: Callable) -> str:
        """A formula that others call."""
        f = self.translate(function)
        return self.function(f"{f.name}_", ", ".join(f.arguments), f, {})

    def own(self, name: str, arguments: str, source: str) -> str:
        """A user's formula, from the text of its program."""
        tree = ast.parse(source).body[0]
        assert isinstance(tree, ast.FunctionDef)
        return self.function(name, arguments, _CudaTranslator(cuda_module, (), (), tree).translate(), {})

    def activation(self, number: int, entry: object) -> list[str]:
        """value_N(z, learned) and slope_N(z, a, learned)."""
        value, slope = f"value_{number}", f"slope_{number}"
        if hasattr(entry, "program_source"):
            sources = [entry.program_source(kind) for kind in ("value", "slope")]
            return [self.own(value, "z, learned", sources[0]), self.own(slope, "z, a, learned", sources[1])]
        name, given = entry
        row = self.formulas.ACTIVATIONS[name]
        values = {**row.parameters, **dict(given)}
        texts = [self.of(value, "z, learned", row.value, values, row.learned)]
        if row.slope is None:  # an output link
            return [*texts, _numba_function(slope, "z, a, learned", ["return a"], "@device\n")]
        return [*texts, self.of(slope, "z, a, learned", row.slope, values, row.learned)]

    def loss(self, entry: object) -> tuple[list[str], dict[str, object]]:
        """link(z), loss_value(y, z) and loss_delta(y, z), and the constants that say what kind of loss it is."""
        none = [_numba_function(name, "y, z", ["return z"], "@device\n") for name in ("loss_value", "loss_delta")]
        constants: dict[str, object] = {"LOSS_KIND": "BY_FORMULA", "SMOOTHING": "REAL(0.0)", "GAMMA": "REAL(0.0)"}
        constants |= {"SOFTMAX_LINK": False, "MEAN_OVER_OUTPUTS": False, "BY_CLASS": False}
        if entry is None:
            return [*none, self.link("identity")], constants
        if hasattr(entry, "program_source"):
            texts = [self.own(f"loss_{kind}", "y, z", entry.program_source(kind)) for kind in ("value", "delta")]
            return [*texts, self.link(entry.link)], constants
        name, given = entry
        row = self.formulas.LOSSES[name]
        values = {**row.parameters, **dict(given)}
        constants |= {"MEAN_OVER_OUTPUTS": row.mean_over_outputs, "BY_CLASS": row.class_targets}
        if row.link == "softmax":
            constants |= {"SOFTMAX_LINK": True, "LOSS_KIND": _CUDA_ROW_LOSSES[name]}
            constants |= {"SMOOTHING": f"REAL({values.get('label_smoothing', 0.0)!r})"}
            return [*none, self.link("identity")], constants | {"GAMMA": f"REAL({values.get('gamma', 0.0)!r})"}
        texts = [self.of("loss_value", "y, z", row.value, values, ()), self.link(row.link)]
        if row.delta is not None:
            return [*texts, self.of("loss_delta", "y, z", row.delta, values, ())], constants
        return [*texts, _numba_function("loss_delta", "y, z", ["return link(z) - y"], "@device\n")], constants

    def link(self, name: str) -> str:
        return self.of("link", "z", self.formulas.ACTIVATIONS[name].value, {}, ())

    def rule(self, name: str | None) -> list[str]:
        """uniforms(scalars, row), rule(states, at, stride, p, g, scalars), and on the host rule_scalars(*scalars)."""
        if name is None:
            uniform, lines, scalars, states = [], ["return p"], (), ()
        else:
            row = self.formulas.OPTIMIZERS[name]
            f, states, scalars = self.translate(row.rule, row.scalars), row.states, row.scalars
            uniform = [text for _, text in f.uniform]
            lines = [f"{state} = states_[U(at_ + {k} * stride_)]" for k, state in enumerate(states)]
            lines += [f"{u} = scalars_[{2 + k}]" for k, (u, _) in enumerate(f.uniform)]
            lines += [*f.statements, *(f"new{k} = {result}" for k, result in enumerate(f.results))]
            lines += [f"states_[U(at_ + {k} * stride_)] = new{k + 1}" for k in range(len(states))] + ["return new0"]
        columns = ", ".join(f"scalars[U(row * N_SCALARS + {k})]" for k in range(2 + len(uniform)))
        host = f"return [{', '.join(text.replace('math.', 'np.') for text in uniform)}]"
        return [
            f"N_SCALARS = {2 + len(uniform)}\n",
            _numba_function("rule_scalars", ", ".join(scalars), [host]),
            _numba_function("uniforms", "scalars, row", [f"return {columns}"], "@device\n"),
            _numba_function("rule", "states_, at_, stride_, p, g, scalars_", lines, "@device\n"),
        ]


def _cuda_dispatch(name: str, arguments: str, n: int, function: str, otherwise: str) -> str:
    """A function that calls ``function_KIND``."""
    rest = arguments.removeprefix("kind, ")
    if n == 1:
        lines = [f"return {function}_0({rest})"]
    else:
        lines = [line for k in range(n) for line in (f"if kind == {k}:", f"    return {function}_{k}({rest})")]
        lines.append(f"return {otherwise}")
    return _numba_function(name, arguments, lines, "@device\n")


_CUDA_PRODUCT = """
@device
def NAME(
    shared, a, a_at, a_ld, order, first, gathered, b, b_at, b_ld, rows, columns, depth, i0, j0
):
    DOCSTRING
    tid = cuda.threadIdx.x
    tx, ty = tid % SIDE, tid // SIDE
    a_i, a_p, b_j, b_p = A_INDEX, B_INDEX
ZEROS
PLACES
    p0 = 0
    while p0 < depth:
        cuda.syncthreads()
FILLS
        cuda.syncthreads()
        x_at, y_at, end = ty, DEPTH * LD + tx, DEPTH * LD
        while x_at < end:
TERMS
            x_at += UNROLLED * LD
            y_at += UNROLLED * LD
        p0 += DEPTH
    cuda.syncthreads()
STORES
    cuda.syncthreads()
"""
#: Name -> (is A turned, is B turned, what it says of itself).
_CUDA_PRODUCTS = {
    "product": (False, False, "shared[i * LD + j] = sum_p a[i0 + i, p] b[p, j0 + j]"),
    "product_with_turned": (False, True, "shared[i * LD + j] = sum_p a[i0 + i, p] b[j0 + j, p]"),
    "product_of_turned": (True, False, "shared[i * LD + j] = sum_p a[p, i0 + i] b[p, j0 + j]"),
}
_CUDA_UNROLLED = 8  # terms between two looks at the loop's end


def _cuda_fill(tile: CudaTile, part: int, turned: tuple[bool, bool]) -> tuple[list[str], list[str]]:
    """(before the loop, in it) what a thread does for one number of A's slice and one of B's."""
    threads = tile.side**2
    # along the depth a thread keeps its place, so that neighbours read neighbours; across it moves on with each part
    step_i, step_p = part * threads // tile.depth, part * threads // tile.size
    before, inside = [], []
    if turned[0]:
        inside += [f"row = p0 + a_p + {step_p}", f"x_{part} = ZERO", "if i0 + a_i < rows and row < depth:"]
        inside += ["    if gathered:", "        row += order[U(first + row)] - row"]
        inside += [f"    x_{part} = a[U(a_at + row * a_ld + i0 + a_i)]"]
        inside += [f"shared[U((a_p + {step_p}) * LD + a_i)] = x_{part}"]
    else:
        before += [f"row = i0 + a_i + {step_i}", f"a_in_{part} = row < rows", f"if gathered and a_in_{part}:"]
        before += ["    row += order[U(first + row)] - row", f"a_at_{part} = a_at + row * a_ld + a_p"]
        inside += [
            f"x_{part} = ZERO",
            f"if a_in_{part} and p0 + a_p < depth:",
            f"    x_{part} = a[U(a_at_{part} + p0)]",
        ]
        inside += [f"shared[U(a_p * LD + a_i + {step_i})] = x_{part}"]
    if turned[1]:
        inside += [f"y_{part} = ZERO", f"if j0 + b_j + {step_i} < columns and p0 + b_p < depth:"]
        inside += [f"    y_{part} = b[U(b_at + (j0 + b_j + {step_i}) * b_ld + p0 + b_p)]"]
        inside += [f"shared[U(DEPTH * LD + b_p * LD + b_j + {step_i})] = y_{part}"]
    else:
        inside += [f"y_{part} = ZERO", f"if j0 + b_j < columns and p0 + b_p + {step_p} < depth:"]
        inside += [f"    y_{part} = b[U(b_at + (p0 + b_p + {step_p}) * b_ld + j0 + b_j)]"]
        inside += [f"shared[U(DEPTH * LD + (b_p + {step_p}) * LD + b_j)] = y_{part}"]
    return before, inside


def _cuda_product(tile: CudaTile, name: str) -> str:
    """The product of a tile, the results of a thread in registers: micro * micro of them, and no loop over them."""
    *turned, what = _CUDA_PRODUCTS[name]
    micro, unrolled = tile.size // tile.side, min(_CUDA_UNROLLED, tile.depth)
    every = [(r, c) for r in range(micro) for c in range(micro)]
    fills = [_cuda_fill(tile, part, (turned[0], turned[1])) for part in range(tile.size * tile.depth // tile.side**2)]
    terms = []
    for p in range(unrolled):
        terms += [f"x_{r} = shared[U(x_at + {p} * LD + {r} * SIDE)]" for r in range(micro)]
        terms += [f"y_{c} = shared[U(y_at + {p} * LD + {c} * SIDE)]" for c in range(micro)]
        terms += [f"acc_{r}_{c} += x_{r} * y_{c}" for r, c in every]
    parts = {
        "ZEROS": [f"    acc_{r}_{c} = ZERO" for r, c in every],
        "PLACES": [f"    {line}" for before, _ in fills for line in before],
        "FILLS": [f"        {line}" for _, inside in fills for line in inside],
        "TERMS": [f"            {line}" for line in terms],
        "STORES": [f"    shared[U((ty + {r} * SIDE) * LD + tx + {c} * SIDE)] = acc_{r}_{c}" for r, c in every],
    }
    across, along = "tid % TILE, tid // TILE", "tid // DEPTH, tid % DEPTH"
    words = {"NAME": name, "DOCSTRING": f'"""{what}; terms in order of p."""', "UNROLLED": str(unrolled)}
    words |= {"A_INDEX": across if turned[0] else along, "B_INDEX": along if turned[1] else across}
    text = _CUDA_PRODUCT.lstrip("\n")
    for mark, lines in parts.items():
        text = text.replace(f"{mark}\n", "".join(f"{line}\n" for line in lines))
    return re.sub("|".join(words), lambda match: words[match[0]], text)


def cuda_module(
    formulas: ModuleType,
    template: str,
    tile: CudaTile,
    *,
    double: bool,
    simulated: bool,
    activations: Iterable = (),
    loss: object = None,
    rule: str | None = None,
) -> str:
    """The module of one combination of activations, loss and rule for the CUDA engine.

    Parameters
    ----------
    formulas : module
        kernels/formulas.py.
    template : str
        Text of numba_cuda/network.py.
    tile : CudaTile
    double : bool
        float64, else float32: then the device computes nothing in double precision.
    simulated : bool
        For Numba's simulator, which runs Python.
    activations, loss : entries
        (name, ((parameter, value), ...)), or a user's formula; the number of an activation is its place.
    rule : str, optional
        A key of OPTIMIZERS.
    """
    activations, write = list(activations), _CudaFormulas(formulas, double=double)
    low, high = -math.log1p(-write.epsilon), -math.log(write.epsilon)
    loss_texts, constants = write.loss(loss)
    settings = {
        "REAL": f"np.float{64 if double else 32}", "TILE": tile.size, "SIDE": tile.side, "DEPTH": tile.depth,
        "MICRO": tile.size // tile.side, "THREADS": tile.side**2, "LD": tile.size + 1, "SLICE": tile.size * tile.depth,
        "SHARED": max(2 * tile.depth * (tile.size + 1), tile.size * (tile.size + 1), tile.side**2 + tile.side),
        "LOG_LOSS_LOW": f"REAL({low!r})", "LOG_LOSS_HIGH": f"REAL({high!r})",
    }  # fmt: skip
    lines = [
        "# Generated by fastmlp/kernels/codegen.py: do not edit.",
        "import math",
        "from collections import namedtuple",
    ]
    lines += ["", "import numpy as np", "", "from fastmlp.kernels.numba_cuda.driver import import_cuda, record"]
    lines += ["", "cuda = import_cuda()", *_CUDA_HEAD[simulated]]
    lines += [f"{name}_ = {text}" for name, text in _CUDA_FUNCTIONS[simulated].items()]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    body, names = template.split(NETWORK_MARK, 1)[1].split("\n@device\n", 1)
    parts = ["\n".join(lines), body, "\n".join(f"{name} = {value}" for name, value in constants.items())]
    parts += [write.helper(helper) for helper in formulas.HELPERS]
    for number, entry in enumerate(activations):
        parts += write.activation(number, entry)
    n = len(activations)
    parts.append(_cuda_dispatch("activation_value", "kind, z, learned", n, "value", "z"))
    parts.append(_cuda_dispatch("activation_slope", "kind, z, a, learned", n, "slope", "ONE"))
    parts += [*loss_texts, *write.rule(rule), *(_cuda_product(tile, name) for name in _CUDA_PRODUCTS)]
    return "\n\n".join(parts) + "\n\n@device\n" + names
