"""What a run of the bench is asked for; made by cli.py, read by every suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastmlp.bench.rivals import ENGINE, RIVALS
from fastmlp.bench.workloads import EVERY_WORKLOAD, HIGHEST, Workload

SIDE_BY_SIDE = ("quick", "train")  # suites in which engines race each other


class Unusable(Exception):
    """What a run was asked for cannot be done; the message says why."""


@dataclass(frozen=True)
class Settings:
    """Options of a run."""

    # Fresh processes of each rival and thread count (in `quick` and `options` timed fits of each, in `tabular` splits);
    # None: its default.
    rounds: int | None = None
    threads: tuple[int, ...] = (1,)  # thread counts to try with each rival, one after the other
    workloads: tuple[str, ...] = tuple(EVERY_WORKLOAD)  # of which each suite takes its own
    rivals: tuple[str, ...] = tuple(RIVALS)
    dtype: str = "float32"  # or "float64"
    precision: str = HIGHEST  # of float32 products in `train`: the least that they may have
    data: tuple[str, ...] = ()  # of `quick`; empty for all
    solvers: tuple[str, ...] = ()  # of `quick`; empty for all
    backend: str = "auto"  # engine of fastmlp
    # Engines to run side by side in `quick` and `train`, the first of which is `backend`, and whose first fits `cold`
    # shows; empty for one engine, and in `cold` for all.
    engines: tuple[str, ...] = ()
    seconds: float = 1.0  # for the timed fits or calls of one process
    tables: tuple[str, ...] = ()  # of `tabular`; empty for all
    max_rows: int | None = None  # of a table of `tabular`; None: its default
    wheels: Path | None = None  # folder with packages of tables that are not installed
    against: str | None = None  # rival that `tabular` compares the others with; None: its default
    show: bool = False  # `tabular` shows the results that it finds and runs nothing
    results: Path | None = None  # file in which `tabular` keeps its results after every answer
    held: Mapping[str, Any] | None = None  # the document in that file, of an earlier run
    quick_check: bool = False  # everything at its smallest, to see that it runs; the times mean little

    @property
    def arithmetic(self) -> str:
        """What results may differ by: the dtype, or the precision of float32 products below the highest."""
        return self.dtype if self.precision == HIGHEST else self.precision

    def of_suite(self, rounds: int) -> Settings:
        """Return these settings with a suite's default number of rounds."""
        return replace(self, rounds=self.rounds or (1 if self.quick_check else rounds))

    def entrants(self, suite: str) -> list[str]:
        """Return fastmlp and the chosen rivals of a suite."""
        engines = self.engines[1:] if suite in SIDE_BY_SIDE else ()
        rivals = [
            name for name in self.rivals if suite in RIVALS[name].suites and self.precision in RIVALS[name].precisions
        ]
        return ["fastmlp", *(ENGINE + name for name in engines), *rivals]

    def named(self, workloads: Mapping[str, Workload]) -> list[Workload]:
        """Return the chosen workloads of a suite; all if the choice belongs to another suite."""
        return [workload for name, workload in workloads.items() if name in self.workloads] or list(workloads.values())

    def question(self, workload: Workload | None = None, **more: Any) -> dict[str, Any]:
        """Return what every worker is told."""
        question = {
            "dtype": self.dtype,
            "precision": self.precision,
            "backend": self.backend,
            "seconds": self.seconds,
        }
        if workload:
            question["workload"] = workload.name
            if self.quick_check:
                question["epochs"] = workload.checked_epochs
        return {**question, **more}

    def shown(self, **more: Any) -> dict[str, Any]:
        """Return the settings that belong to a suite's results, for JSON."""
        threads = list(self.threads)
        return {"rounds": self.rounds, "dtype": self.dtype, "precision": self.precision, "threads": threads, **more}
