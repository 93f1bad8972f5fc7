"""Two columns of a data file, and the column to predict, as points of the plane."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastmlp.playground.data import Points, Table
from fastmlp.tabular.errors import DataError, listed
from fastmlp.tabular.reading import Dialect, Source, open_source
from fastmlp.tabular.staging import stage, write_codes
from fastmlp.tabular.target import read_target

#: Most classes: a colour for each.
MOST_CLASSES = 6

#: Fewest rows: some of each class to train on, and some to test on.
LEAST_ROWS = 10


def read_table(
    path: str | os.PathLike[str],
    target: str,
    columns: Sequence[str] = (),
    *,
    task: str = "auto",
    dialect: Dialect | None = None,
) -> Table:
    """Read two columns of numbers and a target from a data file.

    The columns are scaled to mean 0 and variance 1, missing values become the median, and so are the values of a
    regression.

    Parameters
    ----------
    path : str or path-like
        CSV, JSON, Excel, Parquet, Arrow or npz, as for ``fastmlp train``.
    target : str
        The column to predict: up to six classes, or values.
    columns : sequence of two str, default=()
        The two columns; left out, the first two columns of numbers besides the target.
    task : {'auto', 'classification', 'regression'}, default='auto'
        'auto' takes texts, truths and few whole numbers for classes.
    dialect : Dialect, default=None
        How the texts of the file are written.

    Returns
    -------
    Table

    Raises
    ------
    DataError
        A ValueError about a file that cannot be used, in one line.
    ImportError
        If pyarrow is missing.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastmlp.playground import read_table
    >>> path = Path(tempfile.mkdtemp()) / "cats.csv"
    >>> _ = path.write_text("weight,length,name\\n" + 5 * "4.2,46,Tom\\n3.9,44,Kim\\n")
    >>> table = read_table(path, "name")
    >>> table.columns, table.classes, table.data.points.shape
    (('weight', 'length'), ('Kim', 'Tom'), (10, 2))
    """
    path = Path(path)
    source = open_source(path, dialect)
    chosen = _columns(source, target, columns)
    with tempfile.TemporaryDirectory(prefix="fastmlp-") as folder:
        codes = write_codes(source, chosen, Path(folder), max_categories=1000)
        found = read_target(codes, task, str(path))
        X = np.array(stage(codes, np.zeros(len(codes.target), dtype=bool), np.float64, Path(folder)).X)
    if len(found.classes) > MOST_CLASSES:
        raise DataError(
            f"{path}: the target {target!r} has {len(found.classes)} classes; the playground shows {MOST_CLASSES} at"
            " most, or say --task regression"
        )
    if len(X) < LEAST_ROWS:
        raise DataError(f"{path}: has {len(X)} rows; the playground needs {LEAST_ROWS} at least")
    first, second = list(chosen)[:2]
    y = np.unique(found.y, return_inverse=True)[1] if found.classes else (found.y - found.y.mean()) / found.y.std()
    given = f", task={task!r}" if task != "auto" else ""
    call = f"read_table({str(path)!r}, {target!r}, columns=({first!r}, {second!r}){given})"
    return Table(Points(X, y), found.task, (first, second), target, tuple(map(str, found.classes)), call)


def _columns(source: Source, target: str, columns: Sequence[str]) -> dict[str, str]:
    """Return the two columns and the target, last, with their kinds."""
    source.check([target, *columns])
    kind = "numeric" if target in source.labels else source.kinds[target]
    if not columns:
        usable = source.used(target)
        columns = [name for name in usable if usable[name] == "numeric" and name != target][:2]
    if len(columns) != 2 or target in columns or columns[0] == columns[1]:
        numbers = [name for name, kind in source.kinds.items() if kind == "numeric" and name != target]
        raise DataError(
            f"{source.path}: the playground needs two columns besides the target {target!r}, got"
            f" {listed(columns) or 'none'}; columns of numbers are {listed(numbers) or 'not there'}"
        )
    source.check(columns)
    return {**dict.fromkeys(columns, "numeric"), target: kind}
