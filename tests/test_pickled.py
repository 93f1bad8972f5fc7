"""Pickles of other versions: a warning, and the parameters of this version.

The states are those of this version, changed as another version would have written them.
"""

import copy
import pickle
import warnings
from dataclasses import fields

import joblib
import pytest
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, persistence
from fastmlp.estimator import pickled
from fastmlp.training.state import TrainingState

from saved_models import CASES, VALUES, X, Y, fitted, outputs

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = (MLPClassifier, MLPRegressor)


class Own(MLPClassifier):
    """A subclass of a user's, with a parameter of its own."""

    def __init__(self, note="", alpha=0.1):
        super().__init__(alpha=alpha, max_iter=3, random_state=0)
        self.note = note


def unpickled(estimator, version="0.0.7", without=(), **more):
    """Return what becomes of an estimator that another version pickled, None for no version; and the warnings."""
    state = {name: value for name, value in estimator.__getstate__().items() if name not in without} | more
    state.pop(pickled.VERSION)
    if version is not None:
        state[pickled.VERSION] = version
    given = dict(state)
    again = type(estimator).__new__(type(estimator))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again.__setstate__(pickle.loads(pickle.dumps(state)))
    assert state.keys() == given.keys()
    return again, caught


@pytest.mark.parametrize("name", CASES)
def test_this_version_needs_no_warning(name):
    model = fitted(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
            assert vars(again).keys() - {"_idle_predictions"} == vars(model).keys() - {"_idle_predictions"}
            assert (outputs(again) == outputs(model)).all()
        clone(model)


@pytest.mark.parametrize("version", ["0.0.7", "99.1", "0.1.0.dev3", None])
@pytest.mark.parametrize("name", ["defaults", "everything", "formula", "lbfgs"])
def test_another_version_warns_and_goes_on(name, version):
    model = fitted(name)
    again, (caught,) = unpickled(model, version)
    assert issubclass(caught.category, InconsistentVersionWarning)
    assert isinstance(caught.message, persistence.InconsistentVersionWarning)
    original = version or "0.1.0 or earlier"
    assert caught.message.original_fastmlp_version == original
    assert caught.message.current_fastmlp_version == fastmlp.__version__
    text = f"{type(model).__name__} was pickled by fastmlp {original}, this is fastmlp {fastmlp.__version__}: "
    assert str(caught.message).startswith(text) and "lacked" not in str(caught.message)
    assert (outputs(again) == outputs(model)).all()
    if name != "lbfgs":
        y = CASES[name][2]
        again.set_params(early_stopping=False).partial_fit(X, y)
        assert (outputs(again) == outputs(model.set_params(early_stopping=False).partial_fit(X, y))).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(again))  # it is of this version now


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_missing_parameters_get_their_defaults(cls):
    y = Y if cls is MLPClassifier else VALUES
    for name, default in cls().get_params(deep=False).items():
        model = cls(hidden_layer_sizes=(4,), max_iter=2, random_state=0).fit(X, y)
        again, (caught,) = unpickled(model, without=(name,))
        assert f" It lacked the parameters {name}, which have their defaults now." in str(caught.message)
        assert name in vars(again)
        assert repr(getattr(again, name)) == repr(default)
        assert (outputs(again) == outputs(model)).all()
        assert repr(clone(again)) and again.set_params(max_iter=2).fit(X, y)
    unfitted, _ = unpickled(cls(alpha=0.3), without=("backend", "solver", "n_jobs"))
    assert repr(unfitted) == repr(cls(alpha=0.3))


def test_parameters_of_a_newer_version_are_named():
    model = fitted("defaults")
    again, (caught,) = unpickled(model, "9.0", brand_new=3, other=[1], fitted_=1, _private=2, without=("dropout",))
    assert "It lacked the parameters dropout," in str(caught.message)
    assert "This version does not know brand_new, other, and ignores it." in str(caught.message)
    assert (outputs(again) == outputs(model)).all() and again.brand_new == 3
    assert "brand_new" not in repr(clone(again))


def test_a_training_without_what_came_later():
    for entry in fields(TrainingState):
        model = fitted("early stopping")
        state = model._training
        old = TrainingState.__new__(TrainingState)
        vars(old).update({name: value for name, value in vars(state).items() if name != entry.name}, unknown=1)
        again, _ = unpickled(model, _training=old)
        assert vars(again._training).keys() == vars(state).keys()
        again.set_params(early_stopping=False).partial_fit(X, Y)


def test_pipelines_and_joblib(tmp_path, monkeypatch):
    model = make_pipeline(StandardScaler(), MLPClassifier(max_iter=2, random_state=0)).fit(X, Y)
    monkeypatch.setattr(pickled, "__version__", "0.0.3")
    joblib.dump(model, tmp_path / "model")
    monkeypatch.undo()
    with pytest.warns(persistence.InconsistentVersionWarning, match=r"fastmlp 0\.0\.3"):
        again = joblib.load(tmp_path / "model")
    assert (again.predict(X) == model.predict(X)).all()


def test_subclasses_have_their_own_parameters():
    model = Own(note="mine").fit(X, Y)
    again, (caught,) = unpickled(model, without=("alpha", "note"))
    assert "lacked the parameters alpha, note," in str(caught.message)
    assert (again.alpha, again.note) == (0.1, "")
    assert (outputs(again) == outputs(model)).all()
