"""A file of a package -> a `Frame`: what the rivals get, as pandas users would have it.

Numbers are float64 with NaN where they are missing. Texts, booleans and codes are of pandas' dtype category, missing
ones too. Files with a header of `@attribute` lines say which columns are categories.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench.datasets import packages
from fastmlp.bench.datasets.declared import CLASSES, Declared
from fastmlp.data.optional import needed


@dataclass(frozen=True)
class Frame:
    """A whole table."""

    X: Any  # pandas.DataFrame (n, d): columns of float64 and of categories
    y: np.ndarray  # (n,): texts of classes, or float64

    def facts(self, task: str) -> dict[str, Any]:
        """Return the size of the table, its categories, missing values and classes."""
        categories = [self.X[name].cat.categories.size for name in categorical(self.X)]
        return {
            "rows": len(self.X),
            "columns": self.X.shape[1],
            "categorical": len(categories),
            "most categories": max(categories, default=0),
            "missing": float(self.X.isna().to_numpy().mean()),
            "classes": len(np.unique(self.y)) if task == CLASSES else 0,
        }


def categorical(X: Any) -> list[str]:
    """Return the names of a frame's categorical columns."""
    return [name for name in X if X[name].dtype == "category"]


def load(row: Declared, wheels: Path | None = None) -> Frame:
    """Read a declared table.

    Raises
    ------
    FileNotFoundError
        If its package is not there.
    ImportError
        If pandas is not.
    """
    pandas = needed("pandas", "fastmlp bench tabular", "'fastmlp[tables]'")
    content = packages.read(row.package, row.where, wheels)
    table, codes = _table(row, content, pandas)
    by_place = list(table.columns)

    def label(column: str | int) -> Any:
        return by_place[column] if isinstance(column, int) else column

    target = label(row.target)
    table = table[table[target].notna()]
    y = _target(row, table[target])
    X = table.drop(columns=[target, *map(label, row.drop)])
    coded = {*codes, *map(label, row.codes)}
    columns = {_name(name): _column(X[name], name in coded, pandas) for name in X}
    return Frame(pandas.DataFrame(columns).reset_index(drop=True), y)


def _table(row: Declared, content: bytes, pandas: Any) -> tuple[Any, Sequence[Any]]:
    """Return the table as its file has it, and the columns that the file says are categories."""
    if row.where.endswith(".pkl.compress"):
        return pandas.read_pickle(io.BytesIO(content), compression="xz"), ()
    options: dict[str, Any] = dict(row.options)
    if row.where.endswith(".gz"):
        options["compression"] = "gzip"
    elif content.lstrip().lower().startswith(b"@relation"):
        return _with_attributes(content, pandas)
    return pandas.read_csv(io.BytesIO(content), skipinitialspace=True, **options), ()


def _with_attributes(content: bytes, pandas: Any) -> tuple[Any, list[str]]:
    """Read a file of KEEL: lines `@attribute NAME {a, b}` or `@attribute NAME real [0, 1]`, then `@data` and CSV."""
    head, data = re.split(rb"@data\s*\n", content, maxsplit=1, flags=re.IGNORECASE)
    lines = re.findall(rb"^@attribute\s+([^\s{\[]+)\s*(.*)$", head, re.IGNORECASE | re.MULTILINE)
    names = [name.decode() for name, _ in lines]
    table = pandas.read_csv(io.BytesIO(data), header=None, names=names, skipinitialspace=True)
    return table, [name for name, (_, kind) in zip(names, lines, strict=True) if kind.lstrip().startswith(b"{")]


def _target(row: Declared, values: Any) -> np.ndarray:
    if row.task == CLASSES:
        return values.astype(str).str.strip().to_numpy(dtype=str)
    numbers = values.to_numpy(dtype=np.float64)
    return np.log(numbers) if row.log else numbers


def _name(column: Any) -> str:
    """Return a name that every rival takes: some refuse brackets, others numbers."""
    return f"x{column}" if isinstance(column, (int, np.integer)) else re.sub(r"\W+", "_", column)


def _column(values: Any, coded: bool, pandas: Any) -> Any:
    """Return a column as float64 or as a category of texts."""
    if not coded and pandas.api.types.is_numeric_dtype(values) and values.dtype != bool:
        return values.astype(np.float64)
    present = values.notna()
    texts = values.astype(str).str.strip()
    return texts.where(present & (texts != "")).astype("category")
