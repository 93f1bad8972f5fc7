"""Data sets to learn and teach with: clouds, rings and spirals of points, a noisy line, and a table of wines.

The makers follow scikit-learn's ``make_moons``: the points of a class are spread evenly, `noise` is the standard
deviation of what is added to them, and `random_state` decides everything that is random. They return X (n_samples,
n_features) float64 and y (n_samples,), which is intp for classes and float64 for a regression.

===============================  ==========================================================================
:func:`make_qwerties`            two or three Gaussian clusters, which a network without hidden units solves
:func:`make_rings`               rings around one centre, which it does not solve
:func:`make_spirals`             arms of a spiral, which need several hidden units
:func:`make_regression_line`     y = slope x + intercept + noise
:func:`fetch_wine_quality`       chemistry and grades of 6497 wines, from OpenML
===============================  ==========================================================================

scikit-learn has more: ``make_moons``, ``make_blobs``, ``make_classification``, ``load_iris``, ``load_digits``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any
from urllib.error import URLError

import numpy as np
from sklearn.utils import check_random_state

from fastmlp.sklearn_compat import Interval, validate_parameter_constraints

__all__ = ["fetch_wine_quality", "make_qwerties", "make_regression_line", "make_rings", "make_spirals"]

_FINITE = Interval(Real, None, None, closed="neither")
_ALLOWED: dict[str, list[Any]] = {
    "n_samples": [Interval(Integral, 1, None, closed="left"), "array-like"],
    "n_classes": [Interval(Integral, 1, None, closed="left")],
    "noise": [Interval(Real, 0, None, closed="left"), None],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "n_turns": [_FINITE],
    "class_sep": [Interval(Real, 0, None, closed="left")],
    "slope": [_FINITE],
    "intercept": [_FINITE],
    "data_home": [str, os.PathLike, None],
    "as_frame": ["boolean"],
}


def _check(caller: str, given: dict[str, Any]) -> None:
    """Raise scikit-learn's error about an argument that is not among what is allowed."""
    validate_parameter_constraints(_ALLOWED, {name: given[name] for name in _ALLOWED if name in given}, caller)


# --- points of classes ------------------------------------------------------------------------------------------------

#: (class, its number of points) -> the points (n, 2) without noise.
Curve = Callable[[int, int], np.ndarray]


def make_qwerties(
    n_samples: int | Sequence[int] = 100,
    *,
    n_classes: int = 2,
    class_sep: float = 1.0,
    noise: float | None = 0.5,
    shuffle: bool = True,
    random_state: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make Gaussian clusters, one per class, whose centres lie evenly on a circle.

    A network without hidden units separates them as well as any classifier can. For two classes this is the share
    ``Phi(class_sep / noise)`` of the points, with the normal distribution function Phi: 97.7 % with the defaults.

    Parameters
    ----------
    n_samples : int or sequence of int, default=100
        Number of points, shared evenly among the classes; or the number of points of each class.
    n_classes : {2, 3}, default=2
        Number of clusters.
    class_sep : float, default=1.0
        Radius of the circle, on which the first centre lies at 45 degrees.
    noise : float or None, default=0.5
        Standard deviation of a cluster in each direction; None is 0.
    shuffle : bool, default=True
        Whether the points come in random order, not class by class.
    random_state : int, RandomState instance or None, default=None
        Source of noise and order; an int repeats them.

    Returns
    -------
    X : ndarray of shape (n_samples, 2), float64
        The points.
    y : ndarray of shape (n_samples,), intp
        Their classes.

    Raises
    ------
    sklearn.utils._param_validation.InvalidParameterError
        A ValueError and TypeError that names the argument and what it may be.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.datasets import make_qwerties
    >>> X, y = make_qwerties(200, random_state=0)
    >>> linear = MLPClassifier(hidden_layer_sizes=(), solver="lbfgs", random_state=0).fit(X, y)
    >>> linear.score(X, y) > 0.95
    True
    """
    _check("make_qwerties", locals())
    if n_classes not in (2, 3):
        raise ValueError(
            f"n_classes of make_qwerties must be 2 or 3, got {n_classes!r}; make_blobs makes more clusters"
        )

    def centre(label: int, n: int) -> np.ndarray:
        angle = np.pi * (0.25 + 2.0 * label / n_classes)
        return np.tile(class_sep * np.array([np.cos(angle), np.sin(angle)]), (n, 1))

    return _classes(centre, n_samples, n_classes, noise, shuffle, random_state)


def make_rings(
    n_samples: int | Sequence[int] = 100,
    *,
    n_classes: int = 2,
    noise: float | None = None,
    shuffle: bool = True,
    random_state: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make rings around the origin, one per class; the outermost has the radius 1.

    Class k of n has the radius (k + 1) / n. No straight line separates the rings; the squares of both coordinates do.

    Parameters
    ----------
    n_samples : int or sequence of int, default=100
        Number of points, shared evenly among the classes; or the number of points of each class.
    n_classes : int, default=2
        Number of rings.
    noise : float or None, default=None
        Standard deviation of what is added to each coordinate; None is 0.
    shuffle : bool, default=True
        Whether the points come in random order, not class by class.
    random_state : int, RandomState instance or None, default=None
        Source of noise and order; an int repeats them.

    Returns
    -------
    X : ndarray of shape (n_samples, 2), float64
        The points.
    y : ndarray of shape (n_samples,), intp
        Their classes, from the inside out.

    Raises
    ------
    sklearn.utils._param_validation.InvalidParameterError
        A ValueError and TypeError that names the argument and what it may be.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.datasets import make_rings
    >>> X, y = make_rings(6, n_classes=2, shuffle=False)
    >>> np.hypot(*X.T), y
    (array([0.5, 0.5, 0.5, 1. , 1. , 1. ]), array([0, 0, 0, 1, 1, 1]))
    """
    _check("make_rings", locals())

    def ring(label: int, n: int) -> np.ndarray:
        return _polar((label + 1) / n_classes, 2.0 * np.pi * np.arange(n) / n)

    return _classes(ring, n_samples, n_classes, noise, shuffle, random_state)


def make_spirals(
    n_samples: int | Sequence[int] = 100,
    *,
    n_classes: int = 2,
    n_turns: float = 1.75,
    noise: float | None = None,
    shuffle: bool = True,
    random_state: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make the arms of a spiral, one per class, from the origin to the radius 1.

    A point that is the share t in (0, 1] along its arm has the radius t and the angle ``2 pi (n_turns t + k / n)``
    in class k of n. With two arms and the default turns, this is the spiral of TensorFlow Playground.

    Parameters
    ----------
    n_samples : int or sequence of int, default=100
        Number of points, shared evenly among the classes; or the number of points of each class.
    n_classes : int, default=2
        Number of arms.
    n_turns : float, default=1.75
        Turns of an arm around the origin; with a negative number it turns clockwise.
    noise : float or None, default=None
        Standard deviation of what is added to each coordinate; None is 0.
    shuffle : bool, default=True
        Whether the points come in random order, not class by class.
    random_state : int, RandomState instance or None, default=None
        Source of noise and order; an int repeats them.

    Returns
    -------
    X : ndarray of shape (n_samples, 2), float64
        The points.
    y : ndarray of shape (n_samples,), intp
        Their classes.

    Raises
    ------
    sklearn.utils._param_validation.InvalidParameterError
        A ValueError and TypeError that names the argument and what it may be.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.datasets import make_spirals
    >>> X, y = make_spirals(200, noise=0.02, random_state=0)
    >>> model = MLPClassifier((32, 32), activation="tanh", solver="lbfgs", max_iter=500, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.95
    True
    """
    _check("make_spirals", locals())

    def arm(label: int, n: int) -> np.ndarray:
        along = np.arange(1, n + 1) / n
        return _polar(along, 2.0 * np.pi * (n_turns * along + label / n_classes))

    return _classes(arm, n_samples, n_classes, noise, shuffle, random_state)


def _polar(radius: Any, angle: np.ndarray) -> np.ndarray:
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def _classes(
    curve: Curve, n_samples: Any, n_classes: int, noise: float | None, shuffle: bool, random_state: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of all classes, with noise and in the order that is asked for."""
    rng, counts = check_random_state(random_state), _counts(n_samples, n_classes)
    X = np.concatenate([curve(label, n) for label, n in enumerate(counts)])
    y = np.repeat(np.arange(n_classes), counts)
    if shuffle:
        order = rng.permutation(len(y))
        X, y = X[order], y[order]
    if noise:
        X += rng.normal(scale=noise, size=X.shape)
    return X, y


def _counts(n_samples: Any, n_classes: int) -> list[int]:
    """Return the number of points of each class; the first classes have one more if the number is not divisible."""
    if isinstance(n_samples, Integral):
        each, more = divmod(int(n_samples), n_classes)
        return [each + (label < more) for label in range(n_classes)]
    counts: list[Any] = list(n_samples)
    if (
        len(counts) != n_classes
        or not all(isinstance(n, int | np.integer) and n >= 0 for n in counts)
        or not any(counts)
    ):
        raise ValueError(
            f"n_samples must be an int, or a number >= 0 for each of the {n_classes} classes, got {n_samples!r}"
        )
    return [int(n) for n in counts]


# --- values -----------------------------------------------------------------------------------------------------------


def make_regression_line(
    n_samples: int = 100,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    noise: float | None = 0.1,
    random_state: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make points on a line, y = slope x + intercept + noise, with x drawn evenly from [-1, 1).

    Parameters
    ----------
    n_samples : int, default=100
        Number of points.
    slope : float, default=1.0
        What a linear neuron's weight should become.
    intercept : float, default=0.0
        What its bias should become.
    noise : float or None, default=0.1
        Standard deviation of what is added to y; None is 0.
    random_state : int, RandomState instance or None, default=None
        Source of x and noise; an int repeats them.

    Returns
    -------
    X : ndarray of shape (n_samples, 1), float64
        The places x.
    y : ndarray of shape (n_samples,), float64
        The values.

    Raises
    ------
    sklearn.utils._param_validation.InvalidParameterError
        A ValueError and TypeError that names the argument and what it may be.

    Examples
    --------
    >>> from fastmlp import MLPRegressor
    >>> from fastmlp.datasets import make_regression_line
    >>> X, y = make_regression_line(50, slope=-3.0, intercept=0.5, noise=None, random_state=0)
    >>> neuron = MLPRegressor(hidden_layer_sizes=(), solver="lbfgs", alpha=0, random_state=0).fit(X, y)
    >>> neuron.coefs_[0].round(3), neuron.intercepts_[0].round(3)
    (array([[-3.]]), array([0.5]))
    """
    _check("make_regression_line", locals())
    if not isinstance(n_samples, Integral):
        raise ValueError(f"n_samples of make_regression_line must be an int, got {n_samples!r}")
    rng = check_random_state(random_state)
    X = rng.uniform(-1.0, 1.0, size=(n_samples, 1))
    y = slope * X[:, 0] + intercept
    return X, y + rng.normal(scale=noise, size=len(y)) if noise else y


# --- tables -----------------------------------------------------------------------------------------------------------

_WINES_ID = 287  # OpenML's "wine_quality", version 1
_WINES_SHAPE = (6497, 11)


def fetch_wine_quality(*, data_home: str | os.PathLike[str] | None = None, as_frame: bool = False) -> tuple[Any, Any]:
    """Fetch the wine-quality table of the UCI repository from OpenML: 11 chemical numbers and a grade per wine.

    The wines are 1599 red and 4898 white ones, without their colour. Tasters graded them from 0 to 10; 3 to 9 occur.
    The grades are whole numbers, for a regression or as classes. The file is downloaded once and kept.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Folder that keeps downloads; None is scikit-learn's, ``~/scikit_learn_data`` or what the environment variable
        SCIKIT_LEARN_DATA says.
    as_frame : bool, default=False
        Whether to return a pandas DataFrame and a Series, with names of the columns.

    Returns
    -------
    X : ndarray or DataFrame of shape (6497, 11), float64
        Acids, sugar, chlorides, sulphur dioxide, density, pH, sulphates and alcohol, in the units of the source.
    y : ndarray or Series of shape (6497,), int64
        The grades.

    Raises
    ------
    ConnectionError
        If the table was not kept before and OpenML cannot be reached; the message says what can be done.
    ValueError
        If OpenML sends another table.

    References
    ----------
    Cortez, Cerdeira, Almeida, Matos and Reis (2009). Modeling wine preferences by data mining from physicochemical
    properties. Decision Support Systems 47(4), 547-553.

    Examples
    --------
    >>> from fastmlp.datasets import fetch_wine_quality
    >>> X, y = fetch_wine_quality()  # doctest: +SKIP
    >>> X.shape, y.min(), y.max()  # doctest: +SKIP
    ((6497, 11), 3, 9)
    """
    from sklearn.datasets import fetch_openml, get_data_home  # downloads are rare

    _check("fetch_wine_quality", locals())
    folder = get_data_home(None if data_home is None else os.fspath(data_home))
    parser = "pandas" if as_frame else "liac-arff"  # the second needs no pandas
    try:
        X, y = fetch_openml(
            data_id=_WINES_ID, data_home=folder, as_frame=as_frame, parser=parser, return_X_y=True, n_retries=1
        )
    except (URLError, TimeoutError) as error:
        raise ConnectionError(
            f"the wine-quality table is not in {folder} yet, and OpenML cannot be reached: {error}. Call"
            " fetch_wine_quality() once where there is a network, and copy this folder or name it by data_home; or read"
            " winequality-red.csv of the UCI repository by pandas.read_csv('winequality-red.csv', sep=';')"
        ) from error
    grades = y.astype(np.float64)
    if X.shape != _WINES_SHAPE or not np.isin(grades, np.arange(11)).all():
        raise ValueError(
            f"OpenML's table {_WINES_ID} should have the shape {_WINES_SHAPE} and grades from 0 to 10, got"
            f" {X.shape} and {np.unique(grades)}; if its copy in {folder} is damaged, delete it"
        )
    return X.astype(np.float64), grades.astype(np.int64)
