"""Estimators of `fastmlp bench tabular` for one table, with what they need done to its columns; runs in a worker.

A rival's preparation is a step of its pipeline, so that it is fitted on the training rows alone and part of its times.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from fastmlp.bench.datasets.reading import categorical
from fastmlp.bench.rivals import models

MOST_CODES = 255  # that HistGradientBoosting takes in a categorical column


def build(name: str, X: Any, classifies: bool, seed: int, threads: int, brief: bool = False) -> Any:
    """Return the unfitted estimator of a rival for the columns of X; `brief` is for warming up."""
    model = models.MODELS[name]
    made = getattr(importlib.import_module(model.module), model.estimator(classifies))
    params = {**model.params, **(model.brief if brief else {}), "random_state": seed}
    if model.threads:
        params[model.threads] = threads
    if model.columns == models.TEXTS:
        params["cat_features"] = categorical(X)
    return _prepared(model.columns, X, made(**params), classifies)


def _prepared(columns: str, X: Any, estimator: Any, classifies: bool) -> Any:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    if columns == models.FRAME:
        return estimator
    if columns in (models.NARROW, models.TEXTS):
        return make_pipeline(FunctionTransformer({models.NARROW: narrow, models.TEXTS: texts}[columns]), estimator)
    pipeline = make_pipeline(_transformer(columns, X), estimator)
    if columns == models.ONE_HOT and not classifies:
        return TransformedTargetRegressor(pipeline, transformer=StandardScaler())
    return pipeline


def narrow(X: Any) -> Any:
    """Return the frame with categories of more than MOST_CODES as numbers, NaN where they are missing."""
    wide = [name for name in categorical(X) if X[name].cat.categories.size > MOST_CODES]
    codes = {name: X[name].cat.codes.astype(np.float64).where(X[name].notna()) for name in wide}
    return X.assign(**codes)


def texts(X: Any) -> Any:
    """Return the frame with categories as texts."""
    return X.assign(**{name: X[name].astype(object).where(X[name].notna(), "missing") for name in categorical(X)})


def _transformer(columns: str, X: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    names = categorical(X)
    numbers = [name for name in X if name not in names]
    medians = SimpleImputer(strategy="median", keep_empty_features=True)
    steps = {
        models.IMPUTED: ("passthrough", medians),
        models.CODES: (
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1),
            medians,
        ),
        models.ONE_HOT: (
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            make_pipeline(medians, StandardScaler()),
        ),
    }
    of_categories, of_numbers = steps[columns]
    made = ColumnTransformer([("numbers", of_numbers, numbers), ("categories", of_categories, names)])
    # column order changes, but names tell; a frame keeps the dtype of categories
    return made.set_output(transform="pandas") if columns == models.IMPUTED else made
