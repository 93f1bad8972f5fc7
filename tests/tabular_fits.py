"""Small fits of RealMLP and TabM, and tables with everything that users' tables have.

Read by test_realmlp.py, test_tabm.py and test_tabular_estimators.py.
"""

import numpy as np
import pandas as pd

import fastmlp

#: Estimators -> what makes their fits small.
SMALL = {"hidden_layer_sizes": (12, 8), "max_iter": 8, "random_state": 0}
KINDS = {
    "RealMLPClassifier": SMALL,
    "RealMLPRegressor": SMALL,
    "TabMClassifier": {**SMALL, "k": 3, "n_iter_no_change": 8},
    "TabMRegressor": {**SMALL, "k": 3, "n_iter_no_change": 8},
}
CLASSIFIERS = [name for name in KINDS if name.endswith("Classifier")]
REGRESSORS = [name for name in KINDS if name.endswith("Regressor")]


def small(name, **changes):
    """Return an estimator whose fits take a moment."""
    return getattr(fastmlp, name)(**{**KINDS[name], **changes})


def table(n=120, seed=0):
    """Return a frame with numbers, gaps, a boolean, few and many categories, and targets that depend on them."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.exponential(10, n)),
            "open": rng.random(n) < 0.5,
            "colour": pd.Series(rng.choice(["red", "green", "blue"], n)),
            "town": pd.Categorical(rng.choice([f"town {i}" for i in range(15)], n)),
        }
    )
    frame.loc[rng.random(n) < 0.1, "colour"] = None
    values = frame["size"] + frame["open"] + (frame["colour"] == "red") * 2 + rng.normal(0, 0.1, n)
    return frame, values.to_numpy()


def targets_of(name, values, n_classes=3):
    """Return targets for an estimator: classes as texts, or the values as they are."""
    if name in REGRESSORS:
        return values
    edges = np.quantile(values, np.linspace(0, 1, n_classes + 1)[1:-1])
    return np.array(["low", "middle", "high"])[np.searchsorted(edges, values)]
