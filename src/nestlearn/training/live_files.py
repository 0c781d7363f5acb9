"""The two ``.jsonl`` files of a run folder while a run is under way: rows are appended and flushed as they come.

A checkpoint holds how long both files were when it was written, and their sha256. To go on from it is to cut them back
to that length first, so that no row is there twice, whatever was written after the checkpoint.
"""

from __future__ import annotations

from typing import Any

from nestlearn.files import AppendedFile
from nestlearn.foreign import shown
from nestlearn.training.loop import Training
from nestlearn.training.results import RunResult
from nestlearn.training.run_folder import RunFolder
from nestlearn.training.run_lines import event_lines, row_lines, run_line

__all__ = ["LiveFiles", "length_of"]


class LiveFiles:
    """Appends the rows of one training after another to the files of ``folder``; close it, or use it in ``with``.

    Raises:
        OSError: a file is not there, or cannot be written.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._metrics = AppendedFile(folder.metrics)
        try:
            self._events = AppendedFile(folder.events)
        except BaseException:
            self._metrics.close()
            raise
        self._files = {file.path.name: file for file in (self._metrics, self._events)}
        self._written = (0, 0, 0)

    def __enter__(self) -> LiveFiles:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def follow(self, training: Training | None) -> None:
        """Take the rows that ``training`` has now for written; of None, that there are none yet."""
        self._written = (0, 0, 0) if training is None else _lengths(training)

    def write(self, training: Training) -> bool:
        """Append the rows that came since; whether there were any.

        Raises:
            RunFolderError: a file was removed, replaced or changed meanwhile.
        """
        key, (train, curve, surprises) = training.spec.key, self._written
        if _lengths(training) == self._written:
            return False
        self._events.append(event_lines(key, training.surprises[surprises:]))
        self._metrics.append(row_lines(key, training.train[train:], training.curve[curve:]))
        self.follow(training)
        return True

    def finish(self, result: RunResult) -> None:
        """Append the line that makes a run count."""
        self._metrics.append(run_line(result))
        self.sync()

    def sync(self) -> dict[str, dict[str, Any]]:
        """Bring what was written to the disk; returns the length and the sha256 of each file."""
        return {name: file.sync() for name, file in self._files.items()}

    def cut(self, lengths: dict[str, Any]) -> None:
        """Take both files back to what they were when ``sync`` returned this."""
        for name, file in self._files.items():
            file.cut(length_of(lengths[name]))


def length_of(kept: Any) -> int:
    """The length in what a checkpoint keeps of a file; before there were digests it was all.

    Raises:
        ValueError: no file has this length.
    """
    length = kept["length"] if isinstance(kept, dict) else kept
    if not isinstance(length, int) or not 0 <= length < 1 << 63:
        raise ValueError(f"expected the length of a file, got {shown(length)}")
    return length


def _lengths(training: Training) -> tuple[int, int, int]:
    return len(training.train), len(training.curve), len(training.surprises)
