"""What is measured after each epoch, judged by scikit-learn; metrics that are NaN, and sets whose names clash."""

import pickle
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import accuracy_score, f1_score, get_scorer, make_scorer, r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import Checkpoint
from fastmlp.displays import LossCurveDisplay
from fastmlp.training import metrics
from fastmlp.training.given_sets import given_validation

import parity
from tiers import label
from validated_training import GIVEN, GIVEN_VALUES, SMALL, V_VAL, WEIGHT_VAL, X_VAL, Y_VAL, V, X, Y

pytestmark = [
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

SHORT = SMALL | {"max_iter": 5}
MARGIN = fastmlp.loss("def margin(y, z): return maximum(0, 1 - (2 * y - 1) * z)")

# ------------------------------------------------------------------------------ accuracy and R2


def rounding(dtype):
    return 4 * np.finfo(dtype).eps


@given(st.data())
def test_r2_is_that_of_scikit_learn(data):
    """Constant targets, several outputs, weights, both dtypes, whole numbers, perfect predictions: equal bits."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, k = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 3))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    y = rng.normal(3, 2, (n, k)).astype(data.draw(st.sampled_from([np.float32, np.float64, np.int64])))
    if data.draw(st.booleans()):
        y[:, 0] = 2
    outputs = (y + data.draw(st.sampled_from([0, 1e-3, 1, 1e6])) * rng.normal(size=(n, k))).astype(dtype)
    weight = rng.uniform(0.1, 2, n).astype(dtype) if data.draw(st.booleans()) else None
    y, predicted = (y.ravel(), outputs.ravel()) if k == 1 else (y, outputs)
    score = metrics.r2(y, weight, np.dtype(dtype))(outputs)
    assert type(score) is float
    np.testing.assert_array_equal(score, r2_score(y, predicted, sample_weight=weight))


def test_r2_of_outputs_that_are_not_finite():
    score = metrics.r2(np.arange(3.0), None, np.dtype(float))
    assert np.isnan(score(np.array([[1.0], [np.inf], [2.0]]))) and np.isnan(score(np.array([[1.0], [np.nan], [2.0]])))
    assert score(np.full((3, 1), 1e300)) == -np.inf
    assert np.isnan(metrics.r2(np.ones(1), None, np.dtype(float))(np.ones((1, 1))))


TASKS = ["binary", "multiclass", "multilabel", "one class"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "loss", ["log_loss", ("log_loss", {"label_smoothing": 0.3}), "focal", "hinge", MARGIN], ids=label
)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracy_is_that_of_scikit_learn(task, loss, weighted, dtype):
    if task == "multilabel" and loss in ("hinge", MARGIN):
        return  # refused
    y, y_val = {
        "binary": (np.array(["no", "yes"])[Y % 2], np.array(["no", "yes"])[Y_VAL % 2]),
        "multiclass": (Y * 10, Y_VAL * 10),
        "multilabel": (np.eye(3, dtype=int)[Y], np.eye(3, dtype=int)[Y_VAL]),
        "one class": (np.ones(100), np.ones(40)),
    }[task]
    weight = WEIGHT_VAL if weighted else None
    seen = []
    est = MLPClassifier(loss=loss, callbacks=[lambda info: seen.append(info.estimator.predict(X_VAL))], **SHORT)
    est.fit(X.astype(dtype), y, X_val=X_VAL.astype(dtype), y_val=y_val, sample_weight_val=weight)
    weight = None if weight is None else weight.astype(dtype)
    expected = [accuracy_score(y_val, est.predict(X_VAL.astype(dtype)), sample_weight=weight)]
    assert est.validation_scores_[-1:] == expected and all(type(score) is float for score in est.validation_scores_)
    np.testing.assert_allclose(est.validation_scores_, [np.average(per_row(y_val, p), weights=weight) for p in seen])


def per_row(y, predicted):
    return (y == predicted).reshape(len(y), -1).all(axis=1)


# ------------------------------------------------------------------------------ several metrics and sets

SEVERAL = [
    ["score", "f1_macro", "neg_log_loss"],
    ("f1_macro", "neg_log_loss"),
    {"f1": "f1_macro", "mine": lambda est, X, y: f1_score(y, est.predict(X), average="macro")},
]


@pytest.mark.parametrize("monitor", SEVERAL, ids=label)
def test_several_metrics_are_those_of_the_model(monitor):
    est = MLPClassifier(monitor=monitor, **SHORT).fit(X, Y, **GIVEN)
    assert list(est.evals_result_) == ["validation"]
    curves = est.evals_result_["validation"]
    assert list(curves) == ["loss", *monitor]
    for name in monitor:
        metric = monitor[name] if isinstance(monitor, dict) else name
        scorer = get_scorer("accuracy" if metric == "score" else metric) if isinstance(metric, str) else metric
        np.testing.assert_allclose(curves[name][-1], scorer(est, X_VAL, Y_VAL), rtol=1e-7)
    first, *others = monitor
    assert curves[first] == est.validation_scores_ == est.history_["score"]
    assert curves["loss"] == est.validation_loss_curve_ == est.history_["validation_loss"]
    assert [est.history_[f"validation_{name}"] for name in others] == [curves[name] for name in others]
    assert {len(column) for column in est.history_.values()} == {5}


@pytest.mark.parametrize("monitor", [["loss", "f1_macro"], {"f1_macro": "f1_macro", "l": "loss"}], ids=label)
def test_the_first_metric_decides(monitor):
    params = SMALL | {"max_iter": 60, "early_stopping": True, "n_iter_no_change": 3}
    first = next(iter(monitor))
    several = MLPClassifier(monitor=monitor, **params).fit(X, Y, **GIVEN)
    single = MLPClassifier(monitor=first, **params).fit(X, Y, **GIVEN)
    parity.assert_identical_models(several, single)
    assert several.history_["score"] == several.evals_result_["validation"]["f1_macro"]


SETS = {
    "pair": (X_VAL, Y_VAL),
    "list": [(X, Y), (X_VAL, Y_VAL)],
    "lists": [[X.tolist(), Y.tolist()], [X_VAL.tolist(), Y_VAL.tolist()]],
    "dict": {"early": (X, Y), "late": (X_VAL, Y_VAL)},
    "beside X_val": {"early": (X, Y)},
}


@pytest.mark.parametrize("form", SETS)
def test_forms_of_eval_set(form):
    """All are evaluated, and the last one, or X_val, decides."""
    params = SMALL | {"early_stopping": True, "monitor": "loss"}
    given = GIVEN if form == "beside X_val" else {}
    est = MLPClassifier(**params).fit(X, Y, eval_set=SETS[form], **given)
    expected = MLPClassifier(**params).fit(X, Y, **GIVEN)
    parity.assert_identical_models(est, expected)
    names = {"pair": ["validation_0"], "dict": ["early", "late"], "beside X_val": ["early", "validation"]}
    names = names.get(form, ["validation_0", "validation_1"])
    assert list(est.evals_result_) == names
    last, seen = est.evals_result_[names[-1]], {"loss": est.validation_loss_curve_, "score": est.validation_scores_}
    assert last == seen == expected.evals_result_["validation"]
    assert list(est.history_)[5:] == [f"{name}_{metric}" for name in names[:-1] for metric in ("loss", "score")]
    for name in names[:-1]:
        assert est.evals_result_[name]["score"] == est.history_[f"{name}_score"] != est.history_["score"]


@pytest.mark.parametrize("pair", [([[1, 2], [3, 4]], [0, 1]), (np.ones((2, 2)), np.ones(2)), ([[1.0]], [1.0], [1.0])])
def test_a_pair_of_two_rows_is_no_list_of_pairs(pair):
    assert list(given_validation(None, None, None, pair)) == ["validation_0"]
    assert list(given_validation(None, None, None, [pair, pair])) == ["validation_0", "validation_1"]


def test_weights_of_a_set():
    expected = MLPClassifier(**SHORT).fit(X, Y, sample_weight_val=WEIGHT_VAL, **GIVEN).evals_result_["validation"]
    for eval_set in ((X_VAL, Y_VAL, WEIGHT_VAL), [(X, Y), (X_VAL, Y_VAL, WEIGHT_VAL)]):
        assert list(MLPClassifier(**SHORT).fit(X, Y, eval_set=eval_set).evals_result_.values())[-1] == expected
    est = MLPClassifier(**SHORT).fit(X, Y, eval_set=[(X_VAL, Y_VAL)], sample_weight_val=WEIGHT_VAL)
    assert est.evals_result_["validation_0"] == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_train_score(dtype):
    """Without validation, too; it changes nothing else."""
    est = MLPRegressor(train_score=True, **SHORT).fit(X.astype(dtype), V)
    plain = MLPRegressor(**SHORT).fit(X.astype(dtype), V)
    parity.assert_identical_models(est, plain)
    assert est.history_["train_score"][-1] == r2_score(V, est.predict(X.astype(dtype)))
    assert est.evals_result_ == {"train": {"loss": est.history_["train_loss"], "score": est.history_["train_score"]}}
    assert est.validation_scores_ is None and np.isnan(est.history_["score"]).all()
    assert not hasattr(plain, "evals_result_")
    est.partial_fit(X.astype(dtype), V)
    assert {len(column) for column in est.history_.values()} == {6}


def test_train_score_is_that_of_the_rows_trained_on():
    params = SHORT | {"shuffle": False, "restore_best": False, "monitor": ["score", "f1_macro"], "train_score": True}
    est = MLPClassifier(early_stopping=True, **params).fit(X, Y)
    held_out = est.evals_result_["validation"]["score"][-1] * 10
    assert list(est.history_)[5:] == ["validation_f1_macro", "train_loss", "train_score", "train_f1_macro"]
    correct = est.score(X, Y) * 100
    np.testing.assert_allclose(est.history_["train_score"][-1], (correct - held_out) / 90)


def test_one_forward_pass_per_set_and_epoch(monkeypatch):
    passes = []
    logits = fastmlp.training.validation.Evaluation._logits
    monkeypatch.setattr(
        fastmlp.training.validation.Evaluation, "_logits", lambda *args: passes.append(args[1].name) or logits(*args)
    )
    monkeypatch.setattr(MLPClassifier, "_outputs_of", None)  # no scorer may ask for another
    monitor = ["roc_auc_ovr", "f1_macro", "neg_log_loss", "score"][:3]
    MLPClassifier(monitor=monitor, **SHORT | {"max_iter": 2}).fit(X, Y, eval_set=[(X, Y), (X_VAL, Y_VAL)])
    assert passes == ["validation_0", "validation_1"] * 2


BAD_MONITORS = {
    "unknown": (["score", "rok"], "monitor='rok' is unknown"),
    "empty": ([], "names no metric"),
    "twice": (["loss", "loss"], "has a name twice"),
    "function in a list": ([len], "must be a list of names; give functions as a dict"),
    "no scorer": ({"a": 3}, "'a' must be a scorer's name or a function, got 3"),
    "number as a name": ({3: "f1_macro"}, "names of metrics must be texts, got 3"),
    "another loss": ({"loss": "f1_macro"}, "'loss' is the name of the loss"),
    "no scorer, but a metric": (accuracy_score, r"write make_scorer\(accuracy_score\)"),
    "score later": (["f1_macro", "score"], "only the first may be named 'score'"),
}


@pytest.mark.parametrize("case", BAD_MONITORS)
def test_bad_monitors(case):
    monitor, message = BAD_MONITORS[case]
    est = MLPClassifier(**SHORT).fit(X, Y)
    before = parity.weights(est).copy()
    with pytest.raises(ValueError, match=message):
        est.set_params(monitor=monitor).fit(X, Y, **GIVEN)
    np.testing.assert_array_equal(parity.weights(est), before)


#: Names of scorers that cannot serve -> what is said, before anything changes.
CANNOT = {
    "probabilities": ({"loss": "hinge", "monitor": "neg_log_loss"}, {}, "neg_log_loss.*predict_proba"),
    "binary": ({"monitor": "f1"}, {}, "monitor='f1' cannot judge the 40 rows of X_val: .*multiclass"),
    "missing class": ({"monitor": "roc_auc_ovr"}, {"y_val": Y_VAL % 2}, "roc_auc_ovr.*cannot judge"),
    "weights": ({"monitor": "top_k_accuracy", "class_weight": {0: 2.0}}, {"X_val": X_VAL[:0]}, "validation data: "),
    "recorded only": ({"monitor": ["score", "f1"]}, {}, "monitor='f1' cannot judge"),
    "a set": ({"monitor": "f1_macro"}, {"eval_set": {"a": (X_VAL, Y_VAL + 1)}}, "validation data 'a': y_val has cl"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_scorers_that_cannot_serve(case):
    params, given, message = CANNOT[case]
    est = MLPClassifier(**SHORT).fit(X, Y)
    before = parity.weights(est).copy()
    with pytest.raises(ValueError, match=message):
        est.set_params(**params).fit(X, Y, **GIVEN | given)
    np.testing.assert_array_equal(parity.weights(est), before)


def test_a_scorer_that_fails_in_training_is_named():
    est = MLPRegressor(monitor="neg_mean_squared_log_error", **SHORT)
    with pytest.raises(
        ValueError, match=r"neg_mean_squared_log_error' cannot judge the 40 rows of X_val: Mean Squared"
    ):
        est.fit(X, np.abs(V), X_val=X_VAL, y_val=np.abs(V_VAL))
    with pytest.raises(ZeroDivisionError):
        MLPRegressor(monitor=lambda *_: 1 / 0, **SHORT).fit(X, V, **GIVEN_VALUES)


@pytest.mark.parametrize("value", [None, "0.5", [1.0], np.ones(2), 1j, {"a": 1}], ids=label)
def test_scores_that_are_no_numbers(value):
    def mine(est, X, y):
        return value

    with pytest.raises(TypeError, match="monitor: 'mine' must return a number, got"):
        MLPClassifier(monitor=mine, **SHORT).fit(X, Y, **GIVEN)


@pytest.mark.parametrize("value", [1, True, np.float32(1), np.array(1.0), np.int64(1), np.bool_(True)], ids=repr)
def test_scores_of_any_kind_of_number(value):
    scores = MLPClassifier(monitor=lambda *_: value, **SHORT).fit(X, Y, **GIVEN).validation_scores_
    assert scores == [1.0] * 5 and all(type(score) is float for score in scores)


def test_a_function_that_takes_no_weights():
    est = MLPClassifier(monitor=lambda est, X, y: 1.0, class_weight={0: 2.0}, **SHORT)
    with pytest.raises(ValueError, match="'score' must take the argument sample_weight"):
        est.fit(X, Y, **GIVEN)
    with pytest.raises(ValueError, match=r"monitor='neg_max_error' cannot judge .*sample_weight"):
        MLPRegressor(monitor="neg_max_error", **SHORT).fit(X, V, sample_weight_val=WEIGHT_VAL, **GIVEN_VALUES)
    MLPClassifier(monitor=make_scorer(accuracy_score), class_weight={0: 2.0}, **SHORT).fit(X, Y, **GIVEN)


# ------------------------------------------------------------------------------ metrics that are NaN

RARE = np.zeros(1000, int)
WIDE_X = np.random.RandomState(0).randn(1000, 5)
RARE[np.argsort(WIDE_X[:, 0])[-4:]] = 1
ONE_ROW = {"X_val": X_VAL[:1], "y_val": V_VAL[:1]}
HUGE = {"X_val": X_VAL, "y_val": 1e200 * V_VAL}
DECIDES = [{"early_stopping": True}, {"restore_best": True}, {"learning_rate": "plateau"}]

#: estimator, fit's arguments -> what is said before the first epoch.
UNDEFINED = {
    "one class held out": (
        MLPClassifier(monitor="roc_auc", early_stopping=True),
        (WIDE_X, RARE),
        {},
        "'roc_auc' is NaN for the 100 rows held out by early stopping: all of them have the class 0.*choose another",
    ),
    "one class given": (
        MLPClassifier(monitor="roc_auc"),
        (X, Y % 2),
        {"X_val": X_VAL[Y_VAL != 1], "y_val": Y_VAL[Y_VAL != 1] % 2},
        "rows of X_val: all of them have the class 0",
    ),
    "one label": (
        MLPClassifier(monitor="roc_auc"),
        (X, np.eye(3, dtype=int)[Y]),
        {"X_val": X_VAL, "y_val": np.eye(3, dtype=int)[Y_VAL * 0]},
        "label 0 is 1 in all of them",
    ),
    "R2 of one row": (MLPRegressor(), (X, V), ONE_ROW, "'score' is NaN for the 1 row of X_val: it needs two rows"),
    "r2 of one row": (MLPRegressor(monitor="r2"), (X, V), ONE_ROW, "'r2' is NaN for the 1 row of X_val"),
    "huge targets": (MLPRegressor(), (X, V), HUGE, r"the squares of their targets, up to .*e\+200, overflow; scale y"),
    "poisson": (
        MLPRegressor("poisson", monitor="loss"),
        (X, np.abs(V)),
        {"X_val": X_VAL, "y_val": -np.abs(V_VAL)},
        "the loss is NaN for the 40 rows of X_val: loss='poisson' needs targets of at least 0, got -",
    ),
    "in a set": (
        MLPRegressor(),
        (X, V),
        {"eval_set": {"a": (X, V), "b": (X_VAL[:1], V_VAL[:1])}},
        "the 1 row of eval_set's 'b'",
    ),
}


@pytest.mark.parametrize("decides", DECIDES, ids=label)
@pytest.mark.parametrize("case", UNDEFINED)
def test_a_metric_that_is_nan_and_decides(case, decides):
    """An error before training, not the first weights."""
    est, data, given, message = UNDEFINED[case]
    if case == "one class held out" and "early_stopping" not in decides:
        decides = decides | {"early_stopping": True}
    epochs = []
    est = est.__class__(**est.get_params(deep=False) | SHORT | decides | {"callbacks": [epochs.append]})
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        warnings.simplefilter("ignore")  # scikit-learn's own, and those of huge targets
        est.fit(*data, **given)
    assert not epochs


@pytest.mark.parametrize("case", [case for case in UNDEFINED if case != "one class held out"])
def test_a_metric_that_is_nan_and_only_recorded(case):
    est, data, given, message = UNDEFINED[case]
    plain = est.__class__(**est.get_params(deep=False) | SHORT | {"monitor": "score"}).fit(*data)
    est = est.__class__(**est.get_params(deep=False) | SHORT)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        est.fit(*data, **given)
    ours = [str(one.message) for one in told if "is NaN for" in str(one.message)]
    assert len(ours) == 1 and re.search(message, ours[0])
    np.testing.assert_array_equal(parity.weights(est), parity.weights(plain))
    by_loss = est.monitor == "loss"
    assert np.isnan(est.history_["validation_loss" if by_loss else "score"]).all()


def test_nothing_is_said_of_outputs_that_never_were():
    """Metrics are tried before the first epoch; precision is undefined if no output is positive."""
    y, params = X[:, 0] > -0.5, SHORT | {"hidden_layer_sizes": (16,)}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UndefinedMetricWarning)
        est = MLPClassifier(monitor=["precision"], **params).fit(X, y, X_val=X, y_val=y)
    assert min(est.history_["score"]) > 0


@pytest.mark.parametrize("params", [{"early_stopping": True}, {"restore_best": True}], ids=label)
def test_a_function_that_returns_nan(params):
    scores = iter([0.3, 0.5, np.nan, 0.7])

    def sometimes(est, X, y):
        return next(scores)

    seen = []
    est = MLPClassifier(monitor=sometimes, callbacks=[seen.append], **SHORT | params)
    with pytest.raises(ValueError, match="the metric 'sometimes' is NaN for the 40 rows of X_val"):
        est.fit(X, Y, **GIVEN)
    assert [info.score for info in seen] == [0.3, 0.5]
    told = MLPClassifier(monitor={"s": "score", "nan": lambda *_: np.nan}, **SHORT | params)
    with pytest.warns(UndefinedMetricWarning, match="the metric 'nan' is NaN for the 40 rows of X_val") as record:
        told.fit(X, Y, **GIVEN)
    assert [one.category for one in record].count(UndefinedMetricWarning) == 1
    assert np.isnan(told.history_["validation_nan"]).all()


def test_held_out_rows_without_weight():
    weight = np.zeros(100)
    weight[1:4] = 1  # rows to train on, with either estimator
    for cls, y in ((MLPClassifier, Y), (MLPRegressor, V)):
        with pytest.raises(ValueError, match="Sample weights must contain at least one non-zero number") as caught:
            cls(early_stopping=True, **SHORT | {"batch_size": 90}).fit(X, y, weight)
        assert caught.value.__notes__ == ["The 10 rows held out by early stopping have weights that add up to 0."]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("monitor", ["score", "loss", "neg_mean_squared_error"])
def test_training_that_diverges_from_the_start(monitor, weighted):
    """Every score is NaN or -inf: never the first weights, as if they were the best of all."""
    params = {"activation": "identity", "solver": "sgd", "max_iter": 5, "early_stopping": True, "random_state": 0}
    weight = np.where(np.arange(100) % 3, 1.0, 0.0) if weighted else None
    est = MLPRegressor(monitor=monitor, learning_rate_init=1e200, **params)
    with pytest.raises(ValueError, match="no epoch is the best: after each of 5 epochs the validation"):
        est.fit(X, V, weight)
    assert not np.isfinite(est.evals_result_["validation"]["loss"]).any()
    later = MLPRegressor(monitor=monitor, learning_rate_init=1, **params | {"max_iter": 20}).fit(X, V, weight)
    values = later.evals_result_["validation"]
    assert np.isfinite(values["loss"][0]) and np.isnan(values["loss"][-1])
    if monitor != "loss":
        assert np.isnan(later.validation_scores_[-1])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_checkpoint_of_the_best_needs_a_score(tmp_path):
    est = MLPRegressor(callbacks=[Checkpoint(tmp_path / "a", keep_best=True)], **SHORT)
    with pytest.raises(ValueError, match=r"Checkpoint\(keep_best=True\): the score of epoch 1 is NaN"):
        est.fit(X, V, **ONE_ROW)
    with pytest.raises(ValueError, match="the validation loss of epoch 1 is NaN"):
        MLPRegressor("poisson", monitor="loss", callbacks=est.callbacks, **SHORT).fit(
            X, np.abs(V), X_val=X_VAL, y_val=-np.abs(V_VAL)
        )
    est.set_params(monitor="loss").fit(X, V, **ONE_ROW)
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_loss_that_overflows_is_told(solver, dtype):
    scale = 1e200 if dtype == np.float64 or solver == "lbfgs" else 1e25
    est = MLPRegressor(**SHORT | {"solver": solver})
    with pytest.warns(RuntimeWarning, match=r"the training loss is (inf|nan).*scale y") as told:
        est.fit(X.astype(dtype), scale * V)
    assert __file__ in {one.filename for one in told if one.category is RuntimeWarning}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        est.fit(X.astype(dtype), V)


# ------------------------------------------------------------------------------ in files, pickles and pictures

RICH = {"monitor": ["score", "f1_macro"], "train_score": True, "early_stopping": True}


@pytest.mark.parametrize("held_out", [False, True])
def test_a_training_with_several_sets_and_metrics_is_resumed(tmp_path, held_out):
    given = {} if held_out else {"eval_set": {"a.b": (X, Y), "late": (X_VAL, Y_VAL)}}
    params = SMALL | RICH | {"max_iter": 12, "n_iter_no_change": 50}
    whole = MLPClassifier(**params).fit(X, Y, **given)
    stop = [Checkpoint(tmp_path / "a"), lambda info: info.epoch == 5]
    MLPClassifier(**params | {"random_state": 0, "callbacks": stop}).fit(X, Y, **given)
    resumed = MLPClassifier(**params | {"random_state": 7 if held_out else 0}).fit(
        X, Y, resume_from=tmp_path / "a", **given
    )
    parity.assert_identical_models(resumed, whole)
    assert resumed.evals_result_ == whole.evals_result_
    for name in set(whole.history_) - {"seconds"}:
        assert resumed.history_[name] == whole.history_[name], name


def test_results_are_kept_in_files_and_pickles(tmp_path):
    est = MLPClassifier(**SHORT | RICH | {"monitor": {"a.b": "score", "a": "f1_macro"}})
    est.fit(X, Y, eval_set={"x": (X, Y), "x.a": (X, Y), "y": (X_VAL, Y_VAL)})
    est.save(tmp_path / "m")
    for other in (fastmlp.load(tmp_path / "m"), pickle.loads(pickle.dumps(est))):
        assert other.evals_result_ == est.evals_result_ and other.history_ == est.history_
        assert other.get_params(deep=False) == est.get_params(deep=False)


def test_warm_starts_with_other_sets_and_metrics():
    est = MLPClassifier(warm_start=True, **SHORT).fit(X, Y, eval_set={"a": (X, Y), "b": (X_VAL, Y_VAL)})
    est.set_params(train_score=True).fit(X, Y)
    est.set_params(monitor=["score", "f1_macro"]).fit(X, Y, **GIVEN)
    est.partial_fit(X, Y)
    assert {len(column) for column in est.history_.values()} == {16}
    numbers = {name: np.flatnonzero(~np.isnan(column)).tolist() for name, column in est.history_.items()}
    assert numbers["a_score"] == [*range(5)] and numbers["train_score"] == [*range(5, 16)]
    assert numbers["score"] == [*range(5), *range(10, 15)] and numbers["validation_f1_macro"] == [*range(10, 15)]
    est.set_params(warm_start=False, train_score=False, monitor="score").fit(X, Y)
    assert not hasattr(est, "evals_result_") and len(est.history_) == 5


def test_a_best_score_says_nothing_about_another_metric():
    est = MLPClassifier(early_stopping=True, warm_start=True, **SMALL).fit(X, Y, **GIVEN)
    est.set_params(monitor="neg_log_loss").fit(X, Y, **GIVEN)  # negative: less than any accuracy
    assert est.best_validation_score_ == max(est.validation_scores_[-est.n_iter_ :]) < 0


def test_curves_of_further_sets_are_drawn():
    pytest.importorskip("matplotlib")
    est = MLPClassifier(train_score=True, **SHORT).fit(X, Y, eval_set={"a": (X, Y), "b": (X_VAL, Y_VAL)})
    display = LossCurveDisplay.from_estimator(est)
    drawn = ["loss", "validation_loss", "a_loss", "train_loss", "score", "a_score", "train_score"]
    assert list(display.lines_) == drawn
    assert len({line.get_label() for line in display.lines_.values()}) == len(drawn)
    assert display.lines_["train_score"].axes is display.score_ax_ is not display.lines_["a_loss"].axes


# ------------------------------------------------------------------------------ inside meta-estimators


@pytest.mark.parametrize("transform", [StandardScaler(), FunctionTransformer(np.log1p, np.expm1), MinMaxScaler()])
def test_targets_on_another_scale(transform):
    """TransformedTargetRegressor transforms y alone."""
    y, y_val = 1000 + 100 * V, 1000 + 100 * V_VAL
    model = TransformedTargetRegressor(MLPRegressor(**SHORT), transformer=transform)
    with pytest.warns(UserWarning, match="the targets of validation data seem to be on another scale than y"):
        model.fit(X, y, X_val=X_VAL, y_val=y_val)
    transform.fit(y[:, None])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*another scale")
        model.fit(X, y, X_val=X_VAL, y_val=transform.transform(y_val[:, None]).ravel())
        MLPRegressor(**SHORT).fit(X, y, X_val=X_VAL, y_val=y_val)
        MLPRegressor(**SHORT).fit(X, np.zeros(100), X_val=X_VAL, y_val=V_VAL)  # nothing to compare with
        trend = np.linspace(0, 100, 100)  # later values of a series are no other scale
        MLPRegressor(**SHORT).fit(X, trend, X_val=X_VAL, y_val=np.linspace(100, 140, 40))


def test_searches_slice_X_val_but_not_eval_set():
    """Documented: scikit-learn slices whatever is as long as X."""
    n_rows = []

    def counting(est, X, y):
        n_rows.append(len(X))
        return 0.0

    search = GridSearchCV(MLPClassifier(monitor=counting, **SHORT | {"max_iter": 1}), {"alpha": [1.0]}, cv=2)
    search.fit(X, Y, X_val=X[::-1], y_val=Y[::-1])
    assert n_rows == [50, 50, 100]
    n_rows.clear()
    for eval_set in ((X, Y), [(X, Y)], {"a": (X, Y)}):
        search.fit(X, Y, eval_set=eval_set)
    assert n_rows == [100] * 9


def test_meta_estimators_that_change_the_targets_are_refused():
    with pytest.raises(ValueError, match="y_val has classes that y does not have"):
        OneVsRestClassifier(MLPClassifier(**SHORT)).estimator.fit(X, Y == 0, X_val=X_VAL, y_val=Y_VAL)
    two = np.stack([V, V], axis=1)
    with pytest.raises(ValueError, match=r"y has shape .* y_val has shape"):
        MultiOutputRegressor(MLPRegressor(**SHORT)).fit(X, two, X_val=X_VAL, y_val=two[:40])


def test_pipelines_transform_X_val_and_cannot_transform_eval_set():
    """scikit-learn hands each entry of a tuple to the transformers, targets too."""
    with config_context(enable_metadata_routing=True):
        est = MLPClassifier(**SHORT).set_fit_request(X_val=True, y_val=True, eval_set=True)
        pipeline = make_pipeline(StandardScaler(), est, transform_input=["X_val"])
        pipeline.fit(X, Y, **GIVEN)
        scaled = pipeline[0].transform(X_VAL)
        assert pipeline[-1].validation_scores_[-1] == pipeline[-1].score(scaled, Y_VAL)
        for eval_set in ((X_VAL, Y_VAL), [(X_VAL, Y_VAL)], {"a": (X_VAL, Y_VAL)}):
            with pytest.raises((ValueError, TypeError)):
                pipeline.set_params(transform_input=["eval_set"]).fit(X, Y, eval_set=eval_set)
