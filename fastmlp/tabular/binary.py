"""Parquet and Arrow files (the file and the stream format; Feather is the former), read by pyarrow batch by batch.

One row group of Parquet, or one batch of an Arrow file, is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastmlp.tabular.reading import BATCH_ROWS, DataError, Dialect, Source, listed, one_line


class Parquet(Source):
    """A Parquet file."""

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            yield from _explained(self.path, file.iter_batches(BATCH_ROWS, columns=list(kinds)))


class Arrow(Source):
    """An Arrow file or stream."""

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        with _reader(self.path) as reader:
            yield from _explained(self.path, _record_batches(reader))


def open_source(path: Path, dialect: Dialect) -> Source:
    """Return the file with the kinds of its schema."""
    import pyarrow.parquet as pq

    source: Source
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            source, schema, empty = Parquet(path), file.schema_arrow, file.metadata.num_rows == 0
    else:
        with _reader(path) as reader:
            source, schema = Arrow(path), reader.schema
            empty = all(batch.num_rows == 0 for batch in _first_with_rows(reader))
    names = list(schema.names)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{path}: more than one column has the name {listed(twice)}")
    if empty:
        raise DataError(f"{path}: has no rows")
    for field in schema:
        source.kinds[field.name], problem = _kind(field.type)
        if problem:
            source.problems[field.name] = problem
    return source


def _kind(type_: Any) -> tuple[str, str | None]:
    """Return the kind of a column of this type, and what is wrong with it."""
    from pyarrow import types

    if types.is_dictionary(type_):
        return _kind(type_.value_type)
    if types.is_boolean(type_):
        return "boolean", None
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "numeric", None
    if types.is_string(type_) or types.is_large_string(type_) or types.is_null(type_):
        return "categorical", None
    if type_ == "string_view":
        return "categorical", None
    return "categorical", f"has values of type {type_}, which are no features: leave it out with --drop"


def _reader(path: Path) -> Any:
    import pyarrow as pa

    # not mapped into memory: whatever was read would count as used
    try:
        return pa.ipc.open_file(pa.OSFile(str(path)))
    except pa.ArrowInvalid:
        return pa.ipc.open_stream(pa.OSFile(str(path)))


def _record_batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(reader)


def _first_with_rows(reader: Any) -> Iterator[Any]:
    for batch in _record_batches(reader):
        yield batch
        if batch.num_rows:
            return


def _explained(path: Path, batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the same batches; errors name the file."""
    import pyarrow as pa

    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: {one_line(error)}") from None
        if batch is None:
            return
        yield batch
