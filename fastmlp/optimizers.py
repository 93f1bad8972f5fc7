"""Stochastic optimizers as the host sees them: hyper-parameters, state vectors, and the scalars of each step.

The rules themselves are formulas (kernels/formulas.py, OPTIMIZERS); an engine asks an optimizer for its ``rule``, its
``states`` and the table of ``scalars`` for the steps to come, and counts the steps in ``t``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastmlp.kernels import formulas
from fastmlp.network import Network
from fastmlp.schedules import SCHEDULES, Constant


class Optimizer:
    """State of one stochastic solver.

    Attributes
    ----------
    rule : str
        Key of ``formulas.OPTIMIZERS``.
    states : list of ndarray of shape (n_params,)
        Laid out like the parameters.
    t : int
        Steps done; engines add to it.
    schedule : Constant
        What happens to the learning rate after an epoch and on a plateau.
    """

    def __init__(self, rule: str, network: Network, schedule: Constant) -> None:
        self.rule = rule
        self.schedule = schedule
        self.t = 0
        self.states = [np.zeros(network.n_params, dtype=network.dtype) for _ in formulas.OPTIMIZERS[rule].states]

    @property
    def learning_rate(self) -> float:
        """Learning rate of the latest step."""
        raise NotImplementedError

    def scalars(self, n_steps: int) -> np.ndarray:
        """Scalars of steps t + 1 .. t + n_steps, float64 (n_steps, n_scalars), in the rule's order."""
        raise NotImplementedError

    def after_epoch(self, n_samples_seen: int) -> None:
        """Hook of the schedule."""

    def on_plateau(self) -> tuple[bool, str]:
        """(stop training, what to tell the user)."""
        return True, self.schedule.on_plateau(self.learning_rate)[1]


class SGD(Optimizer):
    """Stochastic gradient descent with (Nesterov) momentum and a schedule."""

    def __init__(self, network: Network, schedule: Constant, momentum: float, nesterov: bool) -> None:
        super().__init__("sgd" if momentum == 0 else "nesterov" if nesterov else "momentum", network, schedule)
        self._learning_rate = float(schedule.learning_rate_init)
        self.momentum = momentum

    @property
    def learning_rate(self) -> float:
        return self._learning_rate

    def scalars(self, n_steps: int) -> np.ndarray:
        row = {"lr": self._learning_rate, "momentum": self.momentum}
        names = formulas.OPTIMIZERS[self.rule].scalars
        table = np.empty((n_steps, len(names)))
        for k, name in enumerate(names):
            table[:, k] = row[name]
        return table

    def after_epoch(self, n_samples_seen: int) -> None:
        self._learning_rate = self.schedule.after_epoch(self._learning_rate, n_samples_seen)

    def on_plateau(self) -> tuple[bool, str]:
        learning_rate, text = self.schedule.on_plateau(self._learning_rate)
        if learning_rate is None:
            return True, text
        self._learning_rate = learning_rate
        return False, text


class Adam(Optimizer):
    """Adam (Kingma and Ba 2014); the bias corrections are folded into the learning rate of each step."""

    # scalars are tabulated for at least so many steps ahead: short epochs then cost a slice each
    BLOCK = 1024

    def __init__(self, network: Network, schedule: Constant, beta_1: float, beta_2: float, epsilon: float) -> None:
        super().__init__("adam", network, schedule)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self._table = np.empty((0, 4))
        self._table_start = 0  # steps done before the table's first row

    def _corrected(self, t: np.ndarray | float) -> Any:
        return self.schedule.learning_rate_init * np.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)

    @property
    def learning_rate(self) -> float:
        return float(self._corrected(float(self.t)) if self.t else self.schedule.learning_rate_init)

    def scalars(self, n_steps: int) -> np.ndarray:
        first = self.t - self._table_start
        if not 0 <= first <= len(self._table) - n_steps:
            n = max(n_steps, self.BLOCK)
            steps = np.arange(self.t + 1, self.t + n + 1, dtype=np.float64)
            self._table = np.empty((n, 4))
            self._table[:, 0] = self._corrected(steps)
            self._table[:, 1:] = self.beta_1, self.beta_2, self.epsilon
            self._table_start, first = self.t, 0
        return self._table[first : first + n_steps]


def make_optimizer(solver: str, network: Network, params: dict[str, Any]) -> Optimizer:
    """The optimizer of a stochastic solver from an estimator's parameters."""
    if solver == "sgd":
        schedule = SCHEDULES[params["learning_rate"]](params["learning_rate_init"], params["power_t"])
        return SGD(network, schedule, params["momentum"], params["nesterovs_momentum"])
    schedule = Constant(params["learning_rate_init"])
    return Adam(network, schedule, params["beta_1"], params["beta_2"], params["epsilon"])
