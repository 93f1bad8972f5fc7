"""ONNX models predict what the estimators predict.

Judges: onnx's own reference evaluator, and onnxruntime where it is installed. They know the operators from ONNX's
definition; what they compute is compared with predict_proba, decision_function and predict.
"""

import copy
import doctest
import json
import os
import re
import sys
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import scipy.sparse as sp
from onnx.reference import ReferenceEvaluator
from sklearn import neural_network
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.export import register_skl2onnx, to_onnx
from fastmlp.export.onnx_nodes import MIN_OPSET, TRANSLATIONS
from fastmlp.kernels import formulas
from fastmlp.kernels.graph import OPS
from fastmlp.model.stages import UNIT_ATTRIBUTES

from exported import TASKS, fitted, one_unit, outputs, rows
from tiers import each_value_once

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # the fits are short

HIDDEN = [name for name, row in formulas.ACTIVATIONS.items() if row.hidden]
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-9}
NEWEST = onnx.defs.onnx_opset_version()
GUIDE = Path(__file__).resolve().parents[1] / "docs" / "export.md"


def reference(model, X):
    with np.errstate(all="ignore"):  # what a Where leaves aside is computed all the same
        return ReferenceEvaluator(model).run(None, {"X": X})


def session_of(model):
    """Return onnxruntime's session of a model, in one thread: of such small ones more would wait for each other."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnxruntime(model, X):
    return session_of(model).run(None, {"X": X})


@pytest.fixture(params=[reference, onnxruntime], ids=lambda run: run.__name__)
def run(request):
    """An interpreter of models: (model, X) -> outputs."""
    return request.param


def assert_same(estimator, got, X):
    """Outputs of a model against the estimator's own."""
    dtype = estimator.coefs_[0].dtype
    expected = outputs(estimator, X)
    assert got[-1].dtype == dtype
    tolerance = TOLERANCE[dtype.type]
    np.testing.assert_allclose(got[-1], expected, rtol=tolerance, atol=tolerance)
    if isinstance(estimator, MLPClassifier):
        np.testing.assert_array_equal(got[0], estimator.predict(X))


# --- activations and tasks --------------------------------------------------------------------------------------------


@pytest.mark.covers("activation", "task run dtype")
@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_activation_and_task(activation, task, dtype, run):
    X = 3 * rows(dtype, seed=2)
    estimator = fitted(task, dtype, activation)
    assert_same(estimator, run(to_onnx(estimator), X), X)


def in_dtype(estimator, dtype):
    """The same estimator with weights of another dtype."""
    other = copy.deepcopy(estimator)
    for name in ("coefs_", "intercepts_", *UNIT_ATTRIBUTES.values()):
        if hasattr(other, name):
            setattr(other, name, [None if a is None else a.astype(dtype) for a in getattr(other, name)])
    return other


@pytest.mark.covers("activation task", "run batch_norm dtype to")
@pytest.mark.parametrize("activation, task", list(zip(HIDDEN, cycle(TASKS))))
@pytest.mark.parametrize("batch_norm", [False, "before", "after"])
@pytest.mark.parametrize("dtype, to", [(np.float32, "float64"), (np.float64, "float32"), (np.float64, None)])
def test_dtype_of_the_model(activation, task, batch_norm, dtype, to, run):
    """Inputs, weights and outputs have it, whatever the network has."""
    estimator = fitted(task, dtype, activation, batch_norm=batch_norm)
    model = estimator.to_onnx(dtype=to)
    wanted = np.dtype(dtype if to is None else to)
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert {tensor.dtype for tensor in tensors if tensor.dtype.kind == "f"} == {wanted}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.helper.np_dtype_to_tensor_dtype(wanted)
    X = 2 * rows(wanted.type, seed=2)
    other = in_dtype(estimator, wanted)
    got = run(model, X)
    assert got[-1].dtype == wanted
    tolerance = max(TOLERANCE[dtype] if batch_norm else 0, TOLERANCE[wanted.type])  # folded in the network's dtype
    np.testing.assert_allclose(got[-1], outputs(other, X), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got[-1], outputs(estimator, X), rtol=2e-5, atol=2e-5)
    if isinstance(estimator, MLPClassifier):
        np.testing.assert_array_equal(got[0], other.predict(X))


def test_spellings_of_dtypes():
    estimator = fitted("binary")
    for to in ("float32", "float64"):
        for same in (np.dtype(to), np.dtype(to).type):
            assert to_onnx(estimator, dtype=same) == to_onnx(estimator, dtype=to)


def test_weights_too_large_for_float32_are_refused():
    estimator = fitted("regression")
    estimator.coefs_[1][0, 0] = 1e39
    with pytest.raises(ValueError, match=r"dtype='float32' cannot hold the weights of layer 2, up to 1e\+39"):
        to_onnx(estimator, dtype="float32")
    assert to_onnx(estimator, dtype="float64") == to_onnx(estimator)


@pytest.mark.parametrize("dtype", ["float16", "double precision", int, 32, "", ["float32"], np.complex128])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match=re.escape(f"dtype must be 'float32', 'float64' or None, got {dtype!r}")):
        to_onnx(fitted("binary"), dtype=dtype)


PARAMETERS = [
    ("leaky_relu", {"negative_slope": 0.3}),
    ("rrelu", {"lower": 0.1, "upper": 0.7}),
    ("elu", {"alpha": 0.7}),
    ("elu", {"alpha": 0.0}),
    ("celu", {"alpha": 2.3}),
    ("softplus", {"beta": 0.6}),
    ("hardtanh", {"min_val": -0.3, "max_val": 0.9}),
]


@pytest.mark.parametrize("activation", [*HIDDEN, *PARAMETERS], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("opset", [None, MIN_OPSET])
def test_activation_is_the_formula(activation, dtype, opset, run):
    """Far out, at kinks and next to zero: f(z) itself, with operators of ONNX's and with simpler ones."""
    z = np.array([-80, -30, -6, -3, -1, -0.3, -1e-3, -1e-9, 0, 1e-9, 1e-3, 0.9, 1, 3, 6, 30, 80], dtype=dtype)[:, None]
    estimator = one_unit(activation, dtype)
    if activation == "prelu":
        estimator.prelu_slopes_[0][...] = -0.4
    tolerance = TOLERANCE[dtype]
    got = run(to_onnx(estimator, opset=opset), z)[0].ravel()
    np.testing.assert_allclose(got, estimator.predict(z), rtol=tolerance, atol=tolerance / 10)


C = 0.4  # captured by a formula

FORMULAS = [
    "def swish(z): return z / (1 + exp(-z))",
    "def all_functions(z): return log(1 + z * z) + tanh(z) * erf(z) - sqrt(abs(z))",
    "def log1p_alone(z): return log1p(abs(z) * 1e-3) + log1p(1e30 * abs(z)) * 1e-3",
    "def expm1_alone(z): return expm1(z) + expm1(-1e3 * abs(z)) + expm1(1e-9 * z)",
    "def erf_alone(z): return erf(z)",
    "def clipped(z): return maximum(minimum(z, 1.5), -0.5)",
    "def steps(z): return 1 if z < -1 else (2 if z <= 1 else (3 if z == 3 else (4 if z != 6 else 5)))",
    "def constant(z): return 0.25",
    "def itself(z): return z",
    "def infinite(z): return z if abs(z) < 1e999 else 0.0",
    "def cube(z): return -(z * z * z)",
]


@pytest.mark.parametrize("source", FORMULAS, ids=lambda source: source[4:].split("(")[0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_formulas_of_users(source, dtype, run):
    formula = fastmlp.activation(source)
    z = np.array([-6, -3, -1, -0.3, -1e-9, 0, 1e-7, 0.4, 1, 3, 6], dtype=dtype)[:, None]
    estimator = one_unit(formula, dtype)
    tolerance = TOLERANCE[dtype]
    got = run(to_onnx(estimator), z)[0]
    np.testing.assert_allclose(got, formula(z), rtol=tolerance, atol=tolerance / 10)
    assert got.shape == z.shape


def test_formula_with_a_captured_number_and_a_link(run):
    @fastmlp.activation
    def scaled(z):
        return C * z if z > 0 else z

    @fastmlp.loss(link="exp")
    def deviance(y, p):
        return p - y * log(p)  # noqa: F821

    X = rows(np.float64)
    estimator = fitted("poisson", activation=[scaled, "prelu"], loss=deviance)
    assert_same(estimator, run(to_onnx(estimator), X), X)


def test_erf_keeps_its_digits_in_float64(run):
    from scipy.special import erf

    z = np.linspace(-7, 7, 2001)[:, None]
    estimator = one_unit(fastmlp.activation("def bell(z): return erf(z)"), np.float64)
    np.testing.assert_allclose(run(to_onnx(estimator), z)[0], erf(z), rtol=0, atol=2e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log1p_keeps_its_digits(dtype, run):
    z = np.array([-0.99, -1e-3, -1e-7, 1e-30, 1e-9, 1e-5, 0.3, 1, 1e5, 1e30], dtype=dtype)[:, None]
    estimator = one_unit(fastmlp.activation("def slow(z): return log1p(z)"), dtype)
    np.testing.assert_allclose(run(to_onnx(estimator), z)[0], np.log1p(z), rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_expm1_keeps_its_digits(dtype, run):
    z = np.array([-1e30, -30, -3, -0.3, -1e-5, -1e-30, 1e-9, 1e-5, 0.3, 0.999, 1, 3, 80, 1e30], dtype=dtype)[:, None]
    estimator = one_unit(fastmlp.activation("def fast(z): return expm1(z)"), dtype)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(run(to_onnx(estimator), z)[0], np.expm1(z), rtol=8 * np.finfo(dtype).eps)


def test_every_operation_has_a_translation():
    assert TRANSLATIONS.keys() == OPS.keys()


# --- what else a network may have -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_norm", [True, "after"])
@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_batch_norm_is_folded(activation, batch_norm, dtype, run):
    X = rows(dtype, seed=3)
    estimator = fitted("multiclass", dtype, activation, batch_norm=batch_norm, dropout=0.2, max_iter=5)
    model = to_onnx(estimator)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert_same(estimator, run(model, X), X)


def test_without_hidden_layers(run):
    X = rows(np.float32)
    estimator = fitted("binary", np.float32, hidden=())
    assert_same(estimator, run(to_onnx(estimator), X), X)


def test_sparse_fit_and_float64_weights_of_lbfgs(run):
    dense = np.where(np.abs(rows(np.float32)) > 1, rows(np.float32), 0)
    estimator = fitted("binary", X=sp.csr_array(dense), solver="lbfgs")
    X = dense.astype(np.float64)
    assert_same(estimator, run(to_onnx(estimator), X), X)


@pytest.mark.parametrize("n", [1, 3, 1000])
def test_any_number_of_rows(n, run):
    estimator = fitted("binary text", np.float32)
    X = rows(np.float32, n)
    assert_same(estimator, run(to_onnx(estimator), X), X)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (np.array([False, True]), np.int64),
        (np.array([1.0, 2.0, 5.0]), np.int64),
        (np.array([200, 3], dtype=np.uint8), np.int64),
        (np.array([-(2**62), 2**62]), np.int64),
        (np.array(["a", "bb"], dtype=object), np.str_),
        (np.array([3]), np.int64),
    ],
    ids=str,
)
def test_labels(labels, kind, run):
    X = rows(np.float64)
    y = labels[np.arange(40) % len(labels)]
    estimator = MLPClassifier((3,), solver="lbfgs", max_iter=2, random_state=0).fit(X, y)
    estimator.intercepts_[-1][-1] = 0.5  # the last class is likely, even where there is but one
    got = run(to_onnx(estimator), X)
    assert got[0].astype(kind).tolist() == estimator.predict(X).astype(kind).tolist()
    np.testing.assert_allclose(got[1], estimator.predict_proba(X), atol=1e-9)


def test_labels_that_fit_no_int64_are_refused():
    X, y = rows(np.float64), np.array([1, 2**63 + 5], dtype=np.uint64)[np.arange(40) % 2]
    with pytest.raises(ValueError, match="class labels must be integers of 64 bits"):
        to_onnx(MLPClassifier((3,), solver="lbfgs", max_iter=2).fit(X, y))


# --- the model --------------------------------------------------------------------------------------------------------


def shapes(values):
    return {value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("binary", {"label": ["N"], "probabilities": ["N", 2]}),
        ("multiclass", {"label": ["N"], "probabilities": ["N", 4]}),
        ("multilabel", {"label": ["N", 3], "probabilities": ["N", 3]}),
        ("hinge", {"label": ["N"], "scores": ["N", 1]}),
        ("hinge of three", {"label": ["N"], "scores": ["N", 3]}),
        ("regression", {"variable": ["N", 1]}),
        ("gamma", {"variable": ["N", 2]}),
    ],
)
def test_inputs_and_outputs(task, expected):
    graph = to_onnx(fitted(task)).graph
    assert shapes(graph.input) == {"X": ["N", 5]}
    assert shapes(graph.output) == expected
    # what shape inference finds agrees, with nothing left open
    inferred = onnx.shape_inference.infer_shapes(to_onnx(fitted(task)), strict_mode=True, data_prop=True)
    assert shapes(inferred.graph.output) == expected


def test_what_the_file_says_of_itself():
    X = pd.DataFrame(rows(np.float64), columns=["age", "größe", "c", "d", "e"])
    model = to_onnx(fitted("binary", X=X))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert (model.producer_name, model.producer_version) == ("fastmlp", fastmlp.__version__)
    assert json.loads(properties.pop("feature_names")) == list(X.columns)
    assert properties == {
        "estimator": "MLPClassifier",
        "task": "binary",
        "widths": "[5, 6, 4, 1]",
        "activation": '["tanh", "tanh"]',
        "loss": "log_loss",
    }


def test_same_estimator_same_bytes():
    estimator = fitted("multiclass", activation="gelu")
    assert to_onnx(estimator).SerializeToString() == estimator.to_onnx().SerializeToString()


def test_float32_uses_operators_of_onnx():
    names = [name for name in HIDDEN if name not in ("identity", "step")]
    graph = to_onnx(fitted("binary", np.float32, names, hidden=(3,) * len(names))).graph
    used = {node.op_type for node in graph.node}
    operators = {
        "LeakyRelu",
        "PRelu",
        "Elu",
        "Selu",
        "Celu",
        "Softplus",
        "Softsign",
        "HardSigmoid",
        "HardSwish",
        "Mish",
    }
    assert operators | {"Sigmoid", "Tanh", "Relu", "Clip", "Gelu"} <= used
    assert not used & {"Where", "Exp", "Erf", "Log"}


# --- opsets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "dtype", "opset"),
    [
        ("relu", np.float32, 13),
        ("hardswish", np.float32, 14),
        ("mish", np.float32, 18),
        ("gelu", np.float32, 20),
        ("gelu", np.float64, 13),
        (("relu", "gelu_tanh"), np.float32, 20),
    ],
)
def test_default_opset(activation, dtype, opset):
    model = to_onnx(fitted("binary", dtype, activation))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version <= 9


@pytest.mark.parametrize("opset", range(MIN_OPSET, NEWEST + 1))
def test_every_opset(opset):
    X = rows(np.float32)
    estimator = fitted("binary", np.float32, HIDDEN, hidden=(4,) * len(HIDDEN))
    model = to_onnx(estimator, opset=opset)
    assert model.opset_import[0].version == opset
    assert_same(estimator, reference(model, X), X)


@pytest.mark.parametrize("opset", [12, 0, -1, NEWEST + 1, "13", 13.0, True, np.nan, [13]])
def test_wrong_opsets_are_refused(opset):
    with pytest.raises(ValueError, match=rf"opset must be an int from 13, which the model needs, to {NEWEST}.*got "):
        to_onnx(fitted("binary"), opset=opset)


def test_numpy_integers_are_opsets():
    assert to_onnx(fitted("binary"), opset=np.int64(15)).opset_import[0].version == 15


# --- files and errors -------------------------------------------------------------------------------------------------


def test_file_is_the_model(tmp_path):
    path = tmp_path / "model.onnx"
    model = to_onnx(fitted("binary"), path)
    assert onnx.load(path) == model
    assert os.listdir(tmp_path) == ["model.onnx"]
    fitted("multiclass").to_onnx(str(path), opset=17)
    assert onnx.load(path).opset_import[0].version == 17


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*missing': '.*missing.+'"):
        to_onnx(fitted("binary"), tmp_path / "missing" / "model.onnx")
    assert os.listdir(tmp_path) == []


def test_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        to_onnx(fitted("binary"), path)
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert path.read_bytes() == b"old"


def test_unfitted():
    with pytest.raises(NotFittedError):
        to_onnx(MLPRegressor())


@pytest.mark.parametrize(
    "estimator", [neural_network.MLPClassifier(), make_pipeline(MLPClassifier()), None, MLPClassifier]
)
def test_other_estimators_are_refused(estimator):
    with pytest.raises(TypeError, match=r"estimator must be a fitted fastmlp\.MLPClassifier or MLPRegressor, got \w+"):
        to_onnx(estimator)


def test_without_onnx(monkeypatch):
    for name in [name for name in sys.modules if name == "onnx" or name.startswith("onnx.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "fastmlp\[onnx\]"'):
        to_onnx(fitted("binary"))


def test_more_than_a_file_can_hold(monkeypatch):
    monkeypatch.setattr("fastmlp.export.onnx.MOST_BYTES", 2**20 + 100)
    with pytest.raises(ValueError, match="an ONNX model holds at most 2 GiB"):
        to_onnx(fitted("binary"))


def test_weights_that_do_not_fit_each_other():
    estimator = fitted("binary")
    estimator.coefs_ = [estimator.coefs_[0], estimator.coefs_[2]]
    with pytest.raises(ValueError, match="coefs_ must be a chain of matrices"):
        to_onnx(estimator)


# --- pipelines --------------------------------------------------------------------------------------------------------


@pytest.fixture
def convert():
    """Conversion of pipelines with skl2onnx: (pipeline, dtype, options) -> outputs of onnxruntime by name."""
    skl2onnx = pytest.importorskip("skl2onnx")
    pytest.importorskip("onnxruntime")
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    register_skl2onnx()

    def run(pipeline, X, options=None, **others):
        kind = FloatTensorType if X.dtype == np.float32 else DoubleTensorType
        model = skl2onnx.to_onnx(pipeline, initial_types=[("X", kind([None, X.shape[1]]))], options=options, **others)
        session = session_of(model)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, {"X": X}), strict=True))

    return run


def pipeline(task, dtype, activation="elu"):
    make, loss, targets = TASKS[task]
    X = 5 + 3 * rows(dtype)
    parameters = {"hidden_layer_sizes": (6, 4), "solver": "lbfgs", "max_iter": 5, "random_state": 0}
    steps = make_pipeline(StandardScaler(), make(activation=activation, loss=loss, **parameters))
    return steps.fit(X, targets(np.random.default_rng(1), len(X))), X


@each_value_once
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("task", TASKS)
def test_pipelines(task, dtype, convert):
    model, X = pipeline(task, dtype, ["gelu", "prelu"])
    options = {"zipmap": False} if isinstance(model[-1], MLPClassifier) else None
    got = convert(model, X, options)
    tolerance = 10 * TOLERANCE[dtype]
    if options:
        np.testing.assert_array_equal(got["label"], model.predict(X))
    expected = outputs(model, X)
    np.testing.assert_allclose(
        got["probabilities" if options else "variable"], expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("task", ["binary", "multiclass text"])
def test_options_of_skl2onnx(task, convert):
    model, X = pipeline(task, np.float32)
    proba = model.predict_proba(X)
    zipped = convert(model, X)  # zipmap is skl2onnx's default
    assert list(zipped) == ["output_label", "output_probability"]
    assert list(zipped["output_label"]) == list(model.predict(X))
    assert list(zipped["output_probability"][0]) == list(model.classes_)
    np.testing.assert_allclose([list(row.values()) for row in zipped["output_probability"]], proba, atol=1e-5)
    columns = convert(model, X, {"zipmap": "columns"})
    np.testing.assert_allclose(np.column_stack(list(columns.values())[1:]), proba, atol=1e-5)
    plain = convert(model, X, {"zipmap": False, "nocl": True})
    np.testing.assert_array_equal(plain["label"], np.searchsorted(model.classes_, model.predict(X)))
    labelled = convert(model, X, {"zipmap": False, "output_class_labels": True})
    assert list(labelled["class_labels"]) == list(model.classes_)


def test_pipelines_need_an_opset_too(convert):
    model, X = pipeline("regression", np.float32)
    assert convert(model, X, target_opset=MIN_OPSET).keys() == {"variable"}
    with pytest.raises(ValueError, match="target_opset must be at least 13"):
        convert(model, X, target_opset=12)


def test_without_skl2onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(ImportError, match="pip install skl2onnx"):
        register_skl2onnx()


@pytest.mark.skipif(not find_spec("onnxruntime") or not find_spec("skl2onnx"), reason="needs onnxruntime and skl2onnx")
def test_sessions_of_the_guide(tmp_path, monkeypatch):
    """Blocks that need optional packages, which test_docs.py leaves alone."""
    monkeypatch.chdir(tmp_path)
    text = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(text, {}, "export.md", str(GUIDE), 0)
    assert test.examples
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test)
    assert result.failed == 0
