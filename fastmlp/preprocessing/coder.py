"""The one coder of columns: a table -> the matrix that a network reads, and the blocks that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from fastmlp.kernels.feature_table import Block
from fastmlp.preprocessing import learned, statistics
from fastmlp.preprocessing.frames import LARGEST, Table, table_of
from fastmlp.preprocessing.layout import Layout, Numbers, layout_of, numbers_of, shown
from fastmlp.preprocessing.learned import Categorical, Learned, Numeric
from fastmlp.preprocessing.learning import (
    Wanted,
    categorical_mask,
    counts_of,
    learned_categories,
    learned_numbers,
    refuse,
)

SCALINGS = ("robust_smooth_clip", "quantile_normal", "standard", None)

#: Embedding of numbers -> numbers made per feature.
EMBEDDINGS: dict[str | None, int] = {"periodic": 3, "piecewise": 16, None: 0}

#: Numbers of a block of rows that is worked on at a time; fewest rows of it if columns are taken one by one.
BLOCK, BLOCK_ROWS = 1 << 15, 1 << 11

#: Most categories of which a row of the matrix is kept for each.
MOST_SHOWN = 64

#: Numbers up to here can be divided by any scale and squared.
SQUARED = 1e100

VERSION = 1


class ColumnCoder:
    """Learn from training rows how the columns of a table become numbers, and code any rows in the same way.

    Parameters
    ----------
    categorical_features : "from_dtype", None, or array-like of bool, int or str, default="from_dtype"
        The categorical columns, as in scikit-learn's HistGradientBoostingClassifier: a mask, indices, or names. With
        "from_dtype" these are columns of texts, of objects that are not all numbers, and of dtypes made for categories.
    scaling : {"robust_smooth_clip", "quantile_normal", "standard", None}, default="robust_smooth_clip"
        How numbers are scaled. "robust_smooth_clip" subtracts the median, divides by the distance of the quartiles and
        bounds the result by 3. It does so with the 0 and 1 of categories, too, and gives two categories one column of
        +1 and -1. "quantile_normal" maps a column to a normal distribution. "standard" makes mean 0 and variance 1.
    one_hot_limit : int or None, default=None
        Columns of more categories, counting one for "missing or unknown", become codes for an embedding; None: none.
    embedding_size : int, default=8
        Numbers that the network makes of such a code.
    numeric_embedding : {"periodic", "piecewise", None}, default=None
        The kind of block that reads the numbers.
    numeric_size : int, default=None
        Numbers that this block makes of each; None: 3 of "periodic", 16 of "piecewise".
    frequencies : int, default=16
        Frequencies per number of "periodic".
    n_bins : int, default=48
        Largest number of bins per column of "piecewise".

    Attributes
    ----------
    n_columns : int
        Columns of the matrix.
    blocks : tuple of Block
        What the network makes of the matrix; () if it reads it as it is.
    feature_names : list of str
        The names of the matrix's columns.
    columns : list
        What was learned about each column of X.
    n_features_in_, feature_names_in_
        As in scikit-learn; the second is there if X has names.

    Notes
    -----
    A missing number (NaN, None, NA) becomes the median of the training rows. If this column had missing numbers in
    training rows, another column says with 0 or 1 which are missing. Missing and unknown categories are zeros, or code
    0. A column that is constant in training, or has no value, contributes zeros, or is left out.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.preprocessing.coder import ColumnCoder
    >>> X = np.array([["red", 1.0], ["blue", 2.0], ["green", 3.0], [None, None]], dtype=object)
    >>> coder = ColumnCoder(scaling=None).fit(X)
    >>> coder.feature_names
    ['1', '0=blue', '0=green', '0=red', '1 is missing']
    >>> coder.transform(X)
    array([[1., 0., 0., 1., 0.],
           [2., 1., 0., 0., 0.],
           [3., 0., 1., 0., 0.],
           [2., 0., 0., 0., 1.]], dtype=float32)
    """

    def __init__(
        self,
        *,
        categorical_features: Any = "from_dtype",
        scaling: str | None = "robust_smooth_clip",
        one_hot_limit: int | None = None,
        embedding_size: int = 8,
        numeric_embedding: str | None = None,
        numeric_size: int | None = None,
        frequencies: int = 16,
        n_bins: int = 48,
    ) -> None:
        _check_choice("scaling", scaling, SCALINGS)
        _check_choice("numeric_embedding", numeric_embedding, tuple(EMBEDDINGS))
        counts = {"embedding_size": embedding_size, "frequencies": frequencies, "n_bins": n_bins}
        optional = {"one_hot_limit": one_hot_limit, "numeric_size": numeric_size}
        for name, value in {**counts, **{name: n for name, n in optional.items() if n is not None}}.items():
            _check_count(name, value)
        self.categorical_features = categorical_features
        self.scaling = scaling
        self.one_hot_limit = one_hot_limit
        self.embedding_size = embedding_size
        self.numeric_embedding = numeric_embedding
        self.numeric_size = numeric_size
        self.frequencies = frequencies
        self.n_bins = n_bins

    # --- fit ----------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, rows: Any = None, random_state: Any = None) -> ColumnCoder:
        """Learn the columns from some rows of a table.

        Parameters
        ----------
        X : array, frame or table of shape (n_samples, n_features)
            Of NumPy, pandas, polars or pyarrow.
        rows : array-like of int, optional
            The training rows, from which alone statistics and categories are taken; all rows by default.
        random_state : int, RandomState or None
            Draws the noise that tells equal numbers apart before "quantile_normal" takes their quantiles.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            About an infinite number, a text among numbers, or options that do not fit X.
        TypeError
            About a column that is neither numbers nor categories, for instance one of dates.
        """
        from sklearn.utils import check_random_state

        table = table_of(X)
        mask = categorical_mask(table, self.categorical_features)
        chosen = _rows(rows, table.n_rows)
        draws, wanted = check_random_state(random_state), self.wanted
        n_rows = table.n_rows if rows is None else len(chosen)
        columns: list[Learned] = []
        for i in range(table.n_columns):
            if mask[i]:
                counts = counts_of(table[i].factors, chosen)  # type: ignore[union-attr]
                columns.append(learned_categories(counts, n_rows, wanted))
            else:
                columns.append(learned_numbers(table.label(i), table[i].numbers()[chosen], wanted, draws))
        self.take(columns, table.names)
        return self

    @property
    def wanted(self) -> Wanted:
        """What columns become."""
        return Wanted(self.scaling, self.one_hot_limit, self.n_bins if self.numeric_embedding == "piecewise" else 0)

    def take(self, columns: list[Learned], names: list[str] | None) -> None:
        """Take what was learned; what follows from it is made when it is needed."""
        self.columns = columns
        self._names = names
        self.n_features_in_ = len(columns)
        for made in ("layout", "numbers", "_known"):
            self.__dict__.pop(made, None)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: not what follows from the rest."""
        return {name: value for name, value in vars(self).items() if name not in ("layout", "numbers", "_known")}

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns of X, if it had any."""
        if getattr(self, "_names", None) is None:
            raise AttributeError("'ColumnCoder' object has no attribute 'feature_names_in_'")
        return np.asarray(self._names, dtype=object)

    @property
    def n_columns(self) -> int:
        """Number of columns of the matrix."""
        return self.layout.n_columns

    @property
    def blocks(self) -> tuple[Block, ...]:
        """What the network makes of the matrix; () if it reads it as it is."""
        return self.layout.blocks

    @property
    def feature_names(self) -> list[str]:
        """Names of the matrix's columns."""
        return list(self.layout.names)

    @cached_property
    def layout(self) -> Layout:
        """Which column of the matrix holds what."""
        labels = [str(i) for i in range(self.n_features_in_)] if self._names is None else self._names
        numeric = None
        if self.numeric_embedding is not None:
            frequencies = self.frequencies if self.numeric_embedding == "periodic" else 0
            size = self.numeric_size or EMBEDDINGS[self.numeric_embedding]
            numeric = Block(self.numeric_embedding, (), size, (), frequencies)
        return layout_of(
            self.columns, labels, scaling=self.scaling, numeric=numeric, embedding_size=self.embedding_size
        )

    @cached_property
    def numbers(self) -> Numbers:
        """The constants of the numeric columns of the matrix."""
        return numbers_of([self.columns[i] for i in self.layout.numeric])  # type: ignore[misc]

    @cached_property
    def _known(self) -> dict[int, tuple[dict[Any, int], np.ndarray, np.ndarray, np.ndarray | None]]:
        """For each categorical column: the codes of its categories, what they look like off and on, and all rows."""
        clip = self.scaling == "robust_smooth_clip"
        known = {}
        for i, column in enumerate(self.columns):
            if isinstance(column, Categorical):
                off, on = shown(column, clip)
                known[i] = (column.codes, off, on, _shown_rows(column, off, on))
        return known

    # --- transform ----------------------------------------------------------------------------------------------------

    def transform(self, X: Any, dtype: Any = np.float32, rows: Any = None) -> np.ndarray:
        """Return the matrix (n_rows, n_columns) of a table, in C order.

        Parameters
        ----------
        X : array, frame or table of shape (n_samples, n_features)
            Columns of frames are found by name, in any order; those of arrays by place.
        dtype : {float32, float64}
            That of the network.
        rows : array-like of int, optional
            The rows wanted; all by default.

        Raises
        ------
        ValueError
            About a missing or another column, an infinite number, or a text where training had numbers.
        TypeError
            About a column that is neither numbers nor categories.
        """
        if not hasattr(self, "columns"):
            raise AttributeError("this ColumnCoder is not fitted yet: call fit first")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        return self.coded(self._matched(table_of(X)), dtype, rows)

    def coded(self, table: Table, dtype: Any, rows: Any = None) -> np.ndarray:
        """Return the matrix (n_rows, n_columns) of a table whose columns are in the order of training."""
        chosen = None if rows is None else _rows(rows, table.n_rows)
        n = table.n_rows if chosen is None else len(chosen)
        layout = self.layout
        out = (np.zeros if layout.is_empty else np.empty)((n, layout.n_columns), dtype)
        self._write_numbers(table, chosen, out)
        for i, at in layout.categories.items():
            self._write_categories(table, i, at, chosen, out)
        return out

    def _matched(self, table: Table) -> Table:
        """Return a table with its columns in the order of training; a ValueError says that they are others."""
        if table.names is None or self._names is None:
            if table.n_columns != self.n_features_in_:
                raise ValueError(
                    f"X has {table.n_columns} features, but ColumnCoder is expecting {self.n_features_in_} features "
                    "as input."
                )
        elif table.names != self._names:
            places = {name: i for i, name in enumerate(table.names)}
            unseen = sorted(places.keys() - set(self._names))
            missing = sorted(set(self._names) - places.keys())
            if unseen or missing or table.n_columns != self.n_features_in_:
                raise ValueError(_mismatch(unseen, missing))
            table.order = [places[name] for name in self._names]
        return table

    def _write_numbers(self, table: Table, rows: np.ndarray | None, out: np.ndarray) -> None:
        """Write all columns of numbers, and the indicators, block by block of rows.

        Blocks are (n_columns, n_rows), so formulas run along the rows.
        """
        read = [i for i, column in enumerate(self.columns) if isinstance(column, Numeric)]
        if not read:
            return
        numeric = set(self.layout.numeric)
        kept = [i in numeric for i in read]
        source = _source(table, read)
        step = BLOCK // len(read) + 1
        if self.scaling == "quantile_normal" or self.numeric_embedding == "piecewise":
            step = max(step, BLOCK_ROWS)
        for start in range(0, len(out), step):
            part = out[start : start + step]
            block = np.empty((len(read), len(part)))
            where = slice(start, start + step) if rows is None else rows[start : start + step]
            if isinstance(source, np.ndarray):
                block[...] = source[where].T
            else:
                for k, array in enumerate(source):
                    block[k] = array[where]
            largest = self._fill(table, read, block, part)
            if any(kept):
                self._scale(table, block if all(kept) else block[kept], largest, part)

    def _fill(self, table: Table, read: list[int], block: np.ndarray, out: np.ndarray) -> float:
        """Replace missing numbers in a block (n_read, n), write the indicators, return the largest magnitude."""
        clip, layout = self.scaling == "robust_smooth_clip", self.layout
        gaps, largest = None, max(-block.min(), block.max())
        if not largest < LARGEST:  # NaN is not
            for i, numbers in zip(read, block, strict=True):
                refuse(table.label(i), numbers)
            gaps = np.isnan(block)
            fill = [column.fill for column in self.columns if isinstance(column, Numeric)]
            np.copyto(block, np.array(fill)[:, None], where=gaps)
            largest = LARGEST
        for i, at in layout.indicators.items():
            off, on = statistics.scaled(np.array([0.0, 1.0]), self.columns[i].indicator, clip)  # type: ignore
            out[:, at] = off if gaps is None else np.where(gaps[read.index(i)], on, off)
        return largest

    def _scale(self, table: Table, block: np.ndarray, largest: float, out: np.ndarray) -> None:
        """Write a block of the matrix's numbers (n_numbers, n), scaled, and their places among the bins."""
        layout, numbers = self.layout, self.numbers
        target = out[:, layout.first_number : layout.first_number + len(block)]
        if self.scaling == "robust_smooth_clip":
            if max(largest, numbers.farthest) > SQUARED:
                np.clip(block, numbers.low, numbers.high, out=block)
            block -= numbers.center
            block /= numbers.scale
            statistics.smooth_clip(block, block)
        elif self.scaling == "quantile_normal":
            for k, quantiles in enumerate(numbers.quantiles):
                block[k] = statistics.normal(block[k], quantiles)
        elif self.scaling == "standard":
            block -= numbers.center
            block /= numbers.scale
        if self.scaling in ("robust_smooth_clip", "quantile_normal"):
            target[...] = block.T
        else:
            self._write_unbounded(table, block, target)
        if layout.first_place is not None:
            for k, bins in enumerate(numbers.bins):
                out[:, layout.first_place + k] = statistics.places(block[k], bins)

    def _write_unbounded(self, table: Table, block: np.ndarray, target: np.ndarray) -> None:
        """Write numbers of any size; refuse what the dtype of the matrix cannot hold."""
        with np.errstate(over="ignore"):
            target[...] = block.T
        if not np.isfinite(target).all():
            k = int(np.flatnonzero(~np.isfinite(target).all(axis=0))[0])
            raise ValueError(
                f"Input X contains infinity or a value too large for dtype('{target.dtype}'), in column "
                f"{table.label(self.layout.numeric[k])}"
            )

    def _write_categories(self, table: Table, i: int, at: int, rows: np.ndarray | None, out: np.ndarray) -> None:
        """Write what a column of categories makes."""
        column = self.columns[i]
        assert isinstance(column, Categorical)
        known, off, on, shown_rows = self._known[i]
        n = len(known)
        codes = table[i].codes(known)
        codes = codes if rows is None else codes[rows]
        if shown_rows is not None:
            out[:, at : at + shown_rows.shape[1]] = shown_rows.take(codes, axis=0)
            return
        if column.most_frequent is not None:
            codes = np.where(codes == -1, column.most_frequent, codes)
        out[:, at : at + n] = off
        there = np.flatnonzero((codes >= 0) & (codes < n))
        out[there, at + codes[there]] = on[codes[there]]

    # --- plain values -------------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Return all of a fitted coder as lists, numbers and texts, as JSON has them.

        Examples
        --------
        >>> import json
        >>> from fastmlp.preprocessing.coder import ColumnCoder
        >>> coder = ColumnCoder().fit([[1.0], [2.0], [4.0]])
        >>> text = json.dumps(coder.to_state())
        >>> ColumnCoder.from_state(json.loads(text)).transform([[4.0]]).round(3)
        array([[1.218]], dtype=float32)
        """
        given = self.categorical_features
        if not (given is None or isinstance(given, str)):
            given = np.asarray(given).tolist()
        options = {name: getattr(self, name) for name in _OPTIONS} | {"categorical_features": given}
        return {
            "version": VERSION,
            "options": options,
            "names": self._names,
            "columns": learned.to_state(self.columns),
        }

    @classmethod
    def from_state(cls, state: Any) -> ColumnCoder:
        """Return the fitted coder that :meth:`to_state` described; a ValueError names what is wrong."""
        if not isinstance(state, Mapping) or set(state) != {"version", "options", "names", "columns"}:
            raise ValueError("the state of a coder must have the entries columns, names, options, version")
        if state["version"] != VERSION:
            raise ValueError(f"the version of a coder must be {VERSION}, not {str(state['version'])[:40]!r}")
        options = state["options"]
        if not isinstance(options, Mapping) or set(options) != set(_OPTIONS):
            raise ValueError(f"options must have the entries {', '.join(sorted(_OPTIONS))}")
        columns, names = learned.from_state(state["columns"]), state["names"]
        if names is not None:
            texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
            if not texts or len(names) != len(columns):
                raise ValueError("names must be None, or a text for each column")
        return cls.of_columns(columns, names, **options)

    @classmethod
    def of_columns(cls, columns: Sequence[Learned], names: Sequence[str] | None, **options: Any) -> ColumnCoder:
        """Return a fitted coder of columns that are known; a ValueError says that one contradicts the options."""
        coder = cls(**options)
        for i, column in enumerate(columns):
            wrong = coder._contradiction(column)
            if wrong:
                raise ValueError(f"columns[{i}].{wrong}")
        coder.take(list(columns), None if names is None else list(names))
        return coder

    def _contradiction(self, column: Learned) -> str:
        """Return what of a column contradicts the options, "" if nothing does."""
        robust, piecewise = self.scaling == "robust_smooth_clip", self.numeric_embedding == "piecewise"
        if isinstance(column, Categorical):
            needs = robust and column.coding != "embedding" and column.width
            return "" if bool(column.scales) == bool(needs) else f"scales contradict scaling={self.scaling!r}"
        varies = column.scale.scale > 0 or bool(column.quantiles)
        if bool(column.quantiles) and self.scaling != "quantile_normal":
            return f"quantiles contradict scaling={self.scaling!r}"
        if self.scaling == "quantile_normal" and column.scale.scale > 0 and not column.quantiles:
            return "quantiles are missing"
        if bool(column.bins) != (piecewise and varies):
            return f"bins contradict numeric_embedding={self.numeric_embedding!r}"
        return ""


_OPTIONS = (
    "categorical_features",
    "scaling",
    "one_hot_limit",
    "embedding_size",
    "numeric_embedding",
    "numeric_size",
    "frequencies",
    "n_bins",
)


def _check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    if not (value is None or isinstance(value, str)) or value not in allowed:
        shown = ", ".join(repr(choice) for choice in allowed)
        raise ValueError(f"{name} must be one of {shown}, got {value!r}")


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an int of 1 or more, got {value!r}")


def _rows(rows: Any, n_rows: int) -> Any:
    """Return the rows that are chosen as an index; all of them for None."""
    if rows is None:
        return slice(None)
    rows = np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
        raise ValueError("rows must be an array of one or more row numbers, or a mask")
    if rows.min() < 0 or rows.max() >= n_rows:
        raise ValueError(f"rows must be in [0, {n_rows - 1}], got {rows.min()} to {rows.max()}")
    return rows


def _shown_rows(column: Categorical, off: np.ndarray, on: np.ndarray) -> np.ndarray | None:
    """Return what a column writes (n_categories + 2, width) for each code, for n_categories (unknown) and -1 (missing).

    None if the column has too many categories: their number squared is kept here.
    """
    n = len(column.codes)
    if column.coding == "embedding":
        rows = np.array([*range(1, n + 1), 0, 0], float)[:, None]
    elif column.coding == "sign":
        rows = on[[0, 1, 2, 2]][:, None]
    elif n > MOST_SHOWN:
        return None
    else:
        rows = np.tile(off, (n + 2, 1))
        np.fill_diagonal(rows[:n], on)
    if column.most_frequent is not None:
        rows[-1] = rows[column.most_frequent]
    return rows


def _source(table: Table, read: list[int]) -> np.ndarray | list[np.ndarray]:
    """Return some numeric columns of a table: an array (n_rows, n_read), or their arrays (n_rows,)."""
    if table.matrix is None:
        return [table[i].numbers() for i in read]
    at = read if table.order is None else [table.order[i] for i in read]
    return table.matrix if at == list(range(table.matrix.shape[1])) else table.matrix[:, at]


def _mismatch(unseen: Sequence[str], missing: Sequence[str]) -> str:
    """Return scikit-learn's message about names that are others than in training."""
    message = "The feature names should match those that were passed during fit.\n"
    for title, names in (
        ("Feature names unseen at fit time", unseen),
        ("Feature names seen at fit time, yet now missing", missing),
    ):
        if names:
            lines = [f"- {name}\n" for name in names[:5]] + ["- ...\n"] * (len(names) > 5)
            message += f"{title}:\n{''.join(lines)}"
    return message if unseen or missing else message + "Feature names must be there once each.\n"
