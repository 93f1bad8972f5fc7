"""From a network's choices to the module that computes them.

Where it sits: workspace.py asks for the module of a combination of activations, loss and rule;
codegen.cuda_module renders it, driver.py keeps it on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from fastmlp.kernels import codegen, formulas, layer_table
from fastmlp.kernels.arguments import named_entry
from fastmlp.kernels.numba_cuda import driver

TEMPLATE = Path(__file__).parent / "template"
PARTS = ("tables", "sums", "stages", "losses", "updates", "network", "many")


def _is_formula(entry: Any) -> bool:
    return hasattr(entry, "program_source")


def activation_code(entry: Any) -> Any:
    """Return the activation of a hidden layer as codegen.cuda_module takes it.

    Raises
    ------
    ValueError
        Naming the argument.
    """
    if _is_formula(entry):
        if "slope" not in entry.kinds:
            raise ValueError(f"activation must be an activation, got {entry!r}")
        return entry
    name, row, values = named_entry("activation", formulas.ACTIVATIONS, entry)
    if row.slope is None:
        raise ValueError(f"activation {name!r} has no slope: it is an output link")
    return name, tuple((key, value) for key, value in values.items() if key not in row.learned)


@dataclass(frozen=True)
class LossCode:
    """A loss as codegen.cuda_module takes it, and whether its targets are classes."""

    entry: Any
    by_class: bool


def loss_code(entry: Any) -> LossCode:
    """Return what the engine knows of a loss.

    Raises
    ------
    ValueError
        Naming the argument.
    """
    if _is_formula(entry):
        if "delta" not in entry.kinds:
            raise ValueError(f"network.loss must be a loss, got {entry!r}")
        return LossCode(entry, False)
    name, row, values = named_entry("network.loss", formulas.LOSSES, entry)
    return LossCode((name, tuple(values.items())), row.class_targets)


def template() -> str:
    """Return the device code: columns of the layers' table, then the parts of template/ without their imports."""
    texts = [(TEMPLATE / f"{part}.py").read_text(encoding="utf-8") for part in PARTS]
    columns = "\n".join(f"{name} = {value}" for name, value in layer_table.constants().items())
    return "\n\n\n".join([columns, *(text.split(codegen.NETWORK_MARK, 1)[1].strip() for text in texts)]) + "\n"


@lru_cache(maxsize=256)
def module_of(
    double: bool, tile: codegen.CudaTile, activations: tuple = (), loss: Any = None, rule: str | None = None
) -> ModuleType:
    """Return the module of a combination of formulas."""
    driver.api()
    simulated = driver.simulated()

    def text() -> str:
        return codegen.cuda_module(
            formulas,
            template(),
            tile,
            double=double,
            simulated=simulated,
            activations=activations,
            loss=loss,
            rule=rule,
        )

    return driver.load(text)


def pieces(n: int, size: int) -> int:
    """Return how many pieces of this size make n."""
    return -(-n // size)
