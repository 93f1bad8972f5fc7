"""What every command prints and writes: tables, JSON, one-line errors and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

FAILED = 1
WRONG_USAGE = 2

WIDTH = 132  # of the widest table


def console() -> Console:
    """Return standard output, wide enough for all digits of a table."""
    found = Console(highlight=False)
    narrow = found.width < WIDTH or not found.is_terminal
    return Console(highlight=False, width=WIDTH) if narrow else found


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], left: Sequence[str] | None = None) -> Table:
    """Return a table with a header; the first column and those in `left` (None: texts) to the left, others right."""
    rows = [[str(cell) for cell in row] for row in rows]
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=title, title_justify="left")
    for i, column in enumerate(columns):
        to_left = not i or (column in left if left is not None else not _numbers(rows, i))
        whole = to_left and left is not None
        drawn.add_column(Text(column), overflow="fold", justify="left" if to_left else "right", no_wrap=whole)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def pairs(entries: Iterable[tuple[str, Any]]) -> Table:
    """Return names and values without a header."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in entries:
        table.add_row(Text(name), Text(str(value)))
    return table


def write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write to a file, to standard output for "-", or not at all for None."""
    if path is None:
        return
    from fastmlp.data.files import as_json

    text = as_json(document)
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        write(path, text)


def write(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    from fastmlp.data.files import write_whole

    try:
        write_whole(path, text)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}.", WRONG_USAGE)


def note(message: str) -> None:
    """Print a line on standard error that is not an error."""
    typer.echo(f"Note: {message}", err=True)


def fail(message: str, code: int) -> NoReturn:
    """End the command with a line on standard error."""
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(code)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a user can mend into one line and an exit code.

    Data, models and parameters that make no sense, missing packages and files end with 2; a training that diverged or
    does not fit the memory with 1.
    """
    from fastmlp.tabular.errors import one_line

    try:
        yield
    except BrokenPipeError:
        raise  # the reader has closed the pipe; typer handles it
    except FloatingPointError as error:
        fail(one_line(error), FAILED)
    except MemoryError as error:
        fail(one_line(error) or "not enough memory", FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or one_line(error)}", WRONG_USAGE)
    except (ValueError, TypeError, ImportError) as error:
        fail(one_line(error, 2000), WRONG_USAGE)


def _numbers(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(row[column].lstrip("-")[:1].isdigit() for row in rows)
