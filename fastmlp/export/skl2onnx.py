"""Whole scikit-learn pipelines to ONNX: converters of the two estimators for skl2onnx."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastmlp.data.optional import needed
from fastmlp.export.model import Model, read


def register_skl2onnx() -> None:
    """Tell skl2onnx how to convert MLPClassifier and MLPRegressor, alone or as parts of pipelines.

    Needed once per process. The outputs are those of skl2onnx's own converters, with its options ``zipmap``, ``nocl``
    and ``output_class_labels`` for classifiers; of a classifier with a hinge loss "probabilities" are decision values.
    The arithmetic is done in the dtype of the model's input.

    Raises
    ------
    ImportError
        If skl2onnx is not installed.

    Examples
    --------
    >>> from fastmlp.export import register_skl2onnx
    >>> register_skl2onnx()  # doctest: +SKIP
    """
    skl2onnx = needed("skl2onnx", "register_skl2onnx", "skl2onnx")
    from fastmlp.estimators import MLPClassifier, MLPRegressor

    options = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}
    skl2onnx.update_registered_converter(
        MLPClassifier, "FastmlpMLPClassifier", _classifier_shapes, _convert, overwrite=True, options=options
    )
    skl2onnx.update_registered_converter(
        MLPRegressor, "FastmlpMLPRegressor", _regressor_shapes, _convert, overwrite=True
    )


def _classifier_shapes(operator: Any) -> None:
    """Set the types and shapes of label and probabilities."""
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes

    calculate_linear_classifier_output_shapes(operator)
    model, n_rows = read(operator.raw_operator), operator.inputs[0].get_first_dimension()
    if model.task == "multilabel":
        operator.outputs[0].type.shape = [n_rows, model.widths[-1]]
    operator.outputs[1].type.shape = [n_rows, _n_columns(model)]


def _regressor_shapes(operator: Any) -> None:
    """Set the type and shape of the values."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from skl2onnx.common.utils import check_input_and_output_numbers

    check_input_and_output_numbers(operator, input_count_range=1, output_count_range=1)
    kind = DoubleTensorType if isinstance(operator.inputs[0].type, DoubleTensorType) else FloatTensorType
    n_rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].set_type(kind([n_rows, read(operator.raw_operator).widths[-1]]))


def _n_columns(model: Model) -> int:
    return 2 if model.task == "binary" and model.link != "identity" else model.widths[-1]


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add a network's nodes and constants to skl2onnx's container."""
    from onnx import TensorProto, helper, numpy_helper
    from skl2onnx.common.data_types import guess_proto_type

    from fastmlp.export.onnx_nodes import MIN_OPSET, Nodes, network_nodes

    opset = container.target_opset
    if opset < MIN_OPSET:
        raise ValueError(f"target_opset must be at least {MIN_OPSET} for {operator.raw_operator!r}, got {opset}")
    model = read(operator.raw_operator)
    if model.labels is not None and scope.get_options(operator.raw_operator, {"nocl": False})["nocl"]:
        model = replace(model, labels=np.arange(len(model.labels)))
    double = guess_proto_type(operator.inputs[0].type) == TensorProto.DOUBLE
    nodes = Nodes(np.float64 if double else np.float32, opset, scope.get_unique_variable_name)
    X = nodes.add("Cast", operator.inputs[0].full_name, to=TensorProto.DOUBLE if double else TensorProto.FLOAT)
    network_nodes(nodes, model, X, [output.full_name for output in operator.outputs])
    for tensor in nodes.constants:
        values = numpy_helper.to_array(tensor).ravel()
        container.add_initializer(tensor.name, tensor.data_type, list(tensor.dims), values)
    for node in nodes.nodes:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        name = scope.get_unique_operator_name(node.op_type)
        container.add_node(node.op_type, list(node.input), list(node.output), name=name, **attributes)
