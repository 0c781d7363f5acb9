"""``train``, ``compare`` and ``generate``, killed with SIGKILL at random moments and asked to go on.

Each process is forked from one that has imported everything, so a kill costs what the run costs. A run that was killed
is continued, and has to end as one that was not; times differ. The memory of ``generate`` has to be whole after every
kill: the old one or the new one.
"""

import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from nestlearn.models import load_state
from nestlearn.training import RunFolder, load_trained

__all__ = ["kill_all"]

TRAIN = (
    *("--task", "digits", "--optimizer", "DeepMomentum", "--set", "optimizer.hidden=8", "--set", "task.hidden=16"),
    *("--steps", "60", "--seeds", "0..1", "--checkpoint-every", "5"),
)
COMPARE = (
    *("--tasks", "digits", "--optimizers", "Momentum", "--steps", "6", "--seeds", "0", "--workers", "1"),
    *("--set", "grow=0", "--set", "lr_points=2"),
)
SPEAKER = (
    *("--task", "speeches", "--optimizer", "Adam", "--steps", "2", "--set", "task.network=gated_delta_net"),
    *("--set", "task.dim=16", "--set", "task.heads=2", "--set", "task.context=16", "--set", "task.batch=2"),
)
TIMES = {"seconds", "step_ms", "optimizer_ms", "sha256"}


def _command(words: list[str]) -> None:
    """In a process of its own: ``nestlearn`` with these words."""
    torch.set_num_threads(1)
    from nestlearn.cli.main import main

    sys.argv = ["nestlearn", *words]
    with open("/dev/null", "w", encoding="utf-8") as nothing:
        sys.stdout = sys.stderr = nothing
        main()


def _start(*words: object) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.faults.loaders", "nestlearn.cli.train_job", "nestlearn.cli.compare_job",
                                    "nestlearn.cli.generate_job"])  # fmt: skip
    process = context.Process(target=_command, args=([str(word) for word in words],))
    process.start()
    return process


def _finish(*words: object) -> float:
    start, process = time.monotonic(), _start(*words)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"nestlearn {' '.join(map(str, words))} ended with status {process.exitcode}")
    return time.monotonic() - start


def _kill(after: float, *words: object) -> bool:
    """Whether it died of it."""
    process = _start(*words)
    time.sleep(after)
    process.kill()
    process.join()
    return process.exitcode == -9


def _left(folder: Path) -> Any:
    """What a run left, without times: every row of every run, and the results."""
    found = RunFolder(folder).rows()
    rows = {
        key: ([(p.step, p.loss) for p in run.train], [(p.step, p.loss) for p in run.curve], list(run.surprises))
        for key, run in found.runs.items()
    }
    return _timeless(json.loads((folder / "results.json").read_text())), rows, found.notes


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def kill_all(kills: int, seed: int, kept: dict[str, Any], save: Callable[[], None]) -> None:
    """Kill each command until ``kept`` has as many kills; it says which lost something, and is saved after each."""
    for verb, options in (("train", TRAIN), ("compare", COMPARE)):
        _kill_runs(verb, options, kills, seed, kept.setdefault(verb, {"kills": 0, "lost": []}), save)
    _kill_generate(kills, seed, kept.setdefault("generate", {"kills": 0, "lost": []}), save)


def _kill_runs(
    verb: str, options: tuple[str, ...], kills: int, seed: int, found: dict[str, Any], save: Callable[[], None]
) -> None:
    if found["kills"] >= kills:
        return
    with tempfile.TemporaryDirectory() as place:
        _finish(verb, *options, "--out", Path(place) / "first")  # loads data and code
        taken, whole = _finish(verb, *options, "--out", Path(place) / "whole"), _left(Path(place) / "whole")
        attempt = 0
        while found["kills"] < kills:
            attempt += 1
            draw, folder = random.Random(f"{seed}/{verb}/{found['kills']}/{attempt}"), Path(place) / f"killed{attempt}"
            died = _kill(draw.uniform(0, taken), verb, *options, "--out", folder)
            if not (folder / "config.yaml").exists():
                continue  # nothing was begun, so there is nothing to go on with
            while draw.random() < 0.3:
                died = _kill(draw.uniform(0, taken), verb, "--resume", folder) or died
            if not died:
                continue
            try:
                _finish(verb, "--resume", folder)
                lost = "" if _left(folder) == whole else "it ends as another run"
            except (RuntimeError, OSError) as error:
                lost = str(error)
            found["kills"] += 1
            found["lost"] += [{"kill": found["kills"], "what": lost}] if lost else []
            save()
    print(f"{verb:<16}{found['kills']:>7,} kills {len(found['lost']):>4} lost something", flush=True)


def _kill_generate(kills: int, seed: int, found: dict[str, Any], save: Callable[[], None]) -> None:
    if found["kills"] >= kills:
        return
    with tempfile.TemporaryDirectory() as place:
        run, state = Path(place) / "run", Path(place) / "memory"
        _finish("train", *SPEAKER, "--out", run)
        words = ("generate", "--run", run, "--prompt", "We the people", "--tokens", "20", "--state", state)
        taken, model = _finish(*words), load_trained(run).model
        while found["kills"] < kills:
            draw = random.Random(f"{seed}/generate/{found['kills']}/{time.monotonic_ns()}")
            if not _kill(draw.uniform(0.2 * taken, taken), *words):
                continue
            found["kills"] += 1
            try:
                load_state(state, model, batch_size=1)  # type: ignore[arg-type]
            except ValueError as error:
                found["lost"].append({"kill": found["kills"], "what": str(error)})
            save()
        left = [file.name for file in Path(place).iterdir() if file.name not in ("run", "memory")]
        found["unfinished_files"] = len(left)
    print(f"{'generate':<16}{found['kills']:>7,} kills {len(found['lost']):>4} lost something", flush=True)
