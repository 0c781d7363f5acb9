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

KNOWN = 64
"""Bytes before the end of what was read by which a file is known again."""


class Tail:
    """The lines of ``path``, each as an object.

    Attributes:
        generation: grows where the file became another one: what was read before counts no more.
        note: why something was passed over, if anything was.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.generation, self.note = path, 0, ""
        self._inode: tuple[int, int] | None = None
        self._looked: tuple[int, int] | None = None
        self._offset, self._rest, self._last = 0, b"", b""

    def changed(self) -> bool:
        """Whether the file is another one than was read, or was cut back; then ``new`` begins at its start.

        One that was cut back may be as long again when it is looked at next: what was read last tells it.
        """
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        inode, looked = (found.st_dev, found.st_ino), (found.st_size, found.st_mtime_ns)
        if self._inode is None:
            self._inode = inode
        same = inode == self._inode and found.st_size >= self._offset
        if same and (looked == self._looked or self._known()):
            self._looked = looked
            return False
        self._inode, self._looked, self.note = inode, looked, ""
        self._offset, self._rest, self._last = 0, b"", b""
        self.generation += 1
        return True

    def _known(self) -> bool:
        """Whether what was read last is there still."""
        if not self._last:
            return True
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset - len(self._last))
                return file.read(len(self._last)) == self._last
        except OSError:
            return True  # what comes next will say so

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
                found = os.fstat(file.fileno())
                if self._inode not in (None, (found.st_dev, found.st_ino)):
                    return b""  # it was replaced a moment ago, which ``changed`` will find
                file.seek(self._offset)
                piece = file.read(PIECE)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.note = f"{self.path.name}: {reason(error)}"
            return b""
        self._offset += len(piece)
        self._last = (self._last + piece)[-KNOWN:]
        return piece
