"""Kill and stop workers during fits on a cluster of this machine, and check how each fit ends.

    python bench/dask_failures.py [ROUNDS] [SEED]

Each round trains on three workers, and sends one of them SIGKILL or SIGSTOP at a random moment. With a Checkpoint the
fit must come to the weights of an undisturbed one. Without one it must end within the stated time, with an
error that names the worker; a moment before the first step, or after the last one, may also leave it unharmed. Nothing
of a fit may be left on the workers. The script prints a row per round, and exits with 1 if one of them fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from distributed.exceptions import WorkerStartTimeoutError

from fastmlp.callbacks import Checkpoint
from fastmlp.dask import DaskMLPRegressor, WorkerLost

TIMEOUT = 6.0
#: Seconds from the signal to the end of a fit: the timeout, twice if the scheduler was to notice it; and to clean up.
STATED = 2 * TIMEOUT + 10
#: Seconds for which this process may stand still in a round.
GAP = 3.0
PREFIX = "fastmlp-"


class Round(NamedTuple):
    """One fit that something happened to."""

    signal: str
    checkpoint: bool
    after: float  # seconds from the beginning of the fit to the signal
    took: float  # seconds from the signal to the end of the fit
    end: str
    is_right: bool


def main(rounds: int, seed: int) -> int:
    """Run the rounds; return 0 if all are right."""
    draw, found = random.Random(seed), list[Round]()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    print(f"a fit must end within {STATED:g} s of the signal\n\nround signal  checkpoint after [s] took [s] right end")
    while len(found) < rounds:
        options = {"n_workers": 3, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options, silence_logs=logging.CRITICAL) as cluster, Client(cluster) as client:
            found += series(client, draw, rounds - len(found), len(found))
    wrong = sum(not one.is_right for one in found)
    print(f"\n{rounds - wrong} of {rounds} fits ended as they must")
    return int(wrong > 0)


def series(client: Client, draw: random.Random, rounds: int, first: int) -> list[Round]:
    """Return rounds on one cluster: fewer, if this process was itself stopped or starved; the last one is void then."""
    found = list[Round]()
    with Awake() as awake, tempfile.TemporaryDirectory() as folder:
        try:
            whole, n_seconds = undisturbed(client)
            for i in range(first, first + rounds):
                client.wait_for_workers(3, timeout=60)
                one = one_round(client, draw, whole, n_seconds, Path(folder, f"{i}.npz"))
                if awake.longest_gap > GAP:
                    print(f"{i:5} void: this process stood still for {awake.longest_gap:.1f} s", flush=True)
                    break
                found.append(one)
                checkpoint, right = "yes" if one.checkpoint else "no", "yes" if one.is_right else "NO"
                row = f"{one.signal:7} {checkpoint:10} {one.after:9.2f} {one.took:8.2f} {right:5} {one.end}"
                print(f"{i:5} {row}", flush=True)
        except WorkerStartTimeoutError:
            print("a nanny has not started its worker again: go on with a new cluster", flush=True)
        except Exception:
            if awake.longest_gap <= GAP:
                raise
    return found


class Awake:
    """A thread that notes for how long this process has stood still at most."""

    def __init__(self) -> None:
        self.longest_gap, self._over = 0.0, threading.Event()

    def __enter__(self) -> Awake:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        before = time.monotonic()
        while not self._over.wait(0.2):
            self.longest_gap, before = max(self.longest_gap, time.monotonic() - before), time.monotonic()


def estimator(client: Client, path: Path | None) -> DaskMLPRegressor:
    """Return what is trained: for some seconds, with a checkpoint every ten epochs if there is a path."""
    callbacks = None if path is None else [Checkpoint(path, every=10)]
    return DaskMLPRegressor(
        hidden_layer_sizes=(32,),
        max_iter=60,
        n_iter_no_change=np.inf,
        random_state=0,
        client=client,
        timeout=TIMEOUT,
        callbacks=callbacks,
    )


def rows() -> tuple[da.Array, da.Array]:
    """Return X and y, which Dask can compute again."""
    X = da.random.default_rng(0).normal(size=(6000, 8), chunks=(500, 8))
    return X, X[:, 0] * X[:, 1]


def undisturbed(client: Client) -> tuple[list[np.ndarray], float]:
    """Return the weights of a fit that nothing happens to, and how long it takes."""
    estimator(client, None).set_params(max_iter=2).fit(*rows())
    start = time.monotonic()
    fitted = estimator(client, None).fit(*rows())
    return fitted.coefs_, time.monotonic() - start


def one_round(client: Client, draw: random.Random, whole: list[np.ndarray], n_seconds: float, path: Path) -> Round:
    """Return how a fit ends of which one worker gets a signal."""
    name, with_checkpoint = draw.choice(["SIGKILL", "SIGSTOP"]), draw.random() < 0.5
    after, sent = draw.uniform(0, n_seconds), list[tuple[float, str, int]]()

    pids = client.run(os.getpid, on_error="ignore")  # one may just be leaving
    victim = draw.choice(sorted(pids))

    def harm() -> None:
        time.sleep(after)
        sent.append((time.monotonic(), victim, pids[victim]))
        os.kill(pids[victim], getattr(signal, name))

    thread = threading.Thread(target=harm)
    thread.start()
    try:
        fitted = estimator(client, path if with_checkpoint else None).fit(*rows())
        error = None
    except Exception as caught:
        fitted, error = None, caught
    ended = time.monotonic()
    thread.join()
    took = max(0.0, ended - sent[0][0])
    if error is None:
        difference = max(abs(a - b).max() for a, b in zip(fitted.coefs_, whole, strict=True))
        end, is_right = f"weights differ by {difference:.1g}", difference < 1e-10
    else:
        end = f"{type(error).__name__}: {error}"
        is_right = isinstance(error, WorkerLost) and victim in str(error) and not with_checkpoint
    # a fit that goes on begins again where its checkpoint was
    in_time = took < STATED + (n_seconds + 30 if with_checkpoint else 0)
    recover(client, victim, pids[victim])
    left = leftovers(client)
    end += f"; left on workers: {left}" if left else ""
    return Round(name, with_checkpoint, after, took, end, is_right and in_time and not left)


def recover(client: Client, victim: str, pid: int) -> None:
    """Let a stopped worker die, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while victim in client.scheduler_info(-1)["workers"] and time.monotonic() < deadline:
        time.sleep(0.2)


def leftovers(client: Client) -> list[str]:
    """Return what fits have left on the workers a moment after they ended."""
    deadline = time.monotonic() + 5
    while True:
        found = [name for names in client.run(_left, on_error="ignore").values() for name in names]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _left(dask_worker: object) -> list[str]:
    names = [*dask_worker.handlers, *dask_worker.extensions, *map(str, dask_worker.state.tasks)]  # type: ignore[attr-defined]
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith(PREFIX)]
    return [name for name in [*names, *threads] if name.startswith(PREFIX)]


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[1:]] + [50, 0][len(sys.argv) - 1 :]
    sys.exit(main(*arguments[:2]))
