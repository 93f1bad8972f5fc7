"""Buffers of a network, and the tables that the compiled code reads."""

from __future__ import annotations

import sys
import threading
import weakref
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from fastmlp.kernels import formulas, layer_table
from fastmlp.kernels.arguments import batch_size_of, check_network
from fastmlp.kernels.contract import refuse
from fastmlp.kernels.numba_cpu.cache import code_of
from fastmlp.kernels.numba_cpu.entries import Activation, Loss
from fastmlp.kernels.numba_cpu.memory import address_of, aligned, row_length
from fastmlp.kernels.numba_cpu.team import Team

if TYPE_CHECKING:
    from fastmlp.kernels.numba_cpu.epoch import Epoch

CHUNK_ROWS = 256  # rows that are worked on together: all layers of a chunk stay in L2 ...
CHUNK_ROWS_LARGE = 1024  # ... but where weights do not, more rows per pass over them pay
LARGE_WEIGHT_BYTES = 1024 * 1024
THREADS_MIN_STEP = 4e6  # floating-point operations of a step from which more threads than one pay ...
THREADS_MIN_CALL = 1e8  # ... if the call as a whole has this many: to wake its workers takes some 80 us
SUMS_COST = 3  # sums over the rows for a layer's bias take about as long as the gradient of this many rows of its W


class Workspace:
    """Buffers for a network, and the tables that the compiled code reads; it serves one call at a time.

    Attributes
    ----------
    net : ndarray of int64
        See the names of its entries in template/tables.py.
    table, layers : ndarray
        The layers' rows, see kernels/layer_table.py; the same memory as int64 (n_layers, columns).
    n_threads : int
        Most threads that train together.
    """

    def __init__(self, network: Any, batch_size: int, n_jobs: int | None = None) -> None:
        self.network, self.batch_size = network, batch_size_of(batch_size)
        if self.batch_size > sys.maxsize:
            raise OverflowError(f"batch_size must be a number of rows, got {batch_size}")
        self.dtype = check_network(network)
        refuse("numba", network)
        self.code = code_of(self.dtype)
        self.loss = Loss(self.code, network.loss)
        self.activations = [Activation(self.code, entry) for entry in network.activations]
        self.lock = threading.Lock()
        self.buffers: list[np.ndarray] = []
        self.n_params, self.n_outputs = network.n_params, network.widths[-1]
        self.least_work = THREADS_MIN_CALL if n_jobs is None else 0.0
        self.team: Team | None = None
        self._lay_out(n_jobs)
        self.trains = self.predicts = False
        self.rules: dict[str, int] = {}
        self.room_for_states = 0
        self.epoch: Epoch | None = None

    def buffer(self, n: int, dtype: Any = None) -> int:
        """Return the address of n zeros that live as long as the workspace."""
        return self.keep(aligned(n, dtype or self.dtype))

    def keep(self, array: np.ndarray) -> int:
        """Return the address of an array that lives from now on as long as the workspace."""
        self.buffers.append(array)
        return address_of(array)

    # --- layout ---

    def _lay_out(self, n_jobs: int | None) -> None:
        """Place everything in the padded vector, choose chunks and threads, and fill the tables."""
        network, lanes = self.network, self.code.names["LANES"]
        self.ld = [row_length(width, self.dtype, lanes) for width in network.widths]
        lengths = [segment.rows * self.ld[segment.layer + 1] for segment in network.segments]
        self.places = [*accumulate(lengths, initial=0)]  # of the segments in the padded vector
        self.n_padded = self.places[-1]
        self.n_weights, self.n_trained = (
            sum(length for length, segment in zip(lengths, network.segments, strict=True) if counts(segment))
            for counts in (lambda segment: segment.name == "W", lambda segment: segment.trained)
        )
        largest = max(rows * ld for rows, ld in zip(network.widths, self.ld[1:], strict=False)) * self.dtype.itemsize
        chunk = CHUNK_ROWS if largest <= LARGE_WEIGHT_BYTES else CHUNK_ROWS_LARGE
        self.max_rows = self.batch_size if network.needs_whole_batch else min(self.batch_size, chunk)
        self.n_threads = self._choose_threads(n_jobs)
        params = self.buffer(self.n_padded)
        self._fill_net(params)
        self._fill_layers(params)

    def _fill_net(self, params: int) -> None:
        """Fill the network's table with what every call needs."""
        c, network, rows, item = self.code.names, self.network, self.max_rows, self.dtype.itemsize
        segments = [
            (segment.start, place, segment.rows, segment.width, self.ld[segment.layer + 1])
            for segment, place in zip(network.segments, self.places, strict=False)
        ]
        # one member's rows; who works alone although there could be a team has the whole of the scratch buffer
        own = -(-rows // (c["TILE_ROWS"] * self.n_threads)) * c["TILE_ROWS"]
        scratch = -(-max(own, c["CLASS_ROWS"]) * (3 * self.n_outputs + 11) * item // 64) * 64
        n_parts = -(-self.n_trained // c["PART"])
        values = {
            "N_LAYERS": network.n_layers, "MAX_ROWS": rows, "PARAMS": params, "N_WEIGHTS": self.n_weights,
            "N_TRAINED": self.n_trained, "SEGMENTS": self.keep(np.array(segments, np.int64)),
            "N_SEGMENTS": len(segments), "INPUT": self.buffer(rows * self.ld[0]), "ZEROS": self.buffer(max(self.ld)),
            "SCRATCH": self.buffer(self.n_threads * scratch // item),
            "SCRATCH_BYTES": scratch, "PARTS": self.buffer(3 * n_parts, np.float64), "N_PARTS": n_parts,
        }  # fmt: skip
        self.net = np.zeros(c["NET_ENTRIES"], np.int64)
        for name, value in values.items():
            self.net[c[name]] = value
        self.net[c["IN_THRESHOLD"]] = layer_table.threshold(network.input_dropout)
        self.net.view(np.float64)[c["IN_RATE"]] = network.input_dropout

    def _fill_layers(self, params: int) -> None:
        """Fill the layers' table with what every call needs."""
        places = [params + place * self.dtype.itemsize for place in self.places[:-1]]
        self.table = layer_table.new_table(self.network, self.ld, places, 0)
        self.layers = self.table.view(np.int64).reshape(len(self.table), -1)
        for row, activation in zip(self.table, self.activations, strict=False):
            row["keeps_z"], row["parameters"] = activation.needs_z, self.keep(activation.parameters)
        layer_table.allocate(self.table, layer_table.BUFFERS, self.max_rows, self.buffer, training=False)
        self.has_dropout = bool(self.net[self.code.names["IN_THRESHOLD"]] or self.table["threshold"].any())

    # --- work and threads ---

    def work_of(self, rows: int) -> float:
        """Return the floating-point operations of a training step of this many rows."""
        return (6.0 * self.n_weights + 300.0 * sum(self.ld)) * rows + 50.0 * self.n_padded

    def _choose_threads(self, n_jobs: int | None) -> int:
        """Return n_jobs if given; else as many as are allowed, if a step has the work for them."""
        if n_jobs is None and 6.0 * self.n_padded * self.batch_size < THREADS_MIN_STEP:
            return 1
        from fastmlp.kernels.threads import allowed

        return max(1, min(allowed(n_jobs), -(-self.max_rows // self.code.names["TILE_ROWS"])))

    def _cuts(self, members: int, weights: list[int]) -> list[tuple[int, int]]:
        """Return where the members' shares begin and end: (place in the padded weights, layer), at rows of tiles."""
        tile, widths, ld = self.code.names["TILE_ROWS"], self.network.widths, self.ld[1:]
        cuts, whole = [], weights[-1] + SUMS_COST * sum(ld)
        for member in range(members + 1):
            left, where = whole * member / members, (weights[-1], len(ld))
            for k in range(len(ld)):
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
        return cuts

    def _shares(self, members: int) -> list[list[int]]:
        """Return the members' shares of the parameters, see LAYER_SHARES in template/tables.py, of equal work."""
        ld, layers = self.ld[1:], range(len(self.layers))
        weights = [*accumulate((self.network.widths[k] * ld[k] for k in layers), initial=0)]
        biases = [*accumulate(ld, initial=self.n_weights)]
        trained = [sum(s.of_units and s.trained and s.layer == k for s in self.network.segments) for k in layers]
        units = [*accumulate((ld[k] * n for k, n in enumerate(trained)), initial=biases[-1])]
        shares = []
        for (w0, k0), (w1, k1) in pairwise(self._cuts(members, weights)):
            share = [w0, w1, biases[k0], biases[k1], units[k0], units[k1]]
            for k in layers:
                rows = [(min(max(w, weights[k]), weights[k + 1]) - weights[k]) // ld[k] for w in (w0, w1)]
                share += [*rows, k0 <= k < k1]
            shares.append(share)
        return shares

    def run(self, tables: tuple, numbers: tuple, work: float) -> float:
        """Call the compiled train, by a team if there may be one; `work`: floating-point operations of the call."""
        train = self.code.network.train
        # the first call of all compiles, which is no time to wait for others
        if self.n_threads > 1 and work >= self.least_work and train.signatures:
            total = self._run_together(train, tables, numbers)
            if total is not None:
                return total
        return train(*tables, 0, 0, *numbers)

    def _run_together(self, train: Any, tables: tuple, numbers: tuple) -> Any:
        team = self.team
        if team is None or not team.works():
            try:
                team = self.team = Team(self.code.names, self.n_threads)
            except RuntimeError:  # no more threads to be had: one does it all, with the same result
                return None
            weakref.finalize(self, team.end)
        return team.run(train, tables, numbers)

    # --- what only some calls need ---

    def prepare_prediction(self) -> None:
        """Get what prediction needs: functions of the activations and the link."""
        if self.predicts:
            return
        c = self.code.names
        for row, activation in zip(self.table, self.activations, strict=False):
            row["value"] = activation.resolve("value").value
        link = self.loss.link
        if link == "softmax":
            self.net[c["LINK"]] = c["SOFTMAX"]
        else:
            self.net[c["LINK"]] = Activation(self.code, link, hidden=False).resolve("value").value
        self.predicts = True

    def prepare_training(self, rule: str | None = None) -> int:
        """Get what training needs; return the address of the rule's function, or 0."""
        if not self.trains:
            self._prepare_gradient()
            self.trains = True
        if rule is None:
            return 0
        c, net, n_states = self.code.names, self.net, len(formulas.OPTIMIZERS[rule].states)
        if rule not in self.rules:
            self.rules[rule] = self.code.named(rule)("rule")
        if net[c["STATES"]] == 0 or n_states > self.room_for_states:
            self.room_for_states = max(n_states, 1)
            net[c["STATES"]] = self.buffer(self.room_for_states * self.n_padded)
            net[c["STATE_BYTES"]] = self.n_padded * self.dtype.itemsize
        net[c["N_STATES"]] = n_states
        return self.rules[rule]

    def _prepare_gradient(self) -> None:
        """Get gradient, deltas, transposed weights, targets, functions of loss and activations."""
        c, net, rows = self.code.names, self.net, self.max_rows
        shares = self._shares(1) + (self._shares(self.n_threads) if self.n_threads > 1 else [])
        net[c["SHARES"]], net[c["SHARE_ENTRIES"]] = self.keep(np.array(shares, np.int64)), len(shares[0])
        net[c["GRAD"]] = self.buffer(self.n_padded)
        net[c["TARGETS"]] = self.buffer(rows * self.n_outputs)
        net[c["CLASSES"]] = self.buffer(rows, np.int64)
        net[c["WEIGHT"]] = self.buffer(rows)
        net[c["ROW_LOSS"]] = self.buffer(rows, np.float64)
        net[c["LOSS_KIND"]], net[c["LOSS"]] = self.loss.kind, self.loss.find()
        net[c["LOSS_PARAMETERS"]] = self.keep(self.loss.parameters)
        layer_table.allocate(self.table, layer_table.BUFFERS, rows, self.buffer, training=True)
        for row, activation in zip(self.table, self.activations, strict=False):
            kinds = () if activation.learned else ("forward",) if activation.needs_z else ("value", "backward")
            activation.resolve(*kinds)
            for kind in kinds:
                row[kind] = getattr(activation, kind)

    # --- calls ---

    def addresses(self, call: np.ndarray) -> tuple[int, int, int]:
        """Return what the compiled code takes; the caller must keep `call` alive."""
        return address_of(self.net), address_of(self.layers), address_of(call)

    def call_table(self, X: Any, rows: np.ndarray | None = None, **entries: int) -> tuple[np.ndarray, list]:
        """Return (the table of a call, what must live as long as it)."""
        c = self.code.names
        call, alive = np.zeros(c["CALL_ENTRIES"], np.int64), [rows]
        if sparse.issparse(X):
            data, indptr, indices = X.data, X.indptr, X.indices
            alive += [data, indptr, indices]
            call[c["INDPTR"]], call[c["INDICES"]] = address_of(indptr), address_of(indices)
            call[c["INDEX_IS_64"]], call[c["STORED"]] = indices.dtype == np.int64, min(len(data), len(indices))
        else:
            data = X
            alive.append(X)
            call[c["ROW_BYTES"]], call[c["COLUMN_BYTES"]] = X.strides
        entries |= {"X": address_of(data), "X_IS_DOUBLE": data.dtype == np.float64, "ROWS": address_of(rows)}
        for name, value in entries.items():
            call[c[name]] = value
        return call, alive
