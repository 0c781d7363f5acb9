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
in training line by line, and a run counts only when its ``run`` line is there; a last line cut short by a crash is
dropped and reported.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nestlearn.errors import RunFolderError
from nestlearn.training.results import Point, RunResult

__all__ = [
    "RunFolder",
    "RunFolderError",
    "event_lines",
    "point_lines",
    "read_json_lines",
    "run_line",
    "write_atomic",
]


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step: readers see the old file or the new one, never half of one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _plain(value: Any) -> Any:
    """``value`` with numbers that JSON cannot hold turned into None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_plain(record), allow_nan=False) + "\n"


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], str]:
    """All records of a ``.jsonl`` file, and a note that is empty unless the last line was cut short and left out.

    Raises:
        RunFolderError: a line other than an unfinished last one is not JSON; the message names file and line.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    unfinished = lines.pop()  # empty when the file ends with a line end, as it should
    note = f"{path.name}: the last line was cut short and is left out" if unfinished else ""
    try:
        records = json.loads(f"[{','.join(lines)}]")  # all at once takes half the time
    except json.JSONDecodeError:
        records = []
    if len(records) != len(lines):  # a line is broken: find it
        records = [_parsed(path, number, line) for number, line in enumerate(lines, start=1)]
    return records, note


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path}, line {number}: expected JSON, found {line[:60]!r} ({error.msg})") from error
    return record


def event_lines(key: str, surprises: Iterable[Sequence[Any]]) -> str:
    """Lines of ``events.jsonl`` for [step, memory, surprise] rows of the run ``key``."""
    return "".join(_line({"run": key, "step": s, "memory": m, "surprise": v}) for s, m, v in surprises)


def point_lines(kind: str, key: str, points: Iterable[Point]) -> str:
    """Lines of ``metrics.jsonl`` for points of the loss, "train" or "validation", of the run ``key``."""
    return "".join(_line({"kind": kind, "run": key, **point._asdict()}) for point in points)


def run_line(result: RunResult) -> str:
    """The line of ``metrics.jsonl`` that makes a run count."""
    return _line({"kind": "run", **result.summary()})


def _metric_lines(result: RunResult) -> str:
    points = point_lines("train", result.key, result.train) + point_lines("validation", result.key, result.curve)
    return points + run_line(result)


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
            if folder.config.exists():
                raise RunFolderError(
                    f"{path} already holds a run: choose another --out, or continue it with --resume {path}"
                )
            folder.metrics.touch()
            folder.events.touch()
        except OSError as error:
            raise RunFolderError(
                f"cannot write the run folder {path}: {error.strerror or error}. Choose a writable one with --out."
            ) from error
        return folder

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

    def add(self, result: RunResult) -> None:
        """Append a run: its events first, its ``run`` line last, because that line is what makes it count."""
        for path, text in (
            (self.events, event_lines(result.key, result.surprises)),
            (self.metrics, _metric_lines(result)),
        ):
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())

    def runs(self) -> tuple[dict[str, RunResult], list[str]]:
        """All finished runs by key, and notes about lines cut short.

        Raises:
            RunFolderError: a broken line.
        """
        metrics, note = read_json_lines(self.metrics)
        events, other = read_json_lines(self.events) if self.events.is_file() else ([], "")
        found: dict[str, RunResult] = {}
        series: dict[str, tuple[list[Point], list[Point]]] = defaultdict(lambda: ([], []))
        for number, record in enumerate(metrics, start=1):
            try:
                kind = record["kind"]
                if kind == "run":
                    found[record["key"]] = RunResult(**{k: v for k, v in record.items() if k != "kind"})
                else:
                    point = Point(record["step"], record["seconds"], record["loss"])
                    series[record["run"]][kind != "train"].append(point)
            except (KeyError, TypeError) as error:
                raise RunFolderError(f"{self.metrics}, line {number}: not a record of a run ({error})") from error
        for key, result in found.items():
            result.train.extend(series[key][0])
            result.curve.extend(series[key][1])
        for number, event in enumerate(events, start=1):
            try:
                if event["run"] in found:
                    found[event["run"]].surprises.append([event["step"], event["memory"], event["surprise"]])
            except (KeyError, TypeError) as error:
                raise RunFolderError(f"{self.events}, line {number}: not a record of a memory ({error})") from error
        return found, [text for text in (note, other) if text]

    def compact(self) -> dict[str, RunResult]:
        """Rewrite the two ``.jsonl`` files with the finished runs alone, and return them: the first act of resuming."""
        found, _ = self.runs()
        write_atomic(self.events, "".join(event_lines(result.key, result.surprises) for result in found.values()))
        write_atomic(self.metrics, "".join(_metric_lines(result) for result in found.values()))
        return found
