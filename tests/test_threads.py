"""Threads inside one fit: the same bits for every n_jobs, limits respected, interrupts answered, fork survived."""

import multiprocessing
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time

import numpy as np
import pytest
import scipy.sparse
from joblib import Parallel, delayed
from sklearn.datasets import make_classification, make_regression
from threadpoolctl import threadpool_limits

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.kernels import _engine, interrupts, threads
from fastmlp.model.network import Network

from helpers import make_data, make_network, make_optimizer, make_params
from tabular_networks import large_case, make_plans

X, Y = make_classification(700, 33, n_informative=9, n_classes=4, random_state=0)
VALUES = make_regression(700, 33, n_targets=3, random_state=0)[1] / 100
SPARSE = scipy.sparse.random_array((700, 33), density=0.2, rng=np.random.default_rng(0), format="csr")
WEIGHT = np.random.default_rng(0).uniform(0.1, 2, 700)

CASES = {
    "adam": (MLPClassifier((40, 17)), X, Y, None),
    "weighted": (MLPClassifier((40,), activation="tanh", solver="sgd"), X, Y, WEIGHT),
    "no hidden layer": (MLPClassifier(()), X, Y, None),
    "sparse": (MLPClassifier((20, 20), activation="logistic"), SPARSE, Y, None),
    "chunks of a full batch": (MLPRegressor(hidden_layer_sizes=(30,), batch_size=700), X, VALUES, WEIGHT),
    "single rows": (MLPClassifier((5,), batch_size=1, max_iter=2), X[:50], Y[:50], None),
    "lbfgs": (MLPRegressor(hidden_layer_sizes=(30,), solver="lbfgs"), X, VALUES, None),
    "beyond the caches": (MLPClassifier((600, 500), max_iter=2), X[:250], Y[:250], None),
}


def fitted(case, dtype, n_jobs):
    model, rows, y, weight = CASES[case]
    model = type(model)(**{**model.get_params(), "max_iter": min(model.max_iter, 5), "n_jobs": n_jobs})
    return model.set_params(random_state=0).fit(rows.astype(dtype), y, weight)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_same_bits_for_every_n_jobs(case, dtype):
    one = fitted(case, dtype, 1)
    rows = CASES[case][1].astype(dtype)
    for n_jobs in (2, 3, 4, -1, None):
        many = fitted(case, dtype, n_jobs)
        for expected, got in zip((*one.coefs_, *one.intercepts_), (*many.coefs_, *many.intercepts_), strict=True):
            np.testing.assert_array_equal(got, expected)
        assert getattr(many, "loss_curve_", None) == getattr(one, "loss_curve_", None)
        assert many.loss_ == one.loss_
        np.testing.assert_array_equal(many.predict(rows), one.predict(rows))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("members", [1, 4, 9])
def test_same_bits_of_blocks_and_members_for_every_n_jobs(members, dtype):
    """A batch of many chunks, for members that fill a register tile and for those that do not."""
    case, rng = large_case(dtype, members), np.random.default_rng(0)
    rows, first = case.data(rng, 300, weighted=True), case.params(rng)
    optimizer = make_plans(rng, "adamw", case.network, max_grad_norm=1.0, weight_decay=0.1)
    found = []
    for n_jobs in (1, 2, 3, 31):
        params, outputs = first.copy(), [np.empty((n, 3), dtype) for n in (300, 61, 8, 1)]
        workspace = _engine.workspace(case.network, 120, n_jobs)
        loss = _engine.train_epoch(workspace, params, rows, np.arange(300), 120, 0.1, optimizer.copy(), 0.0, 5)
        for out in outputs:
            _engine.predict(workspace, params, rows.X[: len(out)], out)
        found.append((loss, params.tobytes(), *(out.tobytes() for out in outputs)))
    assert all(each == found[0] for each in found)


#: Options of a network, and of a fit, where gradients go from thread to thread.
RELAYS = {
    "plain": ({}, {}),
    "learned slopes": ({"activations": ("prelu", "tanh")}, {}),
    "dropout": ({"dropout": (0.3, 0.2)}, {}),
    "clipped": ({}, {"max_grad_norm": 0.1}),
    "sparse": ({}, {}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", RELAYS)
def test_same_bits_where_gradients_go_from_thread_to_thread(case, dtype):
    """Batches of two chunks, some of which leave threads without rows; the weights of the last batch sum to zero."""
    rng, (of_network, of_fit) = np.random.default_rng(0), RELAYS[case]
    net = make_network((20, 48, 33, 3), dtype=np.dtype(dtype), **of_network)
    data, first = make_data(rng, net, 700, weighted=True), make_params(rng, net)
    data.sample_weight[:60] = 0
    if case == "sparse":
        data = data._replace(X=scipy.sparse.csr_array(data.X * (data.X > 0.5)))
    order, found = np.r_[60:363, 363:666, :60], []
    for n_jobs in (1, 2, 3, 5):
        params, optimizer = first.copy(), make_optimizer(np.random.default_rng(1), "adam", net.n_params, net.dtype)
        optimizer.max_grad_norm = of_fit.get("max_grad_norm")
        workspace = _engine.workspace(net, 303, n_jobs)
        loss = _engine.train_epoch(workspace, params, data, order[:310], 303, 0.1, optimizer, 0.01, 5)
        assert workspace.relays == (n_jobs > 1)
        with pytest.raises(ZeroDivisionError):
            _engine.train_epoch(workspace, params, data, order, 303, 0.1, optimizer, 0.0, 5)
        assert optimizer.t == 3 + 2 + 2
        found.append((loss, params.tobytes(), *(state.tobytes() for state in optimizer.states)))
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("n_jobs", [2, 3])
@pytest.mark.parametrize("batch", [150, 303, 400, 515, 700])
def test_an_interrupted_step_is_dropped_whole(batch, n_jobs):
    """Gradients go from thread to thread; after Ctrl-C parameters and states are those of the steps done."""
    rng = np.random.default_rng(0)
    net = make_network((20, 48, 33, 3), dtype=np.dtype("float32"))
    data, first, order = make_data(rng, net, 700), make_params(rng, net), np.arange(400 * batch) % 700
    stop, params, optimizer = interrupts.Stop(), first.copy(), _sgd(net)
    stop.wanted = True
    workspace = _engine.workspace(net, batch, n_jobs)
    with interrupts.stoppable(stop), pytest.raises(KeyboardInterrupt):
        _engine.train_epoch(workspace, params, data, order, batch, 0.1, optimizer)
    assert workspace.relays
    alone = _sgd(net)
    n_done = optimizer.t - alone.t
    assert 0 < n_done < 400
    _engine.train_epoch(_engine.workspace(net, batch, 1), first, data, order[: batch * n_done], batch, 0.1, alone)
    assert params.tobytes() == first.tobytes()
    assert alone.states[0].tobytes() == optimizer.states[0].tobytes()


def _sgd(net):
    """Steps with a state, some of which are done."""
    return make_optimizer(np.random.default_rng(1), "momentum", net.n_params, net.dtype)


def network(*widths):
    return Network(widths, ("relu",) * (len(widths) - 2), "log_loss", np.dtype("float32"))


def test_small_steps_take_one_thread():
    assert _engine.workspace(network(4, 16, 3), 32).n_threads == 1
    assert _engine.workspace(network(4, 16, 3), 32, 2).n_threads == 2


def test_large_steps_take_what_is_allowed(monkeypatch):
    monkeypatch.setattr(threads, "allowed", lambda n_jobs: 3)
    assert _engine.workspace(network(784, 512, 10), 128).n_threads == 3


def test_no_more_threads_than_tiles_of_rows():
    assert _engine.workspace(network(4, 16, 3), 5, 4).n_threads == 1


def test_a_workspace_serves_one_caller_at_a_time():
    net = network(20, 256, 4)
    workspace = _engine.workspace(net, 500_000, 2)
    params, rows = np.zeros(net.n_params, np.float32), np.zeros((500_000, 20), np.float32)
    outcomes = []

    def predict():
        try:
            _engine.predict(workspace, params, rows, np.empty((500_000, 4), np.float32))
            outcomes.append("done")
        except RuntimeError as error:
            outcomes.append(str(error))

    callers = [threading.Thread(target=predict) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert "done" in outcomes
    assert all(text == "done" or "at work for another caller" in text for text in outcomes)
    predict()
    assert outcomes[-1] == "done"


def side_by_side(n, call):
    """Run call(0) .. call(n - 1) in threads that begin together; return what each returned or the RuntimeError."""
    begin, outcomes = threading.Barrier(n), [None] * n

    def run(i):
        begin.wait()
        try:
            outcomes[i] = call(i)
        except RuntimeError as error:
            outcomes[i] = error

    callers = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return outcomes


def small_training(n_jobs=1):
    """Return a workspace, and a function that trains it for one epoch from the same start and returns the weights."""
    rng = np.random.default_rng(0)
    net = make_network((33, 40, 17, 4), dtype=np.dtype("float32"))
    data, first = make_data(rng, net, 700), make_params(rng, net)
    workspace = _engine.workspace(net, 50, n_jobs)

    def train(workspace):
        params, optimizer = first.copy(), make_optimizer(np.random.default_rng(1), "adam", net.n_params, net.dtype)
        _engine.train_epoch(workspace, params, data, np.arange(700), 50, 0.1, optimizer)
        return params

    return workspace, train


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_one_workspace_trains_for_one_caller_at_a_time(n_jobs):
    workspace, train = small_training(n_jobs)
    expected = train(workspace)
    for _ in range(50):
        outcomes = side_by_side(4, lambda i: train(workspace))
        done = [outcome for outcome in outcomes if isinstance(outcome, np.ndarray)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, RuntimeError)]
        assert done and len(done) + len(refused) == 4
        assert all("at work for another caller" in str(error) for error in refused)
        for params in done:
            np.testing.assert_array_equal(params, expected)


def test_workspaces_train_side_by_side():
    workspace, train = small_training()
    expected = train(workspace)
    workspaces = [_engine.workspace(workspace.network, 50, 1 + i % 2) for i in range(6)]
    for _ in range(10):
        for params in side_by_side(6, lambda i: train(workspaces[i])):
            np.testing.assert_array_equal(params, expected)


def test_workspaces_are_made_side_by_side():
    workspace, train = small_training()
    expected = train(workspace)
    for params in side_by_side(6, lambda i: train(_engine.workspace(workspace.network, 50, 2))):
        np.testing.assert_array_equal(params, expected)


def test_shuffles_of_one_random_state_take_turns():
    n, callers = 20_000, 4
    serial, shared = np.random.RandomState(0), np.random.RandomState(0)
    expected = [np.arange(n) for _ in range(callers)]
    orders = [np.arange(n) for _ in range(callers)]
    for order in expected:
        serial.shuffle(order)
    side_by_side(callers, lambda i: _engine.shuffle(orders[i], shared))
    assert sorted(map(tuple, orders)) == sorted(map(tuple, expected))
    assert shared.randint(2**31) == serial.randint(2**31)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has its GIL")
def test_import_leaves_the_gil_off():
    code = "import sys; from fastmlp.kernels import _engine; print(sys._is_gil_enabled())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_limits_are_respected():
    with threadpool_limits(limits=1, user_api="openmp"):
        assert threads.allowed(None) == 1
    assert threads.allowed(3) == 3
    assert threads.allowed(-1) >= 1


def test_workers_of_joblib_get_their_share():
    inner = Parallel(n_jobs=2, backend="loky")(delayed(threads.allowed)(None) for _ in range(2))
    assert all(n <= max(1, (os.cpu_count() or 1) // 2) for n in inner)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_concurrent_fits_with_threads():
    serial = fitted("adam", np.float32, 2)
    models = Parallel(n_jobs=8, backend="threading")(delayed(fitted)("adam", np.float32, 2) for _ in range(8))
    for model in models:
        for expected, got in zip(serial.coefs_, model.coefs_, strict=True):
            np.testing.assert_array_equal(got, expected)


def fit_in_child(connection):
    connection.send([W.copy() for W in fitted("adam", np.float64, 2).coefs_])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_forked_child_can_fit_with_threads():
    parent = fitted("adam", np.float64, 2)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=fit_in_child, args=(sender,))
    child.start()
    assert receiver.poll(60), "the forked child hangs"
    for expected, got in zip(parent.coefs_, receiver.recv(), strict=True):
        np.testing.assert_array_equal(got, expected)
    child.join()
    assert child.exitcode == 0


@pytest.mark.skipif(os.name == "nt", reason="sends itself a POSIX signal")
@pytest.mark.parametrize(("width", "n_jobs"), [(300, 1), (300, 2), (100, 2), (100, 3)])
def test_ctrl_c_ends_a_long_epoch(width, n_jobs):
    """Where threads share a chunk's gradients by slices, and where these go from thread to thread."""
    rows = np.random.default_rng(0).standard_normal((100_000, 30), dtype=np.float32)
    model = MLPClassifier((width, width), batch_size=100_000, max_iter=1000, n_jobs=n_jobs)
    sent = []

    def interrupt():
        time.sleep(0.5)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(rows, rows[:, 0] > 0)
    answered = time.perf_counter() - sent[0]
    thread.join()
    # a busy machine may take its time, yet not the minutes that the epochs asked for would
    assert answered < 5
    assert model.n_iter_ < 1000
    assert model.predict(rows[:10]).shape == (10,)
