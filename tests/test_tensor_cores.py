"""Products on tensor cores, matmul_precision below "highest" of the CUDA engine: fragments, errors, edges.

The judge of the emulated instruction is its definition in PTX ISA, in exact fractions; of products NumPy in float64,
relative to |A| |B|; of networks the reference in float64.  In the simulator two warps are 64 of Python's threads, so
sizes are small.  What a compiler makes of the instructions is in test_cuda_code.py.
"""

import sys
from contextlib import nullcontext
from fractions import Fraction

import numpy as np
import pytest

from fastmlp.bench.products import PRODUCTS
from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.kernels import codegen, reference
from fastmlp.kernels.numba_cuda import cost, driver, emulation, settings

from helpers import make_data, make_network, make_optimizer, make_params, steady_simulator

USABLE = "cuda" in backends.available()
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
BELOW = "high", "medium"
#: Largest error of a product, relative to |A| |B|: three products leave out small * small and what small has too many
#: bits of, 3 * 2^-22, and sums of eight are cut off; one product rounds both factors to 11 bits.
BOUNDS = {"highest": 2.0**-21, "high": 2.0**-19, "medium": 2.0**-9}
RNG = np.random.default_rng


@pytest.fixture(scope="module")
def engine():
    if not USABLE:
        pytest.skip(backends.why_not("cuda"))
    with steady_simulator() if driver.simulated() else nullcontext():
        if driver.simulated():
            sys.setswitchinterval(1e-3)  # each of 64 threads does a little between barriers: a third of the time
        before, settings.TENSOR_CORES = settings.TENSOR_CORES, True
        yield backends.get("cuda")
        settings.TENSOR_CORES = before


# --- the emulated instructions ----------------------------------------------------------------------------------------


def rounded(x):
    """The TF32 number next to x, in fractions; of two the one farther from 0."""
    x = Fraction(float(x))
    exponent = max(int(np.frexp(float(x))[1]) - 1, -126)
    unit = Fraction(2) ** (exponent - 10)
    return (abs(x) / unit + Fraction(1, 2)).__floor__() * unit * (1 if x > 0 else -1)


def test_rounding_is_to_nearest_and_away_from_zero():
    bits = RNG(0).integers(0, 2**32, 300, dtype=np.uint32)
    bits = np.concatenate([bits, bits & 0xFFFFF000, bits & 0xFFFFE000 | 0xFFF, bits & 0x80FFFFFF])
    numbers = [x for x in bits.view(np.float32) if abs(x) < 3e38]  # also ties, their neighbours, and tiny ones
    assert len(numbers) > 1000
    for x in numbers:
        assert Fraction(float(emulation.tf32_(x))) == rounded(x)
    assert emulation.tf32_(3.4028e38) == np.inf and np.isnan(emulation.tf32_(np.nan))
    assert [emulation.tf32_(x) for x in (0.0, np.inf, -np.inf)] == [0.0, np.inf, -np.inf]


def test_lanes_hold_what_the_manual_says():
    """PTX ISA, matrix fragments for mma.m16n8k8 with .tf32, sentence by sentence; small integers are exact."""
    A, B, C = (RNG(1).integers(-9, 10, shape) for shape in ((16, 8), (8, 8), (16, 8)))
    operands, D = np.empty((32, 10), np.float32), A @ B + C
    for lane in range(32):
        group, thread = lane >> 2, lane % 4
        for i in range(4):
            operands[lane, i] = A[group if i in (0, 2) else group + 8, thread if i in (0, 1) else thread + 4]
            operands[lane, 6 + i] = C[group if i < 2 else group + 8, thread * 2 + (i & 1)]
        for i in range(2):
            operands[lane, 4 + i] = B[thread if i == 0 else thread + 4, group]
    found = emulation.multiplied(operands)
    for lane, i in np.ndindex(32, 4):
        assert found[lane, i] == D[lane // 4 + (8 if i >= 2 else 0), lane % 4 * 2 + i % 2]


def test_the_instruction_reads_19_bits_of_a_factor():
    operands = np.ones((32, 10), np.float32)
    operands[:, :6] += np.float32(2.0**-11)
    assert (emulation.multiplied(operands) == 9).all()


def test_sums_are_cut_off():
    one, below = 1.0, 2.0**-24
    terms = np.array([[one, below, below], [-one, -below, -below], [one, -below, 0], [2.0**-140, 0, 0]])
    np.testing.assert_array_equal(emulation.summed(terms.T), [1, -1, 1, 2.0**-140])
    terms = RNG(2).standard_normal((9, 1000))
    error = emulation.summed(terms) - terms.sum(axis=0)
    assert 2.0**-24 < np.abs(error).max() < 9 * 2.0**-23 * np.abs(terms).max()
    assert np.abs(emulation.summed(np.abs(terms))).sum() < np.abs(terms).sum()  # always towards zero


# --- products ---------------------------------------------------------------------------------------------------------

each_product = pytest.mark.parametrize("name", PRODUCTS)
each_precision = pytest.mark.parametrize("precision", BELOW)
#: (M, K, N): results (M, N), sums of K terms.
SHAPES = [(1, 1, 1), (17, 9, 18), (3, 37, 5)]
if USABLE and not driver.simulated():
    SHAPES += [(64, 64, 64), (65, 1000, 129), (300, 257, 70)]


def factors(name, M, K, N, seed=0):
    """Random A and B of different magnitudes, without zeros."""
    rng = RNG(seed)
    A = rng.standard_normal((K, M) if name == "weight gradient" else (M, K)) * rng.choice([1, 1e-3, 30], (1, 1))
    return A.astype(np.float32), rng.standard_normal((N, K) if name == "input delta" else (K, N)).astype(np.float32)


@each_product
@each_precision
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(engine, name, precision, shape):
    A, B = factors(name, *shape)
    row = PRODUCTS[name]
    assert row.relative_error(row.compute(engine, A, B, precision), A, B).max() <= BOUNDS[precision]


@each_product
def test_the_precisions_differ(engine, name):
    """The bounds are not met by other arithmetic."""
    A, B = factors(name, 17, 20, 3)
    row = PRODUCTS[name]
    found = {p: row.compute(engine, A, B, p) for p in BOUNDS}
    errors = {p: row.relative_error(product, A, B).max() for p, product in found.items()}
    assert errors["medium"] > 2.0**-13 and errors["high"] < 2.0**-19
    assert (found["high"] != found["highest"]).any()


def test_sums_of_many_terms_are_rounded(engine):
    """What tensor cores cut off would add up, if they added more than eight terms of positive numbers."""
    A, B = (np.abs(x) for x in factors("forward", 3, 400, 3))  # cut off one by one: 2^-18 and more
    row = PRODUCTS["forward"]
    assert row.relative_error(row.compute(engine, A, B, "high"), A, B).max() < 2.0**-20.5


LARGEST = 3.4028e38  # TF32 makes an infinity of it


@each_precision
@pytest.mark.parametrize("bad", [np.nan, -np.inf, LARGEST])
@pytest.mark.parametrize("name", ["forward", "weight gradient"])
def test_numbers_that_are_not_finite(engine, name, precision, bad):
    """A result that is not finite on tensor cores has the bits of float32; the others are as without the number."""
    A, B = factors(name, 18, 11, 3)
    B[7], compute = [0.5, -0.25, 0.0], PRODUCTS[name].compute
    clean = compute(engine, A, B, precision)
    A[(5, 7) if name == "forward" else (7, 5)] = bad
    found, expected = (compute(engine, A, B, p) for p in (precision, "highest"))
    np.testing.assert_array_equal(found[5], expected[5])
    np.testing.assert_array_equal(np.delete(found, 5, axis=0), np.delete(clean, 5, axis=0))
    assert np.isfinite(expected[5]).all() == (bad == LARGEST) and np.isnan(expected[5]).any() == (bad != LARGEST)


@each_precision
def test_the_largest_numbers_go_through_an_input_delta(engine, precision):
    delta, W = factors("input delta", 18, 17, 3)
    delta[5, 7], W[:, 7] = LARGEST, [0.5, -0.25, 0.0]
    found, expected = (PRODUCTS["input delta"].compute(engine, delta, W, p) for p in (precision, "highest"))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[5], expected[5], rtol=BOUNDS[precision])


@each_precision
def test_tiles_and_groups_differ_in_no_bit(engine, monkeypatch, precision):
    """Of tiles of one size, what a lane has of a product depends on the size; sums over groups do not."""
    tiles = [codegen.CudaTile(size, 16, groups=2) for size in (16, 32)] if driver.simulated() else settings.TILES
    A, B = factors("forward", *((20, 37, 35) if driver.simulated() else (200, 300, 129)))
    found = []
    for tile in tiles:
        monkeypatch.setattr(settings, "SIMULATED_WARPS", tile)
        monkeypatch.setattr(settings, "TILES", (tile,))
        found.append(PRODUCTS["forward"].compute(engine, A, B, precision))
    assert PRODUCTS["forward"].relative_error(found[0], A, B).max() <= BOUNDS[precision]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


# --- networks ---------------------------------------------------------------------------------------------------------


def small_network(precision, widths=(9, 20, 18), **options):
    return make_network(widths, **{"activations": "tanh", **options}, dtype=np.float32).with_precision(precision)


@each_precision
def test_gradients(engine, precision):
    """Along a direction: the loss of the reference in float64, a little to both sides."""
    network, rng = small_network(precision), RNG(0)
    data, params, grad = make_data(rng, network, 19), make_params(rng, network), np.zeros(network.n_params, np.float32)
    value = engine.loss_and_grad(engine.workspace(network, 19), params, data, 0.1, grad)
    exact, direction, h = network.with_dtype(np.float64), rng.standard_normal(network.n_params), 1e-5
    there = Data(data.X.astype(np.float64), data.y, data.sample_weight)

    def loss(p):
        return reference.loss_and_grad(reference.workspace(exact, 19), p, there, 0.1, np.zeros_like(p))

    start = params.astype(np.float64)
    slope = (loss(start + h * direction) - loss(start - h * direction)) / (2 * h)
    scale = np.abs(grad * direction).sum()
    assert abs(value - loss(start)) <= 20 * BOUNDS[precision] * value
    assert abs(grad.astype(np.float64) @ direction - slope) <= 4 * BOUNDS[precision] * scale


def trained(module, network, data, batch_size, **options):
    """What an epoch adds to the parameters."""
    rng = RNG(7)
    params, start = (make_params(RNG(7), network) for _ in range(2))
    optimizer = make_optimizer(rng, "sgd", network.n_params, network.dtype)
    module.train_epoch(
        module.workspace(network, batch_size), params, data, np.arange(data.X.shape[0]), batch_size, 0.1, optimizer,
        seed=5, **options,
    )  # fmt: skip
    return params - start


CASES = {
    "batch norm, dropout": ({"batch_norm": True, "dropout": (0.3,)}, "C", "layers"),
    "input dropout, sparse": ({"input_dropout": 0.2}, "csr int32", "rows"),
}


@pytest.mark.parametrize("name", CASES)
def test_epochs(engine, monkeypatch, name):
    options, kind, schedule = CASES[name]
    monkeypatch.setattr(settings, "SCHEDULE", schedule)
    network = small_network("high", **options)
    data = make_data(RNG(3), network, 21, True, kind)
    found, expected = (trained(module, network, data, 19) for module in (engine, reference))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("n_outputs", [17, 3], ids=["wide output", "narrow output"])
def test_schedules_and_blocks_differ_in_no_bit(engine, monkeypatch, n_outputs):
    network = small_network("high", widths=(9, 20, n_outputs))
    data, found = make_data(RNG(3), network, 20), []
    for schedule, blocks in (("rows", None), ("layers", None), ("layers", 2)):
        monkeypatch.setattr(settings, "SCHEDULE", schedule)
        monkeypatch.setattr(settings, "BLOCKS_PER_PHASE", blocks)
        found.append(trained(engine, network, data, 20))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


# --- where there are no tensor cores, or they are not asked for -------------------------------------------------------


def test_without_tensor_cores_all_is_float32(engine, monkeypatch):
    monkeypatch.setattr(driver, "tensor_cores", lambda: False)
    A, B = factors("forward", 5, 7, 3)
    found = [PRODUCTS["forward"].compute(engine, A, B, p) for p in ("highest", *BELOW)]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize(("package", "capability", "expected"), [
    ("numba_cuda", (7, 5), False), ("numba_cuda", (8, 0), True), ("numba_cuda", (12, 0), True),
    ("numba_cuda_mlir", (9, 0), False), (None, (9, 0), False),
])  # fmt: skip
def test_tensor_cores_need_a_device_and_a_package(monkeypatch, package, capability, expected):
    class Api:
        def get_current_device(self):
            return type("Device", (), {"compute_capability": capability})

    monkeypatch.setattr(driver, "simulated", lambda: False)
    monkeypatch.setattr(driver, "package", lambda: package)
    monkeypatch.setattr(driver, "api", Api)
    assert driver.tensor_cores() == expected


@pytest.mark.parametrize(("widths", "rows", "precision", "expected"), [
    ((64, 128, 128, 10), 256, "highest", ("highest", 16)),
    ((64, 128, 128, 10), 256, "high", ("high", 16)),  # one block would be faster
    ((784, 100, 10), 200, "high", ("highest", 16)),
    ((1024, 1024, 1024, 10), 128, "high", ("high", 32)),
    ((1024, 1024, 1024, 10), 128, "medium", ("medium", 32)),
    ((4096, 4096, 4096, 10), 1024, "high", ("high", 64)),
])  # fmt: skip
def test_tensor_cores_are_used_if_they_promise_to_be_faster(monkeypatch, widths, rows, precision, expected):
    monkeypatch.setattr(driver, "simulated", lambda: False)
    monkeypatch.setattr(driver, "multiprocessors", lambda: 132)
    monkeypatch.setattr(driver, "shared_bytes", lambda: 227 * 1024)
    monkeypatch.setattr(settings, "TENSOR_CORES", False)
    tile = cost.tile_of(widths, rows, precision=precision)
    assert (tile.precision, tile.size) == expected and 4 * tile.shared <= settings.SHARED_BYTES
    monkeypatch.setattr(settings, "TENSOR_CORES", True)
    assert cost.tile_of(widths, rows, precision=precision).precision == precision
