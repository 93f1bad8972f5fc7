"""A table, all of it here or spread over several processes -> its coder of columns, and its matrix.

::

    each rank: training values of column i --> rank i mod P: what the coder keeps of column i --> all ranks

So one rank learns a column, from all training rows in the order of a fit in one process. It keeps the same values, to
the last bit, whichever rank has which rows. A rank holds one column of the training rows at a time, and sends each
value of its own rows at most once. Of a column of categories it sends how often each occurs.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from fastmlp.data.shared_rows import SharedRows, agreed, check_same
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.preprocessing.frames import Table, label_of, table_of
from fastmlp.preprocessing.learned import Learned
from fastmlp.preprocessing.learning import (
    categorical_mask,
    counts_of,
    learned_categories,
    learned_numbers,
    n_draws,
    refuse,
)


def fitted(coder: ColumnCoder, X: Any, rows: np.ndarray | None, random_state: Any) -> ColumnCoder:
    """Return a coder, fitted to the training rows of a table; all rows by default.

    Parameters
    ----------
    coder : ColumnCoder
    X : table, or SharedRows of a table
    rows : ndarray of intp, or None
    random_state : int, RandomState or None
        The same on all ranks; it moves on as in one process.
    """
    if not isinstance(X, SharedRows):
        return coder.fit(X, rows, random_state)
    columns = _SharedColumns(coder, X, np.arange(X.shape[0], dtype=np.intp) if rows is None else rows)
    coder.take(columns.learned(check_random_state(random_state)), columns.names)
    return coder


def coded(coder: ColumnCoder, X: Any, dtype: np.dtype) -> Any:
    """Return the matrix of a table; if it is spread over processes, the matrix is spread in the same way."""
    if not isinstance(X, SharedRows):
        return coder.transform(X, dtype)
    made = [np.empty((0, coder.n_columns), dtype)]

    def code() -> None:
        if len(X.own):
            made.append(coder.transform(X.local, dtype))

    agreed(X.communicator, "coding of columns", code)
    return X.with_local(made[-1])


class _Numbers(NamedTuple):
    """What a rank tells of its numbers in a column: of those of the training rows that are not missing."""

    n_known: int = 0
    low: float = np.inf
    high: float = -np.inf


class _SharedColumns:
    """The columns of a table of which each rank has some rows; every method is called by all ranks at once."""

    def __init__(self, coder: ColumnCoder, X: SharedRows, rows: np.ndarray) -> None:
        self._coder, self._communicator, self._n_rows = coder, X.communicator, len(rows)
        self._local = X.share(rows)[1]  # local numbers of the training rows, in the order of `rows`
        # places in `rows` of what the ranks send, one rank's after the other's
        self._places = np.argsort(X.layout.owners_of(rows), kind="stable")
        self._table: Table | None = table_of(X.local) if len(X.own) else None
        self._n_columns = X.shape[1]
        self._is_categorical, self.names = self._kinds()

    def _kinds(self) -> tuple[np.ndarray, list[str] | None]:
        """Return which columns are categorical on any rank, and the names of the columns; None without names."""

        def look() -> Any:
            if self._table is None:
                return None
            return categorical_mask(self._table, self._coder.categorical_features), self._table.names

        found = [seen for seen in agreed(self._communicator, "kinds of columns", look) if seen is not None]
        return np.any([mask for mask, _ in found], axis=0), found[0][1]

    def learned(self, draws: np.random.RandomState) -> list[Learned]:
        """Return what is kept of each column."""
        communicator, found = self._communicator, list[Learned]()
        facts = self._checked()
        for first in range(0, self._n_columns, communicator.size):
            columns = range(first, min(first + communicator.size, self._n_columns))
            shares = [self._share(i) for i in columns] + [None] * (communicator.size - len(columns))
            received = communicator.alltoall(shares, "training rows of columns")
            own: Learned | None = None
            for i in columns:
                if i - first == communicator.rank:
                    own = self._learn(i, received, draws)
                elif isinstance(facts[i], _Numbers):  # drawn by the rank that learns it: random states stay alike
                    draws.standard_normal(n_draws(self._coder.wanted, facts[i].n_known, facts[i].low < facts[i].high))
            found += communicator.allgather(own, "what was learned of columns")[: len(columns)]
        return found

    def _checked(self) -> list[Any]:
        """Return what all ranks together know of each column; an error on all ranks says what is wrong on one.

        `_Numbers` of a column of numbers, "texts" or "numbers" of one of categories.
        """
        labels = [label_of(self.names, i) for i in range(self._n_columns)]

        def look() -> list[Any]:
            return [self._fact(i, label) for i, label in enumerate(labels)]

        of_ranks = agreed(self._communicator, "columns", look)
        found: list[Any] = []
        for i, label in enumerate(labels):
            seen = [facts[i] for facts in of_ranks]
            if self._is_categorical[i]:
                check_same(self._communicator, f"in column {label} of X categories that are", seen)
                found.append(next((kind for kind in seen if kind is not None), None))
            else:
                n_known, low, high = zip(*seen, strict=True)
                found.append(_Numbers(sum(n_known), min(low), max(high)))
        return found

    def _fact(self, i: int, label: str) -> Any:
        """Return what this rank knows of a column."""
        if self._is_categorical[i]:
            values = self._table[i].factors.values if self._table else []  # type: ignore[union-attr]
            return None if not values else "texts" if isinstance(values[0], str) else "numbers"
        if self._table is None:
            return _Numbers()
        values = np.asarray(self._table[i].numbers()[self._local], float)
        refuse(label, values)
        known = values[~np.isnan(values)]
        return _Numbers(len(known), float(known.min()), float(known.max())) if len(known) else _Numbers()

    def _share(self, i: int) -> Any:
        """Return what the rank that learns a column needs of this one: numbers, or counts of categories."""
        if self._is_categorical[i]:
            return counts_of(self._table[i].factors, self._local) if self._table else {}  # type: ignore[union-attr]
        return self._table[i].numbers()[self._local] if self._table else np.empty(0)

    def _learn(self, i: int, received: list[Any], draws: np.random.RandomState) -> Learned:
        """Return what is kept of a column, from the shares of all ranks."""
        if self._is_categorical[i]:
            counts: Counter[Any] = Counter()
            for share in received:
                counts.update(share)
            return learned_categories(counts, self._n_rows, self._coder.wanted)
        values = np.empty(self._n_rows)
        values[self._places] = np.concatenate(received)
        return learned_numbers(label_of(self.names, i), values, self._coder.wanted, draws)
