"""Products by matrix units: emulated in C on every machine, compared with the processor's own where it has them.

The judge of a product is NumPy in float64, relative to |A| |B|.  The judge of the emulated instructions is their
definition, in exact fractions.  Whole networks are judged by the same engine with "highest", which
other tests compare with the reference.
"""

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given
from hypothesis import strategies as st
from test_engine_options import OPTIONS, train

from fastmlp.bench import products
from fastmlp.bench.products import BOUNDS
from fastmlp.engines import environment
from fastmlp.engines.backends import Data
from fastmlp.kernels import _engine, reference
from fastmlp.model.network import MATMUL_PRECISIONS

from helpers import make_data, make_network, make_optimizer, make_params, seeds
from instruction_sets import WITH_UNITS, with_own_kernels
from tabular_networks import large_case, make_plans

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TILES, PAIRS = "amx", "avx512bf16"
#: Where an emulation is used: for every product, or for those that real units would compute.
ALWAYS, AS_REAL = "-emulated-always", "-emulated"
EMULATIONS = [kind + where for kind in WITH_UNITS for where in (ALWAYS, AS_REAL)]
FLOAT32 = np.dtype(np.float32)
BELOW = MATMUL_PRECISIONS[1:]
#: What numbers below the smallest normal one may add to a product's error per term.
TINY = 2.0**-124


@pytest.fixture(autouse=True)
def units(request):
    """Everything that may go through matrix units goes there; AMX's, unless the test names others."""
    before, kind = _engine.isa(), getattr(request, "param", TILES)
    _engine.use_isa(kind + ALWAYS)
    yield kind
    _engine.use_isa(before)


# --- single products --------------------------------------------------------------------------------------------------


PRODUCTS = {name: (partial(row.compute, _engine), row.exact) for name, row in products.PRODUCTS.items()}
forward, weight_gradient = (PRODUCTS[name][0] for name in ("forward", "weight gradient"))
each_product = pytest.mark.parametrize("name", PRODUCTS)
each_kind = pytest.mark.parametrize("units", WITH_UNITS, indirect=True)
each_precision = pytest.mark.parametrize(
    "units, precision", [(TILES, "high"), (TILES, "medium"), (PAIRS, "medium")], indirect=["units"]
)


def factors(rng, name, M, K, N):
    """Return random A and B, whose product is (M, N) with sums of K terms."""
    A = rng.standard_normal((K, M) if name == "weight gradient" else (M, K)).astype(FLOAT32)
    B = rng.standard_normal((N, K) if name == "input delta" else (K, N)).astype(FLOAT32)
    return A * rng.choice([1, 1e-3, 30], A.shape).astype(FLOAT32), B


def check_product(name, A, B, precision, n_jobs=1):
    product, exact = PRODUCTS[name]
    found = product(A, B, precision, n_jobs)
    A, B = A.astype(np.float64), B.astype(np.float64)
    bound = BOUNDS[precision] * exact(abs(A), abs(B)) + TINY * (A.size + 1)
    assert (abs(found - exact(A, B)) <= bound).all()
    return found


sizes = st.integers(1, 70)


@each_product
@each_precision
@given(M=sizes, K=sizes, N=sizes, n_jobs=st.sampled_from([1, 2]), seed=seeds)
@example(M=1, K=1, N=1, n_jobs=1, seed=0)
@example(M=16, K=32, N=16, n_jobs=1, seed=0)
@example(M=17, K=33, N=17, n_jobs=2, seed=0)
@example(M=145, K=7, N=5, n_jobs=1, seed=0)  # more rows than a block has
@example(M=5, K=1060, N=3, n_jobs=1, seed=0)  # deeper than a block
@example(M=3, K=300, N=300, n_jobs=2, seed=0)  # padded by more than a tile; a batch of two chunks
def test_products(name, precision, M, K, N, n_jobs, seed):
    A, B = factors(np.random.default_rng(seed), name, M, K, N)
    check_product(name, A, B, precision, n_jobs)


@each_product
def test_the_precisions_differ(name):
    """The bounds above are not met by other arithmetic: each precision has the error that it should have."""
    A, B = factors(np.random.default_rng(0), name, 40, 64, 40)
    exact = PRODUCTS[name][1](A.astype(np.float64), B.astype(np.float64))
    scale = PRODUCTS[name][1](abs(A).astype(np.float64), abs(B).astype(np.float64))
    errors = {p: (abs(check_product(name, A, B, p) - exact) / scale).max() for p in MATMUL_PRECISIONS}
    assert errors["highest"] < 2**-21 < errors["high"] < 2**-15 < errors["medium"] < 2**-7
    assert errors["high"] > 2**-20 and errors["medium"] > 2**-12
    _engine.use_isa(PAIRS + ALWAYS)
    found = {p: check_product(name, A, B, p) for p in MATMUL_PRECISIONS}
    np.testing.assert_array_equal(found["high"], found["highest"])
    assert 2**-12 < (abs(found["medium"] - exact) / scale).max() < 2**-7


@each_product
@each_precision
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38])
def test_numbers_that_are_not_finite(name, precision, bad):
    """A row of the product that meets such a number has the bits of float32; the others are as without it."""
    rng = np.random.default_rng(1)
    A, B = factors(rng, name, 21, 40, 19)
    clean = PRODUCTS[name][0](A, B, precision)
    row = (5, 7) if name != "weight gradient" else (7, 5)
    A[row] = bad
    found, expected = (PRODUCTS[name][0](A, B, p) for p in (precision, "highest"))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(np.delete(found, 5, axis=0), np.delete(clean, 5, axis=0))
    if not np.isfinite(found[5]).all():
        np.testing.assert_array_equal(found[5], expected[5])
    else:
        np.testing.assert_allclose(found[5], expected[5], rtol=BOUNDS[precision] * 50)


@each_product
@each_precision
@pytest.mark.parametrize("bad", [np.nan, np.inf, 3.4e38])
def test_matrices_that_are_not_finite(name, precision, bad):
    A, B = factors(np.random.default_rng(1), name, 21, 40, 19)
    B[3, 4] = bad
    found, expected = (PRODUCTS[name][0](A, B, p) for p in (precision, "highest"))
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_array_equal(found[~np.isfinite(found)], expected[~np.isfinite(found)])


@each_precision
def test_the_second_chunk_of_a_batch_is_computed_again(precision):
    """The sums of the first chunk are not lost where a half of the second one is infinite, and its product is not."""
    X, delta = factors(np.random.default_rng(2), "weight gradient", 20, 600, 18)
    X[500, 3], delta[500] = 3.4e38, delta[500] * FLOAT32.type(1e-38)
    found, expected = (weight_gradient(X, delta, p) for p in (precision, "highest"))
    assert np.isfinite(expected).all()
    scale = abs(X.T.astype(np.float64)) @ abs(delta.astype(np.float64))
    assert (abs(found - expected) <= (BOUNDS[precision] + BOUNDS["highest"]) * scale).all()
    clean = np.delete(X, 3, axis=1)
    np.testing.assert_array_equal(np.delete(found, 3, axis=0), weight_gradient(clean, delta, precision))


@each_product
@each_precision
@given(exponents=st.tuples(st.integers(-149, 127), st.integers(-149, 127)), seed=seeds)
def test_numbers_of_any_size(name, precision, exponents, seed):
    A, B = factors(np.random.default_rng(seed), name, 5, 9, 6)
    A, B = (np.clip(M, -1, 1) * FLOAT32.type(2.0**e) for M, e in zip((A, B), exponents, strict=True))
    product, exact = PRODUCTS[name]
    found = product(A.astype(FLOAT32), B.astype(FLOAT32), precision)
    A, B = A.astype(np.float64), B.astype(np.float64)
    # halves below 2^-126 count as 0, and so do sums
    lost = 2.0**-126 * (exact(abs(A), np.ones_like(B)) + exact(np.ones_like(A), abs(B)) + 64)
    true = exact(A, B)
    inside = exact(abs(A), abs(B)) < 1e38  # no sum overflows, in any order: those of "highest" would, too
    bound = BOUNDS[precision] * exact(abs(A), abs(B)) + 2 * lost
    assert (abs(found - true) <= bound)[inside].all()


# --- the emulated instructions ----------------------------------------------------------------------------------------


def to_float32(x):
    """Return a fraction rounded to 24 bits, to nearest even, as a fraction: 0 below 2^-126, None above the largest."""
    if x == 0:
        return Fraction(0)
    exponent = abs(x).numerator.bit_length() - abs(x).denominator.bit_length()
    exponent -= abs(x) < Fraction(2) ** exponent
    unit = Fraction(2) ** (exponent - 23)
    rounded = round(x / unit) * unit  # Python rounds halves to even
    if abs(rounded) < Fraction(2) ** -126:
        return Fraction(0)
    return rounded if abs(rounded) < Fraction(2) ** 128 else None


def to_bf16(x):
    """Return a float32 rounded to bfloat16 as a fraction; 0 if that is denormal, None if it is infinite."""
    bits = int(np.float32(x).view(np.uint32))
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    if rounded & 0x7F800000 == 0x7F800000:
        return None
    return Fraction(float(np.uint32(rounded).view(np.float32))) if rounded & 0x7F800000 else Fraction(0)


def dot_of_a_tile(a, b):
    """Return the sum of up to 32 products as TDPBF16PS defines it: even and odd ones apart; None if it overflows."""
    sums = [Fraction(0), Fraction(0)]
    for k, (x, y) in enumerate(zip(map(to_bf16, a), map(to_bf16, b), strict=True)):
        if x is None or y is None or sums[k % 2] is None:
            return None
        sums[k % 2] = to_float32(sums[k % 2] + x * y)
    return None if None in sums else to_float32(sums[0] + sums[1])


def dot_of_pairs(a, b):
    """Return the sum of up to 32 products as VDPBF16PS defines it: of a pair the second one first; None: it overflows.

    VCVTNE2PS2BF16 made the bfloat16; it takes denormal numbers as 0, also those that would round to a normal one.
    """
    a, b = (np.where(abs(side) < np.finfo(FLOAT32).tiny, 0, side) for side in (a, b))
    factors_ = zip(map(to_bf16, a), map(to_bf16, b), strict=True)
    products = [None if None in pair else pair[0] * pair[1] for pair in factors_]
    total = Fraction(0)
    for k in range(0, len(products), 2):
        for product in reversed(products[k : k + 2]):
            if product is None or total is None:
                return None
            total = to_float32(total + product)
    return total


ANY_FLOAT32 = st.integers(0, 2**32 - 1).map(lambda bits: float(np.uint32(bits).view(np.float32)))
SMALL = st.sampled_from([1.1754944e-38, -1e-38, 3.0e-39])
NUMBERS = ANY_FLOAT32.filter(np.isfinite) | st.floats(-2, 2, width=32) | SMALL


@pytest.mark.parametrize("units, defined", [(TILES, dot_of_a_tile), (PAIRS, dot_of_pairs)], indirect=["units"])
@given(pairs=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=32))
@example(pairs=[(2.0**-63, 2.0**-63 * (1 - 2.0**-8)), (2.0**-64, 2.0**-70)])  # rounds up to the smallest normal number
@example(pairs=[(1.5 * 2.0**-126, 1.0), (1.0, 1.0), (-(2.0**-126), 1.0)])  # cancels to a denormal one
@example(pairs=[(1.1754942e-38, 1.0)])  # denormal, but a normal bfloat16 is nearest
@example(pairs=[(2.0**-64, 2.0**-63), (2.0**-64, 2.0**-63)])  # the first sum of a pair is denormal, both are not
@example(pairs=[(1.0, 1.0), (2.0**-12, 2.0**-12), (1.0, -1.0), (2.0**-12, 2.0**-12)])  # the order decides what is lost
def test_the_emulations_are_as_defined(defined, pairs):
    a, b = (np.array(side, FLOAT32) for side in zip(*pairs, strict=True))
    expected = defined(a, b)
    if expected is not None:
        assert Fraction(float(forward(a[None], b[:, None], "medium")[0, 0])) == expected


@each_precision
def test_the_processor_computes_the_bits_of_the_emulation(units, precision):
    """On a machine with matrix units; elsewhere both sides are the emulation."""
    emulated = units + AS_REAL
    real = units if units in _engine.isas() else emulated
    for name, (M, K, N) in [(name, shape) for name in PRODUCTS for shape in ((150, 130, 90), (128, 1100, 64))]:
        rng = np.random.default_rng(3)
        A, B = factors(rng, name, M, K, N)
        A, B = (F * np.exp2(rng.integers(-75, 40, F.shape)).astype(FLOAT32) for F in (A, B))  # some sums are denormal
        rows = A.T if name == "weight gradient" else A
        rows[9], rows[9, 3] = 0, 1.1754942e-38  # denormal, but a normal bfloat16 is nearest
        found = []
        for isa in (emulated, real):
            _engine.use_isa(isa)
            found.append(PRODUCTS[name][0](A, B, precision))
        np.testing.assert_array_equal(*found)
    network, params, data = large_network(precision)
    bits = []
    for isa in (emulated, real):
        _engine.use_isa(isa)
        bits.append(trained(network, params, data)[1].tobytes())
    assert bits[0] == bits[1]


# --- networks ---------------------------------------------------------------------------------------------------------


def large_network(precision):
    network = make_network((80, 130, 75, 3), "log_loss", ("tanh", "relu"), FLOAT32, matmul_precision=precision)
    rng = np.random.default_rng(0)
    return network, make_params(rng, network, 0.7), make_data(rng, network, 300)


def trained(network, params, data, batch=128, n_jobs=1, rule="adam", epochs=1):
    """Return the loss and the parameters after some epochs."""
    params, n = params.copy(), data.X.shape[0]
    optimizer = make_optimizer(np.random.default_rng(0), rule, len(params), FLOAT32)
    workspace = _engine.workspace(network, batch, n_jobs)
    for _ in range(epochs):
        loss = _engine.train_epoch(workspace, params, data, np.arange(n), batch, 0.1, optimizer)
    return loss, params


def exact_gradient(network, params, data, alpha):
    """Return loss and gradient of the reference, in float64."""
    exact = network.with_dtype(np.float64)
    dense = data.X.toarray() if sp.issparse(data.X) else data.X
    wide = Data(dense.astype(np.float64), data.y if data.y.dtype.kind == "i" else data.y.astype(np.float64))
    grad = np.empty(network.n_params)
    n = data.X.shape[0]
    return reference.loss_and_grad(reference.workspace(exact, n), params.astype(np.float64), wide, alpha, grad), grad


@each_precision
@given(
    hidden=st.lists(st.integers(1, 90), max_size=3),
    ends=st.tuples(st.integers(1, 90), st.integers(1, 40)),
    n=st.integers(1, 60) | st.just(300),
    loss=st.sampled_from(["log_loss", "squared_error", "binary_log_loss"]),
    kind=st.sampled_from(["C", "F", "strided", "csr int32"]),
    n_jobs=st.sampled_from([1, 2]),
    seed=seeds,
)
def test_gradients(precision, hidden, ends, n, loss, kind, n_jobs, seed):
    network = make_network((ends[0], *hidden, ends[1]), loss, "tanh", FLOAT32, matmul_precision=precision)
    rng = np.random.default_rng(seed)
    params, data = make_params(rng, network, 0.7), make_data(rng, network, n, kind=kind)
    value, expected = exact_gradient(network, params, data, 0.3)
    grad = np.empty_like(params)
    found = _engine.loss_and_grad(_engine.workspace(network, n, n_jobs), params, data, 0.3, grad)
    error = {"high": 2e-4, "medium": 5e-2}[precision]
    assert abs(found - value) <= error * max(1, abs(value))
    assert abs(grad - expected).max() <= error * max(abs(expected).max(), 0.1)


@pytest.mark.parametrize("kind", ["C", "csr int32"])
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, kind):
    """One step of sgd: the same as with "highest" up to the error of the products."""
    given_ = {"activations": ("tanh", "logistic")} | OPTIONS[name]
    exact, high, medium = (
        train(_engine, given_ | {"matmul_precision": p}, np.float32, kind, rule="sgd", n=32, epochs=1)
        for p in MATMUL_PRECISIONS
    )
    np.testing.assert_allclose(high[0], exact[0], rtol=1e-4)
    np.testing.assert_allclose(high[1], exact[1], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(medium[1], exact[1], rtol=2e-2, atol=2e-2)
    assert not np.array_equal(high[1], exact[1]) and not np.array_equal(medium[1], high[1])


@pytest.mark.parametrize("batch_ensemble", [False, True])
@pytest.mark.parametrize("members", [1, 4, 9])
def test_nets_for_tables(members, batch_ensemble):
    """Blocks, scales and members, of an odd number too: rows of two threads never meet in a pair."""
    if members == 1 and batch_ensemble:
        batch_ensemble = False
    case, rng = large_case(np.float32, members), np.random.default_rng(0)
    rows = case.data(rng, 130, weighted=True)
    ends = {}
    for precision in MATMUL_PRECISIONS:
        network = replace(case.network, matmul_precision=precision, activations=("tanh", "tanh"), dropout=())
        params, bits = case.params(np.random.default_rng(1)), []
        for n_jobs in (1, 2, 3):
            found, out = params.copy(), np.empty((130, 3), np.float32)
            optimizer = make_plans(np.random.default_rng(2), "sgd", network, max_grad_norm=1.0)
            workspace = _engine.workspace(network, 50, n_jobs)
            _engine.train_epoch(workspace, found, rows, np.arange(130), 50, 0.1, optimizer, 0.0, 5)
            _engine.predict(workspace, found, rows.X, out)
            bits.append((found.tobytes(), out.tobytes()))
        assert bits[0] == bits[1] == bits[2]
        ends[precision] = found
    scale = abs(ends["highest"]).max()
    assert 0 < abs(ends["high"] - ends["highest"]).max() < 1e-4 * scale
    assert abs(ends["high"] - ends["highest"]).max() < abs(ends["medium"] - ends["highest"]).max() < 5e-2 * scale


@pytest.mark.parametrize("name", ["dropout", "batch norm and dropout", "max_grad_norm", "prelu"])
@each_precision
def test_threads_give_the_same_bits(name, precision):
    one, two, three = (
        train(_engine, OPTIONS[name] | {"matmul_precision": precision}, np.float32, n_jobs=n_jobs, n=330, batch=280,
              widths=(9, 70, 35, 3), epochs=1)
        for n_jobs in (1, 2, 3)
    )  # fmt: skip
    for other in (two, three):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@each_precision
def test_predictions_do_not_depend_on_threads_or_on_what_the_workspace_did_before(precision):
    network, params, data = large_network(precision)
    outs = []
    for n_jobs in (1, 2, 3):
        workspace, out = _engine.workspace(network, 300, n_jobs), np.empty((300, 3), np.float32)
        for n in (300, 7, 300):
            _engine.predict(workspace, params, data.X[:n], out[:n])
        outs.append(out)
        _engine.train_epoch(workspace, params.copy(), data, np.arange(300), 128, 0.1, optimizer_of(params))
        again = np.empty_like(out)
        _engine.predict(workspace, params, data.X, again)
        outs.append(again)
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


def optimizer_of(params):
    return make_optimizer(np.random.default_rng(0), "adam", len(params), FLOAT32)


# --- where they are used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", [*EMULATIONS, *(name for name in _engine.isas() if name in WITH_UNITS)])
def test_the_highest_is_what_it_was(isa):
    """Bit for bit the kernels of the instruction set that the units stand beside."""
    network, params, data = large_network("highest")
    _engine.use_isa(with_own_kernels(_engine)[-1])
    expected = trained(network, params, data)
    _engine.use_isa(isa)
    found = trained(network, params, data)
    assert found[0] == expected[0] and found[1].tobytes() == expected[1].tobytes()


@pytest.mark.parametrize(
    "units, batch, widths, uses",
    [
        (TILES, 64, (64, 64, 1), True),
        (TILES, 63, (64, 64, 1), False),  # few rows
        (TILES, 64, (64, 63, 1), False),  # a small layer
        (TILES, 200, (34, 1040, 1), True),
        (TILES, 200, (31, 1040, 1), False),
        (PAIRS, 64, (84, 84, 1), True),
        (PAIRS, 63, (84, 84, 1), False),
        (PAIRS, 64, (84, 83, 1), False),
    ],
    indirect=["units"],
)
def test_small_shapes_stay_with_the_register_tiles(units, batch, widths, uses):
    _engine.use_isa(units + AS_REAL)
    found = []
    for precision in ("highest", "medium"):
        network = make_network(widths, "squared_error", "tanh", FLOAT32, matmul_precision=precision)
        rng = np.random.default_rng(0)
        params, data = make_params(rng, network), make_data(rng, network, 200)
        found.append(trained(network, params, data, batch)[1])
    assert np.array_equal(*found) != uses


def test_calls_with_few_rows_stay_with_the_register_tiles():
    """The choice depends on the rows of the call, not on those that the workspace has seen before."""
    _engine.use_isa(TILES + AS_REAL)
    network, params, data = large_network("high")
    few, many = np.empty((63, 3), np.float32), np.empty((300, 3), np.float32)
    exact = few.copy()
    workspace = _engine.workspace(network, 300)
    _engine.predict(workspace, params, data.X, many)
    _engine.predict(workspace, params, data.X[:63], few)
    _engine.predict(_engine.workspace(replace(network, matmul_precision="highest"), 63), params, data.X[:63], exact)
    np.testing.assert_array_equal(few, exact)
    assert not np.array_equal(many[:63], exact)


def test_float64_never_goes_there():
    network, found = make_network((80, 130, 3), dtype=np.float64), []
    for isa in (TILES + ALWAYS, with_own_kernels(_engine)[-1]):
        _engine.use_isa(isa)
        found.append(_engine.workspace(network, 10, 1).nbytes)
    assert found[0] == found[1]


def halves_of(rows, columns, halves):
    """Bytes of the halves of a matrix, in tiles of 32 rows and 16 columns."""
    return -(-rows // 32) * -(-columns // 16) * halves * 1024


@pytest.mark.parametrize("precision, halves", [("high", 2), ("medium", 1)])
def test_the_workspace_knows_its_memory(precision, halves):
    """Halves of W, of its transpose and of the deltas, and a scratch for each thread; nothing new with each step."""
    network, params, data = large_network(precision)
    sizes = []
    for p in ("highest", precision):
        workspace = _engine.workspace(replace(network, matmul_precision=p), 128, 1)
        optimizer, order = optimizer_of(params), np.arange(300)
        _engine.train_epoch(workspace, params.copy(), data, order, 128, 0.1, optimizer)
        sizes.append(workspace.nbytes)
        _engine.train_epoch(workspace, params.copy(), data, order, 128, 0.1, optimizer)
        assert workspace.nbytes == sizes[-1]
    shapes = network.shapes
    weights = sum(halves_of(*shape, halves) for shape in shapes)
    transposed = sum(halves_of(*shape[::-1], halves) for shape in shapes[1:])
    deltas = sum(halves_of(128, shape[1], halves) for shape in shapes)
    scratch = max(
        halves_of(130, 128, halves),  # 128 rows of a batch, as deep as the widest layer
        *(halves_of(128, 32, halves) + 32 * 4 * 16 * -(-fan_out // 16) for _, fan_out in shapes),
    )
    padding = sizes[1] - sizes[0] - weights - transposed - deltas - scratch
    assert 0 <= padding < 6000  # slices are cut otherwise, and a row of padding may be wider


# --- dispatch ---------------------------------------------------------------------------------------------------------


def printed(code, **environment_):
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment_}, capture_output=True, text=True
    )
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize("isa", EMULATIONS)
def test_the_environment_chooses_the_emulation(isa):
    code = "from fastmlp.kernels import _engine as e; print(e.isa(), e.matrix_units()[0])"
    assert printed(code, FASTMLP_ISA=isa) == f"{isa} {isa}"


def test_only_tests_choose_the_emulation():
    assert not {*EMULATIONS} & {*_engine.isas()}


def test_other_instruction_sets_have_none():
    _engine.use_isa("baseline")
    name, precisions, reason = _engine.matrix_units()
    assert name is None and precisions == ()
    assert reason in (
        "the instruction set in use, baseline, has none",
        "this build has no code for any",
        "the processor has none",
        "the system does not know their registers",
        "this Linux is too old to permit them",
        "the system does not permit them",
    )
    assert bool({*WITH_UNITS} & {*_engine.isas()}) == ("in use" in reason)
    found = environment.describe()
    assert found["isa"]["matrix_units"] is None and found["isa"]["why_no_matrix_units"] == reason
    assert ("matrix units", f"none: {reason}") in environment.lines(found)


@pytest.mark.parametrize("units, precisions", [(TILES, "high and medium"), (PAIRS, "medium")], indirect=["units"])
def test_info_names_them(units, precisions):
    line = f"{units}{ALWAYS}, for matmul_precision {precisions}"
    assert ("matrix units", line) in environment.lines(environment.describe())


@each_kind
def test_units_are_refused_where_there_are_none(units):
    if units in _engine.isas():
        _engine.use_isa(units)
        assert _engine.matrix_units() == (units, ("high", "medium") if units == TILES else ("medium",), None)
    else:
        with pytest.raises(ValueError, match=f"instruction set '{units}' is not available here; available: "):
            _engine.use_isa(units)
