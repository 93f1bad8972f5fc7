"""The engine as a textbook states it: plain NumPy, one equation at a time, clear before fast.

Where it sits: a backend like any other (``fastmlp.backends.get("reference")``), and the judge of
all others: the tests compare every engine with this file.  It therefore states each formula a
second time and imports nothing from formulas.py.  A new activation, loss or optimizer is one entry
in a table below and one row in formulas.py.

Reading order: the three tables, one layer, losses, updates, the whole network, argument checks.
Marks in the docstrings: IN is read, OUT is overwritten.  Every array of one call has the same
dtype, float32 or float64, and is C-contiguous unless the docstring says otherwise; anything else is
a ValueError that names the argument, raised before anything is written.

Sources: Rumelhart, Hinton & Williams 1986 (back-propagation); Bishop 2006, chapters 4 and 5 (losses
with their canonical links); Sutskever et al. 2013 (Nesterov's momentum); Kingma & Ba 2015 (Adam).
Conventions (what is averaged, what is clipped) are scikit-learn's.
"""

import inspect
import operator
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit, xlogy

__all__ = [
    "activate",
    "adam_update",
    "linear_backward",
    "linear_forward",
    "loss",
    "loss_and_grad",
    "momentum_update",
    "predict",
    "sgd_update",
    "shuffle",
    "slope",
    "softmax",
    "softmax_cross_entropy",
    "train_epoch",
    "update",
    "workspace",
]

# --- the tables ----------------------------------------------------------------------------------

#: name: (a = f(z), da/dz).  A slope takes what it needs by name: ``z``, ``a`` or both.
#: None: this row is only an output link.
ACTIVATIONS: dict[str, tuple[Callable, Callable | None]] = {
    "identity": (lambda z: z, lambda a: np.ones_like(a)),
    "logistic": (expit, lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: 1 - a * a),
    "relu": (lambda z: np.maximum(z, 0), lambda a: (a != 0).astype(a.dtype)),  # 0 at the kink
    "exp": (np.exp, None),
}


def _softmax(z):  # p_k = exp(z_k - max z) / sum_j exp(z_j - max z)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _log_loss(z, y):  # -sum_k y_k log p_k
    shifted = z - z.max(axis=1, keepdims=True)
    return np.sum(y * _clip(np.log(np.exp(shifted).sum(axis=1, keepdims=True)) - shifted), axis=1)


def _binary_log_loss(z, y):  # -sum_k y_k log p_k + (1 - y_k) log(1 - p_k)
    # -log p = log(1 + exp(-z)) and -log(1 - p) = log(1 + exp(z))
    return np.sum(y * _clip(np.logaddexp(0, -z)) + (1 - y) * _clip(np.logaddexp(0, z)), axis=1)


def _squared_error(z, y):  # a mean over the outputs, where the other losses are sums
    return np.mean((z - y) ** 2 / 2, axis=1)


def _poisson(z, y):  # half the deviance, sum_k y_k log(y_k / p_k) - y_k + p_k with p = exp(z)
    return np.sum(xlogy(y, y) - y * z - y + np.exp(z), axis=1)


def _clip(minus_log_p):  # as if p had been clipped to [eps, 1 - eps] before the logarithm
    eps = np.finfo(minus_log_p.dtype).eps
    return np.clip(minus_log_p, -np.log1p(-eps), -np.log(eps))


class Loss(NamedTuple):
    """A loss with its canonical output link, so that d loss / d logits = link(logits) - y."""

    link: Callable  # logits (n, n_outputs) -> predictions (n, n_outputs)
    rows: Callable  # logits, y (n, n_outputs) -> loss of each row (n,); y is one-hot for log_loss


LOSSES: dict[str, Loss] = {
    "log_loss": Loss(_softmax, _log_loss),
    "binary_log_loss": Loss(expit, _binary_log_loss),
    "squared_error": Loss(lambda z: z, _squared_error),
    "poisson": Loss(np.exp, _poisson),
}


def _sgd(p, g, lr):
    return (p - lr * g,)


def _momentum(p, g, velocity, lr, momentum):
    velocity = momentum * velocity - lr * g
    return p + velocity, velocity


def _nesterov(p, g, velocity, lr, momentum):  # looks one step ahead along the new velocity
    velocity = momentum * velocity - lr * g
    return p + momentum * velocity - lr * g, velocity


def _adam(p, g, m, v, lr, beta_1, beta_2, epsilon):
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    return p - lr * m / (np.sqrt(v) + epsilon), m, v


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
}

# --- one layer -----------------------------------------------------------------------------------


def activate(activation, z, out):
    """Apply an activation: out = f(z).

    Parameters
    ----------
    activation : str
        A key of ACTIVATIONS.
    z : ndarray of any shape (IN)
        Pre-activation.
    out : ndarray of z's shape (OUT)
        May be ``z`` itself.
    """
    f, _ = _row("activation", ACTIVATIONS, activation)
    _array("z", z, _float("z", z))
    _array("out", out, z.dtype, z.shape, out=True)
    out[...] = f(z)


def slope(activation, z, a, out):
    """Apply the slope of an activation: out = da/dz at z, where a = f(z).

    Parameters
    ----------
    activation : str
        A key of ACTIVATIONS.
    z : ndarray of any shape, or None (IN)
        Pre-activation; None where the slope is a function of ``a`` alone.
    a : ndarray of z's shape (IN)
        Activation.
    out : ndarray of z's shape (OUT)
    """
    df = _slope(activation, z)
    _array("a", a, _float("a", a))
    if z is not None:
        _array("z", z, a.dtype, a.shape)
    _array("out", out, a.dtype, a.shape, out=True)
    out[...] = df(z, a)


def linear_forward(X, W, b, activation, out, z=None):
    """One layer forward: z = X W + b, out = f(z).

    Parameters
    ----------
    X : ndarray of shape (n, fan_in) (IN)
    W : ndarray of shape (fan_in, fan_out) (IN)
    b : ndarray of shape (fan_out,) (IN)
    activation : str
        A key of ACTIVATIONS.
    out : ndarray of shape (n, fan_out) (OUT)
    z : ndarray of shape (n, fan_out), default=None (OUT)
        Where given, receives the pre-activation.
    """
    f, _ = _row("activation", ACTIVATIONS, activation)
    _array("X", X, _float("X", X), (None, None))
    _array("W", W, X.dtype, (X.shape[1], None))
    _array("b", b, X.dtype, W.shape[1:])
    shape = (X.shape[0], W.shape[1])
    _array("out", out, X.dtype, shape, out=True)
    if z is not None:
        _array("z", z, X.dtype, shape, out=True)
    pre_activation = X @ W + b
    if z is not None:
        z[...] = pre_activation
    out[...] = f(pre_activation)


def linear_backward(X, W, delta, activation, grad_W, grad_b, delta_below=None, z=None):
    """One layer backward.

    grad_W = X^T delta, grad_b = sum_i delta_i, delta_below = (delta W^T) * df/dz.

    Parameters
    ----------
    X : ndarray of shape (n, fan_in) (IN)
        What :func:`linear_forward` read, the output f(z) of the layer below.
    W : ndarray of shape (fan_in, fan_out) (IN)
    delta : ndarray of shape (n, fan_out) (IN)
        d loss / d pre-activation of this layer.
    activation : str
        f, the activation of the layer below that made X.
    grad_W : ndarray of shape (fan_in, fan_out) (OUT)
    grad_b : ndarray of shape (fan_out,) (OUT)
    delta_below : ndarray of shape (n, fan_in), default=None (OUT)
        d loss / d pre-activation of the layer below; None to skip it.
    z : ndarray of shape (n, fan_in), default=None (IN)
        Pre-activation of the layer below; None where the slope is a function of X alone.
    """
    _row("activation", ACTIVATIONS, activation)
    _array("X", X, _float("X", X), (None, None))
    _array("W", W, X.dtype, (X.shape[1], None))
    _array("delta", delta, X.dtype, (X.shape[0], W.shape[1]))
    _array("grad_W", grad_W, X.dtype, W.shape, out=True)
    _array("grad_b", grad_b, X.dtype, W.shape[1:], out=True)
    if z is not None:
        _array("z", z, X.dtype, X.shape)
    if delta_below is not None:
        _array("delta_below", delta_below, X.dtype, X.shape, out=True)
        delta_below[...] = (delta @ W.T) * _slope(activation, z)(z, X)
    grad_W[...] = X.T @ delta
    grad_b[...] = delta.sum(axis=0)


# --- losses --------------------------------------------------------------------------------------


def softmax(logits, out):
    """Row-wise softmax: out_k = exp(logits_k) / sum_j exp(logits_j).

    Parameters
    ----------
    logits : ndarray of shape (n, n_outputs) (IN)
    out : ndarray of shape (n, n_outputs) (OUT)
        May be ``logits`` itself.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.kernels import reference
    >>> p = np.empty((1, 3))
    >>> reference.softmax(np.array([[0.9, 0.2, 0.4]]), p)
    >>> p.round(7).tolist()
    [[0.475485, 0.2361188, 0.2883962]]
    """
    _array("logits", logits, _float("logits", logits), (None, None))
    _array("out", out, logits.dtype, logits.shape, out=True)
    if logits.shape[1] == 0:
        raise ValueError("logits must have at least one column")
    out[...] = _softmax(logits)


def loss(name, logits, y, sample_weight, delta):
    """Mean loss over the rows, and delta = (prediction - y) * sample_weight.

    The mean is sum_i w_i l_i / sum_i w_i, where l_i is a sum over the outputs (squared_error: a
    mean).  ``delta`` is the derivative of sum_i w_i l_i by the logits (squared_error: of the sum
    over the outputs); it is not divided by anything.  In the log losses each -log p is clipped as
    if p were in [eps, 1 - eps]; ``delta`` is not clipped.  All of it as in scikit-learn.

    Parameters
    ----------
    name : str
        A key of LOSSES.
    logits : ndarray of shape (n, n_outputs) (IN)
        The output layer before its link.
    y : ndarray (IN)
        log_loss: class indices of shape (n,), dtype intp.  Otherwise: targets of shape
        (n, n_outputs).
    sample_weight : ndarray of shape (n,), or None (IN)
    delta : ndarray of shape (n, n_outputs) (OUT)

    Returns
    -------
    float

    Raises
    ------
    ZeroDivisionError
        If the sample weights sum to zero.
    """
    row = _row("name", LOSSES, name)
    _array("logits", logits, _float("logits", logits), (None, None))
    if logits.size == 0:
        raise ValueError("logits must have at least one row and one column")
    y = _targets(name, y, logits.shape, logits.dtype)
    w = _weights(sample_weight, len(logits), logits.dtype)
    _array("delta", delta, logits.dtype, logits.shape, out=True)
    value = np.average(row.rows(logits, y), weights=w)
    delta[...] = (row.link(logits) - y) * (1 if w is None else w[:, None])
    return float(value)


def softmax_cross_entropy(logits, y, sample_weight, delta):
    """``loss("log_loss", ...)``: the mean of -log p[y], p = softmax(logits), and delta.

    delta = (p - onehot(y)) * sample_weight; see :func:`loss`.

    Parameters
    ----------
    logits : ndarray of shape (n, n_classes) (IN)
    y : ndarray of shape (n,), dtype intp (IN)
        Class indices.
    sample_weight : ndarray of shape (n,), or None (IN)
    delta : ndarray of shape (n, n_classes) (OUT)

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.kernels import reference
    >>> logits, delta = np.array([[1.0, 4.0, 3.0]]), np.empty((1, 3))
    >>> round(reference.softmax_cross_entropy(logits, np.array([1]), None, delta), 6)
    0.349012
    """
    return loss("log_loss", logits, y, sample_weight, delta)


# --- updates -------------------------------------------------------------------------------------


def update(rule, params, grad, states, scalars):
    """One optimizer step in place: params, *states = step(params, grad, *states, *scalars).

    Parameters
    ----------
    rule : str
        A key of OPTIMIZERS.
    params : ndarray of shape (n_params,) (IN, OUT)
    grad : ndarray of shape (n_params,) (IN)
    states : list of ndarray of shape (n_params,) (IN, OUT)
        In the order of the rule's row; none may share memory with another or with params or grad.
    scalars : sequence of float
        In the order of the rule's row.
    """
    row = _row("rule", OPTIMIZERS, rule)
    _array("params", params, _float("params", params), (None,), out=True)
    _array("grad", grad, params.dtype, params.shape)
    _states(row, states, params=params, grad=grad)
    if len(scalars) != len(row.scalars):
        raise ValueError(f"scalars must be {row.scalars}, got {len(scalars)} numbers")
    # unlike a NumPy float64, a Python float does not promote a float32 array
    new = row.step(params, grad, *states, *map(float, scalars))
    for old, value in zip([params, *states], new, strict=True):
        old[...] = value


def sgd_update(params, grad, lr):
    """One step of gradient descent: p = p - lr g.  See :func:`update` for the arrays."""
    update("sgd", params, grad, [], [lr])


def momentum_update(params, grad, velocity, lr, momentum, nesterov=False):
    """One step with momentum: v = mu v - lr g; p = p + v (Nesterov: p = p + mu v - lr g).

    See :func:`update` for the arrays.
    """
    update("nesterov" if nesterov else "momentum", params, grad, [velocity], [lr, momentum])


def adam_update(params, grad, m, v, lr, beta_1, beta_2, epsilon):
    """One step of Adam.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p = p - lr m / (sqrt(v) + epsilon), where ``lr``
    is already bias-corrected for step t: learning_rate * sqrt(1 - b2^t) / (1 - b1^t).
    See :func:`update` for the arrays.
    """
    update("adam", params, grad, [m, v], [lr, beta_1, beta_2, epsilon])


# --- the whole network ---------------------------------------------------------------------------


class Workspace(NamedTuple):
    """This engine allocates as it goes, so its workspace is only what it must remember."""

    network: Any
    batch_size: int


def workspace(network, batch_size, n_jobs=None):
    """What the coarse calls need besides their arguments.

    Parameters
    ----------
    network : fastmlp.network.Network
    batch_size : int
        Rows that one training step reads.
    n_jobs : int, default=None
        Accepted and ignored: this engine leaves threads to NumPy.

    Returns
    -------
    Workspace
    """
    _row("network.loss", LOSSES, network.loss)
    if network.dtype not in (np.float32, np.float64):
        raise ValueError(f"network.dtype must be float32 or float64, got {network.dtype}")
    if len(network.widths) < 2 or any(operator.index(width) < 1 for width in network.widths):
        raise ValueError(f"network.widths must be two or more layer sizes, got {network.widths}")
    if len(network.activations) != len(network.widths) - 2:
        raise ValueError(f"network.activations must hold one name for each hidden layer, got {network}")
    for activation in network.activations:
        _slope(activation, z=network)  # not None: training always has z
    return Workspace(network, _batch_size(batch_size))


def _layers(network, params):
    """Views (W, b) of each layer in the flat vector [W0 .. Wn | b0 .. bn]."""
    shapes = list(pairwise(network.widths))
    sizes = [fan_in * fan_out for fan_in, fan_out in shapes] + [fan_out for _, fan_out in shapes]
    pieces = np.split(params, np.cumsum(sizes)[:-1])
    weights, biases = pieces[: len(shapes)], pieces[len(shapes) :]
    return [(W.reshape(s), b) for W, b, s in zip(weights, biases, shapes, strict=True)]


def _forward(network, params, A):
    """Pre-activations of every layer, and what each layer reads: A0 = X, A1 = f(z0), ..."""
    inputs, pre_activations = [A], []
    for i, (W, b) in enumerate(_layers(network, params)):
        pre_activations.append(inputs[-1] @ W + b)
        if i < len(network.activations):
            f, _ = ACTIVATIONS[network.activations[i]]
            inputs.append(f(pre_activations[-1]))
    return inputs, pre_activations


def _backprop(network, params, X, y, w, alpha):
    """Penalised mean loss of one batch and its gradient, from arguments already checked."""
    layers, row = _layers(network, params), LOSSES[network.loss]
    inputs, z = _forward(network, params, X)
    sw_sum = X.shape[0] if w is None else w.sum()
    weights = np.concatenate([W.ravel() for W, _ in layers])
    value = np.average(row.rows(z[-1], y), weights=w) + 0.5 * alpha * (weights @ weights) / sw_sum
    grad_W, grad_b = [], []
    delta = (row.link(z[-1]) - y) * (1 if w is None else w[:, None])
    for i in reversed(range(len(layers))):
        W, _ = layers[i]
        grad_W.insert(0, (inputs[i].T @ delta + alpha * W) / sw_sum)
        grad_b.insert(0, delta.sum(axis=0) / sw_sum)
        if i > 0:
            df = _slope(network.activations[i - 1], z[i - 1])
            delta = (delta @ W.T) * df(z[i - 1], inputs[i])
    return float(value), np.concatenate([g.ravel() for g in grad_W + grad_b])


def predict(workspace, params, X, out, rows=None):
    """Predictions of the network: out = link(logits).

    Parameters
    ----------
    workspace : Workspace
    params : ndarray of shape (n_params,) (IN)
    X : {ndarray, CSR} of shape (n, n_features), float32 or float64, any strides (IN)
    out : ndarray of shape (n, n_outputs), or (len(rows), n_outputs) (OUT)
    rows : ndarray of shape (n_rows,), dtype intp, default=None (IN)
        Rows of X to predict, in this order; None for all.

    Returns
    -------
    bool
        Whether these rows, in the network's dtype, held neither NaN nor infinities.
    """
    network = _network(workspace)
    _parameters(params, network)
    X = _samples(X, network)
    if rows is not None:
        X = X[_indices("rows", rows, X.shape[0])]
    _array("out", out, network.dtype, (X.shape[0], network.widths[-1]), out=True)
    _, pre_activations = _forward(network, params, X)
    out[...] = LOSSES[network.loss].link(pre_activations[-1])
    return bool(np.isfinite(X.data[: X.indptr[-1]] if sparse.issparse(X) else X).all())


def shuffle(order, random_state):
    """``random_state.shuffle(order)``.

    Parameters
    ----------
    order : ndarray of shape (n,), dtype intp (IN, OUT)
    random_state : numpy.random.RandomState (IN, OUT)
    """
    _array("order", order, np.dtype(np.intp), (None,), out=True)
    if not isinstance(random_state, np.random.RandomState):
        raise ValueError(f"random_state must be a RandomState, got {type(random_state).__name__}")
    random_state.shuffle(order)


def loss_and_grad(workspace, params, data, alpha, grad):
    """Penalised mean loss over the whole data, loss + alpha/2 ||W||^2 / sw_sum, and its gradient.

    grad_W = (A^T delta + alpha W) / sw_sum and grad_b = sum_i delta_i / sw_sum, where A is what the
    layer reads and sw_sum the sum of the sample weights, or n.  For squared_error with several
    outputs the loss is a mean over the outputs and the gradient that of their sum, as in
    scikit-learn.

    Parameters
    ----------
    workspace : Workspace
    params : ndarray of shape (n_params,) (IN)
    data : fastmlp.backends.Data (IN)
    alpha : float
    grad : ndarray of shape (n_params,) (OUT)

    Returns
    -------
    float

    Raises
    ------
    ZeroDivisionError
        If the sample weights sum to zero.
    """
    network = _network(workspace)
    _parameters(params, network)
    X, y, w = _data(data, network)
    _array("grad", grad, network.dtype, params.shape, out=True)
    if np.may_share_memory(params, grad):
        raise ValueError("grad must not share memory with params")
    value, grad[...] = _backprop(network, params, X, y, w, float(alpha))
    return value


def train_epoch(workspace, params, data, order, batch_size, alpha, optimizer):
    """One pass over the data: for each batch of rows its gradient, then :func:`update`.

    Loss and gradient of a batch are those of :func:`loss_and_grad` over the batch's rows.

    Parameters
    ----------
    workspace : Workspace
    params : ndarray of shape (n_params,) (IN, OUT)
    data : fastmlp.backends.Data (IN)
    order : ndarray of shape (m,), dtype intp (IN)
        Rows to visit, in this order; batches are consecutive slices of it, the last one may be
        shorter.
    batch_size : int
    alpha : float
    optimizer : object (IN, OUT)
        ``rule``, ``states``, ``scalars(n_steps)`` -> float64 (n_steps, n_scalars) for the coming
        steps, and ``t``, the number of steps done so far, which grows by the number of batches.

    Returns
    -------
    float
        sum over batches of (loss before the batch's update) * rows / m.

    Raises
    ------
    ZeroDivisionError
        If the sample weights of a batch sum to zero.
    """
    network = _network(workspace)
    _parameters(params, network, out=True)
    X, y, w = _data(data, network)
    order = _indices("order", order, X.shape[0])
    batch_size = _batch_size(batch_size)
    if len(order) == 0:
        raise ValueError("order must hold at least one row")
    steps = -(-len(order) // batch_size)
    row = _row("optimizer.rule", OPTIMIZERS, optimizer.rule)
    _states(row, optimizer.states, params=params)
    scalars = optimizer.scalars(steps)
    _array("optimizer.scalars", scalars, np.dtype(np.float64), (steps, len(row.scalars)))
    accumulated = 0.0
    for step in range(steps):
        batch = order[step * batch_size : (step + 1) * batch_size]
        batch_w = None if w is None else w[batch]
        value, grad = _backprop(network, params, X[batch], y[batch], batch_w, float(alpha))
        update(optimizer.rule, params, grad, optimizer.states, scalars[step])
        optimizer.t += 1
        accumulated += value * len(batch)
    return accumulated / len(order)


# --- argument checks -----------------------------------------------------------------------------


def _row(name, table, key):
    if key not in table:
        raise ValueError(f"{name} must be one of {sorted(table)}, got {key!r}")
    return table[key]


def _slope(activation, z):
    """The slope as a function of (z, a), whichever of the two the table's entry takes."""
    _, df = _row("activation", ACTIVATIONS, activation)
    if df is None:
        raise ValueError(f"activation {activation!r} has no slope: it is an output link")
    needs = inspect.signature(df).parameters
    if "z" in needs and z is None:
        raise ValueError(f"z must be given: the slope of activation {activation!r} needs it")
    return lambda z, a: df(**{name: {"z": z, "a": a}[name] for name in needs})


def _float(name, array):
    """The dtype of an array that must be float32 or float64."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name} must have dtype float32 or float64, got {array.dtype}")
    return array.dtype


def _array(name, array, dtype, shape=None, *, out=False, strided=False):
    """Check one array; None in ``shape`` stands for any length, ``shape=None`` for any shape."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype != dtype:
        raise ValueError(f"{name} must have dtype {dtype}, got {array.dtype}")
    if shape is not None and (
        array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True))
    ):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {array.shape}")
    if not (strided or (array.flags.c_contiguous and array.flags.aligned)):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    if out and not array.flags.writeable:
        raise ValueError(f"{name} must be writable")


def _states(row, states, **others):
    """Check the state arrays: as many as the rule has, shaped as params, no memory shared."""
    if len(states) != len(row.states):
        raise ValueError(f"states must be {row.states}, got {len(states)} arrays")
    named = dict(zip(row.states, states, strict=True))
    for name, state in named.items():
        _array(name, state, others["params"].dtype, others["params"].shape, out=True)
    arrays = list({**others, **named}.items())
    for i, (name, array) in enumerate(arrays):
        for other_name, other in arrays[:i]:
            if np.may_share_memory(array, other):
                raise ValueError(f"{name} must not share memory with {other_name}")


def _batch_size(batch_size):
    try:
        batch_size = operator.index(batch_size)
    except TypeError:
        raise ValueError(f"batch_size must be an integer, got {batch_size!r}") from None
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return batch_size


def _indices(name, indices, n):
    """Row indices into n rows."""
    _array(name, indices, np.dtype(np.intp), (None,))
    if indices.size and not (indices.min() >= 0 and indices.max() < n):
        raise ValueError(f"{name} must lie in [0, {n}), got {indices.min()} .. {indices.max()}")
    return indices


def _network(workspace):
    if not isinstance(workspace, Workspace):
        raise ValueError(f"workspace must come from workspace(), got {type(workspace).__name__}")
    return workspace.network


def _parameters(params, network, out=False):
    n_params = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(network.widths))
    _array("params", params, network.dtype, (n_params,), out=out)


def _samples(X, network):
    """X in the network's dtype, dense or CSR."""
    if sparse.issparse(X):
        _csr(X)
    else:
        _array("X", X, _float("X", X), (None, None), strided=True)
    if X.shape[1] != network.widths[0]:
        raise ValueError(f"X must have {network.widths[0]} columns, got {X.shape[1]}")
    return X.astype(network.dtype)


def _csr(X):
    """Check what SciPy does not, once the arrays of a CSR matrix are edited after construction."""
    if X.format != "csr":
        raise ValueError(f"X must be an array or a CSR matrix, got {X.format}")
    _array("X.data", X.data, _float("X.data", X.data), (None,), strided=True)
    for name in ("indptr", "indices"):
        if getattr(X, name).dtype not in (np.int32, np.int64) or getattr(X, name).ndim != 1:
            raise ValueError(f"X.{name} must be one-dimensional, of dtype int32 or int64")
    n, n_features = X.shape
    indptr, room = X.indptr, min(len(X.data), len(X.indices))
    if len(indptr) != n + 1 or indptr[0] != 0 or indptr[-1] > room:
        raise ValueError(f"X.indptr must hold {n + 1} numbers from 0 to at most {room}")
    if (indptr[1:] < indptr[:-1]).any():
        raise ValueError("X.indptr must not decrease")
    used = X.indices[: indptr[-1]]
    if used.size and not (used.min() >= 0 and used.max() < n_features):
        raise ValueError(f"X.indices must lie in [0, {n_features})")


def _targets(loss, y, shape, dtype):
    """y as a matrix (n, n_outputs): one-hot where it holds class indices."""
    if loss != "log_loss":
        _array("y", y, dtype, shape)
        return y
    _array("y", y, np.dtype(np.intp), shape[:1])
    if not (y.min() >= 0 and y.max() < shape[1]):
        raise ValueError(f"y must lie in [0, {shape[1]}), got {y.min()} .. {y.max()}")
    return np.eye(shape[1], dtype=dtype)[y]


def _weights(sample_weight, n, dtype):
    if sample_weight is not None:
        _array("sample_weight", sample_weight, dtype, (n,))
    return sample_weight


def _data(data, network):
    X = _samples(data.X, network)
    if X.shape[0] == 0:
        raise ValueError("X must have at least one row")
    shape = (X.shape[0], network.widths[-1])
    y = _targets(network.loss, data.y, shape, network.dtype)
    return X, y, _weights(data.sample_weight, X.shape[0], network.dtype)
