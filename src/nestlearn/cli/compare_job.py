"""What ``nestlearn compare`` does with its options: settings, progress, the report, the table."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from nestlearn.cli.progress import show_progress
from nestlearn.comparison import CompareSettings, compare, resolve
from nestlearn.comparison import preset as find_preset
from nestlearn.errors import SettingsError
from nestlearn.imported import again, only
from nestlearn.report import print_tables, write_report, write_systems
from nestlearn.training import RunFolder, merge, read_settings

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
    console = Console(quiet=quiet)
    folder = resume or out or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        if resume is not None and out not in (None, resume):
            raise SettingsError("expected either --out or --resume, got both: a resumed comparison stays in its folder")
        typed = [text for value in given.values() for text in (value if isinstance(value, tuple) else [str(value)])]
        own = [config.read_text(encoding="utf-8")] if config is not None and config.is_file() else []
        with only(imports, typed, assignments, own) if resume else nullcontext():
            settings = resolve(merge(_base(preset, config, resume), *assignments), **given)
            with show_progress(console) as progress:
                results = compare(settings, folder, resume=resume is not None, progress=progress)
            write_systems(folder)
        path, _ = write_report(folder)
    except KeyboardInterrupt:
        file = RunFolder(folder).config
        options = again(file.read_text(encoding="utf-8")) if file.is_file() else ""
        typer.echo(
            f"interrupted; finished runs are kept, continue with: nestlearn compare --resume {folder}{options}",
            err=True,
        )
        return INTERRUPTED
    print_tables(results, console)
    for warning in results.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(str(path) if quiet else f"report: {path}")
    return FINISHED


def _base(preset: str | None, config: Path | None, resume: Path | None) -> CompareSettings:
    """What options change: a preset, under the settings of a file; or the settings of the folder to continue in."""
    file = config
    if resume is not None and preset is None and config is None:
        file = RunFolder.open(resume).config
    plain = read_settings(file) if file else {}
    base = find_preset(preset or str(plain.get("preset", "demo")))
    return merge(base, plain | {"preset": base.preset})
