"""Write a file whole or not at all. Used wherever a result is kept."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, never half of one.

    The text goes to a new file beside the target, which then takes the target's name. A path that
    is there already but is no regular file (a pipe, /dev/null) is written to directly: it has no
    old content to lose.

    Raises
    ------
    OSError
        If the folder is missing, cannot be written to or is full. The old file is as it was.
    """
    path = path.resolve()  # a symbolic link stays one
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
