"""The :class:`Network` of an estimator: the one that its parameters ask for, or the one that its arrays describe."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from numbers import Real
from types import ModuleType
from typing import Any

import numpy as np

from fastmlp.data import targets
from fastmlp.data.targets import Objective
from fastmlp.engines import backends
from fastmlp.estimator import ensemble
from fastmlp.estimator.parameters import activations_of
from fastmlp.kernels import formulas, layer_table
from fastmlp.model import choices, stages, weights
from fastmlp.model.initialization import initial_params
from fastmlp.model.network import Network
from fastmlp.training import lbfgs
from fastmlp.training.many import n_at_once, n_in_training, n_side_by_side
from fastmlp.training.run import size_of_batches
from fastmlp.training.stopping import keeps_best


def hidden_sizes(estimator: Any) -> list[int]:
    """Return the widths of the hidden layers: integers, else a TypeError; positive, else a ValueError."""
    given = estimator.hidden_layer_sizes
    try:
        sizes = list(given) if isinstance(given, Iterable) else [given]
    except TypeError:  # an array without an axis
        raise TypeError(f"hidden_layer_sizes must be an int or a sequence of ints, got {given!r}") from None
    widths = [_width(size, i, sizes) for i, size in enumerate(sizes)]
    if any(width <= 0 for width in widths):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return widths


def _width(size: Any, i: int, sizes: list[Any]) -> int:
    """Return the width of a layer; like scikit-learn, take what Python takes as an index, and no bool."""
    if not isinstance(size, bool | np.bool_) and not (isinstance(size, np.ndarray) and size.ndim):
        with suppress(TypeError):
            return operator.index(size)
    if isinstance(size, Real) and size <= 0:
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    whole = f": write {size:.0f}" if isinstance(size, float) and size.is_integer() else ""
    raise TypeError(f"hidden_layer_sizes[{i}] must be an int, got {size!r} in {sizes}{whole}")


def network_to_train(estimator: Any, X: Any, objective: Objective, first_pass: bool) -> Network:
    """Return the network of a fit: a new one for these rows, or the fitted one to train further.

    A ValueError says that the fitted one is of another kind than the parameters ask for.
    """
    if not first_pass:
        return _network_to_go_on_with(estimator, objective)
    widths = (X.shape[1], *hidden_sizes(estimator), objective.n_outputs)
    return _network(estimator, widths, objective.loss, np.dtype(X.dtype))


def network_to_be(estimator: Any, n_features: int, n_outputs: int) -> tuple[Network, str]:
    """Return the network that a fit on so many features would train, and its output activation."""
    task = "regression" if estimator._numeric_targets else "multiclass" if n_outputs > 1 else "binary"
    objective = targets.resolve_loss(task, estimator.loss, n_outputs)
    dtype = np.dtype(np.float64 if estimator.matmul_precision == "highest" else np.float32)
    return _network(estimator, (n_features, *hidden_sizes(estimator), n_outputs), objective.loss, dtype), objective.link


def check_memory(estimator: Any, network: Network, engine: ModuleType, n_rows: int, has_validation: bool) -> None:
    """Raise a MemoryError for networks whose fit on `n_rows` rows this machine cannot hold, before it allocates."""
    in_training = vectors_of_fit(estimator, network, engine, n_rows, has_validation)
    n = estimator.n_ens * estimator.n_cv
    if n > 1:  # all have their weights from the beginning, and keep their states to the end
        n_in_step = estimator.n_ens if ensemble.trains_in_step(estimator) else 1
        together = max(n_side_by_side(engine, network, n, estimator.n_jobs), n_at_once(engine, n))
        at_work = n_in_training(n, together, n_in_step)
        in_training = at_work * in_training + (n - at_work) * (1 + _n_states(estimator))
    try:
        network.check_memory(in_training)
    except MemoryError as error:
        if n > 1:
            raise MemoryError(f"{error}, for {n} networks (n_ens, n_cv)") from None
        raise


def vectors_of_fit(estimator: Any, network: Network, engine: ModuleType, n_rows: int, has_validation: bool) -> float:
    """Return how many vectors of the size of the parameters a fit holds at its peak, besides rows and their buffers."""
    if choices.name_of(estimator.solver) == "lbfgs":
        return lbfgs.VECTORS * 8 / network.dtype.itemsize
    n_states, row, batch = _n_states(estimator), backends.row_of(engine), size_of_batches(estimator, n_rows)
    lowest = 0 if layer_table.learns_in_front(network) else 1  # the first layer that hands a delta down
    above_first = sum(s.size for s in network.segments if s.name == "W" and s.layer >= lowest) / network.n_params
    found = 1 + n_states + row.vectors(n_states, above_first, network, batch)  # 1: the parameters
    if has_validation:
        found += row.packs + 2 * network.needs_whole_batch  # the weights to predict with, batch_norm folded into them
        found += (1 + row.packs) * keeps_best(estimator, True)  # the best so far and the ones that take their place
    return found


def _n_states(estimator: Any) -> int:
    """Return how many vectors the optimizer keeps; L-BFGS keeps none."""
    solver = choices.name_of(estimator.solver)
    if solver == "lbfgs":
        return 0
    rule = "momentum" if solver == "sgd" and estimator.momentum != 0 else solver
    return len(formulas.OPTIMIZERS[rule].states)


def fitted_network(estimator: Any) -> Network:
    """Return the network that the fitted arrays describe, as it predicts, also if a user has set them."""
    widths, dtype = weights.linear_shape(estimator.coefs_, estimator.intercepts_)
    activations = activations_of(estimator.activation, len(widths) - 2)
    loss = targets.LOSS_OF_LINK[estimator.out_activation_]
    options = stages.fitted_options(estimator, len(activations))
    return Network(widths, activations, loss, dtype, matmul_precision=estimator.matmul_precision, **options)


def first_params(estimator: Any, network: Network, random_state: np.random.RandomState) -> np.ndarray:
    """Return the flat vector (n_params,) that the first fit of a network begins with."""
    params = _drawn_params(estimator, network, random_state)
    if not estimator.fit_intercept:  # drawn all the same: the weights are those of a network with biases
        for b in network.intercepts(params):
            b[...] = 0.0
    return params


def _drawn_params(estimator: Any, network: Network, random_state: np.random.RandomState) -> np.ndarray:
    logistic = network.activations == ("logistic",) * (network.n_layers - 1)
    gain = 2.0 if estimator.activation == "logistic" or (logistic and network.activations) else 6.0
    return initial_params(network, estimator.init, random_state, gain)


def frozen_layers(estimator: Any, network: Network) -> frozenset[int]:
    """Return the indices from 0 of the layers that are frozen; a ValueError refuses what is no index of a layer."""
    given, n = estimator.frozen_layers, network.n_layers
    if given is None:
        return frozenset()
    found = set()
    for layer in given:
        is_index = isinstance(layer, int | np.integer) and not isinstance(layer, bool)
        if not is_index or not -n <= layer < n:
            raise ValueError(
                f"frozen_layers={given!r} must hold indices of the network's {n} layers, from {-n} to {n - 1},"
                f" got {layer!r}"
            )
        found.add(int(layer) % n)
    return frozenset(found)


def check_frozen(estimator: Any, network: Network) -> None:
    """Raise a ValueError for layers to freeze that there are not, and for what standardised targets would change."""
    last_is_frozen = network.n_layers - 1 in frozen_layers(estimator, network)
    if estimator._standardizes():
        for name, asked in (("fit_intercept", not estimator.fit_intercept), ("frozen_layers", last_is_frozen)):
            if asked:
                raise ValueError(
                    f"{name}={getattr(estimator, name)!r} makes no sense with standardize_y=True, which puts mean and"
                    " standard deviation of y into the last layer"
                )


def _network_to_go_on_with(estimator: Any, objective: Objective) -> Network:
    widths, dtype = weights.linear_shape(estimator.coefs_, estimator.intercepts_)
    if objective.link != estimator.out_activation_:
        raise ValueError(
            f"the fitted network has the output activation {estimator.out_activation_!r}, the loss needs"
            f" {objective.link!r}: a loss cannot be exchanged for this one without a new fit"
        )
    if not estimator.fit_intercept and any(np.any(b) for b in estimator.intercepts_):
        raise ValueError(
            "fit_intercept=False, but the fitted network has intercepts_ that are not 0: it needs a new fit"
        )
    network = _network(estimator, widths, objective.loss, dtype)
    n_hidden = len(network.activations)
    for name, fitted in stages.fitted_options(estimator, n_hidden).items():
        asked = getattr(network, name) or ("",) * n_hidden
        if any(where and not wanted for where, wanted in zip(fitted, asked, strict=False)):
            raise ValueError(
                f"{name}={getattr(estimator, name)!r}, but the fitted network has {name} where this has none:"
                " it needs a new fit"
            )
    return network


def _network(estimator: Any, widths: tuple[int, ...], loss: Any, dtype: np.dtype) -> Network:
    n_hidden = len(widths) - 2
    activations = activations_of(estimator.activation, n_hidden)
    options = stages.options_of(estimator, n_hidden)
    options["matmul_precision"] = estimator.matmul_precision
    named = all(isinstance(entry, str) for entry in (*activations, loss, estimator.matmul_precision))
    return (_network_of_names if named else Network)(widths, activations, loss, dtype, **options)


@lru_cache(maxsize=64)
def _network_of_names(*args: Any, **options: Any) -> Network:
    """Return a network, the same one as before for the same arguments: it knows its segments and sizes already."""
    return Network(*args, **options)
