"""The contract: what every engine offers, and what the engines written in Python share besides argument checks.

Where it sits: ``fastmlp.engines.backends`` finds an engine, a module with the functions of :class:`Engine`; training,
prediction, monitoring and displays call them.  A test compares the signatures.  Argument checks are in arguments.py.

Marks in the docstrings: IN is read, OUT is overwritten.  Every array of one call has the same dtype, float32 or
float64, and is C-contiguous and aligned unless the docstring says otherwise; no OUT array shares memory with another
argument unless the docstring allows it.  Anything else is a ValueError that names the argument, raised before anything
is written.

No product is less exact than ``network.matmul_precision`` says. It may be more exact: an engine, or a processor, that
has no matrix units for it computes "highest", the arithmetic of the dtype.

An activation or a loss is given as a name, a pair (name, {parameter: value}), or a formula of the user's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from fastmlp.model.network import Network


class Data(NamedTuple):
    """The rows of a fit.

    X : ndarray (n, network.n_columns), float32 or float64, any strides; or CSR matrix, but not for networks with
        inputs, input_scale or members; or, for the CUDA engine, an array on the device, C-contiguous and of the
        network's dtype. Columns of embeddings hold codes, whole numbers; those of the rows that a call reads are
        checked before anything is written
    y : intp class indices (n,) for log_loss and focal, else targets (n, n_outputs) of the network's dtype
    sample_weight : None, or (n,) of the network's dtype
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None = None


class Shared(NamedTuple):
    """How several processes, the ranks, compute one call together: each from its own rows, all to the same result.

    Each rank calls with the same arguments, except for ``data`` and ``order``, which are of its own rows; there may be
    none. What is summed over rows is summed over ranks, once per step and before anything is made of it. So the
    penalty, clipping and update are the same everywhere.

    reduce : function of a vector of the network's dtype, C-contiguous: the gradient as the engine keeps it, in the
        order of ``params`` and perhaps with zeros between its rows, then the loss and the weight, each a sum over this
        rank's rows of the batch. It replaces them in place by the sums over all ranks, with the same bits on each. What
        it raises ends the call; the steps done are kept.
    n_rows : rows that an epoch visits, of all ranks. :meth:`Engine.loss_and_grad` reads neither it nor the next two
    starts : intp (n_steps + 1,): where each batch's rows of this rank begin in ``order``, and where the last ones end
    places : intp (len(order),): the place of each row of ``order`` in its batch, of which dropout is a function
    memory : function of a length and a dtype, or None. Each call asks it, before sums, for the array (n,) that it hands
        to `reduce`: 64-byte aligned, whatever stands in it. Without an answer the array is the engine's own
    """

    reduce: Callable[[np.ndarray], Any]
    n_rows: int = 0
    starts: Any = None
    places: Any = None
    memory: Callable[[int, np.dtype], np.ndarray | None] | None = None


class Epochs(NamedTuple):
    """The arguments of one call of :meth:`Engine.train_epoch`, for :meth:`TrainsMany.train_many`."""

    workspace: Any
    params: np.ndarray
    data: Data
    order: np.ndarray
    batch_size: int
    alpha: float
    optimizer: Optimizer
    l1: float = 0.0
    seed: int = 0
    losses: np.ndarray | None = None


class Optimizer(Protocol):
    """What :meth:`Engine.train_epoch` reads of an optimizer.

    rule : key of ``formulas.OPTIMIZERS``
    states : arrays (n_params,), in the order of the rule's row
    t : steps done so far; grows with each step

    It may also have, each of them None where it is not wanted:

    decays(n_steps) : float64 (n_steps,), the decoupled weight decay of each step: params *= 1 - decay
    max_grad_norm : a number above 0, to which the norm of a longer gradient is scaled down
    factors : float64 (n_segments, n_scalars), which multiply the scalars of a step in each of ``network.segments``;
        a segment whose first scalar, a learning rate, has the factor 0 is frozen: no step and no decay changes it, and
        its gradient does not count in the norm
    decay_factors : float64 (n_segments,), which multiply the decay likewise
    dropouts(n_steps) : float64 (n_steps,) within [0, 1], which multiply the rates of dropout of each step
    """

    rule: str
    states: list[np.ndarray]
    t: int

    def scalars(self, n_steps: int) -> np.ndarray:
        """Return float64 (n_steps, n_scalars): the scalars of the coming steps, in the order of the rule's row."""


class Workspace(Protocol):
    """What a workspace may have besides, if its engine works in another memory than the host's.

    holds_back : False at first. While it is True, :meth:`Engine.train_epoch` may leave ``params`` and the optimizer's
        states as they were, and its caller must neither read nor write them before a call of ``fetch``; calls of the
        same workspace with the same arrays go on from where it is. ``optimizer.t`` counts all steps done. After an
        error that lost what was held back, it counts those of the states that were fetched last
    """

    holds_back: bool

    def fetch(self, states: bool = True) -> None:
        """Write to ``params``, and to the optimizer's states unless ``states`` is False, what is held back."""


class Engine(Protocol):
    """The calls of an engine, a module with these functions.

    Each does a large part of a fit in one go.  Single kernels are made of them, in ``fastmlp.engines.by_name``.
    """

    @staticmethod
    def workspace(network: Network, batch_size: int, n_jobs: int | None = None) -> Any:
        """Allocate what the other calls need besides their arguments; it serves one call at a time.

        It may have what :class:`Workspace` describes.

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

        With members it is the mean of the members' link(logits). With ``network.average`` False it is the logits of
        each member, one after the other.

        Parameters
        ----------
        workspace : Workspace
        params : ndarray of shape (n_params,) (IN)
        X : {ndarray, CSR} of shape (n, n_columns), float32 or float64, any strides (IN)
            As in :class:`Data`. The CUDA engine takes arrays on the device, too.
        out : ndarray of shape (n, n_outputs), or (len(rows), n_outputs) (OUT)
            With ``network.average`` False (..., members * n_outputs).
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
        workspace: Any, params: np.ndarray, data: Data, alpha: float, grad: np.ndarray, l1: float = 0.0,
        shared: Shared | None = None,
    ) -> float:  # fmt: skip
        """Compute the penalised mean loss over the whole data and its gradient.

        The penalty is (alpha/2 ||W||^2 + l1 ||W||_1) / sw_sum, of the weights W only;
        grad_W = (A^T delta + alpha W + l1 sign(W)) / sw_sum and grad_b = sum_i delta_i / sw_sum, where A is what the
        layer reads and sw_sum the sum of the sample weights, or n.  For squared_error with several outputs the loss is
        a mean over the outputs and the gradient that of their sum, as in scikit-learn.

        With k members the loss is the mean of theirs: each of the k virtual rows of a row weighs 1 / k of the row. The
        penalty is of all heads.

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
        shared : Shared, default=None
            How several processes come to the loss and the gradient over the rows of all; None: ``data`` are all rows.

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
        optimizer: Optimizer, l1: float = 0.0, seed: int = 0, losses: np.ndarray | None = None,
        shared: Shared | None = None,
    ) -> float:  # fmt: skip
        """Train for an epoch, or several: for each batch of rows its gradient, then a step of the optimizer's rule.

        Loss and gradient of a batch are those of :meth:`loss_and_grad` over the batch's rows, with what training alone
        has: random slopes (rrelu), which are the means in the other calls; batch_norm (before an activation or after
        it), then dropout (a = a * keep / (1 - rate)).  With k members row r of a batch is the virtual rows
        r k .. r k + k - 1 of a hidden layer, each with a mask of its own; what input_dropout drops is dropped for all
        members.  A gradient whose norm is larger than
        ``optimizer.max_grad_norm`` is scaled down to it; before the update, params = params * (1 - decay).  Both
        concern all entries that are trained: those before the running statistics.

        Ctrl-C is seen between calls of a bounded amount of work, and so is the request of another thread to stop
        (interrupts.py); the steps done are kept.

        Parameters
        ----------
        workspace : Workspace
        params : ndarray of shape (n_params,) (IN, OUT)
        data : Data (IN)
        order : ndarray of shape (m,), or with `losses` (n_epochs, m), dtype intp (IN)
            Rows to visit, in this order; batches are consecutive slices of it, the last one may be shorter. Each row
            of several is contiguous; they may lie anywhere, and be the same.
        batch_size : int
        alpha : float
            Strength of the L2 penalty.
        optimizer : Optimizer (IN, OUT)
        l1 : float, default=0.0
            Strength of the L1 penalty.
        seed : int in [0, 2^64), default=0
            What is dropped is a function of this and of ``optimizer.t``.
        losses : ndarray of float64 of shape (n_epochs,), default=None (OUT)
            Then `order` holds the orders of as many epochs. The loss of each epoch that is done is written, also if an
            error ends the call: ``optimizer.t`` tells how many there are.
        shared : Shared, default=None
            How several processes take each step together, each with some rows of the batch; None: ``order`` holds all
            rows of each batch. The network must have no batch_norm then, which needs all rows of a batch at once, and
            a call holds one epoch: `losses` is None.

        Returns
        -------
        float
            sum over batches of (loss before the batch's update) * rows / m, of the last epoch.

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
        order : ndarray of shape (n,) or (n_epochs, n), dtype intp (IN, OUT)
            Of several rows the first is shuffled, and each other one becomes the shuffle of the row before.
        random_state : numpy.random.RandomState (IN, OUT)
        """


class TrainsMany(Protocol):
    """A call that an engine may have besides: one for many nets, each of which is too small to fill the device.

    An engine that lacks it trains nets one after the other, or side by side on threads of its caller's.
    """

    @staticmethod
    def train_many(calls: Sequence[Epochs]) -> list[float | Exception]:
        """Train each net as :meth:`Engine.train_epoch` does with these arguments, all nets at the same time.

        Parameters and states get the bits that ``train_epoch`` gives them, if no gradient is clipped.  The losses, and
        what a clipped gradient is scaled by, may differ by rounding: sums of squared weights, and of the squared
        gradient, are added in another order.

        Ctrl-C and requests to stop are seen between pieces of bounded work.  Each net keeps the steps that it has done.

        Parameters
        ----------
        calls : sequence of Epochs
            Each with a workspace of its own.  The nets may differ in anything.

        Returns
        -------
        list of float or Exception
            For each call what ``train_epoch`` would return or raise.  An error of one call stops no other.

        Raises
        ------
        KeyboardInterrupt
            If the user or another thread stops training.
        Exception
            An error of the device, which ends the calls of all.  What they held back is lost.
        """


#: Engines that have every feature of a network and every plan of an optimizer.
COMPLETE = ("cython", "reference")
#: Fields of a network that not every engine has, with their value where they are off.
NETWORK_FEATURES = {"inputs": (), "input_scale": False, "members": 1, "parametric_activations": False}


def refuse(engine: str, network: Any, has: Sequence[str] = ()) -> None:
    """Raise a ValueError if a network has a feature that this engine does not have; ``has``: those that it has."""
    wanted = [name for name, off in NETWORK_FEATURES.items() if getattr(network, name, off) != off]
    _refuse(engine, [name for name in wanted if name not in has])


def refuse_plans(engine: str, optimizer: Any, n_steps: int) -> None:
    """Raise a ValueError if an optimizer asks for what this engine does not have."""
    asked = [name for name in ("factors", "decay_factors") if getattr(optimizer, name, None) is not None]
    if hasattr(optimizer, "dropouts") and optimizer.dropouts(n_steps) is not None:
        asked.append("dropouts")
    _refuse(engine, asked)


def refuse_drawn_slopes(engine: str, network: Any) -> None:
    """Raise a ValueError if a network draws slopes in training, for an engine that has their means only."""
    if network.drawn_slopes:
        _refuse(engine, ["training with activation='rrelu'"])


def refuse_shared(engine: str, shared: Shared | None) -> None:
    """Raise a ValueError if a call is to be computed together with other processes, for an engine that cannot."""
    if shared is not None:
        _refuse(engine, ["steps that several processes take together"])


def _refuse(engine: str, asked: list[str]) -> None:
    if asked:
        raise ValueError(
            f"backend={engine!r} has no {', '.join(asked)}: use backend={' or '.join(map(repr, COMPLETE))}"
        )


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


@contextmanager
def held_back(workspace: Any) -> Iterator[None]:
    """Let a workspace hold back what it trains while the block runs, if it can; see :class:`Workspace`."""
    if not hasattr(workspace, "holds_back"):
        yield
        return
    before, workspace.holds_back = workspace.holds_back, True
    try:
        yield
    finally:
        workspace.holds_back = before
        if not before:
            workspace.fetch()


def each_epoch(train: Callable[[np.ndarray], float], order: np.ndarray, losses: np.ndarray) -> float:
    """Train epoch by epoch, for engines whose calls hold one: write the losses, return the last."""
    one = order[0].copy()  # the same array for all epochs: an engine may know it again
    for epoch, row in enumerate(order):
        one[...] = row
        losses[epoch] = train(one)
    return float(losses[-1])


def shuffle_each(order: np.ndarray, random_state: np.random.RandomState) -> None:
    """Shuffle an order, or the orders of several epochs, each of which is made of the one before."""
    rows = np.atleast_2d(order)
    for i, row in enumerate(rows):
        if i > 0:
            row[...] = rows[i - 1]
        random_state.shuffle(row)


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
