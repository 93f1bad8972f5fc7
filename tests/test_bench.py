"""The suites of `fastmlp bench` that run in fresh processes: real ones, at their smallest; no times are asserted."""

import copy
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from fastmlp.bench import charts, cold, compare, cuda, engines, html, options, processes, race, rivals, suites, train
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import Bars, Table, number
from fastmlp.bench.workloads import CHECKED_STEPS, DEVICE_WORKLOADS, EVERY_WORKLOAD, WORKLOADS, Task, Workload
from fastmlp.cli.app import app
from fastmlp.engines import backends
from fastmlp.kernels import formulas

TINY = ("bench", "train", "--workload", "iris", "--rival", "scikit-learn", "--quick-check", "--threads", "1")
SETTINGS = Settings(workloads=("iris",), rivals=("scikit-learn",), seconds=0.01, quick_check=True)


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def silent(text):
    """Nobody to tell."""


@pytest.fixture(scope="module")
def run():
    """One real run of the tiny workload: its document, and what the processes answered."""
    answers, ask = {}, processes.ask

    def kept(rival, action, request, **options):
        answer = ask(rival, action, request, **options)
        array = np.load(request["out"]) if "out" in request else None
        answers[rival, action] = copy.deepcopy(answer), array
        return answer

    with pytest.MonkeyPatch.context() as patch:
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
    absent = rivals.Rival(("no-such-distribution",), "pytorch", ("train",), "not at all")
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


@pytest.mark.exhaustive  # a minute; test_bench_suites.py runs them in one process
@pytest.mark.parametrize("suite", ["predict", "cold", "grid", "scaling"])
def test_suite_runs_and_shows_itself(suite, monkeypatch):
    settings = Settings(rivals=("scikit-learn",), seconds=0.01, quick_check=True)
    monkeypatch.setattr(engines, "usable", lambda: ("reference",))  # nothing is compiled
    document = suites.run((suite,), {suite: settings}, silent)
    json.dumps(document, allow_nan=False)
    assert suites.problems(document) == []
    result = document["suites"][suite]
    assert result["figures"] and all(name.startswith(f"{suite}: ") for name in document["figures"])
    module = suites.module(suite)
    for table in module.tables(result):
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    for bars in module.charts(result):
        assert bars.labels and all(len(values) == len(bars.labels) for values in bars.series.values())


# --- engines side by side -------------------------------------------------------------------------------------------

PAIR = ("cython", "reference") if "cython" in backends.available() else ("reference", "reference")
needs_two = pytest.mark.skipif(len(set(PAIR)) < 2, reason="needs the Cython engine")
SIDE_BY_SIDE = Settings(
    workloads=("iris",), rivals=(), backend=PAIR[0], engines=PAIR, data=("iris",), solvers=("lbfgs",), quick_check=True
)


@pytest.fixture(
    scope="module", params=[pytest.param(suite, marks=pytest.mark.exhaustive) for suite in ("train", "quick")]
)
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
    found, failed = cold._engines(Settings(engines=("numba", "cython"), quick_check=True), silent)
    assert failed == []
    assert [one[0] for one in asked] == ["fastmlp:numba"] * 2 + ["fastmlp:cython"] * 2
    assert [one[2] for one in asked] == [[], ["code"]] * 2 and asked[0][1] != asked[2][1]
    times = {"empty": 1.0, "filled": 0.5, "later": 0.25}
    assert found == [{"engine": name, "epochs": 2, **times} for name in ("numba", "cython")]
    result = {"engines": found, "settings": {"net": "digits", "dtype": "float32"}}
    assert cold._engines_table(result).rows[0] == ["numba", "2", "1,000", "500", "250"]


# --- cuda -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_cpu(monkeypatch):
    """The suite `cuda` without a device, and with an engine of the CPU in place of the GPU's."""
    monkeypatch.setattr(cuda, "DEVICE", "cpu")
    monkeypatch.setattr(cuda, "ENGINE", "reference")


def test_cuda_says_what_is_missing(monkeypatch):
    absent = backends.Row("fastmlp.kernels.no_such_engine", "pip install ectoplasm")
    monkeypatch.setitem(backends.BACKENDS, "cuda", absent)
    assert "pip install ectoplasm" in suites.why_not("cuda")
    monkeypatch.delitem(backends.BACKENDS, "cuda")
    assert suites.why_not("cuda") == "this version of fastmlp has no engine 'cuda'"
    assert suites.why_not("quick") is None


@pytest.mark.parametrize("names", [(), ("torch gpu", "torch graph"), ("jax gpu",)], ids=["alone", "torch", "jax"])
@needs_two
def test_cuda_runs_on_the_cpu(on_cpu, names):
    settings = Settings(workloads=("small",), rivals=names, seconds=0.01, quick_check=True)
    document = suites.run(("cuda",), {"cuda": settings}, silent)
    json.dumps(document, allow_nan=False)
    assert suites.problems(document) == []
    result = document["suites"]["cuda"]
    if set(names) & set(result["absent"]):
        pytest.skip("not installed")
    (entry,) = result["workloads"]
    assert list(entry["rivals"]) == ["fastmlp", *names, cuda.ON_CPU]
    for record in entry["rivals"].values():
        assert record["status"] == "ok"
        assert record["loss_diff"] < 1e-5 and record["array_diff"] < 1e-3
    times = entry["rivals"]["fastmlp"]["threads"]["1"]
    assert times["flops"] == entry["flops"] / times["median"] and times["bytes"] == entry["bytes"] / times["median"]
    if result["peaks"]["flops"]:
        assert times["flops_of_peak"] == times["flops"] / result["peaks"]["flops"]
    assert document["figures"] == {"cuda: small, seconds per step": times["median"]}
    for table in cuda.tables(result):
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    pytest.importorskip("matplotlib")
    assert html.page(document).count("<svg") == len(cuda.charts(result))


@needs_two
def test_cuda_shows_both_times_of_an_engine_that_measures_its_device(on_cpu, monkeypatch):
    """The clock's and that of the launches alone, which is said to be a quarter of it."""
    ask = processes.ask

    def answer(rival, action, request, **options):
        found = ask(rival, action, request, **options)
        if action == "cuda" and rival == "fastmlp":
            assert "device_seconds" not in found  # the engine on the CPU has none
            found["device_seconds"] = [seconds / 4 for seconds in found["seconds"]]
        return found

    monkeypatch.setattr(processes, "ask", answer)
    settings = Settings(workloads=("small",), rivals=(), seconds=0.01, quick_check=True)
    document = suites.run(("cuda",), {"cuda": settings}, silent)
    (entry,) = document["suites"]["cuda"]["workloads"]
    times = entry["rivals"]["fastmlp"]["threads"]["1"]
    assert times["device"] == pytest.approx(times["median"] / 4)
    assert entry["device_ratio"][cuda.ON_CPU] == pytest.approx(4 * entry["ratio"][cuda.ON_CPU])
    assert document["figures"] == {"cuda: small, seconds per step": times["median"]}
    for table in cuda.tables(document["suites"]["cuda"]):
        ours = next(row for row in table.rows if row[1] != cuda.ON_CPU)
        assert ours[table.columns.index("on device")] == number(1e6 * times["device"])
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert cuda._both_ways(1.5, 6.0) == "1.50x (6.00x)" and cuda._both_ways(1.5, None) == "1.50x"


def test_the_clock_keeps_what_the_device_measured():
    class Trainer:
        seconds, device_seconds = 2.0, 10.0

        def fit(self, epochs):
            self.device_seconds += 0.5 * epochs
            return [0.0] * epochs

    class Unmeasured(Trainer):
        device_seconds = None

        def fit(self, epochs):
            return [0.0] * epochs

    clock = cuda._Clock()
    assert clock(Trainer(), 3) == (2.0, [0.0] * 3) and clock.on_device == [1.5]
    assert clock(Unmeasured(), 3)[0] == 2.0 and clock.on_device == [1.5]


def test_captured_steps_are_grouped(monkeypatch):
    """Sixteen steps in a launch, and the rest of an epoch one by one: the same numbers as all of them one by one."""
    pytest.importorskip("torch")
    from fastmlp.bench.rivals import torch_device

    assert torch_device.GROUP == 16 and torch_device.groups(37) == [16, 16, 1, 1, 1, 1, 1]
    workload = Workload("tiny", 37 * 8, 5, (6,), 3, 8)
    task, found = Task(workload, *workload.make("float32"), threads=1), []
    for group in (16, 1):
        monkeypatch.setattr(torch_device, "GROUP", group)
        trainer, launches = torch_device.trainer(task, "torch graph", "cpu"), []
        replay = trainer.replay
        trainer.replay = lambda steps, replay=replay, launches=launches: launches.append(steps) or replay(steps)
        trainer.prepare(2)
        losses = trainer.fit(2)
        assert launches == 2 * torch_device.groups(37) and sum(launches) == 2 * 37
        found.append((losses, trainer.params()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert np.abs(found[0][1] - task.params).max() > 1e-3


def test_cuda_shows_absent_rivals_and_launches(on_cpu, monkeypatch):
    ask = processes.ask

    def answer(rival, action, request, **options):
        if action == "device":
            raise processes.Failed("this PyTorch sees no CUDA device")
        found = ask(rival, action, request, **options)
        return {**found, "launches": 77} if action == "cuda" and rival == "fastmlp" else found

    monkeypatch.setattr(processes, "ask", answer)
    monkeypatch.setattr(processes, "installed", lambda names: dict.fromkeys(names, "1.0"))
    settings = Settings(workloads=("small",), rivals=("torch gpu",), seconds=0.01, quick_check=True)
    result = suites.run(("cuda",), {"cuda": settings}, silent)["suites"]["cuda"]
    assert result["problems"] == [] and result["peaks"] == {"flops": None, "bytes": None}
    overview, details = cuda.tables(result)
    assert "torch gpu: this PyTorch sees no CUDA device" in overview.notes
    assert cells(overview, "torch gpu")["small"] == "absent"
    assert [row[details.columns.index("launches")] for row in details.rows] == ["77", "-", "-"]


def test_only_who_asks_for_a_device_sees_one():
    sees = processes._computes_on_a_device
    assert sees("fastmlp:cuda", {}) and sees("fastmlp", {"backend": "cuda"}) and sees("torch gpu", {"device": "cuda"})
    assert not sees("fastmlp:cython", {"backend": "cuda"}) and not sees("pytorch", {"backend": "cuda"})
    hidden, seen = processes.environment(1), processes.environment(1, device=True)
    assert hidden["CUDA_VISIBLE_DEVICES"] == "" and hidden["JAX_PLATFORMS"] == "cpu"
    assert seen.get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")
    assert seen["JAX_PLATFORMS"] == "cuda" and seen["NVIDIA_TF32_OVERRIDE"] == "0"


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
    answer = processes.ask("pytorch", "versions", {"packages": ["numpy", "no-such-distribution"]})
    assert answer == {"numpy": np.__version__, "no-such-distribution": None}


def test_interpreter_that_is_not_there(monkeypatch):
    monkeypatch.setenv(processes.PYTHON, os.path.join("no", "such", "python"))
    with pytest.raises(processes.Failed, match="cannot start"):
        processes.ask("pytorch", "versions", {"packages": []})


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
    assert text.startswith("<svg") and ">250<" in text and 'aria-label="a &lt;b>"' in text


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


# --- options --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    """A real run of every option, with PyTorch where it is installed."""
    settings = Settings(rivals=("pytorch",), threads=(1,), seconds=0.01, quick_check=True)
    return suites.run(("options",), {"options": settings}, silent)


def cells(table, column):
    """Cells of a column by the first one of their row."""
    return {row[0]: row[list(table.columns).index(column)] for row in table.rows}


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
    answer, trainer = options._first(options._ours, task, {"no_such_option": 1}, 1)
    assert trainer is None and "no_such_option" in answer["absent"]
    answer, trainer = options._first(options._ours, task, {"activation": "no_such_activation"}, 1)
    assert trainer is None and "no_such_activation" in answer["absent"]

    def breaks(task, params):
        raise RuntimeError("out of order")

    answer, trainer = options._first(breaks, task, {}, 1)
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
