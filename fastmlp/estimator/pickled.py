"""Pickled states: which version of fastmlp wrote them, and what is done about states of another one.

pickle, joblib and skops keep the attributes of an estimator as they are, so a state holds the parameters that its
version had.  :func:`restored` gives it those of this version, with a warning.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sklearn import exceptions

from fastmlp import __version__
from fastmlp.data.warned import warn
from fastmlp.estimator import earlier
from fastmlp.training.attributes import plain
from fastmlp.training.state import TrainingState

#: Entry of a state that has the version.
VERSION = "_fastmlp_version"

#: What stands for the version of states that have none.
BEFORE = "0.1.0 or earlier"


class InconsistentVersionWarning(exceptions.InconsistentVersionWarning):
    """An estimator was unpickled that another version of fastmlp has pickled.

    A kind of :class:`sklearn.exceptions.InconsistentVersionWarning`, so filters of that one apply.

    Attributes
    ----------
    estimator_name : str
        Class of the estimator.
    original_fastmlp_version : str
        The version that pickled it; "0.1.0 or earlier" if the state does not say.
    current_fastmlp_version : str
        The version that is installed.
    """

    def __init__(self, *, estimator_name: str, original: str, repairs: str) -> None:
        super().__init__(
            estimator_name=estimator_name, current_sklearn_version="", original_sklearn_version=""
        )  # scikit-learn warns of its own versions
        self.original_fastmlp_version, self.current_fastmlp_version = original, __version__
        self._repairs = repairs

    def __str__(self) -> str:
        return (
            f"{self.estimator_name} was pickled by fastmlp {self.original_fastmlp_version}, this is fastmlp"
            f" {self.current_fastmlp_version}: it may fail or predict otherwise.{self._repairs} Files of save and load"
            " are checked and keep models between versions"
        )


def marked(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of an estimator to be pickled, with the version that writes it."""
    return {**state, VERSION: __version__}


def restored(estimator: Any, state: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of an unpickled estimator.

    A state of another version gets the parameters of this one: `defaults` (name -> default) where it has none, and
    those that have moved in their new places.  A warning names them, and attributes that may be parameters of the other
    version.  They are kept, but do nothing.
    """
    kept = dict(state)
    version = kept.pop(VERSION, BEFORE)
    if version == __version__:
        return kept
    kept = _migrated(kept, defaults)
    added = {name: value for name, value in defaults.items() if name not in kept and value is not inspect._empty}
    strange = [name for name in kept if name not in defaults and not name.startswith("_") and not name.endswith("_")]
    if isinstance(kept.get("_training"), TrainingState):
        kept["_training"] = _whole(kept["_training"])
    repairs = ""
    if added:
        repairs += f" It lacked the parameters {', '.join(added)}, which have their defaults now."
    if strange:
        repairs += f" This version does not know {', '.join(strange)}, and ignores it."
    name = type(estimator).__name__
    warn(InconsistentVersionWarning(estimator_name=name, original=version, repairs=repairs))
    return kept | added


def _migrated(kept: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state in which parameters that have moved are in their new places."""
    old = {name: plain(kept[name]) for name in kept if name in earlier.PARAMETERS}
    if not old:
        return kept
    parameters = {name: value for name, value in kept.items() if name in defaults} | old
    return {name: value for name, value in kept.items() if name not in parameters} | earlier.migrated(parameters)


def _whole(training: TrainingState) -> TrainingState:
    """Return a state of a training with all that this version's has."""
    known = {entry.name for entry in fields(TrainingState)}
    return TrainingState(**{name: value for name, value in vars(training).items() if name in known})
