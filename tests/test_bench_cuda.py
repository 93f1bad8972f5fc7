"""The suite `cuda` of `fastmlp bench`, without a device: it runs on the CPU."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fastmlp.bench import cuda, html, processes, suites
from fastmlp.bench.settings import Settings
from fastmlp.bench.tables import number
from fastmlp.bench.workloads import DEVICE_WORKLOADS, EVERY_WORKLOAD, WORKLOADS, Task, Workload
from fastmlp.engines import backends

from bench_runs import SELDOM, cells, needs_two, run_here, silent


@pytest.fixture(params=SELDOM)
def on_cpu(request, monkeypatch):
    """The suite `cuda` without a device, and with an engine of the CPU in place of the GPU's."""
    monkeypatch.setattr(cuda, "DEVICE", "cpu")
    monkeypatch.setattr(cuda, "ENGINE", "reference")
    if request.param == SELDOM[0]:
        run_here(monkeypatch)
        few_rows = replace(DEVICE_WORKLOADS["small"], n_samples=16 * 256)
        for table in (DEVICE_WORKLOADS, EVERY_WORKLOAD):
            monkeypatch.setitem(table, "small", few_rows)


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
    if None in processes.installed(names).values():
        pytest.skip("not installed")
    settings = Settings(workloads=("small",), rivals=names, seconds=0.01, quick_check=True)
    document = suites.run(("cuda",), {"cuda": settings}, silent)
    json.dumps(document, allow_nan=False)
    assert suites.problems(document) == []
    result = document["suites"]["cuda"]
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
    assert cuda._both_ways({"a": 1.5, "b": 1.5}, {"a": 6.0, "b": None}) == {"a": "1.50x (6.00x)", "b": "1.50x"}


def test_what_an_engine_counts_is_shown_for_a_step_and_for_an_epoch(monkeypatch, tmp_path):
    """An engine that says it launches two kernels an epoch, and works on them for half a second."""
    workload = WORKLOADS["iris"]
    workload.write(tmp_path, "float32")
    reference = backends.get("reference")

    class Counting:
        def workspace(self, *arguments):  # that has counted other fits before
            return SimpleNamespace(own=reference.workspace(*arguments), launches=7, device_seconds=10.0)

        def train_epoch(self, workspace, *arguments):
            workspace.launches, workspace.device_seconds = workspace.launches + 2, workspace.device_seconds + 0.5
            return reference.train_epoch(workspace.own, *arguments)

    request = {"rival": "fastmlp", "workload": "iris", "folder": tmp_path, "threads": 1, "backend": "reference"}
    request |= {"device": "cpu", "precision": "highest", "seconds": 0.01, "out": tmp_path / "out.npy", "epochs": 3}
    assert not {"launches", "device_seconds"} & set(cuda.measure(request))
    monkeypatch.setattr(backends, "get", lambda name: Counting())
    answer = cuda.measure(request)
    assert answer["launches"] == 2
    assert answer["device_seconds"] == [pytest.approx(0.5 / workload.steps)] * len(answer["seconds"])


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
        if action == "cuda:probe":
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
