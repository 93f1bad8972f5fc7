"""Tables in files: what `fastmlp train` and `fastmlp predict` read, and how columns become features.

In the order of reading, and of the data flow:

- ``reading.py``: a path -> a :class:`~fastmlp.tabular.reading.Source`, batches of rows as pyarrow has them; the formats
  are in ``delimited.py`` (CSV), ``json_files.py`` and ``workbook.py`` (Excel), whose rows go through ``rows.py``,
  ``binary.py`` (Parquet, Arrow), ``folder.py`` (many of these) and ``archive.py`` (npz); ``errors.py``, ``marks.py``
  (numbers in texts) and ``streams.py`` (compressed texts, lines) are what they share;
- ``coding.py``: batches -> blocks of float64 codes, a column each;
- ``facts.py``: which columns are likely to be no features, for people;
- ``columns.py``: what is known about each column after training, as JSON and as the coder of columns;
- ``target.py``: the column to predict -> the task, and labels or values to train on;
- ``recipe.py``: the columns, the target and the history of a training, as a model file keeps them;
- ``staging.py``: the rows of a file -> training and validation matrices on disk, which a fit maps into memory;
- ``on_disk.py``: the same for users, all rows in one folder that stays.

Everything works block by block, so files may be larger than memory. pyarrow is imported when a file is read.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["DataError", "MatrixOnDisk", "matrix_on_disk", "open_matrix"]

if TYPE_CHECKING:
    from fastmlp.tabular.errors import DataError
    from fastmlp.tabular.on_disk import MatrixOnDisk, matrix_on_disk, open_matrix


if not TYPE_CHECKING:  # a checker that saw it would take any name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'fastmlp.tabular' has no attribute {name!r}")
        return getattr(import_module("fastmlp.tabular.on_disk"), name)
