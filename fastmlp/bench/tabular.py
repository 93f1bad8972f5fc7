"""Suite `tabular`: errors and times of estimators at their defaults, on tables that packages ship.

Every rival sees the same splits: 80 % of the rows train, 20 % test, seeded, stratified for classes. A network takes its
validation rows from the training part. A fresh process fits one rival on one table, split by split, for as long as
AT_ONCE says; a first fit on a few rows, with one step or epoch, pays for imports and compilations and is not timed. The
times include the preparation of columns.

A full run takes hours. Its results are kept after every answer, and a run that finds some goes on behind them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import processes, scores
from fastmlp.bench.datasets import packages, reading, splits
from fastmlp.bench.datasets.declared import TABLES, Declared
from fastmlp.bench.race import Run
from fastmlp.bench.rivals.models import MODELS, OURS
from fastmlp.bench.settings import Unusable
from fastmlp.bench.standings import Standings
from fastmlp.bench.tables import Points, Table, percent, scaled

ROUNDS = 5  # splits
MOST_ROWS = 100_000
CHECKED_ROWS, CHECKED_TABLES = 300, ("digits", "credit", "abalone")  # of --quick-check

AT_ONCE = 60.0  # seconds: a process begins no further split after this
LIMIT = 6 * 3600.0  # seconds that a process may take
PREDICTED = 1000  # rows of a timed prediction
WARMING = 200  # rows of the fit that is not timed
MOST_COLUMNS = 10  # rivals side by side in a table


def why_not() -> str | None:
    """Return what is missing."""
    return None if find_spec("pandas") else "it needs pandas: pip install 'fastmlp[tables]'"


def run(run: Run) -> dict[str, Any]:
    """Fit what is not held yet; return results ready for JSON."""
    settings = run.settings
    n_splits = settings.rounds or ROUNDS
    max_rows = settings.max_rows or (CHECKED_ROWS if settings.quick_check else MOST_ROWS)
    how: dict[str, Any] = {"max_rows": max_rows, "threads": settings.threads[-1], "test": splits.TEST}
    held = _held(run.held, how)
    entrants = _entrants(run)
    shown = {"rivals": list(entrants), "tables": list(_chosen(run))}
    versions = {**held.get("versions", {}), **{name: found for name, found in entrants.items() if found}}
    result = {
        "versions": {**dict.fromkeys(entrants), **versions},
        "how": how,
        "shown": shown,
        "against": settings.against,
    }
    records: list[dict[str, Any]] = list(held.get("records", []))
    facts: dict[str, Any] = dict(held.get("tables", {}))

    def document() -> dict[str, Any]:
        return {**result, "tables": facts, "records": records, "figures": _figures(records)}

    for row in [] if settings.show else _rows(run):
        missing = _missing(records, row.name, [name for name in entrants if entrants[name]], n_splits)
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as folder:
            facts[row.name] = _prepare(row, Path(folder), n_splits, max_rows, settings.wheels, facts.get(row.name))
            for rival, seeds in missing.items():
                for found in _answers(run, row.name, rival, seeds, folder, how["threads"]):
                    records += found
                    run.keep(document())
    return document()


def _held(held: Mapping[str, Any] | None, how: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of an earlier run, if it was made in the same way."""
    if not held:
        return {}
    other = [f"{name} {held['how'].get(name)}" for name, value in how.items() if held["how"].get(name) != value]
    if other:
        raise Unusable(f"the file holds results of a run with other settings: {', '.join(other)}")
    return dict(held)


def _entrants(run: Run) -> dict[str, str | None]:
    """Return the version of each rival that takes part, None for one that is absent."""
    import fastmlp

    chosen = [name for name in MODELS if name in run.settings.entrants(run.suite)]
    here = {name for name in chosen if name in OURS and hasattr(fastmlp, OURS[name].estimator(True))}
    versions = processes.installed(name for name in chosen if name in here or name not in OURS)
    return {name: versions.get(name) for name in chosen}


def _chosen(run: Run) -> tuple[str, ...]:
    """Return the names of the chosen tables, in the order of the table."""
    chosen = run.settings.tables or (CHECKED_TABLES if run.settings.quick_check else tuple(TABLES))
    return tuple(name for name in TABLES if name in chosen)


def _rows(run: Run) -> list[Declared]:
    """Return the chosen tables whose packages are there; say which are not."""
    settings = run.settings
    rows = [TABLES[name] for name in _chosen(run)]
    there = {package: packages.found(package, settings.wheels) for package in {row.package for row in rows}}
    absent = sorted(package for package, found in there.items() if not found)
    if absent:
        run.tell(f"tabular: left out: tables of {', '.join(absent)}")
    if not any(there.values()):
        raise Unusable(f"no package of these tables is installed: pip install {' '.join(absent)}")
    return [row for row in rows if there[row.package]]


def _missing(
    records: Iterable[Mapping[str, Any]], table: str, rivals: Iterable[str], n_splits: int
) -> dict[str, list[int]]:
    """Return the splits of a table that each rival has still to do."""
    done = {(record["rival"], record["split"]) for record in records if record["table"] == table}
    missing = {rival: [seed for seed in range(n_splits) if (rival, seed) not in done] for rival in rivals}
    return {rival: seeds for rival, seeds in missing.items() if seeds}


def _prepare(
    row: Declared, folder: Path, n_splits: int, max_rows: int, wheels: Path | None, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Write a table for the workers; return its facts, which must be those of an earlier run."""
    frame = reading.load(row, wheels)
    task = splits.make(frame, row.task, n_splits, max_rows)
    splits.write(task, folder)
    used = {"task": row.task, "package": row.package, "used": len(task.y), "test_rows": len(task.splits[0].test)}
    facts = {**used, **frame.facts(row.task)}
    if before is not None and dict(before) != facts:
        raise Unusable(f"the file holds results of other rows of the table {row.name}")
    return facts


def _answers(
    run: Run, table: str, rival: str, seeds: Sequence[int], folder: str, threads: int
) -> Iterable[list[dict[str, Any]]]:
    """Yield the records of each process until all splits are done, or one process fails."""
    left = list(seeds)
    while left:
        run.tell(f"tabular: {table}, {rival}, {len(left)} splits left")
        request = {"folder": folder, "splits": left}
        try:
            answers = processes.ask(rival, "tabular", request, threads, limit=LIMIT)["splits"]
        except processes.Failed as failure:
            run.problems.append(f"{table}, {rival}: failed: {failure}")
            return
        yield [
            {"table": table, "rival": rival, "split": seed, **answers[k]} for k, seed in enumerate(left[: len(answers)])
        ]
        left = left[len(answers) :]


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return errors and times of a rival on splits of the table in the folder: of all that there is time for."""
    warnings.simplefilter("ignore")  # of fits that do not converge, of names of columns
    task = splits.read(Path(request["folder"]))
    start = time.perf_counter()
    _warm_up(task, request)
    answers: list[dict[str, Any]] = []
    for seed in request["splits"]:
        answers.append(_one(task, request, seed))
        if time.perf_counter() - start > AT_ONCE:
            break
    return {"splits": answers}


def _estimator(task: splits.Task, request: Mapping[str, Any], seed: int, brief: bool = False) -> Any:
    from fastmlp.bench.rivals.tabular import build

    return build(request["rival"], task.X, task.classifies, seed, request["threads"], brief)


def _warm_up(task: splits.Task, request: Mapping[str, Any]) -> None:
    every = task.splits[0].train
    rows = every[:WARMING]
    if task.classifies:  # some rows of each class
        firsts = [every[task.y[every] == label][: splits.FEWEST // 2] for label in np.unique(task.y)]
        rows = np.unique(np.concatenate([rows, *firsts]))
    estimator = _estimator(task, request, 0, brief=True)
    estimator.fit(task.X.iloc[rows], task.y[rows])
    _outputs(estimator, task, task.X.iloc[rows])


def _one(task: splits.Task, request: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the scores and the seconds of one split."""
    from fastmlp.bench.timing import clock, repeat, timed

    split = task.splits[seed]
    X_train, X_test = task.X.iloc[split.train], task.X.iloc[split.test]
    estimator = _estimator(task, request, seed)
    fit_seconds = timed(estimator.fit, X_train, task.y[split.train])[0]
    outputs = _outputs(estimator, task, X_test)
    thousand = task.X.iloc[np.resize(split.test, PREDICTED)]
    predict_seconds = statistics.median(repeat(lambda: clock(_outputs, estimator, task, thousand), 0.5))
    return {**_scores(task, split, outputs), "fit_seconds": fit_seconds, "predict_seconds": predict_seconds}


def _outputs(estimator: Any, task: splits.Task, X: Any) -> np.ndarray:
    """Return probabilities (n, n_classes) of the classes that training showed, or values (n,)."""
    return np.asarray(estimator.predict_proba(X) if task.classifies else estimator.predict(X), dtype=np.float64)


def _scores(task: splits.Task, split: splits.Split, outputs: np.ndarray) -> dict[str, float | None]:
    y = task.y[split.test]
    if not task.classifies:
        return {
            "error": float(np.sqrt(np.mean((outputs.ravel() - y) ** 2)) / task.y.std()),
            "log_loss": None,
            "auc": None,
        }
    from sklearn.metrics import roc_auc_score

    n_classes = int(task.y.max()) + 1
    p = outputs / outputs.sum(axis=1, keepdims=True)
    auc = roc_auc_score(y, p[:, 1]) if n_classes == 2 else roc_auc_score(y, p, multi_class="ovr")
    of_label = np.maximum(p[np.arange(len(y)), y], np.finfo(np.float64).eps)
    return {
        "error": float(np.mean(p.argmax(axis=1) != y)),
        "log_loss": float(-np.log(of_label).mean()),
        "auc": float(auc),
    }


# --- what is shown --------------------------------------------------------------------------------------------------


def _figures(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the figures to compare: what our fits take, their median over splits."""
    seconds: dict[str, list[float]] = {}
    for record in records:
        if record["rival"] in OURS:
            seconds.setdefault(f"{record['table']}, {record['rival']}: fit", []).append(record["fit_seconds"])
    return {name: statistics.median(values) for name, values in seconds.items()}


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the standing of all rivals, each against one of them, errors and times per table, and the tables."""
    standings = Standings.of(result)
    if not standings.records:
        return [of_tables(result)]
    return [
        standing(standings, result),
        against(standings, result["against"] or _ours(standings)),
        *_per_table(standings, "Error: means over splits", "error", 1.0, ERROR_NOTES),
        *_per_table(standings, "Seconds of a fit: means over splits", "fit_seconds"),
        *_per_table(standings, f"Milliseconds of predicting {PREDICTED} rows", "predict_seconds", 1e3),
        of_tables(result),
    ]


OF_TABLES = "Tables"
ERROR_NOTES = (
    "Classification: 1 - accuracy. Regression: root mean squared error over the standard deviation of all targets.",
)


def standing(standings: Standings, result: Mapping[str, Any]) -> Table:
    """Return ranks, errors and seconds of all rivals, the best first, and of those that are not ranked."""
    losses = standings.log_loss_ratios
    fits, predictions = standings.seconds("fit_seconds"), standings.seconds("predict_seconds")
    rows = []
    for k in np.argsort(standings.ranks, kind="stable"):
        name = standings.ranked[k]
        rows.append(
            {
                "rival": name,
                "tables": len(standings.tables_of([name])),
                "mean rank": f"{standings.ranks[k]:.2f}",
                "normalised": f"{standings.normalised[k]:.3f}",
                "error": f"{standings.error_ratios[k]:.3f}",
                "log loss": "-" if losses is None else f"{losses[k]:.3f}",
                "fit s": float(fits[k]),
                "predict ms": float(1e3 * predictions[k]),
            }
        )
    for name in standings.rivals:
        if name not in standings.ranked:
            rows.append({"rival": name, "tables": len(standings.tables_of([name])), "mean rank": "-"})
    how = result["how"]
    notes = [
        f"Ranks of mean errors on the {len(standings.common)} tables that all ranked rivals have; 1 is the best. At "
        f"most {how['max_rows']:,} rows of a table; 80 % train, 20 % test.",
        "normalised: (e - lowest) / (median - lowest), at most 1, with lowest and median over a table's rivals; mean.",
        f"error, log loss: over {standings.reference}'s, geometric mean over tables (log loss: of classification).",
        f"fit s, predict ms: geometric means over tables, columns prepared; {PREDICTED} rows predicted. Threads of "
        f"each: {how['threads']}.",
        f"Not ranked: rivals with less than half of the tables. Absent: {_absent(result)}.",
    ]
    return Table.of("Standing", rows, notes)


def _absent(result: Mapping[str, Any]) -> str:
    return ", ".join(name for name, version in result["versions"].items() if version is None) or "none"


def _ours(standings: Standings) -> str:
    """Return the rival that the others are compared with: the best of ours, or the best of all."""
    places = [k for k, name in enumerate(standings.ranked) if name in OURS] or range(len(standings.ranked))
    return standings.ranked[min(places, key=lambda k: standings.ranks[k])]


def against(standings: Standings, name: str) -> Table:
    """Return the paired comparison of every other rival with one."""
    rows: list[dict[str, str]] = []
    for rival in standings.rivals:
        found = None if rival == name else standings.paired(name, rival)
        if found is not None:
            rows.append(
                {
                    "rival": rival,
                    "tables": f"{found['tables']} x {found['splits']}",
                    "error": f"{found['ratio']:.3f}",
                    "lower": f"{found['lower']} ({found['clearly lower']})",
                    "higher": f"{found['higher']} ({found['clearly higher']})",
                    "p": f"{found['p']:.2g}",
                }
            )
    notes = [
        f"error: {name}'s over the rival's, geometric mean over tables, each x the splits that both have done.",
        f"lower, higher: tables on which {name}'s mean error is that; in brackets those with p < {scores.LEVEL} by "
        "Nadeau and Bengio's corrected resampled t-test over the splits.",
        "p: Wilcoxon's signed-rank test over tables, two-sided, of the logarithms of the ratios.",
    ]
    return Table.of(f"{name} against each", rows, notes)


def _per_table(
    standings: Standings, title: str, what: str, scale: float = 1.0, notes: Sequence[str] = ()
) -> list[Table]:
    """Return means by table and rival, in as many tables as a terminal needs."""
    parts = -(-len(standings.rivals) // MOST_COLUMNS)
    width = -(-len(standings.rivals) // parts)
    found = []
    for start in range(0, len(standings.rivals), width):
        rivals, rows = standings.rivals[start : start + width], []
        for table in standings.facts:
            means = {rival: standings.mean(table, rival, what) for rival in rivals}
            rows.append({"table": table, **{rival: scaled(value, scale) for rival, value in means.items()}})
        found.append(Table.of(title, rows, notes if start + width >= len(standings.rivals) else ()))
    return found


def of_tables(result: Mapping[str, Any]) -> Table:
    """Return the facts of the tables."""
    rows = [
        {
            "table": name,
            "package": facts["package"],
            "rows": f"{facts['rows']:,}",
            "used": f"{facts['used']:,}",
            "columns": facts["columns"],
            "categorical": facts["categorical"],
            "most categories": facts["most categories"],
            "missing": percent(facts["missing"]),
            "classes": facts["classes"] or "-",
        }
        for name, facts in result["tables"].items()
    ]
    return Table.of(OF_TABLES, rows, ["most categories: of one column; classes: - for regression."])


def charts(result: Mapping[str, Any]) -> list[Points]:
    """Return the chart of mean ranks against seconds of a fit."""
    standings = Standings.of(result)
    if len(standings.ranked) < 2:
        return []
    return [rank_chart(standings)]


def rank_chart(standings: Standings) -> Points:
    """Return mean rank against seconds of a fit, one point per ranked rival."""
    seconds = standings.seconds("fit_seconds")
    return Points(
        f"Mean rank of the test error on {len(standings.common)} tables: the upper left is best",
        {name: (float(seconds[k]), float(standings.ranks[k])) for k, name in enumerate(standings.ranked)},
        "seconds of a fit, geometric mean over tables",
        "mean rank, the best on top",
        frozenset(OURS),
    )
