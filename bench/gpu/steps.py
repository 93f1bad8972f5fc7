"""The steps of a run.  Each starts children with a time limit and says what their answers mean."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gpu import look, surroundings
from gpu.children import last_line, read_json, run_all

SCRIPT = Path(__file__).resolve().parents[1] / "gpu_check.py"
DEVICE_TESTS = (
    "test_cuda.py",
    "test_cuda_faults.py",
    "test_cuda_kinks.py",
    "test_cuda_many.py",
    "test_device_arrays.py",
    "test_tensor_cores.py",
)
TESTS_SIMULATED = 150  # of so many tests one runs in the simulator, where .ci/run runs all of them
SANITIZERS = ("racecheck", "memcheck", "synccheck")
SANITIZER_FOUND = 9  # its exit code where it has found something
WORKLOADS = ("small", "mnist-like", "wide-1024")
#: Without torch.compile: it compiles for longer than all the others run.
RIVALS = ("torch gpu", "torch graph", "jax gpu")
BENCH = "from fastmlp.cli.app import app; app()"
STAND_IN = f"""
from fastmlp.engines import backends
from fastmlp.bench import cuda
cuda.DEVICE, cuda.ENGINE = "cpu", next(name for name in ("cython", "reference") if name in backends.available())
{BENCH}
"""
BAD = ("failed", "stopped", "no time")


@dataclass(frozen=True)
class Run:
    """What all steps know.

    Attributes
    ----------
    out : Path
        Where results and logs go.
    variables : mapping
        Environment of the children.
    jobs : int
        Children that work side by side.
    simulated : bool
        Whether Numba's simulator plays the device.
    """

    out: Path
    variables: Mapping[str, str]
    jobs: int = 1
    simulated: bool = False


@dataclass
class Outcome:
    """What a step came to: "passed", "failed", "stopped" (over its time), "no time" (not begun) or "skipped"."""

    status: str
    note: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    details: Any = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Step:
    """A step, the seconds below which it is not begun, and those that it may take at most."""

    name: str
    least: float
    most: float
    run: Callable[[Run, float], Outcome]


def _child(*arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--child", *arguments]


# --- environment ------------------------------------------------------------------------------------------------------


def environment(run: Run, seconds: float) -> Outcome:
    """Find out what the machine is."""
    path, log = run.out / "environment.json", run.out / "environment.log"
    path.unlink(missing_ok=True)
    (code,) = run_all([(_child("environment", "0/1", str(path)), log)], seconds, run.variables)
    found = read_json(path)
    if code is None:
        return Outcome("stopped", "the device, or the import of fastmlp, does not answer", details=found)
    if found is None:
        return Outcome("failed", last_line(log))
    device = f"{found.get('device')}, compute capability {found.get('compute capability')}"
    return Outcome("failed" if found["problem"] else "passed", found["problem"] or device, details=found)


# --- checks against the reference -------------------------------------------------------------------------------------


def checks(name: str, run: Run, seconds: float) -> Outcome:
    """Run the checks of a name, in several children where they compile."""
    jobs = run.jobs if name == "compile" else 1
    places = [(run.out / f"{name}-{i}.json", run.out / f"{name}-{i}.log") for i in range(jobs)]
    for path, _ in places:
        path.unlink(missing_ok=True)
    commands = [(_child(name, f"{i}/{jobs}", str(path)), log) for i, (path, log) in enumerate(places)]
    codes = run_all(commands, seconds, run.variables)
    return judged(codes, [read_json(path) for path, _ in places], [last_line(log) for _, log in places])


def judged(codes: Sequence[int | None], documents: Sequence[Mapping[str, Any] | None], lines: Sequence[str]) -> Outcome:
    """Make one outcome of what children left behind: exit codes (None: stopped), rows, last lines of their logs."""
    rows = [dict(row) for document in documents if document for row in document["rows"]]
    total = sum(document["total"] for document in documents if document)
    crashed = [f"a child ended with {code}: {line}" for code, line in zip(codes, lines, strict=True) if code]
    stopped = None in codes
    for row in rows:
        if row["status"] == "running":  # it was stopped there, or went down there
            row["status"] = "stopped" if stopped else "failed"
    failed = [f"{row['name']}: {row['note'] or 'the process ended'}" for row in rows if row["status"] == "failed"]
    note = f"{sum(row['status'] == 'passed' for row in rows)} of {total}"
    if failed or crashed:
        return Outcome("failed", f"{note}; {(failed + crashed)[0]}", rows)
    if stopped:
        at = [row["name"] for row in rows if row["status"] == "stopped"]
        return Outcome("stopped", f"{note} in time{f', stopped in {at[0]}' if at else ''}", rows)
    return Outcome("passed", note, rows)


def compile_all(run: Run, seconds: float) -> Outcome:
    """Compile what the checks need, side by side, so that their code is on disk."""
    return Outcome("skipped", "simulator") if run.simulated else checks("compile", run, seconds)


# --- compute-sanitizer ------------------------------------------------------------------------------------------------


def sanitizers(run: Run, seconds: float) -> Outcome:
    """Run small networks under each tool of compute-sanitizer, side by side."""
    if run.simulated:
        return Outcome("skipped", "simulator")
    program = look.find_sanitizer()
    if program is None:
        return Outcome("skipped", "compute-sanitizer is not installed")
    commands, logs, places = [], [], []
    for tool in SANITIZERS:
        path = run.out / f"{tool}.json"
        path.unlink(missing_ok=True)
        places.append(path)
        logs.append(run.out / f"{tool}.log")
        options = ["--tool", tool, "--error-exitcode", str(SANITIZER_FOUND), "--target-processes", "all"]
        commands.append(([program, *options, *_child("sanitized", "0/1", str(path))], logs[-1]))
    codes = run_all(commands, seconds, run.variables)
    rows = []
    for tool, path, log, code in zip(SANITIZERS, places, logs, codes, strict=True):
        one = judged([code], [read_json(path)], [last_line(log)])
        summary = re.findall(r"=+ (.*SUMMARY: .*)", log.read_text(errors="replace")) if log.exists() else []
        note = "; ".join([one.note, *summary[-1:]])
        rows.append({"name": tool, "status": one.status, "note": note, "seconds": 0.0})
    worst = next((status for status in BAD if any(row["status"] == status for row in rows)), "passed")
    return Outcome(worst, "; ".join(f"{row['name']} {row['status']}" for row in rows), rows)


# --- the device tests -------------------------------------------------------------------------------------------------


def device_tests(run: Run, seconds: float) -> Outcome:
    """Run the tests of the CUDA engine, divided among children by their ids."""
    folder = surroundings.tests()
    if folder is None:
        return Outcome("skipped", "no folder of tests beside this script")
    config, listed = run.out / "pytest.ini", run.out / "tests.log"
    config.write_text("[pytest]\n", encoding="utf-8")  # that of the project needs plugins
    common = [sys.executable, "-m", "pytest", "-c", str(config), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    if not _importable("hypothesis"):
        common.append("--noconftest")  # these tests do without
    files = [str(folder / name) for name in DEVICE_TESTS]
    (code,) = run_all([([*common, "--collect-only", "-q", *files], listed)], seconds / 2, run.variables)
    text = listed.read_text(encoding="utf-8", errors="replace")
    ids = [str(folder / line) for line in text.splitlines() if line.startswith(tuple(f"{n}::" for n in DEVICE_TESTS))]
    if not ids:
        missing = "No module named pytest" in text
        return Outcome("skipped" if missing else "failed", last_line(listed) or f"pytest ended with {code}")
    ids = ids[::TESTS_SIMULATED] if run.simulated else ids
    jobs = 1 if run.simulated else min(run.jobs, len(ids))
    logs = [run.out / f"tests-{i}.log" for i in range(jobs)]
    shares = [ids[i::jobs] for i in range(jobs)]
    commands = [([*common, "-v", "-rf", *share], log) for share, log in zip(shares, logs, strict=True)]
    return _judged_tests(run_all(commands, seconds, run.variables), shares, logs)


def _importable(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _judged_tests(codes: Sequence[int | None], shares: Sequence[Sequence[str]], logs: Sequence[Path]) -> Outcome:
    """Read what pytest has said of each test so far; a child that was stopped leaves a part of its log."""
    rows, total = [], sum(map(len, shares))
    for log in logs:
        text = log.read_text(encoding="utf-8", errors="replace")
        for name, word in re.findall(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b", text, re.MULTILINE):
            status = {"PASSED": "passed", "SKIPPED": "skipped", "XFAIL": "skipped"}.get(word, "failed")
            rows.append({"name": name, "status": status, "note": "", "seconds": 0.0})
    counts = {status: sum(row["status"] == status for row in rows) for status in ("passed", "failed", "skipped")}
    note = ", ".join(f"{n} {status}" for status, n in counts.items() if n) + f" of {total} tests"
    crashed = [log.name for code, log in zip(codes, logs, strict=True) if code not in (0, None)]
    if counts["failed"] or crashed:
        first = next((row["name"] for row in rows if row["status"] == "failed"), f"see {', '.join(crashed)}")
        return Outcome("failed", f"{note}; {first}", rows)
    if None in codes or len(rows) < total:
        return Outcome("stopped", f"{note} in time", rows)
    return Outcome("passed", note, rows)


# --- the bench --------------------------------------------------------------------------------------------------------


def bench(workload: str, run: Run, seconds: float) -> Outcome:
    """Time one workload of `fastmlp bench cuda`; its JSON file is written by that command."""
    path, log = run.out / f"bench-{workload}.json", run.out / f"bench-{workload}.log"
    path.unlink(missing_ok=True)
    if run.simulated and workload != WORKLOADS[0]:
        return Outcome("skipped", "simulator")
    arguments = ["bench", "cuda", "--workload", workload, "--json", str(path)]
    arguments += ["--quick-check"] if run.simulated else ["--rounds", "1"]
    arguments += [word for rival in (RIVALS[-1:] if run.simulated else RIVALS) for word in ("--rival", rival)]
    code_text = STAND_IN if run.simulated else BENCH
    variables = {**run.variables, "COLUMNS": "200"}
    (code,) = run_all([([sys.executable, "-c", code_text, *arguments], log)], seconds, variables)
    document = read_json(path)
    if code is None:
        return Outcome("stopped", last_line(log))
    if code or document is None:
        return Outcome("failed", last_line(log))
    what = "an engine of the CPU in its place: " if run.simulated else ""
    (entry,) = document["suites"]["cuda"]["workloads"]
    return Outcome("passed", what + _times(entry), details=entry)


def _times(entry: Mapping[str, Any]) -> str:
    """Return the microseconds per step of all who took part."""
    found = []
    for rival, record in entry["rivals"].items():
        times = record["threads"].get(record["best"] or "", None)
        found.append(f"{rival} {1e6 * times['median']:.1f} us" if times else f"{rival} {record['status']}")
    return ", ".join(found)


#: In the order of what is worth most where time is short.
STEPS = (
    Step("environment", 5, 60, environment),
    Step("compile", 20, 150, compile_all),
    Step("kernels", 12, 45, partial(checks, "kernels")),
    Step("nets", 12, 45, partial(checks, "nets")),
    Step("repeats", 10, 30, partial(checks, "repeats")),
    Step("grids", 10, 30, partial(checks, "grids")),
    Step("many", 15, 45, partial(checks, "many")),
    Step("precisions", 10, 45, partial(checks, "precisions")),
    Step("bench small", 40, 90, partial(bench, "small")),
    Step("sanitizers", 15, 60, sanitizers),
    Step("tests", 25, 120, device_tests),
    Step("bench mnist-like", 40, 90, partial(bench, "mnist-like")),
    Step("bench wide-1024", 40, 90, partial(bench, "wide-1024")),
)


def jobs() -> int:
    """Return how many children may work side by side."""
    return max(1, min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
