"""What ``nestlearn train`` does with its options: settings, progress, signals, the report."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console

from nestlearn.cli.ending import Output, interrupts, say, terminal
from nestlearn.cli.progress import show_training
from nestlearn.cli.sample import expected_time, print_sample
from nestlearn.descriptions import describe
from nestlearn.descriptions.table import readable_bytes
from nestlearn.errors import Interrupted, NestlearnError, RankError, SettingsError
from nestlearn.imported import again, only
from nestlearn.report import print_tables, write_report, write_systems
from nestlearn.training import (
    RunFolder,
    Training,
    TrainRun,
    TrainSettings,
    read_settings,
    resolve_training,
    to_yaml,
)
from nestlearn.training.fork import ForkPoint
from nestlearn.training.fork import fork as make_fork
from nestlearn.training.ranks import Ranks, joined
from nestlearn.training.train_settings import find_settings

__all__ = ["train_job"]

FINISHED, FAILED, INTERRUPTED = 0, 2, 130
FIRST_WORD = 1.0  # seconds for rank 0 to say what is wrong: torchrun ends all ranks as soon as one has failed


def train_job(
    given: dict[str, Any],
    config: Path | None,
    assignments: list[str],
    out: Path | None,
    resume: Path | None,
    imports: list[str],
    quiet: bool,
    *,
    fork: str | None = None,
    without: str | None = None,
) -> int:
    """Carry a training run out, from its options to its report; returns the exit status.

    Args:
        given: the options that stand for single settings, those left out not among them.
        config, assignments: a file with settings, and ``--set``.
        out, resume: the folder to make, or to continue in.
        imports: modules that the folder may name.
        quiet: print the report's path alone.
        fork: a run folder, and perhaps a step of it, to go on from in the folder that is made.
        without: a part of the optimizer's rule that is switched off, in a fork besides those that are off already.
    """
    if out is not None and resume is None and _restarted() and RunFolder(out).config.exists():
        resume = out
    folder = RunFolder(resume or out or Path("runs") / f"train-{datetime.now():%Y%m%d-%H%M%S}")
    rank = int(os.environ.get("RANK", "0"))
    try:
        if resume is not None and out not in (None, resume):
            raise SettingsError("expected either --out or --resume, got both: a resumed run stays in its folder")
        if resume is not None and fork is not None:
            raise SettingsError("expected either --fork or --resume, got both: a fork has a folder of its own")
        point = None if fork is None else ForkPoint.parse(fork)
        file = read_settings(find_settings(config)) if config else {}
        with only(imports, map(str, given.values()), assignments, [str(file)]) if resume or point else nullcontext():
            base = point.settings() if point else TrainRun.settings_of(folder) if resume else TrainSettings()
            if without is not None:
                before = str(base.optimizer.others().get("without") or "") if point else ""
                assignments = [*assignments, f"optimizer.without={','.join(filter(None, (before, without)))}"]
            notes: list[str] = []
            settings = resolve_training(base, file, given, *assignments, notes=notes)
            for note in notes if not rank else ():
                say(f"note: {note}")
            for note in make_fork(point, settings, folder.path) if point else ():
                say(f"note: {note}")
            status = _train_job(folder, settings, resume is not None or point is not None, quiet)
    except NestlearnError as error:
        if rank and not _gone(error):
            status = FAILED  # rank 0 says it
        else:
            raise
    if rank and status:
        time.sleep(FIRST_WORD)
    return status


def _restarted() -> bool:
    """Whether torchrun has started all ranks again, by the same command, after one of them had failed."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _gone(error: NestlearnError) -> bool:
    """Whether it says that another rank is gone, which rank 0 may be."""
    return isinstance(error, RankError) and not isinstance(error.__cause__, NestlearnError | OSError)


def _train_job(folder: RunFolder, settings: TrainSettings, resume: bool, quiet: bool) -> int:
    try:
        with joined(settings.strategy, settings.device) as ranks:
            console, output = terminal(quiet or not ranks.first)
            run = TrainRun(folder, settings, ranks)
            first = run.begin(resume=resume)
            where = f"run folder: {folder.path}"
            about = f"{_about(first, ranks)}\n{where}" if first is not None else f"{where}: all seeds are finished"
            console.print(about, soft_wrap=True, highlight=False, markup=False)
            with _told_how(run):
                _train(run, console, output, first)
        if ranks.first:
            with _told_how(run):
                write_systems(folder.path)
                path, _ = write_report(folder.path)
    except Interrupted:
        if ranks.first:
            why = f", as {output.failure}" if output.failure else ""
            say(f"interrupted{why}, nothing is lost; continue with: {_continue(run.settings, folder, ranks)}")
        return INTERRUPTED
    except RankError as error:
        if not _gone(error) or not folder.config.exists():
            raise
        how = _continue(settings, folder, Ranks(settings.strategy, count=int(os.environ["WORLD_SIZE"])))
        told = f"{error}; nothing before the last checkpoint is lost; continue with: {how}"
        raise RankError(told) from error.__cause__
    if ranks.first:
        print_tables(run.results(), console)
        if not quiet and all(row.status == "finished" for rows in run.results().tasks.values() for row in rows):
            print_sample(folder.path)
        typer.echo(str(path) if quiet else f"report: {path}")
    return FINISHED


def _continue(settings: TrainSettings, folder: RunFolder, ranks: Ranks) -> str:
    """The command that goes on in a folder."""
    return ranks.command(f"--resume {shlex.quote(str(folder.path))}{again(to_yaml(settings))}")


@contextmanager
def _told_how(run: TrainRun) -> Iterator[None]:
    """A block in a run that was begun: whatever ends it, the message has the command that goes on."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        if run.folder.path.is_dir() and not isinstance(error, RankError):
            how = _continue(run.settings, run.folder, run.ranks)
            error.add_note(f"nothing before the last checkpoint is lost; continue with: {how}")
        raise


def _train(run: TrainRun, console: Console, output: Output, first: Training | None) -> None:
    with show_training(console, run.settings) as progress, interrupts(last=not run.ranks.alone) as stopped:

        def tell(words: str) -> None:
            console.print(words, soft_wrap=True, highlight=False)

        after = expected_time(first, run.left, tell) if first is not None else lambda: None

        def should_stop() -> bool:
            after()
            return stopped() or bool(output.failure)

        try:
            run.run(progress, should_stop)
        finally:
            for note in run.notes if run.ranks.first else ():
                say(f"note: {note}")


def _about(training: Training, ranks: Ranks) -> str:
    """What is about to be trained, in one line."""
    spec, model = training.spec, training.model
    system = describe(*training.optimizers, model)
    levels = len(system.levels)
    adamw = describe(torch.optim.AdamW(model.parameters())).state_bytes
    state = f"{readable_bytes(system.state_bytes)} of optimizer state ({system.state_bytes / adamw:.2f} times AdamW's)"
    return (
        f"{spec.variant.name} on {spec.task}: {system.parameters:,} parameters, "
        f"{levels} level{'s' if levels > 1 else ''}, {state}, {spec.steps:,} steps"
        f"{'' if ranks.alone else f', {ranks.strategy} on {ranks.count} ranks'}"
    )
