"""Fitted networks as ONNX models, which onnxruntime and many other runtimes read.

The last step of the ONNX export: model.py reads the estimator, onnx_nodes.py writes the nodes, and :func:`to_onnx`
makes a checked model of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from numbers import Integral
from typing import Any

import numpy as np

import fastmlp
from fastmlp.data.optional import needed
from fastmlp.estimator.tabular import BaseTabular
from fastmlp.export import tables
from fastmlp.export.model import Model, in_dtype, read, write
from fastmlp.model import choices

#: What one ONNX file can hold.
MOST_BYTES = 2**31 - 1


def to_onnx(
    estimator: Any, path: str | os.PathLike[str] | None = None, *, opset: int | None = None, dtype: Any = None
) -> Any:
    """Convert a fitted estimator to an ONNX model; of an ensemble all networks, and the mean of their outputs.

    The input is "X" (n_samples, n_features) in the dtype of the model, with any number of rows. An estimator for tables
    has an input (n_samples, 1) per column, by its name: numbers in float64, or in `dtype` if it is given; categories as
    text or int64. A table that was an array of numbers is one input "X" of float64. A classifier has the
    outputs "label" (n_samples,), int64 or text, and "probabilities" (n_samples, n_classes); for multilabel targets
    "label" is (n_samples, n_labels) of 0 and 1. With a hinge loss the second one is "scores" (n_samples, n_outputs),
    the decision values. A regressor has the output "variable" (n_samples, n_outputs).

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, or an estimator for tables
        Fitted. For pipelines see :func:`fastmlp.export.register_skl2onnx`.
    path : str or path-like, default=None
        File to write the model to as well, whole or not at all.
    opset : int, default=None
        Version of ONNX's operator set, at least 13. By default the oldest one in which all activations of the network
        have operators of their own: 13, or 14 for hardswish, 18 for mish and 20 for gelu in float32. In older ones
        these are written with simpler operators.
    dtype : {'float32', 'float64'} or NumPy's, default=None
        Dtype of inputs, weights and outputs. By default the dtype of the estimator's weights.

    Returns
    -------
    onnx.ModelProto
        Checked by ``onnx.checker``.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If it is not an estimator of this package, or labels are neither integers nor text.
    ValueError
        If the opset is too old or unknown to the installed onnx, the dtype is another one or too small for the
        weights, the weights exceed 2 GiB, or columns have no names that ONNX can have.
    OSError
        If the file cannot be written. An old one is as it was.
    sklearn.exceptions.NotFittedError

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.export import to_onnx
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier((8,), solver="lbfgs", max_iter=50, random_state=0).fit(X, y)
    >>> model = to_onnx(clf)
    >>> [output.name for output in model.graph.output]
    ['label', 'probabilities']
    >>> [node.op_type for node in model.graph.node][:3]
    ['Gemm', 'Relu', 'Gemm']
    """
    checker = needed("onnx.checker", "to_onnx", '"fastmlp[onnx]"')
    import onnx

    is_table = isinstance(estimator, BaseTabular)
    model: Any = tables.read(estimator, dtype) if is_table else in_dtype(read(estimator), dtype)
    proto = _proto(onnx, model, _checked_opset(onnx, model, opset))
    checker.check_model(proto, full_check=True)
    if path is not None:
        write(path, proto.SerializeToString())
    return proto


def _checked_opset(onnx: Any, model: Any, opset: Any) -> int:
    """Return the operator set to write the model in."""
    from fastmlp.export.onnx_nodes import MIN_OPSET, opset_of

    newest = onnx.defs.onnx_opset_version()
    if opset is None:
        return min(opset_of(model, model.dtype), newest)
    known = isinstance(opset, Integral) and not isinstance(opset, bool)
    if not known or not MIN_OPSET <= opset <= newest:
        raise ValueError(
            f"opset must be an int from {MIN_OPSET}, which the model needs, to {newest}, the newest that onnx "
            f"{onnx.__version__} knows, got {opset!r}"
        )
    return int(opset)


def _proto(onnx: Any, model: Any, opset: int) -> Any:
    n_bytes = model.n_params * model.dtype.itemsize
    if n_bytes > MOST_BYTES - 2**20:  # the rest needs some room
        raise ValueError(f"the weights take {n_bytes / 2**30:.4g} GiB, an ONNX model holds at most 2 GiB")
    helper = onnx.helper
    nodes, inputs, outputs, opsets = _graph_of(onnx, model, opset)
    graph = helper.make_graph(nodes.nodes, model.estimator, inputs, outputs, nodes.constants)
    proto = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="fastmlp",
        producer_version=fastmlp.__version__,
    )
    helper.set_model_props(proto, _properties(model))
    return proto


def _graph_of(onnx: Any, model: Any, opset: int) -> tuple[Any, list[Any], list[Any], list[Any]]:
    """Return nodes, inputs, outputs, and versions of the sets of operators."""
    from fastmlp.export.onnx_nodes import Nodes, network_nodes

    helper = onnx.helper
    nodes, opsets = Nodes(model.dtype, opset), [helper.make_opsetid("", opset)]
    if isinstance(model, Model):
        inputs = [helper.make_tensor_value_info("X", _type(onnx, model.dtype), ["N", model.widths[0]])]
        outputs = _outputs(onnx, model)
        network_nodes(nodes, model, "X", [output.name for output in outputs])
        return nodes, inputs, outputs, opsets
    from fastmlp.export.onnx_columns import ML_DOMAIN, ML_VERSION
    from fastmlp.export.onnx_members import table_nodes

    types = {"number": _type(onnx, model.number_dtype), "int": onnx.TensorProto.INT64, "text": onnx.TensorProto.STRING}
    inputs = [
        helper.make_tensor_value_info(each.name, types[each.kind], ["N", len(each.columns)]) for each in model.inputs
    ]
    outputs = _outputs(onnx, model, {each.name for each in model.inputs})
    names = [output.name for output in outputs]
    nodes.reserve([*names, *(each.name for each in model.inputs)])
    table_nodes(nodes, model, names)
    if any(node.domain == ML_DOMAIN for node in nodes.nodes):
        opsets.append(helper.make_opsetid(ML_DOMAIN, ML_VERSION))
    return nodes, inputs, outputs, opsets


def _type(onnx: Any, dtype: np.dtype) -> int:
    number: int = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return number


def _outputs(onnx: Any, model: Any, taken: Collection[str] = ()) -> list[Any]:
    """Return the names, types and shapes of the outputs; a name that an input has gets an underscore."""
    tensor, values = onnx.TensorProto, _type(onnx, model.dtype)

    def info(name: str, kind: int, shape: list[Any]) -> Any:
        while name in taken:
            name += "_"
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    n_outputs = model.widths[-1]
    if model.task == "regression":
        return [info("variable", values, ["N", n_outputs])]
    if model.labels is None:
        label = info("label", tensor.INT64, ["N", n_outputs])
    else:
        label = info("label", tensor.INT64 if model.labels.dtype == np.int64 else tensor.STRING, ["N"])
    if model.link == "identity":
        return [label, info("scores", values, ["N", n_outputs])]
    return [label, info("probabilities", values, ["N", 2 if model.task == "binary" else n_outputs])]


def _properties(model: Any) -> dict[str, str]:
    """Return the properties for readers of the file: texts by name."""
    properties = {
        "estimator": model.estimator,
        "task": model.task,
        "widths": json.dumps(model.widths),
        "activation": json.dumps([choices.name_of(activation) for activation in model.activations]),
        "loss": model.loss,
    }
    if model.feature_names:
        properties["feature_names"] = json.dumps(model.feature_names)
    return properties
