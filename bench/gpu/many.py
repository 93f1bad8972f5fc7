"""Many nets in one call, a block each: the bits of each alone, and the net-steps a second of both ways."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpu import hooks
from gpu.nets import ALPHA, EPSILON, SEED, Case, Training

#: Networks by name, of which each net has first weights and an order of rows of its own.
MANY: Mapping[str, Case] = {
    "64-128-128-10, 256": Case((64, 128, 128, 10), (5, 4, 3), rows=1024),
    "64-100-10, 200": Case((64, 100, 10), (4, 5, 3), rows=1000, batch=200),
    "4-16-3, 30": Case((4, 16, 3), (4, 3, 3), rows=120, batch=30),
    "dropout, batch norm": Case((50, 60, 5), (3, 5, 2), "prelu", network={"batch_norm": True, "dropout": 0.3}),
}
NETS, EPOCHS, COMPARED = 264, 10, 4


def _calls(engine: Any, training: Training, n: int, epochs: int) -> list[Any]:
    """Return the calls of so many nets from their starts."""
    from fastmlp import MLPClassifier
    from fastmlp.kernels.contract import Epochs
    from fastmlp.training.optimizers import make_optimizer

    given, calls = MLPClassifier(epsilon=EPSILON, learning_rate_init=0.01, **training.case.choice).get_params(), []
    for i in range(n):
        rng = np.random.default_rng(i)
        params = training.network.initial_params(np.random.RandomState(i), gain=6.0)
        optimizer = make_optimizer(training.case.solver, training.network, given)
        orders = np.array([rng.permutation(training.order) for _ in range(epochs)])
        workspace = engine.workspace(training.network, training.batch)
        workspace.holds_back = True
        losses = np.empty(epochs)
        calls.append(
            Epochs(workspace, params, training.data, orders, training.batch, ALPHA, optimizer, 0.0, SEED + i, losses)
        )
    return calls


def _seconds(train: Any, calls: Sequence[Any]) -> tuple[float, float]:
    """Return seconds by the wall clock and by the device's, of a second call; the first one compiles and uploads."""
    train(calls)
    before = sum(call.workspace.device_seconds for call in calls)
    begun = time.perf_counter()
    train(calls)
    wall = time.perf_counter() - begun
    return wall, sum(call.workspace.device_seconds for call in calls) - before


def at_once(engine: Any, training: Training, simulated: bool) -> str:
    """Train nets at once and some of them alone; compare all bits, and return net-steps a second.

    Raises
    ------
    AssertionError
        If weights or states differ.
    """
    n, epochs, compared = (3, 2, 2) if simulated else (NETS, EPOCHS, COMPARED)
    together, apart = (_calls(engine, training, size, epochs) for size in (n, compared))
    steps = epochs * -(-len(training.order) // training.batch)

    def one_by_one(calls: Sequence[Any]) -> None:
        for call in calls:
            engine.train_epoch(*call)

    with hooks.forced(many=True):
        wall, device = _seconds(engine.train_many, together)
    wall_apart, device_apart = _seconds(one_by_one, apart)
    for i, (ours, theirs) in enumerate(zip(together, apart, strict=False)):
        for call in (ours, theirs):
            call.workspace.fetch()
        for array, other in zip(
            (ours.params, *ours.optimizer.states), (theirs.params, *theirs.optimizer.states), strict=True
        ):
            np.testing.assert_array_equal(array, other, err_msg=f"net {i}")
    rates = [n * steps / wall, n * steps / device, compared * steps / wall_apart, compared * steps / device_apart]
    return (
        f"{n} at once {rates[0]:.3g} net-steps/s ({rates[1]:.3g} on device), one at a time {rates[2]:.3g}"
        f" ({rates[3]:.3g}): {rates[0] / rates[2]:.1f}x ({rates[1] / rates[3]:.1f}x)"
    )
