"""The reference before its judges: scikit-learn's functions, SciPy, finite differences, textbooks.

Every engine is measured by kernels/reference.py; here the reference itself is measured by code that
shares nothing with it.
"""

import numpy as np
import pytest
import scipy.special
from sklearn.neural_network import _base

from fastmlp.kernels import formulas, reference

from helpers import (
    ACTIVATIONS,
    DIFFERENTIABLE,
    DTYPES,
    HIDDEN,
    LOSSES,
    RULES,
    SKLEARN_LOSSES,
    assert_close,
    make_network,
    make_optimizer,
    make_targets,
    make_weights,
    one_hot,
    sklearn_loss,
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
    a = reference.activate(name, z)
    np.testing.assert_allclose(a, by_element(lambda z: row.value(z, *parameters), z), rtol=1e-13, atol=2e-15)
    if row.slope is not None:
        expected = by_element(lambda z, a: row.slope(z, a, *parameters), z, a)
        np.testing.assert_allclose(reference.slope(name, z, a), expected, rtol=1e-13, atol=2e-15)


OF_SOFTMAX = [name for name, row in formulas.LOSSES.items() if row.link == "softmax"]


@pytest.mark.parametrize("name", sorted(formulas.LOSSES.keys() - OF_SOFTMAX))
def test_losses_are_the_formulas(name):
    row = formulas.LOSSES[name]
    parameters = row.parameters.values()
    z = np.linspace(-30, 30, 241)[:, None]
    y = make_targets(np.random.default_rng(0), name, len(z), 1, np.float64)
    delta = np.empty_like(z)
    for i in range(len(z)):
        value, delta[i : i + 1] = reference.loss(name, z[i : i + 1], y[i : i + 1])
        assert value == pytest.approx(row.value(y[i, 0], z[i, 0], *parameters), rel=1e-12, abs=1e-12)
    if row.delta is not None:
        np.testing.assert_allclose(
            delta, by_element(lambda y, z: row.delta(y, z, *parameters), y, z), rtol=1e-12, atol=1e-14
        )


@pytest.mark.parametrize("name", OF_SOFTMAX)
def test_losses_of_softmax_are_the_formulas(name):
    """A row's loss is the sum of the terms; delta_k = s_k - p_k sum_j s_j with their slopes s in log p."""
    row, n, width = formulas.LOSSES[name], 40, 4
    parameters = row.parameters.values()
    rng = np.random.default_rng(0)
    z = rng.normal(scale=3, size=(n, width))
    y = make_targets(rng, name, n, width, np.float64)
    targets = np.eye(width)[y] if row.class_targets else y
    log_p = z - scipy.special.logsumexp(z, axis=1, keepdims=True)
    p = np.exp(log_p)
    for i in range(n):
        terms = np.array([targets[i], log_p[i], p[i], 1 - p[i]]).T
        value = sum(row.value(*term, width, *parameters) for term in terms)
        s = np.array([row.delta(*term, width, *parameters) for term in terms])
        got, delta = reference.loss(name, z[i : i + 1], y[i : i + 1])
        assert got == pytest.approx(value, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(delta[0], s - p[i] * s.sum(), rtol=1e-11, atol=1e-13)


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
    p = reference.softmax(np.array([[0.9, 0.2, 0.4]]))
    np.testing.assert_allclose(p[0], [0.4754850, 0.2361188, 0.2883962], atol=5e-8)


@pytest.mark.parametrize(
    ("logits", "losses"),
    [((1, 4, 3), (3.34901, 0.349012, 1.34901)), ((1, 7, 3), (6.02058, 0.0205811, 4.02058))],
)
def test_textbook_cross_entropy(logits, losses):
    z = np.array([logits], dtype=float)
    for y, expected in enumerate(losses):
        value, _ = reference.loss("log_loss", z, np.array([y], dtype=np.intp))
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
    expected = z.copy()
    _base.ACTIVATIONS[name](expected)
    assert_close(reference.activate(name, z), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SKLEARN_HIDDEN)
def test_slope_is_scikit_learns(name, dtype):
    z = np.linspace(-30, 30, 603, dtype=dtype).reshape(3, -1)  # holds the kink of relu
    a, expected = reference.activate(name, z), np.ones_like(z)
    _base.DERIVATIVES[name](a, expected)
    assert_close(reference.slope(name, z, a), expected, scale=1)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_slope_is_the_derivative(name):
    z = np.linspace(-4, 4, 80)  # does not hold a kink: 0, 1, 3 or 6
    h = 1e-6
    f, _ = reference.ACTIVATIONS[name]
    np.testing.assert_allclose(reference.slope(name, z, f(z)), (f(z + h) - f(z - h)) / (2 * h), atol=1e-8)


def test_logistic_is_scipys():
    z = np.linspace(-700, 700, 999)
    assert_close(reference.activate("logistic", z), scipy.special.expit(z))


@pytest.mark.parametrize("name", HIDDEN)
def test_nan_passes_through_activation(name):
    out = reference.activate(name, np.array([np.nan, 0.5]))
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
    a = reference.activate(name, z)
    slope = reference.slope(name, z, a)
    assert np.isfinite(a[1:-1]).all()
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(a[[0, -1]], LIMITS[name], rtol=1e-6)


Z2 = np.array([[-2.0, 0.5]])
TAKE_AN_ACTIVATION = {
    "activate": lambda f: reference.activate(f, Z2),
    "slope": lambda f: reference.slope(f, Z2, Z2),
    "workspace": lambda f: reference.workspace(make_network((2, 2, 1), activations=[f]), 1),
}


@pytest.mark.parametrize("call", TAKE_AN_ACTIVATION)
def test_parameters_of_activations(call):
    """(name, parameters) wherever there is a name; what is not known is refused, whoever asks."""
    take = TAKE_AN_ACTIVATION[call]
    found = take(("leaky_relu", {"negative_slope": 0.25}))
    if call != "workspace":
        np.testing.assert_array_equal(found[0], [0.25, 1] if call == "slope" else [-0.5, 0.5])
    for wrong in ("leaky_relu", "tanh"):
        with pytest.raises(ValueError, match="'alpha'"):
            take((wrong, {"alpha": 0.5}))
    with pytest.raises(ValueError, match="activation"):
        take(("no such activation", {}))


def test_relu_is_flat_at_its_kink():
    z = np.array([0.0, -0.0, 1e-300])
    assert reference.slope("relu", z, z).tolist() == [0, 0, 1]


# ------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_outputs", [2, 5])
@pytest.mark.parametrize("name", SKLEARN_LOSSES)
def test_loss_is_scikit_learns(name, n_outputs, weighted, dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40, n_outputs)).astype(dtype)
    y = make_targets(rng, name, 40, n_outputs, dtype)
    w = make_weights(rng, 40, dtype) if weighted else None
    value, delta = reference.loss(name, logits, y, w)
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
        value, delta[one] = reference.loss(name, logits[one], y[one])
        expected, _ = sklearn_loss(name, logits[one], one_hot(y, 2, dtype)[one], None)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(delta, [[0, 0], [-1, 1]])


def test_losses_of_one_binary_output_agree():
    """softmax over (0, z) is the logistic function of z."""
    rng = np.random.default_rng(1)
    z = rng.normal(0, 3, (20, 1))
    y = rng.integers(0, 2, 20).astype(np.intp)
    two = np.hstack([np.zeros_like(z), z])
    one, delta_one = reference.loss("binary_log_loss", z, y[:, None].astype(float))
    value, delta_two = reference.loss("log_loss", two, y)
    assert_close(value, one, terms=20, dtype=float)
    assert_close(delta_two[:, 1:], delta_one, scale=1)


def test_cross_entropy_keeps_its_digits_for_large_logits():
    """log(2) for two equal logits, however large: taken from the shifted logits."""
    for dtype in DTYPES:
        z = np.full((1, 2), 1e4, dtype=dtype)
        value, _ = reference.loss("log_loss", z, np.array([1], dtype=np.intp))
        assert_close(value, np.log(2), dtype=dtype)


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
    value, delta = reference.loss(one, logits, convert(y))
    expected, expected_delta = reference.loss(other, logits, y)
    factor = {"squared_error": 3, "absolute_error": 0.5}.get(other, 1)  # a mean over the outputs; half of it
    np.testing.assert_allclose(value, expected * factor, rtol=1e-12)
    np.testing.assert_allclose(delta, expected_delta * (0.5 if other == "absolute_error" else 1), atol=1e-14)


def test_label_smoothing_mixes_with_the_uniform_distribution():
    """The loss of smoothed labels is that of a distribution, but for its entropy, which is constant."""
    rng = np.random.default_rng(1)
    logits, y = rng.normal(0, 3, (20, 4)), rng.integers(0, 4, 20)
    smooth = 0.8 * np.eye(4)[y] + 0.2 / 4
    value, delta = reference.loss(("log_loss", {"label_smoothing": 0.2}), logits, y)
    expected, expected_delta = reference.loss("kl_divergence", logits, smooth)
    np.testing.assert_allclose(value, expected + scipy.special.entr(smooth[0]).sum(), rtol=1e-12)
    np.testing.assert_allclose(delta, expected_delta, atol=1e-15)


def test_focal_of_two_outputs_is_binary_focal():
    rng = np.random.default_rng(1)
    z, y = rng.normal(0, 3, (20, 1)), rng.integers(0, 2, 20)
    value, delta = reference.loss("focal", np.hstack([0 * z, z]), y)
    expected, expected_delta = reference.loss("binary_focal", z, y[:, None].astype(float))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(delta[:, 1:], expected_delta, atol=1e-14)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*LOSSES, ("log_loss", {"label_smoothing": 0.1}), ("focal", {"gamma": 0.5})], ids=str)
def test_loss_of_large_logits_is_a_number(name, dtype):
    """At +-1e4; where the prediction is exp(z) it may be infinite, as the prediction is."""
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [-1e4, -1e4]], dtype)
    y = make_targets(np.random.default_rng(0), name, 4, 2, dtype)
    value, delta = reference.loss(name, logits, y)
    assert not np.isnan(value)
    assert not np.isnan(delta).any()
    if name not in ("poisson", "gamma"):
        assert np.isfinite(value)
        assert np.isfinite(delta).all()


def test_parameters_of_losses():
    z, y = np.array([[0.0, 3.0]]), np.array([[2.0, 1.0]])
    value, delta = reference.loss(("huber", {"delta": 0.5}), z, y)
    assert value == 0.5 * (2 - 0.25) + 0.5 * (2 - 0.25)
    assert delta.tolist() == [[-0.5, 0.5]]
    for wrong in ("huber", "squared_error"):
        with pytest.raises(ValueError, match="'gamma'"):
            reference.loss((wrong, {"gamma": 0.5}), z, y)


def test_softmax_is_scipys():
    logits = np.random.default_rng(2).normal(0, 50, (30, 7))
    assert_close(reference.softmax(logits), scipy.special.softmax(logits, axis=1), terms=7)


def test_nan_logit_spoils_its_row_only():
    logits = np.array([[1.0, np.nan, 2.0], [1.0, 2.0, 3.0]])
    out, (value, delta) = reference.softmax(logits), reference.loss("log_loss", logits, np.array([0, 0]))
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()
    assert np.isnan(value)
    assert np.isnan(delta[0]).all()
    assert np.isfinite(delta[1]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_weights_that_sum_to_zero(name):
    y = make_targets(np.random.default_rng(0), name, 3, 2, np.float64)
    with pytest.raises(ZeroDivisionError, match="Weights sum to zero, can't be normalized"):
        reference.loss(name, np.zeros((3, 2)), y, np.zeros(3))
