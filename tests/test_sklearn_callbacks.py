"""scikit-learn's protocol of callbacks: what they are told, and that they may stop a training."""

from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPClassifier
from fastmlp.training import sklearn_callbacks
from fastmlp.training.callbacks import EpochInfo, watching

from helpers import SklearnRecorder

# ------------------------------------------------------------------------------- scikit-learn's protocol

has_protocol = pytest.mark.skipif(
    not hasattr(sklearn_callbacks.CallbackSupportMixin, "set_callbacks"), reason="scikit-learn < 1.9"
)


class Toy(sklearn_callbacks.CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Trains as the real estimators do; learns nothing but how many epochs it did."""

    _parameter_constraints: ClassVar[dict] = {}

    def __init__(self, max_iter=5, converges_at=None, fails_at=None):
        self.max_iter, self.converges_at, self.fails_at = max_iter, converges_at, fails_at

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        with (
            sklearn_callbacks.fit_task(self, X, y, sample_weight) as more,
            watching(more, self) as after_epoch,
        ):
            for epoch in range(1, self.max_iter + 1):
                if epoch == self.fails_at:
                    raise RuntimeError("as told")
                self.n_iter_ = epoch
                info = EpochInfo(epoch, self.max_iter, 1.0, None, None, 0.1, 0.0, self, dict)
                if after_epoch(info) or epoch == self.converges_at:
                    break
        return self

    def predict(self, X):
        return np.where(np.arange(len(X)) < self.n_iter_, self.classes_[-1], self.classes_[0])


X5, Y5 = np.arange(5.0).reshape(5, 1), np.array([0, 1, 1, 1, 1])
EPOCH = [("begin", "epoch"), ("end", "epoch")]
FIT = ["setup", ("begin", "fit")], [("end", "fit"), "teardown"]


@has_protocol
def test_epochs_are_subtasks_of_the_fit():
    recorder = SklearnRecorder()
    toy = Toy(max_iter=3).set_callbacks(recorder)
    toy.fit(X5, Y5, np.ones(5))
    assert recorder.calls == [*FIT[0], *EPOCH * 3, *FIT[1]]
    models, Xs, ys, metadata = zip(*recorder.models, strict=True)
    assert [model.n_iter_ for model in models] == [1, 2, 3, 3] and toy not in models
    assert all(X is X5 for X in Xs) and all(y is Y5 for y in ys)
    assert all(list(data) == ["sample_weight"] for data in metadata)
    assert not {"_callback_fit_ctx", "_skl_callbacks_to_teardown"} & set(vars(toy))


@has_protocol
def test_a_scikit_learn_callback_stops_training():
    recorder = SklearnRecorder(stop_at=2)
    assert Toy().set_callbacks(recorder).fit(X5, Y5).n_iter_ == 2
    assert recorder.calls == [*FIT[0], *EPOCH * 2, *FIT[1]]


@has_protocol
def test_an_epoch_that_was_begun_and_never_ran_ends_empty():
    recorder = SklearnRecorder()
    Toy(converges_at=2).set_callbacks(recorder).fit(X5, Y5)
    assert recorder.calls == [*FIT[0], *EPOCH * 2, ("begin", "epoch"), ("end", "empty"), *FIT[1]]


@has_protocol
def test_a_failed_fit_is_torn_down():
    recorder = SklearnRecorder()
    with pytest.raises(RuntimeError, match="as told"):
        Toy(fails_at=2).set_callbacks(recorder).fit(X5, Y5)
    assert recorder.calls == [*FIT[0], *EPOCH, ("begin", "epoch"), "teardown"]


def test_without_callbacks_nothing_is_done():
    class Bare(BaseEstimator):
        """Not even a mixin: whatever fit_task touched would fail."""

    with sklearn_callbacks.fit_task(Bare(), X5, Y5) as more:
        assert more == ()
    toy = Toy().fit(X5, Y5)
    assert set(vars(toy)) == {"max_iter", "converges_at", "fails_at", "classes_", "n_iter_"}


CLASSIFIERS = [
    pytest.param(Toy(), id="toy"),
    pytest.param(MLPClassifier((4,), max_iter=5, random_state=0), id="MLPClassifier"),
]


@has_protocol
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", CLASSIFIERS)
def test_scikit_learns_scoring_monitor(estimator):
    from sklearn.callback import ScoringMonitor

    X, y = load_iris(return_X_y=True)
    monitor = ScoringMonitor(scoring="accuracy")
    fitted = clone(estimator).set_callbacks(monitor).fit(X, y)
    rows = monitor.get_logs().data
    scores = [row["accuracy"] for row in rows if len(row["task_id_path"]) == 2]
    assert len(scores) == 5 and rows[-1]["accuracy"] == scores[-1] == fitted.score(X, y)


@has_protocol
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", CLASSIFIERS)
@pytest.mark.parametrize("in_pipeline", [False, True])
def test_scikit_learns_progress_bar(estimator, in_pipeline, capsys):
    from sklearn.callback import ProgressBar

    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), clone(estimator)) if in_pipeline else clone(estimator)
    model.set_callbacks(ProgressBar()).fit(X, y)
    drawn = capsys.readouterr().out
    assert f"{type(estimator).__name__} - fit" in drawn and "100%" in drawn
