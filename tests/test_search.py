"""The search within a time limit and its greedy ensemble."""

import _thread
import pickle
import re
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, uniform
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_diabetes, load_iris, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, get_scorer, log_loss
from sklearn.model_selection import KFold, RandomizedSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator

import fastmlp
from fastmlp import EnsembleSearchClassifier, EnsembleSearchRegressor, MLPClassifier, MLPRegressor, RealMLPClassifier
from fastmlp.callbacks import TimeLimit
from fastmlp.search import LogUniform, Mixture, ensembling, space_of, spaces, trials

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
X = scale(X)
X_VALUES, VALUES = load_diabetes(return_X_y=True)
VALUES = scale(VALUES)
SPACE = {"alpha": LogUniform(1e-5, 10.0), "hidden_layer_sizes": [(4,), (8,), (4, 4)]}


def small(**parameters):
    return MLPClassifier(**{"hidden_layer_sizes": (8,), "max_iter": 8, "learning_rate_init": 0.01} | parameters)


def small_regressor(**parameters):
    return MLPRegressor(**{"hidden_layer_sizes": (8,), "max_iter": 8, "learning_rate_init": 0.01} | parameters)


def search(estimator=None, space=SPACE, **parameters):
    """A search without a time limit, so that it is deterministic."""
    given = {"n_trials": 4, "time_limit": None, "random_state": 0, "ensemble_size": 5} | parameters
    return EnsembleSearchClassifier(small() if estimator is None else estimator, space, **given)


# --- greedy selection -------------------------------------------------------------------------------------------------


def brute_force(candidates, score, size):
    """The rule as in the paper, on lists of the members: (weights, score) of the best ensemble along the way."""
    members, found = [], []
    for _ in range(size):
        tried = []
        for number in range(len(candidates)):
            bag = [candidates[member] for member in [*members, number]]
            tried.append((score([np.mean(parts, axis=0) for parts in zip(*bag, strict=True)]), -number))
        members.append(-max(tried)[1])
        found.append((max(tried)[0], -len(members)))
    best = members[: -max(found)[1]]
    return np.bincount(best, minlength=len(candidates)) / len(best)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 7), st.integers(1, 3))
def test_greedy_selection_is_the_papers(seed, n_candidates, size, n_splits):
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 8, size=(n_splits, 6)).astype(float)
    candidates = [list(truth + draw.integers(-4, 5, size=truth.shape)) for _ in range(n_candidates)]

    def score(outputs):  # whole numbers and their means: ties are exact
        return -float(np.mean([np.abs(part - true).max().round(9) for part, true in zip(outputs, truth, strict=True)]))

    weights = ensembling.select(candidates, score, size)
    assert np.allclose(weights, brute_force(candidates, score, size))
    assert weights.sum() == pytest.approx(1)
    assert score(ensembling.means(candidates, weights)) >= max(map(score, candidates))


def test_of_equal_ensembles_the_smallest_and_of_equal_candidates_the_first():
    same = [np.zeros(3)]
    assert ensembling.select([same, same, same], lambda outputs: 0.0, 5).tolist() == [1, 0, 0]


def test_a_later_number_decides_among_equals():
    found = ensembling.select([[np.array([1.0])], [np.array([3.0])]], lambda outputs: (0.0, -abs(outputs[0][0] - 2)), 4)
    assert found.tolist() == [0.5, 0.5]


def test_selection_ends_when_it_is_told_to():
    rounds = []
    ensembling.select(
        [[np.zeros(1)], [np.ones(1)]], lambda outputs: outputs[0][0], 9, lambda: rounds.append(1) or False
    )
    assert len(rounds) == 1


# --- what a search finds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cv", [None, 3, KFold(2, shuffle=True, random_state=1)], ids=str)
@pytest.mark.parametrize("scoring", [None, "neg_log_loss"])
def test_ensemble_is_no_worse_than_the_best_trial_nor_that_than_the_defaults(cv, scoring):
    found = search(cv=cv, scoring=scoring).fit(X, Y)
    scores = found.cv_results_["mean_test_score"]
    assert found.ensemble_score_ >= found.best_score_ == scores.max() >= scores[0]
    assert found.cv_results_["params"][0] == {}
    assert found.best_params_ == found.cv_results_["params"][found.best_index_]
    n_splits = 1 if cv is None else cv if isinstance(cv, int) else cv.get_n_splits()
    assert len(found.weights_) == len(found.estimators_) == n_splits * (found.cv_results_["ensemble_weight"] > 0).sum()
    assert found.weights_.sum() == pytest.approx(1)


@pytest.mark.parametrize("scoring", [None, "neg_mean_absolute_error"])
def test_regression(scoring):
    found = EnsembleSearchRegressor(
        small_regressor(), SPACE, n_trials=4, time_limit=None, scoring=scoring, random_state=0
    )
    found.fit(X_VALUES, VALUES)
    assert found.ensemble_score_ >= found.best_score_ >= found.cv_results_["mean_test_score"][0]
    mean = sum(w * reg.predict(X_VALUES) for w, reg in zip(found.weights_, found.estimators_, strict=True))
    np.testing.assert_allclose(found.predict(X_VALUES), mean)
    judge = get_scorer(scoring or "r2")
    assert found.score(X_VALUES, VALUES) == pytest.approx(judge(found, X_VALUES, VALUES))


def test_several_outputs():
    both = np.column_stack([VALUES, -VALUES])
    found = EnsembleSearchRegressor(small_regressor(), SPACE, n_trials=3, time_limit=None, random_state=0)
    assert found.fit(X_VALUES, both).predict(X_VALUES).shape == both.shape


def test_predictions_are_the_weighted_mean():
    X, y = make_classification(200, flip_y=0.3, random_state=0)
    found = search(small(max_iter=60), scoring="neg_log_loss").fit(X, y)
    mean = sum(w * clf.predict_proba(X) for w, clf in zip(found.weights_, found.estimators_, strict=True))
    np.testing.assert_allclose(found.predict_proba(X), mean, rtol=1e-6)
    assert len(found.estimators_) > 1
    assert (found.predict(X) == found.classes_[mean.argmax(axis=1)]).all()
    assert found.score(X, y) == pytest.approx(-log_loss(y, mean), rel=1e-5)


def test_scores_are_those_of_the_validation_rows_given():
    X_val, y_val = X[::4], Y[::4]
    found = search().fit(X, Y, X_val=X_val, y_val=y_val)
    assert found.ensemble_score_ == accuracy_score(y_val, found.predict(X_val))
    single = search(ensemble_size=1).fit(X, Y, X_val=X_val, y_val=y_val)
    assert single.best_score_ == accuracy_score(y_val, single.predict(X_val)) == single.ensemble_score_
    (only,) = single.estimators_
    assert {name: only.get_params()[name] for name in single.best_params_} == single.best_params_


def test_validation_rows_reach_the_fit():
    """Best epochs are chosen on the rows that judge."""
    found = search(small(early_stopping=True), n_trials=2).fit(X, Y)
    for clf in found.estimators_:
        assert clf.best_validation_score_ in found.cv_results_["mean_test_score"]


def test_scores_of_folds_are_scikit_learns():
    """Same folds, same seeds: RandomizedSearchCV comes to the same table."""
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    space = {"C": [0.01, 0.1, 1.0]}
    ours = search(LogisticRegression(), space, cv=folds, n_trials=4).fit(X, Y)
    assert sorted(ours.cv_results_["param_C"][1:]) == [0.01, 0.1, 1.0]
    assert ours.cv_results_["param_C"].mask.tolist() == [True, False, False, False]
    theirs = RandomizedSearchCV(LogisticRegression(), space, n_iter=3, cv=folds).fit(X, Y)
    scores = dict(zip(theirs.cv_results_["param_C"], theirs.cv_results_["mean_test_score"], strict=True))
    for value, score in zip(ours.cv_results_["param_C"][1:], ours.cv_results_["mean_test_score"][1:], strict=True):
        assert score == pytest.approx(scores[value])
    columns = {name for name in theirs.cv_results_ if "score_time" not in name}
    assert columns <= set(ours.cv_results_)


def test_weights_of_rows_count_in_fits_and_scores():
    weight = np.where(np.arange(len(Y)) % 2, 1.0, 0.0)
    found = search(LogisticRegression(), {"C": [0.1, 1.0]}).fit(
        X, Y, weight, X_val=X, y_val=Y, sample_weight_val=weight
    )
    alone = search(LogisticRegression(), {"C": [0.1, 1.0]}).fit(X[1::2], Y[1::2], X_val=X[1::2], y_val=Y[1::2])
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
    np.testing.assert_allclose(found.predict_proba(X), alone.predict_proba(X), atol=1e-3)


def test_same_results_for_any_number_of_threads_and_a_trial_is_the_same_for_any_number_of_trials():
    found = [search(n_jobs=n_jobs, cv=2, scoring="neg_log_loss").fit(X, Y) for n_jobs in (1, 3)]
    for other in found[1:]:
        assert (other.predict_proba(X) == found[0].predict_proba(X)).all()
        assert (other.cv_results_["mean_test_score"] == found[0].cv_results_["mean_test_score"]).all()
    more = search(n_trials=6, cv=2, scoring="neg_log_loss").fit(X, Y)
    assert (more.cv_results_["mean_test_score"][:4] == found[0].cv_results_["mean_test_score"]).all()


def test_parameters_of_choices_have_flat_names():
    space = [{"loss": ["log_loss"], "loss__label_smoothing": uniform(0, 0.2)}, {"loss": ["focal"]}]
    found = search(space=space, n_trials=6).fit(X, Y)
    assert {"param_loss", "param_loss__label_smoothing"} <= set(found.cv_results_)


def test_a_seed_of_the_estimator_stays():
    found = search(small(random_state=7), ensemble_size=1, n_trials=1).fit(X, Y, X_val=X, y_val=Y)
    alone = small(random_state=7).fit(X, Y, X_val=X, y_val=Y)
    assert (found.predict_proba(X) == alone.predict_proba(X)).all()
    assert found.estimators_[0].get_params() == alone.get_params()  # no callback, no n_jobs


def test_frames_strings_pipelines_and_other_estimators():
    import pandas as pd

    frame, names = pd.DataFrame(X, columns=list("abcd")), load_iris().target_names[Y]
    pipeline = make_pipeline(StandardScaler(), small())
    found = search(pipeline, {"mlpclassifier__alpha": LogUniform(1e-4, 1.0)}, n_trials=3, time_limit=60).fit(
        frame, names
    )
    assert found.n_features_in_ == 4
    assert found.feature_names_in_.tolist() == list("abcd")
    assert set(found.predict(frame)) <= set(names)
    forest = search(RandomForestClassifier(n_estimators=5), {"max_depth": [1, 2, 3]}, n_trials=3).fit(frame, Y)
    assert forest.score(frame, Y) > 0.7


def test_folds_may_hold_classes_that_their_fits_do_not_know():
    found = search(cv=KFold(3), n_trials=2).fit(X, Y)  # the rows are in the order of their classes
    assert found.best_score_ == 0
    np.testing.assert_allclose(found.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


def test_a_class_of_one_row_is_trained_on():
    y = np.append(Y[1:], 9)
    found = search(n_trials=2).fit(X, y)
    assert found.classes_.tolist() == [0, 1, 2, 9]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of the class
        folds = search(n_trials=2, cv=3).fit(X, y)
    assert folds.predict_proba(X).shape == (150, 4)
    np.testing.assert_allclose(folds.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


def test_only_the_best_trials_are_kept(monkeypatch):
    monkeypatch.setattr("fastmlp.search.estimators.KEPT", 2)
    kept = []
    monkeypatch.setattr(
        "fastmlp.search.estimators.ensembling.select",
        lambda candidates, *others: kept.append(len(candidates)) or np.eye(len(candidates))[0],
    )
    search(n_trials=8).fit(X, Y)
    assert kept in ([2], [3])  # and the first trial


@pytest.mark.parametrize("estimator", [small(), small_regressor(max_iter=100)], ids=["classifier", "regressor"])
@pytest.mark.exhaustive
def test_check_estimator(estimator):
    cls = EnsembleSearchClassifier if isinstance(estimator, MLPClassifier) else EnsembleSearchRegressor
    check_estimator(cls(estimator, {"alpha": [0.001, 0.1]}, n_trials=2, time_limit=None))


def test_one_class_has_probability_1():
    found = search(n_trials=3).fit(X, np.full(len(X), "only"))
    assert (found.predict(X) == "only").all() and (found.predict_proba(X) == 1).all()
    assert found.best_score_ == found.ensemble_score_ == 1


def test_pickle_and_clone():
    found = search(n_trials=3).fit(X, Y)
    again = pickle.loads(pickle.dumps(found))
    assert (again.predict_proba(X) == found.predict_proba(X)).all()
    fresh = clone(found)
    assert fresh.get_params()["n_trials"] == 3
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    assert not hasattr(fresh, "n_features_in_")


# --- time -------------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that goes on when somebody works."""

    def __init__(self):
        self.now = 100.0
        self._lock = threading.Lock()

    def monotonic(self):
        return self.now

    def work(self, seconds):
        with self._lock:
            self.now += seconds


CLOCK = Clock()


class Slow(ClassifierMixin, BaseEstimator):
    """Takes `seconds` to fit."""

    def __init__(self, seconds=1.0, share=0.5):
        self.seconds, self.share = seconds, share

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        CLOCK.work(self.seconds)
        return self

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X):
        return np.tile([self.share, 1 - self.share, 0.0], (len(X), 1))


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(trials, "time", CLOCK)
    return CLOCK


@pytest.mark.parametrize(("limit", "n_begun"), [(3.5, 4), (0.5, 1), (None, 20)])
def test_no_trial_begins_after_the_end(clock, limit, n_begun):
    space = {"share": uniform(0, 1)}
    found = search(Slow(), space, n_trials=20, time_limit=limit, n_jobs=1)
    begin = clock.now
    found.fit(X, Y)
    assert clock.now - begin == n_begun
    assert len(found.cv_results_["params"]) == n_begun
    status = ["finished"] * (n_begun - 1) + ["finished" if limit is None else "out of time"]
    assert found.cv_results_["status"].tolist() == status


def test_networks_stop_at_the_end():
    """Real time: without the limit these fits would take hours."""
    import time

    begin = time.monotonic()
    endless = small(max_iter=10**9, n_iter_no_change=np.inf)
    found = search(endless, time_limit=0.6, n_trials=4, n_jobs=2, cv=2).fit(X, Y)
    assert time.monotonic() - begin < 3
    assert len(found.estimators_) >= 2
    assert all("TimeLimit" in clf.stopped_by_ for clf in found.estimators_)
    assert all(clf.callbacks is None for clf in found.estimators_)


def test_folds_share_the_time_that_is_left(clock, monkeypatch):
    """So that the first trial has folds that are trained alike."""
    limits = []
    monkeypatch.setattr(trials, "TimeLimit", lambda seconds: limits.append(seconds) or TimeLimit(seconds))
    search(time_limit=8.0, n_trials=1, cv=4).fit(X, Y)
    assert limits == [2.0, 8 / 3, 4.0, 8.0]


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_solvers_with_and_without_epochs(solver):
    found = search(small(solver=solver), {"alpha": [0.1, 1.0]}, time_limit=60).fit(X, Y)
    assert found.cv_results_["status"].tolist() == ["finished"] * 3


def test_own_callbacks_are_called_and_stay():
    epochs = []
    callback = epochs.append
    found = search(small(callbacks=[callback]), time_limit=60, n_trials=2).fit(X, Y)
    assert len(epochs) == 16
    assert all(clf.callbacks == [callback] for clf in found.estimators_)


# --- interruption and failure -----------------------------------------------------------------------------------------


class Interrupting:
    """A callback that presses Ctrl-C in a fit of many epochs, once, as soon as it may."""

    def __init__(self, may_press=True):
        self.may_press, self.pressed = may_press, False

    def __call__(self, info):
        if info.max_iter > 10**6 and self.may_press and not self.pressed:
            self.pressed = True
            _thread.interrupt_main()

    def __deepcopy__(self, memo):
        return self


def test_interruption_keeps_the_ensemble_of_finished_trials():
    endless = {"max_iter": [10**9], "n_iter_no_change": [np.inf], "alpha": LogUniform(1e-4, 1)}
    interrupting = Interrupting(may_press=False)

    def judged(estimator, X, y):
        """Score a trial: only the first one comes to its end, and nothing stops it any more."""
        interrupting.may_press = True
        return estimator.score(X, y)

    with pytest.warns(UserWarning, match="the search was interrupted: .* of the 1 trials"):
        found = search(small(callbacks=[interrupting]), endless, n_trials=9, n_jobs=2, scoring=judged).fit(X, Y)
    assert found.cv_results_["status"][0] == "finished"
    assert set(found.cv_results_["status"][1:]) == {"interrupted"}
    assert len(found.estimators_) == 1
    assert found.predict(X).shape == (150,)


def test_interruption_before_any_trial_is_finished():
    estimator = small(callbacks=[Interrupting()], max_iter=10**9, n_iter_no_change=np.inf)
    found = search(estimator, n_jobs=2)
    with pytest.raises(KeyboardInterrupt):
        found.fit(X, Y)
    assert not hasattr(found, "estimators_")


def test_trials_that_fail_are_left_out():
    space = {"learning_rate_init": [0.01, 1e30], "solver": ["sgd"]}
    with pytest.warns(FitFailedWarning, match=r"1 of 3 trials failed, the first with .*1e\+30"):
        found = search(space=space, n_trials=3).fit(X, Y)
    failed = found.cv_results_["status"] == "failed"
    assert failed.sum() == 1
    assert np.isnan(found.cv_results_["mean_test_score"][failed]).all()
    assert found.cv_results_["rank_test_score"][failed] == 3
    assert np.isfinite(found.ensemble_score_)


def test_an_error_of_the_first_trial_is_raised():
    with pytest.raises(ValueError, match="NaN"):
        search().fit(np.where(X > 2, np.nan, X), Y)


# --- wrong inputs -----------------------------------------------------------------------------------------------------

WRONG = {
    "estimator of the other task": (search(MLPRegressor()), {}, "estimator must be a classifier, got MLPRegressor"),
    "no probabilities": (search(small(loss="hinge")), {}, "estimator must have probabilities.*MLPClassifier as given"),
    "no space of its own": (search(SVC(probability=True), None), {}, "param_distributions must be given for SVC"),
    "unknown parameter": (search(space={"alphaa": [1.0]}), {}, "alphaa.*alpha"),
    "empty list": (search(space={"alpha": []}), {}, "alpha"),
    "number for a list": (search(space={"alpha": 3.0}), {}, "alpha"),
    "no space": (search(space=[3]), {}, "not a dict"),
    "time_limit": (search(time_limit=0), {}, "'time_limit' parameter .* Got 0"),
    "n_trials": (search(n_trials=0), {}, "'n_trials' parameter .* Got 0"),
    "n_jobs": (search(n_jobs=0), {}, "'n_jobs' parameter .* Got 0"),
    "ensemble_size": (search(ensemble_size=2.5), {}, "'ensemble_size' parameter .* Got 2.5"),
    "scoring": (search(scoring="exactness"), {}, "'scoring' parameter .* {'accuracy', "),
    "validation_fraction": (search(validation_fraction=1), {}, "'validation_fraction' parameter"),
    "fraction leaves nothing": (search(validation_fraction=0.999), {}, "validation_fraction=0.999 leaves no rows"),
    "cv": (search(cv=151), {}, "cv=151 must be at most the number of rows, 150"),
    "no folds": (search(cv=[]), {}, r"cv=\[\] gives no split"),
    "cv beside X_val": (search(cv=3), {"X_val": X, "y_val": Y}, "X_val makes no sense with cv=3"),
    "y_val alone": (search(), {"y_val": Y}, "need X_val"),
    "X_val alone": (search(), {"X_val": X}, "requires y_val to be passed"),
    "other classes": (search(), {"X_val": X, "y_val": Y + 1}, r"y_val has classes that y does not have: \[3\]"),
    "lengths": (search(), {"X_val": X, "y_val": Y[1:]}, "inconsistent numbers of samples"),
    "features": (search(), {"X_val": X[:, 1:], "y_val": Y}, "features"),
}


@pytest.mark.parametrize(("estimator", "more", "message"), WRONG.values(), ids=WRONG)
def test_wrong_inputs(estimator, more, message):
    with pytest.raises((ValueError, TypeError), match=message):
        estimator.fit(X, Y, **more)
    assert not hasattr(estimator, "estimators_")


@pytest.mark.parametrize(
    ("y", "message"),
    [(None, "requires y to be passed"), (VALUES[:150], "continuous"), (np.eye(3)[Y], "multilabel|1d array")],
    ids=["none", "values", "several labels"],
)
def test_wrong_targets(y, message):
    with pytest.raises(ValueError, match=message):
        search().fit(X, y)


def test_wrong_weights_and_misspelt_arguments():
    with pytest.raises(ValueError, match="Pipeline takes none"):
        search(make_pipeline(small()), {"mlpclassifier__alpha": [1.0]}).fit(X, Y, np.ones(150))
    with pytest.raises(ValueError, match="sample_weight"):
        search().fit(X, Y, np.ones(3))
    with pytest.raises(TypeError, match="time_limit"):
        EnsembleSearchClassifier(timelimit=3)


# --- spaces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", spaces.SPACES)
def test_spaces_hold_parameters_of_their_estimators(name):
    """A space is what RandomizedSearchCV takes; every draw passes the estimator's validation."""
    from sklearn.model_selection import ParameterSampler

    cls = getattr(fastmlp, name)
    space = space_of(cls())
    for params in ParameterSampler(space, 50, random_state=0):
        cls().set_params(**params)._validate_params()


def test_spaces_hold_for_subclasses_of_ours_alone():
    class Mine(MLPClassifier):
        pass

    assert space_of(Mine()).keys() == space_of(MLPClassifier()).keys()
    from sklearn.neural_network import MLPClassifier as Theirs

    with pytest.raises(ValueError, match="param_distributions must be given for MLPClassifier"):
        space_of(Theirs())


def test_distributions():
    draw = np.random.RandomState(0)
    decay = LogUniform(0.005, 0.05, offset=1.0, sign=-1)
    drawn = np.array([decay.rvs(random_state=draw) for _ in range(500)])
    assert kstest(np.log(1 - drawn), uniform(np.log(0.005), np.log(10)).cdf).pvalue > 0.01
    whole = {LogUniform(4, 33, whole=True).rvs(random_state=draw) for _ in range(2000)}
    assert whole == set(range(4, 33))
    mixed = [Mixture((None, uniform(0, 1))).rvs(random_state=draw) for _ in range(400)]
    assert 150 < mixed.count(None) < 250
    assert decay.rvs(random_state=3) == decay.rvs(random_state=3)


def test_scikit_learns_searches_take_the_space():
    found = RandomizedSearchCV(
        small(), space_of(small()) | {"hidden_layer_sizes": [(4,)]}, n_iter=2, cv=2, random_state=0
    )
    assert found.fit(X, Y).best_params_["solver"] == "adamw"


# --- RealMLP, the default ---------------------------------------------------------------------------------------------


def test_the_default_is_realmlp_on_a_table():
    import pandas as pd

    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"size": draw.normal(size=200), "shape": draw.choice(["round", "flat", "deep"], size=200)})
    label = np.where((frame["size"] > 0) == (frame["shape"] == "flat"), "yes", "no")
    frame.loc[::9, "size"] = np.nan
    found = EnsembleSearchClassifier(scoring="roc_auc", time_limit=2.0, n_trials=3, random_state=0).fit(frame, label)
    assert all(isinstance(clf, RealMLPClassifier) and clf.monitor == "roc_auc" for clf in found.estimators_)
    assert found.ensemble_score_ > 0.9
    assert found.feature_names_in_.tolist() == ["size", "shape"]
    assert set(found.predict(frame.iloc[::-1])) == {"yes", "no"}


def test_half_of_the_losses_smooth_labels():
    draw = np.random.RandomState(0)
    losses = [spaces.Smoothed(uniform(0, 0.1)).rvs(random_state=draw) for _ in range(300)]
    assert 100 < losses.count("log_loss") < 200


# --- the page about it ------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive  # ten seconds
def test_code_for_optuna_runs():
    """The blocks of docs/tuning.md that need Optuna, after the others."""
    optuna = pytest.importorskip("optuna")
    page = (Path(__file__).resolve().parents[1] / "docs" / "tuning.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|py)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names = {}
    for block in blocks[1:]:  # the first is about a table of the reader's
        exec(block, names)
    assert 1 <= len(names["finished"]) <= len(names["study"].trials) <= 12
    assert names["weights"].sum() == pytest.approx(1)
    optuna.logging.set_verbosity(optuna.logging.INFO)
