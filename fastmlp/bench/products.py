"""The three products of a training step, each by the smallest network that computes it; their errors and bounds.

The loss y p has the delta y, so targets are deltas (`fastmlp.engines.by_name`). Any engine computes them, with any
precision and number of threads. Read by the suite `precision` and by the tests of matrix units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse as sp

from fastmlp.engines.backends import Data
from fastmlp.engines.by_name import LINEAR
from fastmlp.model.network import Network

#: Largest error of an element of A B that a precision permits, over that of |A| |B|.
BOUNDS = {"highest": 2.0**-20, "high": 2.0**-15, "medium": 2.0**-7}


def forward(engine: ModuleType, A: np.ndarray, B: np.ndarray, precision: str, n_jobs: int = 1) -> np.ndarray:
    """Return A B, (n, fan_out), as the predictions of a network without biases: A (n, fan_in), B (fan_in, fan_out)."""
    network = Network((*B.shape,), (), "squared_error", A.dtype, matmul_precision=precision)
    params = np.concatenate([B.ravel(), np.zeros(B.shape[1], B.dtype)])
    out = np.empty((len(A), B.shape[1]), A.dtype)
    engine.predict(engine.workspace(network, len(A), n_jobs), params, A, out)
    return out


def weight_gradient(
    engine: ModuleType, X: np.ndarray, delta: np.ndarray, precision: str, n_jobs: int = 1
) -> np.ndarray:
    """Return X^T delta, (fan_in, fan_out): X (n, fan_in), delta (n, fan_out)."""
    W = np.zeros((X.shape[1], delta.shape[1]), X.dtype)
    return _first_gradient(engine, [W], X, delta, precision, n_jobs)


def input_delta(engine: ModuleType, delta: np.ndarray, W: np.ndarray, precision: str, n_jobs: int = 1) -> np.ndarray:
    """Return delta W^T, (n, fan_in): delta (n, fan_out), W (fan_in, fan_out).

    It is the gradient of a layer below that reads the identity, which is sparse: no product of its own.
    """
    below = np.zeros((len(delta), len(W)), W.dtype)
    identity = sp.eye_array(len(delta), dtype=W.dtype, format="csr")
    return _first_gradient(engine, [below, W], identity, delta, precision, n_jobs)


def _first_gradient(
    engine: ModuleType, weights: Sequence[np.ndarray], X: Any, delta: np.ndarray, precision: str, n_jobs: int
) -> np.ndarray:
    """Return the sum over the rows of the gradients of the first weights."""
    widths = (len(weights[0]), *(W.shape[1] for W in weights))
    activations = ("identity",) * (len(weights) - 1)
    network = Network(widths, activations, LINEAR, delta.dtype, matmul_precision=precision)
    params, grad = np.zeros(network.n_params, delta.dtype), np.empty(network.n_params, delta.dtype)
    for view, W in zip(network.coefs(params), weights, strict=True):
        view[...] = W
    engine.loss_and_grad(engine.workspace(network, len(delta), n_jobs), params, Data(X, delta), 0.0, grad)
    return network.coefs(grad)[0] * delta.dtype.type(len(delta))  # the loss is a mean


@dataclass(frozen=True)
class Product:
    """One row: how an engine computes it, what it is, and its two factors for a layer."""

    compute: Callable[..., np.ndarray]  # (engine, A, B, precision, n_jobs)
    exact: Callable[[np.ndarray, np.ndarray], np.ndarray]
    shapes: Callable[[int, int, int], tuple[tuple[int, int], tuple[int, int]]]  # of A and B: (n, fan_in, fan_out)

    def relative_error(self, found: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Return |found - A B| / (|A| |B|), element by element, the products in float64; A and B without zeros."""
        A, B = A.astype(np.float64), B.astype(np.float64)
        return abs(found - self.exact(A, B)) / self.exact(abs(A), abs(B))


PRODUCTS: Mapping[str, Product] = {
    "forward": Product(forward, lambda A, B: A @ B, lambda n, fan_in, fan_out: ((n, fan_in), (fan_in, fan_out))),
    "weight gradient": Product(
        weight_gradient, lambda A, B: A.T @ B, lambda n, fan_in, fan_out: ((n, fan_in), (n, fan_out))
    ),
    "input delta": Product(
        input_delta, lambda A, B: A @ B.T, lambda n, fan_in, fan_out: ((n, fan_out), (fan_in, fan_out))
    ),
}


def errors(
    engine: ModuleType, network: Network, n_rows: int, precisions: Iterable[str], n_jobs: int
) -> dict[str, dict[str, float]]:
    """Return by product and precision the largest error over all layers, relative to |A| |B|.

    The factors are normal random numbers in the shapes of the layers, for a batch of `n_rows`. Nobody needs the input
    delta of the first layer: it has none.
    """
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {name: dict.fromkeys(precisions, 0.0) for name in PRODUCTS}
    for layer, (fan_in, fan_out) in enumerate(network.shapes):
        for name, row in PRODUCTS.items():
            if name == "input delta" and layer == 0:
                continue
            A, B = (rng.standard_normal(shape).astype(network.dtype) for shape in row.shapes(n_rows, fan_in, fan_out))
            for precision, largest in found[name].items():
                error = row.relative_error(row.compute(engine, A, B, precision, n_jobs), A, B)
                found[name][precision] = float(np.maximum(largest, error.max()))  # so that NaN stays
    return found
