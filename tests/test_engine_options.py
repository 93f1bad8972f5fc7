"""What options do inside an epoch: every compiled engine against the reference, and against itself with other threads.

Batch normalisation, dropout, learned slopes, penalties, decay, clipping, parameters of activations and losses, users'
formulas; alone and together, dense and sparse, over several steps with a short last batch.
"""

import numpy as np
import pytest

import fastmlp
from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.kernels import formulas, reference
from fastmlp.model.network import Network

from helpers import LAYOUTS, make_data, make_network


@pytest.fixture(scope="module")
def engine(engine_on_every_isa):
    return engine_on_every_isa


@fastmlp.activation
def swish(z):
    return z / (1 + exp(-z))  # noqa: F821  the formula language's


@fastmlp.activation
def magnitude(z):
    return z * z / abs(z)  # at 0, as in the padding of rows, neither this nor its slope is a number


@fastmlp.loss
def cauchy(y, p):
    return log1p((y - p) * (y - p))  # noqa: F821


class Optimizer:
    """What an engine asks of an optimizer, with everything that is optional."""

    def __init__(self, rule, n_params, dtype, decay=None, max_grad_norm=None):
        self.rule, self.t, self.max_grad_norm, self.decay = rule, 0, max_grad_norm, decay
        self.states = [np.zeros(n_params, dtype) for _ in formulas.OPTIMIZERS[rule].states]

    def scalars(self, n_steps):
        typical = {"lr": 0.01, "step_size": 0.01, "step_g": 0.01, "step_m": 0.01, "root_2": 0.5, "epsilon": 1e-3}
        row = [typical.get(name, 0.9) for name in formulas.OPTIMIZERS[self.rule].scalars]
        return np.tile(np.array(row), (n_steps, 1))

    def decays(self, n_steps):
        return None if self.decay is None else np.linspace(self.decay, 2 * self.decay, n_steps)


OPTIONS = {
    "dropout": {"dropout": (0.5, 0.2)},
    "input dropout": {"input_dropout": 0.3},
    "batch norm": {"batch_norm": True},
    "batch norm and dropout": {"batch_norm": True, "dropout": (0.3, 0.3), "input_dropout": 0.1},
    "batch norm after": {"batch_norm": "after"},
    "batch norm after, dropout": {"batch_norm": "after", "dropout": (0.3, 0.3), "input_dropout": 0.1},
    "batch norm after, prelu": {"activations": ("prelu", "gelu"), "batch_norm": "after", "dropout": (0.2, 0.0)},
    "batch norm after, then before": {"activations": ("logistic", "prelu"), "batch_norm": ["after", "before"]},
    "batch norm before, then after": {"activations": ("gelu", "relu"), "batch_norm": ["before", "after"]},
    "batch norm in one layer": {"batch_norm": [False, "after"], "dropout": (0.2, 0.3)},
    "users' activation, batch norm after": {"activations": (swish, swish), "batch_norm": "after"},
    "prelu": {"activations": ("prelu", "prelu")},
    "prelu, batch norm, dropout": {"activations": ("prelu", "gelu"), "batch_norm": True, "dropout": (0.2, 0.0)},
    "rrelu": {"activations": ("rrelu", ("rrelu", {"lower": 0.0, "upper": 0.9}))},
    "rrelu, dropout": {"activations": ("rrelu", "tanh"), "dropout": (0.3, 0.2)},
    "rrelu, batch norm": {"activations": ("rrelu", "rrelu"), "batch_norm": True, "dropout": (0.0, 0.2)},
    "rrelu, batch norm after": {"activations": ("rrelu", "rrelu"), "batch_norm": "after", "dropout": (0.2, 0.0)},
    "parameters": {"activations": (("leaky_relu", {"negative_slope": 0.3}), ("elu", {"alpha": 0.7}))},
    "users' activation": {"activations": (swish, "tanh")},
    "users' activation, batch norm": {"activations": (swish, swish), "batch_norm": True},
    "users' loss": {"loss": cauchy},
    "huber": {"loss": ("huber", {"delta": 0.4})},
    "gamma": {"loss": "gamma"},
    "label smoothing": {"loss": ("log_loss", {"label_smoothing": 0.2})},
    "focal": {"loss": ("focal", {"gamma": 1.5})},
    "kl_divergence": {"loss": "kl_divergence"},
    "l1": {"l1": 0.05},
    "decay": {"decay": 0.01},
    "max_grad_norm": {"max_grad_norm": 0.1},
    "everything": {
        "activations": ("prelu", swish),
        "batch_norm": True,
        "dropout": (0.3, 0.1),
        "input_dropout": 0.2,
        "l1": 0.05,
        "decay": 0.01,
        "max_grad_norm": 0.5,
        "loss": ("log_loss", {"label_smoothing": 0.1}),
    },
}


def targets(rng, loss, n, k, dtype):
    name = loss[0] if isinstance(loss, tuple) else loss
    if isinstance(name, str) and formulas.LOSSES[name].class_targets:
        return rng.integers(0, k, n).astype(np.intp)
    if name == "kl_divergence":
        y = rng.dirichlet(np.ones(k), n)
        y[::5] = np.eye(k)[0]  # zeros among them
        return y.astype(dtype)
    return rng.uniform(0.1, 2, (n, k)).astype(dtype)


def initial(rng, network):
    """Parameters of a training under way."""
    params = rng.normal(0, 0.4, network.n_params).astype(network.dtype)
    for unit in network.unit_parameters(params):
        for view in unit.values():
            view[...] = rng.uniform(0.5, 1.5, view.shape)
    for unit in filter(None, network.running_statistics(params)):
        unit["var"][...] = rng.uniform(0.5, 1.5, unit["var"].shape)
    return params


def train(
    module, options, dtype=np.float64, kind="C", n_jobs=1, rule="adam", n=70, batch=32, widths=(9, 33, 18, 3), epochs=2
):
    """(loss of each epoch, parameters, states) after epochs of several steps."""
    rng = np.random.default_rng(1)
    options = dict(options)
    penalty = {"l1": options.pop("l1", 0.0)}
    optimizer = {name: options.pop(name, None) for name in ("decay", "max_grad_norm")}
    loss = options.pop("loss", "log_loss")
    activations = options.pop("activations", ("tanh", "relu"))
    network = Network(widths, activations, loss, np.dtype(dtype), **options)
    params = initial(rng, network)
    X = LAYOUTS[kind](rng.normal(size=(n, widths[0])).astype(dtype))
    data = Data(X, targets(rng, loss, n, widths[-1], dtype), rng.uniform(0.5, 2, n).astype(dtype))
    solver = Optimizer(rule, len(params), dtype, **optimizer)
    workspace = module.workspace(network, batch, n_jobs)
    losses = []
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(n)
        losses.append(module.train_epoch(workspace, params, data, order, batch, 0.1, solver, seed=2**63 + 5, **penalty))
    assert solver.t == epochs * -(-n // batch)
    return np.array(losses), params, solver.states


@pytest.mark.parametrize("kind", ["C", "csr int32"])
@pytest.mark.parametrize("name", OPTIONS)
def test_option_agrees_with_the_reference(engine, name, kind):
    found, expected = (train(module, OPTIONS[name], kind=kind) for module in (engine, reference))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-7, atol=1e-10)
    for state, other in zip(found[2], expected[2], strict=True):
        np.testing.assert_allclose(state, other, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("batch_norm", [False, "before", "after"])
@pytest.mark.parametrize("option", [{}, {"max_grad_norm": 0.1}, {"l1": 0.01}], ids=str)
def test_activation_that_is_not_finite_at_0(engine, option, batch_norm):
    options = {**option, "activations": (magnitude, magnitude), "batch_norm": batch_norm}
    found, expected = (train(module, options) for module in (engine, reference))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", OPTIONS)
def test_option_in_float32(engine, name):
    # one step: beyond it Adam turns rounding of tiny gradients into steps of full size
    found, expected = (
        train(module, OPTIONS[name], np.float32, n=32, epochs=1, rule="sgd") for module in (engine, reference)
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", formulas.OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, {"decay": 0.01, "max_grad_norm": 0.1, "l1": 0.01, "batch_norm": True}])
def test_rule_agrees_with_the_reference(engine, rule, options):
    if rule == "lion":  # steps by the sign: a bias before batch normalisation has a gradient of nothing but rounding
        options = {name: value for name, value in options.items() if name != "batch_norm"}
    found, expected = (train(module, options, rule=rule) for module in (engine, reference))
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPTIONS)
def test_threads_give_the_same_bits(engine, name, dtype):
    if engine is reference:
        pytest.skip("the reference has no threads")
    one, two, four = (
        train(engine, OPTIONS[name], dtype, n_jobs=n_jobs, n=600, batch=280, widths=(9, 70, 35, 3))
        for n_jobs in (1, 2, 4)
    )
    for other in (two, four):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_batch_norm_takes_a_whole_batch_of_many_rows(engine):
    found, expected = (train(module, {"batch_norm": True}, n=1500, batch=1100) for module in (engine, reference))
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-7, atol=1e-9)


def test_predict_refuses_batch_norm(engine):
    network = Network((4, 5, 3), ("relu",), "log_loss", np.dtype("f8"), batch_norm=True)
    with pytest.raises(ValueError, match="batch_norm"):
        engine.predict(engine.workspace(network, 8), np.zeros(network.n_params), np.zeros((8, 4)), np.zeros((8, 3)))


@pytest.mark.parametrize("option", [{"batch_norm": True}, {"dropout": (0.5,)}, {"input_dropout": 0.5}])
def test_loss_and_grad_refuses_what_depends_on_batch_or_chance(engine, option):
    network = Network((4, 5, 3), ("relu",), "log_loss", np.dtype("f8"), **option)
    data = make_data(np.random.default_rng(0), make_network((4, 5, 3)), 8)
    params = np.zeros(network.n_params)
    with pytest.raises(ValueError, match="dropout"):
        engine.loss_and_grad(engine.workspace(network, 8), params, data, 0.0, params.copy())


def test_dropout_does_not_touch_predictions(engine):
    rng = np.random.default_rng(0)
    plain = Network((4, 5, 3), ("relu",), "log_loss", np.dtype("f8"))
    dropping = Network((4, 5, 3), ("relu",), "log_loss", np.dtype("f8"), dropout=(0.5,), input_dropout=0.5)
    params, X = rng.normal(size=plain.n_params), rng.normal(size=(20, 4))
    outputs = []
    for network in (plain, dropping):
        outputs.append(np.empty((20, 3)))
        engine.predict(engine.workspace(network, 20), params, X, outputs[-1])
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("seed", [-1, 2**64, None, "x"])
def test_seed_out_of_range(engine, seed):
    network = make_network((4, 5, 3))
    data = make_data(np.random.default_rng(0), network, 8)
    params = np.zeros(network.n_params)
    optimizer = Optimizer("sgd", len(params), np.float64)
    with pytest.raises((ValueError, TypeError)):
        engine.train_epoch(engine.workspace(network, 8), params, data, np.arange(8), 8, 0.0, optimizer, seed=seed)


def forged(**changes):
    """A user's formula whose program has been tampered with."""
    program = swish.program("value")._replace(**changes)

    class Forged(type(swish)):
        def program(self, kind):
            return program

    formula = object.__new__(Forged)
    formula.__dict__.update(swish.__dict__)
    return formula


BAD_PROGRAMS = {
    "unknown operation": {"instructions": np.array([[99, 2, 0, 0, 0, 0]], np.int32)},
    "register out of range": {"instructions": np.array([[0, 2, 16, 0, 0, 0]], np.int32)},
    "destination out of range": {"instructions": np.array([[0, 16, 0, 0, 0, 0]], np.int32)},
    "destination below zero": {"instructions": np.array([[0, -1, 0, 0, 0, 0]], np.int32)},
    "destination is an input": {"instructions": np.array([[0, 1, 0, 0, 0, 0]], np.int32)},
    "constant out of range": {"instructions": np.array([[0, 2, 0, -9, 0, 0]], np.int32)},
    "output out of range": {"output": 16},
    "output constant out of range": {"output": -9},
}


@pytest.mark.skipif("cython" not in backends.available(), reason="the Cython engine alone reads programs")
@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_forged_program_is_refused(name):
    network = make_network((4, 5, 3), activations=[forged(**BAD_PROGRAMS[name])])
    with pytest.raises(ValueError, match="program"):
        backends.get("cython").workspace(network, 8)
