"""What the displays share: matplotlib, imported late, and axes to draw on."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastmlp.data.optional import needed


class Display:
    """A picture; ``ax_`` and ``figure_`` hold its last drawing."""

    ax_: Any
    figure_: Any

    def _begin(self, ax: Any, width: float, height: float) -> Any:
        """Return the axes to draw on: those given, or those of a new figure of this size in inches."""
        plt = needed("matplotlib.pyplot", f"{type(self).__name__}.plot", '"fastmlp[plot]"')
        self.ax_ = plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        return self.ax_


def numbers(name: str, given: Any) -> np.ndarray:
    """Return a vector of finite float64 numbers that is not empty; a ValueError names the argument."""
    try:
        vector = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a vector of numbers: {error}") from error
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise ValueError(f"{name} must be a vector of finite numbers, got {given!r:.200}")
    return vector


def network_and_rows(estimator: Any, X: Any, fitted: bool = True) -> tuple[Any, Any]:
    """Return an estimator of fastmlp and the rows that it reads: those that the steps before it in a pipeline make.

    A TypeError refuses what is no MLPClassifier or MLPRegressor, a NotFittedError one without weights.
    """
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import check_is_fitted

    from fastmlp.estimator.base import _BaseMLP
    from fastmlp.estimator.description import last_estimator

    model = last_estimator(estimator)
    if not isinstance(model, _BaseMLP):
        raise TypeError(
            f"the estimator must be an MLPClassifier or MLPRegressor of fastmlp, or end in one, got {model!r}"
        )
    if fitted:
        check_is_fitted(model, "coefs_")
    while X is not None:
        if isinstance(estimator, Pipeline):
            X = estimator[:-1].transform(X) if len(estimator.steps) > 1 else X
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            break
    return model, X


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number from `least` to `most`; the ValueError names the argument."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= value <= (value if most is None else most):
        allowed = f"an integer >= {least}" if most is None else f"integers in [{least}, {most}]"
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
