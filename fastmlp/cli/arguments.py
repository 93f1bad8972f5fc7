"""Options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fastmlp.tabular.marks import DECIMALS, THOUSANDS
from fastmlp.tabular.reading import Dialect

FILE_PANEL = "Data file"


def output_file(path: Path | None) -> Path | None:
    """Refuse a path that cannot be written before minutes are spent on what should go there."""
    if path is None or str(path) == "-":
        return path
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder.")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}.")
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"the folder {folder} is not writable.")
    return path


def regular_file(path: Path | None) -> Path | None:
    """Check a file as :func:`output_file` does, but refuse standard output."""
    if str(path) == "-":
        raise typer.BadParameter("this cannot be written to standard output.")
    return output_file(path)


DataFile = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="CSV (.csv, .tsv) or JSON (.json, .jsonl), also with .gz, .bz2 or .zip; Excel (.xlsx), Parquet, Arrow "
        "(.arrow, .feather) or .npz; a folder of Parquet or Arrow files, with those below it; - is standard input.",
    ),
]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="What `fastmlp train` wrote.")]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=output_file,
        help="Write the results to FILE as JSON too; - for standard output, without the tables.",
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="CSV: what stands between fields; found in the header if left out. 'tab' for a tab.",
        rich_help_panel=FILE_PANEL,
    ),
]
Encoding = Annotated[
    str | None, typer.Option(metavar="NAME", help="CSV: encoding, utf-8 if left out.", rich_help_panel=FILE_PANEL)
]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="A text that stands for a missing value; in CSV besides blanks, NA, NaN, None and null; may be repeated.",
        rich_help_panel=FILE_PANEL,
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(metavar="MARK", help="The decimal mark of numbers in texts: . or ,", rich_help_panel=FILE_PANEL),
]
Thousands = Annotated[
    str | None,
    typer.Option(
        metavar="MARK",
        help="What stands between groups of digits of numbers in texts: , . ' _ or space; none if left out.",
        rich_help_panel=FILE_PANEL,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="ENDING",
        help="What standard input holds, as the ending of a file would say: csv if left out, csv.gz, parquet, ...",
        rich_help_panel=FILE_PANEL,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def dialect(
    separator: str | None,
    encoding: str | None,
    missing: list[str] | None,
    decimal: str | None,
    thousands: str | None,
    default: Dialect | None = None,
) -> Dialect:
    """Return the dialect of a data file, with the options that are given; the default has the others."""
    default = default or Dialect()
    separator = "\t" if separator in ("tab", "\\t") else separator
    if separator is not None and (len(separator.encode()) != 1 or separator in '"\r\n'):
        raise ValueError(f"--separator must be one ASCII character, got {separator!r}")
    if decimal not in (None, *DECIMALS):
        raise ValueError(f"--decimal must be {' or '.join(map(repr, DECIMALS))}, got {decimal!r}")
    thousands = {"space": " ", "none": ""}.get(thousands or "", thousands)
    if thousands not in (None, "", *THOUSANDS):
        raise ValueError(f"--thousands must be one of {' '.join(THOUSANDS).strip()}, space or none, got {thousands!r}")
    made = Dialect(
        default.separator if separator is None else separator,
        default.encoding if encoding is None else encoding,
        default.missing if missing is None else tuple(missing),
        default.decimal if decimal is None else decimal,
        default.thousands if thousands is None else thousands or None,
    )
    if made.decimal == made.thousands:
        raise ValueError(f"--decimal and --thousands are both {made.decimal!r}")
    if made.decimal == made.separator:
        raise ValueError(f"--decimal and --separator are both {made.decimal!r}")
    return made
