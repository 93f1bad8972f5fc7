"""Everything that the page sets: a table of fields, and each knows what it may be.

The names of activations, solvers, schedules, losses and first weights are those of the estimators' own tables.  The
page makes its controls from :func:`described`, so a new row of a table is on the page without an edit here.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeAlias

from fastmlp.data.targets import CLASSIFIER_LOSSES, REGRESSOR_LOSSES, link_of
from fastmlp.estimator.parameters import HIDDEN_ACTIVATIONS
from fastmlp.kernels.layer_table import PLACEMENTS
from fastmlp.model.initialization import INITIALIZERS
from fastmlp.model.spelling import hint
from fastmlp.playground.data import DATA_SETS, FEATURES, MOST_ROWS
from fastmlp.training.optimizers import SOLVERS
from fastmlp.training.schedules import SCHEDULES

#: A value per field.
Settings: TypeAlias = Mapping[str, Any]

MOST_LAYERS, MOST_UNITS = 6, 8

#: Stands for the table on the command line among the data sets.
TABLE = "table"


class SettingsError(ValueError):
    """Settings that cannot be used; ``problems`` has a text for each field in question."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems.items()))
        self.problems = dict(problems)


# --- fields -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Field(ABC):
    """A row of FIELDS."""

    label: str
    group: str
    default: Any
    keeps_weights: bool = False  # whether a change leaves the weights as they are
    task: str = ""  # the only task that reads it
    help: str = ""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Return a value as it is kept, from JSON or from the text of an address; a ValueError says what it may be."""

    def described(self) -> dict[str, Any]:
        """Return what the page must know, in JSON's types."""
        return {"kind": type(self).__name__.lower(), **self.__dict__}


@dataclass(frozen=True, kw_only=True)
class Number(Field):
    """A number in a closed interval; a slider moves by `step`, or along `stops`."""

    low: float
    high: float
    step: float = 0.01
    stops: tuple[float, ...] = ()

    def read(self, value: Any) -> float:
        """Return the number, an int if only whole ones make sense."""
        whole = isinstance(self.default, int)
        found = _number(value)
        if found is None or not self.low <= found <= self.high or (whole and found % 1):
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"must be {kind} from {self.low:.10g} to {self.high:.10g}, got {_shown(value)}")
        return int(found) if whole else float(found)


@dataclass(frozen=True, kw_only=True)
class Choice(Field):
    """One of some names."""

    names: Mapping[str, str] = field(default_factory=dict)  # name -> what people read

    def read(self, value: Any) -> str:
        """Return the name."""
        if not isinstance(value, str) or value not in self.names:
            raise ValueError(f"must be one of {', '.join(self.names)}, got {_shown(value)}{hint(value, self.names)}")
        return value


@dataclass(frozen=True, kw_only=True)
class Several(Field):
    """One or more of some names, in the order of the table."""

    names: Mapping[str, str] = field(default_factory=dict)

    def read(self, value: Any) -> tuple[str, ...]:
        """Return the names, from a list or a text with commas."""
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or not given or any(name not in self.names for name in map(str, given)):
            raise ValueError(f"must be one or more of {', '.join(self.names)}, got {_shown(value)}")
        return tuple(name for name in self.names if name in given)


@dataclass(frozen=True, kw_only=True)
class Widths(Field):
    """The units of each hidden layer."""

    most_layers: int = MOST_LAYERS
    most_units: int = MOST_UNITS

    def read(self, value: Any) -> tuple[int, ...]:
        """Return the widths, from a list or a text with commas; no layer is an empty one."""
        given = [part for part in value.split(",") if part] if isinstance(value, str) else value
        widths = [_number(width) for width in given] if isinstance(given, list | tuple) else [None]
        if len(widths) > MOST_LAYERS or any(w is None or w % 1 or not 1 <= w <= MOST_UNITS for w in widths):
            raise ValueError(f"must be up to {MOST_LAYERS} layers of 1 to {MOST_UNITS} units, got {_shown(value)}")
        return tuple(int(width) for width in widths if width is not None)


def _number(value: Any) -> float | None:
    """Return a finite number from JSON or a text; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | Real):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < 1e300 else None


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


# --- the table --------------------------------------------------------------------------------------------------------


def _names(names: Any) -> dict[str, str]:
    return {name: name for name in names}


_DATA, _NETWORK, _TRAINING, _REGULARISATION = "Data", "Network", "Training", "Regularisation"
_RATES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_PENALTIES = (0.0, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

#: Losses of regressors for values of any sign.
_VALUE_LOSSES = tuple(name for name in REGRESSOR_LOSSES if link_of(name) == "identity")

#: Name -> field, in the order of the page.  Names of the estimators' parameters are theirs.
FIELDS: dict[str, Field] = {
    "dataset": Choice(
        label="Data set", group=_DATA, default="spiral", names={name: row.label for name, row in DATA_SETS.items()}
    ),
    "n_samples": Number(label="Points", group=_DATA, default=400, low=20, high=MOST_ROWS, step=20),
    "noise": Number(label="Noise", group=_DATA, default=0.03, low=0, high=0.5),
    "train_share": Number(
        label="Share to train on", group=_DATA, default=0.5, low=0.1, high=0.9, step=0.05,
        help="The other points test the network.",
    ),
    "random_state": Number(
        label="Seed", group=_DATA, default=0, low=0, high=2**31 - 1, step=1,
        help="Decides the points, the split, the first weights and the order of rows.",
    ),
    "features": Several(
        label="Features", group="Features", default=("x1", "x2"),
        names={name: row.label for name, row in FEATURES.items()},
    ),
    "hidden_layer_sizes": Widths(label="Hidden layers", group=_NETWORK, default=(8, 8)),
    "activation": Choice(label="Activation", group=_NETWORK, default="tanh", names=_names(HIDDEN_ACTIVATIONS)),
    "batch_norm": Choice(
        label="Batch normalisation", group=_NETWORK, default="none",
        names={"none": "none", **{place: f"{place} the activation" for place in PLACEMENTS if place}},
    ),
    "init": Choice(label="First weights", group=_NETWORK, default="auto", names=_names(INITIALIZERS)),
    "loss": Choice(
        label="Loss", group=_TRAINING, default="log_loss", names=_names(CLASSIFIER_LOSSES), task="classification"
    ),
    "regression_loss": Choice(
        label="Loss", group=_TRAINING, default="squared_error", names=_names(_VALUE_LOSSES), task="regression"
    ),
    "solver": Choice(label="Solver", group=_TRAINING, default="adam", names=_names(SOLVERS), keeps_weights=True),
    "learning_rate_init": Number(
        label="Learning rate", group=_TRAINING, default=0.01, low=1e-6, high=100, stops=_RATES, keeps_weights=True
    ),
    "learning_rate": Choice(
        label="Schedule", group=_TRAINING, default="constant", names=_names(SCHEDULES), keeps_weights=True
    ),
    "max_iter": Number(
        label="Planned epochs", group=_TRAINING, default=500, low=10, high=10000, step=10, keeps_weights=True,
        help="Schedules that end, such as cosine, end after this many epochs.",
    ),
    "batch_size": Number(
        label="Batch size", group=_TRAINING, default=10, low=1, high=200, step=1, keeps_weights=True
    ),
    "alpha": Number(
        label="Penalty (alpha)", group=_REGULARISATION, default=0.0, low=0, high=100, stops=_PENALTIES,
        keeps_weights=True,
    ),
    "l1_ratio": Number(
        label="Share of L1", group=_REGULARISATION, default=0.0, low=0, high=1, step=0.05,
        keeps_weights=True, help="0 is L2, 1 is L1, between them lies the elastic net.",
    ),
    "dropout": Number(
        label="Dropout", group=_REGULARISATION, default=0.0, low=0, high=0.9, step=0.05, keeps_weights=True
    ),
}  # fmt: skip

DEFAULTS: Settings = {name: row.default for name, row in FIELDS.items()}


def described(defaults: Settings = DEFAULTS) -> dict[str, dict[str, Any]]:
    """Return name -> what the page must know of a field."""
    return {name: {**row.described(), "default": defaults[name]} for name, row in FIELDS.items()}


def read(given: Any, base: Settings = DEFAULTS, *, has_table: bool = False) -> tuple[Settings, dict[str, str]]:
    """Return settings from what a page sends, and the problems with it by field.

    Parameters
    ----------
    given : object
        A mapping of field to value; what it leaves out, and what cannot be used, is taken from `base`.
    base : mapping, default=DEFAULTS
        Settings that can be used.
    has_table : bool, default=False
        Whether ``"table"`` is a data set.

    Returns
    -------
    settings : dict
        A value for each field.
    problems : dict of str to str
        Field -> what is wrong with its value.

    Examples
    --------
    >>> from fastmlp.playground.settings import read
    >>> settings, problems = read({"noise": "0.2", "solver": "Adam", "hidden_layer_sizes": "8,8,9"})
    >>> settings["noise"], settings["solver"]
    (0.2, 'adam')
    >>> list(problems)
    ['solver', 'hidden_layer_sizes']
    """
    if not isinstance(given, Mapping):
        return dict(base), {"": f"settings must be an object of fields and values, got {_shown(given)}"}
    settings, problems = dict(base), {}
    for name, value in given.items():
        if name not in FIELDS:
            problems[str(name)] = f"there is no such setting{hint(name, FIELDS)}"
            continue
        if name == "dataset" and value == TABLE and has_table:
            settings[name] = TABLE
            continue
        try:
            settings[name] = FIELDS[name].read(value)
        except ValueError as error:
            problems[name] = str(error)
    return settings, problems
