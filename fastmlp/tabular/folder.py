"""A folder of Parquet and Arrow files as one table: one file after the other, in the order of their paths.

What belongs to it is decided as pyarrow.dataset does: all files below the folder, but none whose name, or whose
folder's name, begins with a point or an underscore (``_metadata``, ``_SUCCESS``). Folders named ``key=value``, Hive's
partitions, give a column each: of whole numbers if all its values are, else of texts.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastmlp.tabular import reading
from fastmlp.tabular.binary import Binary, judge_first_rows, of_schema
from fastmlp.tabular.errors import DataError, listed, one_line
from fastmlp.tabular.reading import Dialect, Source

#: The value of a partition whose rows have none, as Hive names it.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"-?[0-9]{1,10}")

ENDINGS = tuple(ending for ending, module in reading.TABLES.items() if module == "binary")


@dataclass
class Part(Binary):
    """A file of the folder."""

    keys: dict[str, Any] = field(default_factory=dict)  # columns of its folders' names -> value, None for missing

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in super()._batches({name: kind for name, kind in kinds.items() if name not in self.keys}):
            n = batch.num_rows
            columns = [pa.repeat(self._key(name), n) if name in self.keys else batch.column(name) for name in kinds]
            yield pa.RecordBatch.from_arrays(columns, names=list(kinds))

    def _key(self, name: str) -> Any:
        import pyarrow as pa

        return pa.scalar(self.keys[name], pa.int32() if self.kinds[name] == "numeric" else pa.string())


@dataclass
class Folder(Source):
    """All files of a folder."""

    parts: list[Part] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)  # number of the first row of each part that was begun

    def batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        """Yield the rows, file by file, as a file does.

        A DataError names the file of a value, and its row there, or a file that lacks a column.
        """
        for part in self.parts:
            lacking = [name for name in kinds if name not in part.kinds]
            if lacking:
                raise DataError(f"{part.path}: no column {listed(lacking)}, which other files of the folder have")
        self._starts, row = [], 0
        for part in self.parts:
            self._starts.append(row)
            for batch in part.batches(kinds):
                yield batch
                row += batch.num_rows

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        for part in self.parts:
            yield from part._batches(kinds)

    def where(self, row: int) -> str:
        """Return the file of a row, and its number there."""
        place = bisect_right(self._starts, row) - 1
        return self.parts[place].where(row - self._starts[place])


def open_source(path: Path, dialect: Dialect) -> Source:
    """Return the folder with the columns of all files; the first file with rows is looked at closely.

    A column whose kind differs between files is a problem, unless somebody says its kind.
    """
    parts = [_part(path, file, dialect) for file in _files(path)]
    folder = Folder(path, dialect=dialect, missing=dialect.missing, parts=parts)
    _name_keys(folder)
    schemas = {part.path: dict(part.kinds) for part in parts}
    first = next((part for part in parts if judge_first_rows(part)), parts[0])
    in_order = [first, *(part for part in parts if part is not first)]  # the first that knows a column decides
    for name in dict.fromkeys(name for part in in_order for name in part.kinds):
        known = [part for part in in_order if name in part.kinds and name not in part.unknown]
        folder.kinds[name] = known[0].kinds[name] if known else "categorical"
        by_schema = [schemas[part.path][name] for part in known]
        other = next((part for part, kind in zip(known, by_schema, strict=True) if kind != by_schema[0]), None)
        if other is not None:
            kinds = f"{by_schema[0]} in {known[0].path.name}, {other.kinds[name]} in {other.path.name}"
            folder.problems[name] = f"is {kinds}: say --kind {name}=KIND, or leave it out with --drop"
    for part in in_order:
        for ours, theirs in ((folder.problems, part.problems), (folder.left_out, part.left_out)):
            for name, why in theirs.items():
                ours.setdefault(name, why)
        folder.labels |= part.labels
    return folder


def _files(path: Path) -> list[Path]:
    """Return the files of the table, in the order of their paths."""
    found = []
    for folder, inner, names in os.walk(path, onerror=_raise):
        inner[:] = [name for name in inner if not name.startswith((".", "_"))]
        found += [Path(folder, name) for name in names if not name.startswith((".", "_"))]
    for file in found:
        if not file.name.lower().endswith(ENDINGS) or not file.is_file():
            raise DataError(f"{path}: a folder must hold nothing but files in {', '.join(ENDINGS)}; it holds {file}")
    if not found:
        raise DataError(f"{path}: is a folder without a file in {', '.join(ENDINGS)}")
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def _raise(error: OSError) -> None:
    raise error


def _part(folder: Path, file: Path, dialect: Dialect) -> Part:
    import pyarrow as pa

    try:
        source = of_schema(Part, file, dialect)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: {one_line(error)}") from None
    for name in file.relative_to(folder).parts[:-1]:
        key, equals, value = name.partition("=")
        if not key or not equals:
            continue
        if key in source.kinds:
            raise DataError(f"{file}: column {key!r} is there twice, in the file or in the names of its folders")
        source.keys[key] = None if value == _NO_VALUE else unquote(value)
        source.kinds[key] = "categorical"
    return source


def _is_int32(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and -(2**31) <= int(text) < 2**31


def _name_keys(folder: Folder) -> None:
    """Give the columns of folders' names their kinds; refuse files that do not have them all."""
    for key in dict.fromkeys(key for part in folder.parts for key in part.keys):
        for part in folder.parts:
            if key not in part.keys:
                raise DataError(f"{part.path}: is in no folder {key}=..., as other files of {folder.path} are")
        values = [part.keys[key] for part in folder.parts]
        if not all(value is None or _is_int32(value) for value in values):
            continue
        for part in folder.parts:
            part.keys[key] = None if part.keys[key] is None else int(part.keys[key])
            part.kinds[key] = "numeric"
