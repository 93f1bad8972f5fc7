"""Networks that are trained for an epoch and compared with the reference: one for each way through the CUDA engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from gpu import hooks

#: Largest distance that counts as rounding, in terms of the way that the reference trained.  Between the Cython engine
#: and the reference it is 7e-7 and 1e-15; a unit of relu that is on in one of them only would be more.
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}
DTYPES = ("float64", "float32")
#: Large enough that a gradient of nothing but rounding errors stays small and is not blown up to a full step.
EPSILON = 1e-3
SEED = 2**63 + 5
ALPHA = 0.01


@dataclass(frozen=True)
class Case:
    """A network, its data and its training.

    Attributes
    ----------
    widths, small : tuple of int
        Layers on a device, and in the simulator, where a thread is one of Python's.
    rows, batch : int
        Of the data and of a step on a device.
    network : mapping
        Further arguments of `fastmlp.model.network.Network`.
    choice : mapping
        Parameters of an estimator, for the optimizer.
    force : mapping
        Arguments of `hooks.forced`.
    """

    widths: tuple[int, ...]
    small: tuple[int, ...]
    activation: Any = "relu"
    rows: int = 1000
    batch: int = 256
    solver: str = "adam"
    network: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    force: Mapping[str, Any] = field(default_factory=dict)
    l1: float = 0.0
    is_sparse: bool = False


NETS: Mapping[str, Case] = {
    "small tile": Case((64, 128, 128, 10), (5, 4, 3), force={"tile": "small", "schedule": "rows"}),
    "medium tile": Case((90, 170, 150, 10), (4, 5, 3), "tanh", force={"tile": "medium"}),
    "large tile": Case((200, 512, 300, 10), (3, 5, 2), "gelu", solver="adamw", force={"tile": "large"}),
    "layer by layer": Case((70, 150, 130, 7), (3, 5, 4, 2), "tanh", solver="nesterov", force={"schedule": "layers"}),
    "batch norm": Case((50, 120, 90, 5), (3, 5, 2), "prelu", network={"batch_norm": True}),
    "dropout": Case((60, 140, 80, 6), (3, 5, 2), "silu", network={"dropout": 0.3, "input_dropout": 0.2}),
    "clipping": Case((40, 100, 3), (3, 4, 2), "elu", choice={"max_grad_norm": 0.05}, l1=0.01),
    "sparse": Case((300, 70, 4), (6, 3, 2), is_sparse=True),
    "several chunks": Case((33, 75, 65, 2), (3, 4, 2), "tanh", force={"chunk_rows": 70}),
}

#: Widths 70 to 300: several tiles in each direction, and none of them whole.
GRIDS: Mapping[str, Case] = {
    "70-300-70-5": Case((70, 300, 70, 5), (6, 9, 3), "gelu", rows=700, batch=190),
    "129-257-300-9, batch norm, dropout": Case(
        (129, 257, 300, 9), (5, 6, 2), "prelu", 700, 190, network={"batch_norm": True, "dropout": 0.3}
    ),
    "150-99-201-3, clipped, l1": Case(
        (150, 99, 201, 3), (4, 5, 3), rows=700, batch=190, choice={"max_grad_norm": 0.05}, l1=0.01
    ),
}


class Training:
    """A case with its random numbers drawn: the same for every engine and every repetition."""

    def __init__(self, case: Case, dtype: str, simulated: bool) -> None:
        from fastmlp.engines.backends import Data
        from fastmlp.model.network import Network

        self.case = case
        self.widths = case.small if simulated else case.widths
        rows, self.batch = (7, 4) if simulated else (case.rows, case.batch)
        hidden, options = len(self.widths) - 2, dict(case.network)
        if "dropout" in options:
            options["dropout"] = (options["dropout"],) * hidden
        self.network = Network(self.widths, (case.activation,) * hidden, "log_loss", np.dtype(dtype), **options)
        rng = np.random.default_rng(0)
        X = rng.normal(size=(rows, self.widths[0])).astype(dtype)
        if case.is_sparse:
            X = sparse.csr_array(np.where(np.abs(X) > 1, X, 0))
        self.data = Data(X, rng.integers(0, self.widths[-1], rows).astype(np.intp), None)
        self.order = rng.permutation(rows)
        self.params = self.network.initial_params(np.random.RandomState(0), gain=6.0)
        self.force = {**case.force, **({"chunk_rows": 3} if simulated and "chunk_rows" in case.force else {})}

    def epoch(self, engine: Any, **force: Any) -> np.ndarray:
        """Train an epoch in a new workspace and return one vector: parameters, states, loss."""
        from fastmlp import MLPClassifier
        from fastmlp.training.optimizers import make_optimizer

        case, params = self.case, self.params.copy()
        given = MLPClassifier(epsilon=EPSILON, learning_rate_init=0.01, **case.choice).get_params()
        optimizer = make_optimizer(case.solver, self.network, given)
        arguments = params, self.data, self.order, self.batch, ALPHA, optimizer
        if engine.__name__.endswith(".reference"):
            loss = engine.train_epoch(engine.workspace(self.network, self.batch), *arguments, l1=case.l1, seed=SEED)
        else:
            with hooks.forced(**{**self.force, **force}):
                loss = engine.train_epoch(engine.workspace(self.network, self.batch), *arguments, l1=case.l1, seed=SEED)
        return np.concatenate([params, *optimizer.states, [loss]]).astype(np.float64)

    def predictions(self, engine: Any) -> np.ndarray:
        """Return the outputs (rows, n_outputs) of the initial weights."""
        out = np.empty((self.data.X.shape[0], self.widths[-1]), self.network.dtype)
        network, params = self.network.folded(self.params)
        engine.predict(engine.workspace(network, self.batch), params, self.data.X, out)
        return out

    def gradient(self, engine: Any) -> np.ndarray:
        """Return gradient and loss over all rows, one vector (n_params + 1,)."""
        grad = np.zeros_like(self.params)
        value = engine.loss_and_grad(engine.workspace(self.network, self.batch), self.params, self.data, ALPHA, grad)
        return np.append(grad, value).astype(np.float64)


def far(ours: np.ndarray, theirs: np.ndarray, start: Any = 0.0) -> float:
    """Return the Euclidean distance of two results in terms of the second's from the start; NaN if one is NaN."""
    return float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs - start)), 1e-300))


def compared(engine: Any, reference: Any, training: Training, limit: float | None = None) -> str:
    """Compare an epoch, predictions and, where it is defined, the gradient with the reference's.

    Raises
    ------
    AssertionError
        If they differ by more than `limit`; None: by more than rounding.
    """
    network = training.network
    limit = TOLERANCE[network.dtype.name] if limit is None else limit
    ours, theirs = training.epoch(engine), training.epoch(reference)
    start = np.zeros_like(theirs)
    start[: len(training.params)] = training.params
    distances = {"epoch": far(ours, theirs, start)}
    distances["predict"] = far(*(training.predictions(module) for module in (engine, reference)))
    if not (network.batch_norm or network.dropout or network.input_dropout):
        distances["gradient"] = far(*(training.gradient(module) for module in (engine, reference)))
    text = ", ".join(f"{name} {distance:.0e}" for name, distance in distances.items())
    assert all(distance <= limit for distance in distances.values()), f"differs by more than {limit:.0e}: {text}"
    return text


def repeated(engine: Any, training: Training, times: int) -> str:
    """Train the same epoch several times and compare all bits with the first.

    Raises
    ------
    AssertionError
        If one of them differs.
    """
    first = training.epoch(engine)
    for number in range(1, times):
        np.testing.assert_array_equal(training.epoch(engine), first, err_msg=f"repetition {number}")
    return f"{times} times the same bits"


def grids(training: Training, blocks: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the ways to launch a training that must not change a bit, the cooperative launch first."""
    for schedule in ("layers",) if training.network.batch_norm else ("rows", "layers"):
        yield f"{schedule}, cooperative", {"schedule": schedule}
        for number in blocks:
            yield f"{schedule}, a launch per phase, {number} blocks", {"schedule": schedule, "blocks": number}


def same_bits_in_all_grids(engine: Any, training: Training, blocks: Sequence[int]) -> str:
    """Compare all bits of a cooperative launch with those of a launch per phase.

    Raises
    ------
    AssertionError
        If they differ; the message names the way that was launched.
    """
    first, ways = None, 0
    for name, force in grids(training, blocks):
        found = training.epoch(engine, **force)
        first = found if first is None else first
        np.testing.assert_array_equal(found, first, err_msg=name)
        ways += 1
    return f"{ways} ways to launch, the same bits"
