"""Fitted weights: the arrays that users see, and the flat vector that engines train and predict with.

``coefs_``, ``intercepts_``, the arrays of neurons (``bn_scales_``, ``prelu_slopes_``, ...) and those of the inputs
(``embedding_``, ``input_scale_``, ...) are views of one flat vector after fit. Users may edit them in place or assign
others; :func:`flat_params` returns the vector in both cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastmlp.kernels import feature_table
from fastmlp.model.network import Network
from fastmlp.model.segments import Segment
from fastmlp.model.stages import UNIT_ATTRIBUTES

#: Attributes of feature blocks, of the factors in front of the first layer, and of members.
INPUT_ATTRIBUTES = tuple(f"{name}_" for name in (*feature_table.ARRAYS, *feature_table.SCALES))

#: Attributes besides coefs_ and intercepts_.
FURTHER_ATTRIBUTES = (*UNIT_ATTRIBUTES.values(), *INPUT_ATTRIBUTES)


def expose(estimator: Any, network: Network, params: np.ndarray) -> None:
    """Give an estimator the views of its flat vector; attributes of neurons and inputs only if the network has them."""
    for attribute in FURTHER_ATTRIBUTES:
        estimator.__dict__.pop(attribute, None)
    vars(estimator).update(views(network, params))


def views(network: Network, params: np.ndarray) -> dict[str, list]:
    """Return public attribute -> views of the flat vector, one per layer or block, None for one without."""
    return {
        attribute: [None if segment is None else segment.view(params) for segment in segments]
        for attribute, segments in places(network).items()
    }


def places(network: Network) -> dict[str, list[Segment | None]]:
    """Return public attribute -> segments of the flat vector, one per layer or block, None for one without."""
    found: dict[str, list[Segment | None]] = {}
    for segment in network.segments:
        of_attribute = found.setdefault(segment.attribute, [None] * _n_places(network, segment))
        of_attribute[segment.layer] = segment
    return found


def _n_places(network: Network, segment: Segment) -> int:
    """Return the length of the list that an array is in: an entry per layer, hidden layer, or feature block."""
    if segment.attribute in ("coefs_", "intercepts_"):
        return network.n_layers
    if segment.name in feature_table.ARRAYS:
        return len(network.inputs)
    return 1 if segment.name == "input_scale" else len(network.activations)


def flat_params(estimator: Any, network: Network) -> np.ndarray:
    """Return the flat vector of an estimator's arrays: the shared one if they are its views, else a new one.

    A ValueError names an array that does not have the shape that the network wants.
    """
    params = network.flatten(estimator.coefs_, estimator.intercepts_)
    if network.n_params == network.n_linear:
        return params
    strangers = [(unit, array) for unit, array in _further_arrays(estimator, network) if not _is(array, unit, params)]
    if strangers:
        params = params.copy()
        for unit, array in strangers:
            unit.view(params)[...] = array
    return params


def shared_params(estimator: Any, network: Network) -> np.ndarray | None:
    """Return the flat vector if all the estimator's arrays are views of it, or None."""
    base = network.shared_base(estimator.coefs_, estimator.intercepts_)
    if base is None or network.n_params == network.n_linear:
        return base
    return base if all(_is(array, unit, base) for unit, array in _further_arrays(estimator, network)) else None


def further_arrays(estimator: Any) -> tuple:
    """Return every array of the attributes of neurons and inputs; None for a layer without one."""
    attributes = estimator.__dict__
    return sum((tuple(attributes.get(name, ())) for name in FURTHER_ATTRIBUTES), ())


def linear_shape(coefs: Sequence[Any], intercepts: Sequence[Any]) -> tuple[tuple[int, ...], np.dtype]:
    """Return (widths, dtype) of the network that these matrices and vectors, a chain of layers, describe."""
    matrices = [np.asarray(W) for W in coefs]
    for i, W in enumerate(matrices):
        if W.ndim != 2 or (i and W.shape[0] != matrices[i - 1].shape[1]):
            raise ValueError(f"coefs_ must be a chain of matrices, got shapes {[W.shape for W in matrices]}")
    if len(intercepts) != len(matrices):
        raise ValueError(f"intercepts_ must hold {len(matrices)} vectors, got {len(intercepts)}")
    dtype = np.result_type(*(W.dtype for W in matrices))
    widths = (matrices[0].shape[0], *(W.shape[1] for W in matrices))
    return widths, np.dtype(dtype if dtype in (np.float32, np.float64) else np.float64)


def start_from(network: Network, params: np.ndarray, coef_init: Any, intercept_init: Any) -> None:
    """Copy the arrays that a user wants training to start from, where given, into the flat vector; None gives none.

    A ValueError refuses arrays that have other shapes than the network's, or are not finite numbers.
    """
    _overwrite(network.coefs(params), coef_init, "coef_init")
    _overwrite(network.intercepts(params), intercept_init, "intercept_init")


def _overwrite(views: list[np.ndarray], given: Any, argument: str) -> None:
    if given is None:
        return
    shapes = [view.shape for view in views]
    if not isinstance(given, list | tuple) or len(given) != len(views):
        raise ValueError(f"{argument} must be a list of {len(views)} arrays or None, one per layer, of shapes {shapes}")
    for i, (view, array) in enumerate(zip(views, given, strict=True)):
        if array is None:
            continue
        try:
            array = np.asarray(array, dtype=view.dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{argument}[{i}] must be an array of numbers: {error}") from error
        if array.shape != view.shape:
            raise ValueError(f"{argument}[{i}] must have shape {view.shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{argument}[{i}] must be finite")
        view[...] = array


def _further_arrays(estimator: Any, network: Network) -> Iterator[tuple[Segment, Any]]:
    """Yield (segment, array) of every attribute of neurons and inputs that the estimator has."""
    for segment in network.segments:
        if segment.attribute in ("coefs_", "intercepts_"):
            continue
        arrays = getattr(estimator, segment.attribute, None)
        if arrays is None:
            continue  # weights set by hand, without these: they have their first values
        n, of_what = _n_places(network, segment), "feature block" if segment.of_inputs else "hidden layer"
        if len(arrays) != n:
            raise ValueError(f"{segment.attribute} must hold an entry per {of_what}, {n}, got {len(arrays)}")
        array = arrays[segment.layer]
        if array is None:
            continue
        if np.shape(array) != segment.shape:
            name = f"{segment.attribute}[{segment.layer}]"
            raise ValueError(f"{name} must have shape {segment.shape}, got {np.shape(array)}")
        yield segment, array


def _is(array: Any, unit: Segment, params: np.ndarray) -> bool:
    """Return whether an array is exactly the memory of a segment of the flat vector."""
    view = unit.view(params)
    return (
        isinstance(array, np.ndarray)
        and array.dtype == view.dtype
        and array.strides == view.strides
        and array.__array_interface__["data"] == view.__array_interface__["data"]
    )
