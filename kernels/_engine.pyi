"""Types of the compiled engine, the functions of :class:`fastmlp.kernels.contract.Engine` among them.

For type checkers alone: cython/ holds the code, contract.py says what each function does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastmlp.kernels.contract import Data, Optimizer, Shared
from fastmlp.model.network import Network

def isas() -> tuple[str, ...]: ...
def isa() -> str: ...
def matrix_units() -> tuple[str | None, tuple[str, ...], str | None]: ...
def use_isa(name: str) -> None: ...

class Workspace:
    network: Network
    isa: str
    n_threads: int
    @property
    def uses_blas(self) -> bool: ...
    @property
    def relays(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...

def panels() -> tuple[int, int]: ...
def workspace(network: Network, batch_size: int, n_jobs: int | None = None) -> Workspace: ...
def predict(
    workspace: Workspace, params: np.ndarray, X: Any, out: np.ndarray, rows: np.ndarray | None = None
) -> bool: ...
def loss_and_grad(
    workspace: Workspace,
    params: np.ndarray,
    data: Data,
    alpha: float,
    grad: np.ndarray,
    l1: float = 0.0,
    shared: Shared | None = None,
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
    losses: np.ndarray | None = None,
    shared: Shared | None = None,
) -> float: ...
def shuffle(order: np.ndarray, random_state: np.random.RandomState) -> None: ...
def minimize(
    evaluate: Callable[[], float],
    x: np.ndarray,
    grad: np.ndarray,
    tol: float,
    max_iter: int,
    max_evaluations: int,
) -> tuple[float, int, int, str]: ...
