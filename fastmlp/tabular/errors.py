"""The error of data files, and the parts of its messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """A file that cannot be used as it is; the message is one line and names the file."""


def check_names(path: Path, names: list[str]) -> None:
    """Refuse a name that two columns have."""
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise DataError(f"{path}: more than one column has the name {listed(twice)}")


def listed(names: Iterable[str], most: int = 12) -> str:
    """Return names for a message, not more than a line of them."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest


def shortened(value: Any, most: int = 40) -> str:
    """Return a value for a message."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 4]}...{text[-1]}"


def one_line(error: BaseException, most: int = 300) -> str:
    """Return the text of another library's error as a part of a one-line message."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
