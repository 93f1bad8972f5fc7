"""Say how many threads a fit may use; the engines ask it when n_jobs is None or given."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from joblib import effective_n_jobs

from fastmlp.sklearn_compat import _openmp_effective_n_threads


class _Thread(threading.local):
    """What each thread knows: how many threads its fits may use."""

    limit: int | None = None


_THREAD = _Thread()


@contextmanager
def limited(n_threads: int) -> Iterator[None]:
    """Let fits and predictions of this thread use at most `n_threads` threads."""
    before = _THREAD.limit
    _THREAD.limit = n_threads if before is None else min(before, n_threads)
    try:
        yield
    finally:
        _THREAD.limit = before


def allowed(n_jobs: int | None) -> int:
    """Return the largest number of threads of one fit.

    Parameters
    ----------
    n_jobs : int or None
        joblib's meaning: -1 all processors, -2 all but one.  None: what scikit-learn's own parallel estimators would
        use, one thread per core, so OMP_NUM_THREADS, threadpoolctl's limits, container quotas and joblib's inner
        limits hold.

    Returns
    -------
    int
        1 at least, and what :func:`limited` says at most.
    """
    found = _asked(n_jobs)
    return found if _THREAD.limit is None else min(found, _THREAD.limit)


def _asked(n_jobs: int | None) -> int:
    if n_jobs is None:
        cores = _cores()
        if cores is None:
            return max(1, int(_openmp_effective_n_threads()))
        return max(1, min(cores, int(_openmp_effective_n_threads(only_physical_cores=False))))
    return max(1, int(effective_n_jobs(n_jobs)))


@cache
def _cores() -> int | None:
    """Return the physical cores of the processors that this process may use; None if Linux does not tell.

    The library that scikit-learn asks starts a process to find out, which takes longer than many a fit.
    """
    try:
        processors = os.sched_getaffinity(0)
        topology = "/sys/devices/system/cpu/cpu{}/topology/core_cpus_list"
        return len({Path(topology.format(p)).read_text() for p in processors})
    except (AttributeError, OSError):
        return None
