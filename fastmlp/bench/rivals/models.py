"""The rivals of `fastmlp bench tabular`: estimators at their defaults, and the columns that each of them takes.

A row names the classes; this file imports none of them. tabular.py in this folder, which runs in the workers, makes the
estimator. A row of ours whose class this version of fastmlp does not have is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What a rival takes; rivals/tabular.py has a function for each.
FRAME = "frame"  # the frame as it is: categories and missing values are the rival's affair
NARROW = "narrow"  # the same, but categories of more than 255 become codes
TEXTS = "texts"  # categories as texts, "missing" among them
IMPUTED = "imputed"  # categories as they are, missing numbers replaced by the median
CODES = "codes"  # categories as codes, missing numbers replaced by the median
ONE_HOT = "one-hot"  # one-hot categories, standardised numbers, medians in place of missing ones; y standardised


@dataclass(frozen=True)
class Model:
    """One row."""

    packages: tuple[str, ...]  # distributions that it needs; the first one's version is reported
    module: str
    classes: str  # name of the estimators, before Classifier and Regressor; {} stands for this if it is not the end
    columns: str
    params: Mapping[str, Any] = field(default_factory=dict)
    threads: str = "n_jobs"  # the parameter for threads; empty: the environment says it
    brief: Mapping[str, Any] = field(default_factory=dict)  # parameters of the fit that warms the process up

    def estimator(self, classifies: bool) -> str:
        """Return the name of the class."""
        task = "Classifier" if classifies else "Regressor"
        return self.classes.format(task) if "{}" in self.classes else self.classes + task


_ONE_STEP = {"max_iter": 1}
_ONE_EPOCH = {"n_epochs": 1}


def _ours(classes: str, columns: str = FRAME, **params: Any) -> Model:
    return Model(("fastmlp",), "fastmlp", classes, columns, params, brief=_ONE_STEP)


def _pytabkit(classes: str, *packages: str) -> Model:
    return Model(("pytabkit", *packages), "pytabkit", classes, IMPUTED, threads="n_threads", brief=_ONE_EPOCH)


OURS: Mapping[str, Model] = {
    "fastmlp": _ours("MLP", ONE_HOT),
    "realmlp-td": _ours("RealMLP"),
    "realmlp-td-s": _ours("RealMLP", preset="td-s"),
    "realmlp-td-cv8": _ours("RealMLP", n_cv=8),
    "tabm": _ours("TabM"),
    "tabm-d": _ours("TabM", num_emb_type="none", batch_size=256, weight_decay=0.0, max_grad_norm=None),  # pytabkit's
}

OTHERS: Mapping[str, Model] = {
    "catboost": Model(
        ("catboost",),
        "catboost",
        "CatBoost",
        TEXTS,
        {"verbose": False, "allow_writing_files": False},
        threads="thread_count",
        brief={"iterations": 1},
    ),
    "lightgbm": Model(("lightgbm",), "lightgbm", "LGBM", FRAME, {"verbosity": -1}, brief={"n_estimators": 1}),
    "xgboost": Model(("xgboost",), "xgboost", "XGB", FRAME, {"enable_categorical": True}, brief={"n_estimators": 1}),
    "histgb": Model(("scikit-learn",), "sklearn.ensemble", "HistGradientBoosting", NARROW, threads="", brief=_ONE_STEP),
    "forest": Model(("scikit-learn",), "sklearn.ensemble", "RandomForest", CODES, brief={"n_estimators": 1}),
    "sklearn-mlp": Model(("scikit-learn",), "sklearn.neural_network", "MLP", ONE_HOT, threads="", brief=_ONE_STEP),
    "pytabkit-td": _pytabkit("RealMLP_TD_{}"),
    "pytabkit-td-s": _pytabkit("RealMLP_TD_S_{}"),
    "pytabkit-tabm": _pytabkit("TabM_D_{}", "tabm"),
}

MODELS: Mapping[str, Model] = {**OURS, **OTHERS}
