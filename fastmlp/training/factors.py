"""Factors of the segments of a flat vector: each may have its own learning rate, weight decay and epsilon.

An optimizer hands their tables to the engines, which multiply the scalars of a step by the row of a segment.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from fastmlp.model.network import Network

#: Scalars of the rules that are proportional to the learning rate.
LEARNING_RATES = ("lr", "step_size", "step_g", "step_m")


class Factors(NamedTuple):
    """Factors of each segment of a network, in the order of ``network.segments``; None stands for 1 everywhere.

    lr : float64 (n_segments,), finite and >= 0
        Of the learning rate. A segment with 0 is frozen: it does not decay, and its gradient does not count in the
        norm that `max_grad_norm` limits.
    decay : float64 (n_segments,), finite and >= 0
        Of the decoupled weight decay, whatever the factor of the learning rate is above 0.
    epsilon : float64 (n_segments,), finite and > 0
        Of epsilon, if the rule has one.

    Notes
    -----
    RealMLP's decay is wd(t) lr(t) f_lr^2 f_wd^2: both factors of a segment enter twice, so its `decay` is
    (f_lr f_wd)^2, and 0 for biases.

    Adam trains z = g x W, the NTK parametrisation with g = fan_in^-1/2, in the product W' = g W: the learning rate has
    the factor g, epsilon has 1 / g, and the decay has 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.model.network import Network
    >>> from fastmlp.training.factors import Factors
    >>> network = Network((4, 8, 3), ("relu",), "log_loss", np.dtype("float32"))
    >>> [segment.name for segment in network.segments]
    ['W', 'W', 'b', 'b']
    >>> factors = Factors(lr=[1.0, 1.0, 0.1, 0.1], decay=[1.0, 1.0, 0.0, 0.0])
    """

    lr: Any = None
    decay: Any = None
    epsilon: Any = None


def checked(factors: Factors, n_segments: int) -> Factors:
    """Return copies of the factors, float64 (n_segments,) or None; a ValueError names what is no such array."""
    return Factors(*(_checked(name, given, n_segments) for name, given in factors._asdict().items()))


def _checked(name: str, given: Any, n_segments: int) -> np.ndarray | None:
    if given is None:
        return None
    array = np.array(given, dtype=np.float64)
    fits, lowest = (array > 0, "> 0") if name == "epsilon" else (array >= 0, ">= 0")
    if array.shape != (n_segments,) or not (np.isfinite(array) & fits).all():
        raise ValueError(
            f"factors.{name} must hold {n_segments} finite numbers {lowest}, one per segment, got {given!r}"
        )
    return array


def freezing(network: Network, layers: Collection[int], biases: bool) -> Factors | None:
    """Return factors that freeze some layers, and all biases if that is asked for; None if nothing is frozen."""
    lr = [float(s.layer not in layers and not (biases and s.name == "b")) for s in network.segments]
    return None if all(lr) else Factors(lr=np.array(lr))


def frozen_pieces(factors: Factors | None, network: Network) -> list[slice]:
    """Return the places of the frozen segments in the flat vector."""
    if factors is None or factors.lr is None:
        return []
    return [segment.where for segment, lr in zip(network.segments, factors.lr, strict=True) if lr == 0]


def table_of(factors: Factors, scalars: tuple[str, ...], n_segments: int) -> np.ndarray | None:
    """Return what multiplies each scalar in each segment, float64 (n_segments, n_scalars); None if that is 1."""
    table = np.ones((n_segments, len(scalars)))
    for k, name in enumerate(scalars):
        column = factors.lr if name in LEARNING_RATES else factors.epsilon if name == "epsilon" else None
        if column is not None:
            table[:, k] = column
    return None if (table == 1).all() else table
