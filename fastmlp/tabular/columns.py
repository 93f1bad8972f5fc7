"""What training learned about each column of a file, and the coder that follows from it.

The columns of a block are codes (``coding.py``): a number as it is, 0 or 1 for false and true, the index of a category
in its sorted list, NaN for a missing value. A :class:`~fastmlp.preprocessing.coder.ColumnCoder` makes features of them:
medians for missing numbers, then mean 0 and variance 1; the most frequent value for missing booleans and categories;
one feature of 0 and 1 per category. Its state is kept as JSON, and :func:`coder` makes an equal one from it: nothing is
pickled, and a file cannot run code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastmlp.preprocessing import learned
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.preprocessing.frames import LARGEST, Codes, Table
from fastmlp.tabular.errors import DataError

_WHOLE = re.compile(r"-?[0-9]+(\.0)?")


@dataclass(frozen=True)
class Numeric:
    """A column of numbers: what replaces a missing one, then mean and variance of all training rows."""

    name: str
    median: float
    mean: float
    variance: float
    scale: float  # the root of the variance, 1 if that is 0
    kind: ClassVar[str] = "numeric"


@dataclass(frozen=True)
class Boolean:
    """A column of true and false."""

    name: str
    most_frequent: int  # 0 or 1
    kind: ClassVar[str] = "boolean"


@dataclass(frozen=True)
class Categorical:
    """A column of texts."""

    name: str
    categories: tuple[str, ...]  # sorted, without repetition
    most_frequent: int  # its index
    kind: ClassVar[str] = "categorical"

    @property
    def codes(self) -> dict[str, int]:
        """The code of each text, and of its other spelling."""
        return with_spellings({text: code for code, text in enumerate(self.categories)})


Column = Numeric | Boolean | Categorical


def with_spellings(codes: Mapping[str, int]) -> dict[str, int]:
    """Return the codes of texts, with whole numbers both with and without ".0".

    Formats write the same category differently: 3 as an integer, 3.0 where a gap made the column one of floats.
    """
    more = dict(codes)
    for text, code in codes.items():
        if _WHOLE.fullmatch(text):
            more.setdefault(text.removesuffix(".0") if text.endswith(".0") else f"{text}.0", code)
    return more


def in_order(columns: Sequence[Column]) -> list[Column]:
    """Return the columns in the order of their features: numbers, then booleans, then categories."""
    return [column for cls in (Numeric, Boolean, Categorical) for column in columns if isinstance(column, cls)]


def feature_names(columns: Sequence[Column]) -> list[str]:
    """Return the names of the features of the network, in their order: ``column`` or ``column=category``."""
    return coder(columns).feature_names


def coder(columns: Sequence[Column]) -> ColumnCoder:
    """Return the fitted coder of tables with these columns; its features are in the order of :func:`in_order`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from fastmlp.tabular.columns import Categorical, Numeric, coder
    >>> columns = [Categorical("colour", ("blue", "red"), 1), Numeric("size", 2.0, 2.0, 4.0, 2.0)]
    >>> coder(columns).transform(pa.table({"colour": ["blue", None], "size": [4.0, None]}))
    array([[1., 1., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    ordered = in_order(columns)
    return ColumnCoder.of_columns(
        [_learned(column) for column in ordered], [column.name for column in ordered], scaling="standard"
    )


def _learned(column: Column) -> learned.Learned:
    if isinstance(column, Categorical):
        return learned.Categorical(column.categories, "one_hot", most_frequent=column.most_frequent)
    if isinstance(column, Boolean):
        return learned.Numeric(float(column.most_frequent))
    return learned.Numeric(column.median, learned.Scale(column.mean, column.scale))


def coded(columns: Sequence[Column], codes: np.ndarray) -> Table:
    """Return codes (n_rows, n_columns) of columns in a file's order as a table for :func:`coder`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.tabular.columns import Boolean, Numeric, coded, coder
    >>> columns = [Boolean("new", 1), Numeric("size", 2.0, 2.0, 4.0, 2.0)]
    >>> coder(columns).coded(coded(columns, np.array([[0.0, 4.0], [np.nan, np.nan]])), np.float64)
    array([[1., 0.],
           [0., 1.]])
    """
    places = {column.name: i for i, column in enumerate(columns)}
    names = [column.name for column in in_order(columns)]
    return Table(len(codes), names, len(names), lambda i: Codes(repr(names[i]), codes[:, places[names[i]]]))


# --- JSON -------------------------------------------------------------------------------------------------------------

_KINDS: dict[str, Any] = {cls.kind: cls for cls in (Numeric, Boolean, Categorical)}


def to_json(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the columns as lists, numbers and texts."""
    # tuples are lists, as JSON has them
    return [{"kind": column.kind, **json.loads(json.dumps(vars(column)))} for column in columns]


def from_json(document: Any) -> list[Column]:
    """Return the columns that :func:`to_json` described; a DataError names what is wrong where."""
    if not isinstance(document, list) or not document:
        raise DataError("columns must be a list of columns")
    columns = [_column(entry, f"columns[{i}]") for i, entry in enumerate(document)]
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise DataError("columns must have different names")
    return columns


def _column(entry: Any, where: str) -> Column:
    if not isinstance(entry, Mapping) or entry.get("kind") not in tuple(_KINDS):
        raise DataError(f"{where}.kind must be one of {', '.join(_KINDS)}")
    cls = _KINDS[entry["kind"]]
    wanted = {"kind", *cls.__dataclass_fields__}
    if set(entry) != wanted:
        raise DataError(f"{where} must have the entries {', '.join(sorted(wanted))}")
    for name, value in entry.items():
        if not _CHECKS[name](value):
            raise DataError(f"{where}.{name} makes no sense: {str(value)[:40]!r}")
    n_values = len(entry.get("categories", "ab"))
    if not entry.get("most_frequent", 0) < n_values:
        raise DataError(f"{where}.most_frequent must be less than {n_values}")
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    return cls(**{name: value for name, value in lists.items() if name != "kind"})


def _is_number(value: Any, low: float = -LARGEST, high: float = LARGEST) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value < high


def _are_categories(value: Any) -> bool:
    texts = isinstance(value, list) and value and all(isinstance(category, str) for category in value)
    return bool(texts) and value == sorted(set(value))


_CHECKS: dict[str, Any] = {
    "kind": lambda value: True,
    "name": lambda value: isinstance(value, str),
    "median": _is_number,
    "mean": _is_number,
    "variance": lambda value: _is_number(value, 0.0, LARGEST**2),
    "scale": lambda value: _is_number(value) and value > 0,
    "most_frequent": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "categories": _are_categories,
}
