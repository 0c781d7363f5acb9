"""The tables of docs/check.md: what every check asserts, from the code, and who passes, from benchmarks/check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from between_marks import between_marks

from nestlearn.check import CHECKS

__all__ = ["SCORES", "with_check_tables"]

SCORES = Path(__file__).resolve().parents[1] / "benchmarks" / "check" / "results" / "scores.json"


def with_check_tables(page: str, scores: Mapping[str, Any]) -> str:
    """The page with the tables of today between their marks.

    Args:
        scores: what ``python -m benchmarks.check`` wrote.
    """
    return between_marks(between_marks(page, "checks", _checks()), "scores", _scores(scores))


def _checks() -> Iterator[str]:
    yield from ("| check | runs in | asserts |", "| --- | --- | --- |")
    for each in CHECKS.values():
        yield f"| `{each.name}` | {each.where} | {each.sentence} |"


def _scores(scores: Mapping[str, Any]) -> Iterator[str]:
    versions: dict[str, str] = {}
    for label, found in scores.items():
        versions |= {name: version for name, version in found["with"].items() if version}
        versions[label.partition(" ")[0]] = found["version"]
    said = ", ".join(f"{name} {version}".strip() for name, version in versions.items())
    yield from (f"With {said}.", "", "| optimizer | score | passed | fails |", "| --- | --- | --- | --- |")
    for label, found in scores.items():
        passed, failed = found["passed"], found["failed"]
        score = int(100 * passed / (passed + len(failed)))
        fails = ", ".join(f"`{name}`" for name in failed)
        yield f"| {label} | {score}% | {passed} of {passed + len(failed)} | {fails} |"
