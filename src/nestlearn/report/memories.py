"""The pictures of memories: what surprised them, and the level score, which says when each one is written.

A lane of the score needs the surprise of its memory. An optimizer measures that of the memories that learn an objective
step by step (``Consulted.track``). Of a box it would be a value for each entry, as large as the box itself, so boxes
have no lane and are named below.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from textwrap import wrap
from typing import Any

import numpy as np

from nestlearn.report.colours import colour
from nestlearn.report.names import short, told_apart
from nestlearn.report.pictures import SMALL
from nestlearn.report.plot import Panel, picture, text
from nestlearn.report.series import Measured, Points
from nestlearn.report.thinning import Line
from nestlearn.training import Row

__all__ = ["score", "surprise_panels"]

DASHES = ("", "6 3", "2 3", "8 3 2 3")
SHADES = 6


def surprise_panels(rows: Sequence[Row], measured: Mapping[str, Measured]) -> list[str]:
    """The surprise of each memory of a contender over the seeds, each relative to its first value, on a log scale."""
    drawn = []
    for row in rows:
        found = {} if row.control else measured[row.name].surprises
        scaled = {name: line for name, points in found.items() if (line := _relative(points.line))}
        if scaled:
            drawn.append(_surprise_panel(row, scaled))
    return drawn


def _relative(line: Line) -> Line | None:
    """A line divided by its first value, without what a log scale cannot show; None if nothing is left."""
    if not line.x or not line.mean[0] > 0:
        return None
    first = line.mean[0]
    kept = [i for i, value in enumerate(line.mean) if value > 0]
    floor = 1e-3 * min(line.mean[i] for i in kept)
    return Line(
        [line.x[i] for i in kept],
        [line.mean[i] / first for i in kept],
        [max(line.low[i], floor) / first for i in kept],
        [line.high[i] / first for i in kept],
    )


def _surprise_panel(row: Row, lines: Mapping[str, Line]) -> str:
    values = sorted(value for line in lines.values() for value in line.mean)
    low, high = min(values[0], 0.8), max(values[-1], 1.25)
    legend = 5 + 15 * len(lines)
    names = told_apart(list(lines), 32)
    size = (max(SMALL[0], 74 + LETTER * max(map(len, names.values()))), SMALL[1] + legend)
    panel = Panel.of(size, (0, max(line.x[-1] for line in lines.values())), (low, high), log_y=True,
                     margins=(24, 12, 22 + legend, 38))  # fmt: skip
    panel.axes()
    paint = colour(row.contender)
    for i, (memory, line) in enumerate(lines.items()):
        dash = DASHES[i % len(DASHES)]
        panel.line(line, paint, 1.8, dash, name=f"{row.name}, {memory}")
        y = SMALL[1] + 15 * i + 11
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        panel.parts.append(f'<path class="l" d="M38 {y - 4:g}h26" stroke="{paint}" stroke-width="1.8"{dashed}/>')
        panel.parts.append(text(70, y, names[memory], "t"))
    panel.title(short(row.name), paint)
    return panel.done(f"Surprise of the memories of {row.name} over the steps, relative to its first value", row.name)


@dataclass(frozen=True)
class _Lane:
    """A memory in the score: its name, its period, and the surprises that are known: steps and values, by step.

    With ``since`` a value is the mean of all writes since the step before, as the rows of the training loss are, which
    is the surprise of the weights. Without, it is that of the latest write at or before its step.
    """

    name: str
    period: int
    steps: Sequence[float]
    values: Sequence[float]
    since: bool = False

    def mean(self, first: int, last: int) -> float | None:
        """The mean of the known surprises of writes in steps first + 1 to last; None if none is known."""
        a, b = bisect_right(self.steps, first), bisect_right(self.steps, last + self.period - 1)
        if self.since:
            found = self.values[a : bisect_right(self.steps, last - 1) + 1]
            return sum(found) / len(found) if found else None
        found = [
            value
            for step, value in zip(self.steps[a:b], self.values[a:b], strict=True)
            if first < self.period * (step // self.period) <= last
        ]
        return sum(found) / len(found) if found else None


def _lanes(measured: Measured, system: Mapping[str, Any]) -> list[_Lane]:
    """The memories of a contender by frequency, the slowest first, as in the description, whether looked at or not."""
    lanes = []
    for memory in sorted(system["memories"], key=lambda memory: (-memory["period"], memory["level"])):
        weights = memory["home"] == "weights"
        found = measured.training if weights else measured.surprises.get(memory["name"])
        points = found or Points((), ())
        lanes.append(_Lane(memory["name"], memory["period"], points.x, points.mean, since=weights))
    return lanes


WIDTH, LEFT, LANE = 362.0, 112.0, 21.0  # user units: all of it, the least for the names, the height of a lane
CELLS = 120.0  # user units: the least for the boxes, where names that nothing may be cut of need more than the rest
LETTER, LETTERS = 6.0, 28  # user units of one, and how many a name may have
EXACT, WHOLE = 24, 44  # steps shown one by one; boxes of the whole run


def score(row: Row, measured: Measured, system: Mapping[str, Any]) -> str:
    """The level score of a contender: a lane a memory, a box a write, as wide as its period and as dark as its
    surprise; first the beginning step by step, then the whole run, where a box stands for all writes in it. Memories
    at which nobody looked are named below with their periods.
    """
    memories = _lanes(measured, system)
    lanes = [lane for lane in memories if lane.steps]
    names = told_apart([lane.name for lane in lanes], LETTERS)
    left = max([LEFT, *(8 + LETTER * len(names[lane.name] + _every(lane)) for lane in lanes)])
    cells = max(WIDTH - 14 - left, CELLS)
    wide = left + cells + 14
    steps = max((run.steps for run in measured.runs), default=EXACT)
    losses = measured.training
    reached = steps if measured.finished or not losses else int(losses.x[-1])  # nothing is written after a divergence
    exact = min(steps, EXACT if steps > EXACT + WHOLE else steps)
    both = exact < steps
    looks = [steps / lane.steps[-1] * len(lane.steps) for lane in lanes if lane.steps and not lane.since]
    boxes = min(WHOLE, round(max(looks, default=WHOLE)))  # no narrower than the looks, or every other would be empty
    unseen = _unseen([lane for lane in memories if not lane.steps])
    height = 42 + LANE * len(lanes) + 15 * len(unseen)
    paint = colour(row.contender)
    parts = [f'<rect x="0" y="5" width="12" height="4" rx="2" fill="{paint}"/>', text(17, 12, short(row.name), "n")]
    width = cells * 0.42 if both else cells
    for i, lane in enumerate(lanes):
        y = 24 + LANE * i
        parts.append(f"<g><title>{escape(lane.name)}: written every {_steps(lane.period)}</title>")
        parts.append(text(left - 8, y + 13, names[lane.name] + _every(lane), "t", "e") + "</g>")
        shade = _shades(lane)
        writes = range(0, min(exact, reached) - lane.period + 1, lane.period)
        beginning = [(at, at + lane.period) for at in writes]
        parts += _boxes(lane, beginning, (left, width / exact), y, paint, shade)
        if both:
            count = min(boxes, steps // lane.period)
            edges = [round(k * steps / count) for k in range(count + 1)] if count else []
            whole = [span for span in pairwise(edges) if span[0] < reached]
            parts += _boxes(lane, whole, (left + width + 12, (cells - width) / steps), y, paint, shade)
    bottom = 24 + LANE * len(lanes) + 12
    if lanes:
        parts += [text(left, bottom, "0", "t"), text(left + width, bottom, f"step {exact:,}", "t", "e")]
        if both:
            parts += [text(left + width + 12, bottom, "0", "t"), text(wide - 2, bottom, f"{steps:,}", "t", "e")]
    parts += [text(0, bottom + 4 + 15 * (i + 1), line, "t") for i, line in enumerate(unseen)]
    return picture(wide, height, f"When each memory of {row.name} is written, and how surprised", parts, row.name)


def _every(lane: _Lane) -> str:
    return f" /{lane.period}" if lane.period > 1 else ""


def _unseen(lanes: Sequence[_Lane]) -> list[str]:
    """The memories at which nobody looked, in lines of words."""
    if not lanes:
        return []
    names = told_apart([lane.name for lane in lanes], LETTERS)
    said = ", ".join(names[lane.name] + _every(lane) for lane in lanes)
    return wrap(f"no surprise measured: {said}", int(WIDTH / LETTER))


def _steps(period: int) -> str:
    return "step" if period == 1 else f"{period} steps"


def _shades(lane: _Lane) -> tuple[float, float]:
    """Logarithms of the surprises that are drawn lightest and darkest: of a lane's own middle nine tenths."""
    values = np.asarray(lane.values, dtype=float)
    values = values[values > 0]
    if not len(values):
        return 0.0, 1.0
    edge = len(values) // 20
    values = np.partition(values, (edge, len(values) - 1 - edge))
    low, high = math.log(values[edge]), math.log(values[-1 - edge])
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _boxes(
    lane: _Lane,
    spans: Sequence[tuple[int, int]],
    place: tuple[float, float],
    y: float,
    paint: str,
    shade: tuple[float, float],
) -> list[str]:
    """One path a shade: boxes of writes whose surprise is known are coloured, the others are not."""
    start, unit = place
    shapes: dict[int, list[str]] = {}
    for first, last in spans:
        value = lane.mean(first, last)
        level = -1
        if value is not None:
            share = (math.log(value) - shade[0]) / (shade[1] - shade[0]) if value > 0 else 0.0
            level = round(min(max(share, 0.0), 1.0) * (SHADES - 1))
        gap = 1.0 if unit * (last - first) > 2.5 else 0.5
        x, wide = start + unit * first + gap / 2, max(unit * (last - first) - gap, 0.4)
        shapes.setdefault(level, []).append(f"M{x:.1f} {y:.1f}h{wide:.1f}v{LANE - 4:g}h-{wide:.1f}z")
    drawn = []
    for level, paths in sorted(shapes.items()):
        look = f'fill-opacity="{0.12 + 0.88 * level / (SHADES - 1):.2f}"' if level >= 0 else 'class="u"'
        fill = f' fill="{paint}"' if level >= 0 else ""
        drawn.append(f'<path d="{"".join(paths)}"{fill} {look}/>')
    return drawn
