"""What all classifiers share about their targets."""

from __future__ import annotations

import numpy as np
from sklearn.utils.multiclass import unique_labels

from fastmlp.data import targets
from fastmlp.estimator import types
from fastmlp.estimator.base import BaseNetwork


class ClassTargets(BaseNetwork):
    """Targets that are classes: those of validation rows, and their weights."""

    class_weight: types.ClassWeight | None

    def _check_validation_targets(self, y: np.ndarray, y_val: np.ndarray) -> None:
        super()._check_validation_targets(y, y_val)
        unknown = np.setdiff1d(unique_labels(y_val), self.classes_)
        if len(unknown):
            raise ValueError(f"y_val has classes that y does not have: {unknown}; y has {self.classes_}")

    def _weigh(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray | None:
        return targets.weigh_classes(self.class_weight, self.classes_, y, sample_weight)
