"""Write a file whole or not at all. Used wherever a result is kept."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

#: Bytes that a reservation takes: a file system that has no room for these has none for a result.
RESERVED = 1 << 16


def as_json(document: Any) -> str:
    """Return the text of a JSON file; a ValueError says that a number is not finite."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, never half of one.

    An existing path that is not a regular file (a pipe, /dev/null) is written to directly: it has no
    old content to lose. After an OSError (the folder is missing or full, ...) the old file is as it was.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    with replacing(path) as stream:
        stream.write(text.encode())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new binary file beside `path` that takes its name when the block ends without an error.

    An OSError says that there is no such folder, or that `path` exists and is not a regular file. Its `filename`, and
    that of all other errors of writing, is `path` as it was given.
    """
    given = os.fspath(path)
    try:
        path = path.resolve()  # a symbolic link stays one
    except RuntimeError as error:  # pathlib's, before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), given) from error
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is there and is no regular file", given)
    if not path.parent.is_dir():
        folder = os.path.dirname(given)
        missing = str(path.parent) if os.path.isdir(folder or ".") else folder  # of what a link leads to
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {missing!r}", given)
    part = _part(path)
    try:
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror, given) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


class Reservation:
    """Room on the device of a future file, so that a long computation does not end where nothing can be written.

    It is a hidden file beside `path`, which :meth:`release` removes; the caller does so before the result is written.
    An OSError tells that the folder cannot be written to, or that the device is full.
    """

    def __init__(self, path: Path) -> None:
        self.part = _part(path.resolve())
        self._stream = self.part.open("xb")
        try:
            self.grow(RESERVED)
        except BaseException:
            self.release()
            raise

    def grow(self, n_bytes: int) -> None:
        """Take `n_bytes` in all, as far as the system can promise more than the first ``RESERVED``."""
        if n_bytes <= RESERVED:
            self._stream.write(bytes(n_bytes))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        elif hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._stream.fileno(), 0, n_bytes)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise

    def release(self) -> None:
        """Give the room back."""
        with contextlib.suppress(OSError):  # what was not written because the device is full
            self._stream.close()
        self.part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    """Return a new hidden name beside a path."""
    # the token: a killed process may have had this one's number; a part of the name: names have a longest length
    return path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.part")


def _sync_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut, if the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system allows it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
