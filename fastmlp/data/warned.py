"""Warnings that point to the user's line, however many calls of ours and of scikit-learn's lie between."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import joblib
import sklearn

_OWN = (str(Path(__file__).parents[1]), sklearn.__path__[0], joblib.__path__[0])  # joblib runs searches


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that is not fastmlp's, scikit-learn's or joblib's."""
    level, frame = 2, sys._getframe(1)  # 2 is the line that calls this
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
