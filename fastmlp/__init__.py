"""fastmlp: scikit-learn's multi-layer perceptrons on a compiled engine.

Importing the package is cheap: the estimators, the decorators of formulas, and the modules load at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "EnsembleSearchClassifier",
    "EnsembleSearchRegressor",
    "MLPClassifier",
    "MLPRegressor",
    "RealMLPClassifier",
    "RealMLPRegressor",
    "TabMClassifier",
    "TabMRegressor",
    "__version__",
    "activation",
    "from_sklearn",
    "from_torch",
    "load",
    "loss",
    "summary",
    "to_sklearn",
    "to_torch",
]

if TYPE_CHECKING:
    from fastmlp import callbacks as callbacks
    from fastmlp import dask as dask
    from fastmlp import datasets as datasets
    from fastmlp import displays as displays
    from fastmlp import distributed as distributed
    from fastmlp import engines as engines
    from fastmlp import estimator as estimator
    from fastmlp import export as export
    from fastmlp import persistence as persistence
    from fastmlp import playground as playground
    from fastmlp import saving as saving
    from fastmlp import search as search
    from fastmlp import tabular as tabular
    from fastmlp import training as training
    from fastmlp.estimator.description import summary
    from fastmlp.estimators import MLPClassifier, MLPRegressor
    from fastmlp.kernels.language import activation, loss
    from fastmlp.persistence import load
    from fastmlp.saving.conversion import from_sklearn
    from fastmlp.saving.from_torch import from_torch
    from fastmlp.saving.to_sklearn import to_sklearn
    from fastmlp.saving.to_torch import to_torch
    from fastmlp.search.estimators import EnsembleSearchClassifier, EnsembleSearchRegressor
    from fastmlp.tabular_estimators import RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor

_MODULES = {
    "EnsembleSearchClassifier": "fastmlp.search.estimators",
    "EnsembleSearchRegressor": "fastmlp.search.estimators",
    "MLPClassifier": "fastmlp.estimators",
    "MLPRegressor": "fastmlp.estimators",
    "RealMLPClassifier": "fastmlp.tabular_estimators",
    "RealMLPRegressor": "fastmlp.tabular_estimators",
    "TabMClassifier": "fastmlp.tabular_estimators",
    "TabMRegressor": "fastmlp.tabular_estimators",
    "activation": "fastmlp.kernels.language",
    "from_sklearn": "fastmlp.saving.conversion",
    "from_torch": "fastmlp.saving.from_torch",
    "load": "fastmlp.persistence",
    "loss": "fastmlp.kernels.language",
    "summary": "fastmlp.estimator.description",
    "to_sklearn": "fastmlp.saving.to_sklearn",
    "to_torch": "fastmlp.saving.to_torch",
}

#: Modules for users, which ``import fastmlp`` alone makes available.
_SUBMODULES = (
    "callbacks",
    "dask",
    "datasets",
    "displays",
    "distributed",
    "engines",
    "estimator",
    "export",
    "persistence",
    "playground",
    "saving",
    "search",
    "tabular",
    "training",
)


if not TYPE_CHECKING:  # a checker that saw it would take any name

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        if name in _SUBMODULES:
            return import_module(f"fastmlp.{name}")
        raise AttributeError(f"module 'fastmlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
