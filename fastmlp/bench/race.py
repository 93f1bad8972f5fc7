"""A run of a suite: rounds over rivals, with the same results or no times.

`Run.gather` only asks. `Run.race` also judges, for `train`, `predict`, `cuda` and `quick` of several engines. Each
measurement of a race is a fresh process, which answers with seconds, losses and a file with an array (weights or
outputs). After every round all results are compared with the reference's; a rival whose results differ has no times
and runs no more. If it is fastmlp that differs, or the reference fails, nobody has times.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import processes
from fastmlp.bench.rivals import engine_rivals
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import difference, number, share
from fastmlp.bench.workloads import Workload

Tell = Callable[[str], None]

# Largest differences that count as the same result, by dtype, and by precision of float32 products. Losses: relative.
# Arrays: Euclidean distance between two results, relative to that between the reference's and where all started. The
# first steps of Adam follow signs of gradients, so that rounding alone moves float32 weights of a large net apart by
# 1e-2 of the way within an epoch. Halves of bfloat16 stay within that. Numbers rounded to bfloat16 move losses by up to
# 1.5e-3 and weights by up to 8e-2 (emulated matrix units, and PyTorch's autocast).
TOLERANCE: Mapping[str, Mapping[str, float]] = {
    "float32": {"losses": 1e-3, "array": 3e-2},
    "float64": {"losses": 1e-6, "array": 1e-6},
    "high": {"losses": 1e-3, "array": 3e-2},
    "medium": {"losses": 1e-2, "array": 3e-1},
}

JUDGES = ("scikit-learn", "fastmlp")
WRONG = {"differs": "results differ", "failed": "failed"}  # status -> in words


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
        numbers = {key: finite(getattr(self, key)) for key in ("loss", "loss_diff", "array_diff")}
        facts = {"status": self.status, "problem": self.problem, "version": self.version}
        return {**facts, **numbers, "threads": threads, "best": best}


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


@dataclass
class Run:
    """One run of a suite: what it asks of its processes, and what went wrong."""

    suite: str
    settings: Settings
    tell: Tell
    problems: list[str] = field(default_factory=list)  # a line for each result that differs or process that failed
    held: Mapping[str, Any] | None = None  # the result of an earlier run, if this one can go on from there
    keep: Callable[[Mapping[str, Any]], None] = lambda result: None  # keeps the result so far, for such a run

    @cached_property
    def versions(self) -> Mapping[str, str | None]:
        """The version of each rival, None for one that is absent."""
        return processes.installed(self.settings.entrants(self.suite))

    def gather(
        self, name: str, rivals: Iterable[str], ask: Callable[[str], dict[str, Any]], rounds: int | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Ask every rival once a round; return the answers of each."""
        found: dict[str, list[dict[str, Any]]] = {rival: [] for rival in rivals}
        rounds = rounds or self.settings.rounds or 1
        for k in range(rounds):
            for rival, answers in found.items():
                self.tell(f"{self.suite}: {name}, round {k + 1} of {rounds}, {rival}")
                try:
                    answers.append(ask(rival))
                except processes.Failed as failure:
                    self.problems.append(f"{name}, {rival}: failed: {failure}")
        return found

    def race(
        self,
        name: str,
        workload: Workload | None = None,
        origin: np.ndarray | float = 0.0,
        judges: Sequence[str] = JUDGES,
        **question: Any,
    ) -> dict[str, dict[str, Any]]:
        """Run all rounds of one case and return `Record.as_dict()` by rival.

        The arrays started from `origin`: distances are relative to the way from there. The first of `judges` that
        takes part is the reference.
        """
        records = {rival: Record(version) for rival, version in self.versions.items()}
        for record in records.values():
            if record.version is None:
                record.drop("absent", "not installed")
        reference: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as folder:
            if workload:
                workload.write(Path(folder), self.settings.dtype)
            request = self.settings.question(workload, folder=folder, out=str(Path(folder, "out.npy")), **question)
            for k in range(self.settings.rounds or 1):
                answers = list(self._round(k, name, records, request))
                reference = reference or _reference(records, answers, judges)
                for rival, n, answer in answers:
                    if reference and records[rival].status == "ok":
                        _judge(records[rival], answer, reference, origin, self.settings.arithmetic)
                        if records[rival].status == "ok":
                            records[rival].answers.setdefault(n, []).append(answer)
                if not reference or records["fastmlp"].status != "ok":
                    for record in records.values():
                        if record.status == "ok":
                            record.drop("untimed", "nothing to compare it with")
                    break
        found = {rival: record.as_dict() for rival, record in records.items()}
        self.problems += [f"{name}, {rival}: {problem}" for rival, problem in wrong(found)]
        return found

    def _round(
        self, k: int, name: str, records: Mapping[str, Record], request: Mapping[str, Any]
    ) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Yield (rival, threads, answer) of all processes of a round that answer."""
        entrants = [(rival, n) for n in self.settings.threads for rival in records]
        for rival, n in entrants if k % 2 == 0 else reversed(entrants):
            record = records[rival]
            if record.status != "ok":
                continue
            self.tell(f"{self.suite}: {name}, round {k + 1} of {self.settings.rounds}, {rival}, threads: {n}")
            # From the second round on as many epochs per fit as in the first.
            known = record.answers.get(n, [{}])[0]
            epochs = {"epochs": known["epochs"]} if "epochs" in known else {}
            try:
                answer = processes.ask(rival, self.suite, {**request, **epochs}, threads=n)
            except processes.Failed as failed:
                record.drop("failed", str(failed))
                continue
            if "absent" in answer:
                record.drop("absent", answer["absent"])
                continue
            yield rival, n, {**answer, "array": np.load(request["out"]).astype(np.float64)}


def medians(entries: Sequence[Mapping[str, Any]], what: str, engines: Sequence[str] = ()) -> dict[str, float]:
    """Return figures: the medians at the best thread count of fastmlp, or of each engine by name."""
    names = {f" {engine}": rival for engine, rival in engine_rivals(engines).items()} or {"": "fastmlp"}
    return {
        f"{entry['name']}{engine}{what}": times["median"]
        for entry in entries
        for engine, rival in names.items()
        if (times := best(entry["rivals"][rival]))
    }


def _reference(
    records: Mapping[str, Record], answers: Sequence[tuple[str, int, Any]], judges: Sequence[str]
) -> dict[str, Any]:
    """Return the answer that the others are compared with; empty if the judge gave none."""
    judge = next(rival for rival in judges if rival in records and records[rival].status != "absent")
    return next((answer for rival, _, answer in answers if rival == judge and answer is not None), {})


def _judge(
    record: Record, answer: Mapping[str, Any], reference: Mapping[str, Any], origin: np.ndarray | float, arithmetic: str
) -> None:
    """Note how far an answer is from the reference, and drop the rival if that is too far for `Settings.arithmetic`."""
    losses = [relative(theirs, reference["losses"]) for theirs in answer["losses"]]
    way = np.linalg.norm(reference["array"] - origin)
    same_shape = answer["array"].shape == reference["array"].shape
    array = np.linalg.norm(answer["array"] - reference["array"]) / way if same_shape else np.inf
    # np.maximum, so that NaN stays
    record.loss_diff = float(np.maximum.reduce([record.loss_diff, *losses]))
    record.array_diff = float(np.maximum(record.array_diff, array))
    record.loss = answer["losses"][0][-1] if answer["losses"] else None
    limits = TOLERANCE[arithmetic]
    problems = []
    for what, name, found in (("losses", "losses", record.loss_diff), ("array", answer["what"], record.array_diff)):
        if not found <= limits[what]:  # so that NaN is a difference
            problems.append(f"{name} differ by {found:.1e}, more than {limits[what]:.0e}")
    if problems:
        record.drop("differs", "; ".join(problems))


def relative(ours: Sequence[float], theirs: Sequence[Sequence[float]]) -> float:
    """Return the largest relative difference between a list of losses and the reference's first."""
    if len(ours) != len(theirs[0]):
        return float("inf")
    return float(np.max(np.abs(np.subtract(ours, theirs[0])) / np.abs(theirs[0])))


def best(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the times at a rival's best thread count; empty if it has none."""
    return record["threads"].get(record["best"], {})


def ratio(rivals: Mapping[str, Mapping[str, Any]], rival: str, threads: str | None = None) -> float | None:
    """Return how many times faster than a rival: each at its best thread count, or both at the given one."""
    theirs, ours = (
        rivals[name]["threads"].get(threads or rivals[name]["best"], {}).get("median") for name in (rival, "fastmlp")
    )
    return share(theirs, ours)


def ratios(rivals: Mapping[str, Mapping[str, Any]], threads: str | None = None) -> dict[str, float | None]:
    """Return `ratio` of every rival of a case."""
    return {rival: ratio(rivals, rival, threads) for rival in rivals if rival != "fastmlp"}


def mean(ratios: Sequence[float | None]) -> float | None:
    """Return the geometric mean of the ratios that exist."""
    known = [value for value in ratios if value is not None]
    return statistics.geometric_mean(known) if known else None


def wrong(records: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (name, problem) of those whose results differ or whose process failed."""
    return [
        (name, f"{WRONG[record['status']]}: {record['problem']}")
        for name, record in records.items()
        if record["status"] in WRONG
    ]


# --- what tables show of a race ---------------------------------------------------------------------------------------


def shown(record: Mapping[str, Any], threads: str | None = None, scale: float = 1e6) -> str:
    """Return the median at a thread count, or at the best; what went wrong if there is none."""
    times = record["threads"].get(threads or record["best"])
    return number(scale * times["median"]) if times else record["status"]


def differences(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of how far losses and weights are from the reference's."""
    compared = record["status"] in ("ok", "differs", "untimed")
    return {
        f"{what} diff": difference(record[key] if compared else None)
        for what, key in (("loss", "loss_diff"), ("weight", "array_diff"))
    }
