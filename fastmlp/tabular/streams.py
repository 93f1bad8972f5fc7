"""Files of text, maybe compressed: bytes and lines as streams. A zip archive holds one data file.

Nothing is read as a whole: an archive that unpacks to more than the memory is read like any large file. A line has a
limit, so that a file without line ends is refused before it is in memory.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fastmlp.tabular.errors import DataError, one_line

#: Second endings of compressed texts -> pyarrow's name.
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zip": None}

#: Most characters of a line.
LINE_CHARS = 1 << 24

#: What may go wrong while a compressed file is read.
BROKEN = (OSError, EOFError, UnicodeError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)

#: Byte order marks and their encodings; UTF-32 begins like UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def name_inside(path: Path) -> str:
    """Return the name of the data file: that of a zip archive's member, or else the file's own.

    A DataError says what a zip archive holds instead of one data file.
    """
    if not path.name.lower().endswith(".zip"):
        return path.name
    try:
        with zipfile.ZipFile(path) as archive:
            members = [entry.filename for entry in archive.infolist() if _is_data(entry)]
    except (zipfile.BadZipFile, NotImplementedError, UnicodeError, IndexError) as error:  # zipfile trusts some lengths
        raise DataError(f"{path}: is no zip archive: {one_line(error)}") from None
    if len(members) != 1:
        found = ", ".join(map(repr, members[:5])) + ", ..." * (len(members) > 5) or "none"
        raise DataError(f"{path}: a zip archive must hold one data file, it has {found}")
    return members[0]


def _is_data(entry: zipfile.ZipInfo) -> bool:
    """Return whether a member is a file that people know of: systems add others to an archive."""
    parts = entry.filename.split("/")
    return not entry.is_dir() and parts[0] != "__MACOSX" and not parts[-1].startswith(".")


def opened(path: Path) -> Any:
    """Open the uncompressed bytes of a file, as a binary file."""
    ending = path.suffix.lower()
    if ending == ".gz":
        return gzip.open(path, "rb")
    if ending == ".bz2":
        return bz2.open(path, "rb")
    if ending == ".zip":
        name = name_inside(path)
        try:
            return zipfile.ZipFile(path).open(name)
        except BROKEN as error:
            raise DataError(f"{path}: {name!r} cannot be read: {one_line(error)}") from None
    return path.open("rb")


def for_arrow(path: Path) -> Any:
    """Return the uncompressed bytes of a file as pyarrow reads them."""
    import pyarrow as pa

    if path.suffix.lower() == ".zip":
        return pa.PythonFile(opened(path), mode="r")
    return pa.input_stream(str(path), compression=COMPRESSIONS.get(path.suffix.lower()))


def encoding_of(path: Path, encoding: str) -> str:
    """Return the encoding of a file: the given one, or that of a byte order mark where that is UTF-8.

    No text in UTF-8 begins with a mark of UTF-16 or UTF-32. A DataError says that there is no such encoding.
    """
    try:
        name = codecs.lookup(encoding).name
        "".encode(encoding)  # some codecs are for bytes
    except (LookupError, ValueError):
        raise DataError(f"{path}: there is no encoding {encoding!r}") from None
    if name != "utf-8":
        return encoding
    with opened(path) as stream:
        begin = stream.read(4)
    return next((found for mark, found in _MARKS.items() if begin.startswith(mark)), encoding)


def text(path: Path, encoding: str, errors: str = "strict") -> IO[str]:
    """Open a file as text, line ends as they are; a byte order mark is no part of it."""
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"
    return io.TextIOWrapper(opened(path), encoding=encoding, errors=errors, newline="")


def lines(path: Path, stream: IO[str]) -> Iterator[str]:
    """Yield the lines of a text; a DataError tells of one that is too long."""
    number = 1
    while line := stream.readline(LINE_CHARS):
        if len(line) == LINE_CHARS and line[-1] not in "\r\n":
            raise DataError(f"{path}: line {number} has more than {LINE_CHARS} characters: it is no table of text")
        yield line
        number += 1
