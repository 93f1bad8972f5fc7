"""Targets per task: y as users give it <-> what a network is trained on and predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.preprocessing import LabelBinarizer

#: Loss by output activation: the canonical pairs, for which d loss / d z = prediction - target.
LOSS_OF_LINK = {
    "softmax": "log_loss",
    "logistic": "binary_log_loss",
    "identity": "squared_error",
    "exp": "poisson",
}


def class_link(binarizer: LabelBinarizer) -> str:
    """Output activation of a classifier: softmax for more than two classes, else one logistic per output."""
    return "softmax" if binarizer.y_type_ == "multiclass" else "logistic"


def n_class_outputs(binarizer: LabelBinarizer) -> int:
    """Output units: one per class or label, a single one for two classes."""
    return 1 if binarizer.y_type_ == "binary" else len(binarizer.classes_)


def encode_classes(binarizer: LabelBinarizer, y: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Training targets of a classifier.

    Returns
    -------
    ndarray
        Class indices (n,) intp for more than two classes, else 0/1 (n, n_outputs) of the dtype.
    """
    if binarizer.y_type_ == "multiclass":
        return np.searchsorted(binarizer.classes_, y).astype(np.intp, copy=False)
    return np.ascontiguousarray(binarizer.transform(y), dtype=dtype)


def decode_classes(binarizer: LabelBinarizer, proba: np.ndarray) -> np.ndarray:
    """Class labels (n,), or label indicators (n, n_labels), from outputs (n, n_outputs)."""
    classes = binarizer.classes_
    if binarizer.y_type_ == "multiclass":
        return classes.take(proba.argmax(axis=1), mode="clip")
    chosen = (proba > 0.5).astype(int)
    if binarizer.y_type_ == "binary":
        return np.repeat(classes[0], len(chosen)) if len(classes) == 1 else classes[chosen.ravel()]
    return chosen


def encode_values(y: Any, dtype: np.dtype) -> np.ndarray:
    """Training targets of a regressor: (n, n_outputs) of the dtype.

    Raises
    ------
    TypeError
        If y is sparse or holds no numbers; for text and dates NumPy's own, as scikit-learn's users know it.
    """
    if issparse(y):
        raise TypeError("y must be a dense array of numbers, got a sparse matrix")
    y = np.asarray(y)
    if y.dtype.kind not in "biufO":
        np.subtract(y, np.empty(y.shape, dtype))
    return np.ascontiguousarray(y.reshape(len(y), -1), dtype=dtype)
