"""scikit-learn's estimators and ours, by the same calls: whole fits, nothing left out."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from fastmlp.bench import timing
from fastmlp.bench.rivals import engine_of, is_ours
from fastmlp.bench.workloads import ALPHA, BETA_1, BETA_2, EPSILON, SEED, Task, flat


def module(name: str) -> ModuleType:
    """Return the module of the two estimators of fastmlp or of scikit-learn."""
    if is_ours(name):
        import fastmlp

        return fastmlp
    import sklearn.neural_network

    return sklearn.neural_network


class Trainer:
    """Whole fits by the estimator."""

    def __init__(self, task: Task, name: str) -> None:
        self.task = task
        workload = task.workload
        ours = {
            "n_jobs": task.threads,
            "backend": engine_of(name) or task.backend,
            "matmul_precision": task.precision,
        }
        self.estimator = getattr(module(name), "MLPRegressor" if workload.loss == "squared_error" else "MLPClassifier")(
            hidden_layer_sizes=workload.hidden,
            activation=workload.activation,
            solver=workload.solver,
            alpha=ALPHA,
            batch_size=workload.batch_size,
            learning_rate_init=workload.learning_rate,
            momentum=workload.momentum,
            nesterovs_momentum=False,
            beta_1=BETA_1,
            beta_2=BETA_2,
            epsilon=EPSILON,
            tol=0.0,
            n_iter_no_change=np.inf,  # train all epochs
            random_state=SEED,
            **(ours if is_ours(name) else {}),
        )

    def prepare(self, epochs: int) -> None:
        """Do nothing: estimators draw weights and orders by themselves."""

    def fit(self, epochs: int) -> list[float]:
        timing.fit(self.estimator.set_params(max_iter=epochs), self.task.X, self.task.y)
        return [float(loss) for loss in self.estimator.loss_curve_]

    def params(self) -> np.ndarray:
        return flat([*self.estimator.coefs_, *self.estimator.intercepts_])


trainer = Trainer


def predictor(task: Task, name: str) -> Callable[[np.ndarray], Any]:
    """Return predict_proba of a classifier with the task's initial weights."""
    few = Trainer(task, name)
    few.fit(1)
    for coef, intercept, (W, b) in zip(few.estimator.coefs_, few.estimator.intercepts_, task.layers, strict=True):
        coef[...], intercept[...] = W, b
    return few.estimator.predict_proba
