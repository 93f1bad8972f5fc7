"""Fitted networks for other runtimes: ONNX models and C files.

Reading order: model.py reads an estimator, c.py and onnx.py write it, onnx_nodes.py holds ONNX's operators,
skl2onnx.py converts whole pipelines. Estimators for tables: tables.py reads them, onnx_columns.py holds what is done to
columns, onnx_members.py the networks.  Formulas are not written again here: those of kernels/formulas.py, and users'
own, are translated from their register programs (kernels/program.py).
"""

from fastmlp.export.c import to_c
from fastmlp.export.onnx import to_onnx
from fastmlp.export.skl2onnx import register_skl2onnx

__all__ = ["register_skl2onnx", "to_c", "to_onnx"]
