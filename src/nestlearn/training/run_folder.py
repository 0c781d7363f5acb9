"""A run folder: what ``nestlearn compare`` and ``nestlearn train`` leave behind, written so that a crash never costs a
finished run.

    config.yaml        the resolved settings, ``kind: compare`` or ``kind: train`` first
    environment.json   machine, versions, threads, when it ran
    metrics.jsonl      a line for each point of each run, then one for the run itself:
                       {"kind": "train" | "validation", "run", "step", "seconds", "loss"}, {"kind": "run", ...}
    events.jsonl       a line for each look at a memory: {"run", "step", "memory", "surprise"}
    checkpoints/       of ``nestlearn train``: see ``nestlearn.training.checkpoint``
    model.json         of a language model, and perhaps tokenizer.json: see ``nestlearn.training.kept``
    results.json       the table
    systems.json       every optimizer of the table as ``nl.describe`` sees it
    report.html        the report, one file

Whole files are replaced atomically. The two ``.jsonl`` files only grow, in a comparison by all lines of a run at once,
in training line by line, and a run counts only when its ``run`` line is there. That line ends with a sha256 of itself
and of the run's rows, so a row that was lost or changed is found out. Who writes the folder holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nestlearn.errors import RunFolderError
from nestlearn.files import AppendedFile, Hold, hold, write_atomic
from nestlearn.training.results import RunResult
from nestlearn.training.run_lines import Rows, event_lines, metric_lines, read_rows

__all__ = ["RunFolder", "RunFolderError", "write_atomic"]


class RunFolder:
    """Reads and writes one run folder. Build it with ``create`` or ``open``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.environment = path / "config.yaml", path / "environment.json"
        self.metrics, self.events = path / "metrics.jsonl", path / "events.jsonl"
        self.results, self.report = path / "results.json", path / "report.html"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make the folder, or take an empty one, and make sure that it can be written, before anything is trained.

        Raises:
            RunFolderError: it cannot be made or written, or it holds another run.
        """
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder._refuse_another()
            folder.metrics.touch()
            folder.events.touch()
        except OSError as error:
            raise RunFolderError(
                f"cannot write the run folder {path}: {error.strerror or error}. Choose a writable one with --out."
            ) from error
        return folder

    def _refuse_another(self) -> None:
        if self.config.exists():
            raise RunFolderError(
                f"{self.path} already holds a run: choose another --out, or continue it with --resume {self.path}"
            )

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder; RunFolderError if it is not one."""
        folder = cls(path)
        missing = [file.name for file in (folder.config, folder.metrics) if not file.is_file()]
        if missing:
            raise RunFolderError(
                f"{path} is not a run folder: {' and '.join(missing)} not found. "
                "Expected a folder written by `nestlearn compare` or `nestlearn train`."
            )
        return folder

    def hold(self, *, new: bool = False) -> Hold:
        """Take the folder for this process alone, which alone may write it until it lets go or dies.

        Args:
            new: whether no run may be in it yet.

        Raises:
            RunFolderError: another process has it (the message names it), it cannot be written, or it holds a run.
        """
        try:
            held = hold(self.path)
        except OSError as error:
            raise RunFolderError(f"cannot write the run folder {self.path}: {error.strerror or error}") from error
        if new:
            self._refuse_another()
        return held

    @contextmanager
    def appended(self) -> Iterator[tuple[AppendedFile, AppendedFile]]:
        """The two ``.jsonl`` files, ``metrics`` and ``events``, open for lines at their ends.

        Raises:
            OSError: one is not there, or cannot be written.
        """
        with AppendedFile(self.metrics) as metrics, AppendedFile(self.events) as events:
            yield metrics, events

    def add(self, result: RunResult, files: tuple[AppendedFile, AppendedFile] | None = None) -> None:
        """Append a run: its events first, its ``run`` line last, because that line is what makes it count.

        Args:
            files: what ``appended`` gave, for who has many runs to add.

        Raises:
            RunFolderError: a file was removed, replaced or changed since ``files`` were opened.
        """
        if files is None:
            with self.appended() as files:
                return self.add(result, files)
        metrics, events = files
        for file, text in ((events, event_lines(result.key, result.surprises)), (metrics, metric_lines(result))):
            file.append(text)
            file.sync()
        return None

    def rows(self) -> Rows:
        """What the two ``.jsonl`` files hold, as far as it is whole, and what was passed over.

        Raises:
            RunFolderError: a file cannot be read.
        """
        return read_rows(self.metrics, self.events)

    def runs(self) -> tuple[dict[str, RunResult], list[str]]:
        """All finished runs by key, and notes about broken lines, which are passed over.

        Raises:
            RunFolderError: a file cannot be read.
        """
        found = self.rows()
        return found.runs, found.notes

    def compact(self, tell: Callable[[str], None] = lambda note: None) -> dict[str, RunResult]:
        """Rewrite the two ``.jsonl`` files with the finished runs alone, those whose rows are whole, and return them:
        the first act of resuming a comparison.

        Args:
            tell: called with what was passed over.
        """
        found = self.rows()
        whole = {key: result for key, result in found.runs.items() if key not in found.damaged}
        write_atomic(self.events, "".join(event_lines(result.key, result.surprises) for result in whole.values()))
        write_atomic(self.metrics, "".join(metric_lines(result) for result in whole.values()))
        for note in found.notes:
            tell(note)
        for key in found.damaged:
            tell(f"the run {key} is done again")
        return whole
