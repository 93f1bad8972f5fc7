"""The present settings as a program: the same rows, the same first weights, the same epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastmlp.playground.data import Table
from fastmlp.playground.settings import Settings


def program(settings: Settings, task: str, parameters: Mapping[str, Any], n_epochs: int, table: Table | None) -> str:
    """Return Python that fits as the page has done: `n_epochs` epochs, at least one.

    `parameters` are those of the estimator that differ from its defaults.
    """
    name = "MLPClassifier" if task == "classification" else "MLPRegressor"
    data = {name: settings[name] for name in ("n_samples", "noise", "train_share", "features", "random_state")}
    source = repr(settings["dataset"]) if table is None else "table"
    n_epochs = max(n_epochs, 1)
    lines = [
        f"from fastmlp import {name}",
        f"from fastmlp.playground import make_data{', read_table' if table is not None else ''}",
        "",
        *([] if table is None else [f"table = {table.call}"]),
        "X_train, X_test, y_train, y_test = make_data(",
        f"    {source},",
        *_arguments(data),
        ")",
        f"model = {name}(",
        *_arguments(parameters),
        ")",
        *_training(parameters, n_epochs),
        'print("train", model.score(X_train, y_train), "test", model.score(X_test, y_test))',
    ]
    return "\n".join(lines) + "\n"


def _training(parameters: Mapping[str, Any], n_epochs: int) -> list[str]:
    if parameters.get("solver") == "lbfgs":
        return [f"model.set_params(max_iter={n_epochs}).fit(X_train, y_train)"]
    return [
        "model.initialize(X_train, y_train)",
        f"for epoch in range({n_epochs}):",
        "    model.partial_fit(X_train, y_train)",
    ]


def _arguments(given: Mapping[str, Any]) -> list[str]:
    return [f"    {name}={value!r}," for name, value in given.items()]
