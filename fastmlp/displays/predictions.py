"""Predictions row by row, beside what is true."""

from __future__ import annotations

from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.utils.multiclass import type_of_target, unique_labels
from sklearn.utils.validation import check_consistent_length, check_random_state

from fastmlp.displays._axes import Display, check_whole


class PredictionsDisplay(Display):
    """The true and the predicted value of each row, and which predictions are wrong.

    Of classes, an error is another class. Of numbers, an error is a prediction that is further from the true value than
    `tolerance`; a line joins the two.

    Made by :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    rows : ndarray of int of shape (n_rows,)
        Numbers of the rows shown.
    y_true, y_pred : ndarray of shape (n_rows,)
        Of classes, their numbers.
    errors : ndarray of bool of shape (n_rows,)
    labels : ndarray of shape (n_classes,) or None
        The classes; None: y holds numbers.
    tolerance : float or None, default=None
        Of numbers.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    true_points_, points_, error_points_ : matplotlib Line2D
        The true values, the predictions that are right, and the errors.
    residual_lines_ : matplotlib LineCollection or None
        Of numbers.

    Examples
    --------
    >>> from fastmlp.displays import PredictionsDisplay
    >>> PredictionsDisplay.from_predictions(["cat", "cat", "dog"], ["cat", "dog", "dog"]).errors.tolist()
    [False, True, False]
    >>> PredictionsDisplay.from_predictions([1.0, 2.0], [1.1, 4.0], tolerance=0.5).errors.tolist()
    [False, True]
    """

    def __init__(
        self,
        *,
        rows: np.ndarray,
        y_true: np.ndarray,
        y_pred: np.ndarray,
        errors: np.ndarray,
        labels: np.ndarray | None = None,
        tolerance: float | None = None,
    ) -> None:
        self.rows, self.y_true, self.y_pred, self.errors = rows, y_true, y_pred, errors
        self.labels, self.tolerance = labels, tolerance

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, *, ax: Any = None, **options: Any) -> Self:
        """Draw the predictions of a fitted estimator.

        Parameters
        ----------
        estimator : classifier or regressor
            Fitted; of any library, a pipeline too.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The true values.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`from_predictions` and :meth:`plot`.

        Returns
        -------
        PredictionsDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        TypeError
            If it is neither a classifier nor a regressor.
        ValueError
            As :meth:`from_predictions`.
        ImportError
            If matplotlib is not installed.
        """
        from sklearn.base import is_classifier, is_regressor

        if not (is_classifier(estimator) or is_regressor(estimator)):
            raise TypeError(f"the estimator must be a classifier or a regressor, got {estimator!r}")
        return cls.from_predictions(y, estimator.predict(X), **{"classes": is_classifier(estimator), **options}, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        classes: bool | None = None,
        tolerance: float | None = None,
        output: int = 0,
        sort: bool = False,
        subsample: int | None = 200,
        random_state: Any = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw predictions.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_outputs)
        y_pred : array-like of shape (n_samples,) or (n_samples, n_outputs)
        classes : bool, default=None
            Whether they are classes; None: if they are text, booleans or whole numbers.
        tolerance : float, default=None
            Of numbers, the distance from which on a prediction is marked as an error; None: twice the root of the mean
            squared error, so the worst few are marked.
        output : int, default=0
            Which one to draw of several outputs or labels.
        sort : bool, default=False
            Whether to order the rows by their true values.
        subsample : int or None, default=200
            Draw this many rows at most, a random choice; None: all of them.
        random_state : int, RandomState instance or None, default=None
            Of this choice.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        PredictionsDisplay

        Raises
        ------
        ValueError
            If lengths or shapes differ, there is no such output, numbers are not finite, or `tolerance` or `subsample`
            is out of its range.
        ImportError
            If matplotlib is not installed.
        """
        check_consistent_length(y_true, y_pred)
        if tolerance is not None and not (isinstance(tolerance, Real) and tolerance >= 0):
            raise ValueError(f"tolerance must be >= 0, got {tolerance!r}")
        if subsample is not None:
            check_whole("subsample", subsample, 1)
        truth, predicted = _one_output(y_true, y_pred, output)
        if classes is None:
            classes = all(type_of_target(y) in ("binary", "multiclass") for y in (truth, predicted))
        labels = None
        if classes:
            labels = unique_labels(truth, predicted)
            truth, predicted = np.searchsorted(labels, truth), np.searchsorted(labels, predicted)
            errors, tolerance = truth != predicted, None
        else:
            truth, predicted = _finite("y_true", truth), _finite("y_pred", predicted)
            distance = np.abs(truth - predicted)
            tolerance = 2 * float(np.sqrt(np.mean(distance**2))) if tolerance is None else float(tolerance)
            errors = distance > tolerance
        rows = np.arange(len(truth))
        if subsample is not None and subsample < len(rows):
            rows = np.sort(check_random_state(random_state).choice(rows, int(subsample), replace=False))
        if sort:
            rows = rows[np.argsort(truth[rows], kind="stable")]
        kept = {"y_true": truth[rows], "y_pred": predicted[rows], "errors": errors[rows]}
        return cls(rows=rows, labels=labels, tolerance=tolerance, **kept).plot(ax, **options)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **kwargs
            For ``Axes.plot`` of all points, for instance ``markersize=3``.

        Returns
        -------
        self
        """
        n, at = len(self.rows), np.arange(len(self.rows))
        ordered = bool((np.diff(self.rows) > 0).all())
        x = self.rows if ordered else at
        ax = self._begin(ax, 6.5, 3.2 if self.labels is None else min(max(2.4, 0.3 * len(self.labels) + 1.4), 6))
        size = float(np.clip(300 / max(n, 1), 3, 6))
        self.residual_lines_ = None
        if self.labels is None:
            ends = np.where(self.errors, "tab:orange", "0.7")
            self.residual_lines_ = ax.vlines(x, self.y_true, self.y_pred, colors=ends, linewidths=1, zorder=1)
        wrong, right = self.errors, ~self.errors
        far = "wrong" if self.tolerance is None else f"off by more than {self.tolerance:.3g}"
        n_wrong = f"{far}: {int(wrong.sum())} of {n}"
        styles = (
            (x, self.y_true, {"marker": "o", "fillstyle": "none", "color": "0.35", "label": "true"}),
            (x[right], self.y_pred[right], {"marker": ".", "color": "tab:blue", "label": "predicted"}),
            (x[wrong], self.y_pred[wrong], {"marker": "X", "color": "tab:orange", "label": n_wrong}),
        )
        lines = []
        for where, values, style in styles:
            lines += ax.plot(where, values, **{"linestyle": "none", "markersize": size, **style} | kwargs)
        self.true_points_, self.points_, self.error_points_ = lines
        ax.set(
            xlabel="row" if ordered else "rows, by their true values",
            ylabel="class" if self.labels is not None else "y",
        )
        if self.labels is not None:
            ax.set_yticks(np.arange(len(self.labels)), [str(label) for label in self.labels])
            ax.margins(y=0.15)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize="small")
        return self


def _one_output(y_true: Any, y_pred: Any, output: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one column of each, as vectors."""
    truth, predicted = np.asarray(y_true), np.asarray(y_pred)
    truth, predicted = (y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for y in (truth, predicted))
    if truth.shape != predicted.shape or truth.ndim not in (1, 2) or not len(truth):
        raise ValueError(
            f"y_true and y_pred must have the same shape, (n_samples,) or (n_samples, n_outputs), got {truth.shape} and"
            f" {predicted.shape}"
        )
    n_outputs = 1 if truth.ndim == 1 else truth.shape[1]
    if not -n_outputs <= output < n_outputs:
        raise ValueError(f"output must be in [{-n_outputs}, {n_outputs - 1}], got {output!r}")
    return (truth, predicted) if truth.ndim == 1 else (truth[:, output], predicted[:, output])


def _finite(name: str, y: np.ndarray) -> np.ndarray:
    try:
        y = y.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from error
    if not np.isfinite(y).all():
        raise ValueError(f"{name} must hold finite numbers")
    return y
