"""Epochs, and the loss with its gradient, as launches of the kernel ``train``.

Where it sits: engine.py has checked the arguments and hands over rows on the device; a :class:`Training` fills tables
with the scalars of each step and launches steps, as many at once as fit into a fraction of a second.  Before a launch
the mirrors of parameters and states are called stale, and at the end the device owes them to the host, which gets them
together, now or later: whatever happens in between, device and host agree again with the next call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.kernels.numba_cuda import driver, settings
from fastmlp.kernels.numba_cuda.code import pieces
from fastmlp.kernels.numba_cuda.cost import schedule_of
from fastmlp.kernels.numba_cuda.interrupts import deferred
from fastmlp.kernels.numba_cuda.memory import Rows, vector
from fastmlp.kernels.numba_cuda.pace import Pace
from fastmlp.kernels.numba_cuda.plan import Plan, phases_of, table

if TYPE_CHECKING:
    from fastmlp.kernels.numba_cuda.workspace import Workspace


def training_of(
    ws: Workspace, rows: Rows, n: int, batch_size: int, rule: str | None = None, clipped: bool = False
) -> Training:
    """Return what trains on n of these rows; that of the epoch before, if it serves."""
    if ws.latest is None or ws.latest.key != (rows, n, batch_size, rule, clipped):
        ws.latest = None
        ws.latest = Training(ws, rows, n, batch_size, rule, clipped)
    return ws.latest


class Training:
    """The launches of an epoch's steps: arguments of the kernel and tables; kept for the next epoch.

    Attributes
    ----------
    done : int
        Steps of this epoch that the device has done.
    """

    def __init__(self, ws: Workspace, rows: Rows, n: int, batch_size: int, rule: str | None, clipped: bool) -> None:
        self.key = rows, n, batch_size, rule, clipped
        self.ws, self.rows, self.n, self.batch, self.states = ws, rows, n, batch_size, None
        chunk = batch_size if ws.network.needs_whole_batch else min(batch_size, settings.CHUNK_ROWS)
        self.code, store = ws.code(chunk, rule), rule is None or clipped or batch_size > chunk
        options = {"is_sparse": rows.samples.sparse, "weighted": rows.weight_on_host is not None}
        options |= {"store": store, "clipped": clipped}
        key = (self.code, chunk, *options.values())
        if key not in ws.plans:
            ws.plans.clear()
            ws.plans[key] = Plan(ws, self.code, chunk, training=True, **options)
        self.plan, self.update = ws.plans[key], store and rule is not None
        self.chunks, self.steps = pieces(batch_size, chunk), pieces(n, batch_size)
        work = 6.0 * chunk * ws.n_weights + 50.0 * ws.n_params
        self.pace = Pace(work / settings.FIRST_RATE[ws.dtype.itemsize] + settings.FIRST_STEP)
        self.timer = driver.Timer(ws.stream)
        self._allocate()

    def _allocate(self) -> None:
        """Make the tables that change from epoch to epoch, for as many steps as are summed up together."""
        ws, code = self.ws, self.code
        self.room = max(1, min(self.steps, settings.PARTIALS_PER_TABLE // self._partials(1)))
        self.order = driver.allocate(self.n, np.int32 if self.rows.n < 2**31 else np.int64, "the order of rows")
        self.partials = vector(np.zeros(self._partials(self.room), ws.dtype), ws.dtype, "sums of steps")
        self.scalars = driver.allocate(self.room * code.N_SCALARS, ws.dtype, "scalars of steps")
        self.masks = driver.allocate(self.room * ws.n_layers * 2, np.uint64, "keys of dropout masks")

    def _partials(self, steps: int) -> int:
        return steps * len(self.plan.tasks) * self.code.PARTIALS

    def begin(self, order: np.ndarray, states: Any, alpha: float, l1: float, max_norm: float = 0.0) -> None:
        """Prepare the steps of an epoch."""
        self.tail = [self.ws.dtype.type(value) for value in (alpha, l1, max_norm)]
        self.done, self.in_flight = 0, False
        self.order.copy_to_device(np.ascontiguousarray(order, self.order.dtype))
        if states is not self.states:
            self._prepare(states)

    def _prepare(self, states: Any) -> None:
        """Choose the schedule and how many blocks; fill in all arguments that do not change."""
        ws, code, plan, rows, self.states = self.ws, self.code, self.plan, self.rows, states
        self.arguments = [
            plan.net, plan.layers, None, table(plan.tasks), rows.samples.X, rows.samples.indptr, rows.samples.indices,
            rows.y, rows.classes, rows.weight, self.order, ws.params.device, states, ws.grad, plan.work, self.scalars,
            ws.factors, self.masks, self.partials,
        ]  # fmt: skip
        blocks = self._blocks()
        schedule = schedule_of(ws.network, min(plan.rows, self.n), ws.tile(plan.rows), blocks)
        phases = phases_of(ws, plan, schedule, self.update)
        self.n_phases, self.arguments[2] = len(phases), table(phases)
        down = pieces(min(plan.rows, self.n), code.TILE)
        if schedule == "rows":
            most = down
        else:
            most = max(down * pieces(max(ws.network.widths), code.TILE), pieces(min(plan.rows, self.n), code.NARROW))
        blocks = min(blocks, max(most, len(plan.tasks)))
        self.launch = driver.Launch(code.train, blocks, code.THREADS, ws.stream)

    def _blocks(self) -> int:
        """Return how many blocks may wait for each other."""
        if settings.BLOCKS_PER_PHASE or driver.simulated():
            return settings.BLOCKS_PER_PHASE or 1
        arguments = [*self.arguments, *self._limits(0, 1, (0, 1), (0, 1), 0), *self.tail]
        arguments[2] = self.plan.net
        kernel = self.code.train
        signature = tuple(map(kernel.typeof_pyval, arguments))
        return driver.cooperative_blocks(kernel, signature, self.code.THREADS)

    def _limits(
        self, first: int, last: int, chunks: tuple[int, int], phases: tuple[int, int], offset: int
    ) -> list[int]:
        return [first, last, *chunks, *phases, offset, self.batch, self.n]

    # --- steps --------------------------------------------------------------------------------------------------------

    def run(self, scalars: np.ndarray, keys: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """Do as many steps as there are rows of scalars.

        Parameters
        ----------
        scalars : ndarray of shape (n_steps, N_SCALARS)
        keys : callable
            (first, last) -> keys of the dropout masks of these steps.

        Returns
        -------
        ndarray of shape (3, n_steps), float64
            Of each step the loss without penalty, the sum of the weights' squares, and that of their magnitudes.
        """
        sums, end = np.empty((3, len(scalars))), len(scalars)
        for first in range(0, end, self.room):
            last = min(end, first + self.room)
            for to, values in ((self.scalars, scalars[first:last]), (self.masks, keys(first, last))):
                to[: values.size].copy_to_device(np.ascontiguousarray(values, to.dtype).reshape(-1))
            self._launch_steps(first, last)
            sums[:, first:last] = self._sums(last - first)
        return sums

    def _launch_steps(self, first: int, last: int) -> None:
        """Launch steps first .. last, whose scalars are in the tables; Ctrl-C is seen after each launch."""
        chunk = 0
        while self.done < last:
            steps, chunks = self._next(chunk, last)
            phases = [(0, self.n_phases)]
            if settings.BLOCKS_PER_PHASE:
                steps, chunks, phases = 1, (chunk, chunk + 1), [(k, k + 1) for k in range(self.n_phases)]
            whole = chunks[1] >= self._chunks_of(self.done)
            with deferred():
                self._launch(steps, chunks, phases, first)
                if whole:
                    self.done += steps
                self.in_flight = False
            chunk = 0 if whole else chunks[1]

    def _chunks_of(self, step: int) -> int:
        return pieces(min(self.batch, self.n - step * self.batch), self.plan.rows)

    def _next(self, chunk: int, last: int) -> tuple[int, tuple[int, int]]:
        """Return how many steps the next launch takes, and which of their chunks: some whole steps, or part of one."""
        units = self.pace.units(self.chunks * (last - self.done))
        if chunk == 0 and units >= self.chunks:
            return units // self.chunks, (0, self.chunks)
        return 1, (chunk, min(chunk + units, self._chunks_of(self.done)))

    def _launch(self, steps: int, chunks: tuple[int, int], phases: list[tuple[int, int]], offset: int) -> None:
        """Launch these steps from the present one on, wait for them, and note how long they took."""
        ws = self.ws
        for mirror in (ws.params, *ws.mirrors):
            mirror.stale()
        self.in_flight = ws.running = True
        self.timer.start()
        for these in phases:
            limits = self._limits(self.done, self.done + steps, chunks, these, offset)
            self.launch(*self.arguments, *limits, *self.tail)
            ws.launches += 1
        self.timer.stop()
        seconds = self.timer.seconds()
        ws.device_seconds += seconds
        self.pace.measured(steps * (chunks[1] - chunks[0]), seconds)

    def _sums(self, steps: int) -> np.ndarray:
        """Return (loss, squares, magnitudes) of the steps in the tables."""
        partials = self.partials[: self._partials(steps)].copy_to_host(stream=self.ws.stream)
        self.ws.stream.synchronize()
        of_tasks = partials.astype(np.float64).reshape(steps, len(self.plan.tasks), self.code.PARTIALS)
        return np.stack([of_tasks[:, 0, 0], of_tasks[:, 1:, 0].sum(axis=1), of_tasks[:, 1:, 1].sum(axis=1)])

    def finish(self, params: np.ndarray, optimizer: Any) -> None:
        """Note the steps done, and write parameters and states to the host unless they are held back.

        If an error came before a launch was waited for, nobody knows what the device has done: the host keeps what it
        was given last, and the next call uploads it.
        """
        with deferred():
            if self.in_flight:
                self.ws.forget()
            elif self.done:
                self.ws.owe(params, optimizer, self.done)
                self.done = 0
                if not self.ws.holds_back:
                    self.ws.fetch()


# --- what an epoch hands over -----------------------------------------------------------------------------------------


def _splitmix(x: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each number (Steele, Lea & Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def mask_keys(n_layers: int, seed: int, t: int, steps: int) -> np.ndarray:
    """Return (steps, n_layers, 2) 32-bit keys of the dropout masks of each step, in front of each layer."""
    numbers, n = np.arange(t, t + steps, dtype=np.uint64)[:, None], np.arange(n_layers, dtype=np.uint64)
    seeds = np.array([seed], np.uint64)  # of arrays NumPy lets overflow pass
    keys = _splitmix(_splitmix(seeds) ^ ((numbers << np.uint64(16)) + n))
    return np.stack([keys & np.uint64(0xFFFFFFFF), keys >> np.uint64(32)], axis=-1)


def sums_of_weights(rows: Rows, order: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows of each batch, sums of their weights), float64."""
    starts = np.arange(0, len(order), batch_size)
    counts = np.diff(np.append(starts, len(order))).astype(np.float64)
    if rows.weight_on_host is None:
        return counts, counts
    return counts, np.add.reduceat(rows.weight_on_host[order].astype(np.float64), starts)


def inverse(sums: np.ndarray) -> np.ndarray:
    """Return 1 / sums, 0 where a sum is 0."""
    return np.divide(1.0, sums, out=np.zeros_like(sums), where=sums != 0)
