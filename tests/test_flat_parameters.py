"""Parameters of choices under flat names: loss__gamma and the like, through get_params, set_params and searches."""

import json

import numpy as np
import pytest
from scipy.stats import uniform
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier as Original
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.data.targets import CLASSIFIER_LOSSES
from fastmlp.estimator import flat_parameters
from fastmlp.estimator.flat_parameters import TABLES

import parity
from small_training import SMALL, X, Y

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FOCAL = ("focal", {"gamma": 1.5})


def estimator_of(argument, name):
    """The class that has such a choice."""
    return MLPClassifier if argument != "loss" or name in CLASSIFIER_LOSSES else MLPRegressor


# every parameter of every choice that a user can make: (argument, name, parameter, a value in its range)
PARAMETERS = [
    (argument, name, parameter, 0.125)
    for argument, table in TABLES.items()
    for name, row in table.items()
    if getattr(row, "hidden", True) and not name.startswith("binary_")
    for parameter in row.parameters
]
IN_RANGE = {"lower": 0.1, "step_size": 2.0, "T_mult": 2.0, "T_0": 3.0, "div_factor": 4.0, "final_div_factor": 5.0}


def flat(estimator):
    return {name: value for name, value in estimator.get_params().items() if "__" in name}


@pytest.mark.parametrize("argument, name, parameter, value", PARAMETERS)
def test_every_parameter_is_set_flat(argument, name, parameter, value):
    value = IN_RANGE.get(parameter, value)
    key, cls = f"{argument}__{parameter}", estimator_of(argument, name)
    for order in ({argument: name, key: value}, {key: value, argument: name}):
        est = cls().set_params(**order)
        assert getattr(est, argument) == (name, {parameter: value})
        assert est.get_params()[key] == value
    est._validate_params()
    copy = clone(est)
    assert getattr(copy, argument) == (name, {parameter: value}) and repr(copy) == repr(est)


@pytest.mark.parametrize("argument, name, parameter, value", PARAMETERS)
def test_defaults_of_the_present_choice_are_listed(argument, name, parameter, value):
    est = estimator_of(argument, name)(**{argument: name})
    default = TABLES[argument][name].parameters[parameter]
    is_default = name == type(est)().get_params()[argument]
    if is_default or parameter in flat_parameters.LEFT_TO_CONSTRUCTOR.get(argument, ()):
        assert f"{argument}__{parameter}" not in est.get_params()
    else:
        assert est.get_params()[f"{argument}__{parameter}"] == default
    # what is set to what it is stays a name: a search over the default gives the estimator that a user would write
    assert getattr(est.set_params(**{f"{argument}__{parameter}": default}), argument) == name


def test_left_to_the_constructor_are_its_parameters():
    for argument, names in flat_parameters.LEFT_TO_CONSTRUCTOR.items():
        of_rows = {parameter for row in TABLES[argument].values() for parameter in row.parameters}
        assert set(names) <= of_rows & MLPClassifier().get_params(deep=False).keys()


CHOICES = {
    "names": {"loss": "focal", "activation": "elu", "solver": "rmsprop", "learning_rate": "step"},
    "pairs": {"loss": FOCAL, "activation": ("elu", {"alpha": 2}), "solver": ("adam", {"beta_1": 0.5})},
    "lists": {"loss": ["focal", {"gamma": 1.5}], "learning_rate": ["one_cycle", {"max_lr": None}]},
    "per layer": {"activation": ["relu", ("elu", {"alpha": 2.0})], "hidden_layer_sizes": (3, 3)},
    "functions": {"learning_rate": lambda progress: 1.0},
    "nonsense": {"loss": 3, "activation": None, "solver": ("adamax", {"rho": 1}), "learning_rate": "never"},
}


@pytest.mark.parametrize("params", CHOICES.values(), ids=CHOICES)
def test_setting_what_was_got_changes_nothing(params):
    est = MLPClassifier(**params)
    before = est.get_params(deep=False)
    est.set_params(**est.get_params())
    assert est.get_params(deep=False) == before
    assert all(getattr(est, name) is value for name, value in params.items())
    copy = clone(est)
    assert flat(copy) == flat(est) and repr(copy) == repr(est)


def test_what_is_listed():
    assert flat(MLPClassifier(**CHOICES["names"])) == {
        "activation__alpha": 1.0,
        "loss__gamma": 2.0,
        "solver__rho": 0.99,
        "learning_rate__step_size": 10.0,
        "learning_rate__gamma": 0.1,
    }
    assert flat(MLPClassifier(**CHOICES["pairs"])) == {
        "activation__alpha": 2,
        "loss__gamma": 1.5,
        "solver__beta_1": 0.5,
    }
    for name in ("per layer", "functions", "nonsense"):
        assert flat(MLPClassifier(**CHOICES[name])) == {}
    listed = flat(MLPClassifier(**CHOICES["names"]))
    assert json.loads(json.dumps(listed)) == listed  # plain numbers


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("schedule", ["constant", "invscaling", "adaptive"])
def test_with_scikit_learns_choices_the_constructor_takes_all_that_is_listed(solver, schedule):
    params = {"solver": solver, "learning_rate": schedule, "activation": "tanh"}
    est = MLPClassifier(**params)
    assert MLPClassifier(**est.get_params()).get_params() == est.get_params() == est.get_params(deep=False)
    assert Original(**params).get_params().keys() <= est.get_params().keys()


def test_the_constructor_takes_what_deep_leaves_out():
    est = MLPClassifier(**CHOICES["names"])
    assert repr(type(est)(**est.get_params(deep=False))) == repr(est)
    with pytest.raises(TypeError, match="loss__gamma"):
        MLPClassifier(loss__gamma=1.0)


def test_a_new_choice_forgets_the_parameters_of_the_old():
    est = MLPClassifier(loss=FOCAL).set_params(loss="focal")
    assert est.loss == "focal" and est.get_params()["loss__gamma"] == 2.0
    est.set_params(solver="rmsprop", solver__rho=0.5).set_params(solver="adadelta")
    assert est.solver == "adadelta" and est.get_params()["solver__rho"] == 0.9


def test_parameters_of_one_choice_add_up():
    est = MLPClassifier(learning_rate="plateau").set_params(learning_rate__factor=0.5)
    est.set_params(learning_rate__patience=3, learning_rate__min_lr=1e-5)
    assert est.learning_rate == ("plateau", {"factor": 0.5, "patience": 3, "min_lr": 1e-5})


def test_what_was_given_is_not_changed():
    given = {"gamma": 1.5}
    est, copy = (MLPClassifier(loss=("focal", given)) for _ in range(2))
    est.set_params(loss__gamma=3.0)
    assert given == {"gamma": 1.5} and copy.loss == FOCAL and est.loss == ("focal", {"gamma": 3.0})


REFUSED = [
    ({"loss__nonsense": 1}, r"Invalid parameter 'loss__nonsense' for estimator MLP.*\['loss__label_smoothing'\]"),
    ({"loss__gamma": 1}, r"'loss__gamma' .*loss='log_loss' has the parameters \['loss__label_smoothing'\]"),
    ({"solver__rho": 0.5}, r"\['solver__beta_1', 'solver__beta_2', 'solver__epsilon'\]"),
    ({"activation__alpha": 0.5}, "activation='relu' has no parameters that can be set so"),
    ({"activation": ["elu"], "activation__alpha": 0.5}, r"activation=\['elu'\] has no parameters that can be set so"),
    ({"learning_rate": abs, "learning_rate__gamma": 0.5}, "has no parameters that can be set so"),
    ({"loss": "focall", "loss__gamma": 0.5}, r"loss='focall' is unknown; valid are \['focal', 'hinge', 'log_loss'"),
    ({"loss__gamma__more": 0.5, "loss": "focal"}, r"'loss__gamma__more' .*\['loss__gamma'\]"),
    ({"rho": 0.5}, "Invalid parameter 'rho' for estimator MLPClassifier"),
    ({"label_smoothing": 0.5}, "Invalid parameter 'label_smoothing' for estimator MLPClassifier"),
]


@pytest.mark.parametrize("params, words", REFUSED, ids=str)
def test_what_is_refused(params, words):
    est = MLPClassifier()
    with pytest.raises(ValueError, match=words):
        est.set_params(**params)
    assert est.get_params() == MLPClassifier().get_params()


def test_values_are_judged_by_fit():
    est = MLPClassifier(**SMALL).set_params(loss="focal", loss__gamma=-1)
    with pytest.raises(ValueError, match=r"loss=\('focal', .*gamma must be in \[0, inf\), got -1"):
        est.fit(X, Y)
    est.set_params(loss__gamma=1).fit(X, Y)


def test_flat_is_the_same_model_as_the_pair():
    pair = MLPClassifier(loss=FOCAL, solver=("rmsprop", {"rho": 0.5}), **SMALL).fit(X, Y)
    by_name = MLPClassifier(loss="focal", solver="rmsprop", **SMALL).set_params(loss__gamma=1.5, solver__rho=0.5)
    parity.assert_identical_models(pair, by_name.fit(X, Y))


def test_shown_as_before():
    est = MLPClassifier(loss="focal", solver=("rmsprop", {"rho": 0.5}))
    assert repr(est) == "MLPClassifier(loss='focal', solver=('rmsprop', {'rho': 0.5}))"
    html = est._repr_html_()
    assert "loss__gamma" not in html and "solver__rho" not in html and "rmsprop" in html


# --- searches ---------------------------------------------------------------------------------------------------------

SHORT = SMALL | {"max_iter": 2}
CANDIDATES = {"loss__gamma": [0.5, 2.0], "solver__rho": [0.9, 0.95], "activation__alpha": [1.0, 2.0]}


def searched(**params):
    return MLPClassifier(loss="focal", solver="rmsprop", activation="elu", **SHORT | params)


SEARCHES = {
    "grid": lambda est, grid: GridSearchCV(est, grid, cv=2, error_score="raise"),
    "halving": lambda est, grid: HalvingGridSearchCV(est, grid, cv=2, error_score="raise", min_resources=40),
    "random": lambda est, grid: RandomizedSearchCV(est, grid, n_iter=4, cv=2, error_score="raise", random_state=0),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_searches(search):
    found = search(searched(), CANDIDATES).fit(X, Y)
    best = found.best_estimator_
    assert {name: best.get_params()[name] for name in found.best_params_} == found.best_params_
    assert all(isinstance(value, float) for value in found.best_params_.values())
    assert len({tuple(params.items()) for params in found.cv_results_["params"]}) >= 4


def test_distributions():
    space = {"loss__gamma": uniform(0, 3), "learning_rate__warmup": uniform(0, 0.5)}
    est = searched(learning_rate="warmup_cosine")
    found = RandomizedSearchCV(est, space, n_iter=3, cv=2, error_score="raise", random_state=0).fit(X, Y)
    gammas = [params["loss__gamma"] for params in found.cv_results_["params"]]
    assert len(set(gammas)) == 3 and found.best_estimator_.loss == (
        "focal",
        {"gamma": found.best_params_["loss__gamma"]},
    )


def test_spaces_that_depend_on_the_choice():
    spaces = [{"loss": ["log_loss"], "loss__label_smoothing": [0.1]}, {"loss": ["focal"], "loss__gamma": [1.0, 3.0]}]
    found = GridSearchCV(MLPClassifier(**SHORT), spaces, cv=2, error_score="raise").fit(X, Y)
    assert [params["loss"] for params in found.cv_results_["params"]] == ["log_loss", "focal", "focal"]


def test_pipelines():
    pipeline = make_pipeline(StandardScaler(), searched())
    assert pipeline.get_params()["mlpclassifier__loss__gamma"] == 2.0
    pipeline.set_params(mlpclassifier__loss__gamma=1.0)
    assert pipeline[-1].loss == ("focal", {"gamma": 1.0})
    grid = {f"mlpclassifier__{name}": values for name, values in CANDIDATES.items()}
    found = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, Y)
    assert len(found.cv_results_["params"]) == 8
    best = found.best_params_["mlpclassifier__solver__rho"]
    assert found.best_estimator_[-1].solver == ("rmsprop", {"rho": best})


def test_formulas_have_none():
    @fastmlp.loss
    def cauchy(y, p):
        return log1p((y - p) * (y - p))  # noqa: F821

    est = MLPRegressor(loss=cauchy)
    assert flat(est) == {}
    with pytest.raises(ValueError, match="has no parameters that can be set so"):
        est.set_params(loss__delta=1.0)


def test_numpy_numbers():
    est = MLPClassifier(loss="focal").set_params(loss__gamma=np.float32(2.0))
    assert est.loss == "focal"
    est.set_params(loss__gamma=np.float64(0.5))
    assert est.loss == ("focal", {"gamma": 0.5})
