"""What ``nestlearn generate`` does with its options: a model, its memory, prompts, and text as it comes."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from nestlearn.cli.ending import Output, say
from nestlearn.cli.going_on import STDIN, Prompt, encoded
from nestlearn.cli.memory import Memory
from nestlearn.cli.shown import Until, visible
from nestlearn.cli.speaking import TEMPERATURE
from nestlearn.errors import NestlearnError, SettingsError, as_settings_error
from nestlearn.imported import only
from nestlearn.models import LanguageModel, TextStream, Tokenizer, load_tokenizer, pad
from nestlearn.models.choosing import Drawn
from nestlearn.training import RunFolder, load_trained, read_settings
from nestlearn.training.kept import Generator
from nestlearn.training.settings import find_device

__all__ = ["Choices", "Source", "Speaker", "generate_job", "load_speaker", "saved", "writable"]

FINISHED, INTERRUPTED = 0, 130


@dataclass(frozen=True)
class Choices:
    """How many tokens are added, how each is chosen, and what ends a text."""

    tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "" in self.stop:
            raise SettingsError("--stop: expected a text, got an empty one")
        if not 0 <= self.temperature < math.inf:
            raise SettingsError(f"--temperature: expected a number of at least 0, got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SettingsError(f"--top-p: expected more than 0 and at most 1, got {self.top_p}")

    @property
    def drawn(self) -> Drawn:
        return {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "seed": self.seed}

    @property
    def options(self) -> list[str]:
        """As options of the command line, those that are not what they are by themselves."""
        given = {"--temperature": self.temperature, "--top-k": self.top_k, "--top-p": self.top_p, "--seed": self.seed}
        plain = {"--temperature": TEMPERATURE, "--top-k": None, "--top-p": None, "--seed": 0}
        told = [word for name, value in given.items() if value != plain[name] for word in (name, str(value))]
        return ["--tokens", str(self.tokens), *told, *(word for text in self.stop for word in ("--stop", text))]

    @property
    def ends(self) -> list[str]:
        """The texts to stop at; two letters of the command line stand for a line's end and a tab."""
        return [text.replace("\\n", "\n").replace("\\t", "\t") for text in self.stop]


@dataclass(frozen=True)
class Source:
    """Where a model comes from: the options that say so.

    Args:
        run: the folder of the run.
        tokenizer: file of the vocabulary, or None for bytes.
        run_seed: which run of the folder.
        device: where to compute.
        imports: modules that the folder may name.
    """

    run: Path
    tokenizer: Path | None = None
    run_seed: int | None = None
    device: str | None = None
    imports: tuple[str, ...] = ()

    def command(self, verb: str, *options: str) -> str:
        """The command that uses the same model again."""
        own = ["nestlearn", verb, "--run", str(self.run), *options]
        own += [] if self.tokenizer is None else ["--tokenizer", str(self.tokenizer)]
        own += [] if self.run_seed is None else ["--run-seed", str(self.run_seed)]
        own += [] if self.device is None else ["--device", self.device]
        own += [word for module in self.imports for word in ("--import", module)]
        return shlex.join(own)


def generate_job(source: Source, prompts: Sequence[str], choices: Choices, state: Path | None) -> int:
    """Print the continuation of each prompt; returns the exit status.

    Args:
        source: of the model.
        prompts: texts, or one "-" alone.
        choices: tokens to add.
        state: file of the memory, or None.
    """
    if STDIN in prompts and len(prompts) > 1:
        raise SettingsError(f"--prompt {STDIN}: the standard input is one prompt, expected no other beside it")
    ends = choices.ends
    model, words = load_speaker(source)
    memory = Memory(model, state, batch=len(prompts))
    speaker = Speaker(words, ends, len(prompts), Output(sys.stdout))
    prompt, reading = Prompt(prompts[0], words), True

    def ended() -> str:
        return _how_far(source, choices, memory, prompts, prompt, reading)

    try:
        with saved(memory):
            if len(prompts) == 1:
                last, mask = memory.take(prompt.pieces()), None
            else:
                last, mask = _together(model, [words.encode(encoded(each)) for each in prompts])
            if last is None:
                raise SettingsError(
                    "expected a prompt of at least one token: --prompt TEXT, or --prompt - for standard input"
                )
            if choices.tokens == 0:
                memory.read_whole(last, mask)
            else:
                reading = False
                memory.answer(last, choices.drawn, choices.tokens, speaker.push, mask)
                speaker.finish()
    except KeyboardInterrupt:
        speaker.finish()
        say(f"interrupted; {ended()}")
        return INTERRUPTED
    except Exception as error:
        if memory.read:
            error.add_note(ended())
        raise
    speaker.output.check(f"; {ended()}")
    return FINISHED


def load_speaker(source: Source) -> tuple[LanguageModel, Tokenizer]:
    """The model of a run, and its vocabulary.

    Raises:
        SettingsError: they do not belong together, or the run has no language model.
    """
    _check_kind(source.run)
    with only(source.imports):
        model, kept = _model(source.run, source.run_seed, source.device)
    with as_settings_error():
        words = load_tokenizer(source.tokenizer or kept)
    if words.vocab_size > model.vocab_size:
        raise SettingsError(
            f"the tokenizer has {words.vocab_size} tokens, the model in {source.run} knows {model.vocab_size}: "
            "expected the one that the model was trained with"
        )
    if words.vocab_size < model.vocab_size:
        say(
            f"note: the model in {source.run} knows {model.vocab_size} tokens, the tokenizer {words.vocab_size}; "
            "others are shown as \ufffd. --tokenizer names another one"
        )
    return model, words


def _check_kind(run: Path) -> None:
    config = RunFolder(run).config
    try:
        kind = read_settings(config).get("kind") if config.is_file() else None
    except SettingsError:
        return  # the checkpoint may know more
    if kind == "compare":
        raise SettingsError(
            f"{run} was written by `nestlearn compare`, which keeps no network to talk to: expected a folder of "
            "`nestlearn train`, as nestlearn train --config hope --out runs/hope writes it"
        )


def _model(run: Path, seed: int | None, device: str | None) -> tuple[LanguageModel, Path | None]:
    """The model of a run, and the tokenizer that is kept with it."""
    trained = load_trained(run, seed=seed, device=None if device is None else find_device(device))
    for note in trained.notes:
        say(f"note: {note}")
    if not isinstance(trained.model, Generator):
        raise SettingsError(
            f"the network in {run} is no language model: expected a run of the task speeches or text, or of one of "
            "your own whose model is a nestlearn.models.LanguageModel, got the task "
            f"{trained.settings.task.name} with a {type(trained.model).__name__}"
        )
    # Both kinds read on from a state and have what a state file asks for.
    return cast(LanguageModel, trained.model), trained.tokenizer


@contextmanager
def saved(memory: Memory) -> Iterator[None]:
    """A block after which the memory is written, whatever ended it."""
    try:
        yield
    except KeyboardInterrupt:
        memory.save()
        raise
    except Exception as error:
        try:
            memory.save()
        except (NestlearnError, OSError) as failure:
            error.add_note(f"nor was the memory kept: {failure}")
        raise
    else:
        memory.save()


class Speaker:
    """What is said to whom: one text as it comes, several one after the other when all have ended."""

    def __init__(self, words: Tokenizer, ends: Sequence[str], count: int, output: Output, skip: bool = False) -> None:
        self.output = output
        self._texts = [TextStream(words) for _ in range(count)]
        self._until = [Until(ends, skip) for _ in range(count)]
        self._said = [""] * count
        self._begun = False

    def push(self, tokens: Tensor) -> Tensor:
        """Say what the tokens [batch] are; which conversations have ended."""
        self._begun = True
        for place, token in enumerate(tokens.tolist()):
            if not self._until[place].ended:
                self._say(place, self._until[place].push(self._texts[place].push(token)))
        return torch.tensor([until.ended or bool(self.output.failure) for until in self._until])

    def finish(self) -> None:
        """Say the rest."""
        for place, until in enumerate(self._until):
            self._say(place, until.push(self._texts[place].rest()))
            self._say(place, until.rest())
        if len(self._said) > 1:
            texts = [f"[{number}] {text}\n" for number, text in enumerate(self._said, 1)]
            self._write("\n".join(texts))
        elif self._begun:
            self._write("\n")

    def _say(self, place: int, text: str) -> None:
        if len(self._said) == 1:
            self._write(visible(text))
        self._said[place] += visible(text)

    def _write(self, text: str) -> None:
        if text:
            self.output.write(writable(text))
            self.output.flush()


def writable(text: str) -> str:
    """The text with letters that the standard output has."""
    coding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(coding, errors="backslashreplace").decode(coding)


def _together(model: LanguageModel, prompts: list[list[int]]) -> tuple[Tensor | None, Tensor]:
    if not all(prompts):
        return None, torch.empty(0)
    tokens, mask = pad(prompts)
    device = next(model.parameters()).device
    return tokens.to(device), mask.to(device)


def _how_far(
    source: Source, choices: Choices, memory: Memory, prompts: Sequence[str], prompt: Prompt, reading: bool
) -> str:
    """How much was read, where it is, and the command that goes on."""
    told = [prompt.how_far(memory.read)] if reading and len(prompts) == 1 else []
    if memory.path is None:
        return "; ".join([*told, "nothing is kept without --state"])
    told += [f"what was read is in {memory.path}"] if memory.kept else []
    before, left = "", list(prompts)  # of several prompts either all are read or none
    if memory.kept and not reading:
        left = ["TEXT"]
    elif len(prompts) == 1:
        before, rest = prompt.rest(memory.read if memory.kept else 0)
        left = [rest]
    texts = [word for text in left for word in ("--prompt", text)]
    how = source.command("generate", "--state", str(memory.path), *texts, *choices.options)
    return "; ".join([*told, f"go on with: {before}{how}"])
