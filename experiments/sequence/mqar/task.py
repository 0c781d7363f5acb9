"""Multi-query associative recall (arXiv 2312.04927): pairs of a key and a value, then questions among filler.

    k1 v1 k2 v2 ... kP vP  .  .  k2  .  k7  k2  .  .  k1  .

At the place of a key after the pairs, the model is to say the value that stood behind it. The value is not shown again,
keys are drawn without repetition, and filler is neither a key nor a value: each question has one answer in the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from experiments.sequence.recall import UNASKED, Examples, accuracies, read_out
from nestlearn.models import LanguageModel

__all__ = ["FILLER", "KEYS", "VALUES", "AssociativeRecall", "recall_texts"]

FILLER, KEYS, VALUES = 8, 64, 16  # tokens of each kind, numbered in this order


def recall_texts(generator: torch.Generator, texts: int, pairs: int, length: int) -> Examples:
    """Texts with so many pairs; half of the places after them are questions.

    Raises:
        ValueError: more pairs than keys, or no place for two questions.
    """
    if not 1 <= pairs <= KEYS or length < 2 * pairs + 2:
        raise ValueError(f"expected 1 to {KEYS} pairs in at least 2 pairs + 2 tokens, got {pairs} in {length}")
    keys = FILLER + torch.rand(texts, KEYS, generator=generator).argsort(1)[:, :pairs]
    values = FILLER + KEYS + torch.randint(VALUES, (texts, pairs), generator=generator)
    tokens = torch.randint(FILLER, (texts, length), generator=generator)
    targets = torch.full((texts, length), UNASKED)
    tokens[:, : 2 * pairs : 2], tokens[:, 1 : 2 * pairs : 2] = keys, values
    rest = length - 2 * pairs
    places = 2 * pairs + torch.rand(texts, rest, generator=generator).argsort(1)[:, : rest // 2]
    which = torch.randint(pairs, places.shape, generator=generator)
    return tokens.scatter(1, places, keys.gather(1, which)), targets.scatter(1, places, values.gather(1, which))


@dataclass(frozen=True)
class AssociativeRecall:
    """Training on 2 to ``most`` pairs in at most ``longest`` tokens, judged in every cell of (pairs, length).

    Pairs are powers of two, drawn evenly from those reached: 2 at the start, ``most`` from half of the training on. A
    text is 4 or 8 times as long as it has pairs. A step has ``tokens`` tokens.
    """

    cells: tuple[tuple[int, int], ...]
    most: int = 16
    longest: int = 64
    tokens: int = 1024
    judged: int = 8  # texts of a cell, more where they are short
    dim: int = 32
    heads: int = 2

    @property
    def vocabulary(self) -> int:
        return FILLER + KEYS + VALUES

    def training(self, generator: torch.Generator, progress: float) -> Examples:
        stages = self.most.bit_length() - 1
        reached = min(stages, 1 + int(2 * progress * stages))
        pairs = 2 ** int(torch.randint(1, reached + 1, (), generator=generator))
        length = min(self.longest, pairs * 2 ** int(torch.randint(2, 4, (), generator=generator)))
        return recall_texts(generator, self.tokens // length, pairs, length)

    def validation(self) -> list[Examples]:
        generator = torch.Generator().manual_seed(1)
        return [
            recall_texts(generator, 32, 2**power, min(self.longest, 8 * 2**power))
            for power in range(1, self.most.bit_length())
        ]

    def judge(self, model: LanguageModel) -> dict[str, float]:
        """Accuracy by cell, called "PAIRS in LENGTH", and "bytes at LENGTH" of the state."""
        found: dict[str, float] = {}
        for pairs, length in self.cells:
            generator = torch.Generator().manual_seed(2)
            tokens, targets = recall_texts(generator, max(self.judged, 8192 // length), pairs, length)
            answers, found[f"bytes at {length}"] = read_out(model, tokens)
            found[f"{pairs} in {length}"] = float(accuracies(answers, targets).mean())
        return found
