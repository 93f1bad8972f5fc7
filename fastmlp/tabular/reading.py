"""A data file as batches of rows: the one way in for CSV, JSON, Excel, Parquet, Arrow and npz, and folders of files.

A source knows the names of its columns and the kind of each, as far as the file tells it, and gives its rows any number
of times, in batches whose columns are float64 ("numeric"), bool ("boolean") or string ("categorical"); missing values
are null. Rows are counted from 1, without the header of a CSV file. A source also knows which columns are used only if
they are asked for by name, such as the index of a pandas frame.
"""

from __future__ import annotations

import difflib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.data.optional import needed
from fastmlp.tabular import marks, streams
from fastmlp.tabular.errors import DataError, listed, one_line, shortened

#: What a column can be.
KINDS = ("numeric", "boolean", "categorical")

#: The kind of a column that is handed on: the file's own type if its columns have types, texts elsewhere.
AS_IT_IS = "as it is"

#: Most rows of a batch.
BATCH_ROWS = 1 << 16

#: Endings of texts, which may be compressed -> the module that reads them.
TEXTS = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".json": "json_files",
    ".jsonl": "json_files",
    ".ndjson": "json_files",
}

#: Endings of other files -> the module that reads them.
TABLES = {
    ".xlsx": "workbook",
    ".xlsm": "workbook",
    ".parquet": "binary",
    ".arrow": "binary",
    ".feather": "binary",
    ".ipc": "binary",
    ".npz": "archive",
}

#: Endings of file names -> the module that reads them; .zip alone says nothing of what is inside.
FORMATS = {
    ending + second: module for ending, module in TEXTS.items() for second in ("", *streams.COMPRESSIONS)
} | TABLES

#: All endings, and as a text for people.
KNOWN = (*FORMATS, ".zip")
ENDINGS = f"{', '.join(TEXTS)} (also with {', '.join(streams.COMPRESSIONS)}), .zip, {', '.join(TABLES)}"

#: Texts for a missing value: those of pandas and of pyarrow, and pandas' missing date.
MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
    *("NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"),
)

#: Most different texts of a column that are looked at for marks of numbers.
MOST_JUDGED = 1000

#: Share of the texts of a column that must be numbers for the others to look like mistakes.
MOSTLY = 0.5

TRUE = frozenset(("1", "True", "TRUE", "true"))
FALSE = frozenset(("0", "False", "FALSE", "false"))

# the names under which pandas writes an index, and R and pandas a first column of row names
_INDEX = re.compile(r"|Unnamed: 0(\.\d+)*|__index_level_\d+__")


@dataclass(frozen=True)
class Dialect:
    """How a CSV file, or the texts of another file, are written."""

    separator: str | None = None  # between two fields; None: found in the header
    encoding: str = "utf-8"  # a byte order mark of UTF-16 or UTF-32 overrules utf-8
    missing: tuple[str, ...] = ()  # texts for a missing value, besides the usual ones (nothing, NA, NaN, null, ...)
    decimal: str = "."  # the decimal mark of numbers
    thousands: str | None = None  # what stands between groups of digits

    @property
    def numbers(self) -> marks.Reading:
        """How numbers are written."""
        return self.decimal, self.thousands


@dataclass
class Source(ABC):
    """A data file: its columns in order, the likeliest kind of each, and what speaks against using one as it is."""

    path: Path
    kinds: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # columns that are used only if they are named -> why
    labels: set[str] = field(default_factory=set)  # columns of categories that are whole numbers
    notes: dict[str, str] = field(default_factory=dict)  # columns that people should look at -> why
    dialect: Dialect = field(default_factory=Dialect)
    missing: tuple[str, ...] = ()  # texts that are missing values, where what reads the file does not see to them

    @abstractmethod
    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        """Return batches with at least these columns; their types may still be the file's own."""

    def batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        """Yield the rows, as pyarrow.RecordBatch with these columns in this order, of these kinds.

        A DataError names the row of a value that is not of its column's kind, or whatever else is wrong in the file.
        """
        import pyarrow as pa

        row = 0
        for batch in self._batches(kinds):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                part = batch.slice(start, BATCH_ROWS)
                columns = [self._cast(part.column(name), name, kind, row) for name, kind in kinds.items()]
                yield pa.RecordBatch.from_arrays(columns, names=list(kinds))
                row += part.num_rows

    def used(self, target: str, drop: Iterable[str] = (), asked: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the columns to train on and their kinds, the target last.

        Parameters
        ----------
        target : str
        drop : iterable of str
            Columns that are not used. ``left_out`` loses them: it has what is left out without a word from the user.
        asked : mapping of str to str, optional
            Kinds of columns that are used even if they are ``left_out``.
        """
        asked, named = asked or {}, {target, *drop, *(asked or {})}
        self.left_out = {name: why for name, why in self.left_out.items() if name not in named}
        gone = {*drop, *self.left_out}
        chosen = {name: asked.get(name, kind) for name, kind in self.kinds.items() if name not in gone}
        kind = chosen.pop(target)
        # labels stay numbers, as scikit-learn has them
        chosen[target] = "numeric" if target in self.labels and target not in asked else kind
        return chosen

    def chosen(self, target: str, no_features: Iterable[str], asked: Mapping[str, str]) -> dict[str, str]:
        """Return the columns as :meth:`used` does, after all checks of them.

        A DataError tells of a column that is not there, that cannot be used, or that there is none to learn from.
        """
        no_features = list(no_features)
        if target in no_features:
            raise DataError(f"{self.path}: column {target!r} is the target, and left out")
        for name in (*asked, *no_features):
            self.problems.pop(name, None)
        self.check((target, *no_features, *asked))
        used = self.used(target, no_features, asked)
        if len(used) == 1:
            index = f" and the index, {listed(self.left_out)}" if self.left_out else ""
            raise DataError(f"{self.path}: there is no column besides the target {target!r}{index}")
        self.check(used)
        return used

    def check(self, names: Iterable[str]) -> None:
        """Refuse columns that are not there, or that cannot be used, by a DataError that says what the file has."""
        names = list(names)
        lacking = [name for name in names if name not in self.kinds]
        if lacking:
            near = difflib.get_close_matches(lacking[0], self.kinds, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]!r}?)" if near and len(lacking) == 1 else ""
            raise DataError(f"{self.path}: no column {listed(lacking)}{hint}; it has {listed(self.kinds)}")
        for name in names:
            if name in self.problems:
                raise DataError(f"{self.path}: column {name!r} {self.problems[name]}")

    def where(self, row: int) -> str:
        """Return what errors call a row, of those that ``batches`` has yielded, counted from 0."""
        return f"{self.path}: row {row + 1}"

    # --- what the first rows show, for the formats ------------------------------------------------------------------

    def leave_out_index(self, batch: Any) -> None:
        """Leave out an index that was written as an ordinary column, if the first rows show that it is one.

        It has the name that pandas or R gives it, and whole numbers of which no two are the same.
        """
        for i, (name, kind) in enumerate(self.kinds.items()):
            if kind != "numeric" or name in self.left_out or not _INDEX.fullmatch(name) or (i and not name):
                continue
            place = i if not name else batch.schema.names.index(name)
            values = batch.column(place).drop_null().to_numpy(zero_copy_only=False).astype(float)
            if len(values) == batch.num_rows > 1 and (values % 1 == 0).all() and len(np.unique(values)) == len(values):
                self.left_out[name] = "the index of an exported table"
                self.problems.pop(name, None)

    def judge_texts(self, column: Any, typed: bool) -> tuple[str, str | None]:
        """Return the kind of a column of texts, and what looks like a mistake in it.

        Parameters
        ----------
        column : pyarrow.Array of strings
            Some rows of it.
        typed : bool
            Whether the file says that these are texts; then plain numbers among them are no mistake.
        """
        entries = column.value_counts().to_pylist()
        counts = {e["values"]: e["counts"] for e in entries if e["values"] is not None and e["values"].strip()}
        numbers = sum(count for text, count in counts.items() if self.is_of_kind(text, "numeric"))
        total = sum(counts.values())
        if numbers == total:
            plain = self.dialect.numbers == marks.READINGS[0]
            return "categorical" if not total or (typed and plain) else "numeric", None
        instead = "--kind NAME=categorical, or --drop"
        others = [text for text in counts if not self.is_of_kind(text, "numeric")]
        marked = marks.advice(list(counts)[:MOST_JUDGED], self.dialect.separator, self.dialect.numbers)
        if marked is not None and marked[0] in others:
            row = column.to_pylist().index(marked[0]) + 1
            what = f"has numbers that are written as texts, such as {shortened(marked[0])} in row {row}"
            return "categorical", f"{what}: {marked[1]}; or say {instead}"
        if typed or numbers <= MOSTLY * total:
            return "categorical", None
        row = column.to_pylist().index(others[0]) + 1
        what = f"is numeric in most rows, but row {row} has {shortened(others[0])}"
        return "categorical", f"{what}: mend it, or say --missing, or {instead}"

    # --- values -----------------------------------------------------------------------------------------------------

    def is_of_kind(self, text: str, kind: str) -> bool:
        """Return whether a text of the file can be read as this kind."""
        if kind == "boolean":
            return text in TRUE | FALSE
        return kind != "numeric" or marks.is_number(text, self.dialect.numbers)

    def decoded(self, array: Any) -> Any:
        """Return a column with values in place of a dictionary, one type for texts, and null for missing texts."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_dictionary(array.type):
            if array.type.value_type == "string_view":  # pyarrow does not decode these
                array = pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.string()))
            array = array.dictionary_decode()
        if pa.types.is_large_string(array.type) or array.type == "string_view":
            array = array.cast(pa.string())
        if self.missing and array.type == pa.string():
            gone = pc.is_in(pc.utf8_trim_whitespace(array), value_set=pa.array(self.missing, pa.string()))
            array = pc.if_else(gone, pa.scalar(None, pa.string()), array)
        return array

    def _cast(self, array: Any, name: str, kind: str, row: int) -> Any:
        """Return a column of a batch that begins after `row` rows, as its kind."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = {"numeric": pa.float64(), "boolean": pa.bool_(), "categorical": pa.string()}.get(kind)
        array = self.decoded(array)
        if kind == AS_IT_IS or array.type == wanted:
            return array
        if kind == "numeric" and array.type == pa.string():
            found, wrong = marks.parsed(array, self.dialect.numbers)
            if found is None:
                raise self.wrong_value(row + wrong + 1, name, array[wrong].as_py(), kind)
            return found
        numbers = pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)
        if kind == "boolean" and numbers:
            other = pc.is_in(array.cast(pa.float64(), safe=False), value_set=pa.array([0.0, 1.0, None]))
            wrong = pc.index(other, pa.scalar(False)).as_py()
            if wrong >= 0:
                raise self.wrong_value(row + wrong + 1, name, array[wrong].as_py(), kind)
        try:
            # integers beyond 2**53 are rounded, as NumPy does
            return array.cast(wanted, safe=pa.types.is_decimal(array.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            for i, value in enumerate(array.to_pylist()):
                if value is not None and not self.is_of_kind(str(value), kind):
                    raise self.wrong_value(row + i + 1, name, value, kind) from None
            raise DataError(f"{self.path}: column {name!r}: {one_line(error)}") from None

    def wrong_value(self, row: int, name: str, value: Any, kind: str) -> DataError:
        """Return the error for a value that does not fit its column."""
        what = {"numeric": "no number", "boolean": "neither true nor false"}.get(kind, "no text")
        hint = ""
        if kind == "numeric" and isinstance(value, str):
            marked = marks.advice([value], self.dialect.separator, self.dialect.numbers)
            hint = f": {marked[1]}" if marked is not None else ""
        return DataError(f"{self.path}: row {row}, column {name!r}: {shortened(value)} is {what}{hint}")


def open_source(path: str | os.PathLike[str], dialect: Dialect | None = None) -> Source:
    """Open a data file, or a folder of Parquet and Arrow files as one table.

    Parameters
    ----------
    path : str or path-like
        A folder; or the name ends in one of ``TEXTS``, maybe with one of ``COMPRESSIONS``, in .zip, or in one of
        ``TABLES``.
    dialect : Dialect, optional
        How its texts are written.

    Raises
    ------
    DataError
        If the file is missing, unreadable, empty or of no known format. A header without rows can be opened. If a
        folder holds no such file, or others too.
    ImportError
        If pyarrow is missing, or openpyxl for a workbook.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "cats.csv"
    >>> _ = path.write_text("name,weight\\nTom,4.2\\nKim,3.9\\n")
    >>> source = open_source(path)
    >>> source.kinds
    {'name': 'categorical', 'weight': 'numeric'}
    >>> [batch.num_rows for batch in source.batches(source.kinds)]
    [2]
    """
    path = Path(path)
    is_folder = path.is_dir()
    if not is_folder and not path.name.lower().endswith(KNOWN):
        what = "unknown kind of file" if path.exists() else "No such file or folder"
        raise DataError(f"{path}: {what}; a file must end in {ENDINGS}")
    pyarrow = needed("pyarrow", "reading data files", '"fastmlp[files]"')
    try:
        module = "folder" if is_folder else _module(path)
        source: Source = import_module(f"fastmlp.tabular.{module}").open_source(path, dialect or Dialect())
    except streams.BROKEN as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or one_line(error)}") from None
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: {one_line(error)}") from None
    if not source.kinds:
        raise DataError(f"{path}: has no columns")
    return source


def _module(path: Path) -> str:
    """Return the module that reads a file; for a zip archive, the one file in it."""
    if path.suffix.lower() != ".zip":
        return next(module for ending, module in FORMATS.items() if path.name.lower().endswith(ending))
    name = streams.name_inside(path)
    module = TEXTS.get(Path(name).suffix.lower())
    if module is None:
        raise DataError(f"{path}: holds {name!r}, which is not read from a zip archive: unpack it")
    return module
