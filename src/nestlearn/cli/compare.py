"""``nestlearn compare``: tune and train every contender on the same tasks, and report what came of it.

This file holds the options alone and imports no torch, so that help and completion answer at once; ``compare_job``
does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nestlearn.cli.completion import (
    COMPARE_KEYS,
    CONTENDERS,
    DEVICES,
    DTYPES,
    PRESETS,
    TASKS,
    key_of,
    list_of,
    one_of,
)

__all__ = ["compare"]


def _names(text: str | None) -> tuple[str, ...] | None:
    """Names between commas; those inside the parentheses of a rule are its own."""
    if not text:
        return None
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def compare(
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated tasks, or module:function. [default: digits,speeches]", autocompletion=list_of(TASKS)
        ),
    ] = None,
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated contenders, rules as in mine=chain(...), or module:function. [default: all]",
            autocompletion=list_of(CONTENDERS),
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a full run, for every task.")] = None,
    seeds: Annotated[str | None, typer.Option(help="0..4 or 0,1.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="demo, quick or full. [default: demo]", autocompletion=one_of(PRESETS))
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting, as in sizes.digits.hidden=64.",
            autocompletion=key_of(COMPARE_KEYS),
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/compare-DATE-TIME]")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue in this run folder; its finished runs are kept.")
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="A module of yours that a run folder names, which you trust."),
    ] = None,
    search: Annotated[str | None, typer.Option(help="grid or tpe (needs the extra `search`).")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", autocompletion=one_of(DEVICES))] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float64 or bfloat16.", autocompletion=one_of(DTYPES))
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes, one thread each.")] = None,
    executor: Annotated[str | None, typer.Option(help="serial, processes or dask (needs the extra `cluster`).")] = None,
    cluster: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, as in tcp://host:8786.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the path of the report and nothing else.")] = False,
) -> None:
    """Tune and train every optimizer on the same tasks, and write a report."""
    from nestlearn.cli.ending import begun

    if not quiet:
        begun("compare")
    from nestlearn.cli.compare_job import compare_job

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
    given = {name: value for name, value in given.items() if value is not None}
    raise typer.Exit(compare_job(given, preset, config, assignments or [], out, resume, imports or [], quiet))
