"""Stochastic training: epochs, validation and callbacks around an engine's ``train_epoch``.

The trajectory is scikit-learn's: the order of random draws and the texts here, the stopping rules in stopping.py.
Further training needs the estimator's :class:`fastmlp.training.state.TrainingState` and its fitted attributes
(``loss_curve_``, ``n_iter_``, ...), which are written here.

An epoch: shuffle -> engine.train_epoch -> record -> validate -> schedule -> Stopping -> callbacks.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastmlp.engines.backends import Data
from fastmlp.model.network import Network
from fastmlp.model.stages import OPTIONS
from fastmlp.training import snapshots, stopping
from fastmlp.training import state as states
from fastmlp.training.diagnosis import Guard, has_own_formulas
from fastmlp.training.optimizers import make_optimizer
from fastmlp.training.schedules import Schedule
from fastmlp.training.validation import Validation, new_history


def size_of_batches(estimator: Any, n_rows: int) -> int:
    """Return the number of rows in a batch, at most all of them."""
    return min(200 if estimator.batch_size == "auto" else int(estimator.batch_size), n_rows)


def check_batches(estimator: Any, n_rows: int) -> int:
    """Return how many of the training rows an epoch visits: all, or with drop_last those of whole batches.

    A ValueError says that no batch is left, or that an option needs several rows and batches have a single one.
    """
    batch_size = size_of_batches(estimator, n_rows)
    rest = n_rows % batch_size
    if estimator.drop_last and estimator.batch_size != "auto" and estimator.batch_size > n_rows:
        raise ValueError(
            f"drop_last=True leaves no batch: batch_size={estimator.batch_size} is more than the {n_rows} training rows"
        )
    for name, option in OPTIONS.items():
        given = getattr(estimator, name)
        if batch_size == 1 and option.whole_batch and option.asks(given):
            raise ValueError(f"{name}={given!r} makes no sense with batches of one row, which has no variance")
    return n_rows - rest if estimator.drop_last else n_rows


class Run:
    """One stochastic training: what each epoch needs.

    The estimator is read for parameters and the state of its training, and written with fitted attributes. The vector
    `params` (n_params,) is trained in place, on some `rows` of the data or on all. With `keep_optimizer` training goes
    on with the estimator's optimizer and dropout masks, if it has them (partial_fit).
    """

    def __init__(
        self,
        estimator: Any,
        engine: ModuleType,
        network: Network,
        params: np.ndarray,
        data: Data,
        rows: np.ndarray | None = None,
        validation: Validation | None = None,
        keep_optimizer: bool = False,
    ) -> None:
        self.estimator, self.engine, self.network, self.params, self.data = estimator, engine, network, params, data
        self.state = states.of(estimator)
        self.stopping = self.state.stopping
        self.validation, self.has_validation = validation, validation is not None
        # all rows to train on, shuffled in place
        self.order = np.arange(data.X.shape[0], dtype=np.intp) if rows is None else rows.copy()
        self.batch_size = size_of_batches(estimator, len(self.order))
        if estimator.batch_size != "auto" and estimator.batch_size > len(self.order):
            text = "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped"
            warnings.warn(text, stacklevel=3)
        # a view of those that an epoch visits: all but what drop_last drops
        self.visited = self.order[: check_batches(estimator, len(self.order))]
        self.workspaces: dict[int, Any] = {}  # by the size of the batches
        self.finished = False  # whether a stopping rule holds
        self._take_optimizer(keep_optimizer)
        self._prepare_attributes()
        self.guard = Guard(self) if has_own_formulas(network) else None

    def _take_optimizer(self, keep: bool) -> None:
        """Make an optimizer and draw the key of dropout masks, or keep those of the state."""
        estimator, network, state = self.estimator, self.network, self.state
        optimizer = state.optimizer_for(network) if keep else None
        if optimizer is None:
            n_steps = sum(-(-len(rows) // size) for rows, size in self.parts(self.visited))
            parameters = {name: getattr(estimator, name) for name in type(estimator).__dataclass_fields__}
            optimizer = make_optimizer(estimator.solver, network, parameters, n_steps, estimator.max_iter)
            state.optimizer, state.dropout_seed = optimizer, None
        if state.dropout_seed is None:
            state.dropout_seed = _draw_dropout_seed(network, state.random_state, estimator.t_)
        self.optimizer = optimizer
        schedule = optimizer.schedule
        self._constant_rate = schedule.initial if type(schedule) is Schedule else None

    def _prepare_attributes(self) -> None:
        """Add the attributes that epochs write to, if an earlier fit or a user's weights did not create them."""
        estimator = self.estimator
        estimator.n_iter_ = 0
        estimator.__dict__.setdefault("history_", new_history())
        if self.validation is not None:
            estimator.__dict__.setdefault("validation_loss_curve_", [])
            if getattr(estimator, "validation_scores_", None) is None:
                estimator.validation_scores_ = []
        self.stopping.begin(estimator, self.has_validation)

    @property
    def keeps_best(self) -> bool:
        """Return whether the best weights on the validation rows are kept."""
        return stopping.keeps_best(self.estimator, self.has_validation)

    # --- one epoch -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to count epochs: those of the history so far are not this run's."""
        estimator = self.estimator
        l1 = estimator.alpha * estimator.l1_ratio
        # only what is in use: the usual call stays as short as it was
        options = {"l1": l1 or None, "seed": self.state.dropout_seed}
        self.options = {name: value for name, value in options.items() if value is not None}
        self.alpha = estimator.alpha * (1 - estimator.l1_ratio)
        self._random_state = self.state.random_state
        self._visit_all = self.steps(self.visited)
        self._n_losses = len(estimator.loss_curve_)
        self._n_validations = 0 if self.validation is None else len(estimator.validation_loss_curve_)
        self._ends = [time.perf_counter()]
        self._rates: list[float] = []

    def epoch(self) -> None:
        """Train for an epoch and note how it went; on tiny data that must cost next to nothing."""
        estimator = self.estimator
        if estimator.shuffle:
            # sklearn.utils.shuffle shuffles indices and takes the order before by them: the same swaps
            self.engine.shuffle(self.order, self._random_state)
        loss = self._visit_all()
        if self.guard is not None:
            self.guard.after_epoch(loss)
        if self._constant_rate is None:
            self._rates.append(self.optimizer.scheduled_rate)
        estimator.n_iter_ += 1
        estimator.loss_ = loss
        estimator.t_ += len(self.visited)
        estimator.loss_curve_.append(loss)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
        if self.validation is None:
            self.stopping.watch_loss(estimator, loss)
            self.optimizer.after_score(loss)
        else:
            self._validate(*self.validation())
        self.optimizer.after_epoch(estimator.t_)
        self._ends.append(time.perf_counter())

    def steps(self, rows: np.ndarray) -> Callable[[], float]:
        """Return what trains on these rows, batch by batch, and returns their mean loss."""
        visits = [self._visit(*part) for part in self.parts(rows)]
        if len(visits) == 1:
            return visits[0]
        shares = [len(part) / len(rows) for part, _ in self.parts(rows)]
        return lambda: sum(share * visit() for share, visit in zip(shares, visits, strict=True))

    def parts(self, rows: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Return the rows of an epoch in parts, each with the size of its batches: views, nearly always a single one.

        A single row left over has no variance. If a layer needs that of its batch, the row joins the last batch, which
        is then a part of its own, with one row more than the others.
        """
        size, n = self.batch_size, len(rows)
        if not self.network.needs_whole_batch or n <= size or n % size != 1:
            return [(rows, size)]
        first = n - size - 1
        return [part for part in ((rows[:first], size), (rows[first:], size + 1)) if len(part[0])]

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the rows of each batch of the present epoch."""
        for rows, size in self.parts(self.visited):
            for start in range(0, len(rows), size):
                yield rows[start : start + size].copy()

    def _visit(self, rows: np.ndarray, batch_size: int) -> Callable[[], float]:
        """Return what trains on these rows in batches of this size, and returns their mean loss."""
        if batch_size not in self.workspaces:
            self.workspaces[batch_size] = self.engine.workspace(self.network, batch_size, self.estimator.n_jobs)
        args = self.workspaces[batch_size], self.params, self.data, rows, batch_size, self.alpha, self.optimizer
        return partial(self.engine.train_epoch, *args, **self.options)

    def _validate(self, loss: float, score: float) -> None:
        """Note how the validation rows did, and keep the best weights."""
        estimator = self.estimator
        estimator.validation_loss_curve_.append(loss)
        estimator.validation_scores_.append(score)
        if estimator.verbose:
            print(f"Validation loss: {loss:f}" if estimator.monitor == "loss" else f"Validation score: {score:f}")
        if self.stopping.watch_validation(estimator, loss, score) and self.keeps_best:
            self.state.best_params = self.params.copy()
        by_loss = stopping.monitors_loss(estimator)
        self.optimizer.after_score(loss if by_loss else score, higher_is_better=not by_loss)

    def judge(self) -> bool:
        """Return whether training has gone without improvement for so long that it ends."""
        if self.stopping.ends(self.estimator, self.has_validation, self.optimizer):
            self.finished = True
        return self.finished

    # --- history -------------------------------------------------------------------------------------------------

    def write_history(self) -> None:
        """Append the new epochs to ``history_``."""
        estimator, n = self.estimator, len(self._ends) - 1
        new = {
            "loss": estimator.loss_curve_[self._n_losses :][:n],
            "validation_loss": [np.nan] * n,
            "score": [np.nan] * n,
            "learning_rate": [self._constant_rate] * n if self._constant_rate is not None else self._rates[:n],
            "seconds": np.diff(self._ends).tolist(),
        }
        if self.validation is not None:
            losses, first = estimator.validation_loss_curve_, self._n_validations
            new["validation_loss"] = losses[first:][:n]
            new["score"] = estimator.validation_scores_[-len(losses) :][first:][:n]
        for name, column in new.items():
            estimator.history_[name].extend(column)
        self._n_losses += n
        self._n_validations += n
        self._ends = self._ends[-1:]
        self._rates = []

    def info(self) -> Any:
        """Return what callbacks are told about the latest epoch."""
        from fastmlp.training.callbacks import EpochInfo  # imported only if there are callbacks

        self.write_history()
        latest = {name: column[-1] for name, column in self.estimator.history_.items()}
        if self.validation is None:
            latest["validation_loss"] = latest["score"] = None
        return EpochInfo(
            epoch=self.estimator.n_iter_,
            max_iter=self.estimator.max_iter,
            estimator=self.estimator,
            snapshot=lambda: snapshots.take(self),
            **latest,
        )


def train_stochastic(
    run: Run,
    callbacks: Sequence[Callable[[Any], Any]] = (),
    snapshot: Mapping[str, Any] | None = None,
    single_epoch: bool = False,
) -> None:
    """Train by mini-batches until a stopping rule holds or a callback asks to stop; the run's params change in place.

    `snapshot` is that of a training to resume; `single_epoch` is for partial_fit.
    """
    if snapshot is not None:
        snapshots.restore(run, snapshot)
    run.begin()
    try:
        if callbacks:
            from fastmlp.training.callbacks import watching

            with watching(callbacks, run.estimator) as after_epoch:
                _train(run, after_epoch, single_epoch)
        else:
            _train(run, None, single_epoch)
    finally:
        run.write_history()
    if run.keeps_best and run.state.best_params is not None:
        run.params[...] = run.state.best_params
        # as in scikit-learn, a warm start trains on the very vector it calls the best so far
        run.state.best_params = None


def _train(run: Run, after_epoch: Callable[[Any], bool] | None, single_epoch: bool) -> None:
    estimator = run.estimator
    try:
        while estimator.n_iter_ < estimator.max_iter and not run.finished:
            run.epoch()
            stop = run.judge()
            if after_epoch is not None:
                stop = after_epoch(run.info()) or stop
            if stop or single_epoch:
                break
            if estimator.n_iter_ == estimator.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter:d}) "
                    "reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=2)


def _draw_dropout_seed(network: Network, random_state: Any, n_seen: int) -> int | None:
    """Return the key of the dropout masks, in [0, 2^64); None without dropout, for which nothing is drawn."""
    if not (network.dropout or network.input_dropout):
        return None
    drawn = int.from_bytes(random_state.bytes(8), "little")
    # a warm start may draw the same number again: the rows seen so far tell it from the fit before
    return (drawn + n_seen) % 2**64
