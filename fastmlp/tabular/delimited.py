"""CSV: pyarrow reads, Python's csv module explains what pyarrow refused.

The kinds of columns are those of the first block (1 MB); numbers are always float64, so a column may
begin with whole numbers. A later value of another kind is an error.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastmlp.tabular import streams
from fastmlp.tabular.errors import DataError, check_names, one_line, shortened
from fastmlp.tabular.reading import AS_IT_IS, MISSING, Dialect, Source

#: pyarrow reads some blocks ahead, which is most of the memory that reading takes.
BLOCK_BYTES = 1 << 20
SEPARATORS = (",", ";", "\t", "|")

#: Fields of blanks that are missing in any file; longer ones must be in the first block. pyarrow takes time for each.
BLANKS = (" ", "  ", "   ", "    ")

SAY_ENCODING = "say which --encoding the file has, latin-1 for instance"


@dataclass(frozen=True)
class Header:
    """The names of the columns, and what precedes the first row."""

    names: list[str]
    separator: str
    encoding: str
    lines: int  # to skip, those of the names included
    chars: int  # of the names
    empty: bool  # whether no row follows


@dataclass
class Delimited(Source):
    """A CSV file, maybe compressed."""

    header: Header | None = None
    blanks: tuple[str, ...] = BLANKS

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        import pyarrow as pa

        assert self.header is not None
        if self.header.empty:
            return
        types = {"numeric": pa.float64(), "boolean": pa.bool_(), "categorical": pa.string(), AS_IT_IS: pa.string()}
        if self.dialect.thousands is not None:
            types["numeric"] = pa.string()  # pyarrow knows decimal marks only
        # all columns are read, so that a row with a field too many is found whatever is used
        reader = self._reader({name: types[kind] for name, kind in kinds.items()}, kinds)
        try:
            yield from reader
        except (pa.ArrowException, *streams.BROKEN) as error:
            self._explain(kinds)
            raise DataError(f"{self.path}: {one_line(error)}") from None

    def _reader(self, types: Mapping[str, Any], kinds: Mapping[str, str]) -> Any:
        """Return pyarrow's reader, which reads the first block at once; of all columns if no kinds are given."""
        import pyarrow as pa
        from pyarrow import csv as arrow

        assert self.header is not None
        convert = arrow.ConvertOptions(
            column_types=types,
            include_columns=list(kinds),
            null_values=self._missing(),
            strings_can_be_null=True,
            decimal_point=self.dialect.decimal,
        )
        parse = arrow.ParseOptions(delimiter=self.dialect.separator, newlines_in_values=True)
        read = arrow.ReadOptions(
            block_size=max(BLOCK_BYTES, 8 * self.header.chars),  # the header, and a row, must fit
            encoding=self.dialect.encoding,
            column_names=self.header.names,
            skip_rows=self.header.lines,
        )
        try:
            stream = streams.for_arrow(self.path)
            return arrow.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert)
        except (pa.ArrowException, *streams.BROKEN) as error:
            self._explain(kinds)
            raise DataError(f"{self.path}: {one_line(error)}") from None

    def _missing(self) -> list[str]:
        return [*MISSING, *self.blanks, *self.dialect.missing]

    def _explain(self, kinds: Mapping[str, str]) -> None:
        """Raise the error that names row and column, if Python's csv module finds them."""
        assert self.header is not None
        missing, names = set(self._missing()), self.header.names
        with streams.text(self.path, self.dialect.encoding, errors="surrogateescape") as stream:
            lines = streams.lines(self.path, stream)
            try:
                for _ in range(self.header.lines):
                    next(lines)
                rows = csv.reader(lines, delimiter=self.dialect.separator or ",")
                for number, row in enumerate((row for row in rows if row), start=1):
                    self._judge(number, dict(zip(names, row, strict=False)), len(row), kinds, missing)
            except (csv.Error, StopIteration, *streams.BROKEN) as error:
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
            if text not in missing and not self.is_of_kind(text, kind):
                raise self.wrong_value(number, name, text, kind)


def open_source(path: Path, dialect: Dialect) -> Source:
    """Return the file with the kinds that its first block shows."""
    import pyarrow as pa

    header = _header(path, dialect)
    source = Delimited(
        path,
        dict.fromkeys(header.names, "categorical"),
        dialect=replace(dialect, separator=header.separator, encoding=header.encoding),
        header=header,
    )
    if header.empty:
        return source
    try:
        block = next(iter(source._reader({}, {})), None)
    except pa.ArrowException as error:
        raise DataError(f"{path}: {one_line(error)}") from None
    if block is None:
        return source
    source.blanks = tuple({*BLANKS, *_blanks(block)})
    for name, column in zip(header.names, block.columns, strict=True):
        source.kinds[name], problem = _kind(source, column)
        if problem:
            source.problems[name] = problem
        elif not name:
            source.problems[name] = "has no name: name it, or leave it out with --drop ''"
    source.leave_out_index(block)
    return source


def _blanks(block: Any) -> Iterator[str]:
    """Yield the texts of a block that are nothing but blanks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for column in block.columns:
        if pa.types.is_string(column.type):
            texts = column.filter(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0)).drop_null()
            yield from texts.unique().to_pylist()


def _header(path: Path, dialect: Dialect) -> Header:
    """Return the header, with the separator that gives most columns."""
    encoding = streams.encoding_of(path, dialect.encoding)
    chosen = dialect.separator
    try:
        # what comes after the header is not judged here
        with streams.text(path, encoding, errors="surrogateescape") as stream:
            lines = streams.lines(path, stream)
            line, skipped = next(lines, ""), 0
            while line and (not line.strip() or (skipped == 0 and _excel_separator(line))):
                chosen = chosen or _excel_separator(line)
                line, skipped = next(lines, ""), skipped + 1
            second = next(lines, "")  # a name may have a line break in it
            empty = not second.strip() and not any(line.strip() for line in lines)
    except UnicodeError as error:
        raise DataError(f"{path}: is no {encoding} text: {one_line(error)}") from None
    line = line.lstrip("\ufeff")
    if not line.strip():
        raise DataError(f"{path}: is empty")
    if "\0" in line:
        raise DataError(f"{path}: the header has characters of code 0; {SAY_ENCODING.replace('latin-1', 'utf-16-le')}")
    names, separator, n_lines = _names(path, line, second, chosen, dialect.decimal)
    if any(map(_undecoded, (line, *names))):
        raise DataError(f"{path}: the header is no {encoding} text; {SAY_ENCODING}")
    if separator == dialect.decimal:
        raise DataError(
            f"{path}: {separator!r} separates the fields, so it cannot be the decimal mark: say another --decimal, or"
            " --separator"
        )
    check_names(path, names)
    empty = empty and not (n_lines == 1 and second.strip())
    return Header(names, separator, encoding, skipped + n_lines, len(line) + len(second), empty)


def _names(path: Path, line: str, second: str, separator: str | None, decimal: str) -> tuple[list[str], str, int]:
    """Return the names of the columns, the separator, and the number of lines that the names take.

    If it is not given, the separator is the decimal mark only where nothing else makes two columns.
    """
    usual = ("\t", *SEPARATORS) if ".tsv" in streams.name_inside(path).lower() else SEPARATORS
    found, why = {}, ""
    for mark in usual if separator is None else (separator,):
        reader = csv.reader(io.StringIO(line + second, newline=""), delimiter=mark)
        try:
            found[mark] = next(reader), reader.line_num
        except (csv.Error, TypeError, ValueError) as error:  # a field of more than 131 072 characters, for instance
            why = one_line(error)
    if not found:
        raise DataError(f"{path}: the header cannot be read: {why}")
    others = {mark: header for mark, header in found.items() if mark != decimal}
    if decimal in found and others and max(len(h[0]) for h in others.values()) >= min(2, len(found[decimal][0])):
        found = others
    best = _likeliest(path, {mark: len(names) for mark, (names, n_lines) in found.items() if n_lines == 1}, second)
    best = best or max(found, key=lambda mark: len(found[mark][0]))  # the first of equals
    return found[best][0], best, found[best][1]


def _likeliest(path: Path, columns: Mapping[str, int], second: str) -> str | None:
    """Return the separator that splits the first row into as many fields as the header; None if none does.

    Of two such separators, as in ``price, EUR;weight, kg`` above ``1,5;2,5``, none is likelier: a DataError says so.
    The tab of a .tsv file is.
    """
    fitting = []
    for mark, n_columns in columns.items():
        with suppress(csv.Error, StopIteration, TypeError, ValueError):
            if n_columns > 1 and len(next(csv.reader([second], delimiter=mark))) == n_columns:
                fitting.append(mark)
    if len(fitting) > 1 and not (fitting[0] == "\t" and next(iter(columns)) == "\t"):
        shown = " or ".join(map(repr, fitting))
        raise DataError(f"{path}: {shown} may separate the fields of the header: say which --separator does")
    return fitting[0] if fitting else None


def _excel_separator(line: str) -> str | None:
    """Return the separator that a first line of Excel's states, as in ``sep=;``."""
    stated = re.fullmatch(r'\ufeff?"?sep=(.)"?', line.rstrip("\r\n"), re.IGNORECASE)
    return stated[1] if stated else None


def _kind(source: Source, column: Any) -> tuple[str, str | None]:
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
    if not pa.types.is_string(column.type):
        return "categorical", None  # bytes that are no text: reading them says where
    return source.judge_texts(column, typed=False)


def _undecoded(text: str) -> bool:
    """Return whether bytes were left over when this text was decoded with surrogateescape."""
    return any("\udc80" <= letter <= "\udcff" for letter in text)
