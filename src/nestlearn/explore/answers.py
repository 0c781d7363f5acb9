"""What is told of runs, as data: the HTTP interface, ``nestlearn explore --json`` and the page say the same."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestlearn.errors import NestlearnError
from nestlearn.explore.runs import Run, Shelf
from nestlearn.explore.series import Curve, extremes, ranges

__all__ = ["MOST_POINTS", "POINTS", "bins", "everything", "notes", "score", "series", "thinned"]

POINTS, MOST_POINTS = 500, 20_000
"""Points that are told of a line, unless somebody asks for more, and at most."""


def thinned(curve: Curve, first: int, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and losses of a curve from its ``first`` point on, at most ``most`` of them, no peak lost."""
    steps, values = (np.frombuffer(column, np.float64)[first:] for column in (curve.steps, curve.values))
    return extremes(steps, values, most)


def series(run: Run, points: int = POINTS) -> dict[str, Any]:
    """The losses of a run: {"train": {"step": [...], "loss": [...]}, "validation": ...}, a null where there is none."""
    told = {}
    for name, curve in run.curves.items():
        steps, losses = thinned(curve, 0, points)
        told[name] = {"step": [int(step) for step in steps], "loss": _plain(losses)}
    return told


def bins(steps: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Where bins of neighbours begin, at most ``most`` of them."""
    size = max(1, -(-len(steps) // max(1, most)))
    return np.arange(0, len(steps), size)


def score(run: Run, points: int = POINTS, start: float = 0, stop: float = math.inf) -> dict[str, Any]:
    """The level score of a run between two steps, slowest level first.

    Returns:
        "steps": the last step of each bin of looks; "lanes": for each memory and role what it is, and "low" and "high",
        the range of its ``measure`` in each bin, surprise or update, a null where there is none.
    """
    lanes = run.lanes
    every = np.frombuffer(lanes.steps, np.float64)
    first, last = int(np.searchsorted(every, start, "left")), int(np.searchsorted(every, stop, "right"))
    last = max(first, last)
    starts = bins(every[first:last], points)
    ends = np.append(starts[1:], last - first) - 1 if len(starts) else starts
    told: dict[str, Any] = {"steps": [int(step) for step in every[first:last][ends]], "lanes": []}
    for key, facts in sorted(lanes.facts.items(), key=lambda item: item[0][0]):
        measure = lanes.measure(key)
        low, high = ranges(lanes.column(key, measure, first, last), starts)
        told["lanes"].append({**facts, "measure": measure, "low": _plain(low), "high": _plain(high)})
    return told


def everything(shelf: Shelf, points: int = POINTS) -> dict[str, Any]:
    """All that is known of all runs, the latest frozen step of each among it: what ``--json`` prints."""
    runs = []
    for run in shelf.refresh():
        told = {**run.to_dict(), "series": series(run, points), "score": score(run, points)}
        steps = run.frozen()
        try:
            told["step"] = run.step(steps[-1]) if steps else None
        except NestlearnError as error:
            told["step"], told["note"] = None, str(error)
        runs.append({**told, "systems": run.systems()})
    return {"runs": runs, "notes": notes(shelf)}


def notes(shelf: Shelf) -> list[str]:
    """What was passed over."""
    return [note for folder in shelf.folders() for note in folder.notes]


def _plain(numbers: Iterable[np.floating[Any]]) -> list[float | None]:
    """Numbers as JSON has them, to six digits."""
    return [float(f"{number:.6g}") if math.isfinite(number) else None for number in map(float, numbers)]
