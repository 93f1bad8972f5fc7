"""Prove the CUDA engine on a machine with a GPU, by one command and in a few minutes.

    python bench/gpu_check.py [--minutes 6] [--out DIR]

It runs from a checkout that is not installed, or beside an installed fastmlp (copy this file and the folder gpu/).  It
needs no network.  With NUMBA_ENABLE_CUDASIM=1 it runs in Numba's simulator, at small sizes.

Steps: what the machine is; kernels compiled side by side; every kernel and eight networks against the reference;
repetitions, and cooperative launches against a launch per phase, bit for bit; errors and times of each
matmul_precision; compute-sanitizer; the device tests; the suite `fastmlp bench cuda`.  Each is a process with a limit
of its own.  A step that does not fit in the time left is reported as "no time".  DIR/gpu_check.json is written anew
after every step; logs lie beside it.

Exit codes: 0 all passed, 1 a step failed, was stopped or had no time, 2 there is no device, or fastmlp cannot run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu import surroundings
from gpu.children import write_json
from gpu.steps import BAD, STEPS, Outcome, Run, Step, jobs

PASSED, FAILED, NO_DEVICE = 0, 1, 2
SCHEMA = 1
SLOWER = 4  # times that a step may take in the simulator
RESULT = "gpu_check.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="of the whole run; default 6")
    parser.add_argument("--out", type=Path, help="folder of results and logs; default: a new one")
    parser.add_argument("--child", nargs=3, metavar=("CHECKS", "I/N", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        return child(*given.child)
    if not given.minutes > 0:
        parser.error(f"--minutes must be above 0, got {given.minutes}")
    simulated = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
    if simulated and surroundings.tests() is None:
        parser.error("NUMBA_ENABLE_CUDASIM is set: the simulator needs a checkout, whose tests make it exact")
    out = given.out or Path(tempfile.mkdtemp(prefix="gpu_check-"))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out must be a folder that can be made, got {str(out)!r}: {error.strerror}")
    out = out.resolve()
    run = Run(out, surroundings.find_fastmlp(out), jobs(), simulated)
    return perform(STEPS, run, 60 * given.minutes)


def child(name: str, share: str, path: str) -> int:
    """Run checks in this process, which a step has started."""
    surroundings.find_fastmlp(Path(path).parent)
    if name == "environment":
        from gpu import look

        write_json(Path(path), look.describe())
    else:
        from gpu import checks

        number, of = map(int, share.split("/"))
        checks.run(name, (number, of), Path(path))
    return 0


def perform(steps: Sequence[Step], run: Run, seconds: float) -> int:
    """Run steps one after the other within a time limit, keep what they came to, and return the exit code.

    A step may take its own limit, as long as that leaves the later ones what they need at least.
    """
    start, outcomes = time.monotonic(), {}
    for number, step in enumerate(steps):
        left = seconds - (time.monotonic() - start)
        spare = left - sum(later.least for later in steps[number + 1 :])
        most = step.most * (SLOWER if run.simulated else 1)
        limit = min(most, left, max(step.least, spare))
        begun = time.monotonic()
        print(f"{step.name} ...", end=" ", flush=True)
        outcomes[step.name] = outcome = _tried(step, run, limit) if limit >= step.least else Outcome("no time")
        outcome.seconds = round(time.monotonic() - begun, 2)
        print(f"{outcome.status}, {outcome.seconds:.0f} s", flush=True)
        _keep(run, steps, outcomes, seconds, time.monotonic() - start)
        if step.name == "environment" and outcome.status in ("failed", "stopped"):
            print(f"\nThe CUDA engine cannot run here: {outcome.note}")
            return NO_DEVICE
    print(f"\n{table(outcomes)}\n\n{run.out / RESULT}")
    return FAILED if any(outcome.status in BAD for outcome in outcomes.values()) else PASSED


def _tried(step: Step, run: Run, limit: float) -> Outcome:
    """Run a step; an error of its own must not take the others down."""
    try:
        return step.run(run, limit)
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")


def _keep(run: Run, steps: Sequence[Step], outcomes: dict[str, Outcome], seconds: float, elapsed: float) -> None:
    document = {
        "schema": SCHEMA,
        "simulated": run.simulated,
        "limit": seconds,
        "elapsed": round(elapsed, 2),
        "finished": len(outcomes) == len(steps),
        "steps": {name: outcome.as_dict() for name, outcome in outcomes.items()},
    }
    write_json(run.out / RESULT, document)


def table(outcomes: dict[str, Outcome]) -> str:
    """Return the outcomes as lines of text, with each check that did not pass below its step."""
    width = max(map(len, outcomes))
    lines = [f"{'step':{width}}  {'result':8} {'s':>6}  note"]
    for name, outcome in outcomes.items():
        lines.append(f"{name:{width}}  {outcome.status:8} {outcome.seconds:6.1f}  {outcome.note}")
        lines += [
            f"{'':{width}}    {row['status']}: {row['name']}: {row['note']}"
            for row in outcome.rows
            if row["status"] in BAD
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
