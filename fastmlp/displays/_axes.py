"""What the displays share: matplotlib, imported late, and axes to draw on."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def pyplot(caller: str) -> ModuleType:
    """Return ``matplotlib.pyplot``.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message names the extra.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f'{caller} needs matplotlib: pip install "fastmlp[plot]"') from error
    return plt


class Display:
    """A picture; ``ax_`` and ``figure_`` hold its last drawing."""

    ax_: Any
    figure_: Any

    def _begin(self, ax: Any, width: float, height: float) -> Any:
        """Return the axes to draw on: those given, or those of a new figure of this size in inches."""
        plt = pyplot(f"{type(self).__name__}.plot")
        self.ax_ = plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        return self.ax_
