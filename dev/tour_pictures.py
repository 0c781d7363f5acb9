"""The pictures of docs/tour.md, drawn from the variables that the page's own code leaves behind.

Panels, colours and style are those of the reports; the nesting diagrams are those of ``nl.describe``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from tour_wires import letters, wires

from nestlearn.report.colours import colour
from nestlearn.report.page import stand_alone
from nestlearn.report.plot import Panel, number, path, picture, text

__all__ = ["tour_pictures"]

Page = Mapping[str, Any]
Key = tuple[str, str, float, str]
"""A line of a legend: its words, and the colour, width and dashes of what it explains."""

WIDTH, HEIGHT, GAP = 760.0, 250.0, 16.0
DASHED = "5 4"


def tour_pictures(page: Page) -> dict[str, str]:
    """File name -> SVG text of every picture of the tour."""
    drawn = {
        "letters": letters,
        "wires": lambda page: wires(page, _beside),
        "gradient-descent": _gradient_descent,
        "momentum": _momentum,
        "preconditioned-momentum": _preconditioned_momentum,
        "delta-momentum": _delta_momentum,
        "deep-momentum": _deep_momentum,
        "deeper": _deeper,
        "adam": _adam,
        "deep-adam": _deep_adam,
        "m3": _m3,
    }
    pictures = {f"tour-{name}.svg": stand_alone(draw(page)) for name, draw in drawn.items()}
    diagrams = {f"tour-nesting-{name}.svg": system.svg() for name, system in page["systems"].items()}
    return {name: text.rstrip() + "\n" for name, text in (pictures | diagrams).items()}


# ------------------------------------------------------------------------------------------------------------- ravine


def _ravine(page: Page, name: str, beside: str | None = None, width: float = (WIDTH - GAP) / 2) -> Panel:
    """The path of W under a rule, over lines of equal loss; ``beside`` is the path of an earlier rung."""
    panel = Panel.of((width, HEIGHT), (-2.3, 1.7), (-1.3, 1.3), margins=(24, 8, 40, 34))
    _bare_axes(panel, "along the ravine", "across it")
    x, y = _place(panel, page["best_w"])
    for loss in (0.05, 0.3, 1.0, 2.5, 5.0, 9.0):
        # Entries of keys are uniform on [-1, 1] and [-5, 5]: their mean squares are 1/3 and 25/3.
        along = (2 * loss * 3) ** 0.5 * (panel.x(1) - panel.x(0))
        across = (2 * loss * 3 / 25) ** 0.5 * (panel.y(0) - panel.y(1))
        ring = f'<ellipse class="l" cx="{x:.1f}" cy="{y:.1f}" rx="{along:.1f}" ry="{across:.1f}" stroke="var(--soft)"/>'
        panel.inside.append(_faint(ring))
    if beside is not None:
        earlier = _places(panel, page["paths"][beside])
        panel.inside.append(_faint(path(earlier, colour(beside), 1.0)))
    places = _places(panel, page["paths"][name])
    panel.inside += [path(places, colour(name), 1.4), _dots(places, colour(name), 4)]
    panel.inside += [path([(x - 7, y), (x + 7, y)], "var(--ink)", 2), path([(x, y - 7), (x, y + 7)], "var(--ink)", 2)]
    panel.inside.append(_ring(_place(panel, page["start"])))
    return panel


def _bare_axes(panel: Panel, x: str, y: str) -> None:
    """Numbers at the edges without a grid, which would cross the lines of equal loss."""
    left, bottom, right = panel.x.start, panel.y.start, panel.x.end
    panel.parts += [text(left - 6, panel.y(tick) + 4, number(tick), "t", "e") for tick in panel.y.ticks(5)]
    panel.parts += [text(panel.x(tick), bottom + 15, number(tick), "t", "m") for tick in panel.x.ticks(5)]
    panel.parts += [text((left + right) / 2, bottom + 31, x, "t", "m"), text(4, panel.y.end - 10, y, "t")]


def _place(panel: Panel, point: torch.Tensor) -> tuple[float, float]:
    """A point [2] in user units."""
    return _places(panel, point[None])[0]


def _places(panel: Panel, points: torch.Tensor) -> list[tuple[float, float]]:
    """Points [n, 2] in user units."""
    return panel.points(points[:, 0].tolist(), points[:, 1].tolist())


def _gradient_descent(page: Page) -> str:
    panel = _ravine(page, "GradientDescent", width=WIDTH)
    for words, point, right, down in (("start", page["start"], 10, -4), ("best W", page["best_w"], 11, -7)):
        x, y = _place(panel, point)
        panel.parts.append(text(x + right, y + down, words))
    return _beside("The path of W under gradient descent, one pair at a time, on the lines of equal loss", [panel])


def _across(page: Page, name: str) -> list[float]:
    """What each pair says across the ravine: the second entry of the gradient at every step of a path."""
    keys, values, path = page["keys"], page["values"], page["paths"][name][:-1]
    return (((path * keys).sum(-1) - values) * keys[:, 1]).tolist()


def _held(page: Page, name: str, memory: str, entry: int) -> list[float]:
    """An entry of what a box holds, after every pair."""
    return [held[memory][entry].item() for held in page["boxes"][name]]


def _root(held: Sequence[float], retention: float) -> list[float]:
    """The root of an average of squares that started at zero, corrected for that start."""
    return [(value / (1 - retention**time)) ** 0.5 for time, value in enumerate(held, 1)]


def _momentum(page: Page) -> str:
    said, held = _across(page, "Momentum"), [value / 10 for value in _held(page, "Momentum", "momentum", 1)]
    right = _lines("across the ravine", "pairs seen", len(said), (-15, 27))
    right.inside.append(_dots(_series(right, said), colour("GradientDescent"), 4))
    right.inside.append(path(_series(right, held), colour("Momentum"), 2.4))
    _legend(right, [_DOTS, ("a tenth of the box", colour("Momentum"), 2.4, "")])
    name = "The path of W under momentum, and what the box holds beside what each pair says"
    return _beside(name, [_ravine(page, "Momentum", "GradientDescent"), right])


def _preconditioned_momentum(page: Page) -> str:
    name, keys = "PreconditionedMomentum", []
    right = _lines("root of the box of squares", "pairs seen", len(page["keys"]), (0, 19))
    for entry, label, dash in ((1, "across the ravine", ""), (0, "along it", DASHED)):
        sizes = _root(_held(page, name, "second_moment", entry), 0.99)
        right.inside.append(path(_series(right, sizes), colour(name), 2.2, dash))
        keys.append((label, colour(name), 2.2, dash))
    _legend(right, keys)
    title = "The path of W under preconditioned momentum, and the size of gradients that its box holds"
    return _beside(title, [_ravine(page, name, "Momentum"), right])


def _adam(page: Page) -> str:
    said = _across(page, "Adam")
    right = _lines("across the ravine", "pairs seen", len(said), (-15, 27))
    right.inside.append(_dots(_series(right, said), colour("GradientDescent"), 4))
    momentum = [value / (1 - 0.9**time) for time, value in enumerate(_held(page, "Adam", "m", 1), 1)]
    right.inside.append(path(_series(right, momentum), colour("Adam"), 2.4))
    right.inside.append(path(_series(right, _root(_held(page, "Adam", "v", 1), 0.999)), colour("Adam"), 1.6, DASHED))
    _legend(right, [_DOTS, ("m", colour("Adam"), 2.4, ""), ("root of v", colour("Adam"), 1.6, DASHED)])
    return _beside(
        "The path of W under Adam, and what its two boxes hold", [_ravine(page, "Adam", "GradientDescent"), right]
    )


# --------------------------------------------------------------------------------------------------- memories at work


def _delta_momentum(page: Page) -> str:
    panels, looks = [], {"Momentum": (2.4, ""), "DeltaMomentum": (2.4, "2 5")}
    titles = ("held of the direction that came 20 times", "held of the direction that came once")
    for entry, (title, top) in enumerate(zip(titles, (10, 1.1), strict=True)):
        panel = _lines(title, "writes", 30, (0, top))
        for name, (width, dash) in looks.items():
            held = page["piles"][name][:, entry, entry].tolist()
            panel.inside.append(path(_series(panel, held), colour(name), width, dash))
        panels.append(panel)
    _legend(panels[1], [(name, colour(name), *look) for name, look in looks.items()], left=True)
    return _beside("What a box and a delta memory hold of a repeated and of a rare direction", panels)


_KINDS = {"box": "GradientDescent", "matrix": "DeltaMomentum", "MLP": "DeepMomentum"}


def _deep_momentum(page: Page) -> str:
    line, keys = page["gradient_line"][:, 0].tolist(), [("P", "var(--soft)", 9.0, "")]
    left = Panel.of(((WIDTH - GAP) / 2, HEIGHT), (-2.5, 2.5), (-1.6, 1.6), margins=(24, 8, 40, 34))
    left.axes(5, 5, "gradient", "answer after 5 writes (thin) and 200")
    right = _lines("surprise", "writes", 200, (0.004, 0.4), log=True)
    asked = page["target"](page["gradient_line"])[:, 0].tolist()
    left.inside.append(_faint(path(left.points(line, asked), "var(--soft)", 9)))
    for kind, contender in _KINDS.items():
        for time, width in ((5, 0.9), (200, 2.4)):
            answer = page["answers"][kind][time][:, 0].tolist()
            left.inside.append(path(left.points(line, answer), colour(contender), width))
        right.inside.append(path(_series(right, _smooth(page["falling"][kind], 3)), colour(contender), 1.8))
        keys.append((kind, colour(contender), 2.4, ""))
    _legend(left, keys, left=True)
    for kind in _KINDS:
        right.parts.append(text(right.x(196), right.y(fmean(page["falling"][kind][-20:])) - 12, kind, "", "e"))
    name = "The answers of a box, a matrix and an MLP to a gradient, and their surprise while they learn"
    return _beside(name, [left, right])


def _deeper(page: Page) -> str:
    left = _lines("surprise of the MLP", "writes", 200, (0.001, 0.4), log=True)
    keys = []
    for kind, contender, dash in (
        ("no memory", "GradientDescent", ""),
        ("no memory, lr x 10", "GradientDescent", DASHED),
        ("a box", "Momentum", ""),
    ):
        left.inside.append(path(_series(left, _smooth(page["deeper"][kind], 5)), colour(contender), 1.8, dash))
        keys.append((f"its rule has {kind}", colour(contender), 1.8, dash))
    _legend(left, keys)
    right = _lines("surprise", "steps of the network", 100, (0, 0.62))
    shown = [
        ("the MLP, levels=1", page["depths"][1], "momentum", "DeepMomentum", 6.0, ""),
        ("the MLP, levels=2", page["depths"][2], "momentum", "DeepMomentum2", 1.6, ""),
        ("behind its first matrix", page["depths"][2], "momentum.rule.inner.momentum", "DeepMomentum2", 1.6, DASHED),
        ("behind its second matrix", page["depths"][2], "momentum.rule.outer.momentum", "DeepMomentum2", 1.8, "1 4"),
    ]
    for _, found, memory, contender, width, dash in shown:
        series = _smooth([step[memory] for step in found], 5)
        line = path(_series(right, series)[1:], colour(contender), width, dash)
        right.inside.append(_faint(line) if width > 4 else line)
    _legend(right, [(words, colour(contender), width, dash) for words, _, _, contender, width, dash in shown])
    name = "The surprise of an MLP under three rules, and of the memories of a two-level deep momentum"
    return _beside(name, [left, right])


def _deep_adam(page: Page) -> str:
    panels = []
    titles = (("momentum", "surprise of M: the next gradient", 0.42), ("second_moment", "of V: its square", 1.6))
    for memory, title, top in titles:
        panel, keys = _lines(title, "steps of the network", 150, (0, top)), []
        for inner_lr, label, dash in ((0.5, "written", ""), (0.0, "never written", DASHED)):
            series = _smooth([step[memory] for step in page["deep_adam"][inner_lr]], 9)
            panel.inside.append(path(_series(panel, series), colour("DeepAdam"), 1.7, dash))
            keys.append((label, colour("DeepAdam"), 1.7, dash))
        _legend(panel, keys)
        panels.append(panel)
    return _beside("The surprise of the two MLPs of deep Adam, beside MLPs that are never written", panels)


def _m3(page: Page) -> str:
    fast, slow = page["paces"]["fast"], page["paces"]["slow"]
    panels = []
    for entry, title in ((0, "held of the first task"), (1, "held of the second task (shaded: its turn)")):
        panel = Panel.of((WIDTH, 150), (0, len(fast)), (0, 1.05), margins=(24, 60, 40, 34))
        for start in range(20 * entry, len(fast), 40):
            x, width = panel.x(start), panel.x(start + 20) - panel.x(start)
            shade = f'x="{x:.1f}" y="{panel.y.end:.1f}" width="{width:.1f}" height="{panel.y.start - panel.y.end:.1f}"'
            panel.parts.append(f'<rect fill="var(--quiet)" opacity="0.5" {shade}/>')
        panel.axes(8, 4, "steps" if entry else "", title)
        stairs = [(time + late, value) for time, value in enumerate(slow[:, entry].tolist()) for late in (0, 1)]
        panel.inside.append(path(_series(panel, fast[:, entry].tolist()), colour("M3"), 1.6))
        panel.inside.append(path(panel.points(*zip(*stairs, strict=True)), colour("Muon"), 2.4))
        for name, found, contender in (("fast", fast, "M3"), ("slow", slow, "Muon")):
            x, y = panel.x(len(fast)), panel.y(found[-1, entry].item())
            panel.parts += [path([(x + 6, y), (x + 18, y)], colour(contender), 2.4), text(x + 23, y + 4, name)]
        panels.append(panel)
    return _stacked("What a fast and a slow momentum hold of two tasks that take turns", panels)


# -------------------------------------------------------------------------------------------------------------- ground

_DOTS: Key = ("a pair's gradient", "var(--c1)", 0.0, "")


def _lines(title: str, x: str, steps: int, y: tuple[float, float], *, log: bool = False) -> Panel:
    """An empty panel for series over so many steps."""
    panel = Panel.of(((WIDTH - GAP) / 2, HEIGHT), (0, steps), y, margins=(24, 12, 40, 40), log_y=log)
    panel.axes(5, 5, x, title)
    return panel


def _series(panel: Panel, values: Sequence[float]) -> list[tuple[float, float]]:
    """The values after steps 1, 2, ... in user units."""
    return panel.points(range(1, len(values) + 1), values)


def _smooth(values: Sequence[float], width: int) -> list[float]:
    """The mean of the latest ``width`` values at every step."""
    return [fmean(values[max(0, end - width) : end]) for end in range(1, len(values) + 1)]


def _dots(points: Sequence[tuple[float, float]], paint: str, size: float) -> str:
    where = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    return f'<path class="l" d="{where}" stroke="{paint}" stroke-width="{size:g}"/>'


def _faint(line: str) -> str:
    """A line behind the others."""
    return f'<g opacity="0.45">{line}</g>'


def _ring(place: tuple[float, float]) -> str:
    x, y = place
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="var(--paper)" stroke="var(--ink)" stroke-width="1.5"/>'


def _legend(panel: Panel, keys: Sequence[Key], *, left: bool = False) -> None:
    """What the lines are, at the top right of a panel or at its top left; a width of zero stands for a dot."""
    x = panel.x.start + 12 if left else panel.x.end - 30 - 6.4 * max(len(words) for words, *_ in keys)
    for row, (words, paint, width, dash) in enumerate(keys):
        y = panel.y.end + 13 + 17 * row
        mark = path([(x, y), (x + 20, y)], paint, width, dash) if width else _dots([(x + 10, y)], paint, 4.5)
        panel.parts += [_faint(mark) if width > 4 else mark, text(x + 27, y + 4, words)]


def _beside(name: str, panels: Sequence[Panel]) -> str:
    """Panels from left to right as one picture."""
    parts, x = [], 0.0
    for panel in panels:
        parts.append(_moved(panel, x, 0.0))
        x += panel.width + GAP
    return picture(x - GAP, max(panel.height for panel in panels), name, parts)


def _stacked(name: str, panels: Sequence[Panel]) -> str:
    """Panels from top to bottom as one picture."""
    parts, y = [], 0.0
    for panel in panels:
        parts.append(_moved(panel, 0.0, y))
        y += panel.height
    return picture(max(panel.width for panel in panels), y, name, parts)


def _moved(panel: Panel, x: float, y: float) -> str:
    """A panel without its own frame, at another place."""
    whole = panel.done("")
    return f'<g transform="translate({x:g} {y:g})">{whole[whole.index(">") + 1 : -len("</svg>")]}</g>'
