"""Every elementwise formula of the package, written once.

First station of the data flow: codegen/ renders these functions for the compiled engines, the tables at the end
are the only place where names of activations, losses and optimizers live (parameter validation, the command line
and the tests iterate over them).  kernels/reference.py states the same mathematics a second time, independently.

A formula is scalar Python in a small language: assignments, ``return``, arithmetic, one comparison at a time,
``a if condition else b``, the functions imported below, and helpers such as :func:`clip`.  Conventions:

* A comparison with NaN is false, so the *else* branch must be the one that lets NaN through.
* Infinities give the limit: where it would be ``inf * 0`` or ``inf / inf``, z is clipped at a place so far out that
  the result no longer changes.
* What depends on scalars alone (``1.0 - beta_1``, ``log(EPS)``) is evaluated once, in double precision.
* Arguments after those of the plain formula (``value(z, alpha)``) are its parameters, scalars with the defaults that
  its table row gives.

Sources: the activations are PyTorch's, with its parameters and defaults (Hendrycks & Gimpel 2016, gelu; Clevert et al.
2016, elu; Klambauer et al. 2017, selu; Barron 2017, celu; Ramachandran et al. 2017, silu; Misra 2019, mish; Howard et
al. 2019, hardswish; He et al. 2015, prelu); losses: Huber 1964; Koenker & Bassett 1978 (quantile); Lin et al. 2017
(focal); optimizers: Kingma & Ba 2015 (adam), Loshchilov & Hutter 2019 (adamw), Reddi et al. 2018 (amsgrad), Dozat 2016
(nadam), Hinton's lecture 6e of 2012 (rmsprop), Duchi et al. 2011 (adagrad), Zeiler 2012 (adadelta), Chen et al. 2023
(lion), with epsilon where PyTorch has it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import erf, exp, expm1, log, log1p, sqrt, tanh

# Machine epsilon of the dtype being computed; each rendering substitutes its own value.
EPS = 2.0**-52


# --- helpers that formulas may call ---------------------------------------------------------------------------


def clip(x, low, high):
    x = low if x < low else x
    return high if x > high else x


def sign(x):
    return 1.0 if x > 0.0 else (-1.0 if x < 0.0 else x)


def softplus(x):
    # log(1 + exp(x)) = max(x, 0) + log(1 + e), e = exp(-|x|); log(1 + e) = 2 atanh r, r = e / (2 + e) <= 1/3, where
    # atanh r = r + r^3 p(r^2): half the work of log1p, which cannot know that its argument lies in [0, 1].  p through
    # Chebyshev's nodes, as two short chains that a processor works side by side
    e = exp(-abs(x))
    r = e / (2.0 + e)
    q = r * r
    s = q * q
    even = 0.07815288900461426
    even = even * s + 0.05422589197440007
    even = even * s + 0.06667589315724629
    even = even * s + 0.09090909948981357
    even = even * s + 0.1428571428580005
    even = even * s + 0.3333333333333333
    odd = 0.03746071897775383
    odd = odd * s + 0.05867139530651599
    odd = odd * s + 0.07692271982430275
    odd = odd * s + 0.11111111099118386
    odd = odd * s + 0.19999999999999762
    return (x if x > 0.0 else 0.0) + (2.0 * r + 2.0 * r * q * (even + q * odd))


def normal_cdf(x):
    return 0.5 + 0.5 * erf(0.7071067811865476 * x)


def power(x, exponent):
    # x^exponent for x >= 0 and exponent >= 0, with 0^0 = 1
    return exp(exponent * clip(log(x), -1e30, 1e30))


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


def leaky_relu(z, negative_slope):
    return z if z > 0.0 else negative_slope * z


def leaky_relu_slope(z, a, negative_slope):
    return 1.0 if a > 0.0 else negative_slope


def rrelu(z, lower, upper):
    # with the mean slope; each step of training draws one for each negative z
    return z if z > 0.0 else 0.5 * (lower + upper) * z


def rrelu_slope(z, a, lower, upper):
    return 1.0 if a > 0.0 else 0.5 * (lower + upper)


def prelu(z, slope):
    return z if z > 0.0 else slope * z


def prelu_slope(z, a, slope):
    return 1.0 if z > 0.0 else slope  # a learned slope may be negative, so that a alone would not tell


def relu6(z):
    return clip(z, 0.0, 6.0)


def relu6_slope(z, a):
    return 0.0 if a <= 0.0 else (0.0 if a >= 6.0 else 1.0)


def elu(z, alpha):
    e = alpha * expm1(z)  # a statement: a branch of the conditional would be computed under masks
    return z if z > 0.0 else e


def elu_slope(z, a, alpha):
    return 1.0 if a > 0.0 else a + alpha


def selu(z):
    e = 1.7580993408473766 * expm1(z)
    return 1.0507009873554805 * z if z > 0.0 else e


def selu_slope(z, a):
    return 1.0507009873554805 if a > 0.0 else a + 1.7580993408473766


def celu(z, alpha):
    e = alpha * expm1(z * (1.0 / alpha))
    return z if z > 0.0 else e


def celu_slope(z, a, alpha):
    return 1.0 if a > 0.0 else 1.0 + a * (1.0 / alpha)


def gelu(z):
    p = normal_cdf(z)
    return 0.0 if p == 0.0 else z * p


def gelu_slope(z, a):
    # d/dz z P(z) = P(z) + z p(z) with the density p of the normal distribution
    t = clip(z, -40.0, 40.0)
    return normal_cdf(z) + t * (0.3989422804014327 * exp(-0.5 * t * t))


def gelu_tanh(z):
    # z (1 + tanh u) / 2 = z logistic(2u) with u = sqrt(2/pi) (z + 0.044715 z^3); e, r as in the slope: they are shared
    t = clip(z, -1000.0, 1000.0)
    u = 1.5957691216057308 * (t + 0.044715 * t * t * t)
    e = exp(-abs(u))
    r = 1.0 / (1.0 + e)
    return (t if z < 0.0 else z) * (r if u > 0.0 else e * r)


def gelu_tanh_slope(z, a):
    t = clip(z, -1000.0, 1000.0)
    u = 1.5957691216057308 * (t + 0.044715 * t * t * t)
    e = exp(-abs(u))
    r = 1.0 / (1.0 + e)
    return (r if u > 0.0 else e * r) + t * (1.5957691216057308 + 0.21406444881780076 * t * t) * (e * r * r)


def silu(z):
    # z logistic(z); e, r as in the slope: they are shared
    t = clip(z, -1000.0, 1000.0)
    e = exp(-abs(t))
    r = 1.0 / (1.0 + e)
    return (t if z < 0.0 else z) * (r if t > 0.0 else e * r)


def silu_slope(z, a):
    # s + z s (1 - s) with s = logistic(z), of which s (1 - s) is e / (1 + e)^2 with e = exp(-|z|)
    t = clip(z, -1000.0, 1000.0)
    e = exp(-abs(t))
    r = 1.0 / (1.0 + e)
    return (r if t > 0.0 else e * r) + t * (e * r * r)


def mish(z):
    # tanh(softplus(z)) = n / (n + 2) with n = e (e + 2) and e = exp(z); e, r as in the slope: they are shared
    t = clip(z, -1000.0, 30.0)
    e = exp(t)
    n = e * (e + 2.0)
    r = 1.0 / (n + 2.0)
    return (t if z < 0.0 else z) * (n * r)


def mish_slope(z, a):
    t = clip(z, -1000.0, 30.0)
    e = exp(t)
    n = e * (e + 2.0)
    r = 1.0 / (n + 2.0)
    return n * r + t * (e * r) * (4.0 * (e + 1.0) * r)


def scaled_softplus(z, beta):
    return softplus(beta * z) * (1.0 / beta)


def scaled_softplus_slope(z, a, beta):
    # logistic(beta z); e as in the value: it is shared
    x = beta * z
    e = exp(-abs(x))
    r = 1.0 / (1.0 + e)
    return r if x > 0.0 else e * r


def softsign(z):
    t = clip(z, -1e30, 1e30)
    return t / (1.0 + abs(t))


def softsign_slope(z, a):
    return (1.0 - abs(a)) * (1.0 - abs(a))


def hardtanh(z, min_val, max_val):
    return clip(z, min_val, max_val)


def hardtanh_slope(z, a, min_val, max_val):
    return 0.0 if a <= min_val else (0.0 if a >= max_val else 1.0)


def hardsigmoid(z):
    return clip(z + 3.0, 0.0, 6.0) * (1.0 / 6.0)


def hardsigmoid_slope(z, a):
    return 0.0 if a <= 0.0 else (0.0 if a >= 1.0 else 1.0 / 6.0)


def hardswish(z):
    p = clip(z + 3.0, 0.0, 6.0) * (1.0 / 6.0)
    return 0.0 if p == 0.0 else z * p


def hardswish_slope(z, a):
    return 0.0 if z <= -3.0 else (1.0 if z >= 3.0 else z * (1.0 / 3.0) + 0.5)


def step(z):
    return 1.0 if z >= 0.0 else (0.0 if z < 0.0 else z)


def step_slope(z, a):
    # the true slope is 0 almost everywhere: the gradient passes straight through near the step (Bengio et al. 2013)
    return 1.0 if abs(z) <= 1.0 else 0.0


def exponential(z):
    return exp(z)


# --- losses l(y, z) of one target and one logit, and their slopes dl/dz where these are not link(z) - y ---------


def squared_error(y, z):
    return 0.5 * (z - y) * (z - y)


def poisson(y, z):
    # xlogy(y, y / p) - y + p with p = exp(z); NaN for a negative y, whose logarithm it is.  exp(z) - y z goes to inf
    t = 1e4 if z > 1e4 else z
    return (0.0 if y == 0.0 else y * (log(y) - t)) - y + exp(z)


def binary_log_loss(y, z):
    # -log p = softplus(-z) and -log(1 - p) = softplus(z), each clipped as if p were in [EPS, 1 - EPS]
    t = log1p(exp(-abs(z)))  # carries NaN
    minus_log_p = clip(t - (z if z < 0.0 else 0.0), -log1p(-EPS), -log(EPS))
    minus_log_q = clip(t + (z if z > 0.0 else 0.0), -log1p(-EPS), -log(EPS))
    return y * minus_log_p + (1.0 - y) * minus_log_q


def binary_focal(y, z, gamma):
    # (1 - p)^gamma * -log p, where p is the probability of what y is: -log p = softplus(-m), -log(1 - p) = softplus(m)
    m = (2.0 * y - 1.0) * z
    m = 1e30 if m > 1e30 else m
    return exp(-gamma * softplus(m)) * softplus(-m)


def binary_focal_delta(y, z, gamma):
    # d/dm = -(1 - p)^gamma (gamma p * -log p + 1 - p)
    m = clip((2.0 * y - 1.0) * z, -1e30, 1e30)
    e = exp(-abs(m))
    p = (1.0 if m > 0.0 else e) / (1.0 + e)
    q = (e if m > 0.0 else 1.0) / (1.0 + e)
    return (1.0 - 2.0 * y) * exp(-gamma * softplus(m)) * (gamma * p * softplus(-m) + q)


def hinge(y, z):
    h = 1.0 - (2.0 * y - 1.0) * z
    return 0.0 if h < 0.0 else h


def hinge_delta(y, z):
    h = 1.0 - (2.0 * y - 1.0) * z
    return 1.0 - 2.0 * y if h > 0.0 else (0.0 if h <= 0.0 else h)


def perceptron(y, z):
    h = (1.0 - 2.0 * y) * z
    return 0.0 if h < 0.0 else h


def perceptron_delta(y, z):
    # at 0 the slope is the one that moves the weights (Rosenblatt 1958): they may begin with 0
    h = (1.0 - 2.0 * y) * z
    return 1.0 - 2.0 * y if h >= 0.0 else (0.0 if h < 0.0 else h)


def squared_hinge(y, z):
    h = 1.0 - (2.0 * y - 1.0) * z
    return 0.0 if h < 0.0 else h * h


def squared_hinge_delta(y, z):
    h = 1.0 - (2.0 * y - 1.0) * z
    return 0.0 if h < 0.0 else 2.0 * (1.0 - 2.0 * y) * h


def absolute_error(y, z):
    return abs(z - y)


def absolute_error_delta(y, z):
    return sign(z - y)


def huber(y, z, delta):
    d = z - y
    return 0.5 * d * d if abs(d) <= delta else delta * (abs(d) - 0.5 * delta)


def huber_delta(y, z, delta):
    return clip(z - y, -delta, delta)


def log_cosh(y, z):
    # small d: -log(1 - tanh(d)^2) / 2; large d: |d| + log(1 + exp(-2|d|)) - log 2, with exp(-2|d|) out of tanh(d)
    d = abs(z - y)
    t = tanh(d)
    r = log1p(-t * t if d < 1.0 else (1.0 - t) / (1.0 + t))
    return -0.5 * r if d < 1.0 else d + r - 0.6931471805599453


def log_cosh_delta(y, z):
    return tanh(z - y)


def pinball(y, z, quantile):
    return quantile * (y - z) if y > z else (1.0 - quantile) * (z - y)


def pinball_delta(y, z, quantile):
    return -quantile if y > z else (1.0 - quantile if y < z else z - y)


def gamma_deviance(y, z):
    # half the deviance, y/p - log(y/p) - 1 with p = exp(z)
    t = -1e30 if z < -1e30 else z
    return y * exp(-t) + t - log(y) - 1.0


def gamma_deviance_delta(y, z):
    return 1.0 - y * exp(-z)


# --- losses of a row of softmax: the term of one output, and its slope in log p ----------------------------------
#
# y is the output's target, p its probability, q = 1 - p with all its digits, n_outputs the length of the row.


def log_loss(y, log_p, p, q, n_outputs, label_smoothing):
    # -t log p with t = (1 - e) y + e / n; where e is 0, clipped as if p were in [EPS, 1 - EPS]
    t = (1.0 - label_smoothing) * y + label_smoothing / n_outputs
    return -t * (log_p if label_smoothing > 0.0 else clip(log_p, log(EPS), log1p(-EPS)))


def log_loss_slope(y, log_p, p, q, n_outputs, label_smoothing):
    return -((1.0 - label_smoothing) * y + label_smoothing / n_outputs)


def focal(y, log_p, p, q, n_outputs, gamma):
    # (1 - p)^gamma * -log p
    return -y * power(q, gamma) * (log1p(-q) if q < 0.5 else log_p)


def focal_slope(y, log_p, p, q, n_outputs, gamma):
    # -(1 - p)^gamma (gamma s + 1) with s = p * -log p / (1 - p), which goes to 0 and to 1 where p does
    s = -p * (log1p(-q) if q < 0.5 else log_p) / q
    return -y * power(q, gamma) * (gamma * (0.0 if p == 0.0 else (1.0 if q == 0.0 else s)) + 1.0)


def kl_divergence(y, log_p, p, q, n_outputs):
    return 0.0 if y == 0.0 else y * (log(y) - log_p)


def kl_divergence_slope(y, log_p, p, q, n_outputs):
    return -y


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


def adamw(p, g, m, v, step_size, root_2, beta_1, beta_2, epsilon):
    # PyTorch adds epsilon to the corrected root: step_size = lr / (1 - beta_1^t), root_2 = sqrt(1 - beta_2^t)
    m = beta_1 * m + (1.0 - beta_1) * g
    v = beta_2 * v + (1.0 - beta_2) * (g * g)
    p = p - step_size * m / (sqrt(v) * (1.0 / root_2) + epsilon)
    return p, m, v


def amsgrad(p, g, m, v, v_max, step_size, root_2, beta_1, beta_2, epsilon):
    m = beta_1 * m + (1.0 - beta_1) * g
    v = beta_2 * v + (1.0 - beta_2) * (g * g)
    v_max = v_max if v_max > v else v
    p = p - step_size * m / (sqrt(v_max) * (1.0 / root_2) + epsilon)
    return p, m, v, v_max


def nadam(p, g, m, v, step_g, step_m, root_2, beta_1, beta_2, epsilon):
    # step_g and step_m hold lr, the schedule of the momentum and the bias corrections of their step
    m = beta_1 * m + (1.0 - beta_1) * g
    v = beta_2 * v + (1.0 - beta_2) * (g * g)
    p = p - (step_g * g + step_m * m) / (sqrt(v) * (1.0 / root_2) + epsilon)
    return p, m, v


def rmsprop(p, g, v, lr, rho, epsilon):
    v = rho * v + (1.0 - rho) * (g * g)
    p = p - lr * g / (sqrt(v) + epsilon)
    return p, v


def adagrad(p, g, total, lr, epsilon):
    total = total + g * g
    p = p - lr * g / (sqrt(total) + epsilon)
    return p, total


def adadelta(p, g, v, u, lr, rho, epsilon):
    # v: mean square of the gradients, u: of the steps before lr
    v = rho * v + (1.0 - rho) * (g * g)
    d = g * (sqrt(u + epsilon) / sqrt(v + epsilon))
    u = rho * u + (1.0 - rho) * (d * d)
    p = p - lr * d
    return p, v, u


def lion(p, g, m, lr, beta_1, beta_2):
    p = p - lr * sign(beta_1 * m + (1.0 - beta_1) * g)
    m = beta_2 * m + (1.0 - beta_2) * g
    return p, m


# --- the tables ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activation:
    """A hidden activation, or the link that turns logits into predictions (then without a slope)."""

    value: Callable  # value(z, *parameters)
    slope: Callable | None = None  # slope(z, a, *parameters)
    parameters: Mapping[str, float] = field(default_factory=dict, hash=False)  # further arguments, in order: defaults
    ranges: Mapping[str, str] = field(default_factory=dict, hash=False)  # of them: "[0, 1)"
    learned: tuple[str, ...] = ()  # parameters that each unit learns for itself; the default is where they start
    drawn: tuple[str, ...] = ()  # parameters between which training draws the slope of each negative z
    hidden: bool = True  # may be chosen as the ``activation`` of an estimator


@dataclass(frozen=True)
class Loss:
    """A loss: a sum over the outputs of values of one target and one logit, or of one target and one probability.

    The second kind has the link "softmax": ``value(y, log_p, p, q, n_outputs, *parameters)``, and ``delta`` is its
    slope in log p.
    """

    link: str  # a key of ACTIVATIONS, or "softmax"
    value: Callable  # value(y, z, *parameters)
    delta: Callable | None = None  # d value / dz (y, z, *parameters); None: the link is canonical, link(z) - y
    parameters: Mapping[str, float] = field(default_factory=dict, hash=False)  # further arguments, in order: defaults
    ranges: Mapping[str, str] = field(default_factory=dict, hash=False)  # of them: "[0, 1)"
    mean_over_outputs: bool = False  # scikit-learn's squared error is a mean over outputs, the others a sum
    class_targets: bool = False  # y holds class indices, not one target per output

    def needs_every_output(self, values: Iterable[float]) -> bool:
        """Return whether a softmax loss with these parameters has terms where y is 0, too."""
        formulas = filter(None, (self.value, self.delta))
        return not self.class_targets or any(f(0.0, -1.0, 0.4, 0.6, 2.0, *values) for f in formulas)


@dataclass(frozen=True)
class Optimizer:
    """An update rule with the names of its state vectors and of its per-step scalars."""

    rule: Callable
    states: tuple[str, ...]
    scalars: tuple[str, ...]


HELPERS: tuple[Callable, ...] = (clip, sign, softplus, normal_cdf, power)

ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(identity, identity_slope),
    "logistic": Activation(logistic, logistic_slope),
    "tanh": Activation(hyperbolic_tangent, hyperbolic_tangent_slope),
    "relu": Activation(relu, relu_slope),
    "exp": Activation(exponential, hidden=False),
    "leaky_relu": Activation(leaky_relu, leaky_relu_slope, {"negative_slope": 0.01}, {"negative_slope": "[0, inf)"}),
    "prelu": Activation(prelu, prelu_slope, {"slope": 0.25}, learned=("slope",)),
    "rrelu": Activation(
        rrelu,
        rrelu_slope,
        {"lower": 1 / 8, "upper": 1 / 3},
        {"lower": "[0, inf)", "upper": "(0, inf)"},
        drawn=("lower", "upper"),
    ),
    "relu6": Activation(relu6, relu6_slope),
    "elu": Activation(elu, elu_slope, {"alpha": 1.0}, {"alpha": "[0, inf)"}),
    "selu": Activation(selu, selu_slope),
    "celu": Activation(celu, celu_slope, {"alpha": 1.0}, {"alpha": "(0, inf)"}),
    "gelu": Activation(gelu, gelu_slope),
    "gelu_tanh": Activation(gelu_tanh, gelu_tanh_slope),
    "silu": Activation(silu, silu_slope),
    "mish": Activation(mish, mish_slope),
    "softplus": Activation(scaled_softplus, scaled_softplus_slope, {"beta": 1.0}, {"beta": "(0, inf)"}),
    "softsign": Activation(softsign, softsign_slope),
    "hardtanh": Activation(hardtanh, hardtanh_slope, {"min_val": -1.0, "max_val": 1.0}),
    "hardsigmoid": Activation(hardsigmoid, hardsigmoid_slope),
    "hardswish": Activation(hardswish, hardswish_slope),
    "step": Activation(step, step_slope),
}

LOSSES: dict[str, Loss] = {
    "log_loss": Loss(
        "softmax",
        log_loss,
        log_loss_slope,
        {"label_smoothing": 0.0},
        {"label_smoothing": "[0, 1)"},
        class_targets=True,
    ),
    "binary_log_loss": Loss("logistic", binary_log_loss),
    "squared_error": Loss("identity", squared_error, mean_over_outputs=True),
    "poisson": Loss("exp", poisson),
    "focal": Loss("softmax", focal, focal_slope, {"gamma": 2.0}, {"gamma": "[0, inf)"}, class_targets=True),
    "binary_focal": Loss("logistic", binary_focal, binary_focal_delta, {"gamma": 2.0}, {"gamma": "[0, inf)"}),
    "kl_divergence": Loss("softmax", kl_divergence, kl_divergence_slope),
    "hinge": Loss("identity", hinge, hinge_delta),
    "perceptron": Loss("identity", perceptron, perceptron_delta),
    "squared_hinge": Loss("identity", squared_hinge, squared_hinge_delta),
    "absolute_error": Loss("identity", absolute_error, absolute_error_delta),
    "huber": Loss("identity", huber, huber_delta, {"delta": 1.0}, {"delta": "(0, inf)"}),
    "log_cosh": Loss("identity", log_cosh, log_cosh_delta),
    "quantile": Loss("identity", pinball, pinball_delta, {"quantile": 0.5}, {"quantile": "(0, 1)"}),
    "gamma": Loss("exp", gamma_deviance, gamma_deviance_delta),
}

_MOMENTS = ("root_2", "beta_1", "beta_2", "epsilon")

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(sgd, (), ("lr",)),
    "momentum": Optimizer(momentum, ("velocity",), ("lr", "momentum")),
    "nesterov": Optimizer(nesterov, ("velocity",), ("lr", "momentum")),
    "adam": Optimizer(adam, ("m", "v"), ("lr", "beta_1", "beta_2", "epsilon")),
    "adamw": Optimizer(adamw, ("m", "v"), ("step_size", *_MOMENTS)),
    "amsgrad": Optimizer(amsgrad, ("m", "v", "v_max"), ("step_size", *_MOMENTS)),
    "nadam": Optimizer(nadam, ("m", "v"), ("step_g", "step_m", *_MOMENTS)),
    "rmsprop": Optimizer(rmsprop, ("v",), ("lr", "rho", "epsilon")),
    "adagrad": Optimizer(adagrad, ("total",), ("lr", "epsilon")),
    "adadelta": Optimizer(adadelta, ("v", "u"), ("lr", "rho", "epsilon")),
    "lion": Optimizer(lion, ("m",), ("lr", "beta_1", "beta_2")),
}
