"""Files whose rows come as Python values: JSON and workbooks. Their values become columns of pyarrow, block by block.

Values have types of their own. A column is numeric or boolean if all its values are; numbers among texts are texts.
"""

from __future__ import annotations

import datetime
import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastmlp.tabular.errors import DataError
from fastmlp.tabular.reading import AS_IT_IS, Source

#: Rows of a block; as Python values they take some ten times the memory of arrays.
BLOCK_ROWS = 1 << 13


@dataclass
class Rows(Source):
    """A file that gives its rows one by one."""

    texts_are_typed: bool = True  # whether a number that is written as a text is meant as a text

    @abstractmethod
    def _rows(self) -> Iterator[Sequence[Any]]:
        """Return the rows, each with a value per column, in the order of ``kinds``."""

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        import pyarrow as pa

        places = {name: i for i, name in enumerate(self.kinds)}
        start, rows = 0, self._rows()
        while block := list(itertools.islice(rows, BLOCK_ROWS)):
            columns = [
                self._column([row[places[name]] for row in block], name, start, as_texts=kind == AS_IT_IS)
                for name, kind in kinds.items()
            ]
            yield pa.RecordBatch.from_arrays(columns, names=list(kinds))
            start += len(block)

    def _column(self, values: list[Any], name: str, start: int, *, as_texts: bool = False) -> Any:
        """Return values as a pyarrow.Array of bool, float64 or string; they begin after `start` rows.

        As texts, the blocks of a column have one type, and whole numbers all their digits.
        """
        import pyarrow as pa

        types = {type(value) for value in values if value is not None}
        if types <= {bool} and not as_texts:
            return pa.array(values, pa.bool_())
        if types <= {bool, int, float} and not as_texts:
            for i, value in enumerate(values):
                if type(value) is int and abs(value) > 1e300:
                    raise DataError(f"{self.path}: row {start + i + 1}, column {name!r}: the number is too large")
            return pa.array([None if v is None or v != v else float(v) for v in values], pa.float64())
        try:
            return pa.array([_text(value) for value in values], pa.string())
        except UnicodeEncodeError:
            raise DataError(f"{self.path}: column {name!r}: holds text that is no Unicode") from None

    def judge(self) -> None:
        """Set the kinds of the columns by the first block."""
        block = list(itertools.islice(self._rows(), BLOCK_ROWS))
        if not block:
            return
        import pyarrow as pa

        columns = []
        for i, name in enumerate(self.kinds):
            values = [row[i] for row in block]
            column = self.decoded(self._column(values, name, 0))
            columns.append(column)
            self.kinds[name], problem = self._kind(values, column)
            if problem:
                self.problems[name] = problem
            elif not name:
                self.problems[name] = "has no name: name it, or leave it out with --drop ''"
        self.leave_out_index(pa.RecordBatch.from_arrays(columns, names=list(self.kinds)))

    def _kind(self, values: list[Any], column: Any) -> tuple[str, str | None]:
        types = {type(value) for value in values if value is not None}
        if column.null_count == len(column):
            why = f"has no value in its first {len(column)} rows: say its --kind (NAME=numeric, for instance), or"
            return "categorical", f"{why} --drop it"
        if types <= {bool}:
            return "boolean", None
        if types <= {bool, int, float}:
            return "numeric", None
        if any(issubclass(t, datetime.date | datetime.time | datetime.timedelta) for t in types):
            return "categorical", "holds dates or times, which are no features: leave it out with --drop"
        if types & {list, dict}:
            return "categorical", "holds lists or objects, which are no features: leave it out with --drop"
        # numbers among texts are what a spreadsheet has by mistake
        return self.judge_texts(column, self.texts_are_typed and types == {str})


def _text(value: Any) -> str | None:
    """Return a value of a column of texts."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)
