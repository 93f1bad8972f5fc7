"""An engine of fastmlp by its contract, without the estimators around it: epochs over the same arrays, from ready-made
orders, as the rivals on a device have them.
"""

from __future__ import annotations

import time

import numpy as np

from fastmlp import MLPClassifier
from fastmlp.bench.rivals import engine_of
from fastmlp.bench.workloads import ALPHA, BETA_1, BETA_2, EPSILON, Task
from fastmlp.engines import backends
from fastmlp.training.optimizers import make_optimizer


class Trainer:
    """`train_epoch` gives a number, so it has waited for the device: the clock on the wall will do."""

    seconds: float

    def __init__(self, task: Task, name: str, device: str = "cuda") -> None:
        self.task = task
        self.engine = backends.get(engine_of(name) or task.backend)
        self.workspace = self.engine.workspace(task.network, task.workload.batch_size, task.threads)
        # classes are intp, and the same array in every epoch, so that an engine may know it again
        self.data = backends.Data(task.X, task.y.astype(np.intp))
        self.orders: list[np.ndarray] = []

    @property
    def launches(self) -> int | None:
        """Kernels launched so far, where the engine counts them."""
        return getattr(self.workspace, "launches", None)

    @property
    def device_seconds(self) -> float | None:
        """Seconds that the device has worked on launches so far, where the engine measures them."""
        return getattr(self.workspace, "device_seconds", None)

    def prepare(self, epochs: int) -> None:
        self.orders = [np.ascontiguousarray(order, dtype=np.intp) for order in self.task.orders(epochs)]

    def fit(self, epochs: int) -> list[float]:
        workload = self.task.workload
        choice = MLPClassifier(
            learning_rate_init=workload.learning_rate,
            beta_1=BETA_1,
            beta_2=BETA_2,
            epsilon=EPSILON,
            max_iter=epochs,
        )
        optimizer = make_optimizer(workload.solver, self.task.network, choice.get_params())
        self.trained = self.task.params.copy()
        steps = self.workspace, self.trained, self.data
        start = time.perf_counter()
        losses = [
            self.engine.train_epoch(*steps, order, workload.batch_size, ALPHA, optimizer)
            for order in self.orders[:epochs]
        ]
        self.seconds = time.perf_counter() - start
        return [float(loss) for loss in losses]

    def params(self) -> np.ndarray:
        return self.trained


trainer = Trainer
