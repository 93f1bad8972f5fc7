"""scikit-learn's searches on threads: scikit-learn's own results, judged by its searches without threads."""

import os
import pickle
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from joblib.parallel import get_active_backend
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import GridSearchCV, GroupKFold, RandomizedSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPClassifier
from fastmlp.kernels import threads
from fastmlp.search import BatchedGridSearchCV, BatchedRandomizedSearchCV, on_threads

X, Y = load_iris(return_X_y=True)
GRID = {"hidden_layer_sizes": [(4,), (6,)], "alpha": [1e-4, 1.0]}
NET = MLPClassifier(max_iter=4, random_state=0, n_jobs=1)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def results(search):
    """Return what cv_results_ holds besides times."""
    return {name: value for name, value in search.cv_results_.items() if not name.endswith("_time")}


def assert_same(ours, theirs):
    assert results(ours).keys() == results(theirs).keys()
    for name, value in results(theirs).items():
        if name == "params" or name.startswith("param_"):
            assert list(results(ours)[name]) == list(value), name
        else:
            np.testing.assert_array_equal(results(ours)[name], value, err_msg=name)


@pytest.mark.parametrize("n_jobs", [None, 1, 3])
def test_results_are_those_of_scikit_learns_search_bit_for_bit(n_jobs):
    """All of scikit-learn's options hold, for any number of threads."""
    options = {"cv": 3, "scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss", "return_train_score": True}
    ours = BatchedGridSearchCV(NET, GRID, n_jobs=n_jobs, **options).fit(X, Y)
    theirs = GridSearchCV(NET, GRID, **options).fit(X, Y)
    assert_same(ours, theirs)
    assert ours.best_params_ == theirs.best_params_ and ours.best_score_ == theirs.best_score_
    for W, other in zip(ours.best_estimator_.coefs_, theirs.best_estimator_.coefs_, strict=True):
        np.testing.assert_array_equal(W, other)


def test_scores_are_those_of_scikit_learns_networks():
    """The same search of scikit-learn's own estimator scores the same, to rounding."""
    options = {"cv": 3, "scoring": "neg_log_loss", "n_jobs": 2}
    ours = BatchedGridSearchCV(NET, GRID, **options).fit(X, Y)
    theirs = GridSearchCV(Theirs(max_iter=4, random_state=0), GRID, cv=3, scoring="neg_log_loss").fit(X, Y)
    for fold in range(3):
        name = f"split{fold}_test_score"
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], rtol=1e-9)


def test_pipelines_groups_and_fit_parameters():
    """What stands in front of the network is fitted on the thread too; weights and groups are split as usual."""
    pipeline, weight = make_pipeline(StandardScaler(), NET), np.linspace(0.5, 2.0, len(Y))
    grid = {f"mlpclassifier__{name}": values for name, values in GRID.items()} | {"standardscaler__with_std": [True]}
    found = [
        search(pipeline, grid, cv=GroupKFold(3), n_jobs=2 if search is BatchedGridSearchCV else None).fit(
            X, Y, groups=np.arange(len(Y)) % 7, mlpclassifier__sample_weight=weight
        )
        for search in (BatchedGridSearchCV, GridSearchCV)
    ]
    assert_same(*found)


def test_draws_are_those_of_scikit_learns_randomized_search():
    options = {"n_iter": 3, "cv": 3, "random_state": 0}
    space = {"alpha": np.logspace(-4, 0, 20)}
    ours = BatchedRandomizedSearchCV(NET, space, n_jobs=2, **options).fit(X, Y)
    assert_same(ours, RandomizedSearchCV(NET, space, **options).fit(X, Y))


def test_cross_validation_on_threads():
    """The context serves whatever goes through joblib, and is over at its end."""
    with on_threads(2):
        found = cross_val_score(NET, X, Y, cv=3)
        assert type(get_active_backend()[0]).__name__ == "ThreadsBackend"
    np.testing.assert_array_equal(found, cross_val_score(NET, X, Y, cv=3))
    assert type(get_active_backend()[0]).__name__ != "ThreadsBackend"


def test_copies():
    """A search is cloned and pickled as scikit-learn's; a fitted one predicts after it."""
    search = BatchedGridSearchCV(NET, {"alpha": [1e-3]}, cv=3, n_jobs=2)
    assert clone(search).get_params().keys() == GridSearchCV(NET, {}).get_params().keys()
    fitted = pickle.loads(pickle.dumps(search.fit(X, Y)))
    np.testing.assert_array_equal(fitted.predict_proba(X), search.predict_proba(X))


# --- threads ----------------------------------------------------------------------------------------------------------


class Spy(ClassifierMixin, BaseEstimator):
    """Notes in `SEEN` what a fit may use; raises where it is told to."""

    def __init__(self, mark=0):
        self.mark = mark

    def fit(self, X, y):
        SEEN.append((threading.get_ident(), threads.allowed(None), threads.allowed(8)))
        if self.mark < 0:
            raise RuntimeError("a mark below 0")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


SEEN = []


def test_networks_side_by_side_use_one_thread_each():
    """Neither None nor a number gets more; the fit of the best on all rows is free again."""
    SEEN.clear()
    BatchedGridSearchCV(Spy(), {"mark": [1, 2]}, cv=3, n_jobs=2).fit(X, Y)
    *fits, refit = SEEN
    assert len(fits) == 6 and all(seen[1:] == (1, 1) for seen in fits)
    assert threading.get_ident() not in {seen[0] for seen in fits}
    assert refit[:2] == (threading.get_ident(), threads.allowed(None))


def test_limits_nest():
    """The smallest limit holds, and ends with its block."""
    free = threads.allowed(None)
    with threads.limited(1), threads.limited(4):
        assert threads.allowed(None) == threads.allowed(3) == 1
    assert threads.allowed(None) == free


def test_a_fit_that_fails_has_the_error_score():
    search = BatchedGridSearchCV(Spy(), {"mark": [1, -1]}, cv=3, n_jobs=2, error_score=-7.0)
    with pytest.warns(FitFailedWarning, match="3 fits failed"):
        search.fit(X, Y)
    assert search.cv_results_["mean_test_score"].tolist()[1] == -7.0
    with pytest.raises(RuntimeError, match="a mark below 0"):
        search.set_params(error_score="raise").fit(X, Y)


def test_networks_that_diverge_fail_alone():
    net = MLPClassifier((4,), solver="sgd", random_state=0, max_iter=30)
    grid = {"learning_rate_init": [1e-2, 1e200]}
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        search = BatchedGridSearchCV(net, grid, cv=3, n_jobs=2).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).tolist() == [True, False]
    assert search.best_params_ == {"learning_rate_init": 1e-2}


def test_warnings_come_once_at_the_users_line_and_filters_stay():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        BatchedGridSearchCV(NET, GRID, cv=3, n_jobs=3).fit(X, Y)
        assert list(warnings.filters) == before
    found = [one for one in caught if one.category is ConvergenceWarning and one.filename == __file__]
    assert len(found) == 1 + 1  # of the search, and of the fit of the best
    assert len(caught) == len(found)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signal to a thread")
def test_ctrl_c_stops_the_networks_in_training():
    """It reaches the user, and no thread goes on with fits that would take minutes."""
    net = MLPClassifier((64,), max_iter=10**6, n_iter_no_change=10**6, random_state=0, tol=0.0)
    before = threading.active_count()
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.daemon = True
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        BatchedGridSearchCV(net, {"alpha": [1e-4, 1e-3]}, cv=3, n_jobs=2).fit(X, Y)
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_jobs": 0}, "n_jobs"),
        ({"n_jobs": "two"}, "n_jobs"),
        ({"estimator": None}, "estimator"),
        ({"param_grid": {"alfa": [1]}}, "alfa"),
        ({"cv": 1}, "n_splits"),
        ({"scoring": "best"}, "best"),
    ],
)
def test_wrong_input_is_refused(changes, message):
    search = BatchedGridSearchCV(NET, GRID, cv=3).set_params(**changes)
    with pytest.raises(ValueError, match=message):
        search.fit(X, Y)
