"""Text as wide as the terminal, without a word, a name or a number broken."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence

__all__ = ["columns", "fitting", "message", "pairs", "wrapped"]

COMMANDS = ("nestlearn ", "tail ", "torchrun ", "pip ")
NARROWEST = 24  # of what stands beside a name; otherwise it goes below it


def columns() -> int:
    """Of the terminal, or of the variable COLUMNS; 80 where there is neither."""
    return shutil.get_terminal_size((80, 24)).columns


def wrapped(text: str, width: int, indent: str = "") -> str:
    """The text in lines of a width, those after the first indented."""
    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def message(text: str, width: int) -> str:
    """A message in lines of a width; a command at its end has a line of its own, however long, to be copied whole."""
    begin = min((place for word in COMMANDS if (place := text.find(f": {word}")) >= 0), default=-1)
    if begin < 0 or len(text) <= width:
        return wrapped(text, width)
    return f"{wrapped(text[: begin + 1], width)}\n  {text[begin + 2 :]}"


def pairs(words: Mapping[str, str], width: int | None = None) -> str:
    """Names and what they are, each name at the start of a line.

    >>> print(pairs({"sum": "adds up", "average": "keeps a part"}, 40))
    sum      adds up
    average  keeps a part
    """
    width = columns() if width is None else width
    wide = max(map(len, words), default=0) + 2
    beside = width - wide >= NARROWEST
    indent = " " * (wide if beside else 4)
    found = []
    for name, about in words.items():
        if beside:
            found.append(wrapped(f"{name:<{wide}}{about}", width, indent) if about else name)
        else:
            found.append(f"{name}\n{textwrap.indent(wrapped(about, width - len(indent)), indent)}".rstrip())
    return "\n".join(found)


def fitting(options: Sequence[str], room: int) -> str:
    """The first of these texts for which there is room; nothing if there is for none."""
    return next((text for text in options if len(text) <= room), "")
