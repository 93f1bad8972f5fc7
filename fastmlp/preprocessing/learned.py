"""What fitting learned about each column: plain values, which are kept as JSON and checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from fastmlp.preprocessing.frames import LARGEST, Value
from fastmlp.preprocessing.statistics import Scale

#: Most bins of a column, and most quantiles.
MOST_PLACES = 1 << 16

UNSCALED = Scale(0.0, 1.0)


@dataclass(frozen=True)
class Numeric:
    """A column of numbers.

    With `quantiles` a number is mapped to a normal distribution, in place of ``(x - center) / scale``. A constant
    column has the scale 0 and no quantiles.
    """

    fill: float  # replaces a missing number: the median
    scale: Scale = UNSCALED
    indicator: Scale | None = None  # of the column that says what is missing, if there is one
    quantiles: tuple[float, ...] = ()
    bins: tuple[float, ...] = ()  # knots of the piecewise embedding, of scaled numbers
    kind: ClassVar[str] = "numeric"


@dataclass(frozen=True)
class Categorical:
    """A column of categories.

    As "one_hot" it makes a number for each category, as "sign" one number, +1 for the first of two categories and -1
    for the second, and 0 for nothing; as "embedding" one code, 1 for the first category and 0 for nothing.
    """

    categories: tuple[Value, ...]  # sorted, all texts or all numbers
    coding: str
    scales: tuple[Scale, ...] = ()  # of each number made; () if they are not scaled
    most_frequent: int | None = None  # the place of the category that replaces a missing one; None: nothing does
    kind: ClassVar[str] = "categorical"

    @property
    def codes(self) -> dict[Value, int]:
        """The code of each category."""
        return {category: code for code, category in enumerate(self.categories)}

    @property
    def width(self) -> int:
        """How many numbers are made of the column."""
        return len(self.categories) if self.coding == "one_hot" else 1


Learned = Numeric | Categorical

CODINGS = ("one_hot", "sign", "embedding")


# --- plain values -----------------------------------------------------------------------------------------------------


def to_state(columns: Sequence[Learned]) -> list[dict[str, Any]]:
    """Return the columns as lists, numbers and texts, as JSON has them."""
    return [{"kind": column.kind, **{key: _listed(value) for key, value in vars(column).items()}} for column in columns]


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, tuple) else value


def from_state(document: Any) -> list[Learned]:
    """Return the columns that :func:`to_state` described; a ValueError names what is wrong where."""
    if not isinstance(document, list) or not document:
        raise ValueError("columns must be a list of columns")
    return [_column(entry, f"columns[{i}]") for i, entry in enumerate(document)]


def _column(entry: Any, where: str) -> Learned:
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise ValueError(f"{where}.kind must be one of {', '.join(_CLASSES)}")
    cls = _CLASSES[kind]
    wanted = {"kind", *cls.__dataclass_fields__}
    if set(entry) != wanted:
        raise ValueError(f"{where} must have the entries {', '.join(sorted(wanted))}")
    for name, value in entry.items():
        if name != "kind" and not _CHECKS[name](value):
            raise ValueError(f"{where}.{name} makes no sense: {str(value)[:40]!r}")
    made = cls(**{name: _READ.get(name, lambda value: value)(value) for name, value in entry.items() if name != "kind"})
    wrong = _contradiction(made)
    if wrong:
        raise ValueError(f"{where}.{wrong}")
    return made


def _contradiction(column: Learned) -> str:
    """Return what of a column contradicts the rest of it, "" if nothing does."""
    if isinstance(column, Numeric):
        return ""
    n = len(column.categories)
    if column.coding == "sign" and n != 2:
        return "coding 'sign' must have 2 categories"
    if column.scales and (column.coding == "embedding" or len(column.scales) != column.width):
        return f"scales must have {0 if column.coding == 'embedding' else column.width} entries"
    if column.most_frequent is not None and not column.most_frequent < n:
        return f"most_frequent must be less than {n}"
    return ""


def is_number(value: Any, low: float = -LARGEST, high: float = LARGEST) -> bool:
    """Return whether a value of JSON is a number, and not absurdly large."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_scale(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and is_number(value[0]) and is_number(value[1], 0.0)


def _are_increasing(value: Any, strictly: bool) -> bool:
    if not isinstance(value, list) or len(value) > MOST_PLACES or not all(is_number(number) for number in value):
        return False
    steps = np.diff(np.array(value, float))
    return bool((steps > 0).all() if strictly else (steps >= 0).all())


def _are_categories(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    texts = all(isinstance(category, str) for category in value)
    numbers = all(isinstance(category, int | float) and abs(category) < np.inf for category in value)
    return (texts or numbers) and all(a < b for a, b in pairwise(value))


_CLASSES: dict[str, Any] = {cls.kind: cls for cls in (Numeric, Categorical)}

_CHECKS: dict[str, Any] = {
    "fill": is_number,
    "scale": _is_scale,
    "indicator": lambda value: value is None or _is_scale(value),
    "quantiles": lambda value: _are_increasing(value, strictly=False),
    "bins": lambda value: _are_increasing(value, strictly=True) and len(value) != 1,
    "categories": _are_categories,
    "coding": lambda value: isinstance(value, str) and value in CODINGS,
    "scales": lambda value: isinstance(value, list) and all(_is_scale(scale) for scale in value),
    "most_frequent": lambda value: value is None or (type(value) is int and value >= 0),
}


def _scale(value: Any) -> Scale | None:
    return None if value is None else Scale(float(value[0]), float(value[1]))


def _floats(value: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in value)


_READ: dict[str, Any] = {
    "fill": float,
    "scale": _scale,
    "indicator": _scale,
    "quantiles": _floats,
    "bins": _floats,
    "categories": tuple,
    "scales": lambda value: tuple(map(_scale, value)),
}
