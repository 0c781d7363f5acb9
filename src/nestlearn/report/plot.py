"""Small plots as SVG, written directly: axes, grid, lines with bands, and labels that do not overlap.

A report has dozens of small panels, each with its own axes; matplotlib takes about a tenth of a second for one, most
of it in laying out ticks, and knows nothing of the page's colours. Here a panel is a few short strings: colours are
CSS variables, words are the page's own text, and sizes are such that a panel is readable at one scale on a desktop
and on a telephone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from nestlearn.report.thinning import Line

__all__ = ["Panel", "Scale", "apart", "band", "number", "of_one", "path", "picture", "text"]


@dataclass(frozen=True)
class Scale:
    """Numbers from ``low`` to ``high`` on user units from ``start`` to ``end``, evenly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            share = (math.log(max(value, 1e-300)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        share = min(max(share, -9.0), 9.0)  # far outside is outside: the panel cuts it off
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most about ``most`` round numbers between low and high."""
        return self._log_ticks(most) if self.log else list(_even_ticks(self.low, self.high, most))

    def _log_ticks(self, most: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for heads in ((1, 2, 5), (1, 3), (1,)):
            found = [h * 10.0**power for power in range(first, last + 1) for h in heads]
            found = [tick for tick in found if self.low <= tick <= self.high]
            if len(found) <= most:
                break
        every = -(-len(found) // most) or 1
        if len(found) < 2:
            return list(_even_ticks(self.low, self.high, most))
        return found[::every]


def _even_ticks(low: float, high: float, most: int) -> Iterator[float]:
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((s * power for s in (1, 2, 5) if s * power >= rough), 10 * power)
    for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield float(f"{i * step:.12g}")


def number(value: float) -> str:
    """A number for an axis: short, and with thousands as 10k."""
    if abs(value) >= 10_000 and value % 1000 == 0:
        return f"{value / 1000:g}k" if abs(value) < 1e6 else f"{value / 1e6:g}M"
    return f"{value:g}"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "") -> str:
    """A word or line of text; ``kind`` is a class of the page's style sheet, ``anchor`` "m" (middle) or "e" (end)."""
    classes = " ".join(filter(None, (kind, anchor)))
    named = f' class="{classes}"' if classes else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def path(points: Sequence[tuple[float, float]], colour: str, width: float = 1.5, dash: str = "") -> str:
    """A line through points, in user units."""
    if not points:
        return ""
    where = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="l" d="{where}" stroke="{colour}" stroke-width="{width:g}"{dashes}/>'


def band(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], colour: str) -> str:
    """The area between two lines."""
    around = [*upper, *reversed(lower)]
    return f'<path class="b" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in around)}Z" fill="{colour}"/>'


def picture(width: float, height: float, name: str, parts: Sequence[str], of: str = "", read: str = "") -> str:
    """One ``<svg>`` that scales with the page and says what it shows; ``of`` and ``read`` as in ``Panel``."""
    more = (f' data-of="{escape(of)}"' if of else "") + (f' data-read="{escape(read)}"' if read else "")
    return (
        f'<svg class="plot" role="img" aria-label="{escape(name)}" viewBox="0 0 {width:g} {height:g}"{more}'
        f' style="--wide: {width:g}">'
        f"{''.join(parts)}</svg>"
    )


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least ``gap`` apart, each near its wanted one (ascending), inside the limits."""
    groups: list[list[float]] = []  # values less their rank times gap: a group is a run of labels that touch
    for rank, value in enumerate(wanted):
        groups.append([value - rank * gap])
        while len(groups) > 1 and _middle(groups[-2]) > _middle(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [_middle(group) for group in groups for _ in group]
    top = max(high - (len(places) - 1) * gap, low)
    return [min(max(place, low), top) + rank * gap for rank, place in enumerate(places)]


def _middle(group: Sequence[float]) -> float:
    return sum(group) / len(group)


@dataclass
class Panel:
    """A plot under way: a frame of so many user units, its two scales, and what has been drawn in it."""

    width: float
    height: float
    x: Scale
    y: Scale
    parts: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)  # cut off at the frame
    read: list[Any] = field(default_factory=list)  # lines whose values a reader of the page may ask for

    @classmethod
    def of(
        cls,
        size: tuple[float, float],
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        margins: tuple[float, float, float, float] = (24, 12, 22, 38),
        log_x: bool = False,
        log_y: bool = False,
    ) -> Panel:
        """A panel of that size for those limits; margins are top, right, bottom and left."""
        (width, height), (top, right, bottom, left) = size, margins
        return cls(
            width,
            height,
            Scale(*_open(x), left, width - right, log_x),
            Scale(*_open(y), height - bottom, top, log_y),
        )

    def axes(self, ticks_x: int = 4, ticks_y: int = 4, label_x: str = "", label_y: str = "") -> None:
        """Grid lines with their numbers, and what the axes are."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        for tick in self.y.ticks(ticks_y):
            y = self.y(tick)
            self.parts.append(f'<path class="g" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
            self.parts.append(text(left - 6, y + 4, number(tick), "t", "e"))
        for tick in self.x.ticks(ticks_x):
            x = self.x(tick)
            self.parts.append(f'<path class="g" d="M{x:.1f} {bottom:.1f}V{top:.1f}"/>')
            self.parts.append(text(x, bottom + 15, number(tick), "t", "m"))
        if label_x:
            self.parts.append(text((left + right) / 2, bottom + 31, label_x, "t", "m"))
        if label_y:
            self.parts.append(text(4, top - 10, label_y, "t"))

    def title(self, words: str, colour: str) -> None:
        """The panel's name at its top left, behind a mark in its colour."""
        self.parts.append(f'<rect x="{self.x.start:.1f}" y="5" width="12" height="4" rx="2" fill="{colour}"/>')
        self.parts.append(text(self.x.start + 17, 12, words, "n"))

    def points(self, x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
        """Numbers as places in user units."""
        return [(self.x(a), self.y(b)) for a, b in zip(x, y, strict=True)]

    def line(
        self, line: Line, colour: str, width: float = 1.8, dash: str = "", ranged: bool = True, name: str = ""
    ) -> None:
        """A line, over the band of its range; one with a ``name`` says its values when it is asked for them."""
        if name:
            self.read.append([name, colour, dash, [_digits(x) for x in line.x], [_digits(y) for y in line.mean]])
        if ranged and any(low < high for low, high in zip(line.low, line.high, strict=True)):
            self.inside.append(band(self.points(line.x, line.high), self.points(line.x, line.low), colour))
        self.inside.append(path(self.points(line.x, line.mean), colour, width, dash))

    def done(self, name: str, of: str = "") -> str:
        """The finished picture; ``of``: whose it is, if it is that of one contender."""
        left, top = self.x.start, self.y.end
        width, height = self.x.end - left, self.y.start - top
        pad = 3  # a line along the edge keeps its width
        x, y, w, h = (f"{v:g}" for v in (left - pad, top - pad, width + 2 * pad, height + 2 * pad))
        frame = f'x="{x}" y="{y}" width="{w}" height="{h}" viewBox="{x} {y} {w} {h}"'
        inside = f'<svg role="presentation" {frame}>{"".join(self.inside)}</svg>'
        return picture(self.width, self.height, name, [*self.parts, inside], of, self._readable())

    def _readable(self) -> str:
        """What the script of the page needs to say values: both scales, and the points of the lines.

        A line has [name, colour, dashes, x, y]; its x is 0 where it is that of the first.
        """
        scales = [[s.start, s.end, s.low, s.high, int(s.log)] for s in (self.x, self.y)]
        if not self.read or not all(map(math.isfinite, scales[0] + scales[1])):
            return ""
        first = self.read[0][3]
        lines = [[*line[:3], 0 if i and line[3] == first else line[3], line[4]] for i, line in enumerate(self.read)]
        return json.dumps([*scales, lines], separators=(",", ":"), allow_nan=False)


def _digits(value: float) -> float | int | None:
    """A value as it is read off a picture: whole, or with four digits; None if it is beyond all numbers."""
    if not math.isfinite(value):
        return None
    return int(value) if abs(value) < 1 << 53 and value == int(value) else float(f"{value:.4g}")


def of_one(name: str, *parts: str) -> str:
    """What belongs to one contender of several in a picture; the page can bring it out."""
    return f'<g data-of="{escape(name)}">{"".join(parts)}</g>'


def _open(limits: tuple[float, float]) -> tuple[float, float]:
    """Limits that leave room between them."""
    low, high = limits
    return (low, high) if high > low else (low, low + (abs(low) or 1.0) * 0.1)
