"""Loss, score and learning rate over the epochs of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastmlp.displays._axes import Display
from fastmlp.estimator.description import last_estimator
from fastmlp.training.metrics import decisive

#: Column of a history -> how it is drawn: label, axis, style.
CURVES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "loss": ("training loss", "loss", {"color": "C0"}),
    "validation_loss": ("validation loss", "loss", {"color": "C1"}),
    "score": ("validation score", "score", {"color": "C2"}),
    "learning_rate": ("learning rate", "learning rate", {"color": "C7", "linestyle": ":"}),
}
#: Ends of the columns of further sets -> axis.
FURTHER = {"_loss": "loss", "_score": "score"}


class LossCurveDisplay(Display):
    """Training loss over the epochs; validation loss, scores and learning rate if they were recorded.

    Made by :meth:`from_estimator` or :meth:`from_history`.

    Parameters
    ----------
    history : dict of ndarray of shape (n_epochs,)
        Columns "loss" and maybe "validation_loss", "score" and "learning_rate", and ``<set>_loss`` and ``<set>_score``
        of further sets.
    best_epoch : int, default=None
        Number of the epoch to mark, from 1.
    Attributes
    ----------
    ax_ : matplotlib Axes
        With the losses.
    score_ax_, learning_rate_ax_ : matplotlib Axes or None
        Twins of it, with axes of their own on the right.
    figure_ : matplotlib Figure
    lines_ : dict of str to matplotlib Line2D
        By column of the history; only those drawn.
    best_line_ : matplotlib Line2D or None
        At the best epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.displays import LossCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier(early_stopping=True, random_state=0).fit(X, y)
    >>> display = LossCurveDisplay.from_estimator(clf)
    >>> list(display.lines_)
    ['loss', 'validation_loss', 'score']
    """

    def __init__(self, *, history: Mapping[str, np.ndarray], best_epoch: int | None = None) -> None:
        self.history = history
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **options: Any) -> Self:
        """Draw the training of a fitted estimator.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor, or what ends in one
            Trained by a stochastic solver; lbfgs records no losses. scikit-learn's estimators will do.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        LossCurveDisplay
            Its best epoch is that of the highest validation score, or with ``monitor="loss"`` of the lowest validation
            loss; without validation rows none is marked.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If it has recorded no epochs.
        ImportError
            If matplotlib is not installed.
        """
        model = last_estimator(estimator)
        check_is_fitted(model)
        history = getattr(model, "history_", None)
        if history is None:
            # scikit-learn's own, or one whose history was not kept
            names = {"loss": "loss_curve_", "validation_loss": "validation_loss_curve_", "score": "validation_scores_"}
            history = {name: getattr(model, attribute, None) for name, attribute in names.items()}
            history = {name: column for name, column in history.items() if column is not None}
        if not len(history.get("loss", ())):
            raise ValueError(
                f"{model!r} has recorded no losses: there is no curve to draw; solver='lbfgs' records none"
            )
        by_loss = decisive(getattr(model, "monitor", "score")) == "loss"
        return cls.from_history(history, best="loss" if by_loss else "score", ax=ax, **options)

    @classmethod
    def from_history(
        cls, history: Any, *, best: Literal["score", "loss"] = "score", ax: Any = None, **options: Any
    ) -> Self:
        """Draw a history.

        Parameters
        ----------
        history : mapping of str to array-like of shape (n_epochs,)
            As ``history_`` of the estimators, or a data frame of it: the column "loss", and maybe "validation_loss",
            "score" and "learning_rate", and ``<set>_loss`` and ``<set>_score`` of further sets, ``train_score`` for
            instance. Other columns, and columns that are all NaN, are not drawn.
        best : {"score", "loss"}, default="score"
            What tells the best epoch: the highest score, or the lowest validation loss.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        ValueError
            If there is no column "loss", a column has another length, or `best` is neither of the two.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from fastmlp.displays import LossCurveDisplay
        >>> LossCurveDisplay.from_history({"loss": [2.0, 1.0, 0.5], "score": [0.4, 0.9, 0.8]}).best_epoch
        2
        """
        columns = _columns(history)
        return cls(history=columns, best_epoch=_best_epoch(columns, best)).plot(ax, **options)

    def plot(self, ax: Any = None, *, score: bool = True, learning_rate: bool | None = None, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        score : bool, default=True
            Whether to draw the scores, if there are any.
        learning_rate : bool, default=None
            Whether to draw the learning rate; None: if it changes.
        **kwargs
            For ``Axes.plot`` of every curve, for instance ``linewidth=1``.

        Returns
        -------
        self
        """
        ax = self._begin(ax, 5.6, 3.6)
        rates = self.history.get("learning_rate")
        if learning_rate is None:
            learning_rate = rates is not None and len(np.unique(rates)) > 1
        self.lines_: dict[str, Any] = {}
        for name in self._on_axis("loss"):
            self._draw(name, ax, kwargs)
        self.score_ax_ = self._draw_beside("score", kwargs) if score else None
        self.learning_rate_ax_ = self._draw_beside("learning rate", kwargs) if learning_rate else None
        if self.learning_rate_ax_ is not None and self.score_ax_ is not None:
            self.learning_rate_ax_.spines["right"].set_position(("outward", 48))  # beside the axis of the score
        self._mark_best()
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.get_major_locator().set_params(integer=True)
        drawn = [*self.lines_.values(), *([] if self.best_line_ is None else [self.best_line_])]
        # above the axes, where no curve can be
        ax.legend(handles=drawn, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize="small")
        return self

    def _on_axis(self, axis: str) -> list[str]:
        """Return the columns that belong to an axis, as the history has them."""
        return [name for name in self.history if self._curve(name)[1] == axis]

    def _curve(self, name: str) -> tuple[str, str, dict[str, Any]]:
        """Return label, axis and style of a column."""
        if name in CURVES:
            return CURVES[name]
        further = [column for column in self.history if column not in CURVES]
        axis = next(axis for end, axis in FURTHER.items() if name.endswith(end))
        return name.replace("_", " "), axis, {"color": f"C{3 + further.index(name)}", "linestyle": "--"}

    def _draw(self, name: str, ax: Any, kwargs: Mapping[str, Any]) -> None:
        label, _, style = self._curve(name)
        values = self.history[name]
        if len(values) < 2:
            style = {"marker": "o", **style}  # a line of one point is invisible
        (self.lines_[name],) = ax.plot(np.arange(1, len(values) + 1), values, **{"label": label, **style, **kwargs})

    def _draw_beside(self, axis: str, kwargs: Mapping[str, Any]) -> Any:
        """Draw the curves of an axis on a twin, in the colour of the first; None if there is no such column."""
        names = self._on_axis(axis)
        if not names:
            return None
        twin = self.ax_.twinx()
        for name in names:
            self._draw(name, twin, kwargs)
        color = self.lines_[names[0]].get_color()
        twin.set_ylabel(axis, color=color)
        twin.tick_params(axis="y", colors=color)
        twin.spines["right"].set_color(color)
        return twin

    def _mark_best(self) -> None:
        self.best_line_ = None
        if self.best_epoch is not None:
            label = f"best epoch: {self.best_epoch}"
            self.best_line_ = self.ax_.axvline(self.best_epoch, color="0.5", linestyle="--", linewidth=1, label=label)


def _columns(history: Any) -> dict[str, np.ndarray]:
    """Return the columns that can be drawn, as arrays."""
    try:
        further = [name for name in history if isinstance(name, str) and name.endswith(tuple(FURTHER))]
        names = [name for name in dict.fromkeys([*CURVES, *further]) if name in history]
        columns = {name: np.asarray(history[name], dtype=np.float64).ravel() for name in names}
    except (TypeError, ValueError) as error:
        raise ValueError(f"history must map names to numbers, one per epoch: {error}") from error
    if "loss" not in columns or not len(columns["loss"]):
        raise ValueError(f"history must have a column 'loss' with at least one epoch, got {[*history]}")
    n = len(columns["loss"])
    for name, column in columns.items():
        if len(column) != n:
            raise ValueError(f"history[{name!r}] must have {n} epochs as history['loss'] has, got {len(column)}")
    return {name: column for name, column in columns.items() if name == "loss" or not np.isnan(column).all()}


def _best_epoch(columns: Mapping[str, np.ndarray], best: str) -> int | None:
    """Return the number of the first epoch that is best on the validation rows."""
    if best not in ("score", "loss"):
        raise ValueError(f"best must be 'score' or 'loss', got {best!r}")
    by_loss = best == "loss" or "score" not in columns
    values = columns.get("validation_loss" if by_loss else "score")
    if values is None:
        return None
    return 1 + int(np.nanargmin(values) if by_loss else np.nanargmax(values))
