"""Time of every kernel, by engine and dtype; run with `pytest bench`.

Each builder below makes the arguments of one kernel and says how to call it. Before an engine is timed, its result is
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
    """One kernel ready to be called: `call(engine, **arrays)` writes into the arrays named in `outputs`."""

    call: object
    arrays: dict
    outputs: tuple


SCALARS = {"lr": 1e-3, "momentum": 0.9, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3}


class Steps:
    """The least that train_epoch needs of an optimizer: the same scalars at every step."""

    def __init__(self, rule, states):
        self.rule, self.states, self.t = rule, states, 0

    def scalars(self, n_steps):
        """float64 (n_steps, n_scalars)"""
        names = formulas.OPTIMIZERS[self.rule].scalars
        return np.tile([SCALARS[name] for name in names], (n_steps, 1)).astype(np.float64)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def targets(loss, n, n_outputs):
    """y (n,) of class indices for log_loss, else (n, n_outputs)."""
    classes = np.random.default_rng(1).integers(0, n_outputs, n)
    return classes.astype(np.intp) if loss == "log_loss" else np.eye(n_outputs)[classes]


# --- one builder per kernel, (n, n_features, n_hidden, n_outputs) -> Call ---------------------------------------------


def activate(name):
    def build(n, n_features, n_hidden, n_outputs):
        arrays = {"z": normal(n, n_hidden), "out": np.zeros((n, n_hidden))}
        return Call(lambda engine, z, out: engine.activate(name, z, out), arrays, ("out",))

    return build


def slope(name):
    def build(n, n_features, n_hidden, n_outputs):
        z = normal(n, n_hidden)
        a = np.zeros_like(z)
        reference.activate(name, z, a)
        arrays = {"z": z, "a": a, "out": np.zeros_like(z)}
        return Call(lambda engine, z, a, out: engine.slope(name, z, a, out), arrays, ("out",))

    return build


def linear_forward(n, n_features, n_hidden, n_outputs):
    arrays = {
        "X": normal(n, n_features),
        "W": normal(n_features, n_hidden),
        "b": normal(n_hidden),
        "out": np.zeros((n, n_hidden)),
    }
    return Call(lambda engine, X, W, b, out: engine.linear_forward(X, W, b, "relu", out), arrays, ("out",))


def linear_backward(n, n_features, n_hidden, n_outputs):
    arrays = {
        "X": np.maximum(normal(n, n_features), 0),
        "W": normal(n_features, n_hidden),
        "delta": normal(n, n_hidden),
        "grad_W": np.zeros((n_features, n_hidden)),
        "grad_b": np.zeros(n_hidden),
        "delta_below": np.zeros((n, n_features)),
    }

    def call(engine, X, W, delta, grad_W, grad_b, delta_below):
        engine.linear_backward(X, W, delta, "relu", grad_W, grad_b, delta_below)

    return Call(call, arrays, ("grad_W", "grad_b", "delta_below"))


def softmax(n, n_features, n_hidden, n_outputs):
    arrays = {"logits": normal(n, n_outputs), "out": np.zeros((n, n_outputs))}
    return Call(lambda engine, logits, out: engine.softmax(logits, out), arrays, ("out",))


def loss(name):
    def build(n, n_features, n_hidden, n_outputs):
        arrays = {
            "logits": normal(n, n_outputs),
            "y": targets(name, n, n_outputs),
            "delta": np.zeros((n, n_outputs)),
        }
        return Call(lambda engine, logits, y, delta: engine.loss(name, logits, y, None, delta), arrays, ("delta",))

    return build


def update(rule):
    def build(n, n_features, n_hidden, n_outputs):
        n_params = n_features * n_hidden
        states = {name: np.abs(normal(n_params)) for name in formulas.OPTIMIZERS[rule].states}
        scalars = Steps(rule, []).scalars(1)[0].tolist()
        arrays = {"params": normal(n_params), "grad": normal(n_params), **states}

        def call(engine, params, grad, **states):
            engine.update(rule, params, grad, list(states.values()), scalars)

        return Call(call, arrays, ("params", *states))

    return build


def network(n_features, n_hidden, n_outputs, dtype):
    return Network((n_features, n_hidden, n_outputs), ("relu",), "log_loss", np.dtype(dtype))


def parameters(*widths):
    """A flat vector (n_params,) with weights that keep the size of what flows through."""
    weights = [normal(fan_in * fan_out) / np.sqrt(fan_in) for fan_in, fan_out in pairwise(widths)]
    return np.concatenate([*weights, *(normal(fan_out) for fan_out in widths[1:])])


def predict(n, n_features, n_hidden, n_outputs):
    arrays = {
        "params": parameters(n_features, n_hidden, n_outputs),
        "X": normal(n, n_features),
        "out": np.zeros((n, n_outputs)),
    }
    workspaces = {}

    def call(engine, params, X, out):
        workspace = remembered(workspaces, engine, n_features, n_hidden, n_outputs, n, params.dtype)
        engine.predict(workspace, params, X, out)

    return Call(call, arrays, ("out",))


def loss_and_grad(n, n_features, n_hidden, n_outputs):
    params = parameters(n_features, n_hidden, n_outputs)
    arrays = {
        "params": params,
        "X": normal(n, n_features),
        "y": targets("log_loss", n, n_outputs),
        "grad": np.zeros_like(params),
    }
    workspaces = {}

    def call(engine, params, X, y, grad):
        workspace = remembered(workspaces, engine, n_features, n_hidden, n_outputs, n, params.dtype)
        return engine.loss_and_grad(workspace, params, Data(X, y, None), 1e-4, grad)

    return Call(call, arrays, ("grad",))


def train_epoch(rule):
    """Eight batches of n rows: gather, forward, loss, backward, penalty, update."""

    def build(n, n_features, n_hidden, n_outputs):
        params = parameters(n_features, n_hidden, n_outputs)
        states = {name: np.zeros_like(params) for name in formulas.OPTIMIZERS[rule].states}
        arrays = {
            "params": params,
            "X": normal(8 * n, n_features),
            "y": targets("log_loss", 8 * n, n_outputs),
            **states,
        }
        order = np.random.default_rng(2).permutation(8 * n).astype(np.intp)
        workspaces = {}

        def call(engine, params, X, y, **states):
            workspace = remembered(workspaces, engine, n_features, n_hidden, n_outputs, n, params.dtype)
            optimizer = Steps(rule, list(states.values()))
            return engine.train_epoch(workspace, params, Data(X, y, None), order, n, 1e-4, optimizer)

        return Call(call, arrays, ("params",))

    return build


def remembered(workspaces, engine, n_features, n_hidden, n_outputs, n, dtype):
    """The workspace of an engine and dtype, made at the first call and not timed after that."""
    key = engine.__name__, dtype
    if key not in workspaces:
        workspaces[key] = engine.workspace(network(n_features, n_hidden, n_outputs, dtype), n, n_jobs=1)
    return workspaces[key]


KERNELS = {
    **{f"activate {name}": activate(name) for name in formulas.ACTIVATIONS},
    **{f"slope {name}": slope(name) for name, row in formulas.ACTIVATIONS.items() if row.slope},
    "linear_forward": linear_forward,
    "linear_backward": linear_backward,
    "softmax": softmax,
    **{f"loss {name}": loss(name) for name in formulas.LOSSES},
    **{f"update {rule}": update(rule) for rule in formulas.OPTIMIZERS},
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
