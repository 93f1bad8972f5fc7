"""Paths of gradient descent: on a function, and of a network's weights, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

#: Step of central differences, relative to a coordinate: the cube root of float64's epsilon.
DIFFERENCE = 6e-6


def value(f: Callable[..., Any], point: np.ndarray) -> float:
    """Return f at a point (n_dims,); a ValueError says that it gives no number."""
    try:
        with np.errstate(all="ignore"):
            return float(f(*point.tolist()))
    except (TypeError, OverflowError, ZeroDivisionError) as error:
        if isinstance(error, TypeError):
            raise ValueError(f"the function must map {len(point)} numbers to a number: {error}") from error
        return float("nan")


def slope(f: Callable[..., Any], point: np.ndarray, gradient: Callable[..., Any] | None = None) -> np.ndarray:
    """Return the gradient (n_dims,) at a point: the one given, or central differences."""
    if gradient is not None:
        try:
            with np.errstate(all="ignore"):
                found = np.atleast_1d(np.asarray(gradient(*point.tolist()), dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise ValueError(f"gradient must return {len(point)} numbers: {error}") from error
        if found.shape != point.shape:
            raise ValueError(f"gradient must return {len(point)} numbers, got shape {found.shape}")
        return found
    found = np.empty_like(point)
    for i, x in enumerate(point):
        step = np.zeros_like(point)
        step[i] = DIFFERENCE * max(1.0, abs(x))
        found[i] = (value(f, point + step) - value(f, point - step)) / (2 * step[i])
    return found


def descended(
    f: Callable[..., Any],
    start: np.ndarray,
    rate: Callable[[int], float],
    n_steps: int,
    momentum: float = 0.0,
    gradient: Callable[..., Any] | None = None,
) -> np.ndarray:
    """Return the points (n_steps + 1, n_dims) of v <- momentum v - rate(step) f'(x), x <- x + v, from `start`.

    It ends earlier where a point is no longer finite.
    """
    points, velocity = [start], np.zeros_like(start)
    for step in range(n_steps):
        try:
            size = float(rate(step))
        except (TypeError, ValueError) as error:
            raise ValueError(f"learning_rate must return a number for each step: {error}") from error
        velocity = momentum * velocity - size * slope(f, points[-1], gradient)
        point = points[-1] + velocity
        if not np.isfinite(point).all():
            break
        points.append(point)
    return np.array(points)


# --- networks ---------------------------------------------------------------------------------------------------------


def ready(estimator: Any, X: Any, y: Any, sizes: Iterable[tuple[int, float | None]]) -> Iterator[tuple[Any, int]]:
    """Yield a clone for each (size of batches, learning rate or None), all with the same first weights."""
    from sklearn.base import clone

    first = None
    for size, rate in sizes:
        model = clone(estimator)
        if rate is not None:
            model.set_params(learning_rate_init=rate)
        model.initialize(X, y)
        if first is None:
            first = model.get_weights()
        model.set_weights(first)
        yield model, size


def trained(model: Any, X: Any, y: Any, batch_size: int, n_epochs: int, rng: np.random.RandomState) -> Iterator[Any]:
    """Train a network batch by batch, in a new order of rows each epoch; yield its weights before and after each step.

    The last batch of an epoch may be smaller.
    """
    from fastmlp.sklearn_compat import _num_samples, _safe_indexing

    n = _num_samples(X)
    yield model.get_weights()
    for _ in range(n_epochs):
        order = rng.permutation(n)
        for begin in range(0, n, batch_size):
            rows = order[begin : begin + batch_size]
            model.train_on_batch(_safe_indexing(X, rows), _safe_indexing(y, rows))
            yield model.get_weights()


def length_ratio(points: np.ndarray) -> float:
    """Return the length of a path (n_points, n_dims) over the distance from its beginning to its end.

    1 is a straight line; it is NaN for a path that does not move.

    Examples
    --------
    >>> length_ratio(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]]))
    1.4
    """
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    distance = np.linalg.norm(points[-1] - points[0])
    return float(length / distance) if distance > 0 else float("nan")
