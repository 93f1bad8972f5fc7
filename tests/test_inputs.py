"""The reference's feature blocks, members and plans before judges that share nothing with it.

Differences of the loss, formulas of a block written out for one number, networks without members put together by hand,
the packages ``tabm`` and ``rtdl_num_embeddings``. PyTorch twins are in test_tabular_twins.py, the other engines in
test_tabular_engines.py.
"""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from fastmlp.engines import backends
from fastmlp.kernels import contract, formulas
from fastmlp.kernels.contract import Data
from fastmlp.kernels.feature_table import KINDS, Block
from fastmlp.model.network import Network

from helpers import Steps, dropout_mask, make_targets, name_of, seeds
from tabular_networks import ENGINES, Case, Plans, cases, large_case, make_plans


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """Each engine that has every feature."""
    return backends.get(request.param)


def call_loss(engine, network, params, data, alpha=0.0, grad=None, l1=0.0):
    """Return the loss; ``grad`` (OUT)."""
    grad = np.empty_like(params) if grad is None else grad
    return engine.loss_and_grad(engine.workspace(network, len(data.y)), params, data, alpha, grad, l1)


def call_predict(engine, network, params, X):
    """Return the predictions for all rows."""
    width = network.widths[-1] * (1 if network.average else network.members)
    out = np.empty((len(X), width), network.dtype)
    engine.predict(engine.workspace(network, 8), params, X, out)
    return out


# ------------------------------------------------------------------------------- gradients against differences

#: Those whose derivatives of any order are continuous: differences of fourth order need four.
SMOOTH = ("identity", "tanh", "logistic", "gelu", "silu", "mish", "softplus")
SMOOTH_LOSSES = ("log_loss", ("log_loss", {"label_smoothing": 0.1}), "squared_error", "poisson", "log_cosh", "focal")
STEP = 1e-3


def assert_gradient(network, grad, value, params):
    """The gradient along a random direction of each segment is the central difference of fourth order."""
    mean = formulas.LOSSES[name_of(network.loss)].mean_over_outputs  # of outputs: the gradient is that of their sum
    rng = np.random.default_rng(0)
    for segment in network.segments:
        if segment.trained:
            direction = np.zeros_like(params)
            direction[segment.where] = rng.normal(size=segment.size) / np.sqrt(segment.size)
            f = [value(params + k * STEP * direction) for k in (-2, -1, 1, 2)]
            expected = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * STEP) * (network.widths[-1] if mean else 1)
            got, length = grad @ direction, np.linalg.norm(grad[segment.where])
            assert abs(got - expected) <= 1e-6 * length + 1e-9, f"{segment}: {got}, differences give {expected}"


def small_cases(**options):
    return cases(np.float64, 7, 2, 4, activations=SMOOTH, losses=SMOOTH_LOSSES, **options)


@given(case=small_cases(drops=False), n=st.integers(1, 6), weighted=st.booleans(), seed=seeds)
def test_gradient_of_a_loss(engine, case, n, weighted, seed):
    rng = np.random.default_rng(seed)
    network, params, data = case.network, case.params(rng), case.data(rng, n, weighted=weighted)
    grad = np.empty_like(params)
    call_loss(engine, network, params, data, grad=grad)
    assert_gradient(network, grad, lambda p: call_loss(engine, network, p, data), params)


@given(case=small_cases(), n=st.integers(4, 8), weighted=st.booleans(), seed=seeds)
def test_gradient_of_a_training_step(engine, case, n, weighted, seed):
    """A step of sgd is the gradient of the loss that it reports, with dropout and normalisation over the batch."""
    rng = np.random.default_rng(seed)
    network, params, data = case.network, case.params(rng), case.data(rng, n, weighted=weighted)

    def train(p, lr):
        p = p.copy()
        optimizer = Plans("sgd", [], 3, learning_rates=np.array([lr]), dropout_factors=np.array([0.7]))
        return engine.train_epoch(engine.workspace(network, n), p, data, np.arange(n), n, 0.0, optimizer, seed=9), p

    _, after = train(params, 1.0)
    assert_gradient(network, params - after, lambda p: train(p, 0.0)[0], params)


@pytest.mark.parametrize("members", [1, 4])
def test_gradient_of_all_blocks_together(engine, members):
    case = large_case(np.float64, members)
    network = replace(case.network, activations=("mish", "tanh"), dropout=())
    rng = np.random.default_rng(0)
    params, data = case._replace(network=network).params(rng), case.data(rng, 12, weighted=True)
    grad = np.empty_like(params)
    call_loss(engine, network, params, data, 0.3, grad)
    assert_gradient(network, grad, lambda p: call_loss(engine, network, p, data, 0.3), params)


def test_penalties_are_of_weights_alone(engine):
    """Alpha and l1 act on every W, heads among them, and are divided by the rows' weights, not by virtual rows'."""
    case = large_case(np.float64, 4)
    network, rng = replace(case.network, dropout=()), np.random.default_rng(0)
    params, data = case.params(rng), case.data(rng, 6, weighted=True)
    plain, penalised = np.empty_like(params), np.empty_like(params)
    without = call_loss(engine, network, params, data, 0.0, plain)
    value = call_loss(engine, network, params, data, 0.3, penalised, 0.2)
    W, total = params[: network.n_weights], data.sample_weight.sum()
    assert value - without == pytest.approx((0.15 * W @ W + 0.2 * np.abs(W).sum()) / total)
    expected = np.zeros_like(params)
    expected[: network.n_weights] = (0.3 * W + 0.2 * np.sign(W)) / total
    np.testing.assert_allclose(penalised - plain, expected, atol=1e-14)


# ------------------------------------------------------------------------------- one block, number by number


def identity_of(*inputs, **options):
    """Return a network that predicts a0."""
    width = sum(block.width for block in inputs)
    return Network((width, width), (), "squared_error", np.dtype("float64"), inputs, **options)


def features(engine, inputs, X, arrays):
    """Return a0 as the engine computes it; ``arrays``: {name: values} of the first block."""
    network = identity_of(*inputs)
    params = np.zeros(network.n_params)
    network.coefs(params)[0][...] = np.eye(network.widths[0])
    for name, values in arrays.items():
        network.input_segments[0][name].view(params)[...] = values
    return call_predict(engine, network, params, np.asarray(X, dtype=float))


def test_plain_columns(engine):
    X = np.arange(12.0).reshape(3, 4)
    inputs = Block("plain", (2, 0)), Block("plain", (3, 2))
    np.testing.assert_array_equal(features(engine, inputs, X, {}), X[:, [2, 0, 3, 2]])


def test_periodic_by_hand(engine):
    block = Block("periodic", (1,), 2, (), 2)
    arrays = {
        "periodic_frequency": [[0.25, 1.0]],
        "periodic_phase": [[0.0, np.pi / 2]],
        "periodic_weight": [[1.0, 10.0, 2.0, 0.0]],  # what the first number takes of both waves, then the second
        "periodic_bias": [[100.0, 200.0]],
    }
    got = features(engine, (block,), [[np.nan, 0.0], [np.nan, 1.0], [np.nan, 0.75]], arrays)
    # waves: cos(pi x / 2), cos(2 pi x + pi / 2)
    first, second = np.cos(np.pi * np.array([0, 0.5, 0.375])), [0, 0, 1.0]
    expected = np.stack([first + 10 * np.array(second) + 100, 2 * first + 200], axis=1)
    np.testing.assert_allclose(got, expected, atol=1e-13)


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (-0.5, -0.5 * 1),  # below the first knot the first bin goes on
        (0.0, 0.0),
        (0.25, 0.25 * 1),
        (1.0, 1.0),
        (1.5, 1 + 0.5 * 10),
        (2.75, 11 + 0.75 * 100),
        (3.0, 111.0),
        (4.0, 11 + 2 * 100),  # and above the last one the last
    ],
)
def test_piecewise_by_hand(engine, t, expected):
    block = Block("piecewise", (0, 1), 1, (3,))
    arrays = {"piecewise_weight": 1000, "piecewise_bias": 1e6, "piecewise_bins": [[1], [10], [100]]}
    got = features(engine, (block,), [[2.0, t]], arrays)
    assert got[0, 0] == pytest.approx(2000 + 1e6 + expected, abs=1e-8)


def test_one_bin_has_no_bounds(engine):
    block = Block("piecewise", (0, 1), 1, (1,))
    got = features(engine, (block,), [[0, -3.0], [0, 0.5], [0, 9.0]], {"piecewise_bins": [[2.0]]})
    assert got.ravel().tolist() == [-6, 1, 18]


def test_embeddings_of_two_columns(engine):
    block = Block("embedding", (2, 0), 2, (3, 2))
    table = np.arange(10.0).reshape(5, 2)
    got = features(engine, (block,), [[1, 9, 0], [0, 9, 2]], {"embedding": table})
    np.testing.assert_array_equal(got, [[*table[0], *table[4]], [*table[2], *table[3]]])


@pytest.mark.parametrize("code", [-1, 3, 1.5, np.nan, np.inf, -np.inf, 2.0**40])
@pytest.mark.parametrize("call", ["predict", "loss_and_grad", "train_epoch"])
def test_codes_are_checked_before_anything_is_written(engine, call, code):
    network = identity_of(Block("embedding", (1,), 2, (3,)))
    rng = np.random.default_rng(0)
    params, X = rng.normal(size=network.n_params), np.array([[0.0, 1.0], [0.0, code], [0.0, 2.0]])
    y, before, grad, out = rng.normal(size=(3, 2)), params.copy(), np.full_like(params, 7), np.full((3, 2), 7.0)
    workspace = engine.workspace(network, 3)
    with pytest.raises(ValueError, match=r"X\[:, 1\] must hold whole numbers in \[0, 3\), .*got"):
        {
            "predict": lambda: engine.predict(workspace, params, X, out),
            "loss_and_grad": lambda: engine.loss_and_grad(workspace, params, Data(X, y), 0.0, grad),
            "train_epoch": lambda: engine.train_epoch(
                workspace, params, Data(X, y), np.array([0, 2, 1]), 1, 0.0, Steps("sgd", [])
            ),
        }[call]()
    np.testing.assert_array_equal(params, before)
    assert (grad == 7).all()
    assert (out == 7).all()
    engine.predict(workspace, params, X, out[:2], np.array([0, 2]))  # what is not read does not matter


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_stays_in_its_row(engine, kind):
    inputs = {
        "plain": Block("plain", (0,)),
        "periodic": Block("periodic", (0,), 2, (), 3),
        "piecewise": Block("piecewise", (0, 1), 2, (4,)),
        "embedding": Block("embedding", (1,), 2, (4,)),
    }[kind]
    network = replace(identity_of(inputs), input_scale=True)
    params = np.random.default_rng(0).normal(size=network.n_params)
    X, out = np.ones((3, network.n_columns)), np.empty((3, network.widths[-1]))
    assert engine.predict(engine.workspace(network, 3), params, X, out) is True
    good = out.copy()
    X[1, 0] = np.nan
    assert engine.predict(engine.workspace(network, 3), params, X, out) is False
    np.testing.assert_array_equal(out[[0, 2]], good[[0, 2]])
    assert np.isnan(out[1]).all() == (kind != "embedding")


def test_place_that_is_not_finite(engine):
    block = Block("piecewise", (0, 1), 1, (3,))
    got = features(engine, (block,), [[0, np.nan], [0, np.inf], [0, -np.inf]], {"piecewise_bins": [[1], [1], [2.0]]})
    np.testing.assert_array_equal(got.ravel(), [np.nan, np.inf, -np.inf])


# ------------------------------------------------------------------------------- members


def members_one_by_one(case, params):
    """Return a (network, params) without members for each member."""
    network, found = case.network, []
    plain = replace(network, members=1, batch_ensemble=False)
    last = network.n_layers - 1
    ours = {(segment.name, segment.layer): segment for segment in network.segments}
    for i in range(network.members):
        own = np.empty(plain.n_params)
        for segment in plain.segments:
            values = ours[segment.name, segment.layer].view(params)
            own_biases = segment.name == "b" and (network.batch_ensemble or segment.layer == last)
            if segment.name == "input_scale" or own_biases or (segment.name, segment.layer) == ("W", last):
                values = values[i]
            elif network.batch_ensemble and segment.name == "W":
                values = values * ours["member_out", segment.layer].view(params)[i]
                if segment.layer > 0:
                    values = values * ours["member_in", segment.layer].view(params)[i][:, None]
            segment.view(own)[...] = values
        found.append((plain, own))
    return found


@pytest.mark.parametrize("batch_ensemble", [False, True])
@pytest.mark.parametrize("loss", ["log_loss", "squared_error", ("log_loss", {"label_smoothing": 0.2})])
def test_members_are_networks(engine, batch_ensemble, loss):
    """Loss: the mean of their losses; predictions: the mean of theirs, or the logits of each."""
    case = large_case(np.float64, 3)
    network = replace(case.network, batch_ensemble=batch_ensemble, loss=loss, dropout=())
    case, rng = Case(network, case.columns), np.random.default_rng(1)
    params, data = case.params(rng), case.data(rng, 9, weighted=True)
    singles = members_one_by_one(case, params)
    expected = np.mean([call_predict(engine, *single, data.X) for single in singles], axis=0)
    np.testing.assert_allclose(call_predict(engine, network, params, data.X), expected, rtol=1e-12)
    logits = [call_predict(engine, replace(net, loss="squared_error"), own, data.X) for net, own in singles]
    got = call_predict(engine, replace(network, average=False), params, data.X)
    np.testing.assert_allclose(got, np.concatenate(logits, axis=1), rtol=1e-11, atol=1e-13)
    losses = [call_loss(engine, *single, data) for single in singles]
    assert call_loss(engine, network, params, data) == pytest.approx(np.mean(losses), rel=1e-12)


def test_masks_of_members_differ(engine):
    """A row's mask is that of its virtual row r k + i: with identical members the predictions still differ."""
    network = Network((2, 3, 1), ("identity",), "squared_error", np.dtype("float64"), (), True, 2, dropout=0.5)
    params = np.ones(network.n_params)
    for b in network.intercepts(params):
        b[...] = 0
    X, y = np.full((5, 2), 0.5), np.zeros((5, 1))
    kept = dropout_mask(11, 6, 1, 0.5 * 0.5, 10, 3) / 0.75  # seed, step, layer, rate
    expected = np.mean(kept.sum(axis=1) ** 2 / 2)
    optimizer = Plans("sgd", [], 6, dropout_factors=np.array([0.5]))
    value = engine.train_epoch(
        engine.workspace(network, 5), params, Data(X, y), np.arange(5), 5, 0.0, optimizer, seed=11
    )
    assert value == pytest.approx(expected)


def test_input_dropout_is_the_same_for_all_members(engine):
    """Columns of X are dropped before members part: the mask has a row for each row of the batch."""
    network = Network((2, 1), (), "squared_error", np.dtype("float64"), (), True, 3, input_dropout=0.4)
    params = np.ones(network.n_params)
    network.intercepts(params)[0][...] = 0
    X, y = np.ones((6, 2)), np.zeros((6, 1))
    kept = dropout_mask(11, 0, 0, 0.4, 6, 2) / 0.6
    workspace, optimizer = engine.workspace(network, 6), Steps("sgd", [])
    value = engine.train_epoch(workspace, params, Data(X, y), np.arange(6), 6, 0.0, optimizer, seed=11)
    assert value == pytest.approx(np.mean(kept.sum(axis=1) ** 2 / 2))


# ------------------------------------------------------------------------------- plans of the optimizer


def test_factors_of_each_segment(engine):
    """One step with factors is, in each segment, one with that segment's scalars everywhere."""
    case = large_case(np.float64, 2)
    rng = np.random.default_rng(0)
    data, start = case.data(rng, 8), case.params(rng)
    plans = make_plans(rng, "adamw", case.network, weight_decay=0.1)

    def step(factors, decay_factors):
        params, own = start.copy(), plans.copy()
        own.factors, own.decay_factors = factors, decay_factors
        engine.train_epoch(engine.workspace(case.network, 8), params, data, np.arange(8), 8, 0.0, own)
        return params

    got = step(plans.factors, plans.decay_factors)
    for i, segment in enumerate(case.network.segments):
        everywhere = np.tile(plans.factors[i], (len(plans.factors), 1))
        alone = step(everywhere, np.full(len(plans.factors), plans.decay_factors[i]))
        np.testing.assert_allclose(got[segment.where], alone[segment.where], rtol=1e-13)
    np.testing.assert_allclose(step(np.ones_like(plans.factors), None), step(None, None), rtol=1e-14)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"factors": np.ones((3, 5))}, "optimizer.factors"),
        ({"factors": np.ones((99, 5), np.float32)}, "optimizer.factors"),
        ({"decay_factors": np.ones(3)}, "optimizer.decay_factors"),
        ({"dropout_factors": np.array([1.5])}, "optimizer.dropouts"),
        ({"dropout_factors": np.array([-0.1])}, "optimizer.dropouts"),
        ({"dropout_factors": np.array([np.nan])}, "optimizer.dropouts"),
        ({"dropout_factors": np.array([1])}, "optimizer.dropouts"),
    ],
    ids=str,
)
def test_plans_that_make_no_sense(engine, plan, words):
    case, rng = large_case(np.float64, 1), np.random.default_rng(0)
    optimizer = replace(make_plans(rng, "adamw", case.network, planned=False), **plan)
    params = case.params(rng)
    before, workspace = params.copy(), engine.workspace(case.network, 4)
    with pytest.raises(ValueError, match=words):
        engine.train_epoch(workspace, params, case.data(rng, 4), np.arange(4), 4, 0.0, optimizer)
    np.testing.assert_array_equal(params, before)


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("options", [{"inputs": (Block("plain", (0, 1)),)}, {"input_scale": True}], ids=str)
def test_sparse_rows_are_refused(engine, options):
    network = Network((2, 2), (), "squared_error", np.dtype("float64"), **options)
    params, X = np.zeros(network.n_params), sp.csr_array(np.eye(2))
    data, workspace = Data(X, np.zeros((2, 2))), engine.workspace(network, 2)
    with pytest.raises(ValueError, match="X must be dense"):
        engine.predict(workspace, params, X, np.empty((2, 2)))
    with pytest.raises(ValueError, match="X must be dense"):
        engine.loss_and_grad(workspace, params, data, 0.0, np.empty_like(params))
    with pytest.raises(ValueError, match="X must be dense"):
        engine.train_epoch(workspace, params, data, np.arange(2), 2, 0.0, Steps("sgd", []))


def test_columns_are_counted(engine):
    network = identity_of(Block("embedding", (3,), 2, (3,)), Block("plain", (0,)))
    params = np.zeros(network.n_params)
    with pytest.raises(ValueError, match=r"X must have .*4.* got .*3"):
        engine.predict(engine.workspace(network, 2), params, np.zeros((2, 3)), np.empty((2, 3)))


FEATURES = {
    "inputs": {"inputs": (Block("plain", (0, 1)),)},
    "input_scale": {"input_scale": True},
    "members": {"members": 2, "input_scale": True},
    "parametric_activations": {"parametric_activations": True},
}
LACKING = [name for name in backends.available() if name not in contract.COMPLETE]


def test_every_feature_of_a_network_is_here():
    assert FEATURES.keys() == contract.NETWORK_FEATURES.keys()


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("name", LACKING)
def test_other_engines_name_those_that_can(name, feature):
    network = Network((2, 3, 2), ("tanh",), "log_loss", np.dtype("float64"), **FEATURES[feature])
    words = f"backend='{name}' has no .*{feature}.*: use backend='cython' or 'reference'"
    with pytest.raises(ValueError, match=words):
        backends.get(name).workspace(network, 4)


@pytest.mark.parametrize("plan", ["factors", "decay_factors", "dropouts"])
@pytest.mark.parametrize("name", LACKING)
def test_other_engines_refuse_plans(name, plan):
    network = Network((2, 3, 2), ("tanh",), "log_loss", np.dtype("float64"))
    params, rng = np.zeros(network.n_params), np.random.default_rng(0)
    planned = make_plans(rng, "sgd", network)
    field = "dropout_factors" if plan == "dropouts" else plan
    optimizer = Plans("sgd", [], **{field: getattr(planned, field)})
    engine = backends.get(name)
    data = Data(np.zeros((4, 2)), make_targets(rng, "log_loss", 4, 2, np.float64))
    with pytest.raises(ValueError, match=f"backend='{name}' has no {plan}: use backend='cython' or 'reference'"):
        engine.train_epoch(engine.workspace(network, 4), params, data, np.arange(4), 4, 0.0, optimizer)
    assert not params.any()
