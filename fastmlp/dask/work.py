"""What a worker does for a fit: it says what it is, and trains as one rank."""

from __future__ import annotations

import copy
import pickle
import traceback
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from distributed import Worker, get_worker
from scipy import sparse

from fastmlp import __version__
from fastmlp.dask import sessions
from fastmlp.dask.communicator import DaskCommunicator
from fastmlp.data import warned
from fastmlp.distributed import Communicator, Partitions
from fastmlp.engines import backends
from fastmlp.kernels import interrupts

#: A row block: its number, X, y, weights.
Piece = tuple[int, Any, Any, Any]


class Share(NamedTuple):
    """What one rank works on: its row blocks by set, and what the rows of all ranks have in common."""

    train: list[Piece]
    validation: dict[str, list[Piece]]
    n_columns: int
    dtype: np.dtype
    mixed: bool  # whether columns may be texts and categories, and have gaps; then there is no one dtype


class Outcome(NamedTuple):
    """How a rank has ended."""

    rank: int
    address: str
    estimator: Any  # fitted, from rank 0
    error: BaseException | None
    warnings: list[warned.Warned]


def prepare(name: str, addresses: list[str], timeout: float, backend: str, dask_worker: Worker) -> dict[str, Any]:
    """Open a session on a worker; return what all ranks must have in common."""
    engine = backends.get(backend)
    found = {"fastmlp": __version__, "engine": engine.__name__, "NumPy": np.__version__}
    if hasattr(engine, "isa"):
        found["instruction set"] = engine.isa()
    sessions.Session(name, dask_worker, addresses, timeout)
    return found


def train(name: str, estimator: Any, method: str, share: dict[str, Any], options: dict[str, Any]) -> Outcome:
    """Train as one rank of a fit; errors are part of the outcome, so that the client can tell causes from effects."""
    worker = get_worker()
    session = sessions.of(worker, name)
    warnings: list[warned.Warned] = []
    estimator = copy.deepcopy(estimator)  # workers in one process share it
    if estimator.n_jobs is None:
        estimator.n_jobs = worker.state.nthreads
    communicator = None
    try:
        communicator = DaskCommunicator(session, worker.get_current_task())
        with warned.kept(warnings), interrupts.stoppable(session.stop):
            _train(estimator, method, Share(**share), options, communicator)
        communicator.barrier()  # no rank is done before all are
        communicator.close()
    except BaseException as error:
        with suppress(Exception):
            session.end(_last_word(session, error))
        _forget_calls(error)
        return Outcome(session.rank, worker.address, None, _portable(error), warnings)
    return Outcome(session.rank, worker.address, estimator if session.rank == 0 else None, None, warnings)


def _last_word(session: sessions.Session, error: BaseException) -> tuple[str, int, str]:
    """Return what the other ranks are told about an error."""
    if isinstance(error, sessions.WorkerLost):
        return "lost", error.rank, str(error)
    return "failed", session.rank, f"{session.name_of(session.rank)} has failed: {type(error).__name__}: {error}"


def _forget_calls(error: BaseException) -> None:
    """Let go of what the calls had that an error ended, as memory that ranks share: a cycle may keep it for long.

    Clearing a frame leaves what its function has of the one around it, so nothing keeps the frames either.
    """
    seen, left = set[int](), list[BaseException | None]([error])
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            one.__traceback__ = None
            left += [one.__cause__, one.__context__]


def _portable(error: BaseException) -> BaseException:
    """Return an error that can be sent: itself, or its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _train(estimator: Any, method: str, share: Share, options: dict[str, Any], communicator: Communicator) -> None:
    X, y, weight = _stacked(share.train, share)
    sets = {name: _stacked(pieces, share) for name, pieces in share.validation.items()}
    if sets:
        options = {**options, "eval_set": sets}
    getattr(estimator, method)(X, y, weight, **options, communicator=communicator)


class _Rows(Partitions):
    """Partitions with the shape that a set of validation rows must show."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.X.shape


def _stacked(pieces: list[Piece], share: Share) -> tuple[Partitions, Any, Any]:
    """Return the rows of this rank, one block after the other; a single block is not copied."""
    lengths = {number: X.shape[0] for number, X, _, _ in pieces}
    blocks, ys, weights = zip(*((X, y, weight) for _, X, y, weight in pieces), strict=True) if pieces else ((), (), ())
    if not pieces:
        return _Rows(np.empty((0, share.n_columns), share.dtype), {}), np.empty(0), None
    if share.mixed:
        return _Rows(_joined_tables(blocks), lengths), _joined(ys), None if weights[0] is None else _joined(weights)
    if any(map(sparse.issparse, blocks)):
        X = sparse.vstack(blocks, "csr") if len(blocks) > 1 else blocks[0].tocsr()
    else:
        X = _joined(blocks)
    return (
        _Rows(X.astype(share.dtype, copy=False), lengths),
        _joined(ys),
        None if weights[0] is None else _joined(weights),
    )


def _joined_tables(blocks: tuple[Any, ...]) -> Any:
    """Return frames or arrays, one after the other; categories of a column may differ from block to block."""
    if len(blocks) == 1:
        return blocks[0]
    if isinstance(blocks[0], np.ndarray):
        return np.concatenate(blocks)
    frames = [block.copy(deep=False) for block in blocks]
    for i in range(frames[0].shape[1]):
        if any(isinstance(frame.dtypes.iloc[i], pd.CategoricalDtype) for frame in frames):
            columns = [frame.iloc[:, i].astype("category") for frame in frames]
            known = dict.fromkeys(value for column in columns for value in column.cat.categories)
            for frame, column in zip(frames, columns, strict=True):
                frame.isetitem(i, column.cat.set_categories(list(known), ordered=False))
    return pd.concat(frames, ignore_index=True)


def _joined(blocks: tuple[Any, ...]) -> np.ndarray:
    dense = [block.toarray() if sparse.issparse(block) else np.asarray(block) for block in blocks]
    return dense[0] if len(dense) == 1 else np.concatenate(dense)
