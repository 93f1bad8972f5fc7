"""Stochastic training: epochs, validation and callbacks around an engine's ``train_epoch``.

The trajectory is scikit-learn's: the order of random draws and the texts here, the stopping rules in stopping.py.
Further training needs the estimator's :class:`fastmlp.training.state.TrainingState` and its fitted attributes
(``loss_curve_``, ``n_iter_``, ...), which are written here.

An epoch: shuffle -> engine.train_epoch -> record -> validate -> schedule -> Stopping -> callbacks.  Epochs between
which nobody looks at the network go into one call of the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastmlp.data.warned import warn
from fastmlp.engines.backends import Data
from fastmlp.kernels import interrupts
from fastmlp.model import weights
from fastmlp.model.network import Network
from fastmlp.model.stages import OPTIONS
from fastmlp.training import history, snapshots, standardized, stopping, weightless
from fastmlp.training import state as states
from fastmlp.training.diagnosis import Guard, has_own_formulas
from fastmlp.training.optimizers import make_optimizer
from fastmlp.training.order import shuffle_blocks
from fastmlp.training.schedules import Schedule
from fastmlp.training.together import train_epoch_of
from fastmlp.training.validation import Evaluation

#: Rows whose order may be drawn ahead (512 KiB): epochs with more take so long that a call for each costs nothing.
MOST_AHEAD = 2**16
#: What a warning says after Ctrl-C.
INTERRUPTED = "Training interrupted by user."


def size_of_batches(estimator: Any, n_rows: int) -> int:
    """Return the number of rows in a batch, at most all of them."""
    return min(200 if estimator.batch_size == "auto" else int(estimator.batch_size), n_rows)


def check_batches(estimator: Any, n_rows: int, one_batch: bool = False) -> int:
    """Return how many of the training rows an epoch visits: all, or with drop_last those of whole batches.

    With `one_batch` all rows are one. A ValueError says that an option needs several rows and batches have a single
    one.
    """
    batch_size = n_rows if one_batch else size_of_batches(estimator, n_rows)
    rest = n_rows % batch_size
    for name, option in OPTIONS.items():
        given = getattr(estimator, name)
        if batch_size == 1 and option.whole_batch and option.asks(given):
            raise ValueError(f"{name}={given!r} makes no sense with batches of one row, which has no variance")
    return n_rows - rest if estimator.drop_last else n_rows


def _n_batches(parts: list[tuple[np.ndarray, int]]) -> int:
    return sum(-(-len(rows) // size) for rows, size in parts)


class Run:
    """One stochastic training: what each epoch needs.

    The estimator is read for parameters and the state of its training, and written with fitted attributes. The vector
    `params` (n_params,) is trained in place, on some `rows` of the data or on all. With `keep_optimizer` training goes
    on with the estimator's optimizer and dropout masks, if it has them (partial_fit). With `one_batch` all rows are a
    batch, whatever the estimator's batch_size.
    """

    def __init__(
        self,
        estimator: Any,
        engine: ModuleType,
        network: Network,
        params: np.ndarray,
        data: Data,
        rows: np.ndarray | None = None,
        evaluation: Evaluation | None = None,
        keep_optimizer: bool = False,
        one_batch: bool = False,
    ) -> None:
        self.estimator, self.engine, self.network, self.params, self.data = estimator, engine, network, params, data
        self._train_epoch = train_epoch_of(engine)
        self.shown, self.y = params, data.y  # what users see: the same, unless targets are standardised
        self.state = states.of(estimator)
        self.stopping = self.state.stopping
        self.evaluation = evaluation
        self.has_validation = evaluation is not None and evaluation.deciding is not None
        # all rows to train on, shuffled in place
        self.order = np.arange(data.X.shape[0], dtype=np.intp) if rows is None else rows.copy()
        self.batch_size = len(self.order) if one_batch else size_of_batches(estimator, len(self.order))
        if not one_batch and estimator.batch_size != "auto" and estimator.batch_size > len(self.order):
            warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
        # a view of those that an epoch visits: all but what drop_last drops
        self.visited = self.order[: check_batches(estimator, len(self.order), one_batch)]
        self.workspaces: dict[int, Any] = {}  # by the size of the batches
        self._holder: Any = None  # the workspace that holds weights and states back, if the engine has such (fetch)
        self.seen = self.parts(self.visited)  # what the latest epoch trained on: all but the batches without weight
        self.n_seen = len(self.visited)
        self.looks_at_weight = weightless.needs_a_look(data.sample_weight)
        if self.looks_at_weight and not keep_optimizer:
            weight: Any = data.sample_weight
            weightless.check_weight(weight[self.order], "the {} training rows")
            if not estimator.shuffle:
                weightless.check_weight(weight[self.visited], "the {} rows that drop_last=True leaves")
        self.finished = False  # whether a stopping rule holds
        self.state.interrupted = False
        self.n_judged = 0  # epochs of which validation rows have said how good they are
        self.units = standardized.begin(estimator, network, params, data, self.order, keep_optimizer)
        if self.units is not None:
            self.params = self.units.params
            self._use_units(self.units)
            self.show_weights()
        self._take_optimizer(keep_optimizer)
        self._prepare_attributes()
        self.guard = Guard(self) if has_own_formulas(network) else None
        self.number = 0  # of the network in its ensemble
        self.step_watchers: list[Any] = []  # callbacks that look at the network between steps

    def _use_units(self, units: standardized.Standardized) -> None:
        """Train on targets in these units, and evaluate in them."""
        self.data = units.data(self.data._replace(y=self.y))
        if self.evaluation is not None:
            self.evaluation.standardize(units.scale)

    def renew_units(self) -> None:
        """Standardise by the training rows of a snapshot, and show its weights."""
        if self.units is not None:
            self.units.scale = standardized.Scale.of(self.data._replace(y=self.y), self.order)
            self._use_units(self.units)
            self.show_weights()

    def show_weights(self) -> None:
        """Let users see the present weights in the units of y."""
        if self.units is not None:
            self.units.show(self.network, self.shown)

    def present_params(self) -> np.ndarray:
        """Return a copy of the weights with what callbacks have assigned; a ValueError refuses other shapes."""
        given = weights.flat_params(self.estimator, self.network)
        return given.copy() if self.units is None else self.units.taken(self.network, given)

    def _take_optimizer(self, keep: bool) -> None:
        """Make an optimizer and draw the key of dropout masks, or keep those of the state."""
        estimator, network, state = self.estimator, self.network, self.state
        optimizer = state.optimizer_for(network) if keep else None
        factors = estimator._segment_factors(network)
        if optimizer is None:
            n_steps, parameters = _n_batches(self.parts(self.visited)), estimator._training_parameters()
            optimizer = make_optimizer(estimator.solver, network, parameters, n_steps, estimator.max_iter, factors)
            state.optimizer, state.dropout_seed = optimizer, None
        elif factors is not None or optimizer.factors is not None:  # what is frozen may have changed
            optimizer.use_factors(factors, network)
        if state.dropout_seed is None:
            state.dropout_seed = _draw_dropout_seed(network, state.random_state, estimator.t_)
        self.optimizer = optimizer

    def _note_constant_rate(self) -> None:
        """Note the rate of all epochs to come, if there is a single one: then nobody need ask for it."""
        schedule = self.optimizer.schedule
        self._constant_rate = schedule.initial if type(schedule) is Schedule else None

    def _prepare_attributes(self) -> None:
        """Add the attributes that epochs write to, if an earlier fit or a user's weights did not create them."""
        estimator = self.estimator
        estimator.n_iter_ = 0
        estimator.stopped_by_ = None
        estimator.__dict__.setdefault("history_", history.new_history())
        if self.has_validation:
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
        self._random_state: Any = self.state.random_state  # there is one once weights were drawn
        self._choose_visits()
        self._n_losses = len(estimator.loss_curve_)
        self._n_validations = len(estimator.validation_loss_curve_) if self.has_validation else 0
        self._ends = [time.perf_counter()]
        self._rates: list[float] = []
        self._orders = np.empty((0, 0), dtype=np.intp)  # of epochs drawn ahead: new memory is slow
        self._note_constant_rate()  # that of a snapshot may be another than the estimator's

    @property
    def _block_rows(self) -> int:
        """Return the rows of the blocks that are shuffled; 0 if rows are, or nothing is."""
        shuffle = self.estimator.shuffle
        return 0 if isinstance(shuffle, bool | np.bool_) else int(shuffle)

    def n_unwatched(self) -> int:
        """Return how many epochs may come before somebody looks at one: a rule, a user, or what an epoch prepares.

        They train in one call of the engine, which small networks notice.
        """
        estimator = self.estimator
        watched = any(one is not None for one in (self.evaluation, self.guard, self.units)) or estimator.verbose
        prepares = self.looks_at_weight or len(self.seen) > 1 or self._constant_rate is None or self._block_rows
        if watched or prepares:
            return 1
        n = min(estimator.max_iter - estimator.n_iter_, self.stopping.least_epochs(estimator))
        return max(1, int(min(n, MOST_AHEAD // len(self.order))))

    def epochs(self, n: int) -> None:
        """Train for `n` epochs of :meth:`n_unwatched` and note how they went."""
        if n == 1:
            self.epoch()
            return
        if self.estimator.shuffle:
            self._orders = self._orders if len(self._orders) >= n else np.empty((n, len(self.order)), np.intp)
            orders = self._orders[:n]
            orders[0] = self.order
            self.engine.shuffle(orders, self._random_state)
        else:
            orders = np.broadcast_to(self.order, (n, len(self.order)))
        losses, t = np.empty(n), self.optimizer.t
        try:
            args = self._arguments(orders[:, : len(self.visited)], self.seen[0][1])
            self._train_epoch(*args, losses=losses, **self.options)
        finally:
            n_done = (self.optimizer.t - t) // _n_batches(self.seen)
            self.order[...] = orders[min(n_done, n - 1)]  # that of the epoch under way, if an error ends this one
            done = losses[:n_done].tolist()
            self._note(done)
            self.stopping.watch_losses(self.estimator, done)
            self._ends += np.linspace(self._ends[-1], time.perf_counter(), n_done + 1)[1:].tolist()

    def epoch(self) -> None:
        """Train for an epoch and note how it went; on tiny data that must cost next to nothing."""
        estimator = self.estimator
        if self._block_rows:
            shuffle_blocks(self.order, self._random_state, self._block_rows)
        elif estimator.shuffle:
            # sklearn.utils.shuffle shuffles indices and takes the order before by them: the same swaps
            self.engine.shuffle(self.order, self._random_state)
        loss = self._visit_all()
        if self._holder is not None and (self.evaluation is not None or self.units is not None):
            self.fetch(states=False)
        if self.guard is not None:
            self.guard.after_epoch(loss)
        if self.units is not None:
            self.show_weights()
        if self._constant_rate is None:
            self._rates.append(self.optimizer.scheduled_rate)
        self._note([loss])
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
        validated = None if self.evaluation is None else self.evaluation(self.params)
        if validated is None:
            self.stopping.watch_losses(estimator, [loss])
            self.optimizer.after_score(loss)
        else:
            self._validate(*validated)
        self.optimizer.after_epoch(estimator.t_)
        self._ends.append(time.perf_counter())

    def step(self) -> float:
        """Take a step on a run of one batch; return the loss before it."""
        self.begin()
        try:
            loss = self._visit_all()
        finally:
            self.fetch()
        if self.guard is not None:
            self.guard.after_epoch(loss)
        self.show_weights()
        self.estimator.loss_ = loss
        self.estimator.t_ += self.n_seen
        return loss

    def _note(self, losses: list[float]) -> None:
        """Count epochs."""
        estimator = self.estimator
        estimator.n_iter_ += len(losses)
        estimator.loss_curve_ += losses
        if losses:
            estimator.loss_ = losses[-1]
        estimator.t_ += self.n_seen * len(losses)

    def _choose_visits(self) -> None:
        """Choose what an epoch calls, which holds the present vector of weights."""
        self._visit_all = self._visit_those_with_weight if self.looks_at_weight else self.steps(self.visited)

    def watch_steps(self, callbacks: Sequence[Any]) -> None:
        """Let callbacks look at the network every so many steps, those that ask for it."""
        self.step_watchers = [callback for callback in callbacks if getattr(callback, "every_steps", 0)]
        self._choose_visits()

    def steps(self, rows: np.ndarray) -> Callable[[], float]:
        """Return what trains on these rows, batch by batch, and returns their mean loss."""
        return self._visit(self.parts(rows))

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
        """Yield the rows of each batch of the latest epoch."""
        for rows, size in self.seen:
            for start in range(0, len(rows), size):
                yield rows[start : start + size].copy()

    def _visit(self, parts: list[tuple[np.ndarray, int]]) -> Callable[[], float]:
        """Return what trains on these parts, one after the other, and returns the mean loss of their rows."""
        visits = []
        for rows, size in parts:
            train: Any = self._with_pauses if self.step_watchers else self._train_epoch
            visits.append(partial(train, *self._arguments(rows, size), **self.options))
        if len(visits) == 1:
            return visits[0]
        n = sum(len(rows) for rows, _ in parts)
        shares = [len(rows) / n for rows, _ in parts]
        return lambda: sum(share * visit() for share, visit in zip(shares, visits, strict=True))

    def _with_pauses(
        self, workspace: Any, params: np.ndarray, data: Data, rows: np.ndarray, size: int, *args: Any, **options: Any
    ) -> float:
        """Train as the engine's ``train_epoch`` does, in pieces between which callbacks look at the network."""
        start, total = 0, 0.0
        while start < len(rows):
            n_steps = min(
                watcher.every_steps - self.optimizer.t % watcher.every_steps for watcher in self.step_watchers
            )
            piece = rows[start : start + n_steps * size]
            loss = self._train_epoch(workspace, params, data, piece, size, *args, **options)
            start, total = start + len(piece), total + loss * len(piece)
            for watcher in self.step_watchers:
                if self.optimizer.t % watcher.every_steps == 0:
                    watcher.on_step(self, loss)
        return total / len(rows)

    def _arguments(self, rows: np.ndarray, size: int) -> tuple[Any, ...]:
        """Return what the engine is given to train on these rows, in batches of this size."""
        if size not in self.workspaces:
            self.workspaces[size] = made = self.engine.workspace(self.network, size, self.estimator.n_jobs)
            self._let_hold_back(made)
        return self.workspaces[size], self.params, self.data, rows, size, self.alpha, self.optimizer

    def _let_hold_back(self, made: Any) -> None:
        """Let a workspace hold back what it trains, if it can, is the only one, and nobody looks at each step."""
        if self._holder is not None:
            self.fetch()
            self._holder.holds_back, self._holder = False, None
        elif len(self.workspaces) == 1 and self.guard is None and hasattr(made, "holds_back"):
            made.holds_back, self._holder = True, made

    def fetch(self, states: bool = True) -> None:
        """Bring weights, and the optimizer's states unless left out, to where they are read and written.

        An engine that works in a memory of its own leaves them there until this call (contract.Workspace).
        """
        if self._holder is not None:
            self._holder.fetch(states)

    def _visit_those_with_weight(self) -> float:
        """Train on the batches in which a row has weight; return their mean loss, NaN if there is no such batch."""
        weight: Any = self.data.sample_weight
        parts = self.parts(self.visited)
        with_weight = [(weightless.with_weight(rows, weight, size), size) for rows, size in parts]
        self.seen = [part for part in with_weight if len(part[0])]
        self.n_seen = sum(len(rows) for rows, _ in self.seen)
        try:
            loss = self._visit(self.seen)() if self.seen else np.nan
        except ZeroDivisionError as error:  # an engine may round the sum of a batch to zero, if this module does not
            raise ValueError(weightless.CANCEL.format("a batch")) from error
        self.optimizer.leave_out(_n_batches(parts) - _n_batches(self.seen))
        return loss

    def _validate(self, loss: float, score: float) -> None:
        """Note how the validation rows did, and keep the best weights."""
        estimator = self.estimator
        estimator.validation_loss_curve_.append(loss)
        estimator.validation_scores_.append(score)
        by_loss = stopping.monitors_loss(estimator)
        if estimator.verbose:
            print(f"Validation loss: {loss:f}" if by_loss else f"Validation score: {score:f}")
        if self.stopping.watch_validation(estimator, loss, score) and self.keeps_best:
            self.state.best_params = self.params.copy()
        self.n_judged += 1
        self.optimizer.after_score(loss if by_loss else score, higher_is_better=not by_loss)

    def judge(self) -> bool:
        """Return whether training has gone without improvement for so long that it ends."""
        if self.stopping.ends(self.estimator, self.has_validation, self.optimizer):
            self.finished = True
        return self.finished

    def restore_best(self) -> None:
        """Go back to the best weights; a ValueError says that no epoch was better than nothing."""
        if self.n_judged and self.stopping.best_monitored == -np.inf:
            what, worst = ("loss", "inf") if stopping.monitors_loss(self.estimator) else ("score", "-inf")
            raise ValueError(
                f"no epoch is the best: after each of {self.n_judged} epochs the validation {what} was NaN or"
                f" {worst}. Training has diverged, or the targets are too large: scale the data, or lower"
                f" learning_rate_init={self.estimator.learning_rate_init!r}"
            )
        if self.state.best_params is not None:
            self.params[...] = self.state.best_params
            # as in scikit-learn, a warm start trains on the very vector it calls the best so far
            self.state.best_params = None

    # --- what callbacks change -----------------------------------------------------------------------------------

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the epochs to come; the history has that of the epochs so far."""
        self.write_history()
        self.optimizer.set_learning_rate(value)
        self._note_constant_rate()
        if self.guard is not None:
            self.guard.keep()

    def renew_params(self) -> None:
        """Go on in a copy of the weights as callbacks have left them: arrays that they kept stay as they are."""
        estimator, network = self.estimator, self.network
        try:
            params = self.present_params()
        except (TypeError, IndexError, ValueError) as error:
            raise ValueError(f"a callback has left weights that do not fit the network: {error}") from error
        self.params = self.shown = params
        if self.units is not None:
            self.units.params, self.shown = params, np.empty_like(params)
            self.show_weights()
        estimator._expose(network, self.shown)
        self._choose_visits()
        if self.guard is not None:
            self.guard.keep()

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
        if self.has_validation:
            losses, first = estimator.validation_loss_curve_, self._n_validations
            new["validation_loss"] = losses[first:][:n]
            new["score"] = estimator.validation_scores_[-len(losses) :][first:][:n]
        if self.evaluation is not None:
            new |= self.evaluation.columns
            self.evaluation.columns = {}
        history.extend(estimator.history_, new, n)
        self._n_losses += n
        self._n_validations += n
        self._ends = self._ends[-1:]
        self._rates = []

    def forget_unjudged(self) -> None:
        """Do not count an epoch that is not in the history: Ctrl-C came before its validation rows were judged."""
        estimator, n = self.estimator, self._n_losses
        n_unjudged = len(estimator.loss_curve_) - n
        del estimator.loss_curve_[n:]
        estimator.n_iter_ -= n_unjudged
        estimator.t_ -= n_unjudged * self.n_seen
        if n:
            estimator.loss_ = estimator.loss_curve_[-1]

    def info(self) -> Any:
        """Return what callbacks are told about the latest epoch."""
        from fastmlp.training.callbacks import EpochInfo  # imported only if there are callbacks

        self.write_history()
        latest = {name: self.estimator.history_[name][-1] for name in history.COLUMNS}
        if not self.has_validation:
            latest["validation_loss"] = latest["score"] = None
        return EpochInfo(
            epoch=self.estimator.n_iter_,
            max_iter=self.estimator.max_iter,
            estimator=self.estimator,
            snapshot=lambda: snapshots.take(self),
            _set_rate=self.set_learning_rate,
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
            _train_watched(run, callbacks, single_epoch)
        else:
            _train(run, None, single_epoch)
    finally:
        run.fetch()
        run.write_history()
        if run.units is not None:
            standardized.end(run.estimator, run.network, run.units, run.shown)


def _train_watched(run: Run, callbacks: Sequence[Callable[[Any], Any]], single_epoch: bool) -> None:
    """Train with callbacks. After those that may keep or edit weights, training goes on in another vector."""
    from fastmlp.training.callbacks import reads_weights, watching

    renews = reads_weights(callbacks)
    with watching(callbacks, run.estimator) as ask:
        for callback in callbacks:
            if hasattr(callback, "on_run_begin"):
                callback.on_run_begin(run)
        run.watch_steps(callbacks)
        if renews:
            run.renew_params()

        def after_epoch(info: Any) -> bool:
            if renews:
                run.fetch()
            try:
                return ask(info)
            finally:
                if renews:
                    run.renew_params()

        _train(run, after_epoch, single_epoch)


def _train(run: Run, after_epoch: Callable[[Any], bool] | None, single_epoch: bool) -> None:
    """Train until a stopping rule holds or a callback asks to stop; restore the best weights if they are kept."""
    estimator = run.estimator
    try:
        while estimator.n_iter_ < estimator.max_iter and not run.finished:
            interrupts.check()  # engines look after half a giga-operation: many epochs of a small network
            run.epochs(1 if single_epoch or after_epoch is not None else run.n_unwatched())
            stop = run.judge()
            if after_epoch is not None:
                stop = after_epoch(run.info()) or stop
            if stop or single_epoch:
                break
            if estimator.n_iter_ == estimator.max_iter and not _is_planned(estimator):
                warn(
                    f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter:d}) "
                    "reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                )
    except KeyboardInterrupt:
        run.state.interrupted = True
        warn(INTERRUPTED)
    run.fetch()
    if run.keeps_best:
        run.restore_best()


def _is_planned(estimator: Any) -> bool:
    """Return whether `max_iter` epochs are what was asked for, since nothing else ends training.

    scikit-learn's tests want the ConvergenceWarning of a warm start all the same.
    """
    is_plan = estimator._epochs_are_planned or estimator.n_iter_no_change == np.inf
    return is_plan and not estimator.warm_start


def _draw_dropout_seed(network: Network, random_state: Any, n_seen: int) -> int | None:
    """Return the key of dropout masks and random slopes, in [0, 2^64); None where nothing is drawn."""
    if not (network.dropout or network.input_dropout or network.drawn_slopes):
        return None
    drawn = int.from_bytes(random_state.bytes(8), "little")
    # a warm start may draw the same number again: the rows seen so far tell it from the fit before
    return (drawn + n_seen) % 2**64
