"""The instructions of tensor cores in Numba's simulator: the lanes of a warp are 32 of Python's threads.

Where it sits: modules for tensor cores (codegen/tensor_cores.py) import it in the simulator.  Which lane holds what is
as PTX ISA documents it.  How sums are rounded it leaves open.  Here they are as inexact as they have been seen on a
device: terms are aligned to the largest, and bits below those of float32 are cut off (Fasi, Higham, Mikaitis and
Pranesh 2021, doi:10.7717/peerj-cs.330).
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

WARP = 32
#: Bits of a number of float32 that TF32 has; half of the first bit that it has not.
_KEPT, _HALF = np.uint32(0xFFFFE000), np.uint32(0x1000)
_G, _T = (place[:, None] for place in divmod(np.arange(WARP), 4))
_N2, _N4 = np.arange(2), np.arange(4)
#: (rows, columns) of A, B and C that the lanes hold: arrays (lane, number).
A = _G + 8 * (_N4 % 2), _T + 4 * (_N4 // 2)
B = _T + 4 * _N2, _G + 0 * _N2
C = _G + 8 * (_N4 // 2), 2 * _T + _N4 % 2


def tf32_(x: Any) -> np.float32:
    """Round to TF32, 8 bits of exponent and 10 of fraction: to nearest, ties away from zero."""
    x = np.float32(x)
    return ((x.view(np.uint32) + _HALF) & _KEPT).view(np.float32) if np.isfinite(x) else x


def summed(terms: np.ndarray) -> np.ndarray:
    """Return the sums over the first axis as tensor cores add: float64 (terms, ...) -> float32."""
    plain = terms.sum(axis=0)
    finite = np.isfinite(plain)
    terms = np.where(finite, terms, 0)
    exponent = np.frexp(np.abs(terms).max(axis=0))[1] - 24
    total = np.ldexp(np.trunc(np.ldexp(terms, -exponent)).sum(axis=0), exponent)
    exponent = np.frexp(total)[1] - 24
    total = np.ldexp(np.trunc(np.ldexp(total, -exponent)), exponent)
    return np.where(finite, total, plain).astype(np.float32)


def multiplied(operands: np.ndarray) -> np.ndarray:
    """Return d0 .. d3 of all lanes, (32, 4), from their a0 .. a3, b0, b1, c0 .. c3, (32, 10), float32.

    Of the factors only the bits of TF32 are read.
    """
    factors = (operands[:, :6].view(np.uint32) & _KEPT).view(np.float32)
    a, b, c = np.empty((16, 8)), np.empty((8, 8)), np.empty((16, 8))
    a[A], b[B], c[C] = factors[:, :4], factors[:, 4:], operands[:, 6:]
    with np.errstate(all="ignore"):
        return summed(np.concatenate([a.T[:, :, None] * b[:, None, :], c[None]]))[C]


class _Warp:
    """Lanes that wait for each other, and what they hold."""

    def __init__(self) -> None:
        self.operands, self.results = np.empty((WARP, 10), np.float32), np.empty((WARP, 4), np.float32)
        self.together = threading.Barrier(WARP, self._multiply)

    def _multiply(self) -> None:
        self.results = multiplied(self.operands)


def mma_(*operands: Any) -> tuple[np.float32, ...]:
    """Wait for the other lanes of the warp, and return this lane's part of A B + C."""
    thread: Any = threading.current_thread()
    number, lane = divmod(thread.thread_id, WARP)
    warps, name = vars(thread._manager), f"warp {number}"
    warp = warps.get(name) or warps.setdefault(name, _Warp())
    warp.operands[lane] = operands
    warp.together.wait()
    return tuple(warp.results[lane])
