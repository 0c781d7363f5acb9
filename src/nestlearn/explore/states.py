"""The files of saved states: who reads a text writes them, and the server lists them."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice
from pathlib import Path

__all__ = ["NAME", "SUFFIX", "saved"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}")
SUFFIX = ".safetensors"
MOST = 5000


def saved(folder: Path) -> list[str]:
    """The names of the states in a folder; none where there is no such folder."""
    with suppress(OSError):
        paths = islice(folder.iterdir(), MOST)
        return sorted(path.stem for path in paths if path.suffix == SUFFIX and NAME.fullmatch(path.stem))
    return []
