"""The segments of the flat parameter vector: the one declaration of its layout.

Network, first values, public attributes, saved files and the layouts of the engines loop over ``network.segments``.
Only the reference engine states the layout a second time, as the judge.

The vector is ``[W0 .. Wn | b0 .. bn | inputs' arrays | unit parameters | running statistics]``.  Weights come first, so
that the penalty covers a prefix.  Running statistics come last, so that an optimizer updates a prefix.  A new array per
unit is one row of ``stages.UNITS``; arrays of feature blocks are declared in ``kernels/feature_table.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.kernels import feature_table
from fastmlp.model.stages import UNIT_ATTRIBUTES, UNITS

if TYPE_CHECKING:
    from fastmlp.model.network import Network


@dataclass(frozen=True)
class Segment:
    """One piece of the flat vector: rows of `width` numbers; what has one row is a vector, unless it is a W."""

    layer: int  # the linear layer to which it belongs, from 0; for an array of a feature block, the block
    name: str  # "W", "b", a name of feature_table, or the name of a row of UNITS
    rows: int
    width: int
    trained: bool  # whether the optimizer updates it
    first: float | None  # first value; None where the initialiser draws it
    attribute: str  # of the estimator: a list with an entry per layer, for what is neither W nor b per hidden layer
    start: int  # where it begins in the flat vector
    heads: int = 1  # of a W: matrices one below the other, of a layer that each member has for itself

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

    @property
    def of_inputs(self) -> bool:
        """Whether it belongs to a feature block, or is a scale of the first layer's input or of a member."""
        return self.name in feature_table.ARRAYS or self.name in feature_table.SCALES

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width), or (width,) for a vector; (heads, rows / heads, width) for heads."""
        if self.heads > 1:
            return self.heads, self.rows // self.heads, self.width
        is_vector = self.rows == 1 and self.name not in ("W", *feature_table.ARRAYS)
        return (self.width,) if is_vector else (self.rows, self.width)

    def view(self, params: np.ndarray) -> np.ndarray:
        """Its values as a view of the flat vector, of its shape."""
        return params[self.where].reshape(self.shape)


def segments_of(network: Network) -> tuple[Segment, ...]:
    """Return the segments of a network's flat vector, in order and without gaps."""
    found: list[Segment] = []
    widths, last, members = network.widths, network.n_layers - 1, network.members

    def add(layer: int, name: str, rows: int, width: int, attribute: str, **more: Any) -> None:
        start = found[-1].start + found[-1].size if found else 0
        given: dict[str, Any] = {"trained": True, "first": None, **more}
        found.append(Segment(layer, name, rows, width, attribute=attribute, start=start, **given))

    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        heads = members if layer == last else 1
        add(layer, "W", heads * fan_in, fan_out, "coefs_", heads=heads)
    for layer, fan_out in enumerate(widths[1:]):
        add(layer, "b", members if layer == last or network.batch_ensemble else 1, fan_out, "intercepts_")
    for i, block in enumerate(network.inputs):
        for name, (rows, width) in block.arrays.items():
            add(i, name, rows, width, f"{name}_")
    if network.input_scale:
        add(0, "input_scale", members, widths[0], "input_scale_", first=1.0)
    if network.batch_ensemble:
        for layer in range(1, last):
            add(layer, "member_in", members, widths[layer], "member_in_", first=1.0)
        for layer in range(last):
            add(layer, "member_out", members, widths[layer + 1], "member_out_", first=1.0)
    for trained in (True, False):
        for layer in range(len(network.activations)):
            for unit in UNITS:
                first = unit.first(network, layer)
                if unit.trained == trained and first is not None:
                    add(layer, unit.name, 1, widths[layer + 1], unit.attribute, first=first, trained=trained)
    return tuple(found)
