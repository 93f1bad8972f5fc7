"""The product of a tile on tensor cores: matrices of float32, multiplied as TF32, whose numbers have 11 bits.

Where it sits: cuda.py writes the product of a tile.  Tensor cores do its loop over the terms of a slice, if the tile's
precision asks for it.  The slices, the groups of threads and the sum over groups stay as they are.

With "medium" the factors are rounded to TF32.  With "high" each one is a sum, x = big + small, of two TF32 numbers, and
eight terms of a product are small * big + big * small + big * big (3xTF32).  Tensor cores cut off what a sum has too
many bits of, so with "high" their sums are short, eight terms, and are added in float32, which rounds.

The instruction (PTX ISA, mma.m16n8k8 with .tf32) multiplies A (16, 8) by B (8, 8) and adds C (16, 8).  A warp does it
together.  Lane l holds, with g = l // 4 and t = l % 4,

    a0 .. a3   A[g, t], A[g + 8, t], A[g, t + 4], A[g + 8, t + 4]
    b0, b1     B[t, g], B[t + 4, g]
    c0 .. c3   C[g, 2 t], C[g, 2 t + 1], C[g + 8, 2 t], C[g + 8, 2 t + 1]

Which row of the tile is row g of A is free, and so are columns and terms, if A and B have the same.  Here the rows
of a lane lie side by side, and so do its columns and its terms: t and t + 4 are 2 t and 2 t + 1.  So it reads vectors
of 16 bytes, each from banks of its own.  Both warps of a group have all rows; each has half of the columns.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .cuda import CudaTile

#: Terms of the instruction, and the lanes of a warp.
TERMS, WARP = 8, 32
#: What rounds to TF32, to nearest, ties away from zero; and what multiplies.  Both read registers of 32 bits.
_ROUND = "cvt.rna.tf32.f32 $0, $1;"
_MULTIPLY = (
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
    "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
)
#: What a module imports: the instructions, or in the simulator their emulation.
HEAD = {
    False: [
        "from fastmlp.kernels.numba_cuda import instructions",
        f'tf32_ = instructions.rounding("{_ROUND}")',
        f'mma_ = instructions.multiplication("{_MULTIPLY}")',
    ],
    True: ["from fastmlp.kernels.numba_cuda.emulation import mma_, tf32_"],
}


class Share(NamedTuple):
    """What a thread does of a tile's product, as lines of code.

    Attributes
    ----------
    own : list of str
        Its ``group``, and (ty, tx), the place of its first result in the tile.
    reads : list of str
        x_at and y_at, where it begins to read in a slice of A and of B.
    terms : list of str
        What it adds to its results, acc_0_0 and so on, for a slice.
    rows, columns : list of int
        Places of its results, counted from the first.
    """

    own: list[str]
    reads: list[str]
    terms: list[str]
    rows: list[int]
    columns: list[int]


def share(tile: CudaTile, rows: list[int]) -> Share:
    """Return a lane's share of a tile; ``rows``: places of its rows, counted from the first."""
    half = tile.size // 2
    own = [
        f"group, warp, lane = tid // {2 * WARP}, tid // {WARP} % 2, tid % {WARP}",
        f"tx, ty = warp * {half} + lane % 4 * {tile.micro}, lane // 4 * VECTOR",
        f"of_lane, column = lane % 4 * (2 * LD), warp * {half} + lane // 4 * {tile.micro // 2}",
    ]
    reads = [
        f"at = (number & 1) * (2 * DEPTH * LD) + group * ({TERMS} * LD) + of_lane",
        "x_at, y_at = at + ty, at + DEPTH * LD + column",
    ]
    terms = [line for p in range(0, tile.depth, tile.groups * TERMS) for line in _terms(tile, rows, p)]
    return Share(own, reads, terms, rows, list(range(tile.micro)))


def _terms(tile: CudaTile, rows: list[int], p: int) -> list[str]:
    """Read a lane's factors of eight terms, from term p of a slice on, make TF32 of them, and multiply."""
    blocks = range(tile.micro // 2)  # of 16 rows, and of 8 columns
    places = {
        f"{name}_{n}_{term}": f"{name}_at + {(p + term) * tile.row + place}"
        for name, of in (("x", rows), ("y", blocks))
        for term in range(2)
        for n, place in enumerate(of)
    }
    lines = [f"{x} = shared[U({place})]" for x, place in places.items()]
    lines += [f"{x}_big = tf32_({x})" for x in places]
    if tile.precision == "medium":
        for i, j in product(blocks, blocks):
            lines.append(_mma(_results(tile, i, j), i, j, "big", "big", _results(tile, i, j)))
        return lines
    lines += [f"{x}_small = tf32_({x} - {x}_big)" for x in places]
    sums = [[f"sum_{j}_{n}" for n in range(4)] for j in blocks]
    for i in blocks:
        lines += [_mma(sums[j], i, j, "small", "big", ["ZERO"] * 4) for j in blocks]
        lines += [_mma(sums[j], i, j, "big", "small", sums[j]) for j in blocks]
        lines += [_mma(sums[j], i, j, "big", "big", sums[j]) for j in blocks]
        for j in blocks:
            lines += [f"{to} += {term}" for to, term in zip(_results(tile, i, j), sums[j], strict=True)]
    return lines


def _results(tile: CudaTile, i: int, j: int) -> list[str]:
    """Return the names of c0 .. c3 of block (i, j) of a lane's results."""
    columns = j, tile.micro // 2 + j
    return [f"acc_{row}_{column}" for row in (2 * i, 2 * i + 1) for column in columns]


def _mma(to: list[str], i: int, j: int, a: str, b: str, plus: list[str]) -> str:
    """Multiply parts, "big" or "small", of block i of the rows and block j of the columns."""
    factors = [f"x_{row}_{term}_{a}" for term in range(2) for row in (2 * i, 2 * i + 1)]
    factors += [f"y_{j}_{term}_{b}" for term in range(2)]
    return f"{', '.join(to)} = mma_({', '.join([*factors, *plus])})"


# --- results that are not finite --------------------------------------------------------------------------------------

_EXACT = """
@device
def NAME_part(a, a_at, a_ld, order, first, gathered, b, b_at, b_ld, depth, i, j, group):
    total, q = ZERO, group * QUAD
    while q < depth and total == total:
        for p in range(q, min(q + QUAD, depth)):
            row = A_ROW
            if gathered:
                row = order[U(first + row)]
            total += a[U(a_at + row * a_ld + A_COLUMN)] * b[U(b_at + B_PLACE)]
        q += GROUPS * QUAD
    return total


@device
def NAME_exact(a, a_at, a_ld, order, first, gathered, b, b_at, b_ld, depth, i, j):
    return TREE
"""
_AGAIN = """
cuda.syncthreads()
e = tid
while e < TILE * TILE:
    i, j, to = i0 + e // TILE, j0 + e % TILE, e // TILE * LD + e % TILE
    x = shared[U(to)]
    if x - x != ZERO and i < rows and j < columns:
        shared[U(to)] = NAME_exact(a, a_at, a_ld, order, first, gathered, b, b_at, b_ld, depth, i, j)
    e += THREADS
"""


def again(name: str) -> list[str]:
    """Compute results that are not finite once more in float32: what is infinite in TF32 may be finite there."""
    return _AGAIN.replace("NAME", name).strip().splitlines()


def tree(parts: list[str]) -> str:
    """Return the sum over groups of threads, of two at a time."""
    while len(parts) > 1:
        parts = [f"({one} + {other})" for one, other in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def exact(tile: CudaTile, name: str, a_transposed: bool, b_transposed: bool) -> str:
    """Return functions that compute one result as with "highest", to the last bit; NaN ends a sum early."""
    parts = [
        f"{name}_part(a, a_at, a_ld, order, first, gathered, b, b_at, b_ld, depth, i, j, {group})"
        for group in range(tile.groups)
    ]
    places = {
        "A_ROW": "p" if a_transposed else "i",
        "A_COLUMN": "i" if a_transposed else "p",
        "B_PLACE": "j * b_ld + p" if b_transposed else "p * b_ld + j",
    }
    text = _EXACT.strip().replace("NAME", name).replace("TREE", tree(parts))
    for mark, place in places.items():
        text = text.replace(mark, place)
    return text
