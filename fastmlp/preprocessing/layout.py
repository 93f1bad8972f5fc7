"""Which column of the matrix holds what, and the blocks of the network that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fastmlp.kernels.feature_table import Block
from fastmlp.preprocessing import statistics
from fastmlp.preprocessing.learned import UNSCALED, Categorical, Learned, Numeric


@dataclass
class Layout:
    """The columns of the matrix.

    The order is that of the published recipes: numbers, then categories and indicators of missing numbers as 0 and 1,
    then codes.
    """

    numeric: list[int]  # columns of X whose numbers are in the matrix
    first_number: int  # the place of the first of them
    first_place: int | None  # that of the first place among bins, if there are any
    indicators: dict[int, int]  # column of X -> its place in the matrix
    categories: dict[int, int]  # column of X -> its first place
    n_columns: int
    is_empty: bool  # whether nothing is left of X: the matrix is a column of zeros
    blocks: tuple[Block, ...]
    names: list[str] = field(default_factory=list)


def layout_of(
    columns: Sequence[Learned],
    labels: Sequence[str],
    *,
    scaling: str | None,
    numeric: Block | None,
    embedding_size: int,
) -> Layout:
    """Return the layout of columns that errors and features name by their labels.

    `numeric` is the block of the numbers, as yet without columns, if they are embedded.
    """
    piecewise = numeric is not None and numeric.kind == "piecewise"
    drops = piecewise or scaling == "quantile_normal"
    numbers = [i for i, c in enumerate(columns) if isinstance(c, Numeric) and not (drops and is_constant(c))]
    categories = [(i, c) for i, c in enumerate(columns) if isinstance(c, Categorical)]
    groups: dict[str, list[tuple[int, int]]] = {"numbers": [(i, 1) for i in numbers]}  # (column of X, width)
    groups["places"] = groups["numbers"] if piecewise else []
    groups["shown"] = [(i, c.width) for i, c in categories if c.coding != "embedding"]
    groups["indicators"] = [(i, 1) for i, c in enumerate(columns) if isinstance(c, Numeric) and c.indicator]
    groups["codes"] = [(i, 1) for i, c in categories if c.coding == "embedding"]
    starts: dict[str, dict[int, int]] = {name: {} for name in groups}
    spans, names, at = {}, [], 0
    for name in groups:
        first = at
        for i, width in groups[name]:
            starts[name][i] = at
            names += _names(columns[i], labels[i], name)
            at += width
        spans[name] = range(first, at)
    return Layout(
        numeric=numbers,
        first_number=spans["numbers"].start,
        first_place=spans["places"].start if piecewise else None,
        indicators=starts["indicators"],
        categories={**starts["shown"], **starts["codes"]},
        n_columns=at or 1,
        is_empty=not at,
        blocks=_blocks(columns, groups, spans, numeric, embedding_size),
        names=names or ["nothing"],
    )


def is_constant(column: Numeric) -> bool:
    """Return whether a column had one value in the training rows, or none."""
    return column.scale.scale == 0 and not column.quantiles


def _names(column: Learned, label: str, group: str) -> list[str]:
    """Return the names of the numbers made of a column."""
    if isinstance(column, Categorical):
        return [f"{label}={c}" for c in column.categories] if column.coding == "one_hot" else [label]
    return [label + {"places": " among bins", "indicators": " is missing"}.get(group, "")]


def _blocks(
    columns: Sequence[Learned],
    groups: dict[str, list[tuple[int, int]]],
    spans: dict[str, range],
    numeric: Block | None,
    embedding_size: int,
) -> tuple[Block, ...]:
    """Return the blocks that read the matrix, () if the network reads it as it is."""
    if not spans["codes"] and (numeric is None or not spans["numbers"]):
        return ()
    blocks, plain = [], [*spans["shown"], *spans["indicators"]]
    if numeric is not None and spans["numbers"]:
        counts = tuple(len(columns[i].bins) - 1 for i, _ in groups["places"])  # type: ignore[union-attr]
        blocks.append(numeric._replace(columns=(*spans["numbers"], *spans["places"]), counts=counts))
    if numeric is None or numeric.kind != "piecewise":
        plain += spans["numbers"]
    if plain:
        blocks.append(Block("plain", tuple(sorted(plain))))
    if spans["codes"]:
        cardinalities = tuple(len(columns[i].categories) + 1 for i, _ in groups["codes"])  # type: ignore[union-attr]
        blocks.append(Block("embedding", tuple(spans["codes"]), embedding_size, cardinalities))
    return tuple(blocks)


@dataclass
class Numbers:
    """The numeric columns of the matrix, one below the other, for formulas over blocks (n_numbers, n_rows)."""

    center: np.ndarray  # (n_numbers, 1)
    scale: np.ndarray  # infinite for constant columns
    low: np.ndarray  # what is further away makes no difference
    high: np.ndarray
    farthest: float  # the largest center, in magnitude
    quantiles: list[np.ndarray]
    bins: list[np.ndarray]


def numbers_of(columns: Sequence[Numeric]) -> Numbers:
    """Return the numeric columns of the matrix one below the other."""
    center = np.array([[column.scale.center] for column in columns])
    scale = np.array([[column.scale.scale] for column in columns])
    return Numbers(
        center,
        np.where(scale == 0, np.inf, scale),
        center - statistics.FAR * scale,
        center + statistics.FAR * scale,
        float(np.abs(center).max(initial=0.0)),
        [np.array(column.quantiles) for column in columns],
        [np.array(column.bins) for column in columns],
    )


def shown(column: Categorical, clip: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (off, on) of a column of categories: its numbers where a category is not there, and where it is.

    Those of "sign" are ([nothing], [first, second, nothing]).
    """
    scales = column.scales or (UNSCALED,) * column.width
    if column.coding == "sign":
        values = statistics.scaled(np.array([1.0, -1.0, 0.0]), scales[0], clip)
        return values[2:], values
    both = np.array([statistics.scaled(np.array([0.0, 1.0]), scale, clip) for scale in scales]).reshape(-1, 2)
    return both[:, 0], both[:, 1]
