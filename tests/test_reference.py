"""The reference before its judges: scikit-learn's functions, SciPy, finite differences, textbooks.

Every engine is measured by kernels/reference.py; here the reference itself is measured by code that
shares nothing with it.
"""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.special
from sklearn.neural_network import _base
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from fastmlp.backends import Data
from fastmlp.kernels import formulas, reference

from helpers import (
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
        value = reference.softmax_cross_entropy(z, np.array([y], dtype=np.intp), None, delta)
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


@pytest.mark.parametrize("name", HIDDEN)
def test_slope_is_the_derivative(name):
    z = np.linspace(-4, 4, 80)  # does not hold 0
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
@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_by_finite_differences(loss, activation, hidden, weighted, kind):
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
    """alpha/2 ||W||^2 / sw_sum: of the weights, not of the biases."""
    rng = np.random.default_rng(4)
    network = make_network((4, 5, 2))
    params, data = make_params(rng, network), make_data(rng, network, 7, weighted)
    workspace = reference.workspace(network, 7)
    plain, penalised = np.empty_like(params), np.empty_like(params)
    value = reference.loss_and_grad(workspace, params, data, 0.0, plain)
    with_penalty = reference.loss_and_grad(workspace, params, data, 0.3, penalised)
    sw_sum = 7 if data.sample_weight is None else data.sample_weight.sum()
    W = np.where(np.arange(len(params)) < 4 * 5 + 5 * 2, params, 0)
    np.testing.assert_allclose(with_penalty - value, 0.15 * (W @ W) / sw_sum, rtol=1e-12)
    np.testing.assert_allclose(penalised - plain, 0.3 * W / sw_sum, atol=1e-15)


@pytest.mark.parametrize("activation", HIDDEN)
def test_layer_by_layer_is_the_whole_gradient(activation):
    """linear_forward, loss, linear_backward: the kernels put together by hand."""
    rng = np.random.default_rng(5)
    network = make_network((4, 6, 3), "log_loss", activation)
    params, data = make_params(rng, network), make_data(rng, network, 8)
    (W0, b0), (W1, b1) = reference._layers(network, params)
    a, z = np.empty((8, 6)), np.empty((8, 6))
    logits, delta = np.empty((8, 3)), np.empty((8, 3))
    reference.linear_forward(data.X, W0, b0, activation, a, z)
    reference.linear_forward(a, W1, b1, "identity", logits)
    value = reference.softmax_cross_entropy(logits, data.y, None, delta)
    grad, below = np.empty_like(params), np.empty((8, 6))
    (gW0, gb0), (gW1, gb1) = reference._layers(network, grad)
    reference.linear_backward(a, W1, delta, activation, gW1, gb1, below, z)
    reference.linear_backward(data.X, W0, below, "identity", gW0, gb0)
    whole = np.empty_like(params)
    expected = reference.loss_and_grad(reference.workspace(network, 8), params, data, 0, whole)
    assert value == expected
    np.testing.assert_allclose(grad / 8, whole, rtol=1e-14)


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_named_updates_are_the_rules(dtype):
    rng = np.random.default_rng(7)
    grad = rng.normal(size=20).astype(dtype)
    calls = {
        "sgd": lambda p, s: reference.sgd_update(p, grad, 0.1),
        "momentum": lambda p, s: reference.momentum_update(p, grad, *s, 0.1, 0.8),
        "nesterov": lambda p, s: reference.momentum_update(p, grad, *s, 0.1, 0.8, True),
        "adam": lambda p, s: reference.adam_update(p, grad, *s, 0.1, 0.9, 0.99, 1e-8),
    }
    scalars = {"sgd": [0.1], "momentum": [0.1, 0.8], "nesterov": [0.1, 0.8]}
    scalars["adam"] = [0.1, 0.9, 0.99, 1e-8]
    for rule, call in calls.items():
        mine = make_optimizer(rng, rule, 20, dtype)
        generic = mine.copy()
        p, q = np.ones(20, dtype), np.ones(20, dtype)
        call(p, mine.states)
        reference.update(rule, q, grad, generic.states, scalars[rule])
        np.testing.assert_array_equal(p, q)
        for a, b in zip(mine.states, generic.states, strict=True):
            np.testing.assert_array_equal(a, b)


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
        value, grad = reference._backprop(
            network,
            params,
            data.X,
            one_hot(data.y, 2, dtype),
            data.sample_weight,
            0.1,
        )
        assert grad.dtype == dtype
        optimizer = make_optimizer(rng, rule, len(params), dtype)
        reference.update(rule, params, grad, optimizer.states, optimizer.scalars(1)[0])
        results.append((value, grad, params))
    for low, high in zip(*results, strict=True):
        assert_close(low, high, dtype=np.float32, terms=9 * 5, scale=np.abs(high).max())
        assert not np.array_equal(low, high)
