"""Expressions put together from expressions, with parentheses where they are needed.

What they may say is the language of descriptions, ``nestlearn.descriptions.language``.
"""

from nestlearn.memory.rules import in_words

__all__ = ["grouped", "in_words", "mixed", "multiple", "raised"]


def grouped(words: str, without: str = " ") -> str:
    """Words that may be multiplied: in parentheses, unless they are a name, a number, a power or a call."""
    depth = 0
    for letter in words:
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and letter in without:
            return f"({words})"
    return f"({words})" if words.startswith("-") else words


def raised(words: str, power: str) -> str:
    """words^power; the power T transposes."""
    return f"{grouped(words, ' ^')}^{power}"


def multiple(number: object, words: str) -> str:
    """number * words, or the words alone."""
    one = isinstance(number, float | int) and number == 1
    return words if one else f"{in_words(number)} * {grouped(words)}"  # type: ignore[arg-type]


def mixed(first: str, second: str, share: object) -> str:
    """(1 - share) * first + share * second."""
    number = in_words(share)  # type: ignore[arg-type]
    rest = in_words(1 - share)  # type: ignore[operator]
    return f"{rest} * {grouped(first)} + {number} * {grouped(second)}"
