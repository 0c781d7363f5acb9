"""The bytes of a text file of your own, for the networks that read the speeches."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.tasks.data import SPLITS, DataFile, DataFileError
from nestlearn.tasks.found_files import VARIABLE
from nestlearn.tasks.speeches import SpeechesTask

__all__ = ["TextTask", "text_splits"]

BLOCKS = 100


@dataclass(frozen=True, kw_only=True)
class TextTask(SpeechesTask):
    """Bytes of the text in ``file``, whose path may begin in the folder that NESTLEARN_DATA names. Figures as those of
    the speeches: ``loss`` (nats a byte), ``bits`` (a byte).

    The text is cut into a hundred blocks of equal length; of ten in a row the fifth validates, the tenth tests, the
    others train. With ``sha256`` a file with another content is an error.

    Raises:
        ValueError: no file, or a split of it is too short for a window.
        DataFileError: the file is not there, cannot be read, or is not the one that ``sha256`` says.
    """

    name: ClassVar[str] = "text"
    title: ClassVar[str] = "A text, byte by byte"
    files: ClassVar[tuple[DataFile, ...]] = ()

    file: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.file:
            raise ValueError("expected a file for the task text, got none: name one with the field file")
        shortest = min(len(self.text(split)) for split in SPLITS)
        if shortest < self.context + 2:
            raise ValueError(
                f"expected a text whose splits have at least context + 2 = {self.context + 2} bytes, got {shortest} in "
                f"one of {self.file}: a longer text, or a shorter context"
            )

    def text(self, split: str) -> Tensor:
        return text_splits(_place(self.file), self.sha256)[split]


def _place(file: str) -> Path:
    """Where a file is: at its path, or below the folder that NESTLEARN_DATA names."""
    folder = os.environ.get(VARIABLE)
    places = [Path(file), *([Path(folder) / file] if folder else [])]
    for path in places:
        if path.is_file():
            return path.resolve()
    looked = " and ".join(str(path) for path in places)
    raise DataFileError(
        f"cannot find the text {file}: looked at {looked}. Name an existing file, or set {VARIABLE} to the folder that "
        "holds it."
    )


@lru_cache(maxsize=8)
def text_splits(path: Path, sha256: str = "") -> dict[str, Tensor]:
    """The text in a file as ``{split: bytes [n] uint8}``.

    Args:
        path: of the file; its content is kept, so what changes later is not seen by the same process.
        sha256: what the content must have; empty takes any.

    Raises:
        DataFileError: the file cannot be read, or has another sha256.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataFileError(f"cannot read the text {path}: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise DataFileError(
            f"wrong content in {path}: expected sha256 {sha256}, found {found}. Replace the file, or leave sha256 out."
        )
    parts: dict[str, bytearray] = {split: bytearray() for split in SPLITS}
    for block in range(BLOCKS):
        split = {4: "validation", 9: "test"}.get(block % 10, "train")
        parts[split] += content[block * len(content) // BLOCKS : (block + 1) * len(content) // BLOCKS]
    return {split: _bytes(part) for split, part in parts.items()}


def _bytes(part: bytearray) -> Tensor:
    # torch refuses an empty buffer.
    return torch.frombuffer(part, dtype=torch.uint8) if part else torch.empty(0, dtype=torch.uint8)
