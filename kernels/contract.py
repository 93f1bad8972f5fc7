"""The contract: what every engine offers, and what the engines written in Python share besides argument checks.

Where it sits: ``fastmlp.engines.backends`` finds an engine, a module with the functions of :class:`Engine`; training,
prediction, monitoring and displays call them.  A test compares the signatures.  Argument checks are in arguments.py.

Marks in the docstrings: IN is read, OUT is overwritten.  Every array of one call has the same dtype, float32 or
float64, and is C-contiguous and aligned unless the docstring says otherwise; no OUT array shares memory with another
argument unless the docstring allows it.  Anything else is a ValueError that names the argument, raised before anything
is written.

An activation or a loss is given as a name, a pair (name, {parameter: value}), or a formula of the user's own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from fastmlp.model.network import Network


class Data(NamedTuple):
    """The rows of a fit.

    X : ndarray (n, n_features), float32 or float64, any strides; or CSR matrix; or, for the CUDA engine, an array on
        the device, C-contiguous and of the network's dtype
    y : intp class indices (n,) for log_loss and focal, else targets (n, n_outputs) of the network's dtype
    sample_weight : None, or (n,) of the network's dtype
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None = None


class Optimizer(Protocol):
    """What :meth:`Engine.train_epoch` reads of an optimizer.

    rule : key of ``formulas.OPTIMIZERS``
    states : arrays (n_params,), in the order of the rule's row
    t : steps done so far; grows with each step

    It may also have ``decays(n_steps)``, float64 (n_steps,) or None: a decoupled weight decay, the factor of each step;
    and ``max_grad_norm``, a number above 0 or None: the norm to which a longer gradient is scaled down.
    """

    rule: str
    states: list[np.ndarray]
    t: int

    def scalars(self, n_steps: int) -> np.ndarray:
        """Return float64 (n_steps, n_scalars): the scalars of the coming steps, in the order of the rule's row."""


class Engine(Protocol):
    """The calls of an engine, a module with these functions.

    The coarse calls ``workspace``, ``predict``, ``loss_and_grad``, ``train_epoch`` and ``shuffle`` do the work of a
    fit.  The others compute one kernel: for monitoring, displays, tests and benches.
    """

    @staticmethod
    def workspace(network: Network, batch_size: int, n_jobs: int | None = None) -> Any:
        """Allocate what the coarse calls need besides their arguments; it serves one call at a time.

        Parameters
        ----------
        network : fastmlp.model.network.Network
        batch_size : int
            Rows that one training step reads.
        n_jobs : int, default=None
            Threads that train together; None: as many as are allowed, if a step is large enough.  Engines that leave
            threads to others accept and ignore it.

        Returns
        -------
        Workspace
            The engine's own.
        """

    @staticmethod
    def predict(workspace: Any, params: np.ndarray, X: Any, out: np.ndarray, rows: np.ndarray | None = None) -> bool:
        """Predict: out = link(logits) for all rows of X, or for ``X[rows]``.

        Parameters
        ----------
        workspace : Workspace
        params : ndarray of shape (n_params,) (IN)
        X : {ndarray, CSR} of shape (n, n_features), float32 or float64, any strides (IN)
            The CUDA engine takes arrays on the device, too.
        out : ndarray of shape (n, n_outputs), or (len(rows), n_outputs) (OUT)
        rows : ndarray of shape (n_rows,), dtype intp, default=None (IN)
            Rows of X to predict, in this order; None for all.

        Returns
        -------
        bool
            Whether these rows, in the network's dtype, held neither NaN nor infinities.

        Raises
        ------
        ValueError
            If the network has batch_norm: predict with its ``network.folded(params)``.

        Notes
        -----
        Nothing is dropped out.
        """

    @staticmethod
    def loss_and_grad(
        workspace: Any, params: np.ndarray, data: Data, alpha: float, grad: np.ndarray, l1: float = 0.0
    ) -> float:
        """Compute the penalised mean loss over the whole data and its gradient.

        The penalty is (alpha/2 ||W||^2 + l1 ||W||_1) / sw_sum, of the weights W only;
        grad_W = (A^T delta + alpha W + l1 sign(W)) / sw_sum and grad_b = sum_i delta_i / sw_sum, where A is what the
        layer reads and sw_sum the sum of the sample weights, or n.  For squared_error with several outputs the loss is
        a mean over the outputs and the gradient that of their sum, as in scikit-learn.

        Parameters
        ----------
        workspace : Workspace
            Its network must have neither dropout nor batch_norm: their loss is a function of the batch and the step.
        params : ndarray of shape (n_params,) (IN)
        data : Data (IN)
        alpha : float
            Strength of the L2 penalty.
        grad : ndarray of shape (n_params,) (OUT)
        l1 : float, default=0.0
            Strength of the L1 penalty.

        Returns
        -------
        float

        Raises
        ------
        ZeroDivisionError
            If the sample weights sum to zero.
        """

    @staticmethod
    def train_epoch(
        workspace: Any, params: np.ndarray, data: Data, order: np.ndarray, batch_size: int, alpha: float,
        optimizer: Optimizer, l1: float = 0.0, seed: int = 0,
    ) -> float:  # fmt: skip
        """Train for one epoch: for each batch of rows its gradient, then :meth:`update`.

        Loss and gradient of a batch are those of :meth:`loss_and_grad` over the batch's rows, with what training alone
        has: dropout (a = a * keep / (1 - rate) behind an activation) and batch_norm (in front of it).  A gradient whose
        norm is larger than ``optimizer.max_grad_norm`` is scaled down to it; before the update, params =
        params * (1 - decay).  Both concern all entries that are trained: those before the running statistics.

        Ctrl-C is seen between calls of a bounded amount of work; the steps done are kept.

        Parameters
        ----------
        workspace : Workspace
        params : ndarray of shape (n_params,) (IN, OUT)
        data : Data (IN)
        order : ndarray of shape (m,), dtype intp (IN)
            Rows to visit, in this order; batches are consecutive slices of it, the last one may be shorter.
        batch_size : int
        alpha : float
            Strength of the L2 penalty.
        optimizer : Optimizer (IN, OUT)
        l1 : float, default=0.0
            Strength of the L1 penalty.
        seed : int in [0, 2^64), default=0
            What is dropped is a function of this and of ``optimizer.t``.

        Returns
        -------
        float
            sum over batches of (loss before the batch's update) * rows / m.

        Raises
        ------
        ZeroDivisionError
            If the sample weights of a batch sum to zero.
        """

    @staticmethod
    def shuffle(order: np.ndarray, random_state: np.random.RandomState) -> None:
        """Shuffle row indices as ``random_state.shuffle(order)`` does, draw for draw.

        Parameters
        ----------
        order : ndarray of shape (n,), dtype intp (IN, OUT)
        random_state : numpy.random.RandomState (IN, OUT)
        """

    @staticmethod
    def update(
        rule: str, params: np.ndarray, grad: np.ndarray, states: list[np.ndarray], scalars: Sequence[float]
    ) -> None:
        """Take one optimizer step in place: params, *states = step(params, grad, *states, *scalars).

        Parameters
        ----------
        rule : str
            A key of ``formulas.OPTIMIZERS``.
        params : ndarray of shape (n_params,) (IN, OUT)
        grad : ndarray of shape (n_params,) (IN)
        states : list of ndarray of shape (n_params,) (IN, OUT)
            In the order of the rule's row; none may share memory with another or with params or grad.
        scalars : sequence of float
            In the order of the rule's row.
        """

    @staticmethod
    def activate(activation: Any, z: np.ndarray, out: np.ndarray) -> None:
        """Apply an activation: out = f(z).

        Parameters
        ----------
        activation : str, (str, dict) or formula
            A key of ``formulas.ACTIVATIONS``, alone or with parameters, or a formula of the user's.
        z : ndarray of any shape (IN)
            Pre-activation.
        out : ndarray of z's shape (OUT)
            May be ``z`` itself.
        """

    @staticmethod
    def slope(activation: Any, z: np.ndarray | None, a: np.ndarray, out: np.ndarray) -> None:
        """Apply the slope of an activation: out = da/dz at z, where a = f(z).

        Parameters
        ----------
        activation : str, (str, dict) or formula
        z : ndarray of any shape, or None (IN)
            Pre-activation; None where the slope is a function of ``a`` alone.
        a : ndarray of z's shape (IN)
            Activation.
        out : ndarray of z's shape (OUT)
        """

    @staticmethod
    def linear_forward(
        X: np.ndarray, W: np.ndarray, b: np.ndarray, activation: Any, out: np.ndarray, z: np.ndarray | None = None
    ) -> None:
        """Compute one layer forward: z = X W + b, out = f(z).

        Parameters
        ----------
        X : ndarray of shape (n, fan_in) (IN)
        W : ndarray of shape (fan_in, fan_out) (IN)
        b : ndarray of shape (fan_out,) (IN)
        activation : str, (str, dict) or formula
        out : ndarray of shape (n, fan_out) (OUT)
        z : ndarray of shape (n, fan_out), default=None (OUT)
            Where given, receives the pre-activation.
        """

    @staticmethod
    def linear_backward(
        X: np.ndarray, W: np.ndarray, delta: np.ndarray, activation: Any, grad_W: np.ndarray, grad_b: np.ndarray,
        delta_below: np.ndarray | None = None, z: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Compute one layer backward: its gradients, and the delta of the layer below.

        grad_W = X^T delta, grad_b = sum_i delta_i, delta_below = (delta W^T) * df/dz.

        Parameters
        ----------
        X : ndarray of shape (n, fan_in) (IN)
            What :meth:`linear_forward` read, the output f(z) of the layer below.
        W : ndarray of shape (fan_in, fan_out) (IN)
        delta : ndarray of shape (n, fan_out) (IN)
            d loss / d pre-activation of this layer.
        activation : str, (str, dict) or formula
            f, the activation of the layer below that made X.
        grad_W : ndarray of shape (fan_in, fan_out) (OUT)
        grad_b : ndarray of shape (fan_out,) (OUT)
        delta_below : ndarray of shape (n, fan_in), default=None (OUT)
            d loss / d pre-activation of the layer below; None to skip it.
        z : ndarray of shape (n, fan_in), default=None (IN)
            Pre-activation of the layer below; None where the slope is a function of X alone.
        """

    @staticmethod
    def softmax(logits: np.ndarray, out: np.ndarray) -> None:
        """Compute the softmax of each row: out_k = exp(logits_k) / sum_j exp(logits_j), for any finite logits.

        Parameters
        ----------
        logits : ndarray of shape (n, n_outputs) (IN)
        out : ndarray of shape (n, n_outputs) (OUT)
            May be ``logits`` itself.
        """

    @staticmethod
    def loss(
        name: Any, logits: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None, delta: np.ndarray
    ) -> float:
        """Compute the mean loss over the rows, and delta = d loss / d logits * sample_weight.

        The mean is sum_i w_i l_i / sum_i w_i, where l_i is a sum over the outputs (squared_error: a mean).  ``delta``
        is the derivative of sum_i w_i l_i by the logits (squared_error: of the sum over the outputs); it is not divided
        by anything.  In the log losses each -log p is clipped as if p were in [eps, 1 - eps]; ``delta`` is not clipped.
        All of it as in scikit-learn.  Other losses, and log_loss with label smoothing, are not clipped.

        Parameters
        ----------
        name : str, (str, dict) or formula
            A key of ``formulas.LOSSES``, alone or with parameters, or a formula of the user's.
        logits : ndarray of shape (n, n_outputs) (IN)
            The output layer before its link.
        y : ndarray (IN)
            log_loss, focal: class indices of shape (n,), dtype intp.  Otherwise: targets of shape (n, n_outputs); in
            {0, 1} for the binary losses and the hinges, distributions for kl_divergence.
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


#: Names of the functions that every engine has.
CONTRACT = tuple(name for name in vars(Engine) if not name.startswith("_"))


BUSY = "this workspace is at work for another caller: give each thread one of its own"


class busy:
    """Hold the lock of a workspace, which serves one call at a time.

    Raises
    ------
    RuntimeError
        If another thread holds it.
    """

    def __init__(self, workspace: Any) -> None:
        self.lock: threading.Lock = workspace.lock

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            raise RuntimeError(BUSY)

    def __exit__(self, *error: object) -> None:
        self.lock.release()


NO_WEIGHT = "Weights sum to zero, can't be normalized"  # NumPy's words, which scikit-learn passes on


def sum_of_weights(sample_weight: np.ndarray | None, n: int) -> float:
    """Return the sum of the weights of n rows, in float64.

    Raises
    ------
    ZeroDivisionError
        If they sum to zero.
    """
    total = float(n) if sample_weight is None else float(np.sum(sample_weight, dtype=np.float64))
    if total == 0:
        raise ZeroDivisionError(NO_WEIGHT)
    return total
