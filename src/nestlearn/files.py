"""One way to write a file, one way to let it grow, one writer a folder.

A whole file is written under another name, brought to the disk, and then takes its name (``Draft``, ``write_atomic``):
readers see the old file or the new one. So does a folder that was not there before (``new_folder``). A file that grows
(``AppendedFile``) is looked at before each line: one that was removed, replaced or changed by others while it was
written is an error at once, not a surprise at the end. Who writes a folder holds it (``hold``) with a lock that the
system releases when the process dies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from nestlearn.errors import RunFolderError

__all__ = ["AppendedFile", "Draft", "Hold", "hold", "new_folder", "write_atomic"]

LOCK = ".lock"
LEFT = ".*.partial"  # what a process that was killed was writing
PIECE = 1 << 20


class Draft:
    """A file that is being written in ``folder`` under a name of its own; used in ``with``, gone unless ``keep`` came.

    Whatever writes to it (``torch.save`` does) may turn an error of the disk into one of its own: ``error`` has it.

    Args:
        folder: which has to be there.
        name: the first part of the unfinished file's name.

    Attributes:
        sha256: of what was written so far.
        error: the first OSError of a write, or None.
    """

    def __init__(self, folder: Path, name: str) -> None:
        handle, self._path = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=".partial")
        self._file: BinaryIO = os.fdopen(handle, "wb")
        self._kept = False
        self.sha256, self.error = hashlib.sha256(), None

    error: OSError | None

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes."""
        self.sha256.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def keep(self, path: Path) -> None:
        """Bring the content to the disk, then to the name ``path``, in the place of what was there."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.chmod(self._path, 0o644)
        os.replace(self._path, path)
        self._kept = True
        _sync(path.parent)

    def __enter__(self) -> Draft:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:  # the disk is full, which is said already
            if error is None:
                raise
        finally:
            if not self._kept:
                Path(self._path).unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by ``content`` in one step: readers see the old file or the new one, never half of one."""
    with Draft(path.parent, path.name) as draft:
        draft.write(content.encode("utf-8") if isinstance(content, str) else content)
        draft.keep(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to be filled, which takes the name ``path`` at the end of the block; nothing is left if that fails.

    Raises:
        FileExistsError: there is something of that name already, and it is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} holds something already: expected a folder that is empty or not there yet")
    path.parent.mkdir(parents=True, exist_ok=True)
    around = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
    draft = around / path.name
    draft.mkdir()  # who may look into it is for the umask to say, as with any new folder
    try:
        yield draft
        for file in (each for each in draft.rglob("*") if each.is_file()):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if path.exists() and os.name != "posix":
            path.rmdir()
        os.replace(draft, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(around, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make a rename in the folder last: on POSIX that is a matter of the folder itself."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class AppendedFile:
    """A file that this process alone appends to, line by line; close it, or use it in ``with``.

    Args:
        path: which has to be there.

    Raises:
        OSError: it is not, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self._sha256 = hashlib.sha256()
        while piece := os.read(self._file, PIECE):
            self._sha256.update(piece)
        self.length = os.fstat(self._file).st_size

    def __enter__(self) -> AppendedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def check(self) -> None:
        """Look whether the file is still the one that was opened, as long as it was left.

        Raises:
            RunFolderError: it is not.
        """
        here = os.fstat(self._file)
        try:
            there = os.stat(self.path)
        except OSError as error:
            gone = self.path if self.path.parent.is_dir() else f"the folder {self.path.parent}"
            raise RunFolderError(f"{gone} was removed while it was being written") from error
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise RunFolderError(f"{self.path} was replaced by another file while it was being written")
        if here.st_size != self.length:
            raise RunFolderError(
                f"{self.path} was changed by somebody else while it was being written: expected {self.length} bytes, "
                f"found {here.st_size}"
            )

    def append(self, text: str) -> None:
        """Append a text, or, if the disk does not take all of it, nothing.

        Raises:
            RunFolderError: as ``check``.
        """
        self.check()
        data = text.encode("utf-8")
        left = memoryview(data)
        os.lseek(self._file, self.length, os.SEEK_SET)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except BaseException:
            os.ftruncate(self._file, self.length)
            raise
        self._sha256.update(data)
        self.length += len(data)

    def sync(self) -> dict[str, int | str]:
        """Bring what was written to the disk; returns how long the file is, and its sha256.

        Raises:
            RunFolderError: as ``check``.
        """
        self.check()
        os.fsync(self._file)
        return {"length": self.length, "sha256": self._sha256.hexdigest()}

    def cut(self, length: int) -> None:
        """Take the file back to its first ``length`` bytes."""
        os.ftruncate(self._file, length)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._sha256, self.length = hashlib.sha256(), length
        while piece := os.read(self._file, PIECE):
            self._sha256.update(piece)


class Hold:
    """A folder that this process alone writes; ``release`` it, or use it in ``with``. ``note`` says what is to know."""

    def __init__(self, path: Path, handle: int, note: str = "") -> None:
        self.path, self.note, self._handle = path, note, handle

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)

    def release(self) -> None:
        """Let others write the folder."""
        if self._handle >= 0:
            lock = self.path / LOCK
            if _is(self._handle, lock):
                lock.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = -1


def hold(folder: Path) -> Hold:
    """Take the folder for this process, until it releases it or dies, and clear away what a killed one left unfinished.

    Raises:
        RunFolderError: another process has it; the message names it.
        OSError: the folder is not there, or cannot be written.
    """
    while True:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        note = ""
        try:
            _lock(handle)
        except (BlockingIOError, PermissionError) as error:
            who = os.read(handle, 200).decode("utf-8", "replace").strip()
            os.close(handle)
            raise RunFolderError(
                f"{folder} is being written by another process ({who or 'which has just begun'}): wait until it has "
                "ended, or end it first"
            ) from error
        except OSError as error:
            note = f"this file system has no locks ({error.strerror}): let no second process write {folder}"
        if _is(handle, folder / LOCK):  # else the one before has just released it, and this is no longer the file
            break
        os.close(handle)
    os.ftruncate(handle, 0)
    words = f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}"
    os.pwrite(handle, words.encode(), 0)
    for place in (folder, folder / "checkpoints"):
        for left in place.glob(LEFT):
            left.unlink(missing_ok=True)
    return Hold(folder, handle, note)


def _is(handle: int, path: Path) -> bool:
    """Whether the open file is the one that has this name."""
    try:
        here, there = os.fstat(handle), os.stat(path)
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _lock(handle: int) -> None:
    """Lock the file for this process; BlockingIOError or PermissionError if another has locked it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 1 << 20, os.SEEK_SET)  # far behind the words, which others may read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
