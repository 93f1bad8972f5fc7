"""L-BFGS: the compiled optimizer against SciPy's, point by point.

Two optimizers that agree at every point that they evaluate also agree in all that follows from these points.
"""

import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.fixes import parse_version, sp_version

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.engines import backends
from fastmlp.kernels import _engine, interrupts
from fastmlp.training import lbfgs

from tiers import each_value_once

# Elsewhere the compilers of the two may join products and sums in other places, or SciPy's code is Fortran.
SAME_BITS = platform.machine().lower() in ("x86_64", "amd64") and sp_version >= parse_version("1.15")

pytestmark = [
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@cache
def quadratic(n, orders, seed):
    """Return a quadratic of n numbers whose curvatures span so many orders of magnitude."""
    rng = np.random.RandomState(seed)
    a = rng.randn(n, n)
    a = a @ a.T / n + np.diag(np.logspace(-orders / 2, orders / 2, n))
    b = rng.randn(n)
    return lambda x: (x @ a @ x / 2 - b @ x, a @ x - b)


def noisy(x):
    """Values that no line search can trust."""
    return np.sum(x**2) + 1e-4 * np.sum(np.abs(np.sin(1e8 * x))), 2 * x


FUNCTIONS = {
    "rosenbrock": lambda x: (scipy.optimize.rosen(x), scipy.optimize.rosen_der(x)),
    "well conditioned": lambda x: quadratic(len(x), 0, 0)(x),
    "ill conditioned": lambda x: quadratic(len(x), 8, 1)(x),
    "waves": lambda x: (np.sum(np.sin(5 * x) + x * x / 20), 5 * np.cos(5 * x) + x / 10),
    "exponentials": lambda x: (np.sum(np.exp(x) + np.exp(-3 * x)), np.exp(x) - 3 * np.exp(-3 * x)),
    "kinks": lambda x: (np.sum(np.abs(x) + x * x / 10), np.sign(x) + x / 5),  # line searches that end at one point
    "noise": noisy,  # failed line searches, after which pairs are forgotten
    "no minimum": lambda x: (-np.sum(x * x), -2 * x),
    "cubic": lambda x: (np.sum(x**3), 3 * x * x),
    "wrong slope": lambda x: (np.sum(x * x), -2 * x),  # no step decreases the value
    "logarithm": lambda x: (np.sum(x - np.log(x)), 1 - 1 / x),  # NaN
    "huge": lambda x: (1e200 * np.sum(x * x), 2e200 * x),  # squares overflow
    "tiny": lambda x: (1e-300 * np.sum(x * x), 2e-300 * x),  # and underflow
}

# tol, max_iter, max_fun
LIMITS = [(1e-5, 200, 15000), (0.0, 60, 15000), (1e-4, 7, 15000), (1e-9, 300, 30)]


def followed(optimize, function, first, *limits):
    """Return the points that are evaluated, and the result."""
    x, grad, points = first.copy(), np.empty_like(first), []

    def evaluate():
        points.append(x.copy())
        value, grad[...] = function(x)
        return float(value)

    result = optimize(evaluate, x, grad, *limits)
    return np.array(points), result


def assert_same_search(function, first, *limits):
    expected_points, expected = followed(lbfgs._scipys, function, first, *limits)
    points, got = followed(lbfgs.minimize, function, first, *limits)
    if not SAME_BITS:  # rounding errors grow: only the first points are alike
        n = min(len(points), len(expected_points), 8)
        np.testing.assert_allclose(points[:n], expected_points[:n], rtol=1e-12 * 10**n)
        return
    np.testing.assert_array_equal(points, expected_points)
    for name in ("x", "jac", "fun"):
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    for name in ("nit", "nfev", "status", "message"):
        assert got[name] == expected[name], name


@pytest.mark.parametrize("n", [2, 5, 37, 131])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_point_is_scipys(name, n):
    rng = np.random.RandomState(n)
    for scale in (0.1, 10, 1000):
        first = rng.randn(n) * scale
        for limits in LIMITS:
            assert_same_search(FUNCTIONS[name], np.abs(first) if name == "logarithm" else first, *limits)


def test_the_functions_end_searches_in_every_way():
    ends = set()
    for function in FUNCTIONS.values():
        for limits in LIMITS:
            _, result = followed(lbfgs.minimize, function, np.linspace(0.5, 2, 37), *limits)
            ends.add(result.message.split(" ")[0] + result.message[-9:])
    assert len(ends) == 5, ends


@given(
    n=st.integers(1, 40),
    orders=st.floats(0, 12),
    scale=st.floats(1e-8, 1e8),
    wave=st.floats(0, 30),
    seed=st.integers(0, 2**32 - 1),
    limits=st.tuples(st.sampled_from([0, 1e-8, 1e-3]), st.integers(1, 60), st.integers(1, 90)),
)
def test_any_search_is_scipys(n, orders, scale, wave, seed, limits):
    bowl = quadratic(n, orders, seed)

    def function(x):
        value, slope = bowl(x)
        return value + np.sum(np.cos(wave * x)), slope - wave * np.sin(wave * x)

    assert_same_search(function, scale * np.random.RandomState(seed ^ 1).randn(n), *limits)


@pytest.fixture(params=_engine.isas())
def isa(request):
    """Each instruction set."""
    before = _engine.isa()
    _engine.use_isa(request.param)
    yield
    _engine.use_isa(before)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("n", [1, 2, 3, 5, 63, 64, 66, 1001])
def test_any_number_of_parameters(n):
    """Loops work two or four numbers at a time, and blocks of 64."""
    assert_same_search(quadratic(n, 4, n), np.random.RandomState(n).randn(n), 0.0, 25, 1000)


# --- fits -------------------------------------------------------------------------------------------------------------

rng = np.random.RandomState(0)
X = rng.randn(60, 5)
Y = {MLPClassifier: rng.randint(0, 3, 60), MLPRegressor: rng.randn(60, 2)}
FIT = {"hidden_layer_sizes": (7, 4), "solver": "lbfgs", "activation": "tanh", "random_state": 0, "max_iter": 80}


def fitted_arrays(est):
    return [*est.coefs_, *est.intercepts_, np.array([est.loss_, est.n_iter_])]


@each_value_once
@pytest.mark.parametrize("backend", [name for name in backends.available() if name != "cuda"])
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("options", [{}, {"max_fun": 9}, {"tol": 0.0, "alpha": 1.0}, {"activation": "relu"}], ids=str)
def test_fits_are_scipys(cls, options, backend, monkeypatch):
    est = cls(**FIT | options, backend=backend).fit(X, Y[cls])
    monkeypatch.setattr(lbfgs, "compiled_minimize", None)
    scipys = cls(**est.get_params()).fit(X, Y[cls])
    if SAME_BITS:
        for ours, theirs in zip(fitted_arrays(est), fitted_arrays(scipys), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    else:
        assert est.loss_ == pytest.approx(scipys.loss_, rel=0.05)


@pytest.mark.nightly  # a process; .ci/run has an installation without the extension
def test_scipy_optimizes_where_no_extension_is():
    code = (
        "import sys; sys.modules['fastmlp.kernels._engine'] = None\n"
        "import numpy as np, fastmlp\n"
        "est = fastmlp.MLPClassifier(solver='lbfgs', hidden_layer_sizes=(3,), alpha=1, max_iter=500, random_state=0)\n"
        "assert est.fit(np.eye(4), [0, 1, 0, 1]).n_iter_ > 3"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_searches_on_threads_are_alike():
    function, first = FUNCTIONS["rosenbrock"], np.linspace(-1, 2, 300)
    expected, _ = followed(lbfgs.minimize, function, first, 0.0, 100, 1000)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: followed(lbfgs.minimize, function, first, 0.0, 100, 1000)[0], range(8)))
    for points in found:
        np.testing.assert_array_equal(points, expected)


@pytest.mark.parametrize("compiled", [True, False])
def test_an_interrupted_fit_keeps_the_weights_that_it_looked_at(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(lbfgs, "compiled_minimize", None)
    engine, seen = backends.get("reference"), []
    loss_and_grad = engine.loss_and_grad

    def interrupting(workspace, params, *args):
        seen.append(params.copy())
        if len(seen) == 5:
            raise KeyboardInterrupt
        return loss_and_grad(workspace, params, *args)

    monkeypatch.setattr(engine, "loss_and_grad", interrupting)
    est = MLPRegressor(**FIT, backend="reference")
    with pytest.raises(KeyboardInterrupt):
        est.fit(X, Y[MLPRegressor])
    np.testing.assert_array_equal(np.concatenate([a.ravel() for a in (*est.coefs_, *est.intercepts_)]), seen[-1])


def test_a_request_to_stop_ends_small_fits():
    """Engines look after half a giga-operation, which these fits take seconds for."""
    stop, ended = interrupts.Stop(), threading.Event()
    est = MLPRegressor(**FIT | {"max_iter": 10**7, "max_fun": 10**8, "tol": 0.0, "activation": "tanh"})

    def fit():
        stop.wanted = True
        with interrupts.stoppable(stop), pytest.raises(KeyboardInterrupt):
            est.fit(X, Y[MLPRegressor])
        ended.set()

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert ended.is_set()


# --- arguments --------------------------------------------------------------------------------------------------------

GOOD = np.zeros(4)
READ_ONLY = np.zeros(4)
READ_ONLY.flags.writeable = False
BAD_ARRAYS = {
    "list": ([0.0] * 4, "must be a NumPy array, got list"),
    "float32": (np.zeros(4, np.float32), "must have dtype float64, got float32"),
    "matrix": (np.zeros((2, 2)), r"must have shape \(\w+,\), got \(2, 2\)"),
    "strided": (np.zeros(8)[::2], "must be C-contiguous and aligned"),
    "read-only": (READ_ONLY, "must be writeable"),
}


@pytest.mark.parametrize("argument", ["x", "grad"])
@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_are_checked(case, argument):
    array, text = BAD_ARRAYS[case]
    arrays = {"x": np.zeros(4), "grad": np.zeros(4)} | {argument: array}
    with pytest.raises(ValueError, match=f"{argument} {text}"):
        _engine.minimize(lambda: 0.0, *arrays.values(), 1e-4, 5, 5)


@pytest.mark.parametrize(
    ("x", "grad", "text"),
    [
        (np.zeros(4), np.zeros(3), r"grad must have shape \(4,\), got \(3,\)"),
        (GOOD, GOOD, "grad must not overlap x"),
        (np.zeros(0), np.zeros(0), "x must hold at least one number"),
    ],
)
def test_arrays_must_fit(x, grad, text):
    with pytest.raises(ValueError, match=text):
        _engine.minimize(lambda: 0.0, x, grad, 1e-4, 5, 5)


def test_limits_may_be_larger_than_any_number_of_the_machine():
    est = MLPClassifier(**FIT | {"max_iter": 10**30, "max_fun": 10**30, "alpha": 1.0, "tol": 1e-2})
    assert est.fit(X, Y[MLPClassifier]).n_iter_ < 1000


def test_errors_of_the_function_come_through():
    with pytest.raises(ZeroDivisionError):
        _engine.minimize(lambda: 1 / 0, np.zeros(4), np.zeros(4), 1e-4, 5, 5)
    with pytest.raises(TypeError, match="must be real number"):
        _engine.minimize(lambda: "low", np.zeros(4), np.zeros(4), 1e-4, 5, 5)
