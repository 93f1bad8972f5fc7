"""The reference's gradients, updates and epochs before its judges: scikit-learn's functions and finite differences.

Its activations and losses are in test_reference.py.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.neural_network import _base
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from fastmlp.engines.backends import Data
from fastmlp.kernels import reference

from helpers import (
    DTYPES,
    HIDDEN,
    LAYOUTS,
    LOSSES,
    RULES,
    SCALARS,
    SKLEARN_LOSSES,
    Steps,
    assert_close,
    make_data,
    make_network,
    make_optimizer,
    make_params,
    one_hot,
    sklearn_loss,
)

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
    """Forward, loss and backward of each layer, put together by hand."""
    rng = np.random.default_rng(5)
    network = make_network((4, 6, 3), "log_loss", activation)
    params, data = make_params(rng, network), make_data(rng, network, 8)
    params[network.n_linear :] = 0.25  # prelu's slope by default
    (W0, b0), (W1, b1) = reference._layers(network, params)
    z = data.X @ W0 + b0
    a = reference.activate(activation, z)
    value, delta = reference.loss("log_loss", a @ W1 + b1, data.y)
    below = (delta @ W1.T) * reference.slope(activation, z, a)
    grad = np.concatenate([(data.X.T @ below).ravel(), (a.T @ delta).ravel(), below.sum(axis=0), delta.sum(axis=0)])
    whole = np.empty_like(params)
    expected = reference.loss_and_grad(reference.workspace(network, 8), params, data, 0, whole)
    assert value == expected
    np.testing.assert_allclose(grad / 8, whole[: network.n_linear], rtol=1e-14)


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
