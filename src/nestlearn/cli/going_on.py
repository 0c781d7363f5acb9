"""How far a command got that was ended, and the command that goes on from there, as a line says it."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator
from typing import Any

from nestlearn.models import ByteTokenizer, Tokenizer

__all__ = ["STDIN", "Prompt", "encoded"]

STDIN = "-"
PIECE = 1 << 16  # bytes of the standard input that are read at once
LONGEST = 1000  # characters of a prompt that a command repeats


class Prompt:
    """A text to be read, from the command line or from the standard input, which may be a file.

    Args:
        text: of the command line, or ``-`` for the standard input.
        words: what makes tokens of it.
    """

    def __init__(self, text: str, words: Tokenizer) -> None:
        self.text, self.words = text, words
        self._begun, self._file = _place() if text == STDIN else (0, "")
        self._whole = ""
        self._tokens: list[int] = []

    def pieces(self) -> Iterator[list[int]]:
        """Its tokens; bytes from the standard input are read bit by bit, however many there are."""
        if self.text == STDIN and isinstance(self.words, ByteTokenizer):
            source: Any = sys.stdin.buffer
            while piece := source.read1(PIECE):
                yield list(piece)
            return
        given = sys.stdin.buffer.read().decode("utf-8", errors="replace") if self.text == STDIN else encoded(self.text)
        self._whole, self._tokens = given, self.words.encode(given)
        yield self._tokens

    def how_far(self, tokens: int) -> str:
        """How much of it was read, in words."""
        unit = "bytes" if isinstance(self.words, ByteTokenizer) else "tokens"
        return f"read {tokens:,} {unit} of the prompt"

    def rest(self, tokens: int) -> tuple[str, str]:
        """What hands over all but the first ``tokens``: a command to put in front, and the prompt after it.

        FILE stands for a file with the text where it came through a pipe, or cannot be said in a line; REST for what is
        left of it where the tokenizer does not say where that begins.
        """
        at = self._bytes(tokens)
        if at is None:
            return "", "REST"
        left = "" if self.text == STDIN else os.fsdecode(os.fsencode(self.text)[at:])
        if left not in ("", STDIN) and left.isprintable() and len(left) <= LONGEST:
            return "", left
        file = shlex.quote(self._file) if self._file else "FILE"
        return f"tail -c +{self._begun + at + 1} {file} | ", STDIN

    def _bytes(self, tokens: int) -> int | None:
        """How many bytes so many tokens are; None where the tokenizer does not give back what it was given."""
        if isinstance(self.words, ByteTokenizer) or not tokens:
            return tokens
        text = self.words.decode(self._tokens[:tokens])
        return len(text.encode()) if self._whole.startswith(text) and "\ufffd" not in text else None


def encoded(prompt: str) -> str:
    """A text of the command line as the UTF-8 that it is, whatever the locale; other bytes are as Python keeps them."""
    return os.fsencode(prompt).decode("utf-8", errors="surrogateescape")


def _place() -> tuple[int, str]:
    """Where the standard input stands, and the file that it is; "" for a pipe, or where the system does not say it."""
    try:
        handle = sys.stdin.fileno()
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return 0, ""
        return os.lseek(handle, 0, os.SEEK_CUR), os.readlink(f"/proc/self/fd/{handle}")
    except (OSError, ValueError, AttributeError):
        return 0, ""
