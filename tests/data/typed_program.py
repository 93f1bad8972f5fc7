"""A user's program that type checkers must see through: parameters, return types and fitted attributes.

Each ``assert_type`` fails where a type is lost.  Plain ``mypy`` reads this file, and
``pyright tests/data/typed_program.py`` must report nothing either.
"""

from typing import Any, assert_type

import numpy as np

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor

X = np.random.default_rng(0).normal(size=(40, 3))

clf = MLPClassifier((8,), solver="adam", alpha=1e-4, max_iter=3, random_state=0, n_jobs=1)
assert_type(clf, MLPClassifier)
assert_type(clf.fit(X, X[:, 0] > 0), MLPClassifier)
assert_type(clf.partial_fit(X, X[:, 0] > 0), MLPClassifier)
assert_type(clf.predict(X), np.ndarray)
assert_type(clf.predict_proba(X), np.ndarray)
assert_type(clf.predict_log_proba(X), np.ndarray)
assert_type(MLPClassifier(loss="hinge").fit(X, X[:, 0] > 0).decision_function(X), np.ndarray)
assert_type(clf.classes_, np.ndarray)

reg = MLPRegressor(hidden_layer_sizes=[8, 4], early_stopping=True, max_iter=3)
assert_type(reg.fit(X, X[:, 0], X_val=X, y_val=X[:, 0]), MLPRegressor)
assert_type(reg.partial_fit(X, X[:, 0]) if not reg.early_stopping else reg, MLPRegressor)
assert_type(reg.predict(X), np.ndarray)

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
    assert_type(model.solver, str | tuple[str, dict[str, float]] | list[Any])
    assert_type(model.to_c(), str)
    assert_type(str(model.summary()), str)

assert_type(fastmlp.__version__, str)
