"""The Numba engine: what the conformance suites do not ask of it.

Numba is imported when its engine computes and not before; what is compiled is kept on disk, also where two processes
begin at once; whole fits end in the Cython engine's weights; Ctrl-C is seen within an epoch; threads change no bit.
"""

import gc
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import scipy.sparse

import fastmlp
from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.kernels import code_folder, codegen, formulas, threads
from fastmlp.model.network import Network

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


@pytest.mark.nightly  # three processes; test_installations.py looks for Numba in the one that it needs anyway
@pytest.mark.parametrize("backend", ["auto", "cython", "reference"])
def test_numba_is_imported_by_its_own_engine_only(backend):
    if backend != "auto" and backend not in backends.available():
        pytest.skip("not installed")
    assert not fit_elsewhere(backend)[2], "not by a small fit, whose engine auto picks, either"


@pytest.mark.exhaustive  # as above
def test_importtime_names_no_numba():
    code = "import fastmlp; from fastmlp.engines import backends; backends.available()"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not names & {"numba", "llvmlite"}


# ------------------------------------------------------------------------------- the cache

processes = pytest.mark.exhaustive  # of a second and more


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


@pytest.mark.nightly  # two processes compile for half a minute each
def test_workers_of_a_search_may_begin_without_code(tmp_path):
    weights = elsewhere(SEARCH, FASTMLP_CACHE_DIR=str(tmp_path))
    np.testing.assert_allclose(float(weights), float(fit_elsewhere("reference")[1]), rtol=1e-6)
    assert list(tmp_path.rglob("*.nbc")) and not list(tmp_path.rglob("*.part"))


SMALL_MODULE = """
import sys
from pathlib import Path
from fastmlp.kernels import code_folder
text = "from numba import njit\\n\\n@njit(cache=True)\\ndef double(x):\\n    return 2 * x\\n"
import numba
print("ready", flush=True)
sys.stdin.readline()
print(code_folder.load(Path(sys.argv[1]), "small", lambda: text).double(21))
"""


@processes
def test_processes_may_make_the_same_module_at_once(tmp_path):
    both = [
        subprocess.Popen([sys.executable, "-c", SMALL_MODULE, str(tmp_path)], stdin=PIPE, stdout=PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in both] == ["42\n"] * 2
    names = sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file())
    assert names == [".nbc", ".nbi", ".py"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder with the code of a fit in float64, copied from that of this machine; what such a fit comes to."""
    weights = fit_elsewhere()[1]
    place = tmp_path_factory.mktemp("cache") / "copy"
    from fastmlp.kernels.numba_cpu import cache as cache_of_code  # only where Numba compiles

    name = cache_of_code.folder().name
    shutil.copytree(
        code_folder.user_folder() / name, place / name, ignore=shutil.ignore_patterns("*float32*", "*.part")
    )
    return place, weights


def stamps(place):
    return {path: path.stat().st_mtime_ns for path in place.rglob("*.nbc")}


@processes
def test_what_is_compiled_is_kept(cache, record_property):
    place, weights = cache
    files = stamps(place)
    seconds, again, _ = fit_elsewhere(FASTMLP_CACHE_DIR=str(place), epochs=3)
    assert stamps(place) == files, "compiled again"
    assert again == weights
    record_property("seconds to the third epoch, compiled before", seconds)


DESCRIBED = """
import sys
from fastmlp.engines.environment import engines
print(engines()["numba"]["compiled"])
assert "numba" not in sys.modules
"""


@processes
def test_info_knows_what_is_compiled(cache, tmp_path):
    place, _ = cache
    assert elsewhere(DESCRIBED, FASTMLP_CACHE_DIR=str(place)).strip() == "{'float32': False, 'float64': True}"
    assert elsewhere(DESCRIBED, FASTMLP_CACHE_DIR=str(tmp_path)).strip() == "{'float32': False, 'float64': False}"


@processes
def test_processes_may_begin_at_once_where_code_is(cache):
    place, weights = cache
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(fit_elsewhere, FASTMLP_CACHE_DIR=str(place)) for _ in range(2)]
        assert {run.result()[1] for run in runs} == {weights}


UNUSABLE = """
from fastmlp.kernels.numba_cpu import cache
import warnings
with warnings.catch_warnings(record=True) as caught:
    place = cache.folder()
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


SMOOTHED = ("log_loss", {"label_smoothing": 0.1})
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
    "label smoothing": {"loss": SMOOTHED},
    "hinge": {"loss": "hinge"},
    "early stopping": {"early_stopping": True},
    "everything": {
        "batch_norm": True,
        "dropout": 0.2,
        "activation": "prelu",
        "solver": "nadam",
        "loss": SMOOTHED,
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


def big_epoch(interrupt_after=None, n_jobs=None):
    """(steps done, parameters before and after) of an epoch of some seconds."""
    engine = backends.get("numba")
    rng = np.random.default_rng(0)
    network = Network((256, 512, 512, 3), ("tanh", "tanh"), "log_loss", np.dtype("f4"))
    params = network.initial_params(np.random.RandomState(0), 6.0)
    before = params.copy()
    data = Data(rng.normal(size=(500, 256)).astype("f4"), rng.integers(0, 3, 500))
    workspace, optimizer = engine.workspace(network, 100, n_jobs), Steps("sgd", [])
    engine.train_epoch(workspace, params.copy(), data, np.arange(100), 100, 0.0, Steps("sgd", []))  # compiled
    order = np.resize(np.arange(500), 400_000)
    if interrupt_after is not None:
        import _thread

        threading.Timer(interrupt_after, _thread.interrupt_main).start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        engine.train_epoch(workspace, params, data, order, 100, 0.0, optimizer)
    return optimizer.t, before, params, time.perf_counter() - start


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_interrupt_is_seen_within_an_epoch_and_keeps_what_was_done(n_jobs):
    steps, before, after, seconds = big_epoch(interrupt_after=0.2, n_jobs=n_jobs)
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


# ------------------------------------------------------------------------------- threads

RNG = np.random.default_rng(0)
X = RNG.normal(size=(700, 33))
CLASSES = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int) + (X[:, 2] > 0.3)
VALUES = np.stack([X[:, 0] * X[:, 1], X[:, 2], abs(X[:, 3])], axis=1)
SPARSE = scipy.sparse.csr_array(np.where(RNG.uniform(size=X.shape) < 0.2, X, 0))
WEIGHT = RNG.uniform(0.1, 2, 700)
Classifier, Regressor = fastmlp.MLPClassifier, fastmlp.MLPRegressor
TOGETHER = {
    "adam": (Classifier((40, 17)), X, CLASSES, None),
    "weighted": (Classifier((40,), activation="tanh", solver="sgd", alpha=0.1, l1_ratio=0.5), X, CLASSES, WEIGHT),
    "no hidden layer": (Classifier(()), X, CLASSES, None),
    "sparse": (Classifier((20, 20), activation="logistic", input_dropout=0.1), SPARSE, CLASSES, None),
    "chunks of a full batch": (Regressor(hidden_layer_sizes=(30,), batch_size=700), X, VALUES, WEIGHT),
    "single rows": (Classifier((5,), batch_size=1), X[:50], CLASSES[:50], None),
    "lbfgs": (Regressor(hidden_layer_sizes=(30,), solver="lbfgs"), X, VALUES, None),
    "clipped": (Classifier((40, 17), solver="adamw", max_grad_norm=0.1), X, CLASSES, None),
    "everything": (
        Classifier((30, 41), batch_norm=True, dropout=0.2, activation="prelu", loss=SMOOTHED, max_grad_norm=0.5),
        X, CLASSES, WEIGHT,
    ),
    "beyond the caches": (Classifier((600, 500)), X[:250], CLASSES[:250], None),
}  # fmt: skip


def fitted(case, dtype, n_jobs):
    model, rows, y, weight = TOGETHER[case]
    model = type(model)(**{**model.get_params(deep=False), "max_iter": 4, "random_state": 0, "n_jobs": n_jobs})
    return model.set_params(backend="numba").fit(rows.astype(dtype), y, weight)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", TOGETHER)
def test_same_bits_for_every_n_jobs(case, dtype):
    one = fitted(case, dtype, 1)
    rows = TOGETHER[case][1].astype(dtype)
    for n_jobs in (2, 3, 4):
        many = fitted(case, dtype, n_jobs)
        for expected, got in zip((*one.coefs_, *one.intercepts_), (*many.coefs_, *many.intercepts_), strict=True):
            np.testing.assert_array_equal(got, expected)
        assert getattr(many, "loss_curve_", None) == getattr(one, "loss_curve_", None)
        assert many.loss_ == one.loss_
        np.testing.assert_array_equal(many.predict(rows), one.predict(rows))


def plain_network(*widths):
    return Network(widths, ("relu",) * (len(widths) - 2), "log_loss", np.dtype("f4"))


def test_how_many_threads(monkeypatch):
    engine = backends.get("numba")
    assert engine.workspace(plain_network(4, 16, 3), 32, 2).n_threads == 2
    assert engine.workspace(plain_network(4, 16, 3), 4, 4).n_threads == 1, "one register tile of rows"
    monkeypatch.setattr(threads, "allowed", lambda n_jobs: 3)
    assert engine.workspace(plain_network(4, 16, 3), 32).n_threads == 1, "too little work"
    assert engine.workspace(plain_network(784, 512, 10), 128).n_threads == 3


SHARED = [{}, {"batch_norm": True}, {"batch_norm": ["after", False, True]}, {"activations": ("prelu", "relu", "prelu")}]


@pytest.mark.parametrize("options", SHARED, ids=str)
@pytest.mark.parametrize("n_jobs", [2, 3, 4, 7])
def test_shares_hold_each_parameter_once(options, n_jobs):
    widths = (9, 70, 3, 21, 5)
    network = Network(widths, **{"activations": ("relu",) * 3, "loss": "log_loss", "dtype": np.dtype("f8"), **options})
    workspace = backends.get("numba").workspace(network, 100, n_jobs)
    c, net = workspace.code.names, workspace.net
    taken = np.zeros(net[c["N_TRAINED"]], int)
    shares = workspace._shares(workspace.n_threads)
    for share in shares:
        for begin, end in np.reshape(share[: c["LAYER_SHARES"]], (-1, 2)):
            taken[begin:end] += 1
    assert (taken == 1).all()
    for k, width in enumerate(widths[:-1]):
        rows = np.zeros(width, int)
        for share in shares:
            begin, end, _ = share[c["LAYER_SHARES"] + 3 * k :][:3]
            rows[begin:end] += 1
        assert (rows == 1).all()
        assert sum(share[c["LAYER_SHARES"] + 3 * k + 2] for share in shares) == 1


def epoch_of(n_jobs, weight=None, order=None):
    """(a call of one epoch, its workspace, its parameters)."""
    engine, network = backends.get("numba"), plain_network(20, 40, 3)
    params = network.initial_params(np.random.RandomState(0), 6.0)
    data = Data(X[:, :20].astype("f4"), CLASSES, weight)
    order = np.arange(700) if order is None else order
    workspace = engine.workspace(network, 100, n_jobs)
    return (
        lambda: engine.train_epoch(workspace, params, data, order, 100, 0.1, Steps("sgd", [])),
        workspace,
        params,
    )


def helpers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastmlp-")]


def test_helpers_go_with_their_workspace():
    gc.collect()
    before = {*helpers()}
    run, workspace, _ = epoch_of(3)
    run()
    run()
    team = {*helpers()} - before
    assert len(team) == 2
    del run, workspace
    gc.collect()
    for thread in team:
        thread.join(10)
        assert not thread.is_alive()


def test_errors_are_seen_by_all_members():
    expected, _, before = epoch_of(1, np.repeat([1.0, 0.0], 350).astype("f4"))
    run, _, params = epoch_of(3, np.repeat([1.0, 0.0], 350).astype("f4"))
    for _ in range(2):
        for call in (expected, run):
            with pytest.raises(ZeroDivisionError):
                call()
    np.testing.assert_array_equal(params, before)
    order = np.arange(700)
    run, _, params = epoch_of(3, order=order)
    run()
    order[300] = 700
    before = params.copy()
    with pytest.raises(ValueError, match="order"):
        run()
    np.testing.assert_array_equal(params, before)
    order[300] = 0
    run()
    assert (params != before).any()


@pytest.mark.parametrize("when", ["before anybody", "before a helper", "before the caller", "after all", "a helper's"])
def test_who_does_not_come_is_not_waited_for(when):
    """Ctrl-C may come between any two of Python's instructions; helpers may run out of memory."""
    expected, _, before = epoch_of(1)
    run, workspace, params = epoch_of(3)
    for call in (expected, run, expected, run):
        call()
    np.testing.assert_array_equal(params, before)
    team, train = workspace.team, workspace.code.network.train

    class Interrupted:
        signatures = True

        def __call__(self, net, layers, call, cells, member, *numbers):
            if when == "a helper's" and member == 1:
                raise MemoryError
            if when == "before the caller" and cells and member == 0:
                raise KeyboardInterrupt
            total = train(net, layers, call, cells, member, *numbers)
            if when == "after all" and cells and member == 0:
                raise KeyboardInterrupt
            return total

    class Full:
        def put(self, job):
            if job is not None:
                raise KeyboardInterrupt
            real.put(job)

    place = {"before anybody": 0, "before a helper": 1}.get(when)
    if place is not None:
        real, team.jobs[place] = team.jobs[place], Full()
    tables, numbers = workspace.epoch.tables, (0.1, 0.0, 0.0)
    interrupted, alive = Interrupted(), helpers()
    assert alive
    if when == "a helper's":
        assert team.run(interrupted, tables, numbers) is None
    else:
        with pytest.raises(KeyboardInterrupt):
            team.run(interrupted, tables, numbers)
    assert not team.works()
    run()  # by a new team
    assert workspace.team is not team and workspace.team.works()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_concurrent_fits_with_threads():
    serial = fitted("adam", np.float32, 2)
    with ThreadPoolExecutor(6) as pool:
        for model in pool.map(lambda _: fitted("adam", np.float32, 2), range(6)):
            for expected, got in zip(serial.coefs_, model.coefs_, strict=True):
                np.testing.assert_array_equal(got, expected)


def train_in_child(run, params, connection):
    run()
    connection.send(params)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_starts_a_team_of_its_own():
    run, _, params = epoch_of(2)
    run()
    run()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=train_in_child, args=(run, params, sender))
    child.start()
    assert receiver.poll(60), "the forked child hangs"
    got = receiver.recv()
    run()
    np.testing.assert_array_equal(got, params)
    child.join(60)
    assert child.exitcode == 0
