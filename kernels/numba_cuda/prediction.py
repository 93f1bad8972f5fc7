"""Predictions, block by block through two streams: while one block is computed, the other is copied.

Where it sits: engine.py has checked the arguments.  A :class:`Slot` has the buffers of one block on its way, in
page-locked memory on the host's side.  It is written again only after its stream has come to an end, and no call ends
with a block on its way, whatever stopped it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from fastmlp.kernels.numba_cuda import driver, settings
from fastmlp.kernels.numba_cuda.code import module_of, pieces
from fastmlp.kernels.numba_cuda.cost import tile_of
from fastmlp.kernels.numba_cuda.memory import Samples, canonical, device_view, on_device, upload_samples
from fastmlp.kernels.numba_cuda.pace import Pace
from fastmlp.kernels.numba_cuda.plan import Plan, table

if TYPE_CHECKING:
    from fastmlp.kernels.numba_cuda.workspace import Workspace


class Slot:
    """The buffers of one of two blocks on their way.

    Attributes
    ----------
    block : tuple of int or None
        (first, last) rows of the block that is on its way.
    samples : Samples or None
        Its rows on the device, which must live until the stream has come to an end.
    """

    def __init__(self, ws: Workspace, plan: Plan, host_X: bool, host_out: bool) -> None:
        rows, n_features = plan.rows, ws.network.widths[0]
        self.plan, self.stream = plan, driver.api().stream()
        self.timer = driver.Timer(self.stream)
        self.block: tuple[int, int] | None = None
        self.samples: Samples | None = None
        self.out: Any = None
        if host_X:
            self.X_on_host = driver.pinned((rows, n_features), ws.dtype, f"{rows} rows of X")
            self.X = driver.allocate(rows * n_features, ws.dtype, f"{rows} rows of X")
        if host_out:
            self.out_on_host = driver.pinned((rows, ws.n_outputs), ws.dtype, f"predictions of {rows} rows")
            self.out = driver.allocate(rows * ws.n_outputs, ws.dtype, f"predictions of {rows} rows")

    def collect(self, out: Any, pace: Pace) -> None:
        """Wait for the block on its way, if there is one, and hand its predictions over."""
        if self.block is None:
            return
        self.stream.synchronize()
        (first, last), self.block, self.samples = self.block, None, None
        pace.measured(last - first, self.timer.seconds())
        if self.out is not None:
            out[first:last] = self.out_on_host[: last - first]

    def drop(self) -> None:
        """Wait for the block on its way, if there is one, and forget it."""
        if self.block is not None:
            self.stream.synchronize()
            self.block = self.samples = None


class Prediction:
    """Buffers for blocks of rows of one kind of X, kept for the next call.

    Attributes
    ----------
    rows : int
        Rows that a block may have.
    """

    def __init__(self, ws: Workspace, rows: int, kind: tuple[bool, bool, bool]) -> None:
        is_sparse, host_X, host_out = self.kind = kind
        self.rows, self.code, self.limited = rows, ws.code(rows), False
        plans = [Plan(ws, self.code, rows, training=False, is_sparse=is_sparse) for _ in range(2)]
        self.slots = [Slot(ws, plan, host_X and not is_sparse, host_out) for plan in plans]
        self.pace = Pace((2.0 * ws.n_weights + 1) / settings.FIRST_RATE[ws.dtype.itemsize])
        self.flags, self.masks = driver.allocate(1, np.int32, "flags"), driver.allocate(1, np.uint64, "masks")
        self.none = Samples(None, driver.allocate(1, np.int64, "X"), driver.allocate(1, np.int32, "X"), 0, False)


def _rows_of_block(ws: Workspace, n: int) -> int:
    """Return the rows of a block for n rows: a power of two, so that few sizes occur, and some blocks if n is large."""
    bytes_of_row = (ws.network.widths[0] + ws.n_outputs) * ws.dtype.itemsize
    most = min(settings.PREDICT_ROWS, max(settings.FEWEST_ROWS, settings.PREDICT_BYTES // bytes_of_row))
    wanted = n
    if n > settings.OVERLAP_ROWS:
        wanted = max(settings.OVERLAP_ROWS, pieces(n, settings.OVERLAP_BLOCKS))
    return min(most, max(settings.FEWEST_ROWS, 2 ** (wanted - 1).bit_length()))


def prediction_of(ws: Workspace, n: int, kind: tuple[bool, bool, bool]) -> tuple[Prediction, int]:
    """Return buffers, and the rows of a block: as many as the device has room for.

    Buffers of an earlier call serve if they are large enough, or as large as memory allows.

    Parameters
    ----------
    ws : Workspace
    n : int
        Number of rows to predict.
    kind : tuple of bool
        Whether X is sparse, whether it is on the host, and whether the predictions go to the host.
    """
    rows = _rows_of_block(ws, n)
    kept = ws.prediction
    if kept is not None and kept.kind == kind and (kept.rows >= rows or kept.limited):
        return kept, min(rows, kept.rows)
    wanted, ws.prediction, kept = rows, None, None
    while True:
        try:
            ws.prediction = Prediction(ws, rows, kind)
            ws.prediction.limited = rows < wanted
            return ws.prediction, rows
        except MemoryError:
            if rows <= settings.FEWEST_ROWS:
                raise
            rows = max(settings.FEWEST_ROWS, rows // 2)


class Blocks:
    """A call of predict: the rows of X, or of ``X[rows]``, on their way through the slots."""

    def __init__(self, ws: Workspace, prediction: Prediction, X: Any, rows: np.ndarray | None) -> None:
        self.ws, self.prediction, self.X, self.rows = ws, prediction, X, rows
        self.there = upload_samples(X, ws.dtype) if on_device(X) else None
        self.gathered = int(rows is not None and self.there is not None)
        self.order = table(rows if self.gathered else [0], np.int32)

    def run(self, n: int, block: int, out: Any, to: Any) -> bool:
        """Predict n rows, at most ``block`` at once, into ``out``, or ``to`` on the device -> whether X was finite."""
        prediction, first, number = self.prediction, 0, 0
        with ExitStack() as stack:
            for slot in prediction.slots:
                slot.drop()  # should an interrupt have come where even the stack could not
                stack.callback(slot.drop)
            prediction.flags.copy_to_device(np.zeros(1, np.int32))
            while first < n:
                slot = prediction.slots[number % 2]
                slot.collect(out, prediction.pace)
                last = first + prediction.pace.units(min(block, n - first))
                self._launch(slot, first, last, to)
                first, number = last, number + 1
            for k in (number, number + 1):  # the older one first
                prediction.slots[k % 2].collect(out, prediction.pace)
            return not prediction.flags.copy_to_host()[0]

    def _launch(self, slot: Slot, first: int, last: int, to: Any) -> None:
        """Put rows first .. last on their way."""
        ws, code, plan, width = self.ws, self.prediction.code, slot.plan, self.ws.n_outputs
        slot.block = first, last
        slot.samples = samples = self.there or self._upload(slot, first, last)
        target = slot.out if to is None else to[first * width : last * width]
        launch = driver.Launch(code.predict, _blocks(last - first, code.TILE), code.THREADS, slot.stream)
        slot.timer.start()
        launch(
            plan.net, plan.layers, samples.X, samples.indptr, samples.indices, self.order, ws.params.device, plan.work,
            self.prediction.masks, target, self.prediction.flags, first if self.there else 0, last - first,
            self.gathered,
        )  # fmt: skip
        slot.timer.stop()
        if to is None:
            size = (last - first) * width
            slot.out[:size].copy_to_host(slot.out_on_host.reshape(-1)[:size], slot.stream)

    def _upload(self, slot: Slot, first: int, last: int) -> Samples:
        """Return rows first .. last of X, or of ``X[rows]``, on their way to the device."""
        block = self.X[first:last] if self.rows is None else self.X[self.rows[first:last]]
        if sparse.issparse(self.X):
            return upload_samples(canonical(block, self.ws.dtype), self.ws.dtype)
        slot.X_on_host[: last - first] = block
        flat = slot.X_on_host.reshape(-1)[: block.size]
        slot.X[: block.size].copy_to_device(flat, slot.stream)
        return self.prediction.none._replace(X=slot.X, n=last - first)


def _blocks(n: int, size: int) -> int:
    """Return how many blocks of a kernel work on n things, each on this many at a time."""
    most = settings.SIMULATED_BLOCKS if driver.simulated() else settings.BLOCKS_WITHOUT_BARRIER
    return max(1, min(most, pieces(n, size)))


def all_finite(X: Any) -> bool:
    """Return whether an array on the device has neither NaN nor infinity; not part of the contract.

    Parameters
    ----------
    X : C-contiguous array of float32 or float64 with ``__cuda_array_interface__``
    """
    dtype = np.dtype(X.dtype)
    numbers, flags = device_view("X", X, dtype, tuple(X.shape)), driver.api().to_device(np.zeros(1, np.int32))
    code = module_of(dtype == np.float64, tile_of((1, 1), 1))
    driver.Launch(code.finite_array, _blocks(numbers.size, code.THREADS), code.THREADS)(numbers, flags, numbers.size)
    return not flags.copy_to_host()[0]
