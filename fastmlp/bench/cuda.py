"""Suite `cuda`: microseconds per training step on a GPU, with the device's own peaks beside them.

Equal work: the same weights, rows and batches; the data are on the device, or known to the engine, beforehand.
PyTorch's orders are on the device, too. Ours are not: an epoch of the engine takes its order from the host and gives
weights and moments back. So its time is shown both ways: by the clock around the call, and that of its launches alone,
by device events. The Cython engine on the CPU is the judge of all results and a line of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastmlp.bench import processes, rivals, train
from fastmlp.bench.race import Tell, mean, problems, race, ratio
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, difference, number, percent, share
from fastmlp.bench.workloads import DEVICE_WORKLOADS, Task, Workload

ROUNDS = 3
DTYPE = "float32"
ENGINE = "cuda"
DEVICE = "cuda"  # the tests take the CPU for one
ON_CPU = rivals.ENGINE + "cython"
PEAK = "torch gpu"  # the rival that measures the peaks


def why_not() -> str | None:
    """Return what this suite needs and does not find, or None."""
    from fastmlp.engines import backends

    if ENGINE not in backends.BACKENDS:
        return f"this version of fastmlp has no engine {ENGINE!r}"
    return backends.why_not(ENGINE)


def run(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measure the rivals that find the device, its peaks, then every workload."""
    from fastmlp.engines import backends

    judge = [ON_CPU] if backends.why_not("cython") is None else []
    versions = processes.installed([*settings.entrants("cuda"), *judge])
    device, absent = _look(versions, tell)
    tell("peak")
    peaks = _peaks(settings, absent)
    entries = []
    for workload in settings.named(DEVICE_WORKLOADS):
        entry = _run(workload, settings, {**versions, **dict.fromkeys(absent)}, tell)
        entries.append(entry)
        _rate(entry, peaks)
    others = [name for name in versions if name != "fastmlp"]
    return {
        "settings": {"rounds": settings.rounds_or(ROUNDS), "dtype": DTYPE, "threads": [max(settings.threads)]},
        "device": device,
        "versions": versions,
        "absent": absent,
        "peaks": peaks,
        "workloads": entries,
        "mean_ratio": {rival: mean([entry["ratio"][rival] for entry in entries]) for rival in others},
        "mean_device_ratio": {rival: mean([entry["device_ratio"][rival] for entry in entries]) for rival in others},
        "problems": [line for entry in entries for line in problems(entry["name"], entry["rivals"])],
        "figures": {
            f"{entry['name']}, seconds per step": times["median"]
            for entry in entries
            if (times := _times(entry["rivals"]["fastmlp"]))
        },
    }


def _look(versions: Mapping[str, str | None], tell: Tell) -> tuple[str | None, dict[str, str]]:
    """Return the device's name, and for each rival that cannot use it the reason."""
    name, absent = None, {}
    for rival, version in versions.items():
        if version is None:
            absent[rival] = "not installed"
        elif not rivals.is_ours(rival):
            tell(f"{rival}, looking for a device")
            try:
                name = processes.ask(rival, "device", {"device": DEVICE})["name"] or name
            except processes.Failed as failure:
                absent[rival] = str(failure)
    return name, absent


def _peaks(settings: Settings, absent: Mapping[str, str]) -> dict[str, float | None]:
    """Return the FLOP/s and bytes/s of the device; None if PyTorch is missing, which measures them."""
    if PEAK in absent or PEAK not in settings.rivals:
        return {"flops": None, "bytes": None}
    return processes.ask(PEAK, "device peak", {"device": DEVICE, "seconds": settings.seconds})


def _run(workload: Workload, settings: Settings, versions: Mapping[str, str | None], tell: Tell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        workload.write(Path(folder), DTYPE)
        request = {
            "workload": workload.name,
            "folder": folder,
            "dtype": DTYPE,
            "backend": ENGINE,
            "device": DEVICE,
            "seconds": settings.seconds,
            **({"epochs": workload.checked_epochs} if settings.quick_check else {}),
        }
        record = race(
            "cuda",
            request,
            versions,
            (max(settings.threads),),
            settings.rounds_or(ROUNDS),
            train.start(workload, DTYPE),
            lambda text: tell(f"{workload.name}, {text}"),
            judges=(ON_CPU, "fastmlp"),
        )
    return {**train.facts(workload), "bytes": workload.least_bytes(DTYPE), "rivals": record}


def _times(record: Mapping[str, Any]) -> dict[str, Any] | None:
    return record["threads"][record["best"]] if record["best"] else None


def _rate(entry: dict[str, Any], peaks: Mapping[str, float | None]) -> None:
    """Add what follows from the times: FLOP/s and bytes/s, parts of the peaks but for the CPU's, ratios.

    `device_ratio` sets each rival's time against that of our launches alone.
    """
    for rival, record in entry["rivals"].items():
        for times in record["threads"].values():
            for kind in ("flops", "bytes"):
                times[kind] = entry[kind] / times["median"]
                times[f"{kind}_of_peak"] = None if rival == ON_CPU else share(times[kind], peaks[kind])
    entry["ratio"] = {rival: ratio(entry["rivals"], rival) for rival in entry["rivals"] if rival != "fastmlp"}
    ours = _times(entry["rivals"]["fastmlp"]) or {}
    entry["device_ratio"] = {
        rival: None if value is None or not ours.get("device") else value * ours["median"] / ours["device"]
        for rival, value in entry["ratio"].items()
    }


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Time one rival, or one of our engines, on one workload."""
    from importlib import import_module

    name, task = request["rival"], Task.read(request)
    ours = rivals.is_ours(name)
    module = import_module("fastmlp.bench.rivals.contract") if ours else rivals.load(name)
    trainer = module.trainer(task, name, request["device"])
    clock = _Clock()
    answer = train.timed_fits(trainer, task, request, clock)
    if clock.on_device:
        steps = answer["epochs"] * task.workload.steps
        answer["device_seconds"] = [seconds / steps for seconds in clock.on_device[-len(answer["seconds"]) :]]
    if getattr(trainer, "launches", None) is not None:
        before = trainer.launches
        trainer.fit(1)
        answer["launches"] = trainer.launches - before
    return answer


class _Clock:
    """Take the seconds that a trainer measured; keep those of the device in `on_device`, where an engine has them."""

    def __init__(self) -> None:
        self.on_device: list[float] = []  # one for each fit

    def __call__(self, trainer: Any, epochs: int) -> tuple[float, list[float]]:
        before = getattr(trainer, "device_seconds", None)
        losses = trainer.fit(epochs)
        if before is not None:
            self.on_device.append(trainer.device_seconds - before)
        return trainer.seconds, losses


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
    others = list(result["mean_ratio"])
    rows = []
    for entry in result["workloads"]:
        ours = entry["rivals"]["fastmlp"]
        rows.append(
            [
                entry["name"],
                train.net(entry),
                str(entry["batch_size"]),
                _shown(ours, "median", 1e6),
                _on_device(ours),
                percent((_times(ours) or {}).get("flops_of_peak")),
                percent((_times(ours) or {}).get("bytes_of_peak")),
                *(
                    _both_ways(entry["ratio"][rival], entry["device_ratio"][rival])
                    if entry["rivals"][rival]["status"] == "ok"
                    else entry["rivals"][rival]["status"]
                    for rival in others
                ),
            ]
        )
    means = [_both_ways(result["mean_ratio"][rival], result["mean_device_ratio"][rival]) for rival in others]
    rows.append(["geometric mean", "", "", "", "", "", "", *means])
    settings, peaks = result["settings"], result["peaks"]
    return Table(
        "Training step on a GPU: times faster than each rival",
        ["workload", "layers", "batch", "fastmlp us", "on device", "of FLOP/s", "of bytes/s", *others],
        rows,
        notes=[
            f"{result['device'] or 'device unknown'}; {settings['dtype']}, TF32 off, Adam; rounds: "
            f"{settings['rounds']}, a fresh process for each. {ON_CPU}: our engine on the CPU, threads: "
            f"{settings['threads'][0]}.",
            "Same data, initial weights and batches; losses and weights were compared first. The data are on the "
            "device beforehand.",
            "us: median microseconds of a step. PyTorch's: by device events around all steps of a fit; its orders are "
            "on the device beforehand, and its weights stay there. fastmlp's and JAX's: by the wall clock around calls "
            "that wait for the device; fastmlp's includes all that an epoch does: the order and the scalars of its "
            "steps go to the device, weights and both moments come back.",
            "on device: microseconds of fastmlp's launches alone, by device events; -: not measured. The ratio in "
            "brackets is made with it; FLOP/s and bytes/s are made with the wall clock's.",
            f"Peaks of the same run: {number(share(peaks['flops'], 1e9))} GFLOP/s in a large product, "
            f"{number(share(peaks['bytes'], 1e9))} GB/s in a large copy.",
            *(f"{rival}: {reason}" for rival, reason in result["absent"].items()),
        ],
        left=["layers"],
    )


def _details(result: Mapping[str, Any]) -> Table:
    return Table(
        "Training step on a GPU: every measurement",
        [
            "workload",
            "rival",
            "us",
            "on device",
            "spread",
            "first fit s",
            "GFLOP/s",
            "of peak",
            "GB/s",
            "of peak ",
            "launches",
            "loss diff",
            "weight diff",
        ],
        [_detail(entry, rival) for entry in result["workloads"] for rival in entry["rivals"]],
        notes=[
            "GB/s: what a step must move, once: weights, both moments, the batch's rows. launches: of kernels in "
            "an epoch, where the engine counts them.",
            "first fit: with compilation, capture and transfers; spread: quartile distance in percent of the median.",
            f"loss diff, weight diff: largest relative difference from {ON_CPU}, of the weights in terms of the way "
            "trained.",
        ],
        left=["rival"],
    )


def _detail(entry: Mapping[str, Any], rival: str) -> list[str]:
    record = entry["rivals"][rival]
    times = _times(record) or {}
    compared = record["status"] in ("ok", "differs", "untimed")
    return [
        entry["name"],
        rival,
        _shown(record, "median", 1e6),
        _on_device(record),
        percent(times.get("spread")),
        number(times.get("cold")),
        number(share(times.get("flops"), 1e9)),
        percent(times.get("flops_of_peak")),
        number(share(times.get("bytes"), 1e9)),
        percent(times.get("bytes_of_peak")),
        str(times.get("launches", "-")),
        difference(record["loss_diff"]) if compared else "-",
        difference(record["array_diff"]) if compared else "-",
    ]


def _shown(record: Mapping[str, Any], key: str, scale: float) -> str:
    times = _times(record)
    return number(scale * times[key]) if times else record["status"]


def _on_device(record: Mapping[str, Any]) -> str:
    """Return the microseconds of a step's launches alone, "-" where the engine does not measure them."""
    return number(share((_times(record) or {}).get("device"), 1e-6))


def _both_ways(by_clock: float | None, by_device: float | None) -> str:
    """Return a ratio, and in brackets that of the launches alone where it is known."""
    text = number(by_clock, "x")
    return text if by_device is None else f"{text} ({number(by_device, 'x')})"


def charts(result: Mapping[str, Any]) -> list[Bars]:
    """Return charts of the ratios per rival and of the parts of both peaks."""
    entries = result["workloads"]
    labels = [entry["name"] for entry in entries]
    present = [rival for rival, value in result["mean_ratio"].items() if value is not None]
    return [
        *(
            Bars(
                f"Training on a GPU: times faster than {rival}",
                labels,
                {"ratio": [entry["ratio"][rival] for entry in entries]},
                "x",
                log=True,
                line=1,
            )
            for rival in present
        ),
        *_roofline(entries, labels, present),
    ]


def _roofline(entries: Sequence[Mapping[str, Any]], labels: Sequence[str], present: Sequence[str]) -> list[Bars]:
    ours = [_times(entry["rivals"]["fastmlp"]) or {} for entry in entries]
    shares = {
        name: [None if (part := times.get(f"{kind}_of_peak")) is None else 100 * part for times in ours]
        for name, kind in (("FLOP/s", "flops"), ("bytes/s", "bytes"))
    }
    known = [value for values in shares.values() for value in values if value is not None]
    return [Bars("Training on a GPU: percent of the device's peaks", labels, shares, "%")] if known else []
