"""The strokes of a picture: text, wrapped text, boxes, lines and arrows, as SVG."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Pen"]


@dataclass
class Pen:
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
