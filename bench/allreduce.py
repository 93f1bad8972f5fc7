"""Time of one sum over ranks, by size of the vector: threads of a process, or processes under MPI.

    python bench/allreduce.py                      # two threads
    mpirun -n 2 python bench/allreduce.py          # two processes
    mpirun --bind-to none -n 2 python bench/allreduce.py --fit    # fits of nets of covtype's and wide's sizes

Prints a line per size: least and median microseconds of a sum, least microseconds of processor time of a rank, which
looks for messages while it waits, and bytes that a rank sends. With --fit: seconds of an epoch, those of one process
with as many threads, and the latter over the former, the scaling efficiency. Open MPI binds each process to a core, so
the one process needs --bind-to none.
"""

import statistics
import sys
import time

import numpy as np

from fastmlp import MLPClassifier
from fastmlp.distributed import on_threads

#: Bytes; the last one is the gradient of the net "wide".
SIZES = (4096, 32768, 2**20, 23_300_000)
#: Name -> layers and rows of a batch, as in the suite `train`.
NETS = {"covtype": ((54, 256, 128, 7), 512), "wide": ((784, 2048, 2048, 10), 1024)}


def sums(communicator):
    """Return a line of text per size."""
    lines = []
    for n_bytes in SIZES:
        n, dtype = n_bytes // 4, np.dtype(np.float32)
        shared = communicator.vector(n, dtype)  # as an engine does
        vector = np.zeros(n, dtype) if shared is None else shared
        for _ in range(20):
            communicator.allreduce(vector)
        vector[...] = 1
        before, spent, times = communicator.n_bytes, [], []
        for _ in range(100):
            start, begin = time.perf_counter(), time.thread_time()
            communicator.allreduce(vector)
            times.append(time.perf_counter() - start)
            spent.append(time.thread_time() - begin)
        sent = communicator.n_bytes - before
        lines.append(
            f"{n_bytes:>10,} bytes: {min(times) * 1e6:8.0f} us, {statistics.median(times) * 1e6:8.0f} us,"
            f" {min(spent) * 1e6:8.0f} us of a processor, {sent // 100:,} bytes sent"
        )
    return lines


def fits(comm):
    """Print the seconds of an epoch of each net: two ranks with a thread each, and one process with as many threads."""
    rank, size = comm.Get_rank(), comm.Get_size()
    for name, (widths, batch_size) in NETS.items():
        rng = np.random.default_rng(0)
        X = rng.normal(size=(batch_size * 8, widths[0])).astype(np.float32)
        y = rng.integers(0, widths[-1], len(X))
        options = {"hidden_layer_sizes": widths[1:-1], "batch_size": batch_size, "max_iter": 4, "random_state": 0}
        here = np.array_split(np.arange(len(X)), size)[rank]
        together = MLPClassifier(**options, n_jobs=1).fit(X[here], y[here], communicator=comm)
        if rank == 0:
            alone = MLPClassifier(**options, n_jobs=size).fit(X, y)
            a, b = (min(one.history_["seconds"][1:]) for one in (together, alone))
            print(f"{name}: {size} processes {a:.3f} s, {size} threads {b:.3f} s, efficiency {b / a:.2f}", flush=True)
        wait = comm.Ibarrier()
        while not wait.Test():  # a barrier would take a core from the one process
            time.sleep(0.01)


if __name__ == "__main__":
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # not installed, or without the library of an MPI
        MPI = None
    if MPI is None or MPI.COMM_WORLD.Get_size() == 1:
        print("\n".join(on_threads(sums, 2)[0]))
    elif "--fit" in sys.argv:
        fits(MPI.COMM_WORLD)
    else:
        from fastmlp.distributed.mpi import MPICommunicator

        lines = sums(MPICommunicator(MPI.COMM_WORLD))
        if MPI.COMM_WORLD.Get_rank() == 0:
            print("\n".join(lines), flush=True)
