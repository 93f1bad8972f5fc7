"""`fastmlp predict`: a model file and a data file -> predictions, block by block."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from fastmlp.cli import output
from fastmlp.cli.arguments import (
    DataFile,
    Decimal,
    Encoding,
    JsonFile,
    Missing,
    ModelFile,
    Quiet,
    Separator,
    Thousands,
    dialect,
    output_file,
)
from fastmlp.tabular.coding import Coder
from fastmlp.tabular.reading import open_source, shortened
from fastmlp.tabular.recipe import Recipe, load

ENDINGS = (".csv", ".parquet", ".arrow", ".feather")


def predict(
    model: ModelFile,
    data: DataFile,
    out: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            callback=output_file,
            help=f"The predictions: {', '.join(ENDINGS)}, or - for CSV on standard output.",
        ),
    ] = Path("-"),
    proba: Annotated[bool, typer.Option("--proba", help="Classification: the probability of each class too.")] = False,
    unknown: Annotated[
        str,
        typer.Option(metavar="WHAT", help="What a text is that training did not see: ignore (no category) or error."),
    ] = "ignore",
    json_file: JsonFile = None,
    quiet: Quiet = False,
    separator: Separator = None,
    encoding: Encoding = None,
    missing: Missing = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
) -> None:
    """Predict the rows of a data file of any size.

    Columns are found by name, in any order; others are ignored. There is a prediction per row, in the order of the
    file, in a column with the name of the target, and with --proba a column proba_LABEL per class.

    Examples:

        fastmlp predict wine.safetensors new.csv

        fastmlp predict wine.safetensors new.csv --proba -o predictions.parquet
    """
    with output.one_line_errors():
        _check_options(unknown, out, json_file)
        estimator, recipe = load(model)
        assert recipe is not None  # it was needed
        if proba and not hasattr(estimator, "predict_proba"):
            what = "a regression" if recipe.task == "regression" else f"the loss {estimator.loss!r}"
            raise ValueError(f"--proba: {what} has no probabilities")
        source = open_source(data, dialect(separator, encoding, missing, decimal, thousands, recipe.dialect))
        coder = Coder(recipe.columns)
        n_rows = 0
        with _writer(out) as write:
            for X in recipe.blocks(source, estimator.coefs_[0].dtype, coder, unknown):
                write(predictions(estimator, recipe, X, proba))
                n_rows += len(X)
    if not quiet:
        for name, counts in coder.unseen.items():
            output.note(_unseen(name, counts))
    unseen = {name: sum(counts.values()) for name, counts in coder.unseen.items()}
    output.write_json(
        json_file, {"schema": 1, "model": str(model), "data": str(data), "rows": n_rows, "unseen": unseen}
    )


def _check_options(unknown: str, out: Path, json_file: Path | None) -> None:
    if unknown not in ("ignore", "error"):
        raise ValueError(f"--unknown must be ignore or error, got {unknown!r}")
    if str(out) != "-" and not out.name.lower().endswith(ENDINGS):
        raise ValueError(f"--output must end in {', '.join(ENDINGS)}, got {out}")
    if str(out) == "-" and str(json_file) == "-":
        raise ValueError("--output and --json cannot both be standard output")


def predictions(estimator: Any, recipe: Recipe, X: Any, proba: bool) -> Any:
    """Return a pyarrow.Table of predictions for features (n_rows, n_features)."""
    import pyarrow as pa

    if not proba:
        return pa.table({recipe.target: estimator.predict(X)})
    probabilities = estimator.predict_proba(X)
    labels = estimator.classes_[probabilities.argmax(axis=1)]
    names = [f"proba_{_label(label)}" for label in estimator.classes_]
    columns = dict(zip(names, probabilities.T.copy(), strict=True))
    return pa.table({recipe.target: labels, **columns})


def _label(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) or type(label).__name__.startswith("bool") else str(label)


@contextmanager
def _writer(path: Path) -> Iterator[Any]:
    """Yield a function that appends a table to the output, which appears whole when the block ends without an error."""
    from fastmlp.data.files import replacing

    to_file = str(path) != "-"
    writer: Any = None
    with replacing(path) if to_file else nullcontext(sys.stdout.buffer) as stream:

        def write(table: Any) -> None:
            nonlocal writer
            if writer is None:
                writer = _open(stream, path.suffix.lower() if to_file else ".csv", table.schema)
            writer.write_table(table)

        yield write
        if writer is not None:
            writer.close()
        stream.flush()


def _open(stream: Any, ending: str, schema: Any) -> Any:
    import pyarrow as pa

    if ending == ".csv":
        from pyarrow import csv

        return csv.CSVWriter(stream, schema, write_options=csv.WriteOptions(quoting_style="needed"))
    if ending == ".parquet":
        import pyarrow.parquet as pq

        return pq.ParquetWriter(stream, schema)
    return pa.ipc.new_file(stream, schema)


def _unseen(name: str, counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    most = ", ".join(shortened(text) for text, _ in Counter(counts).most_common(3))
    more = ", ..." if len(counts) > 3 else ""
    rows = "1 row has a text" if total == 1 else f"{total:,} rows have texts"
    return f"column {name!r}: {rows} that training did not see ({most}{more}), taken as no category"
