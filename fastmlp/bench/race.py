"""Rounds over rivals: same results or no times. Used by `train`, `predict`, `cuda` and `quick` of several engines.

Each measurement is a fresh process, which answers with seconds, losses and a file with an array (weights or outputs).
After every round all results are compared with the reference's; a rival whose results differ has no times and runs no
more. If it is fastmlp that differs, or the reference fails, nobody has times.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import processes

Tell = Callable[[str], None]

# Largest differences that count as the same result, by dtype. Losses: relative. Arrays: Euclidean distance between two
# results, relative to that between the reference's and where all started. The first steps of Adam follow signs of
# gradients, so that rounding alone moves float32 weights of a large net apart by 1e-2 of the way within an epoch.
TOLERANCE: Mapping[str, Mapping[str, float]] = {
    "float32": {"losses": 1e-3, "array": 3e-2},
    "float64": {"losses": 1e-6, "array": 1e-6},
}

JUDGES = ("scikit-learn", "fastmlp")


@dataclass
class Record:
    """What one rival's processes answered."""

    version: str | None
    problem: str = ""
    status: str = "ok"  # or "absent", "failed", "differs", "untimed" (because of another's result)
    loss: float | None = None
    loss_diff: float = 0.0
    array_diff: float = 0.0
    answers: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # by thread count

    def drop(self, status: str, problem: str) -> None:
        """Remove the times."""
        self.status, self.problem, self.answers = status, problem, {}

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON, where a number that is not finite becomes None."""
        threads = {str(n): _times(answers) for n, answers in self.answers.items()}
        best = min(threads, key=lambda n: threads[n]["median"]) if threads else None
        return {
            "status": self.status,
            "problem": self.problem,
            "version": self.version,
            "loss": finite(self.loss),
            "loss_diff": finite(self.loss_diff),
            "array_diff": finite(self.array_diff),
            "threads": threads,
            "best": best,
        }


def finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the median, and the distance between the quartiles as a part of it."""
    median = statistics.median(seconds)
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [median] * 3
    return {"seconds": list(seconds), "median": median, "spread": (quartiles[2] - quartiles[0]) / median}


def _times(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one rival's times at one thread count: warm ones of all rounds, cold ones of the first (empty cache)."""
    first = answers[0]
    extra = {key: first[key] for key in ("setup", "cold", "epochs", "launches") if key in first}
    on_device = [seconds for answer in answers for seconds in answer.get("device_seconds", ())]
    if on_device:
        extra["device"] = statistics.median(on_device)
    return {**summary([seconds for answer in answers for seconds in answer["seconds"]]), **extra}


def race(
    action: str,
    request: Mapping[str, Any],
    versions: Mapping[str, str | None],
    threads: Sequence[int],
    rounds: int,
    origin: np.ndarray | float,
    tell: Tell,
    judges: Sequence[str] = JUDGES,
) -> dict[str, dict[str, Any]]:
    """Run all rounds of one case.

    Parameters
    ----------
    action : str
        What the workers are asked.
    request : mapping
        The question; `folder` is where they find their data and leave their arrays.
    versions : mapping
        Version of each rival, None for one that is absent.
    origin : ndarray or float
        Where the arrays started: distances are relative to the way from there.
    judges : sequence of str
        The first of them that takes part is the reference.

    Returns
    -------
    dict
        `Record.as_dict()` by rival.
    """
    records = {rival: Record(version) for rival, version in versions.items()}
    for record in records.values():
        if record.version is None:
            record.drop("absent", "not installed")
    reference: dict[str, Any] = {}
    entrants = [(rival, n) for n in threads for rival in records]
    for k in range(rounds):
        answers = []
        for rival, n in entrants if k % 2 == 0 else reversed(entrants):
            record = records[rival]
            if record.status == "ok":
                tell(f"round {k + 1} of {rounds}, {rival}, threads: {n}")
                answers.append((rival, n, _ask(action, request, rival, n, record)))
        reference = reference or _reference(records, answers, judges)
        if not reference:
            break
        for rival, n, answer in answers:
            if answer is not None and records[rival].status == "ok":
                _judge(records[rival], answer, reference, origin, request["dtype"])
                if records[rival].status == "ok":
                    records[rival].answers.setdefault(n, []).append(answer)
        if records["fastmlp"].status != "ok":
            break
    if records["fastmlp"].status != "ok" or not reference:
        for record in records.values():
            if record.status == "ok":
                record.drop("untimed", "nothing to compare it with")
    return {rival: record.as_dict() for rival, record in records.items()}


def _ask(action: str, request: Mapping[str, Any], rival: str, threads: int, record: Record) -> dict[str, Any] | None:
    out = Path(request["folder"], "out.npy")
    # From the second round on as many epochs per fit as in the first.
    known = record.answers.get(threads)
    epochs = {"epochs": known[0]["epochs"]} if known and "epochs" in known[0] else {}
    try:
        answer = processes.ask(rival, action, {**request, **epochs, "out": str(out)}, threads=threads)
    except processes.Failed as failed:
        record.drop("failed", str(failed))
        return None
    answer["array"] = np.load(out).astype(np.float64)
    return answer


def _reference(
    records: Mapping[str, Record], answers: Sequence[tuple[str, int, Any]], judges: Sequence[str]
) -> dict[str, Any]:
    """Return the answer that the others are compared with; empty if the judge gave none."""
    judge = next(rival for rival in judges if rival in records and records[rival].status != "absent")
    return next((answer for rival, _, answer in answers if rival == judge and answer is not None), {})


def _judge(
    record: Record, answer: Mapping[str, Any], reference: Mapping[str, Any], origin: np.ndarray | float, dtype: str
) -> None:
    """Note how far an answer is from the reference, and drop the rival if that is too far."""
    losses = [relative(theirs, reference["losses"]) for theirs in answer["losses"]]
    way = np.linalg.norm(reference["array"] - origin)
    same_shape = answer["array"].shape == reference["array"].shape
    array = np.linalg.norm(answer["array"] - reference["array"]) / way if same_shape else np.inf
    # np.maximum, so that NaN stays
    record.loss_diff = float(np.maximum.reduce([record.loss_diff, *losses]))
    record.array_diff = float(np.maximum(record.array_diff, array))
    record.loss = answer["losses"][0][-1] if answer["losses"] else None
    limits = TOLERANCE[dtype]
    problems = []
    for what, difference in (("losses", record.loss_diff), ("array", record.array_diff)):
        if not difference <= limits[what]:  # so that NaN is a difference
            name = {"array": answer["what"]}.get(what, what)
            problems.append(f"{name} differ by {difference:.1e}, more than {limits[what]:.0e}")
    if problems:
        record.drop("differs", "; ".join(problems))


def relative(ours: Sequence[float], theirs: Sequence[Sequence[float]]) -> float:
    """Return the largest relative difference between a list of losses and the reference's first."""
    if len(ours) != len(theirs[0]):
        return float("inf")
    return float(np.max(np.abs(np.subtract(ours, theirs[0])) / np.abs(theirs[0])))


def ratio(rivals: Mapping[str, Mapping[str, Any]], rival: str, threads: str | None = None) -> float | None:
    """Return how many times faster than a rival: each at its best thread count, or both at the given one."""
    medians = []
    for name in (rival, "fastmlp"):
        record = rivals.get(name, {"threads": {}})
        times = record["threads"].get(threads or record.get("best"))
        if times is None:
            return None
        medians.append(times["median"])
    return medians[0] / medians[1]


def mean(ratios: Sequence[float | None]) -> float | None:
    """Return the geometric mean of the ratios that exist."""
    known = [value for value in ratios if value is not None]
    return statistics.geometric_mean(known) if known else None


def problems(case: str, rivals: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line for each rival whose results differ or whose process failed."""
    words = {"differs": "results differ", "failed": "failed"}
    return [
        f"{case}, {name}: {words[record['status']]}: {record['problem']}"
        for name, record in rivals.items()
        if record["status"] in words
    ]
