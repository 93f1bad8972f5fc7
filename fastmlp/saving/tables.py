"""What files of estimators for tables hold besides weights: the coders of their columns, and their networks.

The header has the coders under ``CODERS``, each once, because members of an ensemble may share one.  An estimator, or a
member, names its own by its place there, under ``CODER``.  Numbers and texts of a coder that may be many are tensors.

::

    coder -> to_state -> described_coders -> file -> restored_coders -> from_state -> blocks -> restored_network
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastmlp.data import targets
from fastmlp.estimator.parameters import activations_of
from fastmlp.estimator.tabular import BaseTabular
from fastmlp.kernels import formulas
from fastmlp.model import choices, weights
from fastmlp.model.network import Network
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.saving.modelfile import Decoder, Tensors, encode

CODERS, CODER = "coders", "coder"

#: Fields of a network in a file; the blocks follow from the coder, dtype and matmul_precision from the parameters.
FIELDS = ("widths", "activations", "loss", "dropout", "members", "batch_ensemble", "input_scale")
FLAGS = ("batch_ensemble", "input_scale", "parametric_activations")

#: No layer is as wide, and no network has as many members.
LARGEST = 1 << 31

#: Entries of a column's state that are tensors of float64, and their shapes after the first axis.
NUMBERS: dict[str, tuple[int, ...]] = {"quantiles": (), "bins": (), "scales": (2,)}


def is_table_estimator(estimator: Any) -> bool:
    """Return whether an estimator has a coder."""
    return isinstance(estimator, BaseTabular)


# --- write ------------------------------------------------------------------------------------------------------------


def coders_of(estimator: Any) -> list[ColumnCoder]:
    """Return the coders of an estimator, or of the members of an ensemble, each once."""
    members = vars(estimator).get("estimators_", [estimator])
    return list({id(member.coder_): member.coder_ for member in members}.values())


def described_coders(estimator: Any, tensors: Tensors) -> list[Any]:
    """Return the entries of the coders of an estimator for its header."""
    states = [coder.to_state() for coder in coders_of(estimator)]
    for state in states:
        state["columns"] = [{name: _packed(name, value) for name, value in c.items()} for c in state["columns"]]
        if state["names"] is not None:
            state["names"] = _texts(state["names"])
    return [encode(state, tensors, f"{CODERS}.{i}") for i, state in enumerate(states)]


def _packed(name: str, value: Any) -> Any:
    """Return an entry of a column as an array, if it is a list of numbers or texts of one kind."""
    if name in NUMBERS:
        return np.array(value, np.float64).reshape(len(value), *NUMBERS[name])
    if name == "categories" and value:
        kinds = {type(category) for category in value}
        if kinds == {str}:
            return _texts(value)
        if kinds == {float} or (kinds == {int} and all(-(2**63) <= category < 2**63 for category in value)):
            return np.array(value)
    return value


def _texts(values: Sequence[str]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def described_network(network: Network, tensors: Tensors) -> Any:
    """Return the entry of a network for the header."""
    return encode({name: getattr(network, name) for name in (*FIELDS, "parametric_activations")}, tensors, "network_")


# --- read -------------------------------------------------------------------------------------------------------------


def restored_coders(entries: Any, decoder: Decoder) -> list[ColumnCoder]:
    """Return the coders of a file; a ValueError says what makes no sense."""
    if not isinstance(entries, list):
        raise ValueError("must be a list")
    return [_restored_coder(decoder(entry), i) for i, entry in enumerate(entries)]


def _restored_coder(state: Any, number: int) -> ColumnCoder:
    if not isinstance(state, dict) or not isinstance(state.get("columns"), list):
        raise ValueError(f"coder {number} has no list of columns")
    columns = []
    for i, column in enumerate(state["columns"]):
        if not isinstance(column, dict):
            raise ValueError(f"columns[{i}] is no object")
        columns.append({name: _unpacked(name, value, f"columns[{i}]") for name, value in column.items()})
    names = state.get("names")
    plain = names.tolist() if isinstance(names, np.ndarray) else names
    return ColumnCoder.from_state({**state, "columns": columns, "names": plain})


def _unpacked(name: str, value: Any, where: str) -> Any:
    """Return an entry of a column as lists, numbers and texts; what is in them is for ``from_state`` to judge."""
    if name not in (*NUMBERS, "categories"):
        return value
    if name in NUMBERS and not (
        isinstance(value, np.ndarray) and value.dtype == np.float64 and value.shape[1:] == NUMBERS[name]
    ):
        raise ValueError(f"{where}.{name} must be a tensor (n, {', '.join(map(str, NUMBERS[name]))}) of float64")
    if isinstance(value, np.ndarray) and value.ndim == 0:
        raise ValueError(f"{where}.{name} must have entries")
    return value.tolist() if isinstance(value, np.ndarray) else value


def coder_of(header: Mapping[str, Any], coders: Sequence[ColumnCoder]) -> ColumnCoder:
    """Return the coder that a header names; a ValueError says that there is no such one."""
    place = header.get(CODER)
    if type(place) is not int or not 0 <= place < len(coders):
        raise ValueError(f"must be the place of one of {len(coders)} coders, got {place!r:.100}")
    return coders[place]


def restored_network(content: Any, coder: ColumnCoder, dtype: np.dtype, precision: str) -> Network:
    """Return the network of a file, which reads what the coder makes; a ValueError says what makes no sense."""
    if not isinstance(content, dict) or set(content) != {*FIELDS, "parametric_activations"}:
        raise ValueError(f"must have the entries {', '.join((*FIELDS, 'parametric_activations'))}")
    widths, members = content["widths"], content["members"]
    if not isinstance(widths, tuple) or not all(type(n) is int and 0 < n < LARGEST for n in (*widths, members)):
        raise ValueError("widths and members must be whole numbers above 0")
    for name in FLAGS:
        if type(content[name]) is not bool:
            raise ValueError(f"{name} must be true or false, got {content[name]!r:.100}")
    blocks = coder.blocks
    if not blocks and widths[0] != coder.n_columns:
        raise ValueError(f"its first layer reads {widths[0]} columns, its coder makes {coder.n_columns}")
    return Network(
        widths,
        activations_of(content["activations"], len(widths) - 2),
        choices.entry(formulas.LOSSES, content["loss"], "loss"),
        dtype,
        inputs=blocks,
        dropout=content["dropout"],
        members=members,
        matmul_precision=precision,
        **{name: content[name] for name in FLAGS},
    )


def restore(
    estimator: Any, content: Any, attributes: Mapping[str, Any], decoder: Decoder, coder: ColumnCoder
) -> Network:
    """Give an estimator its coder, its network, which `content` describes, and its weights; return the network."""
    network = restored_network(content, coder, np.dtype(estimator.dtype), estimator.matmul_precision)
    link = attributes["out_activation_"]
    if link != targets.link_of(network.loss):
        raise ValueError(f"out_activation_ must be {targets.link_of(network.loss)!r} for the loss, got {link!r:.100}")
    params = _params(network, attributes, decoder)
    estimator.coder_, estimator.network_, estimator.out_activation_ = coder, network, link
    estimator._expose(network, params)
    estimator.n_layers_, estimator.n_outputs_ = len(network.widths), network.widths[-1]
    return network


def _params(network: Network, attributes: Mapping[str, Any], decoder: Decoder) -> np.ndarray:
    """Return the flat vector (n_params,) of the arrays in a file, which must be those of the network."""
    places = weights.places(network)
    given = {name: decoder(attributes[name]) for name in ("coefs_", "intercepts_", *weights.FURTHER_ATTRIBUTES)
             if name in attributes}  # fmt: skip
    if given.keys() != places.keys():
        raise ValueError(f"the network has {', '.join(places)}, the file has {', '.join(given)}")
    pieces = []
    for name, segments in places.items():
        arrays = given[name]
        if not isinstance(arrays, list) or len(arrays) != len(segments):
            raise ValueError(f"{name} must hold {len(segments)} entries")
        for i, (segment, array) in enumerate(zip(segments, arrays, strict=True)):
            if (segment is None) != (array is None):
                raise ValueError(f"{name}[{i}] must be {'nothing' if segment is None else 'an array'}")
            if segment is None:
                continue
            if not isinstance(array, np.ndarray) or array.dtype != network.dtype or array.shape != segment.shape:
                raise ValueError(f"{name}[{i}] must be an array {segment.shape} of {network.dtype}")
            if not np.isfinite(array).all():
                raise ValueError("weights must be finite")
            pieces.append((segment, array))
    params = np.empty(network.n_params, network.dtype)  # as many as the tensors hold
    for segment, array in pieces:
        segment.view(params)[...] = array
    return params


def check_attributes(estimator: Any, network: Network) -> None:
    """Refuse features that are not those of the coders, and a range of targets of other outputs."""
    names = vars(estimator).get("feature_names_in_")
    for coder in coders_of(estimator):
        known = getattr(coder, "feature_names_in_", None)
        if estimator.n_features_in_ != coder.n_features_in_:
            raise ValueError(f"n_features_in_ must be {coder.n_features_in_}, as in the coder")
        # a coder knows the names of frames to which scikit-learn gives none
        if names is not None and (known is None or names.tolist() != known.tolist()):
            raise ValueError("feature_names_in_ must be the names in the coder")
    low_and_high = vars(estimator).get("target_range_")
    if low_and_high is not None and low_and_high.shape != (2, network.widths[-1]):
        raise ValueError(f"target_range_ must be (2, {network.widths[-1]}), got {low_and_high.shape}")
