"""The row that a compiled engine keeps for each layer: one declaration of its columns for all engines.

Where it sits: setup.py renders ROW as the C struct ``fm_layer``; codegen puts the columns' numbers in front of the
templates of Numba; the workspaces of all three engines make and fill their tables here.  A stage between two products
declares here what it needs: the names of its arrays, its settings, its buffers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

#: Where a hidden layer normalises over the batch: nowhere; what its activation reads; what its activation makes.
PLACEMENTS = ("", "before", "after")
#: The values of the setting batch_norm, in the same order.
VALUES = {"NO_NORM": 0, "NORM_BEFORE": 1, "NORM_AFTER": 2}

#: Of a layer; engines that pad rows to whole vectors have wider row strides ``ld_in`` and ``ld_out``.  ``heads`` is the
#: number of its matrices W; ``returns`` says whether the loss is differentiated in what the layer reads.  The rest is
#: set by engines that have it: ``units`` is how many halves of bfloat16 matrix units read of each number, or 0;
#: ``panels`` and ``deltas`` say whether weights and deltas lie in panels.
SIZES = ("number", "hidden", "fan_in", "fan_out", "ld_in", "ld_out", "heads", "returns", "units", "panels", "deltas")
#: Names of the network's segments.  An array's column holds its place; its number here says which one a task is about.
ARRAYS = ("W", "b", "input_scale", "member_in", "member_out", "scale", "shift", "slope", "mix", "mean", "var")
#: How an engine finds the activation: a struct (C); addresses of functions and parameters, or a number (Numba).
ACTIVATION = ("keeps_z", "activation", "value", "forward", "backward", "parameters", "kind")


def threshold(rate: float) -> int:
    """Return the number below which a neuron's 24 random bits drop it; ValueError if the rate is not in [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate must lie in [0, 1), got {rate}")
    return round(rate * 2**24)


def spread(bounds: tuple[float, float] | None) -> float:
    """Return s, where slopes between these bounds are 1 - s to 1 + s times their mean; 0 if there are no bounds."""
    return (bounds[1] - bounds[0]) / (bounds[1] + bounds[0]) if bounds else 0.0


#: Settings of a hidden layer: (network, layer) -> number; 0 in the output layer.
SETTINGS: dict[str, Callable[[Any, int], float]] = {
    "whole_batch": lambda network, k: network.whole_batch[k],
    "batch_norm": lambda network, k: PLACEMENTS.index(network.batch_norm[k]) if network.batch_norm else 0,
    "learned": lambda network, k: "slope" in network.unit_segments[k],
    "mixed": lambda network, k: "mix" in network.unit_segments[k],
    # factors of members in what the layer makes, and in what the next one reads of it
    "ensemble": lambda network, k: network.batch_ensemble,
    "feeds": lambda network, k: network.batch_ensemble and k + 1 < len(network.activations),
    "threshold": lambda network, k: threshold(network.dropout[k]) if network.dropout else 0,
    "rate": lambda network, k: network.dropout[k] if network.dropout else 0.0,
    "slope_spread": lambda network, k: spread(network.drawn_slopes[k]) if network.drawn_slopes else 0.0,
}
#: Setting, or size -> the arrays of a layer where it is not 0.
NEEDED = {
    "fan_out": ("W", "b"),
    "batch_norm": ("scale", "shift", "mean", "var"),
    "learned": ("slope",),
    "mixed": ("mix",),
    "ensemble": ("member_out",),
}
#: Settings that are no integers.
REALS = ("rate", "slope_spread")


def _matrix(rows: int, layer: Any) -> int:
    return rows * int(layer["ld_out"])


def _halves(rows: int, columns: int, layer: Any) -> int:
    """Return how many float32 hold the halves of a matrix, in tiles of 32 rows and 16 columns."""
    return -(-rows // 32) * -(-columns // 16) * 256 * int(layer["units"])


class Buffer(NamedTuple):
    """A buffer of a layer."""

    name: str  # of its column
    when: Callable[[Any], Any] = lambda layer: True  # row of the table -> whether the layer has it
    otherwise: str = ""  # the buffer whose place it shares where it has none of its own
    size: Callable[[int, Any], int] = _matrix  # (rows, row of the table) -> how many numbers; (rows, ld_out)
    training: bool = True  # whether only training needs it


#: Of the engines on CPUs.  The product goes to z, to zhat where its result is normalised, or to raw where it has
#: factors; the activation to a; what is left after dropout to dropped; what the next layer reads is out.
BUFFERS = (
    Buffer("a", training=False),
    Buffer("z", lambda layer: layer["keeps_z"] or layer["learned"] or layer["mixed"], "a"),  # else no slope reads it
    Buffer("dropped", lambda layer: layer["threshold"] or layer["batch_norm"] == VALUES["NORM_AFTER"], "a"),
    Buffer("out", lambda layer: layer["feeds"], "dropped"),
    Buffer("fed", lambda layer: layer["feeds"]),  # d loss / d factor of each row in what the next layer reads
    Buffer("raw", lambda layer: layer["ensemble"], "z"),
    Buffer("zhat", lambda layer: layer["batch_norm"]),  # what is normalised, then normalised
    # mean and 1 / std of the batch: (2, ld_out)
    Buffer("moments", lambda layer: layer["batch_norm"], size=lambda rows, layer: 2 * int(layer["ld_out"])),
    Buffer("product", lambda layer: layer["learned"] or layer["mixed"]),  # d loss / d slope, or mix, of each row
    Buffer("delta"),
    Buffer("product_delta", lambda layer: layer["ensemble"], "delta"),  # of the product without its factors
    # W transposed: (heads, fan_out, ld_in), or panels of it
    Buffer(
        "wt",
        lambda layer: layer["returns"],
        size=lambda rows, layer: int(layer["heads"] * layer["fan_out"] * layer["ld_in"]),
    ),
    # panels of the right-hand matrices (gemm.h): W, product_delta
    Buffer(
        "w_panels",
        lambda layer: layer["panels"],
        size=lambda rows, layer: int(layer["fan_in"] * layer["ld_out"]),
        training=False,
    ),
    Buffer("delta_panels", lambda layer: layer["deltas"]),
    # halves of the right-hand matrices, for matrix units (matrix_units.h): of W, of its transpose, of product_delta
    Buffer(
        "w_halves",
        lambda layer: layer["units"],
        size=lambda rows, layer: _halves(layer["fan_in"], layer["fan_out"], layer),
        training=False,
    ),
    Buffer(
        "wt_halves",
        lambda layer: layer["units"] and layer["returns"],
        size=lambda rows, layer: _halves(layer["fan_out"], layer["fan_in"], layer),
    ),
    Buffer(
        "delta_halves",
        lambda layer: layer["units"],
        size=lambda rows, layer: _halves(rows, layer["fan_out"], layer),
    ),
)
#: Of the engine on GPUs.  The product's tile goes through the activation before it is stored; delta holds what the way
#: back multiplies by, until it comes.
CUDA_BUFFERS = (
    Buffer("z", lambda layer: not layer["hidden"] or layer["batch_norm"], training=False),
    Buffer("out", lambda layer: layer["hidden"], training=False),
    # the square roots of the batch's variances: (fan_out,)
    Buffer("moments", lambda layer: layer["batch_norm"], size=lambda rows, layer: int(layer["fan_out"])),
    Buffer("delta"),
    Buffer("delta_y", lambda layer: layer["batch_norm"] == VALUES["NORM_AFTER"], "delta"),  # of what is normalised
    Buffer("product", lambda layer: layer["learned"]),
)


def _type(name: str) -> type:
    return np.float64 if name in REALS else np.intp


_BUFFERS = dict.fromkeys(buffer.name for buffer in (*BUFFERS, *CUDA_BUFFERS))
COLUMNS = (*SIZES, *(name.lower() for name in ARRAYS), *SETTINGS, *ACTIVATION, *_BUFFERS)
ROW = np.dtype([(name, _type(name)) for name in COLUMNS], align=True)


def constants() -> dict[str, int]:
    """Return the constants of Numba's templates: numbers of the columns, of the arrays, and the settings' values."""
    columns = {name.upper(): number for number, name in enumerate((*COLUMNS, "layer_columns"))}
    return columns | {f"ARRAY_{name.upper()}": number for number, name in enumerate(ARRAYS)} | VALUES


def c_header() -> str:
    """Return the C header with the struct of a row, and the same constants as enums."""
    types = dict.fromkeys(REALS, "double ") | dict.fromkeys(_BUFFERS, "void *")
    types["activation"] = "const fm_activation *"
    lines = ["/* Generated from kernels/layer_table.py: do not edit. */", "typedef struct {"]
    lines += [f"    {types.get(name, 'idx ')}{name};" for name in COLUMNS]
    names = [*(f"FM_{name.upper()}" for name in ARRAYS), *(f"FM_{name} = {value}" for name, value in VALUES.items())]
    text = "\n".join([*lines, "} fm_layer;", f"enum {{ {', '.join(names)} }};", ""])
    return f"{text}#define FM_LAYER_TABLE {zlib.crc32(text.encode())}u\n"


def learns_in_front(network: Any) -> bool:
    """Return whether something is trained in front of the first layer."""
    return bool(network.input_scale or any(block.arrays for block in network.inputs))


def new_table(network: Any, strides: Sequence[int], places: Sequence[int], none: int) -> np.ndarray:
    """Return the table of a network, with its sizes, the places of its arrays, and its settings.

    ``strides`` are the row strides of what each layer reads, and of what the last one makes; ``places`` those of the
    network's segments; ``none`` is the place of an array that a layer does not have.  A ValueError says that a
    segment's name is none of ARRAYS, that its layer does not exist, or that a layer lacks an array that it needs.
    """
    layers = range(network.n_layers)
    columns: dict[str, list] = {
        "number": [*layers],
        "hidden": [k + 1 < len(layers) for k in layers],
        "fan_in": [*network.widths[:-1]],
        "fan_out": [*network.widths[1:]],
        "ld_in": [*strides[:-1]],
        "ld_out": [*strides[1:]],
        "heads": [*(1 for _ in layers[:-1]), network.members],
        "returns": [learns_in_front(network), *(True for _ in layers[1:])],
        "units": [0 for _ in layers],
        **{name.lower(): [none for _ in layers] for name in ARRAYS},
        **{name: [*(setting(network, k) for k in layers[:-1]), 0] for name, setting in SETTINGS.items()},
    }
    for segment, place in zip(network.segments, places, strict=True):
        if segment.of_inputs and segment.name not in ARRAYS:
            continue  # of a feature block, which has a row of its own
        if segment.name not in ARRAYS or segment.layer not in layers:
            raise ValueError(f"network.segments must be {ARRAYS} of its {len(layers)} layers, got {segment}")
        columns[segment.name.lower()][segment.layer] = place
    for column, arrays in NEEDED.items():
        for k in filter(columns[column].__getitem__, layers):
            lacking = [name for name in arrays if columns[name.lower()][k] == none]
            if lacking:
                raise ValueError(f"network.segments must have {lacking} in layer {k}: it has {column}")
    table = np.zeros(len(layers), ROW)  # a column is written at once: access to single entries is slow
    for name, values in columns.items():
        table[name] = values
    return table


def allocate(
    table: np.ndarray, buffers: Sequence[Buffer], rows: int, room: Callable[[int], int], *, training: bool
) -> None:
    """Get the buffers of all layers for so many rows: those that only training needs, or the others.

    ``room`` returns the place of a new buffer of so many numbers.
    """
    for row in table:
        for buffer in buffers:
            own = buffer.when(row)
            if buffer.training == training and own:
                row[buffer.name] = room(buffer.size(rows, row))
            elif buffer.otherwise and not (own and training):
                row[buffer.name] = row[buffer.otherwise]
