"""Types of the compiled engine, the functions of :class:`fastmlp.kernels.contract.Engine` among them.

For type checkers alone: cython/ holds the code, contract.py says what each function does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastmlp.kernels.contract import Data, Optimizer
from fastmlp.model.network import Network

def isas() -> tuple[str, ...]: ...
def isa() -> str: ...
def use_isa(name: str) -> None: ...

class Workspace:
    network: Network
    isa: str
    n_threads: int
    @property
    def nbytes(self) -> int: ...

def workspace(network: Network, batch_size: int, n_jobs: int | None = None) -> Workspace: ...
def predict(
    workspace: Workspace, params: np.ndarray, X: Any, out: np.ndarray, rows: np.ndarray | None = None
) -> bool: ...
def loss_and_grad(
    workspace: Workspace, params: np.ndarray, data: Data, alpha: float, grad: np.ndarray, l1: float = 0.0
) -> float: ...
def train_epoch(
    workspace: Workspace,
    params: np.ndarray,
    data: Data,
    order: np.ndarray,
    batch_size: int,
    alpha: float,
    optimizer: Optimizer,
    l1: float = 0.0,
    seed: int = 0,
) -> float: ...
def shuffle(order: np.ndarray, random_state: np.random.RandomState) -> None: ...
def update(
    rule: str, params: np.ndarray, grad: np.ndarray, states: list[np.ndarray], scalars: Sequence[float]
) -> None: ...
def evaluate(function: str | Callable[..., Any], x: np.ndarray, out: np.ndarray) -> None: ...
def activate(activation: Any, z: np.ndarray, out: np.ndarray) -> None: ...
def slope(activation: Any, z: np.ndarray | None, a: np.ndarray, out: np.ndarray) -> None: ...
def linear_forward(
    X: np.ndarray, W: np.ndarray, b: np.ndarray, activation: Any, out: np.ndarray, z: np.ndarray | None = None
) -> None: ...
def linear_backward(
    X: np.ndarray,
    W: np.ndarray,
    delta: np.ndarray,
    activation: Any,
    grad_W: np.ndarray,
    grad_b: np.ndarray,
    delta_below: np.ndarray | None = None,
    z: np.ndarray | None = None,
) -> None: ...
def softmax(logits: np.ndarray, out: np.ndarray) -> None: ...
def loss(
    name: Any, logits: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None, delta: np.ndarray
) -> float: ...
