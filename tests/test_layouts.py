"""Arrays as they may lie in memory: every layout trains and predicts to the bits of a clean copy, in every engine."""

import copy
import functools

import numpy as np
import pytest
import scipy.sparse as sp

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.engines import backends
from fastmlp.model.network import Network

import parity
from layouts import ANY, MATRIX
from small_training import Y_VALUES, X, Y
from tiers import each_value_once

pytestmark = [
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

SMALL = {"hidden_layer_sizes": (5,), "max_iter": 2, "random_state": 0, "batch_size": 40}
ALL_BACKENDS = [name for name in backends.available() if name != "cuda"]


def with_parts(X, data=None, indices=None, indptr=None):
    """A CSR matrix with other arrays, which SciPy does not get to see."""
    X = X.copy()
    for name, change in {"data": data, "indices": indices, "indptr": indptr}.items():
        if change is not None:
            setattr(X, name, change(getattr(X, name)))
    return X


CSR = {f"{part} {name}": (part, layout) for part in ("data", "indices", "indptr") for name, layout in ANY.items()}
CSR = {
    name: (lambda X, part=part, layout=layout: with_parts(X, **{part: layout})) for name, (part, layout) in CSR.items()
}
CSR |= {
    "wide indices": lambda X: with_parts(X, indices=lambda a: a.astype(np.int64)),
    "wide indptr": lambda X: with_parts(X, indptr=lambda a: a.astype(np.int64)),
    "wide both": lambda X: with_parts(X, indices=lambda a: a.astype(np.int64), indptr=lambda a: a.astype(np.int64)),
    "more room than entries": lambda X: with_parts(
        X, data=lambda a: np.append(a, [7.0]).astype(a.dtype), indices=lambda a: np.append(a, [10**6]).astype(a.dtype)
    ),
    "csr_array": sp.csr_array,
    "csc": sp.csc_matrix,
}

LAYOUTS = [*(("dense", name) for name in MATRIX), *(("CSR", name) for name in CSR)]
DENSE = X.copy()
DENSE[np.random.RandomState(0).uniform(size=X.shape) < 0.5] = 0
SPARSE = sp.csr_matrix(DENSE)


def clean_rows(kind, dtype):
    return DENSE.astype(dtype) if kind == "dense" else SPARSE.astype(dtype)


def laid_out(kind, name, dtype):
    """Return (a clean X, the same numbers in a layout)."""
    clean = clean_rows(kind, dtype)
    return clean, (MATRIX if kind == "dense" else CSR)[name](clean)


def results(backend, fit_on, predict_on, validate_on):
    """Return all that a fit, a partial_fit and predictions come to, as arrays."""
    found = []
    for cls, y in ((MLPClassifier, Y), (MLPRegressor, Y_VALUES)):
        est = cls(**SMALL, backend=backend).fit(fit_on, y, X_val=validate_on, y_val=y)
        found += [*est.coefs_, *est.intercepts_, np.array(est.loss_curve_ + est.validation_loss_curve_)]
        est.partial_fit(fit_on, y)
        found += [*est.coefs_, est.predict(predict_on), np.array(est.score(predict_on, y))]
        lbfgs = cls(**SMALL, solver="lbfgs", backend=backend).fit(fit_on, y)
        found += lbfgs.coefs_
    est = MLPClassifier(**SMALL, backend=backend, early_stopping=True).fit(fit_on, Y)
    return [*found, est.predict_proba(predict_on), np.array(est.validation_scores_)]


@functools.cache
def results_of_clean(kind, dtype, backend):
    """Return what the clean X of a kind comes to, computed once for all its layouts."""
    clean = clean_rows(kind, dtype)
    return results(backend, clean, clean, clean)


def assert_same_bits(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@each_value_once
@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("kind", "name"), LAYOUTS)
def test_layouts_of_X(kind, name, dtype, backend):
    clean, odd = laid_out(kind, name, dtype)
    if getattr(odd, "dtype", None) == np.dtype(">f4"):
        clean = clean.astype(np.float64)  # as in scikit-learn, which knows no other float32 than the machine's
        expected = results(backend, clean, clean, clean)
    else:
        expected = results_of_clean(kind, dtype, backend)
    assert_same_bits(results(backend, odd, odd, odd), expected)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_the_same_number_everywhere(backend):
    """Strides of zero: all rows are one row, all columns one column."""
    for odd in (np.broadcast_to(X[:1], X.shape), np.broadcast_to(X[:, :1], X.shape), np.broadcast_to(0.5, X.shape)):
        clean = np.ascontiguousarray(odd)
        assert_same_bits(results(backend, odd, odd, odd), results(backend, clean, clean, clean))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_single_rows(backend):
    """A row at any address, with any stride to a next row that there is none of."""
    est = MLPRegressor(**SMALL, backend=backend).fit(X, Y_VALUES)
    for layout in MATRIX.values():
        odd = layout(X)
        for i in (0, 5, 79):
            np.testing.assert_array_equal(est.predict(odd[i : i + 1]), est.predict(X[i : i + 1]))


@each_value_once
@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("name", ANY)
def test_layouts_of_targets_and_weights(name, backend):
    layout, weight = ANY[name], np.linspace(0.5, 2, 80)
    targets = [
        (MLPClassifier, Y),
        (MLPRegressor, Y_VALUES),
        (MLPRegressor, np.column_stack([Y_VALUES, X[:, 0]])),
    ]
    if name != "big-endian":  # which SciPy refuses in scikit-learn's LabelBinarizer
        targets.append((MLPClassifier, np.eye(3, dtype=int)[Y]))
    for solver in ("adam", "lbfgs"):
        for cls, y in targets:
            found = []
            for y_, weight_ in ((y, weight), (layout(y), layout(weight))):
                est = cls(**SMALL, solver=solver, backend=backend)
                more = {"X_val": X, "y_val": y_, "sample_weight_val": weight_} if solver == "adam" else {}
                found.append(est.fit(X, y_, weight_, **more))
            parity.assert_identical_models(*found)
            assert found[0].loss_ == found[1].loss_


def in_one_vector(layout):
    """Weights that are views of one flat vector in a layout, as after a fit."""

    def change(est):
        network = Network((6, 5, 1), ("relu",), "squared_error", np.dtype(np.float64))
        flat = layout(network.flatten(est.coefs_, est.intercepts_).copy())
        if flat.dtype.isnative:
            est.coefs_, est.intercepts_ = network.coefs(flat), network.intercepts(flat)

    return change


def one_by_one(layout):
    def change(est):
        est.coefs_, est.intercepts_ = [layout(W) for W in est.coefs_], [layout(b) for b in est.intercepts_]

    return change


@each_value_once
@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("how", [in_one_vector, one_by_one])
@pytest.mark.parametrize("name", ANY)
def test_layouts_of_weights(name, how, backend):
    clean = MLPRegressor(**SMALL, backend=backend, warm_start=True).fit(X, Y_VALUES)
    odd = copy.deepcopy(clean)
    how(ANY[name])(odd)
    np.testing.assert_array_equal(odd.predict(X), clean.predict(X))
    for est in (odd, clean):
        est.partial_fit(X, Y_VALUES)
    parity.assert_identical_models(odd, clean)
    for est in (odd, clean):
        how(ANY[name])(est) if est is odd else None
        est.fit(X, Y_VALUES)
    parity.assert_identical_models(odd, clean)


@pytest.mark.parametrize("name", ANY)
def test_layouts_of_first_weights(name):
    rng = np.random.RandomState(0)
    start = {"coef_init": [rng.randn(6, 5), rng.randn(5, 1)], "intercept_init": [rng.randn(5), rng.randn(1)]}
    odd = {key: [ANY[name](array) for array in arrays] for key, arrays in start.items()}
    ours, theirs = (MLPRegressor(**SMALL).fit(X, Y_VALUES, **given) for given in (odd, start))
    parity.assert_identical_models(ours, theirs)
