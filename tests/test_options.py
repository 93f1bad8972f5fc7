"""What the estimators take beyond scikit-learn's parameters: that each does what it says.

Numerics are judged elsewhere (test_kernels.py against the reference, test_torch.py against PyTorch); here is the road
from a constructor's parameter to the engine, and from fitted arrays to predictions.
"""

import copy
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import get_tags

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.data.targets import CLASSIFIER_LOSSES, DECISION_LOSSES, REGRESSOR_LOSSES
from fastmlp.estimator.parameters import HIDDEN_ACTIVATIONS
from fastmlp.kernels import formulas, reference
from fastmlp.model.initialization import INITIALIZERS
from fastmlp.model.stages import BATCH_NORM_EPS
from fastmlp.training.optimizers import STOCHASTIC_SOLVERS
from fastmlp.training.schedules import SCHEDULES, make_schedule

import parity
from small_training import (
    BACKENDS,
    SMALL,
    WEIGHT,
    Y_BINARY,
    Y_COUNTS,
    Y_LABELS,
    Y_SHARES,
    Y_VALUES,
    X,
    Y,
    cauchy,
    swish,
)

pytestmark = [
    pytest.mark.covers("small", apart="small"),  # a parameter does the same on every engine but for rounding
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(params=BACKENDS)
def small(request):
    """Parameters of a small, short training."""
    return SMALL | {"backend": request.param}


def assert_learns(est, X=X, y=None):
    """Finite, and the loss goes down."""
    y = (Y if isinstance(est, MLPClassifier) else Y_VALUES) if y is None else y
    est.fit(X, y)
    assert np.isfinite(est.loss_curve_).all()
    assert min(est.loss_curve_[1:]) < est.loss_curve_[0]
    assert np.isfinite(est.predict(X)).all()
    return est


# ------------------------------------------------------------------------------ activations


@pytest.mark.parametrize("activation", HIDDEN_ACTIVATIONS)
def test_activations_by_name(small, activation):
    est = assert_learns(MLPRegressor(activation=activation, **small | {"max_iter": 20}))
    assert hasattr(est, "prelu_slopes_") == (activation == "prelu")


def test_activations_with_parameters(small):
    for name, row in formulas.ACTIVATIONS.items():
        if not row.hidden or not row.parameters or row.learned:
            continue
        default = MLPRegressor(activation=name, **small).fit(X, Y_VALUES)
        spelled_out = MLPRegressor(activation=(name, dict(row.parameters)), **small).fit(X, Y_VALUES)
        parity.assert_identical_models(default, spelled_out)
        other = MLPRegressor(activation=(name, {k: 0.5 * v for k, v in row.parameters.items()}), **small)
        assert not np.array_equal(parity.weights(default), parity.weights(other.fit(X, Y_VALUES))), name


def test_one_activation_per_layer(small):
    mixed = ["tanh", ("leaky_relu", {"negative_slope": 0.2})]
    est = assert_learns(MLPRegressor(activation=mixed, **small))
    hidden = np.tanh(X @ est.coefs_[0] + est.intercepts_[0]) @ est.coefs_[1] + est.intercepts_[1]
    hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
    np.testing.assert_allclose(est.predict(X), (hidden @ est.coefs_[2] + est.intercepts_[2]).ravel(), rtol=1e-10)
    parity.assert_identical_models(est, MLPRegressor(activation=tuple(mixed), **small).fit(X, Y_VALUES))
    # the same for all layers is the plain case
    same = MLPRegressor(activation=("relu", "relu"), **small).fit(X, Y_VALUES)
    parity.assert_identical_models(same, MLPRegressor(activation="relu", **small).fit(X, Y_VALUES))


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_formulas_of_the_users_own(small, solver):
    ours = MLPClassifier(activation=swish, solver=solver, **small).fit(X, Y)
    silu = MLPClassifier(activation="silu", solver=solver, **small).fit(X, Y)
    np.testing.assert_allclose(parity.weights(ours), parity.weights(silu), rtol=1e-4, atol=1e-6)
    assert_learns(MLPRegressor(loss=cauchy, activation=[swish, "tanh"], **small))


def test_formulas_are_cloned_and_pickled(small):
    est = MLPRegressor(cauchy, activation=swish, **small)
    for twin in (clone(est), pickle.loads(pickle.dumps(est)), copy.deepcopy(est)):
        parity.assert_identical_models(twin.fit(X, Y_VALUES), est.fit(X, Y_VALUES))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(est)).predict(X), est.predict(X))


def test_step_is_trained_straight_through(small):
    est = assert_learns(MLPClassifier(activation="step", **small | {"max_iter": 40}))
    hidden = (X @ est.coefs_[0] + est.intercepts_[0] >= 0) @ est.coefs_[1] + est.intercepts_[1] >= 0
    z = hidden @ est.coefs_[2] + est.intercepts_[2]
    np.testing.assert_array_equal(est.predict(X), z.argmax(axis=1))


# ------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("loss", CLASSIFIER_LOSSES)
@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_classifier_losses(small, loss, task):
    y = {"multiclass": Y, "binary": Y_BINARY, "multilabel": Y_LABELS}[task]
    est = MLPClassifier(loss=loss, **small | {"max_iter": 40})
    if task == "multilabel" and loss in DECISION_LOSSES:
        with pytest.raises(ValueError, match="makes no sense with multilabel"):
            est.fit(X, y)
        return
    if loss == "perceptron":
        est.set_params(hidden_layer_sizes=(20,))  # it wants no margin: units of a small network stay dead
    assert_learns(est, y=y)
    enough = {"multiclass": 0.6, "binary": 0.75, "multilabel": 0.3}
    assert est.score(X, y) > enough[task]
    expected = {"multiclass": "softmax"}.get(task, "logistic") if loss not in DECISION_LOSSES else "identity"
    assert est.out_activation_ == expected


def test_default_loss_is_log_loss(small):
    parity.assert_identical_models(
        MLPClassifier(**small).fit(X, Y), MLPClassifier(loss=("log_loss", {"label_smoothing": 0.0}), **small).fit(X, Y)
    )


@pytest.mark.parametrize("loss", DECISION_LOSSES)
def test_hinge_gives_decision_values(small, loss):
    est = MLPClassifier(loss=loss, **small | {"max_iter": 60})
    for y in (Y, Y_BINARY, np.array(["a", "b", "c"])[Y]):
        values = est.fit(X, y).decision_function(X)
        if len(est.classes_) == 2:
            assert values.shape == (len(X),)
            np.testing.assert_array_equal(est.predict(X), est.classes_[(values > 0).astype(int)])
        else:
            assert values.shape == (len(X), 3)
            np.testing.assert_array_equal(est.predict(X), est.classes_[values.argmax(axis=1)])
    assert not get_tags(est).classifier_tags.multi_label
    for method in ("predict_proba", "predict_log_proba"):
        assert not hasattr(est, method)
    with pytest.raises(AttributeError) as caught:
        est.predict_proba  # noqa: B018
    assert "use decision_function" in str(caught.value.__cause__)
    assert 0.5 < CalibratedClassifierCV(est, cv=3).fit(X, Y_BINARY).predict_proba(X).max() <= 1


def test_only_hinge_gives_decision_values(small):
    for loss in ("log_loss", ("focal", {"gamma": 1.0})):
        est = MLPClassifier(loss=loss, **small).fit(X, Y)
        assert not hasattr(est, "decision_function")
        np.testing.assert_allclose(est.predict_proba(X).sum(axis=1), 1)


TARGETS = {"poisson": Y_COUNTS, "gamma": Y_COUNTS + 0.5, "kl_divergence": Y_SHARES}


@pytest.mark.parametrize("loss", REGRESSOR_LOSSES)
@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
def test_regressor_losses(small, loss, container):
    est = assert_learns(MLPRegressor(loss, **small | {"max_iter": 30}), container(X), TARGETS.get(loss, Y_VALUES))
    predicted = est.predict(X)
    if loss in ("poisson", "gamma"):
        assert (predicted > 0).all()
    if loss == "kl_divergence":
        np.testing.assert_allclose(predicted.sum(axis=1), 1)
    elif loss not in ("poisson", "gamma"):
        y = np.column_stack([Y_VALUES, -Y_VALUES])
        assert est.fit(X, y).predict(X).shape == (80, 2)


def test_losses_with_parameters(small):
    low, high = (
        MLPRegressor(("quantile", {"quantile": q}), **small | {"max_iter": 150}).fit(X, Y_VALUES) for q in (0.1, 0.9)
    )
    assert (low.predict(X) > Y_VALUES).mean() < 0.3 < 0.7 < (high.predict(X) > Y_VALUES).mean()
    plain = MLPClassifier(**small).fit(X, Y)
    unfocused = MLPClassifier(loss=["focal", {"gamma": 0.0}], **small).fit(X, Y)
    np.testing.assert_allclose(parity.weights(unfocused), parity.weights(plain), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("y", [Y, Y_BINARY, Y_LABELS], ids=["multiclass", "binary", "multilabel"])
def test_label_smoothing_makes_less_certain(small, y):
    params = small | {"max_iter": 80, "alpha": 0}
    losses = [("log_loss", {"label_smoothing": e}) for e in (0.0, 0.3)]
    certain, smooth = (MLPClassifier(loss=loss, **params).fit(X, y).predict_proba(X) for loss in losses)
    assert np.abs(smooth - 0.5).max() < np.abs(certain - 0.5).max()


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_class_weight_is_a_sample_weight(small, solver):
    params = small | {"solver": solver, "max_iter": 4}
    per_class = {0: 2.0, 1: 0.5, 2: 1.5}
    weighted = MLPClassifier(class_weight=per_class, **params).fit(X, Y)
    by_row = MLPClassifier(**params).fit(X, Y, np.array([2.0, 0.5, 1.5])[Y])
    parity.assert_identical_models(weighted, by_row)
    both = MLPClassifier(class_weight=per_class, **params).fit(X, Y, WEIGHT)
    parity.assert_identical_models(both, MLPClassifier(**params).fit(X, Y, WEIGHT * np.array([2.0, 0.5, 1.5])[Y]))
    balanced = MLPClassifier(class_weight="balanced", **params).fit(X, Y)
    counts = np.bincount(Y)
    parity.assert_identical_models(balanced, MLPClassifier(**params).fit(X, Y, (80 / (3 * counts))[Y]))


# ------------------------------------------------------------------------------ solvers, schedules, penalties


@pytest.mark.parametrize("solver", ["lbfgs", *STOCHASTIC_SOLVERS])
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_solvers(small, solver, cls):
    y = Y if cls is MLPClassifier else Y_VALUES
    est = cls(solver=solver, **small | {"max_iter": 20, "learning_rate_init": 1.0 if solver == "adadelta" else 0.005})
    if solver == "lbfgs":
        assert np.isfinite(est.fit(X, y).loss_)
        return
    assert_learns(est, y=y)
    assert est.partial_fit(X, y).n_iter_ == 1


def test_momentum_and_nesterov_are_names_for_sgd(small):
    for name, nesterov in (("momentum", False), ("nesterov", True)):
        parity.assert_identical_models(
            MLPClassifier(solver=name, **small).fit(X, Y),
            MLPClassifier(solver="sgd", nesterovs_momentum=nesterov, **small).fit(X, Y),
        )


@pytest.mark.parametrize(
    "schedule", [*SCHEDULES, ("step", {"step_size": 2, "gamma": 0.5}), lambda progress: 1 - progress]
)
@pytest.mark.parametrize("solver", ["sgd", "adam", "lion"])
def test_schedules(small, schedule, solver):
    est = assert_learns(MLPClassifier(learning_rate=schedule, solver=solver, **small))
    rates = est.history_["learning_rate"]
    assert len(rates) == est.n_iter_ == 6
    if schedule in ("invscaling", "adaptive", "plateau"):
        return
    steps = np.arange(5, 31, 5) - 1.0  # the last ones of the six epochs of five batches
    expected = make_schedule(schedule, 0.01, n_steps_per_epoch=5, max_iter=6).rates(steps)
    np.testing.assert_allclose(rates, np.broadcast_to(expected, 6), rtol=1e-12)


def test_plateau_reduces_the_rate(small):
    schedule = ("plateau", {"patience": 1, "factor": 0.5, "threshold": 0.9})
    est = MLPClassifier(learning_rate=schedule, **small | {"max_iter": 9}).fit(X, Y)
    rates = est.history_["learning_rate"]
    assert rates[0] == 0.01 and rates[-1] < 0.003 and sorted(rates, reverse=True) == rates


def one_step(**params):
    """A regressor after one step of plain gradient descent on all rows, from the same weights."""
    settings = {"solver": "sgd", "momentum": 0, "max_iter": 1, "random_state": 0, "batch_size": 80, "shuffle": False}
    return MLPRegressor(hidden_layer_sizes=(5,), **settings | params).fit(X, Y_VALUES)


@pytest.mark.parametrize("backend", BACKENDS)
def test_penalties_and_decay_of_one_step(backend):
    start = MLPRegressor(
        hidden_layer_sizes=(5,), random_state=0, solver="sgd", learning_rate_init=1e-300, max_iter=1, alpha=0
    ).fit(X, Y_VALUES)
    W, b = start.coefs_[0], start.intercepts_[0]
    plain = one_step(alpha=0, learning_rate_init=0.1, backend=backend)

    def moved(**params):
        est = one_step(learning_rate_init=0.1, backend=backend, **params)
        return est.coefs_[0] - plain.coefs_[0], est.intercepts_[0] - plain.intercepts_[0]

    for ratio in (0.0, 0.3, 1.0):
        dW, db = moved(alpha=2.0, l1_ratio=ratio)
        expected = -0.1 * 2.0 * (ratio * np.sign(W) + (1 - ratio) * W) / 80
        np.testing.assert_allclose(dW, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(db, 0, atol=1e-12)
    dW, db = moved(alpha=0, weight_decay=0.5)
    np.testing.assert_allclose(dW, -0.1 * 0.5 * W, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(db, -0.1 * 0.5 * b, rtol=1e-9, atol=1e-12)
    clipped = one_step(alpha=0, learning_rate_init=0.1, max_grad_norm=1e-3, backend=backend)
    step = parity.weights(clipped) - parity.weights(start)
    np.testing.assert_allclose(np.linalg.norm(step), 0.1 * 1e-3, rtol=1e-2)


def test_adamw_decays_by_default(small):
    default, none, one_percent = (
        parity.weights(MLPClassifier(solver="adamw", weight_decay=decay, **small).fit(X, Y))
        for decay in (None, 0, 0.01)
    )
    np.testing.assert_array_equal(default, one_percent)
    assert not np.array_equal(default, none)


def test_drop_last(small):
    """80 rows in batches of 32: the rest of 16 is left out."""
    params = small | {"batch_size": 32, "shuffle": False}
    est = MLPClassifier(drop_last=True, **params).fit(X, Y)
    assert est.t_ == 64 * est.n_iter_
    np.testing.assert_array_equal(parity.weights(est), parity.weights(MLPClassifier(**params).fit(X[:64], Y[:64])))
    whole = MLPClassifier(drop_last=True, **small | {"batch_size": 20}).fit(X, Y)
    parity.assert_identical_models(whole, MLPClassifier(**small | {"batch_size": 20}).fit(X, Y))


@pytest.mark.filterwarnings("ignore:Got `batch_size`")
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("estimator, y", [(MLPClassifier, Y), (MLPRegressor, Y.astype(float))])
def test_a_batch_of_more_rows_than_there_are_is_whole(small, estimator, y, early_stopping):
    params = small | {"batch_size": 81, "early_stopping": early_stopping}
    last, all_rows = (estimator(drop_last=drop, **params).fit(X, y) for drop in (True, False))
    parity.assert_identical_models(last, all_rows)
    assert last.t_ == (72 if early_stopping else 80) * last.n_iter_


@pytest.mark.filterwarnings("ignore:Got `batch_size`")
def test_a_batch_of_more_rows_than_partial_fit_gets_is_whole(small):
    one = MLPClassifier(drop_last=True, **small | {"batch_size": 50}).partial_fit(X[:30], Y[:30], classes=[0, 1, 2])
    assert one.t_ == 30


@pytest.mark.parametrize("estimator, y", [(MLPClassifier, Y), (MLPRegressor, Y.astype(float))])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_epochs_without_patience_are_a_plan(small, estimator, y, early_stopping):
    params = small | {"n_iter_no_change": np.inf, "early_stopping": early_stopping}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        est = estimator(**params).fit(X, y)
    assert est.n_iter_ == est.max_iter
    with pytest.warns(ConvergenceWarning, match="Maximum iterations"):  # patience that is only long is none
        est.set_params(n_iter_no_change=10_000).fit(X, y)


@pytest.mark.parametrize("estimator, y", [(MLPClassifier, Y), (MLPRegressor, Y.astype(float))])
def test_the_last_of_equally_good_epochs(small, estimator, y):
    """With a rate of nearly nothing all epochs tie: the first weights, or the last ones."""
    params = small | {"learning_rate_init": 1e-12, "monitor": lambda est, X, y: 0.5, "max_iter": 4}
    kept = {}
    for restore in (True, "last", False):
        weights = []
        keep = [lambda info, seen=weights: seen.append(parity.weights(info.estimator).copy())]
        est = estimator(restore_best=restore, callbacks=keep, **params)
        kept[restore] = parity.weights(est.fit(X, y, X_val=X, y_val=y)), weights
    np.testing.assert_array_equal(kept[True][0], kept[True][1][0])
    np.testing.assert_array_equal(kept["last"][0], kept["last"][1][-1])
    np.testing.assert_array_equal(kept["last"][0], kept[False][0])


def test_weight_decay_by_a_schedule(small):
    """A decay that is over at once is none; one that ends after half of the steps has been one."""
    params = small | {"weight_decay": 0.5, "n_iter_no_change": np.inf}
    none, over, half, whole = (
        MLPClassifier(**params | changes).fit(X, Y)
        for changes in (
            {"weight_decay": 0.0},
            {"weight_decay_schedule": lambda p: 0},
            {"weight_decay_schedule": lambda p: p < 0.5},
            {},
        )
    )
    parity.assert_identical_models(over, none)
    sizes = [np.linalg.norm(parity.weights(est)) for est in (whole, half, none)]
    assert sizes[0] < sizes[1] < sizes[2]


# ------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("how", ["fit", "partial_fit"])
def test_engines_are_told_of_the_dropout_of_each_step(small, how, monkeypatch):
    """80 rows in batches of 32 are three steps an epoch; max_iter epochs take the share from 1 to 0."""
    told, train_epoch = [], reference.train_epoch

    def listening(workspace, params, data, order, batch_size, alpha, optimizer, **options):
        if order.ndim == 1:  # the reference takes several epochs one by one
            told.append(optimizer.dropouts(3))
        return train_epoch(workspace, params, data, order, batch_size, alpha, optimizer, **options)

    monkeypatch.setattr(reference, "train_epoch", listening)
    params = small | {"backend": "reference", "batch_size": 32, "max_iter": 4, "n_iter_no_change": np.inf}
    est = MLPRegressor(dropout_schedule=lambda p: 1 - p, input_dropout=0.1, **params)
    for _ in range(1 if how == "fit" else 4):
        getattr(est, how)(X, Y.astype(float))
    np.testing.assert_allclose(np.concatenate(told), 1 - np.arange(12) / 12, rtol=1e-12)
    MLPRegressor(dropout_schedule=lambda p: 1 - p, **params).fit(X, Y.astype(float))
    assert told[4:] == [None] * 4  # nothing is dropped, so there is nothing to lower


def test_dropout_by_a_schedule(small):
    """A share of 0 drops nothing, one of a half is half the rate; without shuffles the masks' key changes no draw."""
    params = small | {"backend": "reference", "shuffle": False, "batch_size": 20}
    none, over = (MLPClassifier(**params | changes).fit(X, Y) for changes in (
        {}, {"dropout": 0.5, "input_dropout": 0.2, "dropout_schedule": lambda p: 0}
    ))  # fmt: skip
    parity.assert_identical_models(over, none)
    whole, quarter, half = (MLPClassifier(**params | changes).fit(X, Y) for changes in (
        {"dropout": 0.5}, {"dropout": 0.25}, {"dropout": 0.5, "dropout_schedule": lambda p: 0.5}
    ))  # fmt: skip
    parity.assert_identical_models(half, quarter)
    assert not np.array_equal(parity.weights(half), parity.weights(whole))


@pytest.mark.parametrize("rates", [{"dropout": 0.4}, {"dropout": (0.0, 0.5)}, {"input_dropout": 0.2}])
def test_dropout_is_reproducible_and_off_in_predict(small, rates):
    params = small | rates
    first, again = (MLPClassifier(**params).fit(X, Y) for _ in range(2))
    parity.assert_identical_models(first, again)
    np.testing.assert_array_equal(first.predict_proba(X), first.predict_proba(X))
    other = MLPClassifier(**params | {"random_state": 1}).fit(X, Y)
    assert not np.allclose(parity.weights(first), parity.weights(other))
    assert not np.allclose(parity.weights(first), parity.weights(MLPClassifier(**small).fit(X, Y)))
    same_weights = MLPClassifier(**small).fit(X, Y)
    for name in ("coefs_", "intercepts_"):
        setattr(same_weights, name, getattr(first, name))
    np.testing.assert_array_equal(first.predict_proba(X), same_weights.predict_proba(X))


def test_no_dropout_draws_no_seed(small):
    """The random stream is scikit-learn's unless dropout is used; then it is eight bytes longer."""
    plain = MLPClassifier(dropout=(0.0, 0.0), **small).fit(X, Y)
    parity.assert_identical_models(plain, MLPClassifier(**small).fit(X, Y))
    state = np.random.RandomState(0)
    no_shuffle = small | {"shuffle": False, "max_iter": 1}
    MLPClassifier(**no_shuffle | {"random_state": state}).fit(X, Y)
    state.bytes(8)
    with_dropout = np.random.RandomState(0)
    MLPClassifier(dropout=0.5, **no_shuffle | {"random_state": with_dropout}).fit(X, Y)
    assert with_dropout.randint(1 << 30) == state.randint(1 << 30)


def test_partial_fit_goes_on_with_the_masks_of_fit(small):
    """Ten epochs at once, or one by one: the same weights."""
    params = small | {"dropout": 0.3, "batch_norm": True, "shuffle": False, "activation": "prelu"}
    whole = MLPClassifier(**params | {"max_iter": 10}).fit(X, Y)
    parts = MLPClassifier(**params)
    for _ in range(10):
        parts.partial_fit(X, Y, classes=[0, 1, 2])
    np.testing.assert_array_equal(parity.weights(whole), parity.weights(parts))
    np.testing.assert_array_equal(whole.bn_vars_[1], parts.bn_vars_[1])
    parts.partial_fit(X, Y)
    assert not np.array_equal(parity.weights(whole), parity.weights(parts))


def test_warm_starts_draw_other_masks(small):
    params = small | {"dropout": 0.5, "warm_start": True, "max_iter": 1, "shuffle": False}
    est = MLPClassifier(**params).fit(X, Y)
    seeds = {est._training.dropout_seed}
    for _ in range(3):
        seeds.add(est.fit(X, Y)._training.dropout_seed)
    assert len(seeds) == 4


# ------------------------------------------------------------------------------ units that learn: batch norm and prelu

UNITS = ("bn_scales_", "bn_shifts_", "bn_means_", "bn_vars_", "prelu_slopes_")


def unit_forward(est, X):
    """The network as its attributes describe it."""
    a = X
    for i in range(len(est.coefs_) - 1):
        z = a @ est.coefs_[i] + est.intercepts_[i]
        where = est.batch_norm[i] if isinstance(est.batch_norm, list) else est.batch_norm
        z = normalised(est, z, i) if where in (True, "before") else z
        a = np.where(z > 0, z, est.prelu_slopes_[i] * z)
        a = normalised(est, a, i) if where == "after" else a
    return (a @ est.coefs_[-1] + est.intercepts_[-1]).ravel()


def normalised(est, x, i):
    """What layer i's attributes make of x, (n, fan_out)."""
    return (x - est.bn_means_[i]) / np.sqrt(est.bn_vars_[i] + BATCH_NORM_EPS) * est.bn_scales_[i] + est.bn_shifts_[i]


@pytest.fixture
def with_units(small):
    return MLPRegressor(batch_norm=True, activation="prelu", **small).fit(X, Y_VALUES)


def test_batch_norm_predicts_with_running_statistics(with_units):
    est = with_units
    for name in UNITS:
        assert [a.shape for a in getattr(est, name)] == [(6,), (5,)], name
    assert all((v > 0).all() for v in est.bn_vars_)
    assert not np.allclose(est.bn_means_[0], 0) and not np.allclose(est.bn_scales_[0], 1)
    assert not np.allclose(est.prelu_slopes_[0], 0.25)
    for data in (X, X.tolist(), sp.csr_matrix(X), np.asfortranarray(X)):
        np.testing.assert_allclose(est.predict(data), unit_forward(est, X), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(est.predict(X.astype(np.float32)), unit_forward(est, X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch_norm", ["after", ["after", "before"], ["before", "after"], [False, "after"]], ids=str)
def test_batch_norm_where_it_is_asked_for(small, batch_norm, tmp_path):
    """Prediction, attributes, saved files and further training follow the placement of each layer."""
    est = MLPRegressor(batch_norm=batch_norm, activation="prelu", warm_start=True, **small).fit(X, Y_VALUES)
    layers = batch_norm if isinstance(batch_norm, list) else [batch_norm] * 2
    for name in UNITS[:4]:
        assert [a is not None for a in getattr(est, name)] == [bool(where) for where in layers], name
    np.testing.assert_allclose(est.predict(X), unit_forward(est, X), rtol=1e-9, atol=1e-12)
    est.save(tmp_path / "model.safetensors")
    twin = fastmlp.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(twin.predict(X), est.predict(X))
    np.testing.assert_array_equal(twin.fit(X, Y_VALUES).predict(X), est.fit(X, Y_VALUES).predict(X))
    est.bn_scales_[1][:] *= 1.5
    np.testing.assert_allclose(est.predict(X), unit_forward(est, X), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"batch_norm=\[True, False\], but the fitted network has batch_norm where"):
        est.set_params(batch_norm=[True, False]).fit(X, Y_VALUES)


def test_units_are_there_only_where_used(small):
    assert not any(hasattr(MLPRegressor(**small).fit(X, Y_VALUES), name) for name in UNITS)
    est = MLPRegressor(activation=["relu", "prelu"], **small).fit(X, Y_VALUES)
    assert [hasattr(est, name) for name in UNITS] == [False] * 4 + [True]
    assert est.prelu_slopes_[0] is None and est.prelu_slopes_[1].shape == (5,)
    est.set_params(activation="tanh", batch_norm=True).fit(X, Y_VALUES)
    assert [hasattr(est, name) for name in UNITS] == [True] * 4 + [False]
    deep = MLPRegressor(batch_norm=True, **small | {"hidden_layer_sizes": ()}).fit(X, Y_VALUES)
    assert not any(hasattr(deep, name) for name in UNITS)
    deep.predict(X)


@pytest.mark.parametrize("attribute", UNITS)
def test_edited_units_are_predicted_with_and_trained_on(with_units, attribute):
    est = with_units
    est.predict(X)
    getattr(est, attribute)[0][:] *= 1.5
    np.testing.assert_allclose(est.predict(X), unit_forward(est, X), rtol=1e-9, atol=1e-12)
    setattr(est, attribute, [0.5 * a for a in getattr(est, attribute)])
    np.testing.assert_allclose(est.predict(X), unit_forward(est, X), rtol=1e-9, atol=1e-12)
    getattr(est, attribute)[1] = getattr(est, attribute)[1].astype(np.float32)
    np.testing.assert_allclose(est.predict(X), unit_forward(est, X), rtol=1e-6, atol=1e-9)
    before = [a.copy() for a in getattr(est, attribute)]
    est.set_params(learning_rate_init=1e-12).partial_fit(X, Y_VALUES)
    if attribute not in ("bn_means_", "bn_vars_"):
        np.testing.assert_allclose(getattr(est, attribute)[0], before[0], atol=0.1)
    np.testing.assert_allclose(est.predict(X), unit_forward(est, X), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spoil", [lambda a: a[:-1], lambda a: a[:, None], lambda a: np.float64(1)])
def test_units_of_the_wrong_shape_are_refused(with_units, spoil):
    with_units.bn_scales_[1] = spoil(with_units.bn_scales_[1])
    with pytest.raises(ValueError, match=r"bn_scales_\[1\] must have shape \(5,\)"):
        with_units.predict(X)
    with_units.bn_scales_.pop()
    with pytest.raises(ValueError, match="bn_scales_ must hold an entry per hidden layer"):
        with_units.partial_fit(X, Y_VALUES)


@pytest.mark.parametrize("how", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy, copy.copy])
def test_copies_keep_units_as_views_of_one_vector(with_units, how):
    twin = how(with_units)
    arrays = [*twin.coefs_, *twin.intercepts_, *(a for name in UNITS for a in getattr(twin, name))]
    base = arrays[0].base
    assert all(array.base is base for array in arrays)
    assert base.size == sum(array.size for array in arrays)
    np.testing.assert_array_equal(twin.predict(X), with_units.predict(X))
    if how is not copy.copy:
        np.testing.assert_array_equal(
            twin.partial_fit(X, Y_VALUES).predict(X), with_units.partial_fit(X, Y_VALUES).predict(X)
        )


def test_warm_start_keeps_running_statistics(small):
    est = MLPRegressor(batch_norm=True, warm_start=True, **small).fit(X, Y_VALUES)
    means = [m.copy() for m in est.bn_means_]
    est.set_params(max_iter=1, learning_rate_init=1e-9).fit(X, Y_VALUES)
    np.testing.assert_allclose(est.bn_means_[0], means[0], atol=0.5 * np.abs(means[0]).max())
    assert not np.array_equal(est.bn_means_[0], means[0])
    with pytest.raises(ValueError, match="batch_norm=False, but the fitted network has"):
        est.set_params(batch_norm=False).fit(X, Y_VALUES)


def test_units_can_be_added_to_fitted_weights(small):
    est = MLPRegressor(**small | {"solver": "sgd"}).fit(X, Y_VALUES)
    before = est.coefs_[0].copy()
    est.set_params(batch_norm=True, learning_rate_init=1e-12).partial_fit(X, Y_VALUES)
    np.testing.assert_allclose(est.coefs_[0], before, atol=0.1)
    assert [s.shape for s in est.bn_scales_] == [(6,), (5,)]


def test_lbfgs_trains_prelu(small):
    est = MLPRegressor(activation="prelu", solver="lbfgs", **small | {"max_iter": 30}).fit(
        X.astype(np.float32), Y_VALUES
    )
    assert est.prelu_slopes_[0].dtype == np.float64
    assert not np.allclose(est.prelu_slopes_[0], 0.25)
    assert est.score(X, Y_VALUES) > 0.5


# ------------------------------------------------------------------------------ where training begins


@pytest.mark.parametrize("init", [*INITIALIZERS, lambda rng, fan_in, fan_out: rng.standard_normal((fan_in, fan_out))])
def test_initial_weights(small, init):
    est = MLPClassifier(init=init, **small | {"learning_rate_init": 1e-300, "max_iter": 1})
    parity.assert_identical_models(est.fit(X, Y), clone(est).fit(X, Y))
    if init not in ("auto", "pytorch"):
        assert max(np.abs(b).max() for b in est.intercepts_) < 1e-290
    if init == "orthogonal":
        np.testing.assert_allclose(est.coefs_[0].T @ est.coefs_[0], np.eye(6), atol=1e-12)


def test_training_begins_with_given_weights(small):
    rng = np.random.RandomState(0)
    shapes = [(6, 6), (6, 5), (5, 3)]
    W, b = [rng.randn(*shape) for shape in shapes], [rng.randn(shape[1]) for shape in shapes]
    frozen = small | {"learning_rate_init": 1e-300, "max_iter": 1, "alpha": 0}
    est = MLPClassifier(**frozen).fit(X, Y, coef_init=W, intercept_init=[v.tolist() for v in b])
    np.testing.assert_array_equal(parity.weights(est), np.concatenate([a.ravel() for a in (*W, *b)]))
    drawn = MLPClassifier(**frozen).fit(X, Y)
    only_weights = MLPClassifier(**frozen).fit(X, Y, coef_init=tuple(W))
    np.testing.assert_array_equal(only_weights.coefs_[1], W[1])
    np.testing.assert_array_equal(only_weights.intercepts_[1], drawn.intercepts_[1])
    some = MLPClassifier(**frozen).fit(X, Y, coef_init=[None, W[1], None], intercept_init=(b[0], None, None))
    expected = [drawn.coefs_[0], W[1], drawn.coefs_[2], b[0], drawn.intercepts_[1], drawn.intercepts_[2]]
    for array, of in zip([*some.coefs_, *some.intercepts_], expected, strict=True):
        np.testing.assert_array_equal(array, of)
    # also over the weights of a warm start
    warm = MLPClassifier(warm_start=True, **frozen).fit(X, Y).fit(X, Y, coef_init=W)
    np.testing.assert_array_equal(warm.coefs_[0], W[0])
    lbfgs = MLPClassifier(solver="lbfgs", **frozen).fit(X, Y, coef_init=W, intercept_init=b)
    assert lbfgs.loss_ < 5


BAD_STARTS = {
    "an array": (np.ones((6, 6)), r"coef_init must be a list of 3 arrays or None, one per layer, of shapes \[\(6, 6\)"),
    "too few": ([np.ones((6, 6))], "must be a list of 3 arrays"),
    "transposed": ([np.ones((6, 6)), np.ones((5, 6)), np.ones((5, 3))], r"coef_init\[1\] must have shape \(6, 5\)"),
    "words": ([np.ones((6, 6)), np.ones((6, 5)), [["a"] * 3] * 5], r"coef_init\[2\] must be an array of numbers"),
    "nan": ([np.ones((6, 6)), np.full((6, 5), np.nan), np.ones((5, 3))], r"coef_init\[1\] must be finite"),
}


@pytest.mark.parametrize("case", BAD_STARTS)
def test_bad_starts(small, case):
    given, message = BAD_STARTS[case]
    est = MLPClassifier(**small).fit(X, Y)
    before = parity.weights(est).copy()
    with pytest.raises(ValueError, match=message):
        est.fit(X, Y, coef_init=given)
    np.testing.assert_array_equal(parity.weights(est), before)
