"""The two ``.jsonl`` files of a run folder while a run is under way: rows are appended and flushed as they come.

A checkpoint holds how long both files were when it was written. To go on from it is to cut them back to that length
first, so that no row is there twice, whatever was written after the checkpoint.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import BinaryIO

from nestlearn.training.loop import Training
from nestlearn.training.results import RunResult
from nestlearn.training.run_folder import RunFolder, RunFolderError, event_lines, point_lines, read_json_lines, run_line

__all__ = ["LiveFiles"]


class LiveFiles:
    """Appends the rows of one training after another to the files of ``folder``; close it, or use it in ``with``."""

    def __init__(self, folder: RunFolder) -> None:
        self._files: dict[str, BinaryIO] = {
            path.name: path.open("ab", buffering=0) for path in (folder.metrics, folder.events)
        }
        self._metrics, self._events = self._files[folder.metrics.name], self._files[folder.events.name]
        self._folder = folder
        self._written = (0, 0, 0)

    def __enter__(self) -> LiveFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def follow(self, training: Training) -> None:
        """Take the rows that ``training`` has now for written."""
        self._written = len(training.train), len(training.curve), len(training.surprises)

    def write(self, training: Training) -> bool:
        """Append the rows that came since; whether there were any."""
        key, (train, curve, surprises) = training.spec.key, self._written
        if (len(training.train), len(training.curve), len(training.surprises)) == self._written:
            return False
        self._events.write(event_lines(key, training.surprises[surprises:]).encode())
        points = point_lines("train", key, training.train[train:])
        points += point_lines("validation", key, training.curve[curve:])
        self._metrics.write(points.encode())
        self.follow(training)
        return True

    def holds(self, key: str) -> bool:
        """Whether a row of the run ``key`` is there."""
        return any(record.get("run") == key for record in read_json_lines(self._folder.metrics)[0])

    def finish(self, result: RunResult) -> None:
        """Append the line that makes a run count."""
        self._metrics.write(run_line(result).encode())
        self.sync()

    def sync(self) -> dict[str, int]:
        """Bring what was written to the disk; returns the length of each file."""
        for file in self._files.values():
            os.fsync(file.fileno())
        return {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}

    def cut(self, lengths: dict[str, int]) -> None:
        """Take both files back to these lengths.

        Raises:
            RunFolderError: a file is shorter than that, so rows of before the checkpoint are lost.
        """
        for name, length in lengths.items():
            found = os.fstat(self._files[name].fileno()).st_size
            if found < length:
                raise RunFolderError(
                    f"{self._folder.path / name} has {found} bytes, but had {length} when the checkpoint was written: "
                    "rows are missing, so the run cannot be continued here."
                )
            self._files[name].truncate(length)
