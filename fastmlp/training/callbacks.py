"""Callbacks, which watch a training, steer it, stop it, or save it.

A callback is any callable ``f(info) -> stop``. Training calls it after every epoch, once the epoch is in the
estimator's history. True stops training, None and False go on, and anything else is an error. A callback may have the
methods ``on_fit_begin(estimator)`` and ``on_fit_end(estimator)``. Two attributes say what it needs: with
``reads_weights = False`` an epoch does not copy the weights for it, with ``after_others = True`` it is called after the
others. Our own may have more: ``on_run_begin(run)`` gets the :class:`fastmlp.training.run.Run`, and with
``every_steps = k`` training stops after every k-th step to call ``on_step(run, loss)``.
"""

from __future__ import annotations

import logging
import math
import numbers
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fastmlp.training import checkpoint, progress
from fastmlp.training.foreign_callbacks import advice


def _no_training(value: float) -> None:
    raise RuntimeError("this EpochInfo belongs to no training, whose learning rate it could set")


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
        Of the validation rows after the epoch, if there are any: of the set and the metric that decide.  Those of other
        sets and metrics are in ``estimator.history_``.
    learning_rate : float
        Of the epoch's last step.
    seconds : float
        Wall time of the epoch.
    estimator : estimator
        The one in training; ``predict`` works. ``coefs_`` and the other weights keep the values of this epoch if a
        callback keeps the arrays. Editing or replacing them changes the weights that training goes on with.
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
    _set_rate: Callable[[float], None] = field(default=_no_training, repr=False)

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the epochs to come.

        The schedules "adaptive" and "plateau" reduce this rate further when they would have reduced their own. All
        others are overridden: the rate stays until a callback sets another.

        Parameters
        ----------
        value : float
            Finite and greater than 0.

        Raises
        ------
        ValueError
            For any other value.

        Examples
        --------
        A rate that follows the loss:

        >>> from fastmlp import MLPClassifier
        >>> clf = MLPClassifier(callbacks=[lambda info: info.set_learning_rate(0.01 * min(info.loss, 1.0))])
        """
        self._set_rate(value)


@contextmanager
def watching(callbacks: Iterable[Callable[[EpochInfo], Any]], estimator: Any) -> Iterator[Callable[[EpochInfo], bool]]:
    """Begin all callbacks, yield the function to call after each epoch, end all callbacks that were begun.

    The yielded function calls every callback, also when one of them has asked to stop, and returns whether any has. The
    estimator's ``stopped_by_`` then names those that have.
    """
    callbacks = list(callbacks)
    check_callbacks(callbacks)
    in_order = sorted(callbacks, key=lambda callback: getattr(callback, "after_others", False))

    def after_epoch(info: EpochInfo) -> bool:
        stopping = [callback for callback in in_order if asks_to_stop(callback, info)]  # calls all of them
        if stopping:
            estimator.stopped_by_ = " and ".join(map(name_of, stopping))
            if getattr(estimator, "verbose", False):
                print(f"Training stopped by callback {estimator.stopped_by_} after epoch {info.epoch}.")
        return bool(stopping)

    with ExitStack() as ends:
        for callback in callbacks:
            if hasattr(callback, "on_fit_end"):
                ends.callback(callback.on_fit_end, estimator)
            if hasattr(callback, "on_fit_begin"):
                callback.on_fit_begin(estimator)
        yield after_epoch


def check_callbacks(callbacks: Iterable[Any]) -> None:
    """Refuse what is no callback; the TypeError says what to use instead."""
    for callback in callbacks:
        if isinstance(callback, type):
            name = callback.__name__
            raise TypeError(f"callbacks must be instances; {name} is a class: write {name}(...)")
        foreign = advice(callback)
        if foreign is not None:
            raise TypeError(f"callbacks must be callables f(epoch_info) -> stop, got {callback!r:.200}: {foreign}")
        if not callable(callback):
            hint = "; scikit-learn's go into set_callbacks" if hasattr(callback, "on_fit_task_end") else ""
            raise TypeError(f"callbacks must be callables f(epoch_info) -> stop, got {callback!r:.200}{hint}")


def reads_weights(callbacks: Iterable[Any]) -> bool:
    """Return whether a callback may keep or edit the weights: all but those that say that they do not."""
    return any(getattr(callback, "reads_weights", True) for callback in callbacks)


def asks_to_stop(callback: Callable[[EpochInfo], Any], info: EpochInfo) -> bool:
    """Return whether a callback asks to stop; a TypeError refuses a value that is not True, False or None."""
    wish = callback(info)
    if wish is None or isinstance(wish, bool | np.bool_):
        return bool(wish)
    raise TypeError(
        f"callback {name_of(callback)} returned {wish!r:.100} of type {type(wish).__name__}. A callback returns True to"
        " stop training, and None or False to go on. Return nothing if the value is an accident, as with"
        " `lambda info: file.write(...)`; to stop by a condition, return bool(...)"
    )


def name_of(callback: Any) -> str:
    """Return what users know a callback by: a function's name, an object's repr.

    Examples
    --------
    >>> name_of(TimeLimit(60)), name_of(check_callbacks)
    ('TimeLimit(seconds=60)', 'check_callbacks')
    """
    callback = getattr(callback, "func", callback)  # of a functools.partial
    name = getattr(callback, "__qualname__", None)
    if name is None:
        plain = type(callback).__repr__ is object.__repr__  # an address, which tells nobody anything
        name = type(callback).__name__ if plain else repr(callback)
    code = getattr(callback, "__code__", None)
    if "<lambda>" in name and code is not None:
        name += f" ({os.path.basename(code.co_filename)}, line {code.co_firstlineno})"
    return name[:200]


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

    reads_weights: ClassVar[bool] = False
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

    reads_weights: ClassVar[bool] = False

    logger: str = "fastmlp"
    level: int = logging.INFO
    every: int = 1

    def __post_init__(self) -> None:
        check_every(self.every)

    def __call__(self, info: EpochInfo) -> None:
        logger = logging.getLogger(self.logger)
        if not is_due(info, self.every) or not logger.isEnabledFor(self.level):
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

    reads_weights: ClassVar[bool] = False

    seconds: float
    _end: float = field(default=math.inf, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.seconds, numbers.Real) and self.seconds > 0 and is_float(self.seconds)):
            raise ValueError(f"seconds must be a number > 0, within float64, got {self.seconds!r}")

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

    reads_weights: ClassVar[bool] = False
    after_others: ClassVar[bool] = True  # what they change of the training belongs to the epoch

    path: str | os.PathLike[str]
    every: int = 1
    keep_best: bool = False
    _best: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_every(self.every)
        try:
            os.fspath(self.path).format(epoch=1)
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"the only braces in a checkpoint's path may be {{epoch}}, got {self.path!r}") from error

    def on_fit_begin(self, estimator: Any) -> None:
        self._best = None

    def __call__(self, info: EpochInfo) -> None:
        best = not self.keep_best or self._is_best(info)
        if best and is_due(info, self.every):
            checkpoint.save(os.fspath(self.path).format(epoch=info.epoch), info.snapshot())

    def _is_best(self, info: EpochInfo) -> bool:
        name = watched_by(info)
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


def is_float(value: float) -> bool:
    """Return whether a number is within the range of float64, which an int need not be."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


def watched_by(info: EpochInfo) -> str:
    """Return the number by which epochs are compared: score or validation loss, as the estimator's ``monitor`` says.

    Without validation rows it is the training loss.
    """
    from fastmlp.training.metrics import decisive  # imports scikit-learn, as training has done by now

    names = ["score", "validation_loss", "loss"]
    if decisive(getattr(info.estimator, "monitor", "score")) == "loss":
        names.remove("score")
    return next(name for name in names if getattr(info, name) is not None)


def check_every(every: int) -> None:
    """Refuse a number of epochs between two calls that is less than 1."""
    if not isinstance(every, numbers.Real) or not every >= 1:
        raise ValueError(f"every must be >= 1, got {every!r}")


def is_due(info: EpochInfo, every: int) -> bool:
    """Return whether an epoch is one of every so many, or the last that can come."""
    return info.epoch % every == 0 or info.epoch == info.max_iter
