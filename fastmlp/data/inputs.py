"""Users' rows and targets -> validated by scikit-learn's rules -> encoded for the engines."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.validation import validate_data

from fastmlp.data import device_arrays
from fastmlp.data.targets import Objective
from fastmlp.engines.backends import Data
from fastmlp.model import choices
from fastmlp.model.network import Network
from fastmlp.sklearn_compat import _check_sample_weight, _check_y


def validated(estimator: Any, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
    """Return X and y validated, with scikit-learn's errors; `reset` says whether X tells the number of features."""
    y = device_arrays.on_host(estimator, y, "y")
    checks = {"multi_output": True, "y_numeric": estimator._numeric_targets}
    if device_arrays.is_device_array(X):
        X, y = device_arrays.validated(estimator, X, reset), _check_y(y, **checks, estimator=estimator)
        check_consistent_length(X, y)
        device_arrays.check_finite(X)
    else:
        dtypes = (np.float64, np.float32)
        X, y = validate_data(estimator, X, y, accept_sparse=["csr", "csc"], dtype=dtypes, reset=reset, **checks)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return X, y


def dense_targets(estimator: Any, y: Any) -> Any:
    """Return sparse label indicators as an array, which engines and all scorers take; other targets as they are."""
    return y.toarray() if issparse(y) and not estimator._numeric_targets else y


def validated_weight(estimator: Any, sample_weight: Any, y: np.ndarray) -> np.ndarray | None:
    """Return the weights of the rows that have these targets, validated; None if there are none."""
    if sample_weight is None:
        return None
    # y stands for X, which may be where scikit-learn cannot look
    return _check_sample_weight(device_arrays.on_host(estimator, sample_weight, "sample_weight"), y)


def encoded(
    estimator: Any, X: Any, y: np.ndarray, sample_weight: np.ndarray | None, network: Network, objective: Objective
) -> Data:
    """Return validated rows as engines take them; X on a GPU must have the network's dtype."""
    lbfgs = choices.name_of(estimator.solver) == "lbfgs"
    dtype = np.dtype(np.float64) if lbfgs else network.dtype
    device_arrays.check_dtype(X, dtype, "solver='lbfgs' works in" if lbfgs else "the weights are")
    weight = None if sample_weight is None else sample_weight.astype(dtype, copy=False)
    return Data(engine_rows(X), estimator._encode(y, dtype, objective), weight)


def validation_rows(
    estimator: Any, given: tuple[Any, Any, Any] | None, y: np.ndarray, network: Network, objective: Objective
) -> tuple[Data, np.ndarray] | None:
    """Return the validation rows as engines take them, and their targets as users see them; None if none are given.

    Errors are those of :func:`validated`, with a text that says that they are about validation data.
    """
    if given is None:
        return None
    X_val, y_val, weight = given
    try:
        X_val, y_val = validated(estimator, X_val, y_val, reset=False)
        y_val = dense_targets(estimator, y_val)
        estimator._check_validation_targets(y, y_val)
        weight = estimator._weigh(y_val, validated_weight(estimator, weight, y_val))
        if weight is not None and not np.any(weight):
            raise ValueError("no row has a weight")
        return encoded(estimator, X_val, y_val, weight, network, objective), y_val
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"validation data: {error}") from error


def engine_rows(X: Any) -> Any:
    """Return X as engines take it: dense as it is, sparse as CSR."""
    return X.tocsr() if issparse(X) else X
