"""A language model of this library, as the reading page has it: it reads on from states by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nestlearn.memory.state import State
from nestlearn.models import LanguageModel, Tokenizer, load_state, movement, save_state

__all__ = ["OwnReader"]


@dataclass(frozen=True)
class OwnReader:
    """A `PageReader`; the arguments are its attributes."""

    model: LanguageModel
    words: Tokenizer

    def __call__(self, tokens: Tensor, state: State | None = None, return_state: bool = False) -> Any:
        """As the model does."""
        return self.model(tokens, state=state, return_state=return_state)

    def initial_state(self, batch_size: int) -> State:
        """The state before the first token."""
        return self.model.initial_state(batch_size)

    def about(self) -> dict[str, Any]:
        """Memories are called as `nestlearn.models.movement` calls them."""
        parts, memories, start = getattr(self.model, "parts", {}), [], self.model.initial_state(1)
        for name in movement(start, start):
            number, _, rest = name.partition(".")
            layer, place = parts.get(number), rest.removeprefix("blocks.")
            periods = getattr(layer, "periods", ())
            period = periods[int(place)] if place.isdecimal() and int(place) < len(periods) else None
            memories.append({"name": name, "layer": type(layer).__name__, "period": period})
        return {"vocabulary": self.model.vocab_size, "window": None, "memories": memories}

    def movement(self, before: State, after: State) -> dict[str, Tensor]:
        """As `nestlearn.models.movement` measures it."""
        return movement(before, after)

    def save(self, state: State, path: Path) -> None:
        """As `nestlearn.models.save_state` does."""
        save_state(state, path, self.model)

    def load(self, path: Path) -> State:
        """As `nestlearn.models.load_state` does, of one text."""
        return load_state(path, self.model, batch_size=1)
