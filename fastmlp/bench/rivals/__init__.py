"""The rivals: what each needs, where it takes part, and the module that runs it.

Read by the parent, which imports none of them, and by worker.py, which imports the one it was asked for.

A module has `trainer(task, name)`, an object with `prepare(epochs)` (not timed), `fit(epochs)`, which trains from the
initial weights and gives the loss of every epoch, and `params()`, the flat vector after that; or `predictor(task)`, a
function from X (n, n_features) to class probabilities (n, n_classes), or both.

In the suite `cuda` a trainer is told its device too, and leaves in `seconds` what a fit took once its weights were in
place; the module has `device_name()`, which fails where there is no device.

In the suite `many` a module has `scorer(task, candidates, splits, epochs)`, a function that trains the nets of all
candidates on all splits at once and returns their scores (candidates, splits); or its estimators are searched.

models.py has the table of the suite `tabular`, whose rows are here too; tabular.py makes its estimators.

Products of float32 may be asked for with less than the highest precision, in the suite `train`. A trainer reads
`task.precision`; it raises a NotImplementedError, which says why, if its library refuses that on this machine.

Engines of fastmlp are rivals too, where they run side by side: the first is "fastmlp", the others "fastmlp:<engine>".
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

from fastmlp.bench.rivals.models import MODELS
from fastmlp.model.network import MATMUL_PRECISIONS


@dataclass(frozen=True)
class Rival:
    """One row of the table."""

    packages: tuple[str, ...]  # distributions that it needs; the first one's version is reported
    module: str
    suites: tuple[str, ...]
    # Precisions of float32 products with which it runs in `train` -> how it is told so. It may compute more exactly.
    precisions: Mapping[str, str] = field(default_factory=lambda: _words("float32 throughout"))


def _words(template: str) -> dict[str, str]:
    """Return a text for each precision, with its name in place of {}."""
    return {precision: template.format(precision) for precision in MATMUL_PRECISIONS}


TORCH_WORDS = _words('set_float32_matmul_precision("{}")')
# For jax_default_matmul_precision: below "highest" a DotAlgorithmPreset.
JAX_WORDS = {"highest": "highest", "high": "BF16_BF16_F32_X3", "medium": "BF16_BF16_F32"}

OURS = Rival(
    ("fastmlp",),
    "estimators",
    ("train", "predict", "cold", "many", "scaling", "options", "precision"),
    _words('matmul_precision="{}"'),
)

RIVALS: Mapping[str, Rival] = {
    "scikit-learn": Rival(("scikit-learn",), "estimators", ("train", "predict", "cold", "many")),
    "pytorch": Rival(("torch",), "pytorch", ("train", "predict", "options"), TORCH_WORDS),
    "torch.compile": Rival(("torch",), "pytorch", ("train",), TORCH_WORDS),
    "torch autocast": Rival(("torch",), "pytorch", ("train",), {"medium": "autocast of all layers to bfloat16"}),
    "jax": Rival(("jax",), "jax_scan", ("train", "many"), JAX_WORDS),
    "onnxruntime": Rival(("onnxruntime", "onnx"), "onnx_session", ("predict",)),
    "torch gpu": Rival(("torch",), "torch_device", ("cuda",)),
    "torch.compile gpu": Rival(("torch",), "torch_device", ("cuda",)),
    "torch graph": Rival(("torch",), "torch_device", ("cuda",)),
    "jax gpu": Rival(("jax",), "jax_scan", ("cuda",)),
    **{name: Rival(model.packages, "tabular", ("tabular",)) for name, model in MODELS.items() if name != "fastmlp"},
}

ENGINE = "fastmlp:"


def engine_of(name: str) -> str | None:
    """Return the engine that a rival names, if it is one."""
    return name.removeprefix(ENGINE) if name.startswith(ENGINE) else None


def engine_rivals(engines: Iterable[str]) -> dict[str, str]:
    """Return a dict from engines that run side by side to their names among the rivals."""
    return {name: f"{ENGINE}{name}" if i else "fastmlp" for i, name in enumerate(engines)}


def row(name: str) -> Rival:
    return OURS if is_ours(name) else RIVALS[name]


def is_ours(name: str) -> bool:
    return name == "fastmlp" or name.startswith(ENGINE)


def runs_here(name: str) -> bool:
    """Return whether a rival runs in the interpreter of fastmlp, wherever the others are installed."""
    return row(name).packages[0] in ("fastmlp", "scikit-learn")


def others(names: Iterable[str]) -> list[str]:
    """Return the rivals that are not engines of fastmlp."""
    return [name for name in names if not is_ours(name)]


def load(name: str) -> ModuleType:
    """Import the module that runs a rival, and the rival with it."""
    return importlib.import_module(f"fastmlp.bench.rivals.{row(name).module}")
