"""Suite `quick`: scikit-learn's MLPs against fastmlp's on the data sets that scikit-learn ships.

Needs the default installation only. fastmlp and scikit-learn run in this process.
A race is only fair between equal results, so `run_case`
fits both once, compares the two models, and starts the clock only when they are the same. Engines that race each other
on these cases do so in fresh processes, as the rivals of the other suites do.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmlp.bench import engines, processes
from fastmlp.bench.race import Tell, problems, race, ratio
from fastmlp.bench.rivals import engine_of
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, number

REPEATS = 5
ENGINE_ROUNDS = 3
ENGINE_SECONDS = 0.25  # for the timed fits of one process of one engine
SCORES = ("score", "score")
RIVALS = ("scikit-learn", "fastmlp")

# Which estimator a data set is for: "classifier" or "regressor".
DATA: Mapping[str, str] = {
    "iris": "classifier",
    "wine": "classifier",
    "breast_cancer": "classifier",
    "digits": "classifier",
    "diabetes": "regressor",
    "linnerud": "regressor",
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
        return {
            "hidden_layer_sizes": self.hidden,
            "solver": self.solver,
            "random_state": 0,
            **SOLVERS[self.solver],
        }


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


@dataclass(frozen=True)
class Comparison:
    """How far two fitted models are apart.

    Attributes
    ----------
    weight_diff : float
        Largest absolute difference over all weights and biases, divided by scikit-learn's largest
        absolute weight.
    prediction_diff : float
        The same of `predict_proba` (classifiers) or `predict` (regressors) on the training data.
    problems : tuple of str
        Why the models are not the same; empty if they are.
    """

    weight_diff: float
    prediction_diff: float
    problems: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Row:
    """What running a case gave, with one entry per rival in each mapping.

    The lists in `seconds` are empty if the results differ.
    """

    case: Case
    n_samples: int
    layers: tuple[int, ...]  # (n_features, *hidden, n_outputs)
    n_iter: Mapping[str, int]
    score: Mapping[str, float]
    seconds: Mapping[str, Sequence[float]]
    comparison: Comparison

    def median(self, rival: str) -> float | None:
        """Return the median seconds of a whole fit, None if nothing was timed."""
        times = self.seconds.get(rival)
        return statistics.median(times) if times else None

    @property
    def ratio(self) -> float | None:
        """Times faster than scikit-learn: its median over ours."""
        theirs, ours = (self.median(rival) for rival in RIVALS)
        return None if theirs is None or ours is None else theirs / ours

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON, where a number that is not finite becomes None."""
        return {
            "data": self.case.data,
            "n_samples": self.n_samples,
            "n_features": self.layers[0],
            "layers": list(self.layers),
            "solver": self.case.solver,
            "params": {k: _plain(v) for k, v in self.case.params().items()},
            "n_iter": dict(self.n_iter),
            "score": {k: _plain(v) for k, v in self.score.items()},
            "seconds": {k: list(v) for k, v in self.seconds.items()},
            "median": {rival: self.median(rival) for rival in RIVALS},
            "ratio": self.ratio,
            "same": self.comparison.same,
            **{k: _plain(v) for k, v in asdict(self.comparison).items()},
        }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


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
    if DATA[name] == "regressor":
        shape = y.shape
        y = StandardScaler().fit_transform(y.reshape(len(y), -1)).reshape(shape)
    return X, y


def estimators(case: Case, backend: str = "auto", threads: int = 1) -> dict[str, Any]:
    """Return unfitted estimators by rival, with the same parameters."""
    from sklearn import neural_network

    import fastmlp

    name = {"classifier": "MLPClassifier", "regressor": "MLPRegressor"}[DATA[case.data]]
    return {
        "scikit-learn": getattr(neural_network, name)(**case.params()),
        "fastmlp": getattr(fastmlp, name)(backend=backend, n_jobs=threads, **case.params()),
    }


def timed_fit(estimator: Any, X: NDArray[Any], y: NDArray[Any]) -> float:
    """Fit in place and give back the seconds it took."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # A full race course is 200 epochs whether or not that is enough to converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # fit turns Ctrl-C into a warning and a half-trained model; here Ctrl-C means stop.
        warnings.filterwarnings("error", message="Training interrupted by user")
        try:
            start = time.perf_counter()
            estimator.fit(X, y)
            return time.perf_counter() - start
        except UserWarning as warning:
            if "interrupted" in str(warning):
                raise KeyboardInterrupt from None
            raise


def _relative_difference(ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> float:
    """Return max |ours - theirs| / max |theirs| over lists of arrays; inf if shapes differ, NaN stays."""
    if [np.shape(a) for a in ours] != [np.shape(a) for a in theirs]:
        return float("inf")
    difference = max(float(np.max(np.abs(a - b))) for a, b in zip(ours, theirs, strict=True))
    scale = max(float(np.max(np.abs(b))) for b in theirs)
    return difference / scale if scale else difference


def _predictions(estimator: Any, X: NDArray[Any]) -> NDArray[Any]:
    """Return class probabilities (n_samples, n_classes), or predictions (n_samples[, n_outputs])."""
    has_probabilities = hasattr(estimator, "predict_proba")
    return estimator.predict_proba(X) if has_probabilities else estimator.predict(X)


def compare(theirs: Any, ours: Any, X: NDArray[Any], tolerance: float = TOLERANCE) -> Comparison:
    """Compare two fitted models: n_iter_ exactly, weights and predictions up to `tolerance`."""
    weight_diff = _relative_difference([*ours.coefs_, *ours.intercepts_], [*theirs.coefs_, *theirs.intercepts_])
    prediction_diff = _relative_difference([_predictions(ours, X)], [_predictions(theirs, X)])
    problems = []
    if ours.n_iter_ != theirs.n_iter_:
        problems.append(f"n_iter_ is {ours.n_iter_}, scikit-learn's is {theirs.n_iter_}")
    for what, difference in (("weights", weight_diff), ("predictions", prediction_diff)):
        if not difference <= tolerance:  # so that NaN is a difference
            problems.append(f"{what} differ by {difference:.1e}, more than {tolerance:.0e}")
    return Comparison(weight_diff, prediction_diff, tuple(problems))


def run_case(case: Case, repeats: int, backend: str = "auto", threads: int = 1) -> Row:
    """Fit both, compare, and if the models are the same time `repeats` fits of each.

    The rounds are interleaved and the order within a round alternates, so that a machine that slows
    down or speeds up does so for both. Every timed model is compared too; a difference throws all
    times of the case away. Both rivals get the same number of threads.
    """
    import threadpoolctl

    X, y = load(case.data)
    models = estimators(case, backend, threads)
    with threadpoolctl.threadpool_limits(limits=threads):
        seconds, comparison = _race(models, X, y, repeats)
        score = {rival: float(models[rival].score(X, y)) for rival in RIVALS}
    n_outputs = len(models["scikit-learn"].intercepts_[-1])
    return Row(
        case=case,
        n_samples=len(X),
        layers=(X.shape[1], *case.hidden, n_outputs),
        n_iter={rival: int(models[rival].n_iter_) for rival in RIVALS},
        score=score,
        seconds=seconds,
        comparison=comparison,
    )


def _race(
    models: Mapping[str, Any], X: NDArray[Any], y: NDArray[Any], repeats: int
) -> tuple[dict[str, list[float]], Comparison]:
    """Return the seconds of each rival's fits (empty if any two models differ) and the last comparison."""
    seconds: dict[str, list[float]] = {rival: [] for rival in RIVALS}
    for i in range(repeats + 1):
        # Round 0 is for the comparison and warms caches and thread pools; its times are dropped.
        for rival in RIVALS if i % 2 else reversed(RIVALS):
            elapsed = timed_fit(models[rival], X, y)
            if i:
                seconds[rival].append(elapsed)
        comparison = compare(models["scikit-learn"], models["fastmlp"], X)
        if not comparison.same:
            return {rival: [] for rival in RIVALS}, comparison
    return seconds, comparison


def mean_ratio(rows: Iterable[Row]) -> float | None:
    """Return the geometric mean of the ratios of the rows that have one."""
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return statistics.geometric_mean(ratios) if ratios else None


def run(settings: Settings, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run all chosen cases and return everything about them, for JSON."""
    cases = select(settings.data, settings.solvers)
    if settings.engines:
        return race_engines(cases, settings, tell)
    options: dict[str, Any] = {
        "repeats": settings.rounds_or(REPEATS),
        "backend": settings.backend,
        "threads": settings.threads[0],
    }
    rows = []
    for i, case in enumerate(cases, start=1):
        tell(f"{i} of {len(cases)}, {case.data}, {case.solver}")
        rows.append(run_case(case, **options))
    return {
        "settings": {**options, "dtype": "float64", "tolerance": TOLERANCE},
        "mean_ratio": mean_ratio(rows),
        "cases": [row.as_dict() for row in rows],
        "problems": [
            f"{row.case.data}, {row.case.solver}: results differ: {problem}"
            for row in rows
            for problem in row.comparison.problems
        ],
        "figures": {
            f"{row.case.data} {row.case.solver}, seconds": median
            for row in rows
            if (median := row.median("fastmlp")) is not None
        },
    }


# --- engines of fastmlp side by side ----------------------------------------------------------------------------------


def race_engines(cases: Sequence[Case], settings: Settings, tell: Tell) -> dict[str, Any]:
    """Return the results of the cases, each engine in fresh processes."""
    versions = processes.installed(settings.entrants("quick"))
    entries = [_race_engines(case, versions, settings, tell) for case in cases]
    options = {"rounds": settings.rounds_or(ENGINE_ROUNDS), "threads": list(settings.threads), "dtype": "float64"}
    return {
        "settings": options,
        "versions": versions,
        "workloads": entries,
        **engines.compare(entries, settings.engines),
        "problems": [line for entry in entries for line in problems(entry["name"], entry["rivals"])],
        "figures": engines.figures(entries, settings.engines, ", seconds"),
    }


def _race_engines(case: Case, versions: Mapping[str, str | None], settings: Settings, tell: Tell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        request = {
            "data": case.data,
            "hidden": list(case.hidden),
            "solver": case.solver,
            "backend": settings.engines[0],
            "dtype": "float64",
            "seconds": min(settings.seconds, ENGINE_SECONDS),
            "folder": folder,
        }
        rounds, name = settings.rounds_or(ENGINE_ROUNDS), f"{case.data}, {case.solver}"
        record = race(
            "whole fits", request, versions, settings.threads, rounds, 0.0, lambda text: tell(f"{name}, {text}")
        )
    every = [name for name in versions if name != "fastmlp"]
    by_threads = {str(n): {rival: ratio(record, rival, str(n)) for rival in every} for n in settings.threads}
    return {
        "name": name,
        "hidden": list(case.hidden),
        "rivals": record,
        "ratio_by_threads": by_threads,
    }


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Inside a worker: whole fits of one engine; the first is compared, the others are timed and compared by loss."""
    case = Case(request["data"], tuple(request["hidden"]), request["solver"])
    X, y = load(case.data)
    engine = engine_of(request["rival"]) or request["backend"]
    model = estimators(case, engine, request["threads"])["fastmlp"]
    cold = timed_fit(model, X, y)
    np.save(request["out"], np.concatenate([np.ravel(array) for array in (*model.coefs_, *model.intercepts_)]))
    curves, end = [_losses(model)], time.perf_counter() + request["seconds"]
    seconds: list[float] = []
    while not seconds or time.perf_counter() < end:
        seconds.append(timed_fit(model, X, y))
        curves.append(_losses(model))
    return {"what": "weights", "cold": cold, "seconds": seconds, "losses": curves}


def _losses(model: Any) -> list[float]:
    """Of every epoch; L-BFGS has its last one only."""
    return [float(loss) for loss in getattr(model, "loss_curve_", None) or [model.loss_]]


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    if "engines" in result:
        return engines.tables(result, "Whole fits", 1e3, "ms")
    settings = result["settings"]
    changes = "; ".join(
        f"{solver} {', '.join(f'{k}={v}' for k, v in params.items())}" for solver, params in SOLVERS.items() if params
    )
    return [
        Table(
            "Whole fits against scikit-learn's",
            ["data", "n x d", "layers", "solver", *(f"{rival} s" for rival in RIVALS), "ratio", *SCORES, "weight diff"],
            [_cells(case) for case in result["cases"]],
            notes=[
                f"ratio: times faster than scikit-learn; geometric mean {number(result['mean_ratio'], 'x')}.",
                f"s: median seconds of a whole fit. Interleaved rounds: {settings['repeats']}. "
                f"Threads of each: {settings['threads']}.",
                "score: accuracy or R2 on the training data.",
                "weight diff: largest difference relative to the largest weight. More than "
                f"{TOLERANCE:.0e} is an error, and so are other predictions or another number of epochs.",
                f"parameters: float64, the defaults, but for layers and random_state=0, and {changes}.",
            ],
            left=["layers", "solver"],
        )
    ]


def _cells(case: Mapping[str, Any]) -> list[str]:
    difference = case["weight_diff"]
    return [
        case["data"],
        f"{case['n_samples']} x {case['n_features']}",
        "-".join(map(str, case["layers"])),
        case["solver"],
        *(_fixed(case["median"][rival], 4) for rival in RIVALS),
        number(case["ratio"], "x"),
        *(_fixed(case["score"][rival], 3) for rival in RIVALS),
        "-" if difference is None else f"{difference:.1e}{'' if case['same'] else ' differs'}",
    ]


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def charts(result: Mapping[str, Any]) -> list[Bars]:
    if "engines" in result:
        return engines.charts(result, "Whole fits")
    cases = result["cases"]
    return [
        Bars(
            "Whole fits: times faster than scikit-learn",
            [f"{case['data']}, {case['solver']}" for case in cases],
            {"ratio": [case["ratio"] for case in cases]},
            "x",
            log=True,
            line=1,
        )
    ]
