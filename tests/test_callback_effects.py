"""What callbacks do to a fit: stop it, set its learning rate, keep and edit its weights."""

import asyncio
import copy
import functools
import math
import pickle
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from test_resume import assert_same_end

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import Checkpoint, Logging, ProgressBar, TimeLimit
from fastmlp.training.callbacks import name_of, reads_weights
from fastmlp.training.run import Run
from fastmlp.training.schedules import SCHEDULES, Adaptive, Plateau

import parity
from tiers import exhaustive, label
from validated_training import BACKENDS, GIVEN, GIVEN_VALUES, SMALL, V, X, Y

pytestmark = [
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(params=BACKENDS)
def small(request):
    """Parameters of a small, short training."""
    return SMALL | {"backend": request.param}


class Ends:
    """A callback that notes that it was ended."""

    ended = False

    def __call__(self, info):
        return None

    def on_fit_end(self, estimator):
        self.ended = True


# ------------------------------------------------------------------------------- what a callback returns


async def coroutine(info):
    return True


RETURNED = [1, 0, 1.0, "x", "", {}, {"loss": 1.0}, (), [True], np.int64(1), np.array(True), np.array([True]), object()]


@pytest.mark.parametrize("value", RETURNED, ids=label)
def test_an_accidental_return_value_is_an_error(value):
    ends = Ends()
    clf = MLPClassifier(callbacks=[lambda info: value, ends], **SMALL)
    with pytest.raises(TypeError) as error:
        clf.fit(X, Y)
    text = str(error.value)
    assert f"callback test_an_accidental_return_value_is_an_error.<locals>.<lambda> ({__name__}.py, line" in text
    assert f"returned {value!r:.100} of type {type(value).__name__}" in text and "bool(...)" in text
    # what was begun is ended, and the estimator can be used and trained on
    assert ends.ended and clf.n_iter_ == len(clf.history_["loss"]) == 1 and clf.stopped_by_ is None
    clf.predict(X)
    again = clf.set_params(callbacks=None).fit(X, Y)
    parity.assert_identical_models(again, MLPClassifier(**SMALL).fit(X, Y))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # nobody awaits it
def test_a_coroutine_is_an_error():
    assert asyncio.run(coroutine(None))
    with pytest.raises(TypeError, match="callback coroutine returned <coroutine"):
        MLPClassifier(callbacks=[coroutine], **SMALL).fit(X, Y)


@pytest.mark.parametrize("value", [None, False, np.False_])
def test_none_and_false_go_on(value):
    clf = MLPClassifier(callbacks=[lambda info: value], **SMALL).fit(X, Y)
    assert clf.n_iter_ == SMALL["max_iter"] and clf.stopped_by_ is None


@pytest.mark.parametrize("value", [True, np.True_])
@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_true_stops_and_says_so(value, estimator, capsys):
    def enough(info):
        return value if info.epoch == 3 else None

    est = estimator(callbacks=[enough], verbose=True, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        est.fit(X, Y)
    name = "test_true_stops_and_says_so.<locals>.enough"
    assert est.n_iter_ == 3 and est.stopped_by_ == name
    assert capsys.readouterr().out.splitlines()[-1] == f"Training stopped by callback {name} after epoch 3."


def test_a_stop_in_the_last_epoch_is_no_lack_of_convergence():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        est = MLPClassifier(callbacks=[lambda info: info.epoch == info.max_iter], **SMALL).fit(X, Y)
    assert est.n_iter_ == SMALL["max_iter"] and "<lambda>" in est.stopped_by_


def test_all_that_stopped_are_named():
    est = MLPClassifier(callbacks=[TimeLimit(1e-6), TimeLimit(1e6), Plain()], **SMALL).fit(X, Y)
    assert est.stopped_by_ == "TimeLimit(seconds=1e-06) and Plain"


class Method:
    def watch(self, info):
        return True


class Plain:
    def __call__(self, info):
        return True


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (TimeLimit(3), "TimeLimit(seconds=3)"),
        (Method().watch, "Method.watch"),
        (functools.partial(Method.watch, Method()), "Method.watch"),
        (Plain(), "Plain"),
        (math.isfinite, "isfinite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names(callback, name):
    assert name_of(callback) == name


def test_who_stopped_survives_and_the_next_fit_forgets_it(tmp_path):
    est = MLPClassifier(callbacks=[TimeLimit(1e-6)], **SMALL).fit(X, Y)
    named = "TimeLimit(seconds=1e-06)"
    assert est.stopped_by_ == named
    assert pickle.loads(pickle.dumps(est)).stopped_by_ == copy.deepcopy(est).stopped_by_ == named
    with pytest.warns(UserWarning, match="does not keep callbacks"):
        est.save(tmp_path / "m.safetensors")
    assert fastmlp.load(tmp_path / "m.safetensors").stopped_by_ == named
    est.set_params(callbacks=None)
    assert copy.deepcopy(est).fit(X, Y).stopped_by_ is None
    assert copy.deepcopy(est).set_params(warm_start=True).fit(X, Y).stopped_by_ is None
    assert copy.deepcopy(est).partial_fit(X, Y).stopped_by_ is None
    lbfgs = copy.deepcopy(est).set_params(solver="lbfgs", max_iter=3).fit(X, Y)
    assert not hasattr(lbfgs, "stopped_by_")  # it has no epochs
    warm = copy.deepcopy(est).set_params(solver="lbfgs", max_iter=3, warm_start=True).fit(X, Y)
    assert not hasattr(warm, "stopped_by_")


@pytest.mark.parametrize("early", [True, False])
def test_a_callback_may_end_or_begin_early_stopping(early):
    def switch(info):
        info.estimator.early_stopping = info.epoch < 3 if early else info.epoch >= 3

    est = MLPClassifier(callbacks=[switch], **SMALL | {"early_stopping": early}).fit(X, Y, **GIVEN)
    assert est.n_iter_ == len(est.validation_scores_) == SMALL["max_iter"]
    assert est.best_validation_score_ == max(est.validation_scores_)
    assert est.best_loss_ == min(est.loss_curve_[3:] if early else est.loss_curve_[:3])


def test_who_stopped_is_not_part_of_a_checkpoint(tmp_path):
    path = tmp_path / "fit.npz"
    MLPClassifier(callbacks=[lambda info: info.epoch == 3, Checkpoint(path)], **SMALL).fit(X, Y)
    assert MLPClassifier(**SMALL).fit(X, Y, resume_from=path).stopped_by_ is None


def test_what_is_no_callback_is_refused_before_anything_changes():
    est = MLPClassifier(**SMALL).fit(X, Y)
    before = copy.deepcopy(est)
    with pytest.raises(TypeError, match="callbacks must be callables"):
        est.set_params(callbacks=[3]).fit(X, Y)
    parity.assert_identical_models(est.set_params(callbacks=None), before)


# ------------------------------------------------------------------------------- the learning rate


def rates_of(fitted):
    return fitted.history_["learning_rate"]


def halve(info):
    info.set_learning_rate(info.learning_rate / 2)


@pytest.mark.parametrize("solver", ["adam", "sgd", "nadam"])
def test_a_schedule_by_callback_is_the_schedule(small, solver):
    """The judge: the schedule of the same rates, by the step."""
    params = small | {"solver": solver, "weight_decay": 0.01, "n_iter_no_change": 50}
    ours = MLPClassifier(callbacks=[halve], **params).fit(X, Y)
    theirs = MLPClassifier(learning_rate=("exponential", {"gamma": 0.5}), **params).fit(X, Y)
    np.testing.assert_array_equal(parity.weights(ours), parity.weights(theirs))
    assert rates_of(ours) == rates_of(theirs) and ours.loss_curve_ == theirs.loss_curve_


def test_a_schedule_by_loss_is_one_line():
    est = MLPRegressor(callbacks=[lambda info: info.set_learning_rate(min(0.01, info.loss))], **SMALL).fit(X, V)
    assert rates_of(est)[1:] == [min(0.01, loss) for loss in est.loss_curve_[:-1]]


def set_at_3(info):
    if info.epoch == 3:
        info.set_learning_rate(0.0123)


OVERRIDDEN = [name for name, kind in SCHEDULES.items() if kind not in (Adaptive, Plateau)]


@pytest.mark.parametrize("schedule", [*OVERRIDDEN, lambda progress: 1 - progress], ids=label)
def test_a_rate_that_was_set_overrides_schedules(schedule):
    params = SMALL | {"solver": "sgd", "learning_rate": schedule}
    plain, est = MLPClassifier(**params).fit(X, Y), MLPClassifier(callbacks=[set_at_3], **params).fit(X, Y)
    assert rates_of(est) == rates_of(plain)[:3] + [0.0123] * 9


REDUCING = [("adaptive", 0.2), (("plateau", {"patience": 0, "threshold": 0.9, "factor": 0.25}), 0.25)]


@pytest.mark.parametrize(("schedule", "factor"), REDUCING)
def test_a_rate_that_was_set_is_reduced_further(schedule, factor):
    params = SMALL | {"solver": "sgd", "tol": 10.0, "n_iter_no_change": 1, "learning_rate": schedule}
    rates = rates_of(MLPClassifier(callbacks=[set_at_3], **params).fit(X, Y))
    assert rates[3] == 0.0123
    reductions = np.log(np.array(rates[3:]) / 0.0123) / np.log(factor)
    np.testing.assert_allclose(reductions, np.round(reductions), atol=1e-9)
    assert np.diff(np.round(reductions)).min() >= 0 and reductions[-1] > 1.5


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("solver", ["sgd", *exhaustive("adamw", "nadam")])
def test_a_checkpoint_has_the_rate_that_was_set(schedule, solver, tmp_path):
    """Wherever the checkpoint stands in the list, and whoever edits weights."""
    params = SMALL | {"solver": solver, "learning_rate": schedule, "tol": 0.05, "n_iter_no_change": 6, "max_iter": 9}

    def steer(info):
        if info.epoch in (4, 6):
            info.set_learning_rate(0.03 / info.epoch)
        if info.epoch == 4:
            info.estimator.coefs_[0][0] = 0.5
            info.estimator.intercepts_ = [b + 0.25 for b in info.estimator.intercepts_]

    path = tmp_path / "fit.npz"
    whole = MLPClassifier(callbacks=[Checkpoint(str(path) + "{epoch}"), steer], **params).fit(X, Y)
    assert whole.n_iter_ > 6
    again = MLPClassifier(callbacks=[steer], **params).fit(X, Y, resume_from=f"{path}4")
    assert_same_end(again, whole)
    assert 0.03 / 4 in rates_of(whole)


def test_partial_fit_goes_on_with_the_rate_that_was_set(tmp_path):
    def set_once(info):
        info.set_learning_rate(0.005)

    params = SMALL | {"learning_rate": lambda progress: 1 - progress / 2, "callbacks": [set_once]}
    est = MLPClassifier(**params).fit(X, Y)
    est.set_params(callbacks=None, learning_rate="constant").save(tmp_path / "m.safetensors", optimizer_state=True)
    loaded = fastmlp.load(tmp_path / "m.safetensors")
    for model in (est, loaded, pickle.loads(pickle.dumps(est.set_params(learning_rate="cosine")))):
        model.partial_fit(X, Y).partial_fit(X, Y)
        assert rates_of(model)[-2:] == [0.005] * 2
    np.testing.assert_array_equal(parity.weights(est), parity.weights(loaded))
    assert rates_of(est.set_params(warm_start=True, learning_rate="constant").fit(X, Y))[-1] == 0.02  # begins anew


WRONG_RATES = [0, 0.0, -1e-3, math.nan, math.inf, -math.inf, None, "0.1", True, 10**400, 1j, np.zeros(2), [0.1]]


@pytest.mark.parametrize("value", WRONG_RATES, ids=lambda value: f"{value!r:.20}")
def test_wrong_rates_are_refused(value):
    est = MLPClassifier(callbacks=[lambda info: info.set_learning_rate(value)], **SMALL)
    with pytest.raises(ValueError, match="the learning rate must be a finite number greater than 0, got"):
        est.fit(X, Y)
    assert est.n_iter_ == 1


@pytest.mark.parametrize("value", [np.float32(0.25), np.float64(0.25), np.int64(1), 1])
def test_numbers_of_all_kinds_are_rates(value):
    est = MLPClassifier(callbacks=[lambda info: info.set_learning_rate(value)], **SMALL | {"max_iter": 2}).fit(X, Y)
    assert rates_of(est) == [0.02, float(value)] and type(rates_of(est)[1]) is float


def test_an_info_of_no_training_has_no_rate_to_set():
    from fastmlp.callbacks import EpochInfo

    with pytest.raises(RuntimeError, match="no training"):
        EpochInfo(1, 2, 0.0, None, None, 0.1, 0.0, None, dict).set_learning_rate(0.1)


# ------------------------------------------------------------------------------- the weights

OPTIONS = {"activation": "prelu", "batch_norm": True}
ATTRIBUTES = ["coefs_", "intercepts_", "bn_means_", "bn_scales_", "prelu_slopes_"]
WAYS = [
    {},
    {"early_stopping": True},
    {"early_stopping": True, "n_iter_no_change": 2, "tol": 0.5},
    {"solver": "sgd", "nesterovs_momentum": False},
]


def arrays_of(estimator):
    return [array for name in ATTRIBUTES for array in getattr(estimator, name)]


def copied(arrays):
    return [array.copy() for array in arrays]


@pytest.mark.parametrize("params", WAYS, ids=label)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_that_were_kept_are_those_of_their_epoch(small, params, dtype):
    kept, right, part = [], [], []

    class Keep:
        def on_fit_begin(self, estimator):
            kept.append(arrays_of(estimator))
            right.append(copied(kept[-1]))

        def __call__(self, info):
            self.on_fit_begin(info.estimator)
            part.append((info.estimator.coefs_[0].T[1:], info.estimator.coefs_[0].T[1:].copy()))

    est = MLPClassifier(callbacks=[Keep()], **small | OPTIONS | params).fit(X.astype(dtype), Y)
    assert len(kept) == est.n_iter_ + 1 > 2
    plain = MLPClassifier(**small | OPTIONS | params).fit(X.astype(dtype), Y)
    est.set_params(callbacks=None)
    parity.assert_identical_models(est, plain)
    est.partial_fit(X.astype(dtype), Y) if not est.early_stopping else est.set_params(warm_start=True).fit(X, Y)
    for views, values in zip(kept, right, strict=True):
        for view, value in zip(views, values, strict=True):
            np.testing.assert_array_equal(view, value)
    for view, value in part:
        np.testing.assert_array_equal(view, value)
    assert all(np.any(a[0] != b[0]) for a, b in zip(kept, kept[2:], strict=False))


def test_models_that_scikit_learns_callbacks_keep_are_those_of_their_epoch():
    from helpers import SklearnRecorder

    recorder = SklearnRecorder()
    est = MLPClassifier(**SMALL)
    if not hasattr(est, "set_callbacks"):
        pytest.skip("scikit-learn < 1.9")
    expected = []
    est.set_params(callbacks=[lambda info: expected.append(info.estimator.predict_proba(X))])
    est.set_callbacks(recorder).fit(X, Y)
    models = [model[0] for model in recorder.models][: len(expected)]
    for model, outputs in zip(models, expected, strict=True):
        np.testing.assert_array_equal(model.predict_proba(X), outputs)


def edit_in_place(estimator):
    for W in estimator.coefs_:
        W[...] = np.round(W, 1)


def assign_others(estimator):
    estimator.coefs_ = [np.round(W, 1) for W in estimator.coefs_]


@pytest.mark.parametrize("edit", [edit_in_place, assign_others])
@pytest.mark.parametrize("params", [{}, GIVEN_VALUES], ids=["", "validated"])
def test_edits_act_on_training(small, edit, params):
    """The judge: each epoch by itself, a warm start from the edited weights, without momentum to lose."""
    plain = small | {"solver": "sgd", "momentum": 0.0, "shuffle": False, "n_iter_no_change": 50, "max_iter": 4}
    scores = []
    watched = MLPRegressor(callbacks=[lambda info: edit(info.estimator)], **plain).fit(X, V, **params)
    judge = MLPRegressor(**plain | {"max_iter": 1, "warm_start": True})
    for _ in range(4):
        judge.fit(X, V, **params)
        scores.append(judge.history_["score"][-1])
        edit_in_place(judge)
    np.testing.assert_array_equal(parity.weights(watched), parity.weights(judge))
    np.testing.assert_array_equal(watched.history_["score"], scores)


def test_weights_that_were_kept_can_be_put_back(small):
    """A callback that restores the best epoch by itself."""
    best = {}

    def restore(info):
        if info.epoch == 5:
            best["coefs_"], best["intercepts_"] = info.estimator.coefs_, info.estimator.intercepts_
        if info.epoch == info.max_iter:
            info.estimator.coefs_, info.estimator.intercepts_ = best["coefs_"], best["intercepts_"]

    est = MLPClassifier(callbacks=[restore], **small).fit(X, Y)
    short = MLPClassifier(callbacks=[lambda info: info.epoch == 5], **small).fit(X, Y)
    np.testing.assert_array_equal(parity.weights(est), parity.weights(short))
    kept = copied(best["coefs_"])
    est.partial_fit(X, Y)
    assert all(np.array_equal(a, b) for a, b in zip(kept, best["coefs_"], strict=True))


@pytest.mark.parametrize("change", [lambda coefs: [W[:-1] for W in coefs], lambda coefs: coefs[:1], lambda coefs: None])
def test_assigned_weights_of_another_shape_are_refused(change):
    def assign(info):
        info.estimator.coefs_ = change(info.estimator.coefs_)

    with pytest.raises(ValueError, match="a callback has left weights that do not fit the network: "):
        MLPClassifier(callbacks=[assign], **SMALL).fit(X, Y)


def test_a_callback_sees_the_best_weights_when_the_fit_ends():
    seen = []

    class End:
        def __call__(self, info):
            return None

        def on_fit_end(self, estimator):
            seen.append(copied(estimator.coefs_))

    params = SMALL | {"early_stopping": True, "learning_rate_init": 0.5, "max_iter": 30}
    est = MLPClassifier(callbacks=[End()], **params).fit(X, Y)
    assert max(est.validation_scores_) > est.validation_scores_[-1]
    assert all(np.array_equal(a, b) for a, b in zip(seen[0], est.coefs_, strict=True))


def test_weights_are_copied_only_for_callbacks_that_may_look(monkeypatch):
    copies = []
    original = Run.renew_params
    monkeypatch.setattr(Run, "renew_params", lambda run: (copies.append(1), original(run)))
    blind = [ProgressBar(), Logging(), TimeLimit(60), Checkpoint.__new__(Checkpoint)]
    assert not reads_weights(blind) and reads_weights([*blind, print])
    MLPClassifier(callbacks=blind[:3], **SMALL).fit(X, Y)
    MLPClassifier(**SMALL).fit(X, Y)
    assert not copies
    MLPClassifier(callbacks=[lambda info: None], **SMALL).fit(X, Y, **GIVEN)
    assert len(copies) == SMALL["max_iter"] + 1  # one an epoch, and one for on_fit_begin


@pytest.mark.parametrize("edit", [edit_in_place, assign_others])
def test_after_a_formula_failed_the_weights_are_those_that_callbacks_left(edit):
    @fastmlp.activation
    def cliff(z):
        return log(3.0 - z)  # noqa: F821

    left = []

    def to_the_edge(info):
        if info.epoch == 2:
            edit(info.estimator)
            info.estimator.intercepts_[0][0] = 2.99
            info.set_learning_rate(50.0)
            left.append(parity.weights(info.estimator))

    est = MLPRegressor(
        hidden_layer_sizes=4, activation=cliff, max_iter=9, batch_size=10, callbacks=[to_the_edge], random_state=0
    )
    with pytest.raises(ValueError, match="not finite in epoch 3; the weights are those after epoch 2"):
        est.fit(0.01 * X, V)
    np.testing.assert_array_equal(parity.weights(est), left[0])
    assert est._training.optimizer.scheduled_rate == 50.0


def test_snapshots_hold_assigned_weights():
    taken = []

    def assign(info):
        info.estimator.intercepts_ = [b + 1.0 for b in info.estimator.intercepts_]
        taken.append(info.snapshot()["params"])

    est = MLPClassifier(callbacks=[assign], **SMALL | {"max_iter": 2}).fit(X, Y)
    np.testing.assert_array_equal(taken[-1], parity.weights(est))
