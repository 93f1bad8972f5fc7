"""Many nets at once: epochs of several workspaces as launches of the kernel ``train_many``, with a block for each net.

Where it sits: engine.train_many hands over calls of ``train_epoch``.  Those whose weights fit into a block's shared
memory are sorted by the code that they need.  Where that is expected to be faster than one net after the other
(cost.py), a :class:`Bundle` trains them together::

    calls --checks--> Net each --by code--> Bundle: their vectors in one --launches--> each workspace owes its net

A workspace keeps its part of the bundle's vectors, so that nothing is copied between calls of the same nets, and a net
may leave.  If a net comes that is not in the bundle, a new one is made.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.kernels import formulas, interrupts
from fastmlp.kernels.arguments import (
    batch_size_of,
    check_array,
    check_indices,
    check_order,
    check_orders,
    check_schedule,
    check_states,
    row_of,
    seed_of,
)
from fastmlp.kernels.contract import NO_WEIGHT, Epochs, busy, refuse_drawn_slopes, refuse_plans
from fastmlp.kernels.numba_cuda import cost, driver, settings
from fastmlp.kernels.numba_cuda.code import module_of, pieces
from fastmlp.kernels.numba_cuda.interrupts import deferred
from fastmlp.kernels.numba_cuda.memory import Rows
from fastmlp.kernels.numba_cuda.pace import Pace
from fastmlp.kernels.numba_cuda.plan import Layout, phases_of, table
from fastmlp.kernels.numba_cuda.training import inverse, mask_keys, sums_of_weights

if TYPE_CHECKING:
    from fastmlp.kernels.codegen import CudaTile
    from fastmlp.kernels.numba_cuda.workspace import Workspace


@dataclass(eq=False)
class Net:
    """The epochs of one net: its call, checked, and what the host makes of it.

    Attributes
    ----------
    orders : ndarray of shape (n_epochs, m)
    batch, steps : int
        Rows of a batch, and steps of an epoch.
    counts, sums : ndarray of shape (n_epochs * steps,)
        Rows of each batch, and the sums of their weights.
    n_steps : int
        Steps up to a batch without weight.
    done : int
        Steps that the device has done.
    found : ndarray of shape (3, n_steps)
        Of each step the loss without penalty, the sum of the weights' squares, and that of their magnitudes.
    """

    call: Epochs
    rows: Rows
    orders: np.ndarray
    batch: int
    max_norm: float
    given: np.ndarray
    decays: np.ndarray | None
    seed: int
    counts: np.ndarray = field(init=False)
    sums: np.ndarray = field(init=False)
    done: int = 0

    def __post_init__(self) -> None:
        found = [sums_of_weights(self.rows, order, self.batch) for order in self.orders]
        self.counts, self.sums = (np.concatenate(parts) for parts in zip(*found, strict=True))
        self.steps = len(found[0][0])
        empty = np.flatnonzero(self.sums == 0)
        self.n_steps = int(empty[0]) if len(empty) else len(self.sums)
        self.found = np.zeros((3, self.n_steps))

    @property
    def ws(self) -> Workspace:
        ws: Workspace = self.call.workspace
        return ws

    @property
    def chunk(self) -> int:
        """Rows that are worked on together."""
        return self.batch if self.ws.network.needs_whole_batch else min(self.batch, settings.CHUNK_ROWS)

    @property
    def precision(self) -> str:
        """Of its products alone, so they have the same bits."""
        return self.ws.tile(self.chunk).precision

    @property
    def need(self) -> cost.Need:
        return cost.Need(self.ws.network.widths, self.chunk, self.ws.n_params, len(self.call.optimizer.states))

    @property
    def key(self) -> tuple:
        """What must be the same for a net to go on in its place in a bundle."""
        return self.rows, self.chunk, self.batch > self.chunk, self.max_norm > 0

    def scalars(self, code: ModuleType) -> np.ndarray:
        """Return (n_steps, N_SCALARS)."""
        own, scalars = code.rule_scalars(*self.given.T), np.empty((len(self.sums), code.N_SCALARS))
        scalars[:, 0], scalars[:, 1] = inverse(self.sums), 1.0 if self.decays is None else 1.0 - self.decays
        for k, column in enumerate(own):
            scalars[:, 2 + k] = column
        return scalars[: self.n_steps]

    def losses(self) -> list[float]:
        """Write the losses of the epochs done, and return them."""
        call, n = self.call, self.orders.shape[1]
        value, squares, magnitudes = self.found[:, : self.done]
        penalised = value + 0.5 * float(call.alpha) * squares + float(call.l1) * magnitudes
        penalised /= self.sums[: self.done]
        losses = [
            float(penalised[first : first + self.steps] @ self.counts[first : first + self.steps]) / n
            for first in range(0, self.done - self.steps + 1, self.steps)
        ]
        if call.losses is not None:
            call.losses[: len(losses)] = losses
        return losses

    def outcome(self) -> float | Exception:
        """Return the loss of the last epoch, or the error that the call ends with."""
        return self.losses()[-1] if self.done == len(self.sums) else ZeroDivisionError(NO_WEIGHT)


def _net_of(call: Epochs, shelf: dict[tuple, Rows]) -> Net:
    """Return a call with its arguments checked; see contract.Engine.train_epoch for what is raised."""
    ws, params, data, order, batch_size, _, optimizer, _, seed, losses = call
    refuse_drawn_slopes("cuda", ws.network)
    check_array("params", params, ws.dtype, (ws.n_params,), out=True)
    rows = ws.data(data, shelf)
    if losses is None:
        check_order(order)
        check_indices("order", order, rows.n)
    else:
        check_orders(order, losses, rows.n)
    orders = np.atleast_2d(order)
    batch, row = (
        min(batch_size_of(batch_size), orders.shape[1]),
        row_of("optimizer.rule", formulas.OPTIMIZERS, optimizer.rule),
    )
    check_states(row, optimizer.states, params=params)
    n_steps = len(orders) * pieces(orders.shape[1], batch)
    refuse_plans("cuda", optimizer, n_steps)
    given, decays, norm = check_schedule(optimizer, row, n_steps)
    return Net(call, rows, orders, batch, 0.0 if norm is None else float(norm), given, decays, seed_of(seed))


def train(calls: Sequence[Epochs], alone: Callable[[Epochs], float]) -> list[float | Exception]:
    """Train the nets of these calls: together where that pays, else by ``alone``; see contract.TrainsMany."""
    outcomes: dict[int, float | Exception] = {}
    shelf = {rows.key: rows for rows in (call.workspace.rows for call in calls) if rows is not None}
    with ExitStack() as stack:
        nets: dict[int, Net] = {}
        for i, call in enumerate(calls):
            try:
                with ExitStack() as own:
                    own.enter_context(busy(call.workspace))
                    nets[i] = _net_of(call, shelf)
                    stack.push(own.pop_all())
            except Exception as error:
                outcomes[i] = error
        groups: dict[tuple, list[int]] = {}
        for i, net in nets.items():
            groups.setdefault((net.ws.choices, net.precision, net.call.optimizer.rule), []).append(i)
        for members in groups.values():
            for i, outcome in _together([nets[i] for i in members], members).items():
                outcomes[i] = outcome
    for i, call in enumerate(calls):
        if i not in outcomes:
            interrupts.check()
            try:
                outcomes[i] = alone(call)
            except Exception as error:
                outcomes[i] = error
    return [outcomes[i] for i in range(len(calls))]


def _together(nets: list[Net], numbers: list[int]) -> dict[int, float | Exception]:
    """Train those nets of one kind of code that train faster together; return what they come to, by their numbers."""
    ws = nets[0].ws
    needs = [net.need for net in nets]
    tile = cost.tile_of_many(needs, ws.dtype.itemsize, nets[0].precision)
    if tile is None:
        return {}
    fitting = [i for i, need in enumerate(needs) if cost.inside(need, tile, ws.dtype.itemsize) is not None]
    if not cost.many_pay([needs[i] for i in fitting], tile, ws.dtype.itemsize):
        return {}
    nets, numbers = [nets[i] for i in fitting], [numbers[i] for i in fitting]
    code = module_of(ws.dtype == np.float64, tile, ws.distinct, ws.loss.entry, nets[0].call.optimizer.rule)
    try:
        bundle = _bundle_of(nets, code, tile)
        bundle.begin(nets)
    except MemoryError:  # one after the other they need less
        return {}
    try:
        bundle.run(nets)
    finally:
        with deferred():
            bundle.finish(nets)
    return {i: net.outcome() for i, net in zip(numbers, nets, strict=True)}


def _bundle_of(nets: Sequence[Net], code: ModuleType, tile: CudaTile) -> Bundle:
    """Return the bundle that these nets are in, or a new one."""
    bundle = nets[0].ws.bundle
    if bundle is None or not all(bundle.has(net, code) for net in nets):
        bundle = Bundle(nets, code, tile)
    return bundle


@dataclass(eq=False)
class _Slot:
    """A net's part of a bundle."""

    key: tuple
    places: dict[str, int]
    n_tasks: int
    n_layers: int
    params: Any
    states: Any


class Bundle:
    """Nets whose vectors lie side by side on the device, trained by the same code.

    Attributes
    ----------
    slots : mapping of Workspace to _Slot
    """

    def __init__(self, nets: Sequence[Net], code: ModuleType, tile: CudaTile) -> None:
        self.code, self.dtype = code, nets[0].ws.dtype
        self.stream, self.slots = driver.api().stream(), weakref.WeakKeyDictionary[Any, _Slot]()
        layouts, phases = [], []
        for net in nets:
            store = net.max_norm > 0 or net.batch > net.chunk
            layout = Layout(
                net.ws, code, net.chunk, training=True, is_sparse=net.rows.samples.sparse,
                weighted=net.rows.weight_on_host is not None, store=store, clipped=net.max_norm > 0,
            )  # fmt: skip
            schedule = "layers" if net.ws.network.needs_whole_batch else "rows"
            layouts.append(layout)
            phases.append(phases_of(net.ws, layout, schedule, store))
        places: dict[str, Sequence[int]] = {"n_phases": [len(rows) for rows in phases]}
        self.tables = {}
        tables: dict[str, list[Any]] = {
            "net": [layout.entries for layout in layouts],
            "layers": [layout.rows_of_layers for layout in layouts],
            "phases": phases,
            "tasks": [layout.tasks for layout in layouts],
        }
        for name, parts in tables.items():
            flat = [np.asarray(part, np.int64).reshape(-1) for part in parts]
            self.tables[name], places[name] = table(np.concatenate(flat)), _starts(map(len, flat))
        factors = [1 / (1 - np.asarray(net.ws.rates)) for net in nets]
        self.factors = driver.api().to_device(np.concatenate(factors).astype(self.dtype))
        places["factors"] = _starts(map(len, factors))
        self._join_rows(nets, places)
        self._take_vectors(nets, layouts, places)
        inside = [found for net in nets if (found := cost.inside(net.need, tile, self.dtype.itemsize)) is not None]
        places["states_inside"], self.shared = [one.states for one in inside], max(one.bytes for one in inside)
        for i, net in enumerate(nets):
            at, n = places["params"][i], net.ws.n_params
            states = self.states[places["states"][i] :][: n * max(1, len(net.call.optimizer.states))]
            own = {name: int(starts[i]) for name, starts in places.items()}
            params, n_tasks = self.params[at : at + n], len(layouts[i].tasks)
            self.slots[net.ws] = _Slot(net.key, own, n_tasks, net.ws.n_layers, params, states)
        for net in nets:
            slot = self.slots[net.ws]
            net.ws.move(slot.params, slot.states)
            net.ws.bundle = self
        self.room: dict[str, Any] = {}
        work = sum(6.0 * net.chunk * net.ws.n_weights + 50.0 * net.ws.n_params for net in nets)
        self.pace = Pace(work / settings.FIRST_RATE[self.dtype.itemsize] + settings.FIRST_STEP)
        self.timer = driver.Timer(self.stream)

    def _join_rows(self, nets: Sequence[Net], places: dict[str, Sequence[int]]) -> None:
        """Let one vector hold the rows of all nets, each of which is there once however many nets train on it."""
        distinct = list(dict.fromkeys(net.rows for net in nets))
        number = [distinct.index(net.rows) for net in nets]
        vectors = [rows.vectors() for rows in distinct]
        joined, starts = {}, {}
        for name in vectors[0]:
            joined[name], starts[name] = _joined([one[name] for one in vectors], name)
            places[name] = [starts[name][k] for k in number]
        if len(distinct) > 1:
            for k, rows in enumerate(distinct):
                sizes = {name: vectors[k][name].size for name in joined}
                rows.move({name: whole[starts[name][k] :][: sizes[name]] for name, whole in joined.items()})
        self.rows = joined

    def _take_vectors(self, nets: Sequence[Net], layouts: Sequence[Layout], places: dict[str, Sequence[int]]) -> None:
        """Allocate what is trained and worked in."""
        sizes = [net.ws.n_params for net in nets]
        n_states = [n * max(1, len(net.call.optimizer.states)) for n, net in zip(sizes, nets, strict=True)]
        places["params"], places["states"] = _starts(sizes), _starts(n_states)
        places["work"] = _starts(layout.size for layout in layouts)
        self.params = driver.allocate(sum(sizes), self.dtype, f"the parameters of {len(nets)} networks")
        self.states = driver.allocate(sum(n_states), self.dtype, f"the optimizers' states of {len(nets)} networks")
        work = sum(layout.size for layout in layouts)
        self.work = driver.allocate(work, self.dtype, f"the activations of {len(nets)} networks")
        self.grad = driver.api().to_device(np.zeros(sum(sizes), self.dtype))

    def has(self, net: Net, code: ModuleType) -> bool:
        """Return whether a net can go on in its place."""
        slot, ws = self.slots.get(net.ws), net.ws
        return (
            slot is not None
            and self.code is code
            and slot.key == net.key
            and ws.params.device is slot.params
            and ws.all_states is slot.states
        )

    # --- a call -------------------------------------------------------------------------------------------------------

    def begin(self, nets: Sequence[Net]) -> None:
        """Upload what is new of each net, and fill the tables of the call."""
        self.in_flight = False
        for net in nets:
            net.ws.states(net.call.optimizer)
            net.ws.upload(net.call.params)
        slots, code = [self.slots[net.ws] for net in nets], self.code
        partials = [slot.n_tasks * code.PARTIALS for slot in slots]
        steps = max(net.n_steps for net in nets)
        self.steps = max(1, min(steps, settings.PARTIALS_PER_TABLE // sum(partials)))
        orders = [net.orders.reshape(-1) for net in nets]
        places: dict[str, Any] = {
            "order": _starts(map(len, orders)),
            "scalars": [i * self.steps * code.N_SCALARS for i in range(len(nets))],
            "masks": _starts(self.steps * 2 * slot.n_layers for slot in slots),
            "partials": _starts(self.steps * n for n in partials),
            "batch": [net.batch for net in nets],
            "rows": [net.orders.shape[1] for net in nets],
            "steps": [net.steps for net in nets],
            "n_steps": [net.n_steps for net in nets],
        }
        own = [slot.places | {name: column[i] for name, column in places.items()} for i, slot in enumerate(slots)]
        self.places = np.array([[row[name] for name in code.PLACES] for row in own], np.int64)
        strengths = [[float(net.call.alpha), float(net.call.l1), net.max_norm] for net in nets]
        wide = max(net.rows.n for net in nets) >= 2**31
        arrays = {
            "places": (self.places.reshape(-1), np.int64),
            "strengths": (np.array(strengths).reshape(-1), self.dtype),
            "order": (np.concatenate(orders), np.int64 if wide else np.int32),
        }
        self._upload(arrays)
        self.n_partials = self.steps * sum(partials)
        self._upload({"partials": (np.zeros(self.n_partials, self.dtype), self.dtype)})  # not all are written
        self._room("scalars", len(nets) * self.steps * code.N_SCALARS, self.dtype)
        self._room("masks", self.steps * 2 * sum(slot.n_layers for slot in slots), np.uint64)
        t, room, rows = self.tables, self.room, self.rows
        self.arguments = [
            room["places"], room["strengths"], t["net"], t["layers"], t["phases"], t["tasks"], rows["X"],
            rows["indptr"], rows["indices"], rows["y"], rows["classes"], rows["weight"], room["order"], self.params,
            self.states, self.grad, self.work, room["scalars"], self.factors, room["masks"], room["partials"],
        ]  # fmt: skip
        driver.allow_shared(code.train_many, [*self.arguments, 0, 1, 0], self.shared)
        self.launch = driver.Launch(code.train_many, len(nets), code.THREADS, self.stream, self.shared)

    def _room(self, name: str, size: int, dtype: Any) -> Any:
        """Return a vector of the device that is kept from call to call, and is at least this long."""
        kept = self.room.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            self.room[name] = driver.allocate(size, dtype, f"{name} of many networks")
        return self.room[name]

    def _upload(self, arrays: dict[str, tuple[np.ndarray, Any]]) -> None:
        for name, (array, dtype) in arrays.items():
            self._room(name, array.size, dtype)[: array.size].copy_to_device(np.ascontiguousarray(array, dtype))

    def run(self, nets: Sequence[Net]) -> None:
        """Do all steps of all nets; Ctrl-C, and requests to stop, are seen after each launch."""
        end, code = max(net.n_steps for net in nets), self.code
        scalars = [net.scalars(code) for net in nets]
        for first in range(0, end, self.steps):
            last = min(end, first + self.steps)
            self._fill(nets, scalars, first, last)
            step = first
            try:
                while step < last:
                    steps = self.pace.units(last - step)
                    with deferred():
                        self._launch(nets, step, step + steps, first)
                        step += steps
                        for net in nets:
                            net.done = min(step, net.n_steps)
                        self.in_flight = False
                    interrupts.check()
            finally:
                if not self.in_flight:
                    self._collect(nets, first, step)

    def _fill(self, nets: Sequence[Net], scalars: Sequence[np.ndarray], first: int, last: int) -> None:
        """Upload the scalars of steps first .. last, and the keys of their dropout masks."""
        table_of_scalars = np.zeros((len(nets), self.steps, self.code.N_SCALARS))
        keys = []
        for i, net in enumerate(nets):
            own = scalars[i][first:last]
            table_of_scalars[i, : len(own)] = own
            ws, part = net.ws, np.zeros((self.steps, net.ws.n_layers, 2), np.uint64)
            if any(ws.thresholds):
                part[: len(own)] = mask_keys(ws.n_layers, net.seed, net.call.optimizer.t + first, len(own))
            keys.append(part.reshape(-1))
        self._upload(
            {"scalars": (table_of_scalars.reshape(-1), self.dtype), "masks": (np.concatenate(keys), np.uint64)}
        )

    def _launch(self, nets: Sequence[Net], first: int, last: int, offset: int) -> None:
        """Launch these steps of all nets, wait for them, and note how long they took."""
        for net in nets:
            for mirror in (net.ws.params, *net.ws.mirrors):
                mirror.stale()
            net.ws.running = True
        self.in_flight = True
        self.timer.start()
        self.launch(*self.arguments, first, last, offset)
        self.timer.stop()
        seconds = self.timer.seconds()
        for net in nets:
            net.ws.launches += 1
            net.ws.device_seconds += seconds / len(nets)
        self.pace.measured(last - first, seconds)

    def _collect(self, nets: Sequence[Net], first: int, last: int) -> None:
        """Keep what steps first .. last have come to."""
        partials = self.room["partials"][: self.n_partials].copy_to_host(stream=self.stream)
        self.stream.synchronize()
        at = self.code.PLACES.index("partials")
        for net, places in zip(nets, self.places, strict=True):
            steps, n_tasks = min(last, net.n_steps) - first, self.slots[net.ws].n_tasks
            if steps <= 0:
                continue
            own = partials[places[at] :][: steps * n_tasks * self.code.PARTIALS].astype(np.float64)
            of_tasks, to = own.reshape(steps, n_tasks, self.code.PARTIALS), slice(first, first + steps)
            net.found[0, to] = of_tasks[:, 0, 0]
            net.found[1, to], net.found[2, to] = of_tasks[:, 1:, 0].sum(axis=1), of_tasks[:, 1:, 1].sum(axis=1)

    def finish(self, nets: Sequence[Net]) -> None:
        """Let each workspace owe what its net has come to, and fetch it unless that is held back.

        If an error came before a launch was waited for, nobody knows what the device has done: then the numbers that
        the host was given last count.
        """
        for net in nets:
            if self.in_flight:
                net.ws.forget()
            elif net.done:
                net.ws.owe(net.call.params, net.call.optimizer, net.done)
                net.losses()
                if not net.ws.holds_back:
                    net.ws.fetch()


def _starts(sizes: Any) -> list[int]:
    """Return where each of several pieces begins that follow one another."""
    ends = np.cumsum([0, *sizes]).tolist()
    return ends[:-1]


def _joined(vectors: Sequence[Any], name: str) -> tuple[Any, list[int]]:
    """Return one device vector of several, and where each begins; a single one is not copied."""
    starts = _starts(vector.size for vector in vectors)
    if len(vectors) == 1:
        return vectors[0], starts
    whole = driver.allocate(sum(vector.size for vector in vectors), vectors[0].dtype, f"{name} of many networks")
    for vector, start in zip(vectors, starts, strict=True):
        whole[start : start + vector.size].copy_to_device(vector)
    return whole, starts
