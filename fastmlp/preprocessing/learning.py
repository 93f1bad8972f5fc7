"""From the training rows of a column to what is kept of it; and which columns are categorical at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastmlp.preprocessing import statistics
from fastmlp.preprocessing.frames import LARGEST, Factors, Table, Value
from fastmlp.preprocessing.learned import UNSCALED, Categorical, Numeric
from fastmlp.preprocessing.statistics import Scale

#: Noise that makes numbers different before their quantiles are taken, in standard deviations of the column.
NOISE = 1e-5


class Wanted(NamedTuple):
    """What columns become: options of the coder."""

    scaling: str | None
    one_hot_limit: int | None
    n_bins: int  # 0 without a piecewise embedding

    @property
    def is_robust(self) -> bool:
        """Whether every number made is scaled by quartiles and clipped, and two categories make one number."""
        return self.scaling == "robust_smooth_clip"


def categorical_mask(table: Table, wanted: Any) -> np.ndarray:
    """Return which columns are categorical (n_columns,) by a `categorical_features`, with scikit-learn's errors."""
    n = table.n_columns
    if wanted is None:
        return np.zeros(n, bool)
    if isinstance(wanted, str) and wanted == "from_dtype":
        if table.matrix is not None:
            return np.zeros(n, bool)
        return np.array([table[i].is_categorical for i in range(n)])
    given = np.asarray(wanted)
    if given.size == 0:
        return np.zeros(n, bool)
    kind = given.dtype.kind
    types = {type(value) for value in given.reshape(-1).tolist()} if kind == "O" else set()
    if kind not in "ibUO" or given.ndim != 1 or types - {str}:
        got = ", ".join(sorted(type_.__name__ for type_ in types)) or str(given.dtype.name)
        raise ValueError(f"categorical_features must be an array-like of bool, int or str, got: {got}.")
    if kind in "UO":
        given = _places(table, given.tolist())
    elif kind == "i" and (given.max() >= n or given.min() < 0):
        raise ValueError("categorical_features set as integer indices must be in [0, n_features - 1]")
    elif kind == "b" and given.shape[0] != n:
        raise ValueError(
            "categorical_features set as a boolean mask must have shape (n_features,), got: " + str(given.shape)
        )
    mask = np.zeros(n, bool)
    mask[given] = True
    return mask


def _places(table: Table, names: list[str]) -> np.ndarray:
    if table.names is None:
        raise ValueError(
            "categorical_features should be passed as an array of integers or as a boolean mask when the model is "
            "fitted on data without feature names."
        )
    for name in names:
        if name not in table.names:
            raise ValueError(
                f"categorical_features has an item value '{name}' which is not a valid feature name of the training "
                f"data. Observed feature names: {table.names}"
            )
    return np.array([table.names.index(name) for name in names])


def refuse(label: str, values: np.ndarray) -> None:
    """Raise a ValueError about the first number that is infinite or too large, if there is one."""
    wrong = np.flatnonzero(np.abs(values) >= LARGEST)
    if len(wrong):
        raise ValueError(
            f"Input X contains infinity or a value too large: {values[wrong[0]]:g} in column {label}; numbers must be "
            f"less than {LARGEST:g} in magnitude"
        )


def check_columns(table: Table) -> None:
    """Refuse columns that are neither numbers nor categories, and infinite numbers, whatever columns become."""
    for i in range(table.n_columns):
        column = table[i]
        if column.is_categorical:
            continue
        values = column.numbers()
        if values.dtype.kind == "f" and np.isinf(values).any():
            raise ValueError(f"Input X contains infinity in column {table.label(i)}")


def n_draws(wanted: Wanted, n_known: int, varies: bool) -> int:
    """Return how many normal numbers :func:`learned_numbers` draws for a column of so many numbers."""
    return n_known if varies and wanted.scaling == "quantile_normal" else 0


def learned_numbers(label: str, values: np.ndarray, wanted: Wanted, draws: np.random.RandomState) -> Numeric:
    """Return what is kept of a column of numbers (n_rows,), NaN for missing, of the training rows."""
    values = np.asarray(values, float)
    missing = np.isnan(values)
    n_missing, n = int(missing.sum()), len(values)
    known = values[~missing] if n_missing else values
    if not len(known):
        return Numeric(0.0, Scale(0.0, 0.0))
    refuse(label, known)
    fill, indicator = float(np.median(known)), None
    if n_missing:
        counts = np.array([n_missing])
        indicator = statistics.robust_of_counts(counts, n)[0] if wanted.is_robust else UNSCALED
        values = np.where(missing, fill, values)
    low, high = float(known.min()), float(known.max())
    if low == high:
        return Numeric(fill, Scale(fill, 0.0), indicator)
    quantiles = np.array([])
    scale = UNSCALED
    if wanted.is_robust:
        scale = statistics.robust(np.quantile(known, statistics.QUARTILES), low, high)
    elif wanted.scaling == "standard":
        scale = statistics.standard(values)
    elif wanted.scaling == "quantile_normal":
        noise = draws.standard_normal(n_draws(wanted, len(known), varies=True)) * (NOISE * known.std())
        quantiles = statistics.normal_quantiles(known + noise, n)
    if not wanted.n_bins:
        return Numeric(fill, scale, indicator, tuple(quantiles.tolist()))
    made = (
        statistics.normal(values, quantiles) if len(quantiles) else statistics.scaled(values, scale, wanted.is_robust)
    )
    bins = statistics.piecewise_bins(made, wanted.n_bins)
    if len(bins) < 2:
        return Numeric(fill, Scale(fill, 0.0), indicator)
    return Numeric(fill, scale, indicator, tuple(quantiles.tolist()), tuple(bins.tolist()))


def counts_of(factors: Factors, rows: np.ndarray | slice) -> dict[Value, int]:
    """Return how many of the training rows have each category that any of them has."""
    codes = factors.codes[rows]
    counts = np.bincount(codes[codes >= 0], minlength=len(factors.values))
    found: dict[Value, int] = {}
    for value, count in zip(factors.values, counts.tolist(), strict=True):
        if count:
            found[value] = found.get(value, 0) + count  # two decimals may be one float
    return found


def learned_categories(counts: Mapping[Value, int], n_rows: int, wanted: Wanted) -> Categorical:
    """Return what is kept of a column of categories, of which so many of the training rows have each."""
    seen = sorted(counts.items())
    categories = tuple(value for value, _ in seen)
    if wanted.one_hot_limit is not None and len(categories) + 1 > wanted.one_hot_limit:
        return Categorical(categories, "embedding")
    if not wanted.is_robust:
        return Categorical(categories, "one_hot")
    times = np.array([count for _, count in seen], np.int64)
    if len(categories) == 2:
        return Categorical(categories, "sign", (statistics.robust_of_signs(times, n_rows),))
    return Categorical(categories, "one_hot", tuple(statistics.robust_of_counts(times, n_rows)))
