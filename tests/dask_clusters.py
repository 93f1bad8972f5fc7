"""Clusters of processes on this machine, and what fits leave on them."""

import time
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, LocalCluster

from fastmlp.dask.sessions import PREFIX


@contextmanager
def cluster_of(n_workers, **options):
    """Yield a client of a new cluster of processes with one thread each."""
    options = {"threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0, **options}
    with LocalCluster(n_workers=n_workers, **options) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def leftovers(client, patience=5):
    """Return what fits have left on the workers, by address: handlers, sessions, tasks, memory; best nothing."""
    deadline = time.monotonic() + patience
    while found := {address: left for address, left in client.run(_left).items() if left}:
        if time.monotonic() > deadline:
            return found
        time.sleep(0.1)
    return {}


def _left(dask_worker):
    names = [*dask_worker.handlers, *dask_worker.extensions, *map(str, dask_worker.state.tasks)]
    maps = Path("/proc/self/maps")
    memory = [line for line in maps.read_text().splitlines() if "memfd:fastmlp" in line] if maps.exists() else []
    return [name for name in names if name.startswith(PREFIX)] + memory
