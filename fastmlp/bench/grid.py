"""Suite `grid`: GridSearchCV on digits, 8 candidates x 5 folds in 2 processes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.bench import processes
from fastmlp.bench.race import Tell, summary
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, difference, number, percent

ROUNDS = 3
JOBS = 2
FOLDS = 5
GRID = {"hidden_layer_sizes": [(50,), (100,)], "alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 1e-2]}
FEW = {"hidden_layer_sizes": [(5,)], "alpha": [1e-4], "learning_rate_init": [1e-3, 1e-2]}  # of a quick check

# Mean scores may differ by rounding in float64, and in float32 by one row of one fold that falls the other way.
TOLERANCE = {"float32": 1.5 / 1797, "float64": 1e-12}

BEST = "best_params"


def run(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Run rounds over both; compare the scores before any time counts."""
    rounds = settings.rounds_or(ROUNDS)
    request = {
        "dtype": settings.dtype,
        "backend": settings.backend,
        "grid": FEW if settings.quick_check else GRID,
        "max_iter": 5 if settings.quick_check else 200,
    }
    answers: dict[str, list[dict[str, Any]]] = {rival: [] for rival in settings.entrants("grid")}
    problems = []
    for k in range(rounds):
        for rival, found in answers.items():
            tell(f"round {k + 1} of {rounds}, {rival}")
            try:
                # one thread each: the two processes fill two cores
                found.append(processes.ask(rival, "grid", request, threads=1))
            except processes.Failed as failure:
                problems.append(f"grid, {rival}: failed: {failure}")
    score_diff = None
    if all(answers.values()):
        every = [answer for found in answers.values() for answer in found]
        score_diff = max(float(np.max(np.abs(np.subtract(a["scores"], every[-1]["scores"])))) for a in every)
        if not score_diff <= TOLERANCE[settings.dtype]:
            problems.append(f"grid: results differ: mean scores by {score_diff:.1e}")
        if any(answer[BEST] != every[0][BEST] for answer in every):
            problems.append(f"grid: results differ: best parameters {[answer[BEST] for answer in every]}")
    times = {} if problems else {rival: _times(found) for rival, found in answers.items()}
    ratio = {
        kind: times["scikit-learn"][kind]["median"] / times["fastmlp"][kind]["median"]
        for kind in ("cold", "warm")
        if "scikit-learn" in times
    }
    return {
        "settings": {
            "rounds": rounds,
            "dtype": settings.dtype,
            "n_jobs": JOBS,
            "folds": FOLDS,
            "grid": request["grid"],
        },
        "best_params": answers["fastmlp"][0][BEST] if answers["fastmlp"] else None,
        "best_score": answers["fastmlp"][0]["best_score"] if answers["fastmlp"] else None,
        "score_diff": score_diff,
        "times": times,
        "ratio": ratio,
        "problems": problems,
        "figures": {
            f"{settings.dtype}, {kind}, seconds": times["fastmlp"][kind]["median"] for kind in ("cold", "warm") if times
        },
    }


def _times(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {kind: summary([answer[kind] for answer in answers]) for kind in ("cold", "warm")}


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Search twice: the first time the worker processes have yet to start."""
    from sklearn.model_selection import GridSearchCV

    from fastmlp.bench.quick import load
    from fastmlp.bench.rivals import estimators

    X, y = load("digits")
    X = X.astype(request["dtype"])
    ours = {"backend": request["backend"]} if request["rival"] == "fastmlp" else {}
    classifier = estimators.module(request["rival"]).MLPClassifier
    estimator = classifier(max_iter=request["max_iter"], random_state=0, **ours)
    grid = {**request["grid"], "hidden_layer_sizes": [tuple(h) for h in request["grid"]["hidden_layer_sizes"]]}
    search = GridSearchCV(estimator, grid, cv=FOLDS, n_jobs=JOBS)
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            start = time.perf_counter()
            search.fit(X, y)
            seconds.append(time.perf_counter() - start)
    return {
        "cold": seconds[0],
        "warm": seconds[1],
        "scores": search.cv_results_["mean_test_score"].tolist(),
        BEST: {name: list(v) if isinstance(v, tuple) else v for name, v in search.best_params_.items()},
        "best_score": float(search.best_score_),
    }


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    settings, ratio = result["settings"], result["ratio"]
    candidates = int(np.prod([len(values) for values in settings["grid"].values()]))
    rows = [
        [
            rival,
            number(times["cold"]["median"]),
            number(times["warm"]["median"]),
            percent(times["warm"]["spread"]),
            *(number(ratio.get(kind), "x") if rival != "fastmlp" else "-" for kind in ("cold", "warm")),
        ]
        for rival, times in result["times"].items()
    ]
    return [
        Table(
            "Grid search",
            ["rival", "first s", "second s", "spread", "ratio first", "ratio second"],
            rows,
            notes=[
                f"GridSearchCV on digits, {candidates} candidates x {settings['folds']} folds, n_jobs="
                f"{settings['n_jobs']}, {settings['dtype']}; rounds: {settings['rounds']}.",
                "first: with the start of the worker processes; second: in the same ones.",
                f"Same best parameters {result['best_params']}; mean scores differ by at most "
                f"{difference(result['score_diff'])}.",
            ],
        )
    ]


def charts(result: Mapping[str, Any]) -> list[Bars]:
    times = result["times"]
    kinds = {"first": "cold", "second": "warm"}
    return [
        Bars(
            "Grid search: seconds, first and second",
            list(times),
            {name: [one[kind]["median"] for one in times.values()] for name, kind in kinds.items()},
            "s",
        )
    ]
