"""A `Frame` cut to size and split, in one file that any version of NumPy and pandas reads: parent -> workers.

The parent draws the rows, so all rivals see the same ones, whatever they are installed beside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench.datasets.declared import CLASSES
from fastmlp.bench.datasets.reading import Frame
from fastmlp.data.optional import needed

FILE = "table.npz"
TEST = 0.2  # share of the rows
FEWEST = 10  # rows of a class: eight train, and a network's own validation rows are some of them


@dataclass(frozen=True)
class Split:
    """Rows of one split, as places in the table."""

    train: np.ndarray  # (n_train,)
    test: np.ndarray  # (n_test,)


@dataclass(frozen=True)
class Task:
    """A table ready for rivals."""

    task: str
    X: Any  # pandas.DataFrame (n, d)
    y: np.ndarray  # (n,): classes as 0 .. n_classes - 1 of int64, or float64
    splits: tuple[Split, ...]

    @property
    def classifies(self) -> bool:
        return self.task == CLASSES


def make(frame: Frame, task: str, n_splits: int, max_rows: int) -> Task:
    """Return at most `max_rows` rows with seeded splits, stratified for classes; small classes are left out."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(frame.y))
    if task == CLASSES:
        rows = rows[_frequent(frame.y)]
    if len(rows) > max_rows:
        strata = frame.y[rows] if task == CLASSES else None
        rows = np.sort(train_test_split(rows, train_size=max_rows, stratify=strata, random_state=0)[0])
    if task == CLASSES:
        rows = rows[_frequent(frame.y[rows])]
    y = frame.y[rows]
    if task == CLASSES:
        y = np.unique(y, return_inverse=True)[1].astype(np.int64)
    strata = y if task == CLASSES else None
    places = np.arange(len(y))
    splits = (train_test_split(places, test_size=TEST, stratify=strata, random_state=seed) for seed in range(n_splits))
    X = frame.X.iloc[rows].reset_index(drop=True)
    return Task(task, _without_absent_categories(X), y, tuple(Split(train, test) for train, test in splits))


def _frequent(y: np.ndarray) -> np.ndarray:
    """Return which rows are of a class with enough rows."""
    _, places, counts = np.unique(y, return_inverse=True, return_counts=True)
    return counts[places] >= FEWEST


def _without_absent_categories(X: Any) -> Any:
    return X.assign(**{name: X[name].cat.remove_unused_categories() for name in X if X[name].dtype == "category"})


def write(task: Task, folder: Path) -> None:
    """Write a task: numbers as they are, categories as codes beside their texts."""
    arrays: dict[str, np.ndarray] = {"task": np.array(task.task), "y": task.y, "names": np.array(list(task.X), str)}
    for k, name in enumerate(task.X):
        column = task.X[name]
        if column.dtype == "category":
            arrays[f"codes {k}"] = column.cat.codes.to_numpy(np.int32)
            arrays[f"categories {k}"] = column.cat.categories.to_numpy(dtype=str)
        else:
            arrays[f"numbers {k}"] = column.to_numpy(np.float64)
    for k, split in enumerate(task.splits):
        arrays[f"train {k}"], arrays[f"test {k}"] = split.train, split.test
    np.savez(folder / FILE, **arrays)  # type: ignore[arg-type]


def read(folder: Path) -> Task:
    """Read a task that `write` wrote; runs in a worker."""
    pandas = needed("pandas", "fastmlp bench tabular", "'fastmlp[tables]'")
    with np.load(folder / FILE) as file:
        columns: dict[str, Any] = {}
        for k, name in enumerate(file["names"]):
            columns[str(name)] = (
                pandas.Categorical.from_codes(file[f"codes {k}"], categories=file[f"categories {k}"].tolist())
                if f"codes {k}" in file
                else file[f"numbers {k}"]
            )
        n_splits = sum(name.startswith("train ") for name in file)
        splits = tuple(Split(file[f"train {k}"], file[f"test {k}"]) for k in range(n_splits))
        return Task(str(file["task"]), pandas.DataFrame(columns), file["y"], splits)
