"""Checkpoints: the snapshot of a training as one .npz file without pickle, written whole or not at all.

::

    training's snapshot -> save(path)  ...  load(path) -> training's restore

The file is what ``np.savez`` writes: a zip archive of ``.npy`` members, stored as they are, each with its CRC-32.
Member ``header`` is JSON text as bytes: what kind of file this is, its version, and the snapshot with each array
replaced by its name, dtype and shape.  Members ``array_0``, ``array_1``, ... are the arrays.  ``np.load`` opens it too.
"""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastmlp.data.files import replacing

FORMAT = "fastmlp checkpoint"
VERSION = 1


def save(path: str | os.PathLike[str], snapshot: dict[str, Any]) -> None:
    """Write a snapshot so that a reader finds the old file or the new one, never half of one.

    A process that is killed while it writes leaves the old file as it was, and beside it a hidden ``.part`` file that
    may be deleted.

    Parameters
    ----------
    path : str or path-like
        Used as it is: no suffix is added.
    snapshot : dict
        Keys are strings; values are numeric ndarrays, None, bool, int, float, str, and dicts and lists of these.  NumPy
        scalars are kept as Python's numbers.

    Raises
    ------
    TypeError
        For anything else in the snapshot; the message says where it is.
    OSError
        If the folder is missing, cannot be written to or is full.  The old file is as it was.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder, "fit.npz"), {"epoch": 3, "params": np.arange(3.0)})
    ...     load(Path(folder, "fit.npz"))
    {'epoch': 3, 'params': array([0., 1., 2.])}
    """
    if not isinstance(snapshot, dict):
        raise TypeError(f"a snapshot is a dict, got {type(snapshot).__name__}")
    arrays: dict[str, np.ndarray] = {}
    header = {"format": FORMAT, "version": VERSION, "snapshot": _encode(snapshot, arrays, "snapshot")}
    text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with replacing(Path(path)) as stream:
        np.savez(stream, header=text, **arrays)  # type: ignore[arg-type]


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a snapshot that :func:`save` wrote; nothing in a file is ever executed.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    dict
        Equal to what was saved; the arrays are new and writable.

    Raises
    ------
    ValueError
        If the file is not a checkpoint, is cut short or altered, or has another version; the message names the file and
        the reason.
    OSError
        If there is no such file, it is no regular file (a folder, a pipe, a device), or it cannot be opened.
    TypeError
        If `path` is no path.
    """
    if not stat.S_ISREG(os.stat(os.fspath(path)).st_mode):  # before it is opened: a pipe would wait for a writer
        raise OSError(f"{os.fspath(path)!r} is no regular file")
    with open(path, "rb") as stream:
        try:
            return _read(stream)
        except MemoryError:
            raise  # sizes are checked before anything is allocated, so this one is about the machine
        except Exception as error:
            # whatever zipfile, json and NumPy raise on broken bytes: a dozen types, not all of them documented
            reason = str(error)[:2000] or type(error).__name__
            raise ValueError(f"{os.fspath(path)!r} is no fastmlp checkpoint, or is damaged: {reason}") from error


def _encode(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    """Return `value` in JSON's types; arrays go to `arrays`.  Every JSON object is tagged, so no key is special."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_encode(item, arrays, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; a checkpoint holds dicts with string keys")
        return {"dict": {key: _encode(item, arrays, f"{where}[{key!r}]") for key, item in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        name = f"array_{len(arrays)}"
        arrays[name] = np.asarray(value, order="C")
        return {"array": {"name": name, "dtype": value.dtype.str, "shape": value.shape}}
    what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(
        f"{where} is {what}; a checkpoint holds numeric arrays, None, bool, int, float, str, lists and dicts of these"
    )


def _decode(value: Any, archive: zipfile.ZipFile, size: int, taken: set[str]) -> Any:
    """Return the value that ``_encode`` has encoded; each array may be `taken` once, so a file fills no more memory."""
    if isinstance(value, list):
        return [_decode(item, archive, size, taken) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {key: _decode(item, archive, size, taken) for key, item in content.items()}
    if kind != "array":
        raise ValueError(f"its header has an entry of unknown kind {kind!r}")
    if content["name"] in taken:
        raise ValueError(f"its header refers to {content['name']!r:.100} twice")
    taken.add(content["name"])
    array = _member(archive, content["name"], size)
    for what, found in {"dtype": array.dtype.str, "shape": list(array.shape)}.items():
        if content[what] != found:
            raise ValueError(f"{content['name']} has {what} {found}, its header says {content[what]}")
    return array


def _read(stream: BinaryIO) -> dict[str, Any]:
    size = os.fstat(stream.fileno()).st_size
    with zipfile.ZipFile(stream) as archive:
        header = json.loads(_member(archive, "header", size).tobytes())
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("it is an .npz file of another kind")
        if header.get("version") != VERSION:
            raise ValueError(f"its format is version {header.get('version')!r}, this fastmlp reads version {VERSION}")
        snapshot = _decode(header["snapshot"], archive, size, set())
    if not isinstance(snapshot, dict):
        raise ValueError("its header holds no snapshot")
    return snapshot


def _member(archive: zipfile.ZipFile, name: str, size: int) -> np.ndarray:
    """Return the array ``name`` of an archive of `size` bytes; all bytes are checked before any is interpreted."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED or max(entry.file_size, entry.compress_size) > size:
        raise ValueError(f"{name} is not stored as a checkpoint's arrays are")
    npy = archive.read(entry)  # compares the CRC-32
    stream = io.BytesIO(npy)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(stream)
    if fortran_order or dtype.kind not in "biufc":
        raise ValueError(f"{name} is of {dtype}, no numeric array in C order")
    return np.frombuffer(npy, dtype, offset=stream.tell()).reshape(shape).copy()
