"""Names for many modules of one kind: 'blocks.0.query' and 'blocks.1.query' are 'blocks.*.query'."""

import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["join", "pattern", "row_names"]

STAR = "*"


def pattern(path: str) -> str:
    """'blocks.0.query' -> 'blocks.*.query': what layers of one kind have in common."""
    return re.sub(r"(?<![^.])\d+(?![^.])", STAR, path)


def join(*parts: str) -> str:
    """Parts of a path that may be empty."""
    return ".".join(filter(None, parts))


def row_names(rows: Sequence[Sequence[str]]) -> list[str]:
    """A name for each row of paths, which differ in numbers alone: a star where they do, or where two rows would have
    the same name, the numbers.
    """
    names = [_common(paths, STAR) for paths in rows]
    often = Counter(names)
    return [_common(paths) if often[name] > 1 else name for name, paths in zip(names, rows, strict=True)]


def _common(paths: Sequence[str], star: str = "") -> str:
    columns = zip(*(path.split(".") for path in paths), strict=True)
    return ".".join(parts[0] if len(set(parts)) == 1 else star or ",".join(dict.fromkeys(parts)) for parts in columns)
