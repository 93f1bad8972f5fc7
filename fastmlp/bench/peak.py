"""The most that this machine's BLAS does: the yardstick for "percent of peak"."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.bench import processes

SIZES = (1024, 2048, 3072)


def peaks(threads: tuple[int, ...], dtype: str, seconds: float) -> dict[str, float]:
    """GFLOP/s of a large product, by thread count, each in a fresh process."""
    request = {"dtype": dtype, "seconds": seconds}
    return {str(n): processes.ask("fastmlp", "peak", request, threads=n)["gflops"] for n in threads}


def best(*measured: Mapping[str, float]) -> dict[str, float]:
    """The largest of several measurements: what slows a product down is never the product."""
    return {threads: max(one[threads] for one in measured) for threads in measured[0]}


def measure(request: Mapping[str, Any]) -> dict[str, float]:
    """Inside a worker: the best of products of square matrices, by NumPy's and by SciPy's BLAS."""
    from scipy.linalg import get_blas_funcs

    rng = np.random.default_rng(0)
    gflops = 0.0
    share = request["seconds"] / (2 * len(SIZES))
    for n in SIZES:
        A, B = (np.asfortranarray(rng.standard_normal((n, n)).astype(request["dtype"])) for _ in range(2))
        gemm = get_blas_funcs("gemm", (A, B))
        C = np.zeros_like(A)
        for product in (lambda: np.matmul(A, B, out=C), lambda: gemm(1.0, A, B, c=C, overwrite_c=True)):
            end = time.perf_counter() + share
            while True:
                start = time.perf_counter()
                product()
                stop = time.perf_counter()
                gflops = max(gflops, 2e-9 * n**3 / (stop - start))
                if stop > end:
                    break
    return {"gflops": gflops}
