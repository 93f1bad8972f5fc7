"""Validation rows as users give them to ``fit``: X_val and y_val, eval_set in its forms -> sets by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.data.warned import warn

#: Name of the set that is given as X_val and y_val, or held out by early stopping.
VALIDATION = "validation"


def given_validation(X_val: Any, y_val: Any, sample_weight_val: Any, eval_set: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Return the sets of a call of fit: name -> (X, y, sample_weight); the last one decides.

    A ValueError says what is missing or given twice.
    """
    sets = {} if eval_set is None else _sets_of(eval_set)
    if X_val is None and y_val is None:
        if sample_weight_val is None:
            return sets
        if len(sets) != 1:
            raise ValueError(
                "sample_weight_val is given without X_val and y_val; with several sets give weights as the third entry"
                " of each: eval_set=[(X, y, weight), ...]"
            )
        ((name, (X, y, weight)),) = sets.items()
        if weight is not None:
            raise ValueError("weights are given twice, as sample_weight_val and in eval_set: give one of them")
        return {name: (X, y, sample_weight_val)}
    if X_val is None or y_val is None:
        given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
        raise ValueError(f"{given} is given without {missing}")
    if VALIDATION in sets:
        raise ValueError(f"{VALIDATION!r} is the name of X_val and y_val; give the set of eval_set another name")
    return sets | {VALIDATION: (X_val, y_val, sample_weight_val)}


def _sets_of(eval_set: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Return the sets of `eval_set` by name."""
    if isinstance(eval_set, Mapping):
        named = dict(eval_set)
    elif _is_pair(eval_set):
        named = {"validation_0": eval_set}
    elif isinstance(eval_set, list | tuple):
        named = {f"validation_{i}": pair for i, pair in enumerate(eval_set)}
    else:
        named = {}
    wrong = None if named else f"got {'an empty ' * _is_empty(eval_set)}{type(eval_set).__name__}"
    for name, pair in named.items():
        wrong = wrong or _about(name, pair)
    if wrong:
        raise ValueError(
            "eval_set must be one pair (X, y), a list of pairs, [(X, y), ...], or a dict of name to pair; a third entry"
            f" of a pair is its sample weights; {wrong}"
        )
    return {name: (*pair, None)[:3] for name, pair in named.items()}


def _is_empty(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping) and not value


def _about(name: Any, pair: Any) -> str | None:
    """Return what is wrong with a set and its name; None if nothing is."""
    if not isinstance(name, str) or not name:
        return f"a name must be a text, got {name!r:.100}"
    if _is_pair(pair):
        return None
    if not isinstance(pair, list | tuple):
        return f"{name!r} is of type {type(pair).__name__}"
    if len(pair) not in (2, 3):
        return f"{name!r} has {len(pair)} entries"
    return f"X of {name!r} must have 2 dimensions, got {_n_dims(pair[0])}"


def _is_pair(value: Any) -> bool:
    """Return whether a value is (X, y) or (X, y, sample_weight): a sequence that begins with rows."""
    return isinstance(value, list | tuple) and len(value) in (2, 3) and _n_dims(value[0]) == 2


def _n_dims(value: Any) -> int:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return len(shape)
    return 1 + _n_dims(value[0]) if isinstance(value, list | tuple) and len(value) else 0


def warn_of_other_scale(y: np.ndarray, y_val: np.ndarray, name: str) -> None:
    """Warn if targets of regression lie so far from those of training that they must be on another scale.

    So far are ten ranges of y, or three standard deviations if y was standardised: mean 0 and variance 1 up to
    rounding.  A meta-estimator that transforms y leaves y_val as it is.
    """
    y, y_val = (values.reshape(len(values), -1).astype(np.float64) for values in (y, y_val))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = y.mean(axis=0), y.std(axis=0)
        is_standard = (np.abs(mean) < 1e-6) & (np.abs(deviation - 1) < 1e-6)
        far = np.where(is_standard, 3 * deviation, 10 * np.ptp(y, axis=0))
        middle = np.median(y_val, axis=0)
        wrong = (far > 0) & (np.abs(middle - mean) > far)
    if wrong.any():
        column = int(np.argmax(wrong))
        warn(
            f"the targets of {name} seem to be on another scale than y: their median is {middle[column]:g}, y has the"
            f" mean {mean[column]:g} and standard deviation {deviation[column]:g}. Meta-estimators such as"
            " TransformedTargetRegressor transform y alone: give the validation targets transformed, too"
        )
