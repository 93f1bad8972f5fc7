"""Fitted attributes, a row each: how files, snapshots and conversions keep them.

Model files (model_writer.py, model_reader.py), snapshots of a training (snapshots.py) and conversions from and to
scikit-learn loop over ``ATTRIBUTES``.  To save another attribute, add a row.  The table leaves out the weights, which
are views of one vector, and ``_label_binarizer``, which files take apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmlp.model.network import Network


class Kind(NamedTuple):
    """How a value is kept, and what is made of what was kept, or a ValueError."""

    kept: Callable[[Any], Any]
    restored: Callable[[Any], Any]


# --- checks of what a file holds -------------------------------------------------------------------------------------


def count(value: Any) -> int:
    """Return a whole number of at least 0; raise ValueError for anything else."""
    # fewer bits than a float64 has: schedules count in these
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"must be a whole number in [0, 2^48), got {_shown(value)}")
    return value


def number(value: Any) -> float:
    """Return a number; raise ValueError for anything else."""
    if type(value) is float or (type(value) is int and abs(value) < 2**1023):  # what a float can hold
        return value
    raise ValueError(f"must be a number, got {_shown(value)}")


def text(value: Any) -> str:
    """Return a text; raise ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, got {value!r:.100}")
    return value


def vector(value: Any, network: Network) -> np.ndarray:
    """Return a vector laid out like the parameters of a network; raise ValueError for anything else."""
    if not isinstance(value, np.ndarray) or value.shape != (network.n_params,) or value.dtype != network.dtype:
        raise ValueError(f"a vector must be ({network.n_params},) of {network.dtype}")
    return value


def scale(mean: Any, std: Any, network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each output's targets; raise ValueError for anything else."""
    for value in (mean, std):
        if not isinstance(value, np.ndarray) or value.shape != network.widths[-1:] or value.dtype != np.float64:
            raise ValueError(f"mean and std must be ({network.widths[-1]},) of float64")
    if not (np.isfinite(mean).all() and (std > 0).all() and np.isfinite(std).all()):
        raise ValueError("mean must be finite, std finite and above 0")
    return mean, std


def random_state(value: Any) -> dict[str, Any]:
    """Return a state of MT19937 as ``RandomState.get_state(legacy=False)`` does; raise ValueError for anything else."""
    key, pos = value["state"]["key"], value["state"]["pos"]
    if not isinstance(key, np.ndarray) or key.dtype != np.uint32 or key.shape != (624,):
        raise ValueError("the state of MT19937 has 624 words of 32 bits")
    # NumPy takes any position, and reads there
    if type(pos) is not int or not 0 <= pos <= 624:
        raise ValueError("this is no state of MT19937")
    if value["bit_generator"] != "MT19937" or value["has_gauss"] not in (0, 1) or type(value["gauss"]) is not float:
        raise ValueError("this is no state of MT19937")
    return value


def classes(value: Any) -> np.ndarray:
    """Return class labels (n_classes,), sorted; raise ValueError for anything else."""
    if not isinstance(value, np.ndarray) or value.ndim != 1 or not value.size:
        raise ValueError("must be labels (n_classes,)")
    if not (value[:-1] < value[1:]).all():
        raise ValueError("must be sorted, each class once")
    return value


def _number_or_none(value: Any) -> float | None:
    try:
        return None if value is None else number(value)
    except ValueError:
        raise ValueError(f"must be a number or None, got {_shown(value)}") from None


def _shown(value: Any) -> str:
    """Return the beginning of a value's text; Python refuses to write whole numbers of thousands of digits."""
    return f"{value:#x}"[:100] if type(value) is int else f"{value!r:.100}"


def _text_or_none(value: Any) -> str | None:
    return None if value is None else text(value)


def _curve(value: Any) -> list[float] | None:
    if value is not None and (not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.ndim != 1):
        raise ValueError("must be None or a tensor (n_epochs,) of float64")
    return None if value is None else value.tolist()


def _numbers(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float64) or value.ndim not in (1, 2):
        raise ValueError("must be numbers (n_samples,) or (n_samples, n_outputs)")
    return value


def _range(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.ndim != 2 or len(value) != 2:
        raise ValueError("must be the smallest and the largest number of each output, (2, n_outputs) of float64")
    if not (np.isfinite(value).all() and (value[0] <= value[1]).all()):
        raise ValueError("must be finite, the smallest number first")
    return value


def _history(value: Any) -> dict[str, list[float] | None]:
    if not isinstance(value, dict) or any(column is None for column in value.values()):
        raise ValueError("must be a curve for each name")
    return {text(name): _curve(column) for name, column in value.items()}


def _evals_result(value: Any) -> dict[str, dict[str, list[float]]] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(entry, list) and len(entry) == 3 for entry in value):
        raise ValueError("must be a list of [set, metric, curve]")
    found: dict[str, dict[str, list[float]]] = {}
    for name, metric, curve in value:
        found.setdefault(text(name), {})[text(metric)] = _curve(curve) or []
    return found


def _names(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "OU" or value.ndim != 1:
        raise ValueError("must be texts (n_features,)")
    return value


# --- ways to keep a value --------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return a NumPy scalar as Python's number, and anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _as_it_is(value: Any) -> Any:
    return value


def _as_curve(value: Any) -> np.ndarray | None:
    return None if value is None else np.array(value, dtype=np.float64)


COUNT = Kind(plain, count)
NUMBER = Kind(plain, _number_or_none)
TEXT = Kind(_as_it_is, text)
CURVE = Kind(_as_curve, _curve)
HISTORY = Kind(lambda history: {name: _as_curve(column) for name, column in history.items()}, _history)
#: set -> metric -> curve; kept as a list, since names of sets and metrics are the user's.
EVALS_RESULT = Kind(
    lambda sets: (
        None
        if sets is None
        else [[name, metric, _as_curve(curve)] for name, curves in sets.items() for metric, curve in curves.items()]
    ),
    _evals_result,
)


# --- the table -------------------------------------------------------------------------------------------------------


class Attribute(NamedTuple):
    """A row of the table."""

    kind: Kind
    #: Predictions need it: a reader of an older version must not leave it out.
    needed: bool = False
    #: Epochs change it: snapshots hold it.
    trained: bool = False
    #: It means the same in scikit-learn.
    shared: bool = False
    #: The weights determine it, or its length; of estimators for tables, whose coder determines the features, less.
    size: Callable[[Network], int] | None = None


ATTRIBUTES: dict[str, Attribute] = {
    "n_features_in_": Attribute(COUNT, needed=True, shared=True, size=lambda network: network.widths[0]),
    "feature_names_in_": Attribute(
        Kind(_as_it_is, _names), needed=True, shared=True, size=lambda network: network.widths[0]
    ),
    "classes_": Attribute(Kind(_as_it_is, classes), needed=True, shared=True),
    "out_activation_": Attribute(TEXT, needed=True, shared=True),
    "n_layers_": Attribute(COUNT, shared=True, size=lambda network: len(network.widths)),
    "n_outputs_": Attribute(COUNT, needed=True, shared=True, size=lambda network: network.widths[-1]),
    "n_iter_": Attribute(COUNT, trained=True, shared=True),
    "t_": Attribute(COUNT, trained=True, shared=True),
    "loss_": Attribute(NUMBER, trained=True, shared=True),
    "best_loss_": Attribute(NUMBER, trained=True, shared=True),
    "loss_curve_": Attribute(CURVE, trained=True, shared=True),
    "validation_scores_": Attribute(CURVE, trained=True, shared=True),
    "validation_loss_curve_": Attribute(CURVE, trained=True),
    "best_validation_score_": Attribute(NUMBER, trained=True, shared=True),
    "history_": Attribute(HISTORY, trained=True),
    "evals_result_": Attribute(EVALS_RESULT, trained=True),
    "stopped_by_": Attribute(Kind(_as_it_is, _text_or_none)),
    "target_range_": Attribute(Kind(_as_it_is, _range), needed=True),
    "oof_predict_proba_": Attribute(Kind(_as_it_is, _numbers)),
    "oof_decision_function_": Attribute(Kind(_as_it_is, _numbers)),
    "oof_prediction_": Attribute(Kind(_as_it_is, _numbers)),
    "oof_score_": Attribute(NUMBER),
}
