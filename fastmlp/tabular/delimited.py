"""CSV: pyarrow reads, Python's csv module explains what pyarrow refused.

The kinds of columns are those of the first block (1 MB); numbers are always float64, so a column may
begin with whole numbers. A later value of another kind is an error.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from fastmlp.tabular.reading import AS_IT_IS, DataError, Dialect, Source, check_names, is_of_kind, one_line, shortened

#: pyarrow reads some blocks ahead, which is most of the memory that reading takes.
BLOCK_BYTES = 1 << 20
SEPARATORS = (",", ";", "\t", "|")

SAY_ENCODING = "say which --encoding the file has, latin-1 for instance"

#: Share of the texts of a column that must be numbers for the others to look like mistakes.
MOSTLY = 0.5


@dataclass
class Delimited(Source):
    """A CSV file, maybe compressed by gzip."""

    dialect: Dialect = field(default_factory=Dialect)
    empty: bool = False  # whether no row follows the header

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        import pyarrow as pa

        if self.empty:
            return
        types = {"numeric": pa.float64(), "boolean": pa.bool_(), "categorical": pa.string(), AS_IT_IS: pa.string()}
        # all columns are read, so that a row with a field too many is found whatever is used
        reader = self._reader({name: types[kind] for name, kind in kinds.items()}, kinds)
        try:
            yield from reader
        except (pa.ArrowException, UnicodeDecodeError, OSError, EOFError) as error:
            self._explain(kinds)
            raise DataError(f"{self.path}: {one_line(error)}") from None

    def _reader(self, types: Mapping[str, Any], kinds: Mapping[str, str]) -> Any:
        """Return pyarrow's reader, which reads the first block at once; of all columns if no kinds are given."""
        import pyarrow as pa
        from pyarrow import csv as arrow

        convert = arrow.ConvertOptions(
            column_types=types, include_columns=list(kinds), null_values=self._missing(), strings_can_be_null=True
        )
        parse = arrow.ParseOptions(delimiter=self.dialect.separator, newlines_in_values=True)
        read = arrow.ReadOptions(block_size=BLOCK_BYTES, encoding=self.dialect.encoding)
        try:
            stream = pa.input_stream(str(self.path), compression="gzip" if _zipped(self.path) else None)
            return arrow.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            self._explain(kinds)
            raise DataError(f"{self.path}: {one_line(error)}") from None

    def _missing(self) -> list[str]:
        from pyarrow import csv as arrow

        return [*arrow.ConvertOptions().null_values, *self.dialect.missing]

    def _explain(self, kinds: Mapping[str, str]) -> None:
        """Raise the error that names row and column, if Python's csv module finds them."""
        missing = set(self._missing())
        with _text(self.path, self.dialect.encoding, errors="surrogateescape") as stream:
            rows = csv.reader(stream, delimiter=self.dialect.separator or ",")
            try:
                names = next(rows)
                number = 0
                for number, row in enumerate((row for row in rows if row), start=1):
                    self._judge(number, dict(zip(names, row, strict=False)), len(row), kinds, missing)
                if number == 0:
                    self.empty = True
            except (csv.Error, OSError, EOFError, StopIteration) as error:
                raise DataError(f"{self.path}: {one_line(error)}") from None

    def _judge(self, number: int, row: dict[str, str], n_fields: int, kinds: Mapping[str, str], missing: set) -> None:
        if n_fields != len(self.kinds):
            fields = "1 field" if n_fields == 1 else f"{n_fields} fields"
            raise DataError(f"{self.path}: row {number} has {fields}, the header has {len(self.kinds)}")
        for name, text in row.items():
            if _undecoded(text):
                shown = shortened(text.encode(self.dialect.encoding, "surrogateescape"))
                where = f"{self.path}: row {number}, column {name!r}"
                raise DataError(f"{where}: {shown} is no {self.dialect.encoding} text; {SAY_ENCODING}")
            kind = kinds.get(name, "categorical")
            if text not in missing and not is_of_kind(text, kind):
                raise self.wrong_value(number, name, text, kind)


def open_source(path: Path, dialect: Dialect) -> Source:
    """Return the file with the kinds that its first block shows."""
    import pyarrow as pa

    names, separator = _header(path, dialect)
    source = Delimited(path, dict.fromkeys(names, "categorical"), dialect=replace(dialect, separator=separator))
    try:
        block = next(iter(source._reader({}, {})), None)
    except pa.ArrowException as error:
        raise DataError(f"{path}: {one_line(error)}") from None
    except DataError:
        if not source.empty:
            raise
        block = None
    if block is None or block.num_rows == 0:
        source.empty = True
        return source
    for name, column in zip(names, block.columns, strict=True):
        source.kinds[name], problem = _kind(column)
        if problem:
            source.problems[name] = problem
        elif not name:
            source.problems[name] = "has no name: name it, or leave it out with --drop ''"
    return source


def _header(path: Path, dialect: Dialect) -> tuple[list[str], str]:
    """Return the names of the columns, and the separator that gives most columns."""
    try:
        # what comes after the header is not judged here
        with _text(path, dialect.encoding, errors="surrogateescape") as stream:
            line = stream.readline()
            while line and not line.strip():
                line = stream.readline()
            rest = line + stream.readline()  # a name may have a line break in it
    except UnicodeError as error:
        raise DataError(f"{path}: is no {dialect.encoding} text: {one_line(error)}") from None
    except LookupError:
        raise DataError(f"{path}: there is no encoding {dialect.encoding!r}") from None
    if not line.strip():
        raise DataError(f"{path}: is empty")
    likely = ("\t", *SEPARATORS) if ".tsv" in path.name.lower() else SEPARATORS
    separators = likely if dialect.separator is None else (dialect.separator,)
    try:
        headers = {s: next(csv.reader(io.StringIO(rest), delimiter=s)) for s in separators}
    except (csv.Error, TypeError, ValueError) as error:
        raise DataError(f"{path}: {one_line(error)}") from None
    if _undecoded(line):
        raise DataError(f"{path}: the header is no {dialect.encoding} text; {SAY_ENCODING}")
    separator = max(headers, key=lambda s: len(headers[s]))  # the first of equals
    check_names(path, headers[separator])
    return headers[separator], separator


def _kind(column: Any) -> tuple[str, str | None]:
    """Return the kind of a column of the first block, and what is wrong with it."""
    import pyarrow as pa

    if pa.types.is_null(column.type):
        why = f"has no value in its first {len(column)} rows: say its --kind (NAME=numeric, for instance), or --drop it"
        return "categorical", why
    if pa.types.is_boolean(column.type):
        return "boolean", None
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return "numeric", None
    if pa.types.is_temporal(column.type):
        return "categorical", "holds dates or times, which are no features: leave it out with --drop, or see --kind"
    return "categorical", _odd_text(column)


def _odd_text(column: Any) -> str | None:
    """Return what looks like a mistake in a column of texts: a few texts among many numbers."""
    counts = {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist() if entry["values"]}
    numbers = sum(count for text, count in counts.items() if is_of_kind(text, "numeric"))
    if numbers <= MOSTLY * sum(counts.values()):
        return None
    odd = next(text for text in counts if not is_of_kind(text, "numeric"))
    row = column.to_pylist().index(odd) + 1
    return (
        f"is numeric in most rows, but row {row} has {shortened(odd)}: mend it, or say --missing, or"
        " --kind NAME=categorical, or --drop"
    )


def _undecoded(text: str) -> bool:
    """Return whether bytes were left over when this text was decoded with surrogateescape."""
    return any("\udc80" <= letter <= "\udcff" for letter in text)


def _zipped(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _text(path: Path, encoding: str, errors: str = "strict") -> IO[str]:
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    if _zipped(path):
        return gzip.open(path, "rt", encoding=encoding, errors=errors, newline="")
    return path.open(encoding=encoding, errors=errors, newline="")
