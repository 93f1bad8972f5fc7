"""Excel's workbooks: the first sheet, row by row, by openpyxl. Formulas count with the values that Excel computed.

The first row that is not empty has the names. Empty rows at the end are left out.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmlp.data.optional import needed
from fastmlp.tabular.errors import DataError, check_names, one_line
from fastmlp.tabular.reading import MISSING, Dialect, Source
from fastmlp.tabular.rows import Rows

#: Most bytes of the parts that openpyxl reads whole: all but the sheets.
WHOLE_BYTES = 1 << 28


@dataclass
class Workbook(Rows):
    """The first sheet of a workbook."""

    def _rows(self) -> Iterator[Sequence[Any]]:
        with _sheet(self.path) as rows:
            next(rows, None)  # the names
            for number, row in enumerate(rows, start=1):
                if len(row) > len(self.kinds):
                    where = f"row {number} has a value in column {len(row)}"
                    raise DataError(f"{self.path}: {where}, the header has {len(self.kinds)}")
                yield row + [None] * (len(self.kinds) - len(row))


def open_source(path: Path, dialect: Dialect) -> Source:
    """Return the file with the kinds of its first rows."""
    missing = (*MISSING, *dialect.missing)
    source = Workbook(path, dialect=dialect, missing=missing, texts_are_typed=False)
    with _sheet(path, source.notes) as rows:
        names = ["" if name is None else _name(name) for name in next(rows, [])]
    if not names:
        raise DataError(f"{path}: its first sheet is empty")
    check_names(path, names)
    source.kinds = dict.fromkeys(names, "categorical")
    source.judge()
    return source


def _name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@contextmanager
def _sheet(path: Path, notes: dict[str, str] | None = None) -> Iterator[Iterator[list[Any]]]:
    """Yield the rows of the first sheet from the first to the last with a value, without empty cells at their ends.

    `notes` gets an entry for each other sheet that has values.
    """
    openpyxl = needed("openpyxl", "reading workbooks", '"fastmlp[files]"')
    try:
        _check_size(path)
        with closing(openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)) as book:
            if not book.worksheets:
                raise DataError(f"{path}: has no sheet")
            if notes is not None:
                others = [sheet.title for sheet in book.worksheets[1:] if next(_rows_of(sheet), None)]
                notes |= dict.fromkeys(others, "is another sheet of the workbook, which was not read")
            yield _rows_of(book.worksheets[0])
    except DataError:
        raise
    except Exception as error:  # openpyxl raises whatever a damaged part leads to
        raise DataError(f"{path}: cannot be read as a workbook: {one_line(error) or type(error).__name__}") from None


def _rows_of(sheet: Any) -> Iterator[list[Any]]:
    sheet.reset_dimensions()  # what a file says of its size may be wrong
    begun, empty = False, 0
    for cells in sheet.iter_rows(values_only=True):
        row = list(cells)
        while row and (row[-1] is None or row[-1] == ""):
            row.pop()
        if row:
            yield from ([] for _ in range(empty))
            yield row
        # an empty row between others is a row without values
        begun, empty = begun or bool(row), 0 if row or not begun else empty + 1


def _check_size(path: Path) -> None:
    """Refuse a workbook whose texts would fill the memory; a member never gives more bytes than it says."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist() if "worksheets/" not in entry.filename)
    if size > WHOLE_BYTES:
        raise DataError(f"{path}: its texts and styles take {size} bytes, more than {WHOLE_BYTES}: save it as .csv")
