"""The accuracy of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.multiclass import type_of_target, unique_labels
from sklearn.utils.validation import check_consistent_length

from fastmlp.displays._axes import Display


class ClassAccuracyDisplay(Display):
    """A bar for each class: the share of its rows that are predicted right.

    Of multilabel targets there is a bar for each label: the share of all rows in which it is predicted right.

    Made by :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    accuracy : ndarray of shape (n_classes,)
        NaN of a class without rows.
    n_samples : ndarray of shape (n_classes,)
        Rows of each class, or the sum of their weights.
    overall : float
        The accuracy over all rows.
    labels : ndarray of shape (n_classes,)

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : matplotlib BarContainer
    overall_line_ : matplotlib Line2D

    Examples
    --------
    >>> from fastmlp.displays import ClassAccuracyDisplay
    >>> display = ClassAccuracyDisplay.from_predictions(["cat", "cat", "dog"], ["cat", "dog", "dog"])
    >>> display.labels.tolist(), display.accuracy.tolist()
    (['cat', 'dog'], [0.5, 1.0])
    """

    def __init__(self, *, accuracy: np.ndarray, n_samples: np.ndarray, overall: float, labels: np.ndarray) -> None:
        self.accuracy, self.n_samples, self.overall, self.labels = accuracy, n_samples, overall, labels

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        labels: Any = None,
        sample_weight: Any = None,
        display_labels: Sequence[Any] | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw the accuracy of a fitted classifier.

        Parameters
        ----------
        estimator : classifier
            Fitted; of any library, a pipeline too.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            The true classes.
        labels, sample_weight, display_labels
            As in :meth:`from_predictions`.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        ClassAccuracyDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        TypeError
            If it is no classifier.
        ValueError
            As :meth:`from_predictions`.
        ImportError
            If matplotlib is not installed.
        """
        from sklearn.base import is_classifier

        if not is_classifier(estimator):
            raise TypeError(f"the estimator must be a classifier, got {estimator!r}")
        kept = {"labels": labels, "sample_weight": sample_weight, "display_labels": display_labels}
        return cls.from_predictions(y, estimator.predict(X), **kept, ax=ax, **options)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        labels: Any = None,
        sample_weight: Any = None,
        display_labels: Sequence[Any] | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw the accuracy of predictions.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        y_pred : array-like of shape (n_samples,) or (n_samples, n_labels)
        labels : array-like of shape (n_classes,), default=None
            Classes to draw, in this order; of label indicators their numbers. None: all that occur.
        sample_weight : array-like of shape (n_samples,), default=None
        display_labels : sequence of shape (n_classes,), default=None
            Names written below the bars; None: the labels.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        **options
            Of :meth:`plot`.

        Returns
        -------
        ClassAccuracyDisplay

        Raises
        ------
        ValueError
            If the targets are no classes, lengths differ, or there is no such label.
        ImportError
            If matplotlib is not installed.
        """
        check_consistent_length(y_true, y_pred, sample_weight)
        truth, predicted = (y.toarray() if issparse(y) else np.asarray(y) for y in (y_true, y_pred))
        if not len(truth):
            raise ValueError("y_true must hold at least one row, got none")
        kinds = {type_of_target(truth), type_of_target(predicted)}
        if kinds == {"multilabel-indicator"} and truth.shape == predicted.shape:
            known, of_label = np.arange(truth.shape[1]), np.ones(truth.shape, bool)
            correct = truth == predicted
        elif kinds <= {"binary", "multiclass"} and truth.ndim == 1 == predicted.ndim:
            known = unique_labels(truth, predicted)
            of_label = truth[:, None] == known
            correct = np.broadcast_to((truth == predicted)[:, None], of_label.shape)
        else:
            raise ValueError(f"y_true and y_pred must hold classes of one kind, got {' and '.join(sorted(kinds))}")
        shown = _columns(labels, known)
        weight = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        totals = weight @ of_label
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy = weight @ (of_label & correct) / totals
            overall = float(weight @ correct.all(axis=1) / weight.sum())
        names = known[shown] if display_labels is None else np.asarray(display_labels)
        if names.shape != shown.shape:
            raise ValueError(f"display_labels must hold {len(shown)} names, got {display_labels!r}")
        made = cls(accuracy=accuracy[shown], n_samples=totals[shown], overall=overall, labels=names)
        return made.plot(ax, **options)

    def plot(self, ax: Any = None, *, counts: bool = True, **kwargs: Any) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.
        counts : bool, default=True
            Whether to write the number of rows into each bar.
        **kwargs
            For ``Axes.bar``.

        Returns
        -------
        self
        """
        n = len(self.labels)
        ax = self._begin(ax, min(max(3.2, 0.5 * n + 1.2), 12), 3.2)
        style = {"color": "tab:blue", "width": 0.8} | kwargs
        self.bars_ = ax.bar(np.arange(n), np.nan_to_num(self.accuracy), **style)
        label = f"all rows: {self.overall:.3g}"
        self.overall_line_ = ax.axhline(self.overall, color="tab:orange", linestyle="--", label=label)
        if n <= 20:
            self._write_numbers(ax, counts)
        names = [str(name) for name in self.labels]
        ax.set(ylim=(0, 1.1), ylabel="accuracy", xlabel="class", yticks=np.linspace(0, 1, 6))
        turned = sum(map(len, names)) > 12 * ax.get_position().width * ax.figure.get_size_inches()[0]
        ax.set_xticks(np.arange(n), names, rotation=90 if turned else 0)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small")
        return self

    def _write_numbers(self, ax: Any, counts: bool) -> None:
        """Write the accuracy above each bar, and its number of rows into it."""
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}  # the line may run here
        for bar, value, total in zip(self.bars_, self.accuracy, self.n_samples, strict=True):
            middle = bar.get_x() + bar.get_width() / 2
            text = "no rows" if np.isnan(value) else f"{value:.3g}"
            ax.text(middle, bar.get_height() + 0.02, text, ha="center", va="bottom", fontsize=8, bbox=box)
            if counts and not np.isnan(value):
                style = {"rotation": 90 if len(self.labels) > 5 else 0, "color": "white", "fontsize": 7}
                ax.text(middle, 0.03, f"n={total:g}", ha="center", va="bottom", **style)


def _columns(labels: Any, known: np.ndarray) -> np.ndarray:
    """Return where the labels to draw stand among those there are."""
    if labels is None:
        return np.arange(len(known))
    places = {label: i for i, label in enumerate(known.tolist())}
    wanted = np.asarray(labels).ravel().tolist()
    unknown = [label for label in wanted if label not in places]
    if unknown or not wanted:
        raise ValueError(f"labels must be among {known.tolist()}, got {labels!r}")
    return np.array([places[label] for label in wanted])
