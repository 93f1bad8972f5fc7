"""The weights of the first layer's neurons as images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np

from fastmlp.displays._axes import Display
from fastmlp.estimator.description import fitted_layers


class WeightsDisplay(Display):
    """Weights of the neurons in the first hidden layer as images, pixel by pixel.

    All images share one colour scale, symmetric about zero.  Neurons are numbered above their images.  With batch
    normalisation, weights are those it is folded into.

    Made by :meth:`from_estimator` or :meth:`from_weights`.

    Parameters
    ----------
    images : ndarray of shape (n_units, height, width)
    units : ndarray of int of shape (n_units,)
        Their numbers.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    image_ : matplotlib AxesImage
        A mosaic of all images.
    colorbar_ : matplotlib Colorbar or None

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.displays import WeightsDisplay
    >>> W = np.random.RandomState(0).normal(size=(64, 20))
    >>> WeightsDisplay.from_weights(W, units=5).images.shape
    (5, 8, 8)
    """

    def __init__(self, *, images: np.ndarray, units: np.ndarray) -> None:
        self.images, self.units = images, units

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        image_shape: tuple[int, int] | None = None,
        units: Any = 20,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw first-layer weights of a fitted network.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor, or what ends in one
            Fitted. scikit-learn's estimators will do.
        image_shape, units
            As in :meth:`from_weights`.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        WeightsDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        TypeError
            If it is not a multi-layer perceptron.
        ValueError
            As :meth:`from_weights`.
        ImportError
            If matplotlib is not installed.
        """
        W = fitted_layers(estimator).coefs[0]
        return cls.from_weights(W, image_shape=image_shape, units=units, ax=ax, **options)

    @classmethod
    def from_weights(
        cls, W: Any, *, image_shape: tuple[int, int] | None = None, units: Any = 20, ax: Any = None, **options: Any
    ) -> Self:
        """Draw a matrix of weights.

        Parameters
        ----------
        W : array-like of shape (n_features, n_units)
        image_shape : (int, int), default=None
            Height and width, in pixels, of the images that the features are, row by row. None: they are square.
        units : int or sequence of int, default=20
            How many neurons to show, those with the largest norms, or their numbers.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        WeightsDisplay

        Raises
        ------
        ValueError
            If the number of features is not that of the pixels, there is no such neuron, or a weight is not finite.
        ImportError
            If matplotlib is not installed.
        """
        W = np.asarray(W, dtype=np.float64)
        if W.ndim != 2 or 0 in W.shape or not np.isfinite(W).all():
            raise ValueError(f"W must be a matrix of finite numbers, got shape {W.shape}")
        height, width = _image_shape(image_shape, W.shape[0])
        chosen = _chosen(units, W)
        return cls(images=W.T[chosen].reshape(-1, height, width), units=chosen).plot(ax, **options)

    def plot(
        self,
        ax: Any = None,
        *,
        n_columns: int | None = None,
        colorbar: bool = True,
        cmap: Any = "RdBu_r",
        **kwargs: Any,
    ) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        n_columns : int, default=None
            Images in a row; None: as many as make the figure about square.
        colorbar : bool, default=True
            Whether to draw the scale.
        cmap : str or Colormap, default="RdBu_r"
            One that is neutral in its middle: white is no weight, red is positive.
        **kwargs
            For ``Axes.imshow``, for instance another ``vmin`` and ``vmax``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `n_columns` is less than 1.
        """
        n, height, width = self.images.shape
        if n_columns is None:
            n_columns = max(1, round(math.sqrt(1.5 * n * height / width)))
        if not n_columns >= 1:
            raise ValueError(f"n_columns must be >= 1, got {n_columns!r}")
        n_columns = min(int(n_columns), n)
        n_rows = -(-n // n_columns)
        # a strip above each image has room for its number
        strip, gap = max(1, round(0.3 * height)), max(1, round(0.08 * width))
        mosaic = np.full((n_rows * (height + strip), n_columns * (width + gap) - gap), np.nan)
        tile = 0.75 if max(height, width) <= 12 else 1.0  # inches
        scale = tile / max(height, width)
        ax = self._begin(ax, mosaic.shape[1] * scale + 1.4, mosaic.shape[0] * scale + 0.2)
        corners = [(i // n_columns * (height + strip) + strip, i % n_columns * (width + gap)) for i in range(n)]
        for image, (top, left) in zip(self.images, corners, strict=True):
            mosaic[top : top + height, left : left + width] = image
        largest = float(np.abs(self.images).max()) or 1.0
        style = {"cmap": cmap, "vmin": -largest, "vmax": largest, "interpolation": "nearest"} | kwargs
        self.image_ = ax.imshow(mosaic, **style)
        for unit, (top, left) in zip(self.units, corners, strict=True):
            ax.text(left + width / 2 - 0.5, top - 0.5 - 0.1 * strip, str(unit), ha="center", va="bottom", fontsize=7)
        ax.axis("off")
        self.colorbar_ = self.figure_.colorbar(self.image_, ax=ax, label="weight", fraction=0.04) if colorbar else None
        return self


def _image_shape(given: Sequence[int] | None, n_features: int) -> tuple[int, int]:
    if given is None:
        side = math.isqrt(n_features)
        if side * side != n_features:
            raise ValueError(
                f"image_shape must be given, as (height, width): {n_features} features are no square image"
            )
        return side, side
    shape = tuple(given) if isinstance(given, tuple | list) else ()
    whole = len(shape) == 2 and all(isinstance(n, Integral) and int(n) > 0 for n in shape)
    if not whole or math.prod(shape) != n_features:
        raise ValueError(
            f"image_shape must be (height, width) with {n_features} pixels, one per feature, got {given!r}"
        )
    return int(shape[0]), int(shape[1])


def _chosen(units: Any, W: np.ndarray) -> np.ndarray:
    """Return the numbers of the neurons to show."""
    n = W.shape[1]
    if isinstance(units, Integral):
        if int(units) < 1:
            raise ValueError(f"units must be >= 1, or numbers of neurons, got {units!r}")
        return np.sort(np.argsort(-np.linalg.norm(W, axis=0), kind="stable")[: int(units)])
    chosen = np.asarray(units)
    if (
        chosen.ndim != 1
        or not len(chosen)
        or chosen.dtype.kind not in "iu"
        or (chosen < 0).any()
        or (chosen >= n).any()
    ):
        raise ValueError(f"units must be how many, or numbers of neurons from 0 to {n - 1}, got {units!r}")
    return chosen
