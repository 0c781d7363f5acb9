"""A record: the folder that `nestlearn.record` fills, and that ``nestlearn explore`` shows while it grows.

    record.json     {"kind": "record", "format": 1, "run", "thinned", "optimizer", "started", "systems"}, the last as
                    `nl.describe` has them
    writes.jsonl    {"lanes": [{"name", "level", "memory", "role", "period", "parameters", "part", "along"}, ...]},
                    which is said again when they change, and between a line for each step that was looked at, its
                    numbers by lanes: {"step", "seconds", "surprise": [...], "update": [...]}
    metrics.jsonl   the losses, as in the run folder of ``nestlearn train``
    frozen/N.json   the memories at step N, for which see `nestlearn.integrations.frozen`

Whole files are replaced atomically, the two ``.jsonl`` files grow by lines. All is bounded: where ``writes.jsonl`` has
become too long every second of its steps is left out, and so on for the frozen ones, so that a long run is a coarse
one from its start to its end, be it in one go or continued: "thinned" is how many times coarser it is by now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nestlearn.errors import RunFolderError
from nestlearn.files import AppendedFile, hold, write_atomic
from nestlearn.foreign import finite

__all__ = ["FORMAT", "RecordFolder", "copy_record"]

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
            self._about = dict(about)
            self.thinned = _thinned(path) if start else 1
            self._say()
            self._writes = _cut(path / "writes.jsonl", start)
            self._metrics = _cut(path / "metrics.jsonl", start)
        except BaseException:
            self._held.release()
            raise
        for step, file in _frozen(path):
            if step > start:
                file.unlink(missing_ok=True)
        self._lanes: list[dict[str, Any]] = []

    thinned: int
    """How many times coarser the record has become, for its length."""

    def _say(self) -> None:
        """Write what is known of the record as a whole."""
        _write_about(self.path, {"run": self.run, "thinned": self.thinned, **self._about})

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
            self.thinned *= 2
            self._say()  # first, so that who is killed in between goes on coarser, and not finer
            self._writes = self._halved(self._writes)
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
        kept = _frozen(self.path)
        if len(kept) > FROZEN_MOST:
            for _, file in kept[1:-1:2]:
                file.unlink(missing_ok=True)

    def _halved(self, file: AppendedFile) -> AppendedFile:
        """The file without every second of its steps; the last one stays."""
        file.check()
        file.close()
        lines = file.path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomic(file.path, "".join(_every_second(lines)))
        return AppendedFile(file.path)


def copy_record(source: Path, target: Path, run: str, until: int) -> None:
    """A record as it was after so many steps, for another run that goes on recording there; none where there is none.

    Args:
        source: the folder of the record, which may be written meanwhile.
        target: the folder that is made.
        run: what the other run is called.
        until: the last step.

    Raises:
        OSError: it cannot be read or written.
    """
    if not (source / "record.json").is_file():
        return
    (target / "frozen").mkdir(parents=True)
    for name in ("writes.jsonl", "metrics.jsonl"):
        if (source / name).is_file():
            write_atomic(target / name, _kept(source / name, until))
    for step, file in _frozen(source):
        with suppress(FileNotFoundError):  # every second one may be let go just now
            if step <= until:
                write_atomic(target / "frozen" / file.name, file.read_bytes())
    _write_about(target, {"run": run, "thinned": _thinned(source)})


def _write_about(folder: Path, about: Mapping[str, Any]) -> None:
    said = {"kind": "record", "format": FORMAT, **about}
    write_atomic(folder / "record.json", json.dumps(finite(said), allow_nan=False) + "\n")


def _thinned(folder: Path) -> int:
    """How many times coarser a record is that goes on. One that does not say it, or is broken, is as it was made."""
    try:
        found = json.loads((folder / "record.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return 1
    thinned = found.get("thinned") if isinstance(found, dict) else 1
    return thinned if type(thinned) is int and 1 <= thinned < 1 << 40 else 1


def _frozen(folder: Path) -> list[tuple[int, Path]]:
    files = (folder / "frozen").glob("*.json")
    return sorted((int(file.stem), file) for file in files if file.stem.isdecimal())


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
        write_atomic(path, _kept(path, start))
    else:
        path.touch()
    return AppendedFile(path)


def _kept(path: Path, until: int) -> bytes:
    """The lines of a file up to a step."""
    return b"".join(line for line in path.read_bytes().splitlines(keepends=True) if _until(line, until))


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
