"""Lazy predictions and scores: a fitted estimator and a Dask collection -> a collection of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
from dask import delayed
from scipy.sparse import issparse

from fastmlp.dask import partitions
from fastmlp.dask.partitions import Frame
from fastmlp.data.warned import warn
from fastmlp.estimator.tabular import BaseTabular


def lazily(estimator: Any, X: Any, method: str, columns: Sequence[Any] | None = None) -> Any:
    """Return the predictions of a plain estimator for an array or a frame of Dask, block by block.

    Parameters
    ----------
    estimator : estimator
        Fitted, a local one; this copy predicts on one thread, because Dask's workers have threads of their own.
    X : Dask array or DataFrame of shape (n_samples, n_features)
    method : str
    columns : sequence, default=None
        Names of the columns of a frame of predictions.

    Returns
    -------
    Dask array, or Series or DataFrame with the index of X
    """
    _check_features(estimator, X)
    estimator.n_jobs = 1
    X = partitions.whole_rows(X, "X")
    is_frame = isinstance(X, Frame)
    if not is_frame:
        estimator.__dict__.pop("feature_names_in_", None)  # a block has no names: _check_features has said so
    like = _of_block(_sample(estimator, X), estimator, method, None)[:0]
    model = delayed(estimator)
    if is_frame:
        meta = _in_kind(like, X._meta, columns)
        return X.map_partitions(_of_partition, model, method, like, columns, meta=meta, enforce_metadata=False)
    if like.ndim == 1:
        return X.map_blocks(_of_block, model, method, like, drop_axis=1, dtype=like.dtype, meta=like)
    chunks = (X.chunks[0], (like.shape[1],))
    return X.map_blocks(_of_block, model, method, like, chunks=chunks, dtype=like.dtype, meta=like)


def _sample(estimator: Any, X: Frame | da.Array) -> Any:
    """Return a row that tells of which dtype and width predictions are."""
    if isinstance(estimator, BaseTabular):  # any column may have a gap, only some a text
        gaps = np.full((1, X.shape[1]), np.nan)
        return pd.DataFrame(gaps, columns=X.columns) if isinstance(X, Frame) else gaps
    return X._meta_nonempty if isinstance(X, Frame) else np.zeros((1, estimator.n_features_in_), X.dtype)


def _check_features(estimator: Any, X: Any) -> None:
    """Refuse other columns than those of fit, before anything is computed."""
    names = getattr(estimator, "feature_names_in_", None)
    is_frame = isinstance(X, Frame) and X.ndim == 2
    if names is not None and is_frame and list(X.columns) != list(names):
        raise ValueError(f"X has the columns {list(X.columns)}, those of fit were {list(names)}, in this order")
    if X.ndim != 2 or X.shape[1] != estimator.n_features_in_:
        n = f"{X.shape[1]} features" if X.ndim == 2 else f"{X.ndim} dimension"
        raise ValueError(f"X has {n}, but {type(estimator).__name__} is expecting {estimator.n_features_in_} features")
    if names is not None and not is_frame:
        warn(f"X does not have valid feature names, but {type(estimator).__name__} was fitted with feature names")


def _of_block(X: Any, estimator: Any, method: str, like: np.ndarray | None) -> np.ndarray:
    if like is not None and not X.shape[0]:
        return like
    found = getattr(estimator, method)(X)
    return found.toarray() if issparse(found) else found


def _of_partition(X: Any, estimator: Any, method: str, like: np.ndarray, columns: Sequence[Any] | None) -> Any:
    return _in_kind(_of_block(X, estimator, method, like), X, columns)


def _in_kind(values: np.ndarray, X: Any, columns: Sequence[Any] | None) -> Any:
    """Return predictions as pandas' object with the index of X."""
    if values.ndim == 1:
        return pd.Series(values, index=X.index)
    return pd.DataFrame(values, index=X.index, columns=columns)


# --- scores -----------------------------------------------------------------------------------------------------------


def accuracy(predicted: Any, y: Any, sample_weight: Any) -> tuple[Any, ...]:
    """Return what :func:`mean_accuracy` needs, lazily; all arguments are Dask arrays in the same row blocks."""
    correct = predicted == y
    if correct.ndim == 2:
        correct = correct.all(axis=1)
    weight = da.ones_like(correct, dtype=np.float64) if sample_weight is None else sample_weight
    return (correct * weight).sum(), weight.sum()


def mean_accuracy(correct: Any, total: Any) -> float:
    """Return the share of rows that are classified well."""
    return float(correct / total)


def r2(predicted: Any, y: Any, sample_weight: Any) -> tuple[Any, ...]:
    """Return what :func:`mean_r2` needs, lazily; all arguments are Dask arrays in the same row blocks."""
    y, predicted = (values.astype(np.float64) for values in (y, predicted))
    weight = da.ones_like(y, dtype=np.float64) if sample_weight is None else sample_weight
    if y.ndim == 2 and weight.ndim == 1:
        weight = weight[:, None]
    mean = (weight * y).sum(axis=0) / (weight * da.ones_like(y)).sum(axis=0)
    return (weight * (y - predicted) ** 2).sum(axis=0), (weight * (y - mean) ** 2).sum(axis=0)


def mean_r2(error: Any, variance: Any) -> float:
    """Return the mean R^2 of the outputs; that of an output that does not vary is 1 or 0, as in scikit-learn."""
    error, variance = np.atleast_1d(error), np.atleast_1d(variance)
    varies = variance != 0
    scores = np.where(error == 0, 1.0, 0.0)
    scores[varies] = 1 - error[varies] / variance[varies]
    return float(scores.mean())


def arrays(X: Any, y: Any, sample_weight: Any, predicted: Any) -> tuple[Any, Any, Any]:
    """Return predictions, y and weights as Dask arrays in the row blocks of X."""
    rows = [
        None if given is None else partitions.like(X, given, name)
        for given, name in ((y, "y"), (sample_weight, "sample_weight"))
    ]
    found = [_array_of(values) if isinstance(values, Frame) else values for values in (predicted, *rows)]
    return found[0], found[1], found[2]


def _array_of(values: Frame) -> da.Array:
    """Return a series or a frame as an array; texts, which pandas keeps in ways of its own, as objects."""
    of_numpy = all(isinstance(dtype, np.dtype) for dtype in np.atleast_1d(np.asarray(values.dtypes, dtype=object)))
    return (values if of_numpy else values.astype(object)).to_dask_array()
