"""Twins: the same calls made on scikit-learn's estimator and on ours, and what came out compared.

Used by test_trajectory.py (whole fits), test_estimators.py, test_bad_input.py (misuse) and others. Nothing
here knows an expected number: scikit-learn, in the same process, is the expectation.
"""

import contextlib
import io
import itertools
import re
import warnings
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import sklearn.neural_network as theirs
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

import fastmlp as ours

CLASSIFIER_TASKS = ("multiclass", "binary", "multilabel")
REGRESSOR_TASKS = ("regression", "multioutput", "poisson")
TASKS = CLASSIFIER_TASKS + REGRESSOR_TASKS
SOLVERS = ("lbfgs", "sgd", "adam")
N_ROWS = 80
N_FEATURES = 6


class Twins(NamedTuple):
    """The two classes of one kind of estimator."""

    theirs: type
    ours: type


CLASSIFIER = Twins(theirs.MLPClassifier, ours.MLPClassifier)
REGRESSOR = Twins(theirs.MLPRegressor, ours.MLPRegressor)


def one_blas_thread():
    """A context for tests of small products: BLAS threads cost them more than they bring."""
    return threadpool_limits(1, user_api="blas")


def twins_of(task):
    return CLASSIFIER if task in CLASSIFIER_TASKS else REGRESSOR


# ---------------------------------------------------------------------------------------- data
class Problem(NamedTuple):
    X: np.ndarray  # (N_ROWS, N_FEATURES), columns standardised, a third of the entries zero
    y: np.ndarray  # (N_ROWS,) or (N_ROWS, n_outputs)
    sample_weight: np.ndarray  # (N_ROWS,), not constant, three rows weigh nothing


def make_problem(task, n_rows=N_ROWS, seed=0):
    """A small noisy problem.

    Noisy on purpose: on data that a network fits perfectly the loss goes to zero, and its relative
    error means nothing. A third of X is zero so that the dense and the sparse case see the same
    matrix.
    """
    rng = np.random.RandomState(seed)
    X = rng.randn(n_rows, N_FEATURES)
    X[rng.uniform(size=X.shape) < 1 / 3] = 0.0
    X /= X.std(axis=0)
    signal = X @ rng.randn(N_FEATURES, 3) / np.sqrt(N_FEATURES)  # (n_rows, 3)
    signal += 0.3 * np.tanh(X[:, :3] * X[:, 3:]) + 0.5 * rng.randn(n_rows, 3)
    y = {
        "multiclass": signal.argmax(axis=1),
        "binary": (signal[:, 0] > 0).astype(int),
        "multilabel": (signal > 0.2).astype(int),
        "regression": signal[:, 0],
        "multioutput": signal,
        "poisson": rng.poisson(np.exp(0.4 * signal[:, 0])).astype(float),
    }[task]
    sample_weight = rng.uniform(0.2, 2.0, n_rows)
    sample_weight[::29] = 0.0
    return Problem(X, y, sample_weight)


def problem_for(twins, dtype=np.float64):
    """-> X (80, 6), y (80,), three classes or one target."""
    X, y, _ = make_problem("multiclass" if twins is CLASSIFIER else "regression")
    return X.astype(dtype), y


def name_of_a_check(check):
    """Return what tells one of scikit-learn's checks of an estimator from the others."""
    return f"{check.func.__name__} {check.keywords}"


# ----------------------------------------------------------------------------------- observation
@dataclass
class Outcome:
    """All that a caller can notice of one call."""

    value: Any = None
    error: BaseException | None = None
    warnings: list = field(default_factory=list)  # (category name, text) in order
    stdout: str = ""


def observe(call, *args, **kwargs):
    """Make a call and note its value or its exception, its warnings and what it printed.

    RuntimeWarnings are left out: "overflow encountered in matmul" names a NumPy function that only
    one of the twins calls.
    """
    out = Outcome()
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always")
        try:
            out.value = call(*args, **kwargs)
        except Exception as error:
            out.error = error
    out.warnings = [(w.category.__name__, str(w.message)) for w in caught if not issubclass(w.category, RuntimeWarning)]
    out.stdout = printed.getvalue()
    return out


def observe_both(twins, scenario, **params):
    """Run scenario(estimator) on both twins, built alike; ours second. -> (theirs, ours).

    Each twin gets its own copy of a RandomState, or it would find the other's state in it.
    """
    outcomes = []
    for cls in twins:
        own = {
            name: _copy_state(value) if isinstance(value, np.random.RandomState) else value
            for name, value in params.items()
        }
        outcomes.append(observe(lambda cls=cls, own=own: scenario(cls(**own))))
    if params.get("n_iter_no_change") == np.inf:  # ours takes max_iter for a plan then
        theirs = outcomes[0]
        theirs.warnings = [(kind, text) for kind, text in theirs.warnings if "Maximum iterations" not in text]
    return tuple(outcomes)


def _copy_state(random_state):
    twin = np.random.RandomState()
    twin.set_state(random_state.get_state())
    return twin


def assert_same_noise(expected, got):
    """Same warnings in the same order, same text printed."""
    assert got.warnings == expected.warnings
    assert got.stdout == expected.stdout


def quiet(call, *args, **kwargs):
    """Call without the warning that so few epochs do not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return call(*args, **kwargs)


def words(error):
    """Type and text of an exception, or None.

    The members of a set are put in order (a set of words has another order in each process, and
    in each history of insertions), addresses and the names of base classes are taken out.
    """
    if error is None:
        return None
    text = re.sub(r" at 0x[0-9a-f]+", "", str(error))
    text = re.sub(r"\{([^{}:]*)\}", lambda m: "{" + ", ".join(sorted(m[1].split(", "))) + "}", text)
    text = re.sub(r"\b(_BaseMLP|BaseMultilayerPerceptron|MLPClassifier|MLPRegressor)\.", "", text)
    return type(error), text


#: What our errors may go on with after scikit-learn's text.
HELP = ("did you mean", "Did you mean", "Valid arguments are", "Write ", "is the parameter")


def assert_same_words(expected, got):
    """Same exception type and text, or no exception; ours may go on with help."""
    theirs, ours = words(expected.error), words(got.error)
    if theirs is None or ours is None:
        assert ours == theirs
        return
    assert ours[0] is theirs[0]
    assert ours[1].startswith(theirs[1])
    more = ours[1].removeprefix(theirs[1])
    assert not more or any(help in more for help in HELP), more


def assert_same_error(expected, got):
    """Same exception type and text; ours may go on with help."""
    assert expected.error is not None, "scikit-learn accepts this: the case shows nothing"
    assert_same_words(expected, got)


# ------------------------------------------------------------------------------------- comparison
# Attributes that must be equal, present or absent alike.
EXACT = ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_")
# Histories of the loss, and of the score where it is an R2.
LOSSES = ("loss_", "best_loss_", "loss_curve_")
SCORES = ("validation_scores_", "best_validation_score_")


# Fitted attributes that scikit-learn does not have.
OURS_ALONE = {"history_", "validation_loss_curve_", "evals_result_", "stopped_by_"}


def fitted_attributes(estimator):
    """Public fitted attributes of scikit-learn's that are there, whether stored or computed."""
    names = {a for a in dir(estimator) if a.endswith("_") and not a.startswith("_")} - OURS_ALONE
    return {a for a in names if hasattr(estimator, a)}


def weights(estimator):
    """coefs_ and intercepts_ as one vector, W first."""
    return np.concatenate([np.ravel(w) for w in (*estimator.coefs_, *estimator.intercepts_)])


class Tolerance(NamedTuple):
    """How far two runs of the same arithmetic in another order may be apart."""

    weights: float  # relative, per weight
    weights_floor: float  # relative to the largest weight
    loss: float  # relative


def tolerance(dtype, n_steps):
    """Tolerances of a run of n_steps updates in dtype.

    float64 is the contract: weights at 1e-6, losses at 1e-8, relative. A weight that passes through
    zero on its way has no relative accuracy: it is a sum of terms as large as its neighbours, and
    each of them carries a rounding error of eps of its own size. Hence the floor: a few eps of the
    largest weight per update, which add up like a random walk.

    float32: that floor alone; a loss, being a mean over rows, is a little better off.
    """
    eps = float(np.finfo(dtype).eps)
    floor = 8 * eps * float(np.sqrt(n_steps))
    if np.dtype(dtype) == np.float64:
        return Tolerance(weights=1e-6, weights_floor=floor, loss=1e-8)
    return Tolerance(weights=0.0, weights_floor=floor, loss=floor / 4)


def amplification(fit, theirs, X, n_tries=4):
    """How far scikit-learn gets away from itself when X moves by one eps.

    For L-BFGS in float32, which divides differences of gradients by one another: how much it
    amplifies a rounding error depends on the problem and no formula says it, so it is measured.
    fit(X) -> scikit-learn's estimator. -> (largest change of a weight relative to the largest
    weight, relative change of the loss)
    """
    rng = np.random.RandomState(0)
    eps = np.finfo(X.dtype).eps
    moved = [fit((X * (1 + eps * rng.choice([-1, 0, 1], X.shape))).astype(X.dtype)) for _ in range(n_tries)]
    w = weights(theirs)
    return (
        max(np.abs(weights(m) - w).max() for m in moved) / np.abs(w).max(),
        max(abs(m.loss_ - theirs.loss_) for m in moved) / abs(theirs.loss_),
    )


def assert_same_weights(theirs, ours, tol):
    """Each W and b alone, so that a failure names the layer."""
    assert len(ours.coefs_) == len(theirs.coefs_)
    assert len(ours.intercepts_) == len(theirs.intercepts_)
    floor = tol.weights_floor * np.abs(weights(theirs)).max()
    for name in ("coefs_", "intercepts_"):
        for i, (expected, got) in enumerate(zip(getattr(theirs, name), getattr(ours, name), strict=True)):
            assert got.shape == expected.shape
            assert got.dtype == expected.dtype
            np.testing.assert_allclose(got, expected, rtol=tol.weights, atol=floor, err_msg=f"{name}[{i}]")


def assert_same_history(theirs, ours, tol):
    """Attributes, counters, losses, scores."""
    assert fitted_attributes(ours) == fitted_attributes(theirs)
    for name in EXACT:
        assert getattr(ours, name, None) == getattr(theirs, name, None), name
    for name in LOSSES:
        expected, got = getattr(theirs, name, None), getattr(ours, name, None)
        if expected is None:
            assert got is None, name
        else:
            np.testing.assert_allclose(got, expected, rtol=tol.loss, err_msg=name)
    for name in SCORES:
        expected, got = getattr(theirs, name, None), getattr(ours, name, None)
        if expected is None:
            assert got is None, name
        elif hasattr(theirs, "classes_"):
            assert got == expected, name  # accuracies are ratios of counts
        else:
            # R2 is 1 minus a ratio: an absolute error where the score is small
            np.testing.assert_allclose(got, expected, rtol=tol.loss, atol=tol.loss, err_msg=name)
    if hasattr(theirs, "classes_"):
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)


def assert_same_private(theirs, ours):
    """What scikit-learn's own tests look at, and the position in the random stream."""
    if hasattr(theirs, "_optimizer"):
        assert ours._training.stopping.count == theirs._no_improvement_count
        np.testing.assert_allclose(ours._training.optimizer.learning_rate, theirs._optimizer.learning_rate, rtol=1e-14)
    # as many numbers drawn, or the next draw would differ
    assert _copy_state(ours._training.random_state).randint(1 << 30) == _copy_state(theirs._random_state).randint(
        1 << 30
    )


def assert_same_predictions(theirs, ours, X, tol):
    """Every prediction method. Outputs move by the weights' error times the width of a layer."""
    width = max(w.shape[0] for w in theirs.coefs_)
    slack = width * max(tol.weights, tol.weights_floor)
    for method in ("predict_proba", "predict_log_proba", "predict"):
        if not hasattr(theirs, method):
            continue
        expected, got = getattr(theirs, method)(X), getattr(ours, method)(X)
        assert got.dtype == expected.dtype, method
        assert got.shape == expected.shape, method
        if method == "predict" and hasattr(theirs, "classes_"):
            np.testing.assert_array_equal(got, expected)
        else:
            assert np.isfinite(expected).all(), "saturated: the case shows nothing"
            scale = np.abs(expected).max()
            np.testing.assert_allclose(got, expected, rtol=slack, atol=slack * scale, err_msg=method)


def assert_same_model(theirs, ours, X, tol):
    """All of the above."""
    assert_same_history(theirs, ours, tol)
    assert_same_private(theirs, ours)
    assert_same_weights(theirs, ours, tol)
    assert_same_predictions(theirs, ours, X, tol)


def assert_twins_agree(expected, got):
    """Two outcomes of observe: arrays or numbers equal to 1e-6, the same warnings, errors and text."""
    for outcome in (expected, got):
        if outcome.error is not None:
            raise outcome.error
    assert_same_noise(expected, got)
    np.testing.assert_allclose(got.value, expected.value, rtol=1e-6, atol=1e-9)


def assert_identical_models(a, b):
    """Two models of one engine: the same bits."""
    np.testing.assert_array_equal(weights(a), weights(b))
    assert a.n_iter_ == b.n_iter_
    if hasattr(a, "loss_curve_"):
        assert a.loss_curve_ == b.loss_curve_


# --------------------------------------------------------------------------------------- protocols
EPOCHS = 22  # a little over the 20 that the contract asks for


def fit(est, X, y, sw):
    return est.fit(X, y)


def fit_weighted(est, X, y, sw):
    return est.fit(X, y, sample_weight=sw)


def fit_twice(est, X, y, sw):
    """Warm start on other rows: the optimizer starts anew, the weights and the history go on."""
    est.set_params(warm_start=True)
    est.fit(X, y)
    return est.fit(X[10:], y[10:])


def fit_in_parts(est, X, y, sw):
    """partial_fit on odd and even rows in turn, with and without weights."""
    first = {"classes": _classes(y)} if hasattr(est, "predict_proba") else {}
    est.partial_fit(X[::2], y[::2], **first)
    for epoch in range(1, 2 * EPOCHS):
        rows = slice(epoch % 2, None, 2)
        weighted = {"sample_weight": sw[rows]} if epoch % 3 == 0 else {}
        est.partial_fit(X[rows], y[rows], **weighted)
    return est


def fit_then_parts(est, X, y, sw):
    """partial_fit after fit keeps the optimizer's state."""
    est.fit(X, y)
    for _ in range(3):
        est.partial_fit(X[::2], y[::2])
    return est


def _classes(y):
    return np.arange(y.shape[1]) if y.ndim == 2 else np.unique(y)


def count_epochs(estimator):
    """Epochs over all calls (L-BFGS: iterations of the last one)."""
    return estimator.n_iter_ if estimator.solver == "lbfgs" else len(estimator.loss_curve_)


def count_steps(estimator, X):
    """Parameter updates that brought a model where it is; a bound, where a call saw fewer rows."""
    if estimator.solver == "lbfgs":
        return estimator.n_iter_
    n = X.shape[0]
    batch = min(200, n) if estimator.batch_size == "auto" else min(estimator.batch_size, n)
    return count_epochs(estimator) * -(-n // batch)


def as_container(X, kind):
    """X as the named container: dense, csr, csc (matrices) or csr_array, csc_array."""
    if kind == "dense":
        return X
    return getattr(sp, kind if kind.endswith("_array") else f"{kind}_matrix")(X)


def product(**levels):
    """Dicts of the full product of the given levels."""
    for values in itertools.product(*levels.values()):
        yield dict(zip(levels, values, strict=True))
