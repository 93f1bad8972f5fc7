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

from fastmlp.preprocessing.frames import LARGEST
from fastmlp.tabular.coding import Learner, looked_up
from fastmlp.tabular.columns import Boolean, Categorical, Column, Numeric, coded, coder
from fastmlp.tabular.errors import DataError
from fastmlp.tabular.facts import Facts
from fastmlp.tabular.reading import Source

#: Rows of a block between two passes over the codes; about as many bytes.
BLOCK_BYTES = 1 << 22

#: Memory for the columns whose medians are taken at a time.
MEDIAN_BYTES = 1 << 25


@dataclass
class Codes:
    """The codes of a file on disk."""

    path: Path  # the binary file, float64 in rows
    names: list[str]  # of its columns; the target is the last
    kinds: list[str]  # of the columns
    categories: dict[str, dict[str, int]]  # of each categorical column: codes of texts
    target: np.ndarray  # (n_rows,), the codes of the target
    weight: np.ndarray | None = None  # (n_rows,), the weights of the rows, if a column has them
    n_given: int = 0  # rows at the end that are those of a validation file
    labelled: bool = False  # whether the file says that the numbers of the target are categories
    read: bool = False  # whether networks read the codes, not features

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (rows, their codes (n, n_columns) without the target), block by block.

        Read, not mapped: mapped pages would count as memory of the process.
        """
        width = len(self.names)
        rows = max(1, BLOCK_BYTES // (8 * width))
        with self.path.open("rb") as stream:
            for start in range(0, len(self.target), rows):
                n = min(rows, len(self.target) - start)
                block = np.fromfile(stream, dtype=np.float64, count=n * width).reshape(n, width)
                yield slice(start, start + n), block[:, :-1]

    def training_blocks(self, training: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the codes (n, n_columns) of the rows in a mask, without the target, block by block."""
        return (block[training[rows]] for rows, block in self.blocks())

    def places(self, *kinds: str) -> dict[int, str]:
        """Return place -> name of the columns of some kinds, without the target."""
        names = enumerate(self.names[:-1])
        return {i: name for i, name in names if self.kinds[i] in kinds}


@dataclass
class Staged:
    """Features on disk, and what they were made with."""

    X: np.ndarray  # (n_rows, n_features), a read-only memory map
    X_val: np.ndarray | None  # the same; None without validation rows
    columns: list[Column]  # in the file's order


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Yield a folder beside a future file; remove it when the block ends, also after an error."""
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
    weight: str | None = None,
    validation: Source | None = None,
    on_rows: Callable[[int], object] = lambda n: None,
) -> Codes:
    """Read a file to its end and write the codes of some columns, of which the target is the last, to a folder.

    `weight` is a column of weights, which is none of these. The rows of a `validation` file follow those of the first.
    `on_rows` is called with the number of rows read so far. A DataError tells of any error in the files. What people
    should know of the columns goes to ``source.notes``.
    """
    import pyarrow

    weights = {} if weight is None else {weight: "numeric"}
    learner, facts = Learner(source, {**weights, **kinds}, max_categories), Facts(kinds)
    path = folder / "codes"
    targets, given, ends = [], [], [0]
    with path.open("wb") as stream:
        for part in (source,) if validation is None else (source, validation):
            if part is validation:
                learner.follow(part)
            ends.append(ends[-1])
            for block in learner.blocks():
                if weight is not None:
                    given.append(checked_weights(part, weight, block[:, 0], ends[-1] - ends[-2]))
                    block = np.ascontiguousarray(block[:, 1:])
                stream.write(block.data)
                targets.append(block[:, -1].copy())
                if part is source:
                    facts.add(block)
                ends[-1] += len(block)
                on_rows(ends[-1])
            if part is source:
                source.notes |= facts.notes(learner.categories)
    pyarrow.default_memory_pool().release_unused()  # the blocks that were read ahead
    return Codes(
        path,
        list(kinds),
        list(kinds.values()),
        learner.categories,
        np.concatenate(targets),
        labelled=learner.target in source.labels,
        weight=np.concatenate(given) if given else None,
        n_given=0 if validation is None else ends[2] - ends[1],
    )


def checked_weights(source: Source, name: str, weights: np.ndarray, row: int) -> np.ndarray:
    """Return a copy of the weights (n,) of rows that follow `row` others; refuse those that are no weights."""
    wrong = np.flatnonzero(~((weights >= 0) & (weights < LARGEST)))
    if len(wrong):
        value = weights[wrong[0]]
        what = "the weight is missing" if np.isnan(value) else f"{value:g} is no weight, which is 0 or more"
        raise DataError(f"{source.where(row + int(wrong[0]))}, column {name!r}: {what}")
    return weights.copy()


def draw_validation(target: np.ndarray, share: float, seed: int, stratify: bool) -> np.ndarray:
    """Draw the rows held out for validation: a mask (n_rows,) made by scikit-learn's shuffle splits.

    Classes keep their shares where they have two rows or more; a class that would be left without training rows has no
    validation rows. A DataError says that no row is left on one side.
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


def learn_columns(codes: Codes, training: np.ndarray) -> tuple[list[Column], dict[int, np.ndarray]]:
    """Learn each column from the training rows, a mask (n_rows,), and return where the provisional codes go.

    Returns
    -------
    columns : list of Column
    renumbered : dict of int to ndarray
        Place of each categorical column -> the place of each provisional code among the sorted categories; texts that
        only validation rows have come after all others.
    """
    counts, medians = _counts(codes, training), _medians(codes, training)
    for i, name in enumerate(codes.names[:-1]):
        if np.isnan(medians[i]) if i in medians else not counts[i].any():
            raise DataError(f"column {name!r} has no value in the training rows: leave it out with --drop {name}")
    moments = _moments(codes, training, medians)
    columns: list[Column] = []
    renumbered = {}
    for i, name in enumerate(codes.names[:-1]):
        if i in medians:
            columns.append(Numeric(name, medians[i], *moments[i]))
        elif codes.kinds[i] == "boolean":
            columns.append(Boolean(name, int(np.argmax(counts[i]))))
        else:
            texts, seen = np.array(list(codes.categories[name]), dtype=object), np.flatnonzero(counts[i])
            order = seen[np.argsort(texts[seen])]
            renumbered[i] = np.full(len(texts), float(len(order)))
            renumbered[i][order] = np.arange(len(order))
            most = int(np.argmax(counts[i][order]))  # the first of equals, as SimpleImputer has it
            columns.append(Categorical(name, tuple(texts[order]), most))
    return columns, renumbered


def stage(codes: Codes, held_out: np.ndarray, dtype: Any, folder: Path, *, keep_codes: bool = False) -> Staged:
    """Learn the columns from the rows that are not held out, write all features to a folder, map them.

    `held_out` is a mask (n_rows,); the features are of this dtype, float32 or float64. Where networks read codes, these
    are written in their place, in float64. The file of the codes is removed, unless it is to be kept. A DataError names
    a column without a value in the training rows.
    """
    columns, renumbered = learn_columns(codes, ~held_out)
    made = coder(columns)
    n_val = int(held_out.sum())
    paths = folder / "X.npy", folder / "X_val.npy"
    with paths[0].open("wb") as training, paths[1].open("wb") as validation:
        for stream, n in ((training, len(held_out) - n_val), (validation, n_val)):
            shape = (n, len(columns) if codes.read else made.n_columns)
            header = {
                "descr": np.dtype(np.float64 if codes.read else dtype).str,
                "fortran_order": False,
                "shape": shape,
            }
            np.lib.format.write_array_header_1_0(stream, header)
        for rows, block in codes.blocks():
            for i, places in renumbered.items():
                block[:, i] = looked_up(block[:, i], places)
            features = block if codes.read else made.coded(coded(columns, block), dtype)
            mask = held_out[rows]
            training.write(features[~mask].data)
            validation.write(features[mask].data)
    if not keep_codes:
        codes.path.unlink()
    X = np.asarray(np.load(paths[0], mmap_mode="r"))  # a plain array over the same pages
    X_val = np.asarray(np.load(paths[1], mmap_mode="r")) if n_val else None
    return Staged(X, X_val, columns)


def _counts(codes: Codes, training: np.ndarray) -> dict[int, np.ndarray]:
    """Return how often each code of columns of booleans and texts occurs in the training rows."""
    discrete = codes.places("boolean", "categorical")
    counts = {i: np.zeros(max(2, len(codes.categories.get(name, ()))), np.int64) for i, name in discrete.items()}
    for block in codes.training_blocks(training) if discrete else ():
        for i, count in counts.items():
            count += np.bincount(block[~np.isnan(block[:, i]), i].astype(np.intp), minlength=len(count))
    return counts


def _medians(codes: Codes, training: np.ndarray) -> dict[int, float]:
    """Return the median of each numeric column over the training rows, NaN without values; few columns at a time."""
    n_training = int(training.sum())
    at_a_time = max(1, MEDIAN_BYTES // (8 * n_training))
    numeric = list(codes.places("numeric"))
    medians = {}
    for first in range(0, len(numeric), at_a_time):
        group = numeric[first : first + at_a_time]
        values, done = np.empty((len(group), n_training)), 0
        for block in codes.training_blocks(training):
            values[:, done : done + len(block)] = block[:, group].T
            done += len(block)
        for i, column in zip(group, values, strict=True):
            known = column[~np.isnan(column)]
            medians[i] = float(np.median(known, overwrite_input=True)) if len(known) else np.nan
    return medians


def _moments(codes: Codes, training: np.ndarray, medians: dict[int, float]) -> dict[int, tuple[float, float, float]]:
    """Return (mean, variance, scale) of each numeric column by scikit-learn's StandardScaler, gaps replaced."""
    from sklearn.preprocessing import StandardScaler

    if not medians:
        return {}
    fill, scaler = np.array(list(medians.values())), StandardScaler()
    for block in codes.training_blocks(training):
        part = block[:, list(medians)]
        if len(part):
            scaler.partial_fit(np.where(np.isnan(part), fill, part))
    values = zip(scaler.mean_.tolist(), scaler.var_.tolist(), scaler.scale_.tolist(), strict=True)
    return dict(zip(medians, values, strict=True))
