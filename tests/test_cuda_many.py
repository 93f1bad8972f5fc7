"""Many nets at once on the CUDA engine, a block each: what each of them would get alone, and the NumPy reference.

In the simulator, or on a GPU; sizes are those of the simulator.  What is expected to be fast needs neither.
"""

import inspect
import os
import signal
from contextlib import nullcontext

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.engines import backends
from fastmlp.kernels import reference
from fastmlp.kernels.contract import Epochs, TrainsMany
from fastmlp.kernels.numba_cuda import cost, driver, many, settings
from fastmlp.search import BatchedGridSearchCV

from helpers import assert_close, make_data, make_network, make_optimizer, make_params, steady_simulator

USABLE = "cuda" in backends.available()
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def engine():
    if not USABLE:
        pytest.skip(backends.why_not("cuda"))
    with steady_simulator() if driver.simulated() else nullcontext():
        yield backends.get("cuda")


@pytest.fixture(autouse=True)
def together(monkeypatch):
    """A few nets would train one after the other on a GPU; and with one tile all numbers have the same bits."""
    monkeypatch.setattr(settings, "MANY", True)
    monkeypatch.setattr(settings, "TILES", (settings.SMALL,))


@pytest.fixture(autouse=True)
def rubbish(monkeypatch):
    """What is allocated holds no zeros, as on a device."""
    allocate = driver.allocate

    def allocated(shape, dtype, purpose):
        made = allocate(shape, dtype, purpose)
        rubbish = np.nan if np.dtype(dtype).kind == "f" else 0
        made.copy_to_device(np.full(made.size, rubbish, dtype))
        return made

    monkeypatch.setattr(driver, "allocate", allocated)


def bytes_of_tiles():
    """What a block of float64 numbers has in shared memory besides a net."""
    return 8 * (settings.SIMULATED if driver.simulated() else settings.SMALL).shared


class Net:
    """The arguments of a call, which any engine may be given again."""

    def __init__(self, widths=(3, 5, 2), *, number=0, n=7, batch_size=3, epochs=0, rule="adam", order=None, data=None,
                 kind="C", weighted=False, alpha=0.1, l1=0.0, max_grad_norm=None, **network):  # fmt: skip
        rng = np.random.default_rng(number)
        self.network = make_network(widths, **network)
        self.data = make_data(np.random.default_rng(3), self.network, n, weighted, kind) if data is None else data
        self.params = make_params(rng, self.network)
        self.optimizer = make_optimizer(rng, rule, self.network.n_params, self.network.dtype)
        self.optimizer.max_grad_norm = max_grad_norm
        self.order = rng.permutation(n) if order is None else np.array(order)
        if epochs:
            self.order = np.array([rng.permutation(self.order) for _ in range(epochs)])
        self.rest = {"batch_size": batch_size, "alpha": alpha, "l1": l1, "seed": 2**63 + number}
        self.start = self.params.copy(), [state.copy() for state in self.optimizer.states], self.optimizer.t

    def call(self, engine, workspace=None):
        """Return the call from the start."""
        self.params, states, t = self.start[0].copy(), [state.copy() for state in self.start[1]], self.start[2]
        self.optimizer.states, self.optimizer.t = states, t
        return self.next(engine.workspace(self.network, self.rest["batch_size"]) if workspace is None else workspace)

    def next(self, workspace):
        """Return a call that goes on from where the net is."""
        losses = np.full(len(self.order), np.nan) if self.order.ndim == 2 else None
        return Epochs(
            workspace, self.params, self.data, self.order, optimizer=self.optimizer, losses=losses, **self.rest
        )

    def found(self, outcome, call):
        """Return all numbers that a call has written, as one vector."""
        losses = [outcome] if call.losses is None else [outcome, *call.losses]
        return np.concatenate([self.params, *self.optimizer.states, losses, [self.optimizer.t]])


def alone(engine, net):
    call = net.call(engine)
    return net.found(engine.train_epoch(*call), call)


def check(engine, nets, exact=True):
    """Train nets at once, and compare each with itself alone, and with the reference; return the workspaces."""
    calls = [net.call(engine) for net in nets]
    outcomes = engine.train_many(calls)
    found = [net.found(*pair) for net, *pair in zip(nets, outcomes, calls, strict=True)]
    for net, ours in zip(nets, found, strict=True):
        theirs = alone(engine, net)
        if exact:
            np.testing.assert_array_equal(ours, theirs)
        rtol = 1e-9 if net.network.dtype == np.float64 else 2e-5
        np.testing.assert_allclose(ours, alone(reference, net), rtol=rtol, atol=rtol * 1e-2)
    return [call.workspace for call in calls]


def of_one_launch(workspaces):
    return len({id(workspace.bundle) for workspace in workspaces}) == 1 and workspaces[0].bundle is not None


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_nets_that_differ_in_all_that_tables_hold(engine, monkeypatch):
    """Widths, depth, seeds, rates, penalties, dropout, clipping, rows, batches, epochs, weights: one launch for all."""
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 1e9)
    shared = make_data(np.random.default_rng(3), make_network((3, 5, 2)), 7)
    nets = [
        Net(number=0, data=shared),
        Net((3, 9, 4, 2), number=1, data=shared, alpha=0.0, dropout=(0.5, 0.2)),
        Net((3, 4, 2), number=2, data=shared, order=[6, 0, 2], l1=0.05),
        Net(number=3, data=shared, epochs=3, order=[1, 2, 3, 5], batch_size=2, input_dropout=0.3),
        Net((3, 6, 2), number=4, batch_size=7, max_grad_norm=0.1),
        Net((4, 5, 3), number=5, n=5, weighted=True),
        Net((3, 4, 6), number=6, n=5),  # its output layer is not narrow
    ]
    nets[5].data.sample_weight[:] += 0.1
    workspaces = check(engine, nets)
    assert of_one_launch(workspaces) and [ws.launches for ws in workspaces] == [1] * 7
    assert workspaces[0].rows is workspaces[3].rows is not workspaces[4].rows


@pytest.mark.parametrize("options", [
    {"batch_norm": True, "dropout": (0.3, 0.3), "activations": ("prelu", "gelu")},
    {"batch_norm": "after", "activations": ("tanh", "relu"), "l1": 0.05},
    {"kind": "csr int32", "input_dropout": 0.2, "loss": "squared_error"},
    {"rule": "nesterov", "dtype": np.float32, "epochs": 2},
    {"dtype": np.float32, "matmul_precision": "high", "order": [0, 1], "batch_size": 2},
], ids=["batch norm, prelu", "batch norm after", "sparse", "float32, nesterov", "tensor cores"])  # fmt: skip
def test_each_way_through_a_step(engine, options):
    assert of_one_launch(check(engine, [Net((5, 4, 3, 2), number=i, **options) for i in range(2)]))


def test_batches_of_several_chunks(engine, monkeypatch):
    monkeypatch.setattr(settings, "CHUNK_ROWS", 3)
    check(engine, [Net(number=0, n=9, batch_size=8), Net(number=1, n=9, batch_size=3, max_grad_norm=0.1)])


def test_nets_of_other_code_have_a_launch_of_their_own(engine):
    nets = [Net(number=0), Net(number=1, rule="sgd"), Net((3, 2), number=2), Net(number=3)]
    first, *others = check(engine, nets)
    assert len({id(ws.bundle) for ws in (first, *others)}) == 3 and others[2].bundle is first.bundle


def test_many_launches_and_tables(engine, monkeypatch):
    """A step to a launch, two steps to a table; states of one net stay outside of shared memory."""
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 0)
    monkeypatch.setattr(settings, "PARTIALS_PER_TABLE", 80)
    nets = [Net(number=0, epochs=2), Net((3, 30, 2), number=1)]
    room = bytes_of_tiles() + 8 * 2 * nets[1].network.n_params
    monkeypatch.setattr(driver, "shared_bytes", lambda: room)
    first, second = check(engine, nets)
    assert first.launches >= 6 and second.bundle.slots[second].places["states_inside"] == 0
    assert first.bundle.slots[first].places["states_inside"] == 2 * nets[0].network.n_params


# --- from call to call ------------------------------------------------------------------------------------------------


def test_nets_leave_and_come(engine):
    """They keep their places while nobody comes; what is held back stays on the device until it is fetched."""
    nets = [Net(number=i) for i in range(3)]
    workspaces = [engine.workspace(net.network, 3) for net in nets]
    expected = []
    for net, epochs in zip(nets, (3, 1, 2), strict=True):
        call = net.call(engine)
        for _ in range(epochs):
            engine.train_epoch(*net.next(call.workspace))
        expected.append(net.params)
    calls = [net.call(engine, ws) for net, ws in zip(nets, workspaces, strict=True)]
    workspaces[0].holds_back = True
    engine.train_many(calls[:2])
    bundle = workspaces[0].bundle
    np.testing.assert_array_equal(nets[0].params, nets[0].start[0])
    engine.train_many([nets[0].next(workspaces[0])])
    assert workspaces[0].bundle is workspaces[1].bundle is bundle
    engine.train_many([nets[2].next(workspaces[2]), nets[0].next(workspaces[0])])
    assert workspaces[0].bundle is workspaces[2].bundle is not bundle
    engine.train_epoch(*nets[2].next(workspaces[2]))
    workspaces[0].fetch()
    for net, params in zip(nets, expected, strict=True):
        np.testing.assert_array_equal(net.params, params)
    assert [net.optimizer.t for net in nets] == [3 + 9, 3 + 3, 3 + 6]
    prediction = np.empty((7, 2))
    engine.predict(workspaces[0], nets[0].params, nets[0].data.X, prediction)
    net, theirs = nets[0], np.empty((7, 2))
    reference.predict(reference.workspace(net.network, 3), net.params, net.data.X, theirs)
    assert_close(prediction, theirs, terms=10)


def test_an_error_of_one_call_stops_no_other(engine):
    shared = make_data(np.random.default_rng(3), make_network((3, 5, 2)), 7)
    weightless = Net(number=1, order=[0, 1, 2, 3], batch_size=2, weighted=True)
    weightless.data.sample_weight[:] = [1, 1, 0, 0, 1, 1, 1]
    nets = [
        Net(number=0, data=shared),
        weightless,
        Net(number=2, order=[0, 7], data=shared),
        Net(number=3, data=shared),
    ]
    calls = [net.call(engine) for net in nets]
    calls.append(calls[0]._replace(params=calls[0].params.copy()))
    outcomes = engine.train_many(calls)
    assert isinstance(outcomes[1], ZeroDivisionError) and weightless.optimizer.t == 4
    assert isinstance(outcomes[2], ValueError) and "order must lie in [0, 7)" in str(outcomes[2])
    assert isinstance(outcomes[4], RuntimeError) and "at work" in str(outcomes[4])
    for i in (0, 3):
        ours = nets[i].found(outcomes[i], calls[i])
        np.testing.assert_array_equal(ours, alone(engine, nets[i]))
    with pytest.raises(ValueError, match="workspace must come from workspace"):
        engine.train_many([calls[0]._replace(workspace=None)])


def test_an_interrupt_keeps_the_steps_of_each_net(engine, monkeypatch):
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 0)
    nets, launch = [Net(number=0, epochs=2), Net(number=1, order=[1, 2])], many.Bundle._launch

    def interrupted(self, members, first, *args):
        launch(self, members, first, *args)
        if first == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(many.Bundle, "_launch", interrupted)
    calls = [net.call(engine) for net in nets]
    with pytest.raises(KeyboardInterrupt):
        engine.train_many(calls)
    assert [net.optimizer.t for net in nets] == [3 + 4, 3 + 1]
    losses = calls[0].losses
    assert np.isfinite(losses[0]) and np.isnan(losses[1])
    found = [net.params.copy() for net in nets]
    first = nets[0].call(engine)
    engine.train_epoch(*first._replace(order=first.order[0], losses=None))
    engine.train_epoch(*first._replace(order=first.order[1, :3].copy(), losses=None))
    np.testing.assert_array_equal(found[0], nets[0].params)
    alone(engine, nets[1])
    np.testing.assert_array_equal(found[1], nets[1].params)


def test_an_error_of_the_device_leaves_what_the_host_knows(engine, monkeypatch):
    nets = [Net(number=i) for i in range(2)]
    calls = [net.call(engine) for net in nets]
    with monkeypatch.context() as patch:
        patch.setattr(driver.Launch, "__call__", lambda self, *args: (_ for _ in ()).throw(OSError("device lost")))
        with pytest.raises(OSError, match="device lost"):
            engine.train_many(calls)
    assert [net.optimizer.t for net in nets] == [3, 3]
    for net, outcome, call in zip(nets, engine.train_many(calls), calls, strict=True):
        np.testing.assert_array_equal(net.found(outcome, call), alone(engine, net))


# --- where nets are trained -------------------------------------------------------------------------------------------


def test_nets_that_are_too_large_train_alone(engine, monkeypatch):
    """For a block's shared memory, or all of them for the device's memory."""
    nets = [Net(number=0), Net((3, 40, 2), number=1), Net(number=2)]
    with monkeypatch.context() as patch:
        room = bytes_of_tiles() + 8 * nets[0].network.n_params
        patch.setattr(driver, "shared_bytes", lambda: room)
        small, large, other = check(engine, nets)
        assert large.bundle is None and small.bundle is other.bundle is not None
    monkeypatch.setattr(many.Bundle, "_take_vectors", lambda *args: (_ for _ in ()).throw(MemoryError("no room")))
    assert [ws.bundle for ws in check(engine, nets[::2])] == [None, None]


def test_what_is_expected_to_be_faster(monkeypatch):
    """On 132 multiprocessors: a few nets one after the other on all of them, hundreds with one each."""
    monkeypatch.setattr(driver, "simulated", lambda: False)
    monkeypatch.setattr(driver, "multiprocessors", lambda: 132)
    monkeypatch.setattr(driver, "shared_bytes", lambda: 227 * 1024)
    monkeypatch.setattr(settings, "MANY", None)
    monkeypatch.setattr(settings, "TILES", (settings.SMALL, settings.MEDIUM, settings.LARGE))
    need = cost.Need((64, 128, 128, 10), 256, 26122, 2)
    tile = cost.tile_of_many([need], 4)
    assert cost.inside(need, tile, 4) == (0, 4 * 26122)
    assert cost.inside(need._replace(n_params=10000), tile, 4) == (20000, 120000)
    assert not cost.many_pay([need] * 11, tile, 4) and cost.many_pay([need] * 12, tile, 4)
    large = cost.Need((784, 100, 10), 200, 79510, 2)
    assert cost.inside(large, tile, 4) is None and cost.tile_of_many([large], 4) is None
    high = cost.tile_of(need.widths, need.rows, precision="high")
    assert high.precision == "high" == cost.tile_of_many([need], 4, high.precision).precision
    small = cost.Need((4, 16, 3), 30, 131, 2)
    assert cost.many_pay([small] * 2, cost.tile_of_many([small], 4), 4)


def test_the_contract_names_the_call(engine):
    ours, theirs = (inspect.signature(place.train_many) for place in (engine, TrainsMany))
    assert ours == theirs
    epoch = list(inspect.signature(engine.train_epoch).parameters)
    assert [*Epochs._fields, "shared"] == epoch


# --- ensembles and searches -------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(24, 3))
Y = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)
SMALL = {"hidden_layer_sizes": (4,), "max_iter": 4, "batch_size": 8, "random_state": 0, "learning_rate_init": 0.05}


@pytest.fixture
def launches(engine, monkeypatch):
    """The number of nets of each call of train_many."""
    seen, train = [], many.train
    monkeypatch.setattr(many, "train", lambda calls, alone: seen.append(len(calls)) or train(calls, alone))
    return seen


def weights_of(network):
    return np.concatenate([array.ravel() for array in (*network.coefs_, *network.intercepts_)])


@pytest.mark.parametrize("options", [
    {"n_ens": 3, "early_stopping": True, "n_iter_no_change": 1, "tol": 0.3, "validation_fraction": 0.3},
    {"n_cv": 2, "dropout": 0.2, "max_iter": 3},
    {"n_ens": 2, "n_cv": 2, "early_stopping": True, "ens_stopping": "ensemble", "validation_fraction": 0.3},
], ids=["other epochs", "folds", "in step"])  # fmt: skip
def test_ensembles(launches, monkeypatch, options):
    """Each network is what it is with one network after the other."""
    found = MLPClassifier(backend="cuda", **SMALL | options).fit(X, Y)
    n = len(found.estimators_)
    assert launches[0] == n and sum(launches) >= 2
    if options.get("n_ens") == 3:
        assert len({network.n_iter_ for network in found.estimators_}) > 1 and launches[-1] < n
    monkeypatch.delattr("fastmlp.kernels.numba_cuda.engine.train_many")
    expected = MLPClassifier(backend="cuda", **SMALL | options).fit(X, Y)
    for ours, theirs in zip(found.estimators_, expected.estimators_, strict=True):
        assert ours.n_iter_ == theirs.n_iter_ and ours.loss_curve_ == theirs.loss_curve_
        np.testing.assert_array_equal(weights_of(ours), weights_of(theirs))


def test_searches(launches):
    """All fits of a search go together; the results are those of scikit-learn's search."""
    grid, common = {"alpha": [1e-3, 1.0], "hidden_layer_sizes": [(3,), (5,)]}, {"cv": 2, "refit": False}
    network = MLPClassifier(backend="cuda", **SMALL)
    ours = BatchedGridSearchCV(network, grid, **common).fit(X, Y)
    assert max(launches) > 2 and sum(launches) >= 8
    theirs = GridSearchCV(network, grid, **common).fit(X, Y)
    for fold in range(2):
        name = f"split{fold}_test_score"
        np.testing.assert_array_equal(ours.cv_results_[name], theirs.cv_results_[name])


def test_an_interrupted_ensemble_keeps_its_epochs(launches):
    def interrupt(info):
        if info.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.warns(UserWarning, match="interrupted"):
        found = MLPClassifier(backend="cuda", n_ens=3, callbacks=[interrupt], **SMALL).fit(X, Y)
    assert {network.n_iter_ for network in found.estimators_} <= {2, 3}
    assert all(np.isfinite(weights_of(network)).all() for network in found.estimators_)


def test_an_error_in_a_callback_ends_all(launches):
    def fail(info):
        if info.epoch == 2:
            raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        MLPRegressor(backend="cuda", n_ens=3, callbacks=[fail], **SMALL).fit(X, X[:, 0])
