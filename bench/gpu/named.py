"""Every kernel by name, compared with the reference, entry by entry of the tables of formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

#: Roundings of a result, in units of the dtype's epsilon and of the largest number in it.
ROUNDINGS = 64
ROWS, WIDTH, BELOW = 37, 9, 21
#: Scalars of the optimizers by name; all others are 0.5.
SCALARS = {"lr": 0.02, "momentum": 0.9, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3, "step_size": 0.02}

Check = Callable[[Any, Any, str], str]  # engine, reference, dtype -> what is shown of it


def named() -> Iterator[tuple[str, Check]]:
    """Yield the name and the check of every kernel, once for each entry of its table."""
    from fastmlp.kernels import formulas

    yield "linear_forward, linear_backward", _linear
    yield "softmax, log loss", _softmax
    yield "shuffle", _shuffle
    for name in formulas.ACTIVATIONS:
        yield f"activate, slope: {name}", _with(_activation, name)
    for name in formulas.LOSSES:
        yield f"loss: {name}", _with(_loss, name)
    for name in formulas.OPTIMIZERS:
        yield f"update: {name}", _with(_rule, name)


def _with(check: Callable[..., str], name: str) -> Check:
    return lambda engine, reference, dtype: check(engine, reference, dtype, name)


def _judge(ours: Any, theirs: Any) -> str:
    """Compare arrays that two engines made, and return the largest difference.

    Raises
    ------
    AssertionError
        If a difference is more than rounding.
    """
    worst = 0.0
    for found, expected in zip(ours, theirs, strict=True):
        found, expected = np.asarray(found), np.asarray(expected)
        assert found.shape == expected.shape, f"shape {found.shape}, not {expected.shape}"
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        scale = max(float(np.max(np.abs(expected), initial=0, where=np.isfinite(expected))), 1.0)
        with np.errstate(invalid="ignore"):
            differences = np.where(same, 0, np.abs(found - expected)) / scale
        # so that NaN is a difference
        assert np.all(differences <= ROUNDINGS * np.finfo(expected.dtype).eps), f"differs by {np.max(differences):.0e}"
        worst = max(worst, float(np.max(differences, initial=0)))
    return f"differs by {worst:.0e} at most"


def _linear(engine: Any, reference: Any, dtype: str) -> str:
    from fastmlp.engines import by_name

    rng = np.random.default_rng(0)
    shapes = (ROWS, BELOW), (BELOW, WIDTH), (WIDTH,), (ROWS, WIDTH)
    X, W, b, delta = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    found = by_name.linear_forward(engine, X, W, b, "tanh"), *by_name.linear_backward(engine, X, delta)
    a = reference.activate("gelu", X)
    below = (delta @ W.T) * reference.slope("gelu", X, a)
    expected = np.tanh(X @ W + b), X.T @ delta, delta.sum(axis=0), a.T @ delta, delta.sum(axis=0), below
    return _judge((*found, *by_name.hidden_backward(engine, "gelu", X, W, delta)), expected)


def _softmax(engine: Any, reference: Any, dtype: str) -> str:
    from fastmlp.engines import by_name

    rng = np.random.default_rng(1)
    z, y = rng.normal(0, 30, (ROWS, WIDTH)).astype(dtype), rng.integers(0, WIDTH, ROWS).astype(np.intp)
    found, expected = by_name.loss(engine, "log_loss", z, y), reference.loss("log_loss", z, y)
    return _judge((by_name.softmax(engine, z), *found), (reference.softmax(z), *_as(dtype, expected)))


def _as(dtype: str, loss: tuple[float, np.ndarray]) -> tuple[Any, np.ndarray]:
    """Return a loss and its delta, the loss with the dtype that it was computed in."""
    return np.dtype(dtype).type(loss[0]), loss[1]


def _shuffle(engine: Any, reference: Any, dtype: str) -> str:
    found = []
    for module in (engine, reference):
        order = np.arange(1000)
        module.shuffle(order, np.random.RandomState(5))
        found.append((order.astype(dtype),))
    return _judge(*found)


def _activation(engine: Any, reference: Any, dtype: str, name: str) -> str:
    from fastmlp.engines import by_name
    from fastmlp.kernels import formulas

    z = np.random.default_rng(2).normal(0, 3, 300)
    z = np.concatenate([z, [-0.0, 0.0, 40.0, -40.0, np.inf, -np.inf, np.nan]]).astype(dtype)
    a = reference.activate(name, z)
    found, expected = [by_name.activate(engine, name, z)], [a]
    if formulas.ACTIVATIONS[name].slope is not None:
        found.append(by_name.slope(engine, name, z[:300]))
        expected.append(reference.slope(name, z[:300], a[:300]))
    return _judge(found, expected)


def _loss(engine: Any, reference: Any, dtype: str, name: str) -> str:
    from fastmlp.engines import by_name
    from fastmlp.kernels import formulas

    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (ROWS, WIDTH)).astype(dtype)
    if formulas.LOSSES[name].class_targets:
        y = rng.integers(0, WIDTH, ROWS).astype(np.intp)
    else:  # distributions, and so numbers in (0, 1], which all other losses allow
        y = rng.uniform(0.1, 1, (ROWS, WIDTH))
        y = (y / y.sum(axis=1, keepdims=True)).astype(dtype)
        if name in ("binary_log_loss", "binary_focal", "hinge", "squared_hinge"):
            y = (y > 1 / WIDTH).astype(dtype)
    weight = rng.uniform(0.1, 3, ROWS).astype(dtype)
    found, expected = by_name.loss(engine, name, logits, y, weight), reference.loss(name, logits, y, weight)
    return _judge(found, _as(dtype, expected))


def _rule(engine: Any, reference: Any, dtype: str, name: str) -> str:
    from fastmlp.engines import by_name
    from fastmlp.kernels import formulas

    row, rng = formulas.OPTIMIZERS[name], np.random.default_rng(4)
    p, g = rng.normal(size=(2, 301)).astype(dtype)
    states = [rng.uniform(0, 0.1, 301).astype(dtype) for _ in row.states]
    scalars = [SCALARS.get(scalar, 0.5) for scalar in row.scalars]
    found, expected = ([p.copy(), *(state.copy() for state in states)] for _ in range(2))
    by_name.update(engine, name, found[0], g, found[1:], scalars)
    reference.update(name, expected[0], g, expected[1:], scalars)
    return _judge(found, expected)


EPSILON = SCALARS["epsilon"]
