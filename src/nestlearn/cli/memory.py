"""What a model has read, and the file that keeps it: written whatever ends a command, never over a better one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestlearn.cli.ending import interrupts
from nestlearn.errors import StateFileError
from nestlearn.foreign import reason
from nestlearn.memory.state import State, flatten
from nestlearn.models import LanguageModel, load_state, read, save_state, stream
from nestlearn.models.choosing import Drawn

__all__ = ["Memory", "seen"]

PIECE = 256  # tokens that are read at once: so much is read twice at most when a command is ended


class Memory:
    """The memory of one conversation, or of several side by side.

    Args:
        model: who reads.
        path: of its file, or None; read first if it is there.
        batch: how many conversations.

    Attributes:
        read: how many tokens were read of what was handed to `take`; never more than the state has seen.

    Raises:
        StateFileError: the file is none, or cannot be written later.
    """

    def __init__(self, model: LanguageModel, path: Path | None, batch: int = 1) -> None:
        if path is not None:
            _check_place(path)
        self.model, self.path, self.batch = model, path, batch
        known = load_state(path, model, batch_size=batch) if path is not None and path.exists() else None
        # One value, so that a signal never comes between the state and the number that belongs to it.
        self._now: tuple[Any, int] = (known, 0)
        self._saved = known

    @property
    def state(self) -> Any:
        """What was read so far; None for nothing."""
        return self._now[0]

    @property
    def read(self) -> int:
        return self._now[1]

    @property
    def kept(self) -> bool:
        """Whether the file holds all that was read."""
        return self.path is not None and self.state is not None and self.state is self._saved

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def seen(self) -> int:
        """How many tokens the state has seen, in all conversations that it had."""
        return seen(self.state)

    def take(self, pieces: Iterable[Sequence[int]]) -> Tensor | None:
        """Read the tokens of a text but for the last one, which is returned [1, 1]: an answer begins with it.

        None if there is no token.
        """
        left: list[int] = []
        self._now = (self.state, 0)
        for piece in pieces:
            left += piece
            while len(left) > 1:
                count = min(PIECE, len(left) - 1)
                self.read_whole(self._tokens([left[:count]]))
                del left[:count]
        return self._tokens([left]) if left else None

    def read_whole(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read tokens [batch, time]; logits of the next one."""
        logits, state = read(self.model, tokens, self.state, mask=mask)
        self._now = (state, self.read + tokens.shape[1])
        return logits

    def answer(
        self,
        last: Tensor,
        drawn: Drawn,
        most: int,
        push: Callable[[Tensor], Tensor],
        mask: Tensor | None = None,
    ) -> None:
        """Draw up to ``most`` tokens; ``push`` is handed each [batch], and says which conversations end with it."""
        begun = self.read + last.shape[1]
        new = stream(self.model, last, **drawn, state=self.state, stop=push, mask=mask)
        for number, (_, state) in enumerate(new, 1):
            self._now = (state, begun)
            if number == most:
                break

    def forget(self) -> None:
        """Begin anew; the file goes too."""
        self._now, self._saved = (None, 0), None
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def save(self) -> bool:
        """Write what was read since the last time; whether there is a file that holds all. A signal waits for it.

        Raises:
            StateFileError: it cannot be written, or holds what no state holds; the file is what it was.
            KeyboardInterrupt: a signal has waited.
        """
        if self.path is None:
            return False
        if self.state is None or self.state is self._saved:
            return self._saved is not None
        with interrupts() as stopped:
            try:
                save_state(self.state, self.path, self.model)
            except OSError as error:
                raise StateFileError(
                    f"cannot write the state {self.path}: {reason(error)}; what was there before is left"
                ) from error
            self._saved = self.state
        if stopped():
            raise KeyboardInterrupt
        return True

    def _tokens(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(rows, device=self.device)


def seen(state: State | None) -> int:
    """How many tokens a state has seen; of several sequences, the one that saw most."""
    flat = {} if state is None else flatten(state)
    times = [int(held.max()) for name, held in flat.items() if name.split(".")[-1] == "time"]
    return max(times, default=max((held.shape[-2] for held in flat.values() if held.ndim == 4), default=0))


def _check_place(path: Path) -> None:
    """Before anything is read, which may take hours."""
    folder = path.parent
    if path.is_dir():
        raise StateFileError(f"cannot write the state {path}: it is a folder")
    if not folder.is_dir():
        raise StateFileError(f"cannot write the state {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StateFileError(f"cannot write the state {path}: nothing may be written in {folder}")
