"""What `matmul_precision` costs in exactness and gains in time on the device: products, nets, steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gpu import hooks
from gpu.nets import NETS, Case, Training, compared, repeated

#: Largest error of a product on tensor cores, relative to |A| |B|: what docs/options.md promises.
PRODUCTS = {"high": 2.0**-15, "medium": 2.0**-9}
#: Largest distance of a net from the reference, in terms of the way that it trained.
NETWORKS = {"high": 1e-4, "medium": 3e-2}
#: Rows, terms and columns of products: no multiple of a tile, fewer than one, sums of many terms.
SHAPES = (130, 300, 70), (3, 5, 17), (70, 8000, 33)
SIMULATED_SHAPES = ((17, 9, 18),)
#: Layers and batches whose steps are timed: the suite `cuda`.
STEPS = ((64, 128, 128, 10), 256), ((784, 100, 10), 200), ((1024, 1024, 1024, 10), 128)
STEPS_OF_AN_EPOCH, EPOCHS = 50, 3

Check = Callable[[], str]


def precisions(engine: Any, reference: Any, simulated: bool) -> Iterator[tuple[str, Check]]:
    """Yield the name and the check of every product and tile, of nets, and of the time of steps."""
    for tile in hooks.TILES if not simulated else list(hooks.TILES)[:1]:
        for precision in PRODUCTS:
            yield f"products, {precision}, {tile} tile", partial(products, engine, precision, tile, simulated)
    for name in ("small tile", "large tile") if not simulated else ("small tile",):
        for precision, limit in list(NETWORKS.items())[: 1 if simulated else None]:
            training = Training(at_precision(NETS[name], precision), "float32", simulated)
            yield f"{name}, {precision}", partial(compared, engine, reference, training, limit)
            if not simulated:
                yield f"{name}, {precision}, repeated", partial(repeated, engine, training, 3)
    for widths, batch in STEPS[: 1 if simulated else None]:
        yield "-".join(map(str, widths)), partial(times, engine, widths, batch, simulated)


def at_precision(case: Case, precision: str) -> Case:
    """Return a case on tensor cores."""
    network, force = {**case.network, "matmul_precision": precision}, {**case.force, "tensor_cores": True}
    return replace(case, network=network, force=force)


def products(engine: Any, precision: str, tile: str, simulated: bool) -> str:
    """Compare the three products of a step with NumPy in float64.

    Raises
    ------
    AssertionError
        If an error is larger than the precision permits.
    """
    from fastmlp.bench.products import PRODUCTS as ROWS

    rng, worst = np.random.default_rng(0), {}
    for name, row in ROWS.items():
        for n, depth, width in SIMULATED_SHAPES if simulated else SHAPES:
            shapes = {"forward": (n, depth, width), "weight gradient": (depth, n, width)}
            A, B = (rng.standard_normal(s).astype("f4") for s in row.shapes(*shapes.get(name, (n, width, depth))))
            with hooks.forced(tile=tile, tensor_cores=True):
                error = row.relative_error(row.compute(engine, A, B, precision), A, B).max()
            worst[name] = max(worst.get(name, 0.0), float(error))
            assert error <= PRODUCTS[precision], f"{name} {n, depth, width}: an error of {error:.1e}"
    return ", ".join(f"{name} {error:.0e}" for name, error in worst.items())


def times(engine: Any, widths: tuple[int, ...], batch: int, simulated: bool) -> str:
    """Return microseconds of a step for each precision, by the device's clock, and the tile that the engine took."""
    from fastmlp import MLPClassifier
    from fastmlp.engines.backends import Data
    from fastmlp.model.network import Network
    from fastmlp.training.optimizers import make_optimizer

    if simulated:
        widths, batch = (5, 4, 3), 4
    rng, steps = np.random.default_rng(0), 1 if simulated else STEPS_OF_AN_EPOCH
    X = rng.standard_normal((steps * batch, widths[0])).astype("f4")
    data, order = Data(X, rng.integers(0, widths[-1], len(X)).astype(np.intp), None), rng.permutation(len(X))
    found = {}
    for precision in ("highest", *PRODUCTS):
        hidden = ("relu",) * (len(widths) - 2)
        network = Network(widths, hidden, "log_loss", np.dtype("f4"), matmul_precision=precision)
        optimizer = make_optimizer("adam", network, MLPClassifier().get_params())
        params, best = network.initial_params(np.random.RandomState(0), gain=6.0), []
        workspace = engine.workspace(network, batch)
        for _ in range(EPOCHS if not simulated else 1):
            before = workspace.device_seconds
            engine.train_epoch(workspace, params, data, order, batch, 1e-4, optimizer)
            best.append((workspace.device_seconds - before) / steps)
        tile = workspace.tile(batch)
        found[f"{precision} ({tile.precision}, {tile.size})"] = min(best)
    first = next(iter(found.values()))
    return ", ".join(f"{name} {1e6 * seconds:.1f} us, {first / seconds:.2f}x" for name, seconds in found.items())
