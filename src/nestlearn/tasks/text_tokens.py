"""A text as tokens that lie in a file: any part of it is read by place, so that only windows are ever in memory.

One plain file, byte for byte, is read where it is. Whatever has to be unpacked, joined, brought into another form or
cut into the tokens of a vocabulary is written once, token by token, below ``nestlearn/text`` in the user's cache, under
a name that follows from the paths, sizes and times of the files and from the settings: the next run finds it there.

Reading is by ``read`` calls and not by a memory map, because the user's file is not ours: one that is cut short while
it is mapped would kill the process. A file that is written to in the meantime is found out and said.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import os
import sys
import tempfile
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nestlearn.errors import DataFileError
from nestlearn.models import FileTokenizer
from nestlearn.tasks.found_files import cache_folder
from nestlearn.tasks.text_files import TextFile, text_pieces

__all__ = ["TextPart", "TextTokens", "open_text"]

LOGGER = logging.getLogger(__name__)
VERSION = 1
TOGETHER = 16  # pieces that a tokenizer is given at once, which it shares out to the cores
LENGTH = 1 << 14  # characters of such a piece
TYPES = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
CODES = {2: "H", 4: "I"}


class TextTokens:
    """Tokens in a file, each in ``width`` bytes; the file stays open as long as this object lives.

    Args:
        path: of the file.
        width: 1, 2 or 4.
        text_bytes: how many bytes the text has, of which the tokens were made; None if they are the bytes.

    Attributes:
        count: how many there are.
        tokens_a_byte: how many there are for each byte of the text.

    Raises:
        DataFileError: the file cannot be read.
    """

    def __init__(self, path: Path, width: int = 1, text_bytes: int | None = None) -> None:
        self._path, self._width = path, width
        try:
            self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise DataFileError(f"cannot read the text {path}: {error.strerror}") from error
        weakref.finalize(self, os.close, self._handle)
        self._seen = self._look()
        self.count = self._seen[0] // width
        self.tokens_a_byte = 1.0 if not text_bytes else self.count / text_bytes

    def read(self, start: int, count: int) -> Tensor:
        """The tokens from ``start`` on, [count] int64.

        Raises:
            DataFileError: the file has been changed since it was opened.
        """
        content = self._bytes(start * self._width, count * self._width)
        if len(content) < count * self._width or self._look() != self._seen:
            raise DataFileError(
                f"the text {self._path} was changed while it was read: leave it as it is, and start anew"
            )
        tokens = torch.frombuffer(content, dtype=TYPES[self._width]).long()
        return tokens & 0xFFFF if self._width == 2 else tokens  # torch reads them with a sign

    def _bytes(self, start: int, count: int) -> bytearray:
        found = bytearray()
        while len(found) < count and (more := _read_at(self._handle, count - len(found), start + len(found))):
            found += more
        return found

    def _look(self) -> tuple[int, int]:
        state = os.fstat(self._handle)
        return state.st_size, state.st_mtime_ns


def _read_at(handle: int, count: int, start: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, count, start)
    os.lseek(handle, start, os.SEEK_SET)  # Windows
    return os.read(handle, count)


@dataclass(frozen=True)
class TextPart:
    """Some pieces of a text, as if they stood one after the other.

    Attributes:
        tokens: of the whole text.
        pieces: of each the places of its first token and of the one after its last.
    """

    tokens: TextTokens
    pieces: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.pieces)

    def windows(self, starts: Tensor, length: int) -> Tensor:
        """The ``length`` tokens from each place of this part on, [len(starts), length] int64."""
        ends = list(accumulate(stop - start for start, stop in self.pieces))
        return torch.stack([torch.cat(list(self._window(ends, int(start), length))) for start in starts])

    def _window(self, ends: Sequence[int], start: int, length: int) -> Iterator[Tensor]:
        while length:
            piece = bisect_right(ends, start)
            count = min(length, ends[piece] - start)
            yield self.tokens.read(self.pieces[piece][1] - (ends[piece] - start), count)
            start, length = start + count, length - count


def open_text(
    files: Sequence[TextFile], form: str = "kept", tokenizer: FileTokenizer | None = None, sha256: str = ""
) -> TextTokens:
    """The tokens of the files in their order.

    Args:
        files: as ``find_texts`` gives them.
        form: see ``text_pieces``.
        tokenizer: of the tokens; None for bytes.
        sha256: what the bytes of the text must have, unpacked and joined, whatever its form; empty takes any.

    Raises:
        DataFileError: a file cannot be read or is damaged, the text has another sha256, or there is no room for the
            tokens.
        MissingPackageError: zst needs a package that is not installed.
    """
    if len(files) == 1 and not files[0].packed and form == "kept" and tokenizer is None:
        if sha256:
            _check(sha256, _digest(files), files)
        return TextTokens(files[0].path)
    facts = [VERSION, sys.byteorder, form, "" if tokenizer is None else tokenizer.sha256]
    key = hashlib.sha256(json.dumps([facts, [(str(f.path), f.size, f.written) for f in files]]).encode()).hexdigest()
    path = cache_folder() / "text" / f"{key[:32]}.tokens"
    made = _known(path)
    if made is None:
        LOGGER.info("reading %d files of %d bytes, once", len(files), sum(file.size for file in files))
        try:
            made = _make(path, files, form, tokenizer)
        except OSError as error:
            raise DataFileError(
                f"cannot write the tokens of the text to {path.parent}: {error.strerror}. Set XDG_CACHE_HOME to a "
                "folder that can be written and has room for them."
            ) from error
    if sha256:
        _check(sha256, made["sha256"], files)
    return TextTokens(path, made["width"], made["bytes"])


def _known(path: Path) -> dict[str, Any] | None:
    """What was made of these files before, if it is still there and whole."""
    try:
        made = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        size = path.stat().st_size
    except (OSError, ValueError):
        return None
    kinds = {"size": int, "width": int, "bytes": int, "sha256": str}
    whole = isinstance(made, dict) and all(isinstance(made.get(name), kind) for name, kind in kinds.items())
    return made if whole and made["size"] == size and made["width"] in TYPES else None


def _make(path: Path, files: Sequence[TextFile], form: str, tokenizer: FileTokenizer | None) -> dict[str, Any]:
    """Write the tokens of the files to ``path``, and what is to be known of them beside it; both appear whole."""
    digest, bytes_ = hashlib.sha256(), 0
    width = 1 if tokenizer is None else 2 if tokenizer.vocab_size <= 1 << 16 else 4
    path.parent.mkdir(parents=True, exist_ok=True)

    def counted() -> Iterator[bytes]:
        nonlocal bytes_
        for piece in text_pieces(files, form, digest.update):
            bytes_ += len(piece)
            yield piece

    with _appearing(path) as file:
        if tokenizer is None:
            file.writelines(counted())
        else:
            for tokens in _tokens(tokenizer, counted()):
                file.write(array(CODES[width], tokens).tobytes())
        size = file.tell()
    made = {"size": size, "width": width, "bytes": bytes_, "sha256": digest.hexdigest()}
    made |= {"files": [str(file.path) for file in files[:16]], "of": len(files)}
    with _appearing(path.with_suffix(".json")) as file:
        file.write(json.dumps(made, indent=1).encode())
    return made


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A new file, which is there whole or not at all, whoever else writes it at the same time."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file  # type: ignore[misc]  # a wrapper around one
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _tokens(tokenizer: FileTokenizer, pieces: Iterable[bytes]) -> Iterator[list[int]]:
    """The tokens of a text, which is cut where a line or at least a word begins: nothing is ever whole in memory."""
    together: list[str] = []
    for text in _cut(pieces):
        together.append(text)
        if len(together) == TOGETHER:
            yield from tokenizer.encode_all(together)
            together = []
    yield from tokenizer.encode_all(together)


def _cut(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder, left = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    for piece in pieces:
        left += decoder.decode(piece)
        while len(left) > LENGTH:
            word = left.rfind(" ", 1, LENGTH)
            end = left.rfind("\n", 0, LENGTH) + 1 or (word if word > 0 else LENGTH)
            yield left[:end]
            left = left[end:]
    left += decoder.decode(b"", final=True)
    if left:
        yield left


def _digest(files: Sequence[TextFile]) -> str:
    digest = hashlib.sha256()
    for _ in text_pieces(files, taken=digest.update):
        pass
    return digest.hexdigest()


def _check(expected: str, found: str, files: Sequence[TextFile]) -> None:
    if found != expected:
        names = ", ".join(str(file.path) for file in files[:3]) + (", ..." if len(files) > 3 else "")
        raise DataFileError(
            f"wrong content in {names}: expected sha256 {expected}, found {found}. Replace what is wrong, or leave "
            "sha256 out."
        )
