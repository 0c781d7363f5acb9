"""What a recorder takes of a training's time, by the processor's clock, which other processes do not move."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from time import process_time
from typing import Any

import torch
from torch.nn import functional as F

import nestlearn as nl
from nestlearn.integrations import recording

__all__ = ["cost"]

BLOCK = 20
MAKES: dict[str, Callable[[torch.nn.Module], torch.optim.Optimizer]] = {
    "DeepMomentum": lambda model: nl.optim.DeepMomentum(model.named_parameters()),
    "AdamW": lambda model: torch.optim.AdamW(model.named_parameters()),
}


class _Loop:
    """A transformer of 0.5 M parameters that learns random tokens."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model = nl.models.transformer(64, 128, 2, 4)
        self.optimizer = MAKES[name](self.model)
        self.recorder: Any = None
        self.seconds = 0.0

    def train(self, steps: int) -> None:
        start = process_time()
        for _ in range(steps):
            tokens = torch.randint(0, 64, (8, 64))
            loss = F.cross_entropy(self.model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
            self.optimizer.zero_grad()
            loss.backward()
            if self.recorder is not None:
                self.recorder.loss(loss)
            self.optimizer.step()
        self.seconds += process_time() - start


def cost(name: str, steps: int) -> dict[str, Any]:
    """Two trainings in turns, one of them recorded: its recorder's own seconds, and the ratio of both."""
    recording.perf_counter = process_time  # so that the recorder's share is one of the processor's time
    alone, recorded = _Loop(name), _Loop(name)
    for loop in (alone, recorded):
        loop.train(BLOCK)
        loop.seconds = 0.0
    with tempfile.TemporaryDirectory() as folder, nl.record(recorded.optimizer, folder) as recorder:
        recorded.recorder = recorder
        for _ in range(steps // BLOCK):
            alone.train(BLOCK)
            recorded.train(BLOCK)
        rows = len((recorder.folder.path / "writes.jsonl").read_text().splitlines())
        frozen = len(list((recorder.folder.path / "frozen").iterdir()))
        spent = recorder.spent
    return {
        "what": f"recording a training with {name}",
        "steps": steps,
        "looks": rows,
        "frozen": frozen,
        "share": spent / recorded.seconds,
        "ratio": recorded.seconds / alone.seconds,
        "step_ms": 1000 * alone.seconds / steps,
    }
