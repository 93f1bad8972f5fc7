"""An epoch: its arguments, checked once, and its steps in calls short enough for Ctrl-C."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from scipy import sparse

from fastmlp.kernels import formulas, interrupts
from fastmlp.kernels.arguments import (
    batch_size_of,
    check_array,
    check_indices,
    check_order,
    check_samples,
    check_schedule,
    check_states,
    check_weights,
    row_of,
)
from fastmlp.kernels.contract import NO_WEIGHT, Data, Optimizer, refuse_plans
from fastmlp.kernels.numba_cpu.cache import Code
from fastmlp.kernels.numba_cpu.memory import address_of
from fastmlp.kernels.numba_cpu.workspace import Workspace

WORK_PER_CALL = 5e9  # floating-point operations between two looks for Ctrl-C, a fraction of a second


def check_bounds(code: Code, name: str, indices: np.ndarray, n: int) -> None:
    """Check row or class numbers below n."""
    check_array(name, indices, np.dtype(np.intp), (None,))
    if code.run("out_of_range", address_of(indices), len(indices), n):
        check_indices(name, indices, n)


def check_targets(code: Code, y: np.ndarray, by_class: bool, shape: tuple[int, int], dtype: Any) -> None:
    """Check class numbers, or targets (n, n_outputs)."""
    if by_class:
        check_array("y", y, np.dtype(np.intp), shape[:1])
        check_bounds(code, "y", y, shape[1])
    else:
        check_array("y", y, dtype, shape)


def check_data(data: Data, ws: Workspace) -> None:
    """Check the rows of a fit; nothing is copied."""
    check_samples(data.X, ws.network.widths[0])
    n = data.X.shape[0]
    if n == 0:
        raise ValueError("X must have at least one row")
    check_targets(ws.code, data.y, ws.loss.by_class, (n, ws.n_outputs), ws.dtype)
    check_weights(data.sample_weight, n, ws.dtype)


class Epoch:
    """The arguments of train_epoch, checked, and its table: most epochs have the same arrays as the one before.

    The arrays are referred to, so that none can be moved in memory (ndarray.resize refuses) or replaced by another at
    the same place.  What an epoch costs beside its steps is here: a few microseconds, which small networks notice.
    """

    def __init__(
        self, ws: Workspace, params: np.ndarray, data: Data, order: np.ndarray, batch_size: int, optimizer: Optimizer
    ) -> None:
        check_array("params", params, ws.dtype, (ws.n_params,), out=True)
        check_data(data, ws)
        check_order(order)
        size, n = batch_size_of(batch_size), len(order)
        if ws.network.needs_whole_batch and min(size, n) > ws.max_rows:
            raise ValueError(f"batch_size must be at most the workspace's {ws.max_rows}, got {batch_size}")
        self.rule = optimizer.rule
        self.row = row_of("optimizer.rule", formulas.OPTIMIZERS, self.rule)
        check_states(self.row, optimizer.states, params=params)
        self.arrays = params, *data, order, *optimizer.states
        self.given, self.size, self.sparse = batch_size, min(size, n), sparse.issparse(data.X)
        self.steps = -(-n // self.size)
        self.work = ws.work_of(self.size)
        self.block = max(1, int(WORK_PER_CALL / self.work))
        self.scalars, self.decays = np.empty((self.steps, len(self.row.scalars))), np.empty(self.steps)
        self.addresses = np.array([*map(address_of, optimizer.states), 0], np.int64)
        call, self.alive = ws.call_table(
            data.X, order, FLAT=address_of(params), FLAT_STATES=address_of(self.addresses), Y=address_of(data.y),
            SAMPLE_WEIGHT=address_of(data.sample_weight), N_ROWS=n, BATCH_SIZE=self.size, TRAINING=1,
            RULE=ws.prepare_training(self.rule), SCALARS=address_of(self.scalars), N_SCALARS=len(self.row.scalars),
            X_ROWS=data.X.shape[0], N_CLASSES=ws.n_outputs if ws.loss.by_class else 0,
        )  # fmt: skip
        names = ("DONE", "UNPACKED", "FIRST", "LAST", "PACK", "UNPACK", "SEED", "T", "DECAYS")
        self.places = [ws.code.names[name] for name in names]
        # the call's table as a memoryview: its numbers are set in a third of the time
        self.ws, self.entries, self.train = ws, call.data, ws.code.network.train
        self.tables = ws.addresses(call)

    def fits(self, params: np.ndarray, data: Data, order: np.ndarray, batch_size: int, optimizer: Optimizer) -> bool:
        """Whether these are the arguments."""
        given = params, *data, order, *optimizer.states
        return (
            len(given) == len(self.arrays)
            and all(map(operator.is_, given, self.arrays))
            and batch_size is self.given
            and optimizer.rule == self.rule
            and not self.sparse
        )

    def schedule(self, optimizer: Optimizer) -> tuple[int, float]:
        """Take scalars and decays of the coming steps; return (address of the decays or 0, largest norm or 0)."""
        refuse_plans("numba", optimizer, self.steps)
        scalars, decays, max_norm = check_schedule(optimizer, self.row, self.steps)
        self.scalars[...] = scalars
        if decays is not None:
            self.decays[...] = decays
        return 0 if decays is None else address_of(self.decays), 0.0 if max_norm is None else float(max_norm)

    def run(self, optimizer: Optimizer, alpha: float, l1: float, seed: int) -> float:
        """Do all steps, in calls short enough for Ctrl-C; return the sum of losses times rows."""
        entries, first, total, together = self.entries, 0, 0.0, self.ws.n_threads > 1
        DONE, UNPACKED, FIRST, LAST, PACK, UNPACK, SEED, T, DECAYS = self.places
        entries[DECAYS], max_norm = self.schedule(optimizer)
        entries[SEED], entries[T] = seed - 2**64 * (seed >= 2**63), optimizer.t
        entries[DONE] = entries[UNPACKED] = 0
        try:
            while first < self.steps:
                interrupts.check()
                last = min(self.steps, first + self.block)
                entries[FIRST], entries[LAST] = first, last
                entries[PACK], entries[UNPACK] = first == 0, last == self.steps
                if together:
                    total += self.ws.run(self.tables, (alpha, l1, max_norm), (last - first) * self.work)
                else:
                    total += self.train(*self.tables, 0, 0, alpha, l1, max_norm)
                if entries[DONE] < last:
                    break
                first = last
        finally:
            done = entries[DONE]
            if done > 0:
                optimizer.t += done
                if not entries[UNPACKED]:  # interrupted: keep what was done
                    entries[FIRST] = entries[LAST] = done
                    entries[PACK], entries[UNPACK] = 0, 1
                    self.train(*self.tables, 0, 0, alpha, l1, max_norm)
        if done < 0:
            self._say_what_points_outside()
        if done < self.steps:
            raise ZeroDivisionError(NO_WEIGHT)
        return total

    def _say_what_points_outside(self) -> None:
        _, X, y, _, order, *_ = self.arrays
        check_indices("order", order, X.shape[0])
        check_indices("y", y, self.ws.n_outputs)
