"""Suite `precision`: what `matmul_precision` gains in time and costs in exactness, and float64 beside it.

Three questions, each to fresh processes. *Steps*: the workloads of `train`, each arithmetic timed between two fits of
"highest", with equal first losses. *Products*: the error of the three products of a step at each workload's shapes,
against NumPy's in float64. *Fits*: where whole trainings end on small data sets, over several seeds.

A precision for which there are no matrix units computes as "highest": losses must have its bits then. Emulated units
(FASTMLP_ISA=amx-emulated) have the errors and the losses of real ones, but no times.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import processes, products, turns
from fastmlp.bench.race import TOLERANCE, Run, finite, mean, relative, summary, wrong
from fastmlp.bench.tables import Bars, Table, difference, largest, number, percent, times
from fastmlp.bench.train import net
from fastmlp.bench.workloads import HIGHEST, WORKLOADS, Task, Workload
from fastmlp.engines import backends, environment
from fastmlp.model.network import MATMUL_PRECISIONS

ROUNDS = 3
FITS = 5  # that should go into the time of a process, of each arithmetic

FLOAT64 = "float64"
#: Arithmetic -> its dtype and matmul_precision.
ARITHMETIC: Mapping[str, tuple[str, str]] = {
    **{name: ("float32", name) for name in MATMUL_PRECISIONS},
    FLOAT64: (FLOAT64, HIGHEST),
}
OTHERS = [name for name in ARITHMETIC if name != HIGHEST]
BELOW = MATMUL_PRECISIONS[1:]

# Whole fits, of float32 alone: log losses are clipped at the epsilon of the dtype, so those of float64 are others. The
# products between the hidden layers are large enough for matrix units.
SEEDS = 5
HIDDEN, BATCH, EPOCHS = (64, 64), 64, 40
#: Data set that scikit-learn ships or makes -> estimator, and arguments of what makes it.
SETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{f"load_{name}": ("MLPClassifier", {"return_X_y": True}) for name in ("iris", "wine", "breast_cancer", "digits")},
    "load_diabetes": ("MLPRegressor", {"return_X_y": True}),
    "make_friedman1": ("MLPRegressor", {"n_samples": 600, "random_state": 0}),
}
ENDS = ("loss", "validation_loss", "score")  # of a fit; the score is accuracy or R2


def run(run: Run) -> dict[str, Any]:
    """Ask for steps, where times mean something, for products and for fits."""
    facts = machine(run.settings.backend)
    workloads = run.settings.named(WORKLOADS)
    cases = [] if facts["emulated"] else [case for one in workloads for case in _cases(run, one, facts)]
    run.problems += [line for case in cases for line in case["problems"]]
    errors = [{"workload": one.name, **found} for one in workloads for found in _errors(run, one)]
    run.problems += _beyond(errors)
    fits = _fits(run)
    differences = paired(fits)
    run.problems += _other_bits(differences, facts["unit_precisions"])
    return {
        "versions": run.versions,
        "machine": facts,
        "steps": cases,
        "products": errors,
        "fits": fits,
        "paired": differences,
        "figures": {
            f"{workload.name} {name}, seconds per step": min(medians)
            for workload in workloads
            for name in ARITHMETIC
            if (medians := [m for m in _of(cases, workload.name, name, "median") if m is not None])
        },
    }


def machine(backend: str) -> dict[str, Any]:
    """Return the engine, its instruction set and matrix units, or why it has none, as `fastmlp info` says it."""
    row = backends.row_of(backends.get(backend))
    units, precisions, reason = row.matrix_units()
    isa = environment.instruction_sets()
    return {
        "engine": next(name for name, other in backends.BACKENDS.items() if other is row),
        "isa": isa["chosen"],
        "matrix_units": units,
        "unit_precisions": [*precisions],
        "why_no_matrix_units": reason,
        "emulated": units is not None and units not in isa["usable"],
    }


# --- steps ------------------------------------------------------------------------------------------------------------


def _cases(run: Run, workload: Workload, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure a workload at each thread count, in one fresh process a round."""
    settings = run.settings
    labels = {_threads(n): n for n in settings.threads}
    with tempfile.TemporaryDirectory() as folder:
        workload.write(Path(folder), "float32")
        request = settings.question(workload, folder=folder, rounds=1) | {"seconds": settings.seconds / FITS}
        answers = run.gather(
            workload.name,
            labels,
            lambda label: processes.ask("fastmlp", "precision", request, threads=labels[label])["steps"],
        )
    for label, threads in labels.items():
        if answers[label]:
            yield case(workload, threads, answers[label], facts["unit_precisions"])


def _threads(n: int) -> str:
    return f"{n} thr"


def case(
    workload: Workload,
    threads: int,
    answers: Sequence[Mapping[str, Mapping[str, Any]]],
    by_units: Sequence[str],
) -> dict[str, Any]:
    """Judge the answers of all rounds and turn them into times; `by_units`: precisions with matrix units."""
    base = answers[0][HIGHEST].get("losses", [])
    limits = {name: TOLERANCE[name]["losses"] if name in by_units else 0.0 for name in BELOW}
    limits |= {HIGHEST: 0.0, FLOAT64: TOLERANCE["float32"]["losses"]}
    records = {name: _record([answer[name] for answer in answers], base, limits[name]) for name in ARITHMETIC}
    facts = {"workload": workload.name, "widths": list(workload.widths), "batch_size": workload.batch_size}
    problems = [f"{workload.name}, {_threads(threads)}, {name}: {problem}" for name, problem in wrong(records)]
    return {**facts, "threads": threads, "records": records, "problems": problems}


def _record(answers: Sequence[Mapping[str, Any]], base: Sequence[float], limit: float) -> dict[str, Any]:
    """Return status, times, and how many times as fast as "highest", whose losses are `base`, one arithmetic is."""
    record: dict[str, Any] = {"status": "ok", "problem": "", "loss_diff": None}
    record |= dict.fromkeys(("seconds", "median", "spread", "speed"))
    failure = next((answer for answer in answers if "losses" not in answer), None)
    if failure is not None:
        return {**record, "status": "failed", "problem": failure.get("failed") or failure["absent"]}
    if not base:
        return {**record, "status": "untimed", "problem": "nothing to compare it with"}
    found = float(np.maximum.reduce([relative(answer["losses"], [base]) for answer in answers]))  # so that NaN stays
    record["loss_diff"] = finite(found)
    if not found <= limit:  # NaN is a difference
        problem = f"losses differ by {found:.1e} from those of highest, more than {limit:.0e}"
        return {**record, "status": "differs", "problem": problem}
    seconds, bases = ([s for answer in answers for s in answer[key]] for key in ("seconds", "base_seconds"))
    if not seconds:
        return {**record, "status": "untimed", "problem": "nothing to compare it with"}
    speed = statistics.median(theirs / own for own, theirs in zip(seconds, bases, strict=True))
    return {**record, **summary(seconds), "speed": speed}


def _of(cases: Sequence[Mapping[str, Any]], workload: str, name: str, key: str) -> list[Any]:
    """Return a value of one arithmetic at each thread count of a workload."""
    return [case["records"][name][key] for case in cases if case["workload"] == workload]


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Time every arithmetic on one workload, in a worker, each between two fits of "highest"."""
    task = Task.read(request)
    makers = {name: partial(_trainer, task, *row) for name, row in ARITHMETIC.items()}
    return {"steps": turns.take(makers, dict.fromkeys(ARITHMETIC, HIGHEST), task.workload, request)}


def _trainer(task: Task, dtype: str, precision: str) -> Any:
    """Return the estimator of `train` with this arithmetic, for the same rows."""
    from fastmlp.bench.rivals import estimators

    y = task.y.astype(dtype) if task.y.dtype.kind == "f" else task.y
    other = Task(task.workload, task.X.astype(dtype), y, task.threads, task.backend, precision)
    return estimators.Trainer(other, "fastmlp")


# --- products ---------------------------------------------------------------------------------------------------------


def _errors(run: Run, workload: Workload) -> list[dict[str, Any]]:
    """Ask for the errors of a workload's products; a list of one, empty if the process failed."""
    threads = max(run.settings.threads)
    request = run.settings.question(workload)
    ask = partial(processes.ask, "fastmlp", "precision:measure_products", request, threads=threads)
    return run.gather(workload.name, ["products"], lambda _: ask(), rounds=1)["products"]


def measure_products(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the largest errors by product and precision, measured in a worker."""
    workload = WORKLOADS[request["workload"]]
    engine = backends.get(request["backend"])
    network = workload.network("float32")
    found = products.errors(engine, network, workload.batch_size, MATMUL_PRECISIONS, request["threads"])
    return {"errors": {name: {p: finite(error) for p, error in row.items()} for name, row in found.items()}}


def _beyond(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line per product that is less exact than its precision permits."""
    return [
        f"{entry['workload']}, {product}, {precision}: error {difference(error)}, "
        f"more than {difference(products.BOUNDS[precision])} of |A| |B|"
        for entry in entries
        for product, row in entry["errors"].items()
        for precision, error in row.items()
        if error is None or error > products.BOUNDS[precision]
    ]


# --- whole fits -------------------------------------------------------------------------------------------------------


def _fits(run: Run) -> dict[str, Any]:
    """Train on every data set with every seed and precision, a process per data set."""
    settings = run.settings
    seeds, epochs = (2, 2) if settings.quick_check else (SEEDS, EPOCHS)
    request = settings.question(seeds=seeds, max_iter=epochs)
    found = run.gather(
        "fits",
        SETS,
        lambda name: processes.ask("fastmlp", "precision:measure_fits", {**request, "set": name})["ends"],
        rounds=1,
    )
    how = {"hidden": list(HIDDEN), "batch_size": BATCH, "epochs": epochs, "seeds": seeds}
    return {**how, "ends": {name: answers[0] for name, answers in found.items() if answers}}


def measure_fits(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return by precision the ENDS of the fits of all seeds on one data set, in a worker."""
    params = {"backend": request["backend"], "max_iter": request["max_iter"]}
    found = [ends(request["set"], seed, **params) for seed in range(request["seeds"])]
    names = MATMUL_PRECISIONS
    return {"ends": {name: {end: [one[name][i] for one in found] for i, end in enumerate(ENDS)} for name in names}}


def ends(data: str, seed: int, **params: Any) -> dict[str, tuple[float, ...]]:
    """Return by precision the ENDS of a fit on one of SETS, 70 % of whose rows are for training.

    `params` are the estimator's, where they differ from those of the suite.
    """
    from sklearn import datasets
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    import fastmlp

    estimator, arguments = SETS[data]
    X, y = getattr(datasets, data)(**arguments)
    if estimator == "MLPRegressor":
        y = (y - y.mean()) / y.std()
    rows, held_out, y, y_val = train_test_split(X, y, test_size=0.3, random_state=seed)
    scaler = StandardScaler().fit(rows)
    rows, held_out = (scaler.transform(part).astype(np.float32) for part in (rows, held_out))
    usual = {"hidden_layer_sizes": HIDDEN, "batch_size": BATCH, "max_iter": EPOCHS, "learning_rate_init": 3e-3}
    usual |= {"n_iter_no_change": np.inf, "n_jobs": 1, "random_state": seed}
    found = {}
    for name in MATMUL_PRECISIONS:
        est = getattr(fastmlp, estimator)(**{**usual, **params}, matmul_precision=name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # all epochs, whether or not that is enough
            est.fit(rows, y, X_val=held_out, y_val=y_val)
        found[name] = tuple(map(float, (est.loss_, est.validation_loss_curve_[-1], est.score(held_out, y_val))))
    return found


def paired(fits: Mapping[str, Any]) -> dict[str, Any]:
    """Return by precision and end the differences from "highest" over all sets and seeds; of losses relative ones.

    Of each the mean, the largest, and p of a paired t-test.
    """
    from scipy import stats

    found: dict[str, Any] = {name: {} for name in BELOW}
    for name in BELOW:
        for end in ENDS:
            each = [difference_of(ends, name, end) for ends in fits["ends"].values()]
            d = np.concatenate(each) if each else np.zeros(0)
            p = float(stats.ttest_1samp(d, 0).pvalue) if len(d) > 1 and d.any() else None
            sizes = {"mean": float(d.mean()), "largest": float(abs(d).max())} if len(d) else {}
            found[name][end] = {"n": len(d), **{key: finite(value) for key, value in sizes.items()}, "p": finite(p)}
    return found


def difference_of(ends: Mapping[str, Mapping[str, Sequence[float]]], name: str, end: str) -> np.ndarray:
    """Return the differences of one precision from "highest", (n_seeds,); of losses as parts of the latter."""
    other, highest = (np.asarray(ends[which][end]) for which in (name, HIGHEST))
    return other - highest if end == "score" else other / highest - 1


def _other_bits(differences: Mapping[str, Any], by_units: Sequence[str]) -> list[str]:
    """Return one line per precision without matrix units whose fits end otherwise than "highest"."""
    return [
        f"fits, {name}: the {end} is not that of highest, though there are no matrix units for it"
        for name in BELOW
        for end in ENDS
        if name not in by_units and differences[name][end].get("largest")
    ]


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return speeds and times, where there are any, errors of products, ends of fits and their paired differences."""
    steps = [_speeds(result), _times(result)] if result["steps"] else []
    errors = [_errors_table(result)] if result["products"] else []
    fits = [_pairs(result), _ends(result)] if result["fits"]["ends"] else []
    found = [*steps, *errors, *fits]
    return [replace(table, notes=[*_ran(result), *table.notes]) if i == 0 else table for i, table in enumerate(found)]


def _ran(result: Mapping[str, Any]) -> list[str]:
    """Return what computed, and what that means for the figures."""
    facts = result["machine"]
    by_units = facts["unit_precisions"]
    served = f"{facts['matrix_units']}, for {' and '.join(by_units)}"
    units = served if by_units else f"none: {facts['why_no_matrix_units']}"
    isa = f", instruction set {facts['isa']}" if facts["engine"] == "cython" else ""
    found = [f"Engine {facts['engine']}{isa}, matrix units {units}."]
    found += [
        f"{name}: computes as highest, by its contract. The first losses were found to have its bits; the times are "
        "those of highest, but for noise."
        for name in BELOW
        if name not in by_units
    ]
    if facts["emulated"]:
        found.append(
            "The units are emulated in C. Errors and losses are those of real ones. Times mean nothing: there are none."
        )
    return found


def _speeds(result: Mapping[str, Any]) -> Table:
    cases = result["steps"]
    rows = [
        {
            "workload": case["workload"],
            "layers": net(case),
            "batch": case["batch_size"],
            "threads": case["threads"],
            "highest us": _micro(case["records"][HIGHEST]),
            **{name: _speed(case["records"][name]) for name in OTHERS},
        }
        for case in cases
    ]
    for threads in dict.fromkeys(case["threads"] for case in cases):
        of = [case["records"] for case in cases if case["threads"] == threads]
        means = {name: times(mean([records[name]["speed"] for records in of])) for name in OTHERS}
        rows.append({"workload": "geometric mean", "threads": threads, **means})
    notes = [
        "How many times as fast as highest, each timed between two fits of it in one process; medians of the ratios. "
        f"Rounds: {result['settings']['rounds']}, a fresh process for each. float64: highest in float64.",
        "Before times: first losses were compared with those of highest.",
    ]
    return Table.of("Precision: speed of a training step over highest", rows, notes)


def _speed(record: Mapping[str, Any]) -> str:
    return times(record["speed"]) if record["speed"] else record["status"]


def _micro(record: Mapping[str, Any]) -> str:
    return number(1e6 * record["median"]) if record["median"] else record["status"]


def _times(result: Mapping[str, Any]) -> Table:
    rows = [
        {
            "workload": case["workload"],
            "arithmetic": name,
            "threads": case["threads"],
            "us": _micro(record),
            "spread": percent(record["spread"]),
            "loss diff": difference(record["loss_diff"]),
        }
        for case in result["steps"]
        for name, record in case["records"].items()
    ]
    notes = [
        "us: median microseconds of a step, everything included; spread: quartile distance in percent of it.",
        "loss diff: largest relative difference of the first losses from those of highest.",
    ]
    return Table.of("Precision: every measurement", rows, notes)


def _errors_table(result: Mapping[str, Any]) -> Table:
    rows = [
        {
            "workload": entry["workload"],
            "product": product,
            **{precision: difference(error) for precision, error in row.items()},
        }
        for entry in result["products"]
        for product, row in entry["errors"].items()
    ]
    bounds = {precision: difference(bound) for precision, bound in products.BOUNDS.items()}
    notes = [
        "Largest error of an element over that of |A| |B|, all layers; A and B are normal random numbers in the shapes "
        "of the workload, and NumPy's product in float64 is the judge.",
        "bound: what a precision permits. Small layers and batches stay with float32 products, whose error they have.",
    ]
    return Table.of("Precision: errors of products", [*rows, {"workload": "bound", **bounds}], notes)


def _pairs(result: Mapping[str, Any]) -> Table:
    rows = [
        {
            "precision": name,
            "end": end.replace("_", " "),
            "mean": show(found["mean"]),
            "largest": show(found["largest"]).lstrip("+"),
            "p": "-" if found["p"] is None else f"{found['p']:.2f}",
        }
        for name, of in result["paired"].items()
        for end, found in of.items()
        for show in [_plain if end == "score" else _relative]
    ]
    fits, n = result["fits"], result["paired"][BELOW[0]]["loss"]["n"]
    notes = [
        f"Whole fits of {len(fits['ends'])} data sets with {fits['seeds']} seeds, {n} pairs: "
        f"{'-'.join(map(str, fits['hidden']))} relu neurons, {fits['epochs']} epochs of Adam, batches of "
        f"{fits['batch_size']}, 30 % of the rows for validation.",
        "Differences from highest at the end, with the same rows, first weights and batches: of losses in percent, of "
        "the score plain. p: of a paired t-test; -: all differences are 0.",
    ]
    by_units = result["machine"]["unit_precisions"]
    if by_units and not any(result["paired"][name]["loss"]["largest"] for name in by_units):
        notes.append("All losses have the bits of highest: no product went through the matrix units.")
    return Table.of("Precision: how fits end, against highest", rows, notes)


def _relative(value: float) -> str:
    return f"{100 * value:+.3f}%"


def _plain(value: float) -> str:
    return f"{value:+.5f}"


def _ends(result: Mapping[str, Any]) -> Table:
    rows = [
        {
            "data": data.partition("_")[2],
            "precision": name,
            **{end.replace("_", " "): _spread(of[end]) for end in ENDS},
            "validation diff": _relative(difference_of(ends, name, "validation_loss").mean()),
            "score diff": _plain(difference_of(ends, name, "score").mean()),
        }
        for data, ends in result["fits"]["ends"].items()
        for name, of in ends.items()
    ]
    notes = [
        "Mean and standard deviation over the seeds. score: accuracy; R2 of diabetes and friedman1.",
        "diff: mean of the differences from highest, seed by seed; of the loss relative.",
    ]
    return Table.of("Precision: ends of fits", rows, notes)


def _spread(values: Sequence[float]) -> str:
    return f"{number(statistics.fmean(values))} ± {number(statistics.stdev(values))}"


def charts(result: Mapping[str, Any]) -> list[Bars]:
    """Return charts of speeds, of the exact bits of products, and of the differences at the ends of fits."""
    cases, errors, fits = result["steps"], result["products"], result["fits"]["ends"]
    names = list(dict.fromkeys(case["workload"] for case in cases))
    speeds = {other: [largest(_of(cases, name, other, "speed")) for name in names] for other in OTHERS}
    bits = {
        precision: [_bits(largest([row[precision] for row in entry["errors"].values()])) for entry in errors]
        for precision in MATMUL_PRECISIONS
    }
    ends = {
        name: [100 * float(abs(difference_of(of, name, "validation_loss")).max()) for of in fits.values()]
        for name in BELOW
    }
    return [
        Bars("Training step: times as fast as highest", names, speeds, "x", log=True, line=1),
        Bars("Products: bits of |A| |B| that are exact", [entry["workload"] for entry in errors], bits, "bits"),
        Bars("Fits: largest difference of the validation loss", [d.partition("_")[2] for d in fits], ends, "%"),
    ]


def _bits(error: float | None) -> float | None:
    return None if not error else -math.log2(error)
