"""Suite `train`: microseconds per training step, by workload, rival and thread count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fastmlp.bench import engines, peak, rivals
from fastmlp.bench.race import TOLERANCE, Run, best, differences, mean, medians, ratio, ratios, shown
from fastmlp.bench.tables import Bars, Table, difference, largest, number, percent, ratio_bars, scaled, share, times
from fastmlp.bench.timing import epochs_within, repeat, timed
from fastmlp.bench.workloads import HIGHEST, SEED, WORKLOADS, Task, Workload

ROUNDS = 3
FITS = 4  # that should go into the time of a process
FACTS = ("name", "n_samples", "batch_size", "activation", "solver", "loss", "data", "steps", "checked_epochs")


def run(run: Run) -> dict[str, Any]:
    """Run every workload, one after the other."""
    settings = run.settings
    measured, found = [], []
    for workload in settings.named(WORKLOADS):
        run.tell(f"train: {workload.name}, peak")
        measured.append(peak.peaks(settings.threads, settings.dtype, settings.seconds))
        found.append(entry(run, workload))
    peaks = peak.best(measured)
    for one in found:
        _rate(one, peak.highest(peaks))
    return {
        "versions": run.versions,
        "peak_gflops": peaks,
        "workloads": found,
        "mean_ratio": means(found, "ratio", rivals.others(run.versions)),
        "mean_ratio_to_best": mean([one["ratio_to_best"] for one in found]),
        **engines.compare(found, settings.engines),
        "figures": medians(found, f" {numbers(settings.shown())}, seconds per step", settings.engines),
    }


def numbers(settings: Mapping[str, Any]) -> str:
    """Return the dtype, and the precision of its products if that is not the highest: float32 high."""
    precision = settings.get("precision", HIGHEST)  # older files do not have it
    return settings["dtype"] if precision == HIGHEST else f"{settings['dtype']} {precision}"


def entry(run: Run, workload: Workload, **question: Any) -> dict[str, Any]:
    """Race on a workload; return its facts and the records, for JSON."""
    # the weights (n_params,) that all rivals start from
    network = workload.network(run.settings.dtype)
    origin = network.initial_params(np.random.RandomState(SEED), gain=6.0).astype(np.float64)
    facts = {name: getattr(workload, name) for name in FACTS}
    records = run.race(workload.name, workload, origin, **question)
    return {**facts, "flops": workload.flops, "widths": list(workload.widths), "rivals": records}


def means(entries: Iterable[Mapping[str, Any]], key: str, names: Iterable[str]) -> dict[str, float | None]:
    """Return the geometric mean of a ratio over all workloads, by rival."""
    return {name: mean([entry[key][name] for entry in entries]) for name in names}


def _rate(entry: dict[str, Any], peaks: Mapping[str, float]) -> None:
    """Add what follows from the times: GFLOP/s, part of the peak, ratios."""
    records = entry["rivals"]
    for record in records.values():
        for threads, found in record["threads"].items():
            found["gflops"] = entry["flops"] / found["median"] * 1e-9
            found["peak_fraction"] = found["gflops"] / peaks[threads]
    entry["ratio"] = {rival: ratio(records, rival) for rival in rivals.others(records)}
    entry["ratio_by_threads"] = {threads: ratios(records, threads) for threads in peaks}
    entry["ratio_to_best"] = min((r for r in entry["ratio"].values() if r is not None), default=None)


# --- inside a worker ------------------------------------------------------------------------------------------------


Fit = Callable[[int], tuple[float, list[float]]]  # epochs -> seconds, losses


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Time one rival on one workload, in a process that is fresh."""
    task = Task.read(request)
    try:
        setup, trainer = timed(rivals.load(request["rival"]).trainer, task, request["rival"])
    except NotImplementedError as error:
        return {"absent": str(error)}
    return {"setup": setup, **timed_fits(trainer, task, request)}


def timed_fits(trainer: Any, task: Task, request: Mapping[str, Any], fit: Fit | None = None) -> dict[str, Any]:
    """Time the fits; the first is the cold one: it trains the checked epochs, whose results are compared.

    Timed fits start from the same weights again, so their first losses must be the same too.
    """
    fit = fit or (lambda epochs: timed(trainer.fit, epochs))
    checked = task.workload.checked_epochs
    trainer.prepare(checked)
    cold, losses = timed(trainer.fit, checked)
    np.save(request["out"], trainer.params())
    curves = [losses]
    epochs = request.get("epochs") or epochs_within(request["seconds"] / FITS, checked, fit(checked)[0])
    trainer.prepare(epochs)

    def once() -> float:
        elapsed, losses = fit(epochs)
        curves.append(losses[:checked])
        return elapsed

    steps = epochs * task.workload.steps
    seconds = [elapsed / steps for elapsed in repeat(once, request["seconds"])]
    return {"what": "weights", "cold": cold, "epochs": epochs, "seconds": seconds, "losses": curves}


# --- what is shown --------------------------------------------------------------------------------------------------


def net(entry: Mapping[str, Any]) -> str:
    """Return the widths as text, shortened if all hidden layers are equal: 28-300x5-1."""
    first, *hidden, last = entry["widths"]
    middle = f"{hidden[0]}x{len(hidden)}" if len(hidden) > 2 and len(set(hidden)) == 1 else "-".join(map(str, hidden))
    return f"{first}-{middle}-{last}"


def measurements(result: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    """Yield (entry of a workload, rival, its record)."""
    return ((entry, *item) for entry in result["workloads"] for item in entry["rivals"].items())


def by_rival(entry: Mapping[str, Any], cells: Mapping[str, str]) -> dict[str, str]:
    """Return the cells of the rivals, with what went wrong in place of those without times."""
    records = entry["rivals"]
    return {
        rival: cell if records[rival]["status"] == "ok" else records[rival]["status"] for rival, cell in cells.items()
    }


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the summaries, then every measurement."""
    side_by_side = engines.tables(result, "Training step", 1e6, "us")
    overview = [_overview(result)] if result["mean_ratio"] or not side_by_side else []
    return [*side_by_side, *overview, _details(result)]


def _overview(result: Mapping[str, Any]) -> Table:
    rows = [
        {
            "workload": entry["name"],
            "layers": net(entry),
            "batch": entry["batch_size"],
            "fastmlp us": shown(entry["rivals"]["fastmlp"]),
            "of peak": percent(best(entry["rivals"]["fastmlp"]).get("peak_fraction")),
            **by_rival(entry, {rival: times(ratio) for rival, ratio in entry["ratio"].items()}),
            "best rival": times(entry["ratio_to_best"]),
        }
        for entry in result["workloads"]
    ]
    means = {rival: times(mean) for rival, mean in result["mean_ratio"].items()}
    rows.append({"workload": "geometric mean", **means, "best rival": times(result["mean_ratio_to_best"])})
    settings = result["settings"]
    peaks = "; ".join(
        f"{', '.join(f'{number(value)} with {threads}' for threads, value in found.items())} ({choice} kernels)"
        for choice, found in result["peak_gflops"].items()
    )
    notes = [
        f"{numbers(settings)}; each rival at its best thread count of {' and '.join(map(str, settings['threads']))}; "
        f"rounds: {settings['rounds']}, a fresh process for each.",
        "Same data, initial weights, batches and optimizer formula; losses and weights were compared first.",
        "us: median microseconds of a step, everything included: gather, forward, loss, backward, update.",
        "Shuffling is part of the fits of fastmlp and scikit-learn; the others get ready-made orders.",
        "One output: two classes are one logistic output for all rivals, as in scikit-learn.",
        f"Peak: the fastest large product of the same run. GFLOP/s by threads: {peaks}.",
        *_precisions(result),
        *_refusals(result),
    ]
    return Table.of("Training step: times faster than each rival", rows, notes)


def _precisions(result: Mapping[str, Any]) -> list[str]:
    """Return what each rival was told of its products, and what results may differ by, below the highest precision."""
    precision = result["settings"]["precision"]
    if precision == HIGHEST:
        return []
    told = {name: rivals.row(name).precisions[precision] for name in ["fastmlp", *result["mean_ratio"]]}
    limits = TOLERANCE[precision]
    return [
        f"Products of float32 may be less exact: {'; '.join(f'{name}: {word}' for name, word in told.items())}. "
        "All but autocast permit it, and compute in float32 where they find no instructions for less.",
        f"So losses may differ by {difference(limits['losses'])}, weights by {difference(limits['array'])} of the way "
        "trained. The peak is that of float32.",
    ]


def _refusals(result: Mapping[str, Any]) -> list[str]:
    """Return why rivals that are installed are absent, each reason once."""
    found = {
        f"{rival}: absent: {record['problem']}"
        for _, rival, record in measurements(result)
        if record["status"] == "absent" and record["version"]
    }
    return sorted(found)


def _details(result: Mapping[str, Any]) -> Table:
    threads = [str(n) for n in result["settings"]["threads"]]
    several = "engines" in result
    ours = {"fastmlp": rivals.ENGINE + result["engines"][0]} if several else {}
    rows = [
        {
            "workload": entry["name"],
            "rival": ours.get(rival, rival),
            **{f"us, {n} thr": shown(record, n) for n in threads},
            "spread": percent(best(record).get("spread")),
            "first fit s": best(record).get("cold"),
            "x warm": cold_over_warm(entry, rival),
            "GFLOP/s": best(record).get("gflops"),
            "of peak": percent(best(record).get("peak_fraction")),
            **{f"ratio, {n} thr": entry["ratio_by_threads"][n].get(rival) for n in threads},
            **differences(record),
        }
        for entry, rival, record in measurements(result)
    ]
    notes = [
        "spread: quartile distance in percent of the median; spread, first fit, GFLOP/s and peak at the best "
        "thread count.",
        "first fit: the checked epochs in a fresh process, compilation included, with empty caches;",
        "x warm: how many times longer than the same number of steps takes later.",
        *(["The Numba engine's code lies in the user's cache; `cold` empties it."] if several else []),
        "ratio: times faster than the rival, both with that many threads.",
        "loss diff, weight diff: largest relative difference from scikit-learn's, or from the first engine's where "
        "scikit-learn takes no part; of the weights in terms of the way trained.",
    ]
    return Table.of("Training step: every measurement", rows, notes)


def cold_over_warm(entry: Mapping[str, Any], rival: str) -> float | None:
    """Return the first fit's time over the time of as many warm steps."""
    found = best(entry["rivals"][rival])
    return share(found.get("cold"), scaled(found.get("median"), entry["checked_epochs"] * entry["steps"]))


def rival_charts(result: Mapping[str, Any], title: str) -> list[Bars]:
    """Return a chart of the ratios to each rival that has any."""
    return [
        ratio_bars(
            f"{title}: times faster than {rival}",
            {entry["name"]: entry["ratio"][rival] for entry in result["workloads"]},
        )
        for rival in with_times(result)
    ]


def with_times(result: Mapping[str, Any]) -> list[str]:
    """Return the rivals that have times."""
    return [rival for rival, ratio in result["mean_ratio"].items() if ratio is not None]


def charts(result: Mapping[str, Any]) -> list[Bars]:
    """Return charts of the ratios per rival, the part of the peak, and cold against warm."""
    entries, present = result["workloads"], with_times(result)
    series = {"fastmlp": ["fastmlp"], **({"best rival": present} if present else {})}
    fractions = {
        name: [
            scaled(largest([best(entry["rivals"][rival]).get("peak_fraction") for rival in names]), 100)
            for entry in entries
        ]
        for name, names in series.items()
    }
    cold = {rival: mean([cold_over_warm(entry, rival) for entry in entries]) for rival in ["fastmlp", *present]}
    return [
        *engines.charts(result, "Training step"),
        *rival_charts(result, "Training"),
        Bars("Training: percent of the machine's peak", [entry["name"] for entry in entries], fractions, "%"),
        ratio_bars("First fit in a fresh process: times longer than a warm one (geometric mean)", cold),
    ]
