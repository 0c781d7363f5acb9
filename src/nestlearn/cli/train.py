"""``nestlearn train``: one optimizer on one task, resumable at every moment.

This file holds the options alone and imports no torch, so that help and completion answer at once; ``train_job`` does
the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.cli.completion import (
    CONTENDERS,
    DEVICES,
    DTYPES,
    STRATEGIES,
    TASKS,
    TORCH_OPTIMIZERS,
    TRAIN_KEYS,
    key_of,
    one_of,
)

__all__ = ["train"]


def train(
    task: Annotated[
        str | None,
        typer.Option(help="A task, or module:function. [default: digits]", autocompletion=one_of(TASKS)),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="A contender, a class of nestlearn.optim or torch.optim, a rule, or module:function. "
            "[default: DeepMomentum]",
            autocompletion=one_of((*CONTENDERS, *TORCH_OPTIMIZERS)),
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. [default: the optimizer's own]")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps. [default: 400]")] = None,
    seeds: Annotated[str | None, typer.Option(help="0..2 or 0,1; one run each. [default: 0]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings, or `hope` or `hope-tiny`, which are shipped.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting, as in optimizer.hidden=32 or task.dim=64.",
            autocompletion=key_of(TRAIN_KEYS),
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/train-DATE-TIME]")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue in this run folder, from its last checkpoint.")] = None,
    fork: Annotated[
        str | None,
        typer.Option(
            metavar="RUN[@STEP]",
            help="Go on from a checkpoint of this run folder with other settings, in a folder of its own.",
        ),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="Switch this part of the optimizer's rule off, such as a memory; of a fork this one too.",
        ),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="A module of yours that a run folder names, which you trust."),
    ] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints. [default: 100]")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda. [default: cpu]", autocompletion=one_of(DEVICES))
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, float64 or bfloat16. [default: float32]", autocompletion=one_of(DTYPES)),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="ddp, fsdp2 or hsdp: how the ranks that torchrun starts share a network. [default: none]",
            autocompletion=one_of(STRATEGIES),
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the path of the report and nothing else.")] = False,
) -> None:
    """Train with one optimizer, and write a report."""
    from nestlearn.cli.ending import begun

    if not quiet:
        begun("train")
    from nestlearn.cli.train_job import train_job

    given = {
        "task": task,
        "optimizer": optimizer,
        "steps": steps,
        "seeds": seeds,
        "checkpoint_every": checkpoint_every,
        "device": device,
        "dtype": dtype,
        "strategy": strategy,
    }
    given = {name: value for name, value in given.items() if value is not None}
    rate = [] if lr is None else [f"optimizer.lr={lr}"]
    changes = [*rate, *(assignments or [])]
    status = train_job(given, config, changes, out, resume, imports or [], quiet, fork=fork, without=without)
    raise typer.Exit(status)
