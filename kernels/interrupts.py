"""Requests that a call of an engine stop, from another thread than the one that made it.

Ctrl-C reaches the main thread only.  If fits run on other threads, the main thread waits for them, and hands the wish
on: each thread runs within :func:`stoppable`, whose :class:`Stop` they share.  Engines look at it wherever they look
for Ctrl-C, and raise KeyboardInterrupt there, so a fit ends as it does in the main thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds between two looks for a request, of a thread that waits for others.
SLICE = 0.1


class Stop:
    """The wish of one thread that others stop.

    Attributes
    ----------
    wanted : bool
        Set it to True; it stays so.
    """

    __slots__ = ("wanted",)

    def __init__(self) -> None:
        self.wanted = False


class _Thread(threading.local):
    """What each thread knows: the request that its calls obey."""

    stop: Stop | None = None


#: The compiled engine reads it without running Python code, which could swallow a signal.
THREAD = _Thread()


@contextmanager
def stoppable(stop: Stop) -> Iterator[None]:
    """Let the engines' calls of this thread raise KeyboardInterrupt once `stop` is wanted."""
    before, THREAD.stop = THREAD.stop, stop
    try:
        yield
    finally:
        THREAD.stop = before


def check() -> None:
    """Raise KeyboardInterrupt if this thread is asked to stop."""
    stop = THREAD.stop
    if stop is not None and stop.wanted:
        raise KeyboardInterrupt
