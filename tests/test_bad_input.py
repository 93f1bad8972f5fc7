"""Misuse: whatever scikit-learn rejects or warns about, we do in the same words.

A table of misuses; each is committed on scikit-learn's class and on ours, and exception type, text,
warnings and output are compared. The texts themselves are nowhere in this file, but for those of
what scikit-learn does not have: backend, n_jobs, and networks that fit no memory. Rows without weight, which
scikit-learn rejects batch by batch, are in test_weightless.py. Parameters that
accept more than scikit-learn's are refused in the same way, with other valid values listed; what is
new altogether is in test_bad_options.py.
"""

import re
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.utils._param_validation import InvalidParameterError

from fastmlp import MLPClassifier
from fastmlp.engines import backends

import parity
from parity import CLASSIFIER, REGRESSOR, observe, observe_both, words
from tiers import each_value_once, label

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SMALL = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}
TWINS = {"classifier": CLASSIFIER, "regressor": REGRESSOR}
X, Y_CLASSES, WEIGHT = parity.make_problem("multiclass")  # X (80, 6), y (80,)
Y_BY_KIND = {"classifier": Y_CLASSES, "regressor": parity.make_problem("regression").y}


# ------------------------------------------------------------------------------------- parameters

NOT_A_NUMBER = ["no", None, (1,), np.nan]
BAD_PARAMETERS = {
    "hidden_layer_sizes": [0, -1, (0,), (3, -2), (5, 0), [-1], np.array([4, 0]), 2.5, "no", None],
    "activation": ["swish", "Relu", None, 1, np.tanh],
    "solver": ["sag", "SGD", None, 0],
    "alpha": [-1e-9, -1, *NOT_A_NUMBER],
    "batch_size": [0, -1, 2.5, "all", None, (1,)],
    "learning_rate": ["cyclic", None, 0.1],
    "learning_rate_init": [0, -0.1, *NOT_A_NUMBER],
    "power_t": [-0.5, *NOT_A_NUMBER],
    "max_iter": [0, -3, 2.5, np.inf, "no", None],
    "shuffle": ["yes", None, 1, 0.0],
    "random_state": [-1, "seed", 0.5, [1, 2]],
    "tol": [-1e-9, *NOT_A_NUMBER],
    "verbose": [-1, "yes", 0.5, None],
    "warm_start": ["yes", None, 2],
    "momentum": [-0.1, 1.1, *NOT_A_NUMBER],
    "nesterovs_momentum": ["yes", None, 2],
    "early_stopping": ["yes", None, 2],
    "validation_fraction": [-0.1, 1, 1.5, *NOT_A_NUMBER],
    "beta_1": [-0.1, 1, *NOT_A_NUMBER],
    "beta_2": [-0.1, 1, *NOT_A_NUMBER],
    "epsilon": [0, -1e-8, *NOT_A_NUMBER],
    "n_iter_no_change": [0, -1, 2.5, -np.inf, np.nan, "no", None],
    "max_fun": [0, -1, 2.5, "no", None],
}
# what is neither wrong nor usual: accepted, or rejected later, by both alike
ODD_PARAMETERS = {
    "hidden_layer_sizes": [(), [], 3, {3: 4}, np.array([3, 2]), np.int64(3), (np.int32(2), 3), range(2, 4)],
    "alpha": [0, np.inf, np.float32(0.1), True],
    "batch_size": [1, 80, 81, 10**6, np.int64(7), True],
    "learning_rate_init": [np.inf, 1, np.float32(0.01)],
    "power_t": [0, 1],
    "max_iter": [np.int64(2), True],
    "shuffle": [np.bool_(False)],
    "random_state": [None, np.int64(3), np.random.RandomState(5)],
    "tol": [0, np.inf, 1],
    "verbose": [False, np.int64(0)],
    "momentum": [0, 1],
    "validation_fraction": [0, 0.5],
    "beta_1": [0],
    "beta_2": [0],
    "epsilon": [np.inf, 1],
    "n_iter_no_change": [np.inf, 1, np.int64(2)],
    "max_fun": [1, np.int64(5)],
}


# Ours list more valid values, and some take pairs, sequences, callables or formulas.
ACCEPT_MORE = {"activation", "solver", "learning_rate", "loss", "shuffle"}


def _rows(table):
    return [
        pytest.param(name, value, id=label(f"{name}={value!r}")) for name, values in table.items() for value in values
    ]


@pytest.mark.covers("name value")
@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize(("name", "value"), _rows(BAD_PARAMETERS))
def test_bad_parameter(kind, name, value):
    expected, got = observe_both(TWINS[kind], lambda est: est.fit(X, Y_BY_KIND[kind]), **SMALL | {name: value})
    if name in ACCEPT_MORE:
        assert_refused_alike(name, value, expected, got)
    else:
        parity.assert_same_error(expected, got)


def assert_refused_alike(name, value, expected, got):
    """The same exception and frame of words, and every value of theirs among ours."""
    assert type(got.error) is type(expected.error)
    theirs, ours = words(expected.error)[1], words(got.error)[1]
    assert ours.startswith(re.split(r"\{|an instance", theirs)[0])  # up to what is allowed
    assert set(re.findall(r"'\w+'", theirs)) <= set(re.findall(r"'\w+'", ours))
    assert f"Got {value!r} instead" in ours


@pytest.mark.parametrize("value", ["mean_error", "log_loss", None, 1])
def test_bad_loss(value):
    expected, got = observe_both(REGRESSOR, lambda est: est.fit(X, Y_BY_KIND["regressor"]), **SMALL | {"loss": value})
    assert_refused_alike("loss", value, expected, got)


@pytest.mark.covers("name value", "kind solver")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("solver", ["lbfgs", "sgd", "adam"])
@pytest.mark.parametrize(("name", "value"), _rows(ODD_PARAMETERS))
def test_odd_parameter(kind, solver, name, value):
    """Accepted or rejected alike, with the same weights."""
    params = SMALL | {"solver": solver, "early_stopping": name == "validation_fraction"} | {name: value}
    if name == "random_state" and value is None:
        params["max_iter"] = 1

    expected, got = observe_both(TWINS[kind], lambda est: est.fit(X, Y_BY_KIND[kind]), **params)
    parity.assert_same_words(expected, got)
    parity.assert_same_noise(expected, got)
    if expected.error is None and (name, value) != ("random_state", None):
        np.testing.assert_allclose(parity.weights(got.value), parity.weights(expected.value), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", TWINS)
def test_every_parameter_of_theirs_is_in_the_table(kind):
    assert BAD_PARAMETERS.keys() == TWINS[kind].theirs().get_params().keys() - {"loss"}


@pytest.mark.parametrize("kind", TWINS)
def test_unknown_parameter(kind):
    for call in (lambda est: est.set_params(lr=1), lambda est: type(est)(lr=1)):
        expected, got = observe_both(TWINS[kind], call)
        assert type(got.error) is type(expected.error)
    # the valid names, which set_params lists, are more than theirs
    assert str(observe(TWINS[kind].ours().set_params, lr=1).error).startswith(
        "Invalid parameter 'lr' for estimator MLP"
    )


def test_hidden_sizes_by_position():
    """The regressor's first argument is the loss, the classifier's the sizes: mixing them up is an error."""
    expected, got = (observe(lambda cls=cls: cls((5,)).fit(X, Y_BY_KIND["regressor"])) for cls in REGRESSOR)
    assert isinstance(expected.error, InvalidParameterError)
    assert isinstance(got.error, ValueError) and "loss=(5,) is unknown" in str(got.error)


# ------------------------------------------------------------------------------------------- data


def _with(value, at=(3, 2)):
    Z = X.copy()
    Z[at] = value
    return Z


def _y_with(value):
    y = Y_BY_KIND["regressor"].copy()
    y[7] = value
    return y


def _fit(X_bad=X, y=None, sample_weight=None):
    """A scenario that fits on these."""

    def fit(est):
        kind = "classifier" if hasattr(est, "predict_proba") else "regressor"
        return est.fit(X_bad, Y_BY_KIND[kind] if y is None else y, sample_weight)

    return fit


def _then(method, X_bad):
    """A scenario that fits on good data and then calls a method with bad data."""

    def call(est):
        return getattr(_fit()(est), method)(X_bad)

    return call


BAD_DATA = {
    "X nan": _fit(_with(np.nan)),
    "X inf": _fit(_with(np.inf)),
    "X -inf": _fit(_with(-np.inf)),
    "X nan float32": _fit(_with(np.nan).astype(np.float32)),
    "X inf float16": _fit(_with(np.inf).astype(np.float16)),
    "X nan sparse": _fit(sp.csr_matrix(_with(np.nan))),
    "X inf csc": _fit(sp.csc_array(_with(np.inf))),
    "X None": _fit(None),
    "X 1-D": _fit(X[:, 0]),
    "X 0-D": _fit(np.float64(3)),
    "X 3-D": _fit(X.reshape(80, 3, 2)),
    "X no rows": _fit(X[:0], Y_CLASSES[:0]),
    "X no columns": _fit(X[:, :0]),
    "X no columns sparse": _fit(sp.csr_matrix((80, 0))),
    "X complex": _fit(X + 1j),
    "X strings": _fit(np.full(X.shape, "word")),
    "X objects": _fit(np.full(X.shape, object())),
    "X dict": _fit({"a": 1}),
    "X ragged": _fit([[1, 2], [3]], [0, 1]),
    "X coo": _fit(sp.coo_matrix(X)),
    "X lil": _fit(sp.lil_matrix(X)),
    "X dates": _fit(np.zeros(X.shape, dtype="datetime64[s]")),
    "X structured": _fit(np.zeros(80, dtype=[("a", float), ("b", float)])),
    "X one row": _fit(X[:1], [1]),
    "X masked": _fit(np.ma.masked_array(X, mask=X > 1)),
    "rows differ": _fit(X[:-1]),
    "y shorter": _fit(y=Y_CLASSES[:-1]),
    "y None": lambda est: est.fit(X, None),
    "y empty": _fit(y=[]),
    "y 0-D": _fit(y=3),
    "y 3-D": _fit(y=np.zeros((80, 2, 2))),
    "y column": _fit(y=Y_CLASSES[:, None]),
    "y nan": _fit(y=_y_with(np.nan)),
    "y inf": _fit(y=_y_with(np.inf)),
    "y None inside": _fit(y=[None] * 80),
    "y complex": _fit(y=Y_CLASSES + 1j),
    "y strings": _fit(y=np.where(Y_CLASSES > 0, "yes", "no")),
    "y mixed": _fit(y=np.array([1, "a"] * 40, dtype=object)),
    "y numbers as objects": _fit(y=Y_CLASSES.astype(object)),
    "y numbers as strings": _fit(y=Y_CLASSES.astype(str)),
    "y continuous": _fit(y=Y_BY_KIND["regressor"]),
    "y many classes": _fit(y=np.arange(80)),
    "y multiclass-multioutput": _fit(y=np.column_stack([Y_CLASSES, Y_CLASSES[::-1]])),
    "y continuous-multioutput": _fit(y=np.column_stack([Y_BY_KIND["regressor"]] * 2)),
    "y list of label sets": _fit(y=[(0, 1), (2,)] * 40),
    "y one label column": _fit(y=(Y_CLASSES > 0).astype(int)[:, None]),
    "y all labels zero": _fit(y=np.zeros((80, 3), dtype=int)),
    "y no label columns": _fit(y=np.zeros((80, 0), dtype=int)),
    "y sparse": _fit(y=sp.csr_matrix(np.eye(3, dtype=int)[Y_CLASSES])),
    "y dates": _fit(y=np.zeros(80, dtype="datetime64[s]")),
    "y bool": _fit(y=Y_CLASSES > 0),
    "weight shorter": _fit(sample_weight=WEIGHT[:-1]),
    "weight 2-D": _fit(sample_weight=WEIGHT[:, None]),
    "weight 3-D": _fit(sample_weight=np.ones((80, 1, 1))),
    "weight nan": _fit(sample_weight=np.where(WEIGHT > 1, np.nan, 1)),
    "weight inf": _fit(sample_weight=np.where(WEIGHT > 1, np.inf, 1)),
    "weight strings": _fit(sample_weight=["a"] * 80),
    "weight complex": _fit(sample_weight=WEIGHT + 1j),
    "weight zero": _fit(sample_weight=np.zeros(80)),
    "weight scalar zero": _fit(sample_weight=0),
    "weight sums to zero": _fit(sample_weight=np.resize([1.0, -1.0], 80)),
    "weight None inside": _fit(sample_weight=[None] * 80),
    "predict fewer features": _then("predict", X[:, :-1]),
    "predict more features": _then("predict", np.hstack([X, X])),
    "predict more features csr": _then("predict", sp.csr_matrix(np.hstack([X, X]))),
    "predict 1-D": _then("predict", X[0]),
    "predict nan": _then("predict", _with(np.nan)),
    "predict inf sparse": _then("predict", sp.csr_matrix(_with(np.inf))),
    "predict no rows": _then("predict", X[:0]),
    "predict None": _then("predict", None),
    "predict complex": _then("predict", X + 1j),
    "predict strings": _then("predict", np.full(X.shape, "word")),
    "predict coo": _then("predict", sp.coo_matrix(X)),
    "predict before fit": lambda est: est.predict(X),
    "score before fit": lambda est: est.score(X, Y_CLASSES),
    "score rows differ": lambda est: _fit()(est).score(X, Y_CLASSES[:-1]),
    "refit other width": lambda est: _fit()(_fit(X[:, :3])(est)).predict(X[:, :3]),
    "fit without y": lambda est: est.fit(X),
    "fit unknown keyword": lambda est: est.fit(X, Y_CLASSES, weights=1),
}


# Rejected by scikit-learn by accident, deep inside linear algebra or a mean: rejected by us in words of our own.
ACCIDENTS = {("regressor", "y sparse"), *((kind, "weight sums to zero") for kind in TWINS)}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@each_value_once
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("misuse", BAD_DATA)
def test_bad_data(kind, misuse, solver):
    """The same exception and the same words, or none and the same result."""
    expected, got = observe_both(TWINS[kind], BAD_DATA[misuse], solver=solver, **SMALL)
    if (kind, misuse) in ACCIDENTS:
        assert isinstance(expected.error, np.linalg.LinAlgError | ZeroDivisionError)
        assert isinstance(got.error, TypeError | ValueError)
    else:
        _assert_same_outcome(expected, got)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("solver", ["lbfgs", "sgd", "adam"])
@pytest.mark.parametrize("y", [np.linspace(-1, 3, 80), np.zeros(80), np.full(80, 1e300)], ids=["negative", "0", "huge"])
def test_targets_that_are_no_counts(solver, y):
    """scikit-learn does not check Poisson targets: the loss of a negative one is NaN, its gradient is not."""
    expected, got = observe_both(
        REGRESSOR, lambda est: est.fit(X, y), **SMALL | {"loss": "poisson", "solver": solver, "max_iter": 8}
    )
    _assert_same_outcome(expected, got)
    if expected.error is None:
        for name in ("loss_", "loss_curve_", "best_loss_"):
            if hasattr(expected.value, name):
                np.testing.assert_allclose(getattr(got.value, name), getattr(expected.value, name), rtol=1e-8)


def _assert_same_outcome(expected, got):
    parity.assert_same_words(expected, got)
    parity.assert_same_noise(expected, got)
    theirs, ours = expected.value, got.value
    if hasattr(theirs, "coefs_"):
        theirs, ours = parity.weights(theirs), parity.weights(ours)
    if np.asarray(theirs).dtype.kind in "fc":
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)
    elif expected.error is None:
        np.testing.assert_array_equal(ours, theirs)


def test_most_of_the_table_is_rejected():
    """The table would be worth little if scikit-learn accepted most of it."""
    rejected = {
        kind: sum(observe(misuse, twins.theirs(**SMALL)).error is not None for misuse in BAD_DATA.values())
        for kind, twins in TWINS.items()
    }
    assert min(rejected.values()) > 45, rejected


# --------------------------------------------------------------------------- sequences of calls


def _partial_fits(*calls):
    """A scenario of partial_fit calls, each a dict of its arguments."""

    def run(est):
        for call in calls:
            est.partial_fit(**call)
        return est

    return run


FEW = {"X": X[:20], "y": Y_CLASSES[:20]}
SEQUENCES = {
    "partial_fit without classes": _partial_fits(FEW),
    "partial_fit other classes": _partial_fits(FEW | {"classes": [0, 1, 2]}, FEW | {"classes": [0, 1, 3]}),
    "partial_fit same classes again": _partial_fits(FEW | {"classes": [0, 1, 2]}, FEW | {"classes": [0, 1, 2]}),
    "partial_fit unseen class": _partial_fits(FEW | {"classes": [0, 1, 2]}, {"X": X[:3], "y": [0, 1, 5]}),
    "partial_fit y outside classes": _partial_fits(FEW | {"classes": [0, 1]}),
    "partial_fit one class of three": _partial_fits({"X": X[:3], "y": [1, 1, 1], "classes": [0, 1, 2]}),
    "partial_fit classes unsorted": _partial_fits(FEW | {"classes": [2, 0, 1]}),
    "partial_fit classes twice": _partial_fits(FEW | {"classes": [0, 0, 1, 2]}),
    "partial_fit classes strings": _partial_fits(FEW | {"classes": ["a", "b"]}),
    "partial_fit single class": _partial_fits({"X": X[:3], "y": [1, 1, 1], "classes": [1]}),
    "partial_fit other width": _partial_fits(FEW | {"classes": [0, 1, 2]}, {"X": X[:, :2], "y": Y_CLASSES}),
    "partial_fit nan": _partial_fits({"X": _with(np.nan), "y": Y_CLASSES, "classes": [0, 1, 2]}),
    "partial_fit rows differ": _partial_fits({"X": X, "y": Y_CLASSES[:3], "classes": [0, 1, 2]}),
    "partial_fit multilabel": _partial_fits(
        {"X": X, "y": np.eye(3, dtype=int)[Y_CLASSES], "classes": [0, 1, 2]}, {"X": X, "y": Y_CLASSES}
    ),
    "fit, then partial_fit other classes": lambda est: est.fit(X, Y_CLASSES).partial_fit(X, Y_CLASSES + 1),
    "fit, then partial_fit with classes": lambda est: est.fit(X, Y_CLASSES).partial_fit(
        X, Y_CLASSES, classes=[0, 1, 2]
    ),
    "fit, then partial_fit fewer features": lambda est: est.fit(X, Y_CLASSES).partial_fit(X[:, 1:], Y_CLASSES),
    "fit, then partial_fit other hidden sizes": lambda est: (
        est.fit(X, Y_CLASSES).set_params(alpha=0.5).partial_fit(X, Y_CLASSES)
    ),
    "warm start fewer classes": lambda est: (
        est.set_params(warm_start=True).fit(X, Y_CLASSES).fit(X, np.minimum(Y_CLASSES, 1))
    ),
    "warm start more classes": lambda est: (
        est.set_params(warm_start=True).fit(X, np.minimum(Y_CLASSES, 1)).fit(X, Y_CLASSES)
    ),
    "warm start renamed classes": lambda est: (
        est.set_params(warm_start=True).fit(X, Y_CLASSES).fit(X, np.array(["a", "b", "c"])[Y_CLASSES])
    ),
    "warm start other width": lambda est: est.set_params(warm_start=True).fit(X, Y_CLASSES).fit(X[:, 1:], Y_CLASSES),
    "warm start partial_fit missing class": lambda est: (
        est.set_params(warm_start=True).fit(X, Y_CLASSES).partial_fit(X[:3], [0, 0, 1])
    ),
    "early stopping partial_fit": lambda est: est.set_params(early_stopping=True).partial_fit(X, Y_CLASSES),
    "early stopping fit, then partial_fit": lambda est: (
        est.set_params(early_stopping=True).fit(X, Y_CLASSES).partial_fit(X, Y_CLASSES)
    ),
    "early stopping tiny validation set": lambda est: est.set_params(early_stopping=True, validation_fraction=0.01).fit(
        X, Y_CLASSES
    ),
    "early stopping no validation set": lambda est: est.set_params(early_stopping=True, validation_fraction=0.0).fit(
        X, Y_CLASSES
    ),
    "early stopping two rows": lambda est: est.set_params(early_stopping=True).fit(X[:2], [0, 1]),
    "early stopping one row": lambda est: est.set_params(early_stopping=True).fit(X[:1], [0]),
    "early stopping rare class": lambda est: est.set_params(early_stopping=True).fit(X[:20], np.arange(20) == 3),
    "early stopping rare string class": lambda est: est.set_params(early_stopping=True).fit(
        X[:20], np.where(np.arange(20) == 3, "rare", "usual")
    ),
    "early stopping rare of three": lambda est: est.set_params(early_stopping=True).fit(
        X[:20], np.r_[0, np.ones(9), np.full(10, 2)].astype(int)
    ),
    "early stopping zero weights": lambda est: est.set_params(early_stopping=True).fit(
        X, Y_CLASSES, sample_weight=np.arange(80) < 2
    ),
    "batch larger than n": lambda est: est.set_params(batch_size=81).fit(X, Y_CLASSES),
    "batch larger than the training part": lambda est: est.set_params(batch_size=80, early_stopping=True).fit(
        X, Y_CLASSES
    ),
    "lbfgs partial_fit": lambda est: est.set_params(solver="lbfgs").partial_fit(X, Y_CLASSES),
    "lbfgs hasattr": lambda est: str(hasattr(est.set_params(solver="lbfgs"), "partial_fit")),
    "bad solver hasattr": lambda est: str(hasattr(est.set_params(solver="none"), "partial_fit")),
    "lbfgs fit, then sgd partial_fit": lambda est: (
        est.set_params(solver="lbfgs").fit(X, Y_CLASSES).set_params(solver="sgd").partial_fit(X, Y_CLASSES)
    ),
    "does not converge": lambda est: est.fit(X, Y_CLASSES),
    "lbfgs does not converge": lambda est: est.set_params(solver="lbfgs").fit(X, Y_CLASSES),
    "lbfgs too few evaluations": lambda est: est.set_params(solver="lbfgs", max_fun=2, max_iter=100).fit(X, Y_CLASSES),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_sequence_of_calls(kind, sequence, solver):
    expected, got = observe_both(TWINS[kind], SEQUENCES[sequence], solver=solver, **SMALL)
    _assert_same_outcome(expected, got)


def _state_after(failing):
    """A scenario that fits, fails, and then shows what is left."""

    def run(est):
        est.fit(X, Y_CLASSES)
        outcome = observe(failing, est)
        assert outcome.error is not None
        return parity.weights(est)

    return run


@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("misuse", ["X nan", "y shorter", "weight shorter", "predict before fit"])
def test_a_failed_call_leaves_the_model_alone(kind, misuse):
    failing = BAD_DATA[misuse] if "before" not in misuse else (lambda est: est.predict(X[:, 1:]))
    expected, got = observe_both(TWINS[kind], _state_after(failing), **SMALL)
    _assert_same_outcome(expected, got)


# ----------------------------------------------------------------------------------- divergence

UNIT = X / np.abs(X).max()
DIVERGING = {
    "huge X": ({"solver": "adam"}, UNIT * np.finfo(float).max),
    "huge X in float32": (
        {"solver": "sgd", "activation": "identity"},
        UNIT.astype(np.float32) * np.finfo(np.float32).max,
    ),
    "huge rate": ({"solver": "sgd", "learning_rate_init": 1e200, "momentum": 0.0, "activation": "identity"}, X),
    "huge X in lbfgs": ({"solver": "lbfgs"}, UNIT * 1e200),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", DIVERGING)
def test_divergence(case):
    params, X_huge = DIVERGING[case]
    y = Y_BY_KIND["regressor"]
    expected, got = observe_both(REGRESSOR, lambda est: est.fit(X_huge, y), **SMALL | params)
    if case != "huge X in lbfgs":
        assert "non-finite parameter weights" in str(expected.error)
    parity.assert_same_words(expected, got)
    parity.assert_same_noise(expected, got)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", TWINS)
def test_divergence_under_early_stopping(kind):
    """The last finite weights are restored: no error, and the scores turn to NaN."""
    params = {"solver": "sgd", "learning_rate_init": 1e30, "activation": "identity", "early_stopping": True}
    expected, got = observe_both(
        TWINS[kind], lambda est: est.fit(X * 1e3, Y_BY_KIND[kind]), **SMALL | params | {"max_iter": 12}
    )
    parity.assert_same_words(expected, got)
    parity.assert_same_noise(expected, got)
    if expected.error is None:
        scores = expected.value.validation_scores_
        if kind == "regressor":
            assert str(np.nan) in map(str, scores)
        np.testing.assert_allclose(got.value.validation_scores_, scores, rtol=1e-8)


# --------------------------------------------------------------------- what scikit-learn lacks


@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("backend", ["cuda9000", "", "Cython", "reference "])
def test_unknown_backend(kind, backend):
    est = TWINS[kind].ours(backend=backend, **SMALL)
    with pytest.raises(ValueError) as caught:
        est.fit(X, Y_BY_KIND[kind])
    assert repr(backend) in str(caught.value)
    for name in ("auto", *backends.available()):
        assert repr(name) in str(caught.value), "the message lists what there is"


@pytest.mark.parametrize("backend", [None, 3, np.tanh, ["cython"]])
def test_backend_of_the_wrong_type(backend):
    with pytest.raises(InvalidParameterError, match="The 'backend' parameter of MLPClassifier must be"):
        MLPClassifier(backend=backend, **SMALL).fit(X, Y_CLASSES)


def test_backend_that_does_not_import(monkeypatch):
    """Known, but not installed: ImportError that says what to install."""
    row = backends.Row("fastmlp.kernels.no_such_engine", "pip install fastmlp[exotic]")
    monkeypatch.setitem(backends.BACKENDS, "exotic", row)
    with pytest.raises(ImportError, match=r"exotic.*pip install fastmlp\[exotic\]"):
        MLPClassifier(backend="exotic", **SMALL).fit(X, Y_CLASSES)
    assert "exotic" not in backends.available()


@pytest.mark.parametrize("n_jobs", [0, "a", 1.5, np.nan, [1], True + 0.5])
@pytest.mark.parametrize("kind", TWINS)
def test_bad_n_jobs(kind, n_jobs):
    with pytest.raises(InvalidParameterError, match=r"The 'n_jobs' parameter of MLP\w+ must be .* Got .* instead"):
        TWINS[kind].ours(n_jobs=n_jobs, **SMALL).fit(X, Y_BY_KIND[kind])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_jobs", [None, 1, 2, -1, -2, -1000, 1000, np.int64(2)])
def test_good_n_jobs(n_jobs):
    MLPClassifier(n_jobs=n_jobs, **SMALL).fit(X, Y_CLASSES).predict(X)


TOO_LARGE = [(10**9, 10**9), (10**30,), 10**18, (2**31, 2**31), (2**62, 4), (2**63,), (2**64 + 1, 3), (10**7,) * 3]


@pytest.mark.parametrize(("kind", "solver", "sizes"), list(product(TWINS, ["adam", "lbfgs"], TOO_LARGE)))
def test_networks_that_no_memory_holds(kind, solver, sizes):
    """Refused by name before anything is allocated; sizes that overflow 32 or 64 bits do not come out small."""
    est = TWINS[kind].ours(hidden_layer_sizes=sizes, solver=solver, max_iter=1)
    with pytest.raises(MemoryError) as caught:
        est.fit(X, Y_BY_KIND[kind])
    for size in np.atleast_1d(np.array(sizes, dtype=object)):
        assert str(size) in str(caught.value)


def test_a_network_of_another_shape_than_its_weights():
    """Weights that do not fit one another or X are refused, not read out of bounds."""
    fitted = observe(MLPClassifier(**SMALL).fit, X, Y_CLASSES).value
    for spoil in (
        lambda est: est.coefs_.__setitem__(0, est.coefs_[0][:-1]),
        lambda est: est.coefs_.__setitem__(0, est.coefs_[0][:, :-1].copy()),
        lambda est: est.coefs_.__setitem__(1, est.coefs_[1].T.copy()),
        lambda est: est.coefs_.__setitem__(1, est.coefs_[1].ravel()),
        lambda est: est.intercepts_.__setitem__(0, est.intercepts_[0][:-1]),
        lambda est: est.intercepts_.__setitem__(1, np.zeros((3, 2))),
        lambda est: est.intercepts_.pop(),
        lambda est: est.coefs_.pop(),
        lambda est: est.coefs_.append(np.ones((3, 3))),
    ):
        est = observe(MLPClassifier(**SMALL).fit, X, Y_CLASSES).value
        spoil(est)
        for call in (lambda est=est: est.predict(X), lambda est=est: est.partial_fit(X, Y_CLASSES)):
            outcome = observe(call)
            assert isinstance(outcome.error, ValueError), outcome
    np.testing.assert_array_equal(fitted.predict(X).shape, (80,))


def test_weights_that_are_no_numbers():
    for bad in (np.nan, np.inf):
        est = observe(MLPClassifier(**SMALL).fit, X, Y_CLASSES).value
        est.coefs_[0][0, 0] = bad
        outcome = observe(est.partial_fit, X, Y_CLASSES)
        assert "non-finite parameter weights" in str(outcome.error)
    est.coefs_[0] = est.coefs_[0].astype(object)
    est.coefs_[0][0, 0] = "word"
    assert isinstance(observe(est.predict, X).error, ValueError | TypeError)
