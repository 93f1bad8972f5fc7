"""Arrays that lie on a GPU as input of the estimators: read in place, answered in kind where asked.

Most of it needs a device, or Numba's simulator (NUMBA_ENABLE_CUDASIM=1), in which an array "on the device" is a wrapped
NumPy array.  PyTorch and CuPy are played by a library of two functions; where a GPU is, they play themselves.
"""

import subprocess
import sys
import types
from contextlib import nullcontext

import numpy as np
import pytest
import sklearn
from sklearn.exceptions import NotFittedError

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.data import device_arrays
from fastmlp.engines import backends
from fastmlp.kernels.numba_cuda import driver, memory, prediction, settings

from helpers import steady_simulator
from tiers import label

USABLE = "cuda" in backends.available()
SIMULATED = USABLE and driver.simulated()
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
on_device = pytest.mark.skipif(not USABLE, reason=f"no CUDA device: {backends.why_not('cuda')}")
in_simulator = pytest.mark.skipif(not SIMULATED, reason="of Numba's simulator, which has no library beside it")
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
SMALL = {"hidden_layer_sizes": (4,), "max_iter": 2, "batch_size": 8, "random_state": 3}


@pytest.fixture
def cuda():
    """Numba's module."""
    if not USABLE:
        pytest.skip(backends.why_not("cuda"))
    with steady_simulator() if SIMULATED else nullcontext():
        yield driver.api()


@fastmlp.activation
def reciprocal(z):
    return 1 / z


def no_weights(rng, *shape):
    return np.zeros(shape)


def rows(n=20, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(n, 3)).astype(dtype)


def classes(X, n_classes=2):
    return np.digitize(X[:, 0] + X[:, 1], np.linspace(-0.5, 0.5, n_classes + 1)[1:-1])


def looks_at_rows(model, X, y):
    """A scorer of the user's."""
    hits = model.predict(X[::-1]) == y[::-1]
    return float((model.predict_proba(X)[:, 0] * np.asarray(X)[:, 0]).sum() + hits.mean())


def assert_same_fit(ours, theirs):
    for a, b in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours.loss_ == theirs.loss_


# ------------------------------------------------------------------------------- without a device


class OnGpu:
    """What has the interface and nothing else."""

    shape = (2, 3)

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": "<f4", "data": (0, False), "version": 3}


class OnlyDlpack:
    def __init__(self, kind=2):
        self.kind = kind

    def __dlpack_device__(self):
        return self.kind, 0


class Refuses:
    """As a tensor on the host does."""

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("not on a GPU")

    def __dlpack_device__(self):
        raise BufferError("nor anywhere else")


def test_what_is_on_a_gpu():
    for array in (OnGpu(), OnlyDlpack(2), OnlyDlpack(13)):
        assert device_arrays.is_device_array(array)
    for array in (np.zeros(2), [[1.0]], None, "text", OnlyDlpack(1), OnlyDlpack(3), Refuses()):
        assert not device_arrays.is_device_array(array)


@pytest.mark.nightly  # a process; that of test_installations.py looks for Numba, too
def test_looking_for_such_arrays_imports_no_numba():
    code = "import sys; from fastmlp.data import device_arrays as d; d.is_device_array(1)"
    code += "; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("array", [OnGpu(), OnlyDlpack()], ids=["interface", "dlpack"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_other_engines_name_the_one_that_can(array, backend):
    X = rows()
    y = classes(X)
    model = MLPClassifier(**SMALL, backend=backend)
    message = f"X is on a GPU, which only backend='cuda' can read, got backend='{backend}'"
    with pytest.raises(TypeError, match=message):
        model.fit(array, y)
    with pytest.raises(TypeError, match=message):
        model.partial_fit(array, y, classes=[0, 1])
    with pytest.raises(TypeError, match="y is on a GPU"):
        model.fit(X, array)
    with pytest.raises(TypeError, match="y is on a GPU"):
        MLPClassifier(**SMALL, backend=backend).partial_fit(X, array, classes=[0, 1])
    with pytest.raises(TypeError, match="sample_weight is on a GPU"):
        model.fit(X, y, sample_weight=array)
    with pytest.raises(TypeError, match=f"validation data: {message}"):
        model.fit(X, y, X_val=array, y_val=y)
    model.fit(X, y)
    for call in (model.predict, model.predict_proba, model.predict_log_proba):
        with pytest.raises(TypeError, match=message):
            call(array)


def test_an_estimator_that_is_not_fitted():
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(OnGpu())


def test_dlpack_alone_leads_to_a_library_that_has_the_interface(monkeypatch):
    for name in device_arrays.INTERPRETERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(TypeError, match=r"OnlyDlpack has no __cuda_array_interface__.*torch.from_dlpack"):
        device_arrays.view(OnlyDlpack())

    def refuse(array):
        raise BufferError("it requires a gradient")

    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(__name__="cupy", from_dlpack=refuse))
    with pytest.raises(TypeError, match=r"cupy\.from_dlpack: it requires a gradient"):
        device_arrays.view(OnlyDlpack())
    interface = {"data": (0, False), "stream": None}
    marked = types.SimpleNamespace(__cuda_array_interface__=interface)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__name__="torch", from_dlpack=lambda array: marked))
    made = types.SimpleNamespace(as_cuda_array=lambda array: ("view", array))
    monkeypatch.setattr(driver, "api", lambda: made)
    monkeypatch.setattr(driver, "current_device", lambda: 0)
    assert device_arrays.view(OnlyDlpack()) == ("view", marked)


# ------------------------------------------------------------------------------- fits


@pytest.fixture
def uploads(cuda, monkeypatch):
    """What is uploaded as rows of a fit, and where rows on the device are read."""
    seen = types.SimpleNamespace(vectors=[], samples=[])
    vector, upload = memory.vector, memory.upload_samples
    monkeypatch.setattr(memory, "vector", lambda array, *args: seen.vectors.append(array) or vector(array, *args))

    def samples(X, dtype):
        seen.samples.append((X, upload(X, dtype)))
        return seen.samples[-1][1]

    monkeypatch.setattr(memory, "upload_samples", samples)
    monkeypatch.setattr(prediction, "upload_samples", samples)
    monkeypatch.setattr(prediction.Blocks, "_upload", lambda *args: pytest.fail("rows are copied from the host"))
    return seen


def address(array):
    if SIMULATED:
        return array._ary.__array_interface__["data"][0]
    return array.__cuda_array_interface__["data"][0]


def assert_nothing_copied(uploads, *arrays):
    assert uploads.samples
    for X, samples in uploads.samples:
        assert any(X is array for array in arrays)
        assert address(samples.X) == address(X)
    assert not any(vector.size >= X.shape[0] * X.shape[1] for vector in uploads.vectors for X, _ in uploads.samples)


@on_device
@by_dtype
def test_fit_reads_rows_where_they_lie(cuda, uploads, dtype):
    X = rows(dtype=dtype)
    y = classes(X, 3)
    there = cuda.to_device(X)
    ours = MLPClassifier(**SMALL, backend="cuda").fit(there, y)
    probabilities, labels = ours.predict_proba(there), ours.predict(there)
    assert_nothing_copied(uploads, there)
    assert ours.n_features_in_ == 3
    assert type(probabilities) is type(labels) is np.ndarray
    assert probabilities.dtype == dtype


@on_device
@by_dtype
def test_fit_gives_the_same_bits(cuda, dtype):
    X = rows(dtype=dtype)
    y, weight = classes(X, 3), np.linspace(0.1, 1, len(X))
    there = cuda.to_device(X)
    theirs = MLPClassifier(**SMALL, backend="cuda").fit(X, y, weight)
    ours = MLPClassifier(**SMALL, backend="cuda").fit(there, cuda.to_device(y), cuda.to_device(weight))
    assert_same_fit(ours, theirs)
    np.testing.assert_array_equal(ours.predict_proba(there), theirs.predict_proba(X))
    np.testing.assert_array_equal(ours.predict(there), theirs.predict(X))
    assert ours.score(there, y) == theirs.score(X, y)


@on_device
def test_partial_fit(cuda):
    X = rows()
    y = classes(X)
    fits = []
    for given, targets in ((X, y), (cuda.to_device(X), cuda.to_device(y))):
        model = MLPClassifier(**SMALL, backend="cuda").partial_fit(given, targets, classes=[0, 1])
        fits.append(model.partial_fit(given, targets))
    assert_same_fit(*fits)


@on_device
def test_regressor(cuda):
    X = rows()
    y = X @ np.ones((3, 2), np.float32)
    for targets in (y, y[:, 0]):
        fits = [MLPRegressor(**SMALL, backend="cuda").fit(given, targets) for given in (X, cuda.to_device(X))]
        assert_same_fit(*fits)
        np.testing.assert_array_equal(fits[1].predict(cuda.to_device(X)), fits[0].predict(X))


@on_device
@pytest.mark.parametrize("monitor", ["score", "loss", "f1_macro", looks_at_rows], ids=label)
def test_early_stopping(cuda, monitor, monkeypatch):
    monkeypatch.setattr(device_arrays, "DOWNLOAD_ROWS", 7)
    X = rows(24)
    y = classes(X, 3)
    options = {**SMALL, "early_stopping": True, "monitor": monitor, "backend": "cuda"}
    fits = [MLPClassifier(**options).fit(given, y) for given in (X, cuda.to_device(X))]
    assert_same_fit(*fits)
    assert fits[0].history_["validation_loss"] == fits[1].history_["validation_loss"]
    assert fits[0].validation_scores_ == fits[1].validation_scores_


@on_device
@pytest.mark.parametrize("monitor", ["loss", "accuracy", looks_at_rows], ids=label)
def test_validation_rows(cuda, monitor):
    X = rows(24)
    y, X_val = classes(X), X[:7].copy()
    to = cuda.to_device
    options = {**SMALL, "early_stopping": True, "monitor": monitor, "backend": "cuda"}
    theirs = MLPClassifier(**options).fit(X, y, X_val=X_val, y_val=y[:7])
    for given, val in ((to(X), to(X_val)), (X, to(X_val)), (to(X), X_val)):
        ours = MLPClassifier(**options).fit(given, y, X_val=val, y_val=to(y[:7]), sample_weight_val=None)
        assert_same_fit(ours, theirs)
        assert ours.history_["validation_loss"] == theirs.history_["validation_loss"]


@on_device
def test_lbfgs(cuda):
    X = rows(dtype=np.float64)
    y = classes(X)
    fits = [MLPClassifier(**SMALL, solver="lbfgs", backend="cuda").fit(given, y) for given in (X, cuda.to_device(X))]
    assert_same_fit(*fits)
    with pytest.raises(ValueError, match=r"X is on a GPU in float32, and solver='lbfgs' works in float64: convert it"):
        MLPClassifier(**SMALL, solver="lbfgs", backend="cuda").fit(cuda.to_device(X.astype(np.float32)), y)


@on_device
def test_a_formula_that_fails_is_found(cuda):
    X = np.zeros((20, 3), np.float32)
    options = {**SMALL, "activation": reciprocal, "init": no_weights, "backend": "cuda"}
    for solver in ("adam", "lbfgs"):
        dtype = np.float64 if solver == "lbfgs" else np.float32
        with pytest.raises(ValueError, match="'reciprocal' of hidden layer 1 gave values that are not finite"):
            MLPClassifier(**options, solver=solver).fit(cuda.to_device(X.astype(dtype)), np.arange(20) % 2)


# ------------------------------------------------------------------------------- what is refused


def refused(cuda):
    """(X, message)"""
    X, to = rows(), cuda.to_device
    yield to(X[:, 0].copy()), "Expected 2D array, got 1D array instead"
    yield to(X.astype(np.int32)), "must be float32 or float64, got int32"
    yield to(np.asfortranarray(X)), "must be C-contiguous"
    yield to(X)[::2], "must be C-contiguous"
    yield to(X)[:0], "Found array with 0 sample"
    for bad in (np.nan, np.inf, -np.inf):
        broken = X.copy()
        broken[13, 2] = bad
        yield to(broken), "Input X contains NaN, infinity or a value too large for dtype"


@on_device
def test_what_is_refused(cuda):
    X = rows()
    y = classes(X)
    model = MLPClassifier(**SMALL, backend="cuda").fit(X, y)
    for array, message in refused(cuda):
        with pytest.raises(ValueError, match=message):
            MLPClassifier(**SMALL, backend="cuda").fit(array, y)
        with pytest.raises(ValueError, match=message):
            model.predict(array)


@on_device
def test_rows_that_do_not_fit_the_estimator(cuda):
    X = rows()
    y, to = classes(X), cuda.to_device
    model = MLPClassifier(**SMALL, backend="cuda").fit(X, y)
    with pytest.raises(ValueError, match="X has 2 features, but MLPClassifier is expecting 3 features as input"):
        model.predict(to(X[:, :2].copy()))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(to(X), y[1:])
    with pytest.raises(ValueError, match=r"sample_weight\.shape"):
        model.fit(to(X), y, np.ones(3))
    with pytest.raises(ValueError, match="in float64, and the weights are float32: convert it there"):
        model.partial_fit(to(X.astype(np.float64)), y)
    with pytest.raises(ValueError, match="validation data: X is on a GPU in float64, and the weights are float32"):
        model.fit(X, y, X_val=to(X.astype(np.float64)), y_val=y)


@on_device
def test_predictions_in_another_precision(cuda):
    """As for arrays on the host float64 rows are predicted in float64; float32 rows would have to be copied."""
    X = rows()
    y, double = classes(X), X.astype(np.float64)
    model = MLPClassifier(**SMALL, backend="cuda").fit(X, y)
    found = model.predict_proba(cuda.to_device(double))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, model.predict_proba(double))
    model = MLPClassifier(**SMALL, backend="cuda").fit(double, y)
    with pytest.raises(ValueError, match="X is on a GPU in float32, and the weights are float64"):
        model.predict(cuda.to_device(X))


# ------------------------------------------------------------------------------- the engine


@on_device
def test_predict_in_blocks_with_rows_and_out_on_the_device(cuda, monkeypatch):
    engine = backends.get("cuda")
    monkeypatch.setattr(settings, "PREDICT_ROWS", 3)
    X = rows(11)
    model = MLPClassifier(**SMALL, backend="cuda").fit(X, classes(X, 3))
    network, params = model._fitted_network(), model.coefs_[0].base
    workspace, chosen = engine.workspace(network, 11), np.array([10, 0, 0, 3, 7, 9, 1])
    expected = model.predict_proba(X)
    for places in (None, chosen):
        out = cuda.to_device(np.zeros((11 if places is None else len(chosen), 3), np.float32))
        assert engine.predict(workspace, params, cuda.to_device(X), out, places)
        np.testing.assert_array_equal(out.copy_to_host(), expected if places is None else expected[chosen])


@on_device
@by_dtype
def test_all_finite(cuda, dtype):
    engine = backends.get("cuda")
    for place in (None, (0, 0), (69, 6)):
        X = np.ones((70, 7), dtype)
        if place:
            X[place] = np.nan
        assert engine.all_finite(cuda.to_device(X)) == (place is None)
    largest = np.full((2, 2), np.finfo(dtype).max)
    assert engine.all_finite(cuda.to_device(largest))


# ------------------------------------------------------------------------------- answers in kind


class Tensor:
    """An array of a library with an array API namespace and the interface of arrays on a GPU."""

    device = "gpu:0"

    def __init__(self, memory):
        self.memory = memory
        self.shape, self.dtype = memory.shape, memory.dtype

    @property
    def __cuda_array_interface__(self):
        interface = self.memory.__array_interface__
        return {name: interface[name] for name in ("shape", "strides", "typestr", "data")} | {"version": 3}

    def __array_namespace__(self, api_version=None):
        return library

    def __rsub__(self, number):
        return Tensor(number - self.memory)

    def ravel(self):
        return Tensor(self.memory.reshape(-1))


def empty(shape, *, dtype, device):
    assert device == Tensor.device
    tensor = Tensor(np.full(shape, np.nan, dtype))
    library.made.append(tensor)
    return tensor


def asarray(array, *, device):
    assert device == Tensor.device
    return Tensor(np.array(array))


library = types.ModuleType("library")
library.empty, library.asarray, library.made = empty, asarray, []
library.concat = lambda tensors, axis: Tensor(np.concatenate([tensor.memory for tensor in tensors], axis))
library.log = lambda tensor: Tensor(np.log(tensor.memory))


@pytest.fixture
def tensors(cuda, monkeypatch):
    """The library, which Numba can read; in the simulator it reads nothing but its own arrays."""
    fake = type(cuda.to_device(np.zeros(1)))
    monkeypatch.setattr(cuda, "as_cuda_array", lambda tensor: fake(tensor.memory), raising=False)
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    library.made.clear()
    return library


def dispatching():
    try:
        return sklearn.config_context(array_api_dispatch=True)
    except ImportError as error:  # scikit-learn < 1.8 without array-api-compat
        pytest.skip(str(error))


@in_simulator
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_in_kind(tensors, n_classes):
    X = rows()
    y = classes(X, n_classes)
    model = MLPClassifier(**SMALL, backend="cuda").fit(X, y)
    expected = model.predict_proba(X), model.predict_log_proba(X), model.predict(X)
    assert type(model.predict_proba(Tensor(X))) is np.ndarray
    with dispatching():
        found = model.predict_proba(Tensor(X)), model.predict_log_proba(Tensor(X))
        labels = model.predict(Tensor(X))
        np.testing.assert_array_equal(model.predict_proba(X), expected[0])
    for ours, theirs in zip(found, expected, strict=False):
        assert type(ours) is Tensor
        np.testing.assert_array_equal(ours.memory, theirs)
    assert type(labels) is np.ndarray
    np.testing.assert_array_equal(labels, expected[2])
    if n_classes == 3:
        assert found[0] is library.made[0]  # the engine wrote to it


@in_simulator
def test_values_in_kind(tensors):
    X = rows()
    for y in (X[:, 0], X[:, :2]):
        model = MLPRegressor(**SMALL, backend="cuda").fit(Tensor(X), y)
        expected = model.predict(X)
        with dispatching():
            found = model.predict(Tensor(X))
        assert type(found) is Tensor
        np.testing.assert_array_equal(found.memory, expected)


@in_simulator
@pytest.mark.parametrize("n_classes", [2, 3])
def test_decision_values_in_kind(tensors, n_classes):
    X = rows()
    model = MLPClassifier(**SMALL, loss="hinge", backend="cuda").fit(Tensor(X), classes(X, n_classes))
    expected = model.decision_function(X)
    with dispatching():
        found = model.decision_function(Tensor(X))
    np.testing.assert_array_equal(found.memory, expected)


@in_simulator
def test_fits_where_answers_are_in_kind(tensors):
    X = rows(24)
    y = classes(X)
    options = {**SMALL, "early_stopping": True, "monitor": "roc_auc", "backend": "cuda"}
    theirs = MLPClassifier(**options).fit(X, y)
    with dispatching():
        ours = MLPClassifier(**options).fit(Tensor(X), y)
    assert_same_fit(ours, theirs)


@in_simulator
def test_arrays_that_cannot_be_written_to(tensors, monkeypatch):
    monkeypatch.setattr(device_arrays, "IMMUTABLE", ("library",))
    X = rows()
    model = MLPClassifier(**SMALL, backend="cuda").fit(X, classes(X, 3))
    with dispatching():
        found = model.predict_proba(Tensor(X))
    assert not library.made
    np.testing.assert_array_equal(found.memory, model.predict_proba(X))


@in_simulator
def test_a_library_without_a_namespace(tensors):
    X = rows()
    model = MLPClassifier(**SMALL, backend="cuda").fit(X, classes(X))
    there = driver.api().to_device(X)
    with dispatching():
        with pytest.raises(TypeError, match="has no array API namespace"):
            model.predict_proba(there)
        np.testing.assert_array_equal(model.predict(there), model.predict(X))


# ------------------------------------------------------------------------------- the libraries themselves


@pytest.mark.parametrize("name", ["torch", "cupy"])
def test_libraries(name, monkeypatch):
    if not USABLE or driver.simulated():
        pytest.skip("no CUDA device")
    module = pytest.importorskip(name)
    if name == "torch" and not module.cuda.is_available():
        pytest.skip("PyTorch without CUDA")
    to = module.asarray if name == "cupy" else lambda array: module.asarray(array, device="cuda")
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    X = rows()
    y = classes(X)
    theirs = MLPClassifier(**SMALL, backend="cuda").fit(X, y)
    ours = MLPClassifier(**SMALL, backend="cuda").fit(to(X), to(y))
    assert_same_fit(ours, theirs)
    expected = theirs.predict_proba(X)
    np.testing.assert_array_equal(ours.predict_proba(to(X)), expected)
    with dispatching():
        found = ours.predict_proba(to(X))
    assert type(found) is type(to(X))
    np.testing.assert_array_equal(found.get() if name == "cupy" else found.cpu().numpy(), expected)
