"""Callbacks, which watch a training, stop it, or save it.

A callback is any callable ``f(info) -> stop``; training calls it after every epoch, once the epoch is in the
estimator's history, and stops if it returns something true.  It may have the methods ``on_fit_begin(estimator)`` and
``on_fit_end(estimator)``.  Training itself only calls :func:`watching`.  :class:`LearningRateFinder` is not a
callback: it runs a short training of its own, before the real one.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import numpy as np

from fastmlp.data.optional import needed
from fastmlp.model import choices
from fastmlp.training import checkpoint, progress, weightless


@dataclass(frozen=True)
class EpochInfo:
    """What a callback is told after an epoch.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 1.
    max_iter : int
        Epoch after which training ends at the latest.
    loss : float
        Mean training loss of the epoch, penalty included.
    validation_loss, score : float or None
        Of the validation rows after the epoch, if there are any.
    learning_rate : float
        Of the epoch's last step.
    seconds : float
        Wall time of the epoch.
    estimator : estimator
        The one in training; ``predict`` works.
    snapshot : callable
        Returns everything that is needed to go on from here, as a dict for :func:`fastmlp.training.checkpoint.save`.
    """

    epoch: int
    max_iter: int
    loss: float
    validation_loss: float | None
    score: float | None
    learning_rate: float
    seconds: float
    estimator: Any = field(repr=False)
    snapshot: Callable[[], dict[str, Any]] = field(repr=False)


@contextmanager
def watching(callbacks: Iterable[Callable[[EpochInfo], Any]], estimator: Any) -> Iterator[Callable[[EpochInfo], bool]]:
    """Begin all callbacks, yield the function to call after each epoch, end all callbacks that were begun.

    The yielded function calls every callback, also when one of them has asked to stop, and returns whether any has.
    """
    callbacks = list(callbacks)
    for callback in callbacks:
        _check_callback(callback)

    def after_epoch(info: EpochInfo) -> bool:
        wishes = [callback(info) for callback in callbacks]  # call all of them, also if the first stops
        return any(wishes)

    with ExitStack() as ends:
        for callback in callbacks:
            if hasattr(callback, "on_fit_end"):
                ends.callback(callback.on_fit_end, estimator)
            if hasattr(callback, "on_fit_begin"):
                callback.on_fit_begin(estimator)
        yield after_epoch


def _check_callback(callback: Any) -> None:
    if isinstance(callback, type):
        raise TypeError(f"callbacks must be instances; {callback.__name__} is a class: write {callback.__name__}(...)")
    if not callable(callback):
        hint = "; scikit-learn's go into set_callbacks" if hasattr(callback, "on_fit_task_end") else ""
        raise TypeError(f"callbacks must be callables f(epoch_info) -> stop, got {callback!r}{hint}")


class ProgressBar:
    """Draw a live bar of the epochs, with the latest loss, the score and the rows per second.

    In terminals and in notebooks; silent elsewhere, and in worker processes, which share a terminal.  Fits within fits
    and in threads have a line each; the lines that were not the first vanish when their fits end.  What a fit prints
    appears above the bars.  Drawn by rich.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> clf = MLPClassifier(callbacks=[ProgressBar()])
    """

    _task: Any = None  # the line of the display, if there is one; pickles of earlier versions do not have it

    def __init__(self) -> None:
        self._rows_before, self._seconds = 0, 0.0

    def on_fit_begin(self, estimator: Any) -> None:
        self.on_fit_end(estimator)
        self._rows_before, self._seconds = getattr(estimator, "t_", 0), 0.0
        # a resumed fit does not begin at 0
        done, total = getattr(estimator, "n_iter_", 0), getattr(estimator, "max_iter", None)
        self._task = progress.DISPLAY.open(type(estimator).__name__, done, total)

    def __call__(self, info: EpochInfo) -> None:
        if self._task is None:
            return
        self._seconds += info.seconds
        text = f"loss {info.loss:.4g}"
        if info.score is not None:
            text += f", score {info.score:.4g}"
        rows = getattr(info.estimator, "t_", 0) - self._rows_before
        if rows > 0 and self._seconds > 0:
            text += f", {_short(rows / self._seconds)} rows/s"
        progress.DISPLAY.update(self._task, completed=info.epoch, total=info.max_iter, description=text)

    def on_fit_end(self, estimator: Any) -> None:
        task, self._task = self._task, None
        if task is not None:
            progress.DISPLAY.close(task)

    def __getstate__(self) -> dict[str, Any]:
        return vars(ProgressBar())  # a copy draws nothing yet

    def __repr__(self) -> str:
        return "ProgressBar()"


def _short(number: float) -> str:
    """Return a number as text with three digits and a unit.

    Examples
    --------
    >>> _short(1234.5), _short(99_999_999)
    ('1.23k', '100M')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # what would be rounded to 1000 of the unit below
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


@dataclass(eq=False)
class Logging:
    """Log each epoch through the ``logging`` module, for programs that have no terminal.

    The text of a log record is for people; its attributes ``estimator`` (name of the class), ``epoch``, ``max_iter``,
    ``loss``, ``validation_loss``, ``score``, ``learning_rate`` and ``seconds`` are for programs.

    Parameters
    ----------
    logger : str, default="fastmlp"
        Name of the logger.
    level : int, default=logging.INFO
        Level of the records.
    every : int, default=1
        Number of epochs between two messages; epoch ``max_iter`` is always logged.

    Raises
    ------
    ValueError
        If `every` is less than 1.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> clf = MLPClassifier(callbacks=[Logging(every=10)])
    """

    logger: str = "fastmlp"
    level: int = logging.INFO
    every: int = 1

    def __post_init__(self) -> None:
        _check_every(self.every)

    def __call__(self, info: EpochInfo) -> None:
        logger = logging.getLogger(self.logger)
        if not _is_due(info, self.every) or not logger.isEnabledFor(self.level):
            return
        names = ("epoch", "max_iter", "loss", "validation_loss", "score", "learning_rate", "seconds")
        numbers = {name: getattr(info, name) for name in names}
        told = {name.replace("_", " "): value for name, value in numbers.items() if value is not None}
        text = ", ".join(f"{name} {value:.6g}" for name, value in list(told.items())[2:])
        estimator = type(info.estimator).__name__
        message = "%s, epoch %d of at most %d: %s"
        extra = {"estimator": estimator, **numbers}
        logger.log(self.level, message, estimator, info.epoch, info.max_iter, text, extra=extra)


@dataclass(eq=False)
class TimeLimit:
    """Stop after the first epoch that ends more than `seconds` after ``fit`` began.

    Parameters
    ----------
    seconds : float
        Wall time, greater than 0.  A resumed fit has all of it again.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> clf = MLPClassifier(max_iter=100_000, callbacks=[TimeLimit(60)])
    """

    seconds: float
    _end: float = field(default=math.inf, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and _is_float(self.seconds)):
            raise ValueError(f"seconds must be > 0 and within float64, got {self.seconds!r}")

    def on_fit_begin(self, estimator: Any) -> None:
        self._end = time.monotonic() + self.seconds

    def __call__(self, info: EpochInfo) -> bool:
        return time.monotonic() >= self._end


@dataclass(eq=False)
class Checkpoint:
    """Save the training to a file, from which ``fit(X, y, resume_from=path)`` goes on to the same weights, bit for bit.

    The file is replaced as a whole: whenever the process dies, it holds the last epoch that was saved.

    Parameters
    ----------
    path : str or path-like
        The file.  ``{epoch}`` in it stands for the number of the epoch (``{epoch:04d}`` for four digits) and so keeps a
        file per epoch; other braces must be doubled.
    every : int, default=1
        Number of epochs between two files; epoch ``max_iter`` is always saved.
    keep_best : bool, default=False
        Save an epoch only if it is better than all before: on the validation rows, by score or loss as the estimator's
        ``monitor`` says, or by training loss if there are none.  To have both the best and the latest, use two
        checkpoints with two paths.

    Raises
    ------
    ValueError
        If `every` is less than 1 or `path` has braces that are no ``{epoch}``.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> clf = MLPClassifier(callbacks=[Checkpoint("fit.npz", every=10)])
    """

    path: str | os.PathLike[str]
    every: int = 1
    keep_best: bool = False
    _best: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_every(self.every)
        try:
            os.fspath(self.path).format(epoch=1)
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"the only braces in a checkpoint's path may be {{epoch}}, got {self.path!r}") from error

    def on_fit_begin(self, estimator: Any) -> None:
        self._best = None

    def __call__(self, info: EpochInfo) -> None:
        best = not self.keep_best or self._is_best(info)
        if best and _is_due(info, self.every):
            checkpoint.save(os.fspath(self.path).format(epoch=info.epoch), info.snapshot())

    def _is_best(self, info: EpochInfo) -> bool:
        from fastmlp.training.metrics import decisive  # imports scikit-learn, as training has done by now

        names = ["score", "validation_loss", "loss"]
        if decisive(getattr(info.estimator, "monitor", "score")) == "loss":
            names.remove("score")
        name = next(name for name in names if getattr(info, name) is not None)
        if math.isnan(getattr(info, name)) and math.isfinite(info.loss):
            what = "training loss" if name == "loss" else name.replace("_", " ")
            raise ValueError(
                f"Checkpoint(keep_best=True): the {what} of epoch {info.epoch} is NaN, so no epoch is the best; give"
                " validation rows and a monitor for which it is defined"
            )
        sign = 1.0 if name == "score" else -1.0
        if self._best is None:
            # epochs before this process: of the fit that is resumed or goes on
            earlier = getattr(info.estimator, "history_", {}).get(name, ())[:-1]
            self._best = max((sign * v for v in earlier if v is not None and v == v), default=-math.inf)
        value = sign * getattr(info, name)
        if not value > self._best:
            return False
        self._best = value
        return True


def _is_float(value: float) -> bool:
    """Return whether a number is within the range of float64, which an int need not be."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _check_every(every: int) -> None:
    if not every >= 1:
        raise ValueError(f"every must be >= 1, got {every!r}")


def _is_due(info: EpochInfo, every: int) -> bool:
    return info.epoch % every == 0 or info.epoch == info.max_iter


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
        if not (0 < low < high < math.inf and _is_float(high)):
            raise ValueError(f"min_rate and max_rate must be 0 < min_rate < max_rate, got {low!r}, {high!r}")
        if not self.n_steps >= 10:
            raise ValueError(f"n_steps must be >= 10, got {self.n_steps!r}")
        if not (self.smoothing > 0 and _is_float(self.smoothing)):
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
