"""`fastmlp train --time-limit`: a search in place of a single fit, whose ensemble is the model."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from types import MappingProxyType
from typing import Any, NamedTuple

from fastmlp.cli.fitting import Result, Rows
from fastmlp.model import choices

#: Trials at most; networks of the model at most.
TRIALS, NETWORKS = 1000, 10


class Wanted(NamedTuple):
    """What is to be searched."""

    seconds: float
    given: Mapping[str, Any]  # parameters that the user has chosen
    seed: int


def check(seconds: float | None, given: Mapping[str, Any], *, validates: bool, folds: int, plots: bool) -> None:
    """Refuse what makes no sense with --time-limit, before any file is read."""
    if seconds is None:
        return
    import fastmlp.search  # noqa: F401 - loaded before the clock begins
    from fastmlp.data.targets import DECISION_LOSSES

    if not 0 < seconds < float("inf"):
        raise ValueError(f"--time-limit must be a number of seconds above 0, got {seconds:g}")
    if not validates:
        raise ValueError("--time-limit needs rows to validate on, --valid 0 leaves none: say --valid SHARE or FILE")
    if folds:
        raise ValueError(
            "--time-limit makes no sense with --cv, which would search in each fold: leave one of them out"
        )
    if plots:
        raise ValueError("--plot makes no sense with --time-limit, whose networks have a loss curve each")
    if choices.name_of(given.get("solver", "adam")) == "lbfgs":
        raise ValueError("--time-limit makes no sense with --solver lbfgs, which cannot be stopped after an epoch")
    if choices.name_of(given.get("loss", "log_loss")) in DECISION_LOSSES:
        raise ValueError(f"--time-limit averages probabilities, and --loss {given['loss']} has none")
    for name in ("n_ens", "n_cv"):
        if given.get(name, 1) != 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} makes no sense with --time-limit, which makes an ensemble of its own")


def largest(estimator: Any) -> tuple[int, ...]:
    """Return the hidden layers of the largest network that a search may try."""
    sizes = [layers for part in _space(estimator) for layers in part["hidden_layer_sizes"]]
    return max(sizes, key=lambda layers: (len(layers), max(layers)))


def _space(estimator: Any, given: Mapping[str, Any] = MappingProxyType({})) -> list[dict[str, Any]]:
    """Return the space of an estimator without the parameters that the user has chosen."""
    from fastmlp.search.spaces import parts_of, space_of

    return [
        {name: values for name, values in part.items() if name not in given} for part in parts_of(space_of(estimator))
    ]


def searched(
    estimator: Any, wanted: Wanted, training: Rows, validation: Rows, *, scaled: bool, told: bool
) -> tuple[Any, Result, dict[str, Any]]:
    """Return the ensemble as one estimator, how the search ended, and what the report says of it.

    Parameters that the user has chosen stay, the others are searched. Ctrl-C keeps what was found so far. A
    KeyboardInterrupt says that this was nothing.
    """
    from fastmlp.search import EnsembleSearchClassifier, EnsembleSearchRegressor

    if scaled:
        estimator.set_params(standardize_y=True)
    estimator.set_params(random_state=None)  # each trial gets a seed of its own
    cls: Any = EnsembleSearchClassifier if hasattr(estimator, "predict_proba") else EnsembleSearchRegressor
    monitor = wanted.given.get("monitor")
    search = cls(
        estimator,
        _space(estimator, wanted.given),
        time_limit=wanted.seconds,
        n_trials=TRIALS,
        ensemble_size=NETWORKS,
        scoring=monitor if isinstance(monitor, str) and monitor not in ("score", "loss") else None,
        n_jobs=estimator.n_jobs,
        random_state=wanted.seed,
        verbose=int(told),
    )
    rows_val = {"X_val": validation.X, "y_val": validation.y, "sample_weight_val": validation.weight}
    begin = time.monotonic()
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(sys.stderr):
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")
        search.fit(training.X, training.y, training.weight, **rows_val)
    seconds = time.monotonic() - begin
    return _found(search, wanted, seconds, tuple(dict.fromkeys(" ".join(str(w.message).split()) for w in caught)))


def _found(search: Any, wanted: Wanted, seconds: float, notes: tuple[str, ...]) -> tuple[Any, Result, dict[str, Any]]:
    made = search.to_estimator()
    networks = getattr(made, "estimators_", [made])
    status = search.cv_results_["status"].tolist()
    ended = f"the limit of {wanted.seconds:g} s (--time-limit)"
    if any("interrupted" in note for note in notes):
        ended = "Ctrl-C"
    elif seconds < wanted.seconds:
        ended = f"the last of {len(status):,} trials"
    report = {
        "trials": {name: status.count(name) for name in dict.fromkeys(status)},
        "networks": len(networks),
        "different_networks": len(search.estimators_),
        "score_of_defaults": float(search.cv_results_["mean_test_score"][0]),
        "score_of_best": search.best_score_,
        "score_of_ensemble": search.ensemble_score_,
        "best_parameters": {name: repr(value) for name, value in search.best_params_.items()},
    }
    epochs = max(network.n_iter_ for network in networks)
    loss = sum(float(network.loss_) for network in networks) / len(networks)
    return made, Result(epochs, "epochs", epochs, loss, ended, notes, len(networks)), {"search": report}
