"""The Numba engine: what the conformance suites do not ask of it.

Numba is imported when its engine computes and not before; what is compiled is kept on disk, also where two processes
begin at once; whole fits end in the Cython engine's weights; Ctrl-C is seen within an epoch.
"""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastmlp
from fastmlp import backends
from fastmlp.backends import Data
from fastmlp.kernels import codegen, formulas
from fastmlp.network import Network

from helpers import Steps

pytestmark = pytest.mark.skipif("numba" not in backends.available(), reason=str(backends.why_not("numba")))

FIT = """
import sys, time, warnings
import numpy as np
import fastmlp
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X, y = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
start = time.perf_counter()
clf = fastmlp.MLPClassifier((7,), max_iter={epochs}, random_state=0, backend="{backend}").fit(X, y)
print(time.perf_counter() - start, repr(float(np.abs(clf.coefs_[0]).sum())), "numba" in sys.modules)
"""


def elsewhere(code, **environment):
    """What a script prints in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def fit_elsewhere(backend="numba", epochs=3, **environment):
    """(seconds, a number that tells the weights apart, whether Numba was imported) of a fit in a fresh process."""
    seconds, weights, imported = elsewhere(FIT.format(backend=backend, epochs=epochs), **environment).split()
    return float(seconds), weights, imported == "True"


# ------------------------------------------------------------------------------- imports


@pytest.mark.parametrize("backend", ["auto", "cython", "reference"])
def test_numba_is_imported_by_its_own_engine_only(backend):
    if backend != "auto" and backend not in backends.available():
        pytest.skip("not installed")
    assert not fit_elsewhere(backend)[2], "not by a small fit, whose engine auto picks, either"


def test_importtime_names_no_numba():
    code = "import fastmlp; from fastmlp import backends; backends.available()"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not names & {"numba", "llvmlite"}


# ------------------------------------------------------------------------------- the cache


SEARCH = """
import warnings
import numpy as np
from sklearn.model_selection import GridSearchCV
import fastmlp
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X, y = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
clf = fastmlp.MLPClassifier((7,), max_iter=3, random_state=0, backend="numba")
search = GridSearchCV(clf, {"alpha": [1e-4]}, cv=2, n_jobs=2, error_score="raise").fit(X, y)
print(repr(float(np.abs(search.best_estimator_.coefs_[0]).sum())))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder in which two workers of a search that began at once have put their code; what they came to."""
    place = tmp_path_factory.mktemp("cache")
    return place, elsewhere(SEARCH, FASTMLP_CACHE_DIR=str(place)).strip()


def test_workers_of_a_search_may_begin_without_code(cache):
    place, weights = cache
    np.testing.assert_allclose(float(weights), float(fit_elsewhere("reference")[1]), rtol=1e-6)
    assert list(place.rglob("*.nbc")) and not list(place.rglob("*.part"))


def stamps(place):
    return {path: path.stat().st_mtime_ns for path in place.rglob("*.nbc")}


def test_what_is_compiled_is_kept(cache, record_property):
    place, weights = cache
    files = stamps(place)
    seconds, again, _ = fit_elsewhere(FASTMLP_CACHE_DIR=str(place), epochs=3)
    assert stamps(place) == files, "compiled again"
    assert again == weights
    record_property("seconds to the third epoch, compiled before", seconds)


DESCRIBED = """
import sys
from fastmlp.environment import engines
print(engines()["numba"]["compiled"])
assert "numba" not in sys.modules
"""


def test_info_knows_what_is_compiled(cache, tmp_path):
    place, _ = cache
    assert elsewhere(DESCRIBED, FASTMLP_CACHE_DIR=str(place)).strip() == "{'float32': False, 'float64': True}"
    assert elsewhere(DESCRIBED, FASTMLP_CACHE_DIR=str(tmp_path)).strip() == "{'float32': False, 'float64': False}"


def test_processes_may_begin_at_once_where_code_is(cache):
    place, weights = cache
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(fit_elsewhere, FASTMLP_CACHE_DIR=str(place)) for _ in range(2)]
        assert {run.result()[1] for run in runs} == {weights}


UNUSABLE = """
from fastmlp.kernels import numba_cache
import warnings
with warnings.catch_warnings(record=True) as caught:
    place = numba_cache.folder()
print(place.is_dir(), place, *(w.message for w in caught))
"""


@pytest.mark.parametrize("case", ["a file", "below a file", "read only"])
def test_an_unusable_cache_folder_costs_time_only(tmp_path, case):
    """A folder of the process's own stands in, and goes with it."""
    file, code = tmp_path / "file", UNUSABLE
    file.write_text("no folder")
    if case == "read only":  # for root, too, who may write everywhere
        code = f"import tempfile\ntempfile.TemporaryFile = lambda dir: open({str(file / 'x')!r}, 'w')\n{UNUSABLE}"
    places = {"a file": file, "below a file": file / "further", "read only": tmp_path}
    is_folder, place, message = elsewhere(code, FASTMLP_CACHE_DIR=str(places[case])).split(maxsplit=2)
    assert is_folder == "True"
    assert "FASTMLP_CACHE_DIR" in message
    assert not Path(place).exists()


def test_the_generated_text_is_python_and_the_same_twice():
    head = codegen.numba_head(
        "# --- settings ---\n# --- end of settings ---\n", double=True, vector_bytes=64, tile_rows=8
    )
    text = codegen.numba_module(formulas, head)
    assert text == codegen.numba_module(formulas, head)
    compile(text, "formulas", "exec")


# ------------------------------------------------------------------------------- whole fits


@fastmlp.activation
def bent(z):
    return z + 0.1 * tanh(3 * z)  # noqa: F821  the formula language's


OPTIONS = {
    "plain": {},
    "tanh, two layers": {"activation": "tanh", "hidden_layer_sizes": (20, 11)},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "an activation per layer": {"activation": ["gelu", ("leaky_relu", {"negative_slope": 0.2})]},
    "prelu": {"activation": "prelu"},
    "users' formula": {"activation": bent},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.05},
    "adamw, clipped": {"solver": "adamw", "max_grad_norm": 0.5},
    "lion": {"solver": "lion", "learning_rate_init": 1e-3},
    "lbfgs": {"solver": "lbfgs"},
    "cosine": {"learning_rate": "cosine"},
    "elastic net": {"alpha": 0.1, "l1_ratio": 0.3},
    "dropout": {"dropout": 0.3, "input_dropout": 0.1},
    "batch_norm": {"batch_norm": True},
    "label smoothing": {"label_smoothing": 0.1},
    "hinge": {"loss": "hinge"},
    "early stopping": {"early_stopping": True},
    "everything": {
        "batch_norm": True,
        "dropout": 0.2,
        "activation": "prelu",
        "solver": "nadam",
        "label_smoothing": 0.1,
    },
}


@pytest.mark.skipif("cython" not in backends.available(), reason="needs the Cython engine")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTIONS)
def test_whole_fit_ends_in_the_same_weights(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(230, 9))
    y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int) + (X[:, 2] > 0.3)
    arguments = {"hidden_layer_sizes": (20, 11), "max_iter": 20, "batch_size": 50, "random_state": 3, **OPTIONS[name]}
    fits = [fastmlp.MLPClassifier(**arguments, backend=backend).fit(X, y) for backend in ("numba", "cython")]
    for ours, theirs in zip(*(fit.coefs_ + fit.intercepts_ for fit in fits), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fits[0].loss_, fits[1].loss_, rtol=1e-6)
    np.testing.assert_array_equal(fits[0].predict(X), fits[1].predict(X))


# ------------------------------------------------------------------------------- the calls


def big_epoch(interrupt_after=None):
    """(steps done, parameters before and after) of an epoch of some seconds."""
    engine = backends.get("numba")
    rng = np.random.default_rng(0)
    network = Network((256, 512, 512, 3), ("tanh", "tanh"), "log_loss", np.dtype("f4"))
    params = network.initial_params(np.random.RandomState(0), 6.0)
    before = params.copy()
    data = Data(rng.normal(size=(500, 256)).astype("f4"), rng.integers(0, 3, 500))
    workspace, optimizer = engine.workspace(network, 100), Steps("sgd", [])
    engine.train_epoch(workspace, params.copy(), data, np.arange(100), 100, 0.0, Steps("sgd", []))  # compiled
    order = np.resize(np.arange(500), 400_000)
    if interrupt_after is not None:
        import _thread

        threading.Timer(interrupt_after, _thread.interrupt_main).start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        engine.train_epoch(workspace, params, data, order, 100, 0.0, optimizer)
    return optimizer.t, before, params, time.perf_counter() - start


def test_interrupt_is_seen_within_an_epoch_and_keeps_what_was_done():
    steps, before, after, seconds = big_epoch(interrupt_after=0.5)
    assert 0 < steps < 4000
    assert np.isfinite(after).all()
    assert (before != after).any()
    assert seconds < 10


def test_a_workspace_serves_one_caller_at_a_time():
    engine = backends.get("numba")
    network = Network((4, 3), (), "log_loss", np.dtype("f8"))
    workspace = engine.workspace(network, 5)
    workspace.lock.acquire()
    with pytest.raises(RuntimeError, match="another caller"):
        engine.predict(workspace, np.zeros(network.n_params), np.zeros((5, 4)), np.zeros((5, 3)))


def test_one_workspace_trains_by_one_rule_after_another():
    engine, rng = backends.get("numba"), np.random.default_rng(0)
    network = Network((4, 5, 3), ("tanh",), "log_loss", np.dtype("f8"))
    data, shared = Data(rng.normal(size=(20, 4)), rng.integers(0, 3, 20)), engine.workspace(network, 8)
    for rule in ("adam", "sgd", "amsgrad", "adam", "momentum"):
        results = []
        for workspace in (shared, engine.workspace(network, 8)):
            params = network.initial_params(np.random.RandomState(0), 6.0)
            states = [np.zeros_like(params) for _ in formulas.OPTIMIZERS[rule].states]
            engine.train_epoch(workspace, params, data, np.arange(20), 8, 0.1, Steps(rule, states))
            results.append(params)
        np.testing.assert_array_equal(*results)
