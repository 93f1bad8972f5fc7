"""Parts of pages that scripts write: tables of the bench as Markdown, between two marks of a page."""

from __future__ import annotations

import re

from fastmlp.bench.tables import Table


def markdown(table: Table) -> str:
    """Return a table of the bench as Markdown, its notes as a list."""
    rule = ["---" if i == 0 or column in table.left else "--:" for i, column in enumerate(table.columns)]
    lines = [f"| {' | '.join(row)} |" for row in (table.columns, rule, *table.rows)]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip()


def filled(page: str, part: str, text: str) -> str:
    """Return the page with a text between the marks of a part."""
    begin, end = _marks(page, part)
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n\n{text}\n\n{end}", page, flags=re.DOTALL)


def part_of(page: str, part: str) -> str:
    """Return the text between the marks of a part."""
    begin, end = _marks(page, part)
    return page[page.index(begin) + len(begin) : page.index(end)].strip()


def _marks(page: str, part: str) -> tuple[str, str]:
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must have {begin!r} and {end!r} once")
    return begin, end
