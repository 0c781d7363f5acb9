"""``nestlearn generate``: let a trained language model continue a text, and keep what it has read.

This file holds the options alone and imports no torch, so that help and completion answer at once; ``generate_job``
does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.cli.speaking import TEMPERATURE, Device, Imports, Run, RunSeed, Temperature, Tokenizer, TopK, TopP

__all__ = ["generate"]


def generate(
    run: Run,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="The text to continue; - reads it from the standard input. Several are continued side by side.",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=0, help="How many tokens to add; 0 reads the prompt and no more.")] = 200,
    temperature: Temperature = TEMPERATURE,
    top_k: TopK = None,
    top_p: TopP = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End before this text comes, as in --stop '\\n'. [default: --tokens]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    state: Annotated[
        Path | None,
        typer.Option(
            help="A file with the model's memory: read first if it is there, written at the end, however it comes."
        ),
    ] = None,
    tokenizer: Tokenizer = None,
    run_seed: RunSeed = None,
    imports: Imports = None,
    device: Device = None,
) -> None:
    """Let a trained language model continue a text, and keep what it has read."""
    from nestlearn.cli.ending import begun

    begun("generate")
    from nestlearn.cli.generate_job import Choices, Source, generate_job

    source = Source(run, tokenizer, run_seed, device, tuple(imports or ()))
    choices = Choices(tokens, temperature, top_k, top_p, seed, tuple(stop or ()))
    raise typer.Exit(generate_job(source, prompt or [""], choices, state))
