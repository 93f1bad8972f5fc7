"""Specs with parameters: what users may give as an activation, a loss, a solver or a schedule, and in which ranges.

Users write a name, a pair (name, {parameter: value}), or a formula of their own; :func:`entry` checks it against a
table of rows and returns the form for networks and engines. A row gives its ``parameters`` with their defaults, and
their ``ranges``: as text, "[0, 1)", or as (low, high) with both ends included. A
parameter without a range may be any finite number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from fastmlp.kernels import formulas
from fastmlp.model import spelling

#: Pairs of parameters of which the first must be the smaller one.
ORDERED = {"hardtanh": ("min_val", "max_val"), "rrelu": ("lower", "upper")}


def entry(table: Mapping[str, Any], value: Any, argument: str, names: Collection[str] | None = None) -> Any:
    """Check a user's spec against a table of rows, and return the entry for networks and engines.

    The spec and the entry are a name, (name, {parameter: value}), or a user's formula; an entry without parameters is
    the name alone. `argument` is what the user calls it. `names` are the rows that make sense here, all of the table if
    left out. A ValueError lists the names there are, or says that there is no such parameter, that it is out of its
    range, or that a formula is of another kind.

    Examples
    --------
    >>> from fastmlp.model import choices
    >>> from fastmlp.training.schedules import SCHEDULES
    >>> choices.entry(SCHEDULES, ("step", {"gamma": 1.5}), "learning_rate")
    Traceback (most recent call last):
    ...
    ValueError: learning_rate=('step', {'gamma': 1.5}): gamma must be in (0, 1], got 1.5
    """
    if is_formula(value):
        _check_formula(table, value, argument)
        return value
    name, given = value if is_pair(value) else (value, {})
    if not isinstance(name, str) or name not in table or (names is not None and name not in names):
        valid = sorted(table if names is None else table.keys() & names)
        raise ValueError(
            f"{argument}={value!r} is unknown; valid are {valid}, each alone or as (name, {{parameter: value}})"
            f"{spelling.hint(name, valid)}"
        )
    if not given:
        return str(name)
    checked = {parameter: _checked(table[name], name, parameter, given, argument) for parameter in given}
    _check_order(table[name], name, checked, argument)
    return str(name), checked


def entries(
    table: Mapping[str, Any], value: Any, argument: str, n: int, names: Collection[str] | None = None
) -> tuple[Any, ...]:
    """Return one entry for each of n layers, from one spec for all of them or a sequence with one per layer."""
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str) or is_pair(value):
        return (entry(table, value, argument, names),) * n
    if len(value) != n:
        raise ValueError(f"{argument} must be one entry, or one per hidden layer, {n}, got {len(value)}: {value!r}")
    return tuple(entry(table, one, f"{argument}[{i}]", names) for i, one in enumerate(value))


def is_pair(value: Any) -> bool:
    """Return whether this is a name with parameters; a list works too, because JSON and YAML have no tuples."""
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], Mapping)
    )


def is_formula(value: Any) -> bool:
    """Return whether this is a formula of the user's own."""
    if value is None or isinstance(value, str | Real | Sequence | type):
        return False
    from fastmlp.kernels.language import Formula  # imported only if there is one

    return isinstance(value, Formula)


def name_of(choice: Any) -> str:
    """Return the name of an entry, or of what a user gives; for a user's formula the name of its function.

    Anything else has its repr as its name, so that no table has a row of this name.
    """
    if isinstance(choice, str):
        return choice
    return choice[0] if is_pair(choice) else getattr(choice, "name", repr(choice))


def given_parameters(choice: Any) -> dict[str, Any]:
    """Return the parameters that an entry, or what a user gives, itself holds; a new dict."""
    return dict(choice[1]) if is_pair(choice) else {}


def parameters_of(table: Mapping[str, Any], choice: Any) -> dict[str, float]:
    """Return all parameters of an entry in the row's order, with defaults; none for a user's formula."""
    if not isinstance(choice, str | tuple):
        return {}
    return {**_parameters(table[name_of(choice)]), **given_parameters(choice)}


def learned(choice: Any) -> tuple[str, ...]:
    """Return the parameters of an activation that each neuron learns, such as prelu's slope."""
    row = formulas.ACTIVATIONS.get(name_of(choice)) if isinstance(choice, str | tuple) else None
    return tuple(getattr(row, "learned", ()))


def drawn(choice: Any) -> tuple[float, float] | None:
    """Return the bounds between which training draws the slope of each negative z; None if it draws none."""
    row = formulas.ACTIVATIONS.get(name_of(choice)) if isinstance(choice, str | tuple) else None
    if row is None or not row.drawn:
        return None
    low, high = map(parameters_of(formulas.ACTIVATIONS, choice).__getitem__, row.drawn)
    return low, high


def range_of(row: Any, parameter: str) -> str:
    """Return the interval of a parameter of a row, as text such as "[0, 1)"."""
    interval = getattr(row, "ranges", {}).get(parameter, "(-inf, inf)")
    return interval if isinstance(interval, str) else f"[{interval[0]:g}, {interval[1]:g}]"


def within(value: float, interval: str) -> bool:
    """Return whether a number lies in an interval written as "[0, 1)"; NaN lies in none."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    return above and below


def _check_formula(table: Mapping[str, Any], formula: Any, argument: str) -> None:
    """Refuse a loss in place of an activation, and any formula if there is no table of formulas."""
    for of_formulas, kind, what in ((formulas.ACTIVATIONS, "slope", "activation"), (formulas.LOSSES, "delta", "loss")):
        if table is of_formulas:
            if kind not in formula.kinds:
                raise ValueError(f"{argument}={formula!r} is no {what}: make one with fastmlp.{what}")
            return
    raise ValueError(f"{argument}={formula!r} is unknown; valid are {sorted(table)}")


def _parameters(row: Any) -> dict[str, Any]:
    return dict(getattr(row, "parameters", {}))


def _checked(row: Any, name: str, parameter: str, given: Mapping[str, Any], argument: str) -> float | None:
    """Return the value of a parameter as a float in its range, or None if that is its default."""
    value, known = given[parameter], _parameters(row)
    if parameter not in known:
        takes = f"its parameters are {list(known)}{spelling.hint(parameter, known)}" if known else "it takes none"
        raise ValueError(f"{argument}={(name, dict(given))!r}: {name!r} has no parameter {parameter!r}; {takes}")
    if value is None and known[parameter] is None:
        return None
    interval = range_of(row, parameter)
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else np.nan
    except OverflowError:  # an int whose hundreds of digits nobody wants to see
        raise ValueError(f"{argument}: {parameter} of {name!r} must be in {interval}, not beyond float64") from None
    if not within(number, interval):
        raise ValueError(f"{argument}={(name, dict(given))!r}: {parameter} must be in {interval}, got {value!r}")
    return number


def _check_order(row: Any, name: str, checked: Mapping[str, Any], argument: str) -> None:
    """Refuse bounds that leave nothing between them."""
    values, (first, second) = {**_parameters(row), **checked}, ORDERED.get(name, ("", ""))
    if first and not values[first] < values[second]:
        bounds = f"{values[first]:g} and {values[second]:g}"
        raise ValueError(f"{argument}={(name, dict(checked))!r}: {first} must be less than {second}, got {bounds}")
