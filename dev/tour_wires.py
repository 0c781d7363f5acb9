"""The first pictures of docs/tour.md: letters and what a reader answers to them, and weights as wires."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from nestlearn.report.colours import colour
from nestlearn.report.plot import Panel, Scale, path, picture, text

__all__ = ["letters", "wires"]

WIDTH = 760.0
DOT = 15.0
"""Side of a dot of a letter."""

BEFORE, AFTER = "var(--soft)", colour("DeepMomentum")
SPOKEN = ("“a”", "“b”", "“ya”")


def letters(page: Mapping[str, Any]) -> str:
    """Every letter beside what it sounds like to the reader, before the lesson and after it."""
    parts, column = [], WIDTH / len(page["shapes"])
    for place, (name, shape) in enumerate(page["shapes"].items()):
        left = place * column
        parts += _letter(left + 8, 34, shape)
        parts.append(text(left + 8, 22, f"shown {name}", "n"))
        parts += _answers(left + 132, 34, (page["before"][name], page["after"][name]))
    parts += _key(8, 146, (("before a lesson in Cyrillic", BEFORE), ("after it", AFTER)))
    return picture(WIDTH, 156, "Three letters, and how they sound to a reader before and after a lesson", parts)


def _letter(left: float, top: float, shape: str) -> list[str]:
    """The dots of a letter: filled squares, and empty ones as wires that carry nothing."""
    return [
        f'<rect x="{left + DOT * x:.1f}" y="{top + DOT * y:.1f}" width="{DOT - 2:g}" height="{DOT - 2:g}" rx="2" '
        f'fill="{"var(--ink)" if dot == "#" else "var(--quiet)"}"/>'
        for y, row in enumerate(shape.split())
        for x, dot in enumerate(row)
    ]


def _answers(left: float, top: float, answers: tuple[Tensor, Tensor]) -> list[str]:
    """A pair of bars for every sound."""
    scale, parts = Scale(-0.5, 1.05, left, left + 112), []
    for row, sound in enumerate(SPOKEN):
        y = top + 26 * row
        parts.append(text(left - 8, y + 13, sound, "t", "e"))
        for line, (answer, paint) in enumerate(zip(answers, (BEFORE, AFTER), strict=True)):
            start, end = sorted((scale(0), scale(answer[row].item())))
            parts.append(
                f'<rect x="{start:.1f}" y="{y + 9 * line:.1f}" width="{max(end - start, 0.5):.1f}" height="8" '
                f'fill="{paint}"/>'
            )
    parts.append(path([(scale(0), top - 3), (scale(0), top + 26 * len(SPOKEN) - 5)], "var(--ink)", 1))
    return parts


def _key(left: float, y: float, keys: Sequence[tuple[str, str]]) -> list[str]:
    parts = []
    for words, paint in keys:
        parts.append(f'<rect x="{left:.1f}" y="{y - 8:.1f}" width="16" height="8" fill="{paint}"/>')
        parts.append(text(left + 23, y, words))
        left += 56 + 6.4 * len(words)
    return parts


def wires(page: Mapping[str, Any], beside: Callable[[str, Sequence[Panel]], str]) -> str:
    """Two ways for wires to lie and their answers to one input; and wires that are moved by experiences."""
    size = ((WIDTH - 16) / 2, 250)
    left = Panel.of(size, (-2, 2), (-1, 13.5), margins=(24, 8, 40, 34))
    left.axes(5, 5, "input x", "output")
    for wiring, words, paint in (
        (page["two"], "2x + 5", colour("Momentum")),
        (page["three"], "3x + 7", colour("DeepMomentum")),
    ):
        slope, offset = wiring.tolist()
        ends = [(x, slope * x + offset) for x in (-2, 2)]
        left.inside.append(path(left.points(*zip(*ends, strict=True)), paint, 2.2))
        answer = slope + offset
        x, y = left.x(1), left.y(answer)
        left.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{paint}"/>')
        aside = (
            (x - 10, y - 9, f"{words} = {answer:g}", "", "e")
            if slope > 2
            else (x + 10, y + 16, f"{words} = {answer:g}")
        )
        left.parts.append(text(*aside))
    left.inside.append(path([(left.x(1), left.y.start), (left.x(1), left.y.end)], "var(--soft)", 1, "2 4"))
    seen = len(page["wiring"])
    right = Panel.of(size, (0, seen - 1), (1, 7.4), margins=(24, 86, 40, 34))
    right.axes(5, 5, "experiences", "the wires of 3x + 7 learn 2x + 3")
    for entry, words, goal in ((0, "slope", 2.0), (1, "offset", 3.0)):
        paint = colour(("DeepMomentum", "Momentum")[entry])
        right.inside.append(path([(right.x(0), right.y(goal)), (right.x.end, right.y(goal))], "var(--soft)", 1, "2 4"))
        held = page["wiring"][:, entry].tolist()
        right.inside.append(path(right.points(range(seen), held), paint, 2.2))
        right.parts.append(text(right.x.end + 8, right.y(held[-1]) + 4, f"{words} {held[-1]:.2f}"))
    return beside("Outputs of two wirings for the same input, and a wiring while it is moved", [left, right])
