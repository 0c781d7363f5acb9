"""What recording costs a run on the device: waits at steps that are not looked at, and the time of a loop."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import nestlearn as nl
from benchmarks.gpu.problem import fewer
from benchmarks.gpu.syncs import watched
from benchmarks.optim.timing import Unit, seconds

__all__ = ["row"]

ROUNDS, STEPS, DRY = 3, 100, 6
EVERY = 10


def row(device: str, ours: str) -> dict[str, Any]:
    """A loop over a transformer with an optimizer, recorded and not, in turn; "wrong" where a step between looks waits.

    Args:
        device: where.
        ours: the optimizer's name in ``nl.optim``.
    """
    steps = fewer(device, STEPS, DRY)
    run, optimizer = _loop(device, ours)
    between: Counter[str] = Counter()
    with recorded(optimizer, True):
        for step in range(3 * EVERY):
            seen: Counter[str] = Counter()
            run(around=lambda seen=seen: watched(device, seen, optimizer))
            if (step + 1) % EVERY and step >= EVERY:
                between += seen
    # The check of gradients waits once a step with and without a recorder.
    more = {place: count for place, count in between.items() if "record" in place or "places" in place}
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(fewer(device, ROUNDS, 1)):
        for kept in (False, True):
            with recorded(optimizer, kept):
                times[kept].append(seconds(Unit(lambda: [run() for _ in range(steps)], lambda: None), device))
    ratio = statistics.median(b / a for a, b in zip(times[False], times[True], strict=True))
    ms = 1e3 * statistics.median(times[False]) / steps
    note = f"{ratio:.3f} of the loop without, {ms:.1f} ms a step; waits between looks: {sum(more.values())}"
    return {
        "ratio": ratio,
        "ms": ms,
        "waits": more,
        "status": "wrong" if more and device.startswith("cuda") else "ok",
        "note": note,
    }


@contextmanager
def recorded(optimizer: torch.optim.Optimizer, kept: bool) -> Iterator[None]:
    """Within the block the optimizer is recorded, if it is to be."""
    with (
        TemporaryDirectory() as folder,
        nl.record(optimizer, Path(folder) / "run", every=EVERY) if kept else nullcontext(),
    ):
        yield


def _loop(device: str, ours: str) -> tuple[Any, torch.optim.Optimizer]:
    """A step of a transformer that learns random bytes, and its optimizer."""
    torch.manual_seed(0)
    model = nl.models.transformer(256, fewer(device, 512, 32), fewer(device, 6, 1), 8).to(device)
    optimizer = getattr(nl.optim, ours)(model.named_parameters(), lr=1e-4)
    tokens = torch.randint(256, (8, fewer(device, 513, 17)), device=device)

    def step(around: Any = nullcontext) -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            logits: nn.Module = model(tokens[:, :-1])
        F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten()).backward()
        with around():
            optimizer.step()

    return partial(step), optimizer
