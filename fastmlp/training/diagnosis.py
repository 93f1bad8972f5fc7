"""Weights that are not finite: refused after a training; the formula that made them, if a network has users' formulas.

Built-in formulas keep finite numbers finite; a fit that still diverges gets scikit-learn's message. A user's formula
may divide by zero, so training with one is checked after each epoch. After an error the epoch is repeated batch by
batch to find the layer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastmlp.data import device_arrays
from fastmlp.data.warned import warn
from fastmlp.engines.backends import Data
from fastmlp.model import choices, weights
from fastmlp.model.network import Network


def check_finite(estimator: Any) -> None:
    """Raise a ValueError if a training left weights that are not finite; warn of a loss that is not."""
    arrays = (*estimator.coefs_, *estimator.intercepts_, *weights.further_arrays(estimator))
    if not all(np.isfinite(w).all() for w in arrays if w is not None):
        raise ValueError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be"
            " preprocessed."
        )
    loss = getattr(estimator, "loss_", 0.0)  # none, if a user interrupted the first epoch
    if not math.isfinite(loss):
        warn(
            f"the training loss is {loss}: training diverged, or the targets are too large or out of the loss's"
            " range. So it cannot tell when to stop; scale y (standardize_y, TransformedTargetRegressor) and X, or"
            f" lower learning_rate_init={estimator.learning_rate_init!r}",
            RuntimeWarning,
        )


class Guard:
    """The last finite state of a training (a :class:`fastmlp.training.run.Run`), to go back to."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._params = run.params.copy()
        self._optimizer = run.optimizer.get_state()

    def keep(self) -> None:
        """Take the present state for the last finite one."""
        self._params[...] = self._run.params
        self._optimizer = self._run.optimizer.get_state()

    def after_epoch(self, loss: float) -> None:
        """Keep the present state if it is finite.

        Otherwise a ValueError names formula, layer and epoch; the weights are then those after the epoch before.
        """
        run = self._run
        if _is_finite(loss, run.params):
            self.keep()
            return
        params, rows, t = self._repeat()
        error = report(
            run.network,
            params,
            _take(run.data, rows),
            f"epoch {run.estimator.n_iter_ + 1}",
            f"after epoch {run.estimator.n_iter_}" if run.estimator.n_iter_ else "that training began with",
            run.options.get("seed", 0),
            t,
        )
        self._go_back()
        raise error

    def _go_back(self) -> None:
        self._run.params[...] = self._params
        self._run.optimizer.set_state(self._optimizer)

    def _repeat(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return (weights, rows, steps done) before the first step of the epoch whose numbers are not finite.

        The steps come one by one, with the rows and the masks that they had.
        """
        run = self._run
        self._go_back()
        for rows in run.batches():
            before, t = run.params.copy(), run.optimizer.t
            if not _is_finite(run.steps(rows)(), run.params):
                break
        return before, rows, t


def has_own_formulas(network: Network) -> bool:
    """Return whether an activation or the loss is a user's formula."""
    return any(map(choices.is_formula, (*network.activations, network.loss)))


def report(
    network: Network, params: np.ndarray, data: Data, when: str, kept: str, seed: int = 0, t: int = 0
) -> ValueError:
    """Return the error to raise for these rows and weights, if step t + 1 gave numbers that are not finite."""
    with np.errstate(all="ignore"):
        what = _locate(network, params, data, seed, t)
    return ValueError(f"{what} gave values that are not finite in {when}; the weights are those {kept}")


def _locate(network: Network, params: np.ndarray, data: Data, seed: int, t: int) -> str:
    """Find the first step of the computation whose numbers are not finite, with the reference engine."""
    from fastmlp.kernels import reference  # only those whose formula failed pay for the import

    X = device_arrays.host_rows(data.X).astype(network.dtype)
    passes = reference._forward(network, params, X, reference._masks(network, X, seed, t))
    for i, (entry, this) in enumerate(zip(network.activations, passes, strict=False)):
        layer, name = f"hidden layer {i + 1}", choices.name_of(entry)
        if not np.isfinite(this.z).all():
            return f"the weighted sum of {layer}"
        if not np.isfinite(this.a).all():
            return f"activation {name!r} of {layer}"
        if choices.is_formula(entry) and not np.isfinite(entry.numpy_slope(this.z, this.a)).all():
            return f"the slope of activation {name!r} of {layer}"
    z, name = passes[-1].z, choices.name_of(network.loss)
    if not np.isfinite(z).all():
        return "the weighted sum of the output layer"
    y, weight = data.y, data.sample_weight
    if network.members > 1:  # each row has a row of logits per member
        y = np.repeat(y, network.members, axis=0)
        weight = None if weight is None else np.repeat(weight, network.members)
    loss, delta = reference.loss(network.loss, z, y, weight)
    if not np.isfinite(loss):
        return f"loss {name!r} at the output layer"
    if not np.isfinite(delta).all():
        return f"the slope of loss {name!r} at the output layer"
    return "the optimizer's step"


def _is_finite(loss: float, params: np.ndarray) -> bool:
    return bool(np.isfinite(loss)) and bool(np.isfinite(params).all())


def _take(data: Data, rows: np.ndarray) -> Data:
    weight = None if data.sample_weight is None else data.sample_weight[rows]
    return Data(device_arrays.host_rows(data.X, rows), data.y[rows], weight)
