"""Regression targets in units of their standard deviation, and weights in the units of y (`standardize_y`).

Training sees (y - mean) / std and has a vector of weights of its own, :class:`Standardized`. Users see the same network
in the units of y: its last layer has W std and b std + mean. So predictions, files, exports and conversions need not
know about it. The user's arrays are written after each epoch, before scorers and callbacks look at them.

What is counted or compared is in the units of training: losses, `tol`, parameters of the loss. Scores are the user's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastmlp.data.warned import warn
from fastmlp.engines.backends import Data
from fastmlp.kernels import reference
from fastmlp.model import choices
from fastmlp.model.network import Network
from fastmlp.model.segments import Segment


class Scale(NamedTuple):
    """Mean and standard deviation of each output's targets, float64 (n_outputs,)."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, data: Data, rows: np.ndarray | None = None) -> Scale:
        """Return those of some rows, or of all; a row of weight 0 does not count, one of weight 2 counts twice."""
        rows = slice(None) if rows is None else np.sort(rows)  # type: ignore[assignment]  # in one order, wherever a training was interrupted
        y = data.y[rows].astype(np.float64, copy=False)
        weight = None if data.sample_weight is None else np.maximum(data.sample_weight[rows], 0.0)
        weight = weight if weight is None or weight.any() else None
        mean = np.average(y, axis=0, weights=weight)
        return cls(mean, np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight)) + 1e-30)

    def targets(self, y: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return targets (n, n_outputs) as training sees them."""
        return ((y - self.mean) / self.std).astype(dtype, copy=False)

    def outputs(self, outputs: np.ndarray) -> np.ndarray:
        """Return outputs (n, n_outputs) of a network in training in the units of y."""
        return (outputs * self.std + self.mean).astype(outputs.dtype, copy=False)

    def fold(self, network: Network, params: np.ndarray) -> None:
        """Bring the last layer of a vector (n_params,) from the units of training into those of y, in place."""
        for segment in _last_layer(network):
            values = params[segment.where].reshape(-1, segment.width)
            values[...] = values * self.std + (self.mean if segment.name == "b" else 0.0)

    def unfold(self, segment: Segment, params: np.ndarray) -> None:
        """Bring a segment of the last layer from the units of y into those of training, in place."""
        values = params[segment.where].reshape(-1, segment.width)
        values[...] = (values - (self.mean if segment.name == "b" else 0.0)) / self.std

    def equals(self, other: Scale) -> bool:
        """Return whether another scale is the same, bit for bit."""
        return all(map(np.array_equal, self, other))


def _last_layer(network: Network) -> Iterator[Segment]:
    return (
        segment for segment in network.segments if segment.name in ("W", "b") and segment.layer == network.n_layers - 1
    )


@dataclass(eq=False)
class Standardized:
    """The units of a training, and its weights (n_params,) in these units."""

    scale: Scale
    params: np.ndarray

    def data(self, data: Data) -> Data:
        """Return rows with their targets as training sees them."""
        return data._replace(y=self.scale.targets(data.y, self.params.dtype))

    def show(self, network: Network, shown: np.ndarray) -> None:
        """Write the weights in the units of y into the vector that users see."""
        shown[...] = self.params
        self.scale.fold(network, shown)

    def taken(self, network: Network, shown: np.ndarray) -> np.ndarray:
        """Return the weights that users see, and may have changed, in the units of training."""
        return _taken(network, shown, self.scale, self)


def _taken(
    network: Network, shown: np.ndarray, scale: Scale, before: Standardized | None, drawn: Collection[str] = ()
) -> np.ndarray:
    """Return the weights that users see in the units of a scale.

    What is as the training before has left it, in the same units, keeps its bits. `drawn` are names of segments of the
    last layer that are in the units of training already.
    """
    own, left = shown.copy(), None
    if before is not None and scale.equals(before.scale):
        left = np.empty_like(shown)
        before.show(network, left)
    for segment in _last_layer(network):
        if segment.name in drawn:
            continue
        if left is not None and np.array_equal(shown[segment.where], left[segment.where]):
            own[segment.where] = before.params[segment.where]  # type: ignore[union-attr]
        else:
            scale.unfold(segment, own)
    return own


def begin(
    estimator: Any, network: Network, shown: np.ndarray, data: Data, rows: np.ndarray | None = None, keep: bool = False
) -> Standardized | None:
    """Return the units and weights of a training on these rows that begins; None without `standardize_y`.

    `shown` is the vector of the estimator's arrays. With `keep` the units are those of the training before, if there
    was one (partial_fit).
    """
    state = estimator._training
    before, drawn = state.standardized, state.drawn
    state.standardized, state.drawn = None, ()
    if not estimator._standardizes():
        return None
    if before is not None and (before.params.shape, before.params.dtype) != (shown.shape, shown.dtype):
        before = None
    scale = before.scale if keep and before is not None else Scale.of(data, rows)
    state.standardized = Standardized(scale, _taken(network, shown, scale, before, drawn))
    best = state.best_for(network)
    if best is not None:
        state.best_params = _taken(network, best, scale, None, drawn)
    return state.standardized


def end(estimator: Any, network: Network, units: Standardized, shown: np.ndarray) -> None:
    """Let users see the weights that a training ends with."""
    units.show(network, shown)
    best = estimator._training.best_for(network)
    if best is not None:
        units.scale.fold(network, best)


# --- targets that should have been standardised -----------------------------------------------------------------------

#: Losses of regressors without a range of targets -> the quantile that is the best constant; None for the mean.
BEST_CONSTANT = {"squared_error": None, "absolute_error": 0.5, "huber": 0.5, "log_cosh": 0.5, "quantile": 0.5}


def warn_of_large_targets(estimator: Any, network: Network, data: Data) -> None:
    """Warn if a training on large targets ended no better than a constant."""
    name, loss = choices.name_of(network.loss), getattr(estimator, "loss_", np.nan)
    # most fits end here, for the price of two comparisons
    if not 10 < loss < np.inf or name not in BEST_CONSTANT or estimator._standardizes():
        return
    y = data.y.astype(np.float64, copy=False)
    size = float(np.sqrt(np.mean(np.square(y))))
    if not size > 100:
        return
    quantile = choices.given_parameters(network.loss).get("quantile", BEST_CONSTANT[name])
    constant = y.mean(axis=0) if quantile is None else np.quantile(y, quantile, axis=0)
    constant_loss = reference.loss(network.loss, np.broadcast_to(constant, y.shape), y, data.sample_weight)[0]
    if loss >= 0.99 * constant_loss:
        warn(
            f"training on targets of about {size:g} ended with a loss of {loss:g}, where a constant has"
            f" {constant_loss:g} (R2 of 0): the targets are too large. Train with standardize_y=True, or wrap the"
            " regressor in scikit-learn's TransformedTargetRegressor",
            ConvergenceWarning,
        )
