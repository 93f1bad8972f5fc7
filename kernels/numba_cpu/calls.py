"""The calls of the contract; see contract.py for their arguments and what is raised."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastmlp.kernels import interrupts
from fastmlp.kernels.arguments import (
    check_array,
    check_loss_and_grad,
    check_orders,
    check_predict,
    check_samples,
    check_shuffle,
    check_workspace,
    seed_of,
)
from fastmlp.kernels.contract import (
    BUSY,
    NO_WEIGHT,
    Data,
    Optimizer,
    Shared,
    busy,
    each_epoch,
    refuse_shared,
    shuffle_each,
)
from fastmlp.kernels.numba_cpu import epoch as epochs
from fastmlp.kernels.numba_cpu.memory import address_of
from fastmlp.kernels.numba_cpu.workspace import Workspace


def workspace(network: Any, batch_size: int, n_jobs: int | None = None) -> Workspace:
    """Allocate the buffers that training and prediction of a network need; prediction takes one thread."""
    return Workspace(network, batch_size, n_jobs)


def predict(workspace: Workspace, params: np.ndarray, X: Any, out: np.ndarray, rows: np.ndarray | None = None) -> bool:
    """Predict: out = link(logits) for all rows of X, or for ``X[rows]``; return whether these rows were finite."""
    check_workspace(workspace, Workspace)
    ws = workspace
    check_predict(ws.network)
    check_array("params", params, ws.dtype, (ws.n_params,))
    check_samples(X, ws.network.widths[0])
    if rows is not None:
        epochs.check_bounds(ws.code, "rows", rows, X.shape[0])
    n = X.shape[0] if rows is None else len(rows)
    check_array("out", out, ws.dtype, (n, ws.n_outputs), out=True)
    finite, block = True, max(1, int(3 * epochs.WORK_PER_CALL / ws.work_of(1)))
    with busy(ws):
        ws.prepare_prediction()
        call, alive = ws.call_table(X, rows, FLAT=address_of(params), OUTPUT=address_of(out), PACK=1)
        c = ws.code.names
        for first in range(0, n, block):
            call[c["FIRST"]], call[c["LAST"]] = first, min(n, first + block)
            finite &= bool(ws.code.run("predict", *ws.addresses(call)))
            call[c["PACK"]] = 0
    del alive
    return finite


def loss_and_grad(
    workspace: Workspace, params: np.ndarray, data: Data, alpha: float, grad: np.ndarray, l1: float = 0.0,
    shared: Shared | None = None,
) -> float:  # fmt: skip
    """Compute the penalised mean loss over the whole data and its gradient."""
    check_workspace(workspace, Workspace)
    refuse_shared("numba", shared)
    ws = workspace
    check_array("params", params, ws.dtype, (ws.n_params,))
    check_loss_and_grad(ws.network, params, grad, drops=ws.has_dropout)
    epochs.check_data(data, ws)
    n = data.X.shape[0]
    interrupts.check()
    with busy(ws):
        ws.prepare_training()
        ws.net[ws.code.names["N_STATES"]], ws.epoch = 0, None
        call, alive = ws.call_table(
            data.X, FLAT=address_of(params), OUTPUT=address_of(grad), Y=address_of(data.y),
            SAMPLE_WEIGHT=address_of(data.sample_weight), N_ROWS=n, BATCH_SIZE=n, LAST=1, PACK=1, UNPACK=1, TRAINING=1,
        )  # fmt: skip
        total = ws.run(ws.addresses(call), (float(alpha), float(l1), 0.0), ws.work_of(n))
        done = call[ws.code.names["DONE"]]
    del alive
    if done < 1:
        raise ZeroDivisionError(NO_WEIGHT)
    return total / n


def train_epoch(
    workspace: Workspace, params: np.ndarray, data: Data, order: np.ndarray, batch_size: int, alpha: float,
    optimizer: Optimizer, l1: float = 0.0, seed: int = 0, losses: np.ndarray | None = None,
    shared: Shared | None = None,
) -> float:  # fmt: skip
    """Train for epochs of mini-batch steps over the rows in `order`; params and states are updated in place."""
    check_workspace(workspace, Workspace)
    refuse_shared("numba", shared)
    if losses is not None:
        check_orders(order, losses, data.X.shape[0])
        rest = batch_size, alpha, optimizer
        return each_epoch(
            lambda rows: train_epoch(workspace, params, data, rows, *rest, l1=l1, seed=seed), order, losses
        )
    ws = workspace
    if not ws.lock.acquire(blocking=False):  # as busy(ws), in a third of the time: small networks notice
        raise RuntimeError(BUSY)
    try:
        epoch = ws.epoch
        if epoch is None or not epoch.fits(params, data, order, batch_size, optimizer):
            epoch = ws.epoch = epochs.Epoch(ws, params, data, order, batch_size, optimizer)
        return epoch.run(optimizer, float(alpha), float(l1), seed_of(seed)) / len(order)
    finally:
        ws.lock.release()


def shuffle(order: np.ndarray, random_state: np.random.RandomState) -> None:
    """Shuffle row indices as ``random_state.shuffle(order)`` does."""
    check_shuffle(order, random_state)
    shuffle_each(order, random_state)
