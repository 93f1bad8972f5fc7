"""The nets and data of `train`, `predict`, `many` and `cuda`, and what rivals get: rows, first weights, order of rows.

Data is written to a folder once by the parent (`Workload.write`) and read by each worker (`Task.read`), so that all see
the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.model.network import MATMUL_PRECISIONS, Network

SEED = 0

HIGHEST = MATMUL_PRECISIONS[0]  # of products

# No penalty: what weight decay means differs between the libraries, and it is no part of the work compared here.
ALPHA = 0.0
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

FORMULA = "swish, the user's"  # stands for a formula of the suite `options` where it has to travel to a worker

# Steps that are compared weight by weight before anything is timed; whole epochs, so often a few more.
CHECKED_STEPS = 16


@dataclass(frozen=True)
class Workload:
    """A net, its training and its data."""

    name: str
    n_samples: int
    n_features: int
    hidden: tuple[int, ...]
    n_outputs: int  # classes, or values of a regression; two classes are one logistic output, as in scikit-learn
    batch_size: int
    data: str = "generated"  # or "expm", or a data set that scikit-learn ships
    activation: str = "relu"
    solver: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9  # of solver sgd, without Nesterov's look-ahead

    @property
    def loss(self) -> str:
        """Key of fastmlp.model.network's losses."""
        if self.data == "expm":
            return "squared_error"
        return "binary_log_loss" if self.n_outputs == 2 else "log_loss"

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons per layer, with input and output."""
        return (self.n_features, *self.hidden, 1 if self.loss == "binary_log_loss" else self.n_outputs)

    def network(self, dtype: str) -> Network:
        return Network(self.widths, (self.activation,) * len(self.hidden), self.loss, np.dtype(dtype))

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return math.ceil(self.n_samples / self.batch_size)

    @property
    def checked_epochs(self) -> int:
        return math.ceil(CHECKED_STEPS / self.steps)

    @property
    def flops(self) -> float:
        """Floating-point operations of the mean step: 2 m n k for each product that has to be done.

        These are forward and weight gradient of every layer, and the input delta of all but the first.
        """
        weights = [fan_in * fan_out for fan_in, fan_out in self.network("float32").shapes]
        return 2 * (2 * sum(weights) + sum(weights[1:])) * self.n_samples / self.steps

    def least_bytes(self, dtype: str) -> float:
        """Return the least bytes that a step of Adam moves, if everything else stays in cache.

        Weights and both moments are read and written, the batch's rows are read.
        """
        numbers = 6 * self.network(dtype).n_params + self.n_samples / self.steps * self.n_features
        return numbers * np.dtype(dtype).itemsize

    def make(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """Return X (n_samples, n_features) and y: (n_samples,) of classes, or (n_samples, n_outputs) of values."""
        rng = np.random.default_rng(SEED)
        if self.data == "expm":
            from scipy.linalg import expm

            X = rng.uniform(-1, 1, (self.n_samples, self.n_features))
            return X.astype(dtype), expm(X.reshape(-1, 2, 2)).reshape(-1, self.n_outputs).astype(dtype)
        if self.data == "generated":
            rows = rng.standard_normal((self.n_samples, self.n_features), dtype=np.float32)
            classes = rows @ rng.standard_normal((self.n_features, self.n_outputs), dtype=np.float32)
            y = np.argmax(classes + np.sqrt(self.n_features) * rng.standard_normal(classes.shape), axis=1)
            return rows.astype(dtype), y.astype(np.int64)
        from sklearn import datasets
        from sklearn.preprocessing import minmax_scale

        # Not standardised: a pixel that is rarely lit would be 40 then, and the first losses are of another kind.
        X, y = getattr(datasets, f"load_{self.data}")(return_X_y=True)
        return np.ascontiguousarray(minmax_scale(X), dtype=dtype), y.astype(np.int64)

    def write(self, folder: Path, dtype: str) -> None:
        """Leave X.npy and y.npy for the workers."""
        X, y = self.make(dtype)
        np.save(folder / "X.npy", X)
        np.save(folder / "y.npy", y)


WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("iris", 150, 4, (16,), 3, 32, data="iris"),
        Workload("cancer", 569, 30, (100,), 2, 200, data="breast_cancer"),
        Workload("digits", 1797, 64, (100,), 10, 200, data="digits"),
        Workload("winequality", 1599, 11, (16, 32, 20), 2, 64),
        Workload("housing", 20640, 8, (64, 64), 5, 256),
        Workload("covtype", 60000, 54, (256, 128), 7, 512),
        Workload("mnist", 20000, 784, (512, 256), 10, 128, learning_rate=1e-4),
        Workload("wide", 8192, 784, (2048, 2048), 10, 1024, learning_rate=1e-4),
        Workload("online", 2000, 20, (50,), 2, 1),
        Workload("higgs", 20000, 28, (300,) * 5, 2, 100, activation="tanh", solver="sgd", learning_rate=1e-2),
        Workload("matrixexp", 10000, 4, (32, 16), 4, 10000, data="expm", activation="tanh"),
    )
}


# Of the suite `cuda`. Whole batches only: a captured step has one shape.
DEVICE_WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("small", 16384, 64, (128, 128), 10, 256),
        Workload("mnist-like", 20000, 784, (100,), 10, 200),
        Workload("wide-1024", 8192, 1024, (1024, 1024), 10, 128, learning_rate=1e-4),
    )
}

EVERY_WORKLOAD = {**WORKLOADS, **DEVICE_WORKLOADS}


def flat(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Return the flat vector of weights and biases."""
    return np.concatenate([np.ravel(array) for array in arrays])


class Task:
    """A workload inside a worker: rows, initial weights, and the order of rows in every epoch.

    The draws are those of the estimators for random_state=seed: weights first, then one shuffle of the order per
    epoch, from numpy's legacy generator, whose stream is the same in every version. So the estimators can draw them
    for themselves, and the others get copies.
    """

    def __init__(
        self,
        workload: Workload,
        X: np.ndarray,
        y: np.ndarray,
        threads: int,
        backend: str = "auto",
        precision: str = HIGHEST,  # of float32 products
        seed: int = SEED,
    ) -> None:
        self.workload, self.X, self.y = workload, X, y
        self.threads, self.backend, self.precision = threads, backend, precision
        self.network = workload.network(X.dtype.name).with_precision(precision)
        self._rng = np.random.RandomState(seed)
        self.params = self.network.initial_params(self._rng, gain=6.0)  # (n_params,)
        self._orders: list[np.ndarray] = []

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> Task:
        workload, folder = EVERY_WORKLOAD[request["workload"]], Path(request["folder"])
        X, y = np.load(folder / "X.npy"), np.load(folder / "y.npy")
        return cls(workload, X, y, request["threads"], request["backend"], request["precision"])

    @property
    def layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The initial W (fan_in, fan_out) and b (fan_out,) of each layer."""
        return list(zip(self.network.coefs(self.params), self.network.intercepts(self.params), strict=True))

    def mean_losses(self, losses: Iterable[Any]) -> list[float]:
        """Return losses that were summed over the outputs of a regression as the estimators have them."""
        divisor = self.network.widths[-1] if self.workload.loss == "squared_error" else 1
        return [float(loss) / divisor for loss in losses]

    def orders(self, epochs: int) -> list[np.ndarray]:
        """Return the row indices (n_samples,) of the first epochs."""
        order = self._orders[-1] if self._orders else np.arange(len(self.X))
        while len(self._orders) < epochs:
            permutation = np.arange(len(self.X))
            self._rng.shuffle(permutation)
            order = order[permutation]
            self._orders.append(order)
        return self._orders[:epochs]

    @cached_property
    def batches(self) -> list[slice]:
        """Where each step's rows stand in an epoch's order; the last batch may be smaller."""
        size = self.workload.batch_size
        return [slice(i, min(i + size, len(self.X))) for i in range(0, len(self.X), size)]

    def learning_rates(self, first: int, steps: int) -> np.ndarray:
        """Adam's bias-corrected learning rates (steps,) from step `first` on, counted from 0; sgd's constant one."""
        t = np.arange(first + 1, first + steps + 1, dtype=np.float64)
        if self.workload.solver == "sgd":
            return np.full(steps, self.workload.learning_rate)
        return self.workload.learning_rate * np.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
