"""The shape of a network, and the layout of its parameters in one flat vector.

A Network is what estimators hand to an engine together with a flat vector ``params``; it holds no weights itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Network:
    """An immutable description of a multi-layer perceptron.

    Parameters
    ----------
    widths : tuple of int
        Units per layer: (n_features, *hidden, n_outputs).
    activations : tuple of str
        One per hidden layer, keys of ``kernels.formulas.ACTIVATIONS``.
    loss : str
        Key of ``kernels.formulas.LOSSES``; its link is the output activation.
    dtype : numpy dtype
        float32 or float64: of the parameters and of all arithmetic.

    Notes
    -----
    The flat parameter vector is ``[W0 .. Wn | b0 .. bn]``, each W (fan_in, fan_out) in C order: the penalty covers a
    prefix, an optimizer step is one pass, and L-BFGS takes the vector as it is.

    Examples
    --------
    >>> from fastmlp.network import Network
    >>> Network((4, 5, 5, 3), ("relu", "relu"), "log_loss", np.dtype("float64")).n_params
    73
    """

    widths: tuple[int, ...]
    activations: tuple[str, ...]
    loss: str
    dtype: np.dtype

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(width < 1 for width in self.widths):
            raise ValueError(f"widths must be at least two positive numbers, got {self.widths}")
        if len(self.activations) != len(self.widths) - 2:
            raise ValueError(
                f"activations must name one per hidden layer, {len(self.widths) - 2}, got {self.activations}"
            )
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {self.dtype}")

    @property
    def n_layers(self) -> int:
        """Number of linear layers."""
        return len(self.widths) - 1

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """(fan_in, fan_out) of each layer."""
        return list(pairwise(self.widths))

    @cached_property
    def n_weights(self) -> int:
        """Length of the prefix of the flat vector that holds the weights."""
        return sum(fan_in * fan_out for fan_in, fan_out in self.shapes)

    @cached_property
    def n_params(self) -> int:
        """Length of the flat vector."""
        return self.n_weights + sum(self.widths[1:])

    def with_dtype(self, dtype: Any) -> Network:
        """The same network in another dtype."""
        return self if self.dtype == dtype else replace(self, dtype=np.dtype(dtype))

    def coefs(self, params: np.ndarray) -> list[np.ndarray]:
        """Weight matrices (fan_in, fan_out) as views of the flat vector."""
        views, start = [], 0
        for fan_in, fan_out in self.shapes:
            views.append(params[start : start + fan_in * fan_out].reshape(fan_in, fan_out))
            start += fan_in * fan_out
        return views

    def intercepts(self, params: np.ndarray) -> list[np.ndarray]:
        """Bias vectors (fan_out,) as views of the flat vector."""
        views, start = [], self.n_weights
        for fan_out in self.widths[1:]:
            views.append(params[start : start + fan_out])
            start += fan_out
        return views

    def initial_params(self, rng: np.random.RandomState, gain: float) -> np.ndarray:
        """Glorot-uniform weights and biases, drawn in scikit-learn's order: per layer W, then b.

        The bound is sqrt(gain / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16, where gain is 6).
        """
        params = np.empty(self.n_params, dtype=self.dtype)
        for W, b in zip(self.coefs(params), self.intercepts(params), strict=True):
            bound = np.sqrt(gain / sum(W.shape))
            W[...] = rng.uniform(-bound, bound, W.shape)
            b[...] = rng.uniform(-bound, bound, b.shape)
        return params

    def flatten(self, coefs: Sequence[Any], intercepts: Sequence[Any]) -> np.ndarray:
        """The flat vector behind these arrays: shared if they are its views in place, otherwise a new one.

        Raises
        ------
        ValueError
            If an array does not have the shape that the network wants.
        """
        shared = self.shared_base(coefs, intercepts)
        if shared is not None:
            return shared
        params = np.empty(self.n_params, dtype=self.dtype)
        for name, views, arrays in (
            ("coefs_", self.coefs(params), coefs),
            ("intercepts_", self.intercepts(params), intercepts),
        ):
            for i, (view, array) in enumerate(zip(views, arrays, strict=True)):
                if np.shape(array) != view.shape:
                    raise ValueError(f"{name}[{i}] must have shape {view.shape}, got {np.shape(array)}")
                view[...] = array
        return params

    def shared_base(self, coefs: Sequence[Any], intercepts: Sequence[Any]) -> np.ndarray | None:
        """The flat vector of which these arrays are the views, or None."""
        base: Any = getattr(coefs[0], "base", None)
        if not isinstance(base, np.ndarray) or base.shape != (self.n_params,) or base.dtype != self.dtype:
            return None
        views = [*self.coefs(base), *self.intercepts(base)]
        arrays = [*coefs, *intercepts]
        in_place = len(arrays) == len(views) and all(
            getattr(array, "base", None) is base
            and array.shape == view.shape
            and array.strides == view.strides
            and array.__array_interface__["data"] == view.__array_interface__["data"]
            for array, view in zip(arrays, views, strict=True)
        )
        return base if in_place and base.flags.c_contiguous else None

    def check_memory(self, n_vectors: int) -> None:
        """Refuse a network whose parameter-sized vectors cannot fit this machine, before anything is allocated.

        Raises
        ------
        MemoryError
            Naming the layer sizes.
        """
        needed = self.n_params * self.dtype.itemsize * n_vectors
        limit = _physical_memory()
        if needed > limit:
            raise MemoryError(
                f"hidden_layer_sizes={list(self.widths[1:-1])} with {self.widths[0]} features and {self.widths[-1]} "
                f"outputs needs {self.n_params} parameters: training takes at least {needed / 2**30:.4g} GiB, "
                f"this machine has {limit / 2**30:.4g} GiB"
            )


def _physical_memory() -> int:
    """Bytes of memory of this machine; where the system does not tell, what can be addressed."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return int(np.iinfo(np.intp).max)
