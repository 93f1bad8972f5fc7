"""Conversion from and to scikit-learn: parameters, weights, and that training goes on as the other's would."""

import copy
import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context, neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import fastmlp
from fastmlp import MLPClassifier

from tiers import each_value_once, label

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(90, 6, n_informative=4, n_classes=3, random_state=0)
TWO = Y % 2
LABELS = make_multilabel_classification(90, 6, n_classes=3, random_state=0)
VALUES = make_regression(90, 6, n_targets=2, random_state=0)[1] / 100

#: name -> (class, parameters, y); between them every solver, schedule, task and link of scikit-learn.
CASES = {
    "adam, three classes": ("MLPClassifier", {"solver": "adam", "hidden_layer_sizes": (5, 4)}, Y),
    "adam, labels": ("MLPClassifier", {"solver": "adam", "activation": "logistic"}, LABELS[1]),
    "adam, no hidden layer": ("MLPClassifier", {"solver": "adam", "hidden_layer_sizes": ()}, TWO),
    "adam, RandomState": ("MLPRegressor", {"solver": "adam", "random_state": np.random.RandomState(4)}, VALUES),
    "nesterov, text": ("MLPClassifier", {"solver": "sgd"}, np.array(["no", "yes!"])[TWO]),
    "momentum, invscaling": (
        "MLPRegressor",
        {"solver": "sgd", "nesterovs_momentum": False, "learning_rate": "invscaling", "power_t": 0.3},
        VALUES,
    ),
    "plain sgd, adaptive": (
        "MLPClassifier",
        {"solver": "sgd", "momentum": 0.0, "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1},
        Y,
    ),
    "poisson": ("MLPRegressor", {"loss": "poisson", "learning_rate_init": 1e-3}, np.abs(VALUES[:, 0])),
    "lbfgs": ("MLPRegressor", {"solver": "lbfgs", "activation": "tanh"}, VALUES[:, 0]),
}
GIVEN = {"hidden_layer_sizes": (5,), "max_iter": 8, "random_state": 0, "batch_size": 25, "learning_rate_init": 0.01}


def make(module, name, parameters):
    return getattr(module, name)(**copy.deepcopy(GIVEN | parameters))


def assert_same_weights(a, b, rtol=1e-6, atol=1e-9):
    for ours, theirs in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)
        assert ours.dtype == theirs.dtype


def outputs(estimator, rows=X):
    return estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else estimator.predict(rows)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


# --- from scikit-learn ------------------------------------------------------------------------------------------------


def test_parameters_and_attributes_come_along(case):
    name, parameters, y = case
    theirs = make(neural_network, name, parameters).fit(X, y)
    ours = fastmlp.from_sklearn(theirs)
    assert type(ours) is getattr(fastmlp, name)
    for parameter, value in theirs.get_params().items():
        if parameter != "random_state":
            assert ours.get_params()[parameter] == value
    for attribute in (each for each in vars(theirs) if each.endswith("_") and each not in ("coefs_", "intercepts_")):
        np.testing.assert_equal(getattr(ours, attribute), getattr(theirs, attribute))
    assert_same_weights(ours, theirs, rtol=0, atol=0)
    np.testing.assert_allclose(outputs(ours), outputs(theirs), rtol=1e-10)
    assert (ours.predict(X) == theirs.predict(X)).all() or name == "MLPRegressor"


def test_predictions_are_those_of_the_weights(case):
    name, parameters, y = case
    theirs = make(neural_network, name, parameters).fit(X, y)
    by_hand = make(fastmlp, name, parameters).fit(X, y)
    by_hand.coefs_ = [W.copy() for W in theirs.coefs_]
    by_hand.intercepts_ = [b.copy() for b in theirs.intercepts_]
    assert (outputs(fastmlp.from_sklearn(theirs)) == outputs(by_hand)).all()


def test_partial_fit_goes_on_as_theirs(case):
    name, parameters, y = case
    theirs = make(neural_network, name, parameters).fit(X, y)
    ours = fastmlp.from_sklearn(theirs)
    for _ in range(5):
        ours.partial_fit(X, y)
        theirs.partial_fit(X, y)
    assert_same_weights(ours, theirs)
    if ours.solver != "lbfgs":
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
        assert (ours.n_iter_, ours.t_) == (theirs.n_iter_, theirs.t_)
        assert ours._training.stopping.count == theirs._no_improvement_count


@each_value_once
@pytest.mark.parametrize("early_stopping", [False, True])
def test_warm_starts_go_on_as_theirs(case, early_stopping):
    name, parameters, y = case
    settings = parameters | {"warm_start": True, "n_iter_no_change": 3}
    if parameters.get("solver") != "lbfgs":
        settings["early_stopping"] = early_stopping
    theirs = make(neural_network, name, settings).fit(X, y)
    ours = fastmlp.from_sklearn(theirs)
    for _ in range(2):
        ours.fit(X, y)
        theirs.fit(X, y)
        assert_same_weights(ours, theirs)
        assert ours.n_iter_ == theirs.n_iter_
    if early_stopping and ours.solver != "lbfgs":
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-9)
        assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
        assert len(ours.history_["score"]) == len(ours.history_["loss"]) == len(theirs.loss_curve_)


def test_a_new_fit_is_theirs(case):
    name, parameters, y = case
    theirs = make(neural_network, name, parameters)
    ours = fastmlp.from_sklearn(theirs)  # not fitted
    assert not hasattr(ours, "coefs_") and "coefs_" not in vars(theirs)
    assert_same_weights(ours.fit(X, y), theirs.fit(X, y))


def test_history_has_what_is_known():
    theirs = make(neural_network, "MLPClassifier", {"early_stopping": True}).fit(X, Y)
    history = fastmlp.from_sklearn(theirs).history_
    assert history["loss"] == theirs.loss_curve_ and history["score"] == theirs.validation_scores_
    assert np.isnan(history["seconds"]).all() and len(history["seconds"]) == theirs.n_iter_
    assert np.isnan(fastmlp.from_sklearn(make(neural_network, "MLPRegressor", {}).fit(X, Y)).history_["score"]).all()


def test_nothing_is_shared():
    theirs = make(neural_network, "MLPClassifier", {"random_state": np.random.RandomState(0)}).fit(X, Y)
    before = pickle.dumps(theirs)
    ours = fastmlp.from_sklearn(theirs)
    ours.partial_fit(X, Y)
    assert pickle.dumps(theirs) == before
    back = ours.to_sklearn()
    kept = outputs(ours)
    back.partial_fit(X, Y)
    assert (outputs(ours) == kept).all()


def test_float32_and_names_come_along():
    rows = pd.DataFrame(X.astype(np.float32), columns=list("abcdef"))
    theirs = make(neural_network, "MLPClassifier", {}).fit(rows, Y)
    ours = fastmlp.from_sklearn(theirs)
    assert ours.coefs_[0].dtype == np.float32 and ours.feature_names_in_.tolist() == list("abcdef")
    np.testing.assert_allclose(ours.predict_proba(rows), theirs.predict_proba(rows), rtol=1e-4)
    ours.partial_fit(rows, Y)
    theirs.partial_fit(rows, Y)
    assert_same_weights(ours, theirs, rtol=1e-3, atol=1e-5)


def test_best_weights_of_an_interrupted_fit_are_not_the_present_ones():
    theirs = make(neural_network, "MLPClassifier", {"early_stopping": True, "warm_start": True}).fit(X, Y)
    theirs.coefs_, theirs.intercepts_ = [W * 2 for W in theirs.coefs_], [b + 1 for b in theirs.intercepts_]
    theirs.best_validation_score_ = 2.0  # which no epoch to come reaches
    ours = fastmlp.from_sklearn(theirs)
    ours.fit(X, Y), theirs.fit(X, Y)
    assert_same_weights(ours, theirs)


# --- to scikit-learn --------------------------------------------------------------------------------------------------


def test_there_and_back(case):
    name, parameters, y = case
    ours = make(fastmlp, name, parameters).fit(X, y)
    theirs = ours.to_sklearn()
    assert type(theirs) is getattr(neural_network, name)
    for parameter, value in theirs.get_params().items():
        if parameter != "random_state":
            assert ours.get_params()[parameter] == value
    np.testing.assert_allclose(outputs(theirs), outputs(ours), rtol=1e-10)
    back = fastmlp.from_sklearn(theirs)
    assert (outputs(back) == outputs(ours)).all()
    if hasattr(ours, "partial_fit"):
        for _ in range(3):
            for each in (ours, theirs, back):
                each.partial_fit(X, y)
        assert_same_weights(theirs, ours)
        for W, other in zip(back.coefs_, ours.coefs_, strict=True):
            assert (other == W).all()


@each_value_once
@pytest.mark.parametrize("early_stopping", [False, True])
def test_their_warm_starts_go_on_as_ours(case, early_stopping):
    name, parameters, y = case
    settings = parameters | {"warm_start": True, "n_iter_no_change": 3}
    if parameters.get("solver") != "lbfgs":
        settings["early_stopping"] = early_stopping
    ours = make(fastmlp, name, settings).fit(X, y)
    theirs = ours.to_sklearn()
    for _ in range(2):
        ours.fit(X, y)
        theirs.fit(X, y)
        assert_same_weights(theirs, ours)
        assert ours.n_iter_ == theirs.n_iter_


def test_solvers_of_other_names():
    for solver, nesterov in (("momentum", False), ("nesterov", True)):
        ours = make(fastmlp, "MLPClassifier", {"solver": solver}).fit(X, Y)
        theirs = ours.to_sklearn()
        assert theirs.get_params()["solver"] == "sgd" and theirs.nesterovs_momentum is nesterov
        assert_same_weights(theirs.partial_fit(X, Y), ours.partial_fit(X, Y))


@pytest.mark.parametrize("activation", ["tanh", ["tanh", "tanh"], ("tanh", {}), [("tanh", {}), "tanh"]])
def test_one_activation_for_all_layers_however_it_is_written(activation):
    parameters = {"activation": activation, "hidden_layer_sizes": (4, 3), "backend": "reference", "n_jobs": 1}
    ours = make(fastmlp, "MLPClassifier", parameters).fit(X, Y)
    assert ours.to_sklearn().activation == "tanh"
    np.testing.assert_allclose(ours.to_sklearn().predict_proba(X), ours.predict_proba(X), rtol=1e-10)


REFUSED = [
    ("MLPClassifier", {"activation": "gelu"}, "activation='gelu'"),
    ("MLPClassifier", {"activation": ["relu", "tanh"], "hidden_layer_sizes": (3, 3)}, "one for all hidden layers"),
    ("MLPClassifier", {"activation": ("elu", {"alpha": 2.0})}, "activation="),
    ("MLPClassifier", {"activation": "prelu"}, "activation='prelu'"),
    ("MLPClassifier", {"loss": "hinge"}, "loss='hinge' is not in scikit-learn, which has \\['log_loss'\\]"),
    ("MLPRegressor", {"loss": ("huber", {"delta": 2.0})}, "loss="),
    ("MLPRegressor", {"loss": fastmlp.loss("def own(y, p): return (y - p) * (y - p)")}, "loss="),
    ("MLPClassifier", {"batch_norm": True}, "batch_norm=True"),
    ("MLPClassifier", {"batch_norm": ["after"]}, "batch_norm=\\['after'\\]"),
]


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(("name", "parameters", "message"), REFUSED, ids=[label(row[1]) for row in REFUSED])
def test_what_the_network_needs_and_they_lack_is_refused(name, parameters, message, fitted):
    ours = make(fastmlp, name, parameters)
    if fitted:
        ours.fit(X, Y)
    with pytest.raises(ValueError, match=f"to_sklearn: .*{message}"):
        ours.to_sklearn()


TRAINING_ONLY = [
    {"solver": "adamw"},
    {"learning_rate": "cosine"},
    {"learning_rate": lambda progress: 1 - progress},
    {"dropout": 0.1},
    {"dropout": [0.1]},
    {"input_dropout": 0.1},
    {"weight_decay": 0.1},
    {"max_grad_norm": 1.0},
    {"drop_last": True},
    {"l1_ratio": 0.5},
    {"init": "he_normal"},
    {"fit_intercept": False},
    {"frozen_layers": [0]},
    {"monitor": "loss"},
    {"restore_best": False},
    {"callbacks": [lambda info: False]},
    {"loss": ("log_loss", {"label_smoothing": 0.1})},
    {"solver": ("rmsprop", {"rho": 0.9})},
    {"class_weight": "balanced"},
]


@pytest.mark.parametrize("parameters", TRAINING_ONLY, ids=lambda parameters: next(iter(parameters)))
def test_what_only_training_reads_is_left_out_of_a_fitted_network(parameters):
    ours = make(fastmlp, "MLPClassifier", parameters)
    (name,) = parameters
    with pytest.raises(ValueError, match=f"scikit-learn has no {name}="):
        ours.to_sklearn()
    ours.fit(X, Y)
    with pytest.warns(UserWarning, match=f"scikit-learn has no {name}="):
        theirs = ours.to_sklearn()
    np.testing.assert_allclose(theirs.predict_proba(X), ours.predict_proba(X), rtol=1e-10)
    theirs.partial_fit(X, Y)  # its parameters are valid ones


def test_neutral_values_need_no_warning():
    neutral = {"weight_decay": 0.0, "dropout": [0.0], "callbacks": [], "n_jobs": 1}
    neutral["loss"] = ("log_loss", {"label_smoothing": 0.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make(fastmlp, "MLPClassifier", neutral).to_sklearn().solver == "adam"


def test_parameters_changed_after_fit_do_not_hide_the_network():
    ours = make(fastmlp, "MLPClassifier", {"batch_norm": True}).fit(X, Y).set_params(batch_norm=False)
    with pytest.raises(ValueError, match="batch_norm"):
        ours.to_sklearn()
    ours = make(fastmlp, "MLPClassifier", {"loss": "hinge"}).fit(X, Y).set_params(loss="log_loss")
    with pytest.raises(ValueError, match="out_activation_='identity'"):
        ours.to_sklearn()


def test_an_optimizer_of_other_weights_is_left_behind():
    ours = make(fastmlp, "MLPClassifier", {}).fit(X, Y)
    ours.coefs_ = [np.ones((6, 2)), np.ones((2, 3))]
    ours.intercepts_ = [np.zeros(2), np.zeros(3)]
    theirs = ours.to_sklearn()
    assert not hasattr(theirs, "_optimizer")
    np.testing.assert_allclose(theirs.predict_proba(X), ours.predict_proba(X))


# --- who is converted -------------------------------------------------------------------------------------------------


class Ours(MLPClassifier):
    pass


class Theirs(neural_network.MLPClassifier):
    pass


@pytest.mark.parametrize(
    ("function", "wrong", "message"),
    [
        (
            fastmlp.from_sklearn,
            Theirs(),
            "converts sklearn's MLPClassifier and sklearn's MLPRegressor, got",
        ),
        (fastmlp.from_sklearn, Theirs(), "Theirs, a subclass"),
        (fastmlp.from_sklearn, MLPClassifier(), "got fastmlp.estimators.MLPClassifier, another class"),
        (fastmlp.from_sklearn, neural_network.MLPClassifier, "another class"),
        (fastmlp.from_sklearn, None, "got builtins.NoneType"),
        (MLPClassifier.to_sklearn, Ours(), "to_sklearn converts fastmlp's MLPClassifier .*Ours, a subclass"),
    ],
)
def test_others_are_refused(function, wrong, message):
    with pytest.raises(TypeError, match=message):
        function(wrong)


# --- inside other estimators ------------------------------------------------------------------------------------------


def _mlp(module, kind="MLPClassifier", **parameters):
    given = GIVEN | {"max_iter": 3} | parameters
    return getattr(module, kind)(**given)


#: name -> (a maker of an estimator around networks of a module, y).
AROUND = {
    "pipeline": (lambda m: make_pipeline(StandardScaler(), _mlp(m)), Y),
    "nested pipelines": (
        lambda m: Pipeline([("first", make_pipeline(StandardScaler())), ("last", Pipeline([("net", _mlp(m))]))]),
        Y,
    ),
    "columns": (
        lambda m: make_pipeline(
            ColumnTransformer([("a", StandardScaler(), [0, 1]), ("b", "passthrough", [2, 3])]), _mlp(m)
        ),
        Y,
    ),
    "a lambda": (lambda m: make_pipeline(FunctionTransformer(lambda X: 2 * X), _mlp(m, "MLPRegressor")), VALUES),
    "transformed target": (
        lambda m: TransformedTargetRegressor(_mlp(m, "MLPRegressor"), transformer=StandardScaler()),
        VALUES,
    ),
    "search": (
        lambda m: GridSearchCV(make_pipeline(StandardScaler(), _mlp(m)), {"mlpclassifier__alpha": [1e-4, 1.0]}, cv=2),
        Y,
    ),
    "voting": (lambda m: VotingClassifier([("a", _mlp(m)), ("b", _mlp(m, random_state=1))], voting="soft"), Y),
    "stacking": (lambda m: StackingClassifier([("a", _mlp(m))], final_estimator=_mlp(m), cv=2), Y),
    "bagging": (lambda m: BaggingClassifier(_mlp(m), n_estimators=3, random_state=0), Y),
    "calibrated": (lambda m: CalibratedClassifierCV(_mlp(m), cv=2), Y),
    "one against the rest": (lambda m: OneVsRestClassifier(_mlp(m)), Y),
    "an output each": (lambda m: MultiOutputRegressor(_mlp(m, "MLPRegressor")), VALUES),
}


def _modules(estimator):
    """Return the packages of all networks that an estimator holds, wherever they are."""
    text = pickle.dumps(estimator)
    packages = {b"fastmlp.estimators": "fastmlp", b"sklearn.neural_network._multilayer_perceptron": "sklearn"}
    return {name for mark, name in packages.items() if mark in text}


@pytest.mark.parametrize("name", AROUND)
def test_networks_inside_other_estimators(name):
    build, y = AROUND[name]
    theirs = build(neural_network)
    to_fit = fastmlp.from_sklearn(theirs)
    theirs.fit(X, y)
    ours = fastmlp.from_sklearn(theirs)
    back = fastmlp.to_sklearn(ours)
    assert type(ours) is type(back) is type(to_fit) is type(theirs)
    if name != "a lambda":
        packages = [_modules(estimator) for estimator in (theirs, ours, back, to_fit)]
        assert packages == [{"sklearn"}, {"fastmlp"}, {"sklearn"}, {"fastmlp"}]
    for other in (ours, back, to_fit.fit(X, y)):
        np.testing.assert_allclose(outputs(other), outputs(theirs), rtol=1e-6, atol=1e-9)
    assert repr(clone(back)) == repr(clone(theirs)) or name == "a lambda"


def test_a_converted_pipeline_has_its_steps_and_shares_nothing():
    frame = pd.DataFrame(X, columns=[*"abcdef"])
    theirs = Pipeline([("scale", StandardScaler()), ("net", _mlp(neural_network))]).fit(frame, Y)
    ours = fastmlp.from_sklearn(theirs)
    assert [name for name, _ in ours.steps] == ["scale", "net"] and type(ours["net"]) is MLPClassifier
    assert type(theirs["net"]) is neural_network.MLPClassifier
    assert list(ours.feature_names_in_) == [*"abcdef"] and (ours["scale"].mean_ == theirs["scale"].mean_).all()
    before = theirs.predict_proba(frame), theirs["scale"].mean_.copy()
    ours["scale"].mean_[...], ours["net"].coefs_[0][...] = 7, 7
    assert (theirs["scale"].mean_ == before[1]).all() and (theirs.predict_proba(frame) == before[0]).all()
    search = GridSearchCV(_mlp(neural_network), {"alpha": [0.1]}, cv=2).fit(X, Y)
    assert fastmlp.from_sklearn(search).best_estimator_.alpha == 0.1
    same = _mlp(neural_network)
    voting = fastmlp.from_sklearn(VotingClassifier([("a", same), ("b", same)]))
    assert voting.estimators[0][1] is voting.estimators[1][1]


def test_requests_for_metadata_come_along():
    with config_context(enable_metadata_routing=True):
        theirs = _mlp(neural_network).set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        ours = fastmlp.from_sklearn(make_pipeline(theirs))
        ours.fit(X, TWO, sample_weight=1.0 + TWO)
        np.testing.assert_allclose(outputs(ours), outputs(clone(theirs).fit(X, TWO, 1.0 + TWO)), rtol=1e-6)
        back = fastmlp.to_sklearn(ours)[0].get_metadata_routing()
        assert back.fit.requests == {"sample_weight": True} and back.score.requests == {"sample_weight": False}
        ours[0].set_fit_request(sample_weight="w", X_val=True)
    back = fastmlp.to_sklearn(ours[0])
    with config_context(enable_metadata_routing=True):
        assert back.get_metadata_routing().fit.requests == {"sample_weight": "w"}


def test_errors_inside_other_estimators_say_where():
    with pytest.raises(TypeError, match="Theirs, a subclass") as caught:
        fastmlp.from_sklearn(make_pipeline(StandardScaler(), Theirs()))
    assert caught.value.__notes__ == ["This is about Pipeline.steps[1][1]."]
    ours = make_pipeline(MLPClassifier(activation="gelu", max_iter=1).fit(X, Y))
    with pytest.raises(ValueError, match="activation='gelu' is not in scikit-learn") as caught:
        fastmlp.to_sklearn(ours)
    assert caught.value.__notes__ == ["This is about Pipeline.steps[0][1]."]
    for function in (fastmlp.from_sklearn, fastmlp.to_sklearn):
        for wrong in (make_pipeline(StandardScaler()), StandardScaler(), make_pipeline("passthrough")):
            with pytest.raises(
                TypeError, match=f"{function.__name__} converts .*, another class, which holds none of them"
            ):
                function(wrong)
    ours = MLPClassifier(drop_last=True, max_iter=1).fit(X, Y)
    with pytest.warns(UserWarning, match="scikit-learn has no drop_last=True") as caught:
        fastmlp.to_sklearn(ours)
    assert caught[0].filename == __file__


def test_a_parameter_that_is_not_known_here_is_refused(monkeypatch):
    class Later(neural_network.MLPClassifier):
        def __init__(self, hidden_layer_sizes=(100,), brand_new=None):
            super().__init__(hidden_layer_sizes)
            self.brand_new = brand_new

    from fastmlp.saving import conversion

    monkeypatch.setitem(conversion.OURS, Later, MLPClassifier)
    assert fastmlp.from_sklearn(Later((7,))).hidden_layer_sizes == (7,)
    with pytest.raises(ValueError, match="fastmlp has no parameter brand_new, which is 3"):
        fastmlp.from_sklearn(Later(brand_new=3))


def test_an_estimator_that_is_not_fitted_stays_so():
    with pytest.raises(NotFittedError):
        fastmlp.from_sklearn(neural_network.MLPClassifier()).predict(X)
    with pytest.raises(NotFittedError):
        MLPClassifier().to_sklearn().predict(X)


# --- other ways to keep an estimator ----------------------------------------------------------------------------------

KEPT = [
    ("MLPClassifier", {}, Y),
    ("MLPClassifier", {"batch_norm": True, "activation": ["prelu"], "solver": "nadam", "dropout": 0.2}, TWO),
    ("MLPClassifier", {"solver": "sgd", "learning_rate": "adaptive", "random_state": np.random.RandomState(3)}, Y),
    ("MLPRegressor", {"loss": "poisson", "learning_rate": "cosine", "solver": "adamw"}, np.abs(VALUES)),
]


def _through_joblib(estimator):
    stream = io.BytesIO()
    joblib.dump(estimator, stream)
    stream.seek(0)
    return joblib.load(stream)


def _through_skops(estimator):
    skops = pytest.importorskip("skops.io")
    content = skops.dumps(estimator)
    types = skops.get_untrusted_types(data=content)
    assert all(name.split(".")[0] in ("fastmlp", "numpy", "sklearn") for name in types), types
    return skops.loads(content, trusted=types)


WAYS = {
    "pickle": lambda estimator: pickle.loads(pickle.dumps(estimator)),
    "joblib": _through_joblib,
    "deepcopy": copy.deepcopy,
    "skops": _through_skops,
}


@each_value_once
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "parameters", "y"), KEPT, ids=[label(row[1]) for row in KEPT])
def test_round_trips_keep_predictions_and_training(way, name, parameters, y):
    ours = make(fastmlp, name, parameters).fit(X, y)
    again = WAYS[way](ours)
    assert (outputs(again) == outputs(ours)).all()
    assert again.loss_curve_ == ours.loss_curve_
    ours.partial_fit(X, y), again.partial_fit(X, y)
    assert (outputs(again) == outputs(ours)).all()
    assert repr(clone(again)).partition("random_state")[0] == repr(clone(ours)).partition("random_state")[0]


@pytest.mark.parametrize("kept_as", [tuple, np.array])
def test_weights_of_scikit_learn_in_other_containers(kept_as):
    X = np.random.default_rng(0).normal(size=(30, 4))
    theirs = neural_network.MLPRegressor(hidden_layer_sizes=(4, 4), solver="sgd", max_iter=3, random_state=0).fit(X, X)
    theirs.coefs_, theirs.intercepts_ = kept_as(theirs.coefs_), kept_as(theirs.intercepts_)
    np.testing.assert_allclose(fastmlp.from_sklearn(theirs).predict(X), theirs.predict(X), rtol=1e-12)
