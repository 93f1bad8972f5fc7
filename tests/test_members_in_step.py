"""``ens_stopping="ensemble"``: networks on the same rows stop by their mean, and go back to the same epoch.

The judge trains each network alone, keeps its weights and predictions after every epoch, averages the predictions with
NumPy, scores them with scikit-learn, and finds the best epoch and the last one.
"""

import os
import pickle
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from sklearn import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, RealMLPClassifier, RealMLPRegressor, TabMClassifier
from fastmlp.callbacks import TimeLimit
from fastmlp.estimator.ensemble import OF_GROUPS
from fastmlp.kernels import interrupts
from fastmlp.training import many
from fastmlp.training.run import Run
from fastmlp.training.validation import Evaluation

from small_training import BACKENDS, SMALL, WEIGHT, Y_BINARY, Y_COUNTS, Y_LABELS, Y_VALUES, X, Y

LONG = SMALL | {"max_iter": 20, "learning_rate_init": 0.03}
TOGETHER = LONG | {"n_ens": 3, "early_stopping": True, "ens_stopping": "ensemble"}
VALIDATION = {"X_val": X[:30], "y_val": Y[:30]}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

#: Task -> estimator, targets, settings, outputs, score of outputs.
TASKS = {
    "multiclass": (MLPClassifier, Y, {}, "predict_proba", lambda y, p: accuracy_score(y, p.argmax(axis=1))),
    "binary": (MLPClassifier, Y_BINARY, {}, "predict_proba", lambda y, p: accuracy_score(y, p[:, 1] > 0.5)),
    "multilabel": (MLPClassifier, Y_LABELS, {}, "predict_proba", lambda y, p: accuracy_score(y, p > 0.5)),
    "hinge": (
        MLPClassifier,
        Y,
        {"loss": "hinge"},
        "decision_function",
        lambda y, z: accuracy_score(y, z.argmax(axis=1)),
    ),
    "regression": (MLPRegressor, Y_VALUES, {}, "predict", r2_score),
    "large values": (MLPRegressor, 1e4 + 1e3 * Y_VALUES, {"standardize_y": True}, "predict", r2_score),
    "counts": (MLPRegressor, Y_COUNTS, {"loss": "poisson"}, "predict", r2_score),
    "several outputs": (MLPRegressor, X[:, :2], {}, "predict", r2_score),
}


def weights_of(estimator):
    """Return copies of the weights of one network."""
    return [array.copy() for array in (*estimator.coefs_, *estimator.intercepts_)]


def same(some, others):
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


class Record:
    """A callback that keeps weights and outputs for some rows after each epoch."""

    def __init__(self, method, rows):
        self.method, self.rows, self.weights, self.outputs, self.losses = method, rows, [], [], []

    def __call__(self, info):
        self.weights.append(weights_of(info.estimator))
        self.outputs.append(getattr(info.estimator, self.method)(self.rows))
        self.losses.append(info.loss)


def alone(members, method, train, validation):
    """Return the records of the networks, each trained alone for max_iter epochs."""
    records = [Record(method, validation[0]) for _ in members]
    for member, record in zip(members, records, strict=True):
        plain = {"train_score": False, "monitor": "score"}
        if "early_stopping" in member.get_params():
            plain |= {"early_stopping": False, "restore_best": False}
        single = clone(member).set_params(callbacks=[record], n_iter_no_change=np.inf, **plain)
        single.fit(*train, X_val=validation[0], y_val=validation[1])
    return records


def scores_of(records, score, y):
    """Return the score of the networks' mean after each epoch."""
    return [score(y, np.mean(outputs, axis=0)) for outputs in zip(*(r.outputs for r in records), strict=True)]


def best_and_last(scores, restore_best=True, tol=1e-4, patience=10):
    """Return the epoch to go back to and the last one, from 0: early stopping as scikit-learn documents it."""
    best, chosen, waited = -np.inf, 0, 0
    for epoch, score in enumerate(scores):
        waited = waited + 1 if score < best + tol else 0
        if score > best or (score == best and restore_best == "last"):
            best, chosen = score, epoch
        if waited > patience:
            return chosen, epoch
    return chosen, len(scores) - 1


def split_of(estimator, stratify):
    """Return the rows to train on and those of early stopping, as a fit with `n_ens` networks draws them."""
    drawn = np.random.RandomState(estimator.random_state)
    drawn.randint(2**31 - 1, size=estimator.n_ens)
    share = estimator.validation_fraction
    return train_test_split(np.arange(len(X)), test_size=share, random_state=drawn, stratify=stratify)


# --- the epoch is that of the mean ------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("restore_best", [None, "last", True, False], ids=str)
def test_all_networks_have_the_best_epoch_of_their_mean(task, restore_best):
    kind, y, settings, method, score = TASKS[task]
    settings = TOGETHER | settings | {"restore_best": restore_best, "n_iter_no_change": 5}
    together = kind(**settings).fit(X, y, X_val=X[:30], y_val=y[:30])
    records = alone(together.estimators_, method, (X, y), (X[:30], y[:30]))
    scores = scores_of(records, score, y[:30])
    best, last = best_and_last(scores, restore_best, patience=5)
    wanted = last if restore_best is False else best
    assert [member.n_iter_ for member in together.estimators_] == [last + 1] * 3 and together.n_iter_ == last + 1
    for member, record in zip(together.estimators_, records, strict=True):
        assert same(weights_of(member), record.weights[wanted])
        assert member.loss_curve_ == record.losses[: last + 1]
    np.testing.assert_allclose(together.validation_scores_, scores[: last + 1], rtol=1e-9)
    assert together.best_validation_score_ == pytest.approx(scores[best], rel=1e-9)


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_the_rows_of_early_stopping_are_the_same_for_all(task):
    _, y, _, method, score = TASKS[task]
    together = MLPClassifier(**TOGETHER, validation_fraction=0.3).fit(X, y)
    rows, held_out = split_of(together, y if task == "binary" else None)  # scikit-learn's rule
    records = alone(together.estimators_, method, (X[rows], y[rows]), (X[held_out], y[held_out]))
    best, last = best_and_last(scores_of(records, score, y[held_out]))
    for member, record in zip(together.estimators_, records, strict=True):
        assert same(weights_of(member), record.weights[best]) and member.n_iter_ == last + 1


#: monitor -> what it says of probabilities.
MONITORS = {
    "loss": lambda y, p: -log_loss(y, p),
    "roc_auc_ovr": lambda y, p: roc_auc_score(y, p, multi_class="ovr"),
}


@pytest.mark.parametrize("monitor", MONITORS)
def test_the_metric_is_that_of_the_mean(monitor):
    settings = TOGETHER | {"max_iter": 30, "monitor": [monitor, "accuracy"], "train_score": True}
    together = MLPClassifier(**settings).fit(X, Y, **VALIDATION)
    records = alone(together.estimators_, "predict_proba", (X, Y), (X[:30], Y[:30]))
    scores = scores_of(records, MONITORS[monitor], Y[:30])
    best, last = best_and_last(scores)
    assert 0 < best < last
    for member, record in zip(together.estimators_, records, strict=True):
        assert same(weights_of(member), record.weights[best])
    found = together.evals_result_["validation"]
    sign = -1 if monitor == "loss" else 1
    np.testing.assert_allclose(found[monitor], sign * np.array(scores[: last + 1]), rtol=1e-9)
    losses = scores_of(records, log_loss, Y[:30])[: last + 1]
    np.testing.assert_allclose(together.validation_loss_curve_, losses, rtol=1e-9)
    np.testing.assert_allclose(together.history_["validation_loss"], losses, rtol=1e-9)
    accuracies = scores_of(records, lambda y, p: accuracy_score(y, p.argmax(axis=1)), Y[:30])[: last + 1]
    assert found["accuracy"] == accuracies
    assert set(together.evals_result_["train"]) >= {"loss", "accuracy"}


def test_it_is_not_the_epoch_of_each_network():
    settings = TOGETHER | {"n_iter_no_change": np.inf, "monitor": "loss"}
    members = MLPClassifier(**settings | {"ens_stopping": "member"}).fit(X, Y, **VALIDATION).estimators_
    best = {int(np.argmin(member.validation_loss_curve_)) for member in members}
    together = MLPClassifier(**settings).fit(X, Y, **VALIDATION)
    assert len(best) > 1
    assert not any(
        m.validation_loss_curve_ == t.validation_loss_curve_ for m, t in zip(members, together.estimators_, strict=True)
    )


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_each_fold_has_a_group_of_its_own(kind):
    y, score = (Y, TASKS["multiclass"][4]) if kind is MLPClassifier else (Y_VALUES, r2_score)
    method = "predict_proba" if kind is MLPClassifier else "predict"
    together = kind(**TOGETHER | {"max_iter": 30, "n_iter_no_change": 6}, n_cv=3).fit(X, y)
    drawn = np.random.RandomState(0)
    drawn.randint(2**31 - 1, size=9)
    of_folds = (StratifiedKFold if kind is MLPClassifier else KFold)(
        3, shuffle=True, random_state=drawn.randint(2**31 - 1)
    )
    ends = set()
    for fold, (rows, held_out) in enumerate(of_folds.split(X, y)):
        members = together.estimators_[3 * fold : 3 * fold + 3]
        records = alone(members, method, (X[rows], y[rows]), (X[held_out], y[held_out]))
        best, last = best_and_last(scores_of(records, score, y[held_out]), patience=6)
        ends.add(last)
        for member, record in zip(members, records, strict=True):
            assert same(weights_of(member), record.weights[best]) and member.n_iter_ == last + 1
    assert len(ends) > 1 and together.n_iter_ == max(ends) + 1
    assert not hasattr(together, "history_")


@pytest.mark.parametrize("kind", [RealMLPClassifier, RealMLPRegressor])
def test_it_is_the_recipe_of_realmlp(kind):
    """The last of the best epochs, of predictions that are clamped after the mean was taken."""
    y = Y if kind is RealMLPClassifier else Y_VALUES
    method, score = ("predict_proba", TASKS["multiclass"][4]) if y is Y else ("_outputs_of", None)
    settings = {"hidden_layer_sizes": (8,), "max_iter": 12, "batch_size": 16, "random_state": 0, "dtype": "float64"}
    together = kind(**settings, n_ens=3).fit(X[30:], y[30:], X_val=X[:30], y_val=y[:30])
    if score is None:
        low, high = y[30:].min(), y[30:].max()
        score = lambda y, outputs: r2_score(y, outputs.clip(low, high))  # noqa: E731
    records = alone(together.estimators_, method, (X[30:], y[30:]), (X[:30], y[:30]))
    scores = scores_of(records, score, y[:30])
    best, last = best_and_last(scores, "last", tol=0, patience=np.inf)
    assert last == 11
    np.testing.assert_allclose(together.validation_scores_, scores, rtol=1e-9)
    for member, record in zip(together.estimators_, records, strict=True):
        assert same(weights_of(member), record.weights[best])
    assert kind(validation_fraction=0, n_ens=2, **settings).fit(X, y).n_iter_ == 12  # nothing to judge by


def test_tabm_has_an_epoch_per_network_unless_asked():
    settings = {"hidden_layer_sizes": (8,), "max_iter": 6, "k": 2, "random_state": 0, "n_ens": 2}
    own = TabMClassifier(**settings).fit(X, Y)
    assert not hasattr(own, "history_")
    together = TabMClassifier(**settings, ens_stopping="ensemble", dtype="float64").fit(X, Y, **VALIDATION)
    found = together._score(Y[:30], Y[:30], None)(together.predict_proba(X[:30]))
    assert found == together.best_validation_score_


# --- the same bits --------------------------------------------------------------------------------------------------

#: Settings of fits that draw, stop and change their rate in different ways.
SETTINGS = {
    "plain": {},
    "dropout and norm": {"dropout": 0.3, "batch_norm": True, "train_score": True},
    "sgd": {"solver": "sgd", "learning_rate": "adaptive", "shuffle": False, "n_iter_no_change": 2},
    "plateau": {"learning_rate": "plateau", "monitor": "loss"},
}


@pytest.mark.parametrize("n_cv", [1, 3])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_same_bits_for_every_n_jobs(backend, name, n_cv):
    settings = TOGETHER | {"n_cv": n_cv, "backend": backend} | SETTINGS[name]
    fits = [MLPClassifier(**settings, n_jobs=n).fit(X, Y, sample_weight=WEIGHT) for n in (1, 2, 5)]
    for fit in fits[1:]:
        for member, first in zip(fit.estimators_, fits[0].estimators_, strict=True):
            assert same(weights_of(member), weights_of(first))
            assert member.validation_scores_ == first.validation_scores_
            assert member.evals_result_ == first.evals_result_ and member.n_iter_ == first.n_iter_
    for i in range(0, 3 * n_cv, 3):
        group = fits[0].estimators_[i : i + 3]
        assert len({member.n_iter_ for member in group}) == 1
        assert group[0].history_["learning_rate"] == group[1].history_["learning_rate"]


def test_one_network_is_a_single_fit():
    single = MLPClassifier(**LONG, early_stopping=True).fit(X, Y)
    asked = MLPClassifier(**LONG, early_stopping=True, ens_stopping="ensemble").fit(X, Y)
    assert same(weights_of(single), weights_of(asked))


@pytest.mark.parametrize(("n_jobs", "n_cv"), [(1, 1), (2, 1), (2, 3), (5, 3)])
def test_no_more_networks_train_at_a_time_than_there_are_threads(n_jobs, n_cv, monkeypatch):
    at_work, most, lock, logits = set(), [], threading.Lock(), Evaluation._logits

    def counted(self, rows, weights):
        with lock:
            at_work.add(threading.get_ident())
            most.append(len(at_work))
        time.sleep(0.001)
        try:
            return logits(self, rows, weights)
        finally:
            with lock:
                at_work.remove(threading.get_ident())

    monkeypatch.setattr(Evaluation, "_logits", counted)
    MLPClassifier(**TOGETHER | {"max_iter": 5, "n_cv": n_cv}, n_jobs=n_jobs).fit(X, Y)
    assert max(most) == min(n_jobs, 3 * n_cv)


def test_how_many_are_under_way():
    """Whole groups; one more than needed if threads would be idle at the end of an epoch."""
    wanted = {(8, 2, 8): 8, (64, 2, 8): 8, (64, 3, 8): 16, (6, 5, 2): 6, (16, 5, 2): 8, (9, 1, 3): 3, (9, 4, 1): 4}
    assert {args: many.n_in_training(*args) for args in wanted} == wanted


# --- callbacks, limits, errors, interrupts ----------------------------------------------------------------------------


def test_one_network_stopped_by_a_callback_stops_its_group():
    seeds = np.random.RandomState(0).randint(2**31 - 1, size=6).tolist()

    def stop(info):
        return info.estimator.random_state == seeds[1] and info.epoch == 4

    for n_jobs in (1, 2, 6):
        one = MLPClassifier(**TOGETHER, n_cv=2, n_jobs=n_jobs, callbacks=[stop]).fit(X, Y)
        stopped, free = one.estimators_[:3], one.estimators_[3:]
        assert [member.n_iter_ for member in stopped] == [4, 4, 4]
        assert all("stop" in member.stopped_by_ for member in stopped)
        assert len({member.stopped_by_ for member in stopped}) == 1
        assert all(member.n_iter_ > 4 and member.stopped_by_ is None for member in free)


def test_a_time_limit_stops_all_at_once():
    settings = TOGETHER | {"max_iter": 10**7, "n_iter_no_change": np.inf, "n_jobs": 2}
    begin = time.perf_counter()
    limited = MLPClassifier(**settings, callbacks=[TimeLimit(0.3)]).fit(X, Y)
    assert time.perf_counter() - begin < 5
    assert len({member.n_iter_ for member in limited.estimators_}) == 1
    assert limited.stopped_by_ == "TimeLimit(seconds=0.3)"


def test_callbacks_see_the_score_of_the_mean():
    seen = {}

    def look(info):
        seen.setdefault(info.epoch, set()).add((info.score, info.validation_loss))

    together = MLPClassifier(**TOGETHER, callbacks=[look]).fit(X, Y)
    assert [len(seen[epoch]) for epoch in sorted(seen)] == [1] * together.n_iter_


@pytest.mark.parametrize("name", ["max_iter", "early_stopping", "n_iter_no_change"])
def test_a_callback_that_makes_networks_differ_ends_the_group(name):
    """One network ends before the others: these do not wait for it for ever."""
    value = {"max_iter": 5, "early_stopping": False, "n_iter_no_change": -1}[name]
    first = int(np.random.RandomState(0).randint(2**31 - 1))

    def change(info):
        if info.estimator.random_state == first and info.epoch == 4:
            setattr(info.estimator, name, value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = MLPClassifier(**TOGETHER, callbacks=[change]).fit(X, Y)
    assert len(together.estimators_) == 3


@pytest.mark.parametrize("n_jobs", [1, 2, 5])
def test_ctrl_c_leaves_all_at_their_best_epoch(n_jobs):
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(3_000, 40)).astype("f4"), rng.integers(0, 3, 3_000)
    records, sent = {}, []

    def look(info):
        records.setdefault(info.estimator.random_state, []).append(weights_of(info.estimator))
        if not sent and info.epoch == 3:
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

    settings = TOGETHER | {"hidden_layer_sizes": (64,), "max_iter": 10**6, "n_iter_no_change": np.inf}
    with pytest.warns(UserWarning, match="interrupted by user") as caught:
        together = MLPClassifier(**settings, n_jobs=n_jobs, callbacks=[look]).fit(rows, y)
    assert time.perf_counter() - sent[0] < 1.5
    assert [str(one.message) for one in caught] == ["Training interrupted by user."]
    best = int(np.argmax(together.validation_scores_))
    assert len(together.estimators_) == 3
    for member in together.estimators_:
        assert member.validation_scores_ == together.validation_scores_
        assert same(weights_of(member), records[member.random_state][best])
        assert {member.n_iter_, len(member.loss_curve_), len(member.history_["loss"])} == {together.n_iter_}
        assert member.t_ == member.n_iter_ * 2700 and member.loss_ == member.loss_curve_[-1]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_in_the_first_epoch_leaves_a_network_with_its_first_weights(n_jobs, monkeypatch):
    sent, logits = [], Evaluation._logits

    def interrupted(self, rows, weights):
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        while not interrupts.THREAD.stop.wanted:  # until the main thread has handed it on; no network goes on before
            time.sleep(0.001)
        return logits(self, rows, weights)

    monkeypatch.setattr(Evaluation, "_logits", interrupted)
    with pytest.warns(UserWarning, match="interrupted by user"):
        together = MLPClassifier(**TOGETHER | {"max_iter": 10**7}, n_jobs=n_jobs).fit(X, Y)
    (left,) = together.estimators_
    assert left.n_iter_ == together.n_iter_ == 0 and together.history_["score"] == [] == left.loss_curve_
    assert together.predict(X).shape == Y.shape


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_before_the_first_step_leaves_a_network_with_its_first_weights(n_jobs, monkeypatch):
    def interrupted(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "epoch", interrupted)
    with pytest.warns(UserWarning, match="interrupted by user"):
        together = MLPClassifier(**TOGETHER, n_jobs=n_jobs).fit(X, Y)
    assert together.estimators_[0].n_iter_ == 0 and together.predict(X).shape == Y.shape


def test_an_error_in_one_network_stops_the_others():
    def fail(info):
        if info.epoch == 3:
            raise LookupError("of one network")

    def scorer(estimator, rows, y):
        raise LookupError("of the scorer")

    for settings, text in (({"callbacks": [fail]}, "of one network"), ({"monitor": scorer}, "of the scorer")):
        for n_jobs in (1, 2):
            classifier = MLPClassifier(**TOGETHER | {"max_iter": 10**7} | settings, n_jobs=n_jobs)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # nothing of the others is told
                with pytest.raises(LookupError, match=text):
                    classifier.fit(X, Y)
            with pytest.raises(NotFittedError):
                classifier.predict(X)
    assert not any(thread.name.startswith("fastmlp-fit") for thread in threading.enumerate())


def test_a_network_that_diverges_is_an_error_as_in_a_single_fit():
    settings = {"solver": "sgd", "learning_rate_init": 1e30, "monitor": "loss"}
    errors = []
    for ens_stopping in ("member", "ensemble"):
        with pytest.raises(ValueError, match=r"no epoch is the best|non-finite") as raised:
            MLPRegressor(**TOGETHER | settings | {"ens_stopping": ens_stopping}).fit(X, Y_VALUES)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]


def test_an_error_that_comes_of_being_stopped_is_not_raised():
    """The second task fails; the first one, which is stopped then, complains of that."""
    begun = threading.Event()

    class Stopped:
        group = None

        def train(self):
            begun.set()
            with pytest.raises(KeyboardInterrupt):
                while True:
                    interrupts.check()
            raise ValueError("of being stopped")

    class Failing:
        group = None

        def train(self):
            begun.wait()
            raise LookupError("its own")

    for _ in range(20):
        begun.clear()
        with pytest.raises(LookupError, match="its own"):
            many.fit_many([Stopped(), Failing()], 2)


def test_one_network_that_diverges_leaves_the_epochs_before():
    """The mean is no number from then on, so an epoch before is the best."""
    first = int(np.random.RandomState(0).randint(2**31 - 1))

    def spoil(info):
        if info.estimator.random_state == first and info.epoch == 4:
            info.estimator.coefs_[0][...] = np.nan

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = MLPRegressor(**TOGETHER, callbacks=[spoil]).fit(X, Y_VALUES)
    assert np.isfinite(together.validation_scores_[:4]).all() and np.isnan(together.validation_scores_[4:]).all()
    assert all(np.isfinite(array).all() for member in together.estimators_ for array in weights_of(member))


def test_a_metric_that_is_nan_is_refused():
    given = {"X_val": X[:3], "y_val": Y_BINARY[:1].repeat(3)}
    with pytest.raises(ValueError, match="is NaN for the 3 rows of X_val"):
        MLPClassifier(**TOGETHER, monitor="roc_auc").fit(X, Y_BINARY, **given)
    with pytest.warns(UserWarning, match="'roc_auc' is NaN for the 3 rows of X_val"):
        MLPClassifier(**TOGETHER, monitor=["score", "roc_auc"]).fit(X, Y_BINARY, **given)


REFUSED = {
    "no validation": ({"early_stopping": False}, "ens_stopping='ensemble' needs early_stopping=True"),
    "lbfgs": ({"solver": "lbfgs"}, "ens_stopping='ensemble' makes no sense with solver='lbfgs'"),
    "another name": ({"ens_stopping": "all"}, "ens_stopping"),
    "no text": ({"ens_stopping": None}, "ens_stopping"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name):
    settings, text = REFUSED[name]
    with pytest.raises(ValueError, match=text):
        MLPClassifier(**TOGETHER | settings).fit(X, Y)


# --- copies and files -------------------------------------------------------------------------------------------------


def test_copies_and_files_keep_the_history_of_the_mean(tmp_path):
    together = MLPClassifier(**TOGETHER).fit(X, Y)
    together.save(tmp_path / "together")
    for other in (pickle.loads(pickle.dumps(together)), fastmlp.load(tmp_path / "together")):
        assert (other.predict_proba(X) == together.predict_proba(X)).all()
        assert {name: getattr(other, name) for name in OF_GROUPS} == {
            name: getattr(together, name) for name in OF_GROUPS
        }
    assert together.history_["loss"] == pytest.approx(
        np.mean([member.history_["loss"] for member in together.estimators_], axis=0)
    )
    single = set(vars(MLPClassifier(**LONG, early_stopping=True).fit(X, Y)))
    together.set_params(n_ens=1).fit(X, Y)
    assert set(vars(together)) == single
    together.set_params(n_ens=3, ens_stopping="member").fit(X, Y)
    assert not any(hasattr(together, name) for name in OF_GROUPS)
