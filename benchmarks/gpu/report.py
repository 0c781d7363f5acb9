"""The file with all rows, and a row as a line of text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.optim.report import save

__all__ = ["RESULTS", "line", "place", "summary", "write"]

RESULTS = Path(__file__).parent / "results"


def place(machine: Mapping[str, Any]) -> Path:
    """The file of a GPU, by its name."""
    return RESULTS / f"{re.sub(r'[^a-z0-9]+', '-', str(machine['device']).lower()).strip('-')}.json"


def write(path: Path, head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Everything so far, whole or not at all."""
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    save({**head, "written": moment, "summary": summary(rows), "rows": list(rows)}, path)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows ended in which way."""
    return dict(Counter(str(row["status"]) for row in rows).most_common())


def line(row: Mapping[str, Any]) -> str:
    """One row as text."""
    return f"{row['status']:<8} {row['seconds']:6.1f} s  {row['name']}: {row['note']}"
