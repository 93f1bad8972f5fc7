"""Formulas and a template -> modules for Numba on GPUs: one for each combination of activations, loss and rule."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .common import CFormula, reads_p
from .numba import NumbaTranslator, function_text

#: Functions of the formula language on the device, and where NumPy plays the device (the simulator).
_CUDA_FUNCTIONS = {
    False: {name: f"math.{name}" for name in ("exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt")} | {"abs": "abs"},
    True: {name: f"np.{name}" for name in ("exp", "expm1", "log", "log1p", "tanh", "sqrt")}
    | {"erf": "special.erf", "abs": "abs"},
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


@dataclass(frozen=True)
class CudaTile:
    """Sizes of a block: ``side * side`` threads make a tile of ``size * size`` results, ``depth`` terms at a time."""

    size: int
    side: int
    depth: int


class _CudaTranslator(NumbaTranslator):
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
        return function_text(name, arguments, lines, "@device\n").replace("REAL(inf)", "REAL(math.inf)")

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

    def activation(self, number: int, entry: Any) -> list[str]:
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
            return [*texts, function_text(slope, "z, a, learned", ["return a"], "@device\n")]
        return [*texts, self.of(slope, "z, a, learned", row.slope, values, row.learned)]

    def loss(self, entry: Any) -> tuple[list[str], dict[str, object]]:
        """link(z), term_value and term_slope of (y, z or log p, p, q, n_outputs), and what kind of loss it is."""
        flags = ("SOFTMAX_LINK", "MEAN_OVER_OUTPUTS", "BY_CLASS", "EVERY_OUTPUT", "READS_P")
        constants: dict[str, object] = {**dict.fromkeys(flags, False), "EVERY_OUTPUT": True}
        if entry is None:
            return [self.link("identity")], constants
        if hasattr(entry, "program_source"):
            names = {"value": "value", "slope": "delta"}
            texts = [self.own(f"term_{to}", "y, z, p, q, n", entry.program_source(of)) for to, of in names.items()]
            return [*texts, self.link(entry.link)], constants
        name, given = entry
        row = self.formulas.LOSSES[name]
        values, link, x = {**row.parameters, **dict(given)}, row.link, "z"
        constants |= {"MEAN_OVER_OUTPUTS": row.mean_over_outputs, "BY_CLASS": row.class_targets}
        if row.link == "softmax":
            constants |= {"SOFTMAX_LINK": True, "READS_P": reads_p(self.formulas, name)}
            constants |= {"EVERY_OUTPUT": row.needs_every_output(values.values())}
            link, x = "identity", "log_p"
        arguments = f"y, {x}, p, q, n_outputs"
        texts = [self.link(link), self.of("term_value", arguments, row.value, values, ())]
        if row.delta is not None:
            return [*texts, self.of("term_slope", arguments, row.delta, values, ())], constants
        return [*texts, function_text("term_slope", arguments, ["return link(z) - y"], "@device\n")], constants

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
            function_text("rule_scalars", ", ".join(scalars), [host]),
            function_text("uniforms", "scalars, row", [f"return {columns}"], "@device\n"),
            function_text("rule", "states_, at_, stride_, p, g, scalars_", lines, "@device\n"),
        ]


def _cuda_dispatch(name: str, arguments: str, n: int, function: str, otherwise: str) -> str:
    """A function that calls ``function_KIND``."""
    rest = arguments.removeprefix("kind, ")
    if n == 1:
        lines = [f"return {function}_0({rest})"]
    else:
        lines = [line for k in range(n) for line in (f"if kind == {k}:", f"    return {function}_{k}({rest})")]
        lines.append(f"return {otherwise}")
    return function_text(name, arguments, lines, "@device\n")


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
#: Name -> (is A transposed, is B transposed, what it says of itself).
_CUDA_PRODUCTS = {
    "product": (False, False, "shared[i * LD + j] = sum_p a[i0 + i, p] b[p, j0 + j]"),
    "product_nt": (False, True, "shared[i * LD + j] = sum_p a[i0 + i, p] b[j0 + j, p]"),
    "product_tn": (True, False, "shared[i * LD + j] = sum_p a[p, i0 + i] b[p, j0 + j]"),
}
_CUDA_UNROLLED = 8  # terms between two looks at the loop's end


def _cuda_fill(tile: CudaTile, part: int, transposed: tuple[bool, bool]) -> tuple[list[str], list[str]]:
    """(before the loop, in it) what a thread does for one number of A's slice and one of B's."""
    threads = tile.side**2
    # along the depth a thread keeps its place, so that neighbours read neighbours; across it moves on with each part
    step_i, step_p = part * threads // tile.depth, part * threads // tile.size
    before, inside = [], []
    if transposed[0]:
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
    if transposed[1]:
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
    *transposed, what = _CUDA_PRODUCTS[name]
    micro, unrolled = tile.size // tile.side, min(_CUDA_UNROLLED, tile.depth)
    every = [(r, c) for r in range(micro) for c in range(micro)]
    fills = [
        _cuda_fill(tile, part, (transposed[0], transposed[1])) for part in range(tile.size * tile.depth // tile.side**2)
    ]
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
    words |= {"A_INDEX": across if transposed[0] else along, "B_INDEX": along if transposed[1] else across}
    text = _CUDA_PRODUCT.lstrip("\n")
    for mark, lines in parts.items():
        text = text.replace(f"{mark}\n", "".join(f"{line}\n" for line in lines))
    return re.sub("|".join(words), lambda match: words[match[0]], text)


def _settings(tile: CudaTile, double: bool) -> dict[str, object]:
    """Constants of a module: its type of number, sizes of a block."""
    return {
        "REAL": f"np.float{64 if double else 32}", "TILE": tile.size, "SIDE": tile.side, "DEPTH": tile.depth,
        "MICRO": tile.size // tile.side, "THREADS": tile.side**2, "LD": tile.size + 1, "SLICE": tile.size * tile.depth,
        "SHARED": max(2 * tile.depth * (tile.size + 1), tile.size * (tile.size + 1), tile.side**2 + tile.side),
    }  # fmt: skip


def cuda_module(
    formulas: ModuleType,
    template: str,
    tile: CudaTile,
    *,
    double: bool,
    simulated: bool,
    activations: Iterable = (),
    loss: Any = None,
    rule: str | None = None,
) -> str:
    """The module of one combination of activations, loss and rule for the CUDA engine.

    Parameters
    ----------
    formulas : module
        kernels/formulas.py.
    template : str
        The parts of numba_cuda/template/, joined.
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
    loss_texts, constants = write.loss(loss)
    lines = [
        "# Generated by fastmlp/kernels/codegen: do not edit.",
        "import math",
        "from collections import namedtuple",
    ]
    lines += ["", "import numpy as np", "", "from fastmlp.kernels.numba_cuda.driver import import_cuda, record"]
    lines += ["", "cuda = import_cuda()", *_CUDA_HEAD[simulated]]
    lines += [f"{name}_ = {text}" for name, text in _CUDA_FUNCTIONS[simulated].items()]
    lines += [f"{name} = {value}" for name, value in _settings(tile, double).items()]
    body, names = template.split("\n@device\n", 1)
    parts = ["\n".join(lines), body, "\n".join(f"{name} = {value}" for name, value in constants.items())]
    parts += [write.helper(helper) for helper in formulas.HELPERS]
    for number, entry in enumerate(activations):
        parts += write.activation(number, entry)
    n = len(activations)
    parts.append(_cuda_dispatch("activation_value", "kind, z, learned", n, "value", "z"))
    parts.append(_cuda_dispatch("activation_slope", "kind, z, a, learned", n, "slope", "ONE"))
    parts += [*loss_texts, *write.rule(rule), *(_cuda_product(tile, name) for name in _CUDA_PRODUCTS)]
    return "\n\n".join(parts) + "\n\n@device\n" + names
