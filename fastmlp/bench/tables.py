"""Tables and charts as data, made by the suites; cli.py shows tables in the terminal, html.py both on a page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

LEFT = (
    "layers",
    "solver",
    "rival",
    "arithmetic",
    "product",
    "precision",
    "end",
    "over",
    "verdict",
    "package",
)  # columns of text that are left-aligned, beside the first

Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """Rows of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, title: str, rows: Sequence[Mapping[str, Cell]], notes: Sequence[str] = ()) -> Table:
        """Return a table of rows that name their columns; a later row may leave some empty."""
        columns = list(rows[0]) if rows else []
        return cls(title, columns, [[_text(row.get(column, "")) for column in columns] for row in rows], notes)

    @property
    def left(self) -> list[str]:
        return [column for column in self.columns if column in LEFT]


@dataclass(frozen=True)
class Bars:
    """Horizontal bars: one group per label, one bar in it per series; None leaves a gap."""

    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    unit: str
    log: bool = False
    line: float | None = None  # a value to mark, such as "as fast as"


@dataclass(frozen=True)
class Points:
    """Labelled points on a logarithmic x axis, small y on top."""

    title: str
    points: Mapping[str, tuple[float, float]]  # label -> (x, y)
    x: str  # what the axes say
    y: str
    marked: Collection[str] = ()  # labels to draw in another colour

    @property
    def labels(self) -> list[str]:
        return list(self.points)


def ratio_bars(title: str, values: Mapping[str, float | None]) -> Bars:
    """Return bars of ratios by label, on a logarithmic axis, with "as fast as" marked."""
    return Bars(title, list(values), {"ratio": list(values.values())}, "x", log=True, line=1)


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else str(cell) if isinstance(cell, int) else number(cell)


def number(value: float | None, unit: str = "") -> str:
    """Return three digits, without an exponent; a dash for None."""
    if value is None:
        return "-"
    exponent = int(f"{value:.2e}".partition("e")[2]) if value else 2
    return f"{value:,.{max(0, 2 - exponent)}f}{unit}"


def times(value: float | None) -> str:
    return number(value, "x")


def percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.0f}%" if value >= 0.095 or value == 0 else f"{100 * value:.1f}%"


def difference(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def share(x: float | None, y: float | None) -> float | None:
    """Return x / y if both exist."""
    return None if x is None or not y else x / y


def scaled(value: float | None, factor: float) -> float | None:
    """Return the value in another unit, if it exists."""
    return None if value is None else factor * value


def largest(values: Sequence[float | None]) -> float | None:
    """Return the largest of the values that exist."""
    return max((value for value in values if value is not None), default=None)
