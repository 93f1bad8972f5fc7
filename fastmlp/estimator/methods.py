"""What a fitted estimator can do besides predicting: describe itself, be saved, be converted.

Each method is one line to the module that does it, imported when it is called: importing the estimators stays cheap,
and an error about a missing optional package comes only when the method is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    import torch
    from sklearn import neural_network

    from fastmlp.estimator.description import Summary
    from fastmlp.estimators import MLPClassifier, MLPRegressor


class FileMethods:
    """The methods of all estimators that other modules implement."""

    def summary(self, n_features: int | None = None, n_outputs: int | None = None) -> Summary:
        """Return the layers, shapes, parameters, memory and arithmetic of the network; see :func:`fastmlp.summary`."""
        from fastmlp.estimator.description import summary

        return summary(self, n_features, n_outputs)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        optimizer_state: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the estimator to one safetensors file; see :func:`fastmlp.saving.model_writer.save`."""
        from fastmlp.saving.model_writer import save

        save(self, path, optimizer_state=optimizer_state, metadata=metadata)

    def to_onnx(
        self, path: str | os.PathLike[str] | None = None, *, opset: int | None = None, dtype: Any = None
    ) -> Any:
        """Return the fitted network as an ONNX model; see :func:`fastmlp.export.onnx.to_onnx`."""
        from fastmlp.export.onnx import to_onnx

        return to_onnx(self, path, opset=opset, dtype=dtype)


class ModelMethods(FileMethods):
    """Those of estimators that read matrices of numbers."""

    @overload
    def to_sklearn(self: MLPClassifier) -> neural_network.MLPClassifier: ...  # type: ignore[misc] # a class below
    @overload
    def to_sklearn(self: MLPRegressor) -> neural_network.MLPRegressor: ...  # type: ignore[misc]
    def to_sklearn(self: Any) -> Any:
        """Return the same network as scikit-learn's estimator; see :func:`fastmlp.saving.to_sklearn.to_sklearn`."""
        from fastmlp.saving.to_sklearn import to_sklearn

        return to_sklearn(self)

    def to_torch(self, *, outputs: Literal["logits", "predictions"] = "logits") -> torch.nn.Sequential:
        """Return the fitted network as a ``torch.nn.Sequential``; see :func:`fastmlp.saving.to_torch.to_torch`."""
        from fastmlp.saving.to_torch import to_torch

        return to_torch(self, outputs=outputs)

    def to_c(self, path: str | os.PathLike[str] | None = None, *, name: str = "model") -> str:
        """Return the fitted network as one C99 file without dependencies; see :func:`fastmlp.export.c.to_c`."""
        from fastmlp.export.c import to_c

        return to_c(self, path, name=name)
