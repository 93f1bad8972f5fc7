"""What the displays share: matplotlib, imported late, and axes to draw on."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastmlp.data.optional import needed


class Display:
    """A picture; ``ax_`` and ``figure_`` hold its last drawing."""

    ax_: Any
    figure_: Any

    def _begin(self, ax: Any, width: float, height: float) -> Any:
        """Return the axes to draw on: those given, or those of a new figure of this size in inches."""
        plt = needed("matplotlib.pyplot", f"{type(self).__name__}.plot", '"fastmlp[plot]"')
        self.ax_ = plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        return self.ax_


def numbers(name: str, given: Any) -> np.ndarray:
    """Return a vector of finite float64 numbers that is not empty; a ValueError names the argument."""
    try:
        vector = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a vector of numbers: {error}") from error
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise ValueError(f"{name} must be a vector of finite numbers, got {given!r:.200}")
    return vector
