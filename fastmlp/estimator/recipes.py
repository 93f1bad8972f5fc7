"""The published recipes of the tabular nets: their parameters, with values that depend on preset and task.

A parameter that a user leaves at None has the recipe's value.  :func:`resolved` says which that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastmlp.model import choices
from fastmlp.training.metrics import decisive


class ByTask(NamedTuple):
    """A value that is one for classes and another for numbers."""

    classes: Any
    values: Any


_SMOOTHED = ("log_loss", {"label_smoothing": 0.1})

#: RealMLP's presets (Holzmueller, Grinsztajn and Steinwart 2024, arXiv:2407.04491, and their package pytabkit).
REALMLP: dict[str, dict[str, Any]] = {
    "td": {
        "activation": ByTask("selu", "mish"),
        "use_parametric_act": True,
        "learning_rate_init": ByTask(0.04, 0.2),
        "dropout": 0.15,
        "weight_decay": 0.02,
        "num_emb_type": "pbld",
        "max_one_hot_cat_size": 9,
        "clamp_output": True,
        "loss": ByTask(_SMOOTHED, "squared_error"),
    },
    "td-s": {
        "activation": ByTask("selu", "mish"),
        "use_parametric_act": False,
        "learning_rate_init": ByTask(0.04, 0.07),
        "dropout": 0.0,
        "weight_decay": 0.0,
        "num_emb_type": "none",
        "max_one_hot_cat_size": np.inf,
        "clamp_output": False,
        "loss": ByTask(_SMOOTHED, "squared_error"),
    },
}

#: TabM's defaults (Gorishniy, Kotelnikov and Babenko 2024, arXiv:2410.24210, and their package tabm).
TABM: dict[str, Any] = {"loss": ByTask("log_loss", "squared_error")}

#: Units of TabM's hidden layers, by whether numbers are embedded.
TABM_SIZES = {"pwl": (512, 512), "none": (512, 512, 512)}

#: Training rows below which TabM's batches have so many rows; more rows have batches of 1024.
TABM_BATCHES = {2_800: 32, 4_500: 64, 6_400: 128, 32_000: 256, 108_000: 512}

#: Metrics of probabilities: smoothed labels make these worse, whatever they do for the accuracy.
OF_PROBABILITIES = ("loss", "neg_log_loss", "neg_brier_score", "average_precision", "d2_log_loss_score",
                    "d2_brier_score")  # fmt: skip


def resolved(recipe: Mapping[str, Any], given: Mapping[str, Any], is_classifier: bool) -> dict[str, Any]:
    """Return the recipe's value of each parameter that is None in `given`.

    Labels are not smoothed where the metric that decides is one of probabilities.

    Examples
    --------
    >>> from fastmlp.estimator.recipes import REALMLP, resolved
    >>> given = dict.fromkeys(REALMLP["td"]) | {"monitor": "roc_auc", "dropout": 0.3}
    >>> found = resolved(REALMLP["td"], given, is_classifier=True)
    >>> found["loss"], found["learning_rate_init"], "dropout" in found
    ('log_loss', 0.04, False)
    """
    found = {}
    for name, value in recipe.items():
        if given[name] is None:
            found[name] = (value.classes if is_classifier else value.values) if isinstance(value, ByTask) else value
    if found.get("loss") == _SMOOTHED and is_of_probabilities(given["monitor"]):
        found["loss"] = choices.name_of(_SMOOTHED)
    return found


def is_of_probabilities(monitor: Any) -> bool:
    """Return whether the metric that decides judges probabilities rather than decisions."""
    metric = decisive(monitor)
    return isinstance(metric, str) and (metric in OF_PROBABILITIES or metric.startswith("roc_auc"))


def tabm_batch_size(n_rows: int) -> int:
    """Return the size of TabM's batches for so many training rows."""
    return next((size for below, size in TABM_BATCHES.items() if n_rows < below), 1024)
