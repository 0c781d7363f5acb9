"""``nestlearn compare``: tune and train every contender on the same tasks, and report what came of it.

The work is done by ``nestlearn.training``; this file reads the options, shows progress and prints the table.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from nestlearn import training
from nestlearn.cli.progress import show_progress
from nestlearn.report import print_tables, write_report, write_systems
from nestlearn.tasks import DataFileError
from nestlearn.training import RunFolder, RunFolderError, Settings, SweepError, options

__all__ = ["compare"]

INTERRUPTED = 130


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip())) if text else None


def compare(
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated tasks, or module:function. [default: digits,speeches]")
    ] = None,
    optimizers: Annotated[
        str | None, typer.Option(help="Comma-separated contenders, or module:function. [default: all]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a full run, for every task.")] = None,
    seeds: Annotated[str | None, typer.Option(help="0..4 or 0,1.")] = None,
    preset: Annotated[str | None, typer.Option(help="demo, quick or full. [default: demo]")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, as in sizes.digits.hidden=64.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/compare-DATE-TIME]")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue in this run folder; its finished runs are kept.")
    ] = None,
    search: Annotated[str | None, typer.Option(help="grid or tpe (needs the extra `search`).")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float64 or bfloat16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes, one thread each.")] = None,
    executor: Annotated[str | None, typer.Option(help="serial, processes or dask (needs the extra `cluster`).")] = None,
    cluster: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, as in tcp://host:8786.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the path of the report and nothing else.")] = False,
) -> None:
    """Tune and train every optimizer on the same tasks, and write a report."""
    console = Console(quiet=quiet)
    given: dict[str, Any] = {
        "tasks": _names(tasks),
        "optimizers": _names(optimizers),
        "seeds": seeds,
        "steps": steps,
        "search": search,
        "device": device,
        "dtype": dtype,
        "workers": workers,
        "executor": executor or ("dask" if cluster else None),
        "cluster": cluster,
    }
    folder = resume or out or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        if resume is not None and out not in (None, resume):
            raise ValueError("expected either --out or --resume, got both: a resumed comparison stays in its folder")
        settings = training.resolve(options.assign(_base(preset, config, resume), assignments or ()), **given)
        with show_progress(console) as progress:
            results = training.compare(settings, folder, resume=resume is not None, progress=progress)
        write_systems(folder)
        path, _ = write_report(folder)
    except (ValueError, RunFolderError, DataFileError, SweepError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo(f"interrupted; finished runs are kept, continue with: nestlearn compare --resume {folder}", err=True)
        raise typer.Exit(INTERRUPTED) from error
    print_tables(results, console)
    for warning in results["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(str(path) if quiet else f"report: {path}")


def _base(preset: str | None, config: Path | None, resume: Path | None) -> Settings:
    """What options change: a preset, under the settings of a file; or the settings of the folder to continue in."""
    file = config
    if resume is not None and preset is None and config is None:
        file = RunFolder.open(resume).config
    plain = options.read(file) if file else {}
    base = training.preset(preset or str(plain.get("preset", "demo")))
    return options.merge(base, plain | {"preset": base.preset})
