"""Engines of fastmlp side by side: their names, and what `quick` and `train` show of them.

An engine is a rival like any other: the first takes the place of fastmlp, and the others are compared with it. Results
that hold several engines have `engines`, their names, and `speed`, the geometric means by thread count and engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastmlp.bench.race import mean, shown
from fastmlp.bench.rivals import engine_rivals
from fastmlp.bench.tables import Bars, Table, difference, largest, ratio_bars, share, times
from fastmlp.engines import backends

ALL = "all"
SLOW = ("reference",)  # engines that have to be named


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


def compare(entries: Sequence[dict[str, Any]], engines: Sequence[str]) -> dict[str, Any]:
    """Add the speed of each engine relative to the first to every entry; return their names and geometric means."""
    if not engines:
        return {}
    others = list(engine_rivals(engines).items())[1:]
    for entry in entries:
        entry["speed"] = {
            threads: {engine: share(1, ratios[rival]) for engine, rival in others}
            for threads, ratios in entry["ratio_by_threads"].items()
        }
    speed = {
        threads: {engine: mean([entry["speed"][threads][engine] for entry in entries]) for engine, _ in others}
        for threads in entries[0]["speed"]
    }
    return {"engines": list(engines), "speed": speed}


def tables(result: Mapping[str, Any], title: str, scale: float, unit: str) -> list[Table]:
    """Return one table per thread count; none if a single engine ran."""
    return [_table(result, f"{title}: engines, threads: {n}", n, scale, unit) for n in result.get("speed", ())]


def _table(result: Mapping[str, Any], title: str, threads: str, scale: float, unit: str) -> Table:
    def speeds(speed: Mapping[str, Mapping[str, float | None]]) -> dict[str, str]:
        return {f"{engine} speed": times(value) for engine, value in speed[threads].items()}

    names = engine_rivals(result["engines"])
    rows = [
        {
            "workload": entry["name"],
            "layers": "-".join(map(str, entry.get("widths") or entry["hidden"])),
            **{f"{engine} {unit}": shown(entry["rivals"][rival], threads, scale) for engine, rival in names.items()},
            **speeds(entry["speed"]),
            "weight diff": difference(largest([entry["rivals"][rival]["array_diff"] for rival in names.values()])),
        }
        for entry in result["workloads"]
    ]
    notes = [
        f"speed: how many times as fast as {result['engines'][0]}. {result['settings']['dtype']}, medians; interleaved "
        f"rounds: {result['settings']['rounds']}, a fresh process for each engine and round.",
        "Losses and weights were compared first; weight diff: the largest relative difference of an engine.",
    ]
    return Table.of(title, [*rows, {"workload": "geometric mean", **speeds(result["speed"])}], notes)


def charts(result: Mapping[str, Any], title: str) -> list[Bars]:
    """Return charts of the speed of each engine relative to the first, by thread count."""
    return [
        ratio_bars(
            f"{title}: {engine}, times as fast as {result['engines'][0]}, threads: {threads}",
            {entry["name"]: entry["speed"][threads][engine] for entry in result["workloads"]},
        )
        for threads, speed in result.get("speed", {}).items()
        for engine in speed
    ]
