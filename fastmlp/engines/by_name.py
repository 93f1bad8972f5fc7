"""Single kernels by name, made of the calls of any engine: for displays, cross-checks, benches and teaching.

Each function builds the smallest network in which a call computes this kernel alone, so it shows the code that
trains.  Two things make that possible.  The loss y * p has the delta y, so targets are deltas.  And a row of a
sparse X that is 1 in a column of its own reads one row of W, whose gradient is then this row's delta.  (The CUDA engine
makes sparse rows dense: there a delta that is not finite spoils those of the other rows.)

Every function takes the engine first, a module of the contract.  All arrays of one call have one dtype, float32 or
float64; the functions return new arrays.  What an engine refuses, it refuses here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from scipy import sparse

from fastmlp.engines.backends import Data
from fastmlp.kernels import formulas, language
from fastmlp.kernels.arguments import check_array, check_states
from fastmlp.model.network import Network

LINEAR = language.loss("def linear(y, p): return y * p")

#: Activations that the output layer can compute, as it must if they have no slope -> a loss whose link this is.
LINKS = {"identity": "squared_error"} | {
    row.link: name
    for name, row in formulas.LOSSES.items()
    if row.link in formulas.ACTIVATIONS and formulas.ACTIVATIONS[row.link].slope is None
}


class _Net:
    """A network with the weights of each layer, and with biases if they are given; each call has a new workspace."""

    def __init__(
        self,
        engine: ModuleType,
        loss: Any,
        weights: Sequence[np.ndarray],
        biases: Sequence[Any] = (),
        activations: Sequence[Any] = (),
    ) -> None:
        dtype: Any = getattr(weights[0], "dtype", None)
        widths: list[int] = []
        for W in weights:
            check_array("W", W, dtype, (widths[-1] if widths else None, None), strided=True)
            widths += W.shape[len(widths) > 0 :]
        self.engine, self.network = engine, Network(tuple(widths), tuple(activations), loss, weights[0].dtype)
        self.params = np.zeros(self.network.n_params, weights[0].dtype)
        for segment in self.network.segments:
            if segment.of_units:
                self.params[segment.where] = segment.first
        views = [*self.network.coefs(self.params), *self.network.intercepts(self.params)]
        for view, given in zip(views, [*weights, *biases], strict=False):
            check_array("W" if view.ndim == 2 else "b", given, view.dtype, view.shape, strided=True)
            view[...] = given

    def _check(self, X: Any) -> None:
        if X.dtype != self.params.dtype:
            raise ValueError(f"X must have dtype {self.params.dtype}, as the other arrays have, got {X.dtype}")

    def predict(self, X: Any) -> np.ndarray:
        """Return link(logits) of all rows, (n, n_outputs)."""
        self._check(X)
        out = np.empty((X.shape[0], self.network.widths[-1]), self.params.dtype)
        self.engine.predict(self.engine.workspace(self.network, max(1, X.shape[0]), 1), self.params, X, out)
        return out

    def gradient(self, X: Any, y: np.ndarray, weight: np.ndarray | None = None) -> tuple[float, list, list]:
        """Return the mean loss, and the sums over the rows of the gradients of each W and b."""
        self._check(X)
        grad, n = np.empty_like(self.params), X.shape[0]
        workspace = self.engine.workspace(self.network, n, 1)
        value = self.engine.loss_and_grad(workspace, self.params, Data(X, y, weight), 0.0, grad)
        grad *= n if weight is None else weight.sum(dtype=np.float64)
        return value, self.network.coefs(grad), self.network.intercepts(grad)


def _one_hot_rows(n: int, dtype: Any) -> sparse.csr_array:
    """Return the identity (n, n) in CSR: no zero of it meets a NaN or an infinity of W."""
    return sparse.csr_array((np.ones(n, dtype), np.arange(n), np.arange(n + 1)), shape=(n, n))


def _carried(z: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
    """Return X in CSR and W with X W = z (n, width) exactly; the first n rows of W get the gradients of the rows of z.

    W is penalised, with strength 0, so it must be finite.  An infinity of z is made by overflow, and a NaN spoils all
    of its row.
    """
    (n, width), infinite = z.shape, np.isinf(z)
    beyond = np.copysign(np.finfo(z.dtype).max, z)
    data = np.hstack([np.ones((n, 1), z.dtype), np.where(infinite, 0, z), np.where(infinite, beyond, 0)])
    columns = np.hstack([np.arange(n)[:, None], np.tile(np.arange(n, n + 2 * width), (n, 1))])
    parts = data.ravel(), columns.ravel(), np.arange(n + 1) * data.shape[1]
    identity = np.eye(width, dtype=z.dtype)
    return sparse.csr_array(parts, shape=(n, n + 2 * width)), np.vstack([np.zeros_like(z), identity, 2 * identity])


def activate(engine: ModuleType, activation: Any, z: np.ndarray) -> np.ndarray:
    """Return f(z), z of any shape."""
    W, b = np.ones((1, 1), z.dtype), np.zeros(1, z.dtype)
    return linear_forward(engine, z.reshape(-1, 1), W, b, activation).reshape(z.shape)


def slope(engine: ModuleType, activation: Any, z: np.ndarray) -> np.ndarray:
    """Return df/dz at z, of any shape: what a delta of 1 becomes on its way back through f.

    All finite points are neurons of one hidden layer, as its weights.  Others cannot be weights, because these are
    penalised with strength 0; each is an input of a network of its own.
    """
    points, found = z.ravel(), np.empty(z.size, z.dtype)
    finite = np.isfinite(points)
    for at in filter(len, [np.flatnonzero(finite), *np.flatnonzero(~finite)[:, None]]):
        weights = np.where(finite[at], points[at], 0), np.ones(len(at), z.dtype)
        net = _Net(
            engine, LINEAR, [np.vstack(weights).astype(z.dtype), np.ones((len(at), 1), z.dtype)], (), [activation]
        )
        X = np.array([[1, 0 if finite[at[0]] else points[at[0]]]], z.dtype)
        found[at] = net.gradient(X, np.ones((1, 1), z.dtype))[1][0][0]
    return found.reshape(z.shape)


def linear_forward(engine: ModuleType, X: Any, W: np.ndarray, b: Any, activation: Any = "identity") -> np.ndarray:
    """Return f(X W + b), (n, fan_out), for X (n, fan_in) dense or CSR, W (fan_in, fan_out) and b (fan_out,).

    An activation that is no link makes a hidden layer, and the layer above it multiplies by the identity.  So numbers
    that are not finite spoil their row there, except if fan_out is 1.
    """
    if isinstance(activation, str) and activation in LINKS:
        return _Net(engine, LINKS[activation], [W], [b]).predict(X)
    return _Net(engine, "squared_error", [W, np.eye(W.shape[1], dtype=W.dtype)], [b], [activation]).predict(X)


def linear_backward(engine: ModuleType, X: Any, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of the first layer, X^T delta and sum_i delta_i.

    X is (n, fan_in), dense or CSR; delta (n, fan_out) is d loss / d pre-activation.
    """
    check_array("delta", delta, X.dtype, (X.shape[0], None))
    W = np.zeros((X.shape[1], delta.shape[1]), X.dtype)
    _, (grad_W,), (grad_b,) = _Net(engine, LINEAR, [W]).gradient(X, delta)
    return grad_W, grad_b


def hidden_backward(
    engine: ModuleType, activation: Any, z: np.ndarray, W: np.ndarray, delta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of a layer above a hidden one, f(z)^T delta and sum_i delta_i, and the hidden layer's delta.

    z (n, fan_in) is the pre-activation of the hidden layer, f its activation.  W is (fan_in, fan_out), delta
    (n, fan_out).  The delta of the hidden layer is (delta W^T) * df/dz, (n, fan_in).
    """
    X, carrier = _carried(z)
    _, (below, grad_W), (_, grad_b) = _Net(engine, LINEAR, [carrier, W], (), [activation]).gradient(X, delta)
    return grad_W, grad_b, below[: len(z)]


def softmax(engine: ModuleType, logits: np.ndarray) -> np.ndarray:
    """Return the softmax of each row of logits (n, n_outputs)."""
    return _Net(engine, "log_loss", [logits]).predict(_one_hot_rows(len(logits), logits.dtype))


def loss(
    engine: ModuleType, name: Any, logits: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Return the mean loss over the rows, and delta = d loss / d logits * sample_weight.

    The mean is sum_i w_i l_i / sum_i w_i, where l_i is a sum over the outputs (squared_error: a mean).  ``delta`` is
    the derivative of sum_i w_i l_i by the logits (squared_error: of the sum over the outputs).  A NaN among the logits
    spoils its row.

    Parameters
    ----------
    engine : module
    name : str, (str, dict) or formula
        A loss.
    logits : ndarray of shape (n, n_outputs)
    y : ndarray of shape (n,), dtype intp, or (n, n_outputs)
        Class indices if the loss takes them, else targets.
    sample_weight : ndarray of shape (n,), default=None

    Returns
    -------
    value : float
    delta : ndarray of shape (n, n_outputs)

    Raises
    ------
    ZeroDivisionError
        If the sample weights sum to zero.
    """
    X, W = _carried(logits)
    value, (grad,), _ = _Net(engine, name, [W]).gradient(X, y, sample_weight)
    return value, grad[: len(logits)]


def losses(engine: ModuleType, name: Any, logits: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of each row (n,), and delta (n, n_outputs), for arguments as those of :func:`loss`."""
    net = _Net(engine, name, [np.eye(logits.shape[1], dtype=logits.dtype)])
    net._check(logits)
    grad, values, delta = np.empty_like(net.params), np.empty(len(logits), logits.dtype), np.empty_like(logits)
    workspace = engine.workspace(net.network, 1, 1)
    (of_bias,) = net.network.intercepts(grad)
    for i in range(len(logits)):  # a call returns a mean over its rows
        row = Data(logits[i : i + 1], y[i : i + 1], None)
        values[i], delta[i] = engine.loss_and_grad(workspace, net.params, row, 0.0, grad), of_bias
    return values, delta


def update(
    engine: ModuleType, rule: str, params: np.ndarray, grad: np.ndarray, states: list[np.ndarray], scalars: Any
) -> None:
    """Take one optimizer step in place: params, *states = step(params, grad, *states, *scalars), all (n_params,).

    The parameters are the weights of a network of one row [1]; its biases, which have the same gradient, are left out.
    """
    if rule not in formulas.OPTIMIZERS:
        raise ValueError(f"rule must be one of {sorted(formulas.OPTIMIZERS)}, got {rule!r}")
    check_array("params", params, getattr(params, "dtype", None), (None,), out=True)
    check_array("grad", grad, params.dtype, params.shape)
    check_states(formulas.OPTIMIZERS[rule], states, params=params, grad=grad)
    net, n = _Net(engine, LINEAR, [params[None]]), len(params)
    wide = [np.concatenate([state, np.zeros_like(state)]) for state in states]
    optimizer = SimpleNamespace(rule=rule, states=wide, t=0, scalars=lambda n_steps: np.array([scalars], np.float64))
    data = Data(np.ones((1, 1), params.dtype), grad[None])
    engine.train_epoch(engine.workspace(net.network, 1, 1), net.params, data, np.zeros(1, np.intp), 1, 0.0, optimizer)
    params[...] = net.params[:n]
    for state, new in zip(states, wide, strict=True):
        state[...] = new[:n]
