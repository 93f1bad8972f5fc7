"""The checks that a child runs, one after the other, with one row for each in a file that is rewritten after it.

So what a child found is known even where it hangs, or where the device's context breaks and takes it down.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpu import hooks
from gpu.children import write_json
from gpu.many import MANY, at_once
from gpu.named import named
from gpu.nets import DTYPES, GRIDS, NETS, Training, compared, repeated, same_bits_in_all_grids
from gpu.precisions import at_precision, precisions

REPEATS, REPEATS_SIMULATED = 5, 2
BLOCKS, BLOCKS_SIMULATED = (3, 64), (2,)
SANITIZED = ("dropout", "sparse", "layer by layer", "batch norm")  # a sanitizer makes code some 50 times slower

Row = tuple[str, Callable[[], str]]


def _named(engine: Any, reference: Any, simulated: bool) -> Iterator[Row]:
    for name, check in named():
        for dtype in DTYPES[-1:] if simulated else DTYPES:
            yield f"{name}, {dtype}", lambda check=check, dtype=dtype: check(engine, reference, dtype)


def _nets(engine: Any, reference: Any, simulated: bool) -> Iterator[Row]:
    for name, case in NETS.items():
        for dtype in DTYPES[:1] if simulated else DTYPES:
            yield (
                f"{name}, {dtype}",
                lambda case=case, dtype=dtype: compared(engine, reference, Training(case, dtype, simulated)),
            )


def _repeats(engine: Any, reference: Any, simulated: bool) -> Iterator[Row]:
    times = REPEATS_SIMULATED if simulated else REPEATS
    for name, case in list(NETS.items())[: 1 if simulated else None]:
        yield name, lambda case=case: repeated(engine, Training(case, "float32", simulated), times)


def _grids(engine: Any, reference: Any, simulated: bool) -> Iterator[Row]:
    blocks = BLOCKS_SIMULATED if simulated else BLOCKS
    for name, case in list(GRIDS.items())[: 2 if simulated else None]:
        for dtype in DTYPES[-1:] if simulated else DTYPES:
            yield (
                f"{name}, {dtype}",
                lambda case=case, dtype=dtype: same_bits_in_all_grids(engine, Training(case, dtype, simulated), blocks),
            )


def _many(engine: Any, reference: Any, simulated: bool) -> Iterator[Row]:
    for name, case in MANY.items():
        for dtype in DTYPES[-1:] if simulated else DTYPES:
            yield (
                f"{name}, {dtype}",
                lambda case=case, dtype=dtype: at_once(engine, Training(case, dtype, simulated), simulated),
            )


def _sanitized(engine: Any, reference: Any, simulated: bool) -> Iterator[Row]:
    """Yield small networks whose machine code is on disk already: the sizes of the simulator, the code of a device."""
    for name in SANITIZED:
        yield name, lambda name=name: compared(engine, reference, Training(NETS[name], "float32", True))
    yield "many", lambda: at_once(engine, Training(MANY["dropout, batch norm"], "float32", True), True)
    on_tensor_cores = at_precision(NETS["small tile"], "high")
    yield "tensor cores", lambda: compared(engine, reference, Training(on_tensor_cores, "float32", True))


CHECKS: dict[str, Callable[[Any, Any, bool], Iterator[Row]]] = {
    "kernels": _named,
    "nets": _nets,
    "repeats": _repeats,
    "grids": _grids,
    "many": _many,
    "sanitized": _sanitized,
    "precisions": precisions,
}


def compiled(engine: Any, reference: Any, simulated: bool) -> Iterator[Row]:
    """Yield everything that compiles, what takes longest first; running it once leaves its code on disk."""
    for name in ("nets", "grids", "many", "sanitized", "precisions", "kernels"):
        for label, check in CHECKS[name](engine, reference, simulated):
            yield f"{name}: {label}", check


def run(name: str, share: tuple[int, int], path: Path) -> None:
    """Run some checks in this process and keep a row for each in a file.

    Parameters
    ----------
    name : str
        A key of `CHECKS`, or "compile" for all of them.
    share : tuple (i, n)
        Of all checks those with a number i, i + n, i + 2 n and so on.
    path : Path
        Of the file: {"total": number of checks, "rows": [{"name", "status", "note", "seconds"}]}, where status is
        "running", "passed" or "failed".
    """
    from fastmlp.engines import backends

    engine, reference = backends.get("cuda"), backends.get("reference")
    checks = compiled if name == "compile" else CHECKS[name]
    chosen = list(checks(engine, reference, hooks.simulated()))[share[0] :: share[1]]
    document: dict[str, Any] = {"total": len(chosen), "rows": []}
    write_json(path, document)
    with hooks.steady():
        for label, check in chosen:
            row = {"name": label, "status": "running", "note": "", "seconds": 0.0}
            document["rows"].append(row)
            write_json(path, document)
            begun = time.perf_counter()
            try:
                row["note"], row["status"] = check(), "passed"
            except Exception as error:
                traceback.print_exc()
                row["note"], row["status"] = f"{type(error).__name__}: {error}".strip()[:500], "failed"
            row["seconds"] = round(time.perf_counter() - begun, 3)
            write_json(path, document)
