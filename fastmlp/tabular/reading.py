"""A data file as batches of rows: the one way in for CSV, Parquet, Arrow and npz.

A source knows the names of its columns and the kind of each, as far as the file tells it, and gives its rows any number
of times, in batches whose columns are float64 ("numeric"), bool ("boolean") or string ("categorical"); missing values
are null. Rows are counted from 1, without the header of a CSV file.
"""

from __future__ import annotations

import difflib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from fastmlp.data.optional import needed

#: What a column can be.
KINDS = ("numeric", "boolean", "categorical")

#: The kind of a column that is handed on: texts of a CSV file, the file's own type elsewhere.
AS_IT_IS = "as it is"

#: Most rows of a batch.
BATCH_ROWS = 1 << 16

#: Endings of file names -> the module that reads them.
FORMATS = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".csv.gz": "delimited",
    ".tsv.gz": "delimited",
    ".parquet": "binary",
    ".arrow": "binary",
    ".feather": "binary",
    ".ipc": "binary",
    ".npz": "archive",
}


class DataError(ValueError):
    """A file that cannot be used as it is; the message is one line and names the file."""


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    separator: str | None = None  # between two fields; None: found in the header
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ()  # texts for a missing value, besides the usual ones (nothing, NA, NaN, null, ...)


@dataclass
class Source(ABC):
    """A data file: its columns in order, the likeliest kind of each, and what speaks against using one as it is."""

    path: Path
    kinds: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

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

    def _cast(self, array: Any, name: str, kind: str, row: int) -> Any:
        """Return a column of a batch that begins after `row` rows, as its kind."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if kind == AS_IT_IS:
            return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        wanted = {"numeric": pa.float64(), "boolean": pa.bool_(), "categorical": pa.string()}[kind]
        if array.type == wanted:
            return array
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
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
                if value is not None and not is_of_kind(str(value), kind):
                    raise self.wrong_value(row + i + 1, name, value, kind) from None
            raise DataError(f"{self.path}: column {name!r}: {one_line(error)}") from None

    def wrong_value(self, row: int, name: str, value: Any, kind: str) -> DataError:
        """Return the error for a value that does not fit its column."""
        what = {"numeric": "no number", "boolean": "neither true nor false"}.get(kind, "no text")
        return DataError(f"{self.path}: row {row}, column {name!r}: {shortened(value)} is {what}")


def open_source(path: str | os.PathLike[str], dialect: Dialect | None = None) -> Source:
    """Open a data file.

    Parameters
    ----------
    path : str or path-like
        Its name ends in one of ``FORMATS``.
    dialect : Dialect, optional
        How it is written, for CSV.

    Raises
    ------
    DataError
        If the file is missing, unreadable, empty or of no known format. A header without rows can be opened.
    ImportError
        If pyarrow is missing.

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
    ending = next((e for e in FORMATS if path.name.lower().endswith(e)), None)
    if ending is None:
        raise DataError(f"{path}: unknown kind of file; it must end in {', '.join(FORMATS)}")
    pyarrow = needed("pyarrow", "reading data files", '"fastmlp[files]"')
    if path.is_dir():
        raise DataError(f"{path}: is a folder")
    try:
        source: Source = import_module(f"fastmlp.tabular.{FORMATS[ending]}").open_source(path, dialect or Dialect())
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or one_line(error)}") from None
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: {one_line(error)}") from None
    if not source.kinds:
        raise DataError(f"{path}: has no columns")
    return source


TRUE = frozenset(("1", "True", "TRUE", "true"))
FALSE = frozenset(("0", "False", "FALSE", "false"))


def is_of_kind(text: str, kind: str) -> bool:
    """Return whether a text of a file can be read as this kind."""
    if kind == "boolean":
        return text in TRUE | FALSE
    if kind == "numeric":
        try:
            float(text)
        except ValueError:
            return False
        return "_" not in text  # Python's own, and no other reader's
    return True


def check_names(path: Path, names: list[str]) -> None:
    """Refuse a name that two columns have."""
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise DataError(f"{path}: more than one column has the name {listed(twice)}")


def listed(names: Iterable[str], most: int = 12) -> str:
    """Return names for a message, not more than a line of them."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest


def shortened(value: Any, most: int = 40) -> str:
    """Return a value for a message."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 4]}...{text[-1]}"


def one_line(error: BaseException, most: int = 300) -> str:
    """Return the text of another library's error as a part of a one-line message."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
