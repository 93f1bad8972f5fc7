"""An engine in front of an engine: the calls of the contract, which several ranks compute together.

::

    training --global order of rows--> SharedEngine --this rank's rows of each batch--> engine --sums--> communicator

Training, stopping, validation and L-BFGS do not know that X is spread: they give this engine a
:class:`fastmlp.data.shared_rows.SharedRows` and orders of rows of the whole table. Each rank makes the same calls.
Calls on arrays that every rank has, as the loss of given logits, go to the engine as they are.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fastmlp.data.shared_rows import SharedRows
from fastmlp.distributed.communicator import Communicator
from fastmlp.engines.backends import Data
from fastmlp.kernels.contract import Optimizer, Shared, each_epoch
from fastmlp.model.network import Network


def shares(X: SharedRows, order: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return this rank's rows of each batch: their local numbers, where each batch begins, and places in the batch.

    Parameters
    ----------
    X : SharedRows
    order : ndarray of intp of shape (m,)
        Rows of the whole table; consecutive runs of `batch_size` form the batches.
    batch_size : int

    Returns
    -------
    rows, starts, places : ndarray of intp
        As :class:`fastmlp.kernels.contract.Shared` describes them.
    """
    at, rows = X.share(order)
    n_steps = -(-len(order) // batch_size)
    starts = np.searchsorted(at, np.arange(n_steps + 1, dtype=np.intp) * batch_size).astype(np.intp, copy=False)
    return rows, starts, at % batch_size


class SharedEngine:
    """The functions of :class:`fastmlp.kernels.contract.Engine`, computed by several ranks.

    Parameters
    ----------
    engine : module
        Which computes on this rank.
    communicator : Communicator
    """

    def __init__(self, engine: ModuleType, communicator: Communicator) -> None:
        self.inner, self.communicator = engine, communicator
        self.__name__ = engine.__name__  # by which the table of engines knows it
        self._latest: tuple[Any, Any] = None, None  # rows of a fit, and what this rank has of them

    def workspace(self, network: Network, batch_size: int, n_jobs: int | None = None) -> Any:
        """Allocate what the other calls need: a rank may have all rows of a batch."""
        return self.inner.workspace(network, batch_size, n_jobs)

    def predict(
        self, workspace: Any, params: np.ndarray, X: Any, out: np.ndarray, rows: np.ndarray | None = None
    ) -> bool:
        """Predict rows of the table: each rank its own, and `out` has all of them."""
        if not isinstance(X, SharedRows):
            return self.inner.predict(workspace, params, X, out, rows)
        rows = np.arange(X.shape[0], dtype=np.intp) if rows is None else rows
        local = X.share(rows)[1]
        here = np.empty((len(local), out.shape[1]), out.dtype)
        finite = not len(local) or self.inner.predict(workspace, params, X.local, here, local)
        X.collected(rows, here, out)
        return all(self.communicator.allgather(finite, "whether rows are finite"))

    def loss_and_grad(
        self,
        workspace: Any,
        params: np.ndarray,
        data: Data,
        alpha: float,
        grad: np.ndarray,
        l1: float = 0.0,
        shared: Shared | None = None,
    ) -> float:
        """Compute loss and gradient over the rows of all ranks: one sum over ranks."""
        if isinstance(data.X, SharedRows):
            data, shared = self._local(data), self._shared()
        return self.inner.loss_and_grad(workspace, params, data, alpha, grad, l1, shared)

    def train_epoch(
        self,
        workspace: Any,
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
        """Train for epochs over rows of the table: one sum over ranks per step."""
        if isinstance(data.X, SharedRows):
            if losses is not None:
                rest = batch_size, alpha, optimizer, l1, seed
                return each_epoch(lambda rows: self.train_epoch(workspace, params, data, rows, *rest), order, losses)
            n_rows, (order, starts, places) = len(order), shares(data.X, order, batch_size)
            data, shared = self._local(data), self._shared(n_rows, starts, places)
        args = workspace, params, data, order, batch_size, alpha, optimizer, l1, seed, losses, shared
        return self.inner.train_epoch(*args)

    def shuffle(self, order: np.ndarray, random_state: np.random.RandomState) -> None:
        """Shuffle the rows of the table: each rank the same draws."""
        self.inner.shuffle(order, random_state)

    def _shared(self, *shares: Any) -> Shared:
        return Shared(self.communicator.allreduce, *shares)._replace(memory=self.communicator.vector)

    def _local(self, data: Data) -> Data:
        """Return what this rank has of the rows of a fit, which are the same object from epoch to epoch."""
        if self._latest[0] is not data:
            X, y, weight = data
            local = Data(X.local, y[X.own], None if weight is None else weight[X.own])
            self._latest = data, local
        return self._latest[1]
