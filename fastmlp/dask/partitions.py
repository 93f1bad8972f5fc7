"""Users' Dask collections -> row blocks that lie on workers, checked before training.

X, y and the weights of a set of rows become lists of futures, one per row block. They are computed where Dask likes,
described by a small task each, and never moved, except those few that lie apart from their rows of X.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

import dask.array as da
import dask.dataframe as dd
import numpy as np
from dask import delayed
from distributed import Client, Future, wait
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite

from fastmlp.dask.pulse import LOOK, Pulse
from fastmlp.data import inputs
from fastmlp.preprocessing.frames import table_of
from fastmlp.preprocessing.learning import check_columns

Frame = dd.DataFrame | dd.Series


class Facts(NamedTuple):
    """What a row block says of itself."""

    n_rows: int
    n_columns: int
    dtype: np.dtype
    wrong: str | None  # what is wrong with it
    classes: np.ndarray | None  # of y


@dataclass
class Table:
    """A set of rows as row blocks: futures of X, y and the weights, and what is known of each block."""

    name: str  # of a set of validation rows; those to train on have none
    X: list[Future]
    y: list[Future]
    weight: list[Future | None]
    columns: list[Any] | None  # names, if X is a frame
    mixed: bool = False  # whether the columns of X may be texts and categories, and have gaps
    facts: list[Facts] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Return what errors call these rows."""
        return _names(self.name)[0]

    @property
    def n_columns(self) -> int:
        """Return the number of columns, once it is known."""
        return next(facts.n_columns for facts in self.facts if facts.n_rows)

    @property
    def dtype(self) -> np.dtype:
        """Return the dtype that all rows have together, as the engines read them."""
        found = np.result_type(*(facts.dtype for facts in self.facts))
        return found if found in (np.float32, np.float64) else np.dtype(np.float64)


def is_collection(value: Any) -> bool:
    """Return whether a value is an array or a frame of Dask."""
    return isinstance(value, da.Array | dd.DataFrame | dd.Series)


# --- as lists of blocks -----------------------------------------------------------------------------------------------


def table(client: Client, X: Any, y: Any, weight: Any, name: str = "", mixed: bool = False) -> Table:
    """Begin to compute the row blocks of X, y and the weights, where they are not yet computed.

    `name` is that of a set of validation rows; the training rows have none. `mixed` says whether the columns of X may
    be texts and categories, and have gaps: then the partitions of a frame stay frames.

    Raises
    ------
    TypeError
        If X is no Dask array or frame.
    ValueError
        If the row blocks of y or of the weights cannot be those of X.
    """
    of_X, of_y, of_weight = _names(name)
    if y is None:
        raise ValueError(f"{of_y} is missing: training needs targets")
    if not is_collection(X) or X.ndim != 2:
        shape = f" of {X.ndim} dimension" if is_collection(X) else ""
        raise TypeError(f"{of_X} must be a Dask array or frame of 2 dimensions, got {type(X).__name__}{shape}")
    columns = list(X.columns) if isinstance(X, Frame) else None
    if columns is not None and not mixed:
        inputs.warn_of_categories(X._meta)
    X = whole_rows(X, of_X)
    lists = [_blocks(X, mixed)]
    for rows, called in ((y, of_y), (weight, of_weight)):
        lists.append([] if rows is None else _blocks(like(X, rows, called, of_X)))
    futures = client.compute([block for blocks in lists for block in blocks])
    n = len(lists[0])
    weights: list[Future | None] = futures[2 * n :] or [None] * n
    return Table(name, futures[:n], futures[n : 2 * n], weights, columns, mixed)


def _names(name: str) -> tuple[str, str, str]:
    """Return what errors call X, y and the weights of a set of rows."""
    if not name:
        return "X", "y", "sample_weight"
    return f"X of {name!r}", f"y of {name!r}", f"the weights of {name!r}"


def whole_rows(X: Any, name: str) -> Any:
    """Return X with all columns in each block."""
    if isinstance(X, Frame) or X.numblocks[1] == 1:
        return X
    try:
        return X.rechunk({1: -1})
    except ValueError as error:
        raise ValueError(
            f"{name} has {X.numblocks[1]} chunks of columns, and rows whose number is unknown: "
            f"call {name}.compute_chunk_sizes(), or make it with a single chunk of columns"
        ) from error


def like(X: Any, rows: Any, name: str, of: str = "X") -> Any:
    """Return y or weights in the row blocks of X."""
    if not is_collection(rows):
        if isinstance(X, Frame) or np.isnan(X.shape[0]):
            raise TypeError(
                f"{name} is of type {type(rows).__name__}, but the numbers of rows of {of}'s partitions are unknown:"
                f" give a Dask array or series with the same partitions"
            )
        rows = rows if hasattr(rows, "shape") else np.asarray(rows)
        _same_number(rows, name, X, of)
        rows = getattr(rows, "to_numpy", lambda: rows)()
        return da.from_array(rows, chunks=(X.chunks[0], *((n,) for n in rows.shape[1:])))
    if rows.ndim == 2:
        rows = whole_rows(rows, name)
    if isinstance(X, da.Array) and isinstance(rows, da.Array) and not np.isnan([X.shape[0], rows.shape[0]]).any():
        _same_number(rows, name, X, of)
        return rows if rows.chunks[0] == X.chunks[0] else rows.rechunk({0: X.chunks[0]})
    if isinstance(X, Frame) and isinstance(rows, Frame) and X.known_divisions and rows.known_divisions:
        return rows if rows.divisions == X.divisions else rows.repartition(divisions=X.divisions, force=True)
    if rows.npartitions != X.npartitions:
        raise ValueError(
            f"{of} has {X.npartitions} partitions, {name} has {rows.npartitions}, and their numbers of rows are"
            " unknown: give both the same partitions, or call compute_chunk_sizes() of both arrays"
        )
    return rows


def _same_number(rows: Any, name: str, X: Any, of: str) -> None:
    if rows.shape[0] != X.shape[0]:
        raise ValueError(f"{of} has {X.shape[0]} rows, {name} has {rows.shape[0]}")


def _blocks(rows: Any, mixed: bool = False) -> list[Any]:
    """Return the row blocks as delayed objects; those of frames become arrays, unless they are `mixed`."""
    if isinstance(rows, Frame):
        names = list(rows._meta.columns) if rows.ndim == 2 else None
        return [delayed(_values)(block, names, mixed) for block in rows.to_delayed()]
    return list(rows.to_delayed().ravel())


def _values(block: Any, names: list[Any] | None, mixed: bool) -> Any:
    """Return a partition of a frame as an array, or as it is, if it has these columns."""
    if names is not None and list(block.columns) != names:
        raise ValueError(f"its columns are {list(block.columns)}, those of the frame are {names}")
    return block if mixed else block.to_numpy()


# --- what each block says of itself -----------------------------------------------------------------------------------


def describe(X: Any, y: Any, weight: Any, classify: bool, mixed: bool = False) -> Facts:
    """Return the facts of a row block; runs where the block lies.

    It is the first of our tasks there, and imports what training needs: the worker's event loop need not, later.
    """
    import_module(f"fastmlp.dask.{'tabular_estimators' if mixed else 'estimators'}")
    if not (mixed or issparse(X) or isinstance(X, np.ndarray)):
        X = np.asarray(X)
    wrong = _what_is_wrong(X, y, weight, mixed)
    dtype = X.dtype if not mixed and X.dtype.kind in "biuf" else np.dtype(np.float64)
    labels = classify and wrong is None and np.ndim(y) == 1
    n_columns = X.shape[1] if X.ndim == 2 else 0
    return Facts(X.shape[0], n_columns, dtype, wrong, np.unique(np.asarray(y)) if labels else None)


def _what_is_wrong(X: Any, y: Any, weight: Any, mixed: bool) -> str | None:
    if X.ndim != 2:
        return f"has {X.ndim} dimension{'s' * (X.ndim != 1)}, not 2"
    for name, rows in (("y", y), ("sample_weight", weight)):
        if rows is not None and rows.shape[0] != X.shape[0]:
            return f"has {X.shape[0]} rows, that of {name} has {rows.shape[0]}"
    for name, rows in (("X", X), ("y", y), ("sample_weight", weight)):
        if rows is None or not rows.shape[0]:
            continue
        try:
            if name == "X" and mixed:
                check_columns(table_of(X))
                continue
            if rows.dtype.kind not in "biufc" and name != "y":  # labels may be texts
                rows = rows.astype(np.float64)
            assert_all_finite(rows, input_name=name)
        except (TypeError, ValueError) as error:
            return f"is refused: {str(error).splitlines()[0]}"
    return None


async def computed(client: Client, futures: Sequence[Future], timeout: float, homes: Collection[str] = ()) -> None:
    """Wait until futures have ended, well or not, or until one of these homes, the addresses of workers, is lost.

    Raises
    ------
    WorkerLost
        If a worker hangs, and nothing has been computed since it does.
    RuntimeError
        If there are no workers.
    """
    pulse, last, pending = Pulse(client, timeout), time.monotonic(), list(futures)
    while pending:
        with suppress(TimeoutError, CancelledError):
            await wait(pending, timeout=LOOK)
        left = [future for future in pending if not future.done()]
        if len(left) < len(pending):
            last, pending = time.monotonic(), left
        await pulse.look()
        if pending and time.monotonic() - last > timeout and (silent := pulse.silent()):
            raise pulse.hangs(silent[0])
        if any(map(pulse.why_lost, homes)):
            return


async def _described(client: Client, rows: Table, classify: bool, timeout: float) -> list[Future]:
    """Return a description of each block, made where its rows of X lie.

    Elsewhere it would leave a copy of X there: a second owner, for as long as Dask keeps it, and another sum of ranks.
    """
    blocks = list(zip(rows.X, rows.y, rows.weight, strict=True))
    given = [future for block in blocks for future in block if future is not None]
    found = dict[int, Future]()
    while missing := [i for i in range(len(blocks)) if i not in found or not found[i].done()]:
        await computed(client, given, timeout)  # again, if a worker has left just now
        where = dict(zip(missing, await owners(client, [rows.X[i] for i in missing]), strict=True))
        for i, at in where.items():
            found[i] = client.submit(describe, *blocks[i], classify, rows.mixed, pure=False, workers=at or None)
        homes = {address for at in where.values() for address in at}
        await computed(client, [found[i] for i in missing], timeout, homes)
    return [found[i] for i in range(len(blocks))]


async def ready(client: Client, rows: Table, classify: bool, timeout: float) -> None:
    """Wait until all blocks are computed, and check each.

    Raises
    ------
    ValueError
        For blocks of wrong shapes, or with numbers that are not finite; it names the partition.
    Exception
        What the computation of a block has raised, with a note that names the partition.
    """
    found = await _described(client, rows, classify, timeout)
    for i, future in enumerate(found):
        if future.status != "finished":
            raise await _error_of(future, f"partition {i} of {rows.label}")
    rows.facts = await client.gather(found)
    first = next((facts for facts in rows.facts if facts.n_rows), None)
    if first is None:
        raise ValueError(f"{rows.label} has no rows in any of its {len(found)} partitions")
    where = await owners(client, rows.X)
    for i, facts in enumerate(rows.facts):
        wrong = facts.wrong
        if wrong is None and facts.n_columns != first.n_columns and (facts.n_rows or facts.n_columns):
            wrong = f"has {facts.n_columns} columns, others have {first.n_columns}"
        if wrong is not None:
            raise ValueError(f"partition {i} of {rows.label} (on {', '.join(where[i]) or 'no worker'}) {wrong}")


def check_classes(rows: Table, known: np.ndarray) -> None:
    """Refuse classes that are not among the known ones; the ValueError names the partition."""
    for i, facts in enumerate(rows.facts):
        unknown = () if facts.classes is None else np.setdiff1d(facts.classes, known)
        if len(unknown):
            raise ValueError(f"partition {i} of {rows.label}: y has classes {unknown}, not among {known}")


async def _error_of(future: Future, where: str) -> BaseException:
    if future.status == "error":
        error = await future.exception()
        error.add_note(f"This was raised by {where}.")
        return error
    return RuntimeError(f"{where} is {future.status}: its future was cancelled, or the data is lost")


async def owners(client: Client, blocks: Sequence[Future]) -> list[list[str]]:
    """Return the addresses of the workers that hold each block, sorted."""
    found = await client.scheduler.who_has(keys=[future.key for future in blocks])
    return [sorted(found.get(future.key, ())) for future in blocks]


# --- which rank works on which block ----------------------------------------------------------------------------------


def ranks_of(where: list[list[str]], n_rows: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return the address of each rank, and the rank of each block.

    A block that several workers hold goes to the one that has fewest rows so far. Ranks are numbered in the order of
    their first blocks; empty blocks make no rank.
    """
    load: dict[str, int] = {}
    for holders, n in zip(where, n_rows, strict=True):
        if n:
            owner = min(holders, key=lambda address: (load.get(address, 0), address))
            load[owner] = load.get(owner, 0) + n
            holders[:] = [owner]
    addresses = list(load)
    return addresses, [addresses.index(holders[0]) if n else 0 for holders, n in zip(where, n_rows, strict=True)]


def spread(where: list[list[str]], n_rows: Sequence[int], addresses: list[str]) -> list[int]:
    """Return the rank of each block of validation rows: where it lies, or the rank with fewest of these rows."""
    load, ranks = [0] * len(addresses), []
    for holders, n in zip(where, n_rows, strict=True):
        here = [rank for rank, address in enumerate(addresses) if address in holders] or range(len(addresses))
        ranks.append(min(here, key=lambda rank: (load[rank], rank)))
        load[ranks[-1]] += n
    return ranks
