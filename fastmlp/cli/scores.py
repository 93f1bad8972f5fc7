"""What scikit-learn's metrics say about predictions, for `fastmlp evaluate`, and why a metric is undefined."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: Names of the metrics -> how tables call them.
NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "brier": "Brier score",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "f1_macro": "F1, macro",
    "f1_weighted": "F1, weighted",
    "mcc": "Matthews correlation",
    "r2": "R2",
    "explained_variance": "explained variance",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "median_absolute_error": "median absolute error",
    "max_error": "largest error",
    "mean_absolute_percentage_error": "mean absolute percentage error",
    "bias": "bias (prediction - target)",
}

N_BINS = 10

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class Undefined(Exception):
    """A metric has no value; the text says why."""


def computed(metrics: dict[str, Callable[[], Any]]) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return name -> value, None where there is none, and name -> reason of the latter.

    A value that is not finite is none.
    """
    values: dict[str, float | None] = {}
    undefined = {}
    for name, metric in metrics.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about classes that are not predicted, which the tables show
                value = float(metric())
            if not np.isfinite(value):
                raise Undefined(f"it is {value}")
            values[name] = value
        except Undefined as reason:
            values[name], undefined[name] = None, str(reason)
    return values, undefined


# --- classification ---------------------------------------------------------------------------------------------------


def classification(
    y: np.ndarray, scores: np.ndarray, classes: Sequence[str], weight: np.ndarray | None, are_probabilities: bool
) -> dict[str, Any]:
    """Return the metrics of a classifier, its confusion matrix, and what each class and the calibration look like.

    Parameters
    ----------
    y : ndarray of int, shape (n_rows,)
        The true classes, as places in `classes`.
    scores : ndarray of float, shape (n_rows, n_classes)
        Probabilities, or what is largest for the predicted class.
    classes : sequence of str
        Names of the classes, two or more.
    weight : ndarray of float64, shape (n_rows,), or None
        Weights of the rows.
    are_probabilities : bool
        Whether the scores are probabilities.
    """
    from sklearn import metrics

    predicted, labels = scores.argmax(axis=1), np.arange(len(classes))
    weighted: dict[str, Any] = {"sample_weight": weight}
    values, undefined = computed(_of_classes(y, predicted, scores, classes, weight, are_probabilities))
    confusion = metrics.confusion_matrix(y, predicted, labels=labels, **weighted)
    columns = metrics.precision_recall_fscore_support(y, predicted, labels=labels, zero_division=np.nan, **weighted)
    keys = ("precision", "recall", "f1", "rows" if weight is None else "weight")
    per_class = [dict(zip(keys, map(_plain, row), strict=True)) for row in zip(*columns, strict=True)]
    return {
        "metrics": values,
        "undefined": undefined,
        "confusion_matrix": confusion.tolist(),
        "per_class": per_class,
        "calibration": _calibration(y, scores) if are_probabilities else None,
    }


def _of_classes(
    y: np.ndarray,
    predicted: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    weight: np.ndarray | None,
    are_probabilities: bool,
) -> dict[str, Callable[[], Any]]:
    """Return the metrics by name, to be computed."""
    from sklearn import metrics

    labels, weighted = np.arange(len(classes)), {"sample_weight": weight}
    # the class of two that is looked for, or each against the others
    truth = y == 1 if len(classes) == 2 else y[:, None] == labels
    ranks = scores[:, 1] if len(classes) == 2 else scores

    def of_probabilities(metric: Callable[[], Any]) -> Any:
        if not are_probabilities:
            raise Undefined("the loss of the network gives no probabilities")
        return metric()

    def of_ranks(metric: Callable[..., Any]) -> Any:
        counts = np.bincount(y, weights=weight, minlength=len(classes))
        if not counts.all():
            raise Undefined(f"no row has the class {classes[int(np.argmin(counts))]!r}")
        return metric(truth, ranks, average="macro", **weighted)

    def matthews() -> Any:
        if len(np.unique(y)) == 1 or len(np.unique(predicted)) == 1:
            which = "rows have" if len(np.unique(y)) == 1 else "predictions are"
            raise Undefined(f"all {which} one class")
        return metrics.matthews_corrcoef(y, predicted, **weighted)

    return {
        "accuracy": lambda: metrics.accuracy_score(y, predicted, **weighted),
        "balanced_accuracy": lambda: metrics.balanced_accuracy_score(y, predicted, **weighted),
        "log_loss": lambda: of_probabilities(lambda: metrics.log_loss(y, scores, labels=labels, **weighted)),
        "brier": lambda: of_probabilities(lambda: metrics.brier_score_loss(y, scores, labels=labels, **weighted)),
        "roc_auc": lambda: of_ranks(metrics.roc_auc_score),
        "average_precision": lambda: of_ranks(metrics.average_precision_score),
        "f1_macro": lambda: metrics.f1_score(y, predicted, average="macro", **weighted),
        "f1_weighted": lambda: metrics.f1_score(y, predicted, average="weighted", **weighted),
        "mcc": matthews,
    }


def _calibration(y: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Return how often predictions of some probability are right, in bins; each row counts once.

    With two classes this is the probability of the second, else that of the predicted class.
    """
    from sklearn.calibration import calibration_curve

    binary = probabilities.shape[1] == 2
    stated = probabilities[:, 1] if binary else probabilities.max(axis=1)
    stated = np.clip(stated, 0.0, 1.0)
    right = y == 1 if binary else y == probabilities.argmax(axis=1)
    share, mean = calibration_curve(right, stated, n_bins=N_BINS)
    edges = np.linspace(0.0, 1.0, N_BINS + 1)
    # calibration_curve leaves empty bins out, and does not say which
    counts = np.bincount(np.searchsorted(edges[1:-1], stated), minlength=N_BINS)
    filled = np.flatnonzero(counts)
    return {
        "of": "the second class" if binary else "the predicted class",
        "bins": [
            {
                "from": float(edges[i]),
                "to": float(edges[i + 1]),
                "rows": int(counts[i]),
                "mean_probability": float(mean[k]),
                "share": float(share[k]),
            }
            for k, i in enumerate(filled)
        ],
        "expected_calibration_error": float(np.abs(share - mean) @ counts[filled] / len(y)),
    }


# --- regression -------------------------------------------------------------------------------------------------------


def regression(y: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None) -> dict[str, Any]:
    """Return the metrics of a regressor, and quantiles of its residuals; in the latter each row counts once.

    Parameters
    ----------
    y, predicted : ndarray of float64, shape (n_rows,)
    weight : ndarray of float64, shape (n_rows,), or None
        Weights of the rows.
    """
    from sklearn import metrics

    weighted: dict[str, Any] = {"sample_weight": weight}

    def of_spread(metric: Callable[..., Any]) -> Any:
        counted = y if weight is None else y[weight > 0]
        if (counted == counted[0]).all():
            raise Undefined("the target is the same in every row" if len(counted) > 1 else "there is one row only")
        return metric(y, predicted, **weighted)

    def percentage() -> Any:
        if not y.all():
            raise Undefined(f"the target is 0 in {_rows(int((y == 0).sum()))}")
        return metrics.mean_absolute_percentage_error(y, predicted, **weighted)

    values, undefined = computed(
        {
            "r2": lambda: of_spread(metrics.r2_score),
            "explained_variance": lambda: of_spread(metrics.explained_variance_score),
            "rmse": lambda: metrics.root_mean_squared_error(y, predicted, **weighted),
            "mae": lambda: metrics.mean_absolute_error(y, predicted, **weighted),
            "median_absolute_error": lambda: metrics.median_absolute_error(y, predicted, **weighted),
            "max_error": lambda: metrics.max_error(y, predicted),
            "mean_absolute_percentage_error": percentage,
            "bias": lambda: np.average(predicted - y, weights=weight),
        }
    )
    quantiles = zip(QUANTILES, np.quantile(y - predicted, QUANTILES).tolist(), strict=True)
    return {"metrics": values, "undefined": undefined, "residuals": {f"{q:g}": value for q, value in quantiles}}


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"


def _plain(value: Any) -> float | None:
    """Return a number for JSON, None if it is none."""
    return float(value) if np.isfinite(value) else None
