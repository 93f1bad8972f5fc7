"""Charts as data -> SVG text for the page, or a figure of matplotlib; only html.py and the docs import this."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from fastmlp.bench.tables import Bars, Points, number

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


def svg(chart: Bars | Points, salt: str) -> str:
    """Return one chart as an <svg> element without any address in it. `salt` keeps its ids apart from other charts'."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = bar_figure(chart) if isinstance(chart, Bars) else point_figure(chart)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    element = text.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r' xmlns(:\w+)?="[^"]*"', "", element)  # an HTML page knows them
    element = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", element, count=1)
    element = re.sub(r'id="((figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend)_\d+)"', "", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{escape(chart.title)}"', 1)


def bar_figure(bars: Bars) -> Figure:
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


def point_figure(points: Points, size: tuple[float, float] = (WIDTH, 4.2)) -> Figure:
    """Draw points with their labels beside them, where these hide as little as possible."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.invert_yaxis()
    colours = [COLOURS[0] if name in points.marked else COLOURS[2] for name in points.points]
    xs, ys = zip(*points.points.values(), strict=True)
    axes.scatter(xs, ys, s=36, c=colours, zorder=3)
    axes.margins(x=0.2, y=0.1)
    axes.grid(alpha=0.25)
    axes.spines["left"].set_visible(True)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel(points.x)
    axes.set_ylabel(points.y)
    FigureCanvasAgg(figure).draw()  # places are known now
    _label(axes, points, dict(zip(points.points, colours, strict=True)))
    return figure


# Places of a label, in points from its point, the first the best: right, left, above, below, and between these.
PLACES = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (6, 7, "left", "bottom"),
    (6, -7, "left", "top"),
    (-6, 7, "right", "bottom"),
    (-6, -7, "right", "top"),
)


def _label(axes: Any, points: Points, colours: dict[str, str]) -> None:
    """Write each label at the first place where it meets no other, no point and no edge; else where it meets fewest."""
    dots = [axes.transData.transform(place) for place in points.points.values()]
    taken: list[Any] = []
    for name, place in sorted(points.points.items(), key=lambda item: item[1][1]):

        def write(k: int, name: str = name, place: tuple[float, float] = place) -> Any:
            dx, dy, ha, va = PLACES[k]
            weight = "bold" if name in points.marked else "normal"
            look = {"color": colours[name], "fontsize": 9, "weight": weight}
            return axes.annotate(name, place, (dx, dy), textcoords="offset points", ha=ha, va=va, **look)

        def meets(k: int) -> int:
            text = write(k)
            box = text.get_window_extent()
            text.remove()
            outside = not (axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1)
            return sum(box.overlaps(other) for other in taken) + sum(box.contains(*dot) for dot in dots) + 3 * outside

        best = min(range(len(PLACES)), key=meets)
        taken.append(write(best).get_window_extent())


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
