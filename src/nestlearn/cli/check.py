"""``nestlearn check``: whether anybody's optimizer does what every optimizer should.

This file holds the options alone and imports no torch, so that help and completion answer at once; ``check_job`` does
the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.cli.completion import CHECKS, OPTIMIZER_MODULES, one_of

__all__ = ["check"]


def check(
    optimizer: Annotated[
        str | None,
        typer.Argument(
            help="module:Name of a class, or of a function that returns an optimizer, as torch.optim:AdamW.",
            autocompletion=one_of(OPTIMIZER_MODULES),
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting of the optimizer, as in lr=0.01."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="CHECK",
            help="A check by its name; its traceback is shown. [default: all]",
            autocompletion=one_of(CHECKS),
        ),
    ] = None,
    model: Annotated[
        bool, typer.Option("--model", help="Give it model=, the network; classes that demand it get it anyway.")
    ] = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="Its steps need a closure that keeps the graph of the loss.")
    ] = False,
    hosts: Annotated[
        bool, typer.Option("--hosts/--no-hosts", help="Also inside of Accelerate, transformers and Lightning.")
    ] = True,
    ranks: Annotated[
        bool, typer.Option("--ranks/--no-ranks", help="Also on two processes, under DDP and FSDP2.")
    ] = True,
    patience: Annotated[float, typer.Option(min=1.0, help="Seconds that a check may take.")] = 60.0,
    json: Annotated[Path | None, typer.Option(help="Also write everything there, as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table there, as Markdown.")] = None,
    names: Annotated[bool, typer.Option("--list", help="Print what each check asserts, and nothing else.")] = False,
) -> None:
    """Check that anybody's optimizer does what all of them should: a score, a command for each failure."""
    from nestlearn.cli.ending import begun

    begun("check")
    from nestlearn.cli.check_job import check_job, list_checks

    if names:
        raise typer.Exit(list_checks())
    how = {"model": model, "graph": graph, "hosts": hosts, "ranks": ranks, "patience": patience}
    raise typer.Exit(check_job(optimizer, assignments or [], only or [], how, json, markdown))
