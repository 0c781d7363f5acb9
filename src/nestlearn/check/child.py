"""A process that runs checks for another one: ``python -m nestlearn.check.child FOLDER RANK RANKS``.

It writes a line of JSON for every check, in the file of its rank. Ranks wait for each other after each check, so that
one that failed before a message was sent leaves nobody's later message unanswered.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nestlearn.check.catalogue import CHECKS
from nestlearn.check.outcome import Outcome, tried

__all__ = ["main"]


def main(folder: Path, rank: int, ranks: int) -> None:
    """Run the checks that are named in the folder."""
    torch.set_num_threads(1)
    subject, names, patience = pickle.loads((folder / "task").read_bytes())
    arguments: tuple[Any, ...] = (subject,)
    if ranks > 1:
        import torch.distributed as dist

        from nestlearn.check.ranks import place

        arguments = (subject, place(subject, rank, folder))
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'meeting'}",
            rank=rank,
            world_size=ranks,
            timeout=datetime.timedelta(seconds=patience),
        )
    files = [folder / f"rank{each}" for each in range(ranks)]
    _run(names, arguments, files, files[rank])


def _run(names: list[str], arguments: tuple[Any, ...], files: list[Path], own: Path) -> None:
    with own.open("a", encoding="utf-8") as file:

        def say(outcome: Outcome) -> None:
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()

        say(Outcome("ready", ""))
        for number, name in enumerate(names, start=2):
            say(tried(name, CHECKS[name].function, *arguments))
            _wait(lambda number=number: all(_lines(each) >= number for each in files))  # type: ignore[misc]


def _wait(condition: Callable[[], bool]) -> None:
    """Whoever started the ranks ends them if this never comes."""
    while not condition():
        time.sleep(0.01)


def _lines(file: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return file.read_bytes().count(b"\n")
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
