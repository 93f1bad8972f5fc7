"""A run as one page that needs nothing else: style, charts and tables are in it, and it calls no address."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fastmlp.bench import suites
from fastmlp.bench.tables import Table
from fastmlp.engines import environment

STYLE = """
:root { color-scheme: light; --ink: #1b2733; --soft: #5b6b7a; --line: #dde3e9; --accent: #2563a8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 1rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem; padding-top: .6rem; border-top: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, li { margin: .2rem 0; }
.soft, .notes { color: var(--soft); font-size: .875rem; }
.notes { padding-left: 1.1rem; }
.bad { color: #a11; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr));
  align-items: start; }
figure { margin: 0; padding: .7rem; border: 1px solid var(--line); border-radius: .5rem; min-width: 0; }
figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .3rem; }
svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tr > :first-child, .left { text-align: left; }
tr > :first-child { position: sticky; left: 0; background: #fff; }
.facts { white-space: normal; }
.facts th { color: var(--ink); white-space: nowrap; }
.facts td { text-align: left; overflow-wrap: anywhere; }
"""


def missing() -> str:
    """Return what must be installed to make pages; empty if nothing."""
    found = importlib.util.find_spec("matplotlib")
    return "" if found else "charts need matplotlib: pip install 'fastmlp[bench]'"


def page(document: Mapping[str, Any], extra: Sequence[Table] = ()) -> str:
    """Return the whole page of a document that `suites.run` made."""
    described = document["environment"]
    sections = [_section(name, result) for name, result in document["suites"].items()]
    body = [
        "<h1>fastmlp bench</h1>",
        f'<p class="soft">fastmlp {escape(described["versions"]["fastmlp"])} on '
        f"{escape(described['machine']['processor'])}, {described['cpus']} cores, instruction set "
        f"{escape(str(described['isa']['chosen']))}. Results were compared before times; a rival whose results "
        "differ has no times.</p>",
        *(f'<p class="bad">{escape(line)}</p>' for line in suites.problems(document)),
        *(f'<p class="soft">{escape(suites.skipped(*item))}</p>' for item in document.get("skipped", {}).items()),
        *(_table(table) for table in extra),
        *sections,
        "<h2>Environment</h2>",
        _facts(document),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>fastmlp bench</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _section(name: str, result: Mapping[str, Any]) -> str:
    from fastmlp.bench.charts import svg

    suite = suites.module(name)
    charts = [bars for bars in suite.charts(result) if bars.labels]
    figures = [
        f"<figure><figcaption>{escape(bars.title)}</figcaption>{svg(bars, f'{name}-{i}')}</figure>"
        for i, bars in enumerate(charts)
    ]
    return "\n".join(
        [
            f'<h2 id="{name}">{name}</h2>',
            f'<p class="soft">{escape(suites.SUITES[name])}</p>',
            f'<div class="charts">{"".join(figures)}</div>',
            *(_table(table) for table in suite.tables(result)),
        ]
    )


def _table(table: Table) -> str:
    classes = [' class="left"' if column in table.left else "" for column in table.columns]
    head = "".join(f"<th{c}>{escape(column)}</th>" for c, column in zip(classes, table.columns, strict=True))
    rows = "\n".join(
        "<tr>" + "".join(f"<td{c}>{escape(cell)}</td>" for c, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f"<h3>{escape(table.title)}</h3>\n"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        + (f'\n<ul class="notes">{notes}</ul>' if notes else "")
    )


def _facts(document: Mapping[str, Any]) -> str:
    versions = {
        name: version
        for result in document["suites"].values()
        for name, version in result.get("versions", {}).items()
        if name not in ("fastmlp", "scikit-learn")
    }
    lines = environment.lines(document["environment"])
    lines += [(name, version or "absent") for name, version in versions.items()]
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in lines)
    return f'<div class="scroll"><table class="facts">{rows}</table></div>'
