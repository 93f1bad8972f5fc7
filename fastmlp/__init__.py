"""fastmlp: scikit-learn's multi-layer perceptrons on a compiled engine.

Importing the package is cheap: the estimators load at first use.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["MLPClassifier", "MLPRegressor", "__version__"]

if TYPE_CHECKING:
    from fastmlp.estimators import MLPClassifier, MLPRegressor


def __getattr__(name: str) -> Any:
    if name in ("MLPClassifier", "MLPRegressor"):
        from fastmlp import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module 'fastmlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
