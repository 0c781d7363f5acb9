"""What ``nestlearn chat`` does: reads lines, answers them, and remembers.

A line and its end are read, then the model goes on until a line of its own ends. The memory is written after each, so
that whatever ends the conversation takes no more than the answer that was being given.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestlearn.cli.ending import Output, say
from nestlearn.cli.generate_job import FINISHED, INTERRUPTED, Choices, Source, Speaker, load_speaker, saved, writable
from nestlearn.cli.memory import Memory
from nestlearn.cli.shown import visible
from nestlearn.descriptions.table import readable_bytes
from nestlearn.models import Tokenizer, observe, state_bytes

__all__ = ["chat_job"]

COMMANDS = ("/forget", "/state", "/surprise", "/quit")
LEAST_EXPECTED, LONGEST = 3, 4096  # tokens that are named, and of which the surprise is taken


def chat_job(source: Source, choices: Choices, path: Path) -> int:
    """Talk until the input ends; returns the exit status.

    Args:
        source: of the model.
        choices: how it answers.
        path: of the file with its memory.
    """
    ends = choices.ends
    model, words = load_speaker(source)
    memory = Memory(model, path)
    chat = _Chat(memory, words, choices, ends)
    begun = f"it goes on from {path}" if memory.state is not None else f"its memory will be in {path}"
    say(f"talking to {source.run}; {begun}. {', '.join(COMMANDS[:-1])} and {COMMANDS[-1]} are no lines to answer")
    how = f"go on with: {source.command('chat', '--state', str(path), *choices.options)}"
    try:
        with saved(memory):
            for line in _lines():
                if not chat.take(line):
                    break
    except KeyboardInterrupt:
        say(f"interrupted{_kept(path)}; {how}")
        return INTERRUPTED
    chat.output.check(f"{_kept(path)}; {how}")
    return FINISHED


def _kept(path: Path) -> str:
    return f"; what was said is in {path}" if path.exists() else ""


def _lines() -> Any:
    """The lines of the standard input, in any encoding; a person is asked for each."""
    if sys.stdin.isatty():
        while True:
            try:
                yield input("> ")
            except EOFError:
                return
    while line := sys.stdin.buffer.readline():
        yield line.decode("utf-8", errors="surrogateescape").rstrip("\r\n")


class _Chat:
    def __init__(self, memory: Memory, words: Tokenizer, choices: Choices, ends: list[str]) -> None:
        self._memory, self._words, self._choices, self._ends = memory, words, choices, ends
        self._turn = 0
        self.output = Output(sys.stdout)
        self._last: list[tuple[str, float]] = []

    def take(self, line: str) -> bool:
        """Answer a line, or do what it says; whether more may come."""
        word = line.strip()
        if word in COMMANDS:
            return self._obey(word)
        if word.startswith("/") and " " not in word:
            return self._tell(f"expected one of {', '.join(COMMANDS)}, got {visible(word)}")
        speaker = Speaker(self._words, self._ends, 1, self.output, skip=True)
        tokens = self._words.encode(f"{line}\n")
        self._last = self._surprise(torch.tensor([tokens[:LONGEST]]))
        last = self._memory.take([tokens])
        assert last is not None, "a line has an end"
        choices = replace(self._choices, seed=self._choices.seed + self._turn)
        self._memory.answer(last, choices.drawn, choices.tokens, speaker.push)
        speaker.finish()
        self._turn += 1
        self._memory.save()
        return not self.output.failure

    def _obey(self, word: str) -> bool:
        if word == "/forget":
            self._memory.forget()
            self._last, self._turn = [], 0
            return self._tell("forgotten")
        if word == "/quit":
            return False
        return self._tell(self._state() if word == "/state" else self._told())

    def _tell(self, text: str) -> bool:
        """Say it; whether anybody is there to hear it."""
        self.output.write(f"{writable(text)}\n")
        self.output.flush()
        return not self.output.failure

    def _state(self) -> str:
        state = self._memory.state
        if state is None:
            return "nothing was read"
        size = readable_bytes(state_bytes(state))
        return f"{self._memory.seen:,} tokens were read; the memory has {size}, in {self._memory.path}"

    def _surprise(self, tokens: Tensor) -> list[tuple[str, float]]:
        """-log p of each token of a line but a conversation's first, in nats, at what is remembered now."""
        tokens, memory = tokens.to(self._memory.device), self._memory
        losses = [loss for each in observe(memory.model, tokens, memory.state) for loss in each.losses[0].tolist()]
        return [
            (self._words.decode([token]), loss) for token, loss in zip(tokens[0, 1:].tolist(), losses[1:], strict=True)
        ]

    def _told(self) -> str:
        if not self._last:
            return "no line was read that could surprise"
        mean = sum(loss for _, loss in self._last) / len(self._last)
        most = sorted(self._last, key=lambda each: -each[1])[:LEAST_EXPECTED]
        named = ", ".join(f"{token!a} {loss:.2f}" for token, loss in most)
        return f"{mean:.2f} nats a token of the last line; least expected: {named}"
