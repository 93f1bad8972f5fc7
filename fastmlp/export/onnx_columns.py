"""The coder of columns in ONNX's operators: from the columns of a table to the matrix that a network reads.

All arithmetic is in float64, as the coder's, and the matrix in the dtype of the network.  The order of its columns, and
the formulas, are those of preprocessing/coder.py and statistics.py.  Names of axes: n rows, F columns of numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from fastmlp.export.onnx_nodes import Nodes
from fastmlp.export.tables import Input
from fastmlp.preprocessing import statistics
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.preprocessing.layout import shown
from fastmlp.preprocessing.learned import Categorical, Numeric

#: The domain of the operator that finds texts and whole numbers in a list, and its version.
ML_DOMAIN, ML_VERSION = "ai.onnx.ml", 2


class Columns:
    """The inputs of a graph as columns (n, 1), each made once."""

    def __init__(self, nodes: Nodes, inputs: Sequence[Input]) -> None:
        self.nodes = nodes.in_dtype(np.float64)
        self.inputs = {i: each for each in inputs for i in each.columns}
        self._matrix = "" if len(inputs[0].columns) == 1 else inputs[0].name

    def numbers(self, columns: Sequence[int]) -> str:
        """Return some columns of numbers side by side, (n, F) of float64."""
        if self._matrix:
            everything = self.nodes.add("Cast", self._matrix, to=TensorProto.DOUBLE)
            return self.nodes.add("Gather", everything, self.nodes.array(np.array(columns), "columns"), axis=1)
        found = [self.nodes.add("Cast", self.inputs[i].name, to=TensorProto.DOUBLE) for i in columns]
        return self.nodes.add("Concat", *found, axis=1)

    def zeros(self, value: float) -> str:
        """Return a column (n, 1) of one number."""
        first = next(iter(self.inputs.values())).name
        n_rows = self.nodes.add("Slice", self.nodes.add("Shape", first), *map(self._vector, (0, 1, 0)))
        shape = self.nodes.add("Concat", n_rows, self._vector(1), axis=0)
        return self.nodes.add("Expand", self.nodes.scalar(value), shape)

    def _vector(self, value: int) -> str:
        return self.nodes.array(np.array([value]), "whole")


def matrix_nodes(nodes: Nodes, coder: ColumnCoder, columns: Columns) -> str:
    """Add the nodes from the columns to the matrix (n, n_columns); return its name."""
    layout = coder.layout
    if layout.is_empty:
        return nodes.add("Cast", columns.zeros(0.0), to=_to(nodes))
    pieces: dict[int, str] = {}
    if layout.numeric:
        x = _scaled(columns.nodes, coder, _filled(coder, columns, layout.numeric))
        pieces[layout.first_number] = x
        if layout.first_place is not None:
            pieces[layout.first_place] = _places(columns.nodes, x, coder.numbers.bins)
    if layout.indicators:
        pieces[min(layout.indicators.values())] = _indicators(coder, columns)
    for i, at in layout.categories.items():
        column = coder.columns[i]
        assert isinstance(column, Categorical)
        if column.width:
            pieces[at] = _categories(coder, columns, i, column)
    in_order = [nodes.add("Cast", pieces[at], to=_to(nodes)) for at in sorted(pieces)]
    return nodes.add("Concat", *in_order, axis=1)


def _to(nodes: Nodes) -> int:
    return TensorProto.DOUBLE if nodes.dtype == np.float64 else TensorProto.FLOAT


# --- numbers ----------------------------------------------------------------------------------------------------------


def _filled(coder: ColumnCoder, columns: Columns, read: Sequence[int]) -> str:
    """Return columns of numbers (n, F) without gaps."""
    nodes, x = columns.nodes, columns.numbers(read)
    fill = nodes.array(np.array([[coder.columns[i].fill for i in read]]), "medians")  # type: ignore[union-attr]
    return nodes.add("Where", nodes.add("IsNaN", x), fill, x)


def _indicators(coder: ColumnCoder, columns: Columns) -> str:
    """Return the columns that say what is missing, in the order of their places."""
    nodes, read, clip = columns.nodes, list(coder.layout.indicators), coder.scaling == "robust_smooth_clip"
    scales = [column.indicator for column in map(coder.columns.__getitem__, read) if isinstance(column, Numeric)]
    values = np.array([statistics.scaled(np.array([0.0, 1.0]), scale, clip) for scale in scales if scale is not None])
    off, on = (nodes.array(each[None], "indicators") for each in values.T)
    return nodes.add("Where", nodes.add("IsNaN", columns.numbers(read)), on, off)


def _scaled(nodes: Nodes, coder: ColumnCoder, x: str) -> str:
    """Return numbers (n, F) scaled."""
    numbers = coder.numbers
    if coder.scaling is None:
        return x
    if coder.scaling == "quantile_normal":
        return _normal(nodes, x, numbers.quantiles)
    center, scale, low, high = (
        nodes.array(each.T, name)
        for name, each in (("centers", numbers.center), ("scales", numbers.scale), ("low", numbers.low),
                           ("high", numbers.high))
    )  # fmt: skip
    robust = coder.scaling == "robust_smooth_clip"
    if robust:  # what is further away makes no difference, but would be too large to be squared
        x = nodes.add("Min", nodes.add("Max", x, low), high)
    z = nodes.add("Div", nodes.add("Sub", x, center), scale)
    if not robust:
        return z
    square = nodes.add("Mul", nodes.add("Mul", z, z), nodes.scalar(1 / 9))
    return nodes.add("Div", z, nodes.add("Sqrt", nodes.add("Add", square, nodes.scalar(1.0))))


def _normal(nodes: Nodes, x: str, quantiles: Sequence[np.ndarray]) -> str:
    """Map numbers (n, F) to a normal distribution by the quantiles of their columns: statistics.normal."""
    table = Knots(nodes, quantiles)
    share = table.share(x, "LessOrEqual")
    if any((each[1:] == each[:-1]).any() for each in quantiles):  # what equals several gets the middle of their shares
        share = nodes.add("Mul", nodes.add("Add", share, table.share(x, "Less")), nodes.scalar(0.5))
    first, last = (np.array([[each[i] for each in quantiles]]) for i in (0, -1))
    edge = nodes.array(statistics.EDGE * np.minimum(1.0, last - first), "edges")
    above = nodes.add("Greater", nodes.add("Add", x, edge), nodes.array(last, "last"))
    below = nodes.add("Less", nodes.add("Sub", x, edge), nodes.array(first, "first"))
    share = nodes.add("Where", above, nodes.scalar(1.0), share)
    share = nodes.add("Where", below, nodes.scalar(0.0), share)
    return nodes.add("Clip", _ndtri(nodes, share), nodes.scalar(statistics.LOWEST), nodes.scalar(statistics.HIGHEST))


def _places(nodes: Nodes, x: str, bins: Sequence[np.ndarray]) -> str:
    """Return where numbers (n, F) lie among the knots of their columns: statistics.places."""
    return Knots(nodes, bins).place(x)


class Knots:
    """Increasing numbers for each of F columns, among which a binary search finds the places of others.

    The tables have 2^m entries per column, more than any column has knots; those that are no knots are infinite.
    """

    def __init__(self, nodes: Nodes, knots: Sequence[np.ndarray]) -> None:
        self.nodes = nodes
        knots = [each if len(each) > 1 else np.repeat(each, 2) for each in knots]
        self.sizes = np.array([[len(each) for each in knots]])  # (1, F)
        self.depth = int(self.sizes.max()).bit_length()
        tables = np.full((len(knots), 1 << self.depth), np.inf)
        widths = np.ones(tables.shape)
        for row, width, each in zip(tables, widths, knots, strict=True):
            row[: len(each)] = each
            step = np.diff(each)
            width[: len(step)] = np.where(step > 0, step, 1.0)
        self.flat = nodes.array(tables.ravel(), "knots")
        self.widths = nodes.array(widths.ravel(), "widths")
        self.starts = nodes.array(np.arange(len(knots))[None] << self.depth, "starts")

    def place(self, x: str) -> str:
        """Return k + fraction (n, F) for numbers in the k-th interval; the first and the last have no end."""
        k, fraction = self._interval(x, "LessOrEqual", self.sizes - 2)
        return self.nodes.add("Add", k, fraction)

    def share(self, x: str, compare: str) -> str:
        """Return the share (n, F) of each column's intervals below numbers; `compare` says where equal knots lie."""
        add, bounds = self.nodes.add, (self.nodes.scalar(0.0), self.nodes.scalar(1.0))
        k, fraction = self._interval(x, compare, self.sizes - 1)
        place = add("Add", k, add("Clip", fraction, *bounds))
        return add("Clip", add("Div", place, self.nodes.array(self.sizes - 1.0, "intervals")), *bounds)

    def _interval(self, x: str, compare: str, last: np.ndarray) -> tuple[str, str]:
        """Return the interval k (n, F), `last` (1, F) at most, and the place within it as a fraction of it."""
        add = self.nodes.add
        k = add("Max", add("Sub", self._count(x, compare), self._whole(1)), self._whole(0))
        k = add("Min", k, self.nodes.array(last, "last"))
        at = add("Add", k, self.starts)
        beyond = add("Sub", x, add("Gather", self.flat, at))
        return add("Cast", k, to=TensorProto.DOUBLE), add("Div", beyond, add("Gather", self.widths, at))

    def _count(self, x: str, compare: str) -> str:
        """Return how many knots (n, F) compare so with numbers."""
        add, at = self.nodes.add, self.starts
        for step in (1 << bit for bit in reversed(range(self.depth))):
            knot = add("Gather", self.flat, add("Add", at, self._whole(step - 1)))
            found = add("Cast", add(compare, knot, x), to=TensorProto.INT64)
            at = add("Add", at, add("Mul", found, self._whole(step)))
        return add("Sub", at, self.starts)

    def _whole(self, value: int) -> str:
        return self.nodes.array(np.array(value), "whole")


#: Numerators and denominators of the normal quantile: near the middle in 0.425^2 - (p - 1/2)^2, and in the tails in
#: sqrt(-log min(p, 1 - p)) - 1.6, the constant first. Error below 1e-15 relative. Source: Wichura (1988), algorithm
#: AS 241 (PPND16); its third part is for p below 1e-11.
_MIDDLE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_TAILS = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip

#: Shares are bounded so far from 0 and 1, as the results are.
_SMALLEST = 1e-7 - float(np.spacing(1.0))


def _ndtri(nodes: Nodes, p: str) -> str:
    """Return the numbers below which a normal distribution has the shares p, as far as LOWEST and HIGHEST go."""
    add, half = nodes.add, nodes.scalar(0.5)
    p = add("Clip", p, nodes.scalar(_SMALLEST), nodes.scalar(1.0 - _SMALLEST))
    q = add("Sub", p, half)
    size = add("Abs", q)
    middle = add("Mul", q, _ratio(nodes, add("Sub", nodes.scalar(0.425**2), add("Mul", q, q)), *_MIDDLE))
    smaller = add("Min", p, add("Sub", nodes.scalar(1.0), p))
    root = add("Sqrt", add("Neg", add("Log", smaller)))
    tail = _ratio(nodes, add("Sub", root, nodes.scalar(1.6)), *_TAILS)
    tail = add("Where", add("Less", q, nodes.scalar(0.0)), add("Neg", tail), tail)
    return add("Where", add("LessOrEqual", size, nodes.scalar(0.425)), middle, tail)


def _ratio(nodes: Nodes, r: str, numerator: Sequence[float], denominator: Sequence[float]) -> str:
    def polynomial(coefficients: Sequence[float]) -> str:
        *others, value = map(nodes.scalar, coefficients)
        for coefficient in reversed(others):
            value = nodes.add("Add", nodes.add("Mul", value, r), coefficient)
        return value

    return nodes.add("Div", polynomial(numerator), polynomial(denominator))


# --- categories -------------------------------------------------------------------------------------------------------


def _categories(coder: ColumnCoder, columns: Columns, i: int, column: Categorical) -> str:
    """Return what a column of categories makes: a code (n, 1) for an embedding, else its numbers (n, width)."""
    nodes, n = columns.nodes, len(column.categories)
    if not n:
        return columns.zeros(0.0)  # an embedding without categories has one code
    if column.coding == "embedding":
        return _codes(columns, i, column, first=1, unknown=0)
    codes = _codes(columns, i, column, first=0, unknown=n)
    off, on = shown(column, coder.scaling == "robust_smooth_clip")
    if column.coding == "sign":
        return nodes.add("Gather", nodes.array(on, "signs"), codes)
    there = nodes.add("Equal", codes, nodes.array(np.arange(n)[None], "codes"))
    return nodes.add("Where", there, nodes.array(on[None], "on"), nodes.array(off[None], "off"))


def _codes(columns: Columns, i: int, column: Categorical, *, first: int, unknown: int) -> str:
    """Return the code (n, 1), int64, of a column's categories, which are counted from `first`."""
    nodes, n = columns.nodes, len(column.categories)
    kind = columns.inputs[i].kind
    if kind == "number":
        known = nodes.array(np.array(column.categories, np.float64)[None], "categories")
        there = nodes.add("Cast", nodes.add("Equal", columns.numbers([i]), known), to=TensorProto.INT64)
        steps = nodes.array(np.arange(first, first + n)[None] - unknown, "codes")
        found = nodes.add("ReduceSum", nodes.add("Mul", there, steps), nodes.array(np.array([1]), "axis"))
        return nodes.add("Add", found, nodes.array(np.array(unknown), "unknown"))
    keys: Any = column.categories if kind == "text" else [*map(int, column.categories)]
    return nodes.add(
        "LabelEncoder",
        columns.inputs[i].name,
        domain=ML_DOMAIN,
        values_int64s=list(range(first, first + n)),
        default_int64=unknown,
        **{"keys_strings" if kind == "text" else "keys_int64s": keys},
    )
