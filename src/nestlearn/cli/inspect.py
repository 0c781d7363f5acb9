"""``nestlearn inspect``: a dry run, what would learn what, how often, and at which price, before anything is trained.

This file holds the options alone and imports no torch, so that help and completion answer at once; ``inspect_job`` does
the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.cli.completion import DEVICES, DTYPES, one_of

__all__ = ["inspect"]


def inspect(
    task: Annotated[str | None, typer.Option(help="A task, or module:function. [default: digits]")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Instead of a task: module:function, a function that returns a torch.nn.Module."),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="A contender, a class of nestlearn.optim or torch.optim, a rule, or module:function. "
            "[default: DeepMomentum]"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with settings of `nestlearn train`, or `hope` or `hope-tiny`, which are shipped."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, as in optimizer.hidden=32 or task.dim=64."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where training would run: auto, cpu or cuda. [default: cpu]", autocompletion=one_of(DEVICES)
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, float64 or bfloat16. [default: float32]", autocompletion=one_of(DTYPES)),
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(help="Also say what each of so many ranks would do, with the model sharded by FSDP2.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Also write a picture of the nesting there.")] = None,
) -> None:
    """Show levels, memories, bytes and FLOPs of a training before it starts; nothing is allocated or trained."""
    from nestlearn.cli.ending import begun

    begun("inspect")
    from nestlearn.cli.inspect_job import inspect_job

    given = {"task": task, "optimizer": optimizer, "device": device, "dtype": dtype}
    given = {name: value for name, value in given.items() if value is not None}
    raise typer.Exit(inspect_job(given, model, config, assignments or [], ranks=ranks, as_json=as_json, svg=svg))
