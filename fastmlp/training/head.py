"""The loss and the predictions of logits, by the engine in training: what is evaluated after an epoch begins here."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from fastmlp.data import targets
from fastmlp.engines.backends import Data
from fastmlp.kernels import formulas, reference
from fastmlp.model import choices
from fastmlp.model.network import Network

#: Outputs of a softmax from which NumPy is faster than a product with the identity, of (width, width).
WIDE = 256


class Head:
    """The loss and the predictions of given logits: a network of one layer whose weights are the identity.

    Except for softmax each logit is a row of it, whose loss is then a mean over the outputs.
    """

    def __init__(self, engine: ModuleType, network: Network) -> None:
        self._engine, self._name = engine, network.loss
        self._link, self._width = targets.link_of(network.loss), network.widths[-1]
        self._is_wide = self._link == "softmax" and self._width > WIDE
        if self._is_wide:
            return
        width, self._columns = (self._width, 1) if self._link == "softmax" else (1, self._width)
        self._divides = self._columns > 1  # whether a row of logits becomes several
        row = None if choices.is_formula(network.loss) else formulas.LOSSES[choices.name_of(network.loss)]
        self._outputs_summed = 1 if row and row.mean_over_outputs else self._columns
        self._network = Network((width, width), (), network.loss, network.dtype)
        self._params = np.zeros(self._network.n_params, network.dtype)
        np.fill_diagonal(self._network.coefs(self._params)[0], 1)
        self._grad = np.empty_like(self._params)

    def select(self, y: np.ndarray, weight: np.ndarray | None) -> None:
        """Take these targets and sample weights from now on."""
        self._y, self._weight, self._weightless = y, weight, weight is not None and weight.sum() == 0
        if not self._is_wide:
            self._y = y if self._link == "softmax" else y.reshape(-1, 1)
            self._weight = None if weight is None else weight.repeat(self._columns)
            # one thread: this is little work, and a second team of threads beside the training's would cost more
            self._workspace = self._engine.workspace(self._network, len(y) * self._columns, 1)

    def loss(self, logits: np.ndarray) -> float:
        """Return the mean loss of logits (n, n_outputs)."""
        if self._weightless:
            return np.nan  # a mean over nothing
        if self._is_wide:
            return reference.loss(self._name, logits, self._y, self._weight)[0]
        data = Data(logits.reshape(-1, 1) if self._divides else logits, self._y, self._weight)
        value = self._engine.loss_and_grad(self._workspace, self._params, data, 0.0, self._grad)
        return value * self._outputs_summed

    def outputs(self, logits: np.ndarray) -> np.ndarray:
        """Return the predictions (n, n_outputs) of these logits."""
        if self._link == "identity":
            return logits
        if self._is_wide:
            return reference.softmax(logits)
        outputs = np.empty(logits.shape, logits.dtype)
        rows, out = (logits.reshape(-1, 1), outputs.reshape(-1, 1)) if self._divides else (logits, outputs)
        self._engine.predict(self._workspace, self._params, rows, out)
        return outputs
