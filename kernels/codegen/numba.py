"""Formulas -> modules for Numba on CPUs.

Every number has a type and no conditional is a branch.  A module begins with the text of the engine's math.py, because
Numba's cache on disk sees one file at a time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from types import ModuleType

from .common import FUNCTIONS, CFormula, Translator

#: What is in front of this line of a Numba template is for readers and linters alone.
NETWORK_MARK = "# --- network ---\n"
_SETTINGS = re.compile(r"# --- settings ---\n.*?# --- end of settings ---\n", re.DOTALL)


class NumbaTranslator(Translator):
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

        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and type(node.value) is not bool:
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


def _translate(function: Callable, scalars: Iterable[str] = (), helpers: Iterable[str] = ()) -> CFormula:
    return NumbaTranslator(function, scalars, helpers).translate()


def _uniform(f: CFormula, parameters: Iterable[str], address: str) -> list[str]:
    """Scalars and what depends on them alone, evaluated once, in double precision."""
    parameters = list(parameters)
    lines = [f"{name} = doubles({address}, {len(parameters)})[{k}]" for k, name in enumerate(parameters)]
    return [*lines, *(f"{name} = REAL({text})" for name, text in f.uniform)]


def function_text(name: str, arguments: str, lines: Iterable[str], decorator: str = "") -> str:
    body = "\n    ".join(lines)
    return f"{decorator}def {name}({arguments}):\n    {body}\n"


def _helper(function: Callable, helpers: list[str]) -> str:
    f = _translate(function, helpers=helpers)
    lines = [*_uniform(f, [], ""), *f.statements, f"return {f.results[0]}"]
    return function_text(f"{f.name}_", ", ".join(f.arguments), lines, "@njit(**INLINE)\n")


def _loop(body: Iterable[str]) -> list[str]:
    return ["for index in range(count):", *(f"    {line}" for line in body)]


def _activation(name: str, value: CFormula, slope: CFormula | None, parameters: list[str]) -> list[str]:
    """value_, in place; backward_; and where the slope reads z, forward_, which leaves the slope in z."""
    load = [f"{x}_values = reals({x}_, count)" for x in ("z", "a", "delta")]
    inplace = ["z = a_values[index]", *value.statements, f"a_values[index] = {value.results[0]}"]
    head = [load[1], *_uniform(value, parameters, "parameters")]
    texts = [function_text(f"value_{name}", "count, a_, parameters", [*head, *_loop(inplace)])]
    if slope is None:
        return texts
    body = [f"{x} = {x}_values[index]" for x in ("z", "a") if x in slope.names_used]
    body += [*slope.statements, f"delta_values[index] *= {slope.results[0]}"]
    head = [*load, *_uniform(slope, parameters, "parameters")]
    texts.append(function_text(f"backward_{name}", "count, z_, a_, delta_, parameters", [*head, *_loop(body)]))
    if "z" in slope.names_used:
        # two formulas in one loop: the names of the second are kept apart
        shift = {u: f"slope_{u}" for u, _ in slope.uniform}
        local = ({s.split(" = ")[0] for s in slope.statements} | set(shift)) - {"z", "a"}

        def apart(text: str) -> str:
            return re.sub(r"\b[A-Za-z_]\w*\b", lambda m: f"slope_{m[0]}" if m[0] in local else m[0], text)

        body = ["z = z_values[index]", "kept_z = z", *value.statements, f"kept_a = {value.results[0]}"]
        body += ["z = kept_z", "a = kept_a", *map(apart, slope.statements), "a_values[index] = kept_a"]
        body += [f"z_values[index] = {apart(slope.results[0])}"]
        head = [*load[:2], *_uniform(value, parameters, "parameters")]
        head += [f"{shift[u]} = REAL({text})" for u, text in slope.uniform]
        texts.append(function_text(f"forward_{name}", "count, z_, a_, parameters", [*head, *_loop(body)]))
    return texts


def _loss(name: str, value: CFormula, delta: CFormula, parameters: list[str], mean: bool, canonical: bool) -> str:
    """row_loss = weight * sum (or mean) over the outputs of the value; delta = slope * weight."""
    lines = ["size = rows * width", "y_values, logits = reals(y_, size), reals(scratch, size)"]
    lines += ["values, slopes = reals(scratch + size * ITEM, size), reals(scratch + 2 * size * ITEM, size)"]
    lines += ["source, to, row_losses = reals(z_, rows * ld), reals(delta_, rows * ld), doubles(row_loss, rows)"]
    lines += ["for row in range(rows):", "    for column in range(width):"]
    lines += ["        logits[row * width + column] = source[row * ld + column]"]
    for formula, out in ((value, "values"), (delta, "slopes")):
        less_y = canonical and out == "slopes"
        lines += _uniform(formula, parameters, "parameters")
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
    return function_text(f"loss_{name}", arguments, lines)


def _terms(name: str, value: CFormula, slope: CFormula, parameters: list[str]) -> str:
    """Values and slopes in log p of outputs of softmax rows."""
    lines = [f"{x}_values = reals({x}_, count)" for x in ("y", "log_p", "p", "q")]
    lines += ["values, slopes = reals(values_, count), reals(slopes_, count)"]
    for formula, out in ((value, "values"), (slope, "slopes")):
        body = [f"{x} = {x}_values[index]" for x in ("y", "log_p", "p", "q") if x in formula.names_used]
        lines += _uniform(formula, parameters, "parameters")
        lines += _loop([*body, *formula.statements, f"{out}[index] = {formula.results[0]}"])
    return function_text(f"terms_{name}", "count, n_outputs, y_, log_p_, p_, q_, values_, slopes_, parameters", lines)


def _rule(name: str, function: Callable, states: tuple[str, ...], scalars: tuple[str, ...], helpers: list[str]) -> str:
    """An optimizer step as one pass over memory, with penalties, the batch's scale and weight decay fused in."""
    f = _translate(function, scalars, helpers)
    head = ["p_values, g_values = reals(p_, count), reals(g_, count)"]
    head += [f"{s}_values = reals(states + {k} * stride, count)" for k, s in enumerate(states)]
    head += _uniform(f, scalars, "scalars_")
    head += ["alpha, l1, scale, keep = REAL(alpha), REAL(l1), REAL(scale), REAL(keep)"]
    loop = ["p = p_values[index]", "g = GRADIENT", "p = p * keep", *(f"{s} = {s}_values[index]" for s in states)]
    loop += [*f.statements, *(f"new{k} = {result}" for k, result in enumerate(f.results)), "p_values[index] = new0"]
    loop = _loop([*loop, *(f"{s}_values[index] = new{k}" for k, s in enumerate(states, 1))])
    sign = "select(p > REAL(0.0), REAL(1.0), select(p < REAL(0.0), REAL(-1.0), REAL(0.0)))"
    lines = [*head, "if alpha == REAL(0.0) and l1 == REAL(0.0):"]
    lines += [f"    {line}".replace("GRADIENT", "g_values[index] * scale") for line in loop]
    lines += ["else:"]
    penalised = f"(g_values[index] + alpha * p + l1 * {sign}) * scale"
    lines += [f"    {line}".replace("GRADIENT", penalised) for line in loop]
    return function_text(f"rule_{name}", "count, p_, g_, states, stride, scalars_, alpha, l1, scale, keep", lines)


def numba_head(template: str, *, double: bool, vector_bytes: int, tile_rows: int) -> str:
    """Return the text of math.py with the settings of a dtype and a machine."""
    settings = f"DOUBLE = {double}\nVECTOR_BYTES = {vector_bytes}\nTILE_ROWS = {tile_rows}\n"
    return "# Generated by fastmlp/kernels/codegen: do not edit.\n" + _SETTINGS.sub(settings, template)


def numba_network(head: str, constants: dict[str, int], parts: Iterable[str]) -> str:
    """Return the module of the driver: the head, constants, then the parts of the template behind their imports."""
    imports = "from llvmlite import ir\nfrom numba.core import cgutils\n"
    names = "\n".join(f"{name} = {value}" for name, value in constants.items())
    texts = [part.split(NETWORK_MARK, 1)[1].strip() for part in parts]
    return "\n\n\n".join([head, imports.strip(), names, *texts]) + "\n"


def numba_module(formulas: ModuleType, head: str) -> str:
    """Render the formulas and their tables as a self-contained module for Numba.

    Its functions are plain: numba_cpu/cache.py compiles each as a C function when it is first needed.  Arguments are
    integers, the addresses of arrays among them, but for the last four of a rule, which are doubles:

    * ``value_NAME(n, a, parameters)``: in place, a = f(a)
    * ``backward_NAME(n, z, a, delta, parameters)``: delta *= f'(z)
    * ``forward_NAME(n, z, a, parameters)``: a = f(z), then z = f'(z); where the slope reads z
    * ``loss_NAME(rows, n, ld, z, y, weight, delta, row_loss, scratch, parameters)``
    * ``terms_NAME(n, n_outputs, y, log_p, p, q, values, slopes, parameters)``; of a softmax loss
    * ``rule_NAME(n, p, g, states, stride, scalars, alpha, l1, scale, keep)``
    """
    helpers = [h.__name__ for h in formulas.HELPERS]
    parts = [head, *(_helper(h, helpers) for h in formulas.HELPERS)]
    for name, row in formulas.ACTIVATIONS.items():
        parameters = list(row.parameters)
        value = _translate(row.value, parameters, helpers)
        slope = _translate(row.slope, parameters, helpers) if row.slope is not None else None
        parts += _activation(name, value, slope, parameters)
    for name, row in formulas.LOSSES.items():
        parameters, canonical = list(row.parameters), row.delta is None
        scalars = ["n_outputs", *parameters]
        value = _translate(row.value, scalars, helpers)
        slope = _translate(formulas.ACTIVATIONS[row.link].value if canonical else row.delta, scalars, helpers)
        if row.link == "softmax":
            parts.append(_terms(name, value, slope, parameters))
        else:
            parts.append(_loss(name, value, slope, parameters, row.mean_over_outputs, canonical))
    for name, row in formulas.OPTIMIZERS.items():
        parts.append(_rule(name, row.rule, row.states, row.scalars, helpers))
    return "\n\n".join(parts)


def numba_formula(head: str, sources: dict[str, str]) -> str:
    """Render a module for a user's formula, from the texts of its programs: "value" with "slope" or with "delta"."""

    def translated(kind: str) -> CFormula:
        tree = ast.parse(sources[kind]).body[0]
        assert isinstance(tree, ast.FunctionDef)
        return NumbaTranslator(numba_formula, (), (), tree).translate()

    if "slope" in sources:
        return "\n\n".join([head, *_activation("own", translated("value"), translated("slope"), [])])
    return "\n\n".join([head, _loss("own", translated("value"), translated("delta"), [], False, False)])
