"""The loss over weights, or any function of one or two variables, with paths of descent on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, Self

import numpy as np

from fastmlp.displays import descent
from fastmlp.displays._axes import Display, check_whole, network_and_rows
from fastmlp.displays.weight_plane import WeightPlane
from fastmlp.estimator.inside import WeightSpace
from fastmlp.sklearn_compat import _num_samples

#: Points of a curve, and on each axis of a surface.
RESOLUTION = {1: 401, 2: 41}


class LossSurfaceDisplay(Display):
    """A loss over one variable, as a curve, or over two, by its contours; with paths of descent.

    Made by :meth:`from_function`, :meth:`from_estimator` or :meth:`from_training`.

    Parameters
    ----------
    axes : tuple of ndarray
        One or two: the values of each variable, ascending.
    loss : ndarray of shape (n_x,) or (n_y, n_x)
    paths : dict of str to ndarray of shape (n_points, n_dims), default=None
        Points by label.
    path_losses : dict of str to ndarray of shape (n_points,), default=None
        The loss at the points of each path.
    ratios : dict of str to float, default=None
        Length of each path over the distance from its beginning to its end; of a network in the space of all its
        weights. None: of the paths as they are drawn.
    names : sequence of str, default=("x", "y")
        Of the variables.
    function, gradient : callable, default=None
        What :meth:`descend` descends on.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D or None
        Of one variable.
    contours_ : matplotlib QuadContourSet or None
        Of two.
    path_lines_ : dict of str to matplotlib Line2D

    References
    ----------
    Li, Xu, Taylor, Studer and Goldstein (2018), Visualizing the loss landscape of neural nets, arXiv:1712.09913.

    Examples
    --------
    >>> from fastmlp.displays import LossSurfaceDisplay
    >>> display = LossSurfaceDisplay.from_function(lambda x: 3 * x**2 - 3 * x + 4, (-2, 3))
    >>> display.descend(-1.5, learning_rate=0.1).paths["rate 0.1"][-1].round(6).tolist()
    [0.5]
    """

    def __init__(
        self,
        *,
        axes: Sequence[np.ndarray],
        loss: np.ndarray,
        paths: Mapping[str, np.ndarray] | None = None,
        path_losses: Mapping[str, np.ndarray] | None = None,
        ratios: Mapping[str, float] | None = None,
        names: Sequence[str] = ("x", "y"),
        function: Callable[..., Any] | None = None,
        gradient: Callable[..., Any] | None = None,
    ) -> None:
        self.axes, self.loss, self.names = tuple(axes), loss, tuple(names[: len(axes)])
        self.paths, self.path_losses = dict(paths or {}), dict(path_losses or {})
        own = {label: descent.length_ratio(points) for label, points in self.paths.items()}
        self.ratios = own | dict(ratios or {})
        self.function, self.gradient = function, gradient

    # --- functions ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        x: tuple[float, float],
        y: tuple[float, float] | None = None,
        *,
        gradient: Callable[..., Any] | None = None,
        grid_resolution: int | None = None,
        names: Sequence[str] = ("x", "y"),
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw a function of one or two variables.

        Parameters
        ----------
        function : callable
            f(x) or f(x, y), of numbers; it is called point by point.
        x : (float, float)
            Range of the first variable.
        y : (float, float), default=None
            Range of the second one; None: there is none.
        gradient : callable, default=None
            f'(x), or the two partial derivatives as a tuple. None: central differences.
        grid_resolution : int, default=None
            Points on each axis; None: 401 of one variable, 41 of two.
        names : sequence of str, default=("x", "y")
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        LossSurfaceDisplay

        Raises
        ------
        ValueError
            If a range is none, the function gives no number, or `grid_resolution` is less than 2.
        ImportError
            If matplotlib is not installed.
        """
        ranges = [_range("x", x)] + ([] if y is None else [_range("y", y)])
        axes = _grid(ranges, grid_resolution)
        points = np.stack(np.meshgrid(*axes), axis=-1)
        loss = np.array([descent.value(function, point) for point in points.reshape(-1, len(axes))])
        made = cls(axes=axes, loss=loss.reshape(points.shape[:-1]), names=names, function=function, gradient=gradient)
        return made.plot(ax, **options)

    def descend(
        self,
        start: float | Sequence[float],
        *,
        learning_rate: float | Callable[[int], float] = 0.1,
        n_steps: int = 50,
        momentum: float = 0.0,
        label: str | None = None,
    ) -> Self:
        """Descend on the function from a point, and draw the path.

        The step is ``v = momentum * v - learning_rate * gradient``, then ``x = x + v``.

        Parameters
        ----------
        start : float or sequence of float
            Where to begin.
        learning_rate : float or callable, default=0.1
            A function is given the number of the step, from 0: ``lambda step: 0.3 / (1 + step)``.
        n_steps : int, default=50
            The path ends earlier where a number is no longer finite.
        momentum : float, default=0
        label : str, default=None
            Name of the path; None: "rate 0.1", with the start if there is such a path.

        Returns
        -------
        self
            With the path in ``paths``.

        Raises
        ------
        ValueError
            If the display is of no function, or a number is out of its range.
        """
        if self.function is None:
            raise ValueError("descend needs a display made by from_function: there is no function to descend on")
        n_dims = len(self.axes)
        point = np.atleast_1d(np.asarray(start, dtype=np.float64))
        if point.shape != (n_dims,) or not np.isfinite(point).all():
            raise ValueError(f"start must hold {n_dims} finite numbers, got {start!r}")
        if not callable(learning_rate) and not (isinstance(learning_rate, Real) and 0 < learning_rate < np.inf):
            raise ValueError(f"learning_rate must be a number > 0 or a function of the step, got {learning_rate!r}")
        check_whole("n_steps", n_steps, 1)
        if not (isinstance(momentum, Real) and 0 <= momentum < 1):
            raise ValueError(f"momentum must be in [0, 1), got {momentum!r}")
        if label is None:
            label = "changing rate" if callable(learning_rate) else f"rate {learning_rate:g}"
            label += f", momentum {momentum:g}" if momentum else ""
            if label in self.paths:
                label += f", from {', '.join(f'{x:g}' for x in point)}"
        rate = learning_rate if callable(learning_rate) else lambda step: learning_rate
        path = descent.descended(self.function, point, rate, int(n_steps), momentum, self.gradient)
        self.paths[label] = path
        self.path_losses[label] = np.array([descent.value(self.function, x) for x in path])
        self.ratios[label] = descent.length_ratio(path)
        if "ax_" in vars(self):
            self._draw_path(label)
            self._draw_legend()
        return self

    # --- networks ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        weights: str | Sequence[str] | None = None,
        directions: int | Literal["paths"] = 2,
        normalize: bool = True,
        span: float = 1.0,
        grid_resolution: int | None = None,
        paths: Mapping[str, Sequence[Any]] | None = None,
        random_state: Any = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw the loss of a network around its present weights, its penalty included.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor, or a pipeline that ends in one
            Fitted, or initialized by ``initialize(X, y)``. It is left as it is.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
        weights : str or sequence of one or two str, default=None
            The weights to vary, written as in Python: ``"coefs_[0][1, 0]"``, ``"intercepts_[1][0]"``. The others stay.
            None: all weights are moved along `directions`.
        directions : {1, 2} or "paths", default=2
            How many random directions; or the two in which the points of `paths` lie as nearly as possible, their
            principal components.
        normalize : bool, default=True
            Whether the weights into each neuron in a random direction have the norm of those of the network
            (filter normalization). Biases then stay.
        span : float, default=1.0
            How far to go on either side: of chosen weights in their units, else in lengths of the directions. With
            `paths` the axes are as long as these need.
        grid_resolution : int, default=None
            Points on each axis; None: 401 of one variable, 41 of two.
        paths : mapping of str to sequence, default=None
            Weights along a training, each as ``get_weights()`` returns them. They are projected onto the axes.
        random_state : int, RandomState instance or None, default=None
            Of the directions.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        LossSurfaceDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator has no weights yet.
        TypeError
            If it is no MLPClassifier or MLPRegressor of fastmlp.
        ValueError
            If there is no such weight, or an argument is out of its range.
        ImportError
            If matplotlib is not installed.
        """
        model, X = network_and_rows(estimator, X)
        plane = WeightPlane(WeightSpace(model, X, y, sample_weight))
        if paths is not None and not isinstance(paths, Mapping):
            raise ValueError(f"paths must be a dict from labels to lists of weights, got {type(paths).__name__}")
        points = {str(label): plane.points(path) for label, path in (paths or {}).items()}
        if weights is not None:
            plane.along_weights([weights] if isinstance(weights, str) else weights)
        elif directions == "paths":
            plane.along_paths(points)
        else:
            plane.along_random(directions, normalize, random_state)
        on_axes = {label: plane.projected(path) for label, path in points.items()}
        axes = _grid(plane.ranges(span, list(on_axes.values())), grid_resolution)
        return cls(
            axes=axes,
            loss=plane.losses(axes),
            paths=on_axes,
            path_losses={label: plane.losses_at(path) for label, path in points.items()},
            ratios={label: descent.length_ratio(path) for label, path in points.items()},
            names=plane.names,
        ).plot(ax, **options)

    @classmethod
    def from_training(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        batch_sizes: Sequence[int | None] = (1, 32, None),
        n_epochs: int = 10,
        learning_rates: Sequence[float] | None = None,
        directions: int | Literal["paths"] = "paths",
        random_state: Any = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Train copies of an estimator with batches of several sizes, and draw their paths on the loss.

        All begin at the same first weights; with one weight and a bias, or with ``weights=``, the axes are these.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            What to train; its parameters say how. It is left as it is.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        batch_sizes : sequence of int or None, default=(1, 32, None)
            Rows of a step: 1 is single-sample descent, None takes all rows.
        n_epochs : int, default=10
            Passes over the rows, of every path.
        learning_rates : sequence of float, default=None
            One for each size of batches; None: ``learning_rate_init``.
        directions : {1, 2} or "paths", default="paths"
            As in :meth:`from_estimator`.
        random_state : int, RandomState instance or None, default=None
            Of the order of rows and of random directions. The first weights are drawn by the estimator's own.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`from_estimator` and :meth:`plot`.

        Returns
        -------
        LossSurfaceDisplay
            Around the weights at the end of the last path.

        Raises
        ------
        TypeError
            If the estimator is no MLPClassifier or MLPRegressor of fastmlp.
        ValueError
            If an argument is out of its range.
        ImportError
            If matplotlib is not installed.
        """
        from sklearn.utils import check_random_state

        if network_and_rows(estimator, None, fitted=False)[0] is not estimator:
            raise TypeError(f"from_training trains an MLPClassifier or MLPRegressor by itself, got {estimator!r}")
        rng, n = check_random_state(random_state), _num_samples(X)
        sizes = [n if size is None else size for size in batch_sizes]
        for size in sizes:
            check_whole("batch_sizes", size, 1, n)
        check_whole("n_epochs", n_epochs, 1)
        if not sizes:
            raise ValueError("batch_sizes must hold a size of batches, got none")
        rates = [None] * len(sizes) if learning_rates is None else list(learning_rates)
        if len(rates) != len(sizes):
            raise ValueError(
                f"learning_rates must hold one for each of the {len(sizes)} batch_sizes, got {learning_rates!r}"
            )
        paths = {}
        for model, size in descent.ready(estimator, X, y, zip(sizes, rates, strict=True)):
            label = "single samples" if size == 1 else "all rows" if size == n else f"batches of {size}"
            paths[label] = list(descent.trained(model, X, y, int(size), int(n_epochs), rng))
        kept = {"paths": paths, "directions": directions, "random_state": rng}
        return cls.from_estimator(model, X, y, **kept, ax=ax, **options)

    # --- drawing -----------------------------------------------------------------------------------------------------

    def plot(
        self, ax: Any = None, *, levels: Any = 20, cmap: Any = "Greys", colorbar: bool = True, **kwargs: Any
    ) -> Self:
        """Draw the curve or the contours, and the paths.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        levels : int or array-like, default=20
            Of contours: how many, closer where the loss is low, or their losses.
        cmap : str or Colormap, default="Greys"
            Of the contours.
        colorbar : bool, default=True
            Whether to draw the scale beside the contours.
        **kwargs
            For ``Axes.plot`` of a curve, or ``Axes.contourf``.

        Returns
        -------
        self
        """
        ax = self._begin(ax, 5.2, 4.0)
        self.line_ = self.contours_ = self.colorbar_ = None
        self.path_lines_: dict[str, Any] = {}
        loss = np.ma.masked_invalid(self.loss)
        if loss.mask.all():
            raise ValueError("the loss is nowhere finite: there is nothing to draw")
        if len(self.axes) == 1:
            (self.line_,) = ax.plot(self.axes[0], loss, **{"color": "0.35", "zorder": 1} | kwargs)
            low, high = float(loss.min()), float(loss.max())
            margin = 0.05 * ((high - low) or 1.0)
            ax.set(xlabel=self.names[0], ylabel="loss", ylim=(low - margin, high + margin))
        else:
            given = _levels(loss, levels) if isinstance(levels, int | np.integer) else levels
            self.contours_ = ax.contourf(*self.axes, loss, given, **{"cmap": cmap, "alpha": 0.7} | kwargs)
            ax.contour(*self.axes, loss, self.contours_.levels, colors="0.5", linewidths=0.4)
            ax.set(xlabel=self.names[0], ylabel=self.names[1])
            if colorbar:
                self.colorbar_ = self.figure_.colorbar(self.contours_, ax=ax, label="loss", format="%.3g")
        ax.set_xlim(self.axes[0][0], self.axes[0][-1])
        for label in self.paths:
            self._draw_path(label)
        self._draw_legend()
        return self

    def _draw_path(self, label: str) -> None:
        path, n = self.paths[label], len(self.path_lines_)
        y = self.path_losses[label] if len(self.axes) == 1 else path[:, 1]
        if len(self.axes) == 2:
            self.ax_.set_ylim(self.axes[1][0], self.axes[1][-1])
        text = f"{label}: {len(path) - 1} steps"
        if len(self.axes) == 2 and np.isfinite(self.ratios[label]):
            text += f", {self.ratios[label]:.2g} x the distance"
        style = {"color": f"C{n}", "marker": ".", "zorder": 3, "label": text}
        style |= {"markersize": 5, "linewidth": 1.0} if len(path) <= 100 else {"markersize": 2, "linewidth": 0.6}
        (self.path_lines_[label],) = self.ax_.plot(path[:, 0], y, **style)
        ends = {"color": f"C{n}", "markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 4, "linestyle": "none"}
        self.ax_.plot(path[:1, 0], y[:1], marker="o", markersize=7, **ends)
        self.ax_.plot(path[-1:, 0], y[-1:], marker="*", markersize=12, **ends)

    def _draw_legend(self) -> None:
        if self.paths:
            self.ax_.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small")


def _range(name: str, given: Any) -> tuple[float, float]:
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"{name} must be a range (low, high) with low < high, got {given!r}")
    return low, high


def _grid(ranges: Sequence[tuple[float, float]], resolution: int | None) -> tuple[np.ndarray, ...]:
    if resolution is None:
        resolution = RESOLUTION[len(ranges)]
    check_whole("grid_resolution", resolution, 2)
    return tuple(np.linspace(low, high, int(resolution)) for low, high in ranges)


def _levels(loss: np.ma.MaskedArray, n: Any) -> np.ndarray:
    """Return losses of contours, closer where it is low."""
    check_whole("levels", n, 2)
    low, high = float(loss.min()), float(loss.max())
    return low + ((high - low) or 1.0) * np.linspace(0, 1, int(n)) ** 2
