"""What the reading page asks of a model; `own_reader` and `stacked_reader` are the two kinds that there are.

A state is a value: nested dictionaries of tensors, its "time" among them, that nothing changes after it was told. So
whoever keeps one can go back to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from nestlearn.memory.state import State
from nestlearn.models import Tokenizer
from nestlearn.models.reading import Begun

__all__ = ["PageReader"]


class PageReader(Begun, Protocol):
    """A model that reads on from a state, as `nestlearn.models.observe` asks for it, and what is told of it."""

    @property
    def model(self) -> nn.Module:
        """The model, whose weights are never changed."""

    @property
    def words(self) -> Tokenizer:
        """Its tokenizer."""

    def about(self) -> dict[str, Any]:
        """What it is: the size of its "vocabulary"; the tokens of its "window", None where attention sees all that was
        read; its "memories", each with "name", "layer" and "period", which is None where it has none.
        """

    def movement(self, before: State, after: State) -> dict[str, Tensor]:
        """How far each memory moved [batch], by name, as a share of what it holds."""

    def save(self, state: State, path: Path) -> None:
        """Write a state to a file.

        Raises:
            ValueError: there is nothing in it.
            StateFileError, OSError: it cannot be written.
        """

    def load(self, path: Path) -> State:
        """The state in a file.

        Raises:
            StateFileError: it cannot be read, or is another model's.
        """
