"""Milliseconds of a training step, the contenders taking turns so that whatever else the machine does meets them all.

A turn is many steps, not one, and a time is a mean over the turn: what a rule does every k steps is in it. The ratio to
the reference is taken turn by turn, and the median over the turns is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

import torch

from nestlearn.training import RunSpec
from nestlearn.training.loop import Training

__all__ = ["Times", "measure"]

STILL = 1e-6  # a learning rate


@dataclass(frozen=True)
class Times:
    """Of one contender: milliseconds of a step, their ratio to the reference's, bytes of state."""

    step_ms: float
    ratio: float
    state_bytes: int


def measure(specs: Mapping[str, RunSpec], reference: str, block: int, rounds: int) -> dict[str, Times]:
    """The times of contenders on one task, with one thread, in this process.

    Args:
        specs: the run of each; how long it is and what it looks at does not matter.
        reference: the name among them to which ratios are taken.
        block: steps in a turn.
        rounds: turns of each; a first one that warms up comes before.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = block * (rounds + 1)
        runs = {name: Training(_still(spec, steps), rows=rounds + 1) for name, spec in specs.items()}
        turns: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds + 1):
            for name, run in runs.items():
                turns[name].append(_turn(run, block))
        bytes_of = {name: run.result().state_bytes for name, run in runs.items()}
    finally:
        torch.set_num_threads(threads)
    return {
        name: Times(
            median(found[1:]),
            median(mine / other for mine, other in zip(found[1:], turns[reference][1:], strict=True)),
            bytes_of[name],
        )
        for name, found in turns.items()
    }


def _still(spec: RunSpec, steps: int) -> RunSpec:
    """The run at rates near zero, on which the cost of a step does not depend: nothing diverges."""
    settings = tuple((name, STILL if name == "lr" else value) for name, value in spec.settings)
    return replace(spec, settings=settings, elementwise_lr=STILL, steps=steps, full=False, warmup=0)


def _turn(run: Training, block: int) -> float:
    """Milliseconds a step of the next steps; only the steps themselves are on the clock."""
    run.clock.collect()
    before = run.clock.seconds
    with run:
        for _ in range(block):
            run.step()
    run.clock.collect()
    return 1e3 * (run.clock.seconds - before) / block
