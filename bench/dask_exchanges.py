"""Time all-reduces between processes of this machine over the comms of Dask's workers: python bench/dask_exchanges.py

A row per number of ranks and size of the vector: the quickest and the median all-reduce of the slowest rank, and the
processor time that a rank takes for one, of all its threads. The latter says more where other work shares the machine.
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
    print("ranks  vector   quickest [ms]  median [ms]  processor [ms]")
    for n_ranks in (2, 4):
        options = {"n_workers": n_ranks, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            for name, n_bytes in SIZES.items():
                times, processor = each_rank(client, n_bytes)
                row = f"{times.min():14.3f} {np.median(times):12.3f} {processor:15.3f}"
                print(f"{n_ranks:5}  {name:7} {row}", flush=True)


def each_rank(client: Client, n_bytes: int) -> tuple[np.ndarray, float]:
    """Return the milliseconds of each all-reduce on its slowest rank (REPEATS,), and the processor time of one."""
    name, addresses = uuid.uuid4().hex, sorted(client.scheduler_info(-1)["workers"])
    client.run(work.prepare, name, addresses, 60.0, "auto", workers=addresses)
    tasks = [client.submit(_times, name, n_bytes, workers=[address], pure=False) for address in addresses]
    found = client.gather(tasks)
    return 1e3 * np.array([times for times, _ in found]).max(axis=0), 1e3 * min(processor for _, processor in found)


def _times(name: str, n_bytes: int) -> tuple[list[float], float]:
    worker = get_worker()
    communicator = DaskCommunicator(sessions.of(worker, name), worker.get_current_task())
    vector, times, begin = np.ones(n_bytes // 8), list[float](), time.process_time()
    for _ in range(REPEATS):
        start = time.perf_counter()
        communicator.allreduce(vector)
        times.append(time.perf_counter() - start)
        vector[...] = 1
    processor = (time.process_time() - begin) / REPEATS
    communicator.close()
    return times, processor


if __name__ == "__main__":
    main()
