"""Errors about names and values that do not exist: scikit-learn's class and beginning, then what was probably meant."""

import inspect
import pickle
import re
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import get_scorer_names
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.utils._param_validation import InvalidParameterError

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import LearningRateFinder, TimeLimit
from fastmlp.data.targets import CLASSIFIER_LOSSES, REGRESSOR_LOSSES
from fastmlp.engines.backends import BACKENDS
from fastmlp.estimator.parameters import HIDDEN_ACTIVATIONS
from fastmlp.model.initialization import INITIALIZERS
from fastmlp.model.spelling import FOREIGN, meant
from fastmlp.training.optimizers import SOLVERS
from fastmlp.training.schedules import SCHEDULES

from small_training import SMALL, X, Y
from tiers import label

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

PARAMETERS = [*dict.fromkeys((*MLPClassifier._get_param_names(), *MLPRegressor._get_param_names()))]
ARGUMENTS = list(inspect.signature(MLPClassifier.fit).parameters)[1:]
TABLES = {
    "parameters": PARAMETERS,
    "fit": ARGUMENTS,
    "solver": SOLVERS,
    "activation": HIDDEN_ACTIVATIONS,
    "loss of a classifier": CLASSIFIER_LOSSES,
    "loss of a regressor": REGRESSOR_LOSSES,
    "learning_rate": SCHEDULES,
    "init": INITIALIZERS,
    "backend": ["auto", *BACKENDS],
    "monitor": ["score", "loss", *get_scorer_names()],
}

# --- the table of foreign names ---------------------------------------------------------------------------------------


def test_translations_lead_to_names_that_exist():
    assert set(FOREIGN) <= {name for table in TABLES.values() for name in table}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_no_foreign_name_has_two_meanings(table):
    seen: dict[str, str] = {}
    for name in table:
        for foreign in FOREIGN.get(name, "").split():
            plain = re.sub("[_-]", "", foreign.lower())
            assert seen.setdefault(plain, name) == name, foreign
            assert meant(foreign, table) in (name, *table) and (foreign in table or meant(foreign, table) == name)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_spelt_in_another_way(table):
    for name in table:
        assert meant(name.upper(), table) is not None
        if len(name) > 4:
            assert meant(name.replace("_", ""), table) == meant(name.replace("_", "-"), table) == name
            swapped = name[:2] + name[3] + name[2] + name[4:]
            assert meant(swapped, table) == name


MEANT = {
    "solver": {"adamW": "adamw", "SGD": "sgd", "Adam": "adam", "L-BFGS": "lbfgs", "RMSProp": "rmsprop"},
    "activation": {"sigmoid": "logistic", "swish": "silu", "leakyrelu": "leaky_relu", "linear": "identity"},
    "loss of a classifier": {
        "cross_entropy": "log_loss",
        "crossentropy": "log_loss",
        "categorical_crossentropy": "log_loss",
        "binary_crossentropy": "log_loss",
        "BCEWithLogitsLoss": "log_loss",
        "categorical_hinge": "hinge",
        "logloss": "log_loss",
        "focal_loss": "focal",
    },
    "loss of a regressor": {
        "mse": "squared_error",
        "mae": "absolute_error",
        "smooth_l1": "huber",
        "KLDivLoss": "kl_divergence",
        "l2": "squared_error",
    },
    "init": {"xavier": "glorot_uniform", "HeNormal": "he_normal", "kaiming_uniform": "he_uniform", "torch": "pytorch"},
    "backend": {"gpu": "cuda", "cpu": "cython"},
    "monitor": {"acc": "accuracy", "auc": "roc_auc", "mse": "neg_mean_squared_error"},
}
MEANT_PARAMETERS = {
    "epochs": "max_iter",
    "n_epochs": "max_iter",
    "lr": "learning_rate_init",
    "hidden_dims": "hidden_layer_sizes",
    "l2": "alpha",
    "patience": "n_iter_no_change",
    "validation_split": "validation_fraction",
    "dropout_rate": "dropout",
    "optimizer": "solver",
    "seed": "random_state",
    "batchsize": "batch_size",
    "alphaa": "alpha",
    "hidden_layer_size": "hidden_layer_sizes",
}


@pytest.mark.parametrize("table, name, known", [(t, n, k) for t, rows in MEANT.items() for n, k in rows.items()])
def test_foreign_names(table, name, known):
    assert meant(name, TABLES[table]) == known


@pytest.mark.parametrize("value", [None, 3, "", "nonsense", (), ["adam"], b"adam"])
def test_no_guess(value):
    assert meant(value, SOLVERS) is None


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("name, known", MEANT_PARAMETERS.items())
def test_unknown_parameters(cls, name, known):
    with pytest.raises(TypeError) as refusal:
        cls(**{name: 1})
    text = str(refusal.value)
    begin = f"{cls.__name__}.__init__() got an unexpected keyword argument '{name}'; did you mean '{known}'?"
    assert text == f"{begin} Valid arguments are: {sorted(cls._get_param_names())}."
    with pytest.raises(ValueError) as refusal:
        cls().set_params(alpha=1, **{name: 1})
    text = str(refusal.value)
    assert text.startswith(f"Invalid parameter '{name}' for estimator {cls.__name__}(")
    assert text.endswith(f" Did you mean '{known}'?")


def test_several_unknown_parameters():
    with pytest.raises(
        TypeError, match=r"'epochs'; did you mean 'max_iter' for 'epochs', 'solver' for 'optim'\? Valid"
    ):
        MLPClassifier(epochs=3, nonsense=1, optim=2)
    with pytest.raises(TypeError, match=r"keyword argument 'nonsense'\. Valid arguments are: \['activation', "):
        MLPClassifier(nonsense=1)
    with pytest.raises(ValueError, match=r"Invalid parameter 'nonsense' .*'weight_decay_schedule'\]\.$"):
        MLPClassifier().set_params(nonsense=1)


def test_a_subclass_names_itself():
    class Mine(MLPClassifier):
        def __init__(self, alpha=1.0, **others):
            super().__init__(alpha=alpha, **others)

    with pytest.raises(TypeError, match=r"^Mine.__init__\(\) got an unexpected keyword argument 'lr'"):
        Mine(lr=1)


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_the_constructor_is_what_it_was(cls):
    parameters = inspect.signature(cls).parameters
    assert [p.kind for p in parameters.values()].count(inspect.Parameter.VAR_KEYWORD) == 0
    assert {name: p.default for name, p in parameters.items()} == cls().get_params(deep=False)
    given = {name: object() for name in parameters}
    est = cls(**given)
    assert all(getattr(est, name) is value for name, value in given.items())
    positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert cls(*positional).get_params(deep=False) == cls(**{name: name for name in positional}).get_params(deep=False)
    with pytest.raises(TypeError, match=r"__init__\(\) takes from 1 to \d positional arguments but"):
        cls(*positional, 1)
    est = cls(alpha=0.5)
    assert repr(clone(est)) == repr(pickle.loads(pickle.dumps(est))) == repr(est)
    assert cls.__init__.__qualname__ == f"{cls.__name__}.__init__"


FIT_ARGUMENTS = [
    ("fit", "epochs", "; it belongs to the constructor: {}(max_iter=...)."),
    ("fit", "batch_size", "; it belongs to the constructor: {}(batch_size=...)."),
    ("fit", "verbose", "; it belongs to the constructor: {}(verbose=...)."),
    ("fit", "callbacks", "; it belongs to the constructor: {}(callbacks=...)."),
    ("fit", "validation_data", "; did you mean 'eval_set'?"),
    ("fit", "sample_weights", "; did you mean 'sample_weight'?"),
    ("fit", "x_val", "; did you mean 'X_val'?"),
    ("fit", "nonsense", "."),
    ("partial_fit", "epochs", "; it belongs to the constructor: {}(max_iter=...)."),
    ("partial_fit", "weights", "; did you mean 'sample_weight'?"),
    ("partial_fit", "X_val", "."),
]


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("method, name, words", FIT_ARGUMENTS)
def test_unknown_arguments_of_fit(cls, method, name, words):
    est = cls(**SMALL)
    with pytest.raises(TypeError) as refusal:
        getattr(est, method)(X, Y, **{name: 1})
    valid = sorted(set(inspect.signature(getattr(cls, method)).parameters) - {"self"})
    begin = f"{cls.__name__}.{method}() got an unexpected keyword argument '{name}'"
    assert str(refusal.value) == f"{begin}{words.format(cls.__name__)} Valid arguments are: {valid}."
    assert not hasattr(est, "coefs_")


def test_missing_and_superfluous_arguments_of_fit():
    with pytest.raises(TypeError, match=r"^MLPClassifier.fit\(\) missing 1 required positional argument: 'y'"):
        MLPClassifier().fit(X)
    with pytest.raises(TypeError, match=r"^MLPRegressor.fit\(\) takes from 3 to 4 positional arguments but 5 were"):
        MLPRegressor().fit(X, Y, None, X)
    with pytest.raises(TypeError, match=r"^MLPRegressor.fit\(\) got multiple values for argument 'y'"):
        MLPRegressor().fit(X, Y, y=Y)


def test_errors_from_within_fit_stay_as_they_are():
    def broken(info):
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        MLPClassifier(callbacks=[broken], **SMALL).fit(X, Y)


# --- values -----------------------------------------------------------------------------------------------------------

VALUES = [
    (MLPClassifier, {"solver": "adamW"}, "Did you mean 'adamw'?"),
    (MLPClassifier, {"activation": "sigmoid"}, "Did you mean 'logistic'?"),
    (MLPClassifier, {"loss": "categorical_crossentropy"}, "Did you mean 'log_loss'?"),
    (MLPClassifier, {"loss": "mse"}, "'squared_error' is a loss of MLPRegressor."),
    (MLPRegressor, {"loss": "mse"}, "Did you mean 'squared_error'?"),
    (MLPRegressor, {"loss": "cross_entropy"}, "'log_loss' is a loss of MLPClassifier."),
    (MLPRegressor, {"loss": np.square}, "fastmlp.loss makes a loss of a function."),
    (
        MLPClassifier,
        {"activation": "softmax"},
        "Hidden layers do not have it; that of the output layer follows from loss.",
    ),
    (MLPRegressor, {"activation": np.tanh}, "fastmlp.activation makes an activation of a function."),
    (MLPRegressor, {"learning_rate": 0.01}, "A number is learning_rate_init=0.01; learning_rate names its schedule."),
    (MLPRegressor, {"learning_rate": "0.01"}, "A number is learning_rate_init=0.01; learning_rate names its schedule."),
    (MLPRegressor, {"learning_rate": "cosine_annealing"}, "Did you mean 'cosine'?"),
    (MLPRegressor, {"init": "xavier"}, "Did you mean 'glorot_uniform'?"),
    (MLPRegressor, {"batch_norm": "befre"}, "Did you mean 'before'?"),
    (MLPClassifier, {"class_weight": "balance"}, "Did you mean 'balanced'?"),
    (MLPRegressor, {"max_iter": 1e3}, "Write 1000, an int."),
    (MLPRegressor, {"batch_size": 32.0}, "Write 32, an int."),
    (MLPRegressor, {"alpha": "1e-4"}, "Write 1e-4, without quotes."),
    (MLPRegressor, {"callbacks": TimeLimit(3)}, "Write callbacks=[...], a list."),
    (MLPRegressor, {"random_state": np.random.default_rng(0)}, "Draw an int: int(rng.integers(2**32))."),
    (MLPRegressor, {"early_stopping": "loss"}, "What it watches is the parameter monitor."),
]


@pytest.mark.parametrize("cls, params, words", VALUES, ids=label)
def test_values(cls, params, words):
    ((name, value),) = params.items()
    with pytest.raises(InvalidParameterError) as refusal:
        cls(**SMALL | params).fit(X, Y)
    text = str(refusal.value)
    assert text.startswith(f"The '{name}' parameter of {cls.__name__} must be ")
    assert text.endswith(f" Got {value!r} instead. {words}")
    with pytest.raises(InvalidParameterError, match=re.escape(words)):
        cls(**SMALL).set_params(**params).fit(X, Y)


def test_valid_names_are_sorted():
    with pytest.raises(ValueError, match=re.escape(f"among {{{str(sorted(SOLVERS))[1:-1]}}}, an instance of 'tuple'")):
        MLPClassifier(solver="nonsense").fit(X, Y)


SPECS = [
    ({"solver": ("adamW", {})}, "; did you mean 'adamw'?"),
    ({"activation": ["relu", "sigmoid"]}, "; did you mean 'logistic'?"),
    ({"loss": ("focal_loss", {"gamma": 1.0})}, "; did you mean 'focal'?"),
    ({"loss": ("focal", {"gama": 1.0})}, "its parameters are ['gamma']; did you mean 'gamma'?"),
    ({"learning_rate": ("cosine_decay", {})}, "; did you mean 'cosine'?"),
    ({"backend": "gpu"}, "; did you mean 'cuda'?"),
    ({"monitor": "auc", "early_stopping": True}, "; did you mean 'roc_auc'?"),
]


@pytest.mark.parametrize("params, words", SPECS, ids=label)
def test_names_within_specs(params, words):
    with pytest.raises(ValueError) as refusal:
        MLPClassifier(**SMALL | params).fit(X, Y)
    assert str(refusal.value).endswith(words)


def test_flat_names():
    with pytest.raises(ValueError, match=r"'loss__gama' .*\['loss__gamma'\]; did you mean 'loss__gamma'\?$"):
        MLPClassifier(loss="focal").set_params(loss__gama=1)
    with pytest.raises(ValueError, match=r"loss='focall' is unknown; .*; did you mean 'focal'\?$"):
        MLPClassifier().set_params(loss="focall", loss__gamma=1)


# --- hidden_layer_sizes -----------------------------------------------------------------------------------------------

SIZES = [
    *((size,) for size in (8.7, 8.0, True, "8", np.int64(8), np.float64(8), np.bool_(True), -1, 0, np.nan, np.inf)),
    *((size,) for size in ((3, 4), [3], None, 3j, Fraction(3), np.uint8(200), np.array(3), np.array([3]), "", -2.5)),
    *((3, size) for size in (4, 4.0, True, 0, None, (4,))),
    *(8, True, 8.0, np.int64(8), 0, -1, None, "8", "", (), []),
    *(np.array([3, 4]), np.array([3.0, 4.0]), np.array([True]), np.array(["3"]), np.array(5), np.array([[3, 4]])),
    *(np.array([3, None], dtype=object), np.array([3], dtype=object), range(2, 4), {3: 1}, {3}, iter([3])),
    *(pd.Series([3, 4]), pd.Series([3.0, 4.0])),
]


@pytest.mark.parametrize("sizes", SIZES, ids=label)
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_hidden_layer_sizes_are_those_of_scikit_learn(cls, sizes):
    params = {"hidden_layer_sizes": sizes, "max_iter": 1, "random_state": 0}
    try:
        expected = [W.shape for W in TheirClassifier(**params).fit(X, Y).coefs_]
    except Exception as error:
        with pytest.raises((TypeError, ValueError), match="hidden_layer_sizes") as refusal:
            cls(**params).fit(X, Y)
        if isinstance(error, InvalidParameterError) or "must be > 0" in str(error):
            assert type(refusal.value) is type(error) and str(error)[:40] in str(refusal.value)
    else:
        assert [W.shape for W in cls(**params).fit(X, Y).coefs_][:-1] == expected[:-1]


def test_the_wrong_size_is_named():
    with pytest.raises(TypeError, match=r"^hidden_layer_sizes\[1\] must be an int, got 8.0 in \[4, 8.0\]: write 8$"):
        MLPClassifier((4, 8.0)).fit(X, Y)
    with pytest.raises(TypeError, match=r"^hidden_layer_sizes\[0\] must be an int, got True in \[True\]$"):
        MLPRegressor(hidden_layer_sizes=(True,)).fit(X, Y)


# --- numbers that no float can hold -----------------------------------------------------------------------------------

HUGE = 10**400
NUMERIC = [
    name for name, p in inspect.signature(MLPClassifier).parameters.items() if isinstance(p.default, int | float | None)
]


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("huge", [HUGE, -HUGE, 10**5000], ids=["10**400", "-10**400", "10**5000"])
@pytest.mark.parametrize("name", ["hidden_layer_sizes", "batch_size", *NUMERIC])
def test_a_parameter_beyond_floats(name, huge, solver):
    for cls in (MLPClassifier, MLPRegressor):
        if name in cls._get_param_names():
            est = cls(**SMALL | {"solver": solver, name: huge})
            with pytest.raises(ValueError, match=f"^{name} holds a number beyond the range of float64"):
                est.fit(X, Y)
            assert not hasattr(est, "coefs_")


@pytest.mark.parametrize(
    "params",
    [
        {"hidden_layer_sizes": (3, HUGE)},
        {"dropout": [HUGE]},
        {"dropout": np.array([HUGE], dtype=object)},
        {"class_weight": {0: HUGE, 1: 1}},
        {"loss": ("focal", {"gamma": HUGE})},
        {"activation": [("elu", {"alpha": HUGE})]},
        {"solver": ("rmsprop", {"rho": HUGE})},
        {"learning_rate": ["step", {"gamma": HUGE}]},
        {"alpha": Fraction(HUGE)},
    ],
    ids=lambda params: next(iter(params)),
)
def test_numbers_beyond_floats_within_parameters(params):
    (name,) = params
    with pytest.raises(ValueError, match=f"^{name} holds a number beyond the range of float64"):
        MLPClassifier(**SMALL | params).fit(X, Y)


@pytest.mark.parametrize(
    "name, given",
    [
        ("X", {"X": [[HUGE] * X.shape[1]] * len(X)}),
        ("y", {"y": [HUGE] * len(X)}),
        ("sample_weight", {"sample_weight": [HUGE] * len(X)}),
        ("X_val", {"X_val": [[HUGE] * X.shape[1]] * len(X), "y_val": Y}),
        ("y_val", {"X_val": X, "y_val": [HUGE] * len(X)}),
        ("sample_weight_val", {"X_val": X, "y_val": Y, "sample_weight_val": [HUGE] * len(X)}),
        ("eval_set", {"eval_set": [(X, [HUGE] * len(X))]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_beyond_floats(name, given):
    with pytest.raises(ValueError, match=f"^{name} holds a number beyond the range of float64"):
        MLPRegressor(**SMALL).fit(**{"X": X, "y": Y} | given)


def test_other_numbers_beyond_floats():
    with pytest.raises(ValueError, match=r"^X holds a number beyond the range of float64"):
        MLPRegressor(**SMALL).fit(X, Y).predict([[HUGE] * X.shape[1]])
    with pytest.raises(ValueError, match="seconds must be a number > 0, within float64"):
        TimeLimit(HUGE)
    for params in ({"max_rate": HUGE}, {"smoothing": HUGE}):
        with pytest.raises(ValueError, match="must be"):
            LearningRateFinder(MLPClassifier(), **params)


@pytest.mark.parametrize("name", ["max_iter", "n_iter_no_change", "max_fun", "batch_size", "n_jobs", "alpha", "tol"])
def test_large_ints_are_numbers(name):
    callbacks = [lambda info: info.epoch == 2]
    for solver in ("adam", "lbfgs"):
        extra = {"callbacks": callbacks} if solver == "adam" else {}
        MLPRegressor(**SMALL | {"solver": solver, name: 2**70} | extra).fit(X, Y)
