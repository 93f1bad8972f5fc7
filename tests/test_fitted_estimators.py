"""Fitted MLPClassifiers and MLPRegressors: what they print, edited weights, copies, threads and processes.

Where scikit-learn's own class can do the same thing, it does so in the same test and the results are compared.
"""

import copy
import io
import multiprocessing
import pickle
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPRegressor

import parity
from parity import CLASSIFIER, REGRESSOR, SOLVERS, assert_twins_agree, observe, observe_both, problem_for, quiet

SMALL = {"hidden_layer_sizes": (6,), "max_iter": 15, "random_state": 3, "learning_rate_init": 0.01}

pytestmark = [
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


# ------------------------------------------------------------------------------ what it says


TALK = {
    "sgd": {"solver": "sgd"},
    "adam": {"solver": "adam"},
    "lbfgs": {"solver": "lbfgs"},
    "stops": {"tol": 10.0, "n_iter_no_change": 2},
    "stops on validation": {"tol": 10.0, "n_iter_no_change": 2, "early_stopping": True},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1, "max_iter": 60},
}


@pytest.mark.parametrize("talk", TALK)
@pytest.mark.parametrize("verbose", [True, 2, False])
def test_verbose_text_is_theirs(twins, talk, verbose):
    X, y = problem_for(twins)
    expected, got = observe_both(twins, lambda est: est.fit(X, y), verbose=verbose, **SMALL | TALK[talk])
    parity.assert_same_noise(expected, got)
    assert bool(got.stdout) == bool(verbose and talk != "lbfgs")


class _Interrupting(io.StringIO):
    """A screen before which the user presses Ctrl-C when a text appears."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def write(self, text):
        if self.text in text:
            raise KeyboardInterrupt
        return super().write(text)


@pytest.mark.parametrize("when", ["Iteration 1,", "Iteration 7,", "Validation score"])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_keyboard_interrupt_keeps_the_model(twins, solver, when):
    X, y = problem_for(twins)
    params = SMALL | {"verbose": True, "solver": solver, "early_stopping": when.startswith("Val")}

    def interrupted(est):
        with redirect_stdout(_Interrupting(when)):
            return est.fit(X, y)

    expected, got = observe_both(twins, interrupted, **params)
    assert ("UserWarning", "Training interrupted by user.") in got.warnings
    parity.assert_same_noise(expected, got)
    theirs, ours = expected.value, got.value
    assert (ours.n_iter_, len(ours.loss_curve_)) == (theirs.n_iter_, len(theirs.loss_curve_))
    np.testing.assert_allclose(parity.weights(ours), parity.weights(theirs), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(ours.score(X, y), theirs.score(X, y), rtol=1e-6)


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="only the main thread gets signals"
)
def test_real_ctrl_c():
    """A signal that arrives while an engine is at work ends the fit at the next epoch."""
    X, y = problem_for(REGRESSOR)
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])

    def start(info):  # after an epoch: an engine may have to compile before
        if info.epoch == 1:
            timer.start()

    est = MLPRegressor(
        hidden_layer_sizes=(200, 200), max_iter=10**7, n_iter_no_change=np.inf, random_state=0, callbacks=[start]
    )
    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        est.fit(X, y)
    assert 0 < est.n_iter_ == len(est.loss_curve_) < 10**7
    assert np.isfinite(est.predict(X)).all()


# ------------------------------------------------------------------------------ weights of one's own


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_preset_weights_are_trained_on(twins, solver):
    """coefs_ and intercepts_ set before the first partial_fit, as scikit-learn's own test does it."""
    X, y = problem_for(twins)
    n_outputs = 3 if twins is CLASSIFIER else 1
    rng = np.random.RandomState(0)
    W = [rng.randn(6, 5), rng.randn(5, n_outputs)]
    b = [rng.randn(5), rng.randn(n_outputs)]
    classes = {"classes": [0, 1, 2]} if twins is CLASSIFIER else {}

    def train(est):
        est.coefs_, est.intercepts_ = [w.copy() for w in W], [v.copy() for v in b]
        est.n_outputs_, est.n_layers_, est.n_features_in_ = n_outputs, 3, 6
        est.out_activation_ = "softmax" if twins is CLASSIFIER else "identity"
        est.n_iter_, est.t_, est.best_loss_, est.loss_curve_, est._no_improvement_count = 0, 0, np.inf, [], 0
        for _ in range(20):
            est.partial_fit(X, y, **classes)
        return parity.weights(est)

    params = SMALL | {"hidden_layer_sizes": (5,), "solver": solver}
    expected, got = observe_both(twins, train, **params)
    assert_twins_agree(expected, got)
    assert not np.allclose(got.value, np.concatenate([w.ravel() for w in (*W, *b)]))


def _double(est):
    est.coefs_[0] *= 2
    est.intercepts_[-1] -= 0.5


def _replace(est):
    est.coefs_ = [0.5 * W for W in est.coefs_]
    est.intercepts_ = [b.copy() for b in est.intercepts_]


def _replace_one(est):
    est.coefs_[-1] = est.coefs_[-1][:, ::-1].copy()


def _fortran(est):
    est.coefs_ = [np.asfortranarray(1.5 * W) for W in est.coefs_]


def _prune(est):
    est.coefs_[0][np.abs(est.coefs_[0]) < 0.2] = 0


@pytest.mark.parametrize("edit", [_double, _replace, _replace_one, _fortran, _prune])
@pytest.mark.parametrize("solver", SOLVERS)
def test_edited_weights_are_predicted_with_and_trained_on(twins, edit, solver):
    X, y = problem_for(twins)
    method = "predict_proba" if twins is CLASSIFIER else "predict"

    def edited(est):
        before = getattr(est.fit(X, y), method)(X)
        edit(est)
        after = getattr(est, method)(X)
        assert not np.array_equal(before, after) or (edit is _replace_one and twins is REGRESSOR)
        if solver != "lbfgs":
            for _ in range(3):
                est.partial_fit(X, y)
        else:
            est.set_params(warm_start=True, max_iter=2).fit(X, y)
        return np.concatenate([np.ravel(after), parity.weights(est)])

    assert_twins_agree(*observe_both(twins, edited, solver=solver, **SMALL))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_views_of_one_flat_vector(twins, solver, early_stopping, dtype):
    """Laid out [W0 .. Wn | b0 .. bn], right behind one another."""
    X, y = problem_for(twins, dtype)
    params = SMALL | {"hidden_layer_sizes": (6, 1, 4), "solver": solver, "early_stopping": early_stopping}
    est = quiet(twins.ours(**params).fit, X, y)
    arrays = [*est.coefs_, *est.intercepts_]
    flat = arrays[0].base
    assert flat.ndim == 1 and flat.size == sum(w.size for w in arrays)
    address = flat.__array_interface__["data"][0]
    for array in arrays:
        assert array.base is flat
        assert array.flags.c_contiguous and array.flags.writeable
        assert array.__array_interface__["data"][0] == address
        address += array.nbytes


# ------------------------------------------------------------------------------ copies


def _through_joblib(est, tmp_path):
    joblib.dump(est, tmp_path / "model")
    return joblib.load(tmp_path / "model")


COPIES = {
    "pickle": lambda est, tmp_path: pickle.loads(pickle.dumps(est)),
    "pickle 2": lambda est, tmp_path: pickle.loads(pickle.dumps(est, protocol=2)),
    "deepcopy": lambda est, tmp_path: copy.deepcopy(est),
    "joblib": _through_joblib,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_copies_go_on_as_the_original_would(twins, how, solver, tmp_path):
    X, y = problem_for(twins)
    est = quiet(twins.ours(solver=solver, **SMALL).fit, X, y)
    twin = COPIES[how](est, tmp_path)
    parity.assert_identical_models(twin, est)
    np.testing.assert_array_equal(twin.predict(X), est.predict(X))
    before = parity.weights(est).copy()
    for _ in range(3):
        twin.partial_fit(X, y)
    np.testing.assert_array_equal(parity.weights(est), before)  # a copy of its own
    for _ in range(3):
        est.partial_fit(X, y)
    parity.assert_identical_models(twin, est)
    assert not np.array_equal(parity.weights(est), before)


@pytest.mark.parametrize("how", COPIES)
def test_a_warm_start_that_finds_nothing_better_is_the_same_from_a_copy(twins, how, tmp_path):
    """The best weights so far are the weights themselves, which such a training changes: in a copy as well."""
    X, y = problem_for(twins)
    est = quiet(twins.ours(**SMALL | {"early_stopping": True, "warm_start": True}).fit, X, y)
    twin = COPIES[how](est, tmp_path)
    for each in (est, twin):
        each.best_validation_score_ = np.inf
        quiet(each.fit, X, y)
    np.testing.assert_array_equal(parity.weights(twin), parity.weights(est))


def test_shallow_copy_predicts(twins):
    X, y = problem_for(twins)
    est = quiet(twins.ours(**SMALL).fit, X, y)
    np.testing.assert_array_equal(copy.copy(est).predict(X), est.predict(X))


def test_memory_mapped_model_predicts_and_refuses_or_copies(twins, tmp_path):
    """A model whose weights are read-only pages of a file."""
    X, y = problem_for(twins)
    est = quiet(twins.ours(**SMALL).fit, X, y)
    joblib.dump(est, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    np.testing.assert_array_equal(mapped.predict(X), est.predict(X))
    on_disk = (tmp_path / "model").read_bytes()
    outcome = observe(mapped.partial_fit, X, y)
    assert outcome.error is None or isinstance(outcome.error, ValueError)
    if outcome.error is None:
        np.testing.assert_array_equal(parity.weights(mapped), parity.weights(est.partial_fit(X, y)))
    assert (tmp_path / "model").read_bytes() == on_disk


def test_pickles_stay_small(twins):
    """No workspace, no engine, no data: weights and a few vectors like them."""
    X, y = problem_for(twins)
    params = SMALL | {"hidden_layer_sizes": (50, 50)}
    theirs, ours = (quiet(cls(**params).fit, X, y) for cls in twins)
    assert len(pickle.dumps(ours)) < 1.5 * len(pickle.dumps(theirs))


# ------------------------------------------------------------------------------ threads and processes


def test_threads_fit_at_once(twins):
    """Eight fits at a time, on shared data, each with the bits of a fit alone."""
    X, y = problem_for(twins)

    def fit(seed):
        solver = SOLVERS[seed % 3]
        est = twins.ours(**SMALL | {"random_state": seed, "solver": solver, "max_iter": 40, "n_iter_no_change": 100})
        return parity.weights(est.fit(X, y))

    with warnings.catch_warnings():  # process-wide: not from within the threads
        warnings.simplefilter("ignore")
        alone = [fit(seed) for seed in range(24)]
        with ThreadPoolExecutor(8) as pool:
            at_once = list(pool.map(fit, range(24)))
    for a, b in zip(alone, at_once, strict=True):
        np.testing.assert_array_equal(b, a)


def test_threads_predict_with_one_model(twins):
    X, y = problem_for(twins)
    est = quiet(twins.ours(**SMALL).fit, X, y)
    expected = est.predict(X)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(est.predict, [X] * 64):
            np.testing.assert_array_equal(got, expected)


WIDE = {"hidden_layer_sizes": (300, 200), "max_iter": 3, "random_state": 0, "batch_size": 512}


def _wide_problem():
    rng = np.random.RandomState(0)
    X = rng.randn(1024, 64)
    return X, X[:, 0] * X[:, 1] + rng.randn(1024)


@pytest.mark.parametrize("solver", SOLVERS)
def test_n_jobs_changes_nothing_but_rounding(solver):
    X, y = _wide_problem()
    fits = [quiet(MLPRegressor(solver=solver, n_jobs=n, **WIDE).fit, X, y) for n in (1, 2, 2, -1, None)]
    parity.assert_identical_models(fits[1], fits[2])  # the same number of threads: the same bits
    for est in fits[1:]:
        np.testing.assert_allclose(parity.weights(est), parity.weights(fits[0]), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(est.predict(X), fits[0].predict(X), rtol=1e-6, atol=1e-9)


def test_threads_fit_at_once_with_threads_of_their_own():
    """Four fits at a time that each want two threads: whoever shares a pool must neither hang nor mix."""
    X, y = _wide_problem()

    def fit(seed):
        return parity.weights(MLPRegressor(n_jobs=2, **WIDE | {"random_state": seed}).fit(X, y))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = [fit(seed) for seed in range(4)]
        with ThreadPoolExecutor(4) as pool:
            at_once = list(pool.map(fit, range(4)))
    np.testing.assert_array_equal(at_once, alone)


def _fit_in_child(connection):
    X, y = _wide_problem()
    connection.send(parity.weights(quiet(MLPRegressor(n_jobs=2, **WIDE).fit, X, y)))
    connection.close()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_can_fit():
    """The parent's threads do not exist in the child: whatever pool there is must be made anew."""
    X, y = _wide_problem()
    in_parent = parity.weights(quiet(MLPRegressor(n_jobs=2, **WIDE).fit, X, y))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_fit_in_child, args=(theirs,))
    child.start()
    try:
        assert ours.poll(60), "the child hangs"
        np.testing.assert_array_equal(ours.recv(), in_parent)
    finally:
        child.kill()
        child.join()
    # and the parent's pool has survived the fork
    np.testing.assert_array_equal(parity.weights(quiet(MLPRegressor(n_jobs=2, **WIDE).fit, X, y)), in_parent)


# ------------------------------------------------------------------------------ a real data set


def test_iris():
    X, y = load_iris(return_X_y=True, as_frame=False)
    expected, got = observe_both(
        CLASSIFIER, lambda est: make_pipeline(StandardScaler(), est).fit(X, y).predict_proba(X), random_state=0
    )
    assert_twins_agree(expected, got)
    assert (got.value.argmax(axis=1) == y).mean() > 0.95
