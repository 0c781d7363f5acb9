"""Text files of one's own: which ones are meant, and their bytes, unpacked and joined, piece by piece.

A name means a file, all files in a folder and below it, or those that a pattern such as ``letters/*.txt`` finds; a name
may begin in the folder that NESTLEARN_DATA names. Files that end in ``.gz``, ``.bz2``, ``.xz`` or ``.zst`` are
unpacked. Any bytes are a text. Nothing here holds more of one than a piece.
"""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nestlearn.errors import DataFileError, MissingPackageError
from nestlearn.tasks.found_files import VARIABLE

__all__ = ["FORMS", "SEPARATOR", "TextFile", "find_texts", "text_pieces"]

PIECE = 1 << 20  # bytes that are read at once
SEPARATOR = b"\n\n"  # between two files
FORMS = ("kept", "unix")
MARKS = MappingProxyType(  # the longer ones first: that of UTF-32 begins as that of UTF-16 does
    {
        codecs.BOM_UTF8: "utf-8",
        codecs.BOM_UTF32_LE: "utf-32-le",
        codecs.BOM_UTF32_BE: "utf-32-be",
        codecs.BOM_UTF16_LE: "utf-16-le",
        codecs.BOM_UTF16_BE: "utf-16-be",
    }
)


@dataclass(frozen=True)
class TextFile:
    """A file as it was found: its path, its size in bytes, and when it was written, in nanoseconds."""

    path: Path
    size: int
    written: int

    @property
    def packed(self) -> bool:
        """Whether it has to be unpacked, as its name says."""
        return self.path.suffix.lower() in UNPACKERS


def find_texts(given: str | Sequence[str]) -> list[TextFile]:
    """The files that a name, or several, mean: those of each in the order of their paths, each file once.

    Raises:
        ValueError: no name, or something that is none.
        DataFileError: nothing is there, or it cannot be read.
    """
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f"expected files for the task text, got {given if given else 'none'}: name a file, a folder, a pattern "
            "such as letters/*.txt, or a list of these, with the field files, as in task.files=letters.txt"
        )
    found: dict[Path, TextFile] = {}
    for name in names:
        for path in _meant(name):
            found.setdefault(path, _seen(path))
    return list(found.values())


def _meant(name: str) -> list[Path]:
    """The files behind one name."""
    folder = os.environ.get(VARIABLE)
    places = [Path(name).expanduser(), *([Path(folder) / name] if folder else [])]
    for path in places:
        if path.is_file():
            return [path.resolve()]
        if path.is_dir():
            return _below(path.resolve())
        if path.exists():
            raise DataFileError(f"expected a file or a folder for the text, got {path}, which is neither")
        if glob.has_magic(name):
            matches = sorted(Path(match).resolve() for match in glob.glob(str(path), recursive=True))
            if files := [match for match in matches if match.is_file()]:
                return files
    looked = " and ".join(str(path) for path in places)
    several = f" Several files are a list: [{', '.join(name.split(','))}]." if "," in name else ""
    raise DataFileError(
        f"cannot find the text {name}: looked at {looked}. Name an existing file, folder or pattern, or set {VARIABLE} "
        f"to the folder that holds it.{several}"
    )


def _below(folder: Path) -> list[Path]:
    """All files in a folder and below, but for hidden ones; links to folders are not followed."""

    def refused(error: OSError) -> None:
        raise DataFileError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    found: list[Path] = []
    for where, folders, files in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(where) / name for name in files if not name.startswith(".")]
    found = sorted(path.resolve() for path in found if path.is_file())
    if not found:
        raise DataFileError(f"expected files in the folder {folder} and below, found none that is not hidden")
    return found


def _seen(path: Path) -> TextFile:
    with _said(path):
        found = path.stat()
        path.open("rb").close()
    return TextFile(path, found.st_size, found.st_mtime_ns)


def text_pieces(
    files: Iterable[TextFile], form: str = FORMS[0], taken: Callable[[bytes], object] = lambda piece: None
) -> Iterator[bytes]:
    """The bytes of the files, unpacked, two line ends between one file and the next, piece by piece.

    Args:
        files: in the order of the text; empty ones are left out.
        form: ``"kept"`` is byte for byte; ``"unix"`` takes a byte order mark off the start of a file, turns a file
            with that of UTF-16 or UTF-32 into UTF-8, and CRLF and CR into LF.
        taken: called with every piece as it was before ``form`` changed it.

    Raises:
        DataFileError: a file cannot be read, or is damaged.
        MissingPackageError: zst needs a package that is not installed.
    """
    begun = False
    for file in files:
        raw = _unpacked(file.path)
        first = next(raw, b"")
        if not first:
            continue
        if begun:
            taken(SEPARATOR)
            yield SEPARATOR
        begun = True
        told = _told(chain([first], raw), taken)
        yield from told if form == FORMS[0] else _as_unix(told)


def _told(pieces: Iterable[bytes], taken: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        taken(piece)
        yield piece


def _unpacked(path: Path) -> Iterator[bytes]:
    with _said(path), UNPACKERS.get(path.suffix.lower(), Path.open)(path, "rb") as stream:
        while piece := stream.read(PIECE):
            yield piece


def _as_unix(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of one file in UTF-8 if its mark says what it is, without the mark, every line end one LF."""
    head = next(pieces)
    while len(head) < 4 and (more := next(pieces, b"")):
        head += more
    mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
    rest = chain([head[len(mark) :]], pieces)
    held = b""
    for piece in rest if MARKS.get(mark, "utf-8") == "utf-8" else _as_utf8(rest, MARKS[mark]):
        piece = held + piece
        held = b"\r" if piece.endswith(b"\r") else b""  # the next piece may begin with its LF
        yield piece[: len(piece) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if held:
        yield b"\n"


def _as_utf8(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", errors="replace")
    yield decoder.decode(b"", final=True).encode("utf-8", errors="replace")


def _open_zst(path: Path, mode: str) -> Any:
    try:
        return _zst().open(path, mode)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'reading {path} needs {error.name}, which is not installed: pip install "nestlearn[zst]"', name=error.name
        ) from error


def _zst() -> Any:
    """Python's own module, or for a Python before 3.14 the package that has it."""
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


UNPACKERS: Mapping[str, Callable[[Path, str], Any]] = MappingProxyType(
    {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zst}
)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """A block that reads a file: whatever is wrong with it is a DataFileError with its name."""
    try:
        yield
    except (MissingPackageError, DataFileError):
        raise
    except OSError as error:
        if error.errno is None:  # what gzip and bz2 say of a damaged file
            raise DataFileError(_damaged(path, error)) from error
        raise DataFileError(f"cannot read the text {path}: {error.strerror}") from error
    except Exception as error:
        if not isinstance(error, EOFError | zlib.error | lzma.LZMAError) and type(error).__name__ != "ZstdError":
            raise
        raise DataFileError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"cannot unpack the text {path}, which is damaged or no {path.suffix} file: {reason}"
