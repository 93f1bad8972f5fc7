"""Validation data, history, callbacks within a fit, and what is told of formulas that leave the numbers."""

import io
import math
import pickle
import warnings
from contextlib import redirect_stdout

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn import config_context
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error, r2_score, roc_auc_score
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.kernels import reference
from fastmlp.training.callbacks import EpochInfo, TimeLimit
from fastmlp.training.head import WIDE
from fastmlp.training.history import COLUMNS
from fastmlp.training.validation import validation_split

import parity
from validated_training import BACKENDS, GIVEN, GIVEN_VALUES, SMALL, V_VAL, WEIGHT_VAL, X_VAL, Y_VAL, V, X, Y

pytestmark = [
    pytest.mark.covers("small", apart="small"),  # validation is the same on every engine but for rounding
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(params=BACKENDS)
def small(request):
    """Parameters of a small, short training."""
    return SMALL | {"backend": request.param}


# ------------------------------------------------------------------------------ history


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_history_without_validation(backend):
    est = MLPClassifier(**SMALL, backend=backend).fit(X, Y)
    assert list(est.history_) == list(COLUMNS)
    assert est.history_["loss"] == est.loss_curve_
    assert est.history_["learning_rate"] == [0.02] * 12
    assert np.isnan(est.history_["validation_loss"]).all() and np.isnan(est.history_["score"]).all()
    assert all(0 < seconds < 10 for seconds in est.history_["seconds"])
    assert len({len(column) for column in est.history_.values()}) == 1
    assert not hasattr(est, "validation_loss_curve_")
    assert est.validation_scores_ is None and est.best_validation_score_ is None


def test_history_goes_on_as_the_loss_curve_does(small):
    est = MLPRegressor(warm_start=True, **small).fit(X, V, **GIVEN_VALUES)
    est.fit(X, V)
    assert len(est.history_["loss"]) == 24 and est.history_["loss"] == est.loss_curve_
    assert np.isfinite(est.history_["score"][:12]).all() and np.isnan(est.history_["score"][12:]).all()
    est.fit(X, V, **GIVEN_VALUES)
    assert est.history_["validation_loss"][-12:] == est.validation_loss_curve_[-12:]
    assert est.history_["score"][-12:] == est.validation_scores_[-12:]
    est.partial_fit(X, V)
    assert [len(column) for column in est.history_.values()] == [37] * 5
    assert len(est.set_params(warm_start=False).fit(X, V).history_["loss"]) == 12
    assert not hasattr(est, "validation_loss_curve_")


def test_solver_without_epochs_has_no_history(small):
    assert not hasattr(MLPRegressor(solver="lbfgs", **small).fit(X, V), "history_")


def test_history_is_a_table(small):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(MLPClassifier(**small).fit(X, Y, **GIVEN).history_)
    assert frame.shape == (12, 5) and frame.notna().all(axis=None)


# ------------------------------------------------------------------------------ validation data


@pytest.mark.parametrize("weight", [None, WEIGHT_VAL])
def test_loss_and_score_of_given_rows(small, weight):
    seen = []
    est = MLPClassifier(alpha=3.0, callbacks=[lambda info: seen.append(info.estimator.predict_proba(X_VAL))], **small)
    est.fit(X, Y, sample_weight_val=weight, **GIVEN)
    losses = [log_loss(Y_VAL, proba, sample_weight=weight) for proba in seen]
    np.testing.assert_allclose(est.validation_loss_curve_, losses, rtol=1e-7)
    scores = [np.average(proba.argmax(axis=1) == Y_VAL, weights=weight) for proba in seen]
    np.testing.assert_allclose(est.validation_scores_, scores)
    assert est.best_validation_score_ == max(est.validation_scores_)
    assert est.history_["score"] == est.validation_scores_
    assert est.best_loss_ == min(est.loss_curve_)  # without early stopping it is the training loss that is watched


LOSSES = {
    "squared_error": lambda y, p: mean_squared_error(y, p) / 2,
    "absolute_error": mean_absolute_error,
    ("huber", "log_cosh"): None,
}


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_score_of_many_classes(small, weighted):
    """More than WIDE: NumPy instead of the engine."""
    y = np.arange(3 * (WIDE + 1)) % (WIDE + 1)
    X = np.random.default_rng(0).normal(size=(len(y), 4))
    weight = np.linspace(0.5, 2, len(y)) if weighted else None
    est = MLPClassifier(**small | {"max_iter": 2})
    est.fit(X, y, X_val=X, y_val=y, sample_weight_val=weight)
    probabilities = est.predict_proba(X)
    expected = log_loss(y, probabilities, sample_weight=weight)
    np.testing.assert_allclose(est.validation_loss_curve_[-1], expected, rtol=1e-9)
    np.testing.assert_allclose(est.validation_scores_[-1], est.score(X, y, weight), rtol=1e-12)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, lambda X: X.astype(np.float32), np.asfortranarray])
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
def test_loss_and_score_of_values(small, loss, container):
    est = MLPRegressor(loss, **small | {"max_iter": 3}).fit(X, V, X_val=container(X_VAL), y_val=V_VAL)
    metric = {"squared_error": lambda y, p: mean_squared_error(y, p) / 2, "absolute_error": mean_absolute_error}[loss]
    predicted = est.predict(container(X_VAL))
    tolerance = 1e-5 if container(X_VAL).dtype == np.float32 else 1e-9
    np.testing.assert_allclose(est.validation_loss_curve_[-1], metric(V_VAL, predicted), rtol=tolerance)
    np.testing.assert_allclose(est.validation_scores_[-1], r2_score(V_VAL, predicted), rtol=tolerance)


@fastmlp.loss
def quartic(y, p):
    return (y - p) * (y - p) * (y - p) * (y - p)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson", quartic], ids=str)
def test_loss_of_several_values(small, loss, weighted):
    """A mean over the outputs for squared_error, else a sum over them."""
    targets, held_out = (np.abs(np.stack([v, 2 * v, v - 1], axis=1)) for v in (V, V_VAL))
    weight = WEIGHT_VAL if weighted else None
    est = MLPRegressor(loss, **small | {"max_iter": 3})
    est.fit(X, targets, X_val=X_VAL, y_val=held_out, sample_weight_val=weight)
    predicted = est.predict(X_VAL)
    logits = np.log(predicted) if loss == "poisson" else predicted
    expected, _ = reference.loss(loss, logits, held_out, weight)
    np.testing.assert_allclose(est.validation_loss_curve_[-1], expected, rtol=1e-7)


@pytest.mark.parametrize(
    "params",
    [
        {"batch_norm": True, "dropout": 0.3},
        {"activation": "prelu", "batch_norm": True},
        {"loss": "hinge"},
        {"loss": ("focal", {"gamma": 1.0})},
        {"loss": ("log_loss", {"label_smoothing": 0.2})},
        {"class_weight": {0: 3.0}},
    ],
    ids=str,
)
def test_validation_of_every_kind_of_network(small, params):
    """Last row of the history = what the fitted model says of these rows; dropout is off, batch norm is folded."""
    est = MLPClassifier(**small | params).fit(X, Y, **GIVEN)
    weight = np.where(Y_VAL == 0, 3.0, 1.0) if "class_weight" in params else None
    assert est.validation_scores_[-1] == est.score(X_VAL, Y_VAL, weight)
    assert np.isfinite(est.validation_loss_curve_).all()
    if params.get("loss", "log_loss") == "log_loss":
        expected = log_loss(Y_VAL, est.predict_proba(X_VAL), sample_weight=weight)
        np.testing.assert_allclose(est.validation_loss_curve_[-1], expected, rtol=1e-7)


def test_eval_set_is_an_alias(small):
    expected = MLPClassifier(early_stopping=True, **small).fit(X, Y, **GIVEN)
    for eval_set in ([(X_VAL, Y_VAL)], ((X_VAL, Y_VAL),), [[X_VAL.tolist(), Y_VAL.tolist()]]):
        got = MLPClassifier(early_stopping=True, **small).fit(X, Y, eval_set=eval_set)
        parity.assert_identical_models(got, expected)
        assert got.validation_loss_curve_ == expected.validation_loss_curve_


@pytest.mark.parametrize("early_stopping", [False, True])
def test_given_rows_draw_no_split(small, early_stopping):
    """Training goes the way it goes without validation: all rows, the same shuffles."""
    params = small | {"tol": 0.0, "n_iter_no_change": 1000}
    plain = MLPClassifier(**params).fit(X, Y)
    est = MLPClassifier(early_stopping=early_stopping, restore_best=False, **params).fit(X, Y, **GIVEN)
    parity.assert_identical_models(est, plain)
    assert est.t_ == plain.t_


def test_early_stopping_on_given_rows_stops_as_on_the_same_rows_held_out(small):
    """The rows of scikit-learn's split, given by hand: the same decisions."""
    params = small | {"shuffle": False, "max_iter": 60, "tol": 1e-3, "n_iter_no_change": 4}
    split = MLPRegressor(early_stopping=True, validation_fraction=0.25, **params).fit(X, V)
    rng = np.random.RandomState(0)
    split._fitted_network().initial_params(rng, 6.0)
    train, held_out = validation_split(100, 0.25, rng, None)
    given = MLPRegressor(early_stopping=True, **params).fit(X[train], V[train], X_val=X[held_out], y_val=V[held_out])
    assert given.n_iter_ == split.n_iter_ < 60
    np.testing.assert_allclose(given.validation_scores_, split.validation_scores_, rtol=1e-9)
    np.testing.assert_allclose(given.validation_loss_curve_, split.validation_loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(parity.weights(given), parity.weights(split), rtol=1e-9)


BAD_VALIDATION = {
    "X alone": ({"X_val": X_VAL}, "X_val is given without y_val"),
    "y alone": ({"y_val": Y_VAL}, "y_val is given without X_val"),
    "weight alone": ({"sample_weight_val": WEIGHT_VAL}, "sample_weight_val is given without"),
    "weights of two": ({"eval_set": [(X_VAL, Y_VAL)] * 2, "sample_weight_val": WEIGHT_VAL}, "third entry"),
    "weights twice": ({"eval_set": [(X_VAL, Y_VAL, WEIGHT_VAL)], "sample_weight_val": WEIGHT_VAL}, "weights are given"),
    "X of a set": ({"eval_set": [X_VAL]}, "eval_set must be one pair.*'validation_0' is of type ndarray"),
    "four": ({"eval_set": [(X_VAL, Y_VAL, WEIGHT_VAL, 1)]}, "'validation_0' has 4 entries"),
    "a number": ({"eval_set": 3}, "eval_set must be one pair.*; got int"),
    "no set": ({"eval_set": []}, "eval_set must be one pair.*; got an empty list"),
    "one row": ({"eval_set": {"a": (X_VAL[0], Y_VAL)}}, "X of 'a' must have 2 dimensions, got 1"),
    "a number for a name": ({"eval_set": {1: (X_VAL, Y_VAL)}}, "a name must be a text, got 1"),
    "name of X_val": (GIVEN | {"eval_set": {"validation": (X_VAL, Y_VAL)}}, "'validation' is the name of X_val"),
    "one column twice": ({"eval_set": {"validation": (X_VAL, Y_VAL), "b": (X_VAL, Y_VAL)}}, "two columns"),
    "which set": ({"eval_set": [(X_VAL, Y_VAL), (X_VAL[:, :3], Y_VAL)]}, "validation data 'validation_1': X has 3"),
    "other width": ({"X_val": X_VAL[:, :3], "y_val": Y_VAL}, "validation data: X has 3 features.*expecting 6"),
    "rows differ": ({"X_val": X_VAL, "y_val": Y_VAL[1:]}, "validation data: .*inconsistent numbers of samples"),
    "nan": ({"X_val": np.where(X_VAL > 1, np.nan, X_VAL), "y_val": Y_VAL}, "validation data: .*contains NaN"),
    "no rows": ({"X_val": X_VAL[:0], "y_val": Y_VAL[:0]}, "validation data: "),
    "unknown class": (GIVEN | {"y_val": Y_VAL + 1}, r"validation data: y_val has classes that y does not have: \[3\]"),
    "indicators": (GIVEN | {"y_val": np.eye(3, dtype=int)[Y_VAL]}, "y has shape .* y_val has shape"),
    "weight shorter": (GIVEN | {"sample_weight_val": WEIGHT_VAL[1:]}, "validation data: sample_weight"),
}


@pytest.mark.parametrize("case", BAD_VALIDATION)
def test_bad_validation_data(small, case):
    given, message = BAD_VALIDATION[case]
    est = MLPClassifier(**small).fit(X, Y)
    before = parity.weights(est).copy()
    with pytest.raises(ValueError, match=message):
        est.fit(X, Y, **given)
    np.testing.assert_array_equal(parity.weights(est), before)


def test_validation_rows_without_weight(small):
    with pytest.raises(ValueError, match="validation data: no row has a weight"):
        MLPClassifier(class_weight={0: 0.0}, **small).fit(X, Y, X_val=X_VAL, y_val=np.zeros(40, dtype=int))
    with pytest.raises(ValueError, match="validation data: "):
        MLPRegressor(**small).fit(X, V, sample_weight_val=np.zeros(40), **GIVEN_VALUES)


def test_feature_names_of_validation_data(small):
    pd = pytest.importorskip("pandas")
    frame, val = (pd.DataFrame(data, columns=list("abcdef")) for data in (X, X_VAL))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*feature names")
        est = MLPClassifier(early_stopping=True, monitor="roc_auc_ovr", **small)
        est.fit(frame, Y, X_val=val, y_val=pd.Series(Y_VAL))
    with pytest.raises(ValueError, match="validation data: The feature names"):
        est.fit(frame, Y, X_val=val[list("fedcba")], y_val=Y_VAL)


# ------------------------------------------------------------------------------ monitor and restore_best


def overfitting(**params):
    """A training whose validation gets worse again."""
    settings = {"hidden_layer_sizes": (30,), "learning_rate_init": 0.05, "max_iter": 60, "random_state": 0}
    return MLPClassifier(**settings | {"backend": "reference", "n_iter_no_change": 8} | params)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_best_weights_by_loss(early_stopping):
    est = overfitting(monitor="loss", restore_best=True, early_stopping=early_stopping).fit(X, Y, **GIVEN)
    curve = est.validation_loss_curve_
    best = int(np.argmin(curve))
    assert best < len(curve) - 1
    np.testing.assert_allclose(log_loss(Y_VAL, est.predict_proba(X_VAL)), curve[best], rtol=1e-9)
    assert est.best_validation_score_ == est.validation_scores_[best]
    if early_stopping:  # 8 + 1 epochs without improvement by tol
        assert len(curve) < 60 and est.best_loss_ is None
    else:
        assert len(curve) == 60


def test_last_weights_on_request():
    est = overfitting(early_stopping=True, restore_best=False).fit(X, Y, **GIVEN)
    np.testing.assert_allclose(log_loss(Y_VAL, est.predict_proba(X_VAL)), est.validation_loss_curve_[-1], rtol=1e-9)
    best = overfitting(early_stopping=True).fit(X, Y, **GIVEN)
    assert best.score(X_VAL, Y_VAL) == max(best.validation_scores_)
    assert best.loss_curve_ == est.loss_curve_


@pytest.mark.parametrize("monitor", ["neg_log_loss", "f1_macro", "score"])
@pytest.mark.parametrize("split", [False, True])
def test_scorers_by_name(monitor, split):
    est = overfitting(early_stopping=True, monitor=monitor).fit(X, Y, **({} if split else GIVEN))
    if monitor == "neg_log_loss":
        np.testing.assert_allclose(est.validation_scores_, -np.array(est.validation_loss_curve_), rtol=1e-7)
        by_loss = overfitting(early_stopping=True, monitor="loss").fit(X, Y, **({} if split else GIVEN))
        np.testing.assert_array_equal(parity.weights(est), parity.weights(by_loss))
    assert est.best_validation_score_ == max(est.validation_scores_)
    assert len(est.validation_scores_) == est.n_iter_ < 60


def test_scorers_that_are_callables(small):
    def auc_of_first(estimator, X, y):
        assert isinstance(estimator, MLPClassifier)
        return roc_auc_score(y == 0, estimator.predict_proba(X)[:, 0])

    def twice(estimator, X, y):
        """Asks for other rows than the validation rows."""
        return estimator.predict_proba(X_VAL[::-1])[:, 0].sum()

    for scorer in (auc_of_first, twice):
        seen = []
        est = MLPClassifier(
            monitor=scorer,
            callbacks=[lambda info, s=scorer, seen=seen: seen.append(s(info.estimator, X_VAL, Y_VAL))],
            **small,
        )
        np.testing.assert_allclose(est.fit(X, Y, **GIVEN).validation_scores_, seen, rtol=1e-10)
        pickle.loads(pickle.dumps(est.set_params(monitor="score", callbacks=None)))


def test_scorers_with_hinge_and_weights(small):
    est = MLPClassifier(loss="hinge", monitor="roc_auc", **small)
    est.fit(X, Y > 0, X_val=X_VAL, y_val=Y_VAL > 0, sample_weight_val=WEIGHT_VAL)
    expected = roc_auc_score(Y_VAL > 0, est.decision_function(X_VAL), sample_weight=WEIGHT_VAL)
    np.testing.assert_allclose(est.validation_scores_[-1], expected)


def test_plateau_watches_what_the_monitor_says(small):
    params = small | {"learning_rate": ("plateau", {"patience": 0, "threshold": 0.5}), "max_iter": 4}
    assert MLPClassifier(**params).fit(X, Y).history_["learning_rate"][-1] < 0.02
    rates = MLPClassifier(monitor="loss", **params).fit(X, Y, **GIVEN).history_["learning_rate"]
    assert rates[-1] < 0.02


def test_what_is_printed(small):
    params = small | {"verbose": True, "max_iter": 60, "early_stopping": True, "n_iter_no_change": 3, "tol": 0.5}
    for monitor, what in (("score", "Validation score"), ("loss", "Validation loss"), ("f1_macro", "Validation score")):
        screen = io.StringIO()
        with redirect_stdout(screen):
            est = MLPClassifier(monitor=monitor, **params).fit(X, Y, **GIVEN)
        assert screen.getvalue().count(f"{what}: ") == est.n_iter_
        assert f"{what} did not improve more than tol=0.500000 for 3 consecutive epochs. Stopping." in screen.getvalue()


def test_monitor_may_change_between_warm_starts(small):
    """A best score says nothing about losses."""
    est = MLPClassifier(early_stopping=True, warm_start=True, **small).fit(X, Y, **GIVEN)
    est.set_params(monitor="loss").fit(X, Y, **GIVEN)
    expected = min(est.validation_loss_curve_[-est.n_iter_ :])
    np.testing.assert_allclose(log_loss(Y_VAL, est.predict_proba(X_VAL)), expected, rtol=1e-9)
    est.set_params(early_stopping=False).fit(X, Y)
    assert np.isfinite(est.best_loss_)


# ------------------------------------------------------------------------------ pipelines and routing


def test_pipeline_transforms_validation_data(small):
    scaler = StandardScaler().fit(5 * X + 3)
    expected = MLPClassifier(early_stopping=True, **small).fit(
        scaler.transform(5 * X + 3), Y, X_val=scaler.transform(5 * X_VAL + 3), y_val=Y_VAL
    )
    with config_context(enable_metadata_routing=True):
        est = MLPClassifier(early_stopping=True, **small).set_fit_request(X_val=True, y_val=True)
        pipeline = make_pipeline(StandardScaler(), est, transform_input=["X_val"])
        pipeline.fit(5 * X + 3, Y, X_val=5 * X_VAL + 3, y_val=Y_VAL)
    parity.assert_identical_models(pipeline[-1], expected)
    assert pipeline[-1].validation_loss_curve_ == expected.validation_loss_curve_


def test_all_extras_can_be_requested(small):
    extras = (
        "X_val",
        "y_val",
        "sample_weight_val",
        "eval_set",
        "coef_init",
        "intercept_init",
        "resume_from",
    )
    with config_context(enable_metadata_routing=True):
        est = MLPClassifier(**small).set_fit_request(**dict.fromkeys(extras, True))
        cross_validate(est, X, Y, cv=2, params={"eval_set": [(X_VAL, Y_VAL)]}, error_score="raise")


# ------------------------------------------------------------------------------ callbacks


def test_what_callbacks_are_told(small):
    told = []
    est = MLPClassifier(callbacks=[told.append], learning_rate="cosine", **small)
    est.fit(X, Y, **GIVEN)
    assert all(isinstance(info, EpochInfo) for info in told)
    assert [info.epoch for info in told] == list(range(1, 13))
    assert {info.max_iter for info in told} == {12} and all(info.estimator is est for info in told)
    for name in COLUMNS:
        assert [getattr(info, name) for info in told] == est.history_[name], name
    told.clear()
    est.fit(X, Y)
    assert all(info.validation_loss is info.score is None for info in told)
    with pytest.raises(TypeError, match="callbacks must be callables"):
        est.set_params(callbacks=[3]).fit(X, Y)


def test_callbacks_change_nothing(small):
    plain = MLPClassifier(early_stopping=True, **small).fit(X, Y)
    watched = MLPClassifier(early_stopping=True, callbacks=[lambda info: info.snapshot() and None], **small).fit(X, Y)
    parity.assert_identical_models(watched, plain)


def test_callbacks_stop_training(small):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no complaint that it did not converge
        est = MLPClassifier(callbacks=[lambda info: info.epoch == 4], **small).fit(X, Y)
    assert est.n_iter_ == len(est.loss_curve_) == len(est.history_["loss"]) == 4
    np.testing.assert_array_equal(
        parity.weights(est), parity.weights(MLPClassifier(**small | {"max_iter": 4}).fit(X, Y))
    )
    est = MLPClassifier(callbacks=(TimeLimit(1e-6),), **small).fit(X, Y)
    assert est.n_iter_ == 1


def test_callback_that_fails_or_is_interrupted(small):
    def fail(info):
        raise (KeyboardInterrupt if info.epoch == 3 else RuntimeError("as told"))

    with pytest.raises(RuntimeError, match="as told"):
        MLPClassifier(callbacks=[fail], **small).fit(X, Y)

    def interrupt(info):
        if info.epoch == 3:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        est = MLPClassifier(callbacks=[interrupt], early_stopping=True, **small).fit(X, Y)
    assert est.n_iter_ == len(est.history_["score"]) == 3
    assert est.score(X, Y) > 0


# ------------------------------------------------------------------------------ formulas that leave the numbers


@fastmlp.activation
def root(z):
    return sqrt(z)  # noqa: F821  # NaN below 0


@fastmlp.loss
def log_error(y, p):
    return log(-1 - (p - y) * (p - y))  # noqa: F821


def log_below_0(z, a):
    return log(-1 - a * a)  # noqa: F821


@fastmlp.activation(slope=log_below_0)
def kink(z):
    return z * z


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_a_formula_that_gives_nan_is_named(small, solver):
    params = small | {"solver": solver, "max_iter": 20}
    when = "iteration" if solver == "lbfgs" else "epoch 1"
    for activation, layer in (([root, "relu"], 1), (["tanh", root], 2), (root, 1)):
        est = MLPRegressor(activation=activation, **params)
        with pytest.raises(
            ValueError, match=rf"activation 'root' of hidden layer {layer} gave .* not finite in {when}"
        ):
            est.fit(X, V)
        assert np.isfinite(parity.weights(est)).all()
    with pytest.raises(ValueError, match="loss 'log_error' at the output layer gave"):
        MLPRegressor(log_error, **params).fit(X, V)
    with pytest.raises(ValueError, match="the slope of activation 'kink' of hidden layer 1 gave"):
        MLPRegressor(activation=[kink, "relu"], **params).fit(X, V)


@pytest.mark.parametrize("units", [{}, {"batch_norm": True, "dropout": 0.1}])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_the_last_finite_weights_are_kept(small, units, container):
    """A formula with a cliff that the weights reach after some epochs."""
    limit = 2.5 if units else 4.0

    @fastmlp.activation
    def cliff(z):
        return z if z < limit else log(-z)  # noqa: F821

    finite = []
    params = small | units | {"max_iter": 300, "learning_rate_init": 0.05, "callbacks": [lambda i: finite.append(i)]}
    est = MLPRegressor(activation=["tanh", cliff], **params)
    with pytest.raises(ValueError) as caught:
        est.fit(container(X), 3 * V)
    epoch = len(finite) + 1
    assert epoch > 1
    assert f"activation 'cliff' of hidden layer 2 gave values that are not finite in epoch {epoch}" in str(caught.value)
    assert f"the weights are those after epoch {epoch - 1}" in str(caught.value)
    assert est.n_iter_ == len(est.loss_curve_) == len(est.history_["loss"]) == epoch - 1
    expected = MLPRegressor(activation=["tanh", cliff], **params | {"max_iter": epoch - 1, "callbacks": None})
    expected.fit(container(X), 3 * V)
    np.testing.assert_array_equal(parity.weights(est), parity.weights(expected))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_that_diverge_under_a_formula_are_told_so(small):
    @fastmlp.activation
    def linear(z):
        return 1.0 * z

    est = MLPRegressor(activation=linear, **small | {"solver": "sgd", "learning_rate_init": 1e200})
    with pytest.raises(ValueError, match=r"(weighted sum|optimizer's step|loss).* not finite in epoch 1"):
        est.fit(X, V)
    assert np.isfinite(parity.weights(est)).all()


def test_built_in_formulas_keep_the_old_words(small):
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        MLPRegressor(activation="identity", **small | {"solver": "sgd", "learning_rate_init": 1e200}).fit(X, V)


def test_seconds_are_those_of_the_epoch(small):
    est = MLPClassifier(**small).fit(X, Y)
    assert math.isfinite(sum(est.history_["seconds"]))
