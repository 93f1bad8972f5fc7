"""Batches of a file -> blocks of codes, a float64 column each: what the coder of columns takes in one array.

A number is its own code, false and true are 0 and 1, a text is the index of its category; NaN is missing. In training
categories get their numbers as they appear (:class:`Learner`); afterwards they are known (:class:`Coder`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastmlp.preprocessing.frames import LARGEST
from fastmlp.tabular.columns import Categorical, Column, with_spellings
from fastmlp.tabular.errors import DataError, shortened
from fastmlp.tabular.reading import Source


class Learner:
    """Codes of a file whose categories are not known yet.

    `kinds` are the columns to read, the last of which is the target, and their kinds. No column may have more than
    `max_categories` categories, except for the target. ``categories`` has, for each categorical column, the code of
    each text, in the order of appearance.
    """

    def __init__(self, source: Source, kinds: Mapping[str, str], max_categories: int) -> None:
        self.source = source
        self.kinds = dict(kinds)
        self.max_categories = max_categories
        self.categories: dict[str, dict[str, int]] = {n: {} for n, kind in kinds.items() if kind == "categorical"}
        self.target = list(kinds)[-1]
        self._spellings: dict[str, dict[str, int]] = {}

    def follow(self, source: Source) -> None:
        """Read another file from now on, whose texts find the categories of the first in either spelling.

        It may have any number of other texts: they become no features.
        """
        self.source, self.max_categories = source, sys.maxsize
        self._spellings = {name: with_spellings(known) for name, known in self.categories.items()}

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks of codes (n_rows, n_columns).

        A DataError tells of an infinite number, a column of too many categories, or a target that is missing.
        """
        row = 0
        for batch in self.source.batches(self.kinds):
            block = np.empty((batch.num_rows, len(self.kinds)))
            for i, name in enumerate(self.kinds):
                block[:, i] = self._codes(batch.column(i), name)
            check_finite(self.source, block, list(self.kinds), row)
            gaps = np.flatnonzero(np.isnan(block[:, -1]))
            if len(gaps):
                where = f"{self.source.where(row + int(gaps[0]))}, column {self.target!r}"
                raise DataError(f"{where}: the target is missing; leave such rows out of the file")
            yield block
            row += batch.num_rows
        if row == 0:
            raise DataError(f"{self.source.path}: has no rows")

    def _codes(self, array: Any, name: str) -> np.ndarray:
        if name not in self.categories:
            return numbers(array)
        known, spelled = self.categories[name], self._spellings.get(name, {})
        coded = array.dictionary_encode()
        texts = coded.dictionary.to_pylist()
        codes = [spelled[text] if text in spelled else known.setdefault(text, len(known)) for text in texts]
        if name != self.target and len(known) > self.max_categories:
            raise DataError(
                f"{self.source.path}: column {name!r} has more than {self.max_categories} different texts: leave it out"
                f" with --drop {name}, or raise --max-categories"
            )
        return looked_up(numbers(coded.indices), np.array(codes, dtype=float))


class Coder:
    """Codes of a file for columns that training has learned.

    ``unseen`` has, for each categorical column with such texts, the texts that training did not see and their number.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = list(columns)
        self.unseen: dict[str, Counter] = {}

    def blocks(self, source: Source, unknown: str = "ignore") -> Iterator[np.ndarray]:
        """Yield blocks of codes (n_rows, n_columns); unseen texts have codes beyond the categories'.

        Columns are found by name. A DataError tells of a column that the file lacks, a value of another kind, an
        infinite number, or, with unknown="error", a text that training did not see.
        """
        return (block for block, _ in self.blocks_beside(source, {}, unknown))

    def blocks_beside(
        self, source: Source, beside: Mapping[str, str], unknown: str = "ignore"
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield blocks as :meth:`blocks` does, each with the rows' pyarrow.RecordBatch, which has more columns.

        `beside` are these columns and their kinds; a column that the codes need too has the kind that training learned.
        """
        kinds = {column.name: column.kind for column in self.columns}
        read = {**beside, **kinds}
        # what the first rows look like does not matter: the kinds are known
        source.problems.clear()
        source.check(read)
        row = 0
        for batch in source.batches(read):
            block = np.empty((batch.num_rows, len(kinds)))
            for i, column in enumerate(self.columns):
                array = batch.column(column.name)
                block[:, i] = self._codes(array, column) if isinstance(column, Categorical) else numbers(array)
                if unknown == "error" and column.name in self.unseen:
                    at = int(np.flatnonzero(block[:, i] == len(column.categories))[0])  # type: ignore[union-attr]
                    raise DataError(
                        f"{source.where(row + at)}, column {column.name!r}: {shortened(array[at].as_py())}"
                        " is no category that training saw"
                    )
            check_finite(source, block, list(kinds), row)
            yield block, batch
            row += batch.num_rows

    def _codes(self, array: Any, column: Categorical) -> np.ndarray:
        known = column.codes
        coded = array.dictionary_encode()
        texts = coded.dictionary.to_pylist()
        new_code = len(column.categories)
        codes = np.array([known.get(text, new_code) for text in texts], dtype=float)
        indices = numbers(coded.indices)
        if (codes == new_code).any():
            counts = np.bincount(indices[~np.isnan(indices)].astype(np.intp), minlength=len(texts))
            new = {text: int(n) for text, code, n in zip(texts, codes, counts, strict=True) if code == new_code and n}
            self.unseen.setdefault(column.name, Counter()).update(new)
        return looked_up(indices, codes)


def numbers(array: Any) -> np.ndarray:
    """Return a column of numbers or booleans as float64 with NaN for null."""
    import pyarrow as pa

    return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def check_finite(source: Source, block: np.ndarray, names: Sequence[str], row: int) -> None:
    """Refuse infinite and absurdly large numbers in a block that begins after `row` rows."""
    wrong = np.abs(block) >= LARGEST
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        where = f"{source.where(row + int(i))}, column {names[j]!r}"
        raise DataError(f"{where}: {block[i, j]:g} is no number to learn from")


def looked_up(indices: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the codes of a column from its indices into a dictionary, NaN for missing."""
    # the last place of the table is that of a missing value
    return np.append(codes, np.nan)[np.nan_to_num(indices, nan=len(codes)).astype(np.intp)]
