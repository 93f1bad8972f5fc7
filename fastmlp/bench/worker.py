"""The process that answers one question: a JSON request on standard input, a JSON answer on standard output.

Started by processes.py as `python -m fastmlp.bench.worker`, fresh for every measurement, with the thread counts of the
libraries in its environment. Imports nothing but what the action needs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a question: its action names a module of the bench, and the function in it if that is not `measure`."""
    module, _, function = request["action"].partition(":")
    return getattr(importlib.import_module(f"fastmlp.bench.{module}"), function or "measure")(request)


def main() -> None:
    # What libraries print must not end up in the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request: dict[str, Any] = json.load(sys.stdin)
    with answers:
        json.dump(answer(request), answers)


if __name__ == "__main__":
    main()
