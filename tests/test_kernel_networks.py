"""Every engine against the reference: the coarse calls (predict, loss_and_grad, train_epoch) on whole networks.

Formulas, layers, losses and updates one by one are in test_kernels.py.  Names of activations, losses and rules come
from the formula tables: a new row is tested without an edit here.  Tolerances come from helpers.assert_close.
"""

import threading

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given, reject
from hypothesis import strategies as st

from fastmlp.kernels import reference

from helpers import (
    DIFFERENTIABLE,
    HIDDEN,
    LAYOUTS,
    LOSSES,
    RULES,
    Steps,
    assert_close,
    each_with_one_of_the_other,
    make_data,
    make_network,
    make_optimizer,
    make_params,
    relative_error,
    rows,
    seeds,
)

# overflow and NaN are what many of these tests are about
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def engine(engine_on_every_isa):
    return engine_on_every_isa


@st.composite
def networks(draw, max_width=130, max_hidden=3):
    """(widths, activations, loss): an empty hidden list, width 1 and odd widths among them."""
    sizes = st.integers(1, max_width)
    hidden = draw(st.lists(sizes, max_size=max_hidden))
    activations = [draw(st.sampled_from(HIDDEN)) for _ in hidden]
    return (draw(sizes), *hidden, draw(sizes)), tuple(activations), draw(st.sampled_from(LOSSES))


kinds = st.sampled_from(sorted(LAYOUTS))
jobs = st.sampled_from([None, 1, 2, -1])


def reduction_length(network, n):
    """Terms of all the sums that lie between the parameters and their gradient."""
    return sum(network.widths) + n


def check_predict(engine, network, params, X, batch_size, rows=None, n_jobs=None):
    n = X.shape[0] if rows is None else len(rows)
    out = np.empty((n, network.widths[-1]), network.dtype)
    expected = out.copy()
    engine.predict(engine.workspace(network, batch_size, n_jobs), params, X, out, rows)
    reference.predict(reference.workspace(network, batch_size), params, X, expected, rows)
    scale = max(1, np.abs(expected).max(initial=0))
    assert_close(out, expected, terms=reduction_length(network, 0), scale=scale, what="prediction")


@given(spec=networks(), n=rows, kind=kinds, n_jobs=jobs, seed=seeds, data=st.data())
def test_predict(engine, dtype, spec, n, kind, n_jobs, seed, data):
    network = make_network(spec[0], spec[2], spec[1], dtype)
    rng = np.random.default_rng(seed)
    params, X = make_params(rng, network, 0.5), make_data(rng, network, n, kind=kind).X
    rows = data.draw(st.none() | st.integers(0, 60).map(lambda m: rng.integers(0, n, m)))
    batch_size = data.draw(st.integers(1, 50))
    check_predict(engine, network, params, X, batch_size, rows, n_jobs)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_predict_tells_whether_rows_are_finite(engine, dtype, kind, bad):
    network = make_network((5, 7, 2), "log_loss", "relu", dtype)
    rng = np.random.default_rng(0)
    params, X = make_params(rng, network, 0.5), make_data(rng, network, 600, kind=kind).X
    values = X.data if sp.issparse(X) else X
    if not values.flags.writeable:
        X = X.copy()
        values = X.data if sp.issparse(X) else X
    out, rows = np.empty((600, 2), dtype), np.arange(0, 600, 2)
    workspace = engine.workspace(network, 600)
    assert engine.predict(workspace, params, X, out) is True
    row = int(np.searchsorted(X.indptr, X.indptr[-1]) - 1) // 2 * 2 + 1 if sp.issparse(X) else 401
    if sp.issparse(X):
        while X.indptr[row] == X.indptr[row + 1]:
            row -= 2
        values[X.indptr[row]] = bad
    else:
        values[row, 3] = bad
    assert engine.predict(workspace, params, X, out) is False
    # a row that is not asked for does not count
    assert engine.predict(workspace, params, X, out[:300], rows) is True
    assert engine.predict(workspace, params, X, out[:1], np.array([row])) is False


def check_loss_and_grad(engine, network, params, data, alpha, n_jobs=None, workspace=None):
    n = data.X.shape[0]
    grad, expected_grad = np.empty_like(params), np.empty_like(params)
    workspace = workspace or engine.workspace(network, n, n_jobs)
    value = engine.loss_and_grad(workspace, params, data, alpha, grad)
    expected = reference.loss_and_grad(reference.workspace(network, n), params, data, alpha, expected_grad)
    terms = reduction_length(network, n)
    assert isinstance(value, float)
    magnitude = max(1, abs(expected))
    assert_close(value, expected, dtype=network.dtype, terms=terms, scale=magnitude, what="loss")
    scale = np.abs(expected_grad).max()
    assert_close(grad, expected_grad, terms=terms, scale=scale, what="grad")


@given(
    spec=networks(),
    n=rows,
    kind=kinds,
    weighted=st.booleans(),
    alpha=st.sampled_from([0.0, 0.3]),
    n_jobs=jobs,
    seed=seeds,
)
@example(((1, 1), (), "squared_error"), 1, "C", False, 0.3, None, 0)
@example(((130, 129, 127, 17), ("relu", "tanh"), "log_loss"), 40, "C", True, 0.3, 2, 0)
def test_loss_and_grad(engine, dtype, spec, n, kind, weighted, alpha, n_jobs, seed):
    network = make_network(spec[0], spec[2], spec[1], dtype)
    rng = np.random.default_rng(seed)
    params, data = make_params(rng, network, 0.5), make_data(rng, network, n, weighted, kind)
    check_loss_and_grad(engine, network, params, data, alpha, n_jobs)


def check_train_epoch(engine, network, params, data, order, batch_size, alpha, optimizer, **jobs):
    """Parameters, states, loss and step count after one epoch."""
    results = []
    for backend in (engine, reference):
        own, steps = params.copy(), optimizer.copy()
        workspace = backend.workspace(network, batch_size, **jobs)
        value = backend.train_epoch(workspace, own, data, order, batch_size, alpha, steps)
        results.append((value, own, steps))
    (value, got, mine), (expected, expected_params, theirs) = results
    scale = np.abs(expected_params).max()
    if not (scale < 10 and expected < 100):
        reject()  # it diverges: each step multiplies the rounding errors of all before
    steps = -(-len(order) // batch_size)
    assert mine.t == theirs.t == optimizer.t + steps
    assert isinstance(value, float)
    terms = reduction_length(network, min(batch_size, len(order))) * steps
    magnitude = max(1, abs(expected))
    assert_close(value, expected, dtype=network.dtype, terms=terms, scale=magnitude, what="loss")
    assert_close(got, expected_params, terms=terms, scale=scale, what="params")
    for a, b in zip(mine.states, theirs.states, strict=True):
        assert_close(a, b, terms=terms, scale=np.abs(b).max(), what="state")
    moved = np.abs(expected_params - params).max()
    noise = relative_error(network.dtype, terms) * scale
    assert moved > 10 * noise, "the parameters did not move: the case shows nothing"


@pytest.mark.parametrize("rule", RULES)
@given(
    spec=networks(max_width=33, max_hidden=2),
    n=st.integers(1, 24),
    kind=kinds,
    weighted=st.booleans(),
    n_jobs=jobs,
    seed=seeds,
    data=st.data(),
)
def test_train_epoch(engine, dtype, rule, spec, n, kind, weighted, n_jobs, seed, data):
    """Rows in any order, some twice and some never; a ragged last batch, or one batch for all."""
    network = make_network(spec[0], spec[2], spec[1], dtype)
    rng = np.random.default_rng(seed)
    params = make_params(rng, network, 0.5)
    table = make_data(rng, network, n, kind=kind)
    if weighted:  # none is zero: a batch of such rows only could not be normalised
        table = table._replace(sample_weight=rng.uniform(0.1, 3, n).astype(dtype))
    order = rng.integers(0, n, data.draw(st.integers(1, 30)))
    batch_size = data.draw(st.integers(1, 40))
    optimizer = make_optimizer(rng, rule, len(params), dtype)
    check_train_epoch(engine, network, params, table, order, batch_size, 0.1, optimizer, n_jobs=n_jobs)


# 1500 rows cross the chunks in which rows are visited, 700 x 600 is a product for BLAS; weights of 300 x 250 and more
# lie in panels, whose last ones differ with the width, and so do the deltas of 1100 rows
LARGE_NETWORKS = {
    "many rows": ((20, 31, 5), 1500),
    "many rows, one layer": ((20, 5), 1500),
    "wide": ((700, 600, 3), 130),
    "wide, few rows": ((700, 600, 600), 3),
    "wide output": ((5, 9, 700), 70),
    "panels": ((300, 250, 261, 290, 3), 130),
    "panels, many rows": ((600, 500, 610, 3), 1100),
}


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize(
    ("case", "kind"),
    [*((case, "C") for case in LARGE_NETWORKS), ("many rows", "F"), ("many rows", "csr int32")],
)
def test_large_networks(engine, dtype, case, kind, n_jobs):
    widths, n = LARGE_NETWORKS[case]
    network = make_network(widths, "log_loss", "tanh", dtype)
    rng = np.random.default_rng(0)
    params, data = make_params(rng, network), make_data(rng, network, n, True, kind)
    data.sample_weight[:] += dtype(0.1)
    check_predict(engine, network, params, data.X, n, n_jobs=n_jobs)
    check_loss_and_grad(engine, network, params, data, 0.1, n_jobs)
    optimizer = make_optimizer(rng, "adam", len(params), dtype)
    for batch_size in {n, min(n, 100)}:  # one batch for all; several, the last one ragged
        order = rng.permutation(n)
        check_train_epoch(engine, network, params, data, order, batch_size, 0.1, optimizer, n_jobs=n_jobs)


def test_batch_size_beyond_any_memory(engine, dtype):
    """A batch is never larger than the data, so nothing need be allocated for one that is."""
    rng = np.random.default_rng(0)
    network = make_network((3, 4, 2), dtype=dtype)
    params, data = make_params(rng, network), make_data(rng, network, 5)
    workspace, optimizer = engine.workspace(network, 5), Steps("sgd", [])
    engine.train_epoch(workspace, params, data, np.arange(5), 2**60, 0.0, optimizer)
    assert optimizer.t == 1
    try:
        workspace = engine.workspace(network, 2**60)
    except (MemoryError, ValueError, OverflowError):
        return
    engine.predict(workspace, params, data.X, np.empty((5, 2), dtype))


@pytest.mark.parametrize("loss", LOSSES)
def test_network_of_zeros(engine, dtype, loss):
    network = make_network((4, 3, 2), loss, HIDDEN[-1], dtype)
    rng = np.random.default_rng(0)
    params, data = np.zeros(network.n_params, dtype), make_data(rng, network, 6)
    check_predict(engine, network, params, data.X, 6)
    check_loss_and_grad(engine, network, params, data, 0.1)


@pytest.mark.parametrize("scale", [1e4, -1e4])
@pytest.mark.parametrize("loss", ["log_loss", "binary_log_loss", "squared_error"])
def test_network_with_extreme_logits(engine, dtype, loss, scale):
    network = make_network((4, 3, 2), loss, "tanh", dtype)
    rng = np.random.default_rng(0)
    params, data = make_params(rng, network), make_data(rng, network, 6)
    params[-2:] = [scale, -scale]  # the biases of the output
    check_predict(engine, network, params, data.X, 6)
    check_loss_and_grad(engine, network, params, data, 0.0)


@pytest.mark.covers("loss", "activation", "engine dtype poison")
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("loss", "activation"), each_with_one_of_the_other(LOSSES, HIDDEN))
def test_poisoned_rows_and_parameters(engine, dtype, loss, activation, poison):
    """What is not finite is not hidden, and stays in its row."""
    network = make_network((5, 9, 3), loss, activation, dtype)
    rng = np.random.default_rng(0)
    params, data = make_params(rng, network), make_data(rng, network, 7)
    workspace, grad = engine.workspace(network, 7), np.empty_like(params)
    good, bad = np.empty((7, 3), dtype), np.empty((7, 3), dtype)
    engine.predict(workspace, params, data.X, good)
    X = data.X.copy()
    X[4, 2] = poison
    engine.predict(workspace, params, X, bad)
    np.testing.assert_array_equal(np.delete(bad, 4, axis=0), np.delete(good, 4, axis=0))
    check_predict(engine, network, params, X, 7)
    if not np.isnan(poison):
        return
    assert np.isnan(bad[4]).all()
    assert np.isnan(engine.loss_and_grad(workspace, params, data._replace(X=X), 0.1, grad))
    assert np.isnan(network.intercepts(grad)[-1]).all()  # the biases of the output
    params[0] = poison  # W0[0, 0]: every row passes through it
    assert np.isnan(engine.loss_and_grad(workspace, params, data, 0.1, grad))
    assert np.isnan(network.intercepts(grad)[-1]).all()
    engine.predict(workspace, params, data.X, bad)
    assert np.isnan(bad).all()


def test_training_on_poison_spoils_the_parameters(engine, dtype):
    """A fit that diverges must be seen to diverge."""
    network = make_network((5, 9, 3), dtype=dtype)
    rng = np.random.default_rng(0)
    for rule in RULES:
        params, data = make_params(rng, network), make_data(rng, network, 7)
        data.X[3, 1] = np.nan
        optimizer = make_optimizer(rng, rule, len(params), dtype)
        workspace = engine.workspace(network, 4)
        value = engine.train_epoch(workspace, params, data, np.arange(7), 4, 0.0, optimizer)
        assert np.isnan(value)
        assert not np.isfinite(params[-3:]).any()


def test_workspace_keeps_nothing_of_the_last_call(engine, dtype):
    """Larger and smaller data, other parameters, training between predictions: one workspace."""
    network = make_network((5, 17, 3), "log_loss", "relu", dtype)
    rng = np.random.default_rng(0)
    workspace = engine.workspace(network, 8)
    for n in (8, 3, 20, 1, 9):
        params, data = make_params(rng, network), make_data(rng, network, n)
        check_loss_and_grad(engine, network, params, data, 0.1, workspace=workspace)
        engine.train_epoch(
            workspace,
            params,
            data,
            rng.permutation(n),
            8,
            0.1,
            make_optimizer(rng, "sgd", 0, dtype),
        )
        out, expected = np.empty((n, 3), dtype), np.empty((n, 3), dtype)
        engine.predict(workspace, params, data.X, out)
        reference.predict(reference.workspace(network, 8), params, data.X, expected)
        assert_close(out, expected, terms=25, scale=1)
        params[:] = -params  # in place: the same memory, other weights
        engine.predict(workspace, params, data.X, out)
        reference.predict(reference.workspace(network, 8), params, data.X, expected)
        assert_close(out, expected, terms=25, scale=1)


POISONED = [{}, {"batch_norm": True}, {"batch_norm": "after"}, {"dropout": (0.3,), "input_dropout": 0.2}]


@pytest.mark.parametrize("regularizers", POISONED, ids=str)
def test_workspace_recovers_from_poison(engine, dtype, regularizers):
    """Not even the padding remembers an epoch that ended in NaN."""
    network = make_network((5, 9, 3), activations="silu", dtype=dtype, **regularizers)
    rng = np.random.default_rng(0)
    params, data = make_params(rng, network), make_data(rng, network, 12)
    poisoned = data._replace(X=np.where(np.arange(5) == 2, np.nan, data.X).astype(dtype))
    order = np.arange(12, dtype=np.intp)

    def train(workspace, samples):
        trained, optimizer = params.copy(), make_optimizer(np.random.default_rng(1), "adam", len(params), dtype)
        optimizer.max_grad_norm = 0.1
        return engine.train_epoch(workspace, trained, samples, order, 5, 0.1, optimizer), trained

    spoilt = engine.workspace(network, 5)
    loss, trained = train(spoilt, poisoned)
    assert np.isnan(loss)
    assert np.isnan(trained).any()
    loss, trained = train(spoilt, data)
    expected_loss, expected = train(engine.workspace(network, 5), data)
    assert loss == expected_loss
    np.testing.assert_array_equal(trained, expected)


def test_two_workspaces_in_two_threads(engine, dtype):
    """Calls release the GIL: what they write to must be their own."""
    network = make_network((30, 40, 5), dtype=dtype)
    rng = np.random.default_rng(0)
    data = make_data(rng, network, 400)
    starts = [make_params(rng, network) for _ in range(4)]

    def train(params):
        optimizer = Steps("sgd", [])
        workspace = engine.workspace(network, 16, 1)
        for _ in range(5):
            engine.train_epoch(workspace, params, data, np.arange(400), 16, 0.0, optimizer)
        return params

    alone = [train(params.copy()) for params in starts]
    together = [params.copy() for params in starts]
    threads = [threading.Thread(target=train, args=(params,)) for params in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_that_sum_to_zero(engine, dtype):
    network = make_network((3, 4, 2), dtype=dtype)
    rng = np.random.default_rng(0)
    params, data = make_params(rng, network), make_data(rng, network, 6)
    data = data._replace(sample_weight=np.array([1, 1, 0, 0, 1, 1], dtype))
    workspace, optimizer = engine.workspace(network, 2), Steps("sgd", [])
    with pytest.raises(ZeroDivisionError, match="Weights sum to zero, can't be normalized"):
        engine.train_epoch(workspace, params, data, np.arange(6), 2, 0.0, optimizer)
    assert np.isfinite(params).all()
    data = data._replace(sample_weight=np.zeros(6, dtype))
    with pytest.raises(ZeroDivisionError, match="Weights sum to zero, can't be normalized"):
        engine.loss_and_grad(workspace, params, data, 0.0, np.empty_like(params))


# ------------------------------------------------------------------------------- finite differences


@pytest.mark.covers("loss", "activation", "engine hidden")
@pytest.mark.parametrize(
    ("loss", "activation", "hidden"),
    [
        *((loss, "tanh", hidden) for loss in LOSSES for hidden in ((), (4,), (5, 3))),
        *(("log_loss", activation, (5, 3)) for activation in DIFFERENTIABLE if activation != "tanh"),
    ],
)
def test_gradient_by_finite_differences(engine, loss, activation, hidden):
    """The engine's gradient against the engine's own loss: no reference in between.

    Losses and hidden activations are separate stages: each has its turn, with one of the other kind.
    """
    rng = np.random.default_rng(3)
    network = make_network((6, *hidden, 3), loss, activation)
    params, data = make_params(rng, network), make_data(rng, network, 9, weighted=True)
    workspace = engine.workspace(network, 9)
    grad, unused = np.empty_like(params), np.empty_like(params)
    engine.loss_and_grad(workspace, params, data, 0.0, grad)

    def value(p):
        return engine.loss_and_grad(workspace, p, data, 0.0, unused)

    h = 1e-5 * np.eye(len(params))
    differences = np.array([(value(params + e) - value(params - e)) / 2e-5 for e in h])
    if loss == "squared_error":
        differences *= 3  # the loss is a mean over the outputs, the gradient that of their sum
    np.testing.assert_allclose(grad, differences, atol=2e-8 * max(1, np.abs(grad).max()))
