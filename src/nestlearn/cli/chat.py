"""``nestlearn chat``: talk to a trained language model that remembers what was said, from one day to the next.

This file holds the options alone and imports no torch, so that help and completion answer at once; ``chat_job`` does
the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.cli.completion import DEVICES, one_of

__all__ = ["chat"]


def chat(
    run: Annotated[Path, typer.Option(help="A folder written by `nestlearn train` with a language model.")],
    state: Annotated[
        Path | None,
        typer.Option(help="A file with the model's memory, written after each line. [default: RUN/chat.safetensors]"),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens an answer has at most.")] = 200,
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
        typer.Option(metavar="TEXT", help="End an answer before this text comes. [default: the end of a line]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws; the next line has the next one.")] = 0,
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
    """Talk to a trained language model, line by line; it remembers what was said, in a file.

    Beside lines to answer there are four of another kind: /state says what was read and where it is kept, /surprise how
    little the model expected the last line, /forget begins anew, /quit ends (as the end of the input does).
    """
    from nestlearn.cli.ending import begun

    begun("chat")
    from nestlearn.cli.chat_job import chat_job
    from nestlearn.cli.generate_job import Choices, Source

    source = Source(run, tokenizer, run_seed, device, tuple(imports or ()))
    choices = Choices(tokens, temperature, top_k, top_p, seed, tuple(stop or ("\\n",)))
    raise typer.Exit(chat_job(source, choices, state or run / "chat.safetensors"))
