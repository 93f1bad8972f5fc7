"""Several networks in one fit: side by side on threads, the same bits for any number of them; ensembles and folds."""

import copy
import os
import pickle
import signal
import threading
import time
import tracemalloc
import warnings
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import clone, config_context, get_config
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import Checkpoint
from fastmlp.displays import LossCurveDisplay
from fastmlp.engines import backends
from fastmlp.estimator import prediction
from fastmlp.estimator.ensemble import OF_ENSEMBLES, OF_MEMBERS
from fastmlp.kernels import interrupts
from fastmlp.model.network import Network
from fastmlp.training import many
from fastmlp.training.optimizers import Optimizer
from fastmlp.training.schedules import Schedule

from small_training import BACKENDS, SMALL, WEIGHT, Y_BINARY, Y_COUNTS, Y_LABELS, Y_VALUES, X, Y
from tiers import exhaustive

#: Engines whose work other threads can stop; the CUDA engine trains on the calling thread.
STOPPABLE = [name for name in backends.available() if name != "cuda"]

# --- how a thread stops another -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STOPPABLE)
def test_a_thread_stops_a_running_epoch(name):
    """The steps done are kept, as after Ctrl-C; a thread that nobody asked goes on."""
    engine = backends.get(name)
    rng = np.random.default_rng(0)
    network = Network((32, 512, 512, 1), ("relu", "relu"), "squared_error", np.dtype("float32"))
    n = 2_000
    data = backends.Data(rng.normal(size=(n, 32)).astype("f4"), np.zeros((n, 1), "f4"))
    params = rng.normal(scale=0.01, size=network.n_params).astype("f4")
    workspace, stop, seen = engine.workspace(network, 200, 1), interrupts.Stop(), []
    order = np.tile(np.arange(n, dtype=np.intp), 2_000)  # hours of work
    optimizer = Optimizer("sgd", network, Schedule(1e-6))

    def train():
        with interrupts.stoppable(stop):
            try:
                engine.train_epoch(workspace, params, data, order, 200, 0.0, optimizer)
            except KeyboardInterrupt:
                seen.append(time.perf_counter())

    engine.train_epoch(workspace, params, data, order[:200], 200, 0.0, optimizer)  # compiles, if the engine does
    before = params.copy()
    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    time.sleep(0.5)
    asked, stop.wanted = time.perf_counter(), True
    thread.join(60)
    assert len(seen) == 1 and seen[0] - asked < 1.0
    assert 1 < optimizer.t < 20_000 and (params != before).any()
    engine.train_epoch(workspace, params, data, order[:200], 200, 0.0, optimizer)


# --- what the members are -------------------------------------------------------------------------------------------

X_WIDE = sparse.csr_array(np.where(np.abs(X) > 0.5, X, 0.0))

#: Task -> estimator, targets, what predictions are made of, out-of-fold attribute, scikit-learn's score.
TASKS = {
    "multiclass": (MLPClassifier, Y, {}, "predict_proba", "oof_predict_proba_", accuracy_score),
    "binary": (MLPClassifier, Y_BINARY, {}, "predict_proba", "oof_predict_proba_", accuracy_score),
    "multilabel": (MLPClassifier, Y_LABELS, {}, "predict_proba", "oof_predict_proba_", accuracy_score),
    "hinge": (MLPClassifier, Y, {"loss": "hinge"}, "decision_function", "oof_decision_function_", accuracy_score),
    "two hinges": (MLPClassifier, Y_BINARY, {"loss": "hinge"}, "decision_function", "oof_decision_function_", None),
    "regression": (MLPRegressor, Y_VALUES, {}, "predict", "oof_prediction_", r2_score),
    "counts": (MLPRegressor, Y_COUNTS, {"loss": "poisson"}, "predict", "oof_prediction_", r2_score),
    "several outputs": (MLPRegressor, X[:, :2], {}, "predict", "oof_prediction_", r2_score),
}  # fmt: skip

#: Settings of fits that draw in different ways.
SETTINGS = {
    "plain": {},
    "early stopping": {"early_stopping": True},
    "dropout and norm": {"dropout": 0.3, "batch_norm": True, "train_score": True},
    "sgd": {"solver": "sgd", "learning_rate": "adaptive", "shuffle": False},
    "lbfgs": {"solver": "lbfgs"},
}


def weights_of(estimator):
    """Return all weights of all networks as one vector."""
    networks = getattr(estimator, "estimators_", [estimator])
    return np.concatenate([array.ravel() for one in networks for array in (*one.coefs_, *one.intercepts_)])


def drawn(seed, n):
    """Return the seeds of n members, and of the folds, as a fit with random_state=seed draws them."""
    random_state = np.random.RandomState(seed)
    return random_state.randint(2**31 - 1, size=n).tolist(), random_state.randint(2**31 - 1)


@pytest.mark.parametrize("several", [{"n_ens": 3}, {"n_cv": 3}, {"n_ens": 2, "n_cv": 2}], ids=str)
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore")
def test_same_bits_for_every_n_jobs(backend, name, several):
    fits = [
        MLPClassifier(**SMALL | SETTINGS[name] | several, backend=backend, n_jobs=n_jobs).fit(X, Y)
        for n_jobs in (1, 2, 5, None)
    ]
    first = weights_of(fits[0])
    assert all((weights_of(other) == first).all() for other in fits[1:])
    assert all([m.n_jobs for m in fit.estimators_] == [fit.n_jobs] * len(fit.estimators_) for fit in fits)
    assert all((fit.predict_proba(X) == fits[0].predict_proba(X)).all() for fit in fits[1:])


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "early stopping"])
@pytest.mark.parametrize("with_validation", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_members_on_the_same_rows_are_single_fits(name, with_validation):
    """With the seeds that the ensemble draws first, and all that follows from them."""
    settings = SMALL | SETTINGS[name]
    given = {"X_val": X[:20], "y_val": Y[:20]} if with_validation and name != "lbfgs" else {}
    ensemble = MLPClassifier(**settings, n_ens=3).fit(X, Y, sample_weight=WEIGHT, **given)
    assert [member.random_state for member in ensemble.estimators_] == drawn(0, 3)[0]
    for member in ensemble.estimators_:
        single = clone(member).fit(X, Y, sample_weight=WEIGHT, **given)
        assert (weights_of(member) == weights_of(single)).all()
        assert member.get_params() == single.get_params()
        kept = set(vars(single)) - {"_training", "_label_binarizer", "history_"}
        assert set(vars(member)) - {"_training", "_label_binarizer", "history_"} == kept
        assert {name: repr(vars(member)[name]) for name in kept} == {name: repr(vars(single)[name]) for name in kept}


@pytest.mark.filterwarnings("ignore")
def test_members_share_the_split_of_early_stopping():
    ensemble = MLPClassifier(**SMALL | {"max_iter": 40}, n_ens=3, early_stopping=True, restore_best=False).fit(X, Y)
    seeds = np.random.RandomState(0)
    seeds.randint(2**31 - 1, size=3)
    rows, held_out = train_test_split(np.arange(len(X)), test_size=0.1, random_state=seeds)
    for member in ensemble.estimators_:
        single = clone(member).fit(X[rows], Y[rows], X_val=X[held_out], y_val=Y[held_out])
        assert (weights_of(member) == weights_of(single)).all()
        assert member.validation_scores_ == single.validation_scores_


@pytest.mark.parametrize("name", ["plain", "early stopping", "lbfgs"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.filterwarnings("ignore")
def test_members_of_folds_are_fits_on_the_other_rows(kind, name):
    """With the rows of the fold as validation rows; n_ens of them for each fold."""
    y = Y if kind is MLPClassifier else Y_VALUES
    ensemble = kind(**SMALL | SETTINGS[name], n_cv=3, n_ens=2).fit(X, y, sample_weight=WEIGHT)
    seeds, of_folds = drawn(0, 6)
    folds = (StratifiedKFold if kind is MLPClassifier else KFold)(3, shuffle=True, random_state=of_folds)
    members = iter(ensemble.estimators_)
    assert [member.random_state for member in ensemble.estimators_] == seeds
    for rows, held_out in folds.split(X, y):
        given = {"X_val": X[held_out], "y_val": y[held_out], "sample_weight_val": WEIGHT[held_out]}
        for member in (next(members), next(members)):
            given = {} if name == "lbfgs" else given
            single = clone(member).fit(X[rows], y[rows], sample_weight=WEIGHT[rows], **given)
            if name == "lbfgs":  # rows without weight add zeros to sums in another order
                np.testing.assert_allclose(member.predict(X), single.predict(X), rtol=1e-6)
            else:
                assert (weights_of(member) == weights_of(single)).all()
                assert member.validation_scores_ == single.validation_scores_


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("several", [{"n_ens": 3}, {"n_cv": 3, "n_ens": 2}], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_predictions_are_the_mean_of_the_members(task, several):
    kind, y, settings, method, out_of_fold, _ = TASKS[task]
    ensemble = kind(**SMALL | settings | several).fit(X, y)
    members = ensemble.estimators_
    got = getattr(ensemble, method)(X)
    np.testing.assert_allclose(got, np.mean([getattr(member, method)(X) for member in members], axis=0), rtol=1e-12)
    for rows in (X_WIDE, np.asfortranarray(X), X[::2], X.astype(np.float32)):
        wanted = np.mean([getattr(member, method)(rows) for member in members], axis=0)
        np.testing.assert_allclose(getattr(ensemble, method)(rows), wanted, rtol=1e-5)
    if kind is MLPClassifier:
        if task in ("multiclass", "hinge"):
            assert (ensemble.predict(X) == ensemble.classes_[got.argmax(axis=1)]).all()
        elif method == "predict_proba":
            chosen = got > 0.5 if task == "multilabel" else got[:, 1] > 0.5
            assert (ensemble.predict(X) == ensemble.classes_.take(chosen)).all()
    with mock.patch.object(prediction, "BLOCK_BYTES", 1000):  # several blocks
        assert (getattr(ensemble, method)(X) == got).all()
        with pytest.raises(ValueError, match="NaN"):
            ensemble.predict(np.where(np.arange(len(X))[:, None] == 40, np.nan, X))
    members[0].coefs_[0][...] = 0  # edited weights are seen
    assert not np.allclose(getattr(ensemble, method)(X), got)
    if "n_cv" not in several:
        assert not any(hasattr(ensemble, name) for name in OF_ENSEMBLES[1:])
        return
    kept = getattr(ensemble, out_of_fold)
    assert kept.shape == got.shape and sum(hasattr(ensemble, name) for name in OF_ENSEMBLES[1:]) == 2


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weight"])
@pytest.mark.filterwarnings("ignore")
def test_out_of_fold_predictions_are_by_the_members_that_did_not_see_the_row(task, weight):
    kind, y, settings, method, out_of_fold, score = TASKS[task]
    ensemble = kind(**SMALL | settings, n_cv=4, n_ens=2).fit(X, y, sample_weight=weight)
    stratified = kind is MLPClassifier and y.ndim == 1
    folds = (StratifiedKFold if stratified else KFold)(4, shuffle=True, random_state=drawn(0, 8)[1])
    kept = getattr(ensemble, out_of_fold)
    for fold, (_, held_out) in enumerate(folds.split(X, y)):
        members = ensemble.estimators_[2 * fold : 2 * fold + 2]
        wanted = np.mean([getattr(member, method)(X[held_out]) for member in members], axis=0)
        np.testing.assert_allclose(kept[held_out], wanted, rtol=1e-12)
    if score is not None:
        predicted = kept
        if kind is MLPClassifier:
            predicted = kept > 0.5 if task == "multilabel" else ensemble.classes_[kept.argmax(axis=1)]
        assert ensemble.oof_score_ == pytest.approx(score(y, predicted, sample_weight=weight))


@pytest.mark.filterwarnings("ignore")
def test_class_weights_hold_in_every_fold():
    weights = {0: 1.0, 1: 5.0, 2: 0.5}
    by_class = MLPClassifier(**SMALL, n_cv=3, class_weight=weights).fit(X, Y)
    by_row = MLPClassifier(**SMALL, n_cv=3).fit(X, Y, sample_weight=np.array([weights[label] for label in Y]))
    assert (weights_of(by_class) == weights_of(by_row)).all()
    assert by_class.oof_score_ == by_row.oof_score_


# --- what they share ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [{"n_ens": 4}, {"n_cv": 4}], ids=str)
def test_rows_are_not_copied(several):
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(60_000, 50)).astype("f4"), rng.normal(size=60_000).astype("f4")
    regressor = MLPRegressor(hidden_layer_sizes=(4,), max_iter=1, n_jobs=2, **several)
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        regressor.fit(rows, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows.nbytes / 2


def test_networks_that_this_machine_cannot_hold_are_refused_together(monkeypatch):
    asked = []
    monkeypatch.setattr(Network, "check_memory", lambda self, n_vectors: asked.append(n_vectors))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n_ens, n_jobs in ((1, 1), (8, 1), (8, 2)):
            MLPRegressor(**SMALL, n_ens=n_ens, n_jobs=n_jobs).fit(X, Y_VALUES)
    single, one_by_one, two_by_two = sorted({n for n in asked if n > 1})[:3]
    assert one_by_one == single + 7 * 3 and two_by_two == 2 * single + 6 * 3  # parameters and Adam's two states


def test_the_error_about_memory_names_the_number_of_networks():
    with pytest.raises(MemoryError, match="for 1000 networks"):
        MLPRegressor(hidden_layer_sizes=(20_000, 20_000), n_ens=1000).fit(X, Y_VALUES)


def test_how_many_run_side_by_side(engine):
    network = Network((6, 500, 500, 1), ("relu", "relu"), "squared_error", np.dtype("float32"))
    assert many.n_side_by_side(engine, network, 8, 3) == 3
    assert many.n_side_by_side(engine, network, 2, 3) == 2
    assert many.n_side_by_side(backends.get("reference"), network, 8, 3) == 1  # NumPy's BLAS has threads
    if hasattr(engine, "isas") and "baseline" in engine.isas():
        before = engine.isa()
        engine.use_isa("baseline")
        try:
            large = Network((6, 3000, 3000, 1), ("relu", "relu"), "squared_error", np.dtype("float32"))
            assert many.n_side_by_side(engine, large, 8, 3) == 1  # SciPy's too
            small = Network((6, 8, 8, 1), ("relu", "relu"), "squared_error", np.dtype("float32"))
            assert many.n_side_by_side(engine, small, 8, 3) == 3
        finally:
            engine.use_isa(before)


# --- interrupts, errors, warnings, callbacks --------------------------------------------------------------------------


class Meeting:
    """A callback that sends Ctrl-C, or does something else, when two networks have had so many epochs."""

    reads_weights = False

    def __init__(self, action, epochs=2):
        self.action, self.epochs, self.seen, self.inside = action, epochs, {}, 0
        self.begun, self.ended, self.most_inside = [], [], 0

    def on_fit_begin(self, estimator):
        self.begun.append(estimator)

    def on_fit_end(self, estimator):
        self.ended.append(estimator)

    def __call__(self, info):
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.seen[info.estimator.random_state] = info.epoch
        if sum(epoch >= self.epochs for epoch in self.seen.values()) >= 2:
            self.action()
        self.inside -= 1


@pytest.mark.parametrize("several", [{"n_ens": 4}, {"n_cv": 4}], ids=str)
def test_ctrl_c_leaves_what_was_trained(several):
    """The networks in training keep their epochs; those that had not begun are left out."""
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(4_000, 40)).astype("f4"), rng.integers(0, 3, 4_000)
    times = []

    def send():
        if not times:
            times.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

    classifier = MLPClassifier(
        (64,), max_iter=10**6, n_iter_no_change=np.inf, n_jobs=2, callbacks=[Meeting(send)], **several
    )
    with pytest.warns(UserWarning) as caught:
        classifier.fit(rows, y)
    assert time.perf_counter() - times[0] < 1.5
    texts = [str(one.message) for one in caught]
    assert texts.count("Training interrupted by user.") == 1
    assert "2 of 4 networks were trained, the ensemble leaves out the others" in texts
    assert {one.filename for one in caught} == {__file__}
    assert len(classifier.estimators_) == 2 and all(member.n_iter_ >= 2 for member in classifier.estimators_)
    assert classifier.predict_proba(rows).shape == (4_000, 3)
    if "n_cv" in several:
        assert np.isnan(classifier.oof_predict_proba_).any(axis=1).mean() == 0.5
        assert 0 < classifier.oof_score_ < 1


def threads_of_fits():
    """Return the names of the threads that train."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastmlp-fit")]


def test_ctrl_c_while_the_threads_start(monkeypatch):
    """No network has an epoch yet: the first one is left, with its first weights."""
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        if thread.name.startswith("fastmlp-fit"):
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    classifier = MLPClassifier(**SMALL | {"max_iter": 10**7, "n_iter_no_change": np.inf}, n_ens=4, n_jobs=2)
    with pytest.warns(UserWarning) as caught:
        classifier.fit(X, Y)
    assert "Training interrupted by user." in {str(one.message) for one in caught}
    assert 1 <= len(classifier.estimators_) <= 2
    assert classifier.predict(X).shape == Y.shape
    assert threads_of_fits() == []


def test_ctrl_c_ends_lbfgs():
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(20_000, 40)), rng.normal(size=20_000)
    regressor = MLPRegressor(
        hidden_layer_sizes=(200,), solver="lbfgs", max_iter=10**6, max_fun=10**7, tol=0, n_ens=2, n_jobs=2
    )
    timer = threading.Timer(0.7, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        regressor.fit(rows, y)
    assert threads_of_fits() == []


@pytest.mark.parametrize("error", [None, LookupError])
def test_threads_end_before_the_fit_does(error, monkeypatch):
    work = many._Trainings._work

    def slow_to_end(trainings):
        work(trainings)
        time.sleep(0.05)

    def fail(info):
        if error:
            raise error

    monkeypatch.setattr(many._Trainings, "_work", slow_to_end)
    classifier = MLPClassifier(**SMALL, n_ens=3, n_jobs=2, callbacks=[fail])
    with pytest.raises(error) if error else nullcontext():
        classifier.fit(X, Y)
    assert threads_of_fits() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_threads_that_die_at_once_are_an_error(n_jobs):
    """Their first call is one of a profiler that raises: no thread comes to its fits, and none is waited for."""
    threading.setprofile("no function")
    try:
        with pytest.raises(RuntimeError, match="have died with 3 of 3 fits undone: does a function given to threading"):
            MLPClassifier(n_ens=3, n_jobs=n_jobs, **SMALL).fit(X, Y_BINARY)
    finally:
        threading.setprofile(None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fastmlp-fit")]


def test_an_error_in_one_member_stops_the_others():
    def fail():
        raise LookupError("of one member")

    classifier = MLPClassifier(
        (64,), max_iter=10**7, n_iter_no_change=np.inf, n_ens=3, n_jobs=2, callbacks=[Meeting(fail)]
    )
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of the others is told
        with pytest.raises(LookupError, match="of one member"):
            classifier.fit(X, Y)
    assert time.perf_counter() - begin < 10
    assert not hasattr(classifier, "estimators_")
    with pytest.raises(NotFittedError):
        classifier.predict(X)


@pytest.mark.parametrize("several", [{"n_ens": 3}, {"n_cv": 3}], ids=str)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_warnings_come_once_at_the_line_of_the_user(solver, several):
    """Those of scikit-learn's and SciPy's too, which come from the threads or from before."""
    y = np.r_[Y[:-1], 7]  # a class of one row
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MLPClassifier(**SMALL | {"batch_size": 999, "solver": solver}, **several, n_jobs=2).fit(X, y)
    wanted = {
        "adam": ["Got `batch_size` less than", "Stochastic Optimizer: Maxi"],
        "lbfgs": ["lbfgs failed to converge a"],
    }[solver] + ["The least populated class "] * ("n_cv" in several)
    assert sorted(str(one.message)[:26] for one in caught) == sorted(wanted)
    assert {one.filename for one in caught} == {__file__}


def test_callbacks_are_called_one_at_a_time_and_begin_once():
    watch = Meeting(lambda: None)
    stop = lambda info: info.epoch == 3  # noqa: E731
    classifier = MLPClassifier(**SMALL, n_ens=4, n_jobs=4, callbacks=[watch, stop]).fit(X, Y)
    assert watch.begun == watch.ended == [classifier] and watch.most_inside == 1
    assert watch.seen == {member.random_state: 3 for member in classifier.estimators_}
    assert all("stop" in member.stopped_by_ or "lambda" in member.stopped_by_ for member in classifier.estimators_)
    assert all(member.callbacks is None for member in classifier.estimators_)


def test_settings_of_scikit_learn_and_numpy_reach_the_threads():
    found = []

    def scorer(estimator, rows, y):
        found.append((get_config()["assume_finite"], threading.current_thread().name))
        return 0.0

    with config_context(assume_finite=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MLPClassifier(**SMALL, n_ens=2, early_stopping=True, monitor=scorer).fit(X, Y)
    assert found and all(finite and name.startswith("fastmlp-fit") for finite, name in found)


def test_verbose_has_a_line_per_network(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ensemble = MLPClassifier(**SMALL, n_ens=3, verbose=True, n_jobs=1).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"Network {i} of 3: 6 iterations, loss = {m.loss_:.8f}" for i, m in enumerate(ensemble.estimators_, 1)
    ]
    assert all(member.verbose is True for member in ensemble.estimators_)


# --- what is refused --------------------------------------------------------------------------------------------------

VALIDATION = {"X_val": X[:9], "y_val": Y[:9]}
REFUSED = {
    "warm start": ({"n_ens": 2, "warm_start": True}, {}, "warm_start=True makes no sense with n_ens=2"),
    "first weights": (
        {"n_ens": 2},
        {"coef_init": [], "intercept_init": []},
        "coef_init or intercept_init makes no sense",
    ),
    "resuming": ({"n_cv": 2}, {"resume_from": "file.npz"}, "resume_from makes no sense with n_cv=2"),
    "X_val": ({"n_cv": 2}, VALIDATION, r"\(X_val or eval_set\) makes no sense with n_cv=2"),
    "eval_set": ({"n_cv": 2, "n_ens": 2}, {"eval_set": (X[:9], Y[:9])}, "each fold are its validation data"),
    "checkpoints": ({"n_ens": 2, "callbacks": [Checkpoint("a.npz")]}, {}, "a Checkpoint makes no sense with n_ens=2"),
    "no members": ({"n_ens": 0}, {}, "n_ens"),
    "half a fold": ({"n_cv": 2.5}, {}, "n_cv"),
    "more folds than rows": ({"n_cv": 81}, {}, "n_cv=81 must be at most the number of rows, n_samples=80"),
    "more folds than rows of each class": ({"n_cv": 60}, {}, "number of members in each class"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name):
    settings, given, text = REFUSED[name]
    with pytest.raises(ValueError, match=text):
        MLPClassifier(**SMALL | settings).fit(X, Y, **given)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_partial_fit_is_refused(kind):
    for settings in ({"n_ens": 2}, {"n_cv": 3}):
        with pytest.raises(AttributeError, match="no attribute 'partial_fit'") as raised:
            kind(**settings).partial_fit  # noqa: B018
        assert "partial_fit makes no sense with n_ens=" in str(raised.value.__cause__)
    assert hasattr(kind(), "partial_fit")


@pytest.mark.filterwarnings("ignore")
def test_attributes_of_one_network_are_the_members():
    ensemble = MLPClassifier(**SMALL | {"batch_norm": True}, n_ens=3).fit(X, Y)
    for name in ("coefs_", "loss_curve_", "history_", "bn_scales_"):
        with pytest.raises(
            AttributeError, match=rf"an ensemble has no {name}; each of its 3 networks .*estimators_\[i\]"
        ):
            getattr(ensemble, name)
    assert ensemble.n_iter_ == 6 and ensemble.n_layers_ == 4 and ensemble.n_outputs_ == 3
    with pytest.raises(AttributeError, match="'MLPClassifier' object has no attribute 'nothing_'"):
        ensemble.nothing_  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'decision_function'"):
        ensemble.decision_function(X)
    for show in (fastmlp.summary, LossCurveDisplay.from_estimator):
        with pytest.raises(ValueError, match=r"3 networks.*one of its estimators_"):
            show(ensemble)
        show(ensemble.estimators_[1])


@pytest.mark.filterwarnings("ignore")
def test_a_fit_that_fails_leaves_no_estimator():
    """Whether it is one network's or several's."""
    for n_ens in (1, 2):
        estimator = MLPClassifier(**SMALL, n_ens=n_ens, loss=("focal", {"gamma": -1}))
        with pytest.raises(ValueError, match="gamma"):
            estimator.fit(X, Y)
        with pytest.raises(NotFittedError):
            estimator.predict(X)


@pytest.mark.filterwarnings("ignore")
def test_a_fit_of_the_other_kind_leaves_nothing_behind():
    estimator = MLPRegressor(**SMALL, early_stopping=True).fit(X, Y_VALUES)
    single = set(vars(estimator))
    estimator.set_params(n_cv=2).fit(X, Y_VALUES)
    several = set(vars(estimator))
    assert not OF_MEMBERS & several
    estimator.set_params(n_cv=1).fit(X, Y_VALUES)
    assert set(vars(estimator)) == single and not several & {*OF_ENSEMBLES} & single
    assert (weights_of(estimator) == weights_of(clone(estimator).fit(X, Y_VALUES))).all()


# --- copies, files, other formats -------------------------------------------------------------------------------------


@pytest.mark.covers("kind several", gate=("",))
@pytest.mark.parametrize("kind", [MLPClassifier, *exhaustive(MLPRegressor)])
@pytest.mark.parametrize("several", [{"n_ens": 2}, *exhaustive({"n_cv": 2})], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_pass(kind, several):
    # a row that is there twice may be in two folds, a row of weight 2 is in one
    checks = ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data")
    failing = dict.fromkeys(checks, "folds are drawn row by row") if "n_cv" in several else {}
    estimator = kind(hidden_layer_sizes=(8,), learning_rate_init=0.05, **several)
    check_estimator(estimator, expected_failed_checks=failing)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.filterwarnings("ignore")
def test_copies_and_files_predict_the_same(task, tmp_path):
    kind, y, settings, method, out_of_fold, _ = TASKS[task]
    ensemble = kind(**SMALL | settings, n_cv=2, n_ens=2, batch_norm=True, activation="prelu").fit(X, y)
    wanted = getattr(ensemble, method)(X)
    ensemble.save(tmp_path / "ensemble", optimizer_state=True)
    loaded = fastmlp.load(tmp_path / "ensemble")
    for other in (pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(ensemble), loaded):
        assert (getattr(other, method)(X) == wanted).all()
        assert (getattr(other, out_of_fold) == getattr(ensemble, out_of_fold)).all()
        assert other.oof_score_ == ensemble.oof_score_ and other.n_iter_ == ensemble.n_iter_
        assert other.get_params() == ensemble.get_params()
        for a, b in zip(ensemble.estimators_, other.estimators_, strict=True):
            assert (weights_of(a) == weights_of(b)).all() and a.loss_curve_ == b.loss_curve_
    assert not hasattr(clone(ensemble), "estimators_")
    if kind is MLPRegressor:
        a, b = ensemble.estimators_[1].partial_fit(X, y), loaded.estimators_[1].partial_fit(X, y)
        assert (weights_of(a) == weights_of(b)).all()


@pytest.mark.parametrize("change", ["class", "outputs", "link", "nested", "empty"])
@pytest.mark.filterwarnings("ignore")
def test_files_of_members_that_do_not_fit_are_refused(change, tmp_path):
    ensemble = MLPClassifier(**SMALL, n_ens=2).fit(X, Y)
    other = {
        "class": lambda: MLPRegressor(**SMALL).fit(X, Y_VALUES),
        "outputs": lambda: MLPClassifier(**SMALL).fit(X, Y_BINARY),
        "link": lambda: MLPClassifier(**SMALL, loss="hinge").fit(X, Y),
        "nested": lambda: MLPClassifier(**SMALL, n_ens=2).fit(X, Y),
        "empty": lambda: None,
    }[change]()
    ensemble.estimators_ = [ensemble.estimators_[0], other] if other is not None else []
    with pytest.raises((TypeError, ValueError)):
        ensemble.save(tmp_path / "ensemble")
    assert not (tmp_path / "ensemble").exists()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore")
def test_onnx_has_the_mean_of_all_networks(task, dtype):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    kind, y, settings, method, _, _ = TASKS[task]
    rows = X.astype(dtype)
    ensemble = kind(**SMALL | settings, n_ens=3).fit(rows, y)
    session = runtime.InferenceSession(ensemble.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    *label, got = session.run(None, {"X": rows})
    wanted = getattr(ensemble, method)(rows)
    np.testing.assert_allclose(got.reshape(wanted.shape), wanted, rtol=2e-5 if dtype == "float32" else 1e-12, atol=1e-6)
    if label:
        assert (label[0] == ensemble.predict(rows)).mean() > 0.98
    with pytest.raises(ValueError, match="to_c writes one network, this ensemble has 3"):
        ensemble.to_c()


@pytest.mark.parametrize("task", ["multiclass", "binary", "regression", "counts"])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_voting_ensembles_predict_the_same(task):
    kind, y, settings, method, _, _ = TASKS[task]
    ensemble = kind(**SMALL | settings, n_ens=3).fit(X, y)
    theirs = ensemble.to_sklearn()
    np.testing.assert_allclose(getattr(theirs, method)(X), getattr(ensemble, method)(X), rtol=1e-10)
    assert (theirs.predict(X) == ensemble.predict(X)).mean() > (0.98 if kind is MLPClassifier else -1)
    assert type(theirs.estimators_[0]).__module__.startswith("sklearn.") and theirs.n_features_in_ == 6


@pytest.mark.filterwarnings("ignore")
def test_what_scikit_learn_cannot_vote_on_is_refused():
    for kind, y in ((MLPClassifier, Y_LABELS), (MLPRegressor, X[:, :2])):
        with pytest.raises(ValueError, match="voting ensembles have no multilabel or multi-output"):
            kind(**SMALL, n_ens=2).fit(X, y).to_sklearn()
    with pytest.raises(ValueError, match="scikit-learn has no n_ens=2, n_cv=3"):
        MLPClassifier(n_ens=2, n_cv=3).to_sklearn()


@pytest.mark.filterwarnings("ignore")
def test_in_pipelines_and_searches(tmp_path):
    table = pd.DataFrame(X, columns=[f"x{i}" for i in range(6)])
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), MLPClassifier(**SMALL, n_cv=2))
    search = GridSearchCV(pipeline, {"mlpclassifier__n_ens": [1, 2]}, cv=2).fit(table, Y)
    best = search.best_estimator_[-1]
    assert list(best.feature_names_in_) == list(table.columns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search.predict(table)
    with pytest.raises(ValueError, match="feature names"):
        best.predict(table[table.columns[::-1]])
