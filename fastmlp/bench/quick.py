"""Suite `quick`: scikit-learn's MLPs against fastmlp's on the data sets that scikit-learn ships.

Needs the default installation only. fastmlp and scikit-learn run in this process. A race is only fair between equal
results, so `run_case` fits both once, compares the two models, and starts the clock only when they are the same.
Engines that race each other on these cases do so in fresh processes, as the rivals of the other suites do.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmlp.bench import engines, timing
from fastmlp.bench.race import Run, finite, mean, medians, ratios
from fastmlp.bench.rivals import engine_of
from fastmlp.bench.rivals import estimators as rival_estimators
from fastmlp.bench.tables import Bars, Table, difference, ratio_bars, share, times
from fastmlp.bench.workloads import flat

ROUNDS = 5
ENGINE_ROUNDS = 3  # of engines that race each other
ENGINE_SECONDS = 0.25  # for the timed fits of one process of one engine
RIVALS = ("scikit-learn", "fastmlp")

# Data set -> estimator.
DATA: Mapping[str, str] = {
    **dict.fromkeys(("iris", "wine", "breast_cancer", "digits"), "MLPClassifier"),
    **dict.fromkeys(("diabetes", "linnerud"), "MLPRegressor"),
}

# What differs from the estimators' defaults, by solver. L-BFGS is stopped early because its line
# search amplifies the last bit of every product: two runs of scikit-learn itself whose inputs
# differ by 1e-16 agree to 1e-12 after 20 steps and to 1e-2 after 200.
SOLVERS: Mapping[str, Mapping[str, Any]] = {
    "adam": {},
    "sgd": {"learning_rate_init": 0.01},
    "lbfgs": {"max_iter": 20},
}

# Largest difference of weights and of predictions that counts as the same float64 model, relative
# to the largest weight or prediction.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Case:
    """One row of the table: a data set, the hidden layers and the solver."""

    data: str
    hidden: tuple[int, ...]
    solver: str

    def params(self) -> dict[str, Any]:
        """Return the keyword arguments of both estimators; everything else stays at its default."""
        return {"hidden_layer_sizes": self.hidden, "solver": self.solver, "random_state": 0, **SOLVERS[self.solver]}


CASES: tuple[Case, ...] = (
    Case("iris", (16,), "adam"),
    Case("wine", (32, 16), "adam"),
    Case("breast_cancer", (100,), "adam"),
    Case("digits", (100,), "adam"),
    Case("diabetes", (100,), "adam"),
    Case("linnerud", (32, 16), "adam"),
    Case("iris", (16,), "sgd"),
    Case("breast_cancer", (32, 16), "sgd"),
    Case("digits", (100,), "sgd"),
    Case("diabetes", (32, 16), "sgd"),
    Case("iris", (16,), "lbfgs"),
    Case("wine", (100,), "lbfgs"),
    Case("digits", (100,), "lbfgs"),
    Case("linnerud", (100,), "lbfgs"),
)


def select(data: Iterable[str] = (), solvers: Iterable[str] = ()) -> tuple[Case, ...]:
    """Return the cases of the given data sets and solvers; an empty choice means all.

    Examples
    --------
    >>> from fastmlp.bench.quick import select
    >>> [case.solver for case in select(data=["iris"])]
    ['adam', 'sgd', 'lbfgs']
    """
    data, solvers = set(data), set(solvers)
    return tuple(case for case in CASES if (not data or case.data in data) and (not solvers or case.solver in solvers))


def load(name: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return X (n_samples, n_features) and y of a data set in `DATA`.

    Every feature is standardised, and so is every target of a regression.
    """
    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    X = np.ascontiguousarray(StandardScaler().fit_transform(X), dtype=np.float64)
    if DATA[name] == "MLPRegressor":
        shape = y.shape
        y = StandardScaler().fit_transform(y.reshape(len(y), -1)).reshape(shape)
    return X, y


def estimators(case: Case, backend: str = "auto", threads: int = 1) -> dict[str, Any]:
    """Return unfitted estimators by rival, with the same parameters."""
    ours = {"fastmlp": {"backend": backend, "n_jobs": threads}}
    return {
        rival: getattr(rival_estimators.module(rival), DATA[case.data])(**case.params(), **ours.get(rival, {}))
        for rival in RIVALS
    }


def _relative_difference(ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> float:
    """Return max |ours - theirs| / max |theirs| over lists of arrays; inf if shapes differ, NaN stays."""
    if [np.shape(a) for a in ours] != [np.shape(a) for a in theirs]:
        return float("inf")
    most = max(float(np.max(np.abs(a - b))) for a, b in zip(ours, theirs, strict=True))
    scale = max(float(np.max(np.abs(b))) for b in theirs)
    return most / scale if scale else most


def _predict(estimator: Any) -> Any:
    return getattr(estimator, "predict_proba", None) or estimator.predict


def compare(theirs: Any, ours: Any, X: NDArray[Any], tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Compare two fitted models: n_iter_ exactly, weights and predictions up to `tolerance`.

    Returns
    -------
    dict
        `weight_diff`, the largest absolute difference over all weights and biases, divided by scikit-learn's largest
        absolute weight; `prediction_diff`, the same of `predict_proba` or `predict` on the training data; `problems`,
        why the models are not the same; `same`, whether there are none.
    """
    weight_diff = _relative_difference([*ours.coefs_, *ours.intercepts_], [*theirs.coefs_, *theirs.intercepts_])
    prediction_diff = _relative_difference([_predict(ours)(X)], [_predict(theirs)(X)])
    problems = []
    if ours.n_iter_ != theirs.n_iter_:
        problems.append(f"n_iter_ is {ours.n_iter_}, scikit-learn's is {theirs.n_iter_}")
    for what, found in (("weights", weight_diff), ("predictions", prediction_diff)):
        if not found <= tolerance:  # so that NaN is a difference
            problems.append(f"{what} differ by {found:.1e}, more than {tolerance:.0e}")
    diffs = {"weight_diff": weight_diff, "prediction_diff": prediction_diff}
    return {**diffs, "problems": problems, "same": not problems}


def run_case(case: Case, repeats: int, backend: str = "auto", threads: int = 1) -> dict[str, Any]:
    """Fit both, compare, and if the models are the same time `repeats` fits of each; return all for JSON.

    The rounds are interleaved and the order within a round alternates, so that a machine that slows
    down or speeds up does so for both. Every timed model is compared too; a difference throws all
    times of the case away. Both rivals get the same number of threads.
    """
    import threadpoolctl

    X, y = load(case.data)
    models = estimators(case, backend, threads)
    with threadpoolctl.threadpool_limits(limits=threads):
        seconds, comparison = _race(models, X, y, repeats)
        score = {rival: finite(float(models[rival].score(X, y))) for rival in RIVALS}
    median = {rival: statistics.median(found) if found else None for rival, found in seconds.items()}
    return {
        "data": case.data,
        "n_samples": len(X),
        "n_features": X.shape[1],
        "layers": [X.shape[1], *case.hidden, len(models["scikit-learn"].intercepts_[-1])],
        "solver": case.solver,
        "params": {**case.params(), "hidden_layer_sizes": list(case.hidden)},
        "n_iter": {rival: int(models[rival].n_iter_) for rival in RIVALS},
        "score": score,
        "seconds": seconds,
        "median": median,
        "ratio": share(median["scikit-learn"], median["fastmlp"]),
        **comparison,
        "weight_diff": finite(comparison["weight_diff"]),
        "prediction_diff": finite(comparison["prediction_diff"]),
    }


def _race(
    models: Mapping[str, Any], X: NDArray[Any], y: NDArray[Any], repeats: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return the seconds of each rival's fits (empty if any two models differ) and the last comparison."""
    seconds: dict[str, list[float]] = {rival: [] for rival in RIVALS}
    for i in range(repeats + 1):
        # Round 0 is for the comparison and warms caches and thread pools; its times are dropped.
        for rival in RIVALS if i % 2 else reversed(RIVALS):
            elapsed = timing.fit(models[rival], X, y)
            if i:
                seconds[rival].append(elapsed)
        comparison = compare(models["scikit-learn"], models["fastmlp"], X)
        if not comparison["same"]:
            return {rival: [] for rival in RIVALS}, comparison
    return seconds, comparison


def run(run: Run) -> dict[str, Any]:
    """Run all chosen cases and return everything about them, for JSON."""
    settings, cases = run.settings, select(run.settings.data, run.settings.solvers)
    if settings.engines:
        return race_engines(cases, run)
    options: dict[str, Any] = {"repeats": settings.rounds, "backend": settings.backend, "threads": settings.threads[0]}
    found = []
    for i, case in enumerate(cases, start=1):
        run.tell(f"quick: {i} of {len(cases)}, {case.data}, {case.solver}")
        one = run_case(case, **options)
        run.problems += [f"{case.data}, {case.solver}: results differ: {problem}" for problem in one["problems"]]
        found.append(one)
    return {
        "settings": {**options, "dtype": "float64", "tolerance": TOLERANCE},
        "mean_ratio": mean([one["ratio"] for one in found]),
        "cases": found,
        "figures": {
            f"{one['data']} {one['solver']}, seconds": one["median"]["fastmlp"] for one in found if one["same"]
        },
    }


# --- engines of fastmlp side by side ----------------------------------------------------------------------------------


def race_engines(cases: Sequence[Case], run: Run) -> dict[str, Any]:
    """Return the results of the cases, each engine in fresh processes."""
    names, seconds = run.settings.engines, min(run.settings.seconds, ENGINE_SECONDS)
    run.settings = replace(run.settings, backend=names[0], dtype="float64", seconds=seconds)
    entries = []
    for case in cases:
        name, hidden = f"{case.data}, {case.solver}", list(case.hidden)
        records = run.race(name, data=case.data, hidden=hidden, solver=case.solver)
        by_threads = {str(n): ratios(records, str(n)) for n in run.settings.threads}
        entries.append({"name": name, "hidden": hidden, "rivals": records, "ratio_by_threads": by_threads})
    compared = engines.compare(entries, names)
    figures = medians(entries, ", seconds", names)
    return {"versions": run.versions, "workloads": entries, **compared, "figures": figures}


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Inside a worker: whole fits of one engine; the first is compared, the others are timed and compared by loss."""
    case = Case(request["data"], tuple(request["hidden"]), request["solver"])
    X, y = load(case.data)
    engine = engine_of(request["rival"]) or request["backend"]
    model = estimators(case, engine, request["threads"])["fastmlp"]
    curves: list[list[float]] = []

    def fit() -> float:
        elapsed = timing.fit(model, X, y)
        # of every epoch; L-BFGS has its last one only
        curves.append([float(loss) for loss in getattr(model, "loss_curve_", None) or [model.loss_]])
        return elapsed

    cold = fit()
    np.save(request["out"], flat([*model.coefs_, *model.intercepts_]))
    return {"what": "weights", "cold": cold, "seconds": timing.repeat(fit, request["seconds"]), "losses": curves}


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    if "engines" in result:
        return engines.tables(result, "Whole fits", 1e3, "ms")
    settings = result["settings"]
    changes = "; ".join(
        f"{solver} {', '.join(f'{k}={v}' for k, v in params.items())}" for solver, params in SOLVERS.items() if params
    )
    rows = [
        {
            "data": case["data"],
            "n x d": f"{case['n_samples']} x {case['n_features']}",
            "layers": "-".join(map(str, case["layers"])),
            "solver": case["solver"],
            **{f"{rival} s": case["median"][rival] for rival in RIVALS},
            "ratio": times(case["ratio"]),
            **{f"{rival} score": case["score"][rival] for rival in RIVALS},
            "weight diff": difference(case["weight_diff"]) + ("" if case["same"] else " differs"),
        }
        for case in result["cases"]
    ]
    notes = [
        f"ratio: times faster than scikit-learn; geometric mean {times(result['mean_ratio'])}.",
        f"s: median seconds of a whole fit. Interleaved rounds: {settings['repeats']}. Threads of each: "
        f"{settings['threads']}.",
        "score: accuracy or R2 on the training data.",
        f"weight diff: largest difference relative to the largest weight. More than {TOLERANCE:.0e} is an error, and "
        "so are other predictions or another number of epochs.",
        f"parameters: float64, the defaults, but for layers and random_state=0, and {changes}.",
    ]
    return [Table.of("Whole fits against scikit-learn's", rows, notes)]


def charts(result: Mapping[str, Any]) -> list[Bars]:
    if "engines" in result:
        return engines.charts(result, "Whole fits")
    ratios = {f"{case['data']}, {case['solver']}": case["ratio"] for case in result["cases"]}
    return [ratio_bars("Whole fits: times faster than scikit-learn", ratios)]
