"""Say what this process runs on: machine, versions, engines, instruction set, threads, BLAS.

Feeds `fastmlp info` and is stored beside every benchmark result. Nothing in it names a path or a
user, so results can be shared.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "FASTMLP_ISA",
)


def describe() -> dict[str, Any]:
    """Describe the environment in plain containers, ready for JSON.

    Examples
    --------
    >>> from fastmlp.engines.environment import describe
    >>> sorted(describe())
    ['blas', 'cpus', 'engines', 'isa', 'machine', 'variables', 'versions']
    """
    return {
        "versions": versions(),
        "machine": machine(),
        "cpus": cpus(),
        "variables": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "engines": engines(),
        "isa": instruction_sets(),
        "blas": thread_pools(),
    }


def versions() -> dict[str, str]:
    """Return the versions of fastmlp, of Python and of the packages that the estimators use."""
    packages = ("fastmlp", "numpy", "scipy", "scikit-learn")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {**found, "python": platform.python_version()}


def machine() -> dict[str, str]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "compiler": platform.python_compiler(),
    }


def _processor() -> str:
    """Return the processor's name; platform.processor() does not know it on Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except (OSError, UnicodeDecodeError):
        pass
    return platform.processor() or platform.machine()


def cpus() -> int:
    """Return the cores that this process may use, by affinity, container limits and LOKY_MAX_CPU_COUNT."""
    import joblib

    return int(joblib.cpu_count())


def engines() -> dict[str, dict[str, Any]]:
    """Return for every engine whether it can be used here, and if not, why."""
    from fastmlp.engines import backends

    reasons = {name: backends.why_not(name) for name in backends.BACKENDS}
    found: dict[str, dict[str, Any]] = {
        name: {"available": reason is None, "reason": reason} for name, reason in reasons.items()
    }
    if reasons["numba"] is None:
        from fastmlp.kernels.numba_cpu import cache

        found["numba"]["compiled"] = cache.compiled()
    return found


def instruction_sets() -> dict[str, Any]:
    """Return the instruction set that the Cython engine picked, those that it can use, and its matrix units."""
    try:
        from fastmlp.kernels import _engine
    except ImportError:
        return {
            "chosen": None,
            "usable": [],
            "matrix_units": None,
            "unit_precisions": [],
            "why_no_matrix_units": "there is no Cython engine",
        }
    units, precisions, reason = _engine.matrix_units()
    return {
        "chosen": _engine.isa(),
        "usable": list(_engine.isas()),
        "matrix_units": units,
        "unit_precisions": [*precisions],
        "why_no_matrix_units": reason,
    }


def thread_pools() -> list[dict[str, Any]]:
    """Return the BLAS and OpenMP libraries that threadpoolctl finds, without their paths."""
    import scipy.linalg  # noqa: F401  (loads its BLAS)
    import sklearn.neural_network  # noqa: F401  (loads its OpenMP)
    import threadpoolctl

    return [
        {key: value for key, value in pool.items() if key != "filepath"} for pool in threadpoolctl.threadpool_info()
    ]


def lines(described: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the name and the text of each line that shows the result of `describe`."""
    versions, machine, isa = (described[key] for key in ("versions", "machine", "isa"))
    variables = [f"{name}={value}" for name, value in described["variables"].items()]
    found = [
        ("fastmlp", versions["fastmlp"]),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items() if k != "fastmlp")),
        ("machine", f"{machine['processor']}, {machine['system']}"),
        ("threads", ", ".join([f"{described['cpus']} usable cores", *variables])),
    ]
    for name, engine in described["engines"].items():
        usable = "available" if engine["available"] else f"not available: {engine['reason']}"
        for dtype, on_disk in engine.get("compiled", {}).items():
            usable += f"; {dtype} {'compiled' if on_disk else 'not compiled yet'}"
        found.append((f"engine {name}", usable))
    usable = ", ".join(isa["usable"])
    found.append(("instruction set", f"{isa['chosen']} (of {usable})" if usable else "none"))
    precisions = " and ".join(isa["unit_precisions"])
    units = f"{isa['matrix_units']}, for matmul_precision {precisions}" if precisions else None
    found.append(("matrix units", units or f"none: {isa['why_no_matrix_units']}"))
    for pool in described["blas"]:
        words = pool["internal_api"], pool.get("version"), pool.get("architecture"), f"{pool['num_threads']} threads"
        label = "BLAS" if pool["user_api"] == "blas" else pool["user_api"]
        found.append((label, " ".join(str(word) for word in words if word)))
    return found
