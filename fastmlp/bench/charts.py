"""Bars -> SVG text, by matplotlib; only html.py imports this."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fastmlp.bench.tables import Bars, number

COLOURS = ("#2563a8", "#e0892b", "#7a8b99")
BELOW = "#b3423a"
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}
WIDTH = 3.9  # inches: as wide as a phone, so that text is not scaled down there
BAR = 0.22
GAP = 0.10


def svg(bars: Bars, salt: str) -> str:
    """Return one chart as an <svg> element without any address in it. `salt` keeps its ids apart from other charts'."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = _figure(bars)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    element = text.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r' xmlns(:\w+)?="[^"]*"', "", element)  # an HTML page knows them
    element = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", element, count=1)
    element = re.sub(r'id="((figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend)_\d+)"', "", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{escape(bars.title)}"', 1)


def _figure(bars: Bars) -> Figure:
    n_series = len(bars.series)
    group = n_series * BAR + GAP
    height = len(bars.labels) * group + 0.55 + (0.3 if n_series > 1 else 0)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    if bars.log:
        axes.set_xscale("log")
    left, start, right = _range(bars)
    for k, (name, values) in enumerate(bars.series.items()):
        # missing values are left out, values below the start go left
        known = [(i * group + (k + 0.5) * BAR, value) for i, value in enumerate(values) if value is not None]
        colours = [BELOW if value < start else COLOURS[k % len(COLOURS)] for _, value in known]
        widths = [value - start for _, value in known]
        drawn = axes.barh([centre for centre, _ in known], widths, 0.9 * BAR, start, color=colours, label=name)
        axes.bar_label(drawn, [number(value) for _, value in known], padding=3, fontsize=9)
    axes.set_xlim(left, right)
    axes.set_ylim(len(bars.labels) * group, -GAP)
    axes.set_yticks([i * group + n_series * BAR / 2 for i in range(len(bars.labels))], bars.labels)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel("times" if bars.unit == "x" else bars.unit)
    if bars.line is not None:
        axes.axvline(bars.line, color="#333", linewidth=1, linestyle=(0, (3, 2)))
    if n_series > 1:
        figure.legend(loc="outside upper left", ncols=n_series, frameon=False)
    return figure


def _range(bars: Bars) -> tuple[float, float, float]:
    """Return (left end, start of bars, right end) of the axis, with room for the numbers at the bars' ends."""
    every = [value for values in bars.series.values() for value in values if value] or [1.0]
    low, high = min(every), max(every)
    if not bars.log:
        return 0.0, 0.0, 1.2 * high
    if bars.line is None:
        return low / 1.6, low / 1.6, high * (1.6 * high / low) ** 0.22
    low, high = min(low, bars.line), max(high, bars.line)
    room = max((high / low) ** 0.22, 1.15)
    return (low / room if low < bars.line else low / 1.05), bars.line, high * room
