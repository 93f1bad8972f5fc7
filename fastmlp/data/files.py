"""Write a file whole or not at all. Used wherever a result is kept."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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
    # the token: a process killed here may have had this one's number; a part of the name: names have a longest length
    part = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.part")
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
