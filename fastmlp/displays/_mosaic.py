"""Images of neurons side by side, with their numbers: what the displays of weights and of units share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from fastmlp.displays._axes import Display


class Mosaic(Display):
    """A display of images (n_units, height, width) on one axes."""

    image_: Any
    colorbar_: Any

    def _draw_mosaic(
        self,
        ax: Any,
        images: np.ndarray,
        units: np.ndarray,
        n_columns: int | None,
        label: str | None,
        style: dict[str, Any],
    ) -> Any:
        """Draw images with the numbers of their units above them, and a scale with this label; return the axes."""
        n, height, width = images.shape
        if n_columns is None:
            n_columns = max(1, round(math.sqrt(1.5 * n * height / width)))
        if not n_columns >= 1:
            raise ValueError(f"n_columns must be >= 1, got {n_columns!r}")
        n_columns = min(int(n_columns), n)
        n_rows = -(-n // n_columns)
        # a strip above each image has room for its number
        strip, gap = max(1, round(0.3 * height)), max(1, round(0.08 * width))
        mosaic = np.full((n_rows * (height + strip), n_columns * (width + gap) - gap), np.nan)
        tile = 0.75 if max(height, width) <= 12 else 1.0  # inches
        scale = tile / max(height, width)
        ax = self._begin(ax, mosaic.shape[1] * scale + 1.4, mosaic.shape[0] * scale + 0.2)
        corners = [(i // n_columns * (height + strip) + strip, i % n_columns * (width + gap)) for i in range(n)]
        for image, (top, left) in zip(images, corners, strict=True):
            mosaic[top : top + height, left : left + width] = image
        self.image_ = ax.imshow(mosaic, **style)
        for unit, (top, left) in zip(units, corners, strict=True):
            ax.text(left + width / 2 - 0.5, top - 0.5 - 0.1 * strip, str(unit), ha="center", va="bottom", fontsize=7)
        ax.axis("off")
        scaled = None if label is None else self.figure_.colorbar(self.image_, ax=ax, label=label, fraction=0.04)
        self.colorbar_ = scaled
        return ax


def image_shape_of(given: Sequence[int] | None, n_features: int) -> tuple[int, int]:
    """Return height and width of the images that the features are; a ValueError says why there are none."""
    if given is None:
        side = math.isqrt(n_features)
        if side * side != n_features:
            raise ValueError(
                f"image_shape must be given, as (height, width): {n_features} features are no square image"
            )
        return side, side
    shape = tuple(given) if isinstance(given, tuple | list) else ()
    whole = len(shape) == 2 and all(isinstance(n, Integral) and int(n) > 0 for n in shape)
    if not whole or math.prod(shape) != n_features:
        raise ValueError(
            f"image_shape must be (height, width) with {n_features} pixels, one per feature, got {given!r}"
        )
    return int(shape[0]), int(shape[1])


def chosen_units(units: Any, W: np.ndarray) -> np.ndarray:
    """Return the numbers of the neurons to show, of so many those with the largest norms of their columns."""
    n = W.shape[1]
    if isinstance(units, Integral):
        if int(units) < 1:
            raise ValueError(f"units must be >= 1, or numbers of neurons, got {units!r}")
        return np.sort(np.argsort(-np.linalg.norm(W, axis=0), kind="stable")[: int(units)])
    chosen = np.asarray(units)
    if (
        chosen.ndim != 1
        or not len(chosen)
        or chosen.dtype.kind not in "iu"
        or (chosen < 0).any()
        or (chosen >= n).any()
    ):
        raise ValueError(f"units must be how many, or numbers of neurons from 0 to {n - 1}, got {units!r}")
    return chosen
