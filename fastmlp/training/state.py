"""The state of a training: what the next epoch depends on, besides the weights and the public attributes.

An estimator keeps one :class:`TrainingState`, in ``_training``; ``partial_fit`` and warm starts go on with it.
Snapshots, model files and conversions read it by ``get_state`` and restore it by ``set_state``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from fastmlp.model import choices
from fastmlp.model.initialization import random_state_of
from fastmlp.model.network import Network
from fastmlp.training import attributes, optimizers
from fastmlp.training.history import new_history
from fastmlp.training.optimizers import Optimizer
from fastmlp.training.standardized import Scale, Standardized
from fastmlp.training.stopping import Stopping


@dataclass(eq=False)
class TrainingState:
    """What a training goes on with."""

    random_state: np.random.RandomState | None = None  # of the fit that began last
    optimizer: Optimizer | None = None  # None before the first epoch, and with L-BFGS
    dropout_seed: int | None = None  # key of dropout masks and random slopes, in [0, 2^64); None without either
    #: The best weights (n_params,) on the validation rows; None: the present ones, wherever training leads them.
    best_params: np.ndarray | None = None
    stopping: Stopping = field(default_factory=Stopping)
    #: Units and weights of the latest training with `standardize_y`; what users see is in the units of y.
    standardized: Standardized | None = None
    #: Names of the last layer's segments that are not in the units of y, because they were just drawn.
    drawn: tuple[str, ...] = ()
    interrupted: bool = False  # whether Ctrl-C has ended the latest epochs
    untrained: bool = False  # whether the weights are the first ones: the random state that drew them goes on

    def copied(self) -> TrainingState:
        """Return a copy whose counters are its own; the arrays are shared."""
        return replace(self, stopping=copy.copy(self.stopping))

    def optimizer_for(self, network: Network) -> Optimizer | None:
        """Return the optimizer; None if there is none, or one of other weights, which were replaced since."""
        ours = self.optimizer
        if ours is None or any(vector.shape != (network.n_params,) for vector in ours.states):
            return None
        return ours

    def best_for(self, network: Network) -> np.ndarray | None:
        """Return the best weights; None if they are the present ones, or of a network of another size."""
        best = self.best_params
        return None if best is None or best.shape != (network.n_params,) else best

    # --- in files ----------------------------------------------------------------------------------------------------

    def get_state(self, network: Network, *, rebuildable: bool = False) -> dict[str, Any]:
        """Return everything as copies of arrays and plain numbers; what belongs to another network is None.

        `rebuildable` also keeps the arguments of the optimizer, for a reader that has no training to resume. The
        learning rate must not be a function then, which is a TypeError.
        """
        optimizer, best = self.optimizer_for(network), self.best_for(network)
        kept = None
        if optimizer is not None:
            kept = optimizers.describe(optimizer) if rebuildable else optimizer.get_state()
        found = {
            "optimizer": kept,
            "dropout_seed": self.dropout_seed,
            "best_params": None if best is None else best.copy(),
            "random_state": None if self.random_state is None else self.random_state.get_state(legacy=False),
            "stopping": self.stopping.get_state(),
        }
        units = self.standardized
        if rebuildable and units is not None and units.params.shape == (network.n_params,):
            found["standardized"] = {**units.scale._asdict(), "params": units.params}
        return found

    def set_state(self, state: Mapping[str, Any], network: Network) -> None:
        """Take what `state` holds, bit for bit; what it leaves out stays as it is.

        A KeyError names what is unknown; a ValueError refuses what is of another network or optimizer, or nonsense.
        """
        for name, value in state.items():
            match name:
                case "optimizer":
                    if self.optimizer is None:
                        self.optimizer = optimizers.rebuild(value, network)
                    else:
                        self.optimizer.set_state(value)
                case "dropout_seed":
                    if value is not None and (type(value) is not int or not 0 <= value < 2**64):
                        raise ValueError(f"must be a whole number of 64 bits, got {value!r:.100}")
                    self.dropout_seed = value
                case "best_params":
                    self.best_params = None if value is None else attributes.vector(value, network).copy()
                case "random_state":
                    if self.random_state is None or self.random_state is check_random_state(None):
                        self.random_state = np.random.RandomState()  # the one of a fit without a seed is everybody's
                    self.random_state.set_state(attributes.random_state(value))
                case "standardized":
                    scale = attributes.scale(value["mean"], value["std"], network)
                    self.standardized = Standardized(Scale(*scale), attributes.vector(value["params"], network).copy())
                case "stopping":
                    self.stopping.set_state(value)
                case _:
                    raise KeyError(name)


def of(estimator: Any) -> TrainingState:
    """Return the state of an estimator's training; a new one if it has none, as with weights that a user assigned."""
    return estimator.__dict__.setdefault("_training", TrainingState())


def random_state(estimator: Any, anew: bool) -> np.random.RandomState:
    """Return the random state of a fit; the one that drew the first weights, if nothing was trained since then."""
    training = estimator.__dict__.get("_training")
    if anew or training is None or not training.untrained:
        return random_state_of(estimator.random_state)
    training.untrained = False
    found: np.random.RandomState = training.random_state
    return found


def begin(estimator: Any, random_state: np.random.RandomState, params: np.ndarray) -> None:
    """Give an estimator the state and the public attributes of a training that begins with these weights."""
    state = estimator._training = TrainingState(random_state, drawn=("W", "b"))
    estimator.n_iter_ = estimator.t_ = 0
    for name in ("validation_loss_curve_", "history_", "evals_result_", "stopped_by_"):
        estimator.__dict__.pop(name, None)
    if estimator.early_stopping:
        state.best_params = params.copy()
    if choices.name_of(estimator.solver) != "lbfgs":
        estimator.loss_curve_ = []
        estimator.history_ = new_history()
        estimator.validation_scores_ = [] if estimator.early_stopping else None
        state.stopping.reset(estimator)
