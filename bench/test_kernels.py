"""Time of every call, activation, loss and rule, by engine and dtype; run with `pytest bench`.

Each builder below makes the arguments of one call and says how to make it; networks of one layer or two stand for the
single kernels. Before an engine is timed, its result is
compared with that of kernels/reference.py in float64, so a time that is printed is the time of the right answer.
Shapes are those of a whole-data step on iris and of a batch of digits.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.kernels import formulas, reference
from fastmlp.model.network import Network

SHAPES = {"iris": (150, 4, 16, 3), "digits": (200, 64, 100, 10)}  # rows, features, hidden units, outputs
DTYPES = ("float32", "float64")

# An error of this many roundings of the largest number in the result: products of up to 200 random terms, and
# functions of a few ULP on top.
ROUNDINGS = 64


class Call(NamedTuple):
    """One call ready to be made: `call(engine, **arrays)` writes into the arrays named in `outputs`."""

    call: object
    arrays: dict
    outputs: tuple


#: By name; all others are 0.5.
SCALARS = {"lr": 1e-3, "momentum": 0.9, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3}
SCALARS |= dict.fromkeys(("step_size", "step_g", "step_m"), 1e-3)


class Steps:
    """The least that train_epoch needs of an optimizer: the same scalars at every step."""

    def __init__(self, rule, states):
        self.rule, self.states, self.t = rule, states, 0

    def scalars(self, n_steps):
        """float64 (n_steps, n_scalars)"""
        names = formulas.OPTIMIZERS[self.rule].scalars
        return np.tile([SCALARS.get(name, 0.5) for name in names], (n_steps, 1)).astype(np.float64)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def targets(loss, n, n_outputs):
    """y (n,) of class indices if the loss takes them, else (n, n_outputs)."""
    classes = np.random.default_rng(1).integers(0, n_outputs, n)
    return classes.astype(np.intp) if formulas.LOSSES[loss].class_targets else np.eye(n_outputs)[classes]


# --- networks ---------------------------------------------------------------------------------------------------------


def parameters(*widths):
    """A flat vector (n_params,) with weights that keep the size of what flows through."""
    weights = [normal(fan_in * fan_out) / np.sqrt(fan_in) for fan_in, fan_out in pairwise(widths)]
    return np.concatenate([*weights, *(normal(fan_out) for fan_out in widths[1:])])


class Net:
    """A network and its workspaces, one per engine and dtype, made at the first call and not timed after that."""

    def __init__(self, widths, n, activation="relu", loss="log_loss"):
        self.widths, self.n, self.loss, self.workspaces = widths, n, loss, {}
        self.activations = (activation,) * (len(widths) - 2)

    def network(self, dtype):
        return Network(self.widths, self.activations, self.loss, np.dtype(dtype))

    def params(self):
        """Flat vector; what units learn, prelu's slope, is 0.25."""
        linear = parameters(*self.widths)
        return np.concatenate([linear, np.full(self.network("f8").n_params - len(linear), 0.25)])

    def workspace(self, engine, dtype):
        key = engine.__name__, dtype
        if key not in self.workspaces:
            self.workspaces[key] = engine.workspace(self.network(dtype), self.n, n_jobs=1)
        return self.workspaces[key]


# --- one builder per call, (n, n_features, n_hidden, n_outputs) -> Call -----------------------------------------------


def predicting(net, X):
    def call(engine, params, X, out):
        engine.predict(net.workspace(engine, params.dtype), params, X, out)

    return Call(call, {"params": net.params(), "X": X, "out": np.zeros((len(X), net.widths[-1]))}, ("out",))


def differentiating(net, X):
    params = net.params()
    arrays = {"params": params, "X": X, "y": targets(net.loss, len(X), net.widths[-1]), "grad": np.zeros_like(params)}

    def call(engine, params, X, y, grad):
        return engine.loss_and_grad(net.workspace(engine, params.dtype), params, Data(X, y, None), 1e-4, grad)

    return Call(call, arrays, ("grad",))


def training(net, X, rule, outputs):
    """An epoch of batches of net.n rows: gather, forward, loss, backward, penalty, update."""
    params, order = net.params(), np.random.default_rng(2).permutation(len(X)).astype(np.intp)
    states = {name: np.zeros_like(params) for name in formulas.OPTIMIZERS[rule].states}
    arrays = {"params": params, "X": X, "y": targets(net.loss, len(X), net.widths[-1]), **states}

    def call(engine, params, X, y, **states):
        workspace, optimizer = net.workspace(engine, params.dtype), Steps(rule, list(states.values()))
        return engine.train_epoch(workspace, params, Data(X, y, None), order, net.n, 1e-4, optimizer)

    return Call(call, arrays, ("params", *states) if outputs == "states too" else ("params",))


def predict_with(activation):
    """One wide hidden layer behind one feature, so that hardly more than the activation is computed."""
    return lambda n, n_features, n_hidden, n_outputs: predicting(Net((1, n_hidden, 1), n, activation), normal(n, 1))


def gradient_with(activation):
    return lambda n, n_features, n_hidden, n_outputs: differentiating(
        Net((1, n_hidden, 1), n, activation, "squared_error"), normal(n, 1)
    )


def gradient_of(loss):
    """One layer from one feature: hardly more than the loss is computed."""
    return lambda n, n_features, n_hidden, n_outputs: differentiating(Net((1, n_outputs), n, loss=loss), normal(n, 1))


def layer_forward(n, n_features, n_hidden, n_outputs):
    return predicting(Net((n_features, n_hidden), n, loss="squared_error"), normal(n, n_features))


def layer_backward(n, n_features, n_hidden, n_outputs):
    """Forward too: no call goes backward alone."""
    return differentiating(Net((n_features, n_hidden), n, loss="squared_error"), normal(n, n_features))


def step_of(rule):
    """A step on one row: hardly more than the update is computed."""
    return lambda n, n_features, n_hidden, n_outputs: training(
        Net((n_features, n_hidden), 1, loss="squared_error"), normal(1, n_features), rule, "states too"
    )


def predict(n, *widths):
    return predicting(Net(widths, n), normal(n, widths[0]))


def loss_and_grad(n, *widths):
    return differentiating(Net(widths, n), normal(n, widths[0]))


def train_epoch(rule):
    """Eight batches of n rows."""
    return lambda n, *widths: training(Net(widths, n), normal(8 * n, widths[0]), rule, "parameters")


HIDDEN = [name for name, row in formulas.ACTIVATIONS.items() if row.slope]
KERNELS = {
    **{f"predict {name}": predict_with(name) for name in HIDDEN},
    **{f"gradient {name}": gradient_with(name) for name in HIDDEN},
    "layer forward": layer_forward,
    "layer backward": layer_backward,
    **{f"loss {name}": gradient_of(name) for name in formulas.LOSSES},
    **{f"step {rule}": step_of(rule) for rule in formulas.OPTIMIZERS},
    "predict": predict,
    "loss_and_grad": loss_and_grad,
    **{f"train_epoch {rule}": train_epoch(rule) for rule in formulas.OPTIMIZERS},
}


# --- the one test ---------------------------------------------------------------------------------------------------


def converted(arrays, dtype):
    """Copies in the given dtype; indices stay indices."""
    return {name: a.astype(dtype) if a.dtype == np.float64 else a.copy() for name, a in arrays.items()}


def assert_same_result(engine, case, dtype):
    ours, theirs = converted(case.arrays, dtype), converted(case.arrays, np.float64)
    results = [case.call(engine, **ours), case.call(reference, **theirs)]
    if results[1] is not None:
        np.testing.assert_allclose(*results, rtol=ROUNDINGS * np.finfo(dtype).eps)
    for name in case.outputs:
        atol = ROUNDINGS * np.finfo(dtype).eps * np.abs(theirs[name]).max()
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("backend", backends.available())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel(benchmark, kernel, shape, dtype, backend):
    engine = backends.get(backend)
    case = KERNELS[kernel](*SHAPES[shape])
    assert_same_result(engine, case, np.dtype(dtype))
    benchmark.group = f"{kernel}, {shape}, {dtype}"
    benchmark(case.call, engine, **converted(case.arrays, dtype))
