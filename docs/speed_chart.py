"""Draws images/speed.png from the table of performance.md: ``python docs/speed_chart.py`` from the root of a checkout.

speed_page.py, which writes the table, calls this too. Its figures travel in the picture, as text; the tests compare
them with the table, so that neither changes alone.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from filling import part_of
from PIL import Image

from fastmlp.bench.workloads import WORKLOADS

DOCS = Path(__file__).resolve().parent
RIVALS = {"scikit-learn": "#e0892b", "PyTorch": "#b3423a", "JAX": "#2563a8"}
FIGURES = "figures"  # key of the picture's text


def ratios(page: str) -> dict[str, dict[str, float]]:
    """Return by workload and rival its time over fastmlp's, from the table of the page under "Figures"."""
    figures = part_of(page, "figures")
    lines = figures[figures.index("| workload |") :].split("\n\n")[0].splitlines()
    names = [cell.strip() for cell in lines[0].strip("|").split("|")]
    found = {}
    for line in lines[2:]:
        row = dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        workload = row["workload"].split()[0]
        if workload in WORKLOADS:
            found[workload] = {rival: float(re.match(r"([\d.]+)x", row[rival])[1]) for rival in RIVALS}
    return found


def caption(page: str) -> str:
    """Return what the picture says below: the machine of the figures, in bold type in front of them."""
    machine = re.match(r"\*\*(.+?)\.\*\*", part_of(page, "figures"), re.DOTALL)
    return f"{' '.join(machine[1].split())}; data of the named shapes; each at its best thread count"


def layers(widths: tuple[int, ...]) -> str:
    """64-100-10; equal hidden layers as 28-5x300-1."""
    hidden = widths[1:-1]
    if len(hidden) > 1 and len(set(hidden)) == 1:
        return f"{widths[0]}-{len(hidden)}×{hidden[0]}-{widths[-1]}"
    return "-".join(map(str, widths))


def chart(rows: dict[str, dict[str, float]], below: str) -> Any:
    """Bars of every rival's ratio, on a logarithmic axis that starts at fastmlp's 1."""
    from matplotlib.figure import Figure

    names = sorted(rows, key=lambda name: rows[name]["scikit-learn"], reverse=True)
    figure = Figure(figsize=(8.3, 6.4), dpi=100, layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    ax.set_xscale("log")
    for k, (rival, colour) in enumerate(RIVALS.items()):
        places = [i + 0.27 * (k - 1) for i in range(len(names))]
        values = [rows[name][rival] for name in names]
        ax.barh(places, [v - 1 for v in values], left=1, height=0.24, color=colour, label=rival)
        for place, value in zip(places, values, strict=True):
            end = (max(value, 1), place)
            ax.annotate(f"{value:g}×", end, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.axvline(1, color="#222", linewidth=1.2)
    ax.text(1, -0.75, "fastmlp", ha="center", va="bottom", fontsize=10, fontweight="bold")
    ax.set_yticks(range(len(names)), [f"{name}\n{layers(WORKLOADS[name].widths)}" for name in names], fontsize=8.5)
    left = min(0.85, 0.9 * min(min(row.values()) for row in rows.values()))
    ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if tick > left]
    ax.set(ylim=(len(names) - 0.4, -0.7), xlim=(left, 300), xticks=ticks)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    ax.xaxis.set_minor_formatter(lambda value, _: "")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_title("Time of a training step: how many times as long as fastmlp's", fontsize=12, loc="left", pad=24)
    ax.legend(loc="lower right", frameon=False, fontsize=10)
    figure.supxlabel(below, fontsize=8, color="#444", x=0.02, ha="left")
    return figure


def draw(target: Path, page: str) -> None:
    """Draw the table of a page."""
    rows = ratios(page)
    save(chart(rows, caption(page)), json.dumps(rows), target)


def save(figure: Any, figures: str, target: Path) -> None:
    """Write a figure of matplotlib with a palette, which makes it small, and its figures as text beside the pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL.PngImagePlugin import PngInfo

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    text = PngInfo()
    text.add_text(FIGURES, figures)
    image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(target, optimize=True, pnginfo=text)


if __name__ == "__main__":
    performance = (DOCS / "performance.md").read_text(encoding="utf-8")
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "images" / "speed.png", performance)
