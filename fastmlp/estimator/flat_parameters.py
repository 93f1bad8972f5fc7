"""Parameters of choices under flat names, ``loss__gamma`` for the gamma of ``loss=("focal", {"gamma": 2.0})``.

``get_params`` lists them and ``set_params`` takes them, so that searches can vary them as plain numbers.  The
constructor knows only the choice itself, with or without its parameters; :func:`chosen` puts the flat ones into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from fastmlp.kernels import formulas
from fastmlp.model import choices, spelling
from fastmlp.sklearn_compat import StrOptions
from fastmlp.training.optimizers import SOLVERS
from fastmlp.training.schedules import SCHEDULES, SHARES

#: The constructor's parameters that are choices, and the rows that they choose from.
TABLES: dict[str, Mapping[str, Any]] = {
    "activation": formulas.ACTIVATIONS,
    "loss": formulas.LOSSES,
    "solver": SOLVERS,
    "learning_rate": SCHEDULES,
    "weight_decay_schedule": SHARES,
    "dropout_schedule": SHARES,
}

#: Parameters of choices that the constructor has too: a choice that does not give them leaves them to it.
LEFT_TO_CONSTRUCTOR = {
    "solver": ("momentum", "beta_1", "beta_2", "epsilon"),
    "learning_rate": ("power_t",),
}


def is_flat(estimator: Any, name: str) -> bool:
    """Return whether this is the flat name of a parameter of a choice that an estimator has."""
    argument, separator, _ = name.partition("__")
    return bool(separator) and argument in TABLES and argument in estimator._parameter_constraints


def listed(estimator: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of an estimator's present choices by their flat names, defaults filled in.

    Those that are left to the constructor (`beta_1` of 'adam') are not listed, nor those of the constructor's default
    choice: an estimator with scikit-learn's choices lists nothing that the constructor does not take.  A sequence with
    a choice per layer, a function and a formula have no parameters.
    """
    found: dict[str, Any] = {}
    for argument in TABLES:
        if argument not in defaults:
            continue
        choice = getattr(estimator, argument)
        if isinstance(choice, str) and choice == defaults[argument]:
            continue
        given, left = choices.given_parameters(choice), LEFT_TO_CONSTRUCTOR.get(argument, ())
        values = _values(argument, choice)
        found |= {f"{argument}__{name}": values[name] for name in values if name in given or name not in left}
    return found


def chosen(estimator: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of the constructor that stand for what `params`, those of ``set_params``, say by flat names.

    They are the choices that have flat parameters, each as (name, {parameter: value}).  A choice among the params comes
    first, in whatever order they are.  It stays as it is where its parameters are set to the values that they have.
    The ValueError about an unknown choice or parameter lists those that there are.
    """
    found: dict[str, Any] = {}
    for flat, value in params.items():
        if not is_flat(estimator, flat):
            continue
        argument, _, name = flat.partition("__")
        choice = found.get(argument, params.get(argument, getattr(estimator, argument)))
        values = _values(argument, choice)
        if name not in values:
            _refuse(estimator, argument, choice, name)
        if not _same(values[name], value):
            choice = choices.name_of(choice), choices.given_parameters(choice) | {name: value}
        found[argument] = choice
    return found


def _values(argument: str, choice: Any) -> dict[str, Any]:
    """Return the parameters that a choice has, with their values; none where it is a sequence or makes no sense."""
    if not isinstance(choice, str) and not choices.is_pair(choice):
        return {}
    row = TABLES[argument].get(choices.name_of(choice))
    defaults = dict(getattr(row, "parameters", {}))
    given = choices.given_parameters(choice)
    return {name: given.get(name, default) for name, default in defaults.items()}


def _same(present: Any, value: Any) -> bool:
    return value is present or (
        isinstance(value, Real) and not isinstance(value, bool) and isinstance(present, Real) and bool(value == present)
    )


def _refuse(estimator: Any, argument: str, choice: Any, name: str) -> None:
    """Raise the ValueError for a flat parameter that a choice does not have."""
    if isinstance(choice, str) or choices.is_pair(choice):
        allowed = estimator._parameter_constraints[argument]
        names = [option for entry in allowed if isinstance(entry, StrOptions) for option in entry.options]
        choices.entry(TABLES[argument], choices.name_of(choice), argument, names)  # an unknown choice lists the known
        valid = sorted(f"{argument}__{parameter}" for parameter in _values(argument, choice))
    else:
        valid = []
    raise ValueError(
        f"Invalid parameter '{argument}__{name}' for estimator {estimator}: {argument}={choice!r} has"
        f" {f'the parameters {valid}' if valid else 'no parameters that can be set so'}"
        f"{spelling.hint(f'{argument}__{name}', valid) or '.'}"
    )
