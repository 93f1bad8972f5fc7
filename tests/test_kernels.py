"""Every engine against the reference, kernel by kernel: the same numbers up to rounding.

The engine's kernels are made of its calls by fastmlp.engines.by_name, so it is the code that trains which is judged.
Order: formulas one by one, layers, losses, updates, the order of rows.  Whole networks are in test_kernel_networks.py.
Names of activations, losses and rules come from the formula tables: a new row is tested without an edit here.
Tolerances come from helpers.assert_close.  What a caller may do wrong is in test_kernel_arguments.py.
"""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastmlp.engines import by_name
from fastmlp.kernels import formulas, reference

from helpers import (
    ACTIVATIONS,
    HIDDEN,
    LOSSES,
    RULES,
    assert_close,
    draw,
    make_network,
    make_optimizer,
    make_targets,
    make_weights,
    one_hot,
    rows,
    scales,
    seeds,
    widths,
)

# overflow and NaN are what many of these tests are about
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# a formula is the same source for every instruction set, whose functions test_vmath.py tests
each_formula = pytest.mark.covers("engine_on_every_isa dtype", "name dtype", "activation dtype", "rule dtype")


@pytest.fixture(scope="module")
def engine(engine_on_every_isa):
    return engine_on_every_isa


# ------------------------------------------------------------------------------- activations


def special_values(dtype):
    tiny = np.finfo(dtype).tiny
    values = [0, 1, 10, 17, 40, 88, 104, 710, 750, 1e4, 1e30, tiny, tiny / 4, 1e-5, np.inf]
    return np.array([*values, *[-v for v in values], np.nan], dtype=dtype)


def activation_magnitude(name, z, a):
    """Size of what an activation adds up: itself, but z where it is z times a sum that may cancel."""
    return np.abs(z) if name in ("gelu", "gelu_tanh") else np.abs(a)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activate_special_values(engine, dtype, name):
    z = special_values(dtype)
    expected = reference.activate(name, z)
    got = by_name.activate(engine, name, z)
    assert_close(got, expected, scale=activation_magnitude(name, z, expected), what=name)


@each_formula
@pytest.mark.parametrize("name", ACTIVATIONS)
@given(data=st.data())
def test_activate(engine, dtype, name, data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=40))
    floats = st.floats(-1e4, 1e4, width=np.dtype(dtype).itemsize * 8)
    z = data.draw(hnp.arrays(dtype, shape, elements=floats | st.sampled_from([np.nan, np.inf])))
    expected = reference.activate(name, z)
    got = by_name.activate(engine, name, z)
    assert_close(got, expected, scale=activation_magnitude(name, z, expected), what=name)


@each_formula
@pytest.mark.parametrize("name", HIDDEN)
@given(seed=seeds, size=st.integers(1, 300), scale=scales)
def test_slope(engine, dtype, name, seed, size, scale):
    z = draw(seed, size, dtype, scale)
    z[::7] = np.resize(special_values(dtype), z[::7].shape)
    expected = reference.slope(name, z, reference.activate(name, z))
    got = by_name.slope(engine, name, z)
    # 1 - a * a: what cancels is of size 1
    assert_close(got, expected, scale=1, what=name)


def test_empty_arrays(engine, dtype):
    """No rows, no numbers: nothing to do, and nothing goes wrong."""
    no_rows, out = np.empty((0, 3), dtype), np.empty((0, 2), dtype)
    for name in ACTIVATIONS:
        assert by_name.activate(engine, name, no_rows).shape == (0, 3)
    network = make_network((3, 2), dtype=dtype)
    workspace = engine.workspace(network, 4)
    params = np.ones(network.n_params, dtype)
    engine.predict(workspace, params, no_rows, out)
    engine.predict(workspace, params, sp.csr_array((0, 3), dtype=dtype), out)
    engine.predict(workspace, params, np.ones((5, 3), dtype), out, np.empty(0, np.intp))


# ------------------------------------------------------------------------------- layers


def check_linear_forward(engine, activation, X, W, b):
    magnitude, z = np.abs(X) @ np.abs(W) + np.abs(b), by_name.linear_forward(engine, X, W, b)
    assert_close(z, X @ W + b, terms=X.shape[1] + 1, scale=magnitude, what="z")
    a = reference.activate(activation, z)  # from the engine's own z: how accurate the activation is, and no more
    got = by_name.linear_forward(engine, X, W, b, activation)
    assert_close(got, a, terms=X.shape[1] + 1, scale=magnitude * (1 + np.abs(a)), what=activation)


@each_formula
@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(n=rows, fan_in=widths, fan_out=widths, seed=seeds, scale=scales)
@example(n=1, fan_in=1, fan_out=1, seed=0, scale=1.0)
def test_linear_forward(engine, dtype, activation, n, fan_in, fan_out, seed, scale):
    X = draw(seed, (n, fan_in), dtype)
    W = draw(seed + 1, (fan_in, fan_out), dtype, scale / np.sqrt(fan_in))
    check_linear_forward(engine, activation, X, W, draw(seed + 2, fan_out, dtype))


def check_linear_backward(engine, activation, z, W, delta):
    X, (n, fan_out) = reference.activate(activation, z), delta.shape
    made = activation_magnitude(activation, z, X)  # the engine multiplies by its own f(z), with its own rounding
    scale = made.T @ np.abs(delta), np.abs(delta).sum(axis=0), np.abs(delta) @ np.abs(W).T
    *both, below = by_name.hidden_backward(engine, activation, z, W, delta)
    for grad_W, grad_b in (both, by_name.linear_backward(engine, X, delta)):
        assert_close(grad_W, X.T @ delta, terms=n, scale=scale[0], what="grad_W")
        assert_close(grad_b, delta.sum(axis=0), terms=n, scale=scale[1], what="grad_b")
    expected = (delta @ W.T) * reference.slope(activation, z, X)
    assert_close(below, expected, terms=fan_out, scale=scale[2], what="delta_below")


@each_formula
@pytest.mark.parametrize("activation", HIDDEN)
@given(n=rows, fan_in=widths, fan_out=widths, seed=seeds, scale=scales)
@example(n=1, fan_in=1, fan_out=1, seed=0, scale=1.0)
def test_linear_backward(engine, dtype, activation, n, fan_in, fan_out, seed, scale):
    z = draw(seed, (n, fan_in), dtype)
    W = draw(seed + 1, (fan_in, fan_out), dtype, scale)
    check_linear_backward(engine, activation, z, W, draw(seed + 2, (n, fan_out), dtype))


# rows beyond a chunk of rows; layers beyond the caches; one long and thin, one short and wide
LARGE = [(1500, 37, 29), (130, 700, 600), (3, 700, 600), (1027, 600, 3), (1027, 3, 600)]


@pytest.mark.parametrize(("n", "fan_in", "fan_out"), LARGE)
def test_large_layers(engine, dtype, n, fan_in, fan_out):
    z = draw(0, (n, fan_in), dtype)
    W = draw(1, (fan_in, fan_out), dtype, 1 / np.sqrt(fan_in))
    check_linear_forward(engine, "tanh", z, W, draw(2, fan_out, dtype))
    check_linear_backward(engine, "tanh", z, W, draw(3, (n, fan_out), dtype))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize(("n", "fan_in", "fan_out"), [(5, 9, 17), (130, 700, 600)])
def test_poison_stays_in_its_row_of_a_layer(engine, dtype, n, fan_in, fan_out, poison):
    X = draw(0, (n, fan_in), dtype)
    X[3, 2] = poison
    W = draw(1, (fan_in, fan_out), dtype, 1 / np.sqrt(fan_in))
    got = by_name.linear_forward(engine, X, W, np.zeros(fan_out, dtype))
    assert not np.isfinite(got[3]).any()
    assert_close(got, X @ W, terms=fan_in, scale=np.abs(X) @ np.abs(W))


@pytest.mark.parametrize("activation", HIDDEN)
def test_layer_of_zeros(engine, dtype, activation):
    X, W = draw(0, (7, 5), dtype), np.zeros((5, 3), dtype)
    check_linear_forward(engine, activation, X, W, np.zeros(3, dtype))
    check_linear_backward(engine, activation, np.zeros_like(X), W, np.zeros((7, 3), dtype))


# ------------------------------------------------------------------------------- softmax, losses


@given(n=rows, n_outputs=widths, seed=seeds, scale=scales)
@example(n=1, n_outputs=1, seed=0, scale=1e4)
def test_softmax(engine, dtype, n, n_outputs, seed, scale):
    logits = draw(seed, (n, n_outputs), dtype, scale)
    got = by_name.softmax(engine, logits)
    assert_close(got, reference.softmax(logits), terms=n_outputs)
    assert_close(got.sum(axis=1), np.ones(n, dtype), terms=n_outputs)


SPECIAL_ROWS = [
    [1, 2, 3],
    [1e4, -1e4, 0],
    [-1e4, -1e4, -1e4],
    [1e30, 1e30, 1],
    [-np.inf, 0, 1],
    [np.inf, 0, 1],
    [-np.inf, -np.inf, -np.inf],
    [np.nan, 0, 1],
    [0, 1, np.nan],
    [np.nan, np.inf, -np.inf],
    [3, 2, 1],
]


@pytest.mark.parametrize("repeat", [1, 7, 40])
def test_softmax_of_special_rows(engine, dtype, repeat):
    """A NaN or an infinite logit spoils its own row, all of it, and no other row."""
    logits = np.tile(np.array(SPECIAL_ROWS, dtype=dtype), (1, repeat))
    got, expected = by_name.softmax(engine, logits), reference.softmax(logits)
    assert np.isnan(got).any(axis=1).tolist() == [False] * 5 + [True] * 5 + [False]
    assert_close(got, expected, terms=logits.shape[1])


def focal_weight(logits, target):
    """(1 - p)^2 of each row, the default gamma: what focal loss multiplies a logarithm by that is 0 up to rounding."""
    z = logits.astype(np.float64)
    with np.errstate(all="ignore"):
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
    return np.nan_to_num(((1 - target) * p).sum(axis=1, keepdims=True)) ** 2


def loss_magnitude(name, value, logits, y, w):
    """Size of what a loss adds up: itself, unless its terms have both signs."""
    if name == "focal":
        return abs(value) + np.average(focal_weight(logits, y)[:, 0], weights=w)
    if name not in ("poisson", "gamma"):
        return abs(value)
    y, logits = y.astype(np.float64), logits.astype(np.float64)
    with np.errstate(all="ignore"):
        log_y = np.abs(np.log(np.maximum(y, 0.1)))
        if name == "poisson":
            terms = np.where(y == 0, 0, np.abs(y) * (1 + np.abs(logits) + log_y)) + np.exp(logits)
        else:
            terms = np.abs(y) * np.exp(-logits) * (1 + np.abs(logits)) + np.abs(logits) + log_y + 1
    return np.average(terms.sum(axis=1, dtype=np.float64), weights=w)


def check_loss(engine, name, logits, y, w):
    value, delta = by_name.loss(engine, name, logits, y, w)
    expected, expected_delta = reference.loss(name, logits, y, w)
    n, n_outputs = logits.shape
    target = one_hot(y, n_outputs, logits.dtype)
    assert isinstance(value, float)
    magnitude = loss_magnitude(name, expected, logits, target, w)
    terms = n * n_outputs
    assert_close(value, expected, dtype=logits.dtype, terms=terms, scale=magnitude, what="loss")
    weight = 1 if w is None else w[:, None]
    # prediction - y: either may be the larger one
    scale = np.abs(expected_delta) + 2 * np.abs(target) * weight
    if name == "focal":
        scale = scale + focal_weight(logits, target) * weight
    if name == "binary_focal":  # exp(-gamma * softplus(m)), gamma = 2: a rounding of the exponent grows with it
        scale = scale + np.abs(expected_delta) * 2 * np.minimum(np.abs(logits), 1e3)
    if name == "gamma":
        scale = scale + np.abs(target) * np.exp(-logits) * (1 + np.abs(logits)) * weight
    # a sum of n_outputs exponentials stands in the denominator of softmax
    assert_close(delta, expected_delta, terms=n_outputs, scale=scale, what="delta")
    return value, delta


@each_formula
@pytest.mark.parametrize("name", LOSSES)
@given(n=rows, n_outputs=widths, seed=seeds, scale=scales, weighted=st.booleans())
@example(n=1, n_outputs=1, seed=0, scale=1e4, weighted=True)
def test_loss(engine, dtype, name, n, n_outputs, seed, scale, weighted):
    rng = np.random.default_rng(seed)
    logits = draw(seed, (n, n_outputs), dtype, scale)
    if reference.LOSSES[name].link is np.exp:
        logits = np.minimum(logits, 80)  # where a sum overflows is each engine's own affair
    y = make_targets(rng, name, n, n_outputs, dtype)
    check_loss(engine, name, logits, y, make_weights(rng, n, dtype) if weighted else None)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_many_rows(engine, dtype, name):
    rng = np.random.default_rng(0)
    y = make_targets(rng, name, 1500, 3, dtype)
    check_loss(engine, name, draw(0, (1500, 3), dtype), y, make_weights(rng, 1500, dtype))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("row", range(len(SPECIAL_ROWS)))
def test_loss_of_special_rows(engine, dtype, name, row):
    """Each alone in the middle of ordinary rows; the deltas of the others stay what they are.

    by_name lets a NaN spoil its row.  A loss by formula is asked for each logit alone instead, as if it were a row.
    """
    logits = draw(0, (5, 3), dtype)
    logits[2] = SPECIAL_ROWS[row]
    y = make_targets(np.random.default_rng(1), name, 5, 3, dtype)
    if np.isnan(logits).any() and formulas.LOSSES[name].link != "softmax":
        logits, y = logits.reshape(-1, 1), y.reshape(-1, 1)
    check_loss(engine, name, logits, y, None)


@pytest.mark.parametrize("large", [100, 1e4])
def test_log_losses_are_clipped(engine, dtype, large):
    """-log p lies in [-log(1 - eps), -log(eps)]; delta is not clipped."""
    eps = float(np.finfo(dtype).eps)
    logits = np.array([[large, -large]], dtype)
    for y, one, rest in ((0, -np.log1p(-eps), [0, 0]), (1, -np.log(eps), [1, -1])):
        value, delta = by_name.loss(engine, "log_loss", logits, np.array([y], dtype=np.intp))
        assert_close(value, one, dtype=dtype)
        assert_close(delta[0], np.array(rest, dtype), scale=1)
        target = one_hot(np.array([y]), 2, dtype)
        value, delta = by_name.loss(engine, "binary_log_loss", logits, target)
        assert_close(value, 2 * one, dtype=dtype)  # two outputs, both right or both wrong
        assert_close(delta[0], np.array(rest, dtype), scale=1)


def test_cross_entropy_keeps_its_digits_for_large_logits(engine, dtype):
    value, _ = by_name.loss(engine, "log_loss", np.full((3, 5), 1e4, dtype), np.array([0, 2, 4]))
    assert_close(value, np.log(5), dtype=dtype, terms=5)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_with_weights_that_sum_to_zero(engine, dtype, name):
    y = make_targets(np.random.default_rng(0), name, 3, 2, dtype)
    with pytest.raises(ZeroDivisionError, match="Weights sum to zero, can't be normalized"):
        by_name.loss(engine, name, np.zeros((3, 2), dtype), y, np.zeros(3, dtype))


# ------------------------------------------------------------------------------- updates


def check_updated(before, after, expected, grad, scalars):
    """``before``, ``after``, ``expected`` are [params, *states]."""
    spread = sum(np.abs(s) + np.abs(t) for s, t in zip(before[1:], expected[1:], strict=True))
    for i, (old, got, new) in enumerate(zip(before, after, expected, strict=True)):
        scale = np.abs(old) + np.abs(new)
        if i == 0:  # what was added to a parameter may have cancelled within itself
            scale = scale + abs(scalars[0]) * np.abs(grad) + spread
        assert_close(got, new, scale=scale, what=["params", "state 0", "state 1", "state 2"][i])


@each_formula
@pytest.mark.parametrize("rule", RULES)
@given(size=st.integers(1, 400), seed=seeds, scale=scales, fresh=st.booleans())
def test_update(engine, dtype, rule, size, seed, scale, fresh):
    rng = np.random.default_rng(seed)
    params = draw(seed, size, dtype)
    optimizer = make_optimizer(rng, rule, size, dtype)
    if fresh:
        for state in optimizer.states:
            state[:] = 0
    for scalars in optimizer.scalars(3).tolist():
        grad = draw(rng, size, dtype, scale)
        before = [params, *optimizer.states]
        mine, theirs = [a.copy() for a in before], [a.copy() for a in before]
        by_name.update(engine, rule, mine[0], grad, mine[1:], scalars)
        reference.update(rule, theirs[0], grad, theirs[1:], scalars)
        check_updated(before, mine, theirs, grad, scalars)
        params, optimizer.states = mine[0], mine[1:]


def test_adam_does_not_round_its_betas(engine, dtype):
    """1 - beta_2 is a small difference: taken before beta_2 is rounded to float32, not after."""
    params, grad = np.zeros(5, dtype), np.ones(5, dtype)
    m, v = np.zeros(5, dtype), np.zeros(5, dtype)
    by_name.update(engine, "adam", params, grad, [m, v], [0.1, 0.9, 0.9999, 1e-8])
    assert_close(m, np.full(5, 1 - 0.9, dtype))
    assert_close(v, np.full(5, 1 - 0.9999, dtype))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("rule", RULES)
def test_poisoned_gradient_spoils_its_own_parameter(engine, dtype, rule, poison):
    params, grad = np.ones(37, dtype), np.ones(37, dtype)
    grad[20] = poison
    optimizer = make_optimizer(np.random.default_rng(0), rule, 37, dtype)
    by_name.update(engine, rule, params, grad, optimizer.states, optimizer.scalars(1)[0])
    spoilt = np.logical_or.reduce([~np.isfinite(vector) for vector in (params, *optimizer.states)])
    assert np.flatnonzero(spoilt).tolist() == [20]
    if np.isnan(poison) or rule != "lion":  # which steps by the sign of what it gets, also of infinity
        assert np.isnan(params[20]) or np.isinf(params[20])


# --- the order of rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*range(10), *(2**k + d for k in (6, 7, 10, 16) for d in (-1, 0, 1)), 100_000])
def test_shuffle_is_numpys(engine, n):
    ours, numpys = np.random.RandomState(n), np.random.RandomState(n)
    order, expected = np.arange(n, dtype=np.intp), np.arange(n, dtype=np.intp)
    for _ in range(3):
        engine.shuffle(order, ours)
        numpys.shuffle(expected)
        np.testing.assert_array_equal(order, expected)
    assert ours.randint(2**30) == numpys.randint(2**30), "another number of draws"


def test_shuffle_draws_from_any_bit_generator(engine):
    ours, numpys = (np.random.RandomState(np.random.PCG64(5)) for _ in range(2))
    order, expected = np.arange(1000, dtype=np.intp), np.arange(1000, dtype=np.intp)
    engine.shuffle(order, ours)
    numpys.shuffle(expected)
    np.testing.assert_array_equal(order, expected)


@pytest.mark.parametrize("random_state", [None, 0, np.random.default_rng(0)])
def test_shuffle_wants_a_random_state(engine, random_state):
    with pytest.raises(ValueError, match="random_state"):
        engine.shuffle(np.arange(9, dtype=np.intp), random_state)


# ------------------------------------------------------------------------------- what by_name refuses


WRONG = {
    "W of another width": (lambda e, f: by_name.hidden_backward(e, "tanh", f((4, 3)), f((1, 2)), f((4, 2))), "W"),
    "W of one dimension": (lambda e, f: by_name.linear_forward(e, f((4, 3)), f(3), f(1)), "W"),
    "W a list": (lambda e, f: by_name.linear_forward(e, f((4, 1)), [[1.0]], f(1)), "W"),
    "b of another length": (lambda e, f: by_name.linear_forward(e, f((4, 3)), f((3, 2)), f(1)), "b"),
    "b a number": (lambda e, f: by_name.linear_forward(e, f((4, 3)), f((3, 2)), 5.0), "b"),
    "b complex": (lambda e, f: by_name.linear_forward(e, f((4, 3)), f((3, 2)), f(2) * 1j), "b"),
    "X of another dtype": (lambda e, f: by_name.linear_forward(e, np.float32(f((4, 3))), f((3, 2)), f(2)), "X"),
    "delta of another dtype": (lambda e, f: by_name.linear_backward(e, f((4, 3)), np.float32(f((4, 2)))), "delta"),
    "params a list": (lambda e, f: by_name.update(e, "sgd", [1.0], f(1), [], (0.1,)), "params"),
    "unknown rule": (lambda e, f: by_name.update(e, "sdg", f(1), f(1), [], (0.1,)), "rule"),
}


@pytest.mark.parametrize("name", WRONG)
def test_by_name_refuses(engine, name):
    call, argument = WRONG[name]
    with pytest.raises(ValueError, match=f"^{argument} must "):
        call(engine, np.ones)


def test_update_refuses_a_state_that_is_params(engine):
    params, grad = np.ones(3), np.ones(3)
    with pytest.raises(ValueError, match="must not share memory"):
        by_name.update(engine, "momentum", params, grad, [params], (0.1, 0.9))
    assert params.tolist() == [1, 1, 1]
