"""Suite `cold`: what a first import and a first fit cost in a fresh process, with empty caches and with filled ones."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from fastmlp.bench import engines, processes, rivals
from fastmlp.bench.race import Run, summary
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, percent, times
from fastmlp.bench.timing import clock
from fastmlp.bench.workloads import WORKLOADS, Task

ROUNDS = 11
FITS = 3  # in one process, the first of them cold
NET = "digits"
EPOCHS = (20, 200)  # of a fit
FEW_EPOCHS = (2,)

# What an import of fastmlp must not bring along.
UNWANTED = ("numba", "matplotlib", "rich", "typer", "torch")

IMPORTED = {"scikit-learn": "sklearn.neural_network", "extra": "fastmlp after it"}

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


def run(run: Run) -> dict[str, Any]:
    """Measure the imports, then the fits."""
    settings = run.settings
    imports = run.gather("import", ["fastmlp"], lambda _: _import())["fastmlp"]
    unwanted = sorted({name for answer in imports for name in answer["unwanted"]})
    run.problems += [f"import fastmlp imports {name}" for name in unwanted]
    found = {name: summary([answer[name] for answer in imports]) for name in IMPORTED}
    for one in found.values():
        one["min"] = min(one["seconds"])
    all_epochs = FEW_EPOCHS if settings.quick_check else EPOCHS
    fits = [fit for epochs in all_epochs for fit in _first_fits(run, epochs)]
    figures = {
        f"first fit of {fit['epochs']} epochs {settings.dtype}, seconds": fit["first"]["median"]
        for fit in fits
        if fit["rival"] == "fastmlp"
    }
    return {
        "settings": settings.shown(threads=settings.threads[0], net=NET),
        "imports": found,
        "unwanted": unwanted,
        "fits": fits,
        "engines": _engines(run, all_epochs[0]),
        "figures": {"import over scikit-learn's, seconds": found["extra"]["median"], **figures},
    }


def _import() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=processes.environment(1), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def _ask(settings: Settings, epochs: int, rival: str, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    question = settings.question(WORKLOADS[NET], epochs=epochs)
    return processes.ask(rival, "cold", question, threads=settings.threads[0], variables=variables)


def _first_fits(run: Run, epochs: int) -> Iterator[dict[str, Any]]:
    rivals = run.settings.entrants("cold")
    answers = run.gather(f"first fit of {epochs} epochs", rivals, partial(_ask, run.settings, epochs))
    for rival, found in answers.items():
        if found:
            times = {kind: summary([one[kind] for one in found]) for kind in ("first", "later")}
            ratio = statistics.median(one["first"] / one["later"] for one in found)
            yield {"rival": rival, "epochs": epochs, **times, "ratio": ratio}


def _engines(run: Run, epochs: int) -> list[dict[str, Any]]:
    """Measure for each engine a first fit with an empty cache, and one in the next process with a full cache."""

    def ask(engine: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            variables = {"FASTMLP_CACHE_DIR": folder}
            empty, filled = (_ask(run.settings, epochs, rivals.ENGINE + engine, variables) for _ in range(2))
        times = {"empty": empty["first"], "filled": filled["first"], "later": filled["later"]}
        return {"engine": engine, "epochs": epochs, **times}

    answers = run.gather("first fits", run.settings.engines or engines.usable(), ask, rounds=1)
    return [answer for found in answers.values() for answer in found]


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seconds of the first fit, and the median of the later fits."""
    workload = WORKLOADS[request["workload"]]
    task = Task(workload, *workload.make(request["dtype"]), request["threads"], request["backend"])
    trainer = rivals.load(request["rival"]).trainer(task, request["rival"])
    first, *later = (clock(trainer.fit, request["epochs"]) for _ in range(FITS))
    return {"first": first, "later": statistics.median(later)}


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    settings = result["settings"]
    imports = [
        {
            "import of": IMPORTED[name],
            "median ms": 1e3 * found["median"],
            "least ms": 1e3 * found["min"],
            "spread": percent(found["spread"]),
        }
        for name, found in result["imports"].items()
    ]
    fits = [
        {
            "rival": fit["rival"],
            "epochs": fit["epochs"],
            "first fit ms": 1e3 * fit["first"]["median"],
            "later ones ms": 1e3 * fit["later"]["median"],
            "first / later": times(fit["ratio"]),
        }
        for fit in result["fits"]
    ]
    absent = ", ".join(name for name in UNWANTED if name not in result["unwanted"])
    what = f"{settings['net']}, {settings['dtype']}, threads: {settings['threads']}"
    note = f"{what}; later ones: the median of {FITS - 1} more fits in the same process."
    return [
        Table.of(
            "Cold start: import",
            imports,
            [f"Fresh processes: {settings['rounds']}. Not imported by fastmlp: {absent}."],
        ),
        Table.of("Cold start: first fit", fits, [note]),
        _engines_table(result),
    ]


def _engines_table(result: Mapping[str, Any]) -> Table:
    settings = result["settings"]
    rows = [
        {
            "engine": row["engine"],
            "epochs": row["epochs"],
            "empty cache ms": 1e3 * row["empty"],
            "next process ms": 1e3 * row["filled"],
            "later ones ms": 1e3 * row["later"],
        }
        for row in result["engines"]
    ]
    note = (
        "First fits of fresh processes, one each: with an empty FASTMLP_CACHE_DIR, so that what is compiled is "
        f"compiled now, and with what that left there. {settings['net']}, {settings['dtype']}."
    )
    return Table.of("Cold start: engines", rows, [note])


def charts(result: Mapping[str, Any]) -> list[Bars]:
    imports, fits = result["imports"], result["fits"]
    labels = [f"{fit['rival']}, {fit['epochs']} epochs" for fit in fits]
    series = {kind: [1e3 * fit[kind]["median"] for fit in fits] for kind in ("first", "later")}
    medians = [1e3 * imports[name]["median"] for name in IMPORTED]
    return [
        Bars("Import: milliseconds", list(IMPORTED.values()), {"ms": medians}, "ms"),
        Bars("Fit: milliseconds, first and later", labels, series, "ms", log=True),
    ]
