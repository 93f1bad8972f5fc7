"""The suites of `fastmlp bench`: real runs at their smallest, and what is shown of them; no times are asserted."""

import copy
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from fastmlp.bench import charts, cold, compare, engines, html, processes, race, rivals, suites, train
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, number
from fastmlp.bench.workloads import CHECKED_STEPS, DEVICE_WORKLOADS, EVERY_WORKLOAD, WORKLOADS, Task
from fastmlp.cli.app import app

from bench_runs import PAIR, PLACES, assert_tables, needs_two, run_here, silent
from tiers import exhaustive, nightly

TINY = ("bench", "train", "--workload", "iris", "--rival", "scikit-learn", "--quick-check", "--threads", "1")
SETTINGS = Settings(workloads=("iris",), rivals=("scikit-learn",), seconds=0.01, quick_check=True)


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module", params=PLACES)
def run(request):
    """One real run of the tiny workload: its document, and what the processes answered."""
    answers = {}

    def kept(rival, action, request, **options):
        answer = ask(rival, action, request, **options)
        array = np.load(request["out"]) if "out" in request else None
        answers[rival, action] = copy.deepcopy(answer), array
        return answer

    with pytest.MonkeyPatch.context() as patch:
        if request.param == PLACES[0]:
            run_here(patch)
        ask = processes.ask
        patch.setattr(processes, "ask", kept)
        return suites.run(("train",), {"train": SETTINGS}, silent), answers


@pytest.fixture(scope="module")
def document(run):
    return run[0]


@pytest.fixture
def tampered(run, monkeypatch):
    """Give the answers of that run again, with those of one rival changed."""

    def tamper(rival, change):
        def changed(name, action, request, **options):
            answer, array = copy.deepcopy(run[1][name, action])
            if array is not None:
                np.save(request["out"], array)
            if name == rival and action == "train":
                change(answer, request)
            return answer

        monkeypatch.setattr(processes, "ask", changed)

    return tamper


# --- workloads ------------------------------------------------------------------------------------------------------


def marks_of(name):
    """Leave the workload that takes seconds to make out of plain `pytest`."""
    return [pytest.mark.exhaustive] if name == "matrixexp" else []


@pytest.mark.parametrize("workload", [pytest.param(w, id=n, marks=marks_of(n)) for n, w in WORKLOADS.items()])
def test_data_of_a_workload(workload):
    if workload.n_samples * workload.n_features > 1e6:
        pytest.skip("the same code as for the smaller ones")
    X, y = workload.make("float32")
    assert X.shape == (workload.n_samples, workload.n_features) and X.dtype == np.float32 and X.flags.c_contiguous
    assert len(y) == len(X) and np.isfinite(X).all()
    if workload.loss == "squared_error":
        assert y.shape == (len(X), workload.n_outputs)
    else:
        assert set(np.unique(y)) == set(range(workload.n_outputs))
    again = workload.make("float32")
    np.testing.assert_array_equal(X, again[0])
    np.testing.assert_array_equal(y, again[1])


def test_operations_of_a_step():
    digits = WORKLOADS["digits"]
    forward_and_weights = 2 * (2 * 64 * 100 + 2 * 100 * 10)
    delta = 2 * 100 * 10  # of the second layer only: nobody needs the first one's
    assert digits.flops == pytest.approx((forward_and_weights + delta) * 1797 / 9)
    assert WORKLOADS["online"].steps == 2000
    assert all(w.checked_epochs * w.steps >= CHECKED_STEPS for w in WORKLOADS.values())


def test_device_workloads_have_whole_batches_and_names_of_their_own():
    assert all(w.n_samples == w.steps * w.batch_size for w in DEVICE_WORKLOADS.values())
    assert len(EVERY_WORKLOAD) == len(WORKLOADS) + len(DEVICE_WORKLOADS)
    small = DEVICE_WORKLOADS["small"]
    n_params = 64 * 128 + 128 * 128 + 128 * 10 + 128 + 128 + 10
    assert small.least_bytes("float32") == 4 * (6 * n_params + 256 * 64)
    everyone = Settings().named(DEVICE_WORKLOADS)
    assert everyone == Settings(workloads=("iris",)).named(DEVICE_WORKLOADS) == list(DEVICE_WORKLOADS.values())
    assert Settings(workloads=("small", "iris")).named(DEVICE_WORKLOADS) == [small]


@pytest.mark.parametrize("name", ["iris", pytest.param("matrixexp", marks=marks_of("matrixexp"))])
def test_a_task_draws_what_the_estimators_draw(name):
    workload = WORKLOADS[name]
    X, y = workload.make("float64")
    task = Task(workload, X, y, threads=1)
    trainer = rivals.load("scikit-learn").trainer(task, "scikit-learn")
    random = {}
    estimator = trainer.estimator
    initialize, shuffled = estimator._init_coef, []

    def keep(*arguments):
        W, b = initialize(*arguments)
        random.setdefault("coefs", []).append(W.copy())
        return W, b

    estimator._init_coef = keep
    import sklearn.neural_network._multilayer_perceptron as theirs

    shuffle = theirs.shuffle
    theirs.shuffle = lambda *a, **k: shuffled.append(shuffle(*a, **k)) or shuffled[-1]
    try:
        trainer.fit(2)
    finally:
        theirs.shuffle = shuffle
    for W, W_theirs in zip(task.network.coefs(task.params), random["coefs"], strict=True):
        np.testing.assert_array_equal(W, W_theirs)
    np.testing.assert_array_equal(task.orders(2), shuffled)


# --- train ----------------------------------------------------------------------------------------------------------


def test_train_compares_and_times(document):
    assert document["schema"] == suites.SCHEMA and document["same"] is True
    json.dumps(document, allow_nan=False)
    result = document["suites"]["train"]
    assert result["problems"] == []
    assert set(result["peak_gflops"]["default"]) == {"1"}
    (entry,) = result["workloads"]
    assert entry["widths"] == [4, 16, 3] and entry["steps"] == 5
    ours, theirs = (entry["rivals"][name] for name in ("fastmlp", "scikit-learn"))
    for record in (ours, theirs):
        assert record["status"] == "ok" and record["best"] == "1"
        assert record["loss_diff"] <= race.TOLERANCE["float32"]["losses"]
        assert record["array_diff"] <= race.TOLERANCE["float32"]["array"]
        times = record["threads"]["1"]
        assert times["median"] > 0 and times["cold"] > 0 and times["epochs"] == entry["checked_epochs"]
        assert times["gflops"] == pytest.approx(entry["flops"] / times["median"] * 1e-9)
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    ratio = theirs["threads"]["1"]["median"] / ours["threads"]["1"]["median"]
    assert entry["ratio"] == entry["ratio_by_threads"]["1"] == {"scikit-learn": pytest.approx(ratio)}
    assert [entry["ratio_to_best"], result["mean_ratio_to_best"]] == pytest.approx([ratio, ratio])
    assert document["figures"] == {"train: iris float32, seconds per step": ours["threads"]["1"]["median"]}


def wrong_loss(answer, request):
    answer["losses"][0][-1] *= 1.01


def wrong_weights(answer, request):
    np.save(request["out"], np.load(request["out"]) * 1.1)


def no_number(answer, request):
    answer["losses"][-1][0] = float("nan")


@pytest.mark.parametrize(
    ("rival", "change", "problem"),
    [
        ("fastmlp", wrong_loss, "iris, fastmlp: results differ: losses differ by 1.0e-02"),
        ("fastmlp", wrong_weights, "iris, fastmlp: results differ: weights differ by"),
        ("fastmlp", no_number, "losses differ by nan"),
        ("scikit-learn", wrong_loss, "results differ"),
    ],
)
def test_a_false_result_has_no_times(tampered, tmp_path, rival, change, problem):
    tampered(rival, change)
    path = tmp_path / "out.json"
    result = invoke(*TINY, "--json", path)
    assert result.exit_code == 1
    assert problem in result.output
    document = json.loads(path.read_text())
    (entry,) = document["suites"]["train"]["workloads"]
    assert document["same"] is False
    assert document["figures"] == {}
    assert entry["ratio"] == {"scikit-learn": None}
    for record in entry["rivals"].values():
        assert record["threads"] == {} and record["best"] is None
    assert {record["status"] for record in entry["rivals"].values()} <= {"differs", "untimed"}


def test_only_the_rival_that_differs_loses_its_times():
    records = {name: race.Record("1.0") for name in ("fastmlp", "scikit-learn", "pytorch")}
    answer = {"losses": [[1.0, 0.5]], "array": np.array([1.0, 2.0]), "what": "weights"}
    race._judge(records["fastmlp"], answer, answer, 0.0, "float32")
    race._judge(records["pytorch"], {**answer, "losses": [[1.0, 0.6]]}, answer, 0.0, "float32")
    assert records["fastmlp"].status == "ok"
    assert records["pytorch"].status == "differs"
    assert "losses differ by 2.0e-01, more than 1e-03" in records["pytorch"].problem


def test_absent_rivals_are_shown_as_absent(tampered, monkeypatch):
    absent = rivals.Rival(("no-such-distribution",), "pytorch", ("train",))
    monkeypatch.setitem(rivals.RIVALS, "pytorch", absent)
    found = processes.installed(["fastmlp", "scikit-learn", "pytorch"])
    assert found["fastmlp"] and found["scikit-learn"] and found["pytorch"] is None
    monkeypatch.setattr(processes, "installed", lambda names: found)
    tampered(None, None)
    result = invoke(*TINY, "--rival", "pytorch", "--json", "-")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    (entry,) = document["suites"]["train"]["workloads"]
    assert entry["rivals"]["pytorch"]["status"] == "absent"
    assert entry["ratio"]["pytorch"] is None
    (overview, details) = train.tables(document["suites"]["train"])
    assert overview.rows[0][overview.columns.index("pytorch")] == "absent"
    assert any("absent" in row for row in details.rows)
    assert "<td>absent</td>" in html.page(document)


def test_a_rival_that_breaks_down_is_named(tampered, tmp_path):
    def break_down(answer, request):
        raise processes.Failed("MemoryError")

    tampered("scikit-learn", break_down)
    result = invoke(*TINY)
    assert result.exit_code == 1
    assert "iris, scikit-learn: failed: MemoryError" in result.output


# --- the other suites -----------------------------------------------------------------------------------------------


@pytest.mark.nightly  # a minute; test_bench_suites.py runs them in one process
@pytest.mark.parametrize("suite", ["predict", "cold", "many", "scaling"])
def test_suite_runs_and_shows_itself(suite, monkeypatch):
    settings = Settings(rivals=("scikit-learn",), seconds=0.01, quick_check=True)
    monkeypatch.setattr(engines, "usable", lambda: ("reference",))  # nothing is compiled
    document = suites.run((suite,), {suite: settings}, silent)
    json.dumps(document, allow_nan=False)
    assert suites.problems(document) == []
    result = document["suites"][suite]
    assert result["figures"] and all(name.startswith(f"{suite}: ") for name in document["figures"])
    module = suites.module(suite)
    assert_tables(suite, result)
    for bars in module.charts(result):
        assert bars.labels and all(len(values) == len(bars.labels) for values in bars.series.values())


# --- engines side by side -------------------------------------------------------------------------------------------

SIDE_BY_SIDE = Settings(
    workloads=("iris",),
    rivals=(),
    seconds=0.01,
    backend=PAIR[0],
    engines=PAIR,
    data=("iris",),
    solvers=("lbfgs",),
    quick_check=True,
)


@pytest.fixture(scope="module", params=[*exhaustive("train"), *nightly("quick")])
def raced(request):
    """A real run of two engines."""
    settings = {request.param: SIDE_BY_SIDE}
    return request.param, suites.run((request.param,), settings, silent)


@needs_two
def test_engines_run_side_by_side(raced):
    suite, document = raced
    json.dumps(document, allow_nan=False)
    assert suites.problems(document) == []
    result = document["suites"][suite]
    assert result["engines"] == list(PAIR)
    (entry,) = result["workloads"]
    first, second = entry["rivals"]["fastmlp"], entry["rivals"]["fastmlp:reference"]
    assert first["array_diff"] == 0 and second["array_diff"] <= 3e-2
    speed = first["threads"]["1"]["median"] / second["threads"]["1"]["median"]
    for found in (entry["speed"], result["speed"]):
        assert found == {"1": {"reference": pytest.approx(speed)}}
    assert sorted(name.rsplit(",", 1)[0] for name in document["figures"]) == sorted(
        f"{suite}: {entry['name']} {engine}{' float32' if suite == 'train' else ''}" for engine in PAIR
    )


@needs_two
def test_engines_show_themselves(raced):
    suite, document = raced
    result = document["suites"][suite]
    found = suites.module(suite).tables(result)
    assert found[0].columns[2:5] == [f"{PAIR[0]} {(unit := found[0].columns[2].split()[1])}", *found[0].columns[3:5]]
    assert unit in ("us", "ms") and found[0].columns[4] == "reference speed"
    assert found[0].rows[-1][0] == "geometric mean" and found[0].rows[-1][4].endswith("x")
    for table in found:
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert not any("times faster than each rival" in table.title for table in found)
    if suite == "train":
        assert {row[1] for row in found[-1].rows} == {"fastmlp:cython", "fastmlp:reference"}
    pytest.importorskip("matplotlib")
    assert "times as fast as cython" in html.page(document)


@needs_two
@pytest.mark.exhaustive
def test_an_engine_with_false_results_has_no_times(monkeypatch):
    ask = processes.ask

    def wrong(rival, action, request, **options):
        answer = ask(rival, action, request, **options)
        if rival == "fastmlp:reference" and action == "train":
            np.save(request["out"], 1.1 * np.load(request["out"]))
        return answer

    monkeypatch.setattr(processes, "ask", wrong)
    document = suites.run(("train",), {"train": SIDE_BY_SIDE}, silent)
    assert "iris, fastmlp:reference: results differ: weights" in suites.problems(document)[0]
    (entry,) = document["suites"]["train"]["workloads"]
    assert entry["speed"] == {"1": {"reference": None}}
    (table, _) = train.tables(document["suites"]["train"])
    assert table.rows[0][3:5] == ["differs", "-"]


def test_names_of_engines():
    assert engines.chosen("all") == engines.usable() and "reference" not in engines.usable()
    assert engines.chosen("reference,all, reference")[0] == "reference"
    with pytest.raises(ValueError, match=r"'abacus' is no engine; available: .*reference, all"):
        engines.chosen("reference,abacus")


def test_cold_empties_the_cache_once_for_each_engine(monkeypatch):
    asked = []

    def answer(rival, action, request, threads, variables):
        asked.append((rival, variables["FASTMLP_CACHE_DIR"], os.listdir(variables["FASTMLP_CACHE_DIR"])))
        open(os.path.join(variables["FASTMLP_CACHE_DIR"], "code"), "w").close()
        return {"first": 1.0 if not asked[-1][2] else 0.5, "later": 0.25}

    monkeypatch.setattr(processes, "ask", answer)
    run = race.Run("cold", Settings(engines=("numba", "cython"), quick_check=True), silent)
    found = cold._engines(run, 2)
    assert run.problems == []
    assert [one[0] for one in asked] == ["fastmlp:numba"] * 2 + ["fastmlp:cython"] * 2
    assert [one[2] for one in asked] == [[], ["code"]] * 2 and asked[0][1] != asked[2][1]
    times = {"empty": 1.0, "filled": 0.5, "later": 0.25}
    assert found == [{"engine": name, "epochs": 2, **times} for name in ("numba", "cython")]
    result = {"engines": found, "settings": {"net": "digits", "dtype": "float32"}}
    assert cold._engines_table(result).rows[0] == ["numba", "2", "1,000", "500", "250"]


# --- processes ------------------------------------------------------------------------------------------------------


HIDE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "fastmlp":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
"""


def test_another_interpreter_needs_no_fastmlp(monkeypatch, tmp_path):
    """FASTMLP_RIVALS_PYTHON, with an interpreter in which fastmlp is hidden."""
    if sys.platform == "win32":
        pytest.skip("the wrapper is a shell script")
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv(processes.PYTHON, str(wrapper))
    assert processes.command("fastmlp")[0] == processes.command("scikit-learn")[0] == sys.executable
    assert processes.command("pytorch")[0] == str(wrapper)
    answer = processes.ask("pytorch", "processes:versions", {"packages": ["numpy", "no-such-distribution"]})
    assert answer == {"numpy": np.__version__, "no-such-distribution": None}


def test_interpreter_that_is_not_there(monkeypatch):
    monkeypatch.setenv(processes.PYTHON, os.path.join("no", "such", "python"))
    with pytest.raises(processes.Failed, match="cannot start"):
        processes.ask("pytorch", "processes:versions", {"packages": []})


def test_a_worker_that_fails_says_why():
    with pytest.raises(processes.Failed, match="KeyError"):
        processes.ask("fastmlp", "train", {})


def test_the_command_leaves_rivals_and_charts_alone():
    code = """
import sys, fastmlp.cli.app
loaded = {"torch", "jax", "onnxruntime", "onnx", "matplotlib", "numba"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- compare --------------------------------------------------------------------------------------------------------


def test_compare_flags_what_got_slower(document, monkeypatch, tmp_path):
    (name,) = document["figures"]
    old = tmp_path / "old.json"
    monkeypatch.setattr(suites, "run", lambda *arguments: document)
    for factor, exit_code in ((1.0, 0), (1 / 1.09, 0), (1 / 1.2, 3), (2.0, 0)):
        old.write_text(json.dumps({**document, "figures": {name: document["figures"][name] * factor}}))
        result = invoke(*TINY, "--compare", old)
        assert result.exit_code == exit_code, result.output
        assert ("slower: train: iris" in result.output) is (exit_code == 3)


def test_compare_says_when_the_machines_differ(document):
    other = {**document, "environment": {**document["environment"], "cpus": 999}}
    assert compare.compare(document, document)["same_machine"] is True
    table = compare.table(compare.compare(other, document))
    assert any("different machines" in note for note in table.notes)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', "\x00"])
def test_compare_refuses_other_files(tmp_path, text):
    path = tmp_path / "old.json"
    path.write_text(text)
    result = invoke("bench", "--compare", path)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


# --- what is shown --------------------------------------------------------------------------------------------------


def test_page_is_whole_and_alone(document, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(suites, "run", lambda *arguments: document)
    path = tmp_path / "page.html"
    result = invoke(*TINY, "--html", path)
    assert result.exit_code == 0, result.output
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.rstrip().endswith("</html>")
    assert '<meta name="viewport" content="width=device-width' in text
    assert text.count("<svg") == text.count("</svg>") == len(train.charts(document["suites"]["train"]))
    assert "times faster than scikit-learn" in text and "iris" in text
    assert not re.search(r"https?:|//\w|<script|<link|src=|@import", text)
    assert document["environment"]["versions"]["numpy"] in text


def test_page_needs_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setattr(html.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(suites, "run", None)
    result = invoke(*TINY, "--html", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "fastmlp[bench]" in " ".join(result.output.split())


def test_chart_with_gaps():
    pytest.importorskip("matplotlib")
    bars = Bars("a <b>", ["one", "two"], {"x": [1.0, None], "y": [None, 250.0]}, "us", log=True, line=1)
    text = charts.svg(bars, "salt")
    assert text.startswith("<svg") and ">250<" in text and 'aria-label="a &lt;b&gt;"' in text


def test_page_escapes_what_it_is_given(document):
    pytest.importorskip("matplotlib")
    table = Table("<i>", ["<b>"], [["<u>"]], ["<s>"])
    text = html.page(document, [table])
    assert not re.search("<[ibus]>", text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.01234, "0.0123"),
        (1.0, "1.00"),
        (9.999, "10.0"),
        (131000.4, "131,000"),
        (-2.5, "-2.50"),
    ],
)
def test_number(value, text):
    assert number(value) == text
