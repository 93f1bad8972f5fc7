"""The bench's suites, measured in this process: what they do with the answers, and what a worker computes.

In fresh processes, as users run them, they are tested in test_bench.py; that takes a minute, and plain `pytest` leaves
most of it out.
"""

import pytest

from fastmlp.bench import engines, suites
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
