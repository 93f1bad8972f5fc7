"""A file of any size -> training and validation matrices on disk, which a fit maps into memory.

The file is read once. Its codes (``coding.py``) go to a binary file in a temporary folder; with them there, the number
of rows is known, rows can be drawn for validation, and statistics taken of the training rows, exact medians included.
A second pass, over the codes, writes the features as two .npy files of the wanted dtype. ``fit`` gets them as read-only
memory maps, which the engine reads where they lie: no copy, and the same bits as from arrays in memory.

On disk this takes 8 bytes per cell for the codes, until the matrices are written, and 4 or 8 per feature.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.tabular.coding import Learner
from fastmlp.tabular.columns import Boolean, Categorical, Column, Numeric, feature_names, transformer
from fastmlp.tabular.reading import DataError, Source

#: Rows of a block between two passes over the codes; about as many bytes.
BLOCK_BYTES = 1 << 22

#: Memory for the columns whose medians are taken at a time.
MEDIAN_BYTES = 1 << 25


@dataclass
class Codes:
    """The codes of a file on disk.

    Attributes
    ----------
    path : Path
        The binary file, float64 in rows.
    names : list of str
        Its columns; the target is the last.
    kinds : list of str
        Of the columns.
    n_rows : int
    categories : dict of str to dict of str to int
        Codes of texts, of each categorical column.
    target : ndarray of shape (n_rows,)
        The codes of the target.
    """

    path: Path
    names: list[str]
    kinds: list[str]
    n_rows: int
    categories: dict[str, dict[str, int]]
    target: np.ndarray

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (rows, their codes (n, n_columns) without the target), block by block.

        Read, not mapped: mapped pages would count as memory of the process.
        """
        width = len(self.names)
        rows = max(1, BLOCK_BYTES // (8 * width))
        with self.path.open("rb") as stream:
            for start in range(0, self.n_rows, rows):
                n = min(rows, self.n_rows - start)
                block = np.fromfile(stream, dtype=np.float64, count=n * width).reshape(n, width)
                yield slice(start, start + n), block[:, :-1]


@dataclass
class Staged:
    """Features on disk, and what they were made with.

    Attributes
    ----------
    X, X_val : ndarray of shape (n_rows, n_features)
        Read-only memory maps; X_val is None without validation rows.
    columns : list of Column
        What was learned, in the file's order.
    """

    X: np.ndarray
    X_val: np.ndarray | None
    columns: list[Column]


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Yield a folder beside a future file; remove it when the block ends, also after an error.

    Raises
    ------
    DataError
        If it cannot be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{beside.name}.", suffix=".part", dir=beside.resolve().parent))
    except OSError as error:
        raise DataError(f"cannot make a folder beside {beside}: {error.strerror or error}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_codes(
    source: Source,
    kinds: Mapping[str, str],
    folder: Path,
    *,
    max_categories: int,
    on_rows: Callable[[int], object] = lambda n: None,
) -> Codes:
    """Read a file to its end and write its codes.

    Parameters
    ----------
    source : Source
    kinds : dict of str to str
        Columns to use and their kinds; the target is the last.
    folder : Path
        Where to write.
    max_categories : int
        Most categories of a column.
    on_rows : callable
        Called with the number of rows read so far.

    Raises
    ------
    DataError
        For any error in the file.
    """
    import pyarrow

    learner = Learner(source, kinds, max_categories)
    path = folder / "codes"
    targets = []
    n_rows = 0
    with path.open("wb") as stream:
        for block in learner.blocks():
            stream.write(block.data)
            targets.append(block[:, -1].copy())
            n_rows += len(block)
            on_rows(n_rows)
    pyarrow.default_memory_pool().release_unused()  # the blocks that were read ahead
    return Codes(path, list(kinds), list(kinds.values()), n_rows, learner.categories, np.concatenate(targets))


def draw_validation(target: np.ndarray, share: float, seed: int, stratify: bool) -> np.ndarray:
    """Draw the rows held out for validation: a mask (n_rows,) made by scikit-learn's shuffle splits.

    Classes keep their shares where they have two rows or more; a class that would be left without training rows has no
    validation rows.

    Raises
    ------
    DataError
        If no row is left on one side.
    """
    from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

    held_out = np.zeros(len(target), dtype=bool)
    if not share:
        return held_out
    rows = None
    if stratify:
        with suppress(ValueError):  # a class of one row, or fewer rows than classes
            rows = next(StratifiedShuffleSplit(1, test_size=share, random_state=seed).split(target, target))[1]
    try:
        if rows is None:
            rows = next(ShuffleSplit(1, test_size=share, random_state=seed).split(target))[1]
    except ValueError:
        raise DataError(
            f"--valid {share:g} of {len(target)} rows leaves none on one side; --valid 0 takes none"
        ) from None
    held_out[rows] = True
    if stratify:
        held_out &= np.isin(target, target[~held_out])
    if not held_out.any():
        raise DataError(f"--valid {share:g} of {len(target)} rows leaves none to validate on; --valid 0 takes none")
    return held_out


def learn_columns(codes: Codes, training: np.ndarray) -> tuple[list[Column], list[np.ndarray | None]]:
    """Learn each column from the training rows, and return where the provisional codes go.

    Parameters
    ----------
    codes : Codes
    training : ndarray of shape (n_rows,)
        Mask of the training rows.

    Returns
    -------
    columns : list of Column
    renumbered : list of ndarray or None
        Of each categorical column: the place of each provisional code among the sorted categories; texts that only
        validation rows have come after all others.

    Raises
    ------
    DataError
        If a column has no value in the training rows.
    """
    names, kinds = codes.names[:-1], codes.kinds[:-1]
    counts = _counts(codes, training)
    medians = _medians(codes, training)
    texts = {name: np.array(list(known), dtype=object) for name, known in codes.categories.items()}
    for name, kind in zip(names, kinds, strict=True):
        empty = np.isnan(medians[name]) if kind == "numeric" else not counts[name].any()
        if empty:
            raise DataError(f"column {name!r} has no value in the training rows: leave it out with --drop {name}")
    moments = _moments(codes, training, medians)
    columns: list[Column] = []
    renumbered: list[np.ndarray | None] = []
    for name, kind in zip(names, kinds, strict=True):
        places = None
        if kind == "numeric":
            columns.append(Numeric(name, float(medians[name]), *moments[name]))
        elif kind == "boolean":
            columns.append(Boolean(name, int(np.argmax(counts[name]))))
        else:
            seen = np.flatnonzero(counts[name])
            order = seen[np.argsort(texts[name][seen].astype(object))]
            places = np.full(len(texts[name]), float(len(order)))
            places[order] = np.arange(len(order))
            most = int(np.argmax(counts[name][order]))  # the first of equals, as SimpleImputer has it
            columns.append(Categorical(name, tuple(texts[name][order]), most))
        renumbered.append(places)
    return columns, renumbered


def stage(codes: Codes, held_out: np.ndarray, dtype: Any, folder: Path) -> Staged:
    """Learn the columns from the rows that are not held out, write all features, map them.

    Parameters
    ----------
    codes : Codes
        Their file is removed.
    held_out : ndarray of shape (n_rows,)
        Mask of the validation rows.
    dtype : dtype
        Of the features, float32 or float64.
    folder : Path
        Where to write.

    Raises
    ------
    DataError
        If a column has no value in the training rows.
    """
    columns, renumbered = learn_columns(codes, ~held_out)
    made = transformer(columns)
    width = len(feature_names(columns))
    n_val = int(held_out.sum())
    paths = folder / "X.npy", folder / "X_val.npy"
    with paths[0].open("wb") as training, paths[1].open("wb") as validation:
        for stream, n in ((training, len(held_out) - n_val), (validation, n_val)):
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (n, width)}
            np.lib.format.write_array_header_1_0(stream, header)
        for rows, block in codes.blocks():
            for i, places in enumerate(renumbered):
                if places is not None:
                    there = ~np.isnan(block[:, i])
                    block[there, i] = places[block[there, i].astype(np.intp)]
            features = np.ascontiguousarray(made.transform(block), dtype=dtype)
            mask = held_out[rows]
            training.write(features[~mask].data)
            validation.write(features[mask].data)
    codes.path.unlink()
    X = np.asarray(np.load(paths[0], mmap_mode="r"))  # a plain array over the same pages
    X_val = np.asarray(np.load(paths[1], mmap_mode="r")) if n_val else None
    return Staged(X, X_val, columns)


def _counts(codes: Codes, training: np.ndarray) -> dict[str, np.ndarray]:
    """Return how often each code of columns of booleans and texts occurs in the training rows."""
    discrete = {
        i: max(2, len(codes.categories.get(name, ())))
        for i, (name, kind) in enumerate(zip(codes.names[:-1], codes.kinds[:-1], strict=True))
        if kind != "numeric"
    }
    counts = {codes.names[i]: np.zeros(n, dtype=np.int64) for i, n in discrete.items()}
    if discrete:
        for rows, block in codes.blocks():
            for i, n in discrete.items():
                values = block[training[rows], i]
                counts[codes.names[i]] += np.bincount(values[~np.isnan(values)].astype(np.intp), minlength=n)
    return counts


def _numeric(codes: Codes) -> list[int]:
    return [i for i, kind in enumerate(codes.kinds[:-1]) if kind == "numeric"]


def _medians(codes: Codes, training: np.ndarray) -> dict[str, float]:
    """Return the median of each numeric column over the training rows, NaN without values; few columns at a time."""
    n_training = int(training.sum())
    at_a_time = max(1, MEDIAN_BYTES // (8 * n_training))
    numeric = _numeric(codes)
    medians = {}
    for first in range(0, len(numeric), at_a_time):
        group = numeric[first : first + at_a_time]
        values = np.empty((len(group), n_training))
        done = 0
        for rows, block in codes.blocks():
            part = block[training[rows]][:, group]
            values[:, done : done + len(part)] = part.T
            done += len(part)
        for i, column in zip(group, values, strict=True):
            known = column[~np.isnan(column)]
            medians[codes.names[i]] = float(np.median(known, overwrite_input=True)) if len(known) else np.nan
    return medians


def _moments(codes: Codes, training: np.ndarray, medians: Mapping[str, float]) -> dict[str, tuple[float, float, float]]:
    """Return (mean, variance, scale) of each numeric column by scikit-learn's StandardScaler, gaps replaced."""
    from sklearn.preprocessing import StandardScaler

    numeric = _numeric(codes)
    if not numeric:
        return {}
    fill = np.array([medians[codes.names[i]] for i in numeric])
    scaler = StandardScaler()
    for rows, block in codes.blocks():
        part = block[training[rows]][:, numeric]
        if len(part):
            scaler.partial_fit(np.where(np.isnan(part), fill, part))
    values = zip(scaler.mean_.tolist(), scaler.var_.tolist(), scaler.scale_.tolist(), strict=True)
    return {codes.names[i]: moments for i, moments in zip(numeric, values, strict=True)}
