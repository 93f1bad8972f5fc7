"""Steps that several ranks take together, each with some rows of the batch, come to what one process computes.

The judge is the same engine's call on all rows. Ranks are threads here, and rows are shared out by loops in plain
Python, independent of the engine in front of an engine (test_distributed.py).
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.distributed import on_threads
from fastmlp.engines import backends
from fastmlp.kernels.contract import COMPLETE, Data, Shared

from helpers import make_data, make_network, make_params, seeds
from tabular_networks import cases, large_case, make_plans

#: Engines that share steps; the others refuse.
ENGINES = [name for name in backends.available() if name in COMPLETE]


def shared_out(order, batch_size, owners, rank):
    """-> rows, starts, places of one rank, where row r of the table belongs to rank ``owners[r]``."""
    rows, starts, places = [], [0], []
    for first in range(0, len(order), batch_size):
        for place, row in enumerate(order[first : first + batch_size]):
            if owners[row] == rank:
                rows.append(row)
                places.append(place)
        starts.append(len(rows))
    return [np.array(list_, dtype=np.intp) for list_ in (rows, starts, places)]


def local(data, own):
    """The rows of one rank."""
    return Data(data.X[own], data.y[own], None if data.sample_weight is None else data.sample_weight[own])


def aligned(n, dtype):
    """Memory that begins with a cache line, in which nothing useful stands."""
    memory = np.empty(n * dtype.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    vector = memory[start : start + n * dtype.itemsize].view(dtype)
    vector[...] = np.nan
    return vector


def epoch_of_ranks(engine, network, params, data, order, batch_size, optimizer, owners, n_jobs=1, **options):
    """-> (loss, params, optimizer) of each rank; every other one gives its engine memory for the sums."""

    def train(communicator):
        own = np.flatnonzero(owners == communicator.rank)
        rows, starts, places = shared_out(order, batch_size, owners, communicator.rank)
        memory = lru_cache(aligned) if communicator.rank % 2 == 0 else None
        shared = Shared(communicator.allreduce, len(order), starts, places, memory)
        mine, steps = params.copy(), optimizer.copy()
        workspace = engine.workspace(network, batch_size, n_jobs)
        args = workspace, mine, local(data, own), np.searchsorted(own, rows).astype(np.intp), batch_size
        loss = engine.train_epoch(*args, options["alpha"], steps, options["l1"], options["seed"], shared=shared)
        return loss, mine, steps

    return on_threads(train, int(owners.max()) + 1, timeout=20)


def assert_near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12 * max(1.0, np.abs(expected).max(initial=0)))


def check_epoch(engine, network, params, data, order, batch_size, optimizer, owners, n_jobs=1):
    """All ranks come to what one call does, and to the same bits as each other."""
    engine, options = backends.get(engine), {"alpha": 0.1, "l1": 0.01, "seed": 7}
    whole, steps = params.copy(), optimizer.copy()
    workspace = engine.workspace(network, batch_size, n_jobs)
    loss = engine.train_epoch(workspace, whole, data, order, batch_size, 0.1, steps, 0.01, 7)
    found = epoch_of_ranks(engine, network, params, data, order, batch_size, optimizer, owners, n_jobs, **options)
    for its_loss, its_params, its_steps in found:
        assert_near(its_loss, loss)
        assert_near(its_params, whole)
        for state, expected in zip(its_steps.states, steps.states, strict=True):
            assert_near(state, expected)
        assert its_steps.t == steps.t
        assert its_loss == found[0][0]
        assert np.array_equal(its_params, found[0][1], equal_nan=True)


def owners_of(rng, n, n_ranks):
    """Owners of n rows: uneven, often with a rank that has none, at least one row for the last rank."""
    shares = rng.dirichlet(np.full(n_ranks, 0.4))
    owners = rng.choice(n_ranks, n, p=shares)
    owners[rng.integers(n)] = n_ranks - 1
    return owners


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=25, deadline=None)
@given(
    case=cases(np.float64),
    seed=seeds,
    n=st.integers(1, 40),
    n_ranks=st.integers(1, 3),
    rule=st.sampled_from(["sgd", "nesterov", "adam", "adamw", "rmsprop"]),
    clip=st.sampled_from([None, 0.05]),
    weighted=st.booleans(),
)
def test_any_network(engine, case, seed, n, n_ranks, rule, clip, weighted):
    """Blocks, members, dropout, factors, clipping, decay, both penalties: whatever rows each rank has."""
    network, rng = replace(case.network, batch_norm=()), np.random.default_rng(seed)
    case = case._replace(network=network)
    optimizer = make_plans(rng, rule, network, max_grad_norm=clip, weight_decay=0.1)
    args = case.params(rng), case.data(rng, n, weighted=weighted), rng.permutation(n), int(rng.integers(1, n + 1))
    check_epoch(engine, network, *args, optimizer, owners_of(rng, n, n_ranks))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("engine", ENGINES)
def test_random_slopes(engine, members):
    """The slopes are functions of the places of rows in the whole batch, and of the member."""
    rng, options = np.random.default_rng(3), {"members": members, "input_scale": members > 1, "dropout": (0.3,)}
    network = make_network((7, 9, 4), activations="rrelu", **options)
    data = make_data(rng, network, 36, weighted=True)
    optimizer = make_plans(rng, "adam", network, planned=False)
    args = make_params(rng, network), data, rng.permutation(36), 8
    check_epoch(engine, network, *args, optimizer, owners_of(rng, 36, 3))


@pytest.mark.parametrize("kind", ["C", "csr int32", "csr int64", "F"])
@pytest.mark.parametrize("engine", ENGINES)
def test_layouts_of_x(engine, kind):
    rng = np.random.default_rng(3)
    network = make_network((7, 9, 4), activations="gelu", dropout=0.3, input_dropout=0.2)
    data = make_data(rng, network, 36, weighted=True, kind=kind)
    optimizer = make_plans(rng, "adam", network, planned=False)
    args = make_params(rng, network), data, rng.permutation(36), 8
    check_epoch(engine, network, *args, optimizer, owners_of(rng, 36, 3))


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("members", [1, 4])
def test_batches_of_many_chunks(members, n_jobs):
    case, rng = large_case(np.float64, members), np.random.default_rng(0)
    optimizer = make_plans(rng, "adamw", case.network, max_grad_norm=1.0, weight_decay=0.1)
    args = case.params(rng), case.data(rng, 1500, weighted=True), rng.permutation(1500), 1100
    check_epoch("cython", case.network, *args, optimizer, owners_of(rng, 1500, 2), n_jobs)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_large_weights(n_jobs):
    """They are kept in other forms, too, which each update renews."""
    rng = np.random.default_rng(0)
    network = make_network((30, 410, 400, 3), activations="relu", dropout=0.2)
    optimizer = make_plans(rng, "adam", network, planned=False)
    args = make_params(rng, network), make_data(rng, network, 120), rng.permutation(120), 50
    check_epoch("cython", network, *args, optimizer, owners_of(rng, 120, 2), n_jobs)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_loss_and_grad(engine, weighted):
    """Of three ranks one has no row."""
    engine, rng = backends.get(engine), np.random.default_rng(1)
    network = make_network((5, 6, 3), activations="tanh")
    data, params = make_data(rng, network, 20, weighted), make_params(rng, network)
    grad, owners = np.empty_like(params), rng.choice([0, 2], 20)
    loss = engine.loss_and_grad(engine.workspace(network, 20), params, data, 0.3, grad, 0.1)

    def evaluate(communicator):
        mine = np.empty_like(params)
        args = params, local(data, np.flatnonzero(owners == communicator.rank)), 0.3, mine, 0.1
        return engine.loss_and_grad(engine.workspace(network, 20), *args, Shared(communicator.allreduce)), mine

    for its_loss, its_grad in on_threads(evaluate, 3, timeout=20):
        assert_near(its_loss, loss)
        assert_near(its_grad, grad)


# --- what ends a call -------------------------------------------------------------------------------------------------


@pytest.fixture(params=ENGINES)
def call(request):
    """A call that has all rows of each batch: (engine, network, data, function of `shared` that trains)."""
    engine, rng = backends.get(request.param), np.random.default_rng(2)
    network = make_network((4, 5, 2))
    data, order = make_data(rng, network, 12, weighted=True), np.arange(12)
    workspace, params = engine.workspace(network, 4, 2), make_params(rng, network)
    optimizer = make_plans(rng, "adam", network, planned=False)

    def train(shared, data=data):
        mine, steps = params.copy(), optimizer.copy()
        try:
            engine.train_epoch(workspace, mine, data, order, 4, 0.1, steps, shared=shared)
        except Exception as error:
            return error, mine, steps.t - optimizer.t
        return None, mine, steps.t - optimizer.t

    return engine, network, data, train


STARTS, PLACES = np.array([0, 4, 8, 12]), np.arange(12) % 4


def fails_after(n):
    """A sum over ranks that breaks down after so many steps."""
    calls = []

    def reduce(vector):
        calls.append(len(vector))
        if len(calls) > n:
            raise ConnectionError("the line is dead")

    return reduce


def test_what_reduce_raises_ends_the_call(call):
    """The steps done are kept, and the workspace serves another call."""
    train = call[-1]
    error, params, n_steps = train(Shared(fails_after(2), 12, STARTS, PLACES))
    assert isinstance(error, ConnectionError)
    assert n_steps == 2
    error, whole, n_steps = train(Shared(lambda vector: None, 12, STARTS, PLACES))
    assert error is None
    assert n_steps == 3
    assert_near(whole, train(None)[1])
    assert 0 < np.abs(whole - params).max() < np.inf


def test_reduce_gets_sums(call):
    engine, network, data, train = call
    seen = []
    train(Shared(lambda vector: seen.append(vector.copy()), 12, STARTS, PLACES))
    np.testing.assert_allclose([vector[-1] for vector in seen], data.sample_weight.reshape(3, 4).sum(axis=1))
    grad = np.empty(network.n_params)
    first = Data(data.X[:4], data.y[:4], data.sample_weight[:4])
    params = train(Shared(fails_after(0), 12, STARTS, PLACES))[1]  # those to begin with
    loss = engine.loss_and_grad(engine.workspace(network, 4), params, first, 0.0, grad)
    padded = seen[0][:-2]  # no entry of the gradient is 0
    assert len(padded) >= network.n_params
    np.testing.assert_allclose(padded[padded != 0], grad * seen[0][-1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(seen[0][-2], loss * seen[0][-1])


def test_sums_lie_in_the_memory_that_is_given(call):
    """The same object each time, from the first step on; then the engine goes on without."""
    train, given, seen = call[-1], [], []

    def memory(n, dtype):
        if not given:
            given.append(aligned(n, dtype))
        return given[0]

    shared = Shared(seen.append, 12, STARTS, PLACES)
    expected = train(shared)
    seen.clear()
    error, params, n_steps = train(shared._replace(memory=memory))
    assert error is None
    assert n_steps == len(seen) == 3
    assert all(vector is given[0] for vector in seen)
    assert np.array_equal(params, expected[1])
    for without in (shared, shared._replace(memory=lambda n, dtype: None)):
        given[0][...] = np.nan
        seen.clear()
        assert np.array_equal(train(without)[1], expected[1])
        assert len(seen) == 3
        assert all(vector is not given[0] for vector in seen)
        assert np.isnan(given[0]).all()


def test_a_full_gradient_lies_in_the_memory_that_is_given(call):
    engine, network, data, _ = call
    given, seen, grads, losses = [], [], [], []

    def memory(n, dtype):
        given.append(aligned(n, dtype))
        return given[-1]

    workspace, params = engine.workspace(network, 4), make_params(np.random.default_rng(0), network)
    for shared in (None, Shared(seen.append, memory=memory), Shared(seen.append, memory=memory)):
        grads.append(np.empty(network.n_params))
        losses.append(engine.loss_and_grad(workspace, params, data, 0.1, grads[-1], 0.0, shared))
    assert [vector is one for vector, one in zip(seen, given, strict=True)] == [True, True]
    for grad in grads[1:]:
        assert_near(grad, grads[0])
    assert_near(np.array(losses), np.full(3, losses[0]))


def no_memory(n, dtype):
    raise ValueError("no memory")


@pytest.mark.parametrize(
    "message, memory",
    {
        r"shared\.memory must be a function or None, got int": 3,
        r"shared\.memory must have shape \(\d+,\)": lambda n, dtype: aligned(n + 1, dtype),
        r"shared\.memory must .*float64": lambda n, dtype: aligned(n, np.dtype(np.float32)),
        r"shared\.memory must be C-contiguous": lambda n, dtype: np.zeros(2 * n)[::2],
        r"shared\.memory must .*writ": lambda n, dtype: np.frombuffer(bytes(8 * n)),
        r"shared\.memory must be a.*array": lambda n, dtype: [0.0] * n,
        r"shared\.memory must return memory that is 64-byte aligned": lambda n, dtype: aligned(n + 1, dtype)[1:],
        "no memory": no_memory,
    }.items(),
)
def test_bad_memory(call, message, memory):
    """It ends the call before the first step, and the workspace serves another one."""
    train, shared = call[-1], Shared(lambda vector: None, 12, STARTS, PLACES)
    error, _, n_steps = train(shared._replace(memory=memory))
    assert isinstance(error, ValueError)
    assert n_steps == 0
    with pytest.raises(ValueError, match=message):
        raise error
    assert train(shared)[0] is None


def test_a_step_without_weight(call):
    _, _, data, train = call
    weight = data.sample_weight.copy()
    weight[4:8] = 0
    error, params, n_steps = train(Shared(lambda vector: None, 12, STARTS, PLACES), data._replace(sample_weight=weight))
    assert isinstance(error, ZeroDivisionError)
    assert n_steps == 1
    expected = train(None, data._replace(sample_weight=weight))
    assert_near(params, expected[1])


@pytest.mark.parametrize(
    "message, wrong",
    {
        r"shared\.reduce must be a function": {"reduce": None},
        r"shared\.n_rows must be at least 1, got 0": {"n_rows": 0},
        r"shared\.starts must have shape \(4,\)|shared\.starts": {"starts": STARTS[:-1]},
        r"shared\.starts must not decrease": {"starts": np.array([0, 8, 4, 12])},
        r"shared\.starts must not decrease, and lead from 0 to the 12 rows": {"starts": np.array([0, 4, 8, 11])},
        r"shared\.places": {"places": PLACES[:-1]},
        r"shared\.starts must": {"starts": STARTS.astype(np.int32)},
    }.items(),
)
def test_bad_arguments(call, message, wrong):
    train = call[-1]
    error, _, n_steps = train(Shared(lambda vector: None, 12, STARTS, PLACES)._replace(**wrong))
    assert isinstance(error, ValueError)
    assert n_steps == 0
    with pytest.raises(ValueError, match=message):
        raise error


@pytest.mark.parametrize("engine", ENGINES)
def test_batch_norm_is_refused(engine):
    engine, rng = backends.get(engine), np.random.default_rng(0)
    network = make_network((3, 4, 2), batch_norm=True)
    data, optimizer = make_data(rng, network, 12), make_plans(rng, "sgd", network, planned=False)
    shared = Shared(lambda vector: None, 12, STARTS, PLACES)
    args = make_params(rng, network), data, np.arange(12), 4, 0.0, optimizer
    with pytest.raises(ValueError, match="shared must be None for a network with batch_norm"):
        engine.train_epoch(engine.workspace(network, 4), *args, shared=shared)


def test_several_epochs_in_one_call_are_refused(call):
    engine, network, data, _ = call
    optimizer, shared = make_plans(np.random.default_rng(0), "sgd", network), Shared(lambda vector: None, 12)
    args = np.zeros(network.n_params), data, np.zeros((2, 12), np.intp), 4, 0.0, optimizer
    with pytest.raises(ValueError, match="losses must be None with shared"):
        engine.train_epoch(engine.workspace(network, 4), *args, losses=np.empty(2), shared=shared)


@pytest.mark.parametrize("engine", sorted({*backends.available()} - {*ENGINES}))
def test_other_engines_refuse(engine):
    name, engine, rng = engine, backends.get(engine), np.random.default_rng(0)
    network = make_network((3, 4, 2))
    data, params, shared = make_data(rng, network, 12), make_params(rng, network), Shared(lambda vector: None, 12)
    optimizer, workspace = make_plans(rng, "sgd", network, planned=False), engine.workspace(network, 4)
    with pytest.raises(ValueError, match=f"backend='{name}' has no steps that several processes take together"):
        engine.train_epoch(workspace, params, data, np.arange(12), 4, 0.0, optimizer, shared=shared)
    with pytest.raises(ValueError, match=f"backend='{name}' has no steps that several processes take together"):
        engine.loss_and_grad(workspace, params, data, 0.0, np.empty_like(params), 0.0, shared)
