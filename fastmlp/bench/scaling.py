"""Suite `scaling`: time per row and memory, from 10^4 to 10^7 rows of a memory-mapped X."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import processes, timing
from fastmlp.bench.race import Run
from fastmlp.bench.tables import Bars, Table, number, scaled

ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
FEW_ROWS = (1000, 2000)
FEATURES = 20
HIDDEN = (50,)
BATCH = 256
BYTES = FEATURES * 4 + 8  # of a row of X and y
ROUNDS = 5  # of each fit up to a million rows; more rows are fitted once


def run(run: Run) -> dict[str, Any]:
    """Run one process per number of rows for the time, and one for the memory."""
    settings, sizes = run.settings, FEW_ROWS if run.settings.quick_check else ROWS
    with tempfile.TemporaryDirectory() as folder:
        fitting = [n for n in sizes if BYTES * n < 0.9 * shutil.disk_usage(folder).free]
        run.problems += [f"{n:,} rows: failed: no room in {tempfile.gettempdir()}" for n in sizes if n not in fitting]
        run.tell("scaling: writing the data")
        _write(Path(folder), max(fitting))
        wanted = {f"{n:,} rows, {threads} thr": (n, threads) for n in fitting for threads in settings.threads}

        def ask(name: str) -> dict[str, Any]:
            n, threads = wanted[name]
            request = settings.question(folder=folder, rows=n)
            found, memory = (
                processes.ask("fastmlp", "scaling", {**request, "what": what}, threads) for what in ("time", "memory")
            )
            return {"rows": n, "threads": threads, **found, "memory": memory}

        answers = run.gather("scaling", wanted, ask, rounds=1)
    cases = [case for found in answers.values() for case in found]
    return {
        "settings": {"threads": list(settings.threads), "batch_size": BATCH, "widths": [FEATURES, *HIDDEN, 1]},
        "cases": cases,
        "flatness": {str(threads): _flatness(cases, threads) for threads in settings.threads},
        "figures": {f"{_name(case)}, seconds of an epoch": case["shuffled"]["epoch"] for case in cases},
    }


def _name(case: Mapping[str, Any]) -> str:
    return f"{case['rows']:,} rows, {case['threads']} thr"


def _flatness(cases: list[dict[str, Any]], threads: int) -> dict[str, float | None]:
    """Return the slowest time per row over the fastest, of epochs and of whole fits, shuffled and in order."""
    found = {}
    for order in ("shuffled", "in order"):
        for part in ("epoch", "fit"):
            per_row = [case[order][part] / case["rows"] for case in cases if case["threads"] == threads]
            found[f"{part}, {order}"] = max(per_row) / min(per_row) if per_row else None
    return found


def _write(folder: Path, rows: int, chunk: int = 1_000_000) -> None:
    """Write X (rows, FEATURES) float32 and y (rows,) as plain files; smaller cases use the first rows."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal(FEATURES, dtype=np.float32)
    with (folder / "X").open("wb") as X_file, (folder / "y").open("wb") as y_file:
        for start in range(0, rows, chunk):
            X = rng.standard_normal((min(chunk, rows - start), FEATURES), dtype=np.float32)
            X.tofile(X_file)
            (X @ W > 0).astype(np.int64).tofile(y_file)


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure times, or memory, of fits on the first rows of the files, which are mapped read-only."""
    import fastmlp

    n, folder = request["rows"], Path(request["folder"])
    X = np.memmap(folder / "X", np.float32, "r", shape=(n, FEATURES))
    y = np.fromfile(folder / "y", np.int64, n)

    def fit(epochs: int, shuffle: bool = True, rows: int = n) -> float:
        estimator = fastmlp.MLPClassifier(
            HIDDEN,
            batch_size=BATCH,
            max_iter=epochs,
            shuffle=shuffle,
            tol=0.0,
            n_iter_no_change=np.inf,
            random_state=0,
            n_jobs=request["threads"],
            backend=request["backend"],
        )
        return timing.fit(estimator, X[:rows], y[:rows])

    if request["what"] == "memory":
        fit(1, rows=BATCH)  # what is loaded once is no part of a fit
        return _memory(fit, request, X, y)
    fit(1)  # reads the file and warms up
    repeats = ROUNDS if n <= 1_000_000 else 1
    found: dict[str, Any] = {}
    for name, shuffle in (("shuffled", True), ("in order", False)):
        one = float(np.median([fit(1, shuffle) for _ in range(repeats)]))
        three = float(np.median([fit(3, shuffle) for _ in range(repeats)]))
        found[name] = {"fit": one, "epoch": (three - one) / 2}
    return found


def _memory(fit: Callable[[int], float], request: Mapping[str, Any], X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Return the memory that a fit of one epoch adds at its peak, and its limit."""
    from fastmlp.engines import backends
    from fastmlp.model.network import Network

    network = Network((FEATURES, *HIDDEN, 1), ("relu",), "binary_log_loss", np.dtype(np.float32))
    workspace = backends.get(request["backend"]).workspace(network, BATCH, request["threads"])
    before, resident = anonymous(), peak_resident()
    with watch() as most:
        fit(1)
    after = peak_resident()
    return {
        "anonymous": None if before is None else most[0] - before,
        "resident": None if resident is None or after is None else after - resident,
        "X": X.nbytes,
        "y": y.nbytes,
        "params": 3 * network.n_params * network.dtype.itemsize,
        "workspace": getattr(workspace, "nbytes", None),
    }


def anonymous() -> int | None:
    """Return the bytes of this process that no file backs, without pages of a mapped X; None if unknown."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("RssAnon:")), None)
    return None if line is None else 1024 * int(line.split()[1])


def peak_resident() -> int | None:
    """Return the largest number of bytes that this process ever had in memory, with mapped files."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if os.uname().sysname == "Darwin" else 1024 * most


@contextmanager
def watch() -> Iterator[list[int]]:
    """Give a list whose only item is the most anonymous memory seen, in a thread that looks every two milliseconds."""
    most, stop = [anonymous() or 0], threading.Event()

    def look() -> None:
        while not stop.wait(0.002):
            most[0] = max(most[0], anonymous() or 0)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    settings, cases = result["settings"], result["cases"]
    times = [
        {
            "rows": f"{case['rows']:,}",
            "threads": case["threads"],
            **{
                f"{name}{note}": 1e9 * case[order][part] / case["rows"]
                for order, note in (("shuffled", ""), ("in order", ", no shuffle"))
                for part, name in (("epoch", "epoch"), ("fit", "whole fit"))
            },
        }
        for case in cases
    ]
    memory = [
        {
            "rows": f"{case['rows']:,}",
            "threads": case["threads"],
            "anonymous": scaled(found["anonymous"], 1e-6),
            "bytes/row": scaled(found["anonymous"], 1 / case["rows"]),
            **{key: scaled(found[key], 1e-6) for key in ("resident", "X")},
            "3 x params": scaled(found["params"], 1e-6),
            "workspace": scaled(found["workspace"], 1e-6),
        }
        for case in cases
        for found in [case["memory"]]
    ]
    flat = [
        f"Slowest over fastest, threads: {threads}: "
        + ", ".join(f"{name} {number(value)}" for name, value in found.items())
        for threads, found in result["flatness"].items()
    ]
    notes = [
        f"Net {'-'.join(map(str, settings['widths']))}, batch {settings['batch_size']}, float32, X a read-only memory "
        "map.",
        "whole fit: of one epoch; epoch: half of what a fit of three takes more.",
        *flat,
    ]
    notes_on_memory = [
        "anonymous: memory that no file backs; a copy of X would be in it.",
        "resident: with the pages of X, which the system may take back.",
    ]
    return [
        Table.of("Scaling: nanoseconds per row", times, notes),
        Table.of("Scaling: megabytes that a fit adds at its peak", memory, notes_on_memory),
    ]


def charts(result: Mapping[str, Any]) -> list[Bars]:
    cases = result["cases"]
    labels = [_name(case) for case in cases]
    orders = {"shuffled": "shuffled", "no shuffle": "in order"}
    times = {name: [1e9 * case[order]["epoch"] / case["rows"] for case in cases] for name, order in orders.items()}
    memory = {kind: [scaled(case["memory"][kind], 1e-6) for case in cases] for kind in ("anonymous", "X")}
    return [
        Bars("Scaling: nanoseconds per row of an epoch", labels, times, "ns"),
        Bars("Scaling: megabytes that a fit adds, beside X", labels, memory, "MB", log=True),
    ]
