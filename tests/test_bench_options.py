"""The suite `options` of `fastmlp bench`: a real run, and how its answers are judged."""

import copy
import json

import pytest

from fastmlp.bench import html, options, suites, turns
from fastmlp.bench.settings import Settings
from fastmlp.bench.workloads import WORKLOADS, Task
from fastmlp.kernels import formulas

from bench_runs import SELDOM, cells, run_here, silent


@pytest.fixture(scope="module", params=SELDOM)
def measured(request):
    """A real run of every option, with PyTorch where it is installed; in this process on the smallest net."""
    settings = Settings(rivals=("pytorch",), threads=(1,), seconds=0.01, quick_check=True)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == SELDOM[0]:
            run_here(patch)
        yield suites.run(("options",), {"options": settings}, silent)


def test_every_option_is_measured(measured):
    json.dumps(measured, allow_nan=False)
    assert suites.problems(measured) == []
    result = measured["suites"]["options"]
    names = [option["name"] for option in result["options"]]
    assert len(set(names)) == len(names) and names[0] == options.PLAIN
    hidden = {name for name, row in formulas.ACTIVATIONS.items() if row.hidden} - {"relu"}
    assert hidden | set(formulas.OPTIMIZERS) - {"adam"} | {options.FORMULA, "dropout", "batch_norm"} < set(names)
    assert [(case["workload"], case["threads"]) for case in result["cases"]] == [(net, 1) for net in options.NETS]
    for case in result["cases"]:
        records = case["rivals"]["fastmlp"]
        assert list(records) == names
        for name, record in records.items():
            assert (name, record["status"], record["problem"]) == (name, "ok", "")
            assert record["median"] > 0 and record["ratio"] > 0 and record["over_plain"] > 0
        assert records[options.FORMULA]["loss_diff"] <= options.SAME
        assert records["dropout"]["loss_diff"] > 0
    assert len(measured["figures"]) == len(names) * len(options.NETS)


def test_options_against_pytorch(measured):
    pytest.importorskip("torch")
    for case in measured["suites"]["options"]["cases"]:
        ours, theirs = case["rivals"]["fastmlp"], case["rivals"]["pytorch"]
        assert {name for name, record in theirs.items() if record["status"] != "ok"} == {"step", "lion"}
        assert theirs["step"]["status"] == "absent" and "no step" in theirs["step"]["problem"]
        costs = {name: records["mish"]["over_plain"] for name, records in case["rivals"].items()}
        assert case["of_plain"]["pytorch"]["mish"] == costs["pytorch"] / costs["fastmlp"]
        assert case["speed_up"]["pytorch"]["mish"] == theirs["mish"]["median"] / ours["mish"]["median"]
        assert case["of_plain"]["pytorch"]["step"] is None


def test_options_show_themselves(measured):
    result = measured["suites"]["options"]
    tables = options.tables(result)
    assert len(tables) == 2 + len(options.NETS)
    for table in tables:
        assert len(table.rows) == len(result["options"])
        assert all(len(row) == len(table.columns) for row in table.rows)
    bars = options.charts(result)
    assert len(bars) == 2 * len(options.NETS)
    for one in bars:
        assert one.labels and all(len(values) == len(one.labels) for values in one.series.values())
    pytest.importorskip("matplotlib")
    assert html.page(measured).count("<svg") == len(bars)


def answered(cost=1.0, **changes):
    """A case of made-up answers of fastmlp, in which all is well but for what is changed."""
    rows = options.options()
    losses = {row.name: [2.0 - 0.01 * i, 1.0] for i, row in enumerate(rows)}
    losses[options.FORMULA] = losses["silu"]
    times = {"seconds": [3 * cost, cost, cost], "base_seconds": [3.0, 1.0, 1.0]}
    answer = {"options": {name: {"losses": first, **times} for name, first in losses.items()}}
    for name, change in changes.items():
        answer["options"][{"formula": options.FORMULA}.get(name, name)] |= change
    case = options._case("digits", 1, rows, {"fastmlp": answer}, "float32")
    return rows, case, case["rivals"]["fastmlp"]


def test_costs_are_medians_of_ratios():
    rows, case, records = answered(cost=1.25)
    assert case["problems"] == []
    assert {record["ratio"] for record in records.values()} == {1.25}
    assert records["dropout"]["over_plain"] == 1.25
    assert records[options.FORMULA]["over_plain"] == 1.25**2  # over silu, which is over plain
    limits = {row.name: row.limit for row in rows}
    assert limits["tanh"] == 1.5 and limits["gelu"] == limits["mish"] == 2.5 and limits["dropout"] == 1.4
    assert limits["lion"] == 1.2 and limits[options.FORMULA] == 1.3 and limits["l1_ratio"] is None
    solvers = [row.name for row in rows if row.group == options.SOLVER]
    assert options._over(case, rows) == [f"digits, 1 thr, {name}: 1.25x plain, limit 1.2x" for name in solvers]


def shown(rows, case):
    result = {
        "settings": {"rounds": 3, "dtype": "float32", "threads": [1]},
        "versions": {"fastmlp": "1.0"},
        "options": [vars(row) for row in rows],
        "cases": [case],
        "over": options._over(case, rows),
    }
    return options.tables(result)[0]


def test_what_is_over_its_limit_is_marked():
    rows, case, _ = answered(cost=1.25)
    table = shown(rows, case)
    ratios, verdicts = cells(table, "digits, 1 thr"), cells(table, "verdict")
    assert ratios["lion"] == "1.25x !" and verdicts["lion"] == "over"
    assert ratios["tanh"] == "1.25x" and verdicts["tanh"] == "within"
    assert ratios["alpha"] == "1.25x" and verdicts["alpha"] == ""


@pytest.mark.parametrize(
    ("changes", "name", "problem"),
    [
        ({"mish": {"losses": [2.0, float("nan")]}}, "mish", "losses are not finite"),
        ({"formula": {"losses": [2.0, 1.0001]}}, options.FORMULA, "losses differ by"),
        ({"dropout": {"losses": [2.0, 1.0]}}, "dropout", "it does nothing"),  # the plain network's
    ],
)
def test_an_option_with_false_losses_has_no_times(changes, name, problem):
    rows, case, records = answered(**changes)
    assert records[name]["status"] == "differs" and records[name]["ratio"] is None
    (line,) = case["problems"]
    assert line.startswith(f"digits, 1 thr, {name}, fastmlp: results differ: ") and problem in line
    assert cells(shown(rows, case), "verdict")[name] == "differs"
    assert {record["status"] for other, record in records.items() if other != name} == {"ok"}


def test_nothing_is_compared_with_a_base_that_is_wrong():
    _, _, records = answered(silu={"losses": [2.0, float("inf")]})
    assert records[options.FORMULA]["status"] == "untimed" and records["tanh"]["status"] == "ok"
    _, _, records = answered(plain={"losses": [float("nan"), 1.0]})
    assert records["plain"]["status"] == "differs"
    assert all(record["ratio"] is None for record in records.values())


def test_a_missing_option_is_shown_as_absent():
    task = Task(WORKLOADS["iris"], *WORKLOADS["iris"].make("float32"), threads=1)
    answer, trainer = turns._first(lambda: options._ours(task, {"no_such_option": 1}), 1)
    assert trainer is None and "no_such_option" in answer["absent"]
    answer, trainer = turns._first(lambda: options._ours(task, {"activation": "no_such_activation"}), 1)
    assert trainer is None and "no_such_activation" in answer["absent"]

    def breaks(task, params):
        raise RuntimeError("out of order")

    answer, trainer = turns._first(lambda: breaks(task, {}), 1)
    assert trainer is None and answer == {"failed": "RuntimeError: out of order"}
    rows, case, records = answered(mish={"absent": "ValueError: no mish"}, tanh=answer)
    assert records["mish"]["status"] == "absent" and records["tanh"]["status"] == "failed"
    assert case["problems"] == ["digits, 1 thr, tanh, fastmlp: failed: RuntimeError: out of order"]
    table = shown(rows, case)
    assert cells(table, "verdict")["mish"] == "absent"
    assert "mish: absent: ValueError: no mish" in table.notes


def test_a_rival_that_is_absent_breaks_down_or_differs():
    rows, case, _ = answered()
    ours = {
        "options": {
            name: {"losses": r["losses"], "seconds": [1.0], "base_seconds": [1.0]}
            for name, r in case["rivals"]["fastmlp"].items()
        }
    }
    other = copy.deepcopy(ours)
    other["options"]["mish"]["losses"][0] *= 1.01
    other["options"]["dropout"]["losses"][0] *= 1.01  # draws its own
    other["options"]["tanh"]["seconds"] = [3.0]
    answers = {"fastmlp": ours, "pytorch": other, "absent": {"absent": "not installed"}, "broken": {"failed": "gone"}}
    case = options._case("digits", 1, rows, answers, "float32")
    theirs = case["rivals"]["pytorch"]
    assert theirs["mish"]["status"] == "differs" and theirs["dropout"]["status"] == "ok"
    assert case["of_plain"]["pytorch"]["tanh"] == 3.0 and case["of_plain"]["pytorch"]["mish"] is None
    assert {record["status"] for record in case["rivals"]["absent"].values()} == {"absent"}
    assert len(case["problems"]) == 2
    assert "mish, pytorch: results differ: losses differ by" in case["problems"][0]
    assert case["problems"][1] == "digits, 1 thr, broken: failed: gone"
