"""One fit on a cluster, seen from its client: data -> ranks -> a task per rank -> the fitted estimator.

::

    row blocks (partitions) -> locks of the workers -> sessions -> tasks -> outcomes
         ^                                                            |
         +---- a worker is lost: resume from the checkpoint ----------+

Nothing here waits for ever: workers that leave are noticed every second, and a task ends by itself when a rank it needs
is lost, or when nobody wants it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from typing import Any

import dask
import numpy as np
from distributed import Client, Future, Lock, wait
from sklearn.base import is_classifier

from fastmlp import __version__
from fastmlp.dask import partitions, sessions, work
from fastmlp.dask.partitions import Table
from fastmlp.dask.pulse import LOOK, Pulse
from fastmlp.dask.sessions import WorkerLost
from fastmlp.dask.work import Outcome, Piece, Share
from fastmlp.distributed import CommunicationError
from fastmlp.estimator.tabular import BaseTabular
from fastmlp.training.callbacks import Checkpoint


@dataclass(frozen=True)
class Job:
    """What is to be done on the cluster."""

    estimator: Any  # a plain one, which has what an earlier fit left if this one goes on from there
    method: str  # "fit" or "partial_fit"
    rows: tuple[Any, Any, Any]  # X, y, sample_weight
    validation: Mapping[str, tuple[Any, Any, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the method
    timeout: float = 60.0

    @property
    def backend(self) -> str:
        """Return the engine that the user asked for."""
        return self.estimator.backend

    @property
    def mixed(self) -> bool:
        """Return whether the columns of X may be texts and categories, and have gaps."""
        return isinstance(self.estimator, BaseTabular)

    @property
    def known_classes(self) -> np.ndarray | None:
        """Return the classes that rows may have, if that is known before training."""
        if self.method != "partial_fit" or not is_classifier(self.estimator):
            return None
        classes = self.options.get("classes")
        return getattr(self.estimator, "classes_", None) if classes is None else np.asarray(classes)


async def fit(client: Client, job: Job) -> Outcome:
    """Return the outcome of rank 0, after all ranks have ended well.

    Raises
    ------
    WorkerLost
        If a worker was lost, and the fit cannot go on without it; it names the worker.
    Exception
        What training raised on a worker, with a note that names the worker.
    """
    resume, attempts = _Resume(job), int(dask.config.get("distributed.scheduler.allowed-failures"))
    while True:
        try:
            with client.as_current():  # Dask's functions of futures ask for it
                return await _attempt(client, job, resume)
        except WorkerLost as error:
            attempts -= 1
            if not resume.possible or attempts < 0 or not await _without(client, error.address):
                raise


class _Resume:
    """From which file a fit goes on after a worker was lost: that of its Checkpoint, if this fit has written it."""

    def __init__(self, job: Job) -> None:
        callbacks = getattr(job.estimator, "callbacks", None) or ()
        paths = [os.fspath(one.path) for one in callbacks if isinstance(one, Checkpoint)]
        self._paths = [path for path in paths if path.format(epoch=1) == path]  # not a file per epoch
        self.possible = bool(self._paths) and job.method == "fit" and not job.mixed  # which has no resume_from
        self._began = time.monotonic()

    async def options(self, client: Client, address: str, timeout: float) -> dict[str, Any]:
        """Return the arguments of fit that say where to go on, as the worker of rank 0 sees the file."""
        if not self.possible:
            return {}
        age = (await _ask(client, [address], timeout, _age, self._paths[0]))[address]
        is_ours = isinstance(age, float) and age < time.monotonic() - self._began
        return {"resume_from": self._paths[0]} if is_ours else {}


def _age(path: str) -> float | None:
    """Return for how many seconds a file has been as it is."""
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return None


async def _without(client: Client, address: str) -> bool:
    """Return whether a lost worker is gone; one that hangs is started again by its nanny, if it has one."""
    if await client.scheduler.ncores(workers=[address]):
        with contextlib.suppress(Exception):
            await client.restart_workers([address], timeout=30, raise_for_error=False)
    return not await client.scheduler.ncores(workers=[address])


# --- one attempt ------------------------------------------------------------------------------------------------------


async def _attempt(client: Client, job: Job, resume: _Resume) -> Outcome:
    train, *sets = await _tables(client, job)
    addresses, ranks = await _ranks(client, train, job.timeout)
    common = train.n_columns, train.dtype, job.mixed
    shares = [Share(_pieces(train, ranks, rank), {}, *common) for rank in range(len(addresses))]
    for rows in sets:
        where = await partitions.owners(client, rows.X)
        places = partitions.spread(where, [facts.n_rows for facts in rows.facts], addresses)
        for rank, share in enumerate(shares):
            share.validation[rows.name] = _pieces(rows, places, rank)
    async with _locked(client, addresses):
        options = {**job.options, **await resume.options(client, addresses[0], job.timeout)}
        return await _trained(client, replace(job, options=options), addresses, shares)


async def _tables(client: Client, job: Job) -> list[Table]:
    """Return the training rows and the sets of validation rows, computed and checked."""
    given = {"": job.rows, **job.validation}
    tables = [partitions.table(client, *rows, name=name, mixed=job.mixed) for name, rows in given.items()]
    classify = is_classifier(job.estimator)
    for rows in tables:
        await partitions.ready(client, rows, classify, job.timeout)
    n_columns = {rows.label: rows.n_columns for rows in tables}
    wrong = next((label for label, n in n_columns.items() if n != n_columns["X"]), None)
    if wrong is not None:
        raise ValueError(f"X has {n_columns['X']} columns, {wrong} has {n_columns[wrong]}")
    if job.known_classes is not None:
        for rows in tables:
            partitions.check_classes(rows, job.known_classes)
    return tables


async def _ranks(client: Client, rows: Table, timeout: float) -> tuple[list[str], list[int]]:
    """Return the address of each rank, and the rank of each block."""
    n_rows = [facts.n_rows for facts in rows.facts]
    while True:
        where = await partitions.owners(client, rows.X)
        if all(holders or not n for n, holders in zip(n_rows, where, strict=True)):
            return partitions.ranks_of(where, n_rows)
        await partitions.computed(client, rows.X, timeout)  # a worker has left just now


def _pieces(rows: Table, ranks: list[int], rank: int) -> list[Piece]:
    """Return the blocks of a rank that have rows."""
    blocks = zip(rows.X, rows.y, rows.weight, rows.facts, ranks, strict=True)
    return [(i, X, y, weight) for i, (X, y, weight, facts, at) in enumerate(blocks) if at == rank and facts.n_rows]


@contextlib.asynccontextmanager
async def _locked(client: Client, addresses: list[str]) -> AsyncIterator[None]:
    """Hold these workers: fits whose tasks waited for one another's threads would stand still.

    Locks are taken in one order by all, and those of a client that has died are released after Dask's lease-timeout.
    """
    held: list[Lock] = []
    try:
        for address in sorted(addresses):
            lock = Lock(f"fastmlp-{address}", scheduler_rpc=client.scheduler, loop=client.loop)
            await lock.acquire()
            held.append(lock)
        yield
    finally:
        releases = asyncio.gather(*(lock.release() for lock in held), return_exceptions=True)
        with contextlib.suppress(Exception):  # the scheduler may be gone
            await asyncio.wait_for(releases, sessions.LAST_WORD)


async def _trained(client: Client, job: Job, addresses: list[str], shares: list[Share]) -> Outcome:
    name = uuid.uuid4().hex
    answers = await _ask(client, addresses, job.timeout, work.prepare, name, addresses, job.timeout, job.backend)
    futures: list[Future] = []
    try:
        _check_workers(answers)
        estimator = await client.scatter(job.estimator, workers=[addresses[0]], hash=False)
        for rank, (address, share) in enumerate(zip(addresses, shares, strict=True)):
            task = (name, estimator, job.method, share._asdict(), dict(job.options))
            where = {"workers": [address], "allow_other_workers": False}
            futures.append(client.submit(work.train, *task, **where, pure=False, key=f"fastmlp-{name}-{rank}"))
        return await _watched(client, addresses, futures, job.timeout)
    except BaseException as error:
        lost = error.address if isinstance(error, WorkerLost) else None
        left = [address for address in addresses if address != lost]
        for ending in (client.cancel(futures, force=True), _ask(client, left, job.timeout, sessions.close, name)):
            with contextlib.suppress(Exception):
                await asyncio.wait_for(ending, sessions.LAST_WORD)
        raise


async def _ask(client: Client, addresses: list[str], timeout: float, function: Any, *args: Any) -> dict[str, Any]:
    """Return what a function returns on each of these workers, or the exception it ends with."""

    async def one(address: str) -> Any:
        try:
            there = client.run(function, *args, workers=[address], on_error="return")
            return (await asyncio.wait_for(there, timeout)).get(address, OSError("it has left the cluster"))
        except (TimeoutError, OSError) as error:
            return error

    return dict(zip(addresses, await asyncio.gather(*map(one, addresses)), strict=True))


def _check_workers(answers: Mapping[str, Any]) -> None:
    """Refuse workers that cannot train together."""
    for rank, (address, answer) in enumerate(answers.items()):
        if isinstance(answer, TimeoutError | OSError):
            raise WorkerLost(f"worker {address} (rank {rank}) does not answer: {answer}", rank, address)
        if isinstance(answer, Exception):
            raise RuntimeError(f"worker {address} cannot train: {type(answer).__name__}: {answer}") from answer
    first_address, first = next(iter(answers.items()))
    for address, found in answers.items():
        for what, value in found.items():
            if value != first[what]:
                raise RuntimeError(
                    f"workers differ in {what}: {first_address} has {first[what]}, {address} has {value}; all ranks"
                    " must make the same steps, to the last bit"
                )
    if first["fastmlp"] != __version__:
        raise RuntimeError(f"the workers have fastmlp {first['fastmlp']}, the client has {__version__}")


# --- waiting for the outcomes -----------------------------------------------------------------------------------------


class _Cancelled(RuntimeError):
    """Dask has ended a task: somebody has cancelled it, or what it needs is lost."""


async def _watched(client: Client, addresses: list[str], futures: list[Future], timeout: float) -> Outcome:
    """Return the outcome of rank 0; raise the error that is the cause if a rank fails or is lost."""
    outcomes: dict[int, Outcome] = {}
    lost: dict[int, str] = {}
    pulse, now = Pulse(client, timeout), asyncio.get_running_loop().time
    deadline = float("inf")  # for the others, once one has failed: they were told
    while now() < deadline:
        waiting = [rank for rank in range(len(futures)) if rank not in outcomes and rank not in lost]
        if not waiting:
            break
        with contextlib.suppress(TimeoutError, CancelledError):
            await wait([futures[rank] for rank in waiting], timeout=LOOK, return_when="FIRST_COMPLETED")
        for rank in waiting:
            if futures[rank].done():
                outcomes[rank] = await _outcome(futures[rank], rank, addresses[rank])
        cancelled = {rank for rank, outcome in outcomes.items() if isinstance(outcome.error, _Cancelled)}
        await pulse.look(at_once=bool(cancelled))  # Dask cancels the tasks of a worker that it has just lost
        lost = {
            rank: pulse.why_lost(addresses[rank])
            for rank in range(len(futures))
            if rank not in outcomes or rank in cancelled
        }
        lost = {rank: why for rank, why in lost.items() if why}
        if lost or any(outcome.error is not None for outcome in outcomes.values()):
            deadline = min(deadline, now() + sessions.LAST_WORD)
    if len(outcomes) == len(futures) and all(outcome.error is None for outcome in outcomes.values()):
        return outcomes[0]
    raise _cause(addresses, outcomes, lost)


async def _outcome(future: Future, rank: int, address: str) -> Outcome:
    """Return the outcome of a task that has ended; one that Dask has ended has an error."""
    try:
        return await future
    except CancelledError as error:
        return Outcome(rank, address, None, _Cancelled(f"the fit was cancelled: {error}"), [])
    except Exception as error:
        return Outcome(rank, address, None, error, [])


def _cause(addresses: list[str], outcomes: Mapping[int, Outcome], lost: Mapping[int, str]) -> BaseException:
    """Return the error that the others follow from."""
    if lost:
        rank = min(lost)
        return WorkerLost(f"worker {addresses[rank]} (rank {rank}) {lost[rank]}", rank, addresses[rank])
    errors = [(outcome, outcome.error) for _, outcome in sorted(outcomes.items()) if outcome.error is not None]
    for outcome, error in errors:
        if not isinstance(error, CommunicationError | sessions.Unwanted):
            error.add_note(f"This was raised on worker {outcome.address}, rank {outcome.rank} of {len(addresses)}.")
            return error
    blamed = [error for _, error in errors if isinstance(error, CommunicationError)]
    silent = [error for error in blamed if error.rank not in outcomes]
    return silent[0] if silent else blamed[0] if blamed else errors[0][1]
