"""A user's program that type checkers must see through: parameters, return types and fitted attributes.

Each ``assert_type`` fails where a type is lost. ``tests/test_types.py`` shows that the program runs, and that pyright
and mypy report nothing. What they must report is in typed_mistakes.py.
"""

import tempfile
from pathlib import Path
from typing import assert_type

import numpy as np
from sklearn import config_context, neural_network
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import (
    MLPClassifier,
    MLPRegressor,
    RealMLPClassifier,
    RealMLPRegressor,
    TabMClassifier,
    TabMRegressor,
)
from fastmlp.callbacks import Checkpoint, EpochInfo, Logging, ProgressBar, TimeLimit
from fastmlp.displays import LossCurveDisplay, NetworkDisplay
from fastmlp.persistence import Saved

X = np.random.default_rng(0).normal(size=(40, 3))
y = X[:, 0] > 0
folder = Path(tempfile.mkdtemp())

# --- estimators: what they are given, what they return, what they have ------------------------------------------------

clf = MLPClassifier((8,), solver="adam", alpha=1e-4, max_iter=3, random_state=0, n_jobs=1)
assert_type(clf, MLPClassifier)
assert_type(clf.fit(X, y), MLPClassifier)
assert_type(clf.partial_fit(X, y), MLPClassifier)
assert_type(clf.set_params(alpha=1e-3), MLPClassifier)
assert_type(clf.predict(X), np.ndarray)
assert_type(clf.predict_proba(X), np.ndarray)
assert_type(clf.predict_log_proba(X), np.ndarray)
assert_type(MLPClassifier(loss="hinge", max_iter=3).fit(X, y).decision_function(X), np.ndarray)
assert_type(clf.classes_, np.ndarray)

reg = MLPRegressor(hidden_layer_sizes=[8, 4], early_stopping=True, max_iter=3)
assert_type(reg.fit(X, X[:, 0], X_val=X, y_val=X[:, 0]), MLPRegressor)
assert_type(reg.partial_fit(X, X[:, 0]) if not reg.early_stopping else reg, MLPRegressor)
assert_type(reg.predict(X), np.ndarray)

# --- nets for tables --------------------------------------------------------------------------------------------------

table = RealMLPClassifier(preset="td-s", hidden_layer_sizes=(8,), max_iter=2, random_state=0)
assert_type(table.fit(X, y, X_val=X, y_val=y), RealMLPClassifier)
assert_type(table.predict_proba(X), np.ndarray)
assert_type(table.set_params(dropout=0.1), RealMLPClassifier)
assert_type(table.classes_, np.ndarray)
assert_type(table.coefs_, list[np.ndarray])
assert_type(RealMLPRegressor(loss="huber", max_iter=2).fit(X, X[:, 0]).predict(X), np.ndarray)
members = TabMRegressor(k=2, arch_type="tabm-mini", hidden_layer_sizes=8, max_iter=2, n_ens=2)
assert_type(members.fit(X, X[:, :2]), TabMRegressor)
assert_type(TabMClassifier(num_emb_type="none", class_weight="balanced"), TabMClassifier)

for model in (clf, reg):
    assert_type(model.coefs_, list[np.ndarray])
    assert_type(model.intercepts_, list[np.ndarray])
    assert_type(model.n_iter_, int)
    assert_type(model.n_layers_, int)
    assert_type(model.n_outputs_, int)
    assert_type(model.n_features_in_, int)
    assert_type(model.t_, int)
    assert_type(model.out_activation_, str)
    assert_type(model.loss_, float)
    assert_type(model.loss_curve_, list[float])
    assert_type(model.validation_scores_, list[float] | None)
    assert_type(model.best_loss_, float | None)
    assert_type(model.best_validation_score_, float | None)
    assert_type(model.history_, dict[str, list[float]])
    assert_type(model.alpha, float)
    assert_type(model.max_iter, int)
    assert_type(model.shuffle, bool | int)
    assert_type(model.weight_decay, float | None)
    assert_type(model.to_c(), str)
    assert_type(str(model.summary()), str)

# --- every form of a parameter ----------------------------------------------------------------------------------------


@fastmlp.activation
def swish(z: float) -> float:
    return z / (1 + exp(-z))  # type: ignore[name-defined] # pyright: ignore[reportUndefinedVariable] # noqa: F821


def narrow(rng: np.random.RandomState, fan_in: int, fan_out: int) -> np.ndarray:
    return 0.01 * rng.standard_normal((fan_in, fan_out))


def after_epoch(info: EpochInfo) -> bool:
    return info.loss < 1e-3 or (info.score or 0.0) > 0.99


def never(info: EpochInfo) -> None:
    assert info.epoch <= info.max_iter


def best_of_ones(estimator: MLPClassifier, X: np.ndarray, y: np.ndarray) -> float:
    return float(estimator.predict_proba(X)[y, 1].mean())


for solver in ("adam", "sgd", "lbfgs", "rmsprop"):
    MLPClassifier(solver=solver)
for sizes in (8, (8,), [8, 8], range(2, 4), (), np.array([3, 4]), np.int64(8), (np.int64(8),)):
    MLPClassifier(sizes, max_iter=1).fit(X, y)
for seed in (0, np.random.RandomState(0), np.random.default_rng(0).integers(2**31), None):
    MLPClassifier(random_state=seed)
MLPClassifier((8, 8), ["relu", ("leaky_relu", {"negative_slope": 0.2})], solver=("rmsprop", {"rho": 0.9}))
MLPClassifier((8, 8), ["relu", swish], solver=["adam", {"beta_1": 0.8}], loss=("focal", {"gamma": 2}))
MLPClassifier(activation=("elu", {"alpha": 1}), learning_rate=("one_cycle", {"max_lr": None}), batch_size=10)
MLPClassifier(activation=swish, learning_rate=lambda progress: 1 - progress, n_iter_no_change=np.inf)
MLPClassifier(class_weight="balanced", init="he_normal", batch_norm=True, dropout=0.1)
MLPClassifier((8, 8), class_weight={0: 1, 1: 2}, batch_norm=[True, "after"], dropout=[0.1, 0.2])
MLPClassifier(init=narrow, batch_norm="before", weight_decay=0.01, max_grad_norm=1, verbose=1)
MLPClassifier(early_stopping=True, monitor="roc_auc", restore_best=False, backend="cython")
MLPClassifier(dropout=0.15, dropout_schedule="flat_cos", weight_decay_schedule=("cosine", {"eta_min": 0.1}))
MLPRegressor(dropout_schedule=lambda progress: 1 - progress, restore_best="last", patience_growth=1)
MLPRegressor(matmul_precision="high")
MLPClassifier(early_stopping=True, monitor=best_of_ones, callbacks=[after_epoch, never, TimeLimit(60)])
MLPClassifier(callbacks=(ProgressBar(), Logging(every=10), Checkpoint(folder / "fit.npz"), lambda info: None))
MLPRegressor("huber", (8,), "tanh", learning_rate="step")
MLPRegressor(standardize_y=True, loss="absolute_error")
MLPRegressor(loss=("quantile", {"quantile": 0.9}), alpha=0, tol=0, momentum=1)

# --- what scikit-learn makes of them ----------------------------------------------------------------------------------


def n_parameters(estimator: BaseEstimator) -> int:
    return len(estimator.get_params())


n_parameters(clf)
make_pipeline(StandardScaler(), MLPClassifier(max_iter=2)).fit(X, y).predict(X)
GridSearchCV(MLPClassifier(max_iter=2), {"alpha": [1e-4, 1e-2]}, cv=2).fit(X, y)
score: float = clf.score(X, y)
with config_context(enable_metadata_routing=True):
    assert_type(clf.set_score_request(sample_weight=False), MLPClassifier)
    assert_type(clf.set_fit_request(X_val=False).fit(X, y), MLPClassifier)

# --- files, conversions, pictures -------------------------------------------------------------------------------------

clf.save(folder / "model.safetensors", metadata={"rows": 40})
loaded = fastmlp.load(str(folder / "model.safetensors"))
assert_type(loaded, Saved)
assert_type(loaded.predict(X), np.ndarray)
if isinstance(loaded, MLPClassifier):
    assert_type(loaded.predict_proba(X), np.ndarray)

theirs = neural_network.MLPClassifier((8,), max_iter=3).fit(X, y)
fastmlp.from_sklearn(theirs).partial_fit(X, y).predict_proba(X)
fastmlp.from_sklearn(neural_network.MLPRegressor()).set_params(loss="huber")
clf.to_sklearn().predict_proba(X)

assert_type(LossCurveDisplay.from_estimator(clf), LossCurveDisplay)
assert_type(LossCurveDisplay.from_history(clf.history_, best="loss").plot(), LossCurveDisplay)
assert_type(NetworkDisplay.from_estimator(clf, max_units=4), NetworkDisplay)
assert_type(fastmlp.__version__, str)
