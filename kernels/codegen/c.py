"""Formulas -> a C header.

The header is a template over ``REAL`` (float or double): C code includes it once per dtype, with ``REAL``, ``FN(name)``
(decorates a name with the dtype) and ``EPSILON`` defined, so every literal is typed and no float expression is ever
promoted to double.

For each row of the tables the header holds array loops that a C compiler vectorises:

* function of the language: ``evaluate(n, x, out)``, for measuring its error
* activation: ``value(n, z, a, parameters)`` and ``backward(n, z, a, delta, parameters)`` with ``delta *= slope``; where
  the slope reads z, also ``forward(n, z, a, parameters)``, which leaves the slope in z and shares what both compute;
  ``mixed(n, z, a, product, mix, parameters)`` is the forward pass of ``a = z + (f(z) - z) mix``, which leaves the slope
  in z and ``f(z) - z`` in product
* loss: ``value(n, y, z, out, parameters)``, and ``delta`` likewise where the link is not the canonical one
* loss of a row of softmax: ``value(n, n_outputs, y, log_p, p, q, out, parameters)`` and ``slope`` likewise
* optimizer: ``rule(n, p, g, states, scalars, alpha, l1, scale, keep)``: a step from ``p * keep`` along the gradient
  ``(g + alpha p + l1 sign p) scale``
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import ModuleType

from .common import FUNCTIONS, CFormula, FormulaError, reads_p, translate

#: What one row of a table may have: the engine keeps them in arrays of this length.
MOST_PARAMETERS = MOST_STATES = 4


def _uniform_lines(formula: CFormula) -> list[str]:
    return [f"const REAL {name} = (REAL)({text});" for name, text in formula.uniform]


def _helper(function: Callable, helpers: list[str]) -> str:
    """A formula other formulas may call, as an inline function of scalars."""
    f = translate(function, helpers=helpers)
    arguments = ", ".join(f"REAL {a}" for a in f.arguments)
    body = "\n    ".join([*_uniform_lines(f), *f.statements, f"return {f.results[0]};"])
    return f"static inline REAL FN({f.name})({arguments})\n{{\n    {body}\n}}\n"


def _map(
    symbol: str, f: CFormula, inputs: list[str], output: str, store: str, parameters: Iterable[str] = (),
    sizes: Iterable[str] = (),
) -> str:  # fmt: skip
    """``output[i] store f(inputs[i], *sizes, *parameters)``: the array loop of an elementwise formula."""
    arguments = ", ".join(f"const REAL *{name}_" for name in inputs)
    used = [(k, name) for k, name in enumerate(parameters) if name in f.names_used]
    lines = [f"const double {name} = parameters[{k}];" for k, name in used]
    lines += ["(void)parameters;"] if not used else []
    lines += [*_uniform_lines(f), "IVDEP", "for (idx i = 0; i < n; i++) {"]
    lines += [f"    const REAL {name} = {name}_[i];" for name in inputs if name in f.names_used]
    lines += [f"    {s}" for s in f.statements]
    lines += [f"    {output}[i] {store} {f.results[0]};", "}"]
    lines += [f"(void){name}_;" for name in inputs if name not in f.names_used]
    lines += [f"(void){name};" for name in sizes if name not in f.names_used]
    body = "\n    ".join(lines)
    arguments += f", REAL *{output}, const double *parameters"
    counts = ", ".join(f"idx {name}" for name in ("n", *sizes))
    return f"static void FN({symbol})({counts}, {arguments})\n{{\n    {body}\n}}\n"


_FORWARD_STORES = ["a_[i] = a;", "z_[i] = d;"]
#: a parametric activation: z + (f(z) - z) mix, its slope in z, and its slope in mix
_MIXED_STORES = [
    "const REAL difference = a - z;",
    "a_[i] = z + difference * mix_[i];",
    "z_[i] = (REAL)1.0 + (d - (REAL)1.0) * mix_[i];",
    "product_[i] = difference;",
]


def _forward(
    symbol: str, value: CFormula, slope: CFormula, parameters: list[str], stores: list[str] = _FORWARD_STORES,
    more: str = "",
) -> str:  # fmt: skip
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
    lines += [*(f"    {store}" for store in stores), "}"]
    body_text = "\n    ".join(lines)
    arguments = f"idx n, REAL *z_, REAL *a_, {more}const double *parameters"
    return f"static void FN({symbol})({arguments})\n{{\n    {body_text}\n}}\n"


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
    """Render the formulas and their tables as a C header, a template over REAL.

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
    parts = ["/* Generated by kernels/codegen from kernels/formulas.py: do not edit. */\n"]
    parts += [_helper(h, helpers) for h in formulas.HELPERS]
    parts += _functions()
    parts += _activations(formulas, helpers)
    parts += _losses(formulas, helpers)
    parts += _optimizers(formulas, helpers)
    return "\n".join(parts)


def _table(kind: str, name: str, rows: list[str]) -> str:
    return f"static const FN({kind}) FN({name})[] = {{\n" + "\n".join(rows) + "\n};\n"


def _functions() -> list[str]:
    """The functions of the language as array loops, and their table."""
    parts = []
    for name, c_name in FUNCTIONS.items():
        call = CFormula(name, ["x"], results=[f"{c_name}(x)"], names_used={"x"})
        parts.append(_map(f"function_{name}", call, ["x"], "out", "="))
    rows = [f'    {{"{name}", FN(function_{name})}},' for name in FUNCTIONS]
    return [*parts, _table("function", "FUNCTIONS", rows)]


def _activations(formulas: ModuleType, helpers: list[str]) -> list[str]:
    parts, rows = [], []
    for name, activation in formulas.ACTIVATIONS.items():
        parameters = list(activation.parameters)
        value = translate(activation.value, parameters, helpers)
        parts.append(_map(f"{name}_value", value, ["z"], "a", "=", parameters))
        backward, forward, mixed, needs_z = "0", "0", "0", 0
        if activation.slope is not None:
            slope = translate(activation.slope, parameters, helpers)
            parts.append(_map(f"{name}_backward", slope, ["z", "a"], "delta", "*=", parameters))
            backward, needs_z = f"FN({name}_backward)", int("z" in slope.names_used)
            if needs_z and not activation.learned:
                parts.append(_forward(f"{name}_forward", value, slope, parameters))
                forward = f"FN({name}_forward)"
            if not activation.learned:
                of_mix = "REAL *product_, const REAL *mix_, "
                parts.append(_forward(f"{name}_mixed", value, slope, parameters, _MIXED_STORES, of_mix))
                mixed = f"FN({name}_mixed)"
        fields = f"{backward}, {forward}, {mixed}, {needs_z}, {len(parameters)}"
        rows.append(f'    {{"{name}", FN({name}_value), {fields}}},')
    return [*parts, _table("activation", "ACTIVATIONS", rows)]


def _losses(formulas: ModuleType, helpers: list[str]) -> list[str]:
    parts, rows, links = [], [], [*formulas.ACTIVATIONS]
    for name, loss in formulas.LOSSES.items():
        parameters, softmax = list(loss.parameters), loss.link == "softmax"
        inputs, sizes = (["y", "log_p", "p", "q"], ["n_outputs"]) if softmax else (["y", "z"], [])
        functions = ["0"] * 4  # value and delta, of a logit and of a probability
        for k, (kind, function) in enumerate((("loss", loss.value), ("delta", loss.delta))):
            if function is not None:
                formula = translate(function, [*sizes, *parameters], helpers)
                parts.append(_map(f"{kind}_{name}", formula, inputs, "out", "=", parameters, sizes))
                functions[k + 2 * softmax] = f"FN({kind}_{name})"
        fields = [f'"{name}"', *functions, -1 if softmax else links.index(loss.link), int(loss.mean_over_outputs)]
        fields += [int(loss.class_targets), int(softmax and reads_p(formulas, name)), len(parameters)]
        rows.append(f"    {{{', '.join(map(str, fields))}}},")
    return [*parts, _table("loss_row", "LOSSES", rows)]


def _optimizers(formulas: ModuleType, helpers: list[str]) -> list[str]:
    parts, rows = [], []
    for name, optimizer in formulas.OPTIMIZERS.items():
        parts.append(_rule(name, optimizer.rule, optimizer.states, optimizer.scalars, helpers))
        rows.append(f'    {{"{name}", FN(rule_{name}), {len(optimizer.states)}, {len(optimizer.scalars)}}},')
    return [*parts, _table("optimizer", "OPTIMIZERS", rows)]
