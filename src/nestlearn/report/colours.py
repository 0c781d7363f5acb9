"""One colour a contender, the same in every picture: related contenders have related hues, the baseline is the ink
itself.

A colour is a CSS variable with a value for light and one for dark paper, so one picture is readable on both. Every
value stands out from its paper by a contrast of at least 3, the least that WCAG asks of a line; words are never
coloured by contender, but have the ink or the softer ink, which stand out by 4.5 and more.
"""

from __future__ import annotations

from zlib import crc32

__all__ = ["PAPER", "colour", "stylesheet"]

PAPER = {
    "ink": ("#1d2129", "#e6e8ec"),
    "soft": ("#5d6470", "#9aa1ab"),
    "quiet": ("#dfe2e7", "#343942"),
    "paper": ("#fdfdfc", "#14161a"),
    "wash": ("#f4f4f1", "#1c1f25"),
    "good": ("#1a7f4b", "#58c083"),
    "bad": ("#b3261e", "#ff8a80"),
    "link": ("#2c6fc0", "#7cc0f5"),
    "warn": ("#8a5a00", "#e6b450"),
    "shade": ("#1d212924", "#000000a0"),  # of what lies above something else
}
_LIGHT_DARK = {
    "AdamW": PAPER["ink"],
    "GradientDescent": ("#7d838c", "#9aa1ab"),
    "DeltaGradientDescent": ("#8a6f56", "#c0a184"),
    "Momentum": ("#3a8bcb", "#7cc0f5"),
    "DeltaMomentum": ("#2c6fc0", "#5598ec"),
    "PreconditionedMomentum": ("#1f3f8f", "#93a9f5"),
    "DeepMomentum": ("#d46a1f", "#f59a55"),
    "DeepMomentum2": ("#b03a16", "#e2694a"),
    "Adam": ("#2f8f57", "#58c083"),
    "DeepAdam": ("#75900f", "#b3cf46"),
    "SOAP": ("#4c7a2a", "#8fc463"),
    "Muon": ("#7a4fc0", "#ab88ee"),
    "M3": ("#b8479f", "#e583cf"),
    "Nested": ("#0a6e4f", "#35c79a"),
    "SecantMomentum": ("#d0204f", "#ff6288"),
    "LayerMomentum": ("#0b8a90", "#3fc4c9"),
}
_NUMBER = {name: number for number, name in enumerate(_LIGHT_DARK)}
_SPARE = (  # for contenders of the user's own: which one is decided by the name alone
    ("#5a6b8c", "#9fb0d0"),
    ("#94660a", "#e0b04a"),
    ("#a04a6c", "#e091b4"),
    ("#3d7f6b", "#7fc7b1"),
    ("#6d5bb0", "#b3a5ec"),
    ("#a3543f", "#e59a84"),
)


def colour(name: str) -> str:
    """The CSS colour of a contender."""
    number = _NUMBER.get(name, len(_NUMBER) + crc32(name.encode()) % len(_SPARE))
    return f"var(--c{number})"


def stylesheet(dark: bool) -> str:
    """The CSS variables of paper, ink and all contenders, for light or dark paper."""
    named = {**PAPER, **{f"c{number}": pair for number, pair in enumerate([*_LIGHT_DARK.values(), *_SPARE])}}
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in named.items())
