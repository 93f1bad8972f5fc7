"""The command `fastmlp` in tests: in this process, or as a process."""

import subprocess
import sys
from functools import cache

import typer.testing

from fastmlp.cli.app import app

# to make the commands takes as long as most of them run; a typer without this name makes them anew
if hasattr(typer.testing, "_get_command"):
    typer.testing._get_command = cache(typer.testing._get_command)


def invoke(*arguments, code=0, stdin=None):
    """Run a command in this process; return typer's result, whose exit code must be `code`."""
    result = typer.testing.CliRunner().invoke(app, list(map(str, arguments)), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def refused(*arguments, code=2, **more):
    """Return the one line of an error."""
    result = invoke(*arguments, code=code, **more)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.stderr
    return line.removeprefix("Error: ")


def command(*arguments, **options):
    """Start a process of the command."""
    return subprocess.Popen(
        [sys.executable, "-m", "fastmlp", *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )
