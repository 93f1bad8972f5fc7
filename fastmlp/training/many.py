"""Several trainings side by side: on threads of this process, on the same rows, with one engine thread each.

An engine that trains many nets in one call gets the epochs of all of them (together.py).

::

    estimators (members, trials) --a Training each--> fit_many --threads--> Run (run.py) or L-BFGS, as in a single fit

What has a ``group`` and can ``train`` is a :class:`Training`: a member of an ensemble, a trial of a search.  A
:class:`Task` is a training that is ready to begin.  Its estimator has its first weights and a random state of its
own, so the result depends neither on the number of threads nor on timing.  X and y are shared.  A task costs its
parameters and states, and while it trains the engine's workspace.

The engines release the GIL.  Ctrl-C reaches the main thread only, so the caller waits in short slices and hands it on
(kernels/interrupts.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from sklearn import config_context, get_config

from fastmlp.data import warned
from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.kernels import interrupts, threads
from fastmlp.model import choices
from fastmlp.model.network import Network
from fastmlp.training import standardized
from fastmlp.training.diagnosis import check_finite
from fastmlp.training.in_step import Group
from fastmlp.training.lbfgs import train_lbfgs
from fastmlp.training.run import INTERRUPTED, Run, train_stochastic
from fastmlp.training.standardized import warn_of_large_targets
from fastmlp.training.together import Together, Turns
from fastmlp.training.validation import Evaluation


class Training(Protocol):
    """What fit_many trains."""

    @property
    def group(self) -> Group | None:
        """Return the networks in step that it is one of."""

    def train(self) -> None:
        """Train to the end."""


TrainingT = TypeVar("TrainingT", bound=Training)


@dataclass(eq=False)
class Task:
    """One training that is ready to begin.

    Attributes
    ----------
    estimator : estimator
        Read for parameters; written with the fitted attributes.
    engine : module
        With the functions of the contract.
    network : Network
    params : ndarray of shape (n_params,)
        First weights; trained in place.
    data : Data
        All rows; shared by the tasks.
    rows : ndarray of intp or None
        Rows to train on; None for all.
    evaluation : Evaluation or None
        What is evaluated after each epoch; of this estimator alone.
    group : Group or None
        The networks in step, if it is one of these (in_step.py).
    number : int
        Of the network in its ensemble.
    callbacks, snapshot, single_epoch
        As for :func:`fastmlp.training.run.train_stochastic`; `single_epoch` also keeps the optimizer.
    """

    estimator: Any
    engine: ModuleType
    network: Network
    params: np.ndarray
    data: Data
    rows: np.ndarray | None = None
    evaluation: Evaluation | None = None
    group: Group | None = None
    number: int = 0
    callbacks: Sequence[Callable[[Any], Any]] = ()
    snapshot: Mapping[str, Any] | None = None
    single_epoch: bool = False

    def train(self) -> None:
        """Train until a stopping rule holds; a ValueError says that the weights diverged."""
        estimator, network = self.estimator, self.network
        args = estimator, self.engine, network, self.params
        if choices.name_of(estimator.solver) == "lbfgs":
            estimator._expose(network, train_lbfgs(*args, self._without_other_rows()))
        else:
            run = Run(*args, self.data, self.rows, self.evaluation, keep_optimizer=self.single_epoch)
            run.number = self.number
            train_stochastic(run, self.callbacks, self.snapshot, self.single_epoch)
            if self.group is not None:
                run.forget_unjudged()
                self.group.leave()
        check_finite(estimator)
        if not self.single_epoch:
            warn_of_large_targets(estimator, network, self.data)

    def begin(self) -> None:
        """Leave the estimator as a training that is about to begin: weights in the units of y, optimizer, no epochs."""
        args = self.estimator, self.engine, self.network, self.params
        if choices.name_of(self.estimator.solver) != "lbfgs":
            Run(*args, self.data)
        elif (units := standardized.begin(self.estimator, self.network, self.params, self.data)) is not None:
            standardized.end(self.estimator, self.network, units, self.params)

    def step(self) -> float:
        """Take one step of the optimizer on all rows as one batch; return the loss before it.

        A ValueError says that the weights diverged.
        """
        estimator = self.estimator
        n_iter, stopped_by = estimator.n_iter_, vars(estimator).get("stopped_by_")
        run = Run(estimator, self.engine, self.network, self.params, self.data, keep_optimizer=True, one_batch=True)
        estimator.n_iter_, estimator.stopped_by_ = n_iter, stopped_by
        loss = run.step()
        check_finite(estimator)
        return loss

    def _without_other_rows(self) -> Data:
        """Return the data for L-BFGS, which sees all rows: those that are not to train on have no weight."""
        if self.rows is None:
            return self.data
        weight = np.zeros(self.data.X.shape[0], self.network.dtype)
        weight[self.rows] = 1 if self.data.sample_weight is None else self.data.sample_weight[self.rows]
        return self.data._replace(sample_weight=weight)


def n_side_by_side(engine: ModuleType, network: Network, n_tasks: int, n_jobs: int | None) -> int:
    """Return how many of `n_tasks` trainings run at the same time: as many as there may be threads.

    It is 1 if the engine's calls use all of the machine anyway: on a GPU, or by a BLAS with threads of its own.
    """
    if n_tasks < 2 or not backends.row_of(engine).side_by_side:
        return 1
    if getattr(engine.workspace(network, 1, 1), "uses_blas", False):
        return 1
    return min(n_tasks, threads.allowed(n_jobs))


def n_at_once(engine: ModuleType, n_tasks: int) -> int:
    """Return how many of `n_tasks` trainings go into one call of the engine; 1 if it has no such call."""
    return min(n_tasks, backends.row_of(engine).at_once) if hasattr(engine, "train_many") else 1


def n_in_training(n_tasks: int, n_threads: int, n_in_step: int = 1) -> int:
    """Return how many of the trainings are under way at the same time, if `n_in_step` of them wait for one another.

    Groups whose size is no multiple of the threads leave some of these idle at the end of each epoch.  With one group
    more there is something to do for them.
    """
    n_groups = -(-n_threads // n_in_step) + (n_in_step > 1 and n_in_step % n_threads > 0)
    return min(n_tasks, n_groups * n_in_step)


def fit_many(
    tasks: Sequence[TrainingT],
    n_threads: int,
    on_end: Callable[[TrainingT], None] | None = None,
    n_at_once: int = 1,
) -> None:
    """Train all tasks, `n_threads` at a time; the bits are the same for any number of threads.

    Parameters
    ----------
    tasks : sequence of Training
        They begin in this order; those of a group follow one another.
    n_threads : int
        Of :func:`n_side_by_side`.
    on_end : callable, default=None
        Called with each task that has ended, in the calling thread.
    n_at_once : int, default=1
        Of :func:`n_at_once`. If it is above 1, so many tasks are under way, they take turns, and their epochs go into
        one call of the engine.

    Raises
    ------
    Exception
        What a task raised, the first of them in the order of tasks; the other tasks are stopped.
    KeyboardInterrupt
        If the user interrupts tasks that keep no epochs (L-BFGS).

    Notes
    -----
    Ctrl-C stops the tasks in training as it stops a single fit: they keep the epochs that are done.  Tasks that have
    not begun keep their first weights, with ``n_iter_`` 0.  A warning says so.  Warnings of the tasks are issued in
    the calling thread, each text once.
    """
    trainings = _Trainings(tasks, n_threads, n_at_once)
    interrupted = trainings.run(on_end)
    trainings.raise_first_error()
    if interrupted:
        trainings.found[0].append((INTERRUPTED, UserWarning))
    warned.warn_once_each(entry for entries in trainings.found for entry in entries)


class _Trainings(Generic[TrainingT]):
    """Tasks on their way through threads.

    A signal may come between any two operations of the main thread, which then must neither lose a task nor leave one
    behind.  So threads take the number of a task from `todo` and put it into `ended`; the main thread only looks.
    """

    def __init__(self, tasks: Sequence[TrainingT], n_threads: int, n_at_once: int) -> None:
        self.tasks, self.stop = tasks, interrupts.Stop()
        self.todo, self.ended, self.unbegun = deque(range(len(tasks))), set[int](), set[int]()
        self.errors: dict[int, BaseException] = {}
        self.late = set[int]()  # tasks that had been asked to stop before their error came
        self.found = [list[warned.Warned]() for _ in tasks]
        self._contexts, self._config = [copy_context() for _ in tasks], get_config()
        self._wake, self._workers = threading.Event(), list[threading.Thread]()
        groups = [task.group for task in tasks if task.group is not None]
        # tasks begin in their order, so the oldest group always has a thread for each of its networks
        n_in_step = max((group.size for group in groups), default=1)
        self._n_workers = n_in_training(len(tasks), max(n_threads, n_at_once), n_in_step)
        self._turns = Turns(n_threads) if n_at_once == 1 else Together(self._n_workers)
        self._turns.announce(self._n_workers)
        for group in groups:
            group.turns = self._turns

    def run(self, on_end: Callable[[TrainingT], None] | None) -> bool:
        """Train all tasks; return whether Ctrl-C has ended them."""
        names = [f"fastmlp-fit-{i}" for i in range(self._n_workers)]
        workers = self._workers = [threading.Thread(target=self._work, name=name) for name in names]
        to_start, told, interrupted = iter(workers), set[int](), False
        try:
            while True:
                try:
                    self._watch(to_start, told, on_end)
                    _join(workers)
                    return interrupted
                except KeyboardInterrupt:
                    interrupted = True
                    self._end()
        finally:
            self._end()
            while len(self.ended) < len(self.tasks) and self._are_alive():  # an error of ours, or another Ctrl-C
                self._wait()
            _join(workers)

    def _watch(
        self, to_start: Iterator[threading.Thread], told: set[int], on_end: Callable[[TrainingT], None] | None
    ) -> None:
        """Start the threads, and tell of tasks that have ended, until all have.

        The loop is a function, so that Ctrl-C between two of its rounds is caught as one within them.
        """
        for worker in to_start:
            worker.start()
        while True:
            are_alive = self._are_alive()  # looked at first: threads that have ended add nothing any more
            ended = self.ended.copy()  # threads add to it at any time: what is told of is what is counted
            for i in sorted(ended - told - self.unbegun - self.errors.keys()) if on_end is not None else ():
                told.add(i)
                on_end(self.tasks[i])  # type: ignore[misc] # which is not None
            if len(ended) == len(self.tasks):
                return
            if not are_alive:
                raise RuntimeError(
                    f"the threads that train have died with {len(self.tasks) - len(ended)} of {len(self.tasks)} fits"
                    " undone: does a function given to threading.setprofile or threading.settrace raise errors?"
                )
            self._wait()
            if self.errors:
                self._end()
            interrupts.check()  # this thread may itself be one that another waits for

    def raise_first_error(self) -> None:
        """Raise the first of the tasks' errors; what comes of being stopped because of another one does not count."""
        raised = [self.errors[i] for i in sorted(self.errors, key=lambda i: (i in self.late, i))]
        if raised:
            raise next((error for error in raised if not isinstance(error, KeyboardInterrupt)), raised[0])

    def _are_alive(self) -> bool:
        return any(worker.is_alive() for worker in self._workers)

    def _wait(self) -> None:
        """Wait until a task has ended, or for a while."""
        self._wake.wait(interrupts.SLICE)
        self._wake.clear()

    def _end(self) -> None:
        """Stop the tasks in training; those that have not begun are over.  To do it again changes nothing."""
        self.stop.wanted = True
        self.unbegun.update(self.todo.copy())  # a thread that takes one of them now does nothing
        self.ended.update(self.unbegun)
        self.todo.clear()
        self._turns.wake()

    def _next(self) -> int | None:
        """Take the number of a task that nobody has begun; None if there is none."""
        try:
            return self.todo.popleft()
        except IndexError:
            return None

    def _work(self) -> None:
        """Train one task after the other, on a thread of its own, with the settings of the calling thread."""
        for i in iter(self._next, None):
            try:
                self._contexts[i].run(self._train, i)
            except BaseException as error:
                if self.stop.wanted:
                    self.late.add(i)
                self.errors[i] = error
            self.ended.add(i)
            self._wake.set()
        self._turns.end()

    def _train(self, i: int) -> None:
        with (
            self._turns.taken(),
            interrupts.stoppable(self.stop),
            warned.kept(self.found[i]),
            config_context(**self._config),
        ):
            if not self.stop.wanted:
                self.tasks[i].train()


def _join(workers: Sequence[threading.Thread]) -> None:
    """Wait for the threads that were started, which have no task left: they end at once."""
    for worker in workers:
        if worker.ident is not None:
            worker.join()
