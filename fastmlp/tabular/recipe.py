"""What a model file of `fastmlp train` holds besides the network: the way from a table to features, and its history.

It is JSON in the file's metadata. ``train`` writes it; the other commands check it as they read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.tabular import columns as tables
from fastmlp.tabular.coding import Coder
from fastmlp.tabular.columns import Column
from fastmlp.tabular.errors import DataError
from fastmlp.tabular.marks import DECIMALS, THOUSANDS
from fastmlp.tabular.reading import Dialect, Source

#: Key of the metadata.
KEY = "table"
VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """From the rows of a file to features, and how the network was trained."""

    columns: list[Column]  # in the order of the file that was trained on
    target: str  # the column that is predicted
    task: str  # "classification" or "regression"
    dialect: Dialect = field(default_factory=Dialect)  # how missing values and numbers in texts were written
    training: Mapping[str, Any] = field(default_factory=dict)  # rows, metrics, seconds and versions, for people
    ids: tuple[str, ...] = ()  # columns that identify rows, which predictions repeat
    reads_codes: bool = False  # whether the network reads codes of the columns, which it has a coder of its own for

    @property
    def features(self) -> list[str]:
        """Names of what the network sees."""
        if self.reads_codes:
            return [column.name for column in self.columns]
        return tables.feature_names(self.columns)

    @cached_property
    def coder(self) -> ColumnCoder:
        """The fitted coder of tables: rows of a file or of a frame -> features."""
        return tables.coder(self.columns)

    def blocks(self, source: Source, dtype: Any, coder: Coder | None = None, unknown: str = "ignore") -> Iterator[Any]:
        """Yield features (n_rows, n_features) of the rows of a file, block by block.

        Parameters
        ----------
        source : Source
            Its columns are found by name.
        dtype : dtype
            That of the network.
        coder : Coder, optional
            Counts the texts that training did not see.
        unknown : {"ignore", "error"}
            Whether these are an error.

        Raises
        ------
        DataError
            As ``Coder.blocks``.
        """
        return (X for X, _ in self.blocks_beside(source, dtype, {}, coder, unknown))

    def blocks_beside(
        self,
        source: Source,
        dtype: Any,
        beside: Mapping[str, str],
        coder: Coder | None = None,
        unknown: str = "ignore",
    ) -> Iterator[tuple[Any, Any]]:
        """Yield features as :meth:`blocks` does, and a pyarrow.RecordBatch of the same rows with more columns.

        `beside` are these columns and their kinds.
        """
        for codes, batch in (coder or Coder(self.columns)).blocks_beside(source, beside, unknown):
            yield codes if self.reads_codes else self.coder.coded(tables.coded(self.columns, codes), dtype), batch

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as metadata of a model file."""
        entries = {
            "version": VERSION,
            "columns": tables.to_json(self.columns),
            "target": self.target,
            "task": self.task,
            "missing": list(self.dialect.missing),
            "decimal": self.dialect.decimal,
            "thousands": self.dialect.thousands,
            "training": dict(self.training),
        }
        if self.ids:
            entries["ids"] = list(self.ids)
        if self.reads_codes:
            entries["reads_codes"] = True
        return {KEY: entries}


def from_json(metadata: Any) -> Recipe:
    """Return the recipe that :meth:`Recipe.to_json` described; raise a DataError if there is none that makes sense."""
    entries = metadata.get(KEY) if isinstance(metadata, Mapping) else None
    if not isinstance(entries, Mapping):
        raise DataError("it says nothing about columns: `fastmlp train` did not write it")
    if entries.get("version") != VERSION:
        raise DataError(f"the description of its columns has version {entries.get('version')!r}, this is {VERSION}")
    target, task, training = entries.get("target"), entries.get("task"), entries.get("training")
    if not isinstance(target, str):
        raise DataError("target must be a text")
    if task not in ("classification", "regression"):
        raise DataError(f"task must be classification or regression, got {str(task)[:40]!r}")
    if not isinstance(training, Mapping):
        raise DataError("training must be an object")
    missing = entries.get("missing")
    if not isinstance(missing, list) or not all(isinstance(text, str) for text in missing):
        raise DataError("missing must be a list of texts")
    ids = entries.get("ids", [])
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise DataError("ids must be a list of texts")
    reads_codes = entries.get("reads_codes", False)
    if not isinstance(reads_codes, bool):
        raise DataError("reads_codes must be true or false")
    # files of earlier versions say nothing about numbers in texts
    decimal, thousands = entries.get("decimal", "."), entries.get("thousands")
    if decimal not in DECIMALS or thousands not in (None, *THOUSANDS) or decimal == thousands:
        raise DataError("decimal and thousands must be different marks of numbers")
    dialect = Dialect(missing=tuple(missing), decimal=decimal, thousands=thousands)
    columns = tables.from_json(entries.get("columns"))
    return Recipe(columns, target, task, dialect, training, tuple(ids), reads_codes)


def load(path: Path, *, needed: bool = True) -> tuple[Any, Recipe | None]:
    """Load a saved estimator and its recipe.

    Parameters
    ----------
    path : Path
    needed : bool
        Whether a file without a recipe is an error; if not, None stands for it.

    Raises
    ------
    DataError
        If the recipe is missing, makes no sense, or does not fit the network.
    ModelFileError, OSError
        As ``fastmlp.persistence.load``.
    """
    from fastmlp.persistence import load as load_estimator
    from fastmlp.persistence import read_metadata

    estimator = load_estimator(path)
    metadata = read_metadata(path)
    if not needed and KEY not in metadata:
        return estimator, None
    try:
        recipe = from_json(metadata)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if recipe.reads_codes != has_coder(estimator):
        raise DataError(f"{path}: its columns are not those of a {type(estimator).__name__}")
    n_features, n_taken = len(recipe.features), estimator.n_features_in_
    if n_features != n_taken:
        raise DataError(f"{path}: its columns make {n_features} features, its network takes {n_taken}")
    if (recipe.task == "classification") != hasattr(estimator, "classes_"):
        raise DataError(f"{path}: its task is {recipe.task}, its network is a {type(estimator).__name__}")
    return estimator, recipe


def networks_of(estimator: Any) -> list[Any]:
    """Return the networks of an ensemble; of another fitted estimator, itself."""
    found: list[Any] = getattr(estimator, "estimators_", None) or [estimator]
    return found


def has_coder(estimator: Any) -> bool:
    """Return whether a fitted estimator codes the columns of tables itself."""
    return hasattr(networks_of(estimator)[0], "coder_")


def dtype_of(estimator: Any) -> Any:
    """Return the dtype of a fitted estimator's networks."""
    return networks_of(estimator)[0].coefs_[0].dtype
