"""The nesting as a picture, in the manner of the seed article's figures 1 and 2.

The outer box is the weights with their rule. Inside are the memories that this rule consults, side by side where they
share a level, and inside of those whatever writes them. A line leads from each memory to the rule that reads its
answer. One SVG without any other file: text takes the colour of the page around it, levels have colours that stand out
on light and on dark paper, and a page may set ``--nest-1`` to ``--nest-6`` to use its own.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from nestlearn.describe.system import WEIGHTS, Memory, NestedSystem
from nestlearn.describe.table import apart, every, headline, readable_bytes, shown, written

__all__ = ["draw"]

WIDTH = 440
MARGIN = 8
PADDING = 12
RAIL = 16
"""Room at the left of inner boxes for the line that leads from them to the rule around them."""

BUS = 24
"""Room above a row of inner boxes for the lines that branch off to them."""

COLOURS = ("#3f7fd6", "#d9772b", "#2f9d6c", "#9464d4", "#c9487a", "#2a97a3")
"""One a level."""

LAYERS_SHOWN = 8

OWN_PAPER = (
    ".nl-nest:root{color:#1d2129;background:#fdfdfc}"
    "@media (prefers-color-scheme:dark){.nl-nest:root{color:#e6e8ec;background:#14161a}}"
)
"""Ink and paper where the picture is a document of its own; inside a page it takes the page's."""


def draw(system: NestedSystem) -> str:
    """The picture of a system and of what its other parameters follow."""
    pen = _Pen()
    y = pen.paragraph(MARGIN, 22, headline(system), WIDTH - 2 * MARGIN, size=15, bold=True)
    for part in system.everything:
        first = part is system
        heading = part.covers if first else apart(part, system)
        y = pen.paragraph(MARGIN, y + (2 if first else 22), heading, WIDTH - 2 * MARGIN, faint=True) - 4
        y = _outermost(pen, part, y)
    legend = "A box is consulted by the rule of the box around it; each level has a colour, level 1 is the slowest."
    y = pen.paragraph(MARGIN, y + 16, legend, WIDTH - 2 * MARGIN, size=11, faint=True)
    label = escape(f"Nesting of {headline(system)}", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nl-nest" viewBox="0 0 {WIDTH} {y:.0f}" role="img" '
        f'aria-label="{label}" font-family="system-ui, sans-serif" fill="currentColor" '
        f'style="max-width:{1.6 * WIDTH:.0f}px;width:100%;height:auto">'
        f"<title>{escape(headline(system))}</title><desc>{escape(_words(system))}</desc><style>{OWN_PAPER}</style>"
        f"{''.join(pen.parts)}</svg>"
    )


def _words(system: NestedSystem) -> str:
    """The picture in a sentence a memory, for those who cannot see it."""
    return " ".join(
        f"{memory.name}, level {memory.level}, {every(memory.period)}, shown {shown(memory)}"
        + (f", consulted by {memory.consulted_by}." if memory.consulted_by else ".")
        for part in system.everything
        for memory in part.memories
    )


@dataclass
class _Pen:
    """Collects the elements of a picture."""

    parts: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, words: str, *, size: float = 12, bold: bool = False, faint: bool = False,
        code: bool = False, end: bool = False, colour: str = "",
    ) -> None:  # fmt: skip
        """One line of text; y is its baseline."""
        look = [f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"']
        look += ['font-weight="650"'] if bold else []
        look += ['fill-opacity="0.68"'] if faint else []
        look += ['font-family="ui-monospace, monospace"'] if code else []
        look += ['text-anchor="end"'] if end else []
        look += [f'style="fill:{colour}"'] if colour else []
        self.parts.append(f"<text {' '.join(look)}>{escape(words)}</text>")

    def paragraph(
        self, x: float, y: float, words: str, width: float, *, size: float = 12, bold: bool = False,
        faint: bool = False, code: bool = False,
    ) -> float:  # fmt: skip
        """Text wrapped into ``width``, its first baseline at y; returns the baseline after the last line."""
        fits = max(8, int(width / (size * (0.61 if code else 0.63 if bold else 0.51))))
        for line in textwrap.wrap(words, fits, break_on_hyphens=False):
            self.text(x, y, line, size=size, bold=bold, faint=faint, code=code)
            y += size * 1.36
        return y

    def box(
        self, x: float, y: float, width: float, height: float, colour: str, *, at: int, strength: float = 0.09,
        round: float = 10,
    ) -> None:  # fmt: skip
        """A tinted rectangle, put before the element number ``at`` so that it lies behind what follows."""
        self.parts.insert(
            at,
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round:g}" '
            f'style="fill:{colour};stroke:{colour}" fill-opacity="{strength:g}" stroke-width="1.4"/>',
        )

    def line(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.parts.append(f'<path d="{path}" fill="none" style="stroke:{colour}" stroke-width="1.6"/>')

    def arrow(self, x: float, y: float, colour: str) -> None:
        """A head that points up, its tip at (x, y)."""
        self.parts.append(f'<path d="M{x:.1f} {y:.1f} l-4 7 h8 z" style="fill:{colour}"/>')


def _colour(level: int) -> str:
    number = (level - 1) % len(COLOURS)
    return f"var(--nest-{number + 1}, {COLOURS[number]})"


def _outermost(pen: _Pen, system: NestedSystem, y: float) -> float:
    """The weights of a system as one box, and beside its nesting the memories that only look on."""
    weights = [memory for memory in system.memories if memory.home == "weights"]
    onlookers = [memory for memory in system.memories if memory.home != "weights" and not memory.consulted_by]
    if weights:
        y += _nested(pen, weights, system, MARGIN, y, WIDTH - 2 * MARGIN)
    for memory in onlookers:
        y += 10
        y += _nested(pen, [memory], system, MARGIN, y, WIDTH - 2 * MARGIN)
    return y


def _nested(
    pen: _Pen, members: Sequence[Memory], system: NestedSystem, x: float, y: float, width: float, least: float = 0
) -> float:
    """Draw one memory (or all weights) with what its rule consults, at least so high; returns the height."""
    memory, start, top = members[0], len(pen.parts), y
    name = WEIGHTS if memory.home == "weights" else memory.name
    colour = _colour(memory.level)
    inner, room = x + PADDING, width - 2 * PADDING
    y = _heading(pen, members, inner, y + 20, room, colour)
    inside = [other for other in system.memories if other.consulted_by == name]
    banded = memory.home == "weights" or bool(inside)
    y = _facts(pen, memory, inner, y, room, with_rule=not banded)
    if banded:
        where = {name: text for name, text in system.where.items() if memory.home == "weights" and text != "g"}
        y = _rule(pen, memory, where, inner, y - 2, room, colour)
    if inside:
        y = _inside(pen, inside, system, inner, y, room, colour)
    height = max(y + (8 if banded else 0) - top, least)
    pen.box(x, top, width, height, colour, at=start)
    return height


def _heading(pen: _Pen, members: Sequence[Memory], x: float, y: float, room: float, colour: str) -> float:
    memory = members[0]
    own = memory.name.rpartition(".")[2] if memory.consulted_by else memory.name
    own = WEIGHTS if memory.home == "weights" else own
    pace = f"level {memory.level}, {every(memory.period)}"
    words = f"{own.replace('_', ' ')}{f' ({memory.symbol})' if memory.symbol not in ('', own) else ''}"
    narrow = room < 250
    below = pen.paragraph(x, y, words, room if narrow else room - 150, size=14, bold=True)
    if narrow:
        pen.text(x, below - 2, pace, size=11.5, colour=colour, bold=True)
        y = below - 2
    else:
        pen.text(x + room, y, pace, size=11.5, end=True, colour=colour, bold=True)
        y = below - 19
    entries, size = sum(one.parameters for one in members), sum(one.bytes for one in members)
    model = memory.model if len(members) == 1 else f"{len(members)} kinds of layers"
    y = pen.paragraph(x, y + 17, f"{model}; {entries:,} entries, {readable_bytes(size)}", room, faint=True)
    if len(members) > 1:
        for one in members[:LAYERS_SHOWN]:
            y = pen.paragraph(x, y, f"{one.name}: {one.model}", room, size=11.5, code=True)
        if len(members) > LAYERS_SHOWN:
            y = pen.paragraph(x, y, f"and {len(members) - LAYERS_SHOWN} more", room, faint=True)
    return y


def _facts(pen: _Pen, memory: Memory, x: float, y: float, room: float, *, with_rule: bool) -> float:
    """What a memory is shown, how it is judged, and, unless a rule with memories follows, how it is written."""
    facts = [("shown", shown(memory)), ("objective", memory.objective)]
    facts += [("rule", written(memory))] if with_rule else []
    facts += [("surprise", f"{memory.surprise:.3g}")] if memory.surprise is not None else []
    indent = 60
    for label, words in facts:
        below = room < 250 and len(words) * 7 > room - indent
        pen.text(x, y, label, size=11.5, faint=True)
        shift = 0 if below else indent
        y = pen.paragraph(x + shift, y + 15 * below, _typeset(words), room - shift, size=11.5, code=True) + 1
    return y


def _typeset(words: str) -> str:
    return words.replace("<-", "←").replace("->", "→")


def _rule(pen: _Pen, memory: Memory, where: Mapping[str, str], x: float, y: float, room: float, colour: str) -> float:
    """The band with the rule that reads the memories below it, and the definitions that it uses."""
    start, top = len(pen.parts), y
    bottom = pen.paragraph(x + 8, y + 16, _typeset(written(memory)), room - 16, size=11.5, code=True)
    for name, text in where.items():
        bottom = pen.paragraph(x + 8, bottom, f"{name} = {text}", room - 16, size=11.5, code=True, faint=True)
    pen.box(x, top, room, bottom - top - 4, colour, at=start, strength=0.16, round=6)
    return bottom - 4


def _inside(
    pen: _Pen, inside: Sequence[Memory], system: NestedSystem, x: float, y: float, room: float, colour: str
) -> float:
    """The consulted memories in rows, and the lines from them to the rule at y."""
    rail = x + 6
    left, width = x + RAIL, room - RAIL
    rule, last = y, y
    pen.arrow(rail, rule, colour)
    for row in _rows(inside, {other.consulted_by for other in system.memories}):
        bus, top = y + 12, y + BUS
        share = (width - 10 * (len(row) - 1)) / len(row)
        for place in range(len(row)):
            middle = left + place * (share + 10) + share / 2
            pen.line([(rail, bus), (middle, bus), (middle, top)], colour)
        # Neighbours are made equally high. They consult nothing, so measuring them beforehand is no second recursion.
        heights = [_nested(_Pen(), [memory], system, left, top, share) for memory in row if len(row) > 1]
        drawn = [
            _nested(pen, [memory], system, left + place * (share + 10), top, share, max(heights, default=0))
            for place, memory in enumerate(row)
        ]
        last, y = bus, top + max(drawn)
    pen.line([(rail, rule + 6), (rail, last)], colour)
    return y


def _rows(inside: Sequence[Memory], asked: set[str]) -> list[list[Memory]]:
    """Two memories a row where they share a level and consult nothing; a memory with memories has a row of its own."""
    rows: list[list[Memory]] = []
    for memory in inside:
        (neighbour,) = rows[-1] if rows and len(rows[-1]) == 1 else (None,)
        if neighbour and neighbour.level == memory.level and not {neighbour.name, memory.name} & asked:
            rows[-1].append(memory)
        else:
            rows.append([memory])
    return rows
