"""The segments of the flat parameter vector: the one declaration of its layout.

Network, first values, public attributes, saved files and the layouts of the engines loop over ``network.segments``.
Only the reference engine states the layout a second time, as the judge.

The vector is ``[W0 .. Wn | b0 .. bn | unit parameters | running statistics]``.  Weights come first, so that the
penalty covers a prefix.  Running statistics come last, so that an optimizer updates a prefix.  A new array per unit is
one row of ``stages.UNITS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fastmlp.model.stages import UNIT_ATTRIBUTES, UNITS

if TYPE_CHECKING:
    from fastmlp.model.network import Network


@dataclass(frozen=True)
class Segment:
    """One piece of the flat vector: W (rows, width) = (fan_in, fan_out), everything else (width,) with rows = 1."""

    layer: int  # the linear layer to which it belongs, from 0
    name: str  # "W", "b", or the name of a row of UNITS
    rows: int
    width: int
    trained: bool  # whether the optimizer updates it
    first: float | None  # first value; None where the initialiser draws it
    attribute: str  # of the estimator: a list with an entry per layer, for what is neither W nor b per hidden layer
    start: int  # where it begins in the flat vector

    @property
    def size(self) -> int:
        """Number of values."""
        return self.rows * self.width

    @property
    def where(self) -> slice:
        """Its place in the flat vector."""
        return slice(self.start, self.start + self.size)

    @property
    def of_units(self) -> bool:
        """Whether it belongs to the hidden units, rather than to the linear layer."""
        return self.name in UNIT_ATTRIBUTES

    def view(self, params: np.ndarray) -> np.ndarray:
        """Its values as a view of the flat vector: (rows, width) for W, (width,) otherwise."""
        values = params[self.where]
        return values.reshape(self.rows, self.width) if self.name == "W" else values


def segments_of(network: Network) -> tuple[Segment, ...]:
    """Return the segments of a network's flat vector, in order and without gaps."""
    found: list[Segment] = []

    def add(layer: int, name: str, rows: int, attribute: str, first: float | None = None, trained: bool = True) -> None:
        start = found[-1].start + found[-1].size if found else 0
        found.append(Segment(layer, name, rows, network.widths[layer + 1], trained, first, attribute, start))

    for layer, (fan_in, _) in enumerate(pairwise(network.widths)):
        add(layer, "W", fan_in, "coefs_")
    for layer in range(network.n_layers):
        add(layer, "b", 1, "intercepts_")
    for trained in (True, False):
        for layer in range(len(network.activations)):
            for unit in UNITS:
                first = unit.first(network, layer)
                if unit.trained == trained and first is not None:
                    add(layer, unit.name, 1, unit.attribute, first, trained)
    return tuple(found)
