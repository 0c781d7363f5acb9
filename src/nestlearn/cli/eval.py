"""``nestlearn eval``: tasks of lm-eval for language models, side by side.

This file holds the options alone and imports no torch, so that help and completion answer at once; ``eval_job`` does
the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.cli.speaking import Device, Imports, RunSeed

__all__ = ["eval"]


def eval(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Folders written by `nestlearn train`, or by `save_pretrained` of transformers. One with a "
            "continuum.json is a stacked model, which is asked twice: as it is, and frozen."
        ),
    ],
    tasks: Annotated[str, typer.Option(help="Names of tasks of lm-eval, with commas between them.")],
    include: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Tasks of your own, YAML files as lm-eval has them.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first so many questions of each task. [default: all]")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Questions that are asked side by side.")] = 8,
    context: Annotated[int, typer.Option(min=2, help="Tokens that are read for a question, its last ones.")] = 2048,
    uniform: Annotated[
        bool, typer.Option("--uniform/--no-uniform", help="Also the model that finds all tokens equally likely.")
    ] = True,
    text: Annotated[
        Path | None, typer.Option(help="Also the model that knows how often each token is in this file, and no more.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="What the stacked model has read, a file of `continuum.save`: all questions are asked of it, and it "
            "learns from none. [default: every question begins a text of its own]"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the scores there, as JSON.")] = None,
    run_seed: RunSeed = None,
    imports: Imports = None,
    device: Device = None,
) -> None:
    """Ask language models the tasks of lm-eval, beside a model that knows nothing."""
    from nestlearn.cli.ending import begun

    begun("eval")
    from nestlearn.cli.eval_job import Asked, eval_job

    asked = Asked(tuple(name.strip() for name in tasks.split(",")), include, limit, batch, context)
    raise typer.Exit(eval_job(models, asked, uniform, text, state, out, run_seed, tuple(imports or ()), device))
