"""Users' rows and targets -> validated by scikit-learn's rules -> encoded for the engines."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.validation import validate_data

from fastmlp.data import device_arrays
from fastmlp.data.shared_rows import Rows, SharedRows
from fastmlp.data.targets import Objective
from fastmlp.data.warned import warn
from fastmlp.engines.backends import Data
from fastmlp.model import choices
from fastmlp.model.network import Network
from fastmlp.sklearn_compat import _check_sample_weight, _check_y


def validated(estimator: Any, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
    """Return X and y validated, with scikit-learn's errors; `reset` says whether X tells the number of features."""
    if isinstance(X, Rows):
        return X.validated(estimator, partial(validated, estimator, reset=reset))
    y = device_arrays.on_host(estimator, y, "y")
    checks = {"multi_output": True, "y_numeric": estimator._numeric_targets}
    if device_arrays.is_device_array(X):
        X, y = device_arrays.validated(estimator, X, reset), _check_y(y, **checks, estimator=estimator)
        check_consistent_length(X, y)
        device_arrays.check_finite(X)
    else:
        warn_of_categories(X)
        dtypes = (np.float64, np.float32)
        X, y = validate_data(estimator, X, y, accept_sparse=["csr", "csc"], dtype=dtypes, reset=reset, **checks)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return X, y


def warn_of_categories(X: Any) -> None:
    """Warn if a table has categories that are numbers: scikit-learn reads their values as amounts.

    X is anything that ``fit`` and predictions take; only tables of pandas and pyarrow have such columns. Categories
    that are texts are an error of scikit-learn's.
    """
    if type(X) is np.ndarray:
        return
    names: list[Any] = []
    if hasattr(X, "dtypes") and hasattr(X, "iloc"):
        dtypes = X.dtypes.array if getattr(X, "ndim", 0) == 2 else ()
        if any(hasattr(dtype, "categories") for dtype in set(dtypes)):
            names = [name for name, dtype in zip(X.columns, dtypes, strict=True) if _are_numbers(dtype)]
    elif hasattr(X, "schema") and hasattr(X, "to_pydict"):
        coded = [(field.name, str(field.type.value_type)) for field in X.schema if hasattr(field.type, "index_type")]
        names = [name for name, type_ in coded if type_.startswith(("int", "uint", "float", "double", "half"))]
    if names:
        shown = ", ".join(map(repr, names[:8])) + ", ..." * (len(names) > 8)
        warn(
            f"columns of categories are read as numbers, 2 as twice 1: {shown}. Encode them, for instance by "
            "make_column_transformer((OneHotEncoder(), columns), remainder='passthrough'), or convert them to numbers"
        )


def _are_numbers(dtype: Any) -> bool:
    """Return whether a dtype of pandas has categories, and these are numbers."""
    categories = getattr(dtype, "categories", None)
    return getattr(getattr(categories, "dtype", None), "kind", "") in ("i", "u", "f")


def dense_targets(estimator: Any, y: Any) -> Any:
    """Return sparse label indicators as an array, which engines and all scorers take; other targets as they are."""
    return y.toarray() if issparse(y) and not estimator._numeric_targets else y


# scikit-learn 1.7 has no such check
_ALL_ZERO = {"allow_all_zero_weights"} & signature(_check_sample_weight).parameters.keys()


def validated_weight(estimator: Any, sample_weight: Any, y: np.ndarray, all_zero: bool = False) -> np.ndarray | None:
    """Return the weights of the rows that have these targets, validated; None if there are none.

    `all_zero` says whether no row needs a weight.
    """
    if isinstance(sample_weight, Rows):
        return sample_weight.weights(partial(validated_weight, estimator, all_zero=True), all_zero)
    if sample_weight is None:
        return None
    sample_weight = device_arrays.on_host(estimator, sample_weight, "sample_weight")
    # y stands for X, which may be where scikit-learn cannot look
    return _check_sample_weight(sample_weight, y, **dict.fromkeys(_ALL_ZERO, all_zero))


def encoded(
    estimator: Any, X: Any, y: np.ndarray, sample_weight: np.ndarray | None, network: Network, objective: Objective
) -> Data:
    """Return validated rows as engines take them; X on a GPU must have the network's dtype."""
    lbfgs = choices.name_of(estimator.solver) == "lbfgs"
    dtype = np.dtype(np.float64) if lbfgs else network.dtype
    device_arrays.check_dtype(X, dtype, "solver='lbfgs' works in" if lbfgs else "the weights are")
    weight = None if sample_weight is None else sample_weight.astype(dtype, copy=False)
    return Data(engine_rows(X), aligned(estimator._encode(y, dtype, objective)), aligned(weight))


def validation_rows(
    estimator: Any, given: tuple[Any, Any, Any], y: np.ndarray, network: Network, objective: Objective, name: str
) -> tuple[Data, np.ndarray]:
    """Return validation rows as engines take them, and their targets as users see them.

    Errors are those of :func:`validated`, with a text that begins with the name of these rows.
    """
    X_val, y_val, weight = given
    try:
        X_val, y_val = estimator._validated(X_val, y_val, reset=False)
        y_val = dense_targets(estimator, y_val)
        estimator._check_validation_targets(y, y_val)
        weight = estimator._weigh(y_val, validated_weight(estimator, weight, y_val))
        if weight is not None and weight.sum() == 0:
            raise ValueError("no row has a weight")
        return encoded(estimator, estimator._matrix(X_val), y_val, weight, network, objective), y_val
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: {error}") from error


def engine_rows(X: Any) -> Any:
    """Return X as engines take it: dense as it is, sparse as CSR; only what they cannot read is copied."""
    if isinstance(X, SharedRows):
        return X.with_local(engine_rows(X.local))
    return _engine_csr(X.tocsr()) if issparse(X) else aligned(X)


def aligned(array: Any) -> Any:
    """Return a NumPy array whose numbers lie at whole addresses: a copy of a field of a structured array, for instance.

    Anything else is returned as it is.
    """
    if not isinstance(array, np.ndarray):
        return array
    whole = array.flags.aligned and not any(stride % array.itemsize for stride in array.strides)
    return array if whole else array.copy()


def _engine_csr(X: Any) -> Any:
    """Return a CSR matrix of contiguous, aligned arrays in the machine's byte order, with indices of one type."""
    is_wide = np.int64 in (X.indices.dtype.newbyteorder("="), X.indptr.dtype.newbyteorder("="))
    index = np.dtype(np.int64 if is_wide else np.int32)
    parts = X.data, X.indices, X.indptr
    clean = tuple(
        np.require(part, dtype, ["C", "A"]) for part, dtype in zip(parts, (X.data.dtype, index, index), strict=True)
    )
    if all(a is b for a, b in zip(clean, parts, strict=True)):
        return X
    rows = type(X)(X.shape, dtype=X.dtype)
    rows.data, rows.indices, rows.indptr = clean
    return rows
