"""The CUDA engine: the same contract on an NVIDIA GPU, compiled by Numba for the device that is found.

Where it sits: a backend like any other, ``fastmlp.backends.get("cuda")``, which is taken only where it is named.  Here
are the functions of the contract, which check arguments, fill tables with sizes and places, and launch kernels; the
work is done by cuda_network.py, of which codegen.py makes a module for each combination of formulas.  What stays on the
device between calls is in cuda_memory.py, what must be known of the machine in cuda_driver.py.  Importing this module
fails where there is no device; Numba is imported when the first of these functions is called.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from fastmlp.kernels import codegen, cuda_driver, formulas
from fastmlp.kernels.arguments import (
    batch_size_of,
    busy,
    check_array,
    check_indices,
    check_states,
    check_weights,
    entry_of,
    float_dtype,
    no_overlap,
    row_of,
    seed_of,
)
from fastmlp.kernels.cuda_driver import allocate, api, configured
from fastmlp.kernels.cuda_memory import (
    Mirror,
    Rows,
    Samples,
    canonical,
    check_samples,
    check_targets,
    device_view,
    on_device,
    upload_samples,
    vector,
)

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

cuda_driver.check()

CHUNK_ROWS = 8192  # rows of a batch that are worked on together: enough for every multiprocessor to have some
SMALL, LARGE = codegen.CudaTile(32, 16, 32), codegen.CudaTile(64, 16, 16)
LARGE_WIDTH, LARGE_BATCH = 256, 128  # from which the large tile leaves no multiprocessor idle
SIMULATED = codegen.CudaTile(4, 2, 4)  # a thread of the simulator is one of Python's
WORK_PER_LAUNCH = 4e11  # floating-point operations between two looks for Ctrl-C, a fraction of a second
PARTIALS_PER_LAUNCH = 2**22  # numbers that a launch leaves for the host to sum up
BARRIER, TERM = 2.0, 1 / 32  # microseconds: of a barrier of the grid, of a tile's product per term; for choosing only
PREDICT_ROWS, FEWEST_ROWS = 2**17, 256  # rows of a block of predictions, and where halving them for memory ends
BLOCKS_WITHOUT_BARRIER = 1024

#: "rows" or "layers" instead of the schedule that promises to be faster; for tests.
SCHEDULE: str | None = None
#: So many blocks and a launch for each phase, instead of a cooperative launch for all; for tests of the simulator,
#: where a barrier of the grid knows one block only.
BLOCKS_PER_PHASE: int | None = None


# --- choices -> modules -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Activation:
    """An activation: what codegen.cuda_module takes, and what the host must know."""

    entry: Any
    needs_z: bool
    learned: bool
    initial: float  # of the parameter that units may learn


def _is_formula(entry):
    return hasattr(entry, "program_source")


def _named(argument, table, entry):
    """(name, row, all its parameters)"""
    row, given = entry_of(argument, table, entry)
    for name in given:
        if name not in row.parameters:
            raise ValueError(f"{argument} must have no parameters but {list(row.parameters)}, got {name!r}")
    return entry[0] if isinstance(entry, tuple) else entry, row, {**row.parameters, **given}


def _activation(entry, *, hidden=True, argument="activation"):
    if _is_formula(entry):
        if "slope" not in entry.kinds:
            raise ValueError(f"{argument} must be an activation, got {entry!r}")
        return _Activation(entry, entry.needs_z, False, 0.0)
    name, row, values = _named(argument, formulas.ACTIVATIONS, entry)
    if hidden and row.slope is None:
        raise ValueError(f"{argument} {name!r} has no slope: it is an output link")
    initial = values[row.learned[0]] if row.learned else 0.0
    fixed = tuple((key, value) for key, value in values.items() if key not in row.learned)
    return _Activation((name, fixed), _slope_reads_z(name), bool(row.learned), initial)


@lru_cache
def _slope_reads_z(name):
    row = formulas.ACTIVATIONS[name]
    helpers = [helper.__name__ for helper in formulas.HELPERS]
    return row.slope is not None and "z" in codegen.translate(row.slope, row.parameters, helpers).names_used


@dataclass(frozen=True)
class _Loss:
    entry: Any
    by_class: bool


def _loss(entry, argument="network.loss"):
    if _is_formula(entry):
        if "delta" not in entry.kinds:
            raise ValueError(f"{argument} must be a loss, got {entry!r}")
        return _Loss(entry, False)
    name, row, values = _named(argument, formulas.LOSSES, entry)
    if row.value is None and name not in codegen._CUDA_ROW_LOSSES:
        raise ValueError(f"{argument}: the row operation {name!r} is not written for this engine")
    return _Loss((name, tuple(values.items())), row.class_targets)


@lru_cache(maxsize=256)
def _code(double, tile, activations=(), loss=None, rule=None):
    """The module of a combination of formulas."""
    api()
    template = Path(__file__).with_name("cuda_network.py").read_text(encoding="utf-8")
    options = {"double": double, "simulated": cuda_driver.simulated()}
    choices = {"activations": activations, "loss": loss, "rule": rule}
    return cuda_driver.load(lambda: codegen.cuda_module(formulas, template, tile, **options, **choices))


def _tile(widths, rows):
    if cuda_driver.simulated():
        return SIMULATED
    return LARGE if max(widths[1:]) >= LARGE_WIDTH and rows >= LARGE_BATCH else SMALL


def _up(n, size):
    """How many pieces of this size n makes."""
    return -(-n // size)


# --- places -----------------------------------------------------------------------------------------------------------


class _Plan:
    """The tables that the kernels read, and the buffers that they work in, for one way of calling them.

    Attributes
    ----------
    net, layers : device vectors of int64
        See the names of their entries in cuda_network.py.
    work : device vector
        Activations and deltas of ``rows`` rows.
    """

    def __init__(self, ws, code, rows, *, training, is_sparse, weighted=False, store=False, clipped=False):
        self.code, self.rows, self.training, network = code, rows, training, ws.network
        widths, n_layers, self.size = network.widths, len(network.widths) - 1, 0
        self.use_input = is_sparse or (training and ws.thresholds[0] > 0)
        net = np.zeros(code.NET_ENTRIES, np.int64)
        layers = np.full((n_layers, code.LAYER_COLUMNS), -1, np.int64)
        batch_norm = bool(network.batch_norm) and training
        net[code.N_LAYERS], net[code.N_PARAMS], net[code.N_TRAINED] = n_layers, ws.n_params, ws.n_trained
        net[code.MAX_ROWS], net[code.USE_INPUT], net[code.SPARSE] = rows, self.use_input, is_sparse
        net[code.BATCH_NORM], net[code.WEIGHTED] = batch_norm, weighted
        net[code.STORE], net[code.CLIPPED] = store, clipped
        net[code.INPUT] = self._room(rows * widths[0]) if self.use_input else 0
        for k, row in enumerate(layers):
            width, hidden = widths[k + 1], k + 1 < n_layers
            row[code.FAN_IN], row[code.FAN_OUT] = widths[k], width
            row[code.THRESHOLD], row[code.IN_THRESHOLD] = ws.thresholds[k + 1] if hidden else 0, ws.thresholds[0]
            for name, place in ws.places[k].items():
                row[getattr(code, name)] = place
            if not hidden or batch_norm:
                row[code.Z] = self._room(rows * width)
            if hidden:
                row[code.KIND], row[code.OUT] = ws.kinds[k], self._room(rows * width)
                row[code.DELTA] = self._room(rows * width) if training else 0
                row[code.ROOT] = self._room(width) if batch_norm else 0
                if training and "SLOPE" in ws.places[k]:
                    row[code.PRODUCT] = self._room(rows * width)
        if training:
            net[code.DELTA_OUT], net[code.ROW_LOSS] = self._room(rows * widths[-1]), self._room(rows)
            self.tasks = _tasks(ws, code, layers)
            net[code.N_TASKS] = len(self.tasks)
        self.work = allocate(self.size, ws.dtype, f"the activations of {rows} rows")
        self.net, self.layers = _table(net), _table(layers)

    def _room(self, n):
        """The place of n more numbers in ``work``."""
        self.size += n
        return self.size - n


def _table(array, dtype=np.int64):
    return api().to_device(np.ascontiguousarray(array, dtype).reshape(-1))


def _tasks(ws, code, layers):
    """Rows (kind, layer, first row, first column) of what UNITS does, each for one block."""
    tasks, tile = [(code.TASK_LOSS, 0, 0, 0)], code.TILE
    for k, row in enumerate(layers):
        fan_in, fan_out = row[code.FAN_IN], row[code.FAN_OUT]
        tasks += [(code.TASK_W, k, i, j) for i in range(0, fan_in, tile) for j in range(0, fan_out, tile)]
        kinds = [code.TASK_B]
        kinds += [getattr(code, f"TASK_{name}") for name in ("SCALE", "SHIFT", "SLOPE") if name in ws.places[k]]
        tasks += [(kind, k, 0, j) for kind in kinds for j in range(0, fan_out, tile)]
    return tasks


def _phases(ws, plan, schedule, update):
    """Rows (kind, first, last, spread) of a step."""
    code, last, norm = plan.code, ws.n_layers - 1, ws.network.batch_norm
    units = [(code.UNITS, 0, 0, 0), *([(code.UPDATE, 0, 0, 0)] if update else [])]
    if schedule == "rows":
        return [(code.TILES, 0, 2 * ws.n_layers, 0), *units]
    up, down = [(code.GATHER, 0, 0, 0)] * plan.use_input, []
    for k in range(last):
        up += [(code.TILES, k, k + 1, 1), *([(code.NORMALIZE, k, 0, 0)] if norm else [])]
    up.append((code.TILES, last, last + 2, 0))  # the output layer with the loss, for which a block needs whole rows
    for k in range(last, 0, -1):
        operation = 2 * ws.n_layers - k
        down += [(code.TILES, operation, operation + 1, 1), *([(code.DENORMALIZE, k - 1, 0, 0)] if norm else [])]
    return [*up, *down, *units]


def _schedule_of(network, rows, tile, blocks):
    """Whether rows stay with a block through all layers, or each layer is spread over all blocks.

    The first needs no barriers; the second shortens the way of a row through wide layers.  With batch_norm only the
    second is possible.
    """
    if network.batch_norm:
        return "layers"
    if SCHEDULE:
        return SCHEDULE
    pairs, down = list(pairwise(network.widths)), _up(rows, tile.size)
    tiles = [(fan_in, _up(fan_out, tile.size)) for fan_in, fan_out in pairs]
    tiles += [(fan_out, _up(fan_in, tile.size)) for fan_in, fan_out in pairs[1:]]
    alone = _up(down, blocks) * sum(depth * across for depth, across in tiles) * TERM
    spread = sum(BARRIER + _up(down * across, blocks) * depth * TERM for depth, across in tiles)
    return "rows" if alone <= spread else "layers"


# --- the workspace ----------------------------------------------------------------------------------------------------


class Workspace:
    """What the engine keeps for a network: places of its parameters, tables, and arrays on the device.

    It serves one call at a time.
    """

    def __init__(self, network, batch_size):
        self.network, self.batch_size = network, batch_size_of(batch_size)
        if self.batch_size > sys.maxsize:
            raise OverflowError(f"batch_size must be a number of rows, got {batch_size}")
        self.dtype = np.dtype(network.dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"network.dtype must be float32 or float64, got {network.dtype}")
        if len(network.widths) < 2 or any(width < 1 for width in network.widths):
            raise ValueError(f"network.widths must be two or more layer sizes, got {network.widths}")
        if len(network.activations) != len(network.widths) - 2:
            raise ValueError(f"network.activations must hold one name for each hidden layer, got {network}")
        self.loss, self.activations = _loss(network.loss), [_activation(entry) for entry in network.activations]
        self.distinct = tuple(dict.fromkeys(activation.entry for activation in self.activations))
        self.kinds = [self.distinct.index(activation.entry) for activation in self.activations]
        self.n_outputs, self.n_layers = network.widths[-1], len(network.widths) - 1
        rates = [network.input_dropout, *(network.dropout or [0.0] * len(self.activations))]
        self.thresholds = [round(rate * 2**24) for rate in rates]
        self.rates = rates
        self._lay_out()
        cuda_driver.check_room(self.n_params * self.dtype.itemsize, f"{self.n_params} parameters")
        self.lock = threading.Lock()
        self.launches = 0  # of training kernels, so far
        self.rows: Rows | None = None
        self.plans: dict[tuple, _Plan] = {}
        self.mirrors: list[Mirror] = []
        self.prediction: _Prediction | None = None
        self.latest: _Training | None = None

    def _lay_out(self):
        """Places of everything in the flat vector, layer by layer."""
        network, at = self.network, 0
        pairs = list(pairwise(network.widths))
        self.places: list[dict[str, int]] = [{} for _ in pairs]
        for name, sizes in (("W", [i * j for i, j in pairs]), ("B", [j for _, j in pairs])):
            for place, size in zip(self.places, sizes, strict=True):
                place[name], at = at, at + size
        norm = bool(network.batch_norm)
        for k, activation in enumerate(self.activations):
            for name in ("SCALE", "SHIFT") * norm + ("SLOPE",) * activation.learned:
                self.places[k][name], at = at, at + network.widths[k + 1]
        self.n_trained = at
        for k in range(len(self.activations)):
            for name in ("MEAN", "VAR") * norm:
                self.places[k][name], at = at, at + network.widths[k + 1]
        self.n_params = at
        if at != network.n_params:
            raise ValueError(f"network.n_params must be {at} for {network}, got {network.n_params}")

    def code(self, rows, rule=None):
        tile = _tile(self.network.widths, rows)
        return _code(self.dtype == np.float64, tile, self.distinct, self.loss.entry, rule)

    def work_of(self, rows):
        """Floating-point operations of a training step."""
        pairs = pairwise(self.network.widths)
        return 6.0 * rows * sum(i * j for i, j in pairs) + 50.0 * self.n_params

    def data(self, data):
        """The rows of a fit, on the device."""
        if self.rows is None or not self.rows.are(data):
            check_samples(data.X, self.network.widths[0], self.dtype)
            self.rows, self.prediction, self.latest = None, None, None  # room for the new ones
            self.rows = Rows(data, self.n_outputs, self.loss.by_class, self.dtype)
        return self.rows

    def training(self, rows, n, batch_size, rule=None, clipped=False):
        """What trains on n of these rows; that of the epoch before, if it serves."""
        if self.latest is None or self.latest.key != (rows, n, batch_size, rule, clipped):
            self.latest = None
            self.latest = _Training(self, rows, n, batch_size, rule, clipped)
        return self.latest

    @cached_property
    def params(self):
        return Mirror(allocate(self.n_params, self.dtype, "the parameters"))

    @cached_property
    def grad(self):
        """The gradient; 0 behind what is trained."""
        return api().to_device(np.zeros(self.n_params, self.dtype))

    @cached_property
    def factors(self):
        """(n_layers,) of dropout: what a kept unit is multiplied by."""
        return api().to_device(np.array([1 / (1 - rate) for rate in self.rates], self.dtype))

    def states(self, arrays):
        """One vector of all states, up to date."""
        if len(self.mirrors) < len(arrays) or not self.mirrors:
            n = self.n_params
            self.all_states = allocate(n * max(len(arrays), 1), self.dtype, "the optimizer's states")
            self.mirrors = [Mirror(self.all_states[k * n : (k + 1) * n]) for k in range(max(len(arrays), 1))]
        for mirror, array in zip(self.mirrors, arrays, strict=False):
            mirror.upload(array)
        return self.all_states


def _workspace(workspace):
    if not isinstance(workspace, Workspace):
        raise ValueError(f"workspace must come from workspace(), got {type(workspace).__name__}")
    return workspace


def workspace(network, batch_size, n_jobs=None):
    """What the coarse calls need besides their arguments; memory is allocated when it is first used.

    A network whose parameters alone do not fit the device's free memory is a MemoryError.

    Parameters
    ----------
    network : fastmlp.network.Network
    batch_size : int
        Rows that one training step reads.
    n_jobs : int, default=None
        Accepted and ignored.

    Returns
    -------
    Workspace
    """
    return Workspace(network, batch_size)


# --- training ---------------------------------------------------------------------------------------------------------


class _Training:
    """The launches of an epoch's steps: arguments of the kernel, tables of each launch; kept for the next epoch."""

    def __init__(self, ws, rows, n, batch_size, rule, clipped):
        self.key = rows, n, batch_size, rule, clipped
        self.ws, self.rows, self.n, self.batch, self.states = ws, rows, n, batch_size, None
        n_rows = batch_size if ws.network.batch_norm else min(batch_size, CHUNK_ROWS)
        code, store = ws.code(n_rows, rule), rule is None or clipped or batch_size > n_rows
        options = {"is_sparse": rows.samples.sparse, "weighted": rows.weight_on_host is not None}
        options |= {"store": store, "clipped": clipped}
        key = (code, n_rows, *options.values())
        if key not in ws.plans:
            ws.plans.clear()
            ws.plans[key] = _Plan(ws, code, n_rows, training=True, **options)
        self.plan, self.code = ws.plans[key], code
        self.chunks, self.update = _up(batch_size, n_rows), store and rule is not None
        self.block = int(min(WORK_PER_LAUNCH / ws.work_of(batch_size), PARTIALS_PER_LAUNCH / self._partials(1)))
        self.block = max(1, min(self.block, _up(self.n, batch_size)))
        self.order = allocate(n, np.int32 if rows.n < 2**31 else np.int64, "the order of rows")
        self.partials = vector(np.zeros(self._partials(self.block), ws.dtype), ws.dtype, "sums of a launch")
        self.scalars = allocate(self.block * code.N_SCALARS, ws.dtype, "scalars of a launch")
        self.masks = allocate(self.block * ws.n_layers * 2, np.uint64, "keys of a launch")

    def _partials(self, steps):
        return steps * len(self.plan.tasks) * self.code.PARTIALS

    def begin(self, order, states, alpha, l1, max_norm=0.0):
        """Before the steps of an epoch."""
        self.tail = [self.ws.dtype.type(value) for value in (alpha, l1, max_norm)]
        self.launched = 0  # steps that the device has been told to do
        self.order.copy_to_device(np.ascontiguousarray(order, self.order.dtype))
        if states is not self.states:
            self._prepare(states)

    def _prepare(self, states):
        """Choose the schedule and how many blocks; fill in all arguments that do not change."""
        ws, code, plan, rows, self.states = self.ws, self.code, self.plan, self.rows, states
        self.arguments = [
            plan.net, plan.layers, None, _table(plan.tasks), rows.samples.X, rows.samples.indptr, rows.samples.indices,
            rows.y, rows.classes, rows.weight, self.order, ws.params.device, states, ws.grad, plan.work, self.scalars,
            ws.factors, self.masks, self.partials,
        ]  # fmt: skip
        blocks = self._blocks()
        schedule = _schedule_of(ws.network, min(plan.rows, self.n), _tile(ws.network.widths, plan.rows), blocks)
        phases = _phases(ws, plan, schedule, self.update)
        self.n_phases, self.arguments[2] = len(phases), _table(phases)
        down = _up(min(plan.rows, self.n), code.TILE)
        across = 1 if schedule == "rows" else _up(max(ws.network.widths), code.TILE)
        self.blocks = min(blocks, max(down * across, len(plan.tasks)))

    def _blocks(self):
        if BLOCKS_PER_PHASE or cuda_driver.simulated():
            return BLOCKS_PER_PHASE or 1
        arguments = [*self.arguments, *self._limits(0, 1, (0, 1), (0, 1), 0), *self.tail]
        arguments[2] = self.plan.net
        kernel = self.code.train
        signature = tuple(map(kernel.typeof_pyval, arguments))
        return cuda_driver.cooperative_blocks(kernel, signature, self.code.THREADS)

    def _limits(self, first, last, chunks, phases, offset):
        return [first, last, *chunks, *phases, offset, self.batch, self.n]

    def run(self, first, last, scalars, masks):
        """Steps first .. last -> (loss of each without penalty, sums of squares, of magnitudes), float64."""
        cuda, code, steps = api(), self.code, last - first
        for to, table in ((self.scalars, scalars), (self.masks, masks)):
            to[: table.size].copy_to_device(np.ascontiguousarray(table, to.dtype).reshape(-1))
        for limits in self._launches(first, last):
            configured(code.train, self.blocks, code.THREADS)(*self.arguments, *limits, *self.tail)
            self.ws.launches += 1
        self.launched = last
        cuda.synchronize()
        partials = self.partials[: self._partials(steps)].copy_to_host().astype(np.float64)
        partials = partials.reshape(steps, len(self.plan.tasks), code.PARTIALS)
        return partials[:, 0, 0], partials[:, 1:, 0].sum(axis=1), partials[:, 1:, 1].sum(axis=1)

    def _launches(self, first, last):
        everything = (0, self.chunks), (0, self.n_phases)
        if not BLOCKS_PER_PHASE:
            return [self._limits(first, last, *everything, first)]
        return [
            self._limits(step, step + 1, (chunk, chunk + 1), (phase, phase + 1), first)
            for step in range(first, last)
            for chunk in range(_up(min(self.batch, self.n - step * self.batch), self.plan.rows))
            for phase in range(self.n_phases)
        ]


def _splitmix(x):
    """A 64-bit hash of each number (Steele, Lea & Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def _mask_keys(ws, seed, t, steps):
    """(steps, n_layers, 2) 32-bit keys of the masks of each step, in front of each layer."""
    t, n = np.arange(t, t + steps, dtype=np.uint64)[:, None], np.arange(ws.n_layers, dtype=np.uint64)
    seeds = np.array([seed], np.uint64)  # of arrays NumPy lets overflow pass
    keys = _splitmix(_splitmix(seeds) ^ ((t << np.uint64(16)) + n))
    return np.stack([keys & np.uint64(0xFFFFFFFF), keys >> np.uint64(32)], axis=-1)


def _sums_of_weights(rows, order, batch_size):
    """(rows of each batch, sums of their weights), float64."""
    starts = np.arange(0, len(order), batch_size)
    counts = np.diff(np.append(starts, len(order))).astype(np.float64)
    if rows.weight_on_host is None:
        return counts, counts
    return counts, np.add.reduceat(rows.weight_on_host[order].astype(np.float64), starts)


def _inverse(sums):
    return np.divide(1.0, sums, out=np.zeros_like(sums), where=sums != 0)


def loss_and_grad(workspace, params, data, alpha, grad, l1=0.0):
    """Penalised mean loss over the whole data and its gradient.

    See :func:`fastmlp.kernels.reference.loss_and_grad` for the arguments and what is raised.
    """
    ws = _workspace(workspace)
    if ws.network.batch_norm or any(ws.thresholds):
        raise ValueError("network must have neither dropout nor batch_norm in loss_and_grad: train it with train_epoch")
    check_array("params", params, ws.dtype, (ws.n_params,))
    with busy(ws):
        rows = ws.data(data)
        check_array("grad", grad, ws.dtype, params.shape, out=True)
        if np.may_share_memory(params, grad):
            raise ValueError("grad must not share memory with params")
        order, n, alpha, l1 = np.arange(rows.n), rows.n, float(alpha), float(l1)
        _, sums = _sums_of_weights(rows, order, n)
        if sums[0] == 0:
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")
        training = ws.training(rows, n, n)
        training.begin(order, ws.states([]), alpha, l1)
        ws.params.upload(params)
        scalars, masks = np.array([[1.0 / sums[0], 1.0]]), np.zeros((1, ws.n_layers, 2))
        loss, squares, magnitudes = training.run(0, 1, scalars, masks)
        ws.grad.copy_to_host(grad)
    return float((loss[0] + 0.5 * alpha * squares[0] + l1 * magnitudes[0]) / sums[0])


def train_epoch(workspace, params, data, order, batch_size, alpha, optimizer, l1=0.0, seed=0):
    """One pass of mini-batch steps over the rows in `order`; params and optimizer.states are updated in place.

    See :func:`fastmlp.kernels.reference.train_epoch` for the arguments and what is raised.  Ctrl-C is seen between
    launches of a bounded amount of work; the steps done are kept.
    """
    ws = _workspace(workspace)
    check_array("params", params, ws.dtype, (ws.n_params,), out=True)
    with busy(ws):
        rows = ws.data(data)
        check_indices("order", order, rows.n)
        if len(order) == 0:
            raise ValueError("order must hold at least one row")
        batch_size, seed = min(batch_size_of(batch_size), len(order)), seed_of(seed)
        row = row_of("optimizer.rule", formulas.OPTIMIZERS, optimizer.rule)
        check_states(row, optimizer.states, params=params)
        counts, sums = _sums_of_weights(rows, order, batch_size)
        given, decays, max_norm = _schedule(optimizer, row, len(counts))
        training = ws.training(rows, len(order), batch_size, optimizer.rule, clipped=max_norm > 0)
        training.begin(order, ws.states(optimizer.states), alpha, l1, max_norm)
        ws.params.upload(params)
        own = training.code.rule_scalars(*given.T)
        scalars = np.empty((len(counts), training.code.N_SCALARS))
        scalars[:, 0], scalars[:, 1] = _inverse(sums), 1.0 - decays
        for k, column in enumerate(own):
            scalars[:, 2 + k] = column
        return _steps(training, params, optimizer, (counts, sums), scalars, (float(alpha), float(l1)), seed)


def _steps(training, params, optimizer, batches, scalars, strengths, seed):
    """All steps of an epoch, in launches short enough for Ctrl-C; -> the epoch's loss."""
    ws, (counts, sums), (alpha, l1) = training.ws, batches, strengths
    empty = np.flatnonzero(sums == 0)
    end = int(empty[0]) if len(empty) else len(counts)
    first, total, t = 0, 0.0, optimizer.t
    try:
        while first < end:
            last = min(end, first + training.block)
            masks = _mask_keys(ws, seed, t + first, last - first)
            loss, squares, magnitudes = training.run(first, last, scalars[first:last], masks)
            value = (loss + 0.5 * alpha * squares + l1 * magnitudes) / sums[first:last]
            total += float(value @ counts[first:last])
            first = last
    finally:  # an interrupted launch is finished all the same
        optimizer.t = t + training.launched
        if training.launched:
            ws.params.download(params)
            for mirror, state in zip(ws.mirrors, optimizer.states, strict=False):
                mirror.download(state)
    if end < len(counts):
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return total / training.n


def _schedule(optimizer, row, steps):
    """Scalars (steps, n_scalars) and decays (steps,) of the coming steps; the largest norm, 0 for none."""
    scalars = optimizer.scalars(steps)
    check_array("optimizer.scalars", scalars, np.dtype(np.float64), (steps, len(row.scalars)))
    decays = optimizer.decays(steps) if hasattr(optimizer, "decays") else None
    if decays is None:
        decays = np.zeros(steps)
    check_array("optimizer.decays", decays, np.dtype(np.float64), (steps,))
    max_norm = getattr(optimizer, "max_grad_norm", None)
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"optimizer.max_grad_norm must be above 0 or None, got {max_norm}")
    return scalars, decays, 0.0 if max_norm is None else float(max_norm)


def shuffle(order, random_state):
    """``random_state.shuffle(order)``.

    Parameters
    ----------
    order : ndarray of shape (n,), dtype intp (IN, OUT)
    random_state : numpy.random.RandomState (IN, OUT)
    """
    check_array("order", order, np.dtype(np.intp), (None,), out=True)
    if not isinstance(random_state, np.random.RandomState):
        raise ValueError(f"random_state must be a RandomState, got {type(random_state).__name__}")
    random_state.shuffle(order)


# --- prediction -------------------------------------------------------------------------------------------------------


class _Slot:
    """One of two blocks of rows on their way: while one is computed, the other is copied."""

    def __init__(self, ws, plan, n_features, host_X, host_out):
        cuda, rows = api(), plan.rows
        self.stream, self.copied, self.samples = cuda.stream(), None, None
        if host_X:
            self.X_on_host = cuda.pinned_array((rows, n_features), ws.dtype)
            self.X = allocate(rows * n_features, ws.dtype, f"{rows} rows of X")
        if host_out:
            self.out_on_host = cuda.pinned_array((rows, ws.n_outputs), ws.dtype)
            self.out = allocate(rows * ws.n_outputs, ws.dtype, f"predictions of {rows} rows")

    def collect(self, out):
        """Wait for the block, and hand its predictions over."""
        if self.copied is not None:
            self.stream.synchronize()
            first, last = self.copied
            out[first:last] = self.out_on_host[: last - first]
            self.copied = None


class _Prediction:
    """Buffers for blocks of rows of one kind of X, kept for the next call."""

    def __init__(self, ws, rows, is_sparse, host_X, host_out):
        self.key, self.rows = (rows, is_sparse, host_X, host_out), rows
        code = ws.code(rows)
        self.code, n_features = code, ws.network.widths[0]
        plans = [_Plan(ws, code, rows, training=False, is_sparse=is_sparse) for _ in range(2)]
        self.slots = [(plan, _Slot(ws, plan, n_features, host_X and not is_sparse, host_out)) for plan in plans]
        self.flags, self.masks = api().to_device(np.zeros(1, np.int32)), allocate(1, np.uint64, "masks")
        self.none = Samples(None, allocate(1, np.int64, "X"), allocate(1, np.int32, "X"), 0, False)


def predict(workspace, params, X, out, rows=None):
    """out = link(logits) for all rows of X, or for ``X[rows]``; whether these rows were finite.

    X and out may be on the device: C-contiguous arrays of the network's dtype with ``__cuda_array_interface__``.
    See :func:`fastmlp.kernels.reference.predict` for the arguments.
    """
    ws = _workspace(workspace)
    if ws.network.batch_norm:
        raise ValueError("network must not have batch_norm in predict: fold it into the weights with network.folded()")
    check_array("params", params, ws.dtype, (ws.n_params,))
    check_samples(X, ws.network.widths[0], ws.dtype)
    if rows is not None:
        check_indices("rows", rows, X.shape[0])
    n = X.shape[0] if rows is None else len(rows)
    to = device_view("out", out, ws.dtype, (n, ws.n_outputs), out=True) if on_device(out) else None
    if to is None:
        check_array("out", out, ws.dtype, (n, ws.n_outputs), out=True)
    if n == 0:
        return True
    with busy(ws):
        ws.params.upload(params)
        prediction = _prediction(ws, n, sparse.issparse(X), not on_device(X), to is None)
        return _predict_blocks(ws, prediction, X, rows, n, out, to)


def _prediction(ws, n, is_sparse, host_X, host_out):
    """Buffers for as many rows at once as the device has room for."""
    rows = min(n, PREDICT_ROWS)
    while True:
        key = (rows, is_sparse, host_X, host_out)
        if ws.prediction is not None and ws.prediction.key == key:
            return ws.prediction
        ws.prediction = None
        try:
            ws.prediction = _Prediction(ws, *key)
            return ws.prediction
        except MemoryError:
            if rows <= FEWEST_ROWS:
                raise
            rows = max(FEWEST_ROWS, rows // 2)


def _predict_blocks(ws, prediction, X, rows, n, out, to):
    code, blocks = prediction.code, BLOCKS_WITHOUT_BARRIER
    if cuda_driver.simulated():
        blocks = 2
    device_X = upload_samples(X, ws.dtype) if on_device(X) else None
    order = _table(rows, np.int32) if rows is not None and device_X is not None else _table([0], np.int32)
    prediction.flags.copy_to_device(np.zeros(1, np.int32))
    for number, first in enumerate(range(0, n, prediction.rows)):
        plan, slot = prediction.slots[number % 2]
        slot.collect(out)
        last = min(n, first + prediction.rows)
        samples = slot.samples = device_X or _block_of(
            ws, prediction, slot, X, rows, first, last
        )  # alive until its stream is through
        target = to[first * ws.n_outputs : last * ws.n_outputs] if to is not None else slot.out
        launch = min(blocks, _up(last - first, code.TILE)), code.THREADS, slot.stream
        configured(code.predict, *launch)(
            plan.net, plan.layers, samples.X, samples.indptr, samples.indices, order, ws.params.device, plan.work,
            prediction.masks, target, prediction.flags, first if device_X else 0, last - first,
            int(rows is not None and device_X is not None),
        )  # fmt: skip
        if to is None:
            size = (last - first) * ws.n_outputs
            slot.out[:size].copy_to_host(slot.out_on_host.reshape(-1)[:size], slot.stream)
            slot.copied = first, last
    for _, slot in prediction.slots:
        slot.stream.synchronize()
        slot.collect(out)
    return not prediction.flags.copy_to_host()[0]


def _block_of(ws, prediction, slot, X, rows, first, last):
    """Rows first .. last of X, or of ``X[rows]``, on their way to the device."""
    block = X[first:last] if rows is None else X[rows[first:last]]
    if sparse.issparse(X):
        return upload_samples(canonical(block, ws.dtype), ws.dtype)
    slot.X_on_host[: last - first] = block
    flat = slot.X_on_host.reshape(-1)[: block.size]
    slot.X[: block.size].copy_to_device(flat, slot.stream)
    return prediction.none._replace(X=slot.X, n=last - first)


def all_finite(X):
    """Whether an array on the device has neither NaN nor infinity, in one pass over it; not part of the contract.

    Parameters
    ----------
    X : C-contiguous array of float32 or float64 with ``__cuda_array_interface__``
    """
    dtype = np.dtype(X.dtype)
    numbers, flags = device_view("X", X, dtype, tuple(X.shape)), api().to_device(np.zeros(1, np.int32))
    code = _named_code(dtype)
    _launch(code.finite_array, code, numbers.size, numbers, flags, numbers.size)
    return not flags.copy_to_host()[0]


# --- kernels by name: for cross-checks, benches and teaching; whole networks do not pass through here ----------------


def _launch(kernel, code, items, *arguments):
    """One launch over so many items for the threads of all blocks."""
    most = 2 if cuda_driver.simulated() else BLOCKS_WITHOUT_BARRIER
    configured(kernel, max(1, min(most, _up(items, code.THREADS))), code.THREADS)(*arguments)


def _named_code(dtype, **choices):
    tile = SIMULATED if cuda_driver.simulated() else SMALL
    return _code(np.dtype(dtype) == np.float64, tile, **choices)


def _back(device, out):
    """Numbers of the device into a host array of any shape."""
    out[...] = device[: out.size].copy_to_host().reshape(out.shape)


def activate(activation, z, out):
    """out = f(z), elementwise; out may be z."""
    dtype = float_dtype("z", z)
    f = _activation(activation, hidden=False)
    check_array("z", z, dtype)
    check_array("out", out, dtype, z.shape, out=True)
    if z.size:
        code, to = _named_code(dtype, activations=(f.entry,)), allocate(z.size, dtype, "out")
        arrays = vector(z.reshape(-1), dtype, "z"), to
        _launch(code.activate_array, code, z.size, *arrays, dtype.type(f.initial), z.size)
        _back(to, out)


def slope(activation, z, a, out):
    """out = da/dz, elementwise, for a = f(z); z may be None where the slope is a function of a alone."""
    dtype = float_dtype("a", a)
    f = _activation(activation)
    if z is None and f.needs_z:
        raise ValueError(f"z must be given: the slope of activation {activation!r} needs it")
    check_array("a", a, dtype)
    if z is not None:
        check_array("z", z, dtype, a.shape)
    check_array("out", out, dtype, a.shape, out=True)
    no_overlap(out, z=z, a=a)
    out[...] = 1
    _times_slope(f, a if z is None else z, a, out)


def _times_slope(f, z, a, out):
    """out *= f'(z)"""
    if out.size:
        code = _named_code(out.dtype, activations=(f.entry,))
        arrays = [vector(array.reshape(-1), out.dtype, "an array") for array in (z, a, out)]
        _launch(code.slope_array, code, out.size, *arrays, out.dtype.type(f.initial), out.size)
        _back(arrays[2], out)


def _product(A, B, shape, depth, *, turned=0, bias=None):
    """(rows, columns) = A B, or A^T B (turned: 1), or A B^T (turned: 2), plus a bias; C-contiguous A and B."""
    out = np.zeros(shape, A.dtype)
    if out.size == 0:
        return out
    code, to = _named_code(A.dtype), allocate(out.size, A.dtype, "a product")
    a, b = (vector(matrix.reshape(-1), A.dtype, "a matrix") for matrix in (A, B))
    added = vector(np.zeros(1, A.dtype) if bias is None else bias, A.dtype, "a bias")
    order = _table([0], np.int32)
    tiles = _up(shape[0], code.TILE) * _up(shape[1], code.TILE) * code.THREADS
    _launch(
        code.matrix_product, code, tiles, a, A.shape[1], b, B.shape[1], turned, added, int(bias is not None), order,
        to, *shape, depth,
    )  # fmt: skip
    _back(to, out)
    return out


def linear_forward(X, W, b, activation, out, z=None):
    """out = f(X W + b), and z = X W + b where a buffer for it is given.

    Parameters
    ----------
    X : ndarray of shape (n, fan_in)
    W : ndarray of shape (fan_in, fan_out)
    b : ndarray of shape (fan_out,)
    activation : str, (str, dict) or formula
    out : ndarray of shape (n, fan_out)
    z : ndarray of shape (n, fan_out), optional
    """
    dtype = float_dtype("X", X)
    _activation(activation, hidden=False)
    check_array("X", X, dtype, (None, None))
    check_array("W", W, dtype, (X.shape[1], None))
    check_array("b", b, dtype, W.shape[1:])
    check_array("out", out, dtype, (X.shape[0], W.shape[1]), out=True)
    if z is not None:
        check_array("z", z, dtype, out.shape, out=True)
    product = _product(X, W, out.shape, X.shape[1], bias=b)
    if z is not None:
        z[...] = product
    activate(activation, product, out)


def linear_backward(X, W, delta, activation, grad_W, grad_b, delta_below=None, z=None):
    """Gradients of one linear layer, and the delta of the layer below.

    grad_W = X^T delta;  grad_b = column sums of delta;  delta_below = (delta W^T) * f'(z, X).
    See :func:`fastmlp.kernels.reference.linear_backward` for the arguments.
    """
    dtype = float_dtype("X", X)
    f = _activation(activation)
    check_array("X", X, dtype, (None, None))
    check_array("W", W, dtype, (X.shape[1], None))
    check_array("delta", delta, dtype, (X.shape[0], W.shape[1]))
    check_array("grad_W", grad_W, dtype, W.shape, out=True)
    check_array("grad_b", grad_b, dtype, W.shape[1:], out=True)
    if z is not None:
        check_array("z", z, dtype, X.shape)
    below = None
    if delta_below is not None:
        check_array("delta_below", delta_below, dtype, X.shape, out=True)
        if z is None and f.needs_z:
            raise ValueError(f"z must be given: the slope of activation {activation!r} needs it")
        below = _product(delta, W, X.shape, W.shape[1], turned=2)
        _times_slope(f, X if z is None else z, X, below)
    gradient = _product(X, delta, W.shape, X.shape[0], turned=1)
    ones = np.ones((1, X.shape[0]), dtype)
    sums = _product(ones, delta, (1, W.shape[1]), X.shape[0])[0]
    if below is not None:
        delta_below[...] = below
    grad_W[...], grad_b[...] = gradient, sums


def softmax(logits, out):
    """out = exp(z - max z) / sum_j exp(z_j - max z), row by row; out may be logits."""
    dtype = float_dtype("logits", logits)
    check_array("logits", logits, dtype, (None, None))
    check_array("out", out, dtype, logits.shape, out=True)
    n, width = logits.shape
    if width == 0:
        raise ValueError("logits must have at least one column")
    if out is not logits:
        no_overlap(out, logits=logits)
    if n:
        code, to = _named_code(dtype), allocate(out.size, dtype, "out")
        _launch(code.softmax_array, code, n * code.SIDE, vector(logits, dtype, "logits"), to, n, width)
        _back(to, out)


def loss(name, logits, y, sample_weight, delta):
    """Mean loss over the rows, and delta = d loss / d logits * sample_weight.

    See :func:`fastmlp.kernels.reference.loss` for the arguments and what is raised.
    """
    dtype = float_dtype("logits", logits)
    f = _loss(name, "name")
    check_array("logits", logits, dtype, (None, None))
    if logits.size == 0:
        raise ValueError("logits must have at least one row and one column")
    n, width = logits.shape
    check_targets(y, f.by_class, logits.shape, dtype)
    check_weights(sample_weight, n, dtype)
    check_array("delta", delta, dtype, logits.shape, out=True)
    no_overlap(delta, logits=logits)
    total = float(n) if sample_weight is None else float(np.sum(sample_weight, dtype=np.float64))
    if total == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    code, to, row_loss = _named_code(dtype, loss=f.entry), allocate(delta.size, dtype, "delta"), allocate(n, dtype, "")
    targets = allocate(1, dtype, "y") if f.by_class else vector(y, dtype, "y")
    classes = vector(y, np.int32, "y") if f.by_class else allocate(1, np.int32, "y")
    weight = allocate(1, dtype, "") if sample_weight is None else vector(sample_weight, dtype, "sample_weight")
    _launch(
        code.loss_array, code, n * code.SIDE, vector(logits, dtype, "logits"), targets, classes, weight,
        int(sample_weight is not None), to, row_loss, n, width,
    )  # fmt: skip
    _back(to, delta)
    return float(row_loss[:n].copy_to_host().sum(dtype=np.float64) / total)


def softmax_cross_entropy(logits, y, sample_weight, delta):
    """The loss ``log_loss``: softmax and cross-entropy in one pass, safe for any finite logits; see :func:`loss`."""
    return loss("log_loss", logits, y, sample_weight, delta)


def update(rule, params, grad, states, scalars):
    """One optimizer step in place: params, *states = step(params, grad, *states, *scalars).

    See :func:`fastmlp.kernels.reference.update` for the arguments.
    """
    row = row_of("rule", formulas.OPTIMIZERS, rule)
    dtype = float_dtype("params", params)
    check_array("params", params, dtype, (None,), out=True)
    check_array("grad", grad, dtype, params.shape)
    check_states(row, states, params=params, grad=grad)
    if len(scalars) != len(row.scalars):
        raise ValueError(f"scalars must be {row.scalars}, got {len(scalars)} numbers")
    n = len(params)
    if n == 0:
        return
    code = _named_code(dtype, rule=rule)
    own = np.array([1.0, 1.0, *code.rule_scalars(*map(float, scalars))]).astype(dtype)
    block = np.concatenate(states) if states else np.zeros(1, dtype)
    arrays = [vector(array, dtype, "an array") for array in (params, grad, block, own)]
    _launch(code.rule_array, code, n, *arrays, n)
    _back(arrays[0], params)
    for k, state in enumerate(states):
        state[...] = arrays[2][k * n : (k + 1) * n].copy_to_host()


def sgd_update(params, grad, lr):
    """p -= lr * g, in place."""
    update("sgd", params, grad, [], [lr])


def momentum_update(params, grad, velocity, lr, momentum, nesterov=False):
    """v = momentum * v - lr * g;  p += v, or with Nesterov p += momentum * v - lr * g; in place."""
    update("nesterov" if nesterov else "momentum", params, grad, [velocity], [lr, momentum])


def adam_update(params, grad, m, v, lr, beta_1, beta_2, epsilon):
    """Adam (Kingma and Ba 2015), in place; lr already holds the bias correction of its step."""
    update("adam", params, grad, [m, v], [lr, beta_1, beta_2, epsilon])
