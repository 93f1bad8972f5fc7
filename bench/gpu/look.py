"""What the machine is: driver, device, where the parts of CUDA that the engine needs are, versions."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from glob import glob
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from gpu import hooks

PACKAGES = (
    "fastmlp", "numpy", "scipy", "scikit-learn", "numba", "numba-cuda", "numba-cuda-mlir", "llvmlite", "cuda-bindings",
    "cuda-core", "cuda-pathfinder", "torch", "jax", "cupy", "pytest", "hypothesis",
)  # fmt: skip
#: Where a compute-sanitizer may be that is not in PATH: folders of a toolkit, and of its wheel.
SANITIZERS = (
    "bin/compute-sanitizer",
    "compute-sanitizer/compute-sanitizer",
    "extras/compute-sanitizer/compute-sanitizer",
)


def describe() -> dict[str, Any]:
    """Return what was found by name, and under "problem" why the engine cannot run here, or None."""
    found: dict[str, Any] = {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()}
    found["CUDA_HOME"] = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found["compute-sanitizer"] = find_sanitizer()
    found["nvidia-smi"] = _tried(_nvidia_smi)
    found["versions"] = {name: number for name in PACKAGES if (number := _version(name))}
    found["versions"] |= {
        name: one.version for one in distributions() if (name := str(one.metadata["Name"])).startswith("nvidia-")
    }
    found["problem"] = _tried(_why_not)
    if found["problem"] is None:
        found["simulated"] = hooks.simulated()
        if not found["simulated"]:
            found |= {"driver": _tried(_driver), **_libraries()}
        found["problem"] = _first_answer(found)
    return found


def _why_not() -> str | None:
    from fastmlp.engines import backends

    return backends.why_not("cuda")


def _first_answer(found: dict[str, Any]) -> str | None:
    """Ask the device who it is; return why it does not answer, or None."""
    try:
        cuda = hooks.answers()
        device = cuda.get_current_device()
        found["device"] = "simulator" if found["simulated"] else _text(device.name)
        found["compute capability"] = ".".join(map(str, device.compute_capability))
        if not found["simulated"]:
            found["multiprocessors"] = int(device.MULTIPROCESSOR_COUNT)
            found["free memory, total, GiB"] = [
                round(int(n) / 2**30, 1) for n in cuda.current_context().get_memory_info()
            ]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def find_sanitizer() -> str | None:
    """Return the path of compute-sanitizer, None if there is none."""
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), *sorted(glob("/usr/local/cuda*"), reverse=True)]
    roots += [folder for place in sys.path for folder in glob(os.path.join(place or ".", "nvidia", "*"))]
    paths = [Path(root, name) for root in roots if root for name in SANITIZERS]
    return shutil.which("compute-sanitizer") or next((str(path) for path in paths if os.access(path, os.X_OK)), None)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _tried(ask: Callable[[], Any]) -> Any:
    """Return an answer, or the error in its place: what cannot be found out must not end the run."""
    try:
        return ask()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _driver() -> str:
    number = ctypes.c_int(0)
    code = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1").cuDriverGetVersion(
        ctypes.byref(number)
    )
    return f"CUDA {number.value // 1000}.{number.value % 1000 // 10}" if code == 0 else f"error {code}"


def _nvidia_smi() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    asked = "--query-gpu=name,driver_version,power.limit,clocks.max.sm,memory.total"
    done = subprocess.run(["nvidia-smi", asked, "--format=csv,noheader"], capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def _libraries() -> dict[str, Any]:
    """Return where numba-cuda finds libnvvm, libcudadevrt (for barriers of a grid) and the others."""

    def paths() -> dict[str, str]:
        from numba.cuda.cuda_paths import get_cuda_paths

        return {name: f"{found.info} ({found.by})" for name, found in get_cuda_paths().items()}

    def runtime() -> str:
        from numba.cuda.cudadrv.libs import get_cudalib

        return str(get_cudalib("cudadevrt", static=True))

    return {"CUDA libraries": _tried(paths), "libcudadevrt": _tried(runtime)}
