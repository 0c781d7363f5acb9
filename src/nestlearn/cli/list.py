"""``nestlearn list``: what can be named, a line each."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["Kind", "list"]


class Kind(StrEnum):
    """What there are names of."""

    tasks = "tasks"
    optimizers = "optimizers"
    rules = "rules"
    targets = "targets"
    configs = "configs"
    presets = "presets"


def list(
    kind: Annotated[Kind, typer.Argument(help="Of what the names are wanted.", show_default=False)],
) -> None:
    """Show what can be named: tasks, optimizers, rules, targets, shipped configurations, presets."""
    from nestlearn.cli.list_job import list_job

    raise typer.Exit(list_job(str(kind)))
