"""Processes with a time limit, and files that are written whole.

A child has a session of its own, so that all that it started ends with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file whole or not at all, so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def read_json(path: Path) -> Any:
    """Return the contents of a JSON file, None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def run_all(
    commands: Sequence[tuple[Sequence[str], Path]], seconds: float, variables: Mapping[str, str]
) -> list[int | None]:
    """Run commands side by side, each with a log, and return their exit codes; None for one that was stopped."""
    end, started = time.monotonic() + seconds, []
    try:
        for command, log in commands:
            with log.open("wb") as file:
                started.append(
                    subprocess.Popen(
                        list(command), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                        env=dict(variables), start_new_session=True,
                    )
                )  # fmt: skip
        while time.monotonic() < end and any(process.poll() is None for process in started):
            time.sleep(POLL_SECONDS)
        return [process.poll() for process in started]
    finally:
        for process in started:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """Kill a child, and what it has left behind."""
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, which of a traceback is the error."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]
