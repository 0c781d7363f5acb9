"""Expressions put together from expressions, with parentheses where they are needed."""

import re

from nestlearn.memory.rules import in_words

__all__ = ["grouped", "in_words", "mixed"]


def grouped(words: str) -> str:
    """Words that may be multiplied: a name, a number and a call stay as they are, anything else gets parentheses."""
    return words if re.fullmatch(r"[\w.]+|\w+\([^()]*\)", words) else f"({words})"


def mixed(first: str, second: str, share: object) -> str:
    """(1 - share) * first + share * second."""
    number = in_words(share)  # type: ignore[arg-type]
    rest = in_words(1 - share)  # type: ignore[operator]
    return f"{rest} * {grouped(first)} + {number} * {grouped(second)}"
