"""bench/gpu_check.py: whole runs in Numba's simulator; its limits and exit codes with steps of the tests' own."""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fastmlp.kernels import reference
from fastmlp.kernels.numba_cuda import driver, settings

BENCH = Path(__file__).parents[1] / "bench"
SCRIPT = BENCH / "gpu_check.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="of a checkout")
sys.path.append(str(BENCH))
import gpu_check  # noqa: E402
from gpu import checks, children, hooks, look, nets, steps, surroundings  # noqa: E402

needs_package = pytest.mark.skipif(driver.package() is None, reason="needs numba-cuda")


def start(out, *arguments, **variables):
    command = [sys.executable, str(SCRIPT), "--out", str(out), *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)


def result(out):
    return json.loads((out / gpu_check.RESULT).read_text())


# --- the command ----------------------------------------------------------------------------------------------------


@needs_package
@pytest.mark.nightly  # a minute
def test_whole_run_in_the_simulator(tmp_path):
    done = start(tmp_path, "--minutes", "9", NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stdout + done.stderr
    document = result(tmp_path)
    assert document["simulated"] and document["finished"] and document["elapsed"] < document["limit"] == 540
    found = {name: step["status"] for name, step in document["steps"].items()}
    assert list(found) == [step.name for step in steps.STEPS]
    skipped = {"compile", "sanitizers", "bench mnist-like", "bench wide-1024"}
    assert found == {name: "skipped" if name in skipped else "passed" for name in found}
    rows = {name: step["rows"] for name, step in document["steps"].items()}
    assert [row["name"] for row in rows["nets"]] == [f"{name}, float64" for name in nets.NETS]
    assert len(nets.NETS) == 9 and len(rows["tests"]) >= 2
    assert sum(row["name"].startswith("activate") for row in rows["kernels"]) > 15
    assert all(
        row["status"] == "passed"
        for name in ("nets", "kernels", "repeats", "grids", "precisions")
        for row in rows[name]
    )
    environment = document["steps"]["environment"]["details"]
    assert environment["device"] == "simulator" and environment["versions"]["numba-cuda"]
    assert json.loads((tmp_path / "bench-small.json").read_text())["same"] is True
    for name in found:
        assert any(line.startswith(name) for line in done.stdout.split("\n\n")[-2].splitlines())


@needs_package
@pytest.mark.exhaustive  # ten seconds
def test_some_steps_in_the_simulator(tmp_path, monkeypatch):
    """Children that work in the simulator, and those that have no work there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = ("environment", "compile", "repeats", "grids", "sanitizers")
    variables = {**surroundings.find_fastmlp(tmp_path), "NUMBA_ENABLE_CUDASIM": "1"}
    chosen = [step for step in steps.STEPS if step.name in names]
    assert gpu_check.perform(chosen, steps.Run(tmp_path, variables, 2, simulated=True), 300) == 0
    found = result(tmp_path)["steps"]
    assert {name: step["status"] for name, step in found.items()} == {
        name: "skipped" if name in ("compile", "sanitizers") else "passed" for name in names
    }
    assert found["environment"]["details"]["device"] == "simulator"
    assert [len(found[name]["rows"]) for name in ("repeats", "grids")] == [1, 2]


@needs_package
def test_a_limit_is_kept(tmp_path):
    begun = time.monotonic()
    done = start(tmp_path, "--minutes", "0.01", NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 1 and time.monotonic() - begun < 5
    assert {step["status"] for step in result(tmp_path)["steps"].values()} == {"no time"}
    assert done.stdout.count("no time") == 2 * len(steps.STEPS)


def test_no_device(tmp_path):
    if "cuda" in gpu_check_engines():
        pytest.skip("there is one")
    done = start(tmp_path, NUMBA_ENABLE_CUDASIM="0", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "The CUDA engine cannot run here: " in done.stdout
    document = result(tmp_path)
    assert not document["finished"] and document["steps"]["environment"]["details"]["problem"]


def gpu_check_engines():
    code = "from fastmlp.engines import backends; print(*backends.available())"
    variables = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0"}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("minutes", ["0", "-1"])
def test_a_limit_must_be_above_zero(tmp_path, minutes, capsys):
    with pytest.raises(SystemExit) as caught:
        gpu_check.main([f"--minutes={minutes}", "--out", str(tmp_path)])
    assert caught.value.code == 2 and "--minutes must be above 0" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    with pytest.raises(SystemExit) as caught:
        gpu_check.main(["--out", str(tmp_path / "file")])
    assert caught.value.code == 2 and "--out must be a folder that can be made" in capsys.readouterr().err


def test_the_simulator_needs_the_tests(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setattr(surroundings, "CHECKOUT", tmp_path)
    with pytest.raises(SystemExit) as caught:
        gpu_check.main(["--out", str(tmp_path)])
    assert caught.value.code == 2 and "the simulator needs a checkout" in capsys.readouterr().err


# --- steps of its own -----------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    return steps.Run(tmp_path, dict(os.environ), jobs=2)


def program(code, run, seconds):
    """A step whose child runs this code."""
    log = run.out / "program.log"
    codes = children.run_all([([sys.executable, "-c", code], log)], seconds, run.variables)
    return steps.judged(codes, [None], [children.last_line(log)])


def step(name, code, least=0.0, most=20.0):
    return steps.Step(name, least, most, partial(program, code))


PASSES, FAILS, HANGS = "pass", "raise ValueError('bad luck')", "import time; time.sleep(60)"


def test_a_failing_step_leaves_the_others_alone(run, capsys):
    def breaks(run, seconds):
        raise OSError("no room")

    plan = [step("a", PASSES), step("b", FAILS), steps.Step("c", 0, 9, breaks), step("d", PASSES)]
    assert gpu_check.perform(plan, run, 60) == 1
    found = result(run.out)["steps"]
    assert [one["status"] for one in found.values()] == ["passed", "failed", "failed", "passed"]
    assert "ValueError: bad luck" in found["b"]["note"] and found["c"]["note"] == "OSError: no room"
    assert "bad luck" in capsys.readouterr().out


def test_a_hanging_step_is_stopped(run):
    begun = time.monotonic()
    assert gpu_check.perform([step("a", HANGS, most=0.5), step("b", PASSES)], run, 60) == 1
    assert time.monotonic() - begun < 10
    assert [one["status"] for one in result(run.out)["steps"].values()] == ["stopped", "passed"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_a_stopped_child_has_started_ends_with_it(tmp_path):
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
child.wait()
"""
    pid = tmp_path / "pid"
    command = [sys.executable, "-c", code, str(pid)]
    assert children.run_all([(command, tmp_path / "log")], 3, os.environ) == [None]
    for _ in range(100):  # until whoever adopts orphans has seen it
        state = Path("/proc", pid.read_text(), "stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("it is still there")


def test_a_step_leaves_the_later_ones_what_they_need(run):
    limits = []

    def took(run, seconds):
        limits.append(seconds)
        return steps.Outcome("passed")

    plan = [steps.Step("a", 1, 90, took), steps.Step("b", 20, 90, took), steps.Step("c", 50, 90, took)]
    assert gpu_check.perform(plan, run, 100) == 0
    assert limits == pytest.approx([30, 50, 90], abs=1)
    limits.clear()
    assert gpu_check.perform(plan, run, 40) == 1
    assert [one["status"] for one in result(run.out)["steps"].values()] == ["passed", "passed", "no time"]
    assert limits == pytest.approx([1, 20], abs=1)


def test_results_are_kept_after_every_step(run):
    def looks(run, seconds):
        return steps.Outcome("passed", details=list(result(run.out)["steps"]))

    gpu_check.perform([step("a", PASSES), steps.Step("b", 0, 9, looks)], run, 60)
    assert result(run.out)["steps"]["b"]["details"] == ["a"]


def test_rows_of_a_child_that_went_down(tmp_path):
    """The row in progress is the one that failed, or in which the child was stopped."""
    rows = [{"name": "one", "status": "passed", "note": ""}, {"name": "two", "status": "running", "note": ""}]
    document = {"total": 3, "rows": rows}
    down, stopped = (steps.judged([code], [document], ["Aborted"]) for code in (-6, None))
    assert down.status == "failed" and "two" in down.note and down.rows[1]["status"] == "failed"
    assert stopped.status == "stopped" and stopped.note == "1 of 3 in time, stopped in two"


def test_tests_are_counted_from_what_pytest_has_said(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "test_cuda.py::test_a[x y] PASSED [ 50%]\ntest_cuda.py::test_b SKIPPED (no) [ 70%]\ntest_cuda.py::test_c "
    )
    stopped = steps._judged_tests([None], [["a", "b", "c"]], [log])
    assert (stopped.status, stopped.note) == ("stopped", "1 passed, 1 skipped of 3 tests in time")
    log.write_text(log.read_text() + "FAILED [100%]\n")
    failed = steps._judged_tests([1], [["a", "b", "c"]], [log])
    assert failed.status == "failed" and "test_cuda.py::test_c" in failed.note


# --- the checks -----------------------------------------------------------------------------------------------------


def test_checks_tell_right_from_wrong(monkeypatch):
    """With engines that are the reference, and one that is nearly so."""
    training = nets.Training(nets.NETS["batch norm"], "float64", True)
    monkeypatch.setattr(hooks, "forced", lambda *arguments, **force: hooks.nullcontext())
    engine = type("Engine", (), {**vars(reference), "__name__": "engine"})
    assert "epoch 0e+00" in nets.compared(engine, reference, training)
    assert nets.repeated(engine, training, 2) and nets.same_bits_in_all_grids(engine, training, (2,))
    number = iter(range(100))

    def nearly(workspace, params, *arguments, **options):
        value = reference.train_epoch(workspace, params, *arguments, **options)
        params *= 1 + 1e-9 * next(number)
        return value

    engine.train_epoch = staticmethod(nearly)
    next(number)
    with pytest.raises(AssertionError, match="differs by more than 1e-11"):
        nets.compared(engine, reference, training)
    with pytest.raises(AssertionError, match="repetition 1"):
        nets.repeated(engine, training, 2)
    with pytest.raises(AssertionError, match="a launch per phase, 2 blocks"):
        nets.same_bits_in_all_grids(engine, training, (2,))


def test_every_kernel_is_checked_against_the_reference():
    found = dict(checks.named())
    for name, check in found.items():
        with np.errstate(all="ignore"):
            assert check(reference, reference, "float32"), name
    wrong = type("Wrong", (), {**vars(reference), "train_epoch": staticmethod(lambda *arguments: 0.0)})
    with pytest.raises(AssertionError, match="differs by"):
        found["update: adam"](wrong, reference, "float32")


def test_a_choice_is_forced_for_a_while():
    before = dict(vars(settings))
    with hooks.forced(tile="large", schedule="rows", blocks=3, chunk_rows=5):
        assert settings.TILES == (settings.LARGE,)
        assert (settings.SCHEDULE, settings.BLOCKS_PER_PHASE, settings.CHUNK_ROWS) == ("rows", 3, 5)
    assert dict(vars(settings)) == before


# --- surroundings ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_checkout_needs_no_installation(tmp_path, monkeypatch):
    """Children of an isolated interpreter find the package, the kernels in it, and its version."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for _ in range(2):  # and a second run in the same folder
        variables = surroundings.find_fastmlp(tmp_path)
    code = (
        "import fastmlp.kernels.codegen as c, fastmlp, importlib.metadata as m;"
        "print(m.version('fastmlp') == fastmlp.__version__, c.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables, cwd=surroundings.CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["True", str(tmp_path / "path" / "fastmlp" / "kernels" / "codegen" / "__init__.py")]


def test_a_sanitizer_is_found_in_a_toolkit(tmp_path, monkeypatch):
    monkeypatch.setattr(look.shutil, "which", lambda name: None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    program = tmp_path / look.SANITIZERS[0]
    program.parent.mkdir()
    program.touch(mode=0o755)
    assert look.find_sanitizer() == str(program)


def test_sanitizers_are_judged_by_exit_code_and_summary(tmp_path, monkeypatch):
    """With a program in the sanitizer's place that runs nothing and has found something as memcheck."""
    if sys.platform == "win32":
        pytest.skip("it is a shell script")
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        "#!/bin/sh\n"
        'for last; do :; done\necho \'{"total": 0, "rows": []}\' > "$last"\necho "========= ERROR SUMMARY: 2 errors"\n'
        '[ "$2" = memcheck ] && exit 9\nexit 0\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(look, "find_sanitizer", lambda: str(program))
    outcome = steps.sanitizers(steps.Run(tmp_path, dict(os.environ)), 30)
    assert outcome.status == "failed"
    assert outcome.note == "racecheck passed; memcheck failed; synccheck passed"
    assert all("ERROR SUMMARY: 2 errors" in row["note"] for row in outcome.rows)
    monkeypatch.setattr(look, "find_sanitizer", lambda: None)
    assert steps.sanitizers(steps.Run(tmp_path, dict(os.environ)), 30).status == "skipped"
