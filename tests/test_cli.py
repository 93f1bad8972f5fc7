"""The console script: what it prints and writes, and how it says no."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

from fastmlp.bench import cuda, quick, suites, timing
from fastmlp.cli.app import app
from fastmlp.data.files import write_whole
from fastmlp.engines import backends, environment

# The quickest case of all, 20 iterations on 150 rows.
TINY = ("bench", "--data", "iris", "--solver", "lbfgs", "--repeats", "2")


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def words(text):
    """Text without colours, frames and line breaks, so that a message can be found in it."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return " ".join(re.sub(r"[│╭╮╰╯─|+]", " ", text).split())


# --- fastmlp, --version, --help -------------------------------------------------------------------


def test_version():
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output == f"fastmlp {importlib.metadata.version('fastmlp')}\n"


def test_console_script_is_installed():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="fastmlp")
    assert script.load() is app


def test_no_command_shows_help():
    result = invoke()
    assert result.exit_code in (0, 2)  # 2 with recent versions of typer
    assert "bench" in result.output and "info" in result.output


@pytest.mark.parametrize("command", ["bench", "info"])
def test_help_has_examples(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in words(result.output)
    assert f"fastmlp {command}" in words(result.output)


@pytest.mark.nightly  # a process; that of test_installations.py looks for these, too
def test_importing_the_package_leaves_the_terminal_libraries_alone():
    code = """
import sys, sklearn.neural_network  # recent versions import rich themselves
before = set(sys.modules)
import fastmlp
fastmlp.MLPClassifier
new = {"typer", "rich", "numba", "matplotlib"} & (set(sys.modules) - before)
assert not new, new
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- fastmlp bench --------------------------------------------------------------------------------


def test_bench_prints_a_table_and_writes_json(tmp_path):
    path = tmp_path / "out.json"
    result = invoke(*TINY, "--json", path)
    assert result.exit_code == 0, result.output
    assert re.search(r"iris +150 x 4 +4-16-3 +lbfgs", result.output)

    document = json.loads(path.read_text())
    assert document["schema"] == 2
    assert document["same"] is True
    assert set(document["environment"]) == set(environment.describe())
    suite = document["suites"]["quick"]
    assert suite["settings"] == {
        "repeats": 2,
        "backend": "auto",
        "threads": 1,
        "dtype": "float64",
        "tolerance": quick.TOLERANCE,
    }
    (case,) = suite["cases"]
    assert case["layers"] == [4, 16, 3]
    assert case["params"]["hidden_layer_sizes"] == [16]
    assert case["n_iter"]["scikit-learn"] == case["n_iter"]["fastmlp"] > 0
    assert case["score"]["scikit-learn"] == case["score"]["fastmlp"] > 0.9
    assert 0 <= case["weight_diff"] <= quick.TOLERANCE
    assert 0 <= case["prediction_diff"] <= quick.TOLERANCE
    assert case["problems"] == []
    for rival in quick.RIVALS:
        assert len(case["seconds"][rival]) == 2
        assert min(case["seconds"][rival]) <= case["median"][rival] <= max(case["seconds"][rival])
    ratio = case["median"]["scikit-learn"] / case["median"]["fastmlp"]
    assert case["ratio"] == pytest.approx(ratio)
    assert suite["mean_ratio"] == pytest.approx(ratio)
    assert document["figures"] == {"quick: iris lbfgs, seconds": case["median"]["fastmlp"]}
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_bench_writes_json_alone_to_standard_output():
    result = invoke(*TINY, "--json", "-")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["same"] is True


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"alpha": 1.0}, "weights differ by"),
        ({"max_iter": 5}, "n_iter_ is 5, scikit-learn's is 20"),
        ({"hidden_layer_sizes": (7,)}, "weights differ by inf"),
    ],
)
def test_bench_fails_without_times_if_results_differ(monkeypatch, tmp_path, change, problem):
    path = tmp_path / "out.json"
    fits = []
    estimators, fit = quick.estimators, timing.fit

    def tampered(*arguments):
        models = estimators(*arguments)
        models["fastmlp"].set_params(**change)
        return models

    def counted(*arguments):
        fits.append(arguments)
        return fit(*arguments)

    monkeypatch.setattr(quick, "estimators", tampered)
    monkeypatch.setattr(timing, "fit", counted)
    result = invoke(*TINY, "--json", path)
    assert result.exit_code == 1
    assert f"iris, lbfgs: results differ: {problem}" in words(result.output)
    assert len(fits) == 2  # compared before the clock was started
    document = json.loads(path.read_text())
    suite = document["suites"]["quick"]
    (case,) = suite["cases"]
    assert document["same"] is case["same"] is False
    assert suite["mean_ratio"] is case["ratio"] is None
    assert document["figures"] == {}
    assert case["seconds"] == {rival: [] for rival in quick.RIVALS}
    assert problem in case["problems"][0] or problem in case["problems"][-1]


def test_bench_drops_the_times_if_a_timed_fit_differs(monkeypatch):
    estimators = quick.estimators

    def fickle(*arguments):
        models = estimators(*arguments)
        ours = models["fastmlp"]
        fit, count = ours.fit, iter(range(99))

        def fit_another_way(X, y):
            return fit(X * 1.5 if next(count) == 2 else X, y)

        object.__setattr__(ours, "fit", fit_another_way)
        return models

    monkeypatch.setattr(quick, "estimators", fickle)
    (case,) = quick.select(["iris"], ["lbfgs"])
    row = quick.run_case(case, repeats=3)
    assert not row["same"]
    assert row["seconds"] == {rival: [] for rival in quick.RIVALS}


class Fixed:
    """As much of a fitted regressor as `compare` looks at."""

    def __init__(self, weight, prediction=1.0, n_iter=1):
        self.coefs_, self.intercepts_ = [np.array([[1.0, weight]])], [np.array([0.5, 0.5])]
        self.n_iter_ = n_iter
        self.prediction = prediction

    def predict(self, X):
        return np.array([2.0, self.prediction])


@pytest.mark.parametrize(
    ("ours", "same", "weight_diff", "prediction_diff"),
    [
        (Fixed(2.0), True, 0.0, 0.0),
        (Fixed(2.0 + 1e-9), True, 5e-10, 0.0),
        (Fixed(2.0 + 1e-5), False, 5e-6, 0.0),
        (Fixed(2.0, prediction=1.1), False, 0.0, 0.05),
        (Fixed(2.0, n_iter=2), False, 0.0, 0.0),
        (Fixed(np.nan), False, np.nan, 0.0),
        (Fixed(np.inf), False, np.inf, 0.0),
        (Fixed(2.0, prediction=np.nan), False, 0.0, np.nan),
    ],
)
def test_compare(ours, same, weight_diff, prediction_diff):
    comparison = quick.compare(Fixed(2.0), ours, np.zeros((2, 1)))
    assert comparison["same"] is same
    assert comparison["weight_diff"] == pytest.approx(weight_diff, rel=1e-4, nan_ok=True)
    assert comparison["prediction_diff"] == pytest.approx(prediction_diff, rel=1e-4, nan_ok=True)


def test_two_models_of_nothing_but_nan_are_not_the_same():
    assert not quick.compare(Fixed(np.nan), Fixed(np.nan), np.zeros((2, 1)))["same"]


def test_ctrl_c_stops_the_bench(monkeypatch):
    class Interrupted:
        def fit(self, X, y):  # what the estimators' fit makes of Ctrl-C
            warnings.warn("Training interrupted by user.", stacklevel=2)

    stub = {rival: Interrupted() for rival in quick.RIVALS}
    monkeypatch.setattr(quick, "estimators", lambda *arguments: stub)
    (case,) = quick.select(["iris"], ["lbfgs"])
    with pytest.raises(KeyboardInterrupt):
        quick.run_case(case, repeats=1)
    result = invoke(*TINY)
    assert result.exit_code == 130 or "Aborted" in result.output  # the latter with older versions of typer


def test_cases_cover_all_data_sets_and_solvers():
    assert {case.data for case in quick.CASES} == set(quick.DATA)
    assert {case.solver for case in quick.CASES} == set(quick.SOLVERS)
    assert {case.data for case in quick.select(solvers=["adam"])} == set(quick.DATA)
    assert quick.select() == quick.CASES


@pytest.mark.parametrize("name", quick.DATA)
def test_data_is_standardised(name):
    X, y = quick.load(name)
    assert X.dtype == np.float64 and X.flags.c_contiguous and len(X) == len(y)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-12)
    spread = X.std(axis=0)  # a pixel that is always 0 stays 0
    np.testing.assert_allclose(spread[spread > 0], 1)
    if quick.DATA[name] == "regressor":
        np.testing.assert_allclose(y.std(axis=0), 1)


# --- fastmlp info ---------------------------------------------------------------------------------


def test_info_says_what_is_there():
    result = invoke("info")
    assert result.exit_code == 0
    for text in ("fastmlp", "scikit-learn", "engine cython", "engine reference", "usable cores"):
        assert text in result.output
    assert importlib.metadata.version("numpy") in result.output


def test_info_json():
    result = invoke("info", "--json", "-")
    described = json.loads(result.stdout)
    assert described["versions"]["fastmlp"] == importlib.metadata.version("fastmlp")
    assert described["versions"]["python"].startswith(f"{sys.version_info.major}.")
    assert described["isa"]["chosen"] in described["isa"]["usable"]
    assert {"cython", "reference"} <= set(described["engines"])
    assert any(pool["user_api"] == "blas" for pool in described["blas"])
    assert os.sep + "lib" not in result.stdout  # nobody's paths


def test_info_says_why_an_engine_is_missing(monkeypatch):
    def get(name):
        if name == "reference":
            raise ImportError("install fastmlp[extra]")
        return original(name)

    original = backends.get
    monkeypatch.setattr(backends, "get", get)
    result = invoke("info")
    assert result.exit_code == 0
    assert "not available: install fastmlp[extra]" in words(result.output)


# --- bad usage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--data", "mnist"], "'mnist' is not one of iris, wine"),
        (["bench", "--solver", "rmsprop"], "'rmsprop' is not one of adam, sgd, lbfgs"),
        (["bench", "--data", "wine", "--solver", "sgd"], "no case has both"),
        (["bench", "--repeats", "0"], "--repeats"),
        (["bench", "--repeats", "many"], "--repeats"),
        (["bench", "--threads", "0"], "--threads"),
        (["bench", "--backend", "abacus"], "abacus"),
        (["bench", "--no-such-option"], "--no-such-option"),
        (["bench", "--json", os.path.join("no", "such", "folder.json")], "there is no folder"),
        (["bench", "--json", os.curdir], "is a folder"),
        (["bench", "iris"], "'iris' is not one of quick, train"),
        (["bench", "train", "--data", "iris"], "--data is an option of quick"),
        (["bench", "--workload", "iris"], "--workload is an option of train"),
        (["bench", "train", "--workload", "imagenet"], "'imagenet' is not one of iris"),
        (["bench", "train", "--rival", "abacus"], "'abacus' is not one of scikit-learn"),
        (["bench", "train", "--dtype", "int8"], "'int8' is not one of float32"),
        (["bench", "train", "--rounds", "0"], "--rounds"),
        (["bench", "train", "--engines", "abacus"], "'abacus' is no engine; available:"),
        (["bench", "predict", "--engines", "all"], "--engines is an option of quick, train, cold"),
        (["bench", "--engines", "reference", "--backend", "reference"], "exclude each other"),
        (["bench", "train", "--workload", "small"], "--workload small is none of train's"),
        (["bench", "cuda", "--workload", "iris"], "--workload iris is none of cuda's"),
        (["bench", "cuda", "--dtype", "float64"], "--dtype is an option of"),
        (["bench", "--compare", "no such.json"], "cannot read"),
        (["bench", "--html", os.curdir], "is a folder"),
        (["info", "--json", os.curdir], "is a folder"),
        (["race"], "race"),
    ],
)
def test_bad_usage_is_refused_before_anything_runs(monkeypatch, arguments, message):
    monkeypatch.setattr(suites, "run", None)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in words(result.output)
    assert "Traceback" not in result.output


def test_backend_errors_name_the_choices():
    message = words(invoke("bench", "--backend", "abacus").output)
    for name in backends.available():
        assert name in message


def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "ghost", backends.Row("fastmlp.kernels.no_such_engine", "pip install ghost"))
    result = invoke("bench", "train", "--engines", "reference,ghost")
    assert result.exit_code == 2
    assert "pip install ghost" in words(result.output)


def test_cuda_without_a_device_is_one_line(monkeypatch):
    monkeypatch.setattr(suites, "run", None)
    monkeypatch.setattr(cuda, "why_not", lambda: "no device was found")
    result = invoke("bench", "cuda")
    assert result.exit_code == 2
    assert result.output == "Error: the suite cuda cannot run here: no device was found\n"


@pytest.mark.parametrize("reason", ["no device was found", None])
def test_all_skips_cuda_in_sight(monkeypatch, reason):
    asked = {}

    def run(names, options, tell, skipped):
        asked.update(names=names, options=options, skipped=skipped)
        return {"suites": {}, "skipped": skipped, "same": True, "environment": environment.describe(), "figures": {}}

    monkeypatch.setattr(suites, "run", run)
    monkeypatch.setattr(cuda, "why_not", lambda: reason)
    result = invoke("bench", "all", "--engines", "reference")
    assert result.exit_code == 0
    assert ("skipped: cuda: no device was found" in result.output) is (reason is not None)
    assert ("cuda" in asked["names"]) is (reason is None) and "train" in asked["names"]
    assert asked["skipped"] == ({"cuda": reason} if reason else {})
    assert asked["options"]["train"].rivals == () and asked["options"]["predict"].rivals
    assert asked["options"]["train"].engines == ("reference",) and asked["options"]["train"].backend == "reference"


# --- files ----------------------------------------------------------------------------------------


def full_disk(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file_and_nothing_else(monkeypatch, tmp_path, failing):
    path = tmp_path / "out.json"
    path.write_text("old")
    monkeypatch.setattr(os, failing, full_disk)
    result = invoke("info", "--json", path)
    assert result.exit_code == 2
    assert "cannot write" in result.output and "No space left" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert path.read_text() == "old"


def test_write_whole_replaces(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "one")
    write_whole(path, "two\n")
    assert path.read_text() == "two\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_write_whole_keeps_a_symbolic_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_whole(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(not os.path.exists(os.devnull) or sys.platform == "win32", reason="no devices")
def test_write_whole_leaves_devices_alone():
    from pathlib import Path

    write_whole(Path(os.devnull), "nothing")
    assert not Path(os.devnull).is_file()


def test_folder_without_rights_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write anywhere
    result = invoke("info", "--json", tmp_path / "out.json")
    assert result.exit_code == 2
    assert "is not writable" in words(result.output)
