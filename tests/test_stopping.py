"""When training ends by itself, and the state that it goes on with: the rule alone, without any network."""

import copy
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.utils import check_random_state

from fastmlp import MLPClassifier
from fastmlp.model.network import Network
from fastmlp.training.optimizers import make_optimizer
from fastmlp.training.state import TrainingState
from fastmlp.training.stopping import Stopping, keeps_best, watches_validation

INF, NAN = math.inf, math.nan


def parameters(**changes):
    """What the rule reads of an estimator."""
    defaults = {
        "tol": 0.1,
        "n_iter_no_change": 2,
        "early_stopping": False,
        "monitor": "score",
        "restore_best": None,
        "patience_growth": 0.0,
        "n_iter_": 0,
        "verbose": False,
    }
    return SimpleNamespace(**defaults | changes)


def begun(estimator, has_validation=False):
    rule = Stopping()
    rule.reset(estimator)
    rule.begin(estimator, has_validation)
    return rule


#: Training losses -> the counter after each of them; better is lower by more than tol=0.1.
LOSSES = [
    ([1.0, 0.8, 0.6], [0, 0, 0]),
    ([1.0, 0.95, 0.88, 0.7], [0, 1, 2, 0]),  # the best moves too: 0.88 is compared with 0.95, not with 1.0
    ([1.0, 1.5, 0.95, 0.8], [0, 1, 2, 0]),
    ([1.0, NAN, 0.95], [0, 0, 1]),
]


@pytest.mark.parametrize(("losses", "counts"), LOSSES)
def test_epochs_without_a_lower_loss_are_counted(losses, counts):
    estimator = parameters()
    rule, found = begun(estimator), []
    for loss in losses:
        rule.watch_losses(estimator, [loss])
        found.append(rule.count)
    assert found == counts
    assert estimator.best_loss_ == np.nanmin(losses)


#: monitor, (validation loss, score) per epoch -> the counter and whether the weights are the best, after each.
VALIDATIONS = [
    ("score", [(1.0, 0.5), (1.0, 0.55), (1.0, 0.7), (1.0, 0.4)], [(0, True), (1, True), (0, True), (1, False)]),
    ("loss", [(1.0, 0.5), (0.95, 0.0), (0.5, 0.0), (0.6, 1.0)], [(0, True), (1, True), (0, True), (1, False)]),
    ("score", [(1.0, 0.5), (1.0, NAN), (1.0, 0.5)], [(0, True), (0, False), (1, False)]),
]


@pytest.mark.parametrize(("monitor", "epochs", "expected"), VALIDATIONS)
def test_epochs_without_a_better_validation_are_counted(monitor, epochs, expected):
    estimator = parameters(early_stopping=True, monitor=monitor)
    rule, found = begun(estimator, has_validation=True), []
    for loss, score in epochs:
        is_best = rule.watch_validation(estimator, loss, score)
        found.append((rule.count, is_best))
    assert found == expected
    best = [score for (_, score), (_, is_best) in zip(epochs, expected, strict=True) if is_best][-1]
    assert estimator.best_validation_score_ == best and estimator.best_loss_ is None


@pytest.mark.parametrize("restore, best", [(True, 1), (None, 1), ("last", 3)])
@pytest.mark.parametrize("monitor", ["score", "loss"])
def test_of_equally_good_epochs_the_last_counts_if_it_is_asked_for(restore, best, monitor):
    """Epochs 1 and 3 tie; NaN and -inf are never the best."""
    estimator = parameters(early_stopping=True, restore_best=restore, monitor=monitor)
    rule, found = begun(estimator, has_validation=True), []
    for epoch, value in enumerate([0.5, 0.7, 0.6, 0.7, NAN, 0.2]):
        if rule.watch_validation(estimator, -value, value):
            found.append(epoch)
    assert found[-1] == best and estimator.best_validation_score_ == 0.7
    assert keeps_best(estimator, True)


def last_epoch(scores, **changes):
    """The epoch, from 1, after which the rule ends training; None if it does not."""
    estimator = parameters(early_stopping=True, tol=0.0, **changes)
    rule = begun(estimator, has_validation=True)
    schedule = SimpleNamespace(on_plateau=lambda: (True, ""))
    for estimator.n_iter_, score in enumerate(scores, 1):
        rule.watch_validation(estimator, 1.0, score)
        if rule.ends(estimator, True, schedule):
            return estimator.n_iter_
    return None


@pytest.mark.parametrize("best", [1, 5, 30])
@pytest.mark.parametrize(("growth", "constant"), [(1.0, 20), (0.5, 3), (0.0, 10), (2.0, 1)])
def test_patience_grows_with_the_best_epoch(best, growth, constant):
    """RealMLP ends at the first epoch above 2 best + 20: growth 1, constant 20; best is the last of ties."""
    scores = [0.9 if epoch <= best else 0.1 for epoch in range(1, 200)]
    ended = last_epoch(scores, n_iter_no_change=constant, patience_growth=growth)
    assert ended == next(epoch for epoch in range(1, 200) if epoch > (1 + growth) * best + constant)


def test_patience_that_never_ends_may_grow():
    assert last_epoch([0.1] + [0.0] * 300, n_iter_no_change=INF, patience_growth=1.0) is None


def test_without_early_stopping_validation_rows_are_watched_and_the_loss_counts():
    estimator = parameters()
    rule = begun(estimator, has_validation=True)
    for loss, score in [(1.0, 0.1), (1.0, 0.9)]:
        estimator.loss_ = loss
        is_best = rule.watch_validation(estimator, 7.0, score)
    assert is_best and rule.count == 1 and estimator.best_loss_ == 1.0


WHAT = [({}, False, "Training loss"), ({"early_stopping": True}, True, "Validation score")]
WHAT += [({"early_stopping": True, "monitor": "loss"}, True, "Validation loss"), ({}, True, "Training loss")]


@pytest.mark.parametrize(("changes", "has_validation", "what"), WHAT)
@pytest.mark.parametrize("stops", [False, True])
def test_a_plateau_ends_training_unless_the_schedule_goes_on(changes, has_validation, what, stops, capsys):
    estimator = parameters(verbose=True, **changes)
    rule, asked = begun(estimator, has_validation), []

    def on_plateau():
        asked.append(rule.count)
        return stops, " Said the schedule."

    for rule.count in (0, 2):
        assert not rule.ends(estimator, has_validation, SimpleNamespace(on_plateau=on_plateau))
    assert not asked
    rule.count = 3
    assert rule.ends(estimator, has_validation, SimpleNamespace(on_plateau=on_plateau)) == stops
    assert asked == [3] and rule.count == (3 if stops else 0)
    text = f"{what} did not improve more than tol=0.100000 for 2 consecutive epochs. Said the schedule.\n"
    assert capsys.readouterr().out == text


def test_a_loss_and_a_score_are_not_compared():
    estimator = parameters(early_stopping=True)
    rule = begun(estimator, has_validation=True)
    rule.watch_validation(estimator, 0.5, 0.9)
    rule.begin(estimator, True)
    assert rule.best_monitored == 0.9
    estimator.monitor = "loss"
    rule.begin(estimator, True)
    assert (rule.best_monitored, rule.monitored) == (-INF, "loss")


#: early_stopping, restore_best, has_validation -> who decides when to stop, are the best weights kept.
KEPT = [
    (True, None, True, True, True),
    (True, False, True, True, False),
    (False, None, True, False, False),
    (False, True, True, False, True),
    (False, "last", True, False, True),
    (False, "last", False, False, False),
    (False, True, False, False, False),
    (True, None, False, False, False),
]


@pytest.mark.parametrize(("early", "restore", "has_validation", "watched", "kept"), KEPT)
def test_who_decides_and_what_is_kept(early, restore, has_validation, watched, kept):
    estimator = parameters(early_stopping=early, restore_best=restore)
    assert bool(watches_validation(estimator, has_validation)) == watched
    assert bool(keeps_best(estimator, has_validation)) == kept


@pytest.mark.parametrize("name", Stopping.SAVED)
def test_every_counter_is_in_the_state(name):
    values = {"_no_improvement_count": 4, "_best_monitored": 0.25, "_monitored": "loss"}
    rule, attribute = Stopping(), Stopping.SAVED[name][0]
    rule.set_state({name: values[name], "of someone else": 1})
    assert getattr(rule, attribute) == values[name] and rule.get_state()[name] == values[name]
    assert set(vars(rule)) == {attribute for attribute, _ in Stopping.SAVED.values()}
    with pytest.raises(ValueError, match="must be"):
        rule.set_state({name: [1]})


# ------------------------------------------------------------------------------ the whole state

NETWORK = Network((3, 2), (), "log_loss", np.dtype(np.float64))
OTHER = Network((5, 2), (), "log_loss", np.dtype(np.float64))


def filled():
    optimizer = make_optimizer("adam", NETWORK, MLPClassifier().get_params())
    optimizer.t = 3
    optimizer.states[0][...] = 0.5
    state = TrainingState(np.random.RandomState(5), optimizer, 2**63, np.arange(8.0))
    state.stopping.count, state.stopping.best_monitored = 2, 0.75
    return state


@pytest.mark.parametrize("rebuildable", [False, True])
def test_a_state_comes_back_as_it_was(rebuildable):
    kept = filled().get_state(NETWORK, rebuildable=rebuildable)
    again = TrainingState()
    if not rebuildable:  # a training to resume has made its optimizer
        again.optimizer = make_optimizer("adam", NETWORK, MLPClassifier().get_params())
    again.set_state(kept, NETWORK)
    after = again.get_state(NETWORK, rebuildable=rebuildable)
    assert pickle.dumps(after) == pickle.dumps(kept)
    assert again.random_state.randint(1 << 30) == np.random.RandomState(5).randint(1 << 30)


def test_what_belongs_to_other_weights_is_not_kept():
    kept = filled().get_state(OTHER)
    assert kept["optimizer"] is None and kept["best_params"] is None


WRONG = [
    ({"dropout_seed": -1}, ValueError, "64 bits"),
    ({"best_params": np.zeros(3)}, ValueError, "a vector must be"),
    ({"stopping": {"_no_improvement_count": -1}}, ValueError, "must be a whole number"),
    ({"nonsense": 1}, KeyError, "nonsense"),
]


@pytest.mark.parametrize(("state", "error", "text"), WRONG)
def test_nonsense_is_refused(state, error, text):
    with pytest.raises(error, match=text):
        TrainingState().set_state(state, NETWORK)


def test_the_stream_of_everybody_is_not_touched():
    everybodys = check_random_state(None)
    before = everybodys.get_state()[1].copy()
    state = TrainingState(everybodys)
    state.set_state({"random_state": filled().get_state(NETWORK)["random_state"]}, NETWORK)
    assert state.random_state is not everybodys
    np.testing.assert_array_equal(everybodys.get_state()[1], before)


# ------------------------------------------------------------------------------ estimators

X = np.random.RandomState(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_keeps_one_private_state():
    est = MLPClassifier((4,), max_iter=5, early_stopping=True, random_state=0, dropout=0.1).fit(X, Y)
    private = {name for name in vars(est) if name.startswith("_")}
    assert private == {"_training", "_label_binarizer", "_idle_predictions"}
    assert est._training.best_params is None  # the very weights, which are not stored twice
    assert (est._no_improvement_count, est._optimizer) == (est._training.stopping.count, est._training.optimizer)
    assert not hasattr(MLPClassifier(), "_optimizer") and not hasattr(MLPClassifier(), "_no_improvement_count")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_shallow_copy_counts_for_itself():
    est = MLPClassifier((4,), max_iter=5, random_state=0).fit(X, Y)
    twin = copy.copy(est)
    twin._no_improvement_count = 7
    assert est._no_improvement_count == 0
    assert len(pickle.dumps(est)) < 12_000
