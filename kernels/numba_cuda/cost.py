"""What a step is expected to take: it chooses the tile and the schedule.  Counted, not measured.

Where it sits: workspace.py asks for a tile when it compiles, training.py for a schedule when it knows how many blocks
may wait for each other.  Cycles are those of a multiprocessor; bench/cuda_resources.py prints what they come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from fastmlp.kernels.codegen import CudaTile
from fastmlp.kernels.numba_cuda import driver, settings
from fastmlp.kernels.numba_cuda.code import pieces

if TYPE_CHECKING:
    from fastmlp.model.network import Network


class Product(NamedTuple):
    """A product of a step: its result is (rows, columns), each a sum of ``depth`` terms.

    ``kind``: "whole", or of a narrow output layer "narrow" (forward, and its gradient) or "back" (of its delta).
    """

    rows: int
    columns: int
    depth: int
    kind: str = "whole"

    def tiles(self, tile: CudaTile) -> int:
        """Return how many tiles the result has; all columns of a narrow one are in one tile."""
        return pieces(self.rows, tile.size) * self.across(tile)

    def across(self, tile: CudaTile) -> int:
        """Return how many tiles lie side by side."""
        return 1 if self.kind == "narrow" else pieces(self.columns, tile.size)


def cycles(tile: CudaTile, product: Product) -> float:
    """Return the cycles of a tile's product: a slice takes its instructions, or waits for the next slice."""
    if product.kind == "back":
        return settings.BACK[tile.size]
    narrow = product.kind == "narrow"
    depth = tile.narrow.depth if narrow else tile.depth
    term = settings.NARROW[tile.size] if narrow else settings.CYCLES[tile.precision][tile.size]
    return pieces(product.depth, depth) * max(depth * term, settings.LATENCY) + settings.TILE_CYCLES


def _on_way(widths: Sequence[int], rows: int, tile: CudaTile) -> list[Product]:
    """Return the products forward, then those back."""
    pairs, narrow = list(pairwise(widths)), _is_narrow(widths, tile)
    up = [Product(rows, fan_out, fan_in) for fan_in, fan_out in pairs]
    down = [Product(rows, fan_in, fan_out) for fan_in, fan_out in reversed(pairs[1:])]
    if narrow:
        up[-1], down[0] = up[-1]._replace(kind="narrow"), down[0]._replace(kind="back")
    return up + down


def _gradients(widths: Sequence[int], rows: int, tile: CudaTile) -> list[Product]:
    """Return the products of the gradients."""
    found = [Product(fan_in, fan_out, rows) for fan_in, fan_out in pairwise(widths)]
    return [*found[:-1], found[-1]._replace(kind="narrow")] if _is_narrow(widths, tile) else found


def _is_narrow(widths: Sequence[int], tile: CudaTile) -> bool:
    return len(widths) > 2 and widths[-1] <= tile.columns


def of_rows(widths: Sequence[int], rows: int, tile: CudaTile, blocks: int) -> float:
    """Return the cycles of all rows through all layers and back, each with one block: a single phase."""
    one = sum(p.across(tile) * cycles(tile, p) for p in _on_way(widths, rows, tile))
    return settings.BARRIER + pieces(pieces(rows, tile.size), blocks) * one


def of_layers(widths: Sequence[int], rows: int, tile: CudaTile, blocks: int) -> float:
    """Return the cycles of a phase for each product, whose tiles are spread over all blocks.

    The output layer's rows are not divided, because its loss needs whole ones.
    """
    total, down, last = 0.0, pieces(rows, tile.size), len(widths) - 2
    for k, p in enumerate(_on_way(widths, rows, tile)):
        if k != last:
            one = pieces(p.tiles(tile), blocks) * cycles(tile, p)
        elif p.kind == "narrow":
            narrow = pieces(p.depth, settings.NARROW_DEPTH) * settings.NARROW_CYCLES + settings.TILE_CYCLES
            one = pieces(pieces(rows, settings.NARROW_ROWS), blocks) * narrow
        else:
            one = pieces(down, blocks) * p.across(tile) * cycles(tile, p)
        total += settings.BARRIER + one
    return total


def of_slices(widths: Sequence[int], rows: int, tile: CudaTile, blocks: int) -> float:
    """Return the cycles of gradients and updates; blocks that have not the same number of tiles wait for each other."""
    products = _gradients(widths, rows, tile)
    one = [cycles(tile, p) + settings.UPDATE * _results(tile, p) for p in products]
    number = [p.tiles(tile) for p in products]
    if blocks == 1:
        return settings.BARRIER + sum(n * taken for n, taken in zip(number, one, strict=True))
    return settings.BARRIER + pieces(sum(number), blocks) * max(one)


def _results(tile: CudaTile, product: Product) -> float:
    """Return how many times 256 results a tile has."""
    return tile.size * (tile.columns if product.kind == "narrow" else tile.size) / 256


def of_step(widths: Sequence[int], rows: int, tile: CudaTile, blocks: int) -> float:
    """Return the cycles of a step with the better schedule."""
    way = min(of_rows(widths, rows, tile, blocks), of_layers(widths, rows, tile, blocks))
    return way + of_slices(widths, rows, tile, blocks)


def tile_of(widths: Sequence[int], rows: int, double: bool = False, precision: str = "highest") -> CudaTile:
    """Return the tile for a network of these widths and so many rows at a time.

    Large tiles read less per result; small ones are many, so no multiprocessor idles.  Below "highest" tensor cores
    are used if they promise to be faster than float32, which is more exact.  A net that one block can train has the
    products that are faster there, so it has the same bits alone and among others.
    """
    if driver.simulated():
        return _simulated(precision)
    blocks, itemsize = driver.multiprocessors(), 4 << double
    if precision != "highest" and not settings.TENSOR_CORES:
        need = Need(tuple(widths), rows, sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(widths)), 0)

        def step(choice: str) -> float:
            tile = _fastest(widths, rows, choice, itemsize, blocks)
            return _in_one_block(need, choice, itemsize) or of_step(widths, rows, tile, blocks)

        precision = min((precision, "highest"), key=step)
    return _fastest(widths, rows, precision, itemsize, blocks)


def _simulated(precision: str) -> CudaTile:
    return (settings.SIMULATED if precision == "highest" else settings.SIMULATED_WARPS).at(precision)


def _fastest(widths: Sequence[int], rows: int, precision: str, itemsize: int, blocks: int) -> CudaTile:
    """Return the tile of this precision whose step is the shortest on all multiprocessors."""
    tiles = _fitting(precision, itemsize) or [settings.SMALL.at(precision)]
    return min(tiles, key=lambda tile: of_step(widths, rows, tile, blocks))


def _fitting(precision: str, itemsize: int) -> list[CudaTile]:
    tiles = [tile.at(precision) for tile in settings.TILES]
    return [tile for tile in tiles if tile.shared * itemsize <= settings.SHARED_BYTES]


# --- many nets, one block each ----------------------------------------------------------------------------------------


class Need(NamedTuple):
    """A net, as far as it matters where it is trained; ``rows`` are worked on at a time."""

    widths: tuple[int, ...]
    rows: int
    n_params: int
    n_states: int


class Inside(NamedTuple):
    """What a block keeps in shared memory: its weights, and so many numbers of the optimizer's states."""

    states: int
    bytes: int


def inside(need: Need, tile: CudaTile, itemsize: int) -> Inside | None:
    """Return what a block of its own can keep of a net besides its tiles; None if the weights do not fit."""
    room = driver.shared_bytes() - tile.shared * itemsize
    for n_states in (need.n_states, 0):
        n_bytes = (1 + n_states) * need.n_params * itemsize
        if n_bytes <= room:
            return Inside(n_states * need.n_params, n_bytes)
    return None


@lru_cache(maxsize=1024)
def of_net(widths: Sequence[int], rows: int, tile: CudaTile) -> float:
    """Return the cycles of a step that one block takes alone; ``TILE_CYCLES`` have the stages of 256 results."""
    way, gradients = _on_way(widths, rows, tile), _gradients(widths, rows, tile)
    more = sum(p.tiles(tile) * settings.STAGE * max(0.0, _results(tile, p) - 1) for p in way)
    terms = sum(p.tiles(tile) * p.depth for p in [*way, *gradients] if p.kind == "whole")
    more += terms * settings.MORE_CYCLES[tile.precision].get(tile.size, 0.0)
    more += pieces(rows, tile.threads // tile.columns) * settings.LOSS
    more += sum(pieces(width, tile.columns) for width in widths[1:]) * settings.VECTOR
    return of_rows(widths, rows, tile, 1) + of_slices(widths, rows, tile, 1) - 2 * settings.BARRIER + more


def _in_one_block(need: Need, precision: str, itemsize: int) -> float | None:
    """Return the cycles of a step of a net that has one block, with the best tile; None if it does not fit."""
    tiles = [tile for tile in _fitting(precision, itemsize) if inside(need, tile, itemsize) is not None]
    return min((of_net(need.widths, need.rows, tile) for tile in tiles), default=None)


@lru_cache(maxsize=1024)
def _of_all_blocks(widths: Sequence[int], rows: int, itemsize: int, precision: str, blocks: int) -> float:
    """Return the cycles of a step that all multiprocessors take together."""
    return of_step(widths, rows, _fastest(widths, rows, precision, itemsize, blocks), blocks)


def tile_of_many(needs: Sequence[Need], itemsize: int, precision: str = "highest") -> CudaTile | None:
    """Return the tile for nets with a block each, whose products are these of one net alone; None if no net fits."""
    tiles = [_simulated(precision)] if driver.simulated() else _fitting(precision, itemsize)
    if not tiles:
        return None
    ways = []
    for tile in tiles:
        fitting = [need for need in needs if inside(need, tile, itemsize) is not None]
        ways.append((-len(fitting), sum(of_net(need.widths, need.rows, tile) for need in fitting)))
    best = min(range(len(tiles)), key=ways.__getitem__)
    return tiles[best] if ways[best][0] else None


def many_pay(needs: Sequence[Need], tile: CudaTile, itemsize: int) -> bool:
    """Return whether nets that fit train faster together, each on one multiprocessor, than each on all of them."""
    if settings.MANY is not None or driver.simulated():
        return settings.MANY is not False and len(needs) > 0
    blocks = driver.multiprocessors()
    own = [of_net(need.widths, need.rows, tile) for need in needs]
    apart = sum(_of_all_blocks(need.widths, need.rows, itemsize, tile.precision, blocks) for need in needs)
    return max(sum(own) / blocks, *own) < apart


def schedule_of(network: Network, rows: int, tile: CudaTile, blocks: int) -> str:
    """Return "rows" if rows stay with a block through all layers, "layers" if each layer is spread over all blocks.

    The first needs no barriers; the second shortens the way of a row through wide layers.  If an option
    needs the whole batch, only the second is possible.
    """
    if network.needs_whole_batch:
        return "layers"
    if settings.SCHEDULE:
        return settings.SCHEDULE
    alone, spread = (way(network.widths, rows, tile, blocks) for way in (of_rows, of_layers))
    return "rows" if alone <= spread else "layers"
