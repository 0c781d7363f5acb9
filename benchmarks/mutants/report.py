"""The verdicts as a table and as a file, with the reasons why a survivor may live."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.mutants.places import FOLDERS
from benchmarks.mutants.trial import Verdict

__all__ = ["REASONS", "line", "read_reasons", "record", "table", "unexplained"]

REASONS = Path(__file__).parent / "reasons.yaml"


def read_reasons(path: Path = REASONS) -> dict[str, str]:
    """Identity of a mutant -> why no test has to notice it."""
    if not path.exists():
        return {}
    return {entry["mutant"]: entry["reason"] for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or ()}


def unexplained(verdicts: Iterable[Verdict], reasons: dict[str, str]) -> list[Verdict]:
    """The mutants that live without a reason."""
    return [each for each in verdicts if each.outcome != "killed" and each.mutant.identity not in reasons]


def line(verdict: Verdict) -> str:
    """One mutant as text."""
    tests = f"{verdict.ran} of {verdict.known} tests"
    how = f"by {verdict.by}" if verdict.by else tests
    return f"{verdict.outcome:<9} {verdict.mutant.identity}  [{how}]"


def table(verdicts: Sequence[Verdict], reasons: dict[str, str]) -> str:
    """A row for each folder: mutants, how many died, how many of the rest have a reason."""
    rows = [f"{'folder':<8} {'mutants':>8} {'killed':>7} {'share':>7} {'explained':>10} {'open':>5}"]
    for folder in (*FOLDERS, "all"):
        these = [each for each in verdicts if folder in ("all", _folder(each))]
        if not these:
            continue
        killed = sum(each.outcome == "killed" for each in these)
        left = len(unexplained(these, reasons))
        explained = len(these) - killed - left
        rows.append(f"{folder:<8} {len(these):>8} {killed:>7} {killed / len(these):>7.1%} {explained:>10} {left:>5}")
    return "\n".join(rows)


def record(verdicts: Sequence[Verdict], tests: int, seconds: float) -> dict[str, Any]:
    """The run as plain data; no host or user name."""
    outcomes = Counter(each.outcome for each in verdicts)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "tests": tests,
        "seconds_of_one_core": round(seconds),
        "mutants": len(verdicts),
        "killed": outcomes["killed"],
        "survived": outcomes["survived"],
        "unreached": outcomes["unreached"],
        "verdicts": [
            {**asdict(each.mutant), "outcome": each.outcome, "by": each.by, "ran": each.ran, "known": each.known}
            for each in verdicts
        ],
    }


def _folder(verdict: Verdict) -> str:
    return Path(verdict.mutant.file).parent.name
