"""What the CUDA engine needs to know of the machine: the package, the driver, the device; and the modules it generates.

Where it sits: numba_cuda.py asks :func:`why_not` when it is imported, which must be cheap and must not import Numba;
:func:`api` when it first computes; :func:`load` for the code of a combination of formulas.  This is the one file that
knows which package plays ``cuda``: numba-cuda, its successor numba-cuda-mlir, or Numba's simulator
(NUMBA_ENABLE_CUDASIM=1), where Python's threads play a GPU's.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from glob import glob
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from fastmlp.kernels import code_folder

#: Package -> module that has ``jit``, ``to_device`` and the rest, in the order in which they are looked for.
PACKAGES = {"numba_cuda": "numba.cuda", "numba_cuda_mlir": "numba_cuda_mlir.cuda"}
#: The oldest driver that numba-cuda works with, as the CUDA version that it supports.
OLDEST_DRIVER = 12000
SIMULATED_BYTES = 2**30
DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
#: Where Linux keeps the devices; the second: a GPU of the Windows around it.
DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/dxg")

_lock = threading.RLock()


def simulated() -> bool:
    """Whether Numba's simulator plays the device."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


# --- is there a device? -----------------------------------------------------------------------------------------------


def package() -> str | None:
    """The installed package that compiles for CUDA, or None."""
    return next((name for name in PACKAGES if find_spec(name) is not None), None)


def check() -> None:
    """Find out whether the engine can work here, without importing Numba and without touching a device.

    A process that has touched a device cannot use it in children that it forks; so the driver is asked for its version
    only, and the system for its device files.

    Raises
    ------
    ImportError
        With ``name`` set where a package is missing; else the message says what was found.
    """
    if find_spec("numba") is None or package() is None:
        missing = "numba" if find_spec("numba") is None else "numba_cuda"
        raise ImportError(f"No module named {missing!r}", name=missing)
    if not simulated():
        reason = _why_no_driver() or _why_no_device()
        if reason:
            raise ImportError(reason)


def _why_no_driver() -> str | None:
    try:
        driver = ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return f"no CUDA device: the NVIDIA driver is not installed ({DRIVER_LIBRARY} cannot be loaded)"
    found = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(found)) != 0:
        return f"no CUDA device: the NVIDIA driver ({DRIVER_LIBRARY}) does not answer"
    if found.value < OLDEST_DRIVER:
        return (
            f"the NVIDIA driver is too old: it supports CUDA {_dotted(found.value)}, "
            f"{_dotted(OLDEST_DRIVER)} or later is needed"
        )
    return None


def _dotted(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _why_no_device() -> str | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return f"no CUDA device: CUDA_VISIBLE_DEVICES={visible!r} hides all of them"
    if sys.platform == "linux" and not any(glob(pattern) for pattern in DEVICE_FILES):
        return "no CUDA device: the NVIDIA driver is installed, but the system has no GPU of its"
    return None


# --- the package ------------------------------------------------------------------------------------------------------


def import_cuda() -> ModuleType:
    """The module that plays ``cuda``."""
    name = package()
    if name is None:
        raise ImportError("No module named 'numba_cuda'", name="numba_cuda")
    return import_module(PACKAGES[name])


@lru_cache(maxsize=1)
def api() -> ModuleType:
    """The same, once a device has answered.

    Raises
    ------
    RuntimeError
        If the device that was there on import does not work; the message has the driver's own.
    """
    cuda = import_cuda()
    try:
        cuda.current_context()
    except Exception as error:  # CudaSupportError and CudaAPIError have no common base
        raise RuntimeError(f"backend='cuda' found a CUDA device, but it does not work: {error}") from error
    return cuda


def free_memory() -> int | None:
    """Bytes that the device has left; None in the simulator."""
    return None if simulated() else int(api().current_context().get_memory_info()[0])


def check_room(n_bytes: int, purpose: str) -> None:
    """Refuse, before anything is allocated, what cannot fit; the simulator's device has room for little.

    Raises
    ------
    MemoryError
        Saying how much is needed and how much there is.
    """
    free = free_memory()
    free = SIMULATED_BYTES if free is None else free
    if n_bytes > free:
        raise MemoryError(f"the device has no room for {purpose}: {_size(n_bytes)} are needed, {_size(free)} are free")


def allocate(shape: int, dtype: Any, purpose: str) -> Any:
    """A vector on the device, at least one number long; its contents are arbitrary.

    Raises
    ------
    MemoryError
        Saying how much was asked for, what for, and how much there is.
    """
    import numpy as np

    size = max(int(shape), 1)
    try:
        return api().device_array(size, dtype)
    except Exception as error:
        if "OUT_OF_MEMORY" not in str(error).upper():
            raise
        free = free_memory() or 0
        raise MemoryError(
            f"the device has no room for {purpose}: {_size(size * np.dtype(dtype).itemsize)} are needed, "
            f"{_size(free)} are free"
        ) from error


def _size(n: float) -> str:
    return f"{n / 2**30:.3g} GiB" if n >= 2**27 else f"{n / 2**20:.3g} MiB"


def configured(kernel: Any, *launch: Any) -> Any:
    """kernel[launch]; Numba's warning of grids that leave multiprocessors idle is not for small networks."""
    return kernel[launch] if simulated() else _configured(kernel, launch)


@lru_cache(maxsize=256)
def _configured(kernel: Any, launch: tuple) -> Any:
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kernel[launch]


def cooperative_blocks(kernel: Any, signature: tuple, threads: int) -> int:
    """How many blocks of a kernel fit on the device at once."""
    if simulated():
        return 1
    with _lock:
        compiled = kernel.overloads.get(signature) or kernel.compile(signature)
    return int(compiled.max_cooperative_grid_blocks(threads))


# --- generated modules ------------------------------------------------------------------------------------------------


def load(render: Callable[[], str]) -> ModuleType:
    """The module of this text, which names it: nothing in the folder is ever stale."""
    text = render()
    name = f"cuda_{code_folder.key_of(text, sys.version, *map(_version, PACKAGES))}"
    return code_folder.load(code_folder.made("cuda", "cuda"), name, lambda: text)


def _version(name: str) -> str:
    try:
        return version(name.replace("_", "-"))
    except PackageNotFoundError:
        return ""
