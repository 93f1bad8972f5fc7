"""`fastmlp playground`: a page in the browser on which a small network trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmlp.cli import output
from fastmlp.cli.arguments import Decimal, Encoding, Format, Missing, Separator, Thousands, dialect
from fastmlp.cli.files import data_file, guarded

Data = Annotated[
    Path | None,
    typer.Argument(metavar="[DATA]", help="A data file, as for train, whose columns become a data set of the page."),
]
TargetColumn = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column of DATA to predict: up to 6 classes, or values.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="COLUMN",
        help="One of the two columns of DATA that span the plane, so it is given twice; the first two columns of "
        "numbers if left out.",
    ),
]
Task = Annotated[
    str,
    typer.Option(
        metavar="TASK",
        help="classification, regression, or auto: texts, true and false, and few whole numbers are classes.",
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Whether to open the page in a browser.")]


def playground(
    data: Data = None,
    target: TargetColumn = None,
    column: Columns = None,
    task: Task = "auto",
    port: Port = 0,
    browser: Browser = True,
    separator: Separator = None,
    encoding: Encoding = None,
    missing: Missing = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    file_format: Format = None,
) -> None:
    """Serve a page on which a small network trains while you change it; Ctrl-C ends it.

    Only this machine can reach the page.

    Examples:

        fastmlp playground

        fastmlp playground wine.csv --target quality --column alcohol --column pH

        fastmlp playground --port 8000 --no-browser
    """
    with output.one_line_errors(), guarded({"DATA": data}, {}):
        from fastmlp.playground.server import serve
        from fastmlp.playground.table import read_table
        from fastmlp.tabular.target import TASKS

        if task not in TASKS:
            raise ValueError(f"--task must be one of {', '.join(TASKS)}, got {task!r}")
        table = None
        if data is None:
            if target is not None or column:
                raise ValueError("--target and --column are columns of DATA: name a file")
        elif target is None:
            raise ValueError("--target must name the column of DATA to predict")
        else:
            how = dialect(separator, encoding, missing, decimal, thousands)
            with data_file(data, file_format) as path:
                table = read_table(path, target, tuple(column or ()), task=task, dialect=how)
        serve(table, port=port, browser=browser, tell=_tell)


def _tell(address: str) -> None:
    typer.echo(f"The playground is at {address} - Ctrl-C ends it.")
