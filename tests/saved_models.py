"""Small fitted models of every kind, and what the tests of saved files do with them."""

import copy

import numpy as np
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.saving import modelfile

X, Y = make_classification(80, 6, n_informative=4, n_classes=3, random_state=0)
LABELS = make_multilabel_classification(80, 6, n_classes=4, random_state=0)[1]
VALUES = make_regression(80, 6, n_targets=2, random_state=0)[1] / 100
GIVEN = {"hidden_layer_sizes": (5,), "max_iter": 6, "random_state": 0, "batch_size": 25, "learning_rate_init": 0.01}


def factor():
    """A number that formulas capture."""
    c = 1.25

    @fastmlp.activation
    def scaled(z):

        # the blank line above and this comment are part of the text
        return c * tanh(z)  # noqa: F821

    return scaled


@fastmlp.loss(link="exp")
def deviance(y, p):
    return p - y * log(p)  # noqa: F821


def square_slope(z, a):
    return 2 * z


#: name -> (class, parameters, y)
CASES = {
    "defaults": (MLPClassifier, {}, Y),
    "binary text": (MLPClassifier, {}, np.array(["nein", "já"])[Y % 2]),
    "labels": (MLPClassifier, {"activation": "tanh"}, LABELS),
    "one class": (MLPClassifier, {}, np.zeros(80, dtype=np.int8)),
    "dates": (MLPClassifier, {}, np.array(["2020-01-01", "2021-05-01", "1969-01-01"], dtype="datetime64[D]")[Y]),
    "early stopping": (MLPClassifier, {"early_stopping": True, "n_iter_no_change": np.inf}, Y),
    "lbfgs": (MLPRegressor, {"solver": "lbfgs"}, VALUES),
    "no hidden layer": (MLPRegressor, {"hidden_layer_sizes": []}, VALUES[:, 0]),
    "everything": (
        MLPClassifier,
        {
            "hidden_layer_sizes": np.array([4, 3]),
            "activation": ["prelu", ("elu", {"alpha": np.float64(0.5)})],
            "batch_norm": True,
            "dropout": np.array([0.1, 0.2]),
            "input_dropout": 0.1,
            "solver": "nadam",
            "learning_rate": ("one_cycle", {"pct_start": 0.4}),
            "class_weight": {0: 1.0, np.int64(1): 2, 2: 0.5},
            "random_state": np.random.RandomState(3),
            "weight_decay": 0.01,
            "max_grad_norm": 1,
            "monitor": "accuracy",
            "early_stopping": True,
            "batch_size": 24,
        },
        Y,
    ),
    "focal": (MLPClassifier, {"class_weight": [{0: 1, 1: 2}] * 4, "loss": ("focal", {"gamma": 1})}, LABELS),
    "hinge": (MLPClassifier, {"loss": "hinge", "learning_rate": "plateau"}, Y),
    "formula": (MLPClassifier, {"activation": [factor(), "relu"], "hidden_layer_sizes": (4, 3)}, Y),
    "formula with slope": (
        MLPRegressor,
        {"activation": fastmlp.activation("def square(z): return z * z", slope=square_slope), "loss": deviance},
        np.abs(VALUES),
    ),
}


def fitted(name, dtype=np.float64, **more):
    cls, parameters, y = CASES[name]
    return cls(**(GIVEN | copy.deepcopy(parameters) | more)).fit(X.astype(dtype), y)


def outputs(estimator, rows=X):
    predict = getattr(estimator, "predict_proba", getattr(estimator, "decision_function", None))
    return estimator.predict(rows) if predict is None else predict(rows)


def same(a, b):
    """Equal in type, dtype and value all the way down; NaNs are equal."""
    if isinstance(a, np.ndarray):
        equal_nan = a.dtype.kind == "f"
        return type(b) is type(a) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=equal_nan)
    if isinstance(a, np.random.RandomState):
        return isinstance(b, np.random.RandomState) and str(a.get_state()) == str(b.get_state())
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and len(a) == len(b) and all(k in b and same(a[k], b[k]) for k in a)
    if isinstance(a, float) and a != a:
        return b != b
    return a == b and isinstance(a, np.generic | type(b))


METADATA = {"name": "ü\ud800", "n": [1, 2.5, None, True, [], {}], "deep": {"a": {"b": [{}]}}, "big": 2**70}


def reseal(path, change):
    """Change a file's header and tensors and give it right checksums again."""
    header, tensors = modelfile.read(path)
    header, tensors = copy.deepcopy(header), {name: tensor.copy() for name, tensor in tensors.items()}
    change(header, tensors)
    modelfile.write(path, header, tensors)
