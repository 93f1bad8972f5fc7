"""Parquet and Arrow files (the file and the stream format; Feather is the former), read by pyarrow batch by batch.

One row group of Parquet, or one batch of an Arrow file, is in memory at a time. The types of the columns give their
kinds. pandas adds to the schema which columns are the index of a frame, and which are categories.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fastmlp.tabular.errors import DataError, check_names, one_line
from fastmlp.tabular.reading import BATCH_ROWS, Dialect, Source

# what is lost of the metadata, or was written by other software than pandas
_INDEX_LEVEL = re.compile(r"__index_level_\d+__")


@dataclass
class Binary(Source):
    """A Parquet file, an Arrow file or an Arrow stream."""

    unknown: set[str] = field(default_factory=set)  # columns without a type: all their values are missing

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self.path.suffix.lower() == ".parquet":
                with pq.ParquetFile(self.path) as file:
                    yield from map(_sound, file.iter_batches(BATCH_ROWS, columns=list(kinds)))
            else:
                with _reader(self.path) as reader:
                    yield from map(_sound, _record_batches(reader))
        except (pa.ArrowException, UnicodeError, OSError) as error:
            raise DataError(f"{self.path}: {one_line(error)}") from None


AnyBinary = TypeVar("AnyBinary", bound=Binary)


def _sound(batch: Any) -> Any:
    """Return a batch; pyarrow's error says that its texts are no UTF-8, or that its offsets lead nowhere."""
    batch.validate(full=True)
    return batch


def open_source(path: Path, dialect: Dialect) -> Source:
    """Return the file with the kinds of its schema, and what its first rows show."""
    source = of_schema(Binary, path, dialect)
    judge_first_rows(source)
    return source


def of_schema(cls: type[AnyBinary], path: Path, dialect: Dialect) -> AnyBinary:
    """Return the file with the kinds of its schema; no row is read."""
    import pyarrow.parquet as pq

    stored: Any = None
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            schema, stored = file.schema_arrow, _stored_schema(file)
    else:
        with _reader(path) as reader:
            schema = reader.schema
    check_names(path, list(schema.names))
    source = cls(path, dialect=dialect, missing=dialect.missing)
    index, categories = _of_pandas(schema)
    for entry in schema:
        type_ = entry.type if stored is None or entry.name not in stored.names else stored.field(entry.name).type
        if type_ == "null":
            source.unknown.add(entry.name)
        source.kinds[entry.name], problem = _kind(source, entry.name, type_, entry.name in categories)
        if problem:
            source.problems[entry.name] = problem
        if entry.name in index or _INDEX_LEVEL.fullmatch(entry.name):
            source.left_out[entry.name] = "the index of a pandas frame"
    return source


def judge_first_rows(source: Source) -> bool:
    """Look at the first rows of a file: at texts that are numbers, and at an index without metadata.

    Returns False if there would have been something to look at, but there are no rows.
    """
    looked_at = [n for n, kind in source.kinds.items() if (kind == "categorical" or not n or n.startswith("Unnamed"))]
    looked_at = [name for name in looked_at if name not in source.problems]
    if not looked_at:
        return True
    batch = next((batch for batch in source._batches(dict.fromkeys(looked_at, "")) if batch.num_rows), None)
    if batch is None:
        return False
    source.leave_out_index(batch)
    for name in looked_at:
        column = source.decoded(batch.column(name))
        if source.kinds[name] == "categorical" and column.type == "string":
            source.kinds[name], problem = source.judge_texts(column, typed=True)
            if problem:
                source.problems[name] = problem
    return True


def _of_pandas(schema: Any) -> tuple[set[str], set[str]]:
    """Return the columns of the index, and those of categories, that pandas' metadata names.

    The metadata may be damaged or forged; what makes no sense says nothing.
    """
    try:
        described = schema.pandas_metadata
    except (ValueError, RecursionError):
        return set(), set()
    index, columns = (
        (described.get(key) for key in ("index_columns", "columns")) if isinstance(described, dict) else ((), ())
    )
    # the entry of a RangeIndex is a dict: it has no column
    levels = {name for name in index if isinstance(name, str)} if isinstance(index, list) else set()
    entries = [entry for entry in columns if isinstance(entry, dict)] if isinstance(columns, list) else []
    categories = {str(e.get("field_name", e.get("name"))) for e in entries if e.get("pandas_type") == "categorical"}
    return levels, categories


def _stored_schema(file: Any) -> Any:
    """Return the schema that was written to a Parquet file, whose reader forgets dictionaries of numbers; or None."""
    import pyarrow as pa

    stored = (file.metadata.metadata or {}).get(b"ARROW:schema")
    with suppress(ValueError, OSError, pa.ArrowException):
        return None if stored is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored)))
    return None


def _kind(source: Source, name: str, type_: Any, category: bool) -> tuple[str, str | None]:
    """Return the kind of a column of this type, and what is wrong with it."""
    from pyarrow import types

    if types.is_dictionary(type_):
        return _kind(source, name, type_.value_type, True)
    if types.is_boolean(type_):
        return "boolean", None
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        if category and types.is_integer(type_):
            source.labels.add(name)
        return "categorical" if category else "numeric", None
    if types.is_string(type_) or types.is_large_string(type_) or types.is_null(type_) or type_ == "string_view":
        return "categorical", None
    if types.is_temporal(type_):
        return "categorical", "holds dates or times, which are no features: leave it out with --drop"
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
