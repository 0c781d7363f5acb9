"""What ``nestlearn compare`` does with its options: settings, progress, the report, the table."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from nestlearn.cli.ending import say, terminal
from nestlearn.cli.progress import show_progress
from nestlearn.comparison import CompareSettings, compare, resolve
from nestlearn.comparison import preset as find_preset
from nestlearn.errors import SettingsError
from nestlearn.imported import again, only
from nestlearn.report import print_tables, write_report, write_systems
from nestlearn.training import RunFolder, RunResult, merge, read_settings, to_yaml

__all__ = ["compare_job"]

FINISHED, INTERRUPTED = 0, 130


def compare_job(
    given: dict[str, Any],
    preset: str | None,
    config: Path | None,
    assignments: list[str],
    out: Path | None,
    resume: Path | None,
    imports: list[str],
    quiet: bool,
) -> int:
    """Carry a comparison out, from its options to its report; returns the exit status.

    Args:
        given: the options that stand for single settings, those left out not among them.
        preset, config, assignments: what the settings start from, a file with settings, and ``--set``.
        out, resume: the folder to make, or to continue in.
        imports: modules that the folder may name.
        quiet: print the report's path alone.
    """
    console, output = terminal(quiet)
    folder = resume or out or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        if resume is not None and out not in (None, resume):
            raise SettingsError("expected either --out or --resume, got both: a resumed comparison stays in its folder")
        typed = [text for value in given.values() for text in (value if isinstance(value, tuple) else [str(value)])]
        own = [config.read_text(encoding="utf-8")] if config is not None and config.is_file() else []
        with only(imports, typed, assignments, own) if resume else nullcontext():
            settings = resolve(merge(_base(preset, config, resume), *assignments), **given)
            with show_progress(console) as progress:

                def show(result: RunResult, reused: bool, total: int) -> None:
                    progress(result, reused, total)
                    if output.failure:
                        raise KeyboardInterrupt

                results = compare(settings, folder, resume=resume is not None, progress=show, tell=_note)
            write_systems(folder)
        path, _ = write_report(folder)
    except KeyboardInterrupt:
        file, why = RunFolder(folder).config, f", as {output.failure}" if output.failure else ""
        if file.is_file():
            how = f"nestlearn compare --resume {shlex.quote(str(folder))}{again(to_yaml(settings))}"
            say(f"interrupted{why}; finished runs are kept, continue with: {how}")
        else:
            say(f"interrupted{why}")
        return INTERRUPTED
    print_tables(results, console)
    for warning in results.warnings:
        say(f"warning: {warning}")
    typer.echo(str(path) if quiet else f"report: {path}")
    return FINISHED


def _note(text: str) -> None:
    say(f"note: {text}")


def _base(preset: str | None, config: Path | None, resume: Path | None) -> CompareSettings:
    """What options change: a preset, under the settings of a file; or the settings of the folder to continue in."""
    file = config
    if resume is not None and preset is None and config is None:
        file = RunFolder.open(resume).config
    plain = read_settings(file) if file else {}
    base = find_preset(preset or str(plain.get("preset", "demo")))
    return merge(base, plain | {"preset": base.preset})
