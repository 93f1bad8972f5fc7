"""Suite `train`: microseconds per training step, by workload, rival and thread count."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import engines, peak, processes, rivals
from fastmlp.bench.race import Tell, finite, mean, problems, race, ratio
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, difference, number, percent, share
from fastmlp.bench.workloads import SEED, WORKLOADS, Task, Workload

ROUNDS = 3
MOST_EPOCHS = 1000  # of one fit
FITS = 4  # that should go into the time of a process


def run(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Run every workload, one after the other."""
    versions = processes.installed(settings.entrants("train"))
    measured, found = [], []
    for workload in settings.named(WORKLOADS):
        tell(f"{workload.name}, peak")
        measured.append(peak.peaks(settings.threads, settings.dtype, settings.seconds))
        found.append(_run(workload, settings, versions, tell))
    peaks = peak.best(measured)
    for entry in found:
        _rate(entry, peak.highest(peaks))
    return {
        "settings": {"rounds": settings.rounds_or(ROUNDS), "dtype": settings.dtype, "threads": list(settings.threads)},
        "versions": versions,
        "peak_gflops": peaks,
        "workloads": found,
        "mean_ratio": {rival: mean([entry["ratio"][rival] for entry in found]) for rival in rivals.others(versions)},
        "mean_ratio_to_best": mean([entry["ratio_to_best"] for entry in found]),
        **engines.compare(found, settings.engines),
        "problems": [line for entry in found for line in problems(entry["name"], entry["rivals"])],
        "figures": engines.figures(found, settings.engines, f" {settings.dtype}, seconds per step"),
    }


def _run(workload: Workload, settings: Settings, versions: Mapping[str, str | None], tell: Tell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        workload.write(Path(folder), settings.dtype)
        request = {
            "workload": workload.name,
            "folder": folder,
            "dtype": settings.dtype,
            "backend": settings.backend,
            "seconds": settings.seconds,
            **({"epochs": workload.checked_epochs} if settings.quick_check else {}),
        }
        origin = start(workload, settings.dtype)
        record = race(
            "train",
            request,
            versions,
            settings.threads,
            settings.rounds_or(ROUNDS),
            origin,
            lambda text: tell(f"{workload.name}, {text}"),
        )
    return {**facts(workload), "rivals": record}


def start(workload: Workload, dtype: str) -> np.ndarray:
    """Return the weights (n_params,) that all rivals start from."""
    return workload.network(dtype).initial_params(np.random.RandomState(SEED), gain=6.0).astype(np.float64)


def facts(workload: Workload) -> dict[str, Any]:
    """Return the facts of a workload, for JSON."""
    return {
        "name": workload.name,
        "n_samples": workload.n_samples,
        "widths": list(workload.widths),
        "batch_size": workload.batch_size,
        "activation": workload.activation,
        "solver": workload.solver,
        "loss": workload.loss,
        "data": workload.data,
        "steps": workload.steps,
        "checked_epochs": workload.checked_epochs,
        "flops": workload.flops,
    }


def _rate(entry: dict[str, Any], peaks: Mapping[str, float]) -> None:
    """Add what follows from the times: GFLOP/s, part of the peak, ratios."""
    records = entry["rivals"]
    for record in records.values():
        for threads, times in record["threads"].items():
            times["gflops"] = entry["flops"] / times["median"] * 1e-9
            times["peak_fraction"] = times["gflops"] / peaks[threads]
    entry["ratio"] = {rival: ratio(records, rival) for rival in rivals.others(records)}
    entry["ratio_by_threads"] = {
        threads: {rival: ratio(records, rival, threads) for rival in records if rival != "fastmlp"} for threads in peaks
    }
    entry["ratio_to_best"] = min((r for r in entry["ratio"].values() if r is not None), default=None)


# --- inside a worker ------------------------------------------------------------------------------------------------


Clock = Callable[[Any, int], tuple[float, list[float]]]  # trainer, epochs -> seconds, losses


def _wall(trainer: Any, epochs: int) -> tuple[float, list[float]]:
    start = time.perf_counter()
    losses = trainer.fit(epochs)
    return time.perf_counter() - start, losses


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Time one rival on one workload, in a process that is fresh."""
    task = Task.read(request)
    start = time.perf_counter()
    trainer = rivals.load(request["rival"]).trainer(task, request["rival"])
    return {"setup": time.perf_counter() - start, **timed_fits(trainer, task, request)}


def timed_fits(trainer: Any, task: Task, request: Mapping[str, Any], clock: Clock = _wall) -> dict[str, Any]:
    """Time the fits; the first is the cold one: it trains the checked epochs, whose results are compared.

    Timed fits start from the same weights again, so their first losses must be the same too.
    """
    checked = task.workload.checked_epochs
    trainer.prepare(checked)
    cold, losses = _wall(trainer, checked)
    np.save(request["out"], trainer.params())
    epochs = request.get("epochs") or max(checked, _enough(trainer, request["seconds"] / FITS, clock))
    trainer.prepare(epochs)
    curves, spent = [losses], 0.0
    seconds: list[float] = []
    while not seconds or spent + seconds[-1] < request["seconds"]:
        elapsed, losses = clock(trainer, epochs)
        seconds.append(elapsed)
        spent += elapsed
        curves.append(losses[:checked])
    per_step = [elapsed / (epochs * task.workload.steps) for elapsed in seconds]
    return {
        "what": "weights",
        "cold": cold,
        "epochs": epochs,
        "seconds": per_step,
        "losses": curves,
    }


def _enough(trainer: Any, seconds: float, clock: Clock) -> int:
    """Return the number of epochs of a fit that takes about `seconds`."""
    epoch, _ = clock(trainer, 1)
    return max(1, min(MOST_EPOCHS, round(seconds / epoch)))


# --- what is shown --------------------------------------------------------------------------------------------------


def net(entry: Mapping[str, Any]) -> str:
    """Return the widths as text, shortened if all hidden layers are equal: 28-300x5-1."""
    first, *hidden, last = entry["widths"]
    middle = f"{hidden[0]}x{len(hidden)}" if len(hidden) > 2 and len(set(hidden)) == 1 else "-".join(map(str, hidden))
    return f"{first}-{middle}-{last}"


def _best(record: Mapping[str, Any], key: str) -> float | None:
    return record["threads"][record["best"]][key] if record["best"] else None


def _micro(seconds: float | None) -> str:
    return number(None if seconds is None else 1e6 * seconds)


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the summaries, then every measurement."""
    side_by_side = engines.tables(result, "Training step", 1e6, "us")
    overview = [_overview(result)] if result["mean_ratio"] or not side_by_side else []
    return [*side_by_side, *overview, _details(result)]


def _overview(result: Mapping[str, Any]) -> Table:
    others = list(result["mean_ratio"])
    rows = []
    for entry in result["workloads"]:
        ours, records = entry["rivals"]["fastmlp"], entry["rivals"]
        ratios = [
            number(entry["ratio"][rival], "x") if records[rival]["status"] == "ok" else records[rival]["status"]
            for rival in others
        ]
        rows.append(
            [
                entry["name"],
                net(entry),
                str(entry["batch_size"]),
                _micro(_best(ours, "median")) if ours["status"] == "ok" else ours["status"],
                percent(_best(ours, "peak_fraction")),
                *ratios,
                number(entry["ratio_to_best"], "x"),
            ]
        )
    means = [number(result["mean_ratio"][rival], "x") for rival in others]
    rows.append(["geometric mean", "", "", "", "", *means, number(result["mean_ratio_to_best"], "x")])
    settings = result["settings"]
    peaks = "; ".join(
        f"{', '.join(f'{number(value)} with {threads}' for threads, value in found.items())} ({choice} kernels)"
        for choice, found in result["peak_gflops"].items()
    )
    return Table(
        "Training step: times faster than each rival",
        ["workload", "layers", "batch", "fastmlp us", "of peak", *others, "best rival"],
        rows,
        notes=[
            f"{settings['dtype']}; each rival at its best thread count of {_list(settings['threads'])}; "
            f"rounds: {settings['rounds']}, a fresh process for each.",
            "Same data, initial weights, batches and optimizer formula; losses and weights were compared first.",
            "us: median microseconds of a step, everything included: gather, forward, loss, backward, update.",
            "Shuffling is part of the fits of fastmlp and scikit-learn; the others get ready-made orders.",
            "One output: two classes are one logistic output for all rivals, as in scikit-learn.",
            f"Peak: the fastest large product of the same run. GFLOP/s by threads: {peaks}.",
        ],
        left=["layers"],
    )


def _details(result: Mapping[str, Any]) -> Table:
    threads = [str(n) for n in result["settings"]["threads"]]
    labels = engines.labels(result)
    rows = [
        _detail(entry, rival, labels.get(rival, rival), threads)
        for entry in result["workloads"]
        for rival in entry["rivals"]
    ]
    return Table(
        "Training step: every measurement",
        [
            "workload",
            "rival",
            *(f"us, {n} thr" for n in threads),
            "spread",
            "first fit s",
            "x warm",
            "GFLOP/s",
            "of peak",
            *(f"ratio, {n} thr" for n in threads),
            "loss diff",
            "weight diff",
        ],
        rows,
        notes=[
            "spread: quartile distance in percent of the median; spread, first fit, GFLOP/s and peak at the best "
            "thread count.",
            "first fit: the checked epochs in a fresh process, compilation included, with empty caches;",
            "x warm: how many times longer than the same number of steps takes later.",
            *(["The Numba engine's code lies in the user's cache; `cold` empties it."] if labels else []),
            "ratio: times faster than the rival, both with that many threads.",
            "loss diff, weight diff: largest relative difference from scikit-learn's, or from the first engine's where "
            "scikit-learn takes no part; of the weights in terms of the way trained.",
        ],
        left=["rival"],
    )


def _detail(entry: Mapping[str, Any], rival: str, label: str, threads: Sequence[str]) -> list[str]:
    record = entry["rivals"][rival]
    times = [record["threads"].get(n) for n in threads]
    shown = [_micro(one["median"]) if one else "-" for one in times]
    if record["status"] != "ok":
        shown[0] = record["status"]
    ratios = [number(entry["ratio_by_threads"][n].get(rival)) for n in threads]
    compared = record["status"] in ("ok", "differs", "untimed")
    return [
        entry["name"],
        label,
        *shown,
        percent(_best(record, "spread")),
        number(_best(record, "cold")),
        number(cold_over_warm(entry, rival)),
        number(_best(record, "gflops")),
        percent(_best(record, "peak_fraction")),
        *ratios,
        difference(record["loss_diff"]) if compared else "-",
        difference(record["array_diff"]) if compared else "-",
    ]


def cold_over_warm(entry: Mapping[str, Any], rival: str) -> float | None:
    """Return the first fit's time over the time of as many warm steps."""
    record = entry["rivals"][rival]
    steps = entry["checked_epochs"] * entry["steps"]
    return share(_best(record, "cold"), None if record["best"] is None else steps * _best(record, "median"))


def _list(values: Sequence[Any]) -> str:
    return " and ".join(str(value) for value in values)


def charts(result: Mapping[str, Any]) -> list[Bars]:
    """Return charts of the ratios per rival, the part of the peak, and cold against warm."""
    entries = result["workloads"]
    labels = [entry["name"] for entry in entries]
    present = [rival for rival, value in result["mean_ratio"].items() if value is not None]
    ratios = [
        Bars(
            f"Training: times faster than {rival}",
            labels,
            {"ratio": [entry["ratio"][rival] for entry in entries]},
            "x",
            log=True,
            line=1,
        )
        for rival in present
    ]
    fractions = {"fastmlp": [_percent_of_peak(entry, ["fastmlp"]) for entry in entries]}
    if present:
        fractions["best rival"] = [_percent_of_peak(entry, present) for entry in entries]
    cold = {rival: mean([cold_over_warm(entry, rival) for entry in entries]) for rival in ["fastmlp", *present]}
    return [
        *engines.charts(result, "Training step"),
        *ratios,
        Bars("Training: percent of the machine's peak", labels, fractions, "%"),
        Bars(
            "First fit in a fresh process: times longer than a warm one (geometric mean)",
            list(cold),
            {"ratio": list(cold.values())},
            "x",
            log=True,
            line=1,
        ),
    ]


def _percent_of_peak(entry: Mapping[str, Any], names: Sequence[str]) -> float | None:
    fractions = [_best(entry["rivals"][name], "peak_fraction") for name in names]
    known = [100 * value for value in fractions if value is not None]
    return finite(max(known)) if known else None
