"""`standardize_y`: training on targets in units of their standard deviation, everything else in the units of y."""

import copy
import pickle
import shutil
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import Checkpoint
from fastmlp.data.targets import REGRESSOR_LOSSES, link_of
from fastmlp.training.standardized import BEST_CONSTANT

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 5))
Y = 3e3 + 40 * (X[:, 0] + np.sin(2 * X[:, 1])) + RNG.normal(size=120)
Y2 = np.column_stack([Y, 0.02 * X[:, 2] - 5])
SMALL = {"hidden_layer_sizes": (12, 6), "max_iter": 15, "learning_rate_init": 0.01, "random_state": 0}
LOSSES = [name for name in REGRESSOR_LOSSES if link_of(name) == "identity"]


def standardized(**changes):
    return MLPRegressor(standardize_y=True, **SMALL | changes)


def twin(**changes):
    """The same by scikit-learn's means; no validation rows, whose scores are in other units there."""
    return TransformedTargetRegressor(MLPRegressor(**SMALL | changes), transformer=StandardScaler())


def arrays(estimator):
    return [*estimator.coefs_, *estimator.intercepts_]


def assert_same(ours, theirs, rtol=0.0):
    for left, right in zip(arrays(ours), arrays(theirs), strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol)


# --- the right values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [Y, Y2], ids=["one output", "two outputs"])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_scikit_learns_transformed_regressor(loss, y):
    ours, theirs = standardized(loss=loss).fit(X, y), twin(loss=loss).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)
    np.testing.assert_allclose(ours.loss_curve_, theirs.regressor_.loss_curve_, rtol=1e-8)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("changes", [{"solver": "lbfgs"}, {"solver": "adamw", "batch_norm": "after"}, {"alpha": 10.0}])
def test_solvers_and_options(changes):
    ours, theirs = standardized(**changes).fit(X, Y2), twin(**changes).fit(X, Y2)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)


@pytest.mark.parametrize("backend", ["cython", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_engines_and_dtypes(backend, dtype):
    est = standardized(backend=backend).fit(X.astype(dtype), Y2)
    assert all(array.dtype == dtype for array in arrays(est))
    np.testing.assert_allclose(est.predict(X), twin().fit(X, Y2).predict(X), rtol=1e-4 if dtype == np.float32 else 1e-9)


def test_targets_are_not_rounded_before_they_are_standardised():
    """Of 1e9 + noise float32 keeps nothing, of the noise in its own units it keeps all."""
    y = 1e9 + (Y - 3e3)
    est = standardized(max_iter=60).fit(X.astype(np.float32), y)
    np.testing.assert_allclose(
        est.loss_curve_, standardized(max_iter=60).fit(X.astype(np.float32), Y).loss_curve_, rtol=0.1
    )


def test_large_targets_are_fitted():
    y = 1e6 + 1e5 * StandardScaler().fit_transform(Y[:, None]).ravel()
    params = SMALL | {"max_iter": 200}
    assert standardized(**params).fit(X, y).score(X, y) > 0.9
    with pytest.warns(ConvergenceWarning, match=r"standardize_y=True.* TransformedTargetRegressor"):
        assert MLPRegressor(**params).fit(X, y).score(X, y) < 0.01


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_targets(value):
    est = standardized().fit(X, np.full(len(X), value))
    np.testing.assert_allclose(est.predict(X), value, atol=1e-12)


def test_integers_and_lists():
    y = (Y - 3e3).astype(int)
    assert_same(standardized().fit(X, y.tolist()), standardized().fit(X, y.astype(float)))


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_a_weight_of_2_is_the_row_twice_and_0_is_none():
    weight = np.r_[np.full(60, 2.0), np.zeros(30), np.ones(30)]
    rows = np.r_[np.arange(60), np.arange(60), np.arange(90, 120)]
    params = {"solver": "lbfgs", "max_iter": 40}
    ours, theirs = standardized(**params).fit(X, Y, weight), standardized(**params).fit(X[rows], Y[rows])
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)


# --- validation -------------------------------------------------------------------------------------------------------


def test_scores_are_in_the_units_of_y_and_losses_in_those_of_training():
    monitor = ["neg_root_mean_squared_error", "r2", "loss"]
    est = standardized(monitor=monitor, train_score=True).fit(X, Y, X_val=X[:50], y_val=Y[:50])
    last = {name: column[-1] for name, column in est.history_.items()}
    predicted = est.predict(X[:50])
    assert last["score"] == pytest.approx(-np.sqrt(mean_squared_error(Y[:50], predicted)), rel=1e-9)
    assert last["validation_r2"] == pytest.approx(r2_score(Y[:50], predicted), rel=1e-9)
    assert last["validation_loss"] == pytest.approx(mean_squared_error(Y[:50], predicted) / 2 / Y.var(), rel=1e-9)
    assert last["train_loss"] == pytest.approx(mean_squared_error(Y, est.predict(X)) / 2 / Y.var(), rel=1e-9)


def test_the_held_out_rows_do_not_count():
    """With early stopping the units are those of the other rows."""
    rows = []
    est = standardized(early_stopping=True, max_iter=1, callbacks=[lambda info: rows.append(info.snapshot()["order"])])
    scale = est.fit(X, Y)._training.standardized.scale
    assert len(rows[0]) == 108
    np.testing.assert_allclose(scale, [[Y[rows[0]].mean()], [Y[rows[0]].std()]], rtol=1e-12)


def test_a_scorer_sees_an_estimator_in_the_units_of_y():
    seen = []

    def scorer(estimator, X_val, y_val):
        seen.append((estimator.predict(X_val[:7]).copy(), estimator.predict(X_val).copy()[:7]))  # other rows, the rows
        return r2_score(y_val, estimator.predict(X_val))

    est = standardized(monitor=scorer).fit(X, Y, X_val=X, y_val=Y)
    np.testing.assert_allclose([few for few, _ in seen], [all_rows for _, all_rows in seen], rtol=1e-10)
    assert est.validation_scores_[-1] == pytest.approx(r2_score(Y, est.predict(X)), abs=1e-9)


@pytest.mark.parametrize("restore", [True, "last", False])
def test_the_best_weights(restore):
    est = standardized(early_stopping=True, restore_best=restore, learning_rate_init=0.3, n_iter_no_change=np.inf)
    est.fit(X[:60], Y[:60], X_val=X[60:], y_val=Y[60:])
    scores = est.validation_scores_
    assert max(scores) != scores[-1]
    assert est.score(X[60:], Y[60:]) == pytest.approx(scores[-1] if restore is False else max(scores), rel=1e-9)


# --- what callbacks see -----------------------------------------------------------------------------------------------


def test_callbacks_see_the_units_of_y_and_change_nothing():
    seen = []

    def look(info):
        seen.append(
            (info.estimator.coefs_, r2_score(Y, info.estimator.predict(X)), info.score, copy.deepcopy(info.estimator))
        )

    est = standardized(callbacks=[look]).fit(X, Y, X_val=X, y_val=Y)
    assert_same(est, standardized().fit(X, Y, X_val=X, y_val=Y))
    np.testing.assert_allclose([r2 for _, r2, _, _ in seen], [score for _, _, score, _ in seen], rtol=1e-9)
    for coefs, r2, _, kept in seen:  # what a callback kept is that of its epoch
        assert r2_score(Y, kept.predict(X)) == r2
        assert all(map(np.array_equal, coefs, kept.coefs_))


def test_what_a_callback_assigns_is_in_the_units_of_y():
    def reset(info):
        if info.epoch == 15:
            info.estimator.coefs_[-1][...] = 0
            info.estimator.intercepts_[-1] = np.array([123.0])

    est = standardized(callbacks=[reset]).fit(X, Y)
    np.testing.assert_allclose(est.predict(X), 123.0, rtol=1e-12)


def test_an_interrupted_fit_is_in_the_units_of_y():
    def interrupt(info):
        if info.epoch == 3:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        est = standardized(callbacks=[interrupt]).fit(X, Y)
    assert_same(est, standardized(max_iter=3).fit(X, Y))


def test_a_callback_that_fails_leaves_the_units_of_y():
    def fail(info):
        if info.epoch == 3:
            raise RuntimeError("enough")

    est = standardized(callbacks=[fail])
    with pytest.raises(RuntimeError, match="enough"):
        est.fit(X, Y)
    assert_same(est, standardized(max_iter=3).fit(X, Y))


# --- going on ---------------------------------------------------------------------------------------------------------


def test_partial_fit_keeps_the_units_of_its_first_call():
    whole = standardized(shuffle=False)
    for _ in range(6):
        whole.partial_fit(X, Y)
    assert_same(whole, standardized(shuffle=False, max_iter=6).fit(X, Y))
    shifted = clone(whole)
    for rows in (slice(0, 60), slice(60, 120)):
        shifted.partial_fit(X[rows], Y[rows])
    assert shifted._training.standardized.scale.mean == pytest.approx(Y[:60].mean())


AGAIN = {
    "pickle": lambda est, path: pickle.loads(pickle.dumps(est)),
    "copy": lambda est, path: copy.deepcopy(est),
    "file": lambda est, path: (est.save(path, optimizer_state=True), fastmlp.load(path))[1],
}


@pytest.mark.parametrize("how", AGAIN)
def test_partial_fit_goes_on_bit_for_bit(how, tmp_path):
    est = standardized().fit(X, Y2)
    again = AGAIN[how](est, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(X), est.predict(X))
    assert_same(again.set_params(shuffle=False).partial_fit(X, Y2), est.set_params(shuffle=False).partial_fit(X, Y2))


def test_a_warm_start_goes_on_from_the_same_predictions():
    """Also in the units of other rows, or without any."""
    est = standardized(warm_start=True).fit(X, Y)
    before = est.predict(X)
    for changes, y in (({}, Y + 500), ({"standardize_y": False}, Y), ({"standardize_y": True}, Y)):
        est.set_params(learning_rate_init=1e-15, max_iter=1, **changes).fit(X, y)
        np.testing.assert_allclose(est.predict(X), before, rtol=1e-9)


def test_weights_to_start_from_are_in_the_units_of_y():
    first = standardized().fit(X, Y)
    params = SMALL | {"learning_rate_init": 1e-15, "max_iter": 1}
    again = standardized(**params).fit(X, Y, coef_init=first.coefs_, intercept_init=first.intercepts_)
    np.testing.assert_allclose(again.predict(X), first.predict(X), rtol=1e-9)
    drawn = standardized(**params).fit(X, Y)
    halves = standardized(**params).fit(X, Y, intercept_init=first.intercepts_)
    assert_same_list = zip(halves.coefs_, drawn.coefs_, strict=True)
    for ours, theirs in assert_same_list:
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_allclose(halves.intercepts_[-1], first.intercepts_[-1], rtol=1e-9)


@pytest.mark.parametrize("seed", [0, None])
def test_a_checkpoint_resumes_bit_for_bit(seed, tmp_path):
    path, kept = tmp_path / "fit.npz", tmp_path / "kept.npz"
    params = {"early_stopping": True, "random_state": seed, "n_iter_no_change": np.inf, "restore_best": "last"}

    def keep(info):
        if info.epoch == 7:
            shutil.copy(path, kept)

    whole = standardized(callbacks=[Checkpoint(path, every=4), keep], **params).fit(X, Y)
    epochs = []
    resumed = standardized(callbacks=[lambda info: epochs.append(info.epoch)], **params).fit(X, Y, resume_from=kept)
    assert epochs == list(range(5, 16))
    assert_same(resumed, whole)
    assert resumed.history_["score"] == whole.history_["score"]


# --- files and exports ------------------------------------------------------------------------------------------------


def test_nothing_that_reads_the_weights_knows_of_it(tmp_path):
    est = standardized(activation="tanh").fit(X, Y2)
    est.save(tmp_path / "model.safetensors")
    loaded = fastmlp.load(tmp_path / "model.safetensors")
    assert loaded.standardize_y is True
    np.testing.assert_array_equal(loaded.predict(X), est.predict(X))
    plain = MLPRegressor(**SMALL, activation="tanh").fit(X, Y2 / 1e3)
    plain.coefs_, plain.intercepts_ = est.coefs_, est.intercepts_
    np.testing.assert_array_equal(plain.predict(X), est.predict(X))
    with pytest.warns(UserWarning, match="standardize_y=True"):
        theirs = est.to_sklearn()
    np.testing.assert_allclose(theirs.predict(X), est.predict(X), rtol=1e-10)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [name for name in REGRESSOR_LOSSES if name not in LOSSES])
def test_losses_whose_targets_have_a_range(loss):
    y = np.full((120, 2), 0.5)
    with pytest.raises(ValueError, match=f"standardize_y=True makes no sense with loss='{loss}'.*'squared_error'"):
        standardized(loss=loss).fit(X, y)


def test_a_formula_may_take_standardised_targets():
    @fastmlp.loss
    def pseudo_huber(y, z):
        return sqrt(1 + (y - z) * (y - z)) - 1  # noqa: F821

    np.testing.assert_allclose(
        standardized(loss=pseudo_huber).fit(X, Y).predict(X), twin(loss=pseudo_huber).fit(X, Y).predict(X), rtol=1e-9
    )


@pytest.mark.parametrize("value", [None, 1.5, "yes"])
def test_wrong_values(value):
    with pytest.raises(ValueError, match="'standardize_y' parameter of MLPRegressor must be"):
        standardized().set_params(standardize_y=value).fit(X, Y)
    with pytest.raises(TypeError, match="standardize_y"):
        MLPClassifier(standardize_y=True)


# --- the warning ------------------------------------------------------------------------------------------------------


def test_every_loss_without_a_range_has_its_best_constant():
    assert BEST_CONSTANT.keys() == set(LOSSES)


@pytest.mark.parametrize("y", [Y * 300, Y2 * 300], ids=["one output", "two outputs"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("loss", LOSSES)
def test_targets_too_large_are_named(loss, solver, y):
    with pytest.warns(ConvergenceWarning, match=r"targets of about .*(R2 of 0).*standardize_y=True"):
        est = MLPRegressor(loss=loss, **SMALL | {"solver": solver, "learning_rate_init": 1e-4}).fit(X, y)
    assert est.score(X, y) < 0.05


@pytest.mark.parametrize("loss", LOSSES)
def test_fits_that_get_somewhere_do_not_warn(loss):
    features, y = make_regression(200, 5, noise=5.0, random_state=0)  # targets of about 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = {"learning_rate_init": 0.01, "max_iter": 100, "n_iter_no_change": np.inf, "random_state": 0}
        MLPRegressor(loss=loss, **params).fit(features, y)
        MLPRegressor(loss=loss, standardize_y=True, **params).fit(features, y * 1e6)
        MLPRegressor(loss=loss, **params).partial_fit(features, y * 1e6)  # the first of many epochs
        MLPRegressor(loss=loss, **params | {"max_iter": 1}).fit(features, y / 100)  # not large


def test_a_classifier_never_warns_of_targets():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLPClassifier(alpha=1e6, max_iter=2, n_iter_no_change=np.inf).fit(X, X[:, 0] > 0)
