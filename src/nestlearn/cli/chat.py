"""``nestlearn chat``: talk to a trained language model that remembers what was said, from one day to the next.

This file holds the options alone and imports no torch, so that help and completion answer at once; ``chat_job`` does
the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.cli.speaking import TEMPERATURE, Device, Imports, Run, RunSeed, Temperature, Tokenizer, TopK, TopP

__all__ = ["chat"]


def chat(
    run: Run,
    state: Annotated[
        Path | None,
        typer.Option(help="A file with the model's memory, written after each line. [default: RUN/chat.safetensors]"),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens an answer has at most.")] = 200,
    temperature: Temperature = TEMPERATURE,
    top_k: TopK = None,
    top_p: TopP = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End an answer before this text comes. [default: the end of a line]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws; the next line has the next one.")] = 0,
    tokenizer: Tokenizer = None,
    run_seed: RunSeed = None,
    imports: Imports = None,
    device: Device = None,
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
