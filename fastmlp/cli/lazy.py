"""The command group, which makes `train` only when it is needed.

The options of `train` are the estimators' parameters; importing these takes longer than `fastmlp --version` should.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from fastmlp.cli import output


class Commands(TyperGroup):
    """The commands of fastmlp; ``train`` is registered as :func:`stand_in` and exchanged at first use.

    It also tells in one line that standard output cannot be written, wherever a command prints. Commands turn other
    errors of the system into lines themselves. A request to end (SIGTERM) ends commands as Ctrl-C does: temporary
    files are removed.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            with _ending_on_request():
                result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result
        except BrokenPipeError:
            raise  # the reader has closed the pipe; typer ends quietly
        except OSError as error:
            _discard_output()
            output.fail(f"cannot write to standard output: {error.strerror or error}", output.WRONG_USAGE)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if cmd_name == "train" and not isinstance(found, _Train):
            found = self.commands["train"] = _train()
        return found


@contextmanager
def _ending_on_request() -> Iterator[None]:
    """Raise SystemExit on SIGTERM in the block, unless the program that runs it has an own way."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL or current_thread() is not main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _discard_output() -> None:
    """Let the interpreter, which writes what is left at its end, write it to nowhere."""
    with suppress(OSError, ValueError):  # no stream of the system, in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Train(TyperCommand):
    """The real one."""


def stand_in() -> None:
    """Train a network on a data file, or a folder of files, of any size."""


def _train() -> Any:
    from fastmlp.cli.parameters import with_parameters
    from fastmlp.cli.train import train

    alone = typer.Typer(rich_markup_mode="markdown", add_completion=False, pretty_exceptions_enable=False)
    alone.command("train", cls=_Train)(with_parameters(train))
    return typer.main.get_command(alone)
