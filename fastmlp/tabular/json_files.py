"""JSON: a line per row (.jsonl, .ndjson), which is read as a stream, or one document (.json), which is read whole.

A document is a list of objects, an object of columns, or what pandas writes with orient="split" or "table". A .json
file with an object per line is read like .jsonl. Texts are texts: only null and NaN are missing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastmlp.tabular import streams
from fastmlp.tabular.errors import DataError, check_names, one_line
from fastmlp.tabular.reading import BATCH_ROWS, Dialect, Source
from fastmlp.tabular.rows import Rows

#: Most characters of a file that is read whole.
WHOLE_CHARS = 1 << 28

#: What may go wrong while texts are read.
_BROKEN = (ValueError, RecursionError, *streams.BROKEN)


class Document(NamedTuple):
    """What a document holds."""

    rows: Sequence[Mapping[str, Any]]
    names: list[str]  # of the columns, as far as the rows need not say them
    levels: set[str]  # the columns of the index


@dataclass
class Objects(Rows):
    """Rows that are JSON objects."""

    document: Sequence[Mapping[str, Any]] | None = None  # None: a line per row

    def _rows(self) -> Iterator[Sequence[Any]]:
        names = list(self.kinds)
        known = set(names)
        for number, entry in enumerate(self._objects(), start=1):
            if not known.issuperset(entry):
                new = next(name for name in entry if name not in known)
                self.notes[new] = f"appears in row {number} for the first time, and was not read"
            yield [entry.get(name) for name in names]

    def _objects(self) -> Iterable[Mapping[str, Any]]:
        return _lines(self.path, self.dialect.encoding) if self.document is None else self.document


def open_source(path: Path, dialect: Dialect) -> Source:
    """Return the file with the kinds of its first rows."""
    dialect = replace(dialect, encoding=streams.encoding_of(path, dialect.encoding))
    source = Objects(path, dialect=dialect, missing=dialect.missing)
    found = _document(path, dialect.encoding) if ".json" in _endings(path) else None
    source.document = None if found is None else found.rows
    # rows may lack some of the columns
    for entry in itertools.islice(source._objects(), BATCH_ROWS):
        source.kinds |= dict.fromkeys(entry, "categorical")
    if found is not None and not found.rows:
        source.kinds = dict.fromkeys(found.names, "categorical")
    if not source.kinds:
        raise DataError(f"{path}: is empty")
    check_names(path, list(source.kinds))
    if found is not None:
        source.left_out |= dict.fromkeys(found.levels & set(source.kinds), "the index of a pandas frame")
    source.judge()
    return source


def _endings(path: Path) -> list[str]:
    return Path(streams.name_inside(path)).suffixes if path.suffix.lower() == ".zip" else path.suffixes


def _lines(path: Path, encoding: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a file that has one per line."""
    number = 0
    try:
        with streams.text(path, encoding) as stream:
            for line in streams.lines(path, stream):
                if not line.strip():
                    continue
                number += 1
                entry = json.loads(line.lstrip("\ufeff"))
                if not isinstance(entry, dict):
                    raise DataError(f"{path}: row {number} is no JSON object")
                yield entry
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{path}: row {max(1, number)} cannot be read: {one_line(error)}") from None


def _document(path: Path, encoding: str) -> Document | None:
    """Return what a document holds; None if there is one object per line."""
    try:
        with streams.text(path, encoding) as stream:
            text = stream.read(WHOLE_CHARS)
            if stream.read(1):
                raise DataError(f"{path}: is too long to be read whole: write it as .jsonl, a line per row")
        try:
            document = json.loads(text.lstrip("\ufeff"))
        except json.JSONDecodeError as error:
            if error.msg == "Extra data" and text.lstrip("\ufeff").lstrip().startswith("{"):
                return None
            raise
        return _read(path, document)
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from None


def _read(path: Path, document: Any) -> Document:
    index: set[str] = set()
    names: list[str] = []
    if isinstance(document, dict) and {"schema", "data"} <= set(document):  # orient="table"
        schema = document["schema"] if isinstance(document["schema"], dict) else {}
        named = schema.get("primaryKey")
        index = {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()
        fields = schema.get("fields")
        entries = [entry for entry in fields if isinstance(entry, dict)] if isinstance(fields, list) else []
        names = [entry["name"] for entry in entries if isinstance(entry.get("name"), str)]
        document = document["data"]
    elif isinstance(document, dict) and {"columns", "data"} <= set(document):  # orient="split"
        columns, rows = document["columns"], document["data"]
        right = isinstance(columns, list) and isinstance(rows, list)
        if not right or not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
            raise DataError(f"{path}: data must be a list of rows, each with a value per column")
        names = [str(name) for name in columns]
        check_names(path, names)
        document = [dict(zip(names, row, strict=True)) for row in rows]
    elif isinstance(document, dict) and document:
        names, document = list(document), _columns(path, document)
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise DataError(f"{path}: must be a list of objects, or an object of columns")
    return Document(document, names, index)


def _columns(path: Path, document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of an object of columns: lists, or objects from the index to the value; or of one row."""
    columns = list(document.values())
    if all(isinstance(column, list) for column in columns):
        if len({len(column) for column in columns}) > 1:
            raise DataError(f"{path}: its columns have different lengths")
        return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]
    if all(isinstance(column, dict) for column in columns):
        index = dict.fromkeys(itertools.chain.from_iterable(columns))
        return [{name: column.get(row) for name, column in document.items()} for row in index]
    return [document]
