"""Run by test_mpi.py under mpirun: fits on the rows of several processes, compared with a fit in one.

Prints one line per rank and check: "rank check ok", or what is wrong.
"""

import os
import signal
import sys
import time

import numpy as np
from mpi4py import MPI

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.distributed import CommunicationError
from fastmlp.distributed.mpi import MPICommunicator

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.Get_rank(), COMM.Get_size()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6))
Y = X[:, :3].argmax(axis=1)
HERE = np.array_split(np.arange(90), SIZE)[RANK]


def near(one, other):
    return all(np.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(one.coefs_, other.coefs_, strict=True))


def fits():
    """Solvers, one after the other on the same communicator; MPI's own and one of ours."""
    ours = MPICommunicator(COMM, timeout=30)
    for communicator in (COMM, ours, ours):
        for options in (
            {"solver": "adam", "early_stopping": True, "dropout": 0.2},
            {"solver": "lbfgs"},
            {"solver": "adam", "hidden_layer_sizes": (130, 260)},  # a gradient that ranks sum in memory that they share
        ):
            options = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 5, "batch_size": 20, **options}
            found = MLPClassifier(**options).fit(X[HERE], Y[HERE], communicator=communicator)
            if not near(found, MLPClassifier(**options).fit(X, Y)):
                return "the weights are others"
    ours.close()
    return "ok"


def sums():
    """Vectors of all sizes, whole, in slices, and in memory that ranks share."""
    communicator = MPICommunicator(COMM, timeout=30)
    for n in (1, 1000, 300_000):
        vectors = np.random.default_rng(n).normal(size=(SIZE, n))
        expected = vectors[0].copy()
        for vector in vectors[1:]:
            expected += vector
        found = vectors[RANK].copy()
        communicator.allreduce(found)
        if not np.array_equal(found, expected):
            return f"the sum of {n} is another"
        shared = communicator.vector(n, vectors.dtype)
        if (shared is None) != (n < 300_000 or not hasattr(os, "memfd_create")):
            return f"{n} numbers are shared, or should be"
        if shared is not None:
            shared[...] = vectors[RANK]
            communicator.allreduce(shared)
            if not np.array_equal(shared, expected):
                return f"the sum of {n} in shared memory is another"
    return "ok"


def error_of(fit):
    try:
        fit()
    except (ValueError, CommunicationError) as error:
        return str(error)
    return "no error"


def wrong_rows():
    """NaN on the last rank is an error on all ranks; another fit follows."""
    rows = X[HERE].copy()
    rows[0, 0] = np.nan if RANK == SIZE - 1 else 0.0
    text = error_of(lambda: MLPClassifier((8,)).fit(rows, Y[HERE], communicator=COMM))
    return "ok" if text.startswith(f"rank {SIZE - 1}: Input X contains NaN") else text


def failing_rank():
    """A callback that raises on rank 0 ends all, at once."""

    def breaks(info):
        raise ValueError("the disk is full")

    began = time.monotonic()
    text = error_of(lambda: MLPClassifier((8,), callbacks=[breaks]).fit(X[HERE], Y[HERE], communicator=COMM))
    at_once = time.monotonic() - began < 20
    expected = "the disk is full" if RANK == 0 else "rank 0 has failed: ValueError: the disk is full"
    return "ok" if text == expected and at_once else text


def failing_sum():
    """A rank that fails while slices are on their way ends all, at once."""
    communicator, began = MPICommunicator(COMM, timeout=60), time.monotonic()

    def breaks(*_):
        raise OSError("the line is dead")

    if RANK == 0:
        communicator._transfer = breaks
    try:
        communicator.allreduce(np.ones(300_000))
    except OSError as error:
        communicator.abort(str(error))
        return "ok"
    except CommunicationError as error:
        at_once = time.monotonic() - began < 20
        return "ok" if "rank 0 has failed: the line is dead" in str(error) and at_once else str(error)
    return "no error"


def stopped_rank():
    """A rank that hangs: the others end within the timeout. It goes on afterwards, and learns that it came too late."""
    communicator = MPICommunicator(COMM, timeout=1.0)

    def hangs(info):
        if info.epoch == 2:
            child = os.fork()
            if child == 0:  # wakes its parent
                time.sleep(2.5)
                os.kill(os.getppid(), signal.SIGCONT)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGSTOP)

    def fit():
        MLPRegressor(callbacks=[hangs]).fit(X[HERE], X[HERE, 0], communicator=communicator)

    text = error_of(fit)
    expected = "rank 0 did not answer within 1 seconds"
    return "ok" if (expected in text if RANK == 1 else text != "no error") else text


for name in sys.argv[1:]:
    print(f"{RANK} {name} {globals()[name]()}", flush=True)
    COMM.Barrier()
