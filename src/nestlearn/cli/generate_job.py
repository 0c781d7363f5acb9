"""What ``nestlearn generate`` does with its options: a model, its memory, a prompt, and text as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import typer

from nestlearn.errors import SettingsError, as_settings_error
from nestlearn.imported import only
from nestlearn.models import (
    ByteTokenizer,
    LanguageModel,
    TextStream,
    Tokenizer,
    load_state,
    load_tokenizer,
    read,
    save_state,
    stream,
)
from nestlearn.training import load_trained
from nestlearn.training.kept import Generator
from nestlearn.training.settings import find_device

__all__ = ["Choices", "generate_job"]

FINISHED, INTERRUPTED = 0, 130
PIECE = 1 << 16  # bytes of the standard input that are read at once


@dataclass(frozen=True)
class Choices:
    """How many tokens are added, and how each is chosen."""

    tokens: int
    temperature: float
    top_k: int | None
    seed: int


def generate_job(
    run: Path,
    prompt: str,
    choices: Choices,
    state: Path | None,
    tokenizer: Path | None,
    run_seed: int | None,
    device: str | None,
    imports: list[str],
) -> int:
    """Print the continuation; returns the exit status.

    Args:
        run: the folder of the run.
        prompt: a text, or "-".
        choices: tokens to add.
        state: file of the memory, or None.
        tokenizer: file of the vocabulary, or None for bytes.
        run_seed: which run of the folder.
        device: where to compute.
        imports: modules that the folder may name.
    """
    with only(imports):
        model, kept = _model(run, run_seed, device)
    with as_settings_error():
        words = load_tokenizer(tokenizer or kept)
    if words.vocab_size > model.vocab_size:
        raise SettingsError(
            f"the tokenizer has {words.vocab_size} tokens, the model in {run} knows {model.vocab_size}: expected "
            "the one that the model was trained with"
        )
    if words.vocab_size < model.vocab_size:
        typer.echo(
            f"note: the model in {run} knows {model.vocab_size} tokens, the tokenizer {words.vocab_size}; others are "
            "shown as \ufffd. --tokenizer names another one",
            err=True,
        )
    known = load_state(state, model, batch_size=1) if state is not None and state.exists() else None
    return _continue(model, words, prompt, choices, state, known)


def _model(run: Path, seed: int | None, device: str | None) -> tuple[LanguageModel, Path | None]:
    """The model of a run, and the tokenizer that is kept with it."""
    trained = load_trained(run, seed=seed, device=None if device is None else find_device(device))
    for note in trained.notes:
        typer.echo(f"note: {note}", err=True)
    if not isinstance(trained.model, Generator):
        raise SettingsError(
            f"the network in {run} is no language model: expected a run of the task speeches or text, or of one of "
            "your own whose model is a nestlearn.models.LanguageModel, got the task "
            f"{trained.settings.task.name} with a {type(trained.model).__name__}"
        )
    # Both kinds read on from a state and have what a state file asks for.
    return cast(LanguageModel, trained.model), trained.tokenizer


def _continue(
    model: LanguageModel, words: Tokenizer, prompt: str, choices: Choices, path: Path | None, state: Any
) -> int:
    """Read the prompt, print what follows, and save the memory, also when the user has had enough."""
    status, text = FINISHED, TextStream(words)
    last: torch.Tensor | None = None
    try:
        # The last piece is left to `stream`, which needs a token to begin with.
        for piece in _pieces(prompt, words):
            if last is not None:
                _, state = read(model, last, state)
            last = torch.tensor([piece], device=model.embedding.weight.device)
        if last is None:
            raise SettingsError(
                "expected a prompt of at least one token: --prompt TEXT, or --prompt - for standard input"
            )
        if choices.tokens == 0:
            _, state = read(model, last, state)
        else:
            new = stream(
                model,
                last,
                temperature=choices.temperature,
                top_k=choices.top_k,
                seed=choices.seed,
                state=state,
            )
            for _ in range(choices.tokens):
                token, state = next(new)
                typer.echo(text.push(int(token)), nl=False)
                sys.stdout.flush()
            typer.echo(text.rest())
    except KeyboardInterrupt:
        status = INTERRUPTED
        typer.echo()
    if path is not None and state is not None:
        save_state(state, path, model)
    return status


def _pieces(prompt: str, words: Tokenizer) -> Iterator[list[int]]:
    """The tokens of the prompt; bytes from the standard input are read bit by bit, however many there are."""
    if prompt == "-" and isinstance(words, ByteTokenizer):
        while piece := sys.stdin.buffer.read(PIECE):
            yield list(piece)
    elif tokens := words.encode(sys.stdin.read() if prompt == "-" else prompt):
        yield tokens
