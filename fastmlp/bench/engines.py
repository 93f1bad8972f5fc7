"""Engines of fastmlp side by side: their names, and what `quick` and `train` show of them.

An engine is a rival like any other: the first takes the place of fastmlp, and the others are compared with it. Results
that hold several engines have `engines`, their names, and `speed`, the geometric means by thread count and engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastmlp.bench.race import mean
from fastmlp.bench.rivals import ENGINE
from fastmlp.bench.tables import Bars, Table, difference, number
from fastmlp.engines import backends

ALL = "all"
SLOW = ("reference",)  # engines that have to be named


# --- names ------------------------------------------------------------------------------------------------------------


def usable() -> tuple[str, ...]:
    """Return the engines that "all" stands for."""
    return tuple(name for name in backends.available() if name not in SLOW)


def chosen(text: str) -> tuple[str, ...]:
    """Return the engines named in a list with commas; "all" means those of this machine except the reference.

    Raises
    ------
    ValueError
        If there is no such engine, or it cannot be used here.

    Examples
    --------
    >>> from fastmlp.bench.engines import chosen
    >>> chosen("reference, reference")
    ('reference',)
    """
    names: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if name not in (ALL, *backends.BACKENDS):
            raise ValueError(f"{name!r} is no engine; available: {', '.join((*backends.available(), ALL))}")
        reason = None if name == ALL else backends.why_not(name)
        if reason:
            raise ValueError(reason)
        names += usable() if name == ALL else [name]
    return tuple(dict.fromkeys(names))


def _rivals(engines: Sequence[str]) -> dict[str, str]:
    """Return a dict from each engine to its name among the rivals."""
    return {name: f"{ENGINE}{name}" if i else "fastmlp" for i, name in enumerate(engines)}


def labels(result: Mapping[str, Any]) -> dict[str, str]:
    """Return a dict from rivals to their names in tables, if these differ."""
    return {"fastmlp": ENGINE + result["engines"][0]} if "engines" in result else {}


# --- what follows from the times --------------------------------------------------------------------------------------


def compare(entries: Sequence[dict[str, Any]], engines: Sequence[str]) -> dict[str, Any]:
    """Add the speed of each engine relative to the first to every entry; their names and geometric means."""
    if not engines:
        return {}
    names = _rivals(engines)
    for entry in entries:
        entry["speed"] = {
            threads: {engine: _inverse(ratios[names[engine]]) for engine in engines[1:]}
            for threads, ratios in entry["ratio_by_threads"].items()
        }
    counts = entries[0]["speed"] if entries else {}
    speed = {
        threads: {engine: mean([entry["speed"][threads][engine] for entry in entries]) for engine in engines[1:]}
        for threads in counts
    }
    return {"engines": list(engines), "speed": speed}


def _inverse(value: float | None) -> float | None:
    return None if value is None else 1 / value


def figures(entries: Sequence[Mapping[str, Any]], engines: Sequence[str], what: str) -> dict[str, float]:
    """Return the medians to compare later, at the best thread count: of fastmlp, or of each engine by name."""
    names = {f" {engine}": rival for engine, rival in _rivals(engines).items()} or {"": "fastmlp"}
    return {
        f"{entry['name']}{engine}{what}": record["threads"][record["best"]]["median"]
        for entry in entries
        for engine, rival in names.items()
        if (record := entry["rivals"][rival])["best"]
    }


# --- what is shown ----------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any], title: str, scale: float, unit: str) -> list[Table]:
    """Return one table per thread count; none if a single engine ran."""
    return [_table(result, f"{title}: engines, threads: {n}", n, scale, unit) for n in result.get("speed", ())]


def _table(result: Mapping[str, Any], title: str, threads: str, scale: float, unit: str) -> Table:
    first, *others = result["engines"]
    names = _rivals(result["engines"])
    rows = []
    for entry in result["workloads"]:
        records = [entry["rivals"][rival] for rival in names.values()]
        rows.append(
            [
                entry["name"],
                "-".join(map(str, entry.get("widths") or entry["hidden"])),
                *(_cell(record, threads, scale) for record in records),
                *(number(entry["speed"][threads][engine], "x") for engine in others),
                difference(max((record["array_diff"] or 0.0 for record in records), default=None)),
            ]
        )
    means = [number(result["speed"][threads][engine], "x") for engine in others]
    rows.append(["geometric mean", "", *("" for _ in names), *means, ""])
    settings = result["settings"]
    speeds = [f"{engine} speed" for engine in others]
    return Table(
        title,
        ["workload", "layers", *(f"{engine} {unit}" for engine in names), *speeds, "weight diff"],
        rows,
        notes=[
            f"speed: how many times as fast as {first}. {settings['dtype']}, medians; interleaved rounds: "
            f"{settings['rounds']}, a fresh process for each engine and round.",
            "Losses and weights were compared first; weight diff: the largest relative difference of an engine.",
        ],
        left=["layers"],
    )


def _cell(record: Mapping[str, Any], threads: str, scale: float) -> str:
    times = record["threads"].get(threads)
    return number(scale * times["median"]) if times else record["status"]


def charts(result: Mapping[str, Any], title: str) -> list[Bars]:
    """Return charts of the speed of each engine relative to the first, by thread count."""
    first, *others = result.get("engines", [""])
    labels = [entry["name"] for entry in result.get("workloads", ())]
    return [
        Bars(
            f"{title}: {engine}, times as fast as {first}, threads: {threads}",
            labels,
            {"speed": [entry["speed"][threads][engine] for entry in result["workloads"]]},
            "x",
            log=True,
            line=1,
        )
        for threads in result.get("speed", ())
        for engine in others
    ]
