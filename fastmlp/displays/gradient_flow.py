"""How large the gradients are, layer by layer: whether they vanish or explode on their way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from fastmlp.displays._axes import Display, network_and_rows
from fastmlp.estimator.description import describe


class GradientFlowDisplay(Display):
    """Norms of the gradients by the weights of each layer, from the input to the output, on a logarithmic scale.

    A line that falls towards the input shows gradients that vanish, one that rises there gradients that explode. Draw
    several networks on the same axes with ``ax=``.

    Made by :meth:`from_estimator` or :meth:`from_gradients`.

    Parameters
    ----------
    norms : ndarray of shape (n_layers,)
        Frobenius norms; the output layer is the last.
    name : str, default=None
        Of the network.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
    zeros_ : matplotlib Line2D or None
        Marks at the bottom, of layers whose gradient is 0.

    Examples
    --------
    >>> from fastmlp.displays import GradientFlowDisplay
    >>> display = GradientFlowDisplay.from_gradients([[[3e-6, 4e-6]], [[1e-3], [0.0]]])
    >>> display.norms.tolist()
    [5e-06, 0.001]
    """

    def __init__(self, *, norms: np.ndarray, name: str | None = None) -> None:
        self.norms, self.name = norms, name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        name: str | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw the gradients of the loss of some rows, at the present weights.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor, or a pipeline that ends in one
            Fitted, or initialized by ``initialize(X, y)``.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
        name : str, default=None
            Of the network; None: its activations.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        GradientFlowDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator has no weights yet.
        TypeError
            If it is no MLPClassifier or MLPRegressor of fastmlp.
        ValueError
            For rows that ``fit`` refuses.
        ImportError
            If matplotlib is not installed.
        """
        model, X = network_and_rows(estimator, X)
        gradients = model.loss_and_gradients(X, y, sample_weight).coefs
        if name is None:
            name = ", ".join(dict.fromkeys(map(describe, model._fitted_network().activations))) or None
        return cls.from_gradients(gradients, name=name, ax=ax, **options)

    @classmethod
    def from_gradients(
        cls, gradients: Sequence[Any], *, name: str | None = None, ax: Any = None, **options: Any
    ) -> Self:
        """Draw gradients.

        Parameters
        ----------
        gradients : sequence of array-like
            One of each layer, the output's last, of any shape.
        name : str, default=None
            Of the network.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        GradientFlowDisplay

        Raises
        ------
        ValueError
            If there are none, or what there is are no numbers.
        ImportError
            If matplotlib is not installed.
        """
        try:
            norms = np.array([np.linalg.norm(np.asarray(g, dtype=np.float64).ravel()) for g in gradients])
        except (TypeError, ValueError) as error:
            raise ValueError(f"gradients must hold an array of numbers for each layer: {error}") from error
        if not len(norms):
            raise ValueError("gradients must hold an array for each layer, got none")
        return cls(norms=norms, name=name).plot(ax, **options)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the norms.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **kwargs
            For ``Axes.plot``.

        Returns
        -------
        self
        """
        n = len(self.norms)
        ax = self._begin(ax, min(max(4.2, 0.5 * n + 1.5), 10), 3.4)
        label = f"{self.norms[-1]:.2g} at the output, {self.norms[0]:.2g} at the input"
        label = label if self.name is None else f"{self.name}: {label}"
        places, positive = np.arange(1, n + 1), self.norms > 0
        shown = np.where(positive, self.norms, np.nan)
        (self.line_,) = ax.plot(places, shown, **{"marker": "o", "label": label} | kwargs)
        ax.set_yscale("log")
        self.zeros_ = None
        if (self.norms == 0).any():
            style = {"marker": "v", "linestyle": "none", "color": self.line_.get_color(), "label": "gradient is 0"}
            zeros = places[self.norms == 0]
            (self.zeros_,) = ax.plot(zeros, np.full(len(zeros), 0.03), transform=ax.get_xaxis_transform(), **style)
        ticks = max(n, *ax.get_xlim()) if ax.lines[0] is not self.line_ else n
        if n >= ticks - 1:  # of several networks the deepest names the layers
            ax.set_xticks(places, [*map(str, range(1, n)), "output"])
        ax.set(xlabel="layer", ylabel="norm of the gradient")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small")
        return self
