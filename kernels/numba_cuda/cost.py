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
    """A product of a step: its result is (rows, columns), each a sum of ``depth`` terms."""

    rows: int
    columns: int
    depth: int


def cycles(tile: CudaTile, depth: int) -> float:
    """Return the cycles of a tile's product: a slice takes its instructions, or waits for the next slice."""
    slice_ = max(tile.depth * settings.CYCLES[tile.precision][tile.size], settings.LATENCY)
    return pieces(depth, tile.depth) * slice_ + settings.TILE_CYCLES


def _on_way(widths: Sequence[int], rows: int) -> list[Product]:
    """Return the products forward, then those back."""
    pairs = list(pairwise(widths))
    up = [Product(rows, fan_out, fan_in) for fan_in, fan_out in pairs]
    return up + [Product(rows, fan_in, fan_out) for fan_in, fan_out in reversed(pairs[1:])]


def of_rows(widths: Sequence[int], rows: int, tile: CudaTile, blocks: int) -> float:
    """Return the cycles of all rows through all layers and back, each with one block: a single phase."""
    one = sum(pieces(p.columns, tile.size) * cycles(tile, p.depth) for p in _on_way(widths, rows))
    return settings.BARRIER + pieces(pieces(rows, tile.size), blocks) * one


def of_layers(widths: Sequence[int], rows: int, tile: CudaTile, blocks: int) -> float:
    """Return the cycles of a phase for each product, whose tiles are spread over all blocks.

    The output layer's rows are not divided, because its loss needs whole ones.
    """
    total, down, last = 0.0, pieces(rows, tile.size), len(widths) - 2
    for k, p in enumerate(_on_way(widths, rows)):
        across = pieces(p.columns, tile.size)
        if k != last:
            one = pieces(down * across, blocks) * cycles(tile, p.depth)
        elif k > 0 and p.columns <= 2 * tile.side:
            narrow = pieces(p.depth, settings.NARROW_DEPTH) * settings.NARROW_CYCLES + settings.TILE_CYCLES
            one = pieces(pieces(rows, settings.NARROW_ROWS), blocks) * narrow
        else:
            one = pieces(down, blocks) * across * cycles(tile, p.depth)
        total += settings.BARRIER + one
    return total


def of_slices(widths: Sequence[int], rows: int, tile: CudaTile, blocks: int) -> float:
    """Return the cycles of gradients and updates."""
    n = sum(pieces(fan_in, tile.size) * pieces(fan_out, tile.size) for fan_in, fan_out in pairwise(widths))
    return settings.BARRIER + pieces(n, blocks) * (cycles(tile, rows) + settings.UPDATE * (tile.size / 16) ** 2)


def of_step(widths: Sequence[int], rows: int, tile: CudaTile, blocks: int) -> float:
    """Return the cycles of a step with the better schedule."""
    way = min(of_rows(widths, rows, tile, blocks), of_layers(widths, rows, tile, blocks))
    return way + of_slices(widths, rows, tile, blocks)


def tile_of(widths: Sequence[int], rows: int, double: bool = False, precision: str = "highest") -> CudaTile:
    """Return the tile for a network of these widths and so many rows at a time.

    Large tiles read less per result; small ones are many, so no multiprocessor idles.  Below "highest" tensor cores
    are used if they promise to be faster than float32, which is more exact.
    """
    if driver.simulated():
        return (settings.SIMULATED if precision == "highest" else settings.SIMULATED_WARPS).at(precision)
    tiles = [tile.at(precision) for tile in settings.TILES]
    if not settings.TENSOR_CORES:
        tiles += settings.TILES
    fitting = [tile for tile in tiles if tile.shared * (4 << double) <= settings.SHARED_BYTES]
    blocks = driver.multiprocessors()
    return min(fitting or [settings.SMALL], key=lambda tile: of_step(widths, rows, tile, blocks))


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
    way = _on_way(widths, rows)
    gradients = [Product(fan_in, fan_out, rows) for fan_in, fan_out in pairwise(widths)]
    tiles = [pieces(p.rows, tile.size) * pieces(p.columns, tile.size) for p in [*way, *gradients]]
    more = sum(tiles[: len(way)]) * settings.STAGE * max(0.0, (tile.size / 16) ** 2 - 1)
    terms = sum(n * p.depth for n, p in zip(tiles, [*way, *gradients], strict=True))
    more += terms * settings.MORE_CYCLES.get(tile.size, 0.0)
    return of_rows(widths, rows, tile, 1) + of_slices(widths, rows, tile, 1) - 2 * settings.BARRIER + more


@lru_cache(maxsize=1024)
def _of_all_blocks(widths: Sequence[int], rows: int, double: bool, precision: str, blocks: int) -> float:
    """Return the cycles of a step that all multiprocessors take together."""
    return of_step(widths, rows, tile_of(widths, rows, double, precision), blocks)


def tile_of_many(needs: Sequence[Need], itemsize: int, precision: str = "highest") -> CudaTile | None:
    """Return the tile for nets with a block each, whose products are these of one net alone; None if no net fits."""
    if driver.simulated():
        tiles = [(settings.SIMULATED if precision == "highest" else settings.SIMULATED_WARPS).at(precision)]
    else:
        tiles = [tile.at(precision) for tile in settings.TILES]
        tiles = [tile for tile in tiles if tile.shared * itemsize <= settings.SHARED_BYTES]
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
    apart = sum(_of_all_blocks(need.widths, need.rows, itemsize == 8, tile.precision, blocks) for need in needs)
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
