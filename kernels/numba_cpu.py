"""The Numba engine: the same contract, compiled on the user's machine for its processor; no C compiler is needed.

Where it sits: a backend like any other, ``fastmlp.backends.get("numba")``.  Here are the functions of the contract,
which check arguments and fill tables with sizes and addresses; the work is done in machine code that Numba makes out of
numba_network.py and the formulas, once per dtype, and keeps on disk (numba_cache.py).  Numba itself is imported when
the first of these functions is called.
"""

from __future__ import annotations

import ctypes
import operator
import os
import sys
import threading
import weakref
from functools import cache
from importlib.util import find_spec
from itertools import accumulate, pairwise
from queue import SimpleQueue
from typing import ClassVar

import numpy as np
from scipy import sparse

from fastmlp.kernels import formulas
from fastmlp.kernels.arguments import (
    BUSY,
    batch_size_of,
    busy,
    check_array,
    check_csr,
    check_indices,
    check_states,
    check_weights,
    entry_of,
    float_dtype,
    no_overlap,
    row_of,
    seed_of,
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


def _told_not_to_compile():
    """Whether NUMBA_DISABLE_JIT is set, as Numba reads it, without importing Numba."""
    try:
        return int(os.environ.get("NUMBA_DISABLE_JIT") or 0) != 0
    except ValueError:  # Numba warns and goes on
        return False


if find_spec("numba") is None:
    raise ImportError("No module named 'numba'", name="numba")
if _told_not_to_compile():  # as Python the code would mean nothing: it works on addresses and in LLVM's language
    raise ImportError("NUMBA_DISABLE_JIT is set, and this engine is what Numba compiles")

CHUNK_ROWS = 256  # rows that are worked on together: all layers of a chunk stay in L2 ...
CHUNK_ROWS_LARGE = 1024  # ... but where weights do not, more rows per pass over them pay
LARGE_WEIGHT_BYTES = 1024 * 1024
ALIASED_BYTES = 1024  # rows so many bytes apart share few sets of the caches
BLAS_BYTES = 1 << 62  # products with a larger right-hand matrix go to the BLAS
CLASS_ROWS = 64
WORK_PER_CALL = 5e9  # floating-point operations between two looks for Ctrl-C, a fraction of a second
THREADS_MIN_STEP = 4e6  # floating-point operations of a step from which more threads than one pay ...
THREADS_MIN_CALL = 1e8  # ... if the call as a whole has so many: to wake its helpers takes some 80 us
SUMS_COST = 3  # sums over the rows for a layer's bias take about as long as the gradient of so many rows of its W


def _code(dtype):
    """The compiled code for a dtype; see numba_cache.Code."""
    from fastmlp.kernels import numba_cache

    return numba_cache.code(np.dtype(dtype) == np.float64)


def _address(array):
    return 0 if array is None else array.__array_interface__["data"][0]


def _aligned(n, dtype):
    """Zeros that begin with a cache line."""
    dtype = np.dtype(dtype)
    memory = np.zeros(n * dtype.itemsize + 64, np.uint8)
    start = -memory.__array_interface__["data"][0] % 64
    return memory[start : start + n * dtype.itemsize].view(dtype)


def _row_length(width, dtype, lanes):
    """Numbers per row of a matrix padded to whole vectors."""
    ld = -(-width // lanes) * lanes
    return ld + lanes if ld * dtype.itemsize % ALIASED_BYTES == 0 else ld


# --- choices -> addresses of compiled functions -----------------------------------------------------------------------


def _is_formula(entry):
    return hasattr(entry, "program_source")


def _parameters(argument, table, entry):
    """(name, its values of the row's parameters): float64, never empty."""
    row, given = entry_of(argument, table, entry)
    for name in given:
        if name not in row.parameters:
            raise ValueError(f"{argument} must have no parameters but {list(row.parameters)}, got {name!r}")
    name = entry[0] if isinstance(entry, tuple) else entry
    return name, np.array([*(row.parameters | given).values(), 0.0])


class _Activation:
    """An activation as the compiled code sees it: addresses of its functions, 0 for those that it has not."""

    def __init__(self, code, entry, *, hidden=True, argument="activation"):
        self.value = self.forward = self.backward = 0
        self.learned = False
        if _is_formula(entry):
            if "slope" not in entry.kinds:
                raise ValueError(f"{argument} must be an activation, got {entry!r}")
            self.needs_z, self.parameters, find = entry.needs_z, np.zeros(1), code.own(entry)
        else:
            name, self.parameters = _parameters(argument, formulas.ACTIVATIONS, entry)
            row = formulas.ACTIVATIONS[name]
            if hidden and row.slope is None:
                raise ValueError(f"{argument} {name!r} has no slope: it is an output link")
            self.learned = bool(row.learned)
            self.needs_z = row.slope is not None and code.slope_reads_z(name)
            if name == "identity":
                return
            find = code.named(name)
        self.find = find

    def resolve(self, *kinds):
        """Compile what is needed of it."""
        for kind in kinds:
            if hasattr(self, "find"):
                setattr(self, kind, self.find(kind))
        return self


class _Loss:
    """A loss as the compiled code sees it."""

    BY_ROWS: ClassVar[dict[str, int]] = {"log_loss": 1, "focal": 2, "kl_divergence": 3}

    def __init__(self, code, entry, argument="network.loss"):
        self.by_class, self.parameters = False, np.zeros(1)
        if _is_formula(entry):
            if "delta" not in entry.kinds:
                raise ValueError(f"{argument} must be a loss, got {entry!r}")
            self.link, self.find = entry.link, lambda: code.own(entry)("loss")
        else:
            name, self.parameters = _parameters(argument, formulas.LOSSES, entry)
            row = formulas.LOSSES[name]
            self.link, self.by_class = row.link, row.class_targets
            kind = self.BY_ROWS.get(name, 0)
            if row.value is None and not kind:
                raise ValueError(f"{argument}: the row operation {name!r} is not written for this engine")
            self.find = (lambda: kind) if kind else (lambda: code.named(name)("loss"))


# --- teams ------------------------------------------------------------------------------------------------------------


@cache
def _give_way():
    """The address of the system's function that lets other threads run; 0 where there is none that we know."""
    try:
        if sys.platform == "win32":
            function = ctypes.windll.kernel32.SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    except (AttributeError, OSError):
        return 0


def _help(cells, abort, jobs):
    """What a helper does all its life: one member's part of each call."""
    while (job := jobs.get()) is not None:
        try:
            job[0](*job[1])
        except BaseException:  # before the compiled code began, whose members all wait for each other first
            cells[abort] = 1


class _Team:
    """Helpers that enter compiled code together with the caller, who is member 0.

    A team belongs to one workspace and to one process: after fork the child has none of its threads and starts a team
    of its own.  Members meet in compiled code, where they wait for each other without the GIL; who could not come,
    because of Ctrl-C for one, sets ABORT, upon which the others leave.  An aborted team is not used again.
    """

    def __init__(self, names, n):
        self.process, self.abort, self.gave_up = os.getpid(), names["ABORT"], names["GAVE_UP"]
        self.cells, self.jobs = _aligned(names["TEAM_CELLS"], np.int64), []
        self.cells[names["MEMBERS"]], self.cells[names["GIVE_WAY"]] = n, _give_way()
        self.address = _address(self.cells)
        try:
            for member in range(1, n):
                jobs: SimpleQueue = SimpleQueue()
                self.jobs.append(jobs)
                threading.Thread(
                    target=_help, args=(self.cells, self.abort, jobs), name=f"fastmlp-{member}", daemon=True
                ).start()
        except BaseException:
            self.end()
            raise

    def works(self):
        return self.process == os.getpid() and not self.cells[self.abort]

    def run(self, train, tables, numbers):
        """train by all members; -> what member 0 returns, None where a helper failed and nothing was done."""
        try:
            for member, jobs in enumerate(self.jobs, 1):
                jobs.put((train, (*tables, self.address, member, *numbers)))
            total = train(*tables, self.address, 0, *numbers)
        except BaseException:
            self.end()
            raise
        if self.cells[self.gave_up]:
            self.end()
            return None
        return total

    def end(self):
        self.cells[self.abort] = 1
        for jobs in self.jobs:
            jobs.put(None)


# --- the workspace ----------------------------------------------------------------------------------------------------


class Workspace:
    """Buffers for a network, and the tables that the compiled code reads; it serves one call at a time.

    Attributes
    ----------
    net : ndarray of int64
        See the names of its entries in numba_network.py.
    layers : ndarray of int64 (n_layers, columns)
    n_threads : int
        Most threads that train together.
    """

    def __init__(self, network, batch_size, n_jobs=None):
        self.network, self.batch_size = network, batch_size_of(batch_size)
        if self.batch_size > sys.maxsize:
            raise OverflowError(f"batch_size must be a number of rows, got {batch_size}")
        dtype = self.dtype = np.dtype(network.dtype)
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"network.dtype must be float32 or float64, got {network.dtype}")
        if len(network.widths) < 2 or any(width < 1 for width in network.widths):
            raise ValueError(f"network.widths must be two or more layer sizes, got {network.widths}")
        if len(network.activations) != len(network.widths) - 2:
            raise ValueError(f"network.activations must hold one name for each hidden layer, got {network}")
        self.code = _code(dtype)
        self.loss = _Loss(self.code, network.loss)
        self.activations = [_Activation(self.code, entry) for entry in network.activations]
        self.lock = threading.Lock()
        self.buffers: list[np.ndarray] = []
        self.n_outputs = network.widths[-1]
        self.has_dropout = False
        self.least_work = THREADS_MIN_CALL if n_jobs is None else 0.0
        self.team: _Team | None = None
        self._lay_out(n_jobs)
        self.trains = self.predicts = False
        self.rules: dict[str, int] = {}
        self.room_for_states = 0
        self.epoch: _Epoch | None = None

    def buffer(self, n, dtype=None):
        """The address of n zeros that live as long as the workspace."""
        self.buffers.append(_aligned(n, dtype or self.dtype))
        return _address(self.buffers[-1])

    def keep(self, array):
        self.buffers.append(array)
        return _address(array)

    def _lay_out(self, n_jobs):
        """Sizes and places of everything in the padded vector, and the buffers that every call needs."""
        c, network, item = self.code.names, self.network, self.dtype.itemsize
        lanes, widths, n_layers = c["LANES"], network.widths, len(network.widths) - 1
        ld = [_row_length(width, self.dtype, lanes) for width in widths]
        # each segment of the flat vector, its place in the padded one, and the length of its padded rows
        ends = [*accumulate((s.rows * ld[s.layer + 1] for s in network.segments), initial=0)]
        self.n_padded, self.n_params = ends[-1], network.n_params
        self.n_weights = sum(s.rows * ld[s.layer + 1] for s in network.segments if s.name == "W")
        n_trained = sum(s.rows * ld[s.layer + 1] for s in network.segments if s.trained)
        segments = [
            (s.start, padded, s.rows, s.width, ld[s.layer + 1])
            for s, padded in zip(network.segments, ends, strict=False)
        ]

        largest = max(widths[k] * ld[k + 1] for k in range(n_layers)) * item
        rows = min(self.batch_size, CHUNK_ROWS if largest <= LARGE_WEIGHT_BYTES else CHUNK_ROWS_LARGE)
        rows = self.max_rows = self.batch_size if network.batch_norm else rows
        self.n_threads = self._choose_threads(n_jobs)
        # one member's rows; who works alone although there could be a team has the whole of the scratch buffer
        own = -(-rows // (c["TILE_ROWS"] * self.n_threads)) * c["TILE_ROWS"]
        scratch = -(-max(own, CLASS_ROWS) * (3 * self.n_outputs + ld[-1] + 2) * item // 64) * 64
        n_parts = -(-n_trained // c["PART"])
        net = self.net = np.zeros(c["NET_ENTRIES"], np.int64)
        layers = self.layers = np.zeros((n_layers, c["LAYER_COLUMNS"]), np.int64)
        params = self.buffer(self.n_padded)
        values = {
            "N_LAYERS": n_layers, "MAX_ROWS": rows, "PARAMS": params, "N_WEIGHTS": self.n_weights,
            "N_TRAINED": n_trained, "SEGMENTS": self.keep(np.array(segments, np.int64)), "N_SEGMENTS": len(segments),
            "INPUT": self.buffer(rows * ld[0]), "ZEROS": self.buffer(max(ld)), "BATCH_NORM": int(network.batch_norm),
            "SCRATCH": self.buffer(self.n_threads * scratch // item), "SCRATCH_BYTES": scratch,
            "PARTS": self.buffer(3 * n_parts, np.float64), "N_PARTS": n_parts, "BLAS_BYTES": BLAS_BYTES,
        }  # fmt: skip
        for name, value in values.items():
            net[c[name]] = value
        self._dropout(net, "IN_THRESHOLD", "IN_RATE", network.input_dropout)
        for k, row in enumerate(layers):
            row[[c["FAN_IN"], c["FAN_OUT"], c["LD_IN"], c["LD_OUT"]]] = widths[k], widths[k + 1], ld[k], ld[k + 1]
            row[c["A"]] = row[c["OUT"]] = row[c["Z"]] = self.buffer(rows * ld[k + 1])
            if k + 1 < n_layers:
                row[c["PARAMETERS"]] = self.keep(self.activations[k].parameters)
                self._dropout(row, "THRESHOLD", "RATE", network.dropout[k] if network.dropout else 0.0)
        for segment, padded in zip(network.segments, ends, strict=False):
            layers[segment.layer, c[segment.name.upper()]] = params + padded * item
        step = 6.0 * self.n_weights + 300.0 * sum(ld)
        self.work_of = lambda rows: step * rows + 50.0 * self.n_padded

    def _choose_threads(self, n_jobs):
        """n_jobs if given; else as many as are allowed, if a step has the work for them."""
        if BLAS_BYTES < 1 << 62 or (n_jobs is None and 6.0 * self.n_padded * self.batch_size < THREADS_MIN_STEP):
            return 1  # the BLAS brings its own threads
        from fastmlp.threads import allowed

        return max(1, min(allowed(n_jobs), -(-self.max_rows // self.code.names["TILE_ROWS"])))

    def _shares(self, members):
        """The members' shares of the parameters, see LAYER_SHARES in numba_network.py: of equal work, cut at rows."""
        tile, widths, layers = self.code.names["TILE_ROWS"], self.network.widths, range(len(self.layers))
        ld = [_row_length(width, self.dtype, self.code.names["LANES"]) for width in widths[1:]]
        weights = [*accumulate((widths[k] * ld[k] for k in layers), initial=0)]
        biases = [*accumulate(ld, initial=self.n_weights)]
        trained = [sum(s.of_units and s.trained and s.layer == k for s in self.network.segments) for k in layers]
        units = [*accumulate((ld[k] * n for k, n in enumerate(trained)), initial=biases[-1])]

        cuts, whole = [], weights[-1] + SUMS_COST * sum(ld)
        for member in range(members + 1):
            left, where = whole * member / members, (weights[-1], len(ld))
            for k in layers:
                if left < widths[k] * ld[k]:
                    where = weights[k] + min(round(left / ld[k] / tile) * tile, widths[k]) * ld[k], k
                    break
                left -= widths[k] * ld[k]
                if left < SUMS_COST * ld[k]:
                    where = weights[k + 1], k + (left > SUMS_COST * ld[k] / 2)
                    break
                left -= SUMS_COST * ld[k]
            cuts.append(where)
        cuts[-1] = weights[-1], len(ld)  # however the sum was rounded

        shares = []
        for (w0, k0), (w1, k1) in pairwise(cuts):
            share = [w0, w1, biases[k0], biases[k1], units[k0], units[k1]]
            for k in layers:
                rows = [(min(max(w, weights[k]), weights[k + 1]) - weights[k]) // ld[k] for w in (w0, w1)]
                share += [*rows, k0 <= k < k1]
            shares.append(share)
        return shares

    def run(self, tables, numbers, work):
        """The compiled train, by a team where there may be one; `work`: floating-point operations of the call."""
        train = self.code.network.train
        # the first call of all compiles, which is no time to wait for others
        if self.n_threads > 1 and work >= self.least_work and train.signatures:
            total = self._run_together(train, tables, numbers)
            if total is not None:
                return total
        return train(*tables, 0, 0, *numbers)

    def _run_together(self, train, tables, numbers):
        team = self.team
        if team is None or not team.works():
            try:
                team = self.team = _Team(self.code.names, self.n_threads)
            except RuntimeError:  # no more threads to be had: one does it all, with the same result
                return None
            weakref.finalize(self, team.end)
        return team.run(train, tables, numbers)

    def _dropout(self, row, threshold, rate, value):
        row[self.code.names[threshold]] = round(value * 2**24)
        row[self.code.names[rate]] = self.keep(np.array([value]))
        self.has_dropout |= bool(row[self.code.names[threshold]])

    def prepare_prediction(self):
        if self.predicts:
            return
        c = self.code.names
        for row, activation in zip(self.layers, self.activations, strict=False):
            row[c["VALUE"]] = activation.resolve("value").value
        link = self.loss.link
        if link == "softmax":
            self.net[c["LINK"]] = 1
        else:
            self.net[c["LINK"]] = _Activation(self.code, link, hidden=False).resolve("value").value
        self.predicts = True

    def prepare_training(self, rule=None):
        """Get what only training needs: gradient, deltas, transposed weights, targets, states, functions."""
        c, net, rows = self.code.names, self.net, self.max_rows
        if not self.trains:
            shares = self._shares(1) + (self._shares(self.n_threads) if self.n_threads > 1 else [])
            net[c["SHARES"]], net[c["SHARE_ENTRIES"]] = self.keep(np.array(shares, np.int64)), len(shares[0])
            net[c["GRAD"]] = self.buffer(self.n_padded)
            net[c["TARGETS"]] = self.buffer(rows * self.n_outputs)
            net[c["CLASSES"]] = self.buffer(rows, np.int64)
            net[c["WEIGHT"]] = self.buffer(rows)
            net[c["ROW_LOSS"]] = self.buffer(rows, np.float64)
            net[c["LOSS"]] = self.loss.find()
            net[c["LOSS_PARAMETERS"]] = self.keep(self.loss.parameters)
            for k, row in enumerate(self.layers):
                size = rows * int(row[c["LD_OUT"]])
                row[c["DELTA"]] = self.buffer(size)
                if k:
                    row[c["WT"]] = self.buffer(int(row[c["FAN_OUT"]] * row[c["LD_IN"]]))
                if k + 1 < len(self.layers):
                    self._prepare_stage(row, self.activations[k], size)
            self.trains = True
        if rule is None:
            return 0
        n_states = len(formulas.OPTIMIZERS[rule].states)
        if rule not in self.rules:
            self.rules[rule] = self.code.named(rule)("rule")
        if net[c["STATES"]] == 0 or n_states > self.room_for_states:
            self.room_for_states = max(n_states, 1)
            net[c["STATES"]] = self.buffer(self.room_for_states * self.n_padded)
            net[c["STATE_BYTES"]] = self.n_padded * self.dtype.itemsize
        net[c["N_STATES"]] = n_states
        return self.rules[rule]

    def _prepare_stage(self, row, activation, size):
        """What lies between a hidden layer's product and the next layer, on the way back too."""
        c = self.code.names
        if activation.needs_z or activation.learned:
            row[c["Z"]] = self.buffer(size)
        if self.network.batch_norm:
            row[c["ZHAT"]], row[c["MOMENTS"]] = self.buffer(size), self.buffer(2 * int(row[c["LD_OUT"]]))
        if row[c["THRESHOLD"]]:
            row[c["OUT"]] = self.buffer(size)
        if activation.learned:
            row[c["PRODUCT"]] = self.buffer(size)
            return
        kinds = ("forward",) if activation.needs_z else ("value", "backward")
        activation.resolve(*kinds)
        for kind in kinds:
            row[c[kind.upper()]] = getattr(activation, kind)

    def addresses(self, call):
        """What the compiled code takes; who calls it keeps the table of the call."""
        return _address(self.net), _address(self.layers), _address(call)

    def call_table(self, X, rows=None, **entries):
        """(the table of a call, what must live as long as it)."""
        c = self.code.names
        call, alive = np.zeros(c["CALL_ENTRIES"], np.int64), [rows]
        if sparse.issparse(X):
            long = X.indptr.dtype == np.int64 or X.indices.dtype == np.int64
            index = np.int64 if long else np.int32
            data = np.ascontiguousarray(X.data)
            alive += [data, np.ascontiguousarray(X.indptr, index), np.ascontiguousarray(X.indices, index)]
            call[c["INDPTR"]], call[c["INDICES"]], call[c["INDEX_IS_64"]] = _address(alive[2]), _address(alive[3]), long
        else:
            data = X
            alive.append(X)
            call[c["ROW_BYTES"]], call[c["COLUMN_BYTES"]] = X.strides
        entries |= {"X": _address(data), "X_IS_DOUBLE": data.dtype == np.float64, "ROWS": _address(rows)}
        for name, value in entries.items():
            call[c[name]] = value
        return call, alive


# --- argument checks --------------------------------------------------------------------------------------------------


def _workspace(workspace):
    if not isinstance(workspace, Workspace):
        raise ValueError(f"workspace must come from workspace(), got {type(workspace).__name__}")
    return workspace


def _samples(X, ws):
    """Check X, dense or CSR; nothing is copied."""
    if sparse.issparse(X):
        check_csr(X)
    else:
        check_array("X", X, float_dtype("X", X), (None, None), strided=True)
    if X.shape[1] != ws.network.widths[0]:
        raise ValueError(f"X must have {ws.network.widths[0]} columns, got {X.shape[1]}")


def _in_range(code, name, indices, n):
    """Row or class numbers below n."""
    check_array(name, indices, np.dtype(np.intp), (None,))
    if code.run("out_of_range", _address(indices), len(indices), n):
        check_indices(name, indices, n)


def _targets(code, y, by_class, shape, dtype):
    if not by_class:
        check_array("y", y, dtype, shape)
        return
    check_array("y", y, np.dtype(np.intp), shape[:1])
    _in_range(code, "y", y, shape[1])


def _data(data, ws):
    _samples(data.X, ws)
    n = data.X.shape[0]
    if n == 0:
        raise ValueError("X must have at least one row")
    _targets(ws.code, data.y, ws.loss.by_class, (n, ws.n_outputs), ws.dtype)
    check_weights(data.sample_weight, n, ws.dtype)
    return data.X, data.y, data.sample_weight


# --- the coarse calls -------------------------------------------------------------------------------------------------


def workspace(network, batch_size, n_jobs=None):
    """Allocate the buffers that training and prediction of a network need.

    Parameters
    ----------
    network : fastmlp.network.Network
    batch_size : int
        Rows that one training step reads.
    n_jobs : int, default=None
        Threads that train together; None: as many as are allowed, where a step is large enough.  Prediction takes one.

    Returns
    -------
    Workspace
    """
    return Workspace(network, batch_size, n_jobs)


def predict(workspace, params, X, out, rows=None):
    """out = link(logits) for all rows of X, or for ``X[rows]``; whether these rows were finite.

    See :func:`fastmlp.kernels.reference.predict` for the arguments.
    """
    ws = _workspace(workspace)
    if ws.network.batch_norm:
        raise ValueError("network must not have batch_norm in predict: fold it into the weights with network.folded()")
    check_array("params", params, ws.dtype, (ws.n_params,))
    _samples(X, ws)
    if rows is not None:
        _in_range(ws.code, "rows", rows, X.shape[0])
    n = X.shape[0] if rows is None else len(rows)
    check_array("out", out, ws.dtype, (n, ws.n_outputs), out=True)
    finite, block = True, max(1, int(3 * WORK_PER_CALL / ws.work_of(1)))
    with busy(ws):
        ws.prepare_prediction()
        call, alive = ws.call_table(X, rows, FLAT=_address(params), OUTPUT=_address(out), PACK=1)
        c = ws.code.names
        for first in range(0, n, block):
            call[c["FIRST"]], call[c["LAST"]] = first, min(n, first + block)
            finite &= bool(ws.code.run("predict", *ws.addresses(call)))
            call[c["PACK"]] = 0
    del alive
    return finite


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


def loss_and_grad(workspace, params, data, alpha, grad, l1=0.0):
    """Penalised mean loss over the whole data and its gradient.

    See :func:`fastmlp.kernels.reference.loss_and_grad` for the arguments and what is raised.
    """
    ws = _workspace(workspace)
    if ws.network.batch_norm or ws.has_dropout:
        raise ValueError("network must have neither dropout nor batch_norm in loss_and_grad: train it with train_epoch")
    check_array("params", params, ws.dtype, (ws.n_params,))
    X, y, w = _data(data, ws)
    check_array("grad", grad, ws.dtype, params.shape, out=True)
    if np.may_share_memory(params, grad):
        raise ValueError("grad must not share memory with params")
    n = X.shape[0]
    with busy(ws):
        ws.prepare_training()
        ws.net[ws.code.names["N_STATES"]], ws.epoch = 0, None
        call, alive = ws.call_table(
            X, FLAT=_address(params), OUTPUT=_address(grad), Y=_address(y), SAMPLE_WEIGHT=_address(w), N_ROWS=n,
            BATCH_SIZE=n, LAST=1, PACK=1, UNPACK=1, TRAINING=1,
        )  # fmt: skip
        total = ws.run(ws.addresses(call), (float(alpha), float(l1), 0.0), ws.work_of(n))
        done = call[ws.code.names["DONE"]]
    del alive
    if done < 1:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return total / n


def train_epoch(workspace, params, data, order, batch_size, alpha, optimizer, l1=0.0, seed=0):
    """One pass of mini-batch steps over the rows in `order`; params and optimizer.states are updated in place.

    See :func:`fastmlp.kernels.reference.train_epoch` for the arguments and what is raised.  Ctrl-C is seen between
    calls of a bounded amount of work; the steps done are kept.
    """
    ws = _workspace(workspace)
    if not ws.lock.acquire(blocking=False):
        raise RuntimeError(BUSY)
    try:
        epoch = ws.epoch
        if epoch is None or not epoch.fits(params, data, order, batch_size, optimizer):
            epoch = ws.epoch = _Epoch(ws, params, data, order, batch_size, optimizer)
        return epoch.run(optimizer, float(alpha), float(l1), seed_of(seed)) / len(order)
    finally:
        ws.lock.release()


class _Epoch:
    """The arguments of train_epoch, checked, and its table: most epochs have the same arrays as the one before.

    The arrays are referred to, so that none can be moved in memory (ndarray.resize refuses) or replaced by another at
    the same place.  What an epoch costs beside its steps is here: a few microseconds, which small networks notice.
    """

    def __init__(self, ws, params, data, order, batch_size, optimizer):
        check_array("params", params, ws.dtype, (ws.n_params,), out=True)
        _data(data, ws)
        check_array("order", order, np.dtype(np.intp), (None,))
        size, n = batch_size_of(batch_size), len(order)
        if n == 0:
            raise ValueError("order must hold at least one row")
        if ws.network.batch_norm and min(size, n) > ws.max_rows:
            raise ValueError(f"batch_size must be at most the workspace's {ws.max_rows}, got {batch_size}")
        self.rule = optimizer.rule
        row = row_of("optimizer.rule", formulas.OPTIMIZERS, self.rule)
        check_states(row, optimizer.states, params=params)
        self.arrays = params, *data, order, *optimizer.states
        self.given, self.size, self.sparse = batch_size, min(size, n), sparse.issparse(data.X)
        self.steps = -(-n // self.size)
        self.work = ws.work_of(self.size)
        self.block = max(1, int(WORK_PER_CALL / self.work))
        self.scalars, self.decays = np.empty((self.steps, len(row.scalars))), np.empty(self.steps)
        self.addresses = np.array([*map(_address, optimizer.states), 0], np.int64)
        call, self.alive = ws.call_table(
            data.X, order, FLAT=_address(params), FLAT_STATES=_address(self.addresses), Y=_address(data.y),
            SAMPLE_WEIGHT=_address(data.sample_weight), N_ROWS=n, BATCH_SIZE=self.size, TRAINING=1,
            RULE=ws.prepare_training(self.rule), SCALARS=_address(self.scalars), N_SCALARS=len(row.scalars),
            X_ROWS=data.X.shape[0], N_CLASSES=ws.n_outputs if ws.loss.by_class else 0,
        )  # fmt: skip
        names = ("DONE", "UNPACKED", "FIRST", "LAST", "PACK", "UNPACK", "SEED", "T", "DECAYS")
        self.places = [ws.code.names[name] for name in names]
        # the call's table as a memoryview: its numbers are set in a third of the time
        self.ws, self.entries, self.train = ws, memoryview(call), ws.code.network.train
        self.tables = ws.addresses(call)

    def fits(self, params, data, order, batch_size, optimizer):
        """Whether these are the arguments."""
        given = params, *data, order, *optimizer.states
        return (
            len(given) == len(self.arrays)
            and all(map(operator.is_, given, self.arrays))
            and batch_size is self.given
            and optimizer.rule == self.rule
            and not self.sparse
        )

    def schedule(self, optimizer):
        """Take scalars and decays of the coming steps; -> (address of the decays or 0, largest norm or 0 for none)."""
        steps = self.steps
        _copy(self.scalars, optimizer.scalars(steps), "optimizer.scalars")
        decays = optimizer.decays(steps) if hasattr(optimizer, "decays") else None
        if decays is not None:
            _copy(self.decays, decays, "optimizer.decays")
        max_norm = getattr(optimizer, "max_grad_norm", None)
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"optimizer.max_grad_norm must be above 0 or None, got {max_norm}")
        return 0 if decays is None else _address(self.decays), 0.0 if max_norm is None else float(max_norm)

    def run(self, optimizer, alpha, l1, seed):
        """All steps, in calls short enough for Ctrl-C; -> sum of losses times rows."""
        entries, first, total, together = self.entries, 0, 0.0, self.ws.n_threads > 1
        DONE, UNPACKED, FIRST, LAST, PACK, UNPACK, SEED, T, DECAYS = self.places
        entries[DECAYS], max_norm = self.schedule(optimizer)
        entries[SEED], entries[T] = seed - 2**64 * (seed >= 2**63), optimizer.t
        entries[DONE] = entries[UNPACKED] = 0
        try:
            while first < self.steps:
                last = min(self.steps, first + self.block)
                entries[FIRST], entries[LAST] = first, last
                entries[PACK], entries[UNPACK] = first == 0, last == self.steps
                if together:
                    total += self.ws.run(self.tables, (alpha, l1, max_norm), (last - first) * self.work)
                else:
                    total += self.train(*self.tables, 0, 0, alpha, l1, max_norm)
                if entries[DONE] < last:
                    break
                first = last
        finally:
            done = entries[DONE]
            if done > 0:
                optimizer.t += done
                if not entries[UNPACKED]:  # interrupted: keep what was done
                    entries[FIRST] = entries[LAST] = done
                    entries[PACK], entries[UNPACK] = 0, 1
                    self.train(*self.tables, 0, 0, alpha, l1, max_norm)
        if done < 0:
            self.say_what_points_outside()
        if done < self.steps:
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")
        return total

    def say_what_points_outside(self):
        _, X, y, _, order, *_ = self.arrays
        check_indices("order", order, X.shape[0])
        check_indices("y", y, self.ws.n_outputs)


def _copy(to, source, name):
    """to[...] = source, which must be alike."""
    plain = type(source) is np.ndarray and source.shape == to.shape and source.dtype == to.dtype
    if not (plain and source.flags.c_contiguous):
        check_array(name, source, to.dtype, to.shape)
    to[...] = source


# --- kernels by name: for cross-checks, benches and teaching; whole networks do not pass through here ----------------


def activate(activation, z, out):
    """out = f(z), elementwise; out may be z."""
    dtype = float_dtype("z", z)
    f = _Activation(_code(dtype), activation, hidden=False)
    check_array("z", z, dtype)
    check_array("out", out, dtype, z.shape, out=True)
    f.resolve("value")
    if out is not z:
        out[...] = z
    if f.value:
        _code(dtype).run("apply_value", f.value, out.size, _address(out), _address(f.parameters))


def slope(activation, z, a, out):
    """out = da/dz, elementwise, for a = f(z); z may be None where the slope is a function of a alone."""
    dtype = float_dtype("a", a)
    f = _Activation(_code(dtype), activation)
    if z is None and f.needs_z:
        raise ValueError(f"z must be given: the slope of activation {activation!r} needs it")
    check_array("a", a, dtype)
    if z is not None:
        check_array("z", z, dtype, a.shape)
    check_array("out", out, dtype, a.shape, out=True)
    no_overlap(out, z=z, a=a)
    _apply_slope(f, a if z is None else z, a, out, fill=True)


def _apply_slope(f, z, a, out, fill=False):
    """out *= f'(z)"""
    f.resolve("backward")
    if fill:
        out[...] = 1
    if f.backward:
        arrays = map(_address, (z, a, out, f.parameters))
        _code(a.dtype).run("apply_backward", f.backward, out.size, *arrays)


def _padded(array, lanes):
    """An aligned copy (rows, ld) of a matrix, widened with zeros."""
    rows, width = array.shape
    ld = _row_length(width, array.dtype, lanes)
    wide = _aligned(rows * ld, array.dtype).reshape(rows, ld)
    wide[:, :width] = array
    return wide


def _product(A, B, init=None):
    """init + A B for any strides of A; -> (n, ld), padded."""
    code = _code(A.dtype)
    wide = _padded(B, code.names["LANES"])
    ld = wide.shape[1]
    start = _aligned(ld, A.dtype)
    if init is not None:
        start[: len(init)] = init
    out = _aligned(len(A) * ld, A.dtype).reshape(len(A), ld)
    rs, cs = (stride // A.itemsize for stride in A.strides)
    code.run(
        "product", len(A), ld, A.shape[1], _address(A), rs, cs, _address(wide), ld, _address(out), _address(start), 0
    )
    return out[:, : B.shape[1]]


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
    f = _Activation(_code(dtype), activation, hidden=False)
    check_array("X", X, dtype, (None, None))
    check_array("W", W, dtype, (X.shape[1], None))
    check_array("b", b, dtype, W.shape[1:])
    check_array("out", out, dtype, (X.shape[0], W.shape[1]), out=True)
    if z is not None:
        check_array("z", z, dtype, out.shape, out=True)
    product = _product(X, W, b)
    if z is not None:
        z[...] = product
    out[...] = product
    activate(activation, out, out)
    del f


def linear_backward(X, W, delta, activation, grad_W, grad_b, delta_below=None, z=None):
    """Gradients of one linear layer, and the delta of the layer below.

    grad_W = X^T delta;  grad_b = column sums of delta;  delta_below = (delta W^T) * f'(z, X).
    See :func:`fastmlp.kernels.reference.linear_backward` for the arguments.
    """
    dtype = float_dtype("X", X)
    f = _Activation(_code(dtype), activation)
    check_array("X", X, dtype, (None, None))
    check_array("W", W, dtype, (X.shape[1], None))
    check_array("delta", delta, dtype, (X.shape[0], W.shape[1]))
    check_array("grad_W", grad_W, dtype, W.shape, out=True)
    check_array("grad_b", grad_b, dtype, W.shape[1:], out=True)
    if z is not None:
        check_array("z", z, dtype, X.shape)
    if delta_below is not None:
        check_array("delta_below", delta_below, dtype, X.shape, out=True)
        if z is None and f.needs_z:
            raise ValueError(f"z must be given: the slope of activation {activation!r} needs it")
    below = None if delta_below is None else _product(delta, W.T)
    gradient, ones = _product(X.T, delta), np.ones((1, len(X)), dtype)
    sums = _product(ones, delta)[0]
    if delta_below is not None:
        delta_below[...] = below
        _apply_slope(f, X if z is None else z, X, delta_below)
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
    z = _padded(logits, _code(dtype).names["LANES"])
    ld = z.shape[1]
    scratch = _aligned(CLASS_ROWS * (ld + 2), dtype)
    _code(dtype).run("softmax", n, width, ld, _address(z), _address(out), _address(scratch))


def loss(name, logits, y, sample_weight, delta):
    """Mean loss over the rows, and delta = d loss / d logits * sample_weight.

    See :func:`fastmlp.kernels.reference.loss` for the arguments and what is raised.
    """
    dtype = float_dtype("logits", logits)
    f = _Loss(_code(dtype), name, "name")
    check_array("logits", logits, dtype, (None, None))
    if logits.size == 0:
        raise ValueError("logits must have at least one row and one column")
    n, width = logits.shape
    _targets(_code(dtype), y, f.by_class, logits.shape, dtype)
    check_weights(sample_weight, n, dtype)
    check_array("delta", delta, dtype, logits.shape, out=True)
    no_overlap(delta, logits=logits)
    total = float(n) if sample_weight is None else float(np.sum(sample_weight, dtype=np.float64))
    if total == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    z = _padded(logits, _code(dtype).names["LANES"])
    ld, wide = z.shape[1], _aligned(z.size, dtype).reshape(z.shape)
    row_loss, scratch = np.empty(n), _aligned(max(n, CLASS_ROWS) * (3 * width + ld + 2), dtype)
    targets = (0, _address(y)) if f.by_class else (_address(y), 0)
    others = map(_address, (sample_weight, wide, row_loss, scratch, f.parameters))
    _code(dtype).run("loss", f.find(), n, width, ld, _address(z), *targets, *others)
    delta[...] = wide[:, :width]
    return float(row_loss.sum() / total)


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
    values = np.array([float(scalar) for scalar in scalars] + [0.0])
    if len(values) - 1 != len(row.scalars):
        raise ValueError(f"scalars must be {row.scalars}, got {len(scalars)} numbers")
    # one block for all states, as the compiled rule wants them
    n, block = len(params), np.array([*states]) if states else np.empty((1, len(params)), dtype)
    code = _code(dtype)
    code.run(
        "apply_rule", code.named(rule)("rule"), n, *map(_address, (params, grad, block)), n * params.itemsize,
        _address(values),
    )  # fmt: skip
    for state, new in zip(states, block, strict=False):
        state[...] = new


def sgd_update(params, grad, lr):
    """p -= lr * g, in place."""
    update("sgd", params, grad, [], [lr])


def momentum_update(params, grad, velocity, lr, momentum, nesterov=False):
    """v = momentum * v - lr * g;  p += v, or with Nesterov p += momentum * v - lr * g; in place."""
    update("nesterov" if nesterov else "momentum", params, grad, [velocity], [lr, momentum])


def adam_update(params, grad, m, v, lr, beta_1, beta_2, epsilon):
    """Adam (Kingma and Ba 2015), in place; lr already holds the bias correction of its step."""
    update("adam", params, grad, [m, v], [lr, beta_1, beta_2, epsilon])
