"""onnxruntime: the smallest graph of the net, Gemm, activation and Softmax."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fastmlp.bench.workloads import Task


def model(task: Task) -> bytes:
    """Return the net with the task's initial weights, serialized."""
    network, layers = task.network, task.layers
    activation = {"relu": "Relu", "tanh": "Tanh"}[task.workload.activation]
    nodes, constants, value = [], [], "X"
    for i, (W, b) in enumerate(layers):
        constants += [numpy_helper.from_array(W, f"W{i}"), numpy_helper.from_array(b, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [value, f"W{i}", f"b{i}"], [f"z{i}"]))
        value = "out" if i == len(layers) - 1 else f"a{i}"
        nodes.append(helper.make_node("Softmax" if value == "out" else activation, [f"z{i}"], [value]))
    kind = TensorProto.FLOAT if task.X.dtype == np.float32 else TensorProto.DOUBLE
    inputs = [helper.make_tensor_value_info("X", kind, ["n", network.widths[0]])]
    outputs = [helper.make_tensor_value_info("out", kind, ["n", network.widths[-1]])]
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, constants)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def predictor(task: Task, name: str) -> Callable[[np.ndarray], np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model(task), options, providers=["CPUExecutionProvider"])
    return lambda X: session.run(None, {"X": X})[0]
