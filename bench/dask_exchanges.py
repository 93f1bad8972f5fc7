"""Time all-reduces between processes of this machine over the comms of Dask's workers: python bench/dask_exchanges.py

A row per number of ranks and size of the vector: the quickest and the median all-reduce of the slowest rank.
"""

from __future__ import annotations

import time
import uuid

import numpy as np
from distributed import Client, LocalCluster, get_worker

from fastmlp.dask import sessions, work
from fastmlp.dask.communicator import DaskCommunicator

SIZES = {"4 KB": 4096, "32 KB": 32768, "1 MB": 2**20}
REPEATS = 300


def main() -> None:
    """Print the times for 2 and 4 ranks."""
    print("ranks  vector   quickest [ms]  median [ms]")
    for n_ranks in (2, 4):
        options = {"n_workers": n_ranks, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            for name, n_bytes in SIZES.items():
                times = 1e3 * each_rank(client, n_bytes).max(axis=0)
                print(f"{n_ranks:5}  {name:7} {times.min():14.3f} {np.median(times):12.3f}", flush=True)


def each_rank(client: Client, n_bytes: int) -> np.ndarray:
    """Return the seconds of each all-reduce on each rank (n_ranks, REPEATS)."""
    name, addresses = uuid.uuid4().hex, sorted(client.scheduler_info(-1)["workers"])
    client.run(work.prepare, name, addresses, 60.0, "auto", workers=addresses)
    tasks = [client.submit(_times, name, n_bytes, workers=[address], pure=False) for address in addresses]
    return np.array(client.gather(tasks))


def _times(name: str, n_bytes: int) -> list[float]:
    worker = get_worker()
    communicator = DaskCommunicator(sessions.of(worker, name), worker.get_current_task())
    vector, times = np.ones(n_bytes // 8), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        communicator.allreduce(vector)
        times.append(time.perf_counter() - start)
        vector[...] = 1
    communicator.close()
    return times


if __name__ == "__main__":
    main()
