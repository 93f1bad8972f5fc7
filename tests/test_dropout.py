"""Dropout: which units are dropped, by their definition and by statistics; and where nothing may be dropped.

The masks are read out of an engine's training steps: where nothing but the bias of a unit reaches
it and the outputs pick out one row each, the gradient of the output weights is the mask.
"""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.kernels import reference

from helpers import Steps, dropout_mask, make_data, make_network, make_params

SEED = 0x9E3779B97F4A7C15


@pytest.fixture(scope="module", params=backends.available())
def engine(request):
    """Each engine, the reference among them."""
    return backends.get(request.param)


class Gradient(Steps):
    """One step of sgd with lr = 1."""

    def scalars(self, n_steps):
        return np.ones((n_steps, 1))


def factors(engine, rate, n, width, layer=1, seed=SEED, t=0, dtype=np.float64, n_jobs=None, container=np.asarray):
    """What an engine multiplies the units of one layer by, (n, width); layer 0 is the input."""
    if layer == 0:
        widths, regularizer = (width, n), {"input_dropout": rate}
    else:  # the layers in front have one unit, and drop nothing
        widths, regularizer = (1,) * layer + (width, n), {"dropout": (0.0,) * (layer - 1) + (rate,)}
    network = make_network(widths, "squared_error", "identity", dtype, **regularizer)
    params = np.zeros(network.n_params, dtype)
    if layer > 0:
        network.intercepts(params)[-2][:] = 1  # every unit of the layer gives 1
    X = container(np.ones((n, widths[0]), dtype))
    data = Data(X, -np.eye(n, dtype=dtype))  # output k of row i: 1 where k = i
    workspace = engine.workspace(network, n, n_jobs)
    engine.train_epoch(workspace, params, data, np.arange(n), n, 0.0, Gradient("sgd", [], t), 0.0, seed)
    return -n * network.coefs(params)[-1].T


# ------------------------------------------------------------------------------- the definition


@pytest.mark.parametrize("t", [0, 1, 12345, 2**40])
@pytest.mark.parametrize("seed", [0, 1, SEED, 2**64 - 1])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_masks_are_those_of_the_definition(engine, layer, seed, t):
    got = factors(engine, 0.4, 7, 29, layer, seed, t)
    np.testing.assert_allclose(got, dropout_mask(seed, t, layer, 0.4, 7, 29) / 0.6, rtol=1e-14)


def test_definition_by_a_known_number():
    """A change of the hash is a change of everybody's results."""
    kept = dropout_mask(SEED, 3, 2, 0.5, 4, 8)
    bits = ["".join("01"[k] for k in row) for row in kept.tolist()]
    assert bits == ["11000111", "00111000", "00010001", "01101010"]


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
@pytest.mark.parametrize(("n", "width"), [(300, 70), (3, 700), (1, 1)])
def test_masks_do_not_depend_on_threads_or_sizes(engine, n, width, n_jobs):
    for dtype in (np.float32, np.float64):
        got = factors(engine, 0.25, n, width, t=9, dtype=dtype, n_jobs=n_jobs)
        expected = dropout_mask(SEED, 9, 1, 0.25, n, width)
        np.testing.assert_allclose(got, expected / 0.75, rtol=4 * np.finfo(dtype).eps * n)


def test_masks_of_sparse_rows_are_those_of_dense_rows(engine):
    dense = factors(engine, 0.4, 9, 33, layer=0)
    np.testing.assert_array_equal(factors(engine, 0.4, 9, 33, layer=0, container=sp.csr_array), dense)


@pytest.mark.parametrize("rate", [1e-9, 1e-6, 0.999, 1 - 1e-6])
def test_extreme_rates(engine, rate):
    """There are 2^24 rates: one that is nearest to 0 is none."""
    got = factors(engine, rate, 20, 50)
    kept = dropout_mask(SEED, 0, 1, rate, 20, 50)
    np.testing.assert_allclose(got, kept / (1 - rate if rate > 2**-25 else 1), rtol=1e-13)


# ------------------------------------------------------------------------------- statistics

ROWS, WIDTH, N_STEPS = 64, 64, 50
RATES = [0.1, 0.5, 0.8]


@pytest.fixture(scope="module", params=RATES)
def sample(request):
    """-> (rate, kept): 0 or 1 of shape (steps, rows, units)."""
    rate = request.param
    return rate, np.stack([factors(reference, rate, ROWS, WIDTH, t=t) for t in range(N_STEPS)]) > 0


def is_plausible(z):
    """A standard normal variable beyond 4.5 has probability 7e-6; the seeds are fixed."""
    return np.abs(z) < 4.5


def correlation(a, b):
    """Correlation of two samples of independent coin flips, as a standard normal variable."""
    a, b = np.ravel(a) - np.mean(a), np.ravel(b) - np.mean(b)
    return np.sqrt(a.size) * (a @ b) / np.sqrt((a @ a) * (b @ b))


def test_rate(sample):
    """Overall, and of every unit, every row and every step."""
    rate, kept = sample
    for axes in [(0, 1, 2), (0, 1), (0, 2), (1, 2)]:
        n = np.prod([kept.shape[axis] for axis in axes])
        z = (kept.mean(axis=axes) - (1 - rate)) / np.sqrt(rate * (1 - rate) / n)
        assert is_plausible(z).all()
        if np.size(z) > 1:  # they vary as much as they should
            assert 1e-4 < stats.chi2.sf(np.sum(z**2), np.size(z)) < 1 - 1e-4


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 16, 31])
def test_units_rows_and_steps_are_independent(sample, lag):
    _, kept = sample
    for axis in range(3):
        if lag < kept.shape[axis]:
            here = np.take(kept, range(kept.shape[axis] - lag), axis)
            there = np.take(kept, range(lag, kept.shape[axis]), axis)
            assert is_plausible(correlation(here, there)), f"axis {axis}"


@pytest.mark.parametrize("other", [{"layer": 2}, {"seed": SEED + 1}, {"seed": SEED ^ 2**63}, {"t": 2**16}])
def test_layers_and_seeds_are_independent(other):
    a = factors(reference, 0.5, 200, 200)
    b = factors(reference, 0.5, 200, 200, **other)
    assert is_plausible(correlation(a, b))


def test_runs_of_eight_units_are_uniform():
    """All 256 patterns of eight neighbouring units, equally often."""
    kept = np.concatenate([factors(reference, 0.5, 64, 512, t=t) > 0 for t in range(8)])
    patterns = np.packbits(kept.reshape(-1, 8), axis=1).ravel()
    assert 1e-4 < stats.chisquare(np.bincount(patterns, minlength=256)).pvalue < 1 - 1e-4


def test_expectation_is_preserved(sample):
    """On average a unit gives what it gives without dropout; what is kept is scaled by 1 / (1 - rate)."""
    rate, _ = sample
    got = np.stack([factors(reference, rate, ROWS, WIDTH, t=t) for t in range(N_STEPS)])
    np.testing.assert_allclose(np.unique(got), [0, 1 / (1 - rate)], rtol=1e-14)
    z = (got.mean() - 1) / np.sqrt(rate / (1 - rate) / got.size)
    assert is_plausible(z)


# ------------------------------------------------------------------------------- where nothing is dropped


def train(engine, network, params, data, seed=SEED):
    params = params.copy()
    engine.train_epoch(engine.workspace(network, 5), params, data, np.arange(20), 5, 0.1, Steps("sgd", []), 0.0, seed)
    return params


def test_same_seed_same_weights_other_seed_other_weights(engine):
    rng = np.random.default_rng(0)
    network = make_network((4, 9, 3), dropout=(0.5,))
    params, data = make_params(rng, network), make_data(rng, network, 20)
    once = train(engine, network, params, data)
    np.testing.assert_array_equal(train(engine, network, params, data), once)
    assert not np.array_equal(train(engine, network, params, data, SEED + 1), once)


def test_rate_zero_is_no_dropout(engine):
    rng = np.random.default_rng(0)
    plain, zero = make_network((4, 9, 3)), make_network((4, 9, 3), dropout=(0.0,), input_dropout=0.0)
    params, data = make_params(rng, plain), make_data(rng, plain, 20)
    np.testing.assert_array_equal(train(engine, zero, params, data), train(engine, plain, params, data))


def test_predictions_drop_nothing(engine):
    rng = np.random.default_rng(0)
    plain, dropping = make_network((4, 9, 3)), make_network((4, 9, 3), dropout=(0.5,), input_dropout=0.5)
    params, data = make_params(rng, plain), make_data(rng, plain, 20)
    results = []
    for network in (plain, dropping):
        out = np.empty((20, 3))
        engine.predict(engine.workspace(network, 20), params, data.X, out)
        results.append(out)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("regularizer", [{"dropout": (0.5,)}, {"input_dropout": 0.5}, {"batch_norm": True}], ids=str)
def test_the_gradient_of_all_rows_refuses(engine, regularizer):
    rng = np.random.default_rng(0)
    network = make_network((4, 9, 3), **regularizer)
    params, data = make_params(rng, network), make_data(rng, network, 20)
    with pytest.raises(ValueError, match=r"dropout|batch_norm"):
        engine.loss_and_grad(engine.workspace(network, 20), params, data, 0.0, np.empty_like(params))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_have_64_bits(engine, seed):
    rng = np.random.default_rng(0)
    network = make_network((4, 9, 3), dropout=(0.5,))
    params, data = make_params(rng, network), make_data(rng, network, 20)
    with pytest.raises(ValueError, match="seed"):
        train(engine, network, params, data, seed)
