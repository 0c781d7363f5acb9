"""Folders of runs and records as runs: found, read as they grow, and told apart by ids of their own.

A folder that ``nestlearn train`` or ``compare`` writes holds one run or many, one that `nestlearn.record` writes holds
one. What a file says is not trusted: numbers are numbers, names are short, the rest is passed over.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from nestlearn.errors import NestlearnError, RunFolderError
from nestlearn.explore.series import Curve, Lanes
from nestlearn.explore.tail import Tail
from nestlearn.foreign import finite, printable, read_json

__all__ = ["STACKED", "Folder", "Run", "Shelf"]

RUN = ("record.json", "metrics.jsonl")
"""What is in the folder of a run or a record, one of them."""

STACKED, TRANSFORMERS = "continuum.json", "config.json"
"""What is in the folder of a pretrained model with a continuum, and of any model of transformers."""

DEPTH = 3
"""Folders below those that are named, in which runs are looked for."""

MOST_FOLDERS, MOST_RUNS, MOST_LANES = 1000, 5000, 1000
MOST_NAME, MOST_FROZEN, MOST_RECORD = 200, 8 << 20, 32 << 20
SEED = re.compile(r"/seed(\d{1,18})/")
CHECKPOINT = re.compile(r"seed(\d{1,18})-step(\d{1,15})-[0-9a-f]{16}\.pt")
FINISHED = ("finished", "diverged")
TOLD = ("task", "variant", "settings", "seed", "status", "reason", "steps", "validation", "test", "parameters")


class Run:
    """One run as its files tell it.

    Attributes:
        id: the same for the same run, as long as its folder stays where it is.
        key: what the run is called in its folder.
        curves: "train" and "validation".
        lanes: what its memories did.
        summary: what is said of it where it is finished.
        generation: grows where what was read before counts no more.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.id = _id(folder, key)
        self.summary: dict[str, Any] = {}
        self.record: Path | None = None
        self._frozen: tuple[int, list[int]] = (0, [])
        self.generation = 0
        self.forget()

    curves: dict[str, Curve]
    lanes: Lanes

    def forget(self) -> None:
        """What was read before counts no more."""
        self.curves = {"train": Curve(), "validation": Curve()}
        self.lanes = Lanes()
        self.generation += 1

    @property
    def latest(self) -> int:
        """The latest step of which anything is known."""
        known = [*(curve.steps for curve in self.curves.values()), self.lanes.steps]
        return int(max((steps[-1] for steps in known if steps), default=0))

    def frozen(self) -> list[int]:
        """The frozen steps that are there."""
        if self.record is None:
            return []
        folder = self.record / "frozen"
        try:
            changed = folder.stat().st_mtime_ns
            if changed != self._frozen[0]:
                names = [path.stem for path in islice(folder.iterdir(), MOST_RUNS) if path.suffix == ".json"]
                self._frozen = changed, sorted(int(name) for name in names if name.isdecimal() and len(name) < 17)
        except OSError:
            return []
        return self._frozen[1]

    def step(self, step: int) -> dict[str, Any]:
        """A frozen step.

        Raises:
            RunFolderError: it is not there, or broken.
        """
        if self.record is None or step not in self.frozen():
            raise RunFolderError(f"{self.folder}: step {step} was not frozen")
        found = read_json(self.record / "frozen" / f"{step}.json", RunFolderError, MOST_FROZEN)
        return {name: finite(item) for name, item in found.items()}

    def systems(self) -> list[Any]:
        """The description of its optimizer, as far as there is one: what ``nl.describe(...).to_dict()`` gave."""
        try:
            if self.record is not None:
                found = read_json(self.record / "record.json", RunFolderError, MOST_RECORD).get("systems")
                return finite(found) if isinstance(found, list) else []
            rows = read_json(self.folder / "systems.json", RunFolderError, MOST_RECORD).get(
                self.summary.get("task", "")
            )
            chosen = rows.get(self.summary.get("variant", "")) if isinstance(rows, dict) else None
            return [finite(chosen)] if isinstance(chosen, dict) else []
        except NestlearnError:
            return []

    @property
    def seed(self) -> int | None:
        """The seed, if its name says one."""
        found = SEED.search(self.key)
        return int(found[1]) if found else None

    def checkpoints(self) -> list[int]:
        """The steps that it can be forked from: those of the checkpoints of ``nestlearn train`` in its folder."""
        if self.seed is None or not os.path.isfile(self.folder / "config.yaml"):
            return []
        found = (CHECKPOINT.fullmatch(path.name) for path in islice(_files(self.folder / "checkpoints"), MOST_RUNS))
        return sorted({int(each[2]) for each in found if each and int(each[1]) == self.seed})

    def forked(self) -> dict[str, Any] | None:
        """Of a fork: the "id" of the run that it comes from, its "folder", the "step", and what was "changed"."""
        try:
            found = read_json(self.folder / "fork.json", RunFolderError, MOST_RECORD)
        except RunFolderError:
            return None
        folder, run, step, changed = (found.get(name) for name in ("folder", "run", "step", "changed"))
        if not isinstance(folder, str) or not isinstance(run, str) or type(step) is not int:
            return None
        try:
            parent = _id(Path(folder), run)
        except (OSError, ValueError, RuntimeError):  # no folder has such a name, or it is a link to itself
            return None
        words = [printable(each, MOST_NAME) for each in _list(changed)[:MOST_LANES] if isinstance(each, str)]
        told = {"folder": printable(folder, MOST_NAME), "step": min(max(step, 0), 1 << 53), "changed": words}
        return {"id": parent, **told}

    def _told(self) -> dict[str, Any]:
        """The losses at the end of each curve."""
        return {name: finite(curve.values[-1]) for name, curve in self.curves.items() if len(curve)}

    def to_dict(self) -> dict[str, Any]:
        """What a list of runs says of it."""
        return {
            "id": self.id,
            "folder": printable(str(self.folder), MOST_NAME),
            "run": printable(self.key, MOST_NAME),
            "latest": self.latest,
            "status": self.summary.get("status", "open"),
            "loss": self._told(),
            "lanes": len(self.lanes.facts),
            "frozen": self.frozen(),
            "checkpoints": self.checkpoints(),
            "forked": self.forked(),
            "row": self.summary,
        }


def _id(folder: Path, key: str) -> str:
    return hashlib.sha256(f"{folder.resolve()}\n{key}".encode("utf-8", "replace")).hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder, none where there is no such folder."""
    try:
        yield from folder.iterdir()
    except OSError:
        return


class Folder:
    """A run folder or a record, and the runs in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, Run] = {}
        self._metrics, self._events = Tail(path / "metrics.jsonl"), Tail(path / "events.jsonl")
        self._records: dict[str, tuple[Tail, Run, list[Any]]] = {}

    @property
    def notes(self) -> list[str]:
        """What was passed over."""
        tails = [self._metrics, self._events, *(tail for tail, _, _ in self._records.values())]
        return [tail.note for tail in tails if tail.note]

    def refresh(self) -> None:
        """Read what came since."""
        records = [path.parent for path in (self.path / "record").glob("*/record.json")]
        for path in [self.path] * os.path.isfile(self.path / "record.json") + sorted(records)[:MOST_RUNS]:
            self._open(path)
        if self._metrics.changed() or self._events.changed():
            # Both begin again: what they say belongs together.
            self._metrics, self._events = Tail(self._metrics.path), Tail(self._events.path)
            for run in self.runs.values():
                recorded = None if run.record is None else run.lanes
                run.forget()
                run.lanes = run.lanes if recorded is None else recorded
        for line in self._metrics.new():
            self._metric(line)
        for line in self._events.new():
            self._event(line)
        for tail, run, lanes in self._records.values():
            if tail.changed():
                run.lanes = Lanes()
                run.generation += 1
                lanes.clear()
            for line in tail.new():
                _write(line, run, lanes)

    def _run(self, key: Any) -> Run | None:
        if not isinstance(key, str) or (key not in self.runs and len(self.runs) >= MOST_RUNS):
            return None
        return self.runs.setdefault(key, Run(self.path, key))

    def _open(self, path: Path) -> None:
        """Take up a record."""
        if str(path) in self._records:
            return
        try:
            about = read_json(path / "record.json", RunFolderError, MOST_RECORD)
        except RunFolderError:
            return
        run = self._run(about.get("run"))
        if run is not None:
            run.record, run.lanes = path, Lanes()
            run.generation += 1
            self._records[str(path)] = Tail(path / "writes.jsonl"), run, []

    def _metric(self, line: dict[str, Any]) -> None:
        kind = line.get("kind")
        run = self._run(line.get("key" if kind == "run" else "run"))
        if run is None:
            return
        if kind == "run":
            run.summary = finite({name: line[name] for name in TOLD if name in line})
            if run.summary.get("status") not in FINISHED:
                run.summary.pop("status", None)
        elif kind in run.curves:
            run.curves[kind].add(line.get("step"), line.get("seconds"), line.get("loss"))

    def _event(self, line: dict[str, Any]) -> None:
        """A look at a memory in a run that is not recorded: its surprise is all that is known."""
        run, memory = self._run(line.get("run")), line.get("memory")
        if run is None or run.record is not None or not isinstance(memory, str) or not run.lanes.row(line.get("step")):
            return
        key = (0, memory)
        if key not in run.lanes.facts:
            if len(run.lanes.facts) >= MOST_LANES:
                return
            name = printable(memory, MOST_NAME)
            run.lanes.facts[key] = {"name": name, "level": 0, "memory": name, "role": "", "period": 1, "parameters": 0}
            run.lanes.facts[key] |= {"part": name, "along": [], "ended": False}
        run.lanes.put(key, line.get("surprise"))


def _write(line: dict[str, Any], run: Run, lanes: list[Any]) -> None:
    """Take a line of ``writes.jsonl``: which lanes there are, whose keys are kept in ``lanes``, or a row of them."""
    given = line.get("lanes")
    if isinstance(given, list):
        facts = [_lane(each) for each in given[:MOST_LANES]]
        lanes[:] = [fact and (fact["level"], fact["name"]) for fact in facts]
        for known in run.lanes.facts.values():
            known["ended"] = True  # unless it is said again
        for key, fact in zip(lanes, facts, strict=True):
            if fact and (key in run.lanes.facts or len(run.lanes.facts) < MOST_LANES):
                run.lanes.facts[key] = fact
        return
    surprise, update = (line.get(name) for name in ("surprise", "update"))
    run.lanes.add(line.get("step"), lanes, _list(surprise), _list(update))


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []


def _lane(given: Any) -> dict[str, Any] | None:
    """What is said of a lane, if it is said as we say it."""
    if not isinstance(given, dict):
        return None
    words = {name: given.get(name) for name in ("name", "memory", "role")}
    counts = {name: given.get(name) for name in ("level", "period", "parameters")}
    if not all(isinstance(word, str) for word in words.values()):
        return None
    if not all(type(count) is int and 0 <= count < 1 << 31 for count in counts.values()) or not counts["period"]:
        return None
    said = {**{name: printable(str(word), MOST_NAME) for name, word in words.items()}, **counts, "ended": False}
    part, along = given.get("part", ""), [each for each in _list(given.get("along")) if isinstance(each, str)]
    if part is None or (isinstance(part, str) and part):  # records of before do not say it
        said["part"] = None if part is None else printable(part, MOST_NAME)
        said["along"] = [printable(each, MOST_NAME) for each in along[:MOST_LANES]]
    return said


class Shelf:
    """All runs in and below some folders, found again each time it is asked, and the pretrained models beside them.

    Args:
        paths: run folders, records, folders of pretrained models with a continuum, or folders that hold some.

    Raises:
        RunFolderError: one is no folder, or that of a pretrained model without a continuum.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = list(paths)
        for path in self.paths:
            if not path.is_dir():
                raise RunFolderError(
                    f"{path} is no folder: expected one written by `nestlearn train`, `nestlearn compare` or "
                    "nl.record(optimizer, folder), or one that holds such folders"
                )
            if os.path.isfile(path / TRANSFORMERS) and not any(_below(path, DEPTH, (*RUN, STACKED))):
                raise RunFolderError(
                    f"{path} holds a pretrained model without a continuum, and no run: expected a {STACKED} beside its "
                    f"{TRANSFORMERS}; {{}} in it takes the defaults of nl.models.add_continuum"
                )
        self._folders: dict[Path, Folder] = {}

    def folders(self) -> list[Folder]:
        """The folders that are there now, in the order of their names below each path, not read anew."""
        found = self._found(RUN)
        self._folders = {real: self._folders.get(real) or Folder(path) for real, path in found.items()}
        return list(self._folders.values())

    def stacked(self) -> list[Path]:
        """The folders of pretrained models with a continuum that are there now."""
        return list(self._found((STACKED,)).values())

    def _found(self, names: tuple[str, ...]) -> dict[Path, Path]:
        """The folders in which a file of one of these names is; one that is reached in two ways is one."""
        found: dict[Path, Path] = {}
        for each in islice((each for path in self.paths for each in _below(path, DEPTH, names)), MOST_FOLDERS):
            found.setdefault(each.resolve(), each)
        return found

    def refresh(self) -> list[Run]:
        """All runs, read anew."""
        for folder in self.folders():
            folder.refresh()
        return self.runs()

    def runs(self) -> list[Run]:
        """All runs as they were read."""
        return [run for folder in self._folders.values() for run in folder.runs.values()]

    def add(self, path: Path) -> None:
        """Look into one more folder."""
        if path not in self.paths:
            self.paths.append(path)

    def find(self, name: str) -> tuple[Folder, Run] | None:
        """The run with an id, and its folder."""
        for folder in self._folders.values():
            for run in folder.runs.values():
                if run.id == name:
                    return folder, run
        return None


def _below(path: Path, depth: int, names: tuple[str, ...]) -> Iterator[Path]:
    """Folders in and below a folder in which a file of one of these names is."""
    # os.path.isfile says no where others raise: a folder may be shut, or be gone by now.
    if any(os.path.isfile(path / name) for name in names):
        yield path
        return
    if depth == 0:
        return
    try:
        inner = sorted(each for each in path.iterdir() if each.is_dir() and not each.is_symlink())
    except OSError:
        return
    for each in inner[:MOST_FOLDERS]:
        yield from _below(each, depth - 1, names)
