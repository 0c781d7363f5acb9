"""A tiny Hope, trained for two steps by the command line, and the command line itself, for tests that talk to it."""

from __future__ import annotations

from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from nestlearn.cli.main import build_entry

__all__ = ["nestlearn", "train_hope"]

SMALL = ("task.dim=16", "task.heads=2", "task.depth=1", "task.context=16", "task.batch=2", "steps=2", "points=1")
SMALL = (*SMALL, "task.validation_windows=2", "task.test_windows=2", "checkpoint_every=1", "warmup=0")


def nestlearn(*arguments: object, **options) -> Result:
    return CliRunner().invoke(build_entry(), [str(word) for word in arguments], **options)


def train_hope(folder: Path) -> Path:
    assignments = [word for each in SMALL for word in ("--set", each)]
    done = nestlearn("train", "--config", "hope", "--quiet", "--out", folder, *assignments)
    assert done.exit_code == 0, done.output
    return folder
