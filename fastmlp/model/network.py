"""The shape of a network, and the layout of its parameters in one flat vector.

A Network is what estimators hand to an engine together with a flat vector ``params``; it holds no weights itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from fastmlp.kernels import feature_table
from fastmlp.model import choices
from fastmlp.model.segments import Segment, segments_of
from fastmlp.model.stages import OPTIONS, PREDICTS, Fold, Stages, whole_batch

#: How exact the products of a float32 network are, the most exact first; the names and meanings are PyTorch's.
MATMUL_PRECISIONS = ("highest", "high", "medium")


def check_precision(matmul_precision: Any, dtype: Any) -> None:
    """Raise a ValueError if there is no such precision of products, or none of this dtype."""
    if matmul_precision not in MATMUL_PRECISIONS:
        raise ValueError(f"matmul_precision must be one of {MATMUL_PRECISIONS}, got {matmul_precision!r}")
    if matmul_precision != "highest" and np.dtype(dtype) != np.float32:
        raise ValueError(
            f"matmul_precision={matmul_precision!r} is for float32, but this network is {dtype}, which has 'highest'"
            " only: give X, or the dtype of an estimator for tables, as float32"
        )


@dataclass(frozen=True)
class Network(Stages):
    """An immutable description of a multi-layer perceptron.

    Parameters
    ----------
    widths : tuple of int
        Units per layer: (n_features, *hidden, n_outputs).
    activations : tuple of entries
        One per hidden layer: a key of ``kernels.formulas.ACTIVATIONS``, or (key, {parameter: value}), or a formula of
        the user's.
    loss : entry
        Likewise for ``kernels.formulas.LOSSES``; its link is the output activation.
    dtype : numpy dtype
        float32 or float64: of the parameters and of all arithmetic.
    inputs : tuple of Block
        Feature blocks between X and the first layer (:mod:`fastmlp.kernels.feature_table`); () means X itself.
    input_scale : bool
        Whether each column of the first layer's input has a trained factor.
    members : int
        Networks that share weights (Gorishniy et al. 2024, arXiv:2410.24210): each row of a batch passes through all of
        them. They differ in their factors of the first layer's input and in their last layers. The loss is the mean of
        their losses, and predictions are means of theirs.
    batch_ensemble : bool
        Whether members also differ in factors of what each layer reads and makes, and in all biases (TabM); otherwise
        hidden layers are the same for all members (TabM-mini).
    average : bool
        Whether predictions are means over the members; otherwise the engines predict the logits of each member,
        (n, members * n_outputs).
    parametric_activations : bool
        Whether hidden activations are z + (f(z) - z) * mix with a trained factor per neuron.
    matmul_precision : str
        An entry of ``MATMUL_PRECISIONS``: how exact the products must be at least. "highest" is the arithmetic of the
        dtype. For float32, engines may multiply halves of bfloat16 with sums of float32: three products with "high",
        one with "medium". An engine or a processor without matrix units for it computes "highest".
    **options
        What lies between two products: see :class:`fastmlp.model.stages.Stages`.

    Notes
    -----
    The flat parameter vector is ``[W0 .. Wn | b0 .. bn | inputs' arrays | unit parameters | running statistics]``, each
    W (fan_in, fan_out) in C order: the penalty covers a prefix, an optimizer step is one pass, and L-BFGS takes the
    vector as it is. Inputs' arrays, block by block, are those of feature blocks, then the factors of columns and of
    members. Unit parameters, for one hidden layer after the other: with batch_norm its scale and its shift, for prelu
    its slope, each (fan_out,). Running statistics, with batch_norm only and likewise: mean and variance, each
    (fan_out,). Most networks have neither. :mod:`fastmlp.model.segments` declares this layout.

    Examples
    --------
    >>> from fastmlp.model.network import Network
    >>> Network((4, 5, 5, 3), ("relu", "relu"), "log_loss", np.dtype("float64")).n_params
    73
    """

    widths: tuple[int, ...]
    activations: tuple[Any, ...]
    loss: Any
    dtype: np.dtype
    inputs: tuple[feature_table.Block, ...] = ()
    input_scale: bool = False
    members: int = 1
    batch_ensemble: bool = False
    average: bool = True
    parametric_activations: bool = False
    matmul_precision: str = "highest"

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(width < 1 for width in self.widths):
            raise ValueError(f"widths must be at least two positive numbers, got {self.widths}")
        if len(self.activations) != len(self.widths) - 2:
            raise ValueError(
                f"activations must name one per hidden layer, {len(self.widths) - 2}, got {self.activations}"
            )
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {self.dtype}")
        for name, option in OPTIONS.items():
            given = getattr(self, name)
            kept = option.off if given is option.off else option.read(given, len(self.activations))
            object.__setattr__(self, name, kept)
        check_precision(self.matmul_precision, self.dtype)
        self._check_inputs()

    def _check_inputs(self) -> None:
        object.__setattr__(self, "inputs", feature_table.checked(self.inputs))
        made = sum(block.width for block in self.inputs)
        if self.inputs and made != self.widths[0]:
            raise ValueError(f"inputs must make the {self.widths[0]} columns that the first layer reads, got {made}")
        if self.inputs and self.input_dropout:
            raise ValueError("input_dropout is for networks that read X itself, not for feature blocks")
        if self.members < 1 or (self.batch_ensemble and self.members == 1):
            raise ValueError(f"members must be at least 1, and 2 with batch_ensemble, got {self.members}")
        if not self.average and self.members == 1:
            raise ValueError("average=False is for members above 1: it asks for the predictions of each")
        if self.members > 1 and (self.batch_norm or not self.input_scale):
            raise ValueError("members need input_scale, by which they differ, and no batch_norm")
        names = [entry[0] if isinstance(entry, tuple) else entry for entry in self.activations]
        if self.parametric_activations and "prelu" in names:
            raise ValueError("parametric_activations are not for 'prelu', which learns its own slopes")
        if self.parametric_activations and self.drawn_slopes:
            raise ValueError("parametric_activations are not for 'rrelu', which draws its slopes")

    @cached_property
    def n_columns(self) -> int:
        """Columns of X that the network needs: the first layer's, or those that the feature blocks read."""
        return 1 + max(max(block.columns) for block in self.inputs) if self.inputs else self.widths[0]

    @property
    def n_layers(self) -> int:
        """Number of linear layers."""
        return len(self.widths) - 1

    @cached_property
    def drawn_slopes(self) -> tuple[tuple[float, float] | None, ...]:
        """The bounds of the slopes that training draws in each hidden layer, or None; () if no layer draws any."""
        found = tuple(map(choices.drawn, self.activations))
        return found if any(found) else ()

    @property
    def draws_nothing(self) -> Network:
        """This network with the mean of the slopes in place of those that it draws; dropout is another matter."""
        if not self.drawn_slopes:
            return self
        means = [bounds and ("leaky_relu", {"negative_slope": sum(bounds) / 2}) for bounds in self.drawn_slopes]
        return replace(self, activations=tuple(a or b for a, b in zip(means, self.activations, strict=True)))

    @cached_property
    def whole_batch(self) -> tuple[bool, ...]:
        """Whether each hidden layer needs all rows of a batch at once, in training."""
        return tuple(whole_batch(self, layer) for layer in range(len(self.activations)))

    @cached_property
    def needs_whole_batch(self) -> bool:
        """Whether a hidden layer needs all rows of a batch at once: no batch may be divided into chunks."""
        return any(self.whole_batch)

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """(fan_in, fan_out) of each layer."""
        return list(pairwise(self.widths))

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The pieces of the flat vector, in order and without gaps; see :mod:`fastmlp.model.segments`."""
        return segments_of(self)

    @cached_property
    def n_weights(self) -> int:
        """Length of the prefix of the flat vector that holds the weights."""
        return sum(segment.size for segment in self.segments if segment.name == "W")

    @cached_property
    def n_linear(self) -> int:
        """Length of the prefix that holds weights and biases."""
        return sum(segment.size for segment in self.segments if segment.name in ("W", "b"))

    @cached_property
    def n_trained(self) -> int:
        """Length of the prefix that training updates: all but the running statistics."""
        return sum(segment.size for segment in self.segments if segment.trained)

    @cached_property
    def n_params(self) -> int:
        """Length of the flat vector."""
        return sum(segment.size for segment in self.segments)

    @cached_property
    def input_segments(self) -> list[dict[str, Segment]]:
        """The segments of each feature block, by name."""
        blocks: list[dict[str, Segment]] = [{} for _ in self.inputs]
        for segment in self.segments:
            if segment.name in feature_table.ARRAYS:
                blocks[segment.layer][segment.name] = segment
        return blocks

    @cached_property
    def unit_segments(self) -> list[dict[str, Segment]]:
        """The segments of each hidden layer besides weights and biases, by name."""
        layers: list[dict[str, Segment]] = [{} for _ in self.activations]
        for segment in self.segments:
            if segment.of_units:
                layers[segment.layer][segment.name] = segment
        return layers

    def with_dtype(self, dtype: Any) -> Network:
        """The same network in another dtype; in float64 its products are exact to float64."""
        if self.dtype == dtype:
            return self
        precision = self.matmul_precision if dtype == np.float32 else "highest"
        return replace(self, dtype=np.dtype(dtype), matmul_precision=precision)

    def with_precision(self, matmul_precision: str) -> Network:
        """The same network with products of another precision."""
        return replace(self, matmul_precision=matmul_precision)

    def coefs(self, params: np.ndarray) -> list[np.ndarray]:
        """Weight matrices (fan_in, fan_out) as views of the flat vector."""
        return [segment.view(params) for segment in self.segments if segment.name == "W"]

    def intercepts(self, params: np.ndarray) -> list[np.ndarray]:
        """Bias vectors (fan_out,) as views of the flat vector."""
        return [segment.view(params) for segment in self.segments if segment.name == "b"]

    def unit_parameters(self, params: np.ndarray) -> list[dict[str, np.ndarray]]:
        """For each hidden layer its "scale" and "shift" (batch_norm) and "slope" (prelu), (fan_out,) views."""
        return self._unit_views(params, trained=True)

    def running_statistics(self, params: np.ndarray) -> list[dict[str, np.ndarray]]:
        """For each hidden layer its running "mean" and "var" (batch_norm), (fan_out,) views of the flat vector."""
        return self._unit_views(params, trained=False)

    def _unit_views(self, params: np.ndarray, trained: bool) -> list[dict[str, np.ndarray]]:
        return [
            {name: segment.view(params) for name, segment in layer.items() if segment.trained == trained}
            for layer in self.unit_segments
        ]

    def reset_units(self, params: np.ndarray) -> None:
        """Give unit parameters and running statistics their first values, in place."""
        for segment in self.segments:
            if segment.first is not None:
                params[segment.where] = segment.first

    @property
    def plain(self) -> Network:
        """This network as it predicts: without its options, which are off or folded away."""
        return self if all(getattr(self, name) == option.off for name, option in OPTIONS.items()) else self._stripped

    @cached_property
    def _stripped(self) -> Network:
        return replace(self, **{name: option.off for name, option in OPTIONS.items()})

    @cached_property
    def folds(self) -> list[Fold]:
        """What makes weights and biases of the options that it has; empty where there is nothing to fold."""
        return [option.fold for name, option in PREDICTS.items() if option.fold and getattr(self, name)]

    def folded(self, params: np.ndarray) -> tuple[Network, np.ndarray]:
        """The network and the flat vector to predict with: what lies between two products becomes weights and biases.

        Returns
        -------
        network : Network
            ``self.plain``.
        params : ndarray of shape (plain.n_params,)
            The same vector where there is nothing to fold, else a new one.
        """
        if not self.folds:
            return self.plain, params
        folded = np.empty(self.plain.n_params, dtype=self.dtype)
        ours = {(segment.layer, segment.name): segment for segment in self.segments}
        for kept in self.plain.segments:
            folded[kept.where] = params[ours[kept.layer, kept.name].where]
        for fold in self.folds:
            fold(self, params, self.plain.coefs(folded), self.plain.intercepts(folded))
        return self.plain, folded

    def up_to(self, layer: int) -> Network:
        """The network of the hidden layers up to one, whose outputs are that layer's; see :meth:`params_up_to`.

        With members, each has outputs of its own, one after the other.
        """
        n_hidden = layer + 1
        return replace(
            self,
            widths=(*self.widths[: n_hidden + 1], self.widths[n_hidden]),
            activations=self.activations[:n_hidden],
            loss="squared_error",
            average=self.members == 1,
            matmul_precision="highest",  # the layer on top multiplies by 1
            **{
                name: getattr(self, name)[:n_hidden] if name in PREDICTS else option.off
                for name, option in OPTIONS.items()
            },
        )

    def params_up_to(self, first: Network, params: np.ndarray) -> np.ndarray:
        """The flat vector of `first`, which is :meth:`up_to` of this network: the layer on top is the identity."""
        found = np.zeros(first.n_params, self.dtype)
        for to, where in self.places_up_to(first):
            found[to] = params[where]
        first.coefs(found)[-1][...] = np.eye(first.widths[-1])
        return found

    def places_up_to(self, first: Network) -> list[tuple[slice, slice]]:
        """Places in the flat vector of `first`, and where the same arrays are in that of this network."""
        ours = {(segment.layer, segment.name): segment.where for segment in self.segments}
        on_top = {(first.n_layers - 1, "W"), (first.n_layers - 1, "b")}
        theirs = {(segment.layer, segment.name): segment.where for segment in first.segments}
        return [(where, ours[name]) for name, where in theirs.items() if name not in on_top]

    def initial_params(self, rng: np.random.RandomState, gain: float) -> np.ndarray:
        """Glorot-uniform weights and biases, drawn in scikit-learn's order: per layer W, then b.

        The bound is sqrt(gain / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16, where gain is 6). Arrays of
        feature blocks are drawn after all layers, standard normal.
        """
        params = np.empty(self.n_params, dtype=self.dtype)
        for W, b in zip(self.coefs(params), self.intercepts(params), strict=True):
            bound = np.sqrt(gain / sum(W.shape[-2:]))
            W[...] = rng.uniform(-bound, bound, W.shape)
            b[...] = rng.uniform(-bound, bound, b.shape)
        for segment in self.segments:
            if segment.of_inputs and segment.first is None:
                params[segment.where] = rng.standard_normal(segment.size)
        self.reset_units(params)
        return params

    def flatten(self, coefs: Sequence[Any], intercepts: Sequence[Any]) -> np.ndarray:
        """The flat vector behind these arrays: shared if they are its views in place, otherwise a new one.

        Views of a vector of another dtype bring its unit parameters and running statistics along; other arrays get
        their first values.

        Raises
        ------
        ValueError
            If an array does not have the shape that the network wants.
        """
        base = self._base(coefs, intercepts)
        if base is not None:
            return base.astype(self.dtype, copy=False)
        params = np.empty(self.n_params, dtype=self.dtype)
        self.reset_units(params)
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
        base = self._base(coefs, intercepts)
        return base if base is not None and base.dtype == self.dtype else None

    def _base(self, coefs: Sequence[Any], intercepts: Sequence[Any]) -> np.ndarray | None:
        """The flat vector, of whatever dtype, of which these arrays are the views, or None."""
        base: Any = getattr(coefs[0], "base", None)
        if not isinstance(base, np.ndarray) or base.shape != (self.n_params,) or base.dtype.kind != "f":
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
        return base if in_place and base.flags.c_contiguous and base.flags.aligned else None

    def check_memory(self, n_vectors: float) -> None:
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


@cache
def _physical_memory() -> int:
    """Bytes of memory of this machine or container; where the system does not tell, what can be addressed."""
    found = int(np.iinfo(np.intp).max)
    with suppress(AttributeError, ValueError, OSError):
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(ValueError, OSError), open("/sys/fs/cgroup/memory.max") as limit:
        found = min(found, int(limit.read()))  # "max" if there is none
    return found
