"""Suite `grid`: a grid search on digits, 8 candidates x 5 folds: scikit-learn's in 2 processes, ours on 2 threads."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.bench import processes
from fastmlp.bench.race import Run, summary
from fastmlp.bench.tables import Bars, Table, difference, percent, times
from fastmlp.bench.timing import clock

ROUNDS = 3
JOBS = 2
FOLDS = 5
GRID = {"hidden_layer_sizes": [(50,), (100,)], "alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 1e-2]}
FEW = {"hidden_layer_sizes": [(5,)], "alpha": [1e-4], "learning_rate_init": [1e-3, 1e-2]}  # of a quick check

# Mean scores may differ by rounding in float64, and in float32 by one row of one fold that falls the other way.
TOLERANCE = {"float32": 1.5 / 1797, "float64": 1e-12}

KINDS = ("cold", "warm")


def run(run: Run) -> dict[str, Any]:
    """Run rounds over both; compare the scores before any time counts."""
    settings, problems = run.settings, run.problems
    grid = FEW if settings.quick_check else GRID
    request = settings.question(grid=grid, max_iter=5 if settings.quick_check else 200)
    # one thread each: two networks at a time fill two cores
    answers = run.gather("grid", settings.entrants("grid"), lambda rival: processes.ask(rival, "grid", request))
    every = [answer for found in answers.values() for answer in found]
    score_diff = None
    if all(answers.values()):
        score_diff = max(float(np.max(np.abs(np.subtract(one["scores"], every[-1]["scores"])))) for one in every)
        if not score_diff <= TOLERANCE[settings.dtype]:
            problems.append(f"grid: results differ: mean scores by {score_diff:.1e}")
        if any(one["best_params"] != every[0]["best_params"] for one in every):
            problems.append(f"grid: results differ: best parameters {[one['best_params'] for one in every]}")
    times = (
        {}
        if problems
        else {
            rival: {kind: summary([one[kind] for one in found]) for kind in KINDS} for rival, found in answers.items()
        }
    )
    medians = {rival: {kind: times[rival][kind]["median"] for kind in KINDS} for rival in times}
    theirs, ours = medians.get("scikit-learn"), medians.get("fastmlp", {})
    first = answers["fastmlp"][0] if answers["fastmlp"] else {}
    return {
        "settings": settings.shown(threads=[1], n_jobs=JOBS, folds=FOLDS, grid=grid),
        "best_params": first.get("best_params"),
        "best_score": first.get("best_score"),
        "score_diff": score_diff,
        "times": times,
        "ratio": {kind: theirs[kind] / ours[kind] for kind in KINDS} if theirs else {},
        "figures": {f"{settings.dtype}, {kind}, seconds": median for kind, median in ours.items()},
    }


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Search twice: the first time worker processes, if there are any, have yet to start."""
    from sklearn.model_selection import GridSearchCV

    from fastmlp.bench.quick import load
    from fastmlp.bench.rivals import estimators
    from fastmlp.search import BatchedGridSearchCV

    X, y = load("digits")
    X = X.astype(request["dtype"])
    ours = {"backend": request["backend"]} if request["rival"] == "fastmlp" else {}
    classifier = estimators.module(request["rival"]).MLPClassifier
    estimator = classifier(max_iter=request["max_iter"], random_state=0, **ours)
    grid = {**request["grid"], "hidden_layer_sizes": [tuple(h) for h in request["grid"]["hidden_layer_sizes"]]}
    search = (BatchedGridSearchCV if ours else GridSearchCV)(estimator, grid, cv=FOLDS, n_jobs=JOBS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = {kind: clock(search.fit, X, y) for kind in KINDS}
    return {
        **seconds,
        "scores": search.cv_results_["mean_test_score"].tolist(),
        "best_params": {name: list(v) if isinstance(v, tuple) else v for name, v in search.best_params_.items()},
        "best_score": float(search.best_score_),
    }


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    settings, ratio = result["settings"], result["ratio"]
    candidates = int(np.prod([len(values) for values in settings["grid"].values()]))
    rows = [
        {
            "rival": rival,
            "first s": found["cold"]["median"],
            "second s": found["warm"]["median"],
            "spread": percent(found["warm"]["spread"]),
            "ratio first": times(ratio.get("cold")) if rival != "fastmlp" else "-",
            "ratio second": times(ratio.get("warm")) if rival != "fastmlp" else "-",
        }
        for rival, found in result["times"].items()
    ]
    notes = [
        f"Grid search on digits, {candidates} candidates x {settings['folds']} folds, n_jobs={settings['n_jobs']}, "
        f"{settings['dtype']}; rounds: {settings['rounds']}.",
        "scikit-learn: GridSearchCV in processes; fastmlp: BatchedGridSearchCV on threads.",
        "first: with the start of the worker processes; second: in the same ones.",
        f"Same best parameters {result['best_params']}; mean scores differ by at most "
        f"{difference(result['score_diff'])}.",
    ]
    return [Table.of("Grid search", rows, notes)]


def charts(result: Mapping[str, Any]) -> list[Bars]:
    found = result["times"]
    series = {
        name: [one[kind]["median"] for one in found.values()] for name, kind in (("first", "cold"), ("second", "warm"))
    }
    return [Bars("Grid search: seconds, first and second", list(found), series, "s")]
