"""Parquet and Arrow files (the file and the stream format; Feather is the former), read by pyarrow batch by batch.

One row group of Parquet, or one batch of an Arrow file, is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastmlp.tabular.reading import BATCH_ROWS, DataError, Dialect, Source, check_names, one_line


class Binary(Source):
    """A Parquet file, an Arrow file or an Arrow stream."""

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self.path.suffix.lower() == ".parquet":
                with pq.ParquetFile(self.path) as file:
                    yield from file.iter_batches(BATCH_ROWS, columns=list(kinds))
            else:
                with _reader(self.path) as reader:
                    yield from _record_batches(reader)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: {one_line(error)}") from None


def open_source(path: Path, dialect: Dialect) -> Source:
    """Return the file with the kinds of its schema."""
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
    else:
        with _reader(path) as reader:
            schema = reader.schema
    check_names(path, list(schema.names))
    source = Binary(path)
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
    if types.is_string(type_) or types.is_large_string(type_) or types.is_null(type_) or type_ == "string_view":
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
