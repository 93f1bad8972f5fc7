"""Tables that the kernels read: where everything lies, and what a step consists of.

Where it sits: training.py and prediction.py make a :class:`Plan` for each way of calling the kernels, many.py a
:class:`Layout` for each of its nets.  The names of the tables' entries are template/tables.py's.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.kernels import layer_table
from fastmlp.kernels.numba_cuda import driver

if TYPE_CHECKING:
    from fastmlp.kernels.numba_cuda.workspace import Workspace


class Layout:
    """The tables that the kernels read, on the host, for one way of calling them.

    Parameters
    ----------
    ws : Workspace
    code : module
    rows : int
        Rows that are worked on together.
    training, is_sparse, weighted : bool
        Whether there is a way back, and how X and the sample weights come.
    store : bool
        Whether the gradient is written before the update.
    clipped : bool
        Whether the norm of the gradient is bounded.

    Attributes
    ----------
    entries, rows_of_layers : ndarray of int64
        See the names of their entries in template/tables.py and layer_table.py.
    tasks : list of tuples
        What the phase SLICES does.
    size : int
        Numbers of the activations and deltas of ``rows`` rows.
    """

    def __init__(
        self,
        ws: Workspace,
        code: ModuleType,
        rows: int,
        *,
        training: bool,
        is_sparse: bool,
        weighted: bool = False,
        store: bool = False,
        clipped: bool = False,
    ) -> None:
        self.code, self.rows, self.training, self.size = code, rows, training, 0
        self.use_input = is_sparse or (training and ws.thresholds[0] > 0)
        widths, net = ws.network.widths, np.zeros(code.NET_ENTRIES, np.int64)
        net[code.N_LAYERS], net[code.N_PARAMS], net[code.N_TRAINED] = ws.n_layers, ws.n_params, ws.n_trained
        net[code.MAX_ROWS], net[code.USE_INPUT], net[code.SPARSE] = rows, self.use_input, is_sparse
        net[code.WEIGHTED], net[code.STORE], net[code.CLIPPED] = weighted, store, clipped
        net[code.INPUT] = self._room(rows * widths[0]) if self.use_input else 0
        net[code.IN_THRESHOLD], net[code.NARROW_LAYER] = ws.thresholds[0], _narrow_layer(ws, code)
        layers = layer_table.new_table(ws.network, widths, [segment.start for segment in ws.network.segments], -1)
        layers["kind"][:-1] = ws.kinds
        for trains in range(1 + training):
            layer_table.allocate(layers, layer_table.CUDA_BUFFERS, rows, self._room, training=bool(trains))
        if training:
            net[code.DELTA_OUT], net[code.ROW_LOSS] = layers["delta"][-1], self._room(rows)
            self.tasks = _tasks(ws, code)
            net[code.N_TASKS] = len(self.tasks)
        self.entries, self.rows_of_layers = net, layers.view(np.int64).reshape(-1)

    def _room(self, n: int) -> int:
        """Return the place of n more numbers in ``work``."""
        self.size += n
        return self.size - n


class Plan(Layout):
    """A layout with its tables on the device, and the buffer that the kernels work in.

    Attributes
    ----------
    net, layers : device vectors of int64
    work : device vector
        Activations and deltas of ``rows`` rows.
    """

    def __init__(self, ws: Workspace, code: ModuleType, rows: int, **options: bool) -> None:
        super().__init__(ws, code, rows, **options)
        self.work = driver.allocate(self.size, ws.dtype, f"the activations of {rows} rows")
        self.net, self.layers = table(self.entries), table(self.rows_of_layers)


def table(array: Any, dtype: Any = np.int64) -> Any:
    """Return a flat copy of a table on the device."""
    return driver.api().to_device(np.ascontiguousarray(array, dtype).reshape(-1))


def _tasks(ws: Workspace, code: ModuleType) -> list[tuple[int, int, int, int]]:
    """Return rows (kind, layer, first row, first column) of what SLICES does, each for one block."""
    tasks = [(code.TASK_LOSS, 0, 0, 0)]
    trained = [segment for segment in ws.network.segments if segment.trained]
    for segment in sorted(trained, key=lambda segment: segment.layer):
        kind = layer_table.ARRAYS.index(segment.name)
        whole = kind == code.ARRAY_W and segment.layer != _narrow_layer(ws, code)
        across = code.TILE if whole else code.COLUMNS
        starts = [(i, j) for i in range(0, segment.rows, code.TILE) for j in range(0, segment.width, across)]
        tasks += [(kind, segment.layer, i, j) for i, j in starts]
    return tasks


def _narrow_layer(ws: Workspace, code: ModuleType) -> int:
    """Return the number of the output layer if it has few neurons and reads other neurons, else -1."""
    return ws.n_layers - 1 if ws.n_layers > 1 and ws.n_outputs <= code.COLUMNS else -1


def phases_of(ws: Workspace, plan: Layout, schedule: str, update: bool) -> list[tuple[int, int, int, int]]:
    """Return rows (kind, first, last, spread) of a step."""
    code, last, whole = plan.code, ws.n_layers - 1, ws.network.whole_batch
    slices = [(code.SLICES, 0, 0, 0), *([(code.UPDATE, 0, 0, 0)] if update else [])]
    if schedule == "rows":
        return [(code.TILES, 0, 2 * ws.n_layers, 0), *slices]
    up, down = [(code.GATHER, 0, 0, 0)] * plan.use_input, []
    for k in range(last):
        up += [(code.TILES, k, k + 1, 1), *[(code.BATCH_FORWARD, k, 0, 0)] * whole[k]]
    # the output layer with the loss, for which a block needs whole rows
    narrow = _narrow_layer(ws, code) == last
    up.append((code.NARROW_OUTPUT, 0, 0, 0) if narrow else (code.TILES, last, last + 2, 0))
    for k in range(last, 0, -1):
        operation = 2 * ws.n_layers - k
        down += [(code.TILES, operation, operation + 1, 1), *[(code.BATCH_BACKWARD, k - 1, 0, 0)] * whole[k - 1]]
    return [*up, *down, *slices]
