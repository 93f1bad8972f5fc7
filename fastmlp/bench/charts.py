"""Bars -> SVG text, by matplotlib; only html.py imports this."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from fastmlp.bench.tables import Bars, number

COLOURS = ("#2563a8", "#e0892b", "#7a8b99")
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}
WIDTH = 4.6  # inches: as wide as a phone, so that text is not scaled down there
BAR = 0.22
GAP = 0.10


def svg(bars: Bars, salt: str) -> str:
    """One chart as an <svg> element without any address in it. `salt` keeps its ids apart from other charts'."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = _figure(bars)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    element = text.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r' xmlns(:\w+)?="[^"]*"', "", element)  # an HTML page knows them
    element = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", element, count=1)
    element = re.sub(r'id="((figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend)_\d+)"', "", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{_escaped(bars.title)}"', 1)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _figure(bars: Bars) -> Figure:
    n_series = len(bars.series)
    group = n_series * BAR + GAP
    height = len(bars.labels) * group + 0.55 + (0.3 if n_series > 1 else 0)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    every = [value for values in bars.series.values() for value in values if value is not None]
    low = min(every, default=1.0)
    start = 0.0
    if bars.log:
        axes.set_xscale("log")
        start = min(low, bars.line or low) / 1.6
    for k, (name, values) in enumerate(bars.series.items()):
        _series(axes, values, k, group, start, COLOURS[k % len(COLOURS)], name)
    # room for the numbers at the ends
    high = max(every, default=1.0)
    axes.set_xlim(start, high * (high / start) ** 0.22 if bars.log else high * 1.2)
    axes.set_ylim(len(bars.labels) * group, -GAP)
    axes.set_yticks([i * group + (n_series - 1) * BAR / 2 + BAR / 2 for i in range(len(bars.labels))], bars.labels)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(
        lambda value, _: number(value).rstrip("0").rstrip(".") if value < 10 else number(value)
    )
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel(bars.unit if bars.unit != "x" else "times")
    if bars.line is not None:
        axes.axvline(bars.line, color="#333", linewidth=1, linestyle=(0, (3, 2)))
    if n_series > 1:
        figure.legend(loc="outside upper left", ncols=n_series, frameon=False)
    return figure


def _series(
    axes: object, values: Sequence[float | None], k: int, group: float, start: float, colour: str, name: str
) -> None:
    """Bars of one series with their numbers; a missing value is left out."""
    places = [(i * group + (k + 0.5) * BAR, value) for i, value in enumerate(values) if value is not None]
    if not places:
        return
    centres, known = zip(*places, strict=True)
    axes.barh(centres, [value - start for value in known], left=start, height=0.9 * BAR, color=colour, label=name)  # type: ignore[attr-defined]
    for centre, value in places:
        axes.annotate(  # type: ignore[attr-defined]
            number(value), (value, centre), xytext=(3, 0), textcoords="offset points", va="center", fontsize=9
        )
