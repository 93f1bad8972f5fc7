"""Choices of the CUDA engine that the checks force.  All names of the engine outside the contract stand here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from gpu import surroundings

#: What a check may force -> its name in the engine's settings.py.
SETTINGS = {"schedule": "SCHEDULE", "blocks": "BLOCKS_PER_PHASE", "chunk_rows": "CHUNK_ROWS"}
SETTINGS |= {"tensor_cores": "TENSOR_CORES", "many": "MANY"}
TILES = {"small": "SMALL", "medium": "MEDIUM", "large": "LARGE"}


@contextmanager
def forced(*, tile: str | None = None, **choices: Any) -> Iterator[None]:
    """Force choices of the engine for a while.

    Parameters
    ----------
    tile : {"small", "medium", "large"}, optional
        The tile of all products; in the simulator there is one only.
    schedule : {"rows", "layers"}, optional
    blocks : int, optional
        A launch for each phase, with this many blocks, in place of a cooperative launch.
    tensor_cores : bool, optional
        Tensor cores wherever the precision allows them.
    chunk_rows : int, optional
        Rows of a batch that are worked on together.
    many : bool, optional
        Whether nets of one call train together.
    """
    from fastmlp.kernels.numba_cuda import settings

    values = {SETTINGS[name]: value for name, value in choices.items()}
    if tile is not None:
        values["TILES"] = (getattr(settings, TILES[tile]),)
    before = {name: getattr(settings, name) for name in values}
    for name, value in values.items():
        setattr(settings, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


def simulated() -> bool:
    """Return whether Numba's simulator plays the device."""
    from fastmlp.kernels.numba_cuda import driver

    return driver.simulated()


def answers() -> Any:
    """Return Numba's module once the device has answered.

    Raises
    ------
    RuntimeError
        If it does not work; the message has the driver's own.
    """
    from fastmlp.kernels.numba_cuda import driver

    return driver.api()


def steady() -> Any:
    """Return a context in which the simulator, if it is on, is exact: the tests' own."""
    if not simulated():
        return nullcontext()
    folder = str(surroundings.tests())
    if folder not in sys.path:
        sys.path.append(folder)
    from helpers import steady_simulator

    return steady_simulator()
