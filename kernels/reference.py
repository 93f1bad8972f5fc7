"""The engine as a textbook states it: plain NumPy, one equation at a time, clear before fast.

Where it sits: a backend like any other (``fastmlp.engines.backends.get("reference")``), and the judge of
all others: the tests compare every engine with this file.  It therefore states each formula a
second time and imports nothing from formulas.py.  A new activation, loss or optimizer is one entry
in a table below and one row in formulas.py.

Reading order: the three tables, single functions, the whole network (layout, forward, backward,
dropout), the calls, entries of the tables; feature blocks are in reference_inputs.py.  Arguments of the
calls, their shapes and what is raised are documented in contract.py.  The file is longer than others: a judge is read
as a whole, beside a textbook, and must not depend on parts that engines share.

An activation or a loss is a name, a pair (name, {parameter: value}), or a formula of the user's
own, which brings its NumPy functions along.

Sources: Rumelhart, Hinton & Williams 1986 (back-propagation); Bishop 2006, chapters 4 and 5 (losses
with their canonical links); Sutskever et al. 2013 (Nesterov's momentum); Kingma & Ba 2015 (Adam);
Srivastava et al. 2014 (dropout); Ioffe & Szegedy 2015 (batch normalisation); for the other
activations, losses and rules see formulas.py.  Conventions (what is averaged, what is clipped) are
scikit-learn's where it has any, PyTorch's otherwise.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit, ndtr, xlogy

from fastmlp.kernels import interrupts
from fastmlp.kernels import reference_inputs as inputs
from fastmlp.kernels.arguments import (
    batch_size_of,
    check_array,
    check_codes,
    check_dense,
    check_indices,
    check_loss_and_grad,
    check_network,
    check_one_epoch,
    check_order,
    check_orders,
    check_plans,
    check_predict,
    check_samples,
    check_schedule,
    check_shared,
    check_shares,
    check_shuffle,
    check_states,
    check_weights,
    check_workspace,
    entry_of,
    memory_of_sums,
    row_of,
    seed_of,
)
from fastmlp.kernels.contract import NO_WEIGHT, Data, Optimizer, Shared, each_epoch, shuffle_each

Array = np.ndarray

# --- the tables ----------------------------------------------------------------------------------


def _gate(z: Array, p: Array) -> Array:  # z p, and 0 where p is 0, however large z
    return np.where(p == 0, 0, z * p).astype(z.dtype)


def _expit(
    z: Array,
) -> Array:  # e / (1 + e) with e = exp(z) below 0: SciPy's is 0 already where that is a small number yet
    e = np.exp(np.minimum(z, 0))
    return np.where(z < 0, e / (1 + e), expit(z))


def _gelu_tanh_gate(z: Array) -> Array:  # (1 + tanh(u)) / 2 = logistic(2u), u = sqrt(2 / pi) (z + 0.044715 z^3)
    return expit(math.sqrt(8 / math.pi) * (z + 0.044715 * z**3))


def _gelu_slope(z: Array) -> Array:  # P + z p, distribution and density of a normal variable
    z = _not_infinite(z)
    return ndtr(z) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _gelu_tanh_slope(z: Array) -> Array:
    z = _not_infinite(z)
    p, q = _gelu_tanh_gate(z), _gelu_tanh_gate(-z)
    return p + z * p * q * math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * z**2)


def _silu_slope(z: Array) -> Array:
    z = _not_infinite(z)
    return expit(z) * (1 + z * expit(-z))


def _mish_slope(z: Array) -> Array:  # t + z (1 - t^2) logistic(z), t = tanh(softplus(z)), 1 - tanh^2 = 1 / cosh^2
    z = np.clip(z, -1000, 40)
    softplus = np.logaddexp(0, z)
    return np.tanh(softplus) + z * expit(z) / np.cosh(softplus) ** 2


def _not_infinite(z: Array) -> Array:  # beyond 1000 the slopes of gelu and silu have long been 0 or 1
    return np.clip(z, -1000, 1000)


def _inside(a: Array, low: float, high: float) -> Array:  # 1 where clipping left a as it was
    return 1 - ((a <= low) | (a >= high))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

#: name: (a = f(z), da/dz).  Functions of z; a slope takes what it needs by name: ``z``, ``a`` or
#: both.  Further arguments are the parameters with their defaults.  None: this row is only an
#: output link.
ACTIVATIONS: dict[str, tuple[Callable, Callable | None]] = {
    "identity": (lambda z: z, lambda a: np.ones_like(a)),
    "logistic": (expit, lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: 1 - a * a),
    "relu": (lambda z: np.maximum(z, 0), lambda a: (a != 0).astype(a.dtype)),  # 0 at the kink
    "exp": (np.exp, None),
    "leaky_relu": (
        lambda z, negative_slope=0.01: np.where(z > 0, z, negative_slope * z),
        lambda a, negative_slope=0.01: np.where(a > 0, 1, negative_slope),
    ),
    "rrelu": (  # with the mean slope; a step of training draws slopes: see _drawn
        lambda z, lower=1 / 8, upper=1 / 3: np.where(z > 0, z, (lower + upper) / 2 * z),
        lambda a, lower=1 / 8, upper=1 / 3: np.where(a > 0, 1, (lower + upper) / 2),
    ),
    "prelu": (  # in a network ``slope`` is (fan_out,), one learned number per unit
        lambda z, slope=0.25: np.where(z > 0, z, slope * z),
        lambda z, slope=0.25: np.where(z > 0, 1, slope),
    ),
    "relu6": (lambda z: np.clip(z, 0, 6), lambda a: _inside(a, 0, 6)),
    "elu": (
        lambda z, alpha=1.0: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
        lambda a, alpha=1.0: np.where(a > 0, 1, a + alpha),
    ),
    "selu": (  # scale * elu
        lambda z: _SELU_SCALE * np.where(z > 0, z, _SELU_ALPHA * np.expm1(np.minimum(z, 0))),
        lambda a: np.where(a > 0, _SELU_SCALE, a + _SELU_SCALE * _SELU_ALPHA),
    ),
    "celu": (
        lambda z, alpha=1.0: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0) / alpha)),
        lambda a, alpha=1.0: np.where(a > 0, 1, 1 + a / alpha),
    ),
    "gelu": (lambda z: _gate(z, ndtr(z)), _gelu_slope),
    "gelu_tanh": (lambda z: _gate(z, _gelu_tanh_gate(z)), _gelu_tanh_slope),
    "silu": (lambda z: _gate(z, _expit(z)), _silu_slope),
    "mish": (lambda z: _gate(z, np.tanh(np.logaddexp(0, z))), _mish_slope),
    "softplus": (
        lambda z, beta=1.0: np.logaddexp(0, beta * z) / beta,
        lambda a, beta=1.0: -np.expm1(-beta * a),  # logistic(beta z)
    ),
    "softsign": (
        lambda z: np.where(np.isinf(z), np.sign(z), z / (1 + np.abs(z))),
        lambda a: (1 - np.abs(a)) ** 2,
    ),
    "hardtanh": (
        lambda z, min_val=-1.0, max_val=1.0: np.clip(z, min_val, max_val),
        lambda a, min_val=-1.0, max_val=1.0: _inside(a, min_val, max_val),
    ),
    "hardsigmoid": (lambda z: np.clip(z + 3, 0, 6) / 6, lambda a: _inside(a, 0, 1) / 6),
    "hardswish": (
        lambda z: _gate(z, np.clip(z + 3, 0, 6) / 6),
        lambda z: np.where(z <= -3, 0, np.where(z >= 3, 1, z / 3 + 0.5)),
    ),
    "step": (  # straight-through: backward as if it were hardtanh (Bengio et al. 2013)
        lambda z: np.heaviside(z, 1),
        lambda z: np.abs(z) <= 1,
    ),
}


def softmax(z: Array) -> Array:  # p_k = exp(z_k - max z) / sum_j exp(z_j - max z)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _minus_log_softmax(z: Array) -> Array:
    shifted = z - z.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1, keepdims=True)) - shifted


def _log_loss(
    z: Array, y: Array, label_smoothing: float = 0.0
) -> Array:  # -sum_k t_k log p_k; clipped as scikit-learn does where it has this loss
    minus_log_p = _minus_log_softmax(z)
    if label_smoothing == 0:
        minus_log_p = _clip(minus_log_p)
    return np.sum(_smooth(y, label_smoothing) * minus_log_p, axis=1)


def _log_loss_delta(z: Array, y: Array, label_smoothing: float = 0.0) -> Array:
    return softmax(z) - _smooth(y, label_smoothing)


def _smooth(y: Array, label_smoothing: float) -> Array:  # t = (1 - e) onehot + e / K
    return (1 - label_smoothing) * y + label_smoothing / y.shape[1]


def _focal(
    z: Array, y: Array, gamma: float = 2.0
) -> Array:  # (1 - p)^gamma * -log p, with p the probability of the class that it is
    _, q, minus_log_p = _class_that_it_is(z, y)
    return np.sum(q**gamma * minus_log_p, axis=1)


def _focal_delta(
    z: Array, y: Array, gamma: float = 2.0
) -> Array:  # (1 - p)^gamma (gamma p * -log p + 1 - p) (r - y), r: softmax of the other classes
    p, q, minus_log_p = _class_that_it_is(z, y)
    r = np.divide((1 - y) * p, q, out=np.zeros_like(p), where=q != 0)
    p = np.sum(y * p, axis=1, keepdims=True)
    return q**gamma * (gamma * _gate(minus_log_p, p) + q) * (r - y)


def _class_that_it_is(z: Array, y: Array) -> tuple[Array, Array, Array]:
    """-> softmax; and of the class that y is (n, 1): 1 - p and -log p, both with all their digits."""
    p = softmax(z)
    q = np.sum((1 - y) * p, axis=1, keepdims=True)
    minus_log_p = np.sum(np.where(y == 1, _minus_log_softmax(z), 0), axis=1, keepdims=True)
    return p, q, np.where(q < 0.5, -np.log1p(-np.minimum(q, 0.5)), minus_log_p)


def _kl_divergence(z: Array, y: Array) -> Array:  # sum_k y_k (log y_k - log p_k)
    return np.sum(xlogy(y, y) + np.where(y == 0, 0, y * _minus_log_softmax(z)), axis=1)


def _kl_divergence_delta(z: Array, y: Array) -> Array:
    return softmax(z) * y.sum(axis=1, keepdims=True) - y


def _binary_log_loss(z: Array, y: Array) -> Array:  # -sum_k y_k log p_k + (1 - y_k) log(1 - p_k)
    # -log p = log(1 + exp(-z)) and -log(1 - p) = log(1 + exp(z))
    return np.sum(y * _clip(np.logaddexp(0, -z)) + (1 - y) * _clip(np.logaddexp(0, z)), axis=1)


def _binary_focal(
    z: Array, y: Array, gamma: float = 2.0
) -> Array:  # as _focal, for each output by itself; m is large where p is near 1
    m = (2 * y - 1) * z
    return np.sum(expit(-m) ** gamma * np.logaddexp(0, -m), axis=1)


def _binary_focal_delta(z: Array, y: Array, gamma: float = 2.0) -> Array:
    m = np.clip((2 * y - 1) * z, -1e30, 1e30)
    p, q = expit(m), expit(-m)
    return (1 - 2 * y) * q**gamma * (gamma * p * np.logaddexp(0, -m) + q)


def _hinge(z: Array, y: Array) -> Array:  # max(0, 1 - s z) with s = -1 for y = 0 and 1 for y = 1
    return np.sum(np.maximum(0, 1 - (2 * y - 1) * z), axis=1)


def _hinge_delta(z: Array, y: Array) -> Array:
    return (1 - 2 * y) * np.heaviside(1 - (2 * y - 1) * z, 0)


def _perceptron(z: Array, y: Array) -> Array:  # max(0, -s z)
    return np.sum(np.maximum(0, (1 - 2 * y) * z), axis=1)


def _perceptron_delta(z: Array, y: Array) -> Array:  # a row on the boundary is one to learn from
    return (1 - 2 * y) * np.heaviside((1 - 2 * y) * z, 1)


def _squared_hinge(z: Array, y: Array) -> Array:
    return np.sum(np.maximum(0, 1 - (2 * y - 1) * z) ** 2, axis=1)


def _squared_hinge_delta(z: Array, y: Array) -> Array:
    return 2 * (1 - 2 * y) * np.maximum(0, 1 - (2 * y - 1) * z)


def _squared_error(z: Array, y: Array) -> Array:  # a mean over the outputs, where the other losses are sums
    return np.mean((z - y) ** 2 / 2, axis=1)


def _absolute_error(z: Array, y: Array) -> Array:
    return np.sum(np.abs(z - y), axis=1)


def _huber(z: Array, y: Array, delta: float = 1.0) -> Array:
    d = np.abs(z - y)
    return np.sum(np.where(d <= delta, d**2 / 2, delta * (d - delta / 2)), axis=1)


def _huber_delta(z: Array, y: Array, delta: float = 1.0) -> Array:
    return np.clip(z - y, -delta, delta)


def _log_cosh(
    z: Array, y: Array
) -> Array:  # log(1 + 2 sinh(d/2)^2) where d is small, d + log(1 + exp(-2d)) - log 2 elsewhere
    d = np.abs(z - y)
    small = np.log1p(2 * np.sinh(np.minimum(d, 1) / 2) ** 2)
    return np.sum(np.where(d < 1, small, d + np.log1p(np.exp(-2 * d)) - math.log(2)), axis=1)


def _quantile(z: Array, y: Array, quantile: float = 0.5) -> Array:  # the pinball loss
    return np.sum(np.maximum(quantile * (y - z), (quantile - 1) * (y - z)), axis=1)


def _quantile_delta(z: Array, y: Array, quantile: float = 0.5) -> Array:
    sign = np.sign(z - y)
    return np.where(sign > 0, (1 - quantile) * sign, quantile * sign)


def _poisson(z: Array, y: Array) -> Array:  # half the deviance, sum_k y_k log(y_k / p_k) - y_k + p_k with p = exp(z)
    t = np.minimum(z, 1e4)  # exp(inf) - inf is inf, and so is exp(inf) - 0 inf
    return np.sum(xlogy(y, y) - np.where(y == 0, 0, y * t) - y + np.exp(z), axis=1)


def _gamma(z: Array, y: Array) -> Array:  # half the deviance, sum_k y_k / p_k - log(y_k / p_k) - 1 with p = exp(z)
    z = np.maximum(z, -1e30)  # exp(inf) - inf is inf, too
    return np.sum(y * np.exp(-z) + z - np.log(y) - 1, axis=1)


def _clip(minus_log_p: Array) -> Array:  # as if p had been clipped to [eps, 1 - eps] before the logarithm
    eps = np.finfo(minus_log_p.dtype).eps
    return np.clip(minus_log_p, -np.log1p(-eps), -np.log(eps))


class Loss(NamedTuple):
    """A loss with its output link.  Arguments after z and y are parameters with their defaults."""

    link: Callable  # logits (n, n_outputs) -> predictions (n, n_outputs)
    rows: Callable  # logits, y (n, n_outputs) -> loss of each row (n,)
    delta: Any = None  # d loss / d logits (n, n_outputs); None: canonical, link(logits) - y
    classes: bool = False  # targets are class indices; y is then one-hot


LOSSES: dict[str, Loss] = {
    "log_loss": Loss(softmax, _log_loss, _log_loss_delta, classes=True),
    "binary_log_loss": Loss(expit, _binary_log_loss),
    "squared_error": Loss(lambda z: z, _squared_error),
    "poisson": Loss(np.exp, _poisson),
    "focal": Loss(softmax, _focal, _focal_delta, classes=True),
    "binary_focal": Loss(expit, _binary_focal, _binary_focal_delta),
    "kl_divergence": Loss(softmax, _kl_divergence, _kl_divergence_delta),
    "hinge": Loss(lambda z: z, _hinge, _hinge_delta),
    "perceptron": Loss(lambda z: z, _perceptron, _perceptron_delta),
    "squared_hinge": Loss(lambda z: z, _squared_hinge, _squared_hinge_delta),
    "absolute_error": Loss(lambda z: z, _absolute_error, lambda z, y: np.sign(z - y)),
    "huber": Loss(lambda z: z, _huber, _huber_delta),
    "log_cosh": Loss(lambda z: z, _log_cosh, lambda z, y: np.tanh(z - y)),
    "quantile": Loss(lambda z: z, _quantile, _quantile_delta),
    "gamma": Loss(np.exp, _gamma, lambda z, y: 1 - y * np.exp(-z)),
}


def _sgd(p: Array, g: Array, lr: float) -> tuple[Array, ...]:
    return (p - lr * g,)


def _momentum(p: Array, g: Array, velocity: Array, lr: float, momentum: float) -> tuple[Array, ...]:
    velocity = momentum * velocity - lr * g
    return p + velocity, velocity


def _nesterov(
    p: Array, g: Array, velocity: Array, lr: float, momentum: float
) -> tuple[Array, ...]:  # looks one step ahead along the new velocity
    velocity = momentum * velocity - lr * g
    return p + momentum * velocity - lr * g, velocity


def _adam(
    p: Array, g: Array, m: Array, v: Array, lr: float, beta_1: float, beta_2: float, epsilon: float
) -> tuple[Array, ...]:
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    return p - lr * m / (np.sqrt(v) + epsilon), m, v


def _adamw(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    step_size: float,
    root_2: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> tuple[Array, ...]:  # the decay itself is not part of the rule
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    return p - step_size * m / (np.sqrt(v) / root_2 + epsilon), m, v


def _amsgrad(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    v_max: Array,
    step_size: float,
    root_2: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> tuple[Array, ...]:
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    v_max = np.maximum(v_max, v)
    return p - step_size * m / (np.sqrt(v_max) / root_2 + epsilon), m, v, v_max


def _nadam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    step_g: float,
    step_m: float,
    root_2: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> tuple[Array, ...]:
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    return p - (step_g * g + step_m * m) / (np.sqrt(v) / root_2 + epsilon), m, v


def _rmsprop(p: Array, g: Array, v: Array, lr: float, rho: float, epsilon: float) -> tuple[Array, ...]:
    v = rho * v + (1 - rho) * g**2
    return p - lr * g / (np.sqrt(v) + epsilon), v


def _adagrad(p: Array, g: Array, total: Array, lr: float, epsilon: float) -> tuple[Array, ...]:
    total = total + g**2
    return p - lr * g / (np.sqrt(total) + epsilon), total


def _adadelta(p: Array, g: Array, v: Array, u: Array, lr: float, rho: float, epsilon: float) -> tuple[Array, ...]:
    v = rho * v + (1 - rho) * g**2
    step = np.sqrt(u + epsilon) / np.sqrt(v + epsilon) * g
    u = rho * u + (1 - rho) * step**2
    return p - lr * step, v, u


def _lion(p: Array, g: Array, m: Array, lr: float, beta_1: float, beta_2: float) -> tuple[Array, ...]:
    step = np.sign(beta_1 * m + (1 - beta_1) * g)
    return p - lr * step, beta_2 * m + (1 - beta_2) * g


class Rule(NamedTuple):
    """An optimizer: (p, g, *states, *scalars) -> (p, *states)."""

    step: Callable
    states: tuple[str, ...]
    scalars: tuple[str, ...]


OPTIMIZERS: dict[str, Rule] = {
    "sgd": Rule(_sgd, (), ("lr",)),
    "momentum": Rule(_momentum, ("velocity",), ("lr", "momentum")),
    "nesterov": Rule(_nesterov, ("velocity",), ("lr", "momentum")),
    "adam": Rule(_adam, ("m", "v"), ("lr", "beta_1", "beta_2", "epsilon")),
    "adamw": Rule(_adamw, ("m", "v"), ("step_size", "root_2", "beta_1", "beta_2", "epsilon")),
    "amsgrad": Rule(_amsgrad, ("m", "v", "v_max"), ("step_size", "root_2", "beta_1", "beta_2", "epsilon")),
    "nadam": Rule(_nadam, ("m", "v"), ("step_g", "step_m", "root_2", "beta_1", "beta_2", "epsilon")),
    "rmsprop": Rule(_rmsprop, ("v",), ("lr", "rho", "epsilon")),
    "adagrad": Rule(_adagrad, ("total",), ("lr", "epsilon")),
    "adadelta": Rule(_adadelta, ("v", "u"), ("lr", "rho", "epsilon")),
    "lion": Rule(_lion, ("m",), ("lr", "beta_1", "beta_2")),
}

# --- single functions: the tables' entries with their parameters ---------------------------------


def activate(activation: Any, z: Array) -> Array:
    """An activation: a = f(z)."""
    return _activation(activation)(z)


def slope(activation: Any, z: Array, a: Array) -> Array:
    """The slope of an activation: da/dz at z, where a = f(z)."""
    return _slope(activation)(z, a)


def loss(name: Any, logits: Array, y: Array, sample_weight: Array | None = None) -> tuple[float, Array]:
    """Mean loss over the rows, and delta = d loss / d logits * sample_weight.

    The mean is sum_i w_i l_i / sum_i w_i, where l_i is a sum over the outputs (squared_error: a
    mean).  ``delta`` is the derivative of sum_i w_i l_i by the logits (squared_error: of the sum
    over the outputs); it is not divided by anything.  In the log losses each -log p is clipped as
    if p were in [eps, 1 - eps]; ``delta`` is not clipped.  All of it as in scikit-learn.  Other
    losses, and log_loss with label smoothing, are not clipped.
    """
    row, w = _loss(name), sample_weight
    y = _targets(row, y, logits.shape, logits.dtype)
    return float(np.average(row.rows(logits, y), weights=w)), row.delta(logits, y) * (1 if w is None else w[:, None])


def update(rule: str, params: Array, grad: Array, states: list[Array], scalars: Sequence[float] | Array) -> None:
    """One optimizer step in place: params, *states = step(params, grad, *states, *scalars)."""
    # as Python's floats: unlike a NumPy float64, they do not promote a float32 array
    new = OPTIMIZERS[rule].step(params, grad, *states, *map(float, scalars))
    for old, value in zip([params, *states], new, strict=True):
        old[...] = value


# --- the whole network ---------------------------------------------------------------------------


class Workspace(NamedTuple):
    """This engine allocates as it goes, so its workspace is only what it must remember."""

    network: Any
    batch_size: int


def workspace(network: Any, batch_size: int, n_jobs: int | None = None) -> Workspace:
    """What the other calls need besides their arguments."""
    _loss(network.loss)
    check_network(network)
    for activation in network.activations:
        _slope(activation)
    return Workspace(network, batch_size_of(batch_size))


def _layout(network: Any) -> list[tuple[str, int, tuple[int, ...]]]:
    """(name, layer, shape) of each array of the flat vector, in order; an array of a block has its block for a layer.

    [W0 .. Wn | b0 .. bn | arrays of feature blocks | input_scale | member_in | member_out | unit parameters | running
    statistics].  With k members the last layer has k matrices and k biases.  input_scale has a row per member; with
    batch_ensemble so have the biases, member_in of all hidden layers but the first, and member_out of all hidden
    layers.  Unit parameters and running statistics, each (fan_out,), come layer by layer: scale, shift (batch_norm),
    slope (prelu), mix (parametric_activations) | mean, var (batch_norm).
    """
    fans = [*enumerate(pairwise(network.widths))]
    hidden, last = fans[:-1], fans[-1][0]
    heads = (network.members,) if network.members > 1 else ()
    of_layer = {i: heads if i == last or network.batch_ensemble else () for i, _ in fans}
    found: list[tuple[str, int, tuple[int, ...]]] = []
    found += [("W", i, (*(heads if i == last else ()), *fan)) for i, fan in fans]
    found += [("b", i, (*of_layer[i], fan_out)) for i, (_, fan_out) in fans]
    found += [(name, i, s) for i, block in enumerate(network.inputs) for name, s in inputs.shapes(block).items()]
    if network.input_scale:
        found.append(("input_scale", 0, (*heads, network.widths[0])))
    if network.batch_ensemble:
        found += [("member_in", i, (*heads, fan_in)) for i, (fan_in, _) in hidden[1:]]
        found += [("member_out", i, (*heads, fan_out)) for i, (_, fan_out) in hidden]
    placements = _placements(network)
    for i, (_, fan_out) in hidden:
        has = {"scale": placements[i], "shift": placements[i], "slope": _is_prelu(network.activations[i])}
        has["mix"] = network.parametric_activations
        found += [(name, i, (fan_out,)) for name, it_has in has.items() if it_has]
    return found + [(name, i, (fan_out,)) for i, (_, fan_out) in hidden if placements[i] for name in RUNNING]


#: What no optimizer touches.
RUNNING = ("mean", "var")


def _pieces(network: Any) -> list[slice]:
    """Where each array of the layout lies in the flat vector."""
    ends = np.cumsum([math.prod(shape) for _, _, shape in _layout(network)]).tolist()
    return [slice(start, end) for start, end in pairwise([0, *ends])]


def _views(network: Any, params: Array) -> dict[tuple[str, int], Array]:
    """Views of the arrays in the flat vector, by (name, layer)."""
    pieces = zip(_layout(network), _pieces(network), strict=True)
    return {(name, layer): params[piece].reshape(shape) for (name, layer, shape), piece in pieces}


def _layers(network: Any, params: Array) -> list[tuple[Array, Array]]:
    """Views (W, b) of each layer; of the last one with k members (k, fan_in, fan_out), (k, fan_out)."""
    views = _views(network, params)
    return [(views["W", i], views["b", i]) for i in range(len(network.widths) - 1)]


def _units(network: Any, params: Array) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    """Views of what the units of each hidden layer learn besides, and of their running statistics."""
    views = _views(network, params)
    names = ("scale", "shift", "slope", "mix"), RUNNING
    learned, running = (
        [{name: views[name, i] for name in some if (name, i) in views} for i in range(len(network.activations))]
        for some in names
    )
    return learned, running


def _blocks(network: Any, params: Array) -> list[dict[str, Array]]:
    """Views of the arrays of each feature block."""
    views = _views(network, params)
    return [{name: views[name, i] for name in inputs.shapes(block)} for i, block in enumerate(network.inputs)]


def _placements(network: Any) -> tuple[str, ...]:
    """Where each hidden layer normalises: "before" its activation, "after" it, or "" for nowhere."""
    return network.batch_norm or ("",) * len(network.activations)


def _n_params(network: Any) -> tuple[int, int]:
    """(entries that are trained, all entries) of the flat vector."""
    sizes = [(name, math.prod(shape)) for name, _, shape in _layout(network)]
    return sum(size for name, size in sizes if name not in RUNNING), sum(size for _, size in sizes)


# With k members each row r of a batch passes through the layers k times: virtual row v = r k + i is row r in member i.
# Arrays over virtual rows, (n k, width), are multiplied by arrays of members, (k, width), as (n, k, width).
#
#   reads = x r_i              r: input_scale in the first layer, member_in in the other hidden layers, else 1
#   z     = (reads W) s_i + b  s: member_out, else 1; in the last layer each member has its own W
#   out   = z + (f(z) - z) mix with parametric_activations, else f(z)
#
# and backwards, from delta = d loss / d z:
#
#   db = sum delta,  ds_i = sum delta (reads W),  delta' = delta s_i,  dW = sum reads^T delta'
#   dr_i = sum x (delta' W^T),  dx = (delta' W^T) r_i
#   dmix = sum d (f(z) - z),  delta = d (1 + (f'(z) - 1) mix), where d = d loss / d out


class Pass(NamedTuple):
    """A layer on the way forward: what the way back needs of it."""

    reads: Any  # (n k, fan_in): X or the activations below, after dropout and factors; its product with W follows
    z: np.ndarray  # (n k, fan_out): what the activation reads, normalised where that comes before it
    a: Any = None  # (n k, fan_out): f(z), not yet mixed, normalised or dropped; None for the output layer
    norm: Any = None  # with batch_norm: (normalised, mean, var)
    enters: Any = None  # (n k, fan_in): before the factors; of the first layer a0 (n, fan_in)
    product: Any = None  # (n k, fan_out): reads W
    rows: Any = None  # of the first layer: the rows of X


def _forward(network: Any, params: Array, X: Any, masks: list) -> list[Pass]:
    """The passes through all layers; ``masks``: what the input of each is multiplied by, or None."""
    views, (units, _), placements = _views(network, params), _units(network, params), _placements(network)
    k = network.members
    rows = A = _times(X, masks[0])
    if network.inputs:
        A = inputs.forward(network.inputs, rows, _blocks(network, params))
    passes: list[Pass] = []
    for i in range(len(network.widths) - 1):
        enters = A = _times(A, masks[i]) if i > 0 else A
        if i == 0 and network.input_scale:
            A = (A[:, None] * views["input_scale", 0]).reshape(-1, network.widths[0])  # n rows -> n k rows
        A = _by_member(A, views.get(("member_in", i)), k)
        product = _product(A, views["W", i], k)
        z = _by_member(product, views.get(("member_out", i)), k)
        z, norm = (z.reshape(-1, k, z.shape[1]) + views["b", i]).reshape(z.shape), None
        if i == len(units):
            break
        if placements[i] == "before":
            z, norm = _normalize_forward(z, units[i]["scale"], units[i]["shift"])
        out = a = _activation(network.activations[i], units[i].get("slope"))(z)
        if "mix" in units[i]:
            out = z + (a - z) * units[i]["mix"]
        if placements[i] == "after":
            out, norm = _normalize_forward(out, units[i]["scale"], units[i]["shift"])
        passes.append(Pass(A, z, a, norm, enters, product, rows))
        A = out
    return [*passes, Pass(A, z, None, None, enters, product, rows)]


def _by_member(A: Any, factors: Array | None, k: int) -> Any:
    """Each virtual row times the factors of its member, (k, width); None stands for 1."""
    return A if factors is None else (A.reshape(-1, *factors.shape) * factors).reshape(A.shape)


def _sum_over_rows(A: Array, like: Array, k: int) -> Array:
    """The sum over the rows of the batch: of each member, if ``like`` has a row for each, else of all."""
    sums = A.reshape(-1, k, A.shape[1]).sum(axis=0)
    return sums if like.ndim == 2 else sums.sum(axis=0)


def _heads(A: Array, k: int) -> Array:
    """(n k, width) -> (k, n, width)."""
    return A.reshape(-1, k, A.shape[1]).swapaxes(0, 1)


def _rows_of(A: Array) -> Array:
    """(k, n, width) -> (n k, width)."""
    return A.swapaxes(0, 1).reshape(-1, A.shape[2])


def _product(A: Any, W: Array, k: int) -> Array:
    """A W; where W is (k, fan_in, fan_out), each member's rows times its own."""
    return A @ W if W.ndim == 2 else _rows_of(_heads(A, k) @ W)


def _product_backward(A: Any, W: Array, delta: Array, k: int) -> tuple[Array, Array]:
    """(d loss / d W, d loss / d A) of :func:`_product`."""
    if W.ndim == 2:
        return A.T @ delta, delta @ W.T
    heads = _heads(delta, k)
    return _heads(A, k).swapaxes(1, 2) @ heads, _rows_of(heads @ W.swapaxes(1, 2))


def _normalize_forward(x: Array, scale: Array, shift: Array) -> tuple[Array, Any]:
    """Batch normalisation: y = scale (x - mean) / sqrt(var + eps) + shift, over the rows."""
    mean, var = x.mean(axis=0), x.var(axis=0)
    normalised = (x - mean) / np.sqrt(var + 1e-5)
    return scale * normalised + shift, (normalised, mean, var)


def _normalize_backward(delta: Array, norm: Any, units: dict[str, Array], grad: dict[str, Array]) -> Array:
    """From delta = d loss / dy to d loss / dx; ``grad`` (OUT) of scale and shift: sums over the rows."""
    normalised, _, var = norm
    along = np.mean(delta * normalised, axis=0)
    grad["scale"][...], grad["shift"][...] = np.sum(delta * normalised, axis=0), delta.sum(axis=0)
    return units["scale"] / np.sqrt(var + 1e-5) * (delta - delta.mean(axis=0) - normalised * along)


def _backprop(
    network: Any, params: Array, passes: list[Pass], masks: list, y: Array, w: Array | None, alpha: float, l1: float
) -> tuple[float, Array]:
    """Penalised mean loss of one batch and its gradient, from its passes forward."""
    sw_sum = len(y) if w is None else w.sum()
    weights = None if w is None else np.repeat(w, network.members)
    mean = np.average(_row_losses(network, passes, y), weights=weights)
    return _penalised(network, params, mean, _gradient_sums(network, params, passes, masks, y, w), sw_sum, alpha, l1)


def _row_losses(network: Any, passes: list[Pass], y: Array) -> Array:
    """The loss of each virtual row."""
    return _loss(network.loss).rows(passes[-1].z, np.repeat(y, network.members, axis=0))


def _penalised(
    network: Any, params: Array, mean: float, grad: Array, sw_sum: float, alpha: float, l1: float
) -> tuple[float, Array]:
    """Penalised mean loss and its gradient, from the mean without penalty and, in ``grad`` (OUT), sums of gradients."""
    weights = np.concatenate([W.ravel() for W, _ in _layers(network, params)])
    value = mean + 0.5 * alpha * (weights @ weights) / sw_sum
    value += l1 * np.abs(weights).sum() / sw_sum
    del weights
    views = _views(network, params)
    for (name, i), view in _views(network, grad).items():
        if name == "W":
            view += alpha * views[name, i]
            view += l1 * np.sign(views[name, i])
    grad /= sw_sum
    return float(value), grad


def _gradient_sums(network: Any, params: Array, passes: list[Pass], masks: list, y: Array, w: Array | None) -> Array:
    """The gradient of the loss without penalty, summed over the rows, from their passes forward.

    The loss is the mean of the members' losses, so each virtual row counts 1 / k of its row.
    """
    views, row, k = _views(network, params), _loss(network.loss), network.members
    y, w = np.repeat(y, k, axis=0), None if w is None else np.repeat(w, k)
    grad = np.zeros_like(params)
    grads, (units, _), (grad_units, _) = _views(network, grad), _units(network, params), _units(network, grad)
    delta = row.delta(passes[-1].z, y) * (1 if w is None else w[:, None]) / k
    for i in reversed(range(len(passes))):
        delta = _layer_backward(i, passes[i], views, delta, grads, k)
        if i < len(units) and _placements(network)[i] == "before":
            grads["b", i][...] = 0  # whatever the bias, the batch's mean takes it away: the sum is nothing but rounding
        if i > 0:
            delta = _times(delta, masks[i])
            delta = _hidden_backward(network, i - 1, passes[i - 1], units[i - 1], delta, grad_units[i - 1])
    _inputs_backward(network, params, passes[0], delta, grad)
    return grad


def _train_backprop(
    network: Any, params: Array, X: Any, y: Array, w: Array | None, masks: list, alpha: float, l1: float
) -> tuple[float, Array]:
    """Forward and backward for a batch to train on; running statistics follow it."""
    passes = _forward(network, params, X, masks)
    value, grad = _backprop(network, params, passes, masks, y, w, alpha, l1)
    _track(network, params, passes)
    return value, grad


def _shared_backprop(
    network: Any, params: Array, X: Any, y: Array, w: Array | None, masks: list, alpha: float, l1: float, shared: Shared
) -> tuple[float, Array]:
    """As :func:`_backprop`, where other processes have more rows of the batch; X may have none.

    Sums over rows are those of all processes once ``shared.reduce`` has seen them.
    """
    sums = memory_of_sums(shared, len(params) + 2, params.dtype)
    sums[...] = 0
    if X.shape[0] > 0:
        passes = _forward(network, params, X, masks)
        losses = _row_losses(network, passes, y) / network.members
        sums[:-2] = _gradient_sums(network, params, passes, masks, y, w)
        sums[-2] = np.sum(losses if w is None else losses * np.repeat(w, network.members))
        sums[-1] = len(y) if w is None else w.sum()
    shared.reduce(sums)
    if sums[-1] == 0:
        raise ZeroDivisionError(NO_WEIGHT)
    return _penalised(network, params, sums[-2] / sums[-1], sums[:-2], sums[-1], alpha, l1)


def _layer_backward(
    i: int, this: Pass, views: dict[tuple[str, int], Array], delta: Array, grads: dict[tuple[str, int], Array], k: int
) -> Array:
    """From delta = d loss / dz to d loss / d(what enters layer i); ``grads`` (OUT): sums over the rows.

    Of the first layer d loss / d(what its product reads): the factors in front of it are those of the inputs.
    """
    grads["b", i][...] = _sum_over_rows(delta, views["b", i], k)
    if ("member_out", i) in views:
        grads["member_out", i][...] = _sum_over_rows(delta * this.product, views["member_out", i], k)
        delta = _by_member(delta, views["member_out", i], k)
    grads["W", i][...], delta = _product_backward(this.reads, views["W", i], delta, k)
    if ("member_in", i) in views:
        grads["member_in", i][...] = _sum_over_rows(delta * this.enters, views["member_in", i], k)
        delta = _by_member(delta, views["member_in", i], k)
    return delta


def _inputs_backward(network: Any, params: Array, first: Pass, delta: Array, grad: Array) -> None:
    """From delta = d loss / d(what the first product reads) to gradients (OUT), sums, of scale and feature blocks."""
    if network.input_scale:
        scale, members = _views(network, params)["input_scale", 0], delta.reshape(-1, network.members, delta.shape[1])
        along = (members * first.enters[:, None]).sum(axis=0)  # (k, fan_in)
        _views(network, grad)["input_scale", 0][...] = along.reshape(scale.shape)
        delta = (members * scale).sum(axis=1)  # n k rows -> n rows
    if network.inputs:
        found = inputs.backward(network.inputs, first.rows, _blocks(network, params), delta)
        for arrays, sums in zip(_blocks(network, grad), found, strict=True):
            for name, values in sums.items():
                arrays[name][...] = values.reshape(arrays[name].shape)


def _hidden_backward(
    network: Any, i: int, this: Pass, units: dict[str, Array], delta: Array, grad: dict[str, Array]
) -> Array:
    """From d loss / d(what hidden layer i hands on) to d loss / dz; ``grad`` (OUT) of its units: sums over the rows."""
    placement = _placements(network)[i]
    if placement == "after":
        delta = _normalize_backward(delta, this.norm, units, grad)
    if "slope" in units:  # da / d slope = z where z <= 0
        grad["slope"][...] = np.sum(delta * np.where(this.z > 0, 0, this.z), axis=0)
    slopes = _slope(network.activations[i], units.get("slope"))(this.z, this.a)
    if "mix" in units:
        grad["mix"][...] = np.sum(delta * (this.a - this.z), axis=0)
        slopes = 1 + (slopes - 1) * units["mix"]
    delta = delta * slopes
    if placement == "before":
        delta = _normalize_backward(delta, this.norm, units, grad)
    return delta


def _track(network: Any, params: Array, passes: list[Pass]) -> None:
    """Move the running statistics a tenth of the way to those of a batch."""
    _, statistics = _units(network, params)
    for this, running in zip(passes, statistics, strict=False):  # the output layer has none
        if running:
            n = len(this.z)
            _, mean, var = this.norm
            unbiased = var * (n / max(n - 1, 1))
            running["mean"][...] = 0.9 * running["mean"] + 0.1 * mean
            running["var"][...] = 0.9 * running["var"] + 0.1 * unbiased


# --- dropout, random slopes ----------------------------------------------------------------------


def _times(A: Any, mask: Any) -> Any:
    """A with some of its entries dropped."""
    if mask is None:
        return A
    if sparse.issparse(A):
        return sparse.csr_array((A.data * mask, A.indices, A.indptr), A.shape)
    return A * mask


def _no_masks(network: Any) -> list:
    return [None] * (len(network.widths) - 1)


def _masks(network: Any, X: Any, seed: int, t: int, factor: float = 1.0, places: Array | None = None) -> list:
    """Factors of step t for the input of each layer: 0 or 1 / (1 - rate); None where nothing drops.

    The rates are those of the network times ``factor``.  With a sparse X the first mask holds one factor for each entry
    that X stores.  Masks of hidden layers have a row for each virtual row.  ``places`` (n,) are those of the rows in
    the batch; None: one after the other.
    """
    k, places = network.members, np.arange(X.shape[0]) if places is None else places
    virtual = (places[:, None] * k + np.arange(k)).ravel()
    rates = [network.input_dropout, *(network.dropout or [0.0] * len(network.activations))]
    masks: list = []
    for layer, (full_rate, width) in enumerate(zip(rates, network.widths, strict=False)):
        rate = full_rate * factor
        rows, columns = (places if layer == 0 else virtual)[:, None], np.arange(width)
        if layer == 0 and sparse.issparse(X):
            rows, columns = np.repeat(places, np.diff(X.indptr)), X.indices
        if round(rate * 2**24) == 0:
            masks.append(None)
        else:
            kept = _kept(seed, t, layer, rate, rows * width + columns)
            masks.append(kept.astype(network.dtype) / (1 - rate))
    return masks


def _kept(seed: int, t: int, layer: int, rate: float, index: Array) -> Array:
    """Whether a unit is kept: True with probability 1 - rate.

    ``index`` is row * width + unit.  A hash of (seed, t, layer, index), so that every engine and
    every thread draws the same: splitmix64 (Steele, Lea & Flood 2014) makes two keys, and two
    rounds of a 32-bit mixer (Wellons 2018) make 24 bits of each index.
    """
    return _bits(seed, t, layer, index) >= round(rate * 2**24)


def _bits(seed: int, t: int, layer: int, index: Array) -> Array:
    """24 random bits for each index."""
    key = _splitmix(_splitmix(seed) ^ ((t << 16) + layer))
    k0, k1 = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    return _mix(_mix(index.astype(np.uint32) ^ k0) + k1) >> np.uint32(8)


def _draws(network: Any, X: Any, seed: int, t: int, factor: float, places: Array | None) -> tuple[Any, list]:
    """The network of step t with its random slopes, and its masks."""
    return _drawn(network, X.shape[0], seed, t, places), _masks(network, X, seed, t, factor, places)


class _RandomSlopes:
    """The rrelu of one step, as users' formulas are given: z where z > 0, else slope z; slopes (n k, width)."""

    def __init__(self, slopes: Array) -> None:
        self.slopes = slopes

    def numpy_value(self, z: Array) -> Array:
        return np.where(z > 0, z, self.slopes * z)

    def numpy_slope(self, z: Array, a: Array) -> Array:
        return np.where(z > 0, 1, self.slopes)


def _drawn(network: Any, n: int, seed: int, t: int, places: Array | None = None) -> Any:
    """The network of step t: each rrelu has slopes of its own for all numbers, uniform in [lower, upper].

    As for dropout ``places`` (n,) are those of the rows in the batch, and the slopes are functions of the place; the
    hash's layer is that of the mask plus 2^15.
    """
    names = [entry[0] if isinstance(entry, tuple) else entry for entry in network.activations]
    if "rrelu" not in names:
        return network
    k, activations = network.members, list(network.activations)
    virtual = ((np.arange(n) if places is None else places)[:, None] * k + np.arange(k)).reshape(-1, 1)
    for i, (name, width) in enumerate(zip(names, network.widths[1:], strict=False)):
        if name == "rrelu":
            given = activations[i][1] if isinstance(activations[i], tuple) else {}
            lower, upper = given.get("lower", 1 / 8), given.get("upper", 1 / 3)
            share = (_bits(seed, t, 2**15 + i, virtual * width + np.arange(width)) + 0.5) / 2**24
            slopes = lower + (upper - lower) * share
            activations[i] = _RandomSlopes(slopes.astype(network.dtype))
    return dataclasses.replace(network, activations=tuple(activations))


def _splitmix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def _mix(x: Any) -> Any:
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
    x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
    return x ^ x >> np.uint32(16)


# --- the calls -----------------------------------------------------------------------------------


def predict(workspace: Any, params: Array, X: Any, out: Array, rows: Array | None = None) -> bool:
    """Predictions of the network: out = link(logits), the mean of the members'; without ``average`` their logits."""
    network = _network(workspace)
    check_predict(network)
    _parameters(params, network)
    X = _samples(X, network)
    if rows is not None:
        X = X[check_indices("rows", rows, X.shape[0])]
    check_codes(X, network.inputs)
    n, k, n_outputs = X.shape[0], network.members, network.widths[-1]
    check_array("out", out, network.dtype, (n, n_outputs if network.average else k * n_outputs), out=True)
    logits = _forward(network, params, X, _no_masks(network))[-1].z
    if network.average:  # over the members
        out[...] = _loss(network.loss).link(logits).reshape(n, k, n_outputs).mean(axis=1)
    else:
        out[...] = logits.reshape(n, k * n_outputs)
    return bool(np.isfinite(X.data[: X.indptr[-1]] if sparse.issparse(X) else X).all())


def shuffle(order: Array, random_state: np.random.RandomState) -> None:
    """``random_state.shuffle(order)``."""
    check_shuffle(order, random_state)
    shuffle_each(order, random_state)


def loss_and_grad(
    workspace: Any,
    params: Array,
    data: Data,
    alpha: float,
    grad: Array,
    l1: float = 0.0,
    shared: Shared | None = None,
) -> float:
    """Penalised mean loss over the whole data and its gradient.

    The penalty is (alpha/2 ||W||^2 + l1 ||W||_1) / sw_sum, of the weights W only;
    grad_W = (A^T delta + alpha W + l1 sign(W)) / sw_sum and grad_b = sum_i delta_i / sw_sum, where A
    is what the layer reads and sw_sum the sum of the sample weights, or n.  For squared_error with
    several outputs the loss is a mean over the outputs and the gradient that of their sum, as in
    scikit-learn.  With ``shared`` the whole data are the rows of several processes.
    """
    network = _network(workspace)
    _parameters(params, network)
    check_loss_and_grad(network, params, grad, drops=bool(network.input_dropout or any(network.dropout)))
    X, y, w = _data(data, network, may_be_empty=shared is not None)
    interrupts.check()
    check_codes(X, network.inputs)
    masks = _no_masks(network)
    if shared is not None:
        check_shared(shared, network)
        value, grad[...] = _shared_backprop(network, params, X, y, w, masks, float(alpha), float(l1), shared)
        return value
    passes = _forward(network, params, X, masks)
    value, grad[...] = _backprop(network, params, passes, masks, y, w, float(alpha), float(l1))
    return value


def train_epoch(
    workspace: Any,
    params: Array,
    data: Data,
    order: Array,
    batch_size: int,
    alpha: float,
    optimizer: Optimizer,
    l1: float = 0.0,
    seed: int = 0,
    losses: Array | None = None,
    shared: Shared | None = None,
) -> float:
    """One pass over the data, or several: for each batch of rows its gradient, then :func:`update`.

    Loss and gradient of a batch are those of :func:`loss_and_grad` over the batch's rows, with what
    training alone has: random slopes (:func:`_drawn`), batch_norm (before an activation or after it;
    see :func:`_normalize_forward`) and then dropout (a = a * keep / (1 - rate)).  A gradient whose norm is larger than
    ``optimizer.max_grad_norm`` is scaled down to it; before the update, params = params * (1 -
    decay).  Both concern all entries that are trained, which are those in front of the running
    statistics.  Each array of the flat vector has its own factors of decay and of the update's scalars; one whose
    learning rate has the factor 0 is frozen.  With ``shared`` other processes have more rows of each batch.
    """
    if losses is not None:
        check_one_epoch(shared)
        check_orders(order, losses, data.X.shape[0])
        rest = batch_size, alpha, optimizer
        return each_epoch(
            lambda rows: train_epoch(workspace, params, data, rows, *rest, l1=l1, seed=seed), order, losses
        )
    network = _network(workspace)
    _parameters(params, network, out=True)
    X, y, w = _data(data, network, may_be_empty=shared is not None)
    check_order(order, may_be_empty=shared is not None)
    check_indices("order", order, X.shape[0])
    batch_size, seed = batch_size_of(batch_size), seed_of(seed)
    n_rows = len(order) if shared is None else _rows_of_all(shared, network, order, batch_size)
    steps = -(-n_rows // batch_size)
    row = row_of("optimizer.rule", OPTIMIZERS, optimizer.rule)
    check_states(row, optimizer.states, params=params)
    scalars, decays, largest = check_schedule(optimizer, row, steps)
    factors, decay_factors, dropouts = check_plans(optimizer, row, len(_layout(network)), steps)
    check_codes(X, network.inputs, order)
    accumulated = 0.0
    for step in range(steps):
        interrupts.check()
        batch, places = _batch(order, step, batch_size, shared)
        X_batch, y_batch, batch_w = X[batch], y[batch], None if w is None else w[batch]
        factor = 1.0 if dropouts is None else float(dropouts[step])
        drawn, masks = _draws(network, X_batch, seed, optimizer.t, factor, places)
        args = drawn, params, X_batch, y_batch, batch_w, masks, float(alpha), float(l1)
        value, grad = _train_backprop(*args) if shared is None else _shared_backprop(*args, shared)
        decay = 0.0 if decays is None else decays[step]
        frozen = factors[:, 0] == 0
        _freeze(network, grad, frozen)
        _clip_norm(grad, largest)
        _step(network, params, grad, optimizer, scalars[step] * factors, decay * decay_factors, frozen)
        optimizer.t += 1
        accumulated += value * min(batch_size, n_rows - step * batch_size)
    return accumulated / n_rows


def _rows_of_all(shared: Shared, network: Any, order: Array, batch_size: int) -> int:
    """How many rows all processes visit."""
    check_shared(shared, network)
    check_shares(shared, order, batch_size)
    return shared.n_rows


def _batch(order: Array, step: int, batch_size: int, shared: Shared | None) -> tuple[Array, Array | None]:
    """The rows of a batch; with ``shared`` those at hand, and their places in it."""
    if shared is None:
        return order[step * batch_size : (step + 1) * batch_size], None
    here = slice(*shared.starts[step : step + 2])
    return order[here], shared.places[here]


def _clip_norm(grad: Array, largest: float | None) -> None:
    """Scale a gradient down to the norm ``largest``, in place."""
    if largest is not None:  # NaN passes: min would drop it
        grad *= np.minimum(1, largest / (np.linalg.norm(grad) + 1e-6)).astype(grad.dtype)


def _freeze(network: Any, grad: Array, frozen: Array) -> None:
    """Clear the gradients of frozen arrays, in place: they do not count in the norm."""
    for is_frozen, piece in zip(frozen, _pieces(network), strict=True):
        if is_frozen:
            grad[piece] = 0


def _step(
    network: Any, params: Array, grad: Array, optimizer: Optimizer, scalars: Array, decays: Array, frozen: Array
) -> None:
    """Decay the parameters, then update, array by array: each has its scalars and its decay, unless it is frozen."""
    for i, ((name, _, _), piece) in enumerate(zip(_layout(network), _pieces(network), strict=True)):
        if name not in RUNNING and not frozen[i]:
            params[piece] *= 1 - float(decays[i])
            states = [state[piece] for state in optimizer.states]
            update(optimizer.rule, params[piece], grad[piece], states, scalars[i])


# --- entries of the tables, arguments of the calls -----------------------------------------------


def _bind(name: str, function: Callable, given: dict[str, float], arguments: tuple[str, ...]) -> Callable:
    """The function with its parameters filled in; what is not one of ``arguments`` is a parameter."""
    code = getattr(function, "__code__", None)  # a NumPy function has none, and no parameters
    known = [n for n in code.co_varnames[: code.co_argcount] if n not in arguments] if code else []
    for parameter in given:
        if parameter not in known:
            raise ValueError(f"{name} must have no parameters but {known}, got {parameter!r}")
    return lambda *values: function(*values, **given)


def _is_formula(entry: Any) -> bool:
    return hasattr(entry, "numpy_value")


def _is_prelu(entry: Any) -> bool:
    return (entry[0] if isinstance(entry, tuple) else entry) == "prelu"


def _activation_row(activation: Any, slope: Array | None) -> tuple[Callable, Callable | None, dict[str, Any]]:
    """(f, df, parameters) of an activation that is not a formula; ``slope``: what prelu has learned."""
    (f, df), given = entry_of("activation", ACTIVATIONS, activation)
    return f, df, given if slope is None else {"slope": slope}


def _activation(activation: Any, slope: Array | None = None) -> Callable:
    """The function f(z) of an activation, its parameters filled in."""
    if _is_formula(activation):
        return activation.numpy_value
    f, _, given = _activation_row(activation, slope)
    return _bind("activation", f, given, ("z",))


def _slope(activation: Any, slope: Array | None = None) -> Callable:
    """The slope as a function of (z, a), whichever of the two the table's entry takes."""
    if _is_formula(activation):
        takes, df = ["z", "a"], activation.numpy_slope
    else:
        _, row, given = _activation_row(activation, slope)
        if row is None:
            raise ValueError(f"activation {activation!r} has no slope: it is an output link")
        takes = [name for name in inspect.signature(row).parameters if name in ("z", "a")]
        df = _bind("activation", row, given, ("z", "a"))
    return lambda z, a: df(*({"z": z, "a": a}[name] for name in takes)).astype(a.dtype)


def _loss(entry: Any) -> Loss:
    """The row of a loss, its parameters filled in and its delta spelt out."""
    if _is_formula(entry):
        link = softmax if entry.link == "softmax" else ACTIVATIONS[entry.link][0]
        return Loss(link, lambda z, y: entry.numpy_value(y, z).sum(axis=1), lambda z, y: entry.numpy_delta(y, z))
    row, given = entry_of("network.loss", LOSSES, entry)
    rows = _bind("network.loss", row.rows, given, ("z", "y"))
    delta = _bind("network.loss", row.delta, given, ("z", "y")) if row.delta else lambda z, y: row.link(z) - y
    return row._replace(rows=rows, delta=delta)


def _network(workspace: Any) -> Any:
    check_workspace(workspace, Workspace)
    return workspace.network


def _parameters(params: Array, network: Any, out: bool = False) -> None:
    check_array("params", params, network.dtype, (_n_params(network)[1],), out=out)


def _samples(X: Any, network: Any) -> Any:
    """X in the network's dtype, dense or CSR."""
    check_samples(X, inputs.n_columns(network.inputs) if network.inputs else network.widths[0])
    check_dense(X, network)
    return X.astype(network.dtype)


def _targets(row: Loss, y: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """y as a matrix (n, n_outputs): one-hot where it holds class indices."""
    if not row.classes:
        check_array("y", y, dtype, shape)
        return y
    check_array("y", y, np.dtype(np.intp), shape[:1])
    if y.size and not (y.min() >= 0 and y.max() < shape[1]):
        raise ValueError(f"y must lie in [0, {shape[1]}), got {y.min()} .. {y.max()}")
    return np.eye(shape[1], dtype=dtype)[y]


def _data(data: Data, network: Any, may_be_empty: bool) -> tuple[Any, Array, Array | None]:
    X = _samples(data.X, network)
    if X.shape[0] == 0 and not may_be_empty:
        raise ValueError("X must have at least one row")
    shape = (X.shape[0], network.widths[-1])
    y = _targets(_loss(network.loss), data.y, shape, network.dtype)
    return X, y, check_weights(data.sample_weight, X.shape[0], network.dtype)
