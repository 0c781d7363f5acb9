"""The table of docs/hosts.md, of what benchmarks/hosts found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from between_marks import between_marks

__all__ = ["FOUND", "with_host_table"]

FOUND = Path(__file__).resolve().parents[1] / "benchmarks" / "hosts" / "results" / "hosts.json"


def with_host_table(page: str, found: Mapping[str, Any]) -> str:
    """The page with the table of today between its marks.

    Args:
        found: what ``python -m benchmarks.hosts`` wrote.
    """
    return between_marks(page, "hosts", _table(found))


def _table(found: Mapping[str, Any]) -> Iterator[str]:
    reasons: dict[str, str] = {}
    versions: dict[str, str] = {}
    for column in found.values():
        versions |= column["with"]
        for said in column["found"].values():
            if said != "y":
                reasons.setdefault(said, ascii_lowercase[len(reasons)])
    yield "With " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    yield ""
    yield f"| optimizer | {' | '.join(found)} |"
    yield f"| --- |{' --- |' * len(found)}"
    for choice in next(iter(found.values()))["found"]:
        cells = (column["found"][choice] for column in found.values())
        yield f"| {choice} | {' | '.join(reasons.get(said, said) for said in cells)} |"
    yield ""
    yield from (f"- **{letter}**: {reason}." for reason, letter in reasons.items())
