"""The layers of a network: neurons, and the strongest weights between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastmlp.displays._axes import Display
from fastmlp.estimator.description import fitted_layers
from fastmlp.model.weights import linear_shape


@dataclass(eq=False, repr=False, kw_only=True)
class NetworkDisplay(Display):
    """Neurons as circles, weights as lines between them.

    The colour of a line is the sign of the weight, its width and opacity are the size, measured by the largest in its
    layer; the filling of a circle is its neuron's bias in the same way. Of wide layers only the strongest neurons are
    shown, in their order: those with the largest product of the norms of the weights before and behind them; a colon
    of dots below says that there are more. With batch normalisation, weights and biases are those it is folded into.

    Made by :meth:`from_estimator` or :meth:`from_weights`.

    Parameters
    ----------
    coefs : list of ndarray of shape (fan_in, fan_out)
    intercepts : list of ndarray of shape (fan_out,)
    activations : list of str, default=None
        One per layer, the output's last.
    feature_names, output_names : list of str, default=None

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    shown_ : list of ndarray of int
        Indices of the neurons shown, for each layer from the features to the outputs.
    units_ : list of matplotlib PathCollection
        Likewise, their circles.
    weights_ : list of matplotlib LineCollection
        For each matrix, the lines.

    Examples
    --------
    >>> from fastmlp.displays import NetworkDisplay
    >>> display = NetworkDisplay.from_weights([[[1.0, -2.0], [0.5, 0.0]], [[3.0], [1.0]]], [[0.1, 0.2], [0.0]])
    >>> [len(lines.get_segments()) for lines in display.weights_]  # none for a weight of 0
    [3, 2]
    """

    coefs: Sequence[np.ndarray]
    intercepts: Sequence[np.ndarray]
    activations: Sequence[str] | None = None
    feature_names: Sequence[str] | None = None
    output_names: Sequence[str] | None = None

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **options: Any) -> Self:
        """Draw a fitted network.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor, or what ends in one
            Fitted. scikit-learn's estimators will do.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        NetworkDisplay

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
        return cls.from_weights(**vars(fitted_layers(estimator)), ax=ax, **options)

    @classmethod
    def from_weights(
        cls,
        coefs: Sequence[Any],
        intercepts: Sequence[Any],
        *,
        activations: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw weights and biases.

        Parameters
        ----------
        coefs : list of array-like of shape (fan_in, fan_out)
        intercepts : list of array-like of shape (fan_out,)
        activations : list of str, default=None
            One per layer, the output's last; written below the layers.
        feature_names, output_names : list of str, default=None
            Written beside the neurons; None: their numbers if not all neurons are shown.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        NetworkDisplay

        Raises
        ------
        ValueError
            If the matrices do not form a chain, or something has another length or other numbers than it should.
        ImportError
            If matplotlib is not installed.
        """
        matrices = [np.asarray(W, dtype=np.float64) for W in coefs]
        vectors = [np.asarray(b, dtype=np.float64) for b in intercepts]
        widths, _ = linear_shape(matrices, vectors)
        for i, (W, b) in enumerate(zip(matrices, vectors, strict=True)):
            if b.shape != W.shape[1:]:
                raise ValueError(f"intercepts[{i}] must have shape {W.shape[1:]}, got {b.shape}")
            if not (np.isfinite(W).all() and np.isfinite(b).all()):
                raise ValueError(f"coefs[{i}] and intercepts[{i}] must be finite")
        names = {"activations": activations, "feature_names": feature_names, "output_names": output_names}
        for (name, given), n in zip(names.items(), (len(matrices), widths[0], widths[-1]), strict=True):
            if given is not None and len(given) != n:
                raise ValueError(f"{name} must hold {n} names, got {len(given)}")
        return cls(coefs=matrices, intercepts=vectors, **names).plot(ax, **options)

    def plot(
        self,
        ax: Any = None,
        *,
        max_units: int = 16,
        max_weights: int = 64,
        positive: Any = "tab:blue",
        negative: Any = "tab:orange",
        legend: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Draw the network.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None, whose size follows from the neurons shown.
        max_units : int, default=16
            Most neurons to show per layer, the strongest.
        max_weights : int, default=64
            Most weights to show per layer, the largest between the neurons shown.
        positive, negative : matplotlib colours, default="tab:blue" and "tab:orange"
            Of weights and biases by their sign.
        legend : bool, default=True
            Whether to say above what colours mean.
        **kwargs
            For the circles, as in ``Axes.scatter``, for instance ``s=100``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `max_units` or `max_weights` is less than 1.
        """
        for name, value in (("max_units", max_units), ("max_weights", max_weights)):
            if not value >= 1:
                raise ValueError(f"{name} must be >= 1, got {value!r}")
        self.shown_ = [_strongest(strength, max_units) for strength in self._strengths()]
        n, rows = len(self.shown_), max(3, *map(len, self.shown_))
        below = 1.0 if any(len(shown) < self._width(i) for i, shown in enumerate(self.shown_)) else 0.0
        ax = self._begin(ax, 1.7 * n + 1.2, min(0.32 * rows + 1.3, 6.5))
        ax.set(xlim=(-0.5, n - 0.5), ylim=(-rows / 2 - below, rows / 2))
        ax.axis("off")
        colors = positive, negative
        self.weights_ = [self._draw_weights(i, max_weights, colors) for i in range(len(self.coefs))]
        spacing = _height(ax) / (rows + below)
        self.units_ = [self._draw_units(i, spacing, colors, kwargs) for i in range(n)]
        self._write_names(spacing)
        for i in range(n):
            self._write_width(i)
        if legend:
            _draw_legend(ax, colors)
        return self

    def _strengths(self) -> list[np.ndarray]:
        """Return for each layer how much its neurons contribute to the outputs."""
        n = len(self.coefs)
        before = [np.linalg.norm(W, axis=0) for W in self.coefs]
        behind = [np.linalg.norm(W, axis=1) for W in self.coefs]
        return [behind[0], *(before[i - 1] * behind[i] for i in range(1, n)), before[-1]]

    def _heights(self, layer: int) -> np.ndarray:
        """Return y of the shown neurons, from the top."""
        n = len(self.shown_[layer])
        return (n - 1) / 2 - np.arange(n)

    def _draw_weights(self, layer: int, most: int, colors: Sequence[Any]) -> Any:
        from matplotlib.collections import LineCollection
        from matplotlib.colors import to_rgb

        W = self.coefs[layer][np.ix_(self.shown_[layer], self.shown_[layer + 1])]
        # the smallest first, so the strongest lie on top
        order = np.argsort(np.abs(W), axis=None, kind="stable")[-most:]
        i, j = np.unravel_index(order[np.abs(W).ravel()[order] > 0], W.shape)
        size = np.abs(W[i, j]) / (np.abs(W).max() or 1.0)
        left = np.column_stack([np.full(len(i), layer), self._heights(layer)[i]])
        right = np.column_stack([np.full(len(j), layer + 1), self._heights(layer + 1)[j]])
        rgb = np.where(W[i, j, None] > 0, *(np.array(to_rgb(color)) for color in colors))
        lines = LineCollection(
            list(np.stack([left, right], axis=1)),
            colors=np.column_stack([rgb, 0.1 + 0.8 * size]),
            linewidths=0.3 + 2.2 * size,
            zorder=1,
        )
        return self.ax_.add_collection(lines)

    def _draw_units(self, layer: int, spacing: float, colors: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        from matplotlib.colors import to_rgb

        y = self._heights(layer)
        fill = np.ones((len(y), 3))
        if layer:
            bias = self.intercepts[layer - 1]
            share = bias[self.shown_[layer]] / (np.abs(bias).max() or 1.0)
            rgb = np.where(share[:, None] > 0, *(np.array(to_rgb(color)) for color in colors))
            fill += np.abs(share)[:, None] * (rgb - 1)
        diameter = min(0.72 * spacing, 20.0)
        style = {"s": diameter**2, "edgecolors": "0.25", "linewidths": 0.8, "zorder": 2} | kwargs
        if len(y) < self._width(layer):
            self.ax_.text(layer, y[-1] - 0.45, "⋮", ha="center", va="top", fontsize=min(max(spacing, 6), 16))
        return self.ax_.scatter(np.full(len(y), layer), y, **{"c": fill, **style})

    def _write_names(self, spacing: float) -> None:
        """Write names, or numbers of chosen ones, beside features and outputs."""
        last = len(self.coefs)
        for layer, names, side in ((0, self.feature_names, -1), (last, self.output_names, 1)):
            shown = self.shown_[layer]
            if names is None and len(shown) == self._width(layer):
                continue
            texts = [str(i) for i in shown] if names is None else [_shortened(str(names[i])) for i in shown]
            for y, text in zip(self._heights(layer), texts, strict=True):
                self.ax_.annotate(
                    text,
                    (layer, y),
                    (side * (0.36 * min(spacing, 28) + 4), 0),
                    textcoords="offset points",
                    ha="right" if side < 0 else "left",
                    va="center",
                    fontsize=min(max(0.62 * spacing, 4), 9),
                )

    def _write_width(self, layer: int) -> None:
        last = len(self.coefs)
        name = "features" if layer == 0 else "outputs" if layer == last else f"hidden {layer}"
        lines = [name, str(self._width(layer))]
        if len(self.shown_[layer]) < self._width(layer):
            lines[-1] = f"{len(self.shown_[layer])} of {self._width(layer)}"
        if layer and self.activations is not None:
            lines.append(_shortened(self.activations[layer - 1], 18))
        for i, line in enumerate(lines):  # one by one: the baselines of all layers are level
            self.ax_.annotate(
                line,
                (layer, 0),
                (0, -12 * (i + 1)),
                xycoords=self.ax_.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )

    def _width(self, layer: int) -> int:
        return self.coefs[0].shape[0] if layer == 0 else self.coefs[layer - 1].shape[1]


def _strongest(strength: np.ndarray, most: int) -> np.ndarray:
    """Return the indices of the largest values, in their order; of equal values the first."""
    return np.sort(np.argsort(-strength, kind="stable")[:most])


def _height(ax: Any) -> float:
    """Return the height of the axes, in points."""
    return float(ax.get_position().height * ax.figure.get_size_inches()[1] * 72)


def _shortened(text: str, most: int = 20) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _draw_legend(ax: Any, colors: Sequence[Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, linewidth=2, marker="o", markeredgecolor="0.25", markersize=7, label=label)
        for color, label in zip(colors, ("positive weight, bias", "negative"), strict=True)
    ]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=9)
