"""Warnings point to the line of the user, however many calls of fastmlp's and scikit-learn's lie between."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.estimator import pickled

from small_training import SMALL, Y_VALUES, X, Y

FITTED = make_pipeline(StandardScaler(), MLPClassifier(**SMALL | {"solver": "adamw"}))


def of_another_version():
    state = MLPClassifier(**SMALL).__getstate__()
    MLPClassifier.__new__(MLPClassifier).__setstate__(state | {pickled.VERSION: "0.0"})


#: What warns -> (the call, its warning's category, a part of its text).
CALLS = {
    "max_iter": (lambda: MLPClassifier(**SMALL).fit(X, Y), ConvergenceWarning, "Maximum iterations"),
    "batch_size": (lambda: MLPClassifier(**SMALL | {"batch_size": 999}).fit(X, Y), UserWarning, "clipped"),
    "a search": (
        lambda: GridSearchCV(MLPClassifier(**SMALL), {"alpha": [1.0]}, cv=2).fit(X, Y),
        ConvergenceWarning,
        "Maximum iterations",
    ),
    "overflow": (lambda: MLPRegressor(**SMALL).fit(X, Y_VALUES * 1e200), RuntimeWarning, "the training loss is"),
    "categories": (
        lambda: MLPClassifier(**SMALL).fit(pd.DataFrame(X).round().astype("category"), Y),
        UserWarning,
        "columns of categories",
    ),
    "conversion in a pipeline": (lambda: fastmlp.to_sklearn(FITTED.fit(X, Y)), UserWarning, "scikit-learn has no"),
    "a pickle": (of_another_version, pickled.InconsistentVersionWarning, "was pickled by fastmlp 0.0"),
}


@pytest.mark.parametrize("name", CALLS)
def test_warnings_name_the_line_of_the_user(name):
    call, category, text = CALLS[name]
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        call()
    (found, *_) = [one for one in caught if text in str(one.message)]
    assert issubclass(found.category, category) and found.filename == __file__


def test_pickles_of_another_version_warn_at_the_line_that_loads():
    data = pickle.dumps(MLPClassifier(**SMALL)).replace(fastmlp.__version__.encode(), b"0.9.9")
    with pytest.warns(pickled.InconsistentVersionWarning) as caught:
        pickle.loads(data)
    assert {one.filename for one in caught} == {__file__}
