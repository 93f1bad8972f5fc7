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


def new_axes(caller: str, ax: Any, width: float, height: float) -> Any:
    """Return the given axes, or those of a new figure of this size in inches."""
    plt = pyplot(caller)
    if ax is not None:
        return ax
    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax
