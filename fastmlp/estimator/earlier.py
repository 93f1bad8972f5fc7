"""Parameters as earlier files and pickles have them: what is now part of a choice, each with a parameter of its own.

::

    solver="rmsprop", rho=0.9                    -> solver=("rmsprop", {"rho": 0.9})
    solver="nadam", momentum_decay=0.01          -> solver=("nadam", {"momentum_decay": 0.01})
    loss="log_loss", label_smoothing=0.1         -> loss=("log_loss", {"label_smoothing": 0.1})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastmlp.model import choices
from fastmlp.training.attributes import number


class Moved(NamedTuple):
    """Where a parameter has gone."""

    argument: str  # that has it now
    names: tuple[str, ...]  # for which choices
    default: float | None  # the value that asked for nothing


#: Parameters that the constructors had, by name.
PARAMETERS: dict[str, Moved] = {
    "rho": Moved("solver", ("rmsprop", "adadelta"), None),
    "momentum_decay": Moved("solver", ("nadam",), 4e-3),
    "label_smoothing": Moved("loss", ("log_loss",), 0.0),
}


def migrated(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments for those of a file, whoever wrote it.

    A parameter that the file's choice does not read (`rho` with 'adam') is left out: it changed nothing.

    Raises
    ------
    ValueError
        If an earlier parameter is no number.
    """
    kept = {name: value for name, value in parameters.items() if name not in PARAMETERS}
    for name, moved in PARAMETERS.items():
        value = parameters.get(name, moved.default)
        choice = kept.get(moved.argument)
        if value == moved.default or not (isinstance(choice, str) or choices.is_pair(choice)):
            continue
        chosen = choices.name_of(choice)
        if chosen in moved.names:
            kept[moved.argument] = chosen, {name: number(value)} | choices.given_parameters(choice)
    return kept
