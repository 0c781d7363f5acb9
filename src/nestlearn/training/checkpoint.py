"""Checkpoints of a run: written whole or not at all, checked byte by byte before they are believed.

    checkpoints/seed0-step00000400-1f3a9c02d5b7e648.pt

holds plain tensors, numbers, strings, lists and dicts (``torch.load(path, weights_only=True)``). The last part of the
name is the start of the file's sha256, so a file that was cut short, changed or exchanged is found out even where
unpickling it would succeed. The newest two of each run are kept: should the newest be broken, the one before it takes
its place, and the caller is told. More may be kept to fork from; these are spread evenly over the run.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from nestlearn.errors import CheckpointError, RunFolderError
from nestlearn.files import Draft
from nestlearn.foreign import foreign, printable, reason, regular, shown

__all__ = ["CheckpointError", "Checkpoints", "load_checkpoint"]

FORMAT = {"format": "nestlearn checkpoint", "version": 1}
KEPT = 2
DIGITS = 16  # of the sha256 in the name


class Checkpoints:
    """The checkpoints of one run in ``folder``; several runs may share a folder.

    Args:
        folder: made when the first checkpoint is written.
        run: the first part of the file names, such as "seed0".
        most: how many are kept, at least two.
    """

    def __init__(self, folder: Path, run: str, most: int = KEPT) -> None:
        self.folder, self._most = folder, most
        self._run = run
        self._name = re.compile(rf"{re.escape(run)}-step(\d+)-([0-9a-f]{{{DIGITS}}})\.pt")

    def paths(self) -> list[Path]:
        """The files, newest first."""
        return [path for _, path in self._found()]

    def _found(self) -> list[tuple[int, Path]]:
        """(step, file), newest first."""
        found = [(self._name.fullmatch(path.name), path) for path in self.folder.glob(f"{self._run}-step*.pt")]
        return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)

    def at(self, step: int) -> Path | None:
        """The file of a step, if there is one."""
        return next((path for taken, path in self._found() if taken == step), None)

    def steps(self) -> list[int]:
        """The steps of which there is a file, the earliest first."""
        return sorted({taken for taken, _ in self._found()})

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Write a checkpoint, and take away those that are too many, and broken ones that a continued run has now
        reached again.

        The content is on the disk, under another name, before the name that counts appears: whatever kills the
        process, a file with such a name is whole.

        Raises:
            RunFolderError: the folder around it is gone.
            OSError: the disk is full, or the folder cannot be written.
        """
        if not self.folder.parent.is_dir():
            raise RunFolderError(f"the folder {self.folder.parent} was removed while it was being written")
        self.folder.mkdir(exist_ok=True)
        with Draft(self.folder, self._run) as draft:
            try:
                torch.save(FORMAT | {"content": content}, draft)  # type: ignore[arg-type]  # it asks for a write alone
            except RuntimeError as error:  # torch has its own words for a disk that is full
                raise draft.error or error from error
            path = self.folder / f"{self._run}-step{step:08d}-{draft.sha256.hexdigest()[:DIGITS]}.pt"
            draft.keep(path)
        others = [(taken, other) for taken, other in self._found() if other != path]
        overtaken = [other for taken, other in others if taken >= step]
        for other in overtaken + self._too_many(step, [each for each in others if each[0] < step]):
            other.unlink()
        return path

    def _too_many(self, step: int, others: list[tuple[int, Path]]) -> list[Path]:
        """Which of the files before a step, newest first, have to go: one between neighbours that are close, each
        time, never the newest, and the very first as the last of all.
        """
        found, gone = [(step, Path()), *others], []
        while len(found) > self._most:
            inner = range(2, len(found) - 1)
            at = min(inner, key=lambda i: (found[i - 1][0] - found[i + 1][0], found[i][0]), default=len(found) - 1)
            gone.append(found.pop(at)[1])
        return gone

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The content of the newest checkpoint that is whole, None if there is no checkpoint at all; and a note for
        each newer one that is broken.

        Raises:
            CheckpointError: there are checkpoints, and all of them are broken.
        """
        notes: list[str] = []
        for path in self.paths():
            try:
                content = load_checkpoint(path)
            except CheckpointError as error:
                notes.append(str(error))
                continue
            return content, [f"{note} Going on from {path.name} instead." for note in notes]
        if notes:
            raise CheckpointError(
                " ".join(notes) + f" No whole checkpoint of {self._run} is left: remove these files to start it anew."
            )
        return None, []


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of one checkpoint file, tensors on the CPU.

    Raises:
        CheckpointError: it cannot be read, is not whole, or is not ours.
    """
    with foreign(CheckpointError, f"cannot read the checkpoint {path}"):
        size = regular(path)
        digest, found = path.stem.rpartition("-")[2], _digest(path)
    if found != digest:
        raise CheckpointError(
            f"the checkpoint {path} is broken: by its name its sha256 starts with {digest}, in fact with {found}; it "
            "was cut short or changed."
        )
    expected = "Expected a checkpoint as `nestlearn train` writes it."
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > size:
                raise ValueError("it would unpack to more than it is")
        plain = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"the checkpoint {path} cannot be loaded ({reason(error)}). {expected}") from error
    format, version, content = (
        (plain.get(key) for key in ("format", "version", "content")) if isinstance(plain, dict) else (None,) * 3
    )
    if not isinstance(format, str) or format != FORMAT["format"] or "content" not in plain:
        keys = printable(", ".join(map(str, plain))) if isinstance(plain, dict) else f"a {type(plain).__name__}"
        raise CheckpointError(f"{path} is not a checkpoint of a training run, it holds {keys}. {expected}")
    if not isinstance(version, int) or version != FORMAT["version"]:
        raise CheckpointError(
            f"the checkpoint {path} has version {shown(version)}, this nestlearn reads {FORMAT['version']}."
        )
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint of a training run, it holds a {type(content).__name__}.")
    return content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
