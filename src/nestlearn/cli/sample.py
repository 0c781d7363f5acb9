"""What a language model says after its training, and how long the training will take, for ``nestlearn train``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import cast

import torch
import typer
from torch import Tensor

from nestlearn.cli.shown import visible
from nestlearn.models import TextStream, Tokenizer, load_tokenizer, stream
from nestlearn.tasks import SpeechesTask, make_task
from nestlearn.training import Training, TrainSettings, load_trained
from nestlearn.training.kept import Generator, keeps_model
from nestlearn.training.train_run import threads_of

__all__ = ["expected_time", "print_sample"]

OPENING, TOKENS, TEMPERATURE = 32, 200, 0.8
PATIENCE = 15.0  # seconds for a sample
REPLACEMENT = "\ufffd"
FEW = 3  # steps whose time is taken for that of all; the first one, which prepares, does not count
SOON = 2.0  # seconds after which fewer are enough


def print_sample(folder: Path) -> None:
    """Print how the model in a run folder continues the first words of the held-out text; nothing if the folder keeps
    no language model, or one whose tokens are not known.
    """
    if not keeps_model(folder):
        return
    trained = load_trained(folder)
    model, words = cast(Generator, trained.model), load_tokenizer(trained.tokenizer)
    prompt = _opening(trained.settings, words)
    if not prompt or words.vocab_size != model.vocab_size:
        return
    with threads_of(trained.settings.threads):
        said = _continued(model, words, prompt)
    typer.echo(f"\nafter {words.decode(prompt).rstrip(REPLACEMENT)!r} it goes on:\n\n{visible(said)}\n")
    typer.echo(f"more of it: nestlearn generate --run {shlex.quote(str(folder))} --prompt TEXT")


def _continued(model: Generator, words: Tokenizer, prompt: list[int]) -> str:
    text, said, begun = TextStream(words), "", perf_counter()
    tokens = torch.tensor([prompt], device=model.embedding.weight.device)
    for (token, _), _ in zip(stream(model, tokens, temperature=TEMPERATURE), range(TOKENS), strict=False):
        said += text.push(int(token))
        if perf_counter() - begun > PATIENCE:
            break
    return said + text.rest()


def _opening(settings: TrainSettings, words: Tokenizer) -> list[int]:
    """The first tokens of the text on which the model is judged, or of any text."""
    if ":" in settings.task.name:
        return words.encode("\n")
    task = make_task(settings.task.name, settings.task.others(), "cpu", settings.dtype)
    if not isinstance(task, SpeechesTask):
        return words.encode("\n")
    first: Tensor = task.windows("test", torch.tensor([0]))[0, :OPENING]
    return first.tolist()


def expected_time(training: Training, runs: int, tell: Callable[[str], None]) -> Callable[[], None]:
    """A function to call after every step: once it is known it tells how long the steps of all runs will take.

    Args:
        training: the first of the runs, not begun here.
        runs: how many there are.
        tell: called once.
    """
    spec, clock = training.spec, training.clock
    first, before, told = -1, 0.0, False

    def after() -> None:
        nonlocal first, before, told
        told = told or training.done
        if told:
            return
        clock.collect()
        taken, seconds = training.steps_taken, clock.seconds
        if first < 0:
            first, before = taken, seconds
        elif taken - first >= FEW or (taken > first and seconds - before >= SOON):
            told = True
            step = (seconds - before) / (taken - first)
            left = step * (spec.steps - taken + (runs - 1) * spec.steps)
            tell(f"about {readable_time(left)} to go: {1e3 * step:.3g} ms a step, looks at held-out data come on top")

    return after


def readable_time(seconds: float) -> str:
    """Seconds as people say them: "40 s", "3 min", "2 h 10 min"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
