"""First weights: Keras' formulas for bounds and variances, orthogonality, and functions of the user's."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from sklearn.utils import check_random_state

from fastmlp.model.initialization import BIASES, INITIALIZERS, initial_params, random_state_of
from fastmlp.model.network import Network

WIDTHS = (120, 300, 90, 90)
NETWORK = Network(WIDTHS, ("relu", "prelu"), "log_loss", np.dtype(np.float64), batch_norm=True)

# name -> variance of W (fan_in, fan_out), and whether draws are normal
VARIANCE = {
    "glorot_uniform": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), False),
    "glorot_normal": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), True),
    "he_uniform": (lambda fan_in, fan_out: 2 / fan_in, False),
    "he_normal": (lambda fan_in, fan_out: 2 / fan_in, True),
    "lecun_uniform": (lambda fan_in, fan_out: 1 / fan_in, False),
    "lecun_normal": (lambda fan_in, fan_out: 1 / fan_in, True),
    "pytorch": (lambda fan_in, fan_out: 1 / (3 * fan_in), False),
}


def draw(init, network=NETWORK, seed=0):
    return initial_params(network, init, np.random.RandomState(seed), gain=6.0)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, np.int64(7), np.uint8(255), True])
def test_seeds_are_those_of_scikit_learn(seed):
    ours, theirs = random_state_of(seed), check_random_state(seed)
    assert pickle.dumps(ours) == pickle.dumps(theirs)  # all that there is: the state, and no seed sequence
    np.testing.assert_array_equal(ours.randint(2**31, size=2000), theirs.randint(2**31, size=2000))


def test_other_sources_of_draws_are_as_given():
    given = np.random.RandomState(3)
    assert random_state_of(given) is given and random_state_of(None) is check_random_state(None)
    for wrong in (-1, 2**32, "seed", 0.5):
        with pytest.raises(ValueError) as theirs:
            check_random_state(wrong)
        with pytest.raises(ValueError) as ours:
            random_state_of(wrong)
        assert str(ours.value) == str(theirs.value)


def test_all_are_here():
    assert set(INITIALIZERS) == {"auto", "orthogonal", *VARIANCE}


@pytest.mark.parametrize("init", VARIANCE)
def test_variance(init):
    variance, normal = VARIANCE[init]
    for W in NETWORK.coefs(draw(init)):
        expected = variance(*W.shape)
        # four standard errors of a mean and of a variance; the kurtosis is 3 and 9/5
        error = 4 / np.sqrt(W.size)
        assert abs(W.mean()) < error * np.sqrt(expected)
        assert abs(W.var() / expected - 1) < error * np.sqrt(2 if normal else 0.8)
        bound = np.sqrt(3 * expected)
        if normal:
            assert 3.5 * np.sqrt(expected) < np.abs(W).max() < 7 * np.sqrt(expected)
        else:
            assert 0.999 * bound < np.abs(W).max() <= bound


def test_pytorch_draws_as_its_linear_layers():
    """Two samples of one distribution, of the weights and of the biases."""
    torch = pytest.importorskip("torch")
    network = Network((16, 400, 25), ("relu",), "squared_error", np.dtype(np.float64))
    params = draw("pytorch", network)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Linear(*shape) for shape in network.shapes]
    for layer, W, b in zip(layers, network.coefs(params), network.intercepts(params), strict=True):
        for ours, theirs in ((W, layer.weight), (b, layer.bias)):
            assert stats.ks_2samp(ours.ravel(), theirs.detach().numpy().ravel()).pvalue > 0.01
            assert np.abs(ours).max() <= W.shape[0] ** -0.5
            assert np.unique(ours).size == ours.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_orthogonal(dtype):
    params = draw("orthogonal", NETWORK.with_dtype(dtype))
    assert params.dtype == dtype
    for W in NETWORK.with_dtype(dtype).coefs(params):
        gram = W.T @ W if W.shape[0] >= W.shape[1] else W @ W.T
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=20 * np.finfo(dtype).eps)


def test_orthogonal_prefers_no_sign():
    """Without the correction by R's signs the diagonal of Q would be mostly negative."""
    network = Network((2, 2), (), "squared_error", np.dtype(np.float64))
    diagonal = np.array([network.coefs(draw("orthogonal", network, seed))[0][0, 0] for seed in range(400)])
    assert 150 < (diagonal > 0).sum() < 250


@pytest.mark.parametrize("init", sorted(set(INITIALIZERS) - {"auto", *BIASES}))
def test_biases_are_zero_and_units_are_new(init):
    params = draw(init)
    assert all((b == 0).all() for b in NETWORK.intercepts(params))
    auto = draw("auto")
    np.testing.assert_array_equal(params[NETWORK.n_linear :], auto[NETWORK.n_linear :])


def test_auto_is_scikit_learns():
    expected = NETWORK.initial_params(np.random.RandomState(0), gain=6.0)
    np.testing.assert_array_equal(draw("auto"), expected)
    assert (NETWORK.intercepts(expected)[0] != 0).any()


@pytest.mark.parametrize("init", INITIALIZERS)
def test_the_seed_decides(init):
    np.testing.assert_array_equal(draw(init, seed=1), draw(init, seed=1))
    assert (draw(init, seed=1) != draw(init, seed=2)).any()


def test_callable():
    calls = []

    def init(rng, fan_in, fan_out):
        calls.append((fan_in, fan_out))
        return rng.standard_normal((fan_in, fan_out)) if len(calls) == 1 else np.ones((fan_in, fan_out), int)

    params = draw(init)
    assert calls == list(pairwise(WIDTHS))
    np.testing.assert_array_equal(
        NETWORK.coefs(params)[0], np.random.RandomState(0).standard_normal((WIDTHS[0], WIDTHS[1]))
    )
    np.testing.assert_array_equal(NETWORK.coefs(params)[2], 1)


@pytest.mark.parametrize(
    "returned, words",
    [
        (np.zeros((300, 120)), r"returns for layer 0 must have shape \(120, 300\), got \(300, 120\)"),
        (0.0, r"must have shape \(120, 300\), got \(\)"),
        (None, r"must have shape \(120, 300\), got \(\)"),
        (np.full((120, 300), np.nan), "layer 0 must be finite in float64"),
        (np.full((120, 300), "0"), "layer 0 must hold numbers, got dtype <U1"),
        (np.zeros((120, 300), complex), "layer 0 must hold numbers, got dtype complex128"),
    ],
)
def test_a_callable_that_returns_no_weights(returned, words):
    with pytest.raises(ValueError, match=words):
        draw(lambda rng, fan_in, fan_out: returned)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_weights_that_overflow_float32():
    with pytest.raises(ValueError, match="must be finite in float32"):
        draw(lambda rng, fan_in, fan_out: np.full((fan_in, fan_out), 1e300), NETWORK.with_dtype(np.float32))


@pytest.mark.parametrize("init", ["xavier", "", None, 0.1, ("he_normal", {})])
def test_an_unknown_name_lists_the_valid_ones(init):
    with pytest.raises(ValueError, match=r"init=.* is unknown; valid are .*'auto'.*'orthogonal'"):
        draw(init)
