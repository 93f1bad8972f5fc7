"""The data sets of the playground: points of a plane with targets, and what a network reads of a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import make_blobs, make_moons

from fastmlp.datasets import make_qwerties, make_rings, make_spirals

#: Half the side of the square that the maps show; the points of most data sets lie within RADIUS.
EXTENT, RADIUS = 3.0, 2.5

#: Rows of a table that are used; of a larger one so many are drawn.
MOST_ROWS = 2000


class Points(NamedTuple):
    """Points and their targets."""

    points: np.ndarray  # (n, 2) float64
    y: np.ndarray  # (n,): classes, integers from 0; or values, float64


@dataclass(frozen=True)
class Table:
    """Two columns of a file, scaled to mean 0 and variance 1, and its target.

    Values to regress on are scaled likewise; classes are numbered, and ``classes`` has their names.
    """

    data: Points
    task: str  # "classification" or "regression"
    columns: tuple[str, str]
    target: str
    classes: tuple[str, ...]  # () for a regression
    call: str  # the call of read_table that made it, as Python


class DataSet(NamedTuple):
    """A row of DATA_SETS: (n_samples, noise, random state) -> points."""

    label: str
    task: str
    draw: Callable[[int, float, np.random.RandomState], tuple[np.ndarray, np.ndarray]]


# --- data sets --------------------------------------------------------------------------------------------------------


def _circle(n: int, noise: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_rings(n, noise=noise, random_state=random)
    return RADIUS * X, y


def _spiral(n: int, noise: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_spirals(n, noise=noise / 2, random_state=random)  # its arms lie close to one another
    return RADIUS * X, y


def _gauss(n: int, noise: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    return make_qwerties(n, class_sep=1.5, noise=0.3 + 2 * noise, random_state=random)


def _xor(n: int, noise: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    X = random.uniform(-RADIUS, RADIUS, (n, 2))
    y = (X[:, 0] * X[:, 1] < 0).astype(np.intp)
    X += 0.15 * np.sign(X)  # a gap between the quadrants
    return X + random.normal(scale=RADIUS * noise, size=X.shape), y


def _moons(n: int, noise: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_moons(n, noise=noise, random_state=random)
    return (X - (0.5, 0.25)) * 1.6, y


def _blobs(n: int, noise: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    angles = np.pi * (0.5 + 2 / 3 * np.arange(3))
    centres = 1.6 * np.column_stack([np.cos(angles), np.sin(angles)])
    return make_blobs(n, centers=centres, cluster_std=0.3 + 2 * noise, random_state=random)[:2]


def _plane(n: int, noise: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    X = random.uniform(-RADIUS, RADIUS, (n, 2))
    return X, X.sum(axis=1) / (2 * RADIUS) + random.normal(scale=noise, size=n)


def _hills(n: int, noise: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    X = random.uniform(-RADIUS, RADIUS, (n, 2))
    centres = np.array([(-1.5, 1), (0, 1), (1.5, 1), (-1.5, -1), (0, -1), (1.5, -1)])
    squares = ((X[:, None] - centres) ** 2).sum(axis=2)  # (n, 6)
    y = np.exp(-squares / 0.7) @ [1.0, -1, 1, -1, 1, -1]
    return X, y + random.normal(scale=noise, size=n)


DATA_SETS = {
    "circle": DataSet("Circle", "classification", _circle),
    "xor": DataSet("Exclusive or", "classification", _xor),
    "gauss": DataSet("Two Gaussians", "classification", _gauss),
    "spiral": DataSet("Spiral", "classification", _spiral),
    "moons": DataSet("Moons", "classification", _moons),
    "blobs": DataSet("Three blobs", "classification", _blobs),
    "plane": DataSet("Plane", "regression", _plane),
    "hills": DataSet("Gaussian hills", "regression", _hills),
}


# --- what the network reads of a point --------------------------------------------------------------------------------


class Feature(NamedTuple):
    """A row of FEATURES: (n, 2) -> (n,)."""

    label: str
    of: Callable[[np.ndarray], np.ndarray]


FEATURES = {
    "x1": Feature("x₁", lambda points: points[:, 0]),
    "x2": Feature("x₂", lambda points: points[:, 1]),
    "x1_squared": Feature("x₁²", lambda points: points[:, 0] ** 2),
    "x2_squared": Feature("x₂²", lambda points: points[:, 1] ** 2),
    "x1_x2": Feature("x₁x₂", lambda points: points[:, 0] * points[:, 1]),
    "sin_x1": Feature("sin 2x₁", lambda points: np.sin(2 * points[:, 0])),
    "sin_x2": Feature("sin 2x₂", lambda points: np.sin(2 * points[:, 1])),
}


def features_of(points: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the features (n, n_features) of points (n, 2), named as in ``FEATURES``."""
    return np.column_stack([FEATURES[name].of(points) for name in names])


# --- the data of one fit ----------------------------------------------------------------------------------------------


def draw(source: str | Table, n_samples: int, noise: float, random_state: int) -> Points:
    """Return the points of a data set, or those of a table.

    Noise is added to the points of a table, and to the values that a regression predicts.
    """
    random = np.random.RandomState(random_state)
    if not isinstance(source, Table):
        return Points(*DATA_SETS[source].draw(n_samples, noise, random))
    points, y = source.data
    kept = np.sort(_classes_first(y, random.permutation(len(y)))[: min(n_samples, MOST_ROWS)])
    points = points[kept] + random.normal(scale=noise, size=(len(kept), 2))
    return Points(points, y[kept])


def split(y: np.ndarray, train_share: float, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on, of which each class has one, and those to test on, at least one."""
    n, n_classes = len(y), len(np.unique(y)) if y.dtype.kind == "i" else 1
    n_train = min(max(round(train_share * n), n_classes), n - 1)
    rows = _classes_first(y, np.random.RandomState(random_state).permutation(n))
    return rows[:n_train], rows[n_train:]


def _classes_first(y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the rows with one of each class in front; as they are if y has values."""
    if y.dtype.kind != "i":
        return rows
    first = np.sort(np.unique(y[rows], return_index=True)[1])
    return np.concatenate([rows[first], np.delete(rows, first)])


def make_data(
    dataset: str | Table = "spiral",
    *,
    n_samples: int = 400,
    noise: float = 0.03,
    train_share: float = 0.5,
    features: Sequence[str] = ("x1", "x2"),
    random_state: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Make the rows that the playground trains and tests on.

    Parameters
    ----------
    dataset : str or Table, default='spiral'
        'circle', 'xor', 'gauss', 'spiral', 'moons', 'blobs' (classes), 'plane' or 'hills' (values); or what
        :func:`read_table` returns.
    n_samples : int, default=400
        Number of points; of a table no more than it has.
    noise : float, default=0.03
        Standard deviation of what is added to the points, or to the values of a regression, as a share of their range.
    train_share : float, default=0.5
        Share of the rows to train on.
    features : sequence of str, default=('x1', 'x2')
        What the network reads of a point (x1, x2): 'x1', 'x2', 'x1_squared', 'x2_squared', 'x1_x2', 'sin_x1' (the sine
        of 2 x1), 'sin_x2'.
    random_state : int, default=0
        Source of the points and of the split.

    Returns
    -------
    X_train, X_test : ndarray of shape (n_rows, n_features), float64
    y_train, y_test : ndarray of shape (n_rows,)
        Classes, integers from 0; or values, float64.

    Raises
    ------
    ValueError
        If there is no such data set or feature, or a number is out of its range.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.playground import make_data
    >>> X_train, X_test, y_train, y_test = make_data("circle", features=("x1_squared", "x2_squared"))
    >>> X_train.shape
    (200, 2)
    >>> linear = MLPClassifier((), solver="lbfgs", random_state=0).fit(X_train, y_train)
    >>> linear.score(X_test, y_test) > 0.95
    True
    """
    _check(dataset, features, n_samples=n_samples, noise=noise, train_share=train_share)
    points, y = draw(dataset, n_samples, noise, random_state)
    train, test = split(y, train_share, random_state)
    X = features_of(points, features)
    return X[train], X[test], y[train], y[test]


def _check(dataset: Any, features: Any, *, n_samples: int, noise: float, train_share: float) -> None:
    if not isinstance(dataset, Table) and dataset not in DATA_SETS:
        raise ValueError(f"dataset must be one of {', '.join(DATA_SETS)}, or a Table, got {dataset!r}")
    if isinstance(features, str) or not len(features) or any(name not in FEATURES for name in features):
        raise ValueError(f"features must be some of {', '.join(FEATURES)}, got {features!r}")
    if n_samples < 2:
        raise ValueError(f"n_samples must be at least 2, got {n_samples!r}")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must be 0 or more, got {noise!r}")
    if not 0 < train_share < 1:
        raise ValueError(f"train_share must be between 0 and 1, got {train_share!r}")
