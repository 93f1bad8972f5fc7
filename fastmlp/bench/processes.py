"""Ask a fresh process: the parent's half of worker.py.

FASTMLP_RIVALS_PYTHON may name the interpreter of another environment, in which PyTorch, JAX and onnxruntime are
installed; fastmlp need not be. scikit-learn and fastmlp always run in this one.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fastmlp
from fastmlp import kernels
from fastmlp.bench.rivals import engine_of, row, runs_here

PYTHON = "FASTMLP_RIVALS_PYTHON"

# Seconds after which a process is given up: a step of the largest net takes about one.
LIMIT = 900

# Makes packages of these folders where fastmlp is not installed; in a checkout the second is not inside the first.
BOOTSTRAP = """
import importlib.util, os, sys
for name, folder in zip(("fastmlp", "fastmlp.kernels"), sys.argv[1:]):
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
import fastmlp
fastmlp.kernels = sys.modules["fastmlp.kernels"]
from fastmlp.bench.worker import main
main()
"""


class Failed(Exception):
    """A process that did not answer; the message says why."""


def command(rival: str) -> list[str]:
    """Return the command that starts the worker of a rival."""
    other = os.environ.get(PYTHON)
    if other and not runs_here(rival):
        folders = [str(Path(package.__path__[0]).resolve()) for package in (fastmlp, kernels)]
        return [other, "-c", BOOTSTRAP, *folders]
    return [sys.executable, "-m", "fastmlp.bench.worker"]


# Nobody may compute on an accelerator by accident, nor fill its memory or use short products where it is asked for.
NO_DEVICE = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
DEVICE = {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "NVIDIA_TF32_OVERRIDE": "0"}


def environment(threads: int, cache: str = "", device: bool = False) -> dict[str, str]:
    """Return this process's variables with the thread count of every library, the accelerator hidden or shown."""
    count = str(threads)
    return {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), count),
        "VECLIB_MAXIMUM_THREADS": count,
        "NPROC": count,  # the size of XLA's pool
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}",
        **(DEVICE if device else NO_DEVICE),
        "PYTHONSAFEPATH": "1",  # a file in the present folder must not pass for a library
        **({"TORCHINDUCTOR_CACHE_DIR": cache} if cache else {}),
    }


def ask(
    rival: str,
    action: str,
    request: Mapping[str, Any],
    threads: int = 1,
    variables: Mapping[str, str] | None = None,
    limit: float = LIMIT,
) -> dict[str, Any]:
    """Return the answer of a fresh process; its environment may get more variables, `limit` is in seconds.

    Raises
    ------
    Failed
        If it ended without one.
    """
    folder = request.get("folder")
    cache = os.path.join(folder, f"compiled-{threads}") if folder else ""
    try:
        done = subprocess.run(
            command(rival),
            input=json.dumps({"action": action, "rival": rival, "threads": threads, **request}),
            env={**environment(threads, cache, _computes_on_a_device(rival, request)), **(variables or {})},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"no answer within {limit:.0f} s") from None
    except OSError as error:
        raise Failed(f"cannot start {command(rival)[0]}: {error.strerror}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise Failed(lines[-1] if lines else f"the process ended with {done.returncode}")
    return json.loads(done.stdout)


def _computes_on_a_device(rival: str, request: Mapping[str, Any]) -> bool:
    engine = engine_of(rival) or (request.get("backend") if rival == "fastmlp" else None)
    return "cuda" in (engine, request.get("device"))


def versions(request: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the version of each distribution, None if it is not installed, without an import; runs in a worker."""
    found: dict[str, str | None] = {}
    for name in request["packages"]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def installed(names: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each rival that can run, None for one that is absent."""
    packages = {name: row(name).packages for name in names}
    request = {"packages": sorted({package for needed in packages.values() for package in needed})}
    pythons = {command(name)[0]: name for name in packages}
    answers = {python: ask(name, "processes:versions", request) for python, name in pythons.items()}
    found = {name: [answers[command(name)[0]][package] for package in needed] for name, needed in packages.items()}
    return {name: versions[0] if all(versions) else None for name, versions in found.items()}
