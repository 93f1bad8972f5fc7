"""The reference before its judges: scikit-learn's functions, SciPy, finite differences, textbooks.

Every engine is measured by kernels/reference.py; here the reference itself is measured by code that
shares nothing with it.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.special
from sklearn.neural_network import _base
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from fastmlp.backends import Data
from fastmlp.kernels import formulas, reference

from helpers import (
    ACTIVATIONS,
    DIFFERENTIABLE,
    DTYPES,
    HIDDEN,
    LAYOUTS,
    LOSSES,
    RULES,
    SCALARS,
    Steps,
    assert_close,
    make_data,
    make_network,
    make_optimizer,
    make_params,
    make_targets,
    make_weights,
    one_hot,
)

# ------------------------------------------------------------------------------- the tables


def test_the_reference_knows_every_row_of_the_formula_tables():
    assert set(reference.ACTIVATIONS) == set(formulas.ACTIVATIONS)
    assert set(reference.LOSSES) == set(formulas.LOSSES)
    assert set(reference.OPTIMIZERS) == set(formulas.OPTIMIZERS)
    for name, row in formulas.OPTIMIZERS.items():
        assert reference.OPTIMIZERS[name].states == tuple(row.states)
        assert reference.OPTIMIZERS[name].scalars == tuple(row.scalars)


def by_element(function, *arrays):
    """A formula of formulas.py, run as the Python that it is, for each element."""
    shaped = np.broadcast_arrays(*arrays)
    results = [function(*map(float, numbers)) for numbers in zip(*(a.ravel() for a in shaped), strict=True)]
    return np.array(results, dtype=float).reshape(shaped[0].shape)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_formulas(name):
    row = formulas.ACTIVATIONS[name]
    parameters = row.parameters.values()
    z = np.concatenate([np.linspace(-20, 20, 801), [-1e-9, 1e-9]])  # holds the kinks 0, 1, 3, 6
    a, slope = np.empty_like(z), np.empty_like(z)
    reference.activate(name, z, a)
    np.testing.assert_allclose(a, by_element(lambda z: row.value(z, *parameters), z), rtol=1e-13, atol=2e-15)
    if row.slope is not None:
        reference.slope(name, z, a, slope)
        expected = by_element(lambda z, a: row.slope(z, a, *parameters), z, a)
        np.testing.assert_allclose(slope, expected, rtol=1e-13, atol=2e-15)


@pytest.mark.parametrize("name", [name for name, row in formulas.LOSSES.items() if row.value is not None])
def test_losses_are_the_formulas(name):
    row = formulas.LOSSES[name]
    parameters = row.parameters.values()
    z = np.linspace(-30, 30, 241)[:, None]
    y = make_targets(np.random.default_rng(0), name, len(z), 1, np.float64)
    delta = np.empty_like(z)
    for i in range(len(z)):
        value = reference.loss(name, z[i : i + 1], y[i : i + 1], None, delta[i : i + 1])
        assert value == pytest.approx(row.value(y[i, 0], z[i, 0], *parameters), rel=1e-12, abs=1e-12)
    if row.delta is not None:
        np.testing.assert_allclose(
            delta, by_element(lambda y, z: row.delta(y, z, *parameters), y, z), rtol=1e-12, atol=1e-14
        )


@pytest.mark.parametrize("name", RULES)
def test_rules_are_the_formulas(name):
    rng = np.random.default_rng(0)
    optimizer = make_optimizer(rng, name, 30, np.float64)
    params, grad = rng.normal(size=30), rng.normal(size=30)
    scalars = optimizer.scalars(1)[0].tolist()
    rule, before = formulas.OPTIMIZERS[name].rule, [params.copy(), *(state.copy() for state in optimizer.states)]
    reference.update(name, params, grad, optimizer.states, scalars)
    for i in range(30):
        new = rule(before[0][i], grad[i], *(state[i] for state in before[1:]), *scalars)
        got = [array[i] for array in (params, *optimizer.states)]
        np.testing.assert_allclose(got, new if isinstance(new, tuple) else [new], rtol=1e-13, atol=1e-15)


# ------------------------------------------------------------------------------- textbooks


def test_textbook_softmax():
    p = np.empty((1, 3))
    reference.softmax(np.array([[0.9, 0.2, 0.4]]), p)
    np.testing.assert_allclose(p[0], [0.4754850, 0.2361188, 0.2883962], atol=5e-8)


@pytest.mark.parametrize(
    ("logits", "losses"),
    [((1, 4, 3), (3.34901, 0.349012, 1.34901)), ((1, 7, 3), (6.02058, 0.0205811, 4.02058))],
)
def test_textbook_cross_entropy(logits, losses):
    z = np.array([logits], dtype=float)
    delta = np.empty_like(z)
    for y, expected in enumerate(losses):
        value = reference.loss("log_loss", z, np.array([y], dtype=np.intp), None, delta)
        assert value == pytest.approx(expected, rel=5e-6)  # six digits are printed


def test_textbook_network_has_73_parameters():
    assert make_network((4, 5, 5, 3)).n_params == 4 * 5 + 5 + 5 * 5 + 5 + 5 * 3 + 3 == 73


def test_flat_vector_is_all_weights_then_all_biases():
    """A 2-1-1 network by hand: [W0 (2, 1) | W1 (1, 1) | b0 | b1]."""
    params = np.array([2.0, 3.0, 5.0, 7.0, 11.0])
    workspace = reference.workspace(make_network((2, 1, 1), "squared_error", "identity"), 1)
    out = np.empty((1, 1))
    reference.predict(workspace, params, np.array([[1.0, 10.0]]), out)
    assert out[0, 0] == (1 * 2 + 10 * 3 + 7) * 5 + 11


# ------------------------------------------------------------------------------- activations

SKLEARN_HIDDEN = sorted(set(HIDDEN) & set(_base.DERIVATIVES))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(set(reference.ACTIVATIONS) & set(_base.ACTIVATIONS)))
def test_activation_is_scikit_learns(name, dtype):
    z = np.linspace(-30, 30, 603, dtype=dtype).reshape(3, -1)
    a, expected = np.empty_like(z), z.copy()
    reference.activate(name, z, a)
    _base.ACTIVATIONS[name](expected)
    assert_close(a, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SKLEARN_HIDDEN)
def test_slope_is_scikit_learns(name, dtype):
    z = np.linspace(-30, 30, 603, dtype=dtype).reshape(3, -1)  # holds the kink of relu
    a, got, expected = np.empty_like(z), np.empty_like(z), np.ones_like(z)
    reference.activate(name, z, a)
    reference.slope(name, z, a, got)
    _base.DERIVATIVES[name](a, expected)
    assert_close(got, expected, scale=1)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_slope_is_the_derivative(name):
    z = np.linspace(-4, 4, 80)  # does not hold a kink: 0, 1, 3 or 6
    h = 1e-6
    f, _ = reference.ACTIVATIONS[name]
    slope = np.empty_like(z)
    reference.slope(name, z, f(z), slope)
    np.testing.assert_allclose(slope, (f(z + h) - f(z - h)) / (2 * h), atol=1e-8)


def test_logistic_is_scipys():
    z = np.linspace(-700, 700, 999)
    out = np.empty_like(z)
    reference.activate("logistic", z, out)
    assert_close(out, scipy.special.expit(z))


@pytest.mark.parametrize("name", HIDDEN)
def test_nan_passes_through_activation(name):
    out = np.empty(2)
    reference.activate(name, np.array([np.nan, 0.5]), out)
    assert np.isnan(out[0])
    assert np.isfinite(out[1])


#: Limits at -inf and inf.
LIMITS = {
    **dict.fromkeys(("relu", "gelu", "gelu_tanh", "silu", "mish", "softplus", "hardswish"), (0, np.inf)),
    **dict.fromkeys(("identity", "leaky_relu", "prelu"), (-np.inf, np.inf)),
    **dict.fromkeys(("logistic", "hardsigmoid", "step"), (0, 1)),
    **dict.fromkeys(("tanh", "softsign", "hardtanh"), (-1, 1)),
    **dict.fromkeys(("elu", "celu"), (-1, np.inf)),
    "selu": (-1.0507009873554805 * 1.6732632423543772, np.inf),
    "relu6": (0, 6),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LIMITS)
def test_activation_far_out(name, dtype):
    """Finite for every finite z, the limit for an infinite one, and a slope that is a number."""
    z = np.array([-np.inf, -1e30, -1e4, 1e4, 1e30, np.inf], dtype)
    a, slope = np.empty_like(z), np.empty_like(z)
    reference.activate(name, z, a)
    reference.slope(name, z, a, slope)
    assert np.isfinite(a[1:-1]).all()
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(a[[0, -1]], LIMITS[name], rtol=1e-6)


X2, W2, OUT = np.array([[-2.0, 0.5]]), np.eye(2), np.empty((1, 2))
TAKE_AN_ACTIVATION = {
    "activate": lambda f: reference.activate(f, X2, OUT),
    "slope": lambda f: reference.slope(f, X2, X2, OUT),
    "linear_forward": lambda f: reference.linear_forward(X2, W2, np.zeros(2), f, OUT),
    "linear_backward": lambda f: reference.linear_backward(X2, W2, 1 + 0 * X2, f, 0 * W2, np.empty(2), OUT, X2),
    "workspace": lambda f: reference.workspace(make_network((2, 2, 1), activations=[f]), 1),
}


@pytest.mark.parametrize("call", TAKE_AN_ACTIVATION)
def test_parameters_of_activations(call):
    """(name, parameters) wherever there is a name; what is not known is refused, whoever asks."""
    take = TAKE_AN_ACTIVATION[call]
    take(("leaky_relu", {"negative_slope": 0.25}))
    if call != "workspace":
        np.testing.assert_array_equal(OUT[0], [0.25, 1] if call in ("slope", "linear_backward") else [-0.5, 0.5])
    for wrong in ("leaky_relu", "tanh"):
        with pytest.raises(ValueError, match="'alpha'"):
            take((wrong, {"alpha": 0.5}))
    with pytest.raises(ValueError, match="activation"):
        take(("no such activation", {}))


def test_relu_is_flat_at_its_kink():
    slope = np.empty(3)
    reference.slope("relu", None, np.array([0.0, -0.0, 1e-300]), slope)
    assert slope.tolist() == [0, 0, 1]


# ------------------------------------------------------------------------------- losses


def sklearn_loss(name, logits, y, sample_weight):
    """-> (loss, delta) as scikit-learn's MLP computes them, from rounded probabilities."""
    link = {
        "log_loss": "softmax",
        "binary_log_loss": "logistic",
        "squared_error": "identity",
        "poisson": "exp",
    }[name]
    prediction = logits.copy()
    _base.ACTIVATIONS[link](prediction)
    delta = prediction - y
    if sample_weight is not None:
        delta *= sample_weight.reshape(-1, 1)
    return _base.LOSS_FUNCTIONS[name](y, prediction, sample_weight), delta


SKLEARN_LOSSES = sorted(set(LOSSES) & set(_base.LOSS_FUNCTIONS))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_outputs", [2, 5])
@pytest.mark.parametrize("name", SKLEARN_LOSSES)
def test_loss_is_scikit_learns(name, n_outputs, weighted, dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40, n_outputs)).astype(dtype)
    y = make_targets(rng, name, 40, n_outputs, dtype)
    w = make_weights(rng, 40, dtype) if weighted else None
    delta = np.empty_like(logits)
    value = reference.loss(name, logits, y, w, delta)
    expected, expected_delta = sklearn_loss(name, logits, one_hot(y, n_outputs, dtype), w)
    # terms of the losses are of the size of the targets and logits, at most 20 here; scikit-learn
    # takes the logarithm of a rounded 1 - p
    assert_close(value, expected, scale=20, dtype=dtype)
    assert_close(delta, expected_delta, scale=20, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["log_loss", "binary_log_loss"])
def test_log_losses_are_clipped_as_in_scikit_learn(name, dtype):
    """Certain and right, certain and wrong: the loss is that of p = 1 - eps and of p = eps."""
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype)
    y = {"log_loss": np.array([0, 0])}.get(name, np.array([[1, 0], [1, 0]], dtype=dtype))
    delta = np.empty_like(logits)
    for row in range(2):
        one = slice(row, row + 1)
        value = reference.loss(name, logits[one], y[one], None, delta[one])
        expected, _ = sklearn_loss(name, logits[one], one_hot(y, 2, dtype)[one], None)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(delta, [[0, 0], [-1, 1]])


def test_losses_of_one_binary_output_agree():
    """softmax over (0, z) is the logistic function of z."""
    rng = np.random.default_rng(1)
    z = rng.normal(0, 3, (20, 1))
    y = rng.integers(0, 2, 20).astype(np.intp)
    two = np.hstack([np.zeros_like(z), z])
    delta_one, delta_two = np.empty_like(z), np.empty_like(two)
    one = reference.loss("binary_log_loss", z, y[:, None].astype(float), None, delta_one)
    assert_close(reference.loss("log_loss", two, y, None, delta_two), one, terms=20, dtype=float)
    assert_close(delta_two[:, 1:], delta_one, scale=1)


def test_cross_entropy_keeps_its_digits_for_large_logits():
    """log(2) for two equal logits, however large: taken from the shifted logits."""
    for dtype in DTYPES:
        z = np.full((1, 2), 1e4, dtype=dtype)
        value = reference.loss("log_loss", z, np.array([1], dtype=np.intp), None, np.empty_like(z))
        assert_close(value, np.log(2), dtype=dtype)


def loss_of(name, logits, y, sample_weight=None):
    """-> (value, delta)"""
    delta = np.empty_like(logits)
    return reference.loss(name, logits, y, sample_weight, delta), delta


#: Two losses that are the same for some parameters, or for some targets.
SAME = {
    "focal without focus": (("focal", {"gamma": 0}), "log_loss", lambda y: y),
    "binary_focal without focus": (("binary_focal", {"gamma": 0}), "binary_log_loss", lambda y: y),
    "divergence of certainty": ("kl_divergence", "log_loss", lambda y: np.eye(3)[y]),
    "huber far out": (("huber", {"delta": 1e6}), "squared_error", lambda y: y),
    "median": (("quantile", {"quantile": 0.5}), "absolute_error", lambda y: y),
}


@pytest.mark.parametrize("case", SAME)
def test_losses_that_are_the_same(case):
    rng = np.random.default_rng(1)
    one, other, convert = SAME[case]
    logits = rng.normal(0, 3, (20, 3))
    y = make_targets(rng, other, 20, 3, float)
    value, delta = loss_of(one, logits, convert(y))
    expected, expected_delta = loss_of(other, logits, y)
    factor = {"squared_error": 3, "absolute_error": 0.5}.get(other, 1)  # a mean over the outputs; half of it
    np.testing.assert_allclose(value, expected * factor, rtol=1e-12)
    np.testing.assert_allclose(delta, expected_delta * (0.5 if other == "absolute_error" else 1), atol=1e-14)


def test_label_smoothing_mixes_with_the_uniform_distribution():
    """The loss of smoothed labels is that of a distribution, but for its entropy, which is constant."""
    rng = np.random.default_rng(1)
    logits, y = rng.normal(0, 3, (20, 4)), rng.integers(0, 4, 20)
    smooth = 0.8 * np.eye(4)[y] + 0.2 / 4
    value, delta = loss_of(("log_loss", {"label_smoothing": 0.2}), logits, y)
    expected, expected_delta = loss_of("kl_divergence", logits, smooth)
    np.testing.assert_allclose(value, expected + scipy.special.entr(smooth[0]).sum(), rtol=1e-12)
    np.testing.assert_allclose(delta, expected_delta, atol=1e-15)


def test_focal_of_two_outputs_is_binary_focal():
    rng = np.random.default_rng(1)
    z, y = rng.normal(0, 3, (20, 1)), rng.integers(0, 2, 20)
    value, delta = loss_of("focal", np.hstack([0 * z, z]), y)
    expected, expected_delta = loss_of("binary_focal", z, y[:, None].astype(float))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(delta[:, 1:], expected_delta, atol=1e-14)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*LOSSES, ("log_loss", {"label_smoothing": 0.1}), ("focal", {"gamma": 0.5})], ids=str)
def test_loss_of_large_logits_is_a_number(name, dtype):
    """At +-1e4; where the prediction is exp(z) it may be infinite, as the prediction is."""
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [-1e4, -1e4]], dtype)
    y = make_targets(np.random.default_rng(0), name, 4, 2, dtype)
    value, delta = loss_of(name, logits, y)
    assert not np.isnan(value)
    assert not np.isnan(delta).any()
    if name not in ("poisson", "gamma"):
        assert np.isfinite(value)
        assert np.isfinite(delta).all()


def test_parameters_of_losses():
    z, y = np.array([[0.0, 3.0]]), np.array([[2.0, 1.0]])
    value, delta = loss_of(("huber", {"delta": 0.5}), z, y)
    assert value == 0.5 * (2 - 0.25) + 0.5 * (2 - 0.25)
    assert delta.tolist() == [[-0.5, 0.5]]
    for wrong in ("huber", "squared_error"):
        with pytest.raises(ValueError, match="'gamma'"):
            loss_of((wrong, {"gamma": 0.5}), z, y)


def test_softmax_is_scipys():
    logits = np.random.default_rng(2).normal(0, 50, (30, 7))
    out = np.empty_like(logits)
    reference.softmax(logits, out)
    assert_close(out, scipy.special.softmax(logits, axis=1), terms=7)


def test_nan_logit_spoils_its_row_only():
    logits = np.array([[1.0, np.nan, 2.0], [1.0, 2.0, 3.0]])
    out, delta = np.empty_like(logits), np.empty_like(logits)
    reference.softmax(logits, out)
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()
    assert np.isnan(reference.loss("log_loss", logits, np.array([0, 0]), None, delta))
    assert np.isnan(delta[0]).all()
    assert np.isfinite(delta[1]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_weights_that_sum_to_zero(name):
    y = make_targets(np.random.default_rng(0), name, 3, 2, np.float64)
    with pytest.raises(ZeroDivisionError, match="Weights sum to zero, can't be normalized"):
        reference.loss(name, np.zeros((3, 2)), y, np.zeros(3), np.empty((3, 2)))


# ------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("kind", ["C", "csr int32"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hidden", [(), (4,), (5, 3)], ids=str)
@pytest.mark.parametrize(("loss", "activation"), [(loss, "tanh") for loss in LOSSES] + [("log_loss", "relu")])
def test_gradient_by_finite_differences(loss, activation, hidden, weighted, kind):
    """Shapes, weights and layouts; every activation with every loss: test_gradients.py."""
    rng = np.random.default_rng(3)
    network = make_network((6, *hidden, 3), loss, activation)
    params, data = make_params(rng, network), make_data(rng, network, 9, weighted, kind)
    workspace = reference.workspace(network, 9)
    grad, unused = np.empty_like(params), np.empty_like(params)
    reference.loss_and_grad(workspace, params, data, 0.0, grad)

    def value(p):
        return reference.loss_and_grad(workspace, p, data, 0.0, unused)

    h = 1e-5 * np.eye(len(params))
    differences = np.array([(value(params + e) - value(params - e)) / 2e-5 for e in h])
    if loss == "squared_error":
        differences *= 3  # the loss is a mean over the outputs, the gradient that of their sum
    np.testing.assert_allclose(grad, differences, atol=2e-8 * max(1, np.abs(grad).max()))


@pytest.mark.parametrize("weighted", [False, True])
def test_penalty_and_its_gradient(weighted):
    """(alpha/2 ||W||^2 + l1 ||W||_1) / sw_sum: of the weights, not of the biases."""
    rng = np.random.default_rng(4)
    network = make_network((4, 5, 2))
    params, data = make_params(rng, network), make_data(rng, network, 7, weighted)
    workspace = reference.workspace(network, 7)
    plain, penalised = np.empty_like(params), np.empty_like(params)
    params[3] = 0.0  # |w| has its kink there, and slope 0
    value = reference.loss_and_grad(workspace, params, data, 0.0, plain)
    with_penalty = reference.loss_and_grad(workspace, params, data, 0.3, penalised, 0.2)
    sw_sum = 7 if data.sample_weight is None else data.sample_weight.sum()
    W = np.where(np.arange(len(params)) < 4 * 5 + 5 * 2, params, 0)
    np.testing.assert_allclose(with_penalty - value, (0.15 * (W @ W) + 0.2 * np.abs(W).sum()) / sw_sum, rtol=1e-12)
    np.testing.assert_allclose(penalised - plain, (0.3 * W + 0.2 * np.sign(W)) / sw_sum, atol=1e-15)


@pytest.mark.parametrize("activation", HIDDEN)
def test_layer_by_layer_is_the_whole_gradient(activation):
    """linear_forward, loss, linear_backward: the kernels put together by hand."""
    rng = np.random.default_rng(5)
    network = make_network((4, 6, 3), "log_loss", activation)
    params, data = make_params(rng, network), make_data(rng, network, 8)
    params[network.n_linear :] = 0.25  # prelu's slope by default
    (W0, b0), (W1, b1) = reference._layers(network, params)
    a, z = np.empty((8, 6)), np.empty((8, 6))
    logits, delta = np.empty((8, 3)), np.empty((8, 3))
    reference.linear_forward(data.X, W0, b0, activation, a, z)
    reference.linear_forward(a, W1, b1, "identity", logits)
    value = reference.loss("log_loss", logits, data.y, None, delta)
    grad, below = np.empty_like(params), np.empty((8, 6))
    (gW0, gb0), (gW1, gb1) = reference._layers(network, grad)
    reference.linear_backward(a, W1, delta, activation, gW1, gb1, below, z)
    reference.linear_backward(data.X, W0, below, "identity", gW0, gb0)
    whole = np.empty_like(params)
    expected = reference.loss_and_grad(reference.workspace(network, 8), params, data, 0, whole)
    assert value == expected
    np.testing.assert_allclose(grad[: network.n_linear] / 8, whole[: network.n_linear], rtol=1e-14)


# ------------------------------------------------------------------------------- updates and epochs


def sklearn_optimizer(rule, arrays):
    """scikit-learn's optimizer with constant step size, and the scalars that it uses at step t."""
    lr, momentum = SCALARS["lr"], SCALARS["momentum"]
    b1, b2, epsilon = SCALARS["beta_1"], SCALARS["beta_2"], SCALARS["epsilon"]
    if rule == "adam":
        corrected = lambda t: lr * np.sqrt(1 - b2**t) / (1 - b1**t)  # noqa: E731
        optimizer = AdamOptimizer(arrays, lr, b1, b2, epsilon)
        return optimizer, lambda t: [corrected(t), b1, b2, epsilon]
    used = 0.0 if rule == "sgd" else momentum
    optimizer = SGDOptimizer(arrays, lr, "constant", used, rule == "nesterov")
    return optimizer, lambda t: [lr] if rule == "sgd" else [lr, momentum]


SKLEARN_RULES = ("sgd", "momentum", "nesterov", "adam")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", SKLEARN_RULES)
def test_update_is_scikit_learns(rule, dtype):
    rng = np.random.default_rng(6)
    params = rng.normal(size=50).astype(dtype)
    theirs = [params.copy()]
    optimizer, scalars = sklearn_optimizer(rule, theirs)
    states = [np.zeros_like(params) for _ in reference.OPTIMIZERS[rule].states]
    for t in range(1, 21):
        grad = rng.normal(size=50).astype(dtype)
        optimizer.update_params(theirs, [grad])
        reference.update(rule, params, grad, states, scalars(t))
    assert params.dtype == dtype
    assert_close(params, theirs[0], scale=1, terms=20)


class SklearnSteps(Steps):
    """The scalars that scikit-learn's optimizer uses, for the reference to train with."""

    def scalars(self, n_steps):
        _, scalars = sklearn_optimizer(self.rule, [])
        return np.array([scalars(self.t + i + 1) for i in range(n_steps)], dtype=np.float64)


def sklearn_epoch(network, coefs, intercepts, data, order, batch_size, alpha, optimizer):
    """An epoch written out, with scikit-learn's functions for everything that is a formula."""
    accumulated = 0.0
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        w = None if data.sample_weight is None else data.sample_weight[rows]
        a = [data.X[rows]]
        for i, (W, b) in enumerate(zip(coefs, intercepts, strict=True)):
            a.append(np.asarray(a[-1] @ W) + b)
            if i < len(coefs) - 1:
                _base.ACTIVATIONS[network.activations[i]](a[-1])
        y = one_hot(data.y[rows], network.widths[-1], network.dtype)
        value, delta = sklearn_loss(network.loss, a[-1], y, w)
        sw_sum = len(rows) if w is None else w.sum()
        value += 0.5 * alpha * sum((W**2).sum() for W in coefs) / sw_sum
        accumulated += value * len(rows)
        grad_W, grad_b = [None] * len(coefs), [None] * len(coefs)
        for i in reversed(range(len(coefs))):
            grad_W[i] = (a[i].T @ delta + alpha * coefs[i]) / sw_sum
            grad_b[i] = delta.sum(axis=0) / sw_sum
            if i > 0:
                delta = delta @ coefs[i].T
                _base.DERIVATIVES[network.activations[i - 1]](a[i], delta)
        optimizer.update_params(coefs + intercepts, grad_W + grad_b)
    return accumulated / len(order)


@pytest.mark.parametrize("kind", ["C", "csr int64"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", SKLEARN_LOSSES)
@pytest.mark.parametrize("rule", SKLEARN_RULES)
def test_epochs_are_scikit_learns(rule, loss, weighted, kind):
    rng = np.random.default_rng(8)
    network = make_network((5, 7, 4, 3), loss, ("relu", "logistic"))
    params, data = make_params(rng, network), make_data(rng, network, 23, weighted, kind)
    coefs = [W.copy() for W, _ in reference._layers(network, params)]
    intercepts = [b.copy() for _, b in reference._layers(network, params)]
    theirs, _ = sklearn_optimizer(rule, coefs + intercepts)
    states = [np.zeros_like(params) for _ in reference.OPTIMIZERS[rule].states]
    ours = SklearnSteps(rule, states)
    workspace = reference.workspace(network, 6)
    for _ in range(3):
        order = rng.permutation(23)
        value = reference.train_epoch(workspace, params, data, order, 6, 0.1, ours)
        expected = sklearn_epoch(network, coefs, intercepts, data, order, 6, 0.1, theirs)
        np.testing.assert_allclose(value, expected, rtol=1e-13)
    flat = np.concatenate([p.ravel() for p in coefs + intercepts])
    np.testing.assert_allclose(params, flat, atol=1e-13)
    assert ours.t == 3 * 4


def test_batch_whose_weights_sum_to_zero():
    """The steps before it count; it makes none."""
    rng = np.random.default_rng(9)
    network = make_network((3, 2))
    X, y, _ = make_data(rng, network, 6)
    data = Data(X, y, np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0]))
    params, optimizer = make_params(rng, network), Steps("sgd", [])
    workspace = reference.workspace(network, 2)
    with pytest.raises(ZeroDivisionError, match="Weights sum to zero, can't be normalized"):
        reference.train_epoch(workspace, params, data, np.arange(6), 2, 0.0, optimizer)
    assert optimizer.t == 1


# ------------------------------------------------------------------------------- what training alone has


def test_layout_of_the_flat_vector_is_the_networks():
    """[W | b | scale, shift, slope of each hidden layer | mean, var of each]."""
    network = make_network((3, 4, 5, 2), activations=("prelu", "tanh"), batch_norm=True)
    params = np.arange(float(network.n_params))
    assert reference._n_params(network) == (network.n_trained, network.n_params)
    assert network.n_params == (3 * 4 + 4 * 5 + 5 * 2) + (4 + 5 + 2) + (3 * 4 + 2 * 5) + 2 * (4 + 5)
    for ours, theirs in zip(
        reference._units(network, params),
        (network.unit_parameters(params), network.running_statistics(params)),
        strict=True,
    ):
        assert [{k: v.tolist() for k, v in layer.items()} for layer in ours] == [
            {k: v.tolist() for k, v in layer.items()} for layer in theirs
        ]


def test_batch_norm_normalises_each_unit_over_the_batch():
    rng = np.random.default_rng(0)
    network = make_network((3, 4, 2), activations="identity", batch_norm=True)
    params, X = make_params(rng, network), rng.normal(3, 5, (50, 3))
    units = network.unit_parameters(params)[0]
    first, _ = reference._forward(network, params, X, [None, None])
    np.testing.assert_allclose(first.a.mean(axis=0), units["shift"], atol=1e-13)
    np.testing.assert_allclose(first.a.std(axis=0), units["scale"], rtol=1e-4)  # the variance has eps added


def step_of(network, params, data, **optimizer):
    """Parameters after one step of sgd, the loss, and the optimizer."""
    params, steps = params.copy(), Steps("sgd", [], **optimizer)
    n = len(data.y)
    value = reference.train_epoch(reference.workspace(network, n), params, data, np.arange(n), n, 0.0, steps)
    return params, value, steps


def test_running_statistics_follow_the_batches():
    """A tenth of the way each step, the variance that of a sample; nothing else moves them."""
    rng = np.random.default_rng(0)
    network = make_network((3, 4, 2), batch_norm=True)
    params, data = make_params(rng, network), make_data(rng, network, 7)
    z = data.X @ network.coefs(params)[0] + network.intercepts(params)[0]
    after, _, _ = step_of(network, params, data, weight_decay=0.1, max_grad_norm=0.01)
    old, new = network.running_statistics(params)[0], network.running_statistics(after)[0]
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * z.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * z.var(axis=0, ddof=1), rtol=1e-13)


def test_a_batch_of_one_row_is_normalised_to_its_shift():
    rng = np.random.default_rng(0)
    network = make_network((3, 4, 2), activations="identity", batch_norm=True)
    params, data = make_params(rng, network), make_data(rng, network, 1)
    after, value, _ = step_of(network, params, data)
    assert np.isfinite(after).all()
    assert np.isfinite(value)
    old, new = network.running_statistics(params)[0], network.running_statistics(after)[0]
    np.testing.assert_allclose(new["var"], 0.9 * old["var"], rtol=1e-13)


def test_predict_refuses_what_is_not_folded():
    network = make_network((3, 4, 2), batch_norm=True)
    params = np.ones(network.n_params)
    with pytest.raises(ValueError, match="fold"):
        reference.predict(reference.workspace(network, 1), params, np.ones((1, 3)), np.empty((1, 2)))


def test_decay_shrinks_all_that_is_trained():
    rng = np.random.default_rng(0)
    network = make_network((3, 4, 2), activations="prelu", batch_norm=True)
    params, data = make_params(rng, network), make_data(rng, network, 7)
    plain, value, _ = step_of(network, params, data)
    decayed, same_value, _ = step_of(network, params, data, weight_decay=0.5)
    assert value == same_value
    trained = np.arange(network.n_params) < network.n_trained
    np.testing.assert_allclose(decayed, plain - 0.5 * SCALARS["lr"] * params * trained, atol=1e-15)


@pytest.mark.parametrize("limit", [1e-3, 0.1, 1e3])
def test_long_gradients_are_cut_to_max_grad_norm(limit):
    rng = np.random.default_rng(0)
    network = make_network((3, 4, 2), activations="prelu")
    params, data = make_params(rng, network), make_data(rng, network, 7)
    grad = (params - step_of(network, params, data)[0]) / SCALARS["lr"]
    cut = (params - step_of(network, params, data, max_grad_norm=limit)[0]) / SCALARS["lr"]
    norm = np.linalg.norm(grad)
    np.testing.assert_allclose(cut, grad * min(1, limit / (norm + 1e-6)), atol=1e-13)


def test_prelu_learns_its_slopes():
    """With slope 0 it is relu, and the slope moves as soon as something is negative."""
    rng = np.random.default_rng(0)
    relu, prelu = (make_network((3, 4, 2), activations=name) for name in ("relu", "prelu"))
    params, data = make_params(rng, relu), make_data(rng, relu, 7)
    longer = np.concatenate([params, np.zeros(4)])
    after, value, _ = step_of(relu, params, data)
    learned, same_value, _ = step_of(prelu, longer, data)
    assert value == same_value
    np.testing.assert_array_equal(learned[:-4], after)
    assert (learned[-4:] != 0).any()


TANH = SimpleNamespace(numpy_value=np.tanh, numpy_slope=lambda z, a: 1 - a * a, needs_z=False)
SQUARED = SimpleNamespace(numpy_value=lambda y, z: (z - y) ** 2 / 2, numpy_delta=lambda y, z: z - y, link="identity")


def test_formulas_of_the_users_own():
    """An activation and a loss that bring their own NumPy functions; losses are sums over the outputs."""
    rng = np.random.default_rng(0)
    built_in = make_network((3, 4, 2), "squared_error")
    network = SimpleNamespace(**{**vars(built_in), "activations": (TANH,), "loss": SQUARED})
    params, data = make_params(rng, built_in), make_data(rng, built_in, 7)
    expected, value, _ = step_of(built_in, params, data)
    got, sum_over_outputs, _ = step_of(network, params, data)
    np.testing.assert_array_equal(got, expected)
    assert sum_over_outputs == pytest.approx(2 * value, rel=1e-14)


# ------------------------------------------------------------------------------- X and dtypes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", LAYOUTS)
def test_layout_of_X_does_not_matter(kind, dtype):
    rng = np.random.default_rng(10)
    network = make_network((5, 4, 2), dtype=dtype)
    params, X = make_params(rng, network), make_data(rng, network, 9, kind=kind).X
    dense = X.toarray() if sp.issparse(X) else np.array(X)
    workspace = reference.workspace(network, 9)
    got, expected = np.empty((9, 2), dtype), np.empty((9, 2), dtype)
    rows = np.array([3, 3, 0, 8], dtype=np.intp)
    reference.predict(workspace, params, X, got)
    reference.predict(workspace, params, dense.astype(dtype), expected)
    assert_close(got, expected, terms=5, scale=1)
    reference.predict(workspace, params, X, got[:4], rows)
    assert_close(got[:4], expected[rows], terms=5, scale=1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rule", RULES)
def test_float32_stays_float32(rule, loss):
    """No intermediate is silently promoted: float32 is the float64 result at float32's accuracy."""
    results = []
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(11)
        network = make_network((5, 4, 2), loss, dtype=dtype)
        params, data = make_params(rng, network), make_data(rng, network, 9, weighted=True)
        masks = [None, None]
        passes = reference._forward(network, params, data.X, masks)
        y = one_hot(data.y, 2, dtype)
        value, grad = reference._backprop(network, params, passes, masks, y, data.sample_weight, 0.1, 0.1)
        assert grad.dtype == dtype
        optimizer = make_optimizer(rng, rule, len(params), dtype)
        reference.update(rule, params, grad, optimizer.states, optimizer.scalars(1)[0])
        results.append((value, grad, params))
    for low, high in zip(*results, strict=True):
        assert_close(low, high, dtype=np.float32, terms=9 * 5, scale=np.abs(high).max())
        assert not np.array_equal(low, high)
