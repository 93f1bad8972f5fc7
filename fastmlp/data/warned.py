"""Warnings that point to the user's line, however many calls of ours and of scikit-learn's lie between."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import joblib
import sklearn

_OWN = (str(Path(__file__).parents[1]), sklearn.__path__[0], joblib.__path__[0])  # joblib runs searches

Result = TypeVar("Result")

#: A message and its category.
Warned = tuple[str | Warning, type[Warning]]


class _Thread(threading.local):
    """Where the warnings of a thread go, if they are kept for later."""

    kept: list[Warned] | None = None


_THREAD = _Thread()


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that is not fastmlp's, scikit-learn's or joblib's; or keep it, see :func:`kept`."""
    if _THREAD.kept is not None:
        _THREAD.kept.append((message, category))
        return
    level, frame = 2, sys._getframe(1)  # 2 is the line that calls this
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


#: catch_warnings changes what all threads share.
_LOCK = threading.Lock()


def of_library(function: Callable[..., Result], *args: Any) -> Result:
    """Return ``function(*args)`` of another library, and warn of what it warns of as :func:`warn` does."""
    with _LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args)
    for one in caught:
        warn(one.message, one.category)
    return result


@contextmanager
def kept(into: list[Warned]) -> Iterator[None]:
    """Keep the warnings of this thread in a list: on a thread of ours there is no line of the user's."""
    before, _THREAD.kept = _THREAD.kept, into
    try:
        yield
    finally:
        _THREAD.kept = before


def warn_once_each(found: Iterable[Warned]) -> None:
    """Warn of what was kept, of each message once."""
    for message, category in {(category, str(message)): (message, category) for message, category in found}.values():
        warn(message, category)
