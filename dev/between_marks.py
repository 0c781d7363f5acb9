"""The parts of pages that `bash dev/docs` writes stand between two marks of a name."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["between_marks"]


def between_marks(page: str, name: str, lines: Iterable[str]) -> str:
    """The page with these lines between the marks of the name.

    Raises:
        ValueError: it has no such marks.

    Example:
        >>> page = "<!-- a: written by `bash dev/docs`. -->\\nold\\n<!-- a: as far as here. -->\\n"
        >>> print(between_marks(page, "a", ["new"]), end="")
        <!-- a: written by `bash dev/docs`. -->
        new
        <!-- a: as far as here. -->
    """
    begin, end = f"<!-- {name}: written by `bash dev/docs`. -->\n", f"<!-- {name}: as far as here. -->\n"
    place = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
    if not place.search(page):
        raise ValueError(f"expected a place for the table between {begin!r} and {end!r}")
    written = "\n".join(lines) + "\n"
    return place.sub(lambda _: written, page)
