"""What people should know about the columns of a file after it was read: those that are likely to be no features.

Nothing is decided here. A column that counts the rows, or has a different text in nearly every row, may still be what
somebody wants to train on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastmlp.tabular.marks import is_number

#: Share of the rows from which a column has "nearly as many" different texts.
NEARLY = 0.8

#: Fewest rows to judge by.
ENOUGH = 10


class Facts:
    """Statistics of the columns, block by block.

    `kinds` are the columns and their kinds, the target last.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = dict(kinds)
        places = list(enumerate(list(kinds.items())[:-1]))
        self._texts = {name: i for i, (name, kind) in places if kind == "categorical"}
        self._known = dict.fromkeys(self._texts, 0)  # rows with a text
        self._counting = {i: name for i, (name, kind) in places if kind == "numeric"}  # may number the rows
        self._sums = {i: np.zeros(2) for i in self._counting}  # of the values and their squares, from the first value
        self._first: dict[int, float] = {}
        self._range: dict[int, tuple[float, float]] = {}
        self._ordered = set(self._counting)
        self._rows = 0

    def add(self, block: np.ndarray) -> None:
        """Add a block of codes (n_rows, n_columns)."""
        if not len(block):
            return
        for name, i in self._texts.items():
            self._known[name] += int(np.count_nonzero(~np.isnan(block[:, i])))
        for i in list(self._counting):
            if not self._may_count(i, block[:, i]):
                del self._counting[i]
        self._rows += len(block)

    def _may_count(self, i: int, values: np.ndarray) -> bool:
        """Return whether the values of a column so far may be the numbers of the rows, in any order."""
        # most columns end here, at the first value; so do gaps
        if values[0] % 1 != 0 or not (values % 1 == 0).all():
            return False
        first = self._first.setdefault(i, values[0])
        low, high = self._range.get(i, (first, first))
        self._range[i] = low, high = min(low, values.min()), max(high, values.max())
        if i in self._ordered and not (values == first + np.arange(self._rows, self._rows + len(values))).all():
            self._ordered.discard(i)
        offsets = values - first
        self._sums[i] += offsets.sum(), (offsets * offsets).sum()
        return high - low + 1 >= self._rows + len(values)  # or else a number is there twice

    def _numbers_rows(self, i: int) -> bool:
        """Return whether a column has each of n successive whole numbers once, by their sum and sum of squares."""
        low, high = self._range[i]
        if high - low + 1 != self._rows:
            return False
        offsets = np.arange(low, high + 1) - self._first[i]
        return bool(np.allclose(self._sums[i], (offsets.sum(), (offsets * offsets).sum()), rtol=1e-9, atol=0.5))

    def notes(self, categories: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
        """Return a line for each column that people should look at.

        `categories` has the texts of each column.
        """
        if self._rows < ENOUGH:
            return {}
        found = {}
        for name, known in self._known.items():
            texts = categories[name]
            if known < ENOUGH:
                continue
            if all(is_number(text) for text in texts):
                numbers = f"is text, but its {len(texts)} different texts are numbers"
                found[name] = f"{numbers}; --kind {name}=numeric reads them so"
            elif len(texts) >= NEARLY * known:
                many = f"has {len(texts)} different texts in {known} rows, as names and free text have"
                found[name] = f"{many}; --drop {name} leaves it out"
        for i, name in self._counting.items():
            if self._numbers_rows(i):
                order = "in order" if i in self._ordered else "in another order"
                found[name] = f"numbers the rows, {order}; --drop {name} leaves it out"
        return found
