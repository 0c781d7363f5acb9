"""Runs checks in processes of their own, watches them, and goes on after one that hangs or dies."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nestlearn.check.outcome import FAILED, NOT_APPLICABLE, Outcome
from nestlearn.check.subject import Subject

__all__ = ["PATIENCE", "launch"]

PATIENCE = 60.0
"""Seconds that a check may take."""

START = 180.0
"""Seconds that processes may take until they begin."""


def launch(
    subject: Subject, names: list[str], ranks: int, patience: float, watch: Callable[[Outcome], None]
) -> list[Outcome]:
    """The outcomes of checks that run in ``ranks`` processes of their own.

    Args:
        patience: seconds that a check may take.
        watch: called with each outcome.
    """
    found: list[Outcome] = []

    def told(outcome: Outcome) -> None:
        found.append(outcome)
        watch(outcome)

    why = _unreachable(subject)
    if why:
        for name in names:
            told(Outcome(name, NOT_APPLICABLE, why))
        return found
    while len(found) < len(names):
        before = len(found)
        problem = _together(subject, names[before:], ranks, patience, told)
        if not problem:
            break
        if problem.name:
            told(problem)
            continue
        for name in names[len(found) :]:
            told(replace(problem, name=name))
    return found


def _unreachable(subject: Subject) -> str:
    """Why no other process can make the optimizer; empty if it can."""
    if getattr(subject.make, "__module__", None) == "__main__":
        return "it is defined in the program itself, where no other process finds it: put it into a module"
    try:
        pickle.dumps(replace(subject))
    except Exception as error:  # noqa: BLE001 - whatever the settings or the class raise
        return f"it cannot be sent to another process: {error}"
    return ""


def _together(
    subject: Subject, names: list[str], ranks: int, patience: float, told: Callable[[Outcome], None]
) -> Outcome | None:
    """Start the processes once, and tell the outcomes. What stopped them is returned: the failure of one check, or of
    all that are left if it has no name.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as text:
        folder = Path(text)
        (folder / "task").write_bytes(pickle.dumps((replace(subject), names, patience)))
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(ranks):
                words = [sys.executable, "-m", "nestlearn.check.child", text, str(rank), str(ranks)]
                with (folder / f"said{rank}").open("wb") as said:
                    environment = {**os.environ, "PYTHONPATH": paths}
                    processes.append(subprocess.Popen(words, env=environment, stdout=said, stderr=subprocess.STDOUT))
            return _follow(folder, processes, names, patience, told)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _follow(
    folder: Path,
    processes: list[subprocess.Popen[bytes]],
    names: list[str],
    patience: float,
    told: Callable[[Outcome], None],
) -> Outcome | None:
    for number, name in enumerate(["", *names]):
        # Ranks that wait for another in vain are told so by torch after `patience`; that message is the better one.
        end = time.monotonic() + (1.5 * patience + 1 if name else START)
        while True:
            lines = [_read(folder / f"rank{rank}") for rank in range(len(processes))]
            missing = [rank for rank, each in enumerate(lines) if len(each) <= number]
            if not missing:
                break
            dead = [rank for rank in missing if processes[rank].poll() is not None]
            if dead:
                last = _last_words(folder / f"said{dead[0]}")
                return Outcome(
                    name, FAILED, f"{_rank(dead[0], processes)} ended with {processes[dead[0]].returncode}{last}"
                )
            if time.monotonic() > end:
                where = " and ".join(_rank(rank, processes) for rank in missing)
                return Outcome(name, FAILED, f"{where} did not come to an end in {patience:g} s")
            time.sleep(0.02)
        if name:
            told(_joined([each[number] for each in lines]))
    return None


def _read(file: Path) -> list[Outcome]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [Outcome(**json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _joined(outcomes: list[Outcome]) -> Outcome:
    """One outcome of all ranks': the first failure, else the first."""
    for rank, outcome in enumerate(outcomes):
        if outcome.status == FAILED:
            where = f"rank {rank}: " if len(outcomes) > 1 else ""
            return replace(outcome, message=where + outcome.message)
    return outcomes[0]


def _rank(rank: int, processes: list[subprocess.Popen[bytes]]) -> str:
    return f"rank {rank}" if len(processes) > 1 else "the process"


def _last_words(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
