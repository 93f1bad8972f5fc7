"""Ranks that are threads of one process: to learn with, and to test with. They train no faster than one fit does."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sklearn import config_context, get_config

from fastmlp.distributed.communicator import CommunicationError, Communicator
from fastmlp.kernels import interrupts


class _Post:
    """What all ranks share: letters on their way, and who has failed."""

    def __init__(self, size: int) -> None:
        self.changed = threading.Condition()
        self.letters: dict[tuple[int, int], deque[bytes | None]] = {
            (sender, receiver): deque() for sender in range(size) for receiver in range(size)
        }
        self.failed: dict[int, str] = {}


class ThreadCommunicator(Communicator):
    """A rank that is a thread; :func:`ranks_of_threads` makes them."""

    def __init__(self, rank: int, size: int, timeout: float, post: _Post) -> None:
        super().__init__(rank, size, timeout)
        self._post = post

    def exchange(self, parts: Sequence[bytes | None]) -> list[Any]:
        """Leave a letter for each other rank, and wait for theirs."""
        post, others = self._post, [rank for rank in range(self.size) if rank != self.rank]
        end = time.monotonic() + self.timeout
        with post.changed:
            for rank in others:
                post.letters[self.rank, rank].append(parts[rank])
            post.changed.notify_all()
            found: list[Any] = [None] * self.size
            for rank in others:
                while not post.letters[rank, self.rank]:
                    for other, reason in post.failed.items():
                        raise self.failed(other, reason)
                    if time.monotonic() > end:
                        raise self.missing(rank)
                    interrupts.check()
                    post.changed.wait(interrupts.SLICE)
                found[rank] = post.letters[rank, self.rank].popleft()
        return found

    def tell(self, reason: str) -> None:
        """Tell the other ranks that this one has failed."""
        with self._post.changed:
            self._post.failed[self.rank] = reason
            self._post.changed.notify_all()


def ranks_of_threads(size: int, timeout: float = 60.0) -> list[Communicator]:
    """Return the communicators of so many ranks, each for a thread of its own.

    Parameters
    ----------
    size : int
    timeout : float, default=60.0
        Seconds that a rank waits for another one.

    Returns
    -------
    list of Communicator
        Once a fit with them has failed they are over.

    Raises
    ------
    ValueError
        If there is not at least one rank.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size!r}")
    post = _Post(size)
    return [ThreadCommunicator(rank, size, timeout, post) for rank in range(size)]


def on_threads(function: Callable[[Communicator], Any], size: int, timeout: float = 60.0) -> list[Any]:
    """Call a function on each of so many ranks, which are threads, and return the results in the order of ranks.

    Parameters
    ----------
    function : callable
        Called with the communicator of the rank.
    size : int
    timeout : float, default=60.0
        Seconds that a rank waits for another one.

    Returns
    -------
    list

    Raises
    ------
    Exception
        What a rank has raised; of several errors the first that does not come of another rank's.

    Examples
    --------
    Two ranks, each with half of the rows, reach the weights of one fit on all of them:

    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.distributed import on_threads
    >>> X, y = load_iris(return_X_y=True)
    >>> def fit(communicator):
    ...     here = slice(75 * communicator.rank, 75 * (communicator.rank + 1))
    ...     return MLPClassifier(max_iter=20, random_state=0).fit(X[here], y[here], communicator=communicator)
    >>> whole = MLPClassifier(max_iter=20, random_state=0).fit(X, y)
    >>> [bool(np.allclose(rank.coefs_[0], whole.coefs_[0])) for rank in on_threads(fit, 2)]
    [True, True]
    """
    communicators = ranks_of_threads(size, timeout)
    results: list[Any] = [None] * size
    errors: dict[int, BaseException] = {}
    stop, config = interrupts.Stop(), get_config()

    def work(communicator: Communicator) -> None:
        try:
            with interrupts.stoppable(stop), config_context(**config):
                results[communicator.rank] = function(communicator)
        except BaseException as error:
            errors[communicator.rank] = error
            communicator.abort(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(one,), name=f"fastmlp-rank-{one.rank}") for one in communicators]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(interrupts.SLICE)
    finally:
        stop.wanted = True  # after Ctrl-C, which reaches this thread only; otherwise they have ended
        for thread in threads:
            thread.join()
    for rank in sorted(errors, key=lambda rank: (isinstance(errors[rank], CommunicationError), rank)):
        raise errors[rank]
    return results
