"""The bars of all fits of this process, on one live display.

:class:`fastmlp.callbacks.ProgressBar` uses it.  rich is imported when a bar opens.  Nested fits, and fits in threads,
each have a line of the same display, because a terminal cannot show two displays.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from importlib import import_module
from typing import Any

#: Least time between two drawings in a notebook, in seconds; terminals have a thread of rich's for this.
NOTEBOOK_PAUSE = 0.1


class _Display:
    """rich's Progress while at least one bar is open, in a terminal or as the output of a notebook's cell.

    A bar that opens while another is open vanishes when it is closed; the first one stays.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.progress: Any = None
        self._n_bars = 0
        self._first: Any = None
        self._output: Any = None  # handle of a notebook's output
        self._drawn = 0.0

    def open(self, name: str, done: int, total: int | None) -> Any:
        """Return the task of a new bar, or None if nothing can be drawn: without a terminal or a notebook."""
        import rich

        console = rich.get_console()
        # the terminal of a worker process is that of its parent and of all its siblings
        if not (console.is_terminal or console.is_jupyter) or multiprocessing.parent_process() is not None:
            return None
        with self.lock:
            if self.progress is None and not self._start(console):
                return None
            self._n_bars += 1
            task = self.progress.add_task("", name=name, completed=done, total=total)
            if self._n_bars == 1:
                self._first = task
            return task

    def _start(self, console: Any) -> bool:
        from rich.errors import LiveError
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.fields[name]}"), BarColumn(bar_width=None), MofNCompleteColumn()
        text = TextColumn("{task.description}")
        progress = Progress(*columns, TimeRemainingColumn(), text, console=console, expand=True)
        if console.is_jupyter:
            # rich's own way into a cell needs ipywidgets; a display with a handle needs IPython alone
            self._output = import_module("IPython.display").display(progress, display_id=True)
        else:
            try:
                progress.start()
            except LiveError:  # an older rich draws one thing at a time, and the user's own program is drawing
                return False
        self.progress, self._drawn = progress, 0.0
        return True

    def update(self, task: Any, **changes: Any) -> None:
        with self.lock:
            self.progress.update(task, **changes)
            if self._output is not None and time.monotonic() >= self._drawn + NOTEBOOK_PAUSE:
                self._output.update(self.progress)
                self._drawn = time.monotonic()

    def close(self, task: Any) -> None:
        with self.lock:
            self.progress.stop_task(task)
            if task != self._first:
                self.progress.remove_task(task)
            self._n_bars -= 1
            if self._n_bars:
                return
            progress, self.progress = self.progress, None
            output, self._output = self._output, None
            if output is not None:
                output.update(progress)
            else:
                progress.stop()


DISPLAY = _Display()
