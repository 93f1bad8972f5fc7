"""The CUDA engine: the same contract on an NVIDIA GPU, compiled by Numba for the device that is found.

Where it sits: a backend like any other, ``fastmlp.engines.backends.get("cuda")``, which is taken only where it is
named.  Here are the functions of the contract: they check arguments and lead to the files beside (``__init__.py`` lists
them). Importing this module fails where there is no device; Numba is imported when the first of these functions is
called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from fastmlp.kernels import formulas
from fastmlp.kernels.arguments import (
    batch_size_of,
    check_array,
    check_indices,
    check_loss_and_grad,
    check_order,
    check_orders,
    check_predict,
    check_schedule,
    check_shuffle,
    check_states,
    check_workspace,
    row_of,
    seed_of,
)
from fastmlp.kernels.contract import (
    NO_WEIGHT,
    Data,
    Epochs,
    Optimizer,
    Shared,
    busy,
    each_epoch,
    held_back,
    refuse_drawn_slopes,
    refuse_plans,
    refuse_shared,
    shuffle_each,
)
from fastmlp.kernels.numba_cuda import driver, many
from fastmlp.kernels.numba_cuda.memory import check_samples, device_view, on_device
from fastmlp.kernels.numba_cuda.prediction import Blocks, prediction_of
from fastmlp.kernels.numba_cuda.prediction import all_finite as all_finite
from fastmlp.kernels.numba_cuda.training import Training, inverse, mask_keys, sums_of_weights, training_of
from fastmlp.kernels.numba_cuda.workspace import Workspace

driver.check()


def _workspace(workspace: Any) -> Workspace:
    check_workspace(workspace, Workspace)
    workspace.check_device()
    return workspace


def workspace(network: Any, batch_size: int, n_jobs: int | None = None) -> Workspace:
    """Return what the other calls need besides their arguments; memory is allocated when it is first used.

    Parameters
    ----------
    network : fastmlp.model.network.Network
    batch_size : int
        Rows that one training step reads.
    n_jobs : int, default=None
        Accepted and ignored.

    Returns
    -------
    Workspace
        On the GPU that this thread works on.

    Raises
    ------
    MemoryError
        If the parameters alone do not fit the device's free memory.
    """
    return Workspace(network, batch_size)


# --- training ---------------------------------------------------------------------------------------------------------


def loss_and_grad(
    workspace: Workspace,
    params: np.ndarray,
    data: Data,
    alpha: float,
    grad: np.ndarray,
    l1: float = 0.0,
    shared: Shared | None = None,
) -> float:
    """Return the penalised mean loss over the whole data, and write its gradient.

    See :meth:`fastmlp.kernels.contract.Engine.loss_and_grad` for the arguments and what is raised.
    """
    ws = _workspace(workspace)
    refuse_shared("cuda", shared)
    check_array("params", params, ws.dtype, (ws.n_params,))
    check_loss_and_grad(ws.network, params, grad, drops=any(ws.thresholds))
    with busy(ws):
        rows = ws.data(data)
        order, n, alpha, l1 = np.arange(rows.n), rows.n, float(alpha), float(l1)
        _, sums = sums_of_weights(rows, order, n)
        if sums[0] == 0:
            raise ZeroDivisionError(NO_WEIGHT)
        training = training_of(ws, rows, n, n)
        training.begin(order, ws.states(), alpha, l1)
        ws.upload(params)
        scalars = np.array([[1.0 / sums[0], 1.0]])
        value, squares, magnitudes = training.run(scalars, lambda first, last: np.zeros((1, ws.n_layers, 2)))[:, 0]
        ws.grad.copy_to_host(grad)
    return float((value + 0.5 * alpha * squares + l1 * magnitudes) / sums[0])


def train_epoch(
    workspace: Workspace,
    params: np.ndarray,
    data: Data,
    order: np.ndarray,
    batch_size: int,
    alpha: float,
    optimizer: Optimizer,
    l1: float = 0.0,
    seed: int = 0,
    losses: np.ndarray | None = None,
    shared: Shared | None = None,
) -> float:
    """Make passes of mini-batch steps over the rows in `order`; params and optimizer.states are updated in place.

    See :meth:`fastmlp.kernels.contract.Engine.train_epoch` for the arguments and what is raised.  Ctrl-C is seen
    between launches, each a fraction of a second long; the steps done are kept.
    """
    refuse_shared("cuda", shared)
    if losses is not None:
        check_orders(order, losses, data.X.shape[0])
        rest = batch_size, alpha, optimizer
        with held_back(_workspace(workspace)):
            return each_epoch(
                lambda rows: train_epoch(workspace, params, data, rows, *rest, l1=l1, seed=seed), order, losses
            )
    ws = _workspace(workspace)
    refuse_drawn_slopes("cuda", ws.network)
    check_array("params", params, ws.dtype, (ws.n_params,), out=True)
    with busy(ws):
        rows = ws.data(data)
        check_order(order)
        check_indices("order", order, rows.n)
        batch_size, seed = min(batch_size_of(batch_size), len(order)), seed_of(seed)
        row = row_of("optimizer.rule", formulas.OPTIMIZERS, optimizer.rule)
        check_states(row, optimizer.states, params=params)
        counts, sums = sums_of_weights(rows, order, batch_size)
        refuse_plans("cuda", optimizer, len(counts))
        given, decays, norm = check_schedule(optimizer, row, len(counts))
        max_norm = 0.0 if norm is None else float(norm)
        training = training_of(ws, rows, len(order), batch_size, optimizer.rule, clipped=max_norm > 0)
        training.begin(order, ws.states(optimizer), alpha, l1, max_norm)
        ws.upload(params)
        own = training.code.rule_scalars(*given.T)
        scalars = np.empty((len(counts), training.code.N_SCALARS))
        scalars[:, 0], scalars[:, 1] = inverse(sums), 1.0 if decays is None else 1.0 - decays
        for k, column in enumerate(own):
            scalars[:, 2 + k] = column
        return _steps(training, params, optimizer, (counts, sums), scalars, (float(alpha), float(l1)), seed)


def _steps(
    training: Training,
    params: np.ndarray,
    optimizer: Any,
    batches: tuple[np.ndarray, np.ndarray],
    scalars: np.ndarray,
    strengths: tuple[float, float],
    seed: int,
) -> float:
    """Do all steps of an epoch, up to a batch without weight -> the epoch's loss."""
    (counts, sums), (alpha, l1), t = batches, strengths, optimizer.t
    empty = np.flatnonzero(sums == 0)
    end = int(empty[0]) if len(empty) else len(counts)
    n_layers = training.ws.n_layers
    try:
        value, squares, magnitudes = training.run(
            scalars[:end], lambda first, last: mask_keys(n_layers, seed, t + first, last - first)
        )
    finally:
        training.finish(params, optimizer)
    if end < len(counts):
        raise ZeroDivisionError(NO_WEIGHT)
    penalised = (value + 0.5 * alpha * squares + l1 * magnitudes) / sums
    return float(penalised @ counts) / training.n


def train_many(calls: Sequence[Epochs]) -> list[float | Exception]:
    """Train many nets, each as by :func:`train_epoch`: those that are small enough at the same time, a block each.

    See :meth:`fastmlp.kernels.contract.TrainsMany.train_many` for the arguments and what is raised.
    """
    for call in calls:
        _workspace(call.workspace)
    return many.train(calls, lambda call: train_epoch(*call))


def shuffle(order: np.ndarray, random_state: np.random.RandomState) -> None:
    """Call ``random_state.shuffle(order)``."""
    check_shuffle(order, random_state)
    shuffle_each(order, random_state)


# --- prediction -------------------------------------------------------------------------------------------------------


def predict(workspace: Workspace, params: np.ndarray, X: Any, out: Any, rows: np.ndarray | None = None) -> bool:
    """Write out = link(logits) for all rows of X, or for ``X[rows]``; return whether these rows were finite.

    X and out may be on the device: C-contiguous arrays of the network's dtype with ``__cuda_array_interface__``.
    See :meth:`fastmlp.kernels.contract.Engine.predict` for the arguments and what is raised.
    """
    ws = _workspace(workspace)
    check_predict(ws.network)
    check_array("params", params, ws.dtype, (ws.n_params,))
    check_samples(X, ws.network.widths[0], ws.dtype)
    if rows is not None:
        check_indices("rows", rows, X.shape[0])
    n = X.shape[0] if rows is None else len(rows)
    to = device_view("out", out, ws.dtype, (n, ws.n_outputs), out=True) if on_device(out) else None
    if to is None:
        check_array("out", out, ws.dtype, (n, ws.n_outputs), out=True)
    if n == 0:
        return True
    with busy(ws):
        ws.upload(params)
        prediction, block = prediction_of(ws, n, (sparse.issparse(X), not on_device(X), to is None))
        return Blocks(ws, prediction, X, rows).run(n, block, out, to)
