"""The text files of your own, for the networks that read the speeches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn.models import FileTokenizer
from nestlearn.tasks.about import AboutText
from nestlearn.tasks.data import SPLITS
from nestlearn.tasks.speeches import SpeechesTask
from nestlearn.tasks.task import Task, size
from nestlearn.tasks.text_files import FORMS, find_texts
from nestlearn.tasks.text_tokens import TextPart, TextTokens, open_text

__all__ = ["TextTask"]

BLOCKS = 100
ROOM = 4  # windows that a block holds at least, or there are fewer blocks


@dataclass(frozen=True, kw_only=True)
class TextTask(AboutText, SpeechesTask):
    """The text in ``files``: a file, a folder, a pattern, or a list of these, as `nestlearn.tasks.text_files` finds
    them. Figures: ``loss`` (nats a token), ``bits`` (a byte).

    Tokens are bytes, or those of the ``tokenizer``, a ``tokenizer.json``. The text is cut by place into a hundred
    blocks of equal length; of ten in a row the fifth validates, the tenth tests, the others train. A text that is too
    short for that has fewer of them, at least ten. It is never whole in memory. ``form`` says whether it is taken byte
    for byte. With ``sha256`` another text is an error.

    Raises:
        ValueError: no file, a split that is too short for a window, a tokenizer that cannot be read.
        DataFileError: a file is not there, cannot be read or unpacked, or is not the one that ``sha256`` says.
        MissingPackageError: a ``.zst`` file or a tokenizer needs a package that is not installed.
    """

    files: str | Sequence[str] = ""
    form: str = size(FORMS[0], choices=FORMS)
    tokenizer: str = ""
    sha256: str = ""

    @classmethod
    def sized(cls, size: Mapping[str, Any], device: str, dtype: torch.dtype) -> Task:
        """As of any task; ``file`` is taken for ``files``, as the field was called when it was one."""
        if "file" in size and "files" not in size:
            size = {"files" if name == "file" else name: value for name, value in size.items()}
        return super().sized(size, device, dtype)

    def __post_init__(self) -> None:
        super().__post_init__()
        shortest = min(self.length(split) for split in SPLITS)
        if shortest < self.context + 2:
            kind = "tokens" if self.tokenizer else "bytes"
            raise ValueError(
                f"the text is too short: it has {self._tokens.count:,} {kind}, of which a tenth judges, and with "
                f"context={self.context} expected at least {10 * (self.context + 2):,}. Take a longer text, or a "
                f"context of at most {max(0, shortest - 2)}."
            )

    @cached_property
    def _tokens(self) -> TextTokens:
        return open_text(find_texts(self.files), self.form, self._words, self.sha256)

    @cached_property
    def _words(self) -> FileTokenizer | None:
        return FileTokenizer(Path(self.tokenizer).expanduser()) if self.tokenizer else None

    @property
    def vocab_size(self) -> int:
        return 256 if self._words is None else self._words.vocab_size

    @property
    def tokens_a_byte(self) -> float:
        return self._tokens.tokens_a_byte

    def build(self, seed: int) -> nn.Module:
        model = super().build(seed)
        model.tokenizer = self.tokenizer or None  # type: ignore[assignment]  # kept with the run, for who generates
        return model

    def length(self, split: str) -> int:
        return len(self._parts[split])

    def windows(self, split: str, starts: Tensor) -> Tensor:
        return self._parts[split].windows(starts, self.context + 1)

    @cached_property
    def _parts(self) -> dict[str, TextPart]:
        count = self._tokens.count
        blocks = 10 * min(BLOCKS // 10, max(1, count // (10 * ROOM * (self.context + 1))))
        pieces: dict[str, list[tuple[int, int]]] = {split: [] for split in SPLITS}
        for block in range(blocks):
            start, stop = block * count // blocks, (block + 1) * count // blocks
            own = pieces[{4: "validation", 9: "test"}.get(block % 10, "train")]
            if own and own[-1][1] == start:
                own[-1] = own[-1][0], stop
            else:
                own.append((start, stop))
        return {split: TextPart(self._tokens, tuple(own)) for split, own in pieces.items()}
