"""The nesting as a picture, in the manner of the seed article's figures 1 and 2.

The outer box is the weights with their rule. Inside are the memories that this rule consults, side by side where they
share a level, and inside of those whatever writes them. A line leads from each memory to the rule that reads its
answer. One SVG without any other file: text takes the colour of the page around it, levels have colours that stand out
on light and on dark paper, and a page may set ``--nest-1`` to ``--nest-6`` to use its own.
"""

from collections.abc import Mapping, Sequence
from html import escape

from nestlearn.descriptions.data import WEIGHTS, Data
from nestlearn.descriptions.pen import Pen
from nestlearn.descriptions.table import (
    answer,
    apart,
    began,
    definitions,
    every,
    headline,
    of_a_sequence,
    readable_bytes,
    readers,
    short,
    shown,
    size,
    tokens,
    written,
)
from nestlearn.memory.described import Described

__all__ = ["draw"]

WIDTH = 440
MARGIN = 8
PADDING = 12
RAIL = 16
"""Room at the left of inner boxes for the line that leads from them to the rule around them."""

GAP = 10
"""Between boxes that stand side by side or one below the other."""

BUS = 24
"""Room above a row of inner boxes for the lines that branch off to them."""

COLOURS = ("#3f7fd6", "#d9772b", "#2f9d6c", "#9464d4", "#c9487a", "#2a97a3")
"""One a level."""

LAYERS_SHOWN = 16

OWN_PAPER = (
    ".nl-nest:root{color:#1d2129;background:#fdfdfc}"
    "@media (prefers-color-scheme:dark){.nl-nest:root{color:#e6e8ec;background:#14161a}}"
)
"""Ink and paper where the picture is a document of its own; inside a page it takes the page's."""


def draw(system: Data) -> str:
    """The picture of a system and of what its other parameters follow."""
    pen = Pen()
    y = pen.paragraph(MARGIN, 22, headline(system), WIDTH - 2 * MARGIN, size=15, bold=True)
    for part in system.everything:
        first = part is system
        heading = part.covers if first else apart(part, system)
        y = pen.paragraph(MARGIN, y + (2 if first else 22), heading, WIDTH - 2 * MARGIN, faint=True) - 4
        y = _outermost(pen, part, y)
    y = _carried(pen, system, y)
    legend = "A box is consulted by the rule of the box around it; each level has a colour, level 1 is the slowest."
    y = pen.paragraph(MARGIN, y + 16, legend, WIDTH - 2 * MARGIN, size=11, faint=True)
    label = escape(f"Nesting of {headline(system)}", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nl-nest" width="{WIDTH}" height="{y:.0f}" '
        f'viewBox="0 0 {WIDTH} {y:.0f}" role="img" '
        f'aria-label="{label}" font-family="system-ui, sans-serif" fill="currentColor" '
        f'style="max-width:100%;height:auto">'
        f"<title>{escape(headline(system))}</title><desc>{escape(_words(system))}</desc><style>{OWN_PAPER}</style>"
        f"{''.join(pen.parts)}</svg>"
    )


def _words(system: Data) -> str:
    """The picture in a sentence a memory, for those who cannot see it."""
    return " ".join(
        f"{memory.name}, level {memory.level}, {every(memory)}, shown {shown(memory)}"
        + (f", consulted by {memory.consulted_by}." if memory.consulted_by else ".")
        for part in system.everything
        for memory in part.memories
    )


def _colour(level: int) -> str:
    number = (level - 1) % len(COLOURS)
    return f"var(--nest-{number + 1}, {COLOURS[number]})"


def _outermost(pen: Pen, system: Data, y: float) -> float:
    """The weights of a system as one box, and beside its nesting the memories that only look on."""
    weights = [memory for memory in system.memories if memory.home == "weights"]
    onlookers = [
        memory
        for memory in system.memories
        if memory.unit == "step" and memory.home != "weights" and not memory.consulted_by
    ]
    if weights:
        y += _nested(pen, weights, system, MARGIN, y, WIDTH - 2 * MARGIN)
    for memory in onlookers:
        y += GAP
        y += _nested(pen, [memory], system, MARGIN, y, WIDTH - 2 * MARGIN)
    return y


def _carried(pen: Pen, system: Data, y: float) -> float:
    """The memories that tokens write, below the weights that they start from."""
    carried = [memory for memory in tokens(system) if not memory.consulted_by]
    if carried:
        heading = f"In every sequence, written by its tokens: {of_a_sequence(system)}"
        y = pen.paragraph(MARGIN, y + 22, heading, WIDTH - 2 * MARGIN, faint=True) - 4
    for number, row in enumerate(_rows(carried, {other.consulted_by for other in system.memories})):
        y = _row(pen, row, system, MARGIN, y + GAP * (number > 0), WIDTH - 2 * MARGIN)
    return y


def _nested(
    pen: Pen, members: Sequence[Described], system: Data, x: float, y: float, width: float, least: float = 0
) -> float:
    """Draw one memory (or all weights) with what its rule consults, at least so high; returns the height."""
    memory, start, top = members[0], len(pen.parts), y
    name = WEIGHTS if memory.home == "weights" else memory.name
    colour = _colour(memory.level)
    inner, room = x + PADDING, width - 2 * PADDING
    y = _heading(pen, members, inner, y + 20, room, colour)
    inside = [other for other in system.memories if other.consulted_by == name]
    banded = memory.home == "weights" or bool(inside)
    above = next((other for other in system.memories if other.name == memory.consulted_by), None)
    y = _facts(pen, memory, above, inner, y, room, with_rule=not banded)
    if banded:
        where = {name: text for name, text in definitions(system).items() if memory.home == "weights" and text != "g"}
        y = _rule(pen, memory, where, inner, y - 2, room, colour)
    if inside:
        y = _inside(pen, inside, system, inner, y, room, colour)
    height = max(y + (8 if banded else 0) - top, least)
    pen.box(x, top, width, height, colour, at=start)
    return height


def _heading(pen: Pen, members: Sequence[Described], x: float, y: float, room: float, colour: str) -> float:
    memory = members[0]
    own = memory.name.rpartition(".")[2] if memory.consulted_by else memory.name
    own = WEIGHTS if memory.home == "weights" else own
    pace = f"level {memory.level}, {every(memory)}"
    words = f"{own.replace('_', ' ')}{f' ({memory.symbol})' if memory.symbol not in ('', own) else ''}"
    narrow = room < 250
    below = pen.paragraph(x, y, words, room if narrow else room - 150, size=14, bold=True)
    if narrow:
        pen.text(x, below - 2, pace, size=11.5, colour=colour, bold=True)
        y = below - 2
    else:
        pen.text(x + room, y, pace, size=11.5, end=True, colour=colour, bold=True)
        y = below - 19
    entries = sum(one.parameters for one in members)
    held = size(memory) if len(members) == 1 else readable_bytes(sum(one.bytes for one in members))
    model = memory.model if len(members) == 1 else f"{len(members)} kinds of layers"
    model = f"{memory.count} x {model}" if memory.unit == "token" else model
    y = pen.paragraph(x, y + 17, f"{model}; {entries:,} entries, {held}", room, faint=True)
    if len(members) > 1:
        for one in members[:LAYERS_SHOWN]:
            y = pen.paragraph(x, y, f"{one.name}: {one.model}", room, size=11.5, code=True)
        if len(members) > LAYERS_SHOWN:
            y = pen.paragraph(x, y, f"and {len(members) - LAYERS_SHOWN} more", room, faint=True)
    return y


def _facts(
    pen: Pen, memory: Described, above: Described | None, x: float, y: float, room: float, *, with_rule: bool
) -> float:
    """What a memory is shown, how it is judged, and, unless a rule with memories follows, how it is written."""
    facts = [("shown", shown(memory)), ("objective", memory.objective)]
    same = above is not None and written(above) == written(memory)
    facts += [("rule", f"that of {short(above.name)}" if above and same else written(memory))] * with_rule
    facts += _by_tokens(memory, above) if memory.unit == "token" else []
    facts += [("surprise", f"{memory.surprise:.3g}")] if memory.surprise is not None else []
    indent = 60
    for label, words in facts:
        below = room < 250 and len(words) * 7 > room - indent
        pen.text(x, y, label, size=11.5, faint=True)
        shift = 0 if below else indent
        y = pen.paragraph(x + shift, y + 15 * below, _typeset(words), room - shift, size=11.5, code=True) + 1
    return y


def _by_tokens(memory: Described, above: Described | None) -> list[tuple[str, str]]:
    """Where a memory of a sequence starts and how long its chunks are, if the memory that asks it has not said so, what
    it is asked and who reads the answer.
    """
    facts = [] if above and above.starts_from == memory.starts_from else [("starts at", began(memory))]
    chunk = 1 if above and above.chunk == memory.chunk else memory.chunk
    facts += [("chunk", f"{chunk} tokens")] if chunk > 1 else []
    facts += [("asked", memory.query)] if memory.query else []
    return [*facts, ("answers", f"{answer(memory)} to {readers(memory)}")]


def _typeset(words: str) -> str:
    return words.replace("<-", "←").replace("->", "→")


def _rule(pen: Pen, memory: Described, where: Mapping[str, str], x: float, y: float, room: float, colour: str) -> float:
    """The band with the rule that reads the memories below it, and the definitions that it uses."""
    start, top = len(pen.parts), y
    bottom = pen.paragraph(x + 8, y + 16, _typeset(written(memory)), room - 16, size=11.5, code=True)
    for name, text in where.items():
        bottom = pen.paragraph(x + 8, bottom, f"{name} = {text}", room - 16, size=11.5, code=True, faint=True)
    pen.box(x, top, room, bottom - top - 4, colour, at=start, strength=0.16, round=6)
    return bottom - 4


def _inside(pen: Pen, inside: Sequence[Described], system: Data, x: float, y: float, room: float, colour: str) -> float:
    """The consulted memories in rows, and the lines from them to the rule at y."""
    rail = x + 6
    left, width = x + RAIL, room - RAIL
    rule, last = y, y
    pen.arrow(rail, rule, colour)
    for row in _rows(inside, {other.consulted_by for other in system.memories}):
        bus, top = y + 12, y + BUS
        share = (width - GAP * (len(row) - 1)) / len(row)
        for place in range(len(row)):
            middle = left + place * (share + GAP) + share / 2
            pen.line([(rail, bus), (middle, bus), (middle, top)], colour)
        last, y = bus, _row(pen, row, system, left, top, width)
    pen.line([(rail, rule + 6), (rail, last)], colour)
    return y


def _row(pen: Pen, row: Sequence[Described], system: Data, x: float, top: float, width: float) -> float:
    """Memories side by side; returns where they end."""
    share = (width - GAP * (len(row) - 1)) / len(row)
    # Neighbours are made equally high. They consult nothing, so measuring them beforehand is no second recursion.
    heights = [_nested(Pen(), [memory], system, x, top, share) for memory in row if len(row) > 1]
    return top + max(
        _nested(pen, [memory], system, x + place * (share + GAP), top, share, max(heights, default=0))
        for place, memory in enumerate(row)
    )


def _rows(inside: Sequence[Described], asked: set[str]) -> list[list[Described]]:
    """Two memories a row where they share a level and consult nothing; a memory with memories has a row of its own."""
    rows: list[list[Described]] = []
    for memory in inside:
        (neighbour,) = rows[-1] if rows and len(rows[-1]) == 1 else (None,)
        if neighbour and neighbour.level == memory.level and not {neighbour.name, memory.name} & asked:
            rows[-1].append(memory)
        else:
            rows.append([memory])
    return rows
