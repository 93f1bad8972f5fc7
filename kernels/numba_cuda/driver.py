"""What the CUDA engine needs to know of the machine: the package, the driver, the device; and the modules it generates.

Where it sits: engine.py calls :func:`check` when it is imported, which must be cheap and must not import Numba; the
other files call :func:`api` when they compute, and code.py :func:`load` for a module.  This is the one file that knows
which package is imported as ``cuda``: numba-cuda, its successor numba-cuda-mlir, or Numba's simulator
(NUMBA_ENABLE_CUDASIM=1), in which Python's threads are the GPU's.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from glob import glob
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from fastmlp.kernels import code_folder

#: Package -> module that has ``jit``, ``to_device`` and the rest, in the order in which they are looked for.
PACKAGES = {"numba_cuda": "numba.cuda", "numba_cuda_mlir": "numba_cuda_mlir.cuda"}
#: The module of numba-cuda that makes ``numba.cuda`` lead to numba-cuda; its .pth file imports it when Python starts.
REDIRECTOR = "_numba_cuda_redirector"
#: The oldest driver that numba-cuda works with, as the CUDA version that it supports.
OLDEST_DRIVER = 12000
SIMULATED_BYTES, SIMULATED_SHARED_BYTES = 2**30, 227 * 1024
DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
#: Where Linux keeps the devices; the second: a GPU of the Windows around it.
DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/dxg")
#: CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL of the driver's cuPointerGetAttribute.
DEVICE_ORDINAL = 9

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
    found = package()
    if found is None or (found == "numba_cuda" and find_spec("numba") is None):
        missing = "numba_cuda" if found is None else "numba"
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
    """Return the module that the engine calls ``cuda``.

    Raises
    ------
    ImportError
        If no package is installed, or ``numba.cuda`` is the old code inside Numba.
    """
    name = package()
    if name is None:
        raise ImportError("No module named 'numba_cuda'", name="numba_cuda")
    if name == "numba_cuda":
        _redirect()
    return import_module(PACKAGES[name])


def _redirect() -> None:
    """Make ``numba.cuda`` lead to numba-cuda where its .pth file has not been read.

    Python reads .pth files in site-packages only: not in the folder of ``pip install --target``, nor in those of
    PYTHONPATH.  Numba's own ``numba.cuda``, which is no longer maintained, would then be imported without a word.
    """
    loaded = sys.modules.get(PACKAGES["numba_cuda"])
    if loaded is None:
        import_module(REDIRECTOR)
        loaded = import_module(PACKAGES["numba_cuda"])
    place = Path(str(loaded.__file__))
    if "numba_cuda" not in place.parts:
        raise ImportError(
            f"numba.cuda was imported from Numba itself ({place.parent}), which numba-cuda replaces: "
            f"import {REDIRECTOR} or fastmlp first"
        )


def record(made: type) -> type:
    """Return a class of named tuples that device code can make.

    numba-cuda-mlir (0.6) reads named tuples, but has to be told how one is made.
    """
    if package() == "numba_cuda_mlir":
        from numba_cuda_mlir import types
        from numba_cuda_mlir.extending import lower_builtin, refresh_registries

        lower_builtin(made, types.VarArg(types.Any))(_make_record)
        refresh_registries()
    return made


def _make_record(builder: Any, target: Any, args: Any, kwargs: Any) -> None:
    """A named tuple is the tuple of its fields."""
    builder.store_var(target, tuple(builder.load_var(argument) for argument in args))


@lru_cache(maxsize=1)
def api() -> ModuleType:
    """Return the same module, once a device has answered.

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


# --- the device -------------------------------------------------------------------------------------------------------


def current_device() -> int:
    """Return the number of the GPU that this thread works on."""
    return 0 if simulated() else int(api().get_current_device().id)


def multiprocessors() -> int:
    """Return how many multiprocessors the GPU has that this thread works on."""
    return int(api().get_current_device().MULTIPROCESSOR_COUNT)


def shared_bytes() -> int:
    """Return how many bytes of shared memory a block may have on the GPU that this thread works on."""
    if simulated():
        return SIMULATED_SHARED_BYTES
    return int(api().get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)


def tensor_cores() -> bool:
    """Return whether this thread's GPU multiplies TF32, and the package can write such an instruction."""
    if package() != "numba_cuda":
        return False
    return simulated() or tuple(api().get_current_device().compute_capability) >= (8, 0)


def device_of(pointer: int) -> int:
    """Return the number of the GPU that an address belongs to; the current one for no address, as of an empty array."""
    if simulated() or not pointer:
        return current_device()
    found = ctypes.c_int(-1)
    get = ctypes.CDLL(DRIVER_LIBRARY).cuPointerGetAttribute
    status = get(ctypes.byref(found), ctypes.c_int(DEVICE_ORDINAL), ctypes.c_uint64(pointer))
    if status != 0:
        raise ValueError(f"the address {pointer:#x} belongs to no GPU of this process (CUDA error {status})")
    return found.value


def check_device(name: str, array: Any) -> None:
    """Refuse an array that is on another GPU than this thread works on.

    Raises
    ------
    ValueError
        Naming both.
    """
    # the simulator's arrays have no address
    described = getattr(array, "__cuda_array_interface__", {"data": (0, False)})
    found, here = device_of(described["data"][0]), current_device()
    if found != here:
        raise ValueError(
            f"{name} is on GPU {found}, and this thread works on GPU {here}: move {name} there, or call "
            f"{PACKAGES[package() or 'numba_cuda']}.select_device({found}) before the network is fitted"
        )


def wait_for(array: Any) -> None:
    """Wait until the library that made an array on the device has written it.

    Where the array names its stream, that stream is waited for (version 3 of the CUDA array interface, and Numba's
    own arrays); where it names none, all work on the device.
    """
    if hasattr(array, "__cuda_ndarray__"):
        (array.stream or api().default_stream()).synchronize()
        return
    described = array.__cuda_array_interface__
    if "stream" not in described:
        api().synchronize()
    elif described["stream"] is not None:
        api().external_stream(described["stream"]).synchronize()


# --- memory -----------------------------------------------------------------------------------------------------------


def free_memory() -> int | None:
    """Return the bytes that the device has left; None in the simulator."""
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
    """Return a vector on the device, at least one number long; its contents are arbitrary.

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
        if not _out_of_memory(error):
            raise
        needed, free = size * np.dtype(dtype).itemsize, free_memory() or 0
        raise MemoryError(
            f"the device has no room for {purpose}: {_size(needed)} are needed, {_size(free)} are free"
        ) from error


def pinned(shape: tuple[int, ...], dtype: Any, purpose: str) -> Any:
    """Return an array of the host's in page-locked memory, which the device copies while the host goes on.

    Raises
    ------
    MemoryError
        Saying how much was asked for, and what for.
    """
    import numpy as np

    try:
        return api().pinned_array(shape, dtype)
    except Exception as error:
        if not _out_of_memory(error):
            raise
        needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raise MemoryError(f"the host has no page-locked memory for {purpose}: {_size(needed)} are needed") from error


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "OUT_OF_MEMORY" in str(error).upper()


def _size(n: float) -> str:
    return f"{n / 2**30:.3g} GiB" if n >= 2**27 else f"{n / 2**20:.3g} MiB"


# --- launches ---------------------------------------------------------------------------------------------------------


class Launch:
    """A kernel with its number of blocks and threads, its stream and bytes of shared memory, ready to be called."""

    def __init__(self, kernel: Any, blocks: int, threads: int, stream: Any = 0, shared: int = 0) -> None:
        self._kernel, self._configuration = kernel, (blocks, threads, stream, shared)
        self._configured: Any = None
        if not simulated():  # there a kernel keeps one configuration, the latest
            with _lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of grids that leave multiprocessors idle: small networks need no more
                self._configured = kernel[self._configuration]

    def __call__(self, *arguments: Any) -> None:
        kernel = self._kernel[self._configuration] if self._configured is None else self._configured
        kernel(*arguments)


class Timer:
    """Seconds of what is launched in a stream between start and stop, by the device's clock."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._events = [] if simulated() else [api().event(), api().event()]
        self._start = self._stop = 0.0

    def start(self) -> None:
        if self._events:
            self._events[0].record(self._stream)
        else:
            self._start = time.perf_counter()

    def stop(self) -> None:
        if self._events:
            self._events[1].record(self._stream)
        else:
            self._stop = time.perf_counter()

    def seconds(self) -> float:
        """Wait for the stop, and return the seconds between."""
        if not self._events:
            return self._stop - self._start
        self._events[1].synchronize()
        return 1e-3 * float(api().event_elapsed_time(*self._events))


def _compiled(kernel: Any, signature: tuple) -> Any:
    with _lock:
        return kernel.overloads.get(signature) or kernel.compile(signature)


def cooperative_blocks(kernel: Any, signature: tuple, threads: int) -> int:
    """Return how many blocks of a kernel fit on the device at once."""
    if simulated():
        return 1
    return int(_compiled(kernel, signature).max_cooperative_grid_blocks(threads))


def allow_shared(kernel: Any, arguments: Sequence[Any], n_bytes: int) -> None:
    """Let a kernel's blocks have so many bytes of shared memory besides what its text asks for.

    A block gets 48 KiB without asking; the package asks for no more by itself.
    """
    if simulated():
        return
    function = _compiled(kernel, tuple(map(kernel.typeof_pyval, arguments)))._codelibrary.get_cufunc()
    module = import_module(f"{PACKAGES[package() or 'numba_cuda']}.cudadrv.driver")
    attribute = module.binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    module.driver.cuKernelSetAttribute(attribute, n_bytes, function.handle, function.device.id)


# --- generated modules ------------------------------------------------------------------------------------------------


def load(render: Callable[[], str]) -> ModuleType:
    """Return the module of this text; the name is made of the text, so that nothing in the folder is ever stale."""
    text = render()
    name = f"cuda_{code_folder.key_of(text, sys.version, *map(_version, PACKAGES))}"
    return code_folder.load(code_folder.made("cuda", "cuda"), name, lambda: text)


def _version(name: str) -> str:
    try:
        return version(name.replace("_", "-"))
    except PackageNotFoundError:
        return ""
