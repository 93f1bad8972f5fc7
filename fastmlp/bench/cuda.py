"""Suite `cuda`: microseconds per training step on a GPU, with the device's own peaks beside them.

Equal work: the same weights, rows and batches; the data are on the device, or known to the engine, beforehand.
PyTorch's orders are on the device, too. Ours are not: an epoch of the engine takes its order from the host, and a fit
gives weights and moments back at its end. So its time is shown both ways: by the clock around the call, and that of its
launches alone, by device events. The Cython engine on the CPU is the judge of all results and a line of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from fastmlp.bench import processes, rivals, train
from fastmlp.bench.race import Run, Tell, best, differences, medians, ratios, shown
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, number, percent, scaled, share, times
from fastmlp.bench.workloads import DEVICE_WORKLOADS, Task
from fastmlp.engines import backends

ROUNDS = 3
DTYPE = "float32"
ENGINE = "cuda"
DEVICE = "cuda"  # the tests take the CPU for one
ON_CPU = rivals.ENGINE + "cython"
PEAK = "torch gpu"  # the rival that measures the peaks


def why_not() -> str | None:
    """Return what this suite needs and does not find, or None."""
    if ENGINE not in backends.BACKENDS:
        return f"this version of fastmlp has no engine {ENGINE!r}"
    return backends.why_not(ENGINE)


def run(run: Run) -> dict[str, Any]:
    """Measure the rivals that find the device, its peaks, then every workload."""
    run.settings = replace(run.settings, dtype=DTYPE, backend=ENGINE, threads=(max(run.settings.threads),))
    judge = [ON_CPU] if backends.why_not("cython") is None else []
    versions = processes.installed([*run.settings.entrants("cuda"), *judge])
    device, absent = _look(versions, run.tell)
    run.tell("cuda: peak")
    peaks = _peaks(run.settings, absent)
    run.versions = versions | dict.fromkeys(absent)
    entries = []
    for workload in run.settings.named(DEVICE_WORKLOADS):
        entries.append(train.entry(run, workload, device=DEVICE, judges=(ON_CPU, "fastmlp")))
        entries[-1]["bytes"] = workload.least_bytes(DTYPE)
        _rate(entries[-1], peaks)
    others = [name for name in versions if name != "fastmlp"]
    return {
        "device": device,
        "versions": versions,
        "absent": absent,
        "peaks": peaks,
        "workloads": entries,
        "mean_ratio": train.means(entries, "ratio", others),
        "mean_device_ratio": train.means(entries, "device_ratio", others),
        "figures": medians(entries, ", seconds per step"),
    }


def _look(versions: Mapping[str, str | None], tell: Tell) -> tuple[str | None, dict[str, str]]:
    """Return the device's name, and for each rival that cannot use it the reason."""
    name, absent = None, {rival: "not installed" for rival, version in versions.items() if version is None}
    for rival in rivals.others(name for name in versions if name not in absent):
        tell(f"cuda: {rival}, looking for a device")
        try:
            name = processes.ask(rival, "cuda:probe", {"device": DEVICE})["name"] or name
        except processes.Failed as failure:
            absent[rival] = str(failure)
    return name, absent


def _peaks(settings: Settings, absent: Mapping[str, str]) -> dict[str, float | None]:
    """Return the FLOP/s and bytes/s of the device; None if PyTorch is missing, which measures them."""
    if PEAK in absent or PEAK not in settings.rivals:
        return {"flops": None, "bytes": None}
    return processes.ask(PEAK, "cuda:measure_peak", {"device": DEVICE, "seconds": settings.seconds})


def _rate(entry: dict[str, Any], peaks: Mapping[str, float | None]) -> None:
    """Add what follows from the times: FLOP/s and bytes/s, parts of the peaks but for the CPU's, ratios.

    `device_ratio` sets each rival's time against that of our launches alone.
    """
    for rival, record in entry["rivals"].items():
        for found in record["threads"].values():
            for kind in ("flops", "bytes"):
                found[kind] = entry[kind] / found["median"]
                found[f"{kind}_of_peak"] = None if rival == ON_CPU else share(found[kind], peaks[kind])
    ours = best(entry["rivals"]["fastmlp"])
    slower = share(ours.get("median"), ours.get("device"))
    entry["ratio"] = ratios(entry["rivals"])
    entry["device_ratio"] = {
        rival: None if slower is None else scaled(ratio, slower) for rival, ratio in entry["ratio"].items()
    }


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Time one rival, or one of our engines, on one workload, by the trainers' own clocks."""
    name, task = request["rival"], Task.read(request)
    module = import_module("fastmlp.bench.rivals.contract") if rivals.is_ours(name) else rivals.load(name)
    trainer = module.trainer(task, name, request["device"])
    counted: list[Mapping[str, Any]] = []  # by an engine, in each fit

    def fit(epochs: int) -> tuple[float, list[float]]:
        losses = trainer.fit(epochs)
        counted.append(getattr(trainer, "counted", {}))
        return trainer.seconds, losses

    answer = train.timed_fits(trainer, task, request, fit)
    last = counted[-len(answer["seconds"]) :]
    if "device_seconds" in last[0]:
        answer["device_seconds"] = [one["device_seconds"] / answer["epochs"] / task.workload.steps for one in last]
    if "launches" in last[0]:
        answer["launches"] = last[0]["launches"] // answer["epochs"]
    return answer


def probe(request: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the name of the device that a rival sees; fails if it sees none."""
    return {"name": rivals.load(request["rival"]).device_name() if request["device"] == "cuda" else None}


def measure_peak(request: Mapping[str, Any]) -> dict[str, float]:
    return rivals.load(request["rival"]).peak(request["device"], request["seconds"])


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the summary, then every measurement."""
    return [_overview(result), _details(result)]


def _overview(result: Mapping[str, Any]) -> Table:
    rows = [
        {
            "workload": entry["name"],
            "layers": train.net(entry),
            "batch": entry["batch_size"],
            "fastmlp us": shown(ours),
            "on device": scaled(best(ours).get("device"), 1e6),
            "of FLOP/s": percent(best(ours).get("flops_of_peak")),
            "of bytes/s": percent(best(ours).get("bytes_of_peak")),
            **train.by_rival(entry, _both_ways(entry["ratio"], entry["device_ratio"])),
        }
        for entry in result["workloads"]
        for ours in [entry["rivals"]["fastmlp"]]
    ]
    rows.append({"workload": "geometric mean", **_both_ways(result["mean_ratio"], result["mean_device_ratio"])})
    settings, peaks = result["settings"], result["peaks"]
    notes = [
        f"{result['device'] or 'device unknown'}; {settings['dtype']}, TF32 off, Adam; rounds: {settings['rounds']}, "
        f"a fresh process for each. {ON_CPU}: our engine on the CPU, threads: {settings['threads'][0]}.",
        "Same data, initial weights and batches; losses and weights were compared first. The data are on the device "
        "beforehand.",
        "us: median microseconds of a step. PyTorch's: by device events around all steps of a fit; its orders are on "
        "the device beforehand, and its weights stay there. fastmlp's and JAX's: by the wall clock around calls that "
        "wait for the device; fastmlp's includes all that a fit does: the order and the scalars of each epoch's steps "
        "go to the device, weights and both moments come back at the end.",
        "on device: microseconds of fastmlp's launches alone, by device events; -: not measured. The ratio in brackets "
        "is made with it; FLOP/s and bytes/s are made with the wall clock's.",
        f"Peaks of the same run: {number(scaled(peaks['flops'], 1e-9))} GFLOP/s in a large product, "
        f"{number(scaled(peaks['bytes'], 1e-9))} GB/s in a large copy.",
        *(f"{rival}: {reason}" for rival, reason in result["absent"].items()),
    ]
    return Table.of("Training step on a GPU: times faster than each rival", rows, notes)


def _details(result: Mapping[str, Any]) -> Table:
    rows = [
        {
            "workload": entry["name"],
            "rival": rival,
            "us": shown(record),
            "on device": scaled(found.get("device"), 1e6),
            "spread": percent(found.get("spread")),
            "first fit s": found.get("cold"),
            "GFLOP/s": scaled(found.get("flops"), 1e-9),
            "of peak": percent(found.get("flops_of_peak")),
            "GB/s": scaled(found.get("bytes"), 1e-9),
            "of peak ": percent(found.get("bytes_of_peak")),
            "launches": found.get("launches"),
            **differences(record),
        }
        for entry, rival, record in train.measurements(result)
        for found in [best(record)]
    ]
    notes = [
        "GB/s: what a step must move, once: weights, both moments, the batch's rows. launches: of kernels in an epoch, "
        "where the engine counts them.",
        "first fit: with compilation, capture and transfers; spread: quartile distance in percent of the median.",
        f"loss diff, weight diff: largest relative difference from {ON_CPU}, of the weights in terms of the way "
        "trained.",
    ]
    return Table.of("Training step on a GPU: every measurement", rows, notes)


def _both_ways(ratios: Mapping[str, float | None], on_device: Mapping[str, float | None]) -> dict[str, str]:
    """Return the ratio to each rival, and in brackets that of the launches alone where it is known."""
    return {
        rival: times(ratio) + (f" ({times(on_device[rival])})" if on_device[rival] else "")
        for rival, ratio in ratios.items()
    }


def charts(result: Mapping[str, Any]) -> list[Bars]:
    """Return charts of the ratios per rival and of the parts of both peaks."""
    ours = {entry["name"]: best(entry["rivals"]["fastmlp"]) for entry in result["workloads"]}
    shares = {
        name: [scaled(found.get(f"{kind}_of_peak"), 100) for found in ours.values()]
        for name, kind in (("FLOP/s", "flops"), ("bytes/s", "bytes"))
    }
    roofline = Bars("Training on a GPU: percent of the device's peaks", list(ours), shares, "%")
    known = any(value is not None for values in shares.values() for value in values)
    return [*train.rival_charts(result, "Training on a GPU"), *([roofline] if known else [])]
