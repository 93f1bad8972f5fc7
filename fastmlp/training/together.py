"""Trainings that take turns, and whose epochs go into one call of the engine.

::

    a thread for each training:  Python's part of an epoch, one thread at a time -> its call waits for the others'
    the thread that comes last:  engine.train_many with the calls of all -> each thread gets what its call came to

So a GPU trains many small nets at once, and a training is the same loop as ever (run.py).  Who waits for anything else
than its turn says so; nobody waits for those.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from fastmlp.engines.backends import Epochs
from fastmlp.kernels import interrupts

#: Seconds between two looks for a request to stop, of a training that waits for others: there may be hundreds.
LOOK = 1.0


class Turns:
    """Who works: so many trainings at a time, while the others wait for their turn.

    Parameters
    ----------
    n_threads : int
    """

    def __init__(self, n_threads: int) -> None:
        self._turns = threading.Semaphore(n_threads)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Work while the block runs."""
        with self._turns:
            yield

    def leave(self) -> None:
        """Let another training work, because this one waits for something else."""
        self._turns.release()

    def come_back(self) -> None:
        """Wait for a turn again, after :meth:`leave`."""
        self._turns.acquire()

    def expect(self, n: int) -> None:
        """Note that `n` trainings that left have what they waited for."""

    def announce(self, n: int) -> None:
        """Note that `n` more trainings will come."""

    def end(self) -> None:
        """Note that a training that was announced has ended, or will not come."""

    def wake(self) -> None:
        """Let those that wait look whether they are asked to stop."""


class _Call:
    """A call of ``train_epoch`` that waits for others."""

    def __init__(self, engine: ModuleType, arguments: Epochs) -> None:
        self.engine, self.arguments = engine, arguments
        self.woken = threading.Event()
        self.outcome: Any = None  # a loss, or what is to be raised
        self.taken = self.leads = False


class Together(Turns):
    """Turns of one training at a time, whose calls are made together.

    A call is made once all other trainings wait too: with calls of their own, or for something else (:meth:`leave`).

    Parameters
    ----------
    n_at_once : int
        Trainings that may have begun and not ended: of those that are announced, the others will not come before one
        of these has ended.
    """

    def __init__(self, n_at_once: int) -> None:
        super().__init__(1)
        self._lock = threading.Lock()
        self._calls: list[_Call] = []
        self._n_at_once, self._announced, self._away = n_at_once, 0, 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Work while the block runs, and make calls of ``train_epoch`` together with the others."""
        token = _PRESENT.set(self)
        try:
            with super().taken():
                yield
        finally:
            _PRESENT.reset(token)

    def leave(self) -> None:
        """Let others work, and train without waiting for this one."""
        super().leave()
        with self._lock:
            self._away += 1
            self._call_if_all_wait()

    def expect(self, n: int) -> None:
        """Note that `n` trainings that left have what they waited for: their calls are waited for again."""
        with self._lock:
            self._away -= n

    def announce(self, n: int) -> None:
        """Note that `n` more trainings will come: their calls are waited for."""
        with self._lock:
            self._announced += n

    def end(self) -> None:
        """Note that a training that was announced has ended, or will not come."""
        with self._lock:
            self._announced -= 1
            self._call_if_all_wait()

    def wake(self) -> None:
        """Let those that wait look whether they are asked to stop."""
        with self._lock:
            for call in self._calls:
                call.woken.set()

    def train_epoch(self, engine: ModuleType, arguments: Epochs) -> float:
        """Make this call of ``engine.train_epoch`` with those of all others; return or raise what comes of it."""
        call = _Call(engine, arguments)
        with self._lock:
            self._calls.append(call)
            self._call_if_all_wait()
        if not call.leads:
            super().leave()
            try:
                self._wait(call)
            finally:
                super().come_back()
        if call.leads:
            self._make_calls()
        if isinstance(call.outcome, BaseException):
            raise call.outcome
        loss: float = call.outcome
        return loss

    def _call_if_all_wait(self) -> None:
        """Let one of those that wait make the calls of all, if nobody else will come."""
        coming = min(self._announced, self._n_at_once) - self._away
        if self._calls and len(self._calls) >= coming and not any(call.leads for call in self._calls):
            leader = self._calls[-1]
            leader.leads = True
            leader.woken.set()

    def _wait(self, call: _Call) -> None:
        """Wait until a call was made, or is this thread's to make; KeyboardInterrupt ends it if training is stopped."""
        while True:
            call.woken.wait(LOOK)
            with self._lock:
                call.woken.clear()
                if call.leads or call.outcome is not None:
                    return
                if call.taken:  # whoever makes it sees the request, too
                    continue
                try:
                    interrupts.check()
                except KeyboardInterrupt:
                    self._calls.remove(call)
                    raise

    def _make_calls(self) -> None:
        """Make all calls that wait, engine by engine."""
        with self._lock:
            calls, self._calls = self._calls, []
            for call in calls:
                call.taken = True
        try:
            interrupts.check()
            for engine in dict.fromkeys(call.engine for call in calls):
                own = [call for call in calls if call.engine is engine]
                outcomes = engine.train_many([call.arguments for call in own])
                for call, outcome in zip(own, outcomes, strict=True):
                    call.outcome = outcome
        except BaseException as error:
            for call in calls:
                call.outcome = error if call.outcome is None else call.outcome
        finally:
            for call in calls:
                call.leads = False
                call.woken.set()


_PRESENT: ContextVar[Together | None] = ContextVar("fastmlp_together", default=None)


def train_epoch_of(engine: ModuleType) -> Callable[..., float]:
    """Return the engine's ``train_epoch``; where trainings of this thread go together, what makes the calls of all."""
    present = _PRESENT.get()
    if present is None or not hasattr(engine, "train_many"):
        own: Callable[..., float] = engine.train_epoch
        return own
    return lambda *args, **options: present.train_epoch(engine, Epochs(*args, **options))


def present() -> Together | None:
    """Return the trainings that the work of this thread goes together with; None if there are none."""
    return _PRESENT.get()
