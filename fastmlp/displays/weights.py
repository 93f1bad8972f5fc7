"""The weights of the first layer's neurons as images."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from fastmlp.displays._mosaic import Mosaic, chosen_units, image_shape_of
from fastmlp.estimator.description import fitted_layers


class WeightsDisplay(Mosaic):
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
        height, width = image_shape_of(image_shape, W.shape[0])
        chosen = chosen_units(units, W)
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
        largest = float(np.abs(self.images).max()) or 1.0
        style = {"cmap": cmap, "vmin": -largest, "vmax": largest, "interpolation": "nearest"} | kwargs
        self._draw_mosaic(ax, self.images, self.units, n_columns, "weight" if colorbar else None, style)
        return self
