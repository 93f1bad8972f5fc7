"""What tests share: tolerances derived from the dtype, random calls to make, what others compute.

Read by test_reference.py, test_kernels.py and others.  Numbers are drawn from a seed, so that
Hypothesis shrinks sizes and choices, not single array elements.
"""

import ast
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import scipy.special
from hypothesis import strategies as st
from sklearn.neural_network import _base

from fastmlp.engines.backends import Data
from fastmlp.kernels import formulas, reference
from fastmlp.model.network import Network

# ------------------------------------------------------------------------------- Numba's CUDA simulator


@contextmanager
def steady_simulator():
    """Numba's simulator of a GPU, made quicker and exact.

    Its threads wait for one another, so they must be switched often.  And it makes a block's shared memory in two
    steps, "is there one? then make one", between which a thread may be switched: then two threads of a block share
    nothing, and results are wrong once in some hundred launches.
    """
    from numba.cuda.simulator import kernelapi

    def array(self, shape, dtype, alignment=None):
        if shape == 0:  # what the launch asks for
            return np.frombuffer(self._dynshared.data, dtype, self._dynshared_size // np.dtype(dtype).itemsize)
        caller = sys._getframe(1)
        return self._allocations.setdefault((caller.f_code, caller.f_lineno), np.empty(shape, dtype))

    before, original = sys.getswitchinterval(), kernelapi.FakeCUDAShared.array
    sys.setswitchinterval(1e-5)
    kernelapi.FakeCUDAShared.array = array
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        kernelapi.FakeCUDAShared.array = original


# ------------------------------------------------------------------------------- tolerances

# Roundings that one term of a sum may suffer on its way: a product, a sum and a function of a few
# ULP, on the tested side and on the judging side.
ROUNDINGS = 8


def relative_error(dtype, terms=1):
    """Relative error of a sum of ``terms`` numbers: roundings add up like a random walk."""
    return ROUNDINGS * float(np.finfo(dtype).eps) * float(np.sqrt(terms))


def assert_close(actual, expected, *, terms=1, scale=None, dtype=None, what="result"):
    """Equal up to rounding: |actual - expected| <= relative_error(dtype, terms) * scale.

    ``scale`` is the magnitude of what was added up (sum of absolute values); by default that of
    the result itself, which is right only where nothing cancels.  NaN must meet NaN, and an
    infinity the same infinity.  Numbers below the smallest normal one may be flushed to zero.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    dtype = np.dtype(dtype or expected.dtype)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    with np.errstate(all="ignore"):
        scale = np.abs(expected) if scale is None else np.maximum(scale, np.abs(expected))
        limit = relative_error(dtype, terms) * scale + np.finfo(dtype).tiny
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        near = np.isfinite(expected) & (np.abs(actual - expected) <= limit)
        wrong = ~(same | near)
        if wrong.any():
            excess = np.abs(np.where(wrong, actual - expected, 0) / limit)
            at = np.unravel_index(np.argmax(np.nan_to_num(excess, nan=np.inf)), wrong.shape)
            raise AssertionError(
                f"{what}: {wrong.sum()} of {wrong.size} wrong, at {at} {actual[at]!r} instead of "
                f"{expected[at]!r}, limit {np.broadcast_to(limit, wrong.shape)[at]:.3g}"
            )


# ------------------------------------------------------------------------------- the tables

ACTIVATIONS = tuple(formulas.ACTIVATIONS)
HIDDEN = tuple(name for name in ACTIVATIONS if reference.ACTIVATIONS[name][1] is not None)
#: Those whose slope is the derivative; the gradient of step passes straight through instead.
DIFFERENTIABLE = tuple(name for name in HIDDEN if name != "step")
LOSSES = tuple(formulas.LOSSES)
RULES = tuple(formulas.OPTIMIZERS)
DTYPES = (np.float32, np.float64)


def each_with_one_of_the_other(first, second):
    """Return pairs in which each of ``first`` and each of ``second`` occurs: for stages that are separate."""
    pairs = [(a, second[i % len(second)]) for i, a in enumerate(first)]
    rest = [b for b in second if b not in {b for _, b in pairs}]
    return pairs + [(first[i % len(first)], b) for i, b in enumerate(rest)]


def name_of(entry):
    """Name of an entry: a name, or (name, {parameter: value})."""
    return entry[0] if isinstance(entry, tuple) else entry


def parameters_of(table, entry):
    """Parameters of an entry, those of its row where it gives none."""
    return {**table[name_of(entry)].parameters, **(entry[1] if isinstance(entry, tuple) else {})}


# ------------------------------------------------------------------------------- optimizers

#: Scalars by name; what is not listed is 0.5.  Adam's epsilon is large, so that a gradient that is
#: nothing but rounding error stays small instead of being blown up to a full step.
SCALARS = {"lr": 0.02, "momentum": 0.9, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3}
SCALARS |= {"step_size": 0.02, "step_g": 0.005, "step_m": 0.02, "root_2": 0.8, "rho": 0.9}


@dataclass
class Steps:
    """The least that an engine needs of an optimizer; its step size changes with the step."""

    rule: str
    states: list  # of (n_params,)
    t: int = 0
    weight_decay: float | None = None  # per unit of the first scalar
    max_grad_norm: float | None = None

    def scalars(self, n_steps):
        """float64 (n_steps, n_scalars) for steps t + 1 .. t + n_steps."""
        names = reference.OPTIMIZERS[self.rule].scalars
        rows = [[SCALARS.get(name, 0.5) for name in names] for _ in range(n_steps)]
        for i, row in enumerate(rows):
            row[0] /= 1 + 0.1 * (self.t + i)
        return np.array(rows, dtype=np.float64).reshape(n_steps, len(names))

    def decays(self, n_steps):
        """float64 (n_steps,), or None."""
        return None if self.weight_decay is None else self.scalars(n_steps)[:, 0] * self.weight_decay

    def copy(self):
        return replace(self, states=[state.copy() for state in self.states])


def make_optimizer(rng, rule, n_params, dtype):
    """Halfway through a training: states are not zero, and not negative (Adam's v is a square)."""
    n_states = len(reference.OPTIMIZERS[rule].states)
    states = [rng.uniform(0, 0.1, n_params).astype(dtype) for _ in range(n_states)]
    return Steps(rule, states, t=3)


# ------------------------------------------------------------------------------- networks, data


def make_network(widths, loss="log_loss", activations="tanh", dtype=np.float64, **regularizers):
    """``activations`` is one entry for all hidden layers or one per layer."""
    n_hidden = len(widths) - 2
    sequence = isinstance(activations, tuple | list)
    alone = not sequence or (len(activations) == 2 and isinstance(activations[1], dict))
    entries = (activations,) * n_hidden if alone else tuple(activations)
    return Network(tuple(widths), entries, loss, np.dtype(dtype), **regularizers)


def make_params(rng, network, gain=1.0):
    """Weights that keep the size of what flows through, and biases: one flat vector.

    What units learn and keep besides is positive and about 1, as a variance must be.
    """
    pairs = list(zip(network.widths, network.widths[1:], strict=False))
    weights = [rng.normal(0, gain / np.sqrt(i), i * j) for i, j in pairs]
    biases = [rng.normal(0, 0.3, j) for _, j in pairs]
    linear = np.concatenate(weights + biases)
    units = rng.uniform(0.2, 1.2, network.n_params - len(linear))
    return np.concatenate([linear, units]).astype(network.dtype)


def make_targets(rng, loss, n, n_outputs, dtype):
    """Targets that the loss allows; a loss without an entry here gets numbers in [0, 1]."""
    loss = name_of(loss)
    if loss in formulas.LOSSES and formulas.LOSSES[loss].class_targets:
        return rng.integers(0, n_outputs, n).astype(np.intp)
    zeros_and_ones = lambda: rng.integers(0, 2, (n, n_outputs))  # noqa: E731
    numbers = lambda: rng.normal(0, 2, (n, n_outputs))  # noqa: E731
    draw = {
        **dict.fromkeys(("squared_error", "absolute_error", "huber", "log_cosh", "quantile"), numbers),
        **dict.fromkeys(("binary_log_loss", "binary_focal", "hinge", "perceptron", "squared_hinge"), zeros_and_ones),
        "poisson": lambda: rng.poisson(1.5, (n, n_outputs)) * rng.choice([1, 0.5], (n, n_outputs)),
        "gamma": lambda: rng.gamma(2, 0.7, (n, n_outputs)) + 1e-3,
        "kl_divergence": lambda: _distributions(rng, n, n_outputs),
    }.get(loss, lambda: rng.uniform(0, 1, (n, n_outputs)))
    return np.ascontiguousarray(draw(), dtype=dtype)


def _distributions(rng, n, n_outputs):
    """Rows of numbers that add up to 1, some of them 0."""
    y = rng.uniform(0.1, 1, (n, n_outputs)) * (rng.uniform(size=(n, n_outputs)) > 0.25)
    y[:, 0] += 0.1
    return y / y.sum(axis=1, keepdims=True)


def one_hot(y, n_outputs, dtype):
    """Targets as a matrix (n, n_outputs), whatever the loss."""
    return np.eye(n_outputs, dtype=dtype)[y] if y.ndim == 1 else y


def make_weights(rng, n, dtype):
    """Sample weights, a quarter of them zero, not all of them."""
    weight = rng.uniform(0.1, 3, n) * (rng.uniform(size=n) > 0.25)
    weight[0] = 1.5
    return weight.astype(dtype)


def make_data(rng, network, n, weighted=False, kind="C"):
    """n random rows for a network, X laid out as ``kind`` says (see LAYOUTS)."""
    X = rng.normal(size=(n, network.widths[0])).astype(network.dtype)
    y = make_targets(rng, network.loss, n, network.widths[-1], network.dtype)
    return Data(lay_out(X, kind), y, make_weights(rng, n, network.dtype) if weighted else None)


# ------------------------------------------------------------------------------- dropout


def dropout_mask(seed, t, layer, rate, n, width):
    """Which of ``width`` units of a layer are kept for n rows of a batch, by integers that never overflow.

    bool (n, width); ``layer`` 0 is the input; ``t`` steps were made before.  The definition that
    all engines follow, written a second time.
    """

    def splitmix64(x):
        x = (x + 0x9E3779B97F4A7C15) & (2**64 - 1)
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        return x ^ (x >> 31)

    def mix32(x):
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & (2**32 - 1)
        x = ((x ^ (x >> 15)) * 0x846CA68B) & (2**32 - 1)
        return x ^ (x >> 16)

    key = splitmix64(splitmix64(seed) ^ (t * 2**16 + layer))
    low, high = key % 2**32, key // 2**32
    index = np.arange(n * width, dtype=np.uint64)
    hashes = mix32((mix32((index % 2**32) ^ low) + high) % 2**32)
    return (hashes // 2**8 >= round(rate * 2**24)).reshape(n, width)


# ------------------------------------------------------------------------------- layouts of X


def _strided(X):
    wide = np.full((2 * X.shape[0], 3 * X.shape[1] + 1), np.nan, dtype=X.dtype)
    wide[::2, 1::3] = X
    return wide[::2, 1::3]


def _reversed(X):
    return np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1]


def _read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def _float_of_other_width(X):
    if X.dtype == np.float64:
        return X.astype(np.float32)
    return X.astype(np.float64) * (1 + 1e-9)  # digits that float32 does not have


def _sparse(X, index_dtype, container=sp.csr_array):
    """About a third of X, every third row empty; entries unsorted and split into duplicates."""
    X = np.where(np.abs(X) > 1, X, 0)
    X[1::3] = 0
    rows, columns = np.nonzero(X)
    order = np.lexsort((-columns, rows))  # columns of a row from right to left
    rows, columns = np.repeat(rows[order], 2), np.repeat(columns[order], 2)
    values = X[rows, columns] / 2  # halves: their sum is exact
    indptr = np.searchsorted(rows, np.arange(X.shape[0] + 1))
    made = container(X.shape, dtype=X.dtype)
    made.data, made.indices = values, columns.astype(index_dtype)
    made.indptr = indptr.astype(index_dtype)
    return made


#: Every form in which an engine must accept X: name -> function of a C-contiguous X.
LAYOUTS = {
    "C": lambda X: X,
    "F": np.asfortranarray,
    "strided": _strided,
    "reversed": _reversed,
    "read-only": _read_only,
    "broadcast": lambda X: np.broadcast_to(X[0], X.shape),
    "other dtype": _float_of_other_width,
    "csr int32": lambda X: _sparse(X, np.int32),
    "csr int64": lambda X: _sparse(X, np.int64),
    "csr matrix": lambda X: _sparse(X, np.int32, sp.csr_matrix),
    "csr other dtype": lambda X: _sparse(_float_of_other_width(X), np.int32),
}


def lay_out(X, kind):
    return LAYOUTS[kind](X)


# ------------------------------------------------------------------------------- callbacks


class SklearnRecorder:
    """scikit-learn's FitCallback protocol."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at, self.models = [], stop_at, []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        empty = X is None
        self.calls.append(("end", "empty" if empty else context.task_name))
        if not empty:
            self.models.append((fitted_estimator, X, y, metadata))
        return context.parent is not None and context.task_id + 1 == self.stop_at


# ------------------------------------------------------------------------------- what Hypothesis draws

seeds = st.integers(0, 2**32 - 1)
rows = st.integers(1, 40)
widths = st.integers(1, 130)  # past every tile width, odd ones included
scales = st.sampled_from([1.0, 0.0, 1e-3, 30.0, 1e4])


def draw(seed, shape, dtype, scale=1.0):
    """Normal numbers of one scale: C-contiguous, of ``shape``."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(dtype)


# ------------------------------------------------------------------------------- expected by others


def sklearn_loss(name, logits, y, sample_weight):
    """-> (loss, delta) as scikit-learn's MLP computes them, from rounded probabilities."""
    link = {
        "log_loss": "softmax",
        "binary_log_loss": "logistic",
        "squared_error": "identity",
        "poisson": "exp",
    }[name]
    prediction = logits.copy()
    _base.ACTIVATIONS[link](prediction)
    delta = prediction - y
    if sample_weight is not None:
        delta *= sample_weight.reshape(-1, 1)
    return _base.LOSS_FUNCTIONS[name](y, prediction, sample_weight), delta


SKLEARN_LOSSES = sorted(set(LOSSES) & set(_base.LOSS_FUNCTIONS))

NUMPY = {
    name: getattr(np, name) for name in ("exp", "expm1", "log", "log1p", "tanh", "sqrt", "abs", "minimum", "maximum")
}
NUMPY["erf"] = scipy.special.erf


def plain(source, **constants):
    """The function that a formula's text defines, on NumPy scalars, so that 1 / 0 is inf and not an error."""
    namespace = {**NUMPY, **constants}
    exec(source, namespace)
    function = namespace[ast.parse(source).body[0].name]
    return np.vectorize(lambda *x: function(*map(np.float64, x)), otypes=[float])
