"""What ``nestlearn train`` does with its options: settings, progress, signals, the report."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import typer
from rich.console import Console

from nestlearn.cli.progress import show_training
from nestlearn.descriptions import describe
from nestlearn.descriptions.table import readable_bytes
from nestlearn.report import print_tables, write_report, write_systems
from nestlearn.tasks import DataFileError, check_data
from nestlearn.training import RunFolder, RunFolderError, options
from nestlearn.training.checkpoint import CheckpointError
from nestlearn.training.loop import Interrupted, Training
from nestlearn.training.shipped import find_config
from nestlearn.training.train_run import TrainRun
from nestlearn.training.train_settings import TrainSettings, resolve_training

__all__ = ["train_job"]

FINISHED, FAILED, INTERRUPTED = 0, 2, 130


def train_job(
    given: dict[str, Any],
    config: Path | None,
    assignments: list[str],
    out: Path | None,
    resume: Path | None,
    quiet: bool,
) -> int:
    """Carry a training run out, from its options to its report; returns the exit status.

    Args:
        given: the options that stand for single settings, those left out not among them.
        config, assignments: a file with settings, and ``--set``.
        out, resume: the folder to make, or to continue in.
        quiet: print the report's path alone.
    """
    console = Console(quiet=quiet)
    folder = RunFolder(resume or out or Path("runs") / f"train-{datetime.now():%Y%m%d-%H%M%S}")
    try:
        if resume is not None and out not in (None, resume):
            raise ValueError("expected either --out or --resume, got both: a resumed run stays in its folder")
        base = TrainRun.settings_of(RunFolder.open(resume)) if resume else TrainSettings()
        run = TrainRun(folder, _settings(base, config, given, assignments))
        about = _begin(run, resumed=resume is not None)
    except (ValueError, RunFolderError, DataFileError) as error:
        typer.echo(f"error: {error}", err=True)
        return FAILED
    try:
        console.print(about, soft_wrap=True, highlight=False)
        _train(run, console)
        write_systems(folder.path)
        path, _ = write_report(folder.path)
    except (RunFolderError, DataFileError, CheckpointError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        return FAILED
    except Interrupted:
        typer.echo(f"interrupted, nothing is lost; continue with: nestlearn train --resume {folder.path}", err=True)
        return INTERRUPTED
    print_tables(run.results(), console)
    typer.echo(str(path) if quiet else f"report: {path}")
    return FINISHED


def _settings(base: TrainSettings, config: Path | None, given: dict[str, Any], assignments: list[str]) -> TrainSettings:
    """A file over the base, options over the file, ``--set`` over the options."""
    settings = options.merge(base, options.read(find_config(config))) if config else base
    kept = {"task": settings.task.name, "optimizer": settings.optimizer.name}
    # Another name brings settings of its own; the same one keeps those that it has.
    settings = options.merge(settings, {k: v for k, v in given.items() if k != "lr" and kept.get(k) != v})
    if "lr" in given:
        settings = options.merge(settings, {"optimizer": {"lr": given["lr"]}})
    return resolve_training(options.assign(settings, assignments))


def _begin(run: TrainRun, resumed: bool) -> str:
    """Make the folder, or open it, once it is sure that the training can be built; returns what is to be said of it."""
    if resumed:
        run.resume()
    check_data([run.settings.task.name])
    training = run.prepare()
    if not resumed:
        run.create()
    where = f"run folder: {run.folder.path}"
    return f"{_about(training)}\n{where}" if training is not None else f"{where}: all seeds are finished"


def _train(run: TrainRun, console: Console) -> None:
    with show_training(console, run.settings) as progress, _interrupts() as stopped:
        try:
            run.run(progress, stopped)
        finally:
            for note in run.notes:
                typer.echo(f"note: {note}", err=True)


def _about(training: Training) -> str:
    """What is about to be trained, in one line."""
    spec, model = training.spec, training.model
    system = describe(*training.optimizers, model)
    levels = len(system.levels)
    adamw = describe(torch.optim.AdamW(model.parameters())).state_bytes
    state = f"{readable_bytes(system.state_bytes)} of optimizer state ({system.state_bytes / adamw:.2f} times AdamW's)"
    return (
        f"{spec.variant.name} on {spec.task}: {system.parameters:,} parameters, "
        f"{levels} level{'s' if levels > 1 else ''}, {state}, {spec.steps:,} steps"
    )


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Yield whether SIGINT or SIGTERM has come; the step in progress is finished first. A second one acts at once.

    One that is ignored already stays so: what a script starts in the background is not meant by the Ctrl-C that ends
    the script.
    """
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
