"""Every elementwise formula of the package, written once.

First station of the data flow: codegen.py renders these functions for the compiled engines, the tables at the end
are the only place where names of activations, losses and optimizers live (parameter validation, the command line
and the tests iterate over them).  kernels/reference.py states the same mathematics a second time, independently.

A formula is scalar Python in a small language: assignments, ``return``, arithmetic, one comparison at a time,
``a if condition else b``, the functions imported below, and helpers such as :func:`clip`.  Two conventions:

* A comparison with NaN is false, so the *else* branch must be the one that lets NaN through.
* What depends on scalars alone (``1.0 - beta_1``, ``log(EPS)``) is evaluated once, in double precision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, log1p, sqrt, tanh

# Machine epsilon of the dtype being computed; each rendering substitutes its own value.
EPS = 2.0**-52


# --- helpers that formulas may call ---------------------------------------------------------------------------


def clip(x, low, high):
    x = low if x < low else x
    return high if x > high else x


# --- activations a = f(z) and their slopes da/dz, in terms of z and a -------------------------------------------


def identity(z):
    return z


def identity_slope(z, a):
    return 1.0


def logistic(z):
    return 1.0 / (1.0 + exp(-z))


def logistic_slope(z, a):
    return a * (1.0 - a)


def hyperbolic_tangent(z):
    return tanh(z)


def hyperbolic_tangent_slope(z, a):
    return 1.0 - a * a


def relu(z):
    return 0.0 if z < 0.0 else z


def relu_slope(z, a):
    return 0.0 if a == 0.0 else 1.0


def exponential(z):
    return exp(z)


# --- losses l(y, z) of one target and one logit -----------------------------------------------------------------


def squared_error(y, z):
    return 0.5 * (z - y) * (z - y)


def poisson(y, z):
    # xlogy(y, y / p) - y + p with p = exp(z); NaN for a negative y, whose logarithm it is
    return (0.0 * z if y == 0.0 else y * (log(y) - z)) - y + exp(z)


def binary_log_loss(y, z):
    # -log p = softplus(-z) and -log(1 - p) = softplus(z), each clipped as if p were in [EPS, 1 - EPS]
    t = log1p(exp(-abs(z)))  # carries NaN
    minus_log_p = clip(t - (z if z < 0.0 else 0.0), -log1p(-EPS), -log(EPS))
    minus_log_q = clip(t + (z if z > 0.0 else 0.0), -log1p(-EPS), -log(EPS))
    return y * minus_log_p + (1.0 - y) * minus_log_q


# --- optimizers (p, g, *state, *scalars) -> (p, *state) ---------------------------------------------------------


def sgd(p, g, lr):
    p = p - lr * g
    return p


def momentum(p, g, velocity, lr, momentum):
    velocity = momentum * velocity - lr * g
    p = p + velocity
    return p, velocity


def nesterov(p, g, velocity, lr, momentum):
    velocity = momentum * velocity - lr * g
    p = p + (momentum * velocity - lr * g)
    return p, velocity


def adam(p, g, m, v, lr, beta_1, beta_2, epsilon):
    # lr arrives with the bias correction of its step: lr * sqrt(1 - beta_2^t) / (1 - beta_1^t)
    m = beta_1 * m + (1.0 - beta_1) * g
    v = beta_2 * v + (1.0 - beta_2) * (g * g)
    p = p - lr * m / (sqrt(v) + epsilon)
    return p, m, v


# --- the tables ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activation:
    """A hidden activation, or the link that turns logits into predictions (then without a slope)."""

    value: Callable
    slope: Callable | None = None
    hidden: bool = True  # may be chosen as the ``activation`` of an estimator


@dataclass(frozen=True)
class Loss:
    """A loss with its canonical link, so that d loss / d z = prediction - target."""

    link: str  # a key of ACTIVATIONS, or "softmax"
    value: Callable | None  # None: the row operation softmax_cross_entropy, written by hand in each engine
    mean_over_outputs: bool = False  # scikit-learn's squared error is a mean over outputs, the others a sum


@dataclass(frozen=True)
class Optimizer:
    """An update rule with the names of its state vectors and of its per-step scalars."""

    rule: Callable
    states: tuple[str, ...]
    scalars: tuple[str, ...]


HELPERS: tuple[Callable, ...] = (clip,)

ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(identity, identity_slope),
    "logistic": Activation(logistic, logistic_slope),
    "tanh": Activation(hyperbolic_tangent, hyperbolic_tangent_slope),
    "relu": Activation(relu, relu_slope),
    "exp": Activation(exponential, hidden=False),
}

LOSSES: dict[str, Loss] = {
    "log_loss": Loss("softmax", None),
    "binary_log_loss": Loss("logistic", binary_log_loss),
    "squared_error": Loss("identity", squared_error, mean_over_outputs=True),
    "poisson": Loss("exp", poisson),
}

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(sgd, (), ("lr",)),
    "momentum": Optimizer(momentum, ("velocity",), ("lr", "momentum")),
    "nesterov": Optimizer(nesterov, ("velocity",), ("lr", "momentum")),
    "adam": Optimizer(adam, ("m", "v"), ("lr", "beta_1", "beta_2", "epsilon")),
}
