"""What the records of the suite `tabular` add up to: arrays over tables, rivals and splits, and their `scores`.

Rivals are ranked on the tables, and on the splits of each, that all of them have done. A rival with less than half of
the tables is left out of the ranking, so that a slow one does not take the tables of all others with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastmlp.bench import scores
from fastmlp.bench.datasets.declared import CLASSES

REFERENCE = "catboost"  # the others' errors are given over its

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Standings:
    """Records of chosen rivals and tables."""

    facts: Mapping[str, Mapping[str, Any]]  # of each table
    records: Mapping[tuple[str, str, int], Record]  # by table, rival, split
    test_share: float

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Standings:
        """Read a result of the suite: what its run chose to show."""
        rivals, tables = result["shown"]["rivals"], result["shown"]["tables"]
        records = {
            (record["table"], record["rival"], record["split"]): record
            for record in result["records"]
            if record["table"] in tables and record["rival"] in rivals
        }
        facts = {name: result["tables"][name] for name in tables if name in result["tables"]}
        return cls(facts, records, result["how"]["test"])

    @cached_property
    def rivals(self) -> list[str]:
        """All that have records."""
        return list(dict.fromkeys(rival for _, rival, _ in self.records))

    def tables_of(self, rivals: Sequence[str]) -> list[str]:
        """Return the tables on which all these rivals have a split in common."""
        return [table for table in self.facts if self.splits(table, rivals)]

    def splits(self, table: str, rivals: Sequence[str]) -> list[int]:
        """Return the splits of a table that all these rivals have done."""
        seeds = sorted({seed for name, _, seed in self.records if name == table})
        return [seed for seed in seeds if all((table, rival, seed) in self.records for rival in rivals)]

    @cached_property
    def ranked(self) -> list[str]:
        """The rivals with at least half of the tables."""
        most = max((len(self.tables_of([rival])) for rival in self.rivals), default=0)
        return [rival for rival in self.rivals if 2 * len(self.tables_of([rival])) >= most]

    @cached_property
    def common(self) -> list[str]:
        """The tables that all ranked rivals have."""
        return self.tables_of(self.ranked) if self.ranked else []

    def mean(self, table: str, rival: str, what: str, rivals: Sequence[str] = ()) -> float | None:
        """Return a mean over a rival's splits, or over those that it has in common with others; None without any."""
        seeds = self.splits(table, [rival, *rivals])
        values = [self.records[table, rival, seed][what] for seed in seeds]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    def means(self, what: str, tables: Sequence[str]) -> np.ndarray:
        """Return the ranked rivals' means over their common splits, (n_tables, n_ranked)."""
        return np.array([[self.mean(table, rival, what, self.ranked) for rival in self.ranked] for table in tables])

    def floors(self, tables: Sequence[str]) -> np.ndarray:
        """Return the error that a rival without a mistake counts as: half a test row."""
        rows = [self.facts[table] for table in tables]
        return np.array([0.5 / row["test_rows"] if row["task"] == CLASSES else 1e-6 for row in rows])

    @cached_property
    def reference(self) -> str:
        """The rival whose errors the others' are divided by: REFERENCE, or the first in rank."""
        return REFERENCE if REFERENCE in self.ranked else self.ranked[int(np.argmin(self.ranks))]

    @cached_property
    def ranks(self) -> np.ndarray:
        return scores.mean_ranks(self.means("error", self.common))

    @cached_property
    def normalised(self) -> np.ndarray:
        return scores.normalised(self.means("error", self.common))

    @cached_property
    def error_ratios(self) -> np.ndarray:
        errors = self.means("error", self.common)
        return scores.ratios(errors, errors[:, self.ranked.index(self.reference)], self.floors(self.common))

    @cached_property
    def log_loss_ratios(self) -> np.ndarray | None:
        """Of classification alone; None without any."""
        tables = [table for table in self.common if self.facts[table]["task"] == CLASSES]
        if not tables:
            return None
        losses = self.means("log_loss", tables)
        return scores.ratios(losses, losses[:, self.ranked.index(self.reference)], np.full(len(tables), 1e-3))

    def seconds(self, what: str) -> np.ndarray:
        """Return each ranked rival's seconds, their geometric mean over tables."""
        return np.exp(np.log(self.means(what, self.common)).mean(axis=0))

    def paired(self, rival: str, other: str) -> dict[str, Any] | None:
        """Return the comparison of two rivals on all splits that both have done; None without any.

        Tables count on which both have as many splits as on most of them.
        """
        tables = self.tables_of([rival, other])
        if not tables:
            return None
        seeds = {table: self.splits(table, [rival, other]) for table in tables}
        counts = [len(found) for found in seeds.values()]
        n_splits = max(counts, key=counts.count)
        tables = [table for table in tables if len(seeds[table]) >= n_splits]
        a, b = (
            np.array(
                [[self.records[table, name, seed]["error"] for seed in seeds[table][:n_splits]] for table in tables]
            )
            for name in (rival, other)
        )
        return {**scores.paired(a, b, self.floors(tables), self.test_share), "splits": n_splits}
