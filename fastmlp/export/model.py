"""What the exports read from a fitted estimator: its layers as they predict, its task, its labels.

First step of both exports. Batch normalisation is folded into the weights here; formulas become lists of operations,
which onnx_nodes.py and c.py write in their own language.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastmlp.data import targets
from fastmlp.data.files import replacing
from fastmlp.estimator import ensemble
from fastmlp.estimator.base import _BaseMLP
from fastmlp.kernels import formulas
from fastmlp.kernels.graph import OPS
from fastmlp.kernels.language import program_of
from fastmlp.kernels.program import Program, arity
from fastmlp.model import choices, weights


@dataclass(frozen=True)
class Layer:
    """A linear layer and what follows it."""

    W: np.ndarray  # (fan_in, fan_out)
    b: np.ndarray  # (fan_out,)
    activation: Any  # an entry of Network.activations; the link for the last layer
    learned: Mapping[str, np.ndarray]  # (fan_out,) each: parameters of the activation that each neuron has learned


@dataclass(frozen=True)
class Fitted:
    """What there is to say about any fitted estimator."""

    estimator: str  # name of its class
    task: str  # "binary", "multiclass", "multilabel" or "regression"
    link: str  # from the last layer to the outputs; "identity" gives classifiers decision values, others probabilities
    dtype: np.dtype
    labels: np.ndarray | None  # (n_classes,), int64 or texts, at least two; None for regressors and multilabel targets
    loss: str
    feature_names: list[str]  # empty if the estimator was fitted without

    @property
    def threshold(self) -> float:
        """Threshold above which an output means yes, if there is one output per yes or no."""
        return 0.0 if self.link == "identity" else 0.5


@dataclass(frozen=True)
class Model(Fitted):
    """A fitted network of layers as it predicts."""

    layers: list[Layer]
    further: tuple[list[Layer], ...] = ()  # the other networks of an ensemble, whose outputs are averaged

    @property
    def networks(self) -> tuple[list[Layer], ...]:
        """The layers of each network."""
        return (self.layers, *self.further)

    @property
    def widths(self) -> tuple[int, ...]:
        """(n_features, *hidden, n_outputs)."""
        return (self.layers[0].W.shape[0], *(layer.W.shape[1] for layer in self.layers))

    @property
    def activations(self) -> tuple[Any, ...]:
        """Those of the hidden layers."""
        return tuple(layer.activation for layer in self.layers[:-1])

    @property
    def n_params(self) -> int:
        """Number of weights and biases."""
        return sum(layer.W.size + layer.b.size for layers in self.networks for layer in layers)


def read(estimator: Any) -> Model:
    """Return a fitted estimator as a Model; its arrays may be the estimator's own.

    A TypeError refuses estimators of other packages, and labels that are neither numbers nor text; a ValueError labels
    that are numbers but no integers of 64 bits, and fitted arrays that do not fit each other.
    """
    if not isinstance(estimator, _BaseMLP):
        raise TypeError(
            f"estimator must be a fitted fastmlp.MLPClassifier or MLPRegressor, got {type(estimator).__name__}; whole "
            "pipelines are converted by skl2onnx after fastmlp.export.register_skl2onnx()"
        )
    check_is_fitted(estimator)
    if ensemble.is_ensemble(estimator):
        first, *others = map(read, estimator.estimators_)
        return replace(first, further=tuple(other.layers for other in others))
    fitted = estimator._fitted_network()
    network, params = fitted.folded(weights.flat_params(estimator, fitted))
    parts = (*network.activations, estimator.out_activation_), (*network.unit_parameters(params), {})
    layers = list(map(Layer, network.coefs(params), network.intercepts(params), *parts))
    binarizer = getattr(estimator, "_label_binarizer", None)
    task = "regression" if binarizer is None else targets.task_of(binarizer)
    return Model(layers=layers, **described(estimator, task, network.dtype))


def described(estimator: Any, task: str, dtype: np.dtype) -> dict[str, Any]:
    """Return the fields of :class:`Fitted` of an estimator."""
    loss = estimator.loss
    return {
        "estimator": type(estimator).__name__,
        "task": task,
        "link": estimator.out_activation_,
        "dtype": dtype,
        "labels": _labels(estimator.classes_) if task in ("binary", "multiclass") else None,
        "loss": choices.name_of(tuple(loss) if choices.is_pair(loss) else loss),
        "feature_names": [str(name) for name in getattr(estimator, "feature_names_in_", ())],
    }


def in_dtype(model: Model, dtype: Any) -> Model:
    """Return the same network in float32 or float64, by name or as NumPy's dtype; None means the one it has.

    A ValueError refuses other dtypes, and weights that are too large for float32.
    """
    wanted = checked_dtype(dtype, model.dtype)
    if wanted == model.dtype:
        return model
    for number, layer in ((i, layer) for layers in model.networks for i, layer in enumerate(layers, 1)):
        check_range((layer.W, layer.b, *layer.learned.values()), wanted, f"the weights of layer {number}")
    return replace(model, dtype=wanted)


def checked_dtype(dtype: Any, own: np.dtype) -> np.dtype:
    """Return float32 or float64, by name or as NumPy's dtype, and `own` for None; a ValueError refuses others."""
    if dtype is None:
        return own
    # not np.dtype(dtype): it takes what users do not mean, and raises errors of three types
    names = {"float32": "float32", "float64": "float64", np.float32: "float32", np.float64: "float64"}
    key = dtype.type if isinstance(dtype, np.dtype) else dtype
    if not isinstance(key, str | type) or key not in names:
        raise ValueError(f"dtype must be 'float32', 'float64' or None, got {dtype!r}")
    return np.dtype(names[key])


def check_range(arrays: Iterable[np.ndarray], dtype: np.dtype, what: str) -> None:
    """Raise a ValueError if numbers are too large for a dtype."""
    largest = max(np.max(np.abs(array), initial=0.0) for array in arrays)
    if largest > np.finfo(dtype).max:
        raise ValueError(f"dtype={dtype.name!r} cannot hold {what}, up to {largest:.3g}")


def _labels(classes: np.ndarray) -> np.ndarray:
    """Return the class labels as int64 or text; a single class twice, because there are two outputs."""
    if len(classes) == 1:
        classes = np.repeat(classes, 2)
    if classes.dtype.kind in "biuf":
        labels = classes.astype(np.int64)
        if (labels != classes).any():
            raise ValueError(f"class labels must be integers of 64 bits or text to be exported, got {classes}")
        return labels
    if not all(isinstance(label, str) for label in classes.tolist()):
        raise TypeError(f"class labels must be integers or text to be exported, got {classes}")
    return classes.astype(object)


# --- formulas ---------------------------------------------------------------------------------------------------------


class Operation(NamedTuple):
    """A step of a formula. Operands are numbers of values (int) or constants (float).

    The inputs z (and learned parameters) are values 0, 1, ...; each operation makes the next value. Names and operands
    are those of kernels/graph.py: a select is ``(a, b, c, d)``, a if c OP d else b.
    """

    op: str
    operands: tuple[int | float, ...]


def activation_program(activation: Any) -> tuple[Program, int]:
    """Return the program that computes a hidden activation, and its number of inputs: z, then learned parameters."""
    if choices.is_formula(activation):
        return activation.program("value"), 1
    row = formulas.ACTIVATIONS[choices.name_of(activation)]
    parameters = choices.parameters_of(formulas.ACTIVATIONS, activation)
    constants = {name: value for name, value in parameters.items() if name not in row.learned}
    inputs = ["z", *row.learned]
    return program_of(row.value, inputs, constants, formulas.HELPERS), len(inputs)


def operations(program: Program, n_inputs: int) -> tuple[list[Operation], int | float]:
    """Return a program in which each result has a number of its own, and the number that it returns.

    Examples
    --------
    >>> from fastmlp.export.model import activation_program, operations
    >>> operations(*activation_program(("leaky_relu", {"negative_slope": 0.1})))
    ([Operation(op='mul', operands=(0, 0.1)), Operation(op='select_lt', operands=(0, 1, 0.0, 0))], 2)
    """
    names = list(OPS)
    value_in = {register: register for register in range(n_inputs)}
    constants = program.constants.tolist()

    def operand(column: int) -> int | float:
        return value_in[column] if column >= 0 else constants[-1 - column]

    found = []
    for number, register, *columns in program.instructions.tolist():
        op = names[number]
        found.append(Operation(op, tuple(operand(column) for column in columns[: arity(op)])))
        value_in[register] = n_inputs + len(found) - 1
    return found, operand(program.output)


# --- files ------------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all; an OSError says that it cannot be written."""
    with replacing(Path(path)) as stream:
        stream.write(content)
