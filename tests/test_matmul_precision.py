"""The parameter matmul_precision: what it takes, where it is kept; no engine computes less than it asks for."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone

import fastmlp
from fastmlp import (
    MLPClassifier,
    MLPRegressor,
    RealMLPClassifier,
    RealMLPRegressor,
    TabMClassifier,
    TabMRegressor,
    to_sklearn,
)
from fastmlp.engines import backends
from fastmlp.estimator.parameters import CONSTRAINTS
from fastmlp.model.network import MATMUL_PRECISIONS, Network
from fastmlp.persistence import load, save
from fastmlp.training.head import Head

import parity

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

BELOW = MATMUL_PRECISIONS[1:]
PLAIN = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
ALL = [
    (MLPClassifier, PLAIN),
    (MLPRegressor, PLAIN),
    (RealMLPClassifier, PLAIN),
    (RealMLPRegressor, PLAIN),
    (TabMClassifier, PLAIN | {"k": 3}),
    (TabMRegressor, PLAIN | {"k": 3}),
]
each_estimator = pytest.mark.parametrize("cls, given", ALL, ids=lambda value: getattr(value, "__name__", ""))

RNG = np.random.RandomState(0)
X = RNG.randn(90, 5).astype(np.float32)
LABELS = RNG.randint(0, 3, 90)
VALUES = X[:, 0] - 2 * X[:, 1]


def targets(cls):
    return LABELS if cls.__name__.endswith("Classifier") else VALUES


def outputs(estimator, rows=X):
    return getattr(estimator, "predict_proba", estimator.predict)(rows)


def plain_network(**given):
    return Network((5, 8, 3), ("relu",), "log_loss", np.dtype(np.float32), **given)


# --- bad input --------------------------------------------------------------------------------------------------------


@each_estimator
@pytest.mark.parametrize("wrong", ["low", "HIGH", "", None, True, 32, ["high"], "bf16"])
def test_unknown_precisions_are_refused(cls, given, wrong):
    with pytest.raises(ValueError, match=f"'matmul_precision' parameter of {cls.__name__} must be .*'high'.*'medium'"):
        cls(**given, matmul_precision=wrong).fit(X, targets(cls))


@each_estimator
@pytest.mark.parametrize("precision", BELOW)
def test_float64_has_the_highest_only(cls, given, precision):
    est = cls(**given, matmul_precision=precision)
    rows = X.astype(np.float64)
    if hasattr(est, "dtype"):
        est.set_params(dtype="float64")
    with pytest.raises(ValueError, match=f"matmul_precision='{precision}' is for float32, .* float64.* 'highest' only"):
        est.fit(rows, targets(cls))
    cls(**est.get_params() | {"matmul_precision": "highest"}).fit(rows, targets(cls))


@pytest.mark.parametrize("call", ["partial_fit", "fit"])
def test_lbfgs_has_the_highest_only(call):
    with pytest.raises(ValueError, match="matmul_precision='high' makes no sense with solver='lbfgs': it computes in"):
        getattr(MLPRegressor(**PLAIN, solver="lbfgs", matmul_precision="high"), call)(X, VALUES)


def test_partial_fit_and_warm_start_refuse_float64():
    est = MLPRegressor(**PLAIN, warm_start=True).fit(X.astype(np.float64), VALUES)
    for call in (est.partial_fit, est.fit):
        with pytest.raises(ValueError, match="matmul_precision='medium' is for float32"):
            est.set_params(matmul_precision="medium")
            call(X.astype(np.float64), VALUES)


@pytest.mark.parametrize("wrong", ["low", None, 3, b"high"])
def test_a_network_refuses_them(wrong):
    with pytest.raises(ValueError, match=r"matmul_precision must be one of \('highest', 'high', 'medium'\), got"):
        plain_network(matmul_precision=wrong)
    with pytest.raises(ValueError, match="is for float32, but this network is float64"):
        Network((5, 3), (), "log_loss", np.dtype(np.float64), matmul_precision="high")


def test_a_likely_name_gets_a_hint():
    with pytest.raises((TypeError, ValueError), match="matmul_precision"):
        MLPClassifier().set_params(float32_matmul_precision="high")


# --- where it is kept -------------------------------------------------------------------------------------------------


@each_estimator
def test_predictions_and_files_carry_it(cls, given, tmp_path):
    est = cls(**given, matmul_precision="high").fit(X, targets(cls))
    assert clone(est).matmul_precision == "high"
    save(est, tmp_path / "model.safetensors")
    for kept in (est, load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(est))):
        assert kept.matmul_precision == kept._fitted_network().matmul_precision == "high"
        np.testing.assert_array_equal(outputs(kept), outputs(est))


def test_predictions_follow_the_parameter():
    est = MLPRegressor(**PLAIN).fit(X, VALUES)
    before = est.predict(X)
    est.set_params(matmul_precision="medium").predict(X)
    [prediction] = est._idle_predictions
    assert prediction.network.matmul_precision == "medium"
    np.testing.assert_array_equal(est.set_params(matmul_precision="highest").predict(X), before)


def test_rows_of_float64_are_predicted_in_float64():
    est = MLPRegressor(**PLAIN, matmul_precision="medium").fit(X, VALUES)
    exact = clone(est).set_params(matmul_precision="highest").fit(X, VALUES)
    exact.coefs_, exact.intercepts_ = est.coefs_, est.intercepts_
    rows = X.astype(np.float64)
    np.testing.assert_array_equal(est.predict(rows), exact.predict(rows))


@each_estimator
def test_the_summary_says_it(cls, given):
    est = cls(**given, matmul_precision="high").fit(X, targets(cls))
    assert fastmlp.summary(est).title.endswith(", matmul_precision high")
    assert "matmul_precision" not in str(fastmlp.summary(cls(**given).fit(X, targets(cls))))


def test_ensembles_have_it():
    est = MLPClassifier(**PLAIN, n_ens=2, matmul_precision="high").fit(X, LABELS)
    assert [member.matmul_precision for member in est.estimators_] == ["high", "high"]


def test_scikit_learn_has_no_such_thing():
    with pytest.raises(ValueError, match="matmul_precision='high'"):
        to_sklearn(MLPClassifier(matmul_precision="high"))
    with pytest.warns(UserWarning, match="matmul_precision='high'"):
        theirs = to_sklearn(MLPRegressor(**PLAIN, matmul_precision="high").fit(X, VALUES))
    assert theirs.predict(X).shape == (90,)


def test_other_dtypes_of_a_network():
    network = plain_network(matmul_precision="high")
    assert network.with_dtype(np.float32) is network
    assert network.with_dtype(np.float64).matmul_precision == "highest"
    assert network.plain.matmul_precision == "high"
    assert network.with_precision("medium") == plain_network(matmul_precision="medium")
    assert replace(network, dropout=0.5).plain.matmul_precision == "high"
    assert Head(backends.get("reference"), network)._network.matmul_precision == "highest"  # losses stay float32


def test_it_is_the_last_parameter():
    """Nobody's positional arguments move."""
    assert [*CONSTRAINTS][-1] == "matmul_precision"


# --- engines without matrix units -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [name for name in backends.available() if name != "cuda"])
@pytest.mark.parametrize("precision", BELOW)
def test_engines_without_matrix_units_compute_the_highest(backend, precision, monkeypatch):
    engine = backends.get(backend)
    before = engine.isa() if hasattr(engine, "isa") else None
    if before is not None:
        engine.use_isa("baseline")
    try:
        fits = [
            MLPClassifier(**PLAIN, backend=backend, matmul_precision=p).fit(X, LABELS) for p in ("highest", precision)
        ]
        np.testing.assert_array_equal(parity.weights(fits[0]), parity.weights(fits[1]))
        np.testing.assert_array_equal(outputs(fits[0]), outputs(fits[1]))
    finally:
        if before is not None:
            engine.use_isa(before)
