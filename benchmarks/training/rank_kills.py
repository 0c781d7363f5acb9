"""Runs of ``torchrun -m nestlearn train`` of which a rank is killed with SIGKILL, continued, against undisturbed ones.

Rank and moment are drawn: half of the kills come after any row of the run, the other half wait for a checkpoint to be
under way and strike then. Every third run is continued with another number of ranks, and another strategy or none. What
counts in the end is every row of ``metrics.jsonl`` of both seeds, and the last weights: within 1e-9 of those of one
process that nobody disturbed. torchrun must have ended, with a status that is not 0, and no rank may be left behind.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nestlearn.training.checkpoint import Checkpoints

__all__ = ["kill_ranks"]

STEPS, SEEDS, BAR = 24, (0, 1), 1e-9
SIZE = ("dim=16", "heads=2", "depth=2", "context=16", "batch=6", "validation_windows=4", "test_windows=4")
CASES = (("hope", "Nested"), ("titans", "Muon"), ("transformer", "LayerMomentum"), ("hope", "torch.optim.AdamW"))


class Layout(NamedTuple):
    """How many processes share a run, and in which way."""

    ranks: int
    strategy: str


LAYOUTS = (Layout(2, "fsdp2"), Layout(2, "ddp"), Layout(4, "hsdp"), Layout(3, "fsdp2"))
OTHERS = (Layout(1, "none"), *LAYOUTS)


def _command(layout: Layout, options: list[str]) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(layout.ranks)] if layout.ranks > 1 else []
    return [sys.executable, *launcher, "-m", "nestlearn", "train", "--quiet", "--strategy", layout.strategy, *options]


def _start(layout: Layout, options: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(_command(layout, options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(layout: Layout, options: list[str]) -> None:
    process = _start(layout, options)
    said = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"{' '.join(process.args)} ended with status {process.returncode}:\n{said}")


def _rank_ids(launcher: int) -> dict[int, int]:
    """The process of each rank that a launcher has started, as Linux tells it."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (place / "environ").read_bytes().split(b"\0") if parent == launcher else []
        except OSError:  # it ended meanwhile
            continue
        ranks = [entry.partition(b"=")[2] for entry in variables if entry.startswith(b"RANK=")]
        found |= {int(rank): int(place.name) for rank in ranks}
    return found


def _strike(folder: Path, layout: Layout, options: list[str], draw: random.Random, wait: bool) -> dict[str, Any]:
    """Start a run and kill one of its ranks; returns what happened."""
    rank, rows = draw.randrange(layout.ranks), draw.randrange(1, len(SEEDS) * STEPS)
    process = _start(layout, options)

    def sleep_until(there: Callable[[], bool]) -> None:
        while process.poll() is None and not there():
            time.sleep(0.002)

    def written() -> int:
        path = folder / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    sleep_until(lambda: written() >= rows)
    if wait:
        sleep_until(lambda: any((folder / "checkpoints").glob(".*.partial")))
    ids = _rank_ids(process.pid)
    start = time.monotonic()
    if rank in ids:
        os.kill(ids[rank], signal.SIGKILL)
    under_way = any((folder / "checkpoints").glob(".*.partial"))
    said = process.communicate()[0]
    left = [one for one in ids.values() if Path(f"/proc/{one}").exists()]
    return {
        "rank": rank,
        "rows": written(),
        "during_checkpoint": under_way,
        "seconds_to_the_end": round(time.monotonic() - start, 1),
        "died": "SIGKILL" in said,
        "clean": process.returncode != 0 and not left and "another rank is gone" in said,
    }


def _content(folder: Path) -> tuple[list[Any], list[float], list[torch.Tensor]]:
    """What a run left behind: its rows without their numbers, these, and the weights."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = [(row["kind"], row.get("step"), row.get("status"), row.get("run", row.get("key"))) for row in rows]
    numbers = [
        number
        for row in rows
        for number in ((row["loss"],) if "loss" in row else (*row["validation"].values(), *row["test"].values()))
    ]
    weights = []
    for seed in SEEDS:
        content, notes = Checkpoints(folder / "checkpoints", f"seed{seed}").newest()
        if content is None or notes:
            raise RuntimeError(f"{folder} has no whole last checkpoint of seed {seed}: {notes}")
        weights += content["training"]["model"].values()
    return names, numbers, weights


def _difference(one: Path, other: Path) -> tuple[float, float]:
    """The largest difference of a loss or figure, and of a weight; infinite if there are other rows."""
    names, numbers, weights = _content(one)
    names_too, numbers_too, weights_too = _content(other)
    if names != names_too:
        return float("inf"), float("inf")
    losses = max(abs(x - y) for x, y in zip(numbers, numbers_too, strict=True))
    return losses, max(float((x - y).abs().max()) for x, y in zip(weights, weights_too, strict=True))


def kill_ranks(kills: int, seed: int) -> tuple[int, dict[str, Any]]:
    """Kill as many ranks, continue each run, compare; returns the exit status and what belongs into the result file."""
    draw, made, attempt, found = random.Random(seed), 0, 0, list[dict[str, Any]]()
    os.environ["OMP_NUM_THREADS"] = "1"  # torchrun would say that it sets it
    with tempfile.TemporaryDirectory() as place:
        options = []
        for number, (network, optimizer) in enumerate(CASES):
            words = ["--task", "speeches", "--optimizer", optimizer, "--dtype", "float64", "--checkpoint-every", "5"]
            words += ["--steps", str(STEPS), "--seeds", "0..1", "--set", f"rows={STEPS}", "--set", "points=3"]
            words += [word for one in (f"network={network}", *SIZE) for word in ("--set", f"task.{one}")]
            options.append(words)
            _finish(OTHERS[0], [*words, "--out", f"{place}/whole{number}"])
            print(f"undisturbed, in one process: {network}, {optimizer}", flush=True)
        while made < kills:
            case, layout = made % len(CASES), LAYOUTS[made // len(CASES) % len(LAYOUTS)]
            folder, attempt = Path(place) / f"killed{attempt}", attempt + 1
            blow = _strike(folder, layout, [*options[case], "--out", str(folder)], draw, wait=made % 2 == 1)
            if not blow["died"]:
                continue  # it was over before the blow came: no kill
            others = [other for other in OTHERS if other.ranks != layout.ranks]
            then = draw.choice(others) if made % 3 == 0 else layout
            _finish(then, ["--resume", str(folder)])
            losses, weights = _difference(Path(place) / f"whole{case}", folder)
            found.append(
                {"network": CASES[case][0], "optimizer": CASES[case][1], **layout._asdict(), "kill": blow}
                | {"continued": then._asdict(), "losses": losses, "weights": weights}
            )
            made += 1
            print(f"{made}: {CASES[case]}, {layout} then {then}: rank {blow['rank']} killed, {losses:.1e}", flush=True)
    same = sum(max(row["losses"], row["weights"]) <= BAR for row in found)
    clean = sum(row["kill"]["clean"] for row in found)
    changed = sum(row["continued"]["ranks"] != row["ranks"] for row in found)
    print(f"\n{same} of {made} continuations within {BAR:g} of the undisturbed run, {changed} of them with another")
    print(f"number of ranks; {clean} of {made} ended in one line and left no process; bar {kills} of {kills} in both")
    facts = {"kills": made, "same": same, "other_number_of_ranks": changed, "ended_cleanly": clean}
    facts["during_checkpoint"] = sum(row["kill"]["during_checkpoint"] for row in found)
    worst = max(max(row["losses"], row["weights"]) for row in found)
    passed = same == made == clean
    return int(not passed), {**facts, "largest_difference": worst, "passed": passed, "seed": seed, "rows": found}
