"""The CUDA engine: on a GPU if there is one, in Numba's simulator with NUMBA_ENABLE_CUDASIM=1, and with neither.

In the simulator a GPU's threads are Python's: sizes here are small, and odd on purpose.  It checks which number goes
where, not races; the barriers are argued in kernels/numba_cuda/template/.  What needs neither is in test_cuda_code.py
and test_cuda_driver.py, formulas at their kinks in test_cuda_kinks.py.
"""

import importlib
import inspect
import os
import signal
from contextlib import nullcontext

import numpy as np
import pytest
import scipy.sparse as sp

import fastmlp
from fastmlp.engines import backends, by_name
from fastmlp.engines.backends import Data
from fastmlp.kernels import formulas, reference
from fastmlp.kernels.codegen import CudaTile
from fastmlp.kernels.numba_cuda import cost, driver, settings, training
from fastmlp.kernels.numba_cuda.code import module_of
from fastmlp.model.network import Network

from helpers import (
    ACTIVATIONS,
    HIDDEN,
    LAYOUTS,
    LOSSES,
    RULES,
    SCALARS,
    assert_close,
    make_data,
    make_network,
    make_optimizer,
    make_params,
    make_targets,
    make_weights,
    steady_simulator,
)

USABLE = "cuda" in backends.available()
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
on_device = pytest.mark.skipif(not USABLE, reason=f"no CUDA device: {backends.why_not('cuda')}")
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.fixture(scope="module")
def engine():
    if not USABLE:
        pytest.skip(backends.why_not("cuda"))
    with steady_simulator() if driver.simulated() else nullcontext():
        yield backends.get("cuda")


@fastmlp.activation
def swish(z):
    return z / (1 + exp(-z))  # noqa: F821  the formula language's


@fastmlp.loss
def cauchy(y, p):
    return log1p((y - p) * (y - p))  # noqa: F821


# ------------------------------------------------------------------------------- kernels by name

POINTS = np.array([[-1e4, -30.0, -3.0, -1.0, -0.3], [-0.0, 0.2, 1.0, 6.0, 1e4], [-np.inf, np.inf, np.nan, 2.5, 0.0]])


@by_dtype
@pytest.mark.parametrize("activation", [*ACTIVATIONS, ("elu", {"alpha": 0.6}), swish])
def test_activations(engine, activation, dtype):
    z = POINTS.astype(dtype)
    a = reference.activate(activation, z)
    assert_close(by_name.activate(engine, activation, z), a, scale=np.maximum(np.abs(a), 1))
    if activation in ACTIVATIONS and activation not in HIDDEN:
        return
    assert_close(by_name.slope(engine, activation, z), reference.slope(activation, z, a), terms=4, scale=1)


@by_dtype
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 9), (9, 4, 1), (2, 11, 6)])
def test_linear_layer(engine, shape, dtype):
    n, fan_in, fan_out = shape
    rng = np.random.default_rng(0)
    X, W, b, delta = (rng.normal(size=s).astype(dtype) for s in ((n, fan_in), (fan_in, fan_out), fan_out, (n, fan_out)))
    a = reference.activate("gelu", X)
    below = (delta @ W.T) * reference.slope("gelu", X, a)
    expected = np.tanh(X @ W + b), X.T @ delta, delta.sum(axis=0), a.T @ delta, delta.sum(axis=0), below
    found = by_name.linear_forward(engine, X, W, b, "tanh"), *by_name.linear_backward(engine, X, delta)
    for ours, theirs in zip((*found, *by_name.hidden_backward(engine, "gelu", X, W, delta)), expected, strict=True):
        assert_close(ours, theirs, terms=max(shape), scale=np.abs(theirs).max() + 3)


@by_dtype
@pytest.mark.parametrize("loss", [*LOSSES, ("log_loss", {"label_smoothing": 0.2}), ("focal", {"gamma": 0.5}), cauchy])
def test_losses(engine, loss, dtype):
    rng = np.random.default_rng(1)
    n, width = 5, 3
    logits = rng.normal(0, 3, (n, width)).astype(dtype)
    y = make_targets(rng, loss, n, width, dtype)
    for z, t, weight in ((1000 * logits[:1], y[:1], None), (logits, y, None), (logits, y, make_weights(rng, n, dtype))):
        ours, found = by_name.loss(engine, loss, z, t, weight)
        theirs, expected = reference.loss(loss, z, t, weight)
        assert_close(dtype(ours), dtype(theirs), terms=4)
        assert_close(found, expected, terms=4, scale=np.maximum(np.abs(expected), 1))


@by_dtype
@pytest.mark.parametrize("width", [1, 2, 7])
def test_softmax(engine, width, dtype):
    z = np.random.default_rng(0).normal(0, 100, (5, width)).astype(dtype)
    assert_close(by_name.softmax(engine, z), reference.softmax(z), terms=width, scale=1)


@by_dtype
@pytest.mark.parametrize("rule", RULES)
def test_rules(engine, rule, dtype):
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=(2, 11)).astype(dtype)
    row = formulas.OPTIMIZERS[rule]
    states = [rng.uniform(0, 0.1, 11).astype(dtype) for _ in row.states]
    scalars = [SCALARS.get(name, 0.5) for name in row.scalars]
    found, expected = [p.copy(), *(s.copy() for s in states)], [p.copy(), *(s.copy() for s in states)]
    by_name.update(engine, rule, found[0], g, found[1:], scalars)
    reference.update(rule, expected[0], g, expected[1:], scalars)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, terms=4, scale=1)


# ------------------------------------------------------------------------------- epochs


def epoch(module, network, data, order, batch_size, rule="adam", epochs=1, l1=0.0, **options):
    """(losses, parameters, states, steps) after epochs from the same start."""
    rng = np.random.default_rng(7)
    params = make_params(rng, network)
    optimizer = make_optimizer(rng, rule, network.n_params, network.dtype)
    for name, value in options.items():
        setattr(optimizer, name, value)
    workspace = module.workspace(network, batch_size)
    losses = [
        module.train_epoch(workspace, params, data, order, batch_size, 0.1, optimizer, l1=l1, seed=2**63 + 5)
        for _ in range(epochs)
    ]
    return losses, params, np.array(optimizer.states), optimizer.t


def compare(engine, network, n=7, batch_size=3, *, kind="C", weighted=True, order=None, **options):
    data = make_data(np.random.default_rng(3), network, n, weighted, kind)
    if weighted:
        data.sample_weight[:] += 0.1  # no batch without weight
    order = np.random.default_rng(4).permutation(n) if order is None else order
    found, expected = (epoch(module, network, data, order, batch_size, **options) for module in (engine, reference))
    rtol = 1e-9 if network.dtype == np.float64 else 2e-5
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * 1e-2)


@pytest.fixture(params=["rows", "layers"])
def schedule(engine, request, monkeypatch):
    monkeypatch.setattr(settings, "SCHEDULE", request.param)
    return request.param


TRAINED = [name for name in HIDDEN if not formulas.ACTIVATIONS[name].drawn]


@pytest.mark.parametrize("activation", [*TRAINED, ("leaky_relu", {"negative_slope": 0.3}), swish])
def test_epoch_with_each_activation(engine, activation):
    compare(engine, make_network((3, 5, 2), activations=activation))


def test_training_with_random_slopes_is_refused(engine):
    with pytest.raises(ValueError, match=r"backend='cuda' has no training with activation='rrelu'"):
        compare(engine, make_network((3, 5, 2), activations="rrelu"))


@pytest.mark.parametrize("loss", [*LOSSES, ("huber", {"delta": 0.4}), ("log_loss", {"label_smoothing": 0.1}), cauchy])
def test_epoch_with_each_loss(engine, loss):
    compare(engine, make_network((3, 4, 2), loss=loss))


@pytest.mark.parametrize("rule", RULES)
def test_epoch_with_each_rule(engine, rule):
    compare(engine, make_network((3, 4, 2)), rule=rule, weight_decay=0.3)


OPTIONS = {
    "plain": {},
    "dropout": {"dropout": (0.5, 0.2)},
    "input dropout": {"input_dropout": 0.3},
    "batch_norm": {"batch_norm": True},
    "batch_norm, dropout": {"batch_norm": True, "dropout": (0.3, 0.3), "input_dropout": 0.1},
    "prelu, batch_norm": {"activations": ("prelu", "gelu"), "batch_norm": True},
    "batch_norm after": {"batch_norm": "after"},
    "batch_norm after, dropout": {"batch_norm": "after", "dropout": (0.3, 0.3), "input_dropout": 0.1},
    "prelu, batch_norm after": {"activations": ("prelu", "gelu"), "batch_norm": "after", "dropout": (0.2, 0.0)},
    "batch_norm after, then before": {"activations": ("logistic", "prelu"), "batch_norm": ["after", "before"]},
    "batch_norm in one layer": {"batch_norm": [False, "after"], "dropout": (0.2, 0.3)},
    "prelu, dropout": {"activations": ("prelu", swish), "dropout": (0.2, 0.0)},
    "same activation, other parameters": {"activations": (("elu", {"alpha": 0.7}), ("elu", {"alpha": 1.2}))},
}
ON_TOP = {
    "plain": {},
    "l1": {"l1": 0.05},
    "decay": {"weight_decay": 0.3},
    "clipped": {"max_grad_norm": 0.1},
    "everything": {"l1": 0.05, "weight_decay": 0.3, "max_grad_norm": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_epoch_with_options(engine, schedule, name):
    options = {"activations": ("tanh", "relu"), **OPTIONS[name]}
    compare(engine, make_network((3, 5, 4, 2), **options), epochs=2)


@pytest.mark.parametrize("name", ON_TOP)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_epoch_with_penalties(engine, name, batch_norm):
    compare(engine, make_network((3, 5, 2), batch_norm=batch_norm), **ON_TOP[name])


@pytest.mark.parametrize("name", ["plain", "batch_norm, dropout", "prelu, dropout"])
def test_epoch_in_float32(engine, name):
    options = {"activations": ("tanh", "relu"), **OPTIONS[name]}
    compare(engine, make_network((3, 5, 4, 2), dtype=np.float32, **options))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_epoch_with_each_layout(engine, kind):
    compare(engine, make_network((5, 3, 2)), kind=kind)


@pytest.mark.parametrize("name", ["input dropout", "batch_norm, dropout"])
def test_epoch_with_sparse_rows(engine, schedule, name):
    options = {"activations": ("tanh", "relu"), **OPTIONS[name]}
    compare(engine, make_network((5, 3, 4, 2), **options), kind="csr int32")


@pytest.mark.parametrize("widths", [(1, 1), (3, 1), (1, 5), (5, 9, 1), (9, 1, 3), (2, 3, 1, 5, 2)], ids=str)
def test_epoch_with_odd_widths(engine, schedule, widths):
    loss = "squared_error" if widths[-1] == 1 else "log_loss"
    compare(engine, make_network(widths, loss=loss), weighted=False)


@pytest.mark.parametrize("batch_size", [1, 2, 6, 7, 100])
def test_epoch_with_each_batch_size(engine, batch_size):
    compare(engine, make_network((3, 4, 2)), batch_size=batch_size)


def test_epoch_over_some_of_the_rows(engine):
    """As with drop_last; and a row may come twice."""
    compare(engine, make_network((3, 4, 2)), order=np.array([5, 0, 5, 2, 1, 6]))


@pytest.mark.parametrize("clip", [None, 0.1])
def test_batches_larger_than_a_chunk(engine, schedule, monkeypatch, clip):
    monkeypatch.setattr(settings, "CHUNK_ROWS", 3)
    compare(engine, make_network((3, 4, 2), dropout=(0.4,)), n=11, batch_size=8, max_grad_norm=clip)


#: Widths, rows and batch size; and of a device those of which no dimension is a multiple of a tile.
GRIDS = {
    True: ((6, 9, 5, 3), 17, 9, (2, 5)),
    False: ((70, 300, 129, 9), 700, 190, (3, 64)),
}


@pytest.mark.parametrize("name", ["plain", "batch_norm, dropout"])
@pytest.mark.parametrize("number", [0, 1])
def test_the_number_of_blocks_does_not_matter(engine, schedule, monkeypatch, name, number):
    """To the last bit: no sum is split between blocks.

    A cooperative launch, which in the simulator has one block, against a launch for each phase.
    """
    widths, rows, batch_size, blocks = GRIDS[driver.simulated()]
    network = make_network(widths, **{"activations": ("prelu", "relu"), **OPTIONS[name]})
    data, order = make_data(np.random.default_rng(3), network, rows, True), np.arange(rows)
    together = epoch(engine, network, data, order, batch_size, max_grad_norm=0.2)
    monkeypatch.setattr(settings, "BLOCKS_PER_PHASE", blocks[number])
    found = epoch(engine, network, data, order, batch_size, max_grad_norm=0.2)
    for ours, theirs in zip(found, together, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_schedules_differ_in_no_bit(engine, monkeypatch):
    network = make_network((6, 9, 30, 3), activations="gelu", dropout=(0.2, 0.2))
    data, found = make_data(np.random.default_rng(3), network, 9), []
    for name in ("rows", "layers", "rows"):
        monkeypatch.setattr(settings, "SCHEDULE", name)
        found.append(epoch(engine, network, data, np.arange(9), 4))
    for ours, theirs, again in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(ours, again)


@pytest.mark.parametrize("schedule", ["rows", "layers"])
def test_tiles_differ_in_no_bit(engine, monkeypatch, schedule):
    """Except for sums of squares and magnitudes of weights, which are added tile by tile for the penalised loss.

    In the simulator other tests have one group of threads, here there are several.
    """
    sizes = [CudaTile(size, 8, side=2, groups=4, quad=2) for size in (2, 8)]
    widths, rows, batch_size, tiles = ((5, 9, 3), 7, 4, sizes) if driver.simulated() else ((70, 300, 9), 700, 190, None)
    network = make_network(widths, activations="prelu", dropout=(0.2,), dtype=np.float32)
    data, found = make_data(np.random.default_rng(3), network, rows), []
    monkeypatch.setattr(settings, "SCHEDULE", schedule)
    for tile in tiles or settings.TILES:
        monkeypatch.setattr(settings, "SIMULATED", tile)
        monkeypatch.setattr(settings, "TILES", (tile,))
        found.append(epoch(engine, network, data, np.arange(rows), batch_size)[1:])
    expected = epoch(reference, network, data, np.arange(rows), batch_size)[1]
    assert_close(found[0][0], expected, terms=100, scale=1)
    for ours, *others in zip(*found, strict=True):
        for theirs in others:
            np.testing.assert_array_equal(ours, theirs)


#: A kernel for one product, in the module of the product.
KERNEL = """
@cuda.jit
def own_kernel(a, b, order, out, of_a, of_b, rows, columns, depth, ld):
    shared = cuda.shared.array(SHARED, REAL, alignment=16)
    NAME(shared, a, 0, of_a, ORDER b, 0, of_b, rows, columns, depth, 1, 0)
    i = cuda.threadIdx.x
    while i < (rows - 1) * columns:
        out[i] = shared[i // columns * ld + i % columns]
        i += THREADS
"""


@on_device
@pytest.mark.parametrize("size", [2, 8] if driver.simulated() else [16, 32, 64])
@pytest.mark.parametrize("name", ["product", "product_nt", "product_tn"])
def test_narrow_products_have_the_bits_of_others(engine, name, size):
    """Those of an output layer with few neurons, where a tile has other columns and slices."""
    tile = CudaTile(size, 8, side=2, quad=2) if driver.simulated() else CudaTile(size, 1024 // size)
    code, rng, cuda = module_of(False, tile), np.random.default_rng(0), driver.api()
    back = name == "product_nt"
    columns, depth = (size - 1, code.COLUMNS - 1) if back else (code.COLUMNS - 1, 3 * tile.depth + 1)
    A, B = (rng.standard_normal(shape).astype(np.float32) for shape in ((size, depth), (depth, columns)))
    a, b = A.T if name == "product_tn" else A, B.T if back else B

    def results(name, ld):
        exec(KERNEL.replace("NAME", name).replace("ORDER", "" if name == "narrow_nt" else "order, 0, 0,"), vars(code))
        out = cuda.to_device(np.full((size - 1) * columns, np.nan, np.float32))
        vectors = [cuda.to_device(x) for x in (a.flatten(), b.flatten(), np.zeros(1, np.int32))]
        code.own_kernel[1, code.THREADS](*vectors, out, a.shape[1], b.shape[1], size, columns, depth, ld)
        return out.copy_to_host().reshape(size - 1, columns)

    found = results(name.replace("product", "narrow"), code.LD if back else code.NARROW_LD)
    assert_close(found, A[1:].astype(np.float64) @ B, terms=depth, scale=4, dtype=np.float32)
    if size >= code.COLUMNS:
        np.testing.assert_array_equal(found, results(name, code.LD))


@pytest.mark.parametrize(("multiprocessors", "widths", "rows", "size"), [
    (132, (64, 128, 128, 10), 256, 16),
    (132, (1024, 1024, 1024, 10), 128, 32),
    (16, (1024, 1024, 1024, 10), 128, 64),
    (132, (4096, 4096, 4096, 10), 1024, 64),
])  # fmt: skip
def test_tiles_are_as_large_as_all_multiprocessors_have_work(monkeypatch, multiprocessors, widths, rows, size):
    monkeypatch.setattr(driver, "simulated", lambda: False)
    monkeypatch.setattr(driver, "multiprocessors", lambda: multiprocessors)
    assert cost.tile_of(widths, rows).size == size
    double = cost.tile_of(widths, rows, double=True)
    assert double.size == min(size, 32) and 8 * double.shared <= settings.SHARED_BYTES


@pytest.mark.parametrize("weighted", [False, True])
@by_dtype
def test_loss_and_grad(engine, weighted, dtype, monkeypatch):
    network = make_network((3, 5, 2), activations="prelu", dtype=dtype)
    rng = np.random.default_rng(0)
    data, params = make_data(rng, network, 7, weighted), make_params(rng, network)
    found = []
    for module, chunk in ((reference, None), (engine, 8192), (engine, 3)):
        if chunk:
            monkeypatch.setattr(settings, "CHUNK_ROWS", chunk)
        grad = np.empty_like(params)
        value = module.loss_and_grad(module.workspace(network, 7), params, data, 0.1, grad, l1=0.05)
        found.append(np.append(grad, value))
    for ours in found[1:]:
        assert_close(ours.astype(dtype), found[0].astype(dtype), terms=30, scale=1)


# ------------------------------------------------------------------------------- an epoch's conduct


def test_an_epoch_is_one_launch(engine, monkeypatch):
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 1e9)
    network = make_network((3, 4, 2), batch_norm=True)
    data, params = make_data(np.random.default_rng(3), network, 7), make_params(np.random.default_rng(0), network)
    optimizer = make_optimizer(np.random.default_rng(0), "adam", len(params), np.float64)
    workspace = engine.workspace(network, 2)
    for n_epochs in (1, 2):
        engine.train_epoch(workspace, params, data, np.arange(7), 2, 0.1, optimizer)
        assert workspace.launches == n_epochs


def test_an_epoch_in_many_launches(engine, monkeypatch):
    network = make_network((3, 4, 2), dropout=(0.3,))
    data = make_data(np.random.default_rng(3), network, 7)
    whole = epoch(engine, network, data, np.arange(7), 2, epochs=2)
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 0)
    for ours, theirs in zip(epoch(engine, network, data, np.arange(7), 2, epochs=2), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_interrupt_keeps_the_steps_done(engine, monkeypatch):
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 0)
    network = make_network((3, 4, 2))
    data = make_data(np.random.default_rng(3), network, 7)
    params = make_params(np.random.default_rng(0), network)
    optimizer = make_optimizer(np.random.default_rng(0), "adam", len(params), np.float64)
    expected, launch = [params.copy(), optimizer.copy()], training.Training._launch

    def interrupted(self, *args):
        launch(self, *args)
        if self.done == 1:  # while the second step is computed
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(training.Training, "_launch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.train_epoch(engine.workspace(network, 2), params, data, np.arange(7), 2, 0.1, optimizer)
    first_rows = np.arange(4)
    reference.train_epoch(reference.workspace(network, 2), expected[0], data, first_rows, 2, 0.1, expected[1])
    assert optimizer.t == expected[1].t == 5
    np.testing.assert_allclose(params, expected[0], rtol=1e-9)
    np.testing.assert_allclose(optimizer.states, expected[1].states, rtol=1e-9)


def test_weights_that_sum_to_zero(engine):
    network = make_network((3, 4, 2))
    data = make_data(np.random.default_rng(3), network, 6, True)
    data.sample_weight[:] = [1, 1, 0, 0, 1, 1]
    found = []
    for module in (engine, reference):
        params = make_params(np.random.default_rng(0), network)
        optimizer = make_optimizer(np.random.default_rng(0), "adam", len(params), np.float64)
        with pytest.raises(ZeroDivisionError, match="Weights sum to zero"):
            module.train_epoch(module.workspace(network, 2), params, data, np.arange(6), 2, 0.1, optimizer)
        found.append(np.append(params, optimizer.t))
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_rows_are_uploaded_once_and_parameters_when_they_changed(engine, monkeypatch):
    uploads = []
    memory = importlib.import_module("fastmlp.kernels.numba_cuda.memory")
    original = memory.vector
    monkeypatch.setattr(memory, "vector", lambda array, *args: uploads.append(array) or original(array, *args))
    network = make_network((3, 4, 2))
    data, workspace = make_data(np.random.default_rng(3), network, 6, True), engine.workspace(network, 3)
    params, theirs = (make_params(np.random.default_rng(0), network) for _ in range(2))
    optimizer = make_optimizer(np.random.default_rng(0), "adam", len(params), np.float64)
    other, judge = optimizer.copy(), reference.workspace(network, 3)
    for number in range(3):
        engine.train_epoch(workspace, params, data, np.arange(6), 3, 0.1, optimizer)
        reference.train_epoch(judge, theirs, data, np.arange(6), 3, 0.1, other)
        assert len(uploads) == 3
        np.testing.assert_allclose(params, theirs, rtol=1e-9)
        if number == 1:  # as a callback may
            params[:], theirs[:] = 0.1, 0.1
            optimizer.states[1][:] = other.states[1][:] = 0.2
    params[:] = theirs
    data = make_data(np.random.default_rng(4), network, 5)
    engine.train_epoch(workspace, params, data, np.arange(5), 3, 0.1, optimizer)
    reference.train_epoch(judge, theirs, data, np.arange(5), 3, 0.1, other)
    np.testing.assert_allclose(params, theirs, rtol=1e-9)


def test_one_workspace_trains_by_one_rule_after_another(engine):
    network = make_network((3, 4, 2))
    data, shared = make_data(np.random.default_rng(0), network, 5), engine.workspace(network, 3)
    for rule in ("adam", "sgd", "amsgrad"):
        results = []
        for workspace in (shared, engine.workspace(network, 3)):
            rng = np.random.default_rng(0)
            params, optimizer = make_params(rng, network), make_optimizer(rng, rule, network.n_params, np.float64)
            engine.train_epoch(workspace, params, data, np.arange(5), 3, 0.1, optimizer)
            results.append(params)
        np.testing.assert_array_equal(*results)


# ------------------------------------------------------------------------------- predictions


def predicted(module, network, X, rows=None):
    params = make_params(np.random.default_rng(7), network)
    n = X.shape[0] if rows is None else len(rows)
    out = np.full((n, network.widths[-1]), np.nan, network.dtype)
    return module.predict(module.workspace(network, 4), params, X, out, rows), out


@pytest.mark.parametrize("kind", LAYOUTS)
@by_dtype
def test_predict(engine, kind, dtype):
    network = make_network((5, 4, 3), activations="prelu", dtype=dtype)
    X = make_data(np.random.default_rng(0), network, 7, kind=kind).X
    for rows in (None, np.array([6, 0, 0, 3])):
        (finite, out), (_, expected) = (predicted(module, network, X, rows) for module in (engine, reference))
        assert finite
        assert_close(out, expected, terms=10, scale=1)


@pytest.mark.parametrize("loss", LOSSES)
def test_predict_with_each_link(engine, loss):
    network = make_network((3, 4, 3), loss=loss, dropout=(0.5,), input_dropout=0.5)
    X = np.random.default_rng(0).normal(size=(5, 3))
    assert_close(predicted(engine, network, X)[1], predicted(reference, network, X)[1], terms=10, scale=3)


@pytest.mark.parametrize("kind", ["C", "csr int32"])
def test_predict_in_blocks(engine, monkeypatch, kind):
    network = make_network((5, 4, 3))
    X = make_data(np.random.default_rng(0), network, 11, kind=kind).X
    whole = predicted(engine, network, X)[1]
    monkeypatch.setattr(settings, "PREDICT_ROWS", 3)
    np.testing.assert_array_equal(predicted(engine, network, X)[1], whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array])
def test_predict_tells_whether_rows_are_finite(engine, bad, kind):
    network = make_network((3, 4, 2))
    X = np.ones((7, 3))
    X[5, 1] = bad
    assert not predicted(engine, network, kind(X))[0]
    assert predicted(engine, network, kind(X), np.array([0, 6, 4]))[0]


def test_no_rows(engine):
    network = make_network((3, 4, 2))
    assert predicted(engine, network, np.empty((0, 3)))[1].shape == (0, 2)


def test_arrays_on_the_device(engine):
    """Nothing is copied to train on them, or to predict into them."""
    cuda = driver.api()
    network = make_network((3, 4, 2))
    data, order = make_data(np.random.default_rng(3), network, 7, True), np.arange(7)
    there = Data(*map(cuda.to_device, data))
    for ours, theirs in zip(*(epoch(engine, network, d, order, 3) for d in (there, data)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    out, rows = cuda.to_device(np.zeros((3, 2))), np.array([6, 0, 2])
    params = make_params(np.random.default_rng(7), network)
    assert engine.predict(engine.workspace(network, 3), params, there.X, out, rows)
    np.testing.assert_array_equal(out.copy_to_host(), predicted(engine, network, data.X, rows)[1])
    with pytest.raises(ValueError, match="must have the network's dtype float64, got float32"):
        engine.predict(engine.workspace(network, 3), params, cuda.to_device(data.X.astype(np.float32)), out)


def test_memory_that_does_not_suffice_is_halved_and_then_named(engine, monkeypatch):
    network, asked, room, original = make_network((3, 4, 2)), [], [4], driver.allocate

    def allocate(shape, dtype, purpose):
        asked.append(purpose)
        if purpose.startswith("the activations") and int(purpose.split()[-2]) > room[0]:
            raise MemoryError(f"the device has no room for {purpose}")
        return original(shape, dtype, purpose)

    monkeypatch.setattr(driver, "allocate", allocate)
    monkeypatch.setattr(settings, "FEWEST_ROWS", 2)
    X = np.random.default_rng(0).normal(size=(9, 3))
    assert_close(predicted(engine, network, X)[1], predicted(reference, network, X)[1], terms=10, scale=1)
    assert "the activations of 4 rows" in asked
    room[0] = 1
    with pytest.raises(MemoryError, match="no room for the activations of 2 rows"):
        predicted(engine, network, X)


# ------------------------------------------------------------------------------- whole fits

FITS = {
    "plain": {},
    "two layers": {"activation": "tanh", "hidden_layer_sizes": (5, 4)},
    "users' formula": {"activation": swish},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05},
    "lbfgs": {"solver": "lbfgs"},
    "everything": {"batch_norm": True, "dropout": 0.2, "activation": "prelu", "solver": "nadam", "max_grad_norm": 0.5},
    "early stopping": {"early_stopping": True},
}


@on_device
@pytest.mark.skipif("cython" not in backends.available(), reason="needs the Cython engine")
@pytest.mark.parametrize("name", FITS)
def test_whole_fit_ends_in_the_same_weights(engine, name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3))
    y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int) + (X[:, 2] > 0.3)
    arguments = {"hidden_layer_sizes": (5,), "max_iter": 3, "batch_size": 16, "random_state": 3, **FITS[name]}
    fits = [fastmlp.MLPClassifier(**arguments, backend=backend).fit(X, y) for backend in ("cuda", "cython")]
    for ours, theirs in zip(*(fit.coefs_ + fit.intercepts_ for fit in fits), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fits[0].loss_, fits[1].loss_, rtol=1e-6)
    np.testing.assert_array_equal(fits[0].predict(X), fits[1].predict(X))


# ------------------------------------------------------------------------------- misuse


def test_signatures_are_those_of_the_reference(engine):
    for name in backends.CONTRACT:
        ours, theirs = (
            [(p.name, p.kind, p.default) for p in inspect.signature(getattr(module, name)).parameters.values()]
            for module in (engine, reference)
        )
        assert ours == theirs, name


def test_a_workspace_serves_one_caller_at_a_time(engine):
    network = make_network((3, 2))
    workspace = engine.workspace(network, 5)
    workspace.lock.acquire()
    with pytest.raises(RuntimeError, match="another caller"):
        engine.predict(workspace, np.zeros(network.n_params), np.zeros((5, 3)), np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"order": np.array([0, 7])}, r"order must lie in \[0, 5\)"),
        ({"order": np.array([-1])}, r"order must lie in \[0, 5\)"),
        ({"order": np.array([], np.intp)}, "order must hold at least one row"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"y": np.array([0, 1, 2, 0, 1])}, r"y must lie in \[0, 2\)"),
        ({"X": np.zeros((5, 4))}, "X must have 3 columns"),
        ({"X": np.zeros((5, 3), int)}, "X must have dtype float32 or float64"),
        ({"sample_weight": np.ones(4)}, "sample_weight must have shape"),
        ({"params": np.zeros(3)}, "params must have shape"),
        ({"seed": -1}, "seed must lie in"),
    ],
)
def test_misuse_is_refused(engine, changed, message):
    network = make_network((3, 2))
    values = {"X": np.zeros((5, 3)), "y": np.zeros(5, np.intp), "sample_weight": None, "order": np.arange(5)}
    values |= {"batch_size": 2, "params": np.zeros(network.n_params), "seed": 0, **changed}
    optimizer = make_optimizer(np.random.default_rng(0), "sgd", network.n_params, np.float64)
    data = Data(values["X"], values["y"], values["sample_weight"])
    with pytest.raises(ValueError, match=message):
        engine.train_epoch(
            engine.workspace(network, 2), values["params"], data, values["order"], values["batch_size"], 0.1, optimizer,
            seed=values["seed"],
        )  # fmt: skip


def test_a_broken_sparse_matrix_is_refused(engine):
    X = sp.csr_array(np.eye(3))
    X.indices[1] = 9
    with pytest.raises(ValueError, match=r"X.indices must lie in \[0, 3\)"):
        predicted(engine, make_network((3, 2)), X)


def test_networks_that_calls_refuse(engine):
    network = Network((3, 4, 2), ("relu",), "log_loss", np.dtype("f8"), batch_norm=True)
    workspace = engine.workspace(network, 2)
    with pytest.raises(ValueError, match="must not have batch_norm"):
        engine.predict(workspace, np.zeros(network.n_params), np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="neither dropout nor batch_norm"):
        engine.loss_and_grad(workspace, np.zeros(network.n_params), None, 0.1, np.zeros(network.n_params))
