"""A fitted network in words: :func:`summary`, and what pictures and summaries both read from an estimator.

fit and predict do not use this module.  The displays (displays/) take their weights from :func:`fitted_layers`.
"""

from __future__ import annotations

import html
import io
import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from fastmlp.estimator.parameters import HIDDEN_ACTIVATIONS
from fastmlp.kernels import formulas
from fastmlp.kernels.feature_table import ARRAYS
from fastmlp.model import choices, stages, weights
from fastmlp.model.network import Network

#: Least number of vectors of a training with the length of the parameters: parameters, gradient, optimizer's states.
TRAINING_VECTORS = 3

COLUMNS = ("layer", "shape", "activation", "parameters", "memory", "FLOPs")


@dataclass(frozen=True)
class Layer:
    """One row of a summary: a linear layer with what follows it.

    Attributes
    ----------
    name : str
        "hidden 1", "hidden 2", ..., "output"; before them, of estimators for tables, "inputs 1", ...: feature blocks.
    fan_in, fan_out : int
        Shape of its weights; of a feature block, how many columns it reads and makes.
    activation : str
        With its parameters, if it has some, and the layer's options: "leaky_relu(negative_slope=0.2), dropout 0.1".
    n_params : int
        Numbers that the fitted layer consists of: weights, biases, those of batch_norm and prelu, running statistics.
    n_trained : int
        How many of them are learned, which running statistics are not.
    memory : int
        Bytes of the parameters.
    flops : int
        ``2 * fan_in * fan_out``: a multiplication and an addition per weight, to predict one row, and for each member
        of a TabM; of a feature block 0.
    """

    name: str
    fan_in: int
    fan_out: int
    activation: str
    n_params: int
    n_trained: int
    memory: int
    flops: int

    def cells(self) -> tuple[str, ...]:
        """Return the row as texts, in the order of ``COLUMNS``."""
        shape = f"{self.fan_in} x {self.fan_out}"
        return self.name, shape, self.activation, f"{self.n_params:,}", _bytes(self.memory), f"{self.flops:,}"


@dataclass(frozen=True, repr=False)
class Summary:
    """What :func:`summary` returns; printed it is a table, in a notebook an HTML table.

    Attributes
    ----------
    title : str
        The estimator's class, the widths of the network, its dtype, and its `matmul_precision` unless it is "highest".
    layers : tuple of Layer
        Hidden layers, then the output.
    n_params, n_trained, memory, flops : int
        Sums over the layers, see :class:`Layer`.
    training_memory : int
        Bytes that training takes at the least: three vectors as long as the parameters, which are the parameters, and
        the gradient and a copy or two states of the optimizer.
    training_flops : int
        To train on one row once: the forward pass, as many operations for the gradient of the weights, and as many for
        what is handed back to the layer below, which the first layer does not do, unless feature blocks are below.
    """

    title: str
    layers: tuple[Layer, ...]

    @property
    def n_params(self) -> int:
        return sum(layer.n_params for layer in self.layers)

    @property
    def n_trained(self) -> int:
        return sum(layer.n_trained for layer in self.layers)

    @property
    def memory(self) -> int:
        return sum(layer.memory for layer in self.layers)

    @property
    def training_memory(self) -> int:
        return TRAINING_VECTORS * self.memory

    @property
    def flops(self) -> int:
        return sum(layer.flops for layer in self.layers)

    @property
    def training_flops(self) -> int:
        return 3 * self.flops - self.layers[0].flops

    def _notes(self) -> tuple[str, ...]:
        """Return the lines below the table."""
        learned = "all learned"
        if self.n_trained < self.n_params:
            learned = f"{self.n_trained:,} learned and {self.n_params - self.n_trained:,} running statistics"
        return (
            f"{self.n_params:,} parameters: {learned}",
            f"memory: {_bytes(self.memory)}; training takes at least {_bytes(self.training_memory)}",
            f"FLOPs per row: {self.flops:,} to predict, {self.training_flops:,} to train;"
            " matrix products only, without biases and activations",
        )

    def __str__(self) -> str:
        # rich here, because reading the numbers alone must not wait for its import
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.MARKDOWN)
        for i, column in enumerate(COLUMNS):
            table.add_column(column, justify="left" if i in (0, 2) else "right", no_wrap=True)
        for layer in self.layers:
            table.add_row(*(Text(cell) for cell in layer.cells()))
        text = io.StringIO()
        # a plain text, wherever it is printed, and wide enough for any name of a formula
        Console(file=text, width=10_000, color_system=None, force_jupyter=False).print(table)
        lines = [line.rstrip() for line in text.getvalue().strip().splitlines()]
        return "\n".join([self.title, "", *lines, "", *self._notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = ' style="text-align: left"'
        align = [left if i in (0, 2) else "" for i in range(len(COLUMNS))]
        head = "".join(f"<th{style}>{column}</th>" for style, column in zip(align, COLUMNS, strict=True))
        rows = "".join(
            "<tr>"
            + "".join(f"<td{style}>{html.escape(c)}</td>" for style, c in zip(align, layer.cells(), strict=True))
            + "</tr>"
            for layer in self.layers
        )
        notes = "<br>".join(html.escape(note) for note in self._notes())
        return (
            f"<table><caption>{html.escape(self.title)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table><p>{notes}</p>"
        )


def summary(estimator: Any, n_features: int | None = None, n_outputs: int | None = None) -> Summary:
    """Return the layers, shapes, activations, parameters, memory and arithmetic of a network.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, an estimator for tables, or what ends in one
        Fitted, or not yet if `n_features` and `n_outputs` are given. Of a pipeline its last step is described, of a
        search its best estimator.
    n_features, n_outputs : int, default=None
        Units of the first and of the last layer of an MLPClassifier or MLPRegressor that is not fitted. A classifier
        has one output for two classes, else one per class or label. The network is that of float64 features.

    Returns
    -------
    Summary
        ``print`` it, or read ``layers``, ``n_params``, ``memory`` (bytes) and ``flops``.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted, and the numbers of features and outputs are not given.
    ValueError
        If they are no positive integers, or not those of the fitted network.
    TypeError
        If there is no estimator of fastmlp in it; :func:`fastmlp.from_sklearn` makes one of scikit-learn's.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import MLPClassifier, summary
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier((5, 5), solver="lbfgs", random_state=0).fit(X, y)
    >>> print(summary(clf))
    MLPClassifier 4-5-5-3, float64
    <BLANKLINE>
    | layer    | shape | activation | parameters | memory | FLOPs |
    |----------|-------|------------|------------|--------|-------|
    | hidden 1 | 4 x 5 | relu       |         25 |  200 B |    40 |
    | hidden 2 | 5 x 5 | relu       |         30 |  240 B |    50 |
    | output   | 5 x 3 | softmax    |         18 |  144 B |    30 |
    <BLANKLINE>
    73 parameters: all learned
    memory: 584 B; training takes at least 1.71 KiB
    FLOPs per row: 120 to predict, 320 to train; matrix products only, without biases and activations

    Before any data is there:

    >>> summary(MLPClassifier((5, 5)), n_features=4, n_outputs=3).n_params
    73
    """
    from fastmlp.estimator.base import BaseNetwork

    model = last_estimator(estimator)
    if not isinstance(model, BaseNetwork):
        raise TypeError(
            "summary takes a fitted MLPClassifier or MLPRegressor of fastmlp, or a pipeline that ends in one, got"
            f" {model!r}; fastmlp.from_sklearn makes one of scikit-learn's"
        )
    network, link = _network_of(model, n_features, n_outputs)
    title = f"{type(model).__name__} {'-'.join(map(str, network.widths))}, {network.dtype}"
    members = f", {network.members} members" if network.members > 1 else ""
    exact = network.matmul_precision == "highest"
    precision = "" if exact else f", matmul_precision {network.matmul_precision}"
    return Summary(title + members + precision, (*_blocks(network), *_layers(model, network, link)))


def _network_of(model: Any, n_features: int | None, n_outputs: int | None) -> tuple[Network, str]:
    """Return the network of an estimator, fitted or to be, and its output activation."""
    from fastmlp.estimator.architecture import network_to_be
    from fastmlp.estimator.base import _BaseMLP

    given = {"n_features": n_features, "n_outputs": n_outputs}
    can_be_told = isinstance(model, _BaseMLP) and not hasattr(model, "coefs_")
    if can_be_told and None not in given.values():
        for name, value in given.items():
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
        return network_to_be(model, int(n_features), int(n_outputs))  # type: ignore[arg-type]
    if can_be_told:
        raise NotFittedError(
            f"This {type(model).__name__} instance is not fitted yet: give n_features and n_outputs, or call fit or"
            " initialize first."
        )
    check_is_fitted(model, "coefs_")
    # estimators for tables keep theirs, whose parameters may be None
    network: Network = vars(model).get("network_") or model._fitted_network()
    for name, value, width in zip(given, given.values(), (network.widths[0], network.widths[-1]), strict=True):
        if value is not None and value != width:
            raise ValueError(f"{name}={value!r}, but this {type(model).__name__} is fitted and has {width}")
    return network, str(model.out_activation_)


def _blocks(network: Network) -> tuple[Layer, ...]:
    """Return what there is to say of each feature block."""
    found = []
    for i, block in enumerate(network.inputs):
        size = sum(segment.size for segment in network.segments if segment.name in ARRAYS and segment.layer == i)
        memory, name = size * network.dtype.itemsize, f"inputs {i + 1}"
        found.append(Layer(name, len(block.columns), block.width, block.kind, size, size, memory, 0))
    return tuple(found)


def _layers(model: Any, network: Network, link: str) -> tuple[Layer, ...]:
    """Return what there is to say of each layer."""
    options = {name: getattr(network, name) for name in stages.OPTIONS}
    if "network_" not in vars(model):
        asked = stages.options_of(model, len(network.activations))
        options |= {name: option for name, option in asked.items() if name not in stages.PREDICTS}
    layers = []
    for i, (fan_in, fan_out) in enumerate(network.shapes):
        hidden = i < len(network.activations)
        words = [describe(network.activations[i])] if hidden else [link]
        words += ["parametric"] if hidden and network.parametric_activations else []
        words += filter(None, (option.words(options[name], i) for name, option in stages.OPTIONS.items()))
        of_layer = [segment for segment in network.segments if segment.layer == i and segment.name not in ARRAYS]
        n_params = sum(segment.size for segment in of_layer)
        n_trained = sum(segment.size for segment in of_layer if segment.trained)
        name, flops = f"hidden {i + 1}" if hidden else "output", 2 * fan_in * fan_out * network.members
        memory = n_params * network.dtype.itemsize
        layers.append(Layer(name, fan_in, fan_out, ", ".join(words), n_params, n_trained, memory, flops))
    return tuple(layers)


# --- what displays read, too ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FittedLayers:
    """Weights as they predict, with names for what is around them."""

    coefs: list[np.ndarray]  # (fan_in, fan_out) each
    intercepts: list[np.ndarray]  # (fan_out,) each
    activations: list[str]  # one per layer, the output's last
    feature_names: list[str] | None
    output_names: list[str] | None


def last_estimator(estimator: Any) -> Any:
    """Return the last estimator of a pipeline, or the best one of a search; a ValueError refuses an ensemble.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from fastmlp import MLPRegressor
    >>> last_estimator(make_pipeline(StandardScaler(), MLPRegressor()))
    MLPRegressor()
    """
    from sklearn.pipeline import Pipeline

    while True:
        if isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "n_ens") and hasattr(estimator, "estimators_"):
            raise ValueError(
                f"this ensemble has {len(estimator.estimators_)} networks, and there is nothing to show of all of them:"
                " give one of its estimators_"
            )
        else:
            return estimator


def fitted_layers(estimator: Any) -> FittedLayers:
    """Return the fitted layers of an estimator of fastmlp or scikit-learn, batch normalisation folded in.

    A NotFittedError or a TypeError refuses what is not fitted or no multi-layer perceptron.
    """
    from fastmlp.estimator.base import _BaseMLP

    model = last_estimator(estimator)
    if not (isinstance(model, _BaseMLP) or hasattr(model, "hidden_layer_sizes")):
        raise TypeError(f"the estimator must be an MLPClassifier or MLPRegressor, or end in one, got {model!r}")
    check_is_fitted(model, "coefs_")
    coefs, intercepts = list(model.coefs_), list(model.intercepts_)
    activations = [str(model.activation)] * (len(coefs) - 1)
    if isinstance(model, _BaseMLP):
        network = model._fitted_network()
        activations = [describe(entry) for entry in network.activations]
        if network.plain is not network:
            plain, params = network.folded(weights.flat_params(model, network))
            coefs, intercepts = plain.coefs(params), plain.intercepts(params)
    # in a pipeline the network's features may differ from those of X, so use only its own names
    features = getattr(model, "feature_names_in_", None)
    return FittedLayers(
        [np.asarray(W) for W in coefs],
        [np.asarray(b) for b in intercepts],
        [*activations, str(model.out_activation_)],
        None if features is None else [str(name) for name in features],
        _output_names(model, len(intercepts[-1])),
    )


def describe(activation: Any) -> str:
    """Return an entry of ``Network.activations`` as text, with its parameters.

    Examples
    --------
    >>> describe(("elu", {"alpha": 0.5}))
    'elu(alpha=0.5)'
    """
    given = choices.given_parameters(activation)
    if choices.is_formula(activation):
        given = activation.constants
    inside = ", ".join(f"{name}={value:g}" for name, value in given.items())
    return choices.name_of(activation) + (f"({inside})" if inside else "")


def judged_activation(activation: Any) -> Any:
    """Check an activation as users write it, and return the entry for engines."""
    return choices.entry(formulas.ACTIVATIONS, activation, "activation", HIDDEN_ACTIVATIONS)


def _output_names(model: Any, n_outputs: int) -> list[str] | None:
    """Return the class names if each class has an output of its own."""
    classes = getattr(model, "classes_", None)
    if classes is None:
        return None
    classes = [str(label) for label in np.ravel(np.asarray(classes))]
    if n_outputs == 1 and len(classes) == 2:
        return [classes[1]]  # the probability of the second class
    return classes if len(classes) == n_outputs else None


def _bytes(n: int) -> str:
    """Return a number of bytes as text, with three significant digits.

    Examples
    --------
    >>> _bytes(584), _bytes(3_000_000)
    ('584 B', '2.86 MiB')
    """
    if n < 1024:
        return f"{n} B"
    power = min(int(math.log(n, 1024)), 4)
    value = n / 1024**power
    return f"{value:.{max(0, 2 - int(math.log10(value)))}f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
