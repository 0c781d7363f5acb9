"""A tiny pretrained model with a continuum, and a tokenizer of bytes and a few pairs, for tests that read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from needed import needs
from tiny_llama import tiny_llama

import nestlearn as nl

__all__ = ["PERIOD", "TEXT", "folder", "stacked", "tokenizer"]

PERIOD = 4
TEXT = "Für sieben Jahre, four score — für sieben Jahre — and seven years 🐋."


def tokenizer() -> Any:
    """Every byte is a token, so that letters are made up of several, and so are the pairs that the text has most.

    As many do, it begins what it encodes with a token of its own.
    """
    needs("transformers", "tokenizers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    known = {"initial_alphabet": alphabet, "special_tokens": ["<s>"]}
    trainer = trainers.BpeTrainer(vocab_size=280, show_progress=False, min_frequency=2, **known)
    library.train_from_iterator([TEXT, "four score and seven years"], trainer)
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=library, bos_token="<s>")


def stacked(**settings: Any) -> Any:
    """A model in float64 whose continuum writes its last two blocks."""
    model = tiny_llama(vocab_size=300)
    nl.models.add_continuum(model, **{"periods": PERIOD, "inner_lr": 0.02, "blocks": 2, **settings})
    return model


def folder(path: Path, **settings: Any) -> Path:
    """The same as a folder."""
    stacked(**settings).continuum.save_pretrained(path, tokenizer())
    return path
