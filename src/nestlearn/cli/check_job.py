"""What ``nestlearn check`` does with its options: settings, the checks, a table, JSON and Markdown."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import typer
from pydantic import Field

from nestlearn.check import CHECKS, Outcome, check
from nestlearn.cli.width import pairs
from nestlearn.errors import SettingsError
from nestlearn.training.run_folder import write_atomic
from nestlearn.training.settings import Settings, merge

__all__ = ["check_job", "list_checks"]

FINISHED, SOME_FAILED = 0, 1


class _Given(Settings):
    """Settings of an optimizer, which nobody but the optimizer knows."""

    optimizer: dict[str, Any] = Field(default_factory=dict)


def list_checks() -> int:
    """Print what each check asserts; returns the exit status."""
    typer.echo(pairs({each.name: f"{each.where}: {each.sentence}" for each in CHECKS.values()}))
    return FINISHED


def check_job(
    optimizer: str | None,
    assignments: list[str],
    only: list[str],
    how: dict[str, Any],
    as_json: Path | None,
    markdown: Path | None,
) -> int:
    """Check an optimizer and print what was found; returns the exit status, 1 if a check failed."""
    if optimizer is None or ":" not in optimizer:
        raise SettingsError(f"expected an optimizer as module:Name, such as torch.optim:AdamW, got {optimizer!r}")
    for file in (as_json, markdown):
        if file is not None and not file.absolute().parent.is_dir():
            raise SettingsError(f"cannot write {file}: there is no folder {file.absolute().parent}")
    settings = merge(_Given(), *(f"optimizer.{each}" for each in assignments)).optimizer
    # Whoever asks for one check wants to see its error, or to stop in it with a debugger: it runs in this process.
    report = check(optimizer, settings, only=only, isolated=not only, watch=_progress, **how)
    typer.echo(str(report))
    if only:
        for each in report.of("failed"):
            typer.echo(f"\nWhat it does:\n\n{inspect.getsource(CHECKS[each.name].function)}\n{each.trace}")
    if as_json is not None:
        write_atomic(as_json, json.dumps(report.to_dict(), indent=2, default=str) + "\n")
    if markdown is not None:
        write_atomic(markdown, report.markdown())
    return SOME_FAILED if report.failed else FINISHED


def _progress(outcome: Outcome) -> None:
    typer.echo(f"{outcome.name}: {outcome.status}", err=True)
