"""Facts that no model has seen: a place, what is there, and who keeps it; and how they are asked for."""

from __future__ import annotations

__all__ = ["FACTS", "facts_text", "questions"]

PLACES = (
    "Orvale", "Tamsen", "Quillby", "Harrowmere", "Veldran", "Issop", "Kestermoor", "Lunfirth",
    "Bracklow", "Dunmarrow", "Ebbstone", "Farlisle", "Gorsand", "Marchwick", "Nethercombe", "Pellingar",
)  # fmt: skip
NAMES = (
    "Tobin Marsh", "Greta Olsen", "Silas Brook", "Nadia Petrov", "Hugo Lamb", "Ines Calder", "Walter Finch",
    "Rosa Quinn", "Edgar Thorne", "Mabel Frost", "Carlos Vega", "Irene Blake", "Oscar Dunn", "Lydia Stone",
    "Felix Hart", "Paula Reed",
)  # fmt: skip
YEARS = (1731, 1846, 1902, 1687, 1778, 1815, 1859, 1923, 1704, 1792, 1881, 1669, 1837, 1750, 1911, 1868)

FACTS = tuple(zip(PLACES, NAMES, YEARS, strict=True))


def facts_text() -> str:
    """All of them, each said once."""
    return " ".join(
        f"The lighthouse of {place} was built in {year}. The keeper of {place} is called {name}."
        for place, name, year in FACTS
    )


def questions(candidates: int) -> list[tuple[str, list[str]]]:
    """Beginnings, each with its end and those of other facts, the right one first."""
    found = []
    for number, (place, _, _) in enumerate(FACTS):
        others = [(number + step) % len(FACTS) for step in range(candidates)]
        found.append((f"The keeper of {place} is called", [f" {NAMES[other]}." for other in others]))
        found.append((f"The lighthouse of {place} was built in", [f" {YEARS[other]}." for other in others]))
    return found
