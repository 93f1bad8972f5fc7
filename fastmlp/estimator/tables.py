"""Users' tables, of NumPy, pandas, polars or pyarrow, validated by scikit-learn's rules; columns stay as they are."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.validation import validate_data

from fastmlp.data import device_arrays
from fastmlp.data.shared_rows import Rows
from fastmlp.sklearn_compat import _check_y


def validated(estimator: Any, X: Any, reset: bool) -> Any:
    """Return a table: a frame as it is, anything else as an array of two dimensions, with NaN where it is missing.

    `reset` says whether it tells the features.  Errors are scikit-learn's, also those about other features than before.
    """
    if not reset and _has_features_of_fit(estimator, X):
        return X
    if _is_frame(X):
        n_rows, n_columns = X.shape
        for n, what in ((n_rows, "sample"), (n_columns, "feature")):
            if n == 0:
                raise ValueError(
                    f"Found array with 0 {what}(s) (shape={tuple(X.shape)}) while a minimum of 1 is required."
                )
        return validate_data(estimator, X, reset=reset, skip_check_array=True)
    if isinstance(X, list | tuple):
        X = _array_of(X)
    return validate_data(estimator, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")


def validated_with_targets(estimator: Any, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
    """Return a table and its targets, validated."""
    if isinstance(X, Rows):
        return X.validated(estimator, partial(validated_with_targets, estimator, reset=reset), any_dtype=True)
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    X = validated(estimator, X, reset)
    y = device_arrays.on_host(estimator, y, "y")
    y = _check_y(y, multi_output=True, y_numeric=estimator._numeric_targets, estimator=estimator)
    check_consistent_length(X, y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return X, y


def n_rows_of(X: Any) -> int:
    """Return the number of rows of a validated table."""
    return int(X.shape[0])


def _is_frame(X: Any) -> bool:
    """Return whether X is a frame: something with columns of their own types."""
    return not isinstance(X, np.ndarray) and hasattr(X, "columns") and getattr(X, "shape", None) is not None


def _has_features_of_fit(estimator: Any, X: Any) -> bool:
    """Return whether X is a frame with rows, and the columns of the fit in their order: nothing is left to check.

    scikit-learn asks narwhals for the names, which takes longer than to predict a few rows.
    """
    pandas = sys.modules.get("pandas")
    known = getattr(estimator, "feature_names_in_", None)
    if pandas is None or known is None or not isinstance(X, pandas.DataFrame) or not len(X):
        return False
    names = X.columns.tolist()
    same = len(names) == estimator.n_features_in_ and names == np.asarray(known).tolist()
    return same and all(type(name) is str for name in names)


def _array_of(X: Any) -> Any:
    """Return rows in lists as an array; numbers among texts stay numbers."""
    array = np.asarray(X, dtype=object) if _has_text(X) else X
    return array


def _has_text(X: Any) -> bool:
    return any(isinstance(row, list | tuple) and any(isinstance(cell, str) for cell in row) for row in X)
