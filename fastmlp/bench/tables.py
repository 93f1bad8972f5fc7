"""Tables and charts as data, made by the suites; cli.py shows tables in the terminal, html.py both on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text. The first column is left-aligned, and so are those named in `left`."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: Sequence[str] = ()


@dataclass(frozen=True)
class Bars:
    """Horizontal bars: one group per label, one bar in it per series; None leaves a gap."""

    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    unit: str
    log: bool = False
    line: float | None = None  # a value to mark, such as "as fast as"


def number(value: float | None, unit: str = "") -> str:
    """Return three digits, without an exponent; a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return f"0{unit}"
    digits = max(0, 2 - _exponent(value))
    return f"{value:,.{digits}f}{unit}"


def _exponent(value: float) -> int:
    return int(f"{value:.2e}".partition("e")[2])


def percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.0f}%" if value >= 0.095 or value == 0 else f"{100 * value:.1f}%"


def difference(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def share(x: float | None, y: float | None) -> float | None:
    """Return x / y if both exist."""
    return None if x is None or not y else x / y
