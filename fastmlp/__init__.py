"""fastmlp: scikit-learn's multi-layer perceptrons on a compiled engine.

Importing the package is cheap: the estimators, and the decorators of formulas, load at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "MLPClassifier",
    "MLPRegressor",
    "__version__",
    "activation",
    "from_sklearn",
    "load",
    "loss",
    "summary",
]

if TYPE_CHECKING:
    from fastmlp.estimator.description import summary
    from fastmlp.estimators import MLPClassifier, MLPRegressor
    from fastmlp.kernels.language import activation, loss
    from fastmlp.persistence import load
    from fastmlp.saving.conversion import from_sklearn

_MODULES = {
    "MLPClassifier": "fastmlp.estimators",
    "MLPRegressor": "fastmlp.estimators",
    "activation": "fastmlp.kernels.language",
    "from_sklearn": "fastmlp.saving.conversion",
    "load": "fastmlp.persistence",
    "loss": "fastmlp.kernels.language",
    "summary": "fastmlp.estimator.description",
}


if not TYPE_CHECKING:  # a checker that saw it would take any name

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'fastmlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
