"""What the page is sent while a run trains: one binary message for whatever came since the last one.

A frame is a line of JSON, padded with blanks to a multiple of eight bytes, and behind it the numbers of its blocks end
to end, little-endian, each block padded likewise:

    {"run", "kind": "whole" | "tail", "generation", "latest", "status", "frozen": [...], "lanes": [...],
     "blocks": [["train.step", "f8", 12], ["train.loss", "f8", 12], ..., ["score.low", "f4", 1200], ...]}

"score.low" and "score.high" have a row for each of "lanes", which "tail" says again only where they changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestlearn.explore.answers import POINTS, bins, thinned
from nestlearn.explore.runs import Run
from nestlearn.explore.series import ranges

__all__ = ["Cursor", "frame"]

CURVES = ("train", "validation")


@dataclass
class Cursor:
    """How far somebody has been told: the latest steps, and of which generation of the run's files.

    Args:
        generation: 0 for who knows nothing.
        train, validation, score: the latest step of each; -1 for none.
        points: of a line, at most, in one frame.
    """

    generation: int = 0
    train: float = -1
    validation: float = -1
    score: float = -1
    points: int = POINTS
    layout: tuple[Any, ...] = ()
    said: tuple[Any, ...] = ()


def frame(run: Run, cursor: Cursor) -> bytes | None:
    """What came of a run since the cursor, which is moved; None if nothing did."""
    facts = sorted(run.lanes.facts.items(), key=lambda item: item[0][0])
    layout = tuple((key, run.lanes.measure(key), fact["ended"], fact.get("part")) for key, fact in facts)
    whole = cursor.generation != run.generation or bool(cursor.layout and cursor.layout != layout)
    if whole:
        cursor.train = cursor.validation = cursor.score = -1
    blocks: list[tuple[str, NDArray[Any]]] = []
    for name in CURVES:
        curve = run.curves[name]
        first = curve.after(getattr(cursor, name))
        if first < len(curve):
            steps, losses = thinned(curve, first, cursor.points)
            blocks += [(f"{name}.step", steps), (f"{name}.loss", losses)]
            setattr(cursor, name, curve.steps[-1])
    blocks += _score(run, cursor, [key for key, _ in facts])
    said = (run.frozen(), run.summary.get("status", "open"), run.latest)
    if not whole and not blocks and said == cursor.said:
        return None
    head: dict[str, Any] = {
        "run": run.id,
        "kind": "whole" if whole else "tail",
        "generation": run.generation,
        "latest": run.latest,
        "status": said[1],
        "frozen": said[0],
    }
    if whole or cursor.layout != layout:
        head["lanes"] = [{**fact, "measure": run.lanes.measure(key)} for key, fact in facts]
    cursor.generation, cursor.said, cursor.layout = run.generation, said, layout
    return _packed(head, blocks)


def _score(run: Run, cursor: Cursor, keys: list[tuple[int, str]]) -> list[tuple[str, NDArray[Any]]]:
    first, last = run.lanes.after(cursor.score), len(run.lanes)
    if first >= last or not keys:
        return []
    every = np.frombuffer(run.lanes.steps, np.float64)[first:last]
    starts = bins(every, cursor.points)
    ends = np.append(starts[1:], last - first) - 1
    found = [ranges(run.lanes.column(key, run.lanes.measure(key), first, last), starts) for key in keys]
    cursor.score = run.lanes.steps[-1]
    low, high = (np.concatenate(column) for column in zip(*found, strict=True))
    return [("score.step", every[ends]), ("score.low", low), ("score.high", high)]


def _packed(head: dict[str, Any], blocks: list[tuple[str, NDArray[Any]]]) -> bytes:
    told = [[name, f"f{numbers.itemsize}", len(numbers)] for name, numbers in blocks]
    line = json.dumps({**head, "blocks": told}, allow_nan=False).encode()
    pieces = [line + b" " * (-(len(line) + 1) % 8) + b"\n"]
    for _, numbers in blocks:
        data = numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
        pieces.append(data + b"\0" * (-len(data) % 8))
    return b"".join(pieces)
