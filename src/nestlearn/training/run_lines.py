"""The lines of ``metrics.jsonl`` and ``events.jsonl``: what is written, and what is made of what is found there.

    {"kind": "train" | "validation", "run": KEY, "step": 8, "seconds": 0.01, "loss": 2.3}
    {"kind": "run", "key": KEY, ..., "sha256": DIGEST}
    {"run": KEY, "step": 8, "memory": "momentum", "surprise": 0.5}

The digest is that of the run's rows of each kind, in their order, and of its own line. Files may be long, so they are
read piece by piece: lines as we write them are parsed by column, and only what looks otherwise is parsed as JSON alone.
A line that is none is passed over with a note.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from nestlearn.errors import RunFolderError
from nestlearn.foreign import finite, foreign, parse_json, reason, regular, shown
from nestlearn.training.results import Point, RunResult
from nestlearn.training.series import Curve, Looks

__all__ = ["Rows", "event_lines", "metric_lines", "point_lines", "read_rows", "row_lines", "run_line"]

PIECE = 1 << 18  # bytes that are read at once: few enough for the cache
MOST_LINE = 1 << 20  # bytes of a line
NOTES = 3  # of one file
LATEST = 1 << 53  # steps that a float64 can count
MEMORIES = 1000  # names in one piece
Numbers = np.ndarray[Any, np.dtype[np.float64]]
NUMBERS = b"0123456789+-.eE,"
STEP, SECONDS, LOSS, MEMORY, SURPRISE = (
    f', "{name}": '.encode() for name in ("step", "seconds", "loss", "memory", "surprise")
)
SHA = ', "sha256": "'
STATUS = ("finished", "diverged")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(finite(record), allow_nan=False) + "\n"


def event_lines(key: str, surprises: Iterable[Sequence[Any]]) -> str:
    """Lines of ``events.jsonl`` for [step, memory, surprise] rows of the run ``key``."""
    return "".join(_line({"run": key, "step": s, "memory": m, "surprise": v}) for s, m, v in surprises)


def point_lines(kind: str, key: str, points: Iterable[Point]) -> str:
    """Lines of ``metrics.jsonl`` for points of the loss, "train" or "validation", of the run ``key``."""
    return "".join(_line({"kind": kind, "run": key, **point._asdict()}) for point in points)


def row_lines(key: str, train: Sequence[Point], curve: Sequence[Point]) -> str:
    """The lines of both kinds in the order in which a training records them: by steps."""
    rows = [(point.step, kind, point) for kind, points in (("train", train), ("validation", curve)) for point in points]
    return "".join(point_lines(kind, key, [point]) for _, kind, point in sorted(rows, key=lambda row: row[:2]))


def run_line(result: RunResult) -> str:
    """The line of ``metrics.jsonl`` that makes a run count."""
    train, curve = point_lines("train", result.key, result.train), point_lines("validation", result.key, result.curve)
    return _run_line(result, train, curve, event_lines(result.key, result.surprises))


def _run_line(result: RunResult, *rows: str) -> str:
    start = _line({"kind": "run", **result.summary()})[:-2]
    return f'{start}{SHA}{_digest([hashlib.sha256(text.encode()).digest() for text in rows], start)}"}}\n'


def _digest(rows: Iterable[bytes], start: str) -> str:
    return hashlib.sha256(b"".join(rows) + start.encode()).hexdigest()[:32]


def metric_lines(result: RunResult) -> str:
    """All lines of ``metrics.jsonl`` for a run."""
    train, curve = point_lines("train", result.key, result.train), point_lines("validation", result.key, result.curve)
    return train + curve + _run_line(result, train, curve, event_lines(result.key, result.surprises))


@dataclass
class Rows:
    """What the two files hold.

    Attributes:
        runs: the finished runs, by key.
        damaged: keys of those whose rows are not what they were when the run ended.
        begun: keys of all runs of which there is a row.
        notes: what was passed over, and which runs are damaged.
        broken: whether anything was passed over besides a last line that was cut short.
        digests: what the ``run`` line says of a run's rows, and that line before its digest.
    """

    runs: dict[str, RunResult] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    broken: bool = False
    digests: dict[str, tuple[Any, str]] = field(default_factory=dict, repr=False)


class _Run:
    """The rows of one run, as they are found."""

    def __init__(self) -> None:
        self.curves = {"train": Curve(), "validation": Curve()}
        self.looks = Looks()
        self.hashes = {kind: hashlib.sha256() for kind in ("train", "validation", "event")}


def read_rows(metrics: Path, events: Path) -> Rows:
    """The finished runs in the two files, and what was passed over; of a file that is not there, nothing.

    Raises:
        RunFolderError: a file cannot be read.
    """
    found = Rows()
    runs: dict[str, _Run] = defaultdict(_Run)
    for path in filter(Path.exists, (metrics, events)):
        _read(path, found, runs)
    for key, result in found.runs.items():
        run = runs[key]
        vars(result).update(train=run.curves["train"], curve=run.curves["validation"], surprises=run.looks)
        expected, line = found.digests.get(key, (None, ""))
        if line and expected != _digest([each.digest() for each in run.hashes.values()], line):
            found.damaged.add(key)
            found.notes.append(f"{metrics.parent}: rows of the run {key} were lost or changed after they were written")
    found.begun |= {key for key, run in runs.items() if any(map(len, (*run.curves.values(), run.looks)))}
    return found


def _read(path: Path, found: Rows, runs: dict[str, _Run]) -> None:
    """Add what one file holds."""
    bad: list[str] = []
    number = 1
    for piece in _pieces(path, found.notes):
        others = _take_piece(piece, number, runs)
        for place, line in others:
            try:
                _take_one(line, found, runs)
            except Exception as error:  # noqa: BLE001 - a line may hold anything
                text = shown(line[:1000].decode("utf-8", "replace"))
                bad.append(f"{path}, line {place}: not a record of a run, {text} ({reason(error)}); it is passed over")
        number += piece.count(b"\n") + 1
    found.broken = found.broken or bool(bad)
    found.notes += bad[:NOTES]
    if len(bad) > NOTES:
        found.notes.append(f"{path}: {len(bad) - NOTES} more lines like these")


def _pieces(path: Path, notes: list[str]) -> Iterator[bytes]:
    """Whole lines of a file, many at once, without the last line end; a last line that is cut short is a note."""
    with foreign(RunFolderError, f"cannot read {path}"):
        regular(path)
        rest = b""
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                whole, end, rest = (rest + piece).rpartition(b"\n")
                if len(rest) > MOST_LINE:
                    raise ValueError(f"expected lines of at most {MOST_LINE:,} bytes")
                if end:
                    yield whole
    if rest:
        notes.append(f"{path.name}: the last line was cut short and is left out")


def _take_piece(piece: bytes, number: int, runs: dict[str, _Run]) -> list[tuple[int, bytes]]:
    """Take the lines that are as we write them, by column; returns the others with their numbers."""
    head, step, _ = piece.partition(STEP)
    if step and b"\n" not in head:  # perhaps they are all of one run
        text = b"\n".join((b"\n" + piece).split(b"\n" + head + STEP))[1:]  # replace would look for each of them twice
        if b"{" not in text and _take(head, text, runs, piece):
            return []
    groups: dict[bytes, list[bytes]] = defaultdict(list)
    places: dict[bytes, list[int]] = defaultdict(list)
    others: list[tuple[int, bytes]] = []
    for place, line in enumerate(piece.split(b"\n"), start=number):
        head, step, tail = line.partition(STEP)
        if step:
            groups[head].append(tail)
            places[head].append(place)
        else:
            others.append((place, line))
    for head, tails in groups.items():
        if not _take(head, b"\n".join(tails), runs):  # one by one, to find out which it is
            others += [(at, head + STEP + tail) for at, tail in zip(places[head], tails, strict=True)]
    return sorted(others)


def _take(head: bytes, text: bytes, runs: dict[str, _Run], lines: bytes = b"") -> bool:
    """Take lines that begin alike, by what follows, line by line; whether all of them are as we write them.

    Args:
        lines: the same with their beginnings, for who has them.
    """
    try:
        start = parse_json(head + b"}")
        key = start["run"]
        _text(key)
        if set(start) == {"kind", "run"} and start["kind"] in ("train", "validation"):
            _points(text, runs[key].curves[start["kind"]])
        elif set(start) == {"run"}:
            _looks(text, runs[key].looks)
        else:
            return False
    except (ValueError, KeyError, TypeError, OverflowError):
        return False
    digest = runs[key].hashes[start.get("kind", "event")]
    digest.update(lines or head + STEP + text.replace(b"\n", b"\n" + head + STEP))
    digest.update(b"\n")
    return True


def _points(text: bytes, curve: Curve) -> None:
    """Add the points in ``8, "seconds": 0.01, "loss": 2.3}`` and so on, a line each; ValueError, and nothing is added,
    if one is something else.
    """
    found = _columns(text, (SECONDS, LOSS))
    if np.isnan(found[:, 1]).any():
        raise ValueError
    _extend(curve.steps, found[:, 0])
    _extend(curve.seconds, found[:, 1])
    _extend(curve.losses, found[:, 2])


def _looks(text: bytes, looks: Looks) -> None:
    """The same for ``8, "memory": "momentum", "surprise": 0.5}`` and so on."""
    names: list[str] = []
    while (at := text.find(MEMORY)) >= 0:
        raw = text[at + len(MEMORY) : text.index(SURPRISE, at)]
        names.append(_text(parse_json(raw)))
        if len(names) > MEMORIES:
            raise ValueError
        text = text.replace(MEMORY + raw + SURPRISE, b";%d;" % (len(names) - 1))
    found = _columns(text.replace(b";", b","), (b",", b","))
    known = np.array([looks.place(name) for name in names])
    _extend(looks.steps, found[:, 0])
    _extend(looks.places, known[found[:, 1].astype(np.int64)])
    _extend(looks.values, found[:, 2])


def _columns(text: bytes, words: tuple[bytes, bytes]) -> Numbers:
    """Three columns of numbers, NaN for null; ValueError unless each line has one of each, with these words between,
    and the first is a whole one of at least 0.
    """
    count = text.count(b"\n") + 1
    for word in (*words, b"}\n"):
        text = b",".join(text.split(word))
    text = text.removesuffix(b"}")
    if (text.replace(b"null", b"") if b"n" in text else text).translate(None, NUMBERS):
        raise ValueError
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how numpy says that there is no number
        try:
            found = np.fromstring(text.replace(b"null", b"nan"), sep=",")
        except DeprecationWarning as error:
            raise ValueError from error
    if len(found) != 3 * count or np.isinf(found).any():
        raise ValueError
    found = found.reshape(count, 3)
    steps = found[:, 0]
    if not ((steps >= 0) & (steps < LATEST) & (steps == np.floor(steps))).all():
        raise ValueError
    return found


def _extend(column: array[Any], values: Numbers) -> None:
    """Add numbers to a column, as its type."""
    column.frombytes(values.astype(column.typecode).tobytes())


def _finite(numbers: array[float]) -> None:
    if any(map(math.isnan, numbers)):
        raise ValueError


_RESULT = TypeAdapter(RunResult)


def _take_one(line: bytes, found: Rows, runs: dict[str, _Run]) -> None:
    """Take one line; anything may be raised if it is none of ours."""
    record = parse_json(line)
    if not isinstance(record, dict):
        raise TypeError("expected an object")
    if record.get("kind") == "run":
        text, _, _ = line.decode().rpartition(SHA)
        result = _RESULT.validate_python({k: v for k, v in record.items() if k not in ("kind", "sha256")}, strict=False)
        _bounded(record)
        if result.status not in STATUS or (result.status == "finished" and "loss" not in result.validation):
            raise ValueError(f"{shown(result.status)} with the figures {', '.join(result.validation)}")
        found.digests.pop(result.key, None)
        if "sha256" in record:
            found.digests[result.key] = record["sha256"], text
        found.runs[result.key] = result
        return
    step = record["step"]
    if "kind" in record:
        kind, loss = record["kind"], record["loss"]
        point = Point(step, record["seconds"], loss)
        _take_row(runs[_text(record["run"])].curves[_text(kind)], point)
    else:
        looks, name = runs[_text(record["run"])].looks, _text(record["memory"])
        row = Looks([[step, name, record["surprise"]]])
        _finite(array("d", [0.0 if record["surprise"] is None else record["surprise"]]))
        looks.steps += row.steps
        looks.places.append(looks.place(name))
        looks.values += row.values


def _take_row(curve: Curve, point: Point) -> None:
    row = Curve([point])
    if point.step < 0:
        raise ValueError("a step below 0")
    curve.steps += row.steps
    curve.seconds += row.seconds
    curve.losses += row.losses


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a name, got {shown(value)}")
    value.encode("utf-8")  # JSON has names that UTF-8 has not
    return value


def _bounded(value: Any) -> None:
    """Raise ValueError for a whole number that no counter reaches, or a text that is none."""
    if isinstance(value, dict):
        for item in value.values():
            _bounded(item)
    elif isinstance(value, str):
        _text(value)
    elif isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError("a number that no counter reaches")
