"""An engine of fastmlp by its contract, without the estimators around it: epochs over the same arrays, from ready-made
orders, as the rivals on a device have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp import MLPClassifier
from fastmlp.bench.rivals import engine_of
from fastmlp.bench.timing import timed
from fastmlp.bench.workloads import ALPHA, BETA_1, BETA_2, EPSILON, Task
from fastmlp.engines import backends
from fastmlp.kernels.contract import held_back
from fastmlp.training.optimizers import make_optimizer

COUNTERS = ("launches", "device_seconds")  # what a workspace may count from its beginning on


class Trainer:
    """`train_epoch` gives a number, so it has waited for the device: the clock on the wall will do."""

    seconds: float  # of the last fit
    counted: Mapping[str, Any] = {}  # kernels that it launched and seconds that the device worked on them

    def __init__(self, task: Task, name: str, device: str = "cuda") -> None:
        self.task = task
        self.engine = backends.get(engine_of(name) or task.backend)
        self.workspace = self.engine.workspace(task.network, task.workload.batch_size, task.threads)
        # classes are intp, and the same array in every epoch, so that an engine may know it again
        self.data = backends.Data(task.X, task.y.astype(np.intp))
        self.orders: list[np.ndarray] = []

    def prepare(self, epochs: int) -> None:
        self.orders = [np.ascontiguousarray(order, dtype=np.intp) for order in self.task.orders(epochs)]

    def fit(self, epochs: int) -> list[float]:
        workload = self.task.workload
        choice = MLPClassifier(
            learning_rate_init=workload.learning_rate, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON, max_iter=epochs
        )
        optimizer = make_optimizer(workload.solver, self.task.network, choice.get_params())
        self.trained = self.task.params.copy()
        steps = self.workspace, self.trained, self.data

        def train() -> list[float]:
            with held_back(self.workspace):
                return [
                    float(self.engine.train_epoch(*steps, order, workload.batch_size, ALPHA, optimizer))
                    for order in self.orders[:epochs]
                ]

        before = self._counters()
        self.seconds, losses = timed(train)
        self.counted = {name: value - before.get(name, 0) for name, value in self._counters().items()}
        return losses

    def _counters(self) -> dict[str, Any]:
        found = {name: getattr(self.workspace, name, None) for name in COUNTERS}
        return {name: value for name, value in found.items() if value is not None}

    def params(self) -> np.ndarray:
        return self.trained


trainer = Trainer
