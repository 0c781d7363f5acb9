"""A record: the folder that `nestlearn.record` fills, and that ``nestlearn explore`` shows while it grows.

    record.json     {"kind": "record", "format": 1, "run", "optimizer", "started", "systems": as `nl.describe` has them}
    writes.jsonl    {"lanes": [{"name", "level", "memory", "role", "period", "parameters", "part", "along"}, ...]},
                    which is said again when they change, and between a line for each step that was looked at, its
                    numbers by lanes: {"step", "seconds", "surprise": [...], "update": [...]}
    metrics.jsonl   the losses, as in the run folder of ``nestlearn train``
    frozen/N.json   the memories at step N, for which see `nestlearn.integrations.frozen`

Whole files are replaced atomically, the two ``.jsonl`` files grow by lines. All is bounded: where ``writes.jsonl`` has
become too long every second of its steps is left out, and so on for the frozen ones, so that a long run is a coarse
one from its start to its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nestlearn.errors import RunFolderError
from nestlearn.files import AppendedFile, hold, write_atomic
from nestlearn.foreign import finite

__all__ = ["FORMAT", "RecordFolder"]

FORMAT = 1
FROZEN_MOST = 64
"""Frozen steps that are kept."""

HEAD = '{"lanes"'
"""How the lines begin that say which lanes there are."""

LEAST = 1 << 12
"""Bytes that a record needs at least, to be one."""


class RecordFolder:
    """Writes one record; close it, or use it in ``with``.

    Args:
        path: the folder, made where it is not there. A record in it is continued.
        run: what the run is called.
        about: what ``record.json`` says besides.
        start: after how many steps it goes on; what was recorded later is taken back.
        most: bytes that ``writes.jsonl`` has at most, and ``metrics.jsonl``.

    Raises:
        RunFolderError: another process writes it, or it cannot be written.
    """

    def __init__(self, path: Path, run: str, about: Mapping[str, Any], *, start: int, most: int) -> None:
        if most < LEAST:
            raise ValueError(f"most: expected at least {LEAST:,} bytes, got {most!r}")
        self.path, self.run, self._most = path, run, most
        try:
            (path / "frozen").mkdir(parents=True, exist_ok=True)
            self._held = hold(path)
        except OSError as error:
            raise RunFolderError(f"cannot write the record {path}: {error.strerror or error}") from error
        try:
            said = {"kind": "record", "format": FORMAT, "run": run, **about}
            write_atomic(path / "record.json", json.dumps(finite(said), allow_nan=False) + "\n")
            self._writes = _cut(path / "writes.jsonl", start)
            self._metrics = _cut(path / "metrics.jsonl", start)
        except BaseException:
            self._held.release()
            raise
        for step, file in self._frozen():
            if step > start:
                file.unlink(missing_ok=True)
        self._lanes: list[dict[str, Any]] = []
        self.thinned = 1

    thinned: int
    """How many times coarser the record has become, for its length."""

    def close(self) -> None:
        """Let go of the folder."""
        self._writes.close()
        self._metrics.close()
        self._held.release()

    def __enter__(self) -> RecordFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def row(
        self,
        step: int,
        seconds: float,
        lanes: list[dict[str, Any]],
        surprise: Sequence[float | None],
        update: Sequence[float | None],
    ) -> None:
        """Append what was found after a step, a number a lane.

        Raises:
            RunFolderError: the file was removed, replaced or changed by somebody else.
            OSError: the disk is full.
        """
        text = ""
        if lanes != self._lanes:
            text, self._lanes = _line({"lanes": lanes}), lanes
        columns = {"surprise": [_short(each) for each in surprise], "update": [_short(each) for each in update]}
        text += _line({"step": step, "seconds": round(seconds, 4), **columns})
        if self._writes.length + len(text) > self._most:
            self._writes = self._halved(self._writes)
            self.thinned *= 2
        self._writes.append(text)

    def loss(self, step: int, seconds: float, split: str, loss: float) -> None:
        """Append a point of the loss of a split; errors as ``row``."""
        text = _line({"kind": split, "run": self.run, "step": step, "seconds": round(seconds, 4), "loss": loss})
        if self._metrics.length + len(text) > self._most:
            self._metrics = self._halved(self._metrics)
        self._metrics.append(text)

    def freeze(self, step: int, content: Mapping[str, Any]) -> None:
        """Keep what the memories were at a step; of too many every second one is let go, the first one stays."""
        said = {"format": FORMAT, "step": step, **content}
        write_atomic(self.path / "frozen" / f"{step}.json", json.dumps(finite(said), allow_nan=False) + "\n")
        kept = self._frozen()
        if len(kept) > FROZEN_MOST:
            for _, file in kept[1:-1:2]:
                file.unlink(missing_ok=True)

    def _frozen(self) -> list[tuple[int, Path]]:
        files = (self.path / "frozen").glob("*.json")
        return sorted((int(file.stem), file) for file in files if file.stem.isdecimal())

    def _halved(self, file: AppendedFile) -> AppendedFile:
        """The file without every second of its steps; the last one stays."""
        file.check()
        file.close()
        lines = file.path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomic(file.path, "".join(_every_second(lines)))
        return AppendedFile(file.path)


def _every_second(lines: list[str]) -> list[str]:
    """Every second row, the last one among them, and which lanes there were of those that stay."""
    kept: list[str] = []
    stays = True
    for line in reversed(lines):
        if line.startswith(HEAD):
            kept += [line] if kept and not kept[-1].startswith(HEAD) else []
        else:
            kept += [line] if stays else []
            stays = not stays
    return kept[::-1]


def _cut(path: Path, start: int) -> AppendedFile:
    """The file open for more lines, without those of steps after ``start``, and without a line that was cut short."""
    if path.exists():
        kept = [line for line in path.read_bytes().splitlines(keepends=True) if _until(line, start)]
        write_atomic(path, b"".join(kept))
    else:
        path.touch()
    return AppendedFile(path)


def _until(line: bytes, start: int) -> bool:
    try:
        return line.endswith(b"\n") and int(json.loads(line).get("step", 0)) <= start
    except (ValueError, AttributeError, TypeError):
        return False


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(finite(record), allow_nan=False, separators=(", ", ": ")) + "\n"


def _short(number: float | None) -> float | None:
    """Four digits, which is more than a picture shows."""
    return None if number is None else float(f"{number:.4g}")
