"""The process behind the reading page of ``nestlearn explore``: a model that reads, and answers questions in lines.

A question is a line of JSON on the standard input, ``{"do": "read", "text": ...}``; what comes of it are lines on the
standard output, the last of which has "done" or "error". After each line but that one it waits for the word "more", or
"stop". So whoever asks sets the pace, and the state is that of a piece's end whenever it ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nestlearn.cli.generate_job import Source, load_speaker
from nestlearn.cli.memory import seen
from nestlearn.cli.own_reader import OwnReader
from nestlearn.cli.page_reader import PageReader
from nestlearn.cli.stacked_reader import StackedReader, Words
from nestlearn.errors import NestlearnError, SettingsError
from nestlearn.explore.runs import STACKED
from nestlearn.explore.states import NAME, SUFFIX
from nestlearn.foreign import reason, shown
from nestlearn.memory.state import State, count_entries
from nestlearn.models import Reading, TextStream, Tokenizer, load_stacked, observe, state_bytes, stream
from nestlearn.training.settings import find_device

__all__ = ["Desk", "load_reader", "reading_job"]

NICE = 10  # a training beside it comes first
MOST_TEXT, MOST_TOKENS, MOST_PIECE, MOST_ANSWER = 1 << 16, 1 << 18, 256, 2000
KEPT = 256 << 20  # bytes, at least, of the states to which one may go back without much reading

Told = dict[str, Any]


@dataclass(frozen=True)
class _Mark:
    """The state after so many tokens of what was read here, and what was expected of the next one."""

    at: int
    state: State
    logits: Tensor | None
    size: int

    @classmethod
    def of(cls, at: int, state: State, logits: Tensor | None) -> _Mark:
        return cls(at, state, logits, state_bytes(state))


class Desk:
    """A model, what it has read, and the states on the way there.

    Args:
        reader: who reads.
        states: the folder of saved states; None saves none.
        kept: bytes of states to keep; when they are more, every second one is dropped. None keeps as many as the
            weights have, 256 MiB at least.
    """

    def __init__(self, reader: PageReader, states: Path | None, kept: int | None = None) -> None:
        self._reader, self._words, self._states = reader, reader.words, states
        weights = list(reader.model.parameters())
        self._kept = max(KEPT, state_bytes(weights)) if kept is None else kept
        self._device = weights[0].device
        self._tokens: list[int] = []
        self._ends: list[int] = []  # of the pieces, in which what is read again is read: slopes may end with them
        self._marks: list[_Mark] = []
        self._size = 0  # of the states in the marks
        self._begin(None)

    def _begin(self, state: State | None) -> None:
        with torch.no_grad():
            state = self._reader.initial_state(1) if state is None else state
        self._tokens, self._ends, self._marks, self._size = [], [], [], 0
        self._keep(_Mark.of(0, state, None))

    def about(self) -> Told:
        """What is told of the model before anything is read."""
        return {"parameters": count_entries(list(self._reader.model.parameters())), **self._reader.about()}

    def status(self) -> Told:
        """What the state is now: tokens that it has seen and those that were read here, and how far memories are."""
        state = self._marks[-1].state
        with torch.no_grad():
            far = self._reader.movement(self._reader.initial_state(1), state)
        return {
            "seen": seen(state),
            "here": len(self._tokens),
            "bytes": state_bytes(state),
            "far": {name: _plain(each.item()) for name, each in far.items()},
        }

    def answer(self, given: Mapping[str, Any]) -> Iterator[Told]:
        """What comes of a question, line by line; the state is that after the latest.

        Raises:
            ValueError: it asks for what there is not.
            StateFileError, OSError: a state cannot be written or read.
        """
        deeds = {
            "open": lambda given: iter(()),
            "read": self._read,
            "cut": self._cut,
            "forget": self._forget,
            "save": self._save,
            "restore": self._restore,
            "ask": self._ask,
        }
        if given.get("do") not in deeds:
            raise ValueError(f"do: expected one of {', '.join(deeds)}, got {shown(given.get('do'))}")
        return deeds[given["do"]](given)

    def _read(self, given: Mapping[str, Any]) -> Iterator[Told]:
        tokens = self._words.encode(_text(given, "text"))
        if not tokens:
            raise ValueError("text: expected at least one token, got none")
        yield from self._take(tokens, int(_number(given, "piece", 16, 1, MOST_PIECE)))

    def _take(self, tokens: Sequence[int], piece: int) -> Iterator[Told]:
        if len(self._tokens) + len(tokens) > MOST_TOKENS:
            raise ValueError(f"expected at most {MOST_TOKENS:,} tokens: save the state, and restore it to go on")
        told, end = _Shown(self._words), len(self._tokens) + len(tokens)
        last = self._marks[-1]
        for reading in observe(self._reader, self._row(tokens), last.state, last.logits, piece=piece):
            self._tokens += reading.tokens[0].tolist()
            self._ends.append(len(self._tokens))
            self._keep(_Mark.of(len(self._tokens), reading.state, reading.logits))
            moved = self._reader.movement(reading.before, reading.state)
            yield {
                "here": len(self._tokens),
                "words": told.push(reading, len(self._tokens) == end),
                "moved": {name: _plain(far.item()) for name, far in moved.items()},
            }

    def _cut(self, given: Mapping[str, Any]) -> Iterator[Told]:
        if not self._tokens:
            raise ValueError("nothing was read since the state was begun, so that nothing can be taken away")
        count = int(_number(given, "tokens", 1, 1, len(self._tokens)))
        mark = self._at(len(self._tokens) - count)
        del self._tokens[mark.at :]
        self._ends = self._until(mark.at)
        self._marks = [each for each in self._marks if each.at < mark.at]
        self._size = sum(each.size for each in self._marks)
        self._keep(mark)
        return iter(())

    def _forget(self, given: Mapping[str, Any]) -> Iterator[Told]:
        self._begin(None)
        return iter(())

    def _save(self, given: Mapping[str, Any]) -> Iterator[Told]:
        path = self._path(given)
        if path.exists():
            raise ValueError(f"there is a state of the name {path.stem!r}: expected another one")
        self._reader.save(self._marks[-1].state, path)
        return iter(())

    def _restore(self, given: Mapping[str, Any]) -> Iterator[Told]:
        path = self._path(given)
        if not path.is_file():
            raise ValueError(f"there is no state of the name {path.stem!r}")
        self._begin(self._reader.load(path))
        return iter(())

    def _ask(self, given: Mapping[str, Any]) -> Iterator[Told]:
        """A continuation of what was read and the question; the state stays as it was unless it is to be kept."""
        question = self._words.encode(_text(given, "question"))
        most = int(_number(given, "tokens", 100, 1, MOST_ANSWER))
        temperature, seed = _number(given, "temperature", 0.8, 0, 100), int(_number(given, "seed", 0, 0, 1 << 31))
        if not question and not self._tokens:
            raise ValueError("question: expected at least one token, as nothing was read here that could go on")
        # What goes on begins with a token, so that without a question it is the last one of the text.
        mark = self._marks[-1] if question else self._at(len(self._tokens) - 1)
        prompt = question or self._tokens[-1:]
        text, said = TextStream(self._words), []
        new = stream(self._reader, self._row(prompt), temperature=temperature, seed=seed, state=mark.state)
        for (token, _), _ in zip(new, range(most), strict=False):
            said.append(int(token))
            yield {"said": text.push(said[-1])}
        yield {"said": text.rest()}
        if given.get("keep") is True:
            yield from self._take([*question, *said], int(_number(given, "piece", 16, 1, MOST_PIECE)))

    def _row(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor([list(tokens)], dtype=torch.int64, device=self._device)

    def _at(self, place: int) -> _Mark:
        """The state after so many tokens: one that is kept, or what comes of the latest before it."""
        mark = next(each for each in reversed(self._marks) if each.at <= place)
        start, state, logits = mark.at, mark.state, mark.logits
        for end in self._until(place):
            if end > start:
                (reading,) = observe(self._reader, self._row(self._tokens[start:end]), state, logits, piece=end - start)
                start, state, logits = end, reading.state, reading.logits
        return _Mark.of(place, state, logits)

    def _until(self, place: int) -> list[int]:
        """Where the pieces end of which so many tokens are made up."""
        return [*(end for end in self._ends if end < place), *([place] if place else [])]

    def _keep(self, mark: _Mark) -> None:
        self._marks.append(mark)
        self._size += mark.size
        while len(self._marks) > 2 and self._size > self._kept:
            self._marks = [self._marks[0], *self._marks[1:-1][1::2], self._marks[-1]]
            self._size = sum(each.size for each in self._marks)

    def _path(self, given: Mapping[str, Any]) -> Path:
        if self._states is None:
            raise ValueError("no folder was named for states: nestlearn explore --states FOLDER")
        name = given.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"name: expected up to 64 letters, digits, spaces, dots and dashes, a letter first, got {shown(name)}"
            )
        return self._states / f"{name}{SUFFIX}"


class _Shown:
    """Tokens as text: what several make up together is told with the last of them."""

    def __init__(self, words: Tokenizer) -> None:
        self._text, self._losses = TextStream(words), list[float]()

    def push(self, reading: Reading, last: bool) -> list[tuple[str, float | None, int]]:
        """Text, surprise, the mean over its tokens, and how many these are."""
        told = []
        for token, loss in zip(reading.tokens[0].tolist(), reading.losses[0].tolist(), strict=True):
            self._losses.append(loss)
            if text := self._text.push(token):
                told.append(self._unit(text))
        if last and self._losses:
            told.append(self._unit(self._text.rest()))
        return told

    def _unit(self, text: str) -> tuple[str, float | None, int]:
        losses, self._losses = self._losses, []
        known = [loss for loss in losses if isfinite(loss)]
        return text, _plain(sum(known) / len(known)) if known else None, len(losses)


def _plain(number: float) -> float | None:
    return float(f"{number:.6g}") if isfinite(number) else None


def _text(given: Mapping[str, Any], name: str) -> str:
    text = given.get(name, "")
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        came = f"{len(text):,}" if isinstance(text, str) else shown(text)
        raise ValueError(f"{name}: expected a text of at most {MOST_TEXT:,} characters, got {came}")
    return text.encode("utf-8", "replace").decode("utf-8")


def _number(given: Mapping[str, Any], name: str, usual: float, low: float, high: float) -> float:
    number = given.get(name, usual)
    if type(number) not in (int, float) or not low <= number <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high:,}, got {shown(number)}")
    return float(number)


def load_reader(folder: Path) -> PageReader:
    """The model in a folder: that of a run, or a pretrained one with a continuum.

    Raises:
        NestlearnError: there is none, or it cannot be read.
    """
    if (folder / STACKED).is_file():
        model, tokenizer = load_stacked(folder, device=find_device("auto"))
        if tokenizer is None:
            raise SettingsError(f"{folder} holds no tokenizer: expected that of the model, which reads the text")
        return StackedReader(model, Words(tokenizer))
    return OwnReader(*load_speaker(Source(folder)))


def reading_job(folder: Path, states: Path | None, questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer questions until there are no more.

    Args:
        folder: of the model.
        states: that of saved states, or None.
        questions, answers: lines of JSON.
    """

    def tell(content: Told) -> None:
        answers.write(json.dumps(content, allow_nan=False).encode() + b"\n")
        answers.flush()

    try:
        desk = Desk(load_reader(folder), states)
    except Exception as error:  # noqa: BLE001 - whatever it is, the page says it
        return tell({"error": _said(error)})
    for line in questions:
        given = json.loads(line)
        if not isinstance(given, dict):
            continue  # a word to something that had ended by itself
        try:
            for told in desk.answer(given):
                tell(told)
                if json.loads(questions.readline() or b'"stop"') != "more":
                    break
            about = {"about": desk.about()} if given.get("do") == "open" else {}
            tell({**about, "done": desk.status()})
        except Exception as error:  # noqa: BLE001 - whatever it is, the next question may be a better one
            tell({"error": _said(error)})
    return None


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, NestlearnError) or type(error) is ValueError else reason(error)


if __name__ == "__main__":
    os.nice(NICE)
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what others print goes to the terminal, and never between the answers
    reading_job(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None, sys.stdin.buffer, told)
