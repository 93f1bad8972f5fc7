"""Random slopes of rrelu: their definition, their distribution, and where the mean slope stands in for them."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.kernels import reference

from helpers import Steps, dropout_mask, make_data, make_network, make_params

SEED = 0x9E3779B97F4A7C15
LOWER, UPPER = 0.1, 0.5
RRELU = ("rrelu", {"lower": LOWER, "upper": UPPER})
MEAN = ("leaky_relu", {"negative_slope": (LOWER + UPPER) / 2})


@pytest.fixture(scope="module", params=backends.available())
def engine(request):
    """Each engine, the reference among them."""
    return backends.get(request.param)


class Gradient(Steps):
    """Steps of sgd with a learning rate of 1."""

    def scalars(self, n_steps):
        return np.ones((n_steps, 1))


def slopes(engine, n, width, activation=RRELU, z=-1.0, t=0, dtype=np.float64, n_jobs=None, **options):
    """The slopes that a step draws, (n, width): the gradient of the output weights, where each output reads a row."""
    network = make_network((1, width, n), "squared_error", activation, dtype, **options)
    params = np.zeros(network.n_params, dtype)
    network.intercepts(params)[0][:] = z
    data = Data(np.ones((n, 1), dtype), -np.eye(n, dtype=dtype))
    workspace = engine.workspace(network, n, n_jobs)
    engine.train_epoch(workspace, params, data, np.arange(n), n, 0.0, Gradient("sgd", [], t), 0.0, SEED)
    return -n * network.coefs(params)[-1].T / z


def shares(drawn):
    return (drawn - LOWER) / (UPPER - LOWER)


# ------------------------------------------------------------------------------- the definition


def test_bits_of_slopes_are_those_of_masks_of_another_layer(engine):
    """A neuron that dropout of the rate p would drop in layer 2^15 + l has a share of [lower, upper] below p."""
    found = shares(slopes(engine, 7, 29, t=3))
    for rate in (0.2, 0.5, 0.7):
        np.testing.assert_array_equal(found >= rate, dropout_mask(SEED, 3, 2**15, rate, 7, 29) != 0)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slopes_do_not_depend_on_threads_or_engine(engine, dtype, n_jobs):
    found = slopes(engine, 300, 70, dtype=dtype, n_jobs=n_jobs)
    np.testing.assert_allclose(found, slopes(reference, 300, 70), rtol=2e3 * np.finfo(dtype).eps)


def test_positive_numbers_are_left_alone(engine):
    np.testing.assert_allclose(slopes(engine, 20, 30, z=2.0), 1, rtol=1e-14)


def test_slopes_are_independent_of_dropout(engine):
    found = slopes(engine, 64, 64, dropout=(0.5,))
    kept = found != 0
    np.testing.assert_allclose(found[kept] / 2, slopes(engine, 64, 64)[kept], rtol=1e-12)
    assert stats.kstest(shares(found[kept] / 2), "uniform").pvalue > 1e-3


# ------------------------------------------------------------------------------- the distribution


def test_slopes_are_uniform_and_independent():
    drawn = np.stack([shares(slopes(reference, 64, 64, t=t)) for t in range(10)])
    assert drawn.min() > 0 and drawn.max() < 1
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    for axis in range(3):  # steps, rows, units: neighbours have nothing in common
        here, there = np.take(drawn, range(9), axis), np.take(drawn, range(1, 10), axis)
        assert stats.pearsonr(here.ravel(), there.ravel()).pvalue > 1e-3


def test_slopes_are_distributed_as_those_of_pytorch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = -torch.nn.RReLU().train()(-torch.ones(64, 64, dtype=torch.float64)).numpy()
    ours = slopes(reference, 64, 64, "rrelu")
    assert stats.ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1e-3


# ------------------------------------------------------------------------------- gradients


def test_step_of_the_reference_is_a_gradient_at_fixed_slopes():
    """Finite differences of the loss of one step: its seed and number fix the slopes."""
    network = make_network((4, 6, 5, 2), "squared_error", RRELU, np.float64)
    rng = np.random.default_rng(0)
    params, data = make_params(rng, network), make_data(rng, network, 9)

    def step(params):
        moved = params.copy()
        args = reference.workspace(network, 9), moved, data, np.arange(9), 9, 0.0, Gradient("sgd", [], 5)
        return reference.train_epoch(*args, 0.0, SEED), params - moved

    # the loss is a mean over the 2 outputs, the gradient that of their sum
    _, gradient = step(params)
    expected = np.array([2 * (step(params + d)[0] - step(params - d)[0]) / 2e-6 for d in 1e-6 * np.eye(len(params))])
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


def test_gradient_alone_and_prediction_have_the_mean_slope(engine):
    network = make_network((4, 6, 3), "log_loss", RRELU, np.float64)
    mean, rng = replace(network, activations=(MEAN,)), np.random.default_rng(0)
    params, data, found = make_params(rng, network), make_data(rng, network, 9), []
    for one in (network, mean):
        workspace, grad, out = engine.workspace(one, 9), np.empty_like(params), np.empty((9, 3))
        engine.predict(workspace, params, data.X, out)
        found.append((engine.loss_and_grad(workspace, params, data, 0.1, grad), *grad, *out.ravel()))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


# ------------------------------------------------------------------------------- estimators

X = np.random.default_rng(0).normal(size=(60, 5))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
SMALL = {"hidden_layer_sizes": (8, 7), "max_iter": 4, "random_state": 0, "tol": 0}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("backend", backends.available())
def test_fits_are_those_of_the_reference(backend):
    one, other = (MLPClassifier(activation="rrelu", backend=name, **SMALL).fit(X, Y) for name in (backend, "reference"))
    for W, expected in zip(one.coefs_, other.coefs_, strict=True):
        np.testing.assert_allclose(W, expected, rtol=1e-9)
    with_mean = MLPClassifier(activation=("leaky_relu", {"negative_slope": (1 / 8 + 1 / 3) / 2}), **SMALL).fit(X, Y)
    assert np.abs(one.coefs_[0] - with_mean.coefs_[0]).max() > 1e-4


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("batch_norm", [False, True])
def test_loss_and_gradients_have_the_mean_slope(batch_norm):
    model = MLPClassifier(activation=RRELU, batch_norm=batch_norm, **SMALL).fit(X, Y)
    found = model.loss_and_gradients(X, Y)
    expected = model.set_params(activation=MEAN).loss_and_gradients(X, Y)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)
    np.testing.assert_allclose(found.coefs[0], expected.coefs[0], rtol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_training_in_two_parts_draws_on():
    """Passing a fitted estimator through pickle changes nothing of the slopes to come."""
    whole, parts = (MLPRegressor(activation="rrelu", **SMALL) for _ in range(2))
    for _ in range(3):
        whole.partial_fit(X, X[:, 0])
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X, X[:, 0])))
    np.testing.assert_array_equal(whole.coefs_[0], parts.coefs_[0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lower": 0.5}, "lower must be less than upper"),
        ({"lower": 0.3, "upper": 0.3}, "lower must be less than upper"),
        ({"lower": -0.1}, r"lower must be in \[0, inf\)"),
        ({"upper": np.inf}, "upper"),
        ({"upper": np.nan}, "upper"),
        ({"slope": 0.1}, "slope"),
    ],
)
def test_wrong_bounds(parameters, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(activation=("rrelu", parameters)).fit(X, Y)


@pytest.mark.parametrize("activation", ["rrelu", RRELU, ["tanh", "rrelu"], [RRELU, "tanh"]])
def test_lbfgs_refuses_it(activation):
    with pytest.raises(ValueError, match=r"activation=.*'lbfgs': its slopes are drawn anew"):
        MLPClassifier((8, 7), activation, solver="lbfgs").fit(X, Y)


def test_parametric_activations_refuse_it():
    with pytest.raises(ValueError, match="parametric_activations are not for 'rrelu'"):
        make_network((4, 6, 3), "log_loss", "rrelu", np.float64, parametric_activations=True)
