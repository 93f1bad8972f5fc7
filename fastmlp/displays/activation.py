"""An activation and its slope."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastmlp.displays._axes import Display, numbers
from fastmlp.engines import backends, by_name
from fastmlp.estimator.description import describe, judged_activation, last_estimator
from fastmlp.estimator.types import BackendName


class ActivationDisplay(Display):
    """An activation f(z) and its slope, as the engine computes them.

    Made by :meth:`from_activation` or :meth:`from_estimator`.

    Parameters
    ----------
    z : ndarray of shape (n_points,)
    a : ndarray of shape (n_points,)
        The activation there.
    slope : ndarray of shape (n_points,)
        What training takes for its derivative.
    name : str

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
        Of the activation.
    slope_line_ : matplotlib Line2D or None

    Examples
    --------
    >>> from fastmlp.displays import ActivationDisplay
    >>> display = ActivationDisplay.from_activation(("elu", {"alpha": 0.5}), z=[-1.0, 0.0, 1.0])
    >>> display.a.round(3).tolist(), display.slope.round(3).tolist()
    ([-0.316, 0.0, 1.0], [0.184, 0.5, 1.0])
    """

    def __init__(self, *, z: np.ndarray, a: np.ndarray, slope: np.ndarray, name: str) -> None:
        self.z, self.a, self.slope, self.name = z, a, slope, name

    @classmethod
    def from_activation(
        cls, activation: Any, *, z: Any = None, backend: BackendName = "auto", ax: Any = None, **options: Any
    ) -> Self:
        """Draw an activation.

        Parameters
        ----------
        activation : str, (str, dict) or formula
            As the estimators take it: a name, a name with parameters, or one made by :func:`fastmlp.activation`.
        z : array-like of shape (n_points,), default=None
            Where to evaluate it; 1001 points from -5 to 5 if None.
        backend : str, default="auto"
            The engine that evaluates it.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        ActivationDisplay

        Raises
        ------
        ValueError
            If there is no such activation, parameter or backend, or if `z` is not a vector of finite numbers.
        ImportError
            If matplotlib is not installed.
        """
        entry = judged_activation(activation)
        points = np.linspace(-5, 5, 1001) if z is None else numbers("z", z)
        engine = backends.get(backend)
        a, slope = by_name.activate(engine, entry, points), by_name.slope(engine, entry, points)
        return cls(z=points, a=a, slope=slope, name=describe(entry)).plot(ax, **options)

    @classmethod
    def from_estimator(cls, estimator: Any, *, layer: int = 0, z: Any = None, ax: Any = None, **options: Any) -> Self:
        """Draw the activation of a hidden layer; of prelu that with the mean of the slopes learned there.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor, or what ends in one
            Fitted.
        layer : int, default=0
            The hidden layer, from 0; negative numbers count from the last.
        z : array-like of shape (n_points,), default=None
            As in :meth:`from_activation`.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        ActivationDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If there is no such layer.
        TypeError
            If the estimator is none of fastmlp.
        ImportError
            If matplotlib is not installed.
        """
        from fastmlp.estimator.base import _BaseMLP

        model = last_estimator(estimator)
        if not isinstance(model, _BaseMLP):
            raise TypeError(f"the estimator must be one of fastmlp's, or end in one, got {model!r}")
        check_is_fitted(model, "coefs_")
        entries = model._fitted_network().activations
        if not -len(entries) <= layer < len(entries):
            raise ValueError(
                f"layer must be in [{-len(entries)}, {len(entries) - 1}], the hidden layers, got {layer!r}"
            )
        entry = entries[layer]
        if entry == "prelu" and model.__dict__.get("prelu_slopes_") is not None:
            entry = ("prelu", {"slope": float(np.mean(model.prelu_slopes_[layer]))})
        return cls.from_activation(entry, z=z, backend=model.backend, ax=ax, **options)

    def plot(self, ax: Any = None, *, slope: bool = True, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        slope : bool, default=True
            Whether to draw the slope, dashed in the same colour.
        **kwargs
            For ``Axes.plot`` of both curves.

        Returns
        -------
        self
        """
        ax = self._begin(ax, 4.2, 3.2)
        (self.line_,) = ax.plot(self.z, self.a, **{"label": self.name, **kwargs})
        self.slope_line_ = None
        if slope:
            dashed = (
                {"linestyle": "--", "alpha": 0.7} | kwargs | {"label": "its slope", "color": self.line_.get_color()}
            )
            (self.slope_line_,) = ax.plot(self.z, self.slope, **dashed)
        ax.set(xlabel="z")
        ax.legend(frameon=False)
        return self
