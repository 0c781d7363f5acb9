"""Runs of ``nestlearn train`` that are killed with SIGKILL at random moments and continued, against undisturbed ones.

Half of the kills come at any moment of the run; the other half wait for a checkpoint to be under way (its unfinished
file is there) and strike then. A killed run may be killed again while it is continued. What counts in the end is the
whole folder: every row of ``metrics.jsonl`` and ``events.jsonl``, ``results.json``, and the last checkpoint of each
seed with its weights, optimizer state and random stream, bit for bit; only times may differ.
"""

import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from nestlearn.training.checkpoint import Checkpoints

__all__ = ["kill_and_resume"]

TIMES = {"seconds", "step_ms", "optimizer_ms", "clock", "files"}
CASES = (
    ("digits", "DeepMomentum", "optimizer.hidden=16", "task.hidden=32"),
    ("digits", "SecantMomentum", "task.hidden=32"),
    ("digits", "Muon", "task.hidden=32", "task.delay=4"),
    (
        "speeches",
        "LayerMomentum",
        "task.dim=16",
        "task.heads=2",
        "task.context=16",
        "task.batch=4",
        "task.validation_windows=8",
        "task.test_windows=8",
    ),
    ("digits", "LBFGS", "task.hidden=32", "optimizer.max_iter=4", "optimizer.lr=0.1"),
)
STEPS, EVERY, SEEDS = 60, 5, "0..1"


@dataclass(frozen=True)
class Kill:
    """One kill: when it came, whether a checkpoint was under way, and whether the run died of it."""

    seconds: float
    during_checkpoint: bool
    died: bool


def _train(options: list[str]) -> None:
    """In a process of its own: ``nestlearn train`` with these options."""
    torch.set_num_threads(1)
    from nestlearn.cli.main import main

    sys.argv = ["nestlearn", "train", "--quiet", *options]
    with open("/dev/null", "w", encoding="utf-8") as sys.stdout:
        main()


def _start(options: list[str]) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")  # torch is loaded there once, not for every run
    context.set_forkserver_preload(["nestlearn.cli.train_job"])
    process = context.Process(target=_train, args=(options,))
    process.start()
    return process


def _finish(options: list[str]) -> float:
    """Run to the end; returns the seconds it took."""
    start = time.monotonic()
    process = _start(options)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"nestlearn train {' '.join(options)} ended with status {process.exitcode}")
    return time.monotonic() - start


def _strike(folder: Path, options: list[str], due: float, wait: bool) -> Kill:
    """Start a run and kill it ``due`` seconds after its folder is there; with ``wait``, at the next checkpoint."""
    process = _start(options)

    def sleep_until(there: Callable[[], bool]) -> None:
        while process.is_alive() and not there():
            time.sleep(0.0005)

    sleep_until((folder / "config.yaml").exists)
    start = time.monotonic()
    sleep_until(lambda: time.monotonic() - start >= due)
    if wait:
        sleep_until(lambda: any((folder / "checkpoints").glob(".*.partial")))
    process.kill()
    process.join()
    under_way = any((folder / "checkpoints").glob(".*.partial"))
    return Kill(time.monotonic() - start, under_way, process.exitcode == -9)


def _content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for name in ("metrics.jsonl", "events.jsonl")
    }
    found["results"] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for run in ("seed0", "seed1"):
        content, notes = Checkpoints(folder / "checkpoints", run).newest()
        if content is None or notes:
            raise RuntimeError(f"{folder} has no whole last checkpoint of {run}: {notes}")
        for rows in ("train", "curve"):  # [step, seconds, loss]
            content["training"][rows] = [[row[0], row[2]] for row in content["training"][rows]]
        found[run] = content
    return found


def _differs(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype != two.dtype or not torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        keys = (one.keys() | two.keys()) - TIMES
        return any(key not in one or key not in two or _differs(one[key], two[key]) for key in keys)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) != len(two) or any(map(_differs, one, two))
    return type(one) is not type(two) or one != two


def kill_and_resume(kills: int, seed: int) -> tuple[int, dict[str, Any]]:
    """Kill as many runs, continue each, compare; returns the exit status and what belongs into the result file."""
    draw, made, same, in_checkpoint, attempt = random.Random(seed), 0, 0, 0, 0
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        references: list[tuple[list[str], float, dict[str, Any]]] = []
        for index, (task, optimizer, *settings) in enumerate(CASES):
            options = ["--task", task, "--optimizer", optimizer, "--steps", str(STEPS), "--seeds", SEEDS]
            options += ["--checkpoint-every", str(EVERY), *(word for one in settings for word in ("--set", one))]
            folder = Path(place) / f"whole{index}"
            _finish([*options, "--out", str(folder)])  # the first time loads data and code
            taken = _finish([*options, "--out", str(Path(place) / f"again{index}")])
            references.append((options, taken, _content(folder)))
            print(f"undisturbed: {task}, {optimizer}: {taken:.1f} s", flush=True)
        while made < kills:
            index = made % len(CASES)
            options, taken, whole = references[index]
            folder, attempt = Path(place) / f"killed{attempt}", attempt + 1
            begin, going_on = [*options, "--out", str(folder)], ["--resume", str(folder)]
            blows = [_strike(folder, begin, draw.uniform(0, taken), wait=made % 2 == 1)]
            if draw.random() < 0.25:
                blows.append(_strike(folder, going_on, draw.uniform(0, taken), wait=False))
            if not blows[0].died:
                continue  # it was over before the blow came: no kill
            _finish(going_on)
            equal = not _differs(whole, _content(folder))
            made, same = made + 1, same + equal
            in_checkpoint += any(blow.during_checkpoint for blow in blows)
            found.append({"run": " ".join(options), "kills": [vars(blow) for blow in blows], "equal": equal})
            print(f"{same} of {made} bit-equal, {in_checkpoint} killed in a checkpoint; {CASES[index][:2]}", flush=True)
    print(f"\n{same} of {made} continuations bit-equal to the undisturbed run; bar {kills} of {kills}")
    facts = {"kills": made, "bit_equal": same, "during_checkpoint": in_checkpoint, "passed": same == made}
    return int(same != made), {**facts, "seed": seed, "rows": found}
