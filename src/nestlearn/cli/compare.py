"""``nestlearn compare``: tune and train every contender on the same tasks, and report what came of it.

The work is done by ``nestlearn.training``; this file reads the options, shows progress and prints the table.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from rich.console import Console

from nestlearn.cli.progress import show_progress
from nestlearn.report import print_tables, write_report
from nestlearn.tasks import DataFileError, check_data
from nestlearn.training import (
    RunFolder,
    RunFolderError,
    Settings,
    SweepError,
    environment,
    find_contenders,
    parse_seeds,
    plan,
    preset,
    resolve,
    run_searches,
    summarise,
)
from nestlearn.training.run_folder import write_atomic

__all__ = ["compare"]

INTERRUPTED = 130


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip())) if text else None


def compare(
    tasks: Annotated[str | None, typer.Option(help="Comma-separated: digits, speeches. [default: both]")] = None,
    optimizers: Annotated[str | None, typer.Option(help="Comma-separated contenders. [default: all]")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a full run, for every task.")] = None,
    seeds: Annotated[str | None, typer.Option(help="0..2 or 0,1.")] = None,
    preset_name: Annotated[str | None, typer.Option("--preset", help="demo or full. [default: demo]")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/compare-DATE-TIME]")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue in this run folder; its finished runs are kept.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float64 or bfloat16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes, one thread each.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the path of the report and nothing else.")] = False,
) -> None:
    """Tune and train every optimizer on the same tasks, and write a report."""
    console = Console(quiet=quiet)
    try:
        folder, base = _start(preset_name, out, resume)
        settings = resolve(
            base,
            steps,
            tasks=_names(tasks),
            optimizers=_names(optimizers),
            device=device,
            dtype=dtype,
            workers=workers,
            seeds=parse_seeds(seeds) if seeds else None,
        )
        folder = folder if resume else RunFolder.create(folder.path)
        _run(folder, settings, console, resumed=resume is not None)
        path, _ = write_report(folder.path)
    except (ValueError, RunFolderError, DataFileError, SweepError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo(
            f"interrupted; finished runs are kept, continue with: nestlearn compare --resume {folder.path}", err=True
        )
        raise typer.Exit(INTERRUPTED) from error
    print_tables(json.loads(folder.results.read_text(encoding="utf-8")), console)
    typer.echo(str(path) if quiet else f"report: {path}")


def _start(preset_name: str | None, out: Path | None, resume: Path | None) -> tuple[RunFolder, Settings]:
    """The folder of this comparison, not yet made, and the settings it starts from."""
    if resume is None:
        path = out or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
        return RunFolder(path), preset(preset_name or "demo")
    if out is not None and out != resume:
        raise ValueError("expected either --out or --resume, got both: a resumed comparison stays in its folder")
    folder = RunFolder.open(resume)
    if preset_name is not None:
        return folder, preset(preset_name)
    return folder, Settings.from_yaml(folder.config.read_text(encoding="utf-8"))


def _run(folder: RunFolder, settings: Settings, console: Console, resumed: bool) -> None:
    """Everything between the options and the report: check the data, write the settings, sweep, write the results."""
    check_data(settings.tasks)
    known = folder.compact() if resumed else {}
    write_atomic(folder.config, settings.to_yaml())
    searches = plan(find_contenders(settings.optimizers), settings)
    start = perf_counter()
    started = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    with show_progress(console, sum(search.planned for search in searches)) as progress:
        run_searches(searches, folder, known=known, workers=settings.workers, progress=progress)
    facts: dict[str, Any] = environment(settings.device, settings.workers)
    facts |= {"started": started, "seconds": round(perf_counter() - start, 1), "reused_runs": len(known)}
    write_atomic(folder.environment, json.dumps(facts, indent=2) + "\n")
    write_atomic(folder.results, json.dumps(summarise(searches), indent=1, allow_nan=False) + "\n")
