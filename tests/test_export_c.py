"""C files predict what the estimators predict.

The networks are compiled as one file, each under a name of its own, with every warning an error; ctypes calls them.
What they compute is compared with predict_proba, decision_function and predict.
"""

import ctypes
import os
import re
import shutil
import subprocess
import warnings
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.export import to_c
from fastmlp.kernels import formulas
from fastmlp.kernels.language import Formula

from exported import TASKS, fitted, one_unit, outputs, rows
from tiers import covering

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
compiled = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler: cc, gcc or clang")

WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wdouble-promotion", "-Wshadow", "-Wconversion"]
WARNINGS += ["-Wmissing-prototypes"]
HIDDEN = [name for name, row in formulas.ACTIVATIONS.items() if row.hidden]
DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}
GUIDE = Path(__file__).resolve().parents[1] / "docs" / "export.md"

PARAMETERS = [
    ("leaky_relu", {"negative_slope": 0.3}),
    ("rrelu", {"lower": 0.1, "upper": 0.7}),
    ("elu", {"alpha": 0.7}),
    ("celu", {"alpha": 2.3}),
    ("softplus", {"beta": 0.6}),
    ("hardtanh", {"min_val": -0.3, "max_val": 0.9}),
]

FORMULAS = [
    "def swish(z): return z / (1 + exp(-z))",
    "def all_functions(z): return log(1 + z * z) + tanh(z) * erf(z) - sqrt(abs(z)) + log1p(abs(z) * 1e-3)",
    "def falling(z): return expm1(-1e-3 * abs(z))",
    "def clipped(z): return maximum(minimum(z, 1.5), -0.5)",
    "def steps(z): return 1 if z < -1 else (2 if z <= 1 else (3 if z == 3 else (4 if z != 6 else 5)))",
    "def constant(z): return 0.25",
    "def itself(z): return z",
    "def infinite(z): return z if abs(z) < 1e999 else -1e999",
    "def großer_würfel(z): return -(z * z * z)",
    "def minus(z): return -0.5 - (-z - -2.0)",
]

Z = np.array([-1e30, -200, -80, -6, -3, -1, -0.3, -1e-9, 0, 1e-9, 0.9, 1, 3, 6, 30, 80, 200, 1e30])[:, None]


#: Name -> (task, activation, dtype): each pair in one of the dtypes, and with half of the tasks in each dtype.
PRODUCT = {
    f"{task} {activation} {dtype.__name__}": (task, activation, dtype)
    for i, task in enumerate(TASKS)
    for j, activation in enumerate(HIDDEN)
    for dtype in [DTYPES[(i * len(HIDDEN) + j + i) % 2]]
}


MEET = ("activation dtype", "task dtype")


def factors(name):
    """Return what meets in a case: a task, an activation and a dtype, or what else its name says."""
    return dict(zip(("task", "activation", "dtype"), PRODUCT[name], strict=True)) if name in PRODUCT else {"name": name}


def cases():
    """name -> function that makes (estimator, rows to predict)."""
    found = {}
    for name, (task, activation, dtype) in PRODUCT.items():
        found[name] = partial(_case, 2 * rows(dtype, 25, seed=2), fitted, task, dtype, activation, hidden=(4, 3))
    for dtype in DTYPES:
        kind, X = np.dtype(dtype).name, 2 * rows(dtype, 25, seed=2)
        for activation in [*HIDDEN, *PARAMETERS]:
            found[f"one unit {activation} {kind}"] = partial(_case, Z.astype(dtype), one_unit, activation, dtype)
        for source in FORMULAS:
            formula, z = fastmlp.activation(source), Z[(np.abs(Z) < 1e3).ravel()].astype(dtype)
            found[f"formula {formula.name} {kind}"] = partial(_case, z, one_unit, formula, dtype)
        for name, parameters in NETWORKS.items():
            found[f"{name} {kind}"] = partial(_case, X, fitted, dtype=dtype, **parameters)
    X = rows(np.float64)
    sparse = sp.csr_array(np.where(np.abs(X) > 1, X, 0).astype(np.float32))
    found["sparse"] = partial(_case, X, fitted, "binary", X=sparse, solver="lbfgs")
    frame = pd.DataFrame(X, columns=["age", "größe", 'a"b', "d\\", "e??/*"])
    found["names"] = partial(_case, X, fitted, "multiclass", X=frame)
    for name, labels in {"one class": [3], "extreme labels": [-(2**63), 0, 2**63 - 1]}.items():
        found[name] = partial(_case, X, _biased, X, np.array(labels)[np.arange(40) % len(labels)])
    return found


def _biased(X, y):
    """A classifier to whom the last class is likely, even where there is but one."""
    classifier = MLPClassifier((3,), max_iter=2, random_state=0).fit(X, y)
    classifier.intercepts_[-1][-1] = 0.5
    return classifier


def _case(rows_to_predict, make, /, *arguments, **parameters):
    return make(*arguments, **parameters), rows_to_predict


NETWORKS = {
    "batch_norm": {"task": "multiclass", "activation": "relu", "batch_norm": True, "max_iter": 5},
    "batch_norm after": {"task": "multiclass", "activation": "relu", "batch_norm": ["after", True], "max_iter": 5},
    "batch_norm and prelu": {"task": "multilabel", "activation": "prelu", "batch_norm": True, "max_iter": 5},
    "no hidden layer": {"task": "binary", "hidden": ()},
    "deep": {"task": "multiclass", "activation": "tanh", "hidden": (5, 2, 7, 3, 4)},
}
CASES = cases()
NUMBER = {name: f"net{i}" for i, name in enumerate(CASES)}


@cache
def case(name):
    """(estimator, rows to predict)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return CASES[name]()


def build(sources, folder, *options):
    """A shared library of these texts."""
    source, library = folder / "all.c", folder / "all.so"
    source.write_text("\n".join(sources), encoding="ascii")
    command = [COMPILER, *WARNINGS, *options, "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def library(request, tmp_path_factory):
    """The networks that the collected tests are about, compiled as one file."""
    predicting = [i for i in request.session.items if i.originalname == test_predicts_as_the_estimator.__name__]
    collected = {item.callspec.params["name"] for item in predicting if item.path == Path(__file__)}
    names = [name for name in CASES if name in collected or name in ("names", "one class")]
    sources = [to_c(case(name)[0], name=NUMBER[name]) for name in names]
    return build(sources, tmp_path_factory.mktemp("c"))


def call(library, name, method, X, out):
    """Call a function of a library on rows of X, which fills `out`."""
    function = getattr(library, f"{name}_{method}")
    function.restype = None
    X = np.ascontiguousarray(X)
    function(X.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(X)), out.ctypes.data_as(ctypes.c_void_p))
    return out


def table(library, name, n, kind=ctypes.c_char_p):
    values = list((kind * n).in_dll(library, name))
    return [value.decode() for value in values] if kind is ctypes.c_char_p else values


# --- predictions ------------------------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("name", covering(CASES, factors, MEET, gate=MEET))
def test_predicts_as_the_estimator(name, library):
    estimator, X = case(name)
    if name == "names":
        X = pd.DataFrame(X, columns=estimator.feature_names_in_)
    symbol, dtype = NUMBER[name], estimator.coefs_[0].dtype
    expected = outputs(estimator, X)
    methods = [method for method in ("predict_proba", "decision_function") if hasattr(estimator, method)]
    guarded = np.full(expected.size + 1, 7.5, dtype=dtype)  # a function that writes too far changes the last one
    got = call(library, symbol, *(methods or ["predict"]), X, guarded)
    tolerance = TOLERANCE[dtype.type]
    np.testing.assert_allclose(got[:-1].reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)
    assert got[-1] == 7.5
    if methods:
        predicted = estimator.predict(X)
        guarded = np.full(predicted.size + 1, 77, dtype=np.intc)
        got = call(library, symbol, "predict", X, guarded)
        assert got[-1] == 77
        labels = got[:-1].reshape(predicted.shape)
        if predicted.ndim == 1:
            n = max(len(estimator.classes_), 2)
            kind = ctypes.c_char_p if predicted.dtype.kind == "U" else ctypes.c_longlong
            labels = np.array(table(library, f"{symbol}_classes", n, kind))[labels]
        np.testing.assert_array_equal(labels, predicted)


@compiled
def test_feature_names(library):
    names = case("names")[0].feature_names_in_
    assert table(library, f"{NUMBER['names']}_feature_names", 5) == list(names)


@compiled
def test_no_rows_is_nothing_to_do(library):
    name = NUMBER["one class"]
    out = np.full(4, 3.0)
    assert call(library, name, "predict_proba", np.empty((0, 5)), out).tolist() == [3.0] * 4


@compiled
def test_wide_layers_up_to_the_limit(tmp_path):
    estimator = fitted("two outputs", np.float64, "tanh", hidden=(3000, 20))
    library = build([to_c(estimator, name="wide")], tmp_path, "-O2")
    X = rows(np.float64, 3)
    np.testing.assert_allclose(call(library, "wide", "predict", X, np.empty((3, 2))), estimator.predict(X), rtol=1e-10)


@compiled
@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
def test_compiles_as_cpp_too(tmp_path):
    source = tmp_path / "model.c"
    source.write_text(to_c(case("names")[0], name="model"), encoding="ascii")
    command = ["c++", "-x", "c++", "-Wall", "-Wextra", "-Werror", "-c", str(source), "-o", str(tmp_path / "model.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@compiled
def test_program_of_the_guide(tmp_path, monkeypatch):
    """The guide's C program runs with the file that the guide writes, and prints what it shows."""
    text = GUIDE.read_text(encoding="utf-8")
    (program,) = re.findall(r"^```c\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    python = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    monkeypatch.chdir(tmp_path)
    exec(python, {})  # test_docs.py runs the page in a fresh interpreter
    (tmp_path / "main.c").write_text(program, encoding="utf-8")
    command = [COMPILER, *WARNINGS, "-O3", "-o", "main", "main.c", "iris.c", "-lm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True).stdout
    assert printed == shown


# --- the text ---------------------------------------------------------------------------------------------------------


def test_sizes_and_declarations():
    text = to_c(fitted("multiclass", np.float32), name="Net_1")
    assert "#define NET_1_N_FEATURES 5\n#define NET_1_N_CLASSES 4\n" in text
    assert "extern const long long Net_1_classes[NET_1_N_CLASSES];" in text
    assert "void Net_1_predict_proba(const float *X, size_t n, float *out);" in text
    assert re.findall("#include <(.*)>", text) == ["math.h", "stddef.h"]
    assert "#define M_N_OUTPUTS 2" in to_c(fitted("two outputs"), name="m")
    assert "#define M_N_CLASSES 3" in to_c(fitted("multilabel"), name="m")


def test_head_says_what_it_is():
    head = to_c(fitted("hinge", np.float32, ["relu", fastmlp.activation("def größe(z): return z * z")]))
    head = " ".join(head.split("*/")[0].replace(" * ", " ").split())
    assert "model: a fitted MLPClassifier, exported by fastmlp" in head
    assert "5 features -> 6 relu -> 4 gr\\xf6\\xdfe -> 1 identity; 69 weights of float" in head
    assert "loss hinge, fitted with adam in 2 iterations" in head


def test_same_estimator_same_text():
    estimator = fitted("multiclass", activation="gelu")
    assert to_c(estimator) == estimator.to_c()


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_exact(dtype):
    estimator = fitted("binary", dtype)
    estimator.coefs_[0][:4, 0] = [0, -0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max]
    (body,) = re.findall(r"model_W0\[30\] = \{(.*?)\};", to_c(estimator), re.DOTALL)
    numbers = np.array([float(item.rstrip("f")) for item in body.split(",")[:-1]], dtype=dtype)
    assert numbers.tobytes() == estimator.coefs_[0].tobytes()


def test_equal_activations_are_written_once():
    text = to_c(fitted("binary", activation=["tanh", "tanh"]))
    assert text.count("tanh(z)") == 1


def test_formula_travels():
    formula = Formula.from_source("def f(z): return c * z", constants={"c": 2.5})
    assert "z * 2.5;" in to_c(one_unit(formula, np.float64)) or "2.5 * z;" in to_c(one_unit(formula, np.float64))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["my model", "int", "", "1st", "_x", "a-b", "größe", "a\n", "class", None, 3, "a;"])
def test_wrong_names_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"name must be a C identifier .*, got "):
        to_c(fitted("binary"), tmp_path / "x.c", name=name)
    assert os.listdir(tmp_path) == []


def test_layers_too_wide_for_the_stack():
    with pytest.raises(ValueError, match=r"layers of \[40000, 4, 1\] neurons need 320040 bytes on the stack"):
        to_c(fitted("binary", hidden=(40000, 4), max_iter=1))


def test_label_with_nul_is_refused():
    estimator = fitted("multiclass text")
    estimator.classes_ = np.array(["a\0b", "c", "d"], dtype=object)
    with pytest.raises(ValueError, match="NUL"):
        to_c(estimator)


def test_unfitted():
    with pytest.raises(NotFittedError):
        to_c(MLPRegressor())


@pytest.mark.parametrize("estimator", [neural_network.MLPClassifier(), None, MLPClassifier])
def test_other_estimators_are_refused(estimator):
    with pytest.raises(TypeError, match=r"estimator must be a fitted fastmlp\.MLPClassifier or MLPRegressor, got \w+"):
        to_c(estimator)


def test_file_is_the_text(tmp_path):
    path = tmp_path / "net.c"
    text = to_c(fitted("binary"), path)
    assert path.read_bytes() == text.encode("ascii")
    assert os.listdir(tmp_path) == ["net.c"]


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*missing': '.*missing.+'"):
        to_c(fitted("binary"), tmp_path / "missing" / "net.c")
    assert os.listdir(tmp_path) == []


def test_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.c"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        to_c(fitted("binary"), path)
    assert os.listdir(tmp_path) == ["net.c"]
    assert path.read_bytes() == b"old"
