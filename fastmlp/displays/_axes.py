"""What the displays share: matplotlib, imported late, and axes to draw on."""

from __future__ import annotations

from typing import Any

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
