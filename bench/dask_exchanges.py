"""Time all-reduces between processes of this machine over the comms of Dask's workers.

    python bench/dask_exchanges.py          # sums
    python bench/dask_exchanges.py --fit    # fits of nets of covtype's and wide's sizes, against one process

A row per number of ranks and size of the vector: the quickest and the median all-reduce of the slowest rank, and the
processor time that a rank takes for one, of all its threads. The latter says more where other work shares the machine.
With --fit: seconds of the quickest epoch on two workers of a thread each, those of a process with two threads, and the
scaling efficiency, the latter over the former.
"""

from __future__ import annotations

import sys
import time
import uuid

import numpy as np
from allreduce import NETS
from distributed import Client, LocalCluster, get_worker

from fastmlp import MLPClassifier
from fastmlp.dask import DaskMLPClassifier, sessions, work
from fastmlp.dask.communicator import DaskCommunicator
from fastmlp.dask.scattering import scattered

SIZES = {"4 KB": 4096, "32 KB": 32768, "1 MB": 2**20, "23 MB": 23_300_000}


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
    """Return the milliseconds of each all-reduce on its slowest rank (n,), and the processor time of one."""
    name, addresses = uuid.uuid4().hex, sorted(client.scheduler_info(-1)["workers"])
    client.run(work.prepare, name, addresses, 60.0, "auto", workers=addresses)
    tasks = [client.submit(_times, name, n_bytes, workers=[address], pure=False) for address in addresses]
    found = client.gather(tasks)
    return 1e3 * np.array([times for times, _ in found]).max(axis=0), 1e3 * min(processor for _, processor in found)


def _times(name: str, n_bytes: int) -> tuple[list[float], float]:
    worker = get_worker()
    communicator = DaskCommunicator(sessions.of(worker, name), worker.get_current_task())
    n, dtype = n_bytes // 8, np.dtype(float)
    shared = communicator.vector(n, dtype)  # as an engine does
    vector, times, begin = np.zeros(n) if shared is None else shared, list[float](), time.process_time()
    repeats = 300 if n_bytes <= 2**20 else 60
    for _ in range(repeats):
        start = time.perf_counter()
        communicator.allreduce(vector)
        times.append(time.perf_counter() - start)
        vector[...] = 1
    processor = (time.process_time() - begin) / repeats
    communicator.close()
    return times, processor


def fits() -> None:
    """Print the seconds of an epoch of each net."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        for name, (widths, batch_size) in NETS.items():
            rng = np.random.default_rng(0)
            X = rng.normal(size=(batch_size * 8, widths[0])).astype(np.float32)
            y = rng.integers(0, widths[-1], len(X))
            net = {"hidden_layer_sizes": widths[1:-1], "batch_size": batch_size, "max_iter": 4, "random_state": 0}
            together = DaskMLPClassifier(**net, client=client).fit(*scattered(client, X, y))
            alone = MLPClassifier(**net, n_jobs=2).fit(X, y)
            a, b = (min(one.history_["seconds"][1:]) for one in (together, alone))
            print(f"{name}: 2 workers {a:.3f} s, 2 threads {b:.3f} s, efficiency {b / a:.2f}", flush=True)


if __name__ == "__main__":
    fits() if "--fit" in sys.argv else main()
