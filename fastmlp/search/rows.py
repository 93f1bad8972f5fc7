"""The rows of a search: what each fit trains on, and what it is judged by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit, check_cv

from fastmlp.sklearn_compat import _num_samples, _safe_indexing


class Rows(NamedTuple):
    """Features and targets of some rows, and their weights, if they have any."""

    X: Any  # (n_rows, n_features): an array, a sparse matrix or a frame
    y: np.ndarray  # (n_rows,) or (n_rows, n_outputs)
    weight: np.ndarray | None = None  # (n_rows,)

    def at(self, places: np.ndarray) -> Rows:
        """Return the rows with these numbers."""
        weight = None if self.weight is None else self.weight[places]
        return Rows(_safe_indexing(self.X, places), self.y[places], weight)


@dataclass(frozen=True)
class Split:
    """Which rows a fit trains on and which it is judged by; without numbers all rows, and those that a user gave."""

    rows: Rows
    training: np.ndarray | None = None
    held_out: np.ndarray | None = None
    given: Rows | None = None

    @property
    def validation(self) -> Rows:
        """Return the rows to judge by; they are copied."""
        if self.given is not None:
            return self.given
        assert self.held_out is not None
        return self.rows.at(self.held_out)

    @property
    def trained(self) -> Rows:
        """Return the rows to train on; they are copied if they are not all."""
        return self.rows if self.training is None else self.rows.at(self.training)


def splits_of(
    rows: Rows, cv: Any, fraction: float, classifies: bool, random_state: np.random.RandomState
) -> list[Split]:
    """Return the folds of `cv`, or without it one split that holds out a fraction of the rows.

    Classes keep their shares. Raises a ValueError if there are too few rows.
    """
    n_rows = _num_samples(rows.X)
    seed = random_state.randint(np.iinfo(np.int32).max)
    if cv is None:
        return [Split(rows, *_held_out(rows.y, n_rows, fraction, classifies, seed))]
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        if cv > n_rows:
            raise ValueError(f"cv={cv} must be at most the number of rows, {n_rows}")
        cv = (StratifiedKFold if classifies else KFold)(int(cv), shuffle=True, random_state=seed)
    cut: Iterator[tuple[np.ndarray, np.ndarray]] = check_cv(cv, rows.y, classifier=classifies).split(rows.X, rows.y)
    found = [Split(rows, *parts) for parts in cut]
    if not found:
        raise ValueError(f"cv={cv!r} gives no split")
    return found


def _held_out(
    y: np.ndarray, n_rows: int, fraction: float, classifies: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the rows to train on and of those to hold out; the only row of a class is trained on."""
    alone = np.zeros(n_rows, dtype=bool)
    if classifies:
        _, places, counts = np.unique(y, return_inverse=True, return_counts=True)
        alone = counts[places] == 1
    others = np.flatnonzero(~alone)
    n_held_out = max(1, round(fraction * len(others)))
    if n_held_out >= len(others):
        raise ValueError(
            f"validation_fraction={fraction} leaves no rows to train on or to validate on: n_samples={n_rows}"
        )
    n_classes = len(np.unique(y[others])) if classifies else 0
    # strata need a row of each class on either side
    stratified = classifies and n_classes <= min(n_held_out, len(others) - n_held_out)
    kind = StratifiedShuffleSplit if stratified else ShuffleSplit
    cut = kind(1, test_size=n_held_out, random_state=seed)
    training, held_out = next(cut.split(np.empty((len(others), 0)), y[others] if stratified else None))
    return np.sort(np.concatenate([others[training], np.flatnonzero(alone)])), np.sort(others[held_out])
