"""The model and the texts: SmolLM2-135M and Moby-Dick from a folder of yours, or a random Llama that reads bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestlearn.tasks.data import speeches

__all__ = ["Source", "small", "smollm2"]

FOLDER = "NESTLEARN_SMOLLM2"
OTHER = 60_000
"""Bytes of speeches that settings are chosen on."""


@dataclass(frozen=True)
class Source:
    """A model, what makes tokens [1, time] of a text, the text that it is judged on and the one it is tuned on."""

    model: Any
    tokenize: Any
    book: str
    other: str

    def to(self, device: str) -> Source:
        """The same where ``device`` is."""
        return Source(self.model.to(device), lambda words: self.tokenize(words).to(device), self.book, self.other)


def _other() -> str:
    return bytes(speeches()["validation"][:OTHER].tolist()).decode("utf-8", "ignore")


def small() -> Source:
    """A random Llama of three blocks that reads bytes, on the speeches alone: for the way to the tables."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_key_value_heads=1, **sizes)).eval().requires_grad_(False)
    text = _other()
    return Source(model, lambda words: torch.tensor([list(words.encode())]), text[20_000:], text[:20_000])


def smollm2() -> Source:
    """SmolLM2-135M-Instruct and Moby-Dick, from the folder that README.md says how to make.

    Raises:
        FileNotFoundError: there is none.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(os.environ.get(FOLDER, "smollm2"))
    if not (folder / "moby-dick.txt").is_file():
        raise FileNotFoundError(
            f"expected SmolLM2 and moby-dick.txt in {folder}: README.md here says how to make the folder, "
            f"and ${FOLDER} where it is"
        )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def tokenize(words: str) -> Tensor:
        return torch.tensor([tokenizer(words, add_special_tokens=False).input_ids])

    return Source(model, tokenize, (folder / "moby-dick.txt").read_text(encoding="utf-8"), _other())
