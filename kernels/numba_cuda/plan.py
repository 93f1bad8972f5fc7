"""Tables that the kernels read: where everything lies, and what a step consists of.

Where it sits: training.py and prediction.py make a :class:`Plan` for each way of calling the kernels.  The names of the
tables' entries are template/tables.py's.
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.kernels.codegen import CudaTile
from fastmlp.kernels.numba_cuda import driver, settings
from fastmlp.kernels.numba_cuda.code import pieces

if TYPE_CHECKING:
    from fastmlp.kernels.numba_cuda.workspace import Workspace
    from fastmlp.model.network import Network


class Plan:
    """The tables that the kernels read, and the buffer that they work in, for one way of calling them.

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
    net, layers : device vectors of int64
        See the names of their entries in template/tables.py.
    work : device vector
        Activations and deltas of ``rows`` rows.
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
        self.batch_norm = bool(ws.network.batch_norm) and training
        widths, net = ws.network.widths, np.zeros(code.NET_ENTRIES, np.int64)
        net[code.N_LAYERS], net[code.N_PARAMS], net[code.N_TRAINED] = ws.n_layers, ws.n_params, ws.n_trained
        net[code.MAX_ROWS], net[code.USE_INPUT], net[code.SPARSE] = rows, self.use_input, is_sparse
        net[code.BATCH_NORM], net[code.WEIGHTED] = self.batch_norm, weighted
        net[code.STORE], net[code.CLIPPED] = store, clipped
        net[code.INPUT] = self._room(rows * widths[0]) if self.use_input else 0
        layers = np.array([self._layer(ws, k) for k in range(ws.n_layers)])
        if training:
            net[code.DELTA_OUT], net[code.ROW_LOSS] = self._room(rows * widths[-1]), self._room(rows)
            self.tasks = _tasks(ws, code, layers)
            net[code.N_TASKS] = len(self.tasks)
        self.work = driver.allocate(self.size, ws.dtype, f"the activations of {rows} rows")
        self.net, self.layers = table(net), table(layers)

    def _layer(self, ws: Workspace, k: int) -> np.ndarray:
        """Return the row of layer k, and make room for its activations; -1 where it has none."""
        code, rows, network = self.code, self.rows, ws.network
        width, hidden = network.widths[k + 1], k + 1 < ws.n_layers
        row = np.full(code.LAYER_COLUMNS, -1, np.int64)
        row[code.FAN_IN], row[code.FAN_OUT] = network.widths[k], width
        row[code.THRESHOLD], row[code.IN_THRESHOLD] = ws.thresholds[k + 1] if hidden else 0, ws.thresholds[0]
        for name, place in ws.places[k].items():
            row[getattr(code, name)] = place
        if not hidden or self.batch_norm:
            row[code.Z] = self._room(rows * width)
        if hidden:
            row[code.KIND], row[code.OUT] = ws.kinds[k], self._room(rows * width)
            row[code.DELTA] = self._room(rows * width) if self.training else 0
            row[code.ROOT] = self._room(width) if self.batch_norm else 0
            if self.training and "SLOPE" in ws.places[k]:
                row[code.PRODUCT] = self._room(rows * width)
        return row

    def _room(self, n: int) -> int:
        """Return the place of n more numbers in ``work``."""
        self.size += n
        return self.size - n


def table(array: Any, dtype: Any = np.int64) -> Any:
    """Return a flat copy of a table on the device."""
    return driver.api().to_device(np.ascontiguousarray(array, dtype).reshape(-1))


def _tasks(ws: Workspace, code: ModuleType, layers: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return rows (kind, layer, first row, first column) of what UNITS does, each for one block."""
    tasks, tile = [(code.TASK_LOSS, 0, 0, 0)], code.TILE
    for k, row in enumerate(layers):
        fan_in, fan_out = row[code.FAN_IN], row[code.FAN_OUT]
        tasks += [(code.TASK_W, k, i, j) for i in range(0, fan_in, tile) for j in range(0, fan_out, tile)]
        kinds = [code.TASK_B]
        kinds += [getattr(code, f"TASK_{name}") for name in ("SCALE", "SHIFT", "SLOPE") if name in ws.places[k]]
        tasks += [(kind, k, 0, j) for kind in kinds for j in range(0, fan_out, tile)]
    return tasks


def phases_of(ws: Workspace, plan: Plan, schedule: str, update: bool) -> list[tuple[int, int, int, int]]:
    """Return rows (kind, first, last, spread) of a step."""
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


def schedule_of(network: Network, rows: int, tile: CudaTile, blocks: int) -> str:
    """Return "rows" if rows stay with a block through all layers, "layers" if each layer is spread over all blocks.

    The first needs no barriers; the second shortens the way of a row through wide layers.  With batch_norm only the
    second is possible.
    """
    if network.batch_norm:
        return "layers"
    if settings.SCHEDULE:
        return settings.SCHEDULE
    pairs, down = list(pairwise(network.widths)), pieces(rows, tile.size)
    tiles = [(fan_in, pieces(fan_out, tile.size)) for fan_in, fan_out in pairs]
    tiles += [(fan_out, pieces(fan_in, tile.size)) for fan_in, fan_out in pairs[1:]]
    alone = pieces(down, blocks) * sum(depth * across for depth, across in tiles) * settings.TERM
    spread = sum(settings.BARRIER + pieces(down * across, blocks) * depth * settings.TERM for depth, across in tiles)
    return "rows" if alone <= spread else "layers"
