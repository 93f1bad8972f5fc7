"""Suite `predict`: class probabilities of one row and of many, by rival and thread count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.bench import rivals
from fastmlp.bench.race import Run, best, medians, ratios, shown
from fastmlp.bench.tables import Bars, Table, difference, percent, scaled, times
from fastmlp.bench.timing import clock, repeat, timed
from fastmlp.bench.workloads import WORKLOADS, Task

ROUNDS = 3
NET = "digits"
ROWS = (1, 100_000)
FEW_ROWS = (1, 1000)  # of a quick check
BLOCK = 0.002  # seconds: shorter calls are timed many at a time


def run(run: Run) -> dict[str, Any]:
    """Measure predictions for both numbers of rows."""
    cases = []
    for rows in FEW_ROWS if run.settings.quick_check else ROWS:
        name = "one row" if rows == 1 else f"{rows:,} rows"
        records = run.race(name, WORKLOADS[NET], rows=rows)
        cases.append({"name": name, "rows": rows, "rivals": records, "ratio": ratios(records)})
    figures = medians(cases, f" {run.settings.dtype}, seconds")
    return {"versions": run.versions, "net": list(WORKLOADS[NET].widths), "cases": cases, "figures": figures}


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Time one rival on digits' rows, repeated with a little noise to the wanted number."""
    task = Task.read(request)
    rng = np.random.default_rng(1)
    X = task.X[np.arange(request["rows"]) % len(task.X)]
    X += 0.1 * rng.standard_normal(X.shape, dtype=X.dtype)
    setup, predict = timed(rivals.load(request["rival"]).predictor, task, request["rival"])
    cold, out = timed(predict, X)
    np.save(request["out"], out)
    calls = max(1, int(BLOCK / clock(predict, X)))

    def block() -> None:
        for _ in range(calls):
            predict(X)

    seconds = [elapsed / calls for elapsed in repeat(lambda: clock(block), request["seconds"])]
    return {"what": "probabilities", "losses": [], "setup": setup, "cold": cold, "seconds": seconds}


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    settings = result["settings"]
    rows = [
        {
            "input": case["name"],
            "rival": rival,
            **{f"us, {n} thr": shown(record, str(n)) for n in settings["threads"]},
            "spread": percent(best(record).get("spread")),
            "first us": scaled(best(record).get("cold"), 1e6),
            "ratio": times(case["ratio"].get(rival)),
            "difference": difference(record["array_diff"]) if record["status"] in ("ok", "differs") else "-",
        }
        for case in result["cases"]
        for rival, record in case["rivals"].items()
    ]
    notes = [
        f"Net {'-'.join(map(str, result['net']))}, {settings['dtype']}; rounds: {settings['rounds']}, a fresh process "
        "for each.",
        "us: median microseconds of a call; first us: of the first call in its process.",
        "ratio: times faster than the rival, each at its best thread count.",
        "difference: largest distance from scikit-learn's probabilities, relative to them.",
    ]
    return [Table.of("Prediction: class probabilities", rows, notes)]


def charts(result: Mapping[str, Any]) -> list[Bars]:
    return [
        Bars(f"Prediction of {case['name']}: microseconds", list(known), {"us": list(known.values())}, "us")
        for case in result["cases"]
        if (known := {rival: 1e6 * best(one)["median"] for rival, one in case["rivals"].items() if best(one)})
    ]
