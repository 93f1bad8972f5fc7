"""What the estimators refuse of the parameters that scikit-learn lacks; searches over them, scikit-learn's checks.

That each parameter does what it says is in test_options.py.
"""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.engines import backends
from fastmlp.estimator.parameters import HIDDEN_ACTIVATIONS

import parity
from small_training import BACKENDS, SMALL, Y_COUNTS, Y_SHARES, Y_VALUES, X, Y, cauchy, swish
from tiers import label

pytestmark = [
    pytest.mark.covers("small", apart="small"),  # what is refused is refused before an engine is asked
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(params=BACKENDS)
def small(request):
    """Parameters of a small, short training."""
    return SMALL | {"backend": request.param}


# ------------------------------------------------------------------------------ searches


def test_grid_search_over_everything(small):
    grid = {
        "activation": ["relu6", ("elu", {"alpha": 0.5}), ["tanh", "selu"]],
        "loss": ["log_loss", "hinge"],
        "learning_rate": ["cosine", ("exponential", {"gamma": 0.9})],
        "dropout": [0.0, (0.1, 0.2)],
    }
    search = GridSearchCV(MLPClassifier(**small | {"max_iter": 2}), grid, cv=2, error_score="raise").fit(X, Y)
    assert len(search.cv_results_["params"]) == 24
    repr(search.best_estimator_), search.best_estimator_._repr_html_()


CHECKED = [
    MLPClassifier(loss="hinge", activation="gelu", solver="adamw", max_iter=100, random_state=0),
    MLPClassifier(loss="focal", activation=["hardswish"], solver="rmsprop", max_iter=100, random_state=0),
    MLPRegressor("huber", activation=("elu", {"alpha": 0.5}), solver="nadam", max_iter=100, random_state=0),
    MLPRegressor(activation="prelu", learning_rate="one_cycle", l1_ratio=0.5, max_iter=100, random_state=0),
]


def factors_of_a_check(params):
    estimator = params["estimator"]
    of_estimator = {"kind": type(estimator), "solver": estimator.solver, "backend": estimator.backend}
    return {"check": parity.name_of_a_check(params["check"]), **of_estimator}


@pytest.mark.covers("check", gate=("check kind",), factors=factors_of_a_check)
@parametrize_with_checks(CHECKED, expected_failed_checks=lambda estimator: {})
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.exhaustive
@pytest.mark.covers("check", gate=("check backend",), factors=factors_of_a_check)
@parametrize_with_checks(
    [clone(est).set_params(backend=backend) for est in CHECKED for backend in backends.available()[1:]],
    expected_failed_checks=lambda estimator: {},
)
def test_scikit_learn_checks_on_other_engines(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


# ------------------------------------------------------------------------------ misuse

LABELS_3 = np.eye(3, dtype=int)[Y]
NAMES = "|".join(HIDDEN_ACTIVATIONS[:3])
# (parameters, y or None for the usual one) -> what the message must say; regressors have "loss" of their own kind
BAD_CLASSIFIERS = [
    ({"activation": "swish"}, None, rf"'activation' parameter.*({NAMES})"),
    ({"activation": "exp"}, None, "'activation' parameter"),
    ({"activation": ["relu", "swish"]}, None, r"activation\[1\]='swish' is unknown; valid are \['celu'"),
    ({"activation": ["relu"]}, None, "one per hidden layer, 2, got 1"),
    ({"activation": ("elu", {"beta": 1})}, None, r"'elu' has no parameter 'beta'; its parameters are \['alpha'\]"),
    ({"activation": ("elu", {"alpha": -1})}, None, r"alpha must be in \[0, .*got -1"),
    ({"activation": ("relu", {"alpha": 1})}, None, "it takes none"),
    ({"activation": cauchy}, None, "activation"),
    ({"loss": "squared_error"}, None, "'loss' parameter of MLPClassifier must be .*focal"),
    ({"loss": ("focal", {"gamma": -1})}, None, r"gamma must be in \[0, "),
    ({"loss": "hinge"}, LABELS_3, "loss='hinge' makes no sense with multilabel"),
    ({"loss": ("hinge", {"label_smoothing": 0.1})}, None, "'hinge' has no parameter 'label_smoothing'; it takes none"),
    ({"loss": ("log_loss", {"label_smoothing": 1.0})}, None, r"label_smoothing must be in \[0, 1\), got 1.0"),
    ({"class_weight": "equal"}, None, "'class_weight'"),
    ({"class_weight": {0: -1.0}}, None, r"class_weight\[0\] must be in \[0, inf\)"),
    ({"solver": "adamax"}, None, "'solver' parameter.*adamw"),
    ({"learning_rate": "cyclic"}, None, "'learning_rate' parameter.*one_cycle"),
    ({"learning_rate": ("step", {"gamma": 2})}, None, r"gamma must be in \(0, 1\], got 2"),
    ({"learning_rate": lambda progress: -1.0}, None, "must return finite factors"),
    ({"weight_decay": -0.1}, None, "'weight_decay'"),
    ({"weight_decay_schedule": "adaptive"}, None, "'weight_decay_schedule' parameter.*flat_cos"),
    ({"dropout_schedule": "plateau"}, None, "'dropout_schedule' parameter.*flat_cos"),
    ({"dropout_schedule": None}, None, "'dropout_schedule' parameter.*flat_cos"),
    ({"dropout_schedule": ("one_cycle", {})}, None, "dropout_schedule=.'one_cycle', .* is unknown; valid are .*cosine"),
    ({"dropout_schedule": ("cosine", {"eta_min": 1.5})}, None, r"eta_min must be in \[0, 1\], got 1.5"),
    ({"dropout_schedule": lambda p: 2.0, "dropout": 0.1}, None, r"dropout_schedule=.* must return factors in \[0, 1\]"),
    (
        {"weight_decay_schedule": lambda p: -1, "weight_decay": 0.1},
        None,
        r"weight_decay_schedule=.* in \[0, 1\], got -1",
    ),
    ({"patience_growth": -1}, None, "'patience_growth'"),
    ({"restore_best": "first"}, None, "'restore_best' parameter.*last"),
    ({"restore_best": "last"}, None, "restore_best='last' needs validation data.* eval_set"),
    ({"max_grad_norm": 0}, None, r"'max_grad_norm' .*\(0.0, inf\)"),
    ({"solver": ("adamax", {})}, None, r"solver=\('adamax', .* is unknown; valid are \['adadelta', 'adagrad'"),
    ({"solver": ("adam",)}, None, r"solver=\('adam',\) is unknown; valid are "),
    ({"solver": ["rmsprop", "adam"]}, None, r"solver=\['rmsprop', 'adam'\] is unknown; valid are "),
    ({"solver": ("rmsprop", {"rho": 1.0})}, None, r"solver=\('rmsprop', .*rho must be in \[0, 1\), got 1.0"),
    ({"solver": ("nadam", {"momentum_decay": -1})}, None, r"momentum_decay must be in \[0, inf\), got -1"),
    ({"solver": ("adam", {"rho": 0.9})}, None, r"'adam' has no parameter 'rho'; .*\['beta_1', 'beta_2', 'epsilon'\]"),
    ({"solver": ("lbfgs", {"momentum": 0.9})}, None, "'lbfgs' has no parameter 'momentum'; it takes none"),
    ({"l1_ratio": 1.5}, None, r"'l1_ratio' .*\[0.0, 1.0\]"),
    ({"dropout": 1}, None, r"dropout=1 drops every unit.*\[0, 1\)"),
    ({"dropout": (0.5, 1.0)}, None, "drops every unit"),
    ({"input_dropout": 1.0}, None, "input_dropout=1 drops every"),
    ({"dropout": -0.1}, None, r"dropout must be in \[0, 1\), got -0.1"),
    ({"dropout": np.nan}, None, r"dropout must be in \[0, 1\)"),
    ({"dropout": ["a", 0.1]}, None, r"dropout must be in \[0, 1\), got 'a'"),
    ({"dropout": "half"}, None, "'dropout' parameter"),
    ({"dropout": (0.1,)}, None, "one per hidden layer, 2, got 1"),
    ({"dropout": ()}, None, "one per hidden layer, 2, got 0"),
    ({"batch_norm": "yes"}, None, "'batch_norm'"),
    ({"batch_norm": "behind"}, None, "'batch_norm' parameter.*before"),
    ({"batch_norm": ["after", "behind"]}, None, 'batch_norm must be False, True, "before" or "after".*\'behind\''),
    ({"batch_norm": ["after", 1.0]}, None, "batch_norm must be False, True, .*got 1.0"),
    ({"batch_norm": ["after"] * 3}, None, "batch_norm must be .*one per hidden layer, 2, got 3"),
    ({"batch_norm": []}, None, "batch_norm must be .*one per hidden layer, 2, got 0"),
    ({"batch_norm": ["after", False], "batch_size": 1}, None, "batch_norm=\\['after', False\\] makes no sense"),
    ({"batch_norm": True, "batch_size": 1}, None, "batch_norm=True makes no sense with batches of one row"),
    ({"init": "xavier"}, None, "'init' parameter.*glorot_uniform"),
    ({"init": lambda rng, fan_in, fan_out: np.ones(3)}, None, "must have shape"),
    (
        {"monitor": "exactness", "early_stopping": True},
        None,
        "monitor='exactness' is unknown; valid are 'score'",
    ),
    ({"monitor": "roc_auc"}, None, "monitor='roc_auc' needs validation data: .* eval_set"),
    ({"restore_best": True}, None, "restore_best=True needs validation data.* eval_set"),
    ({"callbacks": 3}, None, "'callbacks'"),
    ({"callbacks": [3]}, None, "callbacks must be callables"),
]
BAD_REGRESSORS = [
    ({"loss": "log_loss"}, None, "'loss' parameter of MLPRegressor must be .*huber"),
    ({"loss": ("huber", {"delta": 0})}, None, "delta must be in"),
    ({"loss": ("quantile", {"quantile": 1})}, None, "quantile must be in"),
    ({"loss": swish}, None, "loss"),
    ({"loss": "kl_divergence"}, None, "two or more categories"),
    ({"loss": "kl_divergence"}, Y_SHARES * 1.1, "add up to 1"),
    ({"loss": "kl_divergence"}, Y_SHARES - 0.4, "distributions"),
    ({"loss": "gamma"}, Y_COUNTS, "above 0"),
]


def _id(case):
    return label(case[0])


@pytest.mark.parametrize("case", BAD_CLASSIFIERS, ids=_id)
def test_bad_classifier(small, case):
    params, y, message = case
    with pytest.raises((ValueError, TypeError), match=message):
        MLPClassifier(**small | params).fit(X, Y if y is None else y)


@pytest.mark.parametrize("case", BAD_REGRESSORS, ids=_id)
def test_bad_regressor(small, case):
    params, y, message = case
    with pytest.raises((ValueError, TypeError), match=message):
        MLPRegressor(**small | params).fit(X, Y_VALUES if y is None else y)


LBFGS_CANNOT = [
    {"learning_rate": "cosine"},
    {"learning_rate": ("step", {"gamma": 0.5})},
    {"learning_rate": abs},
    {"dropout": 0.1},
    {"dropout": (0.0, 0.1)},
    {"input_dropout": 0.1},
    {"batch_norm": True},
    {"batch_norm": [False, "after"]},
    {"drop_last": True},
    {"l1_ratio": 0.5},
    {"weight_decay": 0.1},
    {"weight_decay_schedule": "flat_cos"},
    {"weight_decay_schedule": abs},
    {"dropout_schedule": ("cosine", {"eta_min": 0.1})},
    {"patience_growth": 1.0},
    {"restore_best": "last"},
    {"max_grad_norm": 1.0},
    {"restore_best": True},
    {"callbacks": [print]},
    {"activation": "step"},
    {"activation": ["relu", "step"]},
    {"matmul_precision": "high"},
]


@pytest.mark.parametrize("params", LBFGS_CANNOT, ids=str)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_what_lbfgs_cannot_do(small, params, method):
    with pytest.raises(ValueError, match=rf"{next(iter(params))}=.* makes no sense with solver='lbfgs': it"):
        getattr(MLPRegressor(solver="lbfgs", **small | params), method)(X, Y_VALUES)


def test_lbfgs_refuses_data_for_epochs(small):
    est = MLPRegressor(solver="lbfgs", **small)
    with pytest.raises(ValueError, match=r"validation data \(X_val or eval_set\) makes no sense with solver='lbfgs'"):
        est.fit(X, Y_VALUES, X_val=X, y_val=Y_VALUES)
    with pytest.raises(ValueError, match="resume_from makes no sense"):
        est.fit(X, Y_VALUES, resume_from="fit.npz")
    # nothing of this asks for anything
    idle = {
        "weight_decay": 0.0,
        "dropout": (0.0, 0),
        "callbacks": [],
        "restore_best": False,
        "learning_rate": "adaptive",
        "dropout_schedule": ("constant", {}),
        "weight_decay_schedule": "constant",
        "patience_growth": 0,
    }
    parity.assert_identical_models(est.fit(X, Y_VALUES), clone(est).set_params(**idle).fit(X, Y_VALUES))


def test_balanced_weights_need_all_rows(small):
    with pytest.raises(ValueError, match="class_weight='balanced' makes no sense with partial_fit"):
        MLPClassifier(class_weight="balanced", **small).partial_fit(X, Y, classes=[0, 1, 2])


def test_a_loss_with_another_link_needs_a_new_fit(small):
    est = MLPRegressor("huber", **small).fit(X, Y_COUNTS)
    est.set_params(loss="squared_error").partial_fit(X, Y_COUNTS)
    with pytest.raises(ValueError, match="output activation 'identity', the loss needs 'exp'"):
        est.set_params(loss="poisson").partial_fit(X, Y_COUNTS)


@pytest.mark.parametrize("bad", [c for c in BAD_CLASSIFIERS if c[1] is None and "callbacks" not in c[0]], ids=_id)
def test_refused_parameters_leave_the_fitted_model_alone(small, bad):
    est = MLPClassifier(**small).fit(X, Y)
    before = parity.weights(est).copy()
    with pytest.raises((ValueError, TypeError)):
        est.set_params(**bad[0]).fit(X, Y)
    if not any(name == "learning_rate" or name.endswith("_schedule") for name in bad[0]):
        np.testing.assert_array_equal(parity.weights(est), before)
