"""First values of the tabular nets, RealMLP's and TabM's; those of RealMLP-TD look at training rows.

RealMLP (Holzmueller, Grinsztajn and Steinwart 2024, arXiv:2407.04491) has the NTK parametrisation, z = g x V + b with
g = fan_in^-1/2. The flat vector holds W = g V; the optimizer's factors make steps on W of those on V.
TabM (Gorishniy, Kotelnikov and Babenko 2024, arXiv:2410.24210) draws as PyTorch's linear layers do, but for the
factors by which its members differ.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastmlp.model.network import Network

#: Most training rows that first values look at: means over more of them would hardly differ.
MOST_ROWS = 8192

#: Training rows of which each bias is a random mean, "he+5" (after Steinwart 2019, arXiv:1903.11482).
SIMPLEX = 5


class Look(NamedTuple):
    """What first values may look at: training rows, and the engine that computes with them."""

    engine: ModuleType
    X: Any  # (n, network.n_columns), the network's dtype
    rows: np.ndarray | None  # the training rows; None for all
    n_jobs: int | None = None
    take: Callable[[Any, np.ndarray], np.ndarray] = operator.getitem  # returns rows of X


def normal_params(network: Network, rng: np.random.RandomState) -> np.ndarray:
    """Return the flat vector (n_params,) that RealMLP-TD-S starts from.

    V and b are standard normal, except for the last layer, which is 0.
    """
    params = np.zeros(network.n_params, network.dtype)
    network.reset_units(params)
    for W, b in zip(network.coefs(params)[:-1], network.intercepts(params)[:-1], strict=True):
        W[...] = rng.standard_normal(W.shape) / np.sqrt(len(W))
        b[...] = rng.standard_normal(b.shape)
    return params


def data_driven_params(network: Network, rng: np.random.RandomState, look: Look, sigma: float) -> np.ndarray:
    """Return the flat vector (n_params,) that RealMLP-TD starts from; `sigma` is the spread of frequencies.

    Layer after layer, V is standard normal, then each of its columns is divided so that its products with the rows have
    the standard deviation 1. A bias is minus a random convex combination of 5 such products, so the neuron's kink lies
    among the data.
    """
    params = np.zeros(network.n_params, network.dtype)
    network.reset_units(params)
    for segments in network.input_segments:
        for name, segment in segments.items():
            segment.view(params)[...] = _of_block(name, segments, segment.shape, rng, sigma)
    rows = _sampled(look, rng)
    for layer, (W, b) in enumerate(zip(network.coefs(params), network.intercepts(params), strict=True)):
        W[...] = rng.standard_normal(W.shape) / np.sqrt(len(W))
        z = _products(network, params, layer, look, rows)
        spread = z.std(axis=0, dtype=np.float64)
        spread[spread == 0] = 1.0
        W /= spread
        b[...] = _biases(z / spread, rng)
    return params


def _sampled(look: Look, rng: np.random.RandomState) -> np.ndarray:
    """Return the rows (n, n_columns) to look at: all training rows, or a random part of many."""
    rows = np.arange(look.X.shape[0]) if look.rows is None else look.rows
    if len(rows) > MOST_ROWS:
        rows = rows[rng.permutation(len(rows))[:MOST_ROWS]]
    return np.ascontiguousarray(look.take(look.X, rows))


def _of_block(
    name: str, segments: dict[str, Any], shape: tuple[int, ...], rng: np.random.RandomState, sigma: float
) -> np.ndarray:
    """Return first values of an array of a feature block."""
    if name == "periodic_frequency":
        return sigma * rng.standard_normal(shape)
    if name == "periodic_phase":
        return rng.uniform(-np.pi, np.pi, shape)
    if name in ("periodic_weight", "periodic_bias"):
        return rng.uniform(-1.0, 1.0, shape) / np.sqrt(segments["periodic_frequency"].width)
    return rng.standard_normal(shape)


def _products(network: Network, params: np.ndarray, layer: int, look: Look, X: np.ndarray) -> np.ndarray:
    """Return a W (n, fan_out) for the rows a that a layer reads: the prediction of a network that ends there."""
    part = replace(
        network.plain,
        widths=network.widths[: layer + 2],
        activations=network.activations[:layer],
        loss="squared_error",
    )
    values = np.empty(part.n_params, part.dtype)
    ours = {(segment.layer, segment.name): segment for segment in network.segments}
    for segment in part.segments:
        values[segment.where] = params[ours[segment.layer, segment.name].where]
    part.intercepts(values)[-1][...] = 0
    out = np.empty((len(X), part.widths[-1]), part.dtype)
    look.engine.predict(look.engine.workspace(part, len(X), look.n_jobs), values, X, out)
    return out


def _biases(z: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return minus a random convex combination of entries of each column of z."""
    n, width = z.shape
    rows = rng.randint(n, size=(SIMPLEX, width))
    shares = rng.exponential(size=(SIMPLEX, width))
    shares /= shares.sum(axis=0)
    return -(shares * z[rows, np.arange(width)]).sum(axis=0)


def member_params(network: Network, rng: np.random.RandomState, widths: Sequence[int]) -> np.ndarray:
    """Return the flat vector (n_params,) that TabM or TabM-mini starts from.

    `widths` says how many columns of the first layer's input each feature makes: they share the factor of a member. It
    is standard normal if numbers are embedded, else -1 or 1.
    """
    params = np.zeros(network.n_params, network.dtype)
    network.reset_units(params)
    embeds = any(block.kind == "piecewise" for block in network.inputs)
    for segment in network.segments:
        view = segment.view(params)
        if segment.name == "W":
            view[...] = _uniform(rng, segment.shape[-2], segment.shape)
        elif segment.name == "b":  # members start with the same bias, unless the layer is theirs alone
            is_last = segment.layer == network.n_layers - 1
            drawn = _uniform(rng, network.widths[segment.layer], segment.shape if is_last else segment.shape[-1:])
            view[...] = drawn
        elif segment.name in ("piecewise_weight", "piecewise_bias"):
            view[...] = _uniform(rng, segment.width, segment.shape)
        elif segment.name == "embedding":
            view[...] = rng.standard_normal(segment.shape)
        elif segment.name == "input_scale":
            shape = network.members, len(widths)
            drawn = rng.standard_normal(shape) if embeds else rng.choice([-1.0, 1.0], shape)
            view[...] = np.repeat(drawn, widths, axis=1).reshape(view.shape)
    return params


def _uniform(rng: np.random.RandomState, fan_in: int, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(-1.0, 1.0, shape) / np.sqrt(fan_in)
