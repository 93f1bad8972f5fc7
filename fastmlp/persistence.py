"""Save and load fitted estimators: everything that predictions, warm starts and, if asked for, partial_fit depend on.

Here is what a file holds of an estimator, and what is checked before it becomes one; modelfile.py knows how it is
written.  Three parts of the header: ``parameters`` of the constructor, fitted ``attributes``, and ``training``, the
state of the optimizer.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from fastmlp import __version__, choices, modelfile, weights
from fastmlp.base import _defaults
from fastmlp.estimators import MLPClassifier, MLPRegressor
from fastmlp.kernels import formulas
from fastmlp.modelfile import Decoder, Model, ModelFileError, Tensors, encode, refusing
from fastmlp.network import Network
from fastmlp.optimizers import DEFAULTS, HYPER, NAdam, Optimizer
from fastmlp.schedules import SCHEDULES
from fastmlp.segments import UNIT_ATTRIBUTES
from fastmlp.targets import LOSS_OF_LINK, n_class_outputs

__all__ = ["ModelFileError", "load", "read_metadata", "save"]

#: The only classes that a file can name.
ESTIMATORS: dict[str, type] = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}

WEIGHTS = ("coefs_", "intercepts_", *UNIT_ATTRIBUTES.values())

#: Attributes that are kept in other forms, and those that every fit makes anew.
ELSEWHERE = {*WEIGHTS, "_label_binarizer", "_optimizer", "_dropout_seed", "_best_params"}
MADE_ANEW = {"_random_state", "_idle_predictions"}


def save(
    estimator: Any,
    path: str | os.PathLike[str],
    *,
    optimizer_state: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a fitted estimator to one safetensors file, whole or not at all.

    The file holds the constructor's parameters, all fitted attributes, a format version and checksums.  `callbacks`,
    and attributes that are not the estimator's own, are left out with a warning.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted; no subclass.
    path : str or path-like
        Used as it is: no suffix is added.
    optimizer_state : bool, default=False
        Whether to keep the optimizer too, so that ``partial_fit`` goes on as if the estimator had never been saved, bit
        for bit.  Makes the file up to four times as large.
    metadata : mapping of str to object, default=None
        Whatever JSON can hold, for :func:`read_metadata`.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is of another class, or if a parameter is a function (of `learning_rate`, `init` or `monitor`), which no
        file can hold.
    ValueError
        If its attributes contradict each other or the weights are not finite.
    ImportError
        If safetensors is not installed.
    OSError
        If the folder is missing, cannot be written to or is full.  The old file is as it was.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import fastmlp
    >>> model = fastmlp.MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", random_state=0)
    >>> model = model.fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 4.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "squares.safetensors")
    ...     model.save(path, metadata={"data": "three squares"})
    ...     same, metadata = fastmlp.load(path), read_metadata(path)
    >>> metadata, bool((same.predict([[3.0]]) == model.predict([[3.0]])).all())
    ({'data': 'three squares'}, True)
    """
    if type(estimator) not in ESTIMATORS.values():
        raise TypeError(
            f"save keeps {' and '.join(ESTIMATORS)}, got {type(estimator).__name__}: of a subclass, or of an estimator"
            " around it, it would keep a part; use joblib or skops"
        )
    check_is_fitted(estimator, ("coefs_", "intercepts_", "out_activation_"))
    plain = _plain_json({} if metadata is None else metadata)
    header, tensors = _describe(estimator, optimizer_state)
    # what a file holds is judged before it is written, as it will be when it is read
    _build(Model(header, tensors), os.fspath(path), trust_formulas=True)
    _warn_of_the_rest(estimator)
    modelfile.write(path, {**header, "metadata": plain}, tensors)


def load(path: str | os.PathLike[str], *, trust_formulas: bool = False) -> Any:
    """Read an estimator that :func:`save` wrote; nothing in a file is ever executed.

    Parameters
    ----------
    path : str or path-like
    trust_formulas : bool, default=False
        Whether to compile formulas of the user's own (:func:`fastmlp.activation`, :func:`fastmlp.loss`) that the file
        holds.  They can compute with numbers and nothing else; if left out the error shows their text.

    Returns
    -------
    MLPClassifier or MLPRegressor
        With the same parameters, fitted attributes and predictions, bit for bit.

    Raises
    ------
    ModelFileError
        If the file is no saved model, was cut short or altered, has another major version, holds anything unknown or
        contradictory, or formulas that are not trusted; the message names the file, the field and the reason.
    ImportError
        If safetensors is not installed.
    OSError
        If there is no such file, or it cannot be opened.
    """
    return _build(modelfile.read(path), os.fspath(path), trust_formulas)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What :func:`save` was given as `metadata`; the weights are not read.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    dict
        Empty if nothing was given.

    Raises
    ------
    ModelFileError
        If the file is no saved model, or its header was altered.
    OSError
        If there is no such file, or it cannot be opened.
    """
    return _known(modelfile.read_header(path), path, "metadata", dict)


# --- from an estimator to a file -------------------------------------------------------------------------------------


def _describe(estimator: Any, optimizer_state: bool) -> tuple[dict[str, Any], Tensors]:
    """Header and tensors of an estimator."""
    tensors: Tensors = {}
    network = estimator._fitted_network()
    params = weights.flat_params(estimator, network)
    parameters = estimator.get_params(deep=False)
    parameters["callbacks"] = None
    cls: Any = type(estimator)
    defaults = _defaults(cls)
    header: dict[str, Any] = {
        "fastmlp": __version__,
        "estimator": cls.__name__,
        "parameters": {name: _encode_parameter(name, value, tensors) for name, value in parameters.items()},
        "attributes": _weights_of(network, params, tensors),
    }
    for name, kind in ATTRIBUTES.items():
        if name in vars(estimator):
            header["attributes"][name] = encode(kind.kept(vars(estimator)[name]), tensors, name)
    if "_label_binarizer" in vars(estimator):
        header["attributes"]["_label_binarizer"] = _encode_binarizer(estimator, tensors)
    if optimizer_state:
        header["training"] = _training_of(estimator, network, params, tensors)
    # a reader of an older minor version may leave out what it does not know, but none of these
    given = [f"parameters.{name}" for name, value in parameters.items() if not _is_default(value, defaults[name])]
    fitted = [f"attributes.{name}" for name in (*WEIGHTS, *NEEDED) if name in header["attributes"]]
    header["required"] = given + fitted + [f"training.{name}" for name in header.get("training", ())]
    return header, tensors


def _encode_parameter(name: str, value: Any, tensors: Tensors) -> Any:
    try:
        return encode(value, tensors, f"parameters.{name}")
    except TypeError as error:
        raise TypeError(
            f"{error}; give {name} another value with set_params({name}=...) before you save, or use joblib"
        ) from None


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


def _weights_of(network: Network, params: np.ndarray, tensors: Tensors) -> dict[str, Any]:
    """coefs_, intercepts_ and what units learn and keep, as views of the flat vector."""
    arrays = weights.views(network, params)
    return {name: encode(views, tensors, name) for name, views in arrays.items()}


def _encode_binarizer(estimator: Any, tensors: Tensors) -> Any:
    binarizer, classes = estimator._label_binarizer, getattr(estimator, "classes_", None)
    same = classes is not None and (
        binarizer.classes_ is classes
        or (binarizer.classes_.dtype == classes.dtype and np.array_equal(binarizer.classes_, classes))
    )
    content = {
        "y_type": binarizer.y_type_,
        "sparse_input": bool(binarizer.sparse_input_),
        "classes": None if same else binarizer.classes_,
    }
    return encode(content, tensors, "_label_binarizer")


def _training_of(estimator: Any, network: Network, params: np.ndarray, tensors: Tensors) -> dict[str, Any]:
    """What partial_fit goes on with besides attributes that are kept anyway."""
    optimizer, best = vars(estimator).get("_optimizer"), vars(estimator).get("_best_params")
    training: dict[str, Any] = {}
    if optimizer is not None and all(state.shape == params.shape for state in optimizer.states):
        training["optimizer"] = _state_of(optimizer)
        training["dropout_seed"] = vars(estimator).get("_dropout_seed")
    # the best weights are mostly the very vector of the weights; lbfgs neither reads nor writes them
    if best is not None and best is not params and best.shape == params.shape and estimator.solver != "lbfgs":
        training["best_params"] = best
    return {name: encode(value, tensors, f"training.{name}") for name, value in training.items()}


def _state_of(optimizer: Optimizer) -> dict[str, Any]:
    schedule = optimizer.schedule
    name = next((name for name, kind in SCHEDULES.items() if type(schedule) is kind), None)
    if name is None:
        raise TypeError(
            "optimizer_state=True: the learning rate of this optimizer is a function, which a model file cannot hold;"
            " save without it"
        )
    return {
        **optimizer.get_state(),
        "hyper": optimizer.hyper,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        "schedule": {
            "name": name,
            "values": schedule.values,
            "initial": schedule.initial,
            "n_steps_per_epoch": schedule.n_steps_per_epoch,
            "n_steps": schedule.n_steps,
            "state": schedule.get_state(),
        },
    }


def _warn_of_the_rest(estimator: Any) -> None:
    cls: Any = type(estimator)
    known = {*_defaults(cls), *ATTRIBUTES, *ELSEWHERE, *MADE_ANEW}
    rest = [name for name in vars(estimator) if name not in known]
    if estimator.callbacks:
        rest.insert(0, "callbacks")
    if rest:
        warnings.warn(f"the model file does not keep {', '.join(rest)}", stacklevel=3)


def _plain_json(metadata: Any, where: str = "metadata") -> Any:
    """`metadata` as JSON can hold it: NumPy's scalars as Python's, tuples as lists."""
    if where.count("[") > MAX_DEPTH:
        raise ValueError(f"metadata is nested more than {MAX_DEPTH} levels deep, or holds itself")
    if isinstance(metadata, np.generic):
        metadata = metadata.item()
    if isinstance(metadata, Mapping):
        for key in metadata:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; JSON allows only text")
        return {str(key): _plain_json(value, f"{where}[{key!r}]") for key, value in metadata.items()}
    if where == "metadata":
        raise TypeError(f"metadata must be a mapping of str to what JSON can hold, got {type(metadata).__name__}")
    if isinstance(metadata, list | tuple):
        return [_plain_json(value, f"{where}[{i}]") for i, value in enumerate(metadata)]
    if isinstance(metadata, float) and not math.isfinite(metadata):
        raise ValueError(f"{where}={metadata!r} is no number of JSON; write it as text")
    if metadata is None or isinstance(metadata, bool | int | float | str):
        return metadata
    raise TypeError(f"{where} is of type {type(metadata).__name__}, which JSON does not have")


#: Levels of nested metadata.
MAX_DEPTH = 100


# --- from a file to an estimator -------------------------------------------------------------------------------------


def _build(model: Model, path: str, trust_formulas: bool) -> Any:
    """The estimator that a header and tensors describe."""
    header, decoder = model.header, Decoder(model.tensors, trust_formulas)
    estimator = _with_parameters(header, decoder, path)
    attributes = _section(header, path, "attributes", {*ATTRIBUTES, *WEIGHTS, "_label_binarizer"})
    with refusing(path, "attributes"):
        network, params = _restore_weights(estimator, attributes, decoder)
    for name, kind in ATTRIBUTES.items():
        if name in attributes:
            with refusing(path, name):
                value = kind.restored(decoder(attributes[name]))
                if name in SIZES and value != SIZES[name](network):
                    raise ValueError(f"must be {SIZES[name](network)} for the weights in the file, got {value}")
                setattr(estimator, name, value)
    _restore_names(estimator, path, network)
    if isinstance(estimator, MLPClassifier):
        with refusing(path, "_label_binarizer"):
            estimator._label_binarizer = _restored_binarizer(decoder(attributes["_label_binarizer"]), estimator)
            if n_class_outputs(estimator._label_binarizer) != network.widths[-1]:
                raise ValueError(f"its classes do not belong to a network with {network.widths[-1]} outputs")
    training = _section(header, path, "training", {"optimizer", "dropout_seed", "best_params"})
    estimator._best_params = params
    for name, restore in TRAINING.items():
        if name in training:
            with refusing(path, f"training.{name}"):
                restore(estimator, decoder(training[name]), network)
    if decoder.tensors and not _is_newer(header):
        raise ModelFileError(path, "tensors", f"nothing refers to {sorted(decoder.tensors)}"[: modelfile.MAX_REASON])
    return estimator


def _known(header: Mapping[str, Any], path: str | os.PathLike[str], name: str, kind: type) -> Any:
    """A part of the header, of the right type; a dict that is missing is empty."""
    value = header.get(name, {} if kind is dict else None)
    if not isinstance(value, kind):
        raise ModelFileError(path, name, f"must be of type {kind.__name__}, got {type(value).__name__}")
    return value


def _is_newer(header: Mapping[str, Any]) -> bool:
    """Whether a newer minor version wrote the file, which may hold more than this one knows."""
    return "format" in header and modelfile.check_version(header["format"], "") > modelfile.VERSION


def _section(header: Mapping[str, Any], path: str, name: str, known: set[str]) -> dict[str, Any]:
    """A part of the header without what this version need not know.

    Raises
    ------
    ModelFileError
        If it holds something unknown in a file of this version or an older one, or something unknown that the file says
        is required.
    """
    section = _known(header, path, name, dict)
    required = _known(header, path, "required", list)
    for entry in section:
        if entry not in known and (not _is_newer(header) or f"{name}.{entry}" in required):
            writer = f"fastmlp {header.get('fastmlp')!s:.40}"
            raise ModelFileError(path, name, f"{entry!r:.100} is unknown to this version; the file is by {writer}")
    return {entry: value for entry, value in section.items() if entry in known}


def _with_parameters(header: Mapping[str, Any], decoder: Decoder, path: str) -> Any:
    """An estimator that is not fitted yet."""
    name = header.get("estimator")
    if not isinstance(name, str) or name not in ESTIMATORS:
        raise ModelFileError(path, "estimator", f"must be one of {list(ESTIMATORS)}, got {name!r:.100}")
    cls: Any = ESTIMATORS[name]
    parameters = {}
    for parameter, value in _section(header, path, "parameters", set(_defaults(cls))).items():
        with refusing(path, f"parameters.{parameter}"):
            parameters[parameter] = decoder(value)
    if decoder.formulas:
        shown = "\n\n".join(decoder.formulas)
        raise ModelFileError(
            path,
            "parameters",
            "the file holds formulas of a user's own. They can compute with numbers and do nothing else; if they are"
            f" what you expect, load(path, trust_formulas=True) compiles them:\n\n{shown}",
        )
    with refusing(path, "parameters"):
        estimator = cls(**parameters)
        estimator._validate_params()
    return estimator


def _restore_weights(estimator: Any, attributes: Mapping[str, Any], decoder: Decoder) -> tuple[Network, np.ndarray]:
    """Give an estimator its weights; returns their network and flat vector."""
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
    return network, params


def _check_units(network: Network, given: Mapping[str, Any]) -> None:
    """Refuse arrays of units that are missing, and those that the network does not have."""
    layers = network.unit_segments
    for name, attribute in UNIT_ATTRIBUTES.items():
        wanted = [name in of_layer for of_layer in layers]
        found = [array is not None for array in given.get(attribute, [None] * len(layers))]
        if found != wanted:
            raise ValueError(f"{attribute} must hold arrays for the hidden layers {wanted}, it has them for {found}")


def _restore_names(estimator: Any, path: str, network: Network) -> None:
    names = vars(estimator).get("feature_names_in_")
    if names is not None and len(names) != network.widths[0]:
        raise ModelFileError(path, "feature_names_in_", f"must be {network.widths[0]}, got {len(names)}")


def _restored_binarizer(content: Mapping[str, Any], estimator: Any) -> LabelBinarizer:
    binarizer, kind = LabelBinarizer(), content["y_type"]
    classes = estimator.classes_ if content["classes"] is None else _classes(content["classes"])
    if kind not in ("binary", "multiclass", "multilabel-indicator") or type(content["sparse_input"]) is not bool:
        raise ValueError(f"y_type={kind!r:.100}, sparse_input={content['sparse_input']!r:.100} make no sense")
    if kind != "multilabel-indicator" and (kind == "binary") != (len(classes) <= 2):
        raise ValueError(f"{len(classes)} classes are not {kind}")
    binarizer.y_type_, binarizer.sparse_input_, binarizer.classes_ = kind, content["sparse_input"], classes
    return binarizer


# --- fitted attributes, one by one -----------------------------------------------------------------------------------


class Kind(NamedTuple):
    """How an attribute is kept, and what is made of what was kept, or a ValueError."""

    kept: Callable[[Any], Any]
    restored: Callable[[Any], Any]


def _as_it_is(value: Any) -> Any:
    return value


def _count(value: Any) -> int:
    # fewer bits than a float64 has: schedules count in these
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"must be a whole number in [0, 2^48), got {value!r:.100}")
    return value


def _number(value: Any) -> float | None:
    if value is not None and type(value) not in (int, float):
        raise ValueError(f"must be a number or None, got {value!r:.100}")
    return value


def _float(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"must be a number, got {value!r:.100}")
    return value


def _curve(value: Any) -> list[float] | None:
    if value is not None and (not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.ndim != 1):
        raise ValueError("must be None or a tensor (n_epochs,) of float64")
    return None if value is None else value.tolist()


def _as_curve(value: Any) -> np.ndarray | None:
    return None if value is None else np.array(value, dtype=np.float64)


def _history(value: Any) -> dict[str, list[float] | None]:
    if not isinstance(value, dict) or any(column is None for column in value.values()):
        raise ValueError("must be a curve for each name")
    return {_name(name): _curve(column) for name, column in value.items()}


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, got {value!r:.100}")
    return value


def _names(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "OU" or value.ndim != 1:
        raise ValueError("must be texts (n_features,)")
    return value


def _classes(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.ndim != 1 or not value.size:
        raise ValueError("must be labels (n_classes,)")
    if not (value[:-1] < value[1:]).all():
        raise ValueError("must be sorted, each class once")
    return value


_PLAIN_COUNT = Kind(_as_it_is, _count)
_PLAIN_NUMBER = Kind(_as_it_is, _number)
_CURVE = Kind(_as_curve, _curve)

#: Attributes that are kept as they are.
ATTRIBUTES: dict[str, Kind] = {
    "n_features_in_": _PLAIN_COUNT,
    "feature_names_in_": Kind(_as_it_is, _names),
    "classes_": Kind(_as_it_is, _classes),
    "out_activation_": Kind(_as_it_is, _name),
    "n_layers_": _PLAIN_COUNT,
    "n_outputs_": _PLAIN_COUNT,
    "n_iter_": _PLAIN_COUNT,
    "t_": _PLAIN_COUNT,
    "loss_": _PLAIN_NUMBER,
    "best_loss_": _PLAIN_NUMBER,
    "loss_curve_": _CURVE,
    "validation_scores_": _CURVE,
    "validation_loss_curve_": _CURVE,
    "best_validation_score_": _PLAIN_NUMBER,
    "history_": Kind(lambda history: {name: _as_curve(column) for name, column in history.items()}, _history),
    "_no_improvement_count": _PLAIN_COUNT,
    "_best_monitored": _PLAIN_NUMBER,
    "_monitored": Kind(_as_it_is, _name),
}

#: Those that predictions need, besides the weights.
NEEDED = ("n_features_in_", "feature_names_in_", "classes_", "out_activation_", "n_outputs_", "_label_binarizer")

#: Attributes that the weights determine.
SIZES: dict[str, Callable[[Network], int]] = {
    "n_features_in_": lambda network: network.widths[0],
    "n_layers_": lambda network: len(network.widths),
    "n_outputs_": lambda network: network.widths[-1],
}


# --- the state of training -------------------------------------------------------------------------------------------


def _restore_optimizer(estimator: Any, state: Mapping[str, Any], network: Network) -> None:
    rule = state["rule"]
    if not isinstance(rule, str) or rule not in formulas.OPTIMIZERS:
        raise ValueError(f"rule must be one of {list(formulas.OPTIMIZERS)}, got {rule!r:.100}")
    wanted = len(formulas.OPTIMIZERS[rule].states)
    if len(state["states"]) != wanted:
        raise ValueError(f"{rule!r} has {wanted} state vectors, got {len(state['states'])}")
    for vector in state["states"]:
        _check_vector(vector, network)
    hyper = {_name(name): _float(value) for name, value in state["hyper"].items()}
    needed = set(HYPER) if rule in DEFAULTS["rho"] else set(HYPER) - {"rho"}
    if not needed <= hyper.keys() <= set(HYPER):
        raise ValueError(f"hyper must hold {sorted(needed)}, got {sorted(hyper)}")
    limit = None if state["max_grad_norm"] is None else _float(state["max_grad_norm"])
    arguments = network, _restored_schedule(state["schedule"]), hyper, _float(state["weight_decay"]), limit
    optimizer = NAdam(*arguments) if rule == "nadam" else Optimizer(rule, *arguments)
    kept = {"mu_product": _float(state["mu_product"])} if rule == "nadam" else {}
    schedule = state["schedule"]["state"]
    optimizer.set_state(
        {"rule": rule, "t": _count(state["t"]), "states": state["states"], "schedule": schedule, **kept}
    )
    estimator._optimizer = optimizer
    estimator._dropout_seed = None


def _restored_schedule(state: Mapping[str, Any]) -> Any:
    """The schedule as it was made; its state comes later."""
    choices.entry(SCHEDULES, (state["name"], state["values"]), "schedule")  # refuses what is out of range
    initial = _float(state["initial"])
    if not 0 < initial < math.inf:
        raise ValueError(f"the initial learning rate must be in (0, inf), got {initial!r}")
    steps, total = _count(state["n_steps_per_epoch"]), _count(state["n_steps"])
    if steps == 0 or total == 0:
        raise ValueError("a schedule has at least one step")
    schedule = SCHEDULES[state["name"]](initial, steps, 1, **state["values"])
    schedule.n_steps = total
    if state["state"].keys() != schedule.get_state().keys():
        raise ValueError(f"the state of {state['name']!r} holds {list(schedule.get_state())}")
    if not all(type(value) in (bool, int, float) for value in state["state"].values()):
        raise ValueError("the state of a schedule is made of numbers")
    return schedule


def _restore_seed(estimator: Any, seed: Any, network: Network) -> None:
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**64):
        raise ValueError(f"must be a whole number of 64 bits, got {seed!r:.100}")
    estimator._dropout_seed = seed


def _restore_best(estimator: Any, best: Any, network: Network) -> None:
    _check_vector(best, network)
    estimator._best_params = best


def _check_vector(vector: Any, network: Network) -> None:
    if not isinstance(vector, np.ndarray) or vector.shape != (network.n_params,) or vector.dtype != network.dtype:
        raise ValueError(f"a vector must be ({network.n_params},) of {network.dtype}")


TRAINING: dict[str, Callable[[Any, Any, Network], None]] = {
    "optimizer": _restore_optimizer,
    "dropout_seed": _restore_seed,
    "best_params": _restore_best,
}
