"""Needles in a haystack: pairs of a key and a value at random places of a speech, asked for at its end.

    ... dear friends k3 v3 of the Sen ... ate, k1 v1 the year ... has been k3 k1 k2 k4

The text is cut into as many parts of equal length as there are needles, and each part holds one. At the key's second
place, at the end, the model is to say its value. Keys are drawn without repetition and in random order, and speeches
have none of their own, so each question has one answer in the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.sequence.recall import UNASKED, Examples, accuracies, read_out
from nestlearn.models import LanguageModel
from nestlearn.tasks.data import speeches

__all__ = ["BYTES", "KEYS", "NEEDLES", "VALUES", "Haystack", "needle_texts"]

BYTES, KEYS, VALUES = 256, 16, 16  # tokens of each kind, numbered in this order
NEEDLES = 4


def needle_texts(generator: torch.Generator, texts: int, length: int, split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Texts of bytes from a split of the speeches, with needles and questions.

    Returns:
        tokens and targets [texts, length], and of each of the last `NEEDLES` places, the questions, which part of the
        text has its needle [texts, NEEDLES], the first part being 0.

    Raises:
        ValueError: not two places for each needle besides the questions.
    """
    part = (length - NEEDLES) // NEEDLES
    if part < 2:
        raise ValueError(f"expected a length of at least {3 * NEEDLES} tokens, got {length}")
    source = speeches()[split]
    starts = torch.randint(len(source) - length, (texts, 1), generator=generator)
    tokens = source[starts + torch.arange(length)].long()
    keys = BYTES + torch.rand(texts, KEYS, generator=generator).argsort(1)[:, :NEEDLES]
    values = BYTES + KEYS + torch.randint(VALUES, (texts, NEEDLES), generator=generator)
    places = part * torch.arange(NEEDLES) + torch.randint(part - 1, (texts, NEEDLES), generator=generator)
    tokens = tokens.scatter(1, places, keys).scatter(1, places + 1, values)
    order = torch.rand(texts, NEEDLES, generator=generator).argsort(1)
    tokens[:, -NEEDLES:] = keys.gather(1, order)
    targets = torch.full_like(tokens, UNASKED)
    targets[:, -NEEDLES:] = values.gather(1, order)
    return tokens, targets, order


@dataclass(frozen=True)
class Haystack:
    """Training on texts of 16 tokens, then longer ones too, up to ``longest``; judged at ``lengths``.

    Lengths are powers of two, drawn evenly from those reached: 16 at the start, ``longest`` from half of the training
    on. A step has ``tokens`` tokens.
    """

    lengths: tuple[int, ...]
    longest: int = 128
    tokens: int = 1024
    judged: int = 32  # texts of a length
    dim: int = 32
    heads: int = 2

    @property
    def vocabulary(self) -> int:
        return BYTES + KEYS + VALUES

    def training(self, generator: torch.Generator, progress: float) -> Examples:
        stages = self.longest.bit_length() - 4
        reached = min(stages, 1 + int(2 * progress * stages))
        length = 16 * 2 ** int(torch.randint(reached, (), generator=generator))
        tokens, targets, _ = needle_texts(generator, self.tokens // length, length, "train")
        return tokens, targets

    def validation(self) -> list[Examples]:
        generator = torch.Generator().manual_seed(1)
        sizes = [16 * 2**power for power in range(self.longest.bit_length() - 4)]
        return [needle_texts(generator, 64, length, "validation")[:2] for length in sizes]

    def judge(self, model: LanguageModel) -> dict[str, float]:
        """Accuracy at each length, "at LENGTH", and by the part of the text with the needle, "at LENGTH, part N" from
        1, the farthest; "bytes at LENGTH" of the state.
        """
        found: dict[str, float] = {}
        for length in self.lengths:
            generator = torch.Generator().manual_seed(2)
            tokens, targets, part = needle_texts(generator, self.judged, length, "test")
            answers, found[f"bytes at {length}"] = read_out(model, tokens)
            right = accuracies(answers, targets)
            found[f"at {length}"] = float(right.mean())
            for number in range(NEEDLES):
                found[f"at {length}, part {number + 1}"] = float(right[part.flatten() == number].mean())
        return found
