"""What lies between two products: the one declaration of a network's options for everything outside the engines.

An option is a parameter of the estimators, a field of :class:`Stages`, from which ``Network`` inherits, and a row of
``OPTIONS``. Its arrays are rows of ``UNITS``. Estimators, files, summaries, conversions and the command loop over
these tables. What the engines keep for an option is declared in ``kernels/layer_table.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastmlp.kernels import formulas
from fastmlp.kernels.layer_table import PLACEMENTS
from fastmlp.model import choices

if TYPE_CHECKING:
    from fastmlp.model.network import Network

#: What batch normalisation adds to a variance (PyTorch's).
BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The options of a network's layers.

    Parameters
    ----------
    batch_norm : bool, str or sequence of these
        Where a hidden layer normalises over the batch (Ioffe and Szegedy 2015, arXiv:1502.03167): "before" its
        activation, which True means too; "after" it; or nowhere, False or "". One for all, or one per hidden layer.
        Kept as a tuple with an entry of ``PLACEMENTS`` per hidden layer; () where none normalises.
    dropout : float or sequence of float
        Rate in [0, 1) of each hidden layer; one for all, or one per hidden layer. It acts in training only. Kept as a
        tuple with a rate per hidden layer; () for none.
    input_dropout : float
        Rate in [0, 1) of the features.
    """

    batch_norm: Any = ()
    dropout: Any = ()
    input_dropout: float = 0.0


# --- what users may give ----------------------------------------------------------------------------------------------


def _placements(given: Any, n_hidden: int) -> tuple[str, ...]:
    """Return where each hidden layer normalises, an entry of ``PLACEMENTS`` per layer; () where none does."""
    allowed = 'False, True, "before" or "after"'
    each = list(given) if isinstance(given, list | tuple | np.ndarray) else [given] * n_hidden
    if len(each) != n_hidden:
        raise ValueError(
            f"batch_norm must be {allowed}, or a list of one per hidden layer, {n_hidden}, got {len(each)}: {given!r}"
        )
    for entry in each:
        if not isinstance(entry, bool | np.bool_) and not (isinstance(entry, str) and entry in PLACEMENTS):
            raise ValueError(f"batch_norm must be {allowed}, or a list of one per hidden layer, got {entry!r}")
    found = tuple(str(entry) if isinstance(entry, str) else "before" if entry else "" for entry in each)
    return found if any(found) else ()


def _rate(given: Any, name: str) -> float:
    """Return a rate of dropout."""
    if isinstance(given, Real) and given == 1:
        raise ValueError(f"{name}=1 drops every unit, so that nothing is left to train on; it must be in [0, 1)")
    if not isinstance(given, Real) or isinstance(given, bool) or not 0 <= float(given) < 1:  # NaN is neither
        raise ValueError(f"{name} must be in [0, 1), got {given!r}")
    return float(given)


def _rates(given: Any, n_hidden: int) -> tuple[float, ...]:
    """Return a rate for each hidden layer, or () for none."""
    rates = [given] * n_hidden if isinstance(given, Real) else list(given)
    if len(rates) != n_hidden:
        raise ValueError(f"dropout must be one rate, or one per hidden layer, {n_hidden}, got {len(rates)}: {given!r}")
    found = tuple(_rate(rate, "dropout") for rate in rates)
    return found if any(found) else ()


# --- prediction without them ------------------------------------------------------------------------------------------


#: (network, params, weights, biases) -> None: changes weights and biases to those that predict without the option.
Fold = Callable[["Network", np.ndarray, list[np.ndarray], list[np.ndarray]], None]


def _fold_batch_norm(network: Network, params: np.ndarray, coefs: list, intercepts: list) -> None:
    """Make weights and biases of the running statistics.

    Let f = scale / sqrt(var + eps). Before the activation, a unit's scale * (x W + b - mean) / sqrt(var + eps) +
    shift is x (W f) + (b - mean) f + shift: its own W and b change. After the activation, the next layer reads
    f a + shift - mean f, and (f a + shift - mean f) W + b is a (f W) + (shift - mean f) W + b: W and b of that
    layer change, each row of W by its f.
    """
    units, running = network.unit_parameters(params), network.running_statistics(params)
    for i, where in enumerate(network.batch_norm):
        if not where:
            continue
        factor = units[i]["scale"] / np.sqrt(running[i]["var"].astype(np.float64) + BATCH_NORM_EPS)
        if where == "before":
            W, b = coefs[i], intercepts[i]
            W[...] = W * factor
            b[...] = (b - running[i]["mean"]) * factor + units[i]["shift"]
        else:
            W, b = coefs[i + 1], intercepts[i + 1]
            b[...] = b + (units[i]["shift"] - running[i]["mean"] * factor) @ W
            W[...] = W * factor[:, None]


# --- the table of options ---------------------------------------------------------------------------------------------


class Option(NamedTuple):
    """An option of a network's layers, with the name of the estimators' parameter; `kept`: what the network keeps."""

    read: Callable[[Any, int], Any]  # (what is given, number of hidden layers) -> kept; ValueError naming the option
    words: Callable[[Any, int], str]  # (kept, layer) -> words for the layer in a summary, or ""
    why_no_lbfgs: str  # why it makes no sense with the solver 'lbfgs'
    off: Any = ()  # kept without it
    fold: Fold | None = None  # how to predict without it; None if predictions do not depend on it
    whole_batch: bool = False  # whether a layer that has it needs all rows of a batch at once, in training
    array: str = ""  # name of one of its arrays, in layers that have it
    where: Any = None  # kept of such a layer if the parameter does not say
    saved: Callable[[Any], Any] = lambda kept: kept  # kept -> what a snapshot has of it

    @staticmethod
    def asks(given: Any) -> bool:
        """Return whether a value of the parameter asks for it in some layer."""
        return any(given) if isinstance(given, tuple | list | np.ndarray) else bool(given)


def _of_layer(kept: Sequence[Any], layer: int) -> Any:
    return kept[layer] if layer < len(kept) else None


_ONE_LOSS = "its line search needs a loss that is the same at every evaluation"
OPTIONS = {
    "batch_norm": Option(
        _placements,
        lambda kept, layer: {"before": "batch_norm", "after": "batch_norm after"}.get(_of_layer(kept, layer), ""),
        "it sees all rows at once, not batches",
        fold=_fold_batch_norm,
        whole_batch=True,
        array="scale",
        where="before",
        # files of the first kind have a bool: before every activation, or nowhere
        saved=lambda kept: bool(kept) if {*kept} <= {"before"} else list(kept),
    ),
    "dropout": Option(
        _rates,
        lambda kept, layer: f"dropout {kept[layer]:g}" if _of_layer(kept, layer) else "",
        _ONE_LOSS,
    ),
    "input_dropout": Option(
        lambda given, n_hidden: _rate(given, "input_dropout"),
        lambda kept, layer: f"input_dropout {kept:g}" if layer == 0 and kept else "",
        _ONE_LOSS,
        off=0.0,
    ),
}
#: Those that predictions depend on; the others act in training only.
PREDICTS = {name: option for name, option in OPTIONS.items() if option.fold is not None}


def whole_batch(network: Network, layer: int) -> bool:
    """Return whether a hidden layer needs all rows of a batch at once, in training."""
    return any(option.whole_batch and _of_layer(getattr(network, name), layer) for name, option in OPTIONS.items())


def options_of(estimator: Any, n_hidden: int) -> dict[str, Any]:
    """Return what a network keeps of the options that an estimator's parameters ask for; ValueError naming one."""
    return {name: option.read(getattr(estimator, name), n_hidden) for name, option in OPTIONS.items()}


def fitted_options(estimator: Any, n_hidden: int) -> dict[str, Any]:
    """Return what a network keeps of PREDICTS in a fitted estimator: arrays tell which layers, the parameter how."""
    found = {}
    for name, option in PREDICTS.items():
        arrays = getattr(estimator, UNIT_ATTRIBUTES[option.array], None)
        if arrays is None:
            continue
        asked = option.read(getattr(estimator, name), n_hidden) or (option.where,) * n_hidden
        # a list of another length is refused where its arrays are read
        has = [i >= len(arrays) or arrays[i] is not None for i in range(n_hidden)]
        found[name] = [has_it and (value or option.where) for value, has_it in zip(asked, has, strict=True)]
    return found


# --- arrays -----------------------------------------------------------------------------------------------------------


class Unit(NamedTuple):
    """An array (fan_out,) of a hidden layer besides its weights and biases."""

    name: str  # of the array in its layer
    attribute: str  # of the estimator, a list with an entry per hidden layer
    first: Callable[[Network, int], float | None]  # of (network, hidden layer); None where there is no such array
    trained: bool = True  # whether the optimizer updates it


def _normalised(value: float) -> Callable[[Network, int], float | None]:
    """First value of an array of batch normalisation."""
    return lambda network, layer: value if _of_layer(network.batch_norm, layer) else None


def _learned(name: str) -> Callable[[Network, int], float | None]:
    """First value of a parameter that each unit of an activation learns: the one given, or the default."""

    def first(network: Network, layer: int) -> float | None:
        entry = network.activations[layer]
        return choices.parameters_of(formulas.ACTIVATIONS, entry)[name] if name in choices.learned(entry) else None

    return first


#: In the order in which a layer has them in the flat vector, trained or not, and in which files list them.
UNITS = (
    Unit("scale", "bn_scales_", _normalised(1.0)),
    Unit("shift", "bn_shifts_", _normalised(0.0)),
    Unit("mean", "bn_means_", _normalised(0.0), trained=False),
    Unit("var", "bn_vars_", _normalised(1.0), trained=False),
    Unit("slope", "prelu_slopes_", _learned("slope")),
    Unit("mix", "activation_mixes_", lambda network, layer: 1.0 if network.parametric_activations else None),
)

#: Name of an array of hidden units -> attribute of the estimator: a list with an entry per hidden layer.
UNIT_ATTRIBUTES = {unit.name: unit.attribute for unit in UNITS}
