"""The most that this machine does in a large product: the yardstick for "percent of peak"."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from fastmlp.bench import processes
from fastmlp.bench.timing import clock, repeat
from fastmlp.engines import environment

SIZES = (1024, 2048, 3072)

# OpenBLAS takes processors that it does not know for older ones; told so, it uses all of an AVX-512 machine.
FORCED = {"OPENBLAS_CORETYPE": "SkylakeX"}

Peaks = dict[str, dict[str, float]]  # "default" and "forced" -> thread count -> GFLOP/s


def peaks(threads: tuple[int, ...], dtype: str, seconds: float) -> Peaks:
    """Return the GFLOP/s of large products, each thread count and set of kernels in a fresh process."""
    choices: dict[str, Mapping[str, str]] = {"default": {}}
    if "avx512" in environment.instruction_sets()["usable"]:
        choices["forced"] = FORCED
    request = {"dtype": dtype, "seconds": seconds}
    return {
        choice: {
            str(n): processes.ask("fastmlp", "peak", request, threads=n, variables=variables)["gflops"] for n in threads
        }
        for choice, variables in choices.items()
    }


def best(measured: list[Peaks]) -> Peaks:
    """Return the largest of several measurements: a slower product was disturbed by something else."""
    first = measured[0]
    return {
        choice: {threads: max(one[choice][threads] for one in measured) for threads in first[choice]}
        for choice in first
    }


def highest(found: Peaks) -> dict[str, float]:
    """Return the highest peak by thread count, over all sets of kernels."""
    return {threads: max(one[threads] for one in found.values()) for threads in found["default"]}


def measure(request: Mapping[str, Any]) -> dict[str, float]:
    """Measure in a worker the best of products of square matrices, by NumPy's and by SciPy's BLAS."""
    from scipy.linalg import get_blas_funcs

    rng = np.random.default_rng(0)
    seconds = request["seconds"] / len(SIZES) / 2
    gflops = 0.0
    for n in SIZES:
        A, B = (np.asfortranarray(rng.standard_normal((n, n)).astype(request["dtype"])) for _ in range(2))
        C, gemm = np.zeros_like(A), get_blas_funcs("gemm", (A, B))
        by_numpy = repeat(partial(clock, partial(np.matmul, A, B, out=C)), seconds)
        by_scipy = repeat(partial(clock, partial(gemm, 1.0, A, B, c=C, overwrite_c=True)), seconds)
        gflops = max(gflops, 2e-9 * n**3 / min(by_numpy + by_scipy))
    return {"gflops": gflops}
