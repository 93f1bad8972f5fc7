"""The kinds of feature blocks: what stands between a row of X and the first layer, declared once for all engines.

Where it sits: ``Network.inputs`` holds blocks; ``fastmlp.model.segments`` gives their arrays places in the flat vector;
the engines compute them.  A network without blocks reads X itself.

A block reads columns of X and makes ``size`` numbers per feature.  The blocks' numbers stand side by side in a0, the
input of the first layer, block by block and feature by feature.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np


class Block(NamedTuple):
    """A feature block of a network: F features of one kind.

    kind : key of ``KINDS``
    columns : columns of X that it reads; (F,), and of "piecewise" (2 F,): the values, then their places among the bins
    size : numbers that it makes per feature
    counts : (F,) bins of each feature ("piecewise"), or its categories ("embedding")
    frequencies : waves per feature ("periodic")
    """

    kind: str
    columns: tuple[int, ...]
    size: int = 1
    counts: tuple[int, ...] = ()
    frequencies: int = 0

    @property
    def n_features(self) -> int:
        """Number of features, F."""
        return len(self.columns) // KINDS[self.kind].reads

    @property
    def width(self) -> int:
        """Columns of a0 that it makes."""
        return self.n_features * self.size

    @property
    def arrays(self) -> dict[str, tuple[int, int]]:
        """Shapes of its arrays in the flat vector, by name."""
        return KINDS[self.kind].arrays(self)

    @property
    def starts(self) -> np.ndarray:
        """First row of each feature in an array that has ``counts`` rows per feature; intp (F,)."""
        return np.array([0, *accumulate(self.counts)][:-1], dtype=np.intp)


class Kind(NamedTuple):
    """A kind of blocks."""

    arrays: Callable[[Block], dict[str, tuple[int, int]]]
    reads: int = 1  # columns of X per feature
    fields: tuple[str, ...] = ()  # of Block, besides columns and size


def _periodic(block: Block) -> dict[str, tuple[int, int]]:
    n, m, d = block.n_features, block.frequencies, block.size
    return {
        "periodic_frequency": (n, m),
        "periodic_phase": (n, m),
        "periodic_weight": (n, d * m),  # (F, d, m)
        "periodic_bias": (n, d),
    }


def _piecewise(block: Block) -> dict[str, tuple[int, int]]:
    n, d = block.n_features, block.size
    return {"piecewise_weight": (n, d), "piecewise_bias": (n, d), "piecewise_bins": (sum(block.counts), d)}


#: plain: x.
#: periodic: e_d = sum_m cos(2 pi x frequency_m + phase_m) weight_dm + bias_d (Gorishniy et al. 2022, arXiv:2203.05556;
#:   Holzmueller et al. 2024, arXiv:2407.04491, without its x, which a plain block hands on).
#: piecewise: e = weight x + bias + sum_{j < k} bins_j + (t - k) bins_k, where k = floor(t) within 0 .. counts - 1: the
#:   knots are the integers of t (Gorishniy et al. 2022; 2024, arXiv:2410.24210).
#: embedding: the row of the table that a code, a whole number within 0 .. counts - 1, names.
KINDS: dict[str, Kind] = {
    "plain": Kind(lambda block: {}),
    "periodic": Kind(_periodic, fields=("frequencies",)),
    "piecewise": Kind(_piecewise, reads=2, fields=("counts",)),
    "embedding": Kind(lambda block: {"embedding": (sum(block.counts), block.size)}, fields=("counts",)),
}

#: Names of the arrays of all kinds.
ARRAYS = (
    "periodic_frequency", "periodic_phase", "periodic_weight", "periodic_bias",
    "piecewise_weight", "piecewise_bias", "piecewise_bins", "embedding",
)  # fmt: skip
#: Names of what members of a network and the scale in front of its first layer learn.
SCALES = ("input_scale", "member_in", "member_out")


def checked(blocks: Any) -> tuple[Block, ...]:
    """Return blocks as a tuple of Block; a ValueError names what makes no sense."""
    found = tuple(Block(*block) for block in blocks)
    for i, block in enumerate(found):
        where = f"inputs[{i}]"
        if block.kind not in KINDS:
            raise ValueError(f"{where}.kind must be one of {list(KINDS)}, got {block.kind!r}")
        kind = KINDS[block.kind]
        if not block.columns or len(block.columns) % kind.reads or min(block.columns) < 0:
            raise ValueError(
                f"{where}.columns must be {kind.reads} per feature, 0 or more, of at least one: {block.columns}"
            )
        if block.size < 1 or (block.kind == "plain" and block.size != 1):
            raise ValueError(f"{where}.size must be at least 1, and 1 of a plain block, got {block.size}")
        if ("frequencies" in kind.fields) != (block.frequencies > 0):
            raise ValueError(f"{where}.frequencies must be above 0 of a periodic block alone, got {block.frequencies}")
        wanted = block.n_features if "counts" in kind.fields else 0
        if len(block.counts) != wanted or any(count < 1 for count in block.counts):
            raise ValueError(f"{where}.counts must be {wanted} numbers above 0, got {block.counts}")
    return found
