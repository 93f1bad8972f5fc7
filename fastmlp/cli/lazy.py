"""The command group, which makes `train` only when it is needed.

The options of `train` are the estimators' parameters; importing these takes longer than `fastmlp --version` should.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Commands(TyperGroup):
    """The commands of fastmlp; ``train`` is registered as :func:`stand_in` and exchanged at first use."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if cmd_name == "train" and not isinstance(found, _Train):
            found = self.commands["train"] = _train()
        return found


class _Train(TyperCommand):
    """The real one."""


def stand_in() -> None:
    """Train a network on a data file of any size."""


def _train() -> Any:
    from fastmlp.cli.parameters import with_parameters
    from fastmlp.cli.train import train

    alone = typer.Typer(rich_markup_mode="markdown", add_completion=False, pretty_exceptions_enable=False)
    alone.command("train", cls=_Train)(with_parameters(train))
    return typer.main.get_command(alone)
