"""Suite `many`: 8, 64 and 512 small nets at once, as a search trains them, start to end; and a grid search to its end.

The nets of a case are the candidates of a grid, each on every split of the rows. Splits have equal sizes and fits an
equal number of epochs, so that `jax.vmap` can train the same nets. In "search" sizes differ and fits end by themselves;
only searches take part.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import processes, rivals
from fastmlp.bench.race import TOLERANCE, Run, finite, summary
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, difference, number, percent, times
from fastmlp.bench.timing import clock
from fastmlp.bench.workloads import WORKLOADS, Task

ROUNDS = 3
JOBS = 2  # networks at a time, with one thread each; or threads of one process that trains all nets
NETS = (8, 64, 512)
EPOCHS = {"iris": 20, "digits": 10, "housing": 2}  # by workload
RATES = (1e-3, 3e-3)
SPLITS = 4
TEST_SHARE = 0.2

OURS = "fastmlp batched"
#: Who trains the nets -> (rival, how).
WAYS: Mapping[str, tuple[str, str]] = {
    OURS: ("fastmlp", "batched"),
    "fastmlp loky": ("fastmlp", "loky"),
    "fastmlp threads": ("fastmlp", "threading"),
    "scikit-learn loky": ("scikit-learn", "loky"),
    "scikit-learn threads": ("scikit-learn", "threading"),
    "jax.vmap": ("jax", "vmap"),
}
JUDGE = "scikit-learn loky"

KINDS = ("cold", "warm")


@dataclass(frozen=True)
class Case:
    """Nets to train: each candidate of a grid on each split."""

    name: str
    workload: str
    grid: Mapping[str, list[Any]]
    splits: int
    max_iter: int
    to_the_end: bool = False  # fits end by scikit-learn's default rule

    @property
    def candidates(self) -> list[dict[str, Any]]:
        from sklearn.model_selection import ParameterGrid

        return list(ParameterGrid(self.grid))

    @property
    def ways(self) -> dict[str, tuple[str, str]]:
        """Who can train them."""
        return {label: way for label, way in WAYS.items() if not self.to_the_end or way[1] != "vmap"}

    @property
    def scoring(self) -> str:
        """Return what is compared: by rounding alone a fit to the end may take other epochs, which moves its loss."""
        return "accuracy" if self.to_the_end else "neg_log_loss"

    def write(self, folder: Path, dtype: str) -> int:
        """Leave data and splits for the workers; return how many rows a split tests."""
        from sklearn.model_selection import StratifiedShuffleSplit

        WORKLOADS[self.workload].write(folder, dtype)
        X, y = np.load(folder / "X.npy"), np.load(folder / "y.npy")
        splitter = StratifiedShuffleSplit(self.splits, test_size=TEST_SHARE, random_state=0)
        train, test = (np.array(rows) for rows in zip(*splitter.split(X, y), strict=True))
        np.save(folder / "train.npy", train)  # (splits, rows)
        np.save(folder / "test.npy", test)
        return test.shape[1]


def cases(settings: Settings) -> list[Case]:
    """Return the cases of the chosen workloads, the smallest ones for a quick check."""
    if settings.quick_check:
        few: dict[str, list[Any]] = {"hidden_layer_sizes": [[5]], "alpha": [1e-4], "learning_rate_init": list(RATES)}
        return [_case("iris", 8, epochs=1), Case("digits, search", "digits", few, 5, 5, to_the_end=True)]
    chosen = [workload.name for workload in settings.named({name: WORKLOADS[name] for name in EPOCHS})]
    found = [_case(name, nets, EPOCHS[name]) for name in chosen for nets in NETS]
    if "digits" in chosen:
        grid: dict[str, list[Any]] = {
            "hidden_layer_sizes": [[50], [100]],
            "alpha": [1e-4, 1e-2],
            "learning_rate_init": [1e-3, 1e-2],
        }
        found.append(Case("digits, search", "digits", grid, 5, 200, to_the_end=True))
    return found


def _case(workload: str, nets: int, epochs: int) -> Case:
    seeds = list(range(nets // (SPLITS * len(RATES))))
    return Case(
        f"{workload}, {nets} nets", workload, {"learning_rate_init": list(RATES), "random_state": seeds}, SPLITS, epochs
    )


def run(run: Run) -> dict[str, Any]:
    """Run rounds over all ways of each case; compare the scores before any time counts."""
    settings = run.settings
    entries = [_entry(run, case) for case in cases(settings)]
    return {
        "settings": settings.shown(threads=[1], n_jobs=JOBS),
        "cases": entries,
        "figures": {
            f"{entry['name']}, {settings.dtype}, {kind}, seconds": entry["times"][OURS][kind]["median"]
            for entry in entries
            if OURS in entry["times"]
            for kind in KINDS
        },
    }


def _entry(run: Run, case: Case) -> dict[str, Any]:
    """Return the result of a case."""
    settings, versions, known = run.settings, run.versions, len(run.problems)
    ways = {label: way for label, way in case.ways.items() if way[0] in versions}
    present = [label for label, (rival, _) in ways.items() if versions[rival] is not None]
    candidates = case.candidates
    with tempfile.TemporaryDirectory() as folder:
        n_test = case.write(Path(folder), settings.dtype)
        request = settings.question(
            WORKLOADS[case.workload],
            folder=folder,
            grid=case.grid,
            candidates=candidates,
            max_iter=case.max_iter,
            to_the_end=case.to_the_end,
            scoring=case.scoring,
        )

        def ask(label: str) -> dict[str, Any]:
            rival, how = ways[label]
            return processes.ask(rival, "many", {**request, "how": how}, threads=JOBS if how == "vmap" else 1)

        answers = run.gather(case.name, present, ask)
    judge = JUDGE if answers.get(JUDGE) else OURS
    diffs = {}
    for label, found in answers.items() if answers[judge] else ():
        diffs[label] = _difference(case, [one["scores"] for one in found], answers[judge][0]["scores"])
        limit = _limit(case, settings, n_test)
        if not diffs[label] <= limit:  # so that NaN is a difference
            run.problems.append(
                f"{case.name}, {label}: results differ: scores by {diffs[label]:.1e}, more than {limit:.0e}"
            )
    right = len(run.problems) == known
    timed = {
        label: {kind: summary([one[kind] for one in found]) for kind in KINDS}
        for label, found in answers.items()
        if right
    }
    ours = timed.get(OURS)
    return {
        "name": case.name,
        "nets": len(candidates) * case.splits,
        "epochs": None if case.to_the_end else case.max_iter,
        "score_diffs": {label: finite(diff) for label, diff in diffs.items()},
        "absent": [label for label in ways if label not in present],
        "times": timed,
        "ratio": {
            label: {kind: found[kind]["median"] / ours[kind]["median"] for kind in KINDS}
            for label, found in timed.items()
            if ours and label != OURS
        },
    }


def _difference(case: Case, scores: list[list[float]], judged: list[float]) -> float:
    """Return the largest difference between scores and the judge's, of losses relative to the loss."""
    if any(len(one) != len(judged) for one in scores):
        return float("inf")
    apart = np.abs(np.subtract(scores, judged))
    return float(np.max(apart if case.to_the_end else apart / np.abs(judged), initial=0.0))


def _limit(case: Case, settings: Settings, n_test: int) -> float:
    """Return the largest difference that counts as the same result: of accuracies one row per split, for rounding."""
    if not case.to_the_end:
        return TOLERANCE[settings.dtype]["losses"]
    return 1e-12 if settings.dtype == "float64" else 1.5 / n_test


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Train and score all nets twice: the first time workers have yet to start, or code has yet to be compiled."""
    task, folder = Task.read(request), Path(request["folder"])
    splits = list(zip(np.load(folder / "train.npy"), np.load(folder / "test.npy"), strict=True))
    if request["how"] == "vmap":
        scores = rivals.load(request["rival"]).scorer(task, request["candidates"], splits, request["max_iter"])
    else:
        scores = _search(request, task, splits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: list[np.ndarray] = []
        seconds = {kind: clock(lambda: found.append(scores())) for kind in KINDS}
    return {**seconds, "scores": found[-1].ravel().tolist()}


def _search(request: Mapping[str, Any], task: Task, splits: list[Any]) -> Callable[[], np.ndarray]:
    """Return a function that searches the grid and returns scores (candidates, splits)."""
    from joblib import parallel_config
    from sklearn.model_selection import GridSearchCV

    from fastmlp.search import BatchedGridSearchCV

    estimator = rivals.load(request["rival"]).Trainer(task, request["rival"]).estimator
    estimator.set_params(max_iter=request["max_iter"])
    if request["to_the_end"]:
        estimator.set_params(tol=1e-4, n_iter_no_change=10)
    grid = dict(request["grid"])
    if "hidden_layer_sizes" in grid:
        grid["hidden_layer_sizes"] = [tuple(sizes) for sizes in grid["hidden_layer_sizes"]]
    options = {"cv": splits, "scoring": request["scoring"], "refit": False, "n_jobs": JOBS}

    def scores() -> np.ndarray:
        if request["how"] == "batched":
            search = BatchedGridSearchCV(estimator, grid, **options).fit(task.X, task.y)
        else:
            with parallel_config(request["how"]):
                search = GridSearchCV(estimator, grid, **options).fit(task.X, task.y)
        return np.stack([search.cv_results_[f"split{k}_test_score"] for k in range(len(splits))], axis=1)

    return scores


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    return [_table(entry, result["settings"]) for entry in result["cases"]]


def _table(entry: Mapping[str, Any], settings: Mapping[str, Any]) -> Table:
    rows = []
    for label in (*entry["score_diffs"], *entry["absent"]):
        found, ratio = entry["times"].get(label), entry["ratio"].get(label, {})
        missing = "absent" if label in entry["absent"] else "-"
        rows.append(
            {
                "rival": label,
                "first s": number(found["cold"]["median"]) if found else missing,
                "second s": number(found["warm"]["median"]) if found else missing,
                "spread": percent(found["warm"]["spread"]) if found else "-",
                "ratio first": times(ratio.get("cold")),
                "ratio second": times(ratio.get("warm")),
                "score diff": difference(entry["score_diffs"].get(label)),
            }
        )
    length = "each to its end" if entry["epochs"] is None else f"epochs of each: {entry['epochs']}"
    notes = [
        f"{entry['nets']} fits and their scores, {length}; n_jobs={settings['n_jobs']}, {settings['dtype']}; "
        f"rounds: {settings['rounds']}.",
        "first: with the start of workers and compilation; second: in the same process.",
    ]
    return Table.of(entry["name"], rows, notes)


def charts(result: Mapping[str, Any]) -> list[Bars]:
    cases = [entry for entry in result["cases"] if entry["times"]]
    labels = [entry["name"] for entry in cases]
    ways = [label for label in WAYS if any(label in entry["times"] for entry in cases)]
    return [
        Bars(
            f"Many nets: seconds, {name} time",
            labels,
            {
                way: [entry["times"][way][kind]["median"] if way in entry["times"] else None for entry in cases]
                for way in ways
            },
            "s",
            log=True,
        )
        for name, kind in (("first", "cold"), ("second", "warm"))
    ]
