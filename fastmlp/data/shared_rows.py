"""Rows that several processes have, each some of them: how a fit reads them as one table.

::

    each rank's X, y, sample_weight --Rows: validate here, ask the others--> SharedRows, and y and weights of all rows

A row's number in the table is what it would be if all partitions were stacked in their order. X stays where it is. The
targets and weights of all rows, some bytes each, are known to every rank, so splits, class weights and encodings are
those of a fit in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from fastmlp.distributed.communicator import Communicator

Value = TypeVar("Value")


class Partitions:
    """The rows of one rank, if they are several partitions of a table, or not the partition with the rank's number.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        The rows of all partitions that this rank has, one partition after the other.
    lengths : mapping of int to int
        The number of each partition in the table, and how many rows it has, in the order of X. There may be none.

    Raises
    ------
    ValueError
        If the lengths do not add up to the rows of X.

    Examples
    --------
    >>> import numpy as np
    >>> Partitions(np.zeros((5, 2)), {0: 3, 4: 2}).lengths
    {0: 3, 4: 2}
    """

    def __init__(self, X: Any, lengths: Mapping[int, int]) -> None:
        self.X, self.lengths = X, {int(number): int(n) for number, n in lengths.items()}
        if min(self.lengths.values(), default=0) < 0 or sum(self.lengths.values()) != _n_rows(X):
            raise ValueError(f"lengths must add up to the {_n_rows(X)} rows of X, got {self.lengths}")


def _n_rows(X: Any) -> int:
    shape = getattr(X, "shape", None)
    return len(X) if shape is None else int(shape[0])


def of_all(error: Exception) -> Exception:
    """Mark an error that every rank raises by itself, so that none tells the others: these might hear of it first."""
    error.told = True  # type: ignore[attr-defined]
    return error


def agreed(communicator: Communicator, what: str, compute: Callable[[], Value]) -> list[Value]:
    """Compute something on each rank, and return what all ranks came to.

    An error of one rank, a ValueError or TypeError, is raised on all ranks and names the rank.
    """
    mine: tuple[Any, Any] = None, None
    try:
        mine = compute(), None
    except (TypeError, ValueError) as error:
        mine = None, ("TypeError" if isinstance(error, TypeError) else "ValueError", str(error))
    found = communicator.allgather(mine, what)
    for rank, (_, wrong) in enumerate(found):
        if wrong is not None:
            kind, text = wrong
            raise of_all((TypeError if kind == "TypeError" else ValueError)(f"{communicator.name_of(rank)}: {text}"))
    return [value for value, _ in found]


def check_same(communicator: Communicator, what: str, values: Sequence[Any]) -> None:
    """Refuse values of the ranks that differ from the first that there is (None: there is none), by a ValueError."""
    known = [(rank, value) for rank, value in enumerate(values) if value is not None]
    for rank, value in known[1:]:
        first, expected = known[0]
        if value != expected:
            differ = (
                f"{communicator.name_of(rank)} has {what} {value!s:.200}, {communicator.name_of(first)} has"
                f" {expected!s:.200}: it must be the same on all ranks"
            )
            raise of_all(ValueError(differ))


class Layout:
    """Which rank has which rows of a table: the lengths of each rank's partitions, by their numbers in the table."""

    def __init__(self, of_ranks: Sequence[Mapping[int, int]]) -> None:
        pieces = sorted((number, rank, n) for rank, lengths in enumerate(of_ranks) for number, n in lengths.items())
        for (number, rank, _), (other, owner, _) in pairwise(pieces):
            if number == other:
                twice = f"partition {number} is on rank {rank} and on rank {owner}: each must be on one rank"
                raise of_all(ValueError(twice))
        self._starts, self.n_rows = {}, 0
        for number, _, n in pieces:
            self._starts[number] = self.n_rows
            self.n_rows += n
        self._owners = np.array([rank for _, rank, _ in pieces], dtype=np.intp)
        self._ends = np.cumsum([n for _, _, n in pieces], dtype=np.intp)
        self._of_ranks = of_ranks

    def rows_of(self, rank: int) -> np.ndarray:
        """Return the numbers in the table of a rank's rows, in its own order."""
        pieces = [
            np.arange(self._starts[number], self._starts[number] + n, dtype=np.intp)
            for number, n in self._of_ranks[rank].items()
        ]
        return np.concatenate([np.empty(0, dtype=np.intp), *pieces])

    def owners_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the rank of each of these rows of the table."""
        return self._owners[np.searchsorted(self._ends, rows, side="right")]

    def stacked(self, pieces: Sequence[Any]) -> Any:
        """Return an array or sparse matrix of all rows in the order of the table, from each rank's."""
        whole = sparse.vstack(pieces, "csr") if any(map(sparse.issparse, pieces)) else np.concatenate(pieces)
        order = np.concatenate([self.rows_of(rank) for rank in range(len(pieces))])
        if (np.diff(order) == 1).all():
            return whole
        at = np.empty_like(order)
        at[order] = np.arange(len(order))
        return whole[at]


class SharedRows:
    """A matrix X of which each rank has some rows; to training, X.

    Attributes
    ----------
    shape : tuple (n_rows of all ranks, n_features)
    dtype : numpy dtype; None of a frame
    local : {ndarray, CSR} of shape (n_local, n_features), or a table whose columns are not coded yet
        The rows of this rank.
    layout : Layout
    communicator : Communicator
    """

    def __init__(self, communicator: Communicator, layout: Layout, local: Any) -> None:
        self.communicator, self.layout, self.local = communicator, layout, local
        self.shape, self.dtype = (layout.n_rows, local.shape[1]), getattr(local, "dtype", None)
        self.own = layout.rows_of(communicator.rank)  # numbers in the table of the local rows
        self._local_of: np.ndarray | None = None

    def with_local(self, local: Any) -> SharedRows:
        """Return the same rows in another form."""
        return SharedRows(self.communicator, self.layout, local)

    def share(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of these rows of the table this rank has: their places in `rows`, and their local numbers."""
        if self._local_of is None:
            self._local_of = np.full(self.shape[0], -1, dtype=np.intp)
            self._local_of[self.own] = np.arange(len(self.own))
        local = self._local_of[rows]
        at = np.flatnonzero(local >= 0)
        return at, local[at]

    def collected(self, rows: np.ndarray, of_local: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` with what the ranks have computed of these rows of the table.

        `of_local` has a row for each of them that this rank has, in the order of ``share(rows)``.
        """
        owners = self.layout.owners_of(rows)
        for rank, piece in enumerate(self.communicator.allgather(of_local, "what was computed of rows")):
            out[owners == rank] = piece

    def gathered(self, rows: np.ndarray | None) -> Any:
        """Return these rows of the table, or all, on every rank; for a few rows, because X may be large."""
        rows = np.arange(self.shape[0]) if rows is None else rows
        local = self.local[self.share(rows)[1]]
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        self.collected(rows, local.toarray() if sparse.issparse(local) else np.asarray(local), out)
        return out


class _Seen(NamedTuple):
    """What a rank tells of its rows."""

    lengths: dict[int, int]
    features: Any  # their number, or their names; None if there are no rows
    dtype: Any
    y: Any


class Rows:
    """The rows that this rank gives to a fit, before they are validated.

    It takes the place of X, y and sample_weight on their way through :mod:`fastmlp.data.inputs`.
    """

    def __init__(self, communicator: Communicator, X: Any, y: Any, sample_weight: Any) -> None:
        self._communicator, self._y, self._weight = communicator, y, sample_weight
        self._X = X.X if isinstance(X, Partitions) else X
        self._lengths = X.lengths if isinstance(X, Partitions) else None
        self._layout: Any = None
        self._y_here: Any = None

    def validated(
        self, estimator: Any, validate: Callable[[Any, Any], tuple[Any, Any]], any_dtype: bool = False
    ) -> tuple[SharedRows, Any]:
        """Return X and the targets of all rows; `validate` is for the rows of this rank.

        With `any_dtype` X is a table, whose columns have types of their own; otherwise that of all ranks is one.
        A ValueError or TypeError about the rows of one rank, or about ranks whose rows do not go together, is raised on
        all ranks and names the rank.
        """
        communicator, local = self._communicator, []

        def look() -> _Seen:
            n = _n_rows(self._X)
            lengths = {communicator.rank: n} if self._lengths is None else self._lengths
            if n == 0:
                if _n_rows(self._y) != 0:
                    raise ValueError(f"X has no rows, y has {_n_rows(self._y)}")
                return _Seen(lengths, None, None, None)
            X, y = validate(self._X, self._y)
            local.append(X)
            names = getattr(estimator, "feature_names_in_", None)
            dtype = "object" if any_dtype else X.dtype.name
            return _Seen(lengths, X.shape[1] if names is None else names.tolist(), dtype, y)

        found = agreed(communicator, "rows", look)
        features = _of_someone(communicator, "features", [seen.features for seen in found])
        dtype = _of_someone(communicator, "X of dtype", [seen.dtype for seen in found])
        ys = [seen.y for seen in found]
        _of_someone(communicator, "y of kind and shape", [None if y is None else _kind_of(y) for y in ys])
        self._layout = Layout([seen.lengths for seen in found])
        empty = next(y for y in ys if y is not None)[:0]
        self._y_here = empty if ys[communicator.rank] is None else ys[communicator.rank]
        if not local:
            local.append(np.empty((0, _note_features(estimator, features)), dtype))
        y_of_all = self._layout.stacked([empty if y is None else y for y in ys])
        return SharedRows(communicator, self._layout, local[0]), y_of_all

    def weights(self, validate: Callable[[Any, Any], np.ndarray | None], all_zero: bool) -> np.ndarray | None:
        """Return the sample weights of all rows; `validate` takes those of this rank, and its targets.

        A ValueError says that no row of any rank has a weight, unless `all_zero`.
        """

        def look() -> Any:
            if self._y_here.shape[0] == 0:
                return None
            weight = validate(self._weight, self._y_here)
            return "none" if weight is None else weight

        found = agreed(self._communicator, "weights", look)
        given = ["given" if isinstance(weight, np.ndarray) else weight for weight in found]
        if _of_someone(self._communicator, "sample_weight", given) == "none":
            return None
        empty = next(weight for weight in found if isinstance(weight, np.ndarray))[:0]
        weight = self._layout.stacked([empty if weight is None else weight for weight in found])
        if not all_zero and not weight.any():
            nothing = "Sample weights must contain at least one non-zero number."  # scikit-learn's words
            raise of_all(ValueError(nothing))
        return weight


def _of_someone(communicator: Communicator, what: str, values: Sequence[Any]) -> Any:
    """Return the value that all ranks with rows have; a ValueError says that they differ, or that there are no rows."""
    check_same(communicator, what, values)
    known = [value for value in values if value is not None]
    if not known:
        raise of_all(ValueError("no rank has a row"))
    return known[0]


def _kind_of(y: Any) -> tuple[str, tuple[int, ...]]:
    """Return what the targets of all ranks must have in common."""
    kind = y.dtype.kind
    return "numbers" if kind in "biuf" else "texts" if kind in "US" else "objects", y.shape[1:]


def _note_features(estimator: Any, features: Any) -> int:
    """Give an estimator without rows the features of the others; return how many there are."""
    if isinstance(features, list):
        estimator.feature_names_in_ = np.array(features, dtype=object)
    estimator.n_features_in_ = len(features) if isinstance(features, list) else features
    return estimator.n_features_in_
