"""Data files that are too large to ship: found on this machine, or else downloaded once.

A file ``name.gz`` of the data set ``collection`` is looked for, in this order, as

1. ``$NESTLEARN_DATA/collection/name.gz`` or ``$NESTLEARN_DATA/name.gz``, if that variable is set,
2. ``folder/name.gz``, where a package of the system puts it,
3. ``$XDG_CACHE_HOME/nestlearn/collection/name.gz`` (``~/.cache`` if that variable is not set),

in each place also unpacked, without ``.gz``. If it is nowhere it is downloaded over https into the third place, and
appears there complete or not at all. The sha256 is that of the *unpacked* content, because the same data are around
packed in different ways; a file with another content is an error, wherever it was found.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nestlearn.tasks.data_file import DataFile, DataFileError

__all__ = ["VARIABLE", "FoundFile", "cache_folder"]

VARIABLE = "NESTLEARN_DATA"
TIMEOUT = 30.0  # seconds without an answer
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundFile(DataFile):
    """A gzip file that is found or downloaded; ``sha256`` is that of its unpacked content.

    Attributes:
        collection: the data set's name, that of its folder in ``NESTLEARN_DATA`` and in the cache.
        folder: where a package of the system puts the file.
        package: the name of that package, for messages.
        mirrors: folders on the net, tried in this order.
    """

    collection: str
    folder: Path
    package: str
    mirrors: tuple[str, ...]

    def read(self) -> bytes:
        """The unpacked content, checked.

        Raises:
            DataFileError: the file is nowhere and cannot be downloaded, or it has another content. The message names
                the file, the expected and the found hash, and the three ways to get the data.
        """
        for path in self._places():
            if path.is_file():
                try:
                    packed = path.read_bytes()
                except OSError as error:
                    raise DataFileError(f"cannot read {path}: {error.strerror}. {self._ways()}") from error
                return self._checked(path, packed)
        return self._download()

    def _places(self) -> Iterator[Path]:
        given = os.environ.get(VARIABLE)
        folders = [self.folder, cache_folder() / self.collection]
        if given:
            if not Path(given).is_dir():
                raise DataFileError(f"{VARIABLE} is {given!r}, which is no folder. {self._ways()}")
            folders = [Path(given) / self.collection, Path(given), *folders]
        for folder in folders:
            yield folder / self.name
            yield folder / self.name.removesuffix(".gz")

    def _checked(self, where: Path | str, packed: bytes) -> bytes:
        """The unpacked content of ``packed``, after its sha256 has been checked."""
        try:
            content = gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
        except (OSError, EOFError, zlib.error) as error:
            raise DataFileError(f"{where} is damaged ({error}): delete it. {self._ways()}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise DataFileError(
                f"wrong content in {where}: expected sha256 {self.sha256} (unpacked), found {found}. "
                f"Delete or replace it. {self._ways()}"
            )
        return content

    def _download(self) -> bytes:
        import urllib.request  # with http and ssl; a report names these files too, and reads none

        failures = []
        for mirror in self.mirrors:
            address = f"{mirror}/{self.name}"
            LOGGER.info("downloading %s", address)
            try:
                with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
                    packed: bytes = answer.read()
                content = self._checked(address, packed)
            except (OSError, DataFileError) as error:  # URLError and timeouts are OSErrors
                failures.append(f"{address}: {error}")
                continue
            path = cache_folder() / self.collection / self.name
            try:
                _write(path, packed)
            except OSError as error:
                raise DataFileError(f"cannot write {path}: {error.strerror}. {self._ways()}") from error
            return content
        raise DataFileError(
            f"cannot find or download {self.name}, whose unpacked sha256 is {self.sha256}. {self._ways()} "
            f"Tried: {'; '.join(failures)}"
        )

    def _ways(self) -> str:
        return (
            f"There are three ways to get the data: set {VARIABLE} to a folder with {self.collection}/{self.name} in "
            f"it; install the Debian package {self.package}; or go online, and they are downloaded to "
            f"{cache_folder() / self.collection}."
        )


def cache_folder() -> Path:
    """Where what was downloaded, or made once, lies: ``$XDG_CACHE_HOME/nestlearn``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nestlearn"


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whoever else writes it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
