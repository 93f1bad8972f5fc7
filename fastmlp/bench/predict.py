"""Suite `predict`: class probabilities of one row and of many, by rival and thread count."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import processes, rivals
from fastmlp.bench.race import Tell, problems, race, ratio
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, difference, number, percent
from fastmlp.bench.workloads import WORKLOADS, Task

ROUNDS = 3
NET = "digits"
ROWS = (1, 100_000)
FEW_ROWS = (1, 1000)  # of a quick check
BLOCK = 0.002  # seconds: shorter calls are timed many at a time


def run(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measure predictions for both numbers of rows."""
    versions = processes.installed(settings.entrants("predict"))
    cases = [_run(rows, settings, versions, tell) for rows in (FEW_ROWS if settings.quick_check else ROWS)]
    return {
        "settings": {"rounds": settings.rounds_or(ROUNDS), "dtype": settings.dtype, "threads": list(settings.threads)},
        "versions": versions,
        "net": list(WORKLOADS[NET].widths),
        "cases": cases,
        "problems": [line for case in cases for line in problems(_rows(case["rows"]), case["rivals"])],
        "figures": {
            f"{_rows(case['rows'])} {settings.dtype}, seconds": ours["threads"][ours["best"]]["median"]
            for case in cases
            if (ours := case["rivals"]["fastmlp"])["best"]
        },
    }


def _run(rows: int, settings: Settings, versions: Mapping[str, str | None], tell: Tell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        WORKLOADS[NET].write(Path(folder), settings.dtype)
        request = {
            "workload": NET,
            "rows": rows,
            "folder": folder,
            "dtype": settings.dtype,
            "backend": settings.backend,
            "seconds": settings.seconds,
        }
        record = race(
            "predict",
            request,
            versions,
            settings.threads,
            settings.rounds_or(ROUNDS),
            0.0,
            lambda text: tell(f"{_rows(rows)}, {text}"),
        )
    everyone = [rival for rival in versions if rival != "fastmlp"]
    return {"rows": rows, "rivals": record, "ratio": {rival: ratio(record, rival) for rival in everyone}}


def _rows(rows: int) -> str:
    return "one row" if rows == 1 else f"{rows:,} rows"


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Time one rival on digits' rows, repeated with a little noise to the wanted number."""
    task = Task.read(request)
    rng = np.random.default_rng(1)
    X = task.X[np.arange(request["rows"]) % len(task.X)]
    X += 0.1 * rng.standard_normal(X.shape, dtype=X.dtype)
    start = time.perf_counter()
    predict = rivals.load(request["rival"]).predictor(task, request["rival"])
    setup = time.perf_counter() - start
    start = time.perf_counter()
    out = predict(X)
    cold = time.perf_counter() - start
    np.save(request["out"], out)
    return {
        "what": "probabilities",
        "losses": [],
        "setup": setup,
        "cold": cold,
        "seconds": repeat(predict, X, request["seconds"]),
    }


def repeat(call: Any, X: np.ndarray, seconds: float) -> list[float]:
    """Return the seconds of single calls; for a short call the mean of each block."""
    start = time.perf_counter()
    call(X)
    calls = max(1, int(BLOCK / (time.perf_counter() - start)))
    found: list[float] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(calls):
            call(X)
        found.append((time.perf_counter() - start) / calls)
    return found


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    threads = [str(n) for n in result["settings"]["threads"]]
    rows = []
    for case in result["cases"]:
        for rival, record in case["rivals"].items():
            times = [record["threads"].get(n) for n in threads]
            shown = [number(1e6 * one["median"]) if one else "-" for one in times]
            best = record["threads"].get(record["best"], {})
            if record["status"] != "ok":
                shown[0] = record["status"]
            rows.append(
                [
                    _rows(case["rows"]),
                    rival,
                    *shown,
                    percent(best.get("spread")),
                    number(1e6 * best["cold"] if best else None),
                    number(case["ratio"].get(rival), "x"),
                    difference(record["array_diff"]) if record["status"] in ("ok", "differs") else "-",
                ]
            )
    settings = result["settings"]
    return [
        Table(
            "Prediction: class probabilities",
            ["input", "rival", *(f"us, {n} thr" for n in threads), "spread", "first us", "ratio", "difference"],
            rows,
            notes=[
                f"Net {'-'.join(map(str, result['net']))}, {settings['dtype']}; rounds: {settings['rounds']}, a fresh "
                "process for each.",
                "us: median microseconds of a call; first us: of the first call in its process.",
                "ratio: times faster than the rival, each at its best thread count.",
                "difference: largest distance from scikit-learn's probabilities, relative to them.",
            ],
            left=["rival"],
        )
    ]


def charts(result: Mapping[str, Any]) -> list[Bars]:
    return [
        Bars(
            f"Prediction of {_rows(case['rows'])}: microseconds",
            names := [rival for rival, record in case["rivals"].items() if record["best"]],
            {"us": _micros(case, names)},
            "us",
        )
        for case in result["cases"]
        if any(record["best"] for record in case["rivals"].values())
    ]


def _micros(case: Mapping[str, Any], names: Sequence[str]) -> list[float | None]:
    records = [case["rivals"][name] for name in names]
    return [1e6 * record["threads"][record["best"]]["median"] for record in records]
