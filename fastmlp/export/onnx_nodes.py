"""Networks in ONNX's operators.

Second step of the ONNX exports: :func:`network_nodes` adds a Model's nodes to a :class:`Nodes`; onnx.py makes a
model of them, skl2onnx.py a part of one.

Activations use ONNX's own operator if it computes the same; otherwise their formula is translated operation by
operation, as users' formulas are.  In float64 the formula is nearly always translated: attributes of operators are
float32 numbers, and onnxruntime has most of these operators in float32 only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper
from scipy.special import erfcx

from fastmlp.export.model import Fitted, Layer, Model, activation_program, operations
from fastmlp.kernels import formulas
from fastmlp.kernels.graph import SELECTS
from fastmlp.model import choices

#: The oldest version of the operator set in which every network can be written.
MIN_OPSET = 13


class Nodes:
    """Nodes and constants of a graph in the making. Values are known by their names.

    All numbers but labels have the dtype, float32 or float64. `unique` makes a new name like the one it is given; it is
    needed where others name values in the same graph.
    """

    def __init__(self, dtype: Any, opset: int, unique: Callable[[str], str] | None = None) -> None:
        self.dtype, self.opset = np.dtype(dtype), opset
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._unique = unique or self._numbered
        self._taken: Counter[str] = Counter()
        self._scalars: dict[str, str] = {}

    def _numbered(self, hint: str) -> str:
        name = hint
        while name in self._taken:
            self._taken[hint] += 1
            name = f"{hint}_{self._taken[hint]}"
        self._taken[name] = 1
        return name

    def reserve(self, names: Iterable[str]) -> None:
        """Take names that are somebody else's: inputs and outputs."""
        self._taken.update(dict.fromkeys(names, 1))

    def in_dtype(self, dtype: Any) -> Nodes:
        """Return nodes of another dtype in the same graph."""
        other = Nodes(dtype, self.opset, self._unique)
        other.nodes, other.constants = self.nodes, self.constants
        return other

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; return its name, a new one unless given."""
        name = self._unique(op) if output is None else output
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{op}:{name}", **attributes))
        return name

    def array(self, values: np.ndarray, hint: str) -> str:
        """Add a constant; floating-point numbers become the graph's dtype."""
        values = values.astype(self.dtype) if values.dtype.kind == "f" else values
        name = self._unique(hint)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def scalar(self, value: float) -> str:
        """Return a constant number; equal numbers are kept once."""
        key = float(value).hex()
        if key not in self._scalars:
            self._scalars[key] = self.array(np.array(value, dtype=np.float64), "constant")
        return self._scalars[key]


# --- activations ------------------------------------------------------------------------------------------------------


class Operator(NamedTuple):
    """How ONNX says an activation itself: from which version on, in which dtypes, and the nodes it takes."""

    since: int
    float64: bool
    make: Callable[..., str]  # (nodes, z, parameters: a number, or the name of a constant if learned)


def _own(op: str, **attributes: Any) -> Callable[..., str]:
    """Return how one operator of z, without parameters of the activation, is added."""
    return lambda nodes, z, p: nodes.add(op, z, **attributes)


def _softplus(nodes: Nodes, z: str, p: dict) -> str:
    if p["beta"] == 1.0:
        return nodes.add("Softplus", z)
    beta = nodes.scalar(p["beta"])
    return nodes.add("Div", nodes.add("Softplus", nodes.add("Mul", beta, z)), beta)


def _clip(nodes: Nodes, z: str, low: float, high: float) -> str:
    return nodes.add("Clip", z, nodes.scalar(low), nodes.scalar(high))


OPERATORS: dict[str, Operator] = {
    "identity": Operator(13, True, lambda nodes, z, p: z),
    "logistic": Operator(13, True, _own("Sigmoid")),
    "tanh": Operator(13, True, _own("Tanh")),
    "relu": Operator(13, True, _own("Relu")),
    "exp": Operator(13, True, _own("Exp")),
    "relu6": Operator(13, True, lambda nodes, z, p: _clip(nodes, z, 0.0, 6.0)),
    "hardtanh": Operator(13, True, lambda nodes, z, p: _clip(nodes, z, p["min_val"], p["max_val"])),
    "silu": Operator(13, True, lambda nodes, z, p: nodes.add("Mul", z, nodes.add("Sigmoid", z))),
    "leaky_relu": Operator(13, False, lambda nodes, z, p: nodes.add("LeakyRelu", z, alpha=p["negative_slope"])),
    "rrelu": Operator(13, False, lambda nodes, z, p: nodes.add("LeakyRelu", z, alpha=(p["lower"] + p["upper"]) / 2)),
    "prelu": Operator(13, False, lambda nodes, z, p: nodes.add("PRelu", z, p["slope"])),
    "elu": Operator(13, False, lambda nodes, z, p: nodes.add("Elu", z, alpha=p["alpha"])),
    "selu": Operator(13, False, _own("Selu")),
    "celu": Operator(13, False, lambda nodes, z, p: nodes.add("Celu", z, alpha=p["alpha"])),
    "softplus": Operator(13, False, _softplus),
    "softsign": Operator(13, False, _own("Softsign")),
    "hardsigmoid": Operator(13, False, _own("HardSigmoid", alpha=1.0 / 6.0, beta=0.5)),
    "hardswish": Operator(14, False, _own("HardSwish")),
    "mish": Operator(18, False, _own("Mish")),
    "gelu": Operator(20, False, _own("Gelu")),
    "gelu_tanh": Operator(20, False, _own("Gelu", approximate="tanh")),
}


def operator_of(activation: Any, dtype: np.dtype) -> Operator | None:
    """Return ONNX's own operator for a hidden activation or a link; None if it has none in this dtype."""
    row = None if choices.is_formula(activation) else OPERATORS.get(choices.name_of(activation))
    return row if row is not None and (row.float64 or dtype == np.float32) else None


def activation_nodes(nodes: Nodes, z: str, activation: Any, learned: dict[str, str]) -> str:
    """Return the nodes of an activation of z; `learned` names the constants of its learned parameters."""
    operator = operator_of(activation, nodes.dtype)
    if operator is not None and operator.since <= nodes.opset:
        return operator.make(nodes, z, choices.parameters_of(formulas.ACTIVATIONS, activation) | learned)
    steps, output = operations(*activation_program(activation))
    values = [z, *learned.values()]

    def name(operand: int | float) -> str:
        return values[operand] if isinstance(operand, int) else nodes.scalar(operand)

    for step in steps:
        values.append(TRANSLATIONS[step.op](nodes, *map(name, step.operands)))
    if isinstance(output, float):  # an activation that does not look at z
        return nodes.add("Expand", nodes.scalar(output), nodes.add("Shape", z))
    return values[output]


def _expm1(nodes: Nodes, x: str) -> str:
    """Compute exp(x) - 1; below 1, where digits would cancel, as 2t / (1 - t) with t = tanh(x/2)."""
    one = nodes.scalar(1.0)
    t = nodes.add("Tanh", nodes.add("Mul", nodes.scalar(0.5), x))
    near = nodes.add("Div", nodes.add("Add", t, t), nodes.add("Sub", one, t))
    return nodes.add("Where", nodes.add("Less", x, one), near, nodes.add("Sub", nodes.add("Exp", x), one))


def _log1p(nodes: Nodes, x: str) -> str:
    """Compute log(1 + x). With u = 1 + x as it is rounded, log(u) x / (u - 1) has the digits that log(u) has lost.

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), section 1.14.1.
    """
    one = nodes.scalar(1.0)
    u = nodes.add("Add", one, x)
    log = nodes.add("Log", u)
    corrected = nodes.add("Mul", log, nodes.add("Div", x, nodes.add("Sub", u, one)))
    corrected = nodes.add("Where", nodes.add("Equal", u, one), x, corrected)
    return nodes.add("Where", nodes.add("Less", nodes.add("Abs", x), one), corrected, log)


def _erf(nodes: Nodes, x: str) -> str:
    """Compute erf(x). onnxruntime has it in float32 only; else sign(x) (1 - exp(-x^2) q(t) / (1 + 2|x|)).

    q is a polynomial in t = (|x| - 3.75) / (|x| + 3.75). Error 1e-14 everywhere. Source: Shepherd and Laframboise
    (1981), Chebyshev approximation of (1 + 2x) exp(x^2) erfc x.
    """
    if nodes.dtype == np.float32:
        return nodes.add("Erf", x)
    one, two, middle = (nodes.scalar(value) for value in (1.0, 2.0, 3.75))
    size = nodes.add("Min", nodes.add("Abs", x), nodes.scalar(1e9))  # infinity would give inf / inf
    t = nodes.add("Div", nodes.add("Sub", size, middle), nodes.add("Add", size, middle))
    *coefficients, q = map(nodes.scalar, _erfc_polynomial())
    for coefficient in reversed(coefficients):
        q = nodes.add("Add", nodes.add("Mul", q, t), coefficient)
    q = nodes.add("Div", q, nodes.add("Add", one, nodes.add("Mul", two, size)))
    tail = nodes.add("Mul", nodes.add("Exp", nodes.add("Neg", nodes.add("Mul", x, x))), q)
    erf = nodes.add("Sub", one, tail)
    return nodes.add("Where", nodes.add("Less", x, nodes.scalar(0.0)), nodes.add("Neg", erf), erf)


def _erfc_polynomial() -> list[float]:
    """Return the coefficients of q in :func:`_erf`, the constant first: through Chebyshev's nodes."""

    def scaled(t: np.ndarray) -> np.ndarray:
        x = 3.75 * (1.0 + t) / (1.0 - t)
        return (1.0 + 2.0 * x) * erfcx(x)

    series = np.polynomial.Chebyshev.interpolate(scaled, 20)
    return series.convert(kind=np.polynomial.Polynomial).coef.tolist()


def _plain(op: str, nodes: Nodes, *x: str) -> str:
    return nodes.add(op, *x)


def _select(compare: str, nodes: Nodes, a: str, b: str, c: str, d: str) -> str:
    return nodes.add("Where", nodes.add(compare, c, d), a, b)


def _select_other(nodes: Nodes, a: str, b: str, c: str, d: str) -> str:
    return nodes.add("Where", nodes.add("Not", nodes.add("Equal", c, d)), a, b)


_BY_NAME = ("add", "sub", "mul", "div", "neg", "exp", "log", "tanh", "sqrt", "abs")
_COMPARISONS = ("Less", "LessOrEqual", "Equal")
_SELECTS: list[Callable[..., str]] = [*(partial(_select, compare) for compare in _COMPARISONS), _select_other]

#: Operation of a formula (kernels/graph.py) -> its nodes, from the names of the operands.
TRANSLATIONS: dict[str, Callable[..., str]] = {
    **{name: partial(_plain, name.capitalize()) for name in _BY_NAME},
    "expm1": _expm1,
    "log1p": _log1p,
    "erf": _erf,
    **dict(zip(SELECTS, _SELECTS, strict=True)),
}


# --- networks ---------------------------------------------------------------------------------------------------------


def opset_of(model: Any, dtype: np.dtype) -> int:
    """Return the oldest operator set that has an operator for each activation, if ONNX has any."""
    operators = [operator_of(activation, dtype) for activation in model.activations]
    return max([MIN_OPSET, *(operator.since for operator in operators if operator is not None)])


def network_nodes(nodes: Nodes, model: Model, X: str, outputs: list[str]) -> None:
    """Add all nodes from X (n, n_features) to the outputs, which get these names.

    Of a classifier: label, and probabilities or scores; of a regressor: values (n, n_outputs).
    """
    last_nodes(
        nodes, model, mean(nodes, [_output_nodes(nodes, each, model.link, X) for each in model.networks]), outputs
    )


def mean(nodes: Nodes, found: Sequence[str]) -> str:
    """Add the mean of the outputs of several networks."""
    if len(found) == 1:
        return found[0]
    # not Mean, which onnxruntime has in float32 only
    return nodes.add("Div", nodes.add("Sum", *found), nodes.scalar(float(len(found))))


def last_nodes(nodes: Nodes, model: Fitted, out: str, outputs: list[str]) -> None:
    """Add the nodes from outputs (n, n_outputs) of the network to those of the graph."""
    if model.task == "regression":
        nodes.add("Identity", out, output=outputs[0])
        return
    label, scores = outputs
    _label_nodes(nodes, model, out, label)
    if model.task == "binary" and model.link != "identity":
        nodes.add("Concat", nodes.add("Sub", nodes.scalar(1.0), out), out, axis=1, output=scores)
    else:
        nodes.add("Identity", out, output=scores)


def link_nodes(nodes: Nodes, z: str, link: str) -> str:
    """Add the link from logits to outputs, along the last axis."""
    return nodes.add("Softmax", z, axis=-1) if link == "softmax" else activation_nodes(nodes, z, link, {})


def _output_nodes(nodes: Nodes, layers: list[Layer], link: str, X: str) -> str:
    """Add the nodes of one network; return its outputs (n, n_outputs)."""
    a = X
    for i, layer in enumerate(layers):
        z = nodes.add("Gemm", a, nodes.array(layer.W, f"coefs_{i}"), nodes.array(layer.b, f"intercepts_{i}"))
        if i < len(layers) - 1:
            learned = {name: nodes.array(values, f"{name}_{i}") for name, values in layer.learned.items()}
            a = activation_nodes(nodes, z, layer.activation, learned)
    return link_nodes(nodes, z, link)


def _label_nodes(nodes: Nodes, model: Fitted, out: str, label: str) -> None:
    """Add labels (n,), or 0/1 indicators (n, n_labels), from outputs (n, n_outputs)."""
    if model.task == "multiclass":
        chosen = nodes.add("ArgMax", out, axis=1, keepdims=0)
    else:
        above = nodes.add("Greater", out, nodes.scalar(model.threshold))
        if model.labels is None:
            nodes.add("Cast", above, to=TensorProto.INT64, output=label)
            return
        indicator = nodes.add("Cast", above, to=TensorProto.INT64)
        chosen = nodes.add("Reshape", indicator, nodes.array(np.array([-1], dtype=np.int64), "one_axis"))
    assert model.labels is not None
    nodes.add("Gather", nodes.array(model.labels, "classes"), chosen, axis=0, output=label)
