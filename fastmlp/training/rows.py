"""What a network makes of a few rows, again and again: its loss, its gradient and the outputs of its layers.

``loss_and_gradients`` asks once, a :class:`fastmlp.training.recorder.Recorder` after every epoch.  So what takes longer
than the answer, networks and workspaces, is made once.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from fastmlp.engines.backends import Data
from fastmlp.model.network import Network
from fastmlp.model.stages import OPTIONS, PREDICTS
from fastmlp.training.run import check_batches

#: Network up to a hidden layer, its workspace, its vector, and pairs (part of it, part of the whole network's).
_First: TypeAlias = tuple[Network, Any, np.ndarray, list[tuple[slice, slice]]]


class Rows:
    """Rows of which an engine computes loss, gradient and outputs of layers, for any weights of one network."""

    def __init__(self, estimator: Any, engine: ModuleType, network: Network, data: Data) -> None:
        self.engine, self.data, self.n_jobs = engine, data, estimator.n_jobs
        self.network = replace(
            network.draws_nothing, **{name: o.off for name, o in OPTIONS.items() if name not in PREDICTS}
        )
        self.n, self.l1 = data.X.shape[0], estimator.alpha * estimator.l1_ratio
        self.alpha = estimator.alpha - self.l1
        if self.network.needs_whole_batch:
            check_batches(estimator, self.n, one_batch=True)
        self.workspace: Any = None
        self._firsts: dict[int, _First] = {}

    def loss_and_grad(self, params: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the penalised mean loss of the rows as one batch without dropout, and its gradient (n_params,).

        A ValueError says that the weights of the rows sum to zero.
        """
        network, args = self.network, (self.data, self.alpha)
        if self.workspace is None:
            self.workspace = self.engine.workspace(network, self.n, self.n_jobs)
        try:
            if not network.needs_whole_batch:
                grad = np.zeros_like(params)
                return float(self.engine.loss_and_grad(self.workspace, params, *args, grad, self.l1)), grad
            # the statistics of a batch exist in training only: a step, whose velocity is 0 v - 1 g
            velocity, order = np.zeros_like(params), np.arange(self.n, dtype=np.intp)
            step = SimpleNamespace(rule="momentum", states=[velocity], t=0, scalars=lambda n: np.array([[1.0, 0.0]]))
            train = self.engine.train_epoch
            loss = train(self.workspace, params.copy(), self.data, order, self.n, self.alpha, step, self.l1)
        except ZeroDivisionError as error:
            raise ValueError(f"sample_weight, times class_weight if given, sums to zero over {self.n} rows") from error
        return float(loss), np.negative(velocity, out=velocity)

    def activations(self, layer: int, params: np.ndarray) -> np.ndarray:
        """Return the activation's values (n, width) in a hidden layer, those of members side by side."""
        first, workspace, vector, copies = self._firsts.get(layer) or self._first(layer, params)
        for to, where in copies:
            vector[to] = params[where]
        folded = first.folded(vector)[1] if first.folds else vector
        out = np.empty((self.n, first.widths[-1] * first.members), first.dtype)
        self.engine.predict(workspace, folded, self.data.X, out)
        return out

    def _first(self, layer: int, params: np.ndarray) -> _First:
        """Return the network up to a hidden layer, a workspace and a vector for it, and what to copy into that."""
        first = self.network.up_to(layer)
        if first.batch_norm and first.batch_norm[layer] == "after":
            first = replace(first, batch_norm=(*first.batch_norm[:layer], ""))
        workspace = self.engine.workspace(first.plain, self.n, self.n_jobs)
        vector, copies = self.network.params_up_to(first, params), list[tuple[slice, slice]]()
        for to, where in self.network.places_up_to(first):
            if copies and (copies[-1][0].stop, copies[-1][1].stop) == (to.start, where.start):
                to, where = slice(copies[-1][0].start, to.stop), slice(copies.pop()[1].start, where.stop)
            copies.append((to, where))
        self._firsts[layer] = first, workspace, vector, copies
        return self._firsts[layer]
