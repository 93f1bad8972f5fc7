"""Suite `options`: what activations, solvers and regularizers cost, as ratios of the plain network's step time.

Plain is a workload of `train` as it stands: relu, Adam, nothing else. Every option is timed between two fits of what
it is compared with, its base, in the same process and with the same number of epochs, round after round; its cost is
the median of these ratios. Where PyTorch has the same option, its cost there is taken in the same way: an option is
worth having at least if our speed-up over PyTorch does not fall.
"""

from __future__ import annotations

import operator
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import exp
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import processes, turns
from fastmlp.bench.race import TOLERANCE, Run, finite, relative, summary, wrong
from fastmlp.bench.tables import Bars, Table, difference, largest, number, percent, share, times
from fastmlp.bench.workloads import FORMULA, WORKLOADS, Task, Workload
from fastmlp.kernels import formulas

ROUNDS = 7  # all in one process
NETS = ("digits", "housing")
FITS = 10  # that go into the time which `Settings.seconds` gives one option

PLAIN = "plain"
ABSENT = {"absent": "not installed"}

# How the losses of the first epochs must relate to those of the base.
EQUAL, OTHER, ANY = "equal", "other", "any"
SAME = 1e-5  # largest relative difference of equal ones


def swish(z: float) -> float:
    """Compute silu by a formula as a user writes it."""
    return z / (1 + exp(-z))


@dataclass(frozen=True)
class Option:
    """One row of the table."""

    name: str
    group: str
    params: Mapping[str, Any]  # of the estimator, where they differ from the workload's
    limit: float | None = None  # most that a step may take, in steps of the base; None: whatever it takes
    base: str = PLAIN  # the row that it is compared with
    losses: str = OTHER  # EQUAL, OTHER (an option that changes no loss does nothing) or ANY
    draws: bool = False  # whether it draws random numbers, so that no other library has the same losses


ACTIVATION, SOLVER, REGULARIZER = "activation", "solver", "regularizer"
ACTIVATION_LIMIT, SOLVER_LIMIT, FORMULA_LIMIT, REGULARIZER_LIMIT = 1.5, 1.2, 1.3, 1.4
SLOW_ACTIVATIONS = {"gelu": 2.5, "mish": 2.5}  # by erf; by a longer formula

REGULARIZERS = (
    Option("dropout", REGULARIZER, {"dropout": 0.5}, REGULARIZER_LIMIT, draws=True),
    Option("batch_norm", REGULARIZER, {"batch_norm": True}, REGULARIZER_LIMIT),
    Option("alpha", REGULARIZER, {"alpha": 1e-4}),
    Option("l1_ratio", REGULARIZER, {"alpha": 1e-4, "l1_ratio": 0.5}),
    Option("weight_decay", REGULARIZER, {"weight_decay": 0.01}),
    Option("max_grad_norm", REGULARIZER, {"max_grad_norm": 0.1}),
)


def options() -> list[Option]:
    """Return every row: the formula tables in their order, and the regularizers."""
    activations = [
        # relu6 is relu as long as nothing is above 6
        Option(
            *(name, ACTIVATION, {"activation": name}, SLOW_ACTIVATIONS.get(name, ACTIVATION_LIMIT)),
            losses=ANY,
            draws=bool(row.drawn),
        )
        for name, row in formulas.ACTIVATIONS.items()
        if row.hidden and name != "relu"
    ]
    own = Option(FORMULA, ACTIVATION, {"activation": FORMULA}, FORMULA_LIMIT, "silu", EQUAL)
    solvers = [
        # the estimators' sgd has a momentum, the rule of this name has none
        Option(name, SOLVER, {"solver": name, **({"momentum": 0.0} if name == "sgd" else {})}, SOLVER_LIMIT)
        for name in formulas.OPTIMIZERS
        if name != "adam"
    ]
    # plain over itself shows how far ratios scatter
    return [Option(PLAIN, "", {}, losses=EQUAL), *activations, own, *solvers, *REGULARIZERS]


def run(run: Run) -> dict[str, Any]:
    """Measure every net at every thread count: ours and the rivals', each in one process."""
    rows = options()
    cases = [case for name in NETS for case in _cases(run, WORKLOADS[name], rows)]
    run.problems += [line for case in cases for line in case["problems"]]
    return {
        "versions": run.versions,
        "options": [asdict(option) for option in rows],
        "cases": cases,
        "over": [line for case in cases for line in _over(case, rows)],
        "figures": {
            f"{_label(case)}, {name} {run.settings.dtype}, seconds per step": record["median"]
            for case in cases
            for name, record in case["rivals"]["fastmlp"].items()
            if record["status"] == "ok"
        },
    }


def _cases(run: Run, workload: Workload, rows: Sequence[Option]) -> Iterator[dict[str, Any]]:
    """Measure one net at each thread count."""
    settings = run.settings
    asked = [{"name": row.name, "params": dict(row.params), "base": row.base} for row in rows]
    more = {"options": asked, "rounds": settings.rounds, "seconds": settings.seconds / FITS}
    with tempfile.TemporaryDirectory() as folder:
        workload.write(Path(folder), settings.dtype)
        for threads in settings.threads:
            answers: dict[str, Mapping[str, Any]] = {}
            for rival, version in run.versions.items():
                run.tell(f"options: {workload.name}, {rival}, threads: {threads}")
                request = settings.question(workload, folder=folder, **more)
                try:
                    answers[rival] = processes.ask(rival, "options", request, threads) if version else ABSENT
                except processes.Failed as failure:
                    answers[rival] = {"failed": str(failure)}
            yield _case(workload.name, threads, rows, answers, settings.dtype)


def _case(
    workload: str, threads: int, rows: Sequence[Option], answers: Mapping[str, Mapping[str, Any]], dtype: str
) -> dict[str, Any]:
    """Judge the answers, which are for each option, or one reason for all of them; then turn them into ratios."""
    case: dict[str, Any] = {"workload": workload, "threads": threads, "rivals": {}, "problems": []}
    for rival, answer in answers.items():
        records = {row.name: _judged(row, answer, case["rivals"].get("fastmlp"), dtype) for row in rows}
        found = [(f"{name}, {rival}", problem) for name, problem in wrong(records)]
        if "failed" in answer:
            found = [(rival, f"failed: {answer['failed']}")]
        case["problems"] += [f"{_label(case)}, {who}: {problem}" for who, problem in found]
        for row in rows:
            if records[row.name]["status"] == "ok":
                records[row.name] |= _times(row, answer["options"][row.name], records[row.base])
        case["rivals"][rival] = records
    # of_plain: cost there over cost here, which is our speed-up over that of the plain network, drift left out
    for key, part in (("speed_up", "median"), ("of_plain", "over_plain")):
        case[key] = {
            rival: {
                name: share(record[part], case["rivals"]["fastmlp"][name][part]) for name, record in records.items()
            }
            for rival, records in case["rivals"].items()
            if rival != "fastmlp"
        }
    return case


def _judged(
    option: Option, answer: Mapping[str, Any], ours: Mapping[str, Mapping[str, Any]] | None, dtype: str
) -> dict[str, Any]:
    """Return the record of one option without times; `ours` are fastmlp's records, None while these are judged."""
    record: dict[str, Any] = {"status": "ok", "problem": "", "losses": [], "loss_diff": None}
    record |= dict.fromkeys(("seconds", "median", "spread", "ratio", "over_plain", "over"))
    found = answer.get("options", {})
    one = found.get(option.name, answer)
    for status in ("absent", "failed"):
        if status in one:
            return {**record, "status": status, "problem": one[status]}
    record["losses"] = [finite(loss) for loss in one["losses"]]
    base = found.get(option.base, {}).get("losses") if ours is None else ours[option.name]["losses"]
    if None in record["losses"]:
        return {**record, "status": "differs", "problem": "losses are not finite"}
    if not base or not np.isfinite(np.asarray(base, dtype=float)).all():  # None becomes NaN
        return {**record, "status": "untimed", "problem": "nothing to compare it with"}
    record["loss_diff"] = finite(relative(one["losses"], [base]))
    problem = _difference(option, record["loss_diff"], ours is None, dtype)
    return {**record, "status": "differs", "problem": problem} if problem else record


def _difference(option: Option, loss_diff: float | None, ours: bool, dtype: str) -> str:
    """Return what is wrong with losses this far from the base's (ours) or from ours (a rival's); empty if nothing."""
    if ours and option.losses == OTHER:
        return "losses are those without it: it does nothing" if loss_diff == 0 else ""
    incomparable = option.losses == ANY if ours else option.draws
    limit = SAME if ours else TOLERANCE[dtype]["losses"]
    if incomparable or (loss_diff is not None and loss_diff <= limit):
        return ""
    return f"losses differ by {'nan' if loss_diff is None else f'{loss_diff:.1e}'}, more than {limit:.0e}"


def _times(option: Option, found: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return times and ratios of an option that is well, if its base is."""
    if base["status"] != "ok" or not found["seconds"]:
        return {"status": "untimed", "problem": f"{option.base} has no times to compare it with"}
    ratio = statistics.median(map(operator.truediv, found["seconds"], found["base_seconds"]))
    # rows stand behind their bases, and plain is 1 by definition
    over_plain = 1.0 if option.name == PLAIN else ratio * base["over_plain"]
    over = option.limit is not None and ratio > option.limit
    return {**summary(found["seconds"]), "ratio": ratio, "over_plain": over_plain, "over": over}


def _over(case: Mapping[str, Any], rows: Sequence[Option]) -> list[str]:
    """Return one line per option that costs more than its limit."""
    records = case["rivals"]["fastmlp"]
    return [
        f"{_label(case)}, {row.name}: {times(records[row.name]['ratio'])} {row.base}, limit {row.limit:g}x"
        for row in rows
        if records[row.name]["over"]
    ]


def _label(case: Mapping[str, Any]) -> str:
    return f"{case['workload']}, {case['threads']} thr"


# --- inside a worker ------------------------------------------------------------------------------------------------


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the losses of every option's checked epochs, and seconds per step, timed between fits of its base."""
    task = Task.read(request)
    make: Callable[[Task, Mapping[str, Any]], Any] = _ours
    if request["rival"] != "fastmlp":
        from fastmlp.bench.rivals import pytorch_options

        make = pytorch_options.Trainer
    makers = {option["name"]: partial(make, task, option["params"]) for option in request["options"]}
    bases = {option["name"]: option["base"] for option in request["options"]}
    return {"options": turns.take(makers, bases, task.workload, request)}


def _ours(task: Task, params: Mapping[str, Any]) -> Any:
    """Return the estimator of `train` with other parameters."""
    import fastmlp
    from fastmlp.bench.rivals import estimators

    trainer = estimators.Trainer(task, "fastmlp")
    formula = {"activation": fastmlp.activation(swish)} if params.get("activation") == FORMULA else {}
    trainer.estimator.set_params(**{**params, **formula})
    return trainer


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return tables of costs and limits, of each rival with the same options, and of our times."""
    rivals = [rival for rival in result["versions"] if rival != "fastmlp"]
    nets = dict.fromkeys(case["workload"] for case in result["cases"])
    return [_costs(result), *(_against(result, rival, net) for rival in rivals for net in nets), _all_times(result)]


def _costs(result: Mapping[str, Any]) -> Table:
    cases, settings = result["cases"], result["settings"]
    rows = []
    for option in result["options"]:
        records = {_label(case): case["rivals"]["fastmlp"][option["name"]] for case in cases}
        rows.append(
            {
                "option": option["name"],
                "over": option["base"],
                "limit": times(option["limit"]),
                **{label: _cost(record) for label, record in records.items()},
                "verdict": _verdict(records.values(), option["limit"]),
            }
        )
    parameters = "; ".join(
        ", ".join(f"{name}={value}" for name, value in option["params"].items())
        for option in result["options"]
        if option["group"] == REGULARIZER
    )
    notes = [
        f"{settings['dtype']}; plain: relu and Adam, the nets of the suite train. Parameters: {parameters}.",
        "Each option is timed between two fits of what it is over, in one process, with the same number of epochs. "
        f"Rounds: {settings['rounds']}; medians of the ratios. Plain over itself shows how far these scatter.",
        f"Before times: losses finite, those of the user's formula equal to silu's within {SAME:.0e}, those of "
        "solvers and regularizers other than the plain network's.",
        f"Over their limit (marked !): {len(result['over'])}.",
        *_reasons(cases, "fastmlp"),
    ]
    return Table.of("Options: times the step of the plain network", rows, notes)


def _cost(record: Mapping[str, Any]) -> str:
    return times(record["ratio"]) + (" !" if record["over"] else "") if record["ratio"] else record["status"]


def _verdict(records: Iterable[Mapping[str, Any]], limit: float | None) -> str:
    """Return one word for a row: what went wrong first, then its limit."""
    wrong = [record["status"] for record in records if record["status"] != "ok"]
    if wrong or limit is None:
        return wrong[0] if wrong else ""
    return "over" if any(record["over"] for record in records) else "within"


def _reasons(cases: Sequence[Mapping[str, Any]], rival: str) -> list[str]:
    """Return one line per option that has no times, each reason once."""
    found = {
        f"{name}: {record['status']}: {record['problem']}": None
        for case in cases
        for name, record in case["rivals"][rival].items()
        if record["status"] != "ok"
    }
    alike = {line.partition(": ")[2] for line in found}
    return [f"Every option: {alike.pop()}."] if len(alike) == 1 and len(found) > 1 else list(found)


def _micro(record: Mapping[str, Any]) -> str:
    return number(1e6 * record["median"]) if record["median"] else record["status"]


def _against(result: Mapping[str, Any], rival: str, net: str) -> Table:
    cases = [case for case in result["cases"] if case["workload"] == net]
    rows, below = [], 0
    for name in (option["name"] for option in result["options"]):
        row = {"option": name}
        for case in cases:
            of_plain, n = case["of_plain"][rival][name], case["threads"]
            slower = of_plain is not None and of_plain < 1
            row[f"us, {n} thr"] = _micro(case["rivals"][rival][name])
            row[f"ratio, {n} thr"] = times(case["speed_up"][rival][name])
            row[f"of plain, {n} thr"] = number(of_plain) + (" !" if slower else "")
            below += slower
        row["loss diff"] = difference(largest([case["rivals"][rival][name]["loss_diff"] for case in cases]))
        rows.append(row)
    notes = [
        f"{rival} {result['versions'][rival] or 'is not installed'}, eager; the optimizer fused where there is one "
        "(sgd, momentum, nesterov, adam, adamw, amsgrad, adagrad).",
        "us: its median microseconds of a step; ratio: times that we are faster; of plain: that over the plain "
        f"network's, from costs within each process. Below 1 (marked !): {below}.",
        "loss diff: largest relative difference of the first losses from ours; dropout and rrelu draw their own.",
        *_reasons(cases, rival),
    ]
    return Table.of(f"Options on {net}: against {rival} doing the same", rows, notes)


def _all_times(result: Mapping[str, Any]) -> Table:
    rows: list[dict[str, str]] = [{"option": option["name"]} for option in result["options"]]
    for case in result["cases"]:
        for row in rows:
            record = case["rivals"]["fastmlp"][row["option"]]
            row |= {f"us, {_label(case)}": _micro(record), f"spread, {_label(case)}": percent(record["spread"])}
    note = "Median over the rounds, everything included; spread: quartile distance in percent of it."
    return Table.of("Options: microseconds of a step", rows, [note])


def charts(result: Mapping[str, Any]) -> list[Bars]:
    """Return charts per net: costs of activations and of all other options, at the first thread count."""
    first = result["settings"]["threads"][0]
    return [
        Bars(
            f"{title} on {case['workload']}: times the plain step",
            names := [option["name"] for option in result["options"] if option["group"] in groups],
            {
                rival: [records[name]["over_plain"] for name in names]
                for rival, records in case["rivals"].items()
                if any(record["status"] == "ok" for record in records.values())
            },
            "x",
            line=1,
        )
        for case in result["cases"]
        if case["threads"] == first
        for title, groups in (("Activations", (ACTIVATION,)), ("Solvers and regularizers", (SOLVER, REGULARIZER)))
    ]
