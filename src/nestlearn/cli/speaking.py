"""The options that ``generate`` and ``chat`` have in common: which model, and how it draws. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.cli.completion import DEVICES, one_of

__all__ = ["TEMPERATURE", "Device", "Imports", "Run", "RunSeed", "Temperature", "Tokenizer", "TopK", "TopP"]

TEMPERATURE = 0.8

Run = Annotated[Path, typer.Option(help="A folder written by `nestlearn train` with a language model.")]

Temperature = Annotated[
    float, typer.Option(min=0, help="0 takes the likeliest token, 1 draws as the model says, more is bolder.")
]

TopK = Annotated[
    int | None, typer.Option(min=1, help="Draw from so many of the likeliest tokens alone. [default: all]")
]

TopP = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Draw from the likeliest tokens alone that have this probability together. [default: all]",
    ),
]

Tokenizer = Annotated[
    Path | None,
    typer.Option(help="A tokenizer.json of the tokenizers library. [default: what is kept with the run, or bytes]"),
]

RunSeed = Annotated[int | None, typer.Option(help="Which run of the folder, by its seed. [default: the first]")]

Imports = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="A module of yours that a run folder names, which you trust."),
]

Device = Annotated[
    str | None,
    typer.Option(help="auto, cpu or cuda. [default: where it was trained]", autocompletion=one_of(DEVICES)),
]
