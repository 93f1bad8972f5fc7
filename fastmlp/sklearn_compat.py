"""Names of scikit-learn that are not public: the one place that a new release of scikit-learn may break.

A leaf below everything else, without imports of its own: each name loads its module when it is first asked for, so
that importing this file costs nothing. ``tests/test_layers.py`` holds that no other file imports private names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# ruff: noqa: F401 - the names are for type checkers here, and for everybody else below
if TYPE_CHECKING:
    from sklearn.base import _fit_context
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
    from sklearn.utils import _safe_indexing
    from sklearn.utils._array_api import get_namespace
    from sklearn.utils._available_if import _AvailableIfDescriptor
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
    from sklearn.utils._param_validation import (
        HasMethods,
        Interval,
        Options,
        StrOptions,
        validate_parameter_constraints,
    )
    from sklearn.utils.multiclass import _check_partial_fit_first_call
    from sklearn.utils.optimize import _check_optimize_result
    from sklearn.utils.validation import _check_sample_weight, _check_y, _num_samples

_MODULES = {
    "AdamOptimizer": "sklearn.neural_network._stochastic_optimizers",
    "HasMethods": "sklearn.utils._param_validation",
    "Interval": "sklearn.utils._param_validation",
    "Options": "sklearn.utils._param_validation",
    "SGDOptimizer": "sklearn.neural_network._stochastic_optimizers",
    "StrOptions": "sklearn.utils._param_validation",
    "_AvailableIfDescriptor": "sklearn.utils._available_if",
    "_check_optimize_result": "sklearn.utils.optimize",
    "_check_partial_fit_first_call": "sklearn.utils.multiclass",
    "_check_sample_weight": "sklearn.utils.validation",
    "_check_y": "sklearn.utils.validation",
    "_fit_context": "sklearn.base",
    "_num_samples": "sklearn.utils.validation",
    "_openmp_effective_n_threads": "sklearn.utils._openmp_helpers",
    "_safe_indexing": "sklearn.utils",
    "get_namespace": "sklearn.utils._array_api",
    "validate_parameter_constraints": "sklearn.utils._param_validation",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
