"""From text to tokens and back: bytes, or any tokenizers file.

A tokenizer is whatever has ``vocab_size``, ``encode`` and ``decode``; nothing else of it is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from nestlearn.errors import MissingPackageError
from nestlearn.foreign import reason, regular

__all__ = ["ByteTokenizer", "FileTokenizer", "TextStream", "Tokenizer", "load_tokenizer"]

REPLACEMENT = "\ufffd"
WAIT = 8
MOST = 1 << 28  # bytes of a vocabulary


class Tokenizer(Protocol):
    """What generation needs to know of a vocabulary."""

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; what cannot be read yet, such as half a character, is a replacement character."""


class ByteTokenizer:
    """Every byte of UTF-8 is a token. What Python keeps of other bytes (``surrogateescape``) is these bytes again.

    Numbers that are no bytes are replacement characters.
    """

    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        try:
            return list(text.encode("utf-8", errors="surrogateescape"))
        except UnicodeEncodeError:  # other halves of a character than those that stand for bytes
            return list(text.encode("utf-8", errors="surrogatepass"))

    def decode(self, tokens: Sequence[int]) -> str:
        # 0xFF is in no UTF-8, so one that is no byte is replaced by itself, whatever stands beside it.
        known = bytes(token if 0 <= token < 256 else 0xFF for token in tokens)
        return known.decode("utf-8", errors="replace")


class FileTokenizer:
    """A ``tokenizer.json`` of the tokenizers library. Numbers that it does not have are replacement characters.

    Args:
        path: the file.

    Attributes:
        vocab_size: one more than the largest of its numbers, of which some may have no token.
        sha256: of the file.

    Raises:
        ValueError: it cannot be read.
        MissingPackageError: tokenizers is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            from tokenizers import Tokenizer as Library
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f'reading {path} needs tokenizers, which is not installed: pip install "nestlearn[tokenizers]"',
                name=error.name,
            ) from error
        try:
            if regular(path) > MOST:
                raise ValueError(f"expected at most {MOST:,} bytes")
            content = Path(path).read_bytes()
            self._library: Any = Library.from_str(content.decode("utf-8"))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises nothing more precise, and a panic is no Exception
            raise ValueError(f"cannot read the tokenizer {path}: {reason(error)}") from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._known = frozenset(self._library.get_vocab(with_added_tokens=True).values())
        self.vocab_size = max(self._known, default=-1) + 1

    def encode(self, text: str) -> list[int]:
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of many texts, shared out to the cores."""
        return [found.ids for found in self._library.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, tokens: Sequence[int]) -> str:
        parts = []
        for known, group in groupby(tokens, self._known.__contains__):
            part = list(group)
            parts.append(
                str(self._library.decode(part, skip_special_tokens=False)) if known else REPLACEMENT * len(part)
            )
        return "".join(parts)


def load_tokenizer(path: str | Path | None) -> Tokenizer:
    """The tokenizer in a file, or bytes for None."""
    return ByteTokenizer() if path is None else FileTokenizer(path)


class TextStream:
    """Text as tokens come: a character of several tokens waits for the last of them.

    Args:
        tokenizer: what the tokens mean.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: list[int] = []  # already shown, kept because a word may begin with a space only after another
        self._new: list[int] = []

    def push(self, token: int) -> str:
        """What can be shown after this token, perhaps nothing."""
        self._new.append(token)
        # No character has more than four bytes: what cannot be read after eight tokens never will be.
        return self._show() if not self._text().endswith(REPLACEMENT) or len(self._new) >= WAIT else ""

    def rest(self) -> str:
        """What is left at the end, replacement characters for half characters."""
        return self._show() if self._new else ""

    def _text(self) -> str:
        before = self._tokenizer.decode(self._known)
        return self._tokenizer.decode(self._known + self._new)[len(before) :]

    def _show(self) -> str:
        text = self._text()
        self._known, self._new = self._new, []
        return text
