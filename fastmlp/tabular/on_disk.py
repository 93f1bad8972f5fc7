"""Data files -> one folder with a matrix on disk, which fits read block by block, now and later.

The steps are those of `fastmlp train`: the file is read once, its columns are learned from all rows, and a second pass
writes their features. The folder holds X.npy, y.npy, maybe weight.npy, and recipe.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastmlp.data.files import as_json, write_whole
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.tabular import recipe as recipes
from fastmlp.tabular.errors import DataError, one_line
from fastmlp.tabular.reading import KINDS, Dialect, open_source
from fastmlp.tabular.recipe import Recipe
from fastmlp.tabular.staging import stage, temporary_folder, write_codes
from fastmlp.tabular.target import TASKS, Target, read_target

DTYPES = ("float32", "float64")

_NAMES = ("X.npy", "y.npy", "weight.npy", "recipe.json")


@dataclass(frozen=True)
class MatrixOnDisk:
    """The rows of a table, ready for fit: features on disk, the rest in memory.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_features)
        A read-only memory map, float32 or float64.
    y : ndarray of shape (n_rows,)
        Labels (int64, bool, or str objects), or values (float64).
    sample_weight : ndarray of float64, shape (n_rows,), or None
    recipe : fastmlp.tabular.recipe.Recipe
        The way from a table to features; ``recipe.task`` is "classification" or "regression".
    """

    X: np.ndarray
    y: np.ndarray
    sample_weight: np.ndarray | None
    recipe: Recipe

    @property
    def coder(self) -> ColumnCoder:
        """Return what makes the same features of frames: ``coder.transform(frame)``."""
        return self.recipe.coder

    @property
    def feature_names(self) -> list[str]:
        """Return the names of the columns of X."""
        return self.recipe.features


def matrix_on_disk(
    data: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    target: str,
    task: str = "auto",
    weight: str | None = None,
    drop: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
    max_categories: int = 1000,
    dtype: str = "float32",
) -> MatrixOnDisk:
    """Convert data files, block by block, to a matrix on disk that fits map into memory.

    Numbers get mean 0 and variance 1, texts become a feature per category, missing values the median or the most
    frequent value, as in `fastmlp train`. A few blocks are in memory, and some 20 bytes per row: the target, and one
    column at a time for its median. While it works, the folder needs 8 bytes on disk per cell besides the matrix.

    Parameters
    ----------
    data : str or path-like
        A data file of any kind that `fastmlp train` reads, or a folder of Parquet and Arrow files.
    folder : str or path-like
        Where the matrix will be; it must not be there yet. It appears whole or not at all.
    target : str
        The column to predict.
    task : {"auto", "classification", "regression"}, default="auto"
        "auto" takes texts, truths, categories and at most 20 different whole numbers for classes.
    weight : str, default=None
        The column of the rows' weights.
    drop : sequence of str, default=()
        Columns to leave out.
    kinds : mapping of str to {"numeric", "boolean", "categorical"}, default=None
        Kinds of columns that are not what they look like.
    missing : sequence of str, default=()
        Texts that stand for missing values, besides the usual ones of CSV files.
    max_categories : int, default=1000
        Most different texts of a column.
    dtype : {"float32", "float64"}, default="float32"
        Of X.

    Returns
    -------
    MatrixOnDisk

    Raises
    ------
    DataError
        A ValueError in one line: for anything wrong in a file, with its name and row, or if the folder is there. What
        it says of ``--drop`` and ``--kind`` is about the parameters here.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pyarrow as pa
    >>> import pyarrow.parquet as pq
    >>> from fastmlp import MLPRegressor
    >>> from fastmlp.tabular import matrix_on_disk
    >>> place = Path(tempfile.mkdtemp())
    >>> (place / "sales").mkdir()
    >>> for i in range(3):
    ...     part = pa.table({"town": ["Bonn", "Ulm"] * 50, "day": range(100), "sold": [1.5 + i] * 50 + [2.5] * 50})
    ...     pq.write_table(part, place / "sales" / f"part-{i}.parquet")
    >>> table = matrix_on_disk(place / "sales", place / "sales.matrix", target="sold")
    >>> table.X.shape, table.feature_names
    ((300, 3), ['day', 'town=Bonn', 'town=Ulm'])
    >>> options = {"hidden_layer_sizes": (4,), "max_iter": 300, "random_state": 0}
    >>> model = MLPRegressor(**options, shuffle=32).fit(table.X, table.y)
    >>> new = pa.table({"town": ["Ulm"], "day": [99]})
    >>> model.predict(table.coder.transform(new)).round(1)
    array([2.5], dtype=float32)
    """
    folder, wanted = Path(folder), kinds or {}
    _check(folder, target, task, drop, wanted, dtype)
    source = open_source(data, Dialect(missing=tuple(missing)))
    used = source.chosen(target, (*drop, *(() if weight is None else (weight,))), wanted)
    with temporary_folder(folder) as part:
        codes = write_codes(source, used, part, max_categories=max_categories, weight=weight)
        found = read_target(codes, task, str(source.path))
        try:
            columns = stage(codes, np.zeros(len(found.y), bool), dtype, part).columns
        except DataError as error:
            raise DataError(f"{data}: {error}") from None
        (part / "X_val.npy").unlink()
        _write(part, Recipe(columns, found.name, found.task, source.dialect), found, codes.weight)
        try:
            part.rename(folder)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from None
        part.mkdir()  # for the one that removes it
    return open_matrix(folder)


def open_matrix(folder: str | os.PathLike[str]) -> MatrixOnDisk:
    """Open what :func:`matrix_on_disk` has written.

    Parameters
    ----------
    folder : str or path-like

    Returns
    -------
    MatrixOnDisk

    Raises
    ------
    DataError
        If the folder holds no such matrix.
    """
    X_path, y_path, weight_path, recipe_path = (Path(folder) / name for name in _NAMES)
    try:
        recipe = recipes.from_json(json.loads(recipe_path.read_text(encoding="utf-8")))
        X = np.asarray(np.load(X_path, mmap_mode="r"))  # a plain array over the same pages
        y = _as_given(np.load(y_path, allow_pickle=False), recipe)
        weight = np.load(weight_path, allow_pickle=False) if weight_path.exists() else None
    except OSError as error:
        raise DataError(f"{folder}: is no matrix on disk: {error.strerror or error}: {error.filename}") from None
    except (ValueError, IndexError, EOFError) as error:
        raise DataError(f"{folder}: is no matrix on disk: {one_line(error)}") from None
    lengths = {len(array) for array in (X, y, weight) if array is not None}
    if len(lengths) > 1 or X.shape[1:] != (len(recipe.features),):
        raise DataError(f"{folder}: is no matrix on disk: its files do not belong together")
    return MatrixOnDisk(X, y, weight, recipe)


def _as_given(y: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return values as they are, and the labels of places among the classes."""
    if recipe.task == "regression":
        return y
    classes = np.asarray(recipe.training.get("classes", ()))
    return (classes.astype(object) if classes.dtype.kind == "U" else classes)[y]


def _check(folder: Path, target: str, task: str, drop: Sequence[str], kinds: Mapping[str, str], dtype: str) -> None:
    if not isinstance(target, str):
        raise DataError(f"target must be the name of a column, got {target!r}")
    if isinstance(drop, str):
        raise DataError(f"drop must be a sequence of names, got {drop!r}")
    for name, value, allowed in (("task", task, TASKS), ("dtype", dtype, DTYPES)):
        if value not in allowed:
            raise DataError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    for column, kind in kinds.items():
        if kind not in KINDS:
            raise DataError(f"kinds must have values of {', '.join(KINDS)}, got {kind!r} for {column!r}")
    if folder.exists():
        raise DataError(f"{folder}: is there already; open_matrix reads it")


def _write(folder: Path, recipe: Recipe, target: Target, weight: np.ndarray | None) -> None:
    """Write what belongs to X; labels go as their places among the classes."""
    document = recipe.to_json()
    document[recipes.KEY]["training"] = {"classes": target.classes, "rows": len(target.y)}
    y = target.y if target.task == "regression" else np.searchsorted(np.array(target.classes), target.y)
    for name, array in zip(_NAMES[1:3], (y, weight), strict=True):
        if array is not None:
            np.save(folder / name, array, allow_pickle=False)
    write_whole(folder / _NAMES[3], as_json(document))
