"""Suite `cold`: what a first import and a first fit cost in a fresh process, with empty caches and with filled ones."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from fastmlp.bench import engines, processes, rivals
from fastmlp.bench.race import Tell, summary
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, number, percent

PROCESSES = 11
FITS = 3  # in one process, the first of them cold
NET = "digits"
EPOCHS = (20, 200)  # of a fit
FEW_EPOCHS = (2,)

# What an import of fastmlp must not bring along.
UNWANTED = ("numba", "matplotlib", "rich", "typer", "torch")

# Run as it is, so that nothing of this package is imported before the clock starts.
IMPORTS = f"""
import json, sys, time
start = time.perf_counter()
import sklearn.neural_network
middle = time.perf_counter()
before = set(sys.modules)  # recent versions of scikit-learn import rich themselves
import fastmlp
fastmlp.MLPClassifier
end = time.perf_counter()
unwanted = sorted(set({UNWANTED!r}) & (set(sys.modules) - before))
print(json.dumps({{"scikit-learn": middle - start, "extra": end - middle, "unwanted": unwanted}}))
"""


def run(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measure the imports, then the fits."""
    n = settings.rounds_or(PROCESSES)
    imports = []
    for k in range(n):
        tell(f"import {k + 1} of {n}")
        imports.append(_import())
    unwanted = sorted({name for answer in imports for name in answer["unwanted"]})
    found = {name: summary([answer[name] for answer in imports]) for name in ("scikit-learn", "extra")}
    for times in found.values():
        times["min"] = min(times["seconds"])
    fits, failed = _first_fits(settings, n, tell)
    by_engine, failed_too = _engines(settings, tell)
    return {
        "settings": {"rounds": n, "dtype": settings.dtype, "threads": settings.threads[0], "net": NET},
        "imports": found,
        "unwanted": unwanted,
        "fits": fits,
        "engines": by_engine,
        "problems": [f"import fastmlp imports {name}" for name in unwanted] + failed + failed_too,
        "figures": {
            "import over scikit-learn's, seconds": found["extra"]["median"],
            **{
                f"first fit of {fit['epochs']} epochs {settings.dtype}, seconds": fit["first"]["median"]
                for fit in fits
                if fit["rival"] == "fastmlp"
            },
        },
    }


def _import() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=processes.environment(1), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def _first_fits(settings: Settings, n: int, tell: Tell) -> tuple[list[dict[str, Any]], list[str]]:
    fits, failed = [], []
    for epochs in FEW_EPOCHS if settings.quick_check else EPOCHS:
        request = {"workload": NET, "dtype": settings.dtype, "backend": settings.backend, "epochs": epochs}
        answers: dict[str, list[dict[str, Any]]] = {rival: [] for rival in settings.entrants("cold")}
        for k in range(n):
            for rival, found in answers.items():
                tell(f"first fit of {epochs} epochs, {rival}, {k + 1} of {n}")
                try:
                    found.append(processes.ask(rival, "first fit", request, threads=settings.threads[0]))
                except processes.Failed as failure:
                    failed.append(f"first fit, {rival}: failed: {failure}")
        for rival, found in answers.items():
            if found:
                firsts, laters = [one["first"] for one in found], [one["later"] for one in found]
                ratios = [first / later for first, later in zip(firsts, laters, strict=True)]
                fits.append(
                    {
                        "rival": rival,
                        "epochs": epochs,
                        "first": summary(firsts),
                        "later": summary(laters),
                        "ratio": statistics.median(ratios),
                    }
                )
    return fits, failed


def _engines(settings: Settings, tell: Tell) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure for each engine a first fit with an empty cache, and one in the next process with a full cache."""
    epochs = (FEW_EPOCHS if settings.quick_check else EPOCHS)[0]
    request = {"workload": NET, "dtype": settings.dtype, "backend": settings.backend, "epochs": epochs}
    found, failed = [], []
    for engine in settings.engines or engines.usable():
        tell(f"first fits, {engine}")
        with tempfile.TemporaryDirectory() as folder:
            variables = {"FASTMLP_CACHE_DIR": folder}
            try:
                empty, filled = (
                    processes.ask(rivals.ENGINE + engine, "first fit", request, settings.threads[0], variables)
                    for _ in range(2)
                )
            except processes.Failed as failure:
                failed.append(f"first fits, {engine}: failed: {failure}")
                continue
        found.append(
            {
                "engine": engine,
                "epochs": epochs,
                "empty": empty["first"],
                "filled": filled["first"],
                "later": filled["later"],
            }
        )
    return found, failed


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seconds of the first fit, and the median of the later fits."""
    from fastmlp.bench.workloads import WORKLOADS, Task

    workload = WORKLOADS[request["workload"]]
    X, y = workload.make(request["dtype"])
    task = Task(workload, X, y, request["threads"], request["backend"])
    trainer = rivals.load(request["rival"]).trainer(task, request["rival"])
    seconds = []
    for _ in range(FITS):
        start = time.perf_counter()
        trainer.fit(request["epochs"])
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "later": statistics.median(seconds[1:])}


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    imports, settings = result["imports"], result["settings"]
    names = {"scikit-learn": "sklearn.neural_network", "extra": "fastmlp after it"}
    return [
        Table(
            "Cold start: import",
            ["import of", "median ms", "least ms", "spread"],
            [
                [
                    names[name],
                    number(1e3 * times["median"]),
                    number(1e3 * times["min"]),
                    percent(times["spread"]),
                ]
                for name, times in imports.items()
            ],
            notes=[
                f"Fresh processes: {settings['rounds']}. Not imported by fastmlp: "
                f"{', '.join(name for name in UNWANTED if name not in result['unwanted'])}."
            ],
        ),
        Table(
            "Cold start: first fit",
            ["rival", "epochs", "first fit ms", "later ones ms", "first / later"],
            [
                [
                    fit["rival"],
                    str(fit["epochs"]),
                    number(1e3 * fit["first"]["median"]),
                    number(1e3 * fit["later"]["median"]),
                    number(fit["ratio"], "x"),
                ]
                for fit in result["fits"]
            ],
            notes=[
                f"{settings['net']}, {settings['dtype']}, threads: {settings['threads']}; later ones: the median of "
                f"{FITS - 1} more fits in the same process."
            ],
        ),
        _engines_table(result),
    ]


def _engines_table(result: Mapping[str, Any]) -> Table:
    settings = result["settings"]
    return Table(
        "Cold start: engines",
        ["engine", "epochs", "empty cache ms", "next process ms", "later ones ms"],
        [
            [row["engine"], str(row["epochs"]), *(number(1e3 * row[key]) for key in ("empty", "filled", "later"))]
            for row in result["engines"]
        ],
        notes=[
            f"First fits of fresh processes, one each: with an empty FASTMLP_CACHE_DIR, so that what is compiled is "
            f"compiled now, and with what that left there. {settings['net']}, {settings['dtype']}.",
        ],
    )


def charts(result: Mapping[str, Any]) -> list[Bars]:
    imports, fits = result["imports"], result["fits"]
    return [
        Bars(
            "Import: milliseconds",
            ["sklearn.neural_network", "fastmlp after it"],
            {"ms": [1e3 * imports[name]["median"] for name in ("scikit-learn", "extra")]},
            "ms",
        ),
        Bars(
            "Fit: milliseconds, first and later",
            [f"{fit['rival']}, {fit['epochs']} epochs" for fit in fits],
            {kind: [1e3 * fit[kind]["median"] for fit in fits] for kind in ("first", "later")},
            "ms",
            log=True,
        ),
    ]
