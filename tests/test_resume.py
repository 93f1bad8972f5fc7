"""Snapshots of a training: resumed, it ends at the same bits; what cannot be resumed is refused."""

import copy

import numpy as np
import pytest

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.training import checkpoint
from fastmlp.training.callbacks import Checkpoint
from fastmlp.training.optimizers import STOCHASTIC_SOLVERS
from fastmlp.training.schedules import SCHEDULES

import parity
from validated_training import (
    BACKENDS,
    GIVEN_VALUES,
    SMALL,
    V,
    X,
    Y,
)

pytestmark = [
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(params=BACKENDS)
def small(request):
    """Parameters of a small, short training."""
    return SMALL | {"backend": request.param}


def resumed(est, snapshot_at, tmp_path, fit, **changes):
    """Fit twice: uninterrupted, and from a snapshot through a file. -> (whole, resumed)."""
    taken = {}

    def keep(info):
        if info.epoch == snapshot_at:
            taken["snapshot"] = info.snapshot()

    whole = fit(copy.deepcopy(est).set_params(callbacks=[keep]))
    checkpoint.save(tmp_path / "fit.npz", taken["snapshot"])
    return whole, fit(copy.deepcopy(est).set_params(**changes), resume_from=tmp_path / "fit.npz")


def assert_same_end(a, b):
    """The same bits in everything but the clock."""
    parity.assert_identical_models(a, b)
    for name in ("t_", "loss_", "best_loss_", "validation_scores_", "best_validation_score_", "_no_improvement_count"):
        assert getattr(a, name) == getattr(b, name), name
    assert getattr(a, "validation_loss_curve_", None) == getattr(b, "validation_loss_curve_", None)
    for name in ("loss", "validation_loss", "score", "learning_rate"):
        np.testing.assert_array_equal(a.history_[name], b.history_[name])
    for name in ("bn_means_", "bn_vars_", "bn_scales_", "prelu_slopes_"):
        for ours, theirs in zip(getattr(a, name, []), getattr(b, name, []), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(a._training.optimizer.states, b._training.optimizer.states, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert a._training.optimizer.t == b._training.optimizer.t
    drawn = [copy.deepcopy(est._training.random_state).randint(1 << 30) for est in (a, b)]
    assert drawn[0] == drawn[1]


REGULARISED = {"dropout": 0.2, "input_dropout": 0.1, "batch_norm": True, "activation": "prelu", "l1_ratio": 0.3}
RESUMED = [
    *({"solver": solver, "max_grad_norm": 0.5} for solver in STOCHASTIC_SOLVERS),
    *({"learning_rate": schedule, "solver": "sgd", "tol": 0.05, "n_iter_no_change": 2} for schedule in SCHEDULES),
    REGULARISED,
    {"early_stopping": True},
    {"early_stopping": True, "random_state": None, "monitor": "loss"},
    REGULARISED | {"early_stopping": True, "solver": "adamw", "learning_rate": "one_cycle"},
    {"drop_last": True, "shuffle": False},
    {"loss": "hinge", "class_weight": "balanced"},
]


@pytest.mark.covers("params", "at small")
@pytest.mark.parametrize("params", RESUMED, ids=lambda p: "-".join(map(str, p.values()))[:60])
@pytest.mark.parametrize("at", [1, 7, 12])
def test_resumed_training_ends_at_the_same_bits(small, params, at, tmp_path):
    est = MLPClassifier(**small | {"n_iter_no_change": 50} | params)
    if est.random_state is None:
        est.random_state = np.random.RandomState(7)  # as good as None, but the first fit can be repeated
    whole, again = resumed(
        est, min(at, 1 if params.get("tol") else at), tmp_path, lambda e, **extra: e.fit(X, Y, **extra)
    )
    assert_same_end(again, whole)


def test_resumed_with_given_validation_rows_and_float32(small, tmp_path):
    est = MLPRegressor(early_stopping=True, monitor="r2", **small)

    def fit(est, **extra):
        return est.fit(X.astype(np.float32), V, np.linspace(0.5, 1, 100), **GIVEN_VALUES, **extra)

    whole, again = resumed(est, 5, tmp_path, fit)
    assert_same_end(again, whole)
    assert again.coefs_[0].dtype == np.float32


def test_without_a_seed_the_snapshot_brings_the_split_and_the_stream(small, tmp_path):
    """random_state=None: a resumed fit draws other weights and another split at first, and forgets them."""
    taken = []
    params = small | {"random_state": None, "early_stopping": True, "n_iter_no_change": 50}
    whole = MLPClassifier(callbacks=[lambda info: taken.append(info.snapshot()) if info.epoch == 6 else None], **params)
    whole.fit(X, Y)
    checkpoint.save(tmp_path / "fit.npz", taken[0])
    again = MLPClassifier(**params).fit(X, Y, resume_from=tmp_path / "fit.npz")
    np.testing.assert_array_equal(parity.weights(again), parity.weights(whole))
    assert again.validation_scores_ == whole.validation_scores_
    assert again._training.random_state is not whole._training.random_state  # that one is everybody's


def test_resumed_training_may_go_on_for_longer(small, tmp_path):
    """max_iter is not part of the training that a file holds, unless a schedule looks ahead."""
    whole = MLPClassifier(**small | {"max_iter": 20}).fit(X, Y)
    MLPClassifier(callbacks=[Checkpoint(tmp_path / "fit.npz")], **small).fit(X, Y)
    again = MLPClassifier(**small | {"max_iter": 20}).fit(X, Y, resume_from=str(tmp_path / "fit.npz"))
    assert_same_end(again, whole)


def test_finished_training_stays_finished(small, tmp_path):
    """Killed after the last checkpoint, before fit returned: resuming trains no further, and restores the best."""
    params = small | {"max_iter": 100, "early_stopping": True, "n_iter_no_change": 3}
    whole = MLPClassifier(callbacks=[Checkpoint(tmp_path / "fit.npz")], **params).fit(X, Y)
    assert whole.n_iter_ < 100
    again = MLPClassifier(**params).fit(X, Y, resume_from=tmp_path / "fit.npz")
    assert_same_end(again, whole)
    # a callback's stop is not a stopping rule: one resumes to go on
    MLPClassifier(callbacks=[lambda i: i.epoch == 2, Checkpoint(tmp_path / "fit.npz")], **params).fit(X, Y)
    again = MLPClassifier(**params).fit(X, Y, resume_from=tmp_path / "fit.npz")
    assert_same_end(again, whole)


OTHERS = {
    "layers": {"hidden_layer_sizes": (6, 4)},
    "activation": {"activation": "tanh"},
    "loss": {"loss": "focal"},
    "solver": {"solver": "sgd"},
    "batch_norm": {"batch_norm": True},
    "batch size": {"batch_size": 20},
    "validation rows": {"early_stopping": True, "restore_best": False, "validation_fraction": 0.1},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_training_cannot_be_resumed(small, what, tmp_path):
    MLPClassifier(callbacks=[Checkpoint(tmp_path / "fit.npz")], **small | {"max_iter": 2}).fit(X, Y)
    message = "training rows" if what == "validation rows" else what
    with pytest.raises(ValueError, match=f"resume_from: the saved training has {message}"):
        MLPClassifier(**small | OTHERS[what]).fit(X, Y, resume_from=tmp_path / "fit.npz")


def test_other_data_or_no_snapshot(small, tmp_path):
    path = tmp_path / "fit.npz"
    MLPClassifier(callbacks=[Checkpoint(path)], **small | {"max_iter": 2}).fit(X, Y)
    est = MLPClassifier(**small)
    for data in ((X[1:], Y[1:]), (X.astype(np.float32), Y), (X[:, 1:], Y)):
        with pytest.raises(ValueError, match=r"resume_from: the saved training has (training rows|dtype|layers)"):
            est.fit(*data, resume_from=path)
    with pytest.raises(ValueError, match="resume_from: the saved training has estimator 'MLPClassifier'"):
        MLPRegressor(**small).fit(X, V, resume_from=path)
    checkpoint.save(path, {"params": np.zeros(3)})
    with pytest.raises(ValueError, match="resume_from: this is not the snapshot of a training"):
        est.fit(X, Y, resume_from=path)
    with pytest.raises(FileNotFoundError):
        est.fit(X, Y, resume_from=tmp_path / "none.npz")
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"fit\.npz"):
        est.fit(X, Y, resume_from=path)
