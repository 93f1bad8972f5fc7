"""NumPy archives: an array X of rows, columns x0, x1, ... here, and maybe an array y of targets, column y.

Members are read as a stream, so a compressed X may be larger than memory. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from fastmlp.tabular.errors import DataError, one_line
from fastmlp.tabular.reading import Dialect, Source

BLOCK_BYTES = 1 << 23


class Archive(Source):
    """An npz file."""

    def _batches(self, kinds: Mapping[str, str]) -> Iterator[Any]:
        import pyarrow as pa

        with _archive(self.path) as archive, _member(self.path, archive, "X") as X:
            y = np.load(self.path, allow_pickle=False)["y"] if "y" in kinds and "y" in self.kinds else None
            start = 0
            for block in X.blocks():
                columns = {name: block[:, int(name[1:])] for name in kinds if name != "y"}
                if y is not None:
                    columns["y"] = y[start : start + len(block)]
                start += len(block)
                # numbers that are none are missing, as in the other formats
                arrays = [pa.array(np.ascontiguousarray(column), from_pandas=True) for column in columns.values()]
                yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


class _Member:
    """Shape and type of an array, and its rows from a stream."""

    def __init__(self, path: Path, name: str, stream: IO[bytes]) -> None:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._fortran, self.dtype = read(stream)
        if self.dtype.hasobject:
            raise DataError(f"{path}: {name} holds Python objects, which are not read: save numbers or texts")
        self._stream = stream

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the rows of a matrix; in Fortran's order, in which rows are not contiguous, it is read as a whole."""
        n_rows, width = self.shape
        rows = max(1, BLOCK_BYTES // max(1, self.dtype.itemsize * width))
        whole = self._read(n_rows, "F") if self._fortran else None
        for start in range(0, n_rows, rows):
            n = min(rows, n_rows - start)
            yield self._read(n, "C") if whole is None else whole[start : start + n]

    def _read(self, n: int, order: Literal["C", "F"]) -> np.ndarray:
        data = self._stream.read(n * self.shape[1] * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(n, self.shape[1], order=order)


def open_source(path: Path, dialect: Dialect) -> Source:
    """Return the file with a column for each column of X, and one for y."""
    with _archive(path) as archive:
        members = {name.removesuffix(".npy") for name in archive.namelist()}
        if "X" not in members:
            raise DataError(f"{path}: has no array X; it has {', '.join(sorted(members)) or 'none'}")
        with _member(path, archive, "X") as X:
            if len(X.shape) != 2 or X.dtype.kind not in "fiub":
                raise DataError(f"{path}: X must be a matrix of numbers, it is {X.dtype} of shape {X.shape}")
            kind = "boolean" if X.dtype.kind == "b" else "numeric"
            kinds = {f"x{i}": kind for i in range(X.shape[1])}
            n_rows = X.shape[0]
        if "y" in members:
            with _member(path, archive, "y") as y:
                if y.shape != (n_rows,) or y.dtype.kind not in "fiubU":
                    raise DataError(f"{path}: y must have shape ({n_rows},), it is {y.dtype} of shape {y.shape}")
                kinds["y"] = {"b": "boolean", "U": "categorical"}.get(y.dtype.kind, "numeric")
    return Archive(path, kinds)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: is no NumPy archive: {one_line(error)}") from None


@contextmanager
def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[_Member]:
    with archive.open(f"{name}.npy") as stream:
        try:
            yield _Member(path, name, stream)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{path}: {name} cannot be read: {one_line(error)}") from None
