"""Workers: threads of a workspace that enter compiled code together with the caller."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Mapping
from functools import cache
from queue import SimpleQueue
from typing import Any

import numpy as np

from fastmlp.kernels.numba_cpu.memory import address_of, aligned


@cache
def _give_way() -> int:
    """Return the address of the system's function that lets other threads run; 0 if none is known."""
    try:
        if sys.platform == "win32":
            function = ctypes.windll.kernel32.SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    except (AttributeError, OSError):
        return 0


def _work(cells: np.ndarray, abort: int, jobs: SimpleQueue) -> None:
    """Do a worker's part of each call, until there are no more."""
    while (job := jobs.get()) is not None:
        try:
            job[0](*job[1])
        except BaseException:  # before the compiled code began, whose members all wait for each other first
            cells[abort] = 1


class Team:
    """Workers that enter compiled code together with the caller, who is member 0.

    A team belongs to one workspace and to one process: after fork the child has none of its threads and starts a team
    of its own.  Members meet in compiled code, where they wait for each other without the GIL.  A worker that cannot
    enter, because of Ctrl-C for example, sets ABORT; the others return.  An aborted team is not used again.
    """

    def __init__(self, names: Mapping[str, int], n: int) -> None:
        self.process, self.abort, self.gave_up = os.getpid(), names["ABORT"], names["GAVE_UP"]
        self.cells, self.jobs = aligned(names["TEAM_CELLS"], np.int64), list[SimpleQueue]()
        self.cells[names["MEMBERS"]], self.cells[names["GIVE_WAY"]] = n, _give_way()
        self.address = address_of(self.cells)
        try:
            for member in range(1, n):
                jobs: SimpleQueue = SimpleQueue()
                self.jobs.append(jobs)
                threading.Thread(
                    target=_work, args=(self.cells, self.abort, jobs), name=f"fastmlp-{member}", daemon=True
                ).start()
        except BaseException:
            self.end()
            raise

    def works(self) -> bool:
        """Whether it may be used: by this process, and not aborted."""
        return self.process == os.getpid() and not self.cells[self.abort]

    def run(self, train: Callable, tables: tuple, numbers: tuple) -> Any:
        """Train with all members; return what member 0 returns, None if a worker failed and nothing was done."""
        try:
            for member, jobs in enumerate(self.jobs, 1):
                jobs.put((train, (*tables, self.address, member, *numbers)))
            total = train(*tables, self.address, 0, *numbers)
        except BaseException:
            self.end()
            raise
        if self.cells[self.gave_up]:
            self.end()
            return None
        return total

    def end(self) -> None:
        """Abort what the members do, and let the threads end."""
        self.cells[self.abort] = 1
        for jobs in self.jobs:
            jobs.put(None)
