"""This run against an older one: which of fastmlp's figures got slower."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastmlp.bench.suites import SCHEMA
from fastmlp.bench.tables import Table, percent

# A figure that grew by more than this part is a regression. Machines that do nothing else repeat within half of it.
THRESHOLD = 0.10


def read(path: Path) -> dict[str, Any]:
    """Return a document that `fastmlp bench --json` wrote.

    Raises
    ------
    ValueError
        If it is something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or "figures" not in document:
        raise ValueError(f"{path} is no result of this version's `fastmlp bench --json`.")
    return document


def compare(old: Mapping[str, Any], new: Mapping[str, Any], threshold: float = THRESHOLD) -> dict[str, Any]:
    """Return the figures of both runs, and which of them grew by more than the threshold."""
    rows = {
        name: {"old": old["figures"][name], "new": value, "change": value / old["figures"][name] - 1}
        for name, value in new["figures"].items()
        if old["figures"].get(name)
    }
    return {
        "threshold": threshold,
        "rows": rows,
        "slower": [name for name, row in rows.items() if row["change"] > threshold],
        "unmatched": sorted(set(old["figures"]) ^ set(new["figures"])),
        "same_machine": all(old["environment"][key] == new["environment"][key] for key in ("machine", "cpus", "isa")),
    }


def table(comparison: Mapping[str, Any]) -> Table:
    slower, threshold = comparison["slower"], comparison["threshold"]
    rows = [
        {
            "fastmlp": name,
            "old us": 1e6 * row["old"],
            "new us": 1e6 * row["new"],
            "change": f"{100 * row['change']:+.0f}%",
            "verdict": "slower" if name in slower else "faster" if row["change"] < -threshold else "",
        }
        for name, row in comparison["rows"].items()
    ]
    notes = [f"Only a change of more than {percent(threshold)} has a verdict; slower: {len(slower)}."]
    if not comparison["same_machine"]:
        notes.append("The two runs are from different machines or instruction sets: their times say little.")
    if comparison["unmatched"]:
        notes.append(f"In one of the runs only: {len(comparison['unmatched'])}.")
    return Table.of("Against the older run", rows, notes)
