"""Networks inside other estimators: pipelines, searches, ensembles, transformed targets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

Convert = Callable[[Any], Any]


def is_nest(estimator: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether a value is an estimator that may hold others, and is none of these kinds itself."""
    return isinstance(estimator, BaseEstimator) and not isinstance(estimator, kinds)


def with_converted(nest: Any, kinds: tuple[type, ...], convert: Convert) -> Any | None:
    """Return a deep copy of an estimator in which everything of these kinds is converted; None if it holds nothing.

    What the copy holds once, it holds once again: the last step of a fitted pipeline, and what refers to it, are the
    same object.  An error of `convert` gets a note that says where in the estimator the network is.
    """
    memo: dict[int, Any] = {}
    for place, found in _holdings(nest, type(nest).__name__, kinds, set()):
        try:
            memo[id(found)] = convert(found)
        except (TypeError, ValueError) as error:
            error.add_note(f"This is about {place}.")
            raise
    # deepcopy takes what the memo has for a copy
    return copy.deepcopy(nest, memo) if memo else None


def _holdings(value: Any, place: str, kinds: tuple[type, ...], seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield (place, object) of each object of these kinds, once."""
    if id(value) in seen or isinstance(value, type):
        return
    seen.add(id(value))
    if isinstance(value, kinds):
        yield place, value
        return
    for name, part in _parts(value):
        yield from _holdings(part, place + name, kinds, seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, part) of containers, and of objects that are estimators or scikit-learn's."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, BaseEstimator) or type(value).__module__.startswith("sklearn."):
        yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())
