"""Write a fitted estimator to a model file: parameters of the constructor, fitted attributes, state of the training.

modelfile.py writes the file; model_reader.py checks it before it becomes an estimator again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastmlp import __version__
from fastmlp.data.warned import warn
from fastmlp.estimator import ensemble
from fastmlp.estimator.base import ESTIMATORS, _defaults
from fastmlp.model import choices, weights
from fastmlp.model.network import Network
from fastmlp.saving import modelfile, tables
from fastmlp.saving.model_reader import MEMBERS, OF_TABLES, WEIGHTS, build, member_prefix
from fastmlp.saving.modelfile import Model, Tensors, encode
from fastmlp.training.attributes import ATTRIBUTES

#: Attributes that are kept in other forms, and attributes that every fit makes again.
ELSEWHERE = {*WEIGHTS, *OF_TABLES, "coder_", "estimators_", "_label_binarizer", "_training", "_idle_predictions"}

#: Those that predictions need, besides the weights.
NEEDED = (*(name for name, row in ATTRIBUTES.items() if row.needed), "_label_binarizer")

#: Levels of nested metadata.
MAX_DEPTH = 100


def _check_whole(estimator: Any) -> None:
    """Raise an error if a file would not hold all of an estimator."""
    if type(estimator) not in ESTIMATORS.values():
        raise TypeError(
            f"save keeps {', '.join(ESTIMATORS)}, got {type(estimator).__name__}: of a subclass, or of an estimator"
            " around it, it would keep a part; use joblib or skops"
        )
    if not ensemble.is_ensemble(estimator):
        check_is_fitted(estimator, ("coefs_", "intercepts_", "out_activation_"))
        if tables.is_table_estimator(estimator):
            check_is_fitted(estimator, ("coder_", "network_"))
    elif not estimator.estimators_ or any(type(member) is not type(estimator) for member in estimator.estimators_):
        raise TypeError(f"estimators_ must hold fitted {type(estimator).__name__}s to be saved")


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
    estimator : MLPClassifier, MLPRegressor, or an estimator for tables
        Fitted; no subclass.
    path : str or path-like
        Used as it is: no suffix is added.
    optimizer_state : bool, default=False
        Whether to keep the optimizer too, so ``partial_fit`` goes on as if the estimator had never been saved, bit
        for bit.  Makes the file up to four times as large.
    metadata : mapping of str to object, default=None
        Whatever JSON can hold, for :func:`fastmlp.persistence.read_metadata`.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is of another class, or if a parameter is a function (of `learning_rate`, `init` or `monitor`), which no
        file can hold.
    ValueError
        If its attributes contradict each other, the weights are not finite, or it has no ``partial_fit`` for which to
        keep the optimizer.
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
    ...     same, metadata = fastmlp.load(path), fastmlp.persistence.read_metadata(path)
    >>> metadata, bool((same.predict([[3.0]]) == model.predict([[3.0]])).all())
    ({'data': 'three squares'}, True)
    """
    _check_whole(estimator)
    is_table = tables.is_table_estimator(estimator)
    if optimizer_state and is_table:
        raise ValueError(f"optimizer_state=True is for partial_fit, which {type(estimator).__name__} does not have")
    plain = _plain_json({} if metadata is None else metadata)
    header, tensors = _describe(estimator, optimizer_state)
    if is_table:
        header[tables.CODERS] = tables.described_coders(estimator, tensors)
    # what a file holds is judged before it is written, as it will be when it is read
    build(Model(header, tensors), os.fspath(path), trust_formulas=True)
    _warn_of_the_rest(estimator)
    modelfile.write(path, {**header, "metadata": plain}, tensors)


# --- the parts of a file ----------------------------------------------------------------------------------------------


def _describe(estimator: Any, optimizer_state: bool) -> tuple[dict[str, Any], Tensors]:
    """Return the header and tensors of an estimator; those of an ensemble hold those of its members."""
    tensors: Tensors = {}
    is_ensemble, is_table = ensemble.is_ensemble(estimator), tables.is_table_estimator(estimator)
    network = (estimator.estimators_[0] if is_ensemble else estimator)._fitted_network()
    views = {} if is_ensemble else weights.views(network, weights.flat_params(estimator, network))
    parameters = estimator.get_params(deep=False)
    parameters["callbacks"] = None
    cls: Any = type(estimator)
    defaults = _defaults(cls)
    header: dict[str, Any] = {
        "fastmlp": __version__,
        "estimator": cls.__name__,
        "parameters": {name: _encode_parameter(name, value, tensors) for name, value in parameters.items()},
        "attributes": {name: encode(arrays, tensors, name) for name, arrays in views.items()},
    }
    for name, value in _attributes_of(estimator).items():
        header["attributes"][name] = encode(value, tensors, name)
    if "_label_binarizer" in vars(estimator):
        header["attributes"]["_label_binarizer"] = _encode_binarizer(estimator, tensors)
    if is_ensemble:
        header[MEMBERS] = [
            _describe_member(i, m, optimizer_state, tensors) for i, m in enumerate(estimator.estimators_)
        ]
        if is_table:
            places = {id(coder): i for i, coder in enumerate(tables.coders_of(estimator))}
            for of_member, member in zip(header[MEMBERS], estimator.estimators_, strict=True):
                of_member[tables.CODER] = places[id(member.coder_)]
    elif is_table:
        header["attributes"]["network_"] = tables.described_network(estimator.network_, tensors)
        header[tables.CODER] = 0
    elif optimizer_state:
        header["training"] = _training_of(estimator, network, tensors)
    # a reader of an older minor version may leave out what it does not know, but none of these
    given = [f"parameters.{name}" for name, value in parameters.items() if not _is_default(value, defaults[name])]
    fitted = [f"attributes.{name}" for name in (*WEIGHTS, *OF_TABLES, *NEEDED) if name in header["attributes"]]
    header["required"] = given + fitted + [f"training.{name}" for name in header.get("training", ())]
    return header, tensors


def _describe_member(number: int, member: Any, optimizer_state: bool, tensors: Tensors) -> dict[str, Any]:
    """Return the header of a member of an ensemble; its tensors get names of their own."""
    header, own = _describe(member, optimizer_state)
    tensors |= {member_prefix(number) + name: tensor for name, tensor in own.items()}
    return header


def _attributes_of(estimator: Any) -> dict[str, Any]:
    """Return the fitted attributes and the counters of early stopping, as files keep them."""
    fitted = vars(estimator)
    kept = {name: row.kind.kept(fitted[name]) for name, row in ATTRIBUTES.items() if name in fitted}
    return kept | (fitted["_training"].stopping.get_state() if "_training" in fitted else {})


def _encode_parameter(name: str, value: Any, tensors: Tensors) -> Any:
    try:
        return encode(value, tensors, f"parameters.{name}")
    except TypeError as error:
        raise TypeError(
            f"{error}; give {name} another value with set_params({name}=...) before you save, or use joblib"
        ) from None


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


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


def _training_of(estimator: Any, network: Network, tensors: Tensors) -> dict[str, Any]:
    """Return what partial_fit goes on with besides attributes that are kept anyway."""
    if "_training" not in vars(estimator):
        return {}
    state = estimator._training.get_state(network, rebuildable=True)
    training: dict[str, Any] = {}
    if state["optimizer"] is not None:
        training = {"optimizer": state["optimizer"], "dropout_seed": state["dropout_seed"]}
    # lbfgs neither reads nor writes the best weights
    if state["best_params"] is not None and choices.name_of(estimator.solver) != "lbfgs":
        training["best_params"] = state["best_params"]
    if "standardized" in state:
        training["standardized"] = state["standardized"]
    return {name: encode(value, tensors, f"training.{name}") for name, value in training.items()}


def _warn_of_the_rest(estimator: Any) -> None:
    cls: Any = type(estimator)
    known = {*_defaults(cls), *ATTRIBUTES, *ELSEWHERE}
    rest = [name for name in vars(estimator) if name not in known]
    if estimator.callbacks:
        rest.insert(0, "callbacks")
    if rest:
        warn(f"the model file does not keep {', '.join(rest)}")


def _plain_json(metadata: Any, where: str = "metadata") -> Any:
    """Return `metadata` as JSON can hold it: NumPy's scalars as Python's, tuples as lists."""
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
