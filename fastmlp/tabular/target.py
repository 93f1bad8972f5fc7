"""The column to predict: classes or values, and what an estimator gets as y."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from fastmlp.tabular.errors import DataError
from fastmlp.tabular.reading import Source
from fastmlp.tabular.staging import Codes

TASKS = ("auto", "classification", "regression")

#: Most different whole numbers that are taken for classes.
FEW = 20


@dataclass(frozen=True)
class Target:
    """What is to be predicted."""

    name: str  # of the column
    task: str  # "classification" or "regression"
    reason: str  # why this task, for people
    y: np.ndarray  # (n_rows,), labels (int64, bool, or str objects) or values (float64)
    classes: list  # the labels, sorted; empty for regression


def read_target(codes: Codes, task: str, where: str) -> Target:
    """Return the target of a file, the last column of its codes; `where` is the file, for messages.

    The rows of a validation file decide nothing.

    The task "auto" takes texts, truths, categories and at most ``FEW`` different whole numbers for classes, as far as
    scikit-learn's ``type_of_target`` does. A DataError says that the target is the same in all rows, or holds texts
    where values are wanted, or fractions where classes are.
    """
    name, kind = codes.names[-1], codes.kinds[-1]
    values = codes.target[: len(codes.target) - codes.n_given]
    different = np.unique(values)
    if len(different) == 1:
        first = next(iter(codes.categories[name])) if kind == "categorical" else f"{different[0]:g}"
        raise DataError(f"{where}: the target {name!r} is {first!r} in every row: there is nothing to learn")
    if kind != "numeric":
        what = f"holds {len(different)} different texts" if kind == "categorical" else "is true or false"
        if task == "regression" and kind == "categorical":
            text = next(iter(codes.categories[name]))
            raise DataError(f"{where}: the target {name!r} {what}, such as {text!r}: no values for --task regression")
    elif not _are_whole(values):
        what = "holds numbers that are not whole"
        if task == "classification":
            raise DataError(f"{where}: the target {name!r} {what}: no classes for --task classification")
    else:
        what = f"holds {len(different)} different {'categories' if codes.labelled else 'whole numbers'}"
    reason = "as --task says"
    if task == "auto":
        task = "regression"
        if (
            kind != "numeric"
            or (codes.labelled and _are_whole(values))
            or (len(different) <= FEW and _are_whole(values))
        ):
            task = "classification"
        reason = f"{name!r} {what}"
    if task == "regression":
        return Target(name, task, reason, codes.target, [])
    y = _labels(codes)
    return Target(name, task, reason, y, np.unique(y[: len(values)]).tolist())


def check_given(codes: Codes, training: np.ndarray, source: Source) -> None:
    """Refuse classes of a validation file, the last rows, that none of the `training` rows has, a mask (n_rows,)."""
    first = len(codes.target) - codes.n_given
    unknown = np.flatnonzero(~np.isin(codes.target[first:], codes.target[training]))
    if len(unknown):
        value, name = codes.target[first + unknown[0]], codes.names[-1]
        shown = f"{value:g}"
        if codes.kinds[-1] != "numeric":
            shown = repr(list(codes.categories[name])[int(value)] if name in codes.categories else bool(value))
        where = f"{source.where(int(unknown[0]))}, column {name!r}"
        raise DataError(f"{where}: {shown} is no class of the training rows")


def _labels(codes: Codes) -> np.ndarray:
    """Return the target as classes (n_rows,)."""
    name, kind = codes.names[-1], codes.kinds[-1]
    if kind == "categorical":
        # one text per class, not one per row
        return np.array(list(codes.categories[name]), dtype=object)[codes.target.astype(np.intp)]
    return codes.target.astype(bool if kind == "boolean" else np.int64)


def _are_whole(values: np.ndarray) -> bool:
    """Return whether scikit-learn would take these numbers for classes, and int64 holds them."""
    from sklearn.utils.multiclass import type_of_target

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there are many classes is what is asked here
        return type_of_target(values) != "continuous" and bool(np.abs(values).max() < 2**53)
