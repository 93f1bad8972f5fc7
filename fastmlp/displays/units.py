"""What the neurons of a layer answer to: over two features, over one, or pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse

from fastmlp.displays._axes import check_whole, network_and_rows
from fastmlp.displays._mosaic import Mosaic, chosen_units, image_shape_of

#: Rows over which the answer to a pixel is averaged, at most.
MOST_ROWS = 200
#: Half the difference of two values of a pixel, as a share of the range of all pixels.
PIXEL_STEP = 0.005


class UnitDisplay(Mosaic):
    """Outputs of the neurons of a layer: heat maps over two features, lines over one, or images of their slopes.

    The image of a neuron shows how its output changes with each pixel, on average over some rows. Maps and images share
    one colour scale; neurons are numbered above them.

    Made by :meth:`from_estimator` or :meth:`from_outputs`.

    Parameters
    ----------
    outputs : ndarray of shape (n_x, n_units), (n_y, n_x, n_units) or (height, width, n_units)
    units : ndarray of int of shape (n_units,)
        Their numbers.
    axes : tuple of ndarray, default=()
        The values of one feature or two, ascending; none for images.
    names : sequence of str, default=("x", "y")
        Of the features.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    image_ : matplotlib AxesImage or None
        A mosaic of all maps or images.
    colorbar_ : matplotlib Colorbar or None
    lines_ : list of matplotlib Line2D
        Of one feature.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import MLPRegressor
    >>> from fastmlp.displays import UnitDisplay
    >>> X = np.linspace(-1, 1, 50).reshape(-1, 1)
    >>> reg = MLPRegressor(hidden_layer_sizes=(3,), random_state=0).initialize(X, X.ravel() ** 2)
    >>> UnitDisplay.from_estimator(reg, X).outputs.shape
    (200, 3)
    """

    def __init__(
        self,
        *,
        outputs: np.ndarray,
        units: np.ndarray,
        axes: Sequence[np.ndarray] = (),
        names: Sequence[str] = ("x", "y"),
    ) -> None:
        self.outputs, self.units, self.axes, self.names = outputs, units, tuple(axes), tuple(names[: len(axes)])

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        layer: int = 0,
        units: Any = 16,
        features: int | tuple[int, int] | None = None,
        image_shape: tuple[int, int] | None = None,
        grid_resolution: int | None = None,
        random_state: Any = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw the neurons of a network.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor, or a pipeline that ends in one
            Fitted, or initialized by ``initialize(X, y)``.
        X : array-like of shape (n_samples, n_features)
            Rows that tell the ranges of the features, and the means at which the other features are held; of images,
            the rows over which slopes are averaged.
        layer : int, default=0
            0 is the first hidden layer, -1 the output layer.
        units : int or sequence of int, default=16
            How many neurons to show, those whose outputs vary most, or their numbers.
        features : int or (int, int), default=None
            The feature, or the two, over which to draw; None: all, if there are one or two.
        image_shape : (int, int), default=None
            Height and width of the images that the features are, row by row: draw slopes by pixels.
        grid_resolution : int, default=None
            Points on each axis; None: 200 of one feature, 60 of two.
        random_state : int, RandomState instance or None, default=None
            Of the choice of 200 rows, if slopes are to be averaged over more.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        UnitDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator has no weights yet.
        TypeError
            If it is no MLPClassifier or MLPRegressor of fastmlp.
        IndexError
            If there is no such layer.
        ValueError
            If there is no such feature or neuron, or nothing says over what to draw.
        ImportError
            If matplotlib is not installed.
        """
        model, _ = network_and_rows(estimator, None)
        names = [str(name) for name in getattr(X, "columns", ())]
        X = X.toarray() if issparse(X) else X
        rows = np.asarray(X, dtype=np.float64)
        if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
            raise ValueError(f"X must be a matrix of finite numbers, got shape {rows.shape}")

        def outputs_at(points: np.ndarray) -> np.ndarray:
            named = type(X)(points, columns=X.columns) if names else points
            return np.asarray(model.layer_outputs(network_and_rows(estimator, named)[1], layer), np.float64)

        if image_shape is not None:
            outputs = _slopes(outputs_at, rows, image_shape_of(image_shape, rows.shape[1]), random_state)
            return cls.from_outputs(outputs, units=units, ax=ax, **options)
        over = _features(features, rows.shape[1])
        axes = _axes(rows[:, over], grid_resolution)
        grid = np.stack(np.meshgrid(*axes), axis=-1)
        points = np.tile(rows.mean(axis=0), (grid.size // len(axes), 1))
        points[:, over] = grid.reshape(-1, len(axes))
        found = outputs_at(points)
        shown = [names[i] if names else f"feature {i}" for i in over]
        outputs = found.reshape(*grid.shape[:-1], found.shape[1])
        return cls.from_outputs(outputs, axes, names=shown, units=units, ax=ax, **options)

    @classmethod
    def from_outputs(
        cls,
        outputs: Any,
        axes: Sequence[Any] = (),
        *,
        names: Sequence[str] = ("x", "y"),
        units: Any = 16,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw outputs of neurons.

        Parameters
        ----------
        outputs : array-like of shape (n_x, n_units), (n_y, n_x, n_units) or (height, width, n_units)
        axes : sequence of array-like, default=()
            The values x (n_x,), or x (n_x,) and y (n_y,); () for images, whose first row is above.
        names : sequence of str, default=("x", "y")
            Of the axes.
        units : int or sequence of int, default=16
            As in :meth:`from_estimator`.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        UnitDisplay

        Raises
        ------
        ValueError
            If shapes do not fit, a number is not finite, or there is no such neuron.
        ImportError
            If matplotlib is not installed.
        """
        values = np.asarray(outputs, dtype=np.float64)
        vectors = tuple(np.asarray(axis, dtype=np.float64) for axis in axes)
        expected = tuple(len(axis) for axis in reversed(vectors)) if vectors else values.shape[:2]
        if len(vectors) > 2 or values.shape[:-1] != expected or 0 in values.shape or not np.isfinite(values).all():
            raise ValueError(
                f"outputs must be finite numbers of shape {(*expected, 'n_units')}, got shape {values.shape}"
            )
        flat = values.reshape(-1, values.shape[-1])
        chosen = chosen_units(units, flat - flat.mean(axis=0) if vectors else flat)
        return cls(outputs=values[..., chosen], units=chosen, axes=vectors, names=names).plot(ax, **options)

    def plot(
        self,
        ax: Any = None,
        *,
        n_columns: int | None = None,
        colorbar: bool = True,
        cmap: Any = "RdBu_r",
        **kwargs: Any,
    ) -> Self:
        """Draw the maps, images or lines.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        n_columns : int, default=None
            Maps in a row; None: as many as make the figure about square.
        colorbar : bool, default=True
            Whether to draw the scale.
        cmap : str or Colormap, default="RdBu_r"
            One that is neutral in its middle: white is 0, or the middle of outputs that are never negative.
        **kwargs
            For ``Axes.imshow``, for instance another ``vmin`` and ``vmax``, or for ``Axes.plot`` of lines.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `n_columns` is less than 1.
        """
        self.lines_, self.image_, self.colorbar_ = [], None, None
        if len(self.axes) == 1:
            ax = self._begin(ax, 4.2, 3.2)
            for unit, values in zip(self.units, self.outputs.T, strict=True):
                self.lines_ += ax.plot(self.axes[0], values, **{"label": f"unit {unit}", "linewidth": 1.2} | kwargs)
            ax.set(xlabel=self.names[0], ylabel="output")
            if len(self.lines_) <= 10:
                ax.legend(frameon=False, fontsize="small", ncols=2)
            return self
        images = np.moveaxis(self.outputs, -1, 0)
        images = images[:, ::-1] if self.axes else images  # y grows upwards
        low, high = float(images.min()), float(images.max())
        largest = max(-low, high) or 1.0
        ends = (low, high) if self.axes and 0 <= low < high else (-largest, largest)
        style = {"cmap": cmap, "vmin": ends[0], "vmax": ends[1], "interpolation": "nearest"} | kwargs
        label = None if not colorbar else "output" if self.axes else "slope by the pixel"
        ax = self._draw_mosaic(ax, images, self.units, n_columns, label, style)
        if self.axes:
            told = [f"{name} {axis[0]:.3g} to {axis[-1]:.3g}" for name, axis in zip(self.names, self.axes, strict=True)]
            ax.set_title(f"→ {told[0]}, ↑ {told[1]}", fontsize="small")
        return self


def _features(given: Any, n_features: int) -> list[int]:
    """Return the one or two features over which to draw."""
    if given is None:
        if n_features > 2:
            raise ValueError(
                f"features must name one of {n_features} features, or two, as (0, 1); or give image_shape, if they are"
                " pixels"
            )
        return list(range(n_features))
    chosen = [given] if isinstance(given, int | np.integer) else list(given) if isinstance(given, tuple | list) else []
    whole = all(isinstance(i, int | np.integer) and -n_features <= i < n_features for i in chosen)
    if not whole or len(chosen) not in (1, 2) or len({int(i) % n_features for i in chosen}) < len(chosen):
        raise ValueError(f"features must be one or two different numbers from 0 to {n_features - 1}, got {given!r}")
    return [int(i) % n_features for i in chosen]


def _axes(columns: np.ndarray, resolution: int | None) -> tuple[np.ndarray, ...]:
    """Return the values of each feature, a little beyond those of the rows."""
    n = columns.shape[1]
    if resolution is None:
        resolution = 200 if n == 1 else 60
    check_whole("grid_resolution", resolution, 2)
    low, high = columns.min(axis=0), columns.max(axis=0)
    room = np.where(high > low, 0.05 * (high - low), 1.0)
    return tuple(np.linspace(a, b, int(resolution)) for a, b in zip(low - room, high + room, strict=True))


def _slopes(outputs_at: Any, rows: np.ndarray, shape: tuple[int, int], random_state: Any) -> np.ndarray:
    """Return the mean derivative of each neuron by each pixel, (height, width, n_units): central differences."""
    from sklearn.utils import check_random_state

    if len(rows) > MOST_ROWS:
        rows = rows[check_random_state(random_state).choice(len(rows), MOST_ROWS, replace=False)]
    step = PIXEL_STEP * (float(np.ptp(rows)) or 1.0)
    found = []
    for pixel in range(rows.shape[1]):
        both = np.concatenate([rows, rows])
        both[: len(rows), pixel] += step
        both[len(rows) :, pixel] -= step
        up, down = np.split(outputs_at(both), 2)
        found.append((up - down).mean(axis=0) / (2 * step))
    return np.array(found).reshape(*shape, -1)
