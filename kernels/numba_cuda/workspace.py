"""What the CUDA engine keeps for a network: places of its parameters, and arrays on the device.

Where it sits: engine.py makes a :class:`Workspace`; training.py and prediction.py fill it when they are first used.
"""

from __future__ import annotations

import sys
import threading
from functools import cached_property
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.kernels import layer_table
from fastmlp.kernels.arguments import batch_size_of, check_network
from fastmlp.kernels.contract import refuse
from fastmlp.kernels.numba_cuda import driver
from fastmlp.kernels.numba_cuda.code import activation_code, loss_code, module_of
from fastmlp.kernels.numba_cuda.cost import tile_of
from fastmlp.kernels.numba_cuda.interrupts import deferred
from fastmlp.kernels.numba_cuda.memory import Mirror, Rows, check_samples

if TYPE_CHECKING:
    from fastmlp.kernels.codegen import CudaTile
    from fastmlp.kernels.numba_cuda.many import Bundle
    from fastmlp.kernels.numba_cuda.plan import Plan
    from fastmlp.kernels.numba_cuda.prediction import Prediction
    from fastmlp.kernels.numba_cuda.training import Training
    from fastmlp.model.network import Network


class Workspace:
    """Places of a network's parameters, tables, and arrays on one device; it serves one call at a time.

    Attributes
    ----------
    device : int
        Number of the GPU that the arrays are on.
    precision : str
        Of the products: the network's `matmul_precision`, or "highest" without tensor cores.
    launches : int
        Number of training kernels launched so far.
    device_seconds : float
        Seconds that these took, by the device's clock.
    holds_back : bool
        Whether training leaves parameters and states on the device until :meth:`fetch`; see contract.Workspace.
    """

    holds_back = False

    def __init__(self, network: Network, batch_size: int) -> None:
        self.network, self.batch_size = network, batch_size_of(batch_size)
        if self.batch_size > sys.maxsize:
            raise OverflowError(f"batch_size must be a number of rows, got {batch_size}")
        self.dtype = check_network(network)
        refuse("cuda", network)
        self.loss, activations = loss_code(network.loss), [activation_code(entry) for entry in network.activations]
        self.distinct = tuple(dict.fromkeys(activations))
        self.choices = self.dtype, self.distinct, self.loss.entry  # what its code is made of, besides sizes and a rule
        self.kinds = [self.distinct.index(activation) for activation in activations]
        self.n_outputs, self.n_layers = network.widths[-1], len(network.widths) - 1
        self.rates = [network.input_dropout, *(network.dropout or [0.0] * len(activations))]
        self.thresholds = [layer_table.threshold(rate) for rate in self.rates]
        self.n_params, self.n_trained = network.n_params, network.n_trained
        driver.check_room(self.n_params * self.dtype.itemsize, f"{self.n_params} parameters")
        self.device = driver.current_device()
        wanted = network.matmul_precision
        self.precision = wanted if wanted != "highest" and driver.tensor_cores() else "highest"
        self.lock = threading.Lock()
        self.launches, self.device_seconds = 0, 0.0
        self.rows: Rows | None = None
        self.plans: dict[tuple, Plan] = {}
        self.mirrors: list[Mirror] = []
        # the optimizer whose states, or whose parameters, the device owes the host, and the steps that the host knows
        self.debtor: tuple[Any, int] | None = None
        self.running = False  # whether steps were launched and nobody has noted yet that they are done
        self.prediction: Prediction | None = None
        self.latest: Training | None = None
        self.bundle: Bundle | None = None  # of the nets that it was trained with last

    def check_device(self) -> None:
        """Refuse a thread that works on another GPU than the one that the arrays are on.

        Raises
        ------
        ValueError
            Naming both.
        """
        here = driver.current_device()
        if here != self.device:
            raise ValueError(
                f"this network's arrays are on GPU {self.device}, and this thread works on GPU {here}: "
                f"select GPU {self.device} again, or fit the network anew"
            )

    def tile(self, rows: int) -> CudaTile:
        """Return the tile of products with so many rows at a time."""
        return tile_of(self.network.widths, rows, self.dtype == np.float64, self.precision)

    def code(self, rows: int, rule: str | None = None) -> ModuleType:
        """Return the module for so many rows at a time."""
        return module_of(self.dtype == np.float64, self.tile(rows), self.distinct, self.loss.entry, rule)

    @cached_property
    def n_weights(self) -> int:
        """Number of weights, without biases."""
        return sum(i * j for i, j in pairwise(self.network.widths))

    def data(self, data: Any, shelf: dict[tuple, Rows] | None = None) -> Rows:
        """Return the rows of a fit, on the device; ``shelf``: rows that are there, by their keys."""
        if self.rows is None or not self.rows.are(data):
            check_samples(data.X, self.network.widths[0], self.dtype)
            self.rows, self.prediction, self.latest = None, None, None  # room for the new ones
            shelf, kind = {} if shelf is None else shelf, (self.n_outputs, self.loss.by_class, self.dtype)
            key = Rows.key_of(data, *kind)
            self.rows = shelf[key] = shelf.get(key) or Rows(data, *kind)
        return self.rows

    @cached_property
    def params(self) -> Mirror:
        return Mirror(driver.allocate(self.n_params, self.dtype, "the parameters"))

    @cached_property
    def grad(self) -> Any:
        """The gradient, a device vector; 0 behind what is trained."""
        return driver.api().to_device(np.zeros(self.n_params, self.dtype))

    @cached_property
    def factors(self) -> Any:
        """(n_layers,) of dropout, a device vector: what a kept neuron is multiplied by."""
        return driver.api().to_device(np.array([1 / (1 - rate) for rate in self.rates], self.dtype))

    @cached_property
    def stream(self) -> Any:
        """The stream in which the training kernels run."""
        return driver.api().stream()

    def upload(self, params: np.ndarray) -> None:
        """Let the device have these parameters; what it owes to another array goes there first."""
        owed = self.params.owed
        if self.running or (owed is not None and owed is not params):
            self.fetch()
        self.params.upload(params)

    def states(self, optimizer: Any = None) -> Any:
        """Return one device vector of all states, up to date."""
        arrays = [] if optimizer is None else optimizer.states
        if self.running or (self.debtor and self.debtor[0] is not optimizer):
            self.fetch()
        if len(self.mirrors) < len(arrays) or not self.mirrors:
            n, count = self.n_params, max(len(arrays), 1)
            self.all_states = driver.allocate(n * count, self.dtype, "the optimizer's states")
            self.mirrors = [Mirror(self.all_states[k * n : (k + 1) * n]) for k in range(count)]
        for mirror, array in zip(self.mirrors, arrays, strict=False):
            mirror.upload(array)
        return self.all_states

    def move(self, params: Any, states: Any) -> None:
        """Keep parameters and states in these device vectors from now on; what is there goes along."""
        if self.running:
            self.forget()
        n = self.n_params
        with deferred():
            self.latest = None  # its launches know the old places
            if "params" in vars(self):
                params.copy_to_device(self.params.device)
                self.params.device = params
            else:
                self.params = Mirror(params)
            count = states.size // n
            self.mirrors += [Mirror(None) for _ in range(count - len(self.mirrors))]
            for k, mirror in enumerate(self.mirrors[:count]):
                part = states[k * n : (k + 1) * n]
                if mirror.device is not None:
                    part.copy_to_device(mirror.device)
                mirror.device = part
            self.all_states = states

    # --- what the device owes the host --------------------------------------------------------------------------------

    def owe(self, params: np.ndarray, optimizer: Any, steps: int) -> None:
        """Note that the device has done steps which these parameters and the optimizer's states do not show."""
        with deferred():
            self.running, self.params.owed = False, params
            for mirror, state in zip(self.mirrors, optimizer.states, strict=False):
                mirror.owed = state
            self.debtor = self.debtor or (optimizer, optimizer.t)
            optimizer.t += steps

    def fetch(self, states: bool = True) -> None:
        """Write to the host what is owed: parameters, and the states too if asked; all of it or nothing."""
        if self.running:
            self.forget()
        mirrors = [self.params, *(self.mirrors if states else ())] if self.debtor else []
        pairs = [(mirror, mirror.owed) for mirror in mirrors if mirror.owed is not None]
        with deferred():
            try:
                for mirror, _ in pairs:
                    mirror.fetch()
            except BaseException:
                self.forget()
                raise
            for mirror, array in pairs:
                mirror.give(array)
            if all(mirror.owed is None for mirror in self.mirrors):
                self.debtor = None

    def forget(self) -> None:
        """Give up what is owed, because nobody knows what the device has: the host's numbers count again."""
        for mirror in (self.params, *self.mirrors):
            mirror.owed = None
            mirror.stale()
        self.running = False
        if self.debtor:
            optimizer, known = self.debtor
            optimizer.t, self.debtor = known, None
