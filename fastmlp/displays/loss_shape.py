"""A loss and its slope over the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from fastmlp.data import targets
from fastmlp.displays._axes import Display, numbers
from fastmlp.engines import backends, by_name
from fastmlp.estimator.description import last_estimator
from fastmlp.estimator.types import BackendName
from fastmlp.kernels import formulas
from fastmlp.model import choices

#: Points of a curve, unless the user gives them.
N_POINTS = 401


class Link(NamedTuple):
    """How predictions come from a logit z."""

    prediction: str  # what it is called
    logit: Any  # prediction -> z
    slope: Any  # prediction -> d prediction / dz
    y: float  # a natural target


#: Output activation -> how predictions come from it; of a softmax of two logits (z, 0) the first probability.
LINKS = {
    "identity": Link("prediction", lambda p: p, np.ones_like, 0.0),
    "exp": Link("prediction", np.log, lambda p: p, 1.0),
    "logistic": Link("predicted probability", lambda p: np.log(p) - np.log1p(-p), lambda p: p * (1 - p), 1.0),
}
LINKS["softmax"] = LINKS["logistic"]


class LossShapeDisplay(Display):
    """The loss of one row over its prediction, and the slope, as the engine computes them.

    Made by :meth:`from_loss` or :meth:`from_estimator`.

    Parameters
    ----------
    x : ndarray of shape (n_points,)
        The predictions, or the logits.
    loss : ndarray of shape (n_targets, n_points)
    slope : ndarray of shape (n_targets, n_points)
        The derivative of the loss by `x`.
    y : ndarray of shape (n_targets,)
        The true values, one for each curve.
    name : str
        Of the loss.
    label : str, default="prediction"
        What `x` is.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        Of the losses.
    slope_lines_ : list of matplotlib Line2D
        Empty if the slopes are not drawn.

    Examples
    --------
    >>> from fastmlp.displays import LossShapeDisplay
    >>> display = LossShapeDisplay.from_loss("log_loss", prediction=[0.3, 0.5])
    >>> display.loss.round(5).tolist(), display.slope.round(5).tolist()
    ([[1.20397, 0.69315]], [[-3.33333, -2.0]])
    """

    def __init__(
        self, *, x: np.ndarray, loss: np.ndarray, slope: np.ndarray, y: np.ndarray, name: str, label: str = "prediction"
    ) -> None:
        self.x, self.loss, self.slope, self.y, self.name, self.label = x, loss, slope, y, name, label

    @classmethod
    def from_loss(
        cls,
        loss: Any,
        y: float | Sequence[float] | None = None,
        *,
        over: Literal["prediction", "logit"] = "prediction",
        prediction: Any = None,
        backend: BackendName = "auto",
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw a loss.

        Parameters
        ----------
        loss : str, (str, dict) or formula
            As the estimators take it: a name, a name with parameters, or one made by :func:`fastmlp.loss`. A loss of
            classifiers is that of two classes.
        y : float or sequence of float, default=None
            True values, a curve for each. The class of a classifier is 0 or 1; "kl_divergence" takes the probability of
            the first of two categories. None: 1 for classes and for positive values, else 0.
        over : {"prediction", "logit"}, default="prediction"
            What the loss is drawn over. The logit is the output before its activation: backpropagation begins with
            the slope there.
        prediction : array-like of shape (n_points,), default=None
            Where to evaluate the loss: probabilities in (0, 1), positive values if the output is exponential, else any
            finite values. None: 401 points.
        backend : str, default="auto"
            The engine that evaluates it.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        LossShapeDisplay

        Raises
        ------
        ValueError
            If there is no such loss, parameter or backend, if `y` makes no sense with the loss, or if `prediction` is
            out of its range.
        ImportError
            If matplotlib is not installed.
        """
        if over not in ("prediction", "logit"):
            raise ValueError(f"over must be 'prediction' or 'logit', got {over!r}")
        objective, classes = _objective(loss)
        link = LINKS[objective.link]
        true = numbers("y", [link.y if y is None and not classes else 1.0] if y is None else np.atleast_1d(y))
        _check_targets(true, objective, classes)
        points = _points(prediction, objective.link, true, over)
        z = np.asarray(link.logit(points), np.float64)
        engine, values, deltas = backends.get(backend), [], []
        for one in true:
            of_rows, delta = by_name.losses(engine, objective.loss, *_rows(z, float(one), objective))
            values.append(of_rows)
            deltas.append(delta[:, 0])
        slope = np.array(deltas) / (link.slope(points) if over == "prediction" else 1.0)
        label, x = ("logit", z) if over == "logit" else (link.prediction, points)
        if classes and objective.link == "identity":
            label = "decision value"
        name = choices.name_of(loss)
        return cls(x=x, loss=np.array(values), slope=slope, y=true, name=name, label=label).plot(ax, **options)

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, y: float | Sequence[float] | None = None, ax: Any = None, **options: Any
    ) -> Self:
        """Draw the loss that an estimator minimises, without its penalty; it need not be fitted.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor, or what ends in one
        y : float or sequence of float, default=None
            As in :meth:`from_loss`.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`from_loss` and :meth:`plot`.

        Returns
        -------
        LossShapeDisplay

        Raises
        ------
        TypeError
            If the estimator is none of fastmlp.
        ValueError
            As :meth:`from_loss`.
        ImportError
            If matplotlib is not installed.
        """
        from fastmlp.estimator.base import _BaseMLP

        model = last_estimator(estimator)
        if not isinstance(model, _BaseMLP):
            raise TypeError(f"the estimator must be an MLPClassifier or MLPRegressor of fastmlp, got {model!r}")
        return cls.from_loss(model.loss, y, **{"backend": model.backend, **options}, ax=ax)

    def plot(self, ax: Any = None, *, slope: bool = True, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        slope : bool, default=True
            Whether to draw the slopes, dashed in the colours of their losses.
        **kwargs
            For ``Axes.plot`` of all curves.

        Returns
        -------
        self
        """
        ax = self._begin(ax, 4.2, 3.2)
        self.lines_, self.slope_lines_ = [], []
        for one, values, slopes in zip(self.y, self.loss, self.slope, strict=True):
            (line,) = ax.plot(self.x, values, **{"label": f"{self.name}, y = {one:g}", **kwargs})
            self.lines_.append(line)
            if slope:
                style = {"linestyle": "--", "alpha": 0.7} | kwargs | {"label": "its slope", "color": line.get_color()}
                self.slope_lines_ += ax.plot(self.x, slopes, **style)
        ax.set(xlabel=self.label)
        if slope:
            _leave_out_poles(ax, self.loss, self.slope)
        ax.legend(frameon=False, fontsize="small")
        return self


def _objective(loss: Any) -> tuple[targets.Objective, bool]:
    """Return what a network with one output, or two categories, is trained for, and whether y is a class."""
    if not choices.is_formula(loss):
        known = [*targets.CLASSIFIER_LOSSES, *targets.REGRESSOR_LOSSES]
        name = choices.name_of(choices.entry(formulas.LOSSES, loss, "loss", known))
        if name in targets.CLASSIFIER_LOSSES:
            return targets.resolve_loss("binary", loss, 1), True
    return targets.resolve_loss("regression", loss, 2), False


def _check_targets(y: np.ndarray, objective: targets.Objective, classes: bool) -> None:
    """Refuse true values that the loss cannot have."""
    if classes and not np.isin(y, (0, 1)).all():
        raise ValueError(f"y must be 0 or 1, the class, got {y.tolist()}")
    if objective.link == "softmax" and not ((y >= 0) & (y <= 1)).all():
        raise ValueError(f"y must be in [0, 1], the probability of the first category, got {y.tolist()}")
    if choices.name_of(objective.loss) == "gamma" and not (y > 0).all():
        raise ValueError(f"y must be > 0 with loss='gamma', got {y.tolist()}")


def _points(given: Any, link: str, y: np.ndarray, over: str) -> np.ndarray:
    """Return the predictions at which the loss is evaluated."""
    if given is not None:
        points = numbers("prediction", given)
        if link in ("logistic", "softmax") and not ((points > 0) & (points < 1)).all():
            raise ValueError("prediction must be in (0, 1), as probabilities are; got other numbers")
        if link == "exp" and not (points > 0).all():
            raise ValueError("prediction must be > 0: the output is exponential; got other numbers")
        return points
    if link == "identity":
        return np.linspace(y.min() - 3, y.max() + 3, N_POINTS)
    if over == "logit":
        z = np.linspace(-5, 5, N_POINTS) if link != "exp" else np.linspace(-2, 2, N_POINTS) + np.log(_most(y))
        return np.exp(z) if link == "exp" else 1 / (1 + np.exp(-z))
    return np.linspace(0.2, 3 * _most(y), N_POINTS) if link == "exp" else np.linspace(0.01, 0.99, N_POINTS)


def _most(y: np.ndarray) -> float:
    return float(max(y.max(), 1.0))


def _rows(z: np.ndarray, y: float, objective: targets.Objective) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (n, n_outputs) and targets as an engine takes them; of two logits the second is 0."""
    if objective.link == "softmax":
        return np.column_stack([z, np.zeros_like(z)]), np.tile([y, 1 - y], (len(z), 1))
    smoothed = y * (1 - objective.smoothing) + objective.smoothing / 2
    return z[:, None].copy(), np.full((len(z), 1), smoothed)


def _leave_out_poles(ax: Any, loss: np.ndarray, slope: np.ndarray) -> None:
    """Cut the axis where slopes rise so high that nothing else could be seen."""
    low, high = float(loss.min()), float(loss.max())
    room = 1.5 * (high - low)
    if np.isfinite(room) and room > 0 and (slope.min() < low - room or slope.max() > high + room):
        ax.set_ylim(max(float(slope.min()), low - room), min(max(float(slope.max()), high), high + room))
