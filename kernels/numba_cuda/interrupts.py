"""Ctrl-C at a safe moment.

Where it sits: training.py launches work and then notes that it did, and copies results to the host vector by vector.
An interrupt in between would leave the device ahead of the host.
"""

from __future__ import annotations

import signal
from typing import Any


class deferred:
    """Hold Ctrl-C back while the block runs, and deliver it at the end.

    Python delivers signals to the main thread only; in other threads there is nothing to hold back.

    Examples
    --------
    >>> with deferred():
    ...     pass
    """

    def __enter__(self) -> None:
        self._received: tuple[Any, ...] | None = None
        self._before: Any = None
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            try:
                signal.signal(signal.SIGINT, self._note)
            except ValueError:  # not the main thread
                return
            self._before = handler

    def _note(self, *signal_and_frame: Any) -> None:
        self._received = signal_and_frame

    def __exit__(self, *error: object) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGINT, self._before)
        if self._received is not None:
            self._before(*self._received)
