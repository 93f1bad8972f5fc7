"""Gradients against central differences: every activation with every loss, and what only training has.

Each engine is compared with its own loss: nothing else stands in between.  The differences are of
fourth order, so that in float64 a relative error of 1e-6 can be asked of each number; data are
chosen so that nothing comes near a kink, where there is no derivative to compare with.
"""

import itertools

import numpy as np
import pytest

from fastmlp.engines import backends, by_name
from fastmlp.kernels import formulas, reference

from helpers import DIFFERENTIABLE, HIDDEN, LOSSES, Steps, make_data, make_network, make_params, name_of, one_hot

STEP = 2e-4  # error of the differences: STEP^4 / 30 of the fifth derivative, and 1e-16 / STEP of rounding
MARGIN = 0.01  # a step moves no pre-activation further than that
SEED, T = 2**63 + 5, 7  # of the dropout masks

#: Where the formulas or their first derivatives jump, as far as that is not at 0.
ACTIVATION_KINKS = {
    "relu6": (0, 6),
    "hardtanh": (-1, 1),
    "hardsigmoid": (-3, 3),
    "hardswish": (-3, 3),
}
#: Distance of targets and logits from the kinks of a loss.
LOSS_KINKS = {
    "hinge": lambda y, z: 1 - (2 * y - 1) * z,
    "perceptron": lambda y, z: z,
    "squared_hinge": lambda y, z: 1 - (2 * y - 1) * z,
    "absolute_error": lambda y, z: z - y,
    "quantile": lambda y, z: z - y,
    "huber": lambda y, z: np.abs(z - y) - 1,
}


@pytest.fixture(scope="module", params=backends.available())
def engine(request):
    """Each engine, the reference among them."""
    return backends.get(request.param)


def is_smooth(network, params, data):
    """Whether no pre-activation and no logit lies near a kink."""
    passes = reference._forward(network, params, data.X, reference._masks(network, data.X, SEED, T))
    for entry, one in zip(network.activations, passes, strict=False):
        for kink in ACTIVATION_KINKS.get(name_of(entry), (0,)):
            if np.abs(one.z - kink).min() < MARGIN:
                return False
    logits = passes[-1].z
    distance = LOSS_KINKS.get(name_of(network.loss), lambda y, z: np.inf)
    return np.abs(distance(one_hot(data.y, logits.shape[1], float), logits)).min() >= MARGIN


def problem(network, n=5, weighted=False, kind="C"):
    """-> (params, data) away from the kinks."""
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        params, data = make_params(rng, network), make_data(rng, network, n, weighted, kind)
        if is_smooth(network, params, data):
            return params, data
    raise AssertionError("no data away from the kinks")


def differences(value, params):
    """Fourth-order central differences: (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h for each number."""
    found = np.empty_like(params)
    for i in range(len(params)):
        f = []
        for k in (-2, -1, 1, 2):
            moved = params.copy()
            moved[i] += k * STEP
            f.append(value(moved))
        found[i] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * STEP)
    return found


def wrong(grad, expected, network):
    """Largest error in units of what is allowed, 1e-6 relative and the rounding error of a difference."""
    row = formulas.LOSSES[name_of(network.loss)]
    if row.mean_over_outputs:  # the loss is a mean over the outputs, the gradient that of their sum
        expected = expected * network.widths[-1]
    return np.max(np.abs(grad - expected) / (1e-6 * np.abs(expected) + 2e-11))


def check_loss_and_grad(engine, network, **data):
    params, data = problem(network, **data)
    workspace = engine.workspace(network, len(data.y))
    grad, unused = np.empty_like(params), np.empty_like(params)
    engine.loss_and_grad(workspace, params, data, 0.0, grad)
    return wrong(grad, differences(lambda p: engine.loss_and_grad(workspace, p, data, 0.0, unused), params), network)


def test_every_activation_with_every_loss(engine, tier, record_property):
    """The number of pairs is part of the assertion: 19 activations with a derivative, 14 losses.

    The quick tests take each activation and each loss once, and so does the gate on all engines but the first.
    """
    all_pairs = tier == "all" or (tier == "gate" and engine is backends.get(backends.available()[0]))
    once = zip(DIFFERENTIABLE, itertools.cycle(LOSSES), strict=False)
    pairs = [*(itertools.product(DIFFERENTIABLE, LOSSES) if all_pairs else once)]
    errors = {
        (activation, loss): check_loss_and_grad(engine, make_network((2, 3, 3, 2), loss, activation))
        for activation, loss in pairs
    }
    record_property("pairs", len(errors))
    failed = {pair: float(error) for pair, error in errors.items() if not error < 1}
    assert ({activation for activation, _ in pairs}, {loss for _, loss in pairs}) == ({*DIFFERENTIABLE}, {*LOSSES})
    assert (len(errors) >= (19 * 14 if all_pairs else 19), failed) == (True, {})


WITH_PARAMETERS = [
    (("leaky_relu", {"negative_slope": 0.3}), ("log_loss", {"label_smoothing": 0.2})),
    (("prelu", {"slope": -0.5}), ("focal", {"gamma": 0.5})),
    (("elu", {"alpha": 0.6}), ("focal", {"gamma": 0.0})),
    (("celu", {"alpha": 2.0}), ("binary_focal", {"gamma": 3.0})),
    (("softplus", {"beta": 3.0}), ("quantile", {"quantile": 0.1})),
    ("tanh", ("quantile", {"quantile": 0.8})),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("activation", "loss"), WITH_PARAMETERS, ids=str)
def test_parameters(engine, activation, loss, weighted):
    network = make_network((2, 3, 3, 2), loss, activation)
    assert check_loss_and_grad(engine, network, weighted=weighted) < 1


def test_step_passes_gradients_straight_through(engine):
    """The gradient of the step is that of hardtanh, of what is in front of it."""
    z = np.array([-1.5, -1.0, -0.3, 0.0, 0.3, 1.0, 1.5])
    assert by_name.activate(engine, "step", z).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert by_name.slope(engine, "step", z).tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert set(HIDDEN) - set(DIFFERENTIABLE) == {"step"}


# ------------------------------------------------------------------------------- what only training has

TRAINING = {
    "penalties": {},
    "batch_norm": {"batch_norm": True},
    "batch_norm after": {"batch_norm": "after"},
    "batch_norm in one layer": {"batch_norm": [False, "after"]},
    "dropout": {"dropout": (0.4, 0.3)},
    "input_dropout": {"input_dropout": 0.3},
    "all": {"batch_norm": True, "dropout": (0.4, 0.3), "input_dropout": 0.3},
    "all, batch_norm after, then before": {
        "batch_norm": ["after", "before"],
        "dropout": (0.4, 0.3),
        "input_dropout": 0.3,
    },
}


@pytest.mark.parametrize(("weighted", "kind"), [(False, "C"), (True, "csr int32")])
@pytest.mark.parametrize("case", TRAINING)
@pytest.mark.parametrize("activation", ["tanh", "gelu", ("prelu", "silu")], ids=str)
def test_gradient_of_a_training_step(engine, activation, case, weighted, kind):
    """A step of sgd with lr = 1 is minus the gradient of the loss that the step reports."""
    network = make_network((4, 5, 3, 2), "log_loss", activation, **TRAINING[case])
    n, alpha, l1 = 8, 0.3, 0.2
    params, data = problem(network, n, weighted, kind)
    workspace, order = engine.workspace(network, n), np.arange(n)

    def train(p, lr):
        optimizer = OneStep("sgd", [], T)
        optimizer.lr = lr
        p = p.copy()
        value = engine.train_epoch(workspace, p, data, order, n, alpha, optimizer, l1, SEED)
        return value, p

    _, after = train(params, 1.0)
    trained = slice(network.n_trained)
    expected = differences(lambda p: train(p, 0.0)[0], params)
    grad = params - after
    if network.batch_norm:
        assert not np.array_equal(after[network.n_trained :], params[network.n_trained :])
        assert np.abs(expected[network.n_trained :]).max() < 1e-10, "a batch's loss depends on running statistics"
    assert wrong(grad[trained], expected[trained], network) < 1


class OneStep(Steps):
    """sgd with a step size of the test's own."""

    lr = 0.0

    def scalars(self, n_steps):
        return np.full((n_steps, 1), self.lr)
