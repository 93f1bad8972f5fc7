"""Several epochs in one call of an engine: the same bits as one by one, and every rule at its epoch."""

import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.engines import backends
from fastmlp.kernels import interrupts
from fastmlp.kernels.contract import Data
from fastmlp.training.run import Run

import parity
from helpers import Steps, make_data, make_network, make_optimizer, make_params
from small_training import BACKENDS, SMALL, X, Y

STOPPABLE = [name for name in backends.available() if name != "cuda"]


# --- engines ----------------------------------------------------------------------------------------------------------


class Planned(Steps):
    """An optimizer that has a share of dropout for each step, besides a rate and a decay."""

    def dropouts(self, n_steps):
        return 1.0 / (1.0 + np.arange(self.t, self.t + n_steps, dtype=np.float64))


def epochs(engine, network, params, data, orders, optimizer, together, n_jobs=1):
    """Losses (n_epochs,) and weights after epochs in one call, or one by one."""
    workspace, losses, params = engine.workspace(network, 4, n_jobs), np.zeros(len(orders)), params.copy()
    rest = 4, 0.1, optimizer, 0.05, 7
    if together:
        last = engine.train_epoch(workspace, params, data, orders, *rest, losses)
        assert last == losses[-1]
    else:
        for i, order in enumerate(orders):
            losses[i] = engine.train_epoch(workspace, params, data, np.ascontiguousarray(order), *rest)
    return losses, params


ORDERS = {
    "shuffled": lambda rng: np.array([rng.permutation(10) for _ in range(5)]),
    "the same": lambda rng: np.broadcast_to(rng.permutation(10), (5, 10)),
    "the front of each": lambda rng: np.array([rng.permutation(10) for _ in range(5)])[:, :8],
    "from the last to the first": lambda rng: np.array([rng.permutation(10) for _ in range(5)])[::-1],
}


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("kind", ["C", "csr int32"])
@pytest.mark.parametrize("rule", ["adam", "decay and clip", "plan of dropout"])
def test_the_bits_are_those_of_epochs_one_by_one(engine, dtype, orders, kind, rule):
    rng = np.random.default_rng(0)
    network = make_network((6, 9, 7, 3), "log_loss", "tanh", dtype, dropout=(0.3, 0.2), input_dropout=0.1)
    params, data = make_params(rng, network), make_data(rng, network, 10, True, kind)
    data.sample_weight[:] += dtype(0.1)
    one = {
        "adam": make_optimizer(rng, "adam", len(params), dtype),
        "decay and clip": Steps("sgd", [], weight_decay=0.1, max_grad_norm=0.5),
        "plan of dropout": Planned("sgd", []),
    }[rule]
    if rule == "plan of dropout" and engine.__name__.split(".")[-1] not in ("_engine", "reference"):
        one = Steps("sgd", [])  # the others refuse such plans
    other, orders, t = one.copy(), ORDERS[orders](rng), one.t
    together = epochs(engine, network, params, data, orders, one, True)
    alone = epochs(engine, network, params, data, orders, other, False)
    for a, b in zip((*together, *one.states), (*alone, *other.states), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.t == other.t == t + 5 * -(-orders.shape[1] // 4)
    assert len(set(together[0])) == 5


def test_threads_go_on_from_epoch_to_epoch():
    engine, rng = backends.get("cython"), np.random.default_rng(0)
    network = make_network((40, 90, 70, 3), "log_loss", "tanh", np.float32)
    params, data = make_params(rng, network), make_data(rng, network, 300, False, "C")
    orders = np.array([rng.permutation(300) for _ in range(4)])
    found = [epochs(engine, network, params, data, orders, Steps("sgd", []), True, n) for n in (1, 2, 3)]
    for losses, weights in found[1:]:
        np.testing.assert_array_equal(losses, found[0][0])
        np.testing.assert_array_equal(weights, found[0][1])


@pytest.mark.parametrize("n_epochs", [1, 4])
def test_shuffles_of_several_epochs(engine, n_epochs):
    ours, numpys = np.random.RandomState(3), np.random.RandomState(3)
    orders, expected = np.empty((n_epochs, 50), np.intp), np.arange(50)
    orders[0] = expected
    engine.shuffle(orders, ours)
    for order in orders:
        numpys.shuffle(expected)
        np.testing.assert_array_equal(order, expected)
    assert ours.randint(2**30) == numpys.randint(2**30)


GOOD = np.arange(20, dtype=np.intp).reshape(2, 10) % 10
BAD = {
    "one order": (GOOD[0], np.empty(2), "order"),
    "fewer orders": (GOOD[:1], np.empty(2), "order"),
    "more orders": (np.concatenate([GOOD, GOOD]), np.empty(2), "order"),
    "no epochs": (GOOD[:0], np.empty(0), "order"),
    "no rows": (GOOD[:, :0], np.empty(2), "order"),
    "a list": (GOOD.tolist(), np.empty(2), "order"),
    "other integers": (GOOD.astype(np.int32), np.empty(2), "order"),
    "every second row index": (np.repeat(GOOD, 2, axis=1)[:, ::2], np.empty(2), "order"),
    "a row out of range, in the last epoch": (GOOD + np.array([[0], [1]]), np.empty(2), "order"),
    "a negative row, in the last epoch": (GOOD - np.array([[0], [1]]), np.empty(2), "order"),
    "losses in float32": (GOOD, np.empty(2, "f4"), "losses"),
    "losses to read": (GOOD, np.broadcast_to(0.0, 2), "losses"),
    "losses in two dimensions": (GOOD, np.empty((2, 1)), "losses"),
    "losses as a list": (GOOD, [0.0, 0.0], "losses"),
    "orders without losses": (GOOD, None, "order"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_orders_and_losses_are_refused(engine, case):
    rng = np.random.default_rng(0)
    network = make_network((6, 9, 3), "log_loss", "tanh", np.float64)
    params, data = make_params(rng, network), make_data(rng, network, 10, False, "C")
    before, optimizer, (orders, losses, named) = params.copy(), Steps("sgd", []), BAD[case]
    with pytest.raises(ValueError, match=named):
        engine.train_epoch(engine.workspace(network, 4), params, data, orders, 4, 0.0, optimizer, losses=losses)
    np.testing.assert_array_equal(params, before)
    assert optimizer.t == 0


def test_losses_do_not_share_memory_with_the_weights():
    engine, rng = backends.get("cython"), np.random.default_rng(0)
    network = make_network((6, 9, 3), "log_loss", "tanh", np.float64)
    params, data = make_params(rng, network), make_data(rng, network, 10, False, "C")
    with pytest.raises(ValueError, match="losses must not overlap params"):
        engine.train_epoch(
            engine.workspace(network, 4), params, data, GOOD, 4, 0.0, Steps("sgd", []), losses=params[:2]
        )


@pytest.mark.parametrize("name", STOPPABLE)
def test_losses_of_the_epochs_done_are_there_after_an_interrupt(name):
    engine, rng = backends.get(name), np.random.default_rng(0)
    network = make_network((32, 256, 256, 1), "squared_error", "relu", np.float32)
    n = 2000
    data = Data(rng.normal(size=(n, 32)).astype("f4"), np.zeros((n, 1), "f4"))
    params, optimizer = rng.normal(scale=0.01, size=network.n_params).astype("f4"), Steps("sgd", [])
    orders, losses = np.broadcast_to(np.arange(n), (50_000, n)), np.full(50_000, np.nan)
    workspace, stop, seen = engine.workspace(network, 200, 1), interrupts.Stop(), []

    def train():
        with interrupts.stoppable(stop), pytest.raises(KeyboardInterrupt):
            engine.train_epoch(workspace, params, data, orders, 200, 0.0, optimizer, losses=losses)
        seen.append(optimizer.t)

    thread = threading.Thread(target=train)
    thread.start()
    while np.isnan(losses[1]) and thread.is_alive():
        time.sleep(0.01)
    stop.wanted = True
    thread.join(20)
    n_done = seen[0] // 10
    assert 1 < n_done < 50_000
    assert np.isfinite(losses[:n_done]).all()
    assert np.isnan(losses[n_done:]).all()


# --- fits -------------------------------------------------------------------------------------------------------------

PARAMS = {
    "max_iter ends": {"max_iter": 30, "n_iter_no_change": np.inf},
    "tol ends": {"max_iter": 300, "tol": 1e-2},
    "patience grows": {"max_iter": 60, "tol": 1e-2, "n_iter_no_change": 2, "patience_growth": 0.5},
    "without shuffle": {"max_iter": 25, "shuffle": False},
    "drop_last": {"max_iter": 25, "drop_last": True},
    "dropout": {"max_iter": 25, "dropout": 0.3},
    "sgd": {"max_iter": 25, "solver": "sgd"},
    "sgd, adaptive": {"max_iter": 80, "solver": "sgd", "learning_rate": "adaptive", "tol": 1e-2, "n_iter_no_change": 2},
    "a schedule": {"max_iter": 25, "learning_rate": ("cosine", {})},
    "batch_norm, a row left over": {"max_iter": 25, "batch_norm": True, "batch_size": 79},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PARAMS)
def test_a_fit_that_nobody_watches_is_that_with_a_callback(case, backend):
    """A callback looks after every epoch, so its fit trains them one by one."""
    params = SMALL | {"backend": backend, "tol": 0.0} | PARAMS[case]
    alone, watched = (MLPClassifier(**params), MLPClassifier(**params, callbacks=[lambda info: None]))
    for est in (alone, watched):
        est.fit(X, Y)
    parity.assert_identical_models(alone, watched)
    assert alone.n_iter_ == watched.n_iter_ == len(alone.loss_curve_)
    assert alone.loss_curve_ == watched.loss_curve_
    assert (alone.best_loss_, alone.t_) == (watched.best_loss_, watched.t_)
    for name in ("loss", "learning_rate"):
        assert alone.history_[name] == watched.history_[name]
    assert len(alone.history_["seconds"]) == alone.n_iter_
    assert min(alone.history_["seconds"]) > 0


def calls_of(monkeypatch):
    """The numbers of epochs that runs train at once, from now on."""
    counts, epochs = [], Run.epochs
    monkeypatch.setattr(Run, "epochs", lambda run, n: (counts.append(n), epochs(run, n))[1])
    return counts


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_iter": 30, "n_iter_no_change": np.inf}, [30]),
        ({"max_iter": 30, "n_iter_no_change": 10, "tol": 0.0}, [11, 11, 8]),
        ({"max_iter": 3, "n_iter_no_change": np.inf, "verbose": True}, [1, 1, 1]),
        ({"max_iter": 3, "n_iter_no_change": np.inf, "early_stopping": True}, [1, 1, 1]),
        ({"max_iter": 3, "n_iter_no_change": np.inf, "learning_rate": ("cosine", {})}, [1, 1, 1]),
        ({"max_iter": 3, "n_iter_no_change": np.inf, "callbacks": [lambda info: None]}, [1, 1, 1]),
    ],
)
def test_how_many_epochs_come_in_one_call(monkeypatch, capsys, params, expected):
    counts = calls_of(monkeypatch)
    MLPClassifier(**SMALL | params).fit(X, Y)
    assert counts == expected


def test_large_data_are_trained_epoch_by_epoch(monkeypatch):
    counts = calls_of(monkeypatch)
    rows = np.random.default_rng(0).normal(size=(2**15, 2))
    MLPRegressor(hidden_layer_sizes=(2,), max_iter=4, n_iter_no_change=np.inf, batch_size=2**12).fit(rows, rows[:, 0])
    assert counts == [2, 2]


def test_sparse_rows_train_as_dense_ones_do():
    params = SMALL | {"max_iter": 40, "n_iter_no_change": np.inf}
    sparse, dense = (MLPClassifier(**params).fit(rows, Y) for rows in (sp.csr_matrix(X), X))
    np.testing.assert_allclose(sparse.loss_curve_, dense.loss_curve_, rtol=1e-9)
