"""Users' tables -> columns, each of numbers (NaN is missing) or of categories (codes and their values).

pandas, polars and pyarrow are recognised by their modules, which are imported already if X is theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

#: No number of a column is as large; its square is a float still.
LARGEST = 1e150

#: Frames of so many cells may be copied.
SMALL = 1 << 16

#: Types of pandas' missing values.
NOTHING = ("NAType", "NaTType")

#: A value of a category.
Value = str | int | float


class Factors(NamedTuple):
    """A column of categories."""

    codes: np.ndarray  # (n_rows,), places in `values`, -1 for missing
    values: list[Any]  # without repetition


@dataclass
class Numbers:
    """A column of numbers or booleans."""

    label: str  # how errors name the column
    values: np.ndarray  # (n_rows,) of any numeric dtype, NaN for missing
    is_categorical = False

    def numbers(self) -> np.ndarray:
        """Return the values (n_rows,), NaN for missing."""
        return self.values

    @cached_property
    def factors(self) -> Factors:
        """The column as categories, in their order."""
        known = ~np.isnan(self.values) if self.values.dtype.kind == "f" else np.ones(len(self.values), bool)
        codes = np.full(len(self.values), -1, np.intp)
        values, codes[known] = np.unique(self.values[known], return_inverse=True)
        if len(values) and not np.abs(values[[0, -1]]).max() < np.inf:
            raise ValueError(f"column {self.label} of X: Input X contains infinity among its categories")
        return Factors(codes, values.tolist())

    def codes(self, known: Mapping[Value, int]) -> np.ndarray:
        """Return the code of each row, -1 for missing, ``len(known)`` for a category that is not known."""
        return _looked_up(self.factors, known, self.label)


@dataclass
class Categories:
    """A column of texts, or of anything that a frame says is categorical."""

    label: str
    read: Callable[[], Factors]
    is_categorical = True

    @cached_property
    def factors(self) -> Factors:
        """The column as categories, in no particular order; a TypeError refuses what are no texts or numbers."""
        codes, values = self.read()
        plain = [_plain(value) for value in values]
        if len({isinstance(value, str) for value in plain}) > 1 or not all(
            isinstance(value, str | int | float) for value in plain
        ):
            types = {value.name if isinstance(value, Refused) else type(value).__name__ for value in plain}
            got = ", ".join(sorted(types))
            raise TypeError(f"column {self.label} of X: argument must be uniformly strings or numbers, got {got}")
        for value in plain:
            if isinstance(value, float) and not abs(value) < np.inf:
                raise ValueError(f"column {self.label} of X: Input X contains infinity among its categories")
        return Factors(codes, plain)

    def numbers(self) -> np.ndarray:
        """Return the categories as numbers; a ValueError says that they are texts."""
        codes, values = self.factors
        texts = [value for value in values if isinstance(value, str)]
        if texts:
            raise ValueError(
                f"could not convert string to float: {texts[0]!r} in column {self.label} of X, which is used as numbers"
            )
        return np.array([*values, np.nan], float)[codes]

    def codes(self, known: Mapping[Value, int]) -> np.ndarray:
        """Return the code of each row, -1 for missing, ``len(known)`` for a category that is not known."""
        return _looked_up(self.factors, known, self.label)


@dataclass
class Codes:
    """A column whose codes are known: what files are read into."""

    label: str
    values: np.ndarray  # (n_rows,), floats: NaN for missing, len(known) for a category that is not known
    is_categorical = True

    def numbers(self) -> np.ndarray:
        """Return the codes as they are."""
        return self.values

    def codes(self, known: Mapping[Value, int]) -> np.ndarray:
        """Return the code of each row, -1 for missing."""
        return np.nan_to_num(self.values, nan=-1.0).astype(np.intp)


Column = Numbers | Categories | Codes


@dataclass
class Table:
    """The columns of X."""

    n_rows: int
    names: list[str] | None  # None without names
    n_columns: int
    column: Callable[[int], Column]
    matrix: np.ndarray | None = None  # all columns, if they are an array of numbers
    order: Sequence[int] | None = None  # the places of the columns that are asked for, if not their own
    _read: dict[int, Column] = field(default_factory=dict)

    def __getitem__(self, i: int) -> Column:
        """Return a column."""
        if i not in self._read:
            self._read[i] = self.column(i if self.order is None else self.order[i])
        return self._read[i]

    def label(self, i: int) -> str:
        """Return how errors name a column."""
        i = i if self.order is None else self.order[i]
        return label_of(self.names, i)


def table_of(X: Any) -> Table:
    """Return the columns of an array, a frame or a table, with scikit-learn's errors for what is none.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.preprocessing.frames import table_of
    >>> table = table_of(np.array([["red", 1.5], [None, 2]], dtype=object))
    >>> table[0].factors.values, table[1].numbers()
    (['red'], array([1.5, 2. ]))
    """
    if isinstance(X, np.ndarray):
        return _numpy(X)
    if hasattr(X, "tocsr"):
        raise TypeError("Sparse data was passed for X, but dense data is required. Use '.toarray()' to convert it.")
    libraries = {cls.__module__.partition(".")[0] for cls in type(X).__mro__}  # a GeoDataFrame is a frame of pandas
    if "pandas" in libraries and hasattr(X, "iloc") and hasattr(X, "columns"):
        return _pandas(X)
    if "polars" in libraries and hasattr(X, "collect"):
        raise TypeError("X is a LazyFrame of polars: collect it first, X.collect()")
    if "polars" in libraries and hasattr(X, "get_columns"):
        return _polars(X)
    if "pyarrow" in libraries and hasattr(X, "schema"):
        return _arrow(X)
    if hasattr(X, "__arrow_c_stream__") and not libraries & {"pandas", "polars", "pyarrow"}:
        import pyarrow

        return _arrow(pyarrow.table(X))
    return _numpy(_array(X))


def _array(X: Any) -> np.ndarray:
    """Return anything else as an array; texts beside numbers stay what they are."""
    array = np.asarray(X)
    return np.asarray(X, dtype=object) if array.dtype.kind in "US" and not isinstance(X, np.ndarray) else array


def label_of(names: Sequence[str] | None, i: int) -> str:
    """Return how errors name a column: by its name, or by its place if columns have none."""
    return f"{i}" if names is None else f"{names[i]!r}"


def _checked(n_rows: int, n_columns: int) -> None:
    """Refuse tables without rows or columns."""
    shape = f"shape=({n_rows}, {n_columns})"
    if n_rows < 1:
        raise ValueError(f"Found array with 0 sample(s) ({shape}) while a minimum of 1 is required.")
    if n_columns < 1:
        raise ValueError(f"Found array with 0 feature(s) ({shape}) while a minimum of 1 is required.")


# --- NumPy ------------------------------------------------------------------------------------------------------------


def _numpy(X: np.ndarray) -> Table:
    if X.ndim != 2:
        advice = (
            "Reshape your data either using array.reshape(-1, 1) if your data has a single feature or "
            "array.reshape(1, -1) if it contains a single sample."
        )
        what = "scalar array" if X.ndim == 0 else f"{X.ndim}D array"
        raise ValueError(f"Expected 2D array, got {what} instead.\n{advice}")
    _checked(*X.shape)
    kind = X.dtype.kind
    if kind == "c":
        raise ValueError("Complex data not supported")
    if kind not in "biufOUST":
        raise TypeError(f"X is an array of {X.dtype}: convert its values to numbers or texts")
    if isinstance(X, np.ma.MaskedArray):
        numbers = kind in "biuf"
        X = np.ma.filled(X.astype(float if numbers else object), np.nan if numbers else None)

    def column(i: int) -> Column:
        return array_column(f"{i}", X[:, i])

    return Table(len(X), None, X.shape[1], column, X if X.dtype.kind in "biuf" else None)


def array_column(label: str, values: np.ndarray) -> Column:
    """Return an array (n_rows,) of numbers, texts or objects as a column."""
    kind = values.dtype.kind
    if kind in "biuf":
        return Numbers(label, values)
    if kind == "S":
        try:
            values, kind = np.char.decode(values, "utf-8"), "U"
        except UnicodeDecodeError as error:
            raise ValueError(f"column {label} of X has bytes that are no text in UTF-8: {error}") from None
    if kind == "U":
        return Categories(label, lambda: _unique(values))
    return _object_column(label, values if kind == "O" else values.astype(object))


def _unique(values: np.ndarray) -> Factors:
    """Return texts as categories."""
    found, codes = np.unique(values, return_inverse=True)
    return Factors(codes.reshape(-1), found.tolist())


def _object_column(label: str, values: np.ndarray) -> Column:
    """Return objects as numbers if none of them is anything else, otherwise as categories; None is missing."""
    types = set(map(type, values.tolist()))
    if all(_is_missing_type(type_) or issubclass(type_, Real | Decimal | np.bool_) for type_ in types):
        if any(type_.__name__ in NOTHING for type_ in types):  # NumPy knows None alone
            values = np.array([None if _is_missing(value) else value for value in values], object)
        try:
            return Numbers(label, values.astype(float))
        except OverflowError:
            raise ValueError(f"Input X contains infinity or a value too large: an int in column {label}") from None
    return Categories(label, lambda: _factorized(values))


def _is_missing_type(type_: type) -> bool:
    return type_ is type(None) or type_.__name__ in NOTHING


def _is_missing(value: Any) -> bool:
    return value is None or _is_missing_type(type(value)) or (isinstance(value, float) and value != value)


def _factorized(values: np.ndarray) -> Factors:
    """Return objects as categories, in the order of appearance."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and hasattr(pandas, "factorize"):
        try:
            codes, found = pandas.factorize(values)
            return Factors(codes, found.tolist())
        except TypeError:  # something that has no hash, which is refused by name below
            pass
    places: dict[Any, int] = {}
    codes = np.empty(len(values), np.intp)
    for i, value in enumerate(values):
        if not _is_missing(value):
            value = value if isinstance(value, str | Real) else Refused(type(value).__name__)
            codes[i] = places.setdefault(value, len(places))
        else:
            codes[i] = -1
    return Factors(codes, list(places))


@dataclass(frozen=True)
class Refused:
    """A value that is no category, of a type with this name."""

    name: str


def _plain(value: Any) -> Any:
    """Return a category as Python has it: a text or a number; anything else is returned as it is."""
    if isinstance(value, str):
        return str.__str__(value)  # the text of a member of an enumeration, too
    if isinstance(value, Decimal):
        return float(value)
    return value.item() if isinstance(value, np.generic) else value


def _looked_up(factors: Factors, known: Mapping[Value, int], label: str) -> np.ndarray:
    """Return the learned codes of a column; a ValueError says that texts were numbers in training, or the reverse."""
    codes, values = factors
    if values and known and isinstance(values[0], str) != isinstance(next(iter(known)), str):
        now, then = ("texts", "numbers") if isinstance(values[0], str) else ("numbers", "texts")
        raise ValueError(f"column {label} of X: its categories are {now}, they were {then} during fit")
    new = len(known)
    return np.array([*(known.get(value, new) for value in values), -1], np.intp)[codes]


# --- frames -----------------------------------------------------------------------------------------------------------


def checked_names(names: list[Any]) -> list[str] | None:
    """Return the names of columns, None if none is a text; a TypeError says that only some are."""
    if all(type(name) is str for name in names):
        return names
    if not any(isinstance(name, str) for name in names):
        return None
    types = sorted({type(name).__name__ for name in names})
    raise TypeError(
        "Feature names are only supported if all input features have string names, "
        f"but your input has {types} as feature name / column name types. If you want feature names to be stored and "
        "validated, you must convert them all to strings, by using X.columns = X.columns.astype(str) for example."
    )


def _refused(label: str, dtype: Any) -> TypeError:
    return TypeError(
        f"column {label} of X has the dtype {dtype}, which is neither numbers nor categories: convert it, for instance "
        "dates to numbers of days, or leave it out"
    )


def _pandas(X: Any) -> Table:
    names = checked_names(X.columns.tolist())
    _checked(*X.shape)
    series: list[Any] = []

    def column(i: int) -> Column:
        series[:] = series or [each for _, each in X.items()]
        return _pandas_column(label_of(names, i), series[i])

    return Table(len(X), names, X.shape[1], column, _pandas_matrix(X))


def _pandas_matrix(X: Any) -> np.ndarray | None:
    """Return a frame of plain numbers as an array, if that takes no copy or a small one."""
    dtypes = set(X.dtypes.to_numpy())
    if not all(isinstance(dtype, np.dtype) and dtype.kind in "iuf" for dtype in dtypes):
        return None
    return X.to_numpy() if X.size <= SMALL or len(dtypes) == 1 else None


def _pandas_column(label: str, series: Any) -> Column:
    dtype = series.dtype
    if hasattr(dtype, "categories"):
        return Categories(label, lambda: Factors(series.array.codes, series.array.categories.tolist()))
    kind = getattr(dtype, "kind", "O")
    if kind in "biuf":
        if isinstance(dtype, np.dtype):
            return Numbers(label, series.to_numpy())
        return Numbers(label, series.to_numpy(dtype=float, na_value=np.nan))
    if isinstance(dtype, np.dtype) and kind == "O":
        return array_column(label, series.to_numpy())
    arrow = getattr(dtype, "pyarrow_dtype", None)
    if arrow is not None:
        return _arrow_column(label, series.array.__arrow_array__(), arrow)
    if getattr(dtype, "name", "") in ("string", "str"):
        return Categories(label, lambda: _pandas_texts(series))
    raise _refused(label, dtype)


def _pandas_texts(series: Any) -> Factors:
    codes, values = series.array.factorize()
    return Factors(codes, values.tolist())


def _polars(X: Any) -> Table:
    _checked(*X.shape)
    return Table(X.height, X.columns, X.width, lambda i: _polars_column(label_of(X.columns, i), X.to_series(i)))


def _polars_column(label: str, series: Any) -> Column:
    import polars

    dtype = series.dtype
    if dtype in (polars.Categorical, polars.Enum, polars.String):
        return Categories(label, lambda: _polars_texts(series.cast(polars.String)))
    if dtype.is_float() or dtype.is_integer():
        return Numbers(label, series.to_numpy())
    if dtype in (polars.Boolean, polars.Null) or dtype.is_decimal():
        return Numbers(label, series.cast(polars.Float64).to_numpy())
    if dtype == polars.Object:
        return array_column(label, np.array(series.to_list(), dtype=object))
    raise _refused(label, dtype)


def _polars_texts(series: Any) -> Factors:
    import polars

    found = series.drop_nulls().unique(maintain_order=True)
    codes = series.cast(polars.Enum(found)).to_physical().cast(polars.Int64).fill_null(-1)
    return Factors(codes.to_numpy(), found.to_list())


def _arrow(X: Any) -> Table:
    names = list(X.schema.names)
    _checked(X.num_rows, len(names))
    types = X.schema.types

    def column(i: int) -> Column:
        return _arrow_column(label_of(names, i), X.column(i), types[i])

    return Table(X.num_rows, names, len(names), column)


def _arrow_column(label: str, array: Any, dtype: Any) -> Column:
    import pyarrow
    from pyarrow import types

    texts = (types.is_string, types.is_large_string, types.is_string_view)
    if types.is_dictionary(dtype) or any(is_text(dtype) for is_text in texts):
        return Categories(label, lambda: _arrow_factors(array))
    if types.is_integer(dtype) or types.is_floating(dtype):
        return Numbers(label, array.to_numpy() if _has_chunks(array) else array.to_numpy(zero_copy_only=False))
    if types.is_boolean(dtype) or types.is_null(dtype) or types.is_decimal(dtype):
        floats = array.cast(pyarrow.float64())
        return Numbers(label, floats.to_numpy() if _has_chunks(floats) else floats.to_numpy(zero_copy_only=False))
    raise _refused(label, dtype)


def _has_chunks(array: Any) -> bool:
    return hasattr(array, "num_chunks")


def _arrow_factors(array: Any) -> Factors:
    import pyarrow

    if _has_chunks(array):
        array = array.unify_dictionaries() if pyarrow.types.is_dictionary(array.type) else array
        array = array.combine_chunks()
        array = array if not _has_chunks(array) else pyarrow.concat_arrays(array.chunks)
    coded = array if pyarrow.types.is_dictionary(array.type) else array.dictionary_encode()
    codes = coded.indices.cast(pyarrow.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return _without_gaps(codes, coded.dictionary.to_pylist())


def _without_gaps(codes: np.ndarray, values: list[Any]) -> Factors:
    """Return categories of which one may be missing, or be there twice, as categories of which none is."""
    places: dict[Any, int] = {}
    to = [-1 if _is_missing(value) else places.setdefault(value, len(places)) for value in values]
    return Factors(np.array([*to, -1], np.intp)[codes], list(places))
