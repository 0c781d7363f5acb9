"""What a model says, as text that only says: control characters, which a terminal would obey, are written out.

A model of bytes may answer with any of them, among them those that change the title, the clipboard or the colours of a
terminal, and those that turn the direction of what follows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["Until", "visible"]

KEPT = "\n\t\u200c\u200d"  # lines, and what joins or parts letters
SPACES = "Zs"


def visible(text: str) -> str:
    r"""The text with control characters written out, as ``\x1b``; lines and tabs stay.

    >>> print(visible("red: \x1b[31m"))
    red: \x1b[31m
    """
    return "".join(letter if _is_plain(letter) else ascii(letter)[1:-1] for letter in text)


def _is_plain(letter: str) -> bool:
    return letter.isprintable() or letter in KEPT or unicodedata.category(letter) == SPACES


class Until:
    """A text as it comes, up to the first of some texts that end it; that one is not a part of it.

    Args:
        stops: the texts.
        skip: leave out what is only space before anything was said, lest an answer be empty.
    """

    def __init__(self, stops: Sequence[str], skip: bool = False) -> None:
        self._stops, self._skip, self._held = tuple(stops), skip, ""
        self.ended = False

    def push(self, text: str) -> str:
        """What can be said for sure after this piece: an end that may have begun is held back."""
        if self.ended:
            return ""
        self._held += text
        if self._skip:
            self._held = self._held.lstrip()
            self._skip = not self._held
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.ended = True
            said, self._held = self._held[: min(places)], ""
            return said
        begun = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        said, self._held = self._held[: len(self._held) - begun], self._held[len(self._held) - begun :]
        return said

    def rest(self) -> str:
        """What was held back, when nothing more comes."""
        said, self._held = self._held, ""
        return said


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of the text are the first ones of ``stop``."""
    return next((count for count in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:count])), 0)
