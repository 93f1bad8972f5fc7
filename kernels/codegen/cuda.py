"""Formulas and a template -> modules for Numba on GPUs: one for each combination of activations, loss and rule."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

from . import tensor_cores
from .common import CFormula, reads_p
from .numba import NumbaTranslator, function_text

#: Functions of the formula language on the device, and where NumPy plays the device (the simulator).
_CUDA_FUNCTIONS = {
    False: {name: f"math.{name}" for name in ("exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt")} | {"abs": "abs"},
    True: {name: f"np.{name}" for name in ("exp", "expm1", "log", "log1p", "tanh", "sqrt")}
    | {"erf": "special.erf", "abs": "abs"},
}
#: Registers of a thread, by kernel.  Training has one block per multiprocessor, which may use them all, so that nothing
#: is spilled; of predictions a multiprocessor holds two: what waits for memory in one is worked on in the other.
CUDA_REGISTERS = {"train": 255, "train_many": 255, "predict": 128, "finite_array": 128}
_CUDA_HEAD = {
    False: [
        "device = cuda.jit(device=True, forceinline=True)",
        f"REGISTERS = {CUDA_REGISTERS}",
        "kernel = lambda function: cuda.jit(cache=True, max_registers=REGISTERS[function.__name__])(function)",
        "U, I, NONE = np.uint64, np.int32, 2**30",
        "quiet = device(lambda: None)",
    ],
    True: [
        "from scipy import special",
        "device, kernel, U, I, NONE = (lambda function: function), cuda.jit, int, int, 2**30",
        'quiet = lambda: np.seterr(all="ignore")',  # in each of the threads
    ],
}


@dataclass(frozen=True)
class CudaTile:
    """Sizes of a block, which makes a tile of ``size * size`` results, ``depth`` terms at a time.

    ``groups`` groups of ``side * side`` threads each make the whole tile from every ``groups``-th ``quad`` terms, so
    each thread has as many results as possible for what it reads.  The order of the sums is the same for every size.
    Below the ``precision`` "highest" tensor cores multiply, eight terms of a group at a time.
    """

    size: int
    depth: int
    side: int = 8
    groups: int = 4
    quad: int = 4
    precision: str = "highest"

    @property
    def columns(self) -> int:
        """Neurons that a narrow output layer has at most: the columns of a narrow product."""
        return 2 * self.side

    def at(self, precision: str) -> CudaTile:
        """Return a tile of this size with products of this precision; a slice has terms for every group."""
        depth = self.depth if precision == "highest" else max(self.depth, tensor_cores.TERMS * self.groups)
        return replace(self, depth=depth, precision=precision)

    @property
    def micro(self) -> int:
        """Rows, and columns, of the results of a thread."""
        return self.size // self.side

    @property
    def threads(self) -> int:
        return self.groups * self.side**2

    @property
    def row(self) -> int:
        """Numbers from a row in shared memory to the next: whole vectors of 16 bytes, and threads meet in few banks."""
        return self.size + 4

    @property
    def shared(self) -> int:
        """Numbers in shared memory: two slices of both matrices, or half of the groups' results, or sums of threads.

        Or two slices of a narrow product, which have terms for every group at least.
        """
        narrow = 2 * self.groups * self.quad * (self.row + self.columns + 4)
        results = max(self.groups // 2, 1) * self.size * self.row
        return max(4 * self.depth * self.row, narrow, results, 2 * self.threads)

    @property
    def form(self) -> Form:
        """Of the products whose results are a whole tile."""
        return Form(self.size, self.depth, "DEPTH", "LD", self.row)

    @property
    def narrow(self) -> Form:
        """Of the products of a narrow output layer; as many terms as there is room for, a power of two."""
        row = self.columns + 4
        room = min(self.shared // (2 * (self.row + row)), 2 * self.depth)
        terms = max(1 << (room.bit_length() - 1), self.groups * self.quad)
        return Form(self.columns, terms, "NARROW_SLICE", "NARROW_LD", row)

    @property
    def has_narrow(self) -> bool:
        """Whether narrow products differ from those of a whole tile."""
        return self.precision != "highest" or self.narrow[:2] != self.form[:2]


class Form(NamedTuple):
    """Sizes in which the products of a tile differ.

    Attributes
    ----------
    columns, depth : int
        Columns of the result, and terms of a slice.
    slice, ld : str
        Constants of a module: ``depth``, and ``row``.
    row : int
        Numbers from a row of B's slices, and of the result, to the next.
    """

    columns: int
    depth: int
    slice: str
    ld: str
    row: int


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
OWN
ZEROS
PLACES
    left, number = depth, 0
    cuda.syncthreads()
FETCHES
    to = 0
FILLS
    while left > 0:
        cuda.syncthreads()
READS
        left -= SLICE
        number += 1
NEXT
        to = (number & 1) * (SLICE * (LD + B_LD))
TERMS
FILLED
    cuda.syncthreads()
SUMS
AGAIN
    cuda.syncthreads()
"""
#: Name -> (is A transposed, is B transposed, what it says of itself).
_CUDA_PRODUCTS = {
    "product": (False, False, "shared[i * LD + j] = sum_p a[i0 + i, p] b[p, j0 + j]"),
    "product_nt": (False, True, "shared[i * LD + j] = sum_p a[i0 + i, p] b[j0 + j, p]"),
    "product_tn": (True, False, "shared[i * LD + j] = sum_p a[p, i0 + i] b[p, j0 + j]"),
}
_CUDA_ORDER = "group g adds the terms of every GROUPS-th {of} in order; then (s0 + s1) + (s2 + s3)"


class _Operand(NamedTuple):
    """A matrix of a product, as the generated code knows it.

    Attributes
    ----------
    name, number : str
        Of the matrix, and of what is on its way to registers.
    limit, origin : str
        How far its rows, or columns, go that are none of terms; and the first one of the tile.
    gathers : bool
        Whether its rows may be found through ``order``.
    extent : int
        Rows, or columns, of the tile.
    at, ld : str
        Where its slice begins in ``shared``, and numbers from a term to the next.
    """

    name: str
    number: str
    limit: str
    origin: str
    gathers: bool
    extent: int
    at: str
    ld: str


def _cuda_along(tile: CudaTile, form: Form, of: _Operand) -> tuple:
    """(before the loop, fetches, stores) of a slice that neighbours read along the depth, number by number."""
    # eight neighbours read a sector of 32 bytes, and the banks that they write to differ
    name = of.name
    along = min(form.depth, tile.threads // min(of.extent, max(tile.threads // 8, 1)))
    rows = tile.threads // along
    fetches: list[str] = []
    stores: list[str] = []
    before = [f"{name}_p, {name}_i = tid % {along}, tid // {along}"]
    for q in range(of.extent // rows):
        row, term, at = f"{name}_row_{q}", f"{name}_term_{q}", f"{name}_at_{q}"
        before.append(f"{row} = {of.origin} + {name}_i + {q * rows}")
        before.append(f"{term} = I({name}_p if {row} < {of.limit} else NONE)")
        if of.gathers:
            before += [f"if gathered and {row} < {of.limit}:", f"    {row} += order[U(first + {row})] - {row}"]
        before.append(f"{at} = {name}_at + {row} * {name}_ld + {name}_p")
        for p in range(0, form.depth, along):
            x = f"{of.number}_{len(stores)}"
            fetches += [f"{x} = ZERO", f"if {term} < I(left - {p}):", f"    {x} = {name}[U({at} + {p})]"]
            stores.append(f"shared[U(to + {of.at}({name}_p + {p}) * {of.ld} + {name}_i + {q * rows})] = {x}")
        fetches.append(f"{at} += {form.slice}")
    return before, fetches, stores


def _cuda_across(tile: CudaTile, form: Form, of: _Operand) -> tuple:
    """The same of a slice that neighbours read across the depth."""
    name, step = of.name, tile.threads // of.extent
    terms = range(0, form.depth, step)
    before = [
        f"{name}_i, {name}_p = tid % {of.extent}, tid // {of.extent}",
        f"{name}_term = I({name}_p if {of.origin} + {name}_i < {of.limit} else NONE)",
        f"{name}_from = {name}_at + {of.origin} + {name}_i",
        f"{name}_run = {name}_from + {name}_p * {name}_ld",
    ]
    plain: list[str] = []
    gathered: list[str] = []
    for n, p in enumerate(terms):
        begin = [f"{of.number}_{n} = ZERO", f"if {name}_term < I(left - {p}):"]
        plain += [*begin, f"    {of.number}_{n} = {name}[U({name}_run + {p} * {name}_ld)]"]
        gathered += [*begin, f"    row = order[U(first + depth - left + {name}_p + {p})]"]
        gathered.append(f"    {of.number}_{n} = {name}[U({name}_from + row * {name}_ld)]")
    fetches = [*plain, f"{name}_run += {form.slice} * {name}_ld"]
    if of.gathers:
        fetches = ["if gathered:", *_indented(gathered), "else:", *_indented(fetches)]
    stores = [
        f"shared[U(to + {of.at}({name}_p + {p}) * {of.ld} + {name}_i)] = {of.number}_{n}" for n, p in enumerate(terms)
    ]
    return before, fetches, stores


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _places(n: int, side: int) -> list[int]:
    """Places of a thread's n rows, or columns, counted from its first: vectors of up to four, side by side."""
    wide = min(n, 4)
    return [r // wide * wide * side + r % wide for r in range(n)]


def _float32(tile: CudaTile, form: Form) -> tensor_cores.Share:
    """A thread's share of a tile's product in float32."""
    rows, columns = (_places(n // tile.side, tile.side) for n in (tile.size, form.columns))
    own = [
        "group, lane = tid // (SIDE * SIDE), tid % (SIDE * SIDE)",
        f"tx, ty = lane % SIDE * {min(len(columns), 4)}, lane // SIDE * {min(len(rows), 4)}",
    ]
    reads = [
        f"at, quad = (number & 1) * ({form.slice} * (LD + {form.ld})), group * QUAD",
        f"x_at, y_at = at + quad * LD + ty, at + {form.slice} * LD + quad * {form.ld} + tx",
    ]
    terms = []
    for q in range(0, form.depth, tile.groups * tile.quad):
        for p in range(q, q + tile.quad):
            terms += [f"x_{r} = shared[U(x_at + {p * tile.row + place})]" for r, place in enumerate(rows)]
            terms += [f"y_{c} = shared[U(y_at + {p * form.row + place})]" for c, place in enumerate(columns)]
            terms += [f"acc_{r}_{c} += x_{r} * y_{c}" for r in range(len(rows)) for c in range(len(columns))]
    return tensor_cores.Share(own, reads, terms, rows, columns)


def _cuda_product(tile: CudaTile, name: str, *, narrow: bool = False) -> str:
    """The product of a tile, the results of a thread in registers: a name for each, and no loop over them.

    While a slice is worked on, the next one is on its way to registers, and from there to the other half of ``shared``.
    """
    form, exact = (tile.narrow, True) if narrow else (tile.form, tile.precision == "highest")
    of_a_transposed, of_b_transposed, what = _CUDA_PRODUCTS[name]
    a = _Operand("a", "n", "rows", "i0", not narrow, tile.size, "", "LD")
    b = _Operand("b", "m", "columns", "j0", False, form.columns, f"{form.slice} * LD + ", form.ld)
    ways = (_cuda_along, _cuda_across)
    of_a, of_b = ways[of_a_transposed](tile, form, a), ways[not of_b_transposed](tile, form, b)
    before, fetches, stores = ([*one, *other] for one, other in zip(of_a, of_b, strict=True))
    share = _float32(tile, form) if exact else tensor_cores.share(tile, _places(tile.micro, tile.side))
    every = [(r, c) for r in range(len(share.rows)) for c in range(len(share.columns))]
    half, sums = 1, [f"own = ty * {form.ld} + tx"]
    cell = {(r, c): f"{share.rows[r] * form.row + share.columns[c]}" for r, c in every}
    while half < tile.groups:
        region = f"own + group // {2 * half} * (TILE * {form.ld})"
        sums += [f"if group % {2 * half} == {half}:", f"    to = {region}"]
        sums += [f"    shared[U(to + {cell[r, c]})] = acc_{r}_{c}" for r, c in every]
        sums += ["cuda.syncthreads()", f"if group % {2 * half} == 0:", f"    to = {region}"]
        sums += [f"    acc_{r}_{c} += shared[U(to + {cell[r, c]})]" for r, c in every]
        sums.append("cuda.syncthreads()")
        half *= 2
    sums += ["if group == 0:", *(f"    shared[U(own + {cell[r, c]})] = acc_{r}_{c}" for r, c in every)]
    parts = {
        "OWN": (1, share.own),
        "ZEROS": (1, [f"acc_{r}_{c} = ZERO" for r, c in every]),
        "PLACES": (1, before),
        "FETCHES": (1, fetches),
        "FILLS": (1, stores),
        "NEXT": (2, fetches),
        "READS": (2, share.reads),
        "TERMS": (2, share.terms),
        "FILLED": (2, stores),
        "SUMS": (1, sums),
        "AGAIN": (1, [] if exact else tensor_cores.again(name)),
    }
    text = _CUDA_PRODUCT.lstrip("\n").replace("NAME", name.replace("product", "narrow") if narrow else name)
    text = text.replace("DOCSTRING", f'"""{what}; {_CUDA_ORDER.format(of="quad" if exact else "eight")}."""')
    text = text.replace("B_LD", form.ld).replace("SLICE", form.slice)
    for mark, (depth, lines) in parts.items():
        text = text.replace(f"\n{mark}\n", "\n" + "".join(f"{'    ' * depth}{line}\n" for line in lines))
    return text if form.ld == "LD" else text.replace("[i * LD + j]", f"[i * {form.ld} + j]")


_CUDA_NARROW_NT = '''
@device
def narrow_nt(shared, a, a_at, a_ld, b, b_at, b_ld, rows, columns, depth, i0, j0):
    """shared[i * LD + j] = sum_p a[i0 + i, p] b[j0 + j, p], of at most COLUMNS terms, in the order of product_nt.

    A thread has a row of B in registers, and goes through rows of A; so it has whole sums.
    """
    tid, rows_at = cuda.threadIdx.x, TILE * LD
    i, p = tid // COLUMNS, tid % COLUMNS
    at = a_at + (i0 + i) * a_ld + p
    cuda.syncthreads()
    while i < TILE:
        x = ZERO
        if i0 + i < rows and p < depth:
            x = a[U(at)]
        shared[U(rows_at + i * NARROW_LD + p)] = x
        i += THREADS // COLUMNS
        at += THREADS // COLUMNS * a_ld
    i, j = tid // TILE, tid % TILE
    terms = depth if j0 + j < columns else 0 * depth
    at = b_at + (j0 + j) * b_ld
OWN
    cuda.syncthreads()
    while i < TILE:
        at = rows_at + i * NARROW_LD
TERMS
        shared[U(i * LD + j)] = TREE
        i += THREADS // TILE
    cuda.syncthreads()
'''


def _cuda_narrow_nt(tile: CudaTile) -> str:
    """The product with a transposed matrix of few columns, whose terms are as few."""
    own, terms, sums = [], [], [f"sum_{group}" for group in range(tile.groups)]
    terms += [f"x_{p} = shared[U(at + {p})]" for p in range(tile.columns)] + [f"{name} = ZERO" for name in sums]
    for p in range(tile.columns):
        own += [f"y_{p} = ZERO", f"if {p} < terms:", f"    y_{p} = b[U(at + {p})]"]
        terms.append(f"sum_{p // tile.quad % tile.groups} += x_{p} * y_{p}")
    text = _CUDA_NARROW_NT.lstrip("\n").replace("TREE", tensor_cores.tree(sums))
    text = text.replace("\nOWN\n", "\n" + "".join(f"    {line}\n" for line in own))
    return text.replace("\nTERMS\n", "\n" + "".join(f"        {line}\n" for line in terms))


def _cuda_narrow(tile: CudaTile) -> list[str]:
    """The products of a narrow output layer, in float32: forward, of its delta, of its gradient.

    Where a tile has no more columns, they are those of a tile.
    """
    if not tile.has_narrow:
        return ["narrow, narrow_tn = product, product_tn", _cuda_narrow_nt(tile)]
    return [*(_cuda_product(tile, name, narrow=True) for name in ("product", "product_tn")), _cuda_narrow_nt(tile)]


def _settings(tile: CudaTile, double: bool) -> dict[str, object]:
    """Constants of a module: its type of number, sizes of a block.

    LANES threads share a row in sums over it, and COLUMNS threads have a column each in sums over rows.  These do not
    depend on the tile, and so neither does the order of the sums.  An output layer with at most COLUMNS neurons is
    narrow: its products have COLUMNS columns, and NARROW_SLICE terms of a slice.  Where many blocks share it, they take
    NARROW rows at a time, and NARROW_DEPTH terms.
    """
    columns = tile.columns
    narrow = tile.threads // (tile.groups * columns)
    terms = tile.groups * tile.quad
    return {
        "REAL": f"np.float{64 if double else 32}", "TILE": tile.size, "SIDE": tile.side, "DEPTH": tile.depth,
        "GROUPS": tile.groups, "QUAD": tile.quad, "VECTOR": min(tile.micro, 4), "THREADS": tile.threads,
        "NARROW_SLICE": tile.narrow.depth, "NARROW_LD": tile.narrow.row, "HAS_NARROW": tile.has_narrow,
        "LD": tile.row, "SHARED": tile.shared, "LANES": columns, "COLUMNS": columns, "NARROW": narrow,
        "NARROW_DEPTH": tile.shared // (narrow + columns) // terms * terms,
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
    lines += [] if tile.precision == "highest" else tensor_cores.HEAD[simulated]
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
    if tile.precision != "highest":
        parts += [tensor_cores.exact(tile, name, *transposed) for name, (*transposed, _) in _CUDA_PRODUCTS.items()]
    parts += [*loss_texts, *write.rule(rule), *(_cuda_product(tile, name) for name in _CUDA_PRODUCTS)]
    parts += _cuda_narrow(tile)
    return "\n\n".join(parts) + "\n\n@device\n" + names
