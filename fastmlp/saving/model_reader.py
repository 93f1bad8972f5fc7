"""Make an estimator from a model file, after everything in the file is checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.preprocessing import LabelBinarizer

from fastmlp.data.targets import LOSS_OF_LINK, n_class_outputs, task_of
from fastmlp.estimator import earlier
from fastmlp.estimator.base import ESTIMATORS, _defaults
from fastmlp.model import choices, weights
from fastmlp.model.network import Network
from fastmlp.model.stages import UNIT_ATTRIBUTES
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.saving import modelfile, tables
from fastmlp.saving.modelfile import Decoder, Model, ModelFileError, Tensors, refusing
from fastmlp.training import state as states
from fastmlp.training.attributes import ATTRIBUTES
from fastmlp.training.attributes import classes as labels
from fastmlp.training.stopping import Stopping

WEIGHTS = ("coefs_", "intercepts_", *UNIT_ATTRIBUTES.values())

#: Attributes that a coder determines, if there is one.
OF_CODER = ("n_features_in_", "feature_names_in_")

#: Attributes of estimators for tables alone.
OF_TABLES = ("network_", "target_range_", *weights.INPUT_ATTRIBUTES)

#: Entry of the header of an ensemble: the headers of its members.
MEMBERS = "estimators_"


def member_prefix(number: int) -> str:
    """Return what the names of a member's tensors begin with."""
    return f"{MEMBERS}.{number}."


def build(model: Model, path: str, trust_formulas: bool) -> Any:
    """Return the estimator that a header and tensors describe; a ModelFileError names what contradicts."""
    header, tensors = model.header, dict(model.tensors)
    coders: list[ColumnCoder] = []
    if tables.CODERS in header:
        own = {name: tensors.pop(name) for name in [*tensors] if name.startswith(f"{tables.CODERS}.")}
        with refusing(path, tables.CODERS):
            decoder = Decoder(own, trust_formulas)
            coders = tables.restored_coders(header[tables.CODERS], decoder)
            _check_rest(header, decoder, path)
    estimator = _built(header, tensors, coders, path, trust_formulas)
    wanted = tables.coders_of(estimator) if tables.is_table_estimator(estimator) else []
    if len(wanted) != len(coders):
        raise ModelFileError(path, tables.CODERS, f"must be {len(wanted)}, got {len(coders)}")
    return estimator


def _built(header: dict[str, Any], tensors: Tensors, coders: list[ColumnCoder], path: str, trust_formulas: bool) -> Any:
    """Return the estimator, or the member of an ensemble, of a header."""
    members = _members(header, tensors, coders, path, trust_formulas)
    decoder = Decoder(tensors, trust_formulas)
    estimator = _with_parameters(header, decoder, path)
    of_tables = OF_TABLES if tables.is_table_estimator(estimator) else ()
    known = {*ATTRIBUTES, *Stopping.SAVED, *WEIGHTS, "_label_binarizer"}.difference(OF_TABLES).union(of_tables)
    attributes = _section(header, path, "attributes", known)
    with refusing(path, "attributes"):
        if members:
            network = _restore_members(estimator, members, attributes)
        elif of_tables:
            with refusing(path, tables.CODER):
                coder = tables.coder_of(header, coders)
            content = decoder(attributes["network_"])
            _refuse_formulas(decoder, path)
            network = tables.restore(estimator, content, attributes, decoder, coder)
        else:
            network = _restore_weights(estimator, attributes, decoder)
    _restore_attributes(estimator, attributes, network, decoder, path)
    if not members:
        _restore_counters(estimator, attributes, decoder, path)
    if is_classifier(estimator):
        with refusing(path, "_label_binarizer"):
            estimator._label_binarizer = _restored_binarizer(decoder(attributes["_label_binarizer"]), estimator)
            _check_classes(estimator, network)
    _restore_training(estimator, header, network, decoder, path)
    _check_rest(header, decoder, path)
    return estimator


def _check_classes(estimator: Any, network: Network) -> None:
    """Refuse classes, and a link, that do not belong to the network."""
    binarizer, is_table = estimator._label_binarizer, tables.is_table_estimator(estimator)
    n_outputs = len(binarizer.classes_) if is_table else n_class_outputs(binarizer)
    if n_outputs != network.widths[-1] or (is_table and len(estimator.classes_) != n_outputs):
        raise ValueError(f"its classes do not belong to a network with {network.widths[-1]} outputs")
    wanted = "logistic" if task_of(binarizer) == "multilabel" else "softmax"
    if is_table and estimator.out_activation_ != wanted:
        raise ValueError(f"out_activation_ must be {wanted!r} for these classes, got {estimator.out_activation_!r}")


def _check_rest(header: Mapping[str, Any], decoder: Decoder, path: str) -> None:
    """Refuse tensors that nothing refers to."""
    if decoder.tensors and not _is_newer(header):
        raise ModelFileError(path, "tensors", f"nothing refers to {sorted(decoder.tensors)}"[: modelfile.MAX_REASON])


def section_of(header: Mapping[str, Any], path: str | os.PathLike[str], name: str, kind: type) -> Any:
    """Return a part of the header, of the right type; a dict that is missing is empty."""
    value = header.get(name, {} if kind is dict else None)
    if not isinstance(value, kind):
        raise ModelFileError(path, name, f"must be of type {kind.__name__}, got {type(value).__name__}")
    return value


def _is_newer(header: Mapping[str, Any]) -> bool:
    """Return whether a newer minor version wrote the file, which may hold more than this one knows."""
    return "format" in header and modelfile.check_version(header["format"], "") > modelfile.VERSION


def _section(header: Mapping[str, Any], path: str, name: str, known: set[str]) -> dict[str, Any]:
    """Return a part of the header without what this version need not know.

    A ModelFileError names what is unknown in a file of this version or an older one, or unknown and required.
    """
    section = section_of(header, path, name, dict)
    required = section_of(header, path, "required", list)
    for entry in section:
        if entry not in known and (not _is_newer(header) or f"{name}.{entry}" in required):
            writer = f"fastmlp {header.get('fastmlp')!s:.40}"
            raise ModelFileError(path, name, f"{entry!r:.100} is unknown to this version; the file is by {writer}")
    return {entry: value for entry, value in section.items() if entry in known}


def _with_parameters(header: Mapping[str, Any], decoder: Decoder, path: str) -> Any:
    """Return an estimator that is not fitted yet."""
    name = header.get("estimator")
    if not isinstance(name, str) or name not in ESTIMATORS:
        raise ModelFileError(path, "estimator", f"must be one of {list(ESTIMATORS)}, got {name!r:.100}")
    cls: Any = ESTIMATORS[name]
    parameters = {}
    known = {*_defaults(cls), *earlier.PARAMETERS}
    for parameter, value in _section(header, path, "parameters", known).items():
        with refusing(path, f"parameters.{parameter}"):
            parameters[parameter] = decoder(value)
    with refusing(path, "parameters"):
        parameters = earlier.migrated(parameters)
    _refuse_formulas(decoder, path)
    with refusing(path, "parameters"):
        estimator = cls(**parameters)
        estimator._validate_params()
    return estimator


def _refuse_formulas(decoder: Decoder, path: str) -> None:
    """Show formulas that are not trusted, if the file holds any."""
    if decoder.formulas:
        shown = "\n\n".join(decoder.formulas)
        raise ModelFileError(
            path,
            "parameters",
            "the file holds formulas of a user's own. They can compute with numbers and do nothing else; if they are"
            f" what you expect, load(path, trust_formulas=True) compiles them:\n\n{shown}",
        )


def _members(
    header: Mapping[str, Any], tensors: Tensors, coders: list[ColumnCoder], path: str, trust_formulas: bool
) -> list[Any]:
    """Return the members of an ensemble, and take their tensors out of `tensors`; an empty list if it is none."""
    members: list[Any] = []
    for number, of_member in enumerate(section_of(header, path, MEMBERS, list) if MEMBERS in header else ()):
        prefix = member_prefix(number)
        if not isinstance(of_member, dict) or MEMBERS in of_member:
            raise ModelFileError(path, prefix[:-1], "must describe one network")
        inherited = {name: header[name] for name in ("format", "fastmlp") if name in header}
        own = {name.removeprefix(prefix): tensors.pop(name) for name in [*tensors] if name.startswith(prefix)}
        members.append(_built({**of_member, **inherited}, own, coders, path, trust_formulas))
    return members


def _restore_members(estimator: Any, members: list[Any], attributes: Mapping[str, Any]) -> Network:
    """Give an ensemble its members; return the network that they have."""
    first = members[0]
    for member in members:
        if type(member) is not type(estimator) or member.n_outputs_ != first.n_outputs_:
            raise ValueError(f"the members must be {type(estimator).__name__}s with the same outputs")
        if member.n_features_in_ != first.n_features_in_:
            raise ValueError("the members must have the same inputs")
        if member.out_activation_ != attributes["out_activation_"]:
            raise ValueError(f"out_activation_ must be the members' {member.out_activation_!r}")
    estimator.estimators_, estimator._idle_predictions = members, []
    estimator.n_layers_, estimator.n_outputs_ = first.n_layers_, first.n_outputs_
    return first._fitted_network()


def _restore_weights(estimator: Any, attributes: Mapping[str, Any], decoder: Decoder) -> Network:
    """Give an estimator its weights; return their network."""
    link = decoder(attributes["out_activation_"])
    if not isinstance(link, str) or link not in LOSS_OF_LINK:
        raise ValueError(f"out_activation_ must be one of {list(LOSS_OF_LINK)}, got {link!r:.100}")
    given = {name: decoder(attributes[name]) for name in WEIGHTS if name in attributes}
    dtype = given["coefs_"][0].dtype
    for name, arrays in given.items():
        for array in arrays:
            if array is None and name not in ("coefs_", "intercepts_"):
                continue
            if not isinstance(array, np.ndarray) or array.dtype != dtype or dtype not in (np.float32, np.float64):
                raise ValueError(f"{name} must hold arrays of one dtype, float32 or float64")
    estimator.out_activation_ = link
    for name, arrays in given.items():
        setattr(estimator, name, arrays)
    network = estimator._fitted_network()
    _check_units(network, given)
    params = weights.flat_params(estimator, network)
    if not np.isfinite(params).all():
        raise ValueError("weights must be finite")
    if any((running["var"] < 0).any() for running in network.running_statistics(params) if running):
        raise ValueError("bn_vars_ must not be negative")
    estimator._expose(network, params)
    estimator.n_layers_, estimator.n_outputs_ = len(network.widths), network.widths[-1]
    return network


def _restore_attributes(
    estimator: Any, attributes: Mapping[str, Any], network: Network, decoder: Decoder, path: str
) -> None:
    """Give an estimator its fitted attributes."""
    for name, row in ATTRIBUTES.items():
        if name in attributes:
            with refusing(path, name):
                value = row.kind.restored(decoder(attributes[name]))
                size = len(value) if isinstance(value, np.ndarray) else value
                by_coder = name in OF_CODER and tables.is_table_estimator(estimator)
                if row.size is not None and not by_coder and size != row.size(network):
                    raise ValueError(f"must be {row.size(network)} for the weights in the file, got {size}")
                setattr(estimator, name, value)
    if tables.is_table_estimator(estimator):
        with refusing(path, "attributes"):
            tables.check_attributes(estimator, network)


def _restore_counters(estimator: Any, attributes: Mapping[str, Any], decoder: Decoder, path: str) -> None:
    """Give an estimator the counters of its training."""
    if choices.name_of(estimator.solver) != "lbfgs":  # what epochs go on from, where a file lacks it
        for name, first in (("t_", 0), ("loss_curve_", []), ("best_loss_", np.inf)):
            estimator.__dict__.setdefault(name, first)
    counters = states.of(estimator).stopping
    for name in Stopping.SAVED:
        if name in attributes:
            with refusing(path, name):
                counters.set_state({name: decoder(attributes[name])})


def _restore_training(estimator: Any, header: Mapping[str, Any], network: Network, decoder: Decoder, path: str) -> None:
    """Give an estimator the state that partial_fit goes on with."""
    names = ("optimizer", "dropout_seed", "best_params", "standardized")
    training = _section(header, path, "training", set(names))
    for name in names:
        if name in training:
            with refusing(path, f"training.{name}"):
                states.of(estimator).set_state({name: decoder(training[name])}, network)


def _check_units(network: Network, given: Mapping[str, Any]) -> None:
    """Refuse arrays of neurons that are missing, and arrays that the network does not have."""
    layers = network.unit_segments
    for name, attribute in UNIT_ATTRIBUTES.items():
        wanted = [name in of_layer for of_layer in layers]
        found = [array is not None for array in given.get(attribute, [None] * len(layers))]
        if found != wanted:
            raise ValueError(f"{attribute} must hold arrays for the hidden layers {wanted}, it has them for {found}")


def _restored_binarizer(content: Mapping[str, Any], estimator: Any) -> LabelBinarizer:
    binarizer, kind = LabelBinarizer(), content["y_type"]
    classes = estimator.classes_ if content["classes"] is None else labels(content["classes"])
    if kind not in ("binary", "multiclass", "multilabel-indicator") or type(content["sparse_input"]) is not bool:
        raise ValueError(f"y_type={kind!r:.100}, sparse_input={content['sparse_input']!r:.100} make no sense")
    if kind != "multilabel-indicator" and (kind == "binary") != (len(classes) <= 2):
        raise ValueError(f"{len(classes)} classes are not {kind}")
    binarizer.y_type_, binarizer.sparse_input_, binarizer.classes_ = kind, content["sparse_input"], classes
    return binarizer
