"""The process that answers one question: a JSON request on standard input, a JSON answer on standard output.

Started by processes.py as `python -m fastmlp.bench.worker`, fresh for every measurement, with the thread counts of the
libraries in its environment. Imports nothing but what the action needs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

# Action -> the function that answers it, in the file of the suite that asks.
ACTIONS = {
    "versions": "fastmlp.bench.processes:versions",
    "peak": "fastmlp.bench.peak:measure",
    "train": "fastmlp.bench.train:measure",
    "predict": "fastmlp.bench.predict:measure",
    "first fit": "fastmlp.bench.cold:measure",
    "grid": "fastmlp.bench.grid:measure",
    "scaling": "fastmlp.bench.scaling:measure",
    "options": "fastmlp.bench.options:measure",
    "whole fits": "fastmlp.bench.quick:measure",
    "cuda": "fastmlp.bench.cuda:measure",
    "device": "fastmlp.bench.cuda:probe",
    "device peak": "fastmlp.bench.cuda:measure_peak",
}


def main() -> None:
    # What libraries print must not end up in the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request: dict[str, Any] = json.load(sys.stdin)
    module, _, function = ACTIONS[request["action"]].partition(":")
    answer = getattr(importlib.import_module(module), function)(request)
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    main()
