"""The range test of learning rates: a short training of its own, before the real one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import numpy as np

from fastmlp.data.optional import needed
from fastmlp.model import choices
from fastmlp.training import weightless
from fastmlp.training.callbacks import is_float


@dataclass(eq=False, repr=False)
class LearningRateFinder:
    """Learning-rate range test: train for some steps with a growing rate, and find where the loss falls fastest.

    Works on a clone; the estimator itself is left as it is.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With a stochastic solver; its ``learning_rate`` and ``learning_rate_init`` are what is varied.
    min_rate, max_rate : float, default=1e-6 and 10
        The rate grows from the one to the other by the same factor at each step.
    n_steps : int, default=100
        Mini-batch steps.  The test ends earlier if the mean loss of five steps exceeds four times the lowest such mean.
    smoothing : float, default=3
        Standard deviation, in steps, of the Gaussian that smooths the losses; symmetric, so nothing is shifted.

    Attributes
    ----------
    rates : ndarray of shape (n_steps_done,)
        Learning rate of each step.
    losses : ndarray of shape (n_steps_done,)
        Loss of each step's batch before the step, penalty included.
    smoothed : ndarray of shape (n_steps_done,)
        The losses, smoothed.

    References
    ----------
    Smith (2017), Cyclical learning rates for training neural networks, section 3.3, arXiv:1506.01186.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastmlp import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> finder = LearningRateFinder(MLPClassifier((32,), random_state=0)).fit(X / 16, y)
    >>> 1e-4 < finder.suggestion < 1
    True
    """

    estimator: Any
    min_rate: float = 1e-6
    max_rate: float = 10.0
    n_steps: int = 100
    smoothing: float = 3.0

    def __post_init__(self) -> None:
        low, high = self.min_rate, self.max_rate
        if not (0 < low < high < math.inf and is_float(high)):
            raise ValueError(f"min_rate and max_rate must be 0 < min_rate < max_rate, got {low!r}, {high!r}")
        if not self.n_steps >= 10:
            raise ValueError(f"n_steps must be >= 10, got {self.n_steps!r}")
        if not (self.smoothing > 0 and is_float(self.smoothing)):
            raise ValueError(f"smoothing must be > 0 and within float64, got {self.smoothing!r}")

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Run the test on X and y, as the estimator's ``fit`` takes them.

        Raises
        ------
        ValueError
            For a solver without a learning rate, and for all that the estimator refuses.
        """
        from scipy.ndimage import gaussian_filter1d

        losses: list[float] = []
        for loss in self._steps(X, y, sample_weight):
            if not math.isfinite(loss):
                break
            losses.append(loss)
            if _diverged(losses):
                break
        if not losses:
            raise ValueError("the loss is not finite before the first step: scale the data")
        self.losses = np.array(losses)
        self.rates = self._rate(np.arange(len(losses)))
        self.smoothed = gaussian_filter1d(self.losses, self.smoothing, mode="nearest")
        return self

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss fell fastest per decade.

        Raises
        ------
        ValueError
            If the loss never fell, so there is nothing to suggest.
        """
        lowest = int(np.argmin(self.smoothed))
        if lowest == 0:
            raise ValueError(
                f"the loss did not fall between the rates {self.rates[0]:g} and {self.rates[-1]:g}: "
                "look at plot(), and try a lower min_rate or other data scales"
            )
        # what comes after the lowest loss is divergence
        slopes = np.gradient(self.smoothed, np.log(self.rates)) if len(self.rates) > 1 else np.zeros(1)
        return float(self.rates[np.argmin(slopes[: lowest + 1])])

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses over the rates, and the suggestion if there is one.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure if None.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if ax is None:
            ax = needed("matplotlib.pyplot", "plot", '"fastmlp[plot]"').subplots()[1]
        ax.semilogx(self.rates, self.losses, ".", alpha=0.4, label="loss of a batch")
        ax.semilogx(self.rates, self.smoothed, label="smoothed")
        with suppress(ValueError):
            ax.axvline(self.suggestion, linestyle="--", color="gray", label=f"steepest descent: {self.suggestion:.2g}")
        ax.set(xlabel="learning rate", ylabel="loss")
        ax.legend()
        return ax

    def _rate(self, step: Any) -> Any:
        """Return the rate of steps counted from 0."""
        return self.min_rate * (self.max_rate / self.min_rate) ** (step / (self.n_steps - 1))

    def _steps(self, X: Any, y: Any, sample_weight: Any) -> Iterator[float]:
        """Yield the losses of single steps: each is a partial_fit with a batch drawn as in an epoch."""
        from sklearn.base import clone, is_classifier
        from sklearn.utils import check_consistent_length, check_random_state
        from sklearn.utils.class_weight import compute_sample_weight
        from sklearn.utils.multiclass import unique_labels

        from fastmlp.data import device_arrays
        from fastmlp.sklearn_compat import _num_samples, _safe_indexing

        model = clone(self.estimator)
        if choices.name_of(model.solver) == "lbfgs":
            raise ValueError("solver='lbfgs' has no learning rate to find; take a stochastic solver")
        sample_weight = device_arrays.on_host(model, sample_weight, "sample_weight")
        check_consistent_length(X, y, sample_weight)
        n = _num_samples(X)
        batch_size = min(200 if model.batch_size == "auto" else model.batch_size, n)
        # progress is step / n_steps: one step is one epoch of one batch
        model.set_params(
            learning_rate=lambda progress: self._rate(progress * self.n_steps) / self.min_rate,
            learning_rate_init=self.min_rate,
            max_iter=self.n_steps,
            batch_size=batch_size,
            early_stopping=False,
            monitor="score",
            train_score=False,
            restore_best=None,
            verbose=False,
            callbacks=None,
        )
        first: dict[str, Any] = {}
        if is_classifier(model):
            first["classes"] = unique_labels(y)
            if model.class_weight is not None:  # a batch does not know how frequent classes are
                weight = compute_sample_weight(model.class_weight, y)
                sample_weight = weight if sample_weight is None else weight * np.asarray(sample_weight)
                model.set_params(class_weight=None)
        batches = _batches(check_random_state(model.random_state), n, batch_size, sample_weight)
        for step, (rows, weight) in enumerate(islice(batches, self.n_steps)):
            try:
                model.partial_fit(_safe_indexing(X, rows), _safe_indexing(y, rows), weight, **first)
            except ValueError as error:
                # the weights may overflow before the loss tells; what is wrong with the data is not about that
                if step == 0 or not any(words in str(error) for words in ("non-finite", "not finite")):
                    raise
                return
            first = {}
            yield float(model.loss_)


def _batches(rng: Any, n: int, batch_size: int, sample_weight: Any) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield (rows, their weights) of batches drawn as in epochs, without end and without those that have no weight."""
    weight = None if sample_weight is None else np.asarray(sample_weight)
    weightless.check_weight(weight)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            if weight is None or weight[rows].any():
                yield rows, None if weight is None else weight[rows]


def _diverged(losses: list[float]) -> bool:
    """Return whether the mean of the last five losses exceeds four times the lowest such mean so far."""
    if len(losses) < 5:
        return False
    means = np.convolve(losses, np.full(5, 0.2), mode="valid")
    lowest = means.min()
    return bool(means[-1] > lowest + 3 * abs(lowest))  # four times, if losses are positive
