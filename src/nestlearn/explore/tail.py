"""A file of JSON lines that grows while it is read: only what is new is read again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nestlearn.foreign import parse_json, reason, regular

__all__ = ["Tail"]

PIECE = 1 << 20
MOST_LINE = 1 << 20
MOST = 1 << 28
"""Bytes of a file that are read, at most."""


class Tail:
    """The lines of ``path``, each as an object.

    Attributes:
        generation: grows where the file became another one: what was read before counts no more.
        note: why something was passed over, if anything was.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.generation, self.note = path, 0, ""
        self._inode: tuple[int, int] | None = None
        self._offset, self._rest = 0, b""

    def changed(self) -> bool:
        """Whether the file is another one than the one that was read; then ``new`` begins at its start."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        inode = (found.st_dev, found.st_ino)
        if self._inode is None:
            self._inode = inode
        if inode == self._inode and found.st_size >= self._offset:
            return False
        self._inode, self._offset, self._rest = inode, 0, b""
        self.generation += 1
        return True

    def new(self) -> Iterator[dict[str, Any]]:
        """The objects of the whole lines that came since the last call; what is none is passed over, with a note."""
        while piece := self._read():
            *lines, self._rest = (self._rest + piece).split(b"\n")
            if len(self._rest) > MOST_LINE:
                self.note, self._rest = f"{self.path.name}: a line is longer than {MOST_LINE:,} bytes", b""
            for line in lines:
                try:
                    found = parse_json(line)
                except (ValueError, RecursionError, MemoryError) as error:
                    self.note = f"{self.path.name}: a line is no JSON ({reason(error)})"
                    continue
                if isinstance(found, dict):
                    yield found

    def _read(self) -> bytes:
        if self._offset >= MOST:
            self.note = f"{self.path.name}: only the first {MOST:,} bytes are shown"
            return b""
        try:
            if regular(self.path) <= self._offset:
                return b""
            with self.path.open("rb") as file:
                file.seek(self._offset)
                piece = file.read(PIECE)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.note = f"{self.path.name}: {reason(error)}"
            return b""
        self._offset += len(piece)
        return piece
