"""A campaign of random fits: no crash, no hang, no undocumented error, and nothing matters that may not matter.

What may not matter: how X lies in memory, the number of threads, the thread and the process that fit, and whether the
estimator was pickled, cloned or used before. Weights that are not finite come with an error, never without one.

Plain `pytest` runs 300 cases. ``FASTMLP_CAMPAIGN=10000 pytest tests/test_campaign.py`` runs more, and others each time:
that is the nightly leg, `.ci/nightly`.
"""

import faulthandler
import gc
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from sklearn.base import clone

import campaign
from campaign import DENSE, SPARSE, cases, outcome

CASES = int(os.environ.get("FASTMLP_CAMPAIGN", 300))
PROFILE = settings(
    max_examples=CASES,
    derandomize=CASES == 300,  # the default cases are the same in each run; the nightly ones are not
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SECONDS = 120  # a case takes milliseconds; one that takes this long hangs


@contextmanager
def no_hang():
    """End the process with a traceback of all threads if a case hangs."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def variants(case):
    """Yield (what differs, the case so run); each must come to the same."""
    others = sorted(SPARSE if case.is_sparse else DENSE.keys() - ({"big-endian"} if case.dtype == "float32" else set()))
    chosen = others[case.seed % len(others)]
    yield chosen, replace(case, form=chosen)
    yield "n_jobs=2", replace(case, changes={"n_jobs": 2})


@PROFILE
@given(cases())
def test_results_depend_on_nothing_else(case):
    with no_hang():
        plain = outcome(case)
        if plain.error:
            assert plain.error[1].strip(), f"{plain.error[0]} without a text"
        for what, variant in variants(case):
            other = outcome(variant)
            assert other.same_as(plain), f"{what} made a difference: {other.error or ''} {plain.error or ''}"


@PROFILE
@given(cases())
def test_a_fit_without_an_error_has_finite_weights_and_can_be_used(case):
    with no_hang():
        result = outcome(case)
        if result.error:
            return
        estimator = result.estimator
        assert all(np.isfinite(w).all() for w in result.weights)
        rows = campaign.rows_of(case)
        again = pickle.loads(pickle.dumps(estimator))
        assert campaign.dense(again.predict(rows.X)).tobytes() == campaign.dense(result.predictions).tobytes()
        assert campaign.dense(estimator.predict(rows.X[:1])).shape[0] == 1
        refitted = outcome(replace(case, parameters=clone(estimator).get_params(deep=False)))
        assert refitted.same_as(result), "a clone fits otherwise"
        repr(estimator)


@settings(PROFILE, max_examples=max(CASES // 10, 30))
@given(cases(), cases())
def test_threads_do_not_meet(one, two):
    results = {}

    def run(name, case):
        results[name] = outcome(case)

    with no_hang():
        threads = [threading.Thread(target=run, args=pair) for pair in enumerate((one, two, one))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # warnings are a process's, not a thread's: only results are compared
        assert results[0].same_as(results[2])
        assert results[0].same_as(outcome(one))
        assert results[1].same_as(outcome(two))


@pytest.fixture(scope="module", params=["spawn", "fork"])
def process(request):
    if request.param == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    with ProcessPoolExecutor(1, mp_context=get_context(request.param)) as pool:
        yield pool


@settings(PROFILE, max_examples=max(CASES // 10, 30))
@given(case=cases())
def test_another_process_comes_to_the_same(process, case):
    with no_hang():
        assert process.submit(_without_estimator, case).result(SECONDS).same_as(outcome(case))


def _without_estimator(case):
    return replace(outcome(case), estimator=None)


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _bytes_per_case(drawn, n):
    """Return by how much this process grows with a case, in `n` rounds of all cases."""

    def rounds(n):
        for _ in range(n):
            for case in drawn:
                outcome(case)
        gc.collect()
        return _resident()

    rounds(3)  # caches fill
    held = [rounds(1), rounds(n)]
    while held[-1] - held[-2] > LEAK * n * len(drawn) and len(held) < 5:
        held.append(rounds(n))  # a leak goes on, the allocator's fragments come to an end
    return (held[-1] - held[-2]) / (n * len(drawn))


LEAK = 2000  # bytes


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_nothing_leaks(monkeypatch):
    """The same cases again and again: the memory of a process that does nothing else must not grow with them.

    With one arena for all its threads: each new arena is a growth of the allocator's own.
    """
    drawn = []

    @settings(PROFILE, max_examples=40)
    @given(cases())
    def draw(case):
        drawn.append(case)

    draw()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        per_case = pool.submit(_bytes_per_case, drawn, max(10, CASES // 100)).result()
    assert per_case < LEAK, f"{per_case:.0f} bytes a case, of {len(drawn)} cases"
