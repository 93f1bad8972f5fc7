"""Kill and stop workers during fits on a cluster of this machine, and check how each fit ends.

    python bench/dask_failures.py [ROUNDS] [SEED] [TIMEOUT]

Each round trains on three workers, and sends one that has rows SIGKILL or SIGSTOP, at a random moment between the first
epoch and the last: a callback says which epoch has ended, and makes each take some time. With a Checkpoint the fit must
come to the weights of an undisturbed one. Without one it must end within the stated time, with an error that names the
worker. Nothing of a fit may be left on the workers. Every other round trains a wide net, whose gradients are summed in
memory that the workers share, not by messages. The script prints a row per round, and exits with 1 if one of them
fails. A round does not count if this process was itself stopped or starved, or if the fit was over before the signal.
On a busy machine, a TIMEOUT (in seconds) longer than the default of 6 tells slow workers from lost ones.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

from fastmlp.callbacks import Checkpoint
from fastmlp.dask import DaskMLPRegressor, WorkerLost

WORKERS = 3
#: Seconds that a worker waits for another one, if the command does not say.
TIMEOUT = 6.0
#: Seconds for which this process may stand still in a round.
GAP = 3.0
#: Epochs of a fit, the seconds that each takes at least, and the latest signal after the first of them has ended.
EPOCHS, PAUSE, LATEST = 60, 0.06, 1.8
#: The epoch that does not end before the signal is sent, and the most seconds that it waits.
HELD, MOST = 40, 5.0
#: Seconds in which a nanny starts its worker again, or else one is started by hand.
NANNY = 60.0
PREFIX = "fastmlp-"
#: Hidden neurons of even and of odd rounds.
WIDTHS = (32, 700)


class Round(NamedTuple):
    """One fit that something happened to."""

    signal: str
    checkpoint: bool
    epoch: int  # the last one that had ended before the signal
    took: float  # seconds from the signal to the end of the fit
    end: str
    is_right: bool


def stated(timeout: float) -> float:
    """Return the seconds from the signal to the end of a fit: the timeout, twice if the scheduler was to notice it."""
    return 2 * timeout + 10  # and to clean up


def main(rounds: int, seed: int, timeout: float) -> int:
    """Run the rounds; return 0 if all are right."""
    draw, found = random.Random(seed), list[Round]()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    # a cluster of this machine gives a nanny up whose worker is not back after 15 s
    dask.config.set({"distributed.deploy.lost-worker-timeout": "300s"})
    print(f"a fit must end within {stated(timeout):g} s of the signal\n")
    print("round signal  checkpoint epoch took [s] right end")
    while len(found) < rounds:
        options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options, silence_logs=logging.CRITICAL) as cluster, Client(cluster) as client:
            found += series(client, draw, timeout, rounds - len(found), len(found))
    wrong = sum(not one.is_right for one in found)
    print(f"\n{rounds - wrong} of {rounds} fits ended as they must")
    return int(wrong > 0)


def series(client: Client, draw: random.Random, timeout: float, rounds: int, first: int) -> list[Round]:
    """Return rounds on one cluster: fewer, if this process was itself stopped or starved; the last one is void then."""
    found = list[Round]()
    with Awake() as awake, tempfile.TemporaryDirectory() as folder, Spares(client) as spares:
        try:
            whole = {width: undisturbed(client, timeout, width) for width in WIDTHS}
            while len(found) < rounds:
                i = first + len(found)
                spares.complete()
                width = WIDTHS[i % 2]
                one = one_round(client, draw, timeout, width, *whole[width], Path(folder, f"{i}.npz"))
                if awake.longest_gap > GAP:
                    print(f"{i:5} void: this process stood still for {awake.longest_gap:.1f} s", flush=True)
                    break
                if isinstance(one, str):
                    print(f"{i:5} void: the fit was over before the signal: {one}", flush=True)
                    continue
                found.append(one)
                checkpoint, right = "yes" if one.checkpoint else "no", "yes" if one.is_right else "NO"
                row = f"{one.signal:7} {checkpoint:10} {one.epoch:5} {one.took:8.2f} {right:5} {one.end}"
                print(f"{i:5} {row}", flush=True)
        except Exception:
            if awake.longest_gap <= GAP:
                raise
    return found


class Spares:
    """Workers that are started by hand where a nanny has not started its own again, and workers that are ready."""

    def __init__(self, client: Client) -> None:
        self.client, self._started = client, list[subprocess.Popen]()

    def __enter__(self) -> Spares:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.wait()

    def complete(self) -> None:
        """Wait until there are enough workers, which have imported what they need; start what is missing."""
        try:
            self.client.wait_for_workers(WORKERS, timeout=NANNY)
        except TimeoutError:
            self._start()
        self.client.run(importlib.import_module, "fastmlp.dask.estimators", on_error="ignore")

    def _start(self) -> None:
        address = self.client.scheduler.address
        for _ in range(WORKERS - len(self.client.scheduler_info(-1)["workers"])):
            print("      a nanny has not started its worker again: one is started by hand", flush=True)
            command = [
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                address,
                "--nthreads",
                "1",
                "--no-dashboard",
            ]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._started.append(subprocess.Popen(command, **quiet))
        self.client.wait_for_workers(WORKERS, timeout=60)


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


class Epochs:
    """A callback on the worker of rank 0: say in a file which epoch has ended, take some time, wait for the signal."""

    def __init__(self, path: Path) -> None:
        self.path, self.sent = path, path.with_suffix(".sent")

    def __call__(self, info: object) -> None:
        """Say so."""
        self.path.write_text(str(info.epoch))  # type: ignore[attr-defined]
        time.sleep(PAUSE)
        latest = time.monotonic() + MOST
        while info.epoch == HELD and not self.sent.exists() and time.monotonic() < latest:  # type: ignore[attr-defined]
            time.sleep(PAUSE)

    def ended(self) -> int:
        """Return the last epoch that has ended, 0 before the first."""
        with contextlib.suppress(OSError):
            return int(self.path.read_text() or 0)
        return 0


def estimator(client: Client, timeout: float, width: int, *callbacks: object) -> DaskMLPRegressor:
    """Return what is trained."""
    return DaskMLPRegressor(
        hidden_layer_sizes=(width,),
        max_iter=EPOCHS,
        n_iter_no_change=np.inf,
        random_state=0,
        client=client,
        timeout=timeout,
        callbacks=list(callbacks) or None,
    )


def rows() -> tuple[da.Array, da.Array]:
    """Return X and y, which Dask can compute again."""
    X = da.random.default_rng(0).normal(size=(6000, 8), chunks=(500, 8))
    return X, X[:, 0] * X[:, 1]


def undisturbed(client: Client, timeout: float, width: int) -> tuple[list[np.ndarray], float]:
    """Return the weights of a fit that nothing happens to, and how long it takes at most."""
    estimator(client, timeout, width).set_params(max_iter=2).fit(*rows())
    start = time.monotonic()
    fitted = estimator(client, timeout, width).fit(*rows())
    return fitted.coefs_, time.monotonic() - start + EPOCHS * PAUSE


class Harm:
    """A thread that sends one rank of a fit a signal, some time after its first epoch has ended."""

    def __init__(self, client: Client, name: str, epochs: Epochs, draw: random.Random) -> None:
        self.client, self.name, self.epochs = client, name, epochs
        self.after, self.which = draw.uniform(0, LATEST), draw.random()
        self.sent, self.epoch, self.over = 0.0, 0, threading.Event()  # over: the fit has ended
        self.victim, self.pid, self.why = "", 0, "no epoch ended"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self.epochs.ended():
            if self.over.wait(0.01):
                return
        self.why = "nobody could be asked"
        found = self.client.run(_rank, on_error="ignore")  # one may just be leaving
        ranks = {rank: (address, pid) for address, (rank, pid) in found.items() if rank is not None}
        self.why = f"{len(ranks)} ranks"
        if not ranks or self.over.wait(self.after):
            return
        self.victim, self.pid = ranks[sorted(ranks)[int(self.which * len(ranks))]]
        self.epoch, self.sent = self.epochs.ended(), time.monotonic()
        os.kill(self.pid, getattr(signal, self.name))
        self.epochs.sent.touch()

    def join(self) -> None:
        """Wait for it; no signal is sent any more."""
        self.over.set()
        self._thread.join()


def _rank(dask_worker: object) -> tuple[int | None, int]:
    sessions = [one for name, one in dask_worker.extensions.items() if name.startswith(PREFIX)]  # type: ignore[attr-defined]
    return next((session.rank for session in sessions), None), os.getpid()


def one_round(
    client: Client,
    draw: random.Random,
    timeout: float,
    width: int,
    whole: list[np.ndarray],
    n_seconds: float,
    path: Path,
) -> Round | str:
    """Return how a fit ends of which one worker gets a signal; if it was over before, what it ended with."""
    name, with_checkpoint = draw.choice(["SIGKILL", "SIGSTOP"]), draw.random() < 0.5
    epochs = Epochs(path.with_suffix(".epoch"))
    epochs.path.unlink(missing_ok=True)
    harm = Harm(client, name, epochs, draw)
    try:
        callbacks = [epochs, *([Checkpoint(path, every=10)] if with_checkpoint else [])]
        fitted = estimator(client, timeout, width, *callbacks).fit(*rows())
        error = None
    except Exception as caught:
        fitted, error = None, caught
    ended = time.monotonic()
    harm.join()
    if not harm.sent or harm.sent > ended:
        return f"{harm.why}; {'it was trained' if error is None else f'{type(error).__name__}: {error}'}"
    took = ended - harm.sent
    if error is None:
        difference = max(abs(a - b).max() for a, b in zip(fitted.coefs_, whole, strict=True))
        end, is_right = f"weights differ by {difference:.1g}", with_checkpoint and difference < 1e-10
    else:
        end = f"{type(error).__name__}: {error}"
        is_right = isinstance(error, WorkerLost) and harm.victim in str(error) and not with_checkpoint
    # a fit that goes on waits for a nanny, up to 30 s, and for what a new worker imports; then it trains again
    in_time = took < stated(timeout) + (n_seconds + 60 if with_checkpoint else 0)
    recover(client, harm.victim, harm.pid)
    left = leftovers(client)
    end += f"; left on workers: {left}" if left else ""
    return Round(name, with_checkpoint, harm.epoch, took, end, is_right and in_time and not left)


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
    maps = Path("/proc/self/maps")
    memory = [line for line in maps.read_text().splitlines() if "memfd:fastmlp" in line] if maps.exists() else []
    return [name for name in [*names, *threads] if name.startswith(PREFIX)] + memory


if __name__ == "__main__":
    given = dict(enumerate(map(float, sys.argv[1:])))
    sys.exit(main(int(given.get(0, 50)), int(given.get(1, 0)), given.get(2, TIMEOUT)))
