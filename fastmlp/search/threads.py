"""A backend of joblib that trains on threads of this process: no worker to start, no X to send.

::

    scikit-learn's search --joblib.Parallel--> ThreadsBackend --a thread each--> fit and score of a candidate on a fold

joblib's own "threading" backend does the same, with four differences.  A network here uses one engine thread while
others train beside it.  Ctrl-C and a first error stop the networks in training.  Warnings wait for the calling thread,
which issues each text once, at the user's line.  And scikit-learn's wrapper of a call is left out, because it edits
the filters of warnings, which all threads share; filters that two threads edit at the same time are lost.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from joblib import parallel_config
from joblib.parallel import SequentialBackend, ThreadingBackend
from sklearn import config_context

from fastmlp.data import warned
from fastmlp.kernels import interrupts, threads
from fastmlp.training.together import Together, Turns


class on_threads:  # used like joblib.parallel_config
    """Run the fits of scikit-learn's searches and cross-validations on threads of this process.

    Whatever scikit-learn computes by joblib inside this context goes to threads: `GridSearchCV`,
    `HalvingGridSearchCV`, `cross_validate`, `learning_curve`, `RFECV`, `BaggingClassifier` and so on.  The engines
    release the interpreter's lock, so networks train side by side.  Each of them uses one thread.  Results are the
    same as without it.

    Parameters
    ----------
    n_jobs : int or None, default=None
        Threads, for whoever has ``n_jobs=None``, and the most that others get; None is one per core, -1 all
        processors.

    Notes
    -----
    Ctrl-C stops the networks in training, and raises KeyboardInterrupt.  Estimators that are not fastmlp's train to
    their end on threads that nobody waits for.  With a single thread, joblib calls one fit after the other in the
    calling thread, where Ctrl-C ends the present fit only, as it does in scikit-learn.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.search import on_threads
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_iris(return_X_y=True)
    >>> with on_threads():
    ...     scores = cross_val_score(MLPClassifier((8,), solver="lbfgs", random_state=0), X, y, cv=3)
    >>> scores.shape
    (3,)
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs

    def _make_backend(self) -> ThreadsBackend:
        return ThreadsBackend(threads.allowed(self.n_jobs), copy_context())

    def __enter__(self) -> None:
        self._backend = self._make_backend()
        self._config = parallel_config(backend=self._backend, n_jobs=self._backend.default_n_jobs)
        self._config.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._config.__exit__(*error)
        warned.warn_once_each(self._backend.found)


class together(on_threads):
    """Run fits on threads that take turns, and let the engine train the epochs of all in one call.

    Parameters
    ----------
    n_at_once : int
        Fits that are under way at most, whatever `n_jobs` says.
    """

    def __init__(self, n_at_once: int) -> None:
        super().__init__()
        self.n_at_once = n_at_once

    def _make_backend(self) -> ThreadsBackend:
        return TogetherBackend(self.n_at_once, copy_context())


class ThreadsBackend(ThreadingBackend):
    """Threads of this process, each for one fit with one thread of an engine.

    Parameters
    ----------
    n_threads : int
        How many at most.
    context : Context
        Of the calling thread; each fit runs in a copy.

    Attributes
    ----------
    found : list of (message, category)
        What the fits have warned of.
    """

    def __init__(self, n_threads: int, context: Context) -> None:
        super().__init__(nesting_level=0)
        self.default_n_jobs, self._context = n_threads, context
        self._stop, self.found = interrupts.Stop(), list[warned.Warned]()
        self._turns = self._make_turns()

    def _make_turns(self) -> Turns:
        """Return who may work: as many as there are threads."""
        return Turns(self.default_n_jobs)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many threads a request gets."""
        return self.default_n_jobs if n_jobs is None else min(self.default_n_jobs, super().effective_n_jobs(n_jobs))

    def get_nested_backend(self) -> tuple[SequentialBackend, None]:
        """Return what runs the calls within a fit: the thread of the fit."""
        return SequentialBackend(nesting_level=1), None

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Schedule a batch of calls."""
        return super().submit(self._job(func), callback)

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        """Schedule a batch of calls, for joblib before 1.5."""
        return super().apply_async(self._job(func), callback)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop the networks in training, and begin nothing more."""
        self._stop.wanted = True
        self._turns.wake()
        super().abort_everything(ensure_ready)
        self._stop, self._turns = interrupts.Stop(), self._make_turns()

    def _job(self, batch: Any) -> Callable[[], Any]:
        """Return the batch as a function for a thread."""
        batch.items = [(_Direct.of(function), args, kwargs) for function, args, kwargs in batch.items]
        stop, turns, context = self._stop, self._turns, self._context.copy()
        turns.announce(1)

        def run() -> Any:
            try:
                with interrupts.stoppable(stop), warned.kept(self.found), threads.limited(1), turns.taken():
                    interrupts.check()
                    return batch()
            finally:
                turns.end()

        return lambda: context.run(run)


class TogetherBackend(ThreadsBackend):
    """Threads that take turns; their calls of the engine are made together."""

    def _make_turns(self) -> Turns:
        return Together(self.default_n_jobs)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many fits are under way at most; ``n_jobs`` is about threads that work, here one."""
        return self.default_n_jobs

    def compute_batch_size(self) -> int:
        """Return 1: a thread has one fit at a time."""
        return 1


class _Direct:
    """A function that scikit-learn has wrapped, with the configuration of the wrapper and without its filters."""

    def __init__(self, function: Callable[..., Any], config: dict[str, Any]) -> None:
        self._function, self._config = function, config

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with config_context(**self._config):
            return self._function(*args, **kwargs)

    @classmethod
    def of(cls, function: Any) -> Any:
        """Return a function without the wrapper; as it is if it has none."""
        inner, config = getattr(function, "__wrapped__", None), getattr(function, "config", None)
        return function if inner is None or config is None else cls(inner, config)
