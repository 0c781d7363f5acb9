"""Carry the plan out in a folder: the best rate of each optimizer on each task, by a walk in steps of two.

What is known lies in ``found.jsonl``, a line for each walk that has ended. A folder that was begun is continued; lines
of another plan for the task are passed over.
"""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from experiments.optimizers.from_adamw.plan import ADAMW, Entrant, Place, Plan
from nestlearn.comparison.executors import open_pool

__all__ = ["Found", "Losses", "best", "carry_out", "score", "train", "walk"]

Losses = tuple[float, float]
"""Of a run, on the validation and on the test split; infinite where it diverged."""

Found = dict[str, dict[str, dict[int, list[Losses]]]]
"""By task, optimizer and steps of two from AdamW's rate (AdamW's own: from ``first``), the losses of every seed."""

Job = tuple[str, Entrant, Callable[[], dict[int, list[Losses]]]]
"""A task's name, the optimizer, and what gives its runs."""

DIVERGED = (math.inf, math.inf)


def train(place: Place, entrant: Entrant, lr: float, elementwise_lr: float | None, seed: int) -> Losses:
    """One run, as a loop of one's own has it; the rates fall to zero in a line."""
    torch.manual_seed(seed)
    task = place.make()
    model = task.build(seed)
    optimizer = entrant.make(model, lr, elementwise_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / place.steps)
    try:
        for _, batch in zip(range(place.steps), task.batches(seed), strict=False):
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()
            schedule.step()
    except (FloatingPointError, torch.linalg.LinAlgError):
        return DIVERGED
    validation, test = (task.evaluate(model, split)["loss"] for split in ("validation", "test"))
    return (validation, test) if math.isfinite(validation + test) else DIVERGED


def walk(run: Callable[[int], list[Losses]], known: dict[int, list[Losses]], start: int, plan: Plan) -> None:
    """Run steps from ``start`` on until the best has ``around`` others on either side; fills ``known``."""
    wanted = [start]
    while wanted:
        for step in wanted:
            known[step] = run(step)
        middle = best(known)
        reach = range(middle - plan.around, middle + plan.around + 1)
        wanted = [step for step in reach if step not in known and abs(step - start) <= plan.widest]


def score(runs: Iterable[Losses]) -> float:
    """What a choice is made by: the mean validation loss."""
    return mean(validation for validation, _ in runs)


def best(known: Mapping[int, list[Losses]], indifferent: float = 0.0) -> int:
    """The smallest step whose mean validation loss is the lowest, or above it by no more than ``indifferent``."""
    scores = {step: score(runs) for step, runs in known.items()}
    return min(step for step, value in scores.items() if value <= min(scores.values()) + indifferent)


def carry_out(plan: Plan, folder: Path, workers: int) -> tuple[Found, dict[str, float]]:
    """All walks: AdamW's, those of the others, and then every optimizer at the rates that were best anywhere.

    Returns:
        What was found, and AdamW's rate on each task, from which others are counted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "found.jsonl"
    found: Found = {name: {} for name in plan.places}
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        line = json.loads(text)
        if line["place"] in plan.places and line["of"] == _of(plan, line["place"]):
            _take(found, line)
    reference = Entrant(optimizer=ADAMW)
    with open_pool("processes" if workers > 1 else "serial", workers) as pool:

        def end(name: str, entrant: Entrant, future: Future[Any]) -> None:
            line = {"place": name, "of": _of(plan, name), "entrant": entrant.label, "runs": future.result()}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            _take(found, line)
            print(f"{entrant.label} on {name}", file=sys.stderr, flush=True)

        def all_of(jobs: Iterable[Job]) -> None:
            waiting: deque[tuple[str, Entrant, Future[Any]]] = deque()
            for name, entrant, job in jobs:
                waiting.append((name, entrant, pool.executor.submit(job)))
                if len(waiting) >= workers:
                    end(*waiting.popleft())
            while waiting:
                end(*waiting.popleft())

        def walks(entrant: Entrant, rates: Mapping[str, float]) -> Iterator[Job]:
            for name, rate in rates.items():
                if entrant.label not in found[name]:
                    yield name, entrant, partial(_walked, plan, name, entrant, rate)

        all_of(walks(reference, dict.fromkeys(plan.places, plan.first)))
        rates = {
            name: min(plan.first * 2.0 ** best(found[name][ADAMW], plan.indifferent), plan.most) for name in plan.places
        }
        all_of(chain.from_iterable(walks(entrant, rates) for entrant in plan.entrants))
        all_of(_gaps(plan, found, rates))
    return found, rates


def _gaps(plan: Plan, found: Found, rates: Mapping[str, float]) -> Iterator[Job]:
    """What is missing of each optimizer at the rates that were best on any task, and at AdamW's own."""
    for entrant in plan.entrants:
        bests = [best(found[name][entrant.label]) for name in plan.places]
        for name, rate in rates.items():
            wanted = {0, *range(min(bests), max(bests) + 1)} - set(found[name][entrant.label])
            if wanted:
                yield name, entrant, partial(_steps, plan, name, entrant, rate, sorted(wanted))


def _runs(plan: Plan, name: str, entrant: Entrant, rate: float, step: int) -> list[Losses]:
    elementwise = rate if entrant.keeps_rate else None
    return [train(plan.places[name], entrant, rate * 2.0**step, elementwise, seed) for seed in plan.seeds]


def _walked(plan: Plan, name: str, entrant: Entrant, rate: float) -> dict[int, list[Losses]]:
    known: dict[int, list[Losses]] = {}
    walk(partial(_runs, plan, name, entrant, rate), known, entrant.start, plan)
    return known


def _steps(plan: Plan, name: str, entrant: Entrant, rate: float, steps: list[int]) -> dict[int, list[Losses]]:
    return {step: _runs(plan, name, entrant, rate, step) for step in steps}


def _of(plan: Plan, name: str) -> list[Any]:
    """What else the runs of a task depend on: lines of another plan are passed over."""
    how = plan.model_dump(include={"seeds", "first", "around", "widest", "indifferent", "most"}, mode="json")
    return [plan.places[name].model_dump(mode="json"), how]


def _take(found: Found, line: Mapping[str, Any]) -> None:
    known = found[line["place"]].setdefault(line["entrant"], {})
    for step, runs in line["runs"].items():
        known[int(step)] = [(float(validation), float(test)) for validation, test in runs]
