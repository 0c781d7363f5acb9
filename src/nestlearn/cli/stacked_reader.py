"""A pretrained model with a continuum (`nestlearn.models.add_continuum`), as the reading page has it.

A continuum lives in its model and goes on with one text; here a state is a value, from which the model reads on however
often. It holds what the text has written, the keys and values of the window that attention sees, and the last token,
which **waits**: what is predicted after it is learned from when the next one is known, so that it is read then, and
until then only looked at. So nothing is lost between two pieces, be they of one token each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from nestlearn.errors import SettingsError, StateFileError
from nestlearn.foreign import shown
from nestlearn.memory.state import State, mapped
from nestlearn.models import Continuum, Tokenizer, movement
from nestlearn.models.stacking_calls import cache_name

__all__ = ["WINDOW", "StackedReader", "Words"]

WINDOW = 2048
"""Tokens after which attention begins anew, as in `Continuum.read`, where the model does not end before."""

REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Words:
    """A tokenizer of transformers as a `nestlearn.models.Tokenizer`: nothing is put before a text or behind it."""

    tokenizer: Any

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens. Half characters, and numbers that it does not have, are replacement characters."""
        parts = []
        for known, group in groupby(tokens, lambda token: 0 <= token < self.vocab_size):
            part = list(group)
            told = self.tokenizer.decode(part, clean_up_tokenization_spaces=False) if known else REPLACEMENT * len(part)
            parts.append(str(told))
        return "".join(parts)


@dataclass(eq=False)
class StackedReader:
    """A `PageReader`.

    Args:
        model: of transformers, with a continuum.
        words: its tokenizer.
        window: tokens after which attention begins anew, if the model does not end before.

    Raises:
        SettingsError: the tokenizer has more tokens than the model; no number of positions; blocks that keep
            something else than keys and values.
    """

    model: nn.Module
    words: Tokenizer
    window: int = WINDOW

    def __post_init__(self) -> None:
        self._continuum = cast(Continuum, self.model.continuum)
        self._cache_name = cache_name(self._continuum.original)
        self._live: State | None = None  # what the continuum holds at the moment
        config: Any = self.model.config
        self._vocabulary, positions = config.vocab_size, getattr(config, "max_position_embeddings", self.window)
        if type(positions) is not int or positions < 1:
            raise SettingsError(f"max_position_embeddings: expected a number of tokens, got {shown(positions)}")
        self.window = min(self.window, positions)
        kinds = getattr(config, "layer_types", None) or ()
        if others := [kind for kind in kinds if kind == "linear_attention" or not str(kind).endswith("attention")]:
            raise SettingsError(
                f"a state has keys and values, and a block with {shown(others[0])} keeps something else"
            )
        if self.words.vocab_size > self._vocabulary:
            raise SettingsError(
                f"the tokenizer has {self.words.vocab_size} tokens, the model knows {self._vocabulary}: expected the "
                "one that the model was trained with"
            )

    def initial_state(self, batch_size: int) -> State:
        """The state before the first token."""
        nothing = torch.zeros(batch_size, 0, dtype=torch.int64, device=self._device)
        return _state(0, nothing, {}, {})

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def __call__(self, tokens: Tensor, state: State | None = None, return_state: bool = False) -> Any:
        """Logits [batch, time, vocab_size] of tokens [batch, time], and with ``return_state`` (logits, state).

        What waited and all of these tokens but the last are read and learned from; the last is looked at.
        """
        state = self.initial_state(len(tokens)) if state is None else state
        known, time = torch.cat([state["waiting"], tokens], 1), int(state["time"]) + tokens.shape[1]
        look = self._look_apart if time % self._continuum.period == 0 else self._look_along
        logits, written, attention = look(known, state)
        self._live = written
        found = torch.cat(logits, 1)[:, state["waiting"].shape[1] :]
        after = _state(time, known[:, -1:], written, attention)
        return (found, after) if return_state else found

    def _look_along(self, tokens: Tensor, state: State) -> tuple[list[Tensor], State, State]:
        """Read all of the tokens in one go, and take back that the last was read: nothing is learned from it yet."""
        logits, attention = self._read_on(tokens, state)
        written = self._continuum.state()
        if written and self._continuum.inner_lr:  # else the text does not go on, and what was loaded stays
            self._continuum.time -= 1
            written["time"] = torch.tensor(self._continuum.time)
        return logits, written, mapped(lambda held: held[..., :-1, :], attention)

    def _look_apart(self, tokens: Tensor, state: State) -> tuple[list[Tensor], State, State]:
        """Where a write is due after the last of the tokens, which would come too early: it is looked at by itself."""
        logits, attention = self._read_on(tokens[:, :-1], state)
        written = self._continuum.state(tokens[:, -1])
        with self._continuum.paused():
            looked, _ = self._read(tokens[:, -1:], attention)
        return [*logits, *looked], written, attention

    def _read_on(self, tokens: Tensor, state: State) -> tuple[list[Tensor], State]:
        """As `_read`, from a state, but for what waits in it."""
        if state["written"] is not self._live:
            self._continuum.load(state["written"])
        self._live = None
        return self._read(tokens, state["attention"])

    def _read(self, tokens: Tensor, attention: State) -> tuple[list[Tensor], State]:
        """Logits of tokens, window by window, and the keys and values of the one that they end in."""
        found = []
        while tokens.shape[1]:
            attention = attention if _length(attention) < self.window else {}
            room = self.window - _length(attention)
            out = self.model(tokens[:, :room], use_cache=True, **{self._cache_name: _cache(attention)})
            found.append(out.logits)
            layers, tokens = getattr(out, self._cache_name).layers, tokens[:, room:]
            attention = {str(place): {"key": held.keys, "value": held.values} for place, held in enumerate(layers)}
        return found, attention

    def about(self) -> dict[str, Any]:
        """Memories are called as `Continuum.matrices` calls them."""
        told = []
        for name, matrix in self._continuum.matrices.items():
            linear = matrix.linear
            layer = f"{type(linear).__name__} {linear.in_features:,} → {linear.out_features:,}"
            told.append({"name": name, "layer": layer, "period": matrix.period})
        return {"vocabulary": self._vocabulary, "window": self.window, "memories": told}

    def movement(self, before: State, after: State) -> dict[str, Tensor]:
        """The size of what was written between two states, as a share of W + D, which is what the memory holds.

        From the first token on it is the size of D.
        """
        if self._writes(before) == self._writes(after):
            return {path: torch.zeros(len(after["waiting"]), dtype=torch.float64) for path in self._continuum.matrices}
        return movement(self._answering(before), self._answering(after))

    def _writes(self, state: State) -> int:
        """How often something was written."""
        return int(state["written"].get("time", 0)) // self._continuum.period

    def _answering(self, state: State) -> State:
        """The matrices as they answer, W + D, as a state."""
        held, batch, answering = self._held(state["written"]), len(state["waiting"]), State()
        for path, matrix in self._continuum.matrices.items():
            number, name = path.split(".")
            nothing = torch.zeros_like(matrix.form(batch)["model"]["weight"], device=self._device)
            answering.setdefault(number, {})[name] = {"model": matrix.parameters(held.get(path, nothing))}
        return answering

    def _held(self, written: State) -> dict[str, Tensor]:
        """D [batch, out, in] by the names of the matrices; none where nothing is written."""
        paths = [(path, *path.split(".")) for path in self._continuum.matrices if written]
        return {path: written["blocks"][number][name]["model"]["weight"] for path, number, name in paths}

    @torch.no_grad()
    def save(self, state: State, path: Path) -> None:
        """As `Continuum.save` does after the token that waits: what the text has written, and not its window."""
        self._read_on(state["waiting"], state)
        self._continuum.save(path)

    def load(self, path: Path) -> State:
        """As `Continuum.load` does, of one text; attention begins anew."""
        self._live = None
        self._continuum.load(path)
        written = self._continuum.state()
        counts = {len(held) for held in self._held(written).values()}
        if counts != {1}:
            raise StateFileError(f"expected the state of 1 text in {path}, got {sorted(counts)}")
        return {**self.initial_state(1), "time": written["time"], "written": written}


def _state(time: int, waiting: Tensor, written: State, attention: State) -> State:
    return {"time": torch.tensor(time), "waiting": waiting, "written": written, "attention": attention}


def _length(attention: State) -> int:
    """Tokens that attention sees."""
    return int(attention["0"]["key"].shape[-2]) if attention else 0


def _cache(attention: State) -> Any:
    """Keys and values as the cache that transformers has; a copy, so that a state stays what it is."""
    held = [(layer["key"], layer["value"]) for layer in attention.values()]
    return import_module("transformers").DynamicCache(held or None)
