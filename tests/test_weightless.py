"""Rows of weight zero: a batch without weight changes nothing, in every engine; no weight at all is an error.

The judge is a fit without these rows. Where the rows are shuffled, it is one epoch after the other by the reference
engine, which gets the batches that have weight.
"""

import copy

import numpy as np
import pytest

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import LearningRateFinder
from fastmlp.engines import backends
from fastmlp.training import checkpoint
from fastmlp.training.optimizers import STOCHASTIC_SOLVERS
from fastmlp.training.schedules import SCHEDULES

import parity
from small_training import BACKENDS, Y_VALUES, X, Y
from tiers import each_value_once

pytestmark = [
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

SMALL = {"hidden_layer_sizes": (5,), "max_iter": 6, "random_state": 0, "learning_rate_init": 0.01, "batch_size": 8}
WEIGHTLESS = (1, 4, 9)  # batches of 8 among the ten of X (80, 6): in the middle, and the last one
ALL_BACKENDS = [name for name in backends.available() if name != "cuda"]


def some_zero():
    """Weights that are zero in some batches of rows in order, and in single rows elsewhere."""
    weight = np.random.RandomState(1).uniform(0.5, 2, 80)
    weight[[3, 17, 70]] = 0
    for batch in WEIGHTLESS:
        weight[8 * batch : 8 * batch + 8] = 0
    return weight


def kept():
    return ~np.isin(np.arange(80) // 8, WEIGHTLESS)


OPTIONS = [
    {},
    {"learning_rate": "invscaling", "solver": "sgd"},
    {"batch_norm": True, "dropout": 0.3},
    {"solver": "nadam", "weight_decay": 0.1, "max_grad_norm": 0.5},
    {"drop_last": True},
    {"activation": "prelu", "input_dropout": 0.2, "n_jobs": 2},
    *({"solver": solver} for solver in STOCHASTIC_SOLVERS),
]


@each_value_once
@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_batches_without_weight_change_nothing(cls, options, backend):
    """Bit for bit the weights, states, counters and losses of a fit on the other rows."""
    y, weight, rows = Y if cls is MLPClassifier else Y_VALUES, some_zero(), kept()
    est = cls(**SMALL | options, backend=backend, shuffle=False)
    ours = copy.deepcopy(est).fit(X, y, weight)
    theirs = copy.deepcopy(est).fit(X[rows], y[rows], weight[rows])
    parity.assert_identical_models(ours, theirs)
    assert ours.loss_curve_ == theirs.loss_curve_ and ours.t_ == theirs.t_
    for name in ("bn_means_", "bn_vars_", "prelu_slopes_"):
        for a, b in zip(getattr(ours, name, []), getattr(theirs, name, []), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(ours._training.optimizer.states, theirs._training.optimizer.states, strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours._training.optimizer.t == theirs._training.optimizer.t == 6 * 7


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_shuffled_batches_are_cut_before_any_is_left_out(backend):
    """Three rows of 80 have weight: most batches have none. One epoch after the other, by the reference."""
    weight = np.zeros(80)
    weight[[0, 1, 2]] = 1, 2, 3
    est = MLPRegressor(**SMALL, backend=backend).fit(X, Y_VALUES, weight)
    judge = MLPRegressor(**SMALL | {"max_iter": 1}, backend="reference").fit(X, Y_VALUES)
    order, rng, losses = np.arange(80), np.random.RandomState(0), []
    judge = MLPRegressor(**SMALL, shuffle=False, backend="reference")
    for layer in ((6, 5), (5, 1)):  # the draws of the first weights
        rng.uniform(size=layer), rng.uniform(size=layer[1])
    for _ in range(6):
        rng.shuffle(order)
        values = []
        for start in range(0, 80, 8):
            rows = order[start : start + 8]
            if weight[rows].any():
                values.append(judge.partial_fit(X[rows], Y_VALUES[rows], weight[rows]).loss_)
        losses.append(np.mean(values))
    np.testing.assert_allclose(est.loss_curve_, losses, rtol=1e-10)
    for ours, theirs in zip(est.coefs_, judge.coefs_, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert est._training.optimizer.t == judge._training.optimizer.t == est.t_ / 8


@each_value_once
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "invscaling"])  # which counts rows
def test_epochs_of_schedules_are_the_trainings(schedule, backend):
    """The rate after each epoch is the one of a fit in which every batch has weight."""
    options = SMALL | {"learning_rate": schedule, "solver": "sgd", "backend": backend, "shuffle": False}
    ours, theirs = (MLPRegressor(**options).fit(X, Y_VALUES, weight) for weight in (some_zero(), np.ones(80)))
    np.testing.assert_allclose(ours.history_["learning_rate"], theirs.history_["learning_rate"], rtol=1e-12)


@each_value_once
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{"learning_rate": "one_cycle", "dropout": 0.2}, {"solver": "nadam"}], ids=str)
def test_resumed_training_ends_at_the_same_bits(options, backend, tmp_path):
    taken = {}

    def keep(info):
        if info.epoch == 3:
            taken["snapshot"] = info.snapshot()

    est = MLPClassifier(**SMALL | options, backend=backend, class_weight={0: 0, 1: 0.01, 2: 1})
    few = np.where(np.arange(80) % 16 < 14, 0.0, 1.0)
    whole = copy.deepcopy(est).set_params(callbacks=[keep]).fit(X, Y, few)
    assert whole._training.optimizer.left_out > 3
    checkpoint.save(tmp_path / "fit.npz", taken["snapshot"])
    resumed = copy.deepcopy(est).fit(X, Y, few, resume_from=tmp_path / "fit.npz")
    parity.assert_identical_models(whole, resumed)
    assert whole.loss_curve_ == resumed.loss_curve_
    assert whole.history_["learning_rate"] == resumed.history_["learning_rate"]


def test_saved_optimizers_know_the_batches_left_out(tmp_path):
    pytest.importorskip("safetensors")
    from fastmlp.persistence import load

    est = MLPRegressor(**SMALL, solver="sgd", learning_rate="cosine", shuffle=False).fit(X, Y_VALUES, some_zero())
    est.save(tmp_path / "model", optimizer_state=True)
    again = load(tmp_path / "model")
    assert again._training.optimizer.left_out == est._training.optimizer.left_out == 18
    parity.assert_identical_models(est.partial_fit(X, Y_VALUES), again.partial_fit(X, Y_VALUES))


@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"early_stopping": True}], ids=str)
def test_no_weight_at_all_is_an_error_before_anything_changes(options):
    for est in (MLPClassifier(**SMALL | options), MLPRegressor(**SMALL | options)):
        with pytest.raises(ValueError, match=r"at least one non-zero number|no row has a weight"):
            est.fit(X, Y, np.zeros(80))
        assert not hasattr(est, "coefs_")
    with pytest.raises(ValueError, match="sample_weight, times class_weight if given, is zero for the 80 rows"):
        MLPClassifier(**SMALL | options, class_weight={0: 0, 1: 1, 2: 1}).fit(X, Y, (Y == 0).astype(float))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_left_for_training_need_weight(backend):
    est = MLPRegressor(**SMALL, backend=backend)
    last = np.where(np.arange(80) < 75, 0.0, 1.0)
    with pytest.raises(ValueError, match="zero for the 72 rows that drop_last=True leaves"):
        copy.deepcopy(est).set_params(drop_last=True, batch_size=12, shuffle=False).fit(X, Y_VALUES, last)
    # shuffled, an epoch without weight does nothing, and the next one trains
    shuffled = copy.deepcopy(est).set_params(drop_last=True, batch_size=45, max_iter=12)
    losses = np.array(shuffled.fit(X, Y_VALUES, np.eye(80)[0]).loss_curve_)
    assert 0 < np.isnan(losses).sum() < 12
    split = MLPRegressor(**SMALL | {"early_stopping": True, "validation_fraction": 0.5}, backend=backend)
    texts = set()
    for row in range(6):  # one of them is among the 40 rows held out
        with pytest.raises(ValueError) as caught:
            copy.deepcopy(split).fit(X, Y_VALUES, np.eye(80)[row])
        texts.add(str(caught.value))
    assert any("zero for the 40 training rows" in text for text in texts)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"batch_size": 80, "shuffle": False}], ids=str)
def test_negative_weights_that_cancel(options, backend):
    for est in (MLPClassifier(**SMALL | options, backend=backend), MLPRegressor(**SMALL | options, backend=backend)):
        with pytest.raises(ValueError, match="sample_weight has negative weights that cancel"):
            est.set_params(batch_size=80).fit(X, Y, np.resize([1.0, -1.0], 80))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("options", [{}, {"batch_norm": True}], ids=str)
def test_partial_fit_of_rows_without_weight(options, backend):
    est = MLPClassifier(**SMALL | options, backend=backend, shuffle=False)
    first = copy.deepcopy(est).partial_fit(X, Y, np.zeros(80), classes=[0, 1, 2])
    fresh = copy.deepcopy(est).partial_fit(X, Y, classes=[0, 1, 2])
    assert np.isnan(first.loss_) and first.t_ == first.n_iter_ == 0 and first.loss_curve_ == []
    assert first.predict(X).shape == (80,)
    parity.assert_identical_models(first.partial_fit(X, Y), fresh)
    before = copy.deepcopy(fresh)
    fresh.set_params(class_weight={0: 0, 1: 1, 2: 1}).partial_fit(X[Y == 0], Y[Y == 0])
    parity.assert_identical_models(fresh, before)
    for name in ("loss_", "t_", "n_iter_", "loss_curve_", "history_", "best_loss_"):
        assert getattr(fresh, name) == getattr(before, name), name
    assert fresh._training.optimizer.t == before._training.optimizer.t
    np.testing.assert_array_equal(fresh.predict_proba(X), before.predict_proba(X))


def test_learning_rates_are_found_on_batches_with_weight():
    weight = np.where(np.arange(80) < 8, 1.0, 0.0)
    est = MLPRegressor(**SMALL)
    finder = LearningRateFinder(est, n_steps=10, max_rate=1e-3).fit(X, Y_VALUES, weight)
    assert len(finder.losses) == 10 and len(np.unique(finder.losses)) == 10 and np.isfinite(finder.losses).all()
    with pytest.raises(ValueError, match="no row has a weight"):
        LearningRateFinder(est).fit(X, Y_VALUES, np.zeros(80))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_step_of_a_users_formula_is_found(backend):
    """An epoch is repeated to find it: with the batches that it had."""
    import fastmlp

    @fastmlp.activation
    def hole(z):
        return log(z - 3)  # noqa: F821

    est = MLPRegressor(**SMALL | {"activation": hole}, shuffle=False, backend=backend)
    with pytest.raises(ValueError, match=r"activation 'hole' of hidden layer 1 gave .* not finite in epoch 1"):
        est.fit(X, Y_VALUES, some_zero())


@pytest.mark.parametrize("last", [True, False])
def test_a_row_left_over_belongs_to_the_last_batch(last):
    """With batch_norm the last of 73 rows joins the batch before it, which has weight or has none."""
    rows, n = np.arange(73), 73
    weight = np.ones(n)
    weight[16:24] = 0
    weight[64 if last else 72 :] = 0 if last else 1
    left = np.r_[0:16, 24:64] if last else np.r_[0:16, 24:73]
    est = MLPRegressor(**SMALL, batch_norm=True, shuffle=False)
    ours = copy.deepcopy(est).fit(X[rows], Y_VALUES[rows], weight)
    theirs = copy.deepcopy(est).fit(X[left], Y_VALUES[left], weight[left])
    parity.assert_identical_models(ours, theirs)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-12)  # shares of rows round otherwise
    assert ours.t_ == theirs.t_ == 6 * len(left)
