"""A step of the training loop that ``compare`` and ``train`` use, against a loop written by hand for the same work.

The hand-written loop has what training needs and nothing else: a batch, a learning rate, the two passes, the step. Ours
also times its parts, looks out for divergence, records the loss and can stop and go on. Both run on the same task from
the same seed; that both end with the same bits is checked before anything is timed.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from benchmarks.optim.timing import Unit, interleave, settle_allocator
from nestlearn.contenders import Variant, find_contender
from nestlearn.optim import tables
from nestlearn.training.loop import Training
from nestlearn.training.spec import RunSpec

__all__ = ["measure_overhead"]

BAR = 1.03
STEPS = 400  # of a run; when it is over, both sides begin another
BLOCK = 20  # steps between two looks at the clock
TARGET_MS = 100


@dataclass(frozen=True)
class Row:
    """What is timed, by name."""

    name: str
    spec: RunSpec


def _spec(task: str, optimizer: str, **size: int) -> RunSpec:
    # full=False: looks at the validation split are no overhead, and the loop by hand has none.
    lr = find_contender(optimizer).lr
    return RunSpec(task, Variant(optimizer), (("lr", lr),), seed=0, steps=STEPS, size=tuple(size.items()), full=False)


ROWS = (
    Row("digits, AdamW", _spec("digits", "AdamW")),
    Row("digits, SGD", _spec("digits", "SGD")),
    Row("digits, Muon", _spec("digits", "Muon")),
    Row("speeches as in the demo, AdamW", _spec("speeches", "AdamW", dim=32, heads=2, context=32)),
    Row("speeches, AdamW", _spec("speeches", "AdamW")),
)


class _ByHand:
    """The loop written by hand, as an object that can be asked for some more steps."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.task = spec.make_task()
        self.model = self.task.build(spec.seed)
        found = tables(self.model, output=self.task.ends(self.model))
        self.optimizers = spec.contender.make(self.model, tables=found, **spec.arguments)
        self.groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.rates = [group["lr"] for group in self.groups]
        self.batches = self.task.batches(spec.seed)
        self.taken = 0

    def run(self, steps: int) -> None:
        task, model, optimizers = self.task, self.model, self.optimizers
        for _ in range(steps):
            batch = next(self.batches)
            factor = 1.0 - self.taken / self.spec.steps
            for group, rate in zip(self.groups, self.rates, strict=True):
                group["lr"] = rate * factor
            for optimizer in optimizers:
                optimizer.zero_grad()
            task.loss(model, batch).backward()
            for optimizer in optimizers:
                optimizer.step()
            self.taken += 1


class _Ours:
    def __init__(self, spec: RunSpec) -> None:
        self.training = Training(spec)
        self.training.__enter__()  # as ``train`` does, for the whole run
        self.model = self.training.model

    @property
    def taken(self) -> int:
        return self.training.steps_taken

    def run(self, steps: int) -> None:
        training = self.training
        for _ in range(steps):
            training.step()

    def close(self) -> None:
        self.training.__exit__(None, None, None)


def _unit(make: Callable[[], Any], close: Callable[[Any], None] = lambda one: None) -> Unit:
    """Blocks of steps; a run that is over is replaced outside of the clock."""
    current = [make()]

    def prepare() -> None:
        if current[0].taken + BLOCK > STEPS:
            close(current[0])
            current[0] = make()

    return Unit(lambda: current[0].run(BLOCK), prepare)


def _same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def measure_overhead(rounds: int, only: str) -> tuple[int, dict[str, Any]]:
    """Check, time and print every row; returns the exit status and what belongs into the result file."""
    rows = [row for row in ROWS if only.lower() in row.name.lower()]
    for row in rows:
        spec = replace(row.spec, steps=40)
        ours, by_hand = _Ours(spec), _ByHand(spec)
        ours.run(40)
        ours.close()
        by_hand.run(40)
        if not _same(ours.model, by_hand.model):
            print(f"FAIL  {row.name}: the two loops do not end with the same weights; nothing is timed")
            return 2, {}
    settle_allocator()
    print(f"ratio = Training.step / the same by hand, median of {rounds} interleaved pairs; bar {BAR:.2f}\n")
    print(f"{'row':<34} {'ratio':>6}  {'[quartiles]':<16}  {'':<4}  ms a step")
    found = []
    for row in rows:
        measured = interleave(
            _unit(lambda spec=row.spec: _Ours(spec), _Ours.close),  # type: ignore[misc]
            _unit(lambda spec=row.spec: _ByHand(spec)),  # type: ignore[misc]
            device="cpu",
            rounds=rounds,
            cycle=1,
            target_ms=TARGET_MS,
        )
        low, _, high = statistics.quantiles(measured.ratios, n=4, method="inclusive")
        passed = measured.median <= BAR
        print(
            f"{row.name:<34} {measured.median:6.3f}  [{low:.3f}, {high:.3f}]    {'pass' if passed else 'FAIL'}  "
            f"{measured.ours_ms / BLOCK:.3f} / {measured.reference_ms / BLOCK:.3f}",
            flush=True,
        )
        found.append(
            {
                "row": row.name,
                "run": row.spec.key,
                "ratio": measured.median,
                "quartiles": [low, high],
                "bar": BAR,
                "passed": passed,
                "ours_ms": measured.ours_ms / BLOCK,
                "reference_ms": measured.reference_ms / BLOCK,
                "rounds": rounds,
                "steps_per_round": measured.runs_per_round * BLOCK,
            }
        )
    return int(not all(row["passed"] for row in found)), {"clock": "CPU time of the process", "rows": found}
