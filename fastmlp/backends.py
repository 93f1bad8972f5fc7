"""The engines: what every one of them offers, which exist, and which to take.

A backend is a module with the functions of ``CONTRACT``, the same signatures in each (a test compares them):

========================  =========================================================================================
workspace                 allocate buffers for a network and a batch size; a workspace serves one thread at a time
predict                   out = link(logits) of rows of X; returns whether these rows were finite
loss_and_grad             penalised mean loss and its gradient over all rows (for L-BFGS)
train_epoch               a whole epoch of mini-batch steps over a given order of rows
shuffle                   a random order of rows, by NumPy's draws
update                    one optimizer step
activate, slope           an activation and its derivative
linear_forward/_backward  one layer with its activation, and its gradients with the delta of the layer below
softmax, loss, ...        rows to probabilities; any loss with its delta
========================  =========================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

CONTRACT = (
    "workspace",
    "predict",
    "loss_and_grad",
    "train_epoch",
    "shuffle",
    "update",
    "activate",
    "slope",
    "linear_forward",
    "linear_backward",
    "softmax",
    "softmax_cross_entropy",
    "loss",
    "sgd_update",
    "momentum_update",
    "adam_update",
)


class Data(NamedTuple):
    """The rows of a fit.

    X : ndarray (n, n_features), float32 or float64, any strides; or CSR matrix
    y : intp class indices (n,) for log_loss, else targets (n, n_outputs) of the network's dtype
    sample_weight : None, or (n,) of the network's dtype
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None = None


@dataclass(frozen=True)
class Row:
    """One engine: the module that implements it, and what to do when it does not import."""

    module: str
    install: str


# In the order in which "auto" looks for one.
BACKENDS: dict[str, Row] = {
    "cython": Row("fastmlp.kernels._engine", "reinstall fastmlp where a C compiler is present: pip install fastmlp"),
    "reference": Row("fastmlp.kernels.reference", "reinstall fastmlp: pip install fastmlp"),
}


def get(name: str) -> ModuleType:
    """The engine of this name; "auto" takes the first of ``BACKENDS`` that imports.

    Raises
    ------
    ValueError
        If there is no engine of this name; the message lists those available.
    ImportError
        If the engine exists but is not installed; the message says what to install.
    """
    if name == "auto":
        name = next(candidate for candidate in BACKENDS if why_not(candidate) is None)
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is unknown; available: {['auto', *available()]}")
    row = BACKENDS[name]
    try:
        return import_module(row.module)
    except ImportError as error:
        raise ImportError(f"backend={name!r} is not installed ({error}); {row.install}") from error


def available() -> tuple[str, ...]:
    """Names of the engines that import on this machine, preferred first."""
    return tuple(name for name in BACKENDS if why_not(name) is None)


def why_not(name: str) -> str | None:
    """Why an engine cannot be used here, or None if it can."""
    try:
        get(name)
    except ImportError as error:
        return str(error)
    return None
