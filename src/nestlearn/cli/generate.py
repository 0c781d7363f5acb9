"""``nestlearn generate``: let a trained language model continue a text, and keep what it has read.

This file holds the options alone and imports no torch, so that help and completion answer at once; ``generate_job``
does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.cli.completion import DEVICES, one_of

__all__ = ["generate"]


def generate(
    run: Annotated[Path, typer.Option(help="A folder written by `nestlearn train` with a language model.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="The text to continue; - reads it from the standard input. Several are continued side by side.",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=0, help="How many tokens to add; 0 reads the prompt and no more.")] = 200,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 takes the likeliest token, 1 draws as the model says, more is bolder.")
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Draw from so many of the likeliest tokens alone. [default: all]")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Draw from the likeliest tokens alone that have this probability together. [default: all]",
        ),
    ] = None,
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
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json of the tokenizers library. [default: bytes]")
    ] = None,
    run_seed: Annotated[
        int | None, typer.Option(help="Which run of the folder, by its seed. [default: the first]")
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="A module of yours that a run folder names, which you trust."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu or cuda. [default: where it was trained]", autocompletion=one_of(DEVICES)),
    ] = None,
) -> None:
    """Let a trained language model continue a text, and keep what it has read."""
    from nestlearn.cli.ending import begun

    begun("generate")
    from nestlearn.cli.generate_job import Choices, Source, generate_job

    source = Source(run, tokenizer, run_seed, device, tuple(imports or ()))
    choices = Choices(tokens, temperature, top_k, top_p, seed, tuple(stop or ()))
    raise typer.Exit(generate_job(source, prompt or [""], choices, state))
