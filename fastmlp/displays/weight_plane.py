"""One or two axes in the space of a network's weights: chosen weights, random directions, or those of paths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from fastmlp.estimator.inside import WeightSpace


class WeightPlane:
    """The loss of a network over one or two axes in the space of its weights: theta = centre + sum_i x_i d_i.

    ``unit`` says that x_i are multiples of the directions; else they are the values of weights.
    """

    unit = True

    def __init__(self, space: WeightSpace) -> None:
        self._space, self.centre = space, space.present.astype(np.float64)
        self.directions = np.empty((0, len(self.centre)))

    @property
    def origin(self) -> np.ndarray:
        """The coordinates of the present weights."""
        return np.zeros(len(self.directions)) if self.unit else self.directions @ self.centre

    def points(self, path: Sequence[Any]) -> np.ndarray:
        """Return the weights along a path as vectors (n_points, n_weights)."""
        steps = [weights if isinstance(weights, list | tuple) else [weights] for weights in path]
        points = np.empty((len(steps), len(self.centre)))
        if not len(points):
            raise ValueError("a path must hold weights, got an empty one")
        for point, weights in zip(points, steps, strict=True):
            views = [view for _, view in self._space.arrays(point)]
            shapes, found = [view.shape for view in views], [np.shape(array) for array in weights]
            if shapes != found:
                raise ValueError(
                    f"the weights of a path must have the shapes {shapes}, as get_weights() has, got {found}"
                )
            for view, array in zip(views, weights, strict=True):
                view[...] = array
        return points

    def along_weights(self, names: Sequence[str]) -> None:
        if not isinstance(names, list | tuple) or len(names) not in (1, 2):
            raise ValueError(f"weights must name one weight or two, got {names!r}")
        self.names, self.unit = tuple(names), False
        self.directions = np.zeros((len(names), len(self.centre)))
        for direction, name in zip(self.directions, names, strict=True):
            direction[self._place(name)] = 1.0
        if len(names) == 2 and self.directions[0] @ self.directions[1]:
            raise ValueError(f"weights must name two weights, got {names!r}")

    def _place(self, name: Any) -> int:
        """Return where a weight is in the vector."""
        places = dict(self._space.arrays(np.arange(len(self.centre), dtype=np.intp)))
        found = re.fullmatch(r"(\w+\[\d+\])\[(\d+)(?:, *(\d+))?\]", name) if isinstance(name, str) else None
        if found is not None and found[1] in places:
            index, array = [int(i) for i in found.groups()[1:] if i is not None], places[found[1]]
            if len(index) == array.ndim and all(i < n for i, n in zip(index, array.shape, strict=True)):
                return int(array[tuple(index)])
        shapes = {array: places[array].shape for array in places}
        raise ValueError(f"weights must be written as 'coefs_[0][i, j]', within the shapes {shapes}; got {name!r}")

    def along_random(self, n: int, normalize: bool, random_state: Any) -> None:
        """Draw directions; with `normalize` those of each neuron have the norm of its weights, and biases none."""
        from sklearn.utils import check_random_state

        if n not in (1, 2):
            raise ValueError(f"directions must be 1, 2 or 'paths', got {n!r}")
        rng = check_random_state(random_state)
        self.names = ("first random direction", "second random direction")[:n]
        directions = []
        for _ in range(n):
            direction = np.zeros_like(self.centre)
            views = zip(self._space.arrays(self.centre), self._space.arrays(direction), strict=True)
            for (_, W), (_, part) in views:
                drawn = rng.normal(size=W.shape)
                norms = np.linalg.norm(drawn, axis=0)
                if not normalize:
                    part[...] = drawn
                elif W.ndim == 2:
                    part[...] = drawn * (np.linalg.norm(W, axis=0) / np.where(norms == 0, 1, norms))
            directions.append(direction)
        self.directions = np.array(directions)

    def along_paths(self, paths: Mapping[str, np.ndarray]) -> None:
        """Take the principal components of all points, seen from the centre; of two weights, the weights."""
        if not paths:
            raise ValueError('directions="paths" needs paths')
        if len(self.centre) == 2:
            self.along_weights(["coefs_[0][0, 0]", "intercepts_[0][0]"])
            return
        # each path weighs the same, however many steps it has
        seen = np.vstack([(path - self.centre) / np.sqrt(len(path)) for path in paths.values()])
        if not np.isfinite(seen).all():
            raise ValueError('directions="paths" needs paths of finite weights')
        components = np.linalg.svd(seen, full_matrices=False)[2][:2]
        if len(components) < 2:
            raise ValueError('directions="paths" needs paths of at least two points')
        self.names, self.directions = ("first component of the paths", "second component of the paths"), components

    def projected(self, points: np.ndarray) -> np.ndarray:
        """Return the coordinates (n_points, n_axes) nearest to points (n_points, n_weights)."""
        if not self.unit:
            return points @ self.directions.T
        return np.linalg.lstsq(self.directions.T, (points - self.centre).T, rcond=None)[0].T

    def ranges(self, span: float, paths: Sequence[np.ndarray]) -> list[tuple[float, float]]:
        """Return the range of each axis: `span` around the present weights, or what paths need."""
        if not (isinstance(span, Real) and 0 < span < np.inf):
            raise ValueError(f"span must be a number > 0, got {span!r}")
        points = np.vstack([self.origin, *paths])
        points = points[np.isfinite(points).all(axis=1)]
        low, high = points.min(axis=0), points.max(axis=0)
        room = 0.15 * (high - low) if paths else np.full(len(low), span)
        room = np.where(high + room > low, room, span)
        return list(zip((low - room).tolist(), (high + room).tolist(), strict=True))

    def losses_at(self, points: np.ndarray) -> np.ndarray:
        """Return the loss at points (n_points, n_weights)."""
        return np.array([self._space.loss(point) for point in points])

    def losses(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Return the loss at the points of a grid."""
        grid = np.stack(np.meshgrid(*axes), axis=-1) - self.origin
        points = self.centre + grid.reshape(-1, len(axes)) @ self.directions
        return self.losses_at(points).reshape(grid.shape[:-1])
