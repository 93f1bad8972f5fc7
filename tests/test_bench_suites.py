"""The bench's suites, measured in this process: what they do with the answers, and what a worker computes.

In fresh processes, as users run them, they are tested in test_bench.py; that takes a minute, and plain `pytest` leaves
most of it out.
"""

import pytest

from fastmlp.bench import engines, many, processes, suites
from fastmlp.bench.settings import Settings

from bench_runs import PAIR, assert_tables, needs_two, run_here, silent


@pytest.mark.parametrize("suite", ["cold", "many", "predict", "scaling"])
def test_suite_runs_in_this_process(suite, monkeypatch):
    run_here(monkeypatch)
    monkeypatch.setattr(engines, "usable", lambda: ("reference",))  # nothing is compiled
    settings = Settings(rivals=("scikit-learn",), seconds=0.01, quick_check=True)
    document = suites.run((suite,), {suite: settings}, silent)
    assert suites.problems(document) == []
    result = document["suites"][suite]
    assert result["figures"] and all(name.startswith(f"{suite}: ") for name in document["figures"])
    assert_tables(suite, result)


@needs_two
@pytest.mark.parametrize("suite", ["train", "quick"])
def test_engines_run_side_by_side_in_this_process(suite, monkeypatch):
    run_here(monkeypatch)
    settings = {
        "seconds": 0.01,
        "backend": PAIR[0],
        "engines": PAIR,
        "data": ("iris",),
        "solvers": ("lbfgs",),
        "quick_check": True,
    }
    document = suites.run((suite,), {suite: Settings(workloads=("iris",), rivals=(), **settings)}, silent)
    assert suites.problems(document) == []
    result = document["suites"][suite]
    assert result["engines"] == list(PAIR)
    (entry,) = result["workloads"]
    assert entry["rivals"]["fastmlp"]["array_diff"] == 0
    assert entry["speed"]["1"]["reference"] > 0
    assert_tables(suite, result)


# --- many nets --------------------------------------------------------------------------------------------------------


def many_with(monkeypatch, dtype, spoil, rivals=("scikit-learn", "jax")):
    """Run `many` on answers that are made up: all ways score alike, but for what ``spoil`` adds."""

    def ask(rival, action, request, threads=1):
        n = len(request["candidates"]) * many.SPLITS
        return {"cold": 2.0, "warm": 1.0, "scores": [-0.5 + spoil(rival, request["how"])] * n}

    monkeypatch.setattr(processes, "ask", ask)
    monkeypatch.setattr(processes, "installed", lambda names: dict.fromkeys(names, "1.0"))
    settings = Settings(workloads=("iris",), rivals=rivals, rounds=1, dtype=dtype)
    return suites.run(("many",), {"many": settings}, silent)["suites"]["many"]


def test_many_has_8_64_and_512_nets_of_each_size():
    cases = [case for case in many.cases(Settings()) if not case.to_the_end]
    assert {case.workload for case in cases} == {"iris", "digits", "housing"}
    assert [len(case.candidates) * case.splits for case in cases] == [8, 64, 512] * 3


def test_ways_that_agree_are_timed(monkeypatch):
    result = many_with(monkeypatch, "float32", lambda rival, how: 0.0)
    assert result["problems"] == []
    for entry in result["cases"]:
        assert set(entry["times"]) == set(many.WAYS)
        assert entry["ratio"]["jax.vmap"] == {"cold": 1.0, "warm": 1.0}
    assert_tables("many", result)


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-3), ("float64", 1e-6), ("float64", float("nan"))])
def test_a_way_that_differs_leaves_nobody_a_time(dtype, apart, monkeypatch):
    result = many_with(monkeypatch, dtype, lambda rival, how: apart if how == "vmap" else 0.0)
    assert [problem.partition(":")[0] for problem in result["problems"]] == [
        f"iris, {nets} nets, jax.vmap" for nets in (8, 64, 512)
    ]
    assert result["figures"] == {} and not any(entry["times"] for entry in result["cases"])
    assert_tables("many", result)


def test_without_scikit_learn_ours_is_the_judge(monkeypatch):
    result = many_with(monkeypatch, "float64", lambda rival, how: float(how == "vmap"), rivals=("jax",))
    assert result["problems"][0].startswith("iris, 8 nets, jax.vmap: results differ")
    assert set(result["cases"][0]["score_diffs"]) == {"fastmlp batched", "fastmlp loky", "fastmlp threads", "jax.vmap"}
