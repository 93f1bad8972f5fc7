"""Activations and losses of a network -> addresses of compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from fastmlp.kernels import codegen, formulas
from fastmlp.kernels.arguments import named_entry
from fastmlp.kernels.numba_cpu.cache import Code


def _is_formula(entry: Any) -> bool:
    return hasattr(entry, "program_source")


def _named(argument: str, table: Any, entry: Any) -> tuple[str, Any, np.ndarray]:
    """Return (name, row, values of the row's parameters): float64, never empty."""
    name, row, values = named_entry(argument, table, entry)
    return name, row, np.array([*values.values(), 0.0])


@lru_cache
def _reads_p(name: str) -> bool:
    return codegen.reads_p(formulas, name)


class Activation:
    """An activation as the compiled code sees it.

    Attributes
    ----------
    value, forward, backward : int
        Addresses of its functions; 0 where it has none, or until :meth:`resolve` has compiled it.
    needs_z : bool
        Whether the slope reads the pre-activation.
    learned : bool
        Whether it has a parameter that each neuron learns.
    parameters : ndarray of float64
    """

    def __init__(self, code: Code, entry: Any, *, hidden: bool = True) -> None:
        self.value = self.forward = self.backward = 0
        self.learned = False
        self.find: Callable[[str], int] | None = None
        if _is_formula(entry):
            if "slope" not in entry.kinds:
                raise ValueError(f"activation must be an activation, got {entry!r}")
            self.needs_z, self.parameters, self.find = entry.needs_z, np.zeros(1), code.own(entry)
            return
        name, row, self.parameters = _named("activation", formulas.ACTIVATIONS, entry)
        if hidden and row.slope is None:
            raise ValueError(f"activation {name!r} has no slope: it is an output link")
        self.learned = bool(row.learned)
        self.needs_z = row.slope is not None and code.slope_reads_z(name)
        if name != "identity":
            self.find = code.named(name)

    def resolve(self, *kinds: str) -> Activation:
        """Compile what is needed of it."""
        for kind in kinds:
            if self.find is not None:
                setattr(self, kind, self.find(kind))
        return self


class Loss:
    """A loss as the compiled code sees it.

    Attributes
    ----------
    link : str
        Its output activation.
    by_class : bool
        Whether targets are class indices.
    kind : int
        What the table's LOSS_KIND holds.
    find : callable
        () -> the address of its function.
    parameters : ndarray of float64
    """

    def __init__(self, code: Code, entry: Any) -> None:
        self.by_class, self.kind, self.parameters = False, 0, np.zeros(1)
        self.find: Callable[[], int]
        if _is_formula(entry):
            if "delta" not in entry.kinds:
                raise ValueError(f"network.loss must be a loss, got {entry!r}")
            self.link, self.find = entry.link, lambda: code.own(entry)("loss")
            return
        name, row, self.parameters = _named("network.loss", formulas.LOSSES, entry)
        self.link, self.by_class = row.link, row.class_targets
        kind = "loss"
        if row.link == "softmax":
            kind, every = "terms", row.needs_every_output(self.parameters[:-1])
            flags = {"OF_SOFTMAX": 1, "BY_LABEL": row.class_targets, "EVERY_OUTPUT": every, "READS_P": _reads_p(name)}
            self.kind = sum(code.names[flag] for flag, is_set in flags.items() if is_set)
        self.find = lambda: code.named(name)(kind)
