"""One colour a contender, the same in every picture: related contenders have related hues, the baseline is the ink
itself.

Pictures are drawn with stand-in colours that no picture uses otherwise, and these are replaced in the finished SVG by
CSS variables; so one picture is readable on light and on dark paper.
"""

from __future__ import annotations

import re

__all__ = ["INK", "PAPER", "QUIET", "stand_alone", "stand_in", "stylesheet", "to_css"]

_LIGHT_DARK = {
    "AdamW": ("#1d2129", "#f2f3f5"),
    "GradientDescent": ("#7d838c", "#9aa1ab"),
    "DeltaGradientDescent": ("#8a6f56", "#c0a184"),
    "Momentum": ("#4a9bdc", "#7cc0f5"),
    "DeltaMomentum": ("#2c6fc0", "#5598ec"),
    "PreconditionedMomentum": ("#1f3f8f", "#93a9f5"),
    "DeepMomentum": ("#e0762b", "#f59a55"),
    "DeepMomentum2": ("#b03a16", "#e2694a"),
    "Adam": ("#2f8f57", "#58c083"),
    "DeepAdam": ("#7f9a13", "#b3cf46"),
    "Muon": ("#7a4fc0", "#ab88ee"),
    "M3": ("#b8479f", "#e583cf"),
    "SecantMomentum": ("#d0204f", "#ff6288"),
    "LayerMomentum": ("#0b8a90", "#3fc4c9"),
}
_NAMES = list(_LIGHT_DARK)
_OTHER = ("#6b6f76", "#a0a5ad")  # a contender that has no colour of its own yet

INK, QUIET, PAPER = "#0b0101", "#0b0102", "#0b0103"  # stand-ins for text, for grid lines, for the page itself
_FIXED = {INK: "currentColor", QUIET: "var(--quiet)", PAPER: "var(--paper)"}


def stand_in(name: str) -> str:
    """The colour to draw a contender with; ``to_css`` turns it into that contender's CSS variable."""
    return f"#0c01{_NAMES.index(name):02x}" if name in _LIGHT_DARK else "#0c01ff"


def _variable(index: str) -> str:
    number = int(index, 16)
    return f"var(--c{number if number < len(_NAMES) else 'x'})"


def to_css(svg: str) -> str:
    """Replace the stand-ins in a finished SVG by CSS colours."""
    for colour, css in _FIXED.items():
        svg = svg.replace(colour, css)
    return re.sub(r"#0c01([0-9a-f]{2})", lambda match: _variable(match[1]), svg)


def stylesheet(dark: bool) -> str:
    """The CSS variables of all contenders for light or dark paper."""
    pairs = [*_LIGHT_DARK.values(), _OTHER]
    return " ".join(f"--c{i if i < len(_NAMES) else 'x'}: {pair[dark]};" for i, pair in enumerate(pairs))


def stand_alone(svg: str) -> str:
    """A picture of the report as a file of its own, with its namespace, its colours for both papers, and a font."""
    light = f"color: #1d2129; --quiet: #dfe2e7; --paper: #fdfdfc; {stylesheet(dark=False)}"
    dark = f"color: #e6e8ec; --quiet: #343942; --paper: #14161a; {stylesheet(dark=True)}"
    style = (
        f"svg {{ {light} background: var(--paper); font-family: system-ui, sans-serif; }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}"
    )
    opening = svg.index(">") + 1
    head = svg[:opening]
    if "xmlns=" not in head:
        head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{head}<style>{style}</style>{svg[opening:]}"
