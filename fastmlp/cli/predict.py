"""`fastmlp predict`: a model file and a data file -> predictions, block by block."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fastmlp.cli import output
from fastmlp.cli.arguments import (
    DataFile,
    Decimal,
    Encoding,
    Format,
    JsonFile,
    Missing,
    ModelFile,
    Quiet,
    Separator,
    Thousands,
    dialect,
    output_file,
)
from fastmlp.cli.files import STANDARD_INPUT, data_file, guarded
from fastmlp.tabular.coding import Coder
from fastmlp.tabular.errors import DataError, shortened
from fastmlp.tabular.reading import AS_IT_IS, Source, open_source
from fastmlp.tabular.recipe import Recipe, dtype_of, load

ENDINGS = (".csv", ".parquet", ".arrow", ".feather")

# options of predict alone
Predictions = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        callback=output_file,
        help=f"The predictions: {', '.join(ENDINGS)}, or - for CSV on standard output.",
    ),
]
Proba = Annotated[bool, typer.Option("--proba", help="Classification: the probability of each class too.")]
Unknown = Annotated[
    str, typer.Option(metavar="WHAT", help="What a text is that training did not see: ignore (no category) or error.")
]
IdColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--id",
        metavar="COLUMN",
        help="A column to repeat in front of the predictions, may be repeated; those of `train` if left out.",
    ),
]


def predict(
    model: ModelFile,
    data: DataFile,
    out: Predictions = Path("-"),
    proba: Proba = False,
    unknown: Unknown = "ignore",
    id_column: IdColumns = None,
    json_file: JsonFile = None,
    quiet: Quiet = False,
    separator: Separator = None,
    encoding: Encoding = None,
    missing: Missing = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    file_format: Format = None,
) -> None:
    """Predict the rows of a data file of any size.

    Columns are found by name, in any order; others are ignored. There is a prediction per row, in the order of the
    file, in a column with the name of the target, and with --proba a column proba_LABEL per class. A file without rows
    gives a file without rows.

    Examples:

        fastmlp predict wine.safetensors new.csv

        fastmlp predict wine.safetensors new.csv --proba --id bottle -o predictions.parquet

        zcat new.csv.gz | fastmlp predict wine.safetensors - | head
    """
    with output.one_line_errors():
        _check_options(unknown, out)
        with guarded({"MODEL": model, "DATA": data}, {"--output": out, "--json": json_file}):
            estimator, recipe = load(model)
            assert recipe is not None  # it was needed
            _check_proba(proba, estimator, recipe)
            coder = Coder(recipe.columns)
            written = dialect(separator, encoding, missing, decimal, thousands, recipe.dialect)
            with data_file(data, file_format) as path:
                source = open_source(path, written)
                ids = _ids(recipe, source, id_column)
                tables = _tables(estimator, recipe, source, coder, ids=ids, proba=proba, unknown=unknown)
                n_rows = _write(out, tables)
    if not quiet:
        tell_of(data, source)
        for name, counts in coder.unseen.items():
            output.note(unseen_text(name, counts))
    unseen = {name: sum(counts.values()) for name, counts in coder.unseen.items()}
    report = {"schema": 1, "model": str(model), "data": str(data), "rows": n_rows, "unseen": unseen}
    output.write_json(json_file, report | {"notes": source.notes})


def _check_options(unknown: str, out: Path) -> None:
    if unknown not in ("ignore", "error"):
        raise ValueError(f"--unknown must be ignore or error, got {unknown!r}")
    if str(out) != "-" and not out.name.lower().endswith(ENDINGS):
        raise ValueError(f"--output must end in {', '.join(ENDINGS)}, got {out}")


def _check_proba(proba: bool, estimator: Any, recipe: Recipe) -> None:
    if proba and not hasattr(estimator, "predict_proba"):
        what = "a regression" if recipe.task == "regression" else f"the loss {estimator.loss!r}"
        raise ValueError(f"--proba: {what} has no probabilities")


def _ids(recipe: Recipe, source: Source, wanted: list[str] | None) -> list[str]:
    """Return the columns to repeat: those that are asked for, or else those of the training that the file has."""
    names = list(dict.fromkeys(wanted if wanted is not None else recipe.ids))
    if wanted is None:
        for name in names:
            if name not in source.kinds:
                output.note(f"no column {name!r}, the --id of the training: the predictions have none either")
        names = [name for name in names if name in source.kinds]
    for name in names:
        if name == recipe.target or name.startswith("proba_"):
            raise DataError(f"--id {name} is the name of a column of predictions")
    return names


def _tables(
    estimator: Any, recipe: Recipe, source: Source, coder: Coder, *, ids: list[str], proba: bool, unknown: str
) -> Iterator[Any]:
    """Yield a pyarrow.Table of ids and predictions for each block of rows; one without rows if there are none."""
    import pyarrow as pa

    beside = dict.fromkeys(ids, AS_IT_IS)
    dtype, n_rows = dtype_of(estimator), 0
    for X, batch in recipe.blocks_beside(source, dtype, beside, coder, unknown):
        if len(X):
            yield _with_ids(predictions(estimator, recipe, X, proba), {name: batch.column(name) for name in ids})
        n_rows += len(X)
    if not n_rows:
        one_row = predictions(estimator, recipe, np.zeros((1, len(recipe.features)), dtype), proba)
        yield _with_ids(one_row.slice(0, 0), {name: pa.array([], pa.string()) for name in ids})


def _with_ids(table: Any, ids: Mapping[str, Any]) -> Any:
    """Return a table with these columns in front."""
    for place, (name, column) in enumerate(ids.items()):
        table = table.add_column(place, name, column)
    return table


def predictions(estimator: Any, recipe: Recipe, X: Any, proba: bool) -> Any:
    """Return a pyarrow.Table of predictions for features (n_rows, n_features)."""
    import pyarrow as pa

    if not proba:
        return pa.table({recipe.target: estimator.predict(X)})
    probabilities = estimator.predict_proba(X)
    labels = estimator.classes_[probabilities.argmax(axis=1)]
    names = [f"proba_{label_of(label)}" for label in estimator.classes_]
    columns = dict(zip(names, probabilities.T.copy(), strict=True))
    return pa.table({recipe.target: labels, **columns})


def label_of(label: Any) -> str:
    """Return a class as texts name it."""
    return str(label).lower() if isinstance(label, bool) or type(label).__name__.startswith("bool") else str(label)


def _write(path: Path, tables: Iterator[Any]) -> int:
    """Write tables one after the other; return the number of their rows."""
    n_rows = 0
    with _writer(path) as write:
        for table in tables:
            write(table)
            n_rows += table.num_rows
    return n_rows


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the output in an OSError that names no file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = "standard output" if str(path) == "-" else str(path)
        raise


@contextmanager
def _writer(path: Path) -> Iterator[Any]:
    """Yield a function that appends a table to the output, which appears whole when the block ends without an error."""
    from fastmlp.data.files import replacing

    to_file = str(path) != "-"
    writer: Any = None
    with _named(path), replacing(path) if to_file else nullcontext(sys.stdout.buffer) as stream:

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


def tell_of(path: Path, source: Source) -> None:
    """Print what people should know of a data file."""
    for name, why in source.notes.items():
        output.note(f"{STANDARD_INPUT if str(path) == '-' else path}: {name!r} {why}")


def unseen_text(name: str, counts: Mapping[str, int]) -> str:
    """Return a line about the texts of a column that training did not see."""
    total = sum(counts.values())
    most = ", ".join(shortened(text) for text, _ in Counter(counts).most_common(3))
    more = ", ..." if len(counts) > 3 else ""
    rows = "1 row has a text" if total == 1 else f"{total:,} rows have texts"
    return f"column {name!r}: {rows} that training did not see ({most}{more}), taken as no category"
