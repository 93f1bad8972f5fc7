"""Training and prediction on Dask: the rows of a cluster, the weights of one machine.

Read in this order: estimators and tabular_estimators (what users see), fitting (one fit, seen from the client),
partitions (collections -> row blocks on workers), pulse (which workers are lost), work (one rank, on its worker),
communicator and sessions (exchanges between ranks), prediction, scattering (rows of the client -> collections).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastmlp.data.optional import needed

__all__ = [
    "DaskMLPClassifier",
    "DaskMLPRegressor",
    "DaskRealMLPClassifier",
    "DaskRealMLPRegressor",
    "DaskTabMClassifier",
    "DaskTabMRegressor",
    "WorkerLost",
]

if TYPE_CHECKING:
    from fastmlp.dask.estimators import DaskMLPClassifier, DaskMLPRegressor
    from fastmlp.dask.sessions import WorkerLost
    from fastmlp.dask.tabular_estimators import (
        DaskRealMLPClassifier,
        DaskRealMLPRegressor,
        DaskTabMClassifier,
        DaskTabMRegressor,
    )


if not TYPE_CHECKING:  # a checker that saw it would take any name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'fastmlp.dask' has no attribute {name!r}")
        for module in ("distributed", "dask.array", "dask.dataframe"):
            needed(module, f"fastmlp.dask.{name}", '"fastmlp[dask]"')
        module = "tabular_estimators" if "RealMLP" in name or "TabM" in name else "estimators"
        return getattr(import_module(f"fastmlp.dask.{module}"), name)
