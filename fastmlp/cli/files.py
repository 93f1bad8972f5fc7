"""The files of a command, judged before it works: what it reads, what it writes, and standard input as a file."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fastmlp.data.files import Reservation

#: Options whose texts may go to a device or a pipe: they are written in one piece, not beside the file and renamed.
DEVICES_TOO = ("--json", "--html")

STANDARD_INPUT = "standard input"


@contextmanager
def guarded(
    inputs: Mapping[str, Path | None], outputs: Mapping[str, Path | None]
) -> Iterator[Mapping[str, Reservation]]:
    """Refuse files that would overwrite each other, and hold room for the outputs until the block ends.

    Parameters
    ----------
    inputs, outputs : mapping of str to Path or None
        The files of a command by the argument or option that names them; None stands for none, "-" for the standard
        streams.

    Yields
    ------
    mapping of str to Reservation
        That of each output that is a regular file or will be one.

    Raises
    ------
    ValueError
        If an input is no regular file and no folder; if an output is the same file as an input or as another output,
        whatever it is called (links and other spellings count), or lies in a folder that is an input; or if an output
        cannot be written.
    """
    reading = {name: path for name, path in inputs.items() if path is not None}
    writing = {name: path for name, path in outputs.items() if path is not None}
    _check_standard(reading, sys.stdin, "input")
    _check_standard(writing, sys.stdout, "output")
    _check_kinds(reading, writing)
    _check_identities(reading, writing)
    with ExitStack() as stack:
        held: dict[str, Reservation] = {}
        for name, path in writing.items():
            try:
                if path.exists() and not path.is_file():
                    _try_device(path)
                elif str(path) != "-":
                    held[name] = Reservation(path)
                    stack.callback(held[name].release)
            except OSError as error:
                raise ValueError(f"cannot write {path}: {error.strerror or error}") from None
        _check_spellings(writing, held)
        yield held


@contextmanager
def data_file(path: Path, file_format: str | None) -> Iterator[Path]:
    """Yield a data file; standard input, which can be read only once, is copied to a temporary file.

    `file_format` is the ending that tells what standard input holds, CSV if None. The file is removed when the block
    ends.
    """
    from fastmlp.tabular.errors import DataError
    from fastmlp.tabular.reading import ENDINGS, KNOWN

    if str(path) != "-":
        if file_format is not None:
            raise ValueError(f"--format is for standard input, - in place of a file; {path} tells by its ending")
        yield path
        return
    ending = "." + (file_format or "csv").lower().removeprefix(".")
    if ending not in KNOWN:
        raise ValueError(f"--format must be one of {ENDINGS}; got {file_format!r}")
    with tempfile.TemporaryDirectory(prefix="fastmlp-") as folder:
        copy = Path(folder) / f"{STANDARD_INPUT}{ending}"
        with copy.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        try:
            yield copy
        except DataError as error:
            raise DataError(str(error).replace(str(copy), STANDARD_INPUT)) from None


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_standard(files: Mapping[str, Path], stream: Any, which: str) -> None:
    """Refuse a standard stream that is closed, or that two options name."""
    names = [name for name, path in files.items() if str(path) == "-"]
    if names and stream is None:
        raise ValueError(f"{names[0]} -: standard {which} is closed")
    if len(names) > 1:
        raise ValueError(f"{names[0]} and {names[1]} cannot both be standard {which}")


def _check_kinds(reading: Mapping[str, Path], writing: Mapping[str, Path]) -> None:
    """Refuse pipes and devices where a regular file is needed."""
    for name, path in reading.items():
        if str(path) != "-" and path.exists() and not path.is_file() and not path.is_dir():
            instead = "; - reads standard input" if name == "DATA" else ""
            raise ValueError(f"{name} {path} must be a regular file, which can be read more than once{instead}")
    for name, path in writing.items():
        if str(path) != "-" and name not in DEVICES_TOO and path.exists() and not path.is_file():
            raise ValueError(f"{name} {path} must be a regular file, if it is there")


def _check_identities(reading: Mapping[str, Path], writing: Mapping[str, Path]) -> None:
    """Refuse an output that is an input or another output."""
    read = {name: _identity(path, sys.stdin) for name, path in reading.items()}
    written = {name: _identity(path, sys.stdout) for name, path in writing.items()}
    names = list(written)
    for i, name in enumerate(names):
        if written[name] is None:
            continue
        for other, identity in read.items():
            if identity == written[name]:
                raise ValueError(f"{name} {writing[name]} is the file of {other}, which would be overwritten")
            if reading[other].is_dir() and reading[other].resolve() in writing[name].resolve().parents:
                raise ValueError(f"{name} {writing[name]} lies in the folder of {other}, whose files are read")
        for other in names[:i]:
            if written[other] == written[name]:
                raise ValueError(f"{other} {writing[other]} and {name} {writing[name]} are the same file")


def _identity(path: Path, standard: Any) -> tuple[Any, ...] | None:
    """Return what distinguishes a file from others, under any name; None for what cannot be overwritten."""
    is_standard = str(path) == "-"
    try:
        found = os.fstat(standard.fileno()) if is_standard else path.stat()
    except (OSError, ValueError, AttributeError):
        if is_standard:
            return None
        path = path.resolve()  # a link to a file that is not there yet
        with suppress(OSError):
            folder = path.parent.stat()
            return folder.st_dev, folder.st_ino, path.name
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _check_spellings(writing: Mapping[str, Path], held: Mapping[str, Reservation]) -> None:
    """Refuse two new files whose names differ in case only, where the file system ignores case."""
    seen: dict[tuple[Path, str], str] = {}
    for name, reservation in held.items():
        path = writing[name].resolve()
        other = seen.setdefault((path.parent, path.name.casefold()), name)
        part = reservation.part
        if other != name and part.with_name(part.name.swapcase()).exists():
            raise ValueError(f"{other} {writing[other]} and {name} {writing[name]} are the same file")


def _try_device(path: Path) -> None:
    """Write a blank, which JSON and HTML may begin with, to a character device that nobody looks at."""
    if stat.S_ISCHR(path.stat().st_mode):  # opening a pipe would wait for its reader
        with path.open("w", encoding="utf-8") as stream:
            if not stream.isatty():
                stream.write("\n")
