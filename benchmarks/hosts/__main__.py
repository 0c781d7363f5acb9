"""Train every optimizer in every host: ``python -m benchmarks.hosts [--only Lightning]``, three minutes.

Each trains, saves, resumes in new objects and is compared, bit for bit, with the run that was not interrupted and with
a plain loop. What is found goes into results/hosts.json, host by host; those that are not run again, or not installed,
keep what they had. ``bash dev/docs`` makes the table of docs/hosts.md of it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.hosts.accelerate import forget
from benchmarks.hosts.choices import CHOICES, Choice
from benchmarks.hosts.common import Mode, NotInstalled
from benchmarks.hosts.modes import MODES
from benchmarks.optim.report import save

__all__ = ["RESULTS", "main", "tried"]

RESULTS = Path(__file__).parent / "results" / "hosts.json"
DISTRIBUTIONS = {"ignite": "pytorch-ignite"}
WORKS = "y"


def main() -> None:
    """Train all of them, and write the file after each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="hosts whose name begins with this text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for mode in MODES:
        if not str(mode).startswith(options.only):
            continue
        try:
            row = {str(choice): tried(mode, choice) for choice in CHOICES}
        except NotInstalled as reason:
            print(f"{mode}: {reason}", flush=True)
            continue
        print(f"{mode}: {sum(each == WORKS for each in row.values())} of {len(row)}", flush=True)
        versions = {each: metadata.version(DISTRIBUTIONS.get(each, each)) for each in ("torch", *mode.packages)}
        found[str(mode)] = {"with": versions, "found": row}
        save({known: found[known] for known in map(str, MODES) if known in found}, RESULTS)


def tried(mode: Mode, choice: Choice) -> str:
    """What becomes of an optimizer: "y", or the first sentence of what is said.

    Raises:
        NotInstalled: the host is not there.
    """
    forget()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            mode.run(choice, Path(folder))
    except NotInstalled:
        raise
    except Exception as error:  # noqa: BLE001 - told, whatever it is
        return " ".join(str(error).split()).partition(". ")[0].rstrip(".")
    return WORKS


if __name__ == "__main__":
    main()
