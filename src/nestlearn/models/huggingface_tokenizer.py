"""The vocabularies of this library as tokenizers of transformers, saved as one ``tokenizer.json``."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from nestlearn.errors import MissingPackageError
from nestlearn.models.tokenizer import load_tokenizer

__all__ = ["tokenizer_of"]


def tokenizer_of(path: str | Path | None = None, **settings: Any) -> Any:
    """A ``PreTrainedTokenizerFast`` whose tokens are those of `nestlearn.models.load_tokenizer`.

    Bytes, which None stands for, end with and are filled up with byte 0, which is in no text. A file is filled up with
    what ``pad_token`` names. Nothing is put before or behind a text, as it was while the model learned.

    Args:
        path: a ``tokenizer.json``, or None for the 256 bytes of UTF-8.
        **settings: of the tokenizer, ``eos_token`` for one.

    Raises:
        ValueError: the file cannot be read.
        MissingPackageError: transformers is not installed.

    Example:
        >>> words = tokenizer_of()
        >>> words("Tür")["input_ids"]
        [84, 195, 188, 114]
        >>> words.decode([84, 195, 188, 114])
        'Tür'
    """
    try:
        transformers, tokenizers = import_module("transformers"), import_module("tokenizers")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            'a tokenizer of transformers needs transformers: pip install "nestlearn[hf]"', name=error.name
        ) from error
    if path is None:
        library = _bytes(tokenizers)
        # Its name is a letter too, and as such a letter it is to be read.
        nothing = _letters()[0]
        settings = {"pad_token": nothing, "eos_token": nothing, "split_special_tokens": True, **settings}
    else:
        load_tokenizer(path)  # says what is wrong with a file, if anything is
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        library = tokenizers.Tokenizer.from_str(json.dumps({**content, "post_processor": None}))
    settings = {"clean_up_tokenization_spaces": False, **settings}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=library, **settings)


def _bytes(tokenizers: Any) -> Any:
    """Every byte a token: pairs are never joined, since none are named."""
    vocabulary = {letter: number for number, letter in enumerate(_letters())}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    return library


def _letters() -> list[str]:
    """The letter for each byte that ByteLevel of tokenizers writes: itself if it can be seen, else one from 256 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + hidden.index(byte)) for byte in range(256)]
