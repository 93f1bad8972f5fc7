"""The memory that a fit is said to take, against the peak that is measured: NumPy reports all of its buffers."""

import tracemalloc

import numpy as np
import pytest

from fastmlp import MLPRegressor
from fastmlp.data.targets import Objective
from fastmlp.distributed import Alone
from fastmlp.engines import backends
from fastmlp.estimator import architecture

from tiers import each_value_once

pytestmark = [
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

FITS = [
    {"solver": "sgd", "momentum": 0},
    {"solver": "sgd"},
    {},
    {"solver": "amsgrad"},
    {"early_stopping": True},
    {"early_stopping": True, "batch_norm": True},
    {"hidden_layer_sizes": (300, 300, 300), "solver": "lion"},
    {"solver": "lbfgs"},
]


def rows(dtype):
    rng = np.random.RandomState(0)
    return rng.randn(24, 1500).astype(dtype), rng.randn(24)


@each_value_once
@pytest.mark.parametrize("backend", [name for name in backends.available() if name != "cuda"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("options", FITS, ids=str)
def test_the_estimate_is_near_the_peak(options, dtype, backend):
    est = MLPRegressor(**{"hidden_layer_sizes": (200,), "max_iter": 2, "random_state": 0, "backend": backend} | options)
    X, y = rows(dtype)
    MLPRegressor(**est.get_params() | {"hidden_layer_sizes": (2,) * len(est.hidden_layer_sizes)}).fit(
        X, y
    )  # loads code
    network = architecture.network_to_train(est, X, Objective("squared_error", "identity", 1), True)
    said = architecture.vectors_of_fit(est, network, backends.get(backend), est.early_stopping)
    tracemalloc.start()
    est.fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    measured = peak / (network.n_params * network.dtype.itemsize)
    assert 0.8 * measured < said < 1.3 * measured


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_halves_for_matrix_units_are_counted(precision):
    _engine = pytest.importorskip("fastmlp.kernels._engine")
    before = _engine.isa()
    _engine.use_isa("amx-emulated-always")
    try:
        options = {"hidden_layer_sizes": (300, 300, 300), "matmul_precision": precision}
        test_the_estimate_is_near_the_peak(options, np.float32, "cython")
    finally:
        _engine.use_isa(before)


def test_a_fit_that_the_machine_cannot_hold_is_refused(monkeypatch):
    """Six vectors of this network can be held: those of sgd, not those of adam."""
    X, y = rows(np.float64)
    monkeypatch.setattr("fastmlp.model.network._physical_memory", lambda: 6 * 8 * 1501 * 50)
    MLPRegressor(hidden_layer_sizes=(50,), max_iter=2, solver="sgd").fit(X, y)
    for options in ({"solver": "adam"}, {"early_stopping": True}, {"solver": "lbfgs"}):
        other = MLPRegressor(hidden_layer_sizes=(50,), max_iter=2, **options)
        with pytest.raises(MemoryError, match=r"hidden_layer_sizes=\[50\] with 1500 features"):
            other.fit(X, y)
        assert not hasattr(other, "coefs_")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "options",
    [{}, {"early_stopping": True, "train_score": True, "shuffle": 500}, {"solver": "lbfgs"}, "ranks"],
    ids=str,
)
def test_rows_on_disk_stay_there(options, order, tmp_path):
    """A memory map is neither copied nor converted: a fit and a prediction take some bytes a row besides."""
    n, n_features = 20_000, 200
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (n, n_features), order == "F")
    X[...] = np.random.default_rng(0).normal(size=(1, n_features))
    X[:, 0] = np.arange(n) % 7
    X.flush()
    X, y = np.load(tmp_path / "X.npy", mmap_mode="r"), np.arange(n) % 7.0
    together = {"communicator": Alone()} if options == "ranks" else {}
    est = MLPRegressor(hidden_layer_sizes=(4,), max_iter=2, random_state=0, **({} if options == "ranks" else options))
    tracemalloc.start()
    est.fit(X, y, **together).predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * n < X.nbytes / 5
