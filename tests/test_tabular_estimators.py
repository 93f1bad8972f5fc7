"""RealMLP and TabM as scikit-learn's estimators: tables of all kinds, validation, ensembles, errors."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastmlp
from fastmlp.data.targets import REGRESSOR_LOSSES
from fastmlp.estimator.recipes import REALMLP, is_of_probabilities

from helpers import SklearnRecorder
from parity import name_of_a_check
from tabular_fits import CLASSIFIERS, KINDS, REGRESSORS, small, table, targets_of
from tabular_networks import ENGINES
from tiers import each_value_once

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning")

FRAME, VALUES = table()
each_kind = pytest.mark.parametrize("name", KINDS)


def predictions(estimator, X):
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


# --- scikit-learn's contract ------------------------------------------------------------------------------------------

ROWS_DRAWN = "weights are no repetitions: the rows held out, and the statistics of columns, are other ones"


def factors_of_a_check(params):
    name = type(params["estimator"]).__name__
    return {"check": name_of_a_check(params["check"]), "task": name in CLASSIFIERS, "kind": name}


@pytest.mark.covers("check task", factors=factors_of_a_check)
@parametrize_with_checks(
    [small(name, hidden_layer_sizes=(32,), max_iter=20) for name in KINDS],
    expected_failed_checks=lambda estimator: {"check_sample_weight_equivalence_on_dense_data": ROWS_DRAWN},
)
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():  # the checks fit random data for few epochs
        warnings.simplefilter("ignore")
        check(estimator)


@each_kind
def test_unknown_arguments_are_explained(name):
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'hidden_layers'; did you mean"):
        getattr(fastmlp, name)(hidden_layers=(3,))


@each_kind
def test_parameters_of_choices_have_flat_names(name):
    estimator = small(name, learning_rate=("flat_cos", {"flat": 0.2}))
    assert estimator.set_params(learning_rate__flat=0.3).learning_rate == ("flat_cos", {"flat": 0.3})
    with pytest.raises(ValueError, match="Invalid parameter 'solver'"):
        estimator.set_params(solver__rho=0.5)


@each_kind
def test_there_is_no_partial_fit_and_no_warm_start(name):
    estimator = small(name)
    assert not hasattr(estimator, "partial_fit")
    with pytest.raises(TypeError, match="warm_start"):
        getattr(fastmlp, name)(warm_start=True)


@each_kind
def test_parameters_stay_as_given(name):
    """fit resolves what is None on a copy."""
    estimator, before = small(name), small(name).get_params()
    estimator.fit(FRAME, targets_of(name, VALUES))
    assert repr(estimator.get_params()) == repr(before)
    assert repr(clone(estimator).get_params()) == repr(before)


@each_kind
def test_copies_predict_the_same(name):
    estimator = small(name).fit(FRAME, targets_of(name, VALUES))
    expected = predictions(estimator, FRAME)
    for twin in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator), copy.copy(estimator)):
        np.testing.assert_array_equal(predictions(twin, FRAME), expected)
        assert np.shares_memory(twin.coefs_[0], twin.coefs_[0].base)
    n_numbers = len(pickle.dumps(estimator)) / 4
    assert n_numbers < 3 * estimator.network_.n_params + 12_000  # no optimizer, no copy of the data


@each_kind
def test_the_seed_decides(name):
    y = targets_of(name, VALUES)
    first, again, other = (small(name, random_state=seed).fit(FRAME, y) for seed in (0, 0, 1))
    np.testing.assert_array_equal(predictions(first, FRAME), predictions(again, FRAME))
    assert not np.array_equal(predictions(first, FRAME), predictions(other, FRAME))


@each_kind
def test_a_grid_search_over_a_pipeline(name):
    pipeline = make_pipeline(FunctionTransformer(), small(name, max_iter=2))
    grid = {f"{name.lower()}__learning_rate_init": [0.01, 0.05]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(FRAME, targets_of(name, VALUES))
    assert search.predict(FRAME).shape == (len(FRAME),)


# --- tables -----------------------------------------------------------------------------------------------------------

FRAMES = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}


@pytest.mark.parametrize("kind", FRAMES)
@each_kind
@each_value_once
def test_frames_of_all_libraries_are_the_same_table(name, kind):
    y = targets_of(name, VALUES)
    expected = predictions(small(name).fit(FRAME, y), FRAME)
    X = FRAMES[kind](FRAME)
    fitted = small(name).fit(X, y)
    np.testing.assert_array_equal(predictions(fitted, X), expected)
    assert [*fitted.feature_names_in_] == [*FRAME.columns]


@each_kind
def test_an_array_of_objects_is_a_table_without_names(name):
    X = FRAME.astype({"town": object}).to_numpy(dtype=object)
    estimator = small(name).fit(X, targets_of(name, VALUES))
    assert not hasattr(estimator, "feature_names_in_")
    np.testing.assert_array_equal(predictions(estimator, X), predictions(estimator, X.tolist()))


@each_kind
def test_unseen_and_missing_categories_are_the_same(name):
    estimator = small(name).fit(FRAME, targets_of(name, VALUES))
    unseen, missing = FRAME.head(5).copy(), FRAME.head(5).copy()
    for frame, colour, town in ((unseen, "violet", "elsewhere"), (missing, None, None)):
        frame["colour"], frame["town"] = colour, town
    assert np.isfinite(predictions(estimator, unseen)).all()
    np.testing.assert_array_equal(predictions(estimator, unseen), predictions(estimator, missing))


@each_kind
def test_a_missing_number_is_a_missing_number_in_predict_too(name):
    estimator = small(name).fit(FRAME, targets_of(name, VALUES))
    holes = FRAME.assign(size=np.nan, age=np.nan)
    assert np.isfinite(predictions(estimator, holes)).all()


@each_kind
def test_other_columns_are_errors(name):
    estimator = small(name).fit(FRAME, targets_of(name, VALUES))
    with pytest.raises(ValueError, match=r"yet now missing:\n- town"):
        estimator.predict(FRAME.drop(columns="town"))
    with pytest.raises(ValueError, match=r"unseen at fit time:\n- more"):
        estimator.predict(FRAME.assign(more=1))
    with pytest.raises(ValueError, match="same order"):
        estimator.predict(FRAME[FRAME.columns[::-1]])
    with pytest.raises(ValueError, match="X has 2 features"):
        small(name).fit(np.ones((20, 3)), targets_of(name, VALUES[:20])).predict(np.ones((2, 2)))


@each_kind
def test_the_categorical_columns_can_be_named(name):
    codes = pd.DataFrame({"code": np.arange(120) % 4, "x": VALUES})
    y = targets_of(name, VALUES)
    as_numbers, as_categories = small(name).fit(codes, y), small(name, categorical_features=["code"]).fit(codes, y)
    assert as_categories.coder_.n_columns > as_numbers.coder_.n_columns - as_numbers.coder_.n_columns // 2
    text = codes.astype({"code": str})
    np.testing.assert_allclose(predictions(small(name).fit(text, y), text), predictions(as_categories, codes))


def test_only_training_rows_teach_the_coder():
    """A number of a row that is held out does not move the scale of its column."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    X_val = np.full((10, 2), 1e6)
    y = X[:, 0]
    coder = small("RealMLPRegressor").fit(X, y, X_val=X_val, y_val=y[:10]).coder_
    np.testing.assert_allclose(coder.columns[0].scale.center, np.median(X[:, 0]))


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("n_classes", [1, 2, 3])
@each_value_once
def test_classes_have_an_output_each(name, n_classes):
    y = targets_of(name, VALUES, n_classes)
    estimator = small(name).fit(FRAME, y)
    proba = estimator.predict_proba(FRAME)
    assert proba.shape == (len(y), n_classes) and estimator.n_outputs_ == n_classes
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(estimator.predict(FRAME), estimator.classes_[proba.argmax(axis=1)])
    np.testing.assert_allclose(np.exp(estimator.predict_log_proba(FRAME)), proba, rtol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_several_labels_may_be_true(name):
    y = np.column_stack([VALUES > 0, VALUES > 1, FRAME["open"]]).astype(int)
    estimator = small(name, max_iter=30).fit(FRAME, y)
    assert estimator.predict(FRAME).shape == y.shape
    assert estimator.score(FRAME, y) > 0.2


@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("loss", REGRESSOR_LOSSES)
@each_value_once
def test_regressors_take_all_losses(name, loss):
    y = np.exp(VALUES / 4)
    if loss == "kl_divergence":
        y = np.column_stack([y, 1 / y]) / (y + 1 / y)[:, None]
    estimator = small(name, loss=loss).fit(FRAME, y)
    assert estimator.predict(FRAME).shape == y.shape
    assert np.isfinite(estimator.predict(FRAME)).all()


@pytest.mark.parametrize("name", REGRESSORS)
def test_targets_of_any_size_are_learned(name):
    far = 1e5 + 300 * VALUES
    estimator = small(name, max_iter=60, n_iter_no_change=60, learning_rate_init=0.05).fit(FRAME, far)
    assert estimator.score(FRAME, far) > 0.5


@pytest.mark.parametrize("name", REGRESSORS)
def test_constant_targets_are_predicted(name):
    estimator = small(name).fit(FRAME, np.full(len(FRAME), 7.0))
    np.testing.assert_allclose(estimator.predict(FRAME), 7.0, rtol=1e-5)


@pytest.mark.parametrize("name", REGRESSORS)
def test_several_outputs(name):
    y = np.column_stack([VALUES, 100 - 20 * VALUES])
    estimator = small(name, max_iter=60, n_iter_no_change=60, learning_rate_init=0.05).fit(FRAME, y)
    assert estimator.predict(FRAME).shape == y.shape
    assert estimator.score(FRAME, y) > 0.5


@pytest.mark.parametrize(("name", "clamps"), [("RealMLPRegressor", None), ("TabMRegressor", True)])
def test_predictions_stay_within_the_training_range(name, clamps):
    X = np.linspace(-1, 1, 100)[:, None]
    clamped = small(name, clamp_output=clamps).fit(X, X.ravel())
    free = small(name, clamp_output=False).fit(X, X.ravel())
    far = np.array([[-50.0], [50.0]])
    low, high = clamped.target_range_
    assert not hasattr(free, "target_range_")
    np.testing.assert_allclose(clamped.predict(far), np.clip(free.predict(far), low, high), rtol=1e-6)


# --- validation rows --------------------------------------------------------------------------------------------------


@each_kind
def test_a_fifth_of_the_rows_is_held_out_by_class(name):
    seen = {}

    def look(info):
        seen.update(info.snapshot())

    y = targets_of(name, VALUES)
    small(name, max_iter=1, callbacks=[look]).fit(FRAME, y)
    rows = seen["validation_rows"]
    assert len(rows) == 24 and len(np.intersect1d(rows, seen["order"])) == 0
    assert len(seen["order"]) == 96
    if name in CLASSIFIERS:
        assert [*np.unique(y[rows], return_counts=True)[1]] == [8, 8, 8]


@each_kind
def test_given_validation_rows_are_used(name):
    y = targets_of(name, VALUES)
    estimator = small(name).fit(FRAME[:90], y[:90], X_val=FRAME[90:], y_val=y[90:])
    best = estimator.score(FRAME[90:], y[90:])
    np.testing.assert_allclose(best, estimator.best_validation_score_, rtol=1e-5)
    assert max(estimator.validation_scores_) == estimator.best_validation_score_


@each_kind
def test_further_sets_are_recorded(name):
    y = targets_of(name, VALUES)
    estimator = small(name, train_score=True).fit(FRAME, y, eval_set={"mine": (FRAME[:50], y[:50])})
    assert estimator.evals_result_.keys() == {"mine", "train"}
    assert len(estimator.history_["loss"]) == estimator.n_iter_


@each_kind
def test_without_validation_rows_the_last_epoch_stays(name):
    y = targets_of(name, VALUES)
    estimator = small(name, validation_fraction=0).fit(FRAME, y)
    assert estimator.best_validation_score_ is None or not np.isfinite(estimator.best_validation_score_)
    assert estimator.validation_scores_ is None or estimator.validation_scores_ == []


@pytest.mark.parametrize("monitor", ["loss", "neg_log_loss", "balanced_accuracy", "roc_auc_ovr"])
@pytest.mark.parametrize("name", CLASSIFIERS)
@each_value_once
def test_the_best_epoch_is_the_metrics(name, monitor):
    """The value of the best epoch is the one of the fitted estimator: for members, of their mean probability."""
    y = targets_of(name, VALUES)
    X_val, y_val = FRAME[80:], y[80:]
    estimator = small(name, monitor=monitor, max_iter=20).fit(FRAME[:80], y[:80], X_val=X_val, y_val=y_val)
    scorer = get_scorer("neg_log_loss" if monitor == "loss" else monitor)
    curve = estimator.validation_loss_curve_ if monitor == "loss" else estimator.validation_scores_
    best = -min(curve) if monitor == "loss" else max(curve)
    np.testing.assert_allclose(scorer(estimator, X_val, y_val), best, rtol=1e-4)


def test_labels_are_not_smoothed_for_metrics_of_probabilities():
    for monitor, smooths in (("score", True), ("f1_macro", True), ("neg_log_loss", False), ("roc_auc", False)):
        assert is_of_probabilities(monitor) != smooths
        member = small("RealMLPClassifier", monitor=monitor)._member()
        assert member.loss == (("log_loss", {"label_smoothing": 0.1}) if smooths else "log_loss")
    assert small("RealMLPClassifier", loss="focal")._member().loss == "focal"
    assert REALMLP["td"]["loss"].values == "squared_error"


@pytest.mark.parametrize("kind", FRAMES)
@each_kind
@each_value_once
def test_the_users_metric_sees_the_users_rows(name, kind):
    """A function that looks at columns, and predicts a part of the rows, gets the estimator's answer for them."""
    y, seen = targets_of(name, VALUES), []

    def metric(estimator, X, y_true):
        part = X[:7]
        np.testing.assert_allclose(predictions(estimator, part), predictions(estimator, X)[:7], rtol=1e-4)
        seen.append(X)
        return float(len(seen))

    X = FRAMES[kind](FRAME)
    small(name, monitor=metric, max_iter=2).fit(X, y)
    assert type(seen[0]) is type(X) and seen[0].shape == (24, 5)


# --- weights ----------------------------------------------------------------------------------------------------------


@each_kind
def test_weights_matter(name):
    y, weight = targets_of(name, VALUES), np.where(np.median(VALUES) < VALUES, 1.0, 1e-3)
    plain, weighted = small(name).fit(FRAME, y), small(name).fit(FRAME, y, sample_weight=weight)
    assert not np.array_equal(predictions(plain, FRAME), predictions(weighted, FRAME))
    with pytest.raises(ValueError, match=r"[Ss]ample"):
        small(name).fit(FRAME, y, sample_weight=np.zeros(len(y)))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_class_weights_are_sample_weights(name):
    y = targets_of(name, VALUES)
    weight = np.where(y == "low", 3.0, 1.0)
    by_class = small(name, class_weight={"low": 3.0}).fit(FRAME, y)
    by_row = small(name).fit(FRAME, y, sample_weight=weight)
    np.testing.assert_array_equal(by_class.predict_proba(FRAME), by_row.predict_proba(FRAME))


# --- ensembles --------------------------------------------------------------------------------------------------------


@each_kind
def test_an_ensemble_is_the_mean_of_its_networks(name):
    y = targets_of(name, VALUES)
    estimator = small(name, n_ens=3).fit(FRAME, y)
    assert len(estimator.estimators_) == 3
    mean = np.mean([member._outputs_of(FRAME) for member in estimator.estimators_], axis=0)
    np.testing.assert_allclose(estimator._outputs_of(FRAME), mean, rtol=1e-5)
    first, second, _ = estimator.estimators_
    assert first.coder_ is second.coder_
    assert not np.array_equal(first.coefs_[0], second.coefs_[0])
    np.testing.assert_array_equal(
        predictions(pickle.loads(pickle.dumps(estimator)), FRAME), predictions(estimator, FRAME)
    )


@each_kind
def test_folds_keep_predictions_of_rows_that_they_did_not_see(name):
    y = targets_of(name, VALUES)
    estimator = small(name, n_cv=3).fit(FRAME, y)
    held = estimator.oof_predict_proba_ if name in CLASSIFIERS else estimator.oof_prediction_
    assert len(held) == len(y) and np.isfinite(held).all()
    scores = [member.best_validation_score_ for member in estimator.estimators_]
    assert min(scores) - 0.2 <= estimator.oof_score_ <= max(scores) + 0.2


@pytest.mark.parametrize("n_ens", [1, 2])
@each_kind
@each_value_once
def test_threads_change_no_bit(name, n_ens):
    y = targets_of(name, VALUES)
    one, two = (small(name, n_ens=n_ens, n_jobs=n).fit(FRAME, y) for n in (1, 2))
    np.testing.assert_array_equal(predictions(one, FRAME), predictions(two, FRAME))


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "reference"])
@each_kind
@each_value_once
def test_engines_agree(name, engine):
    """First values, too, which engines compute."""
    y = targets_of(name, VALUES)
    expected, got = (small(name, dtype="float64", backend=b).fit(FRAME, y) for b in ("reference", engine))
    np.testing.assert_allclose(predictions(got, FRAME), predictions(expected, FRAME), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(got.loss_curve_, expected.loss_curve_, rtol=1e-7)


# --- callbacks --------------------------------------------------------------------------------------------------------


@each_kind
def test_callbacks_see_an_estimator_that_predicts(name):
    y, seen = targets_of(name, VALUES), []

    def look(info):
        seen.append(predictions(info.estimator, FRAME[:3]))
        return info.epoch == 2

    estimator = small(name, callbacks=[look]).fit(FRAME, y)
    assert len(seen) == 2 == estimator.n_iter_ and estimator.stopped_by_.endswith("look")


@pytest.mark.skipif(not hasattr(fastmlp.MLPClassifier, "set_callbacks"), reason="scikit-learn < 1.9")
@each_kind
def test_scikit_learns_callbacks_see_each_epoch(name):
    y, recorder = targets_of(name, VALUES), SklearnRecorder(stop_at=3)
    estimator = small(name).set_callbacks(recorder).fit(FRAME, y)
    assert estimator.n_iter_ == 3 and recorder.calls.count(("end", "epoch")) == 3
    model, X, _, _ = recorder.models[-1]
    np.testing.assert_array_equal(predictions(model, X), predictions(estimator, FRAME))


# --- errors -----------------------------------------------------------------------------------------------------------

MISTAKES = {
    "dates": (lambda X, y: (X.assign(day=pd.Timestamp("2020-01-01")), y), "day"),
    "infinity": (lambda X, y: (X.assign(size=np.inf), y), "infinity"),
    "no rows": (lambda X, y: (X[:0], y[:0]), "0 sample"),
    "no columns": (lambda X, y: (X[[]], y), "0 feature"),
    "fewer targets": (lambda X, y: (X, y[:5]), "inconsistent"),
    "no targets": (lambda X, y: (X, None), "y to be passed"),
    "two rows": (lambda X, y: (X[:2], y[:2]), "validation"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@each_kind
@each_value_once
def test_mistakes_are_named(name, mistake):
    change, text = MISTAKES[mistake]
    X, y = change(FRAME, targets_of(name, VALUES))
    with pytest.raises((ValueError, TypeError), match=text):
        small(name).fit(X, y)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"preset": "tds"}, "preset"),
        ({"num_emb_type": "plr"}, "num_emb_type"),
        ({"dropout": 1.0}, "dropout"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes"),
        ({"loss": "hinge"}, "loss"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"plr_hidden_2": 1}, "plr_hidden_2"),
        ({"activation": "prelu"}, "use_parametric_act=False"),
        ({"activation": ("rrelu", {"upper": 0.5})}, "use_parametric_act=False"),
        ({"monitor": "accurcy"}, "accuracy"),
        ({"categorical_features": ["towns"]}, "towns"),
        ({"backend": "cyton"}, "cython"),
    ],
)
def test_wrong_values_are_named(changes, text):
    with pytest.raises((ValueError, TypeError), match=text):
        small("RealMLPClassifier", **changes).fit(FRAME, targets_of("RealMLPClassifier", VALUES))


def test_iris_is_learned():
    X, y = load_iris(return_X_y=True)
    for name in CLASSIFIERS:
        estimator = small(name, max_iter=60, n_iter_no_change=60, learning_rate_init=0.02).fit(X, y)
        assert estimator.score(X, y) > 0.9
