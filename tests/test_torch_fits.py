"""Whole fits of the estimators against PyTorch: copied weights, equal batches, its schedulers, class weights.

50 steps in float64; test_torch.py judges the engines, this file what the estimators hand to them.
"""

import math
from itertools import pairwise

import numpy as np
import pytest

from fastmlp import MLPClassifier, MLPRegressor

torch = pytest.importorskip("torch", reason="PyTorch judges here: pip install fastmlp[judges]")
pytestmark = [
    pytest.mark.usefixtures("one_torch_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:.*lr_scheduler.step"),
]

ROWS, EPOCHS, BATCH = 100, 10, 20
PER_EPOCH = ROWS // BATCH
STEPS = EPOCHS * PER_EPOCH
RATE = 0.05


def data(classes=3):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 6))
    y = np.argmax(X[:, :classes] + 0.5 * rng.normal(size=(ROWS, classes)), axis=1)
    y[:classes] = range(classes)
    return X, y


def start(widths):
    rng = np.random.default_rng(1)
    pairs = list(pairwise(widths))
    return [rng.normal(0, 0.5, pair) for pair in pairs], [rng.normal(0, 0.1, fan_out) for _, fan_out in pairs]


def torch_net(coefs, intercepts):
    layers = []
    for W, b in zip(coefs, intercepts, strict=True):
        linear = torch.nn.Linear(*W.shape, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(W.T))
            linear.bias.copy_(torch.tensor(b))
        layers += [linear, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def torch_fit(net, X, y, loss, optimizer, after_step=lambda step: None, after_epoch=lambda loss: None):
    X, y, step = torch.tensor(X), torch.tensor(y), 0
    for _ in range(EPOCHS):
        total = 0.0
        for i in range(0, ROWS, BATCH):
            optimizer.zero_grad()
            value = loss(net(X[i : i + BATCH]), y[i : i + BATCH])
            value.backward()
            optimizer.step()
            total += value.item() * BATCH
            step += 1
            after_step(step)
        after_epoch(total / ROWS)
    return [layer.weight.detach().numpy().T for layer in net if isinstance(layer, torch.nn.Linear)]


def fit(estimator, X, y, coefs, intercepts, **fit_params):
    same = {"hidden_layer_sizes": (8,), "activation": "tanh", "alpha": 0.0, "batch_size": BATCH, "shuffle": False}
    until = {"max_iter": EPOCHS, "tol": 0.0, "n_iter_no_change": EPOCHS + 1, "learning_rate_init": RATE}
    estimator.set_params(**same, **until)
    return estimator.fit(X, y, coef_init=coefs, intercept_init=intercepts, **fit_params)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rate_of_squared_error_is_twice_that_of_mse_over_outputs(n_outputs, momentum):
    X, _ = data()
    Y = np.tanh(X[:, :n_outputs])
    coefs, intercepts = start((6, 8, n_outputs))
    net = torch_net(coefs, intercepts)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE * n_outputs / 2, momentum=momentum)
    theirs = torch_fit(net, X, Y, torch.nn.MSELoss(), optimizer)
    ours = MLPRegressor(solver="sgd", momentum=momentum, nesterovs_momentum=False)
    fit(ours, X, Y if n_outputs > 1 else Y.ravel(), coefs, intercepts)
    for W, expected in zip(ours.coefs_, theirs, strict=True):
        np.testing.assert_allclose(W, expected, rtol=1e-10, atol=1e-12)


S = torch.optim.lr_scheduler
# learning_rate -> (PyTorch's scheduler, "step" or "epoch": when it moves)
SCHEDULES = {
    "constant": (lambda o: S.ConstantLR(o, factor=1.0), "step"),
    "step": (lambda o: S.StepLR(o, step_size=10, gamma=0.1), "epoch"),
    ("step", ("step_size", 3), ("gamma", 0.5)): (lambda o: S.StepLR(o, step_size=3, gamma=0.5), "epoch"),
    "exponential": (lambda o: S.ExponentialLR(o, gamma=0.95), "epoch"),
    "cosine": (lambda o: S.CosineAnnealingLR(o, T_max=STEPS), "step"),
    ("cosine", ("eta_min", 0.01)): (lambda o: S.CosineAnnealingLR(o, T_max=STEPS, eta_min=0.01), "step"),
    ("cosine_restarts", ("T_0", 2), ("T_mult", 2)): (
        lambda o: S.CosineAnnealingWarmRestarts(o, T_0=2 * PER_EPOCH, T_mult=2),
        "step",
    ),
    "one_cycle": (
        lambda o: S.OneCycleLR(o, max_lr=10 * RATE, total_steps=STEPS, cycle_momentum=False),
        "step",
    ),
    ("plateau", ("patience", 1), ("threshold", 0.05), ("factor", 0.3)): (
        lambda o: S.ReduceLROnPlateau(o, patience=1, threshold=0.05, factor=0.3),
        "loss",
    ),
    "coslog4": (
        lambda o: S.LambdaLR(o, lambda t: 0.5 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * t / STEPS)))),
        "step",
    ),
}


def schedule_of(name):
    return (name[0], dict(name[1:])) if isinstance(name, tuple) else name


@pytest.mark.covers("name", "solver")
@pytest.mark.parametrize("name", SCHEDULES, ids=str)
@pytest.mark.parametrize("solver", ["sgd", "adamw"])
def test_schedule(name, solver):
    X, y = data()
    coefs, intercepts = start((6, 8, 3))
    make, when = SCHEDULES[name]
    net = torch_net(coefs, intercepts)
    if solver == "sgd":
        ours = MLPClassifier(solver="sgd", momentum=0.0, learning_rate=schedule_of(name))
        optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    else:
        ours = MLPClassifier(solver="adamw", learning_rate=schedule_of(name))
        optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    scheduler = make(optimizer)
    steps = {
        "step": {"after_step": lambda step: scheduler.step() if step < STEPS else None},
        "epoch": {"after_epoch": lambda loss: scheduler.step()},
        "loss": {"after_epoch": lambda loss: scheduler.step(loss)},
    }[when]
    expected = torch_fit(net, X, y, torch.nn.CrossEntropyLoss(), optimizer, **steps)
    fit(ours, X, y, coefs, intercepts)
    for W, W_torch in zip(ours.coefs_, expected, strict=True):
        np.testing.assert_allclose(W, W_torch, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 3.5], "balanced"], ids=str)
def test_class_weight_and_label_smoothing(weights, smoothing):
    X, y = data()
    coefs, intercepts = start((6, 8, 3))
    given = dict(enumerate(weights)) if isinstance(weights, list) else weights
    ours = MLPClassifier(solver="sgd", momentum=0.0, class_weight=given)
    ours.set_params(loss__label_smoothing=smoothing)
    fit(ours, X, y, coefs, intercepts)
    if weights == "balanced":
        weights = ROWS / (3 * np.bincount(y))
    w = None if weights is None else torch.tensor(np.array(weights))

    def loss(z, t):
        # a weighted mean over rows; PyTorch's own smoothing spreads the class weights over the smoothed classes too
        rows = torch.nn.functional.cross_entropy(z, t, reduction="none", label_smoothing=smoothing)
        return rows.mean() if w is None else (w[t] * rows).sum() / w[t].sum()

    net = torch_net(coefs, intercepts)
    expected = torch_fit(net, X, y, loss, torch.optim.SGD(net.parameters(), lr=RATE))
    for W, W_torch in zip(ours.coefs_, expected, strict=True):
        np.testing.assert_allclose(W, W_torch, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_two_classes(smoothing):
    X, y = data(2)
    coefs, intercepts = start((6, 8, 1))
    ours = MLPClassifier(solver="sgd", momentum=0.0, class_weight={0: 1.0, 1: 3.0})
    ours.set_params(loss__label_smoothing=smoothing)
    fit(ours, X, y, coefs, intercepts)

    def loss(z, t):
        w = torch.where(t == 1, 3.0, 1.0).to(torch.float64)
        target = t.to(torch.float64) * (1 - smoothing) + smoothing / 2
        rows = torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], target, reduction="none")
        return (w * rows).sum() / w.sum()

    net = torch_net(coefs, intercepts)
    expected = torch_fit(net, X, y, loss, torch.optim.SGD(net.parameters(), lr=RATE))
    for W, W_torch in zip(ours.coefs_, expected, strict=True):
        np.testing.assert_allclose(W, W_torch, rtol=1e-7, atol=1e-10)


LOSSES = {
    "absolute_error": lambda z, t: (z - t).abs(),
    ("huber", ("delta", 0.7)): lambda z, t: torch.nn.functional.huber_loss(z, t, reduction="none", delta=0.7),
    "log_cosh": lambda z, t: torch.log(torch.cosh(z - t)),
    ("quantile", ("quantile", 0.8)): lambda z, t: torch.maximum(0.8 * (t - z), -0.2 * (t - z)),
    "poisson": lambda z, t: torch.exp(z) - t * z,
    "gamma": lambda z, t: t * torch.exp(-z) + z,
}


@pytest.mark.parametrize("name", LOSSES, ids=str)
def test_regressor_loss(name):
    X, _ = data()
    y = np.exp(0.3 * X[:, 0]) + 0.1
    coefs, intercepts = start((6, 8, 1))
    ours = MLPRegressor(schedule_of(name), solver="momentum", momentum=0.9)
    fit(ours, X, y, coefs, intercepts)
    net = torch_net(coefs, intercepts)
    expected = torch_fit(
        net,
        X,
        y,
        lambda z, t: LOSSES[name](z[:, 0], t).mean(),
        torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9),
    )
    for W, W_torch in zip(ours.coefs_, expected, strict=True):
        np.testing.assert_allclose(W, W_torch, rtol=1e-7, atol=1e-10)
