"""Writes what `fastmlp bench tabular --json FILE` kept into tabular_bench.md, and draws images/tabular.png.

``python docs/tabular_page.py FILE`` from the root of a checkout; ``--tables-only`` for the list of tables alone, which
an unfinished run has, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filling import filled, markdown
from speed_chart import save

from fastmlp.bench import tabular
from fastmlp.bench.charts import STYLE, point_figure
from fastmlp.bench.compare import read
from fastmlp.bench.standings import Standings

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "tabular_bench.md"
PICTURE = DOCS / "images" / "tabular.png"
SIZE = (8.3, 5.6)  # inches


def results(document: Mapping[str, Any]) -> str:
    """Return what the page says of a run: the picture, the standing, the paired tests, errors and seconds."""
    result, machine = document["suites"]["tabular"], document["environment"]["machine"]["processor"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    shown = [table for table in tabular.tables(result) if table.title != tabular.OF_TABLES]
    return "\n\n".join(
        [
            "![Mean rank of the test error against seconds of a fit, for all rivals](images/tabular.png)",
            f"{machine}, {result['how']['threads']} threads. {versions}.",
            *(f"### {table.title}\n\n{markdown(table)}" for table in shown),
        ]
    )


def draw(result: Mapping[str, Any], target: Path) -> None:
    """Draw mean rank against seconds; the figures travel in the picture."""
    import matplotlib

    chart = tabular.rank_chart(Standings.of(result))
    with matplotlib.rc_context(STYLE):
        figure = point_figure(chart, SIZE)
        figure.axes[0].set_title(chart.title, loc="left")
        save(figure, json.dumps(chart.points), target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tables-only", action="store_true")
    arguments = parser.parse_args()
    document = read(arguments.file)
    result = document["suites"]["tabular"]
    page = filled(PAGE.read_text(encoding="utf-8"), "tables", markdown(tabular.of_tables(result)))
    if not arguments.tables_only:
        page = filled(page, "results", results(document))
        draw(result, PICTURE)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
