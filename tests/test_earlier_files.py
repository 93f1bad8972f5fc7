"""Files that an earlier fastmlp wrote: they load, and training goes on from them to the weights that it would have had.

tests/data/ holds a model file or a checkpoint per case, and ``expected.npz`` with what the writer came to afterwards.
They were written by ``python tests/test_earlier_files.py`` before the training state became one object; a format that
changes later gets files of its own beside them.  Those of ``FLAT``, with ``expected_flat.npz``, were written when
`rho`, `momentum_decay` and `label_smoothing` were parameters of the constructor.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.estimator import earlier
from fastmlp.persistence import InconsistentVersionWarning
from fastmlp.saving.modelfile import ModelFileError
from fastmlp.training import checkpoint

from saved_models import reseal

DATA = Path(__file__).parent / "data"

# another instruction set rounds otherwise, and some epochs enlarge that
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}

_rng = np.random.RandomState(0)
X = _rng.normal(size=(40, 3))
LABELS = (X @ _rng.normal(size=(3, 3))).argmax(axis=1)
VALUES = np.sin(X[:, 0]) + X[:, 1]

SMALL = {"hidden_layer_sizes": (4,), "batch_size": 8, "max_iter": 6, "random_state": 0, "learning_rate_init": 0.01}
UNITS = {"batch_norm": True, "dropout": 0.2, "input_dropout": 0.1, "activation": "prelu"}
EARLY = {"early_stopping": True, "validation_fraction": 0.25}
INVSCALING = {"solver": "sgd", "learning_rate": "invscaling"}
ADAPTIVE = {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1}
PLATEAU = {"solver": "nadam", "learning_rate": ("plateau", {"patience": 0.0, "factor": 0.5})}

#: Model file -> (class, parameters, how it was trained before it was saved and is trained after).
MODELS = {
    "adam": (MLPClassifier, {}, ("fit", "partial_fit")),
    "sgd": (MLPClassifier, INVSCALING, ("fit", "partial_fit")),
    "adaptive": (MLPRegressor, ADAPTIVE, ("fit", "partial_fit")),
    "plateau": (MLPRegressor, PLATEAU, ("partial_fit", "partial_fit")),
    "units": (MLPClassifier, UNITS, ("partial_fit", "partial_fit")),
    "early_stopping": (MLPClassifier, EARLY | {"warm_start": True}, ("fit", "fit")),
    "interrupted": (MLPRegressor, EARLY | {"warm_start": True, "monitor": "loss"}, ("interrupted", "fit")),
    "lbfgs": (MLPRegressor, {"solver": "lbfgs"}, ("fit", "fit")),
}

#: Checkpoint -> (class, parameters); written after the third epoch of six.
CHECKPOINTS = {
    "adam": (MLPClassifier, {}),
    "adaptive": (MLPRegressor, ADAPTIVE),
    "units": (MLPClassifier, UNITS | {"solver": "adamw", "l1_ratio": 0.3}),
    "early_stopping": (MLPClassifier, EARLY | {"solver": "sgd"}),
    "by_loss": (MLPRegressor, EARLY | PLATEAU | {"monitor": "loss", "n_iter_no_change": 2}),
}

RHO, DECAY = ("rmsprop", {"rho": 0.5}), ("nadam", {"momentum_decay": 0.3})
SMOOTHED = ("log_loss", {"label_smoothing": 0.2})

#: The same with parameters that have moved since, as they are written now.
FLAT = {
    "rho": (MLPRegressor, {"solver": RHO}, ("partial_fit", "partial_fit")),
    "momentum_decay": (MLPClassifier, {"solver": DECAY}, ("partial_fit", "partial_fit")),
    "label_smoothing": (MLPClassifier, {"loss": SMOOTHED, "warm_start": True}, ("fit", "fit")),
}
FLAT_CHECKPOINTS = {
    "flat": (MLPClassifier, {"solver": ("adadelta", {"rho": 0.5}), "loss": SMOOTHED, "learning_rate_init": 1.0}),
}


def made(cls, parameters, **more):
    return cls(**SMALL | parameters | more)


def target(estimator):
    return LABELS if isinstance(estimator, MLPClassifier) else VALUES


def train(estimator, how, **more):
    """Train on: a whole fit, three epochs, or a fit that a callback ends with an exception after three epochs."""
    y = target(estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if how == "fit":
            return estimator.fit(X, y, **more)
        if how == "partial_fit":
            first = {"classes": [0, 1, 2]} if isinstance(estimator, MLPClassifier) else {}
            for _ in range(3):
                estimator.partial_fit(X, y, **first)
            return estimator
        with pytest.raises(ZeroDivisionError):
            estimator.set_params(callbacks=[lambda info: info.epoch == 3 and 1 / 0]).fit(X, y)
        return estimator.set_params(callbacks=None)


def outcome(estimator):
    """What a training has come to: weights, curves, and what is counted."""
    arrays = [*estimator.coefs_, *estimator.intercepts_]
    for name in ("bn_scales_", "bn_shifts_", "bn_means_", "bn_vars_", "prelu_slopes_"):
        arrays += getattr(estimator, name, [])
    names = ("t_", "n_iter_", "loss_", "best_loss_", "best_validation_score_")
    numbers = [getattr(estimator, name, None) for name in names]
    curves = [
        getattr(estimator, name, None) for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_")
    ]
    rates = getattr(estimator, "history_", {"learning_rate": ()})["learning_rate"]
    return {
        "weights": np.concatenate([np.ravel(array) for array in arrays]),
        "numbers": np.array([np.nan if number is None else number for number in numbers], dtype=np.float64),
        "curves": np.concatenate([np.array(() if curve is None else curve) for curve in (*curves, rates)]),
        "predictions": estimator.predict_proba(X) if isinstance(estimator, MLPClassifier) else estimator.predict(X),
    }


def save_midway(path):
    """A callback that keeps a checkpoint of the third epoch."""
    return lambda info: checkpoint.save(path, info.snapshot()) if info.epoch == 3 else None


def expected(kind, name):
    of = "expected_flat.npz" if name in FLAT | FLAT_CHECKPOINTS else "expected.npz"
    with np.load(DATA / of) as archive:
        start = f"{kind}/{name}/"
        return {key.removeprefix(start): archive[key] for key in archive.files if key.startswith(start)}


def assert_same(got, wanted, close):
    """The same bits, or as close as another instruction set comes."""
    assert got.keys() == wanted.keys()
    for what in got:
        if close:
            np.testing.assert_allclose(got[what], wanted[what], **TOLERANCE, err_msg=what)
        else:
            np.testing.assert_array_equal(got[what], wanted[what], err_msg=what)


@pytest.mark.parametrize("name", MODELS | FLAT)
def test_models_of_earlier_files_go_on(name):
    cls, parameters, (_, after) = (MODELS | FLAT)[name]
    model = fastmlp.load(DATA / f"{name}.safetensors")
    assert repr(model) == repr(made(cls, parameters))  # what has moved is where it belongs now
    assert_same(outcome(model), expected("saved", name), close=True)
    train(model, after)
    assert_same(outcome(model), expected("gone_on", name), close=True)


@pytest.mark.parametrize("name", MODELS | FLAT)
def test_models_saved_now_go_on_to_the_same_bits(name, tmp_path):
    cls, parameters, (before, after) = (MODELS | FLAT)[name]
    model = train(made(cls, parameters), before)
    model.save(tmp_path / "now.safetensors", optimizer_state=True)
    again = fastmlp.load(tmp_path / "now.safetensors")
    assert_same(outcome(train(again, after)), outcome(train(model, after)), close=False)


@pytest.mark.parametrize("name", CHECKPOINTS | FLAT_CHECKPOINTS)
def test_earlier_checkpoints_are_resumed(name):
    estimator = made(*(CHECKPOINTS | FLAT_CHECKPOINTS)[name])
    resumed = train(estimator, "fit", resume_from=DATA / f"{name}.npz")
    assert_same(outcome(resumed), expected("resumed", name), close=True)


@pytest.mark.parametrize("name", CHECKPOINTS | FLAT_CHECKPOINTS)
def test_checkpoints_made_now_are_resumed_to_the_same_bits(name, tmp_path):
    cls, parameters = (CHECKPOINTS | FLAT_CHECKPOINTS)[name]
    whole = train(made(cls, parameters, callbacks=[save_midway(tmp_path / "now.npz")]), "fit")
    resumed = train(made(cls, parameters), "fit", resume_from=tmp_path / "now.npz")
    assert_same(outcome(resumed), outcome(whole), close=False)


# --- parameters of files that have moved since ------------------------------------------------------------------------

MOVED = [
    ({"solver": "rmsprop", "rho": 0.5}, {"solver": ("rmsprop", {"rho": 0.5})}),
    ({"solver": "adadelta", "rho": 0.9}, {"solver": ("adadelta", {"rho": 0.9})}),
    ({"solver": "rmsprop", "rho": None}, {"solver": "rmsprop"}),
    ({"solver": "rmsprop"}, {"solver": "rmsprop"}),
    ({"solver": "adam", "rho": 0.5}, {"solver": "adam"}),
    ({"solver": "lbfgs", "rho": 0.5, "momentum_decay": 0.1}, {"solver": "lbfgs"}),
    ({"solver": "nadam", "momentum_decay": 0.1}, {"solver": ("nadam", {"momentum_decay": 0.1})}),
    ({"solver": "nadam", "momentum_decay": 4e-3}, {"solver": "nadam"}),
    ({"loss": "log_loss", "label_smoothing": 0.1}, {"loss": ("log_loss", {"label_smoothing": 0.1})}),
    ({"loss": ("log_loss", {"label_smoothing": 0.2}), "label_smoothing": 0.1}, {"loss": SMOOTHED}),
    ({"loss": ("log_loss", {}), "label_smoothing": 0.2}, {"loss": SMOOTHED}),
    ({"loss": "log_loss", "label_smoothing": 0.0}, {"loss": "log_loss"}),
    ({"loss": ("focal", {"gamma": 1.0}), "label_smoothing": 0.1}, {"loss": ("focal", {"gamma": 1.0})}),
    ({"label_smoothing": 0.1, "rho": 0.5}, {}),
]


@pytest.mark.parametrize(("in_file", "now"), MOVED, ids=str)
def test_where_parameters_have_moved(in_file, now):
    assert earlier.migrated({"alpha": 0.1, **in_file}) == {"alpha": 0.1, **now}


@pytest.mark.parametrize(("pickled", "now"), MOVED[:-1], ids=str)  # the last one has no choice, as every estimator
@pytest.mark.parametrize("number", [float, np.float64])
def test_where_parameters_of_pickles_have_moved(pickled, now, number):
    given = {name: number(value) if isinstance(value, float) else value for name, value in pickled.items()}
    again = MLPClassifier.__new__(MLPClassifier)
    with pytest.warns(InconsistentVersionWarning, match="fastmlp 0.0.9"):
        again.__setstate__(MLPClassifier().__getstate__() | {"_fastmlp_version": "0.0.9"} | given)
    expected = MLPClassifier().get_params(deep=False) | now
    assert again.get_params(deep=False) == expected and vars(again).keys() == expected.keys()


@pytest.mark.parametrize(
    "parameters",
    [{"solver": "rmsprop", "rho": "high"}, {"loss": "log_loss", "label_smoothing": [0.1]}, {"rho": True}],
    ids=str,
)
def test_moved_parameters_are_numbers(parameters):
    with pytest.raises(ValueError, match="must be a number, got"):
        earlier.migrated({"solver": "rmsprop", **parameters})


@pytest.mark.parametrize("rho", [1.5, -0.1])
def test_moved_parameters_are_in_their_range(rho, tmp_path):
    path = tmp_path / "rho.safetensors"
    path.write_bytes((DATA / "rho.safetensors").read_bytes())
    reseal(path, lambda header, tensors: header["parameters"].update(rho=rho))
    with pytest.raises(ModelFileError, match=rf"parameters: solver=.*rho must be in \[0, 1\), got {rho}"):
        fastmlp.load(path)


def write_all(folder):
    """Write the files and what comes after them."""
    found = {}
    folder.mkdir(exist_ok=True)
    for name, (cls, parameters, (before, after)) in MODELS.items():
        model = train(made(cls, parameters), before)
        model.save(folder / f"{name}.safetensors", optimizer_state=True)
        found |= {f"saved/{name}/{what}": array for what, array in outcome(model).items()}
        found |= {f"gone_on/{name}/{what}": array for what, array in outcome(train(model, after)).items()}
    for name, (cls, parameters) in CHECKPOINTS.items():
        model = train(made(cls, parameters, callbacks=[save_midway(folder / f"{name}.npz")]), "fit")
        found |= {f"resumed/{name}/{what}": array for what, array in outcome(model).items()}
    np.savez_compressed(folder / "expected.npz", **found)


if __name__ == "__main__":
    write_all(DATA)
