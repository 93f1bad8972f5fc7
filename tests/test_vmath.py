"""The engine's own exp, expm1, log, log1p, tanh, erf, sin, cos: error in units in the last place, special values.

The bounds are those stated in kernels/cython/vmath.h; the judge is NumPy in the next wider type.
"""

import math

import numpy as np
import pytest

from fastmlp.engines import by_name
from fastmlp.kernels import _engine, codegen, language
from fastmlp.kernels.contract import Data
from fastmlp.kernels.feature_table import Block
from fastmlp.model.network import Network

WIDER = {np.float32: np.float64, np.float64: np.longdouble}
# units in the last place (ULP) allowed; where float32 has a shorter formula of its own, its bound comes first
BOUNDS = {"exp": 1.1, "expm1": 2.1, "log": 1.0, "log1p": 1.5, "tanh": (6.0, 1.5), "erf": 1.5, "sqrt": 0.5, "abs": 0.0}


def arguments(function, dtype, rng, n):
    """Arguments over the whole range of the function, dense where it bends."""
    info = np.finfo(dtype)
    low, high = np.log(float(info.tiny)), np.log(float(info.max))
    near = rng.uniform(-2, 2, n)
    x = {
        "exp": np.concatenate([near, rng.uniform(low, high, n)]),
        "expm1": np.concatenate([near, rng.uniform(-45, high, n), near * 1e-6, near * info.tiny]),
        "log": np.concatenate([np.exp(near), np.exp(rng.uniform(low, high, n)), [info.smallest_subnormal, info.max]]),
        "log1p": np.concatenate([rng.uniform(-0.99, 2, n), np.exp(rng.uniform(low, high, n))]),
        "tanh": np.concatenate([near, rng.uniform(-30, 30, n), near * 1e-6]),
        "erf": np.concatenate([near, rng.uniform(-7, 7, n), near * 1e-6]),
        "sqrt": np.exp(rng.uniform(low, high, n)),
        "abs": rng.uniform(-9, 9, n),
    }[function]
    return x.astype(dtype)


def exact(function, x):
    """The function in x's dtype by NumPy; erf, which it lacks, by its series of positive terms."""
    if function != "erf":
        return getattr(np, function)(x)
    term = total = np.where(np.abs(x) < 8, x, 0)
    for n in range(1, 250):  # erf x = 2 / sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!
        term = term * 2 * x * x / (2 * n + 1)
        total = total + np.where(np.abs(x) < 8, term, 0)
    value = 2 / np.sqrt(np.arctan(x.dtype.type(1)) * 4) * np.exp(-x * x) * total
    return np.where(np.abs(x) >= 8, np.sign(x), value)


def evaluate(function, x):
    """The function as a user's formula, of one hidden neuron."""
    return by_name.activate(_engine, language.activation(f"def f(z): return {function}(z)"), x)


def ulp_error(got, exact):
    """Largest distance in units in the last place of the exact value rounded to got's dtype."""
    spacing = np.spacing(np.abs(exact.astype(got.dtype))).astype(exact.dtype)
    return float(np.max(np.abs(got.astype(exact.dtype) - exact) / spacing))


@pytest.fixture(params=_engine.isas())
def isa(request):
    before = _engine.isa()
    _engine.use_isa(request.param)
    yield request.param
    _engine.use_isa(before)


def test_every_function_of_the_language_has_a_bound():
    assert set(BOUNDS) == set(codegen.FUNCTIONS)


@pytest.mark.covers("function dtype", "isa dtype")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", BOUNDS)
def test_ulp(function, dtype, isa, tier):
    if np.finfo(WIDER[dtype]).eps >= np.finfo(dtype).eps:
        pytest.skip("this platform has no wider floating-point type to judge by")
    x = arguments(function, dtype, np.random.default_rng(0), n=200_000 if tier == "all" else 20_000)
    error = ulp_error(evaluate(function, x), exact(function, x.astype(WIDER[dtype])))
    bound = BOUNDS[function]
    bound = bound[dtype is np.float64] if isinstance(bound, tuple) else bound
    assert error <= bound, f"{function}: {error:.3f} ULP"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", BOUNDS)
def test_special_values(function, dtype, isa):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e4, -1e4, 0.5] * 7, dtype=dtype)
    with np.errstate(all="ignore"):
        expected = np.array([math.erf(v) for v in x]) if function == "erf" else getattr(np, function)(x)
    np.testing.assert_allclose(evaluate(function, x), expected, rtol=6 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_of_subnormal_results(dtype, isa):
    info = np.finfo(dtype)
    x = np.linspace(np.log(float(info.smallest_subnormal)), np.log(float(info.tiny)), 1001).astype(dtype)
    assert ulp_error(evaluate("exp", x), exact("exp", x.astype(WIDER[dtype]))) <= 2


def sine_and_cosine(x, width=200):
    """sin x and cos x as periodic features of 0 compute them: x is their phases, sines are gradients of these."""
    sines, cosines = [], []
    for phases in np.split(x, range(width, len(x), width)):
        n = len(phases)
        block = Block("periodic", (0,) * n, 1, (), 1)
        network = Network((n, n), (), "absolute_error", x.dtype, (block,))
        params, grad = np.zeros((2, network.n_params), x.dtype)
        np.fill_diagonal(network.coefs(params)[0], 1)
        arrays = network.input_segments[0]
        arrays["periodic_phase"].view(params)[:, 0] = phases
        arrays["periodic_weight"].view(params)[:] = 1
        workspace, out = _engine.workspace(network, 1), np.empty((1, n), x.dtype)
        _engine.predict(workspace, params, np.zeros((1, 1), x.dtype), out)
        low = np.full((1, n), -10, x.dtype)  # of which the absolute error has the slope 1
        _engine.loss_and_grad(workspace, params, Data(np.zeros((1, 1), x.dtype), low), 0.0, grad)
        cosines.append(out[0])
        sines.append(-arrays["periodic_phase"].view(grad)[:, 0])
    return np.concatenate(sines), np.concatenate(cosines)


@pytest.mark.parametrize("dtype, far", [(np.float32, 1e4), (np.float64, 1e6)])
def test_ulp_of_sine_and_cosine(dtype, far, isa, tier):
    if np.finfo(WIDER[dtype]).eps >= np.finfo(dtype).eps:
        pytest.skip("this platform has no wider floating-point type to judge by")
    rng, n = np.random.default_rng(0), 60_000 if tier == "all" else 4_000
    quarters = np.round(rng.uniform(-600, 600, n)) * (np.pi / 2)  # where one of the two is nearly 0
    for x, bound in ((rng.uniform(-4, 4, n), 1.6), (quarters, 1.6), (rng.uniform(-far, far, n), 2.5)):
        x = x.astype(dtype)
        for got, exact in zip(sine_and_cosine(x), (np.sin, np.cos), strict=True):
            assert ulp_error(got, exact(x.astype(WIDER[dtype]))) <= bound, exact


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sine_and_cosine_of_special_values(dtype, isa):
    x = np.array([0.0, -0.0, 1e30, -1e30, 1e37, 0.5] * 7, dtype=dtype)
    sine, cosine = sine_and_cosine(x)
    finite = np.isfinite(x)
    assert (np.abs(sine[finite]) <= 1).all() and (np.abs(cosine[finite]) <= 1).all()
    assert (cosine[:2] == 1).all() and (sine[:2] == 0).all()
    for lost in (np.nan, np.inf, -np.inf):
        sine, cosine = sine_and_cosine(np.array([lost], dtype))
        assert np.isnan(sine).all() and np.isnan(cosine).all()
