"""The rivals: what each needs, where it takes part, and the module that runs it.

Read by the parent, which imports none of them, and by worker.py, which imports the one it was asked for.

A module has `trainer(task, name)`, an object with `prepare(epochs)` (not timed), `fit(epochs)`, which trains from the
initial weights and gives the loss of every epoch, and `params()`, the flat vector after that; or `predictor(task)`, a
function from X (n, n_features) to class probabilities (n, n_classes), or both.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Rival:
    """One row of the table."""

    packages: tuple[str, ...]  # distributions that it needs; the first one's version is reported
    module: str
    suites: tuple[str, ...]
    how: str


OURS = Rival(
    ("fastmlp",), "estimators", ("train", "predict", "cold", "grid", "scaling", "options"), "the estimators, whole fits"
)

RIVALS: Mapping[str, Rival] = {
    "scikit-learn": Rival(
        ("scikit-learn",), "estimators", ("train", "predict", "cold", "grid"), "the estimators, whole fits"
    ),
    "pytorch": Rival(
        ("torch",),
        "pytorch",
        ("train", "predict", "options"),
        "eager torch.nn, fused optimizer; inference_mode to predict",
    ),
    "torch.compile": Rival(
        ("torch",), "pytorch", ("train",), "forward, loss and backward compiled for fixed shapes, fused optimizer"
    ),
    "jax": Rival(("jax",), "jax_scan", ("train",), "one jitted call per epoch, lax.scan over its steps"),
    "onnxruntime": Rival(
        ("onnxruntime", "onnx"), "onnx_session", ("predict",), "Gemm, Relu and Softmax in one session"
    ),
}


def load(name: str) -> ModuleType:
    """Import the module that runs a rival, and the rival with it."""
    rival = OURS if name == "fastmlp" else RIVALS[name]
    return importlib.import_module(f"fastmlp.bench.rivals.{rival.module}")
