"""The table of docs/development.md that says which folder may import which, made from the rule that the tests hold."""

from __future__ import annotations

from architecture import MAY_IMPORT, NEEDS_EXTRAS, reachable
from between_marks import between_marks

__all__ = ["with_folder_table"]


def with_folder_table(page: str) -> str:
    """The page with the table of today between its two marks."""
    return between_marks(page, "folders", _lines())


def _lines() -> list[str]:
    lines = ["| folder | may import | optional packages |", "| --- | --- | --- |"]
    for folder in MAY_IMPORT:
        below = [name for name in MAY_IMPORT if name in reachable(folder) - {folder}]
        names = ", ".join(f"`{name}`" for name in below) or "none"
        if len(below) > 1 and below == list(MAY_IMPORT)[: len(below)] and list(MAY_IMPORT)[len(below)] == folder:
            names = "all above"
        lines.append(f"| `{folder}` | {names} | {'at the top' if folder in NEEDS_EXTRAS else 'inside functions'} |")
    return lines
