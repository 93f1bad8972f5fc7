"""Networks for tables in ONNX's operators: feature blocks, members that share weights, and their mean.

The formulas are those of kernels/feature_table.py and kernels/reference.py.  With k members all arrays of a layer are
(k, n, width): a row of factors per member is (k, 1, width).  Names of axes: n rows, F features of a block, m waves, d
numbers that a block makes per feature.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from fastmlp.export.onnx_columns import Columns, matrix_nodes
from fastmlp.export.onnx_nodes import Nodes, activation_nodes, last_nodes, link_nodes, mean
from fastmlp.export.tables import TableModel, TableNetwork
from fastmlp.kernels.feature_table import Block
from fastmlp.model.network import Network

Views = Mapping[tuple[str, int], np.ndarray]


def table_nodes(nodes: Nodes, model: TableModel, outputs: list[str]) -> None:
    """Add all nodes from the columns of a table to the outputs, which get these names."""
    columns, matrices = Columns(nodes, model.inputs), dict[int, str]()
    found = []
    for each in model.networks:
        if id(each.coder) not in matrices:
            matrices[id(each.coder)] = matrix_nodes(nodes, each.coder, columns)
        found.append(_output_nodes(nodes, each, matrices[id(each.coder)], model.link))
    out = mean(nodes, found)
    if model.target_range is not None:
        low, high = (nodes.array(bound[None], "target_range") for bound in model.target_range)
        out = nodes.add("Min", nodes.add("Max", out, low), high)
    last_nodes(nodes, model, out, outputs)


def _output_nodes(nodes: Nodes, each: TableNetwork, matrix: str, link: str) -> str:
    """Add the nodes of one network; return its outputs (n, n_outputs)."""
    network, k = each.network, each.network.members
    views = {(segment.name, segment.layer): segment.view(each.params) for segment in network.segments}
    a = _blocks(nodes, network, views, matrix)
    if network.input_scale:
        if k > 1:
            a = nodes.add("Unsqueeze", a, _axis(nodes, 0))
        a = nodes.add("Mul", a, _of_members(nodes, network, views, "input_scale", 0))
    for layer in range(network.n_layers):
        z = _layer(nodes, network, views, layer, a)
        if layer < network.n_layers - 1:
            a = _activated(nodes, network, views, layer, z)
    out = link_nodes(nodes, z, link)
    if k == 1:
        return out
    total = nodes.add("ReduceSum", out, _axis(nodes, 0), keepdims=0)
    return nodes.add("Div", total, nodes.scalar(float(k)))


def _axis(nodes: Nodes, axis: int) -> str:
    return nodes.array(np.array([axis]), "axis")


def _of_members(nodes: Nodes, network: Network, views: Views, name: str, layer: int) -> str:
    """Return an array of a layer: of all members (width,), or of each of them (k, 1, width)."""
    values = views[name, layer]
    return nodes.array(values[:, None] if network.members > 1 and values.ndim > 1 else values, f"{name}_{layer}")


def _layer(nodes: Nodes, network: Network, views: Views, layer: int, a: str) -> str:
    """Return the logits of a layer: z = ((a member_in) W) member_out + b."""
    if ("member_in", layer) in views:
        a = nodes.add("Mul", a, _of_members(nodes, network, views, "member_in", layer))
    W = nodes.array(views["W", layer], f"coefs_{layer}")  # (fan_in, fan_out), or of heads (k, fan_in, fan_out)
    z = nodes.add("MatMul", a, W)
    if ("member_out", layer) in views:
        z = nodes.add("Mul", z, _of_members(nodes, network, views, "member_out", layer))
    return nodes.add("Add", z, _of_members(nodes, network, views, "b", layer))


def _activated(nodes: Nodes, network: Network, views: Views, layer: int, z: str) -> str:
    """Return f(z), or z + (f(z) - z) mix."""
    learned = {"slope": nodes.array(views["slope", layer], f"slope_{layer}")} if ("slope", layer) in views else {}
    a = activation_nodes(nodes, z, network.activations[layer], learned)
    if ("mix", layer) not in views:
        return a
    mix = nodes.array(views["mix", layer], f"mix_{layer}")
    return nodes.add("Add", z, nodes.add("Mul", nodes.add("Sub", a, z), mix))


# --- feature blocks ---------------------------------------------------------------------------------------------------


def _blocks(nodes: Nodes, network: Network, views: Views, matrix: str) -> str:
    """Return what the first layer reads, (n, widths[0])."""
    if not network.inputs:
        return matrix
    made = [_KINDS[block.kind](nodes, block, views, i, matrix) for i, block in enumerate(network.inputs)]
    return made[0] if len(made) == 1 else nodes.add("Concat", *made, axis=1)


def _read(nodes: Nodes, matrix: str, columns: tuple[int, ...]) -> str:
    return nodes.add("Gather", matrix, nodes.array(np.array(columns), "columns"), axis=1)


def _in_rows(nodes: Nodes, e: str, block: Block) -> str:
    """Return (n, F, d) as (n, F d)."""
    return nodes.add("Reshape", e, nodes.array(np.array([0, block.width]), "shape"))


def _plain(nodes: Nodes, block: Block, views: Views, i: int, matrix: str) -> str:
    return _read(nodes, matrix, block.columns)


def _periodic(nodes: Nodes, block: Block, views: Views, i: int, matrix: str) -> str:
    """Return e_d = sum_m cos(2 pi x w_m + p_m) V_dm + b_d: for each feature (n, m) times (m, d)."""
    n_features, d, m = block.n_features, block.size, block.frequencies
    x = nodes.add("Transpose", _read(nodes, matrix, block.columns), perm=[1, 0])
    x = nodes.add("Unsqueeze", x, _axis(nodes, 2))  # (F, n, 1)
    frequency = nodes.array(2 * np.pi * views["periodic_frequency", i].astype(np.float64)[:, None], "frequency")
    phase = nodes.array(views["periodic_phase", i][:, None], "phase")
    waves = nodes.add("Cos", nodes.add("Add", nodes.add("Mul", x, frequency), phase))  # (F, n, m)
    V = views["periodic_weight", i].reshape(n_features, d, m).transpose(0, 2, 1)
    e = nodes.add("MatMul", waves, nodes.array(V, "periodic_weight"))
    e = nodes.add("Add", e, nodes.array(views["periodic_bias", i][:, None], "periodic_bias"))
    return _in_rows(nodes, nodes.add("Transpose", e, perm=[1, 0, 2]), block)


def _piecewise(nodes: Nodes, block: Block, views: Views, i: int, matrix: str) -> str:
    """Return e = w x + b + (sum of the bins below k) + (t - k) V_k, with t in bin k."""
    n_features, V = block.n_features, views["piecewise_bins", i]
    x, t = (_read(nodes, matrix, half) for half in (block.columns[:n_features], block.columns[n_features:]))
    bins = np.split(V.astype(np.float64), np.cumsum(block.counts)[:-1])
    below = np.concatenate([np.cumsum(each, axis=0) - each for each in bins])
    last = nodes.array(np.array([block.counts]) - 1.0, "last_bins")
    k = nodes.add("Min", nodes.add("Max", nodes.add("Floor", t), nodes.scalar(0.0)), last)
    at = nodes.add("Cast", k, to=TensorProto.INT64)
    at = nodes.add("Add", at, nodes.array(block.starts[None].astype(np.int64), "starts"))
    rest = nodes.add("Unsqueeze", nodes.add("Sub", t, k), _axis(nodes, 2))  # (n, F, 1)
    weight, bias = (nodes.array(views[name, i][None], name) for name in ("piecewise_weight", "piecewise_bias"))
    e = nodes.add("Mul", nodes.add("Unsqueeze", x, _axis(nodes, 2)), weight)  # (n, F, d)
    e = nodes.add("Add", nodes.add("Add", e, bias), nodes.add("Gather", nodes.array(below, "bins_below"), at))
    e = nodes.add("Add", e, nodes.add("Mul", rest, nodes.add("Gather", nodes.array(V, "piecewise_bins"), at)))
    return _in_rows(nodes, e, block)


def _embedding(nodes: Nodes, block: Block, views: Views, i: int, matrix: str) -> str:
    """Return the rows of the tables that codes name."""
    at = nodes.add("Cast", _read(nodes, matrix, block.columns), to=TensorProto.INT64)
    at = nodes.add("Add", at, nodes.array(block.starts[None].astype(np.int64), "starts"))
    return _in_rows(nodes, nodes.add("Gather", nodes.array(views["embedding", i], "embedding"), at), block)


_KINDS = {"plain": _plain, "periodic": _periodic, "piecewise": _piecewise, "embedding": _embedding}
